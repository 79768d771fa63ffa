//! Tests of the parser as a whole: every header in every piece.

mod writing;
mod wrong;

use super::*;
use crate::ip_network::IpNetwork;

/// The first 12 bytes of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The addresses of the tests, as they are in a header.
const INET: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
const SOURCE: &str = "192.0.2.7:56324";
const DESTINATION: &str = "198.51.100.1:443";

type Parsed = Result<Option<(ProxyHeader, usize)>, ProxyError>;

fn parse(bytes: &[u8]) -> Parsed {
    ProxyHeader::parse(bytes, &Proxy::required())
}

/// A header of version 2 with this command, this protocol and these bytes behind the first 16.
fn v2(command: u8, protocol: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2, &[command, protocol], &len, &body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind, high, low], value].concat()
}

/// The bytes of a Unix socket's name.
fn padded(name: &[u8]) -> Vec<u8> {
    let mut name = name.to_vec();
    name.resize(108, 0);
    name
}

/// A header with a checksum at its end.
fn with_checksum(command: u8, protocol: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = v2(command, protocol, &[&body.concat(), &[3, 0, 4, 0, 0, 0, 0]]);
    let checksum = crc32c::crc32c(&[&bytes]).to_be_bytes();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&checksum);
    bytes
}

/// What every prefix of `bytes` parses as. The promise is checked on the way: at first more bytes are
/// needed. Then there is one result, and no later byte changes it.
fn in_pieces(bytes: &[u8], options: &Proxy) -> Parsed {
    let whole = ProxyHeader::parse(bytes, options);
    let results = (0..bytes.len()).map(|len| (len, ProxyHeader::parse(&bytes[..len], options)));
    let mut results = results.skip_while(|(_, result)| *result == Ok(None));
    if let Some((at, _)) = results.clone().next() {
        for (len, result) in results.by_ref() {
            assert_eq!(result, whole, "{len} bytes of {bytes:02x?}");
        }
        if let Ok(header) = &whole {
            assert_eq!(header.as_ref().map(|(_, len)| *len), Some(at), "{bytes:02x?}");
        }
    }
    whole
}

/// A right header, and what it says: the version (20 for `LOCAL`, 22 for datagrams of version 2), both
/// ends, the types of the TLVs.
type Right = (Vec<u8>, u8, Option<(&'static str, &'static str)>, Vec<u8>);

fn right() -> Vec<Right> {
    let ends = Some((SOURCE, DESTINATION));
    let six = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = |line: &str| line.as_bytes().to_vec();
    let inet6 =
        [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 15], &[1, 0, 80]];
    let inet6 = [&inet6.concat()[..], &[0, 81]].concat();
    let inet6_ends = Some(("[2001:db8::7]:80", "[::1]:81"));
    let mapped =
        [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 7], &[0; 15], &[1], &[0, 80, 0, 81]].concat();
    let named = [padded(b"/run/a\0b"), padded(b"\0abstract\0name\0")].concat();
    let named_ends = Some(("unix:/run/a", r"unix:@abstract\x00name"));
    let unknown = tlv(0xe7, b"ours");
    let all = [tlv(4, b""), tlv(5, b"id"), unknown.clone()].concat();
    let lies = [&tlv(5, b"id")[..], &[5, 0, 1]].concat();
    vec![
        (line("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"), 1, ends, vec![]),
        (
            line("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n"),
            1,
            Some(("255.255.255.255:65535", "0.0.0.0:0")),
            vec![],
        ),
        (line("PROXY TCP6 2001:db8::7 ::1 80 81\r\n"), 1, inet6_ends, vec![]),
        (line("PROXY TCP6 2001:DB8:0:0::7 0:0:0:0:0:0:0:1 80 81\r\n"), 1, inet6_ends, vec![]),
        (line("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 56324 443\r\n"), 1, ends, vec![]),
        (
            line(&format!("PROXY TCP6 {six} {six} 65535 65535\r\n")),
            1,
            Some((
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            )),
            vec![],
        ),
        (line("PROXY UNKNOWN\r\n"), 1, None, vec![]),
        (line("PROXY UNKNOWN \r\n"), 1, None, vec![]),
        (line("PROXY UNKNOWN 192.0.2.7 \t\r \n \rx 256 99999\r\n"), 1, None, vec![]),
        // 107 bytes, the longest line.
        (line(&format!("PROXY UNKNOWN {six} {six} 65535 65535\r\n")), 1, None, vec![]),
        ([b"PROXY UNKNOWN ", &[0xff; 91][..], b"\r\n"].concat(), 1, None, vec![]),
        (v2(0x21, 0x11, &[INET]), 2, ends, vec![]),
        (v2(0x21, 0x12, &[INET]), 22, ends, vec![]),
        (v2(0x21, 0x21, &[&inet6]), 2, inet6_ends, vec![]),
        (v2(0x21, 0x22, &[&inet6]), 22, inet6_ends, vec![]),
        (v2(0x21, 0x21, &[&mapped]), 2, Some(("192.0.2.7:80", "[::1]:81")), vec![]),
        (v2(0x21, 0x31, &[&named]), 2, named_ends, vec![]),
        (v2(0x21, 0x32, &[&named, &unknown]), 22, named_ends, vec![0xe7]),
        (v2(0x21, 0x11, &[INET, &all]), 2, ends, vec![4, 5, 0xe7]),
        (v2(0x21, 0x11, &[INET, &[3, 0, 4, 0x54, 0x8e, 0x28, 0xff]]), 2, ends, vec![3]),
        (with_checksum(0x21, 0x11, &[INET, &all]), 2, ends, vec![4, 5, 0xe7, 3]),
        // Without addresses. What is in their place need not make sense.
        (v2(0x21, 0x00, &[]), 2, None, vec![]),
        (v2(0x21, 0x00, &[&all]), 2, None, vec![4, 5, 0xe7]),
        (v2(0x21, 0x00, &[INET]), 2, None, vec![]),
        (v2(0x21, 0x01, &[INET]), 2, None, vec![]),
        (v2(0x21, 0x02, &[]), 2, None, vec![]),
        (v2(0x21, 0x10, &[INET, &unknown]), 2, None, vec![0xe7]),
        (v2(0x21, 0x20, &[&[0; 3]]), 2, None, vec![]),
        (v2(0x21, 0x30, &[&named, &unknown]), 2, None, vec![0xe7]),
        (v2(0x20, 0x00, &[]), 20, None, vec![]),
        (v2(0x20, 0x11, &[INET]), 20, None, vec![]),
        (v2(0x20, 0x11, &[INET, &all]), 20, None, vec![4, 5, 0xe7]),
        (v2(0x20, 0x00, &[&all]), 20, None, vec![4, 5, 0xe7]),
        (with_checksum(0x20, 0x00, &[&unknown]), 20, None, vec![0xe7, 3]),
        (v2(0x20, 0x11, &[b"no"]), 20, None, vec![]),
        (v2(0x20, 0x00, &[&lies]), 20, None, vec![]),
        (v2(0x20, 0xff, &[b"any"]), 20, None, vec![]),
        (v2(0x20, 0x53, &[&unknown]), 20, None, vec![0xe7]),
    ]
}

/// Goal: a header that the specification allows is accepted, and says what its sender means. It is
/// accepted with its last byte, and what follows is not looked at. Method: each form of both versions,
/// cut at every length, and with each byte behind it.
#[test]
fn right_headers_are_accepted_with_their_last_byte() {
    for (bytes, mode, ends, kinds) in right() {
        let (header, len) = in_pieces(&bytes, &Proxy::required()).expect("right").expect("whole");
        assert_eq!(len, bytes.len());
        let told = header.source().zip(header.destination());
        let told = told.map(|(source, destination)| (source.to_string(), destination.to_string()));
        let ends = ends.map(|(source, destination)| (source.into(), destination.into()));
        assert_eq!(told, ends, "{header:?}");
        assert_eq!(header.version(), if mode == 1 { 1 } else { 2 });
        assert_eq!((header.is_local(), header.is_datagram()), (mode == 20, mode == 22));
        assert_eq!(header.tlvs().map(|tlv| tlv.kind).collect::<Vec<_>>(), kinds, "{header:?}");
        for next in 0..=u8::MAX {
            let more = [&bytes[..], &[next]].concat();
            assert_eq!(parse(&more), Ok(Some((header.clone(), len))));
        }
    }
}

/// Goal: the name of a Unix socket may take all its 108 bytes, and may be missing.
#[test]
fn names_of_unix_sockets_are_told() {
    let bytes = v2(0x21, 0x31, &[&[b'x'; 108], &[0; 108]]);
    let (header, _) = parse(&bytes).unwrap().unwrap();
    assert_eq!(header.source().unwrap().to_string(), format!("unix:{}", "x".repeat(108)));
    assert_eq!(header.destination().unwrap().to_string(), "unix:");
}

/// Goal: the values of a header are found by their type.
#[test]
fn values_are_found_by_their_type() {
    let values =
        [tlv(Tlv::ALPN, b"h2"), tlv(Tlv::UNIQUE_ID, b"id"), tlv(Tlv::ALPN, b"h3")].concat();
    let (header, _) = parse(&v2(0x21, 0x11, &[INET, &values])).unwrap().unwrap();
    assert_eq!(header.tlv(Tlv::ALPN), Some(&b"h2"[..]));
    assert_eq!(header.tlv(Tlv::UNIQUE_ID), Some(&b"id"[..]));
    assert_eq!(header.tlv(Tlv::AUTHORITY), None);
    let text = format!("{header:?}");
    assert!(text.contains(SOURCE) && text.contains("is_local: false"), "{text}");
    assert_eq!(size_of::<ProxyHeader>(), 24);
}

/// Goal: each peer has one rule, by its address. Method: each kind of options with peers inside and
/// outside the networks, mapped addresses and Unix sockets among them.
#[test]
fn a_peer_sends_a_header_or_none_by_its_address() {
    use Trust::{MustNotSend, MustSend, Refused};
    let networks = || ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse::<IpNetwork>().unwrap());
    let other = || ["192.0.2.7".parse::<IpNetwork>().unwrap()];
    for (proxy, inside, outside, other) in [
        (Proxy::required(), MustSend, MustSend, MustSend),
        (Proxy::required().from(networks()), MustSend, Refused, Refused),
        (Proxy::mixed(networks()), MustSend, MustNotSend, MustNotSend),
        (Proxy::mixed(networks()).from(other()), MustNotSend, MustNotSend, MustSend),
        (Proxy::required().from(networks()).from(other()), Refused, Refused, MustSend),
        (Proxy::required().from([]), Refused, Refused, Refused),
        (Proxy::mixed([]), MustNotSend, MustNotSend, MustNotSend),
    ] {
        for (peer, trust) in [
            ("10.1.2.3:4", inside),
            ("[::ffff:10.1.2.3]:4", inside),
            ("[fd00::1]:4", inside),
            ("11.1.2.3:4", outside),
            ("[::1]:4", outside),
            ("192.0.2.7:4", other),
            ("[::ffff:192.0.2.7]:4", other),
            ("unix:/run/a", MustSend),
            ("unix:@a", MustSend),
        ] {
            assert_eq!(proxy.trusts(&peer.parse().unwrap()), trust, "{peer} {proxy:?}");
        }
        assert_eq!(proxy.trusts(&crate::UnixName::unnamed().into()), MustSend);
    }
}

/// Goal: bytes that are skipped need not make sense, also if they look like checksums. Method: headers
/// without addresses, whose bodies are a checksum of another length, and two checksums.
#[test]
fn skipped_bytes_may_look_like_checksums() {
    let short = [Tlv::CRC32C, 0, 5, 0, 0, 0, 0, 0];
    let twice = [Tlv::CRC32C, 0, 4, 0, 0, 0, 0].repeat(2);
    for body in [&short[..], &twice] {
        for (command, protocol) in [(0x20, 0x11), (0x21, 0), (0x21, 0x10), (0x21, 0x01)] {
            let block = if protocol >> 4 == 1 { 12 } else { 0 };
            let header = v2(command, protocol, &[&vec![7; block], body]);
            let (parsed, len) = in_pieces(&header, &Proxy::required()).unwrap().unwrap();
            assert_eq!((parsed.source(), len), (None, header.len()));
        }
        let header = v2(0x21, 0x11, &[&[7; 12], body]);
        assert!(in_pieces(&header, &Proxy::required()).is_err(), "these bytes are not skipped");
    }
}
