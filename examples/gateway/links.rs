//! Packets of many clients over few connections to backends.
//!
//! ```text
//!   client ─┐            ┌─► Outbox ──► Link ──► backend      one write a turn, for all clients
//!   client ─┼─ requests ─┤
//!   client ─┘            └─► Outbox ──► Link ──► backend
//!   client ◄── Caller ◄── answers ───────┘                    one write a turn, for all answers
//! ```
//!
//! All connections of a shard are on one thread, so a client puts its request straight into the outbox
//! of a link, and the link puts the answer straight into that of the client. The first one of a turn
//! tells the owner, which sends all of them. So a packet costs neither a message nor an allocation.
//!
//! - A client that waits for answers stays at its link, so they come in the order of its requests.
//! - A request has the time of `--timeout`. Then its client gets an error, and the place of its answer
//!   stays taken: the next answer is that of the next request. If no answer comes for as long again, the
//!   link ends, and is dialled again. So the order is lost for no longer, if a backend skips an answer.
//! - A link that ends answers all its requests with an error. It may have sent them or not, so nothing is
//!   sent again. Without a link, a request is answered with an error at once.
//! - A client with 64 requests under way is not read, nor is one with a request under way at a link that
//!   is crowded.

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

/// The most requests of a client that are under way.
const WINDOW: usize = 64;
/// A link with so many requests under way, or so many bytes to send, is crowded.
const CROWD: usize = 4_096;
const CROWD_BYTES: usize = 1024 * 1024;
/// Bytes of memory that an outbox keeps when it is empty.
const KEPT: usize = 16 * 1024;
/// Clients whose output is longer are not read.
const HIGH_WATER: usize = 64 * 1024;

thread_local! {
    static SHARD: Rc<Shard> = Rc::default();
}

/// What the connections of one shard share.
#[derive(Default)]
struct Shard {
    /// The links that are up.
    links: RefCell<Vec<Rc<Outbox>>>,
    clients: Cell<usize>,
}

/// What the clients know of a link.
struct Outbox {
    link: Address<()>,
    /// Requests that the link has not taken yet, as bytes and as those who made them.
    requests: RefCell<(Vec<u8>, Vec<Rc<Caller>>)>,
    /// Requests whose answers are still to come.
    outstanding: Cell<usize>,
    /// Bytes that the backend has not taken yet.
    queued: Cell<usize>,
}

impl Outbox {
    fn put(&self, caller: &Rc<Caller>, request: &[u8]) {
        let (bytes, callers) = &mut *self.requests.borrow_mut();
        if callers.is_empty() {
            tell(&self.link);
        }
        frame(caller.width, request, bytes);
        callers.push(Rc::clone(caller));
    }

    fn is_crowded(&self) -> bool {
        let bytes = self.queued.get() + self.requests.borrow().0.len();
        self.outstanding.get() >= CROWD || bytes >= CROWD_BYTES
    }
}

/// What the links know of a client.
struct Caller {
    client: Address<()>,
    /// Bytes of the length before each packet.
    width: usize,
    /// Answers that the client has not taken yet.
    answers: RefCell<Vec<u8>>,
    /// Requests that are not answered yet.
    outstanding: Cell<usize>,
}

impl Caller {
    fn answer(&self, answer: &[u8]) {
        self.outstanding.set(self.outstanding.get() - 1);
        let mut answers = self.answers.borrow_mut();
        if answers.is_empty() {
            tell(&self.client);
        }
        frame(self.width, answer, &mut answers);
    }
}

/// There is something new in the outbox of this connection.
fn tell(address: &Address<()>) {
    if address.send(()).is_err() {
        address.wake();
    }
}

fn frame(width: usize, packet: &[u8], out: &mut Vec<u8>) {
    let [.., a, b, c, d] = packet.len().to_be_bytes();
    match width {
        1 => out.push(d),
        2 => out.extend_from_slice(&[c, d]),
        _ => out.extend_from_slice(&[a, b, c, d]),
    }
    out.extend_from_slice(packet);
}

/// Sends the contents of an outbox, which are framed.
fn send(bytes: &mut Vec<u8>, ctx: &mut Context<'_, ()>) -> Result<(), SendError> {
    if !bytes.is_empty() {
        ctx.send(&*bytes)?;
        bytes.clear();
        bytes.shrink_to(KEPT);
    }
    Ok(())
}

/// The connection of a client.
struct Client {
    shard: Rc<Shard>,
    caller: Rc<Caller>,
    /// The link of the last request. `None` if none was up.
    outbox: Option<Rc<Outbox>>,
    /// Why the connection ends when no answer is owed any more.
    end: Option<CloseReason>,
}

impl Client {
    fn new(width: u8, peer: &Accepted<'_>) -> Self {
        let shard = SHARD.with(Rc::clone);
        shard.clients.set(shard.clients.get() + 1);
        let caller = Caller {
            client: peer.address(),
            width: width.into(),
            answers: RefCell::default(),
            outstanding: Cell::new(0),
        };
        Self { shard, caller: Rc::new(caller), outbox: None, end: None }
    }

    /// Sends the answers, and goes on or ends.
    fn go_on(&mut self, ctx: &mut Context<'_, ()>) -> Result<Action<'static>, SendError> {
        send(&mut self.caller.answers.borrow_mut(), ctx)?;
        let outstanding = self.caller.outstanding.get();
        let is_crowded = || self.outbox.as_ref().is_some_and(|outbox| outbox.is_crowded());
        match self.end {
            Some(reason) if outstanding == 0 => return Ok(Action::Stop(reason)),
            None if outstanding == 0 || outstanding < WINDOW && !is_crowded() => {
                ctx.resume_reading();
            }
            _ => {}
        }
        Ok(Action::Continue)
    }
}

impl Handler for Client {
    type Message = ();

    fn handle_packet(&mut self, request: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        let outstanding = self.caller.outstanding.get();
        if outstanding == 0 {
            let links = self.shard.links.borrow();
            self.outbox = links.iter().min_by_key(|link| link.outstanding.get()).cloned();
        }
        self.caller.outstanding.set(outstanding + 1);
        let Some(outbox) = &self.outbox else {
            self.caller.answer(b"ERR no backend is connected");
            return Action::Continue;
        };
        outbox.put(&self.caller, request);
        if outstanding + 1 == WINDOW || outbox.is_crowded() {
            ctx.pause_reading();
        }
        Action::Continue
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        if let Action::Stop(reason) = info.default_action() {
            self.end.get_or_insert(reason);
            ctx.pause_reading();
        }
        self.go_on(ctx).into()
    }

    fn terminate(self, _: CloseReason) {
        self.shard.clients.set(self.shard.clients.get() - 1);
        if self.shard.clients.get() == 0 {
            // Links that drain wait for this.
            self.shard.links.borrow().iter().for_each(|link| tell(&link.link));
        }
    }
}

/// A connection to a backend.
struct Link {
    shard: Rc<Shard>,
    outbox: Rc<Outbox>,
    calls: Calls<InOrder, Rc<Caller>>,
    timeout: Duration,
    /// A request was not answered in time, and no answer has come since.
    is_late: bool,
    drains: bool,
}

impl Link {
    fn new(timeout: Duration, peer: &Dialed<'_>) -> Self {
        let outbox = Outbox {
            link: peer.address(),
            requests: RefCell::default(),
            outstanding: Cell::new(0),
            queued: Cell::new(0),
        };
        let (shard, calls) = (SHARD.with(Rc::clone), Calls::in_order(usize::MAX));
        Self { shard, outbox: Rc::new(outbox), calls, timeout, is_late: false, drains: false }
    }

    /// Sends the requests of this turn.
    fn forward(&mut self, ctx: &mut Context<'_, ()>) -> Result<Action<'static>, CloseReason> {
        let (bytes, callers) = &mut *self.outbox.requests.borrow_mut();
        send(bytes, ctx)?;
        for caller in callers.drain(..) {
            self.calls.open(caller, self.timeout, ctx)?;
        }
        self.outbox.outstanding.set(self.calls.outstanding());
        self.outbox.queued.set(ctx.queued_bytes());
        if self.drains && self.shard.clients.get() == 0 {
            return Ok(Action::Stop(CloseReason::Shutdown));
        }
        Ok(Action::Continue)
    }

    fn expire(&mut self, ctx: &mut Context<'_, ()>) {
        while let Some((_, caller)) = self.calls.expired(ctx) {
            caller.answer(b"ERR no answer in time");
            if !self.is_late {
                self.is_late = true;
                ctx.expect_within(self.timeout);
            }
        }
    }

    /// No answer will come any more.
    fn leave(&mut self) {
        self.shard.links.borrow_mut().retain(|link| !Rc::ptr_eq(link, &self.outbox));
        let calls = std::mem::replace(&mut self.calls, Calls::in_order(0));
        let (_, unsent) = self.outbox.requests.take();
        let callers = calls.into_iter().map(|(_, caller)| caller).chain(unsent);
        callers.for_each(|caller| caller.answer(b"ERR the backend has left"));
    }
}

impl Handler for Link {
    type Message = ();

    fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> {
        self.shard.links.borrow_mut().push(Rc::clone(&self.outbox));
        Action::Continue
    }

    fn handle_packet(&mut self, answer: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        if self.calls.outstanding() == 0 {
            self.leave();
            return Action::stop(CloseReason::Custom("an answer without a request"));
        }
        if let Some(caller) = self.calls.answered(ctx) {
            caller.answer(answer);
        }
        self.is_late = false;
        self.outbox.outstanding.set(self.calls.outstanding());
        Action::Continue
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        match info {
            Info::CallsDue => self.expire(ctx),
            Info::Shutdown => self.drains = true,
            Info::EndOfInput { .. } | Info::Timeout(_) => self.leave(),
            _ => return self.forward(ctx).into(),
        }
        match info {
            Info::EndOfInput { .. } | Info::Timeout(_) => info.default_action(),
            _ => self.forward(ctx).into(),
        }
    }

    fn terminate(mut self, _: CloseReason) {
        self.leave();
    }
}

/// Starts the listener, and a connector for each backend.
pub(crate) fn start(handle: &Handle, arguments: &Arguments) -> Result<ListenerHandle<()>, Error> {
    let (backends, links) = (&arguments.backend, arguments.links);
    for first in 0..backends.len().min(links) {
        let targets: Vec<_> = backends[first..].iter().step_by(links).cloned().collect();
        let connections = (links - first).div_ceil(backends.len());
        let (name, timeout) = (targets.join(","), arguments.timeout());
        let options = link_options(targets, arguments).connections(connections);
        handle.start_connector(&name, options, move |peer| Link::new(timeout, peer))?;
    }
    let width = arguments.len;
    handle.start_listener("gateway", options(arguments), move |peer| Client::new(width, peer))
}

fn options(arguments: &Arguments) -> ListenerOptions {
    let requests = LengthField::new(arguments.len);
    let framing = Framing::split(requests, Raw);
    let most = framing.max_packet_in().unwrap_or(0) + 4;
    ListenerOptions::new(arguments.listen)
        .framing(framing)
        .max_connections(arguments.max_connections)
        .write_high_water(HIGH_WATER)
        .write_low_water(HIGH_WATER / 2)
        .max_queued(HIGH_WATER + WINDOW * most)
        .half_close_timeout(Duration::MAX) // each request is answered in time
        .drain_timeout(drain_timeout(arguments))
        .memory_warning(usize::MAX)
}

fn link_options(targets: Vec<String>, arguments: &Arguments) -> ConnectorOptions {
    let framing = Framing::split(LengthField::new(arguments.len), Raw);
    let most = framing.max_packet_in().unwrap_or(0) + 4;
    let max_queued = 2 * CROWD_BYTES + arguments.max_connections * most;
    ConnectorOptions::to(targets)
        .framing(framing)
        .connect_timeout(arguments.timeout())
        .backoff(Backoff::new(Duration::from_millis(50), Duration::from_secs(1)))
        // It is always read: a backend that sends first and reads then must not wait for the gateway.
        .write_high_water(max_queued)
        .max_queued(max_queued)
        // A link that ends owes its backend nothing.
        .close_timeout(Duration::from_millis(1))
        .linger_timeout(Duration::ZERO)
        .drain_timeout(drain_timeout(arguments))
        .memory_warning(usize::MAX)
}

/// Longer than any request takes.
fn drain_timeout(arguments: &Arguments) -> Duration {
    arguments.timeout() * 2 + Duration::from_secs(1)
}
