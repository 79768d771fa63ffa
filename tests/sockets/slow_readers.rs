//! Peers that read slowly, late or never, over real sockets.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use condor::{
    Accepted, Action, CloseKind, CloseReason, Info, LengthField, ListenerOptions, Reactor, Refusal,
    SendError,
};

use crate::support::{Client, PATIENCE, Script, Server, drive, framed, next, settle, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// A handler that answers each packet with `size` bytes.
fn verbose(size: usize) -> Script<()> {
    Script::new().packet(move |_, _| Action::send(vec![b'v'; size]))
}

/// Goal: above the high-water mark a connection is not read, and its packets are not delivered. It
/// continues at the low-water mark, and its handler gets `Info::Writable`. Every answer arrives in
/// order. Method: a client that requests far more than it reads. Its packets stop being delivered;
/// then it reads.
#[test]
fn a_slow_reader_is_not_read_until_it_has_caught_up() {
    const ASKED: u64 = 2000;
    let drained = Rc::new(Cell::new(0));
    let mut reactor = Reactor::new().unwrap();
    let count_writable = Rc::clone(&drained);
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            let count_writable = Rc::clone(&count_writable);
            let mut count = 0_u32;
            Script::<()>::new()
                .packet(move |_, _| {
                    count += 1;
                    Action::send([&count.to_be_bytes()[..], &[0; 20_000]].concat())
                })
                .info(move |info, _| {
                    let Info::Writable = info else { return info.default_action() };
                    count_writable.set(count_writable.get() + 1);
                    Action::Continue
                })
        })
        .unwrap();
    let mut client = Client::with_small_window(listener.local_addr());
    for _ in 0..ASKED {
        client.send(b"");
    }
    settle(&mut reactor);
    let delivered = listener.stats().packets_in;
    assert!(delivered < ASKED, "everything was answered into memory");
    assert!(listener.stats().high_water_hits > 0);
    assert_eq!(drained.get(), 0);
    for _ in 0..3 {
        reactor.turn(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(listener.stats().packets_in, delivered, "delivered above the mark");
    }

    let reader = std::thread::spawn(move || {
        for count in 1..=ASKED {
            let answer = client.receive();
            assert_eq!(answer.len(), 20_004);
            assert_eq!(answer[..4], u32::try_from(count).unwrap().to_be_bytes());
        }
    });
    drive(&mut reactor, "the client has read all answers", || reader.is_finished());
    reader.join().unwrap();
    assert!(drained.get() > 0);
}

/// Goal: after a refused write the reactor waits for room and does not spin. Method: a full socket,
/// and turns that have to last as long as their timeout.
#[test]
fn a_refused_write_waits_for_room() {
    let mut reactor = Reactor::new().unwrap();
    let options = any_port().max_queued(64 << 20);
    let listener = reactor.start_listener("test", options, |_| verbose(60_000)).unwrap();
    let mut client = Client::with_small_window(listener.local_addr());
    for _ in 0..500 {
        client.send(b"");
    }
    settle(&mut reactor);
    for _ in 0..3 {
        let (from, wait) = (crate::support::now(), Duration::from_millis(20));
        reactor.turn(Some(wait)).unwrap();
        assert!(from.elapsed() >= wait, "a turn ended without a cause");
    }
}

/// Goal: a peer that takes nothing during the stall timeout is ended with `WriteStalled`, although
/// nothing else happens. A peer that takes a little is not ended. Method: a peer that never reads,
/// and one that reads slowly for longer than the timeout.
#[test]
fn a_peer_that_takes_nothing_is_ended() {
    let (ends, ended) = channel();
    let stall = Duration::from_millis(700);
    let (_server, listener) =
        Server::one(any_port().write_stall_timeout(stall), move |_| verbose(60_000).ends(&ends));
    let mut slow = Client::with_small_window(listener.local_addr());
    for _ in 0..40 {
        slow.send(b"");
    }
    let started = crate::support::now();
    let mut read = 0;
    let mut sip = [0; 16 * 1024];
    while started.elapsed() < 2 * stall {
        read += slow.stream.read(&mut sip).unwrap();
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert!(ended.try_recv().is_err(), "a reader that makes progress is not ended");
    while read < 40 * 60_002 {
        read += slow.stream.read(&mut sip).unwrap();
    }

    let mut never = Client::with_small_window(listener.local_addr());
    for _ in 0..400 {
        never.send(b"");
    }
    assert_eq!(next(&ended), CloseReason::WriteStalled);
    until("the slot is free", || listener.stats().open == 1);
    drop(slow);
}

/// Goal: a fast peer with large answers is never ended. Method: many answers above each limit except
/// `max_queued`, each read at once.
#[test]
fn large_answers_do_not_end_a_fast_peer() {
    const SIZE: usize = 4 << 20;
    let options = any_port().framing(LengthField::U32).max_packet(SIZE);
    let (_server, listener) = Server::one(options, |_| {
        Script::<()>::new().packet(|_, ctx| {
            ctx.send(vec![1; SIZE]).unwrap();
            Action::Continue
        })
    });
    let mut client = Client::connect(listener.local_addr());
    let mut answer = vec![0; SIZE + 4];
    for _ in 0..10 {
        client.raw(&[0, 0, 0, 0]);
        client.stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..4], u32::try_from(SIZE).unwrap().to_be_bytes());
    }
    assert_eq!(listener.stats().closed_total(), 0);
}

/// Goal: the output for a peer that never reads is bounded: `send` returns `Full`, queues nothing,
/// and works again after `Info::Writable`. An `Action` that does not fit ends the connection.
/// Method: a callback that sends until a send is refused.
#[test]
fn sends_past_the_queues_limit_are_refused() {
    const MAX: usize = 1 << 20;
    let (full, was_full) = channel();
    let (ends, ended) = channel();
    let (_server, listener) = Server::one(any_port().max_queued(MAX), move |_| {
        let full = full.clone();
        Script::<()>::new()
            .packet(move |packet, ctx| {
                let mut sent = 0_u32;
                let refused = loop {
                    match ctx.send(vec![0; 60_000]) {
                        Ok(()) => sent += 1,
                        Err(refused) => break refused,
                    }
                };
                let SendError::Full { max, .. } = refused else { panic!("{refused}") };
                assert_eq!(max, MAX);
                assert!(ctx.queued_bytes() <= MAX);
                full.send(sent).unwrap();
                match packet {
                    b"action" => Action::send(vec![0; 60_000]),
                    _ => Action::Continue,
                }
            })
            .info(|info, _| match info {
                Info::Writable => Action::send("room again"),
                other => other.default_action(),
            })
            .ends(&ends)
    });
    let mut client = Client::with_small_window(listener.local_addr());
    client.send(b"fill");
    let sent = next(&was_full);
    assert!(sent <= 17);
    for _ in 0..sent {
        assert_eq!(client.receive().len(), 60_000);
    }
    assert_eq!(client.receive(), b"room again");
    assert!(listener.stats().refused_sends >= 1);

    client.send(b"action");
    next(&was_full);
    assert_eq!(next(&ended), CloseReason::SlowReader);
    client.expect_gone();
}

/// Goal: a million sends in one callback are refused at the limit, and other connections are not
/// affected. Method: the queued bytes are counted, and another client is served afterwards.
#[test]
fn a_million_sends_in_one_callback_stop_at_the_limit() {
    let (_server, listener) = Server::one(any_port().max_queued(1 << 20), |_| {
        Script::<()>::new().packet(|packet, ctx| {
            if packet == b"million" {
                let sent = (0..1_000_000).filter(|_| ctx.send(&[0; 64]).is_ok()).count();
                assert_eq!(sent, (1 << 20) / 66);
            }
            Action::Continue
        })
    });
    let mut client = Client::connect(listener.local_addr());
    client.send(b"million");
    for _ in 0..(1 << 20) / 66 {
        assert_eq!(client.receive(), [0; 64]);
    }
    assert_eq!(listener.stats().panics, 0);
}

/// Goal: a reset is noticed while the peer is not read, because the handler paused or output is
/// above the high-water mark, and the slot is freed. Method: a reset in each of the two states.
#[test]
fn a_peer_that_dies_while_it_is_not_read_frees_its_slot() {
    let (ends, ended) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| {
        Script::<()>::new()
            .packet(|packet, ctx| match packet {
                b"pause" => {
                    ctx.pause_reading();
                    Action::send("paused")
                }
                _ => Action::send(vec![0; 60_000]),
            })
            .ends(&ends)
    });
    let mut paused = Client::connect(listener.local_addr());
    assert_eq!(paused.ask(b"pause"), b"paused");
    paused.send(b"never read");
    paused.reset();
    assert_eq!(next(&ended), CloseReason::Reset);

    let mut stuffed = Client::with_small_window(listener.local_addr());
    for _ in 0..400 {
        stuffed.send(b"more");
    }
    until("it is above the mark", || listener.stats().high_water_hits == 1);
    stuffed.reset();
    assert!(matches!(next(&ended), CloseReason::Reset | CloseReason::Io(_)));
    until("the slots are free", || listener.stats().open == 0);
}

/// Goal: a last answer is waited for no longer than `close_timeout`, both for a peer that takes
/// nothing and for one that takes a few bytes at a time. Method: 8 MB queued and a stop, with one
/// peer of each kind.
#[test]
fn close_timeout_bounds_the_last_output() {
    let (ends, ended) = channel();
    let options =
        any_port().close_timeout(Duration::from_millis(300)).write_stall_timeout(PATIENCE);
    let (_server, listener) = Server::one(options, move |_| {
        Script::<()>::new()
            .packet(|_, ctx| {
                while ctx.send(vec![0; 60_000]).is_ok() {}
                Action::stop(CloseReason::Normal)
            })
            .ends(&ends)
    });
    let mut clients = [(); 2].map(|()| Client::with_small_window(listener.local_addr()));
    let from = crate::support::now();
    for client in &mut clients {
        client.send(b"fill and stop");
    }
    let [_deaf, sipping] = &mut clients;
    until("both are ended", || {
        assert_eq!(sipping.stream.read(&mut [0]).unwrap_or(1), 1);
        listener.stats().open == 0
    });
    assert!(from.elapsed() >= Duration::from_millis(300));
    assert_eq!([next(&ended), next(&ended)], [CloseReason::Normal; 2]);
}

/// Goal: the last answer arrives, followed by the end and not by a reset, although megabytes of
/// input follow the packet that stopped. Method: `send_and_stop` with 2 MB unread, and a client that
/// continues to send until the test ends it.
#[test]
fn a_last_answer_survives_unread_input() {
    let (_server, listener) = Server::one(any_port(), |_| {
        Script::<()>::new().packet(|packet, _| match packet {
            b"stop" => Action::send_and_stop(vec![7; 65_000], CloseReason::Normal),
            _ => Action::Continue,
        })
    });
    for _ in 0..5 {
        let mut client = Client::connect(listener.local_addr());
        client.raw(&framed(b"stop"));
        let junk = vec![0xff; 2 << 20];
        client.raw(&junk);
        assert_eq!(client.receive(), [7; 65_000]);
        client.expect_end();
    }
    until("all have gone", || listener.stats().open == 0);
    assert_eq!(listener.stats().closed(CloseKind::Normal), 5);
}

/// Goal: lingering has a time limit. Method: a client that never closes and continues to send.
#[test]
fn linger_timeout_bounds_the_wait_for_the_peers_end() {
    let options = any_port().linger_timeout(Duration::from_millis(200));
    let (_server, listener) = Server::one(options, |_| {
        Script::<()>::new().packet(|_, _| Action::send_and_stop("bye", CloseReason::Normal))
    });
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"stop"), b"bye");
    client.expect_end();
    until("the slot is free", || {
        drop(std::io::Write::write(&mut client.stream, b"more"));
        listener.stats().open == 0
    });
}

/// Goal: a queue of thousands of pieces leaves in order, in writes of bounded size. Method: shared
/// payloads, which are queued without a copy, between small ones, which are copied, to a late
/// reader.
#[test]
fn thousands_of_queued_pieces_leave_in_order() {
    let options = any_port().max_queued(128 << 20);
    let (_server, listener) = Server::one(options, |_| {
        Script::<()>::new().packet(|_, ctx| {
            let shared = bytes::Bytes::from(vec![b's'; 40_000]);
            for count in 0..2000_u32 {
                ctx.send(&count.to_be_bytes()).unwrap();
                ctx.send(shared.clone()).unwrap();
            }
            Action::Continue
        })
    });
    let mut client = Client::with_small_window(listener.local_addr());
    client.send(b"go");
    until("all is queued", || listener.stats().packets_out == 4000);
    for count in 0..2000_u32 {
        assert_eq!(client.receive(), count.to_be_bytes());
        assert_eq!(client.receive(), [b's'; 40_000]);
    }
}

/// Goal: the kernel does not delay small answers: pipelining on one connection causes no delay of 40
/// ms. Method: two hundred rounds of two small packets sent separately. With such a delay in each
/// they would take 8 s.
#[test]
fn small_answers_leave_at_once() {
    let (_server, listener, _) = Server::echo(any_port());
    let mut client = Client::connect(listener.local_addr());
    let from = crate::support::now();
    for _ in 0..200 {
        client.send(b"one");
        client.send(b"two");
        assert_eq!([client.receive(), client.receive()], [b"one", b"two"]);
    }
    assert!(from.elapsed() < Duration::from_secs(6), "{:?}", from.elapsed());
}

/// Goal: a reset while output is queued causes exactly one `terminate`. Method: many repetitions;
/// the ends of handlers are counted.
#[test]
fn a_reset_with_output_queued_ends_the_connection_once() {
    let ends = Rc::new(RefCell::new(Vec::new()));
    let mut reactor = Reactor::new().unwrap();
    let seen = Rc::clone(&ends);
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            let seen = Rc::clone(&seen);
            verbose(60_000).end(move |reason| seen.borrow_mut().push(reason))
        })
        .unwrap();
    for round in 1..=20 {
        let mut client = Client::with_small_window(listener.local_addr());
        for _ in 0..100 {
            client.send(b"");
        }
        settle(&mut reactor);
        client.reset();
        drive(&mut reactor, "it is gone", || listener.stats().open == 0);
        assert_eq!(ends.borrow().len(), round);
    }
    let reset = |end: &CloseReason| matches!(end, CloseReason::Reset | CloseReason::Io(_));
    assert!(ends.borrow().iter().all(reset), "{ends:?}");
}

/// Goal: a last packet to a refused peer that reads nothing neither blocks the reactor nor stays in
/// memory: the kernel takes what it has room for, and the slot is free after the linger timeout.
/// Method: a packet larger than any send buffer, and another client that is served meanwhile.
#[test]
fn a_last_packet_that_a_refused_peer_does_not_take_is_dropped() {
    const LEN: usize = 64 << 20;
    let options = ListenerOptions::port(0)
        .framing(LengthField::U32.max_packet(LEN))
        .max_queued(LEN + 4)
        .memory_warning(usize::MAX)
        .linger_timeout(Duration::from_millis(50));
    // Each shard has a factory of its own.
    let refuses = Arc::new(AtomicBool::new(true));
    let (_server, listener) = Server::start(move |starter| {
        let factory = move |_: &Accepted<'_>| match refuses.swap(false, Ordering::SeqCst) {
            true => Err(Refusal::send(vec![7; LEN])),
            false => Ok(Script::<()>::new()),
        };
        starter.start_listener("test", options, factory).unwrap()
    });
    let stuck = Client::with_small_window(listener.local_addr());
    let mut next = Client::connect(listener.local_addr());
    next.raw(b"\0\0\0\x05hello");
    let mut answer = [0; 9];
    next.stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\0\0\0\x05hello");
    until("the slot is free", || listener.stats().open == 1);
    let stats = listener.stats();
    assert_eq!((stats.refused, stats.made), (1, 1));
    assert!(stats.bytes_out < LEN as u64, "{} bytes were sent", stats.bytes_out);
    drop(stuck);
}
