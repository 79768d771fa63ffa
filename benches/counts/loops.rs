//! The inner loops of the modules without a socket, a packet to a group, answers with shared values,
//! round trips of an accepted connection and of a connector's link, and dials beside many others. `benches/counts/run` counts
//! their instructions: it runs a loop under callgrind twice, with different numbers of rounds, and
//! divides the difference by the difference of the rounds.
//!
//! ```text
//! cargo bench --bench counts -- decode 1000
//! cargo bench --bench counts -- memory 1000000
//! ```

use std::cell::OnceCell;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use condor::internals::{Deframe, Enframe, Pool, Prefix, Queue, Tick, Wheel};
use condor::testing::ConnectorHarness;
use condor::{
    Action, Address, Backoff, ConnectorHandle, ConnectorOptions, Context, Decode, Group, Handler,
    Info, LengthField, ListenerOptions, Reactor, ReactorOptions, Stats,
};
use socket2::{Domain, SockAddr, Socket, Type};

const PACKETS: usize = 64;
const MEMBERS: usize = 256;
/// Values of one batch. They are below the output budget of a turn.
const VALUES: usize = 3;
const VALUE: usize = 64 * 1024;
const PAYLOAD: [u8; 64] = [7; 64];

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let (Some(what), Some(rounds)) = (args.next(), args.next()) else {
        // `cargo bench` without arguments runs every bench. Then no loop is chosen.
        return;
    };
    let rounds: usize = rounds.parse().expect("a number of rounds");
    match what.as_str() {
        "decode" => decode(rounds),
        "encode" => encode(rounds),
        "wheel" => wheel(rounds),
        "queue" => queue(rounds),
        "group" => group(rounds),
        "shared" => shared(rounds),
        "accepted-1" => accepted(rounds, 1),
        "accepted-64" => accepted(rounds, 64),
        "link-1" => link(rounds, 1),
        "link-64" => link(rounds, 64),
        "pair-1" => pair(rounds, 1),
        "pair-64" => pair(rounds, 64),
        "redials-1" => redials(rounds, 1),
        "redials-2000" => redials(rounds, 2_000),
        "names" => names(rounds),
        "memory" => memory(rounds),
        other => panic!(
            "unknown loop {other}; known: decode, encode, wheel, queue, group, shared, accepted-1, \
             accepted-64, link-1, link-64, pair-1, pair-64, redials-1, redials-2000, names, \
             memory"
        ),
    }
}

/// A member of the one group.
struct Member(Rc<OnceCell<Group<()>>>);

impl Handler for Member {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        let group = self.0.get_or_init(|| ctx.group());
        ctx.join(group).into()
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::Continue
    }
}

/// One round sends one packet of 64 bytes to 256 members, over sockets. No client reads: what the
/// rounds of one run send fits into the buffers of the kernel.
fn group(rounds: usize) {
    let mut reactor = untimed();
    let options = ListenerOptions::port(0).max_connections(MEMBERS);
    let group = Rc::new(OnceCell::new());
    let theirs = Rc::clone(&group);
    let listener = reactor
        .start_listener("group", options, move |_| Member(Rc::clone(&theirs)))
        .expect("a listener");
    let addr = listener.local_addr().as_inet().expect("TCP");
    let clients: Vec<_> =
        (0..MEMBERS).map(|_| TcpStream::connect(addr).expect("a connection")).collect();
    let turn = |reactor: &mut Reactor| reactor.turn(Some(Duration::ZERO)).expect("a turn");
    while listener.stats().made < MEMBERS as u64 {
        turn(&mut reactor);
    }
    let group = group.get().expect("made by the first member");
    let packet = Bytes::from_static(&PAYLOAD);
    for _ in 0..rounds {
        group.send_packet(packet.clone()).expect("there is room");
        turn(&mut reactor);
    }
    assert_eq!(listener.stats().packets_out, (rounds * MEMBERS) as u64);
    black_box(clients);
}

/// Answers each packet with its value, and a trailer.
struct Values(Bytes);

impl Handler for Values {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        if let Err(error) = ctx.send(self.0.clone()) {
            return Action::stop(error.into());
        }
        Action::send("\r\n")
    }
}

/// One round answers a batch of three requests with a shared value of 64 KiB each, over a socket whose
/// buffers take all of them. The client makes no `send` and no `recv`, but a `write` and `read`s, so
/// that its system calls can be told from those of the server.
fn shared(rounds: usize) {
    const ANSWERS: usize = VALUES * (VALUE + 2 + 2 * 4);
    let mut reactor = untimed();
    let listening = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // An accepted socket inherits its size.
    listening.set_send_buffer_size(1 << 20).expect("a socket");
    let any_port = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    listening.bind(&any_port).expect("a free port");
    listening.listen(1).expect("a socket");
    let options = ListenerOptions::from_std(listening.into()).framing(LengthField::U32);
    let value = Bytes::from(vec![7; VALUE]);
    let listener = reactor
        .start_listener("shared", options, move |_| Values(value.clone()))
        .expect("a listener");
    let addr = listener.local_addr().as_inet().expect("TCP");
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    client.set_recv_buffer_size(1 << 20).expect("a socket");
    // If the answers need a second turn after all, the loop fails and does not hang.
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    client.connect(&addr.into()).expect("a connection");
    let mut client = File::from(OwnedFd::from(client));
    let mut turn = || reactor.turn(Some(Duration::from_secs(1))).expect("a turn");
    while listener.stats().made < 1 {
        turn();
    }
    let requests = [0, 0, 0, 0].repeat(VALUES);
    let mut answers = vec![0; ANSWERS];
    for _ in 0..rounds {
        client.write_all(&requests).expect("the server lives");
        turn();
        client.read_exact(&mut answers).expect("all answers left in one turn");
    }
}

/// Sends every packet back.
struct Echo;

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }
}

/// Under callgrind the clock runs too fast for the work: a time budget would look at each packet.
fn untimed() -> Reactor {
    let options = ReactorOptions::default().turn_budget(Duration::ZERO);
    Reactor::with_options(options).expect("a reactor")
}

/// Round trips of a connection that a listener has accepted.
fn accepted(rounds: usize, depth: usize) {
    let mut reactor = untimed();
    let listener = reactor.start_listener("echo", ListenerOptions::port(0), |_| Echo);
    let listener = listener.expect("a listener");
    let addr = listener.local_addr().as_inet().expect("TCP");
    let far_end = TcpStream::connect(addr).expect("a connection");
    round_trips(reactor, far_end, || listener.stats(), rounds, depth);
}

/// The same for one that a connector has opened.
fn link(rounds: usize, depth: usize) {
    let mut reactor = untimed();
    let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = backend.local_addr().expect("an address");
    let connector = reactor.start_connector("echo", ConnectorOptions::to(to), |_| Echo);
    let connector = connector.expect("a connector");
    reactor.turn(Some(Duration::ZERO)).expect("a turn");
    let (far_end, _) = backend.accept().expect("a connection");
    round_trips(reactor, far_end, || connector.stats(), rounds, depth);
}

/// Forwards what comes. The accepted end of a pair opens the other one.
struct End(Option<(ConnectorHandle<()>, SocketAddr)>);

impl Handler for End {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        if let Some((connector, to)) = &self.0 {
            let upstream = ctx.dial(connector, *to).expect("there is room");
            ctx.pair(&upstream).expect("it is new");
        }
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        ctx.forward(packet).map(|()| Action::Continue).into()
    }
}

/// Round trips through a pair, as a proxy has them: one round is `depth` packets of 64 bytes in one
/// segment, and their answers. Client and server are on the same thread.
fn pair(rounds: usize, depth: usize) {
    let mut reactor = untimed();
    let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = backend.local_addr().expect("an address");
    let connector = reactor.start_connector("up", ConnectorOptions::on_demand(), |_| End(None));
    let connector = connector.expect("a connector");
    let own = connector.clone();
    let listener = reactor
        .start_listener("down", ListenerOptions::port(0), move |_| End(Some((own.clone(), to))));
    let listener = listener.expect("a listener");
    let addr = listener.local_addr().as_inet().expect("TCP");
    let mut client = TcpStream::connect(addr).expect("a connection");
    let mut turn = || reactor.turn(Some(Duration::ZERO)).expect("a turn");
    while connector.stats().made == 0 {
        turn();
    }
    let (mut server, _) = backend.accept().expect("a connection");
    turn();
    let mut wire = Vec::new();
    for _ in 0..depth {
        LengthField::U16.encode(&PAYLOAD, &mut wire).expect("it fits the field");
    }
    for end in [&client, &server] {
        end.set_nodelay(true).expect("an open socket");
    }
    let mut bytes = vec![0; wire.len()];
    for _ in 0..rounds {
        client.write_all(&wire).expect("there is room");
        turn();
        server.read_exact(&mut bytes).expect("all in one turn");
        server.write_all(&bytes).expect("there is room");
        turn();
        client.read_exact(&mut bytes).expect("all in one turn");
    }
    assert_eq!(bytes, wire);
    assert_eq!(listener.stats().packets_out, (rounds * depth) as u64);
}

/// One round is `depth` packets of 64 bytes in one segment, and their answers. The far end is on the
/// same thread, and its work is the same in both loops.
fn round_trips(
    mut reactor: Reactor,
    mut far_end: TcpStream,
    stats: impl Fn() -> Stats,
    rounds: usize,
    depth: usize,
) {
    let mut turn = || reactor.turn(Some(Duration::ZERO)).expect("a turn");
    while stats().made == 0 {
        turn();
    }
    let mut wire = Vec::new();
    for _ in 0..depth {
        LengthField::U16.encode(&PAYLOAD, &mut wire).expect("it fits the field");
    }
    far_end.set_nodelay(true).expect("an open socket");
    let mut answers = vec![0; wire.len()];
    for _ in 0..rounds {
        far_end.write_all(&wire).expect("there is room");
        turn();
        far_end.read_exact(&mut answers).expect("all in one turn");
    }
    assert_eq!(stats().packets_out, (rounds * depth) as u64);
}

/// One round ends one of so many links, which is dialled again. The network is simulated.
fn redials(rounds: usize, links: usize) {
    const SERVER: &str = "192.0.2.1:80";
    let millis = Duration::from_millis;
    let options = ConnectorOptions::to(SERVER).connections(links).max_connections(links);
    let options = options.backoff(Backoff::new(millis(1), millis(1)));
    let harness = ConnectorHarness::new(options, |_| Echo);
    let mut servers: Vec<_> = (0..links).map(|_| harness.accept().expect("a link")).collect();
    for round in 0..rounds {
        let server = &mut servers[round % links];
        server.resets();
        harness.advance(millis(3));
        *server = harness.accept().expect("it is dialled again");
    }
    assert_eq!(harness.stats().dials, (links + rounds) as u64);
}

/// Dials names that no dial has dialled before, and then gives them up.
struct Dialler {
    connector: ConnectorHandle<()>,
    begun: usize,
    dialled: Vec<Address<()>>,
}

impl Handler for Dialler {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        if packet == b"stop" {
            for address in &self.dialled {
                ctx.handle().close(address.id()).expect("the reactor runs");
            }
            return Action::Continue;
        }
        for _ in 0..NAMES_AT_ONCE {
            let name = format!("host-{}:80", self.begun);
            self.dialled.push(ctx.dial(&self.connector, name).expect("there is room"));
            self.begun += 1;
        }
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::DialFailed { .. } => Action::Continue,
            other => other.default_action(),
        }
    }
}

/// Names that are dialled in one callback.
const NAMES_AT_ONCE: usize = 500;

/// Dials so many names, a multiple of [`NAMES_AT_ONCE`], while no look-up ends. Then all are stopped.
fn names(count: usize) {
    let mut reactor = untimed();
    let options = ConnectorOptions::on_demand().max_connections(count);
    let options = options.connect_timeout(Duration::from_secs(3_600)).resolve(|_| {
        loop {
            std::thread::park();
        }
    });
    let connector = reactor.start_connector("out", options, |_| Echo).expect("a connector");
    let of_dialler = connector.clone();
    let options = ListenerOptions::port(0);
    let listener = reactor.start_listener("in", options, move |_| Dialler {
        connector: of_dialler.clone(),
        begun: 0,
        dialled: Vec::new(),
    });
    let addr = listener.expect("a listener").local_addr().as_inet().expect("TCP");
    let mut client = TcpStream::connect(addr).expect("a connection");
    let mut say = |packet: &[u8], is_done: &dyn Fn(&Stats) -> bool| {
        let mut wire = Vec::new();
        LengthField::U16.encode(packet, &mut wire).expect("it fits the field");
        client.write_all(&wire).expect("there is room");
        while !is_done(&connector.stats()) {
            reactor.turn(Some(Duration::ZERO)).expect("a turn");
        }
    };
    for begun in (NAMES_AT_ONCE..=count).step_by(NAMES_AT_ONCE) {
        say(b"dial", &|stats| stats.dials == begun as u64);
    }
    say(b"stop", &|stats| stats.dial_failures == count as u64);
}

/// Prints the resident memory per entry of a slab and of a wheel. The slab's entries have the size
/// of a connection. The wheel has a timer for each entry.
fn memory(entries: usize) {
    const CONNECTION: usize = 96;
    let before = resident();
    let mut slab = slab::Slab::new();
    for _ in 0..entries {
        slab.insert([1_u8; CONNECTION]);
    }
    let with_slab = resident();
    let mut wheel = Wheel::new();
    for at in 0..entries as u64 {
        wheel.arm(Tick(at % 10_000 + 1), at);
    }
    let with_wheel = resident();
    println!(
        "{entries} entries: {} bytes each in the slab, {} in the wheel",
        (with_slab - before) / entries,
        (with_wheel - with_slab) / entries
    );
    black_box((slab, wheel));
}

/// Resident memory of this process in bytes, from Linux's `/proc`.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

/// One round decodes 64 packets of 64 bytes.
fn decode(rounds: usize) {
    let mut wire = Vec::new();
    for _ in 0..PACKETS {
        LengthField::U16.encode(&PAYLOAD, &mut wire).expect("it fits the field");
    }
    let prefix = Prefix::<2>::new(65_535);
    for _ in 0..rounds {
        // The reactor, too, copies the prefix for each batch.
        let mut prefix = prefix;
        let mut rest = black_box(&wire[..]);
        while let Ok(Decode::Frame { payload, consumed }) = prefix.next(rest, 0) {
            black_box(&rest[payload]);
            rest = &rest[consumed..];
        }
    }
}

/// One round encodes 64 packets of 64 bytes.
fn encode(rounds: usize) {
    let prefix = Prefix::<2>::new(65_535);
    let mut out = Vec::with_capacity(PACKETS * 66);
    for _ in 0..rounds {
        out.clear();
        for _ in 0..PACKETS {
            prefix.frame(black_box(&PAYLOAD), &mut out).expect("it fits the field");
        }
        black_box(&out);
    }
}

/// One round arms and cancels 64 timers, beside 10,000 others.
fn wheel(rounds: usize) {
    let mut wheel = Wheel::new();
    for at in 1..=10_000 {
        wheel.arm(Tick(at), 0_u64);
    }
    for round in 0..rounds {
        for at in 0..PACKETS as u64 {
            let key = wheel.arm(Tick(black_box(at * 150 + round as u64 % 100 + 1)), at);
            black_box(wheel.cancel(key));
        }
    }
}

/// One round queues 64 answers of 64 bytes, then takes them out in one piece.
fn queue(rounds: usize) {
    let (mut pool, mut queue) = (Pool::default(), Queue::default());
    for _ in 0..rounds {
        for _ in 0..PACKETS {
            queue.append(black_box(&PAYLOAD), &mut pool);
        }
        queue.consume(queue.len(), &mut pool);
    }
}
