//! Turns that are bounded in time, and commands, trims and ends that take many turns.

use super::super::stage::Stage;
use super::turns::{Call, Turns, count, micros};
use super::*;
use crate::reason::CloseReason;

/// Goal: a turn ends within its budget and the callbacks between two looks, however many packets
/// wait, and no packet is lost. Method: 5,000 packets of 10 µs; the first look comes after 64 units.
#[test]
fn a_turn_ends_in_time() {
    let mut turns = Turns::new(ReactorOptions::new(), 1).with_cost(micros(10));
    let client = turns.connect(0);
    turns.send(client, b"x", 5_000);
    let mut turns_taken = 0;
    while turns.stats(|stats| stats.packets_in) < 5_000 {
        let (took, _) = turns.turn();
        assert!(took <= micros(64 * 10 + 250), "{took:?}");
        turns_taken += 1;
    }
    assert!(turns_taken >= 5_000 / 25 / 2, "{turns_taken} turns");
    assert!(turns.stats(|stats| stats.time_slice_hits) > 100);
}

/// Goal: without a budget, only the other budgets bound a turn.
#[test]
fn a_budget_of_zero_does_not_end_a_turn() {
    let options = ReactorOptions::new().turn_budget(Duration::ZERO);
    let mut turns = Turns::new(options, 1).with_cost(micros(10));
    let client = turns.connect(0);
    turns.send(client, b"x", 5_000);
    let (took, calls) = turns.turn();
    assert_eq!((took, calls.len()), (micros(40_960), 4_096));
    assert_eq!(turns.stats(|stats| stats.time_slice_hits), 0);
}

/// Goal: a connection that becomes ready is served before those that were cut short, and these go
/// on in turn. Method: 30 connections with 2,000 packets each; one that sends a packet at a time.
#[test]
fn a_connection_that_becomes_ready_comes_first() {
    const HOGS: u8 = 30;
    let mut turns = Turns::new(ReactorOptions::new(), 1).with_cost(micros(10));
    let hogs: Vec<usize> = (0..HOGS).map(|_| turns.connect(0)).collect();
    let other = turns.connect(0);
    turns.send(other, &[200], 1);
    turns.until(|turns| turns.stats(|stats| stats.packets_in) == 1);
    for (hog, number) in hogs.into_iter().zip(0..) {
        turns.send(hog, &[number], 2_000);
    }
    // Each of them is new once.
    let mut new: Vec<u8> = (0..HOGS).collect();
    while !new.is_empty() {
        let (_, calls) = turns.turn();
        new.retain(|number| count(&calls, Call::Packet(*number)) == 0);
    }
    let mut served = [0; HOGS as usize];
    for _ in 0..60 {
        turns.send(other, &[200], 1);
        let (took, calls) = turns.turn();
        assert_eq!(calls.first(), Some(&Call::Packet(200)));
        assert_eq!(count(&calls, Call::Packet(200)), 1);
        assert!(calls.len() > 1, "a connection that was cut short goes on in each turn");
        assert!(took <= micros(2_000), "{took:?}");
        for (number, served) in (0..).zip(&mut served) {
            *served += count(&calls, Call::Packet(number));
        }
    }
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(*least > 0 && most - least <= 2 * 30, "{served:?}");
}

/// Goal: of the connections that come at once, each is served once before the others go on, but for
/// one connection a turn. Method: 100 connections with 1,000 packets each, none of which was served
/// before.
#[test]
fn connections_that_come_at_once_are_each_served_before_others_go_on() {
    let mut turns = Turns::new(ReactorOptions::new(), 1).with_cost(micros(10));
    let clients: Vec<usize> = (0..100).map(|_| turns.connect(0)).collect();
    for (client, number) in clients.into_iter().zip(0..) {
        turns.send(client, &[number], 1_000);
    }
    let mut new: Vec<u8> = (0..100).collect();
    while turns.stats(|stats| stats.packets_in) < 100_000 {
        let (_, mut calls) = turns.turn();
        calls.dedup();
        let again = calls.iter().filter(|call| !new.iter().any(|new| **call == Call::Packet(*new)));
        let again = again.count();
        new.retain(|number| count(&calls, Call::Packet(*number)) == 0);
        assert!(new.is_empty() || again <= 1, "{again} go on, {new:?} wait");
    }
    assert!(new.is_empty());
}

/// Goal: two busy listeners get equal time, and one does not wait for the other.
#[test]
fn listeners_share_a_turn() {
    let mut turns = Turns::new(ReactorOptions::new(), 2).with_cost(micros(10));
    for listener in [0, 0, 0, 0, 0, 0, 1] {
        let client = turns.connect(listener);
        let number = u8::try_from(listener).unwrap();
        turns.send(client, &[number], 2_000);
    }
    turns.until(|turns| turns.stats(|stats| stats.time_slice_hits) >= 7);
    let mut served = [0, 0];
    for _ in 0..20 {
        let (took, calls) = turns.turn();
        assert!(took <= micros(2_000), "{took:?}");
        for (number, served) in (0..).zip(&mut served) {
            let now = count(&calls, Call::Packet(number));
            assert!(now > 0, "each is served in each turn");
            *served += now;
        }
    }
    // A slice of the second one's single connection ends before its share does.
    let [many, one] = served;
    assert!(one >= 20 * 20 && many <= 3 * one, "{served:?}");
}

/// Goal: messages and timers with slow handlers do not hold up a turn, and packets go on beside
/// them. Method: 300 messages and 200 timers of 200 µs each; a connection with one packet a turn.
#[test]
fn messages_and_timers_end_in_time() {
    let mut turns = Turns::new(ReactorOptions::new(), 1);
    let (client, other) = (turns.connect(0), turns.connect(0));
    turns.send(client, b"t\xc8\x01", 1);
    turns.until(|turns| turns.stats(|stats| stats.packets_in) == 1);
    turns.probe.cost.set(micros(200));
    turns.probe.hand.advance(Duration::from_millis(20));
    let address = turns.probe.addresses.borrow()[0].clone();
    for _ in 0..300 {
        address.send(2).unwrap();
    }
    let (mut messages, mut timers) = (0, 0);
    let mut slow = 0;
    while messages < 300 || timers < 200 {
        turns.send(other, &[9], 1);
        let (took, calls) = turns.turn();
        // The first look of the turn may come after as many units as cheap work fits in.
        slow += u32::from(took > micros(2_400));
        assert!(slow <= 1, "{took:?}: {} calls", calls.len());
        assert_eq!(count(&calls, Call::Packet(9)), 1);
        messages += count(&calls, Call::Message(2));
        timers += count(&calls, Call::Message(1));
    }
    assert_eq!((messages, timers), (300, 200));
}

/// Goal: many commands take many turns. Method: 3,000 commands to close connections that are gone.
#[test]
fn commands_have_a_budget() {
    let mut turns = Turns::new(ReactorOptions::new(), 1);
    turns.connect(0);
    let id = turns.probe.addresses.borrow()[0].id();
    let handle = turns.reactor.handle();
    for _ in 0..3_000 {
        handle.close(id).unwrap();
    }
    let mut turns_taken = 0;
    while turns.reactor.is_busy() {
        turns.turn();
        turns_taken += 1;
    }
    assert!((3..10).contains(&turns_taken), "{turns_taken} turns");
}

/// Goal: handlers cannot add commands faster than they are carried out. Method: 100,000 commands, and
/// 2,000 more before each turn.
#[test]
fn commands_do_not_pile_up() {
    let mut turns = Turns::new(ReactorOptions::new(), 1);
    turns.connect(0);
    let id = turns.probe.addresses.borrow()[0].id();
    let handle = turns.reactor.handle();
    let close = |times: usize| (0..times).for_each(|_| handle.close(id).unwrap());
    close(100_000);
    for _ in 0..100 {
        close(2_000);
        turns.turn();
    }
    let waiting = turns.reactor.inbox().commands();
    assert!(waiting < 20_000, "{waiting} commands wait");
}

/// Goal: after a burst an idle reactor has nothing more to trim, and sleeps. Method: three listeners
/// that have reserved memory for many connections; a trim that others ask for.
#[test]
fn an_idle_reactor_has_nothing_to_trim() {
    let mut turns = Turns::new(ReactorOptions::new(), 3);
    for listener in [0, 1, 2] {
        turns.connect(listener);
    }
    turns.reactor.state.pool.note_spare(1 << 20);
    turns.turn();
    assert!(turns.reactor.next_deadline().is_some(), "a trim is planned");
    for _ in 0..4 {
        turns.probe.hand.advance(Duration::from_secs(11));
        turns.reactor.look_at_clock();
        turns.turn();
        turns.turn();
    }
    assert_eq!(turns.reactor.next_deadline(), None);
}

/// Goal: ends with a slow `terminate` do not hold up a turn. Method: 150 connections that are ended
/// at once, 1 ms each; the first look comes after 64 of them.
#[test]
fn ends_take_many_turns_if_they_are_slow() {
    let mut turns = Turns::new(ReactorOptions::new(), 1);
    for _ in 0..150 {
        turns.connect(0);
    }
    turns.probe.cost.set(micros(1_000));
    turns.reactor.listeners[0].listener.force();
    let (first, _) = turns.turn();
    assert!(first <= micros(65_000), "{first:?}");
    while turns.probe.ends.borrow().len() < 150 {
        assert!(turns.reactor.is_busy(), "ends wait, and no event comes for them");
        let (took, _) = turns.turn();
        assert!(took <= micros(3_000), "{took:?}");
    }
    assert!(turns.probe.ends.borrow().iter().all(|end| *end == CloseReason::DrainForced));
}

/// Goal: after a full batch of events only what would be blamed on a peer is put off: a handler's
/// own timer fires. Method: a batch of one event, and a timer that is due.
#[test]
fn a_timer_fires_after_a_full_batch() {
    let mut turns = Turns::new(ReactorOptions::new(), 1);
    let clients = [turns.connect(0), turns.connect(0)];
    turns.send(clients[0], b"t\x01\x05", 1);
    turns.until(|turns| turns.stats(|stats| stats.packets_in) == 1);
    turns.until(|turns| !turns.reactor.is_busy());
    for client in clients {
        turns.send(client, b"x", 1);
    }
    turns.probe.hand.advance(Duration::from_millis(20));
    if let Poller::System { events, .. } = &mut turns.reactor.poller {
        *events = Events::with_capacity(1);
    }
    // A turn judges deadlines by a time before its own poll.
    turns.reactor.look_at_clock();
    let (_, calls) = turns.turn();
    assert!(turns.reactor.state.more_events, "the batch was full");
    assert_eq!(count(&calls, Call::Message(5)), 1, "{calls:?}");
}

/// Goal: only listeners that have work share a phase. Method: listeners without work, and one whose
/// client has sent a packet; what each of them asks for.
#[test]
fn an_idle_listener_asks_for_no_share_of_a_turn() {
    const PHASES: [Phase; 5] =
        [Phase::Accept, Phase::Work, Phase::Deliver, Phase::Flush, Phase::Sweep];
    let mut turns = Turns::new(ReactorOptions::new(), 2);
    let client = turns.connect(0);
    turns.until(|turns| !turns.reactor.is_busy());
    let asks = |turns: &Turns, slot: usize| {
        PHASES.map(|phase| turns.reactor.listeners[slot].listener.has_work(phase))
    };
    for slot in [0, 1] {
        assert_eq!(asks(&turns, slot), [false; 5]);
    }
    turns.send(client, b"x", 1);
    turns.reactor.poller.poll(None).unwrap();
    turns.reactor.mark();
    assert_eq!(asks(&turns, 0), [false, true, false, false, false]);
    assert_eq!(asks(&turns, 1), [false; 5]);
}

/// Goal: a trim frees what a burst of connections needed, and says that a later one may free more.
/// Method: connections that come and go; what two trims leave.
#[test]
fn trims_free_what_a_burst_of_connections_needed() {
    let mut turns = Turns::new(ReactorOptions::new(), 1);
    for _ in 0..300 {
        turns.connect(0);
    }
    turns.clients.clear();
    turns.until(|turns| turns.stats(|stats| stats.open) == 0);
    let trim = |turns: &mut Turns| {
        let Reactor { listeners, state, .. } = &mut turns.reactor;
        listeners[0].listener.trim(state)
    };
    let first = trim(&mut turns);
    assert!(first > 1, "the burst was since the last trim");
    assert_eq!(trim(&mut turns), 0);
}

/// Goal: busy listeners get equal time for messages as well, also for those that an earlier turn has
/// left. Method: as many slow messages for each.
#[test]
fn listeners_share_the_time_for_messages() {
    let mut turns = Turns::new(ReactorOptions::new(), 2);
    for listener in [0, 1] {
        turns.connect(listener);
    }
    turns.probe.cost.set(micros(20));
    let addresses: Vec<_> = turns.probe.addresses.borrow().clone();
    for (address, number) in addresses.iter().zip(0..) {
        for _ in 0..1_000 {
            address.send(number).unwrap();
        }
    }
    turns.turn();
    let mut served = [0, 0];
    for _ in 0..10 {
        let (took, calls) = turns.turn();
        assert!(took <= micros(2_400), "{took:?}");
        for (number, served) in (0..).zip(&mut served) {
            *served += count(&calls, Call::Message(number));
        }
    }
    let [first, second] = served;
    assert!(first > 100 && first.abs_diff(second) <= first / 4, "{served:?}");
}

/// Goal: a burst of messages is followed by a trim, which frees the memory of the queues. Method:
/// messages of one listener; without them no deadline is set.
#[test]
fn a_burst_of_messages_is_followed_by_a_trim() {
    let adjust = |options: ListenerOptions| options.mailbox_capacity(100_000);
    let mut turns = Turns::with(ReactorOptions::new(), 1, adjust);
    turns.connect(0);
    turns.until(|turns| !turns.reactor.is_busy());
    assert_eq!(turns.reactor.next_deadline(), None);
    let address = turns.probe.addresses.borrow()[0].clone();
    for _ in 0..50_000 {
        address.send(1).unwrap();
    }
    turns.until(|turns| !turns.reactor.is_busy());
    let trim = turns.reactor.next_deadline().expect("a trim is to come");
    assert!(trim > Duration::from_secs(1), "{trim:?}");
}

/// Goal: a deadline counts from the command that sets it, although the turn began long before.
/// Method: a slow packet in the turn that begins a shutdown with a delay.
#[test]
fn a_deadline_counts_from_the_command_that_sets_it() {
    let secs = Duration::from_secs;
    let mut turns = Turns::new(ReactorOptions::new().shutdown_delay(secs(60)), 1);
    let client = turns.connect(0);
    let (_drain, mut parts) = Drain::new(Arc::clone(&turns.reactor.handle.shared.threads));
    turns.reactor.obey(Command::AnnounceShutdown(parts.remove(0)));
    turns.until(|turns| !turns.reactor.is_busy());
    turns.send(client, b"x", 1);
    turns.probe.cost.set(secs(10));
    turns.reactor.inbox().command(Command::BeginShutdown).unwrap();
    let (took, calls) = turns.turn();
    assert_eq!((took, calls.len()), (secs(10), 1));
    for (passed, expected) in [(secs(59), Stage::Delay), (secs(2), Stage::Draining)] {
        turns.probe.hand.advance(passed);
        turns.reactor.look_at_clock();
        turns.turn();
        let stage = turns.reactor.shutdown.as_ref().map(|shutdown| shutdown.stage);
        assert_eq!(stage, Some(expected));
    }
}
