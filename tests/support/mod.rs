//! What all tests share: a handler made of closures, frames, and waits with a deadline.
//!
//! No helper sleeps to give an event time. Each one waits for a condition, and its deadline only
//! fails a test that would hang.
#![allow(dead_code, unused_imports, reason = "each test program uses its share of it")]

use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) mod calls;
pub(crate) mod over_script;
#[cfg(target_os = "linux")]
pub(crate) mod over_sockets;
#[cfg(target_os = "linux")]
mod process;
pub(crate) mod script;
#[cfg(target_os = "linux")]
mod sockets;

#[cfg(target_os = "linux")]
pub(crate) use process::{child, descriptors, is_child, passes};
pub(crate) use script::{Actor, Do, Script, Seen, Trace, note, order, packet};
#[cfg(target_os = "linux")]
pub(crate) use sockets::{Client, First, Server, Starter, drive, inet, over, settle, shards};

/// How long a wait may take before the test fails. It is far longer than any wait should take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "tests wait in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `done`, which it calls every millisecond.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = now() + PATIENCE;
    while !done() {
        assert!(now() < deadline, "waited too long: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// The next value from a channel.
#[track_caller]
pub(crate) fn next<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(PATIENCE).expect("nothing came out of the channel")
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// `payload` after its two-byte length.
pub(crate) fn framed(payload: &[u8]) -> Vec<u8> {
    wire(&[payload])
}

/// These payloads as frames with a two-byte length.
pub(crate) fn wire(payloads: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for payload in payloads {
        wire.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        wire.extend_from_slice(payload);
    }
    wire
}
