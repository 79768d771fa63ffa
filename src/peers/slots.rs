//! The slots of connections: who owns them, and what is reserved for them.

use std::io;
use std::time::Duration;

use super::{Ended, Peers};
use crate::endpoint::Endpoint;
use crate::handler::Handler;
use crate::logging::{Cause, WATCH_CURE, say};
use crate::loop_state::LoopState;
use crate::peer::Marks;
use crate::stream::Stream;

impl<H: Handler, S: Stream> Peers<H, S> {
    /// Holds a slot for a connection that comes later.
    pub(crate) fn hold(&mut self, state: &mut LoopState) -> u32 {
        let slot = self.slots.hold();
        if slot == self.generations.len() {
            self.generations.push(self.first_generation);
            self.make_room(state);
        }
        u32::try_from(slot).unwrap_or(u32::MAX)
    }

    /// Frees a slot that was held for a connection that does not come. The address that it had is of no
    /// use any more.
    pub(crate) fn let_go(&mut self, state: &mut LoopState, key: u32) {
        self.end_pair(state, key);
        self.slots.let_go(key as usize);
        self.pass_on(key);
        self.release_early(key);
    }

    /// The generation of a slot's owner, or of its next one.
    pub(crate) fn generation(&self, key: u32) -> u32 {
        self.generations[key as usize]
    }

    /// The slot's next owner has another generation.
    fn pass_on(&mut self, key: u32) {
        let generation = &mut self.generations[key as usize];
        *generation = generation.wrapping_add(1);
    }

    /// The connection in this slot is kept up: [`take_ended`](Self::take_ended) tells its end.
    pub(crate) fn keep_up(&mut self, key: u32) {
        if let Some(peer) = self.slots.get_mut(key as usize) {
            peer.marks.insert(Marks::KEPT_UP);
        }
    }

    /// The system cannot register the stream of this peer for events.
    pub(crate) fn cannot_watch(&mut self, state: &LoopState, peer: &Endpoint, error: &io::Error) {
        self.profile.counters.register_errors.add(1);
        if self.gate.opens(Cause::RegisterError, state.nanos()) {
            let label = &self.profile.label;
            say!(Warn, "{label}: peer {peer}: cannot watch it: {error}; {WATCH_CURE}");
        }
    }

    /// Queues bytes that come before all that the handler sends.
    pub(crate) fn send_first(&mut self, state: &mut LoopState, key: u32, bytes: &[u8]) {
        if let Some(peer) = self.slots.get_mut(key as usize) {
            peer.conn.enqueue(bytes, state.now(), &mut state.pool);
        }
    }

    /// Frees a slot.
    pub(super) fn free(&mut self, state: &mut LoopState, key: u32) {
        self.end_pair(state, key);
        if let Some(peer) = self.slots.remove(key as usize)
            && peer.is_marked(Marks::KEPT_UP)
        {
            let up_for = Duration::from_micros(peer.micros_since_accept(state));
            self.ended.push(Ended { key, up_for });
        }
        // The peer was dropped: its descriptor must be closed before its place counts as free.
        self.pass_on(key);
        self.profile.counters.open.sub(1);
        self.freed += 1;
    }

    /// Reserves an entry in each list, and one in the wheel, for every slot. Long-lived memory must
    /// not be allocated in the middle of a burst of buffers: the memory of the buffers could then
    /// not be given back to the system. An entry that is not used takes no resident memory, unless
    /// its list moves to grow. So the first call reserves 4096 entries, or `max_connections` if
    /// that is less.
    pub(super) fn make_room(&mut self, state: &mut LoopState) {
        let slots = self.reserved();
        state.wheel.make_room(slots);
        self.lists.make_room(slots);
    }

    /// The number of slots that memory is reserved for.
    pub(super) fn reserved(&self) -> usize {
        const FIRST: usize = 4096;
        let max_connections = self.profile.name_guard.status.max_connections();
        self.generations.len().max(max_connections.min(FIRST))
    }
}
