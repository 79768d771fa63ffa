//! A proxy between two nodes: each connection that it accepts is paired with one that it dials.

use std::rc::Rc;

use condor::sim::{Node, Sim};
use condor::{
    Action, Address, Backoff, CloseReason, ConnectorHandle, ConnectorOptions, Context, Handler,
    Info, Raw, Retry, Stats,
};

use super::{Lives, listens, ms, secs};

/// One end of a proxy's pair. It forwards what comes.
struct End {
    /// The accepted end dials the other one: with its first packet, or in `init` if it is not lazy.
    dials: Option<(ConnectorHandle<()>, bool)>,
    lives: Lives,
}

impl End {
    fn dial(&mut self, ctx: &mut Context<'_, ()>) -> Option<Address<()>> {
        let (connector, _) = self.dials.take()?;
        let upstream = ctx.dial(&connector, "server:80").expect("there is room");
        ctx.pair(&upstream).expect("it is new");
        Some(upstream)
    }
}

impl Handler for End {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        if let Some((_, false)) = self.dials {
            self.dial(ctx);
            ctx.forward("").expect("it has a partner");
        }
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        self.dial(ctx);
        ctx.forward(packet).map(|()| Action::Continue).into()
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        let mut lives = self.lives.0.borrow_mut();
        lives.push(super::Life::default());
        let told = &mut lives.last_mut().expect("it was pushed").packets;
        match &info {
            Info::DialFailed { .. } => told.push(b"dial failed".to_vec()),
            Info::PartnerEnded { reason } => told.push(format!("{reason:?}").into_bytes()),
            _ => {}
        }
        info.default_action()
    }
}

/// Answers all packets at once when its input has ended, and not before.
#[derive(Default)]
struct Late(Vec<Vec<u8>>);

impl Handler for Late {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        self.0.push(packet.to_vec());
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, ctx: &mut Context<'_, ()>) -> Action<'a> {
        if let Info::EndOfInput { .. } = info {
            for packet in self.0.drain(..) {
                ctx.send(packet).expect("there is room");
            }
        }
        info.default_action()
    }
}

/// Sends packets, ends its output, and records what comes.
struct Asker(super::Side, usize);

impl Handler for Asker {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        let _ = self.0.init(ctx);
        for number in 0..self.1 {
            ctx.send(number.to_string()).expect("there is room");
        }
        ctx.end_output();
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        self.0.handle_packet(packet, ctx)
    }

    fn terminate(self, reason: CloseReason) {
        self.0.terminate(reason);
    }
}

struct Proxy {
    sim: Sim,
    server: Node,
    proxy: Node,
    client: Node,
    at_server: Lives,
    at_client: Lives,
    /// What the handlers of the proxy were told.
    told: Lives,
}

#[derive(Clone, Copy)]
enum Kind {
    Echo,
    /// Answers after the end of input, to a client that asks so many questions.
    Late(usize),
}

fn proxy(seed: u64, kind: Kind, lazy: bool, greeting: &'static [&'static [u8]]) -> Proxy {
    let sim = Sim::new(seed);
    let (at_server, at_client, told) = (Lives::default(), Lives::default(), Lives::default());
    let lives = at_server.clone();
    let server = sim.node("server", move |reactor| match kind {
        Kind::Echo => {
            let lives = lives.clone();
            reactor.start_listener("echo", listens(80), move |_| lives.side(&[], true))
        }
        Kind::Late(_) => reactor.start_listener("late", listens(80), |_| Late::default()),
    });
    let lives = told.clone();
    let proxy = sim.node("proxy", move |reactor| {
        let (up, down) = (lives.clone(), lives.clone());
        let options = ConnectorOptions::on_demand().framing(Raw).connect_timeout(secs(3));
        let connector = reactor
            .start_connector("up", options, move |_| End { dials: None, lives: up.clone() })?;
        reactor.start_listener("down", listens(81).framing(Raw), move |_| End {
            dials: Some((connector.clone(), lazy)),
            lives: down.clone(),
        })
    });
    let lives = at_client.clone();
    let client = sim.node("client", move |reactor| {
        let lives = lives.clone();
        let options = ConnectorOptions::to("proxy:81").retry(Retry::Never);
        let options = options.backoff(Backoff::new(ms(100), secs(1)));
        match kind {
            Kind::Echo => {
                reactor.start_connector("ask", options, move |_| lives.side(greeting, false))
            }
            Kind::Late(count) => reactor
                .start_connector("ask", options, move |_| Asker(lives.side(&[], false), count)),
        }
    });
    Proxy { sim, server, proxy, client, at_server, at_client, told }
}

impl Proxy {
    fn stats(&self, node: Node) -> Stats {
        self.sim.with(node, |reactor| reactor.handle().stats())
    }

    /// Checks that no connection is left anywhere, and no stream.
    fn assert_gone(&self) {
        for node in [self.proxy, self.client, self.server] {
            assert_eq!((self.stats(node).open, self.sim.streams(node)), (0, 0));
        }
        assert_eq!(self.stats(self.proxy).made, self.stats(self.proxy).terminated);
    }

    fn told(&self) -> Vec<String> {
        let texts = self.told.all().into_iter().flat_map(|life| life.packets);
        texts.map(|text| String::from_utf8(text).unwrap()).collect()
    }
}

const GREETING: &[&[u8]] = &[b"one", b"two", b"three"];

/// Goal: what a client sends before the other end is up arrives there, in order, and the answers come
/// back. Method: the dial begins in `init` or with the first packet, over links of three speeds.
#[test]
fn what_comes_before_the_dialled_end_is_up_arrives() {
    for (lazy, latency) in [(false, 0), (true, 0), (false, 5), (true, 5), (false, 50), (true, 50)] {
        let world = proxy(1, Kind::Echo, lazy, GREETING);
        world.sim.link(world.proxy, world.server).latency(ms(latency));
        world.sim.link(world.client, world.proxy).latency(ms(10));
        world.sim.run_for(secs(1));
        assert_eq!(world.at_server.last().packets, GREETING, "{latency} ms, lazy: {lazy}");
        assert_eq!(world.at_client.last().packets, GREETING);
        assert_eq!(world.stats(world.proxy).open, 2);
        world.sim.with(world.client, |reactor| reactor.handle().shutdown()).unwrap();
        world.sim.run_for(secs(1));
        assert_eq!(world.at_server.last().end, Some(CloseReason::PeerClosed));
        assert_eq!((world.sim.streams(world.proxy), world.told()), (0, vec![]));
    }
}

/// Goal: all answers of a server that answers only after the end of input come back.
#[test]
fn answers_after_half_a_close_come_back() {
    for latency in [0, 7] {
        let world = proxy(2, Kind::Late(20), latency > 0, &[]);
        world.sim.link(world.proxy, world.server).latency(ms(latency));
        world.sim.run_for(secs(2));
        let expected: Vec<_> = (0..20).map(|number| number.to_string().into_bytes()).collect();
        assert_eq!(world.at_client.last().packets, expected);
        world.assert_gone();
        assert_eq!(world.told(), Vec::<String>::new(), "both ended by themselves");
    }
}

/// Goal: a dial that fails is told first, then the end of the partner that never was up. The client's
/// connection ends. Method: a server that is down, and one that does not answer.
#[test]
fn a_dial_that_fails_ends_its_partner() {
    for (down, lazy) in [(true, false), (true, true), (false, false), (false, true)] {
        let world = proxy(3, Kind::Echo, lazy, GREETING);
        if down {
            world.sim.crash(world.server);
        } else {
            world.sim.link(world.proxy, world.server).black_hole();
        }
        world.sim.run_for(secs(4));
        assert_eq!(world.told(), ["dial failed", "None"]);
        assert!(world.at_client.last().end.is_some());
        assert_eq!((world.stats(world.proxy).open, world.sim.streams(world.proxy)), (0, 0));
    }
}

/// Goal: a client that leaves while its partner is being dialled leaves nothing behind: the connection
/// that comes up ends at once, after what was forwarded.
#[test]
fn a_client_that_leaves_during_the_dial_leaves_nothing() {
    let world = proxy(4, Kind::Echo, true, GREETING);
    world.sim.link(world.proxy, world.server).latency(ms(500));
    world.sim.run_for(ms(100));
    world.sim.crash(world.client);
    world.sim.run_for(secs(5));
    assert_eq!((world.stats(world.proxy).open, world.sim.streams(world.proxy)), (0, 0));
    assert_eq!(world.sim.streams(world.server), 0);
    assert!(GREETING.starts_with(&slices(&world.at_server.last().packets)));
}

/// Goal: whichever of the three nodes dies, at whatever moment, the connections of the others end, and
/// what has arrived is a prefix of what was sent. Method: a death in each millisecond.
#[test]
fn any_node_may_die_at_any_time() {
    for at in 0..100 {
        for dies in 0..3 {
            let world = proxy(at, Kind::Echo, at % 2 == 0, GREETING);
            world.sim.link(world.client, world.proxy).latency(ms(10)).buffer(5);
            world.sim.link(world.proxy, world.server).latency(ms(10)).buffer(5);
            world.sim.run_for(ms(at));
            let nodes = [world.server, world.proxy, world.client];
            world.sim.crash(nodes[dies]);
            world.sim.run_for(secs(40));
            for node in nodes.into_iter().filter(|node| *node != nodes[dies]) {
                let left = world.sim.streams(node);
                assert_eq!(left, 0, "{at} ms, node {dies} died, {:?}", world.told());
            }
            for lives in [&world.at_server, &world.at_client] {
                assert!(GREETING.starts_with(&slices(&lives.last().packets)));
            }
        }
    }
}

/// Goal: a proxy that drains loses no connection half: both ends of each pair end, none is forced.
#[test]
fn a_proxy_drains_with_packets_under_way() {
    for at in 0..100 {
        let world = proxy(at, Kind::Echo, at % 2 == 0, GREETING);
        world.sim.link(world.client, world.proxy).latency(ms(10)).buffer(5);
        world.sim.link(world.proxy, world.server).latency(ms(10)).buffer(5);
        world.sim.run_for(ms(at));
        let drain = world.sim.with(world.proxy, |reactor| reactor.handle().shutdown()).unwrap();
        assert!(world.sim.run_until(|_| drain.report().is_some()));
        assert_eq!(drain.report().map(|report| report.forced), Some(0), "{at} ms");
        world.sim.run_for(secs(40));
        assert_eq!(world.sim.streams(world.client) + world.sim.streams(world.server), 0);
        for lives in [&world.at_server, &world.at_client] {
            assert!(GREETING.starts_with(&slices(&lives.last().packets)));
        }
    }
}

fn slices(packets: &[Vec<u8>]) -> Vec<&[u8]> {
    packets.iter().map(Vec::as_slice).collect()
}

/// Goal: what is kept for a connection that is being dialled is bounded by its `max_queued`. Beyond
/// that the pair ends, and so does the dialled connection once it is up.
#[test]
fn what_waits_for_a_dial_is_bounded() {
    struct Flood(Option<ConnectorHandle<()>>, Rc<std::cell::Cell<Option<CloseReason>>>);
    impl Handler for Flood {
        type Message = ();
        fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
            if let Some(connector) = &self.0 {
                let upstream = ctx.dial(connector, "server:80").expect("there is room");
                ctx.pair(&upstream).expect("it is new");
                for _ in 0..30 {
                    ctx.forward([7; 1_000]).expect("it has a partner");
                }
            }
            Action::Continue
        }
        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            Action::Continue
        }
        fn terminate(self, reason: CloseReason) {
            if self.0.is_some() {
                self.1.set(Some(reason));
            }
        }
    }
    for (max, reason) in [(33_000, None), (30_000, Some(CloseReason::PartnerEnded))] {
        let (sim, end, at_server) = (Sim::new(1), Rc::default(), Lives::default());
        let lives = at_server.clone();
        let server = sim.node("server", move |reactor| {
            let lives = lives.clone();
            reactor
                .start_listener("sink", listens(80).framing(Raw), move |_| lives.side(&[], false))
        });
        let own = Rc::clone(&end);
        let proxy = sim.node("proxy", move |reactor| {
            let (up, down) = (Rc::clone(&own), Rc::clone(&own));
            let options = ConnectorOptions::on_demand().framing(Raw).write_high_water(20_000);
            let options = options.write_low_water(1_000).max_queued(max);
            let connector =
                reactor.start_connector("up", options, move |_| Flood(None, Rc::clone(&up)))?;
            reactor.start_listener("down", listens(81).framing(Raw), move |_| {
                Flood(Some(connector.clone()), Rc::clone(&down))
            })
        });
        let _client = sim.node("client", |reactor| {
            let options = ConnectorOptions::to("proxy:81").retry(Retry::Never);
            reactor.start_connector("ask", options, |_| Lives::default().side(&[], false))
        });
        sim.link(proxy, server).latency(ms(100));
        sim.run_for(secs(2));
        assert_eq!(end.get(), reason);
        let arrived: usize = at_server.last().packets.iter().map(Vec::len).sum();
        assert_eq!(arrived, if reason.is_none() { 30_000 } else { 0 });
        let open = sim.with(proxy, |reactor| reactor.handle().stats().open);
        assert_eq!(open, if reason.is_none() { 2 } else { 0 });
    }
}
