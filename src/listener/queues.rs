//! The lists of a listener's peers: to be worked on, to be flushed, to be swept.

use crate::connection::flag;
use crate::handler::Handler;
use crate::peer::{Peer, mark};
use crate::stream::Stream;

/// Who is to be worked on, by key. A mark tells a peer that it is in a list.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) run: Vec<u32>,
    /// The memory of the `run` before this one.
    pub(super) spare: Vec<u32>,
    pub(super) flush: Vec<u32>,
    pub(super) sweep: Vec<u32>,
}

impl Lists {
    /// Whoever was worked on goes where it belongs; most are at rest.
    #[inline]
    pub(super) fn see_off<H: Handler, S: Stream>(&mut self, peer: &mut Peer<H, S>, key: u32) {
        peer.conn.invariants();
        if !peer.is_at_rest() {
            self.put(peer, key);
        }
    }

    /// Puts a peer into every list that it belongs to and is not in.
    pub(super) fn put<H: Handler, S: Stream>(&mut self, peer: &mut Peer<H, S>, key: u32) {
        if peer.wants_flush() && !peer.is_marked(mark::FLUSH) {
            peer.marks |= mark::FLUSH;
            self.flush.push(key);
        }
        if peer.conn.has(flag::CLOSING) && !peer.is_marked(mark::SWEEP) {
            peer.marks |= mark::SWEEP;
            self.sweep.push(key);
        }
        if peer.wants_work() && !peer.is_marked(mark::QUEUED) {
            peer.marks |= mark::QUEUED;
            self.run.push(key);
        }
    }

    pub(super) fn are_empty(&self) -> bool {
        self.run.is_empty() && self.flush.is_empty() && self.sweep.is_empty()
    }

    /// So that none of them has to grow with fewer than so many slots.
    pub(super) fn make_room(&mut self, slots: usize) {
        for list in [&mut self.run, &mut self.spare, &mut self.flush, &mut self.sweep] {
            list.reserve(slots.saturating_sub(list.len()));
        }
    }
}
