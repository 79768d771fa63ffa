//! What a callback may do with a partner: a second connection that belongs to this one.

use super::Context;
use crate::address::Address;
use crate::connection::Flags;
use crate::error::PairError;
use crate::pairs::What;
use crate::token;

impl<M> Context<'_, M> {
    /// Makes this connection and that of `other` partners.
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

    /// Sends `packet` on the partner's connection.
    pub fn forward(&mut self, packet: impl AsRef<[u8]>) -> Result<(), PairError> {
        if !self.conn.has(Flags::PAIRED) {
            return Err(PairError::NotPaired);
        }
        // Without an entry the partner has ended, and this handler is about to be told.
        if let Some(partner) = self.state.pairs.partner(self.token()) {
            self.state.forward(partner, packet.as_ref());
        }
        Ok(())
    }

    fn token(&self) -> mio::Token {
        token::peer(self.profile.slot, self.identity.key, self.identity.generation)
    }
}
