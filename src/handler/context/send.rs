//! How an action and a packet become output.

use bytes::Bytes;

use super::Context;
use crate::connection::Flags;
use crate::framing::{Enframe, Shape};
use crate::handler::action::{Action, Packet};
use crate::loop_state::LoopState;
use crate::reason::{FrameError, SendError};

impl<M> Context<'_, M> {
    /// Copies the pass-through run into the output. Other output can then follow it.
    pub(crate) fn end_pass_through(&mut self) {
        if self.pass_through.len() > 0 {
            self.framed += self.pass_through.copy_to(&mut self.state.out);
        }
    }

    /// Applies the action of a callback. After the connection was ended it has no effect.
    pub(crate) fn apply(&mut self, action: Action<'_>) {
        match action {
            Action::Continue => {}
            Action::Send(packet) => self.answer(packet),
            Action::Stop(reason) => self.conn.close(reason),
            Action::SendAndStop(packet, reason) => {
                self.answer(packet);
                self.conn.close(reason);
            }
        }
    }

    fn answer(&mut self, packet: Packet<'_>) {
        if let Err(error) = self.send(packet) {
            self.conn.close(error.into());
        }
    }

    pub(super) fn frame(&mut self, mut packet: Packet<'_>) -> Result<(), SendError> {
        let framed = self.frame_packet(&mut packet);
        if let Packet::Shared(bytes) = packet {
            self.drop_value(bytes);
        }
        framed
    }

    /// As [`send`](Self::send), but drops the packet only if it was queued.
    pub(crate) fn send_or_keep(&mut self, packet: &mut Packet<'_>) -> Result<(), SendError> {
        let sent = self.frame_packet(packet);
        match (&sent, packet) {
            (Err(_), _) => self.profile.counters.refused_sends.add(1),
            (Ok(()), Packet::Shared(bytes)) => self.drop_value(std::mem::take(bytes)),
            (Ok(()), Packet::Borrowed(_) | Packet::Owned(_)) => {}
        }
        sent
    }

    /// After an error `packet` is unchanged, and the caller counts it.
    pub(crate) fn frame_packet(&mut self, packet: &mut Packet<'_>) -> Result<(), SendError> {
        if !self.conn.life().may_send() {
            return Err(SendError::Closing);
        }
        let payload = packet.as_slice();
        let queued = self.queued_bytes();
        let max = self.profile.options.max_queued;
        let room = max.saturating_sub(queued);
        if payload.len() > room {
            // The user's framer may make the frame shorter than the payload.
            let framed = self.framed_len(payload)?;
            if framed > room {
                return Err(self.no_room(payload.len(), framed, queued, max));
            }
        }
        self.end_pass_through();
        self.conn.insert(Flags::NO_PASS_THROUGH);
        let framing = self.conn.framing(&self.profile.framing);
        let before = self.state.out.len();
        match packet {
            Packet::Shared(bytes)
                if bytes.len() >= super::SHARE_FROM
                    && framing.encode_header(bytes.len(), &mut self.state.out)? =>
            {
                self.share(bytes, before, queued, max)?;
            }
            _ => {
                let (packet, out) = (packet.as_slice(), &mut self.state.out);
                match (&self.profile.shape, self.conn.own_framing()) {
                    (Shape::U16(_, prefix), None) => prefix.frame(packet, out)?,
                    _ => framing.frame(packet, out)?,
                }
                let framed = self.state.out.len() - before;
                if queued + framed > max {
                    self.state.out.truncate(before);
                    return Err(self.no_room(packet.len(), framed, queued, max));
                }
            }
        }
        self.framed += 1;
        Ok(())
    }

    /// Moves all framed output, this packet's header included, to the queue, and queues `bytes`
    /// after it. After an error `bytes` is unchanged.
    #[inline(never)]
    fn share(
        &mut self,
        bytes: &mut Bytes,
        before: usize,
        queued: usize,
        max: usize,
    ) -> Result<(), SendError> {
        let framed = self.state.out.len() - before + bytes.len();
        if queued + framed > max {
            self.state.out.truncate(before);
            return Err(self.no_room(bytes.len(), framed, queued, max));
        }
        let now = self.state.now();
        let LoopState { out, pool, .. } = &mut *self.state;
        self.conn.queue(now, pool).append_shared(out, std::mem::take(bytes), pool);
        self.state.clear_out();
        // The free space that the batch counts with has changed.
        self.conn.insert(Flags::RESTART_BATCH);
        Ok(())
    }

    /// Bytes that `payload` would take in the queue. Called only if `payload` itself does not fit.
    #[cold]
    fn framed_len(&mut self, payload: &[u8]) -> Result<usize, FrameError> {
        let before = self.state.out.len();
        let framing = self.conn.framing(&self.profile.framing);
        let framed = framing.framed_len(payload, &mut self.state.out);
        self.state.out.truncate(before);
        framed
    }

    /// Why a packet of `len` bytes, whose frame has `framed` bytes, was not queued.
    ///
    /// `Info::Writable` follows only if the frame fits an empty queue. Otherwise the handler would
    /// try again at once, for ever.
    #[cold]
    pub(super) fn no_room(
        &mut self,
        len: usize,
        framed: usize,
        queued: usize,
        max: usize,
    ) -> SendError {
        if self.state.out.is_empty() {
            // The refused packet may have grown the buffer. No other code frees that memory.
            self.state.clear_out();
        }
        if framed > max {
            let overhead = framed.saturating_sub(len);
            return SendError::TooLarge { len, max: max.saturating_sub(overhead) };
        }
        self.conn.insert(Flags::OWES_WRITABLE);
        SendError::Full { queued, max }
    }
}
