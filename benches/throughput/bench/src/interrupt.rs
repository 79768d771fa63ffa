//! Ctrl-C ends the benchmark in order: the running server is ended, then this process.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM are noted and found by [`check`]; a second one ends the process
/// at once.
pub(crate) fn watch() -> Result<()> {
    let requested = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(requested))?;
        signal_hook::flag::register(signal, Arc::clone(requested))?;
    }
    Ok(())
}

/// Whether the user has asked to end.
pub(crate) fn requested() -> bool {
    REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed))
}

/// An error once the user has asked to end. Called wherever there may be something to wait for.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}

/// Waits until then. An error once the user has asked to end.
pub(crate) fn sleep_until(then: Instant) -> Result<()> {
    const SLICE: Duration = Duration::from_millis(200);
    while let Some(left) = then.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        check()?;
        thread::sleep(left.min(SLICE));
    }
    check()
}
