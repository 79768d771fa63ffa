//! What servers keep: for idle connections, and around a burst.

use serde::Serialize;

use crate::memory::{Around, Idle, Resident};
use crate::rounds::{Outcome, Results};
use crate::stats::Summary;

/// One server with idle connections.
#[derive(Debug, Serialize)]
pub(crate) struct IdleRow {
    pub(crate) server: &'static str,
    pub(crate) io: &'static str,
    /// Resident bytes with one connection.
    pub(crate) base: Summary,
    pub(crate) steps: Vec<IdleStep>,
    /// Bytes per connection between the fewest and the most connections.
    pub(crate) slope: Option<Summary>,
    /// CPU in microseconds a second, with the most connections.
    pub(crate) cpu: Summary,
}

#[derive(Debug, Serialize)]
pub(crate) struct IdleStep {
    pub(crate) connections: usize,
    /// Resident bytes above the base, per connection.
    pub(crate) per_connection: Summary,
    /// Resident bytes of the whole process.
    pub(crate) resident: Summary,
}

impl IdleRow {
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        let first = outcome.idle.first()?;
        let over = |figure: &dyn Fn(&Idle) -> f64| {
            Summary::of(&outcome.idle.iter().map(figure).collect::<Vec<_>>())
        };
        let steps = (1..first.steps.len()).filter_map(|at| {
            let per_connection = over(&|idle| between(idle.steps[0], idle.steps[at]))?;
            let resident = over(&|idle| idle.steps[at].bytes as f64)?;
            Some(IdleStep { connections: first.steps[at].connections, per_connection, resident })
        });
        Some(Self {
            server: outcome.server.name,
            io: first.io,
            base: over(&|idle| idle.steps[0].bytes as f64)?,
            steps: steps.collect(),
            slope: (first.steps.len() > 2)
                .then(|| over(&|idle| between(idle.steps[1], idle.steps[idle.steps.len() - 1])))
                .flatten(),
            cpu: over(&|idle| idle.cpu.as_secs_f64() * 1e6)?,
        })
    }
}

/// Bytes per connection added between two steps.
fn between(few: Resident, many: Resident) -> f64 {
    (many.bytes as f64 - few.bytes as f64) / (many.connections - few.connections) as f64
}

/// Servers around a burst.
#[derive(Debug, Serialize)]
pub(crate) struct BurstTable {
    pub(crate) what: &'static str,
    pub(crate) rows: Vec<BurstRow>,
}

/// One server around a burst, in resident bytes. One run.
#[derive(Debug, Serialize)]
pub(crate) struct BurstRow {
    pub(crate) server: &'static str,
    /// With all connections, before the first packet.
    pub(crate) before: u64,
    pub(crate) highest: u64,
    /// Right after the last answer.
    pub(crate) after: u64,
    /// When a minute has passed.
    pub(crate) later: u64,
}

impl BurstTable {
    /// `None` if no server got through one.
    pub(super) fn of(results: &Results) -> Option<Self> {
        let row = |outcome: &Outcome| {
            let Around { before, highest, after, later } = outcome.burst?;
            Some(BurstRow { server: outcome.server.name, before, highest, after, later })
        };
        let rows: Vec<BurstRow> = results.outcomes.iter().filter_map(row).collect();
        (!rows.is_empty()).then_some(Self { what: results.scenario.what, rows })
    }
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
