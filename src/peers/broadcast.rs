//! What was sent to the members of a group, or to all connections, and whom it has not reached.

use bytes::Bytes;

use crate::framing::Framing;
use crate::groups::{GroupId, Groups};
use crate::guard::{Panics, guarded};
use crate::handler::SHARE_FROM;
use crate::loop_state::FLUSH_AT;
use crate::mailbox::Parcel;
use crate::pages::Pages;
use crate::stats::Counters;

/// Consecutive parcels for one group.
#[derive(Debug)]
pub(super) struct Broadcast<M> {
    /// In the order in which they came.
    pub(super) parcels: Vec<Box<Parcel<M>>>,
    pub(super) reach: Reach,
    /// The frames of the parcels in the listener's framing. `None` if each member has to be looked at by
    /// itself.
    pub(super) frames: Option<Frames>,
    pub(super) others: OtherFrames,
}

/// The frames of consecutive packets in one framing.
#[derive(Debug)]
pub(super) struct Frames {
    /// One after the other. The payload of the last one is left out if it is shared.
    pub(super) bytes: Vec<u8>,
    /// The payload of the last packet, if it is shared and not copied.
    pub(super) shared: Option<Bytes>,
    /// How many frames there are.
    pub(super) count: usize,
    /// How many packets the framing has refused. They have no frames.
    pub(super) refused: usize,
}

impl Frames {
    /// Makes the frames of these parcels, in memory that it takes from `spare`. `None` if not all parcels
    /// are packets, if the framing panics, if a copy exceeds [`FLUSH_AT`], or if a queue of `most` bytes
    /// has no room for all.
    pub(super) fn of<M>(
        framing: &Framing,
        parcels: &[Box<Parcel<M>>],
        spare: &mut Vec<u8>,
        most: usize,
        counters: &Counters,
    ) -> Option<Self> {
        spare.clear();
        let (mut shared, mut count, mut refused) = (None, 0, 0);
        for parcel in parcels {
            let Parcel::Packet { bytes, .. } = &**parcel else { return None };
            debug_assert!(shared.is_none(), "no parcel goes with a long one before it");
            let is_long = bytes.len() >= SHARE_FROM;
            let framed = match is_long.then(|| framing.encode_header(bytes.len(), spare)) {
                Some(Ok(true)) => {
                    shared = Some(bytes.clone());
                    Ok(())
                }
                Some(Err(refused)) => Err(refused),
                Some(Ok(false)) if bytes.len() > FLUSH_AT => return None,
                Some(Ok(false)) | None => {
                    let framed = guarded(|| framing.encode(bytes, spare));
                    counters.panics.add(framed.is_none().into());
                    framed?
                }
            };
            count += usize::from(framed.is_ok());
            refused += usize::from(framed.is_err());
        }
        let frames = Self { bytes: std::mem::take(spare), shared, count, refused };
        (frames.len() <= most).then_some(frames)
    }

    /// Bytes that they take in a queue.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.shared.as_ref().map_or(0, Bytes::len)
    }

    /// Whether all of them are in one piece.
    pub(super) fn in_one_piece(&self) -> Option<&[u8]> {
        (self.count > 0 && self.shared.is_none()).then_some(&self.bytes[..])
    }

    /// Counts what so many members have got.
    pub(super) fn count_for(&self, members: usize, counters: &Counters) {
        counters.packets_out.add((members * self.count) as u64);
        counters.refused_sends.add((members * self.refused) as u64);
    }
}

/// The frames of the same parcels in the framings that members have of their own, each made when the
/// first member needs it.
#[derive(Debug, Default)]
pub(super) struct OtherFrames(Vec<(Framing, Option<Frames>)>);

impl OtherFrames {
    /// In how many framings frames are kept. Members with further framings get frames of their own.
    const MOST: usize = 8;

    /// The frames in this framing, as [`Frames::of`] makes them. `None` also if there are too many
    /// framings.
    pub(super) fn of<M>(
        &mut self,
        framing: &Framing,
        parcels: &[Box<Parcel<M>>],
        most: usize,
        counters: &Counters,
    ) -> Option<&Frames> {
        let found = self.0.iter().position(|(known, _)| known.frames_like(framing));
        let at = match found {
            Some(at) => at,
            None if self.0.len() == Self::MOST => return None,
            None => {
                let frames = Frames::of(framing, parcels, &mut Vec::new(), most, counters);
                self.0.push((framing.clone(), frames));
                self.0.len() - 1
            }
        };
        self.0[at].1.as_ref()
    }

    /// Drops the framings. A member may have ended since, and then this was the last one of its
    /// framings.
    pub(super) fn discard(self, panics: &mut Panics) {
        self.0.into_iter().for_each(|(framing, _)| framing.discard(panics));
    }
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
            Self::List { id, list } => groups.step_back(*list, *id),
            Self::All { next_key } => *next_key = key,
        }
    }
}
