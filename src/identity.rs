//! The identity of a connection: its id in the process, its slot, its peer's endpoint.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::endpoint::{Endpoint, UnixName};

/// Identifies one connection for as long as the process lives: its listener, its slot, and its
/// generation, which tells the slot's successive owners apart. No two connections of one process
/// have the same id, not even connections of different reactors.
///
/// A slot's generation is 32 bits wide. So an old id can name a new connection only after
/// 4,294,967,296 connections in the same slot.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) serial: u64,
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.serial, self.key, self.generation)
    }
}

/// A connection's slot, its generation in the slot, and its peer's endpoint.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) key: u32,
    pub(crate) generation: u32,
    addr: CompactEndpoint,
}

/// An endpoint in 24 bytes instead of 32. It leaves out the flow label, which does not identify a
/// peer.
#[derive(Debug)]
enum CompactEndpoint {
    V4(Ipv4Addr, u16),
    V6(Ipv6Addr, u16, u32),
    Unix(UnixName),
}

impl Identity {
    pub(crate) fn new(key: u32, generation: u32, peer_addr: Endpoint) -> Self {
        let addr = match peer_addr {
            Endpoint::Inet(SocketAddr::V4(addr)) => CompactEndpoint::V4(*addr.ip(), addr.port()),
            Endpoint::Inet(SocketAddr::V6(addr)) => {
                CompactEndpoint::V6(*addr.ip(), addr.port(), addr.scope_id())
            }
            Endpoint::Unix(name) => CompactEndpoint::Unix(name),
        };
        Self { key, generation, addr }
    }

    pub(crate) fn peer_addr(&self) -> Endpoint {
        match self.addr {
            CompactEndpoint::V4(ip, port) => Endpoint::from((ip, port)),
            CompactEndpoint::V6(ip, port, scope_id) => {
                Endpoint::from(SocketAddrV6::new(ip, port, 0, scope_id))
            }
            CompactEndpoint::Unix(ref name) => Endpoint::Unix(name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: 24 bytes keep a whole endpoint. Method: one of each kind, and the sizes.
    #[test]
    fn endpoints_survive_being_made_compact() {
        for text in [
            "127.0.0.1:80",
            "[::1]:65535",
            "[2001:db8::1]:1",
            "[fe80::1%7]:9",
            "unix:/run/echo.sock",
            "unix:@echo",
        ] {
            let endpoint: Endpoint = text.parse().expect("an endpoint");
            assert_eq!(Identity::new(1, 2, endpoint.clone()).peer_addr(), endpoint);
        }
        let unnamed = Endpoint::from(UnixName::unnamed());
        assert_eq!(Identity::new(1, 2, unnamed.clone()).peer_addr(), unnamed);

        let sizes = (size_of::<CompactEndpoint>(), size_of::<Identity>(), size_of::<Endpoint>());
        assert_eq!(sizes, (24, 32, size_of::<SocketAddr>()));
    }
}
