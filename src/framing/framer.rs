//! The contract of a framer, and the simplest framer.

use std::fmt;
use std::ops::Range;

use crate::reason::FrameError;

/// Bytes that the longest length prefix takes.
const PREFIX_MAX: usize = 8;

/// What a framer finds at the start of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decode {
    /// A whole packet.
    Frame {
        /// The range of the packet in the input. It ends within `consumed`.
        payload: Range<usize>,
        /// Bytes of the whole frame. The next frame starts there. At least 1.
        consumed: usize,
    },
    /// The packet is not whole yet.
    ///
    /// `Some` is the length of the whole frame, or the least that it can have, in bytes from the
    /// start of the input; the input has fewer. It is a hint that saves calls and copies. A wrong
    /// hint costs time, never a packet. There is one exception: a hint above the maximum of
    /// [`Framing::custom`](crate::Framing::custom) announces a frame that is too large.
    Need(Option<usize>),
}

impl Decode {
    /// Whether a framer may return this for an input of `available` bytes.
    ///
    /// Not valid are a frame of 0 bytes, a frame longer than the input, and a packet that does not
    /// lie inside its frame. They end the connection with
    /// [`CloseReason::FramerBug`](crate::CloseReason::FramerBug).
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

/// What a [`Framer`] remembers about a packet that is not whole yet.
///
/// `Partial::default()` is for a new packet: no byte was seen, and all notes are zeros.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// Numbers for the framer's own use, for example its place in the packet. Zeros for the first
    /// bytes of each packet.
    pub notes: [usize; 4],
    scanned: usize,
}

/// The notes of a [`Partial`]. They are four numbers and not a type of the framer, so that no peer can
/// make them grow.
pub(crate) type Notes = [usize; 4];

impl Partial {
    /// Notes about the first `scanned` bytes of a packet. Notes about no byte are zeros.
    #[inline]
    pub(crate) fn resumed(scanned: usize, notes: Notes) -> Self {
        if scanned == 0 { Self::default() } else { Self { notes, scanned } }
    }

    /// How many bytes of the input the last call has seen. It needed more. Zero for the first bytes
    /// of each packet.
    pub fn scanned(&self) -> usize {
        self.scanned
    }
}

/// Your own framing, for protocols that [`LengthField`](crate::LengthField) and
/// [`Lines`](crate::Lines) cannot express.
///
/// All connections of a listener share the framer. Its results depend on its arguments only.
/// [`Framing::custom`](crate::Framing::custom) describes the limits that apply.
///
/// A packet may come in many pieces, and the framer is called after each piece. If each call begins
/// at the first byte again, a long packet in many small pieces costs the square of its length. So a
/// framer that walks through its packets implements [`resume`](Self::resume), and notes its place in
/// the [`Partial`].
///
/// # Examples
///
/// [Netstrings](https://cr.yp.to/proto/netstrings.txt): a decimal length, a colon, the packet, a
/// comma.
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
///
/// Requests of Redis, such as `*2\r\n$3\r\nGET\r\n$1\r\nx\r\n`: an array of strings that have a
/// length each. The framer notes where the next string begins, and how many strings are left. So it
/// parses no string twice, however the network cuts the array.
///
/// ```
/// use condor::{Decode, FrameError, Framer, Framing, Output, Partial};
///
/// struct Requests;
///
/// /// The number of a header such as `*2\r\n`, and where the header ends.
/// fn header(input: &[u8], at: usize, kind: u8) -> Result<Option<(usize, usize)>, FrameError> {
///     // A header has at most 12 bytes.
///     let line = &input[at..input.len().min(at + 12)];
///     let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
///         return if line.len() < 12 { Ok(None) } else { Err(FrameError::Bad("a long header")) };
///     };
///     let text = line[..end].strip_prefix(&[kind]).and_then(|line| line.strip_suffix(b"\r"));
///     let digits = text.and_then(|text| std::str::from_utf8(text).ok());
///     match digits.and_then(|digits| digits.parse().ok()) {
///         Some(number) => Ok(Some((number, at + end + 1))),
///         None => Err(FrameError::Bad("not a header")),
///     }
/// }
///
/// impl Framer for Requests {
///     fn decode(&self, input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
///         self.resume(input, &mut Partial::default())
///     }
///
///     fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
///         let [mut at, mut left, ..] = partial.notes;
///         if at == 0 {
///             let Some(found) = header(input, 0, b'*')? else { return Ok(Decode::Need(None)) };
///             (left, at) = found;
///         }
///         while left > 0 {
///             // After each whole string.
///             (partial.notes[0], partial.notes[1]) = (at, left);
///             let Some((len, start)) = header(input, at, b'$')? else {
///                 return Ok(Decode::Need(None));
///             };
///             let end = start.saturating_add(len).saturating_add(2);
///             if end > input.len() {
///                 return Ok(Decode::Need(Some(end)));
///             }
///             (at, left) = (end, left - 1);
///         }
///         Ok(Decode::Frame { payload: 0..at, consumed: at })
///     }
///
///     fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
///         out.put(payload);
///         Ok(())
///     }
/// }
///
/// let framing = Framing::custom(Requests);
/// let request = b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n";
/// let whole = Decode::Frame { payload: 0..20, consumed: 20 };
/// assert_eq!(framing.decode(request, 0)?, whole);
///
/// let mut partial = Partial::default();
/// assert_eq!(framing.resume(&request[..15], &mut partial)?, Decode::Need(None));
/// assert_eq!(partial.notes[..2], [13, 1], "one string is left, and begins at byte 13");
/// assert_eq!(framing.resume(request, &mut partial)?, whole);
/// # Ok::<(), FrameError>(())
/// ```
pub trait Framer: Send + Sync {
    /// Finds the first packet of `input`.
    ///
    /// The last call for this connection has seen the first `scanned` bytes of the same `input`,
    /// and needed more. So a framer need not search these bytes for a delimiter again. A caller may
    /// always pass 0.
    ///
    /// # Errors
    ///
    /// Return [`FrameError::Bad`] for bytes that can never become a packet. The connection ends
    /// with [`CloseReason::BadFrame`](crate::CloseReason::BadFrame).
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError>;

    /// Finds the first packet of `input`, with what the last call has noted about it. Connections
    /// and clients call this method. The default calls [`decode`](Self::decode).
    ///
    /// If `input` is a packet that is not whole yet, the notes in `partial` are kept, and the next
    /// call gets them, with the same bytes and more. For the first call of a packet they are zeros.
    /// They may save time, but must not change a result: a caller may always pass zeros.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        self.decode(input, partial.scanned())
    }

    /// Appends `payload` as one frame to `out`.
    ///
    /// # Errors
    ///
    /// Return [`FrameError::Bad`] for a payload that cannot be framed. After an error, and after a
    /// panic, the bytes that were put into `out` are removed.
    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError>;
}

/// Finds packets, as [`Framer::decode`] does. The driver's loop is generic over it. An
/// implementation may keep state that makes it faster, but no state that changes a result.
pub trait Deframe {
    /// Whether every result is valid by construction. The loop then does not check the results.
    const TRUSTED: bool;

    /// Finds the first packet of `input`. The last call has already seen the first `scanned` bytes.
    ///
    /// # Errors
    ///
    /// As [`Framing::decode`](crate::Framing::decode).
    fn next(&mut self, input: &[u8], scanned: usize) -> Result<Decode, FrameError>;
}

/// Appends packets to the output. The driver's loop is generic over it.
pub trait Enframe {
    /// Appends `payload` as one frame to `out`.
    ///
    /// # Errors
    ///
    /// As [`Framing::encode`](crate::Framing::encode). `out` is then unchanged.
    fn frame(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError>;

    /// The most bytes that a frame has beyond its payload. `usize::MAX` if the length of a frame is
    /// known only after it was made.
    #[inline(always)]
    fn max_overhead(&self) -> usize {
        PREFIX_MAX
    }
}

/// The output of a [`Framer`] for the bytes of one frame. It gives no access to earlier packets.
pub struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    whole: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { start: bytes.len(), bytes, whole: false }
    }

    /// Keeps the frame. Without this call, for example after a panic, the drop removes the frame.
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

    /// Whether this frame has no bytes yet.
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

/// No framing. All bytes that have arrived are one packet, and it is never empty. Packets are sent
/// as they are.
///
/// The network decides how the peer's bytes are cut into packets. No maximum applies.
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
