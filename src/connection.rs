//! The protocol-free state of one connection: what has arrived, what has not left, and what is due.
//!
//! No socket, no clock and no handler here. Time comes in as ticks, bytes come in and go out as
//! slices; the driver asks [`Connection::deadline`] when to come back and then
//! [`Connection::due`] what has run out. Where a connection is in its life is in
//! [`life`](crate::life).

mod clocks;
mod cold;
mod limits;

use std::time::Duration;

use self::cold::{Cold, Timeouts};
pub(crate) use self::limits::{Due, Limits};
use crate::buffer::{Buffer, Pool, Queue};
use crate::flags::flag_set;
use crate::framing::Framing;
use crate::life::{Ending, Life};
use crate::reason::CloseReason;
use crate::wheel::Tick;

flag_set! {
    /// What holds delivery up, what is owed, which clocks run. Together with [`Life`] it is one word,
    /// looked at once per packet.
    Flags: u32 {
        /// The handler paused reading and delivery.
        PAUSED = 0,
        /// Above the high-water mark, and not yet down at the low one.
        OVER_HIGH_WATER = 1,
        /// The handler is owed an `Info::Writable`.
        OWES_WRITABLE = 2,
        /// The framing was changed, or a packet shared, in the callback that just ran.
        RESTART_BATCH = 3,
        /// Bytes that wait may hold whole packets: delivery stopped for another reason.
        BACKLOG = 4,
        /// At least one packet has been delivered.
        HAD_PACKET = 5,
        /// The packet clock runs or stands still, as opposed to being off.
        PACKET_CLOCK = 6,
        /// The packet clock stands still.
        PACKET_STOPPED = 7,
        /// The idle clock stands still.
        IDLE_STOPPED = 8,
        /// In this batch answers that are packets are copied like all others; see `handler::PassThrough`.
        NO_PASS_THROUGH = 9,
        /// The last packet of this batch is not part of the run of packets that are sent back.
        RUN_BROKEN = 10,
    }
}

impl Flags {
    /// These mean something within a batch only.
    pub(crate) const BATCH: Self = Self::NO_PASS_THROUGH.with(Self::RUN_BROKEN);
    /// Either keeps an open connection from being read and delivered to.
    pub(crate) const BLOCKS: Self = Self::PAUSED.with(Self::OVER_HIGH_WATER);
    /// Any of these ends the tight delivery loop of an open connection.
    const INTERRUPTS: Self = Self::BLOCKS.with(Self::RESTART_BATCH);
    /// None of these lets a packet join the run of those that are sent back.
    const NO_RUN: Self = Self::INTERRUPTS.with(Self::BATCH);
    const PACKET: Self = Self::PACKET_CLOCK.with(Self::PACKET_STOPPED);
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Connection {
    /// [`Flags`] in the lower half, [`Life`] in the upper.
    word: u32,
    /// The peer's: see there.
    pub(crate) accepted_high: u32,
    /// Open, the packet clock runs: the tick at which the partial packet times out. It stands still:
    /// ticks left. Closing and lingering: the tick at which the stage is cut short.
    clock: u64,
    /// Open, the idle clock runs: the tick of the peer's last byte. It stands still: ticks passed
    /// since.
    idle_clock: u64,
    /// Undelivered input. `None` rather than empty.
    pub(crate) input: Option<Box<Buffer>>,
    /// Unsent output. `None` rather than empty.
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

    /// What holds it up, what it is owed, which of its clocks run.
    pub(crate) fn flags(&self) -> Flags {
        Flags(self.word & !Life::HALF)
    }

    /// Where it is in its life.
    #[inline(always)]
    pub(crate) fn life(&self) -> Life {
        Life::of(self.word)
    }

    /// A transition of its life.
    #[inline(always)]
    pub(crate) fn advance<T>(&mut self, step: impl FnOnce(&mut Life) -> T) -> T {
        let mut life = self.life();
        let told = step(&mut life);
        self.word = self.word & !Life::HALF | life.bits();
        told
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

    /// Whether a packet that is sent back may join the run of those before it.
    #[inline(always)]
    pub(crate) fn may_join_run(&self) -> bool {
        self.may_send_without(Flags::NO_RUN)
    }

    /// Whether something keeps us from reading and delivering.
    #[inline(always)]
    pub(crate) fn is_blocked(&self) -> bool {
        !self.is_open_without(Flags::BLOCKS)
    }

    /// Whether the next thing to do for an unread stream is to read it: nothing that was read waits.
    #[inline(always)]
    pub(crate) fn may_read(&self) -> bool {
        self.is_open_without(Flags::BLOCKS.with(Flags::BACKLOG)) && !self.life().is_input_ended()
    }

    /// Whether it owes and awaits nothing and has no clock but, maybe, the idle one: the state that
    /// most connections are in most of the time.
    #[inline]
    pub(crate) fn has_no_pending_state(&self) -> bool {
        self.word & !(Flags::HAD_PACKET.bits() | Life::AT_REST) == 0
            && self.input.is_none()
            && self.output.is_none()
            && self.cold.is_none()
    }

    fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Head of the list of this connection's timers, if it ever had any.
    pub(crate) fn first_timer(&mut self) -> Option<&mut u32> {
        self.cold.as_mut().map(|cold| &mut cold.first_timer)
    }

    /// The same, made if there is none.
    pub(crate) fn timers(&mut self) -> &mut u32 {
        &mut self.cold().first_timer
    }

    // ---- in ----

    /// Bytes arrived: the peer is not idle.
    pub(crate) fn touch_idle(&mut self, now: Tick) {
        if self.has(Flags::IDLE_STOPPED) {
            self.idle_clock = 0;
        } else {
            self.idle_clock = now.0;
        }
    }

    /// At least one packet was delivered; a packet clock that ran was that packet's.
    pub(crate) fn delivered(&mut self) {
        self.insert(Flags::HAD_PACKET);
        self.remove(Flags::PACKET);
    }

    /// Keeps undelivered bytes. `need` as in [`Buffer`]; `scanned` of them were looked at.
    #[inline]
    pub(crate) fn keep(
        &mut self,
        bytes: &[u8],
        scanned: usize,
        need: Option<usize>,
        pool: &mut Pool,
    ) {
        if bytes.is_empty() && self.input.is_none() {
            return;
        }
        let input = self.input.get_or_insert_with(|| pool.take_buffer());
        input.append(bytes);
        input.scanned = scanned;
        input.need = need;
    }

    /// Puts back, or recycles, a buffer that was taken out of `input` for delivery.
    pub(crate) fn put_back(&mut self, buffer: Box<Buffer>, pool: &mut Pool) {
        debug_assert!(self.input.is_none());
        if buffer.is_empty() {
            pool.give_buffer(buffer);
        } else {
            self.input = Some(buffer);
        }
    }

    /// Takes the partial packet out, for `Info::Timeout`. What comes next is a header again.
    pub(crate) fn take_partial(&mut self) -> Option<Box<Buffer>> {
        self.remove(Flags::PACKET);
        self.input.take()
    }

    /// Bytes that have arrived and wait.
    pub(crate) fn undelivered(&self) -> usize {
        self.input.as_ref().map_or(0, |input| input.len())
    }

    /// The reason for which a connection ends whose peer sends no more.
    pub(crate) fn end_of_input(&self) -> CloseReason {
        match &self.input {
            None => CloseReason::PeerClosed,
            Some(input) => CloseReason::PeerClosedMidPacket { have: input.len(), want: input.need },
        }
    }

    // ---- framing and timeouts of its own ----

    pub(crate) fn framing<'a>(&'a self, default: &'a Framing) -> &'a Framing {
        self.own_framing().unwrap_or(default)
    }

    pub(crate) fn own_framing(&self) -> Option<&Framing> {
        self.cold.as_ref()?.framing.as_deref()
    }

    /// Counts from the first byte not yet delivered, and starts the packet clock anew.
    pub(crate) fn set_framing(&mut self, framing: Framing) {
        self.cold().framing = Some(Box::new(framing));
        self.insert(Flags::RESTART_BATCH.with(Flags::BACKLOG));
        self.remove(Flags::PACKET);
        if let Some(input) = &mut self.input {
            (input.scanned, input.need) = (0, Some(0));
        }
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

    /// Bytes of output that the kernel has refused so far.
    pub(crate) fn queued(&self) -> usize {
        self.output.as_ref().map_or(0, |queue| queue.len())
    }

    /// The queue, made if there is none; its stall clock then starts at `now`.
    pub(crate) fn queue(&mut self, now: Tick, pool: &mut Pool) -> &mut Queue {
        self.output.get_or_insert_with(|| new_queue(now, pool))
    }

    /// Appends output that the kernel has not taken.
    pub(crate) fn enqueue(&mut self, bytes: &[u8], now: Tick, pool: &mut Pool) {
        let mut queue = match self.output.take() {
            Some(queue) => queue,
            None => new_queue(now, pool),
        };
        queue.append(bytes, pool);
        self.output = Some(queue);
    }

    /// The kernel took `count` bytes off the queue.
    pub(crate) fn sent(&mut self, count: usize, now: Tick, pool: &mut Pool) {
        let Some(queue) = &mut self.output else { return };
        queue.consume(count, pool);
        queue.progress = now;
        if queue.is_empty()
            && let Some(queue) = self.output.take()
        {
            pool.give_queue(queue);
        }
    }

    /// Compares what is queued with the water marks.
    ///
    /// Returns true once per crossing, when the connection went over the high mark.
    pub(crate) fn watch_water(&mut self, limits: &Limits) -> bool {
        let queued = self.queued();
        if queued > limits.write_high_water && !self.has(Flags::OVER_HIGH_WATER) {
            self.insert(Flags::OVER_HIGH_WATER.with(Flags::OWES_WRITABLE));
            return true;
        }
        if queued <= limits.write_low_water && self.has(Flags::OVER_HIGH_WATER) {
            self.remove(Flags::OVER_HIGH_WATER);
        }
        false
    }

    /// Whether `Info::Writable` is to be delivered now; it is owed no longer then.
    pub(crate) fn take_writable(&mut self, limits: &Limits) -> bool {
        let now = self.has(Flags::OWES_WRITABLE)
            && self.is_open_without(Flags::OVER_HIGH_WATER)
            && self.queued() <= limits.write_low_water;
        if now {
            self.remove(Flags::OWES_WRITABLE);
        }
        now
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

    /// Sets the moment at which the present stage of closing is cut short.
    pub(crate) fn close_by(&mut self, at: Tick) {
        debug_assert!(self.life().is_ending(), "while it is open this is the packet clock");
        self.clock = at.0;
    }

    pub(crate) fn is_close_armed(&self) -> bool {
        self.life().is_ending() && self.clock != Tick::NEVER.0
    }

    /// Gives the memory of input and output back. Returns the bytes lost: (input, output).
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

    /// What must hold between any two calls.
    pub(crate) fn invariants(&self) {
        self.life().invariants();
        debug_assert!(self.input.as_ref().is_none_or(|input| !input.is_empty()));
        debug_assert!(self.output.as_ref().is_none_or(|queue| !queue.is_empty()));
        debug_assert_eq!(self.life().is_ending(), self.reason().is_some(), "{:?}", self.life());
        debug_assert!(!self.has(Flags::PACKET_STOPPED) || self.has(Flags::PACKET_CLOCK));
        debug_assert!(!self.has(Flags::BATCH), "a batch is over: {:?}", self.flags());
        if !self.life().has_handler() {
            debug_assert!(self.input.is_none() && self.output.is_none(), "{:?}", self.life());
        }
    }
}

/// An empty queue whose stall clock starts at `now`.
fn new_queue(now: Tick, pool: &mut Pool) -> Box<Queue> {
    let mut queue = pool.take_queue();
    queue.progress = now;
    queue
}
