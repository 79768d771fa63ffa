//! A server on its own thread, or turned by the test, and a blocking client that uses nothing of the
//! library.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use condor::{
    Accepted, Action, CloseReason, Drain, Endpoint, Error, Handle, Handler, IntoHandler,
    ListenerHandle, ListenerOptions, Reactor, ReactorOptions, Report, Shards, Stats,
};

use super::script::Script;
use super::{PATIENCE, framed, next, now, until};

/// Turns `reactor` until `done`. Returns how many turns that took.
#[track_caller]
pub(crate) fn drive(reactor: &mut Reactor, what: &str, mut done: impl FnMut() -> bool) -> u64 {
    let deadline = now() + PATIENCE;
    let mut turns = 0;
    while !done() {
        assert!(now() < deadline, "waited too long: {what}");
        reactor.turn(Some(Duration::from_millis(2))).unwrap();
        turns += 1;
    }
    turns
}

/// Turns `reactor` until nothing has come in for 5 ms and nothing is left to do.
#[track_caller]
pub(crate) fn settle(reactor: &mut Reactor) {
    let deadline = now() + PATIENCE;
    loop {
        let (before, from) = (reactor.handle().stats(), now());
        reactor.turn(Some(Duration::from_millis(5))).unwrap();
        let idle = reactor.next_deadline() != Some(Duration::ZERO)
            && from.elapsed() >= Duration::from_millis(5)
            && before == reactor.handle().stats();
        if idle {
            return;
        }
        assert!(now() < deadline, "the reactor does not become idle");
    }
}

/// Waits for a drain to be over.
#[track_caller]
pub(crate) fn over(drain: &Drain) -> Report {
    until("the drain is over", || drain.report().is_some());
    drain.wait().unwrap()
}

// ---- servers ----

/// How many shards the servers of these tests have: `CONDOR_TEST_SHARDS`, or one plain reactor.
pub(crate) fn shards() -> usize {
    std::env::var("CONDOR_TEST_SHARDS").map_or(1, |count| count.parse().unwrap())
}

/// A reactor or shards on which a test starts listeners, before they run.
pub(crate) enum Starter {
    One(Box<Reactor>),
    Many(Shards),
}

impl Starter {
    pub(crate) fn new(shards: usize, options: ReactorOptions) -> Self {
        match shards {
            1 => Self::One(Box::new(Reactor::with_options(options).unwrap())),
            _ => Self::Many(Shards::with_options(shards, options).unwrap()),
        }
    }

    pub(crate) fn start_listener<
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
    >(
        &mut self,
        name: &str,
        options: ListenerOptions,
        factory: impl FnMut(&Accepted<'_, M>) -> R + Clone + Send + 'static,
    ) -> Result<ListenerHandle<M>, Error> {
        match self {
            Self::One(reactor) => reactor.start_listener(name, options, factory),
            Self::Many(shards) => shards.start_listener(name, options, factory),
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::One(reactor) => reactor.handle(),
            Self::Many(shards) => shards.handle(),
        }
    }

    fn run(self) -> Result<(), Error> {
        match self {
            Self::One(mut reactor) => reactor.run(),
            Self::Many(shards) => shards.run(),
        }
    }
}

/// A reactor, or [`shards`], that runs on its own thread. When it is dropped it is shut down by
/// force, and every handler must have been terminated.
pub(crate) struct Server {
    pub(crate) handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Runs `setup`, which starts listeners, on a new thread, and then runs the reactor there.
    pub(crate) fn with<T: Send + 'static>(
        options: ReactorOptions,
        setup: impl FnOnce(&mut Starter) -> T + Send + 'static,
    ) -> (Self, T) {
        Self::sharded(shards(), options, setup)
    }

    /// The same with a given number of shards.
    pub(crate) fn sharded<T: Send + 'static>(
        shards: usize,
        options: ReactorOptions,
        setup: impl FnOnce(&mut Starter) -> T + Send + 'static,
    ) -> (Self, T) {
        let (sender, receiver) = channel();
        let thread = thread::spawn(move || {
            let mut starter = Starter::new(shards, options);
            let made = setup(&mut starter);
            sender.send((starter.handle(), made)).unwrap();
            starter.run().unwrap();
        });
        let (handle, made) = next(&receiver);
        (Self { handle, thread: Some(thread) }, made)
    }

    pub(crate) fn start<T: Send + 'static>(
        setup: impl FnOnce(&mut Starter) -> T + Send + 'static,
    ) -> (Self, T) {
        Self::with(ReactorOptions::default(), setup)
    }

    /// One listener.
    pub(crate) fn one<H: Handler>(
        options: ListenerOptions,
        factory: impl FnMut(&Accepted<'_, H::Message>) -> H + Clone + Send + 'static,
    ) -> (Self, ListenerHandle<H::Message>) {
        Self::start(move |reactor| reactor.start_listener("test", options, factory).unwrap())
    }

    /// One listener whose handlers send everything back, and a channel with the ends of its
    /// connections.
    pub(crate) fn echo(
        options: ListenerOptions,
    ) -> (Self, ListenerHandle<()>, Receiver<CloseReason>) {
        let (ends, ended) = channel();
        let (server, listener) = Self::one(options, move |_| Script::new().ends(&ends));
        (server, listener, ended)
    }

    /// One listener whose handlers send everything back. The packet `block` of its first connection
    /// blocks the reactor: the receiver gets a value when it begins, and the sender ends it.
    pub(crate) fn blocking(
        reactor: ReactorOptions,
        options: ListenerOptions,
    ) -> (Self, ListenerHandle<()>, Sender<()>, Receiver<()>) {
        let (go, wait) = channel();
        let (started, has_started) = channel();
        let wait = First::new(wait);
        let factory = move |_: &Accepted<'_, _>| {
            let (wait, started) = (wait.take(), started.clone());
            Script::new().packet(move |packet, _| {
                if let (Some(wait), b"block") = (&wait, packet) {
                    started.send(()).unwrap();
                    wait.recv_timeout(PATIENCE).unwrap();
                }
                Action::send(packet.to_vec())
            })
        };
        let (server, listener) = Self::with(reactor, |reactor| {
            reactor.start_listener("test", options, factory).unwrap()
        });
        (server, listener, go, has_started)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// Waits for the thread after `run` was made to return.
    pub(crate) fn join(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        until("the reactor's thread ends", || thread.is_finished());
        thread.join().unwrap();
        let stats = self.handle.stats();
        assert_eq!(stats.made, stats.terminated, "each handler is terminated once");
        assert_eq!(stats.open, 0, "no slot is lost");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.handle.shutdown());
        drop(self.handle.shutdown());
        if !thread::panicking() {
            self.finish();
        }
    }
}

/// A value that only the first handler gets, on whichever shard it is.
pub(crate) struct First<T>(Arc<Mutex<Option<T>>>);

impl<T> First<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap().take()
    }
}

impl<T> Clone for First<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

// ---- clients ----

/// The address of a TCP endpoint.
#[track_caller]
pub(crate) fn inet(endpoint: impl Into<Endpoint>) -> SocketAddr {
    endpoint.into().as_inet().unwrap()
}

/// A blocking client for packets with a two-byte length. It uses nothing of the library.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(addr: impl Into<Endpoint>) -> Self {
        Self::from(TcpStream::connect_timeout(&inet(addr), PATIENCE).unwrap())
    }

    /// A client with a small receive buffer: its kernel takes little before it is read.
    #[track_caller]
    pub(crate) fn with_small_window(addr: impl Into<Endpoint>) -> Self {
        let addr = inet(addr);
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(addr),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )
        .unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&addr.into()).unwrap();
        Self::from(TcpStream::from(socket))
    }

    #[track_caller]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    #[track_caller]
    pub(crate) fn send(&mut self, payload: &[u8]) {
        self.raw(&framed(payload));
    }

    #[track_caller]
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut header = [0; 2];
        self.stream.read_exact(&mut header).unwrap();
        let mut payload = vec![0; u16::from_be_bytes(header).into()];
        self.stream.read_exact(&mut payload).unwrap();
        payload
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, payload: &[u8]) -> Vec<u8> {
        self.send(payload);
        self.receive()
    }

    /// Shuts the sending side down.
    #[track_caller]
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// All bytes up to the end of the stream, which must be an end and not a reset.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }

    /// Checks that the stream ends here.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "{} bytes instead of the end: {:?}", rest.len(), head(&rest));
    }

    /// Checks that the connection ends, by an end or a reset, after any remaining bytes.
    #[track_caller]
    pub(crate) fn expect_gone(&mut self) {
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let timeout = matches!(error.kind(), ErrorKind::WouldBlock);
                    assert!(!timeout, "the connection is still open");
                    return;
                }
            }
        }
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// How many bytes wait to be read, as far as they fit 64 KiB; none if the stream has ended.
    pub(crate) fn arrived(&self) -> usize {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0; 64 * 1024]);
        self.stream.set_nonblocking(false).unwrap();
        match peeked {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// Writes as much of `bytes` as both kernels take. Returns how much.
    pub(crate) fn stuff(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_nonblocking(true).unwrap();
        let mut taken = 0;
        while taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.set_nonblocking(false).unwrap();
        taken
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.stream.as_raw_fd())
    }
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(32)]
}
