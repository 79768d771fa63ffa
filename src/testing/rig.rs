//! A reactor over a simulated network, with one listener and scripted connections. Only the test
//! moves its clock.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::door::ScriptedAcceptor;
use super::faults::Faults;
use super::network::{Network, Wire};
use super::script::Shared;
use crate::clock::{Clock, ManualClock};
use crate::connection::Flags;
use crate::directory::{self, Inbox};
use crate::drain::{Drain, Report};
use crate::endpoint::Endpoint;
use crate::framing::Framing;
use crate::handle::ListenerHandle;
use crate::handler::{Accepted, Action, Context, Handler, Info, IntoHandler};
use crate::identity::ConnectionId;
use crate::listener::Listener;
use crate::mailbox::Notifier;
use crate::options::{ListenerOptions, ReactorOptions};
use crate::peer::Peer;
use crate::poller::{Poller, Registry};
use crate::reactor::Reactor;
use crate::reason::CloseReason;
use crate::sync::Arc;
use crate::testing::script::ScriptedStream;

/// A handler that is still busy after so many turns keeps itself busy: no test has as much work.
pub(super) const TURNS_MAX: u32 = 100_000;

/// What a listener still holds. See [`Harness::leftovers`](super::Harness::leftovers).
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftovers {
    /// Slots in use. Lingering connections count.
    pub connections: usize,
    /// Connections whose PROXY header has not arrived.
    pub opening: usize,
    /// Timers that handlers have set.
    pub timers: usize,
    /// Memberships in groups.
    pub memberships: usize,
    /// Connections that have a [partner](crate::Context::pair).
    pub paired: usize,
    /// Entries of the timer wheel. The timers of handlers count.
    pub deadlines: usize,
    /// Buffers of partial packets, and output queues.
    pub buffers: usize,
    /// Bytes in these buffers and queues.
    pub buffered_bytes: usize,
}

/// The user's handler, and the script that records its framing and its end.
#[derive(Debug)]
pub(super) struct Observed<H> {
    pub(super) handler: H,
    script: Shared,
}

/// If the callback that just returned has changed the framing, records it in the script.
fn note_framing<M>(script: &Shared, ctx: &Context<'_, M>) {
    if ctx.conn.has(Flags::RESTART_BATCH) {
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

/// See the module's documentation.
pub(super) struct Rig<H: Handler> {
    reactor: Reactor,
    pub(super) handle: ListenerHandle<H::Message>,
    pub(super) hand: ManualClock,
    pub(super) network: Rc<RefCell<Network>>,
    /// The listener's framing from the side of its peers.
    pub(super) framing: Framing,
    drain: Option<Drain>,
    /// The type of the handlers. `listener` needs it to downcast.
    kind: std::marker::PhantomData<fn() -> H>,
}

impl<H: Handler> Rig<H> {
    pub(super) fn new<R: IntoHandler<Handler = H>>(
        reactor: ReactorOptions,
        options: ListenerOptions,
        mut factory: impl FnMut(&Accepted<'_, H::Message>) -> R + 'static,
    ) -> Self {
        let reactor = match reactor.checked() {
            Ok(options) => options,
            Err(error) => panic!("{error}"),
        };
        let network = Rc::new(RefCell::new(Network::new()));
        let door = Rc::clone(&network.borrow().door);
        let hand = ManualClock::default();
        let shared = directory::Shared::simulated(Inbox::new(Notifier::new(|| {})));
        let wire = Box::new(Wire(Rc::clone(&network)));
        let poller = Poller::simulated(wire, reactor.events);
        let clock = Clock::manual(hand.clone());
        let mut reactor = Reactor::assemble(
            0,
            poller,
            Registry::Simulated { seed: 0 },
            clock,
            reactor,
            Arc::new(shared),
        );
        let framing = options.connection.framing_in_force().mirrored();
        let acceptor = ScriptedAcceptor(Rc::clone(&door));
        let listen = |options: &ListenerOptions| Ok((Some(acceptor), options.addr()));
        let prepared = match reactor.handle().prepare("testing", options, listen) {
            Ok(prepared) => prepared,
            Err(error) => panic!("{error}"),
        };
        let handle = reactor.serve(prepared, move |accepted: &Accepted<'_, H::Message>| {
            let script = door.borrow().entering.take().expect("a stream was admitted");
            script.borrow_mut().id = Some(accepted.id());
            factory(accepted).into_handler().map(|handler| Observed { handler, script })
        });
        Self { reactor, handle, hand, network, framing, drain: None, kind: Default::default() }
    }

    pub(super) fn connect(&self, peer_addr: Option<Endpoint>) -> Shared {
        self.network.borrow_mut().connect(peer_addr, self.handle.local_addr())
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.network.borrow_mut().set_faults(faults);
    }

    // ---- the turn ----

    pub(super) fn turn(&mut self) {
        // Only the test moves the clock, so no time passes before the poll. Looking at the clock
        // here makes all that is due now happen in this turn.
        self.reactor.look_at_clock();
        let turned = self.reactor.turn(Some(Duration::ZERO));
        turned.expect("a simulated poll does not fail");
    }

    fn is_busy(&self) -> bool {
        self.network.borrow().has_events() || self.reactor.next_deadline() == Some(Duration::ZERO)
    }

    /// Runs turns until the reactor can only wait.
    pub(super) fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.is_busy() {
                return;
            }
            self.turn();
        }
        panic!("still busy after {TURNS_MAX} turns: does a handler keep itself busy for ever?");
    }

    /// Advances the clock from one deadline to the next, and runs the reactor at each.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.hand.elapsed().saturating_add(by);
        self.run();
        while let Some(wait) = self.reactor.next_deadline() {
            if wait > end.saturating_sub(self.hand.elapsed()) {
                break;
            }
            self.hand.advance(wait);
            self.run();
        }
        self.hand.advance(end.saturating_sub(self.hand.elapsed()));
        self.run();
    }

    /// Does nothing if the listener is being stopped already.
    pub(super) fn drain(&mut self) {
        self.drain = self.handle.stop().ok().or_else(|| self.drain.take());
        self.run();
    }

    pub(super) fn report(&self) -> Option<Report> {
        self.drain.as_ref()?.report()
    }

    // ---- looking ----

    /// `None` once the listener has ended.
    fn listener(&self) -> Option<&Listener<Observed<H>, ScriptedAcceptor>> {
        self.reactor.listener(self.handle.name())?.as_any().downcast_ref()
    }

    fn peer(&self, id: ConnectionId) -> Option<&Peer<Observed<H>, ScriptedStream>> {
        let peer = self.listener()?.peers.slots.get(id.key as usize)?;
        (peer.identity.generation == id.generation).then_some(peer)
    }

    pub(super) fn handler(&self, id: ConnectionId) -> Option<&H> {
        self.peer(id)?.handler().map(|observed| &observed.handler)
    }

    pub(super) fn queued(&self, id: ConnectionId) -> usize {
        self.peer(id).map_or(0, |peer| peer.conn.queued())
    }

    pub(super) fn leftovers(&self) -> Leftovers {
        let (deadlines, memberships) = (self.reactor.deadlines(), self.reactor.memberships());
        let paired = self.reactor.paired();
        let Some(listener) = self.listener() else {
            return Leftovers { deadlines, memberships, paired, ..Leftovers::default() };
        };
        let peers = listener.peers.slots.iter().map(|(_, peer)| &peer.conn);
        let pieces = peers
            .clone()
            .map(|conn| usize::from(conn.input.is_some()) + usize::from(conn.output.is_some()));
        Leftovers {
            connections: listener.peers.slots.len(),
            opening: listener.opening(),
            timers: listener.peers.timers.len(),
            memberships,
            paired,
            deadlines,
            buffers: pieces.sum(),
            buffered_bytes: peers.map(|conn| conn.undelivered() + conn.queued()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::Harness;

    /// Sends the bytes of each message. For an empty message, sets the framing that it already
    /// has.
    struct Told;

    impl Handler for Told {
        type Message = Bytes;

        fn handle_packet<'a>(
            &'a mut self,
            packet: &'a [u8],
            _: &mut Context<'_, Bytes>,
        ) -> Action<'a> {
            Action::send(packet)
        }

        fn handle_info<'a>(
            &'a mut self,
            info: Info<'a, Bytes>,
            ctx: &mut Context<'_, Bytes>,
        ) -> Action<'a> {
            match info {
                Info::Message(bytes) if bytes.is_empty() => {
                    ctx.set_framing(Framing::default());
                    Action::Continue
                }
                Info::Message(bytes) => Action::send(bytes),
                other => other.default_action(),
            }
        }
    }

    /// Goal: after its first packet a connection is as cheap as without a first-packet timeout: it is
    /// idle, and has no timer. Method: before and after the first packet.
    #[test]
    fn a_connection_comes_to_rest_after_its_first_packet() {
        let options = ListenerOptions::port(5555).first_packet_timeout(Duration::from_secs(5));
        let harness = Harness::new(options, |_| Told);
        let id = harness.id().expect("it was accepted");
        let is_idle = || harness.rig.borrow().peer(id).expect("it lives").is_idle();
        assert!(!is_idle());
        harness.packet("hello");
        assert!(is_idle());
        assert_eq!(harness.leftovers().deadlines, 0);
    }

    /// Goal: a connection that only gets shared bytes is idle once they have left, like any other,
    /// and its events take the short path. Method: a message and a broadcast of each size, then a
    /// look at the flags; then a new framing, after which no other flag may be set.
    #[test]
    fn a_connection_that_is_sent_shared_bytes_comes_to_rest() {
        let harness = Harness::of(Told);
        let id = harness.id().expect("it was accepted");
        for len in [1, 40_000, 60_000] {
            for send in [Harness::message, Harness::broadcast] {
                send(&harness, Bytes::from(vec![1; len]));
                assert_eq!(harness.packets(), [vec![1; len]]);
                let rig = harness.rig.borrow();
                let peer = rig.peer(id).expect("it lives");
                assert!(peer.is_idle(), "{:?} after {len} bytes", peer.conn.flags());
            }
        }
        harness.message(Bytes::new());
        let flags = harness.rig.borrow().peer(id).map(|peer| peer.conn.flags());
        assert_eq!(flags, Some(Flags::OWN_FRAMING), "nothing is left to do");
    }
}
