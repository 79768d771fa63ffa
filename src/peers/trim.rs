//! What a listener gives back after a burst: memory for connections, timers and messages.

use super::Peers;
use crate::handler::Handler;
use crate::loop_state::LoopState;
use crate::mailbox::Envelope;
use crate::stream::Stream;

impl<H: Handler, S: Stream> Peers<H, S> {
    /// Asks for a trim if this listener holds memory that may not be needed any more.
    pub(super) fn ask_for_trim(&self, state: &mut LoopState) {
        state.ask_for_trim(self.spare());
    }

    /// Bytes of memory that may not be needed any more.
    fn spare(&self) -> usize {
        let messages = self.inbox.capacity() + self.swapped;
        let queues = messages * size_of::<Envelope<H::Message>>();
        let lists = self.lists.spare(self.reserved().max(self.slots.keys()));
        self.slots.spare() + self.timers.spare() + queues + lists
    }

    /// Frees the memory that was not needed since the last trim. Returns how many bytes may be
    /// freed by a later trim.
    pub(crate) fn trim_memory(&mut self, state: &mut LoopState) -> usize {
        self.timers.trim();
        self.slots.trim();
        let kept = self.generations.len().min(self.slots.keys());
        // The next owner of a forgotten slot gets a generation that the slot has never had.
        let forgotten = self.generations.drain(kept..);
        self.first_generation = forgotten.fold(self.first_generation, u32::max);
        self.generations.shrink_to(2 * kept);
        self.lists.shrink(kept);
        self.make_room(state);
        let messages = std::mem::take(&mut self.inbox_peak).max(self.inbox.len());
        // A queue that grows from another capacity would grow above the bound of the mailbox.
        let messages = messages.checked_next_power_of_two().unwrap_or(messages);
        self.inbox.shrink_to(messages);
        self.profile.mailbox.shrink(messages);
        self.swapped = self.swapped.min(messages);
        self.spare()
    }
}
