//! Delivers to the members of a group, or to all connections.

use super::Peers;
use super::broadcast::{Broadcast, Frames, OtherFrames, Reach};
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
use crate::time_budget::units_of;

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
        let Self { profile, frames, .. } = self;
        let most = profile.options.max_queued;
        let frames = Frames::of(&profile.framing, &parcels, frames, most, &profile.counters);
        self.broadcast = Some(Broadcast { parcels, reach, frames, others: OtherFrames::default() });
    }

    /// Delivers the current broadcast to some of its members. Slots without a connection cost next to
    /// nothing, however many there were.
    pub(super) fn broadcast_some(&mut self, state: &mut LoopState, budget: &mut u32) {
        let last = self.inbox.is_empty();
        let Some(mut broadcast) = self.broadcast.take() else { return };
        let (peers, lists, mut cx) = self.lend(state);
        let is_over = match broadcast.fan_out(peers, lists, &mut cx, budget) {
            Some(is_over) => is_over,
            None => broadcast.visit_each(peers, lists, &mut cx, budget, last),
        };
        if is_over {
            self.end_broadcast(state, broadcast);
        } else {
            self.broadcast = Some(broadcast);
        }
    }

    fn end_broadcast(&mut self, state: &LoopState, broadcast: Broadcast<H::Message>) {
        let Broadcast { parcels, frames, others, .. } = broadcast;
        if let Some(Frames { bytes, .. }) = frames
            && bytes.capacity() <= 2 * LONG
        {
            self.frames = bytes;
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

impl<M> Broadcast<M> {
    /// Sends the frames to members that are still to be reached, within the budgets. Returns whether
    /// those were all. `None` if there are no frames. It calls no handler, so no member leaves the group
    /// and none joins it, but a member can end.
    ///
    /// What all members have in common is looked at and counted once for up to 64 of them.
    fn fan_out<H: Handler<Message = M>, S: Stream>(
        &mut self,
        peers: &mut Pages<Peer<H, S>>,
        lists: &mut Lists,
        cx: &mut PeerCx<'_, M>,
        budget: &mut u32,
    ) -> Option<bool> {
        let (Reach::List { id, list }, Some(frames)) = (&self.reach, &self.frames) else {
            return None;
        };
        let each = self.parcels.len();
        let units = each + units_of(frames.len());
        let piece = frames.in_one_piece();
        let mut keys = [0; LOOKED_UP];
        let (mut members, mut untaken) = (0, 0);
        let is_over = loop {
            // No member gets a part of them in this turn and the rest in the next.
            let affordable = *budget as usize / each;
            let until_look = (cx.state.packets_until_look() as usize / units).max(1);
            let most = affordable.min(until_look).min(LOOKED_UP);
            let count = cx.state.groups.next_some(*list, *id, &mut keys[..most]);
            if count == 0 {
                break cx.state.groups.is_over(*list, *id);
            }
            for key in &keys[..count] {
                let Some(peer) = peers.get_mut(*key as usize) else { continue };
                if let Some(piece) = piece
                    && peer.takes_frames()
                {
                    members += 1;
                    let taken = peer.write_frames(cx, piece);
                    if taken < piece.len() {
                        untaken += piece.len() - taken;
                        lists.requeue(peer, cx);
                    }
                } else if peer.listens() {
                    reach_otherwise(peer, cx, frames, &mut self.others, &self.parcels);
                    lists.requeue(peer, cx);
                }
            }
            *budget -= u32::try_from(each * count).unwrap_or(u32::MAX);
            if cx.state.is_share_over(units * count) {
                break false;
            }
        };
        if !is_over && (*budget as usize) < each {
            *budget = 0;
        }
        frames.count_for(members, &cx.profile.counters);
        cx.profile.counters.bytes_out.add((members * frames.bytes.len() - untaken) as u64);
        Some(is_over)
    }

    /// Delivers the parcels to one member after the other, within the budgets. Returns whether those
    /// were all.
    fn visit_each<H: Handler<Message = M>, S: Stream>(
        &mut self,
        peers: &mut Pages<Peer<H, S>>,
        lists: &mut Lists,
        cx: &mut PeerCx<'_, M>,
        budget: &mut u32,
        last: bool,
    ) -> bool {
        let each = self.parcels.len();
        loop {
            let Some(key) = self.reach.next(peers, &mut cx.state.groups) else { return true };
            // No member gets a part of them in this turn and the rest in the next.
            if (*budget as usize) < each {
                *budget = 0;
                self.reach.step_back(key, &mut cx.state.groups);
                return false;
            }
            let Some(peer) = peers.get_mut(key as usize) else { continue };
            if peer.listens() {
                *budget -= deliver(peer, cx, &self.parcels);
                peer.flush_replies(cx, last);
                lists.requeue(peer, cx);
            }
            if cx.state.is_share_over(each) {
                return false;
            }
        }
    }
}

/// Sends these packets to a member that has a framing of its own, something queued, or only its output
/// half. The frames are used as long as no policy for slow members is needed.
#[inline(never)]
fn reach_otherwise<H: Handler, S: Stream>(
    peer: &mut Peer<H, S>,
    cx: &mut PeerCx<'_, H::Message>,
    frames: &Frames,
    others: &mut OtherFrames,
    parcels: &[Box<Parcel<H::Message>>],
) {
    let PeerCx { profile, .. } = *cx;
    let frames = match peer.conn.own_framing() {
        None => Some(frames),
        Some(own) => others.of(own, parcels, profile.options.max_queued, &profile.counters),
    };
    match frames {
        Some(frames) if peer.has_room_for(frames.len(), &profile.limits) => {
            match (frames.in_one_piece(), &frames.shared) {
                (Some(piece), _) => peer.send_frames(cx, piece),
                (None, Some(shared)) => peer.send_shared(cx, &frames.bytes, shared),
                (None, None) => {}
            }
            frames.count_for(1, &profile.counters);
        }
        _ => {
            deliver(peer, cx, parcels);
            peer.flush_replies(cx, false);
        }
    }
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
