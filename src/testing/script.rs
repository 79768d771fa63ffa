//! A stream without a socket: what arrives, what is taken, and what goes wrong is in a script.
//!
//! It behaves as a socket behind an edge-triggered event queue does. What a call did not do because
//! there was nothing, or no room, is announced once there is; what was left undone for another
//! reason is never announced again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use mio::Token;

use super::faults::{Fault, FaultPlan};
use crate::acceptor::Acceptor;
use crate::endpoint::Endpoint;
use crate::framing::Framing;
use crate::identity::ConnectionId;
use crate::options::ListenerOptions;
use crate::poller::{Readiness, Registry};
use crate::reason::CloseReason;
use crate::stream::Stream;

/// One connection as its peer and the kernel see it, shared with the stream that plays it.
#[derive(Debug)]
pub(super) struct Script {
    /// Which connection of the listener it has become.
    pub(super) id: Option<ConnectionId>,
    /// What `terminate` was told.
    pub(super) reason: Option<CloseReason>,
    /// The framing in force, if the handler has changed it.
    pub(super) framing: Option<Framing>,
    /// Where the network keeps it.
    pub(super) place: usize,
    /// What has events.
    ready: Ready,
    /// Whom its events are for, once it is watched.
    pub(super) token: Option<Token>,
    pub(super) peer_addr: Endpoint,
    local_addr: Endpoint,
    /// Bytes that have arrived and were not read.
    arrived: VecDeque<u8>,
    /// Bytes that the peer has got and was not asked for.
    pub(super) taken: Vec<u8>,
    /// Writes that have taken something.
    pub(super) writes: u64,
    /// Bytes that the peer still takes.
    pub(super) window: usize,
    /// A write was refused, or cut, for lack of a window: room will be announced.
    starved: bool,
    pub(super) read_most: usize,
    pub(super) write_most: usize,
    pub(super) read_errors: VecDeque<ErrorKind>,
    pub(super) write_errors: VecDeque<ErrorKind>,
    /// What the kernel keeps for the next call.
    error: Option<ErrorKind>,
    /// The peer sends no more.
    ended: bool,
    /// Nothing can pass any more, in either direction.
    pub(super) dead: bool,
    /// The peer was told that nothing more comes.
    pub(super) finished: bool,
    /// The stream was dropped.
    pub(super) gone: bool,
    /// It was dropped with bytes unread, which a kernel answers with a reset.
    pub(super) rude: bool,
    /// Events on their way.
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
            events: Readiness::NONE,
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

    /// What had arrived can still be read; then comes the error, once.
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

    // ---- what the kernel says ----

    /// Its events are sent from now on.
    fn watch(&mut self, token: Token) {
        self.token = Some(token);
        self.ready.borrow_mut().push(Source::Script(self.place));
        self.events = self.events.with(Readiness::WRITABLE);
    }

    pub(super) fn announce(&mut self, readiness: Readiness) {
        if self.events.is_empty() && self.token.is_some() {
            self.ready.borrow_mut().push(Source::Script(self.place));
        }
        self.events = self.events.with(readiness);
    }

    /// The events that come with this poll.
    pub(super) fn take_events(&mut self) -> Readiness {
        if self.plan.as_mut().is_some_and(FaultPlan::holds_back) {
            self.ready.borrow_mut().push(Source::Script(self.place));
            return Readiness::NONE;
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
            // A kernel gives less than it has only if the rest came later: then it says so.
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

    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
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
        let mut count = buf.len().min(self.window);
        self.starved = count < buf.len();
        if count == 0 && !buf.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        count = count.min(self.write_most);
        if let Some(plan) = &mut self.plan {
            count = plan.cut(count);
        }
        self.taken.extend_from_slice(&buf[..count]);
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

/// What can have events.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Acceptor,
    /// The script in this place of the network.
    Script(usize),
}

/// What has events, in their order.
pub(super) type Ready = Rc<RefCell<Vec<Source>>>;

/// A script, and everybody who looks into it.
pub(super) type Shared = Rc<RefCell<Script>>;

/// What the listener takes for a socket.
#[derive(Debug)]
pub(crate) struct ScriptedStream(Shared);

impl Read for ScriptedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buf)
    }
}

impl Write for ScriptedStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for ScriptedStream {
    fn shutdown_write(&self) -> io::Result<()> {
        let mut script = self.0.borrow_mut();
        if script.dead {
            return Err(ErrorKind::NotConnected.into());
        }
        script.finished = true;
        Ok(())
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(self.0.borrow().local_addr.clone())
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.0.borrow_mut().error.take().map(io::Error::from))
    }

    fn register(&mut self, _: &Registry, token: Token) -> io::Result<()> {
        self.0.borrow_mut().watch(token);
        Ok(())
    }

    fn watch_writable(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ScriptedStream {
    fn drop(&mut self) {
        let mut script = self.0.borrow_mut();
        script.rude = !script.arrived.is_empty();
        (script.finished, script.gone) = (true, true);
    }
}

/// Who waits to be accepted, and what accepting says.
#[derive(Debug, Default)]
pub(super) struct Door {
    pub(super) waiting: VecDeque<Shared>,
    /// Accepted, and about to be given a handler.
    pub(super) entering: Option<Shared>,
    pub(super) errors: VecDeque<ErrorKind>,
    /// Whom its events are for, once it is watched.
    pub(super) token: Option<Token>,
    pub(super) ready: Ready,
}

impl Door {
    /// Says that a connection waits, if one does.
    pub(super) fn announce(&self) {
        if self.token.is_some() && !self.waiting.is_empty() {
            self.ready.borrow_mut().push(Source::Acceptor);
        }
    }
}

/// What the listener takes for a listening socket.
#[derive(Debug)]
pub(crate) struct ScriptedAcceptor(pub(super) Rc<RefCell<Door>>);

impl Acceptor for ScriptedAcceptor {
    type Stream = ScriptedStream;

    fn accept(&mut self, _: &ListenerOptions) -> io::Result<(ScriptedStream, Endpoint)> {
        let mut door = self.0.borrow_mut();
        if let Some(kind) = door.errors.pop_front() {
            return Err(kind.into());
        }
        let script = door.waiting.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let peer_addr = script.borrow().peer_addr.clone();
        door.entering = Some(Rc::clone(&script));
        Ok((ScriptedStream(script), peer_addr))
    }

    fn register(&mut self, _: &Registry, token: Token) -> io::Result<()> {
        let mut door = self.0.borrow_mut();
        door.token = Some(token);
        door.announce();
        Ok(())
    }

    fn rearm(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        self.0.borrow().announce();
        Ok(())
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        self.0.borrow_mut().token = None;
        Ok(())
    }
}
