//! One named listener: where its connections come from, and the [`Peers`] that they become.
//!
//! A listener is typed by its handler. The reactor sees it through [`AnyListener`], which has one
//! method per phase of the turn.

mod accept;
mod accepting;
mod allowed;
mod drain;
mod opening;
mod openings;

use std::any::Any;

use self::accepting::{ACCEPT_PAUSE, Accepting};
use self::openings::Openings;
use crate::acceptor::Acceptor;
use crate::admission::{Admission, Listening};
use crate::drain::Report;
use crate::handler::{Accepted, Handler, Refusal};
use crate::identity::ConnectionId;
use crate::logging::WATCH_CURE;
use crate::loop_state::{LoopState, Timer};
use crate::options::OpeningOptions;
use crate::pairs::Run;
use crate::peers::Peers;
use crate::phases::AnyListener;
use crate::poller::Readiness;
use crate::profile::Profile;
use crate::status::Status;
use crate::sync::Arc;
use crate::time_budget::Phase;
use crate::token;
use crate::wheel::TimerKey;

/// Makes the handlers of a listener's part on one shard.
pub(crate) type Factory<H> =
    Box<dyn FnMut(&Accepted<'_, <H as Handler>::Message>) -> Result<H, Refusal>>;

/// See the module's documentation.
pub(crate) struct Listener<H: Handler, A: Acceptor> {
    pub(crate) peers: Peers<H, A::Stream>,
    admission: Arc<Admission<A::Stream>>,
    /// `None` on the shards that do not accept, and after the socket is closed.
    listening: Option<Listening<A>>,
    factory: Factory<H>,
    accepting: Accepting,
    openings: Openings<A::Stream>,
    /// The most clients that wait in the kernel.
    backlog: u32,
}

impl<H: Handler, A: Acceptor + 'static> Listener<H, A> {
    pub(crate) fn new(
        profile: Profile<H::Message>,
        admission: Arc<Admission<A::Stream>>,
        listening: Option<Listening<A>>,
        factory: Factory<H>,
        opening: OpeningOptions,
        backlog: u32,
    ) -> Self {
        Self {
            peers: Peers::new(profile),
            admission,
            listening,
            factory,
            accepting: Accepting::default(),
            openings: Openings::new(opening),
            backlog,
        }
    }

    /// How many connections are opening.
    pub(crate) fn opening(&self) -> usize {
        self.openings.len()
    }

    /// Gives back the places of the connections that have gone.
    #[inline(never)]
    fn give_places_back(&mut self, state: &mut LoopState) {
        let freed = self.peers.take_freed();
        if freed == 0 {
            return;
        }
        for _ in 0..freed {
            self.admission.leave(self.peers.profile.shard);
        }
        self.end_pause_early(state);
    }

    /// A descriptor is free again, so the pause in accepting ends early. That happens once in the time
    /// of a pause: frequent closes must not make a busy loop.
    fn end_pause_early(&mut self, state: &mut LoopState) {
        if state.now() >= self.accepting.early_try_from && self.end_pause(state) {
            self.accepting.early_try_from = state.now().after(ACCEPT_PAUSE);
        }
    }
}

impl<H: Handler, A: Acceptor + 'static> AnyListener for Listener<H, A> {
    fn register(&mut self, state: &mut LoopState) {
        let Some(socket) = self.listening.as_mut().and_then(Listening::socket) else { return };
        let token = token::acceptor(self.peers.profile.slot);
        if let Err(error) = socket.register(&state.registry, token) {
            self.socket_failed(error, WATCH_CURE);
            self.begin_drain(state);
        }
    }

    fn invariants(&self) {
        debug_assert!(!self.peers.has_begun_to_drain() || self.listening.is_none());
        debug_assert!(!self.peers.has_begun_to_drain() || self.openings.is_empty());
        debug_assert!(self.openings.is_empty() || self.openings.timer.is_some());
        let of = &self.peers.profile.counters;
        debug_assert_eq!(of.opening.get(), self.openings.len() as u64);
        // With several shards some may be on their way to another one.
        let came = of.accepted.get() + of.adopted.get();
        let went = of.made.get() + of.refused.get() + of.opening_failed.get() + of.opening.get();
        debug_assert!(!self.admission.is_alone() || came == went, "{came} came, {went} went");
        self.peers.invariants();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn mark_acceptor(&mut self) {
        self.accepting.ready = true;
    }

    fn mark_opening(&mut self, number: u32) {
        self.openings.announce(number);
    }

    fn mark_peer(&mut self, key: u32, generation: u32, readiness: Readiness) {
        self.peers.mark(key, generation, readiness);
    }

    fn accept(&mut self, state: &mut LoopState) {
        if self.wants_accept() {
            return self.accept_ready(state);
        }
        self.accepting.full_rounds = 0;
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
            Timer::Accept { .. } => self.accepting.pause = None,
            Timer::Opening { .. } => self.openings_are_due(state),
            Timer::Dial { .. } | Timer::Every { .. } | Timer::ShutdownDelay | Timer::Trim => {}
            Timer::Drain { .. } => self.peers.drain_is_due(),
        }
    }

    fn carry_out(&mut self, state: &mut LoopState, key: u32, generation: u32, run: Run<'_>) {
        self.peers.carry_out(state, key, generation, run);
    }

    fn flush(&mut self, state: &mut LoopState) {
        self.peers.flush(state);
    }

    fn sweep(&mut self, state: &mut LoopState) {
        if self.peers.sweep(state) {
            self.give_places_back(state);
        }
    }

    fn trim(&mut self, state: &mut LoopState) -> usize {
        self.peers.trim_memory(state)
    }

    fn timer_moved(&mut self, timer: Timer, entry: TimerKey) {
        match timer {
            Timer::Accept { .. } => self.accepting.pause = Some(entry),
            Timer::Opening { .. } => self.openings.timer = Some(entry),
            of_a_connection => self.peers.timer_moved(of_a_connection, entry),
        }
    }

    fn is_busy(&self) -> bool {
        self.peers.is_busy()
            || self.may_accept()
            || self.openings.has_announced()
            || self.admission.has_arrivals(self.peers.profile.shard)
            || self.acceptor_is_gone()
    }

    fn has_work(&self, phase: Phase) -> bool {
        match phase {
            Phase::Accept => self.wants_accept(),
            phase => self.peers.has_work(phase),
        }
    }

    fn serial(&self) -> u64 {
        self.peers.profile.serial
    }

    fn accepts(&self) -> bool {
        self.admission.accepts(self.peers.profile.shard)
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
        self.peers.close(state, id);
    }

    fn drain(&mut self, state: &mut LoopState) {
        self.begin_drain(state);
    }

    fn force(&mut self) {
        self.peers.force_all();
    }

    fn finished(&self) -> Option<Report> {
        self.is_drained().then(|| self.report())
    }

    fn report(&self) -> Report {
        Report { opening: self.openings.refused, ..self.peers.drain_report() }
    }

    fn retire(&mut self, state: &mut LoopState) {
        self.stop_for_good(state);
    }
}
