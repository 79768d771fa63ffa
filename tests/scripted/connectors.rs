//! Connectors over a simulated network, with a clock that the test moves.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use condor::testing::{ConnectorHarness, Harness};
use condor::{
    Action, Address, Backoff, Calls, CloseReason, ConnectorOptions, ConnectorState, Context,
    DialError, Handler, InOrder, Info, ProxyVersion, Refusal, Retry,
};

use crate::support::calls::Log;

const A: &str = "192.0.2.1:80";
const B: &str = "192.0.2.2:80";
const C: &str = "[2001:db8::1]:80";

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Says "hello" when it is up, and sends each packet back.
struct Greeter;

impl Handler for Greeter {
    type Message = ();

    fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> {
        Action::send("hello")
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"stop" => Action::stop(CloseReason::Normal),
            packet => Action::send(packet),
        }
    }
}

fn greeter(options: ConnectorOptions) -> ConnectorHarness<Greeter> {
    ConnectorHarness::new(options, |_| Greeter)
}

/// A back-off from 100 ms to 1 s.
fn options(targets: &[&'static str]) -> ConnectorOptions {
    ConnectorOptions::to(targets.to_vec()).backoff(Backoff::new(millis(100), millis(1_000)))
}

/// The times between attempts.
fn waits<H: Handler>(harness: &ConnectorHarness<H>) -> Vec<Duration> {
    let attempts = harness.attempts();
    attempts.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

/// Goal: a connection that a connector opens is like one that a listener accepted: `init`, packets,
/// answers. Method: a server that talks to it; the counters.
#[test]
fn a_connection_that_is_up_is_like_an_accepted_one() {
    let harness = greeter(options(&[A]));
    let server = harness.accept().expect("it has dialled");
    assert_eq!(server.addr().to_string(), A);
    server.packet("one");
    server.packet("two");
    assert_eq!(server.packets(), [&b"hello"[..], b"one", b"two"]);
    let stats = harness.stats();
    assert_eq!((stats.dials, stats.attempts, stats.dial_failures), (1, 1, 0));
    assert_eq!((stats.open, stats.made, stats.accepted), (1, 1, 0));
    assert_eq!(harness.deadlines(), 0, "a connection at rest has no timer");
    assert!(harness.accept().is_none(), "it keeps one connection up");
}

/// Goal: a connection that ends is dialled again, for each way to end, and nothing is sent twice.
/// Method: the server closes, resets, or is told to stop; then it is greeted once more.
#[test]
fn a_connection_that_ends_is_dialled_again() {
    let harness = greeter(options(&[A]));
    for end in 0..3 {
        let server = harness.accept().expect("it has dialled");
        assert_eq!(server.packets(), [b"hello"]);
        match end {
            0 => server.closes(),
            1 => server.resets(),
            _ => {
                server.packet("stop");
                server.closes();
            }
        }
        assert!(server.is_gone());
        harness.advance(millis(1_000));
        assert!(server.sent().is_empty());
    }
    assert_eq!(harness.accept().expect("it has dialled").packets(), [b"hello"]);
    assert_eq!((harness.stats().made, harness.streams()), (4, 1));
}

/// Goal: each wait is at most its bound, the bound doubles up to the maximum, and waits differ. Method:
/// a server that refuses; the times of 200 attempts.
#[test]
fn waits_are_within_their_bounds() {
    let harness = ConnectorHarness::idle(options(&[A]), |_| Greeter);
    harness.refuse(A);
    while harness.attempts().len() < 200 {
        harness.advance(millis(1_000));
    }
    let waits = waits(&harness);
    for (failures, wait) in (1_u32..).zip(&waits) {
        let bound = millis(100 << failures.saturating_sub(1).min(4)).min(millis(1_000));
        // A deadline is set from the next tick.
        assert!(*wait <= bound + millis(2), "{wait:?} after {failures} failures");
    }
    let late = &waits[10..];
    let mean = late.iter().sum::<Duration>() / u32::try_from(late.len()).expect("few");
    assert!((millis(400)..millis(600)).contains(&mean), "half of the maximum, and not {mean:?}");
    assert!(late.iter().any(|wait| *wait < millis(100)), "full jitter begins at zero");
    assert_eq!(harness.streams(), 0, "a stream of an attempt that failed is closed");
    assert_eq!(harness.stats().dial_failures, harness.stats().dials);
}

/// Goal: failures are forgotten only when a connection was up for the stable while. Method: a server
/// that hangs up at once, many times; then one that stays; the bound of the next wait.
#[test]
fn failures_are_forgotten_after_a_stable_while() {
    let backoff = Backoff::new(millis(10), millis(100_000)).stable_after(millis(5_000));
    let harness = greeter(ConnectorOptions::to(A).backoff(backoff));
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        let server = loop {
            match harness.accept() {
                Some(server) => break server,
                None => harness.advance(millis(100)),
            }
        };
        server.closes();
        longest = waits(&harness).into_iter().max().unwrap_or_default();
    }
    assert!(longest > millis(1_000), "hanging up at once does not reset the waits: {longest:?}");
    let server = loop {
        match harness.accept() {
            Some(server) => break server,
            None => harness.advance(millis(100)),
        }
    };
    let before = harness.attempts().len();
    harness.advance(millis(5_000));
    server.closes();
    harness.advance(millis(12));
    assert_eq!(harness.attempts().len(), before + 1, "the first bound is 10 ms again");
}

/// Goal: `Times(3)` dials three times in a row and gives up; a stable connection sets the count back;
/// `Never` dials once. Nothing is left behind. Method: a server that refuses, and one that hangs up.
#[test]
fn a_connector_gives_up_by_its_rule() {
    let harness = ConnectorHarness::idle(options(&[A]).retry(Retry::Times(3)), |_| Greeter);
    harness.refuse(A);
    harness.advance(millis(60_000));
    assert_eq!(harness.attempts().len(), 3);
    assert_eq!((harness.deadlines(), harness.streams()), (0, 0));

    let harness = ConnectorHarness::idle(options(&[A]).retry(Retry::Never), |_| Greeter);
    harness.refuse(A);
    harness.advance(millis(60_000));
    assert_eq!(harness.attempts().len(), 1);

    let harness = greeter(options(&[A]).retry(Retry::Never));
    harness.accept().expect("it has dialled").closes();
    harness.advance(millis(60_000));
    assert_eq!((harness.attempts().len(), harness.stats().terminated), (1, 1));
}

/// Goal: a stable connection sets the count of failures back, for the rule as for `attempt`; one that
/// ends before counts as a failure. Method: two dials are allowed. A connection ends after the stable
/// while, and the next dial is refused; then a server that hangs up at once.
#[test]
fn failures_in_a_row_are_counted_from_a_stable_connection() {
    let attempts = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&attempts);
    let backoff = Backoff::new(millis(10), millis(10)).stable_after(millis(5_000));
    let options = ConnectorOptions::to(A).backoff(backoff).retry(Retry::Times(2));
    let harness = ConnectorHarness::new(options, move |dialed| {
        seen.borrow_mut().push(dialed.attempt());
        Greeter
    });
    let server = harness.accept().expect("it has dialled");
    harness.advance(millis(5_000));
    harness.refuse(A);
    server.closes();
    while harness.attempts().len() < 2 {
        harness.advance(millis(1));
    }
    harness.answer(A);
    harness.advance(millis(100));
    let server = harness.accept().expect("one failure is not two");
    harness.advance(millis(5_000));
    server.closes();
    harness.advance(millis(100));
    let server = harness.accept().expect("no failure since");
    assert_eq!(*attempts.borrow(), [1, 2, 1]);
    server.closes();
    harness.advance(millis(100));
    harness.accept().expect("one failure").closes();
    harness.advance(millis(60_000));
    assert!(harness.accept().is_none(), "two failures in a row");
    assert!(matches!(harness.handle().state(), ConnectorState::GivenUp { .. }));
    assert_eq!(harness.attempts().len(), 5);
}

/// Goal: a reactor that ends at once dials no more, and tells no state on the way but that it drains.
/// Method: a connection that is up, by a rule that would give up; the harness is dropped.
#[test]
fn an_end_at_once_is_told_as_an_end() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let options = options(&[A]).retry(Retry::Never).on_state(move |_, state| {
        tell.lock().expect("no panic").push(state.to_string());
    });
    let harness = greeter(options);
    drop(harness.accept());
    drop(harness);
    assert_eq!(*told.lock().expect("no panic"), ["1 up", "draining", "ended"]);
}

/// Goal: a handler under test that starts a connector reaches no server. Method: a server by hand; a
/// handler that starts a connector to it in its harness.
#[test]
fn a_connector_in_a_harness_reaches_no_server() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let harness = Harness::of(Greeter);
    let handle = harness.handle();
    let options = ConnectorOptions::to(server.local_addr().unwrap()).retry(Retry::Never);
    let connector = handle.start_connector("out", options, |_| Greeter).unwrap();
    harness.run();
    let state = connector.state().to_string();
    assert!(state.starts_with("given up: cannot connect to 127.0.0.1:"), "{state}");
    assert!(state.ends_with(": network unreachable"), "{state}");
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Goal: in a harness no name reaches the system's resolver, neither one of the connector under test
/// nor one of a connector that a handler starts: the dial fails, and its error names the cure. Method:
/// a name that each system knows. No time passes.
#[test]
fn a_name_in_a_harness_reaches_no_resolver() {
    let to_name = || ConnectorOptions::to("localhost:80").retry(Retry::Never);
    let harness = Harness::of(Greeter);
    let started = harness.handle().start_connector("out", to_name(), |_| Greeter).unwrap();
    harness.run();
    let under_test = greeter(to_name());
    for connector in [started, under_test.handle()] {
        let why = "a harness looks up no names; give the connector a `resolve`";
        let given_up = format!("given up: cannot look up localhost:80: {why}");
        assert_eq!(connector.state().to_string(), given_up);
    }
    assert_eq!((under_test.attempts().len(), under_test.stats().dial_failures), (0, 1));
}

/// Goal: in a harness a connector's own closure looks names up, on the thread of the test. Method: a
/// closure that knows one name, at first with a silent address, then with none.
#[test]
fn a_closure_looks_names_up_in_a_harness() {
    let test = std::thread::current().id();
    let (asked, seen) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, names) = (Arc::clone(&asked), Arc::clone(&seen));
    let options = options(&["db:80", B]).resolve(move |name| {
        assert_eq!(std::thread::current().id(), test);
        names.lock().unwrap().push(name.to_owned());
        *count.lock().unwrap() += 1;
        match *count.lock().unwrap() {
            1 => Ok(vec![A.parse().unwrap()]),
            _ => Err(ErrorKind::NotFound.into()),
        }
    });
    let harness = ConnectorHarness::idle(options, |_| Greeter);
    harness.black_hole(A);
    harness.run();
    harness.advance(millis(251));
    let tried = |from: usize| {
        let attempts = harness.attempts();
        attempts[from..].iter().map(|(_, to)| to.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(tried(0), [A, B]);
    harness.accept().expect("the second accepts").closes();
    harness.advance(millis(110));
    assert_eq!(tried(2), [B], "the other target has an address");
    assert_eq!((*asked.lock().unwrap(), seen.lock().unwrap().concat()), (2, "db:80".repeat(2)));
}

/// Goal: an address that does not answer delays the next one by the attempt delay, and no more; the
/// winner is used, and the others are closed before they say a byte. Method: three addresses, of which
/// the first two are silent.
#[test]
fn a_silent_address_costs_the_attempt_delay() {
    let harness = ConnectorHarness::idle(options(&[A, B, C]), |_| Greeter);
    harness.black_hole(A);
    harness.black_hole(C);
    harness.run();
    harness.advance(millis(249));
    assert_eq!(harness.attempts().len(), 1);
    harness.advance(millis(252));
    let tried: Vec<_> = harness.attempts().iter().map(|(_, to)| to.to_string()).collect();
    assert_eq!(tried, [A, C, B], "the families alternate");
    let server = harness.accept().expect("the last one accepts");
    assert_eq!((server.addr().to_string(), server.packets().len()), (B.to_owned(), 1));
    assert_eq!(harness.streams(), 1, "the silent ones are closed");
    harness.answer(A);
    assert!(harness.accept().is_none(), "it is too late");
    assert_eq!(harness.deadlines(), 0);
}

/// Goal: an address that refuses makes the next one due at once. Method: no time passes.
#[test]
fn an_address_that_refuses_costs_no_time() {
    let harness = ConnectorHarness::idle(options(&[A, B]), |_| Greeter);
    harness.refuse(A);
    harness.run();
    assert_eq!(harness.accept().expect("the second accepts").addr().to_string(), B);
    assert_eq!(waits(&harness), [Duration::ZERO]);
    assert_eq!(harness.stats().dial_failures, 0, "the dial has succeeded");
}

/// Goal: a dial is over at its connect timeout, whatever is under way, and leaves nothing. Method: two
/// silent addresses.
#[test]
fn a_dial_ends_by_its_timeout() {
    let options = options(&[A, B]).connect_timeout(millis(700)).retry(Retry::Never);
    let harness = ConnectorHarness::idle(options, |_| Greeter);
    harness.black_hole(A);
    harness.black_hole(B);
    harness.run();
    harness.advance(millis(699));
    assert_eq!((harness.streams(), harness.stats().dial_failures), (2, 0));
    harness.advance(millis(3));
    assert_eq!((harness.streams(), harness.stats().dial_failures), (0, 1));
    assert_eq!(harness.deadlines(), 0);
}

/// Goal: if the system refuses to begin an attempt (no descriptors, no ports, no route), the dial fails
/// and is made again later; the loop does not spin. Method: each kind of error, then a server that
/// answers.
#[test]
fn an_attempt_that_cannot_begin_is_made_again_later() {
    for kind in [ErrorKind::Other, ErrorKind::AddrNotAvailable, ErrorKind::NetworkUnreachable] {
        let harness = ConnectorHarness::idle(options(&[A]), |_| Greeter);
        harness.fail(A, kind);
        harness.advance(millis(10_000));
        let count = harness.attempts().len();
        assert!((5..200).contains(&count), "{count} attempts in 10 s");
        harness.answer(A);
        harness.advance(millis(1_010));
        assert_eq!(harness.accept().expect("it has dialled").packets(), [b"hello"]);
    }
}

/// Goal: a factory that refuses or panics does not keep a slot, and the dial is made again. Method: a
/// factory that does each before it makes a handler.
#[test]
fn a_factory_that_makes_no_handler_is_asked_again() {
    let mut calls = 0;
    let harness = ConnectorHarness::new(options(&[A]), move |dialed| {
        calls += 1;
        assert_eq!(dialed.attempt(), calls);
        match calls {
            1 => Err(Refusal::close()),
            2 => std::panic::resume_unwind(Box::new("no handler")),
            _ => Ok(Greeter),
        }
    });
    harness.advance(millis(2_000));
    let stats = harness.stats();
    assert_eq!((stats.refused, stats.panics, stats.made, stats.open), (1, 1, 1, 1));
    assert_eq!(harness.streams(), 1);
}

/// Goal: a stop is over at once while the connector waits or connects, and by its deadline while a
/// connection is up; nothing is left, and nothing is dialled afterwards. Method: a stop in each state.
#[test]
fn a_stop_ends_whatever_is_under_way() {
    let waiting = ConnectorHarness::idle(options(&[A]), |_| Greeter);
    waiting.refuse(A);
    waiting.run();
    let connecting = ConnectorHarness::idle(options(&[A]), |_| Greeter);
    connecting.black_hole(A);
    connecting.run();
    let up = greeter(options(&[A]));
    let server = up.accept().expect("it has dialled");
    for harness in [&waiting, &connecting, &up] {
        harness.drain();
        if harness.report().is_none() {
            server.closes();
        }
        let report = harness.report().expect("the stop is over");
        assert_eq!(report.forced, 0);
        assert_eq!((harness.streams(), harness.deadlines()), (0, 0));
        let before = harness.attempts().len();
        harness.advance(millis(60_000));
        assert_eq!(harness.attempts().len(), before, "a stopped connector dials no more");
        assert!(harness.handle().is_ended());
    }
    assert_eq!(up.stats().terminated, 1);
}

/// Asks its server something when it is up. It says what becomes of its calls, and stays in a drain.
struct Asker {
    calls: Calls<InOrder, &'static str>,
    log: Log,
}

impl Handler for Asker {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        for question in ["one", "two", "three"] {
            ctx.send(question).expect("there is room");
            self.calls.open(question, millis(60_000), ctx).expect("there is room");
        }
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        let question = self.calls.answered(ctx).unwrap_or("nothing");
        self.log.note(format!("{question} answered"));
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Shutdown => Action::Continue,
            other => other.default_action(),
        }
    }

    fn terminate(self, reason: CloseReason) {
        for (_, question) in self.calls {
            self.log.note(format!("{question} left: {reason:?}"));
        }
    }
}

/// Goal: a stop while calls are outstanding is done by its deadline, and hands them back. Until then
/// answers come as before. Method: a server that answers one of three calls, before and in the drain.
#[test]
fn a_stop_hands_calls_back_by_its_deadline() {
    let log = Log::default();
    let noted = log.clone();
    let options = options(&[A]).drain_timeout(millis(5_000));
    let harness = ConnectorHarness::new(options, move |_| Asker {
        calls: Calls::in_order(3),
        log: noted.clone(),
    });
    let server = harness.accept().expect("it has dialled");
    assert_eq!(server.packets(), [&b"one"[..], b"two", b"three"]);
    server.packet("yes");
    harness.drain();
    server.packet("yes");
    assert_eq!(log.read(), ["one answered", "two answered"]);
    harness.advance(millis(4_999));
    assert!(harness.report().is_none() && log.read().is_empty());
    harness.advance(millis(2));
    assert_eq!(log.read(), ["three left: DrainForced"]);
    assert_eq!(harness.report().expect("it is over").forced, 1);
    assert_eq!((harness.streams(), harness.deadlines(), harness.attempts().len()), (0, 0, 1));
}

/// Passes its address on when it is up, and sends messages to its server.
struct Addressed(Rc<RefCell<Vec<Address<&'static str>>>>);

impl Handler for Addressed {
    type Message = &'static str;

    fn init(&mut self, ctx: &mut Context<'_, &'static str>) -> Action<'_> {
        self.0.borrow_mut().push(ctx.address());
        Action::Continue
    }

    fn handle_packet<'a>(
        &'a mut self,
        _: &'a [u8],
        _: &mut Context<'_, &'static str>,
    ) -> Action<'a> {
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, &'static str>,
        _: &mut Context<'_, &'static str>,
    ) -> Action<'a> {
        match info {
            Info::Message(text) => Action::send(text),
            other => other.default_action(),
        }
    }
}

/// Goal: what is sent to a connection that has ended is dropped and counted. It does not reach the
/// connection that comes after it. Method: messages while the dial waits, and once the next connection
/// is up.
#[test]
fn messages_for_a_link_that_is_down_do_not_reach_the_next_one() {
    let addresses = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&addresses);
    let harness = ConnectorHarness::new(options(&[A]), move |_| Addressed(Rc::clone(&noted)));
    harness.accept().expect("it has dialled").resets();
    let send = |number: usize, text| addresses.borrow()[number].send(text).expect("there is room");
    send(0, "while it is down");
    harness.advance(millis(200));
    let server = harness.accept().expect("it is up again");
    send(0, "late");
    send(1, "current");
    harness.run();
    assert_eq!(server.packets(), [b"current"]);
    assert_eq!(harness.stats().dropped_messages, 2);
}

/// Goal: a thousand connections to a server that died do not come back together. Method: it dies, and
/// refuses for a minute; after the first second no 10 ms have more than a twentieth of a round.
#[test]
fn a_thousand_connections_come_back_spread() {
    const LINKS: usize = 1_000;
    let options = ConnectorOptions::to(A).connections(LINKS).max_connections(LINKS);
    let harness = greeter(options);
    assert_eq!(harness.streams(), LINKS);
    harness.refuse(A);
    let servers: Vec<_> = std::iter::from_fn(|| harness.accept()).collect();
    servers.iter().for_each(|server| server.resets());
    let died = harness.attempts().len();
    harness.advance(millis(60_000));
    let mut slices = std::collections::HashMap::new();
    for (at, _) in harness.attempts().drain(died..).filter(|(at, _)| *at > millis(1_000)) {
        *slices.entry(at.as_millis() / 10).or_insert(0_usize) += 1;
    }
    let most = slices.values().copied().max().expect("they dial again");
    assert!(most <= LINKS / 20, "{most} attempts in 10 ms");
    assert_eq!(harness.streams(), 0);
    harness.answer(A);
    harness.advance(Duration::from_secs(31));
    assert_eq!(harness.streams(), LINKS, "all are up within the longest wait");
}

/// Passes the reactor's time on when it is up.
struct Timekeeper(Arc<Mutex<Option<Instant>>>);

impl Handler for Timekeeper {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        *self.0.lock().expect("no panic") = Some(ctx.now());
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::Continue
    }
}

/// Goal: a handle tells how far the connector has come: connecting, up, waiting with its reason and the
/// time of the next dial, draining, ended. Method: a server that is silent, accepts, hangs up and
/// refuses; a stop.
#[test]
fn a_handle_tells_how_far_the_connector_has_come() {
    let origin = Arc::new(Mutex::new(None));
    let keeper = Arc::clone(&origin);
    let backoff = Backoff::new(millis(1_000), millis(1_000));
    let options = options(&[A]).connections(2).backoff(backoff);
    let harness = ConnectorHarness::idle(options, move |_| Timekeeper(Arc::clone(&keeper)));
    let state = || harness.handle().state();
    assert_eq!(state(), ConnectorState::Connecting, "before the first turn");
    harness.black_hole(A);
    harness.run();
    assert_eq!(state(), ConnectorState::Connecting);
    harness.answer(A);
    assert_eq!(state(), ConnectorState::Up(2));
    let origin = origin.lock().unwrap().expect("it is up");

    // The first end leaves one up. After the second one it waits, and no dial has failed.
    harness.refuse(A);
    harness.accept().unwrap().closes();
    assert_eq!(state(), ConnectorState::Up(1));
    harness.accept().unwrap().closes();
    let ConnectorState::Waiting { until, last_error: None } = state() else {
        panic!("{:?}", state())
    };
    let before = harness.attempts().len();
    let wait = until - origin;
    harness.advance(wait + millis(1));
    let next = harness.attempts()[before].0;
    assert!(next >= wait && next <= wait + millis(1), "the next dial is at {next:?}, not {wait:?}");

    // Both dials have failed, and their error is told until a connection is up.
    harness.advance(millis(1_000));
    let ConnectorState::Waiting { last_error: Some(error), .. } = state() else {
        panic!("{:?}", state())
    };
    assert!(matches!(error, DialError::Connect { kind: ErrorKind::ConnectionRefused, .. }));
    harness.black_hole(A);
    harness.advance(millis(1_000));
    assert_eq!(state(), ConnectorState::Connecting, "the end of a wait");
    harness.answer(A);
    assert_eq!(state(), ConnectorState::Up(2));
    let servers = [harness.accept().unwrap(), harness.accept().unwrap()];
    servers.iter().for_each(|server| server.resets());
    assert!(matches!(state(), ConnectorState::Waiting { last_error: None, .. }), "{:?}", state());

    harness.advance(millis(1_002));
    harness.drain();
    assert_eq!(state(), ConnectorState::Draining);
    while let Some(server) = harness.accept() {
        server.closes();
    }
    assert!(harness.report().is_some());
    assert_eq!(state(), ConnectorState::Ended);
    assert_eq!(harness.handle().shard_states(), [ConnectorState::Ended]);
}

/// Goal: a connector that gave up says why, and one that keeps no connection up has nothing to do. Both
/// hold for one that waits longer than any clock counts. Method: the rules for retries, and no
/// connections.
#[test]
fn a_connector_without_a_next_dial_says_so() {
    let harness = ConnectorHarness::idle(options(&[A]).retry(Retry::Times(2)), |_| Greeter);
    harness.refuse(A);
    harness.advance(millis(60_000));
    let state = harness.handle().state();
    let ConnectorState::GivenUp { last_error: Some(error) } = state else { panic!("{state:?}") };
    assert_eq!(error.to_string(), format!("cannot connect to {A}: connection refused"));

    let harness = greeter(options(&[A]).retry(Retry::Never));
    harness.accept().unwrap().closes();
    assert_eq!(harness.handle().state(), ConnectorState::GivenUp { last_error: None });

    let harness = greeter(options(&[A]).connections(0));
    assert_eq!(harness.handle().state(), ConnectorState::Idle);

    let endless = Backoff::new(Duration::MAX, Duration::MAX);
    let harness = greeter(options(&[A]).backoff(endless));
    harness.accept().unwrap().closes();
    let state = harness.handle().state();
    assert!(matches!(state, ConnectorState::Waiting { .. }), "{state:?}");
}

/// Goal: a closure is told each state once, in order, on the shard's thread, and a panic of it ends
/// nothing. Method: a closure that notes what it is told and panics each time; the life of a connector.
#[test]
fn a_closure_is_told_each_change_of_the_state() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&told);
    let backoff = Backoff::new(millis(1_000), millis(1_000));
    let options = options(&[A]).connections(3).backoff(backoff).on_state(move |shard, state| {
        assert_eq!(shard, 0);
        notes.lock().unwrap().push(state.clone());
        std::panic::resume_unwind(Box::new("no state"));
    });
    let harness = ConnectorHarness::idle(options, |_| Greeter);
    let told = || std::mem::take(&mut *told.lock().unwrap());
    harness.run();
    assert_eq!(told(), [ConnectorState::Up(3)], "one call for three that come up in a turn");
    harness.black_hole(A);
    let servers: Vec<_> = std::iter::from_fn(|| harness.accept()).collect();
    servers.iter().for_each(|server| server.closes());
    let states = told();
    assert_eq!(states[..2], [ConnectorState::Up(2), ConnectorState::Up(1)]);
    assert!(matches!(states[2..], [ConnectorState::Waiting { .. }]), "{states:?}");
    harness.advance(millis(1_002));
    assert_eq!(told(), [ConnectorState::Connecting], "one call for three that are dialled");
    harness.answer(A);
    assert_eq!(told(), [ConnectorState::Up(3)]);
    harness.drain();
    while let Some(server) = harness.accept() {
        server.closes();
    }
    assert_eq!(told(), [ConnectorState::Draining, ConnectorState::Ended]);
    assert_eq!(harness.stats().panics, 8);
    assert_eq!(harness.handle().state(), ConnectorState::Ended);
}

/// Goal: if the factory refuses with a packet, the PROXY header comes first: without it the other end
/// would read the packet as one. Method: a header of each version; then a refusal without a packet.
#[test]
fn a_refusal_has_its_header_first() {
    for (version, header) in [
        (ProxyVersion::V1, &b"PROXY UNKNOWN\r\n"[..]),
        (ProxyVersion::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let harness = ConnectorHarness::new(options(&[A]).send_proxy(version), |_| {
            Err::<Greeter, _>(Refusal::send("no"))
        });
        let far = harness.accept().unwrap();
        assert_eq!(far.sent(), [header, b"\0\x02no"].concat(), "{version:?}");
        far.closes();
        assert!(far.is_gone());
        assert_eq!(harness.stats().refused, 1);
    }
    let options = options(&[A]).send_proxy(ProxyVersion::V2);
    let harness = ConnectorHarness::new(options, |_| Err::<Greeter, _>(Refusal::close()));
    assert_eq!((harness.stats().refused, harness.stats().bytes_out, harness.streams()), (1, 0, 0));
}
