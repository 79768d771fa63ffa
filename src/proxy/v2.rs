//! Version 2: a binary header. Section 2.2 of the specification.

use super::addresses;
use super::crc32c::crc32c;
use super::error::ProxyError;
use super::tlv::Tlv;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The bytes before the addresses.
const FIXED: usize = 16;

/// What a header says.
pub(crate) struct Header<'a> {
    pub(crate) is_local: bool,
    /// The family of the addresses in the upper half, the transport in the lower one. 0 if a receiver
    /// has to ignore both, and the addresses.
    pub(crate) protocol: u8,
    /// The addresses and the TLVs.
    pub(crate) body: &'a [u8],
}

/// What a receiver accepts.
pub(crate) struct Limits {
    /// The maximum length of a header in bytes.
    pub(crate) max: usize,
    pub(crate) require_checksum: bool,
}

/// Parses the header that `bytes` begins with, and returns it with its length. `Ok(None)` if more
/// bytes are needed.
pub(crate) fn parse<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<Option<(Header<'a>, usize)>, ProxyError> {
    if let Some(at) = bytes.iter().zip(SIGNATURE).position(|(byte, right)| byte != right) {
        return Err(ProxyError::Signature { at });
    }
    let Some(&command) = bytes.get(12) else { return Ok(None) };
    if command >> 4 != 2 {
        return Err(ProxyError::Version { found: command >> 4 });
    }
    let is_local = match command & 15 {
        0 => true,
        1 => false,
        found => return Err(ProxyError::Command { found }),
    };
    let Some(&protocol) = bytes.get(13) else { return Ok(None) };
    let (family, transport) = (protocol >> 4, protocol & 15);
    // A receiver ignores both of a header that is local.
    if !is_local && family > 3 {
        return Err(ProxyError::Family { found: family });
    }
    if !is_local && transport > 2 {
        return Err(ProxyError::Transport { found: transport });
    }
    let Some(&[high, low]) = bytes.get(14..FIXED) else { return Ok(None) };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > limits.max {
        return Err(ProxyError::TooLong { len, max: limits.max });
    }
    let needed = addresses::len(family);
    // The specification has a receiver skip the addresses then, whatever they are.
    let is_ignored = is_local || family == 0 || transport == 0;
    if !is_ignored && needed > len - FIXED {
        return Err(ProxyError::Addresses { len: len - FIXED, needed });
    }
    let mut tlvs_at = (FIXED + needed).min(len);
    let checksum_at = match checksum_at(bytes, tlvs_at, len) {
        Ok(Walk::Done(at)) => at,
        Ok(Walk::More) => return Ok(None),
        // Bytes to skip need not be TLVs.
        Err(
            ProxyError::Tlv { .. }
            | ProxyError::ChecksumLength { .. }
            | ProxyError::ChecksumTwice { .. },
        ) if is_ignored => {
            tlvs_at = len;
            None
        }
        Err(error) => return Err(error),
    };
    if checksum_at.is_none() && limits.require_checksum {
        return Err(ProxyError::ChecksumMissing);
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    if let Some(at) = checksum_at {
        let (before, value, behind) = (&header[..at], &header[at..at + 4], &header[at + 4..]);
        let found = value.iter().fold(0, |found, byte| found << 8 | u32::from(*byte));
        let computed = crc32c(&[before, &[0; 4], behind]);
        if found != computed {
            return Err(ProxyError::ChecksumWrong { at, found, computed });
        }
    }
    let (protocol, body_at) = if is_ignored { (0, tlvs_at) } else { (protocol, FIXED) };
    Ok(Some((Header { is_local, protocol, body: &header[body_at..] }, len)))
}

/// How far the TLVs of a header are there.
enum Walk {
    /// A later TLV is not there yet.
    More,
    /// All types and lengths are there. The value of the checksum, if there is one, is at this place.
    Done(Option<usize>),
}

/// Walks over the TLVs from `at` to `end`. `bytes` may end earlier.
fn checksum_at(bytes: &[u8], mut at: usize, end: usize) -> Result<Walk, ProxyError> {
    let mut checksum_at = None;
    while at < end {
        let left = end - at;
        if left < Tlv::HEAD {
            return Err(ProxyError::Tlv { at, len: Tlv::HEAD, left });
        }
        let is_checksum = bytes.get(at) == Some(&Tlv::CRC32C);
        if is_checksum && checksum_at.is_some() {
            return Err(ProxyError::ChecksumTwice { at });
        }
        let Some(&[_, high, low]) = bytes.get(at..at + Tlv::HEAD) else { return Ok(Walk::More) };
        let value = usize::from(u16::from_be_bytes([high, low]));
        let len = Tlv::HEAD + value;
        if len > left {
            return Err(ProxyError::Tlv { at, len, left });
        }
        if is_checksum {
            if value != 4 {
                return Err(ProxyError::ChecksumLength { at, len: value });
            }
            checksum_at = Some(at + Tlv::HEAD);
        }
        at += len;
    }
    Ok(Walk::Done(checksum_at))
}

/// Writes a header. If it has a checksum, the right one takes its place.
pub(crate) fn write(header: &Header<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    // Longer bodies are never made: they are parsed from two bytes of length, or checked.
    let len = u16::try_from(header.body.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[0x20 | u8::from(!header.is_local), header.protocol]);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(header.body);
    let written = &mut out[start..];
    let tlvs_at = FIXED + addresses::len(header.protocol >> 4);
    if let Ok(Walk::Done(Some(at))) = checksum_at(written, tlvs_at, written.len()) {
        let value = at..at + 4;
        written[value.clone()].fill(0);
        let checksum = crc32c(&[written]).to_be_bytes();
        written[value].copy_from_slice(&checksum);
    }
}
