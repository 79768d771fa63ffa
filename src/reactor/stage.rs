//! How far a shutdown has come.

use crate::drain::{DrainPart, Report};

/// A shutdown under way.
#[derive(Default)]
pub(super) struct Shutdown {
    pub(super) parts: Vec<DrainPart>,
    pub(super) report: Report,
    pub(super) stage: Stage,
    /// It was asked for twice: nobody is waited for.
    pub(super) forced: bool,
}

/// How far a shutdown has come.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Known, and not begun: other shards may not know yet.
    #[default]
    Announced,
    /// The listening sockets stay open for a while.
    Delay,
    Draining,
}
