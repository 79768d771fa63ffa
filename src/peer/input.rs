//! What comes in: from the socket through the framing to the handler. What is no whole packet yet is
//! kept.

use std::io::{self, ErrorKind};

use super::Peer;
use super::dispatch::{Batch, Verdict};
use super::marks::Marks;
use crate::connection::Flags;
use crate::handler::Handler;
use crate::life::Cut;
use crate::peer_cx::PeerCx;
use crate::reason::CloseReason;
use crate::stream::Stream;

/// On Linux a read that returns less than it could has emptied the socket, and whatever arrives
/// later makes a new event (mio#1611), unless the event said that there is more to it than bytes.
const SHORT_READ_DRAINS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The most that one call reads. What has come is delivered before the rest is read, and what is sent
/// straight back leaves at once: so the peer can work on meanwhile, and what was copied in is still
/// in a near cache when it is copied out.
const READ_AT_ONCE: usize = 64 * 1024;

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Reads and delivers until the socket is drained or the read buffer full, which is the budget.
    /// Each read goes behind the one before, so that a packet that both have a part of is whole
    /// without a copy.
    pub(super) fn read(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        read: &mut [u8],
        budget: &mut u32,
    ) {
        // Bytes that were read and not delivered stand at `at..end`.
        let (mut at, mut end, mut verdict) = (0, 0, Verdict::Partial(None));
        while self.is_marked(Marks::READABLE) && self.conn.may_read() {
            let most = READ_AT_ONCE.min(read.len() - end);
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
                    self.conn.touch_idle(cx.state.now());
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
            kind => self.fail(reason_of(kind)),
        }
    }

    /// Delivers what waits, topped up from `fresh`, and then `fresh` itself, of which `scanned` bytes
    /// have been looked at. Returns how much of it is done with, and why no more.
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

    /// Delivers what waits, topped up from `fresh`. Returns what is left of that, unless delivery
    /// has to stop here.
    #[inline(never)]
    fn consume_kept<'a>(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        mut fresh: &'a [u8],
        budget: &mut u32,
    ) -> Option<&'a [u8]> {
        let mut failed = false;
        while let Some(mut kept) = self.conn.input.take() {
            // What is needed is exact, unless it is a custom framer's hint. One that was too low is
            // not followed byte by byte, and one that is too high holds no packet back.
            let is_hint = self.conn.framing(&cx.profile.framing).is_custom();
            let missing =
                if failed && is_hint { kept.missing_after_failure() } else { kept.missing() };
            let (now, later) = fresh.split_at(missing.min(fresh.len()));
            kept.append(now);
            fresh = later;
            if !is_hint && kept.need.is_some_and(|need| kept.len() < need) {
                self.conn.put_back(kept, &mut cx.state.pool);
                return None;
            }
            let scanned = kept.scanned;
            let (consumed, verdict) =
                self.deliver_all(cx, kept.as_slice(), scanned, budget, fresh.is_empty());
            failed = consumed == 0;
            kept.consume(consumed);
            (kept.scanned, kept.need) = match verdict {
                Verdict::Partial(need) => (kept.len(), need),
                _ => (0, Some(0)),
            };
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

    /// Keeps what delivery has left. If it stopped for a reason other than the bytes, they may hold
    /// whole packets.
    #[inline(never)]
    fn keep(&mut self, cx: &mut PeerCx<'_, H::Message>, rest: &[u8], verdict: Verdict) {
        let pool = &mut cx.state.pool;
        match verdict {
            Verdict::Partial(need) => self.conn.keep(rest, rest.len(), need, pool),
            _ => {
                self.conn.keep(rest, 0, Some(0), pool);
                if self.conn.input.is_some() {
                    self.conn.insert(Flags::BACKLOG);
                }
            }
        }
    }

    /// Delivers batch after batch, writing in between, until there is a reason to stop. `last` says
    /// that nothing else of this turn's input comes behind.
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

    /// Sees to what delivery stopped for before the bytes were at an end. Returns a reason to stop
    /// for good, if there is one.
    #[inline(never)]
    fn stopped(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        verdict: Verdict,
        rest: &[u8],
    ) -> Option<Verdict> {
        match verdict {
            Verdict::Reframed => {
                self.conn.remove(Flags::RESTART_BATCH.with(Flags::BACKLOG));
                if self.conn.output.is_some() {
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
        self.conn.is_blocked().then_some(Verdict::Blocked)
    }

    /// Reads and forgets, so that closing does not answer unread bytes with a reset.
    pub(super) fn discard(&mut self, read: &mut [u8]) {
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
                Ok(count) => room -= count,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => self.marks.remove(Marks::READABLE),
                    ErrorKind::Interrupted => {}
                    _ => {
                        self.marks.remove(Marks::READABLE);
                        self.conn.advance(|life| life.cut(Cut::Broken));
                    }
                },
            }
        }
    }

    /// An error was announced. If reading does not tell, because we do not read, the kernel does. As
    /// long as we do and something is left it is not forgotten: we may stop before we come to it.
    pub(super) fn check_socket_error(&mut self) {
        let unread = self.is_marked(Marks::READABLE) || self.conn.has(Flags::BACKLOG);
        if unread && !self.conn.is_blocked() {
            return;
        }
        self.marks.remove(Marks::ERROR);
        if self.conn.life().is_open()
            && self.conn.is_blocked()
            && let Ok(Some(error)) = self.stream.take_error()
        {
            self.fail(reason_of(error.kind()));
        }
    }
}

/// The reason for which a connection ends whose stream failed while we did not write.
pub(super) fn reason_of(kind: ErrorKind) -> CloseReason {
    match kind {
        ErrorKind::ConnectionReset => CloseReason::Reset,
        kind => CloseReason::Io(kind),
    }
}
