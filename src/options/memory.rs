//! How much memory hostile peers can make a listener hold.

use super::connection::ConnectionOptions;
use super::listener::ListenerOptions;
use crate::buffer::{Buffer, Pool, Queue};
use crate::groups::Groups;
use crate::mailbox::Mailbox;
use crate::timers::Timers;
use crate::wheel::Wheel;

/// A message of the size that the figure assumes: 64 bytes.
type Message = [u64; 8];

/// In bytes. What a PROXY header needs beside its own bytes: two endpoints, which may have names, and
/// the entry in a table while it is read.
const HEADER: usize = 1024;

/// Bytes for each connection, with or without traffic: its slot, its places in lists and in the
/// timer wheel, and the parts of its state that are allocated when they are used.
const CONNECTION: usize = 2 * 1024;
/// Bytes for each timer. The wheel's values take as much as a `u64`.
const TIMER: usize = Timers::<Message>::EACH + Wheel::<u64>::EACH;
/// The most bytes that the reactor keeps for the next connection that needs a buffer, and in its own
/// buffers between two callbacks.
const REACTOR: usize = 2 * Pool::MAX_HELD;
/// One byte in this many is for the pieces of a queue themselves. A piece that is shared has at least
/// 32 KiB.
const PIECES: usize = 32;

impl ListenerOptions {
    /// The most memory in bytes that hostile peers can make this listener hold on one shard, *without*
    /// what your code allocates (handlers, and what messages and shared packets point to), the
    /// messages of [tickets](crate::Ticket), of which each connection has as many as its handler
    /// opens, framings
    /// that a handler sets for its own connection, and the kernel's socket buffers.
    ///
    /// It is the sum of
    ///
    /// - for each of [`max_connections`](Self::max_connections) connections, those that are opening or
    ///   lingering included:
    ///   - the undelivered input. A connection keeps part of a packet, or what one read took while
    ///     its handler pauses: up to the largest packet, and at least 16 KiB. With
    ///     [`Raw`](crate::Raw) it is 64 KiB. [`Lines`](crate::Lines) and
    ///     [custom](crate::Framing::custom) framings may keep twice their largest packet. The
    ///     capacity of a buffer is a power of two.
    ///   - [`max_queued`](Self::max_queued) bytes of output, with the unused parts of its pieces: at
    ///     most 192 KiB, one part in 32, and one shared packet that is sent in part.
    ///   - [`max_timers`](Self::max_timers) timers
    ///   - [`max_groups`](Self::max_groups) memberships in groups
    ///   - 2 KiB for the connection itself, and with a [`proxy`](Self::proxy) its header
    /// - [`mailbox_capacity`](Self::mailbox_capacity) messages, in a queue that fills and in one that
    ///   is read
    /// - the output of the one callback that runs, while its buffer grows: 3 x `max_queued`
    /// - with a [`Framer`](crate::Framer), the packet of the one closure that writes
    ///   ([`Context::send_with`](crate::Context::send_with)), while its buffer grows: 3 x the largest
    ///   packet
    /// - 8 MiB that the reactor keeps for the next connection
    ///
    /// If [`Handle::set_max_connections`](crate::Handle::set_max_connections) changes the limit
    /// later, these options do not change: set the same `max_connections` in a copy of them.
    ///
    /// A message counts as 64 bytes. If yours are larger, each timer and two entries of the mailbox
    /// are larger by as much. With [`Shards`](crate::Shards) the connections are divided among the
    /// shards, and each shard has the rest.
    pub fn worst_case_memory(&self) -> usize {
        let header = self.opening.proxy.as_ref().map_or(0, |proxy| proxy.max_header + HEADER);
        let headers = header.saturating_mul(self.connection.max_connections);
        self.connection.worst_case_memory().saturating_add(headers)
    }
}

impl ConnectionOptions {
    /// The most bytes that one read of a socket takes, and so about the most whole packets that are
    /// kept for a handler that pauses: as much as the largest packet, from 16 to 64 KiB.
    ///
    /// A listener with small packets cannot keep much for each connection, and smaller reads cost it
    /// little. Longer reads bring no more speed.
    pub(crate) fn read_at_once(&self) -> usize {
        const LEAST: usize = 16 * 1024;
        const MOST: usize = 64 * 1024;
        let largest = self.framing_in_force().max_kept().unwrap_or(MOST);
        Buffer::fit(largest.min(MOST)).clamp(LEAST, MOST)
    }

    /// See [`ListenerOptions::worst_case_memory`].
    pub(crate) fn worst_case_memory(&self) -> usize {
        let connection = self
            .most_input()
            .saturating_add(self.most_output())
            .saturating_add(self.max_timers.saturating_mul(TIMER))
            .saturating_add(self.max_groups.saturating_mul(Groups::EACH))
            .saturating_add(CONNECTION);
        connection
            .saturating_mul(self.max_connections)
            .saturating_add(Mailbox::<Message>::most_memory(self.mailbox_capacity))
            .saturating_add(self.max_queued.saturating_mul(3))
            .saturating_add(self.framing_in_force().max_draft().saturating_mul(3))
            .saturating_add(REACTOR)
    }

    /// The most memory for the undelivered input of one connection.
    fn most_input(&self) -> usize {
        let partial = self.framing_in_force().max_kept().unwrap_or(0);
        Buffer::fit(partial.max(self.read_at_once()))
    }

    /// The most memory for the queue of one connection. A short queue has at most two segments: one
    /// that is being sent, and one that grows.
    fn most_output(&self) -> usize {
        let max = self.max_queued;
        let most_unused = Queue::MAX_UNUSED + 2 * Queue::SEGMENT_LEN;
        let is_short = max <= Queue::SEGMENT_LEN;
        let unused = if is_short { 2 * Queue::fit(max) } else { most_unused };
        let sent_in_part = self.framing_in_force().max_frame_out().unwrap_or(max).min(max);
        max.saturating_add(unused).saturating_add(max / PIECES).saturating_add(sent_in_part)
    }
}
