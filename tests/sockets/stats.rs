//! Counters: each one changes exactly when its documentation says so.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;

use condor::{
    Action, CloseKind, CloseReason, Info, LengthField, ListenerHandle, ListenerOptions, Reactor,
    ReactorOptions, Stats,
};

use crate::support::{Client, Script, Server, drive, framed, next, over, settle, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// The counters that have changed, without those that change with every connection.
fn moved(stats: &Stats) -> BTreeMap<&'static str, u64> {
    const USUAL: [&str; 8] = [
        "accepted",
        "open",
        "made",
        "terminated",
        "packets_in",
        "packets_out",
        "bytes_in",
        "bytes_out",
    ];
    stats.iter().filter(|(name, count)| *count > 0 && !USUAL.contains(name)).collect()
}

/// An echo server with small budgets that the test turns.
fn by_hand(
    budgets: ReactorOptions,
    options: ListenerOptions,
    mut make: impl FnMut() -> Script<u32> + 'static,
) -> (Reactor, ListenerHandle<u32>) {
    let mut reactor = Reactor::with_options(budgets).unwrap();
    let listener = reactor.start_listener("test", options, move |_| make()).unwrap();
    (reactor, listener)
}

/// Goal: connections, packets and bytes are counted in both directions, and no other counter changes
/// in an ordinary conversation. Method: a known conversation; all counters are compared exactly.
#[test]
fn an_ordinary_conversation_is_counted_exactly() {
    let (mut reactor, listener) = by_hand(ReactorOptions::default(), any_port(), Script::new);
    let mut clients = [(); 3].map(|()| Client::connect(listener.local_addr()));
    for client in &mut clients {
        client.raw(&[framed(b"one"), framed(b""), framed(b"three")].concat());
    }
    drive(&mut reactor, "the answers", || clients.iter().all(|client| client.arrived() == 14));
    let stats = listener.stats();
    assert_eq!((stats.accepted, stats.open, stats.made, stats.terminated), (3, 3, 3, 0));
    assert_eq!((stats.packets_in, stats.packets_out), (9, 9));
    assert_eq!((stats.bytes_in, stats.bytes_out), (3 * 14, 3 * 14));
    assert_eq!((stats.closed_total(), moved(&stats)), (0, BTreeMap::new()));

    drop(clients);
    drive(&mut reactor, "their ends", || listener.stats().open == 0);
    let stats = listener.stats();
    assert_eq!((stats.accepted, stats.made, stats.terminated), (3, 3, 3));
    assert_eq!(stats.closed_total(), 3);
    // A client that closes with unread answers causes a reset at the server.
    let reset = stats.closed(CloseKind::Reset) + stats.closed(CloseKind::Io);
    assert_eq!(stats.closed(CloseKind::PeerClosed) + reset, 3);
    assert_eq!(moved(&stats), BTreeMap::new());
}

/// Goal: connections are counted by the reason of their end. Method: one end for each reason that a
/// peer or a handler can cause at once.
#[test]
fn ends_are_counted_by_their_reason() {
    let options = any_port()
        .max_packet(1000)
        .packet_timeout(Duration::from_millis(30))
        .drain_timeout(Duration::from_millis(50));
    let (_server, listener) = Server::one(options, |_| {
        Script::<()>::new()
            .packet(|packet, ctx| match packet {
                b"normal" => Action::stop(CloseReason::Normal),
                b"custom" => Action::stop(CloseReason::Custom("mine")),
                b"large" => Action::send(vec![0; 1001]),
                b"panic" => panic!("asked for"),
                b"idle" => {
                    ctx.set_idle_timeout(Some(Duration::from_millis(20)));
                    Action::Continue
                }
                b"silent" => {
                    ctx.set_silence_timeout(Some(Duration::from_millis(20)));
                    Action::Continue
                }
                _ => Action::Continue,
            })
            .info(|info, _| match info {
                Info::Shutdown => Action::Continue,
                other => other.default_action(),
            })
    });
    for (sent, kind) in [
        (framed(b"normal"), CloseKind::Normal),
        (framed(b"custom"), CloseKind::Custom),
        (framed(b"large"), CloseKind::AnswerTooLarge),
        (framed(b"panic"), CloseKind::Panicked),
        (framed(b"idle"), CloseKind::IdleTimeout),
        (framed(b"silent"), CloseKind::SilenceTimeout),
        (vec![0xff, 0xff], CloseKind::PacketTooLarge),
        (vec![0, 9, b'h'], CloseKind::PacketTimeout),
    ] {
        let mut client = Client::connect(listener.local_addr());
        client.raw(&sent);
        client.expect_end();
        until("it is counted", || listener.stats().closed(kind) == 1);
    }
    assert_eq!(listener.stats().packet_timeouts, 1);
    assert_eq!(listener.stats().refused_sends, 1, "the answer that was too large");
    assert_eq!(listener.stats().panics, 1);
    let mut forced = Client::connect(listener.local_addr());
    forced.send(b"stay");
    until("the packet has arrived", || listener.stats().packets_in == 7);
    over(&listener.stop().unwrap());
    assert_eq!(listener.stats().closed(CloseKind::DrainForced), 1);
    assert_eq!(listener.stats().closed_total(), 9);
    let sum: u64 = CloseKind::ALL.iter().map(|kind| listener.stats().closed(*kind)).sum();
    assert_eq!(sum, 9);
}

/// Goal: each budget that ends work early is counted in its own counter, and in no other. Method:
/// small budgets, one at a time, each just exceeded.
#[test]
fn each_budget_that_is_used_up_is_counted() {
    let accept = ReactorOptions::default().accept_budget(1);
    let (mut reactor, listener) = by_hand(accept, any_port(), Script::new);
    let clients = [(); 3].map(|()| Client::connect(listener.local_addr()));
    drive(&mut reactor, "three connections", || listener.stats().open == 3);
    assert_eq!(moved(&listener.stats()).into_keys().collect::<Vec<_>>(), ["accept_budget_hits"]);
    drop(clients);

    let packets = ReactorOptions::default().packet_budget(2);
    let (mut reactor, listener) = by_hand(packets, any_port(), Script::new);
    let mut client = Client::connect(listener.local_addr());
    client.raw(&framed(b"x").repeat(5));
    drive(&mut reactor, "five answers", || client.arrived() == 15);
    assert_eq!(moved(&listener.stats()), BTreeMap::from([("packet_budget_hits", 2)]));

    let bytes = ReactorOptions::default().read_buffer(4096);
    let (mut reactor, listener) = by_hand(bytes, any_port(), Script::new);
    let mut client = Client::connect(listener.local_addr());
    client.send(&[0; 10_000]);
    drive(&mut reactor, "the answer", || client.arrived() == 10_002);
    assert_eq!(moved(&listener.stats()), BTreeMap::from([("read_budget_hits", 2)]));

    let (mut reactor, listener) =
        by_hand(ReactorOptions::default(), any_port().max_connections(1), Script::new);
    let mut clients = [(); 3].map(|()| Client::connect(listener.local_addr()));
    clients[0].send(b"hi");
    drive(&mut reactor, "an answer", || clients[0].arrived() == 4);
    settle(&mut reactor);
    let stats = moved(&listener.stats());
    assert_eq!(stats.into_keys().collect::<Vec<_>>(), ["connection_limit_hits"]);
}

/// Goal: these are counted: refused packets, returned messages, messages whose receiver is gone, and
/// delivered messages, timers included. Method: at least one of each.
#[test]
fn messages_and_refusals_are_counted() {
    let (addresses, address) = channel();
    let budget = ReactorOptions::default().message_budget(3);
    let (mut reactor, listener) = by_hand(budget, any_port().mailbox_capacity(8), move || {
        Script::new().sends_address(&addresses).packet(|_, ctx| {
            assert!(ctx.send(vec![0; 70_000]).is_err());
            let _ = ctx.send_after(Duration::from_millis(1), 1);
            Action::Continue
        })
    });
    let mut client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    let address = next(&address);
    for count in 0..10 {
        assert_eq!(address.send(count).is_ok(), count < 8);
    }
    drive(&mut reactor, "the messages", || listener.stats().messages == 8);
    assert_eq!(
        moved(&listener.stats()),
        BTreeMap::from([("messages", 8), ("refused_messages", 2), ("message_budget_hits", 2)])
    );
    client.send(b"timer");
    drive(&mut reactor, "the timer", || listener.stats().messages == 9);
    assert_eq!(listener.stats().refused_sends, 1);
    drop(client);
    drive(&mut reactor, "its end", || listener.stats().open == 0);
    address.send(0).unwrap();
    drive(&mut reactor, "the stale message", || listener.stats().dropped_messages == 1);
    assert_eq!(listener.stats().messages, 9);
}

/// Goal: each crossing of the high-water mark is counted once, and so is each packet timeout,
/// whatever the handler answers. Method: a reader that stops and continues twice; half a packet
/// twice.
#[test]
fn crossings_and_timeouts_are_counted_each_time() {
    let options = any_port()
        .framing(LengthField::U16)
        .packet_timeout(Duration::from_millis(10))
        .write_stall_timeout(Duration::MAX);
    let (_server, listener) = Server::one(options, |_| {
        Script::<()>::new()
            .packet(|_, ctx| {
                for _ in 0..100 {
                    ctx.send(vec![0; 60_000]).unwrap();
                }
                Action::Continue
            })
            .info(|info, _| match info {
                Info::Timeout(_) => Action::Continue,
                other => other.default_action(),
            })
    });
    let mut client = Client::with_small_window(listener.local_addr());
    for crossing in 1..=2 {
        client.send(b"much");
        until("it is over the mark", || listener.stats().high_water_hits == crossing);
        for _ in 0..100 {
            assert_eq!(client.receive().len(), 60_000);
        }
    }
    for timeout in 1..=2 {
        client.raw(b"\x00\x04ha");
        until("it has timed out", || listener.stats().packet_timeouts == timeout);
    }
    assert_eq!((listener.stats().open, listener.stats().high_water_hits), (1, 2));
}

/// Goal: the sum includes listeners that have ended, and each listener keeps its own counters.
/// Method: two listeners with different work, one of them stopped in between.
#[test]
fn the_sum_keeps_listeners_that_have_ended() {
    let (server, listeners) = Server::start(|reactor| {
        ["one", "two"].map(|name| {
            let factory = |_: &condor::Accepted<'_, _>| Script::<()>::new();
            reactor.start_listener(name, any_port(), factory).unwrap()
        })
    });
    for (listener, packets) in listeners.iter().zip([3, 5]) {
        let mut client = Client::connect(listener.local_addr());
        for _ in 0..packets {
            assert_eq!(client.ask(b"hi"), b"hi");
        }
        assert_eq!(listener.stats().packets_in, packets);
    }
    let own = server.handle.listeners();
    assert_eq!(own.iter().map(|(_, _, stats)| stats.packets_in).collect::<Vec<_>>(), [3, 5]);
    let mut merged = own[0].2.clone();
    merged.merge(&own[1].2);
    assert_eq!((merged.packets_in, merged.packets_out), (8, 8));
    over(&listeners[0].stop().unwrap());
    assert_eq!(server.stats().packets_in, 8);
    assert_eq!(listeners[0].stats().packets_in, 3, "also after it has ended");
    assert_eq!(server.handle.listeners().len(), 1);
}
