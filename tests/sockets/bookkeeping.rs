//! Counts over sockets: places in the mailbox, places of connections, reports of drains, and bytes
//! that wait. A count that is wrong by one is noticed only after days.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use condor::{
    Action, Address, Context, Group, Info, ListenerHandle, ListenerOptions, MessageError, Reactor,
    ReactorOptions, Report, Shards,
};

use crate::support::{Client, Script, Server, drive, next, over, settle, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

fn drop_message<M>(info: Info<'_, M>, _: &mut Context<'_, M>) -> Action<'static> {
    match info {
        Info::Message(_) => Action::Continue,
        other => other.default_action(),
    }
}

// ---- places in the mailbox ----

/// Checks that the mailbox has exactly this many free places.
#[track_caller]
fn takes<M>(count: usize, address: &Address<M>, message: impl Fn() -> M) {
    for nth in 0..count {
        assert!(address.send(message()).is_ok(), "message {nth} of {count} is refused");
    }
    let result = address.send(message());
    assert!(matches!(result, Err(MessageError::Full(_))), "more than {count} messages are taken");
}

/// A message whose clone panics if its flag is set.
struct Fragile(bool);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!self.0, "the clone panics as requested");
        Self(false)
    }
}

/// Goal: a broadcast frees its place in the mailbox once the last connection has it, neither sooner
/// nor later. This also holds if there is no connection, or if the clone of the message panics.
/// Method: a mailbox of three places is filled several times, with zero, one and three connections.
/// A turn delivers to one connection.
#[test]
fn broadcasts_free_their_place_once_every_connection_has_them() {
    let budget = ReactorOptions::new().message_budget(3);
    let mut reactor = Reactor::with_options(budget).unwrap();
    let options = any_port().mailbox_capacity(3);
    let factory = |_: &condor::Accepted<'_, _>| Script::<Fragile>::new().info(drop_message);
    let listener = reactor.start_listener("test", options, factory).unwrap();
    let fill = |fragile: bool, when: &str| {
        for nth in 0..3 {
            assert!(listener.broadcast(Fragile(fragile)).is_ok(), "number {nth} is refused {when}");
        }
        let result = listener.broadcast(Fragile(false));
        assert!(matches!(result, Err(MessageError::Full(_))), "a fourth is taken {when}");
    };
    let mut clients = Vec::new();
    for count in [0, 1, 3] {
        while clients.len() < count {
            clients.push(Client::connect(listener.local_addr()));
        }
        drive(&mut reactor, "the connections", || listener.stats().open == count as u64);
        for fragile in [false, false, true, false] {
            let before = listener.stats();
            fill(fragile, &format!("with {count} connections"));
            if count == 3 && !fragile {
                drive(&mut reactor, "the first connection has them", || {
                    listener.stats().messages > before.messages
                });
                assert_eq!(
                    listener.stats().messages - before.messages,
                    3,
                    "one connection has all"
                );
                let result = listener.broadcast(Fragile(false));
                assert!(matches!(result, Err(MessageError::Full(_))), "two connections wait");
            }
            settle(&mut reactor);
            let stats = listener.stats();
            let (delivered, broken) = if fragile { (0, 3) } else { (3, 0) };
            assert_eq!(stats.messages - before.messages, delivered * count as u64);
            assert_eq!(stats.panics - before.panics, broken * count as u64);
        }
    }
}

/// A message whose drop panics, unless it is a clone.
struct Sharp(bool);

impl Clone for Sharp {
    fn clone(&self) -> Self {
        Self(false)
    }
}

impl Drop for Sharp {
    fn drop(&mut self) {
        assert!(!self.0, "the drop panics as requested");
    }
}

/// Goal: a broadcast also frees its place if its drop panics. Method: a mailbox of one place, filled
/// three times, with and without a connection.
#[test]
fn a_broadcast_whose_drop_panics_frees_its_place() {
    let mut reactor = Reactor::new().unwrap();
    let factory = |_: &condor::Accepted<'_, _>| Script::<Sharp>::new().info(drop_message);
    let listener = reactor.start_listener("test", any_port().mailbox_capacity(1), factory).unwrap();
    let mut client = None;
    for open in [0, 1] {
        drive(&mut reactor, "the connection", || listener.stats().open == open);
        for nth in 0..3 {
            assert!(
                listener.broadcast(Sharp(true)).is_ok(),
                "number {nth} with {open} connections"
            );
            settle(&mut reactor);
        }
        client = client.or_else(|| Some(Client::connect(listener.local_addr())));
    }
    assert_eq!(listener.stats().messages, 3);
}

/// Goal: if the reactor ends in the middle of a delivery to all, or to a group, what was being
/// delivered is dropped one by one under guard, as what still waits is. Method: four messages whose
/// drops panic, which have reached one of three connections.
#[test]
fn a_broadcast_that_the_end_of_the_reactor_cuts_is_dropped_with_care() {
    for to_all in [true, false] {
        let budget = ReactorOptions::new().message_budget(4);
        let mut reactor = Reactor::with_options(budget).unwrap();
        let groups = Rc::new(OnceCell::new());
        let theirs = Rc::clone(&groups);
        let factory = move |_: &condor::Accepted<'_, _>| {
            let groups = Rc::clone(&theirs);
            Script::<Sharp>::new().info(drop_message).init(move |ctx| {
                let group: &Group<Sharp> = groups.get_or_init(|| ctx.group());
                ctx.join(group).into()
            })
        };
        let listener = reactor.start_listener("test", any_port(), factory).unwrap();
        let _clients = [(); 3].map(|()| Client::connect(listener.local_addr()));
        drive(&mut reactor, "the connections", || listener.stats().made == 3);
        let send = |message| match to_all {
            true => listener.broadcast(message),
            false => groups.get().unwrap().send(message),
        };
        (0..4).for_each(|_| assert!(send(Sharp(true)).is_ok()));
        drive(&mut reactor, "one connection has them", || listener.stats().messages > 0);
        assert!(listener.stats().messages < 12, "all have them");
        drop(reactor);
        assert_eq!(listener.stats().panics, 4);
    }
}

/// Goal: the sender gets `Full` if any shard is full, and then no shard gets the message. Method: a
/// handler blocks one of two shards, and its mailbox is filled. Then the same with the other shard. The
/// next broadcast is the next thing that the free one gets.
#[test]
fn a_broadcast_that_one_shard_has_no_room_for_reaches_none() {
    let (addresses, address) = channel();
    let (held, is_held) = channel();
    let (go, wait) = channel();
    let wait = Arc::new(Mutex::new(wait));
    let factory = move |_: &condor::Accepted<'_, _>| {
        let (wait, held) = (Arc::clone(&wait), held.clone());
        Script::<String>::new()
            .sends_address(&addresses)
            .packet(move |_, _| {
                held.send(()).unwrap();
                next(&wait.lock().unwrap());
                Action::Continue
            })
            .info(|info, _| match info {
                Info::Message(text) => Action::send(text),
                other => other.default_action(),
            })
    };
    let options = any_port().mailbox_capacity(4);
    let (_server, listener) = Server::sharded(2, ReactorOptions::default(), move |starter| {
        starter.start_listener("test", options, factory).unwrap()
    });
    let mut clients = [(); 2].map(|()| {
        let client = Client::connect(listener.local_addr());
        (client, next(&address))
    });
    for _ in 0..2 {
        let [(blocked, address), (free, _)] = &mut clients;
        blocked.send(b"hold");
        next(&is_held);
        takes(4, address, || "message".to_owned());
        let result = listener.broadcast("news".to_owned());
        assert!(matches!(&result, Err(MessageError::Full(back)) if back == "news"), "{result:?}");
        go.send(()).unwrap();
        (0..4).for_each(|_| assert_eq!(blocked.receive(), b"message"));
        let answered = address.send("done".to_owned());
        assert!(answered.is_ok());
        assert_eq!(blocked.receive(), b"done");
        assert!(listener.broadcast("more".to_owned()).is_ok());
        assert_eq!((blocked.receive(), free.receive()), (b"more".to_vec(), b"more".to_vec()));
        clients.reverse();
    }
}

// ---- places of connections ----

/// Goal: a connection whose factory panics keeps no place, on any shard. Method: room for four
/// connections. Twelve factories panic. Then four clients are served, and a fifth waits until one of
/// them leaves.
#[test]
fn factories_that_panic_keep_no_place_on_any_shard() {
    let calls = Arc::new(AtomicUsize::new(0));
    let factory = move |_: &condor::Accepted<'_, _>| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        assert!(call >= 12, "the factory panics as requested");
        Script::<()>::new()
    };
    let options = any_port().max_connections(4);
    let (_server, listener) = Server::sharded(2, ReactorOptions::default(), move |starter| {
        starter.start_listener("test", options, factory).unwrap()
    });
    for _ in 0..12 {
        Client::connect(listener.local_addr()).expect_gone();
    }
    until("all have failed", || listener.stats().panics == 12);
    let mut clients = [(); 4].map(|()| Client::connect(listener.local_addr()));
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(b"hi"), b"hi"));
    let mut fifth = Client::connect(listener.local_addr());
    until("the limit is noticed", || listener.stats().connection_limit_hits > 0);
    let by_shard: Vec<u64> = listener.shard_stats().iter().map(|stats| stats.open).collect();
    assert_eq!(by_shard, [2, 2]);
    let [first, ..] = clients;
    drop(first);
    assert_eq!(fifth.ask(b"hi"), b"hi");
}

// ---- reports ----

/// A listener whose handlers answer `flood` with this many bytes.
fn flooding(reactor: &mut Reactor, name: &str, bytes: usize) -> ListenerHandle<()> {
    let options = any_port().drain_timeout(Duration::MAX).packet_timeout(Duration::MAX);
    let factory = move |_: &condor::Accepted<'_, _>| {
        Script::<()>::new().packet(move |packet, ctx| {
            if packet == b"flood" {
                while ctx.queued_bytes() < bytes {
                    ctx.send(vec![7; 60_000]).unwrap();
                }
            }
            Action::Continue
        })
    };
    reactor.start_listener(name, options, factory).unwrap()
}

/// Goal: the report of a shutdown is the sum of what all listeners lost. Method: two listeners, each
/// with idle clients, clients inside a packet, and one that does not read. Then a second shutdown.
/// The expected unsent bytes are those of the answers minus those that the kernel took.
#[test]
fn the_report_of_a_shutdown_is_a_sum() {
    let mut reactor = Reactor::new().unwrap();
    let listeners =
        [("a", 5 << 20), ("b", 7 << 20)].map(|(name, bytes)| flooding(&mut reactor, name, bytes));
    let (mut idle, mut clients) = (Vec::new(), Vec::new());
    for (listener, count) in listeners.iter().zip([1, 2]) {
        let connect = || Client::with_small_window(listener.local_addr());
        idle.extend((0..count).map(|_| connect()));
        clients.extend((0..count).map(|_| {
            let mut client = connect();
            client.raw(b"\x00\x09half");
            client
        }));
        let mut stalled = connect();
        stalled.send(b"flood");
        clients.push(stalled);
        drive(&mut reactor, "all has arrived", || {
            listener.stats().open == 2 * count + 1 && listener.stats().bytes_in == 6 * count + 7
        });
    }
    settle(&mut reactor);
    let handle = reactor.handle();
    let first = handle.shutdown().unwrap();
    idle.iter().for_each(Client::finish);
    drive(&mut reactor, "the idle connections end", || handle.stats().open == 5);
    let second = handle.shutdown().unwrap();
    drive(&mut reactor, "both shutdowns end", || {
        first.report().is_some() && second.report().is_some()
    });
    let report = first.report().unwrap();
    assert_eq!(Some(&report), second.report().as_ref());
    let unsent = listeners.each_ref().map(|listener| {
        let stats = listener.stats();
        stats.packets_out * 60_002 - stats.bytes_out
    });
    assert!(unsent.iter().all(|&unsent| unsent > 1 << 20), "{unsent:?}");
    assert_eq!(report.unsent_bytes, unsent[0] + unsent[1]);
    assert_eq!((report.drained, report.forced), (3, 5));
    assert_eq!(report.undelivered_bytes, 3 * 6);
    let after: Vec<Duration> = report.slowest.iter().map(|slow| slow.after).collect();
    assert_eq!(after.len(), 8);
    assert!(after.is_sorted(), "{after:?}");
}

/// Whether a thread of this name exists.
fn thread_runs(name: &str) -> bool {
    std::fs::read_dir("/proc/self/task").unwrap().any(|task| {
        let comm = std::fs::read_to_string(task.unwrap().path().join("comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    })
}

/// Goal: a shard that ended in a first shutdown still adds its part to the report of a second one.
/// Method: two shards with a connection each. One connection ends, and so does its shard; the other
/// continues. Then a second shutdown, and one after the end.
#[test]
fn a_shard_that_has_shut_down_leaves_its_report() {
    let shards = Shards::new(2).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let options = any_port().drain_timeout(Duration::MAX);
    let factory = move |_: &condor::Accepted<'_, _>| {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        Script::<()>::new().info(move |info, _| match info {
            Info::Shutdown if nth == 0 => Action::Continue,
            other => other.default_action(),
        })
    };
    let listener = shards.start_listener("legacy", options, factory).unwrap();
    let handle = shards.handle();
    let running = std::thread::spawn(move || shards.run());
    let mut clients = [(); 2].map(|()| {
        let mut client = Client::connect(listener.local_addr());
        assert_eq!(client.ask(b"hi"), b"hi");
        client
    });
    let first = handle.shutdown().unwrap();
    let [stays, leaves] = &mut clients;
    leaves.expect_end();
    leaves.finish();
    until("its shard has ended", || !(thread_runs("legacy/0") && thread_runs("legacy/1")));
    assert_eq!(first.report(), None);
    let second = handle.shutdown().unwrap();
    stays.expect_gone();
    let (first, second): (Report, Report) = (over(&first), second.wait().unwrap());
    assert_eq!((first.drained, first.forced), (1, 1));
    assert_eq!(first, second);
    until("the other has ended", || running.is_finished());
    running.join().unwrap().unwrap();
}

// ---- bytes that wait ----
