//! Turns with real sockets, and a clock that the test moves.

use std::cell::Cell;
use std::io;
use std::net::TcpStream as Client;
use std::rc::Rc;

use mio::{Events, Token};

use super::build::ReactorParts;
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::directory::{Command, Shared};
use crate::drain::Drain;
use crate::endpoint::Endpoint;
use crate::handler::{Action, Context, Info};
use crate::options::{ConnectionOptions, ReactorOptions};
use crate::poller::{Readiness, Registry, SimulatedNetwork};
use crate::status::ListenerState;
use crate::sync::Arc;

mod budgets;
mod every;
mod output;
mod turns;

const NO_TIME: Option<Duration> = Some(Duration::ZERO);

/// Echoes packets, and counts the calls of `handle_info`.
struct Echo(Rc<Cell<u32>>);

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        self.0.set(self.0.get() + 1);
        info.default_action()
    }
}

/// A reactor whose clock only the test moves, and two clients of its one listener.
struct ByHand {
    reactor: Reactor,
    hand: ManualClock,
    listener: ListenerHandle<()>,
    clients: [Client; 2],
    timeouts: Rc<Cell<u32>>,
}

impl ByHand {
    fn new(options: ListenerOptions) -> Self {
        Self::with(ReactorOptions::new(), options)
    }

    fn with(own: ReactorOptions, options: ListenerOptions) -> Self {
        let (parts, end) = ReactorParts::new(0, own).unwrap();
        let ReactorParts { shard, poll, registry, options: own } = parts;
        let hand = ManualClock::default();
        let (poller, registry) = (Poller::system(poll, own.events), Registry::System(registry));
        let (clock, shared) = (Clock::manual(hand.clone()), Arc::new(Shared::new(vec![end])));
        let mut reactor = Reactor::assemble(shard, poller, registry, clock, own, shared);
        let timeouts = Rc::new(Cell::new(0));
        let count = Rc::clone(&timeouts);
        let listener =
            reactor.start_listener("test", options, move |_| Echo(Rc::clone(&count))).unwrap();
        let connect = || Client::connect(listener.local_addr()).unwrap();
        let clients = [connect(), connect()];
        let mut by_hand = Self { reactor, hand, listener, clients, timeouts };
        by_hand.until(|by_hand| by_hand.listener.stats().open == 2);
        by_hand
    }

    fn turn(&mut self) {
        self.reactor.turn(NO_TIME).unwrap();
    }

    /// Turns until `done`. The clock stands still.
    #[track_caller]
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("this does not happen");
    }

    /// Limits batches to `most` events. A full batch lifts the limit.
    fn batches_of(&mut self, most: usize) {
        if let Poller::System { events, .. } = &mut self.reactor.poller {
            *events = Events::with_capacity(most);
        }
    }

    /// Both clients send these bytes.
    fn send(&mut self, bytes: &[u8]) {
        for client in &mut self.clients {
            io::copy(&mut &*bytes, client).unwrap();
        }
    }
}

/// Goal: after a full batch of events no packet timeout and no idle timeout ends a wait: the bytes of
/// the peer may have arrived in time, and their event may be in the next batch. The reactor polls
/// again at once. After a batch that is not full, these timeouts fire. Method: the test limits a
/// batch to one event. Two clients send in time. Then the test moves the clock past both timeouts.
#[test]
fn no_peer_is_timed_out_after_a_full_batch() {
    let packet = b"\x00\x04late";
    for said_before in [0, 3] {
        let limit = Duration::from_millis(100);
        let options = ListenerOptions::port(0).packet_timeout(limit).idle_timeout(limit);
        let mut by_hand = ByHand::new(options);
        by_hand.send(&packet[..said_before]);
        by_hand.until(|by_hand| by_hand.listener.stats().bytes_in == 2 * said_before as u64);
        by_hand.until(|by_hand| !by_hand.reactor.is_busy());
        by_hand.send(&packet[said_before..]);
        // Every timeout that was running has passed.
        by_hand.hand.advance(3 * limit);
        by_hand.batches_of(1);
        by_hand.until(|by_hand| by_hand.listener.stats().packets_in > 0);
        assert_eq!(by_hand.listener.stats().packets_in, 1, "it was a batch of one");
        assert!(by_hand.reactor.is_busy(), "the rest is asked for at once");
        by_hand.until(|by_hand| by_hand.listener.stats().packets_in == 2);
        let stats = by_hand.listener.stats();
        assert_eq!((stats.open, stats.packet_timeouts, by_hand.timeouts.get()), (2, 0, 0));

        by_hand.send(b"\x00");
        by_hand.until(|by_hand| by_hand.listener.stats().bytes_in == 2 * (6 + 1));
        by_hand.hand.advance(3 * limit);
        by_hand.until(|by_hand| by_hand.listener.stats().packet_timeouts == 2);
    }
}

/// Goal: a second shutdown waits for no connection, not even for one that is accepted after the
/// announcement and before the drain begins: all shards have to know of the shutdown first. Method:
/// the test gives both commands, and connects a client in between.
#[test]
fn a_client_that_comes_between_two_steps_of_a_second_shutdown_is_not_waited_for() {
    let options = ReactorOptions::new().shutdown_delay(Duration::from_secs(60));
    let mut by_hand = ByHand::with(options, ListenerOptions::port(0));
    by_hand.reactor.handle.shared.set_unready();
    let (drain, mut parts) = Drain::new(Arc::clone(&by_hand.reactor.handle.shared.threads));
    by_hand.reactor.obey(Command::AnnounceShutdown(parts.remove(0)));
    by_hand.reactor.obey(Command::BeginShutdown);
    let (again, mut parts) = Drain::new(Arc::clone(&by_hand.reactor.handle.shared.threads));
    by_hand.reactor.obey(Command::AnnounceShutdown(parts.remove(0)));
    let _late = Client::connect(by_hand.listener.local_addr()).unwrap();
    by_hand.until(|by_hand| by_hand.listener.stats().made == 3);
    by_hand.reactor.obey(Command::BeginShutdown);
    by_hand.until(|by_hand| by_hand.reactor.is_stopped());
    for drain in [drain, again] {
        assert_eq!(drain.report().map(|report| report.forced), Some(3));
    }
}

/// Goal: a shutdown without a delay drains at once, and so does one that was asked for twice before it
/// begins. Method: the test gives the commands, and looks at the stage.
#[test]
fn a_shutdown_waits_only_for_a_delay_that_was_asked_for_once() {
    for (delay, announcements, expected) in [
        (0, 1, stage::Stage::Draining),
        (60, 1, stage::Stage::Delay),
        (60, 2, stage::Stage::Draining),
    ] {
        let options = ReactorOptions::new().shutdown_delay(Duration::from_secs(delay));
        let mut by_hand = ByHand::with(options, ListenerOptions::port(0));
        by_hand.reactor.handle.shared.set_unready();
        for _ in 0..announcements {
            let threads = Arc::clone(&by_hand.reactor.handle.shared.threads);
            let (_, mut parts) = Drain::new(threads);
            by_hand.reactor.obey(Command::AnnounceShutdown(parts.remove(0)));
        }
        by_hand.reactor.obey(Command::BeginShutdown);
        let stage = by_hand.reactor.shutdown.as_ref().map(|shutdown| shutdown.stage);
        assert_eq!(stage, Some(expected), "{announcements} of {delay} s");
    }
}

/// Goal: `next_deadline` is counted from the present, to the nanosecond. Method: the packet
/// timeouts of two clients; the test moves the clock after the turn.
#[test]
fn next_deadline_is_as_near_as_it_is() {
    let limit = Duration::from_secs(1);
    let mut by_hand = ByHand::new(ListenerOptions::port(0).packet_timeout(limit));
    assert_eq!(by_hand.reactor.next_deadline(), None);
    by_hand.send(b"\x00");
    by_hand.until(|by_hand| by_hand.listener.stats().bytes_in == 2);
    // The wheel may look at a timer once before the timer is due.
    let first = by_hand.reactor.next_deadline().unwrap();
    assert!(first <= limit && first > limit / 2, "{first:?}");
    let passed = Duration::from_nanos(400_000_001);
    by_hand.hand.advance(passed);
    assert_eq!(by_hand.reactor.next_deadline(), Some(first - passed));
    by_hand.hand.advance(limit);
    assert_eq!(by_hand.reactor.next_deadline(), NO_TIME);
    by_hand.until(|by_hand| by_hand.listener.stats().packet_timeouts == 2);
}

/// Goal: if a loop goes on after an error of its event queue, other threads can still wake it.
/// Method: a batch of 0 events, which the system refuses; then a command, which has to cause a
/// waker event.
#[test]
fn a_reactor_can_be_woken_after_an_error_of_its_event_queue() {
    let mut by_hand = ByHand::new(ListenerOptions::port(0));
    by_hand.batches_of(0);
    let result = by_hand.reactor.turn(NO_TIME);
    assert!(matches!(result, Err(Error::Poll { .. })), "{result:?}");
    let handle = by_hand.reactor.handle();
    std::thread::spawn(move || drop(handle.stop_listener("test").unwrap())).join().unwrap();
    by_hand.batches_of(8);
    by_hand.reactor.poller.poll(NO_TIME).unwrap();
    let mut woken = false;
    by_hand.reactor.poller.each(|token, _| woken |= token == token::WAKER);
    assert!(woken, "it sleeps on");
}

/// An event queue whose waits fail.
struct FailsWith(ErrorKind);

impl SimulatedNetwork for FailsWith {
    fn take_events(&mut self, _: usize, _: &mut Vec<(Token, Readiness)>) -> io::Result<()> {
        Err(self.0.into())
    }
}

/// Goal: a signal that interrupts the wait ends neither the turn nor the loop. Other errors are
/// returned. Method: an event queue that fails.
#[test]
fn an_interrupted_wait_is_no_error() {
    let mut by_hand = ByHand::new(ListenerOptions::port(0));
    let mut turn = |kind| {
        by_hand.reactor.poller = Poller::simulated(Box::new(FailsWith(kind)), 8);
        by_hand.reactor.turn(NO_TIME)
    };
    assert!(turn(ErrorKind::Interrupted).is_ok());
    assert!(matches!(turn(ErrorKind::OutOfMemory), Err(Error::Poll { .. })));
}

/// A listening socket that the kernel refuses to watch.
struct Unwatchable;

impl Acceptor for Unwatchable {
    type Stream = mio::net::TcpStream;

    fn accept(&mut self, _: &ConnectionOptions) -> io::Result<(Self::Stream, Endpoint)> {
        panic!("it announces nothing")
    }

    fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Err(ErrorKind::OutOfMemory.into())
    }

    fn rearm(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        Err(ErrorKind::NotFound.into())
    }
}

/// Goal: a listening socket that cannot be watched fails its listener alone. Method: such a socket;
/// another listener is served.
#[test]
fn a_socket_that_cannot_be_watched_fails_its_listener() {
    let mut by_hand = ByHand::new(ListenerOptions::port(0));
    let listen = |options: &ListenerOptions| Ok((Some(Unwatchable), options.addr()));
    let handle = by_hand.reactor.handle();
    let prepared = handle.prepare("deaf", ListenerOptions::port(1), listen).unwrap();
    let deaf = by_hand.reactor.serve(prepared, |_: &Accepted<'_>| Echo(Rc::default()));
    by_hand.until(|_| deaf.state() == ListenerState::Ended);
    assert!(matches!(deaf.failure(), Some(Error::Accept { name, .. }) if name == "deaf"));
    assert_eq!(deaf.stats().listener_failures, 1);
    by_hand.send(b"\x00\x02hi");
    by_hand.until(|by_hand| by_hand.listener.stats().packets_in == 2);
}

/// Goal: if `run` returns an error, the reactor has ended, and its handles say so: nothing is taken
/// that would never be done, and no wait is without end. Method: a batch of 0 events, which the
/// system refuses; two drains that were asked for before, one of which the reactor knows of.
#[test]
fn after_an_error_of_run_the_reactor_has_ended() {
    let mut by_hand = ByHand::new(ListenerOptions::port(0).drain_timeout(Duration::MAX));
    by_hand.send(b"\x00");
    by_hand.until(|by_hand| by_hand.listener.stats().bytes_in == 2);
    let handle = by_hand.reactor.handle();
    let known = by_hand.listener.stop().unwrap();
    by_hand.turn();
    by_hand.batches_of(0);
    let unknown = handle.shutdown().unwrap();
    let ran = by_hand.reactor.run();
    assert!(matches!(ran, Err(Error::Poll { .. })), "{ran:?}");
    assert!(by_hand.reactor.is_stopped());
    for drain in [known, unknown] {
        assert!(matches!(drain.wait(), Err(Error::Gone)));
    }
    assert_eq!(by_hand.listener.state(), ListenerState::Ended);
    assert_eq!(by_hand.listener.stats().terminated, 2);
    let options = || ListenerOptions::port(0);
    let factory = |_: &Accepted<'_>| Echo(Rc::default());
    assert!(matches!(by_hand.reactor.start_listener("new", options(), factory), Err(Error::Gone)));
    assert!(matches!(handle.stop_listener("test"), Err(Error::Gone)));
    assert!(matches!(handle.shutdown(), Err(Error::Gone)));
    assert!(!handle.is_ready());
    by_hand.reactor.run().unwrap();
}

/// Goal: with `busy_poll` a reactor polls without a wait until so much time has passed since the last
/// event; without it, never. Method: an event, and a clock that the test moves.
#[test]
fn busy_polling_goes_on_for_its_time_after_an_event() {
    let spin = Duration::from_millis(10);
    let options = ReactorOptions::new().busy_poll(spin);
    let mut by_hand = ByHand::with(options, ListenerOptions::port(0));
    let turn_after = |by_hand: &mut ByHand, passed: Duration| {
        by_hand.hand.advance(passed);
        by_hand.turn();
        by_hand.reactor.spins()
    };
    turn_after(&mut by_hand, 2 * spin);
    assert!(!by_hand.reactor.spins(), "there was no event for so long");
    by_hand.send(b"\x00\x01x");
    by_hand.until(|by_hand| by_hand.listener.stats().packets_in == 2);
    assert!(by_hand.reactor.spins());
    assert!(turn_after(&mut by_hand, spin - Duration::from_nanos(1)));
    assert!(!turn_after(&mut by_hand, Duration::from_nanos(1)));

    let mut by_hand = ByHand::new(ListenerOptions::port(0));
    by_hand.send(b"\x00\x01x");
    by_hand.until(|by_hand| by_hand.listener.stats().packets_in == 2);
    assert!(!by_hand.reactor.spins(), "the default");
}
