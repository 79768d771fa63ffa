//! Fuzz body for a connection. A model predicts every callback, every byte of output, and the
//! nanosecond of both, for all that peer, network, time and handler can do.
//!
//! The first bytes choose the options, the rest are operations. Packets and messages are programs
//! for the handler (see `program.rs`). The model (`model.rs`) runs the same programs. A second
//! connection of the same listener checks the order of callbacks between connections. Plain tests
//! call the same body.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use condor::testing::{Harness, Leftovers};
use condor::{
    Action, CloseReason, Context, Handler, Info, ListenerOptions, ReactorOptions, SendError,
    TimerId,
};

#[path = "connection/model.rs"]
mod model;
#[path = "connection/program.rs"]
mod program;

use model::{MILLI, Model, Order};
use program::{Answer, Kind, Step, filling, program};

/// The most operations of a run.
const OPS_MAX: usize = 200;

/// A callback, or a result that the handler saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Packet(Vec<u8>),
    /// Bytes without framing. Where they are cut does not matter, so adjacent entries are merged.
    Raw(Vec<u8>),
    Timeout(Vec<u8>),
    Message(Vec<u8>),
    /// A `send` of the program was refused.
    Refused(&'static str),
    /// Whether a timer was still armed when it was cancelled.
    Cancelled(bool),
    /// The second connection got a packet or a broadcast.
    Other(Vec<u8>),
    Shutdown,
    Drained,
    EndOfInput,
    End(CloseReason),
}

/// What happened, and was not compared with the model yet.
pub(crate) type Trace = Rc<RefCell<VecDeque<Seen>>>;

/// The options of a run. Times are in milliseconds.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Config {
    pub(crate) max_packet: usize,
    pub(crate) max_queued: usize,
    pub(crate) high: usize,
    pub(crate) low: usize,
    pub(crate) packet_timeout: u64,
    pub(crate) idle_timeout: Option<u64>,
    pub(crate) silence_timeout: Option<u64>,
    pub(crate) first_packet_timeout: Option<u64>,
    pub(crate) stall_timeout: u64,
    pub(crate) half_close_timeout: u64,
    pub(crate) close_timeout: u64,
    pub(crate) linger_timeout: u64,
    pub(crate) drain_timeout: u64,
    pub(crate) packet_budget: u32,
    /// The handler continues after a packet timeout.
    pub(crate) patient: bool,
    /// The handler continues after `Info::Shutdown`.
    pub(crate) stubborn: bool,
    /// The handler ends its output in every `Info` that is not a message.
    pub(crate) parting: bool,
    /// The handler continues after the end of input.
    pub(crate) owing: bool,
}

impl Config {
    fn read(sizes: u8, times: u8, habits: u8) -> Self {
        let (max_packet, max_queued, high, low) = match sizes % 4 {
            0 => (300, 2_000, 500, 100),
            1 => (4_096, 8_192, 4_096, 0),
            2 => (60, 64, 63, 62),
            _ => (50_000, 400_000, 40_000, 20_000),
        };
        let long = u64::from(times >> 2 & 3) * 200;
        Self {
            max_packet,
            max_queued,
            high,
            low,
            packet_timeout: [100, 10, 64, 3_000][usize::from(times & 3)],
            idle_timeout: (times & 16 != 0).then_some(130 + long),
            silence_timeout: (times & 64 != 0).then_some(110 + long),
            first_packet_timeout: (times & 128 != 0).then_some(90 + long),
            stall_timeout: 70 + long,
            half_close_timeout: if sizes & 8 == 0 { 60 + long } else { 1_000 },
            close_timeout: 50 + long,
            linger_timeout: 40,
            drain_timeout: 500,
            packet_budget: if habits & 1 == 0 { 4_096 } else { 1 + u32::from(habits >> 4) },
            patient: habits & 2 != 0,
            stubborn: habits & 4 != 0,
            parting: times & 32 != 0,
            owing: sizes & 4 != 0,
        }
    }

    fn options(&self) -> ListenerOptions {
        let millis = Duration::from_millis;
        let options = ListenerOptions::port(5555)
            .max_packet(self.max_packet)
            .max_queued(self.max_queued)
            .write_high_water(self.high)
            .write_low_water(self.low)
            .packet_timeout(millis(self.packet_timeout))
            .write_stall_timeout(millis(self.stall_timeout))
            .half_close_timeout(millis(self.half_close_timeout))
            .close_timeout(millis(self.close_timeout))
            .linger_timeout(millis(self.linger_timeout))
            .drain_timeout(millis(self.drain_timeout));
        let set = |options, timeout: Option<u64>, setter: fn(_, Duration) -> _| match timeout {
            Some(timeout) => setter(options, millis(timeout)),
            None => options,
        };
        let options = set(options, self.idle_timeout, ListenerOptions::idle_timeout);
        let options = set(options, self.silence_timeout, ListenerOptions::silence_timeout);
        set(options, self.first_packet_timeout, ListenerOptions::first_packet_timeout)
    }
}

/// The handler. It runs programs and writes the trace.
struct Actor {
    trace: Trace,
    config: Config,
    /// The program of `init`.
    init: Option<Vec<u8>>,
    /// This is the second connection, which only receives.
    is_other: bool,
    timers: Vec<TimerId>,
    raw: bool,
}

impl Actor {
    fn note(&self, seen: Seen) {
        let mut trace = self.trace.borrow_mut();
        match (trace.back_mut(), seen) {
            (Some(Seen::Raw(bytes)), Seen::Raw(more)) => bytes.extend(more),
            (_, seen) => trace.push_back(seen),
        }
    }

    fn obey(&mut self, bytes: &[u8], ctx: &mut Context<'_, Vec<u8>>) -> Action<'static> {
        let (steps, answer) = program(bytes);
        for step in steps {
            let sent = match step {
                Step::Echo => ctx.send(bytes),
                Step::Send { len, shared: false } => ctx.send(filling(len)),
                Step::Send { len, shared: true } => ctx.send(Bytes::from(filling(len))),
                other => {
                    self.apply(other, ctx);
                    Ok(())
                }
            };
            if let Err(error) = sent {
                self.note(Seen::Refused(match error {
                    SendError::TooLarge { .. } => "too large",
                    SendError::Full { .. } => "full",
                    SendError::BadFrame(_) => "bad frame",
                    _ => "closing",
                }));
            }
        }
        match answer {
            Answer::Continue => Action::Continue,
            Answer::Echo => Action::send(bytes.to_vec()),
            Answer::Send { len, shared: false } => Action::send(filling(len)),
            Answer::Send { len, shared: true } => Action::send(Bytes::from(filling(len))),
            Answer::Stop => Action::stop(CloseReason::Normal),
            Answer::SendAndStop => Action::send_and_stop("bye", CloseReason::Custom("requested")),
            // Not `panic!`, because a fuzzer's panic hook would end the process.
            Answer::Panic => resume_unwind(Box::new("requested")),
        }
    }

    fn apply(&mut self, step: Step, ctx: &mut Context<'_, Vec<u8>>) {
        match step {
            Step::Pause => ctx.pause_reading(),
            Step::Resume => ctx.resume_reading(),
            Step::Reframe(kind) => {
                self.raw = kind == Kind::Raw;
                ctx.set_framing(kind.framing());
            }
            Step::After(delay, message) => {
                // Refused at the maximum of timers.
                self.timers.extend(ctx.send_after(Duration::from_millis(delay), message));
            }
            Step::Cancel(nth) => {
                if let Some(at) = nth.checked_rem(self.timers.len()) {
                    let done = ctx.cancel(self.timers[at]);
                    self.note(Seen::Cancelled(done));
                }
            }
            Step::PacketTimeout(millis) => ctx.set_packet_timeout(Duration::from_millis(millis)),
            Step::IdleTimeout(millis) => ctx.set_idle_timeout(millis.map(Duration::from_millis)),
            Step::EndOutput => ctx.end_output(),
            Step::ExpectWithin(millis) => ctx.expect_within(Duration::from_millis(millis)),
            Step::ExpectNothing => ctx.expect_nothing(),
            Step::SilenceTimeout(millis) => {
                ctx.set_silence_timeout(millis.map(Duration::from_millis));
            }
            Step::Echo | Step::Send { .. } => unreachable!("sends are done where the bytes are"),
        }
    }
}

impl Handler for Actor {
    type Message = Vec<u8>;

    fn init(&mut self, ctx: &mut Context<'_, Vec<u8>>) -> Action<'_> {
        if self.is_other {
            ctx.set_idle_timeout(None);
            ctx.set_silence_timeout(None);
            ctx.expect_nothing();
        }
        match self.init.take() {
            Some(bytes) => self.obey(&bytes, ctx),
            None => Action::Continue,
        }
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Vec<u8>>,
    ) -> Action<'a> {
        if self.is_other {
            self.note(Seen::Other(packet.to_vec()));
            return Action::Continue;
        }
        if self.raw {
            self.note(Seen::Raw(packet.to_vec()));
            return Action::Continue;
        }
        self.note(Seen::Packet(packet.to_vec()));
        match self.obey(packet, ctx) {
            // The packet itself as the answer, which takes the path without a copy.
            Action::Send(bytes) if bytes.as_slice() == packet => Action::send(packet),
            other => other,
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Vec<u8>>,
        ctx: &mut Context<'_, Vec<u8>>,
    ) -> Action<'a> {
        if self.is_other {
            if let Info::Message(bytes) = &info {
                self.note(Seen::Other(bytes.clone()));
            }
            return info.default_action();
        }
        if self.config.parting && !matches!(info, Info::Message(_)) {
            ctx.end_output();
        }
        match info {
            Info::Message(bytes) => {
                self.note(Seen::Message(bytes.clone()));
                return self.obey(&bytes, ctx);
            }
            Info::Timeout(bytes) => {
                self.note(Seen::Timeout(bytes.to_vec()));
                if self.config.patient {
                    return Action::send("late");
                }
            }
            Info::Shutdown => {
                self.note(Seen::Shutdown);
                if self.config.stubborn {
                    return Action::Continue;
                }
            }
            Info::Writable => self.note(Seen::Drained),
            Info::EndOfInput { .. } => {
                self.note(Seen::EndOfInput);
                if self.config.owing {
                    return Action::Continue;
                }
            }
            _ => {}
        }
        info.default_action()
    }

    fn terminate(self, reason: CloseReason) {
        if !self.is_other {
            self.note(Seen::End(reason));
        }
    }
}

/// The harness and the model.
struct Pair {
    harness: Harness<Actor>,
    /// The second connection. It connects when it is first needed.
    other: Option<Harness<Actor>>,
    model: Model,
    /// All bytes that the peer has received.
    got: Vec<u8>,
    /// The output budget of a turn was used up. The model does not know it, so the run is over.
    over: bool,
}

impl Pair {
    fn new(config: Config, init: Option<Vec<u8>>) -> Self {
        let trace = Trace::default();
        let mut model = Model::new(config, Rc::clone(&trace));
        let reactor = ReactorOptions::new().packet_budget(config.packet_budget);
        let (mut first, mut is_other) = (init.clone(), false);
        let harness = Harness::with(reactor, config.options(), move |_| Actor {
            trace: Rc::clone(&trace),
            config,
            init: first.take(),
            is_other: std::mem::replace(&mut is_other, true),
            timers: Vec::new(),
            raw: false,
        });
        if let Some(bytes) = init {
            model.init(&bytes);
        }
        model.run();
        let mut pair = Self { harness, other: None, model, got: Vec::new(), over: false };
        pair.compare();
        pair
    }

    /// Does the same to harness and model, and compares them.
    fn both(&mut self, real: impl FnOnce(&Harness<Actor>), model: impl FnOnce(&mut Model)) {
        real(&self.harness);
        self.over |= self.harness.stats().output_budget_hits > 0;
        if self.over {
            return;
        }
        model(&mut self.model);
        self.model.run();
        self.compare();
    }

    fn compare(&mut self) {
        self.got.extend(self.harness.sent());
        self.model.compare_output(&self.got);
        assert_eq!(self.harness.queued_bytes(), self.model.queued(), "bytes queued");
        assert_eq!(self.harness.closed(), self.model.end(), "the reason in `terminate`");
        assert_eq!(
            self.harness.is_finished(),
            self.model.finished,
            "whether the end was sent to the peer"
        );
        assert_eq!(self.harness.is_gone(), self.model.gone, "whether the slot is free");
        self.model.compare_trace();
    }

    /// Time passes. At each deadline it compares one nanosecond before and at the deadline.
    fn advance(&mut self, nanos: u64) {
        let end = self.model.now + nanos;
        while let Some(next) = self.model.next_deadline().filter(|next| *next <= end && !self.over)
        {
            let before = next.saturating_sub(1).max(self.model.now);
            for at in [before, next] {
                let step = Duration::from_nanos(at.saturating_sub(self.model.now));
                self.both(|harness| harness.advance(step), |model| model.now = at.max(model.now));
            }
        }
        let rest = Duration::from_nanos(end - self.model.now);
        self.both(|harness| harness.advance(rest), |model| model.now = end);
    }

    /// Reads one operation from `data` and does it. Returns `None` at the end of `data`.
    fn operate(&mut self, data: &mut &[u8]) -> Option<()> {
        match byte(data)? % 32 {
            0..=7 => {
                let bytes = some(data)?;
                self.arrive(&bytes);
            }
            8..=13 => {
                let (count, bytes) = (usize::from(byte(data)? % 8) + 1, some(data)?);
                let frame = self.model.framed_by_peer(&bytes);
                self.arrive(&frame.repeat(count));
            }
            14 => {
                let (cut, bytes) = (usize::from(byte(data)?), some(data)?);
                let frame = self.model.framed_by_peer(&bytes);
                self.arrive(&frame[..cut % (frame.len() + 1)]);
            }
            15..=17 => {
                let message = some(data)?;
                let (harness, again) = (&self.harness, message.clone());
                // It fails only after the listener has ended.
                let _ = harness.address().send(message);
                self.both(Harness::run, |model| model.message(again));
            }
            18 => {
                let (len, byte) = (usize::from(byte(data)?) * 40, byte(data)?);
                self.arrive(&vec![byte; len]);
            }
            19..=22 => {
                let millis = u64::from(byte(data)?);
                self.advance(millis * MILLI);
            }
            23 => {
                let micros = u64::from(byte(data)?) * 137;
                self.advance(micros * 1_000);
            }
            24 => self.both(Harness::peer_stalls, |model| model.window = 0),
            25 => {
                let bytes = usize::from(byte(data)?);
                self.both(|harness| harness.peer_reads(bytes), |model| model.open_window(bytes));
            }
            26 => {
                let bytes = usize::from(byte(data)?) * 400;
                self.both(|harness| harness.peer_reads(bytes), |model| model.open_window(bytes));
            }
            27 => self.both(Harness::peer_reads_all, |model| model.open_window(usize::MAX)),
            code => self.disturb(code, data)?,
        }
        Some(())
    }

    /// The rarer operations.
    fn disturb(&mut self, code: u8, data: &mut &[u8]) -> Option<()> {
        match (code, byte(data)?) {
            (28, choice @ 0..=99) => {
                let most = usize::from(choice) + 1;
                self.both(|harness| harness.max_read(most), |model| model.read_most = most);
            }
            (28, choice) => {
                // No effect is visible, because the reactor writes until the kernel refuses.
                let most = usize::from(choice - 99);
                self.both(|harness| harness.max_write(most), |_| ());
            }
            (29, choice) if choice % 3 == 0 => self.both(
                |harness| harness.fail_next_write(ErrorKind::WouldBlock),
                |model| model.refusals += 1,
            ),
            (29, choice) => {
                // A refusal is visible only in a drain: `Info::Shutdown` comes when nothing is
                // left to read.
                let kinds = [ErrorKind::WouldBlock, ErrorKind::Interrupted];
                let kind = kinds[usize::from(choice & 1)];
                self.both(
                    |harness| harness.fail_next_read(kind),
                    |model| model.read_faults.push_back(kind),
                );
            }
            (30, 0..=99) => self.both(Harness::disturb, Model::disturb),
            (30, 100..=139) => self.both(Harness::drain, Model::drain),
            (30, choice @ 140..=199) => {
                let bytes = some(data)?;
                let is_packet = choice % 2 == 0;
                let bytes = if is_packet { self.model.framed_by_peer(&bytes) } else { bytes };
                self.together(&bytes, if choice < 180 { Order::Last } else { Order::First });
            }
            (30, 200..=239) => self.broadcast(&some(data)?),
            (30, 240..) => {
                let kind = ErrorKind::ConnectionReset;
                self.both(
                    |harness| harness.fail_next_read(kind),
                    |model| model.read_faults.push_back(kind),
                );
            }
            (_, 0..=99) => self.both(Harness::peer_resets, Model::reset),
            (_, _) => self.both(Harness::peer_closes, Model::eof),
        }
        Some(())
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.both(|harness| harness.receive(bytes), |model| model.arrive(bytes));
    }

    /// Connects the second connection if needed. Returns false in a drain, which ends it.
    fn has_other(&mut self) -> bool {
        let lives = !self.model.draining;
        if lives {
            self.other.get_or_insert_with(|| self.harness.connect());
        }
        lives
    }

    /// Bytes arrive, and a packet for the second connection arrives in the same batch of events.
    fn together(&mut self, bytes: &[u8], order: Order) {
        if !self.has_other() {
            return self.arrive(bytes);
        }
        if let Some(other) = &self.other {
            let packet = other.framed("?");
            if order == Order::First {
                other.arrive(&packet);
            }
            self.harness.arrive(bytes);
            if order == Order::Last {
                other.arrive(&packet);
            }
        }
        self.both(Harness::run, |model| {
            model.arrive(bytes);
            model.other = Some((order, b"?".to_vec()));
        });
    }

    /// Both connections get a message.
    fn broadcast(&mut self, message: &[u8]) {
        if self.has_other() {
            let (real, modelled) = (message.to_vec(), message.to_vec());
            self.both(|harness| harness.broadcast(real), |model| model.broadcast(modelled));
        }
    }

    /// Drains the listener. After the drain nothing may be left over.
    fn finish(mut self) {
        self.both(Harness::drain, Model::drain);
        self.advance(2_000 * MILLI);
        if self.over {
            return;
        }
        assert!(self.harness.is_gone(), "still there after the drain");
        assert_eq!(self.harness.leftovers(), Leftovers::default());
        let report = self.harness.report().expect("the drain is over");
        let stats = self.harness.stats();
        let count = 1 + u64::from(self.other.is_some());
        let counts = (stats.accepted, stats.made, stats.terminated);
        assert_eq!(counts, (count, count, count), "{report:?}");
        assert_eq!(stats.half_closed, 0);
    }
}

fn byte(data: &mut &[u8]) -> Option<u8> {
    let (first, rest) = data.split_first()?;
    *data = rest;
    Some(*first)
}

/// Reads a length, then that many bytes, or fewer at the end of the data.
fn some(data: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::from(byte(data)?).min(data.len());
    let (bytes, rest) = data.split_at(len);
    *data = rest;
    Some(bytes.to_vec())
}

/// Reads operations from `data`, does them to a harness and a model, and panics if they differ.
pub fn connection(data: &[u8]) {
    let Some(([sizes, times, habits], mut data)) = data.split_first_chunk() else {
        return;
    };
    let init = if habits & 8 != 0 { some(&mut data) } else { None };
    let mut pair = Pair::new(Config::read(*sizes, *times, *habits), init);
    for _ in 0..OPS_MAX {
        if pair.operate(&mut data).is_none() || pair.over {
            break;
        }
    }
    if !pair.over {
        pair.finish();
    }
}
