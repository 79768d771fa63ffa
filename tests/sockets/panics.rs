//! Panics in every place where user code runs: each ends one connection, and nothing else.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use condor::{
    Action, CloseReason, ConnectorOptions, Context, Decode, FrameError, Framer, Framing, Handler,
    Info, LengthField, ListenerOptions, ListenerState, Output, Reactor,
};

use crate::support::{Client, Script, Server, drive, framed, inet, next, over, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

/// Panics when it is dropped, if it is armed.
#[derive(Debug)]
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0 || thread::panicking(), "a drop that panics");
    }
}

thread_local!(static IS_CALLER: Cell<bool> = const { Cell::new(false) });

impl Clone for Bomb {
    /// The caller of `broadcast` clones the message for each shard. It must not panic.
    fn clone(&self) -> Self {
        assert!(!self.0 || IS_CALLER.get(), "a clone that panics");
        Self(self.0)
    }
}

/// Where a [`PanicsAt`] panics.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Place {
    Init,
    Packet,
    /// In a packet, with a payload whose own drop panics.
    Payload,
    Message,
    /// The handler drops a message, whose drop panics.
    MessageDrop,
    Timer,
    Shutdown,
    Terminate,
    HandlerDrop,
    /// A timer's message is dropped with the connection.
    TimerDrop,
    Nowhere,
}

/// A handler that panics in one place, and sends every packet back until then.
struct PanicsAt {
    place: Place,
    ends: Sender<(Place, CloseReason)>,
    /// Dropped with the handler.
    last: Bomb,
}

impl PanicsAt {
    fn panic_if_at(&self, place: Place) {
        assert!(place != self.place, "a panic at {place:?}");
    }
}

impl Handler for PanicsAt {
    type Message = Bomb;

    fn init(&mut self, ctx: &mut Context<'_, Bomb>) -> Action<'_> {
        if self.place == Place::Init {
            ctx.send("hello").unwrap();
        }
        self.panic_if_at(Place::Init);
        Action::Continue
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Bomb>,
    ) -> Action<'a> {
        if packet != b"boom" {
            return Action::send(packet);
        }
        let armed = self.place == Place::MessageDrop;
        match self.place {
            Place::Packet => panic!("a panic in a packet"),
            Place::Payload => panic_any(Bomb(true)),
            Place::Message | Place::MessageDrop => ctx.address().send(Bomb(armed)).unwrap(),
            Place::Timer => drop(ctx.send_after(Duration::from_millis(1), Bomb(false))),
            Place::Shutdown => drop(ctx.handle().stop_listener("test").unwrap()),
            Place::TimerDrop => drop(ctx.send_after(Duration::from_secs(3600), Bomb(true))),
            _ => {}
        }
        match self.place {
            Place::Terminate | Place::HandlerDrop | Place::TimerDrop => {
                Action::send_and_stop("bye", CloseReason::Normal)
            }
            _ => Action::Continue,
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Bomb>,
        _: &mut Context<'_, Bomb>,
    ) -> Action<'a> {
        match info {
            Info::Message(_bomb) => {
                self.panic_if_at(Place::Message);
                self.panic_if_at(Place::Timer);
                Action::Continue
            }
            other => {
                self.panic_if_at(Place::Shutdown);
                other.default_action()
            }
        }
    }

    fn terminate(mut self, reason: CloseReason) {
        self.ends.send((self.place, reason)).unwrap();
        self.panic_if_at(Place::Terminate);
        self.last.0 = self.place == Place::HandlerDrop;
    }
}

/// Starts one server for this place, with one client before the victim and one after it. Returns the
/// bytes that the victim got, and the reason in its `terminate`.
fn victim(place: Place) -> (Vec<u8>, CloseReason) {
    let (ends, ended) = channel();
    let made = Arc::new(AtomicUsize::new(0));
    let (server, listener) = Server::one(any_port(), move |_| {
        let is_second = made.fetch_add(1, Ordering::SeqCst) == 1;
        let place = if is_second { place } else { Place::Nowhere };
        PanicsAt { place, ends: ends.clone(), last: Bomb(false) }
    });
    let addr = inet(listener.local_addr());
    let mut before = Client::connect(addr);
    assert_eq!(before.ask(b"before"), b"before");
    let mut victim = Client::connect(addr);
    let packets = [framed(b"one"), framed(b"two"), framed(b"boom"), framed(b"three")].concat();
    drop(std::io::Write::write_all(&mut victim.stream, &packets));
    let rest = victim.read_to_end();
    drop(victim);
    // The channel has only the victim's end so far, unless the listener was stopped.
    let end = std::iter::repeat_with(|| next(&ended)).find(|(at, _)| *at == place).unwrap().1;
    if place != Place::Shutdown {
        assert_eq!(before.ask(b"still here"), b"still here");
        assert_eq!(Client::connect(addr).ask(b"after"), b"after");
        until("the slot is free", || listener.stats().open <= 2);
    }
    drop(before);
    until("all have left", || server.stats().open == 0);
    assert!(ended.try_iter().all(|(at, _)| at != place), "terminated twice at {place:?}");
    let stats = listener.stats();
    assert_eq!(stats.made, stats.terminated);
    assert_eq!(stats.panics, 1, "{place:?}");
    (rest, end)
}

/// Goal: a panic in a callback ends that one connection with `Panicked`. Answers to earlier packets
/// are sent, `terminate` is called once, and the connections before and after it are served. Method:
/// each callback in turn, with two packets before the panic and one after it in the same segment.
#[test]
fn a_panic_in_a_callback_ends_that_connection_alone() {
    let two = [framed(b"one"), framed(b"two")].concat();
    for place in [Place::Packet, Place::Payload] {
        assert_eq!(victim(place), (two.clone(), CloseReason::Panicked), "{place:?}");
    }
    let all = [&two[..], &framed(b"three")].concat();
    for place in [Place::Message, Place::MessageDrop, Place::Timer, Place::Shutdown] {
        assert_eq!(victim(place), (all.clone(), CloseReason::Panicked), "{place:?}");
    }
    assert_eq!(victim(Place::Init), (framed(b"hello"), CloseReason::Panicked));
}

/// Goal: a panic in `terminate`, in the handler's drop, or in the drop of something it leaves,
/// changes neither the reason nor the bytes that the peer gets. Method: a handler that stops in an
/// orderly way and panics afterwards.
#[test]
fn a_panic_after_the_end_changes_nothing() {
    let bye = [framed(b"one"), framed(b"two"), framed(b"bye")].concat();
    for place in [Place::Terminate, Place::HandlerDrop, Place::TimerDrop] {
        assert_eq!(victim(place), (bye.clone(), CloseReason::Normal), "{place:?}");
    }
}

/// Goal: a factory that panics costs one client its connection. There is no handler and no
/// `terminate`. Method: the factory panics for every second connection.
#[test]
fn a_factory_that_panics_makes_no_handler() {
    let (ends, ended) = channel();
    let made = Arc::new(AtomicUsize::new(0));
    let (_server, listener) = Server::one(any_port(), move |_| {
        assert!(made.fetch_add(1, Ordering::SeqCst).is_multiple_of(2), "no handler for you");
        PanicsAt { place: Place::Nowhere, ends: ends.clone(), last: Bomb(false) }
    });
    for _ in 0..5 {
        assert_eq!(Client::connect(listener.local_addr()).ask(b"hi"), b"hi");
        Client::connect(listener.local_addr()).expect_gone();
    }
    until("all have left", || listener.stats().open == 0);
    let stats = listener.stats();
    assert_eq!((stats.accepted, stats.made, stats.terminated, stats.panics), (10, 5, 5, 5));
    assert_eq!(ended.try_iter().count(), 5);
}

/// Goal: messages that panic in their clone or their drop end no connection. Method: a broadcast,
/// and a message to a connection that is gone. A client is served throughout.
#[test]
fn messages_that_panic_end_no_connection() {
    let (addresses, address) = channel();
    let (_server, listener) =
        Server::one(any_port(), move |_| Script::new().sends_address(&addresses));
    let mut client = Client::connect(listener.local_addr());
    next(&address);
    let gone = Client::connect(listener.local_addr());
    let stale = next(&address);
    drop(gone);
    until("one has left", || listener.stats().open == 1);

    IS_CALLER.set(true);
    listener.broadcast(Bomb(true)).unwrap();
    assert_eq!(client.ask(b"a clone"), b"a clone");
    stale.send(Bomb(true)).unwrap();
    until("it was dropped", || listener.stats().dropped_messages == 1);
    assert_eq!(client.ask(b"a drop"), b"a drop");
    assert!(listener.stats().panics >= 2);
}

/// Goal: messages that are left in the mailbox when the listener ends are dropped and counted, even
/// if their drop panics. Method: the last handler, which the drain ends by force, sends messages in
/// its `terminate`; so the listener ends in the same turn.
#[test]
fn a_mailbox_that_ends_may_be_full_of_messages_that_panic() {
    let options = any_port().drain_timeout(Duration::from_millis(10));
    let (_server, listener) = Server::one(options, |_| {
        let own = Rc::new(RefCell::new(None));
        let kept = Rc::clone(&own);
        Script::<Bomb>::new()
            .init(move |ctx| {
                *own.borrow_mut() = Some(ctx.address());
                Action::Continue
            })
            .info(|info, _| match info {
                Info::Message(_) => Action::Continue,
                other => other.default_action(),
            })
            .end(move |_| {
                let address = kept.take().unwrap();
                for _ in 0..3 {
                    address.send(Bomb(true)).unwrap();
                }
            })
    });
    let client = Client::connect(listener.local_addr());
    until("the connection", || listener.stats().open == 1);
    let drain = listener.stop().unwrap();
    over(&drain);
    drop(client);
    let stats = listener.stats();
    assert_eq!((stats.dropped_messages, stats.panics), (3, 3));
}

/// The default framing, in a framer that panics when it is dropped.
struct BadFramer(Framing);

impl BadFramer {
    fn framing() -> Framing {
        Framing::custom(Self(LengthField::U16.into()))
    }

    /// One for each direction.
    fn two() -> Framing {
        Framing::split(Self::framing(), Self::framing())
    }
}

impl Framer for BadFramer {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        self.0.decode(input, scanned)
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        let mut frame = Vec::new();
        self.0.encode(payload, &mut frame)?;
        out.put(&frame);
        Ok(())
    }
}

impl Drop for BadFramer {
    fn drop(&mut self) {
        assert!(thread::panicking(), "the drop of a framer");
    }
}

/// Goal: framers that were given to one connection and panic when they are dropped end no connection,
/// not even if both framers of a split framing panic. Method: each way in which a connection gives up
/// its framing: it ends, and a packet or a message replaces it, the packet with another one behind it
/// in the same batch.
#[test]
fn framers_of_a_connection_that_panic_in_their_drop_end_nothing() {
    let (addresses, address) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| {
        Script::<()>::new()
            .sends_address(&addresses)
            .packet(|packet, ctx| {
                match packet {
                    b"bad" => ctx.set_framing(BadFramer::two()),
                    b"good" => ctx.set_framing(LengthField::U16),
                    _ => {}
                }
                Action::send(packet.to_vec())
            })
            .info(|info, ctx| match info {
                Info::Message(()) => {
                    ctx.set_framing(LengthField::U16);
                    Action::send("replaced")
                }
                other => other.default_action(),
            })
    });
    let addr = inet(listener.local_addr());
    let mut other = Client::connect(addr);
    drop(next(&address));
    for (nth, way) in (1..).zip(["closes", "resets", "a packet", "a message"]) {
        let mut client = Client::connect(addr);
        let own = next(&address);
        assert_eq!(client.ask(b"bad"), b"bad");
        match way {
            "closes" => client.finish(),
            "resets" => client.reset(),
            "a packet" => {
                client.raw(&[framed(b"good"), framed(b"behind")].concat());
                assert_eq!([client.receive(), client.receive()], [&b"good"[..], b"behind"]);
            }
            _ => {
                own.send(()).unwrap();
                assert_eq!(client.receive(), b"replaced");
            }
        }
        until("both are dropped", || listener.stats().panics == 2 * nth);
        assert_eq!(other.ask(way.as_bytes()), way.as_bytes());
    }
}

/// Goal: everything that a listener owns may panic when the listener ends. Method: its factory and
/// both framers of its framing panic, and two messages in its mailbox; it is stopped, dropped with
/// its reactor, and never adopted at all.
#[test]
fn all_that_a_listener_owns_may_panic_at_its_end() {
    for end in ["stopped", "dropped", "never adopted"] {
        let mut reactor = Reactor::new().unwrap();
        let handle = reactor.handle();
        let armed = Arc::new(Bomb(true));
        let options = any_port().framing(BadFramer::two());
        let listener = handle
            .start_listener("test", options, move |_| {
                let _ = &armed;
                Script::<Bomb>::new()
            })
            .unwrap();
        IS_CALLER.set(true);
        listener.broadcast(Bomb(true)).unwrap();
        listener.broadcast(Bomb(true)).unwrap();
        if end == "stopped" {
            let drain = listener.stop().unwrap();
            drive(&mut reactor, "the drain is over", || drain.report().is_some());
        } else if end == "dropped" {
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        drop(reactor);
        assert_eq!(listener.state(), ListenerState::Ended, "{end}");
        let stats = listener.stats();
        // The factory of a listener that was never adopted belongs to no listener yet.
        let factory = u64::from(end != "never adopted");
        assert_eq!(stats.panics, 2 + 2 + factory, "{end}");
        assert_eq!(handle.stats().panics, stats.panics, "{end}");
        assert!(handle.listeners().is_empty(), "{end}");
    }
}

/// Goal: everything that a connector owns may panic when the connector ends. Method: as for a listener,
/// and the closures that look names up and are told states.
#[test]
fn all_that_a_connector_owns_may_panic_at_its_end() {
    for end in ["stopped", "dropped", "never adopted"] {
        let mut reactor = Reactor::new().unwrap();
        let handle = reactor.handle();
        let (armed, closure, other) = (Arc::new(Bomb(true)), Bomb(true), Bomb(true));
        let options = ConnectorOptions::to("127.0.0.1:1").framing(BadFramer::two());
        let options = options.on_state(move |_, _| {
            let _ = &other;
        });
        let options = options.resolve(move |_| {
            let _ = &closure;
            Ok(Vec::new())
        });
        let connector = handle
            .start_connector("test", options, move |_| {
                let _ = &armed;
                Script::<Bomb>::new()
            })
            .unwrap();
        IS_CALLER.set(true);
        connector.broadcast(Bomb(true)).unwrap();
        connector.broadcast(Bomb(true)).unwrap();
        if end == "stopped" {
            let drain = connector.stop().unwrap();
            drive(&mut reactor, "the drain is over", || drain.report().is_some());
        } else if end == "dropped" {
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        drop(reactor);
        assert!(connector.is_ended(), "{end}");
        // The factory and the closures of one that was never adopted belong to no connector yet.
        let own = if end == "never adopted" { 0 } else { 3 };
        assert_eq!(connector.stats().panics, 2 + 2 + own, "{end}");
        assert_eq!(handle.stats().panics, connector.stats().panics, "{end}");
    }
}

/// Goal: a factory whose clone panics leaves no connector behind. Method: shards, a factory that can be
/// cloned once; then the name is used again.
#[test]
fn a_factory_whose_clone_panics_starts_nothing() {
    struct Once(AtomicBool);

    impl Clone for Once {
        fn clone(&self) -> Self {
            if self.0.swap(true, Ordering::SeqCst) {
                std::panic::resume_unwind(Box::new("no clone"));
            }
            Self(AtomicBool::new(false))
        }
    }

    let shards = condor::Shards::new(2).unwrap();
    let options = || ConnectorOptions::on_demand();
    let once = Once(AtomicBool::new(false));
    let started = catch_unwind(AssertUnwindSafe(|| {
        shards.start_connector("test", options(), move |_| {
            let _ = &once;
            Script::<()>::new()
        })
    }));
    assert!(started.is_err());
    assert!(shards.handle().connectors().is_empty());
    shards.start_connector("test", options(), |_| Script::<()>::new()).expect("the name is free");
}

/// Goal: the owner of shared bytes may panic in its drop on every way out: its peer gets all bytes, and
/// no connection ends. Method: packets that are copied, and packets that are queued.
#[test]
fn owners_of_shared_bytes_may_panic_in_their_drop() {
    struct Owner(Vec<u8>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            assert!(thread::panicking(), "the drop of an owner");
        }
    }

    let (_server, listener) = Server::one(any_port(), |_| {
        Script::<()>::new().packet(|packet, ctx| {
            let len = if packet == b"large" { 40_000 } else { 100 };
            for _ in 0..2 {
                ctx.send(Bytes::from_owner(Owner(vec![7; len]))).unwrap();
            }
            Action::send(packet.to_vec())
        })
    });
    let mut client = Client::connect(listener.local_addr());
    for round in 1..=3 {
        for (nth, (request, len)) in [("large", 40_000), ("small", 100)].into_iter().enumerate() {
            client.send(request.as_bytes());
            assert_eq!([client.receive(), client.receive()], [vec![7; len], vec![7; len]]);
            assert_eq!(client.receive(), request.as_bytes());
            let dropped = 4 * (round - 1) + 2 * (nth as u64 + 1);
            until("they are dropped", || listener.stats().panics == dropped);
        }
    }
}

/// Goal: a message may panic in its drop when its timer is cancelled: the connection goes on. Method: a
/// timer that is set and cancelled in one callback.
#[test]
fn a_message_may_panic_in_its_drop_when_its_timer_is_cancelled() {
    let (_server, listener) = Server::one(any_port(), |_| {
        Script::<Bomb>::new().packet(|packet, ctx| {
            let timer = ctx.send_after(Duration::from_secs(60), Bomb(true)).ok().unwrap();
            assert!(ctx.cancel(timer));
            Action::send(packet.to_vec())
        })
    });
    let mut client = Client::connect(listener.local_addr());
    for round in 1..=3 {
        assert_eq!(client.ask(b"hi"), b"hi");
        assert_eq!(listener.stats().panics, round);
    }
}
