//! Tests that need neither a clock nor a script. Each of them runs over scripted streams, in
//! `scripted`, and over kernel sockets, in `sockets`. `crate::rig` drives them in both.

pub(crate) mod framers;
pub(crate) mod half_close;
pub(crate) mod life;
pub(crate) mod output;
pub(crate) mod packets;
pub(crate) mod refusals;
pub(crate) mod writing;

use crate::rig::{Harness, Options};
use crate::support::{Actor, Trace};

/// A connection to a listener with these options, whose handlers all echo.
pub(crate) fn echo(options: Options) -> (Harness<Actor>, Trace) {
    let trace = Trace::default();
    let own = trace.clone();
    (Harness::new(options, move |_| Actor::echo(&own)), trace)
}

/// A connection to a listener with these options, with one handler made from a trace.
pub(crate) fn actor(
    options: Options,
    make: impl FnOnce(&Trace) -> Actor,
) -> (Harness<Actor>, Trace) {
    let trace = Trace::default();
    let mut actor = Some(make(&trace));
    (Harness::new(options, move |_| actor.take().expect("one connection")), trace)
}
