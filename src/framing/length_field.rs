//! Packets after a length field, in all variations: [`LengthField`].

use super::framer::{Decode, Framer, Output};
use crate::reason::{FrameError, debug_as_display};

/// Why a framing can never work. A listener with such a framing does not start.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingProblem {
    /// The width of the field, in bytes, is not allowed.
    #[error("a length field has 1, 2, 3, 4 or 8 bytes, not {0}")]
    Width(u8),
    /// The adjustment, in bytes, makes every length negative.
    #[error("an adjustment of {0} makes every length negative")]
    Adjustment(i32),
    /// The maximum is above what the field can express.
    #[error("a maximum of {max} bytes exceeds the {capacity} that the length field can express")]
    MaxTooLarge {
        /// The maximum asked for, in bytes.
        max: usize,
        /// [`LengthField::capacity`], in bytes.
        capacity: usize,
    },
    /// The maximum is below the shortest possible packet.
    #[error("a maximum of {max} bytes is below the shortest packet, which has {least}")]
    MaxTooSmall {
        /// The maximum in force, in bytes.
        max: usize,
        /// The shortest packet that the field can express, in bytes.
        least: usize,
    },
}

debug_as_display!(FramingProblem {
    Width(width),
    Adjustment(bytes),
    MaxTooLarge { max, capacity },
    MaxTooSmall { max, least },
});

const WIDTH: &str = "the width of the length field must be 1, 2, 3, 4 or 8 bytes";
const NEGATIVE: &str = "the length field announces less than its own header";
const SHORT: &str = "the payload is shorter than the least the length field can express";
const NO_HEADER: &str = "the payload is shorter than the header it has to begin with";

/// A length field: a number before each packet gives the packet's length.
///
/// ```text
///   |<------ header ------->|<------- the field's value + adjustment ------->|
///   +------------+----------+-------------------------------------------------+
///   |  `offset`  | `width`  |                     Packet                      |
///   +------------+----------+-------------------------------------------------+
///   |<- with `keep_header`, the packet begins here                            |
/// ```
///
/// [`U8`](Self::U8), [`U16`](Self::U16) and [`U32`](Self::U32) are the plain prefixes. They are
/// big-endian, stand at the start of the frame, count the packet alone, and are not delivered. DNS
/// over TCP uses `U16` ([RFC 1035 §4.2.2]). For other fields start from [`new`](Self::new). Its
/// setters mean the same as in Netty's [`LengthFieldBasedFrameDecoder`][netty].
///
/// [RFC 1035 §4.2.2]: https://www.rfc-editor.org/rfc/rfc1035#section-4.2.2
/// [netty]: https://netty.io/4.1/api/io/netty/handler/codec/LengthFieldBasedFrameDecoder.html
///
/// On output the field is computed, so a sent packet decodes to itself:
///
/// - Without [`keep_header`](Self::keep_header) the `offset` bytes before the field are zeros.
/// - With it, a payload must begin with a header, and the field in that header is overwritten.
///
/// # Examples
///
/// Kafka: 4 bytes, big-endian, the packet alone.
///
/// ```
/// use condor::{Decode, LengthField};
///
/// let request = b"\0\0\0\x0a\0\x12\0\x03\0\0\0\x01\xff\xff";   // ApiVersions, no client id
/// let whole = Decode::Frame { payload: 4..14, consumed: 14 };
/// assert_eq!(LengthField::U32.decode(request)?, whole);
/// assert_eq!(LengthField::U32.decode(&request[..5])?, Decode::Need(Some(14)));
/// # Ok::<(), condor::FrameError>(())
/// ```
///
/// SMPP: 4 bytes, big-endian, and the length includes itself.
///
/// ```
/// # use condor::{Decode, LengthField};
/// let smpp = LengthField::U32.adjustment(-4);
/// let enquire_link = b"\0\0\0\x10\0\0\0\x15\0\0\0\0\0\0\0\x01";
/// assert_eq!(smpp.decode(enquire_link)?, Decode::Frame { payload: 4..16, consumed: 16 });
///
/// let mut out = Vec::new();
/// smpp.encode(&enquire_link[4..], &mut out)?;
/// assert_eq!(out, enquire_link);
/// assert!(smpp.decode(b"\0\0\0\x03").is_err(), "shorter than itself");
/// # Ok::<(), condor::FrameError>(())
/// ```
///
/// Modbus TCP: 2 bytes after the transaction and the protocol. The header is kept, because the
/// answer has to repeat the transaction.
///
/// ```
/// # use condor::{Decode, LengthField};
/// let modbus = LengthField::U16.offset(4).keep_header().max_packet(260);
/// let read_holding = b"\x15\x01\0\0\0\x06\x01\x03\0\x6b\0\x03";
/// assert_eq!(modbus.decode(read_holding)?, Decode::Frame { payload: 0..12, consumed: 12 });
///
/// let mut out = Vec::new();
/// modbus.encode(b"\x15\x01\0\0??\x01\x03\x02\x02\x2b", &mut out)?;
/// assert_eq!(out, b"\x15\x01\0\0\0\x05\x01\x03\x02\x02\x2b");
/// # Ok::<(), condor::FrameError>(())
/// ```
///
/// TLS records (RFC 8446 §5): 2 bytes after the type and the version. The handler needs the type,
/// so the header is kept.
///
/// ```
/// # use condor::{Decode, LengthField};
/// let tls = LengthField::U16.offset(3).keep_header().max_packet(5 + 16_384 + 256);
/// let alert = b"\x15\x03\x03\0\x02\x02\x28";
/// assert_eq!(tls.decode(alert)?, Decode::Frame { payload: 0..7, consumed: 7 });
/// assert!(tls.decode(b"\x16\x03\x01\xff\xff").is_err(), "decided on the header alone");
/// # Ok::<(), condor::FrameError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LengthField {
    max: usize,
    adjustment: i32,
    offset: u16,
    width: u8,
    little_endian: bool,
    keep_header: bool,
    own_max: bool,
}

impl LengthField {
    /// One byte: packets of 0 to 255 bytes.
    pub const U8: Self = Self::new(1);
    /// Two bytes, big-endian: packets of 0 to 65,535 bytes.
    pub const U16: Self = Self::new(2);
    /// Four bytes, big-endian: packets of 0 to [`DEFAULT_MAX_PACKET`](Self::DEFAULT_MAX_PACKET)
    /// bytes, unless [`max_packet`](Self::max_packet) sets another maximum.
    pub const U32: Self = Self::new(4);

    /// The largest packet if no other maximum is set: 1 MiB.
    pub const DEFAULT_MAX_PACKET: usize = 1 << 20;

    /// A field of `width` bytes: 1, 2, 3, 4 or 8.
    ///
    /// The field is big-endian, stands at the start of the frame, counts the bytes after it, and is
    /// not delivered. With any other width [`check`](Self::check) fails, and no packet can be
    /// decoded or encoded.
    pub const fn new(width: u8) -> Self {
        Self {
            max: Self::DEFAULT_MAX_PACKET,
            adjustment: 0,
            offset: 0,
            width,
            little_endian: false,
            keep_header: false,
            own_max: false,
        }
    }

    /// Makes the field little-endian: its first byte is its lowest. Default: big-endian.
    pub const fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self
    }

    /// Bytes before the field. They belong to the header. Default: 0.
    pub const fn offset(mut self, bytes: u16) -> Self {
        self.offset = bytes;
        self
    }

    /// The number to add to the field's value. The sum is the number of bytes after the field.
    /// Default: 0.
    ///
    /// If the field counts the whole frame, the adjustment is minus the header's length. A negative
    /// sum ends the connection with [`CloseReason::BadFrame`](crate::CloseReason::BadFrame).
    pub const fn adjustment(mut self, bytes: i32) -> Self {
        self.adjustment = bytes;
        self
    }

    /// Delivers packets with their header, from the first byte of the frame. Default: the header is
    /// not delivered.
    pub const fn keep_header(mut self) -> Self {
        self.keep_header = true;
        self
    }

    /// The largest packet in bytes, in both directions. It replaces the listener's
    /// [`max_packet`](crate::ListenerOptions::max_packet).
    ///
    /// It counts the bytes that the handler receives or sends: without the header, or with it after
    /// [`keep_header`](Self::keep_header). The peer's buffered input grows as bytes arrive, up to
    /// this maximum and a header. If the two directions differ, use
    /// [`Framing::split`](crate::Framing::split).
    pub const fn max_packet(mut self, bytes: usize) -> Self {
        self.max = bytes;
        self.own_max = true;
        self
    }

    /// The largest packet in bytes that the field can express, counted as
    /// [`max_packet`](Self::max_packet) counts.
    ///
    /// The length of the whole frame is always below `usize::MAX`.
    pub fn capacity(&self) -> usize {
        let header = self.header();
        let most = i128::from(self.field_max()) + i128::from(self.adjustment);
        let rest = usize::try_from(most.max(0)).unwrap_or(usize::MAX).min(usize::MAX - 1 - header);
        if self.keep_header { header + rest } else { rest }
    }

    /// The maximum in force, in bytes: [`max_packet`](Self::max_packet), else the listener's, else
    /// [`DEFAULT_MAX_PACKET`](Self::DEFAULT_MAX_PACKET); never above
    /// [`capacity`](Self::capacity).
    pub fn effective_max(&self) -> usize {
        self.max.min(self.capacity())
    }

    /// Checks that the field can work. Listeners call this before they listen.
    ///
    /// # Errors
    ///
    /// - [`FramingProblem::Width`]: the width is not allowed.
    /// - [`FramingProblem::Adjustment`]: the adjustment makes every length negative.
    /// - [`FramingProblem::MaxTooLarge`]: the field cannot express
    ///   [`max_packet`](Self::max_packet).
    /// - [`FramingProblem::MaxTooSmall`]: the maximum is below the shortest possible packet.
    pub fn check(&self) -> Result<(), FramingProblem> {
        if !matches!(self.width, 1..=4 | 8) {
            return Err(FramingProblem::Width(self.width));
        }
        if i128::from(self.field_max()) + i128::from(self.adjustment) < 0 {
            return Err(FramingProblem::Adjustment(self.adjustment));
        }
        let (max, capacity) = (self.max, self.capacity());
        if self.own_max && max > capacity {
            return Err(FramingProblem::MaxTooLarge { max, capacity });
        }
        let kept = if self.keep_header { self.header() } else { 0 };
        let least = kept.saturating_add(usize::try_from(self.adjustment).unwrap_or(0));
        if max < least {
            return Err(FramingProblem::MaxTooSmall { max, least });
        }
        Ok(())
    }

    /// Finds the first packet of `input`. A packet that is too large is refused as soon as its
    /// header has arrived.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`] for a packet above [`effective_max`](Self::effective_max).
    /// [`FrameError::Bad`] for a negative length, or if the width is not allowed.
    #[inline]
    pub fn decode(&self, input: &[u8]) -> Result<Decode, FrameError> {
        let header = self.header();
        let Some(field) = input.get(usize::from(self.offset)..header) else {
            return Ok(Decode::Need(None));
        };
        let value = self.read(field)?;
        let rest = match value.checked_add_signed(i64::from(self.adjustment)) {
            Some(rest) => usize::try_from(rest).unwrap_or(usize::MAX),
            None if self.adjustment < 0 => return Err(FrameError::Bad(NEGATIVE)),
            None => usize::MAX,
        };
        let end = header.saturating_add(rest);
        let (start, len) = if self.keep_header { (0, end) } else { (header, rest) };
        if len > self.max || end == usize::MAX {
            return Err(self.too_large(len));
        }
        if end > input.len() {
            return Ok(Decode::Need(Some(end)));
        }
        Ok(Decode::Frame { payload: start..end, consumed: end })
    }

    /// Appends `payload` as one frame to `out`.
    ///
    /// # Errors
    ///
    /// After an error `out` is unchanged. [`FrameError::TooLarge`] for a payload above
    /// [`effective_max`](Self::effective_max). [`FrameError::Bad`] for a payload shorter than a
    /// positive adjustment, for a payload shorter than the header that is kept, or if the width is
    /// not allowed.
    #[inline]
    pub fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let len = payload.len();
        if len > self.max {
            return Err(self.too_large(len));
        }
        let (offset, header) = (usize::from(self.offset), self.header());
        let (before, rest) = if self.keep_header {
            let Some((head, rest)) = payload.split_at_checked(header) else {
                return Err(FrameError::Bad(NO_HEADER));
            };
            (head.get(..offset), rest)
        } else {
            (None, payload)
        };
        let field = self.field(len, rest.len())?;
        match before {
            Some(before) => out.extend_from_slice(before),
            None if offset > 0 => out.resize(out.len() + offset, 0),
            None => {}
        }
        out.extend_from_slice(&field[..usize::from(self.width)]);
        out.extend_from_slice(rest);
        Ok(())
    }

    /// The field's bytes, from the first one on, for a packet of `len` bytes with `rest` bytes after
    /// the field.
    #[inline]
    fn field(&self, len: usize, rest: usize) -> Result<[u8; 8], FrameError> {
        let value = (rest as u64).checked_add_signed(-i64::from(self.adjustment));
        let Some(value) = value else {
            return Err(FrameError::Bad(SHORT));
        };
        if value > self.field_max() {
            return Err(self.too_large(len));
        }
        match (self.width, self.little_endian) {
            (1..=4 | 8, false) => Ok((value << (64 - 8 * u32::from(self.width))).to_be_bytes()),
            (1..=4 | 8, true) => Ok(value.to_le_bytes()),
            _ => Err(FrameError::Bad(WIDTH)),
        }
    }

    /// Appends what goes before a payload that is not known yet.
    pub(super) fn begin(&self, out: &mut Vec<u8>) {
        out.resize(out.len() + self.overhead(), 0);
    }

    /// Writes the field into `frame`, which [`begin`](Self::begin) began and whose payload is now
    /// known. Fails as [`encode`](Self::encode)
    /// does.
    pub(super) fn fill_in(&self, frame: &mut [u8]) -> Result<(), FrameError> {
        let header = self.header();
        let len = frame.len() - self.overhead();
        if len > self.max {
            return Err(self.too_large(len));
        }
        let Some(rest) = frame.len().checked_sub(header) else {
            return Err(FrameError::Bad(NO_HEADER));
        };
        let field = self.field(len, rest)?;
        let place = &mut frame[usize::from(self.offset)..header];
        place.copy_from_slice(&field[..place.len()]);
        Ok(())
    }

    /// Appends a plain prefix. Returns `false`, and appends nothing, if this field is not plain.
    pub(super) fn encode_header(&self, len: usize, out: &mut Vec<u8>) -> Result<bool, FrameError> {
        let (width @ 1..=8, _) = self.plain() else { return Ok(false) };
        if len > self.effective_max() {
            return Err(self.too_large(len));
        }
        out.extend_from_slice(&(len as u64).to_be_bytes()[8 - usize::from(width)..]);
        Ok(true)
    }

    /// Checks that the field can express the listener's maximum. A field with a maximum of its own
    /// ignores it.
    pub(super) fn check_max(&self, max: usize) -> Result<(), FramingProblem> {
        let capacity = self.capacity();
        if self.own_max || max <= capacity {
            return Ok(());
        }
        Err(FramingProblem::MaxTooLarge { max, capacity })
    }

    /// The same field with the listener's maximum, unless the field has a maximum of its own.
    pub(super) fn or_max(mut self, max: usize) -> Self {
        if !self.own_max {
            self.max = max.min(self.capacity());
        }
        self
    }

    /// The width of a plain prefix (0 if the field is not plain), and the maximum as it was set.
    #[inline]
    pub(super) const fn plain(&self) -> (u8, usize) {
        let plain =
            self.offset == 0 && self.adjustment == 0 && !self.little_endian && !self.keep_header;
        (if plain { self.width } else { 0 }, self.max)
    }

    /// Bytes that a frame has beyond its packet.
    pub(super) fn overhead(&self) -> usize {
        if self.keep_header { 0 } else { self.header() }
    }

    #[inline]
    fn header(&self) -> usize {
        usize::from(self.offset) + usize::from(self.width)
    }

    #[inline]
    fn field_max(&self) -> u64 {
        match self.width {
            0 => 0,
            width @ 1..8 => (1 << (8 * u32::from(width))) - 1,
            _ => u64::MAX,
        }
    }

    #[inline]
    fn read(&self, field: &[u8]) -> Result<u64, FrameError> {
        let value = match *field {
            [a] => u64::from(a),
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            [a, b, c] => u64::from(u32::from_be_bytes([0, a, b, c])),
            [a, b, c, d] => u64::from(u32::from_be_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => return Err(FrameError::Bad(WIDTH)),
        };
        Ok(if self.little_endian { value.swap_bytes() >> (64 - 8 * field.len()) } else { value })
    }

    #[cold]
    fn too_large(&self, len: usize) -> FrameError {
        FrameError::TooLarge { len, max: self.effective_max() }
    }
}

impl Framer for LengthField {
    fn decode(&self, input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
        Self::decode(self, input)
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        Self::encode(self, payload, out.bytes())
    }
}
