//! Fairness: no connection starves in floods of packets, bytes, connects, timers or events. The
//! tests count turns.

use std::time::Duration;

use condor::{Action, CloseReason, Info, ListenerOptions, Reactor, ReactorOptions};

use crate::support::{Client, Script, drive, framed};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// Answers no empty packet, and sends all others back.
fn quiet_about_nothing() -> Script<()> {
    Script::new().packet(|packet, _| match packet {
        b"" => Action::Continue,
        other => Action::send(other.to_vec()),
    })
}

/// Options without a bound of time for a turn. If the thread is kept from running, a turn
/// would use it up, and these tests count other budgets.
fn counted() -> ReactorOptions {
    ReactorOptions::default().turn_budget(Duration::ZERO)
}

/// Turns until `client` is answered, in at most `turns` turns, while others keep the reactor busy.
#[track_caller]
fn served_within(reactor: &mut Reactor, client: &mut Client, turns: u32) {
    client.send(b"hi");
    for _ in 0..turns {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        if client.arrived() == 4 {
            assert_eq!(client.receive(), b"hi");
            return;
        }
    }
    panic!("not answered within {turns} turns");
}

/// Goal: a million empty packets are delivered within the packet budget of each turn, and another
/// connection is served in every turn. Method: one client fills its socket before each turn; another
/// client sends requests.
#[test]
fn a_million_empty_packets_starve_no_connection() {
    const FLOOD: usize = 1_000_000;
    const BUDGET: u32 = 10_000;
    let mut reactor = Reactor::with_options(counted().packet_budget(BUDGET)).unwrap();
    let listener = reactor.start_listener("test", any_port(), |_| quiet_about_nothing()).unwrap();
    let mut flood = Client::connect(listener.local_addr());
    let mut other = Client::connect(listener.local_addr());
    drive(&mut reactor, "both", || listener.stats().open == 2);
    let bytes = vec![0; 2 * FLOOD];
    let mut sent = 0;
    let mut asked = 0;
    while listener.stats().packets_in < FLOOD as u64 + asked {
        sent += flood.stuff(&bytes[sent..]);
        let before = listener.stats().packets_in;
        served_within(&mut reactor, &mut other, 1);
        asked += 1;
        let delivered = listener.stats().packets_in - before;
        assert!(delivered <= u64::from(BUDGET) + 1, "{delivered} in one turn");
    }
    assert_eq!(listener.stats().packets_in, FLOOD as u64 + asked);
    assert!(asked >= (FLOOD as u64) / u64::from(BUDGET));
    let stats = listener.stats();
    assert!(stats.packet_budget_hits > 0);
}

/// Goal: a connection that sends without end is read one budget a turn, and another connection is
/// served in every turn. Method: large packets, a small read buffer, fifty turns.
#[test]
fn a_connection_that_floods_is_read_one_budget_a_turn() {
    const BUFFER: usize = 16 * 1024;
    let mut reactor = Reactor::with_options(counted().read_buffer(BUFFER)).unwrap();
    let listener = reactor
        .start_listener("test", any_port(), |_| {
            Script::<()>::new().packet(|packet, _| match packet.len() {
                2 => Action::send(packet.to_vec()),
                _ => Action::Continue,
            })
        })
        .unwrap();
    let mut flood = Client::connect(listener.local_addr());
    let mut other = Client::connect(listener.local_addr());
    drive(&mut reactor, "both", || listener.stats().open == 2);
    let packets = framed(&[7; 30_000]).repeat(200);
    let mut at = 0;
    for _ in 0..50 {
        at += flood.stuff(&packets[at..]);
        at %= packets.len();
        let before = listener.stats().bytes_in;
        served_within(&mut reactor, &mut other, 1);
        let read = listener.stats().bytes_in - before;
        assert!(read <= BUFFER as u64 + 4, "{read} bytes in one turn");
    }
    assert!(listener.stats().read_budget_hits >= 40);
    assert!(listener.stats().packets_in > 50, "the flood itself is served");
}

/// Goal: input after a stop is discarded at one budget a turn. Method: ten budgets of bytes, then
/// the peer's end. The test counts the turns until the connection is gone.
#[test]
fn a_peer_that_lingers_is_read_one_budget_a_turn() {
    const BUFFER: usize = 4096;
    let mut reactor = Reactor::with_options(counted().read_buffer(BUFFER)).unwrap();
    let stops = |_: &condor::Accepted<'_, _>| {
        Script::<()>::new().packet(|_, _| Action::stop(CloseReason::Normal))
    };
    let listener = reactor.start_listener("test", any_port(), stops).unwrap();
    let mut client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    client.raw(&[framed(b"stop"), vec![7; 10 * BUFFER]].concat());
    client.finish();
    let turns = drive(&mut reactor, "its end", || listener.stats().open == 0);
    assert!(turns >= 10, "in {turns} turns");
}

/// Goal: with one event per batch no connection starves, although one of them always has more input.
/// Method: twenty clients and a flood. All clients are answered within a number of turns that does
/// not depend on the flood.
#[test]
fn a_batch_of_one_event_starves_no_connection() {
    let mut reactor = Reactor::with_options(counted().events(1)).unwrap();
    let listener = reactor.start_listener("test", any_port(), |_| quiet_about_nothing()).unwrap();
    let mut flood = Client::connect(listener.local_addr());
    let mut clients: Vec<Client> =
        (0..20).map(|_| Client::connect(listener.local_addr())).collect();
    let bytes = vec![0; 100_000];
    for _ in 0..5 {
        for client in &mut clients {
            client.send(b"hi");
        }
        let mut waiting: Vec<&mut Client> = clients.iter_mut().collect();
        let mut turns = 0;
        while !waiting.is_empty() {
            flood.stuff(&bytes);
            reactor.turn(Some(Duration::ZERO)).unwrap();
            turns += 1;
            assert!(turns <= 60, "{} are still waiting", waiting.len());
            waiting.retain_mut(|client| {
                let here = client.arrived() == 4;
                if here {
                    assert_eq!(client.receive(), b"hi");
                }
                !here
            });
        }
    }
}

/// Goal: a burst of connects is accepted at one budget a turn, and a connection that is already open
/// is served in every turn. Method: a hundred connects at once, a budget of eight.
#[test]
fn a_burst_of_connects_starves_no_connection() {
    let mut reactor = Reactor::with_options(counted().accept_budget(8)).unwrap();
    let options = any_port().max_connections(200);
    let listener = reactor.start_listener("test", options, |_| quiet_about_nothing()).unwrap();
    let mut first = Client::connect(listener.local_addr());
    drive(&mut reactor, "the first", || listener.stats().open == 1);
    let _burst: Vec<Client> = (0..100).map(|_| Client::connect(listener.local_addr())).collect();
    let mut turns = 0;
    while listener.stats().accepted < 101 {
        let before = listener.stats().accepted;
        served_within(&mut reactor, &mut first, 1);
        turns += 1;
        assert!(listener.stats().accepted - before <= 8);
        assert!(turns <= 20, "the budget is not used up");
    }
    assert!(listener.stats().accept_budget_hits >= 8, "the budget was not the limit");
}

/// Goal: a hundred thousand timers that are due at once fire within the budget of each turn, and
/// sockets are served between the turns. Method: one callback sets timers for one tick; the budget
/// is a thousand.
#[test]
fn timers_that_are_due_at_once_starve_no_connection() {
    const TIMERS: u64 = 100_000;
    let mut reactor = Reactor::with_options(counted().timer_budget(1000)).unwrap();
    let listener = reactor
        .start_listener("test", any_port().max_timers(100_000), |_| {
            Script::<u64>::new()
                .packet(|packet, ctx| {
                    if packet != b"arm" {
                        return Action::send(packet.to_vec());
                    }
                    for count in 0..TIMERS {
                        let _ = ctx.send_after(Duration::from_millis(1), count);
                    }
                    Action::Continue
                })
                .info(|info, _| match info {
                    Info::Message(_) => Action::Continue,
                    other => other.default_action(),
                })
        })
        .unwrap();
    let mut armed = Client::connect(listener.local_addr());
    let mut other = Client::connect(listener.local_addr());
    armed.send(b"arm");
    drive(&mut reactor, "they begin to fire", || listener.stats().messages > 0);
    while listener.stats().messages < TIMERS {
        let before = listener.stats().messages;
        served_within(&mut reactor, &mut other, 1);
        assert!(listener.stats().messages - before <= 1000);
    }
    assert_eq!(listener.stats().messages, TIMERS, "each timer fires once");
    reactor.turn(Some(Duration::from_millis(5))).unwrap();
    assert_eq!(listener.stats().messages, TIMERS);
}

/// Goal: a flood at one listener does not delay another listener. Method: two listeners, the first
/// one flooded.
#[test]
fn a_flooded_listener_does_not_starve_another() {
    let mut reactor = Reactor::new().unwrap();
    let flooded = reactor.start_listener("flooded", any_port(), |_| quiet_about_nothing()).unwrap();
    let calm = reactor.start_listener("calm", any_port(), |_| quiet_about_nothing()).unwrap();
    let mut floods: Vec<Client> = (0..4).map(|_| Client::connect(flooded.local_addr())).collect();
    let mut client = Client::connect(calm.local_addr());
    drive(&mut reactor, "all", || flooded.stats().open == 4 && calm.stats().open == 1);
    let bytes = vec![0; 200_000];
    for _ in 0..30 {
        for flood in &mut floods {
            flood.stuff(&bytes);
        }
        served_within(&mut reactor, &mut client, 1);
    }
}
