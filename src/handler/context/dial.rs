//! What a callback may open: connections to elsewhere.

use super::Context;
use crate::address::Address;
use crate::connector_handle::ConnectorHandle;
use crate::endpoint::UnixName;
use crate::error::DialError;
use crate::options::{IntoTargets, Target};
use crate::proxy::ProxyHeader;

impl<M: Send + 'static> Context<'_, M> {
    /// Opens a connection by `connector`, on this shard and with the connector's options. Its handler
    /// is made by the connector's factory once it is up.
    ///
    /// The returned address is that of the new connection, for good. Messages to it wait until the
    /// connection is up, and come after [`init`](crate::Handler::init), in their order. A broadcast that
    /// is under way then may come before them. They count in the connector's
    /// [`mailbox_capacity`](crate::ConnectorOptions::mailbox_capacity).
    ///
    /// `target` is one place or several, as for [`ConnectorOptions::to`](crate::ConnectorOptions::to):
    /// they stand for one service, and the first address that answers is taken. The dial is made once,
    /// within the [`connect_timeout`](crate::ConnectorOptions::connect_timeout), and the connection is
    /// not dialled again after its end. Four names are looked up at the same time. If four hang, no name
    /// that a handler dials is looked up until one of them ends. So be careful with names that clients
    /// choose. If the dial fails, this handler gets
    /// [`Info::DialFailed`](crate::Info::DialFailed), and messages for the connection are dropped. The
    /// end of this handler does not end the dial, nor the connection: send it a message from
    /// [`terminate`](crate::Handler::terminate), or call [`Handle::close`](crate::Handle::close), which
    /// also stops a dial.
    ///
    /// # Errors
    ///
    /// - [`DialError::Target`]: the text is no place to connect to.
    /// - [`DialError::Elsewhere`]: the connector belongs to another reactor.
    /// - [`DialError::NotRunning`]: the connector drains or has ended, or this shard has not started it
    ///   yet.
    /// - [`DialError::Full`]: there are [`max_connections`](crate::ConnectorOptions::max_connections) on
    ///   this shard, those that are being dialled and failures that callers were not told of included.
    /// - [`DialError::Busy`]: 1,024 dials were asked for in this turn.
    ///
    /// # Examples
    ///
    /// Each client gets a connection of its own to a server:
    ///
    /// ```
    /// use condor::{Action, Address, CloseReason, ConnectorHandle, Context, Handler, Info};
    ///
    /// /// The connection to the server. It gets the packets of one client as messages.
    /// struct Upstream;
    ///
    /// impl Handler for Upstream {
    ///     type Message = Vec<u8>;
    /// #   fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, Vec<u8>>) -> Action<'a> {
    /// #       Action::Continue
    /// #   }
    ///     // It sends each message to the server.
    /// #   fn handle_info<'a>(
    /// #       &'a mut self,
    /// #       info: Info<'a, Vec<u8>>,
    /// #       ctx: &mut Context<'_, Vec<u8>>,
    /// #   ) -> Action<'a> {
    /// #       match info {
    /// #           Info::Message(packet) => {
    /// #               ctx.handle().shutdown().expect("the reactor runs");
    /// #               Action::send(packet)
    /// #           }
    /// #           other => other.default_action(),
    /// #       }
    /// #   }
    /// }
    ///
    /// /// The connection of one client.
    /// struct Client {
    ///     connector: ConnectorHandle<Vec<u8>>,
    ///     upstream: Option<Address<Vec<u8>>>,
    /// }
    ///
    /// impl Handler for Client {
    ///     type Message = ();
    ///
    ///     fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
    ///         match ctx.dial(&self.connector, "127.0.0.1:7000") {
    ///             Ok(address) => self.upstream = Some(address),
    ///             Err(_) => return Action::stop(CloseReason::Custom("too many")),
    ///         }
    ///         Action::Continue
    ///     }
    ///
    ///     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    ///         // The connection need not be up.
    ///         let sent = self.upstream.as_ref().map(|upstream| upstream.send(packet.to_vec()));
    ///         match sent {
    ///             Some(Ok(())) => Action::Continue,
    ///             _ => Action::stop(CloseReason::Custom("no server")),
    ///         }
    ///     }
    ///
    ///     fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
    ///         match info {
    ///             Info::DialFailed { .. } => Action::stop(CloseReason::Custom("no server")),
    ///             other => other.default_action(),
    ///         }
    ///     }
    /// }
    /// # use condor::{ConnectorOptions, ListenerOptions, Reactor};
    /// # let mut reactor = Reactor::new()?;
    /// # let connector = reactor.start_connector("up", ConnectorOptions::on_demand(), |_| Upstream)?;
    /// # let _gateway = reactor.start_listener("gateway", ListenerOptions::port(0), move |_| Client {
    /// #     connector: connector.clone(),
    /// #     upstream: None,
    /// # })?;
    /// # reactor.handle().shutdown()?;
    /// # reactor.run()?;
    /// # Ok::<(), condor::Error>(())
    /// ```
    pub fn dial<T>(
        &mut self,
        connector: &ConnectorHandle<T>,
        target: impl IntoTargets,
    ) -> Result<Address<T>, DialError> {
        if !self.profile.handle.is_same(&connector.reactor) {
            return Err(DialError::Elsewhere);
        }
        let parse = |target: String| {
            Target::parse(&target).map_err(|why| DialError::Target { target, why })
        };
        let targets: Vec<Target> =
            target.into_targets().into_iter().map(parse).collect::<Result<_, _>>()?;
        if targets.is_empty() {
            let (target, why) = (String::new(), "there is none".to_owned());
            return Err(DialError::Target { target, why });
        }
        let mailbox = &connector.mailboxes[self.profile.shard];
        let caller = self.profile.mailbox.caller(self.identity.key, self.identity.generation);
        let client = || {
            let told = self.proxy().and_then(ProxyHeader::destination);
            let unknown = || UnixName::unnamed().into();
            (self.peer_addr(), told.or_else(|| self.local_addr()).unwrap_or_else(unknown))
        };
        let desk = &self.state.dial_requests;
        let (key, generation) = desk.ask(mailbox.serial(), targets, caller, client)?;
        Ok(Address { mailbox: mailbox.clone(), key, generation })
    }
}
