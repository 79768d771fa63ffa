//! The contract of a framer, and the simplest one.

use std::fmt;
use std::ops::Range;

use crate::reason::FrameError;

/// Bytes that the longest length prefix takes.
const PREFIX_MAX: usize = 8;

/// What a framer found at the start of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decode {
    /// A whole packet.
    Frame {
        /// Where the packet is in the input, within `consumed`.
        payload: Range<usize>,
        /// Bytes that the whole frame takes; the next one starts there. At least 1.
        consumed: usize,
    },
    /// Not a whole packet yet.
    ///
    /// With `Some`, the whole frame takes that many bytes from the start of the input, which is
    /// more than there are. It is a hint, for fewer calls and fewer copies: a wrong one costs time,
    /// never a packet. Only a hint above the maximum of [`Framing::custom`](crate::Framing::custom)
    /// is more than that, since it announces a frame that is too large.
    Need(Option<usize>),
}

impl Decode {
    /// Whether this is an answer that a framer may give for an input of `available` bytes.
    ///
    /// A frame that takes nothing, more than there is, or less than its packet, ends the
    /// connection with [`CloseReason::FramerBug`](crate::CloseReason::FramerBug).
    #[inline]
    pub fn is_valid(&self, available: usize) -> bool {
        match self {
            Self::Frame { payload, consumed } => {
                payload.start <= payload.end
                    && payload.end <= *consumed
                    && *consumed <= available
                    && *consumed > 0
            }
            Self::Need(_) => true,
        }
    }
}

/// A framing of one's own, for what [`LengthField`](crate::LengthField) and
/// [`Lines`](crate::Lines) cannot express.
///
/// It is stateless and shared by all connections of a listener: what it says may depend on its
/// arguments only. See [`Framing::custom`](crate::Framing::custom) for the limits that apply.
///
/// # Examples
///
/// Netstrings: a decimal length, a colon, the packet, a comma.
///
/// ```
/// use condor::{Decode, FrameError, Framer, Framing, Output};
///
/// struct Netstrings;
///
/// impl Framer for Netstrings {
///     fn decode(&self, input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
///         let digits = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
///         if digits > 6 || (digits < input.len() && input[digits] != b':') {
///             return Err(FrameError::Bad("not a netstring"));
///         }
///         if digits == input.len() {
///             return Ok(Decode::Need(None));
///         }
///         let len = input[..digits].iter().fold(0, |n, d| 10 * n + usize::from(d - b'0'));
///         let (start, end) = (digits + 1, digits + 1 + len);
///         match input.get(end) {
///             None => Ok(Decode::Need(Some(end + 1))),
///             Some(b',') => Ok(Decode::Frame { payload: start..end, consumed: end + 1 }),
///             Some(_) => Err(FrameError::Bad("a netstring has to end with a comma")),
///         }
///     }
///
///     fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
///         out.put(payload.len().to_string().as_bytes());
///         out.put(b":");
///         out.put(payload);
///         out.put(b",");
///         Ok(())
///     }
/// }
///
/// let framing = Framing::custom(Netstrings);
/// let mut wire = Vec::new();
/// framing.encode(b"hello", &mut wire)?;
/// assert_eq!(wire, b"5:hello,");
/// assert_eq!(framing.decode(&wire, 0)?, Decode::Frame { payload: 2..7, consumed: 8 });
/// # Ok::<(), FrameError>(())
/// ```
pub trait Framer: Send + Sync {
    /// Finds the first packet of `input`.
    ///
    /// The last call for this connection has seen `scanned` bytes of the same `input` and wanted
    /// more, so that a delimiter need not be looked for twice; 0 is always right.
    ///
    /// # Errors
    ///
    /// Bytes that can never become a packet. The connection ends.
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError>;

    /// Appends `payload` as one frame to `out`.
    ///
    /// # Errors
    ///
    /// A payload that cannot be framed. Whatever was put is taken back, as it is after a panic.
    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError>;
}

/// Finds packets, as [`Framer::decode`] does: what the driver's loop is generic over. It may
/// remember what makes it faster, and nothing that changes an answer.
pub trait Deframe {
    /// Whether every answer is valid by construction, so that the loop need not look.
    const TRUSTED: bool;

    /// Finds the first packet of `input`, of which the last call has seen `scanned` bytes.
    ///
    /// # Errors
    ///
    /// As [`Framing::decode`](crate::Framing::decode).
    fn next(&mut self, input: &[u8], scanned: usize) -> Result<Decode, FrameError>;
}

/// Appends packets: what the driver's loop is generic over.
pub trait Enframe {
    /// Appends `payload` as one frame to `out`.
    ///
    /// # Errors
    ///
    /// As [`Framing::encode`](crate::Framing::encode): `out` is then as it was.
    fn frame(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError>;

    /// No frame has more bytes than this beyond its payload. `usize::MAX` if only a frame that is
    /// made tells how long it is.
    #[inline(always)]
    fn max_overhead(&self) -> usize {
        PREFIX_MAX
    }
}

/// Where a [`Framer`] puts the bytes of one frame. Earlier packets are out of its reach.
pub struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    whole: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { start: bytes.len(), bytes, whole: false }
    }

    /// The frame is whole and stays. Without this it goes, after a panic as well.
    pub(super) fn finish(mut self) {
        self.whole = true;
    }

    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        self.bytes
    }

    /// Appends `bytes` to this frame.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes of this frame so far.
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    /// Whether nothing was put yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if !self.whole {
            self.bytes.truncate(self.start);
        }
    }
}

/// No framing: whatever has arrived is one packet, never an empty one; what is sent goes out as it
/// is.
///
/// How the peer's bytes are cut into packets is up to the network, and no maximum applies.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw;

impl Framer for Raw {
    #[inline]
    fn decode(&self, input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
        let len = input.len();
        Ok(if len == 0 {
            Decode::Need(None)
        } else {
            Decode::Frame { payload: 0..len, consumed: len }
        })
    }

    #[inline]
    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(payload);
        Ok(())
    }
}
