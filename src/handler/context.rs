//! What a callback may do before it returns an action.

mod dial;
mod groups;
mod pair;
mod proxy;
mod send;
mod send_with;

use std::fmt;
use std::time::{Duration, Instant};

use super::action::Packet;
use super::pass_through::PassThrough;
use crate::address::Address;
use crate::connection::{Connection, Flags};
#[cfg(all(feature = "peer-credentials", target_os = "linux"))]
use crate::credentials::PeerCredentials;
use crate::endpoint::Endpoint;
use crate::framing::Framing;
use crate::guard::Panics;
use crate::handle::Handle;
use crate::identity::{ConnectionId, Identity};
use crate::loop_state::{LoopState, Timer};
use crate::peer_cx::PeerCx;
use crate::profile::Profile;
use crate::reason::{SendError, TimerError};
use crate::stream::Stream;
use crate::timers::{TimerId, Timers};

/// A shared packet of this length in bytes, or longer, is queued without a copy. For a shorter
/// packet the copy is cheaper than a piece of its own in the queue: `cargo bench --bench sharing`.
pub(crate) const SHARE_FROM: usize = 32 * 1024;

/// What a callback may do before it returns an [`Action`](super::Action). Each method except
/// [`handle`](Self::handle), [`pair`](Self::pair) and [`forward`](Self::forward) is about the
/// callback's own connection alone.
///
/// # Which way to send
///
/// | What | How | What it costs |
/// |---|---|---|
/// | the answer | return [`Action::send`](super::Action::send) | one copy; none if the answer is the received packet |
/// | more packets than one | [`send`](Self::send), before the action | one copy |
/// | a packet made of values | [`send_with`](Self::send_with): a closure writes it | no buffer and no copy |
/// | a packet whose parts are apart | [`send_parts`](Self::send_parts) | one copy of each part |
/// | a value of 32 KiB or more that is kept, or goes to many | [`Bytes`](super::Packet::Shared), in an action or in `send` | no copy, and no system call of its own |
/// | a last packet | return [`Action::send_and_stop`](super::Action::send_and_stop) | as an answer |
/// | to another connection | a message to its [`Address`]; its handler sends | an entry in a mailbox |
/// | to the [partner](Self::pair) of this connection, as a proxy does | [`forward`](Self::forward), and no handler is called | one copy |
/// | the same packet to many connections | [`Group::send_packet`](crate::Group::send_packet), and no handler is called | an entry for each shard, a write for each member |
/// | a message to many connections | [`Group::send`](crate::Group::send), or [`ListenerHandle::broadcast`](crate::ListenerHandle::broadcast) to all; each handler sends | an entry for each shard, a clone for each connection |
/// | later | [`send_after`](Self::send_after), or a message from a thread to [`address`](Self::address) | a timer, or an entry in a mailbox |
///
/// All packets of one connection leave in the order in which they were sent. If the packet of an
/// action cannot be sent, the connection ends. If `send`, `send_with` or `send_parts` cannot send, they
/// return an error, and the handler decides.
///
/// # What else a callback may do
///
/// - Look at the output that waits: [`queued_bytes`](Self::queued_bytes).
/// - End the output, and still receive: [`end_output`](Self::end_output).
/// - Set timers: [`send_after`](Self::send_after), [`cancel`](Self::cancel), [`now`](Self::now).
/// - Wait for the answers to requests that it sends: [`Calls`](crate::Calls).
/// - Get messages from other threads: [`address`](Self::address).
/// - Be in groups: [`group`](Self::group), [`join`](Self::join), [`leave`](Self::leave).
/// - Wait for room in a mailbox: [`notify_when_ready`](Self::notify_when_ready).
/// - Open a connection to elsewhere: [`dial`](Self::dial).
/// - Make another connection its partner: [`pair`](Self::pair), [`forward`](Self::forward).
/// - Stop and continue reading: [`pause_reading`](Self::pause_reading),
///   [`resume_reading`](Self::resume_reading).
/// - Change framing and timeouts: [`set_framing`](Self::set_framing),
///   [`set_packet_timeout`](Self::set_packet_timeout),
///   [`set_idle_timeout`](Self::set_idle_timeout),
///   [`set_silence_timeout`](Self::set_silence_timeout).
/// - Wait for a packet: [`expect_within`](Self::expect_within),
///   [`expect_nothing`](Self::expect_nothing).
/// - Identify the connection: [`id`](Self::id), [`peer_addr`](Self::peer_addr),
///   [`local_addr`](Self::local_addr), [`listener`](Self::listener).
/// - Control the reactor: [`handle`](Self::handle).
///
/// # Examples
///
/// A function for `handle_packet`. It answers with two packets, and sets a timer:
///
/// ```
/// use std::time::Duration;
///
/// use condor::{Action, Context};
///
/// fn answer<'a>(packet: &'a [u8], ctx: &mut Context<'_, &'static str>) -> Action<'a> {
///     // After one second `handle_info` gets `Info::Message("expired")`.
///     if let Err(error) = ctx.send_after(Duration::from_secs(1), "expired") {
///         return Action::stop(error.into());
///     }
///     match ctx.send("the request was:") {
///         Ok(()) => Action::send(packet),
///         Err(error) => Action::stop(error.into()),
///     }
/// }
/// # struct Answers;
/// # impl condor::Handler for Answers {
/// #     type Message = &'static str;
/// #     fn handle_packet<'a>(
/// #         &'a mut self,
/// #         packet: &'a [u8],
/// #         ctx: &mut Context<'_, &'static str>,
/// #     ) -> Action<'a> {
/// #         answer(packet, ctx)
/// #     }
/// # }
/// # let harness = condor::testing::Harness::of(Answers);
/// # harness.packet(b"hello");
/// # assert_eq!(harness.packets(), [&b"the request was:"[..], b"hello"]);
/// # assert_eq!(harness.leftovers().timers, 1);
/// ```
pub struct Context<'a, M> {
    pub(crate) conn: &'a mut Connection,
    pub(crate) state: &'a mut LoopState,
    pub(crate) timers: &'a mut Timers<M>,
    pub(crate) profile: &'a Profile<M>,
    pub(crate) identity: &'a Identity,
    pub(crate) stream: &'a dyn Stream,
    /// Answers of this batch that are received packets, unchanged.
    pub(crate) pass_through: PassThrough<'a>,
    /// Packets framed in this dispatch. Those of `pass_through` do not count.
    pub(crate) framed: u64,
}

impl<'a, M> Context<'a, M> {
    /// What a peer lends to one callback, or to one batch of packets.
    #[inline(always)]
    pub(crate) fn new<'d: 'a>(
        conn: &'a mut Connection,
        cx: &'a mut PeerCx<'d, M>,
        identity: &'a Identity,
        stream: &'a dyn Stream,
        pass_through: PassThrough<'a>,
    ) -> Self {
        let PeerCx { state, timers, profile, .. } = cx;
        Self { conn, state, timers, profile, identity, stream, pass_through, framed: 0 }
    }
}

impl<M> Context<'_, M> {
    /// Frames `packet` and queues it for sending. After the callback the reactor writes it,
    /// together with all other output that this turn has for the peer.
    ///
    /// # Errors
    ///
    /// After any error nothing is queued, and the connection goes on.
    ///
    /// - [`SendError::TooLarge`]: the packet can never be sent. It is longer than the framing can
    ///   express or than the maximum, or its frame is longer than
    ///   [`max_queued`](crate::ListenerOptions::max_queued).
    /// - [`SendError::Full`]: the queue would exceed
    ///   [`max_queued`](crate::ListenerOptions::max_queued).
    ///   [`Info::Writable`](super::Info::Writable) follows when the queue has space.
    /// - [`SendError::BadFrame`]: the framer refused the packet.
    /// - [`SendError::Closing`]: the connection is ending, or its output half has ended.
    ///
    /// With `?`, in a method whose error is a [`CloseReason`](crate::CloseReason), each of these ends
    /// the connection. See [`Action`](super::Action#the--operator).
    pub fn send<'p>(&mut self, packet: impl Into<Packet<'p>>) -> Result<(), SendError> {
        let sent = self.frame(packet.into());
        if sent.is_err() {
            self.profile.counters.refused_sends.add(1);
        }
        sent
    }

    /// The peer's address: the client's, if a proxy has told it. An IPv4 client of an IPv6 socket has its
    /// IPv4 address here.
    pub fn peer_addr(&self) -> Endpoint {
        self.identity.peer_addr()
    }

    /// The local address that the peer connected to. It is the listener's address, unless the
    /// listener listens on all addresses. `None` if the connection is already broken. Each call
    /// costs a system call.
    pub fn local_addr(&self) -> Option<Endpoint> {
        self.stream.local_addr().ok().map(Endpoint::canonical)
    }

    /// The process at the other end of a Unix socket, when it connected. `None` if the connection is not
    /// one over a Unix socket, and in a test without sockets. Each call costs a system call, and always
    /// returns the same. Needs the feature `peer-credentials`, and Linux.
    #[cfg(all(feature = "peer-credentials", target_os = "linux"))]
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.stream.peer_credentials()
    }

    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.profile.id_of(self.identity)
    }

    /// The name of the listener that accepted the connection.
    ///
    /// ```
    /// use condor::{Action, Context};
    ///
    /// /// One handler for two listeners. Only one of them may stop the server.
    /// fn stop<'a>(ctx: &mut Context<'_, ()>) -> Action<'a> {
    ///     if ctx.listener() != "admin" {
    ///         return Action::send("not here");
    ///     }
    ///     match ctx.handle().shutdown() {
    ///         Ok(_) => Action::send("stopping"),
    ///         Err(_) => Action::send("it is gone"),
    ///     }
    /// }
    /// # struct Stops;
    /// # impl condor::Handler for Stops {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
    /// #         stop(ctx)
    /// #     }
    /// # }
    /// # let harness = condor::testing::Harness::of(Stops);
    /// # harness.packet("stop");
    /// # assert_eq!(harness.packets(), [b"not here"]);
    /// ```
    pub fn listener(&self) -> &str {
        &self.profile.name
    }

    /// The address to which other threads send messages for this handler.
    pub fn address(&self) -> Address<M> {
        self.profile.address_of(self.identity)
    }

    /// The reactor's handle. It starts and stops listeners, and shuts the reactor down.
    pub fn handle(&self) -> Handle {
        self.profile.handle.clone()
    }

    /// Sends `message` to this handler after `delay`, as [`Info::Message`](super::Info::Message).
    ///
    /// `delay` counts from [`now`](Self::now), and is rounded up to whole milliseconds. The message
    /// never arrives earlier. If the connection ends first, the message is dropped. With
    /// `Duration::MAX` it never arrives.
    ///
    /// # Errors
    ///
    /// [`TimerError::Full`]: the connection has
    /// [`max_timers`](crate::ListenerOptions::max_timers) timers that have neither fired nor been
    /// cancelled. The error gives the message back.
    pub fn send_after(&mut self, delay: Duration, message: M) -> Result<TimerId, TimerError<M>> {
        let (max, list) = (self.profile.options.max_timers, self.conn.timers());
        if list.len() >= max {
            self.profile.counters.refused_timers.add(1);
            return Err(TimerError::Full { message, max });
        }
        let at = self.state.now().after(delay);
        let index = self.timers.next_index();
        let timer = Timer::User { listener: self.profile.slot, index };
        let wheel = self.state.wheel.arm(at, timer);
        Ok(self.timers.insert(self.identity.key, list, at, wheel, message))
    }

    /// Cancels a timer of this connection. Returns `false` if the timer has fired, was cancelled
    /// before, or belongs to another connection.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        if !self.timers.is_armed(timer, self.identity.key) {
            return false;
        }
        let removed = self.timers.remove(timer, self.conn.timers());
        self.state.wheel.cancel(removed.wheel);
        self.drop_value(removed.message);
        self.state.ask_for_trim(self.timers.spare());
        true
    }

    /// The time as this turn has read it. It costs no system call.
    pub fn now(&self) -> Instant {
        self.state.instant()
    }

    /// Drops a value of the user, whose drop may panic.
    pub(crate) fn drop_value<T>(&self, value: T) {
        let mut panics = Panics::default();
        panics.drop(value);
        self.profile.counters.panics.add(panics.count);
    }

    /// Changes the framing of this connection, in both directions.
    ///
    /// The new framing applies from the first byte that was not delivered yet, buffered bytes
    /// included. It also applies to every packet sent from now on. The packet timeout starts again.
    /// If the framing has no maximum of its own, the listener's
    /// [`max_packet`](crate::ListenerOptions::max_packet) applies.
    pub fn set_framing(&mut self, framing: impl Into<Framing>) {
        let old = self.conn.set_framing(self.profile.options.limit(framing.into()));
        if let Some(old) = old {
            let mut panics = Panics::default();
            old.discard(&mut panics);
            self.profile.counters.panics.add(panics.count);
        }
    }

    /// Changes the packet timeout, from the next packet on. `Duration::MAX`: no timeout. Zero: a
    /// packet has to arrive in one piece.
    pub fn set_packet_timeout(&mut self, timeout: Duration) {
        self.conn.set_packet_timeout(timeout);
    }

    /// Changes the idle timeout at once. `None`: no timeout. Zero: the connection ends.
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.conn.set_idle_timeout(timeout);
    }

    /// Changes the [silence timeout](crate::ListenerOptions::silence_timeout) at once. `None`: no
    /// timeout. Zero: the connection ends.
    ///
    /// The time counts from the peer's last byte. If there was no silence timeout before, it counts
    /// from this call.
    pub fn set_silence_timeout(&mut self, timeout: Option<Duration>) {
        self.conn.set_silence_timeout(timeout, self.state.now());
    }

    /// Expects a packet within `duration` from now. The next packet that is delivered after this
    /// callback ends the expectation. If none is delivered in time, the handler gets
    /// [`Info::Timeout`](super::Info::Timeout), once, with the bytes of the packet that have
    /// arrived, often none. Its default action ends the connection with
    /// [`CloseReason::PacketTimeout`](crate::CloseReason::PacketTimeout).
    ///
    /// A later call replaces the deadline, and [`expect_nothing`](Self::expect_nothing) removes it.
    /// It stands still while the connection is not read, because reading is paused or output is
    /// above the [high-water mark](crate::ListenerOptions::write_high_water). With `Duration::MAX`
    /// it never comes. The [packet timeout](crate::ListenerOptions::packet_timeout) runs beside it.
    ///
    /// It works in every framing. Under [`Raw`](crate::Raw) each piece of bytes is a packet, so a
    /// handler that takes pieces apart itself needs it against a peer that sends half of something:
    ///
    /// ```
    /// use std::time::Duration;
    /// use condor::testing::Harness;
    /// use condor::{Action, CloseReason, Context, Handler, ListenerOptions, Raw};
    ///
    /// /// Each request ends with a semicolon.
    /// struct Requests {
    ///     partial: Vec<u8>,
    /// }
    ///
    /// impl Handler for Requests {
    ///     type Message = ();
    ///
    ///     fn handle_packet<'a>(&'a mut self, bytes: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
    ///         self.partial.extend(bytes);
    ///         if let Some(end) = self.partial.iter().rposition(|byte| *byte == b';') {
    ///             self.partial.drain(..=end);
    ///         }
    ///         if !self.partial.is_empty() {
    ///             ctx.expect_within(Duration::from_secs(2));
    ///         }
    ///         Action::Continue
    ///     }
    /// }
    ///
    /// let options = ListenerOptions::port(5555).framing(Raw);
    /// let harness = Harness::new(options, |_| Requests { partial: Vec::new() });
    /// harness.receive("whole;");
    /// harness.advance(Duration::from_secs(60));
    /// harness.receive("half");
    /// harness.advance(Duration::from_millis(1_999));
    /// assert_eq!(harness.closed(), None);
    /// harness.advance(Duration::from_millis(1));
    /// assert_eq!(harness.closed(), Some(CloseReason::PacketTimeout));
    /// ```
    ///
    /// A packet whose callback calls this is the last one of its batch. For each of many packets
    /// that arrive together, a [`send_after`](Self::send_after) is cheaper.
    pub fn expect_within(&mut self, duration: Duration) {
        self.conn.expect_by(self.state.now().after(duration));
        // The packets that follow end it, so they are a batch of their own.
        self.conn.insert(Flags::RESTART_BATCH.with(Flags::EXPECT_IS_NEW));
    }

    /// Removes the deadline of [`expect_within`](Self::expect_within), or that of the
    /// [first-packet timeout](crate::ListenerOptions::first_packet_timeout).
    pub fn expect_nothing(&mut self) {
        self.conn.expect_nothing();
    }

    /// Stops reading until [`resume_reading`](Self::resume_reading). Until then no packet and no
    /// [end of input](super::Info::EndOfInput) is delivered. The packet timeout, the idle timeout
    /// and the deadline of [`expect_within`](Self::expect_within) stand still. Messages, timers and
    /// a reset by the peer still arrive.
    ///
    /// A handler that pauses must resume. Otherwise the connection stays until its peer resets it,
    /// or until the drain deadline of its listener ends it.
    pub fn pause_reading(&mut self) {
        self.conn.insert(Flags::PAUSED);
    }

    /// Continues after [`pause_reading`](Self::pause_reading), when this callback has returned.
    /// Buffered packets are delivered first.
    pub fn resume_reading(&mut self) {
        self.conn.remove(Flags::PAUSED);
    }

    /// Ends the output half of the connection. The reactor sends the queued output, then it signals
    /// the end of stream to the peer.
    ///
    /// Packets, messages and timers still arrive. The connection ends when the peer ends its half,
    /// too, or for any other reason. From now on [`send`](Self::send) returns
    /// [`SendError::Closing`], and an [`Action`](super::Action) that sends ends the connection with
    /// [`CloseReason::Normal`](crate::CloseReason::Normal).
    pub fn end_output(&mut self) {
        self.conn.advance(|life| life.end_output());
    }

    /// Bytes of output that the kernel has not taken yet, length prefixes included.
    pub fn queued_bytes(&self) -> usize {
        self.conn.queued() + self.state.out.len() + self.pass_through.len()
    }
}

impl<M> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id())
            .field("peer_addr", &self.peer_addr())
            .finish_non_exhaustive()
    }
}
