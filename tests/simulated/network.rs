//! The network between the nodes: latency, buffers, faults, names, and the seed.

use condor::sim::{Cut, Sim};
use condor::{
    Action, CloseReason, ConnectorOptions, Context, Error, Handler, Info, ListenerOptions,
};

use super::{Lives, dials, listens, ms, pair, secs};

/// Goal: a connection takes a round trip, the server sees it half a round trip later, and an answer
/// takes another round trip. Method: 10 ms from one node to the other; both sides at each moment.
#[test]
fn a_connection_takes_a_round_trip() {
    let pair = pair(1, dials(), &[b"hello"]);
    pair.link().latency(ms(10));
    pair.sim.run_for(ms(19));
    assert_eq!((pair.at_client.count(), pair.sim.streams(pair.client)), (0, 1));
    pair.sim.run_for(ms(1));
    assert_eq!((pair.at_client.count(), pair.at_server.count()), (1, 0));
    pair.sim.run_for(ms(10));
    assert_eq!(pair.at_server.last().packets, [b"hello"]);
    pair.sim.run_for(ms(9));
    assert_eq!(pair.at_client.last().packets.len(), 0);
    pair.sim.run_for(ms(1));
    assert_eq!(pair.at_client.last().packets, [b"hello"]);
    assert_eq!(pair.sim.now(), ms(40));
}

/// Goal: no more than the buffer is under way; a full one cuts writes, and room is announced. Method: a
/// packet of 1,002 bytes over a buffer of 10, which is 101 round trips.
#[test]
fn a_full_buffer_cuts_writes_and_announces_room() {
    const LARGE: &[u8] = &[7; 1_000];
    let pair = pair(2, dials(), &[LARGE]);
    pair.link().latency(ms(1)).buffer(10);
    pair.sim.run_for(ms(2 + 1 + 2 * 100 - 1));
    assert_eq!((pair.at_client.count(), pair.at_server.last().packets.len()), (1, 0));
    pair.sim.run_for(ms(2));
    assert_eq!(pair.at_server.last().packets, [LARGE]);
    let sizes = pair.sim.trace();
    let sizes = sizes.iter().filter_map(|line| line.split("sends ").nth(1)?.split(' ').next());
    assert!(sizes.map(|size| size.parse::<usize>().unwrap()).all(|size| size <= 10));
}

/// Goal: nothing overtakes what was sent before, also if the link becomes faster meanwhile. Method: an
/// end that is sent after a greeting, over a faster link.
#[test]
fn nothing_overtakes_what_was_sent_before() {
    let pair = pair(8, dials(), &[b"hello"]);
    pair.link().latency(ms(50));
    pair.sim.run_for(ms(101));
    pair.link().latency(ms(1));
    pair.sim.crash(pair.client);
    pair.sim.run_for(ms(10));
    assert_eq!(pair.at_server.count(), 0);
    pair.sim.run_for(ms(40));
    assert_eq!(pair.at_server.last().packets, [b"hello"]);
    assert_eq!(pair.at_server.last().end, Some(CloseReason::PeerClosed));
}

/// Goal: what is sent into a black hole waits, and so does what was under way; once the link is healed
/// it arrives, once and in order. Method: a hole while the greeting is under way.
#[test]
fn a_black_hole_holds_everything_back() {
    let pair = pair(3, dials(), &[b"one", b"two"]);
    pair.link().latency(ms(10));
    pair.sim.run_for(ms(25));
    assert_eq!(pair.at_client.count(), 1);
    pair.link().black_hole();
    pair.sim.run_for(secs(4));
    assert_eq!((pair.at_client.open(), pair.at_server.count()), (1, 0));
    pair.link().heal();
    pair.sim.run_for(ms(20));
    assert_eq!(pair.at_server.last().packets, [b"one", b"two"]);
    assert_eq!(pair.at_client.last().packets, [b"one", b"two"]);
    assert_eq!((pair.at_client.count(), pair.at_client.open()), (1, 1));
}

/// Goal: a stream is cut after exactly the bytes that were asked for: as a reset both ends are told,
/// and in silence neither is. Method: each cut of a packet of 7 bytes.
#[test]
fn a_stream_is_cut_at_the_byte() {
    for bytes in 0..7 {
        for how in [Cut::Reset, Cut::Silence] {
            let pair = pair(bytes, dials(), &[b"hello"]);
            pair.link().cut_after(usize::try_from(bytes).unwrap(), how);
            pair.sim.run_for(ms(1));
            if how == Cut::Silence {
                assert_eq!((pair.at_server.open(), pair.at_client.open()), (1, 1));
                pair.link().heal();
                pair.sim.run_for(secs(4));
                assert_eq!((pair.at_server.count(), pair.at_server.open()), (1, 1), "it stays cut");
                pair.sim.run_for(secs(2));
                let silence = Some(CloseReason::SilenceTimeout);
                assert_eq!(pair.at_client.all()[0].end, silence);
            } else {
                assert_eq!(pair.at_client.all()[0].end, Some(CloseReason::Reset));
                assert_eq!(pair.at_server.all()[0].end, Some(CloseReason::Reset));
            }
            assert_eq!(pair.at_server.all()[0].packets.len(), 0, "cut after {bytes} bytes");
        }
    }
}

/// Goal: a crash closes what was open, so that the peer sees an end, and terminates the handlers; the
/// port refuses until the restart. Method: a crash, the times of attempts, a restart.
#[test]
fn a_crash_is_an_end_for_the_peer() {
    let pair = pair(4, dials(), &[b"hello"]);
    pair.link().latency(ms(5));
    pair.sim.run_for(ms(100));
    pair.sim.crash(pair.server);
    pair.sim.crash(pair.server);
    assert_eq!((pair.at_server.open(), pair.sim.streams(pair.server)), (0, 0));
    assert_eq!(pair.at_client.open(), 1, "the end is under way");
    pair.sim.run_for(ms(5));
    assert_eq!(pair.at_client.last().end, Some(CloseReason::PeerClosed));
    pair.sim.run_for(secs(10));
    assert_eq!(pair.at_client.count(), 1);
    assert!(pair.sim.trace().iter().any(|line| line.contains("server to client: refuses")));
    pair.sim.restart(pair.server);
    pair.sim.run_for(secs(2));
    assert_eq!(
        (pair.at_client.open(), pair.at_server.last().packets),
        (1, vec![b"hello".to_vec()])
    );
}

/// Goal: a node that is down has no reactor, and a restart of one that is up crashes it first. Method:
/// a restart, a crash, a look.
#[test]
#[should_panic(expected = "node \"server\" is down")]
fn a_node_that_is_down_has_no_reactor() {
    let pair = pair(9, dials(), &[b"hello"]);
    pair.sim.run_for(ms(10));
    pair.sim.restart(pair.server);
    assert_eq!((pair.at_server.count(), pair.at_server.open()), (1, 0));
    pair.sim.run_for(secs(1));
    assert_eq!((pair.at_server.count(), pair.at_server.open()), (2, 1));
    pair.sim.crash(pair.server);
    pair.sim.run_for(secs(1));
    pair.sim.with(pair.server, |_| {});
}

/// Goal: a program that keeps itself busy without end is found, and does not hang the test. Method: a
/// handler that wakes itself again and again.
#[test]
#[should_panic(expected = "still busy")]
fn a_node_that_spins_is_found() {
    let sim = Sim::new(10);
    sim.node("spins", |reactor| {
        reactor.start_listener("spins", listens(80), |_| Spins)?;
        reactor.start_connector("link", ConnectorOptions::to("spins:80"), |_| Spins)
    });
    sim.run_for(ms(1));
}

/// Wakes itself again and again.
struct Spins;

impl Handler for Spins {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        ctx.address().wake();
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, ctx: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Wake => self.init(ctx),
            other => other.default_action(),
        }
    }
}

/// Goal: a handle starts listeners and connectors of its node, too. Method: a handle that starts both,
/// and a connection between them.
#[test]
fn a_handle_starts_listeners_and_connectors_of_its_node() {
    let sim = Sim::new(11);
    let node = sim.node("alone", |_| Ok(()));
    let handle = sim.with(node, |reactor| reactor.handle());
    let echo = handle.start_listener("echo", ListenerOptions::port(80), |_| Hello).unwrap();
    let options = ConnectorOptions::to(echo.local_addr());
    let link = handle.start_connector("link", options, |_| Hello).unwrap();
    assert!(sim.run_until(|_| link.stats().packets_in == 1 && echo.stats().packets_in == 1));
    assert_eq!((link.stats().made, echo.stats().accepted, sim.streams(node)), (1, 1, 2));
}

/// Says hello, and no more.
struct Hello;

impl Handler for Hello {
    type Message = ();

    fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> {
        Action::send("hello")
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::Continue
    }
}

/// Goal: addresses are those of the nodes: two listeners of one node do not share a port, an address
/// belongs to one node, and a wrong one is a typed error. Port 0 is chosen. Method: each kind.
#[test]
fn an_address_belongs_to_one_node() {
    let sim = Sim::new(5);
    let lives = Lives::default();
    let seen = lives.clone();
    let server = sim.node("server", move |reactor| {
        let mut start = |name: &str, options| {
            let lives = seen.clone();
            reactor.start_listener(name, options, move |_| lives.side(&[], true))
        };
        let chosen = start("chosen", listens(0))?.local_addr().as_inet().unwrap();
        assert_ne!(chosen.port(), 0);
        let taken = start("taken", listens(chosen.port()));
        assert!(matches!(taken, Err(Error::AddressInUse { .. })), "{taken:?}");
        start("service", ListenerOptions::new(([192, 0, 2, 7], 80)))?;
        start("loopback", ListenerOptions::port(81))
    });
    assert_eq!(server.ip().to_string(), "10.0.0.1");
    let (seen, clients) = (lives.clone(), Lives::default());
    let dialled = clients.clone();
    let client = sim.node("client", move |reactor| {
        let options = ListenerOptions::new(([192, 0, 2, 7], 80));
        let lives = seen.clone();
        let stolen = reactor.start_listener("stolen", options, move |_| lives.side(&[], true));
        assert!(matches!(stolen, Err(Error::NotLocal { .. })), "{stolen:?}");
        for target in ["192.0.2.7:80", "server:81", "127.0.0.1:81", "192.0.2.8:80", "nowhere:80"] {
            let lives = dialled.clone();
            let options = ConnectorOptions::to(target);
            reactor.start_connector(target, options, move |_| lives.side(&[], false))?;
        }
        Ok(())
    });
    sim.run_for(secs(1));
    assert_eq!((clients.count(), lives.count()), (1, 1), "only the first one leads to a listener");
    let stats = sim.with(client, |reactor| reactor.handle().stats());
    assert!(stats.dial_failures >= 4);
    let asked = sim.attempts(client);
    assert!(asked.iter().all(|(_, to)| to.to_string() != "nowhere:80"));
}

/// Goal: everything comes from the seed. Method: two worlds with faults, whose traces are compared line
/// by line: those of the same seed are equal, and those of others differ.
#[test]
fn the_seed_decides_everything() {
    let run = |seed| {
        let pair = pair(seed, dials().connections(20), &[b"hello", b"world"]);
        pair.link().latency(ms(3)).cut_after(5, Cut::Reset);
        pair.sim.run_for(secs(2));
        pair.link().heal();
        pair.sim.crash(pair.server);
        pair.sim.run_for(secs(2));
        pair.sim.restart(pair.server);
        pair.sim.run_for(secs(2));
        assert_eq!(pair.at_client.open(), 20);
        pair.sim.trace()
    };
    let first = run(1);
    assert!(first.len() > 500, "{} lines", first.len());
    let second = run(1);
    let differs = first.iter().zip(&second).find(|(one, other)| one != other);
    assert_eq!((differs, first.len()), (None, second.len()));
    assert_ne!(first, run(2));
}
