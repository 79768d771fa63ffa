//! The contract with the user's code: what a handler is asked, what it may answer, what it may do.

mod action;
mod context;
mod pass_through;

use std::fmt;

pub use self::action::{Action, Packet};
pub use self::context::Context;
pub(crate) use self::pass_through::{PassThrough, Place};
use crate::endpoint::Endpoint;
use crate::identity::{ConnectionId, Identity};
use crate::reason::CloseReason;

/// One connection's state machine. The value itself is the connection's state.
///
/// The life of a connection:
///
/// 1. It is accepted, and the listener's factory makes a handler from an [`Accepted`].
/// 2. [`init`](Self::init), once.
/// 3. [`handle_packet`](Self::handle_packet) for each packet, in order;
///    [`handle_info`](Self::handle_info) for everything else.
/// 4. The end is decided: by an [`Action`], by the peer, by a limit, by a panic. From then on no
///    callback but `terminate` is made, and the first reason stands.
/// 5. What is queued is sent, then [`terminate`](Self::terminate), exactly once and last.
///
/// All callbacks of one reactor run on its thread, one after the other: one that blocks delays
/// every connection of that reactor. Hand long work to other threads, pause reading, and answer
/// when the result comes back as a message; the `offload` example shows it.
///
/// A panic in any callback ends that one connection with [`CloseReason::Panicked`]; answers to
/// earlier packets still go out. Its text is logged as one line: control characters are escaped, and
/// after 512 bytes it is cut, because a peer may have chosen it. With `panic = "abort"` it ends the
/// process, of course.
pub trait Handler: Sized + 'static {
    /// What other threads, and timers, send to this handler. `()` if nothing.
    type Message: Send + 'static;

    /// Called once, before anything else. The default continues.
    ///
    /// Whatever it answers has the meaning it has for a packet; after a stop no packet is
    /// delivered.
    fn init(&mut self, ctx: &mut Context<'_, Self::Message>) -> Action<'_> {
        let _ = ctx;
        Action::Continue
    }

    /// Called for each whole packet, without its length prefix. Empty packets are packets.
    ///
    /// `packet` is borrowed from the read buffer and may be sent back as it is, without a copy of
    /// the handler's own.
    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Self::Message>,
    ) -> Action<'a>;

    /// Called for everything that is not a packet. The default is [`Info::default_action`], and so
    /// should the last arm of every `match` here be: it keeps the defence against peers that send
    /// half a packet.
    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Self::Message>,
        ctx: &mut Context<'_, Self::Message>,
    ) -> Action<'a> {
        let _ = ctx;
        info.default_action()
    }

    /// Called exactly once for every handler made, last, with the reason of the end, whatever it
    /// was. The handler is given away, so nothing can follow. The default drops it.
    fn terminate(self, reason: CloseReason) {
        let _ = reason;
    }
}

/// What happened to a connection other than a packet.
#[derive(Debug)]
#[non_exhaustive]
pub enum Info<'a, M> {
    /// A packet stayed incomplete for the packet timeout. Here is what had arrived of it, *with*
    /// its length prefix.
    ///
    /// The default ends the connection. If the handler goes on instead, these bytes are gone and
    /// the next byte that arrives is taken for the first of a header.
    Timeout(&'a [u8]),
    /// A message, from an [`Address`](crate::Address), a broadcast or a timer of
    /// [`Context::send_after`].
    Message(M),
    /// The listener or the reactor drains. Everything that had arrived was delivered. The default
    /// ends the connection; a handler that has something left to do may go on until the drain
    /// deadline.
    Shutdown,
    /// There is room again for output, after [`SendError::Full`](crate::SendError::Full) or after
    /// the connection was over its high-water mark.
    Writable,
}

impl<M> Info<'_, M> {
    /// What a handler does that does not care: stop with [`CloseReason::PacketTimeout`] on
    /// `Timeout`, stop with [`CloseReason::Shutdown`] on `Shutdown`, else continue.
    pub fn default_action(&self) -> Action<'static> {
        match self {
            Self::Timeout(_) => Action::Stop(CloseReason::PacketTimeout),
            Self::Shutdown => Action::Stop(CloseReason::Shutdown),
            Self::Message(_) | Self::Writable => Action::Continue,
        }
    }
}

/// What is known of a connection when its handler is made.
pub struct Accepted<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) id: ConnectionId,
    pub(crate) listener: &'a str,
}

impl Accepted<'_> {
    /// The peer's end; an IPv4 client of an IPv6 socket is shown as IPv4.
    pub fn peer_addr(&self) -> Endpoint {
        self.identity.peer_addr()
    }

    /// The connection's name.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The name of the listener that accepted it.
    pub fn listener(&self) -> &str {
        self.listener
    }
}

impl fmt::Debug for Accepted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("peer_addr", &self.peer_addr())
            .field("id", &self.id)
            .field("listener", &self.listener)
            .finish()
    }
}
