//! Inherited sockets: a descriptor that is no listening socket is refused at the start, and a
//! process that keeps a descriptor of the socket cannot block the reactor through it.

use std::fs::File;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::{Endpoint, Error, Handle, ListenerOptions, Reactor};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::support::{
    Client, Script, Server, child, descriptors, drive, framed, is_child, next, over, passes,
    settle, until,
};

fn echo() -> Script<()> {
    Script::new()
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

// ---- what is refused ----

/// A descriptor of any kind, in the type of a listening TCP socket.
fn given(fd: impl Into<OwnedFd>) -> TcpListener {
    TcpListener::from(fd.into())
}

fn socket(domain: Domain, kind: Type) -> Socket {
    Socket::new(domain, kind, None).unwrap()
}

/// The two ends of a TCP connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (stream, listener.accept().unwrap().0)
}

/// The flags of a descriptor's open file description, by fcntl(2).
fn flags(fd: &impl AsRawFd) -> u32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap()
}

/// The address to which a socket is bound, if its kind has addresses.
fn bound(fd: &TcpListener) -> Option<Endpoint> {
    let addr = SockRef::from(fd).local_addr().ok()?;
    let path = addr.as_pathname().map(|path| format!("unix:{}", path.display()));
    let name = addr.as_abstract_namespace().map(|name| format!("unix:@{}", name.escape_ascii()));
    let inet = addr.as_socket().map(|addr| addr.to_string());
    Some(inet.or(path).or(name)?.parse().unwrap())
}

/// Starts a listener with this descriptor, which has to fail and leave nothing behind.
#[track_caller]
fn refused(handle: &Handle, fd: impl Into<OwnedFd>, what: &str) {
    let given = given(fd);
    let (before, addr) = (flags(&given), bound(&given));
    let kept = given.try_clone().unwrap();
    let error = handle.start_listener("new", ListenerOptions::from_std(given), |_| echo());
    let error = error.map(|listener| listener.local_addr()).unwrap_err();
    let Error::Listen { name, addr: named, source } = &error else { panic!("{what}: {error:?}") };
    assert_eq!((name.as_str(), named), ("new", &addr), "{what}");
    let on = addr.map_or_else(String::new, |addr| format!(" on {addr}"));
    let expected = format!("the inherited descriptor is {what}, not a listening stream socket");
    assert_eq!(source.to_string(), expected);
    assert_eq!(error.to_string(), format!("listener \"new\": cannot listen{on}: {expected}"));

    assert_eq!(flags(&kept), before, "{what}: its flags changed");
    let listed = handle.listeners().iter().any(|(name, ..)| name == "new");
    assert!(!listed, "{what}: the listener is listed");
    let started = handle.start_listener("new", ListenerOptions::port(0), |_| echo()).unwrap();
    assert_eq!(Client::connect(started.local_addr()).ask(b"up"), b"up");
    over(&started.stop().unwrap());
}

/// Goal: a descriptor that is no listening TCP socket is refused when the listener starts. The error
/// says what it is, and nothing is left behind. Method: each kind of socket in each state, and
/// files. After each of them the listener's name is used again. The test counts descriptors, so it
/// runs in its own process.
#[test]
fn a_descriptor_of_another_kind_is_named_and_refused() {
    if !is_child() {
        return passes(&mut child("inherited::a_descriptor_of_another_kind_is_named_and_refused"));
    }
    let (server, ..) = Server::echo(ListenerOptions::port(0));
    let handle = &server.handle;

    let bound = socket(Domain::IPV4, Type::STREAM);
    bound.bind(&loopback().into()).unwrap();
    refused(handle, bound, "a bound TCP socket");
    refused(handle, socket(Domain::IPV4, Type::STREAM), "an unbound TCP socket");
    refused(handle, socket(Domain::IPV6, Type::STREAM), "an unbound TCP socket");
    let (ours, _theirs) = connection();
    refused(handle, ours, "a connected TCP socket");
    let (_ours, accepted) = connection();
    refused(handle, accepted, "a connected TCP socket");
    let (half, _theirs) = connection();
    half.shutdown(Shutdown::Write).unwrap();
    refused(handle, half, "a connected TCP socket");
    let stopped = TcpListener::bind(loopback()).unwrap();
    SockRef::from(&stopped).shutdown(Shutdown::Both).unwrap();
    refused(handle, stopped, "a bound TCP socket");

    let udp = UdpSocket::bind(loopback()).unwrap();
    let connected = UdpSocket::bind(loopback()).unwrap();
    connected.connect(udp.local_addr().unwrap()).unwrap();
    refused(handle, connected, "a connected UDP socket");
    refused(handle, udp, "a bound UDP socket");

    let unix = socket(Domain::UNIX, Type::STREAM);
    let name = format!("\0condor-inherited-{}", std::process::id());
    unix.bind(&SockAddr::unix(name).unwrap()).unwrap();
    refused(handle, unix, "a Unix stream socket");
    let (ours, _theirs) = UnixStream::pair().unwrap();
    refused(handle, ours, "a connected Unix stream socket");
    refused(handle, socket(Domain::UNIX, Type::STREAM), "a Unix stream socket");
    refused(handle, UnixDatagram::unbound().unwrap(), "a Unix datagram socket");
    let (ours, _theirs) = UnixDatagram::pair().unwrap();
    refused(handle, ours, "a connected Unix datagram socket");
    refused(handle, socket(Domain::UNIX, Type::SEQPACKET), "a Unix seqpacket socket");
    let netlink = socket(Domain::from(16), Type::DGRAM);
    refused(handle, netlink, "a socket of address family 16 and type 2");

    let (reads, writes) = std::io::pipe().unwrap();
    refused(handle, reads, "a pipe");
    refused(handle, writes, "a pipe");
    refused(handle, File::open(std::env::current_exe().unwrap()).unwrap(), "a regular file");
    refused(handle, File::open("/").unwrap(), "a directory");
    refused(handle, File::open("/dev/null").unwrap(), "a character device");

    let before = descriptors();
    let (ours, theirs) = connection();
    refused(handle, ours, "a connected TCP socket");
    drop(theirs);
    assert_eq!(descriptors(), before);
}

/// Goal: the same without a running reactor. Method: a reactor without a turn.
#[test]
fn a_reactor_that_does_not_run_refuses_as_well() {
    let mut reactor = Reactor::new().unwrap();
    let (ours, _theirs) = connection();
    let options = ListenerOptions::from_std(given(ours));
    let error = reactor.start_listener("new", options, |_| echo()).unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error}");
    reactor.start_listener("new", ListenerOptions::port(0), |_| echo()).unwrap();
}

// ---- later changes by another process ----

/// A listening socket, a listener on it, and a second descriptor of the socket.
fn shared(options: impl FnOnce(ListenerOptions) -> ListenerOptions) -> (TcpListener, Server) {
    let kept = TcpListener::bind(loopback()).unwrap();
    let options = options(ListenerOptions::from_std(kept.try_clone().unwrap()));
    let (server, ..) = Server::echo(options);
    (kept, server)
}

/// Goal: a listener can be stopped after another process has set its socket to blocking. Method: no
/// client waits at the stop, so an `accept` would block. Once with one open connection and once with
/// none.
#[test]
fn a_socket_set_to_blocking_can_be_stopped() {
    for is_served in [false, true] {
        let (kept, server) = shared(|options| options);
        let client = is_served.then(|| {
            let mut client = Client::connect(kept.local_addr().unwrap());
            assert_eq!(client.ask(b"hi"), b"hi");
            client
        });
        kept.set_nonblocking(false).unwrap();
        let drain = server.handle.stop_listener("test").unwrap();
        if let Some(mut client) = client {
            client.expect_end();
        }
        assert_eq!(over(&drain).drained, u64::from(is_served));
    }
}

/// Goal: the deadline of a drain holds on a socket that was set to blocking. Method: half a packet
/// that is never completed.
#[test]
fn a_drain_of_a_socket_set_to_blocking_ends_by_its_deadline() {
    let (kept, server) = shared(|options| options.drain_timeout(Duration::from_millis(100)));
    let mut client = Client::connect(kept.local_addr().unwrap());
    client.raw(b"\x00\x04ha");
    until("half a packet", || server.stats().bytes_in == 4);
    kept.set_nonblocking(false).unwrap();
    let report = over(&server.handle.shutdown().unwrap());
    assert_eq!((report.drained, report.forced), (0, 1));
}

/// Goal: the socket is set to non-blocking again before the next `accept`, because another process
/// may accept the client first. Method: the socket is set to blocking. Its flags are checked after a
/// client was served.
#[test]
fn a_socket_set_to_blocking_is_set_back_with_the_next_client() {
    const NONBLOCK: u32 = 0o4_000;
    let (kept, _server) = shared(|options| options);
    for _ in 0..3 {
        kept.set_nonblocking(false).unwrap();
        assert_eq!(Client::connect(kept.local_addr().unwrap()).ask(b"hi"), b"hi");
        assert_eq!(flags(&kept) & NONBLOCK, NONBLOCK);
    }
}

/// Goal: no `accept` blocks, however many clients come. Method: 1 to 24 clients at once, so that the
/// listener accepts several per turn and tries to accept more than there are. The socket is set to
/// blocking before each turn. The reactor runs on a separate thread, which has to end.
#[test]
fn no_accept_waits_for_a_client_that_does_not_come() {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let kept = TcpListener::bind(loopback()).unwrap();
        let mut reactor = Reactor::new().unwrap();
        let options = ListenerOptions::from_std(kept.try_clone().unwrap());
        let listener = reactor.start_listener("test", options, |_| echo()).unwrap();
        for count in 1..=24 {
            let mut clients: Vec<Client> =
                (0..count).map(|_| Client::connect(listener.local_addr())).collect();
            clients.iter_mut().for_each(|client| client.send(b"hi"));
            drive(&mut reactor, "all are answered", || {
                kept.set_nonblocking(false).unwrap();
                clients.iter().all(|client| client.arrived() == framed(b"hi").len())
            });
            drop(clients);
            drive(&mut reactor, "all have left", || listener.stats().open == 0);
        }
        sender.send(listener.stats().accepted).unwrap();
    });
    assert_eq!(next(&receiver), (1..=24).sum::<u64>());
}

/// Goal: the reactor does not block even if another process sets the socket to blocking all the
/// time. Method: one thread sets it in a loop. A listener on it is started, serves a client and is
/// stopped, 2,000 times. Each stop looks for a client that is not there.
#[test]
fn a_socket_set_to_blocking_all_the_time_is_served_and_stopped() {
    let (kept, server) = shared(|options| options);
    over(&server.handle.stop_listener("test").unwrap());
    let addr = kept.local_addr().unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let giver = thread::spawn({
        let (kept, enough) = (kept.try_clone().unwrap(), Arc::clone(&enough));
        move || {
            while !enough.load(Ordering::SeqCst) {
                kept.set_nonblocking(false).unwrap();
            }
        }
    });
    for _ in 0..2_000 {
        let options = ListenerOptions::from_std(kept.try_clone().unwrap());
        server.handle.start_listener("test", options, |_| echo()).unwrap();
        assert_eq!(Client::connect(addr).ask(b"hi"), b"hi");
        over(&server.handle.stop_listener("test").unwrap());
    }
    enough.store(true, Ordering::SeqCst);
    giver.join().unwrap();
}

/// Goal: a stopped listener gets no events of its socket while another process keeps that socket
/// open. Method: the reactor's descriptor is watched while a client connects. Then another listener
/// gets the socket and serves that client.
#[test]
fn a_stopped_listener_gets_no_events_of_its_socket() {
    let kept = TcpListener::bind(loopback()).unwrap();
    let addr = kept.local_addr().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let options = || ListenerOptions::from_std(kept.try_clone().unwrap());
    let listener = reactor.start_listener("test", options(), |_| echo()).unwrap();
    let drain = listener.stop().unwrap();
    drive(&mut reactor, "the drain is over", || drain.report().is_some());
    settle(&mut reactor);

    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
    let fd = reactor.as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
    poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    let mut client = Client::connect(addr);
    client.send(b"hi");
    poll.poll(&mut events, Some(Duration::from_millis(20))).unwrap();
    assert!(events.is_empty(), "woken for another process's client");

    reactor.start_listener("test", options(), |_| echo()).unwrap();
    drive(&mut reactor, "the client is served", || client.arrived() == 4);
}
