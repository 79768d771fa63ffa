//! Starts a connector: all the steps that can fail, on the caller's thread.
//!
//! The options are checked and the name is reserved before a reactor gets a command. Then the reactor
//! of each shard gets one [`Part`], which becomes a connector once it has a slot.

use std::io::{self, ErrorKind};

use crate::connector::{Connector, Factory};
use crate::connector_handle::ConnectorHandle;
use crate::connector_state::{ConnectorState, PartStates};
use crate::dialer::{Dialer, NoDialer, SystemDialer};
use crate::directory::{Command, Kind, Shared};
use crate::error::Error;
use crate::handle::Handle;
use crate::handler::{Dialed, Handler, IntoHandler};
use crate::logging::say;
use crate::options::{ConnectorOptions, Resolve};
use crate::phases::AnyListener;
use crate::profile::Profile;
use crate::resolver::Resolver;
use crate::sync::Arc;

/// A connector that no reactor has adopted yet.
pub(crate) struct Prepared<M> {
    /// One part for each shard.
    pub(crate) parts: Vec<Part<M>>,
    pub(crate) handle: ConnectorHandle<M>,
}

/// One shard's part of a connector.
pub(crate) struct Part<M> {
    profile: Profile<M>,
    options: ConnectorOptions,
    states: PartStates,
    resolver: Resolver,
}

impl<M: Send + 'static> Part<M> {
    /// Makes a connector of the part, for the slot that its reactor has for it.
    pub(crate) fn into_connector<R: IntoHandler<Handler: Handler<Message = M>>>(
        mut self,
        slot: u16,
        dialer: impl Dialer + 'static,
        mut factory: impl FnMut(&Dialed<'_, M>) -> R + 'static,
    ) -> Box<dyn AnyListener> {
        self.profile.slot = slot;
        let factory: Factory<R::Handler> = Box::new(move |peer| factory(peer).into_handler());
        let Self { profile, options, states, resolver } = self;
        Box::new(Connector::new(profile, options, states, dialer, resolver, factory))
    }
}

/// What looks names up where no network is: the names of nodes, or none.
fn names_of(_shared: &Shared) -> Resolve {
    #[cfg(feature = "sim")]
    if let Some(host) = &_shared.host {
        return host.resolve();
    }
    let why = "a harness looks up no names; give the connector a `resolve`";
    Arc::new(move |_| Err(io::Error::new(ErrorKind::Unsupported, why)))
}

impl Handle {
    /// Starts a connector on every shard. See
    /// [`Reactor::start_connector`](crate::Reactor::start_connector).
    ///
    /// # Errors
    ///
    /// As [`Reactor::start_connector`](crate::Reactor::start_connector), and [`Error::Gone`] if the
    /// reactor is gone.
    pub fn start_connector<M, R, F>(
        &self,
        name: &str,
        options: ConnectorOptions,
        factory: F,
    ) -> Result<ConnectorHandle<M>, Error>
    where
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        F: FnMut(&Dialed<'_, M>) -> R + Clone + Send + 'static,
    {
        #[cfg(feature = "sim")]
        if let Some(host) = &self.shared.host {
            return self.hand_out_connector(name, &options, host, factory);
        }
        if self.shared.is_simulated {
            return self.hand_out_connector(name, &options, &NoDialer, factory);
        }
        self.hand_out_connector(name, &options, &SystemDialer, factory)
    }

    /// Gives each shard its part of a connector with this kind of dialer.
    fn hand_out_connector<M, D, R, F>(
        &self,
        name: &str,
        options: &ConnectorOptions,
        dialer: &D,
        factory: F,
    ) -> Result<ConnectorHandle<M>, Error>
    where
        M: Send + 'static,
        D: Dialer + Clone + Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        F: FnMut(&Dialed<'_, M>) -> R + Clone + Send + 'static,
    {
        let Prepared { parts, handle } = self.prepare_connector::<M>(name, options)?;
        // The clones are the user's code, which may panic. Then no shard has a part.
        let clones: Vec<_> = parts.iter().map(|_| (dialer.clone(), factory.clone())).collect();
        for (part, (dialer, factory)) in parts.into_iter().zip(clones) {
            let inbox = &self.shared.inboxes[part.profile.shard];
            let make = move |slot| part.into_connector(slot, dialer, factory);
            inbox.command(Command::Adopt(Box::new(make)))?;
        }
        self.shared.publish(&handle.status, None);
        Ok(handle)
    }

    /// Makes a connector that is ready to dial.
    pub(crate) fn prepare_connector<M: Send + 'static>(
        &self,
        name: &str,
        options: &ConnectorOptions,
    ) -> Result<Prepared<M>, Error> {
        let shared = &self.shared;
        self.may_start(name)?;
        let findings = options.check();
        if !findings.errors.is_empty() {
            return Err(Error::ConnectorOptions { name: name.to_owned(), errors: findings.errors });
        }
        for warning in findings.warnings {
            say!(Warn, "connector \"{name}\": {warning}");
        }
        let max_connections = options.connection.max_connections;
        let status = shared.reserve(Kind::Connector, name, max_connections)?;
        // The profiles have the options of connections, and the resolver has the closure. So no
        // further copy of what is the user's is dropped without a guard.
        let mut dialling = options.clone();
        dialling.connection.take_framing();
        let resolve = dialling.resolve.take();
        let kept_up = options.connections > 0;
        let at_first = if kept_up { ConnectorState::Connecting } else { ConnectorState::Idle };
        let states = PartStates::new(shared.inboxes.len(), &at_first);
        let parts: Vec<Part<M>> = self
            .profiles("connector", name, &options.connection, &status)
            .into_iter()
            .map(|profile| {
                let notifier = Arc::clone(&shared.inboxes[profile.shard].notifier);
                let resolver = Resolver::new(resolve.clone(), notifier);
                let resolver = match shared.is_simulated {
                    true => resolver.simulated(names_of(shared)),
                    false => resolver,
                };
                let (options, states) = (dialling.clone(), states.clone());
                Part { profile, options, states, resolver }
            })
            .collect();
        let mailboxes = Arc::clone(&parts[0].profile.mailboxes);
        let handle =
            ConnectorHandle { name: name.into(), mailboxes, status, states, reactor: self.clone() };
        Ok(Prepared { parts, handle })
    }
}
