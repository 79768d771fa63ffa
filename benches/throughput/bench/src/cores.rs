//! Which core the server runs on and which the generator.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The server's core and the generator's; the same one where there is only one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) generator: usize,
}

impl Cores {
    /// The first two cores this process may use.
    pub(crate) fn find() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot ask which cores may be used")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let server = cores.next().unwrap_or(0);
        Ok(Self { server, generator: cores.next().unwrap_or(server) })
    }

    pub(crate) fn shared(self) -> bool {
        self.server == self.generator
    }
}

/// Pins the calling thread, and every process and thread it starts from now on.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot pin to core {core}"))
}
