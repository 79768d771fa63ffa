//! The way of a connection through the opening stage: it waits for its PROXY header, and gets a slot
//! and a handler, or is given up.

use super::Listener;
use crate::acceptor::Acceptor;
use crate::endpoint::Endpoint;
use crate::error::OpeningError;
use crate::handler::Handler;
use crate::identity::PeerName;
use crate::logging::{Cause, say};
use crate::loop_state::{LoopState, Timer};
use crate::opening::{Look, Opening};
use crate::proxy::{ProxyHeader, Trust};
use crate::stream::Stream;
use crate::token;

impl<H: Handler, A: Acceptor + 'static> Listener<H, A> {
    /// Begins the opening stage of a connection that has a place. Most connections have nothing to
    /// do in it.
    #[inline]
    pub(super) fn begin(
        &mut self,
        state: &mut LoopState,
        stream: A::Stream,
        addr: Endpoint,
        is_adopted: bool,
    ) {
        if self.openings.options.proxy.is_some() {
            let until = state.now().after(self.openings.options.timeout);
            let opening = Opening::new(stream, addr.canonical(), is_adopted, until);
            self.peers.profile.counters.opening.add(1);
            self.begin_opening(state, opening);
        } else if is_adopted {
            self.admit(state, stream, addr.into(), false);
        } else {
            self.assign(state, stream, addr.into(), false);
        }
    }

    #[inline(never)]
    fn begin_opening(&mut self, state: &mut LoopState, opening: Opening<A::Stream>) {
        let Some(proxy) = &self.openings.options.proxy else { return };
        match proxy.trusts(&opening.addr) {
            Trust::MustSend => {}
            Trust::MustNotSend => return self.introduce(state, opening, None),
            Trust::Refused => return self.give_up(state, opening, OpeningError::NotTrusted),
        }
        // The header is often there already. Then the kernel needs not watch the stream here.
        if let Some(opening) = self.proceed(state, opening) {
            self.wait_for(state, opening);
        }
    }

    /// Opens a connection whose header has arrived, and ends one whose header is wrong. If bytes are
    /// missing, it comes back.
    fn proceed(
        &mut self,
        state: &mut LoopState,
        mut opening: Opening<A::Stream>,
    ) -> Option<Opening<A::Stream>> {
        match self.look(&mut opening) {
            Look::Waits => return Some(opening),
            Look::Introduced(header) => self.introduce(state, opening, Some(header)),
            Look::Failed(error) => self.give_up(state, opening, error),
        }
        None
    }

    /// Takes in a connection whose header is not complete. If too many wait, the oldest goes.
    fn wait_for(&mut self, state: &mut LoopState, mut opening: Opening<A::Stream>) {
        if self.openings.is_full() {
            self.make_room(state);
        }
        let token = token::opening(self.peers.profile.slot, self.openings.next_number());
        if let Err(error) = opening.stream.register(&state.registry, token) {
            self.peers.cannot_watch(state, &opening.addr, &error);
            return self.drop_opening(state, opening);
        }
        opening.is_watched = true;
        self.openings.put(opening);
        self.arm_opening_timer(state);
    }

    /// Looks at those that events have announced, as far as the share of the phase allows.
    pub(super) fn look_at_announced(&mut self, state: &mut LoopState) {
        while let Some((number, opening)) = self.openings.take_announced() {
            if let Some(opening) = self.proceed(state, opening) {
                self.openings.put_back((number, opening));
            }
            if state.is_share_over(1) {
                break;
            }
        }
        self.arm_opening_timer(state);
    }

    /// Looks at the bytes that have arrived, and counts those that it reads.
    fn look(&mut self, opening: &mut Opening<A::Stream>) -> Look {
        let had = opening.head.len();
        let look = self.openings.look(opening);
        let read = opening.head.len() - had;
        self.peers.profile.counters.bytes_in.add(read as u64);
        look
    }

    /// Ends the opening stage: the connection gets a shard, a slot and a handler.
    fn introduce(
        &mut self,
        state: &mut LoopState,
        opening: Opening<A::Stream>,
        header: Option<ProxyHeader>,
    ) {
        self.peers.profile.counters.opening.sub(1);
        let Opening { stream, addr, is_adopted, is_watched, .. } = opening;
        let peer = match header {
            Some(header) => PeerName::proxied(addr, header),
            None => addr.into(),
        };
        if is_adopted {
            self.admit(state, stream, peer, is_watched);
        } else {
            self.assign(state, stream, peer, is_watched);
        }
    }

    /// Ends a connection that was not opened.
    fn give_up(&mut self, state: &mut LoopState, opening: Opening<A::Stream>, error: OpeningError) {
        self.tell(state, &opening.addr, !opening.head.is_empty(), &error);
        self.drop_opening(state, opening);
    }

    /// Counts and logs why a connection was not opened. `has_begun`: it has sent a part of a header.
    fn tell(&mut self, state: &LoopState, peer: &Endpoint, has_begun: bool, error: &OpeningError) {
        let counters = &self.peers.profile.counters;
        let (counter, cause) = match error {
            OpeningError::Silent => (Some(&counters.health_checks), None),
            OpeningError::TimedOut(_) => {
                // A silent one is most likely a check as well.
                let cause = has_begun.then_some(Cause::Opening);
                (Some(&counters.opening_timeouts), cause)
            }
            OpeningError::Crowded => (Some(&counters.crowded), Some(Cause::Crowded)),
            OpeningError::NotTrusted => (Some(&counters.untrusted), Some(Cause::NotTrusted)),
            OpeningError::Proxy(_) | OpeningError::Cut => {
                (Some(&counters.bad_headers), Some(Cause::Opening))
            }
            OpeningError::Draining => (None, None),
        };
        if let Some(counter) = counter {
            counter.add(1);
        }
        if let Some(cause) = cause
            && self.peers.gate.opens(cause, state.nanos())
        {
            let (label, cure) = (&self.peers.profile.label, error.cure());
            say!(Warn, "{label}: peer {peer}: not opened: {error}; {cure}");
        }
    }

    /// Closes the stream of a connection that was not opened, and gives its place back.
    fn drop_opening(&mut self, state: &mut LoopState, opening: Opening<A::Stream>) {
        let Opening { stream, is_adopted, .. } = opening;
        self.peers.profile.counters.opening.sub(1);
        self.peers.profile.counters.opening_failed.add(1);
        // The descriptor must be closed before its place counts as free.
        drop(stream);
        if is_adopted {
            self.admission.leave(self.peers.profile.shard);
        } else {
            self.admission.give_back();
        }
        self.end_pause_early(state);
    }

    /// Ends the oldest connection whose header has not arrived, so that there is room for a newer one.
    /// Returns false if there is none.
    pub(super) fn make_room(&mut self, state: &mut LoopState) -> bool {
        let mut is_over = false;
        while let Some((_, mut opening)) = self.openings.take_oldest() {
            let look = if is_over { Look::Waits } else { self.look(&mut opening) };
            match look {
                Look::Introduced(header) => {
                    self.introduce(state, opening, Some(header));
                    // Factories may be slow, and a turn ends in time.
                    is_over = state.is_share_over(1);
                    continue;
                }
                Look::Failed(error) => self.give_up(state, opening, error),
                Look::Waits => self.give_up(state, opening, OpeningError::Crowded),
            }
            self.arm_opening_timer(state);
            return true;
        }
        self.arm_opening_timer(state);
        false
    }

    /// Takes the place of a connection that is opening for a newer one. Returns false if there is none:
    /// another thread may have taken it.
    pub(super) fn take_place(&mut self, state: &mut LoopState) -> bool {
        while self.admission.is_within_limit() && self.make_room(state) {
            if self.admission.reserve() {
                return true;
            }
        }
        false
    }

    /// Whether a connection from this address may begin to open.
    pub(super) fn is_welcome(&self, addr: &Endpoint) -> bool {
        let proxy = &self.openings.options.proxy;
        proxy.as_ref().is_none_or(|proxy| proxy.trusts(addr) != Trust::Refused)
    }

    /// Closes a connection that has no place.
    pub(super) fn turn_away(&mut self, state: &LoopState, stream: A::Stream, addr: Endpoint) {
        let is_welcome = self.is_welcome(&addr);
        drop(stream);
        self.peers.profile.counters.opening_failed.add(1);
        let error = if is_welcome { OpeningError::Crowded } else { OpeningError::NotTrusted };
        self.tell(state, &addr.canonical(), false, &error);
    }

    /// The oldest that wait have had their time. What has arrived by now is in time.
    pub(super) fn openings_are_due(&mut self, state: &mut LoopState) {
        self.openings.timer = None;
        let timeout = self.openings.options.timeout;
        while self.openings.deadline().is_some_and(|until| until <= state.expiry_now())
            && let Some((_, opening)) = self.openings.take_oldest()
        {
            if let Some(opening) = self.proceed(state, opening) {
                self.give_up(state, opening, OpeningError::TimedOut(timeout));
            }
            if state.is_share_over(1) {
                break;
            }
        }
        self.arm_opening_timer(state);
    }

    /// Opens those whose header has arrived, and refuses the others: the listener drains.
    pub(super) fn end_openings(&mut self, state: &mut LoopState) {
        while let Some((_, opening)) = self.openings.take_oldest() {
            if let Some(opening) = self.proceed(state, opening) {
                self.refuse_opening(state, opening);
            }
        }
        self.arm_opening_timer(state);
    }

    /// Refuses all of them.
    pub(super) fn refuse_openings(&mut self, state: &mut LoopState) {
        while let Some((_, opening)) = self.openings.take_oldest() {
            self.refuse_opening(state, opening);
        }
        self.arm_opening_timer(state);
    }

    fn refuse_opening(&mut self, state: &mut LoopState, opening: Opening<A::Stream>) {
        self.openings.refused += 1;
        self.give_up(state, opening, OpeningError::Draining);
    }

    /// Sets the timer for the oldest. If that has gone, the timer may be too early, once.
    fn arm_opening_timer(&mut self, state: &mut LoopState) {
        match (self.openings.deadline(), self.openings.timer) {
            (Some(until), None) => {
                let timer = Timer::Opening { listener: self.peers.profile.slot };
                self.openings.timer = Some(state.wheel.arm(until, timer));
            }
            (None, Some(timer)) => {
                state.wheel.cancel(timer);
                self.openings.timer = None;
            }
            _ => {}
        }
    }
}
