//! The deadlines of calls. A deadline that is not earlier than the last one goes to the end of a list,
//! and any other into a heap. So calls with the same timeout, as most are, never reach the heap.

use crate::wheel::Tick;

/// The deadline of one call. Deadlines at the same tick are in the order of the calls.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
struct Deadline {
    at: Tick,
    /// The number of the call.
    number: usize,
    /// In the list: the slot before this one. Else [`IN_HEAP`].
    before: usize,
    /// In the list: the slot behind this one. In the heap: the place there.
    behind: usize,
}

/// No slot.
const NONE: usize = usize::MAX;
/// No slot either.
const IN_HEAP: usize = usize::MAX - 1;

/// See the module's documentation. A deadline is found by the slot of its call.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// By slot. Those of slots without a call mean nothing.
    all: Vec<Deadline>,
    /// The ends of the list.
    first: usize,
    last: usize,
    /// The slots of the others. None is later than those below it.
    heap: Vec<usize>,
}

impl Deadlines {
    pub(super) const fn new() -> Self {
        Self { all: Vec::new(), first: NONE, last: NONE, heap: Vec::new() }
    }

    /// Makes room for `additional` deadlines.
    pub(super) fn reserve(&mut self, additional: usize) {
        self.all.reserve_exact(additional);
    }

    /// The earliest deadline: when it is, and the slot of its call.
    #[inline]
    pub(super) fn first(&self) -> Option<(Tick, usize)> {
        let in_list = self.all.get(self.first).map(|first| (first.at, self.first));
        match self.heap.first() {
            Some(&top) if in_list.is_none() || self.key(top) < self.key(self.first) => {
                Some((self.all[top].at, top))
            }
            _ => in_list,
        }
    }

    /// Adds the deadline of the call in `slot`. Numbers rise from call to call.
    #[inline]
    pub(super) fn push(&mut self, slot: usize, at: Tick, number: usize) {
        let deadline = Deadline { at, number, before: self.last, behind: NONE };
        match self.all.get_mut(slot) {
            Some(place) => *place = deadline,
            None => self.all.push(deadline),
        }
        match self.all.get_mut(self.last) {
            Some(last) if last.at > at => return self.push_into_heap(slot),
            Some(last) => last.behind = slot,
            None => self.first = slot,
        }
        self.last = slot;
    }

    /// Removes the deadline of the call in `slot`.
    #[inline]
    pub(super) fn remove(&mut self, slot: usize) {
        let Deadline { before, behind, .. } = self.all[slot];
        if before == IN_HEAP {
            return self.remove_from_heap(behind);
        }
        match self.all.get_mut(before) {
            Some(earlier) => earlier.behind = behind,
            None => self.first = behind,
        }
        match self.all.get_mut(behind) {
            Some(later) => later.before = before,
            None => self.last = before,
        }
    }

    fn key(&self, slot: usize) -> (Tick, usize) {
        (self.all[slot].at, self.all[slot].number)
    }

    // ---- the heap ----

    #[inline(never)]
    fn push_into_heap(&mut self, slot: usize) {
        if self.heap.len() == self.heap.capacity() {
            // As many as there is room for in the list.
            self.heap.reserve_exact(self.all.capacity() - self.heap.len());
        }
        self.heap.push(slot);
        self.rise(self.heap.len() - 1);
    }

    #[inline(never)]
    fn remove_from_heap(&mut self, place: usize) {
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            // The last one is here now.
            let place = self.sink(place);
            self.rise(place);
        }
    }

    /// The deadline of the call in `slot` is in this place from now on.
    fn put(&mut self, place: usize, slot: usize) {
        self.heap[place] = slot;
        let deadline = &mut self.all[slot];
        (deadline.before, deadline.behind) = (IN_HEAP, place);
    }

    /// Whether the deadline in the first place is not later than that in the second one.
    fn are_in_order(&self, first: usize, second: usize) -> bool {
        self.key(self.heap[first]) <= self.key(self.heap[second])
    }

    fn swap(&mut self, place: usize, other: usize) {
        let (slot, moved) = (self.heap[place], self.heap[other]);
        self.put(place, moved);
        self.put(other, slot);
    }

    /// Moves a deadline towards the front until none before it is later.
    fn rise(&mut self, mut place: usize) {
        self.put(place, self.heap[place]);
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.are_in_order(parent, place) {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    /// Moves a deadline towards the end until none after it is earlier. Returns its new place.
    fn sink(&mut self, mut place: usize) -> usize {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            if left >= self.heap.len() {
                return place;
            }
            let is_right = right < self.heap.len() && !self.are_in_order(left, right);
            let child = if is_right { right } else { left };
            if self.are_in_order(place, child) {
                return place;
            }
            self.swap(place, child);
            place = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A deadline, its number, and the slot of its call.
    type Keyed = (Tick, usize, usize);

    impl Deadlines {
        pub(crate) fn capacity(&self) -> usize {
            self.all.capacity()
        }

        /// All deadlines in their order, with the slots of their calls: those of the list, and those of
        /// the heap.
        fn parts(&self) -> (Vec<Keyed>, Vec<Keyed>) {
            let keyed = |slot: usize| (self.all[slot].at, self.all[slot].number, slot);
            let next = |slot: &usize| Some(self.all[*slot].behind).filter(|slot| *slot != NONE);
            let first = Some(self.first).filter(|slot| *slot != NONE);
            let list: Vec<_> = std::iter::successors(first, next).map(keyed).collect();
            let mut heap: Vec<_> = self.heap.iter().copied().map(keyed).collect();
            heap.sort_unstable();
            (list, heap)
        }
    }

    /// Goal: the first deadline is the earliest, and any may be removed. Method: a thousand deadlines
    /// come and go in the order of a counter that is multiplied, and a sorted set is the model.
    #[test]
    fn the_first_is_the_earliest() {
        let (mut deadlines, mut model) = (Deadlines::new(), BTreeSet::new());
        let check = |deadlines: &Deadlines, model: &BTreeSet<(Tick, usize, usize)>| {
            assert_eq!(deadlines.first(), model.first().map(|(at, _, slot)| (*at, *slot)));
            let heap = &deadlines.heap;
            assert!((1..heap.len()).all(|place| deadlines.are_in_order((place - 1) / 2, place)));
            assert!((0..heap.len()).all(|place| deadlines.all[heap[place]].behind == place));
            let (list, others) = deadlines.parts();
            assert!(list.is_sorted());
            assert_eq!(list.into_iter().chain(others).collect::<BTreeSet<_>>(), *model);
        };
        for number in 0..1_000 {
            let at = Tick(number as u64 * 7_919 % 101 + number as u64 / 50);
            model.insert((at, number, number));
            deadlines.push(number, at, number);
            check(&deadlines, &model);
        }
        let (list, heap) = deadlines.parts();
        assert!(list.len() > 5 && heap.len() > 500, "{} and {}", list.len(), heap.len());
        for nth in 0..1_000 {
            let slot = nth * 617 % 1_000;
            deadlines.remove(slot);
            model.retain(|(_, _, other)| *other != slot);
            check(&deadlines, &model);
        }
    }

    /// Goal: calls with the same timeout cost no heap. Method: at most a hundred at the same time, which
    /// end in another order.
    #[test]
    fn deadlines_that_come_in_order_reach_no_heap() {
        let mut deadlines = Deadlines::new();
        for number in 0..1_000 {
            let slot = if number < 100 { number } else { number * 37 % 100 };
            if number >= 100 {
                deadlines.remove(slot);
            }
            deadlines.push(slot, Tick(number as u64 / 7), number);
        }
        assert_eq!(deadlines.heap.capacity(), 0);
        assert_eq!(deadlines.parts().0.len(), 100);
    }
}
