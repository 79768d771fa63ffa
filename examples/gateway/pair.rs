//! A proxy for any protocol over TCP: each client gets a connection of its own to a backend, and the
//! two are partners.
//!
//! The backends are tried in their order, and the first one that answers is taken. So the others are
//! for the time in which it is down: the load is not divided. If none answers, the client's connection
//! ends.
//!
//! In a drain the connections that are in use may go on for a few seconds.

use std::sync::Arc;
use std::time::Duration;

use condor::{
    Action, CloseReason, ConnectorHandle, ConnectorOptions, Context, Error, Handle, Handler, Info,
    ListenerHandle, ListenerOptions, Raw,
};

use super::Arguments;

#[cfg(all(test, feature = "sim"))]
mod tests;

/// How long both ends may be silent before the kernel asks whether the peer still exists.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The backends, and what dials them.
type Backends = Arc<(ConnectorHandle<()>, Vec<String>)>;

/// One end of a pair. That of the client dials the other one.
struct End(Option<Backends>);

impl End {
    fn connect(&self, ctx: &mut Context<'_, ()>) -> Result<Action<'static>, CloseReason> {
        if let Some((connector, backends)) = self.0.as_deref() {
            let dialled = ctx.dial(connector, backends.clone());
            ctx.pair(&dialled.map_err(|_| CloseReason::Custom("no backend can be dialled"))?)?;
        }
        Ok(Action::Continue)
    }
}

impl Handler for End {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        self.connect(ctx).into()
    }

    fn handle_packet(&mut self, bytes: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        ctx.forward(bytes).map(|()| Action::Continue).into()
    }

    fn handle_info(&mut self, info: Info<'_, ()>, _: &mut Context<'_, ()>) -> Action<'_> {
        match info {
            Info::Shutdown => Action::Continue,
            other => other.default_action(),
        }
    }
}

/// Starts the listener, and a connector that dials for it.
pub(crate) fn start(handle: &Handle, arguments: &Arguments) -> Result<ListenerHandle<()>, Error> {
    let options = ConnectorOptions::on_demand()
        .framing(Raw)
        .max_connections(arguments.max_connections)
        .connect_timeout(Duration::from_millis(arguments.timeout))
        .half_close_timeout(Duration::MAX)
        .keepalive(KEEPALIVE);
    let connector = handle.start_connector("backends", options, |_peer| End(None))?;
    let backends = Arc::new((connector, arguments.backend.clone()));
    let options = ListenerOptions::new(arguments.listen)
        .framing(Raw)
        .max_connections(arguments.max_connections)
        .half_close_timeout(Duration::MAX)
        .keepalive(KEEPALIVE);
    handle.start_listener("gateway", options, move |_peer| End(Some(Arc::clone(&backends))))
}
