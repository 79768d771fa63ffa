//! Packets that a closure writes, and packets in parts.

use std::fmt::{self, Display};
use std::io::Write;

use condor::{
    Action, CloseReason, Context, Decode, FrameError, Framer, Framing, Handler, LengthField, Lines,
    Output, PacketWriter, Raw, SendError,
};

use super::actor;
use crate::rig::{Harness, conclude, options};
use crate::support::{Actor, Do, order, wire};

/// Puts the length behind the packet, and refuses packets of 13 bytes.
struct Behind;

impl Framer for Behind {
    fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
        let end = input.iter().position(|byte| *byte == 0);
        Ok(end
            .map_or(Decode::Need(None), |end| Decode::Frame { payload: 0..end, consumed: end + 1 }))
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(payload);
        out.put(b"\0");
        if payload.len() == 13 { Err(FrameError::Bad("thirteen")) } else { Ok(()) }
    }
}

fn framings() -> [Framing; 8] {
    let field = LengthField::U16;
    [
        LengthField::U8.into(),
        field.into(),
        LengthField::U32.into(),
        field.little_endian().offset(2).adjustment(-4).into(),
        field.offset(4).keep_header().into(),
        Lines::new(200).into(),
        Raw.into(),
        Framing::custom(Behind),
    ]
}

/// The default of `write_high_water` is 64 KiB.
const MAX_QUEUED: usize = 70_000;

/// A connection in this framing, whose handler runs what messages say.
fn told(framing: Framing) -> Harness<Actor> {
    let options = options().framing(framing).max_packet(200).max_queued(MAX_QUEUED);
    actor(options, Actor::echo).0
}

fn tell(harness: &Harness<Actor>, run: impl FnOnce(&mut Context<'_, Do>) + Send + 'static) {
    harness.message(order("run", move |ctx| {
        run(ctx);
        Action::Continue
    }));
}

/// Goal: a packet that a closure writes, by whichever method, is sent as `send` sends the same bytes:
/// in every framing, between other packets. Method: the bytes that the peer gets, of both.
#[test]
fn what_a_closure_writes_is_one_packet() {
    for framing in framings() {
        let [expected, sent] = [false, true].map(|by_closure| {
            let harness = told(framing.clone());
            tell(&harness, move |ctx| {
                let (text, end) = ("header 7/x", "after it");
                ctx.send("header first").expect("it fits");
                if by_closure {
                    let sent = ctx.send_with(|out| {
                        out.put(b"head");
                        assert_eq!(out.len(), 4);
                        out.put_u8(b'e');
                        write!(out, "r {}/", 7);
                        assert!(Write::write_all(out, b"x").is_ok() && !out.is_empty());
                    });
                    assert_eq!(sent, Ok(()));
                    assert_eq!(ctx.send_parts(&[b"after", b" ", b"", b"it"]), Ok(()));
                    let number = ctx.send_with(|out| {
                        out.put_u16(0x4142);
                        out.put_u32(0x4344_4546);
                        out.put_u64(0x4748_494a_4b4c_4d4e);
                    });
                    assert_eq!(number, Ok(()));
                } else {
                    let sent = [text, end, "ABCDEFGHIJKLMN"].map(|packet| ctx.send(packet));
                    assert_eq!(sent, [Ok(()); 3]);
                }
                ctx.send("header at the end").expect("it fits");
            });
            assert_eq!(harness.stats().packets_out, 5);
            let sent = harness.sent();
            conclude(&harness);
            sent
        });
        assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(&expected));
    }
}

/// What a closure may do wrong: it says what `send_with` has to return.
type Wrong = (&'static str, fn(&mut PacketWriter<'_>) -> Result<(), CloseReason>, CloseReason);

struct Unprintable;

impl Display for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

const WRONG: [Wrong; 5] = [
    (
        "it returns an error",
        |out| {
            out.put(b"half a packet");
            Err(CloseReason::Code(7))
        },
        CloseReason::Code(7),
    ),
    (
        "it writes too much",
        |out| {
            (0..30).for_each(|_| out.put(&[b'x'; 10]));
            Ok(())
        },
        CloseReason::AnswerTooLarge { len: 300, max: 200 },
    ),
    (
        "it writes too much, and returns an error for it",
        |out| {
            let error = (0..).find_map(|_| Write::write_all(out, &[b'x'; 10]).err());
            assert!(error.is_some());
            Err(CloseReason::Code(8))
        },
        CloseReason::AnswerTooLarge { len: 210, max: 200 },
    ),
    (
        "it writes text for ever, and gives up at the first error",
        |out| {
            while fmt::Write::write_str(out, "text").is_ok() {}
            Ok(())
        },
        CloseReason::AnswerTooLarge { len: 204, max: 200 },
    ),
    (
        "a value cannot be formatted",
        |out| {
            write!(out, "before {} behind", Unprintable);
            Ok(())
        },
        CloseReason::BadFrame("a value could not be formatted"),
    ),
];

/// Goal: if a closure fails, or writes what cannot be sent, nothing of the packet is sent, not even
/// the header, and the connection goes on. The writer refuses what exceeds the maximum, so memory
/// stays bounded. Method: every framing with a maximum, and everything that can go wrong, between two
/// packets.
#[test]
fn a_closure_that_fails_leaves_nothing() {
    for framing in framings() {
        let is_raw = format!("{framing:?}").contains("Raw");
        for (name, write, expected) in WRONG {
            let is_too_large = matches!(expected, CloseReason::AnswerTooLarge { .. });
            if is_raw && is_too_large {
                continue;
            }
            let harness = told(framing.clone());
            tell(&harness, |ctx| assert_eq!(ctx.send("before"), Ok(())));
            let before = harness.sent();
            tell(&harness, move |ctx| assert_eq!(ctx.send_with(write), Err(expected), "{name}"));
            assert_eq!(harness.sent(), b"", "{name}, {framing:?}");
            tell(&harness, |ctx| assert_eq!(ctx.send_parts(&[b"be", b"fore"]), Ok(())));
            assert_eq!(harness.sent(), before, "{name}, {framing:?}");
            let refused = u64::from(expected != CloseReason::Code(7));
            assert_eq!(harness.stats().refused_sends, refused, "{name}");
            conclude(&harness);
        }
    }
}

/// Goal: a closure that panics ends its connection, as any callback. What was sent before it arrives,
/// and nothing of its own packet. Method: every framing.
#[test]
fn a_closure_that_panics_leaves_nothing() {
    for framing in framings() {
        let harness = told(framing.clone());
        tell(&harness, |ctx| assert_eq!(ctx.send("before"), Ok(())));
        let before = harness.sent();
        tell(&harness, |ctx| {
            assert_eq!(ctx.send("before"), Ok(()));
            let _ = ctx.send_with(|out| {
                out.put(b"half");
                assert!(out.is_empty(), "the closure panics as requested");
            });
        });
        assert_eq!(harness.sent(), before, "{framing:?}");
        assert_eq!(harness.closed(), Some(CloseReason::Panicked));
        conclude(&harness);
    }
}

/// Goal: a framer's refusal and a connection that is closing refuse such a packet, too, and the
/// closure is not called if there is nothing to write for.
#[test]
fn a_packet_that_cannot_be_sent_is_refused_as_by_send() {
    let harness = told(Framing::custom(Behind));
    tell(&harness, |ctx| {
        let thirteen = SendError::BadFrame("thirteen");
        assert_eq!(ctx.send_with(|out| out.put(&[b'x'; 13])), Err(thirteen));
        assert_eq!(ctx.send_parts(&[b"thirteen", b"bytes"]), Err(thirteen));
        ctx.end_output();
        let sent = ctx.send_with(|out| assert!(!out.is_empty(), "it is not called"));
        assert_eq!(sent, Err(SendError::Closing));
    });
    assert_eq!((harness.sent(), harness.stats().refused_sends), (Vec::new(), 3));
    conclude(&harness);

    let harness = told(Lines::new(200).into());
    tell(&harness, |ctx| {
        let refused = ctx.send_with(|out| write!(out, "two\nlines"));
        assert_eq!(refused, Err(SendError::BadFrame("a line cannot contain a line feed")));
        let line = |len| [&vec![b'x'; len][..], b"\r"].concat();
        let too_large = SendError::TooLarge { len: 202, max: 200 };
        assert_eq!(ctx.send_with(|out| out.put(&line(201))), Err(too_large));
        assert_eq!(ctx.send_parts(&[&line(200)]), Ok(()), "the carriage return does not count");
    });
    assert_eq!(harness.sent().len(), 202);
    conclude(&harness);
}

/// Goal: a closure that writes for ever, without a look at an error, makes no output grow beyond
/// `max_queued`. Method: 1 GiB in a framing without a maximum.
#[test]
fn a_closure_cannot_write_more_than_max_queued() {
    let harness = told(Raw.into());
    tell(&harness, |ctx| {
        let (len, max) = (1 << 30, MAX_QUEUED);
        let sent = ctx.send_with(|out| {
            (0..1 << 14).for_each(|_| out.put(&[0; 1 << 16]));
            assert_eq!(out.len(), 1 << 16, "the second piece did not fit");
        });
        assert_eq!(sent, Err(SendError::TooLarge { len, max }));
        let sent = ctx.send_with(|out| (0..=max).for_each(|_| out.put_u8(b'x')));
        assert_eq!(sent, Err(SendError::TooLarge { len: max + 1, max }));
        assert_eq!(ctx.send_with(|out| (0..max).for_each(|_| out.put_u8(b'x'))), Ok(()));
    });
    assert_eq!(harness.sent(), [b'x'; MAX_QUEUED]);
    conclude(&harness);
}

/// Sends each packet back. Before that, a packet that begins with `w` makes it write one more, and
/// `wrong` makes it try.
struct Between;

impl Handler for Between {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        if packet == b"wrong" {
            let sent = ctx.send_with(|out| {
                out.put(b"lost");
                Err::<(), _>(CloseReason::Normal)
            });
            assert_eq!(sent, Err(CloseReason::Normal));
        } else if packet.starts_with(b"w") {
            assert_eq!(ctx.send_with(|out| write!(out, "{} bytes", packet.len())), Ok(()));
        }
        Action::send(packet)
    }
}

/// Goal: packets that are sent back unchanged, and packets that closures write, keep their order,
/// although the former are not copied. Method: both kinds in one read, before and after each other.
#[test]
fn written_packets_keep_their_order_between_packets_sent_back() {
    let harness = Harness::of(Between);
    harness.receive(wire(&[b"a", b"b", b"w", b"c", b"wrong", b"d", b"write"]));
    let expected: [&[u8]; 9] =
        [b"a", b"b", b"1 bytes", b"w", b"c", b"wrong", b"d", b"5 bytes", b"write"];
    assert_eq!(harness.packets(), expected);
    assert_eq!(harness.stats().packets_out, 9);
    conclude(&harness);
}
