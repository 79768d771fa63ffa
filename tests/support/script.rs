//! The handler of all tests: made of closures, with an optional trace of its callbacks.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::Sender;

use condor::{Action, Address, CloseReason, Context, Handler, Info};

/// One callback of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Packet(Vec<u8>),
    Timeout(Vec<u8>),
    Message(&'static str),
    Shutdown,
    Writable,
    EndOfInput,
    PartnerEnded(Option<CloseReason>),
    End(CloseReason),
}

/// The callbacks of the handlers that record into it, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Rc<RefCell<Vec<Seen>>>);

impl Trace {
    fn record(&self, seen: Seen) {
        self.0.borrow_mut().push(seen);
    }

    /// The callbacks since the last call.
    pub(crate) fn read(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

type Effect = Box<dyn FnOnce(&mut Context<'_, Do>) -> Action<'static> + Send>;

/// A message that runs a closure in the handler.
pub(crate) struct Do(&'static str, Effect);

/// A message that is only recorded in the trace.
pub(crate) fn note(name: &'static str) -> Do {
    order(name, |_| Action::Continue)
}

pub(crate) fn order(
    name: &'static str,
    effect: impl FnOnce(&mut Context<'_, Do>) -> Action<'static> + Send + 'static,
) -> Do {
    Do(name, Box::new(effect))
}

type OnInit<M> = Box<dyn FnMut(&mut Context<'_, M>) -> Action<'static>>;
type OnPacket<M> = Box<dyn FnMut(&[u8], &mut Context<'_, M>) -> Action<'static>>;
type OnInfo<M> = Box<dyn FnMut(Info<'_, M>, &mut Context<'_, M>) -> Action<'static>>;
type OnEnd = Box<dyn FnMut(CloseReason)>;
/// How a message is handled.
type OnMessage<M> = fn(M, &Trace, &mut Context<'_, M>) -> Action<'static>;

/// A handler made of closures. Without any it sends every packet back, and takes the default action
/// for everything else.
pub(crate) struct Script<M> {
    trace: Option<(Trace, OnMessage<M>)>,
    init: Option<OnInit<M>>,
    packet: Option<OnPacket<M>>,
    info: Option<OnInfo<M>>,
    end: Option<OnEnd>,
}

/// A script with a trace that runs the closures in its messages.
pub(crate) type Actor = Script<Do>;

impl Actor {
    pub(crate) fn echo(trace: &Trace) -> Self {
        let on_message: OnMessage<Do> = |Do(name, effect), trace, ctx| {
            trace.record(Seen::Message(name));
            effect(ctx)
        };
        Self { trace: Some((trace.clone(), on_message)), ..Self::new() }
    }

    /// Goes on in a drain.
    pub(crate) fn stubborn(trace: &Trace) -> Self {
        Self::echo(trace).info(|info, _| match info {
            Info::Shutdown => Action::Continue,
            other => other.default_action(),
        })
    }

    /// Goes on after the end of input, as a handler does that owes answers.
    pub(crate) fn owing(trace: &Trace) -> Self {
        Self::echo(trace).info(|info, _| match info {
            Info::EndOfInput { .. } => Action::Continue,
            other => other.default_action(),
        })
    }
}

impl<M: Send + 'static> Script<M> {
    pub(crate) fn new() -> Self {
        Self { trace: None, init: None, packet: None, info: None, end: None }
    }

    pub(crate) fn init(
        mut self,
        call: impl FnMut(&mut Context<'_, M>) -> Action<'static> + 'static,
    ) -> Self {
        self.init = Some(Box::new(call));
        self
    }

    pub(crate) fn packet(
        mut self,
        call: impl FnMut(&[u8], &mut Context<'_, M>) -> Action<'static> + 'static,
    ) -> Self {
        self.packet = Some(Box::new(call));
        self
    }

    /// Called for everything except packets. A script with a trace handles messages itself.
    pub(crate) fn info(
        mut self,
        call: impl FnMut(Info<'_, M>, &mut Context<'_, M>) -> Action<'static> + 'static,
    ) -> Self {
        self.info = Some(Box::new(call));
        self
    }

    pub(crate) fn end(mut self, call: impl FnMut(CloseReason) + 'static) -> Self {
        self.end = Some(Box::new(call));
        self
    }

    /// Sends the reason of its end.
    pub(crate) fn ends(self, to: &Sender<CloseReason>) -> Self {
        let to = to.clone();
        self.end(move |reason| {
            let _ = to.send(reason);
        })
    }

    /// Sends its address in `init`.
    pub(crate) fn sends_address(self, to: &Sender<Address<M>>) -> Self {
        let to = to.clone();
        self.init(move |ctx| {
            let _ = to.send(ctx.address());
            Action::Continue
        })
    }

    fn record(&self, seen: impl FnOnce() -> Seen) {
        if let Some((trace, _)) = &self.trace {
            trace.record(seen());
        }
    }
}

impl<M: Send + 'static> Handler for Script<M> {
    type Message = M;

    fn init(&mut self, ctx: &mut Context<'_, M>) -> Action<'_> {
        self.init.as_mut().map_or(Action::Continue, |call| call(ctx))
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, M>) -> Action<'a> {
        self.record(|| Seen::Packet(packet.to_vec()));
        match &mut self.packet {
            Some(call) => call(packet, ctx),
            None => Action::send(packet),
        }
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, M>, ctx: &mut Context<'_, M>) -> Action<'a> {
        let info = match (info, &self.trace) {
            (Info::Message(message), Some((trace, on_message))) => {
                return on_message(message, trace, ctx);
            }
            (info, _) => info,
        };
        match info {
            Info::Timeout(bytes) => self.record(|| Seen::Timeout(bytes.to_vec())),
            Info::Shutdown => self.record(|| Seen::Shutdown),
            Info::Writable => self.record(|| Seen::Writable),
            Info::EndOfInput { clean } => {
                assert!(clean, "plain TCP");
                self.record(|| Seen::EndOfInput);
            }
            Info::PartnerEnded { reason } => self.record(|| Seen::PartnerEnded(reason)),
            _ => {}
        }
        match &mut self.info {
            Some(call) => call(info, ctx),
            None => info.default_action(),
        }
    }

    fn terminate(mut self, reason: CloseReason) {
        self.record(|| Seen::End(reason));
        if let Some(call) = &mut self.end {
            call(reason);
        }
    }
}

pub(crate) fn packet(payload: &[u8]) -> Seen {
    Seen::Packet(payload.to_vec())
}
