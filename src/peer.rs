//! One connection in its slot: the socket, the protocol-free state, the handler.
//!
//! The only room that reads or writes a stream. A peer is worked on in one go, within budgets:
//! queued output first, then packets left over, then the socket; answers gather in the reactor's
//! output buffer and leave with one write.

mod close;
mod seat;

use std::io::ErrorKind;
use std::time::Duration;

pub(crate) use self::seat::Seat;
use crate::connection::{Connection, Due, flag};
use crate::dispatch::{Batch, Verdict};
use crate::error::CloseReason;
use crate::handler::{Handler, Info};
use crate::listener::Desk;
use crate::stream::Stream;
use crate::turn::{Timer, Turn};
use crate::wheel::{Tick, TimerKey};

/// On Linux a read that returns less than it could has emptied the socket, and whatever arrives
/// later makes a new event (mio#1611), unless the event said that there is more to it than bytes.
const SHORT_READ_DRAINS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Answers of this many bytes leave at once, without waiting for what comes behind: a system call
/// costs less than copying them.
const DIRECT_FROM: usize = 16 * 1024;

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
        self.marks & !mark::WRITABLE == 0 && self.conn.is_quiet() && self.handler.is_some()
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
        self.flush(desk);
        if self.handler.is_none() || self.conn.has(flag::CLOSING) {
            return self.discard(read);
        }
        self.tell_drained(desk);
        let mut budget = desk.turn.options.packet_budget;
        if self.conn.has(flag::BACKLOG) && !self.conn.has(flag::BLOCKS) {
            self.consume(desk, &[], &mut budget);
        }
        if self.is_marked(mark::READABLE) && self.may_read() {
            self.read(desk, read, &mut budget);
        }
        if budget == 0 {
            desk.profile.counters.packet_budget_hits.add(1);
        }
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
        self.write_out(desk);
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

    // ---- in ----

    fn read(&mut self, desk: &mut Desk<'_, H::Message>, read: &mut [u8], budget: &mut u32) {
        let mut room = read.len();
        while room > 0 && self.is_marked(mark::READABLE) && self.may_read() {
            match self.stream.read(&mut read[..room]) {
                Ok(0) => {
                    self.marks &= !(mark::READABLE | mark::HINT);
                    self.conn.flags |= flag::EOF;
                }
                Ok(count) => {
                    desk.profile.counters.bytes_in.add(count as u64);
                    self.conn.heard(desk.turn.now());
                    if SHORT_READ_DRAINS && count < room && !self.is_marked(mark::HINT) {
                        self.marks &= !mark::READABLE;
                    }
                    self.consume(desk, &read[..count], budget);
                    room -= count;
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => self.marks &= !(mark::READABLE | mark::HINT),
                    ErrorKind::Interrupted => {}
                    kind => self.broke(kind, CloseReason::Reset),
                },
            }
        }
        if room == 0 {
            desk.profile.counters.read_budget_hits.add(1);
        }
    }

    /// Delivers what waits, topped up from `fresh`, and then `fresh` itself. What is left of it is
    /// kept: as far as it has arrived, each byte copied once.
    fn consume(&mut self, desk: &mut Desk<'_, H::Message>, mut fresh: &[u8], budget: &mut u32) {
        self.conn.flags &= !flag::BACKLOG;
        while let Some(mut kept) = self.conn.input.take() {
            let missing = kept.missing();
            let (now, later) = fresh.split_at(missing.min(fresh.len()));
            kept.append(now);
            fresh = later;
            if kept.need.is_some_and(|need| kept.len() < need) {
                self.conn.put_back(kept, &mut desk.turn.pool);
                return;
            }
            let scanned = kept.scanned;
            let (consumed, verdict) =
                self.deliver_all(desk, kept.as_slice(), scanned, budget, fresh.is_empty());
            kept.consume(consumed);
            (kept.scanned, kept.need) = match verdict {
                Verdict::Partial(need) => (kept.len(), need),
                _ => (0, Some(0)),
            };
            self.conn.put_back(kept, &mut desk.turn.pool);
            if !matches!(verdict, Verdict::Partial(_)) {
                self.keep_backlog(desk, fresh);
                return;
            }
            if fresh.is_empty() {
                return;
            }
        }
        let (consumed, verdict) = self.deliver_all(desk, fresh, 0, budget, true);
        let rest = &fresh[consumed..];
        match verdict {
            Verdict::Partial(need) => self.conn.keep(rest, rest.len(), need, &mut desk.turn.pool),
            _ => self.keep_backlog(desk, rest),
        }
    }

    /// Delivers batch after batch, writing in between, until there is a reason to stop. `last` says
    /// that nothing else of this turn's input comes behind.
    fn deliver_all(
        &mut self,
        desk: &mut Desk<'_, H::Message>,
        input: &[u8],
        mut scanned: usize,
        budget: &mut u32,
        last: bool,
    ) -> (usize, Verdict) {
        let mut at = 0;
        loop {
            let Batch { consumed, run, verdict } =
                self.deliver(desk, &input[at..], scanned, budget);
            self.send_back(desk, &input[at..][run], last);
            at += consumed;
            scanned = 0;
            match verdict {
                Verdict::Reframed => {
                    self.conn.flags &= !(flag::REFRAMED | flag::BACKLOG);
                    if self.conn.output.is_some() {
                        self.write_out(desk);
                    }
                }
                Verdict::Full => self.write_out(desk),
                Verdict::Partial(_) | Verdict::Budget | Verdict::Blocked => {
                    self.conn.flags &= !flag::REFRAMED;
                    self.log_nonsense(desk, &input[at..]);
                    return (at, verdict);
                }
            }
            if self.conn.has(flag::BLOCKS) {
                return (at, Verdict::Blocked);
            }
        }
    }

    /// Delivery stopped for a reason other than the bytes: they may hold whole packets.
    fn keep_backlog(&mut self, desk: &mut Desk<'_, H::Message>, rest: &[u8]) {
        self.conn.keep(rest, 0, Some(0), &mut desk.turn.pool);
        if self.conn.input.is_some() {
            self.conn.flags |= flag::BACKLOG;
        }
    }

    /// Reads and forgets, so that closing does not answer unread bytes with a reset.
    fn discard(&mut self, read: &mut [u8]) {
        if self.is_marked(mark::ERROR) {
            self.marks &= !mark::ERROR;
            if let Ok(Some(_)) = self.stream.take_error() {
                self.marks |= mark::BROKEN;
            }
        }
        let mut room = read.len();
        while room > 0 && self.is_marked(mark::READABLE) {
            match self.stream.read(&mut read[..room]) {
                Ok(0) => {
                    self.conn.flags |= flag::EOF;
                    self.marks &= !mark::READABLE;
                }
                Ok(count) => room -= count,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => self.marks &= !mark::READABLE,
                    ErrorKind::Interrupted => {}
                    _ => self.marks = self.marks & !mark::READABLE | mark::BROKEN,
                },
            }
        }
    }

    /// An error was announced. If reading does not tell, because we do not read, the kernel does.
    fn look_for_death(&mut self) {
        self.marks &= !mark::ERROR;
        if self.conn.has(flag::BLOCKS)
            && !self.conn.has(flag::CLOSING)
            && let Ok(Some(error)) = self.stream.take_error()
        {
            self.broke(error.kind(), CloseReason::Reset);
        }
    }

    fn broke(&mut self, kind: ErrorKind, reset: CloseReason) {
        self.marks &= !(mark::READABLE | mark::WRITABLE | mark::HINT);
        self.marks |= mark::BROKEN;
        let reason = if kind == ErrorKind::ConnectionReset { reset } else { CloseReason::Io(kind) };
        self.conn.close(reason);
    }

    // ---- out ----

    /// Writes what was framed for this peer, or queues it behind what is queued.
    #[inline]
    pub(crate) fn write_out(&mut self, desk: &mut Desk<'_, H::Message>) {
        if desk.turn.out.is_empty() {
            // What is shared is in the queue already.
            self.flush(desk);
        } else {
            self.write_framed(desk);
        }
    }

    fn write_framed(&mut self, desk: &mut Desk<'_, H::Message>) {
        let mut taken = 0;
        if self.conn.output.is_none() && self.is_marked(mark::WRITABLE) {
            let out = std::mem::take(&mut desk.turn.out);
            taken = self.write(desk, &out);
            desk.turn.out = out;
        }
        if taken < desk.turn.out.len() && !self.is_marked(mark::BROKEN) {
            self.queue_out(desk, taken);
            self.flush(desk);
        }
        desk.turn.clear_out();
    }

    /// Sends answers that are packets straight out of the input, unless they have to wait for
    /// something, or something small comes behind that one write can take along.
    fn send_back(&mut self, desk: &mut Desk<'_, H::Message>, run: &[u8], last: bool) {
        let alone = desk.turn.out.is_empty() && self.conn.output.is_none();
        if !alone || !self.is_marked(mark::WRITABLE) || !last && run.len() < DIRECT_FROM {
            desk.turn.out.extend_from_slice(run);
            return;
        }
        let taken = self.write(desk, run);
        if taken < run.len() && !self.is_marked(mark::BROKEN) {
            self.enqueue(desk, &run[taken..]);
        }
    }

    /// Moves what was framed, from `taken` on, to the peer's own queue.
    pub(crate) fn queue_out(&mut self, desk: &mut Desk<'_, H::Message>, taken: usize) {
        if taken < desk.turn.out.len() {
            let out = std::mem::take(&mut desk.turn.out);
            self.enqueue(desk, &out[taken..]);
            desk.turn.out = out;
        } else {
            self.watch_water(desk);
        }
        desk.turn.clear_out();
    }

    fn enqueue(&mut self, desk: &mut Desk<'_, H::Message>, bytes: &[u8]) {
        let now = desk.turn.now();
        let pool = &mut desk.turn.pool;
        let mut queue = match self.conn.output.take() {
            Some(queue) => queue,
            None => {
                let mut queue = pool.take_queue();
                queue.progress = now;
                queue
            }
        };
        queue.append(bytes, pool);
        self.conn.output = Some(queue);
        self.watch_water(desk);
    }

    /// Offers the queue, if there is one, to the kernel.
    #[inline]
    pub(crate) fn flush(&mut self, desk: &mut Desk<'_, H::Message>) {
        if self.conn.output.is_some() {
            self.flush_queue(desk);
        }
    }

    /// Offers the queue to the kernel, piece by piece, until it refuses.
    fn flush_queue(&mut self, desk: &mut Desk<'_, H::Message>) {
        while self.is_marked(mark::WRITABLE)
            && let Some(queue) = self.conn.output.take()
        {
            let taken = self.write(desk, queue.front().unwrap_or_default());
            self.conn.output = Some(queue);
            if taken > 0 {
                self.conn.sent(taken, desk.turn.now(), &mut desk.turn.pool);
            }
        }
        self.watch_water(desk);
    }

    /// Writes until all is taken or the kernel refuses: only its refusal makes it announce room.
    fn write(&mut self, desk: &Desk<'_, H::Message>, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(count) if count > 0 => taken += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.marks &= !mark::WRITABLE;
                    break;
                }
                refused => {
                    let kind = refused.err().map_or(ErrorKind::WriteZero, |error| error.kind());
                    self.broke(kind, CloseReason::Io(kind));
                    break;
                }
            }
        }
        desk.profile.counters.bytes_out.add(taken as u64);
        taken
    }

    fn watch_water(&mut self, desk: &Desk<'_, H::Message>) {
        if self.conn.watch_water(&desk.profile.limits) {
            desk.profile.counters.high_water_hits.add(1);
        }
    }

    /// Tells the handler that there is room again, at most once a turn.
    pub(crate) fn tell_drained(&mut self, desk: &mut Desk<'_, H::Message>) {
        if self.conn.take_drained(&desk.profile.limits) {
            self.dispatch(desk, |handler, ctx| {
                let action = handler.handle_info(Info::Drained, ctx);
                ctx.apply(action);
            });
            self.write_out(desk);
        }
    }

    // ---- time ----

    /// Puts the clocks and the one entry in the wheel right after something happened.
    #[inline]
    pub(crate) fn settle(&mut self, desk: &mut Desk<'_, H::Message>) {
        let clockless = self.timer.is_none() && desk.profile.limits.idle_timeout.is_none();
        if !clockless || !self.conn.is_quiet() {
            self.settle_clocks(desk);
        }
    }

    /// An entry in the wheel that is too early stays: it asks again when it fires.
    fn settle_clocks(&mut self, desk: &mut Desk<'_, H::Message>) {
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
                self.marks |= mark::CLOSE_DUE;
                // `sweep` does the rest. An entry armed again would be due at once, and again.
                self.conn.close_by(Tick::NEVER);
            }
            None => {}
        }
        self.queue_out(desk, 0);
        self.settle(desk);
    }

    fn is_unread(&self) -> bool {
        self.is_marked(mark::READABLE | mark::QUEUED) && !self.conn.has(flag::BLOCKS)
    }

    fn packet_timeout(&mut self, desk: &mut Desk<'_, H::Message>) {
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
