//! Several programs in one process: their reactors, and the network between them, with a clock that
//! only the test moves. It needs the feature `sim`.
//!
//! A *node* is a machine with one program: a real [`Reactor`], which your closure fills with listeners
//! and connectors as a `main` does. The nodes cannot tell that the network is simulated. There is one
//! thread and no socket, and all that happens comes from one seed: the same seed gives the same run.
//!
//! ```
//! use std::time::Duration;
//!
//! use condor::sim::Sim;
//! use condor::{Action, Backoff, ConnectorOptions, Context, Handler, ListenerOptions};
//! # struct Echo;
//! # impl Handler for Echo {
//! #     type Message = ();
//! #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
//! #         Action::send(packet)
//! #     }
//! # }
//! # struct Greeter;
//! # impl Handler for Greeter {
//! #     type Message = ();
//! #     fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> { Action::send("hello") }
//! #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
//! #         Action::Continue
//! #     }
//! # }
//!
//! // `Echo` sends back what it gets, and `Greeter` says "hello" when its connection is up.
//! let millis = Duration::from_millis;
//! let sim = Sim::new(7);
//! let server = sim.node("server", |reactor| {
//!     reactor.start_listener("echo", ListenerOptions::new(([0, 0, 0, 0], 80)), |_peer| Echo)
//! });
//! let client = sim.node("client", move |reactor| {
//!     let options = ConnectorOptions::to("server:80").backoff(Backoff::new(millis(50), millis(100)));
//!     reactor.start_connector("greeter", options, |_peer| Greeter)
//! });
//! sim.link(client, server).latency(millis(10));
//!
//! // The answer comes after two round trips: one for the connection, and one for the greeting.
//! sim.run_for(millis(39));
//! let stats = || sim.with(client, |reactor| reactor.handle().stats());
//! assert_eq!((stats().made, stats().packets_in), (1, 0));
//! sim.run_for(millis(1));
//! assert_eq!(stats().packets_in, 1);
//!
//! // The server dies, and comes back. So does the connection.
//! sim.crash(server);
//! sim.run_for(millis(1_000));
//! assert_eq!(stats().open, 0);
//! assert!(sim.attempts(client).len() > 5);
//! sim.restart(server);
//! assert!(sim.run_until(|_world| stats().packets_in == 2));
//! ```
//!
//! # Addresses and names
//!
//! A node has the address [`Node::ip`]: 10.0.0.1 for the first one, then 10.0.0.2. A listener that is
//! bound to another address brings it to its node, and the unspecified address means all addresses of
//! the node. Loopback addresses and Unix sockets lead to the node itself. A connector may dial a node
//! by its name. All of this needs no options other than those of a program, but note that
//! [`ListenerOptions::port`](crate::ListenerOptions::port) listens on the loopback address.
//!
//! # What it is not
//!
//! A reactor is alone on its node: there are no shards. Descriptors, backlogs and the ports that a node
//! may choose have no limit. An inherited socket is refused. TCP is simulated as far as a program can
//! see it: connections take a round trip, bytes come in pieces and in order, buffers are bounded, ends
//! and resets are told. There are no lost packets, only links that hold them back.

mod link;

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use self::link::Link;
use crate::clock::{Clock, ManualClock};
use crate::directory::{Inbox, Shared};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::mailbox::Notifier;
use crate::options::ReactorOptions;
use crate::poller::{Poller, Registry};
use crate::reactor::Reactor;
pub use crate::simulated::Cut;
use crate::simulated::{Host, World, address};
use crate::sync::Arc;

/// A node of a [`Sim`].
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(usize);

impl Node {
    /// The node's own address.
    pub fn ip(self) -> IpAddr {
        address(self.0)
    }
}

/// Starts the program of a node.
type Setup = Box<dyn FnMut(&mut Reactor) -> Result<(), Error>>;

struct Machine {
    name: String,
    setup: Setup,
    /// `None` while the node is down.
    reactor: Option<Reactor>,
}

impl Machine {
    /// Its reactor, unless the node is down or a shutdown is done.
    fn running(&self) -> Option<&Reactor> {
        self.reactor.as_ref().filter(|reactor| !reactor.is_stopped())
    }
}

/// Nodes, and the network between them. See the [module](self).
///
/// A drop of it drops the reactors, which ends their connections.
pub struct Sim {
    machines: RefCell<Vec<Machine>>,
    world: World,
    hand: ManualClock,
}

impl Sim {
    /// Nodes that are still busy after so many turns at one moment keep each other busy, and after so
    /// many turns without a parcel from the network a node keeps itself busy.
    const TURNS_MAX: u32 = 100_000;
    const QUIET_TURNS_MAX: u32 = 10_000;
    /// How long [`run_until`](Self::run_until) runs at most.
    const PATIENCE: Duration = Duration::from_secs(60 * 60);
    /// Up to two to this power parcels arrive between two turns.
    const BURST: u64 = 5;

    /// A world without nodes. All random choices come from `seed`: the waits of connectors, which node
    /// has its turn first, and where the bytes of a stream are cut.
    pub fn new(seed: u64) -> Self {
        let (world, hand) = (World::new(seed), ManualClock::default());
        Self { machines: RefCell::default(), world, hand }
    }

    /// Adds a node, and starts its program: `setup` starts listeners and connectors on its reactor. It is
    /// called again at each [`restart`](Self::restart).
    ///
    /// # Panics
    ///
    /// If `setup` returns an error, or another node has this name.
    pub fn node<T>(
        &self,
        name: &str,
        mut setup: impl FnMut(&mut Reactor) -> Result<T, Error> + 'static,
    ) -> Node {
        let setup: Setup = Box::new(move |reactor| setup(reactor).map(drop));
        let mut machines = self.machines.borrow_mut();
        let node = Node(machines.len());
        {
            let mut network = self.world.lock();
            assert!(network.address_of(name).is_none(), "two nodes have the name \"{name}\"");
            network.add(name, node.ip());
        }
        machines.push(Machine { name: name.to_owned(), setup, reactor: None });
        drop(machines);
        self.start(node);
        node
    }

    /// The link between two nodes. It is the same in both directions, except for
    /// [`cut_after`](Link::cut_after).
    pub fn link(&self, from: Node, to: Node) -> Link<'_> {
        Link::new(&self.world, (from.0, to.0))
    }

    /// The process of the node dies: its reactor is dropped. So its handlers are terminated, what was
    /// queued is lost, each peer sees an end, or a reset if bytes were unread, and new connections are
    /// refused. Does nothing if the node is down.
    ///
    /// A machine without power says nothing: [`Link::cut`] and [`Link::black_hole`] are for that.
    pub fn crash(&self, node: Node) {
        let reactor = self.machines.borrow_mut()[node.0].reactor.take();
        drop(reactor);
    }

    /// Starts the program of the node again. If it is up, it [crashes](Self::crash) first.
    ///
    /// # Panics
    ///
    /// As [`node`](Self::node).
    pub fn restart(&self, node: Node) {
        self.crash(node);
        self.start(node);
    }

    /// Calls `call` with the reactor of a node, between two turns.
    ///
    /// # Panics
    ///
    /// If the node is down.
    pub fn with<T>(&self, node: Node, call: impl FnOnce(&mut Reactor) -> T) -> T {
        let machine = &mut self.machines.borrow_mut()[node.0];
        match &mut machine.reactor {
            Some(reactor) => call(reactor),
            None => panic!("node \"{}\" is down", machine.name),
        }
    }

    /// Runs all nodes for this time.
    ///
    /// # Panics
    ///
    /// If a node keeps itself busy for ever.
    pub fn run_for(&self, duration: Duration) {
        let end = self.now().saturating_add(duration);
        self.run(end, |_| false);
    }

    /// Runs all nodes until `is_done` returns `true`, for one hour at most. Returns whether it did.
    /// `is_done` is called whenever all that happens at one moment has happened.
    ///
    /// # Panics
    ///
    /// As [`run_for`](Self::run_for).
    #[must_use = "it returns whether the condition came true"]
    pub fn run_until(&self, is_done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now().saturating_add(Self::PATIENCE);
        self.run(end, is_done)
    }

    /// The time since the start.
    pub fn now(&self) -> Duration {
        self.hand.elapsed()
    }

    /// The number of streams that a node holds open: attempts to connect, and connections.
    pub fn streams(&self, node: Node) -> usize {
        self.world.lock().streams(node.0)
    }

    /// Each attempt of a node to connect: when it began, and to which endpoint.
    pub fn attempts(&self, node: Node) -> Vec<(Duration, Endpoint)> {
        let network = self.world.lock();
        let own = network.seen().0.iter().filter(|(_, of, _)| *of == node.0);
        own.map(|(at, _, to)| (*at, to.clone())).collect()
    }

    /// What has arrived at the nodes so far, one line each. The text is for people, and for the
    /// comparison of two runs. It may change in any release.
    pub fn trace(&self) -> Vec<String> {
        self.world.lock().seen().1.to_vec()
    }

    // ---- running ----

    fn start(&self, node: Node) {
        let inbox = Inbox::new(Notifier::new(|| {}));
        let host = Host { world: self.world.clone(), node: node.0 };
        let options = ReactorOptions::default();
        let poller = Poller::simulated(Box::new(host.clone()), options.events);
        let registry = Registry::Simulated { seed: self.world.lock().random().next() };
        let clock = Clock::manual(self.hand.clone());
        let shared = Arc::new(Shared::on(host, inbox));
        let mut reactor = Reactor::assemble(0, poller, registry, clock, options, shared);
        let machine = &mut self.machines.borrow_mut()[node.0];
        if let Err(error) = (machine.setup)(&mut reactor) {
            panic!("node \"{}\": {error}", machine.name);
        }
        machine.reactor = Some(reactor);
    }

    /// Runs until `end`, or until `is_done`.
    fn run(&self, end: Duration, mut is_done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            self.settle();
            if is_done(self) {
                return true;
            }
            let next = self.next().filter(|next| *next <= end);
            let now = next.unwrap_or(end);
            self.hand.advance(now.saturating_sub(self.now()));
            self.world.lock().set_time(now);
            if next.is_none() {
                return is_done(self);
            }
        }
    }

    /// When something happens next.
    fn next(&self) -> Option<Duration> {
        let machines = self.machines.borrow();
        let waits = machines.iter().filter_map(|machine| machine.running()?.next_deadline());
        let due = waits.min().map(|wait| self.now().saturating_add(wait));
        [due, self.world.lock().next_arrival()].into_iter().flatten().min()
    }

    /// Does all that happens at this moment: parcels arrive, and nodes have turns, in an order that the
    /// seed chooses.
    fn settle(&self) {
        let mut machines = self.machines.borrow_mut();
        let (mut turns, mut quiet) = (0, 0);
        while turns < Self::TURNS_MAX && quiet < Self::QUIET_TURNS_MAX {
            let mut network = self.world.lock();
            let most = 1 << network.random().up_to(Self::BURST);
            let arrived = (0..most).take_while(|_| network.deliver()).count();
            (turns, quiet) = (turns + 1, if arrived > 0 { 0 } else { quiet + 1 });
            let is_busy = |(node, machine): (usize, &Machine)| {
                let runs = machine.running()?;
                let is_due = runs.next_deadline() == Some(Duration::ZERO);
                (is_due || network.has_events(node)).then_some(node)
            };
            let busy: Vec<usize> = machines.iter().enumerate().filter_map(is_busy).collect();
            if busy.is_empty() && arrived == 0 {
                return;
            }
            let chosen = network.random().up_to(busy.len().saturating_sub(1) as u64);
            drop(network);
            let chosen = busy.get(usize::try_from(chosen).unwrap_or_default());
            if let Some(reactor) = chosen.and_then(|node| machines[*node].reactor.as_mut()) {
                // The clock stands still in a turn. Looking at it makes all that is due happen in
                // this one.
                reactor.look_at_clock();
                reactor.turn(Some(Duration::ZERO)).expect("a simulated poll does not fail");
            }
        }
        panic!("still busy after {turns} turns at {:?}: does a handler spin?", self.now());
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("now", &self.now()).finish_non_exhaustive()
    }
}
