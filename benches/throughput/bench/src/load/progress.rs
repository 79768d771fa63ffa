//! How long the generator waits for a server that sends nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mio::{Events, Poll};

use crate::interrupt;

const NO_PROGRESS: Duration = Duration::from_secs(20);
const SLICE: Duration = Duration::from_millis(500);

/// Waits for events, with a limit on the time without any.
#[derive(Debug)]
pub(super) struct Progress {
    last_progress: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { last_progress: Instant::now() }
    }

    /// Waits for events until `deadline`, or as long as it takes. An error after 20 s without any,
    /// and when the user ends the run.
    pub(super) fn wait(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        deadline: Option<Duration>,
    ) -> Result<()> {
        match poll.poll(events, Some(deadline.unwrap_or(SLICE).min(SLICE))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            _ => interrupt::check()?,
        }
        if !events.is_empty() {
            self.last_progress = Instant::now();
        } else if self.last_progress.elapsed() > NO_PROGRESS {
            bail!("no answer for {} s", NO_PROGRESS.as_secs());
        }
        Ok(())
    }
}
