//! Connections that are opening: their PROXY header has not arrived.

use std::io::ErrorKind;
use std::time::Duration;

use condor::testing::{Faults, Harness, Leftovers};
use condor::{
    Action, Context, Endpoint, Handler, IpNetwork, ListenerOptions, Proxy, Refusal, Stats,
};

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

/// A network whose only fault is that events come late.
fn late(seed: u64, probability: f64) -> Faults {
    let faults = Faults::new(seed).short(0.0).interrupted(0.0).would_block(0.0).spurious(0.0);
    faults.late(probability)
}

/// Goal: bytes that have arrived by the deadline are in time, although the reactor was busy. Method:
/// from twenty seeds, the event that announces the bytes comes a turn later, or more.
#[test]
fn a_header_that_has_arrived_is_in_time() {
    for seed in 0..20 {
        let harness = first(required(), PROXY);
        harness.receive(&HEADER[..9]);
        harness.faults(late(seed, 0.5));
        harness.arrive(&HEADER[9..]);
        harness.stall(secs(60));
        harness.turn();
        harness.faults(late(seed, 0.0));
        is_served(&harness);
        balance(&harness);
    }
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
        for come_together in [false, true] {
            let peer = harness.connect_from(endpoint(PROXY));
            peer.arrive(&HEADER[..bytes]);
            if !come_together {
                peer.run();
            }
            end(&peer);
            assert!(peer.is_gone() && !peer.is_accepted(), "{bytes} bytes");
        }
    }
    let after = stats(&harness);
    let rise = |count: fn(&Stats) -> u64| count(&after) - count(&before);
    assert_eq!((rise(|of| of.health_checks), rise(|of| of.bad_headers)), (4, 4));
    balance(&harness);
}

/// Goal: the first wrong byte ends the connection.
#[test]
fn the_first_wrong_byte_ends_the_connection() {
    let harness = first(required(), PROXY);
    for text in ["G", "PROXY t", "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536", "\r\n\r\n\0\r\nQUIT\r"] {
        let peer = harness.connect_from(endpoint(PROXY));
        let (last, start) = text.as_bytes().split_last().unwrap();
        peer.receive(start);
        assert!(!peer.is_gone(), "{text:?}");
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
        assert_eq!(stats(&harness).bytes_in, 0);
    }
    assert_eq!(stats(&harness).untrusted - before.untrusted, 2);
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

/// Goal: silent connections keep no client out, also as many as may be opening. The oldest goes for
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

/// Goal: silent connections keep no client out of a small listener, also as many as it has places.
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

/// Goal: an address that may not connect takes no place from a proxy, not even in a full listener.
#[test]
fn strangers_take_no_place() {
    let harness = first(required().max_connections(1), PROXY);
    let stranger = harness.connect_from(endpoint(OTHER));
    assert!(stranger.is_gone() && !harness.is_gone());
    assert_eq!((stats(&harness).untrusted, stats(&harness).crowded), (2, 0));
    harness.receive(HEADER);
    is_served(&harness);
    balance(&harness);
}

/// Goal: when the limit was lowered below what is in use, clients wait, and none that opens is closed
/// for them.
#[test]
fn a_lower_limit_closes_nothing_that_opens() {
    let harness = first(required().max_connections(5), PROXY);
    let others: Vec<_> = (0..3).map(|_| harness.connect_from(endpoint(PROXY))).collect();
    harness.handle().set_max_connections("testing", 2).unwrap();
    let waits = harness.connect_from(endpoint(PROXY));
    assert!(!harness.is_gone() && others.iter().all(|peer| !peer.is_gone()));
    assert_eq!((stats(&harness).crowded, stats(&harness).opening), (0, 4));
    others[0].peer_closes();
    others[1].peer_closes();
    // Now the limit is reached, and no more than that: the oldest makes room.
    assert_eq!((harness.is_gone(), stats(&harness).crowded), (true, 1));
    waits.receive(HEADER);
    is_served(&waits);
    balance(&harness);
}

/// Goal: a connection whose header has arrived is not closed to make room, although its event has not
/// come yet. Method: from twenty seeds, events come late.
#[test]
fn a_header_that_has_arrived_makes_no_room() {
    for seed in 0..20 {
        let harness = first(required().max_opening(2), PROXY);
        let second = harness.connect_from(endpoint(PROXY));
        harness.faults(late(seed, 0.5));
        for peer in [&harness, &second] {
            peer.arrive(HEADER);
        }
        let newcomers: Vec<_> = (0..3).map(|_| harness.connect_from(endpoint(PROXY))).collect();
        harness.faults(late(seed, 0.0));
        harness.run();
        is_served(&harness);
        is_served(&second);
        assert_eq!(newcomers.iter().filter(|peer| peer.is_gone()).count(), 1, "seed {seed}");
        balance(&harness);
    }
}

/// Goal: if descriptors are missing, the oldest connection that opens gives its own to the newcomer. If
/// that does not help, accepting pauses, and the end of one that opens ends the pause.
#[test]
fn a_silent_connection_gives_its_descriptor_to_a_newcomer() {
    let harness = first(required(), PROXY);
    let second = harness.connect_from(endpoint(PROXY));
    harness.fail_next_accept(ErrorKind::OutOfMemory);
    let third = harness.connect_from(endpoint(PROXY));
    assert_eq!([harness.is_gone(), second.is_gone(), third.is_gone()], [true, false, false]);
    assert_eq!((stats(&harness).crowded, stats(&harness).accept_pauses), (1, 0));
    third.receive(HEADER);
    is_served(&third);

    let silent = harness.connect_from(endpoint(PROXY));
    for _ in 0..2 {
        harness.fail_next_accept(ErrorKind::OutOfMemory);
    }
    let [fourth, fifth] = [(); 2].map(|()| harness.connect_from(endpoint(PROXY)));
    assert_eq!((stats(&harness).crowded, stats(&harness).accept_pauses), (2, 1));
    assert!(second.is_gone() && !silent.is_gone());
    harness.advance(ms(100));
    for peer in [&fourth, &fifth] {
        peer.receive(HEADER);
        is_served(peer);
    }
    balance(&harness);
}

/// Goal: a pause of accepting does not stop those that are opening.
#[test]
fn what_opens_goes_on_in_a_pause() {
    let harness = first(required(), PROXY);
    harness.handle().pause_accepting("testing").unwrap();
    let waits = harness.connect_from(endpoint(PROXY));
    harness.receive(HEADER);
    is_served(&harness);
    harness.handle().resume_accepting("testing").unwrap();
    waits.receive(HEADER);
    is_served(&waits);
}

/// Goal: a forced drain refuses all that are opening, and leaves nothing.
#[test]
fn a_forced_drain_leaves_nothing_that_opens() {
    let harness = first(required(), PROXY);
    harness.receive(&HEADER[..10]);
    for _ in 0..2 {
        harness.handle().shutdown().unwrap();
    }
    harness.run();
    assert!(harness.is_gone() && !harness.is_accepted());
    assert_eq!(harness.leftovers(), Leftovers::default());
    assert_eq!((stats(&harness).opening, stats(&harness).opening_failed), (0, 2));
}

/// Refuses all clients: from a factory that panics, or with this packet.
fn refusing(panics: bool) -> Harness<Who> {
    Harness::new(required(), move |_| {
        assert!(!panics, "in the factory");
        Err::<Who, _>(Refusal::send("not today"))
    })
}

/// Goal: a factory that refuses or panics behind a header ends that connection, and its place is free.
#[test]
fn a_factory_may_refuse_behind_a_header() {
    for panics in [false, true] {
        let harness = refusing(panics);
        let peer = harness.connect_from(endpoint(PROXY));
        peer.receive(HEADER);
        assert!(peer.is_finished());
        let expected: &[&[u8]] = if panics { &[] } else { &[b"not today"] };
        assert_eq!(peer.packets(), expected);
        peer.peer_closes();
        assert!(peer.is_gone());
        assert_eq!(stats(&harness).refused, u64::from(!panics));
        balance(&harness);
    }
}

/// Goal: under a network whose every call may fail, each connection behind a proxy is served whole or
/// not at all, and nothing is left over. Method: 200 seeds; headers in pieces, then a packet.
#[test]
fn a_faulty_network_opens_or_closes() {
    let (mut served, mut failed) = (0, 0);
    for seed in 0..200 {
        let harness = first(required(), PROXY);
        let faults = Faults::new(seed).short(0.5).interrupted(0.2).would_block(0.3).late(0.3);
        harness.faults(faults.spurious(0.2).reset(0.02).end(0.02));
        let packet = harness.framed("hello");
        let peers: Vec<_> = (0..4).map(|_| harness.connect_from(endpoint(PROXY))).collect();
        let stream = [HEADER, &packet].concat();
        for piece in stream.chunks(1 + usize::try_from(seed).unwrap() % 50) {
            peers.iter().for_each(|peer| peer.receive(piece));
        }
        harness.run();
        let expected = format!("{CLIENT} via {PROXY}: hello").into_bytes();
        for peer in &peers {
            let packets = if peer.is_dead() { Vec::new() } else { peer.packets() };
            let is_whole = packets == [expected.clone()];
            assert!(is_whole || peer.is_dead() || peer.is_gone(), "seed {seed}: {packets:?}");
            served += u32::from(is_whole);
            failed += u32::from(!is_whole);
            peer.peer_resets();
        }
        harness.advance(secs(60));
        assert_eq!(harness.leftovers(), Leftovers::default(), "seed {seed}");
        balance(&harness);
    }
    assert!(served > 200 && failed > 20, "{served} served, {failed} failed");
}
