//! Connections that the factory refuses: what their peers see, and that nothing of them stays.

use std::cell::Cell;
use std::rc::Rc;

use condor::{CloseKind, Lines, Refusal};

use crate::rig::{Harness, assert_clean, conclude, options};
use crate::support::{Actor, Seen, Trace, wire};

/// A listener whose factory refuses each connection as the test says, and serves the others. The
/// first connection is served.
struct Gate {
    refusal: Rc<Cell<Option<Refusal>>>,
    trace: Trace,
    first: Harness<Actor>,
}

impl Gate {
    fn new(options: crate::rig::Options) -> Self {
        let (refusal, trace) = (Rc::<Cell<_>>::default(), Trace::default());
        let (next, own): (Rc<Cell<Option<Refusal>>>, _) = (Rc::clone(&refusal), trace.clone());
        let first = Harness::new(options, move |_| match next.take() {
            Some(refusal) => Err(refusal),
            None => Ok(Actor::echo(&own)),
        });
        Self { refusal, trace, first }
    }

    /// The next connection, which is refused in this way.
    fn refused(&self, refusal: Refusal) -> Harness<Actor> {
        self.refusal.set(Some(refusal));
        self.first.connect()
    }
}

/// Goal: a refused connection has no handler and no slot, `terminate` is not called, and it is
/// counted. Then the next client is served. Method: each kind of refusal, at a listener with one
/// place beside the first connection.
#[test]
fn a_refused_connection_has_no_handler_and_keeps_no_slot() {
    let gate = Gate::new(options().max_connections(2));
    let refusals = [Refusal::close(), Refusal::reset(), Refusal::send("no")];
    for (count, refusal) in (1..).zip(refusals) {
        let refused = gate.refused(refusal);
        assert_eq!(refused.closed(), None, "there was no handler to terminate");
        assert!(refused.is_finished() || refused.closed_with_unread_input());
        refused.peer_closes();
        assert!(refused.is_gone());
        let stats = gate.first.stats();
        assert_eq!((stats.refused, stats.open, stats.closed_total()), (count, 1, count - 1));
        assert_eq!(stats.accepted, stats.made + stats.refused);

        let next = gate.first.connect();
        next.receive(wire(&[b"hello"]));
        assert_eq!(next.packets(), [b"hello"]);
        next.peer_closes();
    }
    assert_eq!(gate.first.stats().closed(CloseKind::PeerClosed), 3);
    assert_eq!(gate.trace.read().iter().filter(|seen| matches!(seen, Seen::End(_))).count(), 3);
    conclude(&gate.first);
}

/// Goal: an `Option` refuses, too, and `None` ends the stream without a reset.
#[test]
fn a_factory_may_return_an_option() {
    let mut count = 0;
    let first = Harness::new(options(), move |_| {
        count += 1;
        (count == 1).then(|| Actor::echo(&Trace::default()))
    });
    let second = first.connect();
    assert!(second.is_finished() && !second.closed_with_unread_input());
    assert_eq!((first.stats().made, first.stats().refused), (1, 1));
    conclude(&first);
}

/// Goal: a last packet, and the end of the stream, reach a peer that has sent a request already: no
/// reset destroys them. The slot is kept until the peer has closed. Method: the request is there
/// before the connection is accepted, and more comes afterwards.
#[test]
fn a_last_packet_is_not_destroyed_by_unread_input() {
    let gate = Gate::new(options().max_connections(2));
    let waits = gate.first.connect();
    let refused = gate.refused(Refusal::send("busy"));
    refused.arrive(wire(&[b"request"]));
    waits.peer_closes();
    assert_eq!(refused.packets(), [b"busy"]);
    assert!(refused.is_finished() && !refused.closed_with_unread_input());
    refused.receive(wire(&[b"another", b"and another"]));
    assert!(!refused.is_gone());
    assert_eq!(gate.first.stats().open, 2);
    refused.peer_closes();
    assert!(refused.is_gone() && !refused.closed_with_unread_input());
    let (stats, request) = (gate.first.stats(), wire(&[b"busy"]).len() as u64);
    assert_eq!((stats.packets_in, stats.packets_out, stats.bytes_out), (0, 1, request));
    conclude(&gate.first);
}

/// Goal: `close` ends the stream, and is no reset, if the peer has sent something before.
#[test]
fn a_close_drops_what_the_peer_has_sent() {
    let gate = Gate::new(options().max_connections(2));
    let waits = gate.first.connect();
    let refused = gate.refused(Refusal::close());
    refused.arrive([7; 10_000]);
    waits.peer_closes();
    assert!(refused.is_finished() && refused.is_gone());
    assert!(!refused.closed_with_unread_input());
    conclude(&gate.first);
}

/// Goal: `reset` is a reset, although nothing is unread.
#[test]
fn a_reset_is_a_reset() {
    let gate = Gate::new(options());
    let refused = gate.refused(Refusal::reset());
    assert!(refused.is_gone() && refused.closed_with_unread_input());
    conclude(&gate.first);
}

/// Goal: a last packet that the framing refuses closes the connection, and is counted.
#[test]
fn a_last_packet_that_cannot_be_framed_closes() {
    let gate = Gate::new(options().framing(Lines::new(100)));
    let refused = gate.refused(Refusal::send("two\nlines"));
    assert!(refused.is_finished() && refused.is_gone() && refused.sent().is_empty());
    assert_eq!((gate.first.stats().refused, gate.first.stats().refused_sends), (1, 1));
    let refused = gate.refused(Refusal::send("one line"));
    assert_eq!(refused.sent(), b"one line\n");
    refused.peer_closes();
    conclude(&gate.first);
}

/// Goal: a drain accepts the clients that wait, so the factory may refuse them. It waits for their
/// last packets, and its report has only connections that had a handler. Method: a refused connection
/// lingers, another waits in the backlog, and the first one is served to its end.
#[test]
fn a_drain_reports_no_refused_connection() {
    let gate = Gate::new(options().max_connections(2));
    let lingers = gate.refused(Refusal::send("busy"));
    gate.first.drain();
    assert_eq!(gate.first.report(), None, "one lingers");
    lingers.peer_closes();
    gate.first.peer_closes();
    let report = gate.first.report().expect("both are gone");
    assert_eq!((report.drained, report.forced, report.slowest.len()), (1, 0, 1));
    assert_eq!(lingers.packets(), [b"busy"]);
    assert_clean(&gate.first);
}
