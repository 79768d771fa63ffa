//! How a connection is opened to another end, and what became of an attempt.

use std::io::{self, ErrorKind};
use std::net::{self, IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use mio::net::TcpStream;
use mio::{Interest, Token};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::acceptor::{configure, prepare};
use crate::endpoint::Endpoint;
use crate::error::DialError;
use crate::options::ConnectionOptions;
use crate::poller::Registry;
use crate::stream::Stream;

/// Opens connections: sockets, or scripts in tests.
pub(crate) trait Dialer {
    type Stream: Stream;

    /// Begins to connect, without waiting.
    fn connect(
        &mut self,
        to: &Endpoint,
        source: Option<IpAddr>,
        options: &ConnectionOptions,
    ) -> io::Result<Self::Stream>;
    /// Registers an attempt for events: a connection, or an error.
    fn register(stream: &mut Self::Stream, registry: &Registry, token: Token) -> io::Result<()>;
    /// The endpoint of the peer: `None` if it is the one that was dialled, an error until there is one.
    fn peer_addr(stream: &Self::Stream) -> io::Result<Option<Endpoint>>;

    /// What became of an attempt: the endpoint of the peer, or `None` if it is under way.
    fn outcome(stream: &Self::Stream, to: &Endpoint) -> Result<Option<Endpoint>, DialError> {
        let failed = |error: &io::Error| DialError::connect(to, error);
        if let Some(error) = stream.take_error().map_err(|error| failed(&error))? {
            return Err(failed(&error));
        }
        let peer_addr = match Self::peer_addr(stream) {
            Ok(addr) => addr.unwrap_or_else(|| to.clone()),
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        // Linux connects a socket to itself if it chooses the port that it is to connect to.
        let is_itself =
            peer_addr.as_inet().is_some() && stream.local_addr().is_ok_and(|own| own == peer_addr);
        if is_itself {
            // Otherwise the kernel would keep the port from the server that is to listen there, for
            // a minute.
            stream.reset_on_drop();
            return Err(DialError::SelfConnect { to: to.clone() });
        }
        Ok(Some(peer_addr))
    }
}

/// Connects with sockets of the system.
#[derive(Debug, Copy, Clone)]
pub(crate) struct SystemDialer;

impl Dialer for SystemDialer {
    type Stream = TcpStream;

    /// The result of `connect` itself decides first: only success and `EINPROGRESS` go on. A Unix
    /// socket whose peer's backlog is full returns `EAGAIN`, and a poller would call it connected.
    fn connect(
        &mut self,
        to: &Endpoint,
        source: Option<IpAddr>,
        options: &ConnectionOptions,
    ) -> io::Result<TcpStream> {
        /// Linux, and the other systems.
        const IN_PROGRESS: [i32; 2] = [115, 36];
        let (addr, socket) = match to {
            Endpoint::Inet(addr) => {
                let kind = Type::STREAM.nonblocking();
                let socket = Socket::new(Domain::for_address(*addr), kind, Some(Protocol::TCP))?;
                drop(configure(&SockRef::from(&socket), options));
                if let Some(source) = source {
                    socket.bind(&SocketAddr::new(source, 0).into())?;
                }
                (SockAddr::from(*addr), socket)
            }
            Endpoint::Unix(name) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
                (name.to_kernel()?, socket)
            }
        };
        prepare(socket.as_fd(), options)?;
        match socket.connect(&addr) {
            Err(error) if !error.raw_os_error().is_some_and(|code| IN_PROGRESS.contains(&code)) => {
                Err(error)
            }
            // A Unix stream has the same calls, so it takes the same type.
            _ => Ok(TcpStream::from_std(net::TcpStream::from(OwnedFd::from(socket)))),
        }
    }

    fn register(stream: &mut TcpStream, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE.add(Interest::WRITABLE);
        registry.with(|system| system.register(stream, token, interest))
    }

    fn peer_addr(stream: &TcpStream) -> io::Result<Option<Endpoint>> {
        Ok(Endpoint::from_kernel(&SockRef::from(stream).peer_addr()?))
    }
}

/// Reaches no endpoint. A connector that a handler starts in a harness has it: a test of a handler must
/// not connect to a server.
#[derive(Debug, Clone)]
pub(crate) struct NoDialer;

impl Dialer for NoDialer {
    type Stream = TcpStream;

    fn connect(
        &mut self,
        _: &Endpoint,
        _: Option<IpAddr>,
        _: &ConnectionOptions,
    ) -> io::Result<TcpStream> {
        Err(ErrorKind::NetworkUnreachable.into())
    }

    fn register(stream: &mut TcpStream, registry: &Registry, token: Token) -> io::Result<()> {
        SystemDialer::register(stream, registry, token)
    }

    fn peer_addr(stream: &TcpStream) -> io::Result<Option<Endpoint>> {
        SystemDialer::peer_addr(stream)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::endpoint::UnixName;

    /// Goal: a socket that the kernel has connected to itself is a failure. Method: a socket that is
    /// bound to a port and connects to the same port, as happens by chance if nothing listens there.
    /// Then a server may listen on it at once.
    #[test]
    fn a_connection_to_itself_is_a_failure() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(&own).unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = Endpoint::from_kernel(&own).unwrap();
        let stream = TcpStream::from_std(net::TcpStream::from(OwnedFd::from(socket)));
        let outcome = SystemDialer::outcome(&stream, &to);
        let to_itself = Err(DialError::SelfConnect { to: to.clone() });
        assert_eq!(outcome, to_itself);
        drop(stream);
        net::TcpListener::bind(to.as_inet().unwrap()).expect("the port is free");
    }

    /// Goal: an attempt ends as connected or as failed, and until then it is under way. Method: a
    /// server that accepts, and a port where nothing listens.
    #[test]
    fn an_attempt_is_under_way_until_the_kernel_knows() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Endpoint::Inet(listener.local_addr().unwrap());
        let options = ConnectionOptions::default();
        let stream = SystemDialer.connect(&to, None, &options).unwrap();
        let connected = loop {
            match SystemDialer::outcome(&stream, &to) {
                Ok(None) => thread::yield_now(),
                outcome => break outcome,
            }
        };
        assert_eq!(connected, Ok(Some(to.clone())));
        drop(listener);
        let refused = match SystemDialer.connect(&to, None, &options) {
            Err(error) => error.kind(),
            Ok(stream) => loop {
                match SystemDialer::outcome(&stream, &to) {
                    Ok(None) => thread::yield_now(),
                    Err(DialError::Connect { kind, .. }) => break kind,
                    other => panic!("{other:?}"),
                }
            },
        };
        assert_eq!(refused, ErrorKind::ConnectionRefused);
    }

    /// Goal: the user's function sets options of a socket before it connects. If it fails, so does the
    /// attempt.
    #[test]
    fn the_users_function_sets_options_of_dialled_sockets() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Endpoint::Inet(listener.local_addr().unwrap());
        let mut options = ConnectionOptions::default();
        options.configure_socket = Some(|socket| {
            let socket = SockRef::from(&socket);
            assert!(socket.peer_addr().is_err(), "it is not connected yet");
            socket.set_tcp_user_timeout(Some(std::time::Duration::from_secs(77)))
        });
        let stream = SystemDialer.connect(&to, None, &options).unwrap();
        let timeout = SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(std::time::Duration::from_secs(77)));
        options.configure_socket = Some(|_| Err(io::Error::other("not today")));
        let error = SystemDialer.connect(&to, None, &options).unwrap_err();
        assert_eq!(error.to_string(), "not today");
    }

    /// Goal: a Unix socket whose backlog is full fails, although a poller would call it connected.
    /// Method: a listener with the shortest backlog, and connections until it is full.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_backlog_of_a_unix_socket_is_a_failure() {
        let name = UnixName::from_abstract_name(format!("condor-full-{}", std::process::id()));
        let to = Endpoint::Unix(name.unwrap());
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let Endpoint::Unix(name) = &to else { unreachable!() };
        socket.bind(&name.to_kernel().unwrap()).unwrap();
        socket.listen(1).unwrap();
        let listener = UnixListener::from(OwnedFd::from(socket));
        let options = ConnectionOptions::default();
        let mut held = Vec::new();
        let error = loop {
            match SystemDialer.connect(&to, None, &options) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
            assert!(held.len() < 100, "the backlog is never full");
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(held.len() > 1);
        drop(listener);
    }
}
