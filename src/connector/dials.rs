//! The dials of a connector: each keeps one connection up, or opens one that a handler has asked for.

use std::net::SocketAddr;
use std::rc::Rc;

use super::attempts::Outcome;
use super::{Connector, Dial, Stage};
use crate::dial_requests::DialRequest;
use crate::dialer::Dialer;
use crate::endpoint::Endpoint;
use crate::error::DialError;
use crate::guard::caught;
use crate::handler::{Dialed, Handler};
use crate::logging::{Cause, say};
use crate::loop_state::{LoopState, Timer};
use crate::options::Target;
use crate::peer::Peer;
use crate::peers::Ended;
use crate::proxy::{ProxyHeader, ProxyVersion};
use crate::race::Race;
use crate::resolver::{Found, Resolved, names_of};
use crate::sync::Arc;
use crate::time_budget::Phase;
use crate::wheel::{Tick, TimerKey};

/// The most attempts of one dial that begin without a look at the time.
const TRIED_AT_ONCE: u32 = 8;

impl Dial {
    pub(super) fn new(failures: u32, wanted: Option<Box<DialRequest>>) -> Self {
        let (stage, deadline) = (Stage::Due, Tick::NEVER);
        Self { stage, failures, deadline, timer: None, error: None, wanted }
    }

    /// The places that it tries: those that a handler asked for, or the connector's.
    pub(super) fn targets<'a>(&'a self, of_connector: &'a [Target]) -> &'a [Target] {
        self.wanted.as_ref().map_or(of_connector, |wanted| &wanted.targets)
    }

    /// Begins to try the addresses: those that were given, and those of names, in the order of the
    /// targets.
    fn race(&mut self, of_connector: &[Target], found: &[Found], now: Tick) {
        let (mut addrs, mut error) = (Vec::new(), None);
        for (number, target) in (0..).zip(self.targets(of_connector)) {
            match target {
                Target::Endpoint(endpoint) => addrs.push((endpoint.clone(), number)),
                Target::Name(name) => match found.iter().find(|(of, _)| of == name) {
                    Some((_, Ok(found))) => {
                        let inet = |addr: &SocketAddr| (Endpoint::Inet(*addr), number);
                        addrs.extend(found.iter().map(inet));
                    }
                    Some((name, Err(why))) => {
                        let (name, why) = (name.to_string(), why.clone());
                        error = Some(DialError::Resolve { name, why });
                    }
                    None => {}
                },
            }
        }
        self.error = error.map(Box::new);
        self.stage = Stage::Racing(Box::new(Race::new(addrs, now)));
    }
}

impl<H: Handler, D: Dialer + 'static> Connector<H, D> {
    /// Does what is to be done for dials and attempts, as far as the accept budget and the share of
    /// the phase allow.
    #[inline(never)]
    pub(super) fn dial_ready(&mut self, state: &mut LoopState) {
        self.may_have_changed = true;
        state.begin_phase(Phase::Accept);
        for _ in 0..state.options.accept_budget {
            if let Some(announced) = self.announced.pop_front() {
                self.attempt_is_announced(state, announced);
            } else if let Some(answer) = self.resolver.answer() {
                self.names_are_found(answer);
            } else if let Some(answer) = self.resolver_for_handlers.answer() {
                self.names_are_found(answer);
            } else if let Some(dial) = self.due.pop_front() {
                self.proceed(state, dial);
            } else if !self.begin_wanted(state) {
                break;
            }
            if state.is_share_over(1) {
                break;
            }
        }
        self.lend_keys(state);
    }

    fn attempt_is_announced(&mut self, state: &mut LoopState, announced: (u32, u32)) {
        match self.look_at(announced) {
            Some((dial, Outcome::Connected(stream, peer_addr, target))) => {
                self.end_attempts(dial);
                self.is_connected(state, dial, stream, (peer_addr, target));
            }
            Some((dial, Outcome::Failed(error))) => self.attempt_failed(state, dial, error),
            None => {}
        }
    }

    /// Begins a dial.
    pub(super) fn begin(&mut self, state: &mut LoopState, key: u32) {
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        dial.deadline = state.now().after(self.options.connect_timeout);
        self.peers.profile.counters.dials.add(1);
        let (names, resolver) = match &dial.wanted {
            Some(wanted) => (names_of(&wanted.targets), &mut self.resolver_for_handlers),
            None => (Arc::clone(&self.names), &mut self.resolver),
        };
        if names.is_empty() {
            dial.race(&self.targets, &[], state.now());
            return self.go_on(state, key);
        }
        match resolver.look_up(&names, key) {
            Ok(ticket) => {
                dial.stage = Stage::Resolving { ticket };
                self.arm(state, key);
            }
            Err(error) => {
                let (name, why) = (names.join(", "), error.to_string());
                self.failed(state, key, DialError::Resolve { name, why });
            }
        }
    }

    /// Has the dials that waited for this look-up go on. Each is a piece of work of its own.
    fn names_are_found(&mut self, Resolved { found, dials }: Resolved) {
        let found = Rc::from(found);
        for key in dials {
            if let Some(dial) = self.dials.get_mut(key as usize) {
                dial.stage = Stage::Found(Rc::clone(&found));
                self.due.push_back(key);
            }
        }
    }

    /// Goes on with a dial that has something to do.
    fn proceed(&mut self, state: &mut LoopState, key: u32) {
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        match &dial.stage {
            Stage::Due => self.begin(state, key),
            Stage::Found(found) => {
                let found = Rc::clone(found);
                dial.race(&self.targets, &found, state.now());
                self.go_on(state, key);
            }
            Stage::Racing(_) => self.go_on(state, key),
            Stage::Resolving { .. } | Stage::Waiting { .. } => {}
        }
    }

    /// Begins the attempts of a race that are due. If none is left, the dial has failed.
    fn go_on(&mut self, state: &mut LoopState, key: u32) {
        let (now, delay) = (state.now(), self.options.attempt_delay);
        let mut begun = 0;
        while let Some(Stage::Racing(race)) = self.stage(key)
            && let Some(to) = race.next(now, delay)
        {
            if let Err(error) = self.begin_attempt(state, key, to) {
                self.has_failed(key, now, error);
            }
            begun += 1;
            if begun == TRIED_AT_ONCE {
                // A name may have thousands of addresses, all of which fail at once.
                return self.due.push_back(key);
            }
        }
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        match (&dial.stage, dial.error.take()) {
            (Stage::Racing(race), Some(error)) if race.is_lost() => self.failed(state, key, *error),
            (_, error) => {
                dial.error = error;
                self.arm(state, key);
            }
        }
    }

    pub(super) fn stage(&mut self, key: u32) -> Option<&mut Stage> {
        self.dials.get_mut(key as usize).map(|dial| &mut dial.stage)
    }

    /// Notes that one attempt of a dial has failed.
    fn has_failed(&mut self, key: u32, now: Tick, error: DialError) {
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        dial.error = Some(Box::new(error));
        if let Stage::Racing(race) = &mut dial.stage {
            race.failed(now);
        }
    }

    fn attempt_failed(&mut self, state: &mut LoopState, key: u32, error: DialError) {
        self.has_failed(key, state.now(), error);
        self.go_on(state, key);
    }

    /// An attempt has won: the stream gets a slot and a handler.
    fn is_connected(
        &mut self,
        state: &mut LoopState,
        key: u32,
        stream: D::Stream,
        (peer_addr, target): (Endpoint, u32),
    ) {
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        if let Some(timer) = dial.timer.take() {
            state.wheel.cancel(timer);
        }
        let to = peer_addr.clone();
        let slot = match &dial.wanted {
            Some(wanted) => wanted.key,
            None => self.peers.hold(state),
        };
        if let Err(error) = self.peers.admit_connected(state, slot, stream, peer_addr) {
            if dial.wanted.is_none() {
                self.peers.let_go(state, slot);
            }
            return self.failed(state, key, DialError::connect(&to, &error));
        }
        let Some(Peer { identity, .. }) = self.peers.slots.get(slot as usize) else { return };
        let attempt = dial.failures.saturating_add(1);
        self.last_error = None;
        let Some(target) = dial.targets(&self.targets).get(target as usize) else { return };
        let dialed = Dialed { identity, profile: &self.peers.profile, target, attempt };
        let made = caught(|| (self.factory)(&dialed));
        let has_handler = matches!(made, Ok(Ok(_)));
        let Dial { wanted, failures, .. } = self.dials.remove(key as usize);
        if let Some(version) = self.options.send_proxy {
            let client = wanted.as_ref().and_then(|wanted| wanted.client.as_deref());
            let header = introduction(version, client);
            match &made {
                Ok(Ok(_)) => self.peers.send_first(state, slot, &header),
                // The last packet of a refusal is written after it.
                Ok(Err(_)) => state.out.extend_from_slice(&header),
                Err(_) => {}
            }
        }
        match wanted {
            Some(wanted) => {
                self.wanted.remove(&slot);
                if !has_handler {
                    self.tell_caller(&wanted, DialError::Refused);
                }
            }
            None => self.keep_up(slot, failures),
        }
        self.peers.open(state, slot, made);
        self.peers.release_early(slot);
        if self.peers.take_freed() > 0 {
            self.look_for_ends(state);
        }
    }

    /// The connection in this slot is to be dialled again after its end.
    fn keep_up(&mut self, slot: u32, failures: u32) {
        let at = slot as usize;
        self.failures.resize(self.failures.len().max(at + 1), 0);
        self.failures[at] = failures;
        self.peers.keep_up(slot);
    }

    /// Has connections that have ended dialled again.
    pub(super) fn look_for_ends(&mut self, state: &mut LoopState) {
        let ended = self.peers.take_ended();
        if self.peers.is_forced() || self.peers.has_begun_to_drain() {
            return;
        }
        let stable = self.options.backoff.stable_after;
        for Ended { key, up_for } in ended {
            let before = self.failures.get(key as usize).copied().unwrap_or_default();
            let failures = if up_for >= stable { 0 } else { before.saturating_add(1) };
            let key = self.dials.insert(Dial::new(failures, None));
            self.wait(state, u32::try_from(key).unwrap_or(u32::MAX), None);
        }
        self.lend_keys(state);
    }

    /// A dial has failed.
    pub(super) fn failed(&mut self, state: &mut LoopState, key: u32, error: DialError) {
        self.peers.profile.counters.dial_failures.add(1);
        self.last_error = Some(error.clone());
        self.end_attempts(key);
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        if dial.wanted.is_some() {
            self.wanted_failed(state, key, error);
        } else {
            dial.failures = dial.failures.saturating_add(1);
            self.wait(state, key, Some(error));
        }
    }

    /// Waits before the next dial, or gives up. Without an error a connection has ended.
    fn wait(&mut self, state: &mut LoopState, key: u32, error: Option<DialError>) {
        if self.peers.has_begun_to_drain() {
            return;
        }
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        if let Some(timer) = dial.timer.take() {
            state.wheel.cancel(timer);
        }
        let (name, gate) = (&self.peers.profile.name, &mut self.peers.gate);
        if !self.options.retry.again(dial.failures) {
            self.dials.remove(key as usize);
            self.given_up += 1;
            match error {
                Some(error) if gate.opens(Cause::Dial, state.nanos()) => {
                    say!(Error, "connector \"{name}\": {error}; it gives up; raise retry");
                }
                Some(_) => {}
                None => say!(Debug, "connector \"{name}\": its connection ended; it gives up"),
            }
            return;
        }
        let wait = self.options.backoff.wait(dial.failures, &mut state.random);
        let timer = Timer::Dial { listener: self.peers.profile.slot, dial: key };
        let until = state.now().after(wait);
        dial.stage = Stage::Waiting { until };
        self.waiting.insert((until, key));
        dial.timer = Some(state.wheel.arm(until, timer));
        if let Some(error) = error
            && gate.opens(Cause::Dial, state.nanos())
        {
            say!(
                Warn,
                "connector \"{name}\": {error}; the next dial is in {wait:?}; check the targets"
            );
        }
    }

    /// Sets the timer of a dial that is under way.
    fn arm(&mut self, state: &mut LoopState, key: u32) {
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        let next = match &dial.stage {
            Stage::Racing(race) => race.due_at(),
            _ => None,
        };
        if let Some(timer) = dial.timer.take() {
            state.wheel.cancel(timer);
        }
        let at = next.unwrap_or(Tick::NEVER).min(dial.deadline);
        let timer = Timer::Dial { listener: self.peers.profile.slot, dial: key };
        dial.timer = Some(state.wheel.arm(at, timer));
    }

    /// The timer of a dial has fired.
    pub(super) fn dial_is_due(&mut self, state: &mut LoopState, key: u32) {
        let Some(dial) = self.dials.get_mut(key as usize) else { return };
        dial.timer = None;
        match dial.stage {
            Stage::Waiting { until } => {
                self.waiting.remove(&(until, key));
                self.begin(state, key);
            }
            Stage::Racing(_) if state.expiry_now() < dial.deadline => self.go_on(state, key),
            Stage::Racing(_) | Stage::Found(_) | Stage::Resolving { .. } => {
                // Its attempt may have been announced, and wait for its turn.
                if self.is_connected_by_now(state, key) {
                    return;
                }
                self.stop_looking_up(key);
                let Some(dial) = self.dials.get_mut(key as usize) else { return };
                let last = dial.error.take();
                let after = self.options.connect_timeout;
                self.failed(state, key, DialError::Timeout { after, last });
            }
            Stage::Due => {}
        }
    }

    /// A dial does not wait for its names any more, if it does.
    pub(super) fn stop_looking_up(&mut self, key: u32) {
        let Some(dial) = self.dials.get(key as usize) else { return };
        let is_wanted = dial.wanted.is_some();
        if let Stage::Resolving { ticket } = dial.stage {
            let resolver =
                if is_wanted { &mut self.resolver_for_handlers } else { &mut self.resolver };
            resolver.give_up(ticket, key);
        }
    }

    /// Looks at all attempts of a dial whose time is over. Returns whether one of them is connected.
    fn is_connected_by_now(&mut self, state: &mut LoopState, key: u32) -> bool {
        let running = match self.stage(key) {
            Some(Stage::Racing(race)) => race.running().to_vec(),
            _ => return false,
        };
        running.into_iter().any(|attempt| match self.look_at(attempt) {
            Some((_, Outcome::Connected(stream, peer_addr, target))) => {
                self.end_attempts(key);
                self.is_connected(state, key, stream, (peer_addr, target));
                true
            }
            Some((_, Outcome::Failed(error))) => {
                self.has_failed(key, state.now(), error);
                false
            }
            None => false,
        })
    }

    pub(super) fn dial_timer_moved(&mut self, key: u32, entry: TimerKey) {
        if let Some(dial) = self.dials.get_mut(key as usize) {
            dial.timer = Some(entry);
        }
    }

    /// Ends all dials.
    pub(super) fn end_dials(&mut self, state: &mut LoopState) {
        for timer in self.dials.iter_mut().filter_map(|(_, dial)| dial.timer.take()) {
            state.wheel.cancel(timer);
        }
        self.resolver.give_up_all();
        self.resolver_for_handlers.give_up_all();
        self.end_wanted(state);
        self.dials.clear();
        self.waiting.clear();
        self.due.clear();
        self.announced.clear();
        self.attempts.clear();
        self.trim_dials();
    }

    /// Frees what a burst of dials needed. The next burst pays little to have it again.
    pub(super) fn trim_dials(&mut self) {
        self.dials.shrink_to_fit();
        self.attempts.shrink_to_fit();
        self.due.shrink_to_fit();
        self.announced.shrink_to_fit();
    }
}

/// The PROXY header of a connection that was dialled for a client, or for none.
fn introduction(version: ProxyVersion, client: Option<&(Endpoint, Endpoint)>) -> Vec<u8> {
    let header = match client {
        Some((source, destination)) => ProxyHeader::of(version, source, destination),
        None => ProxyHeader::local(version),
    };
    let mut bytes = Vec::new();
    header.write_to(&mut bytes);
    bytes
}
