//! One connection in its slot: the socket, the protocol-free state, the handler.
//!
//! The only room that reads or writes a stream, in `input` and `output`. A peer is worked on in one
//! go, within budgets: queued output first, then packets left over, then the socket; answers gather
//! in the reactor's output buffer and leave with one write. `close` carries out an end.

mod clocks;
mod close;
mod dispatch;
mod input;
mod output;

use crate::connection::{Connection, flag};
use crate::desk::Desk;
use crate::handler::{Handler, Info};
use crate::identity::Seat;
use crate::stream::Stream;
use crate::turn::{FLUSH_AT, Turn};
use crate::wheel::TimerKey;

/// What events said, and where the peer is queued.
pub(crate) mod mark {
    /// There may be something to read.
    pub(crate) const READABLE: u16 = 1 << 0;
    /// There may be room to write.
    pub(crate) const WRITABLE: u16 = 1 << 1;
    /// A short read proves nothing: the event carried an end, an error or an urgent byte.
    pub(crate) const HINT: u16 = 1 << 2;
    /// The event carried an error.
    pub(crate) const ERROR: u16 = 1 << 3;
    /// In the listener's run queue.
    pub(crate) const QUEUED: u16 = 1 << 4;
    /// In the listener's list of peers with fresh output.
    pub(crate) const FLUSH: u16 = 1 << 5;
    /// In the listener's list of peers to end.
    pub(crate) const SWEEP: u16 = 1 << 6;
    /// Nothing can be read or written any more.
    pub(crate) const BROKEN: u16 = 1 << 7;
    /// The present stage of closing took too long.
    pub(crate) const CLOSE_DUE: u16 = 1 << 8;
    /// The listener drains, and the handler has not been told yet.
    pub(crate) const DRAIN: u16 = 1 << 9;
    /// The drain deadline ended it, or cut its end short.
    pub(crate) const FORCED: u16 = 1 << 10;
    /// Room to write is announced: a write was refused before.
    pub(crate) const ROOM_WATCHED: u16 = 1 << 11;
}

/// What sweeping a peer came to.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Swept {
    /// It still has something to send, or lingers.
    Waits,
    /// The slot is free.
    Gone,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Peer<H, S> {
    pub(crate) stream: S,
    /// None once `terminate` was called: the peer lingers.
    pub(crate) handler: Option<H>,
    pub(crate) marks: u16,
    timer: TimerKey,
    /// When it was accepted, in microseconds that wrap around after 71 minutes.
    accepted: u32,
    pub(crate) conn: Connection,
    pub(crate) seat: Seat,
}

impl<H: Handler, S: Stream> Peer<H, S> {
    pub(crate) fn new(stream: S, handler: H, seat: Seat, turn: &Turn) -> Self {
        let conn = Connection::new(turn.now());
        let accepted = turn.nanos().wrapping_micros();
        let (handler, marks) = (Some(handler), mark::WRITABLE);
        Self { stream, handler, marks, timer: TimerKey::NONE, accepted, conn, seat }
    }

    pub(crate) fn is_marked(&self, marks: u16) -> bool {
        self.marks & marks != 0
    }

    /// Whether all it has to do is to wait for an event: no list needs to have it.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.marks & !(mark::WRITABLE | mark::ROOM_WATCHED) == 0
            && self.conn.is_quiet()
            && self.handler.is_some()
    }

    /// Whether there is something to do without waiting for an event.
    pub(crate) fn wants_work(&self) -> bool {
        if self.handler.is_none() {
            return self.is_marked(mark::READABLE);
        }
        let unread = self.is_marked(mark::READABLE) || self.conn.has(flag::BACKLOG | flag::EOF);
        let goodbye = self.is_marked(mark::DRAIN) && self.may_say_goodbye();
        let drained = self.conn.has(flag::OWES_DRAINED) && self.conn.output.is_none();
        (unread || goodbye) && !self.conn.has(flag::BLOCKS)
            || drained && !self.conn.has(flag::CLOSING)
            || self.is_marked(mark::ERROR)
    }

    /// Whether there is output that the kernel has not refused yet.
    pub(crate) fn wants_flush(&self) -> bool {
        self.is_marked(mark::WRITABLE) && self.conn.output.is_some()
    }

    /// The peer's share of a turn.
    pub(crate) fn work(&mut self, desk: &mut Desk<'_, H::Message>, read: &mut [u8]) {
        self.marks &= !mark::QUEUED;
        let mut budget = desk.turn.options.packet_budget;
        if !self.conn.is_quiet() || self.handler.is_none() {
            self.flush(desk);
            if self.handler.is_none() || self.conn.has(flag::CLOSING) {
                return self.discard(read);
            }
            self.catch_up(desk, &mut budget);
        }
        if self.is_marked(mark::READABLE) && self.may_read() {
            self.read(desk, read, &mut budget);
        }
        if budget == 0 {
            desk.profile.counters.packet_budget_hits.add(1);
        }
        // What follows is not for those who are done, as most are, nor for those past help.
        let over = self.is_at_rest() && self.is_clockless(desk) || self.is_marked(mark::BROKEN);
        if over && desk.turn.out.is_empty() {
            return;
        }
        self.look_around(desk);
        self.write_out(desk);
        self.settle(desk);
    }

    /// What comes before reading: word that there is room again, and packets left over.
    #[inline(never)]
    fn catch_up(&mut self, desk: &mut Desk<'_, H::Message>, budget: &mut u32) {
        self.tell_drained(desk);
        if self.conn.has(flag::BACKLOG) && !self.conn.has(flag::BLOCKS) {
            self.consume(desk, &[], 0, budget);
        }
    }

    /// What comes after reading: ends that reading does not tell of, and the word that the listener
    /// drains.
    #[inline(never)]
    fn look_around(&mut self, desk: &mut Desk<'_, H::Message>) {
        if self.is_marked(mark::ERROR) {
            self.look_for_death();
        }
        if self.conn.has(flag::EOF) && !self.conn.has(flag::BACKLOG | flag::BLOCKS) {
            let reason = self.conn.end_of_input();
            self.close(desk, reason);
        }
        if self.is_marked(mark::DRAIN) && self.may_say_goodbye() {
            self.marks &= !mark::DRAIN;
            self.dispatch(desk, |handler, ctx| {
                let action = handler.handle_info(Info::Shutdown, ctx);
                ctx.apply(action);
            });
        }
    }

    /// Whether messages reach it.
    pub(crate) fn listens(&self) -> bool {
        self.handler.is_some() && !self.conn.has(flag::CLOSING)
    }

    /// Hands over one message. What is answered gathers until [`reply`](Self::reply), unless it is
    /// much: a peer that would take it must not be ended for what it was never offered.
    #[inline]
    pub(crate) fn tell(&mut self, desk: &mut Desk<'_, H::Message>, message: H::Message) {
        desk.profile.counters.messages.add(1);
        self.dispatch(desk, |handler, ctx| {
            let action = handler.handle_info(Info::Message(message), ctx);
            ctx.apply(action);
        });
        if desk.turn.out.len() + self.conn.queued() >= FLUSH_AT {
            self.write_out(desk);
        }
    }

    /// Sends what was answered: at once if these were the `last` messages that anybody gets in this
    /// turn, else together with what comes behind.
    #[inline]
    pub(crate) fn reply(&mut self, desk: &mut Desk<'_, H::Message>, last: bool) {
        if last {
            self.write_out(desk);
        } else {
            self.queue_out(desk, 0);
        }
        self.settle(desk);
    }

    /// How long it took from accept to now.
    pub(crate) fn micros_since_accept(&self, turn: &Turn) -> u32 {
        turn.nanos().wrapping_micros().wrapping_sub(self.accepted)
    }

    fn may_read(&self) -> bool {
        !self.conn.has(flag::BLOCKS | flag::BACKLOG | flag::EOF)
    }

    /// Everything that had arrived was delivered, and no packet is half here.
    fn may_say_goodbye(&self) -> bool {
        !self.is_marked(mark::READABLE)
            && !self.conn.has(flag::BLOCKS | flag::BACKLOG)
            && self.conn.input.is_none()
    }
}

#[cfg(test)]
mod tests {
    use mio::net::TcpStream;

    use super::*;
    use crate::handler::{Action, Context};

    struct Stateless;

    impl Handler for Stateless {
        type Message = ();

        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            Action::Continue
        }
    }

    /// As the slab's own, which is private.
    #[expect(dead_code, reason = "only its size is asked for")]
    enum Entry<T> {
        Vacant(usize),
        Occupied(T),
    }

    /// Goal: an idle connection is cheap. Method: the size of a slot with a stateless handler.
    #[test]
    fn a_slot_takes_at_most_96_bytes() {
        // In debug builds mio remembers with each socket whom it is registered with.
        let debug = if cfg!(debug_assertions) { 2 * size_of::<usize>() } else { 0 };
        let size = size_of::<Entry<Peer<Stateless, TcpStream>>>() - debug;
        assert!(size <= 96, "{size} bytes");
    }
}
