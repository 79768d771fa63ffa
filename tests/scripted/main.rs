//! Tests over scripted streams, with a clock that the test moves: no socket, no thread, no sleep.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../both/mod.rs"]
mod both;
#[path = "../support/lines.rs"]
mod lines;
#[path = "../support/mod.rs"]
mod support;

use support::over_script as rig;

mod bookkeeping;
mod calls;
mod clocks;
mod connectors;
mod contract;
mod dials;
#[cfg(panic = "unwind")]
mod every;
mod faulty_network;
mod groups;
mod half_close;
mod intake;
mod life;
#[cfg(panic = "unwind")]
mod log_lines;
mod openings;
mod output;
mod packets;
mod pairs;
mod replies;
mod sharing;
mod timeouts;
#[cfg(panic = "unwind")]
mod trust;
