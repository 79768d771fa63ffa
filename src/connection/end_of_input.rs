//! The end of a connection's input: a half-closed connection, and its clock.

use super::limits::Limits;
use super::{Connection, Flags};
use crate::reason::CloseReason;
use crate::wheel::Tick;

impl Connection {
    /// The input has ended. Returns the close reason if the connection ends with it: in the middle
    /// of a packet, or if the handler has ended its output. Otherwise the connection is half-closed.
    pub(crate) fn half_close(&mut self, now: Tick) -> Option<CloseReason> {
        if let Some(input) = &self.input {
            let (have, want) = (input.len(), input.need);
            return Some(CloseReason::PeerClosedMidPacket { have, want });
        }
        // In a pair the partner's input ends the output, and what is queued has time to leave.
        let leaves = self.has(Flags::PAIRED) && self.output.is_some();
        if !self.life().may_send() && !leaves {
            return Some(CloseReason::PeerClosed);
        }
        self.remove(Flags::PACKET);
        self.advance(|life| life.half_close());
        self.clock = now.0;
        None
    }

    /// Restarts the clock of a half-closed connection, because the kernel has taken output.
    pub(crate) fn answered(&mut self, now: Tick) {
        if self.life().is_open() && self.life().is_half_closed() {
            self.clock = now.0;
        }
    }

    /// The tick at which a half-closed connection is given up, if no output leaves before.
    pub(super) fn half_close_deadline(&self, limits: &Limits) -> Tick {
        if !self.life().is_half_closed() {
            return Tick::NEVER;
        }
        Tick(self.clock).after(limits.half_close_timeout)
    }
}
