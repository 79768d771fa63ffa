//! The deadlines of calls: a binary heap from which any deadline can be removed.

use crate::wheel::Tick;

/// The deadline of one call. Deadlines at the same tick are in the order of the calls.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    pub(super) at: Tick,
    /// The number of the call.
    pub(super) number: usize,
    /// Where the call is.
    pub(super) slot: usize,
}

/// See the module's documentation. `moved(slot, place)` says that the deadline of the call in `slot`
/// is in this place from now on.
#[derive(Debug, Default)]
pub(super) struct Deadlines(Vec<Deadline>);

impl Deadlines {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes room for `additional` deadlines.
    pub(super) fn reserve(&mut self, additional: usize) {
        self.0.reserve_exact(additional);
    }

    pub(super) fn first(&self) -> Option<&Deadline> {
        self.0.first()
    }

    /// Adds a deadline. One that is later than all others costs one comparison.
    pub(super) fn push(&mut self, deadline: Deadline, moved: impl FnMut(usize, usize)) {
        self.0.push(deadline);
        self.rise(self.0.len() - 1, moved);
    }

    /// Removes the deadline in `place`.
    pub(super) fn remove(&mut self, place: usize, mut moved: impl FnMut(usize, usize)) -> Deadline {
        let removed = self.0.swap_remove(place);
        if place < self.0.len() {
            // The last deadline is here now.
            let place = self.sink(place, &mut moved);
            self.rise(place, moved);
        }
        removed
    }

    /// Moves a deadline towards the front until none before it is later.
    fn rise(&mut self, mut place: usize, mut moved: impl FnMut(usize, usize)) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.0[parent] <= self.0[place] {
                break;
            }
            self.0.swap(parent, place);
            moved(self.0[place].slot, place);
            place = parent;
        }
        moved(self.0[place].slot, place);
    }

    /// Moves a deadline towards the end until none after it is earlier. Returns its new place.
    fn sink(&mut self, mut place: usize, mut moved: impl FnMut(usize, usize)) -> usize {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let Some(mut child) = self.0.get(left).map(|_| left) else { return place };
            if self.0.get(right).is_some_and(|right| *right < self.0[left]) {
                child = right;
            }
            if self.0[place] <= self.0[child] {
                return place;
            }
            self.0.swap(place, child);
            moved(self.0[place].slot, place);
            place = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    impl Deadlines {
        pub(crate) fn capacity(&self) -> usize {
            self.0.capacity()
        }
    }

    /// Goal: the first deadline is the earliest, none is before an earlier one of its branch, and each
    /// is where its call was told. Method: a thousand deadlines come and go in the order of a counter
    /// that is multiplied, and a sorted set is the model.
    #[test]
    fn the_first_is_the_earliest() {
        let (mut deadlines, mut places) = (Deadlines::new(), vec![0; 1_000]);
        let mut model = BTreeSet::new();
        let check = |deadlines: &Deadlines, places: &[usize], model: &BTreeSet<Deadline>| {
            assert_eq!(deadlines.first(), model.first());
            let heap = &deadlines.0;
            assert!((1..heap.len()).all(|place| heap[(place - 1) / 2] < heap[place]));
            assert!(model.iter().all(|deadline| deadlines.0[places[deadline.slot]] == *deadline));
        };
        for number in 0..places.len() {
            let at = Tick(number as u64 * 7_919 % 101);
            let deadline = Deadline { at, number, slot: number };
            model.insert(deadline);
            deadlines.push(deadline, |slot, place| places[slot] = place);
            check(&deadlines, &places, &model);
        }
        for nth in 0..places.len() {
            let slot = nth * 617 % places.len();
            let removed = deadlines.remove(places[slot], |slot, place| places[slot] = place);
            assert!(model.remove(&removed) && removed.slot == slot);
            check(&deadlines, &places, &model);
        }
    }
}
