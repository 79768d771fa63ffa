//! The plain length prefixes, [`Prefix`]: the fast path.

use super::framer::{Decode, Deframe, Enframe};
use crate::reason::FrameError;

/// A plain prefix of 1, 2 or 4 bytes, for the tight loop. The compiler knows its width.
///
/// It keeps the last field it has read, because a packet is often as long as the one before. The
/// comparison of the two fields is then a predicted branch. The processor does not wait for one
/// length before it looks for the next.
///
/// If lengths change, the branch is mispredicted, which costs more than the wait. So after 8
/// changes no field is kept any more.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Prefix<const WIDTH: usize> {
    max: usize,
    /// The last field in the order of the wire, or `UNKNOWN`, which equals no field.
    last_field: u64,
    /// The last length. Invariant: at most `max`.
    last_len: u32,
    /// Changes of length that remain until no field is kept any more.
    patience: u32,
}

impl<const WIDTH: usize> Prefix<WIDTH> {
    const UNKNOWN: u64 = u64::MAX;
    /// This many mispredicted branches cost about a hundredth of a batch of 512 packets.
    const PATIENCE: u32 = 8;

    /// The most bytes that the field can express. Less if a frame would not fit a `usize`.
    const CAPACITY: usize = {
        assert!(matches!(WIDTH, 1 | 2 | 4), "plain prefixes have 1, 2 or 4 bytes");
        let most = u32::MAX >> (32 - 8 * WIDTH);
        let room = usize::MAX - WIDTH;
        if room as u64 <= most as u64 { room } else { most as usize }
    };

    /// Packets of at most `max` bytes. If the field can express less, that is the maximum.
    #[inline(always)]
    pub const fn new(max: usize) -> Self {
        let max = if max < Self::CAPACITY { max } else { Self::CAPACITY };
        Self { max, last_field: Self::UNKNOWN, last_len: 0, patience: Self::PATIENCE }
    }

    /// Whether every packet that `other` accepts can be sent with this prefix.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.max >= other.max
    }

    #[cold]
    #[inline(never)]
    fn too_large(&self, len: usize) -> FrameError {
        FrameError::TooLarge { len, max: self.max }
    }
}

impl<const WIDTH: usize> Deframe for Prefix<WIDTH> {
    const TRUSTED: bool = true;

    #[inline(always)]
    fn next(&mut self, input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
        let Some(field) = input.first_chunk::<WIDTH>() else {
            return Ok(Decode::Need(None));
        };
        let mut bytes = [0; 8];
        bytes[..WIDTH].copy_from_slice(field);
        let as_it_stands = u64::from_le_bytes(bytes);
        if as_it_stands != self.last_field {
            let len = field.iter().fold(0, |len, byte| len << 8 | u32::from(*byte));
            if len as usize > self.max {
                return Err(self.too_large(len as usize));
            }
            self.last_len = len;
            self.last_field = if self.patience > 0 { as_it_stands } else { Self::UNKNOWN };
            self.patience = self.patience.saturating_sub(1);
        }
        // `max` is at most `usize::MAX - WIDTH`.
        let end = WIDTH + self.last_len as usize;
        if end > input.len() {
            return Ok(Decode::Need(Some(end)));
        }
        Ok(Decode::Frame { payload: WIDTH..end, consumed: end })
    }
}

impl<const WIDTH: usize> Enframe for Prefix<WIDTH> {
    #[inline(always)]
    fn frame(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let len = payload.len();
        if len > self.max {
            return Err(self.too_large(len));
        }
        if let Some(field) = len.to_be_bytes().last_chunk::<WIDTH>() {
            out.extend_from_slice(field);
        }
        out.extend_from_slice(payload);
        Ok(())
    }
}

/// The part of a [`Framing`](super::Framing) that the compiler can know: its input, then its output.
#[derive(Debug, Copy, Clone)]
pub enum Shape {
    /// Plain one-byte prefixes.
    U8(Prefix<1>, Prefix<1>),
    /// Plain two-byte prefixes.
    U16(Prefix<2>, Prefix<2>),
    /// Plain four-byte prefixes.
    U32(Prefix<4>, Prefix<4>),
    /// Any other framing. The [`Framing`](super::Framing) itself decodes and encodes.
    Other,
}
