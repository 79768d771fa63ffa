//! A peer's clocks, and its one entry in the wheel.

use std::time::Duration;

use super::Peer;
use super::marks::Marks;
use crate::connection::{Due, Flags};
use crate::handler::{Handler, Info};
use crate::life::Cut;
use crate::loop_state::Timer;
use crate::peer_cx::PeerCx;
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::wheel::{Tick, TimerKey};

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Whether no clock runs for it as long as it is idle.
    #[inline]
    pub(super) fn needs_no_timer(&self, cx: &PeerCx<'_, H::Message>) -> bool {
        self.timer.is_none() && !cx.profile.limits.time_the_idle
    }

    /// Brings the entry in the wheel up to date. An entry that is too early stays: when it fires,
    /// the deadline is read again.
    #[inline(never)]
    pub(super) fn rearm_timer(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        let limits = &cx.profile.limits;
        self.conn.settle(cx.state.now(), limits);
        let deadline = self.conn.deadline(limits);
        let wheel = &mut cx.state.wheel;
        if self.timer.is_none() {
            if deadline != Tick::NEVER {
                let timer = Timer::Peer { listener: cx.profile.slot, key: self.identity.key };
                self.timer = wheel.arm(deadline, timer);
            }
        } else if deadline == Tick::NEVER {
            wheel.cancel(self.timer);
            self.timer = TimerKey::NONE;
        } else if deadline < wheel.deadline(self.timer) {
            wheel.rearm(self.timer, deadline);
        }
    }

    /// Notes that its entry in the wheel has another key.
    pub(crate) fn timer_moved(&mut self, entry: TimerKey) {
        self.timer = entry;
    }

    /// Handles the entry in the wheel, which has fired: something may be due.
    pub(crate) fn expire(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        self.timer = TimerKey::NONE;
        let due = self.conn.due(cx.state.expiry_now(), &cx.profile.limits);
        if due.is_some() {
            let deadline = self.conn.deadline(&cx.profile.limits);
            let late = cx.state.expiry_now().0.saturating_sub(deadline.0);
            cx.state.metrics.timer_lateness.record(late);
        }
        match due {
            // The peer may have sent its bytes in time, and they are not read yet, or their event
            // is not. So the timeout is decided after the next read.
            Some(Due::Packet | Due::Expected | Due::Idle | Due::Silence)
                if self.is_unread() || cx.state.more_events =>
            {
                return self.look_again(cx);
            }
            Some(Due::Calls)
                if (self.is_unread() || cx.state.more_events)
                    && self.conn.may_read_before_calls(cx.state.expiry_now()) =>
            {
                return self.look_again(cx);
            }
            Some(Due::Packet) => self.packet_timeout(cx),
            Some(Due::Expected) => self.expectation_failed(cx),
            Some(Due::Idle) => self.close(cx, CloseReason::IdleTimeout),
            // Reading is blocked, and its bytes wait in the kernel: it is not silent. The mark says
            // only that the kernel was not found empty.
            Some(Due::Silence) if self.is_marked(Marks::READABLE) && self.stream.is_readable() => {
                self.conn.time_silence(cx.state.now());
            }
            Some(Due::Silence) => self.close(cx, CloseReason::SilenceTimeout),
            Some(Due::Offer) => self.offer(cx),
            Some(Due::Stall) => self.close(cx, CloseReason::WriteStalled),
            Some(Due::HalfClose) => self.half_close_expired(cx),
            Some(Due::Calls) => {
                self.conn.stop_calls_timer();
                self.deliver_info(cx, Info::CallsDue);
            }
            Some(Due::Close) => {
                self.conn.advance(|life| life.cut(Cut::Late));
                // `sweep` does the rest. A new entry for this deadline would fire at once, again
                // and again.
                self.conn.close_by(Tick::NEVER);
            }
            None => {}
        }
        self.queue_out(cx, 0);
        self.update_timers(cx);
    }

    /// Judges what is due one tick later.
    fn look_again(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        let timer = Timer::Peer { listener: cx.profile.slot, key: self.identity.key };
        let next = cx.state.expiry_now().after(Duration::from_millis(1));
        self.timer = cx.state.wheel.arm(next, timer);
    }

    /// Offers the queued output to the kernel once more, although the kernel has announced no space.
    fn offer(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        if let Some(queue) = &mut self.conn.output {
            queue.offered = cx.state.now();
        }
        self.marks.insert(Marks::WRITABLE);
        self.flush(cx);
    }

    /// No output has left for the half-close timeout. Queued output is offered once more first: if
    /// the kernel takes a byte of it, the clock starts again.
    fn half_close_expired(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        self.offer(cx);
        let now = cx.state.expiry_now();
        if self.conn.due(now, &cx.profile.limits) == Some(Due::HalfClose) {
            self.close(cx, CloseReason::HalfCloseTimeout);
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        let unread = self.is_marked(Marks::READABLE.with(Marks::QUEUED));
        (unread || self.conn.has(Flags::BACKLOG)) && !self.conn.is_blocked()
    }

    pub(super) fn packet_timeout(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        cx.profile.counters.packet_timeouts.add(1);
        self.report_timeout(cx);
    }

    fn expectation_failed(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        cx.profile.counters.expect_timeouts.add(1);
        self.conn.expect_nothing();
        self.report_timeout(cx);
    }

    /// Takes the partial packet, if there is one, and tells the handler that it is too late.
    fn report_timeout(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        let partial = self.conn.take_partial();
        let bytes = partial.as_ref().map_or(&[] as &[u8], |partial| partial.as_slice());
        if !bytes.is_empty() {
            self.log_partial(cx, bytes, CloseReason::PacketTimeout);
        }
        self.dispatch(cx, |handler, ctx| {
            let action = handler.handle_info(Info::Timeout(bytes), ctx);
            ctx.apply(action);
        });
        if let Some(partial) = partial {
            cx.state.pool.give_buffer(partial);
        }
    }
}
