//! Options of the connections of a listener or a connector.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::Limits;
use crate::framing::{Framing, LengthField};

/// What sets options of a socket before it is used.
pub(crate) type ConfigureSocket = fn(BorrowedFd<'_>) -> io::Result<()>;

/// What a connection has by way of options, whichever way it came.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionOptions {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) configure_socket: Option<ConfigureSocket>,
    /// The users that may connect to a Unix socket; `None`: all. Only a listener has it, and only with
    /// the feature `peer-credentials`.
    pub(crate) unix_allow_uids: Option<Arc<[u32]>>,
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

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: None,
            configure_socket: None,
            unix_allow_uids: None,
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
}

impl ConnectionOptions {
    /// The longest keepalive. It is the limit of Linux, `MAX_TCP_KEEPIDLE` in the kernel's
    /// `include/net/tcp.h`.
    pub(crate) const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

    /// The framing with the maximum.
    pub(crate) fn framing_in_force(&self) -> Framing {
        self.limit(self.framing.clone())
    }

    /// Takes the framing out, so that it can be dropped by itself.
    pub(crate) fn take_framing(&mut self) -> Framing {
        std::mem::take(&mut self.framing)
    }

    /// Sets the maximum in a framing that has no maximum of its own.
    pub(crate) fn limit(&self, framing: Framing) -> Framing {
        match self.max_packet {
            Some(max) => framing.with_max(max),
            None => framing,
        }
    }

    /// The time limits and the marks.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            packet_timeout: self.packet_timeout,
            idle_timeout: self.idle_timeout,
            silence_timeout: self.silence_timeout,
            first_packet_timeout: self.first_packet_timeout,
            half_close_timeout: self.half_close_timeout,
            time_the_idle: self.idle_timeout.or(self.silence_timeout).is_some(),
            write_stall_timeout: self.write_stall_timeout,
            write_high_water: self.write_high_water,
            write_low_water: self.write_low_water,
        }
    }
}

/// The setters of the options that a listener and a connector have in common: both have a field
/// `connection`.
macro_rules! connection_setters {
    () => {
        /// Whether the kernel sends small answers at once (`TCP_NODELAY`). Default: yes. With either
        /// value the answers of one turn are written together.
        pub fn nodelay(mut self, nodelay: bool) -> Self {
            self.connection.nodelay = nodelay;
            self
        }

        /// A function that sets options of the sockets for which there is no setter here. A listener
        /// calls it with its listening socket, before it listens, or with the one that it inherits: on
        /// Linux each connection has the options of the socket that accepted it. A connector calls it
        /// with each socket before it connects.
        ///
        /// If it fails, the start of the listener fails with [`Error::Listen`](crate::Error::Listen), or
        /// the attempt of the connector with [`DialError::Connect`](crate::DialError::Connect). A panic
        /// is such a failure, too.
        ///
        /// ```
        /// use std::time::Duration;
        ///
        /// use condor::ListenerOptions;
        /// use socket2::SockRef;
        ///
        /// let options = ListenerOptions::port(5555).configure_socket(|socket| {
        ///     let socket = SockRef::from(&socket);
        ///     // The kernel doubles the value for itself, and cuts it to net.core.rmem_max.
        ///     socket.set_recv_buffer_size(64 * 1024)?;
        ///     // The connection ends if bytes stay unacknowledged for so long. Linux only.
        ///     # #[cfg(target_os = "linux")]
        ///     socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
        ///     Ok(())
        /// });
        /// # assert_eq!(options.check().errors, []);
        /// # let mut reactor = condor::Reactor::new()?;
        /// # struct Idle;
        /// # impl condor::Handler for Idle {
        /// #     type Message = ();
        /// #     fn handle_packet<'a>(
        /// #         &'a mut self,
        /// #         _: &'a [u8],
        /// #         _: &mut condor::Context<'_, ()>,
        /// #     ) -> condor::Action<'a> {
        /// #         condor::Action::Continue
        /// #     }
        /// # }
        /// # reactor.start_listener("idle", options, |_| Idle)?;
        /// # Ok::<(), condor::Error>(())
        /// ```
        ///
        /// `TCP_NOTSENT_LOWAT` keeps little of a slow reader's output in the kernel, so that its queue
        /// here tells how slow it is. `SO_INCOMING_CPU` with one listener on each core gives a core the
        /// connections whose packets it receives. See
        /// [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html) and
        /// [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html).
        pub fn configure_socket(
            mut self,
            configure: fn(std::os::fd::BorrowedFd<'_>) -> std::io::Result<()>,
        ) -> Self {
            self.connection.configure_socket = Some(configure);
            self
        }

        /// How long a connection is silent before the kernel probes whether the peer still exists
        /// (`SO_KEEPALIVE`, `TCP_KEEPIDLE`). Default: the kernel never probes. Whole seconds, from 1 s to
        /// [`MAX_KEEPALIVE`](Self::MAX_KEEPALIVE).
        pub fn keepalive(mut self, idle: Duration) -> Self {
            self.connection.keepalive = Some(idle);
            self
        }

        /// How bytes are cut into packets. Default: [`LengthField::U16`](crate::LengthField::U16).
        pub fn framing(mut self, framing: impl Into<Framing>) -> Self {
            self.connection.framing = framing.into();
            self
        }

        /// The longest packet in bytes, received or sent. Default: the most that the length field can
        /// express, but at most 1 MiB. At least 1.
        ///
        /// If a peer announces a longer packet, its connection ends as soon as the header has arrived,
        /// with [`CloseReason::PacketTooLarge`](crate::CloseReason::PacketTooLarge). A maximum set on
        /// the [`LengthField`](crate::LengthField) itself takes precedence.
        /// [`Lines`](crate::Lines) always have their own maximum, and [`Raw`](crate::Raw) has none.
        /// For a [custom](crate::Framing::custom) framer it limits
        /// the whole frame.
        pub fn max_packet(mut self, bytes: usize) -> Self {
            self.connection.max_packet = Some(bytes);
            self
        }

        /// The longest time from the first byte of a packet to its last. Default: 10 s. More than zero.
        /// `Duration::MAX`: no timeout.
        ///
        /// Later bytes do not extend it. This is the defence against peers that send one byte at a
        /// time. The handler gets [`Info::Timeout`](crate::Info::Timeout).
        pub fn packet_timeout(mut self, timeout: Duration) -> Self {
            self.connection.packet_timeout = timeout;
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
            self.connection.idle_timeout = Some(timeout);
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
            self.connection.silence_timeout = Some(timeout);
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
            self.connection.first_packet_timeout = Some(timeout);
            self
        }

        /// The high-water mark, in bytes of output that the kernel has refused. Default: 64 KiB. At
        /// most [`max_queued`](Self::max_queued).
        ///
        /// Above it the connection is not read, and no packet is delivered. This ends when the queue
        /// has fallen to [`write_low_water`](Self::write_low_water).
        pub fn write_high_water(mut self, bytes: usize) -> Self {
            self.connection.write_high_water = bytes;
            self
        }

        /// The low-water mark, in bytes of queued output. Default: 32 KiB. Below
        /// [`write_high_water`](Self::write_high_water).
        ///
        /// When the queue of a connection above its high-water mark has fallen to it, the handler gets
        /// [`Info::Writable`](crate::Info::Writable), and then the connection is read again.
        pub fn write_low_water(mut self, bytes: usize) -> Self {
            self.connection.write_low_water = bytes;
            self
        }

        /// The most bytes of output that are queued for one peer. Default: 8 MiB. At least the longest
        /// packet with its header.
        ///
        /// If a packet would exceed it, [`Context::send`](crate::Context::send) refuses the packet, and
        /// an [`Action`](crate::Action) with the packet ends the connection.
        pub fn max_queued(mut self, bytes: usize) -> Self {
            self.connection.max_queued = bytes;
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
            self.connection.write_stall_timeout = timeout;
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
            self.connection.half_close_timeout = timeout;
            self
        }

        /// The longest time to send the last output after the end of a connection was decided. Default:
        /// 10 s. More than zero. `Duration::MAX`: no timeout.
        pub fn close_timeout(mut self, timeout: Duration) -> Self {
            self.connection.close_timeout = timeout;
            self
        }

        /// How long a connection lingers: after our last byte was sent, the peer's remaining bytes are
        /// read and dropped. Default: 5 s. Zero: connections do not linger.
        ///
        /// Without lingering the kernel may answer the remaining bytes with a reset, as RFC 1122
        /// §4.2.2.13 asks. A reset destroys output in flight.
        pub fn linger_timeout(mut self, timeout: Duration) -> Self {
            self.connection.linger_timeout = timeout;
            self
        }

        /// The drain deadline: the time that connections have to finish after a stop.
        /// Default: 5 s. Zero: they end at once. `Duration::MAX`: no deadline.
        pub fn drain_timeout(mut self, timeout: Duration) -> Self {
            self.connection.drain_timeout = timeout;
            self
        }

        /// The most messages that wait for its connections, on each shard. Default: 65,536.
        /// At least 1. A broadcast counts as one message, until the last connection has received it, and so
        /// does what is sent to a group. The
        /// answer of a [`Ticket`](crate::Ticket) is never refused: the open tickets limit those.
        pub fn mailbox_capacity(mut self, messages: usize) -> Self {
            self.connection.mailbox_capacity = messages;
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
            self.connection.max_timers = timers;
            self
        }

        /// The most groups that one connection is in at the same time. Default: 1,024. At least 1. At the
        /// maximum, [`Context::join`](crate::Context::join) returns
        /// [`JoinError::Full`](crate::JoinError::Full), and
        /// [`Stats::refused_joins`](crate::Stats::refused_joins) counts it.
        pub fn max_groups(mut self, groups: usize) -> Self {
            self.connection.max_groups = groups;
            self
        }

        /// If [`worst_case_memory`](Self::worst_case_memory) is above this many bytes,
        /// [`check`](Self::check) warns. Default: 10 GiB.
        pub fn memory_warning(mut self, bytes: usize) -> Self {
            self.connection.memory_warning = bytes;
            self
        }
    };
}
pub(super) use connection_setters;
