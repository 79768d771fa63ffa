//! The figures: medians over rounds, ratios within rounds.

mod loads;
mod memory;

use serde::Serialize;

#[cfg(test)]
pub(crate) use loads::tests::two_servers;
pub(crate) use loads::{LoadRow, LoadTable, PERCENTS};
pub(crate) use memory::{BurstRow, BurstTable, IdleRow};

use crate::machine::Machine;
use crate::rounds::Results;
use crate::servers::usual_reference;

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
    pub(crate) idle: Vec<IdleRow>,
    pub(crate) burst: Option<BurstTable>,
    /// What a reader should know before believing the figures.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    /// The server that the user wants all ratios to be relative to.
    pub(crate) reference: Option<&'static str>,
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
        let loads = results.iter().filter(|results| results.scenario.is_load());
        let loads: Vec<LoadTable> = loads
            .map(|results| {
                let usual = || usual_reference(results.scenario).name;
                LoadTable::of(results, settings.reference.unwrap_or_else(usual))
            })
            .collect();
        warnings.extend(loads::disturbance(&loads));
        Self {
            failures: failures.collect(),
            loads,
            idle: results
                .iter()
                .flat_map(|results| &results.outcomes)
                .filter_map(IdleRow::of)
                .collect(),
            burst: results.iter().find_map(BurstTable::of),
            machine,
            settings,
            missing,
            warnings,
        }
    }
}
