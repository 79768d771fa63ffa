//! What clients get with a connection of their own.

use condor::CloseReason;

use crate::tests::{World, ms, numbered};

/// Goal: bytes go both ways, in order, and reach no other client. Method: clients that ask at once,
/// over a link with a small buffer.
#[test]
fn bytes_go_both_ways() {
    let world = World::new(1, "--pair");
    world.sim.link(world.gateway, world.backends[0]).latency(ms(7)).buffer(50);
    let clients = ["one", "two"].map(|name| (name, world.client(name)));
    for _ in 0..3 {
        for (name, client) in &clients {
            client.send_all(&numbered(name, 20));
        }
        world.run(2_000);
        for (name, client) in &clients {
            assert_eq!(client.answers(), numbered(name, 20));
        }
    }
    assert_eq!(world.sim.streams(world.gateway), 4);
}

/// Goal: a backend that answers only once it has seen the end of input gets it, after all that was
/// sent, and its answers reach the client before the end. Method: 20 requests and the end at once.
#[test]
fn after_half_a_close_all_answers_come() {
    let world = World::new(1, "--pair");
    world.sim.link(world.gateway, world.backends[0]).latency(ms(10)).buffer(50);
    let client = world.client("client");
    client.send_all(&numbered("later", 20));
    client.end_output();
    world.run(60_000);
    assert_eq!(client.answers(), numbered("later", 20));
    assert_eq!(client.end(), Some(CloseReason::PeerClosed));
    assert_eq!(world.sim.streams(world.gateway), 0);
}

/// Goal: the first backend that answers is taken, and a client for whom none answers is turned away.
/// Method: backends that crash and come back.
#[test]
fn the_first_backend_that_answers_is_taken() {
    let world = World::new(2, "--pair");
    let by = |name: &str| {
        let client = world.client(name);
        client.send(name);
        world.run(1_000);
        let first = world.seen().first().map(|(backend, _)| backend.clone());
        first.ok_or_else(|| client.end())
    };
    assert_eq!(by("a"), Ok("backend0".to_owned()));
    world.sim.crash(world.backends[0]);
    assert_eq!(by("b"), Ok("backend1".to_owned()));
    world.sim.crash(world.backends[1]);
    assert_eq!(by("c"), Err(Some(CloseReason::PeerClosed)));
    world.sim.restart(world.backends[0]);
    assert_eq!(by("d"), Ok("backend0".to_owned()));
}

/// Goal: the end of either end is the end of the other one, after what was sent before. Method: a
/// backend that ends after two answers, and a client that crashes.
#[test]
fn one_end_takes_the_other_with_it() {
    let world = World::new(1, "--pair");
    let [one, two] = ["one", "two"].map(|name| world.client(name));
    one.send_all(&["a", "b", "die"].map(String::from));
    assert_eq!((one.answers().len(), one.end()), (2, Some(CloseReason::PeerClosed)));
    two.send("a");
    assert_eq!(world.sim.streams(world.gateway), 2);
    world.sim.crash(two.node);
    world.run(0);
    assert_eq!(world.sim.streams(world.gateway), 0);
}

/// Goal: a client that does not read stops its backend, and gets everything once it reads. Method: 200
/// answers of 60 kB.
#[test]
fn a_slow_reader_stops_the_sender() {
    let world = World::new(1, "--pair");
    let client = world.client("client");
    client.pause();
    client.send_all(&numbered("large", 200));
    world.run(10_000);
    let answered = world.seen().len();
    assert!((3..10).contains(&answered), "{answered} of 200 requests are answered");
    client.resume();
    assert_eq!((client.answers().len(), client.end()), (200, None));
}

/// Goal: a drain lets requests that are under way be answered. Method: a drain beside a slow answer.
#[test]
fn a_drain_lets_connections_go_on() {
    let world = World::new(1, "--pair");
    let client = world.client("client");
    client.send("slow 500");
    let drain = world.sim.with(world.gateway, |reactor| reactor.handle().shutdown()).unwrap();
    world.run(500);
    assert_eq!(client.answers(), ["slow 500"]);
    client.end_output();
    world.run(0);
    assert_eq!(drain.report().map(|report| report.forced), Some(0));
    assert_eq!(world.sim.streams(world.gateway), 0);
}
