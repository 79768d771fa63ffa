//! Connections that a handler dials, over a simulated network, with a clock that the test moves.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use condor::testing::{ConnectorHarness, FarEnd};
use condor::{
    Action, Address, CloseReason, ConnectorHandle, ConnectorOptions, Context, DialError, Handler,
    Info, Retry,
};

const CONTROL: &str = "192.0.2.1:80";
const A: &str = "192.0.2.7:80";
const B: &str = "192.0.2.8:80";

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the handlers of one test share.
#[derive(Default)]
struct Shared {
    connector: Option<ConnectorHandle<String>>,
    dialled: Vec<Address<String>>,
}

/// Obeys the packets of its server, and sends each message to it.
struct Switch {
    shared: Rc<RefCell<Shared>>,
    target: String,
}

impl Switch {
    fn dial(&self, target: &str, ctx: &mut Context<'_, String>) -> Result<String, DialError> {
        let mut shared = self.shared.borrow_mut();
        let connector = shared.connector.clone().expect("the test has set it");
        let address = ctx.dial(&connector, target.split(',').collect::<Vec<_>>())?;
        let id = address.id().to_string();
        shared.dialled.push(address);
        Ok(id)
    }

    fn obey(&self, command: &str, ctx: &mut Context<'_, String>) -> Option<String> {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let dialled = || self.shared.borrow().dialled.last().cloned().expect("it has dialled");
        match verb {
            "dial" => {
                Some(self.dial(rest, ctx).unwrap_or_else(|error| format!("no dial: {error}")))
            }
            "say" => {
                dialled().send(rest.to_owned()).expect("there is room");
                None
            }
            "wake" => {
                assert!(dialled().wake());
                None
            }
            "close" => {
                ctx.handle().close(dialled().id()).expect("the reactor runs");
                None
            }
            other => panic!("no command: {other}"),
        }
    }
}

impl Handler for Switch {
    type Message = String;

    fn init(&mut self, ctx: &mut Context<'_, String>) -> Action<'_> {
        Action::send(format!("{} {}", self.target, ctx.id()))
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, String>,
    ) -> Action<'a> {
        let commands = std::str::from_utf8(packet).expect("commands are text");
        for command in commands.split("; ") {
            if command == "stop" {
                return Action::stop(CloseReason::Normal);
            }
            if let Some(answer) = self.obey(command, ctx) {
                ctx.send(answer).expect("there is room");
            }
        }
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, String>,
        _: &mut Context<'_, String>,
    ) -> Action<'a> {
        match info {
            Info::Message(text) => Action::send(text),
            Info::Wake => Action::send("woken"),
            Info::DialFailed { id, target, error } => {
                Action::send(format!("{target} {id} failed: {error}"))
            }
            Info::Shutdown => Action::Continue,
            other => other.default_action(),
        }
    }
}

struct Test {
    harness: ConnectorHarness<Switch>,
    /// The far end of a connection that is kept up.
    control: FarEnd<Switch>,
    shared: Rc<RefCell<Shared>>,
}

fn test(options: ConnectorOptions) -> Test {
    let shared = Rc::new(RefCell::new(Shared::default()));
    let of_handlers = Rc::clone(&shared);
    let harness = ConnectorHarness::new(options, move |dialed| Switch {
        shared: Rc::clone(&of_handlers),
        target: dialed.target(),
    });
    shared.borrow_mut().connector = Some(harness.handle());
    let control = harness.accept().expect("one connection is kept up");
    assert!(control.packets()[0].starts_with(CONTROL.as_bytes()));
    Test { harness, control, shared }
}

fn options() -> ConnectorOptions {
    ConnectorOptions::to(CONTROL).connect_timeout(millis(1_000))
}

impl Test {
    /// Has the first handler obey, and returns what it says.
    fn obey(&self, commands: &str) -> Vec<String> {
        self.control.packet(commands);
        texts(&self.control)
    }
}

fn texts(end: &FarEnd<Switch>) -> Vec<String> {
    let text = |packet| String::from_utf8(packet).expect("answers are text");
    end.packets().into_iter().map(text).collect()
}

/// Goal: the address that a dial returns is that of the connection, and what is sent to it before it is
/// up arrives after `init`, in order, before what comes later. Method: messages and a wake in the
/// callback that dials, and while no answer comes.
#[test]
fn what_is_sent_before_a_connection_is_up_arrives_in_order() {
    let test = test(options());
    test.harness.black_hole(A);
    let id = test.obey(&format!("dial {A}; say one; wake; say two")).remove(0);
    test.obey("say three");
    assert!(test.harness.accept().is_none(), "it is not up");
    assert_eq!(test.harness.stats().messages, 0);
    test.harness.answer(A);
    let up = test.harness.accept().expect("it is up");
    assert_eq!(up.addr().to_string(), A);
    test.obey("say four");
    let expected = [&format!("{A} {id}"), "one", "woken", "two", "three", "four"];
    assert_eq!(texts(&up), expected);
    let stats = test.harness.stats();
    assert_eq!((stats.dials, stats.messages, stats.dropped_messages), (2, 4, 0));
    assert_eq!(test.harness.deadlines(), 0, "nothing is left of the dial");
}

/// Goal: a connection that was dialled is not dialled again, and its slot can be used once more.
/// Method: a server that hangs up, three times.
#[test]
fn a_dial_is_made_once() {
    let test = test(options());
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(test.obey(&format!("dial {A}")).remove(0));
        test.harness.accept().expect("it is up").closes();
        test.harness.advance(millis(100_000));
    }
    assert_eq!((test.harness.attempts().len(), test.harness.streams()), (4, 1));
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

/// Goal: the caller is told of each kind of failure, once; messages for the connection are dropped and
/// counted, and never reach the next owner of its slot. Method: a refusal, a silent address, an attempt
/// that cannot begin; then a dial that succeeds.
#[test]
fn a_caller_is_told_of_a_failure() {
    let test = test(options());
    test.harness.refuse(A);
    let told = test.obey(&format!("dial {A}; say lost"));
    assert_eq!(
        told[1],
        format!("{A} {} failed: cannot connect to {A}: connection refused", told[0])
    );

    test.harness.black_hole(A);
    let id = test.obey(&format!("dial {A}; say lost")).remove(0);
    test.harness.advance(millis(999));
    assert!(texts(&test.control).is_empty());
    test.harness.advance(millis(2));
    assert_eq!(texts(&test.control), [format!("{A} {id} failed: no connection within 1s")]);

    test.harness.fail(B, ErrorKind::AddrNotAvailable);
    test.harness.refuse(A);
    let told = test.obey(&format!("dial {A},{B}; wake"));
    assert!(told[1].starts_with(&format!("{A}, {B} {} failed: cannot connect to", told[0])));

    let old = test.shared.borrow().dialled.clone();
    test.harness.answer(A);
    test.obey(&format!("dial {A}"));
    let up = test.harness.accept().expect("it is up");
    assert_eq!(texts(&up).len(), 1);
    for address in old {
        address.send("late".to_owned()).expect("there is room");
        address.wake();
    }
    test.obey("say current");
    assert_eq!(texts(&up), ["current"]);
    let stats = test.harness.stats();
    assert_eq!((stats.dial_failures, stats.dropped_messages), (3, 5));
    assert_eq!((test.harness.streams(), test.harness.deadlines()), (2, 0));
}

/// Goal: a failure of a caller that has ended disturbs no one, and a connection whose caller has ended
/// comes up all the same, with the messages of the caller. Method: the caller stops in the callback
/// that dials; the connector dials it again.
#[test]
fn a_caller_may_end_before_the_dial_does() {
    for succeeds in [false, true] {
        let test = test(options());
        test.harness.black_hole(A);
        assert_eq!(test.obey(&format!("dial {A}; say goodbye; stop")).len(), 1);
        test.control.closes();
        assert!(test.control.is_gone());
        if succeeds {
            test.harness.answer(A);
            let up = test.harness.accept().expect("it is up");
            assert_eq!(texts(&up)[1..], ["goodbye"]);
        }
        test.harness.advance(millis(1_100));
        let again = test.harness.accept().expect("it is kept up");
        assert_eq!(texts(&again).len(), 1, "the next owner of the slot is told nothing");
        let stats = test.harness.stats();
        let failures = u64::from(!succeeds);
        assert_eq!((stats.dial_failures, stats.dropped_messages), (failures, failures));
    }
}

/// Goal: a connector has no more connections than it may have, with those that are being dialled, and
/// its room comes back after a failure, an end, and a stop. Method: a limit of three, one of them kept
/// up.
#[test]
fn dials_count_as_connections() {
    let test = test(options().max_connections(3));
    let full = "no dial: no dial begins: there are 3 connections already; raise max_connections";
    let dial = format!("dial {A}");
    test.harness.black_hole(A);
    let told = test.obey(&format!("{dial}; {dial}; {dial}"));
    assert_eq!((told.len(), &*told[2]), (3, full));
    assert_eq!(test.obey(&dial), [full]);
    // One of the two is stopped, the other one comes up.
    assert_eq!(test.obey("close"), [format!("{A} {} failed: the dial was stopped", told[1])]);
    assert_eq!(test.harness.streams(), 2, "the attempt is closed");
    test.harness.answer(A);
    let up = test.harness.accept().expect("it is up");
    assert_eq!(test.obey(&format!("{dial}; {dial}"))[1], full);
    let second = test.harness.accept().expect("it is up");
    up.resets();
    test.harness.refuse(A);
    assert_eq!(test.obey(&format!("{dial}; {dial}"))[1], full);
    assert_ne!(test.obey(&dial), [full], "the failure has made room");
    test.harness.black_hole(A);
    assert_ne!(test.obey(&dial), [full]);
    assert_eq!(test.obey(&dial), [full]);
    test.harness.advance(millis(1_100));
    assert_eq!(texts(&test.control).len(), 1, "its time is over");
    assert_ne!(test.obey(&dial), [full], "the timeout has made room");
    assert_eq!(test.obey("close").len(), 1);
    assert_ne!(test.obey(&dial), [full], "the stop has made room");
    assert_eq!(test.obey("close").len(), 1);
    assert_eq!(test.obey(&format!("{dial}; close")).len(), 2);
    assert_ne!(test.obey(&dial), [full], "the stop before it began has made room");
    assert_eq!(test.obey("close").len(), 1);
    test.harness.refuse(A);
    // The connection that is kept up has its place also while it is not there.
    test.harness.black_hole(CONTROL);
    test.control.resets();
    assert_eq!(test.harness.stats().open, 1);
    second.packet(&dial);
    second.packet(&dial);
    let told = texts(&second);
    assert!(!told.iter().any(|text| text == full), "{told:?}");
    second.packet(format!("{dial}; {dial}"));
    assert_eq!(texts(&second)[1], full);
}

/// Goal: a connection that is kept up no more leaves its place to dials. Method: two connections that
/// are kept up, by a rule that allows no second dial; one of them ends.
#[test]
fn a_connection_that_is_given_up_makes_room() {
    let test = test(options().connections(2).max_connections(2).retry(Retry::Never));
    let full = "no dial: no dial begins: there are 2 connections already; raise max_connections";
    let dial = format!("dial {A}");
    assert_eq!(test.obey(&dial), [full]);
    test.harness.accept().expect("two are kept up").closes();
    assert_ne!(test.obey(&dial), [full]);
    assert_eq!(test.harness.accept().expect("it is up").addr().to_string(), A);
    assert_eq!(test.obey(&dial), [full]);
}

/// Goal: a caller is told if the factory makes no handler, by a refusal or by a panic, and the slot is
/// free again. Method: a factory that knows the second target only.
#[test]
#[cfg(panic = "unwind")]
fn a_caller_is_told_of_a_refusal_of_the_factory() {
    let shared = Rc::new(RefCell::new(Shared::default()));
    let of_handlers = Rc::clone(&shared);
    let harness = ConnectorHarness::new(options().max_connections(2), move |dialed| {
        let target = dialed.target();
        if target == B {
            std::panic::resume_unwind(Box::new("no handler"));
        }
        (target != A).then(|| Switch { shared: Rc::clone(&of_handlers), target })
    });
    shared.borrow_mut().connector = Some(harness.handle());
    let control = harness.accept().expect("one connection is kept up");
    control.packets();
    for target in [A, B] {
        control.packet(format!("dial {target}; say lost"));
        let told = texts(&control);
        let why = "failed: the connector's factory has refused the connection";
        assert_eq!(told[1..], [format!("{target} {} {why}", told[0])]);
    }
    let stats = harness.stats();
    assert_eq!((harness.attempts().len(), harness.streams()), (3, 1));
    assert_eq!((stats.open, stats.dropped_messages, stats.dial_failures), (1, 2, 0));
}

/// Goal: a stop of the dial before the connector has begun it leaves nothing behind. Method: `close` in
/// the callback that dials.
#[test]
fn a_dial_can_be_stopped_before_it_begins() {
    let test = test(options());
    let told = test.obey(&format!("dial {A}; say lost; close"));
    assert_eq!(told[1], format!("{A} {} failed: the dial was stopped", told[0]));
    let stats = test.harness.stats();
    assert_eq!((stats.dropped_messages, test.harness.attempts().len()), (1, 1));
}

/// Goal: as many dials as are promised can be asked for in one callback, and the connector works on
/// them in shares. Method: 1,025 dials in one packet.
#[test]
fn many_dials_fit_into_one_callback() {
    let test = test(options().max_connections(2_000));
    let told = test.obey(&vec![format!("dial {A}"); 1_025].join("; "));
    let refused = told.iter().filter(|told| told.starts_with("no dial")).count();
    assert_eq!((told.len(), refused), (1_025, 1));
    let why = "no dial: no dial begins: 1024 were asked for in this turn; ask again in a later one";
    assert!(told.iter().any(|told| told == why));
    assert_eq!(test.harness.stats().open, 1_025);
    assert_eq!(test.obey(&format!("dial {A}"))[0].split('.').count(), 3, "there is room again");
}

/// Goal: a stop of the connector ends the dials, their callers are told, and no later dial begins.
/// Method: dials that wait for an answer, and one that has not begun; a caller that goes on.
#[test]
fn a_stop_ends_dials() {
    let test = test(options());
    test.harness.black_hole(A);
    let id = test.obey(&format!("dial {A}; say lost")).remove(0);
    test.harness.drain();
    assert_eq!(texts(&test.control), [format!("{A} {id} failed: the dial was stopped")]);
    let refused = "no dial: the connector is not running on this shard";
    assert_eq!(test.obey(&format!("dial {A}")), [refused]);
    assert!(test.harness.report().is_none(), "the caller goes on");
    test.control.packet("stop");
    test.control.closes();
    let report = test.harness.report().expect("it is over");
    assert_eq!((report.forced, test.harness.stats().dropped_messages), (0, 1));
    assert_eq!((test.harness.streams(), test.harness.deadlines()), (0, 0));
}

/// Goal: what cannot be dialled is refused at once. Method: a connector of another reactor, and texts
/// that are no place; a name, because no name is looked up in a harness.
#[test]
fn what_cannot_be_dialled_is_refused() {
    let (one, other) = (test(options()), test(options()));
    for (text, why) in [("", "\"\""), ("somewhere", "\"somewhere\""), ("x:0", "\"x:0\"")] {
        let refused = format!("no dial: cannot dial {why}: it is not HOST:PORT");
        assert_eq!(one.obey(&format!("dial {text}")), [refused]);
    }
    let told = one.obey("dial localhost:80");
    let why = "a harness looks up no names; give the connector a `resolve`";
    let failed = format!("localhost:80 {} failed: cannot look up localhost:80: {why}", told[0]);
    assert_eq!(told[1..], [failed]);
    one.shared.borrow_mut().connector = Some(other.harness.handle());
    let refused = "no dial: the connector belongs to another reactor";
    assert_eq!(one.obey(&format!("dial {A}")), [refused]);
    assert_eq!((one.harness.stats().dials, one.harness.attempts().len()), (2, 1));
}
