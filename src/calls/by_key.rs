//! Calls that are answered by a key.

use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::time::Duration;

use super::{CallError, Calls};
use crate::handler::Context;

impl<K: Clone + Eq + Hash, T> Calls<K, T> {
    /// For a peer that repeats the key of a request in its answer. At most `max` calls are
    /// outstanding. Allocates nothing.
    ///
    /// With a `max` of zero every [`open`](Self::open) fails.
    ///
    /// # Examples
    ///
    /// Each request and each answer begin with one byte that is the key:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use condor::{Calls, CloseReason, Context};
    ///
    /// const TIMEOUT: Duration = Duration::from_secs(1);
    ///
    /// struct Link {
    ///     calls: Calls<u8, &'static str>,
    ///     last_key: u8,
    /// }
    ///
    /// impl Link {
    ///     fn ask(&mut self, what: &'static str, ctx: &mut Context<'_, ()>) -> Result<(), CloseReason> {
    ///         self.last_key = self.last_key.wrapping_add(1);
    ///         self.calls.open(self.last_key, what, TIMEOUT, ctx)?;
    ///         Ok(ctx.send_parts(&[&[self.last_key], what.as_bytes()])?)
    ///     }
    ///
    ///     fn answer(&mut self, packet: &[u8], ctx: &mut Context<'_, ()>) -> Option<&'static str> {
    ///         self.calls.answered(packet.first()?, ctx)
    ///     }
    /// }
    /// # use condor::{Action, Handler};
    /// # impl Handler for Link {
    /// #     type Message = ();
    /// #     fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
    /// #         self.ask("one", ctx).and_then(|()| self.ask("two", ctx)).into()
    /// #     }
    /// #     fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
    /// #         self.answer(packet, ctx).map_or(Action::send("?"), Action::send)
    /// #     }
    /// # }
    /// # let link = condor::testing::Harness::of(Link { calls: Calls::by_key(8), last_key: 0 });
    /// # assert_eq!(link.packets(), [b"\x01one", b"\x02two"]);
    /// # for answer in [2, 1, 1] {
    /// #     link.packet([answer]);
    /// # }
    /// # assert_eq!(link.packets(), [&b"two"[..], b"one", b"?"]);
    /// ```
    #[must_use]
    pub fn by_key(max: usize) -> Self {
        Self::new(max)
    }

    /// A request with `key` goes to the peer. Keeps `value` until it is answered, or until `timeout`
    /// from now. With `Duration::MAX` it never expires.
    ///
    /// # Errors
    ///
    /// - [`CallError::Full`] if the maximum of calls is outstanding.
    /// - [`CallError::KeyInUse`] if a call with the same key is outstanding.
    pub fn open<M>(
        &mut self,
        key: K,
        value: T,
        timeout: Duration,
        ctx: &mut Context<'_, M>,
    ) -> Result<(), CallError<T>> {
        if self.is_full() {
            return Err(CallError::Full { value, max: self.max });
        }
        match self.keys.entry(key.clone()) {
            Entry::Occupied(_) => return Err(CallError::KeyInUse { value }),
            Entry::Vacant(entry) => entry.insert(self.waiting.vacant_key()),
        };
        self.insert(key, value, timeout, ctx);
        Ok(())
    }

    /// The answer with `key` has come. Returns the value of its call.
    ///
    /// `None` means that the answer is to be dropped: no call with this key is outstanding. It has
    /// expired, was answered before, or was never made.
    pub fn answered<M>(&mut self, key: &K, ctx: &mut Context<'_, M>) -> Option<T> {
        let slot = self.keys.remove(key)?;
        Some(self.remove(slot, ctx).value)
    }

    /// Returns the next call whose deadline has passed, with its key: the earliest deadline first.
    /// `None` if there is no other. Then [`Info::CallsDue`](crate::Info::CallsDue) comes for the next
    /// deadline.
    pub fn expired<M>(&mut self, ctx: &mut Context<'_, M>) -> Option<(K, T)> {
        let call = self.take_due(ctx)?;
        self.keys.remove(&call.key);
        Some((call.key, call.value))
    }
}
