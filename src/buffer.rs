//! Bytes that wait: partial packets of the input, and output that the kernel has refused.
//!
//! ```text
//!   Buffer   consumed │ waiting ............ │ spare capacity      one piece, grows as bytes arrive
//!   Queue    Buffer ─ Buffer ─ Bytes ─ Buffer                      output, in order, in pieces
//!   Pool     empty Buffers and Queues, by size, bounded in number and size
//! ```
//!
//! The capacity of a buffer is a power of two, and less than twice the most that was in it. So a
//! large buffer of an earlier burst never holds a few bytes.
//!
//! A connection with no partial packet owns no [`Buffer`], and one with no queued output owns no
//! [`Queue`]. Both are boxed: eight bytes each if there is none. Both return to the [`Pool`].

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::framing::Notes;
use crate::guard::Panics;
use crate::heap_top::HeapTop;
use crate::wheel::Tick;

/// A first-in, first-out run of bytes in one piece.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Invariant: `start <= bytes.len()`.
    start: usize,
    /// Bytes of `as_slice` in which the framing has found no whole packet. Invariant: `<= len()`.
    pub(crate) scanned: usize,
    /// Bytes from the front that the next attempt to find a packet needs, if known.
    pub(crate) need: Option<usize>,
    /// What a user's framer has noted about these bytes. It means nothing if `scanned` is zero.
    pub(crate) notes: Notes,
}

impl Buffer {
    /// The least capacity of a buffer that holds something, in bytes.
    pub(crate) const LEAST: usize = 256;

    /// The bytes that wait.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The least capacity for `len` bytes: a power of two.
    pub(crate) fn fit(len: usize) -> usize {
        len.checked_next_power_of_two().map_or(usize::MAX, |fit| fit.max(Self::LEAST))
    }

    /// Appends `bytes` to the bytes that wait. Consumed space is used again. If that is not enough,
    /// the capacity doubles.
    pub fn append(self: &mut Box<Self>, bytes: &[u8], pool: &mut Pool) {
        if bytes.len() > self.spare() {
            self.make_room(self.len() + bytes.len(), pool);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that fit without a move.
    fn spare(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Makes room for `len` bytes in total.
    #[inline(never)]
    fn make_room(self: &mut Box<Self>, len: usize, pool: &mut Pool) {
        if len > self.capacity()
            && let Some(mut larger) = pool.take_kept(Self::fit(len))
        {
            larger.bytes.extend_from_slice(self.as_slice());
            (larger.scanned, larger.need) = (self.scanned, self.need);
            larger.notes = self.notes;
            return pool.give_buffer(std::mem::replace(self, larger));
        }
        self.bytes.drain(..std::mem::take(&mut self.start));
        self.bytes.reserve_exact(Self::fit(len) - self.bytes.len());
    }

    /// Drops `count` bytes from the front.
    ///
    /// # Panics
    ///
    /// If fewer bytes wait.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "{count} bytes consumed of {}", self.len());
        self.start += count;
        self.scanned = self.scanned.saturating_sub(count);
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// How many more bytes the next attempt to find a packet needs. If that is not known, it is as
    /// many bytes as wait now, and at least 64. This keeps the attempts few, and also the bytes
    /// that are buffered beyond the packet.
    pub(crate) fn missing(&self) -> usize {
        match self.need {
            Some(need) => need.saturating_sub(self.len()),
            None => self.as_many_again(),
        }
    }

    /// The same after an attempt that followed a hint and found no packet. The result is at least
    /// as many bytes as wait now. Otherwise a hint that is always too low would cause one attempt
    /// per byte.
    pub(crate) fn missing_after_failure(&self) -> usize {
        self.missing().max(self.as_many_again())
    }

    fn as_many_again(&self) -> usize {
        self.len().max(64)
    }

    fn reset(&mut self) {
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
        self.bytes.clear();
    }
}

/// A piece of queued output.
#[derive(Debug)]
enum Segment {
    Copied(Box<Buffer>),
    Shared(Bytes),
}

impl Segment {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copied(buffer) => buffer.as_slice(),
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Output that the kernel has not taken yet, oldest first.
#[derive(Debug, Default)]
pub struct Queue {
    segments: VecDeque<Segment>,
    /// Invariant: the sum of the segments' lengths; no segment is empty.
    len: usize,
    /// Capacity that was left over in copied segments when a segment came after them.
    unused: usize,
    /// When the peer last took a byte, or when the queue began.
    pub(crate) progress: Tick,
    /// When the queue was last offered to the kernel because of its clock, or when it began.
    pub(crate) offered: Tick,
}

impl Queue {
    /// An empty queue with as much memory as a short one has.
    fn small() -> Self {
        Self { segments: VecDeque::with_capacity(4), ..Self::default() }
    }

    /// Copied output is cut into pieces of about this many bytes. So a long queue does not move as
    /// it grows, and its memory is freed as it drains.
    pub const SEGMENT_LEN: usize = 64 * 1024;
    /// The least capacity of a copied segment, in bytes. It grows fourfold, up to `SEGMENT_LEN`.
    pub(crate) const LEAST: usize = 4 * 1024;
    /// The most bytes of capacity that segments in the middle of a queue leave unused together.
    pub(crate) const MAX_UNUSED: usize = 64 * 1024;
    /// A queue that had more segments at once than this, more than a turn writes, is not kept.
    const MAX_KEPT: usize = 32;

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, oldest first. None is empty.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().map(Segment::as_slice)
    }

    /// Copies `bytes` to the end of the queue.
    pub fn append(&mut self, bytes: &[u8], pool: &mut Pool) {
        self.len += bytes.len();
        match self.segments.back_mut() {
            Some(Segment::Copied(last)) if bytes.len() <= last.spare() => last.bytes.extend(bytes),
            _ => self.append_segments(bytes, pool),
        }
    }

    /// Fills the last segment, and appends as many segments as the rest needs.
    #[inline(never)]
    fn append_segments(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        while !bytes.is_empty() {
            if let Some(Segment::Copied(last)) = self.segments.back_mut() {
                let fit = Self::fit(last.len() + bytes.len());
                // A segment that is being sent does not grow: its bytes would move again and again.
                if last.start == 0 && last.capacity() < fit {
                    last.make_room(fit, pool);
                }
                let (now, later) = bytes.split_at(bytes.len().min(last.spare()));
                last.bytes.extend_from_slice(now);
                bytes = later;
            }
            if !bytes.is_empty() {
                let fit = Self::fit(bytes.len());
                self.segments.push_back(Segment::Copied(pool.take_buffer(fit)));
            }
        }
    }

    /// The capacity of a segment with `len` bytes, or with the first of them.
    pub(crate) fn fit(len: usize) -> usize {
        match len {
            0..=Self::LEAST => Self::LEAST,
            len if len <= 4 * Self::LEAST => 4 * Self::LEAST,
            _ => Self::SEGMENT_LEN,
        }
    }

    /// Appends a copy of `before`, and then `bytes` without a copy.
    pub fn append_shared(&mut self, before: &[u8], bytes: Bytes, pool: &mut Pool) {
        let joins = matches!(self.segments.back(), Some(Segment::Copied(_)));
        if !joins && (1..=Self::LEAST).contains(&before.len()) {
            // No byte will follow in this piece, so it is as small as it can be.
            self.segments.push_back(Segment::Copied(pool.take_buffer(before.len())));
        }
        self.append(before, pool);
        if bytes.is_empty() {
            return;
        }
        if let Some(Segment::Copied(last)) = self.segments.back_mut() {
            if self.unused + last.spare() > Self::MAX_UNUSED {
                last.bytes.shrink_to_fit();
            }
            self.unused += last.spare();
        }
        self.len += bytes.len();
        self.segments.push_back(Segment::Shared(bytes));
    }

    /// Drops `count` bytes from the front, because the kernel has taken them.
    ///
    /// # Panics
    ///
    /// If fewer bytes wait.
    pub fn consume(&mut self, mut count: usize, pool: &mut Pool) {
        assert!(count <= self.len, "{count} bytes written of {}", self.len);
        self.len -= count;
        while count > 0 {
            let Some(front) = self.segments.front_mut() else { break };
            let now = count.min(front.as_slice().len());
            count -= now;
            if now < front.as_slice().len() {
                match front {
                    Segment::Copied(buffer) => buffer.consume(now),
                    Segment::Shared(bytes) => bytes.advance(now),
                }
                continue;
            }
            match self.segments.pop_front() {
                Some(Segment::Copied(buffer)) => {
                    // The spare capacity of the last segment does not count yet.
                    self.unused -= if self.segments.is_empty() { 0 } else { buffer.spare() };
                    pool.give_buffer(buffer);
                }
                Some(Segment::Shared(bytes)) => pool.panics.drop(bytes),
                None => {}
            }
        }
    }
}

/// Empty buffers and queues, kept for the next connection that needs one.
///
/// The pool is bounded in number and in bytes. What exceeds the bounds is freed. Each
/// [`trim`](Self::trim) frees what was not used since the trim before.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "the boxes themselves are what is pooled")]
pub struct Pool {
    /// Buffers of the same capacity: `Buffer::LEAST` bytes on the first shelf, twice as many on
    /// each further one, `MAX_EACH` bytes on the last.
    shelves: [Shelf; Self::SHELVES],
    queues: Vec<Box<Queue>>,
    /// The number of all buffers.
    count: usize,
    /// Capacity of all buffers in bytes.
    held: usize,
    /// The fewest queues that were kept at any time since the last trim.
    idle_queues: usize,
    /// Bytes outside the pool that a trim may return to the system: buffers that were freed since
    /// the last trim, and what others note.
    let_go: usize,
    heap: HeapTop<Queue>,
    /// Panics in drops of the owners of shared bytes that were not counted yet.
    panics: Panics,
}

/// Kept buffers of the same capacity.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "the boxes themselves are what is pooled")]
struct Shelf {
    buffers: Vec<Box<Buffer>>,
    /// The fewest that were kept at any time since the last trim.
    idle: usize,
}

impl Default for Pool {
    /// The vectors start with capacity for everything that the pool may keep. So no long-lived
    /// memory is allocated during a burst.
    fn default() -> Self {
        let shelf = |shelf: usize| {
            let most = Self::MAX_COUNT.min(Self::MAX_HELD / (Buffer::LEAST << shelf));
            Shelf { buffers: Vec::with_capacity(most), idle: 0 }
        };
        Self {
            shelves: std::array::from_fn(shelf),
            queues: Vec::with_capacity(Self::MAX_COUNT),
            count: 0,
            held: 0,
            idle_queues: 0,
            let_go: 0,
            heap: HeapTop::new(Queue::small),
            panics: Panics::default(),
        }
    }
}

impl Pool {
    /// The most buffers, and the most queues, that are kept.
    pub const MAX_COUNT: usize = 1024;
    /// The most bytes of capacity that the kept buffers have together.
    pub const MAX_HELD: usize = 4 * 1024 * 1024;
    /// A buffer with a larger capacity in bytes is not kept.
    pub const MAX_EACH: usize = 128 * 1024;
    /// A trim of fewer bytes than this is not worth its cost. They may stay in the pool for ever.
    pub const TRIM_FROM: usize = 256 * 1024;
    const SHELVES: usize = (Self::MAX_EACH / Buffer::LEAST).ilog2() as usize + 1;

    /// Returns an empty buffer with the least capacity for `len` bytes: a kept one if there is one.
    pub fn take_buffer(&mut self, len: usize) -> Box<Buffer> {
        let fit = Buffer::fit(len);
        self.take_kept(fit).unwrap_or_else(|| {
            Box::new(Buffer { bytes: Vec::with_capacity(fit), ..Buffer::default() })
        })
    }

    /// Returns a kept buffer of this capacity.
    fn take_kept(&mut self, capacity: usize) -> Option<Box<Buffer>> {
        let shelf = self.shelves.get_mut(Self::shelf(capacity)?)?;
        let buffer = shelf.buffers.pop()?;
        shelf.idle = shelf.idle.min(shelf.buffers.len());
        self.count -= 1;
        self.held -= capacity;
        Some(buffer)
    }

    /// Takes a buffer back, and drops the bytes that it holds.
    pub fn give_buffer(&mut self, mut buffer: Box<Buffer>) {
        let capacity = buffer.capacity();
        if let Some(shelf) = Self::shelf(capacity).and_then(|shelf| self.shelves.get_mut(shelf))
            && self.held + capacity <= Self::MAX_HELD
            && self.count < Self::MAX_COUNT
        {
            buffer.reset();
            self.count += 1;
            self.held += capacity;
            shelf.buffers.push(buffer);
        } else {
            self.let_go += capacity;
        }
    }

    /// The panics in drops of the owners of shared bytes since the last call, if there were any.
    #[inline]
    pub(crate) fn take_panics(&mut self) -> Option<Panics> {
        (self.panics.count > 0).then(|| std::mem::take(&mut self.panics))
    }

    /// The shelf for buffers of this capacity. A buffer that was shrunk has none.
    fn shelf(capacity: usize) -> Option<usize> {
        let has_one = capacity.is_power_of_two() && capacity >= Buffer::LEAST;
        has_one.then(|| (capacity / Buffer::LEAST).ilog2() as usize)
    }

    /// Returns an empty queue, a kept one if there is one.
    pub fn take_queue(&mut self) -> Box<Queue> {
        let queue = self.queues.pop().unwrap_or_default();
        self.idle_queues = self.idle_queues.min(self.queues.len());
        queue
    }

    /// Takes a queue back, and drops its output.
    pub fn give_queue(&mut self, mut queue: Box<Queue>) {
        queue.consume(queue.len, self);
        if self.queues.len() < Self::MAX_COUNT && queue.segments.capacity() <= Queue::MAX_KEPT {
            self.queues.push(queue);
        }
    }

    /// Whether a [`trim`](Self::trim), now or later, is worth its cost.
    #[inline]
    pub fn wants_trim(&self) -> bool {
        self.held.max(self.let_go) >= Self::TRIM_FROM
    }

    /// Notes that others have `bytes` of memory that they free when the pool is trimmed.
    pub(crate) fn note_spare(&mut self, bytes: usize) {
        self.let_go = self.let_go.max(bytes);
    }

    /// Frees the memory that was not used since the last trim, and returns it to the system.
    pub fn trim(&mut self) {
        for Shelf { buffers, idle } in &mut self.shelves {
            for buffer in buffers.drain(..*idle) {
                self.count -= 1;
                self.held -= buffer.capacity();
            }
            *idle = buffers.len();
        }
        self.queues.drain(..self.idle_queues);
        self.idle_queues = self.queues.len();
        self.let_go = 0;
        self.heap.give_back();
    }

    /// Bytes of buffer capacity that the pool keeps now.
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize) -> Box<Buffer> {
        let mut buffer: Box<Buffer> = Box::default();
        buffer.append(&vec![7; len], &mut Pool::default());
        buffer
    }

    /// Goal: a buffer that is never empty does not grow without end. Method: consume nine tenths of
    /// the waiting bytes and append as many, a thousand times.
    #[test]
    fn consumed_space_is_used_again() {
        let (mut buffer, mut pool) = (filled(1_000), Pool::default());
        for _ in 0..1_000 {
            buffer.consume(90);
            buffer.append(&[7; 90], &mut pool);
        }
        assert_eq!(buffer.as_slice(), [7; 1_000]);
        assert_eq!(buffer.capacity(), 1_024);
    }

    /// Goal: a buffer is less than twice as large as the most that was ever in it, whatever buffers
    /// the pool has; its bytes survive each move. Method: a pool full of large buffers; a buffer that
    /// grows by 1 to 5,000 bytes at a time, past the largest buffer of the pool.
    #[test]
    fn a_buffer_fits_what_is_in_it() {
        let mut pool = Pool::default();
        (0..32).for_each(|_| pool.give_buffer(filled(Pool::MAX_EACH)));
        for step in [1, 77, 5_000] {
            let (mut buffer, mut bytes) = (pool.take_buffer(1), Vec::new());
            assert_eq!(buffer.capacity(), Buffer::LEAST);
            let most = match step {
                _ if cfg!(miri) => 1_000,
                1 => 5_000,
                _ => 3 * Pool::MAX_EACH,
            };
            while bytes.len() < most {
                let piece: Vec<u8> = (0..step).map(|at: u32| (at % 251) as u8).collect();
                bytes.extend_from_slice(&piece);
                buffer.append(&piece, &mut pool);
                let (len, capacity) = (bytes.len(), buffer.capacity());
                assert_eq!(buffer.as_slice(), bytes);
                assert!(capacity < 2 * len.max(Buffer::LEAST), "{capacity} bytes for {len}");
            }
            pool.give_buffer(buffer);
        }
    }

    /// Bytes of memory that a queue holds for output.
    /// Goal: a partial packet that moves to a larger buffer keeps what is known of it. Method: a buffer
    /// of the pool, which is larger.
    #[test]
    fn a_larger_buffer_keeps_what_is_known_of_its_bytes() {
        let mut pool = Pool::default();
        let larger = filled(2 * Buffer::LEAST);
        pool.give_buffer(larger);
        let mut buffer = filled(Buffer::LEAST - 6);
        (buffer.scanned, buffer.need, buffer.notes) = (250, Some(300), [1, 2, 3, 4]);
        buffer.append(&[7; 10], &mut pool);
        assert_eq!((buffer.scanned, buffer.need, buffer.notes), (250, Some(300), [1, 2, 3, 4]));
    }

    fn memory(queue: &Queue) -> usize {
        let held = |segment: &Segment| match segment {
            Segment::Copied(buffer) => buffer.capacity(),
            Segment::Shared(bytes) => bytes.len(),
        };
        queue.segments.iter().map(held).sum()
    }

    /// Goal: the memory of a queue is at most a constant above what waits in it, however copied and
    /// shared pieces alternate and however little of it was sent. Method: 8 MiB of alternating
    /// pieces, copied ones just above each capacity of a segment; then the peer takes all but the
    /// last 100 kB, in pieces that end inside of segments, while more comes.
    #[test]
    #[cfg_attr(miri, ignore = "megabytes of output take too long")]
    fn a_queue_holds_little_more_than_what_waits() {
        let shared = Bytes::from(vec![1; 16 * 1024]);
        for copied in [4, Queue::LEAST + 1, 4 * Queue::LEAST + 1, Queue::SEGMENT_LEN + 1] {
            let (mut queue, mut pool) = (Queue::default(), Pool::default());
            (0..32).for_each(|_| pool.give_buffer(filled(Pool::MAX_EACH)));
            while queue.len() < 8 << 20 {
                queue.append(&vec![7; copied], &mut pool);
                queue.append_shared(&[], shared.clone(), &mut pool);
                queue.append(&[7], &mut pool);
                let (len, held) = (queue.len(), memory(&queue));
                let most = len + Queue::MAX_UNUSED + Queue::SEGMENT_LEN;
                assert!(held <= most, "{held} bytes for {len}, copied pieces of {copied}");
            }
            while queue.len() > 100_000 {
                queue.consume(60_001, &mut pool);
                queue.append(&[7; 1_000], &mut pool);
                let (len, held) = (queue.len(), memory(&queue));
                let most = len + Queue::MAX_UNUSED + 2 * Queue::SEGMENT_LEN;
                assert!(held <= most, "{held} bytes for {len}, copied pieces of {copied}");
            }
            queue.consume(queue.len(), &mut pool);
            assert_eq!((queue.unused, queue.segments.len()), (0, 0));
        }
    }

    /// Goal: one byte that waits takes one small segment, whatever the pool has. Method: a pool with
    /// large buffers.
    #[test]
    fn a_short_queue_has_a_small_segment() {
        let (mut queue, mut pool) = (Queue::default(), Pool::default());
        (0..32).for_each(|_| pool.give_buffer(filled(Pool::MAX_EACH)));
        queue.append(&[7], &mut pool);
        assert_eq!(memory(&queue), Queue::LEAST);
        queue.append(&[7; 10_000], &mut pool);
        assert_eq!(memory(&queue), 4 * Queue::LEAST);
    }

    /// Goal: copied output is in pieces of at most the stated length, so that a long queue does not
    /// move as it grows. Method: append a byte, then three pieces' length at once.
    #[test]
    fn no_copied_piece_of_a_queue_is_too_long() {
        let (mut queue, mut pool) = (Queue::default(), Pool::default());
        queue.append(&[7], &mut pool);
        queue.append(&[7; 3 * Queue::SEGMENT_LEN], &mut pool);
        for piece in queue.pieces() {
            assert!(piece.len() <= Queue::SEGMENT_LEN, "{} bytes", piece.len());
        }
    }

    /// Goal: each of the three bounds limits what the pool keeps, and `held` is the capacity that
    /// it holds. Method: exceed each bound alone.
    #[test]
    fn the_pool_keeps_no_more_than_it_may() {
        let mut pool = Pool::default();
        pool.give_buffer(filled(Pool::MAX_EACH + 1));
        assert_eq!((pool.count, pool.held()), (0, 0), "too large");

        let most = Pool::MAX_HELD / Pool::MAX_EACH;
        (0..most + 10).for_each(|_| pool.give_buffer(filled(Pool::MAX_EACH)));
        assert_eq!((pool.count, pool.held()), (most, Pool::MAX_HELD), "too much together");
        let again = pool.take_buffer(Pool::MAX_EACH);
        assert!(again.is_empty() && again.capacity() == Pool::MAX_EACH, "empty, with its memory");
        assert_eq!(pool.held(), Pool::MAX_HELD - Pool::MAX_EACH);

        let mut pool = Pool::default();
        (0..Pool::MAX_COUNT + 10).for_each(|_| pool.give_buffer(filled(1)));
        assert_eq!(pool.count, Pool::MAX_COUNT, "too many");
        (0..Pool::MAX_COUNT + 10).for_each(|_| pool.give_queue(Box::default()));
        assert_eq!(pool.queues.len(), Pool::MAX_COUNT, "too many queues");
        assert!(pool.take_queue().is_empty());
        assert_eq!(pool.queues.len(), Pool::MAX_COUNT - 1, "one of them is used again");
    }

    /// Goal: a trim frees the memory of a burst, keeps the memory that is always in use, and is not
    /// wanted for a few bytes. Method: a burst of buffers, then one at a time between trims.
    #[test]
    fn a_trim_frees_what_was_not_needed_since_the_last_trim() {
        let mut pool = Pool::default();
        pool.give_buffer(filled(Pool::TRIM_FROM / 8));
        assert!(!pool.wants_trim(), "a little may stay");
        (1..8).for_each(|_| pool.give_buffer(filled(Pool::TRIM_FROM / 8)));
        (0..8).for_each(|_| pool.give_queue(Box::default()));
        assert!(pool.wants_trim());
        pool.trim();
        assert_eq!((pool.count, pool.queues.len()), (8, 8), "they have only just come");

        let (buffer, queue) = (pool.take_buffer(Pool::TRIM_FROM / 8), pool.take_queue());
        pool.give_buffer(buffer);
        pool.give_queue(queue);
        pool.trim();
        assert_eq!((pool.count, pool.queues.len()), (1, 1), "one was in use");
        assert_eq!(pool.held(), Pool::TRIM_FROM / 8);
        assert!(!pool.wants_trim());

        (0..3).for_each(|_| pool.give_buffer(filled(Pool::MAX_EACH + 1)));
        assert!(pool.wants_trim(), "what the pool did not keep is still the allocator's");
        pool.trim();
        assert!(!pool.wants_trim());
        assert_eq!((pool.count, pool.held()), (0, 0), "the last one was not in use either");
    }
}
