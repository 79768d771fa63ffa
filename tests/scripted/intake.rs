//! Handles that change how many clients a listener takes, without sockets.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use condor::testing::Harness;
use condor::{Error, OptionsError};

use crate::both::echo;
use crate::rig::{conclude, handle, loop_stats, options};
use crate::support::{Actor, Seen, ms, secs};

const NAME: &str = "testing";

fn accepted<const N: usize>(harnesses: [&Harness<Actor>; N]) -> [bool; N] {
    harnesses.map(Harness::is_accepted)
}

/// Goal: a higher limit lets the clients in that wait, at once. A limit below the number of open
/// connections ends none, and lets nobody in until there is room. Method: 1, 2, 1, with clients that
/// wait.
#[test]
fn the_limit_can_be_raised_and_lowered() {
    let (first, _) = echo(options().max_connections(1));
    let handle = handle(&first);
    let [second, third] = [(); 2].map(|()| first.connect());
    assert_eq!(accepted([&second, &third]), [false, false]);
    handle.set_max_connections(NAME, 2).unwrap();
    first.run();
    assert_eq!(accepted([&second, &third]), [true, false]);

    handle.set_max_connections(NAME, 1).unwrap();
    first.run();
    for harness in [&first, &second] {
        harness.packet("still served");
        assert_eq!(harness.packets(), [b"still served"]);
    }
    second.peer_closes();
    second.advance(secs(10));
    assert_eq!((first.stats().open, third.is_accepted()), (1, false), "it is full still");
    first.peer_closes();
    first.advance(secs(10));
    assert!(third.is_accepted());
    conclude(&third);
}

/// Goal: a limit that cannot be is refused, with the value and the limit, and changes nothing; so is
/// a name that no listener has. Method: the values at both ends, and one beyond each.
#[test]
fn a_limit_that_cannot_be_is_refused() {
    const MOST: usize = 4_194_303;
    let (first, _) = echo(options().max_connections(1));
    let handle = handle(&first);
    let expected = OptionsError::TooManyConnections { asked: MOST + 1, max: MOST };
    for (asked, expected) in [(0, OptionsError::Zero("max_connections")), (MOST + 1, expected)] {
        let error = handle.set_max_connections(NAME, asked).unwrap_err();
        let Error::Options { name, errors } = error else { panic!("{error:?}") };
        assert_eq!((name.as_str(), errors), (NAME, vec![expected]));
    }
    let error = handle.set_max_connections("another", 2).unwrap_err();
    assert!(matches!(error, Error::UnknownName(name) if name == "another"));
    let second = first.connect();
    assert!(!second.is_accepted());
    handle.set_max_connections(NAME, MOST).unwrap();
    handle.set_max_connections(NAME, 1).unwrap();
    first.run();
    assert!(!second.is_accepted(), "the last call counts");
    handle.set_max_connections(NAME, MOST).unwrap();
    first.run();
    assert!(second.is_accepted());
}

/// Goal: in a pause clients wait, connections are served, and the reactor is at rest. Several pauses
/// are one. Method: clients before, in and after a pause; turns are counted.
#[test]
fn clients_wait_in_a_pause_and_the_reactor_rests() {
    let (first, _) = echo(options());
    let handle = handle(&first);
    handle.resume_accepting(NAME).unwrap();
    handle.pause_accepting(NAME).unwrap();
    handle.pause_accepting(NAME).unwrap();
    first.run();
    let waiting = [(); 3].map(|()| first.connect());
    first.packet("served");
    assert_eq!(first.packets(), [b"served"]);
    let turns = loop_stats(&first).turn_nanos.count();
    first.advance(secs(3_600));
    let cost = loop_stats(&first).turn_nanos.count() - turns;
    assert!(cost < 5, "{cost} turns in which nothing is to be done");
    assert!(waiting.iter().all(|harness| !harness.is_accepted()));
    assert!(handle.is_ready());
    assert_eq!(first.stats().connection_limit_hits, 0);

    handle.resume_accepting(NAME).unwrap();
    first.run();
    assert!(waiting.iter().all(Harness::is_accepted));
    assert!(first.connect().is_accepted());
}

/// Goal: the pause that a handle asks for and the pause after a lack of memory do not end each other.
/// Method: each of them ends while the other one lasts.
#[test]
fn the_two_pauses_do_not_end_each_other() {
    // A lack of memory is over, and the handle's pause lasts, also when a connection ends.
    let (first, _) = echo(options());
    let (handle, other) = (handle(&first), first.connect());
    first.fail_next_accept(ErrorKind::OutOfMemory);
    let next = first.connect();
    handle.pause_accepting(NAME).unwrap();
    first.advance(secs(1));
    assert!(!next.is_accepted());
    other.peer_closes();
    first.advance(secs(10));
    assert!(!next.is_accepted());
    handle.resume_accepting(NAME).unwrap();
    first.run();
    assert!(next.is_accepted());
    next.peer_closes();

    // The handle's pause is over, and the lack of memory lasts.
    first.fail_next_accept(ErrorKind::OutOfMemory);
    let next = first.connect();
    handle.pause_accepting(NAME).unwrap();
    first.advance(ms(50));
    handle.resume_accepting(NAME).unwrap();
    first.advance(ms(49));
    assert!(!next.is_accepted());
    first.advance(ms(1));
    assert!(next.is_accepted());
    assert_eq!(first.stats().accept_pauses, 2);
}

/// Goal: a drain ends the pause: the clients that have connected are served. Method: a stop and a
/// shutdown with clients that wait.
#[test]
fn a_drain_ends_the_pause() {
    for shuts_down in [false, true] {
        let (first, trace) = echo(options());
        let handle = handle(&first);
        handle.pause_accepting(NAME).unwrap();
        let waiting = [(); 2].map(|()| first.connect());
        waiting.iter().for_each(|harness| harness.arrive(b"\x00\x02hi"));
        trace.read();
        let drain = if shuts_down { handle.shutdown() } else { handle.stop_listener(NAME) };
        first.run();
        for harness in &waiting {
            assert!(harness.is_accepted());
            assert_eq!(harness.packets(), [b"hi"]);
        }
        assert_eq!(trace.read().iter().filter(|seen| **seen == Seen::Shutdown).count(), 3);
        for harness in waiting.iter().chain([&first]) {
            harness.peer_closes();
        }
        first.advance(secs(10));
        assert_eq!(drain.unwrap().report().unwrap().drained, 3);
    }
}

/// Goal: a drain takes no change of its listener any more. Method: each call, after a stop and at its
/// end.
#[test]
fn a_listener_that_drains_is_not_changed() {
    let (first, _) = echo(options());
    let handle = handle(&first);
    let check = || {
        let calls = [
            handle.set_max_connections(NAME, 7),
            handle.pause_accepting(NAME),
            handle.resume_accepting(NAME),
        ];
        for call in calls {
            assert!(matches!(call, Err(Error::UnknownName(name)) if name == NAME));
        }
    };
    drop(handle.stop_listener(NAME).unwrap());
    check();
    conclude(&first);
    check();
}

/// Goal: the harness has no descriptors, so it adopts none. The descriptor comes back. Method: the
/// harness's own listener, and one that a handle has started.
#[test]
fn the_harness_adopts_no_descriptor() {
    let (first, _) = echo(options());
    let handle = handle(&first);
    handle.start_listener("other", options(), |_| Actor::new()).unwrap();
    first.run();
    for name in [NAME, "other"] {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let number = ours.as_raw_fd();
        let refused = handle.adopt(name, ours.into()).unwrap_err();
        assert_eq!(refused.fd.as_raw_fd(), number);
        let expected = "cannot adopt the descriptor: a simulated network has no descriptors";
        assert_eq!(refused.to_string(), format!("listener \"{name}\": {expected}"));
    }
    first.run();
    assert_eq!(first.stats().adopted, 0);
}
