//! Handles tell the truth at every time, on every thread; and ids are unique in the process.

use std::collections::HashSet;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::{
    Accepted, Action, Address, CloseReason, Error, Handle, ListenerHandle, ListenerOptions,
    ListenerState, MessageError, Reactor, Report, Shards,
};
use socket2::SockRef;

use crate::support::{Client, Script, drive, inet, next, over, settle};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

fn echo(_: &Accepted<'_>) -> Script<()> {
    Script::new()
}

/// A listener whose handlers send everything back, and the address of each connection.
fn listener(
    reactor: &mut Reactor,
    options: ListenerOptions,
) -> (ListenerHandle<()>, std::sync::mpsc::Receiver<Address<()>>) {
    let (addresses, address) = channel();
    let make = move |_: &Accepted<'_, _>| Script::new().sends_address(&addresses);
    (reactor.start_listener("test", options, make).unwrap(), address)
}

/// What every handle of a reactor says that has ended by a shutdown with this report.
#[track_caller]
fn expect_ended(
    handle: &Handle,
    listener: &ListenerHandle<()>,
    address: &Address<()>,
    report: &Report,
) {
    assert!(matches!(handle.start_listener("new", any_port(), echo), Err(Error::Gone)));
    assert!(matches!(handle.stop_listener("test"), Err(Error::Gone)));
    assert!(matches!(listener.stop(), Err(Error::Gone)));
    assert_eq!(&handle.shutdown().unwrap().wait().unwrap(), report);
    assert!(matches!(handle.close(address.id()), Err(Error::Gone)));
    assert!(matches!(handle.set_max_connections("test", 7), Err(Error::Gone)));
    assert!(matches!(listener.set_max_connections(7), Err(Error::Gone)));
    assert!(matches!(handle.pause_accepting("test"), Err(Error::Gone)));
    assert!(matches!(listener.pause_accepting(), Err(Error::Gone)));
    assert!(matches!(handle.resume_accepting("test"), Err(Error::Gone)));
    assert!(matches!(listener.resume_accepting(), Err(Error::Gone)));
    assert_eq!((listener.is_accepting(), listener.max_connections()), (false, 100));
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let refused = handle.adopt("test", ours.into()).unwrap_err();
    assert!(matches!(refused.error, Error::Gone));
    assert!(matches!(listener.adopt(refused.fd).unwrap_err().error, Error::Gone));
    assert!(matches!(handle.every(Duration::from_secs(1), || ()), Err(Error::Gone)));
    assert!(matches!(address.send(()), Err(MessageError::Gone(()))));
    assert!(matches!(listener.broadcast(()), Err(MessageError::Gone(()))));
    assert!(!handle.is_ready());
    assert!(handle.listeners().is_empty());
    assert_eq!(listener.state(), ListenerState::Ended);
    assert!(listener.failure().is_none());
    let stats = handle.stats();
    assert_eq!((stats.made, stats.terminated, stats.open), (1, 1, 0));
    assert_eq!(listener.stats(), stats);
}

/// Goal: once `run` has returned, no handle takes what would never be done, whether the value of the
/// reactor still exists or not; a further shutdown has the final report at once. Method: each call, on
/// the reactor's own thread and on another one, before and after the drop; turns of the ended reactor
/// change nothing.
#[test]
fn handles_of_a_reactor_that_has_shut_down_say_so() {
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.handle();
    let (listener, addresses) = listener(&mut reactor, any_port());
    let mut client = Client::connect(listener.local_addr());
    client.send(b"hi");
    drive(&mut reactor, "an answer", || client.arrived() == 4);
    let address = next(&addresses);
    let drain = handle.shutdown().unwrap();
    assert!(!handle.is_ready());
    let leaves = thread::spawn(move || {
        client.receive();
        client.expect_end();
    });
    reactor.run().unwrap();
    leaves.join().unwrap();
    let report = drain.wait().unwrap();
    assert_eq!((report.drained, report.forced), (1, 0));

    let on_every_thread = || {
        expect_ended(&handle, &listener, &address, &report);
        thread::scope(|scope| {
            scope.spawn(|| expect_ended(&handle, &listener, &address, &report));
        });
    };
    on_every_thread();
    assert!(matches!(reactor.start_listener("new", any_port(), echo), Err(Error::Gone)));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    reactor.run().unwrap();
    assert!(reactor.is_stopped());
    on_every_thread();
    drop(reactor);
    on_every_thread();
}

/// Goal: the same for shards, whose value is gone once `run` returns.
#[test]
fn handles_of_shards_that_have_shut_down_say_so() {
    let shards = Shards::new(2).unwrap();
    let (addresses, address) = channel();
    let make = move |_: &Accepted<'_, _>| Script::new().sends_address(&addresses);
    let listener = shards.start_listener("test", any_port(), make).unwrap();
    let handle = shards.handle();
    let running = thread::spawn(move || shards.run());
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"hi"), b"hi");
    let address = next(&address);
    let drain = handle.shutdown().unwrap();
    client.expect_end();
    drop(client);
    let report = over(&drain);
    running.join().unwrap().unwrap();
    expect_ended(&handle, &listener, &address, &report);
}

/// Goal: a listener's state is true at every time, also before the first turn. Method: it is asked
/// before and after each step of its life, and so is one that its reactor never sees.
#[test]
fn the_state_of_a_listener_is_true_at_every_time() {
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.handle();
    let (listener, _addresses) = listener(&mut reactor, any_port());
    assert_eq!(listener.state(), ListenerState::Listening);
    let mut client = Client::connect(listener.local_addr());
    client.send(b"hi");
    drive(&mut reactor, "an answer", || client.arrived() == 4);
    assert_eq!(listener.state(), ListenerState::Listening);
    let drain = listener.stop().unwrap();
    assert_eq!(listener.state(), ListenerState::Draining);
    assert!(matches!(listener.stop(), Err(Error::UnknownName(_))));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(listener.state(), ListenerState::Draining);
    drop(client);
    drive(&mut reactor, "the drain is over", || drain.report().is_some());
    assert_eq!(listener.state(), ListenerState::Ended);

    let by_shutdown = reactor.start_listener("by shutdown", any_port(), echo).unwrap();
    let unseen = handle.start_listener("unseen", any_port(), echo).unwrap();
    assert_eq!(unseen.state(), ListenerState::Listening);
    let drain = handle.shutdown().unwrap();
    drop(reactor);
    for listener in [by_shutdown, unseen] {
        assert_eq!(listener.state(), ListenerState::Ended);
    }
    assert!(matches!(drain.wait(), Err(Error::Gone)));
}

/// Goal: the handle of a listener that has ended does not stop another listener of the same name.
#[test]
fn a_listeners_handle_does_not_stop_its_successor() {
    let mut reactor = Reactor::new().unwrap();
    let first = reactor.start_listener("test", any_port(), echo).unwrap();
    let drain = first.stop().unwrap();
    drive(&mut reactor, "the drain is over", || drain.report().is_some());
    let second = reactor.start_listener("test", any_port(), echo).unwrap();
    assert!(matches!(first.stop(), Err(Error::UnknownName(name)) if name == "test"));
    assert_eq!((first.state(), second.state()), (ListenerState::Ended, ListenerState::Listening));
    assert!(
        matches!(first.set_max_connections(7), Err(Error::UnknownName(name)) if name == "test")
    );
    assert!(matches!(first.pause_accepting(), Err(Error::UnknownName(_))));
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(matches!(first.adopt(ours.into()).unwrap_err().error, Error::UnknownName(_)));
    assert_eq!((second.is_accepting(), second.max_connections()), (true, 100));
    settle(&mut reactor);
    let mut client = Client::connect(second.local_addr());
    client.send(b"hi");
    drive(&mut reactor, "an answer", || client.arrived() == 4);
}

/// Goal: no two connections of one process have the same id or address, and `close` ends no connection
/// of another reactor. Method: two reactors with equal listeners and shards beside them; each id is
/// given to the other reactor.
#[test]
fn ids_are_unique_in_the_process() {
    let mut reactors = [Reactor::new().unwrap(), Reactor::new().unwrap()];
    let mut ids = HashSet::new();
    let mut addresses: Vec<Address<()>> = Vec::new();
    let mut all = Vec::new();
    for reactor in &mut reactors {
        let (listener, told) = listener(reactor, any_port());
        let mut client = Client::connect(listener.local_addr());
        client.send(b"hi");
        drive(reactor, "an answer", || client.arrived() == 4);
        client.receive();
        let address = next(&told);
        assert!(ids.insert(address.id()), "{address:?} twice");
        assert!(!addresses.contains(&address), "{address:?} twice");
        addresses.push(address.clone());
        all.push((listener, client, address));
    }
    let [one, other] = &mut reactors;
    for (here, there) in [(0, 1), (1, 0)] {
        let reactor = if here == 0 { &mut *one } else { &mut *other };
        reactor.handle().close(all[there].2.id()).unwrap();
        settle(reactor);
        assert_eq!(all[here].0.stats().open, 1, "another reactor\u{2019}s id");
    }
    one.handle().close(all[0].2.id()).unwrap();
    settle(one);
    all[0].1.expect_end();
    settle(other);
    assert_eq!(all[1].0.stats().open, 1);
}

/// Goal: if the giver of a socket calls `shutdown` on it, that listener is drained and ends, turns
/// succeed, and other listeners are served. Method: with connections and without, before the first
/// turn, while the listener is full, and in the middle of a stop; a loop of the user's own.
#[test]
fn a_socket_that_its_giver_shuts_down_ends_its_listener_alone() {
    for when in ["idle", "serving", "before the first turn", "full", "stopping"] {
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reactor = Reactor::new().unwrap();
        let handle = reactor.handle();
        let sound = reactor.start_listener("sound", any_port(), echo).unwrap();
        let (ends, ended) = channel();
        let options = ListenerOptions::from_std(kept.try_clone().unwrap()).max_connections(2);
        let make = move |_: &Accepted<'_, _>| Script::<()>::new().ends(&ends);
        let broken = reactor.start_listener("broken", options, make).unwrap();
        let count = match when {
            "idle" | "before the first turn" => 0,
            "full" => 2,
            _ => 1,
        };
        let mut clients: Vec<Client> =
            (0..count).map(|_| Client::connect(broken.local_addr())).collect();
        if when != "before the first turn" {
            drive(&mut reactor, "they are there", || broken.stats().made == count);
            settle(&mut reactor);
        }
        let stop = (when == "stopping").then(|| broken.stop().unwrap());
        SockRef::from(&kept).shutdown(std::net::Shutdown::Both).unwrap();
        settle(&mut reactor);
        if when == "full" {
            // It accepts no client, so it notices only when a place is free.
            drop(clients.pop());
        }
        drive(&mut reactor, "the drain begins", || broken.state() != ListenerState::Listening);
        settle(&mut reactor);
        clients.iter_mut().for_each(Client::expect_end);
        drop(clients);
        drive(&mut reactor, "it has ended", || broken.state() == ListenerState::Ended);
        let failure = broken.failure().expect(when);
        let text = failure.to_string();
        assert!(text.starts_with("listener \"broken\": the listening socket broke: "), "{text}");
        assert_eq!(broken.stats().listener_failures, 1, "{when}");
        assert_eq!(handle.stats().listener_failures, 1, "{when}");
        assert!(ended.try_iter().all(|reason| {
            reason == CloseReason::Shutdown || reason == CloseReason::PeerClosed
        }));
        assert_eq!(stop.map(|drain| over(&drain).drained), (when == "stopping").then_some(1));

        let names: Vec<String> = handle.listeners().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["sound"], "{when}");
        let mut client = Client::connect(inet(sound.local_addr()));
        client.send(b"hi");
        drive(&mut reactor, "the other is served", || client.arrived() == 4);
        let again = handle.start_listener("broken", any_port(), echo).unwrap();
        assert!(again.failure().is_none());
        let drain = handle.shutdown().unwrap();
        drop(client);
        reactor.run().unwrap();
        assert_eq!(drain.wait().unwrap().forced, 0);
    }
}

/// Goal: `run` goes on after a listening socket has failed, and the next shutdown ends it. Method: the
/// only listener fails; another one is started by a handle.
#[test]
fn a_run_goes_on_without_its_only_listener() {
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ListenerOptions::from_std(kept.try_clone().unwrap());
    let (server, broken) = crate::support::Server::one(options, |_| {
        Script::<()>::new().packet(|_, _| Action::send("hello"))
    });
    assert_eq!(Client::connect(broken.local_addr()).ask(b"hi"), b"hello");
    SockRef::from(&kept).shutdown(std::net::Shutdown::Both).unwrap();
    crate::support::until("it has ended", || broken.state() == ListenerState::Ended);
    let next = server.handle.start_listener("next", any_port(), echo).unwrap();
    assert_eq!(Client::connect(next.local_addr()).ask(b"hi"), b"hi");
    server.handle.shutdown().unwrap();
    server.join();
}
