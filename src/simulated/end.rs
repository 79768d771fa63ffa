//! One end of a simulated stream, as the kernel of its node keeps it.
//!
//! Its events are edge-triggered, as those of a socket are. If a call did less than asked because
//! bytes or room were missing, an event announces them once they are there.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use mio::Token;

use crate::endpoint::Endpoint;
use crate::poller::Readiness;

/// Identifies an end, or a listening port. No two have the same, also over time.
pub(super) type Key = u64;

/// How a stream is cut.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Both ends are told that the connection was reset.
    Reset,
    /// Neither end is told. All that is sent from now on is lost, also after the link is
    /// [healed](crate::sim::Link::heal): the other end has forgotten the stream.
    Silence,
}

/// How far an end has come.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has asked for a connection, and no answer has come.
    Asking,
    /// It was asked for a connection at this listening port, and has answered.
    Answering(Key),
    /// It waits to be accepted, or a reactor has it.
    Open,
    /// It was refused or reset, and nothing passes any more.
    Dead,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct End {
    pub(super) stage: Stage,
    pub(super) node: usize,
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    pub(super) peer: Key,
    pub(super) peer_node: usize,
    /// The token of its events, once a reactor has registered it.
    pub(super) token: Option<Token>,
    /// Events that were not taken.
    events: Readiness,
    /// Bytes that have arrived and were not read.
    arrived: VecDeque<u8>,
    /// Bytes that it has sent and the peer has not read.
    pub(super) unread: usize,
    /// A write did less than asked. An event announces room.
    starved: bool,
    /// The peer sends no more.
    ended: bool,
    /// It sends no more.
    pub(super) finished: bool,
    /// The error that the next call returns.
    error: Option<ErrorKind>,
    /// A stream has it, so it counts as a descriptor.
    pub(super) is_held: bool,
    /// It is to be reset when it is closed.
    pub(super) rude: bool,
    /// It was cut in silence.
    pub(super) lost: bool,
    /// How many bytes may still arrive before it is cut.
    pub(super) cut_after: Option<(usize, Cut)>,
}

impl End {
    pub(super) fn new(
        stage: Stage,
        (node, local): (usize, Endpoint),
        (peer_node, remote): (usize, Endpoint),
        peer: Key,
    ) -> Self {
        Self {
            stage,
            node,
            local,
            remote,
            peer,
            peer_node,
            token: None,
            events: Readiness::default(),
            arrived: VecDeque::new(),
            unread: 0,
            starved: false,
            ended: false,
            finished: false,
            error: None,
            is_held: false,
            rude: false,
            lost: false,
            cut_after: None,
        }
    }

    // ---- what arrives ----

    // Each of these returns whether an event is to be announced.

    pub(super) fn bytes_arrive(&mut self, bytes: &[u8]) -> bool {
        self.arrived.extend(bytes);
        self.announce(Readiness::READABLE)
    }

    /// The peer has read so many bytes, so there is room for as many of `buffer`.
    pub(super) fn room_arrives(&mut self, bytes: usize, buffer: usize) -> bool {
        self.unread = self.unread.saturating_sub(bytes);
        let is_awaited = self.starved && self.unread < buffer;
        if is_awaited {
            self.starved = false;
        }
        is_awaited && self.announce(Readiness::WRITABLE)
    }

    pub(super) fn end_arrives(&mut self) -> bool {
        self.ended = true;
        self.announce(Readiness::READABLE)
    }

    pub(super) fn answer_arrives(&mut self) -> bool {
        self.stage = Stage::Open;
        self.announce(Readiness::WRITABLE)
    }

    /// Bytes that had arrived can still be read. Then one call returns the error.
    pub(super) fn fail(&mut self, kind: ErrorKind) -> bool {
        (self.error, self.ended, self.stage) = (Some(kind), true, Stage::Dead);
        let both = Readiness::READABLE.with(Readiness::WRITABLE);
        self.announce(both.with(Readiness::ERROR))
    }

    fn announce(&mut self, readiness: Readiness) -> bool {
        let is_news = self.events == Readiness::default() && self.token.is_some();
        self.events = self.events.with(readiness);
        is_news
    }

    // ---- what its reactor does ----

    /// From now on its events have this token. All that it is ready for is announced.
    pub(super) fn watch(&mut self, token: Token) -> bool {
        self.token = Some(token);
        if self.stage == Stage::Asking {
            return false;
        }
        self.events = self.events.with(Readiness::WRITABLE);
        if self.is_readable() {
            self.events = self.events.with(Readiness::READABLE);
        }
        true
    }

    pub(super) fn take_events(&mut self) -> Option<(Token, Readiness)> {
        let events = std::mem::take(&mut self.events);
        let token = self.token.filter(|_| events != Readiness::default())?;
        let is_last = self.ended && events.has(Readiness::READABLE);
        Some((token, if is_last { events.with(Readiness::READ_UNTIL_BLOCKED) } else { events }))
    }

    pub(super) fn is_readable(&self) -> bool {
        !self.arrived.is_empty() || self.ended || self.error.is_some()
    }

    pub(super) fn take_error(&mut self) -> Option<ErrorKind> {
        self.error.take()
    }

    /// Copies bytes that have arrived into `buf`, and returns their number. An error stays.
    pub(super) fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        for (to, byte) in buf.iter_mut().zip(&self.arrived) {
            *to = *byte;
        }
        match self.error {
            _ if !self.arrived.is_empty() => Ok(buf.len().min(self.arrived.len())),
            Some(kind) => Err(kind.into()),
            None if self.ended => Ok(0),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Moves bytes that have arrived into `buf`, and returns their number.
    pub(super) fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = buf.len().min(self.arrived.len());
        for (to, byte) in buf.iter_mut().zip(self.arrived.drain(..count)) {
            *to = byte;
        }
        if count > 0 || buf.is_empty() {
            return Ok(count);
        }
        match self.error.take() {
            Some(kind) => Err(kind.into()),
            None if self.ended => Ok(0),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// How many of `len` bytes there is room for, if `buffer` bytes may be on their way or unread.
    pub(super) fn make_room(&mut self, len: usize, buffer: usize) -> io::Result<usize> {
        if let Some(kind) = self.error.take() {
            return Err(kind.into());
        }
        if self.stage != Stage::Open || self.finished {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = len.min(buffer.saturating_sub(self.unread));
        self.starved = count < len;
        if count == 0 && len > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.unread += count;
        Ok(count)
    }

    /// Whether its close is a reset of the connection: a kernel does this if bytes are unread.
    pub(super) fn closes_rudely(&self) -> bool {
        self.rude || !self.arrived.is_empty()
    }
}
