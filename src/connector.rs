//! One named connector: it opens connections and keeps them up, and the [`Peers`] are what they become.
//!
//! ```text
//!   dial ──► names looked up ──► race of the addresses ──► a slot, a handler: up
//!    ▲          │ failed              │ failed                  │ ended
//!    └──────── wait (back-off) ◄──────┴─────────────────────────┘
//! ```
//!
//! A dial that a handler has asked for is made once. It waits for nothing, and is over when the
//! connection is up.
//!
//! A connection that is up is like one that a listener accepted. So all that happens before is here,
//! and what happens then is in `peers`.

mod attempts;
mod dials;
mod drain;
mod state;
mod wanted;

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use slab::Slab;

use crate::connector_state::PartStates;
use crate::dial_requests::{DialRequest, DialRequests};
use crate::dialer::Dialer;
use crate::drain::Report;
use crate::endpoint::Endpoint;
use crate::error::DialError;
use crate::handler::{Dialed, Handler, Refusal};
use crate::identity::ConnectionId;
use crate::loop_state::{LoopState, Timer};
use crate::options::{ConnectorOptions, OnState, Target};
use crate::pairs::Run;
use crate::peers::Peers;
use crate::phases::AnyListener;
use crate::poller::Readiness;
use crate::profile::Profile;
use crate::race::Race;
use crate::resolver::{Found, Names, Resolver, names_of};
use crate::status::Status;
use crate::sync::Arc;
use crate::time_budget::Phase;
use crate::token::FIRST_ATTEMPT;
use crate::wheel::{Tick, TimerKey};

/// Makes the handlers of a connector's part on one shard.
pub(crate) type Factory<H> =
    Box<dyn FnMut(&Dialed<'_, <H as Handler>::Message>) -> Result<H, Refusal>>;

/// How far a dial has come.
#[derive(Debug)]
enum Stage {
    /// It begins in this turn.
    Due,
    /// Names are being looked up.
    Resolving { ticket: u64 },
    /// The addresses of its names are known. Many dials may wait for the same names.
    Found(Rc<[Found]>),
    /// Addresses are being tried.
    Racing(Box<Race>),
    /// It waits until then, and begins again.
    Waiting { until: Tick },
}

/// The way to one connection. It is over when the connection is up.
#[derive(Debug)]
struct Dial {
    stage: Stage,
    /// Failures in a row: dials that failed, and connections that ended before they were stable.
    failures: u32,
    /// When the dial has to be over.
    deadline: Tick,
    /// The next thing that is due: an attempt, the deadline, or the end of a wait.
    timer: Option<TimerKey>,
    /// Why the last attempt failed.
    error: Option<Box<DialError>>,
    /// What a handler has asked for. Such a dial is made once.
    wanted: Option<Box<DialRequest>>,
}

/// A stream that is being connected.
#[derive(Debug)]
struct Attempt<S> {
    stream: S,
    to: Endpoint,
    /// The number of the target that the endpoint belongs to.
    target: u32,
    generation: u32,
    /// The dial that it belongs to.
    dial: u32,
}

/// See the module's documentation.
pub(crate) struct Connector<H: Handler, D: Dialer> {
    pub(crate) peers: Peers<H, D::Stream>,
    factory: Factory<H>,
    options: ConnectorOptions,
    dialer: D,
    /// For connections that are kept up.
    resolver: Resolver,
    /// For dials of handlers. Names that clients choose may hang, and must not take the place of others.
    resolver_for_handlers: Resolver,
    /// Where connections that are kept up go to.
    targets: Vec<Target>,
    /// The names among them.
    names: Names,
    /// The ways to connections that are not up.
    dials: Slab<Dial>,
    /// Dials that wait, by the time when they begin again.
    waiting: BTreeSet<(Tick, u32)>,
    /// By slot: the dials that handlers have asked for.
    wanted: BTreeMap<u32, u32>,
    /// Connections that are kept up no more, because the rule for retries allows no more dials.
    given_up: usize,
    /// By slot: how many failures in a row came before the connection that is kept up. It is all that a
    /// connection at rest needs to be dialled again.
    failures: Vec<u32>,
    /// What handlers ask for.
    requests: Rc<RefCell<DialRequests>>,
    /// Dials that have something to do now: to begin, or to try the addresses of a name.
    due: VecDeque<u32>,
    attempts: Slab<Attempt<D::Stream>>,
    /// Attempts that an event has announced.
    announced: VecDeque<(u32, u32)>,
    /// The generation of the next attempt, which tells it from earlier ones with the same key.
    generation: u32,
    /// Why the last dial failed. None if a connection came up since.
    last_error: Option<DialError>,
    /// What handles are told of each part.
    states: PartStates,
    /// The state of this part may have changed since it was told.
    may_have_changed: bool,
    on_state: Option<OnState>,
}

impl<H: Handler, D: Dialer + 'static> Connector<H, D> {
    pub(crate) fn new(
        profile: Profile<H::Message>,
        mut options: ConnectorOptions,
        states: PartStates,
        dialer: D,
        resolver: Resolver,
        factory: Factory<H>,
    ) -> Self {
        let max_connections = options.connection.max_connections;
        let tells_clients = options.send_proxy.is_some();
        let requests = DialRequests::new(profile.serial, max_connections, tells_clients);
        let targets: Vec<Target> = options.targets.iter().flatten().cloned().collect();
        Self {
            names: names_of(&targets),
            targets,
            requests: Rc::new(RefCell::new(requests)),
            peers: Peers::new(profile),
            factory,
            on_state: options.on_state.take(),
            options,
            dialer,
            resolver_for_handlers: resolver.another(),
            resolver,
            dials: Slab::new(),
            waiting: BTreeSet::new(),
            wanted: BTreeMap::new(),
            given_up: 0,
            failures: Vec::new(),
            due: VecDeque::new(),
            attempts: Slab::new(),
            announced: VecDeque::new(),
            generation: 0,
            last_error: None,
            states,
            may_have_changed: true,
        }
    }
}

impl<H: Handler, D: Dialer + 'static> Connector<H, D> {
    /// Whether a dial has something to do.
    fn has_steps(&self) -> bool {
        !self.announced.is_empty()
            || !self.due.is_empty()
            || self.resolver.has_answers()
            || self.resolver_for_handlers.has_answers()
    }
}

impl<H: Handler, D: Dialer + 'static> AnyListener for Connector<H, D> {
    /// The connections that are kept up are dialled in the next turn.
    fn register(&mut self, state: &mut LoopState) {
        for _ in 0..self.options.connections {
            let key = self.dials.insert(Dial::new(0, None));
            self.due.push_back(u32::try_from(key).unwrap_or(u32::MAX));
        }
        state.dial_requests.open(&self.requests);
        self.lend_keys(state);
    }

    fn mark_acceptor(&mut self) {}

    fn mark_opening(&mut self, _: u32) {}

    fn mark_peer(&mut self, key: u32, generation: u32, readiness: Readiness) {
        if key < FIRST_ATTEMPT {
            self.peers.mark(key, generation, readiness);
        } else {
            self.announced.push_back((key - FIRST_ATTEMPT, generation));
        }
    }

    fn accept(&mut self, state: &mut LoopState) {
        if self.has_work(Phase::Accept) {
            self.dial_ready(state);
        }
    }

    fn work(&mut self, state: &mut LoopState, read: &mut [u8]) {
        self.peers.work(state, read);
    }

    fn deliver(&mut self, state: &mut LoopState, notified: bool) {
        self.peers.deliver(state, notified);
    }

    fn expire(&mut self, state: &mut LoopState, timer: Timer) {
        match timer {
            Timer::Peer { key, .. } => self.peers.expire(state, key),
            Timer::User { index, .. } => self.peers.user_timer(state, index),
            Timer::Dial { dial, .. } => {
                self.may_have_changed = true;
                self.dial_is_due(state, dial);
            }
            Timer::Drain { .. } => self.peers.drain_is_due(),
            Timer::Accept { .. }
            | Timer::Opening { .. }
            | Timer::Every { .. }
            | Timer::ShutdownDelay
            | Timer::Trim => {}
        }
    }

    fn carry_out(&mut self, state: &mut LoopState, key: u32, generation: u32, run: Run<'_>) {
        self.peers.carry_out(state, key, generation, run);
    }

    fn flush(&mut self, state: &mut LoopState) {
        self.peers.flush(state);
    }

    fn sweep(&mut self, state: &mut LoopState) {
        if self.peers.sweep(state) | self.may_have_changed {
            self.end_turn(state);
        }
    }

    fn trim(&mut self, state: &mut LoopState) -> usize {
        self.trim_dials();
        let spare = self.peers.trim_memory(state);
        self.failures.truncate(self.peers.slots.keys());
        self.failures.shrink_to_fit();
        spare
    }

    fn timer_moved(&mut self, timer: Timer, entry: TimerKey) {
        match timer {
            Timer::Dial { dial, .. } => self.dial_timer_moved(dial, entry),
            of_a_connection => self.peers.timer_moved(of_a_connection, entry),
        }
    }

    fn is_busy(&self) -> bool {
        self.peers.is_busy() || self.has_work(Phase::Accept)
    }

    fn has_work(&self, phase: Phase) -> bool {
        match phase {
            Phase::Accept => {
                // It is asked several times in a turn.
                !self.dials.is_empty() && self.has_steps() || !self.requests.borrow().is_empty()
            }
            phase => self.peers.has_work(phase),
        }
    }

    fn serial(&self) -> u64 {
        self.peers.profile.serial
    }

    /// Each part drains by itself.
    fn accepts(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        &self.peers.profile.name
    }

    fn label(&self) -> &str {
        &self.peers.profile.label
    }

    fn status(&self) -> &Arc<Status> {
        &self.peers.profile.name_guard.status
    }

    fn close(&mut self, state: &mut LoopState, id: ConnectionId) {
        if self.stop_wanted(state, id) {
            self.may_have_changed = true;
        } else {
            self.peers.close(state, id);
        }
    }

    fn drain(&mut self, state: &mut LoopState) {
        self.begin_drain(state);
    }

    fn force(&mut self) {
        self.peers.force_all();
    }

    fn finished(&self) -> Option<Report> {
        let is_drained = self.peers.has_begun_to_drain() && self.peers.slots.is_empty();
        is_drained.then(|| self.peers.drain_report())
    }

    fn report(&self) -> Report {
        self.peers.drain_report()
    }

    fn retire(&mut self, state: &mut LoopState) {
        self.stop_for_good(state);
    }

    fn invariants(&self) {
        debug_assert!(!self.peers.has_begun_to_drain() || self.attempts.is_empty());
        self.peers.invariants();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
