//! The address of one end of a connection: an IP address with a port, or the name of a Unix socket.

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use socket2::SockAddr;

use crate::reason::debug_as_display;
use crate::text::Line;

/// The address of one end of a connection, or of a listener.
///
/// It is printed in the same form in which it is parsed: `127.0.0.1:5555`, `[::1]:5555`,
/// `unix:/run/echo.sock`, `unix:@echo`. [`UnixName`] describes the last two forms. `{:?}` prints
/// the same. A clone allocates nothing.
///
/// Use it like a [`SocketAddr`]: [`TcpStream::connect`](std::net::TcpStream::connect) takes it, and
/// `==` compares the two. [`as_inet`](Self::as_inet) returns the `SocketAddr` itself.
///
/// ```
/// use condor::Endpoint;
///
/// let endpoint: Endpoint = "127.0.0.1:5555".parse()?;
/// assert_eq!(endpoint.as_inet().map(|addr| addr.port()), Some(5555));
///
/// let endpoint: Endpoint = "unix:/run/echo.sock".parse()?;
/// assert_eq!(endpoint.ip(), None);
/// assert_eq!(endpoint.to_string(), "unix:/run/echo.sock");
/// # Ok::<(), condor::EndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// A Unix socket.
    Unix(UnixName),
}

impl Endpoint {
    /// The IP address. `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        self.as_inet().map(|addr| addr.ip())
    }

    /// The IP address and the port. `None` for a Unix socket.
    pub fn as_inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }

    /// The IP address and the port. An error for a Unix socket.
    pub(crate) fn expect_inet(&self) -> io::Result<SocketAddr> {
        self.as_inet().ok_or_else(|| {
            let text = format!("{self} is a Unix socket, and an IP address with a port is needed");
            io::Error::new(ErrorKind::InvalidInput, text)
        })
    }

    /// The endpoint that the kernel reports. `None` if it is of another kind.
    pub(crate) fn from_kernel(addr: &SockAddr) -> Option<Self> {
        if let Some(addr) = addr.as_socket() {
            return Some(Self::Inet(addr));
        }
        let name = UnixName::from_parts(addr.as_pathname(), addr.as_abstract_namespace());
        addr.is_unix().then_some(Self::Unix(name))
    }

    /// The IPv4 address of an IPv4 client of an IPv6 socket. Any other address stays as it is.
    pub(crate) fn canonical(self) -> Self {
        match self {
            Self::Inet(addr) => match addr.ip().to_canonical() {
                IpAddr::V4(ip) => Self::from((ip, addr.port())),
                IpAddr::V6(_) => self,
            },
            Self::Unix(_) => self,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(addr) => addr.fmt(f),
            Self::Unix(name) => name.fmt(f),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Parses `unix:/path` or `unix:@name`, else an IP address and a port. Host names are not
    /// resolved.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.strip_prefix("unix:") {
            Some(name) => UnixName::parse(text, name).map(Self::Unix),
            None => match text.parse() {
                Ok(addr) => Ok(Self::Inet(addr)),
                Err(_) => Err(EndpointError::Unknown(text.to_owned())),
            },
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::Inet(addr)
    }
}

impl From<SocketAddrV4> for Endpoint {
    fn from(addr: SocketAddrV4) -> Self {
        Self::Inet(addr.into())
    }
}

impl From<SocketAddrV6> for Endpoint {
    fn from(addr: SocketAddrV6) -> Self {
        Self::Inet(addr.into())
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Endpoint {
    fn from(addr: (I, u16)) -> Self {
        Self::Inet(addr.into())
    }
}

impl From<UnixName> for Endpoint {
    fn from(name: UnixName) -> Self {
        Self::Unix(name)
    }
}

impl From<net::SocketAddr> for Endpoint {
    fn from(addr: net::SocketAddr) -> Self {
        Self::Unix(addr.into())
    }
}

impl PartialEq<SocketAddr> for Endpoint {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.as_inet().as_ref() == Some(other)
    }
}

impl PartialEq<Endpoint> for SocketAddr {
    fn eq(&self, other: &Endpoint) -> bool {
        other == self
    }
}

/// A client can connect to the endpoint that a handle or a peer returns. For a Unix socket this is
/// an error of the kind `InvalidInput` that names the socket.
impl ToSocketAddrs for Endpoint {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(Some(self.expect_inet()?).into_iter())
    }
}

/// The name of a Unix socket: a path, an abstract name, or none.
///
/// | printed | meaning |
/// |---|---|
/// | `unix:/run/echo.sock` | a path, as it was given to `bind`; it may be relative |
/// | `unix:@echo` | an abstract name, without the NUL before it; only Linux has them |
/// | `unix:` | no name; most clients have none |
///
/// These bytes are escaped:
///
/// - A backslash is printed as `\\`.
/// - These are printed as `\xNN`, each byte with two hexadecimal digits: characters that break a
///   line, control a terminal or change the direction of text; bytes that are not UTF-8; and an `@`
///   at the start of a path.
///
/// So a name stays on its line, and no two names print the same. The printed text parses as an
/// [`Endpoint`] with the same name. There are two exceptions: no name at all, which cannot be
/// listened on or connected to, and a path of 108 bytes, which a peer on Linux may have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixName(
    /// The bytes as the kernel holds them. An abstract name begins with a NUL. A path never does.
    Option<Arc<[u8]>>,
);

impl UnixName {
    /// The most bytes of a path or an abstract name: 107 on Linux, 103 elsewhere. It is the size
    /// of the system's `sun_path` less one byte for a NUL.
    pub const MAX: usize =
        if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

    /// No name: a client that did not bind its socket has none. It allocates nothing.
    pub fn unnamed() -> Self {
        Self(None)
    }

    /// The name of a socket in the file system. The path need not exist.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Empty`] for an empty path, [`EndpointError::Nul`] for a path with a NUL,
    /// and [`EndpointError::TooLong`] for a path of more than [`MAX`](Self::MAX) bytes.
    pub fn from_pathname(path: impl AsRef<Path>) -> Result<Self, EndpointError> {
        let path = path.as_ref().as_os_str().as_bytes();
        if path.is_empty() {
            return Err(EndpointError::Empty);
        }
        let name = Self(Some(path.into()));
        match path.iter().position(|byte| *byte == 0) {
            Some(at) => Err(EndpointError::Nul { path: Escaped(path).to_string(), at }),
            None => name.limited(),
        }
    }

    /// An abstract name, without the NUL before it. It may hold any bytes, or none.
    ///
    /// # Errors
    ///
    /// [`EndpointError::TooLong`] for a name of more than [`MAX`](Self::MAX) bytes.
    pub fn from_abstract_name(name: impl AsRef<[u8]>) -> Result<Self, EndpointError> {
        Self::from_parts(None, Some(name.as_ref())).limited()
    }

    /// The path, if the name is a path.
    pub fn as_pathname(&self) -> Option<&Path> {
        match self.0.as_deref() {
            Some([0, ..]) | None => None,
            Some(path) => Some(Path::new(OsStr::from_bytes(path))),
        }
    }

    /// The abstract name, without the NUL before it, if the name is abstract.
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        match self.0.as_deref() {
            Some([0, name @ ..]) => Some(name),
            _ => None,
        }
    }

    /// Whether there is no name.
    pub fn is_unnamed(&self) -> bool {
        self.0.is_none()
    }

    /// A name that the kernel reports. It is not checked.
    pub(crate) fn from_parts(path: Option<&Path>, abstract_name: Option<&[u8]>) -> Self {
        let name = path.map(|path| path.as_os_str().as_bytes().into());
        Self(name.or_else(|| Some([b"\0", abstract_name?].concat().into())))
    }

    /// The name as the kernel takes it.
    pub(crate) fn to_kernel(&self) -> io::Result<SockAddr> {
        let bytes = self.0.as_deref().unwrap_or_default();
        // A path that begins with a NUL is an abstract name.
        SockAddr::unix(OsStr::from_bytes(bytes))
    }

    fn limited(self) -> Result<Self, EndpointError> {
        let bytes = self.0.as_deref().unwrap_or_default();
        let len = bytes.strip_prefix(b"\0").unwrap_or(bytes).len();
        if len > Self::MAX {
            return Err(EndpointError::TooLong { name: self.to_string(), len, max: Self::MAX });
        }
        Ok(self)
    }

    /// Parses `name`, the part of `text` after `unix:`. Errors show `text`.
    fn parse(text: &str, name: &str) -> Result<Self, EndpointError> {
        match name.strip_prefix('@') {
            Some(name) => Self::from_abstract_name(unescape(text, name)?),
            None => Self::from_pathname(OsStr::from_bytes(&unescape(text, name)?)),
        }
    }
}

impl From<net::SocketAddr> for UnixName {
    fn from(addr: net::SocketAddr) -> Self {
        #[cfg(target_os = "linux")]
        let abstract_name = std::os::linux::net::SocketAddrExt::as_abstract_name(&addr);
        #[cfg(target_os = "android")]
        let abstract_name = std::os::android::net::SocketAddrExt::as_abstract_name(&addr);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let abstract_name = None;
        Self::from_parts(addr.as_pathname(), abstract_name)
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, bytes) = match self.0.as_deref() {
            None => ("", &[][..]),
            Some([0, name @ ..]) => ("@", name),
            Some([b'@', path @ ..]) => ("\\x40", path),
            Some(path) => ("", path),
        };
        if f.width().is_none() && f.precision().is_none() {
            write!(f, "unix:{mark}{}", Escaped(bytes))
        } else {
            f.pad(&format!("unix:{mark}{}", Escaped(bytes)))
        }
    }
}

impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints bytes as one line of text. [`unescape`] reverses it.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        };
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '\\' {
                    f.write_str("\\\\")?;
                } else if Line::is_special(c) {
                    hex(f, c.encode_utf8(&mut [0; 4]).as_bytes())?;
                } else {
                    f.write_char(c)?;
                }
            }
            hex(f, chunk.invalid())?;
        }
        Ok(())
    }
}

/// The bytes that `escaped`, the last part of `text`, stands for.
fn unescape(text: &str, escaped: &str) -> Result<Vec<u8>, EndpointError> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, len) = if escaped.starts_with('\\') {
            (Some(b'\\'), 1)
        } else {
            let digits = escaped.strip_prefix('x').and_then(|escaped| escaped.get(..2));
            // `from_str_radix` would also take a sign.
            let digits = digits.filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
            (digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()), 3)
        };
        let Some(byte) = byte else {
            let at = text.len() - escaped.len() - 1;
            return Err(EndpointError::Escape { text: text.to_owned(), at });
        };
        bytes.push(byte);
        rest = &escaped[len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Why a text or a name is not an [`Endpoint`].
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text has none of the known forms. A host name is not one of them.
    #[error(
        "\"{}\" is no endpoint: 127.0.0.1:5555, [::1]:5555, unix:/path or unix:@name is expected",
        Line(.0)
    )]
    Unknown(String),
    /// The path is empty.
    #[error("a Unix socket's path is empty: unix:/path or unix:@name is expected")]
    Empty,
    /// The name has more bytes than a Unix socket's name can have.
    #[error("a Unix socket's name of {len} bytes is above {max}: {name}", name = Line(.name))]
    TooLong {
        /// The name as it would be printed.
        name: String,
        /// Its length in bytes.
        len: usize,
        /// The maximum in bytes, [`UnixName::MAX`].
        max: usize,
    },
    /// The path holds a NUL. Only an abstract name may hold one.
    #[error("a Unix socket's path holds a NUL at byte {at}: {path}", path = Line(.path))]
    Nul {
        /// The path as it would be printed.
        path: String,
        /// The position of the NUL in bytes, from 0.
        at: usize,
    },
    /// A backslash in the text begins no escape.
    #[error(
        "\"{text}\" has a backslash at byte {at} that begins neither \\\\ nor \\xNN",
        text = Line(.text)
    )]
    Escape {
        /// The text.
        text: String,
        /// The position of the backslash in bytes, from 0.
        at: usize,
    },
}

debug_as_display!(EndpointError {
    Unknown(text),
    Empty,
    TooLong { name, len, max },
    Nul { path, at },
    Escape { text, at },
});

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn parsed(text: &str) -> Endpoint {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn path(path: &[u8]) -> Endpoint {
        UnixName::from_pathname(OsStr::from_bytes(path)).unwrap().into()
    }

    fn abstract_name(name: &[u8]) -> Endpoint {
        UnixName::from_abstract_name(name).unwrap().into()
    }

    /// Goal: an endpoint is printed as it is parsed, and no other endpoint has the same text.
    /// Method: each form, and every kind of byte that is escaped.
    #[test]
    fn an_endpoint_is_printed_as_it_is_parsed() {
        let ten = "x".repeat(10);
        for (text, endpoint) in [
            ("127.0.0.1:5555", Endpoint::from(([127, 0, 0, 1], 5555))),
            ("[::1]:5555", Endpoint::from((std::net::Ipv6Addr::LOCALHOST, 5555))),
            ("unix:/run/echo.sock", path(b"/run/echo.sock")),
            ("unix:relative", path(b"relative")),
            ("unix:/a b/\u{fc}\u{65e5}", path("/a b/\u{fc}\u{65e5}".as_bytes())),
            (r"unix:\x40not abstract", path(b"@not abstract")),
            ("unix:/a@b", path(b"/a@b")),
            (r"unix:/a\\x41", path(br"/a\x41")),
            (r"unix:/\x0a\x1b[2J\x7f", path(b"/\n\x1b[2J\x7f")),
            (r"unix:/\xff\xc3(", path(b"/\xff\xc3(")),
            (r"unix:/\xe2\x80\xae", path("/\u{202e}".as_bytes())),
            ("unix:@echo", abstract_name(b"echo")),
            ("unix:@", abstract_name(b"")),
            (r"unix:@\x00\x00a\x00", abstract_name(b"\0\0a\0")),
            ("unix:@@/a", abstract_name(b"@/a")),
        ] {
            assert_eq!((parsed(text), endpoint.to_string().as_str()), (endpoint.clone(), text));
            assert_eq!(format!("{endpoint:?}"), text);
            let (width, filled) = (text.chars().count() + 10, format!("{ten}{text}"));
            assert_eq!(format!("{endpoint:x>width$}"), filled);
        }
        // Other ways to write the same.
        assert_eq!(parsed(r"unix:\x2fA\x4A\x4a"), parsed("unix:/AJJ"));
        assert_eq!(parsed("unix:/\n"), parsed(r"unix:/\x0a"));
        assert_eq!(Endpoint::from(UnixName::unnamed()).to_string(), "unix:");
    }

    /// Goal: a text that is not an endpoint is refused. The message names the text, and the known
    /// forms or the limit. Method: each kind of wrong text; each limit from both sides.
    #[test]
    fn what_is_no_endpoint_is_refused_and_named() {
        let max = UnixName::MAX;
        let (longest, longer) = ("/".repeat(max), "/".repeat(max + 1));
        let escaped = r"\xff".repeat(max);
        for text in
            [format!("unix:{longest}"), format!("unix:@{longest}"), format!("unix:{escaped}")]
        {
            assert_eq!(parsed(&text).to_string(), text);
        }
        let is_expected = "127.0.0.1:5555, [::1]:5555, unix:/path or unix:@name is expected";
        let too_long = format!("a Unix socket's name of {} bytes is above {max}", max + 1);
        let no_escape = r"begins neither \\ nor \xNN";
        for (name, expected) in [
            ("", format!("\"\" is no endpoint: {is_expected}")),
            ("localhost:80", format!("\"localhost:80\" is no endpoint: {is_expected}")),
            ("127.0.0.1", format!("\"127.0.0.1\" is no endpoint: {is_expected}")),
            ("/run/a", format!("\"/run/a\" is no endpoint: {is_expected}")),
            ("UNIX:/a", format!("\"UNIX:/a\" is no endpoint: {is_expected}")),
            ("1\n2", format!(r#""1\n2" is no endpoint: {is_expected}"#)),
            (
                "unix:",
                String::from("a Unix socket's path is empty: unix:/path or unix:@name is expected"),
            ),
            (&format!("unix:{longer}"), format!("{too_long}: unix:{longer}")),
            (&format!("unix:@{longer}"), format!("{too_long}: unix:@{longer}")),
            ("unix:/a\0", String::from(r"a Unix socket's path holds a NUL at byte 2: /a\x00")),
            (r"unix:\x00", String::from(r"a Unix socket's path holds a NUL at byte 0: \x00")),
            (r"unix:/a\", format!(r#""unix:/a\" has a backslash at byte 7 that {no_escape}"#)),
            (r"unix:/\n", format!(r#""unix:/\n" has a backslash at byte 6 that {no_escape}"#)),
            (r"unix:/\x4", format!(r#""unix:/\x4" has a backslash at byte 6 that {no_escape}"#)),
            (r"unix:/\x+4", format!(r#""unix:/\x+4" has a backslash at byte 6 that {no_escape}"#)),
            (r"unix:/\x4ü", format!(r#""unix:/\x4ü" has a backslash at byte 6 that {no_escape}"#)),
            (r"unix:@\\\y", format!(r#""unix:@\\\y" has a backslash at byte 8 that {no_escape}"#)),
        ] {
            let error = name.parse::<Endpoint>().expect_err(name);
            assert_eq!(error.to_string(), expected);
            assert_eq!(format!("{error:?}"), expected);
        }
        assert_eq!(UnixName::from_pathname(""), Err(EndpointError::Empty));
        assert!(matches!(UnixName::from_pathname("\0a"), Err(EndpointError::Nul { at: 0, .. })));
        let result = UnixName::from_abstract_name(vec![0; max + 1]);
        assert!(matches!(result, Err(EndpointError::TooLong { len, .. }) if len == max + 1));
    }

    /// Goal: a TCP endpoint can be used as its address, and a Unix socket's endpoint cannot.
    /// Method: each conversion and comparison of both.
    #[test]
    fn an_endpoint_of_tcp_stands_in_for_its_address() {
        let addr: SocketAddr = "[::1]:80".parse().unwrap();
        let tcp = Endpoint::from(addr);
        assert_eq!((tcp.as_inet(), tcp.ip()), (Some(addr), Some(addr.ip())));
        assert_eq!(tcp, addr);
        assert_eq!(addr, tcp);
        assert_ne!(tcp, SocketAddr::from(([127, 0, 0, 1], 80)));
        assert!(tcp.to_socket_addrs().unwrap().eq([addr]));

        let unix = parsed("unix:/run/a\nb");
        assert_eq!((unix.as_inet(), unix.ip()), (None, None));
        assert_ne!(unix, addr);
        assert_ne!(addr, unix);
        let error = std::net::TcpStream::connect(&unix).unwrap_err();
        let text = r"unix:/run/a\x0ab is a Unix socket, and an IP address with a port is needed";
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidInput, text));
    }

    /// Goal: an IPv4 client of an IPv6 socket is shown as IPv4. Every other address stays as it is.
    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_shown_as_ipv4() {
        assert_eq!(parsed("[::ffff:203.0.113.9]:1").canonical(), parsed("203.0.113.9:1"));
        for text in ["203.0.113.9:1", "[::203.0.113.9]:1", "[fe80::1%7]:1", "unix:/a", "unix:@a"] {
            assert_eq!(parsed(text).canonical(), parsed(text));
        }
        let unnamed = Endpoint::from(UnixName::unnamed());
        assert_eq!(unnamed.clone().canonical(), unnamed);
    }

    /// Goal: the name that the kernel reports for a Unix socket is kept unchanged, whether it comes
    /// through `std` or through `socket2`. Method: sockets of each kind, and the longest names.
    #[test]
    fn names_from_the_kernel_are_kept() {
        let folder = std::env::temp_dir().join(format!("condor-endpoint-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a\\b\n");
        let listener = UnixListener::bind(&path).unwrap();
        let name = UnixName::from(listener.local_addr().unwrap());
        assert_eq!((name.as_pathname(), name.as_abstract_name()), (Some(path.as_path()), None));
        assert_eq!(name.to_string(), format!(r"unix:{}/a\\b\x0a", folder.display()));

        let client = UnixStream::connect(&path).unwrap();
        let (_server, peer_addr) = listener.accept().unwrap();
        let name = UnixName::from(peer_addr);
        assert!(name.is_unnamed() && name == UnixName::from(client.local_addr().unwrap()));
        assert_eq!((name.as_pathname(), name.as_abstract_name()), (None, None));

        #[cfg(target_os = "linux")]
        for abstract_name in [false, true] {
            use socket2::{Domain, SockAddr, SockRef, Socket, Type};
            let own = if abstract_name {
                let own = format!("\0condor-endpoint-{}-\0{}", std::process::id(), "x".repeat(107));
                own.as_bytes()[..=UnixName::MAX].to_vec()
            } else {
                let mut own = folder.join("x").as_os_str().as_bytes().to_vec();
                own.resize(UnixName::MAX, b'x');
                own
            };
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.bind(&SockAddr::unix(OsStr::from_bytes(&own)).unwrap()).unwrap();
            let addr = SockRef::from(&socket).local_addr().unwrap();
            let by_socket = UnixName::from_parts(addr.as_pathname(), addr.as_abstract_namespace());
            let by_std = UnixListener::from(std::os::fd::OwnedFd::from(socket)).local_addr();
            assert_eq!(by_socket, UnixName::from(by_std.unwrap()));
            assert_eq!(by_socket.0.as_deref(), Some(own.as_slice()));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
