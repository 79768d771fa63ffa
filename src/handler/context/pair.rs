//! What a callback may do with a partner: a second connection that belongs to this one.

use super::Context;
use crate::address::Address;
use crate::connection::Flags;
use crate::error::PairError;
use crate::pairs::What;
use crate::token;

impl<M> Context<'_, M> {
    /// Makes this connection and the one at `other` partners, as the two connections of a proxy are. They
    /// may have handlers of different types, and come from different listeners and connectors, but of one
    /// reactor. `other` may be an address that [`dial`](Self::dial) has just returned.
    ///
    /// From then on, in both directions:
    ///
    /// - Each handler may [`forward`](Self::forward) packets to the other connection.
    /// - While the output of one is over its
    ///   [high-water mark](crate::ListenerOptions::write_high_water), the other one is not read: what its
    ///   peer sends waits in the kernel. It goes on once the output is down at the low-water mark. The
    ///   mark does not stop the connection that it belongs to, as it does without a partner.
    /// - When the input of one has ended, the output of the other ends after all that was forwarded, and
    ///   the connection goes on in the other direction. The handler does not get
    ///   [`Info::EndOfInput`](crate::Info::EndOfInput). When both inputs have ended and all output is
    ///   sent, both connections end, with [`CloseReason::PeerClosed`](crate::CloseReason::PeerClosed).
    /// - When one ends, the other one sends what was forwarded to it, and ends, with
    ///   [`CloseReason::PartnerEnded`](crate::CloseReason::PartnerEnded): it gets
    ///   [`Info::PartnerEnded`](crate::Info::PartnerEnded), whose default is that.
    ///
    /// This connection is not read until the other one is up and knows of its partner. A connection that
    /// is being dialled knows it right after its [`init`](crate::Handler::init).
    ///
    /// A pair cannot be undone. In a drain each of the two gets [`Info::Shutdown`](crate::Info::Shutdown),
    /// and the one that ends first takes the other one with it. A pair takes up to 64 bytes of memory
    /// beyond those of two connections: the table of partners has 12 bytes for each slot.
    ///
    /// # Errors
    ///
    /// After an error nothing has changed.
    ///
    /// - [`PairError::Itself`]: the address is this connection's own.
    /// - [`PairError::Paired`]: one of the two has a partner, or had one and was not told of its end yet.
    /// - [`PairError::Elsewhere`]: the address is of another reactor, or of another shard.
    /// - [`PairError::Gone`]: this connection is ending, or the other one's listener has ended. If the
    ///   other connection has ended, the call succeeds, and `Info::PartnerEnded` follows.
    ///
    /// # Examples
    ///
    /// A proxy for any protocol over TCP: each connection that comes in gets one to the server.
    ///
    /// ```
    /// use condor::{
    ///     Action, CloseReason, ConnectorHandle, ConnectorOptions, Context, Handler, ListenerOptions, Raw,
    ///     Reactor,
    /// };
    ///
    /// /// One end of a pair. The accepted end dials the other one.
    /// struct End {
    ///     server: Option<ConnectorHandle<()>>,
    /// }
    ///
    /// impl End {
    ///     fn connect(&mut self, ctx: &mut Context<'_, ()>) -> Result<Action<'static>, CloseReason> {
    ///         if let Some(server) = &self.server {
    ///             let upstream = ctx
    ///                 .dial(server, "127.0.0.1:7000")
    ///                 .map_err(|_| CloseReason::Custom("too many connections"))?;
    ///             ctx.pair(&upstream)?;
    ///         }
    ///         Ok(Action::Continue)
    ///     }
    /// }
    ///
    /// impl Handler for End {
    ///     type Message = ();
    ///
    ///     fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
    ///         self.connect(ctx).into()
    ///     }
    ///
    ///     fn handle_packet<'a>(&'a mut self, bytes: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
    ///         ctx.forward(bytes).map(|()| Action::Continue).into()
    ///     }
    /// }
    ///
    /// let mut reactor = Reactor::new()?;
    /// let server = ConnectorOptions::on_demand().framing(Raw);
    /// let server = reactor.start_connector("server", server, |_peer| End { server: None })?;
    /// let clients = ListenerOptions::port(0).framing(Raw);
    /// reactor.start_listener("clients", clients, move |_peer| End { server: Some(server.clone()) })?;
    /// # reactor.handle().shutdown()?;
    /// reactor.run()?;
    /// # Ok::<(), condor::Error>(())
    /// ```
    pub fn pair<T>(&mut self, other: &Address<T>) -> Result<(), PairError> {
        if other.id() == self.id() {
            return Err(PairError::Itself);
        }
        let Some(slot) = self.state.pairs.slot_of(other.mailbox.serial()) else {
            let gone = other.mailbox.is_closed();
            return Err(if gone { PairError::Gone } else { PairError::Elsewhere });
        };
        if !self.conn.life().is_open() {
            return Err(PairError::Gone);
        }
        if self.conn.has(Flags::PAIRED) {
            // Its partner may have ended, and this handler was not told yet.
            return Err(PairError::Paired);
        }
        let me = self.token();
        let with = token::peer(slot, other.key, other.generation);
        self.state.pairs.join(me, with)?;
        if self.conn.begin_pair() {
            self.state.pairs.push(with, What::Full);
        }
        if self.conn.life().is_half_closed() {
            self.state.pairs.push(with, What::EndOfInput);
        }
        // Until the other one has been told, and is up.
        self.conn.insert(Flags::PARTNER_FULL);
        Ok(())
    }

    /// Sends `packet` on the connection of the [partner](Self::pair), in the partner's framing. No handler
    /// is called for it, and nothing is allocated: the packet is copied once, and leaves in this turn,
    /// with one write for all that the turn forwards.
    ///
    /// Packets keep their order. While the partner is being dialled, they are kept for it, up to its
    /// [`max_queued`](crate::ConnectorOptions::max_queued), where each packet counts about 40 bytes more
    /// than it has. Beyond that the pair ends.
    ///
    /// If the partner cannot send the packet, because it is too large for its framing or its queue is
    /// full, the partner ends, as it does for an answer that cannot be sent. The queue does not fill as
    /// long as `max_queued` exceeds the high-water mark by what one turn forwards: one packet and 64 KiB,
    /// with the headers that the partner's framing adds. A turn reads no more of a connection with a
    /// partner. If the partner has ended its output, the packet is dropped.
    ///
    /// # Errors
    ///
    /// [`PairError::NotPaired`]: this connection has no partner.
    pub fn forward(&mut self, packet: impl AsRef<[u8]>) -> Result<(), PairError> {
        match self.state.pairs.partner(self.token()) {
            Some(partner) => self.state.forward(partner, packet.as_ref()),
            // The partner has ended, and this handler is about to be told.
            None if self.conn.has(Flags::PAIRED) => {}
            None => return Err(PairError::NotPaired),
        }
        Ok(())
    }

    fn token(&self) -> mio::Token {
        token::peer(self.profile.slot, self.identity.key, self.identity.generation)
    }
}
