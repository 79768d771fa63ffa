//! Paired rounds: in every round each server runs the scenario once, in turn, so that what slows
//! the machine slows all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cores::Cores;
use crate::interrupt;
use crate::measure::{self, Sample};
use crate::memory::{self, Around, Idle, Passed};
use crate::process::Launch;
use crate::scenario::{Job, Scenario};
use crate::servers::Server;

/// Memory hardly varies between rounds: one for each so many rounds of load tells enough. With 19,000
/// connections one takes long: once half of the local ports are taken, the kernel searches for each.
const LOADS_PER_MEMORY: u32 = 8;

/// A server that has been built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) server: &'static Server,
    pub(crate) program: PathBuf,
    /// The program of the backend, if the server is a gateway.
    pub(crate) backend: Option<PathBuf>,
}

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) scenarios: &'a [&'static Scenario],
    pub(crate) servers: &'a [Built],
    pub(crate) rounds: u32,
    pub(crate) round: Duration,
    pub(crate) idle_counts: &'a [usize],
    pub(crate) cores: Cores,
    /// Where the servers' standard errors go.
    pub(crate) logs: &'a Path,
}

/// What one server did in one scenario, round by round.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) server: &'static Server,
    /// By round.
    pub(crate) samples: BTreeMap<u32, Sample>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) burst: Option<Around>,
    /// A burst after which the memory has to be read once more.
    passed: Option<Passed>,
    /// Why there are no more.
    pub(crate) failure: Option<String>,
}

/// What all servers did in one scenario.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) scenario: &'static Scenario,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Plan<'_> {
    /// Runs everything. Ends early, with what there is, when the user says so.
    pub(crate) fn run(&self) -> Vec<Results> {
        let bar = self.bar();
        let mut all = Vec::new();
        for &scenario in self.scenarios {
            all.push(self.run_scenario(scenario, &bar));
            if interrupt::requested() {
                break;
            }
        }
        bar.finish_and_clear();
        all
    }

    fn bar(&self) -> ProgressBar {
        let measurements = self.scenarios.iter().map(|scenario| {
            self.participants(scenario).count() as u64 * u64::from(self.rounds_of(scenario))
        });
        let style = ProgressStyle::with_template(
            "{bar:30} {pos}/{len}  {elapsed} of about {duration}  {wide_msg}",
        )
        .expect("this template is valid");
        ProgressBar::new(measurements.sum()).with_style(style)
    }

    fn rounds_of(&self, scenario: &Scenario) -> u32 {
        match scenario.job {
            Job::Load(_) | Job::Unix(_) | Job::Gateway(_) => self.rounds,
            Job::Idle { .. } => self.rounds.div_ceil(LOADS_PER_MEMORY),
            Job::Burst { .. } => 1,
        }
    }

    fn participants(&self, scenario: &Scenario) -> impl Iterator<Item = &Built> {
        self.servers.iter().filter(|built| built.server.takes_part(scenario))
    }

    fn run_scenario(&self, scenario: &'static Scenario, bar: &ProgressBar) -> Results {
        let participants: Vec<&Built> = self.participants(scenario).collect();
        let mut outcomes: Vec<Outcome> =
            participants.iter().map(|built| Outcome::new(built.server)).collect();
        let rounds = self.rounds_of(scenario);
        for round in 0..rounds {
            for turn in 0..participants.len() {
                // Each round begins with another server: none is always the one after the heaviest.
                let at = (turn + round as usize) % participants.len();
                let (built, outcome) = (participants[at], &mut outcomes[at]);
                bar.set_message(format!(
                    "{}, round {} of {rounds}: {}",
                    scenario.name,
                    round + 1,
                    built.server.name
                ));
                if outcome.failure.is_none()
                    && let Err(error) = self.measure(scenario, built, round, outcome)
                {
                    outcome.fail(scenario, &error, bar);
                }
                bar.inc(1);
                if interrupt::requested() {
                    return Results { scenario, outcomes };
                }
            }
        }
        bar.set_message(format!("{}, at the end", scenario.name));
        outcomes.iter_mut().for_each(|outcome| outcome.finish(scenario, bar));
        Results { scenario, outcomes }
    }

    fn measure(
        &self,
        scenario: &Scenario,
        built: &Built,
        round: u32,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let launch = self.launch(scenario, built);
        match scenario.job {
            Job::Load(load) | Job::Unix(load) | Job::Gateway(load) => {
                let packets = outcome.samples.values().next().map(|sample| sample.packets);
                outcome.samples.insert(round, measure::loaded(&launch, load, self.round, packets)?);
            }
            Job::Idle { payload } => {
                outcome.idle.push(memory::idle(&launch, payload, self.idle_counts)?);
            }
            Job::Burst { connections, payload, rounds } => {
                outcome.passed = Some(memory::burst(&launch, connections, payload, rounds)?);
            }
        }
        Ok(())
    }

    fn launch<'a>(&'a self, scenario: &Scenario, built: &'a Built) -> Launch<'a> {
        let most = self.idle_counts.iter().copied().max().unwrap_or(0).max(1000);
        let most = most.max(scenario.connections());
        Launch {
            server: built.server,
            program: &built.program,
            backend: built.backend.as_deref(),
            max_connections: most + 100,
            broadcast: scenario.is_broadcast(),
            unix: scenario.is_unix().then(socket_path),
            cores: self.cores,
            errors: self.logs.join(format!("{}.stderr", built.server.name)),
        }
    }
}

/// A path for the server's socket that no other run of the benchmark has. It is short, as such a path
/// has to be.
fn socket_path() -> PathBuf {
    std::env::temp_dir().join(format!("throughput-{}.sock", std::process::id()))
}

impl Outcome {
    pub(crate) fn new(server: &'static Server) -> Self {
        Self {
            server,
            samples: BTreeMap::new(),
            idle: Vec::new(),
            burst: None,
            passed: None,
            failure: None,
        }
    }

    /// What is left to do when all servers had their rounds: the wait after a burst is for all of
    /// them at once.
    fn finish(&mut self, scenario: &Scenario, bar: &ProgressBar) {
        if let Some(passed) = self.passed.take() {
            match passed.wait() {
                Ok(around) => self.burst = Some(around),
                Err(error) => self.fail(scenario, &error, bar),
            }
        }
    }

    /// Notes and shows why there will be no more, unless the user ended it.
    fn fail(&mut self, scenario: &Scenario, error: &Error, bar: &ProgressBar) {
        if !interrupt::requested() {
            self.failure = Some(format!("{error:#}"));
            bar.suspend(|| eprintln!("{} in {}: {error:#}", self.server.name, scenario.name));
        }
    }
}
