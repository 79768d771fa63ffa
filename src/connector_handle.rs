//! What other threads and callbacks may ask of a connector.

use std::fmt;

use crate::connector_state::{ConnectorState, PartStates};
use crate::directory::Kind;
use crate::drain::Drain;
use crate::error::Error;
use crate::group::{self, Group};
use crate::groups::GroupId;
use crate::handle::Handle;
use crate::mailbox::{Mailbox, Recipients};
use crate::reason::MessageError;
use crate::stats::Stats;
use crate::status::{ListenerState, Status};
use crate::sync::Arc;

/// A connector that was started: its state, its counters, its end, and messages to all of its
/// connections.
///
/// [`Reactor::start_connector`](crate::Reactor::start_connector) returns it. It can be cloned and sent
/// to other threads. A drop of it does not stop the connector.
pub struct ConnectorHandle<M> {
    pub(crate) name: Arc<str>,
    pub(crate) mailboxes: Arc<[Arc<Mailbox<M>>]>,
    pub(crate) status: Arc<Status>,
    pub(crate) states: PartStates,
    pub(crate) reactor: Handle,
}

impl<M> ConnectorHandle<M> {
    /// The connector's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a clone of `message` to every connection that is up when the message is delivered. See
    /// [`ListenerHandle::broadcast`](crate::ListenerHandle::broadcast).
    ///
    /// # Errors
    ///
    /// As [`Group::send`].
    pub fn broadcast(&self, message: M) -> Result<(), MessageError<M>>
    where
        M: Clone,
    {
        group::send(&self.mailboxes, GroupId::ALL, message)
    }

    /// A new group, without members, for connections of this connector on any shard.
    pub fn group(&self) -> Group<M> {
        Group::new(&self.mailboxes)
    }

    /// Stops this connector. See [`Handle::stop_connector`].
    ///
    /// # Errors
    ///
    /// As [`Handle::stop_connector`].
    pub fn stop(&self) -> Result<Drain, Error> {
        self.reactor.stop(Kind::Connector, &self.name, Some(&self.status))
    }

    /// How far it has come, all shards together. It stays available after the connector has ended.
    ///
    /// ```
    /// use condor::{ConnectorHandle, ConnectorState};
    ///
    /// /// Whether this service can do its work.
    /// fn is_ready(connector: &ConnectorHandle<()>) -> bool {
    ///     match connector.state() {
    ///         ConnectorState::Up(_) => true,
    ///         other => {
    ///             eprintln!("no backend: {other}");
    ///             false
    ///         }
    ///     }
    /// }
    /// # use condor::testing::ConnectorHarness;
    /// # use condor::{Action, ConnectorOptions, Context, Handler};
    /// # struct Idle;
    /// # impl Handler for Idle {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::Continue
    /// #     }
    /// # }
    /// # let harness = ConnectorHarness::idle(ConnectorOptions::to("192.0.2.1:1"), |_| Idle);
    /// # assert!(!is_ready(&harness.handle()));
    /// # harness.run();
    /// # assert!(is_ready(&harness.handle()));
    /// ```
    pub fn state(&self) -> ConnectorState {
        let parts = self.shard_states().into_iter();
        parts.reduce(ConnectorState::with).unwrap_or(ConnectorState::Ended)
    }

    /// How far it has come, one state for each shard.
    pub fn shard_states(&self) -> Vec<ConnectorState> {
        // A part that no reactor has adopted tells nothing of its end.
        match self.status.state() {
            ListenerState::Ended => vec![ConnectorState::Ended; self.mailboxes.len()],
            _ => self.states.all(),
        }
    }

    /// Whether it has no connection left and dials no more, or its reactor has ended.
    pub fn is_ended(&self) -> bool {
        self.status.state() == ListenerState::Ended
    }

    /// This connector's counters. They stay available after it has ended.
    pub fn stats(&self) -> Stats {
        self.status.stats()
    }

    /// This connector's counters, one snapshot for each shard.
    pub fn shard_stats(&self) -> Vec<Stats> {
        self.status.counters().iter().map(|counters| counters.snapshot()).collect()
    }
}

impl<M: Send + 'static> From<&ConnectorHandle<M>> for Recipients {
    fn from(connector: &ConnectorHandle<M>) -> Self {
        Self::of(&connector.mailboxes)
    }
}

impl<M> Clone for ConnectorHandle<M> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            mailboxes: Arc::clone(&self.mailboxes),
            status: Arc::clone(&self.status),
            states: self.states.clone(),
            reactor: self.reactor.clone(),
        }
    }
}

impl<M> fmt::Debug for ConnectorHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorHandle").field("name", &self.name).finish_non_exhaustive()
    }
}
