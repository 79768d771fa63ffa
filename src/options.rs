//! All limits: the meaning, unit and default of each, and the memory that it may cost.
//!
//! Options are data. Before a socket is touched, [`ListenerOptions::check`] and
//! [`ReactorOptions::check`] find every error in them, and every value that may be unintended.

mod connection;
mod connector;
mod listener;
mod memory;
mod reactor;
mod check;

pub use check::{Findings, OptionsWarning};
pub(crate) use check::{connections_error, connections_warning};
pub(crate) use connection::ConnectionOptions;
pub use connector::{ConnectorOptions, IntoTargets};
pub(crate) use connector::{OnState, Resolve, Target};
pub use listener::ListenerOptions;
pub(crate) use listener::{OpeningOptions, Origin};
pub use reactor::ReactorOptions;
