//! Connections over scripted streams: the crate's own harness, and checks for its end.

use std::sync::mpsc::channel;

pub(crate) use condor::ListenerOptions as Options;
pub(crate) use condor::testing::Harness;
use condor::testing::Leftovers;
use condor::{Action, Handle, Handler, LoopStats};

use super::script::{Actor, order};
use super::secs;

/// Of many cases that differ in a number, each is tried.
pub(crate) const EVERY: usize = 1;

pub(crate) fn options() -> Options {
    Options::port(5555)
}

/// The metrics of the loop so far. A message makes the handler read them.
pub(crate) fn loop_stats(harness: &Harness<Actor>) -> LoopStats {
    let (sender, receiver) = channel();
    harness.message(order("loop stats", move |ctx| {
        let _ = sender.send(ctx.handle().loop_stats().remove(0));
        Action::Continue
    }));
    receiver.recv().expect("the handler has answered")
}

/// The handle of the reactor, which a handler has.
pub(crate) fn handle(harness: &Harness<Actor>) -> Handle {
    let (sender, receiver) = channel();
    harness.message(order("handle", move |ctx| {
        let _ = sender.send(ctx.handle());
        Action::Continue
    }));
    receiver.try_recv().expect("the handler has answered")
}

/// The peer takes all output and closes. Checks that nothing is left.
pub(crate) fn conclude<H: Handler>(harness: &Harness<H>) {
    harness.peer_reads_all();
    harness.peer_closes();
    harness.advance(secs(100));
    assert!(harness.closed().is_some(), "the connection has not ended");
    assert_clean(harness);
}

/// Checks that all connections are gone and that nothing of them is left.
pub(crate) fn assert_clean<H: Handler>(harness: &Harness<H>) {
    let stats = harness.stats();
    assert_eq!(stats.made, stats.terminated, "each handler is terminated once");
    assert_eq!(stats.open, 0);
    assert_eq!(harness.leftovers(), Leftovers::default());
}
