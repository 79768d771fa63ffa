//! Connectors over real sockets: TCP, Unix, names, and backends that come and go.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use condor::{
    Action, Address, Backoff, CloseReason, ConnectionId, ConnectorHandle, ConnectorOptions,
    ConnectorState, Context, Error, Handler, Info, OptionsError, Reactor, ReactorOptions, Retry,
};

use crate::support::{PATIENCE, Server, Starter, child, descriptors, is_child, passes, until};

/// Says "hello" when it is up, passes on what it gets, and says when it is down.
struct Greeter(Sender<String>);

impl Handler for Greeter {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        let _ = self.0.send(format!("up {}", ctx.peer_addr()));
        Action::send("hello")
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        let _ = self.0.send(String::from_utf8_lossy(packet).into_owned());
        Action::Continue
    }

    fn terminate(self, reason: CloseReason) {
        let _ = self.0.send(format!("down {reason:?}"));
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn quick(options: ConnectorOptions) -> ConnectorOptions {
    options.backoff(Backoff::new(millis(1), millis(20)))
}

fn start(options: ConnectorOptions) -> (Server, ConnectorHandle<()>, Receiver<String>) {
    let (tell, told) = channel();
    let (server, connector) = Server::sharded(1, ReactorOptions::default(), move |starter| {
        let Starter::One(reactor) = starter else { unreachable!("one shard") };
        reactor.start_connector("up", quick(options), move |_| Greeter(tell.clone())).unwrap()
    });
    (server, connector, told)
}

fn backend() -> (TcpListener, SocketAddr) {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = backend.local_addr().unwrap();
    (backend, addr)
}

/// The far end of the next connection, which has been greeted.
fn greeted(backend: &TcpListener) -> TcpStream {
    let (mut stream, _) = backend.accept().unwrap();
    let mut hello = [0; 7];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"\0\x05hello");
    stream
}

fn next(told: &Receiver<String>) -> String {
    told.recv_timeout(PATIENCE).expect("the handler says something")
}

/// Goal: a connection to a TCP server is up, gets packets, and is dialled again when the server hangs
/// up or dies. Method: a server by hand, which is started again on the same port.
#[test]
fn a_connection_comes_back_with_its_server() {
    let (listener, addr) = backend();
    let (_server, connector, told) = start(ConnectorOptions::to(addr));
    for text in ["one", "two"] {
        let mut stream = greeted(&listener);
        assert_eq!(next(&told), format!("up {addr}"));
        stream.write_all(b"\0\x03").unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        assert_eq!(next(&told), text);
        drop(stream);
        assert!(next(&told).starts_with("down "));
    }
    drop(greeted(&listener));
    drop(listener);
    until("a dial that was refused", || connector.stats().dial_failures > 2);
    let listener = TcpListener::bind(addr).unwrap();
    let _stream = greeted(&listener);
    until("it is up", || connector.stats().open == 1);
}

/// Goal: a Unix socket is dialled like any other, by path. Method: a server in a temporary directory,
/// which comes after the connector.
#[test]
fn a_unix_socket_is_dialled_by_its_path() {
    let path = std::env::temp_dir().join(format!("condor-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let target = format!("unix:{}", path.display());
    let (_server, connector, told) = start(ConnectorOptions::to(target.as_str()));
    until("a dial that failed", || connector.stats().dial_failures > 0);
    let listener = UnixListener::bind(&path).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut hello = [0; 7];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"\0\x05hello");
    assert_eq!(next(&told), format!("up {target}"));
    std::fs::remove_file(&path).unwrap();
}

/// Goal: a name is looked up by the system's resolver, away from the loop. Method: `localhost`, whose
/// IPv6 address nothing may listen on.
#[test]
fn a_name_is_looked_up() {
    let (listener, addr) = backend();
    let target = format!("localhost:{}", addr.port());
    let (_server, connector, _told) = start(ConnectorOptions::to(target));
    let _stream = greeted(&listener);
    until("it is up", || connector.stats().open == 1);
}

/// Goal: a closure may look names up; what it says is used, and an error or a panic of it is a failed
/// dial. Method: a closure that fails first, panics then, and knows the address at last.
#[test]
fn a_closure_may_look_names_up() {
    let (listener, addr) = backend();
    let calls = std::sync::atomic::AtomicU32::new(0);
    let options = ConnectorOptions::to("service.test:1").resolve(move |name| {
        assert_eq!(name, "service.test:1");
        match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Err(io::Error::other("not today")),
            1 => std::panic::resume_unwind(Box::new("no resolver")),
            2 => Ok(Vec::new()),
            _ => Ok(vec![addr]),
        }
    });
    let (_server, connector, _told) = start(options);
    let _stream = greeted(&listener);
    let stats = connector.stats();
    assert_eq!((stats.dial_failures, stats.attempts), (3, 1));
}

/// Goal: a look-up that hangs ends its dial by the timeout, stalls no turn and no shutdown, and a few
/// of them are left behind at most. Method: a closure that waits until the test lets it go.
#[test]
fn a_look_up_that_hangs_stalls_nothing() {
    let (release, held) = channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (begun, begins) = channel();
    let options =
        ConnectorOptions::to("stuck.test:1").connect_timeout(millis(20)).resolve(move |_| {
            let _ = begun.send(());
            let _ = held.lock().map(|held| held.recv());
            Err(io::Error::other("too late"))
        });
    let (server, connector, _told) = start(options);
    let failures = || connector.stats().dial_failures;
    until("more dials than look-ups may hang", || failures() > 10);
    assert_eq!(begins.try_iter().count(), 4, "the most look-ups that are left behind");
    server.handle.shutdown().unwrap().wait().unwrap();
    drop(release);
}

/// Goal: a stop does not wait for a look-up, nor for the dial that waits for it. Method: a closure that
/// hangs until the test lets it go, and a dial that may take an hour.
#[test]
fn a_stop_does_not_wait_for_a_look_up() {
    let (release, held) = channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (begun, begins) = channel();
    let an_hour = Duration::from_secs(3_600);
    let options =
        ConnectorOptions::to("stuck.test:1").connect_timeout(an_hour).resolve(move |_| {
            let _ = begun.send(());
            let _ = held.lock().map(|held| held.recv());
            Err(io::Error::other("too late"))
        });
    let (_server, connector, told) = start(options);
    begins.recv_timeout(PATIENCE).expect("it looks the name up");
    let report = connector.stop().unwrap().wait().unwrap();
    assert_eq!((report.forced, connector.state()), (0, ConnectorState::Ended));
    drop(release);
    assert!(told.try_recv().is_err(), "nothing was ever up");
}

/// Goal: dials that fail leave no descriptor. Method: hundreds of dials to a port where nothing
/// listens; the descriptors of the process before and after.
#[test]
fn dials_that_fail_leave_no_descriptor() {
    if !is_child() {
        return passes(&mut child("connectors::dials_that_fail_leave_no_descriptor"));
    }
    let (listener, addr) = backend();
    drop(listener);
    let (server, connector, _told) = start(ConnectorOptions::to(addr).connections(10));
    until("a few dials", || connector.stats().dial_failures > 20);
    let before = descriptors().len();
    until("hundreds of dials", || connector.stats().dial_failures > 500);
    server.handle.stop_connector("up").unwrap().wait().unwrap();
    assert!(descriptors().len() <= before, "{before} before");
    assert_eq!(connector.stats().open, 0);
}

/// Goal: each shard keeps its own connections up, and a stop ends those of all shards. Method: two
/// shards with three connections each.
#[test]
fn each_shard_keeps_its_connections_up() {
    let (listener, addr) = backend();
    let (tell, _told) = channel();
    let options = quick(ConnectorOptions::to(addr).connections(3));
    let (server, connector) = Server::sharded(2, ReactorOptions::default(), move |starter| {
        starter.handle().start_connector("up", options, move |_| Greeter(tell.clone())).unwrap()
    });
    let streams: Vec<_> = (0..6).map(|_| greeted(&listener)).collect();
    let open = || connector.shard_stats().iter().map(|stats| stats.open).collect::<Vec<_>>();
    until("three on each shard", || open() == [3, 3]);
    let three = ConnectorState::Up(3);
    until("both shards say so", || connector.shard_states() == [three.clone(), three.clone()]);
    assert_eq!(connector.state(), ConnectorState::Up(6));
    assert!(server.handle.listeners().is_empty(), "a connector is no listener");
    let listed = server.handle.connectors();
    assert_eq!((listed.len(), &*listed[0].0, listed[0].1.open), (1, "up", 6));
    assert!(matches!(server.handle.stop_listener("up"), Err(Error::UnknownName(_))));
    let drain = connector.stop().unwrap();
    drop(streams);
    let report = drain.wait().unwrap();
    assert_eq!((report.drained, report.forced), (6, 0));
    assert_eq!(connector.state(), ConnectorState::Ended);
    assert!(matches!(connector.stop(), Err(Error::UnknownName(_))));
    assert!(server.handle.connectors().is_empty());
    assert_eq!(server.handle.stats().made, 6, "what has ended counts");
}

/// One client of a gateway, or its connection to the server: what the other end sends goes to `other`.
struct Half {
    other: Option<Address<Vec<u8>>>,
    connector: Option<ConnectorHandle<Vec<u8>>>,
    shards: Sender<(u64, u64)>,
}

impl Handler for Half {
    type Message = Vec<u8>;

    fn init(&mut self, ctx: &mut Context<'_, Vec<u8>>) -> Action<'_> {
        if let Some(connector) = &self.connector {
            let dialled = ctx.dial(connector, ["nowhere.test:7", "backend.test:7"]).unwrap();
            dialled.send(b"hello".to_vec()).unwrap();
            self.other = Some(dialled);
        }
        Action::Continue
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Vec<u8>>,
    ) -> Action<'a> {
        if self.connector.is_none() {
            return Action::send_and_stop(packet, CloseReason::Normal);
        }
        let dialled = self.other.as_ref().unwrap();
        let serial = |id: ConnectionId| id.to_string().split('.').next().unwrap().parse().unwrap();
        self.shards.send((serial(ctx.id()), serial(dialled.id()))).unwrap();
        dialled.send(packet.to_vec()).unwrap();
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Vec<u8>>,
        _: &mut Context<'_, Vec<u8>>,
    ) -> Action<'a> {
        match info {
            Info::Message(packet) => Action::send(packet),
            other => other.default_action(),
        }
    }
}

/// Goal: a handler of a listener dials by name, on its own shard, and the connection is another one
/// for each client. Method: a gateway on two shards; two clients; the serials of the parts, which are
/// consecutive numbers for each name; a resolver that knows one of two names.
#[test]
fn handlers_dial_by_name_on_their_own_shard() {
    let (backend, addr) = backend();
    let (tell, told) = channel();
    let (server, (listener, connector)) =
        Server::sharded(2, ReactorOptions::default(), move |starter| {
            let options = ConnectorOptions::on_demand().resolve(move |name| match name {
                "backend.test:7" => Ok(vec![addr]),
                name => Err(io::Error::other(format!("{name} is unknown"))),
            });
            let tell_dialled = tell.clone();
            let connector = starter.handle().start_connector("out", options, move |dialed| {
                assert_eq!(dialed.target(), "backend.test:7");
                Half { other: None, connector: None, shards: tell_dialled.clone() }
            });
            let connector = connector.unwrap();
            let by = connector.clone();
            let options = condor::ListenerOptions::port(0);
            let listener = starter.handle().start_listener("in", options, move |_| Half {
                other: None,
                connector: Some(by.clone()),
                shards: tell.clone(),
            });
            (listener.unwrap(), connector)
        });
    assert_eq!(connector.state(), ConnectorState::Idle);
    let mut clients: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(listener.local_addr().as_inet().unwrap()).unwrap())
        .collect();
    let _streams: Vec<_> = clients.iter().map(|_| greeted(&backend)).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"\0\x01?").unwrap());
    let pairs: Vec<(u64, u64)> = (0..2).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    assert_ne!(pairs[0].0, pairs[1].0, "the clients are on two shards");
    assert_eq!(pairs[0].0.abs_diff(pairs[0].1), pairs[1].0.abs_diff(pairs[1].1));
    assert_eq!(connector.shard_stats().iter().map(|stats| stats.open).collect::<Vec<_>>(), [1, 1]);
    until("both are told", || connector.state() == ConnectorState::Up(2));
    drop(server);
}

/// Dials each packet as a name, and says when it was told of the failure.
struct DialsNames(ConnectorHandle<()>);

impl Handler for DialsNames {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        ctx.dial(&self.0, std::str::from_utf8(packet).unwrap()).unwrap();
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::DialFailed { error, .. } => Action::send(error.to_string()),
            other => other.default_action(),
        }
    }
}

/// Goal: names that handlers dial and that hang do not keep the connector from its own name. Method:
/// five names that hang, until their dials are over; then the connection that is kept up comes back.
#[test]
fn names_of_handlers_take_no_place_of_the_connectors_own() {
    let (backend, addr) = backend();
    let (release, held) = channel::<()>();
    let held = std::sync::Mutex::new(held);
    let options = ConnectorOptions::to("own.test:1").connect_timeout(millis(50));
    let options = options.resolve(move |name| match name {
        "own.test:1" => Ok(vec![addr]),
        _ => held.lock().unwrap().recv().map(|()| Vec::new()).map_err(io::Error::other),
    });
    let (tell, told) = channel();
    let (server, listener) = Server::sharded(1, ReactorOptions::default(), move |starter| {
        let Starter::One(reactor) = starter else { unreachable!("one shard") };
        let up = reactor.start_connector("up", quick(options), move |_| Greeter(tell.clone()));
        let up = up.unwrap();
        let options = condor::ListenerOptions::port(0);
        reactor.start_listener("in", options, move |_| DialsNames(up.clone())).unwrap()
    });
    let mut stream = greeted(&backend);
    let mut client = condor::client::Client::connect(listener.local_addr()).unwrap();
    for name in 0..5 {
        client.send(format!("{name}.test:1")).unwrap();
    }
    let texts: Vec<_> = (0..5).map(|_| client.receive().unwrap()).collect();
    assert!(texts.iter().all(|text| text.starts_with(b"no connection within")), "{texts:?}");
    client.send("6.test:1").unwrap();
    let text = client.receive().unwrap();
    assert_eq!(text, b"cannot look up 6.test:1: 4 earlier look-ups are stuck");
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    stream = greeted(&backend);
    assert!(next(&told).starts_with("up "));
    drop((stream, release, server));
}

/// Goal: wrong options and a name that is taken are refused, with everything that is wrong. Method:
/// each kind of error.
#[test]
fn wrong_options_are_refused() {
    let mut reactor = Reactor::new().unwrap();
    let (tell, _told) = channel();
    let mut start = |name: &str, options| {
        let tell = tell.clone();
        reactor.start_connector(name, options, move |_| Greeter(tell.clone()))
    };
    let wrong = ConnectorOptions::to(["nowhere", "127.0.0.1:80"])
        .connections(2_000)
        .connect_timeout(Duration::ZERO)
        .backoff(Backoff::new(millis(2), millis(1)));
    let error = start("wrong", wrong).unwrap_err();
    let Error::ConnectorOptions { errors, .. } = &error else { panic!("{error}") };
    assert!(
        matches!(
            errors[..],
            [
                OptionsError::Target { .. },
                OptionsError::Zero("connect_timeout"),
                OptionsError::Backoff { .. },
                OptionsError::TooLarge { option: "connections", asked: 2_000, max: 1_024 },
            ]
        ),
        "{errors:?}"
    );
    assert!(error.to_string().starts_with("connector \"wrong\": cannot connect to \"nowhere\""));
    let none = start("none", ConnectorOptions::to(Vec::<String>::new())).unwrap_err();
    assert_eq!(none.to_string(), "connector \"none\": no place to connect to");
    let never = || ConnectorOptions::to("127.0.0.1:1").retry(Retry::Never);
    start("same", never()).unwrap();
    assert!(matches!(start("same", never()), Err(Error::DuplicateName(_))));
}
