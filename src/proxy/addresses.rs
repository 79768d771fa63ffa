//! The addresses of a binary header. Section 2.2 of the specification.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::endpoint::{Endpoint, UnixName};

/// The numbers of the families.
pub(crate) const INET: u8 = 1;
pub(crate) const INET6: u8 = 2;
pub(crate) const UNIX: u8 = 3;

/// The bytes of a Unix socket's name.
const NAME: usize = 108;

/// The number of bytes that two addresses of a family take.
pub(crate) fn len(family: u8) -> usize {
    match family {
        INET => 2 * (4 + 2),
        INET6 => 2 * (16 + 2),
        UNIX => 2 * NAME,
        _ => 0,
    }
}

/// The source and the destination in the bytes of a header.
pub(crate) fn decode(family: u8, bytes: &[u8]) -> Option<(Endpoint, Endpoint)> {
    if family == UNIX {
        let (source, destination) = bytes.split_at_checked(NAME)?;
        return Some((name(source).into(), name(destination).into()));
    }
    let (addrs, ports) = bytes.split_last_chunk::<4>()?;
    let (source, destination) = addrs.split_at(addrs.len() / 2);
    let end = |addr: &[u8], port: [u8; 2]| {
        let port = u16::from_be_bytes(port);
        let inet = || Some((Ipv4Addr::from(<[u8; 4]>::try_from(addr).ok()?), port).into());
        let inet6 = || Some((Ipv6Addr::from(<[u8; 16]>::try_from(addr).ok()?), port).into());
        if family == INET { inet() } else { inet6() }
    };
    Some((end(source, [ports[0], ports[1]])?, end(destination, [ports[2], ports[3]])?))
}

/// The family and the bytes of two addresses. `None` if only one of them is a Unix socket. If only one
/// is IPv4, it is written as an IPv6 address.
pub(crate) fn encode(source: &Endpoint, destination: &Endpoint) -> Option<(u8, Vec<u8>)> {
    if let (Endpoint::Unix(source), Endpoint::Unix(destination)) = (source, destination) {
        return Some((UNIX, [name_bytes(source), name_bytes(destination)].concat()));
    }
    let ends = [source.as_inet()?, destination.as_inet()?];
    let family = if ends.iter().all(SocketAddr::is_ipv4) { INET } else { INET6 };
    let mut bytes = Vec::with_capacity(len(family));
    for end in ends {
        match end {
            SocketAddr::V4(end) if family == INET => bytes.extend_from_slice(&end.ip().octets()),
            SocketAddr::V4(end) => bytes.extend_from_slice(&end.ip().to_ipv6_mapped().octets()),
            SocketAddr::V6(end) => bytes.extend_from_slice(&end.ip().octets()),
        }
    }
    bytes.extend(ends.iter().flat_map(|end| end.port().to_be_bytes()));
    Some((family, bytes))
}

/// A name that takes 108 bytes. A path ends before its first NUL. An abstract name begins with one, and
/// the NULs at its end cannot be told from padding.
fn name(bytes: &[u8]) -> UnixName {
    if let Some((0, name)) = bytes.split_first() {
        return match name.iter().rposition(|byte| *byte != 0) {
            Some(last) => UnixName::from_parts(None, Some(&name[..=last])),
            None => UnixName::unnamed(),
        };
    }
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    UnixName::from_parts(Some(Path::new(OsStr::from_bytes(&bytes[..len]))), None)
}

fn name_bytes(name: &UnixName) -> [u8; NAME] {
    let path = name.as_pathname().map(|path| path.as_os_str().as_bytes());
    let (at, name) = match name.as_abstract_name() {
        Some(name) => (1, name),
        None => (0, path.unwrap_or_default()),
    };
    let mut bytes = [0; NAME];
    for (byte, from) in bytes[at..].iter_mut().zip(name) {
        *byte = *from;
    }
    bytes
}
