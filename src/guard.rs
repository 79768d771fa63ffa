//! Guarded calls of the user's code: a panic stops here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::text::Line;

/// Runs the user's code. If it panics, returns the panic's text as one line.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = panic_text(payload.as_ref()).to_string();
        drop_guarded(payload);
        text
    })
}

/// Runs the user's code, a clone or a drop of a message, so that a panic does not end the loop.
/// Returns `None` after a panic.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(drop_guarded).ok()
}

/// The panics of drops that were made one by one.
#[derive(Debug, Default)]
pub(crate) struct Panics {
    pub(crate) count: u64,
    /// The text of the last one.
    pub(crate) text: String,
}

impl Panics {
    /// Drops a value of the user's.
    pub(crate) fn drop<T>(&mut self, value: T) {
        if let Err(text) = caught(|| drop(value)) {
            self.count += 1;
            self.text = text;
        }
    }
}

/// Drops a panic's payload, whose own drop may panic. The payload of *that* panic is leaked,
/// because its drop may panic again, without end.
pub(crate) fn drop_guarded(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

/// A panic's text as one line. The text may hold bytes that a peer has sent.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> Line<'_> {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Line(text.unwrap_or("(no text)"))
}
