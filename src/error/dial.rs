//! Errors of dials.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::identity::ConnectionId;
use crate::reason::debug_as_display;
use crate::sync::{Arc, AtomicUsize};

/// Why a dial has failed, or has not begun.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The system refused to connect, or the other end did.
    #[error("cannot connect to {to}: {}", describe(*.kind, *.code))]
    Connect {
        /// The endpoint.
        to: Endpoint,
        /// The kind of the error.
        kind: io::ErrorKind,
        /// The number of the system's error, if it has one.
        code: Option<i32>,
    },
    /// No address answered within the [`connect_timeout`](crate::ConnectorOptions::connect_timeout).
    #[error("no connection within {after:?}{}", before(.last))]
    Timeout {
        /// The `connect_timeout`.
        after: Duration,
        /// The last error of an address, if one failed before.
        last: Option<Box<Self>>,
    },
    /// A name could not be looked up.
    #[error("cannot look up {name}: {why}")]
    Resolve {
        /// `HOST:PORT`.
        name: String,
        /// What the resolver said.
        why: String,
    },
    /// The text that a handler dialled is no place to connect to.
    #[error("cannot dial {target:?}: {why}")]
    Target {
        /// The text.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// A handler dialled by the connector of another reactor.
    #[error("the connector belongs to another reactor")]
    Elsewhere,
    /// A handler dialled by a connector that is not running on this shard: it drains or has ended, or
    /// this shard has not started it yet.
    #[error("the connector is not running on this shard")]
    NotRunning,
    /// The connector has as many connections as it may have on this shard, those that are being dialled
    /// included, and failures that callers were not told of yet.
    #[error("no dial begins: there are {max} connections already; raise max_connections")]
    Full {
        /// [`max_connections`](crate::ConnectorOptions::max_connections).
        max: usize,
    },
    /// As many dials were asked for in this turn as may be.
    #[error("no dial begins: {max} were asked for in this turn; ask again in a later one")]
    Busy {
        /// The most dials of one turn: 1,024.
        max: usize,
    },
    /// The connection was up, and the connector's factory has made no handler for it.
    #[error("the connector's factory has refused the connection")]
    Refused,
    /// The dial was given up: its connector was stopped, or [`Handle::close`](crate::Handle::close) was
    /// called with the id of its connection.
    #[error("the dial was stopped")]
    Stopped,
    /// The socket was connected to itself: nothing listens on the port, and the system chose it as the
    /// port to connect from.
    #[error("cannot connect to {to}: the connection is one to itself, because no server is there")]
    SelfConnect {
        /// The endpoint.
        to: Endpoint,
    },
}

debug_as_display!(DialError {
    Connect { to, kind, code },
    Timeout { after, last },
    Resolve { name, why },
    Target { target, why },
    Elsewhere,
    NotRunning,
    Full { max },
    Busy { max },
    Refused,
    Stopped,
    SelfConnect { to },
});

impl DialError {
    pub(crate) fn connect(to: &Endpoint, error: &io::Error) -> Self {
        Self::Connect { to: to.clone(), kind: error.kind(), code: error.raw_os_error() }
    }
}

fn describe(kind: io::ErrorKind, code: Option<i32>) -> String {
    code.map_or_else(|| kind.to_string(), |code| io::Error::from_raw_os_error(code).to_string())
}

fn before(error: &Option<Box<DialError>>) -> String {
    error.as_ref().map_or_else(String::new, |error| format!("; before that: {error}"))
}

/// What a handler is told of a dial that has failed: [`Info::DialFailed`](crate::Info::DialFailed).
#[derive(Debug)]
pub(crate) struct DialFailure {
    pub(crate) id: ConnectionId,
    /// The places that were dialled.
    pub(crate) target: String,
    pub(crate) error: DialError,
    /// It is given back when the caller was told, or is gone.
    pub(crate) _place: Place,
}

/// The place of a dial whose caller was not told of its failure yet. It counts as a connection.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place, and counts it in `taken` for as long as it exists.
    pub(crate) fn take(taken: &Arc<AtomicUsize>) -> Self {
        taken.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(taken))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
