//! condor
#![forbid(unsafe_code)]

mod acceptor;
mod admission;
mod buffer;
pub mod client;
mod clock;
mod connection;
mod dispatch;
mod drain;
mod error;
mod framing;
mod handle;
mod handler;
mod listener;
mod logging;
mod mailbox;
mod options;
mod peer;
mod pulse;
mod reactor;
mod shards;
mod stats;
mod sync;
pub mod testing;
mod timers;
mod token;
mod turn;
mod wheel;

pub use drain::{Drain, Report, Straggler};
pub use error::{CloseReason, Error, FrameError, MessageError, SendError};
pub use framing::{Decode, Framer, Framing, FramingProblem, LengthField, Lines, Output, Raw};
pub use handle::{Handle, ListenerHandle};
pub use handler::{Accepted, Action, Context, Handler, Info, Packet};
pub use mailbox::{Address, ConnectionId};
pub use options::{Findings, ListenerOptions, OptionsError, OptionsWarning, ReactorOptions};
pub use pulse::{Histogram, PulseStats};
pub use reactor::Reactor;
pub use shards::Shards;
pub use stats::{CloseKind, Stats};
pub use timers::TimerId;

/// The rooms without a socket, for this crate's own tests, benches and fuzzers. Not part of the
/// API: anything in here may change in any release.
#[doc(hidden)]
pub mod internals {
    pub use crate::buffer::{Buffer, Pool, Queue};
    pub use crate::framing::{Deframe, Enframe, Prefix, Shape};
    pub use crate::wheel::{Tick, TimerKey, Wheel};
}
