//! A handler whose peer answers requests, for each way to match answers to calls.
//!
//! A call is named by one letter, which is its key, too. The test is the peer, and the owner of the
//! calls.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use condor::testing::Harness;
use condor::{
    Action, CallError, Calls, CloseReason, Context, Handler, InOrder, Info, ListenerOptions,
    ReactorOptions,
};

/// What happened to the calls of one connection, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.0.borrow_mut().push(line.into());
    }

    /// All that was noted since the last call.
    pub(crate) fn read(&self) -> Vec<String> {
        self.0.take()
    }
}

/// One way to match answers to calls.
pub(crate) trait Way: Sized + 'static {
    fn list(max: usize) -> Calls<Self, char>;
    fn open(
        calls: &mut Calls<Self, char>,
        name: char,
        timeout: Duration,
        ctx: &mut Context<'_, Order>,
    ) -> Result<(), CallError<char>>;
    fn answered(
        calls: &mut Calls<Self, char>,
        answer: &[u8],
        ctx: &mut Context<'_, Order>,
    ) -> Option<char>;
    fn expired(calls: &mut Calls<Self, char>, ctx: &mut Context<'_, Order>) -> Option<char>;
}

impl Way for InOrder {
    fn list(max: usize) -> Calls<Self, char> {
        Calls::in_order(max)
    }

    fn open(
        calls: &mut Calls<Self, char>,
        name: char,
        timeout: Duration,
        ctx: &mut Context<'_, Order>,
    ) -> Result<(), CallError<char>> {
        calls.open(name, timeout, ctx)
    }

    fn answered(
        calls: &mut Calls<Self, char>,
        _: &[u8],
        ctx: &mut Context<'_, Order>,
    ) -> Option<char> {
        calls.answered(ctx)
    }

    fn expired(calls: &mut Calls<Self, char>, ctx: &mut Context<'_, Order>) -> Option<char> {
        calls.expired(ctx).map(|(_, name)| name)
    }
}

impl Way for char {
    fn list(max: usize) -> Calls<Self, char> {
        Calls::by_key(max)
    }

    fn open(
        calls: &mut Calls<Self, char>,
        name: char,
        timeout: Duration,
        ctx: &mut Context<'_, Order>,
    ) -> Result<(), CallError<char>> {
        calls.open(name, name, timeout, ctx)
    }

    fn answered(
        calls: &mut Calls<Self, char>,
        answer: &[u8],
        ctx: &mut Context<'_, Order>,
    ) -> Option<char> {
        calls.answered(&Self::from(answer[0]), ctx)
    }

    fn expired(calls: &mut Calls<Self, char>, ctx: &mut Context<'_, Order>) -> Option<char> {
        let (key, name) = calls.expired(ctx)?;
        assert_eq!(key, name);
        Some(name)
    }
}

/// What the test tells the handler.
pub(crate) enum Order {
    Open(char, Duration),
    /// In the second list of the same connection.
    OpenOther(char, Duration),
    Pause,
    Resume,
    /// From now on `CallsDue` takes only one call.
    TakeOne,
    /// From now on `CallsDue` has its default action.
    Ignore,
    /// From now on a drain and the end of input wait for the calls.
    Wait,
}

pub(crate) struct Node<W> {
    pub(crate) calls: Calls<W, char>,
    other: Calls<W, char>,
    log: Log,
    takes_one: bool,
    ignores: bool,
    waits: bool,
}

impl<W: Way> Handler for Node<W> {
    type Message = Order;

    fn handle_packet(&mut self, answer: &[u8], ctx: &mut Context<'_, Order>) -> Action<'_> {
        match W::answered(&mut self.calls, answer, ctx) {
            Some(name) => self.log.note(format!("{name} answered")),
            None => self.log.note("dropped"),
        }
        Action::Continue
    }

    fn handle_info(&mut self, info: Info<'_, Order>, ctx: &mut Context<'_, Order>) -> Action<'_> {
        match info {
            Info::Message(Order::Open(name, timeout)) => {
                match W::open(&mut self.calls, name, timeout, ctx) {
                    Ok(()) => {}
                    Err(CallError::Full { value, max }) => {
                        self.log.note(format!("{value} refused: {max}"));
                    }
                    Err(error) => {
                        self.log.note(format!("{error}: {}", error.into_value()));
                    }
                }
            }
            Info::Message(Order::OpenOther(name, timeout)) => {
                W::open(&mut self.other, name, timeout, ctx).unwrap();
            }
            Info::Message(Order::Pause) => ctx.pause_reading(),
            Info::Message(Order::Resume) => ctx.resume_reading(),
            Info::Message(Order::TakeOne) => self.takes_one = true,
            Info::Message(Order::Ignore) => self.ignores = true,
            Info::Message(Order::Wait) => self.waits = true,
            Info::CallsDue => {
                self.log.note("due");
                if self.ignores {
                    return info.default_action();
                }
                while let Some(name) = W::expired(&mut self.calls, ctx) {
                    self.log.note(format!("{name} expired"));
                    if self.takes_one {
                        return Action::Continue;
                    }
                }
                while let Some(name) = W::expired(&mut self.other, ctx) {
                    self.log.note(format!("other {name} expired"));
                }
            }
            Info::Shutdown | Info::EndOfInput { .. } if self.waits => self.log.note("waits"),
            other => return other.default_action(),
        }
        Action::Continue
    }

    fn terminate(self, _: CloseReason) {
        for (_, name) in self.calls {
            self.log.note(format!("{name} left"));
        }
    }
}

/// A connection with at most `max` calls.
pub(crate) fn node_with<W: Way>(max: usize, options: ListenerOptions) -> (Harness<Node<W>>, Log) {
    let log = Log::default();
    let own = log.clone();
    let few = ReactorOptions::new().packet_budget(1);
    let harness = Harness::with(few, options, move |_| Node {
        calls: W::list(max),
        other: W::list(max),
        log: own.clone(),
        takes_one: false,
        ignores: false,
        waits: false,
    });
    (harness, log)
}
