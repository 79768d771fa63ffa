//! The timer wheel: its claims one by one, then all of them against a sorted map.
//!
//! Time is an argument here, so nothing sleeps.

use std::time::Duration;

use condor::internals::{Tick, TimerKey, Wheel};
use proptest::prelude::*;

use crate::bodies::wheel::{Model, Op, When, wheel_ops};

/// The reach of each level in ticks, and the span of the whole wheel.
const LEVELS: [u64; 6] = [1 << 6, 1 << 12, 1 << 18, 1 << 24, 1 << 30, 1 << 36];
const SPAN: u64 = LEVELS[5];

/// Miri is about a hundred times slower than the machine.
const IS_SLOW: bool = cfg!(miri);

/// The number of random operations.
const MOST_OPS: usize = if IS_SLOW { 12 } else { 120 };

/// All timers that are due at `now`, in the order in which they fire.
fn expire_all(wheel: &mut Wheel<u32>, now: u64) -> Vec<u32> {
    let mut budget = 100_000;
    let fired = std::iter::from_fn(|| wheel.expire(Tick(now), &mut budget)).collect();
    assert!(budget > 0, "the wheel turns without end");
    look_inside(wheel);
    fired
}

/// Checks all 384 slots. This takes longest under Miri, so there only the model does it.
fn look_inside(wheel: &Wheel<u32>) {
    if !IS_SLOW {
        wheel.invariants();
    }
}

/// A wheel whose clock shows `now`.
fn wheel_at(now: u64) -> Wheel<u32> {
    let mut wheel = Wheel::new();
    assert_eq!(expire_all(&mut wheel, now), []);
    wheel
}

/// Times on both sides of every level's boundaries.
fn starts() -> impl Iterator<Item = u64> {
    let edges = LEVELS.into_iter().flat_map(|edge| [edge - 1, edge, edge + 1, 63 * edge + 5]);
    [0, 1].into_iter().chain(edges).step_by(if IS_SLOW { 11 } else { 1 })
}

/// Checks that a timer armed at `now` for `at` fires at `at`, and not one tick before.
fn assert_fires_on_time(now: u64, at: u64) {
    let mut wheel = wheel_at(now);
    wheel.arm(Tick(at), 7);
    look_inside(&wheel);
    assert_eq!(expire_all(&mut wheel, at - 1), [], "from {now} for {at}: early");
    assert_eq!(expire_all(&mut wheel, at), [7], "from {now} for {at}: late");
    assert!(wheel.is_empty());
}

#[test]
fn a_delay_is_rounded_up_to_a_tick_and_saturates() {
    let now = Tick(10);
    assert_eq!(now.after(Duration::ZERO), Tick(10));
    assert_eq!(now.after(Duration::from_nanos(1)), Tick(11));
    assert_eq!(now.after(Duration::from_millis(1)), Tick(11));
    assert_eq!(now.after(Duration::from_nanos(1_000_001)), Tick(12));
    assert_eq!(now.after(Duration::from_secs(3)), Tick(3_010));
    assert_eq!(now.after(Duration::MAX), Tick::NEVER);
    assert_eq!(Tick(u64::MAX - 2).after(Duration::from_millis(1)), Tick(u64::MAX - 1));
    assert_eq!(Tick(u64::MAX - 2).after(Duration::from_millis(9)), Tick::NEVER);
    assert_eq!(Tick::NEVER.after(Duration::ZERO), Tick::NEVER);
}

#[test]
fn a_key_fits_four_bytes_with_room_for_none() {
    assert_eq!(size_of::<TimerKey>(), 4);
    assert!(TimerKey::NONE.is_none());
    let mut wheel = Wheel::new();
    assert!(!wheel.arm(Tick(1), 0).is_none());
    assert_eq!(wheel.get(TimerKey::NONE), None);
}

#[test]
fn armed_in_the_past_fires_on_the_next_expire() {
    for now in starts() {
        let mut wheel = wheel_at(now);
        wheel.arm(Tick(now), 1);
        wheel.arm(Tick(now / 2), 2);
        wheel.arm(Tick(0), 3);
        assert_eq!(wheel.next_expiry(), Some(Tick(0)), "at once");
        assert_eq!(expire_all(&mut wheel, now), [1, 2, 3]);
    }
}

#[test]
fn reset_to_the_past_fires_on_the_next_expire() {
    let mut wheel = wheel_at(500);
    let key = wheel.arm(Tick(90_000), 1);
    wheel.rearm(key, Tick(400));
    assert_eq!(wheel.deadline(key), Tick(400));
    assert_eq!(expire_all(&mut wheel, 500), [1]);
    assert_eq!(expire_all(&mut wheel, 90_000), []);
}

#[test]
fn reset_much_later_fires_then_and_only_then() {
    for now in starts() {
        for later in LEVELS {
            let mut wheel = wheel_at(now);
            let key = wheel.arm(Tick(now + 3), 1);
            wheel.rearm(key, Tick(now + 3 + later));
            assert_eq!(expire_all(&mut wheel, now + 2 + later), []);
            assert_eq!(expire_all(&mut wheel, now + 3 + later), [1]);
        }
    }
}

#[test]
fn reset_earlier_fires_earlier() {
    for now in starts() {
        for far in LEVELS {
            let mut wheel = wheel_at(now);
            let key = wheel.arm(Tick(now + far), 1);
            wheel.rearm(key, Tick(now + 2));
            assert_eq!(expire_all(&mut wheel, now + 1), []);
            assert_eq!(expire_all(&mut wheel, now + 2), [1]);
            assert_eq!(expire_all(&mut wheel, now + far), []);
        }
    }
}

/// Goal: a timer can be moved out of a slot that the budget left half emptied.
#[test]
fn reset_later_after_its_slot_has_started() {
    let mut wheel = Wheel::new();
    let keys: Vec<_> = (0..4).map(|id| wheel.arm(Tick(128 + u64::from(id)), id)).collect();
    let mut budget = 1;
    assert_eq!(wheel.expire(Tick(140), &mut budget), Some(0));
    assert_eq!(wheel.expire(Tick(140), &mut budget), None, "the budget is used up");
    wheel.rearm(keys[1], Tick(150));
    wheel.rearm(keys[2], Tick(130 + 4096));
    look_inside(&wheel);
    assert_eq!(expire_all(&mut wheel, 140), [3]);
    assert_eq!(expire_all(&mut wheel, 149), []);
    assert_eq!(expire_all(&mut wheel, 150), [1]);
    assert_eq!(expire_all(&mut wheel, 130 + 4096), [2]);
}

#[test]
fn reset_twice_keeps_the_last_deadline_and_the_key() {
    let mut wheel = Wheel::new();
    let key = wheel.arm(Tick(10), 1);
    wheel.rearm(key, Tick(5_000));
    wheel.rearm(key, Tick(700));
    assert_eq!((wheel.len(), wheel.get(key), wheel.deadline(key)), (1, Some(1), Tick(700)));
    assert_eq!(expire_all(&mut wheel, 699), []);
    assert_eq!(expire_all(&mut wheel, 700), [1]);
    assert_eq!(expire_all(&mut wheel, 5_000), []);
}

#[test]
fn an_expired_timer_not_yet_taken_can_be_cancelled() {
    let mut wheel = Wheel::new();
    let key = wheel.arm(Tick(3), 1);
    assert_eq!(wheel.expire(Tick(9), &mut 0), None, "no budget, no work");
    assert_eq!(wheel.len(), 1);
    assert_eq!(wheel.cancel(key), 1);
    assert_eq!(expire_all(&mut wheel, 9), []);
}

#[test]
#[should_panic(expected = "is not armed")]
fn cancelling_a_fired_timer_panics() {
    let mut wheel = Wheel::new();
    let key = wheel.arm(Tick(3), 1);
    assert_eq!(expire_all(&mut wheel, 3), [1]);
    wheel.cancel(key);
}

#[test]
#[should_panic(expected = "is not armed")]
fn rearming_no_timer_panics() {
    Wheel::<u32>::new().rearm(TimerKey::NONE, Tick(1));
}

#[test]
fn cancelled_at_a_level_threshold_leaves_nothing_behind() {
    for now in starts() {
        for at in LEVELS.into_iter().flat_map(|d| [now + d - 1, now + d, now + d + 1]) {
            let mut wheel = wheel_at(now);
            let key = wheel.arm(Tick(at), 1);
            wheel.arm(Tick(at), 2);
            assert_eq!(wheel.cancel(key), 1);
            look_inside(&wheel);
            assert_eq!(expire_all(&mut wheel, at - 1), []);
            assert_eq!(expire_all(&mut wheel, at), [2]);
        }
    }
}

#[test]
fn a_timer_armed_last_may_expire_first() {
    let mut wheel = Wheel::new();
    wheel.arm(Tick(100_000), 1);
    wheel.arm(Tick(70), 2);
    wheel.arm(Tick(3), 3);
    assert!(wheel.next_expiry() <= Some(Tick(3)));
    assert_eq!(expire_all(&mut wheel, 3), [3]);
    assert_eq!(expire_all(&mut wheel, 200_000), [2, 1]);
}

#[test]
fn a_delay_close_to_exactly_or_beyond_the_span_is_kept_to_the_tick() {
    for now in starts() {
        for delay in [SPAN - 1, SPAN, SPAN + 1, SPAN / 64 * 63, 2 * SPAN, 5 * SPAN + 12_345] {
            assert_fires_on_time(now, now + delay);
        }
    }
}

#[test]
fn every_level_boundary_is_kept_to_the_tick() {
    for now in starts() {
        for width in [1].into_iter().chain(LEVELS) {
            let next = (now / width + 1) * width;
            for at in [next - 1, next, next + 1, now + width - 1, now + width, now + width + 1] {
                if at > now {
                    assert_fires_on_time(now, at);
                }
            }
        }
    }
}

#[test]
fn level_zero_wraps_around_without_a_gap() {
    let mut wheel = Wheel::new();
    for now in 0..1_000 {
        wheel.arm(Tick(now + 63), 1);
        let due = usize::from(now >= 63);
        assert_eq!(expire_all(&mut wheel, now).len(), due, "at {now}");
    }
}

#[test]
fn never_is_counted_and_never_fires() {
    let mut wheel = Wheel::new();
    let key = wheel.arm(Tick::NEVER, 1);
    assert_eq!((wheel.len(), wheel.next_expiry()), (1, None));
    assert_eq!(expire_all(&mut wheel, u64::MAX), []);
    assert_eq!(wheel.len(), 1);
    wheel.arm(Tick(u64::MAX - 1), 2);
    assert_eq!(expire_all(&mut wheel, u64::MAX), [2], "the highest possible time");
    wheel.rearm(key, Tick(0));
    assert_eq!(expire_all(&mut wheel, 0), [1]);
}

/// Goal: the highest times cause no overflow. Method: deadlines around it, from two slots before.
#[test]
fn the_last_ticks_before_never_are_kept_too() {
    for now in [u64::MAX - 2 * LEVELS[4], u64::MAX - LEVELS[0], u64::MAX - 3] {
        assert_fires_on_time(now, u64::MAX - 2);
        assert_fires_on_time(now, u64::MAX - 1);
    }
}

#[test]
fn a_clock_that_steps_back_counts_as_standing_still() {
    let mut wheel = wheel_at(1_000);
    wheel.arm(Tick(1_005), 1);
    wheel.arm(Tick(999), 2);
    assert_eq!(expire_all(&mut wheel, 10), [2]);
    assert_eq!(expire_all(&mut wheel, 0), []);
    assert_eq!(expire_all(&mut wheel, 1_005), [1]);
}

/// Goal: a clock that steps back between two chunks does not delay timers that are due.
#[test]
fn a_clock_that_steps_back_between_chunks_still_fires_the_rest() {
    let mut wheel = Wheel::new();
    wheel.arm(Tick(5), 1);
    wheel.arm(Tick(9_000), 2);
    assert_eq!(wheel.expire(Tick(9_000), &mut 1), Some(1));
    assert_eq!(expire_all(&mut wheel, 6), [2]);
}

#[test]
fn cancel_and_rearm_in_the_same_tick_fires_once() {
    let mut wheel = wheel_at(40);
    let key = wheel.arm(Tick(50), 1);
    assert_eq!(wheel.cancel(key), 1);
    wheel.arm(Tick(50), 2);
    assert_eq!(expire_all(&mut wheel, 49), []);
    assert_eq!(expire_all(&mut wheel, 50), [2]);
    assert_eq!(expire_all(&mut wheel, 50), []);
}

#[test]
fn the_count_is_right_as_soon_as_cancel_returns() {
    let mut wheel = Wheel::new();
    let deadlines = LEVELS.into_iter().chain([0, 5, 2 * SPAN, u64::MAX]);
    let keys: Vec<_> = deadlines.map(|at| wheel.arm(Tick(at), 1)).collect();
    for (cancelled, &key) in keys.iter().enumerate() {
        assert_eq!(wheel.len(), keys.len() - cancelled);
        wheel.cancel(key);
        assert_eq!(wheel.len(), keys.len() - cancelled - 1);
    }
    assert!(wheel.is_empty());
    assert_eq!(wheel.next_expiry(), None);
}

/// Goal: if the owner of a fired timer cancels another timer of the same tick, that timer does not
/// fire.
#[test]
fn a_sibling_cancelled_between_two_firings_does_not_fire() {
    for at in [20, 64, 4_096, 4_100] {
        let mut wheel = Wheel::new();
        let keys: Vec<_> = (0..5).map(|id| wheel.arm(Tick(at), id)).collect();
        assert_eq!(wheel.expire(Tick(at), &mut 100), Some(0));
        assert_eq!(wheel.cancel(keys[1]), 1);
        assert_eq!(wheel.cancel(keys[4]), 4);
        wheel.rearm(keys[2], Tick(at + 1));
        let reborn = wheel.arm(Tick(at), 9);
        assert_eq!(wheel.cancel(reborn), 9);
        assert_eq!(expire_all(&mut wheel, at), [3]);
        assert_eq!(expire_all(&mut wheel, at + 1), [2]);
    }
}

#[test]
fn equal_deadlines_fire_in_the_order_they_were_armed() {
    let mut wheel = Wheel::new();
    for id in 0..200 {
        wheel.arm(Tick(100_000), id);
    }
    let fired = expire_all(&mut wheel, 100_000);
    assert!(fired.iter().copied().eq(0..200), "{fired:?}");
}

/// Goal: many timers that are due at once fire in chunks, and none is lost. Method: 100,000 timers
/// in one tick, a budget of 256 a chunk, and one timer cancelled after every chunk.
#[test]
fn a_hundred_thousand_timers_in_one_tick_fire_in_bounded_chunks() {
    const COUNT: u32 = if IS_SLOW { 300 } else { 100_000 };
    let mut wheel = Wheel::new();
    let keys: Vec<_> = (0..COUNT).map(|id| wheel.arm(Tick(30_000), id)).collect();
    let mut seen = vec![false; COUNT as usize];
    let mut mark = |id: u32| assert!(!std::mem::replace(&mut seen[id as usize], true), "{id}");
    let (mut chunks, mut cancelled) = (0, COUNT);
    while wheel.next_expiry().is_some_and(|at| at <= Tick(30_000)) {
        let mut budget = 256;
        while let Some(id) = wheel.expire(Tick(30_000), &mut budget) {
            mark(id);
        }
        if wheel.len() > COUNT as usize / 100 {
            cancelled -= 1;
            mark(wheel.cancel(keys[cancelled as usize]));
        }
        chunks += 1;
        assert!(chunks <= 6 * COUNT / 256 + 1, "more than five moves a timer");
    }
    assert!(wheel.is_empty());
    assert!(seen.iter().all(|&seen| seen), "a timer was lost");
}

/// Goal: the cost of a large step of the clock depends on the armed timers, not on the length of the
/// step.
#[test]
fn a_leap_over_hours_costs_no_more_than_the_timers_armed() {
    let mut wheel = Wheel::new();
    for id in 0..100u32 {
        wheel.arm(Tick(u64::from(id) * 360_000), id);
    }
    let mut budget = 600;
    let fired: Vec<_> = std::iter::from_fn(|| wheel.expire(Tick(SPAN), &mut budget)).collect();
    assert!(fired.iter().copied().eq(0..100), "{fired:?}");
    assert_eq!(wheel.next_expiry(), None, "the budget was enough");
}

/// Goal: a timer within the wheel's reach, 63 top-level slots, moves at most five times. Method:
/// steps to each announced expiry are counted.
#[test]
fn a_timer_moves_at_most_five_times() {
    for now in starts() {
        for at in LEVELS.map(|edge| now + edge / 64 * 63) {
            let mut wheel = wheel_at(now);
            wheel.arm(Tick(at), 1);
            let mut steps = 0;
            while let Some(next) = wheel.next_expiry() {
                let mut budget = 10;
                let fired = wheel.expire(next, &mut budget);
                assert_eq!(fired.is_some(), next == Tick(at) || next == Tick(0));
                steps += 10 - budget;
                assert!(steps <= 6, "from {now} for {at}: {steps} steps");
            }
            assert!(wheel.is_empty());
        }
    }
}

/// Goal: the body of the fuzz target passes here too. Method: a few thousand inputs from a fixed
/// seed. A failure prints the number of its input.
#[test]
fn random_operations_agree_with_a_sorted_map() {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    for input in 0..if IS_SLOW { 3 } else { 2_000 } {
        let len = 16 + usize::from(random()) * if IS_SLOW { 0 } else { 1 + input % 3 };
        let data: Vec<u8> = (0..len).map(|_| random()).collect();
        if let Err(panic) = std::panic::catch_unwind(|| wheel_ops(&data)) {
            eprintln!("input {input}: {data:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        1 => Just(When::Never),
        1 => Just(When::AlmostNever),
        1 => Just(When::Zero),
        2 => (0u16..200).prop_map(When::Ago),
        4 => (0u16..200).prop_map(When::In),
        2 => any::<u16>().prop_map(When::In),
        6 => (0u8..7, 0u8..66, -1i8..=1)
            .prop_map(|(level, nth, off)| When::Boundary { level, nth, off }),
        6 => (0u8..7, 0u8..66, -1i8..=1)
            .prop_map(|(level, nth, off)| When::Distance { level, nth, off }),
        3 => any::<u16>().prop_map(When::Same),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => when().prop_map(Op::Arm),
        2 => any::<u16>().prop_map(Op::Cancel),
        3 => (any::<u16>(), when()).prop_map(|(nth, when)| Op::Rearm(nth, when)),
        2 => (when(), 0u16..8).prop_map(|(clock, budget)| Op::Expire { clock, budget }),
        1 => when().prop_map(|clock| Op::Expire { clock, budget: u16::MAX }),
        1 => when().prop_map(|clock| Op::ExpireOne { clock }),
        2 => (0u16..16).prop_map(|budget| Op::FollowNext { budget }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if IS_SLOW { 2 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_agrees_with_a_sorted_map(ops in prop::collection::vec(op(), 1..MOST_OPS)) {
        let mut model = Model::default();
        for op in ops {
            model.apply(op);
        }
        model.finish();
    }
}
