//! The contract with the user's code: what a handler is asked, what it may answer, what it may do.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::connection::{Connection, flag};
use crate::error::{CloseReason, SendError};
use crate::framing::{Enframe, Framing, Shape};
use crate::handle::Handle;
use crate::listener::Profile;
use crate::mailbox::{Address, ConnectionId};
use crate::peer::Seat;
use crate::stream::Stream;
use crate::sync::Arc;
use crate::timers::{TimerId, Timers};
use crate::turn::{Timer, Turn};

/// One connection's state machine. The value itself is the connection's state.
///
/// The life of a connection:
///
/// 1. It is accepted, and the listener's factory makes a handler from an [`Accepted`].
/// 2. [`init`](Self::init), once.
/// 3. [`handle_packet`](Self::handle_packet) for each packet, in order;
///    [`handle_info`](Self::handle_info) for everything else.
/// 4. The end is decided: by an [`Action`], by the peer, by a limit, by a panic. From then on no
///    callback but `terminate` is made, and the first reason stands.
/// 5. What is queued is sent, then [`terminate`](Self::terminate), exactly once and last.
///
/// All callbacks of one reactor run on its thread, one after the other: one that blocks delays
/// every connection of that reactor. Hand long work to other threads, pause reading, and answer
/// when the result comes back as a message; the `offload` example shows it.
///
/// A panic in any callback ends that one connection with [`CloseReason::Panicked`]; answers to
/// earlier packets still go out. With `panic = "abort"` it ends the process, of course.
pub trait Handler: Sized + 'static {
    /// What other threads, and timers, send to this handler. `()` if nothing.
    type Message: Send + 'static;

    /// Called once, before anything else. The default continues.
    ///
    /// Whatever it answers has the meaning it has for a packet; after a stop no packet is
    /// delivered.
    fn init(&mut self, ctx: &mut Context<'_, Self::Message>) -> Action<'_> {
        let _ = ctx;
        Action::Continue
    }

    /// Called for each whole packet, without its length prefix. Empty packets are packets.
    ///
    /// `packet` is borrowed from the read buffer and may be sent back as it is, without a copy of
    /// the handler's own.
    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Self::Message>,
    ) -> Action<'a>;

    /// Called for everything that is not a packet. The default is [`Info::default_action`], and so
    /// should the last arm of every `match` here be: it keeps the defence against peers that send
    /// half a packet.
    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Self::Message>,
        ctx: &mut Context<'_, Self::Message>,
    ) -> Action<'a> {
        let _ = ctx;
        info.default_action()
    }

    /// Called exactly once for every handler made, last, with the reason of the end, whatever it
    /// was. The handler is given away, so nothing can follow. The default drops it.
    fn terminate(self, reason: CloseReason) {
        let _ = reason;
    }
}

/// What happened to a connection other than a packet.
#[derive(Debug)]
#[non_exhaustive]
pub enum Info<'a, M> {
    /// A packet stayed incomplete for the packet timeout. Here is what had arrived of it, *with*
    /// its length prefix.
    ///
    /// The default ends the connection. If the handler goes on instead, these bytes are gone and
    /// the next byte that arrives is taken for the first of a header.
    Timeout(&'a [u8]),
    /// A message, from an [`Address`], a broadcast or a timer of [`Context::send_after`].
    Message(M),
    /// The listener or the reactor drains. Everything that had arrived was delivered. The default
    /// ends the connection; a handler that has something left to do may go on until the drain
    /// deadline.
    Shutdown,
    /// There is room again for output, after [`SendError::Full`] or after the connection was over
    /// its high-water mark.
    Drained,
}

impl<M> Info<'_, M> {
    /// What a handler does that does not care: stop with [`CloseReason::PacketTimeout`] on
    /// `Timeout`, stop with [`CloseReason::Shutdown`] on `Shutdown`, else continue.
    pub fn default_action(&self) -> Action<'static> {
        match self {
            Self::Timeout(_) => Action::Stop(CloseReason::PacketTimeout),
            Self::Shutdown => Action::Stop(CloseReason::Shutdown),
            Self::Message(_) | Self::Drained => Action::Continue,
        }
    }
}

/// Bytes to send as one packet; the framing adds the length.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Packet<'a> {
    /// Copied into the output at once.
    Borrowed(&'a [u8]),
    /// Copied as well.
    Owned(Vec<u8>),
    /// Shared: from 16 KiB on it is queued without a copy.
    Shared(Bytes),
}

impl Packet<'_> {
    /// The payload.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for Packet<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Packet<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Packet<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a str> for Packet<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl From<Vec<u8>> for Packet<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<String> for Packet<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl From<Bytes> for Packet<'_> {
    fn from(bytes: Bytes) -> Self {
        Self::Shared(bytes)
    }
}

/// What a callback answers.
///
/// Whatever the same callback gave to [`Context::send`] goes first.
#[derive(Debug)]
#[must_use = "an action does nothing until it is returned from the callback"]
pub enum Action<'a> {
    /// Nothing to say.
    Continue,
    /// Send this packet. If it cannot be sent the connection ends: with
    /// [`CloseReason::AnswerTooLarge`], or with [`CloseReason::SlowReader`] if the queue is full.
    Send(Packet<'a>),
    /// End the connection, after everything queued was sent.
    Stop(CloseReason),
    /// Send this packet, then end the connection.
    SendAndStop(Packet<'a>, CloseReason),
}

impl<'a> Action<'a> {
    /// Sends `packet`.
    #[inline]
    pub fn send(packet: impl Into<Packet<'a>>) -> Self {
        Self::Send(packet.into())
    }

    /// The packet, if there is nothing to do but to send borrowed bytes.
    ///
    /// The tight loop asks this first: what it gets are two words that need no drop.
    #[inline(always)]
    pub(crate) fn into_borrowed(self) -> Result<&'a [u8], Self> {
        match self {
            Self::Send(Packet::Borrowed(bytes)) => Ok(bytes),
            other => Err(other),
        }
    }

    /// Ends the connection.
    pub fn stop(reason: CloseReason) -> Self {
        Self::Stop(reason)
    }

    /// Sends `packet`, then ends the connection.
    pub fn send_and_stop(packet: impl Into<Packet<'a>>, reason: CloseReason) -> Self {
        Self::SendAndStop(packet.into(), reason)
    }
}

/// What is known of a connection when its handler is made.
#[derive(Debug)]
pub struct Accepted<'a> {
    pub(crate) peer_addr: SocketAddr,
    pub(crate) id: ConnectionId,
    pub(crate) listener: &'a str,
}

impl Accepted<'_> {
    /// The peer's address; an IPv4 client of an IPv6 socket is shown as IPv4.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// The connection's name.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The name of the listener that accepted it.
    pub fn listener(&self) -> &str {
        self.listener
    }
}

/// What a callback may do besides returning an [`Action`]. All of it is about the callback's own
/// connection.
pub struct Context<'a, M> {
    pub(crate) conn: &'a mut Connection,
    pub(crate) turn: &'a mut Turn,
    pub(crate) timers: &'a mut Timers<M>,
    pub(crate) profile: &'a Profile<M>,
    pub(crate) seat: Seat,
    pub(crate) stream: &'a dyn Stream,
    /// Answers of this batch that are the packets themselves.
    pub(crate) echo: Echo<'a>,
    /// Packets framed in this dispatch, those of `echo` not counted.
    pub(crate) framed: u64,
}

/// A run of input that is to be sent back as it is, header and all.
///
/// A handler that answers with the very packet it was given, behind the same prefix, asks for bytes
/// that stand in the input already. They are not copied: the run is written straight from there, or
/// copied in one piece once something else has to go behind it.
#[derive(Debug, Default)]
pub(crate) struct Echo<'a> {
    pub(crate) input: &'a [u8],
    /// Bytes of input from the run on, and bytes of it behind the run.
    pub(crate) from: usize,
    pub(crate) behind: usize,
    /// Packets of the batch before the run, and with it.
    pub(crate) first: u32,
    pub(crate) last: u32,
}

impl<'a> Echo<'a> {
    /// Nothing yet, and the first packet may begin it.
    pub(crate) fn of(input: &'a [u8]) -> Self {
        Self { input, from: input.len(), behind: input.len(), first: 0, last: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.from - self.behind
    }

    pub(crate) fn packets(&self) -> u64 {
        (self.last - self.first).into()
    }

    /// Where in the input the run is.
    pub(crate) fn range(&self) -> Range<usize> {
        self.input.len() - self.from..self.input.len() - self.behind
    }
}

impl<M> Context<'_, M> {
    /// A shared packet of this length or longer is queued without a copy. Below it the copy is
    /// cheaper than the system call of its own that it costs to leave it where it is.
    const SHARE_FROM: usize = 16 * 1024;

    /// Queues `packet` for sending, framed. It is written, with everything else that this turn
    /// has for the peer, in one go after the callback.
    ///
    /// # Errors
    ///
    /// In every case nothing was queued, and the connection goes on.
    ///
    /// - [`SendError::TooLarge`]: longer than the framing can express, or than the maximum.
    /// - [`SendError::Full`]: past [`max_queued`](crate::ListenerOptions::max_queued);
    ///   [`Info::Drained`] tells when there is room.
    /// - [`SendError::BadFrame`]: the framer refused it.
    /// - [`SendError::Closing`]: the end was decided before.
    pub fn send<'p>(&mut self, packet: impl Into<Packet<'p>>) -> Result<(), SendError> {
        let sent = self.frame(packet.into());
        if sent.is_err() {
            self.profile.counters.refused_sends.add(1);
        }
        sent
    }

    /// The peer's address; an IPv4 client of an IPv6 socket is shown as IPv4.
    pub fn peer_addr(&self) -> SocketAddr {
        self.seat.peer_addr()
    }

    /// The address the peer connected to: that of the listener, unless it listens on all of them.
    /// Costs a system call. `None` if the connection is broken already.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok().map(canonical)
    }

    /// The connection's name.
    pub fn id(&self) -> ConnectionId {
        ConnectionId {
            serial: self.profile.serial,
            key: self.seat.key,
            generation: self.seat.generation,
        }
    }

    /// Where other threads send this handler messages.
    pub fn address(&self) -> Address<M> {
        Address {
            mailbox: Arc::clone(&self.profile.mailbox),
            key: self.seat.key,
            generation: self.seat.generation,
        }
    }

    /// The reactor's handle: start and stop listeners, shut down.
    pub fn handle(&self) -> Handle {
        self.turn.handle.clone()
    }

    /// Has `message` delivered to this handler after `delay`, rounded up to milliseconds: never
    /// early, and not at all if the connection ends before. `Duration::MAX`: never.
    pub fn send_after(&mut self, delay: Duration, message: M) -> TimerId {
        let at = self.turn.now().after(delay);
        let index = self.timers.next_index();
        let timer = Timer::User { listener: self.profile.slot, index };
        let wheel = self.turn.wheel.arm(at, timer);
        let first = &mut self.conn.rare().first_timer;
        self.timers.insert(self.seat.key, first, at, wheel, message)
    }

    /// Cancels a timer of this connection. Returns whether it was still to come.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        if !self.timers.is_armed(timer, self.seat.key) {
            return false;
        }
        let removed = self.timers.remove(timer, &mut self.conn.rare().first_timer);
        self.turn.wheel.cancel(removed.wheel);
        true
    }

    /// The time, as of this turn. Free of a system call.
    pub fn now(&self) -> Instant {
        self.turn.instant()
    }

    /// Cuts everything from the first byte not yet delivered, buffered bytes included, by another
    /// framing, and frames what is sent from now on by it. The packet clock starts anew.
    ///
    /// The listener's [`max_packet`](crate::ListenerOptions::max_packet) applies where the framing
    /// has no maximum of its own.
    pub fn set_framing(&mut self, framing: impl Into<Framing>) {
        self.conn.set_framing(self.profile.options.limit(framing.into()));
    }

    /// Changes the packet timeout, from the next packet on. `Duration::MAX`: never.
    pub fn set_packet_timeout(&mut self, timeout: Duration) {
        self.conn.set_packet_timeout(timeout);
    }

    /// Changes the idle timeout, at once. `None`: no timeout.
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.conn.set_idle_timeout(timeout);
    }

    /// Neither reads nor delivers any more, end of stream included, until
    /// [`resume_reading`](Self::resume_reading). The packet and the idle clock stand still.
    /// Messages, timers and a reset by the peer still come through.
    ///
    /// Whoever pauses has to resume: a connection that is never resumed stays until its peer resets
    /// it, or the listener's drain forces it.
    pub fn pause_reading(&mut self) {
        self.conn.flags |= flag::PAUSED;
    }

    /// Goes on after [`pause_reading`](Self::pause_reading), with what is buffered first, once this
    /// callback has returned.
    pub fn resume_reading(&mut self) {
        self.conn.flags &= !flag::PAUSED;
    }

    /// Bytes of output that have not been taken by the kernel, length prefixes included.
    pub fn queued_bytes(&self) -> usize {
        self.conn.queued() + self.turn.out.len() + self.echo.len()
    }

    /// Puts the run of answers that are packets where everything else goes, so that something can
    /// go behind it.
    pub(crate) fn end_echo(&mut self) {
        if self.echo.len() > 0 {
            self.framed += self.echo.packets();
            self.turn.out.extend_from_slice(&self.echo.input[self.echo.range()]);
            self.echo = Echo { input: self.echo.input, ..Echo::default() };
        }
    }

    /// Does what a callback asked for. Nothing happens after the end was decided.
    pub(crate) fn apply(&mut self, action: Action<'_>) {
        match action {
            Action::Continue => {}
            Action::Send(packet) => self.answer(packet),
            Action::Stop(reason) => self.conn.close(reason),
            Action::SendAndStop(packet, reason) => {
                self.answer(packet);
                self.conn.close(reason);
            }
        }
    }

    fn answer(&mut self, packet: Packet<'_>) {
        if let Err(error) = self.send(packet) {
            self.conn.close(error.into());
        }
    }

    fn frame(&mut self, packet: Packet<'_>) -> Result<(), SendError> {
        if self.conn.has(flag::CLOSING) {
            return Err(SendError::Closing);
        }
        let payload = packet.as_slice();
        let queued = self.queued_bytes();
        let max = self.profile.options.max_queued;
        if payload.len() > max.saturating_sub(queued) {
            return Err(self.full(queued, max));
        }
        self.end_echo();
        self.conn.flags |= flag::COPIES;
        let framing = self.conn.framing(&self.profile.framing);
        let before = self.turn.out.len();
        match packet {
            Packet::Shared(bytes)
                if bytes.len() >= Self::SHARE_FROM
                    && framing.encode_header(bytes.len(), &mut self.turn.out)? =>
            {
                self.share(bytes, before, queued, max)?;
            }
            _ => {
                let (packet, out) = (packet.as_slice(), &mut self.turn.out);
                match (&self.profile.shape, self.conn.own_framing()) {
                    (Shape::U16(_, prefix), None) => prefix.frame(packet, out)?,
                    _ => framing.frame(packet, out)?,
                }
                if queued + self.turn.out.len() - before > max {
                    self.turn.out.truncate(before);
                    return Err(self.full(queued, max));
                }
            }
        }
        self.framed += 1;
        Ok(())
    }

    /// Everything framed so far, the header of this packet included, goes to the queue, and `bytes`
    /// behind it.
    fn share(
        &mut self,
        bytes: Bytes,
        before: usize,
        queued: usize,
        max: usize,
    ) -> Result<(), SendError> {
        if self.queued_bytes() + bytes.len() > max {
            self.turn.out.truncate(before);
            return Err(self.full(queued, max));
        }
        let now = self.turn.now();
        let queue = self.conn.queue(now, &mut self.turn.pool);
        queue.append(&self.turn.out, &mut self.turn.pool);
        queue.append_shared(bytes);
        self.turn.out.clear();
        // The batch has to end as well: its room is another one now, and all of this is to be
        // offered to the kernel before more is queued.
        self.conn.flags |= flag::REFRAMED;
        Ok(())
    }

    fn full(&mut self, queued: usize, max: usize) -> SendError {
        self.conn.flags |= flag::OWES_DRAINED;
        SendError::Full { queued, max }
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

/// IPv4 clients of an IPv6 socket are shown as what they are.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => SocketAddr::from((ip, addr.port())),
        std::net::IpAddr::V6(_) => addr,
    }
}
