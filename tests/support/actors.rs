//! A handler that does what each test says, and keeps a diary.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use condor::testing::{Harness, Leftovers};
use condor::{Action, CloseReason, Context, Handler, Info, ListenerOptions, PulseStats};

/// What happened to a handler, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Packet(Vec<u8>),
    Timeout(Vec<u8>),
    Message(&'static str),
    Shutdown,
    Drained,
    End(CloseReason),
}

/// What happened to the handlers that write into it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diary(Rc<RefCell<Vec<Seen>>>);

impl Diary {
    fn note(&self, seen: Seen) {
        self.0.borrow_mut().push(seen);
    }

    /// What was noted since last asked.
    pub(crate) fn read(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

type Deed = Box<dyn FnOnce(&mut Context<'_, Do>) -> Action<'static> + Send>;

/// A message: do this, now.
pub(crate) struct Do(&'static str, Deed);

/// A message that only shows up in the diary.
pub(crate) fn note(name: &'static str) -> Do {
    order(name, |_| Action::Continue)
}

pub(crate) fn order(
    name: &'static str,
    deed: impl FnOnce(&mut Context<'_, Do>) -> Action<'static> + Send + 'static,
) -> Do {
    Do(name, Box::new(deed))
}

type OnInit = Box<dyn FnMut(&mut Context<'_, Do>) -> Action<'static>>;
type OnBytes = Box<dyn FnMut(&[u8], &mut Context<'_, Do>) -> Action<'static>>;
type OnInfo = Box<dyn FnMut(&Info<'_, Do>, &mut Context<'_, Do>) -> Action<'static>>;

/// By default it echoes packets and takes the default action on everything else.
pub(crate) struct Actor {
    diary: Diary,
    init: Option<OnInit>,
    packet: Option<OnBytes>,
    info: Option<OnInfo>,
}

impl Actor {
    pub(crate) fn echo(diary: &Diary) -> Self {
        Self { diary: diary.clone(), init: None, packet: None, info: None }
    }

    pub(crate) fn init(
        mut self,
        call: impl FnMut(&mut Context<'_, Do>) -> Action<'static> + 'static,
    ) -> Self {
        self.init = Some(Box::new(call));
        self
    }

    pub(crate) fn packet(
        mut self,
        call: impl FnMut(&[u8], &mut Context<'_, Do>) -> Action<'static> + 'static,
    ) -> Self {
        self.packet = Some(Box::new(call));
        self
    }

    /// Everything but messages.
    pub(crate) fn info(
        mut self,
        call: impl FnMut(&Info<'_, Do>, &mut Context<'_, Do>) -> Action<'static> + 'static,
    ) -> Self {
        self.info = Some(Box::new(call));
        self
    }
}

impl Handler for Actor {
    type Message = Do;

    fn init(&mut self, ctx: &mut Context<'_, Do>) -> Action<'_> {
        self.init.as_mut().map_or(Action::Continue, |call| call(ctx))
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, Do>) -> Action<'a> {
        self.diary.note(Seen::Packet(packet.to_vec()));
        match &mut self.packet {
            Some(call) => call(packet, ctx),
            None => Action::send(packet),
        }
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, Do>, ctx: &mut Context<'_, Do>) -> Action<'a> {
        match info {
            Info::Message(Do(name, deed)) => {
                self.diary.note(Seen::Message(name));
                return deed(ctx);
            }
            Info::Timeout(bytes) => self.diary.note(Seen::Timeout(bytes.to_vec())),
            Info::Shutdown => self.diary.note(Seen::Shutdown),
            Info::Drained => self.diary.note(Seen::Drained),
            _ => {}
        }
        match &mut self.info {
            Some(call) => call(&info, ctx),
            None => info.default_action(),
        }
    }

    fn terminate(self, reason: CloseReason) {
        self.diary.note(Seen::End(reason));
    }
}

pub(crate) fn options() -> ListenerOptions {
    ListenerOptions::port(5555)
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A connection to a listener with these options, whose handlers all echo.
pub(crate) fn echo(options: ListenerOptions) -> (Harness<Actor>, Diary) {
    let diary = Diary::default();
    let own = diary.clone();
    (Harness::new(options, move |_| Actor::echo(&own)), diary)
}

/// A connection to a listener with these options, with one handler made from a diary.
pub(crate) fn actor(
    options: ListenerOptions,
    make: impl FnOnce(&Diary) -> Actor,
) -> (Harness<Actor>, Diary) {
    let diary = Diary::default();
    let mut actor = Some(make(&diary));
    (Harness::new(options, move |_| actor.take().expect("one connection")), diary)
}

pub(crate) fn packet(payload: &[u8]) -> Seen {
    Seen::Packet(payload.to_vec())
}

/// Frames as they are with a two-byte length.
pub(crate) fn wire(payloads: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for payload in payloads {
        wire.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        wire.extend_from_slice(payload);
    }
    wire
}

/// What the loop has recorded so far. The handler is asked, by a message.
pub(crate) fn pulse(harness: &Harness<Actor>) -> PulseStats {
    let (tell, told) = channel();
    harness.message(order("pulse", move |ctx| {
        let _ = tell.send(ctx.handle().pulse().remove(0));
        Action::Continue
    }));
    told.recv().expect("the handler has answered")
}

/// The peer takes what there is and goes. Afterwards nothing may be left.
pub(crate) fn conclude<H: Handler>(harness: &Harness<H>) {
    harness.peer_reads_all();
    harness.peer_closes();
    harness.advance(secs(100));
    assert!(harness.closed().is_some(), "the connection has not ended");
    assert_clean(harness);
}

/// All connections are gone, and nothing of them is left.
pub(crate) fn assert_clean<H: Handler>(harness: &Harness<H>) {
    let stats = harness.stats();
    assert_eq!(stats.made, stats.terminated, "as many handlers terminated as made");
    assert_eq!(stats.open, 0);
    assert_eq!(harness.leftovers(), Leftovers::default());
}
