//! The network of a test: its scripted connections, and the events not yet delivered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use mio::Token;
use slab::Slab;

use super::door::Door;
use super::faults::Faults;
use super::script::{Ready, Script, Shared, Source};
use crate::endpoint::Endpoint;
use crate::poller::{Readiness, SimulatedNetwork};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Network {
    scripts: Slab<Shared>,
    ready: Ready,
    /// Events that did not fit into the last batch. The next poll returns them before newer ones.
    left: VecDeque<Source>,
    pub(super) door: Rc<RefCell<Door>>,
    faults: Option<Faults>,
    connections: u64,
}

impl Network {
    pub(super) fn new() -> Self {
        let network = Self::default();
        network.door.borrow_mut().ready = Rc::clone(&network.ready);
        network
    }

    /// A peer connects to `local_addr`. Its address is `peer_addr`, or 192.0.2.1 with a port of its
    /// own.
    pub(super) fn connect(&mut self, peer_addr: Option<Endpoint>, local_addr: Endpoint) -> Shared {
        self.connections += 1;
        let port = u16::try_from(40_000 + self.connections % 20_000).unwrap_or_default();
        let peer_addr = peer_addr.unwrap_or_else(|| ([192, 0, 2, 1], port).into());
        let place = self.scripts.vacant_entry();
        let ready = Rc::clone(&self.ready);
        let mut script = Script::new(place.key(), ready, peer_addr, local_addr);
        script.plan = self.faults.as_ref().map(|faults| faults.plan(self.connections));
        script.entering = Rc::downgrade(&self.door.borrow().entering);
        let script = Rc::new(RefCell::new(script));
        place.insert(Rc::clone(&script));
        let mut door = self.door.borrow_mut();
        door.waiting.push_back(Rc::clone(&script));
        door.announce();
        script
    }

    /// A stream to `far` is opened.
    pub(super) fn dial(&mut self, far: Endpoint) -> Shared {
        self.connections += 1;
        let port = u16::try_from(50_000 + self.connections % 10_000).unwrap_or_default();
        let place = self.scripts.vacant_entry();
        let own = ([192, 0, 2, 200], port).into();
        let mut script = Script::new(place.key(), Rc::clone(&self.ready), far, own);
        script.plan = self.faults.as_ref().map(|faults| faults.plan(self.connections));
        let script = Rc::new(RefCell::new(script));
        place.insert(Rc::clone(&script));
        script
    }

    /// The number of streams that were not dropped.
    pub(super) fn open_streams(&self) -> usize {
        self.scripts.iter().filter(|(_, script)| !script.borrow().gone).count()
    }

    /// Removes a script whose harness was dropped, if its stream is gone, too.
    pub(super) fn forget(&mut self, script: &Shared) {
        let (gone, place) = (script.borrow().gone, script.borrow().place);
        if gone {
            self.scripts.remove(place);
        }
    }

    /// Existing connections get numbers from `u64::MAX` downwards, later ones from 1 upwards. So no
    /// two connections have the same plan.
    pub(super) fn set_faults(&mut self, faults: Faults) {
        for (place, script) in &self.scripts {
            script.borrow_mut().plan = Some(faults.plan(!(place as u64)));
        }
        self.faults = Some(faults);
    }

    pub(super) fn has_events(&self) -> bool {
        !self.left.is_empty() || !self.ready.borrow().is_empty()
    }

    /// The events of a stream that is gone are delivered, too: the kernel's may come as late.
    fn event(&self, source: Source) -> Option<(Token, Readiness)> {
        match source {
            Source::Acceptor => Some((self.door.borrow().token?, Readiness::READABLE)),
            Source::Script(place) => {
                let mut script = self.scripts.get(place)?.borrow_mut();
                let token = script.token?;
                let events = script.take_events();
                (events != Readiness::default()).then_some((token, events))
            }
        }
    }
}

/// The network as a reactor polls it.
#[derive(Debug)]
pub(super) struct Wire(pub(super) Rc<RefCell<Network>>);

impl SimulatedNetwork for Wire {
    fn take_events(&mut self, most: usize, into: &mut Vec<(Token, Readiness)>) -> io::Result<()> {
        let mut network = self.0.borrow_mut();
        let Network { ready, left, .. } = &mut *network;
        left.extend(ready.borrow_mut().drain(..));
        while into.len() < most
            && let Some(source) = network.left.pop_front()
        {
            into.extend(network.event(source));
        }
        Ok(())
    }
}
