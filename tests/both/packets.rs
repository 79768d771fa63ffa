//! Packets: which packets of a stream of bytes are delivered, and which bytes are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use condor::{
    Action, CloseReason, Decode, FrameError, Framer, Framing, LengthField, Lines, Output, Raw,
    ReactorOptions, SendError,
};

use super::{actor, echo};
use crate::rig::{self, Harness, conclude, options};
use crate::support::{Actor, Seen, order, packet, wire};

// ---- cuts ----

/// Goal: a handler does not see where the network cuts the stream. Method: twelve bytes with four
/// packets, cut in each of the 2,048 possible ways.
#[test]
fn every_way_to_cut_a_stream_gives_the_same_packets() {
    let bytes = wire(&[b"a", b"", b"bc", b"d"]);
    assert_eq!(bytes.len(), 12);
    let (rig, trace) = echo(options());
    for cuts in (0u32..1 << (bytes.len() - 1)).step_by(rig::EVERY) {
        let peer = rig.connect();
        let mut from = 0;
        for at in 1..=bytes.len() {
            if at == bytes.len() || cuts >> (at - 1) & 1 == 1 {
                peer.receive(&bytes[from..at]);
                from = at;
            }
        }
        assert_eq!(trace.read(), [b"a" as &[u8], b"", b"bc", b"d"].map(packet), "{cuts:#b}");
        assert_eq!(peer.sent(), bytes, "{cuts:#b}");
        peer.peer_closes();
        trace.read();
        assert!(peer.is_gone());
    }
    conclude(&rig);
}

/// An echo without a trace.
struct Plain;

impl condor::Handler for Plain {
    type Message = ();

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        _: &mut condor::Context<'_, ()>,
    ) -> Action<'a> {
        Action::send(packet)
    }
}

/// Goal: the same over the sizes of buffers. Method: 64 KiB of packets of many lengths, with one cut
/// at each position.
#[test]
fn one_cut_anywhere_in_64_kib_is_invisible() {
    let mut bytes = Vec::new();
    for len in [0, 1, 255, 256, 1_000, 4_096, 9_000, 20_000, 30_000].into_iter().cycle() {
        let room = (64usize * 1024).saturating_sub(bytes.len() + 2);
        let len = room.min(len);
        let fill = u8::try_from(len % 251).unwrap();
        bytes.extend(wire(&[&vec![fill; len]]));
        if bytes.len() == 64 * 1024 {
            break;
        }
    }
    let rig = Harness::with(ReactorOptions::new(), options(), |_| Plain);
    let peer = rig.connect();
    for cut in (1..bytes.len()).step_by(rig::EVERY) {
        peer.receive(&bytes[..cut]);
        peer.receive(&bytes[cut..]);
        assert!(peer.sent() == bytes, "cut at {cut}");
    }
    peer.peer_closes();
    assert_eq!(peer.closed(), Some(CloseReason::PeerClosed));
    conclude(&rig);
}

/// Goal: an end waits for earlier packets that exceed the budget of a turn. Method: ten thousand
/// empty packets and the end, in one event.
#[test]
fn an_end_after_more_packets_than_a_turn_delivers_waits_for_them() {
    let (harness, trace) = echo(options());
    harness.arrive([0; 20_000]);
    harness.peer_closes();
    let seen = trace.read();
    assert_eq!(seen.len(), 10_002);
    assert_eq!(seen[10_000..], [Seen::EndOfInput, Seen::End(CloseReason::PeerClosed)]);
    assert_eq!(harness.sent().len(), 20_000);
    conclude(&harness);
}

// ---- lengths ----

/// Goal: an empty packet is a packet. Method: one empty request and its empty answer.
#[test]
fn an_empty_packet_is_delivered_and_sent() {
    let (harness, trace) = echo(options());
    harness.receive([0, 0]);
    assert_eq!(trace.read(), [packet(b"")]);
    assert_eq!(harness.sent(), [0, 0]);
    conclude(&harness);
}

/// Goal: each width carries every length up to its maximum. Method: echoes of lengths at the limits.
#[test]
fn every_width_carries_up_to_its_maximum() {
    let cases: [(LengthField, &[usize]); 4] = [
        (LengthField::U8, &[0, 1, 254, 255]),
        (LengthField::U16, &[0, 1, 255, 256, 65_534, 65_535]),
        (LengthField::U32, &[0, 65_535, 65_536, 1 << 20]),
        (LengthField::U32.max_packet(1 << 24), &[0, (1 << 24) - 1, 1 << 24]),
    ];
    for (field, lens) in cases {
        let (harness, _) = echo(options().framing(field).max_connections(1).max_queued(17 << 20));
        for &len in lens {
            harness.packet(vec![7; len]);
            let answers = harness.packets();
            assert_eq!(answers.len(), 1, "{field:?}, {len}");
            assert!(answers[0] == vec![7; len], "{field:?}, {len}");
        }
        conclude(&harness);
    }
}

/// Goal: a length above the maximum ends the connection at the header. Method: headers alone, with
/// and without the packet after them.
#[test]
fn a_length_above_the_maximum_ends_the_connection_at_the_header() {
    let small = || options().framing(LengthField::U32).max_packet(100);
    for announced in [101, 65_536, u32::MAX] {
        let (harness, trace) = echo(small());
        harness.receive(announced.to_be_bytes());
        let reason =
            CloseReason::PacketTooLarge { announced: announced.try_into().unwrap(), max: 100 };
        assert_eq!(trace.read(), [Seen::End(reason)]);
        assert!(harness.is_finished());
        conclude(&harness);
    }
    let (harness, trace) = echo(small());
    harness.arrive(101u32.to_be_bytes());
    harness.receive([0; 101]);
    let reason = CloseReason::PacketTooLarge { announced: 101, max: 100 };
    assert_eq!(trace.read(), [Seen::End(reason)], "although the whole packet had arrived");
    conclude(&harness);

    let (harness, trace) = echo(small());
    harness.arrive(100u32.to_be_bytes());
    harness.receive([0; 100]);
    assert_eq!(trace.read(), [packet(&[0; 100])]);
    conclude(&harness);
}

/// Goal: answers to the packets before the one that is too large are sent.
#[test]
fn packets_before_one_that_is_too_large_are_answered() {
    let (harness, _) = echo(options().max_packet(10));
    harness.receive([&wire(&[b"good"])[..], &[0, 11]].concat());
    assert_eq!(harness.packets(), [b"good"]);
    assert_eq!(harness.closed(), Some(CloseReason::PacketTooLarge { announced: 11, max: 10 }));
    conclude(&harness);
}

// ---- the end of the stream ----

/// Goal: a packet that is cut short is never delivered, and the reason reports how many of its bytes
/// came. Whole packets before it are answered. Method: the end after each number of bytes.
#[test]
fn an_end_inside_a_packet_reports_what_was_missing() {
    for (tail, want) in [(&b"\x00"[..], None), (b"\x00\x05", Some(7)), (b"\x00\x05hell", Some(7))] {
        let (harness, trace) = echo(options());
        harness.arrive(wire(&[b"whole"]));
        harness.arrive(tail);
        harness.peer_closes();
        let reason = harness.closed().unwrap();
        let CloseReason::PeerClosedMidPacket { have, want: reported } = reason else {
            panic!("{reason:?}")
        };
        assert_eq!(have, tail.len());
        assert_eq!(reported, want, "{tail:?}");
        assert_eq!(trace.read(), [packet(b"whole"), Seen::End(reason)]);
        assert_eq!(harness.packets(), [b"whole"]);
        conclude(&harness);
    }
}

/// Goal: an end between packets is an ordinary end, whether the last packet comes in the same event
/// or not.
#[test]
fn an_end_between_packets_is_an_ordinary_one() {
    for together in [true, false] {
        let (harness, trace) = echo(options());
        harness.arrive(wire(&[b"last"]));
        if !together {
            harness.run();
        }
        harness.peer_closes();
        let end = [Seen::EndOfInput, Seen::End(CloseReason::PeerClosed)];
        assert_eq!(trace.read(), [&[packet(b"last")][..], &end].concat());
        assert_eq!(harness.packets(), [b"last"]);
        conclude(&harness);
    }
}

/// Goal: after a stop no packet is delivered, but the answer of `send_and_stop` is sent. Method:
/// three packets in one read; the handler stops at the second.
#[test]
fn packets_after_a_stop_are_not_delivered() {
    for with_answer in [true, false] {
        let (harness, trace) = actor(options(), |trace| {
            Actor::echo(trace).packet(move |packet, _| match packet {
                b"stop" if with_answer => {
                    Action::send_and_stop("bye", CloseReason::Custom("asked"))
                }
                b"stop" => Action::stop(CloseReason::Custom("asked")),
                _ => Action::send(packet.to_vec()),
            })
        });
        harness.receive(wire(&[b"one", b"stop", b"three"]));
        let end = Seen::End(CloseReason::Custom("asked"));
        assert_eq!(trace.read(), [packet(b"one"), packet(b"stop"), end]);
        let answers: &[&[u8]] = if with_answer { &[b"one", b"bye"] } else { &[b"one"] };
        assert_eq!(harness.packets(), answers);
        conclude(&harness);
        assert_eq!(trace.read(), [], "terminated once");
    }
}

// ---- set_framing ----

/// Goal: a new framing counts from the first byte that is not delivered yet, buffered bytes
/// included, and holds for later sends. Method: an upgrade in the middle of the stream, with the
/// rest in the same read, cut at each position.
#[test]
fn a_new_framing_counts_from_the_first_byte_not_yet_delivered() {
    let stream = b"\x00\x07upgradehello\nworld\n\x00\x00";
    for cut in 1..stream.len() {
        let (harness, trace) = actor(options(), |trace| {
            Actor::echo(trace).packet(|packet, ctx| {
                if packet == b"upgrade" {
                    assert_eq!(ctx.send("before"), Ok(()));
                    ctx.set_framing(Lines::new(80));
                    return Action::send("after");
                }
                Action::send(packet.to_vec())
            })
        });
        harness.receive(&stream[..cut]);
        harness.receive(&stream[cut..]);
        let seen = [b"upgrade" as &[u8], b"hello", b"world"].map(packet);
        assert_eq!(trace.read(), seen, "cut at {cut}");
        assert_eq!(harness.sent(), b"\x00\x06beforeafter\nhello\nworld\n", "cut at {cut}");
        conclude(&harness);
    }
}

/// Goal: bytes that were half a packet may be whole packets in a new framing. Method: a message sets
/// the framing while two bytes wait.
#[test]
fn a_new_framing_set_by_a_message_delivers_what_waits() {
    let (harness, trace) = echo(options().framing(LengthField::U32));
    harness.receive([0, 0]);
    harness.message(order("switch", |ctx| {
        ctx.set_framing(LengthField::U8);
        Action::Continue
    }));
    assert_eq!(trace.read(), [Seen::Message("switch"), packet(b""), packet(b"")]);
    assert_eq!(harness.sent(), [0, 0]);
    conclude(&harness);
}

/// Goal: a new framing does not wait for the length that the old framing wanted. Method: three bytes
/// of a packet of 256 bytes are two packets in the new framing.
#[test]
fn a_new_framing_does_not_wait_for_what_the_old_one_wanted() {
    let (harness, trace) = echo(options());
    harness.receive([1, 0, 0]);
    harness.message(order("switch", |ctx| {
        ctx.set_framing(LengthField::U8);
        Action::Continue
    }));
    assert_eq!(trace.read(), [Seen::Message("switch"), packet(b"\0"), packet(b"")]);
    conclude(&harness);
}

// ---- framers that break their contract ----

/// What a broken framer does with an `x`; other bytes are packets.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    TakesNothing,
    TakesTooMuch,
    TakesLessThanItsPacket,
    PointsOutside,
    PointsBackwards,
    PanicsDecoding,
    PanicsEncoding,
    RefusesEncoding,
}

pub(crate) struct Broken(pub(crate) Fault);

impl Framer for Broken {
    fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
        let len = input.len();
        let good = Decode::Frame { payload: 0..1, consumed: 1 };
        match (self.0, input) {
            (_, []) => Ok(Decode::Need(None)),
            (Fault::TakesNothing, [b'x', ..]) => Ok(Decode::Frame { payload: 0..0, consumed: 0 }),
            (Fault::TakesTooMuch, [b'x', ..]) => {
                Ok(Decode::Frame { payload: 0..1, consumed: len + 1 })
            }
            (Fault::TakesLessThanItsPacket, [b'x', ..]) => {
                Ok(Decode::Frame { payload: 0..2, consumed: 1 })
            }
            (Fault::PointsBackwards, [b'x', ..]) => {
                let (start, end) = (1, 0);
                Ok(Decode::Frame { payload: start..end, consumed: 1 })
            }
            (Fault::PointsOutside, [b'x', ..]) => {
                Ok(Decode::Frame { payload: 0..len + 1, consumed: len })
            }
            (Fault::PanicsDecoding, [b'x', ..]) => panic!("a framer's bug"),
            _ => Ok(good),
        }
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(b"<");
        out.put(payload);
        match (self.0, payload) {
            (Fault::PanicsEncoding, b"x") => panic!("a framer's bug"),
            (Fault::RefusesEncoding, b"x") => Err(FrameError::Bad("no x")),
            _ => {
                out.put(b">");
                Ok(())
            }
        }
    }
}

/// Goal: a framer that breaks its contract ends its connection, leaves no half packet in the output,
/// and does not block the loop. Method: each way to break it, while another connection is served.
#[test]
fn a_broken_framer_ends_its_connection_and_leaves_no_half_packet() {
    for (fault, reason) in [
        (Fault::TakesNothing, CloseReason::FramerBug),
        (Fault::TakesTooMuch, CloseReason::FramerBug),
        (Fault::TakesLessThanItsPacket, CloseReason::FramerBug),
        (Fault::PointsBackwards, CloseReason::FramerBug),
        (Fault::PointsOutside, CloseReason::FramerBug),
        (Fault::PanicsDecoding, CloseReason::Panicked),
        (Fault::PanicsEncoding, CloseReason::Panicked),
        (Fault::RefusesEncoding, CloseReason::BadFrame("no x")),
    ] {
        let (harness, _) = echo(options().framing(Framing::custom(Broken(fault))));
        let other = harness.connect();
        harness.receive(b"abxc");
        assert_eq!(harness.closed(), Some(reason));
        assert_eq!(harness.sent(), b"<a><b>", "{reason:?}");
        other.receive(b"d");
        assert_eq!(other.sent(), b"<d>");
        other.peer_closes();
        conclude(&harness);
    }
}

/// Goal: if the framer refuses to encode, `ctx.send` returns an error and the connection continues.
#[test]
fn a_refused_send_leaves_the_connection_usable() {
    let framing = Framing::custom(Broken(Fault::RefusesEncoding));
    let (harness, _) = actor(options().framing(framing), |trace| {
        Actor::echo(trace).packet(|_, ctx| {
            assert_eq!(ctx.send("a"), Ok(()));
            assert_eq!(ctx.send("x"), Err(SendError::BadFrame("no x")));
            Action::send("b")
        })
    });
    harness.receive(b"?");
    assert_eq!(harness.sent(), b"<a><b>");
    assert_eq!(harness.closed(), None);
    conclude(&harness);
}

/// Goal: an invalid result of a framer ends the connection, wherever the bytes are and whenever the
/// framing was set. Method: a packet longer than its frame, also if its bytes wait for the next
/// piece, and also after `set_framing`.
#[test]
fn a_frame_shorter_than_its_packet_is_never_delivered() {
    struct Overlapping;

    impl Framer for Overlapping {
        fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
            let whole = Decode::Frame { payload: 0..5, consumed: 1 };
            Ok(if input.len() < 5 { Decode::Need(None) } else { whole })
        }

        fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
            out.put(payload);
            Ok(())
        }
    }

    for pieces in [vec!["abcdefg"], vec!["abc", "defg"], vec!["ab", "cd", "e"]] {
        let (at_first, _) = echo(options().framing(Framing::custom(Overlapping)));
        let (later, _) = echo(options());
        later.message(order("switch", |ctx| {
            ctx.set_framing(Framing::custom(Overlapping));
            Action::Continue
        }));
        for harness in [at_first, later] {
            pieces.iter().for_each(|piece| harness.receive(piece));
            assert_eq!(harness.closed(), Some(CloseReason::FramerBug), "{pieces:?}");
            assert_eq!((harness.stats().packets_in, harness.sent()), (0, vec![]), "{pieces:?}");
            conclude(&harness);
        }
    }
}

// ---- framers whose hints are wrong ----

/// The length that a framer wants, from the length that is available.
type Hint = fn(usize) -> Option<usize>;

/// A length of one byte and a packet. `hint` makes its hint from the length that is available.
#[derive(Clone)]
struct Hinting {
    hint: Hint,
    calls: Arc<AtomicUsize>,
}

impl Hinting {
    fn new(hint: Hint) -> Self {
        Self { hint, calls: Arc::default() }
    }
}

impl Framer for Hinting {
    fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
        // A caller that calls for ever fails here instead of hanging.
        assert!(self.calls.fetch_add(1, Ordering::Relaxed) < 100_000, "called for ever");
        Ok(match input.split_first() {
            Some((len, rest)) if rest.len() >= usize::from(*len) => {
                let end = 1 + usize::from(*len);
                Decode::Frame { payload: 1..end, consumed: end }
            }
            _ => Decode::Need((self.hint)(input.len())),
        })
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(&[u8::try_from(payload.len()).unwrap()]);
        out.put(payload);
        Ok(())
    }
}

/// Goal: a wrong hint costs time, but no packet and no endless loop. Method: hints below, at and
/// above the available and the needed length, with packets in pieces of each small size. Each packet
/// is delivered with its last byte, without a timeout or an end.
#[test]
fn a_wrong_hint_costs_no_packet() {
    let hints: [(&str, Hint); 9] = [
        ("none", |_| None),
        ("zero", |_| Some(0)),
        ("one", |_| Some(1)),
        ("one less", |have| Some(have.saturating_sub(1))),
        ("the available length", Some),
        ("one more", |have| Some(have + 1)),
        ("seven more", |have| Some(have + 7)),
        ("much more", |have| Some(have + 100_000)),
        ("the maximum", |_| Some(1 << 20)),
    ];
    let packets: [&[u8]; 5] = [b"first packet", b"", b"2", &[3; 255], b"the fourth"];
    for (name, hint) in hints {
        for size in [1, 2, 5, 64, 100, 1_000] {
            let framing = Framing::custom(Hinting::new(hint));
            let (harness, trace) = echo(options().framing(framing));
            let frames = packets.map(|payload| harness.framed(payload));
            let (mut seen, mut at) = (0, 0);
            for piece in frames.concat().chunks(size) {
                harness.receive(piece);
                at += piece.len();
                seen += trace.read().len();
                let due = (1..=frames.len()).filter(|n| frames[..*n].concat().len() <= at).count();
                assert_eq!(seen, due, "hint: {name}, {at} bytes in pieces of {size}");
            }
            assert_eq!(harness.packets(), packets, "hint: {name}, pieces of {size}");
            assert_eq!(harness.closed(), None);
            conclude(&harness);
        }
    }
}

/// Goal: a hint above the maximum announces a packet that is too large, and ends the connection in a
/// typed reason. Method: the first byte of a packet, in each framing that can contain such a framer.
#[test]
fn a_hint_above_the_maximum_announces_a_packet_that_is_too_large() {
    let hints: [Hint; 2] = [|_| Some(usize::MAX), |_| Some(1_001)];
    for hint in hints {
        let custom = Framing::custom(Hinting::new(hint));
        for framing in [custom.clone(), Framing::split(custom, Raw)] {
            let (harness, _) = echo(options().framing(framing).max_packet(1_000));
            harness.receive([5]);
            let announced = hint(1).unwrap();
            let reason = CloseReason::PacketTooLarge { announced, max: 1_000 };
            assert_eq!(harness.closed(), Some(reason));
            conclude(&harness);
        }
    }
}

/// Goal: if a packet is cut short, the reason reports the length that the framer wanted, unless that
/// cannot be right. Method: two bytes of a packet and the end, with hints around the available
/// length.
#[test]
fn a_hint_that_cannot_be_right_is_not_reported() {
    let hints: [(Hint, Option<usize>); 5] = [
        (|_| None, None),
        (|_| Some(0), None),
        (|have| Some(have - 1), None),
        (Some, None),
        (|have| Some(have + 4), Some(6)),
    ];
    for (hint, want) in hints {
        let (harness, _) = echo(options().framing(Framing::custom(Hinting::new(hint))));
        harness.receive(b"\x05f");
        harness.peer_closes();
        let reason = CloseReason::PeerClosedMidPacket { have: 2, want };
        assert_eq!(harness.closed(), Some(reason));
        conclude(&harness);
    }
}

/// Goal: a hint that is always too low does not cause one call of the framer per byte. Method: a
/// packet of 64 KiB after its first byte, with a framer that always wants one byte more.
#[test]
fn a_hint_that_is_always_too_low_is_not_followed_byte_by_byte() {
    struct OneMore(Arc<AtomicUsize>);

    impl Framer for OneMore {
        fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let whole = Decode::Frame { payload: 0..input.len(), consumed: input.len() };
            Ok(if input.ends_with(b".") { whole } else { Decode::Need(Some(input.len() + 1)) })
        }

        fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
            out.put(payload);
            Ok(())
        }
    }

    let calls = Arc::new(AtomicUsize::new(0));
    let (harness, _) = echo(options().framing(Framing::custom(OneMore(Arc::clone(&calls)))));
    harness.receive(b"x");
    let packet = [&[b'x'; 60_000] as &[u8], b"."].concat();
    harness.receive(&packet);
    assert_eq!(harness.stats().packets_in, 1);
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls < 30, "{calls} calls");
    conclude(&harness);
}

// ---- answers too large ----

/// Goal: shared bytes, which are not copied, have the same header and the same maximum. Method: the
/// largest length that the field can express, and one byte more.
#[test]
fn a_shared_answer_has_the_maximum_of_the_field_too() {
    let share = |len| order("share", move |_| Action::send(Bytes::from(vec![1; len])));
    let (harness, _) = echo(options());
    harness.message(share(65_535));
    assert_eq!(harness.sent(), wire(&[&[1; 65_535]]));
    harness.message(share(65_536));
    assert_eq!(harness.sent(), b"");
    let reason = CloseReason::AnswerTooLarge { len: 65_536, max: 65_535 };
    assert_eq!(harness.closed(), Some(reason));
    conclude(&harness);
}

/// Goal: a packet that is sent back is checked like any other answer. Method: answers with the same
/// framing and a smaller maximum.
#[test]
fn a_packet_too_large_for_an_answer_is_not_sent_back() {
    let framing = Framing::split(LengthField::U16, LengthField::U16.max_packet(5));
    let (harness, _) = echo(options().framing(framing));
    harness.receive(wire(&[b"short", b"longer"]));
    assert_eq!(harness.sent(), wire(&[b"short"]));
    assert_eq!(harness.closed(), Some(CloseReason::AnswerTooLarge { len: 6, max: 5 }));
    conclude(&harness);
}

/// Goal: an answer that the length field cannot express writes nothing. Method: 70,000 bytes with a
/// two-byte length, by `send` and by action.
#[test]
fn an_answer_too_large_for_the_field_writes_nothing() {
    let (harness, _) = actor(options(), |trace| {
        Actor::echo(trace).packet(|packet, ctx| {
            if packet == b"send" {
                let refused = ctx.send(vec![0; 70_000]);
                assert_eq!(refused, Err(SendError::TooLarge { len: 70_000, max: 65_535 }));
                return Action::send("sorry");
            }
            Action::send(vec![0; 70_000])
        })
    });
    harness.packet(b"send");
    assert_eq!(harness.sent(), wire(&[b"sorry"]));
    assert_eq!(harness.closed(), None);
    harness.packet(b"action");
    assert_eq!(harness.sent(), b"");
    let reason = CloseReason::AnswerTooLarge { len: 70_000, max: 65_535 };
    assert_eq!(harness.closed(), Some(reason));
    conclude(&harness);
}
