//! The life of connections: each handler is made once and terminated once, whatever happens to
//! connections and their messages.

use std::cell::Cell;
use std::rc::Rc;

use condor::{Action, CloseReason, Context, Handler, Info, MessageError, ReactorOptions};

use super::{actor, echo};
use crate::rig::{Harness, assert_clean, conclude, options};
use crate::support::{Actor, Seen, Trace, note, order, packet, secs, wire};

// ---- beginnings and ends ----

/// Goal: a peer that closes its sending half gets all its answers. Method: 100 requests and the end
/// in one event.
#[test]
fn a_hundred_requests_and_half_a_close_get_a_hundred_answers() {
    let (harness, _) = echo(options());
    harness.arrive(wire(&[b"request" as &[u8]; 100]));
    harness.peer_closes();
    assert_eq!(harness.packets(), [b"request"; 100]);
    assert_eq!(harness.closed(), Some(CloseReason::PeerClosed));
    assert!(harness.is_finished());
    conclude(&harness);
}

/// Goal: after an `init` that stops only `terminate` is called. Method: with and without a last
/// packet, while packets wait.
#[test]
fn an_init_that_stops_gets_no_packet() {
    for with_answer in [true, false] {
        let trace = Trace::default();
        let own = trace.clone();
        let harness = Harness::new(options().max_connections(1), move |_| {
            Actor::echo(&own).init(move |_| match with_answer {
                true => Action::send_and_stop("go away", CloseReason::Normal),
                false => Action::stop(CloseReason::Normal),
            })
        });
        let next = harness.connect();
        next.receive(wire(&[b"hello"]));
        assert_eq!(trace.read(), [Seen::End(CloseReason::Normal)]);
        let expected: &[&[u8]] = if with_answer { &[b"go away"] } else { &[] };
        assert_eq!(harness.packets(), expected);
        harness.peer_closes();
        assert_eq!(next.packets(), expected);
        assert_eq!(trace.read(), [Seen::End(CloseReason::Normal)]);
        conclude(&next);
    }
}

// ---- panics ----

/// Goal: a factory that panics makes no handler. Its client is gone, and the next one is served.
#[test]
fn a_panicking_factory_closes_the_socket_and_nothing_else() {
    let trace = Trace::default();
    let mut calls = 0;
    let first = Harness::new(options(), move |_| {
        calls += 1;
        assert!(calls != 1, "the factory panics as requested");
        Actor::echo(&trace)
    });
    assert!(first.is_gone());
    assert_eq!(first.closed(), None, "there was no handler to terminate");
    assert_eq!((first.stats().made, first.stats().panics), (0, 1));
    let next = first.connect();
    next.receive(wire(&[b"hello"]));
    assert_eq!(next.packets(), [b"hello"]);
    conclude(&next);
}

/// A panic's payload, or a message, whose drop panics.
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a drop panics");
    }
}

struct Bystander {
    terminated: Rc<Cell<u32>>,
}

impl Handler for Bystander {
    type Message = Option<Bomb>;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        _: &mut Context<'_, Option<Bomb>>,
    ) -> Action<'a> {
        Action::send(packet)
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Option<Bomb>>,
        ctx: &mut Context<'_, Option<Bomb>>,
    ) -> Action<'a> {
        let _ = ctx.send_after(secs(1), Some(Bomb));
        info.default_action()
    }

    fn terminate(self, _: CloseReason) {
        self.terminated.set(self.terminated.get() + 1);
    }
}

/// Goal: messages whose drop panics end no connection: one for a connection that ended, one in a
/// timer of a connection that ends, and one left in the mailbox.
#[test]
fn a_message_whose_drop_panics_ends_no_connection() {
    let terminated = Rc::new(Cell::new(0));
    let count = Rc::clone(&terminated);
    let harness = Harness::new(options(), move |_| Bystander { terminated: count.clone() });
    let other = harness.connect();
    let address = harness.address();
    harness.message(None);
    harness.peer_closes();
    assert_eq!(terminated.get(), 1, "with a timer armed");
    let _ = address.send(Some(Bomb));
    other.receive(wire(&[b"alive"]));
    assert_eq!(other.packets(), [b"alive"]);
    assert_eq!(other.stats().dropped_messages, 1);
    let _ = address.send(Some(Bomb));
    drop((other, harness));
    assert_eq!(terminated.get(), 2);
}

// ---- messages ----

/// Goal: messages are delivered in order, and never inside another callback. Method: a handler sends
/// to itself and to another handler, and records the end of its own callback.
#[test]
fn messages_sent_in_a_callback_come_after_it() {
    let (one, trace) = echo(options());
    let two = one.connect();
    let (to_one, to_two) = (one.address(), two.address());
    one.message(order("outer", move |_| {
        for (address, name) in [(&to_one, "own 1"), (&to_two, "other"), (&to_one, "own 2")] {
            assert!(address.send(note(name)).is_ok());
        }
        Action::send("answered first")
    }));
    assert_eq!(trace.read(), ["outer", "own 1", "other", "own 2"].map(Seen::Message));
    assert_eq!(one.packets(), [b"answered first"]);
    two.peer_closes();
    conclude(&one);
}

struct Counting {
    received: Rc<Cell<u32>>,
}

impl Handler for Counting {
    type Message = &'static str;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        _: &mut Context<'_, &'static str>,
    ) -> Action<'a> {
        Action::send(packet)
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, &'static str>,
        ctx: &mut Context<'_, &'static str>,
    ) -> Action<'a> {
        match info {
            Info::Message("pause") => ctx.pause_reading(),
            Info::Message("resume") => ctx.resume_reading(),
            Info::Message("stop") => return Action::stop(CloseReason::Normal),
            Info::Message(_) => self.received.set(self.received.get() + 1),
            other => return other.default_action(),
        }
        Action::Continue
    }
}

/// Goal: a broadcast reaches every open connection, within the message budget. Method: 300
/// connections, one of them paused, one lingering, with a budget of 100 messages a turn.
#[test]
fn a_broadcast_reaches_every_connection_within_the_budget() {
    let received = Rc::new(Cell::new(0));
    let count = Rc::clone(&received);
    let harness = Harness::with(
        ReactorOptions::new().message_budget(100),
        options().max_connections(1_000),
        move |_| Counting { received: count.clone() },
    );
    let others: Vec<_> = (1..300).map(|_| harness.connect()).collect();
    others[0].message("pause");
    others[1].message("stop");
    others[2].message("stop");
    others[2].peer_closes();
    received.set(0);
    harness.broadcast("hello");
    assert_eq!(received.get(), 298);
    assert!(harness.stats().message_budget_hits >= 2);
    for other in &others {
        other.peer_closes();
    }
    others[0].message("resume");
    conclude(&harness);
}

// ---- drain ----

/// Goal: a drain answers all input that has arrived, accepts clients that wait, and ends idle
/// connections between packets. Method: unread packets, and a client that is not accepted yet.
#[test]
fn a_drain_answers_everything_that_had_arrived() {
    let (one, trace) = echo(options());
    let two = one.connect();
    one.arrive(wire(&[b"unread"]));
    one.drain();
    assert_eq!(one.packets(), [b"unread"]);
    for harness in [&one, &two] {
        assert_eq!(harness.closed(), Some(CloseReason::Shutdown));
        harness.peer_closes();
    }
    let seen = trace.read();
    assert_eq!(seen.iter().filter(|seen| **seen == Seen::Shutdown).count(), 2);
    let report = one.report().unwrap();
    assert_eq!((report.drained, report.forced), (2, 0));
    assert_clean(&one);
    assert!(matches!(one.address().send(note("late")), Err(MessageError::Gone(_))));
}

/// Goal: a handler that paused reading is notified of a drain when it resumes. Method: it pauses at
/// the last packet that has arrived, and resumes.
#[test]
fn a_paused_handler_is_notified_of_a_drain_when_it_resumes() {
    let (harness, trace) = actor(options(), |trace| {
        Actor::echo(trace).packet(|_, ctx| {
            ctx.pause_reading();
            Action::Continue
        })
    });
    harness.arrive(wire(&[b"hold"]));
    harness.drain();
    assert_eq!(trace.read(), [packet(b"hold")]);
    harness.message(order("resume", |ctx| {
        ctx.resume_reading();
        Action::Continue
    }));
    let end = Seen::End(CloseReason::Shutdown);
    assert_eq!(trace.read(), [Seen::Message("resume"), Seen::Shutdown, end]);
    conclude(&harness);
}

// ---- places of connections ----

/// Goal: a factory that panics keeps no place, and frees none that it did not have. Method: room for
/// two connections, one of them taken. Five factories panic. Then one more client is accepted, and
/// the next one waits.
#[test]
fn a_factory_that_panics_keeps_no_place() {
    let trace = Trace::default();
    let mut calls = 0;
    let harness = Harness::new(options().max_connections(2), move |_| {
        calls += 1;
        assert!(calls == 1 || calls > 6, "the factory panics as requested");
        Actor::echo(&trace)
    });
    for nth in 2..=6 {
        assert!(harness.connect().is_gone(), "client {nth} is accepted or waits");
    }
    let served = harness.connect();
    served.receive(wire(&[b"hello"]));
    assert_eq!(served.packets(), [b"hello"]);
    let waits = harness.connect();
    assert!(!waits.is_accepted(), "there is room for two");
    served.peer_closes();
    assert!(waits.is_accepted());
    waits.peer_closes();
    conclude(&harness);
    assert_eq!(harness.stats().panics, 5);
}
