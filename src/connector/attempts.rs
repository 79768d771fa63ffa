//! The attempts of dials: one for each address that is tried. The first that connects wins.

use std::io;

use super::{Attempt, Connector, Stage};
use crate::dialer::Dialer;
use crate::endpoint::Endpoint;
use crate::error::DialError;
use crate::handler::Handler;
use crate::loop_state::LoopState;
use crate::token::{self, FIRST_ATTEMPT};

/// How an attempt has ended.
pub(super) enum Outcome<S> {
    /// The stream, the peer's endpoint, and the number of the target.
    Connected(S, Endpoint, u32),
    Failed(DialError),
}

impl<H: Handler, D: Dialer + 'static> Connector<H, D> {
    /// Begins to connect to one address.
    pub(super) fn begin_attempt(
        &mut self,
        state: &LoopState,
        dial: u32,
        (to, target): (Endpoint, u32),
    ) -> Result<(), DialError> {
        let failed = |error: io::Error| DialError::connect(&to, &error);
        let profile = &self.peers.profile;
        profile.counters.attempts.add(1);
        let connected = self.dialer.connect(&to, self.options.source_addr, &profile.options);
        let mut stream = connected.map_err(failed)?;
        let place = self.attempts.vacant_entry();
        let key = u32::try_from(place.key()).unwrap_or(u32::MAX);
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let token = token::peer(self.peers.profile.slot, FIRST_ATTEMPT + key, generation);
        D::register(&mut stream, &state.registry, token).map_err(failed)?;
        place.insert(Attempt { stream, to, target, generation, dial });
        if let Some(Stage::Racing(race)) = self.stage(dial) {
            race.begun((key, generation));
        }
        Ok(())
    }

    /// Looks at an attempt that an event has announced. Returns its dial and how it has ended, unless
    /// it is under way. Then it exists no more.
    pub(super) fn look_at(
        &mut self,
        (key, generation): (u32, u32),
    ) -> Option<(u32, Outcome<D::Stream>)> {
        let attempt = self.attempts.get(key as usize)?;
        if attempt.generation != generation {
            return None;
        }
        let outcome = D::outcome(&attempt.stream, &attempt.to).transpose()?;
        let Attempt { stream, dial, target, .. } = self.attempts.remove(key as usize);
        if let Some(Stage::Racing(race)) = self.stage(dial) {
            race.ended(key);
        }
        let outcome = match outcome {
            Ok(peer_addr) => Outcome::Connected(stream, peer_addr, target),
            Err(error) => Outcome::Failed(error),
        };
        Some((dial, outcome))
    }

    /// Closes the attempts of a dial before they have said a byte.
    pub(super) fn end_attempts(&mut self, dial: u32) {
        if let Some(Stage::Racing(race)) = self.stage(dial) {
            for (key, _) in race.end_all() {
                self.attempts.try_remove(key as usize);
            }
        }
    }
}
