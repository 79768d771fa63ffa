//! What a callback returns, and the packets that it sends.

use bytes::Bytes;

use crate::reason::CloseReason;

/// Bytes to send as one packet. The framing adds the length.
///
/// `&[u8]`, `&str`, `&Vec<u8>`, `&String`, `Vec<u8>`, `String` and `Bytes` turn into one with
/// `into()`, and [`Action::send`] and [`Context::send`](super::Context::send) take each of them.
///
/// Which one to use: for an answer made for this request, [`Borrowed`](Self::Borrowed) or
/// [`Owned`](Self::Owned). For a value that lives longer than the answer, such as one of a cache, or
/// that goes to many connections, [`Shared`](Self::Shared): it costs no more than a copy, and needs no
/// memory for one while it waits. It saves a twentieth of the CPU time of an answer of 64 kB, and a
/// tenth of one of 250 kB. Of answers of 1 MB it saves a fifth if several are under way on a
/// connection, and nothing if there is one at a time: a shared value of more than 256 KiB leaves in
/// several turns, so that other connections do not wait for it, and a copied one leaves in one turn.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Packet<'a> {
    /// Borrowed bytes. They are copied into the output at once.
    Borrowed(&'a [u8]),
    /// Owned bytes. They are copied into the output at once, too.
    Owned(Vec<u8>),
    /// Shared bytes. A packet of 32 KiB or more is queued without a copy if the framing only puts a
    /// plain length prefix, or nothing, before it. Any other is copied: for a short packet the copy
    /// is cheaper.
    ///
    /// All packets of a batch, copied and shared, leave together, so a header and a trailer that are
    /// sent around a shared packet cost no system call. The bytes are dropped once the kernel has
    /// taken all of them.
    Shared(Bytes),
}

impl Packet<'_> {
    /// The payload.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for Packet<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Packet<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Packet<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a str> for Packet<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl<'a> From<&'a String> for Packet<'a> {
    fn from(text: &'a String) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl From<Vec<u8>> for Packet<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<String> for Packet<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl From<Bytes> for Packet<'_> {
    fn from(bytes: Bytes) -> Self {
        Self::Shared(bytes)
    }
}

/// What a callback returns: the reactor sends a packet, ends the connection, does both, or does
/// neither.
///
/// ```
/// use condor::{Action, CloseReason};
///
/// fn answer(packet: &[u8]) -> Action<'_> {
///     match packet {
///         b"" => Action::Continue,
///         b"ping" => Action::send("pong"),
///         b"quit" => Action::send_and_stop("bye", CloseReason::Normal),
///         _ => Action::stop(CloseReason::Custom("unknown packet")),
///     }
/// }
/// # assert!(matches!(answer(b""), Action::Continue));
/// # assert!(matches!(answer(b"quit"), Action::SendAndStop(..)));
/// ```
///
/// A packet is any of the types that turn into a [`Packet`]: bytes or text, borrowed, owned or
/// shared. It may borrow from the handler or from the received packet. Packets that the same
/// callback gave to [`Context::send`](super::Context::send) go first.
///
/// # The `?` operator
///
/// A `Result` turns into an action: `Ok` is that action, and `Err` ends the connection with the
/// reason that the error turns into. So a method of your own may use `?`, and
/// [`handle_packet`](crate::Handler::handle_packet) calls it:
///
/// ```
/// use std::time::Duration;
/// use condor::{Action, CloseReason, Context, Handler};
///
/// /// Keeps one value of at most 100 bytes.
/// struct Store {
///     value: Vec<u8>,
/// }
///
/// /// What a request may do wrong.
/// enum Wrong {
///     Verb(u8),
///     Value,
/// }
///
/// impl From<Wrong> for CloseReason {
///     fn from(wrong: Wrong) -> Self {
///         match wrong {
///             Wrong::Verb(verb) => Self::Code(verb.into()),
///             Wrong::Value => Self::Custom("the value is too long"),
///         }
///     }
/// }
///
/// impl Store {
///     fn answer<'a>(
///         &'a mut self,
///         request: &'a [u8],
///         ctx: &mut Context<'_, ()>,
///     ) -> Result<Action<'a>, CloseReason> {
///         let (verb, rest) = request.split_first().ok_or(CloseReason::Custom("no verb"))?;
///         match verb {
///             b'G' => Ok(Action::send(&self.value)),
///             b'P' => {
///                 self.value = checked(rest)?.to_vec();   // `Wrong` turns into a `CloseReason`
///                 ctx.send("stored")?;                    // and so does `SendError`,
///                 ctx.send_after(Duration::from_secs(60), ())?;   // and `TimerError`
///                 Ok(Action::Continue)
///             }
///             b'T' => {
///                 let text = std::str::from_utf8(rest);
///                 Ok(Action::send(text.map_err(|_| CloseReason::Custom("not UTF-8"))?))
///             }
///             other => Err(Wrong::Verb(*other).into()),
///         }
///     }
/// }
///
/// fn checked(value: &[u8]) -> Result<&[u8], Wrong> {
///     if value.len() <= 100 { Ok(value) } else { Err(Wrong::Value) }
/// }
///
/// impl Handler for Store {
///     type Message = ();
///
///     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
///         self.answer(packet, ctx).into()
///     }
/// }
/// # let store = || condor::testing::Harness::of(Store { value: Vec::new() });
/// # let harness = store();
/// # harness.packet("Pred");
/// # harness.packet("G");
/// # harness.packet("Tgreen");
/// # assert_eq!(harness.packets(), [&b"stored"[..], b"red", b"green"]);
/// # let ends = |packet: &[u8]| {
/// #     let harness = store();
/// #     harness.packet(packet);
/// #     harness.closed().expect("it ends")
/// # };
/// # assert_eq!(ends(b"X"), CloseReason::Code(u32::from(b'X')));
/// # assert_eq!(ends(b""), CloseReason::Custom("no verb"));
/// # assert_eq!(ends(&[b'P'; 102]), CloseReason::Custom("the value is too long"));
/// # assert_eq!(ends(b"T\xff"), CloseReason::Custom("not UTF-8"));
/// ```
///
/// The error ends the connection without a word. To tell the peer why, let the method return an error
/// of your own, and make the last action of it:
///
/// ```
/// use condor::{Action, CloseReason, Context, Handler};
///
/// struct Wrong(u32, &'static str);
///
/// fn answer(line: &[u8]) -> Result<Action<'_>, Wrong> {
///     let line = str::from_utf8(line).map_err(|_| Wrong(1, "not UTF-8"))?;
///     let name = line.strip_prefix("HELLO ").ok_or(Wrong(2, "an unknown request"))?;
///     Ok(Action::send(name))
/// }
///
/// struct Greeter;
///
/// impl Handler for Greeter {
///     type Message = ();
///
///     fn handle_packet<'a>(&'a mut self, line: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
///         answer(line).unwrap_or_else(|Wrong(number, text)| {
///             Action::send_and_stop(format!("ERR {number} {text}"), CloseReason::Code(number))
///         })
///     }
/// }
/// # let harness = condor::testing::Harness::of(Greeter);
/// # harness.packet("HELLO you");
/// # harness.packet("BYE");
/// # assert_eq!(harness.packets(), [&b"you"[..], b"ERR 2 an unknown request"]);
/// # assert_eq!(harness.closed(), Some(CloseReason::Code(2)));
/// ```
///
/// With `?`, a [`SendError::Full`](crate::SendError::Full) ends the connection with
/// [`CloseReason::SlowReader`]. A handler that would rather wait for
/// [`Info::Writable`](crate::Info::Writable) has to `match` it.
///
/// # Errors
///
/// If the packet of an action cannot be sent, the connection ends, and the reason says why:
///
/// - [`CloseReason::AnswerTooLarge`]: the packet can never be sent.
/// - [`CloseReason::SlowReader`]: the output queue is full.
/// - [`CloseReason::BadFrame`]: the framing refused the packet.
/// - [`CloseReason::Normal`]: [`end_output`](super::Context::end_output) came before.
#[derive(Debug)]
#[must_use = "an action does nothing until it is returned from the callback"]
pub enum Action<'a> {
    /// Send nothing, and go on.
    Continue,
    /// Send this packet, and go on.
    Send(Packet<'a>),
    /// End the connection after all queued output was sent.
    Stop(CloseReason),
    /// Send this packet, then end the connection.
    SendAndStop(Packet<'a>, CloseReason),
}

impl<E: Into<CloseReason>> From<Result<(), E>> for Action<'_> {
    /// `Ok` continues. `Err` ends the connection after all queued output was sent, with the reason
    /// that the error turns into: `ctx.send(packet).into()`.
    fn from(result: Result<(), E>) -> Self {
        result.map_or_else(|error| Self::Stop(error.into()), |()| Self::Continue)
    }
}

impl<'a, E: Into<CloseReason>> From<Result<Self, E>> for Action<'a> {
    /// `Ok` is the action itself. `Err` ends the connection after all queued output was sent, with
    /// the reason that the error turns into.
    fn from(result: Result<Self, E>) -> Self {
        result.unwrap_or_else(|error| Self::Stop(error.into()))
    }
}

impl<'a> Action<'a> {
    /// Sends `packet`.
    #[inline]
    pub fn send(packet: impl Into<Packet<'a>>) -> Self {
        Self::Send(packet.into())
    }

    /// The packet, if the action only sends borrowed bytes.
    ///
    /// The tight loop calls this first, because the result is two words that need no drop.
    #[inline(always)]
    pub(crate) fn into_borrowed(self) -> Result<&'a [u8], Self> {
        match self {
            Self::Send(Packet::Borrowed(bytes)) => Ok(bytes),
            other => Err(other),
        }
    }

    /// Ends the connection after all queued output was sent.
    pub fn stop(reason: CloseReason) -> Self {
        Self::Stop(reason)
    }

    /// Sends `packet`, then ends the connection.
    pub fn send_and_stop(packet: impl Into<Packet<'a>>, reason: CloseReason) -> Self {
        Self::SendAndStop(packet.into(), reason)
    }
}
