//! PROXY headers between nodes: proxies that dial for their clients, and connectors that speak for
//! themselves.

use std::net::IpAddr;

use condor::sim::{Node, Sim};
use condor::{
    Action, ConnectorHandle, ConnectorOptions, Context, Handler, ListenerOptions, Proxy,
    ProxyVersion,
};

use super::{Lives, dials, listens, ms, secs};

/// Answers each packet with what it knows of the peer.
struct Tells;

impl Handler for Tells {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        let ip = |end: Option<condor::Endpoint>| end.and_then(|end| end.ip());
        let header = ctx.proxy().expect("each connection has a header");
        let (to, version) = (ip(header.destination()), header.version());
        let ends = (ip(Some(ctx.peer_addr())), to, ip(ctx.via_addr()));
        let packet = String::from_utf8_lossy(packet);
        Action::send(format!("{ends:?} v{version} {} {packet}", header.is_local()))
    }
}

/// What [`Tells`] answers.
fn told(
    (from, to, via): (IpAddr, Option<IpAddr>, IpAddr),
    version: u8,
    is_local: bool,
    packet: &str,
) -> String {
    let ends = (Some(from), to, Some(via));
    format!("{ends:?} v{version} {is_local} {packet}")
}

/// One end of a proxy's pair. The accepted one dials the other.
struct End(Option<(ConnectorHandle<()>, &'static str)>);

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

fn server(sim: &Sim) -> Node {
    sim.node("server", |reactor| {
        reactor.start_listener("tells", listens(80).proxy(Proxy::required()), |_| Tells)
    })
}

/// A node that dials `to` for each of its clients, and tells who they are.
fn proxy(
    sim: &Sim,
    name: &str,
    listens: ListenerOptions,
    to: &'static str,
    version: ProxyVersion,
) -> Node {
    sim.node(name, move |reactor| {
        let options = ConnectorOptions::on_demand().send_proxy(version);
        let connector = reactor.start_connector("up", options, |_| End(None))?;
        reactor.start_listener("down", listens.clone(), move |_| End(Some((connector.clone(), to))))
    })
}

/// A node that greets `to` with two packets, and keeps the answers.
fn client(sim: &Sim, options: ConnectorOptions) -> (Node, Lives) {
    let lives = Lives::default();
    let kept = lives.clone();
    let node = sim.node("client", move |reactor| {
        let (lives, options) = (lives.clone(), options.clone());
        reactor.start_connector("link", options, move |_| lives.side(&[b"one", b"two"], false))
    });
    (node, kept)
}

fn answers(lives: &Lives) -> Vec<String> {
    let packets = lives.last().packets.into_iter();
    packets.map(|packet| String::from_utf8(packet).unwrap()).collect()
}

/// Goal: a connection that a handler dials tells the server the peer of that handler, and where it has
/// connected to, before the first byte that is forwarded. A second proxy passes on what the first one
/// has told. Method: one proxy and two, both versions, over links that pass three bytes at a time.
#[test]
fn proxies_tell_who_their_client_is() {
    for (version, number) in [(ProxyVersion::V1, 1), (ProxyVersion::V2, 2)] {
        for two in [false, true] {
            let sim = Sim::new(7);
            let server = server(&sim);
            let to_server = if two { "second:82" } else { "server:80" };
            let first = proxy(&sim, "first", listens(81), to_server, version);
            let second = listens(82).proxy(Proxy::required().from([first.ip().into()]));
            let second = proxy(&sim, "second", second, "server:80", version);
            let (client, lives) = client(&sim, ConnectorOptions::to("first:81"));
            for (from, to) in [(client, first), (first, second), (first, server), (second, server)]
            {
                sim.link(from, to).latency(ms(10)).buffer(3);
            }
            sim.run_for(secs(20));
            let via = if two { second } else { first };
            let ends = (client.ip(), Some(first.ip()), via.ip());
            let expected = ["one", "two"].map(|packet| told(ends, number, false, packet));
            assert_eq!(answers(&lives), expected, "{version:?}, two proxies: {two}");
        }
    }
}

/// Goal: a connection that is kept up speaks for no client. The server sees the connector itself.
#[test]
fn a_connection_that_is_kept_up_stands_for_no_client() {
    for (version, number) in [(ProxyVersion::V1, 1), (ProxyVersion::V2, 2)] {
        let sim = Sim::new(7);
        let server = server(&sim);
        let (client, lives) = client(&sim, dials().send_proxy(version));
        sim.link(client, server).latency(ms(10)).buffer(3);
        sim.run_for(secs(5));
        let ends = (client.ip(), None, client.ip());
        let expected = ["one", "two"].map(|packet| told(ends, number, number == 2, packet));
        assert_eq!(answers(&lives), expected, "{version:?}");
    }
}

/// Goal: a link that passes nothing on, once it is up, is closed by the server at its
/// `opening_timeout`, and its end is no error of the server. Method: a black hole between the
/// connection and the header.
#[test]
fn a_header_that_is_lost_ends_in_time() {
    let sim = Sim::new(7);
    let server = server(&sim);
    let (client, lives) = client(&sim, dials().send_proxy(ProxyVersion::V2));
    sim.link(client, server).cut_after(0, condor::sim::Cut::Silence);
    sim.run_for(secs(4));
    let stats = |sim: &Sim| sim.with(server, |reactor| reactor.handle().stats());
    assert_eq!((lives.count(), stats(&sim).opening, stats(&sim).made), (1, 1, 0));
    sim.run_for(secs(2));
    let after = stats(&sim);
    assert_eq!((after.opening, after.opening_timeouts, after.opening_failed), (0, 1, 1));
}
