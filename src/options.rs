//! Every limit there is: its meaning, unit and default, and what it may cost in memory.
//!
//! Options are data. [`ListenerOptions::check`] says everything that is wrong with them, and
//! everything that may not be meant, before a socket is touched.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use crate::framing::{Framing, LengthField};

/// What the options say that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The low-water mark is not below the high-water mark.
    #[error("write_low_water of {low} bytes is not below write_high_water of {high}")]
    WaterMarks {
        /// `write_low_water` in bytes.
        low: usize,
        /// `write_high_water` in bytes.
        high: usize,
    },
    /// The framing contradicts itself, or the maximum is wider than its length field.
    #[error("framing: {0}")]
    Framing(String),
    /// A largest packet would never fit the output queue.
    #[error("max_queued of {max_queued} bytes is less than the largest packet, {max_packet}")]
    QueueSmallerThanPacket {
        /// `max_queued` in bytes.
        max_queued: usize,
        /// The largest packet in bytes.
        max_packet: usize,
    },
    /// The high-water mark would never be reached.
    #[error("write_high_water of {high} bytes is above max_queued of {max_queued}")]
    HighWaterAboveQueue {
        /// `write_high_water` in bytes.
        high: usize,
        /// `max_queued` in bytes.
        max_queued: usize,
    },
    /// A limit of zero, with which nothing would ever happen.
    #[error("{0} is zero")]
    Zero(&'static str),
    /// More connections than a listener's tokens can tell apart.
    #[error("max_connections of {asked} is above {max}")]
    TooManyConnections {
        /// `max_connections` as asked for.
        asked: usize,
        /// The most that is possible.
        max: usize,
    },
}

/// What the options say that may not be meant. It is logged, and the listener starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsWarning {
    /// The process may not open as many descriptors.
    #[error("max_connections is {max_connections}, but the process may open only {fds} files")]
    MoreConnectionsThanFds {
        /// `max_connections`.
        max_connections: usize,
        /// The soft limit on open files.
        fds: usize,
    },
    /// Peers could together make the process hold very much memory.
    #[error("worst case of {bytes} bytes of memory is above memory_warning of {threshold}")]
    WorstCaseMemory {
        /// [`ListenerOptions::worst_case_memory`].
        bytes: usize,
        /// [`ListenerOptions::memory_warning`].
        threshold: usize,
    },
    /// The kernel will cut the backlog.
    #[error("backlog of {backlog} is above the system's limit of {somaxconn}")]
    BacklogCut {
        /// `backlog`.
        backlog: u32,
        /// The kernel's limit.
        somaxconn: u32,
    },
    /// A partial packet holds its memory and its slot for ever.
    #[error("packet_timeout is off: a peer that stops inside a packet holds its slot for ever")]
    NoPacketTimeout,
}

/// All that [`ListenerOptions::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// With any of these, nothing is started.
    pub errors: Vec<OptionsError>,
    /// These are logged.
    pub warnings: Vec<OptionsWarning>,
}

/// Where a listener's socket comes from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Bind(SocketAddr),
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
    framing: Framing,
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
    /// Listens on 127.0.0.1, as Condor does. Port 0 lets the system choose; ask
    /// [`ListenerHandle::local_addr`](crate::ListenerHandle::local_addr) which.
    pub fn port(port: u16) -> Self {
        Self::new((Ipv4Addr::LOCALHOST, port))
    }

    /// Listens on `addr`. The unspecified IPv6 address `[::]` takes IPv4 clients as well, unless
    /// [`v6_only`](Self::v6_only) is set.
    pub fn new(addr: impl Into<SocketAddr>) -> Self {
        Self {
            origin: Origin::Bind(addr.into()),
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
    /// hands over. It is set to non-blocking; [`backlog`](Self::backlog) and
    /// [`v6_only`](Self::v6_only) are the giver's.
    ///
    /// While another process holds the same socket, draining this listener refuses nobody: the
    /// connections that wait are left to the other one.
    /// A socket that cannot be asked for its address is refused when the listener starts.
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
    /// (SO_KEEPALIVE). Default: it never does.
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
    /// most 1 MiB. A peer that announces more is disconnected at the header.
    ///
    /// A maximum set on the [`LengthField`] itself comes first; other framers have their own.
    pub fn max_packet(mut self, bytes: usize) -> Self {
        self.max_packet = Some(bytes);
        self
    }

    /// How long a packet may take from its first byte to its last. Default: 10 s.
    /// `Duration::MAX`: for ever.
    ///
    /// Later bytes do not extend it: that is the defence against peers that send one byte at a
    /// time. See [`Info::Timeout`](crate::Info::Timeout).
    pub fn packet_timeout(mut self, timeout: Duration) -> Self {
        self.packet_timeout = timeout;
        self
    }

    /// How long a peer may send nothing at all. Default: for ever, which means that silent
    /// connections hold their slots of [`max_connections`](Self::max_connections).
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
    /// [`Info::Drained`](crate::Info::Drained). Default: 32 KiB.
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

    /// How long a peer may take not one byte while output waits. Default: 30 s.
    pub fn write_stall_timeout(mut self, timeout: Duration) -> Self {
        self.write_stall_timeout = timeout;
        self
    }

    /// How long the last output may take to leave after a connection was ended. Default: 10 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How long the peer's remaining bytes are read and thrown away after our last one was sent,
    /// so that the kernel does not answer them with a reset that destroys output in flight.
    /// Default: 5 s.
    pub fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// How long connections get to finish when the listener is stopped. Default: 5 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// The most messages that wait for this listener's connections, on each shard. Default: 65,536.
    pub fn mailbox_capacity(mut self, messages: usize) -> Self {
        self.mailbox_capacity = messages;
        self
    }

    /// The worst case, in bytes, above which [`check`](Self::check) warns. Default: 8 GiB.
    pub fn memory_warning(mut self, bytes: usize) -> Self {
        self.memory_warning = bytes;
        self
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

    /// Everything that is wrong, and everything that may not be meant.
    pub fn check(&self) -> Findings {
        Findings { errors: self.errors(), warnings: self.warnings() }
    }

    fn errors(&self) -> Vec<OptionsError> {
        let mut errors = Vec::new();
        let (low, high) = (self.write_low_water, self.write_high_water);
        if low >= high {
            errors.push(OptionsError::WaterMarks { low, high });
        }
        if let Err(problem) =
            self.framing.check().and_then(|()| self.framing.check_max(self.max_packet))
        {
            errors.push(OptionsError::Framing(problem.to_string()));
        }
        let max_queued = self.max_queued;
        if let Some(max_packet) = self.framing_in_force().max_frame_out()
            && max_packet > max_queued
        {
            errors.push(OptionsError::QueueSmallerThanPacket { max_queued, max_packet });
        }
        if high > max_queued {
            errors.push(OptionsError::HighWaterAboveQueue { high, max_queued });
        }
        for (value, name) in [
            (self.max_connections, "max_connections"),
            (self.mailbox_capacity, "mailbox_capacity"),
            (self.backlog as usize, "backlog"),
            (usize::from(self.idle_timeout != Some(Duration::ZERO)), "idle_timeout"),
        ] {
            if value == 0 {
                errors.push(OptionsError::Zero(name));
            }
        }
        let max = crate::token::MAX_CONNECTIONS;
        if self.max_connections > max {
            errors.push(OptionsError::TooManyConnections { asked: self.max_connections, max });
        }
        errors
    }

    fn warnings(&self) -> Vec<OptionsWarning> {
        let mut warnings = Vec::new();
        let max_connections = self.max_connections;
        if let Some(fds) = fd_limit()
            && max_connections > fds
        {
            warnings.push(OptionsWarning::MoreConnectionsThanFds { max_connections, fds });
        }
        let (bytes, threshold) = (self.worst_case_memory(), self.memory_warning);
        if bytes > threshold {
            warnings.push(OptionsWarning::WorstCaseMemory { bytes, threshold });
        }
        if let Some(somaxconn) = somaxconn()
            && self.backlog > somaxconn
        {
            warnings.push(OptionsWarning::BacklogCut { backlog: self.backlog, somaxconn });
        }
        if self.packet_timeout == Duration::MAX {
            warnings.push(OptionsWarning::NoPacketTimeout);
        }
        warnings
    }
}

/// The soft limit on open files, where the system tells it in a file.
fn fd_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn somaxconn() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// Options of a reactor: its buffers, and the budgets that keep it fair.
///
/// A budget bounds what one turn does for one connection, listener, mailbox or wheel. What is left
/// over is done in the next turn, after everybody else's share, and without waiting for new events.
#[derive(Debug, Clone)]
pub struct ReactorOptions {
    pub(crate) read_buffer: usize,
    pub(crate) packet_budget: u32,
    pub(crate) accept_budget: u32,
    pub(crate) message_budget: u32,
    pub(crate) timer_budget: usize,
    pub(crate) events: usize,
    pub(crate) slow_turn: Duration,
    pub(crate) busy_poll: Duration,
    pub(crate) drain_lead: Duration,
}

impl Default for ReactorOptions {
    fn default() -> Self {
        Self {
            read_buffer: 256 * 1024,
            packet_budget: 4096,
            accept_budget: 64,
            message_budget: 1024,
            timer_budget: 4096,
            events: 256,
            slow_turn: Duration::from_millis(100),
            busy_poll: Duration::ZERO,
            drain_lead: Duration::ZERO,
        }
    }
}

impl ReactorOptions {
    /// Output of one peer beyond which it is written before the peer gets more packets, in bytes.
    pub(crate) const FLUSH_AT: usize = 256 * 1024;
    /// A batch of events this large or larger is not grown any more.
    pub(crate) const MAX_EVENTS: usize = 16 * 1024;

    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Size of the one buffer that all sockets are read into, and with it the most bytes that one
    /// connection is read per turn, in reads of 64 KiB at most. Default: 256 KiB. At least 4 KiB.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.read_buffer = bytes.max(4096);
        self
    }

    /// The most packets delivered to one connection per turn. Default: 4,096. At least 1.
    pub fn packet_budget(mut self, packets: u32) -> Self {
        self.packet_budget = packets.max(1);
        self
    }

    /// The most connections accepted per listener and turn; short turns take fewer, until it shows
    /// that more wait. Default: 64. At least 1.
    pub fn accept_budget(mut self, connections: u32) -> Self {
        self.accept_budget = connections.max(1);
        self
    }

    /// The most messages delivered per listener and turn, each recipient of a broadcast counted.
    /// Default: 1,024. At least 1.
    pub fn message_budget(mut self, messages: u32) -> Self {
        self.message_budget = messages.max(1);
        self
    }

    /// The most timers fired or moved per turn. Default: 4,096. At least 1.
    pub fn timer_budget(mut self, timers: usize) -> Self {
        self.timer_budget = timers.max(1);
        self
    }

    /// Capacity of the first batch of events. Default: 256. It grows to 16,384 when a
    /// batch comes back full.
    pub fn events(mut self, events: usize) -> Self {
        self.events = events.clamp(1, Self::MAX_EVENTS);
        self
    }

    /// A turn that takes longer than this is logged as a warning, with the listener that took most
    /// of it. Default: 100 ms.
    pub fn slow_turn(mut self, threshold: Duration) -> Self {
        self.slow_turn = threshold;
        self
    }

    /// How long to poll without blocking after the last event: latency for the price of a busy
    /// core. Default: zero, block at once.
    pub fn busy_poll(mut self, duration: Duration) -> Self {
        self.busy_poll = duration;
        self
    }

    /// How long [`Handle::shutdown`](crate::Handle::shutdown) leaves the listening sockets open
    /// after [`Handle::is_ready`](crate::Handle::is_ready) has turned to no, so that a load balancer
    /// has time to notice. Default: zero.
    pub fn drain_lead(mut self, lead: Duration) -> Self {
        self.drain_lead = lead;
        self
    }
}
