//! The error types, each with its cause and its effect.
//!
//! | type | cause | effect |
//! |---|---|---|
//! | [`OptionsError`] | the caller's options | no socket is bound |
//! | [`Error`] | the environment, or a name | the call fails and undoes what it has done |
//! | [`FrameError`] | the peer's bytes | that connection ends |
//! | [`FrameError`] | a payload to be framed | that packet is refused |
//! | [`SendError`] | one packet to be sent | no byte of it is queued |
//! | [`MessageError`] | the mailbox | the sender gets the message back |
//! | [`AdoptError`] | a descriptor, or the limit | the caller gets the descriptor back |
//! | [`DialError`] | the other end, the network, or a limit | no connection is made; the connector dials again |
//!
//! `FrameError`, `SendError` and `MessageError` are in [`reason`](crate::reason). So is
//! [`CloseReason`], which is not an error: `terminate` gets it as its argument.
//!
//! [`CloseReason`]: crate::CloseReason
//! [`FrameError`]: crate::FrameError
//! [`SendError`]: crate::SendError
//! [`MessageError`]: crate::MessageError

mod dial;
mod opening;
mod pair;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

pub use self::dial::DialError;
pub(crate) use self::dial::{DialFailure, Place};
pub(crate) use self::opening::OpeningError;
pub use self::pair::PairError;
use crate::endpoint::{Endpoint, EndpointError};
use crate::reason::debug_as_display;
use crate::text::Line;

/// An error of the reactor or of one of its listeners. Its message names the listener and the value
/// that it is about.
///
/// By what returns it:
///
/// - Making a reactor: [`ReactorOptions`](Self::ReactorOptions), [`Poll`](Self::Poll).
/// - Starting a listener: [`Options`](Self::Options), [`BadName`](Self::BadName),
///   [`DuplicateName`](Self::DuplicateName), [`AddressInUse`](Self::AddressInUse),
///   [`Permission`](Self::Permission), [`NotLocal`](Self::NotLocal), [`Listen`](Self::Listen),
///   [`TooManyListeners`](Self::TooManyListeners).
/// - Starting a connector: [`ConnectorOptions`](Self::ConnectorOptions), [`BadName`](Self::BadName),
///   [`DuplicateName`](Self::DuplicateName), [`TooManyListeners`](Self::TooManyListeners).
/// - Running a reactor or shards: [`Accept`](Self::Accept), [`Poll`](Self::Poll),
///   [`Shard`](Self::Shard).
/// - Changing the limit of a listener: [`Options`](Self::Options).
/// - Adopting a connection: [`Adopt`](Self::Adopt), [`Full`](Self::Full), in an [`AdoptError`].
/// - Starting a timer: [`ZeroPeriod`](Self::ZeroPeriod).
/// - Any other call of a handle: [`UnknownName`](Self::UnknownName), [`Gone`](Self::Gone).
/// - Waiting for a drain: [`WouldDeadlock`](Self::WouldDeadlock), [`Gone`](Self::Gone).
///
/// `{}` and `{:?}` both print the message, so the message appears when an error ends `main`.
/// `{:#?}` prints the fields. This holds for every error of this crate.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options of a listener are wrong. [`check`](crate::ListenerOptions::check) finds the same
    /// errors without starting the listener.
    #[error("listener \"{name}\": {}", join(.errors))]
    Options {
        /// The listener's name.
        name: String,
        /// Every error found, not only the first.
        errors: Vec<OptionsError>,
    },
    /// The options of a connector are wrong. [`check`](crate::ConnectorOptions::check) finds the same
    /// errors without starting the connector.
    #[error("connector \"{name}\": {}", join(.errors))]
    ConnectorOptions {
        /// The connector's name.
        name: String,
        /// Every error found, not only the first.
        errors: Vec<OptionsError>,
    },
    /// The options of a reactor are wrong. [`check`](crate::ReactorOptions::check) finds the same
    /// errors without making the reactor.
    #[error("reactor: {}", join(.errors))]
    ReactorOptions {
        /// Every error found, not only the first.
        errors: Vec<OptionsError>,
    },
    /// Another socket already listens on the address.
    #[error("listener \"{name}\": address {addr} is in use")]
    AddressInUse {
        /// The listener's name.
        name: String,
        /// The address asked for.
        addr: Endpoint,
    },
    /// The process may not bind the address. Ports below 1024 usually need root.
    #[error("listener \"{name}\": no permission to listen on {addr}")]
    Permission {
        /// The listener's name.
        name: String,
        /// The address asked for.
        addr: Endpoint,
    },
    /// No interface of this machine has the address.
    #[error("listener \"{name}\": {addr} is not an address of this machine")]
    NotLocal {
        /// The listener's name.
        name: String,
        /// The address asked for.
        addr: Endpoint,
    },
    /// Listening failed for another reason, or the descriptor given to
    /// [`from_std`](crate::ListenerOptions::from_std) or [`from_fd`](crate::ListenerOptions::from_fd)
    /// is no listening stream socket.
    #[error("listener \"{name}\": cannot listen{}: {source}", on(.addr))]
    Listen {
        /// The listener's name.
        name: String,
        /// The address asked for. For an inherited socket it is the socket's address, if any.
        addr: Option<Endpoint>,
        /// The system's error, or what the inherited descriptor is.
        source: io::Error,
    },
    /// The listener's name holds a character that is not allowed. The name appears in the log and
    /// in errors, so it must not break a line of text.
    #[error("the listener name \"{}\" holds {found:?}, which may not stand in a name", Line(.name))]
    BadName {
        /// The name asked for.
        name: String,
        /// Its first character that is not allowed: a control character, a line separator, or a
        /// character that changes the direction of text.
        found: char,
    },
    /// A listener of this name runs, or is still closing its socket.
    #[error("a listener named \"{0}\" exists already")]
    DuplicateName(String),
    /// No listener of this name is running, or it is drained already.
    #[error("no listener is named \"{}\"", Line(.0))]
    UnknownName(String),
    /// The listening socket of a listener that had started failed.
    /// [`ListenerHandle::failure`](crate::ListenerHandle::failure) returns this error. No call fails
    /// with it: the listener is drained and closed, and its reactor goes on.
    #[error("listener \"{name}\": the listening socket broke: {source}")]
    Accept {
        /// The listener's name.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The descriptor cannot be adopted. [`Handle::adopt`](crate::Handle::adopt) takes connected
    /// stream sockets only.
    #[error("listener \"{}\": cannot adopt the descriptor: {source}", Line(.name))]
    Adopt {
        /// The listener's name.
        name: String,
        /// The system's error, or what the descriptor is.
        source: io::Error,
    },
    /// The listener has as many connections as it may have, so it adopts none.
    #[error(
        "listener \"{}\": no connection is adopted: max_connections is {max}; wait until one ends, \
         or raise max_connections",
        Line(.name)
    )]
    Full {
        /// The listener's name.
        name: String,
        /// The limit in force.
        max: usize,
    },
    /// A timer was asked for whose period is zero.
    #[error("the period of a timer is zero, and has to be more")]
    ZeroPeriod,
    /// A part of the reactor itself (epoll or its waker) could not be made, or failed.
    #[error("cannot {what}: {source}")]
    Poll {
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The reactor has ended: its shutdown is done, its `run` has returned an error, or it was
    /// dropped.
    #[error("the reactor is gone")]
    Gone,
    /// The call waits for work that only the calling thread can do. See
    /// [`Drain::wait`](crate::Drain::wait).
    #[error("waiting on the reactor's own thread would never end")]
    WouldDeadlock,
    /// The reactor is full: it holds 1,023 listeners, and its event tokens cannot tell more apart.
    #[error("listener \"{name}\": a reactor holds at most {max} listeners")]
    TooManyListeners {
        /// The listener's name.
        name: String,
        /// The most that one reactor holds.
        max: usize,
    },
    /// One of several shards ended, and so all shards ended.
    #[error("shard {shard} ended: {why}")]
    Shard {
        /// The shard's number, from 0.
        shard: usize,
        /// The shard's error or panic.
        why: String,
    },
}

debug_as_display!(Error {
    Options { name, errors },
    ConnectorOptions { name, errors },
    ReactorOptions { errors },
    AddressInUse { name, addr },
    BadName { name, found },
    Permission { name, addr },
    NotLocal { name, addr },
    Listen { name, addr, source },
    DuplicateName(name),
    UnknownName(name),
    Accept { name, source },
    Adopt { name, source },
    Full { name, max },
    ZeroPeriod,
    Poll { what, source },
    Gone,
    WouldDeadlock,
    TooManyListeners { name, max },
    Shard { shard, why },
});

/// Why a connection was not adopted. It gives the descriptor back.
///
/// `?` turns it into an [`Error`], and closes the descriptor.
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct AdoptError {
    /// The reason: [`Error::Adopt`], [`Error::Full`], [`Error::UnknownName`] or [`Error::Gone`].
    pub error: Error,
    /// The descriptor, which is open.
    pub fd: OwnedFd,
}

impl fmt::Debug for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        let Self { error, fd } = self;
        f.debug_struct("AdoptError").field("error", error).field("fd", fd).finish()
    }
}

impl From<AdoptError> for Error {
    fn from(refused: AdoptError) -> Self {
        refused.error
    }
}

/// An error in the options: a value out of range, or two values that contradict each other.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
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
    /// The largest packet would not fit even an empty output queue.
    #[error("max_queued of {max_queued} bytes is less than the largest packet, {max_packet}")]
    QueueSmallerThanPacket {
        /// `max_queued` in bytes.
        max_queued: usize,
        /// The largest packet in bytes.
        max_packet: usize,
    },
    /// The high-water mark is above the limit of the output queue, so it would never be reached.
    #[error("write_high_water of {high} bytes is above max_queued of {max_queued}")]
    HighWaterAboveQueue {
        /// `write_high_water` in bytes.
        high: usize,
        /// `max_queued` in bytes.
        max_queued: usize,
    },
    /// The address names no socket.
    #[error(transparent)]
    Address(EndpointError),
    /// The access rights of a Unix socket have other bits than those of `chmod`.
    #[error("unix_mode of 0o{0:o} is above 0o777")]
    UnixMode(u32),
    /// `unix_allow_uids` is empty.
    #[error("unix_allow_uids is empty, so that no peer could connect")]
    NoUids,
    /// `unix_allow_uids` is set for a listener on TCP, whose peers it cannot tell apart.
    #[error("unix_allow_uids is for Unix sockets, and the listener is on {0}")]
    UidsOverTcp(Endpoint),
    /// [`Proxy::versions`](crate::Proxy::versions) names no version, so that no header is accepted.
    #[error("versions names no version of the PROXY protocol; name V1, V2 or both")]
    NoProxyVersion,
    /// [`Proxy::require_checksum`](crate::Proxy::require_checksum) is on, and version 1, which has no
    /// checksum, is the only one that [`Proxy::versions`](crate::Proxy::versions) names.
    #[error("require_checksum is on, and version 1 has no checksum; name V2 in versions")]
    ChecksumInVersion1,
    /// The option is zero. With zero no work would ever be done, or connections would end at once.
    #[error("{0} is zero, and has to be more")]
    Zero(&'static str),
    /// The option is below its minimum.
    #[error("{option} of {asked} is below {min}")]
    TooSmall {
        /// The option's name.
        option: &'static str,
        /// Its value as asked for.
        asked: usize,
        /// The minimum.
        min: usize,
    },
    /// The option is above its maximum.
    #[error("{option} of {asked} is above {max}")]
    TooLarge {
        /// The option's name.
        option: &'static str,
        /// Its value as asked for.
        asked: usize,
        /// The maximum.
        max: usize,
    },
    /// `keepalive` is not a number of whole seconds from 1 to 32,767. The kernel counts the time
    /// before a probe in whole seconds, in 15 bits.
    #[error("keepalive of {asked:?} is not a number of whole seconds from 1 to {max}")]
    Keepalive {
        /// `keepalive` as asked for.
        asked: Duration,
        /// The maximum in seconds.
        max: u64,
    },
    /// A connector has no place to connect to.
    #[error("no place to connect to")]
    NoTarget,
    /// A connector cannot connect to this text.
    #[error("cannot connect to {target:?}: {why}")]
    Target {
        /// The text.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// `backoff` has a `base` of zero, or one above its `max`.
    #[error("backoff from {base:?} to {max:?}: base has to be more than zero and at most max")]
    Backoff {
        /// The first bound.
        base: Duration,
        /// The last bound.
        max: Duration,
    },
    /// `max_connections` is above 4,194,303, or above 2,097,151 for a connector: event tokens cannot
    /// tell more connections apart.
    #[error("max_connections of {asked} is above {max}")]
    TooManyConnections {
        /// `max_connections` as asked for.
        asked: usize,
        /// The maximum.
        max: usize,
    },
}

debug_as_display!(OptionsError {
    WaterMarks { low, high },
    Framing(problem),
    QueueSmallerThanPacket { max_queued, max_packet },
    HighWaterAboveQueue { high, max_queued },
    Address(error),
    UnixMode(mode),
    NoUids,
    UidsOverTcp(addr),
    NoProxyVersion,
    ChecksumInVersion1,
    Zero(option),
    TooSmall { option, asked, min },
    TooLarge { option, asked, max },
    Keepalive { asked, max },
    NoTarget,
    Target { target, why },
    Backoff { base, max },
    TooManyConnections { asked, max },
});

fn on(addr: &Option<Endpoint>) -> String {
    addr.as_ref().map_or_else(String::new, |addr| format!(" on {addr}"))
}

fn join(errors: &[OptionsError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
