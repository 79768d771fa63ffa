//! Lines of text, for the admin port.

use super::framer::{Decode, Framer, Output};
use crate::reason::FrameError;

/// Packets are lines: everything up to a line feed, which is not delivered, nor is one carriage
/// return right before it.
///
/// A line may be empty. Bytes need not be UTF-8. On the way out a line feed is appended; end the
/// payload with a carriage return where the protocol wants both.
///
/// # Examples
///
/// ```
/// use condor::{Decode, Framing, Lines};
///
/// let lines = Framing::from(Lines::new(80));
/// let line = Decode::Frame { payload: 0..5, consumed: 7 };
/// assert_eq!(lines.decode(b"stats\r\nqui", 0)?, line);
///
/// let mut out = Vec::new();
/// lines.encode(b"17 connections", &mut out)?;
/// assert_eq!(out, b"17 connections\n");
/// assert!(lines.encode(b"two\nlines", &mut out).is_err());
/// # Ok::<(), condor::FrameError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    max: usize,
}

impl Lines {
    /// Lines of at most `max` bytes in both directions, their end not counted. There is no
    /// default.
    ///
    /// A longer one is [`FrameError::TooLarge`] as soon as the byte too many is there; the error
    /// says `max + 1`, whatever else may follow.
    pub const fn new(max: usize) -> Self {
        Self { max }
    }

    pub(super) const fn max(self) -> usize {
        self.max
    }

    /// Looks at no byte twice, and at none behind the first that is too many.
    pub(super) fn find(self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        // The longest line and its end.
        let window = &input[..input.len().min(self.max.saturating_add(2))];
        let fresh = window.get(scanned..).unwrap_or_default();
        let found = fresh.iter().position(|byte| *byte == b'\n').map(|at| scanned + at);
        let line = without_return(&window[..found.unwrap_or(window.len())]);
        if line.len() > self.max {
            return Err(self.too_large());
        }
        Ok(match found {
            Some(end) => Decode::Frame { payload: 0..line.len(), consumed: end + 1 },
            None => Decode::Need(None),
        })
    }

    pub(super) fn append(self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let len = without_return(payload).len();
        if len > self.max {
            return Err(FrameError::TooLarge { len, max: self.max });
        }
        if payload.contains(&b'\n') {
            return Err(FrameError::Bad("a line cannot contain a line feed"));
        }
        out.extend_from_slice(payload);
        out.push(b'\n');
        Ok(())
    }

    const fn too_large(self) -> FrameError {
        FrameError::TooLarge { len: self.max.saturating_add(1), max: self.max }
    }
}

/// Also asked of a line without its end yet: a return there may turn out to be part of the end.
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

impl Framer for Lines {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        self.find(input, scanned)
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        self.append(payload, out.bytes())
    }
}
