//! Every limit there is: its meaning, unit and default, and what it may cost in memory.
//!
//! Options are data. [`ListenerOptions::check`] and [`ReactorOptions::check`] say everything that is
//! wrong with them, and everything that may not be meant, before a socket is touched.

mod check;
mod listener;
mod reactor;

pub use check::{Findings, OptionsWarning};
pub use listener::ListenerOptions;
pub(crate) use listener::Origin;
pub use reactor::ReactorOptions;
