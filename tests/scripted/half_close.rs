//! Half-closed connections and time: which clocks run, and when the end of input is told.

use std::time::Duration;

use condor::testing::Harness;
use condor::{Action, CloseKind, CloseReason, Info, LengthField};

use crate::both::actor;
use crate::both::half_close::Owing;
use crate::rig::{assert_clean, conclude, options};
use crate::support::{Actor, Do, Seen, ms, order, packet, secs, wire};

const LATE: Seen = Seen::End(CloseReason::HalfCloseTimeout);

/// Sends `count` bytes.
fn send(count: usize) -> Do {
    order("send", move |_| Action::send(vec![7; count]))
}

/// Goal: a handler that goes on and then forgets its peer loses it after the timeout, to the
/// millisecond. Method: the default, other values, and none.
#[test]
fn a_forgotten_half_closed_peer_ends_in_time() {
    for (timeout, set) in [(secs(30), None), (secs(3), Some(secs(3))), (ms(1), Some(ms(1)))] {
        let options = set.map_or_else(options, |set| options().half_close_timeout(set));
        let (harness, trace) = actor(options, Actor::owing);
        harness.advance(secs(100));
        harness.peer_closes();
        harness.advance(timeout - Duration::from_nanos(1));
        assert_eq!(trace.read(), [Seen::EndOfInput]);
        assert_eq!(harness.stats().half_closed, 1);
        harness.advance(Duration::from_nanos(1));
        assert_eq!(trace.read(), [LATE]);
        let stats = harness.stats();
        assert_eq!((stats.half_closed, stats.closed(CloseKind::HalfCloseTimeout)), (0, 1));
        assert_clean(&harness);
    }
    let (harness, trace) = actor(options().half_close_timeout(Duration::MAX), Actor::owing);
    harness.peer_closes();
    harness.advance(secs(1_000_000));
    assert_eq!(trace.read(), [Seen::EndOfInput]);
    assert_eq!(harness.leftovers().deadlines, 0);
    harness.drain();
    assert_clean(&harness);
    let (harness, trace) = actor(options().half_close_timeout(ms(0)), |trace| {
        Actor::echo(trace).info(|info, _| match info {
            Info::EndOfInput { .. } => Action::send("at once"),
            other => other.default_action(),
        })
    });
    harness.peer_closes();
    harness.advance(ms(1));
    assert_eq!(harness.packets(), [b"at once"]);
    assert_eq!(trace.read(), [Seen::EndOfInput, LATE]);
    assert_clean(&harness);
}

/// Goal: each answer that the kernel takes starts the time again, whether it is written at once or
/// out of the queue.
#[test]
fn the_time_counts_from_the_last_byte_that_the_kernel_took() {
    let (harness, trace) = actor(options(), Actor::owing);
    harness.peer_closes();
    harness.advance(secs(29));
    harness.message(send(10));
    harness.advance(secs(29));
    harness.peer_stalls();
    harness.message(send(10));
    harness.advance(ms(500));
    harness.peer_reads(1);
    harness.advance(secs(29));
    assert_eq!(harness.closed(), None);
    trace.read();
    harness.advance(ms(1_000));
    assert_eq!(harness.closed(), None, "the queue is still being sent");
    harness.peer_reads_all();
    assert_eq!(trace.read(), [LATE]);
    assert_eq!(harness.packets(), [[7; 10], [7; 10]], "what was queued is sent");
    conclude(&harness);
}

/// Goal: the stall of a queue is judged as always.
#[test]
fn a_stalled_half_closed_peer_ends_by_the_stall() {
    let options = options().write_stall_timeout(secs(3)).half_close_timeout(secs(60));
    let (harness, trace) = actor(options, Actor::owing);
    harness.peer_closes();
    harness.peer_stalls();
    harness.message(send(10));
    harness.advance(secs(3));
    assert_eq!(trace.read().pop(), Some(Seen::End(CloseReason::WriteStalled)));
    assert_clean(&harness);
}

/// Goal: no clock of input runs for a half-closed connection, not even one that its handler sets.
#[test]
fn no_clock_of_input_runs_after_the_end() {
    let options = options()
        .idle_timeout(secs(1))
        .silence_timeout(secs(1))
        .packet_timeout(secs(1))
        .first_packet_timeout(secs(1))
        .half_close_timeout(secs(60));
    let (harness, trace) = actor(options, Actor::owing);
    harness.peer_closes();
    harness.advance(secs(10));
    harness.message(order("expect", |ctx| {
        ctx.expect_within(secs(1));
        ctx.set_idle_timeout(Some(secs(1)));
        ctx.set_silence_timeout(Some(secs(1)));
        ctx.set_packet_timeout(secs(1));
        ctx.set_framing(LengthField::U32);
        Action::Continue
    }));
    harness.advance(ms(59_999) - secs(10));
    assert_eq!(trace.read(), [Seen::EndOfInput, Seen::Message("expect")]);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [LATE]);
    assert_clean(&harness);
}

/// Goal: the end is told behind a pause and above high water only when the connection is read
/// again. Then the time begins, and not before.
#[test]
fn the_end_waits_for_the_resume_and_for_the_low_water_mark() {
    let (harness, trace) = actor(options(), |trace| {
        Actor::owing(trace).packet(|_, ctx| {
            ctx.pause_reading();
            Action::Continue
        })
    });
    harness.arrive(wire(&[b"hold"]));
    harness.peer_closes();
    harness.disturb();
    harness.advance(secs(1_000));
    assert_eq!(trace.read(), [packet(b"hold")]);
    harness.message(order("resume", |ctx| {
        ctx.resume_reading();
        Action::Continue
    }));
    assert_eq!(trace.read(), [Seen::Message("resume"), Seen::EndOfInput]);
    harness.advance(ms(29_999));
    assert_eq!(trace.read(), []);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [LATE]);
    assert_clean(&harness);

    let options = options().write_high_water(50_000).write_low_water(20_000);
    let (harness, trace) =
        actor(options, |trace| Actor::owing(trace).packet(|_, _| Action::send(vec![1; 60_000])));
    harness.peer_stalls();
    harness.arrive(wire(&[b"much"]));
    harness.peer_closes();
    harness.peer_reads(40_001);
    assert_eq!(trace.read(), [packet(b"much")]);
    harness.peer_reads(1);
    assert_eq!(trace.read(), [Seen::Writable, Seen::EndOfInput]);
    harness.peer_reads_all();
    assert_eq!(harness.packets(), [[1; 60_000]]);
    harness.message(order("stop", |_| Action::stop(CloseReason::Normal)));
    conclude(&harness);
}

/// Goal: the end comes after the packets that a new framing finds in bytes that were read.
#[test]
fn the_end_comes_after_the_packets_of_a_new_framing() {
    let (harness, trace) = actor(options(), |trace| {
        Actor::owing(trace).packet(|packet, ctx| {
            if packet == b"wide" {
                ctx.set_framing(LengthField::U32);
            }
            Action::Continue
        })
    });
    harness.arrive([&wire(&[b"wide"])[..], b"\0\0\0\x03two\0\0\0\x05three"].concat());
    harness.peer_closes();
    let packets = [packet(b"wide"), packet(b"two"), packet(b"three")];
    assert_eq!(trace.read(), [&packets[..], &[Seen::EndOfInput]].concat());
    harness.drain();
    conclude(&harness);
}

/// Goal: a half-closed connection costs nothing while nothing happens, and the events that repeat
/// the end wake no callback. Method: events of every kind, and a drain.
#[test]
fn events_after_the_end_do_nothing() {
    let (harness, trace) = actor(options(), |trace| {
        Actor::echo(trace).info(|info, _| match info {
            Info::EndOfInput { .. } | Info::Shutdown => Action::Continue,
            other => other.default_action(),
        })
    });
    harness.peer_closes();
    for _ in 0..5 {
        harness.disturb();
    }
    assert_eq!(trace.read(), [Seen::EndOfInput]);
    harness.drain();
    harness.disturb();
    assert_eq!(trace.read(), [Seen::Shutdown]);
    harness.advance(secs(5));
    assert_eq!(trace.read(), [Seen::End(CloseReason::DrainForced)]);
    assert_clean(&harness);
}

/// Goal: answers that are owed arrive over five seconds, each in its time, then the end.
#[test]
fn answers_may_take_longer_than_every_timeout_of_input() {
    let options = options().idle_timeout(secs(1)).silence_timeout(secs(1));
    let harness = Harness::new(options, |_| Owing::default());
    harness.arrive(wire(&[b"request" as &[u8]; 20]));
    harness.peer_closes();
    for nth in 0..20_u8 {
        assert_eq!(harness.with_handler(|it| it.owed), Some(20 - usize::from(nth)));
        harness.advance(ms(250));
        harness.message(vec![nth]);
        assert_eq!(harness.packets(), [[nth]]);
    }
    assert_eq!(harness.closed(), Some(CloseReason::Normal));
    conclude(&harness);
}
