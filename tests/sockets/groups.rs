//! Groups over real sockets and threads, on one shard and on two.

use std::cell::Cell;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use condor::{
    Accepted, Action, CloseKind, Context, Group, Handler, Info, ListenerHandle, ListenerOptions,
    MessageError, Reactor, ReactorOptions, Shards,
};

use crate::support::{Client, First, PATIENCE, Script, Server, drive, framed, next, settle, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// A handler that joins the group with `join`, and publishes every other packet. While there is no room
/// for a publication, it is not read.
struct Publisher {
    group: Arc<OnceLock<Group<()>>>,
    refused: Option<Bytes>,
}

impl Publisher {
    fn publish(&mut self, packet: Bytes, ctx: &mut Context<'_, ()>) {
        let group = self.group.get_or_init(|| ctx.group());
        if let Err(MessageError::Full(packet)) = group.send_packet(packet) {
            ctx.pause_reading();
            ctx.notify_when_ready(group);
            self.refused = Some(packet);
        }
    }
}

impl Handler for Publisher {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        if packet == b"join" {
            let group = self.group.get_or_init(|| ctx.group());
            ctx.join(group).unwrap();
            return Action::send("joined");
        }
        self.publish(Bytes::copy_from_slice(packet), ctx);
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, ctx: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::MailboxReady => {
                ctx.resume_reading();
                if let Some(packet) = self.refused.take() {
                    self.publish(packet, ctx);
                }
                Action::Continue
            }
            Info::Shutdown => Action::Continue,
            other => other.default_action(),
        }
    }
}

fn hub(shards: usize, options: ListenerOptions) -> (Server, ListenerHandle<()>) {
    let group = Arc::new(OnceLock::new());
    let factory = move |_: &Accepted<'_, _>| Publisher { group: Arc::clone(&group), refused: None };
    Server::sharded(shards, ReactorOptions::default(), move |starter| {
        starter.start_listener("test", options, factory).unwrap()
    })
}

/// Goal: a publisher whose publications are more than the mailbox holds is held up and loses none:
/// every subscriber gets all of them, in order, also beside one that vanishes. Method: 5,000
/// publications in one write to 20 subscribers, with a mailbox of 100, on one shard and on two.
#[test]
fn a_burst_of_publications_reaches_every_subscriber() {
    const COUNT: u32 = 5_000;
    for shards in [1, 2] {
        let options = any_port().mailbox_capacity(100).write_high_water(8_000_000);
        let (_server, listener) = hub(shards, options);
        let addr = listener.local_addr();
        let mut vanishing = Client::connect(addr.clone());
        assert_eq!(vanishing.ask(b"join"), b"joined");
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let mut client = Client::connect(addr.clone());
                assert_eq!(client.ask(b"join"), b"joined");
                thread::spawn(move || {
                    for count in 0..COUNT {
                        assert_eq!(client.receive(), count.to_be_bytes());
                    }
                })
            })
            .collect();
        let mut publisher = Client::connect(addr);
        let wire: Vec<u8> = (0..COUNT).flat_map(|count| framed(&count.to_be_bytes())).collect();
        publisher.raw(&wire);
        vanishing.reset();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert!(listener.stats().refused_messages > 0, "{shards} shards: it was held up");
    }
}

/// Goal: publications in one write reach every subscriber in order, and none is refused for good, also
/// if they are far more than the mailbox holds: the publisher is held up and goes on. Method:
/// 2,000 publications to 100 subscribers with the default marks; 200,000 to two, with a mark that their
/// threads stay below however late they run, and a mailbox of 64.
#[test]
fn publications_in_one_write_reach_all_subscribers() {
    let few = any_port().max_connections(101);
    let many = any_port().mailbox_capacity(64).write_high_water(2_000_000).max_queued(4_000_000);
    for (publications, subscribers, options) in [(2_000_u32, 100_u32, few), (200_000, 2, many)] {
        let (_server, listener) = hub(1, options);
        let addr = listener.local_addr();
        let wire: Vec<u8> = (0..publications).flat_map(|at| framed(&at.to_be_bytes())).collect();
        let wire = Arc::new(wire);
        let readers: Vec<_> = (0..subscribers)
            .map(|_| {
                let mut client = Client::connect(addr.clone());
                assert_eq!(client.ask(b"join"), b"joined");
                let expected = Arc::clone(&wire);
                thread::spawn(move || {
                    let mut got = vec![0; expected.len()];
                    client.stream.read_exact(&mut got).unwrap();
                    assert!(got == *expected, "they are in order");
                    client
                })
            })
            .collect();
        let mut publisher = Client::connect(addr);
        publisher.raw(&wire);
        let _open: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        let sent = u64::from((publications + 1) * subscribers);
        until("all are counted", || listener.stats().packets_out == sent);
        let stats = listener.stats();
        assert_eq!((stats.refused_sends, stats.skipped_packets, stats.dropped_messages), (0, 0, 0));
        assert_eq!(stats.refused_messages > 0, publications > 65_536, "it was held up");
    }
}

/// Goal: a shard that is slow holds up no other: the others get everything until its mailbox is full.
/// Then the sender gets the packet back, and no shard has it. Once the shard goes on, its member gets
/// everything in order. Method: two shards with a member each, one of which blocks; mailboxes of 8.
#[test]
fn a_shard_that_is_slow_holds_up_no_other() {
    let (go, wait) = channel::<()>();
    let (started, has_started) = channel();
    let wait = First::new(wait);
    let shared = Arc::new(OnceLock::<Group<()>>::new());
    let theirs = Arc::clone(&shared);
    let factory = move |_: &Accepted<'_, _>| {
        let (shared, wait, started) = (Arc::clone(&theirs), wait.clone(), started.clone());
        Script::<()>::new().packet(move |packet, ctx| {
            if packet == b"block" {
                started.send(()).unwrap();
                wait.take().unwrap().recv_timeout(PATIENCE).unwrap();
                return Action::Continue;
            }
            ctx.join(shared.get_or_init(|| ctx.group())).unwrap();
            Action::send("joined")
        })
    };
    let options = any_port().mailbox_capacity(8);
    let (_server, listener) = Server::sharded(2, ReactorOptions::default(), move |starter| {
        starter.start_listener("test", options, factory).unwrap()
    });
    let [mut slow, mut other] = [(); 2].map(|()| {
        let mut client = Client::connect(listener.local_addr());
        assert_eq!(client.ask(b"join"), b"joined");
        client
    });
    let group = shared.get().unwrap().clone();
    slow.send(b"block");
    next(&has_started);
    let texts: Vec<_> = (0..8_u8).map(|at| vec![at]).collect();
    for text in &texts {
        group.send_packet(text.clone()).unwrap();
        assert_eq!(other.receive(), *text);
    }
    let full = group.send_packet("too many");
    assert_eq!(full, Err(MessageError::Full(Bytes::from_static(b"too many"))));
    assert_eq!(slow.arrived(), 0);
    go.send(()).unwrap();
    texts.iter().for_each(|text| assert_eq!(slow.receive(), *text));
    until("there is room", || group.send_packet("last").is_ok());
    assert_eq!((slow.receive(), other.receive()), (b"last".to_vec(), b"last".to_vec()));
}

/// Goal: a member whose handler panics in the callback of a group's message costs the others nothing,
/// on its own shard, before it and after it, and on the other one. Method: three members on each of two
/// shards; the message makes one in the middle panic; then a packet.
#[test]
fn a_member_that_panics_costs_the_others_nothing() {
    let shared = Arc::new(OnceLock::<Group<u8>>::new());
    let theirs = Arc::clone(&shared);
    let factory = move |_: &Accepted<'_, _>| {
        let (shared, panics) = (Arc::clone(&theirs), Rc::new(Cell::new(false)));
        let is_told = Rc::clone(&panics);
        Script::<u8>::new()
            .packet(move |packet, ctx| {
                panics.set(packet == b"panics");
                ctx.join(shared.get_or_init(|| ctx.group())).unwrap();
                Action::send("joined")
            })
            .info(move |info, _| match info {
                Info::Message(number) => {
                    assert!(!is_told.get(), "as it was told");
                    Action::send(vec![number])
                }
                other => other.default_action(),
            })
    };
    let (_server, listener) = Server::sharded(2, ReactorOptions::default(), move |starter| {
        starter.start_listener("test", any_port(), factory).unwrap()
    });
    let texts = ["joins", "joins", "joins", "panics", "joins", "joins"];
    let mut clients = texts.map(|text| {
        let mut client = Client::connect(listener.local_addr());
        assert_eq!(client.ask(text.as_bytes()), b"joined");
        client
    });
    let group = shared.get().unwrap().clone();
    group.send(9).unwrap();
    group.send_packet("packet").unwrap();
    for (client, text) in clients.iter_mut().zip(texts) {
        if text == "panics" {
            client.expect_end();
        } else {
            assert_eq!((client.receive(), client.receive()), (vec![9], b"packet".to_vec()));
        }
    }
    assert_eq!((listener.stats().panics, listener.stats().closed(CloseKind::Panicked)), (1, 1));
}

/// Goal: if a shard dies, all end, and a group gives its packets back. Method: a shard that dies at its
/// start, and a group from before.
#[test]
fn a_group_whose_shards_have_died_gives_its_packets_back() {
    let shards =
        Shards::new(2).unwrap().on_thread_start(|shard| assert_ne!(shard, 1, "no such core"));
    let listener = shards.start_listener("test", any_port(), |_| Script::<()>::new()).unwrap();
    let group = listener.group();
    group.send_packet("early").unwrap();
    assert!(shards.run().is_err());
    let gone = group.send_packet("late");
    assert_eq!(gone, Err(MessageError::Gone(Bytes::from_static(b"late"))));
    assert_eq!(group.send(()), Err(MessageError::Gone(())));
}

/// Goal: a group on two shards goes on when the part of one shard has ended, and tells when both have.
/// Method: a member on each shard; the listener stops, one member leaves, and its part ends.
#[test]
fn a_group_goes_on_when_one_shard_has_ended() {
    let (addresses, address) = channel();
    let factory = move |_: &Accepted<'_, _>| {
        Script::<()>::new()
            .sends_address(&addresses)
            .packet({
                let shared = shared_group();
                move |_, ctx| {
                    ctx.join(shared.get_or_init(|| ctx.group())).unwrap();
                    Action::send("joined")
                }
            })
            .info(|info, _| match info {
                Info::Shutdown => Action::Continue,
                other => other.default_action(),
            })
    };
    let options = any_port().drain_timeout(Duration::from_secs(60));
    let (_server, listener) = Server::sharded(2, ReactorOptions::default(), move |starter| {
        starter.start_listener("test", options, factory).unwrap()
    });
    let mut clients = [(); 2].map(|()| {
        let mut client = Client::connect(listener.local_addr());
        assert_eq!(client.ask(b"join"), b"joined");
        (client, next(&address))
    });
    let group = shared_group().get().unwrap().clone();
    group.send_packet("both").unwrap();
    clients.iter_mut().for_each(|(client, _)| assert_eq!(client.receive(), b"both"));
    let _drain = listener.stop().unwrap();
    let [(ends, ended), (mut stays, _)] = clients;
    drop(ends);
    until("its part has ended", || matches!(ended.send(()), Err(MessageError::Gone(()))));
    group.send_packet("rest").unwrap();
    assert_eq!(stays.receive(), b"rest");
    drop(stays);
    until("both have ended", || matches!(group.send_packet("late"), Err(MessageError::Gone(_))));
}

/// The group of the test above, which the handlers of both shards share.
fn shared_group() -> Arc<OnceLock<Group<()>>> {
    static GROUP: OnceLock<Arc<OnceLock<Group<()>>>> = OnceLock::new();
    Arc::clone(GROUP.get_or_init(Arc::default))
}

/// Goal: a message that the reactor's own thread sends between two turns makes no system call, and
/// `next_deadline` tells of it. One from another thread wakes the loop. Method: the descriptor of the
/// reactor becomes readable when it is woken, and only then.
#[test]
fn a_message_of_ones_own_thread_makes_no_system_call() {
    let mut reactor = Reactor::new().unwrap();
    let (addresses, address) = channel();
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            Script::<u32>::new().sends_address(&addresses).info(|info, _| match info {
                Info::Message(number) => Action::send(number.to_string()),
                Info::Wake => Action::send("woken"),
                other => other.default_action(),
            })
        })
        .unwrap();
    let mut client = Client::connect(listener.local_addr());
    drive(&mut reactor, "a connection", || listener.stats().made == 1);
    let address = next(&address);
    settle(&mut reactor);
    let is_readable = |reactor: &Reactor| {
        let mut poll = mio::Poll::new().unwrap();
        let fd = reactor.as_raw_fd();
        let interest = mio::Interest::READABLE;
        let registry = poll.registry();
        registry.register(&mut mio::unix::SourceFd(&fd), mio::Token(1), interest).unwrap();
        let mut events = mio::Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    };
    for number in 0..3 {
        address.send(number).unwrap();
        listener.broadcast(number).unwrap();
        address.wake();
        assert!(!is_readable(&reactor), "the descriptor is written to");
        assert_eq!(reactor.next_deadline(), Some(Duration::ZERO));
        reactor.turn(Some(Duration::ZERO)).unwrap();
        let number = number.to_string().into_bytes();
        assert_eq!([(); 3].map(|()| client.receive()), [number.clone(), number, b"woken".to_vec()]);
        settle(&mut reactor);
    }
    let theirs = address.clone();
    thread::spawn(move || theirs.send(7).unwrap()).join().unwrap();
    assert!(is_readable(&reactor));
}
