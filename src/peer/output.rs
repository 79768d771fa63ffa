//! What goes out: written at once if the kernel takes it, else queued.

use std::io::{self, ErrorKind};

use super::{Peer, mark};
use crate::desk::Desk;
use crate::handler::{Handler, Info};
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::token;

/// Answers of this many bytes leave at once, without waiting for what comes behind: a system call
/// costs less than copying them.
const DIRECT_FROM: usize = 16 * 1024;

impl<H: Handler, S: Stream> Peer<H, S> {
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

    #[inline(never)]
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
    #[inline(always)]
    pub(super) fn send_back(&mut self, desk: &mut Desk<'_, H::Message>, run: &[u8], last: bool) {
        if run.is_empty() {
            return;
        }
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
    #[inline(never)]
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

    #[inline(never)]
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
    #[inline(never)]
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
    #[inline]
    fn write(&mut self, desk: &Desk<'_, H::Message>, bytes: &[u8]) -> usize {
        let taken = match self.stream.write(bytes) {
            Ok(count) if count == bytes.len() => count,
            first => self.write_on(desk, bytes, first),
        };
        desk.profile.counters.bytes_out.add(taken as u64);
        taken
    }

    /// What comes after a write that did not take everything.
    #[inline(never)]
    fn write_on(
        &mut self,
        desk: &Desk<'_, H::Message>,
        bytes: &[u8],
        first: io::Result<usize>,
    ) -> usize {
        let (mut taken, mut last) = (0, first);
        loop {
            match last {
                Ok(count) if count > 0 => taken += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.marks &= !mark::WRITABLE;
                    self.watch_room(desk);
                    return taken;
                }
                refused => {
                    let kind = refused.err().map_or(ErrorKind::WriteZero, |error| error.kind());
                    self.broke(kind, CloseReason::Io(kind));
                    return taken;
                }
            }
            if taken == bytes.len() {
                return taken;
            }
            last = self.stream.write(&bytes[taken..]);
        }
    }

    /// The first write was refused: from now on the kernel is to say when there is room. If there is
    /// some already, it says so at once.
    fn watch_room(&mut self, desk: &Desk<'_, H::Message>) {
        if self.is_marked(mark::ROOM_WATCHED) {
            return;
        }
        let token = token::peer(desk.profile.slot, self.seat.key, self.seat.generation);
        match self.stream.watch_room(&desk.turn.registry, token) {
            Ok(()) => self.marks |= mark::ROOM_WATCHED,
            Err(error) => self.broke(error.kind(), CloseReason::Io(error.kind())),
        }
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
}
