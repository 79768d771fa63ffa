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

/// A loop of the user's own, with the reactor as one of its sources.
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

    /// Waits as long as the reactor says. Returns whether the reactor's descriptor was announced.
    fn wait(&mut self, reactor: &Reactor) -> bool {
        let timeout = reactor.next_deadline().unwrap_or(PATIENCE);
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        !self.events.is_empty()
    }

    /// The same at once.
    fn is_announced(&mut self) -> bool {
        self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        !self.events.is_empty()
    }
}

/// Goal: a loop that waits for the descriptor, no longer than `next_deadline`, and turns without
/// waiting serves everybody. Method: two clients on threads with a thousand requests each, pipelined
/// and not, and a timer in between.
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

/// Goal: a command from another thread announces the descriptor, also when the reactor has not
/// turned even once. Method: look at the deadline, have another thread send, wait for the
/// descriptor; first before any turn, then after some.
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
        // The deadline was asked for before, as in a loop that is about to wait.
        go.send(()).unwrap();
        own.poll.poll(&mut own.events, Some(PATIENCE)).unwrap();
        assert!(!own.events.is_empty(), "nobody was woken in round {round}");
        other.join().unwrap();
        while reactor.next_deadline() == Some(Duration::ZERO) {
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
    }
    assert_eq!(reactor.handle().listeners().len(), 200);
}

/// Goal: `next_deadline` is zero while work is queued, the time to the next timer when only that is
/// due, and `None` when nothing is. Method: each state in turn.
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
    assert_eq!(reactor.next_deadline(), None, "a listener owes nothing");
    let mut client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None, "an idle connection owes nothing");

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

/// Goal: memory that a burst needed is given back later, and `next_deadline` tells when. Method: large
/// packets cut in two on ten connections at once; the deadline before, and when all of them are gone.
#[test]
fn after_a_burst_next_deadline_is_that_of_the_trim() {
    let mut reactor = Reactor::new().unwrap();
    let silent = |_: &condor::Accepted<'_>| Script::<()>::new().packet(|_, _| Action::Continue);
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

/// Goal: a turn waits no longer than it is told, and no shorter when nothing happens, however many
/// idle connections there are. Method: fifty of them, timeouts of zero and of 50 ms.
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

/// Goal: a wait is as long as it has to be, however far away the next timer or the end of the wait
/// is, and what comes meanwhile is served. Method: timers and timeouts on both sides of what the
/// system counts in 32 bits; each time a client asks after 30 ms, and no turn ends before that.
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

/// Goal: a reactor that runs on its own does not turn while nothing happens. Method: count the turns
/// across a stretch of time in which nobody does anything.
#[test]
fn an_idle_reactor_does_not_turn() {
    let (server, listener, _) = crate::support::Server::echo(any_port());
    let mut clients: Vec<Client> =
        (0..10).map(|_| Client::connect(listener.local_addr())).collect();
    for client in &mut clients {
        assert_eq!(client.ask(b"hi"), b"hi");
    }
    let turns = || server.handle.loop_stats()[0].turn_nanos.count();
    // The turn that answered may not have been counted yet when the answer is here.
    let (mut before, deadline) = (turns(), now() + PATIENCE);
    loop {
        let (_keep, silence) = channel::<()>();
        assert!(silence.recv_timeout(Duration::from_millis(300)).is_err());
        if turns() == before {
            return;
        }
        assert!(now() < deadline, "it turns and turns");
        before = turns();
    }
}

/// Goal: a shutdown ends a loop of the user's own as well, and a turn after it does no harm. Method:
/// `is_stopped` before and after.
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

/// Goal: `next_deadline` tells how long it is from now, not from when the last turn ended. Method: the
/// same timer is asked for twice, with some time between; it is as much nearer.
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

/// Goal: a loop that goes on after its listening socket broke is still woken by other threads. Method:
/// the socket is shut down through a descriptor kept from before; after the turn that notices, whatever
/// it returns, a command has to announce the descriptor at once.
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
        assert!(now() < deadline, "the reactor does not notice");
    }
    while own.is_announced() {}
    handle.start_listener("another", any_port(), |_| Script::<()>::new()).unwrap();
    assert!(own.is_announced(), "a loop that waits is not woken");
}

/// Goal: what is counted from "now" in a long turn is counted from its middle, not from its beginning:
/// the time is taken again for every 32 connections. Method: a turn that serves a hundred and more;
/// each handler is told a time no older than the call of the handler 32 before it.
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
    drive(&mut reactor, "they are there", || listener.stats().open == CLIENTS as u64);
    settle(&mut reactor);
    let deadline = now() + PATIENCE;
    // A turn need not see all of them: what was sent last may still be on its way.
    while calls.borrow().len() < 100 {
        assert!(now() < deadline, "no turn has served so many");
        settle(&mut reactor);
        calls.borrow_mut().clear();
        clients.iter_mut().for_each(|client| client.send(b"hi"));
        reactor.turn(None).unwrap();
    }
    let calls = calls.borrow();
    for (earlier, later) in calls.iter().zip(&calls[32..]) {
        assert!(later.1 >= earlier.0, "told a time {:?} before it", earlier.0 - later.1);
        assert!(later.1 <= later.0, "told a time to come");
    }
}
