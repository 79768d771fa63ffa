//! Memory: the most that hostile peers can make a listener hold, and what goes back after a burst.
//!
//! Each attack is held against [`ListenerOptions::worst_case_memory`]. Where the input waits in the
//! kernel, the peers are sockets. Server and clients share a thread, which is the one whose
//! allocations are counted.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::cell::{OnceCell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use condor::testing::Harness;
use condor::{
    Accepted, Action, Address, CloseKind, Context, Framing, Group, Handler, Info, LengthField,
    Lines, ListenerOptions, MessageError, Raw, Reactor, TimerError, TimerId,
};
use socket2::{Domain, Socket, Type};

use crate::support::over_script::options;
use crate::support::secs;

const SMALL: usize = 100;

/// Options with which little may be held: each attack raises what it attacks.
fn frugal() -> ListenerOptions {
    ListenerOptions::port(0)
        .max_packet(SMALL)
        .max_queued(4096)
        .write_high_water(1024)
        .write_low_water(512)
        .max_timers(1)
        .mailbox_capacity(1)
        .max_connections(450)
}

fn bound(options: &ListenerOptions) -> i64 {
    i64::try_from(options.worst_case_memory()).unwrap()
}

/// Bytes that `run` leaves allocated.
fn left_by(run: impl FnOnce()) -> i64 {
    measure(run).bytes_current
}

/// Turns until nothing is left to do.
fn settle(reactor: &mut Reactor) {
    let mut idle = 0;
    while idle < 3 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        let is_busy = reactor.next_deadline() == Some(Duration::ZERO);
        idle = if is_busy { 0 } else { idle + 1 };
    }
}

fn connect(reactor: &mut Reactor, addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(TcpStream::connect(addr).unwrap());
        settle(reactor);
    }
    clients
}

/// Pauses at each packet.
struct Pausing;

impl Handler for Pausing {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        ctx.pause_reading();
        Action::Continue
    }
}

/// Goal: with small packets a connection keeps no more for a handler that pauses than
/// `worst_case_memory` says, although its peer sends much at once. Method: 450 peers send 60 kB each,
/// by sockets; the handler pauses at the first packet. For each framing a different limit applies.
#[test]
fn input_that_waits_for_a_handler_is_within_the_bound() {
    let lines: Framing = Lines::new(SMALL).into();
    for (framing, packets) in [
        (LengthField::U8.into(), b"\x03abc".repeat(15_000)),
        (lines, b"abc\n".repeat(15_000)),
        (Raw.into(), vec![7; 60_000]),
    ] {
        let options = frugal().framing(framing.clone());
        let bound = bound(&options);
        let mut reactor = Reactor::new().unwrap();
        let listener = reactor.start_listener("pausing", options, |_| Pausing).unwrap();
        let addr = listener.local_addr().as_inet().unwrap();
        let mut clients = Vec::new();
        let held = left_by(|| {
            clients = connect(&mut reactor, addr, 450);
            for client in &mut clients {
                client.write_all(&packets).unwrap();
            }
            settle(&mut reactor);
        });
        assert_eq!(listener.stats().packets_in, 450);
        assert!(held <= bound, "{held} bytes held with {framing:?}, at most {bound}");
        // `Raw` has no whole packets that could wait.
        let works = held > 450 * 16_000 || framing.max_packet_in().is_none();
        assert!(works, "{held} bytes: this attack does not work any more");
    }
}

/// Goal: the buffers that one listener's burst has left are not used for the few bytes of another
/// listener's connections. Method: by sockets, 32 peers at a time send a packet of 100 kB to one
/// listener, in two parts; then 32 peers of another send one byte each, of the input or of a packet
/// that is answered while the peer does not read. So often that each of 448 has a buffer of its own.
#[test]
fn a_burst_of_another_listener_leaves_no_large_buffers_to_small_connections() {
    let mut reactor = Reactor::new().unwrap();
    let large = ListenerOptions::port(0).framing(LengthField::U32).max_connections(32);
    let large = reactor.start_listener("large", large, |_| Echo).unwrap();
    let options = frugal();
    let bound = bound(&options);
    let small = reactor.start_listener("small", options, |_| Echo).unwrap();
    let [large, small] = [large, small].map(|handle| handle.local_addr().as_inet().unwrap());
    let mut quiet = Vec::new();
    let held = left_by(|| {
        for _ in 0..14 {
            let mut clients = connect(&mut reactor, large, 32);
            let mut packet = 100_000_u32.to_be_bytes().to_vec();
            packet.resize(100_004, 7);
            for part in [&packet[..100_000], &packet[100_000..]] {
                clients.iter_mut().for_each(|client| client.write_all(part).unwrap());
                settle(&mut reactor);
            }
            drop(clients);
            settle(&mut reactor);
            let mut clients = connect(&mut reactor, small, 32);
            clients.iter_mut().for_each(|client| client.write_all(&[0]).unwrap());
            settle(&mut reactor);
            quiet.extend(clients);
        }
    });
    assert!(held <= bound, "{held} bytes held, at most {bound}");
}

struct Echo;

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }
}

/// Sends what each message says, as often as it says.
struct Sender;

impl Handler for Sender {
    type Message = Order;

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, Order>) -> Action<'a> {
        Action::send(packet)
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Order>,
        ctx: &mut Context<'_, Order>,
    ) -> Action<'a> {
        let Info::Message(Order { copied, shared }) = info else { return info.default_action() };
        let _ = ctx.send(&vec![7; copied][..]);
        if shared > 0 {
            let _ = ctx.send(Bytes::from(vec![7; shared]));
        }
        Action::Continue
    }
}

/// What to send: this many bytes to be copied, then as many to be shared.
#[derive(Copy, Clone)]
struct Order {
    copied: usize,
    shared: usize,
}

/// Goal: output that peers do not read is within the bound, in whatever pieces it was queued. Method:
/// 40 scripted peers that take nothing, until no answer fits; pieces that fill a segment badly, and
/// copied pieces between shared ones. Then each peer takes bytes that end inside a shared piece, and
/// the queue is filled again.
#[test]
fn output_that_peers_do_not_take_is_within_the_bound() {
    const MAX: usize = 1 << 20;
    const PEERS: usize = 40;
    for order in [
        Order { copied: 1_006, shared: 0 },
        Order { copied: 4_099, shared: 32 * 1024 },
        Order { copied: 16_400, shared: 32 * 1024 },
        Order { copied: 33_000, shared: 0 },
        Order { copied: 1, shared: 59_000 },
    ] {
        let options = frugal().max_packet(60_000).max_queued(MAX).max_connections(PEERS);
        let options = options.mailbox_capacity(MAX / 1_000);
        let bound = bound(&options);
        let harness = Harness::new(options, |_| Sender);
        let mut peers = Vec::new();
        let fill = |peers: &[Harness<Sender>]| {
            let each = order.copied + order.shared;
            for peer in peers {
                peer.peer_stalls();
                (0..MAX / each).for_each(|_| assert!(peer.address().send(order).is_ok()));
                peer.run();
            }
        };
        let mut held = left_by(|| {
            peers.extend((1..PEERS).map(|_| harness.connect()));
            fill(&peers);
        });
        assert!(peers.iter().all(|peer| peer.queued_bytes() > MAX * 9 / 10));
        assert!(held <= bound, "{held} bytes held, at most {bound}");
        held += left_by(|| {
            peers.iter().for_each(|peer| peer.peer_reads(10_000));
            peers.iter().for_each(|peer| drop(peer.sent()));
            fill(&peers);
        });
        assert!(held <= bound, "{held} bytes held after a refill, at most {bound}");
    }
}

/// Sets as many timers as a packet says: for an hour, or for a second if its second byte says so.
/// Cancels them if there is a third byte.
#[derive(Default)]
struct Timing {
    timers: Vec<TimerId>,
    refused: Rc<RefCell<u64>>,
}

impl Handler for Timing {
    type Message = [u64; 8];

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, [u64; 8]>,
    ) -> Action<'a> {
        let [count @ .., kind] = packet else { return Action::Continue };
        let delay = if kind.is_ascii_lowercase() { secs(1) } else { secs(3_600) };
        for nth in 0..u32::from_be_bytes(count.try_into().unwrap()) {
            match ctx.send_after(delay, [nth.into(); 8]) {
                Ok(timer) if *kind == b'c' => self.timers.push(timer),
                Ok(_) => {}
                Err(error @ TimerError::Full { .. }) => {
                    assert_eq!(error.into_message(), [nth.into(); 8]);
                    *self.refused.borrow_mut() += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        for timer in std::mem::take(&mut self.timers) {
            assert!(ctx.cancel(timer));
        }
        Action::Continue
    }
}

fn timers(count: u32, kind: u8) -> Vec<u8> {
    [&count.to_be_bytes()[..], &[kind]].concat()
}

/// Goal: a peer cannot make a handler that sets a timer for each packet hold more than the bound: at
/// the maximum the handler gets its message back, and the refusal is counted. A timer that has fired
/// or was cancelled makes room for another. Method: 100 peers that ask for 5,000 timers each, in
/// packets of one timer; a maximum of 16.
#[test]
fn timers_are_within_the_bound() {
    let options = frugal().max_timers(16).max_connections(101);
    let bound = bound(&options);
    let refused = Rc::default();
    let own = Rc::clone(&refused);
    let harness =
        Harness::new(options, move |_| Timing { refused: Rc::clone(&own), ..Timing::default() });
    let mut peers = Vec::new();
    let held = left_by(|| {
        peers.extend((0..100).map(|_| harness.connect()));
        for peer in &peers {
            let packets = peer.framed(timers(1, b'L')).repeat(100);
            (0..50).for_each(|_| peer.receive(&packets));
        }
    });
    assert!(held <= bound, "{held} bytes held, at most {bound}");
    assert_eq!(harness.leftovers().timers, 1_600);
    assert_eq!((*refused.borrow(), harness.stats().refused_timers), (498_400, 498_400));
    harness.packet(timers(16, b'c'));
    harness.packet(timers(16, b's'));
    harness.packet(timers(1, b's'));
    assert_eq!(harness.stats().refused_timers, 498_401);
    harness.advance(secs(2));
    harness.packet(timers(16, b's'));
    assert_eq!(harness.stats().refused_timers, 498_401);
}

/// Goal: messages that wait are within the bound. Method: a mailbox is filled, emptied and filled
/// again, so that both of its queues have grown.
#[test]
fn messages_that_wait_are_within_the_bound() {
    let options = frugal().mailbox_capacity(300_000);
    let bound = bound(&options);
    let harness = Harness::new(options, |_| Timing::default());
    let address: Address<[u64; 8]> = harness.address();
    let held = left_by(|| {
        for _ in 0..2 {
            harness.run();
            (0..300_000).for_each(|_| assert!(address.send([7; 8]).is_ok()));
            assert!(matches!(address.send([7; 8]), Err(MessageError::Full(_))));
        }
    });
    assert!(held <= bound, "{held} bytes held, at most {bound}");
    assert!(held > 300_000 * 64, "{held} bytes: this attack does not work any more");
}

/// Uses all parts of the state of its connection that are allocated when they are used.
struct Demanding;

impl Handler for Demanding {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        ctx.set_framing(LengthField::U32);
        ctx.set_packet_timeout(secs(3_600));
        ctx.set_idle_timeout(Some(secs(3_600)));
        assert!(ctx.send_after(secs(3_600), ()).is_ok());
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }
}

/// Goal: a connection costs no more than its part of the bound, whatever parts of its state it uses.
/// Method: 450 connections by sockets, with a framing and timeouts of their own, a timer, and half a
/// packet; the bound without what the reactor keeps.
#[test]
fn connections_themselves_are_within_the_bound() {
    let each = bound(&frugal().max_connections(2)) - bound(&frugal().max_connections(1));
    let buffers = i64::try_from(2 * SMALL + 4096).unwrap();
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.start_listener("demanding", frugal(), |_| Demanding).unwrap();
    let addr = listener.local_addr().as_inet().unwrap();
    let mut clients = Vec::new();
    let held = left_by(|| {
        clients = connect(&mut reactor, addr, 450);
        clients.iter_mut().for_each(|client| client.write_all(&[0, 0, 0, 9, 1]).unwrap());
        settle(&mut reactor);
    });
    // Lists and the wheel begin with room for as many as there may be.
    let most = 450 * (each - buffers);
    assert!(held <= most, "{held} bytes held, at most {most}");
    assert!(held <= 450 * 2_048, "{held} bytes held");
}

/// Runs `burst` on a harness, and returns what stays allocated of it when `long` has passed.
fn left_after(harness: &Harness<impl Handler>, burst: impl FnOnce()) -> [i64; 2] {
    let at_once = left_by(burst);
    let later = left_by(|| {
        for _ in 0..30 {
            harness.advance(secs(1));
        }
    });
    [at_once, at_once + later]
}

/// Little memory, which may stay.
const LITTLE: i64 = 512 * 1024;

/// Goal: the memory of a burst of timers goes back, whether they fired, were cancelled, or ended
/// with their connection, and although the last of them lives on. Method: 200,000 timers, then 30 s.
#[test]
fn a_burst_of_timers_gives_its_memory_back() {
    for ended_by in ["time", "cancel", "close"] {
        let options = options().max_timers(300_000);
        let harness = Harness::new(options, |_| Timing::default());
        let peer = harness.connect();
        harness.packet(timers(1, b'L'));
        let [at_once, later] = left_after(&harness, || match ended_by {
            "time" => peer.packet(timers(200_000, b's')),
            "cancel" => peer.packet(timers(200_000, b'c')),
            _ => {
                peer.packet(timers(200_000, b'L'));
                harness.packet(timers(1, b'L'));
                peer.peer_resets();
            }
        });
        // A timer of another connection, which is armed last of all, does not hold the rest.
        harness.packet(timers(1, b'L'));
        assert!(at_once > 200_000 * 64, "{at_once} bytes: no burst");
        assert!(later < LITTLE, "{later} of {at_once} bytes are held, timers ended by {ended_by}");
    }
}

/// A handler with a large state.
struct Large {
    _state: [u64; 512],
    addresses: Addresses,
}

type Addresses = Rc<RefCell<Vec<Address<[u64; 8]>>>>;

impl Handler for Large {
    type Message = [u64; 8];

    fn init(&mut self, ctx: &mut Context<'_, [u64; 8]>) -> Action<'_> {
        self.addresses.borrow_mut().push(ctx.address());
        Action::Continue
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        _: &mut Context<'_, [u64; 8]>,
    ) -> Action<'a> {
        Action::send(packet)
    }
}

/// A listener of [`Large`] handlers, and their addresses.
fn large() -> (Harness<Large>, Addresses) {
    let addresses = Addresses::default();
    let own = Rc::clone(&addresses);
    let factory = move |_: &Accepted<'_, _>| Large { _state: [7; 512], addresses: Rc::clone(&own) };
    (Harness::new(options().max_connections(3_000), factory), addresses)
}

/// Goal: the slots of connections give their memory back, although the last of the connections lives
/// on. New connections are served in these slots, and messages to the earlier owners do not reach
/// them. Method: 2,000 connections with handlers of 4 KiB, of which only the last stays; then the last
/// ends as well, and as many come again.
#[test]
fn a_burst_of_connections_gives_its_memory_back() {
    let (harness, addresses) = large();
    let mut last = None;
    let [at_once, later] = left_after(&harness, || {
        let mut peers: Vec<_> = (0..2_000).map(|_| harness.connect()).collect();
        last = peers.pop();
        peers.iter().for_each(Harness::peer_resets);
    });
    assert!(at_once > 2_000 * 4_096, "{at_once} bytes: no burst");
    assert!(later < 2 * LITTLE, "{later} of {at_once} bytes are held");
    let new = harness.connect();
    let last = last.unwrap();
    for peer in [&last, &new, &harness] {
        peer.packet("served");
        assert_eq!(peer.packets(), [b"served"]);
    }
    last.peer_resets();
    new.peer_resets();
    harness.advance(secs(30));
    let old = addresses.take();
    let peers: Vec<_> = (0..2_000).map(|_| harness.connect()).collect();
    old[1..].iter().for_each(|address| assert!(address.send([7; 8]).is_ok()));
    harness.run();
    let stats = harness.stats();
    assert_eq!((stats.messages, stats.dropped_messages), (0, 2_001));
    peers.last().unwrap().packet("served");
    assert_eq!(peers.last().unwrap().packets(), [b"served"]);
}

/// Goal: so do the lists of connections and the wheel. Method: 20,000 connections with half a packet
/// each, of which none stays; the heap a minute later against that after 100 connections.
#[test]
fn a_burst_of_many_connections_gives_the_memory_of_lists_back() {
    let harness = Harness::new(options().max_connections(30_000), |_| Echo);
    let burst = |count: usize| {
        let peers: Vec<_> = (1..count).map(|_| harness.connect()).collect();
        peers.iter().for_each(|peer| peer.receive(b"\0"));
        peers.iter().for_each(Harness::peer_resets);
    };
    burst(100);
    let [at_once, later] = left_after(&harness, || burst(20_000));
    assert!(at_once > 2 * LITTLE, "{at_once} bytes: no burst");
    assert!(later < LITTLE, "{later} of {at_once} bytes are held");
}

/// Goal: a mailbox that was full gives its memory back, both of its queues. Method: the mailbox is
/// filled twice.
#[test]
fn a_burst_of_messages_gives_its_memory_back() {
    let (harness, _) = large();
    let [at_once, later] = left_after(&harness, || {
        for _ in 0..2 {
            harness.run();
            let address = harness.address();
            (0..65_536).for_each(|_| assert!(address.send([7; 8]).is_ok()));
        }
    });
    assert!(at_once > 65_536 * 128, "{at_once} bytes: no burst");
    assert!(later < LITTLE, "{later} of {at_once} bytes are held");
}

// ---- a burst of publications ----

/// It joins with `join`, fills its queue with `fill`, and publishes every other packet. While there is
/// no room for a publication, it is not read.
struct Publisher {
    group: Rc<OnceCell<Group<()>>>,
    refused: Option<Bytes>,
}

impl Publisher {
    fn publish(&mut self, packet: Bytes, ctx: &mut Context<'_, ()>) {
        let group = self.group.get_or_init(|| ctx.group()).clone();
        if let Err(MessageError::Full(packet)) = group.send_packet(packet) {
            ctx.pause_reading();
            ctx.notify_when_ready(&group);
            self.refused = Some(packet);
        }
    }
}

impl Handler for Publisher {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        if packet == b"join" {
            return ctx.join(self.group.get_or_init(|| ctx.group())).into();
        }
        if packet == b"fill" {
            while ctx.send(&[0; 1_000]).is_ok() {}
            return Action::Continue;
        }
        self.publish(Bytes::copy_from_slice(packet), ctx);
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, ctx: &mut Context<'_, ()>) -> Action<'a> {
        if let Info::MailboxReady = info {
            ctx.resume_reading();
            if let Some(packet) = self.refused.take() {
                self.publish(packet, ctx);
            }
        }
        info.default_action()
    }
}

/// Goal: 200,000 publications in one write never take more memory than the high-water marks of the
/// members and the places of the mailbox allow, although one member reads nothing, and is
/// disconnected. All others get all. Method: the publisher writes and the members read on threads of
/// their own, so only what the reactor allocates counts.
#[test]
fn a_burst_of_publications_stays_below_the_marks() {
    const MEMBERS: usize = 8;
    const PUBLICATIONS: u32 = 200_000;
    const MARK: usize = 512 * 1024;
    const PLACES: usize = 100;
    let options = ListenerOptions::port(0)
        .framing(LengthField::U16)
        .mailbox_capacity(PLACES)
        .write_high_water(MARK)
        .max_queued(2 * MARK);
    let group = Rc::new(OnceCell::new());
    let theirs = Rc::clone(&group);
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("hub", options, move |_| Publisher {
            group: Rc::clone(&theirs),
            refused: None,
        })
        .unwrap();
    let addr = listener.local_addr().as_inet().unwrap();
    let mut members = connect(&mut reactor, addr, MEMBERS - 1);
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    silent.set_recv_buffer_size(4096).unwrap();
    silent.connect(&addr.into()).unwrap();
    members.push(silent.into());
    for member in &mut members {
        member.write_all(b"\x00\x04join").unwrap();
        settle(&mut reactor);
    }
    let wire: Vec<u8> =
        (0..PUBLICATIONS).flat_map(|at| [&[0, 4][..], &at.to_be_bytes()].concat()).collect();
    let wire = Arc::new(wire);
    let mut silent = members.pop().unwrap();
    // More than the kernel takes. While the queue is long, the rest is not read.
    silent.write_all(&b"\x00\x04fill".repeat(16)).unwrap();
    settle(&mut reactor);
    let readers: Vec<_> = members
        .into_iter()
        .map(|mut member| {
            let expected = Arc::clone(&wire);
            thread::spawn(move || {
                let mut got = vec![0; expected.len()];
                member.read_exact(&mut got).unwrap();
                assert!(got == *expected, "they are in order");
            })
        })
        .collect();
    let publisher = thread::spawn(move || {
        let mut publisher = TcpStream::connect(addr).unwrap();
        publisher.write_all(&wire).unwrap();
        publisher
    });
    let most = measure(|| {
        while !readers.iter().all(thread::JoinHandle::is_finished) {
            reactor.turn(Some(Duration::from_millis(10))).unwrap();
        }
    });
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    publisher.join().unwrap();
    assert!(listener.stats().refused_messages > 0, "the publisher was not held up");
    assert_eq!(listener.stats().closed(CloseKind::SlowReader), 1);
    let most = usize::try_from(most.bytes_max).unwrap();
    assert!(most <= MEMBERS * MARK + PLACES * 256, "{most} bytes");
}
