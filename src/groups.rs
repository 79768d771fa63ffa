//! Which connections of a shard are members of which groups.
//!
//! ```text
//!   id ──► list: members, each with its key        a list exists while it has members
//!   (list, key) ──► where in the list              so joining and leaving take one step
//!   connection ──► the lists that it is in         so its end leaves them all
//! ```
//!
//! A delivery goes through a list from its end to its front, and may stop between two members. The
//! members that it has not reached are those before `left`. Whoever joins meanwhile comes after
//! them, and is not reached. A member that leaves closes the gap on its own side of `left`. So each
//! member of the moment when the delivery began is reached once, unless it leaves before.

use std::collections::HashMap;

use crate::pages::Pages;

/// The name of a group in this process.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GroupId(pub(crate) u64);

impl GroupId {
    /// All connections of a listener. It has no list.
    pub(crate) const ALL: Self = Self(0);
}

/// One membership, in the list of the group.
#[derive(Debug)]
struct Member {
    key: u32,
    /// Where the connection's own [`Memberships`] name this list.
    place: u32,
}

#[derive(Debug)]
struct List {
    id: GroupId,
    members: Vec<Member>,
    /// So many members, from the front, are still to be reached by the delivery that is going on.
    left: usize,
}

/// The lists that one connection is in.
#[derive(Debug, Default)]
pub(crate) struct Memberships(Vec<u32>);

impl Memberships {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Groups {
    by_id: HashMap<GroupId, u32>,
    lists: Pages<List>,
    /// Where in the list `.0` the member with the key `.1` is.
    at: HashMap<(u32, u32), u32>,
}

impl Groups {
    /// The most bytes for each membership: its entries in the three tables, each of which may have
    /// twice the room that it needs, and a list of its own.
    pub(crate) const EACH: usize = 2
        * (size_of::<Member>()
            + size_of::<u32>()
            + 2 * size_of::<((u32, u32), u32)>()
            + 2 * size_of::<(GroupId, u32)>())
        + 4 * size_of::<Member>()
        + size_of::<Option<List>>();

    pub(crate) fn new() -> Self {
        Self { by_id: HashMap::new(), lists: Pages::new(), at: HashMap::new() }
    }

    /// Whether the connection is a member.
    pub(crate) fn has(&self, id: GroupId, key: u32) -> bool {
        self.by_id.get(&id).is_some_and(|list| self.at.contains_key(&(*list, key)))
    }

    /// Makes the connection a member. The caller knows that it is none.
    pub(crate) fn join(&mut self, id: GroupId, key: u32, mine: &mut Memberships) {
        let Self { by_id, lists, at } = self;
        let index = *by_id
            .entry(id)
            .or_insert_with(|| short(lists.insert(List { id, members: Vec::new(), left: 0 })));
        let members = &mut lists[index as usize].members;
        at.insert((index, key), short(members.len()));
        members.push(Member { key, place: short(mine.0.len()) });
        mine.0.push(index);
    }

    /// Ends a membership. Returns whether there was one.
    pub(crate) fn leave(&mut self, id: GroupId, key: u32, mine: &mut Memberships) -> bool {
        let Some(&index) = self.by_id.get(&id) else { return false };
        let Some(at) = self.at.remove(&(index, key)) else { return false };
        let place = self.remove(index, at as usize);
        mine.0.swap_remove(place as usize);
        if let Some(moved) = mine.0.get(place as usize)
            && let Some(at) = self.at.get(&(*moved, key))
        {
            self.lists[*moved as usize].members[*at as usize].place = place;
        }
        true
    }

    /// Ends all memberships of a connection.
    pub(crate) fn leave_all(&mut self, key: u32, mine: Memberships) {
        for index in mine.0 {
            if let Some(at) = self.at.remove(&(index, key)) {
                self.remove(index, at as usize);
            }
        }
    }

    /// Removes a member from a list, and the list if it was the last one. Returns its place.
    fn remove(&mut self, index: u32, mut at: usize) -> u32 {
        let list = &mut self.lists[index as usize];
        if at < list.left {
            // The gap goes to the border first, so that no member changes its side.
            list.left -= 1;
            list.members.swap(at, list.left);
            self.at.insert((index, list.members[at].key), short(at));
            at = list.left;
        }
        let Member { key, place } = list.members.swap_remove(at);
        if let Some(moved) = list.members.get(at) {
            self.at.insert((index, moved.key), short(at));
        }
        // The removed one may have been entered again by the swap.
        self.at.remove(&(index, key));
        if list.members.is_empty() {
            let id = list.id;
            self.lists.remove(index as usize);
            self.by_id.remove(&id);
        } else if list.members.capacity() > 4 * list.members.len() + 4 {
            list.members.shrink_to(2 * list.members.len());
        }
        shrink(&mut self.at);
        shrink(&mut self.by_id);
        place
    }

    /// Begins a delivery to the present members. Returns their list, if there is any.
    pub(crate) fn begin(&mut self, id: GroupId) -> Option<u32> {
        let index = *self.by_id.get(&id)?;
        let list = &mut self.lists[index as usize];
        list.left = list.members.len();
        Some(index)
    }

    /// The key of the next member of the delivery that is going on. `None` if it is over, or if the
    /// list is another group's by now.
    #[inline]
    pub(crate) fn next(&mut self, index: u32, id: GroupId) -> Option<u32> {
        let list = self.lists.get_mut(index as usize).filter(|list| list.id == id)?;
        list.left = list.left.checked_sub(1)?;
        Some(list.members[list.left].key)
    }

    /// The keys of the next members of the delivery, as many as `keys` has room for. Returns how many
    /// they are; none if the delivery is over.
    pub(crate) fn next_some(&mut self, index: u32, id: GroupId, keys: &mut [u32]) -> usize {
        let list = self.lists.get_mut(index as usize).filter(|list| list.id == id);
        let Some(list) = list else { return 0 };
        let count = keys.len().min(list.left);
        let from = list.left - count;
        for (key, member) in keys.iter_mut().zip(list.members[from..list.left].iter().rev()) {
            *key = member.key;
        }
        list.left = from;
        count
    }

    /// Whether the delivery is over: no member is left to reach.
    pub(crate) fn is_over(&self, index: u32, id: GroupId) -> bool {
        let list = self.lists.get(index as usize).filter(|list| list.id == id);
        list.is_none_or(|list| list.left == 0)
    }

    /// Goes back by one member: the next call returns it again.
    pub(crate) fn step_back(&mut self, index: u32, id: GroupId) {
        if let Some(list) = self.lists.get_mut(index as usize).filter(|list| list.id == id) {
            list.left += 1;
        }
    }

    /// Memberships of all connections.
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// Bytes of memory that a [`trim`](Self::trim), now or later, may free.
    pub(crate) fn spare(&self) -> usize {
        self.lists.spare()
    }

    /// Frees the memory for lists that were not needed since the last trim.
    pub(crate) fn trim(&mut self) {
        self.lists.trim();
    }
}

/// Frees most of a table's memory once it is nearly empty.
fn shrink<K: Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > 4 * table.len() + 16 {
        table.shrink_to(2 * table.len());
    }
}

/// A list has a member for each connection at most, and their keys have 32 bits.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// A group as a set of keys, with those that a delivery still owes.
    #[derive(Debug, Default)]
    struct Model {
        members: BTreeSet<u32>,
        owed: BTreeSet<u32>,
    }

    /// Goal: the lists agree with sets, and each member of the beginning of a delivery that does not
    /// leave is reached once. Method: joins, leaves, ends and single steps of deliveries, chosen by a
    /// generator of random numbers; at the end all leave, and nothing is left.
    #[test]
    fn it_does_what_sets_do() {
        let mut groups = Groups::new();
        let mut mine: BTreeMap<u32, Memberships> = BTreeMap::new();
        let mut models: BTreeMap<u64, Model> = (1..=5).map(|id| (id, Model::default())).collect();
        let mut going: Option<(u64, u32)> = None;
        let mut seed = 11_u64;
        let mut random = move |below: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from(seed >> 33).unwrap() % below
        };
        for _ in 0..if cfg!(miri) { 500 } else { 50_000 } {
            let (id, key) = (u64::from(random(5)) + 1, random(12));
            let (group, model) = (GroupId(id), models.get_mut(&id).unwrap());
            match random(8) {
                0..=2 => {
                    assert_eq!(groups.has(group, key), model.members.contains(&key));
                    if model.members.insert(key) {
                        groups.join(group, key, mine.entry(key).or_default());
                    }
                }
                3..=4 => {
                    let left = groups.leave(group, key, mine.entry(key).or_default());
                    assert_eq!(left, model.members.remove(&key));
                    model.owed.remove(&key);
                }
                5 if random(4) == 0 => {
                    groups.leave_all(key, mine.remove(&key).unwrap_or_default());
                    for model in models.values_mut() {
                        model.members.remove(&key);
                        model.owed.remove(&key);
                    }
                }
                6 if going.is_none() => {
                    going = groups.begin(group).map(|list| (id, list));
                    model.owed = model.members.clone();
                    assert_eq!(going.is_some(), !model.owed.is_empty());
                }
                _ => {
                    if let Some((id, list)) = going {
                        let owed = &mut models.get_mut(&id).unwrap().owed;
                        let mut keys = [0; 3];
                        let count = groups.next_some(list, GroupId(id), &mut keys);
                        let back = if count > 1 { random(2) as usize } else { 0 };
                        if back > 0 {
                            groups.step_back(list, GroupId(id));
                        }
                        for key in &keys[..count - back] {
                            assert!(owed.remove(key), "{key} is not owed");
                        }
                        let is_over = groups.is_over(list, GroupId(id));
                        assert_eq!(is_over, owed.is_empty());
                        if is_over {
                            going = None;
                        } else {
                            groups.next(list, GroupId(id)).unwrap();
                            groups.step_back(list, GroupId(id));
                        }
                    }
                }
            }
            let members: usize = models.values().map(|model| model.members.len()).sum();
            assert_eq!(groups.len(), members);
        }
        for (key, mine) in mine {
            groups.leave_all(key, mine);
        }
        assert_eq!((groups.len(), groups.by_id.len(), groups.lists.len()), (0, 0, 0));
    }

    /// Goal: what a burst of memberships needed is freed. Method: 10,000 members of a group each,
    /// which leave, and two trims.
    #[test]
    fn the_memory_of_a_burst_is_freed() {
        let mut groups = Groups::new();
        let mut mine: Vec<Memberships> = (0..10_000).map(|_| Memberships::default()).collect();
        for (key, mine) in (0..).zip(&mut mine) {
            groups.join(GroupId(u64::from(key) + 1), key, mine);
            groups.join(GroupId(u64::MAX), key, mine);
        }
        for (key, mine) in (0..).zip(mine) {
            groups.leave_all(key, mine);
        }
        groups.trim();
        groups.trim();
        assert!(groups.at.capacity() < 64 && groups.by_id.capacity() < 64);
        assert_eq!((groups.spare(), groups.lists.keys()), (0, 0));
    }
}
