//! Log lines about listeners.
//!
//! A line is logged on the thread that causes it, so each test collects the lines of its own thread.

use std::time::Duration;

use condor::{ListenerOptions, Reactor};
use log::Level;

use crate::lines::{collect, lines};
use crate::support::Script;

/// Goal: the start and the stop of a listener are logged, with its name and address. Method: a
/// reactor that is turned through both.
#[test]
fn the_start_and_the_stop_of_a_listener_are_logged() {
    collect();
    let mut reactor = Reactor::new().unwrap();
    let listener =
        reactor.start_listener("door", ListenerOptions::port(0), |_| Script::<()>::new()).unwrap();
    let addr = listener.local_addr();
    let expected = (Level::Info, format!("listener \"door\": listening on {addr}"));
    assert_eq!(lines(), [expected]);
    let drain = listener.stop().unwrap();
    while drain.report().is_none() {
        reactor.turn(Some(Duration::from_millis(10))).unwrap();
    }
    let said = lines();
    let [(Level::Info, line)] = &said[..] else { panic!("{said:?}") };
    assert!(line.starts_with("listener \"door\": stopped: "), "{line}");
}
