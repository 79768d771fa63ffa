//! What a peer talks through: a socket, or a script in tests.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Token};

use crate::endpoint::Endpoint;
use crate::poller::Registry;

/// See the module's documentation.
pub(crate) trait Stream: Read + Write {
    /// Tells the peer that nothing more comes.
    fn shutdown_write(&self) -> io::Result<()>;
    /// Our end.
    fn local_addr(&self) -> io::Result<Endpoint>;
    /// The error that the kernel keeps for a broken connection.
    fn take_error(&self) -> io::Result<Option<io::Error>>;
    /// Has events sent for this stream: bytes, ends and errors.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
    /// Has room to write announced, too, from now on.
    fn watch_writable(&mut self, registry: &Registry, token: Token) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        Self::local_addr(self).map(Endpoint::Inet)
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Self::take_error(self)
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match registry {
            Registry::System(registry) => registry.register(self, token, READING),
            Registry::Simulated => Ok(()),
        }
    }

    fn watch_writable(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match registry {
            Registry::System(registry) => {
                registry.reregister(self, token, READING.add(Interest::WRITABLE))
            }
            Registry::Simulated => Ok(()),
        }
    }
}

/// What every connection waits for. Urgent bytes matter because `recv` stops short at one. Room to
/// write does not: a new connection has it, and would be announced for that alone.
#[cfg(any(target_os = "linux", target_os = "android"))]
const READING: Interest = Interest::READABLE.add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const READING: Interest = Interest::READABLE;
