//! Tests of handlers whose connections a connector opens: a reactor with one connector, a simulated
//! network that answers its dials, and the far end of each connection.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use mio::Token;

use super::network::{Network, Wire};
use super::rig::TURNS_MAX;
use super::script::{ScriptedStream, Shared};
use crate::clock::{Clock, ManualClock};
use crate::connector_handle::ConnectorHandle;
use crate::dialer::Dialer;
use crate::directory::{self, Inbox};
use crate::drain::{Drain, Report};
use crate::endpoint::Endpoint;
use crate::framing::{Decode, Framing};
use crate::handler::{Dialed, Handler, IntoHandler};
use crate::mailbox::Notifier;
use crate::options::{ConnectionOptions, ConnectorOptions, ReactorOptions};
use crate::poller::{Poller, Registry};
use crate::reactor::Reactor;
use crate::stats::Stats;
use crate::stream::Stream;
use crate::sync::Arc;

/// How an endpoint answers dials.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Fate {
    Accepts,
    /// The network returns an error after the attempt has begun.
    Refuses(ErrorKind),
    /// No answer comes.
    Silent,
    /// The system refuses to begin the attempt.
    Fails(ErrorKind),
}

/// What the network knows of dials.
#[derive(Debug, Default)]
struct Outside {
    fates: HashMap<String, Fate>,
    /// Each attempt, with its time.
    attempts: Vec<(Duration, Endpoint)>,
    /// Attempts that no answer has come to.
    silent: Vec<Shared>,
    /// Far ends that the test has not taken.
    arrived: VecDeque<Shared>,
}

/// Dials scripts in place of sockets.
struct ScriptedDialer {
    network: Rc<RefCell<Network>>,
    outside: Rc<RefCell<Outside>>,
    hand: ManualClock,
}

impl Dialer for ScriptedDialer {
    type Stream = ScriptedStream;

    fn connect(
        &mut self,
        to: &Endpoint,
        _: Option<IpAddr>,
        _: &ConnectionOptions,
    ) -> io::Result<ScriptedStream> {
        let mut outside = self.outside.borrow_mut();
        outside.attempts.push((self.hand.elapsed(), to.clone()));
        let fate = outside.fates.get(&to.to_string()).copied().unwrap_or(Fate::Accepts);
        if let Fate::Fails(kind) = fate {
            return Err(kind.into());
        }
        let script = self.network.borrow_mut().dial(to.clone());
        match fate {
            Fate::Accepts | Fate::Fails(_) => {}
            Fate::Refuses(kind) => script.borrow_mut().refuse(kind),
            Fate::Silent => {
                script.borrow_mut().connecting = true;
                outside.silent.push(Rc::clone(&script));
            }
        }
        outside.arrived.push_back(Rc::clone(&script));
        Ok(ScriptedStream::of(script))
    }

    fn register(stream: &mut ScriptedStream, registry: &Registry, token: Token) -> io::Result<()> {
        Stream::register(stream, registry, token)
    }

    fn peer_addr(stream: &ScriptedStream) -> io::Result<Option<Endpoint>> {
        if stream.is_connecting() { Err(ErrorKind::NotConnected.into()) } else { Ok(None) }
    }
}

/// A connector with your handlers, over a network that your test answers for. It also moves the
/// connector's clock.
///
/// Every endpoint accepts, unless the test says otherwise.
///
/// ```
/// use std::time::Duration;
/// use condor::testing::ConnectorHarness;
/// use condor::{Backoff, ConnectorOptions};
/// # use condor::{Action, Context, Handler};
/// # struct Greeter;
/// # impl Handler for Greeter {
/// #     type Message = ();
/// #     fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> { Action::send("hello") }
/// #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
/// #         Action::Continue
/// #     }
/// # }
///
/// // `Greeter` is a `Handler` that sends "hello" when its connection is up.
/// let second = Duration::from_secs(1);
/// let options = ConnectorOptions::to("192.0.2.1:80").backoff(Backoff::new(second, second));
/// let harness = ConnectorHarness::new(options, |_| Greeter);
/// let server = harness.accept().expect("it has dialled");
/// assert_eq!(server.packets(), [b"hello"]);
///
/// // The server goes away, and comes back.
/// harness.refuse("192.0.2.1:80");
/// server.closes();
/// harness.advance(10 * second);
/// assert!(harness.stats().dial_failures > 0);
/// harness.answer("192.0.2.1:80");
/// harness.advance(second);
/// assert_eq!(harness.accept().expect("it has dialled").packets(), [b"hello"]);
/// ```
pub struct ConnectorHarness<H: Handler> {
    inner: Rc<RefCell<Inner<H::Message>>>,
    network: Rc<RefCell<Network>>,
    outside: Rc<RefCell<Outside>>,
    hand: ManualClock,
    /// The connector's framing from the other side.
    framing: Framing,
    kind: std::marker::PhantomData<fn() -> H>,
}

struct Inner<M> {
    reactor: Reactor,
    handle: ConnectorHandle<M>,
    drain: Option<Drain>,
}

impl<H: Handler> ConnectorHarness<H> {
    /// Starts a connector, which dials at once. `factory` makes the handlers, as with
    /// [`start_connector`](crate::Reactor::start_connector).
    ///
    /// # Panics
    ///
    /// If the options are [refused](ConnectorOptions::check).
    pub fn new<R: IntoHandler<Handler = H>>(
        options: ConnectorOptions,
        factory: impl FnMut(&Dialed<'_, H::Message>) -> R + 'static,
    ) -> Self {
        let harness = Self::idle(options, factory);
        harness.run();
        harness
    }

    /// As [`new`](Self::new), but the reactor does not run yet. So a test can say first how endpoints
    /// answer.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn idle<R: IntoHandler<Handler = H>>(
        options: ConnectorOptions,
        factory: impl FnMut(&Dialed<'_, H::Message>) -> R + 'static,
    ) -> Self {
        let network = Rc::new(RefCell::new(Network::new()));
        let outside = Rc::new(RefCell::new(Outside::default()));
        let hand = ManualClock::default();
        let shared = Arc::new(directory::Shared::simulated(Inbox::new(Notifier::new(|| {}))));
        let wire = Box::new(Wire(Rc::clone(&network)));
        let reactor = ReactorOptions::default();
        let poller = Poller::simulated(wire, reactor.events);
        let clock = Clock::manual(hand.clone());
        let mut reactor =
            Reactor::assemble(0, poller, Registry::Simulated { seed: 0 }, clock, reactor, shared);
        let framing = options.connection.framing_in_force().mirrored();
        let dialer = ScriptedDialer {
            network: Rc::clone(&network),
            outside: Rc::clone(&outside),
            hand: hand.clone(),
        };
        let handle = match reactor.offer_connector("testing", options, dialer, factory) {
            Ok(handle) => handle,
            Err(error) => panic!("{error}"),
        };
        let inner = Rc::new(RefCell::new(Inner { reactor, handle, drain: None }));
        Self { inner, network, outside, hand, framing, kind: std::marker::PhantomData }
    }

    // ---- the network ----

    /// From now on this endpoint refuses connections.
    pub fn refuse(&self, endpoint: &str) {
        self.set(endpoint, Fate::Refuses(ErrorKind::ConnectionRefused));
    }

    /// From now on no answer comes from this endpoint.
    pub fn black_hole(&self, endpoint: &str) {
        self.set(endpoint, Fate::Silent);
    }

    /// From now on the system refuses to begin an attempt to this endpoint, with an error of this kind.
    pub fn fail(&self, endpoint: &str, kind: ErrorKind) {
        self.set(endpoint, Fate::Fails(kind));
    }

    /// From now on this endpoint accepts. Attempts to it that wait for an answer are accepted, too.
    pub fn answer(&self, endpoint: &str) {
        self.set(endpoint, Fate::Accepts);
        let is_its = |script: &Shared| script.borrow().peer_addr.to_string() == endpoint;
        let mut outside = self.outside.borrow_mut();
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut outside.silent).into_iter().partition(is_its);
        outside.silent = later;
        drop(outside);
        now.iter().for_each(|script| script.borrow_mut().connected());
        self.run();
    }

    fn set(&self, endpoint: &str, fate: Fate) {
        self.outside.borrow_mut().fates.insert(endpoint.to_owned(), fate);
    }

    /// The far end of the oldest connection that the test has not taken. `None` if there is none.
    pub fn accept(&self) -> Option<FarEnd<H>> {
        let mut outside = self.outside.borrow_mut();
        let at = outside.arrived.iter().position(|script| script.borrow().is_established())?;
        let script = outside.arrived.remove(at)?;
        drop(outside);
        let (inner, framing) = (Rc::clone(&self.inner), self.framing.clone());
        Some(FarEnd { inner, script, framing, network: Rc::clone(&self.network) })
    }

    /// Each attempt so far: when it began, since the start of the harness, and to which endpoint.
    pub fn attempts(&self) -> Vec<(Duration, Endpoint)> {
        self.outside.borrow().attempts.clone()
    }

    /// The number of streams that the connector holds open: attempts and connections.
    pub fn streams(&self) -> usize {
        self.network.borrow().open_streams()
    }

    // ---- the reactor ----

    /// Runs turns until the reactor can only wait.
    pub fn run(&self) {
        run(&self.inner, &self.network);
    }

    /// Moves the clock from one deadline to the next, and runs the reactor at each.
    pub fn advance(&self, by: Duration) {
        let end = self.hand.elapsed().saturating_add(by);
        self.run();
        loop {
            let wait = self.inner.borrow().reactor.next_deadline();
            let Some(wait) = wait else { break };
            if wait > end.saturating_sub(self.hand.elapsed()) {
                break;
            }
            self.hand.advance(wait);
            self.run();
        }
        self.hand.advance(end.saturating_sub(self.hand.elapsed()));
        self.run();
    }

    /// Stops the connector. Does nothing if it is being stopped already.
    pub fn drain(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.drain = inner.handle.stop().ok().or_else(|| inner.drain.take());
        drop(inner);
        self.run();
    }

    /// The report of [`drain`](Self::drain), once it is over.
    pub fn report(&self) -> Option<Report> {
        self.inner.borrow().drain.as_ref()?.report()
    }

    /// The connector's handle.
    pub fn handle(&self) -> ConnectorHandle<H::Message> {
        self.inner.borrow().handle.clone()
    }

    /// The connector's counters.
    pub fn stats(&self) -> Stats {
        self.inner.borrow().handle.stats()
    }

    /// The number of entries in the timer wheel.
    pub fn deadlines(&self) -> usize {
        self.inner.borrow().reactor.deadlines()
    }
}

fn run<M>(inner: &Rc<RefCell<Inner<M>>>, network: &Rc<RefCell<Network>>) {
    let mut inner = inner.borrow_mut();
    for _ in 0..TURNS_MAX {
        let busy =
            network.borrow().has_events() || inner.reactor.next_deadline() == Some(Duration::ZERO);
        if !busy {
            return;
        }
        inner.reactor.look_at_clock();
        let turned = inner.reactor.turn(Some(Duration::ZERO));
        turned.expect("a simulated poll does not fail");
    }
    panic!("still busy after {TURNS_MAX} turns: does a handler keep itself busy for ever?");
}

impl<H: Handler> fmt::Debug for ConnectorHarness<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorHarness").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The far end of a connection that a connector has opened: the server, from the test's side.
///
/// [`ConnectorHarness::accept`] returns it.
pub struct FarEnd<H: Handler> {
    inner: Rc<RefCell<Inner<H::Message>>>,
    network: Rc<RefCell<Network>>,
    script: Shared,
    framing: Framing,
}

impl<H: Handler> FarEnd<H> {
    /// The endpoint that was dialled.
    pub fn addr(&self) -> Endpoint {
        self.script.borrow().peer_addr.clone()
    }

    /// Sends `payload` as one packet.
    ///
    /// # Panics
    ///
    /// If the framing cannot express it.
    pub fn packet(&self, payload: impl AsRef<[u8]>) {
        let mut bytes = Vec::new();
        if let Err(error) = self.framing.encode(payload.as_ref(), &mut bytes) {
            panic!("no packet of the server's: {error}");
        }
        self.send(bytes);
    }

    /// Sends `bytes`, without framing them.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.script.borrow_mut().arrive(bytes.as_ref());
        run(&self.inner, &self.network);
    }

    /// Ends its half of the connection.
    pub fn closes(&self) {
        self.script.borrow_mut().end();
        run(&self.inner, &self.network);
    }

    /// Resets the connection.
    pub fn resets(&self) {
        self.script.borrow_mut().reset();
        run(&self.inner, &self.network);
    }

    /// The whole packets that the connector's side has sent since the last call.
    ///
    /// # Panics
    ///
    /// If what it has sent is no packet.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        let mut script = self.script.borrow_mut();
        let (mut packets, mut at) = (Vec::new(), 0);
        loop {
            match self.framing.decode(&script.taken[at..], 0) {
                Ok(Decode::Frame { payload, consumed }) => {
                    packets.push(script.taken[at..][payload].to_vec());
                    at += consumed;
                }
                Ok(Decode::Need(_)) => break,
                Err(error) => panic!("the server has got no packet: {error}"),
            }
        }
        script.taken.drain(..at);
        packets
    }

    /// All bytes that the connector's side has sent since the last call of this method or of
    /// [`packets`](Self::packets).
    pub fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.script.borrow_mut().taken)
    }

    /// Whether the connector's side has ended its half, or has closed the stream.
    pub fn is_finished(&self) -> bool {
        self.script.borrow().finished
    }

    /// Whether the connector's side has closed the stream.
    pub fn is_gone(&self) -> bool {
        self.script.borrow().gone
    }
}

impl<H: Handler> fmt::Debug for FarEnd<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarEnd").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Action, Context};

    struct Quiet;

    impl Handler for Quiet {
        type Message = ();

        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            Action::Continue
        }
    }

    /// Goal: many dials do not make a long turn: each turn begins as many as its accept budget allows,
    /// and as many of those that connect get their handler. Method: a thousand connections; turn after
    /// turn.
    #[test]
    fn a_turn_does_a_part_of_many_dials() {
        let budget = ReactorOptions::default().accept_budget as usize;
        let options = ConnectorOptions::to("192.0.2.1:80").connections(1_000);
        let harness = ConnectorHarness::idle(options, |_| Quiet);
        let (mut pieces, mut turns) = (0, 0);
        while harness.stats().made < 1_000 {
            harness.inner.borrow_mut().reactor.turn(Some(Duration::ZERO)).expect("a turn");
            let done = harness.attempts().len() + usize::try_from(harness.stats().made).unwrap();
            assert!(done - pieces <= budget, "{} pieces in one turn", done - pieces);
            (pieces, turns) = (done, turns + 1);
        }
        assert!(turns >= 2 * 1_000 / budget, "{turns} turns");
    }

    /// Goal: a dial whose time is over is not given up if it is connected by then, although the turn has
    /// no time left for what was announced. Method: a hundred answers and the deadline come together.
    #[test]
    fn a_dial_that_is_connected_at_its_deadline_is_up() {
        let options = ConnectorOptions::to("192.0.2.1:80").connections(100);
        let harness = ConnectorHarness::idle(options, |_| Quiet);
        harness.black_hole("192.0.2.1:80");
        harness.run();
        for script in std::mem::take(&mut harness.outside.borrow_mut().silent) {
            script.borrow_mut().connected();
        }
        harness.hand.advance(Duration::from_secs(4));
        harness.run();
        let stats = harness.stats();
        assert_eq!((stats.made, stats.dial_failures, stats.attempts), (100, 0, 100));
    }

    /// Goal: a dial with many addresses that fail at once makes no long turn. Method: a thousand
    /// addresses, turn after turn.
    #[test]
    fn a_turn_tries_a_part_of_many_addresses() {
        let targets: Vec<String> =
            (0..1_000).map(|port| format!("192.0.2.1:{}", port + 1)).collect();
        let options = ConnectorOptions::to(targets.clone()).retry(crate::backoff::Retry::Never);
        let harness = ConnectorHarness::idle(options, |_| Quiet);
        targets.iter().for_each(|target| harness.fail(target, ErrorKind::HostUnreachable));
        let (mut tried, mut turns) = (0, 0);
        while harness.stats().dial_failures == 0 {
            harness.inner.borrow_mut().reactor.turn(Some(Duration::ZERO)).expect("a turn");
            let now = harness.attempts().len();
            assert!(now - tried <= 8 * 64, "{} in one turn", now - tried);
            (tried, turns) = (now, turns + 1);
        }
        assert_eq!(tried, 1_000);
        assert!(turns > 1, "{turns} turns");
    }
}
