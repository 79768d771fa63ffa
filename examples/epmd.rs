//! Erlang's port mapper. Nodes register their names and ports, and ask for those of other nodes.
//!
//! ```text
//! cargo run --release --example epmd -- --listen 127.0.0.1:4370 &
//! export ERL_EPMD_PORT=4370
//! erl -start_epmd false -name one@127.0.0.1 -setcookie demo     # in one terminal
//! erl -start_epmd false -name two@127.0.0.1 -setcookie demo     # in another, and there:
//! (two@127.0.0.1)1> net_adm:ping('one@127.0.0.1').              # pong
//! epmd -port 4370 -names                                        # both of them
//! ```
//!
//! What it shows:
//!
//! - Requests have a length of two bytes, answers have none (`Framing::split`).
//! - A registration lives exactly as long as its connection, because `terminate` is called exactly
//!   once, for every cause of an end. If you leave one of the shells, its name is gone.
//!
//! The Erlang documentation describes the protocol: "Distribution Protocol", section "EPMD
//! Protocol". The server supports nodes of OTP 23 and later. It refuses KILL and STOP, because
//! every client can send them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use condor::{
    Action, CloseReason, Context, Error, Framing, Handler, Info, LengthField, ListenerOptions, Raw,
    Reactor,
};

#[path = "common/mod.rs"]
mod common;

mod request {
    pub(super) const NAMES: u8 = 110;
    pub(super) const KILL: u8 = 107;
    pub(super) const STOP: u8 = 115;
    pub(super) const ALIVE2: u8 = 120;
    pub(super) const PORT_PLEASE2: u8 = 122;
}

mod answer {
    pub(super) const ALIVE2_X: u8 = 118;
    pub(super) const PORT2: u8 = 119;
    pub(super) const ALIVE2: u8 = 121;
}

/// From this version of the distribution protocol on, a node gets a creation of four bytes.
const LARGE_CREATION: u16 = 6;

/// If a name is taken, how long to wait before the one retry.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// Erlang's port mapper.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:4369")]
    listen: SocketAddr,
}

/// What a node registers, in the bytes that other nodes get.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    port: u16,
    /// Node type, protocol, highest version, lowest version.
    about: [u8; 6],
    extra: Vec<u8>,
}

#[derive(Debug, Default)]
struct Registry {
    /// The port of this mapper. The answer to NAMES contains it.
    port: u16,
    nodes: BTreeMap<String, Node>,
    registrations: u32,
}

impl Registry {
    /// Returns the node's creation: a number that differs each time a node registers. Returns
    /// `None` if the name is taken.
    fn register(&mut self, name: &str, node: Node) -> Option<u32> {
        if self.nodes.contains_key(name) {
            return None;
        }
        self.nodes.insert(name.into(), node);
        self.registrations = self.registrations.wrapping_add(1);
        Some(self.registrations.max(1) + 3) // 0 to 3 are creations of nodes before OTP 23
    }
}

/// One connection: either a registered node, or a client that sends one request.
struct Client {
    /// Needs no lock, because all handlers of a reactor run on its thread.
    registry: Rc<RefCell<Registry>>,
    registered: Option<String>,
}

/// A connection sends this to itself: it tries a refused registration once more.
struct TryAgain(Vec<u8>);

impl Handler for Client {
    type Message = TryAgain;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, TryAgain>,
    ) -> Action<'a> {
        if self.registered.is_some() {
            self.give_back(); // at once: `terminate` is called only after all output has left
            return Action::stop(CloseReason::Custom("a request on a registered connection"));
        }
        match packet {
            [request::ALIVE2, rest @ ..] => self.alive(rest, false, ctx),
            [request::PORT_PLEASE2, name @ ..] => done(self.port_of(name)),
            [request::NAMES] => done(self.names()),
            [request::KILL | request::STOP, ..] => done(b"NO".to_vec()),
            _ => Action::stop(CloseReason::Custom("an unknown request")),
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, TryAgain>,
        ctx: &mut Context<'_, TryAgain>,
    ) -> Action<'a> {
        match info {
            Info::Message(TryAgain(request)) => {
                ctx.resume_reading();
                self.alive(&request, true, ctx)
            }
            other => other.default_action(),
        }
    }

    fn terminate(mut self, _reason: CloseReason) {
        self.give_back();
    }
}

/// Sends the answer and closes the connection. Every request except a registration ends this way.
fn done(answer: Vec<u8>) -> Action<'static> {
    Action::send_and_stop(answer, CloseReason::Normal)
}

impl Client {
    fn new(registry: &Rc<RefCell<Registry>>) -> Self {
        Self { registry: Rc::clone(registry), registered: None }
    }

    /// Registers a node. If the name is taken, it tries once more before it refuses. The node that
    /// owns the name may have ended in this turn, and its `terminate` may not have been called yet.
    /// A node that restarts must get its name again.
    fn alive(
        &mut self,
        request: &[u8],
        is_last_try: bool,
        ctx: &mut Context<'_, TryAgain>,
    ) -> Action<'static> {
        let Some((name, node)) = parse_alive(request) else {
            return Action::stop(CloseReason::Custom("a malformed registration"));
        };
        let highest = u16::from_be_bytes([node.about[2], node.about[3]]);
        let creation = self.registry.borrow_mut().register(name, node);
        if creation.is_none() && !is_last_try {
            ctx.pause_reading();
            // It is the only timer of this connection, so the maximum is not reached.
            let _ = ctx.send_after(RETRY_DELAY, TryAgain(request.to_vec()));
            return Action::Continue;
        }
        let failed = u8::from(creation.is_none());
        let creation = creation.unwrap_or(99).to_be_bytes();
        let mut answer = Vec::new();
        if highest >= LARGE_CREATION {
            answer.extend([answer::ALIVE2_X, failed]);
            answer.extend(creation);
        } else {
            answer.extend([answer::ALIVE2, failed]);
            answer.extend(&creation[2..]);
        }
        if failed == 1 {
            return done(answer);
        }
        self.registered = Some(name.into());
        ctx.set_idle_timeout(None); // a registered node sends nothing more
        Action::send(answer)
    }

    fn give_back(&mut self) {
        if let Some(name) = self.registered.take() {
            self.registry.borrow_mut().nodes.remove(&name);
        }
    }

    fn port_of(&self, name: &[u8]) -> Vec<u8> {
        let registry = self.registry.borrow();
        let name = std::str::from_utf8(name).unwrap_or_default();
        let Some(node) = registry.nodes.get(name) else {
            return vec![answer::PORT2, 1];
        };
        let mut answer = vec![answer::PORT2, 0];
        answer.extend(node.port.to_be_bytes());
        answer.extend(node.about);
        extend_with_length(&mut answer, name.as_bytes());
        extend_with_length(&mut answer, &node.extra);
        answer
    }

    fn names(&self) -> Vec<u8> {
        let mut lines = String::new();
        for (name, node) in &self.registry.borrow().nodes {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "name {name} at port {}", node.port);
        }
        let mut answer = u32::from(self.registry.borrow().port).to_be_bytes().to_vec();
        answer.extend(lines.as_bytes());
        answer
    }
}

/// Parses a registration: port, node type, protocol, highest and lowest version, then name and
/// extra with their lengths.
fn parse_alive(request: &[u8]) -> Option<(&str, Node)> {
    let (port, rest) = request.split_first_chunk::<2>()?;
    let (about, rest) = rest.split_first_chunk::<6>()?;
    let (name, rest) = split_with_length(rest)?;
    let (extra, rest) = split_with_length(rest)?;
    let name = std::str::from_utf8(name).ok()?;
    if name.is_empty() || name.contains(char::is_control) || !rest.is_empty() {
        return None;
    }
    let port = u16::from_be_bytes(*port);
    Some((name, Node { port, about: *about, extra: extra.to_vec() }))
}

fn split_with_length(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// Appends the length and the bytes. The length fits, because `bytes` are part of a request of
/// less than 64 KiB.
fn extend_with_length(answer: &mut Vec<u8>, bytes: &[u8]) {
    answer.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    answer.extend(bytes);
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("epmd", run(&arguments))
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let registry = Rc::new(RefCell::new(Registry::default()));
    let mut reactor = Reactor::new()?;
    let listener = reactor.start_listener("epmd", options(arguments.listen), {
        let registry = Rc::clone(&registry);
        move |_peer| Client::new(&registry)
    })?;
    // No handler has read the port yet, because only `run` makes handlers.
    let port = listener.local_addr().as_inet().map(|addr| addr.port());
    registry.borrow_mut().port = port.unwrap_or_default();
    common::drain_on_signals(reactor.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    reactor.run()
}

fn options(addr: SocketAddr) -> ListenerOptions {
    ListenerOptions::new(addr)
        .framing(Framing::split(LengthField::U16.max_packet(1024), Raw))
        .idle_timeout(Duration::from_secs(60))
        .max_connections(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::testing::Harness;

    /// A registration that `erl` of OTP 25 sent.
    const ALIVE: &[u8] = b"\x90\x25M\0\0\x06\0\x05\0\x03one\0\0";

    #[test]
    fn a_registration_is_read_whole_or_not_at_all() {
        let (name, node) = parse_alive(ALIVE).unwrap();
        assert_eq!((name, node.port, &node.about), ("one", 0x9025, b"M\0\0\x06\0\x05"));
        for len in 0..ALIVE.len() {
            assert_eq!(parse_alive(&ALIVE[..len]), None, "{len} bytes");
        }
        assert_eq!(parse_alive(&[ALIVE, b"x"].concat()), None, "one byte too many");
    }

    #[test]
    fn a_name_is_taken_until_it_is_given_back() {
        let mut registry = Registry::default();
        let (name, node) = parse_alive(ALIVE).unwrap();
        let first = registry.register(name, node.clone());
        assert!(first.is_some());
        assert_eq!(registry.register(name, node.clone()), None);
        registry.nodes.remove(name);
        assert_ne!(registry.register(name, node), first, "each registration has its own creation");
    }

    fn connection() -> Harness<Client> {
        let registry = Rc::default();
        Harness::new(options(([127, 0, 0, 1], 0).into()), move |_peer| Client::new(&registry))
    }

    fn registration() -> Vec<u8> {
        [&[request::ALIVE2], ALIVE].concat()
    }

    /// Goal: a node that restarts gets its name again, even if its old connection ends in the same
    /// turn. A node that is still connected keeps its name. Method: the registration arrives in the
    /// turn in which the old connection ends.
    #[test]
    fn a_name_is_free_when_its_connection_has_ended() {
        let old = connection();
        old.packet(registration());
        assert_eq!(old.sent()[..2], [answer::ALIVE2_X, 0]);
        let rival = old.connect();
        rival.packet(registration());
        rival.advance(RETRY_DELAY);
        assert_eq!(rival.sent()[..2], [answer::ALIVE2_X, 1], "the name is taken");
        assert_eq!(rival.closed(), Some(CloseReason::Normal));
        let new = old.connect();
        new.arrive(new.framed(registration()));
        old.peer_closes();
        new.advance(RETRY_DELAY);
        assert_eq!(new.sent()[..2], [answer::ALIVE2_X, 0], "the restarted node");
    }

    /// Goal: a node that breaks the protocol loses its name at once, not only after the queued
    /// output has left.
    #[test]
    fn a_name_is_free_when_its_node_is_thrown_out() {
        let old = connection();
        old.peer_stalls();
        old.packet(registration());
        old.packet([request::NAMES]);
        assert_eq!(old.closed(), None, "its answer is queued");
        let new = old.connect();
        new.packet(registration());
        assert_eq!(new.sent()[..2], [answer::ALIVE2_X, 0]);
    }
}
