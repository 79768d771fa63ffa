//! What a callback may do besides returning an action.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::action::{Action, Packet};
use super::pass_through::PassThrough;
use crate::connection::{Connection, Flags};
use crate::endpoint::Endpoint;
use crate::framing::{Enframe, Framing, Shape};
use crate::handle::Handle;
use crate::identity::{ConnectionId, Identity};
use crate::listener_shared::ListenerShared;
use crate::loop_state::{LoopState, Timer};
use crate::mailbox::Address;
use crate::peer_cx::PeerCx;
use crate::reason::{FrameError, SendError};
use crate::stream::Stream;
use crate::sync::Arc;
use crate::timers::{TimerId, Timers};

/// What a callback may do besides returning an [`Action`]. All of it is about the callback's own
/// connection.
pub struct Context<'a, M> {
    pub(crate) conn: &'a mut Connection,
    pub(crate) state: &'a mut LoopState,
    pub(crate) timers: &'a mut Timers<M>,
    pub(crate) profile: &'a ListenerShared<M>,
    pub(crate) identity: &'a Identity,
    pub(crate) stream: &'a dyn Stream,
    /// Answers of this batch that are the packets themselves.
    pub(crate) pass_through: PassThrough<'a>,
    /// Packets framed in this dispatch, those of `pass_through` not counted.
    pub(crate) framed: u64,
}

impl<'a, M> Context<'a, M> {
    /// What a peer lends to one callback, or to one batch of packets.
    #[inline(always)]
    pub(crate) fn new<'d: 'a>(
        conn: &'a mut Connection,
        cx: &'a mut PeerCx<'d, M>,
        identity: &'a Identity,
        stream: &'a dyn Stream,
        pass_through: PassThrough<'a>,
    ) -> Self {
        let PeerCx { state, timers, profile, .. } = cx;
        Self { conn, state, timers, profile, identity, stream, pass_through, framed: 0 }
    }
}

impl<M> Context<'_, M> {
    /// A shared packet of this length or longer is queued without a copy. Below it the copy is
    /// cheaper than the system call of its own that it costs to leave it where it is.
    const SHARE_FROM: usize = 16 * 1024;

    /// Queues `packet` for sending, framed. It is written, with everything else that this turn
    /// has for the peer, in one go after the callback.
    ///
    /// # Errors
    ///
    /// In every case nothing was queued, and the connection goes on.
    ///
    /// - [`SendError::TooLarge`]: longer than the framing can express, than the maximum, or, framed,
    ///   than [`max_queued`](crate::ListenerOptions::max_queued). It can never be sent.
    /// - [`SendError::Full`]: past [`max_queued`](crate::ListenerOptions::max_queued);
    ///   [`Info::Writable`](super::Info::Writable) tells when there is room.
    /// - [`SendError::BadFrame`]: the framer refused it.
    /// - [`SendError::Closing`]: the end was decided before.
    pub fn send<'p>(&mut self, packet: impl Into<Packet<'p>>) -> Result<(), SendError> {
        let sent = self.frame(packet.into());
        if sent.is_err() {
            self.profile.counters.refused_sends.add(1);
        }
        sent
    }

    /// The peer's end; an IPv4 client of an IPv6 socket is shown as IPv4.
    pub fn peer_addr(&self) -> Endpoint {
        self.identity.peer_addr()
    }

    /// The end the peer connected to: that of the listener, unless it listens on all addresses.
    /// Costs a system call. `None` if the connection is broken already.
    pub fn local_addr(&self) -> Option<Endpoint> {
        self.stream.local_addr().ok().map(Endpoint::canonical)
    }

    /// The connection's name.
    pub fn id(&self) -> ConnectionId {
        self.profile.id_of(self.identity)
    }

    /// Where other threads send this handler messages.
    pub fn address(&self) -> Address<M> {
        Address {
            mailbox: Arc::clone(&self.profile.mailbox),
            key: self.identity.key,
            generation: self.identity.generation,
        }
    }

    /// The reactor's handle: start and stop listeners, shut down.
    pub fn handle(&self) -> Handle {
        self.profile.handle.clone()
    }

    /// Has `message` delivered to this handler after `delay`, rounded up to milliseconds: never
    /// early, and not at all if the connection ends before. `Duration::MAX`: never.
    pub fn send_after(&mut self, delay: Duration, message: M) -> TimerId {
        let at = self.state.now().after(delay);
        let index = self.timers.next_index();
        let timer = Timer::User { listener: self.profile.slot, index };
        let wheel = self.state.wheel.arm(at, timer);
        let first = self.conn.timers();
        self.timers.insert(self.identity.key, first, at, wheel, message)
    }

    /// Cancels a timer of this connection. Returns whether it was still to come.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        if !self.timers.is_armed(timer, self.identity.key) {
            return false;
        }
        let removed = self.timers.remove(timer, self.conn.timers());
        self.state.wheel.cancel(removed.wheel);
        true
    }

    /// The time, as of this turn. Free of a system call.
    pub fn now(&self) -> Instant {
        self.state.instant()
    }

    /// Cuts everything from the first byte not yet delivered, buffered bytes included, by another
    /// framing, and frames what is sent from now on by it. The packet clock starts anew.
    ///
    /// The listener's [`max_packet`](crate::ListenerOptions::max_packet) applies where the framing
    /// has no maximum of its own.
    pub fn set_framing(&mut self, framing: impl Into<Framing>) {
        self.conn.set_framing(self.profile.options.limit(framing.into()));
    }

    /// Changes the packet timeout, from the next packet on. `Duration::MAX`: never. Zero: a packet has
    /// to come in one piece.
    pub fn set_packet_timeout(&mut self, timeout: Duration) {
        self.conn.set_packet_timeout(timeout);
    }

    /// Changes the idle timeout, at once. `None`: no timeout. Zero: the connection ends.
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.conn.set_idle_timeout(timeout);
    }

    /// Neither reads nor delivers any more, end of stream included, until
    /// [`resume_reading`](Self::resume_reading). The packet and the idle clock stand still.
    /// Messages, timers and a reset by the peer still come through.
    ///
    /// Whoever pauses has to resume: a connection that is never resumed stays until its peer resets
    /// it, or the listener's drain forces it.
    pub fn pause_reading(&mut self) {
        self.conn.insert(Flags::PAUSED);
    }

    /// Goes on after [`pause_reading`](Self::pause_reading), with what is buffered first, once this
    /// callback has returned.
    pub fn resume_reading(&mut self) {
        self.conn.remove(Flags::PAUSED);
    }

    /// Ends the output half: what is queued is sent, then the peer is told that nothing more comes.
    /// Reading goes on, and so do messages and timers; the connection ends when the peer ends its
    /// half as well, or for any other reason.
    ///
    /// From now on [`send`](Self::send) answers [`SendError::Closing`], and an [`Action`] that sends
    /// ends the connection with [`CloseReason::Normal`](crate::CloseReason::Normal).
    pub fn end_output(&mut self) {
        self.conn.advance(|life| life.end_output());
    }

    /// Bytes of output that have not been taken by the kernel, length prefixes included.
    pub fn queued_bytes(&self) -> usize {
        self.conn.queued() + self.state.out.len() + self.pass_through.len()
    }

    /// Puts the run of answers that are packets where everything else goes, so that something can
    /// go behind it.
    pub(crate) fn end_pass_through(&mut self) {
        if self.pass_through.len() > 0 {
            self.framed += self.pass_through.copy_to(&mut self.state.out);
        }
    }

    /// Does what a callback asked for. Nothing happens after the end was decided.
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

    fn frame(&mut self, packet: Packet<'_>) -> Result<(), SendError> {
        if !self.conn.life().may_send() {
            return Err(SendError::Closing);
        }
        let payload = packet.as_slice();
        let queued = self.queued_bytes();
        let max = self.profile.options.max_queued;
        let room = max.saturating_sub(queued);
        if payload.len() > room {
            // A framer of the user's may make it shorter than it is.
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
                if bytes.len() >= Self::SHARE_FROM
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

    /// Everything framed so far, the header of this packet included, goes to the queue, and `bytes`
    /// behind it.
    fn share(
        &mut self,
        bytes: Bytes,
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
        let queue = self.conn.queue(now, &mut self.state.pool);
        queue.append(&self.state.out, &mut self.state.pool);
        queue.append_shared(bytes);
        self.state.clear_out();
        // The batch has to end as well: its room is another one now, and all of this is to be
        // offered to the kernel before more is queued.
        self.conn.insert(Flags::RESTART_BATCH);
        Ok(())
    }

    /// Bytes that a packet for which there is no room would take in the queue.
    #[cold]
    fn framed_len(&mut self, payload: &[u8]) -> Result<usize, FrameError> {
        let before = self.state.out.len();
        let framing = self.conn.framing(&self.profile.framing);
        let framed = framing.framed_len(payload, &mut self.state.out);
        self.state.out.truncate(before);
        framed
    }

    /// Why a packet of `len` bytes that takes `framed` was not queued. Word of room is owed only for
    /// a packet that room would help: otherwise the handler would try again at once, for ever.
    #[cold]
    fn no_room(&mut self, len: usize, framed: usize, queued: usize, max: usize) -> SendError {
        if self.state.out.is_empty() {
            // Without output nothing else gives the memory of the refused packet back.
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

impl<M> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id())
            .field("peer_addr", &self.peer_addr())
            .finish_non_exhaustive()
    }
}
