//! Errors by whom they blame.
//!
//! | type | blames | what happens |
//! |---|---|---|
//! | [`OptionsError`] | the caller's options | nothing is bound |
//! | [`Error`] | the environment, or a name | the call fails, nothing is left behind |
//! | [`FrameError`] | the peer's bytes, or the payload to be framed | that connection ends |
//! | [`SendError`] | the one packet that was to be sent | nothing of it is queued |
//! | [`MessageError`] | the mailbox | the message comes back |
//!
//! The last three are in [`reason`](crate::reason), with [`CloseReason`], which is not an error: it is
//! what `terminate` is told.
//!
//! [`CloseReason`]: crate::CloseReason
//! [`FrameError`]: crate::FrameError
//! [`SendError`]: crate::SendError
//! [`MessageError`]: crate::MessageError

use std::io;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::reason::debug_as_display;
use crate::text::Line;

/// What can go wrong with the reactor and its listeners. Each message names what it is about.
///
/// `{:?}` prints the message as well, so that it is what people read where an error ends `main`;
/// `{:#?}` shows the fields. So it is with every error of this crate.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options contradict themselves; [`check`](crate::ListenerOptions::check) tells all of it.
    #[error("listener \"{name}\": {}", join(.errors))]
    Options {
        /// The listener's name.
        name: String,
        /// Every contradiction found, not only the first.
        errors: Vec<OptionsError>,
    },
    /// The options of a reactor contradict themselves;
    /// [`check`](crate::ReactorOptions::check) tells all of it.
    #[error("reactor: {}", join(.errors))]
    ReactorOptions {
        /// Every contradiction found, not only the first.
        errors: Vec<OptionsError>,
    },
    /// Somebody listens there already.
    #[error("listener \"{name}\": address {addr} is in use")]
    AddressInUse {
        /// The listener's name.
        name: String,
        /// The address asked for.
        addr: Endpoint,
    },
    /// This user may not bind the address; ports below 1024 usually belong to root.
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
    /// Listening failed for another cause, or a descriptor given to
    /// [`from_std`](crate::ListenerOptions::from_std) is no listening TCP socket.
    #[error("listener \"{name}\": cannot listen{}: {source}", on(.addr))]
    Listen {
        /// The listener's name.
        name: String,
        /// Where it was asked to listen, or the endpoint of an inherited socket, if it has one.
        addr: Option<Endpoint>,
        /// What the system said, or what the inherited descriptor is.
        source: io::Error,
    },
    /// A listener's name stands in the log and in errors, and so must fit into a line of text.
    #[error("the listener name \"{}\" holds {found:?}, which may not stand in a name", Line(.name))]
    BadName {
        /// The name as it was given.
        name: String,
        /// Its first character that is not allowed: a control character, a line separator, or one
        /// that changes the direction of text.
        found: char,
    },
    /// A listener of this name exists, or is still closing its socket.
    #[error("a listener named \"{0}\" exists already")]
    DuplicateName(String),
    /// No listener of this name is running.
    #[error("no listener is named \"{}\"", Line(.0))]
    UnknownName(String),
    /// The listening socket itself is broken. [`run`](crate::Reactor::run) ends with this.
    #[error("listener \"{name}\" broke: {source}")]
    Accept {
        /// The listener's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The reactor's own parts (epoll, its waker) could not be made, or failed.
    #[error("cannot {what}: {source}")]
    Poll {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The reactor has been dropped.
    #[error("the reactor is gone")]
    Gone,
    /// The calling thread is the one that would have to do the work that is waited for; see
    /// [`Drain::wait`](crate::Drain::wait).
    #[error("waiting on the reactor's own thread would never end")]
    WouldDeadlock,
    /// A listener is full: as many as the tokens of one reactor can tell apart.
    #[error("listener \"{name}\": a reactor holds at most {max} listeners")]
    TooManyListeners {
        /// The listener's name.
        name: String,
        /// The most that one reactor holds.
        max: usize,
    },
    /// One of several shards ended, so all of them did.
    #[error("shard {shard} ended: {why}")]
    Shard {
        /// Which one, from 0.
        shard: usize,
        /// Its error or its panic.
        why: String,
    },
}

debug_as_display!(Error {
    Options { name, errors },
    ReactorOptions { errors },
    AddressInUse { name, addr },
    BadName { name, found },
    Permission { name, addr },
    NotLocal { name, addr },
    Listen { name, addr, source },
    DuplicateName(name),
    UnknownName(name),
    Accept { name, source },
    Poll { what, source },
    Gone,
    WouldDeadlock,
    TooManyListeners { name, max },
    Shard { shard, why },
});

/// What the options say that cannot be done.
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
    /// A limit of zero, with which nothing would ever happen, or everything would end at once.
    #[error("{0} is zero, and has to be more")]
    Zero(&'static str),
    /// Less than the option can be.
    #[error("{option} of {asked} is below {min}")]
    TooSmall {
        /// The option's name.
        option: &'static str,
        /// Its value as asked for.
        asked: usize,
        /// The least that is possible.
        min: usize,
    },
    /// More than the option can be.
    #[error("{option} of {asked} is above {max}")]
    TooLarge {
        /// The option's name.
        option: &'static str,
        /// Its value as asked for.
        asked: usize,
        /// The most that is possible.
        max: usize,
    },
    /// The kernel counts the silence before a probe in whole seconds, in 15 bits.
    #[error("keepalive of {asked:?} is not a number of whole seconds from 1 to {max}")]
    Keepalive {
        /// `keepalive` as asked for.
        asked: Duration,
        /// The most that is possible, in seconds.
        max: u64,
    },
    /// More connections than a listener's tokens can tell apart.
    #[error("max_connections of {asked} is above {max}")]
    TooManyConnections {
        /// `max_connections` as asked for.
        asked: usize,
        /// The most that is possible.
        max: usize,
    },
}

debug_as_display!(OptionsError {
    WaterMarks { low, high },
    Framing(problem),
    QueueSmallerThanPacket { max_queued, max_packet },
    HighWaterAboveQueue { high, max_queued },
    Zero(option),
    TooSmall { option, asked, min },
    TooLarge { option, asked, max },
    Keepalive { asked, max },
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
