//! Memory: the cost of a packet, of an announced length, and of an idle connection.
//!
//! The server and its clients share one thread, whose allocations are counted.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use crate::support::over_script::{assert_clean, options};
use crate::support::secs;
use allocation_counter::measure;
use bytes::Bytes;
use condor::testing::Harness;
use condor::{
    Accepted, Action, Address, Calls, CloseKind, CloseReason, ConnectorOptions, Context, Decode,
    Endpoint, FrameError, Framer, Framing, Handler, InOrder, Info, LengthField, Lines,
    ListenerOptions, Output, Partial, Raw, Reactor, ReactorOptions, SendError, TimerId, UnixName,
};
use socket2::SockRef;

/// Echoes, and keeps a timer and its own address.
struct Busy {
    timer: Option<TimerId>,
    addresses: Rc<RefCell<Vec<Address<()>>>>,
}

impl Handler for Busy {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        self.addresses.borrow_mut().push(ctx.address());
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        if let Some(timer) = self.timer.take() {
            ctx.cancel(timer);
        }
        self.timer = Some(ctx.send_after(Duration::from_secs(3_600), ()).unwrap());
        Action::send(packet)
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Message(()) => Action::send("message"),
            other => other.default_action(),
        }
    }
}

/// A reactor with one listener and its clients, all on this thread.
struct Server {
    reactor: Reactor,
    addr: SocketAddr,
    clients: Vec<TcpStream>,
    addresses: Rc<RefCell<Vec<Address<()>>>>,
}

impl Server {
    fn new(clients: usize) -> Self {
        // A connection that is cut short by time, because other processes run, keeps its input.
        let untimed = ReactorOptions::new().turn_budget(Duration::ZERO);
        let mut reactor = Reactor::with_options(untimed).unwrap();
        let addresses = Rc::new(RefCell::new(Vec::with_capacity(1_000)));
        let own = Rc::clone(&addresses);
        let options = ListenerOptions::port(0).max_connections(1_000);
        let listener = reactor
            .start_listener("busy", options, move |_| Busy { timer: None, addresses: own.clone() })
            .unwrap();
        let addr = listener.local_addr().as_inet().unwrap();
        let mut server = Self { reactor, addr, clients: Vec::with_capacity(1_000), addresses };
        (0..clients).for_each(|_| server.connect());
        server
    }

    fn connect(&mut self) {
        let client = TcpStream::connect(self.addr).unwrap();
        client.set_nodelay(true).unwrap();
        self.clients.push(client);
        while self.addresses.borrow().len() < self.clients.len() {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.reactor.turn(Some(Duration::from_secs(10))).unwrap();
    }

    /// Turns while there is work.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.reactor.turn(Some(Duration::ZERO)).unwrap();
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.clients.iter_mut().for_each(|client| client.write_all(bytes).unwrap());
        self.settle();
    }

    /// Every client reads until the buffer is full.
    fn read(&mut self, buffer: &mut [u8]) {
        for at in 0..self.clients.len() {
            self.clients[at].set_nonblocking(true).unwrap();
            let mut got = 0;
            while got < buffer.len() {
                match self.clients[at].read(&mut buffer[got..]) {
                    Ok(count) => got += count,
                    Err(_) => self.turn(),
                }
            }
            self.clients[at].set_nonblocking(false).unwrap();
        }
    }

    /// Repeats `round` until all buffers have their final size, then counts the allocations of 200
    /// more rounds.
    fn allocations(&mut self, mut round: impl FnMut(&mut Self)) -> u64 {
        (0..200).for_each(|_| round(self));
        measure(|| (0..200).for_each(|_| round(self))).count_total
    }
}

const PACKET: [u8; 66] = {
    let mut packet = [7; 66];
    (packet[0], packet[1]) = (0, 64);
    packet
};

/// Goal: a packet costs no allocation, one at a time. Method: the allocations of 200 packets are
/// counted after a warm-up of as many.
#[test]
fn no_allocation_per_packet_at_depth_1() {
    let mut server = Server::new(1);
    let allocations = server.allocations(|server| {
        server.write(&PACKET);
        server.read(&mut [0; 66]);
    });
    assert_eq!(allocations, 0);
}

/// Goal: a packet costs no allocation, many at a time. Method: 64 packets in one read.
#[test]
fn no_allocation_per_packet_pipelined() {
    let mut server = Server::new(1);
    let packets = PACKET.repeat(64);
    let mut answers = vec![0; packets.len()];
    let allocations = server.allocations(|server| {
        server.write(&packets);
        server.read(&mut answers);
    });
    assert_eq!(allocations, 0);
    assert_eq!(answers, packets);
}

/// Goal: a packet that is cut in two costs no allocation, with timers and messages in use. Method:
/// 64 connections. Each packet cancels and sets a timer, and each connection gets a message per
/// round from outside.
#[test]
fn no_allocation_per_packet_cut_in_two_with_timers_and_messages() {
    let mut server = Server::new(64);
    let allocations = server.allocations(|server| {
        server.write(&PACKET[..20]);
        for address in server.addresses.borrow().iter() {
            address.send(()).unwrap();
        }
        server.write(&PACKET[20..]);
        server.read(&mut [0; 66 + 2 + 7]);
    });
    assert_eq!(allocations, 0);
}

/// Goal: output that a slow peer leaves in the queue costs no allocation after a warm-up. Method: a
/// scripted peer that takes every answer in pieces.
#[test]
fn no_allocation_for_output_that_waits() {
    let harness = Harness::new(options(), |_| Echo);
    let round = |harness: &Harness<Echo>| {
        harness.peer_stalls();
        harness.receive(PACKET);
        (0..3).for_each(|_| harness.peer_reads(22));
        assert_eq!(harness.queued_bytes(), 0);
    };
    (0..200).for_each(|_| round(&harness));
    // The script keeps the bytes that the peer got. It reserves room for them here, by doubling.
    let mut counts: Vec<u64> = (0..200).map(|_| measure(|| round(&harness)).count_total).collect();
    counts.sort_unstable();
    assert_eq!(counts[198], 0, "{counts:?}");
    drop(harness.sent());
}

/// Expects a packet after each packet, except after a long one.
struct Expecting;

impl Handler for Expecting {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        if packet.len() < 64 {
            ctx.expect_within(Duration::from_secs(60));
        }
        Action::Continue
    }
}

/// Nested lengths, whose place is noted: a number of strings, then each with its length.
struct Nested;

impl Framer for Nested {
    fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
        self.resume(input, &mut Partial::default())
    }

    fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        let [mut at, left, ..] = partial.notes;
        let Some(count) = input.first() else { return Ok(Decode::Need(None)) };
        let mut left = if at == 0 { usize::from(*count) } else { left };
        at = at.max(1);
        while left > 0 {
            partial.notes = [at, left, 0, 0];
            match input.get(at).map(|len| at + 1 + usize::from(*len)) {
                Some(end) if end <= input.len() => (at, left) = (end, left - 1),
                end => return Ok(Decode::Need(end)),
            }
        }
        Ok(Decode::Frame { payload: 0..at, consumed: at })
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(payload);
        Ok(())
    }
}

/// Goal: neither the silence clock nor an expected packet nor a framer's notes allocate per packet.
/// Method: packets in three pieces, half of which are followed by an expectation.
#[test]
fn no_allocation_per_packet_that_is_expected_and_noted() {
    let options = options().silence_timeout(secs(60)).first_packet_timeout(secs(60));
    let harness = Harness::new(options.framing(Framing::custom(Nested)), |_| Expecting);
    let short = [2, 3, 1, 1, 1, 3, 2, 2, 2];
    let long = [&[2, 60][..], &[1; 60], &[3, 2, 2, 2]].concat();
    let round = |harness: &Harness<Expecting>| {
        for packet in [&short[..], &long] {
            for piece in [&packet[..4], &packet[4..7], &packet[7..]] {
                harness.receive(piece);
            }
        }
    };
    (0..200).for_each(|_| round(&harness));
    let counts: Vec<u64> = (0..200).map(|_| measure(|| round(&harness)).count_total).collect();
    assert_eq!(counts, [0; 200]);
    assert_eq!(harness.stats().packets_in, 800);
}

/// Asks its peer in two ways. The packet `ask` opens calls. All other packets answer most of them,
/// each list from another end.
struct Asking {
    in_order: Calls<InOrder, u64>,
    by_key: Calls<u64, u64>,
    asked: u64,
    expired: u64,
}

impl Handler for Asking {
    type Message = ();

    fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        let asks = packet == b"ask";
        for nth in 0..5 {
            if asks {
                let (key, timeout) = (self.asked + nth, secs(1 + nth % 2));
                self.in_order.open(key, timeout, ctx).unwrap();
                self.by_key.open(key, key, timeout, ctx).unwrap();
            } else if nth < 4 {
                self.in_order.answered(ctx).unwrap();
                self.by_key.answered(&(self.asked - 1 - nth), ctx).unwrap();
            }
        }
        self.asked += if asks { 5 } else { 0 };
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, ctx: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::CallsDue => {
                while self.in_order.expired(ctx).is_some() {
                    assert_eq!(self.in_order.answered(ctx), None);
                    self.expired += 1;
                }
                while self.by_key.expired(ctx).is_some() {
                    self.expired += 1;
                }
                Action::Continue
            }
            other => other.default_action(),
        }
    }
}

/// Goal: a call to the peer allocates nothing, whether it is answered or expires. Method: in each
/// round ten calls, of which eight are answered and two expire.
#[test]
fn no_allocation_per_call() {
    let harness = Harness::of(Asking {
        in_order: Calls::in_order(9),
        by_key: Calls::by_key(9),
        asked: 0,
        expired: 0,
    });
    let (ask, answer) = (harness.framed("ask"), harness.framed("answer"));
    let round = |harness: &Harness<Asking>| {
        harness.receive(&ask);
        harness.receive(&answer);
        harness.advance(secs(2));
    };
    (0..200).for_each(|_| round(&harness));
    let counts: Vec<u64> = (0..200).map(|_| measure(|| round(&harness)).count_total).collect();
    assert_eq!(counts, [0; 200]);
    assert_eq!(harness.with_handler(|handler| handler.expired), Some(800));
}

/// Answers with a packet that a closure writes, and with one in parts. It refuses one in between.
struct Writing;

impl Handler for Writing {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        let sent = ctx.send_with(|out| {
            out.put_u32(7);
            write!(out, "{} bytes: ", packet.len());
            out.put(packet);
        });
        assert_eq!(sent, Ok(()));
        let refused = ctx.send_with(|out| (0..2).for_each(|_| out.put(&[7; 3_000])));
        assert_eq!(refused, Err(SendError::TooLarge { len: 6_000, max: 4_096 }));
        ctx.send_parts(&[b"a", packet, b"b"]).map(|()| Action::Continue).into()
    }
}

/// Goal: a packet that a closure writes, or that has several parts, costs no allocation, in every kind
/// of framing, and neither does one that is refused for its length. Method: a packet that each framing
/// delivers, a hundred times after a warm-up.
#[test]
fn no_allocation_per_packet_that_a_closure_writes() {
    let field = LengthField::U16;
    let framings: [Framing; 6] = [
        field.into(),
        LengthField::U32.into(),
        field.little_endian().offset(2).into(),
        field.keep_header().into(),
        Lines::new(4_096).into(),
        Framing::custom(Nested),
    ];
    for framing in framings {
        let options = options().framing(framing.clone()).max_packet(4_096);
        let harness = Harness::new(options, |_| Writing);
        let packet = harness.framed([1, 1, 7]);
        let round = |harness: &Harness<Writing>| harness.receive(&packet);
        (0..200).for_each(|_| round(&harness));
        // The script keeps the bytes that the peer got. It reserves room for them, by doubling.
        let mut counts: Vec<u64> =
            (0..100).map(|_| measure(|| round(&harness)).count_total).collect();
        counts.sort_unstable();
        assert_eq!(counts[98], 0, "{framing:?}: {counts:?}");
        assert_eq!(harness.stats().packets_out, 600);
    }
}

/// Goal: an idle connection has no heap memory. Method: connections in slots that exist already,
/// each served once.
#[test]
fn a_connection_in_a_free_slot_allocates_nothing() {
    let mut server = Server::new(100);
    server.write(&PACKET);
    server.read(&mut [0; 66]);
    for _ in 0..50 {
        server.clients.pop();
        server.addresses.borrow_mut().pop();
    }
    server.settle();
    let allocations = measure(|| (0..40).for_each(|_| server.connect())).count_total;
    assert_eq!(allocations, 0);
}

/// Does nothing.
struct Quiet;

impl Handler for Quiet {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::Continue
    }
}

/// Goal: a connection that a connector keeps up takes, at rest, what an accepted one takes, and at most
/// 5 bytes more, of which 4 count its failures. Method: the heap memory of a thousand of each once
/// nothing is left to do.
#[test]
fn a_link_at_rest_takes_what_an_accepted_connection_takes() {
    const LINKS: usize = 1_000;
    let (mut accepted, mut far_ends) = (Vec::with_capacity(LINKS), Vec::with_capacity(LINKS));
    let by_listener = measure(|| {
        let mut reactor = Reactor::new().unwrap();
        let options = ListenerOptions::port(0).max_connections(LINKS);
        let listener = reactor.start_listener("test", options, |_| Quiet).unwrap();
        let addr = listener.local_addr().as_inet().unwrap();
        while listener.stats().made < LINKS as u64 {
            if accepted.len() < LINKS {
                accepted.push(TcpStream::connect(addr).unwrap());
            }
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        std::mem::forget(reactor);
    });
    let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    backend.set_nonblocking(true).unwrap();
    let to = backend.local_addr().unwrap();
    let by_connector = measure(|| {
        let mut reactor = Reactor::new().unwrap();
        let options = ConnectorOptions::to(to).connections(LINKS).max_connections(LINKS);
        let connector = reactor.start_connector("test", options, |_| Quiet).unwrap();
        while connector.stats().made < LINKS as u64 {
            far_ends.extend(std::iter::from_fn(|| backend.accept().ok()));
            reactor.turn(Some(Duration::from_millis(1))).unwrap();
        }
        std::mem::forget(reactor);
    });
    let (theirs, ours) = (by_listener.bytes_current, by_connector.bytes_current);
    let each = (ours - theirs) / i64::try_from(LINKS).unwrap();
    assert!(each < 6, "{each} bytes more for each: {ours} and {theirs} for all");
}

/// Forwards each packet, and makes the connection of a message its partner.
struct Forwards;

struct Join(Address<Self>);

impl Handler for Forwards {
    type Message = Join;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Join>,
    ) -> Action<'a> {
        ctx.forward(packet).map(|()| Action::Continue).into()
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Join>,
        ctx: &mut Context<'_, Join>,
    ) -> Action<'a> {
        match info {
            Info::Message(Join(other)) => ctx.pair(&other).map(|()| Action::Continue).into(),
            other => other.default_action(),
        }
    }
}

/// Goal: a pair at rest takes at most 64 bytes beyond its two connections, and a packet through it
/// costs no allocation. Method: the heap memory of connections before and after they become pairs, for
/// numbers of pairs that are just above a power of two.
#[test]
fn a_pair_takes_at_most_64_bytes_and_its_packets_none() {
    for pairs in [65, 257, 1_025] {
        let harness = Harness::new(options().max_connections(5_000), |_| Forwards);
        let ends: Vec<_> = (0..2 * pairs).map(|_| harness.connect()).collect();
        let (ones, others) = ends.split_at(pairs);
        let heap = measure(|| {
            for (one, other) in ones.iter().zip(others) {
                one.message(Join(other.address()));
                one.packet(b"warm");
            }
            for other in others {
                assert_eq!(other.packets(), [b"warm"]);
            }
        });
        assert_eq!(harness.leftovers().paired, 2 * pairs);
        let each = usize::try_from(heap.bytes_current).unwrap() / pairs;
        assert!(each <= 64, "{pairs} pairs take {each} bytes each");
        let (wire, mut total) = (ones[0].framed(b"packet").repeat(64), 0);
        for round in 0..20 {
            let heap = measure(|| {
                ones[0].arrive(&wire);
                harness.run();
            });
            others[0].sent();
            total += if round < 10 { 0 } else { heap.count_total };
        }
        assert!(total <= 10, "{total} allocations: the script's own is one a round");
    }
}

/// Reads both endpoints in every callback.
struct Curious;

impl Handler for Curious {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        assert!(ctx.local_addr().is_some_and(|addr| addr != ctx.peer_addr()));
        Action::send(packet)
    }
}

/// Goal: the endpoint of a peer costs no allocation, except for the name itself if it has one.
/// Method: peers of each kind until there is room for one more, then one more whose endpoint is
/// read. The simulated network allocates the same for each kind.
#[test]
fn a_peers_endpoint_allocates_nothing() {
    let unnamed = measure(|| drop(Endpoint::from(UnixName::unnamed()).clone()));
    assert_eq!(unnamed.count_total, 0);

    let factory = |accepted: &Accepted<'_, _>| {
        assert_eq!(accepted.peer_addr(), accepted.peer_addr());
        Curious
    };
    let options = ListenerOptions::port(0).max_connections(1_000);
    let tcp = Endpoint::from(([203, 0, 113, 9], 1234));
    let ends = [tcp, UnixName::unnamed().into(), "unix:/run/client".parse().unwrap()];
    let counts = ends.map(|peer_addr| {
        let harness = Harness::new(options.clone(), factory);
        (0..20).for_each(|_| {
            let peer = harness.connect_from(peer_addr.clone());
            peer.packet([0; 64]);
            peer.peer_closes();
        });
        measure(|| {
            let peer = harness.connect_from(peer_addr.clone());
            peer.packet([0; 64]);
            peer.peer_closes();
        })
        .count_total
    });
    assert_eq!(counts, [counts[0]; 3]);
}

struct Echo;

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }
}

/// Goal: the end of a peer costs no memory, however many end at once. Method: clients that are
/// served and then close, and as many that reset. The second round is counted.
#[test]
fn ends_that_peers_decide_allocate_nothing() {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.start_listener("echo", ListenerOptions::port(0), |_| Echo).unwrap();
    let turn = |reactor: &mut Reactor| reactor.turn(Some(Duration::from_millis(10))).unwrap();
    let mut clients = Vec::with_capacity(50);
    for reset in [false, true] {
        for counted in [false, true] {
            for _ in 0..50 {
                let mut client = TcpStream::connect(listener.local_addr()).unwrap();
                client.write_all(&PACKET).unwrap();
                let linger = reset.then_some(Duration::ZERO);
                SockRef::from(&client).set_linger(linger).unwrap();
                clients.push(client);
            }
            let kind = if reset { CloseKind::Reset } else { CloseKind::PeerClosed };
            let before = listener.stats();
            let allocations = measure(|| {
                while listener.stats().packets_out < before.packets_out + 50 {
                    turn(&mut reactor);
                }
                for client in clients.drain(..) {
                    assert_eq!((&client).read(&mut [0; 66]).unwrap(), 66);
                    drop(client);
                }
                while listener.stats().open > 0 {
                    turn(&mut reactor);
                }
            });
            assert_eq!(listener.stats().closed(kind) - before.closed(kind), 50, "{kind}");
            assert!(!counted || allocations.count_total == 0, "{kind}: {allocations:?}");
        }
    }
}

const MAX: usize = 16 << 20;

fn large() -> ListenerOptions {
    options().framing(LengthField::U32).max_packet(MAX).max_queued(2 * MAX)
}

/// Goal: an announced length reserves no memory, whether it is allowed or not. Method: the peak of
/// the heap around the header.
#[test]
fn an_announced_length_reserves_nothing() {
    let harness = Harness::new(large(), |_| Echo);
    for announced in [MAX, MAX + 1, usize::try_from(u32::MAX).unwrap()] {
        let peer = harness.connect();
        let header = u32::try_from(announced).unwrap().to_be_bytes();
        let peak = measure(|| peer.receive(header)).bytes_max;
        assert!(peak < 4096, "{peak} bytes for an announcement of {announced}");
        let refused = CloseReason::PacketTooLarge { announced, max: MAX };
        assert_eq!(peer.closed(), (announced > MAX).then_some(refused));
    }
}

/// Goal: a connection's memory grows with the received bytes. Method: a byte a second of 60,000
/// announced, and the heap after each.
#[test]
fn a_buffer_grows_with_what_has_arrived_only() {
    let harness = Harness::new(large().packet_timeout(Duration::MAX), |_| Echo);
    harness.receive([0; 4]);
    drop(harness.sent());
    let mut held = measure(|| harness.receive(60_000u32.to_be_bytes())).bytes_current;
    for received in 5..=60_003 {
        held += measure(|| {
            harness.stall(secs(1));
            harness.receive([0]);
        })
        .bytes_current;
        assert!(held <= 2 * received + 1024, "{held} bytes held for {received} received");
    }
}

/// Goal: ten thousand announced lengths cost only the received bytes. Method: each peer announces
/// the maximum, sends ten bytes and stalls. Then all time out.
#[test]
fn ten_thousand_announcements_cost_what_was_received() {
    let crowd = large().max_connections(10_001).packet_timeout(secs(10));
    let harness = Harness::new(crowd, |_| Echo);
    let peers: Vec<_> = (0..10_000).map(|_| harness.connect()).collect();
    let mut bytes = u32::try_from(MAX).unwrap().to_be_bytes().to_vec();
    bytes.extend([0; 10]);
    let held = measure(|| {
        peers.iter().for_each(|peer| peer.arrive(&bytes));
        harness.run();
    })
    .bytes_current;
    assert!(held < 10_000 * 512, "{held} bytes");
    assert_eq!(harness.leftovers().buffered_bytes, 140_000);
    harness.advance(secs(10));
    assert!(peers.iter().all(|peer| peer.closed() == Some(CloseReason::PacketTimeout)));
    harness.peer_closes();
    harness.advance(secs(5));
    assert_clean(&harness);
}

/// How a test requests the answer of [`Generous`].
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum By {
    Packet,
    Message,
    Greeting,
}

/// Gives a large answer to everything, also in `init` if `greets` is set.
struct Generous {
    greets: bool,
}

impl Generous {
    const LEN: usize = 12 << 20;

    fn much() -> Action<'static> {
        Action::send(vec![7; Self::LEN])
    }
}

impl Handler for Generous {
    type Message = ();

    fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> {
        if self.greets { Self::much() } else { Action::Continue }
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Self::much()
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Message(()) => Self::much(),
            other => other.default_action(),
        }
    }
}

/// Goal: one large answer leaves no large memory in use. Method: 12 MiB as the answer to a packet,
/// to a message, or in `init`, taken at once or late. Then the heap is measured. Output waits in
/// pieces, of which up to 4 MiB are kept until the next trims.
#[test]
fn a_large_answer_leaves_no_large_memory() {
    // The limit of the pool, plus the output buffer, the read buffer, and a little more.
    const POOL: i64 = 4 << 20;
    const REST: i64 = (1 << 20) + 256 * 1024;
    for (by, stalls, most) in [
        (By::Packet, false, REST),
        (By::Packet, true, POOL + REST),
        (By::Message, false, POOL + REST),
        (By::Message, true, POOL + REST),
        (By::Greeting, false, POOL + REST),
    ] {
        let harness = Harness::new(large(), move |_| Generous { greets: by == By::Greeting });
        if stalls {
            harness.peer_stalls();
        }
        match by {
            By::Packet => harness.packet(b"more"),
            By::Message => harness.message(()),
            By::Greeting => {}
        }
        harness.peer_reads_all();
        assert_eq!(harness.sent().len(), 4 + Generous::LEN);
        let held = -measure(|| drop(harness)).bytes_current;
        assert!(held <= most, "{held} bytes held, {by:?}, stalls: {stalls}");
    }
}

/// Sends a large packet, and then in the same callback another one that empties the output buffer.
struct Hasty(Becomes);

/// What becomes of a large packet.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Becomes {
    Refused,
    RefusedOfAClosure,
    ErrorOfAClosure,
    Sent,
}

impl Handler for Hasty {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        ctx.set_framing(Framing::split(LengthField::U32, Lines::new(MAX)));
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        let most = vec![b'x'; 3 * MAX / 4];
        let refused = match self.0 {
            Becomes::Refused => ctx.send(&most),
            Becomes::RefusedOfAClosure => {
                ctx.send_with(|out| most.chunks(1 << 16).for_each(|piece| out.put(piece)))
            }
            Becomes::ErrorOfAClosure => ctx.send_with(|out| {
                out.put(&most[..MAX / 2 - 1]);
                Err(SendError::TooLarge { len: 0, max: 0 })
            }),
            Becomes::Sent => Ok(()),
        };
        if refused.is_err() {
            assert!(matches!(refused, Err(SendError::TooLarge { .. })), "{refused:?}");
            return Action::Continue;
        }
        drop(most);
        ctx.set_framing(Framing::split(LengthField::U32, Raw));
        assert_eq!(ctx.send(vec![b'x'; 3 * MAX / 4]), Ok(()));
        Action::send(Bytes::from_static(&[b'x'; 64 * 1024]))
    }
}

/// Goal: the same for an answer that is refused, and for one with shared bytes after it. Method: 12
/// MiB of each, and nothing else afterwards.
#[test]
fn a_large_answer_leaves_no_large_memory_whatever_becomes_of_it() {
    for becomes in
        [Becomes::Refused, Becomes::RefusedOfAClosure, Becomes::ErrorOfAClosure, Becomes::Sent]
    {
        let refused = becomes != Becomes::Sent;
        let max = if refused { MAX / 2 } else { 2 * MAX };
        let harness = Harness::new(options().max_queued(max), move |_| Hasty(becomes));
        harness.packet(b"more");
        let sent = if refused { 0 } else { 3 * MAX / 4 + 64 * 1024 };
        assert_eq!(harness.sent().len(), sent);
        let held = -measure(|| drop(harness)).bytes_current;
        assert!(held <= (4 << 20) + (1 << 20) + 256 * 1024, "{held} bytes held, {becomes:?}");
    }
}
