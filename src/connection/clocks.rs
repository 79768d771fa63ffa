//! The clocks of a connection: when it is due, and for what.
//!
//! An open connection has three clocks:
//! - The packet clock limits the time of a partial packet.
//! - The idle clock limits the time without bytes from the peer.
//! - The stall clock limits the time in which the kernel takes no queued output.
//!
//! Two of them are stopped at times. While reading is blocked, because the handler has paused it or
//! because too much output is queued, the peer cannot finish a packet. So neither the packet clock
//! nor the idle clock runs. While output is queued, the idle clock does not run either. A stopped
//! clock holds a number of ticks instead of a moment: the packet clock the ticks left, the idle
//! clock the ticks passed. A stage of closing has a deadline instead of clocks.

use std::time::Duration;

use super::limits::{Due, Limits};
use super::{Connection, Flags};
use crate::wheel::Tick;

impl Connection {
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
            self.clock = swap_packet_clock(self.clock, now, blocked);
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
        self.packet_deadline().min(self.idle_deadline(limits)).min(self.stall_deadline(limits))
    }

    /// What has run out at `now`, the packet clock first.
    pub(crate) fn due(&self, now: Tick, limits: &Limits) -> Option<Due> {
        if !self.life().is_open() {
            return (self.deadline(limits) <= now).then_some(Due::Close);
        }
        if self.packet_deadline() <= now {
            Some(Due::Packet)
        } else if self.stall_deadline(limits) <= now {
            Some(Due::Stall)
        } else {
            (self.idle_deadline(limits) <= now).then_some(Due::Idle)
        }
    }

    fn packet_timeout(&self, limits: &Limits) -> Duration {
        self.own_timeouts().and_then(|own| own.packet).unwrap_or(limits.packet_timeout)
    }

    fn idle_timeout(&self, limits: &Limits) -> Option<Duration> {
        self.own_timeouts().and_then(|own| own.idle).unwrap_or(limits.idle_timeout)
    }

    fn packet_deadline(&self) -> Tick {
        let runs = self.has(Flags::PACKET_CLOCK) && !self.has(Flags::PACKET_STOPPED);
        if runs { Tick(self.clock) } else { Tick::NEVER }
    }

    fn idle_deadline(&self, limits: &Limits) -> Tick {
        match self.idle_timeout(limits) {
            Some(timeout) if !self.has(Flags::IDLE_STOPPED) => Tick(self.idle_clock).after(timeout),
            _ => Tick::NEVER,
        }
    }

    fn stall_deadline(&self, limits: &Limits) -> Tick {
        match &self.output {
            Some(queue) => queue.progress.after(limits.write_stall_timeout),
            None => Tick::NEVER,
        }
    }
}

/// Converts the packet clock's value. When the clock `stops`, a deadline becomes the ticks left.
/// When it continues, the ticks left become a deadline. `Tick::NEVER` stays as it is.
fn swap_packet_clock(clock: u64, now: Tick, stops: bool) -> u64 {
    match (clock, stops) {
        (u64::MAX, _) => u64::MAX,
        (deadline, true) => deadline.saturating_sub(now.0),
        (left, false) => now.0.saturating_add(left),
    }
}
