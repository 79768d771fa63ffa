//! Sends packets that a closure writes straight into the output, and packets in several parts.

use super::Context;
use crate::connection::Flags;
use crate::handler::action::Packet;
use crate::handler::writer::{Draft, PacketWriter, Written};
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
    /// #     fn handle_packet<'a>(
    /// #         &'a mut self,
    /// #         packet: &'a [u8],
    /// #         ctx: &mut Context<'_, ()>,
    /// #     ) -> Action<'a> {
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
    /// #     fn handle_packet<'a>(
    /// #         &'a mut self,
    /// #         packet: &'a [u8],
    /// #         ctx: &mut Context<'_, ()>,
    /// #     ) -> Action<'a> {
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
        let before = self.state.out.len();
        let Some((behind, most)) = framing.begin(&mut self.state.out) else {
            // Its framer may make the frame shorter than the packet, so the queue is no limit.
            let limit = framing.max_draft();
            let draft = Draft { most: limit, limit, ..Draft::default() };
            return Ok(PacketWriter::new(&mut self.state.draft, draft));
        };
        let start = self.state.out.len();
        let overhead = start - before + behind;
        let limit = most.min(room.saturating_sub(overhead));
        let draft =
            Draft { in_place: true, before, start, overhead, most, limit, ..Draft::default() };
        Ok(PacketWriter::new(&mut self.state.out, draft))
    }

    /// Ends a packet: completes its frame, or leaves nothing of it.
    fn end_packet(&mut self, draft: &Draft) -> Result<(), SendError> {
        let sent = if draft.in_place { self.end_in_place(draft) } else { self.end_apart(draft) };
        if self.state.out.is_empty() {
            // What is not sent may have grown the buffer. No other code frees that memory.
            self.state.clear_out();
        }
        if sent.is_err() {
            self.profile.counters.refused_sends.add(1);
        }
        sent
    }

    fn end_in_place(&mut self, draft: &Draft) -> Result<(), SendError> {
        let Draft { before, overhead, wanted, .. } = *draft;
        let max = self.profile.options.max_queued;
        let framing = self.conn.framing(&self.profile.framing);
        draft.check(framing)?;
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
        let sent = match draft.check(self.conn.framing(&self.profile.framing)) {
            Ok(()) if draft.is_whole => self.frame_packet(&mut Packet::Borrowed(&bytes)),
            checked => checked,
        };
        self.state.put_draft_back(bytes);
        sent
    }
}
