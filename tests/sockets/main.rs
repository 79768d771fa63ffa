//! Tests over sockets of the kernel's, with threads and processes.
//!
//! They run side by side in one process: a test that lowers a limit, counts descriptors, or sets
//! what the whole process has, runs again in a process of its own ([`support::child`]).
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
mod client;
mod descriptors;
mod drain;
mod examples;
mod fairness;
mod half_close;
mod inherited;
mod listeners;
#[cfg(panic = "unwind")]
mod log_lines;
mod messages;
mod own_loop;
#[cfg(panic = "unwind")]
mod panics;
mod restart;
mod scale;
mod shards;
mod slow_readers;
mod stats;
