//! Messages over real sockets and threads: which handlers get them, when a sender gets its message
//! back, and that no wake-up is lost.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use condor::{
    Action, Address, CloseReason, Info, ListenerOptions, MessageError, Reactor, ReactorOptions,
};

use crate::support::{Client, First, PATIENCE, Script, Server, drive, framed, next, over, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// A handler that sends the text of each message to its peer.
fn speaker() -> Script<String> {
    Script::new().info(|info, _| match info {
        Info::Message(text) => Action::send(text),
        other => other.default_action(),
    })
}

/// Goal: messages from any thread reach the one connection that they are for, in order. Method: two
/// connections, a thread for each, a thousand messages each.
#[test]
fn messages_from_other_threads_arrive_in_order_at_the_right_connection() {
    let (addresses, address) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| speaker().sends_address(&addresses));
    let pairs: Vec<_> = (0..2)
        .map(|_| (Client::connect(listener.local_addr()), next(&address)))
        .map(|(mut client, address)| {
            let sender = thread::spawn(move || {
                for count in 0..1000 {
                    address.send(format!("{} {count}", address.id())).unwrap();
                }
                address.id()
            });
            thread::spawn(move || {
                let id = sender.join().unwrap();
                for count in 0..1000 {
                    assert_eq!(client.receive(), format!("{id} {count}").into_bytes());
                }
            })
        })
        .collect();
    for receiver in pairs {
        receiver.join().unwrap();
    }
}

/// Goal: a broadcast reaches every connection of its listener, and no other. Method: three clients
/// of one listener, one client of another.
#[test]
fn a_broadcast_reaches_every_connection_of_its_listener() {
    let (_server, (crowd, other)) = Server::start(|reactor| {
        let crowd = reactor.start_listener("crowd", any_port(), |_| speaker()).unwrap();
        let other = reactor.start_listener("other", any_port(), |_| speaker()).unwrap();
        (crowd, other)
    });
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(crowd.local_addr())).collect();
    let mut outsider = Client::connect(other.local_addr());
    until("all connections are open", || crowd.stats().open == 3 && other.stats().open == 1);
    crowd.broadcast("news".to_owned()).unwrap();
    for client in &mut clients {
        assert_eq!(client.receive(), b"news");
    }
    assert_eq!(outsider.ask(b"nothing?"), b"nothing?");
    assert_eq!((crowd.stats().messages, other.stats().messages), (3, 0));
}

/// Goal: broadcasts that wait together keep their order, also relative to a message to one
/// connection between them. The budget holds, and a handler that stops gets no more of them. Method:
/// seventy broadcasts, one message to the second of three clients, and one more broadcast, with a
/// budget of 4 and with an unlimited one. The third client stops at the sixth.
#[test]
fn broadcasts_that_wait_together_arrive_in_order() {
    for budget in [4, 1024] {
        let (addresses, address) = channel();
        let options = ReactorOptions::default().message_budget(budget);
        let mut reactor = Reactor::with_options(options).unwrap();
        let listener = reactor
            .start_listener("test", any_port(), move |_| {
                let mut stops = false;
                Script::<String>::new().sends_address(&addresses).info(move |info, _| match info {
                    Info::Message(text) if stops && text == "6" => {
                        Action::send_and_stop(text, CloseReason::Normal)
                    }
                    Info::Message(text) => {
                        stops |= text == "stop at 6";
                        Action::send(text)
                    }
                    other => other.default_action(),
                })
            })
            .unwrap();
        let mut clients = [(); 3].map(|()| Client::connect(listener.local_addr()));
        drive(&mut reactor, "three connections", || listener.stats().open == 3);
        let addresses = [(); 3].map(|()| next(&address));
        addresses[2].send("stop at 6".to_owned()).unwrap();
        let said: Vec<String> = (1..=70).map(|count| count.to_string()).collect();
        for text in &said {
            listener.broadcast(text.clone()).unwrap();
        }
        addresses[1].send("for you".to_owned()).unwrap();
        listener.broadcast("all said".to_owned()).unwrap();
        let mut before = 0;
        for _ in 0..200 {
            reactor.turn(Some(Duration::ZERO)).unwrap();
            let messages = listener.stats().messages;
            assert!(messages - before <= u64::from(budget), "{messages} after {before}");
            before = messages;
        }
        assert_eq!(before, 71 + 72 + 1 + 6, "a message was delivered twice");
        for (at, client) in clients.iter_mut().enumerate() {
            let mut expected = said.clone();
            match at {
                0 => {}
                1 => expected.push("for you".to_owned()),
                _ => {
                    expected.truncate(6);
                    expected.insert(0, "stop at 6".to_owned());
                }
            }
            if at < 2 {
                expected.push("all said".to_owned());
            }
            for text in expected {
                assert_eq!(client.receive(), text.into_bytes(), "client {at}, budget {budget}");
            }
        }
    }
}

/// Goal: the answers to broadcasts that wait together are written one after the other. So no
/// connection is ended for output that the kernel would have taken. Method: a queue of at most
/// 400,000 bytes, and ten answers of 60,000 shared bytes, which the kernel takes.
#[test]
fn broadcasts_of_shared_bytes_are_offered_as_they_come() {
    const LEN: usize = 60_000;
    let options = any_port().max_queued(400_000).write_high_water(300_000);
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("test", options, |_| {
            Script::<Bytes>::new().info(|info, _| match info {
                Info::Message(bytes) => Action::send(bytes),
                other => other.default_action(),
            })
        })
        .unwrap();
    let mut client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    for _ in 0..10 {
        listener.broadcast(Bytes::from(vec![7; LEN])).unwrap();
    }
    drive(&mut reactor, "all are delivered", || listener.stats().messages == 10);
    assert_eq!((listener.stats().refused_sends, listener.stats().open), (0, 1));
    let reader = thread::spawn(move || (0..10).all(|_| client.receive() == [7; LEN]));
    drive(&mut reactor, "all is read", || reader.is_finished());
    assert!(reader.join().unwrap());
}

/// Goal: a full mailbox returns the message, counts it, and takes messages again when it has room.
/// Method: a handler blocks while 8 messages fill the mailbox.
#[test]
fn a_full_mailbox_returns_the_message() {
    let (addresses, address) = channel();
    let (started, has_started) = channel();
    let (go, wait) = channel::<()>();
    let wait = First::new(wait);
    let (_server, listener) = Server::one(any_port().mailbox_capacity(8), move |_| {
        let (wait, started) = (wait.take(), started.clone());
        speaker().sends_address(&addresses).packet(move |_, _| {
            started.send(()).unwrap();
            wait.as_ref().unwrap().recv_timeout(PATIENCE).unwrap();
            Action::Continue
        })
    });
    let mut client = Client::connect(listener.local_addr());
    let address = next(&address);
    client.send(b"block");
    next(&has_started);
    for count in 0..8 {
        address.send(count.to_string()).unwrap();
    }
    let full = address.send("one too many".to_owned());
    assert_eq!(full, Err(MessageError::Full("one too many".to_owned())));
    let full = listener.broadcast("all".to_owned());
    assert_eq!(full, Err(MessageError::Full("all".to_owned())));
    go.send(()).unwrap();
    for count in 0..8 {
        assert_eq!(client.receive(), count.to_string().into_bytes());
    }
    until("there is room", || address.send("again".to_owned()).is_ok());
    assert_eq!(client.receive(), b"again");
    assert!(listener.stats().refused_messages >= 2);
}

/// A message: whether it is a broadcast, and its number.
type Numbered = (bool, usize);

/// How many messages every receiver has got, with this many receivers for each broadcast.
struct Delivered {
    receivers: u32,
    times: HashMap<Numbered, u32>,
    done: usize,
}

impl Delivered {
    fn record(&mut self, message: Numbered) {
        let times = self.times.entry(message).or_default();
        *times += 1;
        self.done += usize::from(*times == if message.0 { self.receivers } else { 1 });
    }
}

/// Goal: a mailbox never holds more messages than its capacity, those in progress included. Method:
/// 40 connections, and a budget so small that broadcasts take many turns. The mailbox is filled
/// once. Then two threads send and broadcast without pause, and the test counts between turns.
#[test]
fn broadcasts_on_their_way_count_towards_the_capacity() {
    const CAPACITY: usize = 64;
    let delivered =
        Rc::new(RefCell::new(Delivered { receivers: 40, times: HashMap::new(), done: 0 }));
    let (addresses, address) = channel();
    let recorder = Rc::clone(&delivered);
    let mut reactor = Reactor::with_options(ReactorOptions::new().message_budget(32)).unwrap();
    let listener = reactor
        .start_listener("test", any_port().mailbox_capacity(CAPACITY), move |_| {
            let recorder = Rc::clone(&recorder);
            Script::<Numbered>::new().sends_address(&addresses).info(move |info, _| match info {
                Info::Message(message) => {
                    recorder.borrow_mut().record(message);
                    Action::Continue
                }
                other => other.default_action(),
            })
        })
        .unwrap();
    let _clients: Vec<Client> = (0..40).map(|_| Client::connect(listener.local_addr())).collect();
    drive(&mut reactor, "connections", || listener.stats().open == 40);
    let address = next(&address);
    let posts = move |number: usize| match number % 3 {
        0 => address.send((false, number)).is_ok(),
        _ => listener.broadcast((true, number)).is_ok(),
    };

    // 32 broadcasts are in progress for 40 turns. During this time there is room for 32 more
    // messages.
    let numbers: Vec<usize> = (0..).filter(|number| number % 3 > 0).take(32).collect();
    assert!(numbers.into_iter().all(&posts));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!((100..200).filter(|number| posts(*number)).count(), CAPACITY - 32);
    for turn in 1..30 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(!posts(300) && !posts(301), "after {turn} turns");
    }
    drive(&mut reactor, "all are delivered", || delivered.borrow().done == CAPACITY);
    assert_eq!((400..500).filter(|number| posts(*number)).count(), CAPACITY);
    drive(&mut reactor, "all are delivered", || delivered.borrow().done == 2 * CAPACITY);

    let posted = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let senders = [1_000, 1_000_000_000].map(|first| {
        let (posts, posted, enough) = (posts.clone(), Arc::clone(&posted), Arc::clone(&enough));
        thread::spawn(move || {
            for number in first.. {
                if enough.load(Ordering::SeqCst) {
                    break;
                }
                posted.fetch_add(posts(number).into(), Ordering::SeqCst);
                thread::yield_now();
            }
        })
    });
    let all = || posted.load(Ordering::SeqCst) + 2 * CAPACITY;
    drive(&mut reactor, "many have been sent", || {
        // A sender counts a message shortly after it was sent.
        let held = all().saturating_sub(delivered.borrow().done);
        assert!(held <= CAPACITY, "{held} messages");
        all() > 3_000
    });
    enough.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().unwrap();
    }
    drive(&mut reactor, "all are delivered", || delivered.borrow().done == all());
}

/// Goal: after its listener has ended, an address returns `Gone` with the message. Method: a send
/// and a broadcast after the stop.
#[test]
fn an_address_of_a_stopped_listener_is_gone() {
    let (addresses, address) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| speaker().sends_address(&addresses));
    let client = Client::connect(listener.local_addr());
    let address = next(&address);
    drop(client);
    over(&listener.stop().unwrap());
    assert_eq!(address.send("a".to_owned()), Err(MessageError::Gone("a".to_owned())));
    assert_eq!(listener.broadcast("b".to_owned()), Err(MessageError::Gone("b".to_owned())));
}

/// Goal: a stale address, or a timer of a connection that has ended, never reaches the next owner of
/// the slot. Method: one slot. Its first owner leaves a timer and an address; the second owner must
/// get neither the timer nor the message. The message is counted as dropped.
#[test]
fn stale_addresses_and_timers_never_reach_the_next_owner() {
    let (addresses, address) = channel();
    let mut first = true;
    let (_server, listener) = Server::one(any_port().max_connections(1), move |_| {
        let (addresses, first) = (addresses.clone(), std::mem::take(&mut first));
        speaker().init(move |ctx| {
            if first {
                for delay in [1, 20, 40] {
                    let _ = ctx.send_after(Duration::from_millis(delay), "stale timer".to_owned());
                }
            }
            addresses.send(ctx.address()).unwrap();
            Action::Continue
        })
    });
    let mut gone = Client::connect(listener.local_addr());
    let stale = next(&address);
    gone.send(b"x");
    drop(gone);
    let mut client = Client::connect(listener.local_addr());
    let current = next(&address);
    assert_ne!(stale.id(), current.id());
    let before = listener.stats().dropped_messages;
    for _ in 0..10 {
        stale.send("stale".to_owned()).unwrap();
    }
    current.send("current".to_owned()).unwrap();
    assert_eq!(client.receive(), b"current");
    assert_eq!(listener.stats().dropped_messages - before, 10);
    // Past the time at which the timers would have been due.
    let mut turns = 0;
    let started = crate::support::now();
    while started.elapsed() < Duration::from_millis(80) {
        turns += 1;
        assert_eq!(client.ask(b"only this"), b"only this", "after {turns} turns");
    }
}

/// Goal: no message is delivered after the end was decided. Method: a handler sends itself two
/// messages, and stops at the first.
#[test]
fn nothing_is_delivered_after_the_end_was_decided() {
    let delivered = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&delivered);
    let (ends, ended) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| {
        let seen = Arc::clone(&seen);
        Script::<u32>::new()
            .packet(|_, ctx| {
                for count in 0..3 {
                    ctx.address().send(count).unwrap();
                }
                let _ = ctx.send_after(Duration::ZERO, 9);
                Action::Continue
            })
            .info(move |info, _| {
                let Info::Message(_) = info else { return info.default_action() };
                seen.fetch_add(1, Ordering::SeqCst);
                Action::send_and_stop("bye", CloseReason::Normal)
            })
            .ends(&ends)
    });
    let mut client = Client::connect(listener.local_addr());
    client.raw(&[framed(b"go"), framed(b"ignored")].concat());
    assert_eq!(client.receive(), b"bye");
    client.expect_end();
    drop(client);
    assert_eq!(next(&ended), CloseReason::Normal);
    until("the slot is free", || listener.stats().open == 0);
    assert_eq!(delivered.load(Ordering::SeqCst), 1);
}

/// Goal: a handler that sends to itself, or to another handler on the same reactor, is not called
/// again before its callback returns. Method: a flag that is set while a callback runs.
#[test]
fn messages_to_the_same_reactor_are_queued() {
    let (_server, listener) = Server::start(|reactor| {
        // One for each reactor.
        thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
        let addresses = Arc::new(Mutex::new(Vec::<Address<String>>::new()));
        let factory = move |_: &condor::Accepted<'_, _>| {
            let [all, known] = [Arc::clone(&addresses), Arc::clone(&addresses)];
            Script::<String>::new()
                .init(move |ctx| {
                    all.lock().unwrap().push(ctx.address());
                    Action::Continue
                })
                .packet(move |packet, _| {
                    assert!(!INSIDE.replace(true));
                    for address in known.lock().unwrap().iter() {
                        address.send(String::from_utf8(packet.to_vec()).unwrap()).unwrap();
                    }
                    INSIDE.set(false);
                    Action::send("sent")
                })
                .info(move |info, _| {
                    assert!(!INSIDE.get(), "called inside of another callback");
                    match info {
                        Info::Message(text) => Action::send(text),
                        other => other.default_action(),
                    }
                })
        };
        reactor.start_listener("test", any_port(), factory).unwrap()
    });
    let mut one = Client::connect(listener.local_addr());
    let mut two = Client::connect(listener.local_addr());
    until("both connections are open", || listener.stats().open == 2);
    assert_eq!(one.ask(b"hello"), b"sent");
    assert_eq!(one.receive(), b"hello");
    assert_eq!(two.receive(), b"hello");
}

/// Goal: all messages of 8 threads arrive, and wake-ups are coalesced: there are far fewer turns
/// than messages. Method: 20,000 messages from each thread, counted by the handler.
#[test]
fn a_storm_from_eight_threads_arrives_whole() {
    const EACH: u64 = 20_000;
    let (addresses, address) = channel();
    let mut reactor = Reactor::new().unwrap();
    let received = Rc::new(Cell::new(0));
    let sum = Rc::clone(&received);
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            let sum = Rc::clone(&sum);
            Script::<u64>::new().sends_address(&addresses).info(move |info, _| {
                let Info::Message(count) = info else { return info.default_action() };
                sum.set(sum.get() + count);
                Action::Continue
            })
        })
        .unwrap();
    let _client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    let address = next(&address);
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let address = address.clone();
            thread::spawn(move || {
                for _ in 0..EACH {
                    while address.send(1).is_err() {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let turns = drive(&mut reactor, "all messages", || received.get() == 8 * EACH);
    assert_eq!(listener.stats().dropped_messages, 0);
    assert!(turns < 8 * EACH / 4, "{turns} turns for {} messages", 8 * EACH);
    for sender in senders {
        sender.join().unwrap();
    }
}

/// Goal: a message that is sent while the reactor is about to sleep wakes it. Method: 20,000 rounds.
/// In each the next message is sent at the moment when the previous one is answered, and nothing
/// else can wake the reactor. A lost wake-up makes the test hang.
#[test]
fn no_wake_up_is_lost_between_delivery_and_sleep() {
    let (addresses, address) = channel();
    let (answers, answer) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| {
        let answers = answers.clone();
        Script::<u32>::new().sends_address(&addresses).info(move |info, _| {
            let Info::Message(count) = info else { return info.default_action() };
            let _ = answers.send(count);
            Action::Continue
        })
    });
    let _client = Client::connect(listener.local_addr());
    let address = next(&address);
    for count in 0..20_000 {
        address.send(count).unwrap();
        assert_eq!(next(&answer), count);
    }
}

/// Goal: a socket is served in the next turn, however many messages wait. Method: a million messages
/// before the first turn, then a packet. At most one budget of messages comes before its answer.
#[test]
fn a_flood_of_messages_does_not_keep_sockets_waiting() {
    const FLOOD: u64 = 1_000_000;
    const BUDGET: u32 = 1024;
    let (addresses, address) = channel();
    // The time that messages take is not what is tested here.
    let options = ReactorOptions::default().message_budget(BUDGET).turn_budget(Duration::ZERO);
    let mut reactor = Reactor::with_options(options).unwrap();
    let options = any_port().mailbox_capacity(usize::try_from(FLOOD).unwrap());
    let listener = reactor
        .start_listener("test", options, move |_| Script::<()>::new().sends_address(&addresses))
        .unwrap();
    let mut client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().open == 1);
    let address = next(&address);
    for _ in 0..FLOOD {
        address.send(()).unwrap();
    }
    assert_eq!(address.send(()), Err(MessageError::Full(())));
    for round in 1..=20 {
        client.send(b"hi");
        let before = listener.stats().messages;
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(client.arrived(), 4, "answered in the same turn, in round {round}");
        assert_eq!(client.receive(), b"hi");
        assert_eq!(listener.stats().messages - before, u64::from(BUDGET));
    }
    assert_eq!(listener.stats().message_budget_hits, 20);
    drive(&mut reactor, "the other messages", || listener.stats().messages == FLOOD);
    address.send(()).unwrap();
}

/// Goal: threads that keep the mailbox full neither make it grow nor stop a client from being
/// served. Method: two threads that send until the test ends them, a client with 200 requests, and a
/// small mailbox.
#[test]
fn threads_that_flood_are_refused_and_clients_are_served() {
    let (addresses, address) = channel();
    let (_server, listener) = Server::one(any_port().mailbox_capacity(100), move |_| {
        Script::<u32>::new().sends_address(&addresses)
    });
    let mut client = Client::connect(listener.local_addr());
    let address = next(&address);
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let (address, stop) = (address.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut sent = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    match address.send(5) {
                        Ok(()) => sent += 1,
                        Err(MessageError::Full(5)) => thread::yield_now(),
                        Err(other) => panic!("{other:?}"),
                    }
                }
                sent
            })
        })
        .collect();
    until("the mailbox was full", || listener.stats().refused_messages > 0);
    for _ in 0..200 {
        assert_eq!(client.ask(b"hi"), b"hi");
    }
    stop.store(true, Ordering::Relaxed);
    let sent: u64 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
    until("all are delivered", || listener.stats().messages == sent);
}
