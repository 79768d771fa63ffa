//! What the factory of a listener knows when it makes a handler.

use std::fmt;

use crate::address::Address;
#[cfg(all(feature = "peer-credentials", target_os = "linux"))]
use crate::credentials::PeerCredentials;
use crate::endpoint::Endpoint;
use crate::identity::{ConnectionId, Identity};
use crate::profile::Profile;
use crate::proxy::ProxyHeader;
#[cfg(all(feature = "peer-credentials", target_os = "linux"))]
use crate::stream::Stream;

/// A connection that was just accepted: what the factory knows when it makes the handler. `M` is the
/// handler's [`Message`](crate::Handler::Message).
///
/// # Examples
///
/// A handler whose worker thread knows where to send its results:
///
/// ```
/// use std::sync::mpsc::Sender;
/// use condor::{Accepted, Address};
/// # use condor::{Action, Context, Handler};
/// # impl Handler for Lookup {
/// #     type Message = String;
/// #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, String>) -> Action<'a> {
/// #         Action::Continue
/// #     }
/// # }
///
/// struct Lookup {
///     jobs: Sender<(Address<String>, Vec<u8>)>,
///     address: Address<String>,
/// }
///
/// impl Lookup {
///     fn new(peer: &Accepted<'_, String>, jobs: Sender<(Address<String>, Vec<u8>)>) -> Self {
///         Self { jobs, address: peer.address() }
///     }
/// }
/// # let (jobs, _) = std::sync::mpsc::channel();
/// # let options = condor::ListenerOptions::port(5555);
/// # let harness = condor::testing::Harness::new(options, move |peer| Lookup::new(peer, jobs.clone()));
/// # harness.with_handler(|lookup| assert!(lookup.address.send(String::from("done")).is_ok()));
/// # harness.with_handler(|lookup| drop(lookup.jobs.clone()));
/// # harness.run();
/// # assert_eq!(harness.stats().messages, 1);
/// ```
pub struct Accepted<'a, M = ()> {
    pub(crate) identity: &'a Identity,
    pub(crate) profile: &'a Profile<M>,
    #[cfg(all(feature = "peer-credentials", target_os = "linux"))]
    pub(crate) stream: &'a dyn Stream,
}

impl<M> Accepted<'_, M> {
    /// The peer's address: the client's, if a proxy has told it. An IPv4 client of an IPv6 socket has its
    /// IPv4 address here.
    pub fn peer_addr(&self) -> Endpoint {
        self.identity.peer_addr()
    }

    /// The address of the proxy that the connection came through. `None` if the listener expects no
    /// [PROXY header](crate::ListenerOptions::proxy) from it.
    pub fn via_addr(&self) -> Option<Endpoint> {
        self.identity.proxied().map(|proxied| proxied.via_addr.clone())
    }

    /// The PROXY header that the connection began with. `None` if the listener expects none from it.
    pub fn proxy(&self) -> Option<&ProxyHeader> {
        self.identity.proxied().map(|proxied| &proxied.header)
    }

    /// The process at the other end of a Unix socket. It is the same as
    /// [`Context::peer_credentials`](crate::Context::peer_credentials).
    ///
    /// ```
    /// use condor::Accepted;
    /// # use condor::{Action, Context, Handler};
    /// # impl Handler for Session {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::Continue
    /// #     }
    /// # }
    ///
    /// /// The commands of root may change something.
    /// struct Session {
    ///     may_write: bool,
    /// }
    ///
    /// fn session(peer: &Accepted<'_>) -> Session {
    ///     Session { may_write: peer.peer_credentials().is_some_and(|peer| peer.uid == 0) }
    /// }
    /// # let harness = condor::testing::Harness::new(condor::ListenerOptions::port(5555), session);
    /// # harness.with_handler(|session| assert!(!session.may_write));
    /// ```
    #[cfg(all(feature = "peer-credentials", target_os = "linux"))]
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.stream.peer_credentials()
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

    /// The name of the listener that accepted the connection.
    pub fn listener(&self) -> &str {
        &self.profile.name
    }
}

impl<M> fmt::Debug for Accepted<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("peer_addr", &self.peer_addr())
            .field("id", &self.id())
            .field("listener", &self.listener())
            .finish()
    }
}
