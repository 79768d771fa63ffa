//! What clients get by way of links.

use condor::CloseReason;

use crate::tests::{World, ms, numbered};

const LATE: &str = "ERR no answer in time";
const LEFT: &str = "ERR the backend has left";
const NONE: &str = "ERR no backend is connected";

/// Goal: each client gets the answers to its own requests, in their order, and all links are used.
/// Method: three clients with 20 requests at once, over links of different latency.
#[test]
fn answers_come_in_order_to_their_clients() {
    for arguments in ["", "--links 1", "--links 4 --len 1", "--links 3 --len 4"] {
        let world = World::new(2, arguments);
        world.sim.link(world.gateway, world.backends[0]).latency(ms(7));
        world.sim.link(world.gateway, world.backends[1]).latency(ms(3));
        let clients = ["one", "two", "three"].map(|name| (name, world.client(name)));
        for round in 0..3 {
            for (name, client) in &clients {
                client.send_all(&numbered(name, 20));
            }
            world.run(100);
            for (name, client) in &clients {
                assert_eq!(client.answers(), numbered(name, 20), "{arguments} {round}");
            }
        }
        let seen = world.seen();
        assert_eq!(seen.len(), 180);
        let at = |name: &str| seen.iter().filter(|(backend, _)| backend == name).count();
        let shares = [at("backend0"), at("backend1")];
        assert!(arguments == "--links 1" || shares.iter().all(|share| *share >= 60), "{shares:?}");
    }
}

/// Goal: a request is answered by its deadline, its late answer goes to no client, and later requests
/// get their own answers. Method: one slow answer, and clients at the same link.
#[test]
fn a_request_has_its_deadline() {
    let world = World::new(1, "--links 1");
    let [one, two] = ["one", "two"].map(|name| world.client(name));
    one.send("slow 1500");
    world.run(400);
    two.send("a");
    world.run(599);
    assert_eq!((one.answers().len(), two.answers().len()), (0, 0));
    world.run(1);
    assert_eq!((one.answers(), two.answers().len()), (vec![LATE.to_owned()], 0));
    world.run(399);
    one.send("b");
    assert_eq!((one.answers().len(), two.answers().len()), (0, 0));
    world.run(1);
    assert_eq!((one.answers().len(), two.answers()), (0, vec![LATE.to_owned()]));
    two.send("c");
    world.run(100);
    assert_eq!((one.answers(), two.answers()), (vec!["b".to_owned()], vec!["c".to_owned()]));
    assert_eq!(world.dials(), 1, "the link has stayed");
}

/// Goal: a link whose backend answers nothing for as long again as a request may take is ended, also
/// under load, and a new one takes its place. Method: a backend that skips an answer, and one that
/// hangs while a request comes every 100 ms.
#[test]
fn a_link_without_answers_is_dialled_again() {
    let world = World::new(1, "--links 1");
    let [one, two] = ["one", "two"].map(|name| world.client(name));
    one.send("skip");
    world.run(1_000);
    assert_eq!(one.answers(), [LATE]);
    world.run(999);
    assert_eq!(world.dials(), 1);
    world.run(100);
    assert_eq!(world.dials(), 2);
    one.send("a");
    two.send("b");
    assert_eq!((one.answers(), two.answers()), (vec!["a".to_owned()], vec!["b".to_owned()]));

    one.send("hang");
    for _ in 0..25 {
        two.send("c");
        world.run(100);
    }
    assert_eq!(world.dials(), 3);
    two.send("d");
    let answers = two.answers();
    assert_eq!((answers.len(), answers[25].as_str()), (26, "d"));
    assert!(answers[..25].iter().all(|answer| answer == "c" || answer.starts_with("ERR ")));
    assert_eq!(one.answers(), [LATE]);
}

/// Goal: without a link an error comes at once, and answers come again by themselves when a backend is
/// back. Method: a crash and a restart.
#[test]
fn without_a_backend_errors_come_at_once_and_it_comes_back() {
    let world = World::new(2, "");
    let client = world.client("client");
    for backend in &world.backends {
        client.send("a");
        assert_eq!(client.answers(), ["a"], "the other one goes on");
        world.sim.crash(*backend);
        world.run(0);
    }
    client.send_all(&numbered("b", 3));
    assert_eq!(client.answers(), [NONE; 3]);
    client.send("c");
    client.end_output();
    assert_eq!(
        (client.answers(), client.end()),
        (vec![NONE.to_owned()], Some(CloseReason::PeerClosed))
    );
    world.run(30_000);
    world.sim.restart(world.backends[1]);
    world.run(1_000);
    let client = world.client("another");
    client.send_all(&numbered("d", 100));
    assert_eq!(client.answers(), numbered("d", 100));
}

/// Goal: with fewer links than backends, a link goes to the next backend that answers. Method: one
/// link, and three backends that crash in turn.
#[test]
fn a_link_goes_to_another_backend() {
    let world = World::new(3, "--links 1");
    let client = world.client("client");
    for (nth, backend) in world.backends.iter().enumerate() {
        client.send("a");
        assert_eq!(client.answers(), ["a"]);
        assert_eq!(world.seen(), [(format!("backend{nth}"), "a".to_owned())]);
        world.sim.crash(*backend);
        world.run(1_000);
    }
    client.send("a");
    assert_eq!(client.answers(), [NONE]);
}

/// Goal: when a link ends, each request that it owes an answer gets one error, the others go on, and no
/// request is sent twice. Method: a backend that ends the connection, and one that crashes.
#[test]
fn a_link_that_ends_answers_what_it_owes_once() {
    let world = World::new(2, "");
    let [one, two, three] = ["one", "two", "three"].map(|name| world.client(name));
    for crashes in [false, true] {
        // `one` and `three` are at one link, and `two` is at the other one.
        one.send("slow 100");
        two.send("slow 200");
        three.send(if crashes { "hang" } else { "die" });
        one.send_all(&numbered("one", 3));
        if crashes {
            let seen = world.seen();
            let at = seen.iter().find(|(_, packet)| packet == "slow 100").unwrap();
            world.sim.crash(world.backends[usize::from(at.0 == "backend1")]);
        }
        world.run(1_000);
        let expected: &[&str] = if crashes { &[LEFT; 4] } else { &["slow 100", LEFT, LEFT, LEFT] };
        assert_eq!(one.answers(), expected);
        assert_eq!(two.answers(), ["slow 200"]);
        assert_eq!(three.answers(), [LEFT]);
        let twice = numbered("one", 3);
        let seen = world.seen();
        assert!(
            twice.iter().all(|own| seen.iter().filter(|(_, packet)| packet == own).count() < 2)
        );
        for client in [&one, &two, &three] {
            client.send("again");
            assert_eq!(client.answers(), ["again"]);
        }
    }
}

/// Goal: a link that is about to end takes no requests of other clients, and answers with errors what
/// it has not sent. Method: a backend that hangs, and does not take all that the link has to send.
#[test]
fn a_link_that_is_about_to_end_takes_nothing_new() {
    let world = World::new(1, "--links 1");
    world.sim.link(world.gateway, world.backends[0]).buffer(50);
    let [one, two, three] = ["one", "two", "three"].map(|name| world.client(name));
    one.send("hang");
    one.send(&"x".repeat(200));
    world.run(1_999);
    two.send("a");
    assert_eq!((one.answers(), two.answers().len()), (vec![LATE.to_owned(); 2], 0));
    world.run(1);
    two.send("b");
    three.send("c");
    assert_eq!((two.answers().len(), three.answers()), (0, vec![NONE.to_owned()]));
    world.run(1);
    assert_eq!(two.answers(), [LEFT; 2]);
}

/// Goal: a backend that answers a request twice loses its link, and no client gets the second answer.
#[test]
fn an_answer_without_a_request_ends_the_link() {
    let world = World::new(1, "--links 1");
    let [one, two] = ["one", "two"].map(|name| world.client(name));
    one.send("twice");
    world.run(100);
    assert_eq!(world.dials(), 2);
    two.send("a");
    assert_eq!((one.answers(), two.answers()), (vec!["twice".to_owned()], vec!["a".to_owned()]));
}

/// Goal: a client that has shut down its sending side gets all its answers, and then its connection
/// ends. Method: 20 requests and the end at once; the backend is slow, or answers some of them late.
#[test]
fn after_half_a_close_all_answers_come() {
    for slow in ["slow 5", "slow 600", "slow 1200"] {
        let world = World::new(2, "--timeout 1000");
        world.sim.link(world.gateway, world.backends[0]).latency(ms(10));
        let client = world.client("client");
        let mut requests = numbered("a", 20);
        requests[10] = slow.to_owned();
        client.send_all(&requests);
        client.end_output();
        assert_eq!(client.end(), None);
        world.run(2_000);
        if slow == "slow 1200" {
            requests[10..].fill(LATE.to_owned());
        }
        assert_eq!((client.answers(), client.end()), (requests, Some(CloseReason::PeerClosed)));
    }
}

/// Goal: the answers to a client that has gone reach no other one, not even one in its slot. Method: it
/// crashes with requests under way, and another client comes.
#[test]
fn a_client_that_vanishes_leaves_the_order_of_the_others() {
    let world = World::new(1, "--links 1");
    let [gone, other] = ["gone", "other"].map(|name| world.client(name));
    gone.send("slow 50");
    gone.send_all(&numbered("gone", 20));
    other.send_all(&numbered("other", 3));
    world.sim.crash(gone.node);
    let next = world.client("next");
    next.send_all(&numbered("next", 3));
    world.run(100);
    assert_eq!((gone.answers().len(), other.answers()), (0, numbered("other", 3)));
    assert_eq!(next.answers(), numbered("next", 3));
    assert_eq!(world.sim.streams(world.gateway), 3, "two clients and a link");
}

/// Goal: a drain answers what is under way, and what has arrived, and then ends the links. Method: a
/// drain beside a slow answer; an idle client, and one that goes on to send.
#[test]
fn a_drain_answers_what_is_under_way() {
    let world = World::new(2, "");
    let [one, two, idle] = ["one", "two", "idle"].map(|name| world.client(name));
    one.send("slow 500");
    one.send_all(&numbered("one", 100));
    two.send("slow 900");
    let drain = world.sim.with(world.gateway, |reactor| reactor.handle().shutdown()).unwrap();
    world.run(0);
    assert_eq!((idle.end(), one.end()), (Some(CloseReason::PeerClosed), None));
    world.run(499);
    assert_eq!(one.answers().len(), 0);
    world.run(1);
    let answers = one.answers();
    assert_eq!(answers[0], "slow 500");
    assert_eq!(answers[1..], numbered("one", 100)[..answers.len() - 1]);
    assert!(answers.len() >= 64 && drain.report().is_none());
    world.run(401);
    assert_eq!(
        (two.answers(), two.end()),
        (vec!["slow 900".to_owned()], Some(CloseReason::PeerClosed))
    );
    assert_eq!(drain.report().map(|report| report.forced), Some(0));
    assert_eq!(world.sim.streams(world.gateway), 0);
}

/// Goal: a client has at most 64 requests under way, and gets all answers; if it does not read them, it
/// is not read. Method: a thousand requests at once to a slow backend, then to one that answers at
/// length.
#[test]
fn requests_and_answers_of_a_client_are_bounded() {
    let world = World::new(1, "");
    let client = world.client("client");
    client.send("slow 500");
    client.send_all(&numbered("a", 1_000));
    world.seen();
    let taken = world.sim.with(world.gateway, |reactor| reactor.handle().stats().packets_in);
    assert_eq!(taken, 64);
    world.run(500);
    assert_eq!(client.answers()[1..], numbered("a", 1_000));
    client.pause();
    client.send_all(&numbered("large", 200));
    world.run(10_000);
    world.seen();
    client.send("last");
    world.run(10_000);
    assert_eq!(world.seen().len(), 0);
    assert_eq!(client.end(), None);
    client.resume();
    assert_eq!(client.answers().len(), 201);
}

/// Goal: at a link with many requests under way each client has one, so a backend that takes nothing
/// makes the clients wait. Method: more requests than that, behind a slow one, over a small buffer.
#[test]
fn requests_that_a_backend_does_not_take_are_bounded() {
    let world = World::new(1, "--links 1 --timeout 20000");
    world.sim.link(world.gateway, world.backends[0]).buffer(1_000);
    let clients: Vec<_> = (0..40).map(|nth| world.client(&format!("client {nth}"))).collect();
    clients[0].send("slow 10000");
    clients.iter().for_each(|client| client.send_all(&numbered("a", 50)));
    let taken = || world.sim.with(world.gateway, |reactor| reactor.handle().stats().packets_in);
    assert!((1_024..=1_024 + 41).contains(&taken()), "{} of 2,001", taken());
    world.run(9_999);
    assert!((1_024..=1_024 + 41).contains(&taken()), "{} of 2,001", taken());
    world.run(100);
    clients[0].answers().remove(0);
    for client in &clients[1..] {
        assert_eq!(client.answers(), numbered("a", 50));
    }
}
