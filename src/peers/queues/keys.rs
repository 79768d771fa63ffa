//! A first-in, first-out list of keys that is usually emptied before it grows again.

/// See the module's documentation. A `VecDeque` would wrap around at each step, which costs more
/// than moving what is left now and then.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: Vec<u32>,
    /// The place of the first key. Invariant: less than `keys.len()`, or both are zero.
    first: usize,
}

impl Keys {
    /// What is left moves to the front once so many keys were taken, and more than are left.
    const MOVED_FROM: usize = 64;

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.keys.len() - self.first
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    #[inline]
    pub(crate) fn push(&mut self, key: u32) {
        self.keys.push(key);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let key = *self.keys.get(self.first)?;
        self.first += 1;
        if self.first == self.keys.len() {
            self.keys.clear();
            self.first = 0;
        } else if self.first >= Self::MOVED_FROM && self.first > self.len() {
            self.keys.drain(..self.first);
            self.first = 0;
        }
        Some(key)
    }

    pub(crate) fn contains(&self, key: u32) -> bool {
        self.keys[self.first..].contains(&key)
    }

    /// Keys that there is memory for, so that `count` of them never move the list to another place:
    /// the taken ones before them have a place, too.
    fn places(count: usize) -> usize {
        2 * count + Self::MOVED_FROM
    }

    /// Reserves memory, so that the list does not grow while it has at most `count` keys.
    pub(crate) fn make_room(&mut self, count: usize) {
        self.keys.reserve(Self::places(count).saturating_sub(self.keys.len()));
    }

    /// Gives back memory beyond that for `count` keys.
    pub(crate) fn shrink(&mut self, count: usize) {
        self.keys.shrink_to(Self::places(count));
    }

    /// Bytes of memory beyond that for `count` keys.
    pub(crate) fn spare(&self, count: usize) -> usize {
        self.keys.capacity().saturating_sub(Self::places(count)) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Goal: keys come out in the order in which they went in, and a list that is never empty does
    /// not grow for ever. Method: steps drawn from a sequence, beside a `VecDeque`.
    #[test]
    fn keys_come_out_in_order_and_leave_no_memory() {
        let (mut keys, mut model) = (Keys::default(), VecDeque::new());
        keys.make_room(500);
        let capacity = keys.keys.capacity();
        let mut random = 1_u32;
        for step in 0..100_000_u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grows = model.len() < 10 || (model.len() < 500 && random >> 31 == 0);
            if grows {
                keys.push(step);
                model.push_back(step);
            } else {
                assert_eq!(keys.pop(), model.pop_front());
            }
            assert_eq!((keys.len(), keys.is_empty()), (model.len(), model.is_empty()));
            assert!(keys.contains(step) == model.contains(&step));
        }
        assert_eq!(keys.keys.capacity(), capacity, "it did not grow");
        assert_eq!(keys.spare(500), 0);
        keys.shrink(0);
        while let Some(key) = model.pop_front() {
            assert_eq!(keys.pop(), Some(key));
        }
        assert_eq!((keys.pop(), keys.len(), keys.is_empty()), (None, 0, true));
    }
}
