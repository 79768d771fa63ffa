//! Starts a connector on the reactor's own thread.

use super::Reactor;
use crate::connect::Prepared;
use crate::connector_handle::ConnectorHandle;
use crate::dialer::{Dialer, SystemDialer};
use crate::error::Error;
use crate::handler::{Dialed, Handler, IntoHandler};
use crate::options::ConnectorOptions;

impl Reactor {
    /// Starts a connector: it opens connections and keeps them up, on the same loop and by the same
    /// [`Handler`] contract as a listener's. `factory` makes one handler for each connection that comes
    /// up, as that of [`start_listener`](Self::start_listener) does. So
    /// [`init`](Handler::init) means that the connection is up, and
    /// [`terminate`](Handler::terminate) that it is down.
    ///
    /// What a connection had not sent when it ended is dropped. Nothing is sent again on the next one,
    /// unless the handler does it. So each packet arrives whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectorOptions`] with everything that is wrong with the options, [`Error::BadName`],
    /// [`Error::DuplicateName`], [`Error::TooManyListeners`]. That no server answers is no error: the
    /// connector dials again.
    ///
    /// # Examples
    ///
    /// ```
    /// use condor::{Action, ConnectorOptions, Context, Handler, ListenerOptions, Reactor};
    ///
    /// /// Greets its server, and ends once that has answered.
    /// struct Greeter;
    ///
    /// impl Handler for Greeter {
    ///     type Message = ();
    ///
    ///     fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> {
    ///         Action::send("hello")
    ///     }
    ///
    ///     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
    ///         assert_eq!(packet, b"hello");
    ///         ctx.handle().shutdown().expect("the reactor runs");
    ///         Action::Continue
    ///     }
    /// }
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::send(packet)
    /// #     }
    /// # }
    ///
    /// // `Echo` is a `Handler` that sends back what it gets.
    /// let mut reactor = Reactor::new()?;
    /// let echo = reactor.start_listener("echo", ListenerOptions::port(0), |_peer| Echo)?;
    /// let options = ConnectorOptions::to(echo.local_addr());
    /// let greeter = reactor.start_connector("greeter", options, |_peer| Greeter)?;
    /// reactor.run()?;
    /// assert_eq!(greeter.stats().made, 1);
    /// # Ok::<(), condor::Error>(())
    /// ```
    pub fn start_connector<M, R, F>(
        &mut self,
        name: &str,
        options: ConnectorOptions,
        factory: F,
    ) -> Result<ConnectorHandle<M>, Error>
    where
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        F: FnMut(&Dialed<'_, M>) -> R + 'static,
    {
        #[cfg(feature = "sim")]
        if let Some(host) = self.handle.shared.host.clone() {
            return self.offer_connector(name, options, host, factory);
        }
        self.offer_connector(name, options, SystemDialer, factory)
    }

    /// The same, with any kind of dialer.
    pub(crate) fn offer_connector<M, R>(
        &mut self,
        name: &str,
        options: ConnectorOptions,
        dialer: impl Dialer + 'static,
        factory: impl FnMut(&Dialed<'_, M>) -> R + 'static,
    ) -> Result<ConnectorHandle<M>, Error>
    where
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
    {
        debug_assert_eq!(self.handle.shared.inboxes.len(), 1, "shards start by their handle");
        let Prepared { mut parts, handle } = self.handle.prepare_connector::<M>(name, &options)?;
        if let Some(part) = parts.pop() {
            self.adopt(|slot| part.into_connector(slot, dialer, factory));
        }
        self.handle.shared.publish(&handle.status, None);
        Ok(handle)
    }
}
