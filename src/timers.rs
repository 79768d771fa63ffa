//! The timers that handlers set for themselves, per listener.
//!
//! The wheel holds the deadlines. This module holds the messages. It also keeps a list of timers
//! per connection, so that the timers of a connection are removed when it ends.

use slab::Slab;

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
pub(crate) const NONE: u32 = u32::MAX;

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
    entries: Slab<UserTimer<M>>,
    serial: u32,
    /// The serial of the listener's part.
    listener: u64,
}

impl<M> Timers<M> {
    pub(crate) fn new(listener: u64) -> Self {
        Self { entries: Slab::new(), serial: 0, listener }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The index that the next [`insert`](Self::insert) uses. The wheel's entry needs it before.
    pub(crate) fn next_index(&self) -> u32 {
        index(self.entries.vacant_key())
    }

    /// Adds a timer to the front of the list that begins at `first`.
    pub(crate) fn insert(
        &mut self,
        peer: u32,
        first: &mut u32,
        at: Tick,
        wheel: TimerKey,
        message: M,
    ) -> TimerId {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let entry = UserTimer { message, at, wheel, peer, serial, previous: NONE, next: *first };
        let index = index(self.entries.insert(entry));
        if let Some(next) = self.entries.get_mut(*first as usize) {
            next.previous = index;
        }
        *first = index;
        TimerId { index, serial, listener: self.listener }
    }

    /// Whether `id` is a timer of `peer` that has neither fired nor been cancelled.
    pub(crate) fn is_armed(&self, id: TimerId, peer: u32) -> bool {
        self.entries
            .get(id.index as usize)
            .is_some_and(|entry| entry.serial == id.serial && entry.peer == peer)
            && id.listener == self.listener
    }

    /// Removes the timer `id` from the list that begins at `first`.
    pub(crate) fn remove(&mut self, id: TimerId, first: &mut u32) -> Removed<M> {
        self.remove_at(id.index, first)
    }

    /// The key of the connection that owns the timer `index`.
    pub(crate) fn owner(&self, index: u32) -> u32 {
        self.entries[index as usize].peer
    }

    /// Removes the first timer of the list that begins at `first`.
    pub(crate) fn pop(&mut self, first: &mut u32) -> Option<Removed<M>> {
        (*first != NONE).then(|| self.remove_at(*first, first))
    }

    /// Removes the timer `index` from the list that begins at `first`.
    pub(crate) fn remove_at(&mut self, index: u32, first: &mut u32) -> Removed<M> {
        let entry = self.entries.remove(index as usize);
        if let Some(next) = self.entries.get_mut(entry.next as usize) {
            next.previous = entry.previous;
        }
        match self.entries.get_mut(entry.previous as usize) {
            Some(previous) => previous.next = entry.next,
            None => *first = entry.next,
        }
        Removed { message: entry.message, at: entry.at, wheel: entry.wheel }
    }
}

fn index(key: usize) -> u32 {
    u32::try_from(key).expect("fewer than 2^32 timers")
}
