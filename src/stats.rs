//! Counters: what happened, per listener and in sum, read from any thread without a lock.
//!
//! Each listener has one writer, its reactor's thread, so counting is a plain load, add and store;
//! readers see each counter whole, though not all counters of one instant.

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
            /// Written by senders of any thread, hence apart.
            pub(crate) refused_messages: AtomicU64,
        }

        /// A snapshot of the counters, of one listener or of several in sum.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Messages given back to their senders because the mailbox was full.
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
            /// Adds another listener's counters.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
                self.refused_messages = self.refused_messages.wrapping_add(other.refused_messages);
                for (mine, theirs) in self.closed.iter_mut().zip(other.closed) {
                    *mine = mine.wrapping_add(theirs);
                }
            }

            /// Every counter but those of [`closed`](Self::closed), with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)* ("refused_messages", self.refused_messages)]
                    .into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections that hold a slot now, those that only linger included.
    open,
    /// Handlers made by the factory.
    made,
    /// Handlers whose `terminate` has been called.
    terminated,
    /// Packets handed to `handle_packet`.
    packets_in,
    /// Packets framed for sending.
    packets_out,
    /// Bytes read from sockets.
    bytes_in,
    /// Bytes taken by the kernel.
    bytes_out,
    /// Packet timeouts, whatever the handler answered.
    packet_timeouts,
    /// Packets refused with a `SendError`.
    refused_sends,
    /// Messages handed to `handle_info`, timers of `send_after` included.
    messages,
    /// Messages whose connection was gone when they arrived.
    dropped_messages,
    /// `accept` calls that failed, other than for want of a client.
    accept_errors,
    /// Times that accepting was paused for want of descriptors or memory.
    accept_pauses,
    /// Sockets that could not be registered, and were closed before any handler was made.
    register_errors,
    /// Panics in callbacks.
    panics,
    /// Turns in which the accept budget stopped accepting.
    accept_budget_hits,
    /// Times that `max_connections` was reached: whoever comes then waits in the backlog.
    connection_limit_hits,
    /// Times that a connection's read budget (bytes) made it wait for the next turn.
    read_budget_hits,
    /// Times that a connection's packet budget made it wait for the next turn.
    packet_budget_hits,
    /// Turns in which the message budget left messages for the next turn.
    message_budget_hits,
    /// Times that a connection went over its high-water mark.
    high_water_hits,
}

impl Stats {
    /// Connections ended for reasons of this kind.
    pub fn closed(&self, kind: CloseKind) -> u64 {
        self.closed[kind as usize]
    }

    /// Connections ended, whatever the reason.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }
}

macro_rules! close_kinds {
    ($($name:ident $pattern:pat,)*) => {
        /// The kinds of [`CloseReason`], by which closed connections are counted.
        #[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseKind {
            $(#[doc = concat!("Counts [`CloseReason::", stringify!($name), "`].")] $name,)*
        }

        impl CloseKind {
            /// Every kind, in the order of the enum.
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
    WriteStalled CloseReason::WriteStalled,
    PacketTooLarge CloseReason::PacketTooLarge { .. },
    AnswerTooLarge CloseReason::AnswerTooLarge { .. },
    BadFrame CloseReason::BadFrame(_),
    FramerBug CloseReason::FramerBug,
    SlowReader CloseReason::SlowReader,
    Panicked CloseReason::Panicked,
    Shutdown CloseReason::Shutdown,
    DrainForced CloseReason::DrainForced,
    Custom CloseReason::Custom(_),
}

impl fmt::Display for CloseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
