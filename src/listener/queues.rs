//! The lists of a listener's peers: peers to work on, peers to flush, peers to sweep.

use slab::Slab;

use crate::handler::Handler;
use crate::peer::{Marks, Peer};
use crate::peer_cx::PeerCx;
use crate::stream::Stream;

/// Keys of the peers to work on. A peer has a mark for each list that it is in.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) run: Vec<u32>,
    /// Always empty: the memory of the previous `run`, for reuse.
    pub(super) spare: Vec<u32>,
    pub(super) flush: Vec<u32>,
    pub(super) sweep: Vec<u32>,
}

impl Lists {
    /// Runs after each piece of work on a peer. If the peer's end can be concluded, this concludes
    /// it. Then the peer goes into the lists where it belongs. Most peers are idle, and go into
    /// none.
    #[inline]
    pub(super) fn requeue<H: Handler, S: Stream>(
        &mut self,
        peer: &mut Peer<H, S>,
        cx: &mut PeerCx<'_, H::Message>,
    ) {
        debug_assert!(cx.state.out.is_empty(), "output belongs to one peer at a time");
        if !peer.is_idle() {
            peer.conclude(cx);
            self.put(peer);
        }
        peer.invariants();
    }

    /// Puts a peer into every list that it belongs to and is not in.
    pub(super) fn put<H: Handler, S: Stream>(&mut self, peer: &mut Peer<H, S>) {
        if peer.wants_flush() {
            push(&mut self.flush, peer, Marks::FLUSH);
        }
        if peer.conn.life().is_ending() {
            push(&mut self.sweep, peer, Marks::SWEEP);
        }
        if peer.wants_work() {
            self.run(peer);
        }
    }

    /// Queues a peer for the next `work`.
    pub(super) fn run<H: Handler, S: Stream>(&mut self, peer: &mut Peer<H, S>) {
        push(&mut self.run, peer, Marks::QUEUED);
    }

    pub(super) fn are_empty(&self) -> bool {
        self.run.is_empty() && self.flush.is_empty() && self.sweep.is_empty()
    }

    /// Checks what must hold between two phases: every marked peer is in the list of that mark. The
    /// list may have its key twice: an entry that an earlier owner of the slot left is harmless,
    /// and a search for it is expensive.
    pub(super) fn invariants<H: Handler, S: Stream>(&self, peers: &Slab<Peer<H, S>>) {
        for (list, mark) in
            [(&self.run, Marks::QUEUED), (&self.flush, Marks::FLUSH), (&self.sweep, Marks::SWEEP)]
        {
            for (_, peer) in peers.iter().filter(|(_, peer)| peer.is_marked(mark)) {
                debug_assert!(list.contains(&peer.identity.key), "{mark:?} and its list");
            }
        }
        debug_assert!(self.spare.is_empty());
    }

    /// Reserves memory, so that no list grows while at most `slots` slots are in use.
    pub(super) fn make_room(&mut self, slots: usize) {
        for list in [&mut self.run, &mut self.spare, &mut self.flush, &mut self.sweep] {
            list.reserve(slots.saturating_sub(list.len()));
        }
    }
}

#[inline]
fn push<H: Handler, S: Stream>(list: &mut Vec<u32>, peer: &mut Peer<H, S>, mark: Marks) {
    if !peer.is_marked(mark) {
        peer.marks.insert(mark);
        list.push(peer.identity.key);
    }
}
