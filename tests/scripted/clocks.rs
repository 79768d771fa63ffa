//! The clocks of a peer's bytes: the silence timeout, an expected packet, and the first packet.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use condor::testing::Harness;
use condor::{Action, CloseKind, CloseReason, Info, ListenerOptions, Raw, ReactorOptions};

use crate::both::{actor, echo};
use crate::rig::{assert_clean, conclude, options};
use crate::support::{Actor, Do, Seen, Trace, ms, note, order, packet, secs, wire};

const TIMED_OUT: Seen = Seen::End(CloseReason::PacketTimeout);
const SILENT: Seen = Seen::End(CloseReason::SilenceTimeout);

fn timeout(bytes: &[u8]) -> Seen {
    Seen::Timeout(bytes.to_vec())
}

fn pause() -> Do {
    order("pause", |ctx| {
        ctx.pause_reading();
        Action::Continue
    })
}

fn resume() -> Do {
    order("resume", |ctx| {
        ctx.resume_reading();
        Action::Continue
    })
}

/// A message that sends so many bytes.
fn publish(len: usize) -> Do {
    order("publish", move |_| Action::send(vec![1; len]))
}

/// A message that expects a packet within `duration`.
fn expect(duration: Duration) -> Do {
    order("expect", move |ctx| {
        ctx.expect_within(duration);
        Action::Continue
    })
}

fn expect_nothing() -> Do {
    order("nothing", |ctx| {
        ctx.expect_nothing();
        Action::Continue
    })
}

fn set_silence(timeout: Option<Duration>) -> Do {
    order("set", move |ctx| {
        ctx.set_silence_timeout(timeout);
        Action::Continue
    })
}

/// A handler that continues after a timeout.
fn patient(trace: &Trace) -> Actor {
    Actor::echo(trace).info(|info, _| match info {
        Info::Timeout(_) => Action::Continue,
        other => other.default_action(),
    })
}

// ---- silence ----

/// Goal: the connection of a peer that sends no byte ends in time, however much output is queued; the
/// output is dropped. Method: a subscriber of a protocol with a keepalive reads nothing and sends
/// nothing, with less and with more output than the high-water mark, and with an idle timeout as well.
#[test]
fn a_silent_peer_is_ended_although_output_waits() {
    for len in [100, 60_000] {
        for idle in [secs(2), Duration::MAX] {
            let options = options().silence_timeout(secs(3)).idle_timeout(idle);
            let (harness, trace) = echo(options);
            harness.peer_stalls();
            harness.message(publish(len));
            for _ in 1..6 {
                harness.advance(ms(500));
                harness.message(publish(len));
            }
            trace.read();
            harness.advance(ms(499));
            assert_eq!(trace.read(), [], "{len} bytes: early");
            harness.advance(ms(1));
            assert_eq!(trace.read(), [SILENT], "{len} bytes: late");
            assert!(harness.is_gone(), "it neither closes slowly nor lingers");
            assert_eq!(harness.stats().closed(CloseKind::SilenceTimeout), 1);
            conclude(&harness);
        }
    }
}

/// Goal: the silence timeout counts from the peer's last byte, which may be half a packet. Messages and
/// output do not restart it. Method: bytes shortly before the end; the end to the nanosecond.
#[test]
fn only_the_peers_bytes_restart_the_silence_timeout() {
    let (harness, trace) = echo(options().silence_timeout(secs(5)).packet_timeout(secs(60)));
    harness.advance(ms(4_999));
    harness.receive(wire(&[b"here"]));
    harness.advance(ms(4_999));
    harness.receive([0]);
    harness.advance(ms(4_000));
    harness.message(publish(3));
    assert_eq!(trace.read(), [packet(b"here"), Seen::Message("publish")]);
    harness.advance(secs(1) - Duration::from_nanos(1));
    assert_eq!(trace.read(), []);
    harness.advance(Duration::from_nanos(1));
    assert_eq!(trace.read(), [SILENT]);
    conclude(&harness);
}

/// Goal: a peer is not silent while its bytes wait in the kernel, unread. When they are read, the
/// timeout starts again. Method: reading is paused, or blocked by output; the peer sends a packet, or
/// nothing.
#[test]
fn a_peer_whose_bytes_wait_unread_is_not_silent() {
    for paused in [true, false] {
        for speaks in [true, false] {
            let options = options().silence_timeout(secs(3)).write_stall_timeout(secs(3_600));
            let (harness, trace) = echo(options);
            harness.message(if paused { pause() } else { note("nothing") });
            if !paused {
                harness.peer_stalls();
                harness.message(publish(60_000));
                harness.message(publish(60_000));
            }
            harness.advance(secs(2));
            if speaks {
                harness.receive(wire(&[b"here"]));
            }
            trace.read();
            harness.advance(ms(999));
            assert_eq!(trace.read(), []);
            harness.advance(ms(1));
            assert_eq!(trace.read(), if speaks { vec![] } else { vec![SILENT] }, "{paused}");
            if speaks {
                harness.advance(secs(1_000));
                assert_eq!(trace.read(), []);
                harness.peer_reads_all();
                harness.message(resume());
                trace.read();
                harness.advance(ms(2_999));
                assert_eq!(trace.read(), []);
                harness.advance(ms(1));
                assert_eq!(trace.read(), [SILENT]);
            }
            conclude(&harness);
        }
    }
}

/// Goal: bytes that arrived in time restart the silence timeout, even if the reactor reads them later.
/// Method: the process stands still beyond the timeout, with and without bytes that arrive meanwhile.
#[test]
fn bytes_that_came_while_we_stood_still_restart_the_silence_timeout() {
    let (harness, trace) = echo(options().silence_timeout(secs(3)));
    harness.stall(secs(10));
    harness.arrive(wire(&[b"here"]));
    harness.run();
    assert_eq!(trace.read(), [packet(b"here")]);
    harness.stall(secs(10));
    harness.run();
    assert_eq!(trace.read(), [SILENT]);
    conclude(&harness);
}

/// Goal: a peer that has shut down its sending half and still reads its answers is not silent.
/// Method: the end follows requests with more answers than the high-water mark.
#[test]
fn a_peer_that_ended_its_half_is_not_silent() {
    let options = options().silence_timeout(secs(3)).write_stall_timeout(secs(3_600));
    let (harness, trace) =
        actor(options, |trace| Actor::echo(trace).packet(|_, _| Action::send(vec![1; 40_000])));
    harness.peer_stalls();
    harness.receive(wire(&[b"a", b"b"]));
    harness.peer_closes();
    harness.advance(secs(100));
    assert_eq!(trace.read(), [packet(b"a"), packet(b"b")]);
    harness.peer_reads_all();
    let end = Seen::End(CloseReason::PeerClosed);
    assert_eq!(trace.read(), [Seen::Writable, Seen::EndOfInput, end]);
    assert_eq!(harness.packets().len(), 2);
    conclude(&harness);
}

/// Goal: a handler can set, change and remove the silence timeout at once. Method: a message for each;
/// `init` removes the timeout of the listener.
#[test]
fn the_silence_timeout_can_be_changed_at_once() {
    let (harness, trace) = echo(options());
    harness.advance(secs(100));
    harness.message(set_silence(Some(secs(5))));
    harness.advance(ms(4_999));
    harness.message(set_silence(Some(secs(20))));
    harness.advance(ms(14_999));
    harness.message(set_silence(None));
    harness.advance(secs(1_000));
    assert_eq!(trace.read().len(), 3);
    assert_eq!(harness.leftovers().deadlines, 0);
    harness.message(set_silence(Some(secs(5))));
    trace.read();
    harness.advance(ms(4_999));
    assert_eq!(trace.read(), [], "it counts from the call that switched it on");
    harness.message(set_silence(Some(Duration::ZERO)));
    assert_eq!(trace.read(), [Seen::Message("set"), SILENT]);
    conclude(&harness);

    let (harness, trace) = echo(options().silence_timeout(secs(5)));
    harness.advance(ms(4_999));
    harness.message(set_silence(Some(secs(20))));
    harness.advance(secs(15));
    assert_eq!(trace.read(), [Seen::Message("set")]);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [SILENT], "it still counts from the last byte");
    conclude(&harness);

    let (harness, trace) = actor(options().silence_timeout(secs(1)), |trace| {
        Actor::echo(trace).init(|ctx| {
            ctx.set_silence_timeout(None);
            Action::Continue
        })
    });
    harness.advance(secs(100));
    assert_eq!(trace.read(), []);
    conclude(&harness);
}

/// Goal: a blocked peer that says nothing is silent, also if a drain or an event has marked it as
/// readable. Method: a handler that has paused reading; a drain, or an event without a cause.
#[test]
fn a_peer_that_is_only_marked_as_readable_is_silent() {
    for drains in [true, false] {
        let (harness, trace) = echo(options().silence_timeout(secs(3)).drain_timeout(secs(60)));
        harness.message(pause());
        if drains {
            harness.drain();
        } else {
            harness.disturb();
        }
        trace.read();
        harness.advance(ms(2_999));
        assert_eq!(trace.read(), []);
        harness.advance(ms(1));
        assert_eq!(trace.read(), [SILENT], "{drains}");
        harness.advance(secs(10));
        assert_clean(&harness);
    }
}

/// Goal: the clocks run during a drain, too. Method: a handler that continues after `Info::Shutdown`;
/// a silence timeout, or an expected packet.
#[test]
fn the_clocks_go_on_in_a_drain() {
    for silence in [true, false] {
        let options = options().drain_timeout(secs(60));
        let options = if silence { options.silence_timeout(secs(3)) } else { options };
        let (harness, trace) = actor(options, |trace| {
            Actor::echo(trace).info(move |info, ctx| match info {
                Info::Shutdown => {
                    if !silence {
                        ctx.expect_within(secs(3));
                    }
                    Action::Continue
                }
                other => other.default_action(),
            })
        });
        harness.drain();
        harness.advance(ms(2_999));
        assert_eq!(trace.read(), [Seen::Shutdown]);
        harness.advance(ms(1));
        let told = if silence { vec![SILENT] } else { vec![timeout(b""), TIMED_OUT] };
        assert_eq!(trace.read(), told);
        harness.advance(secs(10));
        assert!(harness.report().is_some(), "the drain is over long before its deadline");
        assert_clean(&harness);
    }
}

// ---- a packet that is expected ----

/// Goal: under `Raw` a handler is told once that the expected bytes did not come, and the default
/// action ends the connection. Method: a handler that expects more after each half.
#[test]
fn a_handler_of_raw_bytes_has_a_clock() {
    for goes_on in [false, true] {
        let (harness, trace) = actor(options().framing(Raw), |trace| {
            let actor = if goes_on { patient(trace) } else { Actor::echo(trace) };
            actor.packet(|piece, ctx| {
                if piece == b"half" {
                    ctx.expect_within(secs(2));
                }
                Action::Continue
            })
        });
        harness.receive(b"half");
        harness.advance(ms(1_999));
        harness.receive(b"half");
        harness.advance(ms(1_999));
        harness.receive(b"rest");
        harness.advance(secs(100));
        let pieces = [b"half", b"half", b"rest"].map(|piece| packet(piece));
        assert_eq!(trace.read(), pieces, "each piece in time ends the expectation before it");
        assert_eq!(harness.leftovers().deadlines, 0);
        harness.receive(b"half");
        trace.read();
        harness.advance(secs(2) - Duration::from_nanos(1));
        assert_eq!(trace.read(), []);
        harness.advance(Duration::from_nanos(1));
        let told = [timeout(b""), TIMED_OUT];
        assert_eq!(trace.read(), &told[..if goes_on { 1 } else { 2 }]);
        let stats = harness.stats();
        assert_eq!((stats.expect_timeouts, stats.packet_timeouts), (1, 0));
        harness.advance(secs(100));
        assert_eq!(trace.read(), [], "once");
        conclude(&harness);
    }
}

/// Goal: the packet whose callback calls `expect_within` does not end the expectation, the next one
/// does, however the stream is cut. Method: three packets with each cut; one of them calls it.
#[test]
fn the_next_packet_ends_an_expectation_and_not_its_own() {
    let names: [&[u8]; 3] = [b"a", b"b", b"c"];
    let bytes = wire(&names);
    for at in 0..3 {
        for cut in 1..=bytes.len() {
            let (harness, trace) = actor(options(), |trace| {
                Actor::echo(trace).packet(move |packet, ctx| {
                    if packet == names[at] {
                        ctx.expect_within(secs(1));
                    }
                    Action::send(packet.to_vec())
                })
            });
            harness.receive(&bytes[..cut]);
            harness.receive(&bytes[cut..]);
            assert_eq!(harness.sent(), bytes, "{at}, cut at {cut}");
            harness.advance(secs(60));
            let mut expected: Vec<_> = names.map(packet).into();
            if at == 2 {
                expected.extend([timeout(b""), TIMED_OUT]);
            }
            assert_eq!(trace.read(), expected, "{at}, cut at {cut}");
            conclude(&harness);
        }
    }
}

/// Goal: each callback can set, replace and remove an expectation. Method: each of them, to the
/// millisecond.
#[test]
fn an_expectation_can_be_set_replaced_and_removed_anywhere() {
    let (harness, trace) = actor(options(), |trace| {
        patient(trace).init(|ctx| {
            ctx.expect_within(secs(1));
            Action::Continue
        })
    });
    harness.advance(ms(999));
    harness.message(expect(secs(2)));
    harness.advance(ms(1_999));
    harness.message(expect_nothing());
    harness.advance(secs(60));
    harness.message(expect(Duration::MAX));
    harness.advance(secs(60));
    harness.message(expect(Duration::ZERO));
    let messages = ["expect", "nothing", "expect", "expect"].map(Seen::Message);
    assert_eq!(trace.read(), [&messages[..], &[timeout(b"")]].concat());
    harness.message(expect(secs(1)));
    harness.receive(wire(&[b"x"]));
    harness.message(note("after"));
    harness.advance(secs(60));
    let told = [Seen::Message("expect"), packet(b"x"), Seen::Message("after")];
    assert_eq!(trace.read(), told, "a packet ends what a message has set");
    conclude(&harness);
}

/// Goal: an expectation stands still while the connection is not read. Method: a pause, and output
/// above the high-water mark, for a minute; then the rest of the time.
#[test]
fn an_expectation_stands_still_while_we_do_not_read() {
    for paused in [true, false] {
        let (harness, trace) = echo(options().write_stall_timeout(secs(3_600)));
        harness.message(expect(secs(10)));
        harness.advance(secs(9));
        if paused {
            harness.message(pause());
        } else {
            harness.peer_stalls();
            harness.message(publish(60_000));
            harness.message(publish(60_000));
        }
        harness.advance(secs(60));
        harness.peer_reads_all();
        harness.message(resume());
        trace.read();
        harness.advance(ms(999));
        assert_eq!(trace.read(), []);
        harness.advance(ms(1));
        assert_eq!(trace.read(), [timeout(b""), TIMED_OUT]);
        conclude(&harness);
    }
    // Below the mark the connection is read, so the clock runs.
    let (harness, trace) = echo(options());
    harness.peer_stalls();
    harness.message(publish(100));
    harness.message(expect(secs(1)));
    trace.read();
    harness.advance(secs(1));
    assert_eq!(trace.read(), [timeout(b"")], "the queued output is still sent");
    harness.peer_reads_all();
    conclude(&harness);
}

/// Goal: an expectation that runs out reports the partial packet. If the packet timeout runs out at the
/// same time, there is one event. If it runs out earlier, the expectation still runs. Method: half a
/// packet, with a packet timeout before, at and after the expectation.
#[test]
fn an_expectation_takes_the_partial_packet_along() {
    let half = b"\x00\x05he";
    for (packet_timeout, told) in [
        (secs(20), vec![(secs(5), timeout(half))]),
        (secs(5), vec![(secs(5), timeout(half))]),
        (secs(4), vec![(secs(4), timeout(half)), (secs(1), timeout(b""))]),
    ] {
        let (harness, trace) = actor(options().packet_timeout(packet_timeout), patient);
        harness.message(expect(secs(5)));
        harness.receive(half);
        trace.read();
        for (after, seen) in told {
            harness.advance(after - ms(1));
            assert_eq!(trace.read(), [], "{packet_timeout:?}");
            harness.advance(ms(1));
            assert_eq!(trace.read(), [seen], "{packet_timeout:?}");
        }
        harness.advance(secs(100));
        harness.receive(wire(&[b"new"]));
        assert_eq!(trace.read(), [packet(b"new")], "what comes next is a header");
        conclude(&harness);
    }
}

/// Goal: a packet that arrived in time meets the expectation, even if the reactor reads it later. Whole
/// packets that wait for the next turn are not reported as a partial one. Method: the process stands
/// still beyond the deadline, and the packets arrive meanwhile; a budget of one packet.
#[test]
fn a_packet_that_came_while_we_stood_still_meets_the_expectation() {
    let trace = Trace::default();
    let own = trace.clone();
    let few = ReactorOptions::new().packet_budget(1);
    let harness = Harness::with(few, options(), move |_| Actor::echo(&own));
    harness.message(expect(secs(1)));
    harness.stall(secs(10));
    harness.arrive(wire(&[b"a", b"b", b"c"]));
    harness.run();
    let told = [Seen::Message("expect"), packet(b"a"), packet(b"b"), packet(b"c")];
    assert_eq!(trace.read(), told);
    conclude(&harness);

    // The first packet sets a deadline that has passed before the second is looked at.
    trace.read();
    let (own, packets) = (trace.clone(), Rc::new(Cell::new(0)));
    let few = ReactorOptions::new().packet_budget(1);
    let harness = Harness::with(few, options(), move |_| {
        let packets = Rc::clone(&packets);
        Actor::echo(&own).packet(move |_, ctx| {
            packets.set(packets.get() + 1);
            if packets.get() == 1 {
                ctx.expect_within(Duration::ZERO);
            }
            Action::Continue
        })
    });
    harness.arrive(wire(&[b"a", b"b", b"c"]));
    harness.run();
    assert_eq!(trace.read(), [b"a", b"b", b"c"].map(|name| packet(name)));
    conclude(&harness);
}

/// Goal: a new framing neither ends nor restarts an expectation. Method: a length field, then lines.
#[test]
fn a_new_framing_leaves_the_expectation_alone() {
    let (harness, trace) = echo(options());
    harness.message(expect(secs(5)));
    harness.receive([0]);
    harness.advance(secs(3));
    harness.message(order("lines", |ctx| {
        ctx.set_framing(condor::Lines::new(80));
        Action::Continue
    }));
    trace.read();
    harness.advance(ms(1_999));
    assert_eq!(trace.read(), []);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [timeout(&[0]), TIMED_OUT]);
    conclude(&harness);
}

// ---- the first packet ----

/// Goal: a connection without a whole first packet in time ends. Method: no byte, and half a packet, to
/// the nanosecond; then a packet in time, after which no timer is left.
#[test]
fn a_first_packet_that_does_not_come_in_time_ends_the_connection() {
    let listener = options().first_packet_timeout(secs(5)).packet_timeout(secs(60));
    for bytes in [&b""[..], b"\0", b"\0\x05he"] {
        let (harness, trace) = echo(listener.clone());
        harness.advance(ms(4_500));
        harness.receive(bytes);
        harness.advance(ms(500) - Duration::from_nanos(1));
        assert_eq!(trace.read(), []);
        harness.advance(Duration::from_nanos(1));
        assert_eq!(trace.read(), [timeout(bytes), TIMED_OUT]);
        assert_eq!(harness.stats().expect_timeouts, 1);
        conclude(&harness);
    }
    let (harness, trace) = echo(listener);
    harness.advance(ms(4_999));
    harness.receive(wire(&[b"hello"]));
    assert_eq!(harness.leftovers().deadlines, 0);
    harness.advance(secs(1_000));
    assert_eq!(trace.read(), [packet(b"hello")]);
    conclude(&harness);
}

/// Goal: `init` may change or remove the deadline of the first packet. Method: both.
#[test]
fn init_may_change_the_time_of_the_first_packet() {
    for (longer, fires) in [(Some(secs(20)), true), (None, false)] {
        let (harness, trace) = actor(options().first_packet_timeout(secs(5)), |trace| {
            Actor::echo(trace).init(move |ctx| {
                match longer {
                    Some(duration) => ctx.expect_within(duration),
                    None => ctx.expect_nothing(),
                }
                Action::Continue
            })
        });
        harness.advance(ms(19_999));
        assert_eq!(trace.read(), []);
        harness.advance(secs(100));
        assert_eq!(trace.read().len(), if fires { 2 } else { 0 });
        conclude(&harness);
    }
}

/// Goal: silent connections do not fill a listener for ever. Method: as many as `max_connections`; the
/// next client gets its answer after the first-packet timeout.
#[test]
fn silent_connections_make_room_in_time() {
    let full = ListenerOptions::port(5555)
        .max_connections(10)
        .first_packet_timeout(secs(5))
        .linger_timeout(secs(1));
    let (first, _) = echo(full);
    let silent: Vec<_> = (1..10).map(|_| first.connect()).collect();
    let client = first.connect();
    assert!(!client.is_accepted());
    client.arrive(wire(&[b"hello"]));
    first.advance(secs(6));
    assert_eq!(client.packets(), [b"hello"]);
    assert!(silent.iter().all(|peer| peer.closed() == Some(CloseReason::PacketTimeout)));
    client.peer_closes();
    conclude(&first);
}
