//! The load generator: one thread, one poll, every answer checked.

mod broadcast;
mod burst;
mod churn;
mod closed;
mod crowd;
mod lane;
mod open;
mod progress;
mod pattern;

use anyhow::Result;
use hdrhistogram::Histogram;

pub(crate) use burst::Burst;
pub(crate) use crowd::Crowd;

use crate::address::Address;
use crate::scenario::Load;

/// What the generator reads at once, and at most writes at once.
const CHUNK: usize = 256 * 1024;
/// Events taken from one poll.
const EVENTS: usize = 1024;

/// Latencies in nanoseconds, to three digits.
pub(crate) type Latencies = Histogram<u64>;

/// An empty histogram for anything up to a minute.
pub(crate) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid")
}

/// Connections that are open and ready to be put to work, any number of times.
pub(crate) trait Session {
    /// Sends this many packets (a whole number of portions), checks all their answers, and returns
    /// when the last has come.
    fn run(&mut self, packets: u64, latencies: &mut Latencies) -> Result<()>;
}

/// Opens the connections of a load.
pub(crate) fn open(load: Load, address: &Address) -> Result<Box<dyn Session>> {
    Ok(match load {
        Load::Closed { connections, payload, depth, awake } => {
            Box::new(closed::Closed::connect(address, connections, payload, depth, awake)?)
        }
        Load::Open { connections, payload, rate } => {
            Box::new(open::Open::connect(address, connections, payload, rate)?)
        }
        Load::Churn { at_once, payload } => Box::new(churn::Churn::new(address, at_once, payload)?),
        Load::Broadcast { connections, payload, depth } => {
            Box::new(broadcast::Broadcast::connect(address, connections, payload, depth)?)
        }
    })
}
