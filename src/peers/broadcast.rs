//! What was sent to the members of a group, or to all connections, and whom it has not reached.

use crate::groups::{GroupId, Groups};
use crate::mailbox::Parcel;
use crate::pages::Pages;

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
