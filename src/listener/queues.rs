//! The lists of a listener's peers: to be worked on, to be flushed, to be swept.

use slab::Slab;

use crate::handler::Handler;
use crate::peer::{Marks, Peer};
use crate::peer_cx::PeerCx;
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
    /// What follows each piece of work on a peer: its end is told if it can be, and the peer goes
    /// into the lists where it belongs; most peers are at rest, and go into none.
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

    /// Has a peer worked on in the next `work`.
    pub(super) fn run<H: Handler, S: Stream>(&mut self, peer: &mut Peer<H, S>) {
        push(&mut self.run, peer, Marks::QUEUED);
    }

    pub(super) fn are_empty(&self) -> bool {
        self.run.is_empty() && self.flush.is_empty() && self.sweep.is_empty()
    }

    /// What must hold between two phases: every mark has its place in a list. It may have two: one
    /// that an earlier owner of the slot left there is harmless, and dear to look for.
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

    /// So that none of them has to grow with fewer than so many slots.
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
