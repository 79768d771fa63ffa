//! Stopping listeners and reactors over real sockets: packets that had arrived are answered,
//! handlers of open connections are notified, and threads that wait are released.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::{
    Action, CloseKind, CloseReason, Endpoint, Error, Info, ListenerOptions, Reactor, ReactorOptions,
};

use crate::support::{Client, PATIENCE, Script, Server, drive, framed, inet, next, over, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// A client that connects at the moment when the socket closes gets a reset. This does not count as
/// refused.
fn is_refused(addr: impl Into<Endpoint>) -> bool {
    match TcpStream::connect_timeout(&inet(addr), PATIENCE) {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            true
        }
    }
}

/// Goal: every packet that the kernel had acknowledged before the stop is answered, on accepted
/// connections and on those that still wait in the backlog. Then new clients are refused. Method: a
/// handler blocks the reactor while clients write and the stop is sent. Then the reactor continues.
#[test]
fn all_that_had_arrived_before_the_stop_is_answered() {
    // One event a batch: the server has not seen most sockets when the stop arrives.
    let one_event = ReactorOptions::default().events(1);
    let (server, listener, go, has_started) = Server::blocking(one_event, any_port());
    let addr = inet(listener.local_addr());
    let mut blocker = Client::connect(addr);
    let mut known: Vec<Client> = (0..4).map(|_| Client::connect(addr)).collect();
    for client in &mut known {
        assert_eq!(client.ask(b"hi"), b"hi");
    }
    blocker.send(b"block");
    next(&has_started);
    let packets: Vec<u8> = (0..500_u32).flat_map(|n| framed(&n.to_be_bytes())).collect();
    for client in &mut known {
        client.raw(&packets);
    }
    let mut waiting: Vec<Client> = (0..20).map(|_| Client::connect(addr)).collect();
    for client in &mut waiting {
        client.raw(&packets);
    }
    let drain = server.handle.stop_listener("test").unwrap();
    assert_eq!(drain.report(), None);
    go.send(()).unwrap();

    for client in known.iter_mut().chain(&mut waiting) {
        assert!(client.read_to_end() == packets, "every answer, in order, then the end");
    }
    assert_eq!(blocker.read_to_end(), framed(b"block"));
    assert!(is_refused(addr));
    drop((blocker, known, waiting));
    let report = over(&drain);
    assert_eq!((report.drained, report.forced), (25, 0));
    assert_eq!((report.undelivered_bytes, report.unsent_bytes), (0, 0));
    assert_eq!(listener.stats().closed(CloseKind::Shutdown), 25);
}

/// Goal: a stop under load loses no answer. Method: clients on threads send each request after the
/// previous answer. Each may lose only the one request that it sent after the stop.
#[test]
fn a_stop_under_load_breaks_off_between_packets() {
    let (server, listener, ended) = Server::echo(any_port());
    let addr = inet(listener.local_addr());
    let (busy, is_busy) = channel();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let busy = busy.clone();
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                for round in 0_u32.. {
                    if round == 100 {
                        busy.send(()).unwrap();
                    }
                    client.send(&round.to_be_bytes());
                    let mut answer = [0; 6];
                    match std::io::Read::read(&mut client.stream, &mut answer) {
                        Ok(0) => return,
                        Ok(6) => assert_eq!(&answer[2..], round.to_be_bytes()),
                        other => panic!("{other:?} after {round} rounds"),
                    }
                }
            })
        })
        .collect();
    for _ in 0..4 {
        next(&is_busy);
    }
    let drain = server.handle.stop_listener("test").unwrap();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(over(&drain).drained, 4);
    assert_eq!(ended.try_iter().collect::<Vec<_>>(), [CloseReason::Shutdown; 4]);
}

/// Goal: a drain waits for a packet that has begun, and then notifies the handler. Method: half a
/// packet, the stop, the other half.
#[test]
fn a_packet_that_has_begun_is_waited_for() {
    let (ends, ended) = channel();
    let mut reactor = Reactor::new().unwrap();
    let options = any_port().drain_timeout(PATIENCE);
    let listener =
        reactor.start_listener("test", options, move |_| Script::<()>::new().ends(&ends)).unwrap();
    let mut client = Client::connect(listener.local_addr());
    client.raw(b"\x00\x04ha");
    drive(&mut reactor, "half a packet", || listener.stats().bytes_in == 4);
    let drain = listener.stop().unwrap();
    crate::support::settle(&mut reactor);
    assert!(ended.try_recv().is_err(), "it was not waited for");
    assert!(is_refused(listener.local_addr()), "no new client is accepted");
    client.raw(b"lf");
    drive(&mut reactor, "the answer", || client.arrived() == 6);
    assert_eq!(client.read_to_end(), framed(b"half"));
    drop(client);
    drive(&mut reactor, "the drain", || drain.report().is_some());
    assert_eq!(drain.report().unwrap().drained, 1);
    assert_eq!(next(&ended), CloseReason::Shutdown);
}

/// Goal: a handler may continue after `Info::Shutdown` and stop later, and its connection still
/// counts as drained. Method: a handler that answers `Shutdown` with a packet, and stops at a later
/// packet.
#[test]
fn a_handler_may_go_on_after_shutdown() {
    let (server, listener) = Server::one(any_port().drain_timeout(PATIENCE), |_| {
        Script::<()>::new()
            .packet(|packet, _| match packet {
                b"last" => Action::send_and_stop("bye", CloseReason::Normal),
                other => Action::send(other.to_vec()),
            })
            .info(|info, _| match info {
                Info::Shutdown => Action::send("closing soon"),
                other => other.default_action(),
            })
    });
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"hi"), b"hi");
    let drain = listener.stop().unwrap();
    assert_eq!(client.receive(), b"closing soon");
    assert_eq!(client.ask(b"one more"), b"one more");
    assert_eq!(drain.report(), None);
    assert_eq!(client.ask(b"last"), b"bye");
    client.expect_end();
    drop(client);
    let report = over(&drain);
    assert_eq!((report.drained, report.forced), (1, 0));
    assert!(server.handle.listeners().is_empty());
}

/// Goal: connections that are left at the drain deadline are ended by force, and the report counts
/// the lost bytes. Method: a handler that ignores the shutdown, a peer inside a packet, a peer that
/// reads nothing, and one that leaves in time.
#[test]
fn connections_left_at_the_deadline_are_forced_and_reported() {
    let (ends, ended) = channel();
    let (notified, notifications) = channel();
    let options = any_port().drain_timeout(Duration::from_millis(300));
    let (_server, listener) = Server::one(options, move |_| {
        let notified = notified.clone();
        Script::<()>::new()
            .packet(|packet, ctx| {
                if packet == b"flood" {
                    while ctx.queued_bytes() < 6 << 20 {
                        ctx.send(vec![7; 60_000]).unwrap();
                    }
                }
                Action::send(packet.to_vec())
            })
            .info(move |info, ctx| match info {
                Info::Shutdown if ctx.queued_bytes() == 0 => {
                    notified.send(()).unwrap();
                    Action::Continue
                }
                other => other.default_action(),
            })
            .ends(&ends)
    });
    let addr = inet(listener.local_addr());
    let mut stays = Client::connect(addr);
    assert_eq!(stays.ask(b"hi"), b"hi");
    let mut half = Client::connect(addr);
    half.raw(b"\x00\x09half");
    let mut stalled = Client::connect(addr);
    stalled.send(b"flood");
    until("all has arrived", || listener.stats().bytes_in == 4 + 6 + 7);
    let leaves = Client::connect(addr);
    until("all connections are open", || listener.stats().open == 4);
    let drain = listener.stop().unwrap();
    // A connection that leaves before its handler is notified is no part of the drain.
    next(&notifications);
    next(&notifications);
    drop(leaves);
    let report = over(&drain);
    assert_eq!((report.drained, report.forced), (1, 3));
    assert_eq!(report.undelivered_bytes, 6, "half a packet, its header included");
    assert!(report.unsent_bytes > 1 << 20, "{report}");
    let forced = ended.try_iter().filter(|end| *end == CloseReason::DrainForced).count();
    assert_eq!(forced, 3);
    for mut client in [stays, half] {
        client.expect_gone();
    }
    stalled.expect_gone();
}

/// Goal: a shutdown drains every listener and makes `run` return. Its report is the sum. Method: two
/// listeners, three connections, and two threads that wait.
#[test]
fn shutdown_drains_every_listener_and_ends_the_run() {
    let (server, addrs) = Server::start(|reactor| {
        ["a", "b"].map(|name| {
            let factory = |_: &condor::Accepted<'_, _>| Script::<()>::new();
            reactor.start_listener(name, any_port(), factory).unwrap().local_addr()
        })
    });
    let mut clients = [0, 0, 1].map(|at| Client::connect(addrs[at].clone()));
    for client in &mut clients {
        assert_eq!(client.ask(b"hi"), b"hi");
    }
    let drain = server.handle.shutdown().unwrap();
    let waiters = [drain.clone(), drain].map(|drain| thread::spawn(move || drain.wait().unwrap()));
    for mut client in clients {
        client.expect_end();
    }
    for waiter in waiters {
        until("the waiter is released", || waiter.is_finished());
        assert_eq!(waiter.join().unwrap().drained, 3);
    }
    assert!(addrs.into_iter().all(is_refused));
    server.join();
}

/// Goal: a second shutdown does not wait. Method: a far deadline, a handler that continues, and two
/// shutdowns.
#[test]
fn a_second_shutdown_forces_the_rest() {
    let (notified, notifications) = channel();
    let (server, listener) = Server::one(any_port().drain_timeout(Duration::MAX), move |_| {
        let notified = notified.clone();
        Script::<()>::new().info(move |info, _| {
            let Info::Shutdown = info else { return info.default_action() };
            notified.send(()).unwrap();
            Action::Continue
        })
    });
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"hi"), b"hi");
    let first = server.handle.shutdown().unwrap();
    next(&notifications);
    assert_eq!(first.report(), None);
    let second = server.handle.shutdown().unwrap();
    assert_eq!([over(&first).forced, over(&second).forced], [1, 1]);
    client.expect_gone();
    server.join();
}

/// Goal: a second shutdown also ends a listener that is started after it, and accepts no client
/// there; nothing would end such a connection. Method: a listener without a deadline is started
/// after both shutdowns, a client connects, and then the reactor makes its first turns.
#[test]
fn a_listener_started_after_a_second_shutdown_is_forced_as_well() {
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.handle();
    let drains = [handle.shutdown().unwrap(), handle.shutdown().unwrap()];
    let options = any_port().drain_timeout(Duration::MAX);
    let factory = |_: &condor::Accepted<'_, _>| Script::<()>::new();
    let late = handle.start_listener("late", options, factory).unwrap();
    let client = TcpStream::connect(late.local_addr()).unwrap();
    for _ in 0..10 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    assert!(reactor.is_stopped(), "{:?}", late.stats());
    assert_eq!(drains.map(|drain| over(&drain).drained), [0, 0]);
    assert_eq!(late.stats().made, 0);
    drop(client);
}

/// Goal: a listener that is started during a shutdown does not keep the reactor alive. Method: the
/// listener is started while a handler delays the shutdown. Then the handler returns.
#[test]
fn a_listener_started_during_a_shutdown_is_drained_as_well() {
    let (notified, notifications) = channel();
    let (server, listener) = Server::one(any_port().drain_timeout(PATIENCE), move |_| {
        let notified = notified.clone();
        Script::<()>::new().info(move |info, _| {
            let Info::Shutdown = info else { return info.default_action() };
            notified.send(()).unwrap();
            Action::Continue
        })
    });
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"hi"), b"hi");
    let drain = server.handle.shutdown().unwrap();
    next(&notifications);
    match server.handle.start_listener("late", any_port(), |_| Script::<()>::new()) {
        Ok(late) => until("it is refused", || is_refused(late.local_addr())),
        Err(error) => assert!(matches!(error, Error::Gone), "{error}"),
    }
    drop(client);
    // The check `is_refused` may itself have made a connection, which was drained.
    assert_eq!(over(&drain).forced, 0);
    server.join();
}

/// Goal: a wait for a drain on the reactor's own thread is an error, not a deadlock. Method: `wait`
/// in a callback.
#[test]
fn waiting_on_the_reactors_own_thread_is_an_error() {
    let (_server, listener) = Server::one(any_port(), |_| {
        Script::<()>::new().packet(|_, ctx| {
            let waited = ctx.handle().stop_listener("test").unwrap().wait();
            assert!(matches!(waited, Err(Error::WouldDeadlock)), "{waited:?}");
            Action::send("no")
        })
    });
    assert_eq!(Client::connect(listener.local_addr()).ask(b"wait"), b"no");
}

/// Goal: the end of a drain is reported on every thread, in every call. Method: the reactor's own
/// thread asks between turns and in a callback, before and after the reactor is dropped.
#[test]
fn a_drain_that_is_over_is_reported_on_the_reactors_own_thread() {
    let mut reactor = Reactor::new().unwrap();
    let over = reactor.start_listener("over", any_port(), |_| Script::<()>::new()).unwrap();
    let drain = over.stop().unwrap();
    assert!(matches!(drain.wait(), Err(Error::WouldDeadlock)), "only a turn can end it");
    drive(&mut reactor, "the drain is over", || drain.report().is_some());
    let report = drain.report().unwrap();
    assert_eq!(drain.wait().unwrap(), report);
    assert_eq!(drain.wait().unwrap(), report);

    let asked = drain.clone();
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            let asked = asked.clone();
            Script::<()>::new().packet(move |_, _| Action::send(asked.wait().unwrap().to_string()))
        })
        .unwrap();
    let mut client = Client::connect(listener.local_addr());
    client.send(b"wait");
    drive(&mut reactor, "the answer", || client.arrived() > 2);
    assert_eq!(client.receive(), report.to_string().into_bytes());

    let cut_short = listener.stop().unwrap();
    assert!(matches!(cut_short.wait(), Err(Error::WouldDeadlock)));
    drop(reactor);
    assert!(matches!(cut_short.wait(), Err(Error::Gone)), "no turn can end it");
    assert_eq!(drain.wait().unwrap(), report);
}

/// Goal: a reactor's thread may wait for the drain of a reactor on another thread, but not of one on
/// the same thread. Method: a callback that waits for a server on another thread; two reactors on
/// one thread.
#[test]
fn a_reactors_thread_may_wait_for_another_reactor() {
    let (other, listener) = Server::one(any_port(), |_| Script::<()>::new());
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"hi"), b"hi");
    let handle = other.handle.clone();
    let (_server, asked) = Server::one(any_port(), move |_| {
        let handle = handle.clone();
        Script::<()>::new().packet(move |_, _| {
            Action::send(handle.stop_listener("test").unwrap().wait().unwrap().to_string())
        })
    });
    let mut asking = Client::connect(asked.local_addr());
    asking.send(b"wait");
    client.expect_end();
    drop(client);
    assert!(asking.receive().starts_with(b"drained=1 forced=0"));

    let (one, two) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    for reactor in [&one, &two] {
        let drain = reactor.handle().shutdown().unwrap();
        assert!(matches!(drain.wait(), Err(Error::WouldDeadlock)));
    }
}

/// Goal: when the reactor is dropped, handles and addresses return `Gone`, waiting threads are
/// released, and connections end. Method: a drop with a drain in progress, a connected client, and a
/// listener that the reactor has not adopted yet.
#[test]
fn a_dropped_reactor_releases_all_waiters() {
    let (addresses, address) = channel();
    let (ends, ended) = channel();
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.handle();
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            Script::<u32>::new().sends_address(&addresses).ends(&ends)
        })
        .unwrap();
    let mut client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    let address = next(&address);
    let unseen = handle.start_listener("unseen", any_port(), |_| Script::<u32>::new()).unwrap();
    let drain = handle.shutdown().unwrap();
    let waiter = thread::spawn({
        let drain = drain.clone();
        move || drain.wait()
    });
    drop(reactor);

    until("the waiter is released", || waiter.is_finished());
    assert!(matches!(waiter.join().unwrap(), Err(Error::Gone)));
    assert_eq!(next(&ended), CloseReason::DrainForced);
    client.expect_gone();
    assert!(matches!(handle.shutdown(), Err(Error::Gone)));
    assert!(matches!(handle.close(address.id()), Err(Error::Gone)));
    assert!(matches!(handle.stop_listener("test"), Err(Error::Gone | Error::UnknownName(_))));
    let started = handle.start_listener("new", any_port(), |_| Script::<()>::new());
    assert!(matches!(started, Err(Error::Gone)));
    assert!(address.send(7).is_err_and(|error| error.into_message() == 7));
    assert!(listener.broadcast(8).is_err_and(|error| error.into_message() == 8));
    assert!(is_refused(unseen.local_addr()), "its socket is closed");
    assert!(unseen.broadcast(9).is_err_and(|error| error.into_message() == 9));
    let stats = handle.stats();
    assert_eq!((stats.made, stats.terminated, stats.open), (1, 1, 0));
}

/// Goal: a connection can be ended by its id, after its output has left; a stale id ends no
/// connection. Method: one of two connections is closed. Then the same id is used again, with
/// another connection in the slot.
#[test]
fn a_connection_is_closed_by_its_id_and_only_that_one() {
    let (addresses, address) = channel();
    let (server, listener) = Server::one(any_port(), move |_| {
        Script::<()>::new()
            .sends_address(&addresses)
            .packet(|packet, _| Action::send(packet.to_vec()))
    });
    let mut first = Client::connect(listener.local_addr());
    let first_id = next(&address).id();
    let mut second = Client::connect(listener.local_addr());
    next(&address);
    server.handle.close(first_id).unwrap();
    first.expect_end();
    drop(first);
    until("the slot is free", || listener.stats().open == 1);
    let mut third = Client::connect(listener.local_addr());
    let third_id = next(&address).id();
    assert_ne!(first_id, third_id);
    server.handle.close(first_id).unwrap();
    assert_eq!(second.ask(b"still"), b"still");
    assert_eq!(third.ask(b"here"), b"here");
    assert_eq!(listener.stats().closed(CloseKind::Shutdown), 1);
}
