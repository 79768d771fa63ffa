//! What a peer does as a member of a group: it takes packets without a call of its handler.

use bytes::Bytes;

use super::Peer;
use super::marks::Marks;
use crate::connection::{Flags, Limits};
use crate::handler::{Handler, Packet};
use crate::loop_state::FLUSH_AT;
use crate::mailbox::SlowMember;
use crate::peer_cx::PeerCx;
use crate::reason::{CloseReason, SendError};
use crate::stream::Stream;

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Whether frames in the listener's framing can go to the kernel as they are, and nothing has to be
    /// brought up to date if it takes all of them.
    #[inline(always)]
    pub(crate) fn takes_frames(&self) -> bool {
        self.conn.takes_frames() && self.is_marked(Marks::WRITABLE)
    }

    /// Writes these frames to a peer that [takes](Self::takes_frames) them. Returns how many bytes the
    /// kernel has taken: the caller counts them. If those are all, nothing has changed that decides in
    /// which lists the peer is.
    #[inline]
    pub(crate) fn write_frames(&mut self, cx: &mut PeerCx<'_, H::Message>, frames: &[u8]) -> usize {
        debug_assert!(cx.state.out.is_empty() && self.takes_frames());
        let taken = self.write_for_group(cx, frames);
        if taken < frames.len() {
            self.update_timers(cx);
        }
        taken
    }

    /// Whether frames of `len` bytes, in the framing of this connection, can be sent without a look at
    /// each of them: the kernel may take them now, or the queue stays below the high-water mark.
    pub(crate) fn has_room_for(&self, len: usize, limits: &Limits) -> bool {
        let takes = self.conn.output.is_none() && self.is_marked(Marks::WRITABLE);
        let fits = self.conn.queued() + len <= limits.write_high_water;
        self.conn.life().may_send() && (takes || fits && !self.conn.has(Flags::IS_OVER))
    }

    /// Sends these frames to a peer that has [room](Self::has_room_for) for them.
    pub(crate) fn send_frames(&mut self, cx: &mut PeerCx<'_, H::Message>, frames: &[u8]) {
        let mut taken = 0;
        if self.conn.output.is_none() && self.is_marked(Marks::WRITABLE) {
            taken = self.write(frames, cx.profile, &cx.state.registry);
        }
        if taken > 0 {
            self.conn.answered(cx.state.now());
        }
        self.queue_rest(cx, &frames[taken..]);
        self.update_timers(cx);
    }

    /// The same for frames whose last payload is shared, and not in `frames`.
    pub(crate) fn send_shared(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        frames: &[u8],
        shared: &Bytes,
    ) {
        let now = cx.state.now();
        let pool = &mut cx.state.pool;
        self.conn.queue(now, pool).append_shared(frames, shared.clone(), pool);
        self.flush(cx);
        self.update_timers(cx);
    }

    /// Sends one packet of a group, in the framing of this connection. As after a message,
    /// [`flush_replies`](Self::flush_replies) follows.
    pub(crate) fn take_packet(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        bytes: &Bytes,
        slow: SlowMember,
    ) {
        if !self.conn.life().may_send() {
            return;
        }
        if self.conn.queued() + cx.state.out.len() > cx.profile.limits.write_high_water {
            // The kernel is asked before the peer counts as slow.
            self.write_out(cx);
        }
        if self.conn.has(Flags::IS_OVER) {
            return self.is_slow(cx, slow);
        }
        let mut sent = self.frame_for_group(cx, bytes);
        if let Err(SendError::Full { .. }) = sent {
            self.write_out(cx);
            sent = self.frame_for_group(cx, bytes);
        }
        cx.profile.counters.refused_sends.add(sent.is_err().into());
        if let Err(SendError::Full { .. }) = sent {
            return self.is_slow(cx, slow);
        }
        if cx.state.out.len() + self.conn.queued() >= FLUSH_AT {
            self.write_out(cx);
        }
    }

    /// Frames one packet of a group as the handler would, but does not count a refusal.
    fn frame_for_group(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        bytes: &Bytes,
    ) -> Result<(), SendError> {
        let owed = self.conn.has(Flags::OWES_WRITABLE);
        let (mut packet, mut framed) = (Packet::Shared(bytes.clone()), Ok(()));
        self.dispatch(cx, |_, ctx| framed = ctx.frame_packet(&mut packet));
        if framed.is_err() && !owed {
            // The handler has sent nothing, so it waits for nothing.
            self.conn.remove(Flags::OWES_WRITABLE);
        }
        framed
    }

    #[cold]
    fn is_slow(&mut self, cx: &mut PeerCx<'_, H::Message>, slow: SlowMember) {
        match slow {
            SlowMember::Disconnect => self.close(cx, CloseReason::SlowReader),
            SlowMember::Skip => cx.profile.counters.skipped_packets.add(1),
        }
    }
}
