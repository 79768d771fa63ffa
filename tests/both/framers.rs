//! The cost of a packet in many pieces: the framer looks at each byte once, and is called once or twice
//! for each piece.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use condor::{Decode, FrameError, Framer, Framing, LengthField, Lines, Output, Partial};

use super::echo;
use crate::rig::{conclude, options};
use crate::support::{Seen, packet};

/// What a framer has looked at, and how often it was called.
#[derive(Debug, Clone, Default)]
struct Count {
    looked: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Count {
    fn add(&self, looked: usize) {
        self.looked.fetch_add(looked, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> (usize, usize) {
        (self.looked.load(Ordering::Relaxed), self.calls.load(Ordering::Relaxed))
    }
}

/// A framing of the crate. It looks at `header` bytes, or at all bytes that are new.
struct Counted<F> {
    inner: F,
    header: Option<usize>,
    count: Count,
}

impl<F: Framer> Framer for Counted<F> {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        self.count.add(self.header.unwrap_or(input.len() - scanned));
        self.inner.decode(input, scanned)
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        self.inner.encode(payload, out)
    }
}

/// Arrays as in RESP, with binary numbers: the number of strings, then each string after its length.
struct Arrays(Count);

fn number(input: &[u8], at: usize) -> Option<usize> {
    let bytes = input.get(at..at + 4)?;
    Some(bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

impl Framer for Arrays {
    fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
        self.resume(input, &mut Partial::default())
    }

    fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        let [mut at, mut left, ..] = partial.notes;
        if at == 0 {
            let Some(count) = number(input, 0) else { return Ok(Decode::Need(None)) };
            (at, left) = (4, count);
        }
        self.0.add(1);
        while left > 0 {
            partial.notes = [at, left, 0, 0];
            let Some(len) = number(input, at) else { return Ok(Decode::Need(None)) };
            self.0.looked.fetch_add(1, Ordering::Relaxed);
            let end = at + 4 + len;
            if end > input.len() {
                return Ok(Decode::Need(Some(end)));
            }
            (at, left) = (end, left - 1);
        }
        Ok(Decode::Frame { payload: 0..at, consumed: at })
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(payload);
        Ok(())
    }
}

/// An array of so many strings of one to five bytes.
fn array(strings: usize) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
    let string = |nth: usize| [&number(1 + nth % 5)[..], &b"abcde"[..1 + nth % 5]].concat();
    [&number(strings)[..], &(0..strings).flat_map(string).collect::<Vec<u8>>()].concat()
}

/// `bytes` in one piece, but for the last `singly` of them, which come one by one.
fn pieces(bytes: &[u8], singly: usize) -> impl Iterator<Item = &[u8]> {
    let (first, last) = bytes.split_at(bytes.len() - singly);
    [first].into_iter().chain(last.chunks(1)).filter(|piece| !piece.is_empty())
}

/// Goal: a packet of n bytes in k pieces costs O(n + k): the framer looks at nothing twice, and is
/// called once or twice for each piece. Method: a length field, a line and an array of strings, each
/// in one piece, and with its last 2,600 bytes one by one; bytes, strings and calls are counted.
#[test]
fn a_packet_in_pieces_is_looked_at_once() {
    const SINGLY: usize = 2_600;
    let count = Count::default();
    let field = Counted { inner: LengthField::U32, header: Some(4), count: count.clone() };
    let lines = Counted { inner: Lines::new(100_000), header: None, count: count.clone() };
    let line = [&[b'x'; 60_000][..], b"\n"].concat();
    let field_bytes = [&60_000u32.to_be_bytes()[..], &[7; 60_000]].concat();
    let strings = 20_000;
    // The framing, a packet of it, and how much there is to look at in the packet.
    let cases = [
        ("length", Framing::custom(field), field_bytes, 4),
        ("line", Framing::custom(lines), line, 60_001),
        ("array", Framing::custom(Arrays(count.clone())), array(strings), strings),
    ];
    for (name, framing, bytes, much) in cases {
        for singly in [0, SINGLY] {
            let (harness, trace) = echo(options().framing(framing.clone()));
            let before = count.read();
            for _ in 0..2 {
                pieces(&bytes, singly).for_each(|piece| harness.receive(piece));
            }
            assert_eq!(harness.stats().packets_in, 2, "{name}");
            let seen = trace.read();
            assert!(seen.iter().all(|seen| matches!(seen, Seen::Packet(_))), "{name}");
            let after = count.read();
            let (looked, calls) = (after.0 - before.0, after.1 - before.1);
            // Over sockets the first piece may be read in several.
            let asked = 2 * (2 * singly + 40);
            assert!(calls <= asked, "{name}, {singly} bytes singly: asked {calls} times");
            let most = 2 * much + if name == "line" { 100 } else { 8 * asked };
            assert!(looked <= most, "{name}, {singly} bytes singly: {looked} looked at");
            conclude(&harness);
        }
    }
}

/// Goal: notes belong to one packet of one connection. Neither the next packet nor another connection
/// gets them. Method: arrays with each cut, on two connections in turn.
#[test]
fn notes_stay_with_their_packet() {
    let bytes = [array(3), array(1), array(2)].concat();
    let (one, trace) = echo(options().framing(Framing::custom(Arrays(Count::default()))));
    for cut in 1..bytes.len() {
        let other = one.connect();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            for harness in [&one, &other] {
                harness.receive(piece);
            }
        }
        let mut packets = trace.read();
        packets.sort_by_key(|seen| format!("{seen:?}"));
        let mut expected: Vec<_> = [3, 1, 2, 3, 1, 2].map(|strings| packet(&array(strings))).into();
        expected.sort_by_key(|seen| format!("{seen:?}"));
        assert_eq!(packets, expected, "cut at {cut}");
        other.peer_closes();
        trace.read();
        assert!(other.is_gone());
    }
    conclude(&one);
}
