//! How a connection ends. Any code may decide the end; this module carries it out. The stages are
//! in [`life`](crate::life).

use super::dispatch::discard;
use super::marks::Marks;
use super::{Peer, Swept};
use crate::connection::Flags;
use crate::handler::Handler;
use crate::life::Stage;
use crate::logging::{Cause, cure, resembles, say};
use crate::peer_cx::PeerCx;
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::wheel::TimerKey;

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Decides the end. If the peer has closed in the middle of its first packet, this logs a line.
    pub(crate) fn close(&mut self, cx: &mut PeerCx<'_, H::Message>, reason: CloseReason) {
        if let (CloseReason::PeerClosedMidPacket { .. }, Some(input)) = (reason, &self.conn.input) {
            self.log_partial(cx, input.as_slice(), reason);
        }
        self.conn.close(reason);
    }

    /// Decides the end at once: nothing is waited for.
    pub(crate) fn force(&mut self) {
        if self.conn.life().stage() == Stage::Opening {
            return self.conn.advance(|life| life.go());
        }
        self.conn.close(CloseReason::DrainForced);
        self.conn.advance(|life| life.force());
    }

    pub(super) fn log_nonsense(&self, cx: &mut PeerCx<'_, H::Message>, bytes: &[u8]) {
        if let Some(reason @ (CloseReason::PacketTooLarge { .. } | CloseReason::BadFrame(_))) =
            self.conn.reason()
        {
            self.log_partial(cx, bytes, reason);
        }
    }

    pub(super) fn log_partial(
        &self,
        cx: &mut PeerCx<'_, H::Message>,
        bytes: &[u8],
        reason: CloseReason,
    ) {
        if !self.conn.has(Flags::HAD_PACKET) && cx.gate.opens(Cause::Nonsense, cx.state.nanos()) {
            say!(
                Warn,
                "{}: peer {}: the first packet came to nothing: {reason}, and it \
                 looks like {}; {}",
                cx.profile.label,
                self.identity.peer_addr(),
                resembles(bytes),
                cure(reason)
            );
        }
    }

    /// Terminates the handler as soon as no output is left to send. If no output is queued, this
    /// happens where the end was found: before packets of other connections that came later.
    pub(crate) fn conclude(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        if self.conn.life().stage() != Stage::Closing {
            return;
        }
        let Some(reason) = self.conn.reason() else { return };
        if self.conn.has(Flags::PAIRED) || self.has_partner(cx) {
            self.leave_pair(cx, reason);
        }
        let cut_short = self.conn.life().is_cut() || is_abrupt(reason);
        if self.conn.output.is_some() && !cut_short {
            return;
        }
        self.cancel_timers(cx);
        if let Some(groups) = self.conn.take_groups() {
            cx.state.groups.leave_all(self.identity.key, groups);
            cx.state.ask_for_trim(cx.state.groups.spare());
        }
        self.terminate(cx, reason);
        let lost = self.conn.give_back(&mut cx.state.pool);
        cx.count_drop_panics();
        if let Some(framing) = self.conn.take_framing() {
            discard(cx, framing);
        }
        if self.conn.life().is_forced() {
            cx.discarded.add(lost);
        }
        let lingers = !cut_short && !self.conn.life().is_input_ended();
        if lingers && self.stream.shutdown_write().is_ok() {
            self.conn.advance(|life| life.linger());
            self.conn.close_by(cx.state.now().after(cx.profile.options.linger_timeout));
            self.marks.insert(Marks::READABLE);
            self.update_timers(cx);
        } else {
            self.go(cx);
        }
    }

    /// Takes one step of closing, at the end of a turn.
    pub(crate) fn sweep(&mut self, cx: &mut PeerCx<'_, H::Message>) -> Swept {
        self.marks.remove(Marks::SWEEP);
        self.conclude(cx);
        let life = self.conn.life();
        match life.stage() {
            Stage::Closing if !self.conn.is_close_armed() => {
                self.conn.close_by(cx.state.now().after(cx.profile.options.close_timeout));
                self.update_timers(cx);
            }
            Stage::Lingering if life.is_cut() || life.is_input_ended() => self.go(cx),
            _ => {}
        }
        if self.conn.life().stage() == Stage::Gone { Swept::Gone } else { Swept::Waits }
    }

    fn go(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        self.conn.advance(|life| life.go());
        if !self.timer.is_none() {
            cx.state.wheel.cancel(self.timer);
            self.timer = TimerKey::NONE;
        }
    }

    /// Cancels the handler's own timers, because they end with it.
    fn cancel_timers(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        let Some(list) = self.conn.timers_if_any() else { return };
        while let Some(removed) = cx.timers.pop(list) {
            cx.state.wheel.cancel(removed.wheel);
            cx.drop_value("a message", removed.message);
        }
    }
}

/// Whether nothing more is sent and nothing more is read after an end for this reason.
fn is_abrupt(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Reset
            | CloseReason::Io(_)
            | CloseReason::SlowReader
            | CloseReason::WriteStalled
            | CloseReason::SilenceTimeout
            | CloseReason::DrainForced
    )
}
