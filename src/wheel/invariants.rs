//! What must hold in a wheel between two calls.

use super::{DIGIT, DUE, FREE, LEVELS, NEVER, NIL, SLOTS, TOP, Tick, Wheel};

impl<T: Copy> Wheel<T> {
    /// Checks every entry, list and bit. For tests: it takes time in proportion to `len`.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold.
    pub fn invariants(&self) {
        assert!(self.now <= self.latest, "the wheel has turned past the clock");
        let mut linked = 0;
        for (slot, list) in (0u16..).zip(&self.lists) {
            let level = usize::from(slot >> DIGIT);
            if level < LEVELS {
                let bit = self.occupied[level] >> (u64::from(slot) % SLOTS) & 1 == 1;
                assert_eq!(bit, list.head != NIL, "slot {slot}: its bit contradicts its list");
            }
            let (mut prev, mut key) = (NIL, list.head);
            while key != NIL {
                let entry = &self.entries[key as usize];
                assert_eq!((entry.slot, entry.prev), (slot, prev), "timer {key}: bad links");
                self.check_place(slot, entry.deadline);
                linked += 1;
                assert!(linked <= self.len(), "slot {slot}: its list is a ring");
                (prev, key) = (key, entry.next);
            }
            assert_eq!(list.tail, prev, "slot {slot}: the tail is not the last entry");
        }
        assert_eq!(linked, self.len(), "a timer is in no list");
        let next = |key: &u32| self.entries.get(*key as usize).map(|entry| entry.next);
        let free = std::iter::successors(Some(self.free), next).take_while(|key| *key != NIL);
        let free = free.inspect(|key| assert_eq!(self.entries[*key as usize].slot, FREE));
        assert_eq!(linked + free.count(), self.entries.len(), "an entry is neither armed nor free");
    }

    fn check_place(&self, slot: u16, at: Tick) {
        match slot {
            DUE => assert!(at.0 <= self.now, "{at:?} is not due at {}", self.now),
            NEVER => assert_eq!(at, Tick::NEVER),
            _ => {
                let shift = DIGIT * u32::from(slot >> DIGIT);
                let here = self.now >> shift;
                let ahead = u64::from(slot).wrapping_sub(here) % SLOTS;
                let place = (slot, at, self.now);
                assert!(at != Tick::NEVER, "a slot holds a timer that never fires: {place:?}");
                assert!(here + ahead <= at.0 >> shift, "would fire late: {place:?}");
                if shift < DIGIT * TOP {
                    assert_eq!(here + ahead, at.0 >> shift, "would move in vain: {place:?}");
                    assert_eq!(at.0 >> shift >> DIGIT, here >> DIGIT, "level too low: {place:?}");
                }
                if ahead == 0 {
                    let start = (here << shift, slot);
                    assert_eq!(start, (self.now, self.draining), "left behind: {place:?}");
                }
            }
        }
    }
}
