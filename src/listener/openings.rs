//! The connections of a listener that are opening: accepted, and without a slot and a handler.
//!
//! They are few, and none of them is on the way of a packet. A connection that has nothing to do
//! before its handler is made never comes here.

use std::collections::{BTreeMap, VecDeque};

use crate::opening::{Look, Opening};
use crate::options::OpeningOptions;
use crate::stream::Stream;
use crate::wheel::{Tick, TimerKey};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Openings<S> {
    pub(super) options: OpeningOptions,
    /// By number, and so by age.
    waiting: BTreeMap<u64, Opening<S>>,
    /// The number of the newest.
    newest: u64,
    /// The numbers of those that an event has announced.
    announced: VecDeque<u64>,
    /// It fires when the oldest has to be open, or before.
    pub(super) timer: Option<TimerKey>,
    /// The memory for a look at a header.
    buffer: Vec<u8>,
    /// How many were refused because the listener drains.
    pub(super) refused: u64,
}

impl<S> Openings<S> {
    pub(super) fn new(options: OpeningOptions) -> Self {
        Self {
            options,
            waiting: BTreeMap::new(),
            newest: 0,
            announced: VecDeque::new(),
            timer: None,
            buffer: Vec::new(),
            refused: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a connection has to go before another one is taken in.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.options.max_opening
    }

    pub(super) fn has_announced(&self) -> bool {
        !self.announced.is_empty()
    }

    /// The number of the next connection. Its lower half is not 0: that is the acceptor's.
    pub(super) fn next_number(&mut self) -> u32 {
        self.newest += 1;
        if low(self.newest) == 0 {
            self.newest += 1;
        }
        low(self.newest)
    }

    /// Takes in the connection that has the newest number.
    pub(super) fn put(&mut self, opening: Opening<S>) {
        self.waiting.insert(self.newest, opening);
    }

    /// Puts back what [`take_announced`](Self::take_announced) or [`take_oldest`](Self::take_oldest)
    /// has taken.
    pub(super) fn put_back(&mut self, (number, opening): (u64, Opening<S>)) {
        self.waiting.insert(number, opening);
    }

    /// An event has announced a connection. It may be one that has gone.
    pub(super) fn announce(&mut self, number: u32) {
        // All that wait are among the 4,294,967,295 newest.
        let number = self.newest.wrapping_sub(low(self.newest).wrapping_sub(number).into());
        let Some(opening) = self.waiting.get_mut(&number) else { return };
        if !opening.is_announced {
            opening.is_announced = true;
            self.announced.push_back(number);
        }
    }

    /// Takes out the next connection that was announced, with its number.
    pub(super) fn take_announced(&mut self) -> Option<(u64, Opening<S>)> {
        while let Some(number) = self.announced.pop_front() {
            if let Some(mut opening) = self.waiting.remove(&number) {
                opening.is_announced = false;
                return Some((number, opening));
            }
        }
        self.announced = VecDeque::new();
        None
    }

    /// Takes out the oldest.
    pub(super) fn take_oldest(&mut self) -> Option<(u64, Opening<S>)> {
        self.waiting.pop_first()
    }

    /// When the oldest has to be open. Those after it have more time.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.waiting.first_key_value().map(|(_, opening)| opening.until)
    }
}

impl<S: Stream> Openings<S> {
    /// Looks at the bytes of a connection that have arrived.
    pub(super) fn look(&mut self, opening: &mut Opening<S>) -> Look {
        match &self.options.proxy {
            Some(proxy) => opening.look(proxy, &mut self.buffer),
            None => Look::Waits,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
fn low(number: u64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(until: u64) -> Opening<u64> {
        Opening::new(until, ([127, 0, 0, 1], 1).into(), false, Tick(until))
    }

    /// Goal: an event finds its connection among those that are left, also when the numbers in
    /// events begin again, and no connection has the acceptor's number. Method: the numbers around
    /// two passes through zero.
    #[test]
    fn events_find_their_connections_when_numbers_begin_again() {
        let mut openings = Openings::new(OpeningOptions::default());
        for pass in [1_u64, 2] {
            openings.newest = (pass << 32) - 3;
            let numbers = [0, 1, 2, 3].map(|nth| {
                let number = openings.next_number();
                openings.put(opening(nth));
                number
            });
            assert_eq!(numbers, [u32::MAX - 1, u32::MAX, 1, 2]);
            for nth in [2, 0, 3, 1] {
                openings.announce(numbers[nth]);
                openings.announce(numbers[nth]);
                openings.announce(7);
                let (number, found) = openings.take_announced().expect("it waits");
                assert_eq!(found.stream, nth as u64);
                assert_eq!(low(number), numbers[nth]);
                assert!(openings.take_announced().is_none(), "no other connection was announced");
            }
            assert!(openings.is_empty() && !openings.has_announced());
        }
    }

    /// Goal: the oldest is known by its age alone, and keeps its age when it is put back.
    #[test]
    fn the_oldest_stays_the_oldest() {
        let mut openings = Openings::new(OpeningOptions::default());
        for until in [5, 6, 7] {
            openings.next_number();
            openings.put(opening(until));
        }
        let oldest = openings.take_oldest().expect("three wait");
        assert_eq!((oldest.1.until, openings.deadline()), (Tick(5), Some(Tick(6))));
        openings.put_back(oldest);
        assert_eq!(openings.deadline(), Some(Tick(5)));
    }
}
