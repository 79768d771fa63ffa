//! One named listener: the acceptor, the slab of its peers, and who of them is to be worked on.
//!
//! A listener is typed by its handler. The reactor sees it through [`AnyListener`], one method per
//! phase of the turn.
//!
//! ```text
//!   acceptor ──► peers (slab; a generation per slot)
//!                  ├─ run     packets, the socket          ◄─ events, backlog, resumed readers
//!                  ├─ flush   output from messages, timers ◄─ deliver, expire
//!                  └─ sweep   ends                         ◄─ whoever decides an end
//! ```

mod accept;
mod messages;

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use self::accept::Accepting;
use self::messages::Broadcast;

use crate::acceptor::Acceptor;
use crate::admission::Admission;
use crate::clock::Nanos;
use crate::connection::{Limits, flag};
use crate::dispatch::guarded;
use crate::drain::{Report, Straggler};
use crate::error::{CloseReason, Error};
use crate::framing::{Framing, Shape};
use crate::handle::Lease;
use crate::handler::{Accepted, Handler};
use crate::logging::LogGate;
use crate::mailbox::{ConnectionId, Mail, Mailbox};
use crate::options::ListenerOptions;
use crate::peer::{Peer, Swept, mark};
use crate::stats::Counters;
use crate::stream::Stream;
use crate::sync::Arc;
use crate::timers::Timers;
use crate::token;
use crate::turn::{Timer, Turn};
use crate::wheel::TimerKey;

/// The clock is read again after so many peers of a long turn.
const PEERS_PER_SAMPLE: usize = 32;

/// What of a listener never changes while it runs.
#[derive(Debug)]
pub(crate) struct Profile<M> {
    pub(crate) name: Arc<str>,
    /// Which shard this part of the listener lives on.
    pub(crate) shard: usize,
    pub(crate) slot: u16,
    pub(crate) serial: u32,
    pub(crate) options: ListenerOptions,
    pub(crate) framing: Framing,
    /// Of that framing, found out once.
    pub(crate) shape: Shape,
    pub(crate) limits: Limits,
    pub(crate) mailbox: Arc<Mailbox<M>>,
    pub(crate) counters: Arc<Counters>,
    /// None where there is no directory.
    #[expect(dead_code, reason = "it is only there to be dropped")]
    pub(crate) lease: Option<Lease>,
}

impl<M> Profile<M> {
    pub(crate) fn limits(options: &ListenerOptions) -> Limits {
        Limits {
            packet_timeout: options.packet_timeout,
            idle_timeout: options.idle_timeout,
            write_stall_timeout: options.write_stall_timeout,
            write_high_water: options.write_high_water,
            write_low_water: options.write_low_water,
        }
    }
}

impl<M> Drop for Profile<M> {
    /// Whoever sends to a listener that ends before a reactor has adopted it is told so.
    fn drop(&mut self) {
        guarded(|| drop(self.mailbox.close()));
    }
}

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

/// Who is to be worked on, by key. A mark tells a peer that it is in a list.
#[derive(Debug, Default)]
struct Lists {
    run: Vec<u32>,
    /// The memory of the `run` before this one.
    spare: Vec<u32>,
    flush: Vec<u32>,
    sweep: Vec<u32>,
}

impl Lists {
    /// Whoever was worked on goes where it belongs; most are at rest.
    #[inline]
    fn see_off<H: Handler, S: Stream>(&mut self, peer: &mut Peer<H, S>, key: u32) {
        peer.conn.invariants();
        if !peer.is_at_rest() {
            self.put(peer, key);
        }
    }

    /// Puts a peer into every list that it belongs to and is not in.
    fn put<H: Handler, S: Stream>(&mut self, peer: &mut Peer<H, S>, key: u32) {
        if peer.wants_flush() && !peer.is_marked(mark::FLUSH) {
            peer.marks |= mark::FLUSH;
            self.flush.push(key);
        }
        if peer.conn.has(flag::CLOSING) && !peer.is_marked(mark::SWEEP) {
            peer.marks |= mark::SWEEP;
            self.sweep.push(key);
        }
        if peer.wants_work() && !peer.is_marked(mark::QUEUED) {
            peer.marks |= mark::QUEUED;
            self.run.push(key);
        }
    }

    fn are_empty(&self) -> bool {
        self.run.is_empty() && self.flush.is_empty() && self.sweep.is_empty()
    }

    /// So that none of them has to grow with fewer than so many slots.
    fn make_room(&mut self, slots: usize) {
        for list in [&mut self.run, &mut self.spare, &mut self.flush, &mut self.sweep] {
            list.reserve(slots.saturating_sub(list.len()));
        }
    }
}

/// What a drain has come to so far.
#[derive(Debug, Default)]
struct Draining {
    deadline: Option<TimerKey>,
    /// None if connections were forced before the drain began.
    since: Option<Nanos>,
    /// Nobody is waited for, nor whoever still comes.
    forced: bool,
    report: Report,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Listener<H: Handler, F, A: Acceptor> {
    profile: Profile<H::Message>,
    admission: Arc<Admission<A::Stream>>,
    /// None on the shards that do not accept, and once the socket is closed.
    acceptor: Option<A>,
    factory: F,
    accepting: Accepting,
    pub(crate) peers: Slab<Peer<H, A::Stream>>,
    /// One per slot ever used; changes whenever the slot's owner does.
    generations: Vec<u32>,
    lists: Lists,
    pub(crate) timers: Timers<H::Message>,
    inbox: VecDeque<Mail<H::Message>>,
    broadcast: Option<Broadcast<H::Message>>,
    /// The doorbell was answered and the mailbox not looked into yet.
    mail: bool,
    gate: LogGate,
    lost: Lost,
    draining: Option<Draining>,
}

/// A listener, whatever its handler: one method per phase of the turn, and what commands ask for.
pub(crate) trait AnyListener {
    fn mark_acceptor(&mut self);
    fn mark_peer(&mut self, key: u32, generation: u32, marks: u16);
    fn accept(&mut self, turn: &mut Turn) -> Result<(), Error>;
    fn work(&mut self, turn: &mut Turn, read: &mut [u8]);
    fn deliver(&mut self, turn: &mut Turn, rung: bool);
    fn expire(&mut self, turn: &mut Turn, timer: Timer);
    fn flush(&mut self, turn: &mut Turn);
    fn sweep(&mut self, turn: &mut Turn);
    /// Whether there is something to do without waiting for an event.
    fn is_busy(&self) -> bool;

    fn serial(&self) -> u32;
    /// Whether this part is the one that accepts for all shards.
    fn accepts(&self) -> bool;
    fn name(&self) -> &str;
    /// Decides the end of one connection, if it is still that one.
    fn close(&mut self, id: ConnectionId);
    fn drain(&mut self, turn: &mut Turn) -> Result<(), Error>;
    /// Decides the end of all connections, without waiting for anything.
    fn force(&mut self);
    /// What the drain came to, once nobody is left and nobody comes.
    fn finished(&self) -> Option<Report>;
    /// What the drain has come to so far.
    fn report(&self) -> Report;
    /// Refuses all mail, and drops what nobody will read.
    fn retire(&mut self, turn: &mut Turn);
}

impl<H, F, A> Listener<H, F, A>
where
    H: Handler,
    F: FnMut(&Accepted<'_>) -> H,
    A: Acceptor,
{
    pub(crate) fn new(
        profile: Profile<H::Message>,
        admission: Arc<Admission<A::Stream>>,
        acceptor: Option<A>,
        factory: F,
    ) -> Self {
        Self {
            profile,
            admission,
            acceptor,
            factory,
            accepting: Accepting::default(),
            peers: Slab::new(),
            generations: Vec::new(),
            lists: Lists::default(),
            timers: Timers::new(),
            inbox: VecDeque::new(),
            broadcast: None,
            mail: false,
            gate: LogGate::default(),
            lost: Lost::default(),
            draining: None,
        }
    }

    pub(crate) fn register(&mut self, turn: &Turn) -> std::io::Result<()> {
        match (&mut self.acceptor, &turn.registry) {
            (Some(acceptor), Some(registry)) => {
                acceptor.register(registry, token::acceptor(self.profile.slot))
            }
            _ => Ok(()),
        }
    }

    /// Works on one peer, and queues it wherever it belongs afterwards.
    fn with_peer(
        &mut self,
        turn: &mut Turn,
        key: u32,
        work: impl FnOnce(&mut Peer<H, A::Stream>, &mut Desk<'_, H::Message>),
    ) {
        let Some(peer) = self.peers.get_mut(key as usize) else { return };
        let mut desk = Desk {
            turn,
            timers: &mut self.timers,
            profile: &self.profile,
            gate: &mut self.gate,
            lost: &mut self.lost,
        };
        work(peer, &mut desk);
        debug_assert!(desk.turn.out.is_empty(), "output belongs to one peer at a time");
        self.lists.see_off(peer, key);
    }

    fn remove(&mut self, turn: &mut Turn, key: u32) {
        let peer = self.peers.remove(key as usize);
        let generation = &mut self.generations[key as usize];
        *generation = generation.wrapping_add(1);
        self.profile.counters.open.sub(1);
        if let Some(draining) = &mut self.draining {
            let straggler = Straggler {
                id: ConnectionId {
                    serial: self.profile.serial,
                    key,
                    generation: peer.seat.generation,
                },
                peer_addr: peer.seat.peer_addr(),
                reason: peer.conn.reason().unwrap_or(CloseReason::Normal),
                after: draining
                    .since
                    .map_or(Duration::ZERO, |since| since.elapsed_at(turn.nanos())),
            };
            draining.report.count(straggler, peer.is_marked(mark::FORCED));
        }
        // In this order: the place is free when its descriptor is.
        drop(peer);
        self.admission.leave(self.profile.shard);
        // A descriptor came free: one early try per rest, so that churn is no busy loop.
        if !self.accepting.retried
            && let Some(pause) = self.accepting.pause.take()
        {
            turn.wheel.cancel(pause);
            self.accepting.retried = true;
        }
    }

    fn has_begun_to_drain(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.since.is_some())
    }

    fn is_forced(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.forced)
    }

    /// The part that accepts has closed the door, and this one does not know yet.
    fn is_left_alone(&self) -> bool {
        self.admission.is_closed() && !self.has_begun_to_drain()
    }
}

impl<H, F, A> AnyListener for Listener<H, F, A>
where
    H: Handler,
    F: FnMut(&Accepted<'_>) -> H,
    A: Acceptor,
{
    fn mark_acceptor(&mut self) {
        self.accepting.ready = true;
    }

    fn mark_peer(&mut self, key: u32, generation: u32, marks: u16) {
        let Some(peer) = self.peers.get_mut(key as usize) else { return };
        if peer.seat.generation != generation {
            return;
        }
        let rested = peer.is_at_rest();
        peer.marks |= marks;
        let wanted = if rested {
            peer.is_marked(mark::READABLE)
        } else {
            !peer.is_marked(mark::QUEUED)
                && (peer.wants_work()
                    || peer.wants_flush()
                    || peer.conn.has(flag::CLOSING) && peer.is_marked(mark::READABLE))
        };
        if wanted {
            peer.marks |= mark::QUEUED;
            self.lists.run.push(key);
        }
    }

    fn accept(&mut self, turn: &mut Turn) -> Result<(), Error> {
        if self.accepting.ready || self.admission.has_news(self.profile.shard) {
            return self.let_in(turn);
        }
        self.accepting.streak = 0;
        Ok(())
    }

    fn work(&mut self, turn: &mut Turn, read: &mut [u8]) {
        let Self { peers, lists, timers, profile, gate, lost, .. } = self;
        let mut desk = Desk { turn, timers, profile, gate, lost };
        // Whoever is queued from now on waits for the next turn.
        let mut run = std::mem::replace(&mut lists.run, std::mem::take(&mut lists.spare));
        for (count, key) in (1..).zip(run.drain(..)) {
            if let Some(peer) = peers.get_mut(key as usize) {
                peer.work(&mut desk, read);
                debug_assert!(desk.turn.out.is_empty(), "output belongs to one peer at a time");
                lists.see_off(peer, key);
            }
            if count % PEERS_PER_SAMPLE == 0 {
                desk.turn.sample();
            }
        }
        lists.spare = run;
    }

    fn deliver(&mut self, turn: &mut Turn, rung: bool) {
        self.mail |= rung;
        if self.has_mail() {
            self.deliver_some(turn);
        }
    }

    fn expire(&mut self, turn: &mut Turn, timer: Timer) {
        match timer {
            Timer::Peer { key, .. } => self.with_peer(turn, key, Peer::expire),
            Timer::User { index, .. } => self.user_timer(turn, index),
            Timer::Accept { .. } => {
                self.accepting.pause = None;
                self.accepting.retried = false;
            }
            Timer::Lead | Timer::Trim => {}
            Timer::Drain { .. } => {
                self.force();
                self.draining.get_or_insert_default().deadline = None;
            }
        }
    }

    fn flush(&mut self, turn: &mut Turn) {
        if self.lists.flush.is_empty() {
            return;
        }
        let mut flush = std::mem::take(&mut self.lists.flush);
        for key in flush.drain(..) {
            if let Some(peer) = self.peers.get_mut(key as usize) {
                peer.marks &= !mark::FLUSH;
            }
            self.with_peer(turn, key, |peer, desk| {
                peer.flush(desk);
                peer.settle(desk);
            });
        }
        // Nothing is pushed here: what could be written has been offered.
        if self.lists.flush.is_empty() {
            self.lists.flush = flush;
        }
    }

    fn sweep(&mut self, turn: &mut Turn) {
        if self.lists.sweep.is_empty() {
            return;
        }
        let mut sweep = std::mem::take(&mut self.lists.sweep);
        for key in sweep.drain(..) {
            let mut desk = Desk {
                turn,
                timers: &mut self.timers,
                profile: &self.profile,
                gate: &mut self.gate,
                lost: &mut self.lost,
            };
            let Some(peer) = self.peers.get_mut(key as usize) else { continue };
            match peer.sweep(&mut desk) {
                Swept::Gone => self.remove(turn, key),
                Swept::Waits if peer.wants_work() && !peer.is_marked(mark::QUEUED) => {
                    peer.marks |= mark::QUEUED;
                    self.lists.run.push(key);
                }
                Swept::Waits => {}
            }
        }
        self.lists.sweep = sweep;
    }

    fn is_busy(&self) -> bool {
        !self.lists.are_empty()
            || self.has_mail()
            || self.may_accept()
            || self.admission.has_arrivals(self.profile.shard)
            || self.is_left_alone()
    }

    fn serial(&self) -> u32 {
        self.profile.serial
    }

    fn accepts(&self) -> bool {
        self.admission.accepts(self.profile.shard)
    }

    fn name(&self) -> &str {
        &self.profile.name
    }

    fn close(&mut self, id: ConnectionId) {
        if self.is_current(id.key, id.generation) {
            let peer = &mut self.peers[id.key as usize];
            peer.conn.close(CloseReason::Shutdown);
            self.lists.put(peer, id.key);
        }
    }

    fn drain(&mut self, turn: &mut Turn) -> Result<(), Error> {
        if self.has_begun_to_drain() {
            return Ok(());
        }
        self.take_arrivals(turn);
        let forced = self.is_forced();
        // A broken listening socket is closed like any other; what it has let in is drained.
        let accepted = if forced { Ok(()) } else { self.accept_last(turn) };
        self.stop_accepting(turn);
        let draining = self.draining.get_or_insert_default();
        draining.since = Some(turn.nanos());
        if forced {
            return accepted;
        }
        let at = turn.now().after(self.profile.options.drain_timeout);
        let timer = Timer::Drain { listener: self.profile.slot };
        draining.deadline = Some(turn.wheel.arm(at, timer));
        for (_, peer) in &mut self.peers {
            if peer.handler.is_some() && !peer.conn.has(flag::CLOSING) {
                peer.marks |= mark::DRAIN | mark::READABLE;
                self.lists.put(peer, peer.seat.key);
            }
        }
        accepted
    }

    fn force(&mut self) {
        self.draining.get_or_insert_default().forced = true;
        for (_, peer) in &mut self.peers {
            // Who only lingers has said and heard everything.
            let forced = if peer.handler.is_some() { mark::FORCED } else { 0 };
            peer.marks |= mark::CLOSE_DUE | forced;
            peer.conn.close(CloseReason::DrainForced);
            self.lists.put(peer, peer.seat.key);
        }
    }

    fn finished(&self) -> Option<Report> {
        let over = self.has_begun_to_drain()
            && self.peers.is_empty()
            && self.admission.is_closed()
            && !self.admission.has_arrivals(self.profile.shard);
        over.then(|| self.report())
    }

    fn report(&self) -> Report {
        let report = self.draining.as_ref().map(|draining| draining.report.clone());
        Report {
            undelivered_bytes: self.lost.input as u64,
            unsent_bytes: self.lost.output as u64,
            ..report.unwrap_or_default()
        }
    }

    fn retire(&mut self, turn: &mut Turn) {
        self.stop_accepting(turn);
        if let Some(deadline) = self.draining.as_mut().and_then(|draining| draining.deadline.take())
        {
            turn.wheel.cancel(deadline);
        }
        let unread = self.profile.mailbox.close();
        for mail in self.inbox.drain(..).chain(unread) {
            self.profile.counters.dropped_messages.add(1);
            guarded(|| drop(mail));
        }
        if let Some(broadcast) = self.broadcast.take() {
            broadcast.forget(|| ());
        }
    }
}
