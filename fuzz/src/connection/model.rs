//! A simple model of a connection, written without regard to speed.
//!
//! The model reads all input, decodes it naively, and runs the same programs as the handler. It
//! compares each callback that it predicts with the front of the trace, and removes it there. If two
//! timers are due at the same moment, the model takes their order from the trace. It takes nothing
//! else from there.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;

use condor::CloseReason;

use super::program::{Answer, Kind, LINE_MAX, Step, filling, program};
use super::{Config, Seen, Trace};

/// Nanoseconds in a millisecond, which is a tick.
pub(crate) const MILLI: u64 = 1_000_000;
/// The default of `max_timers`.
const MAX_TIMERS: usize = 1_024;
/// Framed output of this length is written before the next packet is delivered.
const FLUSH_AT: usize = 256 * 1024;

/// The clock of an incomplete packet, or of an expected one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum PacketClock {
    Off,
    DueAt(u64),
    /// The clock stands still, with this many ticks left.
    Left(u64),
}

/// The state of the output half.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Output {
    Running,
    /// The handler has ended its output, and the queue has not left yet.
    Ending,
    Ended,
}

/// Whether the event of the second connection comes first or last in the batch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    First,
    Last,
}

/// A message that waits to be delivered.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    /// The second connection gets it next.
    is_broadcast: bool,
}

/// The idle clock.
#[derive(Copy, Clone, Debug)]
enum IdleClock {
    Since(u64),
    /// The clock stands still, after this many ticks.
    Passed(u64),
}

/// What the input begins with.
enum Cut {
    Packet { payload: Vec<u8>, consumed: usize },
    Partial { want: Option<usize> },
    Refused(CloseReason),
}

#[derive(Debug)]
pub(crate) struct Model {
    config: Config,
    trace: Trace,
    /// In nanoseconds.
    pub(crate) now: u64,
    kind: Kind,
    /// The framing was changed or shared bytes were sent. If much output is queued, it is offered to
    /// the kernel before the next packet.
    restart_batch: bool,
    // ---- in ----
    /// Bytes in the kernel, not read yet.
    kernel: Vec<u8>,
    /// How the next reads fail.
    pub(crate) read_faults: VecDeque<ErrorKind>,
    /// Bytes that were read and not delivered yet.
    input: Vec<u8>,
    /// The input may hold whole packets.
    backlog: bool,
    pub(crate) read_most: usize,
    /// What an event announced: something to read, something besides bytes, an error.
    readable: bool,
    hint: bool,
    error: bool,
    /// The peer sends no more; the reactor has read the end.
    ended: bool,
    eof: bool,
    /// The handler knows of the end, and only output is left.
    told: bool,
    /// The peer has reset the connection; no call has returned the error yet.
    dead: bool,
    reset_pending: bool,
    // ---- out ----
    /// All bytes that were framed.
    promised: Vec<u8>,
    /// How many of them the peer has received, and how many are in the queue.
    written: usize,
    queue: usize,
    pub(crate) window: usize,
    /// How many of the next writes are refused although there is space.
    pub(crate) refusals: usize,
    writable: bool,
    starved: bool,
    /// Events on their way.
    read_event: bool,
    write_event: bool,
    // ---- state ----
    paused: bool,
    above: bool,
    owes_drained: bool,
    /// The connection is in the run queue. It stays there until the next turn, even if no work is
    /// left by then.
    queued: bool,
    closing: Option<CloseReason>,
    output: Output,
    /// The end of the output was sent to the peer.
    pub(crate) finished: bool,
    broken: bool,
    close_due: bool,
    terminated: bool,
    /// Only the slot is left to free.
    over: bool,
    pub(crate) gone: bool,
    pub(crate) draining: bool,
    owes_shutdown: bool,
    mailbox: Vec<Pending>,
    /// The packet that the second connection gets in the next turn.
    pub(crate) other: Option<(Order, Vec<u8>)>,
    // ---- time, in ticks ----
    packet_timeout: u64,
    idle_timeout: Option<u64>,
    silence_timeout: Option<u64>,
    packet_clock: PacketClock,
    expected: PacketClock,
    idle_clock: IdleClock,
    /// When the peer was heard last, if its silence counts.
    heard: u64,
    progress: u64,
    /// When the queue was last offered although no space was announced, or when it began.
    offered: u64,
    /// When the kernel last took output of a half-closed connection.
    answered: u64,
    close_at: Option<u64>,
    drain_at: Option<u64>,
    /// In the order in which they were armed.
    timers: BTreeMap<usize, (u64, Vec<u8>)>,
    armed: usize,
}

impl Model {
    pub(crate) fn new(config: Config, trace: Trace) -> Self {
        Self {
            trace,
            now: 0,
            kind: Kind::U16,
            restart_batch: false,
            kernel: Vec::new(),
            read_faults: VecDeque::new(),
            input: Vec::new(),
            backlog: false,
            read_most: usize::MAX,
            readable: false,
            hint: false,
            error: false,
            ended: false,
            eof: false,
            told: false,
            dead: false,
            reset_pending: false,
            promised: Vec::new(),
            written: 0,
            queue: 0,
            window: usize::MAX,
            refusals: 0,
            writable: true,
            starved: false,
            read_event: false,
            write_event: false,
            paused: false,
            above: false,
            owes_drained: false,
            queued: false,
            closing: None,
            output: Output::Running,
            finished: false,
            broken: false,
            close_due: false,
            terminated: false,
            over: false,
            gone: false,
            draining: false,
            owes_shutdown: false,
            mailbox: Vec::new(),
            other: None,
            packet_timeout: config.packet_timeout,
            idle_timeout: config.idle_timeout,
            silence_timeout: config.silence_timeout,
            packet_clock: PacketClock::Off,
            expected: config.first_packet_timeout.map_or(PacketClock::Off, PacketClock::DueAt),
            idle_clock: IdleClock::Since(0),
            heard: 0,
            progress: 0,
            offered: 0,
            answered: 0,
            close_at: None,
            drain_at: None,
            timers: BTreeMap::new(),
            armed: 0,
            config,
        }
    }

    // ---- what happens to it ----

    pub(crate) fn arrive(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && !self.ended {
            self.kernel.extend(bytes);
            self.read_event = true;
        }
    }

    pub(crate) fn eof(&mut self) {
        self.ended = true;
        self.read_event = true;
        self.hint |= !self.gone;
    }

    pub(crate) fn reset(&mut self) {
        self.reset_pending |= !self.dead;
        (self.ended, self.dead) = (true, true);
        self.disturb();
    }

    /// An event that announces everything.
    pub(crate) fn disturb(&mut self) {
        (self.read_event, self.write_event, self.hint, self.error) = (true, true, true, true);
    }

    pub(crate) fn open_window(&mut self, bytes: usize) {
        self.window = self.window.saturating_add(bytes);
        if self.starved && bytes > 0 {
            self.starved = false;
            self.write_event = true;
        }
    }

    /// The handler is made. A new connection is writable, and its first event announces this.
    pub(crate) fn init(&mut self, bytes: &[u8]) {
        self.call(|model| model.obey(bytes));
        self.write_event = true;
    }

    pub(crate) fn message(&mut self, bytes: Vec<u8>) {
        self.mailbox.push(Pending { bytes, is_broadcast: false });
    }

    pub(crate) fn broadcast(&mut self, bytes: Vec<u8>) {
        self.mailbox.push(Pending { bytes, is_broadcast: true });
    }

    pub(crate) fn drain(&mut self) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.drain_at = Some(self.tick() + self.config.drain_timeout);
        if !self.terminated && self.closing.is_none() {
            (self.owes_shutdown, self.readable) = (true, true);
        }
    }

    /// The frame that the peer sends for `payload`. A length that does not fit is truncated.
    pub(crate) fn framed_by_peer(&self, payload: &[u8]) -> Vec<u8> {
        let width = match self.kind {
            Kind::U8 => 1,
            Kind::U16 | Kind::Mixed | Kind::Epmd => 2,
            Kind::U32 => 4,
            Kind::Lines | Kind::Raw => 0,
        };
        let head = prefix(payload.len(), width);
        let tail: &[u8] = if self.kind == Kind::Lines { b"\r\n" } else { b"" };
        [&head[..], payload, tail].concat()
    }

    // ---- what is compared ----

    pub(crate) fn queued(&self) -> usize {
        self.queue
    }

    pub(crate) fn end(&self) -> Option<CloseReason> {
        self.closing.filter(|_| self.terminated)
    }

    pub(crate) fn compare_output(&self, got: &[u8]) {
        assert_eq!(got.len(), self.written, "bytes that the peer has received");
        assert!(self.promised.starts_with(got), "wrong bytes");
    }

    pub(crate) fn compare_trace(&self) {
        let trace = self.trace.borrow();
        assert_eq!(trace.front(), None, "not predicted at {} ns", self.now);
    }

    /// Removes the front of the trace, which has to be `seen`.
    fn expect(&self, seen: Seen) {
        let mut trace = self.trace.borrow_mut();
        if let (Some(Seen::Raw(bytes)), Seen::Raw(mine)) = (trace.front_mut(), &seen) {
            assert!(bytes.starts_with(mine), "other bytes");
            bytes.drain(..mine.len());
            if bytes.is_empty() {
                trace.pop_front();
            }
        } else {
            let front = trace.pop_front();
            let then: Vec<_> = trace.iter().take(4).collect();
            assert_eq!(front, Some(seen), "at {} ns; then {then:?}", self.now);
        }
    }

    /// The next moment at which something is due, in nanoseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let timers = self.timers.values().map(|(at, _)| *at);
        timers.chain(self.deadline()).chain(self.drain_at).min().map(|tick| tick * MILLI)
    }

    // ---- a turn ----

    /// Makes turns until nothing is left to do without waiting.
    pub(crate) fn run(&mut self) {
        for _ in 0..100_000 {
            let busy = !self.gone
                && (self.read_event
                    || self.write_event
                    || self.queued
                    || self.wants_work()
                    || self.closing.is_some() && !self.terminated && self.queue == 0)
                || !self.mailbox.is_empty()
                || self.other.is_some()
                || self.next_deadline().is_some_and(|next| next <= self.now);
            if !busy {
                return;
            }
            self.turn();
        }
        panic!("the model never becomes idle");
    }

    fn turn(&mut self) {
        self.readable |= std::mem::take(&mut self.read_event);
        self.writable |= std::mem::take(&mut self.write_event) && !self.broken;
        let stuck = self.closing.is_some() && self.readable;
        let wanted = std::mem::take(&mut self.queued) || self.wants_work();
        self.deliver_to_other(Order::First);
        if !self.gone && (wanted || self.writable && self.queue > 0 || stuck) {
            self.work();
            self.conclude();
        }
        self.deliver_to_other(Order::Last);
        let mut mailbox = std::mem::take(&mut self.mailbox).into_iter();
        while let Some(Pending { bytes, is_broadcast }) = mailbox.next() {
            if self.closing.is_none() {
                self.deliver_message(bytes.clone());
                // The output is written only after the last message.
                if mailbox.len() == 0 {
                    self.write_out()
                } else {
                    self.enqueue()
                }
                self.settle();
                self.conclude();
            }
            if is_broadcast {
                self.expect(Seen::Other(bytes));
            }
        }
        self.expire();
        if !self.gone && self.writable && self.queue > 0 {
            self.flush();
            self.settle();
            self.conclude();
        }
        self.sweep();
    }

    /// The second connection gets its packet, at its place in the order of events.
    fn deliver_to_other(&mut self, now: Order) {
        if let Some((_, bytes)) = self.other.take_if(|(order, _)| *order == now) {
            self.expect(Seen::Other(bytes));
        }
    }

    fn blocked(&self) -> bool {
        self.paused || self.above || self.closing.is_some()
    }

    fn wants_work(&self) -> bool {
        if self.terminated {
            return self.readable && !self.gone;
        }
        let unread = self.readable || self.backlog || self.eof && !self.told;
        let owes_shutdown = self.owes_shutdown && self.may_announce_shutdown();
        let drained = self.owes_drained && self.queue == 0;
        (unread || owes_shutdown) && !self.blocked()
            || drained && self.closing.is_none()
            || self.error
    }

    fn may_announce_shutdown(&self) -> bool {
        !self.readable && !self.blocked() && self.input.is_empty()
    }

    fn work(&mut self) {
        if self.eof {
            (self.readable, self.hint) = (false, false);
        }
        self.flush();
        if self.closing.is_some() {
            return self.discard();
        }
        if self.owes_drained && !self.above && self.queue <= self.config.low {
            self.owes_drained = false;
            self.call_info(Seen::Drained);
        }
        let mut budget = self.config.packet_budget;
        if self.backlog && !self.blocked() {
            self.consume(&mut budget);
        }
        self.read(&mut budget);
        // The announced error stays until all bytes that had arrived were read.
        let unread = !self.blocked() && (self.readable || self.backlog);
        let is_read = !self.blocked() && !self.eof;
        if !unread && std::mem::take(&mut self.error) && !is_read && self.reset_pending {
            self.reset_pending = false;
            self.fail(CloseReason::Reset);
        }
        if self.eof && !self.told {
            self.write_out();
            if !self.backlog && !self.blocked() {
                self.end_input();
            }
        }
        if self.owes_shutdown && self.may_announce_shutdown() {
            self.owes_shutdown = false;
            self.call_info(Seen::Shutdown);
            if !self.config.stubborn {
                self.close(CloseReason::Shutdown);
            }
        }
        self.write_out();
        self.settle();
    }

    /// The end of the input ends the connection, or the handler is told of it.
    fn end_input(&mut self) {
        match (self.input.len(), self.cut()) {
            (0, _) if self.output != Output::Running => self.close(CloseReason::PeerClosed),
            (0, _) => {
                (self.told, self.answered) = (true, self.tick());
                self.packet_clock = PacketClock::Off;
                self.call_info(Seen::EndOfInput);
                if !self.config.owing {
                    self.close(CloseReason::PeerClosed);
                }
            }
            (have, Cut::Partial { want }) => {
                self.close(CloseReason::PeerClosedMidPacket { have, want });
            }
            _ => panic!("a packet was not delivered"),
        }
    }

    // ---- in ----

    fn read(&mut self, budget: &mut u32) {
        while self.readable && !self.blocked() && !self.backlog && !self.eof {
            if self.read_fails() {
                continue;
            }
            let count = self.kernel.len().min(self.read_most);
            if count == 0 {
                (self.readable, self.hint) = (false, false);
                if std::mem::take(&mut self.reset_pending) {
                    self.fail(CloseReason::Reset);
                } else {
                    self.eof = self.ended;
                }
                return;
            }
            match &mut self.idle_clock {
                IdleClock::Since(at) => *at = self.now.div_ceil(MILLI),
                IdleClock::Passed(ticks) => *ticks = 0,
            }
            self.heard = self.tick();
            self.input.extend(self.kernel.drain(..count));
            self.read_event |= !self.kernel.is_empty();
            self.readable = self.hint;
            self.consume(budget);
        }
    }

    /// Whether this read fails. After a refusal an event comes in the next turn. A reset loses the
    /// bytes that had arrived.
    fn read_fails(&mut self) -> bool {
        let fault = self.read_faults.pop_front();
        match fault {
            Some(ErrorKind::WouldBlock) => {
                (self.readable, self.hint) = (false, self.ended);
                self.read_event = true;
            }
            Some(ErrorKind::ConnectionReset) => {
                (self.ended, self.dead) = (true, true);
                self.kernel.clear();
                self.fail(CloseReason::Reset);
            }
            _ => {}
        }
        fault.is_some()
    }

    /// Delivers packets until none is left or there is a reason to stop.
    fn consume(&mut self, budget: &mut u32) {
        self.backlog = false;
        loop {
            if *budget == 0 {
                break;
            }
            match self.cut() {
                Cut::Partial { .. } => {
                    self.restart_batch = false;
                    return;
                }
                Cut::Refused(reason) => {
                    self.close(reason);
                    break;
                }
                Cut::Packet { payload, consumed } => {
                    *budget -= 1;
                    self.input.drain(..consumed);
                    (self.packet_clock, self.expected) = (PacketClock::Off, PacketClock::Off);
                    if self.kind == Kind::Raw {
                        self.expect(Seen::Raw(payload));
                    } else {
                        self.expect(Seen::Packet(payload.clone()));
                        self.obey(&payload);
                    }
                    if self.blocked() {
                        break;
                    }
                    let fresh = self.promised.len() - self.written - self.queue;
                    let due = match std::mem::take(&mut self.restart_batch) {
                        true => self.queue >= self.due_from() && self.queue > 0,
                        false => fresh >= FLUSH_AT,
                    };
                    if due {
                        self.write_out();
                        if self.blocked() {
                            break;
                        }
                    }
                    self.backlog = false;
                }
            }
        }
        self.backlog = !self.input.is_empty();
        self.restart_batch = false;
    }

    fn cut(&self) -> Cut {
        let input = &self.input;
        let (width, most) = match self.kind {
            Kind::U8 => (1, 255),
            Kind::U16 | Kind::Mixed | Kind::Epmd => (2, 65_535),
            Kind::U32 => (4, usize::MAX),
            Kind::Raw if input.is_empty() => return Cut::Partial { want: None },
            Kind::Raw => return Cut::Packet { payload: input.clone(), consumed: input.len() },
            Kind::Lines => return self.cut_line(),
        };
        if input.len() < width {
            return Cut::Partial { want: None };
        }
        let announced = input[..width].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (max, end) = (self.config.max_packet.min(most), width + announced);
        if announced > max {
            Cut::Refused(CloseReason::PacketTooLarge { announced, max })
        } else if input.len() < end {
            Cut::Partial { want: Some(end) }
        } else {
            Cut::Packet { payload: input[width..end].to_vec(), consumed: end }
        }
    }

    fn cut_line(&self) -> Cut {
        let end = self.input.iter().position(|byte| *byte == b'\n');
        let line = &self.input[..end.unwrap_or(self.input.len())];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE_MAX {
            let (announced, max) = (LINE_MAX + 1, LINE_MAX);
            return Cut::Refused(CloseReason::PacketTooLarge { announced, max });
        }
        match end {
            Some(end) => Cut::Packet { payload: line.to_vec(), consumed: end + 1 },
            None => Cut::Partial { want: None },
        }
    }

    /// Reads and drops the input of a connection that ends.
    fn discard(&mut self) {
        if std::mem::take(&mut self.error) && std::mem::take(&mut self.reset_pending) {
            self.broken = true;
        }
        while self.readable && self.read_fails() {}
        if std::mem::take(&mut self.readable) {
            self.kernel.clear();
            self.broken |= std::mem::take(&mut self.reset_pending);
            self.eof |= self.ended && !self.broken;
        }
    }

    // ---- the handler ----

    /// A callback that does not come from a read.
    fn call(&mut self, call: impl FnOnce(&mut Self)) {
        if self.closing.is_none() {
            call(self);
            self.enqueue();
            self.settle();
            self.conclude();
        }
    }

    /// A callback that is neither a packet nor a message.
    fn call_info(&mut self, seen: Seen) {
        self.expect(seen);
        if self.config.parting {
            self.end_output();
        }
    }

    fn end_output(&mut self) {
        if self.output == Output::Running {
            self.output = Output::Ending;
        }
    }

    fn deliver_message(&mut self, bytes: Vec<u8>) {
        self.expect(Seen::Message(bytes.clone()));
        self.obey(&bytes);
    }

    fn obey(&mut self, bytes: &[u8]) {
        let (steps, answer) = program(bytes);
        for step in steps {
            self.apply(step, bytes);
        }
        let answered = match answer {
            Answer::Continue => Ok(()),
            Answer::Echo => self.send(bytes, false),
            Answer::Send { len, shared } => self.send(&filling(len), shared),
            Answer::Stop => Err(CloseReason::Normal),
            Answer::SendAndStop => {
                self.send(b"bye", false).and(Err(CloseReason::Custom("requested")))
            }
            Answer::Panic => Err(CloseReason::Panicked),
        };
        if let Err(reason) = answered {
            self.close(reason);
        }
    }

    fn apply(&mut self, step: Step, bytes: &[u8]) {
        let sent = match step {
            Step::Echo => self.send(bytes, false),
            Step::Send { len, shared } => self.send(&filling(len), shared),
            other => {
                self.change(other);
                Ok(())
            }
        };
        if let Err(reason) = sent {
            self.expect(Seen::Refused(match reason {
                CloseReason::AnswerTooLarge { .. } => "too large",
                CloseReason::SlowReader => "full",
                CloseReason::Normal => "closing",
                _ => "bad frame",
            }));
        }
    }

    fn change(&mut self, step: Step) {
        match step {
            Step::Pause => self.paused = true,
            Step::Resume => self.paused = false,
            Step::Reframe(kind) => {
                self.kind = kind;
                self.restart_batch = true;
                self.packet_clock = PacketClock::Off;
                self.backlog = true;
            }
            // Refused at the maximum of timers.
            Step::After(..) if self.timers.len() == MAX_TIMERS => {}
            Step::After(delay, message) => {
                self.timers.insert(self.armed, (self.tick() + delay, message));
                self.armed += 1;
            }
            Step::Cancel(nth) => {
                if let Some(at) = nth.checked_rem(self.armed) {
                    let armed = self.timers.remove(&at).is_some();
                    self.expect(Seen::Cancelled(armed));
                }
            }
            Step::PacketTimeout(millis) => self.packet_timeout = millis,
            Step::IdleTimeout(millis) => self.idle_timeout = millis,
            Step::EndOutput => self.end_output(),
            Step::ExpectWithin(millis) => {
                self.expected = PacketClock::DueAt(self.tick() + millis);
                self.restart_batch = true;
            }
            Step::ExpectNothing => self.expected = PacketClock::Off,
            Step::SilenceTimeout(millis) => {
                if self.silence_timeout.is_none() {
                    self.heard = self.tick();
                }
                self.silence_timeout = millis;
            }
            Step::Echo | Step::Send { .. } => unreachable!("done by the caller"),
        }
    }

    /// Frames an answer. The error is the reason with which the connection would end.
    fn send(&mut self, payload: &[u8], shared: bool) -> Result<(), CloseReason> {
        if self.output != Output::Running {
            return Err(CloseReason::Normal);
        }
        let len = payload.len();
        let room = self.config.max_queued - (self.promised.len() - self.written);
        let (width, most) = match self.kind {
            Kind::U8 | Kind::Mixed => (1, 255.min(self.config.max_packet)),
            Kind::U16 => (2, 65_535.min(self.config.max_packet)),
            Kind::U32 => (4, self.config.max_packet),
            Kind::Lines => (1, LINE_MAX),
            Kind::Raw | Kind::Epmd => (0, usize::MAX),
        };
        let line = self.kind == Kind::Lines;
        let counted = if line && payload.ends_with(b"\r") { len - 1 } else { len };
        if counted > most {
            return Err(CloseReason::AnswerTooLarge { len: counted, max: most });
        } else if line && payload.contains(&b'\n') {
            return Err(CloseReason::BadFrame("a line cannot contain a line feed"));
        } else if len + width > self.config.max_queued {
            let max = self.config.max_queued - width;
            return Err(CloseReason::AnswerTooLarge { len, max });
        } else if len + width > room {
            self.owes_drained = true;
            return Err(CloseReason::SlowReader);
        }
        if !line {
            self.promised.extend(prefix(len, width));
        }
        self.promised.extend(payload);
        if line {
            self.promised.push(b'\n');
        }
        if shared && len >= 32 * 1024 && !line {
            // Shared bytes are not copied. They go to the queue at once, after all earlier output.
            if self.queue == 0 {
                self.begin_queue();
            }
            self.queue = self.promised.len() - self.written;
            self.restart_batch = true;
        }
        Ok(())
    }

    // ---- out ----

    fn write_out(&mut self) {
        let fresh = self.promised.len() - self.written - self.queue;
        if fresh > 0 && self.queue == 0 && self.writable {
            self.write(fresh);
        }
        if self.promised.len() > self.written + self.queue {
            self.enqueue();
        }
        self.flush();
    }

    /// The output of a batch is offered to the kernel at 256 KiB, and earlier if the queue has no
    /// space for 256 KiB more.
    fn due_from(&self) -> usize {
        FLUSH_AT.min(self.config.max_queued.saturating_sub(FLUSH_AT))
    }

    fn enqueue(&mut self) {
        let waiting = self.promised.len() - self.written;
        if self.queue == 0 && waiting > 0 {
            self.begin_queue();
        }
        self.queue = waiting;
        self.watch_water();
    }

    fn begin_queue(&mut self) {
        (self.progress, self.offered) = (self.tick(), self.tick());
    }

    /// Offers the queue although no space was announced.
    fn offer(&mut self) {
        (self.offered, self.writable) = (self.tick(), true);
        self.flush();
        self.settle();
    }

    fn flush(&mut self) {
        while self.queue > 0 && self.writable {
            let taken = self.write(self.queue);
            // A broken connection has dropped its queue.
            self.queue = self.queue.saturating_sub(taken);
            if taken > 0 {
                self.progress = self.tick();
            }
        }
        self.watch_water();
    }

    /// Offers `count` bytes to the kernel, until it refuses. Returns how many it took.
    fn write(&mut self, count: usize) -> usize {
        let mut taken = 0;
        while taken < count {
            if self.refusals > 0 {
                self.refusals -= 1;
                (self.writable, self.write_event) = (false, true);
                break;
            }
            if self.dead {
                let first = std::mem::take(&mut self.reset_pending);
                let (reset, pipe) = (ErrorKind::ConnectionReset, ErrorKind::BrokenPipe);
                let kind = if first { reset } else { pipe };
                self.fail(if self.told { CloseReason::Reset } else { CloseReason::Io(kind) });
                break;
            }
            let some = (count - taken).min(self.window);
            self.starved = some < count - taken;
            if some == 0 {
                self.writable = false;
                break;
            }
            if self.window != usize::MAX {
                self.window -= some;
            }
            taken += some;
        }
        self.written += taken;
        if taken > 0 {
            self.answered = self.tick();
        }
        taken
    }

    fn watch_water(&mut self) {
        if self.queue > self.config.high && !self.above {
            (self.above, self.owes_drained) = (true, true);
        } else if self.queue <= self.config.low {
            self.above = false;
        }
    }

    // ---- time ----

    /// The current time in ticks, rounded up. Deadlines count from here.
    fn tick(&self) -> u64 {
        self.now.div_ceil(MILLI)
    }

    fn settle(&mut self) {
        if self.output == Output::Ending && self.closing.is_none() && self.queue == 0 {
            if self.told {
                self.close(CloseReason::PeerClosed);
            } else if std::mem::take(&mut self.reset_pending) {
                self.fail(CloseReason::Reset);
            } else if self.dead {
                self.fail(CloseReason::Io(ErrorKind::NotConnected));
            } else {
                (self.output, self.finished) = (Output::Ended, true);
            }
        }
        self.queued |= self.wants_work();
        let (now, blocked) = (self.tick(), self.blocked());
        if self.input.is_empty() {
            self.packet_clock = PacketClock::Off;
        } else if self.packet_clock == PacketClock::Off && !self.backlog {
            self.packet_clock = PacketClock::DueAt(now + self.packet_timeout);
        }
        for clock in [&mut self.packet_clock, &mut self.expected] {
            *clock = match (*clock, blocked) {
                (PacketClock::DueAt(at), true) => PacketClock::Left(at.saturating_sub(now)),
                (PacketClock::Left(ticks), false) => PacketClock::DueAt(now + ticks),
                (clock, _) => clock,
            };
        }
        self.idle_clock = match (self.idle_clock, blocked || self.queue > 0) {
            (IdleClock::Since(at), true) => IdleClock::Passed(now.saturating_sub(at)),
            (IdleClock::Passed(ticks), false) => IdleClock::Since(now.saturating_sub(ticks)),
            (clock, _) => clock,
        };
    }

    /// The next deadline of the connection's own clocks, in ticks.
    fn deadline(&self) -> Option<u64> {
        if self.gone {
            return None;
        }
        if self.closing.is_some() {
            return self.close_at;
        }
        if self.told {
            let half = self.half_close_deadline();
            return half
                .into_iter()
                .chain(self.stall_deadline())
                .chain(self.offer_deadline())
                .min();
        }
        let [packet, expected] = [self.packet_clock, self.expected].map(|clock| match clock {
            PacketClock::DueAt(at) => Some(at),
            _ => None,
        });
        let silence =
            self.silence_timeout.filter(|_| !self.eof).map(|timeout| self.heard + timeout);
        let of_the_peer = [packet, expected, silence, self.idle_deadline()];
        let of_output = [self.stall_deadline(), self.offer_deadline()];
        of_the_peer.into_iter().chain(of_output).flatten().min()
    }

    fn idle_deadline(&self) -> Option<u64> {
        match self.idle_clock {
            IdleClock::Since(at) => self.idle_timeout.map(|timeout| at + timeout),
            IdleClock::Passed(_) => None,
        }
    }

    fn half_close_deadline(&self) -> Option<u64> {
        self.told.then_some(self.answered + self.config.half_close_timeout)
    }

    fn offer_deadline(&self) -> Option<u64> {
        let next = self.offered.max(self.progress) + self.config.stall_timeout.div_ceil(4);
        (self.queue > 0).then_some(next.max(self.offered + 1))
    }

    fn stall_deadline(&self) -> Option<u64> {
        (self.queue > 0).then_some(self.progress + self.config.stall_timeout)
    }

    fn expire(&mut self) {
        let judged = self.now / MILLI;
        loop {
            let due = |at: u64| at <= judged;
            let trace = self.trace.borrow().front().cloned();
            let timers = self.timers.iter().filter(|(_, (at, _))| due(*at));
            let seen = timers.clone().find(|(_, (_, message))| match &trace {
                Some(Seen::Message(bytes)) => bytes == message,
                _ => false,
            });
            let (seen, first) = (seen.map(|(id, _)| *id), timers.map(|(id, _)| *id).next());
            // Timers of the same tick fire in the order in which they were last armed.
            let own = match &trace {
                Some(Seen::Timeout(_)) => true,
                Some(Seen::End(reason)) => *reason != CloseReason::DrainForced,
                _ => false,
            };
            let own = own && self.deadline().is_some_and(due);
            if let Some(id) = seen {
                self.fire(id);
            } else if own && self.expire_own(judged) {
            } else if self.drain_at.is_some_and(due) {
                self.drain_at = None;
                self.close_due = true;
                self.close(CloseReason::DrainForced);
            } else if self.deadline().is_some_and(due) && self.expire_own(judged) {
            } else if let Some(id) = first {
                self.fire(id);
            } else {
                return;
            }
        }
    }

    fn fire(&mut self, id: usize) {
        if let Some((_, message)) = self.timers.remove(&id) {
            self.call(|model| model.deliver_message(message));
        }
    }

    /// Returns false if the clock has to be judged after the next read.
    fn expire_own(&mut self, judged: u64) -> bool {
        let unread = (self.readable || self.queued || self.backlog) && !self.blocked();
        let told = self.told;
        let is_due = |clock| !told && matches!(clock, PacketClock::DueAt(at) if at <= judged);
        let expected = is_due(self.expected);
        let packet = expected || is_due(self.packet_clock);
        if self.closing.is_some() {
            (self.close_due, self.close_at) = (true, None);
        } else if packet {
            if unread {
                return false;
            }
            let partial = std::mem::take(&mut self.input);
            self.packet_clock = PacketClock::Off;
            if expected {
                self.expected = PacketClock::Off;
            }
            self.call(|model| {
                model.call_info(Seen::Timeout(partial));
                let answered = if model.config.patient {
                    model.send(b"late", false)
                } else {
                    Err(CloseReason::PacketTimeout)
                };
                if let Err(reason) = answered {
                    model.close(reason);
                }
            });
        } else if self.offer_deadline().is_some_and(|at| at <= judged) {
            self.offer();
        } else if self.stall_deadline().is_some_and(|at| at <= judged) {
            self.close(CloseReason::WriteStalled);
        } else if self.told {
            self.offer();
            if self.half_close_deadline().is_some_and(|at| at <= judged) {
                self.close(CloseReason::HalfCloseTimeout);
            }
        } else {
            if unread {
                return false;
            }
            if self.idle_deadline().is_some_and(|at| at <= judged) {
                self.close(CloseReason::IdleTimeout);
            } else if self.readable && (!self.kernel.is_empty() || self.ended) {
                // What it said has not been read: it is not silent.
                self.heard = self.tick();
            } else {
                self.close(CloseReason::SilenceTimeout);
            }
        }
        self.conclude();
        true
    }

    // ---- the end ----

    /// The first reason wins.
    fn close(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
    }

    /// The connection is broken: no byte can pass any more.
    fn fail(&mut self, reason: CloseReason) {
        (self.readable, self.writable, self.hint, self.broken) = (false, false, false, true);
        self.close(reason);
    }

    /// Reports the end where it is found, unless output still waits.
    fn conclude(&mut self) {
        let Some(reason) = self.closing.filter(|_| !self.terminated) else { return };
        let abrupt = matches!(
            reason,
            CloseReason::Reset
                | CloseReason::Io(_)
                | CloseReason::SlowReader
                | CloseReason::WriteStalled
                | CloseReason::SilenceTimeout
                | CloseReason::DrainForced
        );
        let cut_short = self.broken || self.close_due || abrupt;
        if self.queue > 0 && !cut_short {
            return;
        }
        self.timers.clear();
        self.expect(Seen::End(reason));
        self.terminated = true;
        self.input.clear();
        self.promised.truncate(self.written);
        self.queue = 0;
        if cut_short || self.eof || self.dead {
            self.over = true;
        } else {
            self.close_at = Some(self.tick() + self.config.linger_timeout);
            self.finished = true;
            self.readable = true;
        }
    }

    fn sweep(&mut self) {
        if self.closing.is_none() || self.gone {
            return;
        }
        self.conclude();
        if !self.terminated {
            let by = self.tick() + self.config.close_timeout;
            self.close_at.get_or_insert(by);
        } else if self.over || self.broken || self.close_due || self.eof {
            (self.gone, self.finished) = (true, true);
            if self.draining {
                self.drain_at = None;
            }
        }
    }
}

/// The last `width` bytes of a length.
fn prefix(len: usize, width: usize) -> Vec<u8> {
    len.to_be_bytes()[size_of::<usize>() - width..].to_vec()
}
