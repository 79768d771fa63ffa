//! The usual bugs of code that reconnects by hand, each as a test.

use std::collections::HashMap;
use std::time::Duration;

use condor::sim::{Cut, Sim};
use condor::{Backoff, ConnectorOptions, Raw, Retry};

use super::{BACK, Life, Lives, dials, listens, ms, pair, pair_with, secs};

const GREETING: &[&[u8]] = &[b"hello", b"", b"resume at 7"];

/// Goal: a server that is down costs a few attempts and turns, and no busy loop. Method: an hour
/// without it, refused at once; the attempts and the turns.
#[test]
fn a_server_that_is_down_makes_no_busy_loop() {
    let pair = pair(1, dials(), GREETING);
    pair.sim.crash(pair.server);
    pair.sim.run_for(secs(1));
    let mut attempts = pair.sim.attempts(pair.client).len();
    assert!(attempts < 50, "{attempts} attempts in the first second");
    for _ in 0..60 {
        pair.sim.run_for(secs(60));
        let before = std::mem::replace(&mut attempts, pair.sim.attempts(pair.client).len());
        assert!((60..240).contains(&(attempts - before)), "{} in a minute", attempts - before);
    }
    let turns =
        pair.sim.with(pair.client, |reactor| reactor.handle().loop_stats()[0].turn_nanos.count());
    assert!(turns < 4 * attempts as u64 + 1_000, "{turns} turns for {attempts} attempts");
}

/// Goal: an address that never answers does not hang the connector: the dial is over at its timeout,
/// its stream is closed, and the next one comes up. Method: a black hole, then a healed link.
#[test]
fn a_silent_server_does_not_hang_the_connector() {
    let pair = pair(2, dials(), GREETING);
    pair.link().black_hole();
    pair.sim.run_for(ms(2_999));
    assert_eq!(pair.sim.attempts(pair.client).len(), 1);
    pair.sim.run_for(BACK);
    assert!(pair.sim.attempts(pair.client).len() > 1);
    pair.link().heal();
    pair.sim.run_for(BACK);
    assert_eq!((pair.at_client.count(), pair.at_client.open()), (1, 1));
    assert_eq!(pair.at_client.last().packets, GREETING);
}

/// Goal: a connection that is reset before its answer has come is a dial that failed, and is made
/// again. Method: a reset while it is asked for, and one while the answer is under way.
#[test]
fn a_reset_before_the_answer_is_a_dial_that_failed() {
    for at in [5, 15] {
        let pair = pair(at, dials(), GREETING);
        pair.link().latency(ms(10));
        pair.sim.run_for(ms(at));
        pair.link().cut(Cut::Reset);
        pair.sim.run_for(ms(0));
        let stats = pair.stats(pair.client);
        assert_eq!((stats.dial_failures, stats.made, pair.sim.streams(pair.client)), (1, 0, 0));
        pair.sim.run_for(BACK);
        assert_eq!(pair.at_client.last().packets, GREETING);
        assert_eq!(pair.at_server.count(), 1, "the server has seen one connection");
    }
}

/// Goal: no moment of an end makes a reconnect panic, or lets it be the last one. Method: the server
/// dies at each millisecond of a connection's life, and comes back after none to three; over several
/// seeds.
#[test]
fn a_server_may_die_at_any_moment() {
    for at in 0..60 {
        for down in 0..4 {
            let pair = pair(at * 4 + down, dials(), GREETING);
            pair.link().latency(ms(10));
            pair.sim.run_for(ms(at));
            pair.sim.crash(pair.server);
            pair.sim.run_for(ms(down));
            pair.sim.restart(pair.server);
            pair.sim.run_for(BACK);
            assert_eq!(pair.at_client.open(), 1, "the server died after {at} ms");
            assert_eq!(pair.at_client.last().packets, GREETING);
            assert_eq!(pair.stats(pair.client).panics, 0);
        }
    }
}

/// Goal: if two addresses of one service answer at the same moment, one connection comes up and is
/// greeted once; the other is closed before it says a byte, and its late event harms nothing. Method:
/// two silent servers whose links are healed together; over many seeds, so that the answers come in one
/// turn and in two.
#[test]
fn two_answers_at_once_make_one_connection() {
    for seed in 0..40 {
        let (sim, served, dialled) = (Sim::new(seed), Lives::default(), Lives::default());
        let nodes = ["one", "two"].map(|name| {
            let lives = served.clone();
            sim.node(name, move |reactor| {
                let lives = lives.clone();
                reactor.start_listener("echo", listens(80), move |_| lives.side(&[], true))
            })
        });
        let lives = dialled.clone();
        let client = sim.node("client", move |reactor| {
            let (lives, options) = (lives.clone(), ConnectorOptions::to(["one:80", "two:80"]));
            reactor.start_connector("link", options, move |_| lives.side(GREETING, false))
        });
        let links = || nodes.iter().map(|node| sim.link(client, *node));
        links().for_each(|link| _ = link.latency(ms(10)).black_hole());
        sim.run_for(ms(500));
        assert_eq!(sim.streams(client), 2, "both are being tried");
        links().for_each(|link| _ = link.heal());
        sim.run_for(secs(5));
        assert_eq!(
            (dialled.count(), dialled.open(), sim.streams(client)),
            (1, 1, 1),
            "seed {seed}"
        );
        let greeted: Vec<_> = served.all().iter().flat_map(|life| life.packets.clone()).collect();
        assert_eq!(greeted, GREETING, "seed {seed}");
        let stats = sim.with(client, |reactor| reactor.handle().stats());
        assert_eq!((stats.panics, stats.made), (0, 1));
    }
}

/// Goal: dials that fail leave no stream open, however they fail. Method: a thousand dials that are
/// refused, and a hundred that get no answer; what is open in the end, and meanwhile.
#[test]
fn dials_that_fail_leave_nothing_open() {
    let quick = Backoff::new(ms(1), ms(10));
    let options = dials().backoff(quick).connections(10).connect_timeout(ms(100));
    let pair = pair(3, options, GREETING);
    for (is_silent, dials) in [(false, 1_000), (true, 1_100)] {
        match is_silent {
            false => pair.link().refuse(),
            true => pair.link().heal().black_hole(),
        };
        while pair.sim.attempts(pair.client).len() < dials {
            pair.sim.run_for(ms(50));
            assert!(pair.sim.streams(pair.client) <= 10);
        }
    }
    pair.link().heal().refuse();
    pair.sim.run_for(ms(200));
    let moments = (0..100).map(|_| {
        pair.sim.run_for(ms(1));
        pair.sim.streams(pair.client)
    });
    assert_eq!(moments.max(), Some(0), "a refusal over a perfect link takes no time");
    pair.link().heal();
    pair.sim.run_for(ms(200));
    assert_eq!((pair.sim.streams(pair.client), pair.sim.streams(pair.server)), (10, 10));
    assert_eq!(pair.at_client.count(), 10);
}

/// Goal: a stream that breaks inside a packet takes the rest of it along. On each connection the
/// server gets the greeting from its first byte on, and never the rest of an old one; so it sees whole
/// packets, each at most once. Method: a cut at each byte, as a reset and in silence, while most of the
/// greeting waits for room; then a link that is whole. The bytes that came on each connection.
#[test]
fn a_cut_packet_is_never_continued() {
    let mut greeting = Vec::new();
    for packet in GREETING {
        greeting.extend(u16::try_from(packet.len()).unwrap().to_be_bytes());
        greeting.extend_from_slice(packet);
    }
    for bytes in 0..=greeting.len() {
        for how in [Cut::Reset, Cut::Silence] {
            let (raw, links) = (listens(80).framing(Raw), dials().connections(2));
            let pair = pair_with(raw, bytes as u64, links, GREETING);
            pair.link().latency(ms(1)).buffer(5).cut_after(bytes, how);
            assert!(pair.sim.run_until(|_| pair.at_client.count() > 3));
            pair.link().heal();
            let is_greeted = |life: &Life| life.end.is_none() && life.packets == GREETING;
            let greeted = || pair.at_client.all().iter().filter(|life| is_greeted(life)).count();
            assert!(pair.sim.run_until(|_| greeted() == 2), "cut after {bytes} bytes");
            for life in pair.at_server.all() {
                let came = life.packets.concat();
                assert!(greeting.starts_with(&came), "{came:?} after a cut of {bytes} bytes");
            }
        }
    }
}

fn slices(packets: &[Vec<u8>]) -> Vec<&[u8]> {
    packets.iter().map(Vec::as_slice).collect()
}

/// Goal: each connection that comes up goes down once, and the next one comes up only then; the
/// greeting is said once on each. Method: two hundred faults of all kinds at moments that the seed of
/// the round chooses; then a whole link, a look at all lives, and a crash of the client.
#[test]
fn up_and_down_alternate() {
    for seed in 0..20_u64 {
        let pair = pair(seed, dials().connect_timeout(ms(500)), GREETING);
        pair.link().latency(ms(7)).buffer(20);
        let mut dice = seed;
        let mut throw = |below: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % below
        };
        for _ in 0..200 {
            let bytes = usize::try_from(throw(60)).unwrap();
            match throw(8) {
                0 => _ = pair.link().cut(Cut::Reset),
                1 => _ = pair.link().cut(Cut::Silence),
                2 => _ = pair.link().cut_after(bytes, Cut::Reset),
                3 => _ = pair.sim.link(pair.server, pair.client).cut_after(bytes, Cut::Reset),
                4 => _ = pair.link().black_hole(),
                5 => _ = pair.link().refuse(),
                6 => pair.sim.restart(pair.server),
                _ => _ = pair.link().heal(),
            }
            pair.sim.run_for(ms(throw(1_000)));
            assert!(pair.at_client.open() <= 1, "seed {seed}: two connections at once");
            assert!(pair.sim.streams(pair.client) <= 1);
        }
        pair.link().heal();
        let is_up =
            |_: &Sim| pair.at_client.open() == 1 && pair.at_client.last().packets == GREETING;
        assert!(pair.sim.run_until(is_up), "seed {seed}");
        let lives = pair.at_client.all();
        assert!(lives.len() > 10, "seed {seed}: only {} connections", lives.len());
        let (last, before) = lives.split_last().unwrap();
        assert!(before.iter().all(|life| life.end.is_some()), "seed {seed}: an end was not told");
        assert_eq!((last.end, slices(&last.packets)), (None, GREETING.to_vec()), "seed {seed}");
        let stats = pair.stats(pair.client);
        assert_eq!(
            (stats.panics, stats.made, stats.terminated + 1),
            (0, lives.len() as u64, stats.made)
        );
        for life in lives.iter().chain(&pair.at_server.all()) {
            assert!(GREETING.starts_with(&slices(&life.packets)), "seed {seed}: {life:?}");
        }
        pair.sim.crash(pair.client);
        assert_eq!((pair.at_client.open(), pair.at_client.count()), (0, lives.len()));
        pair.sim.run_for(secs(10));
        assert_eq!((pair.at_server.open(), pair.sim.streams(pair.server)), (0, 0));
    }
}

/// Goal: a socket that its kernel has connected to itself is a failure, and the port is free for the
/// server that comes back. Method: a node that dials a port of its own among those that its kernel
/// chooses from, without a listener, until the kernel chooses the same.
#[test]
fn a_connection_to_itself_is_a_failure() {
    let (sim, lives) = (Sim::new(4), Lives::default());
    let dialled = lives.clone();
    let node = sim.node("alone", move |reactor| {
        let options = ConnectorOptions::to("alone:32790").retry(Retry::Times(100));
        let (lives, options) = (dialled.clone(), options.backoff(Backoff::new(ms(1), ms(5))));
        reactor.start_connector("self", options, move |_| lives.side(GREETING, false))
    });
    sim.run_for(secs(1));
    let stats = sim.with(node, |reactor| reactor.handle().stats());
    assert_eq!((stats.dials, stats.dial_failures, stats.made), (100, 100, 0));
    assert_eq!((lives.count(), sim.streams(node)), (0, 0));
    let refused = sim.trace().iter().filter(|line| line.contains("refuses")).count();
    assert_eq!(refused, 99, "one of the attempts was connected");
}

/// Goal: each attempt waits for a time of its own. Links that fail together do not try again together.
/// Method: a hundred links whose server is down; of each round the times of the attempts.
#[test]
fn each_attempt_waits_for_a_time_of_its_own() {
    let pair = pair(5, dials().connections(100), GREETING);
    pair.sim.run_for(ms(1));
    pair.sim.crash(pair.server);
    pair.sim.run_for(secs(8));
    let attempts = pair.sim.attempts(pair.client);
    for round in attempts[100..].chunks(100).take(10) {
        let mut moments: Vec<_> = round.iter().map(|(at, _)| *at).collect();
        moments.dedup();
        assert!(moments.len() > 40, "a hundred attempts at {} moments", moments.len());
    }
}

/// Goal: a thousand links whose server died come back spread, within the longest wait and a dial, and
/// hold no stream more than before. Method: two nodes with 500 links each; the server crashes, and
/// comes back after ten seconds; the attempts of each 10 ms after the first second.
#[test]
fn a_thousand_links_come_back_spread() {
    const LINKS: usize = 500;
    let (longest, timeout) = (secs(30), secs(3));
    let (sim, served) = (Sim::new(6), Lives::default());
    let lives = served.clone();
    let server = sim.node("server", move |reactor| {
        let lives = lives.clone();
        reactor.start_listener("echo", listens(80), move |_| lives.side(&[], true))
    });
    let dialled = Lives::default();
    let clients = ["one", "two"].map(|name| {
        let lives = dialled.clone();
        let client = sim.node(name, move |reactor| {
            let backoff = Backoff::new(ms(100), longest);
            let options = ConnectorOptions::to("server:80").connections(LINKS).backoff(backoff);
            let (lives, options) = (lives.clone(), options.connect_timeout(timeout));
            reactor.start_connector("links", options, move |_| lives.side(GREETING, false))
        });
        sim.link(client, server).latency(ms(1));
        client
    });
    sim.run_for(secs(20));
    let streams = || clients.map(|client| sim.streams(client));
    assert_eq!((streams(), sim.streams(server)), ([LINKS; 2], 2 * LINKS));
    let before = clients.map(|client| sim.attempts(client).len());

    let died = sim.now();
    sim.crash(server);
    for _ in 0..100 {
        sim.run_for(ms(100));
        assert!(streams().iter().all(|streams| *streams <= LINKS));
    }
    sim.restart(server);
    sim.run_for(longest + timeout);
    assert_eq!((streams(), sim.streams(server)), ([LINKS; 2], 2 * LINKS));
    assert_eq!((dialled.open(), served.open()), (2 * LINKS, 2 * LINKS));

    let mut slices = HashMap::new();
    for (client, before) in clients.iter().zip(before) {
        for (at, _) in sim.attempts(*client).drain(..).skip(before) {
            let since: Duration = at - died;
            if since > secs(1) {
                *slices.entry(since.as_millis() / 10).or_insert(0_usize) += 1;
            }
        }
    }
    let most = slices.values().copied().max().unwrap();
    assert!(most <= 2 * LINKS / 20, "{most} attempts in 10 ms");
}
