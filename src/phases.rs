//! What a turn does to a listener, whatever its handler: one method for each phase.

use std::any::Any;
use std::io;

use crate::drain::Report;
use crate::error::Error;
use crate::identity::ConnectionId;
use crate::loop_state::{LoopState, Timer};
use crate::poller::Readiness;

/// A listener, whatever its handler: one method per phase of the turn, and what commands ask for.
pub(crate) trait AnyListener {
    /// Has the events of its socket sent. Called once, before anything else.
    fn register(&mut self, state: &LoopState) -> io::Result<()>;
    fn mark_acceptor(&mut self);
    fn mark_peer(&mut self, key: u32, generation: u32, readiness: Readiness);
    fn accept(&mut self, state: &mut LoopState) -> Result<(), Error>;
    fn work(&mut self, state: &mut LoopState, read: &mut [u8]);
    fn deliver(&mut self, state: &mut LoopState, rung: bool);
    fn expire(&mut self, state: &mut LoopState, timer: Timer);
    fn flush(&mut self, state: &mut LoopState);
    fn sweep(&mut self, state: &mut LoopState);
    /// Whether there is something to do without waiting for an event.
    fn is_busy(&self) -> bool;

    fn serial(&self) -> u32;
    /// Whether this part is the one that accepts for all shards.
    fn accepts(&self) -> bool;
    fn name(&self) -> &str;
    /// Decides the end of one connection, if it is still that one.
    fn close(&mut self, state: &mut LoopState, id: ConnectionId);
    fn drain(&mut self, state: &mut LoopState) -> Result<(), Error>;
    /// Decides the end of all connections, without waiting for anything.
    fn force(&mut self);
    /// What the drain came to, once nobody is left and nobody comes.
    fn finished(&self) -> Option<Report>;
    /// What the drain has come to so far.
    fn report(&self) -> Report;
    /// Refuses all mail, and drops what nobody will read.
    fn retire(&mut self, state: &mut LoopState);
    /// What must hold between two phases, in debug builds.
    fn invariants(&self);
    /// The listener itself, for the test kit, which knows its type.
    fn as_any(&self) -> &dyn Any;
}
