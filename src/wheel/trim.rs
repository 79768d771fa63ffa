//! The memory of a wheel: reserved before it is needed, freed when it is not needed any more.

use super::{Entry, List, NIL, TimerKey, Wheel, index};

impl<T: Copy> Wheel<T> {
    /// Bytes of memory for each timer, if the vector of the entries has just grown.
    pub(crate) const EACH: usize = 2 * size_of::<Entry<T>>();
    /// So many entries, and fewer, may stay for ever.
    const TRIM_FROM: usize = 8 * 1024;
    /// The most timers that a trim moves. That takes about a millisecond.
    const MOVED_AT_ONCE: usize = 64 * 1024;

    /// Reserves memory for `timers` timers in total. Arming up to that many then allocates no
    /// memory. Reserved memory that is not used is not resident.
    pub fn make_room(&mut self, timers: usize) {
        self.reserved = self.reserved.max(timers);
        self.entries.reserve(timers.saturating_sub(self.entries.len()));
    }

    /// Forgets how much memory was reserved. A later [`trim`](Self::trim) may free it.
    pub(crate) fn unreserve(&mut self) {
        self.reserved = 0;
    }

    /// Bytes that a [`trim`](Self::trim), now or later, frees. Call it when timers have fired or were
    /// cancelled: the trim keeps the memory for as many timers as this has found.
    pub(crate) fn spare(&mut self) -> usize {
        self.peak = self.peak.max(self.armed);
        if self.is_sparse(self.armed) { self.entries.capacity() * size_of::<Entry<T>>() } else { 0 }
    }

    /// Whether `timers` timers need at most a quarter of the memory, and few enough to be moved.
    fn is_sparse(&self, timers: usize) -> bool {
        timers <= Self::MOVED_AT_ONCE
            && self.entries.capacity() / 4 > timers.max(self.reserved).max(Self::TRIM_FROM / 4)
    }

    /// Frees the memory that was not needed since the last trim. If it frees any, every timer gets a
    /// new key, and `moved` is called for each with its value.
    pub(crate) fn trim(&mut self, mut moved: impl FnMut(T, TimerKey)) {
        let peak = std::mem::replace(&mut self.peak, self.armed);
        if !self.is_sparse(peak.max(self.armed)) {
            return;
        }
        let room = (2 * self.armed).max(self.reserved);
        let old = std::mem::replace(&mut self.entries, Vec::with_capacity(room));
        self.free = NIL;
        for list in &mut self.lists {
            let mut from = std::mem::replace(list, List { head: NIL, tail: NIL }).head;
            while from != NIL {
                let entry = old[from as usize];
                from = entry.next;
                let key = index(self.entries.len());
                match list.tail {
                    NIL => list.head = key,
                    prev => self.entries[prev as usize].next = key,
                }
                self.entries.push(Entry { prev: list.tail, next: NIL, ..entry });
                list.tail = key;
                moved(entry.value, TimerKey(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tick;
    use super::*;

    /// Goal: after a burst the wheel gives its memory back, although its last timer lives on; the
    /// timers that are left have new keys, and fire at their time and in their order. Memory that was
    /// in use since the last trim stays, and so does reserved memory. Method: 100,000 timers, of
    /// which every thousandth and the last are not cancelled; a trim, then a second one.
    #[test]
    #[cfg_attr(miri, ignore = "a burst takes too long")]
    fn a_trim_moves_the_timers_that_are_left() {
        const BURST: u32 = 100_000;
        let mut wheel = Wheel::new();
        let keys: Vec<TimerKey> =
            (0..BURST).map(|nth| wheel.arm(Tick(u64::from(nth / 7 + 1)), nth)).collect();
        assert_eq!(wheel.spare(), 0);
        let lasts = |nth: u32| nth.is_multiple_of(1_000) || nth == BURST - 1;
        let rest = (0..BURST).zip(keys).filter(|(nth, _)| !lasts(*nth));
        rest.for_each(|(nth, key)| assert_eq!(wheel.cancel(key), nth));
        assert!(wheel.spare() > 0);
        wheel.trim(|_, _| panic!("the burst was in use since the last trim"));
        wheel.make_room(50_000);
        assert_eq!(wheel.spare(), 0, "half of it is reserved");
        wheel.trim(|_, _| panic!("reserved memory was given back"));
        wheel.unreserve();

        let mut moved = Vec::new();
        wheel.trim(|nth, key| moved.push((nth, key)));
        wheel.invariants();
        assert!(wheel.entries.capacity() < 300 && wheel.spare() == 0);
        moved.sort_by_key(|(nth, _)| *nth);
        assert!(moved.iter().map(|(nth, _)| *nth).eq((0..BURST).filter(|nth| lasts(*nth))));
        assert!(moved.iter().all(|(nth, key)| wheel.get(*key) == Some(*nth)));
        assert_eq!(wheel.cancel(moved[1].1), 1_000);
        let left = (0..BURST).filter(|nth| lasts(*nth) && *nth != 1_000);
        for nth in left {
            let due = u64::from(nth / 7 + 1);
            assert_eq!(wheel.expire(Tick(due - 1), &mut 100), None, "timer {nth} is early");
            assert_eq!(wheel.expire(Tick(due), &mut 100), Some(nth), "timer {nth} is late");
        }
        assert_eq!(wheel.len(), 0);
        wheel.invariants();
    }
}
