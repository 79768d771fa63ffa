//! Time: the packet timeout, the idle timeout, and the timers of handlers. No test sleeps.

use std::sync::mpsc::channel;
use std::time::Duration;

use condor::{
    Action, CloseReason, Info, LengthField, ListenerOptions, MessageError, ReactorOptions,
};

use crate::both::{actor, echo};
use crate::rig::{Harness, assert_clean, conclude, options};
use crate::support::{Actor, Seen, Trace, ms, note, order, packet, secs, wire};

const TIMED_OUT: Seen = Seen::End(CloseReason::PacketTimeout);

fn patient() -> ListenerOptions {
    options().packet_timeout(secs(10))
}

// ---- the four scenarios of the original's own suite ----

/// Goal: a peer that sends half a packet and no more times out. Method: half a packet, 10 s.
#[test]
fn half_a_packet_and_nothing_more_times_out() {
    let (harness, trace) = echo(patient());
    harness.receive(b"\x00\x05he");
    harness.advance(secs(10));
    assert_eq!(trace.read(), [Seen::Timeout(b"\x00\x05he".to_vec()), TIMED_OUT]);
    conclude(&harness);
}

/// Goal: a second piece does not complete the packet; the timeout has both pieces. Method: two
/// pieces of three.
#[test]
fn two_pieces_of_three_time_out_with_both() {
    let (harness, trace) = echo(patient());
    harness.receive(b"\x00\x05he");
    harness.advance(secs(5));
    harness.receive(b"ll");
    harness.advance(secs(5));
    assert_eq!(trace.read(), [Seen::Timeout(b"\x00\x05hell".to_vec()), TIMED_OUT]);
    conclude(&harness);
}

/// Goal: a packet in three pieces within the timeout is delivered. Method: the last piece one
/// millisecond before the timeout.
#[test]
fn three_pieces_in_time_are_a_packet() {
    let (harness, trace) = echo(patient());
    harness.receive(b"\x00\x05he");
    harness.advance(secs(5));
    harness.receive(b"ll");
    harness.advance(ms(4_999));
    harness.receive(b"o");
    assert_eq!(trace.read(), [packet(b"hello")]);
    harness.advance(secs(60));
    assert_eq!(trace.read(), [], "and its clock has stopped");
    assert_eq!(harness.leftovers().deadlines, 0);
    conclude(&harness);
}

/// Goal: later bytes do not extend the timeout. Method: a piece every 5 s, the last one too late.
#[test]
fn the_third_piece_too_late_times_out_from_the_first_byte() {
    let (harness, trace) = echo(patient());
    harness.receive(b"\x00\x05he");
    harness.advance(secs(5));
    harness.receive(b"ll");
    harness.advance(ms(4_999));
    assert_eq!(trace.read(), []);
    harness.advance(ms(1));
    harness.receive(b"o");
    assert_eq!(trace.read(), [Seen::Timeout(b"\x00\x05hell".to_vec()), TIMED_OUT]);
    conclude(&harness);
}

// ---- the packet clock ----

/// Goal: an idle connection has no deadline and no buffer. Method: `leftovers` between packets.
#[test]
fn an_idle_connection_has_no_deadline_and_no_buffer() {
    let (harness, _) = echo(patient());
    for _ in 0..3 {
        let idle = harness.leftovers();
        assert_eq!((idle.connections, idle.deadlines, idle.buffers), (1, 0, 0));
        harness.receive(b"\x00\x05he");
        let half = harness.leftovers();
        assert_eq!((half.deadlines, half.buffers, half.buffered_bytes), (1, 1, 4));
        harness.receive(b"llo");
    }
    conclude(&harness);
}

/// Goal: a timeout is never early, at most a tick late, and comes once, from any moment. Method: a
/// start between two ticks, the last nanosecond before the timeout, then the next one.
#[test]
fn a_timeout_is_never_early_and_comes_once() {
    for start in [0, 1, 499_999, 999_999] {
        let (harness, trace) = actor(patient(), |trace| {
            Actor::echo(trace).info(|info, _| match info {
                Info::Timeout(_) => Action::Continue,
                other => other.default_action(),
            })
        });
        harness.advance(Duration::from_nanos(start));
        harness.receive([0]);
        harness.advance(secs(10) - Duration::from_nanos(1));
        assert_eq!(trace.read(), [], "early, from {start} ns");
        harness.advance(ms(1) + Duration::from_nanos(1));
        assert_eq!(trace.read(), [Seen::Timeout(vec![0])], "late, from {start} ns");
        harness.advance(secs(100));
        assert_eq!(trace.read(), [], "twice, from {start} ns");
        conclude(&harness);
    }
}

/// Goal: the next partial packet has its own timeout. Method: two packets, the second one cut, in
/// one read. Then the same after a delay.
#[test]
fn the_clock_starts_anew_with_the_next_packets_first_byte() {
    let (harness, trace) = echo(patient());
    harness.receive(b"\x00\x01");
    harness.advance(secs(9));
    harness.receive(b"a\x00\x01");
    assert_eq!(trace.read(), [packet(b"a")]);
    harness.advance(ms(9_999));
    assert_eq!(trace.read(), []);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [Seen::Timeout(vec![0, 1]), TIMED_OUT]);
    conclude(&harness);
}

/// Goal: input that had arrived in time but was not read yet causes no timeout. Method: the process
/// stands still longer than the timeout. The rest of the packet arrived in time, or at the last
/// moment.
#[test]
fn a_packet_completed_while_the_process_stood_still_does_not_time_out() {
    for pieces in [&[b"llo" as &[u8]][..], &[b"l", b"l", b"o"]] {
        let (harness, trace) = echo(patient());
        harness.receive(b"\x00\x05he");
        for piece in pieces {
            harness.stall(secs(10));
            harness.arrive(piece);
        }
        harness.run();
        assert_eq!(trace.read(), [packet(b"hello")]);
        conclude(&harness);
    }
}

/// Goal: input that takes more than one turn to read causes no timeout either. Method: as above,
/// with a packet longer than one turn reads.
#[test]
fn a_large_packet_completed_while_the_process_stood_still_does_not_time_out() {
    let (harness, trace) = echo(patient().framing(LengthField::U32));
    harness.receive([0, 15, 0, 0]);
    harness.stall(secs(20));
    harness.arrive(vec![1; 15 << 16]);
    harness.run();
    assert_eq!(trace.read(), [Seen::Packet(vec![1; 15 << 16])]);
    conclude(&harness);
}

/// Goal: the timeout of a connection is removed when the connection ends, not when it expires.
/// Method: a reset in the middle of a packet, and a peer that closes while the connection lingers.
#[test]
fn a_connection_that_ends_leaves_no_deadline() {
    let (harness, _) = echo(patient());
    harness.receive(b"\x00\x05he");
    assert_eq!(harness.leftovers().deadlines, 1);
    harness.peer_resets();
    assert!(harness.is_gone());
    assert_clean(&harness);

    let (harness, _) = echo(patient());
    harness.message(order("stop", |_| Action::Stop(CloseReason::Normal)));
    assert_eq!((harness.leftovers().deadlines, harness.is_gone()), (1, false));
    harness.peer_closes();
    assert!(harness.is_gone());
    assert_clean(&harness);
}

/// Goal: after the process stood still, each timeout fires once. Method: 30 s in one step. The
/// connection with half a packet times out once; the one that got the rest does not.
#[test]
fn standing_still_fires_each_timeout_once() {
    let (slow, trace) = echo(patient());
    let fast = slow.connect();
    slow.receive(b"\x00\x05he");
    fast.receive(b"\x00\x05he");
    slow.stall(secs(30));
    fast.arrive(b"llo");
    slow.advance(ms(2));
    let mut seen = trace.read();
    seen.sort_by_key(|seen| format!("{seen:?}"));
    assert_eq!(seen, [TIMED_OUT, packet(b"hello"), Seen::Timeout(b"\x00\x05he".to_vec())]);
    fast.peer_closes();
    conclude(&slow);
}

/// Goal: a handler may answer a timeout with each action. Method: each action.
#[test]
fn a_timeout_may_be_answered_in_every_way() {
    type Case = (fn() -> Action<'static>, &'static [&'static [u8]], Option<CloseReason>);
    let answers: [Case; 4] = [
        (|| Action::stop(CloseReason::PacketTimeout), &[], Some(CloseReason::PacketTimeout)),
        (
            || Action::send_and_stop("bye", CloseReason::Normal),
            &[b"bye"],
            Some(CloseReason::Normal),
        ),
        (|| Action::send("go on"), &[b"go on"], None),
        (|| Action::Continue, &[], None),
    ];
    for (answer, sent, closed) in answers {
        let (harness, trace) = actor(patient(), |trace| {
            Actor::echo(trace).info(move |info, _| match info {
                Info::Timeout(_) => answer(),
                other => other.default_action(),
            })
        });
        harness.receive(b"\x00\x05he");
        harness.advance(secs(10));
        assert_eq!(harness.packets(), sent);
        assert_eq!(harness.closed(), closed);
        if closed.is_none() {
            assert_eq!(trace.read(), [Seen::Timeout(b"\x00\x05he".to_vec())]);
            harness.receive(wire(&[b"new"]));
            assert_eq!(trace.read(), [packet(b"new")], "the next byte is a header");
        }
        conclude(&harness);
    }
}

/// Goal: the packet timeout is suspended while the connection is not read. Method: a pause of a
/// minute in the middle of a packet.
#[test]
fn the_packet_clock_stands_still_while_reading_is_paused() {
    let (harness, trace) = echo(patient());
    harness.receive(b"\x00\x05he");
    harness.advance(secs(9));
    harness.message(order("pause", |ctx| {
        ctx.pause_reading();
        Action::Continue
    }));
    harness.advance(secs(60));
    harness.message(order("resume", |ctx| {
        ctx.resume_reading();
        Action::Continue
    }));
    harness.advance(ms(999));
    assert_eq!(trace.read(), [Seen::Message("pause"), Seen::Message("resume")]);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [Seen::Timeout(b"\x00\x05he".to_vec()), TIMED_OUT]);
    conclude(&harness);
}

/// Goal: a connection can have its own timeout, which holds from the next packet on; `Duration::MAX`
/// means never. Method: both, set in `init`.
#[test]
fn a_connection_may_have_a_packet_timeout_of_its_own() {
    for (timeout, fires) in [(secs(1), true), (Duration::MAX, false)] {
        let (harness, trace) = actor(patient(), |trace| {
            Actor::echo(trace).init(move |ctx| {
                ctx.set_packet_timeout(timeout);
                Action::Continue
            })
        });
        harness.receive([0]);
        harness.advance(ms(999));
        assert_eq!(trace.read(), []);
        harness.advance(if fires { ms(1) } else { secs(1_000_000) });
        assert_eq!(trace.read().len(), if fires { 2 } else { 0 });
        conclude(&harness);
    }
}

// ---- the idle clock ----

/// Goal: the idle timeout counts from the peer's last byte; messages and writes do not restart it.
/// Method: bytes, then messages that send, each shortly before the timeout.
#[test]
fn only_the_peers_bytes_reset_the_idle_clock() {
    let (harness, trace) = echo(options().idle_timeout(secs(5)));
    harness.advance(ms(4_999));
    harness.receive(wire(&[b"here"]));
    assert_eq!(trace.read(), [packet(b"here")]);
    harness.advance(ms(4_999));
    harness.message(order("send", |_| Action::send("are you there?")));
    assert_eq!(harness.packets(), [b"here" as &[u8], b"are you there?"]);
    assert_eq!(trace.read(), [Seen::Message("send")]);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [Seen::End(CloseReason::IdleTimeout)]);
    conclude(&harness);
}

/// Goal: the idle timeout is suspended while output is queued or reading is paused. Method: both,
/// for longer than the timeout; then the remaining time.
#[test]
fn the_idle_clock_stands_still_while_output_is_queued_or_reading_is_paused() {
    let idle = options().idle_timeout(secs(5)).write_stall_timeout(secs(1_000));
    let (harness, trace) = echo(idle.clone());
    harness.peer_stalls();
    harness.advance(secs(4));
    harness.receive(wire(&[b"x"]));
    harness.advance(secs(60));
    harness.peer_reads_all();
    assert_eq!(trace.read(), [packet(b"x")]);
    harness.advance(ms(4_999));
    assert_eq!(trace.read(), []);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [Seen::End(CloseReason::IdleTimeout)]);
    conclude(&harness);

    let (harness, trace) = echo(idle);
    harness.advance(secs(4));
    harness.message(order("pause", |ctx| {
        ctx.pause_reading();
        Action::Continue
    }));
    harness.advance(secs(60));
    harness.message(order("resume", |ctx| {
        ctx.resume_reading();
        Action::Continue
    }));
    harness.advance(ms(999));
    assert_eq!(trace.read(), [Seen::Message("pause"), Seen::Message("resume")]);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [Seen::End(CloseReason::IdleTimeout)]);
    conclude(&harness);
}

/// Goal: the idle timeout can be changed and switched off with immediate effect.
#[test]
fn the_idle_timeout_can_be_changed_at_once() {
    let (harness, trace) = echo(options());
    let set = |timeout| {
        order("set", move |ctx| {
            ctx.set_idle_timeout(timeout);
            Action::Continue
        })
    };
    harness.advance(secs(3));
    harness.message(set(Some(secs(5))));
    harness.advance(ms(1_999));
    harness.message(set(None));
    harness.advance(secs(100));
    harness.message(set(Some(secs(200))));
    assert_eq!(trace.read().len(), 3);
    harness.advance(ms(200_000 - 104_999 - 1));
    assert_eq!(trace.read(), []);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [Seen::End(CloseReason::IdleTimeout)]);
    conclude(&harness);
}

// ---- timers of handlers ----

/// Goal: timers are on time over the whole range, and never fire for `Duration::MAX`. Method: delays
/// on both sides of the reach of each level of the wheel, and one beyond all levels.
#[test]
fn a_timer_fires_on_time_however_far() {
    let edges = [1u64 << 6, 1 << 12, 1 << 18, 1 << 24, 1 << 30, 1 << 36, 1 << 40];
    let delays = edges.into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]);
    for delay in [1].into_iter().chain(delays) {
        let (harness, trace) = echo(options());
        harness.advance(ms(5));
        harness.message(order("arm", move |ctx| {
            let _ = ctx.send_after(Duration::MAX, note("never"));
            let _ = ctx.send_after(ms(delay), note("fired"));
            Action::Continue
        }));
        harness.advance(ms(delay - 1));
        assert_eq!(trace.read(), [Seen::Message("arm")], "{delay} ms: early");
        harness.advance(ms(1));
        assert_eq!(trace.read(), [Seen::Message("fired")], "{delay} ms: late");
        conclude(&harness);
    }
}

/// Goal: a timer without delay fires at once. Method: it fires although no time passes.
#[test]
fn a_timer_of_no_delay_fires_at_once() {
    let (harness, trace) = echo(options());
    harness.message(order("arm", |ctx| {
        let _ = ctx.send_after(Duration::ZERO, note("fired"));
        Action::Continue
    }));
    assert_eq!(trace.read(), [Seen::Message("arm"), Seen::Message("fired")]);
    conclude(&harness);
}

/// Goal: a cancelled timer does not fire, and the timer that replaces it fires once. Method: a
/// cancel and a new timer in one callback, a cancel in the timer's own callback, and a second
/// cancel.
#[test]
fn a_cancelled_timer_does_not_fire() {
    let (harness, trace) = echo(options());
    harness.message(order("arm", |ctx| {
        let first = ctx.send_after(ms(10), note("first")).ok().expect("one of few");
        assert!(ctx.cancel(first));
        assert!(!ctx.cancel(first), "it was cancelled before");
        let second = ctx.send_after(ms(10), note("second")).ok().expect("one of few");
        let _ = ctx.send_after(
            ms(10),
            order("third", move |ctx| {
                let _ = ctx.send_after(ms(10), note("fourth"));
                let _ = ctx.send_after(ms(10), note("fifth"));
                assert!(!ctx.cancel(second), "it has fired, and another timer has its place");
                Action::send("survived")
            }),
        );
        Action::Continue
    }));
    harness.advance(ms(100));
    let seen = ["arm", "second", "third", "fourth", "fifth"].map(Seen::Message);
    assert_eq!(trace.read(), seen);
    assert_eq!(harness.packets(), [b"survived"]);
    assert_eq!(harness.leftovers().timers, 0);
    conclude(&harness);
}

/// Goal: when the memory of a burst of timers goes back, all other timers and deadlines keep their
/// time, and a timer keeps its id. Method: 50,000 timers that fire, around some that last: timers of
/// a handler, half a packet, a drain. Each is due after the trims.
#[test]
fn timers_and_deadlines_survive_the_return_of_memory() {
    let long = options().max_timers(100_000).packet_timeout(secs(40)).drain_timeout(secs(60));
    let trace = Trace::default();
    let own = trace.clone();
    let harness = Harness::new(long, move |_| Actor::stubborn(&own));
    let (partial, (sender, receiver)) = (harness.connect(), channel());
    harness.message(order("arm", move |ctx| {
        for nth in 0..50_000 {
            let _ = ctx.send_after(ms(1), order("", |_| Action::Continue));
            if nth % 10_000 == 0 {
                let delay = 30_000 + nth / 100;
                let _ = ctx.send_after(ms(delay), note("fired"));
                let id = ctx.send_after(ms(delay + 50), note("cancelled"));
                sender.send(id.ok().expect("one of few")).unwrap();
            }
        }
        Action::Continue
    }));
    let completed = harness.connect();
    for peer in [&partial, &completed] {
        peer.receive(b"\x00\x05he");
    }
    harness.drain();
    harness.advance(ms(29_999));
    let burst = trace.read();
    assert!(!burst.contains(&Seen::Message("fired")), "too early");
    assert_eq!(harness.leftovers().timers, 10);
    harness.message(order("cancel", move |ctx| {
        receiver.try_iter().for_each(|id| assert!(ctx.cancel(id)));
        Action::Continue
    }));
    completed.receive(b"llo");
    assert_eq!(trace.read(), [Seen::Message("cancel"), packet(b"hello"), Seen::Shutdown]);
    assert_eq!(harness.leftovers().deadlines, 5 + 2, "of timers, of half a packet, of the drain");
    for nth in 0..5 {
        assert_eq!(trace.read(), [], "too early");
        harness.advance(ms(1));
        assert_eq!(trace.read(), [Seen::Message("fired")], "timer {nth}");
        harness.advance(ms(99));
    }
    harness.advance(ms(39_999 - 30_499));
    assert_eq!(partial.closed(), None);
    harness.advance(ms(1));
    assert_eq!(partial.closed(), Some(CloseReason::PacketTimeout));
    harness.advance(ms(19_999));
    assert_eq!(harness.closed(), None);
    harness.advance(ms(1));
    assert_eq!(harness.closed(), Some(CloseReason::DrainForced));
}

/// Goal: a drain that ends before its deadline leaves no deadline, although the return of memory has
/// moved its timer. Method: 50,000 timers that fire before; the trims; then the last connection ends.
#[test]
fn a_drain_takes_its_deadline_with_it_after_the_return_of_memory() {
    let trace = Trace::default();
    let long = options().max_timers(100_000).drain_timeout(secs(60));
    let harness = Harness::new(long, move |_| Actor::stubborn(&trace));
    harness.message(order("arm", |ctx| {
        for _ in 0..50_000 {
            let _ = ctx.send_after(ms(1), order("", |_| Action::Continue));
        }
        Action::Continue
    }));
    harness.drain();
    harness.advance(secs(30));
    assert_eq!(harness.leftovers().deadlines, 1, "of the drain");
    harness.peer_closes();
    assert!(harness.report().is_some());
    assert_eq!(harness.leftovers().deadlines, 0);
    assert_clean(&harness);
}

/// Goal: the timers of a connection end with it. Method: the connection ends, and the next owner of
/// its slot waits for longer than the timer.
#[test]
fn a_dead_connections_timer_does_not_reach_the_next_owner_of_its_slot() {
    let (harness, trace) = echo(options());
    harness.message(order("arm", |ctx| {
        let _ = ctx.send_after(secs(1), note("stale"));
        Action::Continue
    }));
    assert_eq!(harness.leftovers().timers, 1);
    harness.peer_closes();
    assert!(harness.is_gone());
    assert_clean(&harness);
    trace.read();
    let next = harness.connect();
    next.advance(secs(100));
    assert_eq!(trace.read(), []);
    conclude(&next);
}

/// Goal: many timers that are due at once all fire, in chunks, and sockets are served between the
/// chunks. Method: 100,000 timers in one tick, with a budget of 1,000 a turn. A packet arrives after
/// the first turn.
#[test]
fn a_hundred_thousand_timers_due_at_once_all_fire_and_starve_no_connection() {
    let fired = std::rc::Rc::new(std::cell::Cell::new(0u32));
    let count = std::rc::Rc::clone(&fired);
    let harness = Harness::with(
        ReactorOptions::new().timer_budget(1_000),
        options().max_timers(100_000),
        move |_| Counting { fired: count.clone() },
    );
    let other = harness.connect();
    harness.packet(100_000u32.to_be_bytes());
    assert_eq!(harness.leftovers().timers, 100_000);
    harness.stall(secs(1));
    harness.turn();
    assert!(fired.get() <= 1_000, "{} in one turn", fired.get());
    other.arrive(wire(&[b""]));
    harness.turn();
    assert_eq!(other.packets(), [b"served"]);
    assert!(fired.get() <= 2_000);
    harness.run();
    assert_eq!(fired.get(), 100_000);
    other.peer_closes();
    conclude(&harness);
}

/// Sets as many timers as a packet says, all for the same tick.
struct Counting {
    fired: std::rc::Rc<std::cell::Cell<u32>>,
}

impl condor::Handler for Counting {
    type Message = ();

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut condor::Context<'_, ()>,
    ) -> Action<'a> {
        let Some(count) = packet.first_chunk() else { return Action::send("served") };
        for _ in 0..u32::from_be_bytes(*count) {
            let _ = ctx.send_after(secs(1), ());
        }
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, ()>,
        _: &mut condor::Context<'_, ()>,
    ) -> Action<'a> {
        match info {
            Info::Message(()) => {
                self.fired.set(self.fired.get() + 1);
                Action::Continue
            }
            other => other.default_action(),
        }
    }
}

/// Goal: a timer that sets itself again without delay does not block the loop. Method: such a timer,
/// with packets in between.
#[test]
fn a_timer_that_rearms_itself_starves_no_connection() {
    fn again() -> crate::support::Do {
        order("again", |ctx| {
            let _ = ctx.send_after(Duration::ZERO, again());
            Action::Continue
        })
    }
    let (harness, _) = echo(options().framing(LengthField::U8));
    assert!(!matches!(harness.address().send(again()), Err(MessageError::Full(_))));
    for _ in 0..3 {
        harness.turn();
    }
    harness.arrive(b"\x01x");
    harness.turn();
    assert_eq!(harness.packets(), [b"x"]);
}

/// Goal: many linger timeouts that are due at once end in a few turns. Method: a thousand
/// connections that linger until the timeout.
#[test]
fn a_thousand_linger_timeouts_end_in_the_same_turn() {
    let (first, _) = echo(options().max_connections(1_000).linger_timeout(secs(5)));
    let others: Vec<_> = (1..1_000).map(|_| first.connect()).collect();
    for peer in others.iter().chain([&first]) {
        peer.message(order("stop", |_| Action::stop(CloseReason::Normal)));
    }
    assert_eq!(first.leftovers().connections, 1_000);
    first.stall(secs(5));
    for _ in 0..3 {
        first.turn();
    }
    assert_clean(&first);
}

/// Goal: in the harness a timer that is due now fires in the same turn, whether or not the reactor
/// has another reason to read its clock. Method: a timer without delay, with and without another
/// timer that is far away.
#[test]
fn a_timer_of_no_delay_fires_in_the_turn_that_set_it() {
    for far in [false, true] {
        let (harness, trace) = actor(options(), |trace| {
            Actor::echo(trace).packet(|_, ctx| {
                let _ = ctx.send_after(Duration::ZERO, note("now"));
                Action::Continue
            })
        });
        if far {
            harness.message(order("set", |ctx| {
                let _ = ctx.send_after(secs(3_600), note("far"));
                Action::Continue
            }));
        }
        harness.stall(ms(1));
        harness.arrive(wire(&[b"x"]));
        trace.read();
        harness.turn();
        assert_eq!(trace.read(), [packet(b"x"), Seen::Message("now")], "another timer: {far}");
        conclude(&harness);
    }
}
