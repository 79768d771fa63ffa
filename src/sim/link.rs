//! The link between two nodes: its latency, its buffers and its faults.

use std::fmt;
use std::time::Duration;

use crate::simulated::{Cut, World};

/// The link between two nodes. [`Sim::link`](super::Sim::link) returns it.
///
/// At first it is perfect: no latency, and a buffer of 64 KiB for each stream and direction. Each
/// method returns the link, so calls can be chained.
///
/// | fault | new connections | streams that exist |
/// |---|---|---|
/// | [`refuse`](Self::refuse) | are refused, after a round trip | are not touched |
/// | [`black_hole`](Self::black_hole) | get no answer | nothing passes; what is sent waits |
/// | [`cut`](Self::cut) | are not touched | are reset, or forgotten in silence |
/// | [`cut_after`](Self::cut_after) | are cut as well | are cut after so many bytes |
#[derive(Copy, Clone)]
pub struct Link<'a> {
    world: &'a World,
    way: (usize, usize),
}

impl<'a> Link<'a> {
    pub(super) fn new(world: &'a World, way: (usize, usize)) -> Self {
        Self { world, way }
    }

    /// The time from one node to the other, for all that leaves from now on. Nothing overtakes what was
    /// sent before. Default: zero.
    pub fn latency(self, latency: Duration) -> Self {
        self.world.lock().change(self.way, Some(latency), None);
        self
    }

    /// How many bytes of one stream and direction may be under way or unread. A write beyond that is
    /// cut or refused, and the writer is told when the reader has made room. Default: 64 KiB. With zero
    /// nothing can be sent.
    pub fn buffer(self, bytes: usize) -> Self {
        self.world.lock().change(self.way, None, Some(bytes));
        self
    }

    /// From now on connections are refused.
    pub fn refuse(self) -> Self {
        self.world.lock().refuse(self.way);
        self
    }

    /// From now on nothing passes, in both directions, and neither end is told. What is sent, and what was
    /// under way, waits until the link is [healed](Self::heal).
    pub fn black_hole(self) -> Self {
        self.world.lock().silence(self.way);
        self
    }

    /// Cuts the streams that exist. What was under way is lost.
    pub fn cut(self, how: Cut) -> Self {
        self.world.lock().cut(self.way, how);
        self
    }

    /// Cuts each stream once so many more bytes have arrived at the second node of
    /// [`link`](super::Sim::link): those that exist, and those that come. With zero the first byte does
    /// not arrive. Later calls replace this.
    pub fn cut_after(self, bytes: usize, how: Cut) -> Self {
        self.world.lock().cut_after(self.way, (bytes, how));
        self
    }

    /// Ends all faults. What the link has held back leaves now. A stream that was cut stays cut.
    pub fn heal(self) -> Self {
        self.world.lock().heal(self.way);
        self
    }
}

impl fmt::Debug for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("between", &self.way).finish_non_exhaustive()
    }
}
