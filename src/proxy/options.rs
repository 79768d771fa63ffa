//! Which peers of a listener send a header, and which headers it accepts.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::ip_network::IpNetwork;

/// Which peers of a listener begin with a PROXY header, and which headers it accepts.
///
/// A header says who the client is, so a peer that may send one can claim any address. The
/// specification therefore forbids to guess whether a header is there. There are two ways, and neither
/// leaves it to the peer:
///
/// - [`required`](Self::required): each connection begins with a header. [`from`](Self::from) says
///   which peers may connect.
/// - [`mixed`](Self::mixed): connections from the given networks begin with a header, and all others
///   do not.
///
/// Peers over Unix sockets always send a header. Networks do not apply to them.
///
/// Wrong values give no error in the setters. The check of the listener's options finds them.
///
/// ```
/// use condor::{Proxy, ProxyError, ProxyHeader, ProxyVersion};
///
/// let proxy = Proxy::required().from(["10.0.0.0/8".parse()?]).versions([ProxyVersion::V2]);
/// let error = ProxyError::VersionNotAccepted { version: 1 };
/// assert_eq!(ProxyHeader::parse(b"PROXY", &proxy), Err(error));
/// # Ok::<(), condor::ParseIpNetworkError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Whether version 1 is accepted, and version 2.
    versions: [bool; 2],
    pub(crate) max_header: usize,
    pub(crate) require_checksum: bool,
    /// Peers outside the networks are served as themselves. Otherwise they are closed.
    is_mixed: bool,
    /// The networks of the peers that send a header. `None` stands for all.
    networks: Option<Arc<[IpNetwork]>>,
}

impl Proxy {
    /// The default of [`max_header`](Self::max_header), in bytes: each host takes a segment of this
    /// size (section 2 of the specification).
    pub const DEFAULT_MAX_HEADER: usize = 536;

    /// What [`max_header`](Self::max_header) may be: the longest line of version 1 fits, and a header
    /// fits into a page of 4 KiB.
    pub(crate) const MAX_HEADERS: RangeInclusive<usize> = 107..=4_096;

    /// Each connection begins with a header. All peers may connect, until [`from`](Self::from) says
    /// which ones.
    ///
    /// Call `from`, or make sure that only proxies reach the listener: any other peer can claim to be
    /// any client.
    pub fn required() -> Self {
        Self {
            versions: [true; 2],
            max_header: Self::DEFAULT_MAX_HEADER,
            require_checksum: false,
            is_mixed: false,
            networks: None,
        }
    }

    /// Connections from these networks begin with a header. All others do not: what they send is
    /// taken for packets, also if it looks like a header.
    pub fn mixed(networks: impl IntoIterator<Item = IpNetwork>) -> Self {
        Self { is_mixed: true, ..Self::required() }.from(networks)
    }

    /// The networks of the proxies. They replace those of an earlier call, and those of
    /// [`mixed`](Self::mixed).
    ///
    /// With [`required`](Self::required), a peer from anywhere else is closed before a byte is read.
    #[must_use]
    pub fn from(self, networks: impl IntoIterator<Item = IpNetwork>) -> Self {
        Self { networks: Some(networks.into_iter().collect()), ..self }
    }

    /// Which versions are accepted (both).
    #[must_use]
    pub fn versions(self, versions: impl IntoIterator<Item = ProxyVersion>) -> Self {
        let mut accepted = [false; 2];
        versions.into_iter().for_each(|version| accepted[version as usize] = true);
        Self { versions: accepted, ..self }
    }

    /// The maximum length of a header of version 2 in bytes (536). The length counts the first 16
    /// bytes, too. A proxy that sends long values, such as certificates, needs more; the check of the
    /// options takes 107 to 4,096 bytes. A line of version 1 always has at most 107 bytes.
    #[must_use]
    pub fn max_header(self, bytes: usize) -> Self {
        Self { max_header: bytes, ..self }
    }

    /// Whether each header needs a checksum (no). Version 1 has none, so only version 2 is accepted
    /// then. A checksum that is there is always verified.
    #[must_use]
    pub fn require_checksum(self, require: bool) -> Self {
        Self { require_checksum: require, ..self }
    }

    pub(crate) fn accepts(&self, version: ProxyVersion) -> bool {
        self.versions[version as usize]
    }

    /// Whether each peer may say who its client is.
    pub(crate) fn trusts_all(&self) -> bool {
        self.networks.as_ref().is_none_or(|all| all.iter().any(IpNetwork::is_everything))
    }

    /// Whether no peer over IP can send a header, so that none can connect.
    pub(crate) fn trusts_none(&self) -> bool {
        self.networks.as_ref().is_some_and(|networks| networks.is_empty())
    }

    /// What the peer at this end has to do.
    pub(crate) fn trusts(&self, peer: &Endpoint) -> Trust {
        let is_in =
            |networks: &[IpNetwork], ip| networks.iter().any(|network| network.contains(ip));
        match (peer.ip(), &self.networks) {
            (Some(ip), Some(networks)) if !is_in(networks, ip) => {
                if self.is_mixed {
                    Trust::MustNotSend
                } else {
                    Trust::Refused
                }
            }
            _ => Trust::MustSend,
        }
    }
}

/// What a peer has to do.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It sends a header first.
    MustSend,
    /// It sends no header. All its bytes are packets.
    MustNotSend,
    /// It may not connect.
    Refused,
}

/// A version of the PROXY protocol.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Version 1, a line of text.
    V1,
    /// Version 2, a binary header.
    V2,
}
