//! What is wrong with the bytes of a header.

use crate::reason::debug_as_display;

/// Bytes that are no PROXY header, or none that the options accept. The connection ends.
///
/// The message says which byte is wrong, counted from 0, and names the section of the
/// [specification] that decides.
///
/// [specification]: https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The connection does not begin with a header. The peer speaks another protocol, or sends no
    /// header.
    #[error("byte {at} belongs to no PROXY header (section 2.2)")]
    Signature {
        /// The position of the first wrong byte.
        at: usize,
    },
    /// The header can only be of a version that [`Proxy::versions`](crate::Proxy::versions) leaves
    /// out. The first byte decides.
    #[error("byte 0 begins a header of version {version}, which the options leave out (section 2)")]
    VersionNotAccepted {
        /// The version, 1 or 2.
        version: u8,
    },
    /// The line of version 1 is wrong.
    #[error("byte {at} is wrong in the line of version 1: {expected} is expected (section 2.1)")]
    Line {
        /// The position of the first wrong byte.
        at: usize,
        /// What the line needs there, in a few words.
        expected: &'static str,
    },
    /// The line of version 1 does not end within 107 bytes.
    #[error("no CR and LF are in the first 107 bytes of a line of version 1 (section 2.1)")]
    LineTooLong,
    /// The binary header has another version than 2.
    #[error("byte 12 has version {found} in its upper half, and 2 is expected (section 2.2)")]
    Version {
        /// The number found, from 0 to 15.
        found: u8,
    },
    /// The binary header has an unassigned command.
    #[error("byte 12 has command {found} in its lower half, and 0 or 1 is expected (section 2.2)")]
    Command {
        /// The number found, from 0 to 15.
        found: u8,
    },
    /// The binary header has an unassigned family of addresses.
    #[error("byte 13 has family {found} in its upper half, and 0 to 3 are expected (section 2.2)")]
    Family {
        /// The number found, from 0 to 15.
        found: u8,
    },
    /// The binary header has an unassigned transport protocol.
    #[error(
        "byte 13 has transport {found} in its lower half, and 0 to 2 are expected (section 2.2)"
    )]
    Transport {
        /// The number found, from 0 to 15.
        found: u8,
    },
    /// The binary header announces more bytes than
    /// [`Proxy::max_header`](crate::Proxy::max_header).
    #[error("a header of {len} bytes (byte 14, section 2.2) is above max_header of {max}")]
    TooLong {
        /// The length of the whole header in bytes.
        len: usize,
        /// The maximum in bytes.
        max: usize,
    },
    /// The binary header announces fewer bytes than its addresses take.
    #[error("byte 14 announces {len} bytes, and the addresses take {needed} (section 2.2)")]
    Addresses {
        /// The number of bytes after the first 16.
        len: usize,
        /// The number of bytes of two addresses of the announced family.
        needed: usize,
    },
    /// A TLV does not end within the header.
    #[error("the TLV at byte {at} takes {len} bytes, and {left} are left (section 2.2)")]
    Tlv {
        /// The position of the TLV.
        at: usize,
        /// The number of bytes that it takes, at least 3.
        len: usize,
        /// The number of bytes up to the end of the header.
        left: usize,
    },
    /// The value of the checksum has another length than 4 bytes.
    #[error("the checksum at byte {at} has {len} bytes, and 4 are expected (section 2.2.3)")]
    ChecksumLength {
        /// The position of the TLV.
        at: usize,
        /// The length of its value in bytes.
        len: usize,
    },
    /// The header has a second checksum.
    #[error("byte {at} begins a second checksum (section 2.2.3)")]
    ChecksumTwice {
        /// The position of the second TLV.
        at: usize,
    },
    /// The checksum is wrong: a byte was changed on the way, or the sender computed something else.
    #[error(
        "the checksum at byte {at} is {found:08x}, and {computed:08x} is right (section 2.2.3)"
    )]
    ChecksumWrong {
        /// The position of the value.
        at: usize,
        /// The checksum in the header.
        found: u32,
        /// The checksum of the bytes of the header.
        computed: u32,
    },
    /// The header has no checksum, and
    /// [`Proxy::require_checksum`](crate::Proxy::require_checksum) needs one.
    #[error("the header has no checksum (section 2.2.3), and require_checksum is on")]
    ChecksumMissing,
}

debug_as_display!(ProxyError {
    Signature { at },
    VersionNotAccepted { version },
    Line { at, expected },
    LineTooLong,
    Version { found },
    Command { found },
    Family { found },
    Transport { found },
    TooLong { len, max },
    Addresses { len, needed },
    Tlv { at, len, left },
    ChecksumLength { at, len },
    ChecksumTwice { at },
    ChecksumWrong { at, found, computed },
    ChecksumMissing,
});
