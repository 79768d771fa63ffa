//! Lines of text, for the admin port.

use super::framer::{Decode, Framer, Output};
use crate::reason::FrameError;

/// Packets are lines. A line ends at a line feed. The line feed is not delivered, and neither is
/// one carriage return right before it.
///
/// A line may be empty. Its bytes need not be UTF-8. On output a line feed is appended. If the
/// protocol wants both, end the payload with a carriage return.
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
    /// Lines of at most `max` bytes in both directions. The end of the line does not count. There
    /// is no default.
    ///
    /// A longer line is [`FrameError::TooLarge`] as soon as the first byte above `max` has arrived.
    /// The error reports `max + 1` bytes, even if more follow.
    pub const fn new(max: usize) -> Self {
        Self { max }
    }

    pub(super) const fn max(self) -> usize {
        self.max
    }

    /// Searches no byte twice for the line feed, and no byte after the longest line and its end.
    pub(super) fn find(self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        // The longest line and its end of two bytes.
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
        self.check(payload)?;
        out.extend_from_slice(payload);
        out.push(b'\n');
        Ok(())
    }

    /// Checks that `payload` is one line.
    pub(super) fn check(self, payload: &[u8]) -> Result<(), FrameError> {
        let len = without_return(payload).len();
        if len > self.max {
            return Err(FrameError::TooLarge { len, max: self.max });
        }
        if payload.contains(&b'\n') {
            return Err(FrameError::Bad("a line cannot contain a line feed"));
        }
        Ok(())
    }

    const fn too_large(self) -> FrameError {
        FrameError::TooLarge { len: self.max.saturating_add(1), max: self.max }
    }
}

/// Also called before the end of a line has arrived: a last carriage return may belong to that end.
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
