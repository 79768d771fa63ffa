//! What is between two nodes: a link with its faults, and what is on its way.

use std::time::Duration;

use super::end::{Cut, Key};
use crate::endpoint::Endpoint;

/// What one node sends to another.
#[derive(Debug)]
pub(super) enum What {
    /// Asks for a connection to this endpoint.
    Ask(Endpoint),
    /// Answers that there is a connection.
    Answer,
    /// Confirms the answer.
    Confirm,
    /// Refuses the connection.
    Refuse,
    Bytes(Vec<u8>),
    /// So many bytes have been read.
    Room(usize),
    End,
    Reset,
}

/// Something on its way from one end of a stream to the other.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) from: Key,
    pub(super) to: Key,
    /// The nodes of both.
    pub(super) way: (usize, usize),
    pub(super) what: What,
}

/// The names of a link's nodes, in one order for both directions.
pub(super) fn pair((a, b): (usize, usize)) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Path {
    /// The time from one end to the other.
    pub(super) latency: Duration,
    /// The most bytes of a stream and direction that are on their way or unread.
    pub(super) buffer: usize,
    /// Connections are refused.
    pub(super) refuses: bool,
    /// Nothing passes. What is sent waits in `held`.
    pub(super) is_silent: bool,
    pub(super) held: Vec<Parcel>,
    /// For each direction, after how many bytes a stream is cut.
    cuts: [Option<(usize, Cut)>; 2],
    /// For each direction, when the last parcel arrives. The next one does not overtake it.
    last: [Duration; 2],
}

impl Path {
    pub(super) fn new() -> Self {
        Self {
            latency: Duration::ZERO,
            buffer: 64 * 1024,
            refuses: false,
            is_silent: false,
            held: Vec::new(),
            cuts: [None; 2],
            last: [Duration::ZERO; 2],
        }
    }

    /// When a parcel arrives that leaves now.
    pub(super) fn arrival(&mut self, now: Duration, (from, to): (usize, usize)) -> Duration {
        let last = &mut self.last[usize::from(from > to)];
        *last = (*last).max(now.saturating_add(self.latency));
        *last
    }

    pub(super) fn cut_after(&mut self, (from, to): (usize, usize)) -> &mut Option<(usize, Cut)> {
        &mut self.cuts[usize::from(from > to)]
    }

    /// Ends its faults. Its latency and its buffers stay.
    pub(super) fn heal(&mut self) -> Vec<Parcel> {
        (self.refuses, self.is_silent, self.cuts) = (false, false, [None; 2]);
        std::mem::take(&mut self.held)
    }
}
