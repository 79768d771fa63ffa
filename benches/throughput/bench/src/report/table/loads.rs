//! What packets cost in one scenario.

use std::time::Duration;

use serde::Serialize;

use crate::measure::Sample;
use crate::rounds::{Outcome, Results};
use crate::scenario::Scenario;
use crate::stats::Summary;

/// One scenario.
#[derive(Debug, Serialize)]
pub(crate) struct LoadTable {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The server that ratios are relative to.
    pub(crate) reference: &'static str,
    pub(crate) rows: Vec<LoadRow>,
}

/// One server in one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct LoadRow {
    pub(crate) server: &'static str,
    pub(crate) io: &'static str,
    /// Threads of the server that did the work.
    pub(crate) threads: Summary,
    pub(crate) packets_per_round: u64,
    /// CPU of the server in nanoseconds per packet.
    pub(crate) cpu: Summary,
    /// That, relative to the reference in the same round.
    pub(crate) cpu_ratio: Option<Summary>,
    pub(crate) packets_per_second: Summary,
    /// Share of its core that the generator used.
    pub(crate) generator_busy: Summary,
    /// Share of the time that threads of server and generator wanted to run but something else ran.
    pub(crate) disturbed: Summary,
    pub(crate) latency: Vec<Percentile>,
}

/// A percentile of the latency.
#[derive(Debug, Serialize)]
pub(crate) struct Percentile {
    pub(crate) percent: f64,
    pub(crate) nanoseconds: Summary,
    /// Relative to the reference in the same round.
    pub(crate) ratio: Option<Summary>,
}

pub(crate) const PERCENTS: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// Waiting for a core for less than this share of the time is normal.
const QUIET: f64 = 0.03;

impl LoadTable {
    pub(crate) fn of(results: &Results, reference: &'static str) -> Self {
        let Results { scenario, outcomes } = results;
        let theirs = outcomes.iter().find(|outcome| outcome.server.name == reference);
        let rows = outcomes.iter().filter_map(|outcome| load_row(scenario, outcome, theirs));
        Self { name: scenario.name, what: scenario.what, reference, rows: rows.collect() }
    }
}

/// A warning if something else ran on the two cores for a good part of the time. Servers whose
/// threads wait for each other cannot tell.
pub(super) fn disturbance(tables: &[LoadTable]) -> Option<String> {
    let rows = tables.iter().flat_map(|table| &table.rows);
    let shares = rows.filter(|row| row.threads.median < 2.0).map(|row| row.disturbed.median);
    let share = Summary::of(&shares.collect::<Vec<_>>())?.median;
    (share > QUIET).then(|| {
        format!(
            "The machine was not quiet: server and generator waited {:.0} % of the time for their \
             cores while something else ran.",
            share * 100.0
        )
    })
}

fn load_row(
    scenario: &Scenario,
    outcome: &Outcome,
    reference: Option<&Outcome>,
) -> Option<LoadRow> {
    // The backend of a gateway is on the generator's core. They wait for each other.
    let waited = |sample: &Sample| match scenario.is_gateway() {
        true => sample.server.waited,
        false => sample.server.waited + sample.generator.waited,
    };
    let first = outcome.samples.values().next()?;
    let of = |figure: &dyn Fn(&Sample) -> f64| {
        Summary::of(&outcome.samples.values().map(figure).collect::<Vec<_>>())
    };
    let against = |figure: &dyn Fn(&Sample) -> f64| {
        let theirs = &reference?.samples;
        let ratio = |(round, sample)| Some(figure(sample) / figure(theirs.get(round)?));
        Summary::of(&outcome.samples.iter().filter_map(ratio).collect::<Vec<_>>())
    };
    let percentile = |percent: f64| {
        let figure = move |sample: &Sample| sample.latencies.value_at_percentile(percent) as f64;
        Some(Percentile { percent, nanoseconds: of(&figure)?, ratio: against(&figure) })
    };
    Some(LoadRow {
        server: outcome.server.name,
        io: first.io,
        threads: of(&|sample| sample.threads as f64)?,
        packets_per_round: first.packets,
        cpu: of(&cpu_per_packet)?,
        cpu_ratio: against(&cpu_per_packet),
        packets_per_second: of(&|sample| sample.packets as f64 / sample.wall.as_secs_f64())?,
        generator_busy: of(&|sample| share(sample, sample.generator.ran))?,
        disturbed: of(&|sample| share(sample, waited(sample)))?,
        latency: PERCENTS.into_iter().filter_map(percentile).collect(),
    })
}

fn share(sample: &Sample, time: Duration) -> f64 {
    time.as_secs_f64() / sample.wall.as_secs_f64()
}

fn cpu_per_packet(sample: &Sample) -> f64 {
    sample.server.ran.as_nanos() as f64 / sample.packets as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::account::Account;
    use crate::scenario::SCENARIOS;
    use crate::servers::SERVERS;

    fn sample(cpu: Duration, latency: u64, threads: usize) -> Sample {
        let mut latencies = crate::load::latencies();
        latencies.record(latency).unwrap();
        Sample {
            packets: 1000,
            wall: Duration::from_secs(1),
            server: Account { ran: cpu, waited: Duration::from_millis(500) },
            threads,
            generator: Account::default(),
            latencies,
            io: "epoll",
        }
    }

    /// The first two servers of the table in the first scenario.
    fn results(samples: [Vec<Sample>; 2]) -> Results {
        let outcomes = SERVERS.into_iter().zip(samples).map(|(server, samples)| {
            let mut outcome = Outcome::new(server);
            outcome.samples = (0..).zip(samples).collect();
            outcome
        });
        Results { scenario: SCENARIOS[0], outcomes: outcomes.collect() }
    }

    /// The second server takes half the CPU of the first.
    pub(crate) fn two_servers() -> Results {
        let ms = Duration::from_millis;
        results([
            vec![sample(ms(100), 1000, 1), sample(ms(400), 2000, 1), sample(ms(200), 500, 1)],
            vec![sample(ms(50), 500, 1), sample(ms(200), 1000, 1), sample(ms(100), 250, 1)],
        ])
    }

    /// Goal: rounds differ fourfold, but within each the ratio is the same.
    #[test]
    fn ratios_are_taken_within_a_round_to_the_server_that_was_named() {
        for (reference, ratios) in [(SERVERS[0], [1.0, 0.5]), (SERVERS[1], [2.0, 1.0])] {
            let table = LoadTable::of(&two_servers(), reference.name);
            for (row, ratio) in table.rows.iter().zip(ratios) {
                let cpu = row.cpu_ratio.as_ref().unwrap();
                assert_eq!((cpu.low, cpu.median, cpu.high), (ratio, ratio, ratio));
                let p50 = row.latency[0].ratio.as_ref().unwrap();
                assert!((p50.median - ratio).abs() < 0.01, "{}", p50.median);
            }
        }
    }

    #[test]
    fn without_the_reference_there_are_figures_but_no_ratios() {
        let table = LoadTable::of(&two_servers(), "unknown");
        assert!(table.rows.iter().all(|row| row.cpu_ratio.is_none()));
        assert_eq!(table.rows[0].cpu.median, 200_000.0);
    }

    #[test]
    fn threads_that_wait_for_each_other_are_no_disturbance() {
        let of = |threads| {
            let one = || vec![sample(Duration::from_millis(400), 1, threads)];
            disturbance(&[LoadTable::of(&results([one(), one()]), "c")])
        };
        assert!(of(1).unwrap().contains("50 %"));
        assert_eq!(of(2), None);
    }

    #[test]
    fn a_generator_that_waits_for_the_backend_is_no_disturbance() {
        let scenario = |gateway| SCENARIOS.into_iter().find(|it| it.is_gateway() == gateway);
        let disturbed = |gateway| {
            let mut waits = sample(Duration::from_millis(400), 1, 1);
            waits.generator.waited = Duration::from_millis(250);
            let mut results = results([vec![waits], vec![]]);
            results.scenario = scenario(gateway).unwrap();
            LoadTable::of(&results, "c").rows[0].disturbed.median
        };
        assert_eq!((disturbed(false), disturbed(true)), (0.75, 0.5));
    }
}
