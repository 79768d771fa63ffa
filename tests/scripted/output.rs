//! Output: short writes, slow peers, limits, and the last bytes before an end.

use std::io::ErrorKind;

use bytes::Bytes;
use condor::testing::Harness;
use condor::{
    Action, CloseReason, Context, Decode, FrameError, Framer, Framing, Info, LengthField, Lines,
    ListenerOptions, Output, Packet, Raw, ReactorOptions, SendError,
};

use crate::both::output::{Parrot, send_and_stop};
use crate::both::{actor, echo};
use crate::rig::{assert_clean, conclude, options};
use crate::support::{Actor, Do, Seen, Trace, ms, order, packet, secs, wire};

const HIGH: usize = 64 * 1024;
const LOW: usize = 32 * 1024;

/// A message that sends one packet of this length.
fn send(len: usize) -> Do {
    order("send", move |_| Action::send(vec![1; len]))
}

// ---- short writes ----

/// Goal: the peer gets the exact bytes wherever a write is cut, also inside the header. Method: the
/// peer takes a first piece of every length, then single bytes.
#[test]
fn a_write_cut_anywhere_loses_and_repeats_nothing() {
    let answers = wire(&[b"one", b"", b"three"]);
    for first in 0..=answers.len() {
        let (harness, _) = echo(options());
        harness.peer_stalls();
        harness.peer_reads(first);
        harness.receive(&answers);
        let mut got = harness.sent();
        assert_eq!(got, answers[..first], "the first {first} bytes");
        for _ in first..answers.len() {
            harness.peer_reads(1);
            let next = harness.sent();
            assert_eq!(next.len(), 1);
            got.extend(next);
        }
        assert_eq!((got, harness.queued_bytes()), (answers.clone(), 0));
        conclude(&harness);
    }
    for most in 1..=answers.len() {
        let (harness, _) = echo(options());
        harness.max_write(most);
        harness.receive(&answers);
        assert_eq!(harness.sent(), answers, "at most {most} bytes a write");
        conclude(&harness);
    }
}

/// Goal: new output is queued after output that waits. Method: packets, a message and a timer, while
/// the peer takes a few bytes at a time.
#[test]
fn output_keeps_its_order_whatever_it_comes_from() {
    let (harness, _) = echo(options());
    harness.peer_stalls();
    harness.receive(wire(&[b"1"]));
    harness.message(order("2", |ctx| {
        let _ = ctx.send_after(ms(5), order("4", |_| Action::send("4")));
        Action::send("2")
    }));
    harness.peer_reads(4);
    harness.receive(wire(&[b"3"]));
    harness.advance(ms(5));
    harness.receive(wire(&[b"5"]));
    harness.message(order("6", |_| Action::send(Bytes::from(vec![6; 40_000]))));
    harness.receive(wire(&[b"7"]));
    harness.peer_reads_all();
    let packets = harness.packets();
    assert_eq!(packets[..5], [b"1", b"2", b"3", b"4", b"5"]);
    assert!(packets[5] == vec![6; 40_000]);
    assert_eq!(packets[6..], [b"7"]);
    conclude(&harness);
}

/// Goal: an answer that is the packet itself is not copied, keeps its place among other answers, and
/// is counted like them. Method: each other kind of answer between such answers, in one read, with a
/// peer that takes everything and with one that takes nothing at first.
#[test]
fn an_answer_that_is_the_packet_keeps_its_place() {
    let shared = vec![b's'; 40_000];
    let others: [(&[u8], &[&[u8]]); 5] = [
        (b"n", &[]),
        (b"b", &[b"borrowed"]),
        (b"o", &[b"ooooo"]),
        (b"c", &[b"called", b"c"]),
        (b"s", &[&shared]),
    ];
    for (request, answers) in others {
        for stalls in [false, true] {
            let harness = Harness::of(Parrot);
            if stalls {
                harness.peer_stalls();
            }
            harness.receive(wire(&[b"1", b"2", request, b"3", b"4"]));
            harness.peer_reads_all();
            let expected = [&[b"1" as &[u8], b"2"], answers, &[b"3", b"4"]].concat();
            assert!(harness.packets() == expected, "with {request:?} between");
            let sent = harness.stats().packets_out;
            assert_eq!(sent, expected.len() as u64, "with {request:?} between");
            conclude(&harness);
        }
    }
}

/// Goal: the handler does not see interrupted and refused writes. Method: each kind at the first
/// write and at a later one.
#[test]
fn interrupted_and_refused_writes_are_tried_again() {
    for kind in [ErrorKind::Interrupted, ErrorKind::WouldBlock] {
        let (harness, _) = echo(options());
        harness.max_write(3);
        harness.fail_next_write(kind);
        harness.fail_next_write(kind);
        harness.fail_next_read(kind);
        harness.fail_next_read(kind);
        harness.receive(wire(&[b"hello", b"world"]));
        assert_eq!(harness.packets(), [b"hello", b"world"], "{kind:?}");
        conclude(&harness);
    }
}

/// Goal: a stream that breaks ends its connection once, with the error, and frees the queued output.
/// Method: errors at the first write, and with a queue.
#[test]
fn a_broken_stream_ends_the_connection_once_and_frees_its_queue() {
    for kind in [
        ErrorKind::BrokenPipe,
        ErrorKind::ConnectionReset,
        ErrorKind::TimedOut,
        ErrorKind::OutOfMemory,
    ] {
        for queue in [false, true] {
            let (harness, trace) = echo(options());
            if queue {
                harness.peer_stalls();
                harness.receive(wire(&[&[1; 30_000]]));
                assert_eq!(harness.leftovers().buffers, 1);
            }
            harness.fail_next_write(kind);
            harness.receive(wire(&[b"x"]));
            harness.peer_reads(1);
            trace.read();
            assert_eq!(harness.closed(), Some(CloseReason::Io(kind)));
            assert!(harness.is_gone(), "no lingering on a broken stream");
            conclude(&harness);
            assert_eq!(trace.read(), []);
        }
    }
    for (kind, reason) in [
        (ErrorKind::ConnectionReset, CloseReason::Reset),
        (ErrorKind::TimedOut, CloseReason::Io(ErrorKind::TimedOut)),
    ] {
        let (harness, _) = echo(options());
        harness.fail_next_read(kind);
        harness.receive(wire(&[b"x"]));
        assert_eq!(harness.closed(), Some(reason));
        conclude(&harness);
    }
}

/// Goal: many small answers leave together, in order. Method: 10,000 answers from one message.
#[test]
fn ten_thousand_small_answers_leave_in_few_writes() {
    let (harness, _) = echo(options());
    harness.message(order("send", |ctx| {
        for number in 0..10_000u16 {
            assert_eq!(ctx.send(&number.to_be_bytes()), Ok(()));
        }
        Action::Continue
    }));
    let numbers: Vec<_> = (0..10_000u16).map(u16::to_be_bytes).collect();
    assert_eq!(harness.packets(), numbers);
    assert!(harness.writes() <= 2, "{} writes", harness.writes());
    conclude(&harness);
}

/// Goal: many shared pieces leave in order. Method: 2,000 pieces of 32 KiB, to a peer that takes odd
/// amounts.
#[test]
fn thousands_of_queued_pieces_leave_in_order() {
    let (harness, _) = echo(options().max_queued(128 << 20));
    harness.peer_stalls();
    harness.message(order("send", |ctx| {
        for number in 0..2_000u16 {
            let piece = Bytes::from(number.to_be_bytes().repeat(16 * 1024));
            assert_eq!(ctx.send(piece), Ok(()));
            assert_eq!(ctx.send("between"), Ok(()));
        }
        Action::Continue
    }));
    let mut number = 0u16;
    while harness.queued_bytes() > 0 {
        harness.peer_reads(99_991);
        for packet in harness.packets() {
            if packet != b"between" {
                assert!(packet == number.to_be_bytes().repeat(16 * 1024));
                number += 1;
            }
        }
    }
    assert_eq!(number, 2_000);
    conclude(&harness);
}

// ---- slow peers ----

/// Goal: above the high-water mark a connection is not read, and its packets are not delivered. It
/// continues at the low-water mark, and its handler gets `Info::Writable`. Method: a message fills
/// the queue while packets wait.
#[test]
fn a_slow_peer_is_not_served_between_the_water_marks() {
    let (harness, trace) = echo(options().framing(LengthField::U32));
    harness.peer_stalls();
    harness.message(send(HIGH - 4));
    harness.packet(b"at the mark");
    assert_eq!(trace.read(), [Seen::Message("send"), packet(b"at the mark")]);
    harness.arrive([0, 0]);
    harness.packet(b"");
    harness.peer_reads(HIGH - LOW + 14);
    assert_eq!(harness.queued_bytes(), LOW + 1);
    assert_eq!(trace.read(), [], "one byte above the low mark");
    harness.peer_reads(1);
    let seen = trace.read();
    assert_eq!(seen.first(), Some(&Seen::Writable));
    assert_eq!(harness.stats().high_water_hits, 1);
    harness.peer_reads_all();
    conclude(&harness);
}

/// Goal: packets that were read before the high-water mark was exceeded are delivered only when
/// there is room, without a new event. Method: twenty small requests in one read, each with an
/// answer of 64 KiB.
#[test]
fn packets_that_were_read_wait_for_room_too() {
    let (harness, trace) = actor(options().framing(LengthField::U32), |trace| {
        Actor::echo(trace).packet(|_, _| Action::send(vec![1; HIGH]))
    });
    harness.peer_stalls();
    harness.receive([0; 4 * 20]);
    let mut delivered = trace.read().len();
    assert!(delivered < 6, "{delivered} delivered");
    while delivered < 20 {
        assert!(harness.queued_bytes() < 6 * HIGH, "no more than what is written at once");
        harness.peer_reads(HIGH);
        delivered += trace.read().iter().filter(|seen| **seen == packet(b"")).count();
    }
    harness.peer_reads_all();
    assert_eq!(harness.packets().len(), 20);
    conclude(&harness);
}

/// Goal: a peer that takes nothing during the stall timeout is ended; one that takes a byte in time
/// is not. Method: nothing else happens during that time.
#[test]
fn a_peer_that_takes_nothing_is_ended_by_the_stall_timeout() {
    let (harness, trace) = echo(options().write_stall_timeout(secs(30)));
    harness.peer_stalls();
    harness.receive(wire(&[b"answer"]));
    for _ in 0..3 {
        harness.advance(ms(29_999));
        harness.peer_reads(1);
    }
    harness.advance(ms(29_999));
    assert_eq!(trace.read(), [packet(b"answer")]);
    harness.advance(ms(1));
    assert_eq!(trace.read(), [Seen::End(CloseReason::WriteStalled)]);
    assert!(harness.is_gone());
    conclude(&harness);
}

/// Goal: new output does not restart the stall timeout of a peer that takes nothing. Method: a
/// message with an answer every 10 s.
#[test]
fn what_is_queued_meanwhile_does_not_restart_the_stall_timeout() {
    let (harness, _) = echo(options().write_stall_timeout(secs(30)));
    harness.peer_stalls();
    for _ in 0..3 {
        harness.message(send(10));
        assert_eq!(harness.closed(), None);
        harness.advance(secs(10));
    }
    assert_eq!(harness.closed(), Some(CloseReason::WriteStalled));
    conclude(&harness);
}

/// Goal: an event that announces room where there is none does not restart it either. Method: such
/// an event after half of the timeout.
#[test]
fn an_event_without_room_does_not_restart_the_stall_timeout() {
    let (harness, trace) = echo(options().write_stall_timeout(secs(10)));
    harness.peer_stalls();
    harness.packet([1; 100]);
    harness.advance(secs(5));
    harness.disturb();
    harness.advance(secs(5));
    assert_eq!(trace.read().last(), Some(&Seen::End(CloseReason::WriteStalled)));
    conclude(&harness);
}

/// Goal: a fast peer is never ended for large answers. Method: 100 answers of 1 MB, each taken at
/// once.
#[test]
fn a_fast_peer_with_large_answers_is_never_ended() {
    let (harness, _) = actor(options().framing(LengthField::U32).max_packet(2 << 20), |trace| {
        Actor::echo(trace).packet(|_, _| Action::send(vec![1; 1 << 20]))
    });
    harness.max_write(100_000);
    harness.receive(vec![0; 4 * 100]);
    assert_eq!(harness.packets().len(), 100);
    assert_eq!(harness.closed(), None);
    conclude(&harness);
}

/// Goal: `max_queued` is strict: a send that would exceed it queues nothing, and `Info::Writable`
/// follows when there is room. Method: the queue is filled to the last byte.
#[test]
fn a_send_past_max_queued_is_full_and_queues_nothing() {
    let (harness, trace) = actor(
        options()
            .max_queued(70_000)
            .write_high_water(69_000)
            .framing(LengthField::U32)
            .max_packet(60_000),
        |trace| {
            Actor::echo(trace).info(|info, _| match info {
                Info::Writable => Action::send("room"),
                other => other.default_action(),
            })
        },
    );
    harness.peer_stalls();
    harness.message(order("fill", |ctx| {
        assert_eq!(ctx.send(vec![0; 34_996]), Ok(()));
        assert_eq!(ctx.send(vec![0; 34_992]), Ok(()));
        let full = Err(SendError::Full { queued: 69_996, max: 70_000 });
        assert_eq!(ctx.send("x"), full);
        assert_eq!(ctx.send(Bytes::from(vec![0; 40_000])), full);
        assert_eq!(ctx.queued_bytes(), 69_996);
        assert_eq!(ctx.send(""), Ok(()));
        assert_eq!(ctx.queued_bytes(), 70_000);
        Action::Continue
    }));
    assert_eq!(harness.queued_bytes(), 70_000);
    assert_eq!(harness.stats().refused_sends, 2);
    assert_eq!(trace.read(), [Seen::Message("fill")]);
    harness.peer_reads_all();
    assert_eq!(trace.read(), [Seen::Writable]);
    assert_eq!(harness.packets().len(), 4, "three, and the one sent when there was room");
    conclude(&harness);
}

/// Goal: an answer that would exceed `max_queued` ends the connection at once. Method: an action of
/// one byte too many, borrowed and shared.
#[test]
fn an_action_past_max_queued_is_a_slow_reader() {
    for shared in [false, true] {
        let small = options().max_queued(66_000).write_high_water(65_999).max_packet(60_000);
        let (harness, _) = actor(small.framing(LengthField::U32), |trace| {
            Actor::echo(trace).packet(move |_, _| match shared {
                true => Action::send(Bytes::from(vec![0; 30_000])),
                false => Action::send(vec![0; 30_000]),
            })
        });
        harness.peer_stalls();
        harness.receive(vec![0; 4 * 2]);
        assert_eq!((harness.queued_bytes(), harness.closed()), (60_008, None));
        harness.receive(vec![0; 4]);
        assert_eq!(harness.closed(), Some(CloseReason::SlowReader));
        assert!(harness.is_gone());
        conclude(&harness);
    }
}

/// Sends each byte twice.
struct Doubling;

impl Framer for Doubling {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        Raw.decode(input, scanned)
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        payload.iter().for_each(|byte| out.put(&[*byte; 2]));
        Ok(())
    }
}

/// A queue of 70,000 bytes, and framings whose packets may exceed it, each with the longest packet
/// that fits an empty queue. Listeners refuse most of these framings; `set_framing` does not.
fn framings_beyond_the_queue() -> [(Framing, usize); 7] {
    [
        (Raw.into(), 70_000),
        (LengthField::U32.into(), 69_996),
        (LengthField::new(3).little_endian().into(), 69_997),
        (Lines::new(1 << 20).into(), 69_999),
        (Framing::custom(Doubling), 35_000),
        (LengthField::U32.offset(9).into(), 69_987),
        (Framing::split(Raw, LengthField::new(8).keep_header()), 70_000),
    ]
}

fn small_queue() -> ListenerOptions {
    options().max_queued(70_000).write_high_water(69_000)
}

/// Goal: a packet that does not fit even an empty queue is `TooLarge`, queues nothing, and no
/// `Info::Writable` follows. Otherwise a handler that tries again at `Info::Writable` would do so
/// for ever. Method: a packet of one byte too many, copied and shared, with an empty queue and after
/// other output, in each framing. Then the longest packet that fits, and one that has to wait.
#[test]
fn a_packet_that_fits_no_queue_is_too_large_and_no_writable_follows() {
    for (at, (framing, max)) in framings_beyond_the_queue().into_iter().enumerate() {
        let (harness, trace) = echo(small_queue());
        harness.message(order("switch", move |ctx| {
            ctx.set_framing(framing.clone());
            Action::Continue
        }));
        harness.peer_stalls();
        let too_large = move |ctx: &mut Context<'_, Do>| {
            let queued = ctx.queued_bytes();
            for packet in [Packet::from(vec![1; max + 1]), Bytes::from(vec![1; max + 1]).into()] {
                let refused = ctx.send(packet);
                let is_too_large =
                    matches!(refused, Err(SendError::TooLarge { len, .. }) if len == max + 1);
                assert!(is_too_large, "framing {at}, {queued} bytes queued: {refused:?}");
            }
            assert_eq!(ctx.queued_bytes(), queued);
        };
        harness.message(order("empty", move |ctx| {
            too_large(ctx);
            Action::Continue
        }));
        assert_eq!(harness.queued_bytes(), 0);
        harness.message(order("waiting", move |ctx| {
            assert_eq!(ctx.send(vec![1; 1_000]), Ok(()));
            too_large(ctx);
            Action::Continue
        }));
        let queued = harness.queued_bytes();
        harness.message(order("behind", move |ctx| {
            too_large(ctx);
            Action::Continue
        }));
        assert_eq!(harness.queued_bytes(), queued);
        harness.peer_reads_all();
        let seen = ["switch", "empty", "waiting", "behind"].map(Seen::Message);
        assert_eq!(trace.read(), seen, "no `Info::Writable`");
        harness.message(order("largest", move |ctx| {
            assert_eq!(ctx.send(vec![1; max]), Ok(()), "framing {at}");
            let refused = ctx.send(vec![1; max]);
            assert!(matches!(refused, Err(SendError::Full { .. })), "framing {at}: {refused:?}");
            Action::Continue
        }));
        assert_eq!(
            trace.read(),
            [Seen::Message("largest"), Seen::Writable],
            "a packet that fits an empty queue waits"
        );
        assert_eq!((harness.stats().refused_sends, harness.closed()), (7, None));
        conclude(&harness);
    }
}

/// Goal: the same in every callback. An answer that fits no queue ends the connection as too large,
/// not as a slow reader. Method: each callback, with `send` and with an action.
#[test]
fn an_answer_that_fits_no_queue_is_too_large_in_every_callback() {
    const TOO_MUCH: usize = 70_001;
    fn act(by_action: bool, ctx: &mut Context<'_, Do>) -> Action<'static> {
        if by_action {
            return Action::send(vec![1; TOO_MUCH]);
        }
        let refused = SendError::TooLarge { len: TOO_MUCH, max: 70_000 };
        assert_eq!(ctx.send(vec![1; TOO_MUCH]), Err(refused));
        Action::Continue
    }
    type Trigger = fn(&Harness<Actor>, bool);
    let triggers: [(&str, Trigger); 5] = [
        ("init", |_, _| {}),
        ("packet", |harness, _| harness.receive("?")),
        ("message", |harness, by| harness.message(order("", move |ctx| act(by, ctx)))),
        ("timer", |harness, by| {
            harness.message(order("", move |ctx| {
                let _ = ctx.send_after(ms(1), order("", move |ctx| act(by, ctx)));
                Action::Continue
            }));
            harness.advance(ms(1));
        }),
        ("info", |harness, _| harness.drain()),
    ];
    for ((name, trigger), by_action) in triggers.into_iter().flat_map(|t| [(t, false), (t, true)]) {
        let (harness, trace) = actor(small_queue().framing(Raw), |trace| {
            let act = move |is: bool, ctx: &mut Context<'_, Do>| match is {
                true => act(by_action, ctx),
                false => Action::Continue,
            };
            let on_info = move |info: Info<'_, Do>, ctx: &mut Context<'_, Do>| match info {
                Info::Shutdown => act(true, ctx),
                other => other.default_action(),
            };
            Actor::echo(trace)
                .init(move |ctx| act(name == "init", ctx))
                .packet(move |_, ctx| act(name == "packet", ctx))
                .info(on_info)
        });
        trigger(&harness, by_action);
        let end = CloseReason::AnswerTooLarge { len: TOO_MUCH, max: 70_000 };
        assert_eq!(harness.closed(), by_action.then_some(end), "{name}");
        assert_eq!(harness.sent(), b"", "{name}");
        assert!(!trace.read().contains(&Seen::Writable), "{name}");
        assert_eq!(harness.stats().panics, 0, "{name}");
        conclude(&harness);
    }
}

/// Goal: the maximum of a framing is checked before the room in the queue, because a caller waits
/// after `Full`. Method: a packet above the maximum while there is no room for it either, and one
/// that its framer refuses.
#[test]
fn a_packet_that_can_never_be_framed_is_not_full() {
    let framing = Framing::split(Raw, Lines::new(60_000));
    let (harness, trace) = echo(small_queue().framing(framing));
    harness.peer_stalls();
    harness.message(order("fill", |ctx| {
        assert_eq!(ctx.send(vec![1; 59_999]), Ok(()));
        let refused = SendError::TooLarge { len: 60_001, max: 60_000 };
        assert_eq!(ctx.send(vec![1; 60_001]), Err(refused));
        assert!(matches!(ctx.send(vec![b'\n'; 20_000]), Err(SendError::BadFrame(_))));
        Action::Continue
    }));
    harness.peer_reads_all();
    assert_eq!(trace.read(), [Seen::Message("fill")]);
    conclude(&harness);
}

/// Goal: the header of an answer counts towards `max_queued`. Method: room for an answer and its
/// header, or for one byte less. The answer is the packet itself, or another one.
#[test]
fn the_header_of_an_answer_counts_towards_max_queued() {
    for (itself, spare) in [(true, 10), (true, 9), (false, 10), (false, 9)] {
        let small = options().max_queued(66_000).write_high_water(65_999);
        let (harness, _) = actor(small, |trace| {
            let actor = Actor::echo(trace);
            if itself { actor } else { actor.packet(|_, _| Action::send("borrowed")) }
        });
        harness.peer_stalls();
        harness.message(send(30_000));
        harness.message(send(66_000 - 30_002 - 2 - spare));
        assert_eq!(harness.queued_bytes(), 66_000 - spare);
        harness.packet(b"8 bytes.");
        let end = (spare == 9).then_some(CloseReason::SlowReader);
        assert_eq!(harness.closed(), end, "{spare} bytes of room");
        conclude(&harness);
    }
}

/// Goal: no framing makes an answer exceed `max_queued`, however much it adds. Method: a peer that
/// takes nothing. Answers of 3,000 bytes, in framings that add 5,004 bytes or double the length,
/// until the queue has room for one more payload but not for its frame.
#[test]
fn no_framing_takes_an_answer_past_max_queued() {
    for framing in [LengthField::U32.offset(5_000).into(), Framing::custom(Doubling)] {
        for kind in ["borrowed", "owned", "shared"] {
            let framing = Framing::split(LengthField::U8, framing.clone());
            let (harness, trace) = actor(small_queue(), move |trace| {
                let framing = framing.clone();
                let switch = move |ctx: &mut Context<'_, Do>| {
                    ctx.set_framing(framing.clone());
                    Action::Continue
                };
                Actor::echo(trace).init(switch).packet(move |_, ctx| {
                    let queued = ctx.queued_bytes();
                    assert!(queued <= 70_000, "{queued} bytes are queued of {kind} answers");
                    match kind {
                        "borrowed" => Action::send(&[b'x'; 3_000]),
                        "owned" => Action::send(vec![b'x'; 3_000]),
                        _ => Action::send(Bytes::from_static(&[b'x'; 3_000])),
                    }
                })
            });
            harness.peer_stalls();
            harness.receive([0; 30]);
            assert_eq!(harness.closed(), Some(CloseReason::SlowReader), "{kind} answers");
            assert!(trace.read().len() < 30);
            conclude(&harness);
        }
    }
}

/// Sends the length of a packet instead of the packet.
struct Digest;

impl Framer for Digest {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        Raw.decode(input, scanned)
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(&payload.len().to_be_bytes());
        Ok(())
    }
}

/// Goal: the frame has to fit the queue, not the packet: a packet longer than the room, or than the
/// whole queue, is sent if its frame fits. Method: such packets from a callback and as an answer,
/// with an empty queue and with room for only a frame or two.
#[test]
fn a_packet_that_its_framer_shortens_is_sent_if_its_frame_fits() {
    let (harness, trace) = actor(small_queue(), |trace| {
        let switch = |ctx: &mut Context<'_, Do>| {
            ctx.set_framing(Framing::split(Raw, Framing::custom(Digest)));
            Action::Continue
        };
        Actor::echo(trace).init(switch).packet(|_, _| Action::send(vec![0; 500_000]))
    });
    harness.message(order("long", |ctx| {
        assert_eq!(ctx.send(vec![0; 400_000]), Ok(()));
        assert_eq!(ctx.send(Bytes::from(vec![0; 300_000])), Ok(()));
        Action::send(vec![0; 200_000])
    }));
    harness.receive("?");
    let lengths = [400_000_u64, 300_000, 200_000, 500_000].map(u64::to_be_bytes);
    assert_eq!(harness.sent(), lengths.concat());
    harness.peer_stalls();
    harness.message(order("fill", |ctx| {
        let taken = (0..70_000).take_while(|_| ctx.send(&[0; 300]).is_ok()).count();
        assert_eq!(taken, 70_000 / 8, "each of eight bytes");
        Action::Continue
    }));
    harness.peer_reads_all();
    let seen = ["long", "fill"].map(Seen::Message);
    assert_eq!(
        trace.read(),
        [&seen[..1], &[Seen::Packet(b"?".to_vec())], &seen[1..], &[Seen::Writable]].concat()
    );
    assert_eq!(harness.closed(), None);
}

/// Goal: a handler that sends without end gets `Full`, and memory stays bounded. Method: a million
/// packets in one callback.
#[test]
fn a_million_sends_in_one_callback_are_cut_at_max_queued() {
    let (harness, _) = echo(options());
    harness.peer_stalls();
    harness.message(order("flood", |ctx| {
        let taken = (0..1_000_000).take_while(|_| ctx.send(&[0; 62]).is_ok()).count();
        assert_eq!(taken, (8 << 20) / 64);
        Action::Continue
    }));
    assert_eq!(harness.queued_bytes(), 8 << 20);
    assert_eq!(harness.closed(), None);
    conclude(&harness);
}

// ---- the last bytes ----

/// Goal: a peer that closes its sending half still gets its answer. Method: output waits when the
/// end comes.
#[test]
fn output_is_sent_after_the_peer_closed_its_half() {
    let (harness, _) = echo(options());
    harness.peer_stalls();
    harness.receive(wire(&[b"question"]));
    harness.peer_closes();
    assert_eq!(harness.closed(), None, "the answer is still to be sent");
    harness.peer_reads(5);
    harness.peer_reads(5);
    assert_eq!(harness.packets(), [b"question"]);
    assert_eq!(harness.closed(), Some(CloseReason::PeerClosed));
    assert!(harness.is_gone(), "no lingering after the peer's end");
    conclude(&harness);
}

/// Goal: with a linger timeout of zero a connection does not linger, and with a drain timeout of
/// zero a drain does not wait. Method: a handler that stops, and one that continues when its
/// listener drains. No time passes.
#[test]
fn timeouts_of_zero_to_linger_and_to_drain_are_none() {
    let none = options().linger_timeout(ms(0)).drain_timeout(ms(0));
    let (harness, _) = echo(none.clone());
    harness.message(send_and_stop(3));
    assert_eq!(harness.packets(), [[1; 3]]);
    harness.advance(ms(0));
    assert!(harness.is_gone(), "it does not linger");

    let (harness, _) = actor(none, Actor::stubborn);
    harness.drain();
    assert_eq!(harness.closed(), Some(CloseReason::DrainForced));
    assert_clean(&harness);
}

/// Goal: closing takes no longer than the close timeout, however slow the peer is. Method: a peer
/// that takes nothing, and one that takes a byte a second.
#[test]
fn the_close_timeout_ends_a_connection_that_cannot_get_rid_of_its_output() {
    for drip in [0, 1] {
        let roomy = options().framing(LengthField::U32).max_queued(32 << 20).max_packet(16 << 20);
        let (harness, trace) = echo(roomy.close_timeout(secs(10)));
        harness.peer_stalls();
        harness.message(send_and_stop(10 << 20));
        for _ in 0..9 {
            harness.advance(secs(1));
            harness.peer_reads(drip);
        }
        harness.advance(ms(999));
        assert_eq!(harness.closed(), None);
        harness.advance(ms(1));
        assert_eq!(harness.closed(), Some(CloseReason::Normal));
        assert!(harness.is_gone());
        assert_eq!(trace.read().len(), 2);
        conclude(&harness);
    }
}

/// Goal: an end with unread input causes no reset: the answer is sent, then the end, and the
/// remaining input is read and discarded. Method: 2 MB unread, then more input, then the peer's end.
#[test]
fn an_end_with_unread_input_is_no_reset() {
    let (harness, trace) = actor(options(), |trace| {
        Actor::echo(trace).packet(|_, _| Action::send_and_stop("enough", CloseReason::Normal))
    });
    harness.receive(vec![0; 2 << 20]);
    assert_eq!(harness.packets(), [b"enough"]);
    assert_eq!(harness.closed(), Some(CloseReason::Normal), "terminated before it lingers");
    assert!(harness.is_finished() && !harness.is_gone());
    assert_eq!(harness.leftovers().connections, 1, "it still has its slot");
    harness.receive(vec![0; 2 << 20]);
    harness.advance(secs(1));
    harness.peer_closes();
    assert!(harness.is_gone() && !harness.closed_with_unread_input());
    assert_eq!(trace.read().len(), 2);
    conclude(&harness);
}

/// Goal: a peer that writes before it reads does not block after a stop. Method: bytes arrive while
/// the last answer cannot leave. At the close timeout none of them is unread.
#[test]
fn input_after_a_stop_is_read_and_discarded() {
    let (harness, _) = echo(options().close_timeout(secs(5)));
    harness.peer_stalls();
    harness.message(send_and_stop(100));
    harness.receive([1; 100]);
    assert_eq!(harness.closed(), None);
    harness.advance(secs(5));
    assert!(harness.is_gone() && !harness.closed_with_unread_input());
    assert_clean(&harness);
}

/// Goal: an event that announces an error where there is none loses no queued output. Method: such
/// an event while the last output is queued.
#[test]
fn a_false_error_event_loses_no_last_output() {
    let (harness, _) = echo(options());
    harness.peer_stalls();
    harness.message(send_and_stop(1_000));
    harness.disturb();
    assert_eq!((harness.closed(), harness.queued_bytes()), (None, 1_002));
    harness.peer_reads_all();
    assert_eq!(harness.packets()[0].len(), 1_000);
    conclude(&harness);
}

/// Goal: lingering has a time limit. Method: a peer that never closes and continues to send.
#[test]
fn the_linger_timeout_ends_a_peer_that_never_closes() {
    let (harness, _) = echo(options().linger_timeout(secs(5)));
    harness.message(send_and_stop(1));
    for _ in 0..4 {
        harness.advance(secs(1));
        harness.receive([0; 100]);
    }
    harness.advance(ms(999));
    assert!(!harness.is_gone());
    harness.advance(ms(1));
    assert!(harness.is_gone());
    conclude(&harness);
}

/// Goal: a connection whose stream breaks stops lingering. Method: a read that fails after the last
/// answer, announced as readable only.
#[test]
fn an_error_ends_the_lingering() {
    let (harness, _) = echo(options());
    harness.message(send_and_stop(3));
    assert!(harness.is_finished() && !harness.is_gone(), "it lingers");
    harness.fail_next_read(ErrorKind::BrokenPipe);
    harness.receive(b"x");
    assert!(harness.is_gone());
    assert_clean(&harness);
}

/// Goal: a reset is noticed although the handler pauses after the event that reports it, and before
/// all input that came with it is read. Method: one packet a turn, and a pause at the second packet.
/// The packets are read together, or one by one.
#[test]
fn a_reset_is_noticed_if_the_handler_pauses_before_it_is_read() {
    for at_once in [3, 1_000] {
        let trace = Trace::default();
        let own = trace.clone();
        let few = ReactorOptions::new().packet_budget(1);
        let harness = Harness::with(few, options(), move |_| {
            Actor::echo(&own).packet(|packet, ctx| {
                if packet == b"b" {
                    ctx.pause_reading();
                }
                Action::Continue
            })
        });
        harness.max_read(at_once);
        harness.arrive(wire(&[b"a", b"b", b"c"]));
        harness.peer_resets();
        assert_eq!(trace.read(), [packet(b"a"), packet(b"b"), Seen::End(CloseReason::Reset)]);
        assert_clean(&harness);
    }
}

/// Goal: a reset is noticed while the connection is not read. Method: the handler has paused, or
/// output is above the high-water mark.
#[test]
fn a_reset_is_noticed_while_reading_is_paused() {
    for paused in [true, false] {
        let (harness, _) = echo(options());
        if paused {
            harness.message(order("pause", |ctx| {
                ctx.pause_reading();
                Action::Continue
            }));
        } else {
            harness.peer_stalls();
            harness.message(order("fill", |ctx| {
                while ctx.queued_bytes() <= HIGH {
                    assert_eq!(ctx.send(&[0; 1_000]), Ok(()));
                }
                Action::Continue
            }));
        }
        harness.arrive(wire(&[b"unread"]));
        harness.run();
        harness.peer_resets();
        let reason = harness.closed();
        assert!(
            matches!(reason, Some(CloseReason::Reset | CloseReason::Io(_))),
            "{reason:?}, paused: {paused}"
        );
        assert!(harness.is_gone());
        conclude(&harness);
    }
}

/// Goal: the first reason for the end is the one in `terminate`. Method: a reset while the last
/// answer of a handler that stopped is queued.
#[test]
fn the_first_reason_to_end_is_the_one_reported() {
    let (harness, trace) = echo(options());
    harness.peer_stalls();
    harness.message(send_and_stop(10));
    assert_eq!(harness.closed(), None);
    harness.fail_next_write(ErrorKind::BrokenPipe);
    harness.peer_reads_all();
    assert_eq!(trace.read(), [Seen::Message("stop"), Seen::End(CloseReason::Normal)]);
    assert!(harness.is_gone());
    conclude(&harness);
}

/// Goal: a pause holds back packets that were read already, and the end. They are delivered after
/// the resume without a new event. Method: a pause in the first of three packets, all in one read
/// with the end.
#[test]
fn a_paused_connection_keeps_its_packets_and_its_end_back() {
    let (harness, trace) = actor(options(), |trace| {
        Actor::echo(trace).packet(|packet, ctx| {
            if packet == b"hold" {
                ctx.pause_reading();
            }
            Action::send(packet.to_vec())
        })
    });
    harness.arrive(wire(&[b"hold", b"two", b"three"]));
    harness.peer_closes();
    assert_eq!(trace.read(), [packet(b"hold")]);
    harness.disturb();
    harness.advance(secs(3_600));
    assert_eq!((trace.read().len(), harness.closed()), (0, None), "whatever is announced");
    harness.message(order("resume", |ctx| {
        ctx.resume_reading();
        Action::send("answer")
    }));
    let end = [Seen::EndOfInput, Seen::End(CloseReason::PeerClosed)];
    let packets = [Seen::Message("resume"), packet(b"two"), packet(b"three")];
    assert_eq!(trace.read(), [&packets[..], &end].concat());
    assert_eq!(harness.packets(), [b"hold" as &[u8], b"answer", b"two", b"three"]);
    conclude(&harness);
}

/// Goal: a handler may answer `Info::Writable` with a stop. Method: a handler that does.
#[test]
fn writable_may_be_answered_in_every_way() {
    let (harness, _) = actor(options(), |trace| {
        Actor::echo(trace).info(|info, _| match info {
            Info::Writable => Action::send_and_stop("bye", CloseReason::Custom("drained")),
            other => other.default_action(),
        })
    });
    harness.peer_stalls();
    harness.message(send(60_000));
    harness.message(send(60_000));
    harness.peer_reads_all();
    assert_eq!(harness.packets().last().unwrap(), b"bye");
    assert_eq!(harness.closed(), Some(CloseReason::Custom("drained")));
    conclude(&harness);
}

/// Goal: a peer that takes everything is not ended because many messages with large answers come in
/// one turn. Method: 1,000 messages at once, each answered with 60,000 bytes. Together that is seven
/// times `max_queued`.
#[test]
fn answers_to_many_messages_in_one_turn_are_offered_as_they_come() {
    let (harness, _) = actor(options(), Actor::echo);
    let address = harness.address();
    (0..1_000).for_each(|_| assert!(address.send(send(60_000)).is_ok()));
    harness.turn();
    harness.turn();
    assert_eq!(harness.closed(), None);
    assert_eq!(harness.packets().len(), 1_000);
    conclude(&harness);
}

/// Goal: the answers to several messages of one turn leave in that turn, in order, with one write.
/// Method: the writes of a turn with three messages are counted.
#[test]
fn answers_to_messages_of_one_turn_leave_in_one_write() {
    let (harness, _) = actor(options(), Actor::echo);
    let address = harness.address();
    for text in ["one", "two", "three"] {
        assert!(address.send(order(text, move |_| Action::send(text))).is_ok());
    }
    let before = harness.writes();
    harness.turn();
    assert_eq!(harness.writes() - before, 1);
    assert_eq!(harness.packets(), [b"one" as &[u8], b"two", b"three"]);
    assert_eq!(harness.leftovers().deadlines, 0);
    conclude(&harness);
}

/// Goal: the answer to a single message leaves in the same turn with one write, is not queued, and
/// arms no timer. Method: water marks so low that any queued byte exceeds them.
#[test]
fn the_answer_to_a_single_message_is_not_queued() {
    let low = options().write_high_water(2).write_low_water(1);
    let (harness, trace) = actor(low, Actor::echo);
    for round in 1..=3 {
        let before = harness.writes();
        assert!(harness.address().send(send(100)).is_ok());
        harness.turn();
        assert_eq!((harness.writes() - before, harness.packets().len()), (1, 1));
        assert_eq!(harness.stats().high_water_hits, 0, "in round {round}");
        let left = harness.leftovers();
        assert_eq!((left.deadlines, left.buffers), (0, 0));
    }
    assert_eq!(trace.read(), [Seen::Message("send"), Seen::Message("send"), Seen::Message("send")]);
    conclude(&harness);
}
