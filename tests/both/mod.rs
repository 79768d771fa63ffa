//! Tests that need neither a clock nor a script: each of them runs over scripted streams, in
//! `scripted`, and over sockets of the kernel's, in `sockets`. `crate::rig` is what drives them there.

pub(crate) mod life;
pub(crate) mod output;
pub(crate) mod packets;

use crate::rig::{Harness, Options};
use crate::support::{Actor, Diary};

/// A connection to a listener with these options, whose handlers all echo.
pub(crate) fn echo(options: Options) -> (Harness<Actor>, Diary) {
    let diary = Diary::default();
    let own = diary.clone();
    (Harness::new(options, move |_| Actor::echo(&own)), diary)
}

/// A connection to a listener with these options, with one handler made from a diary.
pub(crate) fn actor(
    options: Options,
    make: impl FnOnce(&Diary) -> Actor,
) -> (Harness<Actor>, Diary) {
    let diary = Diary::default();
    let mut actor = Some(make(&diary));
    (Harness::new(options, move |_| actor.take().expect("one connection")), diary)
}
