//! The lists of a listener's peers: peers to work on, peers to flush, peers to sweep.

mod keys;

pub(super) use self::keys::Keys;
use crate::handler::Handler;
use crate::pages::Pages;
use crate::peer::{Marks, Peer};
use crate::peer_cx::PeerCx;
use crate::stream::Stream;

/// Keys of the peers to work on. A peer has a mark for each list that it is in, and one mark for the
/// two lists of peers that want work.
///
/// `new` and `old` are the two lists of fq_codel (RFC 8290). A peer goes into `new` if an event makes
/// it ready and no earlier turn left it work. Every other peer that wants work goes into `old`, such
/// as one that a budget cut short. Each turn works on `new` first, and on at least one peer of each
/// list. So a peer with one packet does not wait for peers with thousands.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) new: Keys,
    pub(super) old: Keys,
    pub(super) flush: Keys,
    pub(super) sweep: Keys,
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
        cx.state.renew_output_budget();
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
            self.run(peer, false);
        }
    }

    /// Queues a peer that wants work.
    #[inline]
    pub(super) fn run<H: Handler, S: Stream>(&mut self, peer: &mut Peer<H, S>, is_new: bool) {
        let list = if is_new { &mut self.new } else { &mut self.old };
        push(list, peer, Marks::QUEUED);
    }

    pub(super) fn are_empty(&self) -> bool {
        // Without a branch for each list: this is asked in every turn.
        self.new.is_empty() & self.old.is_empty() & self.flush.is_empty() & self.sweep.is_empty()
    }

    pub(super) fn want_work(&self) -> bool {
        !self.new.is_empty() || !self.old.is_empty()
    }

    /// Checks what must hold between two phases: every marked peer is in the list of that mark. The
    /// list may have its key twice: an entry that an earlier owner of the slot left is harmless,
    /// and a search for it is expensive.
    pub(super) fn invariants<H: Handler, S: Stream>(&self, peers: &Pages<Peer<H, S>>) {
        for (_, peer) in peers.iter() {
            let key = &peer.identity.key;
            let wants_work = self.new.contains(*key) || self.old.contains(*key);
            debug_assert!(!peer.is_marked(Marks::QUEUED) || wants_work);
            debug_assert!(!peer.is_marked(Marks::FLUSH) || self.flush.contains(*key));
            debug_assert!(!peer.is_marked(Marks::SWEEP) || self.sweep.contains(*key));
        }
    }

    /// Bytes of memory that lists for `slots` slots do not need.
    pub(super) fn spare(&self, slots: usize) -> usize {
        let lists = [&self.new, &self.old, &self.flush, &self.sweep];
        lists.map(|list| list.spare(slots)).iter().sum()
    }

    /// Frees the memory that lists for `slots` slots do not need.
    pub(super) fn shrink(&mut self, slots: usize) {
        for list in [&mut self.new, &mut self.old, &mut self.flush, &mut self.sweep] {
            list.shrink(slots);
        }
    }

    /// Reserves memory, so that no list grows while at most `slots` slots are in use.
    pub(super) fn make_room(&mut self, slots: usize) {
        for list in [&mut self.new, &mut self.old, &mut self.flush, &mut self.sweep] {
            list.make_room(slots);
        }
    }
}

#[inline]
fn push<H: Handler, S: Stream>(list: &mut Keys, peer: &mut Peer<H, S>, mark: Marks) {
    if !peer.is_marked(mark) {
        peer.marks.insert(mark);
        list.push(peer.identity.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the lists have room for all slots, and give it back when slots are fewer.
    #[test]
    fn room_in_the_lists_goes_back() {
        let mut lists = Lists::default();
        assert_eq!(lists.spare(0), 0);
        lists.make_room(10_000);
        assert!(lists.spare(0) >= 4 * 10_000 * size_of::<u32>());
        assert_eq!(lists.spare(10_000), 0);
        lists.shrink(0);
        assert_eq!(lists.spare(0), 0);
    }
}
