//! A stream without a socket. A script holds what arrives, what the peer takes, and which calls
//! fail.
//!
//! It behaves as a socket with edge-triggered events. If a call did less than asked because bytes
//! or space were missing, an event announces them once they are there. If a call was not made, or
//! did less for another reason, no event follows.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::{Rc, Weak};

use mio::Token;

use super::faults::{Fault, FaultPlan};
use crate::endpoint::Endpoint;
use crate::framing::Framing;
use crate::identity::ConnectionId;
use crate::poller::{Readiness, Registry};
use crate::reason::CloseReason;
use crate::stream::Stream;

/// One connection from the side of its peer and the kernel. The `ScriptedStream` shares it.
#[derive(Debug)]
pub(super) struct Script {
    /// Its identity in the listener, once it was accepted.
    pub(super) id: Option<ConnectionId>,
    /// The reason that `terminate` got.
    pub(super) reason: Option<CloseReason>,
    /// The framing in force, if the handler has changed it.
    pub(super) framing: Option<Framing>,
    /// Its index in the network.
    pub(super) place: usize,
    /// The network's list of sources that have events.
    ready: Ready,
    /// Where it says that it was registered last. Nothing if it was dialled.
    pub(super) entering: Weak<Entering>,
    /// The token of its events, once the reactor has registered it.
    pub(super) token: Option<Token>,
    pub(super) peer_addr: Endpoint,
    local_addr: Endpoint,
    /// Bytes that have arrived and that the connection has not read.
    arrived: VecDeque<u8>,
    /// Bytes that the peer has received and the test has not fetched.
    pub(super) taken: Vec<u8>,
    /// Writes that have taken at least one byte.
    pub(super) writes: u64,
    /// How many bytes the peer still takes.
    pub(super) window: usize,
    /// A write was refused or cut because the window was too small. When the window opens, an event
    /// announces it.
    starved: bool,
    pub(super) read_most: usize,
    pub(super) write_most: usize,
    pub(super) read_errors: VecDeque<ErrorKind>,
    pub(super) write_errors: VecDeque<ErrorKind>,
    /// The error that the kernel returns from the next call.
    error: Option<ErrorKind>,
    /// The peer has shut down its sending side.
    ended: bool,
    /// The stream is broken in both directions.
    pub(super) dead: bool,
    /// The connection has shut down its sending side, or dropped the stream.
    pub(super) finished: bool,
    /// The stream was dropped.
    pub(super) gone: bool,
    /// The stream was dropped with unread bytes, or is to be reset. A kernel resets the connection.
    pub(super) rude: bool,
    /// It was dialled, and no answer has come.
    pub(super) connecting: bool,
    /// Events not yet delivered.
    events: Readiness,
    pub(super) plan: Option<FaultPlan>,
}

impl Script {
    pub(super) fn new(
        place: usize,
        ready: Ready,
        peer_addr: Endpoint,
        local_addr: Endpoint,
    ) -> Self {
        Self {
            id: None,
            reason: None,
            framing: None,
            place,
            ready,
            entering: Weak::new(),
            token: None,
            peer_addr,
            local_addr,
            arrived: VecDeque::new(),
            taken: Vec::new(),
            writes: 0,
            window: usize::MAX,
            starved: false,
            read_most: usize::MAX,
            write_most: usize::MAX,
            read_errors: VecDeque::new(),
            write_errors: VecDeque::new(),
            error: None,
            ended: false,
            dead: false,
            finished: false,
            gone: false,
            rude: false,
            connecting: false,
            events: Readiness::default(),
            plan: None,
        }
    }

    // ---- what the peer does ----

    pub(super) fn arrive(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && !self.ended && !self.dead {
            self.arrived.extend(bytes);
            self.announce(Readiness::READABLE);
        }
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
        self.announce(Readiness::READABLE.with(Readiness::READ_UNTIL_BLOCKED));
    }

    /// Bytes that had arrived can still be read. Then one call returns the error.
    pub(super) fn reset(&mut self) {
        if !self.dead {
            self.error = Some(ErrorKind::ConnectionReset);
        }
        (self.ended, self.dead) = (true, true);
        self.announce(
            Readiness::READABLE
                .with(Readiness::WRITABLE)
                .with(Readiness::READ_UNTIL_BLOCKED)
                .with(Readiness::ERROR),
        );
    }

    pub(super) fn open_window(&mut self, bytes: usize) {
        self.window = self.window.saturating_add(bytes);
        if self.starved && bytes > 0 {
            self.starved = false;
            self.announce(Readiness::WRITABLE);
        }
    }

    // ---- what the kernel announces ----

    /// The far end refuses, or the network does it for the far end.
    pub(super) fn refuse(&mut self, kind: ErrorKind) {
        self.error = Some(kind);
        (self.ended, self.dead, self.connecting) = (true, true, false);
        self.announce(Readiness::WRITABLE.with(Readiness::ERROR));
    }

    /// The far end accepts.
    pub(super) fn connected(&mut self) {
        self.connecting = false;
        self.announce(Readiness::WRITABLE);
    }

    /// Whether it is connected, and was never refused.
    pub(super) fn is_established(&self) -> bool {
        !(self.connecting || self.gone || self.dead && self.error.is_some())
    }

    /// From now on its events are delivered. All that it is ready for is announced, also again.
    fn watch(&mut self, token: Token) {
        self.token = Some(token);
        if self.connecting {
            return;
        }
        self.ready.borrow_mut().push(Source::Script(self.place));
        self.events = self.events.with(Readiness::WRITABLE);
        if self.is_readable() {
            self.events = self.events.with(Readiness::READABLE);
        }
    }

    fn is_readable(&self) -> bool {
        !self.arrived.is_empty() || self.ended || self.dead || self.error.is_some()
    }

    pub(super) fn announce(&mut self, readiness: Readiness) {
        if self.events == Readiness::default() && self.token.is_some() {
            self.ready.borrow_mut().push(Source::Script(self.place));
        }
        self.events = self.events.with(readiness);
    }

    /// The events that this poll returns.
    pub(super) fn take_events(&mut self) -> Readiness {
        if self.plan.as_mut().is_some_and(FaultPlan::holds_back) {
            self.ready.borrow_mut().push(Source::Script(self.place));
            return Readiness::default();
        }
        let events = std::mem::take(&mut self.events);
        if self.ended && events.has(Readiness::READABLE) {
            return events.with(Readiness::READ_UNTIL_BLOCKED);
        }
        events
    }

    fn make_up_an_event(&mut self) {
        if self.plan.as_mut().is_some_and(FaultPlan::makes_up_an_event) {
            self.announce(Readiness::READABLE.with(Readiness::WRITABLE));
        }
    }

    // ---- the calls ----

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.make_up_an_event();
        let forced = self.read_errors.pop_front().map(Fault::Fails);
        match forced.or_else(|| self.plan.as_mut()?.on_read()) {
            Some(Fault::Fails(kind)) => return Err(self.fail(kind, Readiness::READABLE)),
            Some(Fault::Ends) => {
                self.arrived.clear();
                (self.ended, self.dead) = (true, true);
            }
            None => {}
        }
        let whole = buf.len().min(self.arrived.len());
        let mut count = whole.min(self.read_most);
        if let Some(plan) = &mut self.plan {
            count = plan.cut(count);
        }
        if count < whole {
            // A kernel returns less than has arrived only if the rest came after the call. Then an
            // event announces the rest.
            self.announce(Readiness::READABLE);
        }
        if count > 0 {
            let (front, back) = self.arrived.as_slices();
            let cut = front.len().min(count);
            buf[..cut].copy_from_slice(&front[..cut]);
            buf[cut..count].copy_from_slice(&back[..count - cut]);
            self.arrived.drain(..count);
            return Ok(count);
        }
        match self.error.take() {
            Some(kind) => Err(kind.into()),
            None if self.ended || self.dead => Ok(0),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Copies bytes that have arrived. An error stays.
    fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(Fault::Fails(kind)) = self.plan.as_mut().and_then(FaultPlan::on_read) {
            return Err(self.fail(kind, Readiness::READABLE));
        }
        for (to, byte) in buf.iter_mut().zip(&self.arrived) {
            *to = *byte;
        }
        match self.error {
            _ if !self.arrived.is_empty() => Ok(buf.len().min(self.arrived.len())),
            Some(kind) => Err(kind.into()),
            None if self.ended || self.dead => Ok(0),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Copies no more than the peer takes, so that a long queue may leave a byte at a time.
    fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.make_up_an_event();
        let forced = self.write_errors.pop_front().map(Fault::Fails);
        if let Some(Fault::Fails(kind)) = forced.or_else(|| self.plan.as_mut()?.on_write()) {
            return Err(self.fail(kind, Readiness::WRITABLE));
        }
        if let Some(kind) = self.error.take() {
            return Err(kind.into());
        }
        if self.dead || self.finished {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let mut count = len.min(self.window);
        self.starved = count < len;
        if count == 0 && len > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        count = count.min(self.write_most);
        if let Some(plan) = &mut self.plan {
            count = plan.cut(count);
        }
        let mut left = count;
        for piece in pieces {
            let part = &piece[..piece.len().min(left)];
            self.taken.extend_from_slice(part);
            left -= part.len();
        }
        self.writes += 1;
        if self.window != usize::MAX {
            self.window -= count;
        }
        Ok(count)
    }

    fn fail(&mut self, kind: ErrorKind, again: Readiness) -> io::Error {
        match kind {
            ErrorKind::WouldBlock => self.announce(again),
            ErrorKind::Interrupted => {}
            _ => {
                self.arrived.clear();
                (self.ended, self.dead) = (true, true);
            }
        }
        kind.into()
    }
}

/// A source of events.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Acceptor,
    /// The script with this index in the network.
    Script(usize),
}

/// The sources that have events, in the order of the events.
pub(super) type Ready = Rc<RefCell<Vec<Source>>>;

/// The stream that was registered last. If it has a slot, the factory makes its handler next.
pub(super) type Entering = RefCell<Option<Shared>>;

/// A script that its stream, the network and the harness share.
pub(super) type Shared = Rc<RefCell<Script>>;

/// The listener's stream, in place of a socket.
#[derive(Debug)]
pub(crate) struct ScriptedStream(Shared);

impl ScriptedStream {
    pub(super) fn of(script: Shared) -> Self {
        Self(script)
    }

    /// Whether it was dialled, and no answer has come.
    pub(super) fn is_connecting(&self) -> bool {
        self.0.borrow().connecting
    }

    /// Linux fails a gathered write of more pieces (`UIO_MAXIOV`).
    const MOST_PIECES: usize = 1_024;
}

impl Read for ScriptedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buf)
    }
}

impl Write for ScriptedStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(&[IoSlice::new(buf)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for ScriptedStream {
    fn write_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(pieces.len() <= Self::MOST_PIECES, "{} pieces in one call", pieces.len());
        self.0.borrow_mut().write(pieces)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        let mut script = self.0.borrow_mut();
        if script.dead {
            return Err(ErrorKind::NotConnected.into());
        }
        script.finished = true;
        Ok(())
    }

    fn reset_on_drop(&self) {
        self.0.borrow_mut().rude = true;
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(self.0.borrow().local_addr.clone())
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.0.borrow_mut().error.take().map(io::Error::from))
    }

    fn is_readable(&self) -> bool {
        self.0.borrow().is_readable()
    }

    fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().peek(buf)
    }

    fn register(&mut self, _: &Registry, token: Token) -> io::Result<()> {
        self.0.borrow_mut().watch(token);
        if let Some(entering) = self.0.borrow().entering.upgrade() {
            entering.replace(Some(Rc::clone(&self.0)));
        }
        Ok(())
    }

    fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.register(registry, token)
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        Ok(())
    }

    fn watch_writable(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ScriptedStream {
    fn drop(&mut self) {
        let mut script = self.0.borrow_mut();
        script.rude |= !script.arrived.is_empty();
        (script.finished, script.gone) = (true, true);
    }
}
