//! One connection in its slot: the socket, the protocol-free state, the handler.
//!
//! Only this module reads or writes a stream, in `input` and `output`. A peer's work in a turn has
//! budgets and a fixed order: queued output first, then packets left over, then the socket. Answers
//! gather in the reactor's output buffer and leave with one write. `close` carries out an end.
//! `clocks` keeps the peer's one entry in the wheel.

mod clocks;
mod close;
mod dispatch;
mod input;
mod marks;
mod member;
mod output;
mod partner;
mod refuse;

pub(crate) use self::marks::Marks;
use crate::connection::{Connection, Flags};
use crate::handler::{Handler, Info};
use crate::identity::Identity;
use crate::life::{OutputHalf, Stage};
use crate::logging::say;
use crate::loop_state::{FLUSH_AT, LoopState};
use crate::peer_cx::PeerCx;
use crate::poller::Readiness;
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::wheel::TimerKey;

/// What a sweep of a peer found.
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
    /// `Some` exactly while [`Life::has_handler`](crate::life::Life::has_handler) returns true.
    handler: Option<H>,
    pub(crate) marks: Marks,
    timer: TimerKey,
    /// The lower half of the time of accept in microseconds. The upper half is in `conn`: each
    /// struct has four bytes left, and neither has eight.
    accepted_low: u32,
    pub(crate) conn: Connection,
    pub(crate) identity: Identity,
}

impl<H: Handler, S: Stream> Peer<H, S> {
    /// A peer whose connection is opening, without a handler.
    pub(crate) fn new(stream: S, identity: Identity, state: &LoopState) -> Self {
        let (accepted_high, accepted_low) = halves(state.nanos().micros());
        Self {
            stream,
            handler: None,
            marks: Marks::WRITABLE,
            timer: TimerKey::NONE,
            accepted_low,
            conn: Connection::new(state.now(), accepted_high),
            identity,
        }
    }

    /// Ends the opening stage: stores the handler and calls its `init`.
    pub(crate) fn open(&mut self, handler: H, cx: &mut PeerCx<'_, H::Message>) {
        self.conn.advance(|life| life.open());
        self.conn.start_clocks(cx.state.now(), &cx.profile.limits);
        self.handler = Some(handler);
        cx.profile.counters.made.add(1);
        say!(Debug, "{}: peer {}: connected", cx.profile.label, self.identity.peer_addr());
        self.dispatch(cx, |handler, ctx| {
            let action = handler.init(ctx);
            ctx.apply(action);
        });
        if !self.conn.has_no_pending_state() || !cx.state.out.is_empty() {
            self.queue_out(cx, 0);
        }
        self.update_timers(cx);
    }

    /// The handler. `None` before it is made, and after it is terminated.
    pub(crate) fn handler(&self) -> Option<&H> {
        self.handler.as_ref()
    }

    #[inline(always)]
    pub(crate) fn is_marked(&self, marks: Marks) -> bool {
        self.marks.has(marks)
    }

    /// Records an event. Returns whether the peer needs work because of it.
    pub(crate) fn notice(&mut self, readiness: Readiness) -> bool {
        let was_at_rest = self.is_idle();
        self.marks.insert(readiness.into());
        if was_at_rest {
            return self.is_marked(Marks::READABLE);
        }
        self.wants_work()
            || self.wants_flush()
            || self.conn.life().is_ending() && self.is_marked(Marks::READABLE)
    }

    /// Whether it has nothing to do but wait for an event. Then it needs to be in no list.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.marks.has_only(Marks::WRITABLE.with(Marks::WRITE_INTEREST))
            && self.conn.has_no_pending_state()
    }

    /// Whether there is something to do without waiting for an event.
    pub(crate) fn wants_work(&self) -> bool {
        if !self.conn.life().has_handler() {
            return self.conn.life().is_lingering() && self.is_marked(Marks::READABLE);
        }
        let unread = self.is_marked(Marks::READABLE)
            || self.conn.has(Flags::BACKLOG)
            || self.conn.life().owes_end_of_input();
        let goodbye = self.is_marked(Marks::DRAIN) && self.can_announce_shutdown();
        let drained = self.conn.has(Flags::OWES_WRITABLE) && self.conn.output.is_none();
        (unread || goodbye) && !self.conn.is_blocked()
            || drained && self.conn.life().is_open()
            || self.is_marked(Marks::ERROR.with(Marks::OUTPUT_CUT))
    }

    /// Whether output is queued and the kernel may have space for it.
    pub(crate) fn wants_flush(&self) -> bool {
        self.is_marked(Marks::WRITABLE)
            && self.conn.output.is_some()
            && !self.is_marked(Marks::OUTPUT_CUT)
    }

    /// Whether nothing is left over from earlier turns, so that it comes before the connections that
    /// were cut short. What a connection that ends has not delivered is not work.
    pub(crate) fn is_new(&self) -> bool {
        !self.conn.has_backlog() && !self.is_marked(Marks::OUTPUT_CUT)
    }

    /// Does the peer's work of one turn.
    pub(crate) fn work(&mut self, cx: &mut PeerCx<'_, H::Message>, read: &mut [u8]) {
        self.marks.remove(Marks::QUEUED.with(Marks::OUTPUT_CUT));
        cx.state.begin_slice();
        let (mut budget, mut reads) = (cx.state.options.packet_budget, true);
        if !self.conn.has_no_pending_state() {
            if self.conn.life().is_input_ended() {
                // Each later event announces the end once more, and so does a drain.
                self.marks.remove(Marks::READABLE.with(Marks::READ_UNTIL_BLOCKED));
            }
            self.flush(cx);
            if !self.conn.life().is_open() {
                return self.discard(cx, read);
            }
            if self.conn.has_backlog() && self.conn.has(Flags::PAIRED) {
                // In a turn the partner gets what is kept, or what one read takes.
                reads = false;
            }
            self.resume_backlog(cx, &mut budget);
        }
        if reads && self.is_marked(Marks::READABLE) && self.conn.may_read() {
            self.read(cx, read, &mut budget);
        }
        if budget == 0 {
            cx.profile.counters.packet_budget_hits.add(1);
        }
        // A peer that is done, as most are, and a broken one need nothing of what follows.
        let over = self.is_idle() && self.needs_no_timer(cx) || self.conn.life().is_broken();
        if over && cx.state.out.is_empty() {
            return;
        }
        self.after_read(cx);
        self.write_out(cx);
        self.update_timers(cx);
    }

    /// Runs before reading: tells the handler that the peer is writable again, then delivers
    /// packets left over.
    #[inline(never)]
    fn resume_backlog(&mut self, cx: &mut PeerCx<'_, H::Message>, budget: &mut u32) {
        self.notify_writable(cx);
        if self.conn.has(Flags::BACKLOG) && !self.conn.is_blocked() {
            self.consume(cx, &[], 0, budget);
        }
    }

    /// Runs after reading: handles the ends that reading does not report, and tells the handler
    /// that the input has ended and that the listener drains.
    #[inline(never)]
    fn after_read(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        if self.is_marked(Marks::ERROR) {
            self.check_socket_error();
        }
        if self.conn.life().owes_end_of_input() {
            // Only then it is known whether output is above the high-water mark.
            self.write_out(cx);
            if !self.conn.is_blocked() && !self.conn.has(Flags::BACKLOG) {
                self.end_input(cx);
            }
        }
        if self.is_marked(Marks::DRAIN) && self.can_announce_shutdown() {
            self.marks.remove(Marks::DRAIN);
            self.dispatch(cx, |handler, ctx| {
                let action = handler.handle_info(Info::Shutdown, ctx);
                ctx.apply(action);
            });
        }
    }

    /// The input has ended, and all of it is delivered.
    fn end_input(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        if let Some(reason) = self.conn.half_close(cx.state.now()) {
            return self.close(cx, reason);
        }
        cx.profile.counters.half_closed.add(1);
        if self.has_partner(cx) {
            return self.pass_end_on(cx);
        }
        self.dispatch(cx, |handler, ctx| {
            let action = handler.handle_info(Info::EndOfInput { clean: true }, ctx);
            ctx.apply(action);
        });
    }

    /// Whether messages are delivered to it.
    pub(crate) fn listens(&self) -> bool {
        self.conn.life().is_open()
    }

    /// Hands one message to the handler. The answers gather until
    /// [`flush_replies`](Self::flush_replies), unless they reach [`FLUSH_AT`] bytes: then they are
    /// written. Otherwise too much output could end the connection before the peer was offered any
    /// of it.
    #[inline]
    pub(crate) fn deliver_message(&mut self, cx: &mut PeerCx<'_, H::Message>, message: H::Message) {
        cx.profile.counters.messages.add(1);
        self.deliver_info(cx, Info::Message(message));
    }

    /// The same for any info that is not a message.
    #[inline]
    pub(crate) fn deliver_info(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        info: Info<'_, H::Message>,
    ) {
        self.dispatch(cx, |handler, ctx| {
            let action = handler.handle_info(info, ctx);
            ctx.apply(action);
        });
        if cx.state.out.len() + self.conn.queued() >= FLUSH_AT {
            self.write_out(cx);
        }
    }

    /// Sends the answers. If the messages were the `last` of the turn, the answers are written at
    /// once. Otherwise they are written together with later answers.
    #[inline]
    pub(crate) fn flush_replies(&mut self, cx: &mut PeerCx<'_, H::Message>, last: bool) {
        if last {
            self.write_out(cx);
        } else {
            self.queue_out(cx, 0);
        }
        self.update_timers(cx);
    }

    /// The time from accept to now, in microseconds.
    pub(crate) fn micros_since_accept(&self, state: &LoopState) -> u64 {
        let high = u64::from(self.conn.accepted_high) << u32::BITS;
        state.nanos().micros().saturating_sub(high | u64::from(self.accepted_low))
    }

    /// Whether everything that has arrived is delivered, and no incomplete packet is kept.
    fn can_announce_shutdown(&self) -> bool {
        !self.is_marked(Marks::READABLE)
            && !self.conn.is_blocked()
            && !self.conn.has(Flags::BACKLOG)
            && self.conn.input.is_none()
    }

    /// Brings up to date what depends on the work just done: the end of the output half, the
    /// clocks, the one entry in the wheel.
    #[inline]
    pub(crate) fn update_timers(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        if !self.needs_no_timer(cx) || !self.conn.has_no_pending_state() {
            if self.conn.life().output() == OutputHalf::Ending {
                self.finish_output();
            }
            self.rearm_timer(cx);
        }
    }

    /// Checks what must hold between any two pieces of work.
    pub(crate) fn invariants(&self) {
        self.conn.invariants();
        debug_assert_eq!(self.handler.is_some(), self.conn.life().has_handler());
        debug_assert!(self.conn.life().stage() != Stage::Gone || self.timer.is_none());
    }

    /// Ends the connection for an error that the kernel returned: nothing can be read or written
    /// any more.
    fn fail(&mut self, reason: CloseReason) {
        let readiness = Marks::READABLE
            .with(Marks::WRITABLE)
            .with(Marks::READ_UNTIL_BLOCKED)
            .with(Marks::ERROR);
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

    /// The slab's own `Entry` is private: this one has the same layout.
    #[expect(dead_code, reason = "only its size is used")]
    enum Entry<T> {
        Vacant(usize),
        Occupied(T),
    }

    /// Goal: an idle connection is cheap. Method: the size of a slot with a stateless handler.
    #[test]
    fn a_slot_takes_at_most_96_bytes() {
        // In debug builds mio stores in each socket the registry that it is registered with.
        let debug = if cfg!(debug_assertions) { 2 * size_of::<usize>() } else { 0 };
        let size = size_of::<Entry<Peer<Stateless, TcpStream>>>() - debug;
        assert!(size <= 96, "{size} bytes");
    }
}
