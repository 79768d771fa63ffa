//! Code and sockets that are given to the reactor and do not keep their promises: drops and loggers
//! that panic, a listening socket that fails.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use condor::testing::Harness;
use condor::{Action, CloseReason, ReactorOptions};
use log::Level;

use crate::both::echo;
use crate::lines::{PANICS, collect, complaints};
use crate::rig::{assert_clean, conclude, options};
use crate::support::{Actor, Seen, Trace, ms, note, order, secs};

/// Owns bytes, and panics when it is dropped.
struct Owner(Vec<u8>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        assert!(thread::panicking(), "the drop of an owner");
    }
}

/// Another connection is served as before.
#[track_caller]
fn is_served(harness: &Harness<Actor>) {
    harness.packet("still served");
    assert_eq!(harness.packets(), [b"still served"]);
}

// ---- drops ----

/// Goal: if the owner of shared bytes panics in its drop, this is counted and logged, the peer gets
/// all bytes, and no connection ends. Method: several owners in one queue, which leave when the peer
/// takes them, and which are dropped with the queue when the peer resets.
#[test]
fn owners_of_shared_bytes_that_panic_end_no_connection() {
    collect();
    let (first, _) = echo(options());
    for resets in [false, true] {
        let before = first.stats().panics;
        let harness = first.connect();
        harness.peer_stalls();
        harness.message(order("shared", |ctx| {
            for letter in [b'a', b'b', b'c'] {
                ctx.send(Bytes::from_owner(Owner(vec![letter; 40_000]))).unwrap();
            }
            Action::Continue
        }));
        assert_eq!(first.stats().panics, before, "they are queued");
        complaints();
        if resets {
            harness.peer_resets();
            assert!(harness.closed().is_some());
        } else {
            harness.peer_reads_all();
            let expected = [b'a', b'b', b'c'].map(|letter| vec![letter; 40_000]);
            assert_eq!(harness.packets(), expected);
            is_served(&harness);
        }
        assert_eq!(first.stats().panics, before + 3);
        let lines = complaints();
        let [(Level::Error, line)] = &lines[..] else { panic!("{lines:?}") };
        let start =
            "listener \"testing\": the drop of shared bytes panicked: the drop of an owner; ";
        assert!(line.starts_with(start), "{line}");
        is_served(&first);
        first.advance(secs(2));
        if !resets {
            harness.peer_closes();
        }
    }
    conclude(&first);
}

/// Goal: an owner that panics in its drop in the middle of a gathered write costs no byte before or
/// after it. Method: owners between copied packets; the peer takes part of the second one first.
#[test]
fn an_owner_that_panics_in_the_middle_of_a_gathered_write_loses_no_byte() {
    let (harness, _) = echo(options());
    harness.peer_stalls();
    harness.peer_reads(60_000);
    harness.message(order("shared", |ctx| {
        for letter in [b'a', b'b', b'c'] {
            ctx.send(Bytes::from_owner(Owner(vec![letter; 40_000]))).unwrap();
            ctx.send("between").unwrap();
        }
        Action::Continue
    }));
    assert_eq!(harness.stats().panics, 1, "the first value has left, the second one in part");
    harness.peer_reads_all();
    assert_eq!(harness.stats().panics, 3);
    let packets = harness.packets();
    assert_eq!(packets.len(), 6);
    for (pair, letter) in packets.chunks(2).zip(*b"abc") {
        assert!(pair[0] == vec![letter; 40_000] && pair[1] == b"between");
    }
    is_served(&harness);
    conclude(&harness);
}

// ---- loggers ----

/// Goal: a logger that panics loses its lines, and nothing else. Method: it panics at every line, while
/// connections come, fail in every way that is logged, and go, and while the listener stops.
#[test]
fn a_logger_that_panics_ends_nothing() {
    collect();
    let (first, trace) = echo(options());
    PANICS.set(true);
    let harness = first.connect();
    is_served(&harness);
    harness.message(order("panic", |_| panic!("in a callback")));
    assert_eq!(harness.closed(), Some(CloseReason::Panicked));
    harness.peer_closes();
    first.connect().receive(b"GET / HTTP/1.1\r\n");
    first.fail_next_accept(ErrorKind::ConnectionAborted);
    first.fail_next_accept(ErrorKind::OutOfMemory);
    let late = first.connect();
    first.advance(ms(100));
    is_served(&late);
    late.peer_closes();
    is_served(&first);
    first.fail_next_accept(ErrorKind::InvalidInput);
    first.connect();
    assert_eq!(first.closed(), Some(CloseReason::Shutdown), "its listening socket has failed");
    first.advance(secs(100));
    PANICS.set(false);
    assert!(trace.read().contains(&Seen::Shutdown));
    assert_clean(&first);
    assert_eq!(first.stats().panics, 1, "the callback's");
}

// ---- a listening socket ----

/// Goal: if the listening socket fails, its connections are drained as by a stop, and this is counted
/// and logged once. Method: an error of `accept` of each kind that means so; a connection in the
/// middle of a packet, which the drain waits for.
#[test]
fn a_listener_whose_socket_fails_is_drained() {
    collect();
    for kind in [ErrorKind::InvalidInput, ErrorKind::InvalidInput] {
        let (first, trace) = echo(options());
        let waits = first.connect();
        waits.receive(b"\x00\x04ha");
        complaints();
        for _ in 0..3 {
            first.fail_next_accept(kind);
        }
        let lost = first.connect();
        assert_eq!(first.closed(), Some(CloseReason::Shutdown));
        assert!(!lost.is_accepted() && waits.closed().is_none());
        let stats = first.stats();
        assert_eq!((stats.listener_failures, stats.accept_errors), (1, 1));
        let lines = complaints();
        let [(Level::Error, line)] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.starts_with("listener \"testing\": the listening socket broke: "), "{line}");
        assert!(line.contains("; the listener stops, and its connections are drained; "), "{line}");
        waits.receive(b"lf");
        assert_eq!(waits.packets(), [b"half"]);
        assert_eq!(waits.closed(), Some(CloseReason::Shutdown));
        first.peer_closes();
        waits.peer_closes();
        assert_eq!(trace.read().iter().filter(|seen| **seen == Seen::Shutdown).count(), 2);
        first.advance(secs(10));
        assert_clean(&first);
    }
}

/// Goal: the drain of a listener whose socket fails has its deadline, and a stop that comes meanwhile
/// gets the report of all of it. Method: a handler that goes on after `Shutdown`.
#[test]
fn a_listener_whose_socket_failed_can_be_stopped_and_ends_by_its_deadline() {
    let trace = Trace::default();
    let first = Harness::new(options().drain_timeout(secs(3)), move |_| Actor::stubborn(&trace));
    let leaves = first.connect();
    first.fail_next_accept(ErrorKind::InvalidInput);
    first.connect();
    first.advance(secs(1));
    leaves.peer_closes();
    first.drain();
    assert_eq!(first.report(), None, "a connection goes on");
    first.advance(ms(1_999));
    assert!(first.closed().is_none());
    first.advance(ms(1));
    assert_eq!(first.closed(), Some(CloseReason::DrainForced));
    let report = first.report().unwrap();
    assert_eq!((report.drained, report.forced), (1, 1));
    assert_eq!(first.stats().listener_failures, 1);
    assert_clean(&first);
}

/// Goal: whatever `accept` returns for ever, the listener does not spin: it pauses. Other connections
/// are served, and a drain is over by its deadline. Method: each kind of error, 10 s long; a connection
/// in the middle of a packet, for the deadline. With a small accept budget, too.
#[test]
fn an_accept_that_fails_for_ever_is_paused_and_holds_up_no_drain() {
    for (kind, most) in [
        (ErrorKind::PermissionDenied, 1),
        (ErrorKind::OutOfMemory, 1),
        (ErrorKind::ConnectionAborted, 64),
        (ErrorKind::Interrupted, 64),
        (ErrorKind::TimedOut, 64),
        (ErrorKind::HostUnreachable, 64),
    ] {
        for budget in [64, 1] {
            let trace = Trace::default();
            let reactor = ReactorOptions::new().accept_budget(budget);
            let options = options().drain_timeout(secs(2)).packet_timeout(secs(60));
            let first = Harness::with(reactor, options, move |_| Actor::echo(&trace));
            let half = first.connect();
            half.receive(b"\x00\x04ha");
            for _ in 0..10_000 {
                first.fail_next_accept(kind);
            }
            let late = first.connect();
            first.advance(secs(10));
            let stats = first.stats();
            assert!(stats.accept_errors <= 101 * most, "{kind:?}: {}", stats.accept_errors);
            assert!((99..=101).contains(&stats.accept_pauses), "{kind:?}: {}", stats.accept_pauses);
            assert!(!late.is_accepted());
            is_served(&first);

            first.drain();
            first.advance(ms(1_999));
            assert_eq!(first.report(), None);
            first.advance(ms(1));
            let report = first.report().unwrap();
            assert_eq!((report.drained, report.forced), (1, 1), "{kind:?}");
            let errors = first.stats().accept_errors - stats.accept_errors;
            assert!(errors <= 2 * most, "{kind:?}: {errors} while it drained");
            first.peer_closes();
            half.peer_closes();
        }
    }
}

/// Goal: failures that concern single connections do not pause accepting while others succeed.
/// Method: as many failures as pause it, with a success among them.
#[test]
fn an_accept_that_succeeds_now_and_then_is_not_paused() {
    let (first, _) = echo(options());
    for _ in 0..3 {
        for _ in 0..63 {
            first.fail_next_accept(ErrorKind::ConnectionAborted);
        }
        let next = first.connect();
        assert!(next.is_accepted());
        next.peer_closes();
    }
    assert_eq!(first.stats().accept_pauses, 0);
    conclude(&first);
}

/// Goal: clients that keep coming do not keep a drain from beginning. Method: far more in the backlog
/// than a kernel queues, and a factory that panics for each, so that no limit on connections stops
/// them. A lack of resources has kept them in the backlog. Some came before, and do not count.
#[test]
fn a_drain_begins_although_clients_keep_coming() {
    let trace = Trace::default();
    let mut made = 0;
    let first = Harness::new(options(), move |_| {
        made += 1;
        assert_eq!(made, 1, "no handler for a later one");
        Actor::echo(&trace)
    });
    let before: Vec<_> = (0..200).map(|_| first.connect()).collect();
    assert_eq!(first.stats().accepted, 201);
    first.fail_next_accept(ErrorKind::OutOfMemory);
    let others: Vec<_> = (0..5_000).map(|_| first.connect()).collect();
    assert_eq!(first.stats().accepted, 201);
    first.drain();
    let accepted = first.stats().accepted - 201;
    assert!((4_096..4_200).contains(&accepted), "{accepted}: those that had connected");
    assert_eq!(first.closed(), Some(CloseReason::Shutdown));
    first.peer_closes();
    drop((before, others));
    assert_clean(&first);
}

// ---- ids ----

/// Goal: a timer's id is no other listener's timer. Method: the same timer on two reactors, cancelled
/// by the id of the other one.
#[test]
fn a_timer_of_another_listener_is_not_cancelled() {
    let [(one, ours), (other, _)] = [echo(options()), echo(options())];
    let ids = Arc::new(Mutex::new(Vec::new()));
    for harness in [&one, &other] {
        let ids = Arc::clone(&ids);
        harness.message(order("set", move |ctx| {
            ids.lock().unwrap().push(ctx.send_after(secs(1), note("fired")).ok().unwrap());
            Action::Continue
        }));
    }
    let theirs = ids.lock().unwrap()[1];
    assert_ne!(ids.lock().unwrap()[0], theirs);
    one.message(order("cancel", move |ctx| {
        assert!(!ctx.cancel(theirs), "it is another listener's");
        Action::Continue
    }));
    one.advance(secs(1));
    assert!(ours.read().contains(&Seen::Message("fired")));
    conclude(&one);
    conclude(&other);
}
