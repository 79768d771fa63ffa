//! The calls of the user's code: one guarded call for everything that is not a packet, one guarded
//! loop for packets.
//!
//! A panic is caught once per call or per batch. It ends that one connection. Answers that were
//! framed for earlier packets are still sent.

use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Peer;
use crate::connection::Flags;
use crate::framing::{Decode, Deframe, Enframe, Framing, Resuming, Shape};
use crate::guard::{Panics, drop_guarded, panic_text};
use crate::handler::{Action, Context, Handler, Packet, PassThrough, Place};
use crate::logging::{Cause, PANIC_CURE, say};
use crate::loop_state::{FLUSH_AT, LoopState};
use crate::peer_cx::PeerCx;
use crate::reason::{CloseReason, SendError};
use crate::stream::Stream;

/// Why a batch of packets ended.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The bytes that are left are not a whole packet. The number is the length of a whole one, if
    /// it is known.
    Partial(Option<usize>),
    /// The framing was changed, or a packet shared: the bytes that are left are a batch of their
    /// own, with limits of its own. Its output leaves together with that of this one.
    Restart,
    /// [`FLUSH_AT`] bytes of output have gathered: write before going on.
    Full,
    /// The connection's budget of packets or of output, or its slice of time, is used up.
    Budget,
    /// Delivery is paused, output is over the high-water mark, or the end is decided.
    Blocked,
}

/// How far a batch got.
#[derive(Debug)]
struct Progress<'a> {
    consumed: usize,
    /// Input that was not consumed at the last look.
    rest: &'a [u8],
    /// So many bytes of `rest` have been looked at before.
    scanned: usize,
    packets: u32,
    /// The most packets that it may deliver.
    budget: u32,
    /// So many packets are delivered before the next look at the clock.
    until: u32,
    /// Packets that the time budget knows of.
    spent: u32,
}

/// The result of a batch.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Bytes of input consumed.
    pub(crate) consumed: usize,
    /// The pass-through run: the range of the input with answers that are packets and were not
    /// copied. They are sent after everything framed.
    pub(crate) run: Range<usize>,
    /// Why it ended.
    pub(crate) verdict: Verdict,
}

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Makes one call of the user's code, unless the end is decided.
    pub(crate) fn dispatch(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        call: impl FnOnce(&mut H, &mut Context<'_, H::Message>),
    ) {
        if !self.conn.life().is_open() {
            return;
        }
        let Some(handler) = &mut self.handler else { return };
        let mut ctx =
            Context::new(&mut self.conn, cx, &self.identity, &self.stream, PassThrough::default());
        let caught = catch_unwind(AssertUnwindSafe(|| call(handler, &mut ctx)));
        // Outside a batch, a new framing or a shared packet has no batch to end.
        ctx.conn.remove(Flags::CALLBACK);
        ctx.profile.counters.packets_out.add(ctx.framed);
        if let Err(payload) = caught {
            self.panicked(cx, payload);
        }
    }

    /// Hands the packets at the front of `input` to the handler, at most `budget` of them.
    /// `scanned` bytes of the input have been looked at before.
    #[inline(always)]
    pub(crate) fn deliver(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        input: &[u8],
        scanned: usize,
        budget: &mut u32,
    ) -> Batch {
        let Some(handler) = &mut self.handler else {
            return Batch { consumed: 0, run: 0..0, verdict: Verdict::Blocked };
        };
        let own = self.conn.own_framing().map(|own| (own.clone(), own.shape()));
        let (framing, shape) = match &own {
            None => (&cx.profile.framing, &cx.profile.shape),
            Some((own, shape)) => (own, shape),
        };
        let mut ctx =
            Context::new(&mut self.conn, cx, &self.identity, &self.stream, PassThrough::of(input));
        let until = ctx.state.packets_until_look().min(*budget);
        let mut progress = Progress {
            consumed: 0,
            rest: input,
            scanned,
            packets: 0,
            budget: *budget,
            until,
            spent: 0,
        };
        let batch = &mut progress;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let verdict = stretch(handler, &mut ctx, framing, shape, batch);
            if verdict == Verdict::Budget {
                return go_on(handler, &mut ctx, framing, shape, batch);
            }
            verdict
        }));
        let run = ctx.pass_through.range();
        ctx.conn.remove(Flags::BATCH);
        let framed = ctx.framed + ctx.pass_through.packets();
        cx.profile.counters.packets_out.add(framed);
        cx.profile.counters.packets_in.add(progress.packets.into());
        *budget -= progress.packets;
        cx.state.spend_packets(progress.packets - progress.spent);
        if progress.packets > 0 {
            if !self.conn.has(Flags::HAD_PACKET) {
                self.record_first_packet(cx.state);
            }
            self.conn.delivered();
        }
        let verdict = caught.unwrap_or_else(|payload| {
            self.panicked(cx, payload);
            Verdict::Blocked
        });
        if let Some((own, _)) = own {
            discard(cx, own);
        }
        Batch { consumed: progress.consumed, run, verdict }
    }

    #[inline(never)]
    fn record_first_packet(&self, state: &LoopState) {
        state.metrics.first_packet.record(self.micros_since_accept(state));
    }

    /// Takes the handler and calls its `terminate`, so that this happens once.
    pub(crate) fn terminate(&mut self, cx: &mut PeerCx<'_, H::Message>, reason: CloseReason) {
        let Some(handler) = self.handler.take() else { return };
        let counters = &cx.profile.counters;
        counters.terminated.add(1);
        counters.closed[crate::stats::CloseKind::from(reason) as usize].add(1);
        if self.conn.life().is_half_closed() {
            counters.half_closed.sub(1);
        }
        let (label, identity) = (&cx.profile.label, &self.identity);
        say!(Debug, "{label}: peer {}: ended: {reason}", identity.peer_addr());
        if matches!(reason, CloseReason::WriteStalled | CloseReason::SlowReader)
            && cx.gate.opens(Cause::SlowPeer, cx.state.nanos())
        {
            say!(Warn, "{label}: peer {}: ended: {reason}", identity.peer_addr());
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| handler.terminate(reason))) {
            self.panicked(cx, payload);
        }
    }

    #[cold]
    #[inline(never)]
    fn panicked(&mut self, cx: &mut PeerCx<'_, H::Message>, payload: Box<dyn Any + Send>) {
        cx.profile.counters.panics.add(1);
        if cx.gate.opens(Cause::Panic, cx.state.nanos()) {
            say!(
                Error,
                "{}: peer {}: a callback panicked: {}; {PANIC_CURE}",
                cx.profile.label,
                self.identity.peer_addr(),
                panic_text(payload.as_ref())
            );
        }
        drop_guarded(payload);
        self.conn.close(CloseReason::Panicked);
    }
}

/// Hands packets to the handler until the next look at the clock.
#[inline(always)]
fn stretch<H: Handler>(
    handler: &mut H,
    ctx: &mut Context<'_, H::Message>,
    framing: &Framing,
    shape: &Shape,
    batch: &mut Progress<'_>,
) -> Verdict {
    // The default framing is tested first, by itself: a jump through a table of all framings is
    // predicted badly.
    if let Shape::U16(de, en) = shape {
        return pump(handler, ctx, de, en, en.covers(de), batch);
    }
    match shape {
        Shape::U8(de, en) => pump(handler, ctx, de, en, en.covers(de), batch),
        Shape::U32(de, en) => pump(handler, ctx, de, en, en.covers(de), batch),
        _ => pump_noting(handler, ctx, framing, batch),
    }
}

/// Continues a batch after a look at the clock, unless a budget is used up.
#[cold]
#[inline(never)]
fn go_on<H: Handler>(
    handler: &mut H,
    ctx: &mut Context<'_, H::Message>,
    framing: &Framing,
    shape: &Shape,
    batch: &mut Progress<'_>,
) -> Verdict {
    let mut verdict = Verdict::Budget;
    let input = batch.rest;
    batch.scanned = 0;
    while verdict == Verdict::Budget && has_time(ctx, batch) {
        batch.rest = &input[batch.consumed..];
        verdict = stretch(handler, ctx, framing, shape, batch);
    }
    verdict
}

/// Drops a connection's own framing. If the handler has replaced it in this batch, this is the last
/// reference to the user's framer, whose drop may panic.
#[inline(never)]
pub(super) fn discard<M>(cx: &mut PeerCx<'_, M>, framing: Framing) {
    let mut panics = Panics::default();
    framing.discard(&mut panics);
    if panics.count > 0 {
        cx.profile.drops_panicked("a framer", &panics, cx.gate, cx.state.nanos());
    }
}

/// The tight loop. It is compiled once for each plain prefix and once for all other framings.
///
/// The common case is a packet that is answered with borrowed bytes. It costs one look at the flags
/// and no call but the handler's. Everything else goes through [`Context::apply`]. If the answer is
/// the packet, and `mirror` says that both have the same prefix, the bytes are not touched at all:
/// see [`PassThrough`].
#[inline(never)]
fn pump<H: Handler, D: Deframe + Copy, E: Enframe>(
    handler: &mut H,
    ctx: &mut Context<'_, H::Message>,
    deframe: &D,
    enframe: &E,
    mirror: bool,
    progress: &mut Progress<'_>,
) -> Verdict {
    // Output that is framed here stays below this bound, prefix included. If the queue is full, not
    // even a prefix alone fits.
    let bound = ctx.profile.options.max_queued.saturating_add(1);
    let bound = bound.saturating_sub(ctx.conn.queued().saturating_add(enframe.max_overhead()));
    let input = ctx.pass_through.input();
    // The compiler can keep a local copy in registers.
    let mut deframe = *deframe;
    // If all of the input may be sent back, the limits need no check for each packet.
    if !mirror || input.len() + ctx.state.out.len() >= bound {
        ctx.conn.insert(Flags::NO_PASS_THROUGH);
    }
    let (mut rest, mut scanned) = (progress.rest, progress.scanned);
    let verdict = 'batch: {
        while progress.packets < progress.until {
            let (payload, consumed) = match deframe.next(rest, scanned) {
                Ok(found) if !D::TRUSTED && !found.is_valid(rest.len()) => {
                    ctx.conn.close(CloseReason::FramerBug);
                    break 'batch Verdict::Blocked;
                }
                Ok(Decode::Frame { payload, consumed }) => (payload, consumed),
                Ok(Decode::Need(need)) => {
                    // A hint that these bytes are enough is wrong, and following it would never
                    // end.
                    break 'batch Verdict::Partial(need.filter(|need| *need > rest.len()));
                }
                Err(error) => {
                    ctx.conn.close(error.into());
                    break 'batch Verdict::Blocked;
                }
            };
            let packet = &rest[payload];
            let from = rest.len();
            rest = &rest[consumed..];
            scanned = 0;
            progress.packets += 1;
            let place = Place { from, behind: rest.len(), number: progress.packets };
            let action = handler.handle_packet(packet, ctx);
            if answer(ctx, enframe, action, packet, &place, bound) {
                continue;
            }
            if ctx.conn.is_blocked() {
                break 'batch Verdict::Blocked;
            }
            if ctx.conn.has(Flags::RESTART_BATCH) {
                break 'batch Verdict::Restart;
            }
            if ctx.state.out.len() >= FLUSH_AT {
                break 'batch Verdict::Full;
            }
        }
        Verdict::Budget
    };
    progress.consumed = input.len() - rest.len();
    verdict
}

/// Looks at the clock. Returns whether no budget is used up.
fn has_time<M>(ctx: &mut Context<'_, M>, progress: &mut Progress<'_>) -> bool {
    if progress.packets >= progress.budget {
        return false;
    }
    let packets = progress.packets - std::mem::replace(&mut progress.spent, progress.packets);
    if ctx.state.is_slice_over(packets, ctx.conn.has(Flags::HAD_PACKET)) {
        ctx.profile.counters.time_slice_hits.add(1);
        return false;
    }
    progress.until = progress.budget.min(progress.packets + ctx.state.packets_until_look());
    true
}

/// The loop for all framings but the plain prefixes, with the notes of a user's framer.
#[inline(never)]
fn pump_noting<H: Handler>(
    handler: &mut H,
    ctx: &mut Context<'_, H::Message>,
    framing: &Framing,
    progress: &mut Progress<'_>,
) -> Verdict {
    let notes = Cell::new(ctx.state.notes);
    let deframe = Resuming { framing, notes: &notes };
    let verdict = pump(handler, ctx, &deframe, framing, false, progress);
    ctx.state.notes = notes.get();
    verdict
}

/// Carries out the handler's answer to `packet`, which is at `place` in the input. Returns true if
/// the answer only made the pass-through run longer.
#[inline(always)]
fn answer<M, E: Enframe>(
    ctx: &mut Context<'_, M>,
    enframe: &E,
    action: Action<'_>,
    packet: &[u8],
    place: &Place,
    bound: usize,
) -> bool {
    let bytes = match action.into_borrowed() {
        Ok(bytes) => bytes,
        Err(Action::Continue) => {
            ctx.conn.insert(Flags::RUN_BROKEN);
            return false;
        }
        Err(action) => {
            ctx.apply(action);
            return false;
        }
    };
    let is_packet = std::ptr::eq(bytes, packet);
    if is_packet && ctx.conn.may_join_run() {
        ctx.pass_through.grow(place);
        return true;
    }
    if ctx.conn.is_interrupted() {
        ctx.apply(Action::Send(Packet::Borrowed(bytes)));
    } else if is_packet && !ctx.conn.has(Flags::NO_PASS_THROUGH) {
        ctx.end_pass_through();
        ctx.pass_through.begin(place);
        ctx.conn.remove(Flags::RUN_BROKEN);
    } else if bytes.len() + ctx.state.out.len() + ctx.pass_through.len() < bound {
        ctx.end_pass_through();
        ctx.conn.insert(Flags::NO_PASS_THROUGH);
        match enframe.frame(bytes, &mut ctx.state.out) {
            Ok(()) => ctx.framed += 1,
            Err(error) => {
                ctx.profile.counters.refused_sends.add(1);
                ctx.conn.close(SendError::from(error).into());
            }
        }
    } else {
        ctx.apply(Action::Send(Packet::Borrowed(bytes)));
    }
    false
}
