//! What is sent and what must come back: a stream in which every byte follows from its place.
//!
//! A frame is a 2-byte length and a payload. A payload of 8 bytes or more begins with its
//! connection's tag (2 bytes) and its number on that connection (6 bytes); the rest is a fixed
//! pattern. Because any part of the stream can be made again at any time, nothing sent has to be
//! kept, and an answer is checked, each byte of it, by one comparison with what it must be.

use anyhow::{Result, bail};

/// Bytes of the length in front of every payload.
pub(crate) const PREFIX: usize = 2;
const STAMP: usize = 8;

/// Makes parts of the stream of any connection. All frames have the same size.
#[derive(Debug)]
pub(crate) struct Pattern {
    frame: usize,
    /// Frames in a row, whose stamps are rewritten before each use.
    frames: Vec<u8>,
    longest: usize,
}

impl Pattern {
    /// A pattern of frames with payloads of this size, from which at most `longest` bytes are
    /// taken at once.
    pub(crate) fn new(payload: usize, longest: usize) -> Result<Self> {
        let Ok(length) = u16::try_from(payload) else {
            bail!("a payload of {payload} bytes does not fit a 2-byte length")
        };
        let mut one = length.to_be_bytes().to_vec();
        one.extend((0..payload).map(|at| (at * 31 % 251) as u8));
        Ok(Self { frame: one.len(), frames: one.repeat(longest / one.len() + 2), longest })
    }

    /// Size of a frame, prefix included.
    pub(crate) fn frame(&self) -> u64 {
        self.frame as u64
    }

    /// The most that [`Self::bytes`] gives at once.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// The bytes of the tagged connection's stream from this place on.
    pub(crate) fn bytes(&mut self, tag: u16, from: u64, len: usize) -> &[u8] {
        let first = from / self.frame();
        let skip = (from % self.frame()) as usize;
        if self.frame >= PREFIX + STAMP {
            let count = (skip + len).div_ceil(self.frame);
            for (number, frame) in
                (first..).zip(self.frames.chunks_exact_mut(self.frame).take(count))
            {
                let stamp = u64::from(tag) << 48 | number & 0xffff_ffff_ffff;
                frame[PREFIX..PREFIX + STAMP].copy_from_slice(&stamp.to_be_bytes());
            }
        }
        &self.frames[skip..skip + len]
    }

    /// An error that says what is wrong if these are not the bytes of that stream from this place
    /// on.
    pub(crate) fn check(&mut self, tag: u16, from: u64, got: &[u8]) -> Result<()> {
        let frame = self.frame();
        for (start, part) in (from..).step_by(self.longest).zip(got.chunks(self.longest)) {
            let want = self.bytes(tag, start, part.len());
            if want == part {
                continue;
            }
            let wrong = want.iter().zip(part).position(|(want, got)| want != got).unwrap_or(0);
            let place = start + wrong as u64;
            bail!(
                "wrong answer on connection {tag}: byte {} of frame {} is {:#04x}, not {:#04x}",
                place % frame,
                place / frame,
                part[wrong],
                want[wrong]
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        for payload in [0, 1, 7, 8, 9, 64, 1000] {
            let mut pattern = Pattern::new(payload, 5000).unwrap();
            let whole = pattern.bytes(3, 0, 5000).to_vec();
            for (from, len) in [(0, 1), (1, 9), (7, 4000), (2500, 2500)] {
                assert_eq!(
                    pattern.bytes(3, from as u64, len),
                    &whole[from..from + len],
                    "payload {payload}, {from}+{len}"
                );
                pattern.check(3, from as u64, &whole[from..from + len]).unwrap();
            }
        }
    }

    #[test]
    fn frames_carry_length_tag_and_number() {
        let mut pattern = Pattern::new(8, 100).unwrap();
        assert_eq!(pattern.bytes(0x0102, 20, 10), [0, 8, 1, 2, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn a_flipped_bit_an_old_answer_and_anothers_answer_are_wrong() {
        let mut pattern = Pattern::new(64, 1000).unwrap();
        let mut flipped = pattern.bytes(1, 0, 200).to_vec();
        flipped[131] ^= 1;
        assert!(
            pattern.check(1, 0, &flipped).unwrap_err().to_string().contains("byte 65 of frame 1")
        );
        let old = pattern.bytes(1, 0, 66).to_vec();
        assert!(pattern.check(1, 66, &old).is_err());
        assert!(pattern.check(2, 0, &old).is_err());
    }

    #[test]
    fn more_than_a_pattern_is_long_can_be_checked() {
        let long = Pattern::new(10, 4096).unwrap().bytes(5, 3, 4096).to_vec();
        let mut short = Pattern::new(10, 100).unwrap();
        short.check(5, 3, &long).unwrap();
        assert!(short.check(5, 4, &long).is_err());
    }
}
