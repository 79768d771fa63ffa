//! Publish and subscribe: a channel is a group of connections.

use bytes::Bytes;
use condor::{Action, Context, Group, MessageError};

use crate::client::{Answer, Client, Server, Wrong};
use crate::protocol::Request;
use crate::store::framed;

/// It exists while it has subscribers.
pub(crate) struct Channel {
    group: Group<()>,
    subscribers: usize,
}

impl Server {
    /// One subscriber less.
    pub(crate) fn forget(&mut self, channel: &Bytes) -> Option<Group<()>> {
        let known = self.channels.get_mut(channel)?;
        known.subscribers -= 1;
        let group = known.group.clone();
        if known.subscribers == 0 {
            self.channels.remove(channel);
        }
        Some(group)
    }
}

impl Client {
    pub(crate) fn subscribe(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        for argument in request.from(1) {
            let mut server = self.server.borrow_mut();
            if !self.channels.contains(argument.text) {
                let known = server.channels.get(argument.text).map(|known| known.group.clone());
                let group = known.unwrap_or_else(|| ctx.group());
                // A connection is in `max_groups` groups at most.
                ctx.join(&group).map_err(|error| format!("ERR {error}"))?;
                let name = Bytes::copy_from_slice(argument.text);
                let channel = server.channels.entry(name.clone());
                channel.or_insert(Channel { group, subscribers: 0 }).subscribers += 1;
                self.channels.insert(name);
            }
            self.tell(b"*3\r\n$9\r\nsubscribe\r\n", &argument.framed(), ctx)?;
        }
        Ok(Action::Continue)
    }

    pub(crate) fn unsubscribe(
        &mut self,
        request: &Request<'_>,
        ctx: &mut Context<'_, ()>,
    ) -> Answer {
        const HEAD: &[u8] = b"*3\r\n$11\r\nunsubscribe\r\n";
        let names: Vec<Bytes> = if request.len() == 1 {
            self.channels.iter().cloned().collect()
        } else {
            request.from(1).map(|name| Bytes::copy_from_slice(name.text)).collect()
        };
        if names.is_empty() {
            self.tell(HEAD, b"$-1\r\n", ctx)?;
        }
        for name in names {
            if self.channels.remove(&name)
                && let Some(group) = self.server.borrow_mut().forget(&name)
            {
                ctx.leave(&group);
            }
            self.tell(HEAD, &framed(&name), ctx)?;
        }
        Ok(Action::Continue)
    }

    /// Tells a subscriber how many channels it has now.
    pub(crate) fn tell(
        &self,
        head: &[u8],
        channel: &[u8],
        ctx: &mut Context<'_, ()>,
    ) -> Result<(), Wrong> {
        Ok(ctx.send_with(|out| {
            out.put(head);
            out.put(channel);
            write!(out, ":{}\r\n", self.channels.len());
        })?)
    }

    pub(crate) fn publish(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        let (channel, text) = (request.nth(1), request.nth(2));
        let message = [b"*3\r\n$7\r\nmessage\r\n", &*channel.framed(), &text.framed()].concat();
        Ok(self.send_to(Bytes::copy_from_slice(channel.text), message.into(), ctx))
    }

    /// Sends a message to all subscribers of a channel, and tells the publisher how many there are.
    pub(crate) fn send_to(
        &mut self,
        channel: Bytes,
        message: Bytes,
        ctx: &mut Context<'_, ()>,
    ) -> Action<'static> {
        let server = self.server.borrow();
        let Some(Channel { group, subscribers }) = server.channels.get(&channel) else {
            return Action::send(":0\r\n");
        };
        if let Err(MessageError::Full(message)) = group.send_packet(message) {
            // The publisher waits until the messages before this one have been delivered.
            self.refused = Some((channel, message));
            ctx.pause_reading();
            ctx.notify_when_ready(group);
            return Action::Continue;
        }
        Action::send(format!(":{subscribers}\r\n"))
    }
}
