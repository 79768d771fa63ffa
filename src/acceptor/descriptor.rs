//! What a descriptor is that other code has opened.

use std::fmt;
use std::fs::{File, FileType};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt;

use socket2::{Domain, SockRef, Type};

pub(super) const TCP: &str = "TCP socket";
pub(super) const UNIX: &str = "Unix stream socket";

/// What a descriptor is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Descriptor {
    /// A listening socket of this kind.
    Listening(&'static str),
    /// A connected socket of this kind.
    Connected(&'static str),
    Other(String),
}

impl Descriptor {
    /// Asks the system what `fd` is. Changes nothing about it.
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let socket = SockRef::from(&fd);
        match socket.r#type() {
            Ok(kind) => Self::of_socket(&socket, kind),
            Err(error) => {
                let file = File::from(fd.try_clone_to_owned()?).metadata()?.file_type();
                if file.is_socket() {
                    return Err(error);
                }
                Ok(Self::Other(kind_of_file(&file).to_owned()))
            }
        }
    }

    fn of_socket(socket: &SockRef<'_>, kind: Type) -> io::Result<Self> {
        let addr = socket.local_addr()?;
        let domain = addr.domain();
        let is_ip = domain == Domain::IPV4 || domain == Domain::IPV6;
        let noun = match kind {
            Type::STREAM if is_ip => TCP,
            Type::DGRAM if is_ip => "UDP socket",
            Type::STREAM if domain == Domain::UNIX => UNIX,
            Type::DGRAM if domain == Domain::UNIX => "Unix datagram socket",
            Type::SEQPACKET if domain == Domain::UNIX => "Unix seqpacket socket",
            _ => {
                let (family, kind) = (i32::from(domain), i32::from(kind));
                let text = format!("a socket of address family {family} and type {kind}");
                return Ok(Self::Other(text));
            }
        };
        if is_listening(socket)? {
            return Ok(Self::Listening(noun));
        }
        if socket.peer_addr().is_ok() {
            return Ok(Self::Connected(noun));
        }
        let state = match addr.as_socket().map(|addr| addr.port()) {
            Some(0) => "an unbound",
            Some(_) => "a bound",
            None => "a",
        };
        Ok(Self::Other(format!("{state} {noun}")))
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(noun) => write!(f, "a listening {noun}"),
            Self::Connected(noun) => write!(f, "a connected {noun}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn is_listening(socket: &SockRef<'_>) -> io::Result<bool> {
    socket.is_listener()
}

/// Other systems cannot tell whether a socket listens. There a socket without a peer counts as
/// listening.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn is_listening(socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(socket.peer_addr().is_err())
}

pub(super) fn kind_of_file(file: &FileType) -> &'static str {
    if file.is_file() {
        "a regular file"
    } else if file.is_dir() {
        "a directory"
    } else if file.is_fifo() {
        "a pipe"
    } else if file.is_char_device() {
        "a character device"
    } else if file.is_block_device() {
        "a block device"
    } else {
        "no socket and no file"
    }
}
