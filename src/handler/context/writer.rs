//! Packets that a closure writes straight into the output, and packets in several parts.

use std::fmt;
use std::io::{self, ErrorKind};

use super::Context;
use crate::connection::Flags;
use crate::handler::action::Packet;
use crate::reason::SendError;

impl<M> Context<'_, M> {
    /// Frames a packet that `write` writes straight into the output, without a buffer of your own.
    /// Else it is as [`send`](Self::send).
    ///
    /// `write` returns nothing, or a `Result`, whose error this method returns. Such an error type has
    /// to implement `From<SendError>`, as [`CloseReason`](crate::CloseReason) does.
    ///
    /// If `write` returns an error or panics, or if the packet is refused, nothing is queued: not
    /// even the length prefix. The writer takes no byte beyond what can be sent, so `write` cannot
    /// make the output grow without limit.
    ///
    /// Nothing is allocated if the framing is a [`LengthField`](crate::LengthField),
    /// [`Lines`](crate::Lines) or [`Raw`](crate::Raw), once the output buffer has grown to what the
    /// traffic needs. A [`Framer`](crate::Framer) gets the packet from a second buffer.
    ///
    /// ```
    /// use condor::{Action, CloseReason, Context, Handler};
    ///
    /// /// Answers with the packet's length and a checksum.
    /// struct Sums;
    ///
    /// impl Handler for Sums {
    ///     type Message = ();
    ///
    ///     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
    ///         let sent = ctx.send_with(|out| {
    ///             out.put_u8(1);   // the version
    ///             out.put_u32(packet.iter().map(|byte| u32::from(*byte)).sum());
    ///             write!(out, "{} bytes", packet.len());
    ///         });
    ///         sent.map(|()| Action::Continue).into()
    ///     }
    /// }
    /// # let harness = condor::testing::Harness::of(Sums);
    /// # harness.packet([1, 2]);
    /// # assert_eq!(harness.packets(), [b"\x01\0\0\0\x032 bytes"]);
    ///
    /// // With errors of its own, for a method that returns `Result<Action, CloseReason>`:
    /// fn send_name<M>(ctx: &mut Context<'_, M>, name: &[u8]) -> Result<(), CloseReason> {
    ///     ctx.send_with(|out| {
    ///         let len = u8::try_from(name.len()).map_err(|_| CloseReason::Custom("a long name"))?;
    ///         out.put_u8(len);
    ///         out.put(name);
    ///         Ok(())
    ///     })
    /// }
    /// # struct Names;
    /// # impl Handler for Names {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
    /// #         send_name(ctx, packet).map(|()| Action::Continue).into()
    /// #     }
    /// # }
    /// # let harness = condor::testing::Harness::of(Names);
    /// # harness.packet("ann");
    /// # assert_eq!(harness.packets(), [b"\x03ann"]);
    /// # harness.packet([0; 256]);
    /// # assert_eq!(harness.closed(), Some(CloseReason::Custom("a long name")));
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), then that of `write`. `write` is not called if the connection is
    /// closing. [`SendError::TooLarge`] has the number of bytes that `write` has tried to write.
    pub fn send_with<W: Written>(
        &mut self,
        write: impl FnOnce(&mut PacketWriter<'_>) -> W,
    ) -> Result<(), W::Error> {
        let mut writer = self.begin_packet()?;
        let result = write(&mut writer).into_result();
        let draft = writer.finish(result.is_ok());
        self.end_packet(&draft)?;
        result
    }

    /// Sends one packet made of several parts, one after the other. Else it is as
    /// [`send`](Self::send), errors included.
    ///
    /// ```
    /// use condor::{Action, Context, SendError};
    ///
    /// fn answer<M>(ctx: &mut Context<'_, M>, key: &[u8], value: &[u8]) -> Result<(), SendError> {
    ///     ctx.send_parts(&[b"VALUE ", key, b"=", value])
    /// }
    /// # struct Pairs;
    /// # impl condor::Handler for Pairs {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
    /// #         answer(ctx, packet, b"1").map(|()| Action::Continue).into()
    /// #     }
    /// # }
    /// # let harness = condor::testing::Harness::of(Pairs);
    /// # harness.packet("key");
    /// # assert_eq!(harness.packets(), [b"VALUE key=1"]);
    /// ```
    pub fn send_parts(&mut self, parts: &[&[u8]]) -> Result<(), SendError> {
        self.send_with(|out| parts.iter().for_each(|part| out.put(part)))
    }

    /// Begins a packet in the output, or in the second buffer if the framing needs the whole of it.
    fn begin_packet(&mut self) -> Result<PacketWriter<'_>, SendError> {
        if !self.conn.life().may_send() {
            self.profile.counters.refused_sends.add(1);
            return Err(SendError::Closing);
        }
        self.end_pass_through();
        self.conn.insert(Flags::NO_PASS_THROUGH);
        let room = self.profile.options.max_queued.saturating_sub(self.queued_bytes());
        let framing = self.conn.framing(&self.profile.framing);
        let most = framing.max_packet_out().unwrap_or(usize::MAX);
        let before = self.state.out.len();
        let Some(behind) = framing.begin(&mut self.state.out) else {
            // Its framer may make the frame shorter than the packet, so the queue is no limit.
            let draft = Draft { limit: most, ..Draft::default() };
            return Ok(PacketWriter { bytes: &mut self.state.draft, draft });
        };
        let start = self.state.out.len();
        let overhead = start - before + behind;
        let limit = most.min(room.saturating_sub(overhead));
        let draft = Draft { in_place: true, before, start, overhead, limit, ..Draft::default() };
        Ok(PacketWriter { bytes: &mut self.state.out, draft })
    }

    /// Ends a packet: completes its frame, or leaves nothing of it.
    fn end_packet(&mut self, draft: &Draft) -> Result<(), SendError> {
        let sent = if draft.in_place { self.end_in_place(draft) } else { self.end_apart(draft) };
        if sent.is_err() {
            self.profile.counters.refused_sends.add(1);
        }
        sent
    }

    fn end_in_place(&mut self, draft: &Draft) -> Result<(), SendError> {
        let Draft { before, overhead, wanted, .. } = *draft;
        let max = self.profile.options.max_queued;
        let framing = self.conn.framing(&self.profile.framing);
        draft.check(framing.max_packet_out())?;
        if wanted > draft.limit {
            let framed = wanted.saturating_add(overhead);
            return Err(self.no_room(wanted, framed, self.queued_bytes(), max));
        }
        if !draft.is_whole {
            return Ok(());
        }
        if let Err(error) = framing.end(&mut self.state.out, before) {
            self.state.out.truncate(before);
            return Err(error.into());
        }
        let (queued, framed) = (self.queued_bytes(), self.state.out.len() - before);
        if queued > max {
            // Not even an empty packet has room.
            self.state.out.truncate(before);
            return Err(self.no_room(wanted, framed, queued - framed, max));
        }
        self.framed += 1;
        Ok(())
    }

    fn end_apart(&mut self, draft: &Draft) -> Result<(), SendError> {
        let bytes = std::mem::take(&mut self.state.draft);
        let max = self.conn.framing(&self.profile.framing).max_packet_out();
        let sent = match draft.check(max) {
            Ok(()) if draft.is_whole => self.frame_packet(&mut Packet::Borrowed(&bytes)),
            checked => checked,
        };
        self.state.put_draft_back(bytes);
        sent
    }
}

/// What the closure of [`Context::send_with`] returns: nothing, or a `Result`.
pub trait Written {
    /// The error of [`Context::send_with`].
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
struct Draft {
    /// It is written into the output. Else it is written into the second buffer.
    in_place: bool,
    /// Where its frame begins in the buffer.
    before: usize,
    /// Where its first byte is. What goes before it is filled in at the end.
    start: usize,
    /// Bytes that the frame has beyond the packet.
    overhead: usize,
    /// The most bytes that the writer takes.
    limit: usize,
    /// Bytes that the closure has tried to write. If these are more than `limit`, the packet is
    /// refused.
    wanted: usize,
    /// A value could not be formatted.
    has_failed: bool,
    /// The closure has ended well, and the packet is in the buffer.
    is_whole: bool,
}

impl Draft {
    /// Checks what does not depend on the queue.
    fn check(&self, max: Option<usize>) -> Result<(), SendError> {
        match max {
            Some(max) if self.wanted > max => Err(SendError::TooLarge { len: self.wanted, max }),
            _ if self.has_failed => Err(SendError::BadFrame("a value could not be formatted")),
            _ => Ok(()),
        }
    }

    fn is_refused(&self) -> bool {
        self.wanted > self.limit || self.has_failed
    }
}

/// Writes the bytes of one packet. [`Context::send_with`] lends it to a closure.
///
/// It appends, and gives no access to earlier packets. Its methods return no error: if the packet
/// becomes too long, the rest is dropped, and [`send_with`](Context::send_with) returns the error. As
/// a [`Write`](std::io::Write) of `std::io` or `std::fmt` it returns an error at once, so that an
/// encoder stops early.
///
/// `write!` works without an import, returns nothing, and needs no `?`.
pub struct PacketWriter<'a> {
    bytes: &'a mut Vec<u8>,
    draft: Draft,
}

impl PacketWriter<'_> {
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
    fn finish(mut self, is_ok: bool) -> Draft {
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
