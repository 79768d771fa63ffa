//! What a peer reads from and writes to: a socket, or a script in tests.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Token};
use socket2::SockRef;

#[cfg(all(feature = "peer-credentials", target_os = "linux"))]
use crate::credentials::PeerCredentials;
use crate::endpoint::Endpoint;
use crate::poller::Registry;

/// See the module's documentation.
pub(crate) trait Stream: Read + Write {
    /// Writes from the front of several pieces, none of which is empty, with one system call. It may
    /// take fewer bytes than there are, as [`Write::write`] may.
    fn write_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Tells the peer that no more bytes come.
    fn shutdown_write(&self) -> io::Result<()>;
    /// Makes the drop of the stream a reset of the connection.
    fn reset_on_drop(&self);
    /// The local endpoint.
    fn local_addr(&self) -> io::Result<Endpoint>;
    /// The error that the kernel stores for a broken connection.
    fn take_error(&self) -> io::Result<Option<io::Error>>;
    /// Whether a read would return bytes, an end or an error. It reads nothing.
    fn is_readable(&self) -> bool;
    /// Copies bytes that have arrived into `buf`, and leaves them where they are.
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize>;
    /// Registers the stream for events: bytes, ends and errors.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
    /// As [`register`](Self::register), for a stream that is registered in another way.
    fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
    /// Ends its events, so that another poller can watch it.
    fn deregister(&mut self, registry: &Registry) -> io::Result<()>;
    /// Registers the stream for writability, too.
    fn watch_writable(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
    /// The process at the other end. `None` if the stream is not a Unix socket.
    #[cfg(all(feature = "peer-credentials", target_os = "linux"))]
    fn peer_credentials(&self) -> Option<PeerCredentials> {
        None
    }
}

impl Stream for TcpStream {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn write_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        /// A broken connection is an error and no signal. `writev` has no such flag.
        const MSG_NOSIGNAL: i32 = 0x4000;
        SockRef::from(&*self).send_vectored_with_flags(pieces, MSG_NOSIGNAL)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn write_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        // The value of the flag differs from system to system.
        pieces.first().map_or(Ok(0), |piece| self.write(piece))
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn reset_on_drop(&self) {
        // If the kernel refuses, the connection ends without a reset, which is no worse.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        // The socket of a Unix stream that was adopted has this type as well.
        let addr = SockRef::from(self).local_addr()?;
        Endpoint::from_kernel(&addr).ok_or_else(|| ErrorKind::Unsupported.into())
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Self::take_error(self)
    }

    fn is_readable(&self) -> bool {
        !self.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        Self::peek(self, buf)
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.with(|system| system.register(self, token, READING))
    }

    fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.with(|system| system.reregister(self, token, READING))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.with(|system| system.deregister(self))
    }

    fn watch_writable(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.with(|system| system.reregister(self, token, READING.add(Interest::WRITABLE)))
    }

    #[cfg(all(feature = "peer-credentials", target_os = "linux"))]
    fn peer_credentials(&self) -> Option<PeerCredentials> {
        PeerCredentials::of(self)
    }
}

/// The events that every connection needs. Urgent bytes matter because `recv` stops short at one.
/// Writability is left out: a new connection is writable, and would cause an event for that alone.
#[cfg(any(target_os = "linux", target_os = "android"))]
const READING: Interest = Interest::READABLE.add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const READING: Interest = Interest::READABLE;
