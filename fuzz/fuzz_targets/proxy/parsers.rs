//! Compares the parser of the PROXY protocol with two others, `proxy-header` and `ppp`: the
//! verdict, the length, the addresses and the values.
//!
//! The three agree but for the differences that are written down here, each with its reason. A
//! difference is a condition on the bytes, and not on the results: outside of it everything has to
//! be equal.

use std::net::SocketAddr;

use condor::{Endpoint, Proxy, ProxyError, ProxyHeader, Tlv};
use ppp::PartialResult;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

type Ends = Option<(SocketAddr, SocketAddr)>;

/// What a parser makes of some bytes.
#[derive(Debug, PartialEq)]
enum Verdict<H> {
    /// More bytes are needed.
    More,
    /// The bytes are no header.
    Wrong,
    /// A header of this many bytes, and what it says.
    Right(usize, H),
}

/// Panics if the parsers differ in a way that is not known.
pub fn agree(bytes: &[u8]) {
    let ours = ProxyHeader::parse(bytes, &Proxy::required().max_header(usize::MAX));
    proxy_header(bytes, &ours);
    ppp(bytes, &ours);
}

type Ours = Result<Option<(ProxyHeader, usize)>, ProxyError>;

/// Whether the bytes are a line of version 1, or the beginning of one.
fn is_line(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'P')
}

/// The families and transports without addresses, and headers that are local: the specification
/// has a receiver ignore the bytes in place of the addresses. `ppp` and `proxy-header` check some
/// of them.
fn is_skipped(bytes: &[u8]) -> bool {
    let is_binary = bytes.starts_with(SIGNATURE) && bytes.len() >= 14;
    is_binary && (bytes[12] == 0x20 || bytes[13] >> 4 == 0 || bytes[13] & 15 == 0)
}

/// What a line of version 1 says between its protocol and its end, if it is `UNKNOWN`.
fn unknown(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(b"PROXY")?.get(1..)?.strip_prefix(b"UNKNOWN")
}

/// The errors that the others do not look for, or find in the values only when these are asked for.
fn is_of_values(error: &ProxyError) -> bool {
    matches!(
        error,
        ProxyError::Tlv { .. }
            | ProxyError::ChecksumLength { .. }
            | ProxyError::ChecksumTwice { .. }
            | ProxyError::ChecksumWrong { .. }
    )
}

/// Whether a number of the line has a sign, or zeros before it.
///
/// The specification allows only digits, without zeros before a number (2.1). `u16::from_str`,
/// which both call, takes a plus sign and zeros.
fn has_odd_port(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut ports = line.split(|byte| *byte == b' ').skip(4);
    ports.any(|port| port.first() == Some(&b'+') || port.len() > 1 && port[0] == b'0')
}

fn inet(end: Option<Endpoint>) -> Option<SocketAddr> {
    end.and_then(|end| end.as_inet())
}

/// The ends that we tell: an IPv4 address that is written as an IPv6 one is IPv4, which both others
/// leave to their callers. Names of Unix sockets are looked at by `ppp` alone.
fn ends(header: &ProxyHeader) -> Ends {
    Some((inet(header.source())?, inet(header.destination())?))
}

fn canonical((source, destination): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    (canonical(source), canonical(destination))
}

fn proxy_header(bytes: &[u8], ours: &Ours) {
    use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader as Theirs};
    let theirs = match Theirs::parse(bytes, ParseConfig::default()) {
        Ok((header, len)) => Verdict::Right(len, header),
        Err(Error::BufferTooShort) => Verdict::More,
        Err(_) => Verdict::Wrong,
    };
    match (ours, &theirs) {
        (Ok(None), Verdict::More) | (Err(_), Verdict::Wrong) => {}
        (Ok(Some((header, len))), Verdict::Right(their_len, theirs)) => {
            assert_eq!(len, their_len);
            let told = theirs.proxied_address();
            let their_ends = told.map(|told| canonical((told.source, told.destination)));
            // It takes a header whose transport is not specified for none, see below.
            assert_eq!(ends(header), their_ends);
            let is_unix = header.source().is_some() && their_ends.is_none();
            if !is_unix {
                let is_datagram = told.is_some_and(|told| told.protocol == Protocol::Datagram);
                assert_eq!(header.is_datagram(), is_datagram);
            }
            let their_tlvs: Vec<_> = theirs.tlvs().collect();
            let tlvs = header.tlvs().map(|tlv| proxy_header::Tlv::decode(tlv.kind, tlv.value));
            // It tells an error in place of values that are no TLVs. We tell none of them.
            let is_broken = is_skipped(bytes) && header.tlvs().next().is_none();
            assert!(is_broken || tlvs.eq(their_tlvs));
        }
        // It waits for 15 bytes of version 1, and for all bytes of version 2, before it looks at
        // one. It looks at a part of a line only when the space behind it is there.
        (Err(_), Verdict::More) => {}
        // It does not look for errors in the values, except one by one, and verifies no checksum.
        (Err(error), Verdict::Right(_, theirs)) if is_of_values(error) => {
            let is_found = theirs.tlvs().any(|tlv| tlv.is_err());
            let is_of_one_value =
                matches!(error, ProxyError::Tlv { .. } | ProxyError::ChecksumLength { .. });
            assert!(is_found || !is_of_one_value, "{error}");
        }
        // It does not look at the space behind `PROXY`, which is byte 5.
        (Err(ProxyError::Line { at: 5, .. }), Verdict::Right(..)) => {}
        // It takes `UNKNOWNx` for `UNKNOWN`. The specification has a space there.
        (Err(ProxyError::Line { at: 13, .. }), Verdict::Right(..)) if unknown(bytes).is_some() => {}
        // It takes lines that are longer than 107 bytes if they are whole.
        (Err(ProxyError::LineTooLong), Verdict::Right(len, _)) => assert!(*len > 107),
        (Err(ProxyError::Line { .. }), Verdict::Right(..)) if has_odd_port(bytes) => {}
        // A CR ends the line `UNKNOWN`. The specification has a receiver ignore everything before
        // CR LF.
        (Ok(_), Verdict::Wrong) if unknown(bytes).is_some_and(|rest| rest.contains(&b'\r')) => {}
        // It refuses local headers whose family or transport is unassigned, or whose addresses are
        // too short, and those without a family or a transport. The specification has a receiver
        // ignore them.
        (Ok(_), Verdict::Wrong | Verdict::More) if is_skipped(bytes) => {}
        (ours, theirs) => panic!("proxy-header: {ours:?}, {theirs:?}"),
    }
}

fn ppp(bytes: &[u8], ours: &Ours) {
    let theirs = ppp::HeaderResult::parse(bytes);
    let is_incomplete = theirs.is_incomplete();
    match theirs {
        ppp::HeaderResult::V1(Ok(theirs)) => line_of_ppp(bytes, ours, &theirs),
        ppp::HeaderResult::V2(Ok(theirs)) => binary_of_ppp(bytes, ours, &theirs),
        _ => match ours {
            Ok(None) if is_incomplete => {}
            // It takes many wrong beginnings for incomplete ones.
            Err(_) => {}
            // It splits a line at spaces and CRs, and finds the end only after at most five parts.
            Ok(_) if unknown(bytes).is_some() => {}
            // Behind the space before the second port it takes the missing port for a wrong one.
            Ok(None) if is_line(bytes) && bytes.ends_with(b" ") => {}
            // It refuses what a receiver has to ignore, see `proxy_header`.
            Ok(_) if is_skipped(bytes) => {}
            _ => panic!("ppp: {ours:?}, incomplete: {is_incomplete}"),
        },
    }
}

fn line_of_ppp(bytes: &[u8], ours: &Ours, theirs: &ppp::v1::Header<'_>) {
    use ppp::v1::Addresses;
    let told = match theirs.addresses {
        Addresses::Tcp4(a) => Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        Addresses::Tcp6(a) => Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        Addresses::Unknown => None,
    };
    match ours {
        // It takes an LF between two spaces for the end of the line. The specification has a
        // receiver ignore everything before CR LF.
        _ if unknown(bytes).is_some_and(|rest| rest.starts_with(b" ")) => {}
        Ok(Some((header, len))) => {
            assert_eq!(*len, theirs.header.len());
            assert_eq!(ends(header), told.map(canonical));
        }
        Err(ProxyError::Line { .. }) if has_odd_port(bytes) => {}
        // It takes a space for the CR at the end of a line.
        Err(ProxyError::Line { .. }) if theirs.header.ends_with(" \n") => {}
        _ => panic!("ppp: {ours:?}, {theirs:?}"),
    }
}

fn binary_of_ppp(bytes: &[u8], ours: &Ours, theirs: &ppp::v2::Header<'_>) {
    use ppp::v2::{AddressFamily, Addresses, Command, Protocol};
    let header = match ours {
        Ok(Some((header, len))) => {
            assert_eq!(*len, theirs.len());
            header
        }
        // It does not look for errors in the values, except one by one, and verifies no checksum.
        Err(error) if is_of_values(error) => {
            let is_found = theirs.tlvs().any(|tlv| tlv.is_err());
            assert!(is_found || !matches!(error, ProxyError::Tlv { .. }), "{error}");
            return;
        }
        _ => panic!("ppp: {ours:?}, {theirs:?}"),
    };
    assert_eq!(header.is_local(), theirs.command == Command::Local);
    let end = |ip: std::net::IpAddr, port| SocketAddr::new(ip, port);
    let told = match theirs.addresses {
        // It tells what a receiver has to ignore.
        _ if is_skipped(bytes) => None,
        Addresses::IPv4(a) => Some((
            end(a.source_address.into(), a.source_port),
            end(a.destination_address.into(), a.destination_port),
        )),
        Addresses::IPv6(a) => Some((
            end(a.source_address.into(), a.source_port),
            end(a.destination_address.into(), a.destination_port),
        )),
        Addresses::Unix(a) => {
            let ends = [(header.source(), a.source), (header.destination(), a.destination)];
            for (ours, theirs) in ends {
                unix_name(&ours.expect("an end"), &theirs);
            }
            None
        }
        Addresses::Unspecified => None,
    };
    assert_eq!(ends(header), told.map(canonical));
    let has_ends = header.source().is_some();
    assert_eq!(header.is_datagram(), has_ends && theirs.protocol == Protocol::Datagram);
    // Without a family it takes all bytes for addresses, and finds no values.
    if theirs.address_family() != AddressFamily::Unspecified {
        let tlvs: Vec<_> = theirs.tlvs().collect();
        let is_broken = is_skipped(bytes) && tlvs.iter().any(|tlv| tlv.is_err());
        let tlvs = tlvs.iter().flatten().map(|tlv| (tlv.kind, &tlv.value[..]));
        assert!(is_broken || header.tlvs().map(|Tlv { kind, value, .. }| (kind, value)).eq(tlvs));
    }
}

/// The name in the 108 bytes of a header.
fn unix_name(ours: &Endpoint, theirs: &[u8; 108]) {
    let Endpoint::Unix(ours) = ours else { panic!("{ours} is no Unix socket") };
    let mut bytes = Vec::new();
    if let Some(path) = ours.as_pathname() {
        bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
        // What follows the NUL behind a path is nothing.
        assert_eq!(theirs.get(bytes.len()).copied().unwrap_or_default(), 0);
        assert_eq!(&theirs[..bytes.len()], bytes);
        return;
    }
    if let Some(name) = ours.as_abstract_name() {
        bytes.push(0);
        bytes.extend_from_slice(name);
    }
    bytes.resize(108, 0);
    assert_eq!(bytes, theirs);
}
