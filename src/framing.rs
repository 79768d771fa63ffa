//! Framing: it cuts bytes into packets, and turns packets into bytes.
//!
//! ```text
//!   +-------+-----------------------+-------+-----------------------+---
//!   |  Len  |        Packet         |  Len  |        Packet         |  ...
//!   +-------+-----------------------+-------+-----------------------+---
//! ```
//!
//! [`LengthField`] covers all variations of this picture. [`Lines`] and [`Raw`] are for protocols
//! without lengths. A [`Framer`] is any other framing. A [`Framing`] holds one of them for the
//! bytes received and one for the bytes sent.
//!
//! This module knows no socket, no clock and no handler. It takes bytes and returns the bounds of
//! packets. It copies no input and owns no buffer.
//!
//! **Invariant:** the same bytes give the same packets, no matter how the network splits them.
//! ([`Raw`] is the exception: a packet is what has arrived.) `tests/models/framing_model.rs` and
//! `fuzz/src/framing.rs` check it against a naive decoder.
//!
//! The driver's tight loop is generic over [`Deframe`] and [`Enframe`]. It matches
//! [`Framing::shape`] once per batch. So plain prefixes are compiled into the loop, and they do not
//! pay for the other framings.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use crate::guard::Panics;
use crate::reason::FrameError;

mod alike;
mod framer;
mod in_place;
mod length_field;
mod lines;
mod prefix;

pub(crate) use framer::Notes;
pub use framer::{Decode, Deframe, Enframe, Framer, Output, Partial, Raw};
pub use length_field::{FramingProblem, LengthField};
pub use lines::Lines;
pub use prefix::{Prefix, Shape};

/// How a connection's bytes are cut into packets, in both directions. Cheap to clone.
///
/// - A length before each packet: [`LengthField`]. The default is [`LengthField::U16`].
/// - Lines of text: [`Lines`].
/// - No framing: [`Raw`].
/// - A [`Framer`] of your own: [`custom`](Self::custom).
/// - A framing for each direction: [`split`](Self::split).
///
/// `into()` turns each of the first three into a framing.
/// [`ListenerOptions::framing`](crate::ListenerOptions::framing) sets the framing of a listener,
/// [`Context::set_framing`](crate::Context::set_framing) that of one connection.
///
/// # Examples
///
/// ```
/// use condor::{Decode, Framing, LengthField};
///
/// let framing = Framing::from(LengthField::U16);
/// let mut wire = Vec::new();
/// framing.encode(b"ping", &mut wire)?;
/// assert_eq!(wire, b"\0\x04ping");
/// assert_eq!(framing.decode(&wire, 0)?, Decode::Frame { payload: 2..6, consumed: 6 });
/// # Ok::<(), condor::FrameError>(())
/// ```
#[derive(Clone)]
pub struct Framing {
    input: Side,
    output: Side,
}

#[derive(Clone)]
enum Side {
    Field(LengthField),
    Lines(Lines),
    Raw,
    Custom(Custom),
}

#[derive(Clone)]
struct Custom {
    framer: Arc<dyn Framer>,
    max: usize,
}

impl Framing {
    /// A framing by your own [`Framer`].
    ///
    /// The maximum is the listener's [`max_packet`](crate::ListenerOptions::max_packet), else
    /// [`DEFAULT_MAX_PACKET`](LengthField::DEFAULT_MAX_PACKET). It limits the *whole frame* in both
    /// directions, because only the framer knows which bytes are header. A longer frame, announced
    /// or arrived, is [`FrameError::TooLarge`].
    pub fn custom(framer: impl Framer + 'static) -> Self {
        let framer = Arc::new(framer);
        Self::both(Side::Custom(Custom { framer, max: LengthField::DEFAULT_MAX_PACKET }))
    }

    /// Takes the framing of the peer's bytes from `input` and that of the handler's packets from
    /// `output`.
    ///
    /// ```
    /// use condor::{Framing, LengthField, Raw};
    ///
    /// // Requests after a length, answers without a length, as in Erlang's port mapper.
    /// let epmd = Framing::split(LengthField::U16, Raw);
    /// // Short requests, long answers.
    /// let lookup = Framing::split(LengthField::U32.max_packet(512), LengthField::U32);
    /// # let _ = (epmd, lookup);
    /// ```
    pub fn split(input: impl Into<Self>, output: impl Into<Self>) -> Self {
        Self { input: input.into().input, output: output.into().output }
    }

    /// Drops the framers, each by itself: a second panic during the drop of one value would abort
    /// the process.
    pub(crate) fn discard(self, panics: &mut Panics) {
        let Self { input, output } = self;
        panics.drop(input);
        panics.drop(output);
    }

    /// The framing for the other end of the connection: input and output swap.
    pub(crate) fn mirrored(self) -> Self {
        Self { input: self.output, output: self.input }
    }

    /// No framing at all; see [`Raw`].
    pub fn raw() -> Self {
        Self::both(Side::Raw)
    }

    /// Whether the user's [`Framer`] finds the packets. Its [`Decode::Need`] is only a hint.
    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.input, Side::Custom(_))
    }

    /// Finds the first packet of `input`. The last call has already seen the first `scanned` bytes.
    ///
    /// # Errors
    ///
    /// [`FrameError::Bad`] for bytes that can never become a packet, [`FrameError::TooLarge`] for a
    /// packet above the maximum.
    #[inline]
    pub fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        match &self.input {
            Side::Field(field) => field.decode(input),
            Side::Lines(lines) => lines.find(input, scanned),
            Side::Raw => Raw.decode(input, scanned),
            Side::Custom(custom) => custom.decode(input, scanned),
        }
    }

    /// As [`decode`](Self::decode), errors included, with what a [`Framer`] has noted about the same
    /// packet. After [`Decode::Need`], pass `partial` to the next call, with the same bytes and more.
    /// After a packet it is as new.
    #[inline]
    pub fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        let found = match &self.input {
            Side::Custom(custom) => custom.resume(input, partial),
            _ => self.decode(input, partial.scanned()),
        };
        let needs_more = matches!(found, Ok(Decode::Need(_)));
        *partial = Partial::resumed(if needs_more { input.len() } else { 0 }, partial.notes);
        found
    }

    /// Appends `payload` as one frame to `out`.
    ///
    /// # Errors
    ///
    /// [`FrameError::Bad`] for a payload that cannot be framed, [`FrameError::TooLarge`] for a
    /// payload above the maximum. After an error, and after a panic of a [`Framer`], `out` is
    /// unchanged.
    #[inline]
    pub fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        match &self.output {
            Side::Field(field) => match field.plain() {
                (1, max) => Prefix::<1>::new(max).frame(payload, out),
                (2, max) => Prefix::<2>::new(max).frame(payload, out),
                (4, max) => Prefix::<4>::new(max).frame(payload, out),
                _ => field.encode(payload, out),
            },
            Side::Lines(lines) => lines.append(payload, out),
            Side::Raw => {
                out.extend_from_slice(payload);
                Ok(())
            }
            Side::Custom(custom) => custom.encode(payload, out),
        }
    }

    /// Appends only the bytes that go before a payload of `len` bytes. Returns `false`, and appends
    /// nothing, if this framing needs more than a prefix.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub(crate) fn encode_header(&self, len: usize, out: &mut Vec<u8>) -> Result<bool, FrameError> {
        match &self.output {
            Side::Field(field) => field.encode_header(len, out),
            Side::Raw => Ok(true),
            Side::Lines(_) | Side::Custom(_) => Ok(false),
        }
    }

    /// Bytes that `payload` takes as one frame. May append any bytes to `scratch`. Fails as
    /// [`encode`](Self::encode) does.
    pub(crate) fn framed_len(
        &self,
        payload: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<usize, FrameError> {
        let before = scratch.len();
        if self.encode_header(payload.len(), scratch)? {
            return Ok(scratch.len() - before + payload.len());
        }
        self.encode(payload, scratch)?;
        Ok(scratch.len() - before)
    }

    /// The largest packet in bytes that the handler can receive. `None`: no limit. For a custom
    /// framer it is the largest frame.
    pub fn max_packet_in(&self) -> Option<usize> {
        self.input.max()
    }

    /// The largest packet in bytes that can be sent. `None`: no limit. For a custom framer it is
    /// the largest frame.
    pub fn max_packet_out(&self) -> Option<usize> {
        self.output.max()
    }

    /// Bytes that the largest packet takes in the output queue, its header included. `None`: no
    /// limit.
    pub fn max_frame_out(&self) -> Option<usize> {
        self.output.max().map(|max| max.saturating_add(self.output.overhead()))
    }

    /// The most bytes that are kept while a packet is incomplete. `None`: no packet is ever
    /// incomplete. Without the exact length, as many bytes are added as wait already.
    pub(crate) fn max_kept(&self) -> Option<usize> {
        let frame = self.input.max()?.saturating_add(self.input.overhead());
        let is_exact = matches!(self.input, Side::Field(_));
        Some(if is_exact { frame } else { frame.saturating_mul(2) })
    }

    /// Checks that the framing can work. Listeners call this before they listen.
    ///
    /// # Errors
    ///
    /// The errors of [`LengthField::check`]. The input is checked first.
    pub fn check(&self) -> Result<(), FramingProblem> {
        self.input.check()?;
        self.output.check()
    }

    /// Checks that the peer's length field can express the listener's maximum, if there is one. (In
    /// the other direction the maximum is clamped.)
    #[doc(hidden)]
    pub fn check_max(&self, max: Option<usize>) -> Result<(), FramingProblem> {
        let Some(max) = max else {
            return Ok(());
        };
        if let Side::Field(field) = &self.input {
            field.check_max(max)?;
        }
        self.clone().with_max(max).check()
    }

    /// The same framing with the listener's maximum in each direction that has no maximum of its
    /// own. The maximum is clamped to what the framing can express.
    #[doc(hidden)]
    pub fn with_max(self, max: usize) -> Self {
        Self { input: self.input.with_max(max), output: self.output.with_max(max) }
    }

    /// The shape of this framing. The driver matches it once per batch.
    #[doc(hidden)]
    #[inline]
    pub fn shape(&self) -> Shape {
        let (Side::Field(input), Side::Field(output)) = (&self.input, &self.output) else {
            return Shape::Other;
        };
        match (input.plain(), output.plain()) {
            ((1, input), (1, output)) => Shape::U8(Prefix::new(input), Prefix::new(output)),
            ((2, input), (2, output)) => Shape::U16(Prefix::new(input), Prefix::new(output)),
            ((4, input), (4, output)) => Shape::U32(Prefix::new(input), Prefix::new(output)),
            _ => Shape::Other,
        }
    }

    fn both(side: Side) -> Self {
        Self { input: side.clone(), output: side }
    }
}

impl Side {
    fn max(&self) -> Option<usize> {
        match self {
            Self::Field(field) => Some(field.effective_max()),
            Self::Lines(lines) => Some(lines.max()),
            Self::Raw => None,
            Self::Custom(custom) => Some(custom.max),
        }
    }

    /// Bytes that the largest frame has beyond its packet. Zero for a custom framer, because its
    /// maximum is that of the frame.
    fn overhead(&self) -> usize {
        match self {
            Self::Field(field) => field.overhead(),
            Self::Lines(_) => 2,
            Self::Raw | Self::Custom(_) => 0,
        }
    }

    fn with_max(self, max: usize) -> Self {
        match self {
            Self::Field(field) => Self::Field(field.or_max(max)),
            Self::Custom(custom) => Self::Custom(Custom { max, ..custom }),
            other => other,
        }
    }

    fn check(&self) -> Result<(), FramingProblem> {
        match self {
            Self::Field(field) => field.check(),
            Self::Lines(_) | Self::Raw | Self::Custom(_) => Ok(()),
        }
    }
}

impl Custom {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        self.checked(self.framer.decode(input, scanned)?, input)
    }

    fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        self.checked(self.framer.resume(input, partial)?, input)
    }

    fn checked(&self, found: Decode, input: &[u8]) -> Result<Decode, FrameError> {
        match found {
            Decode::Frame { consumed, .. } => self.within(consumed)?,
            Decode::Need(total) => self.within(total.unwrap_or(0).max(input.len()))?,
        }
        Ok(found)
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        self.within(payload.len())?;
        let mut output = Output::new(out);
        self.framer.encode(payload, &mut output)?;
        self.within(output.len())?;
        output.finish();
        Ok(())
    }

    fn within(&self, len: usize) -> Result<(), FrameError> {
        if len > self.max { Err(FrameError::TooLarge { len, max: self.max }) } else { Ok(()) }
    }
}

impl Default for Framing {
    fn default() -> Self {
        Self::from(LengthField::U16)
    }
}

impl From<LengthField> for Framing {
    fn from(field: LengthField) -> Self {
        Self::both(Side::Field(field))
    }
}

impl From<Lines> for Framing {
    fn from(lines: Lines) -> Self {
        Self::both(Side::Lines(lines))
    }
}

impl From<Raw> for Framing {
    fn from(_: Raw) -> Self {
        Self::raw()
    }
}

impl fmt::Debug for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framing").field("input", &self.input).field("output", &self.output).finish()
    }
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => field.fmt(f),
            Self::Lines(lines) => lines.fmt(f),
            Self::Raw => Raw.fmt(f),
            Self::Custom(custom) => f.debug_struct("Custom").field("max", &custom.max).finish(),
        }
    }
}

impl Deframe for &Framing {
    const TRUSTED: bool = false;

    #[inline]
    fn next(&mut self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        self.decode(input, scanned)
    }
}

/// A framing with the notes about the packet that it is asked about. See [`Partial`].
#[derive(Debug, Copy, Clone)]
pub(crate) struct Resuming<'a> {
    pub(crate) framing: &'a Framing,
    pub(crate) notes: &'a Cell<Notes>,
}

impl Deframe for Resuming<'_> {
    const TRUSTED: bool = false;

    #[inline]
    fn next(&mut self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        let Side::Custom(custom) = &self.framing.input else {
            return self.framing.decode(input, scanned);
        };
        let mut partial = Partial::resumed(scanned, self.notes.get());
        let found = custom.resume(input, &mut partial);
        self.notes.set(partial.notes);
        found
    }
}

impl Enframe for Framing {
    #[inline]
    fn frame(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        self.encode(payload, out)
    }

    fn max_overhead(&self) -> usize {
        match &self.output {
            Side::Custom(_) => usize::MAX,
            known => known.overhead(),
        }
    }
}
