//! The life of connections: each handler is made once and terminated once, whatever happens to
//! connections, slots, messages and the listener.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::panic::panic_any;
use std::rc::Rc;

use condor::testing::Harness;
use condor::{
    Action, Address, CloseReason, Context, Endpoint, Handler, Info, LengthField, ListenerOptions,
    MessageError, ReactorOptions, SendError, UnixName,
};

use crate::both::life::Bomb;
use crate::both::{actor, echo};
use crate::rig::{assert_clean, conclude, options};
use crate::support::{Actor, Seen, Trace, ms, note, order, packet, secs, wire};

// ---- slots ----

/// Goal: an event for the previous owner of a slot does not affect the next owner. Method: the
/// stream of a connection that is gone announces every kind of event after the slot is taken again.
#[test]
fn a_stale_event_does_not_touch_the_next_owner_of_the_slot() {
    let (old, trace) = echo(options());
    old.receive(b"\x00\x05he");
    old.peer_closes();
    let new = old.connect();
    new.receive(b"\x00\x05wo");
    trace.read();
    old.disturb();
    old.peer_resets();
    assert_eq!(trace.read(), []);
    assert_eq!(new.closed(), None);
    new.receive(b"rld");
    assert_eq!(new.packets(), [b"world"]);
    conclude(&new);
}

/// Goal: a slot may be taken again while the run queue still has an entry of the previous owner.
/// Method: a connection with unfinished work ends at once; the next one waits for its slot and has
/// work from the start. Debug builds check the lists after each phase.
#[test]
fn a_slot_is_taken_again_while_it_is_queued_for_work() {
    let trace = Trace::default();
    let own = trace.clone();
    let few = ReactorOptions::new().packet_budget(1);
    let first = Harness::with(few, options().max_connections(1), move |_| {
        Actor::echo(&own).init(|ctx| {
            ctx.set_framing(LengthField::U8);
            Action::Continue
        })
    });
    let second = first.connect();
    second.receive(b"\x01d");
    let stop = order("stop", |_| Action::stop(CloseReason::Reset));
    assert_eq!(first.address().send(stop).map_err(|_| "refused"), Ok(()));
    first.receive(b"\x01a\x01b\x01c");
    let seen = [packet(b"a"), Seen::Message("stop"), Seen::End(CloseReason::Reset), packet(b"d")];
    assert_eq!(trace.read(), seen);
    assert_eq!(second.packets(), [b"d"]);
    conclude(&second);
}

/// Goal: a message to a connection that has ended reaches no connection, and is counted. Method: one
/// message to a connection that ended, one after its slot is taken again, and one that is in the
/// mailbox when it ends.
#[test]
fn a_message_never_reaches_the_next_owner_of_the_slot() {
    let (old, trace) = echo(options());
    let address = old.address();
    assert_eq!(address.send(note("in transit")).map_err(|_| "refused"), Ok(()));
    old.arrive(b"");
    old.fail_next_read(ErrorKind::ConnectionReset);
    old.disturb();
    assert_eq!(trace.read(), [Seen::End(CloseReason::Reset)]);
    let _ = address.send(note("to one that ended"));
    let new = old.connect();
    let _ = address.send(note("to the next one"));
    new.run();
    assert_eq!(trace.read(), []);
    assert_eq!(new.stats().dropped_messages, 3);
    assert_ne!(new.address(), address);
    new.message(note("to an open one"));
    assert_eq!(trace.read(), [Seen::Message("to an open one")]);
    conclude(&new);
}

/// Goal: spurious events are harmless. Method: every kind of event, repeatedly, on an idle
/// connection, with half a packet, and with output queued.
#[test]
fn spurious_events_are_harmless() {
    let (harness, trace) = echo(options());
    let disturb = || (0..10).for_each(|_| harness.disturb());
    disturb();
    harness.receive(b"\x00\x05he");
    disturb();
    harness.peer_stalls();
    harness.receive(b"llo");
    disturb();
    assert_eq!(trace.read(), [packet(b"hello")]);
    harness.peer_reads_all();
    assert_eq!(harness.packets(), [b"hello"]);
    conclude(&harness);
}

/// Goal: at the limit clients wait, and lingering connections count. When a slot becomes free the
/// next client is accepted without a new event. Method: a limit of two, three clients.
#[test]
fn at_the_limit_clients_wait_until_a_slot_is_free() {
    let (one, trace) = echo(options().max_connections(2).linger_timeout(secs(5)));
    let two = one.connect();
    let three = one.connect();
    three.receive(wire(&[b"early"]));
    assert!(two.is_accepted() && !three.is_accepted());
    assert_eq!(one.stats().connection_limit_hits, 1);
    one.message(order("stop", |_| Action::stop(CloseReason::Normal)));
    assert!(one.closed().is_some() && !one.is_gone());
    assert!(!three.is_accepted(), "a lingering connection has its slot");
    assert_eq!(one.stats().connection_limit_hits, 1, "counted once, however long it lasts");
    one.advance(secs(5));
    assert!(one.is_gone() && three.is_accepted());
    assert_eq!(three.packets(), [b"early"]);
    assert_eq!(trace.read().len(), 3);
    two.peer_closes();
    conclude(&three);
}

/// Goal: an error of one connection in `accept` does not delay other connections. If resources are
/// missing, the listener waits without a busy loop. Method: errors of both classes.
#[test]
fn errors_of_accept_are_survived() {
    for kind in [ErrorKind::Interrupted, ErrorKind::ConnectionAborted] {
        let (harness, _) = echo(options());
        for _ in 0..10 {
            harness.fail_next_accept(kind);
        }
        let next = harness.connect();
        assert!(next.is_accepted(), "{kind:?}");
        assert_eq!(harness.stats().accept_errors, 10);
        next.peer_closes();
        conclude(&harness);
    }
    let (harness, _) = echo(options());
    harness.fail_next_accept(ErrorKind::OutOfMemory);
    harness.fail_next_accept(ErrorKind::OutOfMemory);
    let next = harness.connect();
    harness.packet("still served");
    assert_eq!(harness.packets(), [b"still served"]);
    harness.advance(ms(100));
    assert!(!next.is_accepted());
    harness.advance(ms(99));
    assert!(!next.is_accepted());
    harness.advance(ms(1));
    assert!(next.is_accepted());
    assert_eq!(harness.stats().accept_pauses, 2);
    next.peer_closes();
    conclude(&harness);
}

/// Goal: while accepting is paused, a slot that becomes free allows exactly one early try. Method: a
/// long lack of resources, and connections that close.
#[test]
fn a_free_slot_allows_one_early_try_per_pause() {
    let (harness, _) = echo(options());
    let others: Vec<_> = (0..5).map(|_| harness.connect()).collect();
    for _ in 0..10 {
        harness.fail_next_accept(ErrorKind::OutOfMemory);
    }
    let next = harness.connect();
    for other in &others {
        other.peer_closes();
    }
    assert_eq!(harness.stats().accept_errors, 2);
    harness.advance(secs(2));
    assert!(next.is_accepted());
    next.peer_closes();
    conclude(&harness);
}

/// Goal: each pause in accepting has its own early try, if the one before is not recent. Method: two
/// pauses, 100 ms apart; the first one ends early, because the early try succeeds.
#[test]
fn an_early_try_that_succeeds_leaves_the_next_pause_its_own() {
    let (harness, _) = echo(options());
    for _ in 0..2 {
        harness.advance(ms(100));
        let other = harness.connect();
        harness.fail_next_accept(ErrorKind::OutOfMemory);
        let next = harness.connect();
        assert!(!next.is_accepted());
        other.peer_closes();
        assert!(next.is_accepted(), "a slot is free, and the clock stands still");
        next.peer_closes();
    }
    conclude(&harness);
}

/// Goal: a socket whose every `accept` fails does not hold up a drain. Method: far more errors than
/// the drain may try.
#[test]
fn a_drain_does_not_wait_for_accepts_that_only_fail() {
    let (harness, _) = echo(options());
    for _ in 0..10_000 {
        harness.fail_next_accept(ErrorKind::ConnectionAborted);
    }
    harness.drain();
    conclude(&harness);
    // The default of `accept_budget`.
    assert_eq!(harness.stats().accept_errors, 64, "one round");
}

// ---- beginnings and ends ----

/// Goal: the factory and `init` get the address of the peer.
#[test]
fn the_factory_gets_the_address_of_the_peer() {
    let seen = Rc::new(RefCell::new(None));
    let recorder = Rc::clone(&seen);
    let trace = Trace::default();
    let first = Harness::new(options(), move |accepted| {
        recorder.replace(Some((accepted.peer_addr(), accepted.id())));
        Actor::echo(&trace).init(|ctx| Action::send(format!("{}", ctx.peer_addr())))
    });
    let addr: Endpoint = "[::ffff:203.0.113.9]:1234".parse().unwrap();
    let harness = first.connect_from(addr);
    assert_eq!(harness.packets(), [b"203.0.113.9:1234"], "shown as IPv4");
    assert_eq!(seen.take(), Some(("203.0.113.9:1234".parse().unwrap(), harness.id().unwrap())));
    first.peer_closes();
    conclude(&harness);
}

/// Goal: every interface reports the same endpoint of a peer, whatever kind it is. Method: one
/// endpoint of each kind, read in the factory, in `init` and in the report of a drain, with both
/// kinds of local endpoint.
#[test]
fn a_peers_endpoint_is_reported_unchanged() {
    for peer_addr in [
        Endpoint::from(([203, 0, 113, 9], 1234)),
        "[fe80::1%7]:9".parse().unwrap(),
        UnixName::unnamed().into(),
        "unix:/run/a client".parse().unwrap(),
        r"unix:@\x00\xff".parse().unwrap(),
    ] {
        let trace = Trace::default();
        let seen = Rc::new(RefCell::new(None));
        let recorder = Rc::clone(&seen);
        let first = Harness::new(options(), move |accepted| {
            recorder.replace(Some(accepted.peer_addr()));
            Actor::echo(&trace).init(|ctx| {
                let local_addr = ctx.local_addr().unwrap();
                Action::send(format!("{} to {local_addr}", ctx.peer_addr()))
            })
        });
        let harness = first.connect_from(peer_addr.clone());
        assert_eq!(harness.packets(), [format!("{peer_addr} to 127.0.0.1:5555").as_bytes()]);
        assert_eq!(seen.take(), Some(peer_addr.clone()));
        first.drain();
        first.peer_closes();
        harness.peer_closes();
        let slowest = first.report().unwrap().slowest;
        assert!(slowest.iter().any(|slow| slow.peer_addr == peer_addr), "{slowest:?}");
        conclude(&harness);
    }
}

/// Goal: the first reason for the end stands, and only `terminate` follows the decision. Method: a
/// stop with output queued, then packets, messages, timers and a reset.
#[test]
fn after_the_end_was_decided_only_terminate_is_called() {
    let (harness, trace) = echo(options());
    harness.peer_stalls();
    harness.message(order("stop", |ctx| {
        let _ = ctx.send_after(ms(1), note("timer"));
        assert_eq!(ctx.send("last"), Ok(()));
        Action::send_and_stop("words", CloseReason::Custom("first"))
    }));
    harness.receive(wire(&[b"packet"]));
    harness.message(note("message"));
    harness.advance(secs(1));
    harness.drain();
    assert_eq!(trace.read(), [Seen::Message("stop")]);
    harness.peer_reads_all();
    assert_eq!(harness.packets(), [b"last" as &[u8], b"words"]);
    assert_eq!(trace.read(), [Seen::End(CloseReason::Custom("first"))]);
    conclude(&harness);
}

/// Goal: if everything is dropped, each handler is terminated once. Method: connections in every
/// state.
#[test]
fn a_drop_terminates_every_handler_once() {
    let (idle, trace) = echo(options());
    let half = idle.connect();
    half.receive([0]);
    let slow = idle.connect();
    slow.peer_stalls();
    slow.receive(wire(&[b"x"]));
    let paused = idle.connect();
    paused.message(order("pause", |ctx| {
        let _ = ctx.send_after(secs(1), note("timer"));
        ctx.pause_reading();
        Action::Continue
    }));
    let lingering = idle.connect();
    lingering.message(order("stop", |_| Action::stop(CloseReason::Normal)));
    let closing = idle.connect();
    closing.peer_stalls();
    closing.message(order("stop", |_| Action::send_and_stop("x", CloseReason::Normal)));
    let address = idle.address();
    let ends =
        |seen: Vec<Seen>| seen.into_iter().filter(|seen| matches!(seen, Seen::End(_))).count();
    assert_eq!(ends(trace.read()), 1, "the lingering one");
    drop((idle, half, slow, paused, lingering, closing));
    assert_eq!(ends(trace.read()), 5);
    assert!(matches!(address.send(note("gone")), Err(MessageError::Gone(_))));
}

// ---- panics ----

/// Where a handler panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Factory,
    Init,
    Packet,
    Message,
    Timer,
    Timeout,
    Terminate,
    Drop,
    DropOfPayload,
}

struct Clumsy {
    at: Where,
    terminated: Rc<Cell<u32>>,
}

impl Clumsy {
    fn panic_if_at(&self, at: Where) {
        assert!(self.at != at, "a handler panics as requested");
    }
}

impl Handler for Clumsy {
    type Message = Option<Bomb>;

    fn init(&mut self, ctx: &mut Context<'_, Option<Bomb>>) -> Action<'_> {
        self.panic_if_at(Where::Init);
        if self.at == Where::Timer {
            let _ = ctx.send_after(ms(1), None);
        }
        Action::Continue
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        _: &mut Context<'_, Option<Bomb>>,
    ) -> Action<'a> {
        if packet == b"now" {
            self.panic_if_at(Where::Packet);
            if self.at == Where::DropOfPayload {
                panic_any(Bomb);
            }
        }
        Action::send(packet)
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Option<Bomb>>,
        _: &mut Context<'_, Option<Bomb>>,
    ) -> Action<'a> {
        match &info {
            Info::Message(_) => {
                self.panic_if_at(Where::Message);
                self.panic_if_at(Where::Timer);
            }
            Info::Timeout(_) => self.panic_if_at(Where::Timeout),
            _ => {}
        }
        info.default_action()
    }

    fn terminate(self, reason: CloseReason) {
        let expected = match self.at {
            Where::Terminate | Where::Drop => CloseReason::PacketTimeout,
            Where::Factory => CloseReason::DrainForced,
            _ => CloseReason::Panicked,
        };
        assert_eq!(reason, expected);
        self.terminated.set(self.terminated.get() + 1);
        self.panic_if_at(Where::Terminate);
    }
}

impl Drop for Clumsy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.panic_if_at(Where::Drop);
        }
    }
}

/// Goal: a panic in any callback ends that one connection. Answers to earlier packets are sent,
/// `terminate` is called once, and other connections continue. Method: each place in turn.
#[test]
fn a_panic_ends_one_connection() {
    for at in [
        Where::Init,
        Where::Packet,
        Where::Message,
        Where::Timer,
        Where::Timeout,
        Where::Terminate,
        Where::Drop,
        Where::DropOfPayload,
    ] {
        let terminated = Rc::new(Cell::new(0));
        let count = Rc::clone(&terminated);
        let mut first = true;
        let harness = Harness::new(options(), move |_| {
            let at = if std::mem::take(&mut first) { at } else { Where::Factory };
            Clumsy { at, terminated: count.clone() }
        });
        let other = harness.connect();
        harness.receive(wire(&[b"before", b"now", b"after"]));
        if !matches!(at, Where::Init) {
            assert_eq!(harness.packets()[0], b"before", "{at:?}");
        }
        harness.message(None);
        harness.advance(ms(1));
        harness.receive([0]);
        harness.advance(secs(10));
        harness.peer_closes();
        assert!(harness.is_gone(), "{at:?}");
        assert_eq!(terminated.get(), 1, "{at:?}");
        assert_eq!(harness.stats().panics, 1, "{at:?}");
        other.receive(wire(&[b"alive"]));
        assert_eq!(other.packets(), [b"alive"]);
        drop(other);
        drop(harness);
        assert_eq!(terminated.get(), 2, "{at:?}");
    }
}

// ---- messages ----

/// Goal: a flood of messages starves no connection, and a full mailbox returns messages. Method:
/// 50,000 messages, 100 a turn, a mailbox of 60,000.
#[test]
fn a_flood_of_messages_starves_no_connection_and_a_full_mailbox_refuses() {
    let trace = Trace::default();
    let own = trace.clone();
    let harness = Harness::with(
        ReactorOptions::new().message_budget(100),
        options().mailbox_capacity(60_000),
        move |_| Actor::echo(&own),
    );
    let address: Address<_> = harness.address();
    for _ in 0..50_000 {
        assert!(address.send(note("flood")).is_ok());
    }
    harness.turn();
    harness.arrive(wire(&[b"served"]));
    harness.turn();
    assert_eq!(harness.packets(), [b"served"]);
    assert_eq!(harness.stats().messages, 200);
    for _ in 0..10_200 {
        assert!(
            address.send(note("flood")).is_ok(),
            "messages that wait count, delivered ones do not"
        );
    }
    let Err(MessageError::Full(_)) = address.send(note("too many")) else { panic!("taken") };
    assert_eq!(harness.stats().refused_messages, 1);
    harness.run();
    assert_eq!(harness.stats().messages, 60_200);
    conclude(&harness);
}

// ---- drain ----

/// Goal: a drain waits for the end of a packet that has begun. At its deadline it ends connections
/// by force, and reports the lost bytes. Method: half a packet that is completed, one that is not,
/// and queued output.
#[test]
fn a_drain_waits_for_packets_and_forces_at_its_deadline() {
    let (one, trace) = echo(options().drain_timeout(secs(5)));
    let (two, three) = (one.connect(), one.connect());
    one.receive(b"\x00\x05he");
    two.receive(b"\x00\x05he");
    three.peer_stalls();
    three.receive(wire(&[b"answer"]));
    one.drain();
    one.advance(secs(1));
    assert_eq!((one.closed(), two.closed(), three.closed()), (None, None, None));
    one.receive(b"llo");
    assert_eq!(one.packets(), [b"hello"]);
    assert_eq!(one.closed(), Some(CloseReason::Shutdown));
    one.peer_closes();
    one.advance(ms(3_999));
    assert_eq!(one.report(), None);
    one.advance(ms(1));
    assert_eq!(two.closed(), Some(CloseReason::DrainForced));
    let report = one.report().unwrap();
    assert_eq!((report.drained, report.forced), (1, 2));
    assert_eq!((report.undelivered_bytes, report.unsent_bytes), (4, 8));
    assert_clean(&one);
    drop(trace);
}

/// Goal: a handler may go on after `Shutdown`, until the deadline.
#[test]
fn a_handler_may_go_on_after_shutdown_until_the_deadline() {
    let (harness, trace) = actor(options().drain_timeout(secs(5)), |trace| {
        Actor::echo(trace).info(|info, _| match info {
            Info::Shutdown => Action::send("in a minute"),
            other => other.default_action(),
        })
    });
    harness.drain();
    assert_eq!(harness.packets(), [b"in a minute"]);
    harness.advance(ms(4_999));
    harness.packet("more");
    assert_eq!(harness.packets(), [b"more"]);
    assert_eq!(harness.closed(), None);
    harness.advance(ms(1));
    assert_eq!(harness.closed(), Some(CloseReason::DrainForced));
    assert_eq!(harness.report().unwrap().forced, 1);
    assert_eq!(trace.read().len(), 3);
    assert_clean(&harness);
}

// ---- the order of ends, and ends of one half ----

/// A handler that answers with the number of handlers that exist. `leave` ends it.
struct Counted {
    count: Rc<Cell<u32>>,
}

impl Handler for Counted {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"leave" => Action::send_and_stop("left", CloseReason::Normal),
            _ => Action::send(self.count.get().to_be_bytes().to_vec()),
        }
    }

    fn terminate(self, _: CloseReason) {
        self.count.set(self.count.get() - 1);
    }
}

/// Goal: an end is delivered before later packets of other connections. Method: one connection ends
/// and another one sends a request in the same batch, for each way in which a peer can end.
#[test]
fn an_end_is_delivered_before_later_packets_of_others() {
    let ways: [fn(&Harness<Counted>); 4] = [
        |it| it.arrive(b"\x00\x05leave"),
        |it| {
            it.arrive(b"\x00\x05leave\x00\x04more");
            it.max_read(9);
        },
        |it| {
            it.arrive(b"\x00\x01x");
            it.fail_next_read(ErrorKind::ConnectionReset);
        },
        |it| it.arrive(b"\xff\xffmuch too large"),
    ];
    for leave in ways {
        let names = Rc::new(Cell::new(0));
        let taken = Rc::clone(&names);
        let first = Harness::new(options().max_packet(1_000), move |_| {
            taken.set(taken.get() + 1);
            Counted { count: Rc::clone(&taken) }
        });
        let second = first.connect();
        leave(&first);
        second.packet("who is there?");
        assert_eq!(second.packets(), [1u32.to_be_bytes()], "only itself");
        assert!(first.closed().is_some());
        first.peer_closes();
        second.peer_closes();
        assert_clean(&second);
    }
}

/// Goal: an end that waits for queued output is delivered once, when that output has left. Method: a
/// peer that does not read, while others send requests.
#[test]
fn an_end_after_queued_output_is_delivered_when_that_has_left() {
    let names = Rc::new(Cell::new(0));
    let taken = Rc::clone(&names);
    let first = Harness::new(options(), move |_| {
        taken.set(taken.get() + 1);
        Counted { count: Rc::clone(&taken) }
    });
    let second = first.connect();
    first.peer_stalls();
    first.packet("leave");
    assert_eq!((first.closed(), names.get()), (None, 2));
    first.peer_reads_all();
    assert_eq!(first.packets(), [b"left"]);
    assert_eq!((first.closed(), names.get()), (Some(CloseReason::Normal), 1));
    first.peer_closes();
    second.peer_closes();
    assert_clean(&second);
}

/// Ends its output at `bye`, and counts later packets.
#[derive(Default)]
struct HalfDone {
    received: usize,
    refused: Option<SendError>,
}

impl Handler for HalfDone {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"bye" => {
                ctx.send("the last word").unwrap();
                ctx.end_output();
                self.refused = ctx.send("one more").err();
            }
            b"send" => return Action::send("nevertheless"),
            _ => self.received += 1,
        }
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, ctx: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Message(()) | Info::Shutdown => {
                ctx.end_output();
                Action::Continue
            }
            other => other.default_action(),
        }
    }
}

/// Goal: the output half ends after the queued output, and reading continues. When the other half
/// ends, the connection ends without lingering. Method: packets before and after `bye`, in one read
/// and later.
#[test]
fn the_output_half_ends_by_itself_and_reading_goes_on() {
    let harness = Harness::new(options(), |_| HalfDone::default());
    harness.receive(wire(&[&b"one"[..], b"bye", b"two", b"three"]));
    assert_eq!(harness.packets(), [b"the last word"]);
    assert!(harness.is_finished(), "the peer got the end");
    assert_eq!(harness.closed(), None);
    harness.packet("four");
    assert_eq!(harness.with_handler(|it| it.received), Some(4));
    assert_eq!(harness.with_handler(|it| it.refused), Some(Some(SendError::Closing)));
    assert_eq!(harness.leftovers().deadlines, 0, "no deadline is left");
    harness.peer_closes();
    assert_eq!(harness.closed(), Some(CloseReason::PeerClosed));
    assert!(harness.is_gone());
    assert_clean(&harness);
}

/// Goal: queued output leaves before the end of the output half. Method: a peer that reads a few
/// bytes at a time. The end is also requested by a message.
#[test]
fn the_output_half_ends_after_what_is_queued() {
    let harness = Harness::new(options(), |_| HalfDone::default());
    harness.peer_stalls();
    harness.packet("bye");
    for _ in 0..14 {
        assert!(!harness.is_finished());
        harness.peer_reads(1);
    }
    assert!(!harness.is_finished(), "a byte is still queued");
    harness.peer_reads(1);
    assert!(harness.is_finished());
    assert_eq!(harness.packets(), [b"the last word"]);
    conclude(&harness);

    let harness = Harness::new(options(), |_| HalfDone::default());
    harness.message(());
    assert!(harness.is_finished() && harness.closed().is_none());
    harness.packet("received");
    assert_eq!(harness.with_handler(|it| it.received), Some(1));
    conclude(&harness);
}

/// Goal: a reset that is found while the output half is closed is reported as a reset. Method: two
/// packets and a budget of one. The output ends at the first packet, before the reset is read.
#[test]
fn a_reset_found_by_ending_the_output_is_a_reset() {
    let trace = Trace::default();
    let own = trace.clone();
    let few = ReactorOptions::new().packet_budget(1);
    let harness = Harness::with(few, options(), move |_| {
        Actor::echo(&own).packet(|_, ctx| {
            ctx.end_output();
            Action::Continue
        })
    });
    harness.arrive(wire(&[b"one", b"two"]));
    harness.peer_resets();
    assert_eq!(trace.read(), [packet(b"one"), Seen::End(CloseReason::Reset)]);
    assert_clean(&harness);
}

/// Goal: a handler that sends after it ended its output ends its connection, and nothing is sent. A
/// drain, a reset and a stalled peer end such a connection like any other.
#[test]
fn a_connection_with_one_half_ends_like_any_other() {
    let half = || {
        let harness = Harness::new(options(), |_| HalfDone::default());
        harness.packet("bye");
        assert_eq!(harness.packets(), [b"the last word"]);
        harness
    };
    let harness = half();
    harness.packet("send");
    assert_eq!((harness.closed(), harness.packets().len()), (Some(CloseReason::Normal), 0));
    conclude(&harness);

    let harness = half();
    harness.peer_resets();
    assert_eq!(harness.closed(), Some(CloseReason::Reset));
    assert_clean(&harness);

    let harness = half();
    harness.drain();
    harness.advance(secs(100));
    assert_eq!(harness.closed(), Some(CloseReason::DrainForced), "it ignores the shutdown");
    assert_clean(&harness);

    let harness = Harness::new(options(), |_| HalfDone::default());
    harness.peer_stalls();
    harness.packet("bye");
    harness.advance(secs(100));
    assert_eq!(harness.closed(), Some(CloseReason::WriteStalled));
    assert!(!harness.sent().ends_with(b"word"));
    assert_clean(&harness);
}

/// Goal: the delay of a shutdown counts from the call, not from the beginning of the turn in which it
/// was made. Method: a callback that takes half a second, and then shuts down.
#[test]
fn the_delay_of_a_shutdown_counts_from_the_call() {
    let own = Rc::new(RefCell::new(None::<Harness<Actor>>));
    let trace = Trace::default();
    let (record, slow) = (trace.clone(), Rc::clone(&own));
    let delayed = ReactorOptions::new().shutdown_delay(secs(1));
    let harness = Harness::with(delayed, options(), move |_| {
        let slow = Rc::clone(&slow);
        Actor::echo(&record).packet(move |_, ctx| {
            slow.borrow().as_ref().unwrap().stall(ms(500));
            ctx.handle().shutdown().unwrap();
            Action::Continue
        })
    });
    *own.borrow_mut() = Some(harness.connect());
    harness.packet("end");
    trace.read();
    harness.advance(ms(999));
    assert_eq!(trace.read(), []);
    harness.advance(ms(1));
    assert!(trace.read().contains(&Seen::Shutdown));
    own.take();
}

// ---- the harness itself ----

/// Keeps harnesses, and drops them when a packet or the end comes.
struct Keeper(Rc<RefCell<Vec<Harness<Self>>>>);

impl Handler for Keeper {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        self.0.borrow_mut().clear();
        Action::Continue
    }

    fn terminate(self, _: CloseReason) {
        self.0.borrow_mut().clear();
    }
}

/// Goal: a callback may drop a harness of its own listener. Method: the harness of an open
/// connection and of one that is gone, in a packet and in `terminate`.
#[test]
fn a_callback_may_drop_a_harness() {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let own = Rc::clone(&kept);
    let harness = Harness::new(options(), move |_| Keeper(Rc::clone(&own)));
    for leave in [false, true] {
        let gone = harness.connect();
        gone.peer_closes();
        kept.borrow_mut().extend([gone, harness.connect()]);
        if leave {
            harness.peer_closes()
        } else {
            harness.packet("drop them")
        }
        assert!(kept.borrow().is_empty());
        assert_eq!(harness.closed(), leave.then_some(CloseReason::PeerClosed));
    }
    assert_eq!(harness.stats().panics, 0);
}

/// Calls the handle of its reactor as the packet says. If `ignores_shutdown`, a shutdown does not
/// end it.
struct Controls {
    ignores_shutdown: bool,
}

impl Handler for Controls {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        let handle = ctx.handle();
        let result = match packet {
            b"stop" => handle.stop_listener("testing").map(drop),
            b"start" => handle
                .start_listener("another", ListenerOptions::port(1), |_| Self {
                    ignores_shutdown: false,
                })
                .map(|listener| assert_eq!(listener.local_addr().to_string(), "127.0.0.1:1")),
            b"close" => handle.close(ctx.id()),
            _ => handle.shutdown().map(|_| assert!(!handle.is_ready())),
        };
        Action::send(result.map_or_else(|error| error.to_string(), |()| "done".into()))
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Shutdown if self.ignores_shutdown => Action::Continue,
            other => other.default_action(),
        }
    }
}

/// Goal: a handler that stops its own listener can be tested without a socket. Method: one
/// connection requests the stop. Another connection, and one that comes too late, show the effect.
#[test]
fn a_handler_may_stop_its_listener_in_the_harness() {
    let harness = Harness::new(options(), |_| Controls { ignores_shutdown: false });
    let bystander = harness.connect();
    harness.packet("stop");
    assert_eq!(harness.packets(), [b"done"]);
    for harness in [&harness, &bystander] {
        assert_eq!(harness.closed(), Some(CloseReason::Shutdown));
    }
    let late = harness.connect();
    assert!(!late.is_accepted(), "the listener has closed its socket");
    harness.peer_closes();
    bystander.peer_closes();
    assert_clean(&harness);
}

/// Goal: so can a handler that shuts the reactor down, closes a connection, or starts a listener.
/// Method: each result of the handle is the same as over sockets. A second shutdown ends connections
/// by force.
#[test]
fn a_handle_in_the_harness_is_the_reactors() {
    let harness = Harness::new(options(), |_| Controls { ignores_shutdown: true });
    let other = harness.connect();
    harness.packet("start");
    harness.packet("start");
    let taken = b"a listener named \"another\" exists already".to_vec();
    assert_eq!(harness.packets(), [b"done".to_vec(), taken]);

    other.packet("close");
    assert_eq!(other.packets(), [b"done"]);
    assert_eq!(other.closed(), Some(CloseReason::Shutdown));
    other.peer_closes();

    harness.packet("shut down");
    assert_eq!(harness.packets(), [b"done"]);
    assert_eq!(harness.closed(), None, "it continues until the drain deadline");
    harness.packet("shut down");
    assert_eq!(
        harness.closed(),
        Some(CloseReason::DrainForced),
        "the second shutdown does not wait"
    );
    assert_clean(&harness);
}
