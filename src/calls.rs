//! Requests that a handler has sent to its peer, until the peer answers them or their time is over.
//!
//! ```text
//!   open ──► the calls, each with a value and a deadline ──► answered: the value
//!                        │                    │
//!                        ▼ the earliest       └──► expired, after Info::CallsDue: the value
//!              one timer of the connection
//! ```
//!
//! The calls are in a slab. The deadlines have an order of their own. A map finds the call of a key,
//! a queue finds the call whose answer comes next. The connection knows only the earliest deadline,
//! as one more of its clocks. So a call arms no timer in the wheel, and its answer cancels none.

mod by_key;
mod deadlines;
mod error;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::vec;

use slab::Slab;

use self::deadlines::Deadlines;
pub use self::error::CallError;
use crate::handler::Context;
use crate::wheel::Tick;

/// The requests that one connection has sent to its peer, and that have no answer yet. Each has a
/// value of yours, such as the sender of the result, and a deadline.
///
/// Use it in a handler whose peer answers requests: an agent that takes commands, a client that is
/// pushed to and asked, a link to another node. It matches answers to requests in one of two ways:
///
/// - [`Calls::in_order`] makes a `Calls<InOrder, T>`, for a peer that answers in the order of the
///   requests, as Redis does.
/// - [`Calls::by_key`] makes a `Calls<K, T>`, for a peer that repeats a key of the request in its
///   answer.
///
/// It sends nothing and reads nothing. The handler does four things:
///
/// - For each request that it sends, `open` keeps the value.
/// - For each answer, `answered` gives the value back.
/// - At [`Info::CallsDue`](crate::Info::CallsDue), `expired` gives back the values of the calls whose
///   deadline has passed.
/// - In [`terminate`](crate::Handler::terminate), a `for` loop over the `Calls` gives back all that
///   are left. So each value comes back exactly once.
///
/// # Deadlines
///
/// A deadline counts from [`Context::now`], and is rounded up to whole milliseconds. A call never
/// expires earlier. All deadlines of a connection use one timer, which is not one of its
/// [`max_timers`](crate::ListenerOptions::max_timers). It goes on while reading is paused, while output
/// waits, and after the end of input. It ends with the last call, and with the connection.
///
/// An answer that has arrived in time is not late, even if the reactor was too busy to read it: while
/// bytes of the peer are unread, `CallsDue` waits for up to 100 ms.
///
/// # Late answers
///
/// An answer may come after its call has expired. Then `answered` returns `None`, and the handler
/// drops the answer. In order, the place of an expired call stays taken until its answer comes, and
/// counts against the maximum: the next answer belongs to the next call. So if such a peer never
/// answers, end the connection. By key, an expired key is free again: do not use it again soon, or a
/// late answer is taken for the answer to the new call. A counter is a good key.
///
/// # What it leaves to you
///
/// - `open` before you send, and end the connection if the packet is refused, as
///   [`Action::send`](crate::Action::send) does. A handler that can go on after a refused `send` asks
///   [`is_full`](Self::is_full) first, then sends, then calls `open`.
/// - At [`Info::Shutdown`](crate::Info::Shutdown) the default ends the connection, and `terminate` gets
///   the outstanding calls. To finish them, open no further ones, continue, and stop with
///   [`CloseReason::Shutdown`](crate::CloseReason::Shutdown) when [`is_empty`](Self::is_empty). The
///   [drain deadline](crate::ListenerOptions::drain_timeout) has to be later than those of the calls.
/// - While the peer works on a request, it sends nothing. An
///   [idle timeout](crate::ListenerOptions::idle_timeout) has to be longer than the longest call.
///
/// A `Calls` has no memory of its own until the first call. It then grows with the calls that are
/// outstanding at the same time, up to the maximum. A call allocates nothing else. Of n calls, each
/// costs at most O(log n), whatever their deadlines are, and O(1) if all have the same timeout.
///
/// # Examples
///
/// Agents connect, and take the commands that other threads give them. They answer in order;
/// [`Calls::by_key`] has an example with keys:
///
/// ```
/// use std::sync::mpsc::Sender;
/// use std::time::Duration;
///
/// use condor::{Action, Calls, CloseReason, Context, Handler, InOrder, Info};
///
/// struct Command {
///     text: String,
///     result: Sender<Result<String, &'static str>>,
/// }
///
/// struct Agent {
///     calls: Calls<InOrder, Sender<Result<String, &'static str>>>,
///     drains: bool,
/// }
///
/// impl Agent {
///     /// After each call that is over.
///     fn go_on(&self) -> Action<'static> {
///         if self.drains && self.calls.is_empty() {
///             return Action::Stop(CloseReason::Shutdown);
///         }
///         Action::Continue
///     }
/// }
///
/// impl Handler for Agent {
///     type Message = Command;
///
///     fn handle_packet(&mut self, answer: &[u8], ctx: &mut Context<'_, Command>) -> Action<'_> {
///         if let Some(result) = self.calls.answered(ctx) {
///             let _ = result.send(Ok(String::from_utf8_lossy(answer).into_owned()));
///         }
///         self.go_on()
///     }
///
///     fn handle_info(
///         &mut self,
///         info: Info<'_, Command>,
///         ctx: &mut Context<'_, Command>,
///     ) -> Action<'_> {
///         match info {
///             Info::Message(Command { result, .. }) if self.drains => {
///                 let _ = result.send(Err("the agent is leaving"));
///                 Action::Continue
///             }
///             Info::Message(Command { text, result }) => {
///                 match self.calls.open(result, Duration::from_secs(5), ctx) {
///                     Ok(()) => Action::send(text),
///                     Err(refused) => {
///                         let _ = refused.into_value().send(Err("the agent is busy"));
///                         Action::Continue
///                     }
///                 }
///             }
///             Info::CallsDue => {
///                 while let Some((_, result)) = self.calls.expired(ctx) {
///                     let _ = result.send(Err("no answer in time"));
///                 }
///                 self.go_on()
///             }
///             Info::Shutdown if !self.calls.is_empty() => {
///                 self.drains = true;
///                 Action::Continue
///             }
///             other => other.default_action(),
///         }
///     }
///
///     fn terminate(self, _: CloseReason) {
///         for (_, result) in self.calls {
///             let _ = result.send(Err("the agent has left"));
///         }
///     }
/// }
///
/// let agent = condor::testing::Harness::of(Agent { calls: Calls::in_order(2), drains: false });
/// let (result, results) = std::sync::mpsc::channel();
/// for text in ["load", "reboot", "sleep"] {
///     agent.message(Command { text: text.into(), result: result.clone() });
/// }
/// assert_eq!(agent.packets(), [&b"load"[..], b"reboot"]);
/// assert_eq!(results.recv(), Ok(Err("the agent is busy")));
/// agent.packet("0.7");
/// assert_eq!(results.recv(), Ok(Ok(String::from("0.7"))));
/// agent.drain();
/// agent.advance(Duration::from_secs(5));
/// assert_eq!(results.recv(), Ok(Err("no answer in time")));
/// assert_eq!(agent.closed(), Some(CloseReason::Shutdown));
/// ```
pub struct Calls<K, T> {
    /// Tells its timer from that of other lists of the same connection. Zero before the first call.
    id: u64,
    max: usize,
    /// The calls that wait: neither answered nor expired.
    waiting: Slab<Call<K, T>>,
    deadlines: Deadlines,
    /// The number of the next call.
    next: usize,
    /// By key: where the call is.
    keys: HashMap<K, usize>,
    /// In order: where the calls are whose answers are still to come. [`EXPIRED`] if a call waits no
    /// more.
    places: VecDeque<usize>,
    /// How many places are [`EXPIRED`].
    expired: usize,
}

/// The kind of `Calls` that are answered in the order of the requests, in the place of a key.
#[derive(Debug, Copy, Clone)]
pub struct InOrder;

/// The place of a call that has expired. Its answer is still to come.
const EXPIRED: usize = usize::MAX;

/// The id of the next list that opens a call. In 64 bits it never repeats.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

struct Call<K, T> {
    key: K,
    value: T,
    number: usize,
}

impl<T> Calls<InOrder, T> {
    /// For a peer that answers in the order of the requests. At most `max` answers are outstanding.
    /// Allocates nothing.
    ///
    /// With a `max` of zero every [`open`](Self::open) fails.
    #[must_use]
    pub fn in_order(max: usize) -> Self {
        Self::new(max)
    }

    /// A request goes to the peer. Keeps `value` until it is answered, or until `timeout` from now.
    /// With `Duration::MAX` it never expires.
    ///
    /// # Errors
    ///
    /// [`CallError::Full`] if the maximum of answers is outstanding, expired calls included.
    pub fn open<M>(
        &mut self,
        value: T,
        timeout: Duration,
        ctx: &mut Context<'_, M>,
    ) -> Result<(), CallError<T>> {
        if self.is_full() {
            return Err(CallError::Full { value, max: self.max });
        }
        reserve(self.places.len(), self.places.capacity(), self.max, |more| {
            self.places.reserve_exact(more);
        });
        self.places.push_back(self.waiting.vacant_key());
        self.insert(InOrder, value, timeout, ctx);
        Ok(())
    }

    /// The next answer has come. Returns the value of its call.
    ///
    /// `None` means that the answer is to be dropped: its call has expired. Or no answer is
    /// outstanding, which [`outstanding`](Self::outstanding) tells before this call.
    pub fn answered<M>(&mut self, ctx: &mut Context<'_, M>) -> Option<T> {
        let slot = self.places.pop_front()?;
        if slot == EXPIRED {
            self.expired -= 1;
            return None;
        }
        Some(self.remove(slot, ctx).value)
    }

    /// Returns the next call whose deadline has passed: the earliest deadline first. `None` if there
    /// is no other. Then [`Info::CallsDue`](crate::Info::CallsDue) comes for the next deadline.
    ///
    /// Its place stays taken until its answer comes.
    pub fn expired<M>(&mut self, ctx: &mut Context<'_, M>) -> Option<(InOrder, T)> {
        let call = self.take_due(ctx)?;
        let first = self.next - self.places.len();
        self.places[call.number - first] = EXPIRED;
        self.expired += 1;
        Some((call.key, call.value))
    }
}

impl<K, T> Calls<K, T> {
    fn new(max: usize) -> Self {
        Self {
            id: 0,
            max,
            waiting: Slab::new(),
            deadlines: Deadlines::new(),
            next: 0,
            keys: HashMap::new(),
            places: VecDeque::new(),
            expired: 0,
        }
    }

    /// Calls that are neither answered nor expired: their values are in here.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no value is in here: all calls are answered or have expired.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Answers that may still come. In order this includes those to expired calls.
    pub fn outstanding(&self) -> usize {
        self.waiting.len() + self.expired
    }

    /// Whether the next `open` fails with [`CallError::Full`].
    pub fn is_full(&self) -> bool {
        self.outstanding() >= self.max
    }

    /// The most outstanding answers, as given to `in_order` or `by_key`.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Adds a call in the slot that is the next vacant one.
    fn insert<M>(&mut self, key: K, value: T, timeout: Duration, ctx: &mut Context<'_, M>) {
        if self.id == 0 {
            self.id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        }
        reserve(self.waiting.len(), self.waiting.capacity(), self.max, |more| {
            self.waiting.reserve_exact(more);
            self.deadlines.reserve(more);
        });
        let number = self.next;
        self.next += 1;
        let slot = self.waiting.insert(Call { key, value, number });
        self.deadlines.push(slot, ctx.state.now().after(timeout), number);
        self.set_timer(ctx);
    }

    fn remove<M>(&mut self, slot: usize, ctx: &mut Context<'_, M>) -> Call<K, T> {
        let call = self.waiting.remove(slot);
        self.deadlines.remove(slot);
        self.set_timer(ctx);
        call
    }

    /// Removes the first call that is due. If there is none, the timer is set for the next.
    fn take_due<M>(&mut self, ctx: &mut Context<'_, M>) -> Option<Call<K, T>> {
        match self.deadlines.first() {
            Some((at, slot)) if at <= ctx.state.expiry_now() => Some(self.remove(slot, ctx)),
            _ => {
                self.set_timer(ctx);
                None
            }
        }
    }

    /// Sets the connection's timer for the earliest deadline.
    fn set_timer<M>(&self, ctx: &mut Context<'_, M>) {
        if self.id > 0 {
            let at = self.deadlines.first().map_or(Tick::NEVER, |(at, _)| at);
            ctx.conn.set_calls_timer(self.id, at);
        }
    }
}

/// Makes room for one more if there is none: twice as much, but never beyond `max`.
fn reserve(len: usize, capacity: usize, max: usize, reserve: impl FnOnce(usize)) {
    if len == capacity {
        reserve(len.max(4).min(max - len));
    }
}

impl<K, T> IntoIterator for Calls<K, T> {
    type Item = (K, T);
    type IntoIter = vec::IntoIter<(K, T)>;

    /// The values of all calls that are neither answered nor expired, with their keys, in the order of
    /// the calls. It is for [`terminate`](crate::Handler::terminate).
    fn into_iter(self) -> Self::IntoIter {
        let mut calls: Vec<_> = self.waiting.into_iter().map(|(_, call)| call).collect();
        calls.sort_unstable_by_key(|call| call.number);
        calls.into_iter().map(|call| (call.key, call.value)).collect::<Vec<_>>().into_iter()
    }
}

impl<K, T> fmt::Debug for Calls<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("len", &self.len())
            .field("outstanding", &self.outstanding())
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Action, Handler};
    use crate::testing::Harness;

    /// Opens a call for each packet. `done` answers them all.
    struct Asking {
        in_order: Calls<InOrder, ()>,
        by_key: Calls<u64, ()>,
        asked: u64,
    }

    impl Asking {
        fn new(max: usize) -> Self {
            Self { in_order: Calls::in_order(max), by_key: Calls::by_key(max), asked: 0 }
        }

        /// The places that the lists have memory for.
        fn capacities(&self) -> [usize; 5] {
            let Self { in_order, by_key, .. } = self;
            [
                in_order.waiting.capacity(),
                in_order.deadlines.capacity(),
                in_order.places.capacity(),
                by_key.waiting.capacity(),
                by_key.deadlines.capacity(),
            ]
        }
    }

    impl Handler for Asking {
        type Message = ();

        fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
            if packet == b"done" {
                while self.in_order.answered(ctx).is_some() {}
                for key in 0..self.asked {
                    let _ = self.by_key.answered(&key, ctx);
                }
            } else {
                let _ = self.in_order.open((), Duration::MAX, ctx);
                let _ = self.by_key.open(self.asked, (), Duration::MAX, ctx);
                self.asked += 1;
            }
            Action::Continue
        }
    }

    /// Goal: no memory before the first call, then in proportion to the most calls that were
    /// outstanding at the same time, and never more than for the maximum. Method: bursts of seven calls.
    #[test]
    fn calls_take_no_more_memory_than_the_maximum() {
        assert!(size_of::<Call<u64, u64>>() <= 24, "{} bytes", size_of::<Call<u64, u64>>());
        for max in [1, 3, 5, 100, usize::MAX] {
            let harness = Harness::of(Asking::new(max));
            let capacities = || harness.with_handler(Asking::capacities).unwrap();
            assert_eq!(capacities(), [0; 5]);
            for _ in 0..3 {
                (0..7).for_each(|_| harness.packet("request"));
                for capacity in capacities() {
                    assert!((max.min(7)..=max.min(14)).contains(&capacity), "{max}: {capacity}");
                }
                harness.packet("done");
                assert!(harness.with_handler(|asking| asking.by_key.is_empty()).unwrap());
            }
        }
    }
}
