//! Options of one listener.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::framing::{Framing, LengthField};

/// Where a listener's socket comes from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Bind(Endpoint),
    Inherited(Arc<TcpListener>),
}

/// Options of one listener: its address, its framing and its limits.
///
/// [`port`](Self::port), [`new`](Self::new) and [`from_std`](Self::from_std) make them. Each option
/// has a default, given here in parentheses. If Erlang's Condor has the option, the default is the
/// same.
///
/// - Packets: [`framing`](Self::framing) (a length of two bytes), [`max_packet`](Self::max_packet)
///   (what the length can express, at most 1 MiB).
/// - Peers that send too slowly: [`packet_timeout`](Self::packet_timeout) (10 s),
///   [`first_packet_timeout`](Self::first_packet_timeout) (none),
///   [`idle_timeout`](Self::idle_timeout) (none), [`silence_timeout`](Self::silence_timeout) (none),
///   [`keepalive`](Self::keepalive) (none).
/// - Peers that read too slowly: [`write_high_water`](Self::write_high_water) (64 KiB),
///   [`write_low_water`](Self::write_low_water) (32 KiB), [`max_queued`](Self::max_queued) (8 MiB),
///   [`write_stall_timeout`](Self::write_stall_timeout) (60 s).
/// - Peers that send no more: [`half_close_timeout`](Self::half_close_timeout) (30 s).
/// - How much at once: [`max_connections`](Self::max_connections) (100),
///   [`mailbox_capacity`](Self::mailbox_capacity) (65,536 messages),
///   [`max_timers`](Self::max_timers) (1,024 of each connection),
///   [`max_groups`](Self::max_groups) (1,024 of each connection),
///   [`memory_warning`](Self::memory_warning) (10 GiB).
/// - The end: [`close_timeout`](Self::close_timeout) (10 s),
///   [`linger_timeout`](Self::linger_timeout) (5 s), [`drain_timeout`](Self::drain_timeout) (5 s).
/// - The sockets: [`backlog`](Self::backlog) (1,024 clients), [`nodelay`](Self::nodelay) (yes),
///   [`v6_only`](Self::v6_only) (no).
///
/// Wrong values give no error in the setters. [`check`](Self::check) finds them, and the start of
/// the listener refuses them with [`Error::Options`](crate::Error::Options).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use condor::{LengthField, ListenerOptions};
///
/// let options = ListenerOptions::port(5555)
///     .framing(LengthField::U32)
///     .max_packet(64 * 1024)
///     .packet_timeout(Duration::from_secs(2))
///     .max_connections(1_000);
/// assert_eq!(options.check().errors, []);
/// ```
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    pub(crate) origin: Origin,
    pub(crate) v6_only: bool,
    pub(crate) backlog: u32,
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(super) framing: Framing,
    pub(crate) max_packet: Option<usize>,
    pub(crate) packet_timeout: Duration,
    pub(crate) first_packet_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) silence_timeout: Option<Duration>,
    pub(crate) max_connections: usize,
    pub(crate) write_high_water: usize,
    pub(crate) write_low_water: usize,
    pub(crate) max_queued: usize,
    pub(crate) write_stall_timeout: Duration,
    pub(crate) half_close_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) linger_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) mailbox_capacity: usize,
    pub(crate) max_timers: usize,
    pub(crate) max_groups: usize,
    pub(crate) memory_warning: usize,
}

impl ListenerOptions {
    /// The longest [`keepalive`](Self::keepalive): 32,767 s. It is the limit of Linux,
    /// `MAX_TCP_KEEPIDLE` in the kernel's `include/net/tcp.h`.
    pub const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

    /// Listens on 127.0.0.1, as Erlang's Condor does. With port 0 the system chooses a port, and
    /// [`ListenerHandle::local_addr`](crate::ListenerHandle::local_addr) returns it.
    pub fn port(port: u16) -> Self {
        Self::new((Ipv4Addr::LOCALHOST, port))
    }

    /// Listens on `addr`. The unspecified IPv6 address `[::]` accepts IPv4 clients, too, unless
    /// [`v6_only`](Self::v6_only) is set.
    pub fn new(addr: impl Into<SocketAddr>) -> Self {
        Self {
            origin: Origin::Bind(addr.into().into()),
            v6_only: false,
            backlog: 1024,
            nodelay: true,
            keepalive: None,
            framing: LengthField::U16.into(),
            max_packet: None,
            packet_timeout: Duration::from_secs(10),
            first_packet_timeout: None,
            idle_timeout: None,
            silence_timeout: None,
            max_connections: 100,
            write_high_water: 64 * 1024,
            write_low_water: 32 * 1024,
            max_queued: 8 * 1024 * 1024,
            write_stall_timeout: Duration::from_secs(60),
            half_close_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(10),
            linger_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            mailbox_capacity: 65_536,
            max_timers: 1_024,
            max_groups: 1_024,
            memory_warning: 10 * 1024 * 1024 * 1024,
        }
    }

    /// Uses an existing socket that already listens: one that a parent process or systemd passes
    /// on. [`backlog`](Self::backlog) and [`v6_only`](Self::v6_only) have no effect, because the
    /// other process has set them.
    ///
    /// # Errors
    ///
    /// The descriptor must be a listening TCP socket. Otherwise the start of the listener fails
    /// with [`Error::Listen`](crate::Error::Listen), which says what the descriptor is: a socket
    /// that is only bound, a connected socket (systemd's `Accept=yes`), a UDP socket, a Unix
    /// socket, or a file.
    ///
    /// # Sharing the socket
    ///
    /// All descriptors of a socket, in all processes, share one non-blocking mode. The listener
    /// turns it on at its start, and again before it accepts a connection. So another process that
    /// keeps a descriptor must not rely on a blocking `accept`.
    ///
    /// If the other process turns the mode off, the reactor does not stop, because the listener
    /// accepts only while a client waits. There is one exception: between two system calls of the
    /// listener, the other process turns the mode off and accepts the last client itself. The
    /// reactor then waits for the next client.
    ///
    /// If the other process calls `shutdown` on the socket, no holder can accept any more. The
    /// listener is then drained and closed as by a stop; see
    /// [`ListenerHandle::failure`](crate::ListenerHandle::failure). A linger time that the other
    /// process sets (`SO_LINGER`) is turned off for each accepted connection, because it would make
    /// `close` block the reactor.
    ///
    /// While another process holds the same socket, draining this listener refuses no client. The
    /// connections in the backlog are left to the other process.
    pub fn from_std(listener: TcpListener) -> Self {
        let mut options = Self::port(0);
        options.origin = Origin::Inherited(Arc::new(listener));
        options
    }

    /// Whether `[::]` accepts IPv6 clients only. Default: no, it accepts IPv4 clients, too.
    pub fn v6_only(mut self, v6_only: bool) -> Self {
        self.v6_only = v6_only;
        self
    }

    /// The most clients that wait in the kernel to be accepted. Default: 1024. At least 1. If it is
    /// above the system's limit, the kernel cuts it to that limit. On Linux the limit is
    /// `net.core.somaxconn`, see [listen(2)](https://man7.org/linux/man-pages/man2/listen.2.html).
    pub fn backlog(mut self, clients: u32) -> Self {
        self.backlog = clients;
        self
    }

    /// Whether the kernel sends small answers at once (`TCP_NODELAY`). Default: yes. With either
    /// value the answers of one turn are written together.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How long a connection is silent before the kernel probes whether the peer still exists
    /// (`SO_KEEPALIVE`, `TCP_KEEPIDLE`). Default: the kernel never probes. Whole seconds, from 1 s to
    /// [`MAX_KEEPALIVE`](Self::MAX_KEEPALIVE).
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.keepalive = Some(idle);
        self
    }

    /// How bytes are cut into packets. Default: [`LengthField::U16`].
    pub fn framing(mut self, framing: impl Into<Framing>) -> Self {
        self.framing = framing.into();
        self
    }

    /// The longest packet in bytes, received or sent. Default: the most that the length field can
    /// express, but at most 1 MiB. At least 1.
    ///
    /// If a peer announces a longer packet, its connection ends as soon as the header has arrived,
    /// with [`CloseReason::PacketTooLarge`](crate::CloseReason::PacketTooLarge). A maximum set on
    /// the [`LengthField`] itself takes precedence. [`Lines`](crate::Lines) always have their own
    /// maximum, and [`Raw`](crate::Raw) has none. For a [custom](Framing::custom) framer it limits
    /// the whole frame.
    pub fn max_packet(mut self, bytes: usize) -> Self {
        self.max_packet = Some(bytes);
        self
    }

    /// The longest time from the first byte of a packet to its last. Default: 10 s. More than zero.
    /// `Duration::MAX`: no timeout.
    ///
    /// Later bytes do not extend it. This is the defence against peers that send one byte at a
    /// time. The handler gets [`Info::Timeout`](crate::Info::Timeout).
    pub fn packet_timeout(mut self, timeout: Duration) -> Self {
        self.packet_timeout = timeout;
        self
    }

    /// The longest time in which a peer sends no byte. Default: no timeout, so silent connections
    /// hold their slots of [`max_connections`](Self::max_connections). More than zero.
    ///
    /// After this time the connection ends with
    /// [`CloseReason::IdleTimeout`](crate::CloseReason::IdleTimeout). The time counts from the
    /// peer's last byte. Messages and our own answers do not reset it. It stands still while output
    /// is queued or reading is paused. If it has to run then, too, use
    /// [`silence_timeout`](Self::silence_timeout). It does not know of answers that are still being
    /// made: see [`Replies`](crate::Replies#what-it-leaves-to-you).
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// The longest time in which a peer sends no byte, whatever else goes on. Default: no timeout.
    /// More than zero.
    ///
    /// After this time the connection ends with
    /// [`CloseReason::SilenceTimeout`](crate::CloseReason::SilenceTimeout), and queued output is
    /// dropped. The time counts from the peer's last byte. Unlike the
    /// [idle timeout](Self::idle_timeout) it does not stand still while output is queued or reading
    /// is paused. Protocols with a keepalive need this: an MQTT client that sends nothing for one and
    /// a half times its keepalive counts as gone, even if much output is queued for it. If each client
    /// chooses the time, use
    /// [`Context::set_silence_timeout`](crate::Context::set_silence_timeout).
    ///
    /// A peer is not silent while its bytes wait in the kernel because the connection is not read. A
    /// peer that has shut down its sending half is not silent either.
    pub fn silence_timeout(mut self, timeout: Duration) -> Self {
        self.silence_timeout = Some(timeout);
        self
    }

    /// The longest time from the accept of a connection to its first whole packet. Default: no
    /// timeout, so connections that send nothing hold their slots of
    /// [`max_connections`](Self::max_connections). More than zero.
    ///
    /// After this time the handler gets [`Info::Timeout`](crate::Info::Timeout) with the bytes that
    /// have arrived, often none. It is an [`expect_within`](crate::Context::expect_within) before
    /// `init`, so `init` may change it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use condor::testing::Harness;
    /// use condor::{Action, CloseReason, Context, Handler, ListenerOptions};
    ///
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::send(packet)
    /// #     }
    /// # }
    /// let options = ListenerOptions::port(5555).first_packet_timeout(Duration::from_secs(5));
    /// let silent = Harness::new(options, |_| Echo);
    /// let talks = silent.connect();
    /// talks.packet(b"hello");
    /// silent.advance(Duration::from_secs(5));
    /// assert_eq!(silent.closed(), Some(CloseReason::PacketTimeout));
    /// assert_eq!(talks.closed(), None);
    /// ```
    pub fn first_packet_timeout(mut self, timeout: Duration) -> Self {
        self.first_packet_timeout = Some(timeout);
        self
    }

    /// The most connections at the same time, lingering ones included. Default: 100. From 1 to
    /// 4,194,303. Further clients wait in the backlog.
    ///
    /// [`Handle::set_max_connections`](crate::Handle::set_max_connections) changes it while the
    /// listener runs.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// The high-water mark, in bytes of output that the kernel has refused. Default: 64 KiB. At
    /// most [`max_queued`](Self::max_queued).
    ///
    /// Above it the connection is not read, and no packet is delivered. This ends when the queue
    /// has fallen to [`write_low_water`](Self::write_low_water).
    pub fn write_high_water(mut self, bytes: usize) -> Self {
        self.write_high_water = bytes;
        self
    }

    /// The low-water mark, in bytes of queued output. Default: 32 KiB. Below
    /// [`write_high_water`](Self::write_high_water).
    ///
    /// When the queue of a connection above its high-water mark has fallen to it, the handler gets
    /// [`Info::Writable`](crate::Info::Writable), and then the connection is read again.
    pub fn write_low_water(mut self, bytes: usize) -> Self {
        self.write_low_water = bytes;
        self
    }

    /// The most bytes of output that are queued for one peer. Default: 8 MiB. At least the longest
    /// packet with its header.
    ///
    /// If a packet would exceed it, [`Context::send`](crate::Context::send) refuses the packet, and
    /// an [`Action`](crate::Action) with the packet ends the connection.
    pub fn max_queued(mut self, bytes: usize) -> Self {
        self.max_queued = bytes;
        self
    }

    /// The longest time in which a peer takes no byte while output is queued. Default: 60 s. More
    /// than zero. `Duration::MAX`: no timeout.
    ///
    /// After it the connection ends with
    /// [`CloseReason::WriteStalled`](crate::CloseReason::WriteStalled). A peer that sends many requests
    /// before it reads the first answer ends like this, too: above
    /// [`write_high_water`](Self::write_high_water) its requests are not read. If such peers are
    /// welcome, raise `write_high_water` and [`max_queued`](Self::max_queued) to the length of all
    /// answers.
    pub fn write_stall_timeout(mut self, timeout: Duration) -> Self {
        self.write_stall_timeout = timeout;
        self
    }

    /// The longest time without output after the peer has ended its half. Default: 30 s.
    ///
    /// It matters for handlers that go on after [`Info::EndOfInput`](crate::Info::EndOfInput). The
    /// time counts from that event, which waits while reading is paused, and from each later byte of
    /// output that the kernel takes. Then
    /// the connection ends with
    /// [`CloseReason::HalfCloseTimeout`](crate::CloseReason::HalfCloseTimeout), and queued output is
    /// still sent. `Duration::MAX`: no timeout. Zero: only what the handler answers at once is sent.
    pub fn half_close_timeout(mut self, timeout: Duration) -> Self {
        self.half_close_timeout = timeout;
        self
    }

    /// The longest time to send the last output after the end of a connection was decided. Default:
    /// 10 s. More than zero. `Duration::MAX`: no timeout.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How long a connection lingers: after our last byte was sent, the peer's remaining bytes are
    /// read and dropped. Default: 5 s. Zero: connections do not linger.
    ///
    /// Without lingering the kernel may answer the remaining bytes with a reset, as RFC 1122
    /// §4.2.2.13 asks. A reset destroys output in flight.
    pub fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// The drain deadline: the time that connections have to finish after the listener was stopped.
    /// Default: 5 s. Zero: they end at once. `Duration::MAX`: no deadline.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// The most messages that wait for this listener's connections, on each shard. Default: 65,536.
    /// At least 1. A broadcast counts as one message, until the last connection has received it, and so
    /// does what is sent to a group. The
    /// answer of a [`Ticket`](crate::Ticket) is never refused: the open tickets limit those.
    pub fn mailbox_capacity(mut self, messages: usize) -> Self {
        self.mailbox_capacity = messages;
        self
    }

    /// The most timers of [`send_after`](crate::Context::send_after) that one connection has at the
    /// same time. Default: 1,024. At least 1.
    ///
    /// A timer counts until it has fired or is cancelled, whatever its delay is. At the maximum,
    /// `send_after` returns [`TimerError::Full`](crate::TimerError::Full), and
    /// [`Stats::refused_timers`](crate::Stats::refused_timers) counts it. So a peer cannot make a
    /// handler that sets a timer for each packet fill the memory.
    pub fn max_timers(mut self, timers: usize) -> Self {
        self.max_timers = timers;
        self
    }

    /// The most groups that one connection is in at the same time. Default: 1,024. At least 1. At the
    /// maximum, [`Context::join`](crate::Context::join) returns
    /// [`JoinError::Full`](crate::JoinError::Full), and
    /// [`Stats::refused_joins`](crate::Stats::refused_joins) counts it.
    pub fn max_groups(mut self, groups: usize) -> Self {
        self.max_groups = groups;
        self
    }

    /// If [`worst_case_memory`](Self::worst_case_memory) is above this many bytes,
    /// [`check`](Self::check) warns. Default: 10 GiB.
    pub fn memory_warning(mut self, bytes: usize) -> Self {
        self.memory_warning = bytes;
        self
    }

    /// The address to listen on. For an inherited socket it is the socket's address.
    pub(crate) fn addr(&self) -> Endpoint {
        match &self.origin {
            Origin::Bind(endpoint) => endpoint.clone(),
            Origin::Inherited(listener) => {
                listener.local_addr().map_or_else(|_| ([0, 0, 0, 0], 0).into(), Endpoint::Inet)
            }
        }
    }

    /// The listener's framing with the listener's maximum.
    pub(crate) fn framing_in_force(&self) -> Framing {
        self.limit(self.framing.clone())
    }

    /// Takes the framing out, so that it can be dropped by itself.
    pub(crate) fn take_framing(&mut self) -> Framing {
        std::mem::take(&mut self.framing)
    }

    /// Sets the listener's maximum in a framing that has no maximum of its own.
    pub(crate) fn limit(&self, framing: Framing) -> Framing {
        match self.max_packet {
            Some(max) => framing.with_max(max),
            None => framing,
        }
    }
}
