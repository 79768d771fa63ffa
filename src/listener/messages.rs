//! Delivery of everything but packets: messages, broadcasts, and the handler's own timers.

use super::Listener;
use super::broadcast::Broadcast;
use crate::acceptor::Acceptor;
use crate::guard::guarded;
use crate::handler::Handler;
use crate::loop_state::LoopState;
use crate::mailbox::Envelope;
use crate::peer::Peer;
use crate::sync::Arc;
use crate::time_budget::Phase;

/// At most this many consecutive broadcasts go through the slab together. A connection that gets
/// them together answers them with one write.
const BROADCASTS: usize = 64;

impl<H: Handler, A: Acceptor + 'static> Listener<H, A> {
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
        self.peers.get(key as usize).is_some_and(Peer::listens)
    }

    pub(super) fn is_current(&self, key: u32, generation: u32) -> bool {
        self.peers.get(key as usize).is_some_and(|peer| peer.identity.generation == generation)
    }

    pub(super) fn deliver_one(&mut self, state: &mut LoopState, envelope: Envelope<H::Message>) {
        match envelope {
            Envelope::To { key, generation, message } => {
                // The message no longer counts as waiting, so that its receiver can send a message
                // to the mailbox even if the mailbox was full.
                self.profile.mailbox.delivered();
                if self.is_current(key, generation) && self.listens(key) {
                    let last = self.inbox.is_empty();
                    self.message(state, key, message, last);
                } else {
                    self.drop_message(state, message);
                }
            }
            Envelope::All { message, clone } => {
                // A connection gets all of them in one turn, so they must fit into one turn's
                // budget.
                let most = BROADCASTS.min(state.options.message_budget as usize);
                let mut said = vec![(message, clone)];
                while said.len() < most && matches!(self.inbox.front(), Some(Envelope::All { .. }))
                {
                    if let Some(Envelope::All { message, clone }) = self.inbox.pop_front() {
                        said.push((message, clone));
                    }
                }
                self.broadcast = Some(Broadcast { said, next_key: 0 });
            }
        }
    }

    /// Delivers the current broadcasts to some of their recipients. Slots without a connection cost
    /// next to nothing, however many there were. A connection that is accepted in between may get
    /// the broadcasts or not.
    fn broadcast_some(&mut self, state: &mut LoopState, budget: &mut u32) {
        let last = self.inbox.is_empty();
        let Some(Broadcast { said, mut next_key }) = self.broadcast.take() else { return };
        let (peers, lists, mut cx) = self.lend(state);
        while let Some(key) = peers.next_key(next_key as usize) {
            // No connection gets a part of them in this turn and the rest in the next.
            if (*budget as usize) < said.len() {
                *budget = 0;
                self.broadcast = Some(Broadcast { said, next_key });
                return;
            }
            next_key = peers[key].identity.key + 1;
            let Some(peer) = peers.get_mut(key).filter(|peer| peer.listens()) else { continue };
            for (message, clone) in &said {
                if !peer.listens() {
                    break;
                }
                *budget -= 1;
                match guarded(|| clone(message)) {
                    Some(message) => peer.deliver_message(&mut cx, message),
                    None => cx.profile.counters.panics.add(1),
                }
            }
            peer.flush_replies(&mut cx, last);
            lists.requeue(peer, &mut cx);
            if cx.state.is_share_over(said.len()) {
                self.broadcast = Some(Broadcast { said, next_key });
                return;
            }
        }
        let mailbox = Arc::clone(&self.profile.mailbox);
        self.forget(state, Broadcast { said, next_key }, || mailbox.delivered());
    }

    /// Drops the messages of a broadcast and calls `each` after each of them.
    pub(super) fn forget(
        &mut self,
        state: &LoopState,
        broadcast: Broadcast<H::Message>,
        mut each: impl FnMut(),
    ) {
        for (message, _) in broadcast.said {
            self.profile.drop_value("a message", message, &mut self.gate, state.nanos());
            each();
        }
    }

    pub(super) fn drop_message(&mut self, state: &LoopState, message: H::Message) {
        self.profile.counters.dropped_messages.add(1);
        self.profile.drop_value("a message", message, &mut self.gate, state.nanos());
    }

    /// Delivers the message of a `send_after` whose time has come.
    pub(super) fn user_timer(&mut self, state: &mut LoopState, index: u32) {
        let key = self.timers.owner(index);
        let Some(list) = self.peers[key as usize].conn.timers_if_any() else { return };
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
