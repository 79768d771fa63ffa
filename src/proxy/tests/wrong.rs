//! Bytes that are no header, or none that the options accept.

use std::net::Ipv6Addr;

use super::*;

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
