//! Delivers to the members of a group, or to all connections.

use super::Peers;
use super::broadcast::{Broadcast, OtherFrames, Reach, encode};
use super::queues::Lists;
use crate::groups::GroupId;
use crate::guard::{Panics, guarded};
use crate::handler::Handler;
use crate::loop_state::LoopState;
use crate::mailbox::{Envelope, Parcel};
use crate::pages::Pages;
use crate::peer::Peer;
use crate::peer_cx::PeerCx;
use crate::stream::Stream;
use crate::sync::Arc;

/// At most this many consecutive parcels go to the members together. A member that gets them together
/// gets or answers them with one write.
const TOGETHER: usize = 64;

/// In bytes. Once the packets of the parcels are this long, no further parcel goes with them.
const LONG: usize = 32 * 1024;

impl<H: Handler, S: Stream> Peers<H, S> {
    /// Begins to deliver a parcel for a group, with those for the same group that follow it.
    pub(super) fn begin_broadcast(
        &mut self,
        state: &mut LoopState,
        id: GroupId,
        parcel: Box<Parcel<H::Message>>,
    ) {
        let len = |parcel: &Parcel<H::Message>| match parcel {
            Parcel::Packet { bytes, .. } => bytes.len(),
            Parcel::Message { .. } | Parcel::Ready { .. } | Parcel::DialFailed { .. } => 0,
        };
        // A member gets all of them in one turn, so they must fit into one turn's budget.
        let most = TOGETHER.min(state.options.message_budget as usize);
        let mut bytes = len(&parcel);
        let mut parcels = vec![parcel];
        while parcels.len() < most
            && bytes < LONG
            && let Some(Envelope::Other(next)) = self.inbox.front()
            && next.group() == Some(id)
            && let Some(Envelope::Other(next)) = self.inbox.pop_front()
        {
            bytes += len(&next);
            parcels.push(next);
        }
        let reach = match id {
            GroupId::ALL => Some(Reach::All { next_key: 0 }),
            id => state.groups.begin(id).map(|list| Reach::List { id, list }),
        };
        let Some(reach) = reach else { return self.forget(state, parcels) };
        let frames = self.frames_of(&parcels);
        self.broadcast = Some(Broadcast { parcels, reach, frames, others: OtherFrames::default() });
    }

    /// The frames of these parcels in the listener's framing, if they can be sent as they are.
    fn frames_of(&mut self, parcels: &[Box<Parcel<H::Message>>]) -> Option<Vec<u8>> {
        let mut frames = std::mem::take(&mut self.frames);
        if !encode(&self.profile.framing, parcels, &mut frames, &self.profile.counters) {
            self.keep_frames(frames);
            return None;
        }
        Some(frames)
    }

    /// Keeps the memory of frames for the next ones.
    fn keep_frames(&mut self, mut frames: Vec<u8>) {
        frames.clear();
        if frames.capacity() <= 2 * LONG {
            self.frames = frames;
        }
    }

    /// Delivers the current broadcast to some of its members. Slots without a connection cost next to
    /// nothing, however many there were.
    pub(super) fn broadcast_some(&mut self, state: &mut LoopState, budget: &mut u32) {
        let last = self.inbox.is_empty();
        let Some(mut broadcast) = self.broadcast.take() else { return };
        let (peers, lists, mut cx) = self.lend(state);
        let Broadcast { parcels, reach, frames, others } = &mut broadcast;
        let each = parcels.len();
        let mut sent = 0;
        let is_over = loop {
            if let (Reach::List { id, list }, Some(frames)) = (&*reach, &*frames) {
                let to = (*list, *id);
                let made = (&frames[..], others);
                break fan_out(peers, lists, &mut cx, to, made, parcels, budget, &mut sent);
            }
            let Some(key) = reach.next(peers, &mut cx.state.groups) else { break true };
            // No member gets a part of them in this turn and the rest in the next.
            if (*budget as usize) < each {
                *budget = 0;
                reach.step_back(key, &mut cx.state.groups);
                break false;
            }
            let Some(peer) = peers.get_mut(key as usize) else { continue };
            if peer.listens() {
                *budget -= deliver(peer, &mut cx, parcels);
                peer.flush_replies(&mut cx, last);
                lists.requeue(peer, &mut cx);
            }
            if cx.state.is_share_over(each) {
                break false;
            }
        };
        cx.profile.counters.packets_out.add(sent as u64);
        if !is_over {
            self.broadcast = Some(broadcast);
            return;
        }
        self.end_broadcast(state, broadcast);
    }

    fn end_broadcast(&mut self, state: &LoopState, broadcast: Broadcast<H::Message>) {
        let Broadcast { parcels, frames, others, .. } = broadcast;
        if let Some(frames) = frames {
            self.keep_frames(frames);
        }
        let mut panics = Panics::default();
        others.discard(&mut panics);
        if panics.count > 0 {
            self.profile.drops_panicked("a framer", &panics, &mut self.gate, state.nanos());
        }
        self.forget(state, parcels);
    }

    /// Drops the broadcast that is going on, because the listener ends.
    pub(super) fn forget_broadcast(&mut self, state: &LoopState) {
        if let Some(broadcast) = self.broadcast.take() {
            self.end_broadcast(state, broadcast);
        }
    }

    /// Drops parcels. Each frees its place in the mailbox.
    fn forget(&mut self, state: &LoopState, parcels: Vec<Box<Parcel<H::Message>>>) {
        let mailbox = Arc::clone(&self.profile.mailbox);
        for parcel in parcels {
            self.profile.drop_value("a message", parcel, &mut self.gate, state.nanos());
            mailbox.delivered();
        }
    }
}

/// How many members are looked up together.
const LOOKED_UP: usize = 64;

/// Sends these frames to the members that a list still owes, within the budgets. Returns whether that
/// were all. It calls no handler, so a member can end in it, but not leave the group or join it.
#[expect(clippy::too_many_arguments, reason = "the parts of a broadcast and of a listener")]
fn fan_out<H: Handler, S: Stream>(
    peers: &mut Pages<Peer<H, S>>,
    lists: &mut Lists,
    cx: &mut PeerCx<'_, H::Message>,
    (list, id): (u32, GroupId),
    (frames, others): (&[u8], &mut OtherFrames),
    parcels: &[Box<Parcel<H::Message>>],
    budget: &mut u32,
    sent: &mut usize,
) -> bool {
    let each = parcels.len();
    let cost = u32::try_from(each).unwrap_or(u32::MAX);
    let mut keys = [0; LOOKED_UP];
    loop {
        let most = (*budget as usize / each).min(LOOKED_UP);
        let count = cx.state.groups.next_some(list, id, &mut keys[..most]);
        if count == 0 {
            let is_over = cx.state.groups.next(list, id).is_none();
            if !is_over {
                // No member gets a part of them in this turn and the rest in the next.
                *budget = 0;
                cx.state.groups.step_back(list, id, 1);
            }
            return is_over;
        }
        for (done, key) in (1..).zip(&keys[..count]) {
            *budget -= cost;
            let Some(peer) = peers.get_mut(*key as usize) else { continue };
            if peer.takes_frames() {
                *sent += each;
                if !peer.write_frames(cx, frames) {
                    lists.requeue(peer, cx);
                }
            } else if peer.listens() {
                *sent += reach_otherwise(peer, cx, others, parcels);
                lists.requeue(peer, cx);
            }
            if cx.state.is_share_over(each) {
                cx.state.groups.step_back(list, id, count - done);
                return false;
            }
        }
    }
}

/// Sends these packets to a member that has a framing of its own or something queued. Returns how many
/// were sent as frames that all members with the same framing get.
#[inline(never)]
fn reach_otherwise<H: Handler, S: Stream>(
    peer: &mut Peer<H, S>,
    cx: &mut PeerCx<'_, H::Message>,
    others: &mut OtherFrames,
    parcels: &[Box<Parcel<H::Message>>],
) -> usize {
    if peer.takes_output()
        && let Some(framing) = peer.own_framing()
        && let Some(frames) = others.of(framing, parcels, &cx.profile.counters)
    {
        peer.write_frames(cx, frames);
        return parcels.len();
    }
    deliver(peer, cx, parcels);
    peer.flush_replies(cx, false);
    0
}

/// Delivers these parcels to one member, as long as it listens. Returns how many.
fn deliver<H: Handler, S: Stream>(
    peer: &mut Peer<H, S>,
    cx: &mut PeerCx<'_, H::Message>,
    parcels: &[Box<Parcel<H::Message>>],
) -> u32 {
    let mut delivered = 0;
    for parcel in parcels {
        if !peer.listens() {
            break;
        }
        delivered += 1;
        match &**parcel {
            Parcel::Message { message, clone, .. } => match guarded(|| clone(message)) {
                Some(message) => peer.deliver_message(cx, message),
                None => cx.profile.counters.panics.add(1),
            },
            Parcel::Packet { bytes, slow, .. } => peer.take_packet(cx, bytes, *slow),
            Parcel::Ready { .. } | Parcel::DialFailed { .. } => {}
        }
    }
    delivered
}
