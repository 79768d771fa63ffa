//! What a peer is lent while it is worked on.

use crate::logging::LogGate;
use crate::profile::Profile;
use crate::timers::Timers;
use crate::turn::Turn;

/// Bytes that a forced end threw away.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    pub(crate) input: usize,
    pub(crate) output: usize,
}

impl Lost {
    pub(crate) fn add(&mut self, (input, output): (usize, usize)) {
        self.input += input;
        self.output += output;
    }
}

/// What a peer is lent while it is worked on.
#[derive(Debug)]
pub(crate) struct Desk<'a, M> {
    pub(crate) turn: &'a mut Turn,
    pub(crate) timers: &'a mut Timers<M>,
    pub(crate) profile: &'a Profile<M>,
    pub(crate) gate: &'a mut LogGate,
    pub(crate) lost: &'a mut Lost,
}
