//! Errors in options, and warnings about values that may be unintended.

use std::time::Duration;

use super::connection::ConnectionOptions;
use super::connector::ConnectorOptions;
use super::listener::{ListenerOptions, Origin};
use crate::backoff::Backoff;
use crate::endpoint::Endpoint;
use crate::error::OptionsError;
use crate::proxy::{Proxy, ProxyVersion};
use crate::reason::debug_as_display;
use crate::system::{fd_limit, somaxconn};

/// A warning about an option whose value may be unintended. It is logged, and the listener starts.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsWarning {
    /// `max_connections` is above the number of files that the process may open.
    #[error(
        "max_connections is {max_connections}, but the process may open only {fds} files; \
         raise `ulimit -n`, or lower max_connections"
    )]
    MoreConnectionsThanFds {
        /// `max_connections`.
        max_connections: usize,
        /// The soft limit on open files.
        fds: usize,
    },
    /// Hostile peers could make the process hold more memory than
    /// [`memory_warning`](ListenerOptions::memory_warning).
    #[error(
        "worst case of {bytes} bytes of memory is above memory_warning of {threshold}; lower \
         max_connections, max_packet or max_queued, or raise memory_warning"
    )]
    WorstCaseMemory {
        /// [`ListenerOptions::worst_case_memory`], in bytes.
        bytes: usize,
        /// [`ListenerOptions::memory_warning`], in bytes.
        threshold: usize,
    },
    /// `backlog` is above the kernel's limit. The kernel cuts it to that limit.
    #[error(
        "backlog of {backlog} is above the system's limit of {somaxconn}; raise the sysctl \
         net.core.somaxconn, or lower backlog"
    )]
    BacklogCut {
        /// `backlog`.
        backlog: u32,
        /// The kernel's limit.
        somaxconn: u32,
    },
    /// The packet timeout is off. A peer that stops inside a packet holds its memory and its slot
    /// for ever.
    #[error(
        "packet_timeout is off: a peer that stops inside a packet holds its slot for ever; set \
         packet_timeout"
    )]
    NoPacketTimeout,
    /// The listener can be reached from other machines, and no timeout ends a connection that never
    /// sends a byte. As many silent connections as [`max_connections`](ListenerOptions::max_connections)
    /// lock all other clients out, for ever.
    #[error(
        "{max_connections} connections that send nothing lock all others out for ever; set \
         first_packet_timeout, idle_timeout or silence_timeout"
    )]
    SilentPeers {
        /// `max_connections`.
        max_connections: usize,
    },
    /// The listener takes PROXY headers from all that reach it: from other machines, or over a Unix
    /// socket that all users may write to. Any client can then pretend to have another address.
    #[error(
        "any client can claim any address in a PROXY header; name the proxies by Proxy::from, or \
         for a Unix socket by unix_mode or unix_allow_uids"
    )]
    AnyProxy,
    /// No network of proxies is named, so that no header is accepted.
    #[error("no network is named in Proxy::from or Proxy::mixed; name those of the proxies")]
    NoProxy,
    /// The listener has an abstract name and no list of users, so that every process in its network
    /// namespace can connect.
    #[error(
        "every process of this machine can connect to {0}: an abstract name has no access rights; \
         set unix_allow_uids, of the feature peer-credentials, or take a path"
    )]
    OpenToAll(Endpoint),
}

debug_as_display!(OptionsWarning {
    MoreConnectionsThanFds { max_connections, fds },
    WorstCaseMemory { bytes, threshold },
    BacklogCut { backlog, somaxconn },
    NoPacketTimeout,
    SilentPeers { max_connections },
    AnyProxy,
    NoProxy,
    OpenToAll(addr),
});

/// Everything that [`ListenerOptions::check`] or
/// [`ReactorOptions::check`](super::ReactorOptions::check) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// The errors. If there is any, the listener or the reactor does not start.
    pub errors: Vec<OptionsError>,
    /// The warnings. They are logged, and the listener starts.
    pub warnings: Vec<OptionsWarning>,
}

impl ListenerOptions {
    /// Finds every error in these options, and every value that may be unintended. No socket is
    /// touched.
    pub fn check(&self) -> Findings {
        Findings { errors: self.errors(), warnings: self.warnings() }
    }

    fn errors(&self) -> Vec<OptionsError> {
        let mut errors = self.connection.errors();
        errors.extend(zeros([
            (self.backlog == 0, "backlog"),
            (self.opening.timeout.is_zero(), "opening_timeout"),
            (self.opening.max_opening == 0, "max_opening"),
        ]));
        let all = [ProxyVersion::V1, ProxyVersion::V2];
        let proxy = self.opening.proxy.as_ref();
        if proxy.is_some_and(|proxy| !all.iter().any(|version| proxy.accepts(*version))) {
            errors.push(OptionsError::NoProxyVersion);
        }
        if proxy.is_some_and(|of| of.require_checksum && !of.accepts(ProxyVersion::V2)) {
            errors.push(OptionsError::ChecksumInVersion1);
        }
        if let Some(Proxy { max_header: asked, .. }) = self.opening.proxy {
            let (option, (min, max)) = ("max_header", Proxy::MAX_HEADERS.into_inner());
            if asked < min {
                errors.push(OptionsError::TooSmall { option, asked, min });
            } else if asked > max {
                errors.push(OptionsError::TooLarge { option, asked, max });
            }
        }
        if let Origin::Wrong(error) = &self.origin {
            errors.push(OptionsError::Address(error.clone()));
        }
        if self.unix_mode > 0o777 {
            errors.push(OptionsError::UnixMode(self.unix_mode));
        }
        if let Some(uids) = &self.connection.unix_allow_uids {
            errors.extend(uids.is_empty().then_some(OptionsError::NoUids));
            let addr = self.addr();
            if matches!(addr, Endpoint::Inet(_)) && !matches!(self.origin, Origin::Wrong(_)) {
                errors.push(OptionsError::UidsOverTcp(addr));
            }
        }
        errors
    }

    fn warnings(&self) -> Vec<OptionsWarning> {
        let mut warnings = self.connection.warnings();
        let proxy = self.opening.proxy.as_ref();
        if let Some(somaxconn) = somaxconn()
            && self.backlog > somaxconn
        {
            warnings.push(OptionsWarning::BacklogCut { backlog: self.backlog, somaxconn });
        }
        let Self { connection: of, .. } = self;
        let timeouts = [of.first_packet_timeout, of.idle_timeout, of.silence_timeout];
        let endless = timeouts.into_iter().flatten().all(|timeout| timeout == Duration::MAX);
        let reachable = self.addr().ip().is_some_and(|ip| !ip.to_canonical().is_loopback());
        if endless && reachable {
            let max_connections = of.max_connections;
            warnings.push(OptionsWarning::SilentPeers { max_connections });
        }
        let is_open = match self.addr() {
            Endpoint::Unix(name) => {
                let has_name = name.as_abstract_name().is_some();
                of.unix_allow_uids.is_none() && (has_name || self.unix_mode & 0o002 != 0)
            }
            Endpoint::Inet(_) => reachable && proxy.is_some_and(Proxy::trusts_all),
        };
        if is_open && proxy.is_some() {
            warnings.push(OptionsWarning::AnyProxy);
        }
        if self.addr().ip().is_some() && proxy.is_some_and(Proxy::trusts_none) {
            warnings.push(OptionsWarning::NoProxy);
        }
        if let Endpoint::Unix(name) = self.addr()
            && name.as_abstract_name().is_some()
            && of.unix_allow_uids.is_none()
        {
            warnings.push(OptionsWarning::OpenToAll(name.into()));
        }
        warnings
    }
}

impl ConnectorOptions {
    /// Finds every error in these options, and every value that may be unintended. No name is looked
    /// up, and no socket is touched.
    pub fn check(&self) -> Findings {
        Findings { errors: self.errors(), warnings: self.connection.warnings() }
    }

    fn errors(&self) -> Vec<OptionsError> {
        let mut errors = self.connection.errors();
        if self.targets.is_empty() && self.connections > 0 {
            errors.push(OptionsError::NoTarget);
        }
        let wrong = self.targets.iter().filter_map(|target| target.as_ref().err());
        errors.extend(wrong.cloned().map(|(target, why)| OptionsError::Target { target, why }));
        errors.extend(zeros([
            (self.connect_timeout.is_zero(), "connect_timeout"),
            (self.attempt_delay.is_zero(), "attempt_delay"),
        ]));
        let Backoff { base, max, .. } = self.backoff;
        if base.is_zero() || base > max {
            errors.push(OptionsError::Backoff { base, max });
        }
        let (asked, max) = (self.connection.max_connections, crate::token::MAX_DIALLED);
        if asked > max {
            errors.push(OptionsError::TooManyConnections { asked, max });
        }
        if self.connections > asked {
            let option = "connections";
            errors.push(OptionsError::TooLarge { option, asked: self.connections, max: asked });
        }
        errors
    }
}

impl ConnectionOptions {
    /// What is wrong with them.
    pub(super) fn errors(&self) -> Vec<OptionsError> {
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
            (self.mailbox_capacity == 0, "mailbox_capacity"),
            (self.max_timers == 0, "max_timers"),
            (self.max_groups == 0, "max_groups"),
            (self.delivers_nothing(), "max_packet"),
            (self.packet_timeout.is_zero(), "packet_timeout"),
            (self.first_packet_timeout == Some(Duration::ZERO), "first_packet_timeout"),
            (self.idle_timeout == Some(Duration::ZERO), "idle_timeout"),
            (self.silence_timeout == Some(Duration::ZERO), "silence_timeout"),
            (self.write_stall_timeout.is_zero(), "write_stall_timeout"),
            (self.close_timeout.is_zero(), "close_timeout"),
        ]));
        if let Some(asked) = self.keepalive
            && (asked.is_zero() || asked > Self::MAX_KEEPALIVE || asked.subsec_nanos() > 0)
        {
            let max = Self::MAX_KEEPALIVE.as_secs();
            errors.push(OptionsError::Keepalive { asked, max });
        }
        errors.extend(connections_error(self.max_connections));
        errors
    }

    /// Whether only empty packets could be received, or only empty packets could be sent. `false`
    /// for an invalid framing, which has an error of its own.
    fn delivers_nothing(&self) -> bool {
        let framing = self.framing_in_force();
        let largest = [framing.max_packet_in(), framing.max_packet_out()];
        self.max_packet == Some(0) || framing.check().is_ok() && largest.contains(&Some(0))
    }

    /// What may not be meant.
    pub(super) fn warnings(&self) -> Vec<OptionsWarning> {
        let mut warnings = Vec::new();
        warnings.extend(connections_warning(self.max_connections));
        let (bytes, threshold) = (self.worst_case_memory(), self.memory_warning);
        if bytes > threshold {
            warnings.push(OptionsWarning::WorstCaseMemory { bytes, threshold });
        }
        if self.packet_timeout == Duration::MAX {
            warnings.push(OptionsWarning::NoPacketTimeout);
        }
        warnings
    }
}

/// What is wrong with this `max_connections`.
pub(crate) fn connections_error(asked: usize) -> Option<OptionsError> {
    let max = crate::token::MAX_CONNECTIONS;
    if asked == 0 {
        return Some(OptionsError::Zero("max_connections"));
    }
    (asked > max).then_some(OptionsError::TooManyConnections { asked, max })
}

/// Whether the process may open too few files for this `max_connections`.
pub(crate) fn connections_warning(max_connections: usize) -> Option<OptionsWarning> {
    let fds = fd_limit().filter(|fds| max_connections > *fds)?;
    Some(OptionsWarning::MoreConnectionsThanFds { max_connections, fds })
}

/// An error for each option that is zero and must not be.
pub(super) fn zeros<const N: usize>(
    options: [(bool, &'static str); N],
) -> impl Iterator<Item = OptionsError> {
    let zero = options.into_iter().filter(|(is_zero, _)| *is_zero);
    zero.map(|(_, name)| OptionsError::Zero(name))
}
