//! Large numbers: bytes through one connection, connections that end at once, and slots that are
//! reused while events for their previous owner are in transit.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::{CloseReason, ConnectionId, ListenerOptions, Reactor, ReactorOptions};

use crate::support::{Client, Script, Server, drive, framed};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// Goal: bytes and packets are counted and passed on beyond 32-bit limits. Method: 64 MiB through
/// one connection. `CONDOR_TEST_MIB=4352` passes more than 2^32 bytes; use a release build.
#[test]
fn one_connection_passes_any_number_of_bytes() {
    const SIZE: usize = 65_536;
    let mib: usize = std::env::var("CONDOR_TEST_MIB").map_or(64, |mib| mib.parse().unwrap());
    let packets = mib * (1 << 20) / SIZE;
    let (server, listener, _) = Server::echo(any_port());
    let client = Client::connect(listener.local_addr());
    let packet = framed(&[b'x'; SIZE - 2]);
    let mut sending = client.stream.try_clone().unwrap();
    let sent = packet.clone();
    let sender = thread::spawn(move || {
        for _ in 0..packets {
            sending.write_all(&sent).unwrap();
        }
    });
    let mut receiving = client.stream;
    let mut answer = vec![0; SIZE];
    for count in 0..packets {
        receiving.read_exact(&mut answer).unwrap();
        assert!(answer == packet, "answer {count} is not what was sent");
    }
    sender.join().unwrap();
    let bytes = (packets * SIZE) as u64;
    // The server counts the last write after it returns.
    crate::support::until("the last write is counted", || server.stats().bytes_out == bytes);
    let stats = server.stats();
    assert_eq!((stats.bytes_in, stats.packets_in), (bytes, packets as u64));
    assert_eq!(stats.packets_out, packets as u64);
}

/// Goal: thousands of connections that end at once are all terminated within a few turns, and the
/// next client is served. Method: 5,000 clients close between two turns: half of them in an orderly
/// way, half with a reset, some inside a packet. Turns have no time budget, so that their number does
/// not depend on the speed of the machine.
#[test]
fn thousands_of_connections_may_end_at_once() {
    let limit = rlimit::increase_nofile_limit(20_000).unwrap();
    let crowd = usize::try_from(limit / 2).unwrap().saturating_sub(500).min(5000);
    let (ends, ended) = channel();
    let untimed = ReactorOptions::new().turn_budget(Duration::ZERO);
    let mut reactor = Reactor::with_options(untimed).unwrap();
    let options = any_port().max_connections(crowd + 1);
    let listener =
        reactor.start_listener("test", options, move |_| Script::<()>::new().ends(&ends)).unwrap();
    let mut clients = Vec::new();
    while clients.len() < crowd {
        for _ in 0..500.min(crowd - clients.len()) {
            clients.push(Client::connect(listener.local_addr()));
        }
        let count = clients.len() as u64;
        drive(&mut reactor, "they are accepted", || listener.stats().open == count);
    }
    for (count, mut client) in clients.into_iter().enumerate() {
        if count % 3 == 0 {
            client.raw(b"\x00\x09half");
        }
        if count % 2 == 0 {
            client.reset();
        }
    }
    let turns = drive(&mut reactor, "all have left", || listener.stats().open == 0);
    assert!(turns <= 100, "{turns} turns for {crowd} ends");
    assert_eq!(ended.try_iter().count(), crowd);
    let mut client = Client::connect(listener.local_addr());
    client.send(b"hi");
    drive(&mut reactor, "the next is served", || client.arrived() == 4);
}

/// Goal: an event for the previous owner of a slot does not affect the next owner, and an id is
/// never used again. Method: one slot, three hundred owners. Each leaves data, an end and a reset,
/// while its successor waits in the backlog.
#[test]
fn a_reused_slot_keeps_its_owners_apart() {
    let ids = Rc::new(std::cell::RefCell::new(Vec::<ConnectionId>::new()));
    let (ends, ended) = channel();
    let mut reactor = Reactor::new().unwrap();
    let seen = Rc::clone(&ids);
    let listener = reactor
        .start_listener("test", any_port().max_connections(1), move |peer| {
            seen.borrow_mut().push(peer.id());
            Script::<()>::new().ends(&ends)
        })
        .unwrap();
    let mut owner = Client::connect(listener.local_addr());
    for round in 1..=300_u64 {
        let mut next = Client::connect(listener.local_addr());
        owner.send(b"mine");
        drive(&mut reactor, "the owner's answer", || owner.arrived() == 6);
        next.send(b"next");
        // Data and the end in one batch of events; every other time a reset as well.
        owner.raw(&framed(b"unread").repeat(3));
        if round % 2 == 0 {
            owner.reset();
        } else {
            drop(owner);
        }
        drive(&mut reactor, "the successor's answer", || next.arrived() == 6);
        assert_eq!(next.receive(), b"next");
        let stats = listener.stats();
        assert_eq!((stats.open, stats.terminated), (1, round), "the successor is open");
        owner = next;
    }
    let ids = ids.take();
    assert_eq!(ids.len(), 301);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 301, "an id was used twice");
    let known = |end: &CloseReason| {
        matches!(end, CloseReason::Reset | CloseReason::Io(_) | CloseReason::PeerClosed)
    };
    assert!(ended.try_iter().all(|end| known(&end)));
}

/// Goal: a handler that blocks delays other connections, and causes no timeout for them: no timeout
/// is judged before all input that has arrived is read, however long this takes. Method: the handler
/// blocks until other clients have sent half a packet, then the other half, and the packet timeout
/// has passed. A batch has room for one event, and a read for a seventh of a packet. All clients are
/// answered.
#[test]
fn a_handler_that_blocks_makes_no_packet_time_out() {
    let timeout = Duration::from_millis(400);
    let tight = ReactorOptions::default().events(1).read_buffer(4096);
    let (_server, listener, go, has_started) =
        Server::blocking(tight, any_port().packet_timeout(timeout));
    let mut blocker = Client::connect(listener.local_addr());
    assert_eq!(blocker.ask(b"hi"), b"hi");
    let mut others: Vec<Client> = (0..20).map(|_| Client::connect(listener.local_addr())).collect();
    for client in &mut others {
        assert_eq!(client.ask(b"hi"), b"hi");
    }
    let packet = framed(&[b'p'; 28_000]);
    for client in &mut others {
        client.raw(&packet[..10]);
    }
    blocker.send(b"block");
    crate::support::next(&has_started);
    for client in &mut others {
        client.raw(&packet[10..]);
    }
    // Past the timeout of every half packet, whether it was read before or not.
    let from = crate::support::now();
    crate::support::until("the timeouts have passed", || from.elapsed() > 2 * timeout);
    go.send(()).unwrap();
    assert_eq!(blocker.receive(), b"block");
    for client in &mut others {
        assert_eq!(client.receive(), [b'p'; 28_000]);
    }
    assert_eq!(listener.stats().packet_timeouts, 0);
}
