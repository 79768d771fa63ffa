//! What is wrong with options, and what may not be meant.

use std::time::Duration;

use super::listener::ListenerOptions;
use crate::error::OptionsError;
use crate::reason::debug_as_display;
use crate::system::{fd_limit, somaxconn};

/// What the options say that may not be meant. It is logged, and the listener starts.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
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

debug_as_display!(OptionsWarning {
    MoreConnectionsThanFds { max_connections, fds },
    WorstCaseMemory { bytes, threshold },
    BacklogCut { backlog, somaxconn },
    NoPacketTimeout,
});

/// All that [`ListenerOptions::check`] or [`ReactorOptions::check`](super::ReactorOptions::check)
/// found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// With any of these, nothing is started.
    pub errors: Vec<OptionsError>,
    /// These are logged.
    pub warnings: Vec<OptionsWarning>,
}

impl ListenerOptions {
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
        errors.extend(zeros([
            (self.max_connections == 0, "max_connections"),
            (self.mailbox_capacity == 0, "mailbox_capacity"),
            (self.backlog == 0, "backlog"),
            (self.delivers_nothing(), "max_packet"),
            (self.packet_timeout.is_zero(), "packet_timeout"),
            (self.idle_timeout == Some(Duration::ZERO), "idle_timeout"),
            (self.write_stall_timeout.is_zero(), "write_stall_timeout"),
            (self.close_timeout.is_zero(), "close_timeout"),
        ]));
        if let Some(asked) = self.keepalive
            && (asked.is_zero() || asked > Self::MAX_KEEPALIVE || asked.subsec_nanos() > 0)
        {
            let max = Self::MAX_KEEPALIVE.as_secs();
            errors.push(OptionsError::Keepalive { asked, max });
        }
        let max = crate::token::MAX_CONNECTIONS;
        if self.max_connections > max {
            errors.push(OptionsError::TooManyConnections { asked: self.max_connections, max });
        }
        errors
    }

    /// Whether no packet but the empty one can come or go. Of a framing that makes no sense this
    /// says nothing.
    fn delivers_nothing(&self) -> bool {
        let framing = self.framing_in_force();
        let largest = [framing.max_packet_in(), framing.max_packet_out()];
        self.max_packet == Some(0) || framing.check().is_ok() && largest.contains(&Some(0))
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

/// An error for each option that is zero and must not be.
pub(super) fn zeros<const N: usize>(
    options: [(bool, &'static str); N],
) -> impl Iterator<Item = OptionsError> {
    let zero = options.into_iter().filter(|(is_zero, _)| *is_zero);
    zero.map(|(_, name)| OptionsError::Zero(name))
}
