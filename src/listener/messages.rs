//! What reaches a handler besides packets: messages, broadcasts, and timers of its own.

use super::Listener;
use crate::acceptor::Acceptor;
use crate::connection::flag;
use crate::dispatch::guarded;
use crate::handler::{Accepted, Handler, Info};
use crate::logging::Cause;
use crate::mailbox::Mail;
use crate::options::ReactorOptions;
use crate::turn::Turn;

/// A broadcast on its way through the slab.
#[derive(Debug)]
pub(super) struct Broadcast<M> {
    pub(super) message: M,
    pub(super) clone: fn(&M) -> M,
    pub(super) next_key: u32,
}

impl<H, F, A> Listener<H, F, A>
where
    H: Handler,
    F: FnMut(&Accepted<'_>) -> H,
    A: Acceptor,
{
    pub(super) fn has_mail(&self) -> bool {
        self.mail || self.broadcast.is_some() || !self.inbox.is_empty()
    }

    /// Delivers as many messages as one turn may.
    pub(super) fn deliver_some(&mut self, turn: &mut Turn) {
        if self.mail && self.inbox.is_empty() {
            self.profile.mailbox.take(&mut self.inbox);
            self.mail = false;
        }
        for _ in 0..turn.options.message_budget {
            if let Some(broadcast) = self.broadcast.take() {
                self.broadcast_one(turn, broadcast);
            } else if let Some(mail) = self.inbox.pop_front() {
                self.deliver_one(turn, mail);
            } else {
                return;
            }
        }
        self.profile.counters.message_budget_hits.add(1);
    }

    /// Delivers one message if its receiver is still there. What it answers is written at once if
    /// this is the `last` that anybody gets in this turn, else together with what comes behind.
    pub(super) fn message(&mut self, turn: &mut Turn, key: u32, message: H::Message, last: bool) {
        self.profile.counters.messages.add(1);
        self.with_peer(turn, key, |peer, desk| {
            peer.dispatch(desk, |handler, ctx| {
                let action = handler.handle_info(Info::Message(message), ctx);
                ctx.apply(action);
            });
            if last {
                peer.write_out(desk);
            } else {
                peer.queue_out(desk, 0);
            }
            // Many messages may come in one turn: a peer that would take their answers must not be
            // ended for what it was never offered.
            if peer.conn.queued() >= ReactorOptions::FLUSH_AT {
                peer.flush(desk);
            }
            peer.settle(desk);
        });
    }

    pub(super) fn listens(&self, key: u32) -> bool {
        self.peers
            .get(key as usize)
            .is_some_and(|peer| peer.handler.is_some() && !peer.conn.has(flag::CLOSING))
    }

    pub(super) fn is_current(&self, key: u32, generation: u32) -> bool {
        self.peers.get(key as usize).is_some_and(|peer| peer.seat.generation == generation)
    }

    pub(super) fn deliver_one(&mut self, turn: &mut Turn, mail: Mail<H::Message>) {
        match mail {
            Mail::To { key, generation, message } => {
                if self.is_current(key, generation) && self.listens(key) {
                    let last = self.inbox.is_empty();
                    self.message(turn, key, message, last);
                } else {
                    self.drop_message(turn, message);
                }
                self.profile.mailbox.delivered();
            }
            Mail::All { message, clone } => {
                self.broadcast = Some(Broadcast { message, clone, next_key: 0 });
            }
        }
    }

    /// One recipient of the broadcast on its way. The bound on keys is taken from the slab each
    /// time: who is accepted meanwhile may get it or not.
    pub(super) fn broadcast_one(&mut self, turn: &mut Turn, mut broadcast: Broadcast<H::Message>) {
        while (broadcast.next_key as usize) < self.generations.len() {
            let key = broadcast.next_key;
            broadcast.next_key += 1;
            if self.listens(key) {
                match guarded(|| (broadcast.clone)(&broadcast.message)) {
                    Some(message) => self.message(turn, key, message, self.inbox.is_empty()),
                    None => self.profile.counters.panics.add(1),
                }
                self.broadcast = Some(broadcast);
                return;
            }
        }
        guarded(|| drop(broadcast.message));
        self.profile.mailbox.delivered();
    }

    pub(super) fn drop_message(&mut self, turn: &Turn, message: H::Message) {
        self.profile.counters.dropped_messages.add(1);
        if guarded(|| drop(message)).is_none() {
            self.profile.counters.panics.add(1);
            if self.gate.opens(Cause::DroppedMessage, turn.nanos()) {
                log::error!("{}: the drop of a message panicked", self.profile.name);
            }
        }
    }

    /// A `send_after` has run out.
    pub(super) fn user_timer(&mut self, turn: &mut Turn, index: u32) {
        let key = self.timers.owner(index);
        let Some(first) = self.peers[key as usize].conn.first_timer() else { return };
        let removed = self.timers.remove_at(index, first);
        turn.pulse.timer_lateness.record(turn.judged().0.saturating_sub(removed.at.0));
        if self.listens(key) {
            self.message(turn, key, removed.message, false);
        } else {
            self.drop_message(turn, removed.message);
        }
    }
}
