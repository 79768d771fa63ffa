//! A listening socket that another process or other code opened, and may still hold: what it is,
//! and whether a client waits there.
//!
//! Non-blocking mode belongs to the open file description, which all holders share. Another holder
//! may turn it off at any time. Then an `accept` that finds no client blocks the reactor. So
//! `accept` is called only after the kernel says that a client waits. Another holder may take that
//! client first, so non-blocking mode is set again before each `accept`.

use std::fs::{File, FileType};
use std::io::{self, ErrorKind};
use std::net;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Type};

use crate::endpoint::{Endpoint, UnixName};

/// Asks the kernel whether a client waits, without taking it.
#[derive(Debug)]
pub(super) struct Probe {
    poll: Poll,
    events: Events,
    /// A descriptor of its own, because mio registers each descriptor with one event queue only.
    socket: TcpListener,
}

impl Probe {
    pub(super) fn new(listener: &net::TcpListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut socket = TcpListener::from_std(listener.try_clone()?);
        poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
        Ok(Self { poll, events: Events::with_capacity(1), socket })
    }

    /// Makes sure that an `accept` does not block. Returns `WouldBlock` if no client waits.
    pub(super) fn expect_client(&mut self) -> io::Result<()> {
        // After `reregister` a ready socket is announced, even if it was announced before.
        self.poll.registry().reregister(&mut self.socket, Token(0), Interest::READABLE)?;
        self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
        if self.events.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        SockRef::from(&self.socket).set_nonblocking(true)
    }
}

/// Returns an error that says what the descriptor is, unless it is a listening TCP socket. Changes
/// nothing about it.
pub(super) fn check(listener: &net::TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    let what = match socket.r#type() {
        Ok(kind) => describe(&socket, kind)?,
        Err(error) => {
            let file = File::from(listener.as_fd().try_clone_to_owned()?).metadata()?.file_type();
            if file.is_socket() {
                return Err(error);
            }
            Some(kind_of_file(&file).to_owned())
        }
    };
    what.map_or(Ok(()), |what| {
        let text = format!("the inherited descriptor is {what}, not a listening TCP socket");
        Err(io::Error::new(ErrorKind::InvalidInput, text))
    })
}

/// The address that a socket is bound to. `None` if its kind has no address, or if it has none.
pub(super) fn endpoint(listener: &net::TcpListener) -> Option<Endpoint> {
    let addr = SockRef::from(listener).local_addr().ok()?;
    if let Some(addr) = addr.as_socket() {
        return Some(Endpoint::Inet(addr));
    }
    let name = UnixName::from_parts(addr.as_pathname(), addr.as_abstract_namespace());
    (!name.is_unnamed()).then_some(Endpoint::Unix(name))
}

/// Describes a socket. `None` if it is a listening TCP socket.
fn describe(socket: &SockRef<'_>, kind: Type) -> io::Result<Option<String>> {
    let addr = socket.local_addr()?;
    let domain = addr.domain();
    let is_ip = domain == Domain::IPV4 || domain == Domain::IPV6;
    let noun = match kind {
        Type::STREAM if is_ip => "TCP socket",
        Type::DGRAM if is_ip => "UDP socket",
        Type::STREAM if domain == Domain::UNIX => "Unix stream socket",
        Type::DGRAM if domain == Domain::UNIX => "Unix datagram socket",
        Type::SEQPACKET if domain == Domain::UNIX => "Unix seqpacket socket",
        _ => {
            let (family, kind) = (i32::from(domain), i32::from(kind));
            return Ok(Some(format!("a socket of address family {family} and type {kind}")));
        }
    };
    let state = if is_listening(socket)? {
        if is_ip && kind == Type::STREAM {
            return Ok(None);
        }
        "a listening"
    } else if socket.peer_addr().is_ok() {
        "a connected"
    } else {
        match addr.as_socket().map(|addr| addr.port()) {
            Some(0) => "an unbound",
            Some(_) => "a bound",
            None => "a",
        }
    };
    Ok(Some(format!("{state} {noun}")))
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

fn kind_of_file(file: &FileType) -> &'static str {
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
