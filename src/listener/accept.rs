//! Letting connections in: accept, its faults, and the way from a socket to a handler in a slot.

use std::net::SocketAddr;
use std::time::Duration;

use super::Listener;
use super::accepting::STREAK;
use crate::acceptor::{AcceptFault, Acceptor};
use crate::admission::Listening;
use crate::error::Error;
use crate::guard::make;
use crate::handler::{Accepted, Handler};
use crate::identity::{Seat, canonical};
use crate::logging::Cause;
use crate::peer::Peer;
use crate::stream::Stream;
use crate::token;
use crate::turn::{Timer, Turn};

/// How long accepting rests after the system had nothing to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After a turn that took so many nanoseconds many may wait, and an `accept` in vain is little beside
/// it: then nothing but the budget is the limit.
const LONG_TURN: u64 = 100_000;

impl<H: Handler, A: Acceptor + 'static> Listener<H, A> {
    /// Takes in whoever waits, here or at another shard's door.
    pub(super) fn let_in(&mut self, turn: &mut Turn) -> Result<(), Error> {
        self.take_arrivals(turn);
        if self.is_left_alone() {
            self.begin_drain(turn)?;
        }
        let budget = turn.options.accept_budget;
        let share = if turn.took < LONG_TURN { self.accepting.share() } else { budget }.min(budget);
        if self.accept_some(turn, share)? {
            self.accepting.streak = self.accepting.streak.saturating_add(1);
            if share == budget {
                self.profile.counters.accept_budget_hits.add(1);
            } else {
                self.ask(turn);
            }
        }
        let full = self.accepting.ready && !self.admission.has_room();
        if full && !self.accepting.full {
            self.profile.counters.connection_limit_hits.add(1);
        }
        self.accepting.full = full;
        Ok(())
    }

    pub(super) fn may_accept(&self) -> bool {
        self.accepting.ready
            && self.listening.as_ref().is_some_and(Listening::has_socket)
            && self.accepting.pause.is_none()
            && self.admission.has_room()
    }

    /// Accepts at most `share` connections, with as many tries as the budget allows. Returns whether
    /// there was no other reason to stop.
    pub(super) fn accept_some(&mut self, turn: &mut Turn, share: u32) -> Result<bool, Error> {
        let mut taken = 0;
        for _ in 0..turn.options.accept_budget {
            if taken == share || !self.may_accept() {
                break;
            }
            let listening = self.listening.as_mut().and_then(Listening::socket);
            let Some(socket) = listening else { break };
            match socket.accept(&self.profile.options) {
                Ok((stream, peer_addr)) => {
                    self.place(turn, stream, peer_addr);
                    taken += 1;
                }
                Err(error) => self.accept_failed(turn, error)?,
            }
        }
        Ok(self.may_accept())
    }

    /// Leaves it to the kernel to say whether somebody still waits. Without an answer, the next turn
    /// finds out by itself.
    fn ask(&mut self, turn: &Turn) {
        if let Some(socket) = self.listening.as_mut().and_then(Listening::socket)
            && socket.ask(&turn.registry, token::acceptor(self.profile.slot)).is_ok()
        {
            self.accepting.ready = false;
        }
    }

    pub(super) fn accept_failed(
        &mut self,
        turn: &mut Turn,
        error: std::io::Error,
    ) -> Result<(), Error> {
        let fault = AcceptFault::from(&error);
        if fault == AcceptFault::Empty {
            self.accepting.ready = false;
            self.accepting.streak = self.accepting.streak.saturating_sub(STREAK);
            return Ok(());
        }
        self.profile.counters.accept_errors.add(1);
        match fault {
            AcceptFault::Empty | AcceptFault::Connection => {
                if self.gate.opens(Cause::AcceptError, turn.nanos()) {
                    log::debug!("{}: a connection was lost in accept: {error}", self.profile.name);
                }
            }
            AcceptFault::Resources => {
                if self.gate.opens(Cause::AcceptPause, turn.nanos()) {
                    let name = &self.profile.name;
                    log::warn!("{name}: cannot accept, next try in {ACCEPT_PAUSE:?}: {error}");
                }
                self.profile.counters.accept_pauses.add(1);
                let timer = Timer::Accept { listener: self.profile.slot };
                let pause = turn.wheel.arm(turn.now().after(ACCEPT_PAUSE), timer);
                self.accepting.pause = Some(pause);
            }
            AcceptFault::Listener => {
                let name = self.profile.name.to_string();
                return Err(Error::Accept { name, source: error });
            }
        }
        Ok(())
    }

    /// Finds the shard that a new connection is to live on.
    pub(super) fn place(&mut self, turn: &mut Turn, stream: A::Stream, peer_addr: SocketAddr) {
        self.profile.counters.accepted.add(1);
        let shard = self.admission.enter();
        if shard == self.profile.shard {
            self.admit(turn, stream, peer_addr);
        } else {
            self.admission.hand_over(shard, stream, peer_addr);
        }
    }

    /// Takes in who was accepted by another shard.
    pub(super) fn take_arrivals(&mut self, turn: &mut Turn) {
        let arrivals = self.admission.arrivals(self.profile.shard);
        if arrivals.is_empty() {
            return;
        }
        for (stream, peer_addr) in arrivals {
            self.admit(turn, stream, peer_addr);
        }
        // They were on their way when all others were forced.
        if self.is_forced() {
            self.force_all();
        }
    }

    /// Gives a connection a slot and its events, then opens it. A connection that fails early leaves
    /// nothing behind.
    pub(super) fn admit(&mut self, turn: &mut Turn, mut stream: A::Stream, peer_addr: SocketAddr) {
        let slot = self.peers.vacant_key();
        if slot == self.generations.len() {
            self.generations.push(0);
            self.make_room(turn);
        }
        let key = u32::try_from(slot).unwrap_or(u32::MAX);
        let seat = Seat::new(key, self.generations[slot], canonical(peer_addr));
        let token = token::peer(self.profile.slot, key, seat.generation);
        if let Err(error) = stream.register(&turn.registry, token) {
            self.profile.counters.register_errors.add(1);
            if self.gate.opens(Cause::RegisterError, turn.nanos()) {
                let name = &self.profile.name;
                log::warn!("{name}: cannot watch {}: {error}", seat.peer_addr());
            }
            self.admission.leave(self.profile.shard);
            return;
        }
        self.profile.counters.open.add(1);
        self.peers.insert(Peer::new(stream, seat, turn));
        self.open(turn, seat);
    }

    /// Opening is over: the connection gets its handler, and the handler its `init`.
    fn open(&mut self, turn: &mut Turn, seat: Seat) {
        let id = self.profile.id_of(seat);
        let peer_addr = seat.peer_addr();
        let accepted = Accepted { peer_addr, id, listener: &self.profile.name };
        match make(|| (self.factory)(&accepted)) {
            Ok(handler) => self.with_peer(turn, seat.key, |peer, desk| peer.open(handler, desk)),
            Err(text) => {
                self.profile.counters.panics.add(1);
                if self.gate.opens(Cause::FactoryPanic, turn.nanos()) {
                    log::error!("{}: the factory panicked: {text}", self.profile.name);
                }
                self.free(turn, seat.key);
            }
        }
    }

    /// Every slot has a place in each list, and one for its timer, from the start: what lives long is
    /// not to be allocated in the midst of a burst of buffers, which could then not be given back to
    /// the system. A place that is not used is not resident either, unless it is moved: hence many
    /// of them the first time.
    fn make_room(&mut self, turn: &mut Turn) {
        const FIRST: usize = 4096;
        let first = self.profile.options.max_connections.min(FIRST);
        let slots = self.generations.len().max(first);
        turn.wheel.make_room(slots);
        self.lists.make_room(slots);
    }

    /// Whoever has finished the handshake is served.
    pub(super) fn accept_last(&mut self, turn: &mut Turn) -> Result<(), Error> {
        self.accepting.ready = true;
        while self.accept_some(turn, turn.options.accept_budget)? {}
        Ok(())
    }

    pub(super) fn stop_accepting(&mut self, turn: &mut Turn) {
        // Dropping it closes the admission as well.
        self.listening = None;
        self.accepting.ready = false;
        if let Some(pause) = self.accepting.pause.take() {
            turn.wheel.cancel(pause);
        }
    }
}
