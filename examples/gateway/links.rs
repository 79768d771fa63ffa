//! Packets of many clients over few connections to backends.
//!
//! ```text
//!   client ─┐ requests ┌─► outbox ──► Link ──► backend      one write a turn, for all clients
//!   client ─┼──────────┤
//!   client ─┘          └─► outbox ──► Link ──► backend
//!      ▲                                │
//!      └─────────── outbox ◄────────────┘ answers           one write a turn, for all answers
//! ```
//!
//! All connections of a shard are on one thread. So a client puts its request straight into the outbox
//! of a link, and the link puts the answer straight into that of the client. The first packet of a turn
//! tells the owner, which sends all of them. So a packet costs neither a message nor an allocation.
//!
//! - A client that waits for answers stays at its link, so they come in the order of its requests.
//! - A request has the time of `--timeout`. Then its client gets an error, and the place of its answer
//!   stays taken: the next answer is that of the next request. If no answer at all comes for as long
//!   again, the link ends, and is dialled again. So a backend that skips an answer is not believed for
//!   longer than that.
//! - A link that ends answers all its requests with errors. The backend may have seen them or not, so
//!   nothing is sent again. Without a link, each request is answered with an error at once.
//! - A client is not read while it has many requests under way, or one at a link that has many.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use condor::{
    Accepted, Action, Address, Backoff, Calls, CloseReason, ConnectorOptions, Context, Dialed,
    Error, Framing, Handle, Handler, InOrder, Info, LengthField, ListenerHandle, ListenerOptions,
    Raw, SendError,
};

use super::Arguments;

#[cfg(all(test, feature = "sim"))]
mod tests;

/// The most requests of one client that are under way.
const WINDOW: usize = 64;
/// While a link has more under way, each of its clients has one.
const CROWD: usize = 1_024;
/// In bytes: more than the longest answers to all requests of one client.
const MAX_QUEUED: usize = 128 * 1024 * 1024;
/// Bytes of memory that an outbox keeps when it is empty.
const KEPT: usize = 16 * 1024;

thread_local! {
    /// The links of this shard that are up, and the number of its clients.
    static LINKS: RefCell<Vec<Rc<Side>>> = RefCell::default();
    static CLIENTS: Cell<usize> = Cell::default();
}

/// What the other side knows of a connection.
struct Side {
    address: Address<()>,
    length: LengthField,
    /// Frames that the connection has not sent yet.
    outbox: RefCell<Vec<u8>>,
    /// The clients of these frames, if they are requests.
    callers: RefCell<Vec<Rc<Self>>>,
    /// Requests of a client, or at a link, that are not answered yet.
    under_way: Cell<usize>,
}

impl Side {
    fn new(address: Address<()>, width: u8) -> Rc<Self> {
        let (length, under_way) = (LengthField::new(width), Cell::new(0));
        let (outbox, callers) = (RefCell::default(), RefCell::default());
        Rc::new(Self { address, length, outbox, callers, under_way })
    }

    fn put(&self, frame: &[u8]) {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() && self.address.send(()).is_err() {
            self.address.wake();
        }
        outbox.extend_from_slice(frame);
    }

    fn answer(&self, frame: &[u8]) {
        self.under_way.set(self.under_way.get() - 1);
        self.put(frame);
    }

    fn fail(&self, why: &str) {
        let mut frame = Vec::new();
        _ = self.length.encode(why.as_bytes(), &mut frame);
        self.answer(&frame);
    }

    fn send(&self, ctx: &mut Context<'_, ()>) -> Result<(), SendError> {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() {
            return Ok(());
        }
        ctx.send(&*outbox)?;
        outbox.clear();
        outbox.shrink_to(KEPT);
        Ok(())
    }
}

/// The connection of a client.
struct Client {
    side: Rc<Side>,
    /// The link of the last request. `None` if none was up.
    link: Option<Rc<Side>>,
    /// Why the connection ends when all is answered.
    end: Option<CloseReason>,
}

impl Client {
    fn new(width: u8, peer: &Accepted<'_>) -> Self {
        CLIENTS.set(CLIENTS.get() + 1);
        Self { side: Side::new(peer.address(), width), link: None, end: None }
    }

    fn may_ask(&self) -> bool {
        let is_crowded = || self.link.as_ref().is_some_and(|link| link.under_way.get() > CROWD);
        match self.side.under_way.get() {
            0 => true,
            under_way => under_way < WINDOW && !is_crowded(),
        }
    }
}

impl Handler for Client {
    type Message = ();

    fn handle_packet(&mut self, frame: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        let under_way = self.side.under_way.get();
        if under_way == 0 {
            let least = |links: &Vec<Rc<Side>>| {
                links.iter().min_by_key(|link| link.under_way.get()).cloned()
            };
            self.link = LINKS.with_borrow(least);
        }
        self.side.under_way.set(under_way + 1);
        match &self.link {
            Some(link) => {
                link.under_way.set(link.under_way.get() + 1);
                link.callers.borrow_mut().push(Rc::clone(&self.side));
                link.put(frame);
            }
            None => self.side.fail("ERR no backend is connected"),
        }
        if !self.may_ask() {
            ctx.pause_reading();
        }
        Action::Continue
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        if let Action::Stop(reason) = info.default_action() {
            self.end.get_or_insert(reason);
            ctx.pause_reading();
        }
        let sent = self.side.send(ctx);
        match self.end {
            Some(reason) if self.side.under_way.get() == 0 => return Action::Stop(reason),
            None if self.may_ask() => ctx.resume_reading(),
            _ => {}
        }
        sent.map(|()| Action::Continue).into()
    }

    fn terminate(self, _: CloseReason) {
        CLIENTS.set(CLIENTS.get() - 1);
        // Links that drain wait for the last client.
        LINKS.with_borrow(|links| links.iter().for_each(|link| link.put(&[])));
    }
}

/// A connection to a backend.
struct Link {
    side: Rc<Side>,
    calls: Calls<InOrder, Rc<Side>>,
    timeout: Duration,
    /// A request was not answered in time, and no answer has come since.
    is_late: bool,
    drains: bool,
}

impl Link {
    fn new(width: u8, timeout: Duration, peer: &Dialed<'_>) -> Self {
        let (side, calls) = (Side::new(peer.address(), width), Calls::in_order(usize::MAX));
        Self { side, calls, timeout, is_late: false, drains: false }
    }

    /// Takes no requests of other clients any more.
    fn leave(&self) {
        LINKS.with_borrow_mut(|links| links.retain(|link| !Rc::ptr_eq(link, &self.side)));
    }

    fn forward(&mut self, ctx: &mut Context<'_, ()>) -> Result<Action<'static>, CloseReason> {
        self.side.send(ctx)?;
        for caller in self.side.callers.borrow_mut().drain(..) {
            self.calls.open(caller, self.timeout, ctx)?;
        }
        let is_over = self.drains && CLIENTS.get() == 0;
        Ok(if is_over { Action::Stop(CloseReason::Shutdown) } else { Action::Continue })
    }
}

impl Handler for Link {
    type Message = ();

    fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> {
        LINKS.with_borrow_mut(|links| links.push(Rc::clone(&self.side)));
        Action::Continue
    }

    fn handle_packet(&mut self, frame: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        if self.calls.outstanding() == 0 {
            return Action::stop(CloseReason::Custom("an answer without a request"));
        }
        self.side.under_way.set(self.side.under_way.get() - 1);
        self.is_late = false;
        if let Some(caller) = self.calls.answered(ctx) {
            caller.answer(frame);
        }
        Action::Continue
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        match info {
            Info::Shutdown => self.drains = true,
            Info::EndOfInput { .. } | Info::Timeout(_) => {
                self.leave();
                return info.default_action();
            }
            Info::CallsDue => {
                while let Some((_, caller)) = self.calls.expired(ctx) {
                    caller.fail("ERR no answer in time");
                    if !std::mem::replace(&mut self.is_late, true) {
                        ctx.expect_within(self.timeout);
                    }
                }
            }
            _ => {}
        }
        self.forward(ctx).into()
    }

    fn terminate(self, _: CloseReason) {
        self.leave();
        let calls = self.calls.into_iter().map(|(_, caller)| caller);
        let callers = calls.chain(self.side.callers.take());
        callers.for_each(|caller| caller.fail("ERR the backend has left"));
    }
}

/// Starts the listener, and a connector for each backend.
pub(crate) fn start(handle: &Handle, arguments: &Arguments) -> Result<ListenerHandle<()>, Error> {
    let (backends, links, width) = (&arguments.backend, arguments.links, arguments.len);
    let timeout = Duration::from_millis(arguments.timeout);
    // Longer than any request takes.
    let drain_timeout = timeout.saturating_add(Duration::from_secs(5));
    // Frames are handed on as they are.
    let framing = Framing::split(LengthField::new(width).keep_header(), Raw);
    for first in 0..backends.len().min(links) {
        let targets: Vec<_> = backends[first..].iter().step_by(links).cloned().collect();
        let name = targets.join(",");
        let logged = name.clone();
        let options = ConnectorOptions::to(targets)
            .connections((links - first).div_ceil(backends.len()))
            .connect_timeout(timeout)
            .backoff(Backoff::new(Duration::from_millis(50), Duration::from_secs(1)))
            .on_state(move |_, state| log::info!("backend {logged}: {state}"))
            .framing(framing.clone())
            // A link is always read: a backend may wait for that before it reads on.
            .write_high_water(usize::MAX)
            .max_queued(usize::MAX)
            // A link that ends owes its backend nothing.
            .close_timeout(Duration::from_millis(1))
            .linger_timeout(Duration::ZERO)
            .drain_timeout(drain_timeout)
            .memory_warning(usize::MAX);
        handle.start_connector(&name, options, move |peer| Link::new(width, timeout, peer))?;
    }
    let options = ListenerOptions::new(arguments.listen)
        .max_connections(arguments.max_connections)
        .framing(framing)
        .max_queued(MAX_QUEUED)
        .half_close_timeout(Duration::MAX)
        .drain_timeout(drain_timeout)
        .memory_warning(usize::MAX);
    handle.start_listener("gateway", options, move |peer| Client::new(width, peer))
}
