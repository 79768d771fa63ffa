//! Dials that handlers ask for ([`Context::dial`](crate::Context::dial)), on their way to the
//! connector.
//!
//! ```text
//!                  asks                     takes, in its next accept phase
//!   ctx.dial ──────────────► DialRequests ─────────────────────────────────► Connector
//!            ◄──────────────      ▲            lends keys of slots               │
//!               an address        └──────────────────────────────────────────────┘
//! ```
//!
//! A callback borrows its own listener, so it cannot reach the connector. Yet the address that it gets
//! is final. So the connector lends keys of its slots in advance, and takes the requests in its next
//! turn.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::endpoint::Endpoint;
use crate::error::{DialError, Place};
use crate::mailbox::Caller;
use crate::options::Target;
use crate::sync::{Arc, AtomicUsize};

/// The most keys that a connector lends: so many dials may be asked for before it has its next turn.
const LENT: usize = 1_024;

/// A dial that a handler has asked for.
#[derive(Debug)]
pub(crate) struct DialRequest {
    /// The slot that its connection gets.
    pub(crate) key: u32,
    pub(crate) generation: u32,
    /// The places of one service.
    pub(crate) targets: Vec<Target>,
    /// What is told if it fails.
    pub(crate) caller: Caller,
    /// For a PROXY header: the peer of the caller, and what it has connected to.
    pub(crate) client: Option<Box<(Endpoint, Endpoint)>>,
}

/// What one connector lends, and what was asked of it.
#[derive(Debug)]
pub(crate) struct DialRequests {
    /// The connector's part.
    serial: u64,
    /// Free slots with their generations.
    keys: Vec<(u32, u32)>,
    /// How many more connections the connector may have.
    room: usize,
    max_connections: usize,
    /// The connector tells on whose behalf it dials.
    tells_clients: bool,
    /// Failures that callers were not told of yet.
    untold: Arc<AtomicUsize>,
    asked: VecDeque<DialRequest>,
}

impl DialRequests {
    pub(crate) fn new(serial: u64, max_connections: usize, tells_clients: bool) -> Self {
        Self {
            serial,
            keys: Vec::new(),
            room: 0,
            max_connections,
            tells_clients,
            untold: Arc::default(),
            asked: VecDeque::new(),
        }
    }

    /// How many keys are missing if there is room for so many more connections.
    pub(crate) fn wants_keys(&mut self, room: usize) -> usize {
        self.room = room.saturating_sub(self.asked.len());
        self.room.min(LENT).saturating_sub(self.keys.len())
    }

    /// Lends the key of a free slot.
    pub(crate) fn lend(&mut self, key: u32, generation: u32) {
        self.keys.push((key, generation));
    }

    /// Takes one lent key back.
    pub(crate) fn take_back(&mut self) -> Option<(u32, u32)> {
        self.keys.pop()
    }

    /// The place of a failure that a caller is going to be told of.
    pub(crate) fn place(&self) -> Place {
        Place::take(&self.untold)
    }

    /// Whether a dial was asked for that the connector does not know yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// The next dial that was asked for.
    pub(crate) fn take(&mut self) -> Option<DialRequest> {
        self.asked.pop_front()
    }

    /// Takes the dial that fits, whenever it was asked for.
    pub(crate) fn take_if(
        &mut self,
        fits: impl FnMut(&DialRequest) -> bool,
    ) -> Option<DialRequest> {
        let at = self.asked.iter().position(fits)?;
        self.asked.remove(at)
    }

    fn ask(
        &mut self,
        targets: Vec<Target>,
        caller: Caller,
        client: impl FnOnce() -> (Endpoint, Endpoint),
    ) -> Result<(u32, u32), DialError> {
        if self.room <= self.untold.load(Ordering::Relaxed) {
            return Err(DialError::Full { max: self.max_connections });
        }
        let Some((key, generation)) = self.keys.pop() else {
            return Err(DialError::Busy { max: LENT });
        };
        self.room -= 1;
        let client = self.tells_clients.then(|| Box::new(client()));
        self.asked.push_back(DialRequest { key, generation, targets, caller, client });
        Ok((key, generation))
    }
}

/// The requests for each connector of one reactor.
#[derive(Debug, Default)]
pub(crate) struct RequestDesk(Vec<Rc<RefCell<DialRequests>>>);

impl RequestDesk {
    /// From now on dials of this connector can be asked for.
    pub(crate) fn open(&mut self, requests: &Rc<RefCell<DialRequests>>) {
        self.0.push(Rc::clone(requests));
    }

    /// The connector dials no more.
    pub(crate) fn close(&mut self, requests: &Rc<RefCell<DialRequests>>) {
        self.0.retain(|known| !Rc::ptr_eq(known, requests));
    }

    /// Asks the connector with this serial for a dial. Returns the slot and the generation of the
    /// connection. `client` returns the peer of the caller, and what it has connected to.
    pub(crate) fn ask(
        &self,
        serial: u64,
        targets: Vec<Target>,
        caller: Caller,
        client: impl FnOnce() -> (Endpoint, Endpoint),
    ) -> Result<(u32, u32), DialError> {
        let is_its = |requests: &&Rc<RefCell<DialRequests>>| requests.borrow().serial == serial;
        let found = self.0.iter().find(is_its).ok_or(DialError::NotRunning)?;
        found.borrow_mut().ask(targets, caller, client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Mailbox, Notifier};

    fn caller() -> Caller {
        let notifier = Arc::new(Notifier::new(|| {}));
        Arc::new(Mailbox::<()>::new(1, 1, notifier, || ())).caller(0, 0)
    }

    /// Goal: a failure that its caller was not told of takes a place, until it is dropped. Method: two
    /// places, one of which a failure takes.
    #[test]
    fn failures_on_their_way_take_places() {
        let mut requests = DialRequests::new(1, 2, false);
        assert_eq!(requests.wants_keys(2), 2);
        (0..2).for_each(|key| requests.lend(key, 0));
        let place = requests.place();
        assert!(requests.ask(Vec::new(), caller(), || unreachable!()).is_ok());
        assert_eq!(
            requests.ask(Vec::new(), caller(), || unreachable!()),
            Err(DialError::Full { max: 2 })
        );
        drop(place);
        assert!(requests.ask(Vec::new(), caller(), || unreachable!()).is_ok());
        assert_eq!(
            requests.ask(Vec::new(), caller(), || unreachable!()),
            Err(DialError::Full { max: 2 })
        );
    }
}
