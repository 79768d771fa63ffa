//! The figures: medians over rounds, ratios within rounds.

use std::time::Duration;

use serde::Serialize;

use crate::machine::Machine;
use crate::measure::{Memory, Resident, Sample};
use crate::rounds::{Outcome, Results};
use crate::servers::REFERENCE;
use crate::stats::Summary;

/// Everything that is reported.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    /// Servers that could not be built.
    pub(crate) missing: Vec<Missing>,
    /// Servers that failed in a scenario.
    pub(crate) failures: Vec<Missing>,
    pub(crate) loads: Vec<LoadTable>,
    pub(crate) memory: Vec<MemoryRow>,
    /// What a reader should know before believing the figures.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) round_ms: u64,
    pub(crate) server_core: usize,
    pub(crate) generator_core: usize,
    pub(crate) complete: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Missing {
    pub(crate) server: &'static str,
    pub(crate) scenario: Option<&'static str>,
    pub(crate) why: String,
}

/// One scenario.
#[derive(Debug, Serialize)]
pub(crate) struct LoadTable {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) rows: Vec<LoadRow>,
}

/// One server in one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct LoadRow {
    pub(crate) server: &'static str,
    pub(crate) io: &'static str,
    pub(crate) packets_per_round: u64,
    /// CPU of the server in nanoseconds per packet.
    pub(crate) cpu: Summary,
    /// That, relative to the reference in the same round.
    pub(crate) cpu_ratio: Option<Summary>,
    pub(crate) packets_per_second: Summary,
    /// Share of its core that the generator used.
    pub(crate) generator_busy: Summary,
    /// Share of the time that server and generator wanted to run but something else ran.
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

/// The memory of one server.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryRow {
    pub(crate) server: &'static str,
    pub(crate) io: &'static str,
    /// Resident bytes with one connection.
    pub(crate) base: Summary,
    pub(crate) steps: Vec<MemoryStep>,
    /// Bytes per connection between the fewest and the most connections.
    pub(crate) slope: Option<Summary>,
}

#[derive(Debug, Serialize)]
pub(crate) struct MemoryStep {
    pub(crate) connections: usize,
    /// Resident bytes above the base, per connection.
    pub(crate) per_connection: Summary,
    /// Resident bytes of the whole process.
    pub(crate) resident: Summary,
}

pub(crate) const PERCENTS: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// Waiting for a core for less than this share of the time is normal.
const QUIET: f64 = 0.03;

impl Report {
    pub(crate) fn new(
        machine: Machine,
        settings: Settings,
        missing: Vec<Missing>,
        mut warnings: Vec<String>,
        results: &[Results],
    ) -> Self {
        let failures = results.iter().flat_map(|results| {
            let scenario = results.scenario.name;
            results.outcomes.iter().filter_map(move |outcome| {
                let why = outcome.failure.clone()?;
                Some(Missing { server: outcome.server.name, scenario: Some(scenario), why })
            })
        });
        let loads = results.iter().filter(|results| !results.scenario.load.is_idle());
        let loads: Vec<LoadTable> = loads.map(load_table).collect();
        warnings.extend(disturbance(&loads));
        Self {
            failures: failures.collect(),
            loads,
            memory: results
                .iter()
                .flat_map(|results| results.outcomes.iter().filter_map(memory_row))
                .collect(),
            machine,
            settings,
            missing,
            warnings,
        }
    }
}

fn load_table(results: &Results) -> LoadTable {
    let reference = results.outcomes.iter().find(|outcome| outcome.server.name == REFERENCE);
    let rows = results.outcomes.iter().filter_map(|outcome| load_row(outcome, reference));
    LoadTable { name: results.scenario.name, what: results.scenario.what, rows: rows.collect() }
}

/// A warning if something else ran on the two cores for a good part of the time.
fn disturbance(tables: &[LoadTable]) -> Option<String> {
    let shares = tables.iter().flat_map(|table| &table.rows).map(|row| row.disturbed.median);
    let share = Summary::of(&shares.collect::<Vec<_>>())?.median;
    (share > QUIET).then(|| {
        format!(
            "The machine was not quiet: server and generator waited {:.0} % of the time for their \
             cores while something else ran.",
            share * 100.0
        )
    })
}

fn load_row(outcome: &Outcome, reference: Option<&Outcome>) -> Option<LoadRow> {
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
        packets_per_round: first.packets,
        cpu: of(&cpu_per_packet)?,
        cpu_ratio: against(&cpu_per_packet),
        packets_per_second: of(&|sample| sample.packets as f64 / sample.wall.as_secs_f64())?,
        generator_busy: of(&|sample| share(sample, sample.generator.ran))?,
        disturbed: of(&|sample| share(sample, sample.server.waited + sample.generator.waited))?,
        latency: PERCENTS.into_iter().filter_map(percentile).collect(),
    })
}

fn share(sample: &Sample, time: Duration) -> f64 {
    time.as_secs_f64() / sample.wall.as_secs_f64()
}

fn cpu_per_packet(sample: &Sample) -> f64 {
    sample.server.ran.as_nanos() as f64 / sample.packets as f64
}

fn memory_row(outcome: &Outcome) -> Option<MemoryRow> {
    let first = outcome.memory.first()?;
    let over = |figure: &dyn Fn(&Memory) -> f64| {
        Summary::of(&outcome.memory.iter().map(figure).collect::<Vec<_>>())
    };
    let steps = (1..first.steps.len()).filter_map(|at| {
        let per_connection = over(&|memory| between(memory.steps[0], memory.steps[at]))?;
        let resident = over(&|memory| memory.steps[at].bytes as f64)?;
        Some(MemoryStep { connections: first.steps[at].connections, per_connection, resident })
    });
    Some(MemoryRow {
        server: outcome.server.name,
        io: first.io,
        base: over(&|memory| memory.steps[0].bytes as f64)?,
        steps: steps.collect(),
        slope: (first.steps.len() > 2)
            .then(|| over(&|memory| between(memory.steps[1], memory.steps[memory.steps.len() - 1])))
            .flatten(),
    })
}

/// Bytes per connection added between two steps.
fn between(few: Resident, many: Resident) -> f64 {
    (many.bytes as f64 - few.bytes as f64) / (many.connections - few.connections) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_per_connection_added() {
        let few = Resident { connections: 1, bytes: 1_000_000 };
        let many = Resident { connections: 1001, bytes: 1_128_000 };
        assert_eq!(between(few, many), 128.0);
    }
}
