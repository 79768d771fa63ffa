//! How far a shutdown has come.

use crate::drain::{DrainPart, Report};

/// A shutdown under way.
#[derive(Default)]
pub(super) struct Shutdown {
    pub(super) parts: Vec<DrainPart>,
    pub(super) report: Report,
    pub(super) stage: Stage,
    /// The shutdown was asked for twice: it waits for no connection.
    pub(super) forced: bool,
}

/// How far a shutdown has come.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Announced, and not begun: other shards may not know of it yet.
    #[default]
    Announced,
    /// The listening sockets stay open for `shutdown_delay`.
    Delay,
    Draining,
}
