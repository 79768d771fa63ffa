//! The reactor inside a loop of the user: `turn`, `next_deadline`, and the descriptor to watch.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::{Action, Info, ListenerOptions, Reactor};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::support::{Client, PATIENCE, Script, drive, inet, next, now, settle};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// A user's loop, with the reactor as one of its sources.
struct Loop {
    poll: Poll,
    events: Events,
}

impl Loop {
    fn around(reactor: &Reactor) -> Self {
        let poll = Poll::new().unwrap();
        let fd = reactor.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(7), Interest::READABLE).unwrap();
        Self { poll, events: Events::with_capacity(8) }
    }

    /// Waits until the reactor's next deadline. Returns whether the reactor's descriptor became
    /// readable.
    fn wait(&mut self, reactor: &Reactor) -> bool {
        let timeout = reactor.next_deadline().unwrap_or(PATIENCE);
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        !self.events.is_empty()
    }

    /// The same without waiting.
    fn is_announced(&mut self) -> bool {
        self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        !self.events.is_empty()
    }
}

/// Goal: a loop serves all connections if it waits for the descriptor, no longer than
/// `next_deadline`, and turns without waiting. Method: two clients on threads with a thousand
/// requests each, one of them pipelined, and a timer between.
#[test]
fn a_loop_of_the_users_own_serves_sockets_timers_and_messages() {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("test", any_port(), |_| {
            Script::<String>::new()
                .packet(|packet, ctx| match packet {
                    b"later" => {
                        let _ = ctx.send_after(Duration::from_millis(5), "timer".to_owned());
                        Action::Continue
                    }
                    b"now" => {
                        ctx.address().send("message".to_owned()).unwrap();
                        Action::Continue
                    }
                    other => Action::send(other.to_vec()),
                })
                .info(|info, _| match info {
                    Info::Message(text) => Action::send(text),
                    other => other.default_action(),
                })
        })
        .unwrap();
    let addr = inet(listener.local_addr());
    let handle = reactor.handle();
    let clients: Vec<_> = (0..2)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                for _ in 0..1000 {
                    assert_eq!(client.ask(b"hi"), b"hi");
                }
                for _ in 0..20 {
                    assert_eq!(client.ask(b"later"), b"timer");
                    assert_eq!(client.ask(b"now"), b"message");
                }
                for _ in 0..1000 {
                    client.send(b"pipelined");
                }
                for _ in 0..1000 {
                    assert_eq!(client.receive(), b"pipelined");
                }
            })
        })
        .collect();
    let closer = thread::spawn(move || {
        clients.into_iter().for_each(|client| client.join().unwrap());
        drop(handle.shutdown().unwrap());
    });
    let mut own = Loop::around(&reactor);
    let deadline = now() + PATIENCE;
    while !reactor.is_stopped() {
        own.wait(&reactor);
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(now() < deadline, "the loop does not come to an end");
    }
    closer.join().unwrap();
}

/// Goal: a command from another thread makes the descriptor readable, also before the reactor's
/// first turn. Method: the deadline is read, another thread sends a command, and the test waits for
/// the descriptor. First before any turn, then after some turns.
#[test]
fn other_threads_wake_a_loop_of_the_users_own() {
    let mut reactor = Reactor::new().unwrap();
    let mut own = Loop::around(&reactor);
    for round in 0..200 {
        assert_eq!(reactor.next_deadline(), None);
        let handle = reactor.handle();
        let name = format!("listener {round}");
        let (go, wait) = channel::<()>();
        let other = thread::spawn(move || {
            next(&wait);
            handle.start_listener(&name, any_port(), |_| Script::<()>::new()).unwrap();
        });
        // The deadline was read before, as in a loop that is about to wait.
        go.send(()).unwrap();
        own.poll.poll(&mut own.events, Some(PATIENCE)).unwrap();
        assert!(!own.events.is_empty(), "no event in round {round}");
        other.join().unwrap();
        while reactor.next_deadline() == Some(Duration::ZERO) {
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
    }
    assert_eq!(reactor.handle().listeners().len(), 200);
}

/// Goal: `next_deadline` is zero while work is queued, the time to the next timer if only a timer is
/// left, and `None` if nothing is. Method: each state in turn.
#[test]
fn next_deadline_is_the_time_until_the_next_work() {
    let (addresses, address) = channel();
    let hour = Duration::from_secs(3600);
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            Script::<u32>::new()
                .sends_address(&addresses)
                .packet(move |_, ctx| {
                    let _ = ctx.send_after(hour, 1);
                    Action::Continue
                })
                .info(|info, _| info.default_action())
        })
        .unwrap();
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None, "a listener has no deadline");
    let mut client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None, "an idle connection has no deadline");

    next(&address).send(0).unwrap();
    assert_eq!(reactor.next_deadline(), Some(Duration::ZERO), "a message is work");
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None);

    client.raw(b"\x00\x01");
    drive(&mut reactor, "half a packet", || listener.stats().bytes_in == 2);
    settle(&mut reactor);
    let packet = reactor.next_deadline().unwrap();
    assert!(packet <= Duration::from_secs(11) && packet > Duration::ZERO, "{packet:?}");
    client.raw(b"x");
    drive(&mut reactor, "a packet", || listener.stats().packets_in == 1);
    settle(&mut reactor);
    let timer = reactor.next_deadline().unwrap();
    assert!(timer <= hour + Duration::from_millis(2), "{timer:?}");
    drop(client);
    drive(&mut reactor, "its end", || listener.stats().open == 0);
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None, "its timers went with it");
}

/// Goal: memory that a burst needed is freed later, and `next_deadline` is the time until then.
/// Method: large packets, cut in two, on ten connections at once. The deadline is read before, and
/// after all connections are gone.
#[test]
fn after_a_burst_next_deadline_is_that_of_the_trim() {
    let mut reactor = Reactor::new().unwrap();
    let silent = |_: &condor::Accepted<'_, _>| Script::<()>::new().packet(|_, _| Action::Continue);
    let listener = reactor.start_listener("test", any_port(), silent).unwrap();
    let mut clients: Vec<Client> =
        (0..10).map(|_| Client::connect(listener.local_addr())).collect();
    drive(&mut reactor, "the connections", || listener.stats().open == 10);
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None);
    let packet = [&60_000_u16.to_be_bytes()[..], &[7; 60_000]].concat();
    let (first, second) = packet.split_at(40_000);
    clients.iter_mut().for_each(|client| client.raw(first));
    drive(&mut reactor, "the first halves", || listener.stats().bytes_in == 400_000);
    clients.iter_mut().for_each(|client| client.raw(second));
    drive(&mut reactor, "the packets", || listener.stats().packets_in == 10);
    drop(clients);
    drive(&mut reactor, "their ends", || listener.stats().open == 0);
    settle(&mut reactor);
    let trim = reactor.next_deadline().expect("a trim is to come");
    assert!(trim > Duration::ZERO && trim <= Duration::from_secs(11), "{trim:?}");
}

/// Goal: if nothing happens a turn waits for exactly its timeout, however many idle connections
/// there are. Method: fifty connections, timeouts of zero and of 50 ms.
#[test]
fn an_idle_reactor_waits_for_its_whole_timeout() {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.start_listener("test", any_port(), |_| Script::<()>::new()).unwrap();
    let _clients: Vec<Client> = (0..50).map(|_| Client::connect(listener.local_addr())).collect();
    drive(&mut reactor, "the connections", || listener.stats().open == 50);
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None);
    for wait in [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200)] {
        let from = now();
        reactor.turn(Some(wait)).unwrap();
        assert!(from.elapsed() >= wait, "something woke an idle reactor");
    }
}

/// Goal: a wait has the right length, however far the next timer or the end of the wait is, and
/// events during the wait are served. Method: timers and timeouts on both sides of the limit of 32
/// bits. Each time a client sends after 30 ms, and no turn ends before that.
#[test]
fn a_far_deadline_neither_ends_a_wait_nor_hides_events() {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let far = [25 * DAY, 40 * DAY, 1 << 31, 1 << 32, (1 << 32) + 10, (1 << 33) + 10, 1 << 40];
    let far = far.into_iter().map(Duration::from_millis).chain([Duration::MAX]);
    for (delay, timeout) in far.flat_map(|far| [(Some(far), None), (None, Some(far))]) {
        let mut reactor = Reactor::new().unwrap();
        let listener = reactor
            .start_listener("test", any_port(), move |_| {
                Script::<()>::new().init(move |ctx| {
                    delay.map(|delay| ctx.send_after(delay, ()));
                    Action::Continue
                })
            })
            .unwrap();
        let mut client = Client::connect(listener.local_addr());
        drive(&mut reactor, "a connection", || listener.stats().open == 1);
        settle(&mut reactor);
        let (asks, asked) = channel();
        let asking = thread::spawn(move || {
            thread::park_timeout(Duration::from_millis(30));
            asks.send(()).unwrap();
            client.ask(b"hi")
        });
        reactor.turn(timeout).unwrap();
        assert!(asked.try_recv().is_ok(), "{delay:?}, {timeout:?}: a turn ended without a cause");
        drive(&mut reactor, "the answer", || asking.is_finished());
        assert_eq!(asking.join().unwrap(), b"hi");
    }
}

/// Goal: a running reactor makes no turn while nothing happens. Method: the turns are counted over a
/// period without any traffic.
#[test]
fn an_idle_reactor_does_not_turn() {
    let (server, listener, _) = crate::support::Server::echo(any_port());
    let mut clients: Vec<Client> =
        (0..10).map(|_| Client::connect(listener.local_addr())).collect();
    for client in &mut clients {
        assert_eq!(client.ask(b"hi"), b"hi");
    }
    let turns = || server.handle.loop_stats()[0].turn_nanos.count();
    // The turn that answered may be counted after the answer has arrived.
    let (mut before, deadline) = (turns(), now() + PATIENCE);
    loop {
        let (_keep, silence) = channel::<()>();
        assert!(silence.recv_timeout(Duration::from_millis(300)).is_err());
        if turns() == before {
            return;
        }
        assert!(now() < deadline, "an idle reactor turns");
        before = turns();
    }
}

/// Goal: `is_stopped` tells a user's loop that a shutdown has ended the reactor, and a turn after
/// that is harmless. Method: `is_stopped` before and after the shutdown.
#[test]
fn is_stopped_reports_the_end_of_the_reactor() {
    let mut reactor = Reactor::new().unwrap();
    let ended = Rc::new(Cell::new(false));
    let end = Rc::clone(&ended);
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            let end = Rc::clone(&end);
            Script::<()>::new().end(move |_| end.set(true))
        })
        .unwrap();
    let client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    let drain = reactor.handle().shutdown().unwrap();
    assert!(!reactor.is_stopped());
    drop(client);
    drive(&mut reactor, "the shutdown", || drain.report().is_some());
    assert!(reactor.is_stopped() && ended.get());
    reactor.turn(Some(Duration::ZERO)).unwrap();
    reactor.run().unwrap();
}

/// Goal: `next_deadline` is relative to the present, not to the end of the last turn. Method: the
/// deadline of one timer is read twice. The second value is smaller by the time in between.
#[test]
fn next_deadline_counts_from_the_present() {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("test", any_port(), |_| {
            Script::<()>::new().init(|ctx| {
                let _ = ctx.send_after(Duration::from_secs(3600), ());
                Action::Continue
            })
        })
        .unwrap();
    let _client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    settle(&mut reactor);
    let first = reactor.next_deadline().unwrap();
    let (from, passed) = (now(), Duration::from_millis(5));
    while from.elapsed() < passed {
        std::hint::spin_loop();
    }
    let second = reactor.next_deadline().unwrap();
    assert!(second + passed <= first, "{second:?} at least 5 ms after {first:?}");
}

/// Goal: a loop that continues after its listening socket broke is still woken by other threads.
/// Method: the socket is shut down through a second descriptor. After the turn that finds this,
/// whatever it returns, a command has to make the descriptor readable at once.
#[test]
fn a_loop_is_woken_also_after_its_listening_socket_broke() {
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reactor = Reactor::new().unwrap();
    let mut own = Loop::around(&reactor);
    let options = ListenerOptions::from_std(kept.try_clone().unwrap());
    let listener = reactor.start_listener("test", options, |_| Script::<()>::new()).unwrap();
    let mut client = Client::connect(listener.local_addr());
    client.send(b"hi");
    drive(&mut reactor, "an answer", || client.arrived() == 4);
    socket2::SockRef::from(&kept).shutdown(std::net::Shutdown::Both).unwrap();
    let handle = reactor.handle();
    let deadline = now() + PATIENCE;
    while reactor.turn(Some(Duration::ZERO)).is_ok() && !handle.listeners().is_empty() {
        assert!(now() < deadline, "no turn finds the broken socket");
    }
    while own.is_announced() {}
    let start = || handle.start_listener("another", any_port(), |_| Script::<()>::new()).unwrap();
    thread::scope(|scope| drop(scope.spawn(start)));
    assert!(own.is_announced(), "a loop that waits is not woken");
}

/// Goal: a long turn reads the clock again after every 32 connections, so that times relative to
/// "now" are not relative to the turn's beginning. Method: a turn that serves more than a hundred
/// connections. Each handler gets a time no older than the call of the handler 32 before it.
#[test]
fn a_long_turn_reads_the_clock_again() {
    const CLIENTS: usize = 150;
    let calls = Rc::new(RefCell::new(Vec::with_capacity(CLIENTS)));
    let own = Rc::clone(&calls);
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("test", any_port().max_connections(CLIENTS), move |_| {
            let calls = Rc::clone(&own);
            Script::<()>::new().packet(move |_, ctx| {
                calls.borrow_mut().push((now(), ctx.now()));
                Action::Continue
            })
        })
        .unwrap();
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client::connect(listener.local_addr())).collect();
    drive(&mut reactor, "the connections", || listener.stats().open == CLIENTS as u64);
    settle(&mut reactor);
    let deadline = now() + PATIENCE;
    // A turn may miss some of them: the last packets may still be in transit.
    while calls.borrow().len() < 100 {
        assert!(now() < deadline, "no turn has served all of them");
        settle(&mut reactor);
        calls.borrow_mut().clear();
        clients.iter_mut().for_each(|client| client.send(b"hi"));
        reactor.turn(None).unwrap();
    }
    let calls = calls.borrow();
    for (earlier, later) in calls.iter().zip(&calls[32..]) {
        assert!(later.1 >= earlier.0, "a time {:?} too early", earlier.0 - later.1);
        assert!(later.1 <= later.0, "a time in the future");
    }
}
