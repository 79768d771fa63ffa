//! How far a connector has come: one state for each part, read from any thread, also after the end.

use std::fmt;
use std::sync::PoisonError;
use std::time::Instant;

use crate::error::DialError;
use crate::sync::{Arc, Mutex, MutexGuard};

/// How far a connector has come. [`ConnectorHandle::state`](crate::ConnectorHandle::state) returns it,
/// and [`ConnectorOptions::on_state`](crate::ConnectorOptions::on_state) tells its changes.
///
/// A connector has several connections. The first of these that is true is its state: one of them is
/// up, one is being connected, one waits, all have given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectorState {
    /// So many connections are up, at least one, those that handlers have [dialled](crate::Context::dial)
    /// included. A connection counts until its socket is closed, as in
    /// [`Stats::open`](crate::Stats::open).
    Up(usize),
    /// It looks names up, or tries addresses. It has this state from its start on.
    Connecting,
    /// It waits before it dials again.
    Waiting {
        /// When the next dial begins.
        until: Instant,
        /// Why the last dial failed. `None` if a connection came up since, or no dial has failed.
        last_error: Option<DialError>,
    },
    /// The rule for [retries](crate::Retry) allows no more dials.
    GivenUp {
        /// As that of [`Waiting`](Self::Waiting).
        last_error: Option<DialError>,
    },
    /// It keeps no connection up, because its
    /// [`connections`](crate::ConnectorOptions::connections) are zero, and no handler has dialled one.
    Idle,
    /// It was stopped, or its reactor shuts down. It dials no more, and its connections come to their
    /// end.
    Draining,
    /// It has no connection left, or its reactor has ended. Its name is free again.
    Ended,
}

impl ConnectorState {
    /// The state of two parts together.
    pub(crate) fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Up(one), Self::Up(other)) => Self::Up(one + other),
            (Self::Waiting { until: one, .. }, other @ Self::Waiting { until, .. })
                if until < one =>
            {
                other
            }
            (one, other) if one.rank() >= other.rank() => one,
            (_, other) => other,
        }
    }

    /// The state with the highest rank is the state of the whole.
    fn rank(&self) -> u8 {
        match self {
            Self::Ended => 0,
            Self::Draining => 1,
            Self::Idle => 2,
            Self::GivenUp { .. } => 3,
            Self::Waiting { .. } => 4,
            Self::Connecting => 5,
            Self::Up(_) => 6,
        }
    }
}

/// What a line of the log needs: `2 up`, `connecting`, `waiting: ` and the last error.
impl fmt::Display for ConnectorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, last_error) = match self {
            Self::Up(count) => return write!(f, "{count} up"),
            Self::Connecting => ("connecting", &None),
            Self::Waiting { last_error, .. } => ("waiting", last_error),
            Self::GivenUp { last_error } => ("given up", last_error),
            Self::Idle => ("idle", &None),
            Self::Draining => ("draining", &None),
            Self::Ended => ("ended", &None),
        };
        match last_error {
            Some(error) => write!(f, "{text}: {error}"),
            None => f.write_str(text),
        }
    }
}

/// The states of the parts of one connector, in the order of the shards. Each has one writer, the
/// thread of its reactor.
#[derive(Debug, Clone)]
pub(crate) struct PartStates(Arc<[Mutex<ConnectorState>]>);

impl PartStates {
    /// The states before the first turn.
    pub(crate) fn new(parts: usize, at_first: &ConnectorState) -> Self {
        Self((0..parts).map(|_| Mutex::new(at_first.clone())).collect())
    }

    pub(crate) fn all(&self) -> Vec<ConnectorState> {
        self.0.iter().map(|part| locked(part).clone()).collect()
    }

    /// Notes the state of a part. Returns whether it has changed.
    pub(crate) fn set(&self, part: usize, state: &ConnectorState) -> bool {
        let mut now = locked(&self.0[part]);
        let changes = *now != *state;
        if changes {
            now.clone_from(state);
        }
        changes
    }
}

fn locked(part: &Mutex<ConnectorState>) -> MutexGuard<'_, ConnectorState> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, Nanos};

    /// Goal: the state of the whole is that of the part that has come furthest; connections that are up
    /// are added, and the earliest dial counts. Method: each pair of states, in both orders.
    #[test]
    fn the_part_that_has_come_furthest_decides() {
        let origin = Clock::monotonic().instant(Nanos(0));
        let wait = |secs| ConnectorState::Waiting {
            until: origin + Duration::from_secs(secs),
            last_error: None,
        };
        let given_up = ConnectorState::GivenUp { last_error: None };
        let rising = [
            ConnectorState::Ended,
            ConnectorState::Draining,
            ConnectorState::Idle,
            given_up,
            wait(2),
            wait(1),
            ConnectorState::Connecting,
            ConnectorState::Up(3),
        ];
        for (at, high) in rising.iter().enumerate() {
            for low in &rising[..at] {
                assert_eq!(high.clone().with(low.clone()), *high);
                assert_eq!(low.clone().with(high.clone()), *high);
            }
        }
        assert_eq!(ConnectorState::Up(1).with(ConnectorState::Up(2)), ConnectorState::Up(3));
    }

    /// Goal: each state has its own text, which names the last error. Method: each state.
    #[test]
    fn a_state_is_printed_with_its_error() {
        let why = "no such name".to_owned();
        let error = DialError::Resolve { name: "db.example:1".to_owned(), why };
        let until = Clock::monotonic().instant(Nanos(0));
        for (state, text) in [
            (ConnectorState::Up(2), "2 up"),
            (ConnectorState::Connecting, "connecting"),
            (ConnectorState::Waiting { until, last_error: None }, "waiting"),
            (
                ConnectorState::Waiting { until, last_error: Some(error.clone()) },
                "waiting: cannot look up db.example:1: no such name",
            ),
            (
                ConnectorState::GivenUp { last_error: Some(error) },
                "given up: cannot look up db.example:1: no such name",
            ),
            (ConnectorState::Idle, "idle"),
            (ConnectorState::Draining, "draining"),
            (ConnectorState::Ended, "ended"),
        ] {
            assert_eq!(state.to_string(), text);
        }
    }
}
