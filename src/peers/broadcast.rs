//! What was sent to the members of a group, or to all connections, and whom it has not reached.

use crate::framing::Framing;
use crate::groups::{GroupId, Groups};
use crate::guard::{Panics, guarded};
use crate::handler::SHARE_FROM;
use crate::mailbox::Parcel;
use crate::pages::Pages;
use crate::stats::Counters;

/// Consecutive parcels for one group.
#[derive(Debug)]
pub(super) struct Broadcast<M> {
    /// In the order in which they came.
    pub(super) parcels: Vec<Box<Parcel<M>>>,
    pub(super) reach: Reach,
    /// The frames of the parcels in the listener's framing, one after the other. `None` if not all of
    /// them are packets, or if one of them is long or refused: then each member is looked at by
    /// itself.
    pub(super) frames: Option<Vec<u8>>,
    pub(super) others: OtherFrames,
}

/// The frames of the same parcels in the framings that members have of their own, each made when the
/// first member needs it.
#[derive(Debug, Default)]
pub(super) struct OtherFrames(Vec<(Framing, Option<Vec<u8>>)>);

impl OtherFrames {
    /// In how many framings frames are kept. Members with further framings get frames of their own.
    const MOST: usize = 8;

    /// The frames in this framing. `None` if the framing refuses one of the packets, or if there are
    /// too many framings.
    pub(super) fn of<M>(
        &mut self,
        framing: &Framing,
        parcels: &[Box<Parcel<M>>],
        counters: &Counters,
    ) -> Option<&[u8]> {
        let found = self.0.iter().position(|(known, _)| known.frames_like(framing));
        let at = match found {
            Some(at) => at,
            None if self.0.len() == Self::MOST => return None,
            None => {
                let mut frames = Vec::new();
                let frames = encode(framing, parcels, &mut frames, counters).then_some(frames);
                self.0.push((framing.clone(), frames));
                self.0.len() - 1
            }
        };
        self.0[at].1.as_deref()
    }

    /// Drops the framings. A member may have ended since, and then this was the last one of its
    /// framings.
    pub(super) fn discard(self, panics: &mut Panics) {
        self.0.into_iter().for_each(|(framing, _)| framing.discard(panics));
    }
}

/// Appends the frames of all parcels in this framing. Returns whether that went well: all are packets,
/// none of them is long, and the framing refuses none.
pub(super) fn encode<M>(
    framing: &Framing,
    parcels: &[Box<Parcel<M>>],
    frames: &mut Vec<u8>,
    counters: &Counters,
) -> bool {
    parcels.iter().all(|parcel| match &**parcel {
        // A longer packet is shared and not copied for each member.
        Parcel::Packet { bytes, .. } if bytes.len() < SHARE_FROM => {
            let framed = guarded(|| framing.encode(bytes, frames));
            counters.panics.add(framed.is_none().into());
            matches!(framed, Some(Ok(())))
        }
        _ => false,
    })
}

/// Which members are still to be reached.
#[derive(Debug)]
pub(super) enum Reach {
    /// All connections of the listener from this key on.
    All { next_key: u32 },
    /// Those that the list still owes.
    List { id: GroupId, list: u32 },
}

impl Reach {
    /// The key of the next member.
    #[inline]
    pub(super) fn next<T>(&mut self, peers: &Pages<T>, groups: &mut Groups) -> Option<u32> {
        match self {
            Self::List { id, list } => groups.next(*list, *id),
            Self::All { next_key } => {
                let key = u32::try_from(peers.next_key(*next_key as usize)?).ok()?;
                *next_key = key + 1;
                Some(key)
            }
        }
    }

    /// The next member is this one again.
    pub(super) fn step_back(&mut self, key: u32, groups: &mut Groups) {
        match self {
            Self::List { id, list } => groups.step_back(*list, *id, 1),
            Self::All { next_key } => *next_key = key,
        }
    }
}
