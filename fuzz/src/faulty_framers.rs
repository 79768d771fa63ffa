//! Fuzz body for framers that break their contract: wrong hints, ranges outside the input, errors
//! and panics, in any order, on input and on output.
//!
//! The first byte is a length, and that many bytes are the *tape*: what the framer does at each
//! call. The rest are operations on two connections of one listener. The first one has the faulty
//! framer, the second one has an honest framing. Whatever the framer does:
//!
//! - the reactor comes to rest, and the framer is not called more often than the bytes, the pieces
//!   and the answers account for;
//! - each packet is a piece of the peer's bytes, behind the packet before;
//! - the peer gets the whole frames of the sends that succeeded, and no byte besides;
//! - the notes of a [`Partial`] come back with the bytes that they are about, or not at all;
//! - the second connection is served, one handler is terminated for each that was made, and nothing
//!   is left over.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use condor::testing::{Harness, Leftovers};
use condor::{
    Action, CloseReason, Context, Decode, FrameError, Framer, Framing, Handler, Info,
    ListenerOptions, Output, Partial, ReactorOptions,
};

/// A run ends after so many operations.
const OPS_MAX: usize = 100;
/// The largest frame.
const MAX: usize = 300;

/// What the framer does, and what it has seen.
#[derive(Default)]
struct Tape {
    tape: Vec<u8>,
    at: usize,
    calls: usize,
    /// The input of the last call if it needed more, and the notes that it left.
    last: Option<(Vec<u8>, [usize; 4])>,
    /// The first call that got notes about other bytes.
    mixed_up: Option<String>,
}

impl Tape {
    /// The next number of the tape. Zeros at its end.
    fn next(&mut self) -> u8 {
        let byte = self.tape.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        byte
    }

    /// Checks that the notes are those of these bytes.
    fn check(&mut self, input: &[u8], partial: &Partial) {
        let scanned = partial.scanned();
        let kept = match &self.last {
            _ if scanned == 0 => partial.notes == [0; 4],
            Some((bytes, notes)) => {
                scanned == bytes.len() && input.starts_with(bytes) && partial.notes == *notes
            }
            None => false,
        };
        if !kept && self.mixed_up.is_none() {
            self.mixed_up = Some(format!("{partial:?} of {input:?}, after {:?}", self.last));
        }
    }
}

#[derive(Clone, Default)]
struct Faulty(Arc<Mutex<Tape>>);

impl Faulty {
    fn tape<T>(&self, look: impl FnOnce(&mut Tape) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A panic that the panic hook does not see: with it a fuzzer would end the process.
fn panics() -> ! {
    resume_unwind(Box::new("a framer's bug"))
}

/// A length of one byte, then the packet.
fn honest(input: &[u8]) -> Decode {
    let Some(len) = input.first() else { return Decode::Need(None) };
    let end = 1 + usize::from(*len);
    if input.len() < end {
        return Decode::Need(Some(end));
    }
    Decode::Frame { payload: 1..end, consumed: end }
}

impl Framer for Faulty {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        panic!("only `resume` is called: {input:?}, {scanned}");
    }

    fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        let have = input.len();
        let (kind, near, far) = self.tape(|tape| {
            tape.check(input, partial);
            tape.calls += 1;
            (tape.next() % 16, usize::from(tape.next()), usize::from(tape.next()))
        });
        partial.notes[near % 4] = far.wrapping_mul(0x0101_0101);
        let found = match kind {
            0..=5 => honest(input),
            6 => Decode::Need(None),
            7 => Decode::Need(Some(near * far)),
            8 => Decode::Need(Some((have + near % 5).saturating_sub(2))),
            9 => Decode::Need(Some(usize::MAX - near)),
            10 => Decode::Frame { payload: near % 8..far % 8, consumed: near % 4 },
            11 => Decode::Frame { payload: 0..have, consumed: (have + near % 3).saturating_sub(1) },
            12 => Decode::Frame { payload: near..usize::MAX, consumed: usize::MAX - far },
            // Valid for any input, and not what the bytes say.
            13 if have > 0 => Decode::Frame { payload: near % have..have, consumed: have },
            14 => {
                self.tape(|tape| tape.last = None);
                return Err(match near % 2 {
                    0 => FrameError::Bad("no"),
                    _ => FrameError::TooLarge { len: near, max: far },
                });
            }
            15 => panics(),
            _ => honest(input),
        };
        let needs_more = matches!(found, Decode::Need(_));
        self.tape(|tape| tape.last = needs_more.then(|| (input.to_vec(), partial.notes)));
        Ok(found)
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        let kind = self.tape(|tape| {
            tape.calls += 1;
            tape.next() % 8
        });
        out.put(b"<");
        out.put(payload);
        match kind {
            4 => return Err(FrameError::Bad("no")),
            5 => panics(),
            6 => out.put(&[b'x'; MAX]),
            _ => {}
        }
        out.put(b">");
        Ok(())
    }
}

/// What a connection was given, and what its peer is to get.
#[derive(Debug, Default)]
struct Trace {
    packets: Vec<Vec<u8>>,
    promised: Vec<u8>,
    end: Option<CloseReason>,
}

struct Actor {
    trace: Rc<RefCell<Trace>>,
    /// Not for the second connection.
    faulty: Option<Faulty>,
}

impl Actor {
    fn send(&self, payload: &[u8], ctx: &mut Context<'_, u8>) {
        if ctx.send(payload).is_ok() {
            let promised = &mut self.trace.borrow_mut().promised;
            promised.extend([b"<", payload, b">"].concat());
        }
    }
}

impl Handler for Actor {
    type Message = u8;

    fn init(&mut self, ctx: &mut Context<'_, u8>) -> Action<'_> {
        if let Some(faulty) = &self.faulty {
            ctx.set_framing(Framing::custom(faulty.clone()));
        }
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, u8>) -> Action<'a> {
        if self.faulty.is_none() {
            return Action::send(packet);
        }
        self.trace.borrow_mut().packets.push(packet.to_vec());
        self.send(packet, ctx);
        match packet {
            [b'x', ..] => ctx.expect_within(Duration::from_millis(20)),
            [b'p', ..] => {
                ctx.pause_reading();
                let _ = ctx.send_after(Duration::from_millis(5), b'r');
            }
            _ => {}
        }
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, u8>, ctx: &mut Context<'_, u8>) -> Action<'a> {
        match info {
            Info::Message(b'r') => {
                ctx.resume_reading();
                Action::Continue
            }
            Info::Message(byte) => {
                self.send(&vec![byte; byte.into()], ctx);
                Action::Continue
            }
            // Goes on: the bytes that come next are a packet of their own.
            Info::Timeout(bytes) if bytes.len() % 2 == 0 => Action::Continue,
            other => other.default_action(),
        }
    }

    fn terminate(self, reason: CloseReason) {
        self.trace.borrow_mut().end = Some(reason);
    }
}

/// Asserts that each packet is a piece of the peer's bytes, behind the packet before.
fn assert_pieces(mut bytes: &[u8], packets: &[Vec<u8>]) {
    for packet in packets.iter().filter(|packet| !packet.is_empty()) {
        let at = bytes.windows(packet.len()).position(|piece| piece == packet);
        let at = at.unwrap_or_else(|| panic!("{packet:?} is not in {bytes:?}"));
        bytes = &bytes[at + packet.len()..];
    }
}

fn split<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = data.split_first()?;
    let (piece, rest) = rest.split_at(usize::from(*len).min(rest.len()));
    *data = rest;
    Some(piece)
}

/// Reads a tape and operations from `data`, does them, and panics if a promise does not hold.
pub fn faulty_framers(mut data: &[u8]) {
    let Some(tape) = split(&mut data) else { return };
    let faulty = Faulty::default();
    faulty.tape(|state| state.tape = tape.to_vec());
    let (trace, unused) = (Rc::<RefCell<Trace>>::default(), Rc::default());
    let (first, mut framer) = (Rc::clone(&trace), Some(faulty.clone()));
    let options = ListenerOptions::port(5555)
        .max_packet(MAX)
        .max_queued(2_000)
        .write_high_water(1_000)
        .write_low_water(500)
        .packet_timeout(Duration::from_millis(50))
        .drain_timeout(Duration::from_millis(500));
    let budget = 1 + u32::from(tape.first().copied().unwrap_or_default() % 8) * 16;
    let reactor = ReactorOptions::new().packet_budget(budget);
    let harness = Harness::with(reactor, options, move |_| {
        let faulty = framer.take();
        Actor { trace: Rc::clone(if faulty.is_some() { &first } else { &unused }), faulty }
    });
    let other = harness.connect();
    let (mut sent, mut got, mut ops) = (Vec::new(), Vec::new(), 0);
    while ops < OPS_MAX
        && let Some((code, rest)) = data.split_first()
    {
        (data, ops) = (rest, ops + 1);
        match code % 16 {
            0..=7 => {
                let Some(bytes) = split(&mut data) else { break };
                // In pieces of this size.
                for piece in bytes.chunks(1 + usize::from(code / 16)) {
                    harness.receive(piece);
                    ops += 1;
                }
                sent.extend(bytes);
            }
            8 => harness.advance(Duration::from_millis((code / 16).into())),
            9 => harness.advance(Duration::from_millis(60)),
            10 => drop(harness.address().send(code / 16 * 7)),
            11 => harness.peer_stalls(),
            12 => harness.peer_reads((code / 16).into()),
            13 => harness.peer_reads_all(),
            14 => harness.max_read(1 + usize::from(code / 16)),
            _ => harness.run(),
        }
        got.extend(harness.sent());
    }
    other.packet("still there");
    assert_eq!(other.packets(), [b"still there"], "the other connection is not served");
    harness.peer_reads_all();
    harness.peer_closes();
    harness.drain();
    harness.advance(Duration::from_secs(20));
    got.extend(harness.sent());

    let trace = trace.borrow();
    assert_pieces(&sent, &trace.packets);
    assert!(trace.promised.starts_with(&got), "{got:?} is not of {:?}", trace.promised);
    let end = trace.end.expect("the drain has ended it");
    assert_eq!(Some(end), harness.closed());
    faulty.tape(|state| {
        assert_eq!(state.mixed_up, None);
        let most = 4 * sent.len() + 20 * ops + 100;
        assert!(state.calls <= most, "{} calls for {} bytes", state.calls, sent.len());
    });
    assert_eq!(harness.leftovers(), Leftovers::default());
    let stats = harness.stats();
    assert_eq!((stats.made, stats.terminated), (2, 2));
}
