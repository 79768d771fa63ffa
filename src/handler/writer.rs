//! What a closure writes a packet with.

use std::fmt;
use std::io::{self, ErrorKind};

use crate::framing::Framing;
use crate::reason::SendError;

/// What the closure of [`Context::send_with`](crate::Context::send_with) returns: nothing, or a
/// `Result`.
pub trait Written {
    /// The error of [`Context::send_with`](crate::Context::send_with).
    type Error: From<SendError>;

    /// The closure's result.
    ///
    /// # Errors
    ///
    /// The closure's error.
    fn into_result(self) -> Result<(), Self::Error>;
}

impl Written for () {
    type Error = SendError;

    fn into_result(self) -> Result<(), SendError> {
        Ok(())
    }
}

impl<E: From<SendError>> Written for Result<(), E> {
    type Error = E;

    fn into_result(self) -> Self {
        self
    }
}

/// How far a packet has come that a closure writes.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// It is written into the output. Else it is written into the second buffer.
    pub(super) in_place: bool,
    /// Where its frame begins in the buffer.
    pub(super) before: usize,
    /// Where its first byte is. What goes before it is filled in at the end.
    pub(super) start: usize,
    /// Bytes that the frame has beyond the packet.
    pub(super) overhead: usize,
    /// The most bytes that the framing can express.
    pub(super) most: usize,
    /// The most bytes that the writer takes: fewer if the queue has no room for them.
    pub(super) limit: usize,
    /// Bytes that the closure has tried to write. If these are more than `limit`, the packet is
    /// refused.
    pub(super) wanted: usize,
    /// A value could not be formatted.
    pub(super) has_failed: bool,
    /// The closure has ended well, and the packet is in the buffer.
    pub(super) is_whole: bool,
}

impl Draft {
    /// Checks what does not depend on the queue.
    pub(super) fn check(&self, framing: &Framing) -> Result<(), SendError> {
        if self.wanted > self.most {
            let max = framing.max_packet_out().unwrap_or(self.most);
            return Err(SendError::TooLarge { len: self.wanted, max });
        }
        if self.has_failed {
            return Err(SendError::BadFrame("a value could not be formatted"));
        }
        Ok(())
    }

    fn is_refused(&self) -> bool {
        self.wanted > self.limit || self.has_failed
    }
}

/// Writes the bytes of one packet. [`Context::send_with`](crate::Context::send_with) lends it to a
/// closure.
///
/// It appends, and gives no access to earlier packets. Its methods return no error: if the packet
/// becomes too long, the rest is dropped, and `send_with` returns the error. As a `Write` of
/// [`std::io`] or [`std::fmt`] it returns an error at once, so that an encoder stops early.
///
/// `write!` works without an import, returns nothing, and needs no `?`:
///
/// ```
/// use std::io::{self, Write};
/// use condor::PacketWriter;
///
/// fn sum(out: &mut PacketWriter<'_>, a: u32, b: u32) {
///     write!(out, "{a} + {b} = ");
///     out.put_u32(a + b);
/// }
///
/// /// An encoder that knows only `std::io`.
/// fn encode(mut out: impl Write) -> io::Result<()> {
///     out.write_all(b"12")
/// }
///
/// fn encoded(out: &mut PacketWriter<'_>) {
///     // `send_with` returns the error, so it needs no look here.
///     let _ = encode(out);
/// }
/// # use condor::{Action, Context, Handler};
/// # struct Sums;
/// # impl Handler for Sums {
/// #     type Message = ();
/// #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
/// #         let sent = ctx.send_with(|out| sum(out, 1, 2)).and(ctx.send_with(encoded));
/// #         sent.map(|()| Action::Continue).into()
/// #     }
/// # }
/// # let harness = condor::testing::Harness::of(Sums);
/// # harness.packet("");
/// # assert_eq!(harness.packets(), [&b"1 + 2 = \0\0\0\x03"[..], b"12"]);
/// ```
pub struct PacketWriter<'a> {
    bytes: &'a mut Vec<u8>,
    draft: Draft,
}

impl<'a> PacketWriter<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>, draft: Draft) -> Self {
        Self { bytes, draft }
    }

    /// Appends `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.draft.wanted = self.draft.wanted.saturating_add(bytes.len());
        if self.draft.wanted <= self.draft.limit {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Appends one byte.
    pub fn put_u8(&mut self, number: u8) {
        self.put(&[number]);
    }

    /// Appends two bytes, big-endian.
    pub fn put_u16(&mut self, number: u16) {
        self.put(&number.to_be_bytes());
    }

    /// Appends four bytes, big-endian.
    pub fn put_u32(&mut self, number: u32) {
        self.put(&number.to_be_bytes());
    }

    /// Appends eight bytes, big-endian.
    pub fn put_u64(&mut self, number: u64) {
        self.put(&number.to_be_bytes());
    }

    /// Appends formatted text. The macro `write!` calls it.
    ///
    /// If an implementation of `Display` fails, the packet is refused with [`SendError::BadFrame`].
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        if fmt::Write::write_fmt(self, text).is_err() && self.draft.wanted <= self.draft.limit {
            self.draft.has_failed = true;
        }
    }

    /// Bytes of the packet so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.draft.start
    }

    /// Whether the packet has no bytes yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps what was written if the closure has ended well and nothing was refused.
    pub(super) fn finish(mut self, is_ok: bool) -> Draft {
        self.draft.is_whole = is_ok && !self.draft.is_refused();
        let draft = std::mem::take(&mut self.draft);
        (self.draft.before, self.draft.is_whole) = (draft.before, draft.is_whole);
        draft
    }
}

impl Drop for PacketWriter<'_> {
    /// Runs also if the closure panics.
    fn drop(&mut self) {
        if !self.draft.is_whole {
            self.bytes.truncate(self.draft.before);
        }
    }
}

impl io::Write for PacketWriter<'_> {
    /// Takes all of `bytes`, or fails with [`ErrorKind::WriteZero`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        if self.draft.is_refused() { Err(ErrorKind::WriteZero.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for PacketWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        if self.draft.is_refused() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Debug for PacketWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketWriter").field("len", &self.len()).finish_non_exhaustive()
    }
}
