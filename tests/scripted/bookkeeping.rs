//! Counts over scripted streams: places in the mailbox, places of connections, and bytes that wait.
//! A count that is wrong by one is noticed only after days.

use condor::testing::{Harness, Leftovers};
use condor::{Action, Address, CloseReason, MessageError, ReactorOptions};

use crate::both::echo;
use crate::rig::{assert_clean, conclude, options};
use crate::support::{Actor, Seen, Trace, note, order, wire};

/// Checks that the mailbox has exactly this many free places.
#[track_caller]
fn takes<M>(count: usize, address: &Address<M>, message: impl Fn() -> M) {
    for nth in 0..count {
        assert!(address.send(message()).is_ok(), "message {nth} of {count} is refused");
    }
    let result = address.send(message());
    assert!(matches!(result, Err(MessageError::Full(_))), "more than {count} messages are taken");
}

/// Goal: a message frees its place in the mailbox once it is handled, neither sooner nor later, and
/// also if it reaches no connection. Method: a mailbox of three places and one message a turn. The
/// messages go to an open connection, to one that lingers, to a slot that has another owner, and to
/// a free slot.
#[test]
fn a_message_that_reaches_no_connection_frees_its_place() {
    let trace = Trace::default();
    let (reactor, options) = (ReactorOptions::new(), options().mailbox_capacity(3));
    let harness = Harness::with(reactor.message_budget(1), options, move |_| Actor::echo(&trace));
    let stopped = || {
        let peer = harness.connect();
        let address = peer.address();
        peer.message(order("stop", |_| Action::stop(CloseReason::Normal)));
        (peer, address)
    };
    let (lingers, lingering) = stopped();
    let (left, replaced) = stopped();
    left.peer_closes();
    let successor = harness.connect();
    let (gone, free) = stopped();
    gone.peer_closes();
    assert!(!lingers.is_gone() && left.is_gone() && gone.is_gone());
    let open = harness.address();
    for (whose, address) in
        [("open", &open), ("lingers", &lingering), ("replaced", &replaced), ("free", &free)]
    {
        for round in 0..3 {
            let before = harness.stats();
            takes(3, address, || note(whose));
            harness.turn();
            takes(1, address, || note(whose));
            harness.run();
            let (delivered, lost) = if whose == "open" { (4, 0) } else { (0, 4) };
            let stats = harness.stats();
            assert_eq!(stats.messages - before.messages, delivered, "{whose}, round {round}");
            assert_eq!(stats.dropped_messages - before.dropped_messages, lost, "{whose}");
        }
    }
    successor.peer_closes();
    lingers.peer_closes();
    conclude(&harness);
}

/// Goal: a message that is being handled takes no place. So a handler that answers each message with
/// another one to itself is not refused, even by the smallest mailbox. Method: a mailbox of one
/// place, and a handler that sends two messages.
#[test]
fn a_message_that_is_being_handled_takes_no_place() {
    let (harness, trace) = echo(options().mailbox_capacity(1));
    harness.message(order("first", |ctx| {
        assert!(ctx.address().send(note("second")).is_ok());
        let result = ctx.address().send(note("third"));
        assert!(matches!(result, Err(MessageError::Full(_))), "one place is taken");
        Action::Continue
    }));
    assert_eq!(trace.read(), ["first", "second"].map(Seen::Message));
    conclude(&harness);
}

/// Goal: `leftovers` counts the bytes that wait in each direction. Method: half a packet, then an
/// answer that the peer does not take, then both, and their end.
#[test]
fn leftovers_tell_of_bytes_in_both_directions() {
    let (harness, _) = echo(options());
    let held = |harness: &Harness<Actor>| {
        let Leftovers { buffers, buffered_bytes, .. } = harness.leftovers();
        (buffers, buffered_bytes)
    };
    assert_eq!(held(&harness), (0, 0));
    harness.receive(b"\x00\x09half");
    assert_eq!(held(&harness), (1, 6));
    harness.peer_stalls();
    harness.receive(b"-done");
    assert_eq!((held(&harness), harness.queued_bytes()), ((1, 11), 11));
    harness.receive(b"\x00\x09one");
    assert_eq!((held(&harness), harness.queued_bytes()), ((2, 5 + 11), 11));
    let other = harness.connect();
    other.peer_stalls();
    other.receive(wire(&[b"another"]));
    assert_eq!(held(&harness), (3, 5 + 11 + 9), "of all connections");
    harness.peer_reads(4);
    assert_eq!(held(&harness), (3, 5 + 7 + 9));
    harness.peer_reads_all();
    assert_eq!(held(&harness), (2, 5 + 9));
    other.peer_reads_all();
    other.peer_closes();
    assert_eq!(held(&harness), (1, 5));
    conclude(&harness);
    assert_clean(&harness);
}
