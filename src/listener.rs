//! One named listener: the acceptor, the slab of its peers, and the lists of peers that need work.
//!
//! A listener is typed by its handler. The reactor sees it through [`AnyListener`], which has one
//! method per phase of the turn.
//!
//! ```text
//!   acceptor ──► peers (slab; a generation per slot)
//!                  ├─ run     packets, the socket          ◄─ events, backlog, resumed readers
//!                  ├─ flush   output from messages, timers ◄─ deliver, expire
//!                  └─ sweep   ends                         ◄─ any code that decides an end
//! ```

mod accept;
mod accepting;
mod broadcast;
mod drain;
mod fan_out;
mod messages;
mod queues;
mod trim;

use std::any::Any;
use std::collections::VecDeque;
use std::time::Duration;

use self::accepting::{ACCEPT_PAUSE, Accepting};
use self::broadcast::Broadcast;
use self::queues::{Keys, Lists};
use crate::acceptor::Acceptor;
use crate::admission::{Admission, Listening};
use crate::clock::Nanos;
use crate::drain::{Report, SlowConnection};
use crate::handler::{Accepted, Handler, Refusal};
use crate::identity::ConnectionId;
use crate::listener_shared::ListenerShared;
use crate::logging::{LogGate, WATCH_CURE};
use crate::loop_state::{LoopState, Timer};
use crate::mailbox::Envelope;
use crate::pages::Pages;
use crate::peer::{Marks, Peer, Swept};
use crate::peer_cx::{Discarded, PeerCx};
use crate::phases::AnyListener;
use crate::poller::Readiness;
use crate::reason::CloseReason;
use crate::status::Status;
use crate::sync::Arc;
use crate::time_budget::Phase;
use crate::timers::Timers;
use crate::token;
use crate::wheel::TimerKey;

/// Makes the handlers of a listener's part on one shard.
pub(crate) type Factory<H> =
    Box<dyn FnMut(&Accepted<'_, <H as Handler>::Message>) -> Result<H, Refusal>>;

/// The state of a drain.
#[derive(Debug, Default)]
struct Draining {
    deadline: Option<TimerKey>,
    /// `None` if connections were forced before the drain began.
    since: Option<Nanos>,
    /// The drain waits for no connection, not even for one that arrives later.
    forced: bool,
    report: Report,
}

/// The parts of a listener that are borrowed for work on its peers.
type Lent<'a, H, A> = (
    &'a mut Pages<Peer<H, <A as Acceptor>::Stream>>,
    &'a mut Lists,
    PeerCx<'a, <H as Handler>::Message>,
);

/// See the module's documentation.
pub(crate) struct Listener<H: Handler, A: Acceptor> {
    profile: ListenerShared<H::Message>,
    admission: Arc<Admission<A::Stream>>,
    /// `None` on the shards that do not accept, and after the socket is closed.
    listening: Option<Listening<A>>,
    factory: Factory<H>,
    accepting: Accepting,
    pub(crate) peers: Pages<Peer<H, A::Stream>>,
    /// One per slot ever used. It changes whenever the slot's owner changes.
    generations: Vec<u32>,
    /// The generation of a slot that was not in use before. It is above each generation that a trim
    /// has forgotten.
    first_generation: u32,
    lists: Lists,
    pub(crate) timers: Timers<H::Message>,
    inbox: VecDeque<Envelope<H::Message>>,
    /// The most messages that the inbox had at once since the last trim.
    inbox_peak: usize,
    /// Messages that the queue in the mailbox had memory for when the inbox was swapped with it.
    swapped: usize,
    broadcast: Option<Broadcast<H::Message>>,
    /// The memory for the frames of the next broadcast.
    frames: Vec<u8>,
    /// The notifier has notified the reactor, and the mailbox has not been read since.
    notified: bool,
    gate: LogGate,
    discarded: Discarded,
    draining: Option<Draining>,
}

impl<H: Handler, A: Acceptor + 'static> Listener<H, A> {
    pub(crate) fn new(
        profile: ListenerShared<H::Message>,
        admission: Arc<Admission<A::Stream>>,
        listening: Option<Listening<A>>,
        factory: Factory<H>,
    ) -> Self {
        Self {
            timers: Timers::new(profile.serial),
            profile,
            admission,
            listening,
            factory,
            accepting: Accepting::default(),
            peers: Pages::new(),
            generations: Vec::new(),
            first_generation: 0,
            lists: Lists::default(),
            inbox: VecDeque::new(),
            inbox_peak: 0,
            swapped: 0,
            broadcast: None,
            frames: Vec::new(),
            notified: false,
            gate: LogGate::default(),
            discarded: Discarded::default(),
            draining: None,
        }
    }

    /// Splits the listener into the peers, their lists and a `PeerCx`. Only this function makes a
    /// `PeerCx`.
    #[inline(always)]
    fn lend<'a>(&'a mut self, state: &'a mut LoopState) -> Lent<'a, H, A> {
        let Self { peers, lists, timers, profile, gate, discarded, .. } = self;
        (peers, lists, PeerCx { state, timers, profile, gate, discarded })
    }

    /// Runs `work` on one peer, then puts the peer into the lists where it belongs.
    fn with_peer(
        &mut self,
        state: &mut LoopState,
        key: u32,
        work: impl FnOnce(&mut Peer<H, A::Stream>, &mut PeerCx<'_, H::Message>),
    ) {
        let (peers, lists, mut cx) = self.lend(state);
        let Some(peer) = peers.get_mut(key as usize) else { return };
        work(peer, &mut cx);
        lists.requeue(peer, &mut cx);
    }

    /// Works on the first `count` peers of a list, and on one at least, until the listener's share
    /// of the phase is over.
    fn work_on(
        &mut self,
        state: &mut LoopState,
        read: &mut [u8],
        count: usize,
        list: impl Fn(&mut Lists) -> &mut Keys,
    ) {
        let (peers, lists, mut cx) = self.lend(state);
        for _ in 0..count {
            let Some(key) = list(lists).pop() else { return };
            // An entry that an earlier owner of the slot left has no mark.
            let Some(peer) = peers.get_mut(key as usize) else { continue };
            if !peer.is_marked(Marks::QUEUED) {
                continue;
            }
            peer.work(&mut cx, read);
            lists.requeue(peer, &mut cx);
            if cx.state.is_share_over(1) {
                return;
            }
        }
    }

    /// Writes the output of the peers in the list of those with fresh output.
    #[inline(never)]
    fn flush_listed(&mut self, state: &mut LoopState) {
        state.begin_phase(Phase::Flush);
        let (peers, lists, mut cx) = self.lend(state);
        // The loop adds no peer: after `flush` the queue is empty, refused by the kernel, or cut.
        while let Some(key) = lists.flush.pop() {
            let Some(peer) = peers.get_mut(key as usize) else { continue };
            peer.marks.remove(Marks::FLUSH);
            peer.flush(&mut cx);
            peer.update_timers(&mut cx);
            lists.requeue(peer, &mut cx);
            if cx.state.is_share_over(1) {
                return;
            }
        }
    }

    /// Takes a step of closing for the peers in the list of those that end.
    #[inline(never)]
    fn sweep_listed(&mut self, state: &mut LoopState) {
        state.begin_phase(Phase::Sweep);
        // The loop adds no peer: `terminate` cannot end another connection.
        while let Some(key) = self.lists.sweep.pop() {
            let (peers, lists, mut cx) = self.lend(state);
            let Some(peer) = peers.get_mut(key as usize) else { continue };
            match peer.sweep(&mut cx) {
                Swept::Gone => self.remove(state, key),
                Swept::Waits if peer.wants_work() => lists.run(peer, false),
                Swept::Waits => {}
            }
            if state.is_share_over(1) {
                break;
            }
        }
        self.ask_for_trim(state);
    }

    /// Adds a connection that has ended to the report of the drain, if there is one, and frees its
    /// slot.
    fn remove(&mut self, state: &mut LoopState, key: u32) {
        let Some(peer) = self.peers.get(key as usize) else { return };
        // A refused connection had no handler to drain.
        if let Some(draining) = &mut self.draining
            && !peer.is_marked(Marks::REFUSED)
        {
            let slow = SlowConnection {
                id: self.profile.id_of(&peer.identity),
                peer_addr: peer.identity.peer_addr(),
                reason: peer.conn.reason().unwrap_or(CloseReason::Normal),
                after: draining
                    .since
                    .map_or(Duration::ZERO, |since| since.elapsed_at(state.nanos())),
            };
            draining.report.count(slow, peer.conn.life().is_forced());
        }
        self.free(state, key);
    }

    /// Frees a slot. The slot's next owner has another generation.
    fn free(&mut self, state: &mut LoopState, key: u32) {
        // The peer is dropped first: its descriptor must be closed before its place counts as free.
        drop(self.peers.remove(key as usize));
        let generation = &mut self.generations[key as usize];
        *generation = generation.wrapping_add(1);
        self.profile.counters.open.sub(1);
        self.admission.leave(self.profile.shard);
        // A descriptor is free again, so the pause in accepting ends early. That happens once in
        // the time of a pause: frequent closes must not make a busy loop.
        if state.now() >= self.accepting.early_try_from && self.end_pause(state) {
            self.accepting.early_try_from = state.now().after(ACCEPT_PAUSE);
        }
    }
}

impl<H: Handler, A: Acceptor + 'static> AnyListener for Listener<H, A> {
    fn register(&mut self, state: &mut LoopState) {
        let Some(socket) = self.listening.as_mut().and_then(Listening::socket) else { return };
        if let Err(error) = socket.register(&state.registry, token::acceptor(self.profile.slot)) {
            self.socket_failed(error, WATCH_CURE);
            self.begin_drain(state);
        }
    }

    fn invariants(&self) {
        /// With at most this many peers all of them are checked, because that takes little time.
        const FEW: usize = 64;
        let counters = &self.profile.counters;
        debug_assert_eq!(counters.open.get(), self.peers.len() as u64);
        debug_assert!(self.peers.len() <= self.generations.len());
        debug_assert!(!self.has_begun_to_drain() || self.listening.is_none());
        if self.peers.len() <= FEW {
            let handlers = self.peers.iter().filter(|(_, peer)| peer.conn.life().has_handler());
            let alive = counters.made.get() - counters.terminated.get();
            debug_assert_eq!(handlers.count() as u64, alive, "made, and not terminated");
            self.lists.invariants(&self.peers);
            self.peers.iter().for_each(|(_, peer)| peer.invariants());
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn mark_acceptor(&mut self) {
        self.accepting.ready = true;
    }

    fn mark_peer(&mut self, key: u32, generation: u32, readiness: Readiness) {
        let Some(peer) = self.peers.get_mut(key as usize) else { return };
        if peer.identity.generation == generation && peer.notice(readiness) {
            let is_new = peer.is_new();
            self.lists.run(peer, is_new);
        }
    }

    fn accept(&mut self, state: &mut LoopState) {
        if self.wants_accept() {
            return self.accept_ready(state);
        }
        self.accepting.full_rounds = 0;
    }

    fn work(&mut self, state: &mut LoopState, read: &mut [u8]) {
        // A peer that is queued from now on waits for the next turn.
        let (new, old) = (self.lists.new.len(), self.lists.old.len());
        if new | old == 0 {
            return;
        }
        state.begin_phase(Phase::Work);
        if new > 0 {
            self.work_on(state, read, new, |lists| &mut lists.new);
        }
        if old > 0 {
            self.work_on(state, read, old, |lists| &mut lists.old);
        }
    }

    fn deliver(&mut self, state: &mut LoopState, notified: bool) {
        self.notified |= notified;
        if self.has_messages() {
            self.deliver_some(state);
        }
    }

    fn expire(&mut self, state: &mut LoopState, timer: Timer) {
        match timer {
            Timer::Peer { key, .. } => self.with_peer(state, key, Peer::expire),
            Timer::User { index, .. } => self.user_timer(state, index),
            Timer::Accept { .. } => {
                self.accepting.pause = None;
            }
            Timer::Every { .. } | Timer::ShutdownDelay | Timer::Trim => {}
            Timer::Drain { .. } => {
                self.force_all();
                self.draining.get_or_insert_default().deadline = None;
            }
        }
    }

    fn flush(&mut self, state: &mut LoopState) {
        if !self.lists.flush.is_empty() {
            self.flush_listed(state);
        }
    }

    fn sweep(&mut self, state: &mut LoopState) {
        if !self.lists.sweep.is_empty() {
            self.sweep_listed(state);
        }
    }

    fn trim(&mut self, state: &mut LoopState) -> usize {
        self.trim_memory(state)
    }

    fn timer_moved(&mut self, timer: Timer, entry: TimerKey) {
        match timer {
            Timer::Peer { key, .. } => {
                if let Some(peer) = self.peers.get_mut(key as usize) {
                    peer.timer_moved(entry);
                }
            }
            Timer::User { index, .. } => self.timers.moved(index, entry),
            Timer::Accept { .. } => self.accepting.pause = Some(entry),
            Timer::Drain { .. } => {
                self.draining.get_or_insert_default().deadline = Some(entry);
            }
            Timer::Every { .. } | Timer::ShutdownDelay | Timer::Trim => {}
        }
    }

    fn is_busy(&self) -> bool {
        !self.lists.are_empty()
            || self.has_messages()
            || self.may_accept()
            || self.admission.has_arrivals(self.profile.shard)
            || self.acceptor_is_gone()
    }

    fn has_work(&self, phase: Phase) -> bool {
        match phase {
            Phase::Accept => self.wants_accept(),
            Phase::Work => self.lists.want_work(),
            Phase::Deliver => self.has_messages(),
            Phase::Flush => !self.lists.flush.is_empty(),
            Phase::Sweep => !self.lists.sweep.is_empty(),
            Phase::Commands | Phase::Expire | Phase::Unbounded => false,
        }
    }

    fn serial(&self) -> u64 {
        self.profile.serial
    }

    fn accepts(&self) -> bool {
        self.admission.accepts(self.profile.shard)
    }

    fn name(&self) -> &str {
        &self.profile.name
    }

    fn status(&self) -> &Arc<Status> {
        &self.profile.name_guard.status
    }

    fn close(&mut self, state: &mut LoopState, id: ConnectionId) {
        if self.is_current(id.key, id.generation) {
            self.with_peer(state, id.key, |peer, _| peer.conn.close(CloseReason::Shutdown));
        }
    }

    fn drain(&mut self, state: &mut LoopState) {
        self.begin_drain(state);
    }

    fn force(&mut self) {
        self.force_all();
    }

    fn finished(&self) -> Option<Report> {
        self.is_drained().then(|| self.drain_report())
    }

    fn report(&self) -> Report {
        self.drain_report()
    }

    fn retire(&mut self, state: &mut LoopState) {
        self.stop_for_good(state);
    }
}
