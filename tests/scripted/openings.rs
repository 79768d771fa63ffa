//! Connections that are opening: their PROXY header has not arrived.

use std::time::Duration;

use condor::testing::Harness;
use condor::{Action, Context, Endpoint, Handler, IpNetwork, ListenerOptions, Proxy, Stats};

use crate::rig::options;
use crate::support::{ms, secs};

/// The header of a client at 203.0.113.9:4711 that has connected to 198.51.100.1:443.
const HEADER: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n";
const CLIENT: &str = "203.0.113.9:4711";
const PROXY: &str = "10.0.0.7:5000";
const OTHER: &str = "192.0.2.8:5000";

/// Answers each packet with the two addresses and the packet.
struct Who;

impl Handler for Who {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        let via = ctx.via_addr().map_or_else(|| "none".to_owned(), |via| via.to_string());
        let packet = String::from_utf8_lossy(packet);
        Action::send(format!("{} via {via}: {packet}", ctx.peer_addr()))
    }
}

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn required() -> ListenerOptions {
    options().proxy(Proxy::required().from([network("10.0.0.0/8")]))
}

/// A client that has connected from `addr`, as the first one of a listener with these options.
fn first(options: ListenerOptions, addr: &str) -> Harness<Who> {
    // The harness connects one client itself. It comes through no proxy, and goes.
    let harness = Harness::new(options, |_| Who);
    harness.peer_closes();
    harness.advance(secs(60));
    assert!(harness.is_gone());
    harness.connect_from(endpoint(addr))
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

/// What the counters have risen by since the listener was new, apart from the client that
/// [`first`] has made.
fn stats(harness: &Harness<Who>) -> Stats {
    harness.stats()
}

/// Checks that each connection that was accepted is accounted for.
#[track_caller]
fn balance(harness: &Harness<Who>) {
    let seen = stats(harness);
    let came = seen.accepted + seen.adopted;
    let went = seen.made + seen.refused + seen.opening_failed + seen.opening;
    assert_eq!(came, went, "{seen:?}");
}

fn served(harness: &Harness<Who>, name: &str) {
    harness.packet("hello");
    assert_eq!(harness.packets(), [format!("{name}: hello").as_bytes()]);
}

fn is_served(harness: &Harness<Who>) {
    served(harness, &format!("{CLIENT} via {PROXY}"));
}

/// Goal: the handler is made when the header is complete, wherever the network cuts it, and no byte
/// behind the header is lost. Method: the header and two packets, cut at each place; then byte by
/// byte.
#[test]
fn the_network_may_cut_a_header_anywhere() {
    let harness = first(required(), PROXY);
    let packets = [harness.framed("one"), harness.framed("two")].concat();
    let stream = [HEADER, &packets].concat();
    let expected = ["one", "two"].map(|text| format!("{CLIENT} via {PROXY}: {text}").into_bytes());
    for cut in 0..stream.len() {
        let peer = harness.connect_from(endpoint(PROXY));
        peer.receive(&stream[..cut]);
        assert_eq!(peer.is_accepted(), cut >= HEADER.len(), "after {cut} bytes");
        peer.receive(&stream[cut..]);
        assert_eq!(peer.packets(), expected, "cut after {cut} bytes");
        peer.peer_closes();
        assert!(peer.is_gone());
    }
    let peer = harness.connect_from(endpoint(PROXY));
    peer.max_read(1);
    for (at, byte) in stream.iter().enumerate() {
        assert_eq!(peer.is_accepted(), at >= HEADER.len());
        peer.receive([*byte]);
    }
    assert_eq!(peer.packets(), expected);
    balance(&harness);
}

/// Goal: a connection that sends nothing, or a part of a header, is closed at `opening_timeout`, to the
/// millisecond, and bytes do not extend the time. It has its own counter.
#[test]
fn a_header_has_to_be_complete_in_time() {
    for bytes in [0, 1, 20, HEADER.len() - 1] {
        let harness = first(required().opening_timeout(secs(2)), PROXY);
        let before = stats(&harness);
        harness.advance(ms(1_000));
        harness.receive(&HEADER[..bytes]);
        harness.advance(ms(999));
        assert!(!harness.is_gone());
        assert_eq!((stats(&harness).opening, harness.leftovers().deadlines), (1, 1));
        harness.advance(ms(1));
        assert!(harness.is_gone() && !harness.is_accepted());
        let after = stats(&harness);
        assert_eq!(after.opening_timeouts - before.opening_timeouts, 1);
        assert_eq!((after.opening, after.made), (0, 0));
        assert_eq!(harness.leftovers(), Default::default());
        balance(&harness);
    }
}

/// Goal: bytes that have arrived by the deadline are in time, although the reactor was busy.
#[test]
fn a_header_that_has_arrived_is_in_time() {
    let harness = first(required(), PROXY);
    harness.receive(&HEADER[..9]);
    harness.arrive(&HEADER[9..]);
    harness.stall(secs(60));
    is_served(&harness);
    balance(&harness);
}

/// Goal: a connection that ends before a byte, by an end or by a reset, is a health check: it has its
/// own counter and is gone at once. One that ends inside a header is an error.
#[test]
fn a_check_of_a_balancer_is_only_counted() {
    let harness = first(required(), PROXY);
    let before = stats(&harness);
    for (end, bytes) in [
        (Harness::peer_closes as fn(&Harness<Who>), 0),
        (Harness::peer_resets, 0),
        (Harness::peer_closes, 7),
        (Harness::peer_resets, 7),
    ] {
        let peer = harness.connect_from(endpoint(PROXY));
        peer.receive(&HEADER[..bytes]);
        end(&peer);
        assert!(peer.is_gone() && !peer.is_accepted(), "{bytes} bytes");
    }
    let after = stats(&harness);
    let rise = |count: fn(&Stats) -> u64| count(&after) - count(&before);
    assert_eq!((rise(|of| of.health_checks), rise(|of| of.bad_headers)), (2, 2));
    balance(&harness);
}

/// Goal: the first wrong byte ends the connection.
#[test]
fn the_first_wrong_byte_ends_the_connection() {
    let harness = first(required(), PROXY);
    for text in ["G", "PROXY tcp4", "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536", "\r\n\r\n\0\r\nQUIT\r"] {
        let peer = harness.connect_from(endpoint(PROXY));
        let (last, start) = text.as_bytes().split_last().unwrap();
        peer.receive(start);
        let is_first = start.is_empty();
        assert!(!peer.is_gone() || text.starts_with("PROXY tcp4"), "{text:?} {is_first}");
        peer.receive([*last]);
        assert!(peer.is_gone(), "{text:?}");
    }
    assert_eq!(stats(&harness).bad_headers, 4);
    balance(&harness);
}

/// Goal: a connection from elsewhere is closed before a byte is read.
#[test]
fn other_addresses_are_closed_unread() {
    let harness = first(required(), PROXY);
    let before = stats(&harness);
    for header in [HEADER, b""] {
        let peer = harness.connect_from(endpoint(OTHER));
        peer.receive(header);
        assert!(peer.is_gone() && !peer.is_accepted());
    }
    assert_eq!(stats(&harness).untrusted - before.untrusted, 2);
    assert_eq!(stats(&harness).bytes_in, 0);
    is_served(&{
        harness.receive(HEADER);
        harness
    });
}

/// Goal: on a mixed port the proxies must send a header. Others are served as themselves, and a header
/// of theirs is a packet like any other.
#[test]
fn a_mixed_port_serves_both() {
    let mixed = options().proxy(Proxy::mixed([network("10.0.0.0/8")]));
    let harness = first(mixed.max_packet(100), PROXY);
    harness.receive(HEADER);
    is_served(&harness);

    let direct = harness.connect_from(endpoint(OTHER));
    assert!(direct.is_accepted(), "it waits for no header");
    served(&direct, &format!("{OTHER} via none"));
    // "PR" is a length of 20,562.
    direct.receive(HEADER);
    assert!(direct.closed().is_some(), "a header is a packet that is too large");

    let bare = harness.connect_from(endpoint(PROXY));
    bare.packet("hello");
    assert!(bare.is_gone() && !bare.is_accepted());
    assert_eq!((stats(&harness).bad_headers, stats(&harness).untrusted), (1, 0));
    balance(&harness);
}

/// Goal: silent connections keep no client out, be they as many as may be opening. The oldest goes for
/// the newest, and those that are open are served. Method: twice as many as may be opening.
#[test]
fn the_oldest_that_opens_makes_room() {
    const MOST: usize = 8;
    let harness = first(required().max_opening(MOST), PROXY);
    harness.receive(HEADER);
    let silent: Vec<_> = (0..2 * MOST).map(|_| harness.connect_from(endpoint(PROXY))).collect();
    for (nth, peer) in silent.iter().enumerate() {
        assert_eq!(peer.is_gone(), nth < MOST, "number {nth}");
    }
    assert_eq!((stats(&harness).opening, stats(&harness).crowded), (8, 8));
    is_served(&harness);

    // One that is no more opening makes no room, and takes none.
    silent[MOST].receive(HEADER);
    is_served(&silent[MOST]);
    let newest = harness.connect_from(endpoint(PROXY));
    assert_eq!((stats(&harness).opening, stats(&harness).crowded), (8, 8));
    newest.receive(HEADER);
    is_served(&newest);
    balance(&harness);
}

/// Goal: silent connections keep no client out of a small listener, be they as many as it has places.
/// When all places are taken by connections that are open, clients wait.
#[test]
fn silent_connections_do_not_fill_a_listener() {
    let harness = first(required().max_connections(3), PROXY);
    harness.receive(HEADER);
    let [silent, second] = [(); 2].map(|()| harness.connect_from(endpoint(PROXY)));
    let third = harness.connect_from(endpoint(PROXY));
    assert_eq!([silent.is_gone(), second.is_gone(), third.is_gone()], [true, false, false]);
    assert_eq!((stats(&harness).opening, stats(&harness).crowded), (2, 1));
    for peer in [&third, &second] {
        peer.receive(HEADER);
        is_served(peer);
    }
    let waits = harness.connect_from(endpoint(PROXY));
    waits.receive(HEADER);
    assert!(!waits.is_gone() && !waits.is_accepted());
    assert_eq!(stats(&harness).accepted - stats(&harness).opening_failed, 3);
    third.peer_closes();
    is_served(&waits);
    is_served(&harness);
    balance(&harness);
}

/// Goal: a drain serves those whose header has arrived, refuses those that are opening, at once, and
/// reports them apart.
#[test]
fn a_drain_refuses_what_is_opening() {
    let harness = first(required(), PROXY);
    harness.receive(HEADER);
    let half = harness.connect_from(endpoint(PROXY));
    half.receive(&HEADER[..10]);
    let whole = harness.connect_from(endpoint(PROXY));
    whole.receive(&HEADER[..10]);
    whole.arrive(&HEADER[10..]);
    whole.arrive(whole.framed("in time"));
    harness.drain();
    assert!(half.is_gone() && !half.is_accepted());
    assert_eq!(whole.packets(), [format!("{CLIENT} via {PROXY}: in time").as_bytes()]);
    harness.advance(secs(60));
    let report = harness.report().unwrap();
    assert_eq!((report.opening, report.drained, report.forced), (1, 2, 0));
    assert_eq!(stats(&harness).opening_timeouts, 0);
    balance(&harness);
}

/// Goal: a connection that opens late does not change when others have to be open. Method: three that
/// begin a second apart.
#[test]
fn each_connection_has_its_own_time() {
    let harness = first(required(), PROXY);
    let peers: Vec<_> = (0..3)
        .map(|_| {
            harness.advance(secs(1));
            harness.connect_from(endpoint(PROXY))
        })
        .collect();
    peers[0].receive(HEADER);
    let gone = |after: Duration| {
        harness.advance(after);
        [&harness, &peers[1], &peers[2]].map(Harness::is_gone)
    };
    assert_eq!(gone(ms(1_999)), [false, false, false]);
    assert_eq!(gone(ms(1)), [true, false, false]);
    assert_eq!(gone(ms(1_999)), [true, false, false]);
    assert_eq!(gone(ms(1)), [true, true, false]);
    assert_eq!(gone(ms(1_000)), [true, true, true]);
    is_served(&peers[0]);
    assert_eq!(harness.leftovers().deadlines, 0);
}
