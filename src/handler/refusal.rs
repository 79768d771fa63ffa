//! How a factory refuses a connection.

use super::action::Packet;

/// How a connection ends that the factory refuses.
///
/// A refused connection gets no handler, so [`terminate`](crate::Handler::terminate) is not called.
/// [`Stats::refused`](crate::Stats::refused) counts it. The log has its reason, at level debug, at
/// most once a second for each listener.
///
/// | refusal | what the peer sees | the slot |
/// |---|---|---|
/// | [`close`](Self::close) | the end of the stream | is free at once |
/// | [`reset`](Self::reset) | a reset | is free at once |
/// | [`send`](Self::send) | a last packet, then the end of the stream | is free once the peer has closed, too |
///
/// # Examples
///
/// ```
/// use condor::testing::Harness;
/// use condor::{ListenerOptions, Refusal};
/// # use condor::{Action, Context, Handler};
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type Message = ();
/// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
/// #         Action::send(packet)
/// #     }
/// # }
///
/// // `Echo` is a `Handler`. This server serves one client after its start.
/// let mut served = 0;
/// let harness = Harness::new(ListenerOptions::port(5555), move |_| {
///     served += 1;
///     if served > 1 {
///         return Err(Refusal::send("busy").because("one client was served"));
///     }
///     Ok(Echo)
/// });
/// let second = harness.connect();
/// assert_eq!(second.packets(), [b"busy"]);
/// assert!(second.is_finished());
/// assert_eq!(harness.stats().refused, 1);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a refusal does nothing until the factory returns it"]
pub struct Refusal {
    pub(crate) farewell: Farewell,
    pub(crate) reason: &'static str,
}

/// What the peer of a refused connection gets.
#[derive(Debug, Clone)]
pub(crate) enum Farewell {
    Close,
    Reset,
    Send(Packet<'static>),
}

impl Refusal {
    const fn new(farewell: Farewell) -> Self {
        Self { farewell, reason: "no reason given" }
    }

    /// Ends the stream. The bytes that the peer has sent before are read and dropped, at most 64 KiB.
    ///
    /// The slot is free at once. If the peer sends more afterwards, the kernel answers with a reset.
    pub const fn close() -> Self {
        Self::new(Farewell::Close)
    }

    /// Resets the connection. This keeps no state in the kernel either, so it suits peers that come
    /// in great numbers. (The peer of a Unix socket sees the end of the stream.)
    pub const fn reset() -> Self {
        Self::new(Farewell::Reset)
    }

    /// Sends a last packet in the framing of the listener, then ends the stream.
    ///
    /// The packet is sent as far as the send buffer of the kernel takes it at once. If the framing
    /// refuses it, the connection is closed as by [`close`](Self::close), and
    /// [`Stats::refused_sends`](crate::Stats::refused_sends) counts it.
    ///
    /// So that no reset destroys the packet, the connection lingers: it holds its slot until the peer
    /// has closed, at most for the [`linger_timeout`](crate::ListenerOptions::linger_timeout).
    pub fn send(packet: impl Into<Packet<'static>>) -> Self {
        Self::new(Farewell::Send(packet.into()))
    }

    /// Sets the reason for the log.
    pub const fn because(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }
}
