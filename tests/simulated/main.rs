//! Several nodes in one simulated network, with a clock that the test moves: no socket, no thread, no
//! sleep.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod dials;
mod drains;
mod network;
mod pairs;
mod proxies;
mod reconnects;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use condor::sim::{Node, Sim};
use condor::{
    Action, Backoff, CloseReason, ConnectorOptions, Context, Handler, ListenerOptions, Stats,
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// One connection, as its handler has seen it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Life {
    packets: Vec<Vec<u8>>,
    end: Option<CloseReason>,
}

/// The connections of one program, in order. It outlives the program.
#[derive(Debug, Clone, Default)]
struct Lives(Rc<RefCell<Vec<Life>>>);

impl Lives {
    fn all(&self) -> Vec<Life> {
        self.0.borrow().clone()
    }

    fn count(&self) -> usize {
        self.0.borrow().len()
    }

    fn open(&self) -> usize {
        self.0.borrow().iter().filter(|life| life.end.is_none()).count()
    }

    fn last(&self) -> Life {
        self.0.borrow().last().cloned().unwrap_or_default()
    }

    /// A handler of a new connection, which says `greeting` first. If it `echoes`, it sends each packet
    /// back.
    fn side(&self, greeting: &[&'static [u8]], echoes: bool) -> Side {
        Side { lives: self.clone(), life: None, greeting: greeting.to_vec(), echoes }
    }
}

/// One end of a connection, which records what it sees.
struct Side {
    lives: Lives,
    /// Its place among the connections, once it is up.
    life: Option<usize>,
    greeting: Vec<&'static [u8]>,
    echoes: bool,
}

impl Handler for Side {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        assert_eq!(self.life, None, "a connection comes up once");
        self.life = Some(self.lives.count());
        self.lives.0.borrow_mut().push(Life::default());
        for packet in &self.greeting {
            ctx.send(*packet).expect("there is room for a greeting");
        }
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        let life = self.life.expect("init comes first");
        self.lives.0.borrow_mut()[life].packets.push(packet.to_vec());
        if self.echoes { Action::send(packet) } else { Action::Continue }
    }

    fn terminate(self, reason: CloseReason) {
        let life = self.life.expect("init comes first");
        let before = self.lives.0.borrow_mut()[life].end.replace(reason);
        assert_eq!(before, None, "a connection goes down once");
    }
}

/// Listens on all addresses of its node.
fn listens(port: u16) -> ListenerOptions {
    ListenerOptions::new(([0, 0, 0, 0], port)).max_connections(2_000)
}

/// Dials the node "server", with waits of up to a second.
fn dials() -> ConnectorOptions {
    ConnectorOptions::to("server:80").backoff(Backoff::new(ms(100), secs(1)))
}

/// The longest time until a connection that `dials` describes is up again: a wait, and a dial.
const BACK: Duration = Duration::from_millis(1_000 + 3_000 + 10);

/// Two nodes: "server" sends all packets back, and "client" keeps connections to it up. They are
/// greeted with these packets.
struct Pair {
    sim: Sim,
    server: Node,
    client: Node,
    at_server: Lives,
    at_client: Lives,
}

fn pair(seed: u64, options: ConnectorOptions, greeting: &'static [&'static [u8]]) -> Pair {
    pair_with(listens(80), seed, options, greeting)
}

/// The same, with these options of the listener.
fn pair_with(
    listens: ListenerOptions,
    seed: u64,
    options: ConnectorOptions,
    greeting: &'static [&'static [u8]],
) -> Pair {
    let (sim, at_server, at_client) = (Sim::new(seed), Lives::default(), Lives::default());
    let lives = at_server.clone();
    let server = sim.node("server", move |reactor| {
        let lives = lives.clone();
        let options = listens.clone().silence_timeout(secs(5));
        reactor.start_listener("echo", options, move |_| lives.side(&[], true))
    });
    let lives = at_client.clone();
    let client = sim.node("client", move |reactor| {
        let (lives, options) = (lives.clone(), options.clone().silence_timeout(secs(5)));
        reactor.start_connector("link", options, move |_| lives.side(greeting, false))
    });
    Pair { sim, server, client, at_server, at_client }
}

impl Pair {
    fn link(&self) -> condor::sim::Link<'_> {
        self.sim.link(self.client, self.server)
    }

    fn stats(&self, node: Node) -> Stats {
        self.sim.with(node, |reactor| reactor.handle().stats())
    }
}
