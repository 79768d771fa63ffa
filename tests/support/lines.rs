//! The one log of a test binary. A line is logged on the thread on which it happens, so each test
//! collects those of its own, and those of tests beside it are none.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local!(static LINES: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) });

struct Collector;

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("condor") && LINES.with_borrow(Option::is_some)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = (record.level(), record.args().to_string());
            LINES.with_borrow_mut(|lines| lines.get_or_insert_default().push(line));
        }
    }

    fn flush(&self) {}
}

/// Starts to collect everything on this thread, the smallest things included.
pub(crate) fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::set_logger(&Collector).unwrap());
    log::set_max_level(LevelFilter::Trace);
    LINES.set(Some(Vec::new()));
}

/// What was logged on this thread since last asked, but for the starts and stops of the harness's own
/// listener.
pub(crate) fn lines() -> Vec<(Level, String)> {
    let mut lines = LINES.replace(Some(Vec::new())).expect("a test that collects");
    lines.retain(|(_, line)| !line.starts_with("listener \"testing\": "));
    lines
}

/// The same without what connections and listeners do in the ordinary course of things.
pub(crate) fn complaints() -> Vec<(Level, String)> {
    lines().into_iter().filter(|(_, line)| !is_ordinary(line)).collect()
}

fn is_ordinary(line: &str) -> bool {
    const LISTENERS: [&str; 3] = ["\": listening on ", "\": worst case of ", "\": stopped, "];
    line.ends_with(" connected")
        || line.contains(" ended: ")
        || LISTENERS.iter().any(|what| line.contains(what))
}
