//! A peer's clocks, and its one entry in the wheel.

use std::time::Duration;

use super::Peer;
use super::marks::Marks;
use crate::connection::Due;
use crate::desk::Desk;
use crate::handler::{Handler, Info};
use crate::life::Cut;
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::turn::Timer;
use crate::wheel::{Tick, TimerKey};

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Whether no clock runs for it as long as it is at rest.
    #[inline]
    pub(super) fn is_clockless(&self, desk: &Desk<'_, H::Message>) -> bool {
        self.timer.is_none() && desk.profile.limits.idle_timeout.is_none()
    }

    /// An entry in the wheel that is too early stays: it asks again when it fires.
    #[inline(never)]
    pub(super) fn settle_clocks(&mut self, desk: &mut Desk<'_, H::Message>) {
        let limits = &desk.profile.limits;
        self.conn.settle(desk.turn.now(), limits);
        let deadline = self.conn.deadline(limits);
        let wheel = &mut desk.turn.wheel;
        if self.timer.is_none() {
            if deadline != Tick::NEVER {
                let timer = Timer::Peer { listener: desk.profile.slot, key: self.seat.key };
                self.timer = wheel.arm(deadline, timer);
            }
        } else if deadline == Tick::NEVER {
            wheel.cancel(self.timer);
            self.timer = TimerKey::NONE;
        } else if deadline < wheel.deadline(self.timer) {
            wheel.rearm(self.timer, deadline);
        }
    }

    /// The entry in the wheel fired: something may be due.
    pub(crate) fn expire(&mut self, desk: &mut Desk<'_, H::Message>) {
        self.timer = TimerKey::NONE;
        let due = self.conn.due(desk.turn.judged(), &desk.profile.limits);
        if due.is_some() {
            let deadline = self.conn.deadline(&desk.profile.limits);
            let late = desk.turn.judged().0.saturating_sub(deadline.0);
            desk.turn.pulse.timer_lateness.record(late);
        }
        match due {
            // The peer may have done its part, and we have not looked: judge after the next read.
            Some(Due::Packet | Due::Idle) if self.is_unread() => {
                let timer = Timer::Peer { listener: desk.profile.slot, key: self.seat.key };
                let next = desk.turn.judged().after(Duration::from_millis(1));
                self.timer = desk.turn.wheel.arm(next, timer);
                return;
            }
            Some(Due::Packet) => self.packet_timeout(desk),
            Some(Due::Idle) => self.close(desk, CloseReason::IdleTimeout),
            Some(Due::Stall) => self.close(desk, CloseReason::WriteStalled),
            Some(Due::Close) => {
                self.conn.advance(|life| life.cut(Cut::Late));
                // `sweep` does the rest. An entry armed again would be due at once, and again.
                self.conn.close_by(Tick::NEVER);
            }
            None => {}
        }
        self.queue_out(desk, 0);
        self.settle(desk);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.is_marked(Marks::READABLE.with(Marks::QUEUED)) && !self.conn.is_blocked()
    }

    pub(super) fn packet_timeout(&mut self, desk: &mut Desk<'_, H::Message>) {
        desk.profile.counters.packet_timeouts.add(1);
        let Some(partial) = self.conn.take_partial() else { return };
        self.log_partial(desk, partial.as_slice());
        self.dispatch(desk, |handler, ctx| {
            let action = handler.handle_info(Info::Timeout(partial.as_slice()), ctx);
            ctx.apply(action);
        });
        desk.turn.pool.give_buffer(partial);
    }
}
