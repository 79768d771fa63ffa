//! What a callback may do with groups and with mailboxes that are full.

use super::Context;
use crate::group::Group;
use crate::mailbox::Recipients;
use crate::reason::JoinError;

impl<M> Context<'_, M> {
    /// A new group, without members, for connections of this listener. It is the same as
    /// [`ListenerHandle::group`](crate::ListenerHandle::group).
    pub fn group(&self) -> Group<M> {
        Group::new(&self.profile.mailboxes)
    }

    /// Makes this connection a member of `group`. Does nothing if it is one already. It leaves by
    /// itself when it ends.
    ///
    /// # Errors
    ///
    /// - [`JoinError::OtherListener`]: the group is for the connections of another listener.
    /// - [`JoinError::Full`]: the connection is in
    ///   [`max_groups`](crate::ListenerOptions::max_groups) groups.
    pub fn join(&mut self, group: &Group<M>) -> Result<(), JoinError> {
        if !group.is_of(&self.profile.mailbox) {
            return Err(JoinError::OtherListener);
        }
        let (id, key, max) = (group.id(), self.identity.key, self.profile.options.max_groups);
        if !self.conn.life().is_open() || self.state.groups.has(id, key) {
            return Ok(());
        }
        let mine = self.conn.groups();
        if mine.len() >= max {
            self.profile.counters.refused_joins.add(1);
            return Err(JoinError::Full { max });
        }
        self.state.groups.join(id, key, mine);
        Ok(())
    }

    /// Ends the membership of this connection in `group`. Returns whether there was one.
    pub fn leave(&mut self, group: &Group<M>) -> bool {
        // Without this check a key of another listener would be meant.
        if !group.is_of(&self.profile.mailbox) {
            return false;
        }
        let Some(mine) = self.conn.groups_if_any() else { return false };
        let was_member = self.state.groups.leave(group.id(), self.identity.key, mine);
        self.state.ask_for_trim(self.state.groups.spare());
        was_member
    }

    /// Asks for one [`Info::MailboxReady`](crate::Info::MailboxReady), once the mailbox of each of the
    /// `recipients` is at most half full, or gone. It is for use after a
    /// [`MessageError::Full`](crate::MessageError::Full): keep what was refused, and send it again
    /// then. If there is room already, the info comes in the next turn.
    ///
    /// `recipients` is an `&Address`, a `&Group` or a `&ListenerHandle`, of this listener or another,
    /// also of another reactor. Connections that ask for the same mailbox are told one after the other,
    /// in the order of asking: the next one once the callback of the one before has returned.
    ///
    /// ```
    /// use condor::{Action, Context, Group, Handler, Info, MessageError};
    ///
    /// /// Publishes each packet of its client. While there is no room, it is not read.
    /// struct Publisher {
    ///     topic: Group<()>,
    ///     refused: Option<Vec<u8>>,
    /// }
    ///
    /// impl Publisher {
    ///     fn publish(&mut self, packet: Vec<u8>, ctx: &mut Context<'_, ()>) {
    ///         if let Err(MessageError::Full(packet)) = self.topic.send_packet(packet) {
    ///             self.refused = Some(packet.into());
    ///             ctx.pause_reading();
    ///             ctx.notify_when_ready(&self.topic);
    ///         }
    ///     }
    /// }
    ///
    /// impl Handler for Publisher {
    ///     type Message = ();
    ///
    ///     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
    ///         self.publish(packet.to_vec(), ctx);
    ///         Action::Continue
    ///     }
    ///
    ///     fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, ctx: &mut Context<'_, ()>) -> Action<'a> {
    ///         match info {
    ///             Info::MailboxReady => {
    ///                 ctx.resume_reading();
    ///                 if let Some(packet) = self.refused.take() {
    ///                     self.publish(packet, ctx);
    ///                 }
    ///                 Action::Continue
    ///             }
    ///             other => other.default_action(),
    ///         }
    ///     }
    /// }
    /// # use condor::testing::Harness;
    /// # struct Idle;
    /// # impl Handler for Idle {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::Continue
    /// #     }
    /// # }
    /// # let options = condor::ListenerOptions::port(5555).mailbox_capacity(2);
    /// # let target = Harness::new(options, |_| Idle);
    /// # let publisher = Harness::of(Publisher { topic: target.group(), refused: None });
    /// # let wire: Vec<u8> = (0..5).flat_map(|_| publisher.framed("news")).collect();
    /// # publisher.receive(wire);
    /// # assert_eq!(publisher.stats().packets_in, 3);
    /// # for _ in 0..4 {
    /// #     target.run();
    /// #     publisher.run();
    /// # }
    /// # assert_eq!(publisher.stats().packets_in, 5);
    /// ```
    pub fn notify_when_ready(&mut self, recipients: impl Into<Recipients>)
    where
        M: Send + 'static,
    {
        let (key, generation) = (self.identity.key, self.identity.generation);
        self.profile.mailbox.wait_for(key, generation, recipients.into());
    }
}
