//! Connections over kernel sockets, driven like the crate's own harness: a reactor that the test
//! turns on its own thread, and plain streams as peers.
//!
//! Each call lasts until nothing is in transit: all sent bytes are read, all written bytes have
//! arrived, all closes are answered. If a test holds data back this state never comes; then the call
//! ends after [`QUIET`] without any event.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use condor::{
    Accepted, Action, Address, CloseReason, ConnectionId, Context, Decode, Drain, Framing, Handler,
    Info, IntoHandler, LengthField, ListenerHandle, ListenerOptions, Reactor, ReactorOptions,
    Report, Stats,
};

use super::{PATIENCE, inet, now};

/// Of many cases that differ in a number, one in this many is tried, because each costs system
/// calls.
pub(crate) const EVERY: usize = 61;

/// How long a call waits without any event before it ends.
const QUIET: Duration = Duration::from_millis(5);

/// A listener's options with their framing, because the peers use it too.
#[derive(Clone)]
pub(crate) struct Options {
    listener: ListenerOptions,
    framing: Framing,
}

pub(crate) fn options() -> Options {
    Options { listener: ListenerOptions::port(0), framing: LengthField::U16.into() }
}

impl Options {
    pub(crate) fn framing(self, framing: impl Into<Framing>) -> Self {
        let framing = framing.into();
        Self { listener: self.listener.framing(framing.clone()), framing }
    }

    pub(crate) fn max_packet(self, bytes: usize) -> Self {
        Self { listener: self.listener.max_packet(bytes), ..self }
    }

    pub(crate) fn max_queued(self, bytes: usize) -> Self {
        Self { listener: self.listener.max_queued(bytes), ..self }
    }

    pub(crate) fn max_connections(self, connections: usize) -> Self {
        Self { listener: self.listener.max_connections(connections), ..self }
    }
}

/// What the handler of a connection recorded.
struct Fate<M> {
    id: ConnectionId,
    address: Option<Address<M>>,
    reason: Option<CloseReason>,
}

/// By the address of the peer.
type Fates<M> = Rc<RefCell<BTreeMap<SocketAddr, Fate<M>>>>;

/// A handler whose callbacks are recorded.
struct Noted<H: Handler> {
    handler: H,
    peer: SocketAddr,
    fates: Fates<H::Message>,
}

impl<H: Handler> Noted<H> {
    fn note(&self, change: impl FnOnce(&mut Fate<H::Message>)) {
        change(self.fates.borrow_mut().get_mut(&self.peer).unwrap());
    }
}

impl<H: Handler> Handler for Noted<H> {
    type Message = H::Message;

    fn init(&mut self, ctx: &mut Context<'_, H::Message>) -> Action<'_> {
        let address = ctx.address();
        self.note(|fate| fate.address = Some(address));
        self.handler.init(ctx)
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, H::Message>,
    ) -> Action<'a> {
        self.handler.handle_packet(packet, ctx)
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, H::Message>,
        ctx: &mut Context<'_, H::Message>,
    ) -> Action<'a> {
        self.handler.handle_info(info, ctx)
    }

    fn terminate(self, reason: CloseReason) {
        self.note(|fate| fate.reason = Some(reason));
        self.handler.terminate(reason);
    }
}

/// The other end of a connection.
struct Peer {
    /// None after a reset.
    stream: Option<TcpStream>,
    addr: SocketAddr,
    /// Bytes that the kernel has not taken yet.
    unsent: Vec<u8>,
    /// Whether it closes its sending half after these bytes.
    closes: bool,
    /// Bytes that arrived and were not read by the test.
    got: Vec<u8>,
    /// Whether its input has ended.
    finished: bool,
    /// Whether a reset ended it.
    was_reset: bool,
}

impl Peer {
    /// Moves all available bytes in both directions. Returns the numbers of bytes sent and received.
    fn pump(&mut self) -> (u64, u64) {
        let Some(stream) = &mut self.stream else { return (0, 0) };
        let mut sent = 0;
        while sent < self.unsent.len() {
            match stream.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The read below finds the reset.
                Err(_) => self.unsent.truncate(sent),
            }
        }
        self.unsent.drain(..sent);
        if self.closes && self.unsent.is_empty() {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let before = self.got.len();
        if !self.finished {
            match stream.read_to_end(&mut self.got) {
                Ok(_) => self.finished = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => (self.finished, self.was_reset) = (true, true),
            }
        }
        (sent as u64, (self.got.len() - before) as u64)
    }
}

/// A reactor with one listener and all of its peers.
struct World<H: Handler> {
    reactor: Reactor,
    listener: ListenerHandle<H::Message>,
    fates: Fates<H::Message>,
    framing: Framing,
    peers: Vec<Rc<RefCell<Peer>>>,
    sent: u64,
    received: u64,
    drain: Option<Drain>,
}

impl<H: Handler> World<H> {
    /// Moves all available bytes. Returns whether there were any.
    fn pump(&mut self) -> bool {
        let mut moved = false;
        for peer in &self.peers {
            let (sent, received) = peer.borrow_mut().pump();
            self.sent += sent;
            self.received += received;
            moved |= sent + received > 0;
        }
        moved
    }

    /// Whether nothing is in transit.
    fn has_no_pending_state(&self) -> bool {
        let stats = self.listener.stats();
        let fates = self.fates.borrow();
        (stats.bytes_in, stats.bytes_out) == (self.sent, self.received)
            && self.peers.iter().all(|peer| {
                let peer = peer.borrow();
                let Some(fate) = fates.get(&peer.addr) else { return false };
                let made = fate.address.is_some();
                let ended = fate.reason.is_some() || !made;
                peer.unsent.is_empty() && ended == peer.finished && (ended || !peer.closes)
            })
    }

    /// Turns until nothing is in transit, or nothing has happened for [`QUIET`].
    fn run(&mut self) {
        let deadline = now() + PATIENCE;
        let mut wait = Duration::ZERO;
        self.pump();
        loop {
            assert!(now() < deadline, "the reactor does not become idle");
            let (before, from) = (self.listener.stats(), now());
            self.reactor.turn(Some(wait)).unwrap();
            let moved = self.pump() || self.listener.stats() != before;
            if moved || self.reactor.next_deadline() == Some(Duration::ZERO) {
                wait = Duration::ZERO;
            } else if from.elapsed() >= QUIET || self.has_no_pending_state() {
                return;
            } else {
                wait = QUIET;
            }
        }
    }
}

/// The part of `condor::testing::Harness` that sockets can provide.
pub(crate) struct Harness<H: Handler> {
    world: Rc<RefCell<World<H>>>,
    peer: Rc<RefCell<Peer>>,
}

impl<H: Handler> Harness<H> {
    pub(crate) fn new<R: IntoHandler<Handler = H>>(
        options: Options,
        factory: impl FnMut(&Accepted<'_, H::Message>) -> R + 'static,
    ) -> Self {
        Self::with(ReactorOptions::default(), options, factory)
    }

    pub(crate) fn with<R: IntoHandler<Handler = H>>(
        reactor: ReactorOptions,
        options: Options,
        mut factory: impl FnMut(&Accepted<'_, H::Message>) -> R + 'static,
    ) -> Self {
        let mut reactor = Reactor::with_options(reactor).unwrap();
        let fates = Fates::default();
        let noted = Rc::clone(&fates);
        let make = move |accepted: &Accepted<'_, _>| {
            let (peer, id) = (inet(accepted.peer_addr()), accepted.id());
            noted.borrow_mut().insert(peer, Fate { id, address: None, reason: None });
            let fates = Rc::clone(&noted);
            factory(accepted).into_handler().map(|handler| Noted { handler, peer, fates })
        };
        let listener = reactor.start_listener("test", options.listener, make).unwrap();
        Self::join(&Rc::new(RefCell::new(World {
            reactor,
            listener,
            fates,
            framing: options.framing,
            peers: Vec::new(),
            sent: 0,
            received: 0,
            drain: None,
        })))
    }

    pub(crate) fn of(handler: H) -> Self {
        let mut handler = Some(handler);
        Self::new(options().max_connections(1), move |_| handler.take().unwrap())
    }

    pub(crate) fn connect(&self) -> Self {
        Self::join(&self.world)
    }

    fn join(world: &Rc<RefCell<World<H>>>) -> Self {
        let stream = TcpStream::connect(inet(world.borrow().listener.local_addr())).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let peer = Rc::new(RefCell::new(Peer {
            addr: stream.local_addr().unwrap(),
            stream: Some(stream),
            unsent: Vec::new(),
            closes: false,
            got: Vec::new(),
            finished: false,
            was_reset: false,
        }));
        world.borrow_mut().peers.push(Rc::clone(&peer));
        world.borrow_mut().run();
        Self { world: Rc::clone(world), peer }
    }

    // ---- the peer ----

    pub(crate) fn receive(&self, bytes: impl AsRef<[u8]>) {
        self.arrive(bytes);
        self.run();
    }

    pub(crate) fn arrive(&self, bytes: impl AsRef<[u8]>) {
        self.peer.borrow_mut().unsent.extend_from_slice(bytes.as_ref());
        self.world.borrow_mut().pump();
    }

    pub(crate) fn packet(&self, payload: impl AsRef<[u8]>) {
        self.receive(self.framed(payload));
    }

    pub(crate) fn framed(&self, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.world.borrow().framing.encode(payload.as_ref(), &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.peer.borrow_mut().got)
    }

    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        let world = self.world.borrow();
        let mut peer = self.peer.borrow_mut();
        let (mut packets, mut at) = (Vec::new(), 0);
        while let Decode::Frame { payload, consumed } =
            world.framing.decode(&peer.got[at..], 0).unwrap()
        {
            packets.push(peer.got[at..][payload].to_vec());
            at += consumed;
        }
        peer.got.drain(..at);
        packets
    }

    pub(crate) fn peer_closes(&self) {
        self.peer.borrow_mut().closes = true;
        self.run();
    }

    pub(crate) fn peer_resets(&self) {
        let stream = self.peer.borrow_mut().stream.take().unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        (self.peer.borrow_mut().closes, self.peer.borrow_mut().finished) = (true, true);
        self.run();
    }

    pub(crate) fn run(&self) {
        self.world.borrow_mut().run();
    }

    // ---- threads and operators ----

    pub(crate) fn message(&self, message: H::Message) {
        assert!(self.address().send(message).is_ok(), "the mailbox is full, or the listener gone");
        self.run();
    }

    pub(crate) fn broadcast(&self, message: H::Message)
    where
        H::Message: Clone,
    {
        let sent = self.world.borrow().listener.broadcast(message);
        assert!(sent.is_ok(), "the mailbox is full, or the listener gone");
        self.run();
    }

    pub(crate) fn address(&self) -> Address<H::Message> {
        self.fate(|fate| fate.address.clone()).flatten().expect("no handler was made")
    }

    pub(crate) fn drain(&self) {
        let drain = self.world.borrow().listener.stop().unwrap();
        self.world.borrow_mut().drain = Some(drain);
        self.run();
    }

    pub(crate) fn report(&self) -> Option<Report> {
        self.world.borrow().drain.as_ref()?.report()
    }

    // ---- what a test sees ----

    fn fate<R>(&self, look: impl FnOnce(&Fate<H::Message>) -> R) -> Option<R> {
        let world = self.world.borrow();
        let fates = world.fates.borrow();
        fates.get(&self.peer.borrow().addr).map(look)
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.id().is_some()
    }

    pub(crate) fn id(&self) -> Option<ConnectionId> {
        self.fate(|fate| fate.id)
    }

    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.fate(|fate| fate.reason).flatten()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.peer.borrow().finished
    }

    pub(crate) fn closed_with_unread_input(&self) -> bool {
        self.peer.borrow().was_reset
    }

    /// Approximate, because it is seen from outside: no slot is taken, except by peers that are
    /// still open.
    pub(crate) fn is_gone(&self) -> bool {
        let world = self.world.borrow();
        let fates = world.fates.borrow();
        let is_open = |peer: &&Rc<RefCell<Peer>>| {
            !peer.borrow().finished && fates.contains_key(&peer.borrow().addr)
        };
        let others = world.peers.iter().filter(is_open).count() as u64;
        self.is_finished() && world.listener.stats().open <= others
    }

    pub(crate) fn stats(&self) -> Stats {
        self.world.borrow().listener.stats()
    }
}

impl<H: Handler> Drop for Harness<H> {
    /// A peer that is dropped closes its socket.
    fn drop(&mut self) {
        self.world.borrow_mut().peers.retain(|peer| !Rc::ptr_eq(peer, &self.peer));
    }
}

/// The peer takes all output and closes. Checks that nothing is left.
pub(crate) fn conclude<H: Handler>(harness: &Harness<H>) {
    if !harness.is_finished() || harness.peer.borrow().stream.is_some() {
        harness.peer_closes();
    }
    assert!(harness.closed().is_some(), "the connection has not ended");
    assert_clean(harness);
}

/// Checks that all connections are gone and that as many handlers were terminated as made.
pub(crate) fn assert_clean<H: Handler>(harness: &Harness<H>) {
    let stats = harness.stats();
    assert_eq!(stats.made, stats.terminated, "each handler is terminated once");
    assert_eq!(stats.open, 0);
}
