//! The values behind the addresses of a binary header: type, length, value.

/// A value that a proxy tells beside the addresses: what the client's TLS says, an identifier, or
/// anything else that proxy and server have agreed on.
///
/// The constants are the types that the specification has registered, in its section 2.2. Types
/// from 0xe0 to 0xef are free for applications.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tlv<'a> {
    /// The type of the value.
    pub kind: u8,
    /// The value, from 0 to 65,535 bytes.
    pub value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The protocol that TLS has chosen, as in ALPN: `h2`, `http/1.1`.
    pub const ALPN: u8 = 0x01;
    /// The host name that the client asked for, in UTF-8.
    pub const AUTHORITY: u8 = 0x02;
    /// The checksum of the header, four bytes. [`ProxyHeader::parse`](crate::ProxyHeader::parse) has
    /// checked it.
    pub const CRC32C: u8 = 0x03;
    /// Padding without a meaning.
    pub const NOOP: u8 = 0x04;
    /// An identifier of the connection, up to 128 bytes.
    pub const UNIQUE_ID: u8 = 0x05;
    /// What TLS says of the client: a byte of flags, four bytes that are 0 if the client's certificate
    /// was verified, and more TLVs, which [`all`](Self::all) finds.
    pub const SSL: u8 = 0x20;
    /// In `SSL`: the version of TLS, in ASCII.
    pub const SSL_VERSION: u8 = 0x21;
    /// In `SSL`: the common name of the client's certificate, in UTF-8.
    pub const SSL_CN: u8 = 0x22;
    /// In `SSL`: the cipher, in ASCII.
    pub const SSL_CIPHER: u8 = 0x23;
    /// In `SSL`: the algorithm that signed the proxy's certificate, in ASCII.
    pub const SSL_SIG_ALG: u8 = 0x24;
    /// In `SSL`: the algorithm of the key of the proxy's certificate, in ASCII.
    pub const SSL_KEY_ALG: u8 = 0x25;
    /// In `SSL`: the group of the key exchange, in ASCII.
    pub const SSL_GROUP: u8 = 0x26;
    /// In `SSL`: the algorithm that signed the handshake, in ASCII.
    pub const SSL_SIG_SCHEME: u8 = 0x27;
    /// In `SSL`: the client's certificate, in DER.
    pub const SSL_CLIENT_CERT: u8 = 0x28;
    /// The name of the network namespace, in ASCII.
    pub const NETNS: u8 = 0x30;

    /// The bytes of a TLV before its value: its type, and two bytes of length.
    pub(crate) const HEAD: usize = 3;

    /// The TLVs that follow each other in these bytes. The iterator ends before a TLV that does not
    /// end within them.
    ///
    /// ```
    /// use condor::Tlv;
    ///
    /// // The value of `Tlv::SSL`: flags, the result of the verification, and a TLV.
    /// let ssl = b"\x01\0\0\0\0\x21\0\x07TLSv1.3";
    /// let version = Tlv::all(&ssl[5..]).find(|tlv| tlv.kind == Tlv::SSL_VERSION);
    /// assert_eq!(version.map(|tlv| tlv.value), Some(&b"TLSv1.3"[..]));
    /// ```
    pub fn all(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let (&[kind, high, low], behind) = rest.split_first_chunk()?;
            let value;
            (value, rest) = behind.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            Some(Self { kind, value })
        })
    }
}
