//! Handles that change how many clients a listener takes, and that give it connections, over kernel
//! sockets, on one shard and on two.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::{
    Accepted, Action, Endpoint, Error, ListenerHandle, ListenerOptions, OptionsError, Reactor,
    ReactorOptions, Shards,
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::{Client, PATIENCE, Script, Server, drive, framed, inet, next, over, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

fn echo(_: &Accepted<'_>) -> Script<()> {
    Script::new()
}

/// One listener whose handlers send everything back.
fn echoes(shards: usize, options: ListenerOptions) -> (Server, ListenerHandle<()>) {
    Server::sharded(shards, ReactorOptions::default(), move |starter| {
        starter.start_listener("test", options, echo).unwrap()
    })
}

/// The two ends of a TCP connection: the one to be adopted, and the client.
fn connection() -> (TcpStream, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap());
    (listener.accept().unwrap().0, client)
}

/// A client of an in-process connection, and the end to be adopted.
fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, theirs)
}

/// Sends a packet, and returns the answer.
#[track_caller]
fn ask(mut stream: &UnixStream, payload: &[u8]) -> Vec<u8> {
    stream.write_all(&framed(payload)).unwrap();
    let mut answer = vec![0; 2 + payload.len()];
    stream.read_exact(&mut answer).unwrap();
    answer.split_off(2)
}

/// The flags of a descriptor's open file description, by fcntl(2).
fn flags(fd: &impl AsRawFd) -> u32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap()
}

// ---- the limit ----

/// Goal: the limit of a running listener can be raised, which lets a client in that waits, and
/// lowered, which ends no connection. Method: another thread than the reactor's; the kernel's
/// backlog.
#[test]
fn the_limit_of_a_running_listener_can_be_changed() {
    for shards in [1, 2] {
        let (server, listener) = echoes(shards, any_port().max_connections(1));
        assert_eq!(listener.max_connections(), 1);
        let mut first = Client::connect(listener.local_addr());
        assert_eq!(first.ask(b"one"), b"one");
        let mut second = Client::connect(listener.local_addr());
        second.send(b"two");
        until("it is full", || listener.stats().connection_limit_hits == 1);
        assert_eq!(listener.stats().accepted, 1);
        server.handle.set_max_connections("test", 2).unwrap();
        assert_eq!(second.receive(), b"two");
        assert_eq!(listener.max_connections(), 2);

        listener.set_max_connections(1).unwrap();
        let mut third = Client::connect(listener.local_addr());
        third.send(b"three");
        // The reactor has met the third client by the time it answers.
        assert_eq!((first.ask(b"on"), second.ask(b"on")), (b"on".to_vec(), b"on".to_vec()));
        assert_eq!(listener.stats().accepted, 2);
        drop(first);
        until("one has left", || listener.stats().open == 1);
        assert_eq!(second.ask(b"on"), b"on");
        assert_eq!(listener.stats().accepted, 2);
        drop(second);
        assert_eq!(third.receive(), b"three");
        let error = listener.set_max_connections(0).unwrap_err();
        let Error::Options { errors, .. } = error else { panic!("{error:?}") };
        assert_eq!(errors, [OptionsError::Zero("max_connections")]);
        assert_eq!(listener.max_connections(), 1);
    }
}

/// Goal: the limit is exact, whoever brings connections and while it changes: never more than the
/// highest limit, and no place is lost. Method: threads that connect, threads that give connections,
/// and one that changes the limit, at once; the factory counts. In the end the limit is reached
/// exactly.
#[test]
fn the_limit_is_exact_for_all_that_bring_connections() {
    const LIMIT: usize = 5;
    const ROUNDS: usize = 100;
    for shards in [1, 2] {
        let alive = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (now_alive, peak) = (Arc::clone(&alive), Arc::clone(&most));
        let make = move |_: &Accepted<'_>| {
            let count = now_alive.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(count, Ordering::SeqCst);
            let alive = Arc::clone(&now_alive);
            Script::<()>::new().end(move |_| {
                alive.fetch_sub(1, Ordering::SeqCst);
            })
        };
        let options = any_port().max_connections(LIMIT);
        let (_server, listener) =
            Server::sharded(shards, ReactorOptions::default(), move |starter| {
                starter.start_listener("test", options, make).unwrap()
            });
        let addr = inet(listener.local_addr());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        assert_eq!(Client::connect(addr).ask(b"accepted"), b"accepted");
                    }
                });
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let (ours, theirs) = pair();
                        let mut fd = OwnedFd::from(ours);
                        while let Err(refused) = listener.adopt(fd) {
                            assert!(matches!(refused.error, Error::Full { .. }), "{refused}");
                            fd = refused.fd;
                            thread::yield_now();
                        }
                        assert_eq!(ask(&theirs, b"adopted"), b"adopted");
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    for limit in [1, LIMIT, 3] {
                        listener.set_max_connections(limit).unwrap();
                        thread::yield_now();
                    }
                }
                listener.set_max_connections(LIMIT).unwrap();
            });
        });
        until("all have left", || listener.stats().open == 0);
        assert!(most.load(Ordering::SeqCst) <= LIMIT, "the limit is passed");
        let stats = listener.stats();
        let each = 4 * ROUNDS as u64;
        assert_eq!((stats.accepted, stats.adopted, stats.made), (each, each, 2 * each));

        let mut kept = Vec::new();
        while let Ok(theirs) = {
            let (ours, theirs) = pair();
            listener.adopt(ours.into()).map(|()| theirs)
        } {
            kept.push(theirs);
        }
        assert_eq!(kept.len(), LIMIT, "a place was lost, or given twice");
    }
}

// ---- pauses ----

/// Goal: clients that connect in a pause are served after it. The state is visible, and the server
/// is ready all the time. Method: clients that have sent before the pause ends.
#[test]
fn clients_that_connect_in_a_pause_are_served_after_it() {
    for shards in [1, 2] {
        let (server, listener) = echoes(shards, any_port());
        let mut first = Client::connect(listener.local_addr());
        assert_eq!(first.ask(b"one"), b"one");
        assert!(listener.is_accepting());
        listener.pause_accepting().unwrap();
        assert!(!listener.is_accepting() && server.handle.is_ready());
        let mut waiting: Vec<Client> =
            (0..4).map(|_| Client::connect(listener.local_addr())).collect();
        waiting.iter_mut().for_each(|client| client.send(b"later"));
        assert_eq!(first.ask(b"one more"), b"one more");
        assert_eq!(listener.stats().accepted, 1);
        server.handle.resume_accepting("test").unwrap();
        assert!(listener.is_accepting());
        waiting.iter_mut().for_each(|client| assert_eq!(client.receive(), b"later"));
        listener.pause_accepting().unwrap();
        let mut last = Client::connect(listener.local_addr());
        last.send(b"last");
        let drain = listener.stop().unwrap();
        assert!(!listener.is_accepting());
        assert_eq!(last.receive(), b"last", "a drain ends the pause");
        for client in waiting.iter_mut().chain([&mut first, &mut last]) {
            client.expect_end();
        }
        drop((first, waiting, last));
        assert_eq!(over(&drain).drained, 6);
    }
}

/// Goal: a reactor rests in a pause, although clients wait in the kernel. Method: turns of a loop of
/// the user's own, until there is nothing to do.
#[test]
fn a_reactor_rests_while_clients_wait_in_a_pause() {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.start_listener("test", any_port(), echo).unwrap();
    listener.pause_accepting().unwrap();
    let mut clients = [(); 3].map(|()| Client::connect(listener.local_addr()));
    // The clients are announced. Nothing else is left to do.
    let mut turns = 0;
    while reactor.next_deadline() == Some(Duration::ZERO) || turns < 3 {
        reactor.turn(Some(Duration::from_millis(2))).unwrap();
        turns += 1;
        assert!(turns < 10, "it is busy");
    }
    assert_eq!(reactor.next_deadline(), None);
    listener.resume_accepting().unwrap();
    assert_eq!(reactor.next_deadline(), Some(Duration::ZERO));
    clients.iter_mut().for_each(|client| client.send(b"hi"));
    drive(&mut reactor, "answers", || clients.iter().all(|client| client.arrived() == 4));
}

// ---- connections that others accepted ----

/// Goal: a connection that is given to a listener is served like one that it accepted: bytes that had
/// arrived come first, it goes to the shard with fewest, and it is counted. Method: TCP connections
/// and socket pairs, on one shard and on two.
#[test]
fn an_adopted_connection_is_served_like_an_accepted_one() {
    for shards in [1, 2] {
        let (endpoints, endpoint) = channel();
        let make = move |peer: &Accepted<'_>| {
            endpoints.send(peer.peer_addr().clone()).unwrap();
            Script::<()>::new().packet(|packet, ctx| match packet {
                b"where" => Action::send(ctx.local_addr().unwrap().to_string()),
                other => Action::send(other.to_vec()),
            })
        };
        let (server, listener) =
            Server::sharded(shards, ReactorOptions::default(), move |starter| {
                starter.start_listener("test", any_port(), make).unwrap()
            });
        let (ours, mut client) = connection();
        let (local, peer) = (ours.local_addr().unwrap(), client.stream.local_addr().unwrap());
        client.send(b"early");
        server.handle.adopt("test", ours.into()).unwrap();
        assert_eq!(client.receive(), b"early");
        assert_eq!(next(&endpoint), Endpoint::from(peer));
        assert_eq!(client.ask(b"where"), local.to_string().into_bytes());

        let (ours, theirs) = pair();
        listener.adopt(ours.into()).unwrap();
        assert_eq!(ask(&theirs, b"inside"), b"inside");
        assert_eq!(next(&endpoint).to_string(), "unix:");

        let give = |(ours, theirs): (UnixStream, UnixStream)| {
            listener.adopt(ours.into()).unwrap();
            theirs
        };
        let more: Vec<UnixStream> = (0..6).map(|_| give(pair())).collect();
        more.iter().for_each(|theirs| assert_eq!(ask(theirs, b"more"), b"more"));
        let by_shard: Vec<(u64, u64)> =
            listener.shard_stats().iter().map(|stats| (stats.open, stats.adopted)).collect();
        let each = 8 / shards as u64;
        assert_eq!(by_shard, vec![(each, each); shards]);
        assert_eq!(listener.stats().accepted, 0);

        drop((client, theirs));
        until("they have left", || listener.stats().open == 6);
        let drain = server.handle.shutdown().unwrap();
        let mut rest = Vec::new();
        for mut theirs in more {
            theirs.read_to_end(&mut rest).unwrap();
        }
        assert!(rest.is_empty());
        assert_eq!(over(&drain).drained, 6);
    }
}

/// Goal: an adopted socket has the options of the listener, and its mode. Method: a second descriptor
/// of the same socket, before and after.
#[test]
fn an_adopted_socket_gets_the_options_of_the_listener() {
    let silent = Duration::from_secs(77);
    let (_server, listener) = echoes(1, any_port().keepalive(silent));
    let (ours, mut client) = connection();
    let kept = ours.try_clone().unwrap();
    let socket = SockRef::from(&kept);
    socket.set_linger(Some(Duration::from_secs(60))).unwrap();
    assert!(!socket.tcp_nodelay().unwrap() && !socket.nonblocking().unwrap());
    listener.adopt(ours.into()).unwrap();
    assert_eq!(client.ask(b"hi"), b"hi");
    assert!(socket.tcp_nodelay().unwrap() && socket.nonblocking().unwrap());
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), silent);
    assert_eq!(socket.linger().unwrap(), None, "`close` would block");
}

/// Goal: a descriptor that is no connected stream socket is named and refused. It comes back
/// unchanged. Method: sockets of each kind and state, and files.
#[test]
fn what_is_no_connection_is_named_and_comes_back() {
    let (server, listener) = echoes(1, any_port());
    let refused = |fd: OwnedFd, what: &str| {
        let (number, before) = (fd.as_raw_fd(), flags(&fd));
        let refused = server.handle.adopt("test", fd).unwrap_err();
        let Error::Adopt { name, source } = &refused.error else { panic!("{refused:?}") };
        let expected = format!("the descriptor is {what}, not a connected stream socket");
        assert_eq!((name.as_str(), source.to_string()), ("test", expected.clone()));
        let text = format!("listener \"test\": cannot adopt the descriptor: {expected}");
        assert_eq!((refused.to_string(), format!("{refused:?}")), (text.clone(), text));
        assert_eq!((refused.fd.as_raw_fd(), flags(&refused.fd)), (number, before), "{what}");
    };
    let socket = |domain, kind| OwnedFd::from(Socket::new(domain, kind, None).unwrap());
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    refused(listening.into(), "a listening TCP socket");
    refused(socket(Domain::IPV4, Type::STREAM), "an unbound TCP socket");
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&inet(([127, 0, 0, 1], 0)).into()).unwrap();
    refused(bound.into(), "a bound TCP socket");
    let (udp, other) = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap()).into();
    udp.connect(other.local_addr().unwrap()).unwrap();
    refused(udp.into(), "a connected UDP socket");
    refused(socket(Domain::UNIX, Type::STREAM), "a Unix stream socket");
    refused(socket(Domain::UNIX, Type::SEQPACKET), "a Unix seqpacket socket");
    let path = std::env::temp_dir().join(format!("condor-adopted-{}", std::process::id()));
    let unix = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    refused(unix.into(), "a listening Unix stream socket");
    refused(File::open("/dev/null").unwrap().into(), "a character device");
    refused(File::open("Cargo.toml").unwrap().into(), "a regular file");
    let (reads, _writes) = std::io::pipe().unwrap();
    refused(reads.into(), "a pipe");
    assert_eq!((listener.stats().adopted, listener.stats().made), (0, 0));
}

/// Goal: a listener that is full gives the descriptor back, unchanged, and takes it once there is
/// room. Method: a limit of one, with an accepted and with an adopted connection.
#[test]
fn a_full_listener_gives_the_descriptor_back() {
    for shards in [1, 2] {
        let (_server, listener) = echoes(shards, any_port().max_connections(1));
        let mut first = Client::connect(listener.local_addr());
        assert_eq!(first.ask(b"hi"), b"hi");
        let (ours, theirs) = pair();
        let before = flags(&ours);
        let refused = listener.adopt(ours.into()).unwrap_err();
        let Error::Full { name, max } = &refused.error else { panic!("{refused:?}") };
        assert_eq!((name.as_str(), *max, flags(&refused.fd)), ("test", 1, before));
        let text = refused.to_string();
        assert!(text.contains("max_connections is 1; "), "{text}");
        drop(first);
        until("there is room", || listener.stats().open == 0);
        // The place is free a moment after the counter says so.
        let mut fd = refused.fd;
        while let Err(refused) = listener.adopt(fd) {
            fd = refused.fd;
            thread::yield_now();
        }
        assert_eq!(ask(&theirs, b"in"), b"in");
        let (ours, _theirs) = pair();
        let refused = listener.adopt(ours.into()).unwrap_err();
        assert!(matches!(Error::from(refused), Error::Full { .. }));

        // A client that waits comes in when the adopted connection ends.
        let mut client = Client::connect(listener.local_addr());
        client.send(b"waits");
        assert_eq!(ask(&theirs, b"on"), b"on");
        assert_eq!(listener.stats().accepted, 1);
        drop(theirs);
        assert_eq!(client.receive(), b"waits");
    }
}

/// Goal: a listener that drains adopts nothing, and gives the descriptor back. What it adopted before
/// is served and drained, on each shard, also if the reactor had no turn since. Method: connections
/// given before the first turn, and after a stop.
#[test]
fn a_drain_serves_what_was_adopted_before_and_adopts_nothing() {
    let shards = Shards::new(2).unwrap();
    let listener = shards.start_listener("test", any_port(), echo).unwrap();
    let handle = shards.handle();
    let pairs: Vec<UnixStream> = (0..8)
        .map(|_| {
            let (ours, mut theirs) = pair();
            theirs.write_all(&framed(b"early")).unwrap();
            listener.adopt(ours.into()).unwrap();
            theirs
        })
        .collect();
    let drain = listener.stop().unwrap();
    let (ours, _theirs) = pair();
    let number = ours.as_raw_fd();
    let refused = handle.adopt("test", ours.into()).unwrap_err();
    assert!(matches!(&refused.error, Error::UnknownName(name) if name == "test"));
    assert_eq!(refused.fd.as_raw_fd(), number);
    handle.shutdown().unwrap();
    let running = thread::spawn(move || shards.run());
    for mut theirs in pairs {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        assert_eq!(all, framed(b"early"));
    }
    let report = over(&drain);
    assert_eq!((report.drained, report.forced), (8, 0));
    running.join().unwrap().unwrap();
    assert!(matches!(listener.adopt(refused.fd).unwrap_err().error, Error::Gone));
}

/// Goal: a connection that is given while the listener stops is served, or it comes back: none is lost
/// in between. Method: a thread gives connections until the first one comes back, and meanwhile
/// another one stops the listener, many times.
#[test]
fn no_connection_is_lost_between_an_adoption_and_a_stop() {
    for shards in [1, 2] {
        let server = Server::sharded(shards, ReactorOptions::default(), |_| ()).0;
        for _ in 0..50 {
            let options = any_port().max_connections(100_000);
            let listener = server.handle.start_listener("test", options, echo).unwrap();
            let given = thread::scope(|scope| {
                let giver = scope.spawn(|| {
                    let mut kept = Vec::new();
                    loop {
                        if kept.len() == 100 {
                            // More would use up the descriptors of this process.
                            until("it stops", || !listener.is_accepting());
                        }
                        let (ours, mut theirs) = pair();
                        theirs.write_all(&framed(b"hi")).unwrap();
                        match listener.adopt(ours.into()) {
                            Ok(()) => kept.push(theirs),
                            Err(refused) => {
                                assert!(matches!(refused.error, Error::UnknownName(_)));
                                return kept;
                            }
                        }
                    }
                });
                until("one is served", || listener.stats().packets_in > 0);
                let drain = listener.stop().unwrap();
                (giver.join().unwrap(), drain)
            });
            let (kept, drain) = given;
            let count = kept.len() as u64;
            for mut theirs in kept {
                let mut all = Vec::new();
                theirs.read_to_end(&mut all).unwrap();
                assert_eq!(all, framed(b"hi"));
            }
            let report = over(&drain);
            assert_eq!((report.drained, report.forced), (count, 0));
        }
    }
}

/// Goal: a callback may give connections to its own listener and to another. Method: both, and the
/// handler makes the pairs.
#[test]
fn a_callback_may_give_connections() {
    for shards in [1, 2] {
        let (pairs, made) = channel();
        let make = move |_: &Accepted<'_>| {
            let pairs = pairs.clone();
            Script::<()>::new().packet(move |packet, ctx| {
                if packet == b"more" {
                    for name in ["test", "other"] {
                        let (ours, theirs) = pair();
                        ctx.handle().adopt(name, ours.into()).unwrap();
                        pairs.send(theirs).unwrap();
                    }
                }
                Action::send(packet.to_vec())
            })
        };
        let (_server, (listener, other)) =
            Server::sharded(shards, ReactorOptions::default(), move |starter| {
                let listener = starter.start_listener("test", any_port(), make).unwrap();
                (listener, starter.start_listener("other", any_port(), echo).unwrap())
            });
        let mut client = Client::connect(listener.local_addr());
        assert_eq!(client.ask(b"more"), b"more");
        for _ in 0..2 {
            assert_eq!(ask(&next(&made), b"hi"), b"hi");
        }
        assert_eq!((listener.stats().adopted, other.stats().adopted), (1, 1));
    }
}
