//! Every packet goes to every connection, as a message of the listener.

use std::cell::OnceCell;
use std::rc::Rc;

use bytes::Bytes;
use condor::{
    Action, CloseReason, Context, Endpoint, Error, Handler, Info, ListenerHandle, ListenerOptions,
    Reactor,
};

/// The listener's handle. It is set after the listener has started.
type Handle = Rc<OnceCell<ListenerHandle<Bytes>>>;

struct Member {
    handle: Handle,
}

impl Handler for Member {
    type Message = Bytes;

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, Bytes>) -> Action<'a> {
        let sent = self.handle.get().map(|handle| handle.broadcast(Bytes::copy_from_slice(packet)));
        match sent {
            Some(Ok(())) => Action::Continue,
            _ => Action::stop(CloseReason::Custom("a broadcast was refused")),
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Bytes>,
        _: &mut Context<'_, Bytes>,
    ) -> Action<'a> {
        match info {
            Info::Message(packet) => Action::send(packet),
            other => other.default_action(),
        }
    }
}

/// Starts the listener. Returns its address.
pub(crate) fn start(reactor: &mut Reactor, listen: ListenerOptions) -> Result<Endpoint, Error> {
    let shared = Handle::default();
    let theirs = Rc::clone(&shared);
    let handle =
        reactor.start_listener("echo", listen, move |_| Member { handle: Rc::clone(&theirs) })?;
    let address = handle.local_addr();
    // No connection was accepted yet, so every handler finds the handle.
    let _ = shared.set(handle);
    Ok(address)
}
