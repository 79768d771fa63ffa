//! Fuzz body for the parser of the PROXY protocol: what it promises of any bytes, however they are
//! cut.
//!
//! The first byte chooses the options, the rest is what a peer has sent. If only the checksum is
//! wrong, the right one takes its place, because no fuzzer guesses it. The target compares the
//! parser with two others besides (`fuzz_targets/proxy/parsers.rs`).

use condor::{Proxy, ProxyError, ProxyHeader, ProxyVersion, Tlv};

/// Runs the body.
pub fn proxy(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let options = options(choice);
    let mut bytes = bytes.to_vec();
    let mut result = in_pieces(&bytes, &options);
    if let Err(ProxyError::ChecksumWrong { at, found, computed }) = result {
        assert_eq!(bytes[at..at + 4], found.to_be_bytes());
        bytes[at..at + 4].copy_from_slice(&computed.to_be_bytes());
        result = in_pieces(&bytes, &options);
        assert!(matches!(result, Ok(Some(_))), "{result:?}");
    }
    match result {
        Ok(Some((header, len))) => accepted(&header, &bytes[..len], &options, choice),
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty() && error.to_string().len() < 120),
    }
}

/// The options that a byte stands for: bits 0 and 1 are the versions, bit 2 requires a checksum,
/// bits 3 and 4 are the longest header.
fn options(choice: u8) -> Proxy {
    let both = [ProxyVersion::V1, ProxyVersion::V2];
    let versions = match choice & 3 {
        1 => &both[..1],
        2 => &both[1..],
        _ => &both,
    };
    let max = [536, 107, 4_096, 65_551][usize::from(choice >> 3 & 3)];
    Proxy::required()
        .versions(versions.iter().copied())
        .require_checksum(choice & 4 != 0)
        .max_header(max)
}

/// Parses each prefix. At first each needs more bytes. Then all have one result, which is that of
/// the whole.
fn in_pieces(bytes: &[u8], options: &Proxy) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let whole = ProxyHeader::parse(bytes, options);
    let decided = (0..=bytes.len())
        .find(|len| ProxyHeader::parse(&bytes[..*len], options) != Ok(None))
        .unwrap_or(bytes.len());
    if let Ok(Some((_, len))) = whole {
        assert_eq!(decided, len);
    }
    // The result does not change with the next bytes, nor much later.
    let lens = (decided..bytes.len()).take(40).chain((decided..bytes.len()).step_by(61));
    for len in lens {
        assert_eq!(ProxyHeader::parse(&bytes[..len], options), whole, "{len} bytes");
    }
    whole
}

/// What holds of a header that was accepted, and of its bytes.
fn accepted(header: &ProxyHeader, bytes: &[u8], options: &Proxy, choice: u8) {
    let len = bytes.len();
    let max = [536, 107, 4_096, 65_551][usize::from(choice >> 3 & 3)];
    match header.version() {
        1 => assert!(len <= 107 && bytes.ends_with(b"\r\n") && choice & 3 != 2 && choice & 4 == 0),
        _ => assert!(len <= max && len >= 16 && choice & 3 != 1),
    }
    let has_checksum = header.tlv(Tlv::CRC32C).is_some();
    assert!(has_checksum || choice & 4 == 0);
    assert_eq!(header.source().is_some(), header.destination().is_some());
    if header.is_local() || header.is_datagram() {
        assert_eq!(header.is_local(), header.source().is_none());
    }
    assert!(format!("{header:?}").contains("version"));

    // It is parsed as it is written. A binary header does not become longer by that; a line may,
    // because an address in it may have been written in a shorter way.
    let mut written = Vec::new();
    header.write_to(&mut written);
    assert!(written.len() <= len || header.version() == 1);
    let parsed = in_pieces(&written, options).expect("right").expect("whole");
    assert_eq!(parsed.1, written.len());
    if header.source().is_some() || !has_checksum {
        assert_eq!(parsed.0, *header);
    }
    // A header without addresses is shorter than it came, if bytes were skipped, and has another
    // checksum then.
    let kinds = |header: &ProxyHeader| header.tlvs().map(|tlv| tlv.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&parsed.0), kinds(header));

    let checked = header.clone().with_checksum();
    let mut written = Vec::new();
    checked.write_to(&mut written);
    let options = Proxy::required().max_header(usize::MAX);
    let parsed = in_pieces(&written, &options).expect("right").expect("whole").0;
    assert_eq!((parsed.source(), parsed.destination()), (header.source(), header.destination()));
    assert_eq!((parsed.version(), parsed.is_local()), (header.version(), header.is_local()));
    assert_eq!(kinds(&parsed), kinds(&checked));
}
