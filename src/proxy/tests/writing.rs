//! Headers that are written, and parsed again.

use super::*;

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
