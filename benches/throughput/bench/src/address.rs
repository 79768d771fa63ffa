//! Where a server is: an IP address with a port, or the path of a Unix socket.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Inet(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Connects. A Unix stream has the calls of a TCP stream, so it takes the same type.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        match self {
            Self::Inet(address) => TcpStream::connect(address),
            Self::Unix(path) => Ok(OwnedFd::from(UnixStream::connect(path)?).into()),
        }
    }

    /// Begins to connect; the first write succeeds when that is done.
    pub(crate) fn begin(&self) -> io::Result<mio::net::TcpStream> {
        if let Self::Inet(address) = self {
            return mio::net::TcpStream::connect(*address);
        }
        let stream = self.connect()?;
        stream.set_nonblocking(true)?;
        Ok(mio::net::TcpStream::from_std(stream))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        text.parse().map(Self::Inet).with_context(|| format!("{text:?} is no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_printed_as_it_is_parsed() {
        for text in ["127.0.0.1:80", "[::1]:80", "unix:/tmp/s"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let error = "/tmp/s".parse::<Address>().unwrap_err().to_string();
        assert_eq!(error, "\"/tmp/s\" is no address");
    }
}
