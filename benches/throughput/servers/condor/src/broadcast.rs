//! Every packet goes to every connection, as a message of the listener.

use std::cell::OnceCell;
use std::rc::Rc;

use bytes::Bytes;
use condor::{
    Action, CloseReason, Context, Endpoint, Error, Handler, Info, ListenerHandle, ListenerOptions, Reactor,
};

/// The listener's voice, known once it has started.
type Voice = Rc<OnceCell<ListenerHandle<Bytes>>>;

struct Member {
    voice: Voice,
}

impl Handler for Member {
    type Message = Bytes;

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, Bytes>) -> Action<'a> {
        let said = self.voice.get().map(|voice| voice.broadcast(Bytes::copy_from_slice(packet)));
        match said {
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

/// Starts the listener and gives its address.
pub(crate) fn start(reactor: &mut Reactor, listen: ListenerOptions) -> Result<Endpoint, Error> {
    let voice = Voice::default();
    let theirs = Rc::clone(&voice);
    let handle =
        reactor.start_listener("echo", listen, move |_| Member { voice: Rc::clone(&theirs) })?;
    let address = handle.local_addr();
    // Nothing was accepted yet, so nobody was without a voice.
    let _ = voice.set(handle);
    Ok(address)
}
