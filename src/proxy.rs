//! The PROXY protocol: a header at the beginning of a connection, in which a proxy says who its
//! client is. Both versions are parsed and written here, without a socket: [`ProxyHeader::parse`]
//! takes the bytes that are there, and keeps nothing between two calls.
//!
//! `v1` is the line of text and `v2` the binary header; both reject the first wrong byte. A header in
//! memory is what follows the first 16 bytes of version 2, whichever version it came in: `addresses`
//! reads and writes its first part, `tlv` the rest.

mod options;
mod v1;
mod v2;
mod addresses;
mod tlv;
mod crc32c;
mod error;

use std::fmt;

pub use self::error::ProxyError;
pub(crate) use self::options::Trust;
pub use self::options::{Proxy, ProxyVersion};
pub use self::tlv::Tlv;
use crate::endpoint::Endpoint;

/// What a proxy says of a connection before the first byte of the client: who the client is, and which
/// address the client has connected to.
///
/// A server gets one from [`parse`](Self::parse). A client that is itself a proxy makes one with
/// [`of`](Self::of) or [`local`](Self::local), and sends what [`write_to`](Self::write_to) writes. The
/// [specification](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt) is HAProxy's. It takes
/// 24 bytes, and one allocation for addresses and values.
///
/// ```
/// use condor::{Proxy, ProxyHeader};
///
/// let bytes = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n";
/// let (header, len) = ProxyHeader::parse(bytes, &Proxy::required())?.unwrap();
/// assert_eq!(header.source(), Some("192.0.2.7:56324".parse().unwrap()));
/// assert_eq!(&bytes[len..], b"GET / HTTP/1.1\r\n");
///
/// // Half a header is no error. What cannot become one is.
/// assert_eq!(ProxyHeader::parse(&bytes[..20], &Proxy::required())?, None);
/// assert!(ProxyHeader::parse(b"GET", &Proxy::required()).is_err());
/// # Ok::<(), condor::ProxyError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The addresses as in version 2, then the TLVs.
    body: Box<[u8]>,
    version: u8,
    is_local: bool,
    /// The family of the addresses in the upper half, the transport in the lower one. 0 without
    /// addresses.
    protocol: u8,
}

impl ProxyHeader {
    /// Parses the header that `bytes` begins with, and returns it with its length in bytes. `Ok(None)`
    /// means that all bytes so far are right, and that more are needed. What follows the header is not
    /// looked at.
    ///
    /// Of `options`, the networks do not matter here. The first wrong byte is an error at once, however
    /// much is still to come. If some bytes are an error, they are the same error with more
    /// bytes behind them.
    ///
    /// Where the specification leaves a choice:
    ///
    /// - A header without a usable address is accepted: `UNKNOWN`, `LOCAL`, and a family or transport
    ///   that is not specified. The bytes in place of the addresses are skipped. Bytes that are no TLVs
    ///   are skipped, too; in all other headers they are an error.
    /// - IPv6 addresses may end like IPv4 ones in version 1 (`::ffff:192.0.2.1`), as HAProxy sends them.
    /// - Unknown TLVs are kept. A second checksum is an error.
    ///
    /// # Errors
    ///
    /// [`ProxyError`] says which byte is wrong, or which option does not accept the header.
    pub fn parse(bytes: &[u8], options: &Proxy) -> Result<Option<(Self, usize)>, ProxyError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let is_accepted = |version| options.accepts(version);
        match first {
            b'P' if !is_accepted(ProxyVersion::V1) => {
                Err(ProxyError::VersionNotAccepted { version: 1 })
            }
            b'P' if options.require_checksum => Err(ProxyError::ChecksumMissing),
            b'P' => Ok(v1::parse(bytes)?.map(|(ends, len)| (Self::of_line(ends), len))),
            b'\r' if !is_accepted(ProxyVersion::V2) => {
                Err(ProxyError::VersionNotAccepted { version: 2 })
            }
            _ => {
                let (max, require_checksum) = (options.max_header, options.require_checksum);
                let parsed = v2::parse(bytes, &v2::Limits { max, require_checksum })?;
                Ok(parsed.map(|(v2::Header { is_local, protocol, body }, len)| {
                    (Self { body: body.into(), version: 2, is_local, protocol }, len)
                }))
            }
        }
    }

    /// The header of a connection that the proxy makes for itself, such as a health check. Version 1
    /// has no such header, and `UNKNOWN` takes its place.
    pub fn local(version: ProxyVersion) -> Self {
        let version = number(version);
        Self { body: Box::default(), version, is_local: version == 2, protocol: 0 }
    }

    /// The header of a connection that a proxy makes for the client at `source`, which has connected to
    /// `destination`.
    ///
    /// | the two ends | version 1 | version 2 |
    /// |---|---|---|
    /// | IPv4 and IPv4, IPv6 and IPv6 | as they are | as they are |
    /// | IPv4 and IPv6 | `UNKNOWN` | both as IPv6 |
    /// | two Unix sockets | `UNKNOWN` | as they are |
    /// | a Unix socket and an IP address | `UNKNOWN` | no addresses |
    ///
    /// Scopes of IPv6 addresses are left out. NULs at the end of an abstract name are left out, too.
    pub fn of(version: ProxyVersion, source: &Endpoint, destination: &Endpoint) -> Self {
        let version = number(version);
        let (source, destination) = (source.clone().canonical(), destination.clone().canonical());
        let is_mixed = |a: &Endpoint, b: &Endpoint| match (a.ip(), b.ip()) {
            (Some(a), Some(b)) => a.is_ipv4() != b.is_ipv4(),
            _ => true,
        };
        let is_left_out = version == 1 && is_mixed(&source, &destination);
        let encoded = addresses::encode(&source, &destination).filter(|_| !is_left_out);
        let (protocol, body) = match encoded {
            Some((family, body)) => (family << 4 | STREAM, body.into()),
            None => (0, Box::default()),
        };
        Self { body, version, is_local: false, protocol }
    }

    fn of_line(ends: Option<v1::Ends>) -> Self {
        let encoded = ends.and_then(|(from, to)| addresses::encode(&from.into(), &to.into()));
        let (family, body) = encoded.unwrap_or_default();
        let protocol = if family == 0 { 0 } else { family << 4 | STREAM };
        Self { body: body.into(), version: 1, is_local: false, protocol }
    }

    /// The same header with a checksum, which [`write_to`](Self::write_to) computes. A header of
    /// version 1 stays as it is. One that has a checksum already stays as it is, too.
    #[must_use]
    pub fn with_checksum(mut self) -> Self {
        const CHECKSUM: [u8; 7] = [Tlv::CRC32C, 0, 4, 0, 0, 0, 0];
        // A header that was parsed may be as long as its field of length allows.
        let has_room = self.body.len() + CHECKSUM.len() <= usize::from(u16::MAX);
        if self.version == 2 && has_room && self.tlv(Tlv::CRC32C).is_none() {
            self.body = [&self.body, &CHECKSUM[..]].concat().into();
        }
        self
    }

    /// Appends the header to `out`, as it is sent.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        if self.version == 2 {
            let Self { is_local, protocol, ref body, .. } = *self;
            return v2::write(&v2::Header { is_local, protocol, body }, out);
        }
        let ends = self.ends();
        let ends = ends.and_then(|(from, to)| Some((from.as_inet()?, to.as_inet()?)));
        v1::write(ends, out);
    }

    /// The version of the protocol, 1 or 2.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Whether the proxy has made the connection for itself, such as a health check, and not for a
    /// client. Version 1 cannot say so.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// The client. `None` if the header tells no address: `LOCAL`, `UNKNOWN`, and families that are not
    /// specified. The peer of the connection is the one to go by then.
    ///
    /// An IPv4 address that is written as an IPv6 one is told as IPv4. The name of a Unix socket is
    /// what the proxy says, and need not exist on this machine. Such a name allocates.
    pub fn source(&self) -> Option<Endpoint> {
        self.ends().map(|(source, _)| source.canonical())
    }

    /// The address that the client has connected to. `None` if there is no [`source`](Self::source).
    pub fn destination(&self) -> Option<Endpoint> {
        self.ends().map(|(_, destination)| destination.canonical())
    }

    /// Whether the client has sent datagrams, by UDP or over a Unix socket. `false` without a
    /// [`source`](Self::source).
    pub fn is_datagram(&self) -> bool {
        self.protocol & 15 == DATAGRAM
    }

    /// The values of the header, in their order. Version 1 has none.
    pub fn tlvs(&self) -> impl Iterator<Item = Tlv<'_>> {
        Tlv::all(self.body.get(addresses::len(self.protocol >> 4)..).unwrap_or_default())
    }

    /// The first value of this type, such as [`Tlv::UNIQUE_ID`].
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// The ends as they are written.
    fn ends(&self) -> Option<(Endpoint, Endpoint)> {
        let family = self.protocol >> 4;
        addresses::decode(family, self.body.get(..addresses::len(family))?)
    }
}

impl fmt::Debug for ProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyHeader")
            .field("version", &self.version)
            .field("is_local", &self.is_local)
            .field("source", &self.source())
            .field("destination", &self.destination())
            .field("is_datagram", &self.is_datagram())
            .field("tlvs", &self.tlvs().collect::<Vec<_>>())
            .finish()
    }
}

/// The numbers of the transports that have addresses.
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

fn number(version: ProxyVersion) -> u8 {
    match version {
        ProxyVersion::V1 => 1,
        ProxyVersion::V2 => 2,
    }
}

#[cfg(test)]
mod tests;
