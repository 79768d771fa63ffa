//! One connection in its slot: the socket, the protocol-free state, the handler.
//!
//! The only module that reads or writes a stream, in `input` and `output`. A peer is worked on in one
//! go, within budgets: queued output first, then packets left over, then the socket; answers gather
//! in the reactor's output buffer and leave with one write. `close` carries out an end, `clocks`
//! keeps the peer's one entry in the wheel.

mod clocks;
mod close;
mod dispatch;
mod input;
mod marks;
mod output;

pub(crate) use self::marks::Marks;
use crate::connection::{Connection, Flags};
use crate::desk::Desk;
use crate::handler::{Handler, Info};
use crate::identity::Seat;
use crate::life::{OutputHalf, Stage};
use crate::poller::Readiness;
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::turn::{FLUSH_AT, Turn};
use crate::wheel::TimerKey;

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
    /// There exactly while [`Life::has_handler`](crate::life::Life::has_handler) says so.
    handler: Option<H>,
    pub(crate) marks: Marks,
    timer: TimerKey,
    /// When it was accepted, in microseconds: the lower half, because there is room for four bytes
    /// here and for four in `conn`, and none for eight.
    accepted_low: u32,
    pub(crate) conn: Connection,
    pub(crate) seat: Seat,
}

impl<H: Handler, S: Stream> Peer<H, S> {
    /// A peer whose connection is opening: it has no handler yet.
    pub(crate) fn new(stream: S, seat: Seat, turn: &Turn) -> Self {
        let (accepted_high, accepted_low) = halves(turn.nanos().micros());
        Self {
            stream,
            handler: None,
            marks: Marks::WRITABLE,
            timer: TimerKey::NONE,
            accepted_low,
            conn: Connection::new(turn.now(), accepted_high),
            seat,
        }
    }

    /// Opening is over: here is the handler, which is asked for its first words.
    pub(crate) fn open(&mut self, handler: H, desk: &mut Desk<'_, H::Message>) {
        self.conn.advance(|life| life.open());
        self.handler = Some(handler);
        desk.profile.counters.made.add(1);
        log::debug!("{}: {} connected", desk.profile.name, self.seat.peer_addr());
        self.dispatch(desk, |handler, ctx| {
            let action = handler.init(ctx);
            ctx.apply(action);
        });
        if !self.conn.is_quiet() || !desk.turn.out.is_empty() {
            self.queue_out(desk, 0);
        }
        self.settle(desk);
    }

    /// The handler, unless it was terminated or not made yet.
    pub(crate) fn handler(&self) -> Option<&H> {
        self.handler.as_ref()
    }

    #[inline(always)]
    pub(crate) fn is_marked(&self, marks: Marks) -> bool {
        self.marks.has(marks)
    }

    /// An event came. Returns whether the peer is to be worked on for it.
    pub(crate) fn notice(&mut self, readiness: Readiness) -> bool {
        let was_at_rest = self.is_at_rest();
        self.marks.insert(readiness.into());
        if was_at_rest {
            return self.is_marked(Marks::READABLE);
        }
        self.wants_work()
            || self.wants_flush()
            || self.conn.life().is_ending() && self.is_marked(Marks::READABLE)
    }

    /// Whether all it has to do is to wait for an event: no list needs to have it.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.marks.has_only(Marks::WRITABLE.with(Marks::ROOM_WATCHED)) && self.conn.is_quiet()
    }

    /// Whether there is something to do without waiting for an event.
    pub(crate) fn wants_work(&self) -> bool {
        if !self.conn.life().has_handler() {
            return self.conn.life().is_lingering() && self.is_marked(Marks::READABLE);
        }
        let unread = self.is_marked(Marks::READABLE)
            || self.conn.has(Flags::BACKLOG)
            || self.conn.life().is_input_ended();
        let goodbye = self.is_marked(Marks::DRAIN) && self.may_say_goodbye();
        let drained = self.conn.has(Flags::OWES_DRAINED) && self.conn.output.is_none();
        (unread || goodbye) && !self.conn.is_blocked()
            || drained && self.conn.life().is_open()
            || self.is_marked(Marks::ERROR)
    }

    /// Whether there is output that the kernel has not refused yet.
    pub(crate) fn wants_flush(&self) -> bool {
        self.is_marked(Marks::WRITABLE) && self.conn.output.is_some()
    }

    /// The peer's share of a turn.
    pub(crate) fn work(&mut self, desk: &mut Desk<'_, H::Message>, read: &mut [u8]) {
        self.marks.remove(Marks::QUEUED);
        let mut budget = desk.turn.options.packet_budget;
        if !self.conn.is_quiet() {
            self.flush(desk);
            if !self.conn.life().is_open() {
                return self.discard(read);
            }
            self.catch_up(desk, &mut budget);
        }
        if self.is_marked(Marks::READABLE) && self.conn.may_read() {
            self.read(desk, read, &mut budget);
        }
        if budget == 0 {
            desk.profile.counters.packet_budget_hits.add(1);
        }
        // What follows is not for those who are done, as most are, nor for those past help.
        let over = self.is_at_rest() && self.is_clockless(desk) || self.conn.life().is_broken();
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
        if self.conn.has(Flags::BACKLOG) && !self.conn.is_blocked() {
            self.consume(desk, &[], 0, budget);
        }
    }

    /// What comes after reading: ends that reading does not tell of, and the word that the listener
    /// drains.
    #[inline(never)]
    fn look_around(&mut self, desk: &mut Desk<'_, H::Message>) {
        if self.is_marked(Marks::ERROR) {
            self.look_for_death();
        }
        let waits = self.conn.is_blocked() || self.conn.has(Flags::BACKLOG);
        if self.conn.life().is_input_ended() && !waits {
            let reason = self.conn.end_of_input();
            self.close(desk, reason);
        }
        if self.is_marked(Marks::DRAIN) && self.may_say_goodbye() {
            self.marks.remove(Marks::DRAIN);
            self.dispatch(desk, |handler, ctx| {
                let action = handler.handle_info(Info::Shutdown, ctx);
                ctx.apply(action);
            });
        }
    }

    /// Whether messages reach it.
    pub(crate) fn listens(&self) -> bool {
        self.conn.life().is_open()
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
    pub(crate) fn micros_since_accept(&self, turn: &Turn) -> u64 {
        let high = u64::from(self.conn.accepted_high) << u32::BITS;
        turn.nanos().micros().saturating_sub(high | u64::from(self.accepted_low))
    }

    /// Everything that had arrived was delivered, and no packet is half here.
    fn may_say_goodbye(&self) -> bool {
        !self.is_marked(Marks::READABLE)
            && !self.conn.is_blocked()
            && !self.conn.has(Flags::BACKLOG)
            && self.conn.input.is_none()
    }

    /// Puts everything right that follows from what just happened: the output half's end, the clocks,
    /// the one entry in the wheel.
    #[inline]
    pub(crate) fn settle(&mut self, desk: &mut Desk<'_, H::Message>) {
        if !self.is_clockless(desk) || !self.conn.is_quiet() {
            if self.conn.life().output() == OutputHalf::Ending {
                self.finish_output();
            }
            self.settle_clocks(desk);
        }
    }

    /// What must hold between any two pieces of work.
    pub(crate) fn invariants(&self) {
        self.conn.invariants();
        debug_assert_eq!(self.handler.is_some(), self.conn.life().has_handler());
        debug_assert!(self.conn.life().stage() != Stage::Gone || self.timer.is_none());
    }

    /// Fails with a reason that the kernel gave: nothing can be read or written any more.
    fn fail(&mut self, reason: CloseReason) {
        let readiness = Marks::READABLE.with(Marks::WRITABLE).with(Marks::HINT).with(Marks::ERROR);
        self.marks.remove(readiness);
        self.conn.close(reason);
        self.conn.advance(|life| life.cut(crate::life::Cut::Broken));
    }
}
/// The upper and the lower half of a number.
#[expect(clippy::cast_possible_truncation, reason = "each half has 32 bits")]
fn halves(number: u64) -> (u32, u32) {
    ((number >> u32::BITS) as u32, number as u32)
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
