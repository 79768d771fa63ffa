//! The contract with a handler: results as actions, its own reasons, its address, and typed handlers.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use condor::testing::{Faults, Harness};
use condor::{
    Action, Address, CloseKind, CloseReason, Codec, Context, Decode, FrameError, Framer, Framing,
    Handler, Info, ListenerOptions, Output, PacketWriter, Refusal, SendError, Typed, TypedAction,
    TypedHandler,
};

use crate::support::over_script::{assert_clean, conclude, options};
use crate::support::{Actor, Do, Script, Seen, Trace, order};

type Answer = fn(&mut Context<'_, ()>) -> Result<Action<'static>, CloseReason>;

/// An error of a user's own.
struct Unknown(u8);

impl From<Unknown> for CloseReason {
    fn from(Unknown(verb): Unknown) -> Self {
        Self::Code(verb.into())
    }
}

const ANSWERS: [(Answer, CloseReason); 6] = [
    (|_| Err(Unknown(3))?, CloseReason::Code(3)),
    (|_| Err(CloseReason::Custom("own")), CloseReason::Custom("own")),
    (|_| Err(FrameError::Bad("odd"))?, CloseReason::BadFrame("odd")),
    (
        |ctx| {
            ctx.send([0; 101].as_slice())?;
            Ok(Action::Continue)
        },
        CloseReason::AnswerTooLarge { len: 101, max: 100 },
    ),
    (
        |ctx| loop {
            ctx.send([0; 100].as_slice())?;
        },
        CloseReason::SlowReader,
    ),
    (
        |ctx| loop {
            ctx.send_after(Duration::from_secs(1), ())?;
        },
        CloseReason::Custom("too many timers"),
    ),
];

/// Goal: `?` works with errors of one's own, with each error of the crate that a callback meets, and
/// with a plain reason: the connection ends with the reason. `Ok` is the action itself. Method: a
/// handler for each error, and one that answers.
#[test]
fn an_error_of_a_method_ends_the_connection_with_its_reason() {
    for (answer, reason) in ANSWERS {
        let options = options().max_packet(100).max_queued(1_000).write_high_water(900);
        let harness = Harness::new(options.write_low_water(9), move |_| {
            Script::new().packet(move |_, ctx| answer(ctx).into())
        });
        harness.packet("request");
        assert_eq!(harness.closed(), Some(reason));
        harness.peer_closes();
        assert_clean(&harness);
    }
    let harness = Harness::new(options(), |_| {
        Script::<()>::new().packet(|_, _| Ok::<_, CloseReason>(Action::send("yes")).into())
    });
    harness.packet("request");
    assert_eq!(harness.packets(), [b"yes"]);
    conclude(&harness);
}

/// Goal: a number is a reason as any other: `terminate` gets it, it is counted, and it prints.
#[test]
fn a_number_of_the_handlers_own_is_a_reason() {
    let harness = Harness::new(options(), |_| {
        Script::<()>::new().packet(|_, _| Action::send_and_stop("bye", CloseReason::Code(404)))
    });
    harness.packet("request");
    assert_eq!(harness.packets(), [b"bye"]);
    assert_eq!(harness.closed(), Some(CloseReason::Code(404)));
    assert_eq!(harness.stats().closed(CloseKind::Code), 1);
    assert_eq!(CloseReason::Code(404).to_string(), "code 404");
    conclude(&harness);
}

/// Goal: the address that a factory gets is the handler's: a message sent to it at once arrives, after
/// `init`. A message to a refused connection is dropped, and reaches no later owner of its slot. The
/// callbacks know the listener's name.
#[test]
fn a_factory_gets_the_address_of_its_handler() {
    let trace = Trace::default();
    let own = trace.clone();
    let mut first: Option<Address<Do>> = None;
    let harness = Harness::new(options().max_connections(1), move |peer| {
        assert!(peer.address().send(order("early", |_| Action::Continue)).is_ok());
        if first.is_none() {
            first = Some(peer.address());
            return None;
        }
        let handler = Actor::echo(&own).init(|ctx| {
            assert_eq!(ctx.listener(), "testing");
            Action::send("init")
        });
        Some(handler)
    });
    assert!(harness.is_gone());
    assert_eq!(harness.stats().dropped_messages, 1);
    let second = harness.connect();
    assert_eq!(trace.read(), [Seen::Message("early")]);
    assert_eq!(second.packets(), [b"init"]);
    conclude(&second);
}

/// Words of lower-case letters. An answer is a word and a number.
struct Words;

impl Codec for Words {
    type Request<'a> = &'a str;
    type Answer<'a> = (&'a str, usize);

    fn decode<'a>(&self, packet: &'a [u8]) -> Result<&'a str, CloseReason> {
        std::str::from_utf8(packet).map_err(|_| CloseReason::Code(1))
    }

    fn encode(
        &self,
        (word, number): &(&str, usize),
        out: &mut PacketWriter<'_>,
    ) -> Result<(), CloseReason> {
        write!(out, "{word} {number}");
        if *number == 13 { Err(CloseReason::Code(2)) } else { Ok(()) }
    }
}

#[derive(Default)]
struct Counter {
    longest: String,
}

impl TypedHandler<Words> for Counter {
    type Message = &'static str;

    fn init(&mut self, _: &mut Context<'_, &'static str>) -> TypedAction<(&str, usize)> {
        TypedAction::Send((&self.longest, 0))
    }

    fn handle<'a>(
        &'a mut self,
        word: &'a str,
        ctx: &mut Context<'_, &'static str>,
    ) -> TypedAction<(&'a str, usize)> {
        if word.len() > self.longest.len() {
            word.clone_into(&mut self.longest);
        }
        match word {
            "longest" => TypedAction::Send((&self.longest, self.longest.len())),
            "bye" => TypedAction::SendAndStop((word, 3), CloseReason::Code(3)),
            "stop" => TypedAction::Stop(CloseReason::Normal),
            "twice" => {
                let sent = ctx.send_with(|out| Words.encode(&("once", 1), out));
                sent.map(|()| TypedAction::Send((word, 2))).into()
            }
            "nothing" => TypedAction::Continue,
            _ => TypedAction::Send((word, word.len())),
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, &'static str>,
        _: &mut Context<'_, &'static str>,
    ) -> TypedAction<(&'a str, usize)> {
        match info {
            Info::Message(text) => TypedAction::Send((text, 0)),
            other => TypedAction::default_action(&other),
        }
    }
}

/// Goal: a typed handler gets decoded requests, and its answers are encoded, from every callback and
/// with each action. A request and an answer may borrow from packet and handler. Method: a packet for
/// each action.
#[test]
fn a_typed_handler_sends_values() {
    let harness = Harness::of(Typed::new(Words, Counter::default()));
    for word in ["four", "nothing", "twice", "longest", "bye", "four"] {
        harness.packet(word);
        harness.message("news");
    }
    let expected = [
        " 0",
        "four 4",
        "news 0",
        "news 0",
        "once 1",
        "twice 2",
        "news 0",
        "nothing 7",
        "news 0",
        "bye 3",
    ];
    assert_eq!(harness.packets(), expected.map(str::as_bytes));
    assert_eq!(harness.closed(), Some(CloseReason::Code(3)));
    conclude(&harness);

    let harness = Harness::of(Typed::new(Words, Counter::default()));
    harness.packet("seven");
    assert_eq!(harness.with_handler(|typed| typed.handler().longest.len()), Some(5));
    harness.packet("stop");
    assert_eq!(harness.closed(), Some(CloseReason::Normal));
    conclude(&harness);
}

/// Goal: a packet that cannot be decoded, and an answer that cannot be encoded or sent, end the
/// connection with the reason. Nothing of the answer is sent. What a handler leaves to the default
/// keeps its defaults.
#[test]
fn a_codec_that_fails_ends_the_connection_with_its_reason() {
    let cases: [(&[u8], _); 3] = [
        (b"\xff", CloseReason::Code(1)),
        (b"thirteen byte", CloseReason::Code(2)),
        (&[b'x'; 99], CloseReason::AnswerTooLarge { len: 102, max: 100 }),
    ];
    for (packet, reason) in cases {
        let options = ListenerOptions::port(5555).max_packet(100);
        let harness = Harness::new(options, |_| Typed::new(Words, Counter::default()));
        assert_eq!(harness.packets(), [b" 0"]);
        harness.packet(packet);
        assert_eq!(harness.closed(), Some(reason));
        assert_eq!(harness.sent(), b"");
        conclude(&harness);
    }
    let harness = Harness::of(Typed::new(Words, Counter::default()));
    harness.drain();
    assert_eq!(harness.closed(), Some(CloseReason::Shutdown));
}

/// Turns packets into their refusals.
struct Refused;

impl Handler for Refused {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        assert_eq!(ctx.send_with(|out| out.put(&[1; 60])), Ok(()));
        let full = ctx.send_with(|out| out.put(&[2; 60]));
        assert_eq!(full, Err(SendError::Full { queued: 62, max: 100 }));
        let too_large = ctx.send_with(|out| out.put(&[2; 99]));
        assert_eq!(too_large, Err(SendError::TooLarge { len: 99, max: 98 }));
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Writable => Action::send("writable"),
            other => other.default_action(),
        }
    }
}

/// Goal: `max_queued` limits what a closure writes, by the length of the frame. A packet that would
/// fit an empty queue is followed by `Info::Writable`. Method: a peer that reads nothing, then all.
#[test]
fn a_packet_of_a_closure_past_max_queued_is_full_and_writable_follows() {
    let options = options().max_packet(98).max_queued(100).write_high_water(99);
    let harness = Harness::new(options.write_low_water(9), |_| Refused);
    harness.peer_stalls();
    harness.packet("request");
    assert_eq!(harness.queued_bytes(), 62);
    harness.peer_reads_all();
    assert_eq!(harness.packets(), [&[1; 60][..], b"writable"]);
    conclude(&harness);
}

/// Owns bytes, and panics when it is dropped.
struct Owner;

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        b"owned"
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        assert!(thread::panicking(), "the drop of an owner, as requested");
    }
}

/// Panics with each packet that it frames.
struct Breaks;

impl Framer for Breaks {
    fn decode(&self, _: &[u8], _: usize) -> Result<Decode, FrameError> {
        Ok(Decode::Need(None))
    }

    fn encode(&self, _: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(b"half a frame");
        panic!("the framer panics as requested");
    }
}

/// Goal: code of the user's that panics in a refusal ends no more than the refused connection: the
/// drop of its bytes, and the framer of its last packet. Nothing of a broken packet is sent.
#[test]
fn a_refusal_that_panics_ends_nothing_else() {
    for (framing, sent) in [(Framing::raw(), &b"owned"[..]), (Framing::custom(Breaks), b"")] {
        let mut count = 0;
        let first = Harness::new(options().framing(framing), move |_| {
            count += 1;
            match count {
                1 => Ok(Script::<()>::new()),
                _ => Err(Refusal::send(Bytes::from_owner(Owner))),
            }
        });
        let refused = first.connect();
        assert_eq!(refused.sent(), sent);
        assert!(refused.is_finished());
        let (stats, panics) = (first.stats(), 1 + u64::from(sent.is_empty()));
        assert_eq!((stats.refused, stats.panics, stats.made), (1, panics, 1));
        refused.peer_closes();
        assert!(refused.is_gone());
        conclude(&first);
    }
}

/// Goal: refusals leave nothing behind in a network whose calls fail, and no peer gets other bytes than
/// the last packet. Method: 300 seeds. Connections are served, closed, reset, or sent a last packet.
#[test]
fn refusals_in_a_faulty_network_leave_nothing() {
    for seed in 0..300 {
        let mut count = seed;
        let options = options().max_connections(3).linger_timeout(Duration::from_secs(5));
        let first = Harness::new(options, move |_| {
            count += 1;
            match count % 4 {
                0 => Ok(Script::<()>::new().packet(|_, _| Action::Continue)),
                1 => Err(Refusal::close()),
                2 => Err(Refusal::reset()),
                _ => Err(Refusal::send("busy")),
            }
        });
        first.faults(Faults::new(seed).short(0.5).would_block(0.2).reset(0.05).end(0.05));
        let clients: Vec<_> = (0..8).map(|_| first.connect()).collect();
        for client in &clients {
            client.packet("request");
        }
        first.advance(Duration::from_secs(6));
        clients.iter().chain([&first]).for_each(Harness::peer_closes);
        first.advance(Duration::from_secs(6));
        for client in &clients {
            assert!(b"\0\x04busy".starts_with(&client.sent()), "seed {seed}");
        }
        let stats = first.stats();
        assert_eq!((stats.accepted, stats.made + stats.refused), (9, 9), "seed {seed}");
        assert_clean(&first);
    }
}
