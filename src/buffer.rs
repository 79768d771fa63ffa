//! Bytes that wait: partial packets of the input, and output that the kernel has refused.
//!
//! ```text
//!   Buffer   consumed │ waiting ............ │ spare capacity      one piece, grows as bytes arrive
//!   Queue    Buffer ─ Buffer ─ Bytes ─ Buffer                      output, in order, in pieces
//!   Pool     empty Buffers and Queues, bounded in number and size
//! ```
//!
//! A connection with no partial packet owns no [`Buffer`], and one with no queued output owns no
//! [`Queue`]. Both are boxed, so a connection without one pays eight bytes for it. Both return to
//! the [`Pool`], so the steady state allocates no memory.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::framing::Notes;
use crate::guard::Panics;
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

    /// Appends `bytes` to the bytes that wait. Memory doubles as bytes arrive. If the consumed
    /// space is larger than the waiting bytes, it is used again. So each byte moves O(1) times.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.start > self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
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
#[derive(Debug)]
pub struct Queue {
    segments: VecDeque<Segment>,
    /// Invariant: the sum of the segments' lengths; no segment is empty.
    len: usize,
    /// When the peer last took a byte, or when the queue began.
    pub(crate) progress: Tick,
}

impl Default for Queue {
    fn default() -> Self {
        Self { segments: VecDeque::new(), len: 0, progress: Tick(0) }
    }
}

impl Queue {
    /// Copied output is cut into pieces of about this many bytes. So a long queue does not move as
    /// it grows, and its memory is freed as it drains.
    pub const SEGMENT_LEN: usize = 64 * 1024;

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The oldest piece, never empty.
    pub fn front(&self) -> Option<&[u8]> {
        self.segments.front().map(Segment::as_slice)
    }

    /// Copies `bytes` to the end of the queue.
    pub fn append(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let room = match self.segments.back_mut() {
                Some(Segment::Copied(last)) if last.len() < Self::SEGMENT_LEN => last,
                _ => {
                    self.segments.push_back(Segment::Copied(pool.take_buffer()));
                    continue;
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(Self::SEGMENT_LEN - room.len()));
            room.append(now);
            bytes = later;
        }
    }

    /// Appends `bytes` without copying them.
    pub fn append_shared(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.segments.push_back(Segment::Shared(bytes));
        }
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
            match front {
                Segment::Copied(buffer) => buffer.consume(now),
                Segment::Shared(bytes) => bytes.advance(now),
            }
            count -= now;
            if front.as_slice().is_empty() {
                match self.segments.pop_front() {
                    Some(Segment::Copied(buffer)) => pool.give_buffer(buffer),
                    Some(Segment::Shared(bytes)) => pool.panics.drop(bytes),
                    None => {}
                }
            }
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.consume(self.len, pool);
    }
}

/// Empty buffers and queues, kept for the next connection that needs one.
///
/// The pool is bounded in number and in bytes. What exceeds the bounds is freed. Each
/// [`trim`](Self::trim) frees what was not used since the trim before.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "the boxes themselves are what is pooled")]
pub struct Pool {
    buffers: Vec<Box<Buffer>>,
    queues: Vec<Box<Queue>>,
    /// Capacity of `buffers` in bytes.
    held: usize,
    /// The fewest buffers, and the fewest queues, that were kept at any time since the last trim.
    idle_buffers: usize,
    idle_queues: usize,
    /// Bytes of buffers that were given back since the last trim and were freed.
    let_go: usize,
    /// Empty boxes from the bottom of the heap. [`trim`](Self::trim) needs them.
    low: [Option<Box<Queue>>; Self::SET_ASIDE],
    /// Panics in drops of the owners of shared bytes that were not counted yet.
    panics: Panics,
}

impl Default for Pool {
    /// The vectors start with capacity for everything that the pool may keep. So no long-lived
    /// memory is allocated during a burst.
    fn default() -> Self {
        Self {
            buffers: Vec::with_capacity(Self::MAX_COUNT),
            queues: Vec::with_capacity(Self::MAX_COUNT),
            held: 0,
            idle_buffers: 0,
            idle_queues: 0,
            let_go: 0,
            low: Self::boxes(),
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
    /// glibc sets aside this many freed blocks of each size per thread. See [`trim`](Self::trim).
    const SET_ASIDE: usize = 7;
    /// Bytes of a block that glibc treats as large, and does not map on its own. See
    /// [`trim`](Self::trim).
    const NUDGE: usize = 96 * 1024;

    /// Returns an empty buffer. It has the memory of a kept buffer, if there is one.
    pub fn take_buffer(&mut self) -> Box<Buffer> {
        let Some(buffer) = self.buffers.pop() else { return Box::default() };
        self.idle_buffers = self.idle_buffers.min(self.buffers.len());
        self.held -= buffer.capacity();
        buffer
    }

    /// Takes a buffer back, and drops the bytes that it holds.
    pub fn give_buffer(&mut self, mut buffer: Box<Buffer>) {
        let capacity = buffer.capacity();
        if capacity <= Self::MAX_EACH
            && self.held + capacity <= Self::MAX_HELD
            && self.buffers.len() < Self::MAX_COUNT
        {
            buffer.reset();
            self.held += capacity;
            self.buffers.push(buffer);
        } else {
            self.let_go += capacity;
        }
    }

    /// The panics in drops of the owners of shared bytes since the last call, if there were any.
    #[inline]
    pub(crate) fn take_panics(&mut self) -> Option<Panics> {
        (self.panics.count > 0).then(|| std::mem::take(&mut self.panics))
    }

    /// Returns an empty queue, a kept one if there is one.
    pub fn take_queue(&mut self) -> Box<Queue> {
        let queue = self.queues.pop().unwrap_or_default();
        self.idle_queues = self.idle_queues.min(self.queues.len());
        queue
    }

    /// Takes a queue back, and drops the output that it holds.
    pub fn give_queue(&mut self, mut queue: Box<Queue>) {
        queue.clear(self);
        if self.queues.len() < Self::MAX_COUNT && queue.segments.capacity() <= 64 {
            self.queues.push(queue);
        }
    }

    /// Whether a [`trim`](Self::trim), now or later, is worth its cost.
    #[inline]
    pub fn wants_trim(&self) -> bool {
        self.held.max(self.let_go) >= Self::TRIM_FROM
    }

    /// Frees the memory that was not used since the last trim, and makes glibc return it to the
    /// system.
    ///
    /// glibc returns memory only from the top of its heap, and only when a large block is freed. So
    /// a large block is allocated and freed here.
    ///
    /// After a burst the top of the heap may still be in use: glibc keeps some freed blocks in a
    /// cache of the thread, and these may lie at the top. So this replaces them:
    ///
    /// 1. It allocates boxes, which takes the blocks out of the cache.
    /// 2. It frees the boxes in `low`, which lie at the bottom of the heap. They fill the cache.
    /// 3. It frees the boxes of step 1. The cache is full, so glibc frees them.
    ///
    /// Other allocators do not need this, and it does them no harm.
    pub fn trim(&mut self) {
        for buffer in self.buffers.drain(..self.idle_buffers) {
            self.held -= buffer.capacity();
        }
        self.queues.drain(..self.idle_queues);
        (self.idle_buffers, self.idle_queues) = (self.buffers.len(), self.queues.len());
        self.let_go = 0;
        let high = Self::boxes();
        self.low = Default::default();
        drop(high);
        drop(std::hint::black_box(Vec::<u8>::with_capacity(Self::NUDGE)));
        self.low = Self::boxes();
    }

    /// As many boxes as glibc sets aside blocks of one size for a thread. Each box takes two small
    /// blocks.
    fn boxes() -> [Option<Box<Queue>>; Self::SET_ASIDE] {
        let full = || Queue { segments: VecDeque::with_capacity(4), ..Queue::default() };
        std::array::from_fn(|_| Some(Box::new(full())))
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
        buffer.append(&vec![7; len]);
        buffer
    }

    /// Goal: a buffer that is never empty does not grow without end. Method: consume nine tenths of
    /// the waiting bytes and append as many, a thousand times.
    #[test]
    fn consumed_space_is_used_again() {
        let mut buffer = filled(100);
        for _ in 0..1_000 {
            buffer.consume(90);
            buffer.append(&[7; 90]);
        }
        assert_eq!(buffer.as_slice(), [7; 100]);
        assert!(buffer.capacity() <= 400, "{} bytes for 100", buffer.capacity());
    }

    /// Goal: copied output is in pieces of at most the stated length, so that a long queue does not
    /// move as it grows. Method: append a byte, then three pieces' length at once.
    #[test]
    fn no_copied_piece_of_a_queue_is_too_long() {
        let (mut queue, mut pool) = (Queue::default(), Pool::default());
        queue.append(&[7], &mut pool);
        queue.append(&[7; 3 * Queue::SEGMENT_LEN], &mut pool);
        while let Some(front) = queue.front() {
            let len = front.len();
            assert!(len <= Queue::SEGMENT_LEN, "{len} bytes");
            queue.consume(len, &mut pool);
        }
    }

    /// Goal: each of the three bounds limits what the pool keeps, and `held` is the capacity that
    /// it holds. Method: exceed each bound alone.
    #[test]
    fn the_pool_keeps_no_more_than_it_may() {
        let mut pool = Pool::default();
        pool.give_buffer(filled(Pool::MAX_EACH + 1));
        assert_eq!((pool.buffers.len(), pool.held()), (0, 0), "too large");

        let most = Pool::MAX_HELD / Pool::MAX_EACH;
        (0..most + 10).for_each(|_| pool.give_buffer(filled(Pool::MAX_EACH)));
        assert_eq!((pool.buffers.len(), pool.held()), (most, Pool::MAX_HELD), "too much together");
        let again = pool.take_buffer();
        assert!(again.is_empty() && again.capacity() == Pool::MAX_EACH, "empty, with its memory");
        assert_eq!(pool.held(), Pool::MAX_HELD - Pool::MAX_EACH);

        let mut pool = Pool::default();
        (0..Pool::MAX_COUNT + 10).for_each(|_| pool.give_buffer(filled(1)));
        assert_eq!(pool.buffers.len(), Pool::MAX_COUNT, "too many");
        (0..Pool::MAX_COUNT + 10).for_each(|_| pool.give_queue(Box::default()));
        assert_eq!(pool.queues.len(), Pool::MAX_COUNT, "too many queues");
        assert!(pool.take_queue().is_empty());
        assert_eq!(pool.queues.len(), Pool::MAX_COUNT - 1, "one of them is used again");
    }

    /// Goal: a trim frees the memory of a burst, keeps the memory that is always in use, and is not
    /// wanted for a few bytes. Method: a burst of buffers, then one at a time between trims.
    #[test]
    fn a_trim_gives_back_what_nobody_needed_since_the_last() {
        let mut pool = Pool::default();
        pool.give_buffer(filled(Pool::TRIM_FROM / 8));
        assert!(!pool.wants_trim(), "a little may stay");
        (1..8).for_each(|_| pool.give_buffer(filled(Pool::TRIM_FROM / 8)));
        (0..8).for_each(|_| pool.give_queue(Box::default()));
        assert!(pool.wants_trim());
        pool.trim();
        assert_eq!((pool.buffers.len(), pool.queues.len()), (8, 8), "they have only just come");

        let (buffer, queue) = (pool.take_buffer(), pool.take_queue());
        pool.give_buffer(buffer);
        pool.give_queue(queue);
        pool.trim();
        assert_eq!((pool.buffers.len(), pool.queues.len()), (1, 1), "one was in use");
        assert_eq!(pool.held(), pool.buffers[0].capacity());
        assert!(!pool.wants_trim());

        (0..3).for_each(|_| pool.give_buffer(filled(Pool::MAX_EACH + 1)));
        assert!(pool.wants_trim(), "what the pool did not keep is still the allocator's");
        pool.trim();
        assert!(!pool.wants_trim());
        assert_eq!((pool.buffers.len(), pool.held()), (0, 0), "nobody needed the last one either");
    }
}
