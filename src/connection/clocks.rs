//! The clocks of a connection: when it is due, and for what.
//!
//! An open connection has seven clocks:
//! - The packet clock limits the time of a partial packet.
//! - The expectation limits the time until the next packet, if the handler or the listener has set
//!   a limit.
//! - The idle clock limits the time without bytes from the peer.
//! - The silence clock does the same, and never stops.
//! - The stall clock limits the time in which the kernel takes no queued output. Before it runs out,
//!   the queue is offered to the kernel a few times.
//! - The half-close clock limits the time in which no output leaves after the input has ended. Then
//!   only it, the stall clock and the calls timer run.
//! - The calls timer tells the handler that a call to the peer is due. It never stops.
//!
//! Three of them are stopped at times. While reading is blocked, because the handler has paused it
//! or because too much output is queued, the peer cannot finish a packet. So neither the packet
//! clock nor the expectation nor the idle clock runs. While output is queued, the idle clock does
//! not run either. A stopped clock holds a number of ticks instead of a moment: the idle clock the
//! ticks passed, the others the ticks left. A stage of closing has a deadline instead of clocks.

use std::time::Duration;

use super::limits::{Due, Limits};
use super::{Connection, Flags};
use crate::wheel::Tick;

impl Connection {
    /// Starts the clocks that a listener starts for each connection, at the end of its opening.
    pub(crate) fn start_clocks(&mut self, now: Tick, limits: &Limits) {
        if limits.silence_timeout.is_some() {
            self.time_silence(now);
        }
        if let Some(timeout) = limits.first_packet_timeout {
            self.expect_by(now.after(timeout));
            self.cold().for_first_packet = true;
        }
    }

    /// Expects a packet until `deadline`. It replaces an earlier expectation.
    pub(crate) fn expect_by(&mut self, deadline: Tick) {
        self.remove(Flags::EXPECTATION);
        self.insert(Flags::EXPECTS);
        self.cold().expected = deadline.0;
    }

    /// Expects nothing any more.
    pub(crate) fn expect_nothing(&mut self) {
        self.remove(Flags::EXPECTATION);
    }

    /// Restarts the idle clock and the silence clock, because bytes have arrived.
    #[inline(always)]
    pub(crate) fn bytes_came(&mut self, now: Tick) {
        if self.has(Flags::IDLE_STOPPED.with(Flags::TIMES_SILENCE)) {
            return self.bytes_came_to_other_clocks(now);
        }
        self.idle_clock = now.0;
    }

    #[inline(never)]
    fn bytes_came_to_other_clocks(&mut self, now: Tick) {
        self.idle_clock = if self.has(Flags::IDLE_STOPPED) { 0 } else { now.0 };
        if self.has(Flags::TIMES_SILENCE) {
            self.time_silence(now);
        }
    }

    /// Starts the silence clock, or starts it again.
    pub(crate) fn time_silence(&mut self, now: Tick) {
        self.insert(Flags::TIMES_SILENCE);
        self.cold().heard = now;
    }

    /// Sets the silence timeout. If there was none, the clock starts now.
    pub(crate) fn set_silence_timeout(&mut self, timeout: Option<Duration>, now: Tick) {
        self.timeouts().silence = Some(timeout);
        if timeout.is_none() {
            self.remove(Flags::TIMES_SILENCE);
        } else if !self.has(Flags::TIMES_SILENCE) {
            self.time_silence(now);
        }
    }

    /// Starts, stops and restarts the clocks after something happened at `now`.
    pub(crate) fn settle(&mut self, now: Tick, limits: &Limits) {
        if !self.life().is_open() {
            return;
        }
        let blocked = self.has(Flags::BLOCKS);
        if self.input.is_none() {
            self.remove(Flags::PACKET);
        } else if !self.has(Flags::PACKET_CLOCK) && !self.has(Flags::BACKLOG) {
            self.insert(Flags::PACKET_CLOCK);
            self.clock = now.after(self.packet_timeout(limits)).0;
        }
        if self.has(Flags::PACKET_CLOCK) && blocked != self.has(Flags::PACKET_STOPPED) {
            self.toggle(Flags::PACKET_STOPPED);
            self.clock = swap_deadline(self.clock, now, blocked);
        }
        if self.has(Flags::EXPECTS) && blocked != self.has(Flags::EXPECT_STOPPED) {
            self.toggle(Flags::EXPECT_STOPPED);
            let expected = &mut self.cold().expected;
            *expected = swap_deadline(*expected, now, blocked);
        }
        if !self.has(Flags::EXPECTS)
            && let Some(cold) = &mut self.cold
            && std::mem::take(&mut cold.for_first_packet)
            && cold.has_only_clocks()
            && !self.has(Flags::TIMES_SILENCE)
        {
            self.cold = None;
        }
        let silent = blocked || self.output.is_some();
        if silent != self.has(Flags::IDLE_STOPPED) {
            self.toggle(Flags::IDLE_STOPPED);
            self.idle_clock = now.0.saturating_sub(self.idle_clock);
        }
    }

    /// The tick at which the caller has to come back, if nothing happens before.
    pub(crate) fn deadline(&self, limits: &Limits) -> Tick {
        if !self.life().is_open() {
            return if self.life().is_ending() { Tick(self.clock) } else { Tick::NEVER };
        }
        let input = self.packet_deadline().min(self.idle_deadline(limits));
        let output = self.offer_deadline(limits).min(self.stall_deadline(limits));
        let common = input.min(output).min(self.half_close_deadline(limits));
        if self.cold.is_none() { common } else { common.min(self.cold_deadline(limits)) }
    }

    /// The deadline of the clocks that few connections have.
    fn cold_deadline(&self, limits: &Limits) -> Tick {
        let packet = self.expected_deadline().min(self.silence_deadline(limits));
        packet.min(self.calls_deadline())
    }

    /// What has run out at `now`. The clocks of the peer's packets come first. An expectation takes
    /// the partial packet along, so that both clocks make one event.
    pub(crate) fn due(&self, now: Tick, limits: &Limits) -> Option<Due> {
        if !self.life().is_open() {
            return (self.deadline(limits) <= now).then_some(Due::Close);
        }
        let due = [
            (self.expected_deadline(), Due::Expected),
            (self.packet_deadline(), Due::Packet),
            (self.offer_deadline(limits), Due::Offer),
            (self.stall_deadline(limits), Due::Stall),
            (self.half_close_deadline(limits), Due::HalfClose),
            (self.idle_deadline(limits), Due::Idle),
            (self.silence_deadline(limits), Due::Silence),
            (self.calls_deadline(), Due::Calls),
        ];
        due.into_iter().find(|(deadline, _)| *deadline <= now).map(|(_, due)| due)
    }

    fn packet_timeout(&self, limits: &Limits) -> Duration {
        self.own_timeouts().and_then(|own| own.packet).unwrap_or(limits.packet_timeout)
    }

    fn idle_timeout(&self, limits: &Limits) -> Option<Duration> {
        self.own_timeouts().and_then(|own| own.idle).unwrap_or(limits.idle_timeout)
    }

    /// A peer that has ended its half sends nothing more, and is not silent.
    fn silence_deadline(&self, limits: &Limits) -> Tick {
        let own = self.own_timeouts().and_then(|own| own.silence);
        match (&self.cold, own.unwrap_or(limits.silence_timeout)) {
            (Some(cold), Some(timeout)) if !self.life().is_input_ended() => {
                cold.heard.after(timeout)
            }
            _ => Tick::NEVER,
        }
    }

    fn expected_deadline(&self) -> Tick {
        match &self.cold {
            Some(cold)
                if self.has(Flags::EXPECTS)
                    && !self.has(Flags::EXPECT_STOPPED)
                    && !self.life().is_half_closed() =>
            {
                Tick(cold.expected)
            }
            _ => Tick::NEVER,
        }
    }

    fn packet_deadline(&self) -> Tick {
        let runs = self.has(Flags::PACKET_CLOCK) && !self.has(Flags::PACKET_STOPPED);
        if runs { Tick(self.clock) } else { Tick::NEVER }
    }

    fn idle_deadline(&self, limits: &Limits) -> Tick {
        match self.idle_timeout(limits) {
            Some(timeout) if !self.has(Flags::IDLE_STOPPED) && !self.life().is_half_closed() => {
                Tick(self.idle_clock).after(timeout)
            }
            _ => Tick::NEVER,
        }
    }

    /// A queue that waits is offered to the kernel four times before the stall is decided. The kernel
    /// announces space only after a third of a send buffer is free, and a buffer that has grown can
    /// take minutes to get there: a peer that reads slowly would seem to read nothing.
    fn offer_deadline(&self, limits: &Limits) -> Tick {
        match &self.output {
            Some(queue) => {
                let next = queue.offered.max(queue.progress).after(limits.write_stall_timeout / 4);
                // Not twice in a tick, so that the stall of a short timeout is decided.
                next.max(Tick(queue.offered.0.saturating_add(1)))
            }
            None => Tick::NEVER,
        }
    }

    fn stall_deadline(&self, limits: &Limits) -> Tick {
        match &self.output {
            Some(queue) => queue.progress.after(limits.write_stall_timeout),
            None => Tick::NEVER,
        }
    }
}

/// Converts the value of a clock that can be stopped. When the clock `stops`, a deadline becomes
/// the ticks left. When it continues, the ticks left become a deadline. `Tick::NEVER` stays as it
/// is.
fn swap_deadline(clock: u64, now: Tick, stops: bool) -> u64 {
    match (clock, stops) {
        (u64::MAX, _) => u64::MAX,
        (deadline, true) => deadline.saturating_sub(now.0),
        (left, false) => now.0.saturating_add(left),
    }
}
