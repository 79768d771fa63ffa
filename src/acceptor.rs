//! The listening socket: how it is opened, and what its errors mean.

mod configure;
mod descriptor;
mod inherited;
mod unix;

use std::io::{self, ErrorKind};
use std::net;
use std::os::fd::{AsFd, OwnedFd};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener};
use mio::{Interest, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub(crate) use self::configure::{configure, prepare};
use self::descriptor::{Descriptor, TCP, UNIX};
use self::inherited::Probe;
use self::unix::OwnPath;
use crate::endpoint::{Endpoint, UnixName};
use crate::error::Error;
use crate::logging::say;
use crate::options::{ConnectionOptions, ListenerOptions, Origin};
use crate::poller::Registry;
use crate::stream::Stream;

/// A source of connections: a listening socket, or a script in tests.
pub(crate) trait Acceptor {
    type Stream: Stream;

    /// Accepts the next connection, and sets its socket's options from `options`.
    fn accept(&mut self, options: &ConnectionOptions) -> io::Result<(Self::Stream, Endpoint)>;
    /// Sets the options of a connection that a handle gave to the listener, from `options`. Simulated
    /// streams have none.
    fn adjust(_: &Self::Stream, _: &ConnectionOptions) {}
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
    /// Makes the kernel announce the socket again if a connection still waits, even if no new
    /// connection has arrived.
    fn rearm(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
    /// Stops its events. Closing the descriptor does not stop them while another holder keeps the
    /// same socket open.
    fn deregister(&mut self, registry: &Registry) -> io::Result<()>;
}

/// A listening socket of the system.
#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// With its path, if it has one that is to be removed at its end. The path goes first: while the
    /// socket still listens, no other start takes the path for a stale one.
    Unix {
        _path: Option<OwnPath>,
        socket: UnixListener,
    },
}

impl Kind {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(socket) => socket,
            Self::Unix { socket, .. } => socket,
        }
    }
}

/// A listening TCP or Unix socket.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    socket: Kind,
    /// `None` for a socket that condor has opened: no other code can change its mode, so it pays
    /// nothing for a probe.
    inherited: Option<Probe>,
}

impl Acceptor for ListeningSocket {
    type Stream = TcpStream;

    fn accept(&mut self, options: &ConnectionOptions) -> io::Result<(TcpStream, Endpoint)> {
        if let Some(probe) = &mut self.inherited {
            probe.expect_client()?;
        }
        let (stream, peer_addr) = match &self.socket {
            Kind::Tcp(socket) => {
                let (stream, peer_addr) = socket.accept()?;
                (stream, Endpoint::Inet(peer_addr))
            }
            Kind::Unix { socket, .. } => {
                // That of mio loses an abstract name, and panics if a path has 108 bytes.
                let (unix, peer_addr) = SockRef::from(socket).accept()?;
                let unnamed = || UnixName::unnamed().into();
                let peer_addr = Endpoint::from_kernel(&peer_addr).unwrap_or_else(unnamed);
                let unix = net::TcpStream::from(unix);
                unix.set_nonblocking(true)?;
                (TcpStream::from_std(unix), peer_addr)
            }
        };
        if self.inherited.is_some() {
            // Another holder may have set a linger time, which the stream has inherited. It would
            // make `close` block the reactor. An error means that the stream is broken already.
            let _ = SockRef::from(&stream).set_linger(None);
        }
        if !OPTIONS_ARE_INHERITED && matches!(self.socket, Kind::Tcp(_)) {
            // The start of the listener has warned of what the system refuses.
            drop(configure(&SockRef::from(&stream), options));
        }
        Ok((stream, peer_addr))
    }

    fn adjust(stream: &TcpStream, options: &ConnectionOptions) {
        let socket = SockRef::from(stream);
        // A linger time would make `close` block the reactor. An error means that the stream is
        // broken already.
        let _ = socket.set_linger(None);
        // A Unix stream has none of these options.
        if socket.local_addr().is_ok_and(|addr| addr.domain() != Domain::UNIX) {
            // The start of the listener has warned of what the system refuses.
            drop(configure(&socket, options));
        }
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.with(|system| system.register(self.socket.source(), token, Interest::READABLE))
    }

    fn rearm(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.with(|system| system.reregister(self.socket.source(), token, Interest::READABLE))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.with(|system| system.deregister(self.socket.source()))
    }
}

/// Whether accepted sockets inherit the options of the listening one. If they do, no connection
/// needs a system call to set them.
const OPTIONS_ARE_INHERITED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The classes of errors of `accept`, by what the listener does next. Sources: accept(2), and the
/// reactions of HAProxy and Ranch.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum AcceptFault {
    /// No connection waits.
    Empty,
    /// This one connection is lost; the next `accept` may succeed.
    Connection,
    /// No descriptors, no memory, no permission, or an unknown error: accepting pauses.
    Resources,
    /// The listening socket itself is broken.
    Listener,
}

impl From<&io::Error> for AcceptFault {
    fn from(error: &io::Error) -> Self {
        // `ErrorKind` has no names for these errors.
        const EBADF: i32 = 9;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const ENOTSOCK_EPROTO: (i32, i32) = (88, 71);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const ENOTSOCK_EPROTO: (i32, i32) = (38, 100);
        let code = error.raw_os_error();
        if code == Some(EBADF) || code == Some(ENOTSOCK_EPROTO.0) {
            return Self::Listener;
        }
        if code == Some(ENOTSOCK_EPROTO.1) {
            return Self::Connection;
        }
        match error.kind() {
            ErrorKind::WouldBlock => Self::Empty,
            ErrorKind::InvalidInput => Self::Listener,
            ErrorKind::Interrupted
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::TimedOut
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable => Self::Connection,
            // `PermissionDenied`, too: Linux asks its security modules before it takes a connection
            // out of the backlog, so the next `accept` meets the same one.
            _ => Self::Resources,
        }
    }
}

/// The limit to raise after `accept` has failed with this error.
pub(crate) fn cure(error: &io::Error) -> &'static str {
    // These numbers are the same on all Unix systems.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match error.raw_os_error() {
        Some(EMFILE) => "raise `ulimit -n`, or lower max_connections",
        Some(ENFILE) => "raise the sysctl fs.file-max, or lower max_connections",
        _ => "free memory, or lower max_connections",
    }
}

/// Opens or takes over the listening socket. Returns it with its actual endpoint.
pub(crate) fn listen(
    name: &str,
    options: &ListenerOptions,
) -> Result<(ListeningSocket, Endpoint), Error> {
    let warn = |refused: Vec<String>| {
        refused.iter().for_each(|refused| say!(Warn, "listener \"{name}\": {refused}"));
    };
    let name = name.to_owned();
    match &options.origin {
        Origin::Bind(addr) => bind(&name, addr, options, warn)
            .map_err(|source| cannot_bind(&name, addr.clone(), source)),
        Origin::Inherited(listener) => inherit(listener, options, warn)
            .map_err(|source| Error::Listen { name, addr: bound(listener), source }),
        // The check of the options has refused it.
        Origin::Wrong(error) => {
            let source = io::Error::new(ErrorKind::InvalidInput, error.clone());
            Err(Error::Listen { name, addr: None, source })
        }
    }
}

impl From<Kind> for ListeningSocket {
    fn from(socket: Kind) -> Self {
        Self { socket, inherited: None }
    }
}

/// Why a listener cannot listen on `addr`.
pub(crate) fn cannot_bind(name: &str, addr: Endpoint, source: io::Error) -> Error {
    let name = name.to_owned();
    match source.kind() {
        ErrorKind::AddrInUse => Error::AddressInUse { name, addr },
        ErrorKind::PermissionDenied => Error::Permission { name, addr },
        ErrorKind::AddrNotAvailable => Error::NotLocal { name, addr },
        _ => Error::Listen { name, addr: Some(addr), source },
    }
}

fn bind(
    listener: &str,
    endpoint: &Endpoint,
    options: &ListenerOptions,
    warn: impl Fn(Vec<String>),
) -> io::Result<(ListeningSocket, Endpoint)> {
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    let addr = match endpoint {
        Endpoint::Inet(addr) => *addr,
        Endpoint::Unix(name) => {
            let (socket, _path) = unix::listen(listener, name, options, backlog)?;
            return Ok((Kind::Unix { socket, _path }.into(), endpoint.clone()));
        }
    };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    warn(configure(&SockRef::from(&socket), &options.connection));
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    prepare(socket.as_fd(), &options.connection)?;
    socket.listen(backlog)?;
    let socket = TcpListener::from_std(socket.into());
    let real_addr = socket.local_addr()?;
    Ok((Kind::Tcp(socket).into(), Endpoint::Inet(real_addr)))
}

fn inherit(
    listener: &net::TcpListener,
    options: &ListenerOptions,
    warn: impl Fn(Vec<String>),
) -> io::Result<(ListeningSocket, Endpoint)> {
    let is_unix = inherited::is_unix(listener)?;
    let inherited = Some(Probe::new(listener)?);
    let addr = bound(listener).ok_or(ErrorKind::Unsupported)?;
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    prepare(listener.as_fd(), &options.connection)?;
    let socket = if is_unix {
        // Another process has made the path, and removes it.
        Kind::Unix { socket: UnixListener::from_std(OwnedFd::from(listener).into()), _path: None }
    } else {
        warn(configure(&SockRef::from(&listener), &options.connection));
        Kind::Tcp(TcpListener::from_std(listener))
    };
    Ok((ListeningSocket { socket, inherited }, addr))
}

/// The address that a socket is bound to. `None` if its kind has no address, or if it has none.
fn bound(listener: &net::TcpListener) -> Option<Endpoint> {
    let addr = SockRef::from(listener).local_addr().ok()?;
    Endpoint::from_kernel(&addr).filter(|addr| *addr != Endpoint::Unix(UnixName::unnamed()))
}

/// Returns the peer of a connected stream socket. For any other descriptor, an error says what it is.
/// Changes nothing about it.
pub(crate) fn check_stream(fd: &OwnedFd) -> io::Result<Endpoint> {
    match Descriptor::of(fd.as_fd())? {
        Descriptor::Connected(TCP | UNIX) => {}
        what => {
            let text = format!("the descriptor is {what}, not a connected stream socket");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
    }
    let peer_addr = SockRef::from(fd).peer_addr()?;
    Endpoint::from_kernel(&peer_addr).ok_or_else(|| ErrorKind::Unsupported.into())
}

/// The stream of a descriptor that [`check_stream`] accepts.
pub(crate) fn stream(fd: OwnedFd) -> TcpStream {
    // A Unix stream has the same calls, so it takes the same type.
    TcpStream::from_std(net::TcpStream::from(fd))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The server's socket of a connection to a listener with these options.
    fn accepted(options: &ListenerOptions) -> TcpStream {
        let (mut listener, addr) = listen("test", options).unwrap();
        let _client = net::TcpStream::connect(addr).unwrap();
        loop {
            match Acceptor::accept(&mut listener, &options.connection) {
                Ok((socket, _)) => return socket,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }

    /// Goal: the sockets of connections have the listener's options, although on Linux only the
    /// listening socket gets them. Method: for each value, the options of the server's socket are
    /// read, also with a listening socket that other code opened.
    #[test]
    fn accepted_sockets_have_the_options_of_their_listener() {
        let given = || {
            let socket = net::TcpListener::bind("127.0.0.1:0").unwrap();
            ListenerOptions::from_std(socket)
        };
        for options in [ListenerOptions::port(0), given()] {
            let plain = accepted(&options);
            let plain = SockRef::from(&plain);
            assert!(plain.tcp_nodelay().unwrap(), "by default answers do not wait");
            assert!(!plain.keepalive().unwrap(), "by default the kernel does not probe");

            let longest = ListenerOptions::MAX_KEEPALIVE;
            for silent in [Duration::from_secs(1), Duration::from_secs(77), longest] {
                let socket = accepted(&options.clone().nodelay(false).keepalive(silent));
                let socket = SockRef::from(&socket);
                assert!(!socket.tcp_nodelay().unwrap());
                assert!(socket.keepalive().unwrap());
                assert_eq!(socket.tcp_keepalive_time().unwrap(), silent);
            }
        }
    }

    /// Goal: the options of TCP are not set on a socket that a Unix listener has accepted. Method: the one
    /// among them that a Unix socket has, too.
    #[test]
    #[cfg(target_os = "linux")]
    fn accepted_unix_sockets_have_no_options_of_tcp() {
        let name = format!("condor-accepted-{}", std::process::id());
        let options = ListenerOptions::unix_abstract(&name).keepalive(Duration::from_secs(77));
        let (mut listener, _) = listen("test", &options).unwrap();
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.connect(&socket2::SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
        let (socket, _) = Acceptor::accept(&mut listener, &options.connection).unwrap();
        assert!(!SockRef::from(&socket).keepalive().unwrap());
    }

    /// Goal: a socket option that the system refuses makes a warning that names the option and a
    /// cure. Method: a socket that has no TCP options.
    #[test]
    fn a_refused_option_is_a_warning_with_a_cure() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let options = ListenerOptions::port(0).keepalive(Duration::from_secs(77));
        let refused = configure(&SockRef::from(&socket), &options.connection);
        let [nodelay, keepalive] = &refused[..] else { panic!("{refused:?}") };
        assert!(nodelay.starts_with("cannot set nodelay: "), "{nodelay}");
        assert!(nodelay.ends_with("; allow setsockopt(TCP_NODELAY)"), "{nodelay}");
        assert!(keepalive.starts_with("cannot set keepalive of 77s: "), "{keepalive}");
        assert!(keepalive.ends_with(", or use idle_timeout"), "{keepalive}");
    }

    /// Goal: the user's function sets options of the listening socket, which connections have as well, of
    /// TCP and of Unix sockets, and of an inherited one. If it fails or panics, so does the start, with its
    /// text.
    #[test]
    fn the_users_function_sets_options_of_sockets() {
        let given = net::TcpListener::bind("127.0.0.1:0").unwrap();
        for options in [ListenerOptions::port(0), ListenerOptions::from_std(given)] {
            let options = options.configure_socket(|socket| {
                SockRef::from(&socket).set_tcp_user_timeout(Some(Duration::from_secs(77)))
            });
            let socket = accepted(&options);
            let timeout = SockRef::from(&socket).tcp_user_timeout().unwrap();
            assert_eq!(timeout, Some(Duration::from_secs(77)));
        }
        let name = format!("condor-configured-{}", std::process::id());
        for options in [ListenerOptions::port(0), ListenerOptions::unix_abstract(name)] {
            let fails = options.clone().configure_socket(|_| Err(io::Error::other("not today")));
            let error = listen("test", &fails).unwrap_err().to_string();
            assert!(error.ends_with("not today"), "{error}");
            let panics = options.configure_socket(|_| std::panic::resume_unwind(Box::new(())));
            let error = listen("test", &panics).unwrap_err().to_string();
            assert!(error.ends_with("the function of configure_socket panicked"), "{error}");
        }
    }

    /// Goal: `close` never blocks the reactor, although another holder of the listening socket has
    /// set a linger time. Method: that holder sets it before the start, and after it; the option of
    /// the server's sockets.
    #[test]
    fn a_linger_time_of_another_holder_is_not_inherited() {
        let kept = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let linger = Some(Duration::from_secs(60));
        SockRef::from(&kept).set_linger(linger).unwrap();
        let options = ListenerOptions::from_std(kept.try_clone().unwrap());
        assert_eq!(SockRef::from(&accepted(&options)).linger().unwrap(), None);
        SockRef::from(&kept).set_linger(linger).unwrap();
        assert_eq!(SockRef::from(&accepted(&options)).linger().unwrap(), None);
    }

    /// Goal: a pause of accepting names the limit that was reached. Method: the errors by number.
    #[test]
    fn a_lack_of_resources_names_its_limit() {
        for (code, limit) in [(24, "`ulimit -n`"), (23, "fs.file-max"), (12, "memory")] {
            let cure = cure(&io::Error::from_raw_os_error(code));
            assert!(cure.contains(limit) && cure.contains("max_connections"), "{code}: {cure}");
        }
    }

    /// Goal: each error has the class that accept(2) implies. Method: the errors by number, on
    /// Linux.
    #[test]
    #[cfg(target_os = "linux")]
    fn accept_errors_are_sorted_by_whom_they_concern() {
        use AcceptFault::{Connection, Empty, Listener, Resources};
        for (code, fault) in [
            (11, Empty),       // EAGAIN
            (4, Connection),   // EINTR
            (103, Connection), // ECONNABORTED
            (71, Connection),  // EPROTO
            (1, Resources),    // EPERM: a rule of seccomp
            (13, Resources),   // EACCES: a security module
            (100, Connection), // ENETDOWN
            (113, Connection), // EHOSTUNREACH
            (24, Resources),   // EMFILE
            (23, Resources),   // ENFILE
            (105, Resources),  // ENOBUFS
            (12, Resources),   // ENOMEM
            (28, Resources),   // ENOSPC: an unknown error
            (9, Listener),     // EBADF
            (22, Listener),    // EINVAL
            (88, Listener),    // ENOTSOCK
        ] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(AcceptFault::from(&error), fault, "{error}");
        }
    }
}
