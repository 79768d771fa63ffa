//! What the partners of this listener's connections have left for them.

use mio::Token;

use super::Peers;
use crate::handler::Handler;
use crate::loop_state::LoopState;
use crate::pairs::Run;
use crate::stream::Stream;
use crate::token;

impl<H: Handler, S: Stream> Peers<H, S> {
    /// Carries out what a partner has left for the connection with this key.
    pub(crate) fn carry_out(
        &mut self,
        state: &mut LoopState,
        key: u32,
        generation: u32,
        run: Run<'_>,
    ) {
        if self.is_current(key, generation) {
            self.with_peer(state, key, |peer, cx| peer.carry_out(cx, run));
        } else if self.is_dialled(key, generation) {
            state.pairs.keep(run, self.profile.options.max_queued);
        } else {
            // The address was out of date when the pair was made.
            state.pairs.break_off(run);
        }
    }

    /// A connection is up: carries out what was left for it while it was being dialled.
    pub(super) fn carry_out_early(&mut self, state: &mut LoopState, key: u32) {
        let to = self.token(key);
        if let Some(early) = state.pairs.take_early(to) {
            self.with_peer(state, key, |peer, cx| peer.carry_out(cx, early.run(to)));
        }
    }

    /// There is no connection in this slot any more, or none has come.
    pub(super) fn end_pair(&self, state: &mut LoopState, key: u32) {
        state.pairs.leave(self.token(key), None, false);
    }

    fn token(&self, key: u32) -> Token {
        token::peer(self.profile.slot, key, self.generation(key))
    }
}
