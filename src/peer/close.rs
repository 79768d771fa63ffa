//! How a connection ends: decided anywhere, carried out here, one step a sweep. The diagram is in
//! `connection.rs`.

use super::{Peer, Swept, mark};
use crate::connection::flag;
use crate::desk::Desk;
use crate::handler::Handler;
use crate::logging::{Cause, resembles};
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::wheel::TimerKey;

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Decides the end, with a line in the log if a first packet made no sense.
    pub(crate) fn close(&mut self, desk: &mut Desk<'_, H::Message>, reason: CloseReason) {
        if let (CloseReason::PeerClosedMidPacket { .. }, Some(input)) = (reason, &self.conn.input) {
            let bytes: [u8; 16] =
                std::array::from_fn(|at| input.as_slice().get(at).copied().unwrap_or_default());
            let len = input.len().min(bytes.len());
            self.log_partial(desk, &bytes[..len]);
        }
        self.conn.close(reason);
    }

    pub(super) fn log_nonsense(&self, desk: &mut Desk<'_, H::Message>, bytes: &[u8]) {
        if let Some(CloseReason::PacketTooLarge { .. } | CloseReason::BadFrame(_)) =
            self.conn.reason()
        {
            self.log_partial(desk, bytes);
        }
    }

    pub(super) fn log_partial(&self, desk: &mut Desk<'_, H::Message>, bytes: &[u8]) {
        if !self.conn.has(flag::SPOKEN) && desk.gate.opens(Cause::Nonsense, desk.turn.nanos()) {
            log::warn!(
                "{}: the first packet of {} came to nothing; it looks like {}",
                desk.profile.name,
                self.seat.peer_addr(),
                resembles(bytes)
            );
        }
    }

    /// One step of the way out. See the diagram in `connection.rs`.
    pub(crate) fn sweep(&mut self, desk: &mut Desk<'_, H::Message>) -> Swept {
        self.marks &= !mark::SWEEP;
        let Some(reason) = self.conn.reason() else { return Swept::Waits };
        let cut_short = self.is_marked(mark::BROKEN | mark::CLOSE_DUE) || is_abrupt(reason);
        let now = desk.turn.now();
        if self.handler.is_some() {
            if self.conn.output.is_some() && !cut_short {
                if !self.conn.is_close_armed() {
                    self.conn.close_by(now.after(desk.profile.options.close_timeout));
                    self.settle(desk);
                }
                return Swept::Waits;
            }
            self.cancel_timers(desk);
            self.terminate(desk, reason);
            let lost = self.conn.give_back(&mut desk.turn.pool);
            if self.is_marked(mark::FORCED) {
                desk.lost.add(lost);
            }
            if !cut_short && !self.conn.has(flag::EOF) && self.stream.shutdown_write().is_ok() {
                self.conn.close_by(now.after(desk.profile.options.linger_timeout));
                self.marks |= mark::READABLE;
                self.settle(desk);
                return Swept::Waits;
            }
        } else if !cut_short && !self.conn.has(flag::EOF) {
            return Swept::Waits;
        }
        self.cancel_wheel(desk);
        Swept::Gone
    }

    fn cancel_wheel(&mut self, desk: &mut Desk<'_, H::Message>) {
        if !self.timer.is_none() {
            desk.turn.wheel.cancel(self.timer);
            self.timer = TimerKey::NONE;
        }
    }

    /// The handler's own timers end with it.
    fn cancel_timers(&mut self, desk: &mut Desk<'_, H::Message>) {
        let Some(first) = self.conn.first_timer() else { return };
        while let Some(removed) = desk.timers.pop(first) {
            desk.turn.wheel.cancel(removed.wheel);
            crate::guard::guarded(|| drop(removed.message));
        }
    }
}

/// Ends for which nothing more is sent and nothing more is read.
fn is_abrupt(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Reset
            | CloseReason::Io(_)
            | CloseReason::SlowReader
            | CloseReason::WriteStalled
            | CloseReason::DrainForced
    )
}
