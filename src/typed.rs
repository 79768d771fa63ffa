//! Handlers of values in place of packets: a codec between the packets and a typed handler.

use crate::handler::{Action, Context, Handler, Info, PacketWriter};
use crate::reason::CloseReason;

/// Turns packets into requests, and answers into packets.
///
/// A request may borrow from its packet, so a decoder needs to copy nothing. An answer is encoded
/// straight into the output.
pub trait Codec: 'static {
    /// A decoded packet.
    type Request<'a>;
    /// What the handler sends.
    type Answer<'a>;

    /// Decodes one packet.
    ///
    /// # Errors
    ///
    /// The connection ends with the reason.
    fn decode<'a>(&self, packet: &'a [u8]) -> Result<Self::Request<'a>, CloseReason>;

    /// Encodes one answer as one packet.
    ///
    /// # Errors
    ///
    /// Nothing of the packet is sent, and the connection ends with the reason.
    fn encode(
        &self,
        answer: &Self::Answer<'_>,
        out: &mut PacketWriter<'_>,
    ) -> Result<(), CloseReason>;
}

/// A [`Handler`] of the requests and answers of a [`Codec`]. [`Typed`] makes a `Handler` of it.
///
/// The callbacks mean the same as those of `Handler`. To send more answers than a callback returns,
/// call `ctx.send_with(|out| codec.encode(&answer, out))`.
pub trait TypedHandler<C: Codec>: Sized + 'static {
    /// See [`Handler::Message`].
    type Message: Send + 'static;

    /// See [`Handler::init`].
    fn init(&mut self, ctx: &mut Context<'_, Self::Message>) -> TypedAction<C::Answer<'_>> {
        let _ = ctx;
        TypedAction::Continue
    }

    /// Called for each request. The answer may borrow from the handler and from the request.
    fn handle<'a>(
        &'a mut self,
        request: C::Request<'a>,
        ctx: &mut Context<'_, Self::Message>,
    ) -> TypedAction<C::Answer<'a>>;

    /// See [`Handler::handle_info`]. The default, and the last arm of a `match`, is
    /// `TypedAction::default_action(&info)`.
    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Self::Message>,
        ctx: &mut Context<'_, Self::Message>,
    ) -> TypedAction<C::Answer<'a>> {
        let _ = ctx;
        TypedAction::default_action(&info)
    }

    /// See [`Handler::terminate`].
    fn terminate(self, reason: CloseReason) {
        let _ = reason;
    }
}

/// What a callback of a [`TypedHandler`] returns: an [`Action`] whose packet is a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an action does nothing until it is returned from the callback"]
pub enum TypedAction<A> {
    /// Send nothing, and go on.
    Continue,
    /// Send this answer, and go on. If it cannot be encoded or sent, the connection ends.
    Send(A),
    /// End the connection after all queued output was sent.
    Stop(CloseReason),
    /// Send this answer, then end the connection.
    SendAndStop(A, CloseReason),
}

impl<A> TypedAction<A> {
    /// The usual answer to an event, as [`Info::default_action`] has it.
    pub fn default_action<M>(info: &Info<'_, M>) -> Self {
        match info.default_action() {
            Action::Stop(reason) | Action::SendAndStop(_, reason) => Self::Stop(reason),
            Action::Continue | Action::Send(_) => Self::Continue,
        }
    }
}

impl<A, E: Into<CloseReason>> From<Result<Self, E>> for TypedAction<A> {
    /// As with an [`Action`], so that a method of your own may use `?`.
    fn from(result: Result<Self, E>) -> Self {
        result.unwrap_or_else(|error| Self::Stop(error.into()))
    }
}

/// A [`Handler`] made of a [`Codec`] and a [`TypedHandler`].
///
/// # Examples
///
/// Requests are numbers of four bytes, answers are sums of eight:
///
/// ```
/// use condor::{Codec, CloseReason, Context, PacketWriter, Typed, TypedAction, TypedHandler};
///
/// struct Numbers;
///
/// impl Codec for Numbers {
///     type Request<'a> = u32;
///     type Answer<'a> = u64;
///
///     fn decode(&self, packet: &[u8]) -> Result<u32, CloseReason> {
///         let bytes = packet.try_into().map_err(|_| CloseReason::Custom("not a number"))?;
///         Ok(u32::from_be_bytes(bytes))
///     }
///
///     fn encode(&self, sum: &u64, out: &mut PacketWriter<'_>) -> Result<(), CloseReason> {
///         out.put_u64(*sum);
///         Ok(())
///     }
/// }
///
/// struct Adder {
///     sum: u64,
/// }
///
/// impl TypedHandler<Numbers> for Adder {
///     type Message = ();
///
///     fn handle(&mut self, number: u32, _ctx: &mut Context<'_, ()>) -> TypedAction<u64> {
///         self.sum += u64::from(number);
///         TypedAction::Send(self.sum)
///     }
/// }
///
/// # fn main() -> Result<(), condor::Error> {
/// # use condor::{ListenerOptions, Reactor};
/// let mut reactor = Reactor::new()?;
/// let options = ListenerOptions::port(0);
/// reactor.start_listener("adder", options, |_peer| Typed::new(Numbers, Adder { sum: 0 }))?;
/// # let harness = condor::testing::Harness::of(Typed::new(Numbers, Adder { sum: 0 }));
/// # harness.packet([0, 0, 0, 2]);
/// # harness.packet([0, 0, 1, 0]);
/// # assert_eq!(harness.packets(), [2_u64.to_be_bytes(), 258_u64.to_be_bytes()]);
/// # harness.packet([1]);
/// # assert_eq!(harness.closed(), Some(CloseReason::Custom("not a number")));
/// # Ok(())
/// # }
/// ```
///
/// The example `typed` decodes and encodes with serde, without copies.
#[derive(Debug, Clone, Default)]
pub struct Typed<C, H> {
    codec: C,
    handler: H,
}

impl<C: Codec, H: TypedHandler<C>> Typed<C, H> {
    /// A handler of packets.
    pub const fn new(codec: C, handler: H) -> Self {
        Self { codec, handler }
    }

    /// The typed handler.
    pub const fn handler(&self) -> &H {
        &self.handler
    }
}

impl<C: Codec, H: TypedHandler<C>> Handler for Typed<C, H> {
    type Message = H::Message;

    fn init(&mut self, ctx: &mut Context<'_, H::Message>) -> Action<'_> {
        let action = self.handler.init(ctx);
        apply(&self.codec, action, ctx)
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, H::Message>,
    ) -> Action<'a> {
        match self.codec.decode(packet) {
            Ok(request) => apply(&self.codec, self.handler.handle(request, ctx), ctx),
            Err(reason) => Action::Stop(reason),
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, H::Message>,
        ctx: &mut Context<'_, H::Message>,
    ) -> Action<'a> {
        let action = self.handler.handle_info(info, ctx);
        apply(&self.codec, action, ctx)
    }

    fn terminate(self, reason: CloseReason) {
        self.handler.terminate(reason);
    }
}

/// Sends the answer of an action. Returns what is left to do.
fn apply<C: Codec, M>(
    codec: &C,
    action: TypedAction<C::Answer<'_>>,
    ctx: &mut Context<'_, M>,
) -> Action<'static> {
    let (answer, then) = match action {
        TypedAction::Continue => return Action::Continue,
        TypedAction::Stop(reason) => return Action::Stop(reason),
        TypedAction::Send(answer) => (answer, Action::Continue),
        TypedAction::SendAndStop(answer, reason) => (answer, Action::Stop(reason)),
    };
    ctx.send_with(|out| codec.encode(&answer, out)).map(|()| then).into()
}
