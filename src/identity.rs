//! Who a connection is: its name in the process, its slot, its peer's address.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Names one connection for as long as the process lives: which listener, which slot, and which
/// of the slot's successive owners.
///
/// A slot's generation is 32 bits wide: a stale id could be mistaken for a new one only after
/// 4,294,967,296 connections in the same slot.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) serial: u32,
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.serial, self.key, self.generation)
    }
}

/// Which slot, whose turn in it, and who sits there.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Seat {
    pub(crate) key: u32,
    pub(crate) generation: u32,
    addr: CompactAddr,
}

/// A socket address in 24 bytes instead of 32: without the flow label, which says nothing about who
/// the peer is.
#[derive(Debug, Copy, Clone)]
enum CompactAddr {
    V4(Ipv4Addr, u16),
    V6(Ipv6Addr, u16, u32),
}

impl Seat {
    pub(crate) fn new(key: u32, generation: u32, peer_addr: SocketAddr) -> Self {
        let addr = match peer_addr {
            SocketAddr::V4(addr) => CompactAddr::V4(*addr.ip(), addr.port()),
            SocketAddr::V6(addr) => CompactAddr::V6(*addr.ip(), addr.port(), addr.scope_id()),
        };
        Self { key, generation, addr }
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        match self.addr {
            CompactAddr::V4(ip, port) => SocketAddr::from((ip, port)),
            CompactAddr::V6(ip, port, scope_id) => {
                SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope_id))
            }
        }
    }
}

/// IPv4 clients of an IPv6 socket are shown as what they are.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => SocketAddr::from((ip, addr.port())),
        std::net::IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_being_made_compact() {
        for text in ["127.0.0.1:80", "[::1]:65535", "[2001:db8::1]:1", "[fe80::1%7]:9"] {
            let addr: SocketAddr = text.parse().expect("an address");
            assert_eq!(Seat::new(1, 2, addr).peer_addr(), addr);
        }
    }
}
