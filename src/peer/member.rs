//! What a peer does as a member of a group: it takes packets without a call of its handler.

use bytes::Bytes;

use super::Peer;
use super::marks::Marks;
use crate::connection::Flags;
use crate::framing::Framing;
use crate::handler::Handler;
use crate::loop_state::FLUSH_AT;
use crate::mailbox::SlowMember;
use crate::peer_cx::PeerCx;
use crate::reason::{CloseReason, SendError};
use crate::stream::Stream;

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Whether frames in the listener's framing can go to the kernel as they are.
    #[inline]
    pub(crate) fn takes_frames(&self) -> bool {
        self.takes_output() && self.conn.own_framing().is_none()
    }

    /// Whether frames in the framing of this connection can go to the kernel as they are.
    #[inline]
    pub(crate) fn takes_output(&self) -> bool {
        self.conn.output.is_none() && self.is_marked(Marks::WRITABLE) && self.conn.life().may_send()
    }

    pub(crate) fn own_framing(&self) -> Option<&Framing> {
        self.conn.own_framing()
    }

    /// Writes these frames, and queues what the kernel does not take. Returns whether it took all: then
    /// nothing has changed that decides in which lists the peer is.
    #[inline]
    pub(crate) fn write_frames(&mut self, cx: &mut PeerCx<'_, H::Message>, frames: &[u8]) -> bool {
        debug_assert!(cx.state.out.is_empty() && self.takes_output());
        let taken = self.write(frames, cx.profile, &cx.state.registry);
        if taken > 0 {
            self.conn.answered(cx.state.now());
        }
        taken == frames.len() || self.queue_frames(cx, &frames[taken..])
    }

    #[inline(never)]
    fn queue_frames(&mut self, cx: &mut PeerCx<'_, H::Message>, rest: &[u8]) -> bool {
        if !self.conn.life().is_broken() {
            cx.state.out.extend_from_slice(rest);
            self.queue_out(cx, 0);
        }
        self.update_timers(cx);
        false
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
        if self.conn.has(Flags::OVER_HIGH_WATER) {
            return self.is_slow(cx, slow);
        }
        let owed = self.conn.has(Flags::OWES_WRITABLE);
        let mut sent = Ok(());
        self.dispatch(cx, |_, ctx| sent = ctx.send(bytes.clone()));
        if let Err(SendError::Full { .. }) = sent {
            if !owed {
                // The handler has sent nothing, so it waits for nothing.
                self.conn.remove(Flags::OWES_WRITABLE);
            }
            return self.is_slow(cx, slow);
        }
        if cx.state.out.len() + self.conn.queued() >= FLUSH_AT {
            self.write_out(cx);
        }
    }

    #[cold]
    fn is_slow(&mut self, cx: &mut PeerCx<'_, H::Message>, slow: SlowMember) {
        match slow {
            SlowMember::Disconnect => self.close(cx, CloseReason::SlowReader),
            SlowMember::Skip => cx.profile.counters.skipped_packets.add(1),
        }
    }
}
