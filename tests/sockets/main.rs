//! Tests over kernel sockets, with threads and processes.
//!
//! The tests run in parallel in one process. A test that lowers a limit, counts descriptors, or sets
//! something of the whole process runs again in its own process ([`support::child`]).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../both/mod.rs"]
mod both;
#[path = "../support/lines.rs"]
mod lines;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

use support::over_sockets as rig;

mod bookkeeping;
mod calls;
mod client;
mod connectors;
#[cfg(feature = "peer-credentials")]
mod credentials;
mod descriptors;
mod drain;
mod every;
mod examples;
mod fairness;
mod groups;
mod half_close;
mod handles;
mod inherited;
mod intake;
mod listeners;
#[cfg(panic = "unwind")]
mod log_lines;
mod messages;
mod own_loop;
#[cfg(panic = "unwind")]
mod panics;
mod pairs;
mod proxies;
mod replies;
mod restart;
mod scale;
mod shards;
mod slow_readers;
mod stats;
mod unix;
mod unix_streams;
