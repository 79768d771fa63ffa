//! Output: written at once if the kernel takes it, else queued.
//!
//! Five functions handle output:
//! - [`send_back`](Peer::send_back) writes answers straight from the input, without a copy if it can.
//! - [`write_out`](Peer::write_out) writes the framed output, and queues what the kernel refuses.
//! - [`queue_out`](Peer::queue_out) moves the framed output to the queue, and writes nothing.
//! - [`flush`](Peer::flush) writes the queue, many pieces with one system call.
//! - [`write`](Peer::write) writes one run of bytes. The others that write, except `flush`, call it.
//!   [`write_for_group`](Peer::write_for_group) is the same for what many peers get.

use std::io::{self, ErrorKind, IoSlice};

use super::Peer;
use super::marks::Marks;
use crate::buffer::Queue;
use crate::connection::{Crossing, Flags};
use crate::handler::{Handler, Info};
use crate::life::OutputHalf;
use crate::loop_state::{FLUSH_AT, LoopState};
use crate::peer_cx::PeerCx;
use crate::poller::Registry;
use crate::profile::Profile;
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::token;

/// Answers of at least this many bytes are written at once and do not wait for later answers: a
/// system call costs less than a copy of them.
const DIRECT_FROM: usize = 16 * 1024;

/// The most pieces of a queue that one system call takes. The output budget of a turn seldom has more,
/// because shared pieces are long. Linux takes 1,024.
const GATHER_MOST: usize = 32;

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Writes the output that was framed for this peer, or appends it to the queue. Shared packets
    /// are in the queue already.
    #[inline(never)]
    pub(crate) fn write_out(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        if cx.state.out.is_empty() {
            return self.flush(cx);
        }
        let mut taken = 0;
        if self.conn.output.is_none() && self.is_marked(Marks::WRITABLE) {
            taken = self.write(&cx.state.out, cx.profile, &cx.state.registry);
            cx.state.wrote(taken);
            if taken > 0 {
                self.conn.answered(cx.state.now());
            }
        }
        if taken < cx.state.out.len() && !self.conn.life().is_broken() {
            self.queue_out(cx, taken);
            self.flush(cx);
        }
        cx.state.clear_out();
    }

    /// Writes answers that are packets straight out of the input. Two kinds are copied into the
    /// output buffer instead: answers that have to wait for earlier output or for the kernel, and
    /// short ones that one write can send together with the answers that follow.
    #[inline(always)]
    pub(super) fn send_back(&mut self, cx: &mut PeerCx<'_, H::Message>, run: &[u8], last: bool) {
        if run.is_empty() {
            return;
        }
        let alone = cx.state.out.is_empty() && self.conn.output.is_none();
        if !alone || !self.is_marked(Marks::WRITABLE) || !last && run.len() < DIRECT_FROM {
            cx.state.out.extend_from_slice(run);
            return;
        }
        let taken = self.write(run, cx.profile, &cx.state.registry);
        cx.state.wrote(taken);
        if taken < run.len() {
            self.queue_rest(cx, &run[taken..]);
        }
    }

    /// Moves the framed output, from `taken` on, to the peer's own queue.
    #[inline(never)]
    pub(crate) fn queue_out(&mut self, cx: &mut PeerCx<'_, H::Message>, taken: usize) {
        if taken < cx.state.out.len() {
            let now = cx.state.now();
            let LoopState { out, pool, .. } = &mut *cx.state;
            self.conn.enqueue(&out[taken..], now, pool);
        }
        self.watch_water(cx);
        cx.state.clear_out();
    }

    /// Whether the queue of a running batch has to be offered to the kernel before more is queued:
    /// it is as long as other output may grow, or little space is left in it.
    pub(super) fn is_queue_due(&self, cx: &PeerCx<'_, H::Message>) -> bool {
        let queued = self.conn.queued();
        queued >= FLUSH_AT.min(cx.profile.options.max_queued.saturating_sub(FLUSH_AT)).max(1)
    }

    /// Offers the queue, if there is one, to the kernel, as many pieces at once as it takes, until
    /// it refuses or the output budget is used up.
    #[inline(never)]
    pub(crate) fn flush(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        if self.conn.output.is_none() {
            return;
        }
        while self.is_marked(Marks::WRITABLE)
            && let Some(queue) = self.conn.output.take()
        {
            let left = cx.state.output_left();
            if left == 0 {
                self.conn.output = Some(queue);
                self.marks.insert(Marks::OUTPUT_CUT);
                cx.profile.counters.output_budget_hits.add(1);
                break;
            }
            let taken = self.write_some(&queue, left, cx.profile, &cx.state.registry);
            self.conn.output = Some(queue);
            cx.state.wrote(taken);
            if taken > 0 {
                self.conn.sent(taken, cx.state.now(), &mut cx.state.pool);
                if self.conn.has(Flags::PAIRED) && self.conn.life().output() == OutputHalf::Ending {
                    self.tell_progress(cx);
                }
            }
        }
        cx.count_drop_panics();
        self.watch_water(cx);
    }

    /// Writes until all bytes are taken or the kernel refuses one: the kernel announces new space
    /// only after a refusal.
    #[inline]
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        profile: &Profile<H::Message>,
        registry: &Registry,
    ) -> usize {
        let taken = match self.stream.write(bytes) {
            Ok(count) if count == bytes.len() => count,
            first => self.write_on(bytes, first, profile, registry),
        };
        profile.counters.bytes_out.add(taken as u64);
        taken
    }

    /// Writes frames that all members of a group get, and queues what the kernel does not take. Returns
    /// how many bytes it has taken: the caller counts them, once for all members.
    #[inline]
    pub(super) fn write_for_group(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        frames: &[u8],
    ) -> usize {
        match self.stream.write(frames) {
            Ok(count) if count == frames.len() => count,
            first => self.write_for_group_on(cx, frames, first),
        }
    }

    #[inline(never)]
    fn write_for_group_on(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        frames: &[u8],
        first: io::Result<usize>,
    ) -> usize {
        let taken = self.write_on(frames, first, cx.profile, &cx.state.registry);
        self.queue_rest(cx, &frames[taken..]);
        taken
    }

    /// Queues what the kernel has not taken of output that is not in the output buffer.
    pub(super) fn queue_rest(&mut self, cx: &mut PeerCx<'_, H::Message>, rest: &[u8]) {
        if !rest.is_empty() && !self.conn.life().is_broken() {
            self.conn.enqueue(rest, cx.state.now(), &mut cx.state.pool);
            self.watch_water(cx);
        }
    }

    /// Continues after a first write that did not take everything.
    #[inline(never)]
    fn write_on(
        &mut self,
        bytes: &[u8],
        first: io::Result<usize>,
        profile: &Profile<H::Message>,
        registry: &Registry,
    ) -> usize {
        let (mut taken, mut last) = (0, first);
        while let Some(count) = self.took(last, profile, registry) {
            taken += count;
            if taken == bytes.len() {
                break;
            }
            last = self.stream.write(&bytes[taken..]);
        }
        taken
    }

    /// Offers up to `most` bytes of the queue with one system call. Returns how many the kernel has
    /// taken.
    fn write_some(
        &mut self,
        queue: &Queue,
        most: usize,
        profile: &Profile<H::Message>,
        registry: &Registry,
    ) -> usize {
        let mut pieces = [IoSlice::new(&[]); GATHER_MOST];
        let (mut count, mut left) = (0, most);
        for (slot, piece) in pieces.iter_mut().zip(queue.pieces()) {
            if left == 0 {
                break;
            }
            let piece = &piece[..piece.len().min(left)];
            left -= piece.len();
            *slot = IoSlice::new(piece);
            count += 1;
        }
        let result = match &pieces[..count] {
            [piece] => self.stream.write(piece),
            pieces => self.stream.write_gathered(pieces),
        };
        let taken = self.took(result, profile, registry).unwrap_or(0);
        profile.counters.bytes_out.add(taken as u64);
        taken
    }

    /// How many bytes one write has taken. `None` if the kernel takes no more for now, or if the
    /// connection is broken.
    fn took(
        &mut self,
        result: io::Result<usize>,
        profile: &Profile<H::Message>,
        registry: &Registry,
    ) -> Option<usize> {
        match result {
            Ok(count) if count > 0 => return Some(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Some(0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.marks.remove(Marks::WRITABLE);
                self.watch_writable(profile, registry);
            }
            refused => {
                let kind = refused.err().map_or(ErrorKind::WriteZero, |error| error.kind());
                let half_closed = self.conn.life().is_half_closed();
                self.fail(if half_closed { self.reason_of(kind) } else { CloseReason::Io(kind) });
            }
        }
        None
    }

    /// Registers the stream for writable events when its first write is refused. If the kernel has
    /// space again by then, it announces that at once.
    fn watch_writable(&mut self, profile: &Profile<H::Message>, registry: &Registry) {
        if self.is_marked(Marks::WRITE_INTEREST) {
            return;
        }
        let token = token::peer(profile.slot, self.identity.key, self.identity.generation);
        match self.stream.watch_writable(registry, token) {
            Ok(()) => self.marks.insert(Marks::WRITE_INTEREST),
            Err(error) => self.fail(CloseReason::Io(error.kind())),
        }
    }

    fn watch_water(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        let Some(crossing) = self.conn.watch_water(&cx.profile.limits) else { return };
        if crossing == Crossing::Over {
            cx.profile.counters.high_water_hits.add(1);
        }
        if self.conn.has(Flags::PAIRED) {
            self.hold_partner(cx, crossing);
        }
    }

    /// Shuts the stream down for writing, once the handler has ended its output and the queue is
    /// empty.
    #[inline(never)]
    pub(super) fn finish_output(&mut self) {
        let life = self.conn.life();
        if !life.is_open() || life.output() != OutputHalf::Ending || self.conn.output.is_some() {
            return;
        }
        if life.is_half_closed() {
            return self.conn.close(CloseReason::PeerClosed);
        }
        if let Err(error) = self.stream.shutdown_write() {
            // This error says only that the stream is broken. The kernel keeps the cause.
            let kept = self.stream.take_error().ok().flatten();
            return self.fail(self.reason_of(kept.unwrap_or(error).kind()));
        }
        self.conn.advance(|life| life.output_ended());
    }

    /// Tells the handler with `Info::Writable` that output is down at the low-water mark, at most
    /// once a turn.
    pub(crate) fn notify_writable(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        if self.conn.take_writable(&cx.profile.limits) {
            self.dispatch(cx, |handler, ctx| {
                let action = handler.handle_info(Info::Writable, ctx);
                ctx.apply(action);
            });
            self.write_out(cx);
        }
    }
}
