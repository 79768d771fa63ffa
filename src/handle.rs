//! The reactor's handles: what other threads, and callbacks, may ask of it.
//!
//! Whatever can fail fails at once, on the caller's thread; starting a listener is in
//! [`start`](crate::start). What is left to do goes to the reactor as a command.

use std::fmt;

use crate::directory::{Command, Inbox, Shared, sum};
use crate::drain::Drain;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::identity::ConnectionId;
use crate::loop_metrics::LoopStats;
use crate::mailbox::{Mail, Mailbox};
use crate::reason::MessageError;
use crate::stats::{Counters, Stats};
use crate::sync::Arc;

/// Asks things of a reactor, from any thread and from callbacks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Stops a listener and drains it: everybody who had connected is served, everything that had
    /// arrived is answered, then every connection is told [`Info::Shutdown`](crate::Info::Shutdown)
    /// and gets until the [`drain_timeout`](crate::ListenerOptions::drain_timeout).
    ///
    /// Whoever is still in the backlog because `max_connections` is reached, or for want of
    /// descriptors, is not served. A connection whose handler has paused reading is told once it
    /// resumes.
    ///
    /// Returns at once. A handshake that finishes while the listening socket closes is reset by
    /// the kernel; who cannot have that keeps the socket open elsewhere and hands it over with
    /// [`ListenerOptions::from_std`](crate::ListenerOptions::from_std). The name is free once the
    /// listener is drained.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], also for a listener that is being stopped already; [`Error::Gone`].
    pub fn stop_listener(&self, name: &str) -> Result<Drain, Error> {
        let Some((serial, acceptor)) = self.shared.begin_stop(name) else {
            return Err(Error::UnknownName(name.to_owned()));
        };
        let (drain, parts) = Drain::new(Arc::clone(&self.shared.threads));
        let mut accepting = None;
        for ((shard, part), serial) in parts.into_iter().enumerate().zip(serial..) {
            if shard == acceptor {
                accepting = Some((serial, part));
            } else {
                // If it is gone, the part tells.
                let _ = self.shared.inboxes[shard].command(Command::ExpectDrain { serial, part });
            }
        }
        // The part that accepts comes last: the others drain when nobody comes any more, and
        // nobody's report is to be missed.
        if let Some((serial, part)) = accepting {
            let inbox = &self.shared.inboxes[acceptor];
            inbox.command(Command::ExpectDrain { serial, part })?;
            inbox.command(Command::Drain { serial })?;
        }
        Ok(drain)
    }

    /// Drains every listener, then has [`Reactor::run`](crate::Reactor::run) return.
    ///
    /// [`is_ready`](Self::is_ready) says no from now on; the listening sockets close after
    /// [`ReactorOptions::shutdown_delay`](crate::ReactorOptions::shutdown_delay).
    ///
    /// Asked a second time, it does not wait any longer: every connection is ended at once.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn shutdown(&self) -> Result<Drain, Error> {
        self.shared.set_unready();
        let (drain, parts) = Drain::new(Arc::clone(&self.shared.threads));
        let mut reached = Err(Error::Gone);
        for (inbox, part) in self.shared.inboxes.iter().zip(parts) {
            let part = part.or(&inbox.final_report);
            reached = reached.or(inbox.command(Command::AnnounceShutdown(part)));
        }
        reached?;
        // Only when all of them know may one begin: what the others are told by it comes later.
        for inbox in &self.shared.inboxes {
            // One that had no listener has ended already.
            let _ = inbox.command(Command::BeginShutdown);
        }
        Ok(drain)
    }

    /// Whether new clients are welcome: until [`shutdown`](Self::shutdown) is asked for. For the
    /// health check of a load balancer.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Ends one connection with [`CloseReason::Shutdown`](crate::CloseReason::Shutdown), after what
    /// is queued was sent. Nothing happens if it has ended already.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn close(&self, id: ConnectionId) -> Result<(), Error> {
        if self.shared.inboxes.iter().all(Inbox::is_gone) {
            return Err(Error::Gone);
        }
        match self.shared.shard_of(id.serial) {
            Some(shard) => self.shared.inboxes[shard].command(Command::Close(id)),
            None => Ok(()),
        }
    }

    /// The counters of all listeners in sum, those included that have ended.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Every listener with its endpoint and its counters, in the order of their names.
    pub fn listeners(&self) -> Vec<(String, Endpoint, Stats)> {
        self.shared.listeners()
    }

    /// What the reactors' turns were like, a snapshot for each shard. Nothing is reset by it.
    pub fn loop_stats(&self) -> Vec<LoopStats> {
        self.shared.inboxes.iter().map(|inbox| inbox.metrics.snapshot()).collect()
    }
}

/// A listener that runs: its address, its counters, and a voice to all of its connections.
pub struct ListenerHandle<M> {
    pub(crate) name: Arc<str>,
    pub(crate) addr: Endpoint,
    pub(crate) mailboxes: Arc<[Arc<Mailbox<M>>]>,
    pub(crate) counters: Vec<Arc<Counters>>,
    pub(crate) reactor: Handle,
}

impl<M> ListenerHandle<M> {
    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, with the real port if 0 was asked for.
    pub fn local_addr(&self) -> Endpoint {
        self.addr.clone()
    }

    /// Sends a clone of `message` to every connection there is when the message is delivered.
    ///
    /// It is one entry of the mailbox of each shard, whatever the number of connections; the clones
    /// for them are made on the reactor's thread, within the message budget of each turn, and those
    /// for the other shards on the caller's. Each connection hears broadcasts in the order in which
    /// they were made; those that wait together reach one connection after the other, so that one may
    /// have heard all of them before the next hears the first.
    ///
    /// # Errors
    ///
    /// As [`Address::send`](crate::Address::send). With several shards, `Full` means that at least
    /// one of them was, and that others may have got the message even so.
    pub fn broadcast(&self, message: M) -> Result<(), MessageError<M>>
    where
        M: Clone,
    {
        let clone = M::clone;
        let Some((last, others)) = self.mailboxes.split_last() else { return Ok(()) };
        let (mut reached, mut full) = (false, None);
        for mailbox in others {
            match mailbox.post(Mail::All { message: message.clone(), clone }) {
                Ok(()) => reached = true,
                Err(MessageError::Full(back)) => full = Some(back),
                // That part is drained; others may not be.
                Err(MessageError::Gone(_)) => {}
            }
        }
        match (last.post(Mail::All { message, clone }), full) {
            (Ok(()) | Err(MessageError::Gone(_)), Some(back)) => Err(MessageError::Full(back)),
            (Err(MessageError::Gone(_)), None) if reached => Ok(()),
            (told, _) => told,
        }
    }

    /// Stops this listener. See [`Handle::stop_listener`].
    ///
    /// # Errors
    ///
    /// As [`Handle::stop_listener`].
    pub fn stop(&self) -> Result<Drain, Error> {
        self.reactor.stop_listener(&self.name)
    }

    /// This listener's counters, also after it has ended.
    pub fn stats(&self) -> Stats {
        sum(&self.counters)
    }

    /// The same, shard by shard.
    pub fn shard_stats(&self) -> Vec<Stats> {
        self.counters.iter().map(|counters| counters.snapshot()).collect()
    }
}

impl<M> Clone for ListenerHandle<M> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            addr: self.addr.clone(),
            mailboxes: Arc::clone(&self.mailboxes),
            counters: self.counters.clone(),
            reactor: self.reactor.clone(),
        }
    }
}

impl<M> fmt::Debug for ListenerHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerHandle")
            .field("name", &self.name)
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::mailbox::Notifier;
    use crate::options::ListenerOptions;

    /// What a broadcast finds on a shard.
    #[derive(Debug, Copy, Clone, PartialEq, Eq)]
    enum Found {
        Room,
        Full,
        Gone,
    }

    /// Goal: a broadcast is `Full` if any shard was, `Gone` if all were, and reaches each that has room,
    /// once; the message comes back. Method: all 27 states of three shards.
    #[test]
    fn a_broadcast_tells_of_any_shard_that_was_full() {
        let states = [Found::Room, Found::Full, Found::Gone];
        for found in
            states.iter().flat_map(|a| states.iter().flat_map(|b| states.map(|c| [*a, *b, c])))
        {
            let ends = (0..3).map(|_| Inbox::new(Notifier::new(|| {}))).collect();
            let handle = Handle { shared: Arc::new(Shared::new(ends)) };
            let options = ListenerOptions::port(0).mailbox_capacity(2);
            let prepared = handle.prepare_tcp::<u32>("test", options).unwrap();
            let mailboxes = Arc::clone(&prepared.handle.mailboxes);
            for (mailbox, found) in mailboxes.iter().zip(found) {
                match found {
                    Found::Room => {}
                    Found::Full => {
                        let letter = |message| Mail::To { key: 0, generation: 0, message };
                        assert!([1, 2].map(letter).into_iter().all(|l| mailbox.post(l).is_ok()));
                    }
                    Found::Gone => drop(mailbox.close()),
                }
            }
            let told = prepared.handle.broadcast(7);
            if found.contains(&Found::Full) {
                assert!(matches!(told, Err(MessageError::Full(7))), "{told:?} of {found:?}");
            } else if found.contains(&Found::Room) {
                assert!(told.is_ok(), "{told:?} of {found:?}");
            } else {
                assert!(matches!(told, Err(MessageError::Gone(7))), "{told:?} of {found:?}");
            }
            for (mailbox, found) in mailboxes.iter().zip(found) {
                let mut mail = VecDeque::new();
                mailbox.take(&mut mail);
                let expected = match found {
                    Found::Room => 1,
                    Found::Full => 2,
                    Found::Gone => 0,
                };
                assert_eq!(mail.len(), expected, "{found:?}");
            }
        }
    }
}
