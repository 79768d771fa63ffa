//! Where scripted connections come in: the backlog of the listener, in place of a listening socket.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use mio::Token;

use super::script::{Entering, Ready, ScriptedStream, Shared, Source};
use crate::acceptor::Acceptor;
use crate::endpoint::Endpoint;
use crate::options::ConnectionOptions;
use crate::poller::Registry;

/// The backlog, and the errors of the next accepts.
#[derive(Debug, Default)]
pub(super) struct Door {
    pub(super) waiting: VecDeque<Shared>,
    pub(super) entering: Rc<Entering>,
    pub(super) errors: VecDeque<ErrorKind>,
    /// The token of its events, once the reactor has registered it.
    pub(super) token: Option<Token>,
    pub(super) ready: Ready,
}

impl Door {
    /// If the backlog has a connection, announces it.
    pub(super) fn announce(&self) {
        if self.token.is_some() && !self.waiting.is_empty() {
            self.ready.borrow_mut().push(Source::Acceptor);
        }
    }
}

/// The listener's acceptor, in place of a listening socket.
#[derive(Debug)]
pub(crate) struct ScriptedAcceptor(pub(super) Rc<RefCell<Door>>);

impl Acceptor for ScriptedAcceptor {
    type Stream = ScriptedStream;

    fn accept(&mut self, _: &ConnectionOptions) -> io::Result<(ScriptedStream, Endpoint)> {
        let mut door = self.0.borrow_mut();
        if let Some(kind) = door.errors.pop_front() {
            return Err(kind.into());
        }
        let script = door.waiting.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let peer_addr = script.borrow().peer_addr.clone();
        Ok((ScriptedStream::of(script), peer_addr))
    }

    fn register(&mut self, _: &Registry, token: Token) -> io::Result<()> {
        let mut door = self.0.borrow_mut();
        door.token = Some(token);
        door.announce();
        Ok(())
    }

    fn rearm(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        self.0.borrow().announce();
        Ok(())
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        self.0.borrow_mut().token = None;
        Ok(())
    }
}
