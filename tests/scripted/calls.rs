//! Requests that a handler sends to its peer: which answer belongs to which, deadlines, limits and
//! the end.

use std::time::Duration;

use condor::InOrder;
use condor::testing::Harness;

use crate::rig::{assert_clean, conclude, options};
use crate::support::calls::{Log, Node, Order, Way, node_with};
use crate::support::{ms, secs, wire};

fn node<W: Way>(max: usize) -> (Harness<Node<W>>, Log) {
    node_with(max, options())
}

/// Opens one call for each letter.
fn open<W: Way>(harness: &Harness<Node<W>>, names: &str, timeout: Duration) {
    for name in names.chars() {
        harness.message(Order::Open(name, timeout));
    }
}

/// The peer sends one answer for each letter.
fn answer<W: Way>(harness: &Harness<Node<W>>, names: &str) {
    for name in names.chars() {
        harness.packet(name.to_string());
    }
}

/// `(len, outstanding)` of the calls.
fn counts<W: Way>(harness: &Harness<Node<W>>) -> (usize, usize) {
    harness.with_handler(|node| (node.calls.len(), node.calls.outstanding())).unwrap()
}

// ---- answers ----

/// Goal: in order, each answer belongs to the oldest call without one, and an answer to nothing is
/// none. Method: three calls, and four answers.
#[test]
fn answers_in_order_belong_to_the_oldest_call() {
    let (harness, log) = node::<InOrder>(3);
    open(&harness, "ab", secs(1));
    answer(&harness, "?");
    open(&harness, "c", secs(1));
    assert_eq!(counts(&harness), (2, 2));
    answer(&harness, "???");
    assert_eq!(log.read(), ["a answered", "b answered", "c answered", "dropped"]);
    conclude(&harness);
}

/// Goal: by key, answers come in any order, each one once. Method: all orders of four answers, and
/// each answer twice.
#[test]
fn answers_by_key_belong_to_their_call_in_any_order() {
    let (harness, log) = node::<char>(4);
    for number in 0..24 {
        open(&harness, "abcd", secs(1));
        let (mut left, mut number) = (vec!['a', 'b', 'c', 'd'], number);
        while !left.is_empty() {
            let name = left.remove(number % left.len());
            number /= left.len() + 1;
            answer(&harness, &format!("{name}{name}"));
            assert_eq!(log.read(), [format!("{name} answered"), "dropped".into()]);
        }
    }
    answer(&harness, "x");
    assert_eq!(log.read(), ["dropped"]);
    conclude(&harness);
}

/// Goal: a call too many and a key that is in use are refused, with the value; nothing else changes.
/// Expired calls count in order, because their answers may still come, and do not count by key.
/// Method: two places, which are taken, expire, and become free.
#[test]
fn a_call_too_many_is_refused_with_its_value_and_the_limit() {
    let (harness, log) = node::<InOrder>(2);
    open(&harness, "abc", secs(1));
    assert_eq!(log.read(), ["c refused: 2"]);
    harness.advance(secs(1));
    assert_eq!((counts(&harness), log.read()), ((0, 2), lines("due, a expired, b expired")));
    open(&harness, "d", secs(1));
    answer(&harness, "?");
    open(&harness, "e", secs(1));
    answer(&harness, "??");
    assert_eq!(log.read(), ["d refused: 2", "dropped", "dropped", "e answered"]);
    conclude(&harness);

    let (harness, log) = node::<char>(2);
    open(&harness, "aabc", secs(1));
    let twice = "a call with the same key waits for its answer: a";
    assert_eq!(log.read(), [twice, "c refused: 2"]);
    harness.advance(secs(1));
    assert_eq!((counts(&harness), log.read()), ((0, 0), lines("due, a expired, b expired")));
    open(&harness, "ca", secs(1));
    answer(&harness, "bac");
    assert_eq!(log.read(), ["dropped", "a answered", "c answered"]);
    conclude(&harness);

    let (harness, log) = node::<char>(0);
    open(&harness, "a", secs(1));
    assert_eq!(log.read(), ["a refused: 0"]);
    conclude(&harness);
}

fn lines(text: &str) -> Vec<String> {
    text.split(", ").map(str::to_owned).collect()
}

// ---- deadlines ----

fn expires<W: Way>() {
    let (harness, log) = node::<W>(9);
    for (name, timeout) in [('a', 30), ('b', 10), ('c', 20), ('d', 10), ('e', 40)] {
        open(&harness, &name.to_string(), ms(timeout));
    }
    open(&harness, "n", Duration::MAX);
    for (passed, told) in [(10, "due, b expired, d expired"), (20, "due, c expired")] {
        harness.advance(ms(9));
        assert_eq!(log.read(), Vec::<String>::new(), "not before {passed}");
        harness.advance(ms(1));
        assert_eq!(log.read(), lines(told));
    }
    harness.stall(secs(1));
    harness.run();
    assert_eq!(log.read(), ["due", "a expired", "e expired"]);
    assert_eq!(harness.leftovers().deadlines, 0, "n never expires");
    open(&harness, "z", Duration::ZERO);
    harness.advance(ms(1));
    assert_eq!(log.read(), ["due", "z expired"]);
    harness.advance(secs(1_000_000));
    assert_eq!(counts(&harness).0, 1);
    conclude(&harness);
    assert_eq!(log.read(), ["n left"]);
}

/// Goal: each call expires at its own time, never early, in the order of the deadlines; calls that
/// expire together in the order of the calls. Method: different timeouts, zero and `MAX` among them,
/// in steps of time, and in one step.
#[test]
fn calls_expire_in_the_order_of_their_deadlines_and_never_early() {
    expires::<InOrder>();
    expires::<char>();
}

/// Goal: the answer to an expired call is dropped, and the next answer belongs to the next call.
/// Method: the oldest call expires, or one in the middle, and then all answers come.
#[test]
fn a_late_answer_in_order_is_not_given_to_the_next_call() {
    for (timeouts, told) in [
        ([1, 9, 9], ["dropped", "b answered", "c answered"]),
        ([9, 1, 9], ["a answered", "dropped", "c answered"]),
        ([9, 9, 1], ["a answered", "b answered", "dropped"]),
        ([1, 1, 9], ["dropped", "dropped", "c answered"]),
    ] {
        let (harness, log) = node::<InOrder>(3);
        for (name, timeout) in "abc".chars().zip(timeouts) {
            open(&harness, &name.to_string(), secs(timeout));
        }
        harness.advance(secs(1));
        log.read();
        answer(&harness, "???");
        assert_eq!(log.read(), told);
        assert_eq!(counts(&harness), (0, 0));
        conclude(&harness);
    }
}

/// Goal: by key, the answer to an expired call is unknown. Method: one call of two expires.
#[test]
fn a_late_answer_by_key_is_unknown() {
    let (harness, log) = node::<char>(3);
    open(&harness, "a", secs(1));
    open(&harness, "b", secs(2));
    harness.advance(secs(1));
    answer(&harness, "ab");
    assert_eq!(log.read(), ["due", "a expired", "dropped", "b answered"]);
    conclude(&harness);
}

fn timer_goes<W: Way>() {
    let (harness, log) = node_with::<W>(3, options().max_timers(1));
    assert_eq!(harness.leftovers().deadlines, 0);
    open(&harness, "ab", secs(1));
    let left = harness.leftovers();
    assert_eq!(
        (left.deadlines, left.timers),
        (1, 0),
        "one timer for all, not of the handler's own"
    );
    answer(&harness, "a");
    assert_eq!(harness.leftovers().deadlines, 1);
    answer(&harness, "b");
    assert_eq!(harness.leftovers().deadlines, 0, "no call is left");
    harness.advance(secs(9));
    assert_eq!(log.read(), ["a answered", "b answered"], "no call was due");

    // The first call is answered: the timer is that of the second.
    open(&harness, "a", secs(1));
    open(&harness, "b", secs(2));
    answer(&harness, "a");
    harness.advance(ms(1_999));
    assert_eq!(log.read(), ["a answered"]);
    harness.advance(ms(1));
    assert_eq!(log.read(), ["due", "b expired"]);

    open(&harness, "c", secs(1));
    harness.peer_resets();
    assert!(harness.is_gone());
    assert_clean(&harness);
    assert_eq!(log.read(), ["c left"]);
}

/// Goal: all calls of a connection have one timer. It is not one of `max_timers`, it comes for no call
/// that is answered, and it is gone with the last call and with the connection. Method: the entries
/// in the wheel.
#[test]
fn the_one_timer_is_gone_with_the_last_call() {
    timer_goes::<InOrder>();
    timer_goes::<char>();
}

/// Goal: calls that the handler leaves are reported again. Method: it takes one call each time.
#[test]
fn due_calls_that_are_left_are_due_again() {
    let (harness, log) = node::<char>(9);
    harness.message(Order::TakeOne);
    open(&harness, "abc", secs(1));
    harness.advance(secs(2));
    assert_eq!(log.read(), lines("due, a expired, due, b expired, due, c expired"));
    conclude(&harness);
}

/// Goal: a handler that ignores the deadlines is told of each once, and is not kept busy. Method: two
/// deadlines, and a call after them.
#[test]
fn a_handler_that_ignores_a_deadline_is_not_kept_busy() {
    let (harness, log) = node::<InOrder>(9);
    harness.message(Order::Ignore);
    open(&harness, "a", secs(1));
    open(&harness, "b", secs(2));
    harness.advance(secs(3));
    assert_eq!((log.read(), harness.leftovers().deadlines), (lines("due"), 0));
    open(&harness, "c", secs(1));
    assert_eq!(log.read(), ["due"], "a and b are still due");
    conclude(&harness);
    assert_eq!(log.read(), ["a left", "b left", "c left"]);
}

/// Goal: two lists of one connection lose no deadline to each other. Method: each of the two has the
/// earlier deadline once, and the list with the earlier one becomes empty.
#[test]
fn two_lists_of_one_connection_share_the_timer() {
    let (harness, log) = node::<char>(9);
    let open_other = |name, timeout| harness.message(Order::OpenOther(name, timeout));
    open(&harness, "a", secs(1));
    open_other('b', secs(2));
    answer(&harness, "a");
    harness.advance(secs(2));
    let told = log.read();
    assert_eq!((&*told[0], &*told[told.len() - 1]), ("a answered", "other b expired"));

    open_other('b', secs(1));
    open(&harness, "a", secs(2));
    harness.advance(secs(2));
    assert_eq!(log.read(), lines("due, other b expired, due, a expired"));
    assert_eq!(harness.leftovers().deadlines, 0);
    conclude(&harness);
}

/// Goal: the deadlines go on while the peer is not read, and after it has ended its half. Method:
/// reading is paused; the input ends.
#[test]
fn deadlines_go_on_while_the_peer_is_not_read() {
    let (harness, log) = node::<char>(9);
    harness.message(Order::Wait);
    open(&harness, "a", secs(1));
    harness.message(Order::Pause);
    harness.packet("a");
    harness.advance(secs(1));
    assert_eq!(log.read(), ["due", "a expired"]);
    harness.message(Order::Resume);
    assert_eq!(log.read(), ["dropped"]);
    open(&harness, "b", secs(1));
    harness.peer_closes();
    assert_eq!((log.read(), harness.closed()), (lines("waits"), None));
    harness.advance(secs(1));
    assert_eq!(log.read(), ["due", "b expired"]);
    conclude(&harness);
}

/// Goal: an answer that had arrived in time is not late, also if it is the last of several packets.
/// Method: the process stands still beyond the deadline, and the answers arrive meanwhile; one packet
/// is delivered in a turn.
#[test]
fn an_answer_that_came_while_we_stood_still_is_not_late() {
    let (harness, log) = node::<InOrder>(9);
    open(&harness, "abc", secs(1));
    harness.stall(secs(5));
    harness.arrive(wire(&[b"1", b"2", b"3"]));
    harness.run();
    assert_eq!(log.read(), ["a answered", "b answered", "c answered"]);
    conclude(&harness);
}

/// Goal: a peer that sends other packets without a pause cannot put off a deadline for ever, also not
/// by answers to other calls. Method: it sends more than is read, one packet in a turn of one
/// millisecond.
#[test]
fn a_flood_of_other_packets_puts_no_deadline_off_for_ever() {
    let others = || (0..=u8::MAX).filter(|name| *name != b'a').map(char::from);
    for answers in [false, true] {
        let (harness, log) = node::<char>(300);
        open(&harness, "a", ms(10));
        if answers {
            open(&harness, &others().collect::<String>(), Duration::MAX);
        }
        let packets: Vec<_> = others().map(|name| [name as u8]).collect();
        harness.arrive(wire(&packets.iter().map(|packet| &packet[..]).collect::<Vec<_>>()));
        let mut passed = 0;
        while !log.read().contains(&"a expired".into()) {
            harness.stall(ms(1));
            harness.turn();
            passed += 1;
            assert!(passed < 200, "the call has not expired after {passed} ms");
        }
        assert!(passed > 100, "unread bytes had no time: {passed} ms");
        harness.run();
        conclude(&harness);
    }
}

// ---- the end ----

/// Goal: the end of a connection gives all calls back, in order, whatever the end is; expired and
/// answered ones do not come again. Method: some calls of each kind, and four ends.
#[test]
fn the_end_gives_back_all_calls_that_are_left() {
    fn ends<W: Way>(end: impl FnOnce(&Harness<Node<W>>)) {
        let (harness, log) = node::<W>(9);
        open(&harness, "a", secs(5));
        open(&harness, "b", secs(1));
        open(&harness, "cde", secs(5));
        answer(&harness, "a");
        harness.advance(secs(1));
        open(&harness, "f", secs(5));
        log.read();
        end(&harness);
        assert_eq!(log.read(), ["c left", "d left", "e left", "f left"]);
        conclude(&harness);
        assert_eq!(log.read(), Vec::<String>::new());
    }
    fn ends_each_way<W: Way>() {
        ends::<W>(|harness| harness.peer_closes());
        ends::<W>(|harness| harness.peer_resets());
        ends::<W>(|harness| harness.drain());
        ends::<W>(|harness| {
            harness.receive([0, 5]);
            harness.peer_closes();
        });
    }
    ends_each_way::<InOrder>();
    ends_each_way::<char>();
}

/// Goal: a handler may finish its calls in a drain: answers and deadlines go on. Method: one call is
/// answered and one expires during the drain.
#[test]
fn calls_go_on_in_a_drain() {
    let (harness, log) = node::<char>(9);
    harness.message(Order::Wait);
    open(&harness, "ab", secs(1));
    harness.drain();
    answer(&harness, "a");
    harness.advance(secs(1));
    assert_eq!(log.read(), ["waits", "a answered", "due", "b expired"]);
    conclude(&harness);
}
