//! Counters of events, per listener and in sum. Any thread reads them without a lock.
//!
//! The counters of a listener have one writer, the thread of its reactor. So counting is a plain
//! load, add and store. A reader sees each counter whole, but not all counters at the same instant.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::reason::CloseReason;

/// One counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub(crate) fn sub(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(count), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one listener while it runs.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            pub(crate) closed: [Counter; CloseKind::COUNT],
            /// The senders write it, from any thread, so it is an atomic of its own.
            pub(crate) refused_messages: AtomicU64,
        }

        /// A snapshot of the counters of one listener, or of the sum of several listeners.
        ///
        /// [`ListenerHandle::stats`](crate::ListenerHandle::stats) returns the counters of one
        /// listener, [`Handle::stats`](crate::Handle::stats) the sum of all. They count from the
        /// start of the listener. Only [`open`](Self::open), [`opening`](Self::opening) and
        /// [`half_closed`](Self::half_closed) ever fall: see [`GAUGES`](Self::GAUGES).
        ///
        /// What has happened in a period is the difference of two snapshots:
        ///
        /// ```
        /// use std::time::Duration;
        ///
        /// use condor::{Reactor, Stats};
        ///
        /// let mut reactor = Reactor::new()?;
        /// let handle = reactor.handle();
        /// let mut before = Stats::default();
        /// let _line = reactor.every(Duration::from_secs(1), move || {
        ///     let now = handle.stats();
        ///     let packets = now.packets_in - before.packets_in;
        ///     println!("{} open, {packets} packets in the last second", now.open);
        ///     before = now;
        /// })?;
        /// # Ok::<(), condor::Error>(())
        /// ```
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Messages refused because the mailbox was full. Their senders got them back.
            pub refused_messages: u64,
            closed: [u64; CloseKind::COUNT],
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats {
                    $($name: self.$name.get(),)*
                    refused_messages: self.refused_messages.load(Relaxed),
                    closed: std::array::from_fn(|kind| self.closed[kind].get()),
                }
            }
        }

        impl Stats {
            /// Adds the counters of another listener.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
                self.refused_messages = self.refused_messages.wrapping_add(other.refused_messages);
                for (mine, theirs) in self.closed.iter_mut().zip(other.closed) {
                    *mine = mine.wrapping_add(theirs);
                }
            }

            /// Every counter with its name, except those of [`closed`](Self::closed).
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)* ("refused_messages", self.refused_messages)]
                    .into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted. If there are several shards, one of them accepts for all, and counts
    /// all connections here. The shard that serves a connection counts it in `open`, and in `made` or
    /// `refused`. The others are in `opening` or `opening_failed`, or on their way to another shard.
    accepted,
    /// Connections given to the listener by [`Handle::adopt`](crate::Handle::adopt). They are not
    /// among the accepted ones. The shard that serves a connection counts it.
    adopted,
    /// Dials that a connector began. Each tries all addresses until one answers.
    dials,
    /// Dials that failed: see [`DialError`](crate::DialError). One that a factory refuses does not count,
    /// nor does one that a drain ends.
    dial_failures,
    /// Addresses that dials tried.
    attempts,
    /// Connections that hold a slot now, lingering ones included.
    open,
    /// Connections whose handler got [`Info::EndOfInput`](crate::Info::EndOfInput), and has not been
    /// terminated.
    half_closed,
    /// Handlers made by the factory.
    made,
    /// Connections that the factory refused with a [`Refusal`](crate::Refusal). They got no handler.
    refused,
    /// Accepted connections that are opening: their PROXY header has not arrived.
    opening,
    /// Connections that have ended before a handler was made for them, for another reason than a
    /// [`Refusal`](crate::Refusal). `opening_timeouts`, `crowded`, `untrusted`, `bad_headers`,
    /// `health_checks`, `refused_uids` and `register_errors` are parts of it. Panics of a factory and
    /// connections refused by a drain count in it, too.
    ///
    /// For a listener, `accepted` and `adopted` together are `made`, `refused`, `opening_failed` and
    /// `opening` together, but for connections on their way to another shard.
    opening_failed,
    /// Connections whose PROXY header was not complete within
    /// [`opening_timeout`](crate::ListenerOptions::opening_timeout).
    opening_timeouts,
    /// Connections that had not sent their PROXY header when a newer one, or its descriptor, needed their
    /// place. See
    /// [`max_opening`](crate::ListenerOptions::max_opening).
    crowded,
    /// Connections from an address that may not send a PROXY header. They were closed before a byte
    /// was read.
    untrusted,
    /// Connections whose PROXY header was wrong, or ended too early.
    bad_headers,
    /// Connections that have ended before a byte of their PROXY header came, as the checks of balancers
    /// do.
    health_checks,
    /// Peers of Unix sockets that may not connect: `unix_allow_uids` does not have the user of their
    /// process. They were closed before a byte was read.
    refused_uids,
    /// Handlers whose `terminate` has been called.
    terminated,
    /// Packets handed to `handle_packet`.
    packets_in,
    /// Packets framed for sending.
    packets_out,
    /// Bytes read from sockets.
    bytes_in,
    /// Bytes that the kernel has taken for sending.
    bytes_out,
    /// Packet timeouts. Each counts, whether or not the handler ended the connection.
    packet_timeouts,
    /// Times that no whole packet came within a
    /// [`first_packet_timeout`](crate::ListenerOptions::first_packet_timeout) or an
    /// [`expect_within`](crate::Context::expect_within). Each counts, whether or not the handler
    /// ended the connection.
    expect_timeouts,
    /// Packets refused with a `SendError`, those of a group included.
    refused_sends,
    /// Packets of a group that a member did not get because it reads too slowly, by
    /// [`SlowMember::Skip`](crate::SlowMember::Skip).
    skipped_packets,
    /// Joins refused with a `JoinError` because the connection is in too many groups.
    refused_joins,
    /// Timers refused with a `TimerError`.
    refused_timers,
    /// Messages handed to `handle_info`, timers of `send_after` included.
    messages,
    /// Messages dropped because their connection had ended when they arrived.
    dropped_messages,
    /// `accept` calls that failed. A call that found no client waiting does not count.
    accept_errors,
    /// Times that accepting was paused: descriptors or memory were short, or `accept` failed many
    /// times in a row.
    accept_pauses,
    /// Listening sockets that failed. The listener was then drained and closed. See
    /// [`ListenerHandle::failure`](crate::ListenerHandle::failure).
    listener_failures,
    /// Accepted sockets that could not be registered for events. They were closed, without a
    /// handler.
    register_errors,
    /// Panics of your code: in callbacks and factories, in clones of messages, and in drops of
    /// messages, framers and owners of shared bytes. Those in calls of
    /// [`every`](crate::Handle::every) belong to no listener: only
    /// [`Handle::stats`](crate::Handle::stats) counts them.
    panics,
    /// Turns in which the accept budget was used up.
    accept_budget_hits,
    /// Times that `max_connections` was reached. Further clients then wait in the backlog.
    connection_limit_hits,
    /// Times that a connection used up its read budget (bytes) and waited for the next turn.
    read_budget_hits,
    /// Times that a connection used up its packet budget and waited for the next turn.
    packet_budget_hits,
    /// Times that a connection used up its slice of time and waited for a later turn.
    time_slice_hits,
    /// Times that a connection used up its output budget (bytes) and waited for the next turn.
    output_budget_hits,
    /// Turns in which the message budget was used up. Remaining messages wait for the next turn.
    message_budget_hits,
    /// Times that a connection's queued output rose above the high-water mark.
    high_water_hits,
}

impl Stats {
    /// The names in [`iter`](Self::iter) whose numbers rise and fall. All others only rise.
    pub const GAUGES: &'static [&'static str] = &["open", "half_closed", "opening"];

    /// Connections ended for reasons of this kind.
    pub fn closed(&self, kind: CloseKind) -> u64 {
        self.closed[kind as usize]
    }

    /// Connections ended, for all reasons together.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }
}

macro_rules! close_kinds {
    ($($name:ident $pattern:pat,)*) => {
        /// The kind of a [`CloseReason`]. [`Stats::closed`] counts closed connections by it.
        #[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseKind {
            $(#[doc = concat!("Counts [`CloseReason::", stringify!($name), "`].")] $name,)*
        }

        impl CloseKind {
            /// All kinds, in the order of the enum.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            pub(crate) const COUNT: usize = Self::ALL.len();
        }

        impl From<CloseReason> for CloseKind {
            fn from(reason: CloseReason) -> Self {
                match reason {
                    $($pattern => Self::$name,)*
                }
            }
        }
    };
}

close_kinds! {
    Normal CloseReason::Normal,
    PeerClosed CloseReason::PeerClosed,
    PeerClosedMidPacket CloseReason::PeerClosedMidPacket { .. },
    Reset CloseReason::Reset,
    Io CloseReason::Io(_),
    PacketTimeout CloseReason::PacketTimeout,
    IdleTimeout CloseReason::IdleTimeout,
    SilenceTimeout CloseReason::SilenceTimeout,
    HalfCloseTimeout CloseReason::HalfCloseTimeout,
    WriteStalled CloseReason::WriteStalled,
    PacketTooLarge CloseReason::PacketTooLarge { .. },
    AnswerTooLarge CloseReason::AnswerTooLarge { .. },
    BadFrame CloseReason::BadFrame(_),
    FramerBug CloseReason::FramerBug,
    SlowReader CloseReason::SlowReader,
    Panicked CloseReason::Panicked,
    Shutdown CloseReason::Shutdown,
    DrainForced CloseReason::DrainForced,
    PartnerEnded CloseReason::PartnerEnded,
    Custom CloseReason::Custom(_),
    Code CloseReason::Code(_),
}

impl fmt::Display for CloseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
