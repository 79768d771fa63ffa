//! A reactor without a poll: one real listener, a clock moved by hand, scripted connections.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slab::Slab;

use super::Leftovers;
use super::faults::Faults;
use super::script::{Door, Ready, Script, ScriptedAcceptor, Shared};
use crate::admission::Admission;
use crate::clock::{Clock, ManualClock};
use crate::connection::flag;
use crate::drain::Report;
use crate::error::CloseReason;
use crate::framing::Framing;
use crate::handle::{self, End, Handle};
use crate::handler::{Accepted, Action, Context, Handler, Info};
use crate::listener::{AnyListener, Listener, Profile};
use crate::mailbox::{ConnectionId, Doorbell, Mailbox};
use crate::options::{ListenerOptions, Origin, ReactorOptions};
use crate::stats::Counters;
use crate::sync::Arc;
use crate::turn::Turn;

/// More turns than any amount of work takes that has an end.
const TURNS_MAX: u32 = 100_000;

const SERIAL: u32 = 1;

/// The user's handler, and the script that is told what happens to it.
#[derive(Debug)]
pub(super) struct Observed<H> {
    pub(super) handler: H,
    script: Shared,
}

/// Notes the framing, should the callback that just returned have changed it.
fn note_framing<M>(script: &Shared, ctx: &Context<'_, M>) {
    if ctx.conn.has(flag::REFRAMED) {
        script.borrow_mut().framing = ctx.conn.own_framing().cloned();
    }
}

impl<H: Handler> Handler for Observed<H> {
    type Message = H::Message;

    fn init(&mut self, ctx: &mut Context<'_, H::Message>) -> Action<'_> {
        let action = self.handler.init(ctx);
        note_framing(&self.script, ctx);
        action
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, H::Message>,
    ) -> Action<'a> {
        let action = self.handler.handle_packet(packet, ctx);
        note_framing(&self.script, ctx);
        action
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, H::Message>,
        ctx: &mut Context<'_, H::Message>,
    ) -> Action<'a> {
        let action = self.handler.handle_info(info, ctx);
        note_framing(&self.script, ctx);
        action
    }

    fn terminate(self, reason: CloseReason) {
        let again = self.script.borrow_mut().reason.replace(reason);
        assert_eq!(again, None, "a handler is terminated once");
        self.handler.terminate(reason);
    }
}

type Factory<H> = Box<dyn FnMut(&Accepted<'_>) -> Observed<H>>;

/// See the module's documentation.
pub(super) struct Rig<H: Handler> {
    pub(super) listener: Listener<Observed<H>, Factory<H>, ScriptedAcceptor>,
    pub(super) turn: Turn,
    pub(super) hand: ManualClock,
    pub(super) mailbox: Arc<Mailbox<H::Message>>,
    pub(super) counters: Arc<Counters>,
    /// The listener's framing as its peers have it.
    pub(super) framing: Framing,
    pub(super) door: Rc<RefCell<Door>>,
    pub(super) report: Option<Report>,
    pub(super) faults: Option<Faults>,
    doorbell: Arc<Doorbell>,
    local_addr: SocketAddr,
    read: Vec<u8>,
    scripts: Slab<Shared>,
    ready: Ready,
    /// The list before this turn's, for its memory.
    ready_before: Vec<usize>,
    connections: u64,
}

/// The address that connections are told they reached.
fn address(options: &ListenerOptions) -> SocketAddr {
    match &options.origin {
        Origin::Bind(addr) => *addr,
        Origin::Inherited(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
    }
}

impl<H: Handler> Rig<H> {
    pub(super) fn new(
        reactor: ReactorOptions,
        options: ListenerOptions,
        mut factory: impl FnMut(&Accepted<'_>) -> H + 'static,
    ) -> Self {
        let findings = options.check();
        assert!(findings.errors.is_empty(), "bad options: {:?}", findings.errors);
        // Without a reactor there is nobody to obey a handle: all of them say so.
        let end = End::new(Doorbell::new(|| {}));
        end.set_gone();
        let (doorbell, pulse) = (Arc::clone(&end.doorbell), Arc::clone(&end.pulse));
        let shared = Arc::new(handle::Shared::new(vec![end]));
        let counters = Arc::new(Counters::default());
        let refused = Arc::clone(&counters);
        let mailbox = Arc::new(Mailbox::new(
            SERIAL,
            options.mailbox_capacity,
            Arc::clone(&doorbell),
            move || {
                refused.refused_messages.fetch_add(1, Ordering::Relaxed);
            },
        ));
        let local_addr = address(&options);
        let profile = Profile {
            name: "testing".into(),
            shard: 0,
            slot: 0,
            serial: SERIAL,
            framing: options.framing_in_force(),
            shape: options.framing_in_force().shape(),
            limits: Profile::<H::Message>::limits(&options),
            options,
            mailbox: Arc::clone(&mailbox),
            counters: Arc::clone(&counters),
            lease: None,
        };
        let framing = profile.framing.clone().mirrored();
        let door = Rc::new(RefCell::new(Door::default()));
        let hall = Rc::clone(&door);
        let factory: Factory<H> = Box::new(move |accepted: &Accepted<'_>| {
            let script = hall.borrow_mut().entering.take().expect("a stream was accepted");
            script.borrow_mut().enter(accepted.id());
            Observed { handler: factory(accepted), script }
        });
        let hand = ManualClock::default();
        let read = vec![0; reactor.read_buffer];
        let turn = Turn::new(Clock::manual(hand.clone()), reactor, None, Handle { shared }, pulse);
        let acceptor = ScriptedAcceptor(Rc::clone(&door));
        let max_connections = profile.options.max_connections;
        #[expect(clippy::arc_with_non_send_sync, reason = "scripted streams stay on one thread")]
        let admission = Arc::new(Admission::new([Arc::clone(&doorbell)], 0, max_connections));
        Self {
            listener: Listener::new(profile, admission, Some(acceptor), factory),
            turn,
            hand,
            mailbox,
            counters,
            framing,
            door,
            report: None,
            faults: None,
            doorbell,
            local_addr,
            read,
            scripts: Slab::new(),
            ready: Ready::default(),
            ready_before: Vec::new(),
            connections: 0,
        }
    }

    pub(super) fn connect(&mut self, peer_addr: Option<SocketAddr>) -> Shared {
        self.connections += 1;
        let port = u16::try_from(40_000 + self.connections % 20_000).unwrap_or_default();
        let peer_addr = peer_addr.unwrap_or_else(|| ([192, 0, 2, 1], port).into());
        let place = self.scripts.vacant_entry();
        let ready = Rc::clone(&self.ready);
        let mut script = Script::new(place.key(), ready, peer_addr, self.local_addr);
        script.weather = self.faults.as_ref().map(|faults| faults.weather(self.connections));
        let script = Rc::new(RefCell::new(script));
        place.insert(Rc::clone(&script));
        self.door.borrow_mut().waiting.push_back(Rc::clone(&script));
        self.listener.mark_acceptor();
        script
    }

    /// Nobody looks into this script any more.
    pub(super) fn forget(&mut self, script: &Shared) {
        let (gone, place) = (script.borrow().gone, script.borrow().place);
        if gone {
            self.scripts.remove(place);
        }
    }

    /// Connections that exist already are numbered from the top, so that none has the weather of
    /// one to come.
    pub(super) fn set_faults(&mut self, faults: Faults) {
        for (place, script) in &self.scripts {
            script.borrow_mut().weather = Some(faults.weather(!(place as u64)));
        }
        self.faults = Some(faults);
    }

    // ---- the turn ----

    /// One turn, as the reactor's, except that events come from the scripts.
    pub(super) fn turn(&mut self) {
        self.doorbell.awake();
        let now = self.turn.present();
        self.turn.begin(Some(now));
        self.mark();
        self.listener.accept(&mut self.turn).expect("the listening socket is sound");
        self.listener.work(&mut self.turn, &mut self.read);
        let rung = self.doorbell.answer();
        self.listener.deliver(&mut self.turn, rung);
        self.expire();
        self.listener.flush(&mut self.turn);
        self.listener.sweep(&mut self.turn);
        if let Some(report) = self.listener.finished()
            && self.report.is_none()
        {
            self.listener.retire(&mut self.turn);
            self.report = Some(report);
        }
        self.doorbell.may_sleep();
    }

    /// An event that comes too late, for a stream that is gone, is delivered like any other.
    fn mark(&mut self) {
        let mut ready = std::mem::take(&mut self.ready_before);
        std::mem::swap(&mut ready, &mut self.ready.borrow_mut());
        for place in ready.drain(..) {
            let Some(script) = self.scripts.get(place) else { continue };
            let mut script = script.borrow_mut();
            let Some(id) = script.id else { continue };
            let events = script.take_events();
            if events != 0 {
                self.listener.mark_peer(id.key, id.generation, events);
            }
        }
        self.ready_before = ready;
    }

    fn expire(&mut self) {
        let mut budget = self.turn.options.timer_budget;
        while let Some(timer) = self.turn.wheel.expire(self.turn.judged(), &mut budget) {
            self.listener.expire(&mut self.turn, timer);
        }
    }

    fn is_busy(&self) -> bool {
        let judged = self.turn.present().round_down();
        self.doorbell.is_rung()
            || self.listener.is_busy()
            || !self.ready.borrow().is_empty()
            || self.turn.wheel.next_expiry().is_some_and(|next| next <= judged)
    }

    /// Turns until there is nothing left to do but wait.
    pub(super) fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.is_busy() {
                return;
            }
            self.turn();
        }
        panic!("still busy after {TURNS_MAX} turns: does a handler keep itself busy for ever?");
    }

    /// Stops at every moment at which something is due.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.hand.elapsed().saturating_add(by);
        self.run();
        while let Some(next) = self.turn.wheel.next_expiry() {
            let wait = self.turn.present().until(next);
            if wait > end.saturating_sub(self.hand.elapsed()) {
                break;
            }
            self.hand.advance(wait);
            self.run();
        }
        self.hand.advance(end.saturating_sub(self.hand.elapsed()));
        self.run();
    }

    pub(super) fn drain(&mut self) {
        self.turn.sample();
        self.listener.drain(&mut self.turn).expect("the listening socket is sound");
        self.run();
    }

    // ---- looking ----

    pub(super) fn handler(&self, id: ConnectionId) -> Option<&H> {
        let peer = self.listener.peers.get(id.key as usize)?;
        (peer.seat.generation == id.generation)
            .then(|| peer.handler.as_ref().map(|observed| &observed.handler))?
    }

    pub(super) fn queued(&self, id: ConnectionId) -> usize {
        self.listener
            .peers
            .get(id.key as usize)
            .filter(|peer| peer.seat.generation == id.generation)
            .map_or(0, |peer| peer.conn.queued())
    }

    pub(super) fn leftovers(&self) -> Leftovers {
        let peers = self.listener.peers.iter().map(|(_, peer)| &peer.conn);
        let pieces = peers
            .clone()
            .map(|conn| usize::from(conn.input.is_some()) + usize::from(conn.output.is_some()));
        Leftovers {
            connections: self.listener.peers.len(),
            timers: self.listener.timers.len(),
            deadlines: self.turn.wheel.len(),
            buffers: pieces.sum(),
            buffered_bytes: peers.map(|conn| conn.undelivered() + conn.queued()).sum(),
        }
    }

    /// As the drop of a reactor.
    fn terminate_all(&mut self) {
        self.listener.force();
        self.listener.sweep(&mut self.turn);
        self.listener.retire(&mut self.turn);
    }
}

impl<H: Handler> Drop for Rig<H> {
    fn drop(&mut self) {
        self.terminate_all();
    }
}
