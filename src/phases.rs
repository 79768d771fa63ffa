//! The calls from a turn to a listener, independent of the handler's type: one method for each
//! phase.

use std::any::Any;

use crate::drain::Report;
use crate::identity::ConnectionId;
use crate::loop_state::{LoopState, Timer};
use crate::pairs::Run;
use crate::poller::Readiness;
use crate::status::Status;
use crate::sync::Arc;
use crate::time_budget::Phase;
use crate::wheel::TimerKey;

/// A listener, independent of the handler's type. It has one method for each phase of the turn, and
/// methods for commands.
pub(crate) trait AnyListener {
    /// Registers the listening socket for events. Called once, before anything else.
    fn register(&mut self, state: &mut LoopState);
    fn mark_acceptor(&mut self);
    /// An event has announced a connection that is opening.
    fn mark_opening(&mut self, number: u32);
    fn mark_peer(&mut self, key: u32, generation: u32, readiness: Readiness);
    fn accept(&mut self, state: &mut LoopState);
    fn work(&mut self, state: &mut LoopState, read: &mut [u8]);
    fn deliver(&mut self, state: &mut LoopState, notified: bool);
    fn expire(&mut self, state: &mut LoopState, timer: Timer);
    /// Carries out what a partner has left for a connection.
    fn carry_out(&mut self, state: &mut LoopState, key: u32, generation: u32, run: Run<'_>);
    fn flush(&mut self, state: &mut LoopState);
    fn sweep(&mut self, state: &mut LoopState);
    /// Frees memory that was not needed since the last trim. Returns how many bytes a later trim may
    /// free.
    fn trim(&mut self, state: &mut LoopState) -> usize;
    /// Notes that the wheel's entry for `timer` has another key.
    fn timer_moved(&mut self, timer: Timer, entry: TimerKey);
    /// Whether there is work that needs no event.
    fn is_busy(&self) -> bool;

    /// Whether a phase has something to do for it.
    fn has_work(&self, phase: Phase) -> bool;

    fn serial(&self) -> u64;
    /// Whether this part is the one that accepts for all shards.
    fn accepts(&self) -> bool;
    fn name(&self) -> &str;
    /// What it is, and its name, for the log.
    fn label(&self) -> &str;
    /// What handles report of the listener.
    fn status(&self) -> &Arc<Status>;
    /// Decides the end of the connection with this id, if it still exists.
    fn close(&mut self, state: &mut LoopState, id: ConnectionId);
    fn drain(&mut self, state: &mut LoopState);
    /// Decides the end of all connections, without waiting for anything.
    fn force(&mut self);
    /// The report of the drain, once no connection is left and none can come.
    fn finished(&self) -> Option<Report>;
    /// The report of the drain so far.
    fn report(&self) -> Report;
    /// Refuses all messages from now on. Drops those that are not delivered, and the factory: these
    /// drops are code of the user, and may panic.
    fn retire(&mut self, state: &mut LoopState);
    /// Checks what must hold between two phases, in debug builds.
    fn invariants(&self);
    /// The listener itself, for the test kit, which knows its type.
    fn as_any(&self) -> &dyn Any;
}
