//! The listening socket: how it is made, and what its errors mean.

mod inherited;

use std::io::{self, ErrorKind};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use self::inherited::Probe;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::options::{ListenerOptions, Origin};
use crate::poller::Registry;
use crate::stream::Stream;

/// Where connections come from: a listening socket, or a script in tests.
pub(crate) trait Acceptor {
    type Stream: Stream;

    /// The next connection, with what `options` say of its socket set.
    fn accept(&mut self, options: &ListenerOptions) -> io::Result<(Self::Stream, Endpoint)>;
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
    /// Has it announced again if somebody still waits, although nobody new has come.
    fn rearm(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
    /// Stops its events. While another holder keeps the same socket open, closing this descriptor
    /// does not.
    fn deregister(&mut self, registry: &Registry) -> io::Result<()>;
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    socket: TcpListener,
    /// None for a socket of our own: no other code can change its mode, and it pays nothing for this.
    inherited: Option<Probe>,
}

impl Acceptor for ListeningSocket {
    type Stream = TcpStream;

    fn accept(&mut self, options: &ListenerOptions) -> io::Result<(TcpStream, Endpoint)> {
        if let Some(probe) = &mut self.inherited {
            probe.expect_client()?;
        }
        let (stream, peer_addr) = self.socket.accept()?;
        if !INHERITED {
            configure(&SockRef::from(&stream), options);
        }
        Ok((stream, Endpoint::Inet(peer_addr)))
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match registry {
            Registry::System(registry) => {
                registry.register(&mut self.socket, token, Interest::READABLE)
            }
            Registry::Simulated => Ok(()),
        }
    }

    fn rearm(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match registry {
            Registry::System(registry) => {
                registry.reregister(&mut self.socket, token, Interest::READABLE)
            }
            Registry::Simulated => Ok(()),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match registry {
            Registry::System(registry) => registry.deregister(&mut self.socket),
            Registry::Simulated => Ok(()),
        }
    }
}

/// Whether accepted sockets have the options of the listening one: then setting them costs nothing.
const INHERITED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What to do after an error of `accept`, by what accept(2) says and what HAProxy and Ranch make
/// of it.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum AcceptFault {
    /// Nobody waits.
    Empty,
    /// That one connection is no more; the next may be.
    Connection,
    /// No descriptors, no memory, or something unknown: leave it alone for a while.
    Resources,
    /// The listening socket itself is no good.
    Listener,
}

impl From<&io::Error> for AcceptFault {
    fn from(error: &io::Error) -> Self {
        // Errors that the standard library has no name for.
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
            | ErrorKind::HostUnreachable
            | ErrorKind::PermissionDenied => Self::Connection,
            _ => Self::Resources,
        }
    }
}

/// Makes the listening socket, and tells the endpoint it really has.
pub(crate) fn listen(
    name: &str,
    options: &ListenerOptions,
) -> Result<(ListeningSocket, Endpoint), Error> {
    let name = name.to_owned();
    match &options.origin {
        Origin::Bind(addr) => bind(addr, options).map_err(|source| {
            let addr = addr.clone();
            match source.kind() {
                ErrorKind::AddrInUse => Error::AddressInUse { name, addr },
                ErrorKind::PermissionDenied => Error::Permission { name, addr },
                ErrorKind::AddrNotAvailable => Error::NotLocal { name, addr },
                _ => Error::Listen { name, addr: Some(addr), source },
            }
        }),
        Origin::Inherited(listener) => inherit(listener, options).map_err(|source| Error::Listen {
            name,
            addr: inherited::endpoint(listener),
            source,
        }),
    }
}

fn bind(endpoint: &Endpoint, options: &ListenerOptions) -> io::Result<(ListeningSocket, Endpoint)> {
    let addr = endpoint.expect_inet()?;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    configure(&SockRef::from(&socket), options);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let socket = TcpListener::from_std(socket.into());
    let real_addr = socket.local_addr()?;
    Ok((ListeningSocket { socket, inherited: None }, Endpoint::Inet(real_addr)))
}

fn inherit(
    listener: &std::net::TcpListener,
    options: &ListenerOptions,
) -> io::Result<(ListeningSocket, Endpoint)> {
    inherited::check(listener)?;
    let inherited = Some(Probe::new(listener)?);
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    configure(&SockRef::from(&listener), options);
    let addr = Endpoint::Inet(listener.local_addr()?);
    Ok((ListeningSocket { socket: TcpListener::from_std(listener), inherited }, addr))
}

/// Niceties: a socket that refuses them still serves.
fn configure(socket: &SockRef<'_>, options: &ListenerOptions) {
    if let Err(error) = socket.set_tcp_nodelay(options.nodelay) {
        log::warn!("cannot set TCP_NODELAY: {error}");
    }
    if let Some(idle) = options.keepalive
        && let Err(error) = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))
    {
        log::warn!("cannot set a keepalive of {idle:?}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The socket of a connection to a listener with these options, as the server has it.
    fn accepted(options: &ListenerOptions) -> TcpStream {
        let (mut listener, addr) = listen("test", options).unwrap();
        let _client = std::net::TcpStream::connect(addr).unwrap();
        loop {
            match Acceptor::accept(&mut listener, options) {
                Ok((socket, _)) => return socket,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }

    /// Goal: the sockets of connections have what the options say, although only the listening one
    /// is told on Linux. Method: the server's side of a connection is asked, for each value, also
    /// where the listening socket was made by somebody else.
    #[test]
    fn accepted_sockets_have_the_options_of_their_listener() {
        let given = || {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            ListenerOptions::from_std(socket)
        };
        for options in [ListenerOptions::port(0), given()] {
            let plain = accepted(&options);
            let plain = SockRef::from(&plain);
            assert!(plain.tcp_nodelay().unwrap(), "by default answers do not wait");
            assert!(!plain.keepalive().unwrap(), "by default the kernel does not probe");

            let longest = ListenerOptions::MAX_KEEPALIVE;
            for silent in [Duration::from_secs(1), Duration::from_secs(77), longest] {
                let told = accepted(&options.clone().nodelay(false).keepalive(silent));
                let told = SockRef::from(&told);
                assert!(!told.tcp_nodelay().unwrap());
                assert!(told.keepalive().unwrap());
                assert_eq!(told.tcp_keepalive_time().unwrap(), silent);
            }
        }
    }

    /// Goal: each class as accept(2) has it. Method: the errors themselves, by number on Linux.
    #[test]
    #[cfg(target_os = "linux")]
    fn accept_errors_are_sorted_by_whom_they_concern() {
        use AcceptFault::{Connection, Empty, Listener, Resources};
        for (code, fault) in [
            (11, Empty),       // EAGAIN
            (4, Connection),   // EINTR
            (103, Connection), // ECONNABORTED
            (71, Connection),  // EPROTO
            (1, Connection),   // EPERM: a firewall rule
            (100, Connection), // ENETDOWN
            (113, Connection), // EHOSTUNREACH
            (24, Resources),   // EMFILE
            (23, Resources),   // ENFILE
            (105, Resources),  // ENOBUFS
            (12, Resources),   // ENOMEM
            (28, Resources),   // ENOSPC: anything unknown
            (9, Listener),     // EBADF
            (22, Listener),    // EINVAL
            (88, Listener),    // ENOTSOCK
        ] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(AcceptFault::from(&error), fault, "{error}");
        }
    }
}
