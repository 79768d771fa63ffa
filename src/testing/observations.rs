//! What a test can see of a connection, its handler and its listener.

use std::cell::Ref;

use super::harness::Harness;
use super::rig::Leftovers;
use crate::handler::Handler;
use crate::identity::ConnectionId;
use crate::reason::CloseReason;
use crate::stats::Stats;

impl<H: Handler> Harness<H> {
    /// Whether the connection was accepted, and its factory was called. It stays true after the
    /// connection has ended. It is false while a [PROXY header](crate::ListenerOptions::proxy) is
    /// missing.
    pub fn is_accepted(&self) -> bool {
        self.script.borrow().id.is_some()
    }

    /// The connection's identity, once it was accepted.
    pub fn id(&self) -> Option<ConnectionId> {
        self.script.borrow().id
    }

    /// The reason that `terminate` got, once it was called. A connection that the factory has
    /// [refused](crate::Refusal) has none.
    pub fn closed(&self) -> Option<CloseReason> {
        self.script.borrow().reason
    }

    /// Whether the connection has shut down its sending side or dropped the stream. The peer gets
    /// the end of the stream then.
    pub fn is_finished(&self) -> bool {
        self.script.borrow().finished
    }

    /// Whether the stream was dropped and the slot is free. If the handler ended the connection, it
    /// lingers first, until the peer [closes](Self::peer_closes), too, or the
    /// [`linger_timeout`](crate::ListenerOptions::linger_timeout) has passed.
    pub fn is_gone(&self) -> bool {
        self.script.borrow().gone
    }

    /// Whether the stream was dropped with unread bytes, or reset by
    /// [`Refusal::reset`](crate::Refusal::reset). A kernel then resets the connection, and answers
    /// that the peer has not read may be lost.
    pub fn closed_with_unread_input(&self) -> bool {
        self.script.borrow().rude
    }

    /// Calls `look` with the handler. `None` before the connection is accepted, and once
    /// `terminate` was called.
    ///
    /// ```
    /// # use condor::testing::Harness;
    /// # use condor::{Action, Context, Handler};
    /// # struct Counter { packets: u32 }
    /// # impl Handler for Counter {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         self.packets += 1;
    /// #         Action::Continue
    /// #     }
    /// # }
    /// let harness = Harness::of(Counter { packets: 0 });
    /// harness.packet(b"one");
    /// harness.packet(b"two");
    /// assert_eq!(harness.with_handler(|counter| counter.packets), Some(2));
    /// ```
    pub fn with_handler<R>(&self, look: impl FnOnce(&H) -> R) -> Option<R> {
        let id = self.id()?;
        let rig = self.rig.borrow();
        Ref::filter_map(rig, |rig| rig.handler(id)).ok().map(|handler| look(&handler))
    }

    /// Bytes in the output queue that the peer has not taken.
    pub fn queued_bytes(&self) -> usize {
        self.id().map_or(0, |id| self.rig.borrow().queued(id))
    }

    /// How many writes have taken at least one byte. The reactor writes all output of one turn for
    /// one peer in one write.
    pub fn writes(&self) -> u64 {
        self.script.borrow().writes
    }

    /// The listener's counters.
    pub fn stats(&self) -> Stats {
        self.rig.borrow().handle.stats()
    }

    /// What the listener still holds. Once every connection is gone, it is `Leftovers::default()`:
    /// nothing.
    pub fn leftovers(&self) -> Leftovers {
        self.rig.borrow().leftovers()
    }
}
