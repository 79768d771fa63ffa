//! The one log of a test program. A line is logged on the thread that causes it, so each test
//! collects the lines of its own thread, and none of other tests.

#![allow(dead_code, reason = "each test program uses its share of it")]

use std::cell::{Cell, RefCell};
use std::sync::Once;

use condor::Endpoint;
use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local!(static LINES: RefCell<Option<Vec<(Level, String)>>> = const { RefCell::new(None) });

thread_local! {
    /// Whether the logger panics at every line of this thread.
    pub(crate) static PANICS: Cell<bool> = const { Cell::new(false) };
}

struct Collector;

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        assert!(!PANICS.get(), "the logger panics");
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

/// Starts to collect all lines of this thread, at every level.
pub(crate) fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::set_logger(&Collector).unwrap());
    log::set_max_level(LevelFilter::Trace);
    LINES.set(Some(Vec::new()));
}

/// The lines of this thread since the last call, without the starts and stops of the harness's own
/// listener.
pub(crate) fn lines() -> Vec<(Level, String)> {
    let mut lines = LINES.replace(Some(Vec::new())).expect("a test that collects");
    lines.retain(|(level, line)| {
        *level != Level::Info || !line.starts_with("listener \"testing\": ")
    });
    lines
}

/// The same without the lines of the ordinary life of connections and listeners.
pub(crate) fn complaints() -> Vec<(Level, String)> {
    lines().into_iter().filter(|(level, line)| !is_ordinary(*level, line)).collect()
}

fn is_ordinary(level: Level, line: &str) -> bool {
    match level {
        Level::Info => line.contains("\": listening on ") || line.contains("\": stopped: "),
        Level::Debug => line.ends_with(": connected") || line.contains(": ended: "),
        _ => false,
    }
}

/// The fields of a line about a listener or about one of its peers.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// Empty if the line is about no peer.
    pub(crate) peer: &'a str,
    /// What happened, and why if the line says so.
    pub(crate) what: &'a str,
    /// The options or the command that help. Empty if the line names none.
    pub(crate) cure: &'a str,
}

/// Takes a line apart. Fails if the line does not have the form that the crate documents.
#[track_caller]
pub(crate) fn fields<'a>(line: &'a str, listener: &str) -> Fields<'a> {
    let rest = line.strip_prefix(&format!("listener \"{listener}\": ")).expect(line);
    let of_peer = rest.strip_prefix("peer ").and_then(|rest| rest.split_once(": "));
    let (peer, rest) = of_peer.unwrap_or(("", rest));
    assert!(peer.is_empty() || peer.parse::<Endpoint>().is_ok(), "{line}");
    let (what, cure) = rest.rsplit_once("; ").unwrap_or((rest, ""));
    assert!(!what.is_empty() && !line.contains(char::is_control), "{line:?}");
    Fields { peer, what, cure }
}
