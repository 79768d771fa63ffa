//! Timers of the reactor's own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use condor::testing::Harness;
use condor::{Action, Error, Every, Handle, Info};
use log::Level;

use crate::both::echo;
use crate::lines::{collect, complaints};
use crate::rig::{conclude, handle, loop_stats, options};
use crate::support::{Actor, Trace, ms, order, secs};

/// How often a timer was called.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicU32>);

impl Calls {
    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether no closure holds it any more.
    fn is_free(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// A timer that counts its calls. It has started when this returns.
fn counting(harness: &Harness<Actor>, period: Duration) -> (Every, Calls) {
    let calls = Calls::default();
    let own = calls.clone();
    let every = handle(harness).every(period, move || own.add()).unwrap();
    harness.run();
    (every, calls)
}

/// Goal: a timer is called once in each period, on time, and does not drift. Method: each millisecond
/// of a hundred periods.
#[test]
fn a_timer_is_called_once_in_each_period() {
    let (harness, _) = echo(options());
    let (_every, calls) = counting(&harness, ms(7));
    for passed in 0..700 {
        assert_eq!(calls.count(), passed / 7, "after {passed} ms");
        harness.advance(ms(1));
    }
    assert_eq!(calls.count(), 100);
}

/// Goal: a part of a millisecond counts as a whole one, the longest period never comes, and zero is
/// refused. Method: one timer of each kind.
#[test]
fn any_period_but_zero_is_a_period() {
    let (harness, _) = echo(options());
    let (_short, often) = counting(&harness, Duration::from_nanos(1));
    let (_long, never) = counting(&harness, Duration::MAX);
    harness.advance(ms(10));
    assert_eq!((often.count(), never.count()), (10, 0));
    let error = handle(&harness).every(Duration::ZERO, || ()).unwrap_err();
    assert!(matches!(error, Error::ZeroPeriod));
    assert_eq!(error.to_string(), "the period of a timer is zero, and has to be more");
}

/// Goal: if the reactor is late, a timer is called once, and the calls that it missed are left out.
/// The next call is at a multiple of the period. Method: the process stands still for 35 ms.
#[test]
fn calls_that_were_missed_are_left_out() {
    let (harness, _) = echo(options());
    let (_every, calls) = counting(&harness, ms(10));
    harness.stall(ms(35));
    harness.run();
    assert_eq!(calls.count(), 1);
    harness.advance(ms(4));
    assert_eq!(calls.count(), 1, "at 39 ms");
    harness.advance(ms(1));
    assert_eq!(calls.count(), 2, "at 40 ms");
    harness.advance(ms(60));
    assert_eq!(calls.count(), 8, "at 100 ms");
}

/// Goal: a timer ends with its `Every`, at once, and its closure is freed; a detached one goes on.
/// Method: a drop and a cancel, outside and in a callback, in the turn in which the call is due.
#[test]
fn a_timer_ends_with_its_value() {
    let (harness, _) = echo(options());
    let (dropped, first) = counting(&harness, ms(10));
    let (cancelled, second) = counting(&harness, ms(10));
    let (in_callback, third) = counting(&harness, ms(10));
    let (detached, fourth) = counting(&harness, ms(10));
    detached.detach();
    harness.advance(ms(10));
    drop(dropped);
    cancelled.cancel();
    // The timer of this handler was set after the others, and fires before them.
    harness.stall(ms(10));
    harness.message(order("cancel", move |_| {
        drop(in_callback);
        Action::Continue
    }));
    let counts = [&first, &second, &third, &fourth].map(Calls::count);
    assert_eq!(counts, [1, 1, 1, 2]);
    harness.advance(secs(1));
    let counts = [&first, &second, &third, &fourth].map(Calls::count);
    assert_eq!(counts, [1, 1, 1, 102]);
    assert!(first.is_free() && second.is_free() && third.is_free() && !fourth.is_free());
    assert_eq!(harness.leftovers().deadlines, 1, "of the detached one");
}

/// Goal: a timer that is ended before the reactor has seen it is never called, and one that a call of
/// another timer ends is not called any more, although it is due in the same turn. Method: both.
#[test]
fn no_call_comes_after_the_end() {
    let (harness, _) = echo(options());
    let handle = handle(&harness);
    let unseen = Calls::default();
    let own = unseen.clone();
    drop(handle.every(ms(1), move || own.add()).unwrap());

    let victim: Arc<Mutex<Option<Every>>> = Arc::default();
    let other = Arc::clone(&victim);
    let _ender = handle.every(ms(10), move || drop(other.lock().unwrap().take())).unwrap();
    let (every, calls) = counting(&harness, ms(10));
    *victim.lock().unwrap() = Some(every);
    harness.advance(secs(1));
    assert_eq!((unseen.count(), calls.count()), (0, 0));
    assert!(unseen.is_free() && calls.is_free());
}

/// Goal: a timer may end itself in its own call, and start others. Method: each call starts the next
/// timer and ends its own.
#[test]
fn a_call_may_end_its_own_timer_and_start_another() {
    fn step(handle: &Handle, current: &Arc<Mutex<Option<Every>>>, calls: &Calls) {
        let (again, next, count) = (handle.clone(), Arc::clone(current), calls.clone());
        let every = handle.every(ms(5), move || {
            count.add();
            step(&again, &next, &count);
        });
        *current.lock().unwrap() = Some(every.unwrap());
    }
    let (harness, _) = echo(options());
    let (current, calls) = (Arc::default(), Calls::default());
    step(&handle(&harness), &current, &calls);
    harness.advance(ms(500));
    assert_eq!(calls.count(), 100);
    assert_eq!(harness.leftovers().deadlines, 1, "of the newest");
    drop(current.lock().unwrap().take());
    harness.advance(ms(500));
    assert_eq!(calls.count(), 100);
}

/// Goal: a panic in a call ends neither the reactor nor the timer. It is counted, and logged with its
/// text. The same holds for a panic in the drop of a closure. Method: a timer whose first call
/// panics, and whose closure panics in its drop.
#[test]
fn a_call_that_panics_is_counted_and_logged_and_the_timer_goes_on() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }
    collect();
    let (harness, _) = echo(options());
    let (handle, calls, bomb) = (handle(&harness), Calls::default(), Bomb);
    let own = calls.clone();
    let every = handle.every(secs(1), move || {
        let _bomb = &bomb;
        own.add();
        assert!(own.count() > 1, "the first\ncall");
    });
    harness.advance(ms(1_000));
    assert_eq!((calls.count(), handle.stats().panics), (1, 1));
    let said = complaints();
    let [(Level::Error, line)] = &said[..] else { panic!("{said:?}") };
    let expected = "reactor: the call of a timer panicked: the first\\ncall; RUST_BACKTRACE=1 ";
    assert!(line.starts_with(expected), "{line}");
    harness.advance(ms(2_000));
    assert_eq!((calls.count(), handle.stats().panics), (3, 1));
    drop(every);
    harness.run();
    assert_eq!(handle.stats().panics, 2);
    let said = complaints();
    let [(Level::Error, line)] = &said[..] else { panic!("{said:?}") };
    assert!(line.starts_with("reactor: the drop of a timer's closure panicked: in a drop; "));
    conclude(&harness);
}

/// Goal: a timer goes on in a drain, ends with the reactor, and does not keep the reactor from its
/// end. Its closure is freed by then. Method: a shutdown that waits for a handler; then a drop.
#[test]
fn a_timer_ends_with_the_reactor() {
    let trace = Trace::default();
    let harness = Harness::new(options().drain_timeout(secs(60)), move |_| {
        Actor::echo(&trace).info(|info, _| match info {
            Info::Shutdown => Action::Continue,
            other => other.default_action(),
        })
    });
    let handle = handle(&harness);
    let (_every, calls) = counting(&harness, secs(1));
    let drain = handle.shutdown().unwrap();
    harness.advance(secs(59));
    assert_eq!((calls.count(), drain.report()), (59, None));
    harness.advance(secs(30));
    assert!(drain.report().is_some());
    assert!(calls.is_free());
    assert!((59..=60).contains(&calls.count()));
    assert!(matches!(handle.every(secs(1), || ()), Err(Error::Gone)));

    let (harness, _) = echo(options());
    let (every, calls) = counting(&harness, secs(1));
    drop(harness);
    assert!(calls.is_free());
    drop(every);
}

/// Goal: a reactor with a timer of an hour sleeps for an hour. The wheel looks at a far deadline a
/// few times on the way. Without a timer there is no turn. Method: turns are counted.
#[test]
fn an_idle_reactor_with_a_far_timer_sleeps() {
    let (harness, _) = echo(options());
    let turns = || loop_stats(&harness).turn_nanos.count();
    let cost = |hours| {
        let before = turns();
        harness.advance(secs(3_600) * hours);
        turns() - before
    };
    let idle = cost(1);
    let (_every, calls) = counting(&harness, secs(3_600));
    let with = cost(10);
    assert_eq!(calls.count(), 10);
    assert!(with <= idle + 10 * 5, "{with} turns in ten hours, {idle} without a timer");
}

/// Goal: when the wheel returns the memory of a burst, timers keep their times and can be ended.
/// Method: a burst of a handler's timers, and a timer on each side of it.
#[test]
fn a_timer_survives_the_return_of_memory() {
    let (harness, _) = echo(options().max_timers(100_000));
    let (_before, first) = counting(&harness, secs(100));
    harness.message(order("burst", |ctx| {
        for _ in 0..50_000 {
            let _ = ctx.send_after(ms(1), order("", |_| Action::Continue));
        }
        Action::Continue
    }));
    let (after, second) = counting(&harness, secs(100));
    harness.advance(secs(45));
    after.cancel();
    harness.advance(secs(55));
    assert_eq!((first.count(), second.count()), (1, 0));
    assert_eq!(harness.leftovers().deadlines, 1);
}
