//! The protocol-free state of one connection: undelivered input, unsent output, and deadlines.
//!
//! This module has no socket, no clock and no handler. Time comes in as ticks. Bytes come in and go
//! out as slices. [`Connection::deadline`] tells the caller when to come back, and
//! [`Connection::due`] then tells what has run out. The stage of a connection is in
//! [`life`](crate::life).

mod calls_timer;
mod clocks;
mod cold;
mod end_of_input;
mod limits;
mod membership;
mod water;

use std::time::Duration;

use self::cold::{Cold, Timeouts};
pub(crate) use self::limits::{Crossing, Due, Limits};
use crate::buffer::{Buffer, Pool, Queue};
use crate::flags::flag_set;
use crate::framing::{Framing, Notes};
use crate::life::{Ending, Life};
use crate::reason::CloseReason;
use crate::timers::List;
use crate::wheel::Tick;

flag_set! {
    /// What blocks delivery, what the handler is owed, and which clocks run. Together with [`Life`]
    /// it is one word, which is read once per packet.
    Flags: u32 {
        /// The handler paused reading and delivery.
        PAUSED = 0,
        /// Output has gone over the high-water mark, and is not yet down at the low-water mark.
        OVER_HIGH_WATER = 1,
        /// The handler is owed an `Info::Writable`.
        OWES_WRITABLE = 2,
        /// The framing was changed, or a packet shared, in the callback that just ran.
        RESTART_BATCH = 3,
        /// The kept input may hold whole packets: delivery stopped for another reason than missing
        /// bytes.
        BACKLOG = 4,
        /// At least one packet has been delivered.
        HAD_PACKET = 5,
        /// The packet clock is on: it runs or is stopped.
        PACKET_CLOCK = 6,
        /// The packet clock is stopped.
        PACKET_STOPPED = 7,
        /// The idle clock is stopped.
        IDLE_STOPPED = 8,
        /// In this batch answers that are packets are copied like all others; see
        /// `handler::PassThrough`.
        NO_PASS_THROUGH = 9,
        /// The last packet of this batch is not part of the pass-through run.
        RUN_BROKEN = 10,
        /// A packet is expected by a deadline: the clock runs or is stopped.
        EXPECTS = 11,
        /// The callback that just ran has set this deadline, so its own packet does not end it.
        EXPECT_IS_NEW = 12,
        /// The clock of the expected packet is stopped.
        EXPECT_STOPPED = 13,
        /// A silence timeout is in force.
        TIMES_SILENCE = 14,
        /// The connection has a framing of its own.
        OWN_FRAMING = 15,
        /// It has a partner.
        PAIRED = 28,
        /// The partner is over its high-water mark, or is not up yet.
        PARTNER_FULL = 29,
        /// In a pair, instead of `OVER_HIGH_WATER`: the partner is not read, and this one is.
        FILLS_PARTNER = 30,
        /// The end of input was passed on to the partner, and the handler was not told.
        PASSED_END_ON = 31,
    }
}

impl Flags {
    /// These have a meaning only within a batch.
    pub(crate) const BATCH: Self = Self::NO_PASS_THROUGH.with(Self::RUN_BROKEN);
    /// Any of these stops reading and delivery for an open connection.
    pub(crate) const BLOCKS: Self =
        Self::PAUSED.with(Self::OVER_HIGH_WATER).with(Self::PARTNER_FULL);
    /// Either of these: output has gone over the high-water mark.
    pub(crate) const IS_OVER: Self = Self::OVER_HIGH_WATER.with(Self::FILLS_PARTNER);
    /// Any of these ends the tight delivery loop of an open connection.
    const INTERRUPTS: Self = Self::BLOCKS.with(Self::RESTART_BATCH);
    /// Any of these keeps a packet out of the pass-through run.
    const NO_RUN: Self = Self::INTERRUPTS.with(Self::BATCH);
    const PACKET: Self = Self::PACKET_CLOCK.with(Self::PACKET_STOPPED);
    const EXPECTATION: Self = Self::EXPECTS.with(Self::EXPECT_STOPPED).with(Self::EXPECT_IS_NEW);
    /// These have a meaning only while a batch runs.
    pub(crate) const CALLBACK: Self =
        Self::BATCH.with(Self::RESTART_BATCH).with(Self::EXPECT_IS_NEW);
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Connection {
    /// [`Flags`] in the lower half and in the highest bits, [`Life`] between them.
    word: u32,
    /// The upper half of the time of accept in microseconds. The lower half is in `Peer`.
    pub(crate) accepted_high: u32,
    /// - Open, while the packet clock runs: the tick at which the partial packet times out.
    /// - Open, while the packet clock is stopped: the ticks left.
    /// - Half-closed, where no packet can be partial: the tick at which the kernel last took output,
    ///   or of the half-close.
    /// - Closing and lingering: the tick at which the stage is cut.
    clock: u64,
    /// - Open, while the idle clock runs: the tick of the peer's last byte.
    /// - Open, while the idle clock is stopped: the ticks that had passed since that byte.
    idle_clock: u64,
    /// Undelivered input: `None`, never an empty buffer.
    pub(crate) input: Option<Box<Buffer>>,
    /// Unsent output: `None`, never an empty queue.
    pub(crate) output: Option<Box<Queue>>,
    cold: Option<Box<Cold>>,
}

impl Connection {
    pub(crate) fn new(now: Tick, accepted_high: u32) -> Self {
        Self {
            word: Life::opening().bits(),
            accepted_high,
            clock: 0,
            idle_clock: now.0,
            input: None,
            output: None,
            cold: None,
        }
    }

    /// The half of the word that has the flags.
    pub(crate) fn flags(&self) -> Flags {
        Flags(self.word & !Life::HALF)
    }

    /// The half of the word that has the life.
    #[inline(always)]
    pub(crate) fn life(&self) -> Life {
        Life::of(self.word)
    }

    /// Makes a transition of its life. Returns what `step` returns.
    #[inline(always)]
    pub(crate) fn advance<T>(&mut self, step: impl FnOnce(&mut Life) -> T) -> T {
        let mut life = self.life();
        let result = step(&mut life);
        self.word = self.word & !Life::HALF | life.bits();
        result
    }

    #[inline(always)]
    pub(crate) fn has(&self, flags: Flags) -> bool {
        self.word & flags.bits() != 0
    }

    #[inline(always)]
    pub(crate) fn insert(&mut self, flags: Flags) {
        self.word |= flags.bits();
    }

    #[inline(always)]
    pub(crate) fn remove(&mut self, flags: Flags) {
        self.word &= !flags.bits();
    }

    fn toggle(&mut self, flags: Flags) {
        self.word ^= flags.bits();
    }

    #[inline(always)]
    fn is_open_without(&self, flags: Flags) -> bool {
        self.word & (flags.bits() | Life::NOT_OPEN) == 0
    }

    #[inline(always)]
    fn may_send_without(&self, flags: Flags) -> bool {
        self.word & (flags.bits() | Life::NO_OUTPUT) == 0
    }

    /// Whether the tight delivery loop has to stop.
    #[inline(always)]
    pub(crate) fn is_interrupted(&self) -> bool {
        !self.may_send_without(Flags::INTERRUPTS)
    }

    /// Whether a packet that is sent back may join the pass-through run before it.
    #[inline(always)]
    pub(crate) fn may_join_run(&self) -> bool {
        self.may_send_without(Flags::NO_RUN)
    }

    /// Whether reading and delivery are blocked.
    #[inline(always)]
    pub(crate) fn is_blocked(&self) -> bool {
        !self.is_open_without(Flags::BLOCKS)
    }

    /// Whether the stream may be read now: reading is not blocked, no backlog comes first, and the
    /// input has not ended.
    #[inline(always)]
    pub(crate) fn may_read(&self) -> bool {
        self.is_open_without(Flags::BLOCKS.with(Flags::BACKLOG)) && !self.life().is_input_ended()
    }

    /// Whether whole packets may be left that were not delivered, and can be.
    #[inline(always)]
    pub(crate) fn has_backlog(&self) -> bool {
        self.word & (Flags::BACKLOG.bits() | Life::NOT_OPEN) == Flags::BACKLOG.bits()
    }

    /// Whether nothing is pending: no input, no output, nothing owed, and no clock but the idle
    /// one. Most connections are in this state most of the time.
    #[inline]
    pub(crate) fn has_no_pending_state(&self) -> bool {
        self.word & !(Flags::HAD_PACKET.with(Flags::PAIRED).bits() | Life::AT_REST) == 0
            && self.input.is_none()
            && self.output.is_none()
            && self.cold.is_none()
    }

    fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// The list of this connection's timers. `None` if nothing has made it.
    pub(crate) fn timers_if_any(&mut self) -> Option<&mut List> {
        self.cold.as_mut().map(|cold| &mut cold.timers)
    }

    /// The list of this connection's timers. Makes it if there is none.
    pub(crate) fn timers(&mut self) -> &mut List {
        &mut self.cold().timers
    }

    // ---- in ----

    /// Records that at least one packet was delivered. The packet clock belonged to that packet, so
    /// it is turned off. An expectation is met, unless the callback of the last packet has set it.
    ///
    /// There is no branch, because a branch costs each batch more: this is in the middle of the hot
    /// path.
    #[inline(always)]
    pub(crate) fn delivered(&mut self) {
        const { assert!(Flags::EXPECT_IS_NEW.bits() == Flags::EXPECTS.bits() << 1) };
        let new = self.word & Flags::EXPECT_IS_NEW.bits();
        let met = Flags::PACKET.with(Flags::EXPECTATION).bits();
        self.word = self.word & !met | Flags::HAD_PACKET.bits() | new >> 1;
    }

    /// Keeps undelivered bytes. `need` and `notes` are as in [`Buffer`]; `scanned` of the bytes were
    /// looked at.
    #[inline]
    pub(crate) fn keep(
        &mut self,
        bytes: &[u8],
        scanned: usize,
        need: Option<usize>,
        notes: &Notes,
        pool: &mut Pool,
    ) {
        if bytes.is_empty() && self.input.is_none() {
            return;
        }
        let input = self.input.get_or_insert_with(|| pool.take_buffer(bytes.len()));
        input.append(bytes, pool);
        (input.scanned, input.need, input.notes) = (scanned, need, *notes);
    }

    /// Puts a buffer back that was taken out of `input` for delivery. An empty buffer goes to the
    /// pool.
    pub(crate) fn put_back(&mut self, buffer: Box<Buffer>, pool: &mut Pool) {
        debug_assert!(self.input.is_none());
        if buffer.is_empty() {
            pool.give_buffer(buffer);
        } else {
            self.input = Some(buffer);
        }
    }

    /// Takes the partial packet out, for `Info::Timeout`. The bytes that arrive next are decoded as
    /// a new packet.
    pub(crate) fn take_partial(&mut self) -> Option<Box<Buffer>> {
        self.remove(Flags::PACKET);
        self.input.take()
    }

    /// The number of bytes that have arrived and are not delivered.
    pub(crate) fn undelivered(&self) -> usize {
        self.input.as_ref().map_or(0, |input| input.len())
    }

    // ---- framing and timeouts of its own ----

    pub(crate) fn framing<'a>(&'a self, default: &'a Framing) -> &'a Framing {
        self.own_framing().unwrap_or(default)
    }

    pub(crate) fn own_framing(&self) -> Option<&Framing> {
        self.cold.as_ref()?.framing.as_deref()
    }

    /// Takes the connection's own framing out, so that it can be dropped by itself.
    pub(crate) fn take_framing(&mut self) -> Option<Framing> {
        self.remove(Flags::OWN_FRAMING);
        Some(*self.cold.as_mut()?.framing.take()?)
    }

    /// Replaces the framing, from the first byte that is not delivered, and turns the packet clock
    /// off: it starts again if a partial packet is left.
    /// Returns the one that it replaces, if that was the connection's own.
    pub(crate) fn set_framing(&mut self, framing: Framing) -> Option<Framing> {
        let old = self.cold().framing.replace(Box::new(framing));
        self.insert(Flags::RESTART_BATCH.with(Flags::BACKLOG).with(Flags::OWN_FRAMING));
        self.remove(Flags::PACKET);
        if let Some(input) = &mut self.input {
            (input.scanned, input.need) = (0, Some(0));
        }
        old.map(|old| *old)
    }

    pub(crate) fn set_packet_timeout(&mut self, timeout: Duration) {
        self.timeouts().packet = Some(timeout);
    }

    pub(crate) fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.timeouts().idle = Some(timeout);
    }

    fn timeouts(&mut self) -> &mut Timeouts {
        self.cold().timeouts.get_or_insert_default()
    }

    fn own_timeouts(&self) -> Option<&Timeouts> {
        self.cold.as_ref()?.timeouts.as_deref()
    }

    // ---- out ----

    /// The number of bytes in the queue of output.
    pub(crate) fn queued(&self) -> usize {
        self.output.as_ref().map_or(0, |queue| queue.len())
    }

    /// The queue of output. If there is none, this makes one whose stall clock starts at `now`.
    pub(crate) fn queue(&mut self, now: Tick, pool: &mut Pool) -> &mut Queue {
        self.output.get_or_insert_with(|| {
            let mut queue = pool.take_queue();
            (queue.progress, queue.offered) = (now, now);
            queue
        })
    }

    /// Appends to the queue the output that the kernel has not taken.
    pub(crate) fn enqueue(&mut self, bytes: &[u8], now: Tick, pool: &mut Pool) {
        self.queue(now, pool).append(bytes, pool);
    }

    /// Removes `count` bytes from the queue, because the kernel has taken them, and restarts the
    /// stall clock.
    pub(crate) fn sent(&mut self, count: usize, now: Tick, pool: &mut Pool) {
        self.answered(now);
        let Some(queue) = &mut self.output else { return };
        queue.consume(count, pool);
        queue.progress = now;
        if queue.is_empty()
            && let Some(queue) = self.output.take()
        {
            pool.give_queue(queue);
        }
    }

    // ---- the end ----

    /// Decides the end. The first reason wins.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        let ending = Ending::from(reason);
        if !self.advance(|life| life.close(ending)) {
            return;
        }
        self.clock = Tick::NEVER.0;
        if ending == Ending::Other {
            self.cold().reason = Some(Box::new(reason));
        }
    }

    pub(crate) fn reason(&self) -> Option<CloseReason> {
        match self.life().ending()? {
            Ending::Normal => Some(CloseReason::Normal),
            Ending::PeerClosed => Some(CloseReason::PeerClosed),
            Ending::Reset => Some(CloseReason::Reset),
            Ending::Other => self.cold.as_ref()?.reason.as_deref().copied(),
        }
    }

    /// Sets the tick at which the current stage of closing is cut.
    pub(crate) fn close_by(&mut self, at: Tick) {
        debug_assert!(self.life().is_ending(), "while it is open this is the packet clock");
        self.clock = at.0;
    }

    pub(crate) fn is_close_armed(&self) -> bool {
        self.life().is_ending() && self.clock != Tick::NEVER.0
    }

    /// Gives the memory of input and output back to the pool. Returns the numbers of bytes lost:
    /// (input, output).
    pub(crate) fn give_back(&mut self, pool: &mut Pool) -> (usize, usize) {
        let lost = (self.undelivered(), self.queued());
        if let Some(input) = self.input.take() {
            pool.give_buffer(input);
        }
        if let Some(output) = self.output.take() {
            pool.give_queue(output);
        }
        lost
    }

    /// Checks what must hold between any two calls.
    pub(crate) fn invariants(&self) {
        self.life().invariants();
        debug_assert!(self.input.as_ref().is_none_or(|input| !input.is_empty()));
        debug_assert!(self.output.as_ref().is_none_or(|queue| !queue.is_empty()));
        debug_assert_eq!(self.life().is_ending(), self.reason().is_some(), "{:?}", self.life());
        debug_assert!(!self.has(Flags::PACKET_STOPPED) || self.has(Flags::PACKET_CLOCK));
        debug_assert!(!self.has(Flags::EXPECT_STOPPED) || self.has(Flags::EXPECTS));
        debug_assert!(!self.has(Flags::EXPECTS) || self.cold.is_some());
        debug_assert_eq!(self.has(Flags::OWN_FRAMING), self.own_framing().is_some());
        debug_assert!(!self.has(Flags::CALLBACK), "a batch is over: {:?}", self.flags());
        if !self.life().has_handler() {
            debug_assert!(self.input.is_none() && self.output.is_none(), "{:?}", self.life());
        }
    }
}
