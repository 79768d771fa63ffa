//! Input: from the socket through the framing to the handler. An incomplete packet is kept.

use std::io::{self, ErrorKind};

use super::Peer;
use super::dispatch::{Batch, Verdict};
use super::marks::Marks;
use crate::connection::Flags;
use crate::handler::Handler;
use crate::life::Cut;
use crate::loop_state::LoopState;
use crate::peer_cx::PeerCx;
use crate::reason::CloseReason;
use crate::stream::Stream;

/// On Linux a read that returns less than it could has emptied the socket, and bytes that arrive
/// later make a new event (mio#1611). This does not hold if the event carried more than bytes: an
/// end, an error or an urgent byte.
const SHORT_READ_DRAINS: bool = cfg!(any(target_os = "linux", target_os = "android"));

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Reads and delivers until the socket is drained or the read buffer is full: the buffer's size
    /// is the budget. Each read is stored after the one before, so that a packet that is in part in
    /// both is whole without a copy.
    ///
    /// One call reads at most `read_at_once` bytes. They are delivered before the rest is read, and
    /// packets that are sent straight back leave at once. So the peer can continue in the meantime,
    /// and bytes that were copied in are still in a near cache when they are copied out. No more
    /// than these bytes have to be kept if delivery stops.
    pub(super) fn read(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        read: &mut [u8],
        budget: &mut u32,
    ) {
        // What a partner cannot send is kept for it, so a second read waits for the partner.
        let paired = self.conn.has(Flags::PAIRED);
        let room = if paired { cx.profile.read_at_once.min(read.len()) } else { read.len() };
        // Bytes that were read and not delivered are at `at..end`.
        let (mut at, mut end, mut verdict) = (0, 0, Verdict::Partial(None));
        while self.is_marked(Marks::READABLE) && self.conn.may_read() {
            let most = cx.profile.read_at_once.min(room - end);
            if most == 0 {
                cx.profile.counters.read_budget_hits.add(1);
                break;
            }
            match self.stream.read(&mut read[end..end + most]) {
                Ok(0) => {
                    self.marks.remove(Marks::READABLE.with(Marks::READ_UNTIL_BLOCKED));
                    self.conn.advance(|life| life.end_input());
                }
                Ok(count) => {
                    cx.profile.counters.bytes_in.add(count as u64);
                    cx.state.has_read(count);
                    self.conn.bytes_came(cx.state.now());
                    if SHORT_READ_DRAINS
                        && count < most
                        && !self.is_marked(Marks::READ_UNTIL_BLOCKED)
                    {
                        self.marks.remove(Marks::READABLE);
                    }
                    let scanned = end - at;
                    end += count;
                    let fresh = &read[at..end];
                    let consumed;
                    (consumed, verdict) = if self.conn.input.is_none() {
                        self.deliver_all(cx, fresh, scanned, budget, true)
                    } else {
                        self.consume(cx, fresh, scanned, budget)
                    };
                    at += consumed;
                    if !matches!(verdict, Verdict::Partial(_)) {
                        break;
                    }
                }
                Err(error) => self.read_failed(&error),
            }
        }
        if at < end {
            self.keep(cx, &read[at..end], verdict);
        }
    }

    #[inline(never)]
    fn read_failed(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => {
                self.marks.remove(Marks::READABLE.with(Marks::READ_UNTIL_BLOCKED))
            }
            ErrorKind::Interrupted => {}
            kind => self.fail(self.reason_of(kind)),
        }
    }

    /// Delivers the kept input, completed from `fresh`, and then `fresh` itself, of which `scanned`
    /// bytes have been looked at. Returns how many bytes of `fresh` it has consumed or kept, and
    /// why it stopped.
    #[inline(never)]
    pub(super) fn consume(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        fresh: &[u8],
        scanned: usize,
        budget: &mut u32,
    ) -> (usize, Verdict) {
        self.conn.remove(Flags::BACKLOG);
        let mut rest = fresh;
        if self.conn.input.is_some() {
            match self.consume_kept(cx, fresh, budget) {
                Some(left) => rest = left,
                None => return (fresh.len(), Verdict::Partial(None)),
            }
        }
        let (consumed, verdict) = self.deliver_all(cx, rest, scanned, budget, true);
        (fresh.len() - rest.len() + consumed, verdict)
    }

    /// Delivers the kept input, completed from `fresh`. Returns the rest of `fresh`, or `None` if
    /// delivery has to stop here.
    #[inline(never)]
    fn consume_kept<'a>(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        mut fresh: &'a [u8],
        budget: &mut u32,
    ) -> Option<&'a [u8]> {
        let mut failed = false;
        while let Some(mut kept) = self.conn.input.take() {
            // The number of missing bytes is exact, unless it is a custom framer's hint. A hint
            // that was too low is not followed byte by byte. A hint that is too high delays no
            // packet.
            let is_hint = self.conn.framing(&cx.profile.framing).is_custom();
            let missing =
                if failed && is_hint { kept.missing_after_failure() } else { kept.missing() };
            let (now, later) = fresh.split_at(missing.min(fresh.len()));
            kept.append(now, &mut cx.state.pool);
            fresh = later;
            if !is_hint && kept.need.is_some_and(|need| kept.len() < need) {
                self.conn.put_back(kept, &mut cx.state.pool);
                return None;
            }
            let scanned = kept.scanned;
            cx.state.notes = kept.notes;
            let (consumed, verdict) =
                self.deliver_all(cx, kept.as_slice(), scanned, budget, fresh.is_empty());
            failed = consumed == 0;
            kept.consume(consumed);
            (kept.scanned, kept.need) = match verdict {
                Verdict::Partial(need) => (kept.len(), need),
                _ => (0, Some(0)),
            };
            kept.notes = cx.state.notes;
            self.conn.put_back(kept, &mut cx.state.pool);
            if !matches!(verdict, Verdict::Partial(_)) {
                self.keep(cx, fresh, verdict);
                return None;
            }
            if fresh.is_empty() {
                return None;
            }
        }
        Some(fresh)
    }

    /// Keeps the bytes that delivery has left. If delivery stopped before it needed more bytes,
    /// they may hold whole packets: then they are the backlog.
    #[inline(never)]
    fn keep(&mut self, cx: &mut PeerCx<'_, H::Message>, rest: &[u8], verdict: Verdict) {
        let LoopState { notes, pool, .. } = &mut *cx.state;
        match verdict {
            Verdict::Partial(need) => self.conn.keep(rest, rest.len(), need, notes, pool),
            _ => {
                self.conn.keep(rest, 0, Some(0), notes, pool);
                if self.conn.input.is_some() {
                    self.conn.insert(Flags::BACKLOG);
                }
            }
        }
    }

    /// Delivers batch after batch, and writes in between, until there is a reason to stop. `last`
    /// says that `input` is the last of the bytes read so far.
    #[inline(always)]
    fn deliver_all(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        input: &[u8],
        mut scanned: usize,
        budget: &mut u32,
        last: bool,
    ) -> (usize, Verdict) {
        let mut at = 0;
        loop {
            let Batch { consumed, run, verdict } = self.deliver(cx, &input[at..], scanned, budget);
            self.send_back(cx, &input[at..][run], last);
            at += consumed;
            scanned = 0;
            if let Verdict::Partial(_) = verdict {
                self.conn.remove(Flags::RESTART_BATCH);
                return (at, verdict);
            }
            if let Some(stopped) = self.stopped(cx, verdict, &input[at..]) {
                return (at, stopped);
            }
        }
    }

    /// Handles the reason why delivery stopped before the end of the bytes. Returns a verdict if
    /// delivery has to stop for this turn.
    #[inline(never)]
    fn stopped(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        verdict: Verdict,
        rest: &[u8],
    ) -> Option<Verdict> {
        match verdict {
            Verdict::Restart => {
                self.conn.remove(Flags::RESTART_BATCH.with(Flags::BACKLOG));
                if self.is_queue_due(cx) {
                    self.write_out(cx);
                }
            }
            Verdict::Full => self.write_out(cx),
            Verdict::Partial(_) | Verdict::Budget | Verdict::Blocked => {
                self.conn.remove(Flags::RESTART_BATCH);
                self.log_nonsense(cx, rest);
                return Some(verdict);
            }
        }
        if self.conn.is_blocked() {
            return Some(Verdict::Blocked);
        }
        if cx.state.output_left() > 0 {
            return None;
        }
        if !self.is_marked(Marks::OUTPUT_CUT) {
            cx.profile.counters.output_budget_hits.add(1);
        }
        Some(Verdict::Budget)
    }

    /// Reads bytes and drops them, because the kernel answers unread bytes with a reset when the
    /// socket is closed.
    pub(super) fn discard(&mut self, cx: &mut PeerCx<'_, H::Message>, read: &mut [u8]) {
        if self.is_marked(Marks::ERROR) {
            self.marks.remove(Marks::ERROR);
            if let Ok(Some(_)) = self.stream.take_error() {
                self.conn.advance(|life| life.cut(Cut::Broken));
            }
        }
        let mut room = read.len();
        while room > 0 && self.is_marked(Marks::READABLE) {
            match self.stream.read(&mut read[..room]) {
                Ok(0) => {
                    self.conn.advance(|life| life.end_input());
                    self.marks.remove(Marks::READABLE);
                }
                Ok(count) => {
                    cx.state.has_read(count);
                    room -= count;
                }
                Err(error) => self.read_failed(&error),
            }
        }
    }

    /// Handles an error that an event carried. If the connection is blocked or its input has ended,
    /// nothing is read, so this asks the kernel for the error. If input is left to read, the mark
    /// stays: reading reports the error, but may stop before it gets there.
    pub(super) fn check_socket_error(&mut self) {
        let unread = self.is_marked(Marks::READABLE) || self.conn.has(Flags::BACKLOG);
        if unread && !self.conn.is_blocked() {
            return;
        }
        self.marks.remove(Marks::ERROR);
        let is_read = !self.conn.is_blocked() && !self.conn.life().is_input_ended();
        if self.conn.life().is_open()
            && !is_read
            && let Ok(Some(error)) = self.stream.take_error()
        {
            self.fail(self.reason_of(error.kind()));
        }
    }

    /// The close reason for an error of the stream outside a write. After the end of input Linux
    /// reports a reset with the error of a broken pipe.
    pub(super) fn reason_of(&self, kind: ErrorKind) -> CloseReason {
        match kind {
            ErrorKind::ConnectionReset => CloseReason::Reset,
            ErrorKind::BrokenPipe if self.conn.life().is_input_ended() => CloseReason::Reset,
            kind => CloseReason::Io(kind),
        }
    }
}
