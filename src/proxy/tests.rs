//! Tests of the parser as a whole: every header in every piece.

use std::net::Ipv6Addr;

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

/// Lines of version 1 whose byte at the given position is wrong, and what is expected there.
const WRONG_LINES: &[(&str, usize, &str)] = &[
    ("PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n", 5, "a space"),
    ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 6, "TCP4, TCP6 or UNKNOWN"),
    ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", 6, "TCP4, TCP6 or UNKNOWN"),
    ("PROXY TCp4 1.2.3.4 1.2.3.4 1 2\r\n", 8, "TCP4, TCP6 or UNKNOWN"),
    ("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", 9, "TCP4, TCP6 or UNKNOWN"),
    ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", 7, "TCP4, TCP6 or UNKNOWN"),
    ("PROXY unknown\r\n", 6, "TCP4, TCP6 or UNKNOWN"),
    ("PROXY UNKNOWN\n", 13, "a space, or CR and LF"),
    ("PROXY UNKNOWN\r\r\n", 14, "CR and LF"),
    ("PROXY UNKNOWNS\r\n", 13, "a space, or CR and LF"),
    ("PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n", 10, "a space"),
    ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", 11, "a number from 0 to 255 of an IPv4 address"),
    ("PROXY TCP4 256.2.3.4 1.2.3.4 1 2\r\n", 13, "a number from 0 to 255 of an IPv4 address"),
    ("PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", 12, "a number from 0 to 255 of an IPv4 address"),
    ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", 16, "a dot of an IPv4 address"),
    ("PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n", 18, "a space"),
    ("PROXY TCP4 1..2.3 1.2.3.4 1 2\r\n", 13, "a number from 0 to 255 of an IPv4 address"),
    ("PROXY TCP4 +1.2.3.4 1.2.3.4 1 2\r\n", 11, "a number from 0 to 255 of an IPv4 address"),
    ("PROXY TCP4 ::1 ::1 1 2\r\n", 11, "a number from 0 to 255 of an IPv4 address"),
    ("PROXY TCP4 1.2.3.4\t1.2.3.4 1 2\r\n", 18, "a space"),
    ("PROXY TCP6 1.2.3.4 ::1 1 2\r\n", 12, "an IPv6 address"),
    ("PROXY TCP6 ::1%1 ::1 1 2\r\n", 14, "an IPv6 address"),
    ("PROXY TCP6 [::1] ::1 1 2\r\n", 11, "an IPv6 address"),
    ("PROXY TCP6 ::g ::1 1 2\r\n", 13, "an IPv6 address"),
    ("PROXY TCP6 ::12345 ::1 1 2\r\n", 17, "an IPv6 address"),
    ("PROXY TCP6 1::2::3 ::1 1 2\r\n", 16, "an IPv6 address"),
    ("PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", 24, "an IPv6 address"),
    ("PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", 26, "an IPv6 address"),
    ("PROXY TCP6 ::ffff:256.1.1.1 ::1 1 2\r\n", 21, "an IPv6 address"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", 31, "a port from 0 to 65535"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 100000 2\r\n", 32, "a port from 0 to 65535"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", 28, "a port from 0 to 65535"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", 27, "a port from 0 to 65535"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n", 27, "a port from 0 to 65535"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1\t2\r\n", 28, "a space"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", 33, "a port from 0 to 65535"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n", 30, "a port from 0 to 65535"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", 30, "CR and LF"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", 30, "CR and LF"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", 31, "CR and LF"),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 28, "a space"),
];

/// Goal: the first wrong byte of a line is an error, and the message names it. Method: a line for each
/// rule; the bytes before the wrong one need more, and the wrong one decides.
#[test]
fn the_first_wrong_byte_of_a_line_is_an_error() {
    for &(line, at, expected) in WRONG_LINES {
        let error = ProxyError::Line { at, expected };
        assert_eq!(in_pieces(line.as_bytes(), &Proxy::required()), Err(error), "{line:?}");
        assert_eq!(parse(&line.as_bytes()[..at]), Ok(None), "{line:?}");
        assert_eq!(parse(&line.as_bytes()[..=at]), Err(error), "{line:?}");
        let text = format!(
            "byte {at} is wrong in the line of version 1: {expected} is expected (section 2.1)"
        );
        assert_eq!((error.to_string(), format!("{error:?}")), (text.clone(), text));
    }
}

/// Goal: bytes that begin no header of either version are an error at once. Method: the beginnings of
/// other protocols; each byte of both signatures, changed.
#[test]
fn the_first_byte_of_another_protocol_is_an_error() {
    for (bytes, at) in [
        (&b"GET / HTTP/1.1\r\n"[..], 0),
        (b"POST / HTTP/1.1\r\n", 1),
        (b"PRI * HTTP/2.0\r\n", 2),
        (b"proxy TCP4", 0),
        (b"\x16\x03\x01", 0),
        (b"\0\x04ping", 0),
        (b"\r\n\r\n\0\r\nQUIT\r\n", 11),
        (b"\n", 0),
    ] {
        assert_eq!(in_pieces(bytes, &Proxy::required()), Err(ProxyError::Signature { at }));
        assert_eq!(parse(&bytes[..at]), Ok(None));
        assert_eq!(parse(&bytes[..=at]), Err(ProxyError::Signature { at }));
    }
    for signature in [&b"PROXY"[..], V2] {
        for at in 0..signature.len() {
            let mut bytes = signature.to_vec();
            bytes[at] ^= 0x20;
            assert_eq!(in_pieces(&bytes, &Proxy::required()), Err(ProxyError::Signature { at }));
        }
    }
    assert_eq!(parse(b""), Ok(None));
    let text = "byte 1 belongs to no PROXY header (section 2.2)";
    assert_eq!(parse(b"PO").unwrap_err().to_string(), text);
}

/// Goal: a line of version 1 has at most 107 bytes. Method: lines of 107 and 108 bytes, with and
/// without an end.
#[test]
fn a_line_of_more_than_107_bytes_is_an_error() {
    let line = |len: usize| {
        let dots = ".".repeat(len - "PROXY UNKNOWN \r\n".len());
        format!("PROXY UNKNOWN {dots}\r\n").into_bytes()
    };
    assert!(matches!(in_pieces(&line(107), &Proxy::required()), Ok(Some((_, 107)))));
    for bytes in [line(108), line(109), [b"PROXY UNKNOWN ", &[b'x'; 300][..]].concat()] {
        assert_eq!(in_pieces(&bytes, &Proxy::required()), Err(ProxyError::LineTooLong));
        assert_eq!(parse(&bytes[..106]), Ok(None));
        assert_eq!(parse(&bytes[..107]), Err(ProxyError::LineTooLong));
    }
    // No option allows more, and an address may be right and too long.
    let mapped = "0000:0000:0000:0000:0000:ffff:255.255.255.255";
    let line = format!("PROXY TCP6 {mapped} {mapped} 65535 65535\r\n");
    let options = Proxy::required().max_header(4096);
    assert_eq!(in_pieces(line.as_bytes(), &options), Err(ProxyError::LineTooLong));
}

/// A wrong header, how many of its bytes decide that, the error and its message.
type Wrong = (Vec<u8>, usize, ProxyError, &'static str);

fn wrong_in_the_fixed_part() -> Vec<Wrong> {
    let long = [INET, &tlv(5, &[0; 506])].concat();
    vec![
        (
            v2(0x11, 0x11, &[INET]),
            13,
            ProxyError::Version { found: 1 },
            "byte 12 has version 1 in its upper half, and 2 is expected (section 2.2)",
        ),
        (
            v2(0x22, 0x11, &[INET]),
            13,
            ProxyError::Command { found: 2 },
            "byte 12 has command 2 in its lower half, and 0 or 1 is expected (section 2.2)",
        ),
        (
            v2(0x21, 0x41, &[INET]),
            14,
            ProxyError::Family { found: 4 },
            "byte 13 has family 4 in its upper half, and 0 to 3 are expected (section 2.2)",
        ),
        (
            v2(0x21, 0x13, &[INET]),
            14,
            ProxyError::Transport { found: 3 },
            "byte 13 has transport 3 in its lower half, and 0 to 2 are expected (section 2.2)",
        ),
        (
            v2(0x21, 0x11, &[&INET[..11]]),
            16,
            ProxyError::Addresses { len: 11, needed: 12 },
            "byte 14 announces 11 bytes, and the addresses take 12 (section 2.2)",
        ),
        (
            v2(0x21, 0x22, &[&[0; 35]]),
            16,
            ProxyError::Addresses { len: 35, needed: 36 },
            "byte 14 announces 35 bytes, and the addresses take 36 (section 2.2)",
        ),
        (
            v2(0x21, 0x31, &[&[0; 215]]),
            16,
            ProxyError::Addresses { len: 215, needed: 216 },
            "byte 14 announces 215 bytes, and the addresses take 216 (section 2.2)",
        ),
        (
            v2(0x21, 0x11, &[&long]),
            16,
            ProxyError::TooLong { len: 537, max: 536 },
            "a header of 537 bytes (byte 14, section 2.2) is above max_header of 536",
        ),
        (
            v2(0x20, 0x00, &[&[0; 65_535]]),
            16,
            ProxyError::TooLong { len: 65_551, max: 536 },
            "a header of 65551 bytes (byte 14, section 2.2) is above max_header of 536",
        ),
    ]
}

fn wrong_values() -> Vec<Wrong> {
    let value = tlv(5, b"id");
    let lies = |at: usize, len, left| ProxyError::Tlv { at, len, left };
    let twice = [tlv(3, &[0; 4]), tlv(3, &[0; 4])].concat();
    vec![
        (
            v2(0x21, 0x11, &[INET, &value, &[5, 0, 1]]),
            36,
            lies(33, 4, 3),
            "the TLV at byte 33 takes 4 bytes, and 3 are left (section 2.2)",
        ),
        (
            v2(0x21, 0x11, &[INET, &[5, 0xff, 0xff], &[0; 20]]),
            31,
            lies(28, 65_538, 23),
            "the TLV at byte 28 takes 65538 bytes, and 23 are left (section 2.2)",
        ),
        (
            // The length of the value decides that no TLV fits behind it.
            v2(0x21, 0x11, &[INET, &value, &[5, 0]]),
            31,
            lies(33, 3, 2),
            "the TLV at byte 33 takes 3 bytes, and 2 are left (section 2.2)",
        ),
        (
            v2(0x21, 0x11, &[INET, &[0]]),
            16,
            lies(28, 3, 1),
            "the TLV at byte 28 takes 3 bytes, and 1 are left (section 2.2)",
        ),
        (
            v2(0x21, 0x11, &[INET, &tlv(3, b"abc")]),
            31,
            ProxyError::ChecksumLength { at: 28, len: 3 },
            "the checksum at byte 28 has 3 bytes, and 4 are expected (section 2.2.3)",
        ),
        (
            v2(0x21, 0x11, &[INET, &tlv(3, b"abcde")]),
            31,
            ProxyError::ChecksumLength { at: 28, len: 5 },
            "the checksum at byte 28 has 5 bytes, and 4 are expected (section 2.2.3)",
        ),
        (
            v2(0x21, 0x11, &[INET, &twice]),
            36,
            ProxyError::ChecksumTwice { at: 35 },
            "byte 35 begins a second checksum (section 2.2.3)",
        ),
        (
            v2(0x21, 0x11, &[INET, &[3, 0, 4, 0x54, 0x8e, 0x28, 0xfe]]),
            35,
            ProxyError::ChecksumWrong { at: 31, found: 0x548e_28fe, computed: 0x548e_28ff },
            "the checksum at byte 31 is 548e28fe, and 548e28ff is right (section 2.2.3)",
        ),
    ]
}

/// Goal: a wrong header of version 2 is an error with its first wrong byte, or its second one if two
/// bytes are one number. Method: a header for each rule, and the length at which it is refused.
#[test]
fn the_first_wrong_byte_of_a_binary_header_is_an_error() {
    for (bytes, decided_at, error, text) in [wrong_in_the_fixed_part(), wrong_values()].concat() {
        assert_eq!(in_pieces(&bytes, &Proxy::required()), Err(error));
        assert_eq!(parse(&bytes[..decided_at - 1]), Ok(None), "{error}");
        assert_eq!(parse(&bytes[..decided_at]), Err(error));
        assert_eq!(error.to_string(), text);
    }
}

/// Goal: a header may be as long as the options say. Method: headers of the maximum, and of one byte
/// more.
#[test]
fn the_length_of_a_header_has_a_limit() {
    for max in [Proxy::DEFAULT_MAX_HEADER, 28, 107, 4_096] {
        let options = Proxy::required().max_header(max);
        let bytes = |len: usize| match len - 28 {
            0 => v2(0x21, 0x11, &[INET]),
            _ => v2(0x21, 0x11, &[INET, &tlv(4, &vec![0; len - 31])]),
        };
        assert!(matches!(in_pieces(&bytes(max), &options), Ok(Some((_, len))) if len == max));
        let error = ProxyError::TooLong { len: max + 3, max };
        assert_eq!(ProxyHeader::parse(&bytes(max + 3)[..16], &options), Err(error));
    }
}

/// Goal: of a listener's versions, others are refused with their first byte.
#[test]
fn versions_that_are_left_out_are_refused_at_once() {
    let line = b"PROXY UNKNOWN\r\n".to_vec();
    let binary = v2(0x20, 0, &[]);
    let both = [ProxyVersion::V1, ProxyVersion::V2];
    for (versions, one, two) in
        [(&both[..], true, true), (&both[..1], true, false), (&both[1..], false, true)]
    {
        let options = Proxy::required().versions(versions.iter().copied());
        for (bytes, accepted, version) in [(&line, one, 1), (&binary, two, 2)] {
            let result = in_pieces(bytes, &options);
            if accepted {
                assert!(matches!(result, Ok(Some(_))));
            } else {
                let error = ProxyError::VersionNotAccepted { version };
                assert_eq!(
                    (result, ProxyHeader::parse(&bytes[..1], &options)),
                    (Err(error), Err(error))
                );
            }
        }
        let error = ProxyError::Signature { at: 0 };
        assert_eq!(ProxyHeader::parse(b"GET", &options), Err(error));
    }
    let text = "byte 0 begins a header of version 2, which the options leave out (section 2)";
    assert_eq!(ProxyError::VersionNotAccepted { version: 2 }.to_string(), text);
}

/// Goal: a checksum may be required. Method: headers with and without one, of both versions.
#[test]
fn a_checksum_may_be_required() {
    let options = Proxy::required().require_checksum(true);
    for bytes in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x21, 0x11, &[INET]),
        v2(0x20, 0, &[]),
        v2(0x20, 0, &[b"skipped"]),
        v2(0x21, 0x11, &[INET, &tlv(5, b"id")]),
    ] {
        assert_eq!(in_pieces(&bytes, &options), Err(ProxyError::ChecksumMissing));
    }
    for bytes in [with_checksum(0x21, 0x11, &[INET]), with_checksum(0x20, 0, &[])] {
        assert!(matches!(in_pieces(&bytes, &options), Ok(Some(_))));
    }
}

/// Goal: whatever one byte of a header becomes, each prefix of it has no result or the final one; and
/// no header with a checksum is accepted with a wrong byte. Method: the bytes of each right header,
/// with other values.
#[test]
fn one_changed_byte_keeps_the_promises() {
    let required = Proxy::required().require_checksum(true);
    for (bytes, ..) in right() {
        let has_checksum = matches!(ProxyHeader::parse(&bytes, &required), Ok(Some(_)));
        // All changes of short headers, and single bits of the beginning of long ones.
        let is_short = bytes.len() < 50;
        for at in 0..bytes.len().min(60) {
            for change in (1..=u8::MAX).filter(|change| is_short || change.is_power_of_two()) {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                if change.is_power_of_two() && (is_short || at % 3 == 0) {
                    let _ = in_pieces(&changed, &Proxy::required());
                }
                if has_checksum {
                    let result = ProxyHeader::parse(&changed, &required);
                    assert!(!matches!(result, Ok(Some(_))), "{at} {change}");
                }
            }
        }
    }
}

/// Goal: an IPv6 address in a line is what the standard library takes for one, and its first wrong byte
/// is the one with which nothing can become an address. Method: texts from a seed, of the characters
/// that addresses have; each prefix of a text is completed with all endings that may be missing.
#[test]
fn ipv6_addresses_are_those_of_the_standard_library() {
    const ENDINGS: [&str; 10] = ["", "0", ":", "::", ":0", ".0", ".0.0", ".0.0.0", "0.0", "0.0.0"];
    let can_become_one = |text: &str| {
        ENDINGS.iter().any(|ending| format!("{text}{ending}").parse::<Ipv6Addr>().is_ok())
    };
    let mut state = 1_u64;
    let mut next = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    };
    let mut right = 0;
    for _ in 0..40_000 {
        let parts =
            ["0", "1", "25", "255", "256", "f", "abCd", "12345", ":", ":", "::", "::", ".", "g"];
        let mut text = String::new();
        let mut is_group = false;
        for _ in 0..next(18) {
            // Mostly groups and colons in turn.
            let part = if next(8) == 0 {
                parts[next(parts.len())]
            } else if is_group {
                parts[next(7)]
            } else {
                [":", ":", ":", "::", "."][next(5)]
            };
            is_group = !is_group;
            text.push_str(part);
        }
        text.truncate(40);
        let line = format!("PROXY TCP6 {text} ::1 1 2\r\n");
        match (in_pieces(line.as_bytes(), &Proxy::required()), text.parse::<Ipv6Addr>()) {
            (Ok(Some((header, _))), Ok(addr)) => {
                right += 1;
                assert_eq!(header.source(), Some(Endpoint::from((addr, 1)).canonical()));
            }
            (Err(ProxyError::Line { at, .. }), Err(_)) => {
                let at = at - "PROXY TCP6 ".len();
                assert!(can_become_one(&text[..at]), "{text:?} {at}");
                assert!(at == text.len() || !can_become_one(&text[..=at]), "{text:?} {at}");
            }
            (result, addr) => panic!("{text:?}: {result:?}, {addr:?}"),
        }
    }
    assert!(right > 500, "{right}");
}

/// Goal: a header is parsed as it was written, with and without a checksum. Method: each kind of ends
/// in both versions.
#[test]
fn a_header_is_parsed_as_it_was_written() {
    let end = |text: &str| text.parse::<Endpoint>().unwrap();
    let unnamed = Endpoint::from(crate::UnixName::unnamed());
    let mapped = "[::ffff:192.0.2.7]:56324";
    let (one, two) = (ProxyVersion::V1, ProxyVersion::V2);
    for (version, source, destination, told) in [
        (one, end(SOURCE), end(DESTINATION), true),
        (one, end("[2001:db8::7]:80"), end("[::1]:81"), true),
        (one, end(SOURCE), end("[::1]:81"), false),
        (one, end("unix:/run/a"), end("unix:/run/b"), false),
        (one, end("unix:/run/a"), end(SOURCE), false),
        (one, end(mapped), end(DESTINATION), true),
        (two, end(SOURCE), end(DESTINATION), true),
        (two, end("[2001:db8::7]:80"), end("[::1]:81"), true),
        (two, end("[fe80::7%3]:80"), end("[::1]:81"), true),
        (two, end(SOURCE), end("[::1]:81"), true),
        (two, end("[::1]:81"), end(SOURCE), true),
        (two, end(mapped), end(DESTINATION), true),
        (two, end("unix:/run/a"), end("unix:@b"), true),
        (two, end(r"unix:@a\x00b"), unnamed.clone(), true),
        (two, unnamed.clone(), unnamed, true),
        (two, end("unix:/run/a"), end(SOURCE), false),
    ] {
        let header = ProxyHeader::of(version, &source, &destination);
        for header in [header.clone().with_checksum(), header] {
            let mut bytes = Vec::new();
            header.write_to(&mut bytes);
            let (parsed, len) = in_pieces(&bytes, &Proxy::required()).unwrap().unwrap();
            assert_eq!(len, bytes.len());
            assert_eq!(parsed.version(), if version == one { 1 } else { 2 });
            let plain = source.to_string().replace("%3", "");
            let ends = told.then(|| (end_of(&plain), destination.clone().canonical()));
            assert_eq!(parsed.source().zip(parsed.destination()), ends);
            assert!(!parsed.is_local() && !parsed.is_datagram());
            let has_checksum = header.tlv(Tlv::CRC32C).is_some();
            assert_eq!(parsed.tlv(Tlv::CRC32C).is_some(), has_checksum);
            if !has_checksum {
                assert_eq!(parsed, header);
            }
        }
    }
}

/// The endpoint that the text of another one names. A peer without a name has a text of its own.
fn end_of(text: &str) -> Endpoint {
    match text {
        "unix:" => crate::UnixName::unnamed().into(),
        text => text.parse::<Endpoint>().unwrap().canonical(),
    }
}

/// Goal: what was parsed is written as it came, but for bytes that were skipped. Method: each right
/// header, after other output.
#[test]
fn a_header_is_written_as_it_was_parsed() {
    for (bytes, ..) in right() {
        let (header, _) = parse(&bytes).unwrap().unwrap();
        let mut written = b"before".to_vec();
        header.write_to(&mut written);
        let written = &written[6..];
        assert_eq!(parse(written), Ok(Some((header.clone(), written.len()))));
        let is_canonical = header.source().is_some()
            && header.version() == 2
            && !bytes.windows(8).any(|bytes| bytes == b"/run/a\0b");
        if is_canonical {
            assert_eq!(written, bytes);
        }
        let checked = header.clone().with_checksum();
        assert_eq!(checked.clone().with_checksum(), checked);
        assert_eq!(checked.tlv(Tlv::CRC32C).is_some(), header.version() == 2);
    }
    let local = |version| {
        let mut bytes = Vec::new();
        ProxyHeader::local(version).write_to(&mut bytes);
        bytes
    };
    assert_eq!(local(ProxyVersion::V1), b"PROXY UNKNOWN\r\n");
    assert_eq!(local(ProxyVersion::V2), v2(0x20, 0, &[]));
    assert!(ProxyHeader::local(ProxyVersion::V2).is_local());
}

/// Goal: a checksum that does not fit is left out. Method: the longest headers that a field of two
/// bytes allows.
#[test]
fn a_header_without_room_gets_no_checksum() {
    let options = Proxy::required().max_header(usize::MAX);
    for (len, fits) in [(65_528, true), (65_529, false), (65_535, false)] {
        let bytes = v2(0x20, 0, &[&tlv(4, &vec![0; len - 3])]);
        let (header, _) = ProxyHeader::parse(&bytes, &options).unwrap().unwrap();
        let header = header.with_checksum();
        assert_eq!(header.tlv(Tlv::CRC32C).is_some(), fits);
        let mut bytes = Vec::new();
        header.write_to(&mut bytes);
        assert!(matches!(ProxyHeader::parse(&bytes, &options), Ok(Some(_))));
    }
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
