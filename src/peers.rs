//! The connections that a listener has on one shard: the slab of its peers, and the lists of peers
//! that need work. They do not know where a connection comes from.
//!
//! ```text
//!   a stream ──► slots (a generation for each)
//!                  ├─ run     packets, the socket          ◄─ events, backlog, resumed readers
//!                  ├─ flush   output from messages, timers ◄─ deliver, expire
//!                  └─ sweep   ends                         ◄─ any code that decides an end
//! ```

mod broadcast;
mod drain;
mod fan_out;
mod messages;
mod partners;
mod queues;
mod slots;
mod trim;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use mio::Token;

use self::broadcast::Broadcast;
use self::queues::{Keys, Lists};
use crate::clock::Nanos;
use crate::drain::Report;
use crate::endpoint::Endpoint;
use crate::handler::{Handler, Refusal};
use crate::identity::{ConnectionId, Identity, PeerName};
use crate::logging::{Cause, LogGate, PANIC_CURE, say};
use crate::loop_state::{LoopState, Timer};
use crate::mailbox::Envelope;
use crate::pages::Pages;
use crate::peer::{Marks, Peer, Swept};
use crate::peer_cx::{Discarded, PeerCx};
use crate::poller::{Readiness, Registry};
use crate::profile::Profile;
use crate::reason::CloseReason;
use crate::stream::Stream;
use crate::time_budget::Phase;
use crate::timers::Timers;
use crate::token;
use crate::wheel::TimerKey;

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

/// What a factory has returned, or the text of its panic.
pub(crate) type Made<H> = Result<Result<H, Refusal>, String>;

/// The parts that are borrowed for work on peers.
type Lent<'a, H, S> =
    (&'a mut Pages<Peer<H, S>>, &'a mut Lists, PeerCx<'a, <H as Handler>::Message>);

/// See the module's documentation.
pub(crate) struct Peers<H: Handler, S> {
    pub(crate) profile: Profile<H::Message>,
    pub(crate) slots: Pages<Peer<H, S>>,
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
    /// By slot: messages for connections that are being dialled.
    early: BTreeMap<u32, Vec<Envelope<H::Message>>>,
    /// Messages that the queue in the mailbox had memory for when the inbox was swapped with it.
    swapped: usize,
    broadcast: Option<Broadcast<H::Message>>,
    /// The memory for the frames of the next broadcast.
    frames: Vec<u8>,
    /// The notifier has notified the reactor, and the mailbox has not been read since.
    notified: bool,
    pub(crate) gate: LogGate,
    discarded: Discarded,
    draining: Option<Draining>,
    /// Connections that have gone, and whose owner has not been told.
    freed: usize,
    /// Those of them that a connector kept up.
    ended: Vec<Ended>,
}

/// A connection that a connector kept up, and that has gone.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The slot that it had.
    pub(crate) key: u32,
    /// How long it was up.
    pub(crate) up_for: Duration,
}

impl<H: Handler, S: Stream> Peers<H, S> {
    pub(crate) fn new(profile: Profile<H::Message>) -> Self {
        Self {
            timers: Timers::new(profile.serial),
            profile,
            slots: Pages::new(),
            generations: Vec::new(),
            first_generation: 0,
            lists: Lists::default(),
            inbox: VecDeque::new(),
            inbox_peak: 0,
            early: BTreeMap::new(),
            swapped: 0,
            broadcast: None,
            frames: Vec::new(),
            notified: false,
            gate: LogGate::default(),
            discarded: Discarded::default(),
            draining: None,
            freed: 0,
            ended: Vec::new(),
        }
    }

    /// Splits the peers into the slots, the lists and a `PeerCx`. Only this function makes a
    /// `PeerCx`.
    #[inline(always)]
    fn lend<'a>(&'a mut self, state: &'a mut LoopState) -> Lent<'a, H, S> {
        let Self { slots, lists, timers, profile, gate, discarded, .. } = self;
        (slots, lists, PeerCx { state, timers, profile, gate, discarded })
    }

    /// Runs `work` on one peer, then puts the peer into the lists where it belongs.
    fn with_peer(
        &mut self,
        state: &mut LoopState,
        key: u32,
        work: impl FnOnce(&mut Peer<H, S>, &mut PeerCx<'_, H::Message>),
    ) {
        let (slots, lists, mut cx) = self.lend(state);
        let Some(peer) = slots.get_mut(key as usize) else { return };
        work(peer, &mut cx);
        lists.requeue(peer, &mut cx);
    }

    // ---- in and out ----

    /// Gives a connection a slot and registers it for events. Its handler is made next. `None` if it
    /// cannot be registered: it then takes no slot.
    pub(crate) fn admit(
        &mut self,
        state: &mut LoopState,
        stream: S,
        peer: PeerName,
        watch: fn(&mut S, &Registry, Token) -> io::Result<()>,
    ) -> Option<u32> {
        let key = self.hold(state);
        if self.take_in(state, key, stream, peer, watch).is_err() {
            self.let_go(state, key);
            return None;
        }
        Some(key)
    }

    /// The same with a slot that is held, for a stream that is registered already, because it was
    /// connected here. After an error the slot is still held.
    pub(crate) fn admit_connected(
        &mut self,
        state: &LoopState,
        key: u32,
        stream: S,
        peer_addr: Endpoint,
    ) -> io::Result<()> {
        self.take_in(state, key, stream, peer_addr.into(), S::reregister)
    }

    fn take_in(
        &mut self,
        state: &LoopState,
        key: u32,
        mut stream: S,
        peer: PeerName,
        watch: impl FnOnce(&mut S, &Registry, Token) -> io::Result<()>,
    ) -> io::Result<()> {
        let identity = Identity::new(key, self.generation(key), peer);
        let token = token::peer(self.profile.slot, key, identity.generation);
        if let Err(error) = watch(&mut stream, &state.registry, token) {
            self.profile.counters.opening_failed.add(1);
            self.cannot_watch(state, &identity.peer_addr(), &error);
            return Err(error);
        }
        self.profile.counters.open.add(1);
        self.slots.insert_at(key as usize, Peer::new(stream, identity, state));
        Ok(())
    }

    /// Ends the opening stage of a connection: gives it its handler and calls `init`, or ends it
    /// because the factory has made none.
    pub(crate) fn open(&mut self, state: &mut LoopState, key: u32, made: Made<H>) {
        match made {
            Ok(Ok(handler)) => {
                self.with_peer(state, key, |peer, cx| peer.open(handler, cx));
                self.carry_out_early(state, key);
            }
            Ok(Err(refusal)) => self.refuse(state, key, refusal),
            Err(text) => {
                self.profile.counters.panics.add(1);
                self.profile.counters.opening_failed.add(1);
                if let Some(Peer { identity, .. }) = self.slots.get(key as usize)
                    && self.gate.opens(Cause::FactoryPanic, state.nanos())
                {
                    let (label, peer) = (&self.profile.label, identity.peer_addr());
                    say!(
                        Error,
                        "{label}: peer {peer}: the factory panicked: {text}; \
                         {PANIC_CURE}"
                    );
                }
                self.free(state, key);
            }
        }
    }

    /// Ends a connection that the factory has refused. It keeps its slot only if it has to linger.
    fn refuse(&mut self, state: &mut LoopState, key: u32, refusal: Refusal) {
        self.end_pair(state, key);
        let (slots, lists, mut cx) = self.lend(state);
        let Some(peer) = slots.get_mut(key as usize) else { return };
        if peer.refuse(&mut cx, refusal) == Swept::Gone {
            return self.free(state, key);
        }
        lists.requeue(peer, &mut cx);
    }

    /// How many connections have gone since the last call.
    #[inline(always)]
    pub(crate) fn take_freed(&mut self) -> usize {
        std::mem::take(&mut self.freed)
    }

    /// Those of them whose end is told.
    pub(crate) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Decides the end of the connection with this id, if it still exists.
    pub(crate) fn close(&mut self, state: &mut LoopState, id: ConnectionId) {
        if self.is_current(id.key, id.generation) {
            self.with_peer(state, id.key, |peer, _| peer.conn.close(CloseReason::Shutdown));
        }
    }

    // ---- the phases ----

    #[inline(always)]
    pub(crate) fn mark(&mut self, key: u32, generation: u32, readiness: Readiness) {
        let Some(peer) = self.slots.get_mut(key as usize) else { return };
        if peer.identity.generation == generation && peer.notice(readiness) {
            let is_new = peer.is_new();
            self.lists.run(peer, is_new);
        }
    }

    #[inline(always)]
    pub(crate) fn work(&mut self, state: &mut LoopState, read: &mut [u8]) {
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

    /// Works on the first `count` peers of a list, and on one at least, until the share of the phase
    /// is over.
    #[inline(always)]
    fn work_on(
        &mut self,
        state: &mut LoopState,
        read: &mut [u8],
        count: usize,
        list: impl Fn(&mut Lists) -> &mut Keys,
    ) {
        let (slots, lists, mut cx) = self.lend(state);
        for _ in 0..count {
            let Some(key) = list(lists).pop() else { return };
            // An entry that an earlier owner of the slot left has no mark.
            let Some(peer) = slots.get_mut(key as usize) else { continue };
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

    #[inline(always)]
    pub(crate) fn deliver(&mut self, state: &mut LoopState, notified: bool) {
        self.notified |= notified;
        if self.has_messages() {
            self.deliver_some(state);
        }
    }

    #[inline(always)]
    pub(crate) fn expire(&mut self, state: &mut LoopState, key: u32) {
        self.with_peer(state, key, Peer::expire);
    }

    #[inline(always)]
    pub(crate) fn flush(&mut self, state: &mut LoopState) {
        if !self.lists.flush.is_empty() {
            self.flush_listed(state);
        }
    }

    /// Writes the output of the peers in the list of those with fresh output.
    #[inline(never)]
    fn flush_listed(&mut self, state: &mut LoopState) {
        state.begin_phase(Phase::Flush);
        let (slots, lists, mut cx) = self.lend(state);
        // The loop adds no peer: after `flush` the queue is empty, refused by the kernel, or cut.
        while let Some(key) = lists.flush.pop() {
            let Some(peer) = slots.get_mut(key as usize) else { continue };
            peer.marks.remove(Marks::FLUSH);
            peer.flush(&mut cx);
            peer.update_timers(&mut cx);
            lists.requeue(peer, &mut cx);
            if cx.state.is_share_over(1) {
                return;
            }
        }
    }

    /// Takes a step of closing for the peers in the list of those that end. Returns whether there
    /// were any.
    #[inline(always)]
    pub(crate) fn sweep(&mut self, state: &mut LoopState) -> bool {
        let any = !self.lists.sweep.is_empty();
        if any {
            self.sweep_listed(state);
        }
        any
    }

    #[inline(never)]
    fn sweep_listed(&mut self, state: &mut LoopState) {
        state.begin_phase(Phase::Sweep);
        // The loop adds no peer: `terminate` cannot end another connection.
        while let Some(key) = self.lists.sweep.pop() {
            let (slots, lists, mut cx) = self.lend(state);
            let Some(peer) = slots.get_mut(key as usize) else { continue };
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

    /// Notes that the wheel's entry for `timer`, which is a connection's, has another key.
    pub(crate) fn timer_moved(&mut self, timer: Timer, entry: TimerKey) {
        match timer {
            Timer::Peer { key, .. } => {
                if let Some(peer) = self.slots.get_mut(key as usize) {
                    peer.timer_moved(entry);
                }
            }
            Timer::User { index, .. } => self.timers.moved(index, entry),
            Timer::Drain { .. } => self.drain_timer_moved(entry),
            Timer::Accept { .. }
            | Timer::Opening { .. }
            | Timer::Dial { .. }
            | Timer::Every { .. }
            | Timer::ShutdownDelay
            | Timer::Trim => {}
        }
    }

    /// Whether there is work that needs no event.
    #[inline(always)]
    pub(crate) fn is_busy(&self) -> bool {
        !self.lists.are_empty() || self.has_messages()
    }

    /// Whether a phase has something to do.
    #[inline(always)]
    pub(crate) fn has_work(&self, phase: Phase) -> bool {
        match phase {
            Phase::Work => self.lists.want_work(),
            Phase::Deliver => self.has_messages(),
            Phase::Flush => !self.lists.flush.is_empty(),
            Phase::Sweep => !self.lists.sweep.is_empty(),
            Phase::Accept | Phase::Commands | Phase::Expire | Phase::Unbounded => false,
        }
    }

    /// Checks what must hold between two phases, in debug builds.
    pub(crate) fn invariants(&self) {
        /// With at most this many peers all of them are checked, because that takes little time.
        const FEW: usize = 64;
        let counters = &self.profile.counters;
        debug_assert_eq!(counters.open.get(), self.slots.len() as u64);
        debug_assert!(self.slots.len() <= self.generations.len());
        debug_assert_eq!(self.freed, 0, "places that were not given back");
        if self.slots.len() <= FEW {
            let handlers = self.slots.iter().filter(|(_, peer)| peer.conn.life().has_handler());
            let alive = counters.made.get() - counters.terminated.get();
            debug_assert_eq!(handlers.count() as u64, alive, "made, and not terminated");
            self.lists.invariants(&self.slots);
            self.slots.iter().for_each(|(_, peer)| peer.invariants());
        }
    }

    /// Ends for good: refuses all messages from now on, and drops those that are not delivered.
    pub(crate) fn retire(&mut self, state: &mut LoopState) {
        self.end_drain_timer(state);
        let unread = self.profile.mailbox.close();
        let early = std::mem::take(&mut self.early).into_values().flatten();
        let inbox = std::mem::take(&mut self.inbox);
        for envelope in early.chain(inbox).chain(unread) {
            self.profile.counters.dropped_messages.add(envelope.is_message().into());
            self.profile.drop_value("a message", envelope, &mut self.gate, state.nanos());
        }
        self.forget_broadcast(state);
    }
}
