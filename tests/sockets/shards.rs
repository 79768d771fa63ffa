//! Several reactors behind one API, over real sockets: how connections are spread, what crosses from
//! shard to shard, how shards stop together, and that no shard continues alone.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use condor::{
    Accepted, Action, Address, CloseKind, CloseReason, ConnectionId, Context, Endpoint, Error,
    Handle, Handler, Info, ListenerHandle, ListenerOptions, ListenerState, MessageError,
    ReactorOptions, Refusal, Report, Shards,
};

use crate::support::{
    Client, PATIENCE, Script, Server, child, descriptors, framed, inet, is_child, next, over,
    passes, until,
};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

fn echo(_: &Accepted<'_>) -> Script<()> {
    Script::new()
}

/// One listener on this many shards.
fn sharded<H: Handler>(
    shards: usize,
    options: ListenerOptions,
    factory: impl FnMut(&Accepted<'_, H::Message>) -> H + Clone + Send + 'static,
) -> (Server, ListenerHandle<H::Message>) {
    Server::sharded(shards, ReactorOptions::default(), move |starter| {
        starter.start_listener("test", options, factory).unwrap()
    })
}

fn served_clients(addr: impl Into<Endpoint>, count: usize) -> Vec<Client> {
    let addr = inet(addr);
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(addr)).collect();
    for client in &mut clients {
        assert_eq!(client.ask(b"hello"), b"hello");
    }
    clients
}

fn open_by_shard<M>(listener: &ListenerHandle<M>) -> Vec<u64> {
    listener.shard_stats().iter().map(|stats| stats.open).collect()
}

fn is_refused(addr: impl Into<Endpoint>) -> bool {
    TcpStream::connect_timeout(&inet(addr), PATIENCE).is_err()
}

// ---- how connections are spread ----

/// Goal: connections are spread evenly, and every shard serves its own. Method: 1,000 connections on
/// 2 and on 3 shards, each with a request, and counters per shard. Then half of them leave, and new
/// connections fill the gaps. The shard that accepts counts all
/// of them as accepted.
#[test]
fn shards_hold_as_many_connections_within_one() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    for shards in [2, 3] {
        let (_server, listener) = sharded(shards, any_port().max_connections(1_000), echo);
        let mut clients = served_clients(listener.local_addr(), 1_000);
        let even = |counts: &[u64]| {
            let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(max - min <= 1, "{counts:?}");
        };
        even(&open_by_shard(&listener));
        for stats in listener.shard_stats() {
            assert_eq!((stats.packets_in, stats.packets_out), (stats.open, stats.open));
        }
        // Every second client leaves, and as many new clients fill the gaps on the same shards.
        let mut keep = false;
        clients.retain(|_| {
            keep = !keep;
            keep
        });
        until("they have left", || listener.stats().open == 500);
        let _more = served_clients(listener.local_addr(), 500);
        even(&open_by_shard(&listener));
        let by_shard = listener.shard_stats();
        let accepted: Vec<u64> = by_shard.iter().map(|stats| stats.accepted).collect();
        assert_eq!((accepted[0], accepted.iter().sum()), (1_500, 1_500), "one shard accepts");
        assert_eq!(by_shard.iter().map(|stats| stats.made).sum::<u64>(), 1_500);
        assert!(by_shard.iter().all(|stats| stats.made > 0), "all of them serve");
    }
}

/// Goal: `max_connections` holds for all shards together: never more connections, and never fewer
/// while clients wait. Method: 20 threads connect, send and leave, repeatedly, at a limit of 7. The
/// factory counts the handlers that exist. Every client is served in the end.
#[test]
fn max_connections_is_exact_across_shards() {
    const LIMIT: usize = 7;
    const ROUNDS: usize = 100;
    let alive = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now_alive, peak) = (Arc::clone(&alive), Arc::clone(&most));
    let (_server, listener) = sharded(2, any_port().max_connections(LIMIT), move |_| {
        let count = now_alive.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(count, Ordering::SeqCst);
        let alive = Arc::clone(&now_alive);
        Script::<()>::new().end(move |_| {
            alive.fetch_sub(1, Ordering::SeqCst);
        })
    });
    let addr = inet(listener.local_addr());
    let threads: Vec<_> = (0..20)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let mut client = Client::connect(addr);
                    assert_eq!(client.ask(b"me"), b"me");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    until("all have left", || listener.stats().open == 0);
    assert_eq!(listener.stats().made, 20 * ROUNDS as u64);
    assert_eq!(most.load(Ordering::SeqCst), LIMIT, "the limit is reached, and not passed");

    // Without load: the limit is reached, and each connection that leaves makes room for one, on
    // either shard.
    let made = listener.stats().made;
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(addr)).collect();
    for left in 0..13 {
        let expected = made + (LIMIT + left) as u64;
        until("one more is accepted", || listener.stats().made == expected);
        assert_eq!(alive.load(Ordering::SeqCst), LIMIT);
        let mut first = clients.remove(0);
        assert_eq!(first.ask(b"first"), b"first", "not accepted in order");
        drop(first);
    }
    until("the last ones are accepted", || listener.stats().made == made + 20);
    assert!(listener.stats().connection_limit_hits > 0);
}

/// Goal: with port 0 all shards share the one port that the system chose. Method: the port from the
/// handle and from the list, and a connect.
#[test]
fn port_0_is_one_port_for_all_shards() {
    let (server, listener) = sharded(3, any_port(), echo);
    let listed = server.handle.listeners();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].1, listener.local_addr());
    assert_ne!(inet(listener.local_addr()).port(), 0);
    let _clients = served_clients(listener.local_addr(), 3);
    assert_eq!(open_by_shard(&listener), [1, 1, 1]);
}

// ---- threads ----

/// Goal: a handler stays on one thread, so it need not be `Send`. Threads have the name of the
/// listener and the shard, in the process and in the system. The hook runs first on each thread.
/// Method: handlers that hold an `Rc`, and answer with the name of their thread.
#[test]
fn handlers_stay_on_their_named_thread() {
    let hooked = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&hooked);
    let shards = Shards::new(2).unwrap().on_thread_start(move |shard| {
        hook.lock().unwrap().push((shard, thread::current().id()));
    });
    let seen = Arc::clone(&hooked);
    let factory = move |_: &Accepted<'_, _>| {
        let here = thread::current().id();
        assert!(seen.lock().unwrap().iter().any(|(_, id)| *id == here), "the hook ran first");
        assert_eq!(seen.lock().unwrap().len(), 2, "on all shards");
        let count = Rc::new(Cell::new(0_u8));
        let on_same_thread = move || assert_eq!(thread::current().id(), here);
        Script::<()>::new()
            .packet(move |_, _| {
                on_same_thread();
                count.set(count.get() + 1);
                Action::send(format!("{} {}", thread::current().name().unwrap(), count.get()))
            })
            .end(move |_| on_same_thread())
    };
    let listener = shards.start_listener("names", any_port(), factory).unwrap();
    let handle = shards.handle();
    let running = thread::spawn(move || shards.run().unwrap());
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(listener.local_addr())).collect();
    let mut answers: Vec<String> = clients
        .iter_mut()
        .map(|client| {
            client.ask(b"who");
            String::from_utf8(client.ask(b"who")).unwrap()
        })
        .collect();
    answers.sort();
    assert_eq!(answers, ["names/0 2", "names/1 2"]);
    let mut comms: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.starts_with("names/"))
        .collect();
    comms.sort();
    assert_eq!(comms, ["names/0\n", "names/1\n"]);
    let shards_hooked: Vec<usize> = {
        let mut hooked: Vec<_> = hooked.lock().unwrap().iter().map(|(shard, _)| *shard).collect();
        hooked.sort_unstable();
        hooked
    };
    assert_eq!(shards_hooked, [0, 1]);
    drop(clients);
    drop(handle.shutdown().unwrap());
    until("the shards end", || running.is_finished());
    running.join().unwrap();
}

// ---- across shards ----

/// Goal: addresses, broadcasts, `close` and counters work across shards, and ids are distinct.
/// Method: two connections on two shards. Each gets messages from the other and from outside, and is
/// then closed by its id.
#[test]
fn addresses_broadcasts_close_and_stats_reach_across_shards() {
    let (addresses, address) = channel();
    let meet: Arc<Mutex<Vec<Address<String>>>> = Arc::default();
    let (server, listener) = sharded(2, any_port(), move |_| {
        let (addresses, meet) = (addresses.clone(), Arc::clone(&meet));
        Script::<String>::new()
            .init({
                let meet = Arc::clone(&meet);
                move |ctx| {
                    meet.lock().unwrap().push(ctx.address());
                    addresses.send((ctx.address(), thread::current().id())).unwrap();
                    Action::Continue
                }
            })
            .packet(move |packet, ctx| {
                for address in meet.lock().unwrap().iter().filter(|to| to.id() != ctx.id()) {
                    address.send(String::from_utf8(packet.to_vec()).unwrap()).unwrap();
                }
                Action::Continue
            })
            .info(|info, _| match info {
                Info::Message(text) => Action::send(text),
                other => other.default_action(),
            })
    });
    let addr = inet(listener.local_addr());
    let (mut one, mut two) = (Client::connect(addr), Client::connect(addr));
    let (a, a_thread) = next(&address);
    let (b, b_thread) = next(&address);
    assert_ne!(a_thread, b_thread);
    assert_ne!(a.id(), b.id());
    assert_ne!(a, b);
    // From a handler on the one shard to a handler on the other, both ways.
    one.send(b"from one");
    assert_eq!(two.receive(), b"from one");
    two.send(b"from two");
    assert_eq!(one.receive(), b"from two");
    // From outside.
    listener.broadcast("all".into()).unwrap();
    assert_eq!((one.receive(), two.receive()), (b"all".to_vec(), b"all".to_vec()));
    let stats = listener.shard_stats();
    assert!(stats.iter().all(|stats| stats.made == 1 && stats.messages == 2), "{stats:?}");
    let mut sum = stats[0].clone();
    sum.merge(&stats[1]);
    assert_eq!((listener.stats(), server.stats()), (sum.clone(), sum));
    assert_eq!(server.handle.loop_stats().len(), 2);
    // Each is closed by its id. The next owner of the slot gets no message for the previous one.
    for (closed, client) in [(a, &mut one), (b, &mut two)] {
        let ends = listener.stats().closed(CloseKind::Shutdown);
        server.handle.close(closed.id()).unwrap();
        client.expect_end();
        *client = Client::connect(addr);
        next(&address);
        assert_eq!(listener.stats().closed(CloseKind::Shutdown), ends + 1);
        closed.send("unknown".into()).unwrap();
    }
    until("both were dropped", || listener.stats().dropped_messages == 2);
    assert_eq!(listener.stats().closed(CloseKind::Shutdown), 2);
}

/// A message of a numbered series, or about one.
#[derive(Debug)]
enum Series {
    /// Starts to send to these addresses, this many items to each.
    Start(Vec<Address<Self>>, u64),
    /// Continues to send.
    Tick,
    /// The next item of a series.
    Item { sender: usize, to: ConnectionId, number: u64 },
}

/// Sends a series to each address that it gets, and checks the items that it receives.
struct SeriesHandler {
    own: usize,
    to: Vec<(Address<Series>, u64)>,
    each: u64,
    expected: Vec<u64>,
    received: Arc<AtomicUsize>,
    addresses: std::sync::mpsc::Sender<Address<Series>>,
}

impl SeriesHandler {
    /// Sends a batch to each address. If a mailbox is full the same item is sent again later.
    fn send(&mut self, ctx: &mut Context<'_, Series>) {
        let mut more = false;
        for (address, next) in &mut self.to {
            for _ in 0..512 {
                if *next == self.each {
                    break;
                }
                let item = Series::Item { sender: self.own, to: address.id(), number: *next };
                match address.send(item) {
                    Ok(()) => *next += 1,
                    Err(MessageError::Full(_)) => break,
                    Err(gone) => panic!("{gone:?}"),
                }
            }
            more |= *next < self.each;
        }
        if more && ctx.address().send(Series::Tick).is_err() {
            let _ = ctx.send_after(Duration::from_millis(1), Series::Tick);
        }
    }
}

impl Handler for SeriesHandler {
    type Message = Series;

    fn init(&mut self, ctx: &mut Context<'_, Series>) -> Action<'_> {
        self.addresses.send(ctx.address()).unwrap();
        Action::Continue
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        _: &mut Context<'_, Series>,
    ) -> Action<'a> {
        Action::send(packet)
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Series>,
        ctx: &mut Context<'_, Series>,
    ) -> Action<'a> {
        let Info::Message(message) = info else { return info.default_action() };
        match message {
            Series::Start(to, each) => {
                self.to = to.into_iter().map(|address| (address, 0)).collect();
                self.each = each;
                self.send(ctx);
            }
            Series::Tick => self.send(ctx),
            Series::Item { sender, to, number } => {
                assert_eq!(to, ctx.id(), "another connection's item");
                assert_eq!(number, self.expected[sender], "out of order, or lost");
                self.expected[sender] += 1;
                self.received.fetch_add(1, Ordering::Relaxed);
            }
        }
        Action::Continue
    }
}

/// Goal: messages between shards keep their order for each sender and receiver, and none is lost.
/// Method: 4 handlers on 2 shards. Each sends a numbered series to each handler on the other shard,
/// 1,000,000 items in all (`CONDOR_TEST_MESSAGES` for more). Mailboxes become full.
#[test]
fn messages_between_shards_keep_their_order_and_none_is_lost() {
    const PAIRS: u64 = 8;
    let total: u64 = std::env::var("CONDOR_TEST_MESSAGES")
        .map_or(1_000_000, |count| count.replace('_', "").parse().unwrap());
    let each = total / PAIRS;
    let received = Arc::new(AtomicUsize::new(0));
    let (addresses, address) = channel();
    let (own, sum) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&received));
    let (_server, listener) =
        sharded(2, any_port().mailbox_capacity(10_000), move |_| SeriesHandler {
            own: own.fetch_add(1, Ordering::SeqCst),
            to: Vec::new(),
            each: 0,
            expected: vec![0; 4],
            received: Arc::clone(&sum),
            addresses: addresses.clone(),
        });
    let mut clients = served_clients(listener.local_addr(), 4);
    let all: Vec<Address<Series>> = (0..4).map(|_| next(&address)).collect();
    assert_eq!(open_by_shard(&listener), [2, 2]);
    let shard =
        |address: &Address<Series>| address.id().to_string().split('.').next().map(String::from);
    for one in &all {
        let others = all.iter().filter(|other| shard(other) != shard(one)).cloned().collect();
        // Handlers that have already started may have filled the mailbox.
        let mut start = Some(Series::Start(others, each));
        until("there is room for the start", || {
            match one.send(start.take().unwrap()) {
                Err(MessageError::Full(back)) => start = Some(back),
                sent => sent.unwrap(),
            }
            start.is_none()
        });
    }
    let mut before = usize::MAX;
    while received.load(Ordering::SeqCst) as u64 != each * PAIRS {
        let now = received.load(Ordering::SeqCst);
        assert_ne!(now, before, "no message within the patience of the test");
        before = now;
        let start = crate::support::now();
        while start.elapsed() < PATIENCE && received.load(Ordering::SeqCst) as u64 != each * PAIRS {
            let moved = received.load(Ordering::SeqCst) != before;
            if moved && start.elapsed() > Duration::from_secs(1) {
                break;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
    }
    let stats = listener.stats();
    assert_eq!((stats.panics, stats.dropped_messages), (0, 0));
    for client in &mut clients {
        assert_eq!(client.ask(b"still there"), b"still there");
    }
}

/// Goal: a message to a connection that is gone reaches no connection, also not the next one in its
/// slot on another shard. Method: handlers that check the receiver of each message, connections that
/// come and go, and two threads that send to every address they have seen.
#[test]
fn no_message_reaches_a_dead_generation() {
    let (addresses, address) = channel();
    let known: Arc<Mutex<Vec<Address<Series>>>> = Arc::default();
    let received = Arc::new(AtomicUsize::new(0));
    let sum = Arc::clone(&received);
    let (_server, listener) = sharded(2, any_port(), move |_| {
        let (addresses, sum) = (addresses.clone(), Arc::clone(&sum));
        Script::<Series>::new().sends_address(&addresses).info(move |info, ctx| {
            let Info::Message(Series::Item { to, .. }) = info else { return info.default_action() };
            assert_eq!(to, ctx.id(), "a message for the previous owner of the slot");
            sum.fetch_add(1, Ordering::Relaxed);
            Action::Continue
        })
    });
    let over = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            let (known, over) = (Arc::clone(&known), Arc::clone(&over));
            thread::spawn(move || {
                let mut sent = 0_u64;
                while !over.load(Ordering::SeqCst) {
                    let addresses: Vec<_> = known.lock().unwrap().clone();
                    for address in addresses {
                        let item = Series::Item { sender, to: address.id(), number: 0 };
                        sent += u64::from(address.send(item).is_ok());
                    }
                }
                sent
            })
        })
        .collect();
    for _ in 0..300 {
        let mut client = Client::connect(listener.local_addr());
        assert_eq!(client.ask(b"x"), b"x");
        let mut known = known.lock().unwrap();
        known.push(next(&address));
        let old = known.len().saturating_sub(16);
        known.drain(..old);
    }
    over.store(true, Ordering::SeqCst);
    let sent: u64 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
    until("every message was received or dropped", || {
        let stats = listener.stats();
        stats.messages + stats.dropped_messages == sent
    });
    assert_eq!(listener.stats().panics, 0);
    assert!(listener.stats().dropped_messages > 0, "some came too late");
}

// ---- drains ----

/// Goal: a drain of several shards is one drain with one report: it counts all connections and lists
/// the slowest ones in order. Method: 8 connections on 2 shards, 3 of them inside a packet at the
/// deadline.
#[test]
fn the_report_of_a_drain_is_that_of_all_shards() {
    let options = any_port().drain_timeout(Duration::from_millis(200));
    let (server, listener) = sharded(2, options, echo);
    let mut clients = served_clients(listener.local_addr(), 8);
    for client in clients.iter_mut().take(3) {
        client.raw(b"\x00\x09half");
    }
    until("the halves have arrived", || listener.stats().bytes_in == 8 * 7 + 3 * 6);
    let drain = server.handle.stop_listener("test").unwrap();
    clients.drain(3..).for_each(|mut client| client.expect_end());
    let report = over(&drain);
    assert_eq!((report.drained, report.forced), (5, 3));
    assert_eq!((report.undelivered_bytes, report.unsent_bytes), (3 * 6, 0));
    let after: Vec<Duration> = report.slowest.iter().map(|slow| slow.after).collect();
    assert_eq!(after.len(), 8);
    assert!(after.is_sorted(), "{after:?}");
    for slow in &report.slowest[5..] {
        assert_eq!(slow.reason, CloseReason::DrainForced);
        assert!(slow.after >= Duration::from_millis(200));
    }
    let mut slowest: Vec<_> =
        report.slowest[5..].iter().map(|slow| inet(slow.peer_addr.clone())).collect();
    let mut half: Vec<_> =
        clients.iter().map(|client| client.stream.local_addr().unwrap()).collect();
    slowest.sort();
    half.sort();
    assert_eq!(slowest, half);
    let ids: HashSet<_> = report.slowest.iter().map(|slow| slow.id).collect();
    assert_eq!(ids.len(), 8, "each id is unique");
}

/// Goal: `is_ready` is false at once, but clients are still accepted during the lead time. Then the
/// sockets close and the drain begins. Method: a lead time that ends by itself.
#[test]
fn clients_are_let_in_for_the_lead_time() {
    for shards in [1, 2] {
        let lead = ReactorOptions::new().shutdown_delay(Duration::from_secs(1));
        let (server, listener) = Server::sharded(shards, lead, |starter| {
            starter.start_listener("test", any_port(), echo).unwrap()
        });
        let addr = inet(listener.local_addr());
        let mut early = Client::connect(addr);
        assert_eq!(early.ask(b"early"), b"early");
        assert!(server.handle.is_ready());
        let began = crate::support::now();
        let drain = server.handle.shutdown().unwrap();
        assert!(!server.handle.is_ready());
        let mut late = Client::connect(addr);
        assert_eq!(late.ask(b"late"), b"late");
        assert_eq!(early.ask(b"early"), b"early", "no handler is notified yet");
        assert_eq!(drain.report(), None);
        until("clients are refused", || is_refused(addr));
        assert!(began.elapsed() >= Duration::from_secs(1));
        early.expect_end();
        late.expect_end();
        drop((early, late));
        let report = over(&drain);
        assert!(report.drained >= 2 && report.forced == 0, "{report}");
        server.join();
    }
}

/// Goal: a second shutdown does not wait: not for the lead time, a packet or a deadline, and not for
/// connections that are in transit to another shard. Both drains report. Method: all of these with 1
/// and 2 shards, while clients continue to connect.
#[test]
fn a_second_shutdown_forces() {
    for (shards, lead) in [(1, 0), (2, 0), (1, 3600), (2, 3600)] {
        let reactor = ReactorOptions::new().shutdown_delay(Duration::from_secs(lead));
        let (server, listener) = Server::sharded(shards, reactor, |starter| {
            let options = any_port().drain_timeout(Duration::MAX).packet_timeout(Duration::MAX);
            starter.start_listener("test", options, echo).unwrap()
        });
        let addr = inet(listener.local_addr());
        let mut clients = served_clients(addr, 4);
        for client in &mut clients {
            client.raw(b"\x00\x09half");
        }
        until("the halves have arrived", || listener.stats().bytes_in == 4 * 7 + 4 * 6);
        let over_now = Arc::new(AtomicBool::new(false));
        let comers: Vec<_> = (0..2)
            .map(|_| {
                let over_now = Arc::clone(&over_now);
                thread::spawn(move || {
                    while !over_now.load(Ordering::SeqCst) {
                        drop(TcpStream::connect(addr));
                    }
                })
            })
            .collect();
        let first = server.handle.shutdown().unwrap();
        assert_eq!(first.report(), None, "the first shutdown waits");
        let second = server.handle.shutdown().unwrap();
        let (first, second) = (over(&first), over(&second));
        over_now.store(true, Ordering::SeqCst);
        assert_eq!(first, second);
        assert!(first.forced >= 4, "{first}");
        assert_eq!(first.undelivered_bytes, 4 * 6);
        clients.iter_mut().for_each(Client::expect_gone);
        comers.into_iter().for_each(|comer| comer.join().unwrap());
        server.join();
    }
}

/// Goal: starts, stops and shutdowns that run concurrently on several shards all end. Method:
/// threads start and stop the same names while another thread shuts down, with a client in each
/// round.
#[test]
fn starts_and_stops_that_cross_each_other_end() {
    for round in 0..60 {
        let (server, _listener) = sharded(1 + round % 3, any_port(), echo);
        let handle = server.handle.clone();
        let threads: Vec<_> = (0..3)
            .map(|own| {
                let handle = handle.clone();
                thread::spawn(move || {
                    for name in ["a", "b", "a", "b"] {
                        let Ok(listener) = handle.start_listener(name, any_port(), echo) else {
                            continue;
                        };
                        drop(TcpStream::connect(listener.local_addr()));
                        if own > 0
                            && let Ok(drain) = handle.stop_listener(name)
                        {
                            drop(drain.wait());
                        }
                    }
                })
            })
            .collect();
        if round % 2 == 0 {
            thread::yield_now();
        }
        drop(handle.shutdown().unwrap());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        server.join();
        assert!(handle.listeners().is_empty(), "names are left: {:?}", handle.listeners());
    }
}

/// Goal: starts and stops leave no descriptor. Method: the same name 200 times on 2 shards, with a
/// client on each, in a separate process. Descriptors are counted before and after.
#[test]
fn starting_and_stopping_leaves_no_descriptor() {
    if !is_child() {
        return passes(&mut child("shards::starting_and_stopping_leaves_no_descriptor"));
    }
    let (server, first) = sharded(2, any_port(), echo);
    drop(served_clients(first.local_addr(), 2));
    let mut before = Vec::new();
    for round in 0..200 {
        let listener = server.handle.start_listener("again", any_port(), echo).unwrap();
        let mut clients = served_clients(listener.local_addr(), 2);
        let drain = listener.stop().unwrap();
        clients.iter_mut().for_each(Client::expect_end);
        drop(clients);
        assert_eq!(over(&drain).drained, 2);
        let refused = server.handle.stop_listener("again");
        assert!(matches!(refused, Err(Error::UnknownName(_))), "{refused:?}");
        if round == 0 {
            before = descriptors();
        }
    }
    assert_eq!(descriptors(), before);
}

// ---- drains under load ----

/// A client that writes as fast as it can. A second thread reads until the stream ends.
struct Pressure {
    written: Arc<AtomicUsize>,
    read: Arc<AtomicUsize>,
    local: SocketAddr,
    writer: thread::JoinHandle<()>,
    reader: thread::JoinHandle<usize>,
}

impl Pressure {
    /// Never more than this many packets without an answer.
    const AHEAD: usize = 64;

    fn new(addr: SocketAddr) -> Self {
        let client = Client::connect(addr);
        let local = client.stream.local_addr().unwrap();
        let (mut tx, mut rx) = (client.stream.try_clone().unwrap(), client);
        let written = Arc::new(AtomicUsize::new(0));
        let read = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (count, answered, over) = (Arc::clone(&written), Arc::clone(&read), Arc::clone(&ended));
        let counted = Arc::clone(&read);
        let writer = thread::spawn(move || {
            for number in 0_u32.. {
                while count.load(Ordering::SeqCst) - answered.load(Ordering::SeqCst) >= Self::AHEAD
                {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    thread::park_timeout(Duration::from_micros(100));
                }
                let packet = framed(&number.to_be_bytes());
                // The connection may have ended; the reader finds that out.
                if over.load(Ordering::SeqCst) || Write::write_all(&mut tx, &packet).is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        let reader = thread::spawn(move || {
            let mut header = [0; 6];
            for number in 0_u32.. {
                match rx.stream.peek(&mut header).unwrap() {
                    0 => break,
                    _ => assert_eq!(rx.receive(), number.to_be_bytes()),
                }
                read.fetch_add(1, Ordering::SeqCst);
            }
            ended.store(true, Ordering::SeqCst);
            read.load(Ordering::SeqCst)
        });
        Self { written, read: counted, local, writer, reader }
    }

    /// Whether it has reached its limit of packets without an answer, and writes no more until an
    /// answer comes. An answer may be read before its packet is counted.
    fn is_stuck(&self) -> bool {
        let written = self.written.load(Ordering::SeqCst);
        written.saturating_sub(self.read.load(Ordering::SeqCst)) >= Self::AHEAD
    }
}

/// For each client, whether the server's kernel has acknowledged all of its bytes. The kernel's send
/// queue counts bytes that were written and not acknowledged. `queues` is the expected beginning of
/// the two queue lengths of a client's socket, send and receive.
fn acknowledged(clients: &[Pressure], queues: &str) -> Vec<bool> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    // Most rows of the table are closed connections of other tests, thousands of them. In a debug
    // build it would take seconds to parse each row for each client.
    let established = table.lines().filter(|line| line.contains(" 01 "));
    let matching: HashSet<u16> = established
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, port) = fields[1].split_once(':')?;
            let matches = fields[3] == "01" && fields[4].starts_with(queues);
            matches.then(|| u16::from_str_radix(port, 16).unwrap())
        })
        .collect();
    clients.iter().map(|client| matching.contains(&client.local.port())).collect()
}

/// The number of drains in a row: 12, or `CONDOR_TEST_DRAINS`.
fn drains() -> usize {
    std::env::var("CONDOR_TEST_DRAINS").map_or(12, |count| count.parse().unwrap())
}

/// Goal: every packet that the server's kernel acknowledged before a stop is answered, in every run.
/// Method: drains in a row, with 6 clients that write without pause. The test notes what each client
/// has written, then asks the kernel whether all of it is acknowledged, and only then sends the
/// stop. In every second run a handler blocks each shard, so that acknowledged packets are neither
/// read nor answered when the stop comes.
fn what_was_acknowledged_before_the_stop_is_answered(shards: usize) {
    let (server, _idle) = sharded(shards, any_port(), echo);
    let mut claims = [0; 2];
    let drains = drains();
    for run in 0..drains {
        let held_up = run % 2 == 1;
        let (started, has_started) = channel();
        let (go, wait): (Vec<_>, Vec<_>) = (0..shards).map(|_| channel::<()>()).unzip();
        let waits = Arc::new(Mutex::new(wait));
        let factory = move |_: &Accepted<'_, _>| {
            let (waits, started) = (Arc::clone(&waits), started.clone());
            Script::<()>::new().packet(move |packet, _| {
                if packet == b"hold" {
                    let wait = waits.lock().unwrap().pop().unwrap();
                    started.send(()).unwrap();
                    let _ = wait.recv_timeout(PATIENCE);
                }
                Action::send(packet.to_vec())
            })
        };
        let listener = server.handle.start_listener("load", any_port(), factory).unwrap();
        let addr = inet(listener.local_addr());
        let mut holders = served_clients(addr, shards);
        let clients: Vec<Pressure> = (0..6).map(|_| Pressure::new(addr)).collect();
        until("all are busy", || {
            clients.iter().all(|client| client.written.load(Ordering::SeqCst) > 100)
        });
        if held_up {
            for holder in &mut holders {
                holder.send(b"hold");
            }
            holders.iter().for_each(|_| next(&has_started));
            // The clients continue until each has read all answers and has reached its limit.
            until("everything is acknowledged", || {
                clients.iter().all(Pressure::is_stuck)
                    && acknowledged(&clients, "00000000:00000000").iter().all(|acked| *acked)
            });
        }
        let written: Vec<usize> =
            clients.iter().map(|client| client.written.load(Ordering::SeqCst)).collect();
        let acked = acknowledged(&clients, "00000000:");
        let drain = listener.stop().unwrap();
        drop(go);
        for ((client, written), acked) in clients.into_iter().zip(written).zip(acked) {
            let answered = client.reader.join().unwrap();
            client.writer.join().unwrap();
            if acked {
                assert!(answered >= written, "run {run}: {answered} answers to {written} packets");
                claims[usize::from(held_up)] += 1;
            }
        }
        drop(holders);
        let report = over(&drain);
        assert_eq!((report.forced, report.unsent_bytes), (0, 0), "run {run}");
    }
    println!("{shards} shards: {} claims under load, {} while held up", claims[0], claims[1]);
    assert!(claims[1] * 2 >= drains * 5, "{claims:?}: too few runs prove anything");
}

#[test]
fn what_was_acknowledged_before_the_stop_is_answered_by_one_reactor() {
    what_was_acknowledged_before_the_stop_is_answered(1);
}

#[test]
fn what_was_acknowledged_before_the_stop_is_answered_by_two_shards() {
    what_was_acknowledged_before_the_stop_is_answered(2);
}

// ---- a shard that fails ----

/// Goal: if one shard cannot start, nothing is served, `run` returns the cause, and no thread waits
/// for ever. Method: a hook that panics on shard 1, while clients and a drain wait.
#[test]
fn a_shard_that_dies_at_its_start_ends_run_before_anything_is_served() {
    let shards =
        Shards::new(2).unwrap().on_thread_start(|shard| assert_ne!(shard, 1, "no such core"));
    let listener = shards.start_listener("test", any_port(), echo).unwrap();
    let handle = shards.handle();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(listener.local_addr())).collect();
    let drain = listener.stop().unwrap();
    let error = shards.run().unwrap_err();
    assert!(matches!(error, Error::Shard { shard: 1, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("shard 1") && text.contains("no such core"), "{text}");
    clients.iter_mut().for_each(Client::expect_gone);
    assert_eq!(handle.stats().made, 0);
    assert!(matches!(drain.wait(), Err(Error::Gone)));
    assert!(matches!(handle.shutdown(), Err(Error::Gone)));
    assert!(matches!(handle.start_listener("new", any_port(), echo), Err(Error::Gone)));
    assert!(matches!(listener.broadcast(()), Err(MessageError::Gone(()))));
    assert!(is_refused(listener.local_addr()));
    assert!(handle.listeners().is_empty());
}

/// Goal: a listening socket that fails ends its own listener alone, on all shards, whichever shard
/// accepts for it. Its connections are drained, and a stop that comes meanwhile gets the report of all.
/// Method: the listening socket is shut down through a descriptor kept from before; a connection on
/// each shard is in the middle of a packet.
#[test]
fn a_listening_socket_that_fails_ends_its_listener_on_all_shards() {
    for fails in ["first", "second"] {
        let shards = Shards::new(2).unwrap();
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        // The acceptors take turns on the shards.
        let [first, second] = ["first", "second"].map(|name| {
            let inherited = || ListenerOptions::from_std(kept.try_clone().unwrap());
            let options = if name == fails { inherited() } else { any_port() };
            shards.start_listener(name, options.drain_timeout(PATIENCE), echo).unwrap()
        });
        let (broken, sound) = if fails == "first" { (first, second) } else { (second, first) };
        let handle = shards.handle();
        let running = thread::spawn(move || shards.run());
        let [mut ended, mut served] =
            [&broken, &sound].map(|listener| served_clients(listener.local_addr(), 4));
        ended.iter_mut().take(2).for_each(|client| client.raw(b"\x00\x04ha"));
        until("half a packet", || broken.stats().bytes_in == 4 * 7 + 2 * 4);
        socket2::SockRef::from(&kept).shutdown(std::net::Shutdown::Both).unwrap();
        until("it is noticed", || broken.state() == ListenerState::Draining);
        assert!(matches!(broken.failure(), Some(Error::Accept { name, .. }) if name == fails));
        ended.drain(2..).for_each(|mut client| client.expect_end());
        let drain = broken.stop().unwrap();
        for client in &mut ended {
            client.raw(b"lf");
            assert_eq!(client.receive(), b"half");
            client.expect_end();
        }
        drop(ended);
        let report = over(&drain);
        assert_eq!((report.drained, report.forced), (4, 0));
        until("it has ended", || broken.state() == ListenerState::Ended);
        let failures: Vec<u64> =
            broken.shard_stats().iter().map(|part| part.listener_failures).collect();
        assert_eq!(failures.iter().sum::<u64>(), 1);

        served.iter_mut().for_each(|client| assert_eq!(client.ask(b"hi"), b"hi"));
        assert_eq!(sound.state(), ListenerState::Listening);
        assert!(sound.failure().is_none());
        assert!(matches!(broken.stop(), Err(Error::UnknownName(_))));
        let again = handle.start_listener(fails, any_port(), echo).unwrap();
        assert_eq!(Client::connect(again.local_addr()).ask(b"new"), b"new");
        drop(served);
        over(&handle.shutdown().unwrap());
        running.join().unwrap().unwrap();
    }
}

/// Goal: a thread that has shards and waits for their drain instead of running them gets an error,
/// and does not wait for ever. Method: the thread that made the shards, a thread to which they were
/// moved, and one of their own threads before it serves. Each must end.
#[test]
fn waiting_for_shards_instead_of_running_them_is_an_error() {
    let (sender, receiver) = channel();
    let other_sender = sender.clone();
    thread::spawn(move || {
        let shards = Shards::new(2).unwrap();
        shards.start_listener("test", any_port(), echo).unwrap();
        let drain = shards.handle().stop_listener("test").unwrap();
        other_sender.send(drain.wait()).unwrap();
        let drain = shards.handle().shutdown().unwrap();
        other_sender.send(drain.wait()).unwrap();
        shards.run().unwrap();
        assert_eq!(drain.wait().unwrap(), Report::default());

        let shards = Shards::new(1).unwrap();
        thread::spawn(move || {
            let drain = shards.handle().shutdown().unwrap();
            other_sender.send(drain.wait()).unwrap();
            drop(shards);
            assert!(matches!(drain.wait(), Err(Error::Gone)));
        });
    });
    for _ in 0..3 {
        let waited = next(&receiver);
        assert!(matches!(waited, Err(Error::WouldDeadlock)), "{waited:?}");
    }

    let handles = Arc::new(OnceLock::<Handle>::new());
    let handle = Arc::clone(&handles);
    let shards = Shards::new(2).unwrap().on_thread_start(move |_| {
        let drain = handle.wait().shutdown().unwrap();
        sender.send(drain.wait()).unwrap();
    });
    handles.set(shards.handle()).unwrap();
    thread::spawn(move || shards.run());
    for _ in 0..2 {
        let waited = next(&receiver);
        assert!(matches!(waited, Err(Error::WouldDeadlock)), "{waited:?}");
    }
}

/// Goal: the thread that made the shards may wait for their drain while another thread is about to
/// run them. Method: the other thread runs them a little after the wait begins.
#[test]
fn shards_that_are_about_to_run_elsewhere_are_waited_for() {
    let shards = Shards::new(2).unwrap();
    shards.start_listener("test", any_port(), echo).unwrap();
    let drain = shards.handle().shutdown().unwrap();
    let running = thread::spawn(move || {
        thread::park_timeout(Duration::from_millis(50));
        shards.run()
    });
    assert_eq!(drain.wait().unwrap(), Report::default());
    running.join().unwrap().unwrap();
}

/// Goal: the panic of a shard is reported in one line, whatever its text. Method: a hook that panics
/// with a long text of line breaks and escape sequences.
#[test]
fn the_panic_of_a_shard_is_reported_in_one_line() {
    let shards = Shards::new(1)
        .unwrap()
        .on_thread_start(|_| panic!("{}", "two\nlines \x1b[2J ".repeat(100_000)));
    let error = shards.run().unwrap_err();
    let Error::Shard { why, .. } = &error else { panic!("{error:?}") };
    for line in [why.clone(), error.to_string()] {
        assert!(line.contains("it panicked: two\\nlines \\u{1b}[2J two\\n"), "{line}");
        assert!(!line.contains(char::is_control) && line.len() < 700, "{line:?}");
    }
}

/// Goal: a shard's panic ends `run` with an error, even if the panic's payload panics when it is
/// dropped. Method: a hook that panics with such a payload.
#[test]
fn a_shard_that_panics_with_a_payload_that_panics_ends_run() {
    struct Payload;

    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("the payload's drop");
        }
    }

    let shards = Shards::new(2).unwrap().on_thread_start(|shard| {
        if shard == 1 {
            std::panic::panic_any(Payload);
        }
    });
    let error = shards.run().unwrap_err();
    assert!(matches!(error, Error::Shard { shard: 1, .. }), "{error:?}");
}

/// Goal: shards that are dropped without a run report this. Method: the drop, then a call of
/// everything that refers to them.
#[test]
fn shards_that_never_run_are_gone() {
    let shards = Shards::new(2).unwrap();
    let listener = shards.start_listener("test", any_port(), echo).unwrap();
    let (handle, addr) = (shards.handle(), inet(listener.local_addr()));
    let mut client = Client::connect(addr);
    let drain = handle.shutdown().unwrap();
    drop(shards);
    client.expect_gone();
    assert!(matches!(drain.wait(), Err(Error::Gone)));
    assert!(matches!(handle.shutdown(), Err(Error::Gone)));
    assert!(matches!(listener.broadcast(()), Err(MessageError::Gone(()))));
    assert!(is_refused(addr));
    assert!(handle.listeners().is_empty());
}

// ---- refusals ----

/// Goal: connections that the factory refuses keep no place, on whichever shard they are, and all
/// places are free afterwards. Method: a listener with four places on two shards. Clients in turn are
/// served, closed, reset, and sent a last packet. The one that is served stays until the next one is,
/// so the refused ones come to each shard in turn. Then four clients are there at once.
#[test]
fn refused_connections_keep_no_place_on_any_shard() {
    let (number, serves_all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, all) = (Arc::clone(&number), Arc::clone(&serves_all));
    let options = any_port().max_connections(4);
    let (_server, listener) = Server::sharded(2, ReactorOptions::default(), move |starter| {
        let factory = move |_: &Accepted<'_>| {
            if all.load(Ordering::SeqCst) {
                return Ok(Script::<()>::new());
            }
            Err(match count.fetch_add(1, Ordering::SeqCst) % 4 {
                0 => return Ok(Script::new()),
                1 => Refusal::close(),
                2 => Refusal::reset(),
                _ => Refusal::send("busy"),
            })
        };
        starter.start_listener("test", options, factory).unwrap()
    });
    let (mut busy, mut held) = (0, None);
    for nth in 0..40 {
        let held_places = u64::from(held.is_some());
        until("only the one that stays has a place", || listener.stats().open == held_places);
        // Both fail if the reset is there already.
        let Ok(stream) = TcpStream::connect(inet(listener.local_addr())) else {
            assert_eq!(nth % 4, 2);
            continue;
        };
        let mut client = Client::from(stream);
        let _ = client.stream.write_all(&framed(b"hello"));
        match nth % 4 {
            0 => {
                assert_eq!(client.receive(), b"hello");
                held = Some(client);
            }
            3 => {
                assert_eq!(client.read_to_end(), framed(b"busy"));
                busy += 1;
            }
            _ => client.expect_gone(),
        }
    }
    drop(held);
    until("every place is free", || listener.stats().open == 0);
    let stats = listener.stats();
    assert_eq!((stats.accepted, stats.made, stats.refused, busy), (40, 10, 30, 10));
    assert!(listener.shard_stats().iter().all(|stats| stats.refused > 0), "both refuse");
    serves_all.store(true, Ordering::SeqCst);
    let _four = served_clients(listener.local_addr(), 4);
}
