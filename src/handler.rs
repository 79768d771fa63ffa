//! The contract with the user's code: which callbacks a handler has, what they return, and what
//! they may do.

mod accepted;
mod action;
mod context;
mod dialed;
mod pass_through;
mod refusal;
mod writer;

pub use self::accepted::Accepted;
pub use self::action::{Action, Packet};
pub use self::context::Context;
pub(crate) use self::context::SHARE_FROM;
pub use self::dialed::Dialed;
pub(crate) use self::pass_through::{PassThrough, Place};
pub(crate) use self::refusal::Farewell;
pub use self::refusal::Refusal;
pub use self::writer::{PacketWriter, Written};
use crate::error::DialError;
use crate::identity::ConnectionId;
use crate::reason::CloseReason;

/// The code of one connection. A value of the implementing type is the connection's state.
///
/// Only [`handle_packet`](Self::handle_packet) is required. [`init`](Self::init) comes first,
/// [`handle_info`](Self::handle_info) gets all other events, [`terminate`](Self::terminate) is last.
///
/// ```
/// # use condor::{Action, Context, Handler};
/// struct Echo;
///
/// impl Handler for Echo {
///     type Message = ();
///
///     fn handle_packet<'a>(
///         &'a mut self,
///         packet: &'a [u8],
///         _ctx: &mut Context<'_, ()>,
///     ) -> Action<'a> {
///         Action::send(packet)
///     }
/// }
/// # let harness = condor::testing::Harness::of(Echo);
/// # harness.packet(b"hello");
/// # assert_eq!(harness.packets(), [b"hello"]);
/// ```
///
/// # The life of a connection
///
/// 1. The listener accepts the connection. The factory given to
///    [`start_listener`](crate::Reactor::start_listener) makes a handler from an [`Accepted`], or
///    [refuses](Refusal) the connection, which then has no further steps.
/// 2. The reactor calls [`init`](Self::init), once.
/// 3. It calls [`handle_packet`](Self::handle_packet) for each packet, in order, and
///    [`handle_info`](Self::handle_info) for every other event.
/// 4. An [`Action`], the peer, a limit or a panic ends the connection. From then on the reactor
///    calls only `terminate`. The first reason stands.
/// 5. The reactor sends the queued output. Then it calls [`terminate`](Self::terminate), exactly
///    once; no other call follows.
///
/// All callbacks of one reactor run on its thread, one after the other. A callback that blocks
/// delays every connection of that reactor. So give long work to another thread, and let
/// [`Replies`](crate::Replies) send the answers in order. The `offload` example shows this.
///
/// An answer that borrows nothing of the packet needs no named lifetime: `fn handle_packet(&mut self,
/// packet: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_>`.
///
/// # Panics
///
/// A panic in any callback ends that one connection with [`CloseReason::Panicked`]. Answers to
/// earlier packets are still sent. The panic's text is logged as one line. A peer may have chosen
/// this text, so control characters are escaped, and the text is cut after 512 bytes.
///
/// A panic in the drop of a value that you have given away ends no connection: a message, a
/// [`Framer`](crate::Framer), a factory, the owner of [shared bytes](crate::Packet::Shared). It is
/// counted in [`Stats::panics`](crate::Stats::panics), and logged. If your logger panics, its line is
/// lost.
///
/// Two panics cannot be caught. If a drop panics while another panic unwinds through the same value,
/// Rust aborts the process: for example, if two fields of a handler panic when it is dropped. With
/// `panic = "abort"` any panic ends the process.
pub trait Handler: Sized + 'static {
    /// What other threads and timers send to this handler. Use `()` if they send nothing.
    type Message: Send + 'static;

    /// Called once, before all other callbacks. The default returns [`Action::Continue`].
    ///
    /// The returned action means the same as after a packet. After a stop no packet is delivered.
    fn init(&mut self, ctx: &mut Context<'_, Self::Message>) -> Action<'_> {
        let _ = ctx;
        Action::Continue
    }

    /// Called for each whole packet, without its length prefix. An empty packet is delivered, too.
    ///
    /// `packet` is borrowed from the read buffer. The handler may return it as the answer, without
    /// copying it.
    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Self::Message>,
    ) -> Action<'a>;

    /// Called for every event that is not a packet. The default returns [`Info::default_action`].
    ///
    /// Return `info.default_action()` in the last arm of your `match`, too: it keeps the defence
    /// against peers that send half a packet.
    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Self::Message>,
        ctx: &mut Context<'_, Self::Message>,
    ) -> Action<'a> {
        let _ = ctx;
        info.default_action()
    }

    /// Called exactly once for every handler, as the last call, with the reason of the end. It
    /// takes the handler by value, so no call can follow. The default drops the handler.
    ///
    /// The queued output is sent before, so this call may come as late as the
    /// [close timeout](crate::ListenerOptions::close_timeout) after the end was decided. If the
    /// handler is on a list from which others choose, such as that of the waiting consumers of a
    /// queue, they may choose it until then: it gets no message any more. Here it leaves the list, and
    /// passes on what was meant for it.
    fn terminate(self, reason: CloseReason) {
        let _ = reason;
    }
}

/// An event of a connection that is not a packet. [`default_action`](Self::default_action) gives
/// the usual answer to each.
///
/// End your `match` with `other => other.default_action()`. An arm `_ => Action::Continue` costs
/// more than it seems: a peer that has left would hold its slot for the whole
/// [half-close timeout](crate::ListenerOptions::half_close_timeout), half a packet would hold its
/// connection for ever, and a drain would take until its deadline.
///
/// # Examples
///
/// A handler that sends its client each message that it gets from another thread:
///
/// ```
/// use condor::{Action, Context, Handler, Info};
///
/// struct Subscriber;
///
/// impl Handler for Subscriber {
///     type Message = String;
/// #   fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, String>) -> Action<'a> {
/// #       Action::Continue
/// #   }
///
///     fn handle_info<'a>(
///         &'a mut self,
///         info: Info<'a, String>,
///         _ctx: &mut Context<'_, String>,
///     ) -> Action<'a> {
///         match info {
///             Info::Message(news) => Action::send(news),
///             other => other.default_action(),
///         }
///     }
/// }
/// # let harness = condor::testing::Harness::of(Subscriber);
/// # harness.message(String::from("hello"));
/// # assert_eq!(harness.packets(), [b"hello"]);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Info<'a, M> {
    /// A packet stayed incomplete for the
    /// [packet timeout](crate::ListenerOptions::packet_timeout). Or no packet came within the time of
    /// [`Context::expect_within`], or within the
    /// [first-packet timeout](crate::ListenerOptions::first_packet_timeout). The value holds the
    /// bytes of the packet that have arrived, *with* its length prefix. If none have, it is empty.
    /// The event does not tell which of the three times it was. A handler knows from its own state, such
    /// as whether the client has logged in.
    ///
    /// The default ends the connection. If the handler continues instead, these bytes are dropped.
    /// The next byte that arrives then counts as the first byte of a header.
    Timeout(&'a [u8]),
    /// A message from an [`Address`](crate::Address), from a broadcast, or from a timer of
    /// [`Context::send_after`]. The default continues.
    Message(M),
    /// The listener or the reactor drains. Every packet that had arrived has been delivered.
    ///
    /// The default ends the connection. A handler with unfinished work may continue until the
    /// [drain deadline](crate::ListenerOptions::drain_timeout).
    Shutdown,
    /// The output queue has space again: it has fallen to the
    /// [low-water mark](crate::ListenerOptions::write_low_water). This follows a
    /// [`SendError::Full`](crate::SendError::Full), and it follows a queue above the
    /// [high-water mark](crate::ListenerOptions::write_high_water). The default continues.
    Writable,
    /// Another thread, or another connection, has called [`Address::wake`](crate::Address::wake): there
    /// is something new in a place that it shares with this handler. All calls since the last time make
    /// one of these. The default continues.
    Wake,
    /// There is room again where this connection wants to send: see
    /// [`Context::notify_when_ready`]. It comes once for each call. The default continues.
    MailboxReady,
    /// A connection that this handler has [dialled](Context::dial) did not come up. It comes once, and
    /// nothing else comes of that dial. The default continues.
    DialFailed {
        /// The id that the connection would have: that of the [`Address`](crate::Address) which `dial`
        /// returned.
        id: ConnectionId,
        /// What was dialled.
        target: &'a str,
        /// Why it failed.
        error: &'a DialError,
    },
    /// The connection's [partner](Context::pair) has ended, or is ending, and the pair with it. What it
    /// had forwarded before is in the queue of this connection. From now on nothing can be forwarded.
    ///
    /// The default ends the connection, with [`CloseReason::PartnerEnded`], once its queue is sent. A
    /// handler that continues may find another partner.
    PartnerEnded {
        /// Why the partner has ended. `None` if it has never known of this connection: it had ended
        /// before, it was refused, or its dial has failed. Of a dial
        /// [`DialFailed`](Self::DialFailed) came before. It is also `None` for a dialled connection that
        /// more was forwarded to than is kept.
        reason: Option<CloseReason>,
    },
    /// The deadline of a call to the peer has passed: pass it to
    /// [`Calls::expired`](crate::Calls::expired), which gives the calls back. The default continues.
    CallsDue,
    /// The peer sends no more, and every packet that had arrived has been delivered. The peer has
    /// closed the connection, or it has shut down its sending half and still reads: TCP does not
    /// tell which.
    ///
    /// The default ends the connection. A handler that owes answers may continue, and it ends the
    /// connection itself after the last one. [`Replies`](crate::Replies) does this. Without it:
    ///
    /// ```
    /// use condor::{Action, CloseReason, Context, Handler, Info};
    ///
    /// /// Workers answer its requests. Their answers come as messages.
    /// #[derive(Default)]
    /// struct Owing {
    ///     requests: usize,
    ///     ended: bool,
    /// }
    ///
    /// impl Handler for Owing {
    ///     type Message = String;
    ///
    ///     fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, String>) -> Action<'a> {
    ///         self.requests += 1;
    ///         Action::Continue
    ///     }
    ///
    ///     fn handle_info<'a>(
    ///         &'a mut self,
    ///         info: Info<'a, String>,
    ///         _ctx: &mut Context<'_, String>,
    ///     ) -> Action<'a> {
    ///         match info {
    ///             Info::Message(answer) => {
    ///                 self.requests -= 1;
    ///                 if self.ended && self.requests == 0 {
    ///                     return Action::send_and_stop(answer, CloseReason::PeerClosed);
    ///                 }
    ///                 Action::send(answer)
    ///             }
    ///             Info::EndOfInput { .. } if self.requests > 0 => {
    ///                 self.ended = true;
    ///                 Action::Continue
    ///             }
    ///             other => other.default_action(),
    ///         }
    ///     }
    /// }
    /// # let harness = condor::testing::Harness::of(Owing::default());
    /// # harness.packet(b"?");
    /// # harness.peer_closes();
    /// # assert_eq!(harness.closed(), None);
    /// # harness.message(String::from("!"));
    /// # assert_eq!(harness.packets(), [b"!"]);
    /// # assert_eq!(harness.closed(), Some(CloseReason::PeerClosed));
    /// ```
    ///
    /// From then on no timeout of input runs: neither the packet timeout nor the idle timeout, the
    /// silence timeout or the deadline of [`expect_within`](Context::expect_within). If no output
    /// leaves for the [half-close timeout](crate::ListenerOptions::half_close_timeout), the
    /// connection ends with [`CloseReason::HalfCloseTimeout`]. It also ends when the handler calls
    /// [`end_output`](Context::end_output) and the queue is sent.
    ///
    /// It comes once. It waits while reading is paused, and while output is above the high-water
    /// mark. It does not come to a connection with a [partner](Context::pair), which passes the end on.
    /// It does not come after [`end_output`](Context::end_output), nor in the middle of a packet: the
    /// connection ends then, with [`CloseReason::PeerClosed`] or [`CloseReason::PeerClosedMidPacket`].
    EndOfInput {
        /// Whether the peer has said that it sends no more. It is always true over plain TCP.
        clean: bool,
    },
}

impl<M> Info<'_, M> {
    /// The action for an event that the handler does not treat itself. It stops with
    /// [`CloseReason::PacketTimeout`] on `Timeout`, with [`CloseReason::Shutdown`] on `Shutdown`,
    /// with [`CloseReason::PeerClosed`] on `EndOfInput`, and with [`CloseReason::PartnerEnded`] on
    /// `PartnerEnded`. On the others it continues.
    pub fn default_action(&self) -> Action<'static> {
        match self {
            Self::Timeout(_) => Action::Stop(CloseReason::PacketTimeout),
            Self::Shutdown => Action::Stop(CloseReason::Shutdown),
            Self::EndOfInput { .. } => Action::Stop(CloseReason::PeerClosed),
            Self::PartnerEnded { .. } => Action::Stop(CloseReason::PartnerEnded),
            Self::Message(_)
            | Self::Writable
            | Self::Wake
            | Self::MailboxReady
            | Self::DialFailed { .. }
            | Self::CallsDue => Action::Continue,
        }
    }
}

/// What a factory may return: a handler, an `Option` of one, or a `Result` of one and a
/// [`Refusal`]. `None` refuses the connection with [`Refusal::close`].
///
/// # Examples
///
/// Each of these is a factory:
///
/// ```
/// use condor::{Accepted, ListenerOptions, Reactor, Refusal};
/// # use condor::{Action, Context, Handler};
/// # struct Echo;
/// # impl Echo {
/// #     fn new(_tenant: &str) -> Self {
/// #         Self
/// #     }
/// # }
/// # impl Handler for Echo {
/// #     type Message = ();
/// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
/// #         Action::send(packet)
/// #     }
/// # }
///
/// fn is_local(peer: &Accepted<'_>) -> bool {
///     peer.peer_addr().ip().is_some_and(|ip| ip.is_loopback())
/// }
///
/// fn tenant(peer: &Accepted<'_>) -> Result<&'static str, Refusal> {
///     if is_local(peer) { Ok("local") } else { Err(Refusal::send("unknown tenant")) }
/// }
///
/// // `Echo` is a `Handler`.
/// let mut reactor = Reactor::new()?;
/// let port = || ListenerOptions::port(0);
/// reactor.start_listener("all", port(), |_peer| Echo)?;
/// reactor.start_listener("local", port(), |peer| is_local(peer).then(|| Echo))?;
/// reactor.start_listener("tenants", port(), |peer| Ok(Echo::new(tenant(peer)?)))?;
/// # Ok::<(), condor::Error>(())
/// ```
pub trait IntoHandler {
    /// The handler of the connection.
    type Handler: Handler;

    /// The handler, or how the connection is refused.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] of the factory.
    fn into_handler(self) -> Result<Self::Handler, Refusal>;
}

impl<H: Handler> IntoHandler for H {
    type Handler = H;

    fn into_handler(self) -> Result<H, Refusal> {
        Ok(self)
    }
}

impl<H: Handler> IntoHandler for Option<H> {
    type Handler = H;

    fn into_handler(self) -> Result<H, Refusal> {
        self.ok_or_else(Refusal::close)
    }
}

impl<H: Handler> IntoHandler for Result<H, Refusal> {
    type Handler = H;

    fn into_handler(self) -> Self {
        self
    }
}
