//! Delivery of everything but packets: messages, broadcasts, and the handler's own timers.

use super::Peers;
use crate::error::DialFailure;
use crate::handler::{Handler, Info};
use crate::loop_state::LoopState;
use crate::mailbox::{Envelope, Parcel};
use crate::peer::Peer;
use crate::stream::Stream;
use crate::time_budget::Phase;

impl<H: Handler, S: Stream> Peers<H, S> {
    #[inline]
    pub(super) fn has_messages(&self) -> bool {
        self.notified || self.broadcast.is_some() || !self.inbox.is_empty()
    }

    /// Delivers at most as many messages as the budget of one turn allows.
    #[inline(never)]
    pub(super) fn deliver_some(&mut self, state: &mut LoopState) {
        if self.notified && self.inbox.is_empty() {
            self.swapped = self.inbox.capacity();
            self.profile.mailbox.take(&mut self.inbox);
            self.inbox_peak = self.inbox_peak.max(self.inbox.len());
            self.ask_for_trim(state);
            self.notified = false;
        }
        state.begin_phase(Phase::Deliver);
        self.deliver_in_budget(state);
        self.profile.mailbox.tell_waiting();
    }

    fn deliver_in_budget(&mut self, state: &mut LoopState) {
        let mut budget = state.options.message_budget;
        while budget > 0 {
            if self.broadcast.is_some() {
                self.broadcast_some(state, &mut budget);
            } else if let Some(envelope) = self.inbox.pop_front() {
                self.deliver_one(state, envelope);
                budget -= 1;
            } else {
                return;
            }
            if state.is_share_over(1) {
                return;
            }
        }
        self.profile.counters.message_budget_hits.add(1);
    }

    /// Delivers one message if its receiver still exists. If this is the `last` message of the
    /// turn, the answer is written at once. Otherwise it is written together with later answers.
    pub(super) fn message(
        &mut self,
        state: &mut LoopState,
        key: u32,
        message: H::Message,
        last: bool,
    ) {
        self.with_peer(state, key, |peer, cx| {
            peer.deliver_message(cx, message);
            peer.flush_replies(cx, last);
        });
    }

    pub(super) fn listens(&self, key: u32) -> bool {
        self.slots.get(key as usize).is_some_and(Peer::listens)
    }

    pub(crate) fn is_current(&self, key: u32, generation: u32) -> bool {
        self.slots.get(key as usize).is_some_and(|peer| peer.identity.generation == generation)
    }

    pub(super) fn deliver_one(&mut self, state: &mut LoopState, envelope: Envelope<H::Message>) {
        match envelope {
            Envelope::To { key, generation, message } => {
                let is_current = self.is_current(key, generation);
                if !is_current && self.is_dialled(key, generation) {
                    return self.keep(key, Envelope::To { key, generation, message });
                }
                // The message no longer counts as waiting, so that its receiver can send a message
                // to the mailbox even if the mailbox was full.
                self.profile.mailbox.delivered();
                if is_current && self.listens(key) {
                    let last = self.inbox.is_empty();
                    self.message(state, key, message, last);
                } else {
                    self.drop_message(state, message);
                }
            }
            Envelope::Wake { key, generation } if self.is_dialled(key, generation) => {
                self.keep(key, envelope);
            }
            Envelope::Wake { key, generation } => {
                self.profile.mailbox.delivered();
                self.profile.mailbox.begin_wake(key, generation);
                self.tell(state, key, generation, Info::Wake);
            }
            Envelope::Other(parcel) => match parcel.group() {
                Some(group) => self.begin_broadcast(state, group, parcel),
                None => self.tell_one(state, *parcel),
            },
        }
    }

    /// Tells a connection what it has asked for.
    fn tell_one(&mut self, state: &mut LoopState, parcel: Parcel<H::Message>) {
        self.profile.mailbox.delivered();
        match parcel {
            Parcel::Ready { key, generation, baton } => {
                self.tell(state, key, generation, Info::MailboxReady);
                // The next one that waits for the same mailbox is told afterwards.
                drop(baton);
            }
            Parcel::DialFailed { key, generation, failure } => {
                let DialFailure { id, target, error, .. } = &failure;
                let failed = Info::DialFailed { id: *id, target, error };
                self.tell(state, key, generation, failed);
            }
            Parcel::Message { .. } | Parcel::Packet { .. } => {}
        }
    }

    /// Whether this is the address of a connection that is being dialled.
    #[cold]
    pub(crate) fn is_dialled(&self, key: u32, generation: u32) -> bool {
        self.slots.is_held(key as usize) && self.generation(key) == generation
    }

    /// Keeps a message for a connection that is being dialled. It counts as a message in the mailbox.
    fn keep(&mut self, key: u32, envelope: Envelope<H::Message>) {
        self.early.entry(key).or_default().push(envelope);
    }

    /// A dial is over: what came for its connection meanwhile is delivered before all that comes later,
    /// or dropped if there is no connection.
    pub(crate) fn release_early(&mut self, key: u32) {
        if let Some(early) = self.early.remove(&key) {
            early.into_iter().rev().for_each(|envelope| self.inbox.push_front(envelope));
        }
    }

    /// Hands an info to the owner of a slot, if its generation is still the same.
    fn tell(
        &mut self,
        state: &mut LoopState,
        key: u32,
        generation: u32,
        info: Info<'_, H::Message>,
    ) {
        if self.is_current(key, generation) && self.listens(key) {
            let last = self.inbox.is_empty();
            self.with_peer(state, key, |peer, cx| {
                peer.deliver_info(cx, info);
                peer.flush_replies(cx, last);
            });
        }
    }

    pub(super) fn drop_message(&mut self, state: &LoopState, message: H::Message) {
        self.profile.counters.dropped_messages.add(1);
        self.profile.drop_value("a message", message, &mut self.gate, state.nanos());
    }

    /// Delivers the message of a `send_after` whose time has come.
    pub(crate) fn user_timer(&mut self, state: &mut LoopState, index: u32) {
        let key = self.timers.owner(index);
        let Some(list) = self.slots[key as usize].conn.timers_if_any() else { return };
        let removed = self.timers.remove_at(index, list);
        state.metrics.timer_lateness.record(state.expiry_now().0.saturating_sub(removed.at.0));
        if self.listens(key) {
            self.message(state, key, removed.message, false);
        } else {
            self.drop_message(state, removed.message);
        }
        self.ask_for_trim(state);
    }
}
