//! Answers that are made elsewhere: they come in any order, and leave in the order of their
//! requests.
//!
//! ```text
//!   handle_packet ──► open ──► Ticket ──► another thread, another connection
//!                      │                     │ answer
//!                      ▼                     ▼
//!   sent ◄── the places, in order ◄── fill ◄── Reply, as a message
//! ```
//!
//! A ticket answers exactly once: by [`Ticket::answer`], or by its drop, which says that no answer
//! comes. Either way its reply goes to the mailbox, also if the mailbox is full. So no place stays
//! open for ever because a job was lost. The replies in a mailbox are bounded by the open tickets.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::Address;
use crate::handler::{Action, Context, Info, Packet};
use crate::reason::{CloseReason, ReplyError, SendError};

/// The answers that one connection owes its peer, in the order of the requests.
///
/// Use it if other threads or other connections make the answers, and if a peer may have several
/// requests in work. A `Replies` belongs to one handler, which works in three steps:
///
/// - For a request, [`open`](Self::open) gives a [`Ticket`]. The ticket goes to a worker with the
///   request. If the last place is taken, reading pauses. An answer that is known at once goes to
///   [`answer`](Self::answer).
/// - The worker calls [`Ticket::answer`]. The handler gets a [`Reply`] as a message and passes it to
///   [`fill`](Self::fill), which sends all answers that are now in order and resumes reading.
/// - All other events go to [`default_action`](Self::default_action). It sends on when a slow peer
///   takes bytes again. After the end of input, and in a drain, it ends the connection when the last
///   answer is sent.
///
/// [`handle_info`](Self::handle_info) does the last two steps for a handler with no other messages.
///
/// A `Replies` that holds no request has no memory of its own until the first one. It then grows
/// with the requests that are open at the same time, up to 48 bytes for each of the maximum. The
/// answers that wait for an earlier one are kept without a copy.
///
/// # What it leaves to you
///
/// - A ticket outlives its connection. Clients that ask, leave and come again can fill the queue of
///   the workers. Bound the queue: `sync_channel` and `try_send` do not block the reactor, and a
///   ticket that finds no room is dropped with its job.
/// - While a place is free, the connection is read, and its timeouts run. An
///   [idle timeout](crate::ListenerOptions::idle_timeout) has to be longer than the longest work.
///   Otherwise it ends a connection whose peer is only waiting for its answer.
/// - While no place is free, the end of input is not delivered. The
///   [half-close timeout](crate::ListenerOptions::half_close_timeout) has not begun, and only a reset
///   tells that the peer has left. If an answer may take for ever, set a limit with
///   [`send_after`](Context::send_after).
/// - An answer is dropped with its connection, and whoever has made it is not told. If an answer is
///   the only copy of something, as a job is that one client gets, send a plain message to the
///   [`Address`] instead. The handler then takes the job when it can send it.
///
/// # Examples
///
/// Up to eight requests of each connection are in work at the same time:
///
/// ```
/// use std::thread;
///
/// use condor::{Action, Context, Handler, Info, Replies, Reply, Ticket};
///
/// struct Shout {
///     replies: Replies,
/// }
///
/// impl Handler for Shout {
///     type Message = Reply;
///
///     fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, Reply>) -> Action<'_> {
///         let request = packet.to_vec();
///         let work = |ticket: Ticket| {
///             thread::spawn(move || ticket.answer(request.to_ascii_uppercase()));
///         };
///         self.replies.open(ctx).map(work).into()
///     }
///
///     fn handle_info(&mut self, info: Info<'_, Reply>, ctx: &mut Context<'_, Reply>) -> Action<'_> {
///         self.replies.handle_info(info, ctx)
///     }
/// }
///
/// let harness = condor::testing::Harness::of(Shout { replies: Replies::new(8) });
/// for request in ["one", "two", "three"] {
///     harness.packet(request);
/// }
/// harness.peer_closes();
/// let mut answers = Vec::new();
/// while answers.len() < 3 {
///     thread::yield_now();
///     harness.run();
///     answers.extend(harness.packets());
/// }
/// assert_eq!(answers, [&b"ONE"[..], b"TWO", b"THREE"]);
/// ```
pub struct Replies {
    /// Tells its tickets from all others. Zero before the first ticket.
    id: u64,
    /// The number of the request in the first place.
    first: u64,
    max: usize,
    places: VecDeque<Place>,
    /// Reading is paused, by this value.
    paused: bool,
    /// Why the connection ends when no answer is owed any more.
    end: Option<CloseReason>,
}

/// What one request has got.
enum Place {
    Open,
    Answered(Packet<'static>),
    /// No answer will come.
    Lost,
}

impl Replies {
    /// At most `max` requests are in work at the same time. Allocates nothing.
    ///
    /// With a `max` of zero every [`open`](Self::open) fails.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { id: 0, first: 0, max, places: VecDeque::new(), paused: false, end: None }
    }

    /// Takes the next place, for an answer that comes later. If it is the last free place, reading
    /// pauses until one is free again. It resumes then, also if the handler has paused it meanwhile.
    ///
    /// # Errors
    ///
    /// [`ReplyError::Full`] if no place is free. This happens only to a handler that resumes reading
    /// by itself, or that opens several places for one packet.
    pub fn open<M: From<Reply>>(
        &mut self,
        ctx: &mut Context<'_, M>,
    ) -> Result<Ticket<M>, ReplyError> {
        let number = self.push(Place::Open, ctx)?;
        if self.id == 0 {
            self.id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Ticket { replies: self.id, number, address: ctx.address(), is_open: true })
    }

    /// Answers the request of this callback at once: after the answers to earlier requests.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`fill`](Self::fill).
    pub fn answer<M>(
        &mut self,
        answer: impl Into<Packet<'static>>,
        ctx: &mut Context<'_, M>,
    ) -> Result<Action<'static>, ReplyError> {
        self.push(Place::Answered(answer.into()), ctx)?;
        self.send_due(ctx)
    }

    /// Puts an answer in its place, and sends all answers that are now in order. Return the action.
    ///
    /// If the output queue is [full](crate::ListenerOptions::max_queued), the answers wait until
    /// [`Info::Writable`]: pass it to [`default_action`](Self::default_action).
    ///
    /// # Errors
    ///
    /// - [`ReplyError::Unknown`]: the ticket is of another `Replies`. The answer is dropped, and
    ///   nothing else changes.
    /// - [`ReplyError::Lost`]: a ticket was dropped without an answer, and all answers before it are
    ///   sent.
    /// - [`ReplyError::Send`]: the next answer can never be sent.
    ///
    /// After the last two the following answers have lost their order, so end the connection. The
    /// error turns into its [`CloseReason`].
    pub fn fill<M>(
        &mut self,
        reply: Reply,
        ctx: &mut Context<'_, M>,
    ) -> Result<Action<'static>, ReplyError> {
        let Reply { replies, number, answer } = reply;
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let place = index.and_then(|index| self.places.get_mut(index));
        let Some(place) = place.filter(|_| replies == self.id) else {
            ctx.drop_value(answer);
            return Err(ReplyError::Unknown);
        };
        *place = answer.map_or(Place::Lost, Place::Answered);
        self.send_due(ctx)
    }

    /// What a handler with open requests does with an event that it does not treat itself.
    ///
    /// - [`Info::Writable`]: answers that waited for space are sent.
    /// - [`Info::EndOfInput`], [`Info::Shutdown`] and [`Info::Timeout`]: as [`finish`](Self::finish),
    ///   with the reason of [`Info::default_action`].
    /// - All others: [`Info::default_action`].
    pub fn default_action<M>(
        &mut self,
        info: &Info<'_, M>,
        ctx: &mut Context<'_, M>,
    ) -> Action<'static> {
        match (info, info.default_action()) {
            (Info::Writable, _) => self.send_due(ctx).into(),
            (Info::EndOfInput { .. } | Info::Shutdown | Info::Timeout(_), Action::Stop(reason)) => {
                self.finish(reason, ctx)
            }
            (_, action) => action,
        }
    }

    /// The whole of [`Handler::handle_info`](crate::Handler::handle_info), for a handler whose only
    /// messages are replies: [`fill`](Self::fill) for a message, whose errors end the connection, and
    /// [`default_action`](Self::default_action) for all others.
    pub fn handle_info<M: Into<Reply>>(
        &mut self,
        info: Info<'_, M>,
        ctx: &mut Context<'_, M>,
    ) -> Action<'static> {
        match info {
            Info::Message(reply) => self.fill(reply.into(), ctx).into(),
            other => self.default_action(&other, ctx),
        }
    }

    /// Ends the connection with `reason` when all answers are sent; at once if none is owed. Until
    /// then no further packet is delivered. If there are several reasons, the first stands.
    pub fn finish<M>(&mut self, reason: CloseReason, ctx: &mut Context<'_, M>) -> Action<'static> {
        let reason = *self.end.get_or_insert(reason);
        if self.is_empty() {
            return Action::Stop(reason);
        }
        ctx.pause_reading();
        Action::Continue
    }

    /// Requests whose answers are not sent yet.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether all requests are answered, and all answers are sent.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The most requests at the same time, as given to [`new`](Self::new).
    pub fn max(&self) -> usize {
        self.max
    }

    /// Takes the next place. Returns the number of its request.
    fn push<M>(&mut self, place: Place, ctx: &mut Context<'_, M>) -> Result<u64, ReplyError> {
        let len = self.places.len();
        if len >= self.max {
            ctx.drop_value(place);
            return Err(ReplyError::Full { max: self.max });
        }
        if len == self.places.capacity() {
            // It doubles, but never beyond the maximum.
            self.places.reserve_exact(len.max(4).min(self.max - len));
        }
        self.places.push_back(place);
        if len + 1 == self.max {
            self.paused = true;
            ctx.pause_reading();
        }
        Ok(self.first + len as u64)
    }

    /// Sends the answers from the first place on, up to the first that is missing or has no space.
    fn send_due<M>(&mut self, ctx: &mut Context<'_, M>) -> Result<Action<'static>, ReplyError> {
        while let Some(place) = self.places.front_mut() {
            match place {
                Place::Open => break,
                Place::Lost => return Err(ReplyError::Lost),
                Place::Answered(answer) => match ctx.send_or_keep(answer) {
                    Ok(()) => {}
                    Err(SendError::Full { .. }) => break,
                    Err(error) => {
                        ctx.drop_value(mem::replace(place, Place::Lost));
                        return Err(ReplyError::Send(error));
                    }
                },
            }
            self.places.pop_front();
            self.first += 1;
        }
        if let (true, Some(reason)) = (self.is_empty(), self.end) {
            return Ok(Action::Stop(reason));
        }
        if self.paused && self.end.is_none() && self.places.len() < self.max {
            self.paused = false;
            ctx.resume_reading();
        }
        Ok(Action::Continue)
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies")
            .field("len", &self.len())
            .field("max", &self.max)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// The id of the next `Replies` that opens a place. In 64 bits it never repeats.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The right to answer one request, from any thread. [`Replies::open`] makes it.
///
/// The answer goes to the handler as a message of its type `M`. It never meets a full mailbox: the
/// [capacity](crate::ListenerOptions::mailbox_capacity) of a mailbox is a limit for other messages.
///
/// A ticket that is dropped without an answer tells the handler so. This includes the drop by a
/// panic. The answers to earlier requests are still sent, then [`Replies::fill`] fails with
/// [`ReplyError::Lost`]. [`Reply::or_answer`] can answer in its place.
#[must_use = "a request whose ticket is dropped gets no answer, and its connection ends"]
pub struct Ticket<M: From<Reply> = Reply> {
    replies: u64,
    number: u64,
    address: Address<M>,
    is_open: bool,
}

impl<M: From<Reply>> Ticket<M> {
    /// Answers the request. If the connection has ended, the answer is dropped.
    pub fn answer(mut self, answer: impl Into<Packet<'static>>) {
        self.is_open = false;
        self.reply(Some(answer.into()));
    }

    fn reply(&self, answer: Option<Packet<'static>>) {
        let reply = Reply { replies: self.replies, number: self.number, answer };
        self.address.send_anyway(reply.into());
    }
}

impl<M: From<Reply>> Drop for Ticket<M> {
    fn drop(&mut self) {
        if self.is_open {
            self.reply(None);
        }
    }
}

impl<M: From<Reply>> fmt::Debug for Ticket<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} of {})", self.number, self.address.id())
    }
}

/// What a [`Ticket`] sends to its handler. It can be the whole of
/// [`Handler::Message`](crate::Handler::Message), or a part of it that is made by [`From`].
#[derive(Debug)]
pub struct Reply {
    replies: u64,
    number: u64,
    answer: Option<Packet<'static>>,
}

impl Reply {
    /// Answers with `answer` if the ticket was dropped without an answer.
    #[must_use]
    pub fn or_answer(self, answer: impl Into<Packet<'static>>) -> Self {
        Self { answer: Some(self.answer.unwrap_or_else(|| answer.into())), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::handler::Handler;
    use crate::testing::Harness;

    type Tickets = Rc<RefCell<Vec<Ticket>>>;

    /// Opens a place for each packet, and gives the tickets to the test.
    struct Window(Replies, Tickets);

    impl Handler for Window {
        type Message = Reply;

        fn handle_packet(&mut self, _: &[u8], ctx: &mut Context<'_, Reply>) -> Action<'_> {
            self.0.open(ctx).map(|ticket| self.1.borrow_mut().push(ticket)).into()
        }

        fn handle_info(
            &mut self,
            info: Info<'_, Reply>,
            ctx: &mut Context<'_, Reply>,
        ) -> Action<'_> {
            self.0.handle_info(info, ctx)
        }
    }

    /// Goal: no memory before the first request, then in proportion to the most requests that were
    /// open at the same time, and never more than for the maximum. Method: bursts of seven requests.
    #[test]
    fn places_take_no_more_memory_than_the_maximum() {
        assert!(size_of::<Place>() <= 48, "{} bytes", size_of::<Place>());
        for max in [1, 3, 5, 100, usize::MAX] {
            let tickets = Tickets::default();
            let harness = Harness::of(Window(Replies::new(max), Rc::clone(&tickets)));
            let capacity = || harness.with_handler(|window| window.0.places.capacity()).unwrap();
            assert_eq!(capacity(), 0);
            for _ in 0..3 {
                for _ in 0..7 {
                    harness.packet("request");
                }
                assert!((max.min(7)..=max.min(14)).contains(&capacity()), "{max}: {}", capacity());
                let mut answered = 0;
                while answered < 7 {
                    tickets.take().into_iter().for_each(|ticket| ticket.answer("answer"));
                    harness.run();
                    answered += harness.packets().len();
                }
            }
        }
    }
}
