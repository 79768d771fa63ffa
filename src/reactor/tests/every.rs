//! Timers of the reactor's own that are started between two turns.

use super::*;

/// Goal: the time of a timer counts from the call of `every`, although the reactor has not turned for
/// a while. Method: a second passes before the call.
#[test]
fn the_first_call_comes_after_a_whole_period() {
    let mut by_hand = ByHand::new(ListenerOptions::port(0));
    let ms = Duration::from_millis;
    by_hand.hand.advance(ms(1_000));
    let calls = Rc::new(Cell::new(0));
    let own = Rc::clone(&calls);
    let _every = by_hand.reactor.every(ms(10), move || own.set(own.get() + 1)).unwrap();
    for (passed, expected) in [(0, 0), (9, 0), (1, 1), (9, 1), (1, 2)] {
        by_hand.hand.advance(ms(passed));
        by_hand.reactor.look_at_clock();
        by_hand.turn();
        assert_eq!(calls.get(), expected);
    }
}
