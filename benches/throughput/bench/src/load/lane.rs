//! One connection of the generator.

use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::pattern::Pattern;
use crate::address::Address;

/// A connection and how far its streams are. Places are counted in bytes.
#[derive(Debug)]
pub(super) struct Lane {
    stream: TcpStream,
    tag: u16,
    /// Up to here the stream has been sent.
    sent: u64,
    /// Up to here it may be sent.
    target: u64,
    /// Up to here its answer has been received and checked.
    received: u64,
}

impl Lane {
    /// Connects, waiting for the handshake, and registers for reading and writing.
    pub(super) fn connect(
        address: &Address,
        tag: u16,
        registry: &Registry,
        token: Token,
    ) -> Result<Self> {
        let stream = address.connect().with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nonblocking(true)?;
        Self::adopt(TcpStream::from_std(stream), address, tag, registry, token)
    }

    /// Begins to connect; the first write succeeds when that is done.
    pub(super) fn begin(
        address: &Address,
        tag: u16,
        registry: &Registry,
        token: Token,
    ) -> Result<Self> {
        let stream = address.begin().with_context(|| format!("cannot connect to {address}"))?;
        Self::adopt(stream, address, tag, registry, token)
    }

    fn adopt(
        mut stream: TcpStream,
        address: &Address,
        tag: u16,
        registry: &Registry,
        token: Token,
    ) -> Result<Self> {
        if let Address::Inet(_) = address {
            stream.set_nodelay(true)?;
        }
        // Closed with a reset: thousands of rounds leave no TIME_WAIT behind.
        SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, tag, sent: 0, target: 0, received: 0 })
    }

    pub(super) fn target(&self) -> u64 {
        self.target
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the kernel took all that may be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.target
    }

    /// Whether all that may be sent has come back.
    pub(super) fn is_answered(&self) -> bool {
        self.received == self.target
    }

    /// Allows this many bytes more to be sent.
    pub(super) fn allow(&mut self, bytes: u64) {
        self.target += bytes;
    }

    /// Sends what is allowed, as far as the kernel takes it.
    pub(super) fn send(&mut self, pattern: &mut Pattern) -> Result<()> {
        while self.sent < self.target {
            let len = pattern.longest().min((self.target - self.sent) as usize);
            match self.stream.write(pattern.bytes(self.tag, self.sent, len)) {
                Ok(taken) => self.sent += taken as u64,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("connection {} cannot send", self.tag));
                }
            }
        }
        Ok(())
    }

    /// Receives what is there and checks it against its own stream.
    pub(super) fn receive(
        &mut self,
        pattern: &mut Pattern,
        input: &mut [u8],
        to_the_end: bool,
    ) -> Result<()> {
        let (tag, limit) = (self.tag, self.sent);
        self.receive_of(tag, limit, pattern, input, to_the_end)
    }

    /// Receives what is there and checks it against the stream of that tag, of which only this
    /// much was sent.
    ///
    /// A short read means that the socket is drained, unless its end was announced, which happens
    /// once.
    pub(super) fn receive_of(
        &mut self,
        tag: u16,
        limit: u64,
        pattern: &mut Pattern,
        input: &mut [u8],
        to_the_end: bool,
    ) -> Result<()> {
        loop {
            match self.stream.read(input) {
                Ok(0) => bail!(
                    "connection {} was closed by the server after {} whole answers",
                    self.tag,
                    self.received / pattern.frame()
                ),
                Ok(got) => {
                    pattern.check(tag, self.received, &input[..got])?;
                    self.received += got as u64;
                    if self.received > limit {
                        bail!(
                            "connection {} got {} bytes that were never sent",
                            self.tag,
                            self.received - limit
                        );
                    }
                    if got < input.len() && !to_the_end {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("connection {} cannot receive", self.tag));
                }
            }
        }
    }
}
