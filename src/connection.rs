//! The protocol-free state of one connection: what has arrived, what has not left, and what is due.
//!
//! ```text
//!   open ──close(reason)──► closing ──output gone──► lingering ──► swept
//!     │                        └─ close_timeout, or nothing can leave ─────►┘
//!     └─ partial packet: packet clock · silence: idle clock · queued output: stall clock
//! ```
//!
//! No socket, no clock and no handler here. Time comes in as ticks, bytes come in and go out as
//! slices; the driver asks [`Connection::deadline`] when to come back and then
//! [`Connection::due`] what has run out.
//!
//! Two clocks stand still at times. While we do not read (the handler paused, or too much output is
//! queued) the peer cannot finish a packet, so neither the packet clock nor the idle clock runs;
//! while output is queued the idle clock does not run either. A clock that stands still holds what
//! is left (packet) or what has passed (idle) instead of a moment.

use std::time::Duration;

use crate::buffer::{Buffer, Pool, Queue};
use crate::framing::Framing;
use crate::reason::CloseReason;
use crate::wheel::Tick;

/// Time limits in force, in the terms of the options.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Limits {
    pub(crate) packet_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) write_stall_timeout: Duration,
    pub(crate) write_high_water: usize,
    pub(crate) write_low_water: usize,
}

/// What has run out.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    Packet,
    Idle,
    Stall,
    Close,
}

/// Why it ends. The reasons that most connections end for are told here, the others in [`Rare`]: so
/// that many of them can end at once without memory for each.
#[derive(Debug, Copy, Clone)]
enum Ending {
    /// It does not.
    Open,
    Normal,
    PeerClosed,
    Reset,
    Rare,
}

/// What most connections never need, out of line.
#[derive(Debug)]
pub(crate) struct Rare {
    framing: Option<Framing>,
    packet_timeout: Option<Duration>,
    idle_timeout: Option<Option<Duration>>,
    reason: Option<CloseReason>,
    close_at: Tick,
    /// Head of the list of this connection's timers.
    pub(crate) first_timer: u32,
}

impl Default for Rare {
    fn default() -> Self {
        Self {
            framing: None,
            packet_timeout: None,
            idle_timeout: None,
            reason: None,
            close_at: Tick::NEVER,
            first_timer: crate::timers::NONE,
        }
    }
}

/// State flags. One word, looked at once per packet.
pub(crate) mod flag {
    /// The handler paused reading and delivery.
    pub(crate) const PAUSED: u16 = 1 << 0;
    /// Above the high-water mark, and not yet down at the low one.
    pub(crate) const HIGH: u16 = 1 << 1;
    /// The peer sends no more.
    pub(crate) const EOF: u16 = 1 << 2;
    /// The end was decided.
    pub(crate) const CLOSING: u16 = 1 << 3;
    /// The handler is owed an `Info::Drained`.
    pub(crate) const OWES_DRAINED: u16 = 1 << 4;
    /// The framing was changed, or a packet shared, in the callback that just ran.
    pub(crate) const REFRAMED: u16 = 1 << 5;
    /// Bytes that wait may hold whole packets: delivery stopped for another reason.
    pub(crate) const BACKLOG: u16 = 1 << 7;
    /// At least one packet has been delivered.
    pub(crate) const SPOKEN: u16 = 1 << 8;
    /// The packet clock runs or stands still, as opposed to being off.
    pub(crate) const PACKET_CLOCK: u16 = 1 << 9;
    /// The packet clock stands still.
    pub(crate) const PACKET_STOPPED: u16 = 1 << 10;
    /// The idle clock stands still.
    pub(crate) const IDLE_STOPPED: u16 = 1 << 11;
    /// In this batch answers that are packets are copied like all others; see `handler::Echo`.
    pub(crate) const COPIES: u16 = 1 << 12;
    /// The last packet of this batch is not part of the run of packets that are sent back.
    pub(crate) const GAP: u16 = 1 << 13;

    /// These mean something within a batch only.
    pub(crate) const BATCH: u16 = COPIES | GAP;
    /// None of these lets a packet join the run of those that are sent back.
    pub(crate) const NO_RUN: u16 = INTERRUPTS | BATCH;
    /// Any of these ends the tight delivery loop.
    pub(crate) const INTERRUPTS: u16 = PAUSED | HIGH | CLOSING | REFRAMED;
    /// Any of these keeps us from reading and delivering.
    pub(crate) const BLOCKS: u16 = PAUSED | HIGH | CLOSING;
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) flags: u16,
    ending: Ending,
    /// Running: the tick at which the partial packet times out. Standing still: ticks left.
    packet_clock: u64,
    /// Running: the tick of the peer's last byte. Standing still: ticks passed since.
    idle_clock: u64,
    /// Undelivered input. `None` rather than empty.
    pub(crate) input: Option<Box<Buffer>>,
    /// Unsent output. `None` rather than empty.
    pub(crate) output: Option<Box<Queue>>,
    rare: Option<Box<Rare>>,
}

impl Connection {
    pub(crate) fn new(now: Tick) -> Self {
        Self {
            flags: 0,
            ending: Ending::Open,
            packet_clock: 0,
            idle_clock: now.0,
            input: None,
            output: None,
            rare: None,
        }
    }

    pub(crate) fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Head of the list of this connection's timers, if it ever had any.
    pub(crate) fn first_timer(&mut self) -> Option<&mut u32> {
        self.rare.as_mut().map(|rare| &mut rare.first_timer)
    }

    /// Whether it owes and awaits nothing and has no clock but, maybe, the idle one: the state that
    /// most connections are in most of the time.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.flags & !flag::SPOKEN == 0
            && self.input.is_none()
            && self.output.is_none()
            && self.rare.is_none()
    }

    // ---- in ----

    /// Bytes arrived: the peer is not idle.
    pub(crate) fn heard(&mut self, now: Tick) {
        if self.has(flag::IDLE_STOPPED) {
            self.idle_clock = 0;
        } else {
            self.idle_clock = now.0;
        }
    }

    /// At least one packet was delivered; a packet clock that ran was that packet's.
    pub(crate) fn delivered(&mut self) {
        self.flags |= flag::SPOKEN;
        self.flags &= !(flag::PACKET_CLOCK | flag::PACKET_STOPPED);
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
        self.flags &= !(flag::PACKET_CLOCK | flag::PACKET_STOPPED);
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
        self.rare.as_ref()?.framing.as_ref()
    }

    /// Counts from the first byte not yet delivered, and starts the packet clock anew.
    pub(crate) fn set_framing(&mut self, framing: Framing) {
        self.rare().framing = Some(framing);
        self.flags |= flag::REFRAMED | flag::BACKLOG;
        self.flags &= !(flag::PACKET_CLOCK | flag::PACKET_STOPPED);
        if let Some(input) = &mut self.input {
            (input.scanned, input.need) = (0, Some(0));
        }
    }

    pub(crate) fn set_packet_timeout(&mut self, timeout: Duration) {
        self.rare().packet_timeout = Some(timeout);
    }

    pub(crate) fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.rare().idle_timeout = Some(timeout);
    }

    fn packet_timeout(&self, limits: &Limits) -> Duration {
        self.rare.as_ref().and_then(|rare| rare.packet_timeout).unwrap_or(limits.packet_timeout)
    }

    fn idle_timeout(&self, limits: &Limits) -> Option<Duration> {
        self.rare.as_ref().and_then(|rare| rare.idle_timeout).unwrap_or(limits.idle_timeout)
    }

    // ---- out ----

    /// Bytes of output that the kernel has refused so far.
    pub(crate) fn queued(&self) -> usize {
        self.output.as_ref().map_or(0, |queue| queue.len())
    }

    /// The queue, made if there is none; its stall clock then starts at `now`.
    pub(crate) fn queue(&mut self, now: Tick, pool: &mut Pool) -> &mut Queue {
        self.output.get_or_insert_with(|| {
            let mut queue = pool.take_queue();
            queue.progress = now;
            queue
        })
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
        if queued > limits.write_high_water && !self.has(flag::HIGH) {
            self.flags |= flag::HIGH | flag::OWES_DRAINED;
            return true;
        }
        if queued <= limits.write_low_water && self.has(flag::HIGH) {
            self.flags &= !flag::HIGH;
        }
        false
    }

    /// Whether `Info::Drained` is to be delivered now; it is owed no longer then.
    pub(crate) fn take_drained(&mut self, limits: &Limits) -> bool {
        let now = self.has(flag::OWES_DRAINED)
            && !self.has(flag::HIGH | flag::CLOSING)
            && self.queued() <= limits.write_low_water;
        if now {
            self.flags &= !flag::OWES_DRAINED;
        }
        now
    }

    // ---- the end ----

    /// Decides the end. The first reason wins.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        if self.has(flag::CLOSING) {
            return;
        }
        self.flags |= flag::CLOSING;
        self.ending = match reason {
            CloseReason::Normal => Ending::Normal,
            CloseReason::PeerClosed => Ending::PeerClosed,
            CloseReason::Reset => Ending::Reset,
            other => {
                self.rare().reason = Some(other);
                Ending::Rare
            }
        };
    }

    pub(crate) fn reason(&self) -> Option<CloseReason> {
        match self.ending {
            Ending::Open => None,
            Ending::Normal => Some(CloseReason::Normal),
            Ending::PeerClosed => Some(CloseReason::PeerClosed),
            Ending::Reset => Some(CloseReason::Reset),
            Ending::Rare => self.rare.as_ref()?.reason,
        }
    }

    /// Sets the moment at which the present stage of closing is cut short.
    pub(crate) fn close_by(&mut self, at: Tick) {
        self.rare().close_at = at;
    }

    pub(crate) fn is_close_armed(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.close_at != Tick::NEVER)
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

    // ---- time ----

    /// Starts, stops and restarts the clocks after something happened at `now`.
    pub(crate) fn settle(&mut self, now: Tick, limits: &Limits) {
        let blocked = self.has(flag::BLOCKS);
        if self.input.is_none() {
            self.flags &= !(flag::PACKET_CLOCK | flag::PACKET_STOPPED);
        } else if !self.has(flag::PACKET_CLOCK) && !self.has(flag::BACKLOG) {
            self.flags |= flag::PACKET_CLOCK;
            self.packet_clock = now.after(self.packet_timeout(limits)).0;
        }
        if self.has(flag::PACKET_CLOCK) && blocked != self.has(flag::PACKET_STOPPED) {
            self.flags ^= flag::PACKET_STOPPED;
            self.packet_clock = swap_packet_clock(self.packet_clock, now, blocked);
        }
        let silent = blocked || self.output.is_some();
        if silent != self.has(flag::IDLE_STOPPED) {
            self.flags ^= flag::IDLE_STOPPED;
            self.idle_clock = now.0.saturating_sub(self.idle_clock);
        }
    }

    /// When the driver has to come back, if nothing happens before.
    pub(crate) fn deadline(&self, limits: &Limits) -> Tick {
        if self.has(flag::CLOSING) {
            return self.rare.as_ref().map_or(Tick::NEVER, |rare| rare.close_at);
        }
        self.packet_deadline().min(self.idle_deadline(limits)).min(self.stall_deadline(limits))
    }

    /// What has run out at `now`, the packet clock first.
    pub(crate) fn due(&self, now: Tick, limits: &Limits) -> Option<Due> {
        if self.has(flag::CLOSING) {
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

    fn packet_deadline(&self) -> Tick {
        let runs = self.flags & (flag::PACKET_CLOCK | flag::PACKET_STOPPED) == flag::PACKET_CLOCK;
        if runs { Tick(self.packet_clock) } else { Tick::NEVER }
    }

    fn idle_deadline(&self, limits: &Limits) -> Tick {
        match self.idle_timeout(limits) {
            Some(timeout) if !self.has(flag::IDLE_STOPPED) => Tick(self.idle_clock).after(timeout),
            _ => Tick::NEVER,
        }
    }

    fn stall_deadline(&self, limits: &Limits) -> Tick {
        match &self.output {
            Some(queue) => queue.progress.after(limits.write_stall_timeout),
            None => Tick::NEVER,
        }
    }

    /// What must hold between any two calls.
    pub(crate) fn invariants(&self) {
        debug_assert!(self.input.as_ref().is_none_or(|input| !input.is_empty()));
        debug_assert!(self.output.as_ref().is_none_or(|queue| !queue.is_empty()));
        debug_assert_eq!(self.has(flag::CLOSING), self.reason().is_some());
        debug_assert!(!self.has(flag::PACKET_STOPPED) || self.has(flag::PACKET_CLOCK));
    }
}

/// A deadline becomes what is left until it when the clock `stops`, and the other way round.
/// "Never" stays never.
fn swap_packet_clock(clock: u64, now: Tick, stops: bool) -> u64 {
    match (clock, stops) {
        (u64::MAX, _) => u64::MAX,
        (deadline, true) => deadline.saturating_sub(now.0),
        (left, false) => now.0.saturating_add(left),
    }
}
