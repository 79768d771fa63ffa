//! The identity of a connection: its id in the process, its slot, its peer's endpoint.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::endpoint::{Endpoint, UnixName};
use crate::proxy::ProxyHeader;

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
    peer: PeerName,
}

/// Who the peer of a connection is, in 24 bytes. An [`Endpoint`] takes 32. It leaves out the flow
/// label, which does not identify a peer. An IPv4 peer of an IPv6 socket has its IPv4 address.
#[derive(Debug)]
pub(crate) enum PeerName {
    V4(Ipv4Addr, u16),
    V6(Ipv6Addr, u16, u32),
    Unix(UnixName),
    /// A proxy has told who it is.
    Proxied(Box<Proxied>),
}

/// A peer behind a proxy.
#[derive(Debug)]
pub(crate) struct Proxied {
    /// The client, or the proxy itself if it speaks for no client.
    pub(crate) peer_addr: Endpoint,
    /// The proxy.
    pub(crate) via_addr: Endpoint,
    pub(crate) header: ProxyHeader,
}

impl PeerName {
    /// The peer whose proxy, at `via_addr`, has sent this header.
    pub(crate) fn proxied(via_addr: Endpoint, header: ProxyHeader) -> Self {
        let via_addr = via_addr.canonical();
        let peer_addr = header.source().map_or_else(|| via_addr.clone(), Endpoint::canonical);
        Self::Proxied(Box::new(Proxied { peer_addr, via_addr, header }))
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match *self {
            Self::V4(ip, port) => Endpoint::from((ip, port)),
            Self::V6(ip, port, scope_id) => {
                Endpoint::from(SocketAddrV6::new(ip, port, 0, scope_id))
            }
            Self::Unix(ref name) => Endpoint::Unix(name.clone()),
            Self::Proxied(ref proxied) => proxied.peer_addr.clone(),
        }
    }
}

impl From<Endpoint> for PeerName {
    fn from(peer_addr: Endpoint) -> Self {
        match peer_addr.canonical() {
            Endpoint::Inet(SocketAddr::V4(addr)) => Self::V4(*addr.ip(), addr.port()),
            Endpoint::Inet(SocketAddr::V6(addr)) => {
                Self::V6(*addr.ip(), addr.port(), addr.scope_id())
            }
            Endpoint::Unix(name) => Self::Unix(name),
        }
    }
}

impl Identity {
    pub(crate) fn new(key: u32, generation: u32, peer: PeerName) -> Self {
        Self { key, generation, peer }
    }

    pub(crate) fn peer_addr(&self) -> Endpoint {
        self.peer.endpoint()
    }

    /// What a proxy has told. `None` for a peer that is not behind one.
    pub(crate) fn proxied(&self) -> Option<&Proxied> {
        match &self.peer {
            PeerName::Proxied(proxied) => Some(proxied),
            _ => None,
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
            assert_eq!(Identity::new(1, 2, endpoint.clone().into()).peer_addr(), endpoint);
        }
        let unnamed = Endpoint::from(UnixName::unnamed());
        assert_eq!(Identity::new(1, 2, unnamed.clone().into()).peer_addr(), unnamed);

        let sizes = (size_of::<PeerName>(), size_of::<Identity>(), size_of::<Endpoint>());
        assert_eq!(sizes, (24, 32, size_of::<SocketAddr>()));
    }
}
