//! Fuzz bodies for framing. For all bytes and all cuts, the framer agrees with a naive decoder.
//!
//! The first [`CONFIG`] bytes choose the framing, the rest is the peer's stream or the payload.
//! Plain tests call the same bodies.

use condor::internals::{Deframe, Enframe, Prefix, Shape};
use condor::{Decode, FrameError, Framer, Framing, LengthField, Lines, Output, Partial};

/// Bytes that choose the framing and the cut.
pub(crate) const CONFIG: usize = 12;

/// A length field, written after its documentation and without regard to speed.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Naive {
    pub(crate) width: u8,
    pub(crate) little_endian: bool,
    pub(crate) offset: u16,
    pub(crate) adjustment: i32,
    pub(crate) keep_header: bool,
    pub(crate) max: Option<usize>,
}

/// The result of decoding a stream: its packets, then why there is no further one.
pub(crate) type Story = (Vec<Vec<u8>>, End);

/// Why there is no further packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The bytes of the next frame that have arrived, and the size of that frame.
    Waits { have: usize, want: Option<usize> },
    /// The stream was refused.
    Refused(FrameError),
}

impl Naive {
    /// Chooses a field. Small numbers are likelier than large ones.
    pub(crate) fn choose(config: &[u8; CONFIG]) -> Self {
        let [width, flags, offset, near, far @ .., max, _, _] = *config;
        let far = i32::from_le_bytes([far[0], far[1], far[2], far[3]]);
        Self {
            width: width_of(width),
            little_endian: flags & 1 != 0,
            keep_header: flags & 2 != 0,
            offset: u16::from(offset % 9) * u16::from(flags & 4 != 0),
            adjustment: match flags >> 3 & 3 {
                0 => 0,
                1 => i32::from(near.cast_signed() % 16),
                2 => -i32::from(width_of(width)),
                _ => far,
            },
            max: match flags >> 5 {
                0 | 1 => None,
                2 => Some(usize::MAX),
                3 => Some(usize::from(max) << 8),
                _ => Some(usize::from(max)),
            },
        }
    }

    /// The field under test.
    pub(crate) fn field(&self) -> LengthField {
        let mut field =
            LengthField::new(self.width).offset(self.offset).adjustment(self.adjustment);
        if self.little_endian {
            field = field.little_endian();
        }
        if self.keep_header {
            field = field.keep_header();
        }
        self.max.map_or(field, |max| field.max_packet(max))
    }

    /// The largest packet. The largest `usize` is reserved for "larger than possible".
    pub(crate) fn max(&self) -> usize {
        let header = i128::from(self.offset) + i128::from(self.width);
        let kept = if self.keep_header { header } else { 0 };
        let most = (1_i128 << (8 * self.width)) - 1 + i128::from(self.adjustment);
        let room = usize::MAX as i128 - 1 - header;
        let capacity = most.clamp(0, room) + kept;
        let max = (self.max.unwrap_or(1 << 20) as i128).min(capacity);
        usize::try_from(max).expect("room was left")
    }

    /// Decodes a stream that has arrived in one piece.
    pub(crate) fn story(&self, mut stream: &[u8]) -> Story {
        let mut packets = Vec::new();
        let header = usize::from(self.offset) + usize::from(self.width);
        loop {
            if stream.len() < header {
                return (packets, End::Waits { have: stream.len(), want: None });
            }
            let mut field = stream[usize::from(self.offset)..header].to_vec();
            if self.little_endian {
                field.reverse();
            }
            let mut rest = i128::from(self.adjustment);
            for (place, byte) in field.iter().rev().enumerate() {
                rest += i128::from(*byte) << (8 * place);
            }
            if rest < 0 {
                let why = "the length field announces less than its own header";
                return (packets, End::Refused(FrameError::Bad(why)));
            }
            let len = if self.keep_header { rest + header as i128 } else { rest };
            if len > self.max() as i128 {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                return (packets, End::Refused(FrameError::TooLarge { len, max: self.max() }));
            }
            let end = header + usize::try_from(rest).expect("below the maximum");
            if stream.len() < end {
                return (packets, End::Waits { have: stream.len(), want: Some(end) });
            }
            let start = if self.keep_header { 0 } else { header };
            packets.push(stream[start..end].to_vec());
            stream = &stream[end..];
        }
    }

    /// The frame that encoding has to append, `None` if it has to refuse.
    pub(crate) fn frame(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let header = usize::from(self.offset) + usize::from(self.width);
        let (mut frame, rest) = if self.keep_header {
            if payload.len() < header {
                return None;
            }
            (payload[..usize::from(self.offset)].to_vec(), &payload[header..])
        } else {
            (vec![0; self.offset.into()], payload)
        };
        let value = rest.len() as i128 - i128::from(self.adjustment);
        if payload.len() > self.max() || value < 0 || value >= 1 << (8 * self.width) {
            return None;
        }
        let mut field: Vec<u8> = value.to_le_bytes()[..usize::from(self.width)].to_vec();
        if !self.little_endian {
            field.reverse();
        }
        frame.extend(field);
        frame.extend(rest);
        Some(frame)
    }
}

fn width_of(width: u8) -> u8 {
    [1, 2, 3, 4, 8][usize::from(width % 5)]
}

/// Reads input in pieces, as a connection does, and checks that the framer keeps its contract.
pub(crate) fn read<'a>(
    mut framer: impl Deframe,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Story {
    let (mut packets, mut buffer, mut start, mut scanned) = (Vec::new(), Vec::new(), 0, 0);
    let mut want = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let input = &buffer[start..];
            let found = match framer.next(input, scanned) {
                Ok(found) => found,
                Err(error) => return (packets, End::Refused(error)),
            };
            assert!(found.is_valid(input.len()), "{found:?} of {} bytes", input.len());
            match found {
                Decode::Frame { payload, consumed } => {
                    packets.push(input[payload].to_vec());
                    (start, scanned, want) = (start + consumed, 0, None);
                }
                Decode::Need(total) => {
                    assert!(
                        total.is_none_or(|total| total > input.len()),
                        "it needs bytes that it has"
                    );
                    assert!(want.is_none() || want == total, "the needed size has changed");
                    (scanned, want) = (input.len(), total);
                    break;
                }
            }
        }
    }
    (packets, End::Waits { have: buffer.len() - start, want })
}

/// A framing that is asked with its notes, as a connection does it.
#[derive(Copy, Clone)]
pub(crate) struct Noting<'a>(pub(crate) &'a Framing, Partial);

impl Deframe for Noting<'_> {
    const TRUSTED: bool = false;

    fn next(&mut self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        assert_eq!(self.1.scanned(), scanned, "what was seen");
        assert!(scanned > 0 || self.1 == Partial::default(), "notes about no byte");
        self.0.resume(input, &mut self.1)
    }
}

/// Values that nest: a byte below 128 and that many bytes, or 128 and a number of values, up to 7.
/// It notes where the next value begins, and how many are left.
pub(crate) struct Nested;

impl Framer for Nested {
    fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
        self.resume(input, &mut Partial::default())
    }

    fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        let [mut at, values, ..] = partial.notes;
        let mut left = if at == 0 { 1 } else { values };
        while left > 0 {
            partial.notes = [at, left, 0, 0];
            let Some(head) = input.get(at).copied().map(usize::from) else {
                return Ok(Decode::Need(None));
            };
            let (end, more) = if head < 128 { (at + 1 + head, 0) } else { (at + 1, head % 8) };
            if end > input.len() {
                return Ok(Decode::Need(None));
            }
            (at, left) = (end, left - 1 + more);
        }
        Ok(Decode::Frame { payload: 0..at, consumed: at })
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(payload);
        Ok(())
    }
}

/// The end of the value at `at`, if it is whole.
fn value(stream: &[u8], at: usize) -> Option<usize> {
    match usize::from(*stream.get(at)?) {
        len @ 0..128 => Some(at + 1 + len).filter(|end| *end <= stream.len()),
        head => (0..head % 8).try_fold(at + 1, |at, _| value(stream, at)),
    }
}

fn nested(stream: &[u8]) -> Story {
    let (mut packets, mut left) = (Vec::new(), stream);
    while let Some(end) = value(left, 0) {
        packets.push(left[..end].to_vec());
        left = &left[end..];
    }
    (packets, End::Waits { have: left.len(), want: None })
}

/// Asserts that `framer` decodes `stream` as expected: whole, cut at every place (only at `cut` if it
/// is longer than 64 bytes), and in small pieces (if it has at most 1,024 bytes).
pub(crate) fn every_cut(framer: impl Deframe + Copy, stream: &[u8], cut: usize, expected: &Story) {
    assert_eq!(&read(framer, [stream]), expected, "whole: {stream:?}");
    let long = stream.len() > 64;
    let cuts = if long { cut..cut + 1 } else { 0..stream.len() };
    for cut in cuts {
        let (one, two) = stream.split_at(cut.min(stream.len()));
        assert_eq!(&read(framer, [one, two]), expected, "cut at {cut}: {stream:?}");
    }
    if stream.len() <= 1024 {
        let bytes = stream.chunks(1 + usize::from(long) * (cut % 7));
        assert_eq!(&read(framer, bytes.chain([&[][..]])), expected, "dripped: {stream:?}");
    }
}

/// Packets that end with a zero byte. It searches only bytes that it has not seen yet.
pub(crate) struct ZeroEnded;

impl Framer for ZeroEnded {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        let end = input[scanned..].iter().position(|byte| *byte == 0).map(|at| at + scanned);
        Ok(end
            .map_or(Decode::Need(None), |end| Decode::Frame { payload: 0..end, consumed: end + 1 }))
    }

    /// Appends before it checks, so that the caller has to remove the bytes of a refused packet.
    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        assert!(out.is_empty());
        out.put(payload);
        out.put(&[0]);
        assert_eq!(out.len(), payload.len() + 1);
        if payload.contains(&0) { Err(FrameError::Bad("a zero inside")) } else { Ok(()) }
    }
}

fn lines(stream: &[u8], max: usize) -> Story {
    let mut packets = Vec::new();
    let error = FrameError::TooLarge { len: max.saturating_add(1), max };
    let mut left = stream;
    while let Some(end) = left.iter().position(|byte| *byte == b'\n') {
        let line = left[..end].strip_suffix(b"\r").unwrap_or(&left[..end]);
        if line.len() > max {
            return (packets, End::Refused(error));
        }
        packets.push(line.to_vec());
        left = &left[end + 1..];
    }
    if left.strip_suffix(b"\r").unwrap_or(left).len() > max {
        return (packets, End::Refused(error));
    }
    (packets, End::Waits { have: left.len(), want: None })
}

fn zero_ended(stream: &[u8]) -> Story {
    let mut packets: Vec<_> = stream.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let have = packets.pop().map_or(0, |last| last.len());
    (packets, End::Waits { have, want: None })
}

/// Compares every kind of framer with a naive decoder, for one read and for every cut.
pub fn framing(data: &[u8]) {
    let Some((config, stream)) = data.split_first_chunk::<CONFIG>() else {
        return;
    };
    let cut = usize::from(config[10]) | usize::from(config[11]) << 8;
    let cut = cut % (stream.len() + 1);

    let naive = Naive::choose(config);
    let (field, expected) = (naive.field(), naive.story(stream));
    let framing = Framing::from(field);
    every_cut(&framing, stream, cut, &expected);
    match framing.shape() {
        Shape::U8(input, _) => every_cut(input, stream, cut, &expected),
        Shape::U16(input, _) => every_cut(input, stream, cut, &expected),
        Shape::U32(input, _) => every_cut(input, stream, cut, &expected),
        Shape::Other => every_cut(&framing, stream, cut, &expected),
    }
    if stream.len() < 1 << 20 && naive.max.is_some_and(|max| max < 1 << 20) {
        every_cut(&Framing::custom(field), stream, cut, &expected);
    }

    let max = if config[1] & 1 == 0 { usize::from(config[9]) } else { usize::MAX };
    every_cut(&Framing::from(Lines::new(max)), stream, cut, &lines(stream, max));
    every_cut(&Framing::custom(ZeroEnded), stream, cut, &zero_ended(stream));
    // A value as deep as the stream is long would overflow the stack of the naive decoder.
    let shallow = &stream[..stream.len().min(2_000)];
    let (framing, cut, expected) =
        (Framing::custom(Nested), cut % (shallow.len() + 1), nested(shallow));
    every_cut(&framing, shallow, cut, &expected);
    every_cut(Noting(&framing, Partial::default()), shallow, cut, &expected);
}

/// A payload becomes a frame that decodes to the payload. If it is refused, no output is left.
pub fn encode(data: &[u8]) {
    let Some((config, payload)) = data.split_first_chunk::<CONFIG>() else {
        return;
    };
    let pad = usize::from(u16::from_le_bytes([config[10], config[11]]));
    let mut payload = payload.to_vec();
    payload.resize(payload.len() + if config[9] & 1 == 0 { 0 } else { 2 * pad }, b'x');

    let naive = Naive::choose(config);
    let (field, expected) = (naive.field(), naive.frame(&payload));
    let story = |frame: &[u8]| {
        let (packets, end) = naive.story(frame);
        assert_eq!(end, End::Waits { have: 0, want: None });
        packets
    };
    let whole = |framing: &Framing| appended(framing, &payload);
    let framing = Framing::from(field);
    let frame = whole(&framing);
    assert_eq!(frame, expected, "{naive:?} for {} bytes", payload.len());
    if let Some(frame) = &frame {
        let packet = if naive.keep_header { frame.clone() } else { payload.clone() };
        assert_eq!(story(frame), [packet]);
    }
    match framing.shape() {
        Shape::U8(_, output) => assert_eq!(appended(&output, &payload), expected),
        Shape::U16(_, output) => assert_eq!(appended(&output, &payload), expected),
        Shape::U32(_, output) => assert_eq!(appended(&output, &payload), expected),
        Shape::Other => assert_eq!(appended(&framing, &payload), expected),
    }
    assert_eq!(appended(&Prefix::<1>::new(usize::MAX), &payload).is_some(), payload.len() < 256);
    let frame = whole(&Framing::raw());
    assert_eq!(frame.as_ref(), Some(&payload));

    let max = usize::from(config[8]) << 8;
    let frame = whole(&Framing::from(Lines::new(max)));
    let line = payload.strip_suffix(b"\r").unwrap_or(&payload);
    assert_eq!(frame.is_some(), line.len() <= max && !payload.contains(&b'\n'));
    if let Some(frame) = frame {
        assert_eq!(lines(&frame, max), (vec![line.to_vec()], End::Waits { have: 0, want: None }));
    }

    let frame = whole(&Framing::custom(ZeroEnded));
    assert_eq!(frame.is_some(), !payload.contains(&0) && payload.len() < 1 << 20);
    if let Some(frame) = frame {
        assert_eq!(zero_ended(&frame), (vec![payload], End::Waits { have: 0, want: None }));
    }
}

/// Returns the bytes of one frame. Earlier output must not change, and a refusal must leave no bytes.
pub(crate) fn appended(framer: &impl Enframe, payload: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"earlier".to_vec();
    let done = framer.frame(payload, &mut out);
    let frame = out.split_off(7);
    assert_eq!(out, b"earlier");
    assert!(done.is_ok() || frame.is_empty(), "half a packet after {done:?}");
    done.is_ok().then_some(frame)
}
