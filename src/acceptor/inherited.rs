//! A listening socket that another process or other code opened, and may still hold: what it is,
//! and whether a client waits there.
//!
//! Non-blocking mode belongs to the open file description, which all holders share. Another holder
//! may turn it off at any time. Then an `accept` that finds no client blocks the reactor. So
//! `accept` is called only after the kernel says that a client waits. Another holder may take that
//! client first, so non-blocking mode is set again before each `accept`.

use std::io::{self, ErrorKind};
use std::net;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::descriptor::{Descriptor, TCP, UNIX};

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

/// Whether it is a Unix socket. Returns an error that says what the descriptor is, unless it is a
/// listening stream socket. Changes nothing about it.
pub(super) fn is_unix(listener: &net::TcpListener) -> io::Result<bool> {
    match Descriptor::of(listener.as_fd())? {
        Descriptor::Listening(TCP) => Ok(false),
        Descriptor::Listening(UNIX) => Ok(true),
        what => {
            let text = format!("the inherited descriptor is {what}, not a listening stream socket");
            Err(io::Error::new(ErrorKind::InvalidInput, text))
        }
    }
}
