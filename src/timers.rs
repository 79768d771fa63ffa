//! The timers that handlers set for themselves, per listener.
//!
//! The wheel holds the deadlines. This module holds the messages. It also keeps a list of timers
//! per connection, so that the timers of a connection are removed when it ends.

use crate::pages::Pages;
use crate::wheel::{Tick, TimerKey};

/// The id of a timer set with [`send_after`](crate::Context::send_after). Pass it to
/// [`cancel`](crate::Context::cancel).
///
/// It may be used after the timer has fired, and on any connection: `cancel` then does nothing and
/// returns `false`.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    serial: u32,
    /// The serial of the listener's part, so that no other listener's timer is the same.
    listener: u64,
}

/// The index of no timer: it ends a connection's list.
const NONE: u32 = u32::MAX;

/// The timers of one connection.
#[derive(Debug)]
pub(crate) struct List {
    first: u32,
    len: u32,
}

impl List {
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, len: 0 }
    }
}

#[derive(Debug)]
struct UserTimer<M> {
    message: M,
    at: Tick,
    wheel: TimerKey,
    peer: u32,
    serial: u32,
    previous: u32,
    next: u32,
}

/// A timer that has fired or was cancelled, and is in no list any more.
#[derive(Debug)]
pub(crate) struct Removed<M> {
    pub(crate) message: M,
    /// The deadline of the timer.
    pub(crate) at: Tick,
    pub(crate) wheel: TimerKey,
}

/// All user timers of one listener's connections.
#[derive(Debug)]
pub(crate) struct Timers<M> {
    entries: Pages<UserTimer<M>>,
    serial: u32,
    /// The serial of the listener's part.
    listener: u64,
}

impl<M> Timers<M> {
    /// Bytes of memory for each timer.
    pub(crate) const EACH: usize = Pages::<UserTimer<M>>::EACH;

    pub(crate) fn new(listener: u64) -> Self {
        Self { entries: Pages::new(), serial: 0, listener }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The index that the next [`insert`](Self::insert) uses. The wheel's entry needs it before.
    pub(crate) fn next_index(&self) -> u32 {
        index(self.entries.vacant_key())
    }

    /// Bytes that a [`trim`](Self::trim) may free.
    pub(crate) fn spare(&self) -> usize {
        self.entries.spare()
    }

    /// Frees the memory that was not needed since the last trim.
    pub(crate) fn trim(&mut self) {
        self.entries.trim();
    }

    /// Notes that the entry of the timer `index` in the wheel has another key.
    pub(crate) fn moved(&mut self, index: u32, wheel: TimerKey) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.wheel = wheel;
        }
    }

    /// Adds a timer to the front of `list`.
    pub(crate) fn insert(
        &mut self,
        peer: u32,
        list: &mut List,
        at: Tick,
        wheel: TimerKey,
        message: M,
    ) -> TimerId {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let entry =
            UserTimer { message, at, wheel, peer, serial, previous: NONE, next: list.first };
        let index = index(self.entries.insert(entry));
        if let Some(next) = self.entries.get_mut(list.first as usize) {
            next.previous = index;
        }
        list.first = index;
        list.len += 1;
        TimerId { index, serial, listener: self.listener }
    }

    /// Whether `id` is a timer of `peer` that has neither fired nor been cancelled.
    pub(crate) fn is_armed(&self, id: TimerId, peer: u32) -> bool {
        self.entries
            .get(id.index as usize)
            .is_some_and(|entry| entry.serial == id.serial && entry.peer == peer)
            && id.listener == self.listener
    }

    /// Removes the timer `id` from `list`.
    pub(crate) fn remove(&mut self, id: TimerId, list: &mut List) -> Removed<M> {
        self.remove_at(id.index, list)
    }

    /// The key of the connection that owns the timer `index`.
    pub(crate) fn owner(&self, index: u32) -> u32 {
        self.entries[index as usize].peer
    }

    /// Removes the first timer of `list`.
    pub(crate) fn pop(&mut self, list: &mut List) -> Option<Removed<M>> {
        (list.first != NONE).then(|| self.remove_at(list.first, list))
    }

    /// Removes the timer `index` from `list`.
    pub(crate) fn remove_at(&mut self, index: u32, list: &mut List) -> Removed<M> {
        let entry = self.entries.remove(index as usize).expect("the timer is armed");
        list.len -= 1;
        if let Some(next) = self.entries.get_mut(entry.next as usize) {
            next.previous = entry.previous;
        }
        match self.entries.get_mut(entry.previous as usize) {
            Some(previous) => previous.next = entry.next,
            None => list.first = entry.next,
        }
        Removed { message: entry.message, at: entry.at, wheel: entry.wheel }
    }
}

fn index(key: usize) -> u32 {
    u32::try_from(key).expect("fewer than 2^32 timers")
}
