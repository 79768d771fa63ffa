//! What the factory of a connector knows when it makes a handler.

use std::fmt;

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::identity::{ConnectionId, Identity};
use crate::options::Target;
use crate::profile::Profile;

/// A connection that a connector has just opened: what the factory knows when it makes the handler.
/// `M` is the handler's [`Message`](crate::Handler::Message).
///
/// See [`start_connector`](crate::Reactor::start_connector).
pub struct Dialed<'a, M = ()> {
    pub(crate) identity: &'a Identity,
    pub(crate) profile: &'a Profile<M>,
    pub(crate) target: &'a Target,
    pub(crate) attempt: u32,
}

impl<M> Dialed<'_, M> {
    /// The endpoint that it is connected to.
    pub fn peer_addr(&self) -> Endpoint {
        self.identity.peer_addr()
    }

    /// What was dialled, as text: the one of the [targets](crate::ConnectorOptions::to) that answered. For
    /// a name that is `HOST:PORT`.
    pub fn target(&self) -> String {
        self.target.to_string()
    }

    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.profile.id_of(self.identity)
    }

    /// The address to which other threads send messages for this connection's handler. It is the same
    /// as [`Context::address`](crate::Context::address).
    pub fn address(&self) -> Address<M> {
        self.profile.address_of(self.identity)
    }

    /// The name of the connector.
    pub fn connector(&self) -> &str {
        &self.profile.name
    }

    /// The number of this dial, counted from 1. Dials that failed count, and connections that ended
    /// before they were [stable](crate::Backoff::stable_after). A stable connection sets it back. It is 1
    /// for a connection that a handler has [dialled](crate::Context::dial).
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl<M> fmt::Debug for Dialed<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed")
            .field("target", &self.target())
            .field("peer_addr", &self.peer_addr())
            .field("id", &self.id())
            .field("connector", &self.connector())
            .field("attempt", &self.attempt())
            .finish()
    }
}
