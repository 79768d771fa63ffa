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

/// Options of one listener. The defaults are Condor's where Condor has the option.
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
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_connections: usize,
    pub(crate) write_high_water: usize,
    pub(crate) write_low_water: usize,
    pub(crate) max_queued: usize,
    pub(crate) write_stall_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) linger_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) mailbox_capacity: usize,
    pub(crate) memory_warning: usize,
}

impl ListenerOptions {
    /// The longest [`keepalive`](Self::keepalive): 32,767 s, as Linux has it.
    pub const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

    /// Listens on 127.0.0.1, as Condor does. Port 0 lets the system choose; ask
    /// [`ListenerHandle::local_addr`](crate::ListenerHandle::local_addr) which.
    pub fn port(port: u16) -> Self {
        Self::new((Ipv4Addr::LOCALHOST, port))
    }

    /// Listens on `addr`. The unspecified IPv6 address `[::]` takes IPv4 clients as well, unless
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
            idle_timeout: None,
            max_connections: 100,
            write_high_water: 64 * 1024,
            write_low_water: 32 * 1024,
            max_queued: 8 * 1024 * 1024,
            write_stall_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(10),
            linger_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            mailbox_capacity: 65_536,
            memory_warning: 8 * 1024 * 1024 * 1024,
        }
    }

    /// Listens on a socket that exists and listens already: one that a parent process or systemd
    /// hands over. [`backlog`](Self::backlog) and [`v6_only`](Self::v6_only) are the giver's.
    ///
    /// The start of the listener refuses everything but a listening TCP socket, with
    /// [`Error::Listen`](crate::Error::Listen) that says what it is: a socket that is bound only, a
    /// connected one (systemd's `Accept=yes`), a UDP or a Unix socket, a file.
    ///
    /// Non-blocking mode belongs to all descriptors of a socket together, wherever they are. The
    /// listener turns it on at its start and again before it accepts a connection; so a giver that
    /// keeps a descriptor must not rely on a blocking `accept`. A giver that turns it off does not
    /// stop the reactor: the listener accepts only while a client waits. Only if, between two system
    /// calls of the listener, the giver turns it off and accepts the last client itself, the reactor
    /// waits for the next client.
    ///
    /// While another process holds the same socket, draining this listener refuses nobody: the
    /// connections that wait are left to the other one.
    pub fn from_std(listener: TcpListener) -> Self {
        let mut options = Self::port(0);
        options.origin = Origin::Inherited(Arc::new(listener));
        options
    }

    /// Whether `[::]` leaves IPv4 alone. Default: no, it takes both.
    pub fn v6_only(mut self, v6_only: bool) -> Self {
        self.v6_only = v6_only;
        self
    }

    /// How many clients the kernel lets wait to be accepted. Default: 1024. The system's own limit
    /// (`net.core.somaxconn`) may cut it.
    pub fn backlog(mut self, clients: u32) -> Self {
        self.backlog = clients;
        self
    }

    /// Whether small answers leave at once (TCP_NODELAY). Default: yes; answers of one turn are
    /// written together anyway.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How long a connection is silent before the kernel probes whether the peer still exists
    /// (SO_KEEPALIVE, TCP_KEEPIDLE). Default: it never does. Whole seconds, from 1 to
    /// [`MAX_KEEPALIVE`](Self::MAX_KEEPALIVE).
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.keepalive = Some(idle);
        self
    }

    /// How packets are told apart. Default: [`LengthField::U16`].
    pub fn framing(mut self, framing: impl Into<Framing>) -> Self {
        self.framing = framing.into();
        self
    }

    /// The longest packet accepted and sent, in bytes. Default: what the length field can say, at
    /// most 1 MiB. At least 1. A peer that announces more is disconnected at the header.
    ///
    /// A maximum set on the [`LengthField`] itself comes first; other framers have their own.
    pub fn max_packet(mut self, bytes: usize) -> Self {
        self.max_packet = Some(bytes);
        self
    }

    /// How long a packet may take from its first byte to its last. Default: 10 s. More than zero.
    /// `Duration::MAX`: for ever.
    ///
    /// Later bytes do not extend it: that is the defence against peers that send one byte at a
    /// time. See [`Info::Timeout`](crate::Info::Timeout).
    pub fn packet_timeout(mut self, timeout: Duration) -> Self {
        self.packet_timeout = timeout;
        self
    }

    /// How long a peer may send nothing at all. More than zero. Default: for ever, which means that
    /// silent connections hold their slots of [`max_connections`](Self::max_connections).
    ///
    /// Counted from the peer's last byte. Neither messages nor our own answers reset it, and it
    /// stands still while output is queued or reading is paused.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// The most connections at once, those that only linger included. Default: 100. Further
    /// clients wait in the backlog.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Bytes refused by the kernel above which a connection is neither read nor delivered to, until
    /// its peer has taken enough of them. Default: 64 KiB.
    pub fn write_high_water(mut self, bytes: usize) -> Self {
        self.write_high_water = bytes;
        self
    }

    /// Bytes still queued at which a connection over its high-water mark goes on, after
    /// [`Info::Writable`](crate::Info::Writable). Default: 32 KiB.
    pub fn write_low_water(mut self, bytes: usize) -> Self {
        self.write_low_water = bytes;
        self
    }

    /// The most bytes of output that may wait for one peer. Default: 8 MiB. A `send` past it is
    /// refused; an `Action` past it ends the connection.
    pub fn max_queued(mut self, bytes: usize) -> Self {
        self.max_queued = bytes;
        self
    }

    /// How long a peer may take not one byte while output waits. Default: 30 s. More than zero.
    /// `Duration::MAX`: for ever.
    pub fn write_stall_timeout(mut self, timeout: Duration) -> Self {
        self.write_stall_timeout = timeout;
        self
    }

    /// How long the last output may take to leave after a connection was ended. Default: 10 s. More
    /// than zero. `Duration::MAX`: for ever.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How long the peer's remaining bytes are read and thrown away after our last one was sent,
    /// so that the kernel does not answer them with a reset that destroys output in flight.
    /// Default: 5 s. Zero: not at all.
    pub fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// How long connections get to finish when the listener is stopped. Default: 5 s. Zero: they are
    /// ended at once. `Duration::MAX`: as long as they take.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// The most messages that wait for this listener's connections, on each shard. Default: 65,536.
    /// At least 1. A broadcast counts as one, until the last connection has got it.
    pub fn mailbox_capacity(mut self, messages: usize) -> Self {
        self.mailbox_capacity = messages;
        self
    }

    /// The worst case, in bytes, above which [`check`](Self::check) warns. Default: 8 GiB.
    pub fn memory_warning(mut self, bytes: usize) -> Self {
        self.memory_warning = bytes;
        self
    }

    /// Where to listen; of an inherited socket, where it does.
    pub(crate) fn addr(&self) -> Endpoint {
        match &self.origin {
            Origin::Bind(endpoint) => endpoint.clone(),
            Origin::Inherited(listener) => {
                listener.local_addr().map_or_else(|_| ([0, 0, 0, 0], 0).into(), Endpoint::Inet)
            }
        }
    }

    /// The framing with this listener's maximum filled in.
    pub(crate) fn framing_in_force(&self) -> Framing {
        self.limit(self.framing.clone())
    }

    /// Fills this listener's maximum into a framing that has none of its own.
    pub(crate) fn limit(&self, framing: Framing) -> Framing {
        match self.max_packet {
            Some(max) => framing.with_max(max),
            None => framing,
        }
    }

    /// The most memory that hostile peers can make this listener's connections hold, in bytes:
    /// `max_connections` x (a largest packet, all but one byte of it, twice over for the growth of
    /// its buffer, and `max_queued`).
    pub fn worst_case_memory(&self) -> usize {
        let input = self.framing_in_force().max_packet_in().unwrap_or(0).saturating_mul(2);
        input.saturating_add(self.max_queued).saturating_mul(self.max_connections)
    }
}
