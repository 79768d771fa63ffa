//! Log lines: which exist, how often, and which never.
//!
//! A line is logged on the thread that causes it, so each test collects the lines of its own thread.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use condor::testing::Harness;
use condor::{
    Accepted, Action, CloseReason, Context, Endpoint, Handler, Info, LengthField, ListenerOptions,
    Proxy, ReactorOptions, Refusal,
};
use log::Level;

use crate::lines::{collect, complaints, fields, lines};
use crate::support::{Script, ms};

/// A message whose drop panics, if it is armed.
#[derive(Debug)]
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0 || thread::panicking(), "in a drop");
    }
}

/// Where the factory panics. The other clients of a harness come from 192.0.2.1.
const NO_HANDLER_FOR: &str = "192.0.2.66:6";

/// Whom the factory refuses.
const REFUSED: &str = "192.0.2.67:7";

/// Sends packets back, or does what a packet requests.
struct Loud {
    init_panics: bool,
    panic_at_end: &'static str,
}

impl Loud {
    fn make(peer: &Accepted<'_, Bomb>) -> Result<Self, Refusal> {
        let peer_addr = peer.peer_addr().to_string();
        assert_ne!(peer_addr, NO_HANDLER_FOR, "in the factory");
        if peer_addr == REFUSED {
            return Err(Refusal::close().because("not on the list"));
        }
        Ok(Self { init_panics: false, panic_at_end: "" })
    }
}

impl Handler for Loud {
    type Message = Bomb;

    fn init(&mut self, _: &mut Context<'_, Bomb>) -> Action<'_> {
        assert!(!self.init_panics, "in init");
        Action::Continue
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Bomb>,
    ) -> Action<'a> {
        const MUCH: &[u8] = &[0; 1000];
        match packet {
            b"panic" => panic!("in a packet"),
            b"panic at the end" => {
                self.panic_at_end = "in terminate";
                Action::stop(CloseReason::Normal)
            }
            b"much" => {
                while ctx.send(MUCH).is_ok() {}
                Action::send(MUCH)
            }
            b"too much" => Action::send(vec![0; 100_000]),
            [b'!', text @ ..] => panic!("the peer says {}", String::from_utf8_lossy(text)),
            _ => Action::send(packet),
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Bomb>,
        _: &mut Context<'_, Bomb>,
    ) -> Action<'a> {
        match info {
            Info::Message(Bomb(false)) => panic!("in a message"),
            other => other.default_action(),
        }
    }

    fn terminate(self, _: CloseReason) {
        assert!(self.panic_at_end.is_empty(), "{}", self.panic_at_end);
    }
}

fn options() -> ListenerOptions {
    ListenerOptions::port(5555).max_packet(1024).write_stall_timeout(Duration::from_secs(3600))
}

fn loud() -> Harness<Loud> {
    Harness::new(options().max_connections(10_000).memory_warning(usize::MAX), Loud::make)
}

/// Events that a peer can cause at any rate: the line, its level, and how the test causes it. None
/// takes more than a few milliseconds.
type Cause = (&'static str, Level, fn(&Harness<Loud>));

const CAUSES: [Cause; 8] = [
    ("a callback panicked: in a packet", Level::Error, |harness| harness.connect().packet("panic")),
    ("the factory panicked: ", Level::Error, |harness| {
        harness.connect_from(NO_HANDLER_FOR.parse::<Endpoint>().unwrap());
    }),
    ("refused by the factory: ", Level::Debug, |harness| {
        harness.connect_from(REFUSED.parse::<Endpoint>().unwrap());
    }),
    ("the drop of a message panicked", Level::Error, |harness| {
        let client = harness.connect();
        let address = client.address();
        client.peer_resets();
        address.send(Bomb(true)).unwrap();
        harness.run();
    }),
    ("the first packet came to nothing: ", Level::Warn, |harness| {
        harness.connect().receive("GET / HTTP/1.1")
    }),
    ("ended: the peer reads too slowly", Level::Warn, |harness| {
        let client = harness.connect();
        client.peer_stalls();
        client.packet("much");
    }),
    ("a connection was lost in accept", Level::Debug, |harness| {
        harness.fail_next_accept(ErrorKind::ConnectionAborted);
        harness.connect();
    }),
    ("cannot accept, next try in ", Level::Warn, |harness| {
        harness.fail_next_accept(ErrorKind::OutOfMemory);
        let client = harness.connect();
        harness.advance(Duration::from_millis(100));
        assert!(client.is_accepted(), "it waits for the pause to be over");
    }),
];

/// Causes each event three times, and fails unless each has exactly one line.
#[track_caller]
fn expect_one_line_each(harness: &Harness<Loud>) {
    for (text, level, happen) in CAUSES {
        (0..3).for_each(|_| happen(harness));
        let said = complaints();
        let [(at, line)] = &said[..] else { panic!("{text}: {said:?}") };
        assert!(fields(line, "testing").what.starts_with(text), "{text}: {line}");
        assert_eq!(*at, level, "{line}");
    }
}

/// Goal: there is at most one line a second for each cause and listener, and no cause or listener
/// hides another. Method: each cause three times in a second, in two seconds and on two listeners.
/// In between everything happens once more just before its second is over.
#[test]
fn each_cause_has_one_line_a_second_and_listener() {
    collect();
    let (one, other) = (loud(), loud());
    expect_one_line_each(&one);
    let took = one.elapsed();
    assert!(took < Duration::from_secs(1), "all of that is within a second");
    expect_one_line_each(&other);

    one.advance(Duration::from_millis(999) - took);
    CAUSES.iter().rev().skip(1).for_each(|(.., happen)| happen(&one));
    assert_eq!(complaints(), [], "a second is not over");
    one.advance(Duration::from_millis(1));
    expect_one_line_each(&one);
    assert!(other.stats().panics >= 9, "events without a line are counted too");
}

/// Goal: peers of users that may not connect have one line a second, and each is counted. Method:
/// scripted peers of a Unix socket, which have no user.
#[test]
#[cfg(all(feature = "peer-credentials", target_os = "linux"))]
fn refused_users_have_one_line_a_second() {
    collect();
    let options = ListenerOptions::unix("/run/s").unix_allow_uids([0]);
    let harness = Harness::new(options, Loud::make);
    let refuse = || {
        let client = harness.connect_from("unix:/run/client".parse::<Endpoint>().unwrap());
        assert!(client.is_gone());
        complaints()
    };
    let said = refuse();
    let [(Level::Warn, line)] = &said[..] else { panic!("{said:?}") };
    let what = "refused: the system does not tell its user";
    assert_eq!(fields(line, "testing").what, what);
    assert_eq!(refuse(), [], "a second is not over");
    harness.advance(Duration::from_secs(1));
    assert_eq!(refuse(), said);
    assert_eq!((harness.stats().refused_uids, harness.stats().made), (3, 1));
}

/// Goal: a listener whose places are all taken says so, once a second. Method: a limit of two; places
/// become free and are taken again, within a second and after it.
#[test]
fn the_connection_limit_has_one_line_a_second() {
    collect();
    let harness = Harness::new(options().max_connections(2), Loud::make);
    let fill = || {
        let client = harness.connect();
        let said = complaints();
        client.peer_resets();
        said
    };
    let said = fill();
    let [(Level::Warn, line)] = &said[..] else { panic!("{said:?}") };
    let what = "the next client has to wait: max_connections is 2";
    assert_eq!(fields(line, "testing").what, what);
    assert_eq!(fill(), [], "a second is not over");
    harness.advance(Duration::from_secs(1));
    assert_eq!(fill(), said);
    assert_eq!(harness.stats().connection_limit_hits, 3);
}

/// Something to warn of: what the line says, what its cure names, and how it is made to happen.
type Warning = (&'static str, &'static [&'static str], fn());

const WARNINGS: [Warning; 12] = [
    ("the first packet came to nothing: a packet of ", &["framing", "max_packet"], || {
        loud().receive([255; 4]);
    }),
    ("the first packet came to nothing: no whole packet came in time", &["packet_timeout"], || {
        let harness = loud();
        harness.receive([0, 4]);
        harness.advance(Duration::from_secs(10));
    }),
    ("the first packet came to nothing: closed by the peer", &["framing"], || {
        let harness = loud();
        harness.receive([0, 4]);
        harness.peer_closes();
    }),
    ("ended: the peer reads too slowly: ", &["max_queued", "write_high_water"], || {
        let harness = loud();
        harness.peer_stalls();
        harness.packet("much");
    }),
    (
        "ended: the peer took no output for write_stall_timeout",
        &["raise it", "write_high_water", "max_queued"],
        || {
            let harness = loud();
            harness.peer_stalls();
            harness.packet("little");
            harness.advance(Duration::from_secs(3600));
        },
    ),
    ("cannot accept, next try in ", &["max_connections"], || {
        let harness = loud();
        harness.fail_next_accept(ErrorKind::OutOfMemory);
        harness.connect();
    }),
    ("the next client has to wait: ", &["max_connections", "idle_timeout"], || {
        drop(Harness::new(options().max_connections(1), Loud::make));
    }),
    ("max_connections is 4000000, but ", &["`ulimit -n`", "max_connections"], || {
        drop(Harness::new(
            options().max_connections(4_000_000).memory_warning(usize::MAX),
            Loud::make,
        ));
    }),
    ("worst case of ", &["max_packet", "max_queued", "memory_warning"], || {
        drop(Harness::new(options().max_connections(2).memory_warning(1), Loud::make));
    }),
    ("backlog of 1000000000 is above ", &["net.core.somaxconn", "backlog"], || {
        drop(Harness::new(options().max_connections(2).backlog(1_000_000_000), Loud::make));
    }),
    ("5 connections that send nothing ", &["first_packet_timeout", "idle_timeout"], || {
        let far = ListenerOptions::new(([0, 0, 0, 0], 5555));
        drop(Harness::new(far.max_connections(5), Loud::make));
    }),
    ("packet_timeout is off: ", &["packet_timeout"], || {
        drop(Harness::new(options().packet_timeout(Duration::MAX), Loud::make));
    }),
];

/// Goal: each warning names the options or the command that cure it. Method: each in a harness of its
/// own.
#[test]
fn each_warning_names_its_cure() {
    collect();
    for (text, cure, happen) in WARNINGS {
        happen();
        let mut said = lines();
        said.retain(|(level, _)| *level <= Level::Warn);
        let [(Level::Warn, line)] = &said[..] else { panic!("{text}: {said:?}") };
        let fields = fields(line, "testing");
        assert!(fields.what.starts_with(text), "{text}: {line}");
        assert!(cure.iter().all(|option| fields.cure.contains(option)), "{cure:?}: {line}");
    }
}

/// Goal: a connection that does not open has a line with its peer, the cause and a cure, at most one a
/// second; one that sends nothing has none: balancers check a server that way all day. Method: each
/// cause, several times in the same second.
#[test]
fn connections_that_do_not_open_are_named() {
    type Way = (&'static str, &'static str, fn(&Harness<Loud>));
    const OTHER: &str = "192.0.2.9:9";
    let proxy = || "10.0.0.7:7".parse::<Endpoint>().unwrap();
    const WAYS: [Way; 6] = [
        ("not opened: byte 0 belongs to no PROXY header", "make the proxy send", |peer| {
            peer.receive("G")
        }),
        ("not opened: it has ended inside its PROXY header", "make the proxy send", |peer| {
            peer.receive("PROXY");
            peer.peer_closes();
        }),
        (
            "not opened: the PROXY header was not complete within opening_timeout of 5s",
            "raise",
            |peer| {
                peer.receive("PROXY");
            },
        ),
        ("not opened: its address may not send a PROXY header", "add its network", |peer| {
            peer.connect_from(OTHER.parse::<Endpoint>().unwrap());
            peer.peer_closes();
        }),
        ("not opened: a newer connection has taken its place", "raise max_opening", |peer| {
            peer.connect_from("10.0.0.8:8".parse::<Endpoint>().unwrap());
        }),
        ("", "", |peer| peer.peer_closes()),
    ];
    collect();
    for (text, cure, way) in WAYS {
        let proxies = Proxy::required().from(["10.0.0.0/8".parse().unwrap()]);
        let harness = Harness::new(options().proxy(proxies).max_opening(3), Loud::make);
        lines();
        harness.advance(Duration::from_secs(2));
        for _ in 0..3 {
            way(&harness.connect_from(proxy()));
        }
        harness.advance(Duration::from_secs(5));
        let said = complaints();
        if text.is_empty() {
            assert_eq!(said, []);
            continue;
        }
        let [(level, line)] = &said[..] else { panic!("{text}: {said:?}") };
        assert_eq!(*level, Level::Warn);
        let fields = fields(line, "testing");
        assert!(fields.what.starts_with(text) && fields.cure.contains(cure), "{line}");
    }
    let harness = Harness::new(options().proxy(Proxy::required()), Loud::make);
    harness.advance(Duration::from_secs(60));
    assert_eq!((harness.stats().opening_timeouts, complaints()), (1, vec![]), "it was silent");
}

/// Goal: a panic makes one line, with its listener, its peer and its text. Method: each callback in
/// turn, each on a separate listener.
#[test]
fn a_panic_makes_one_line() {
    collect();
    let of_a_peer = |text: &str, cause: fn(&Harness<Loud>)| {
        let harness = loud();
        cause(&harness);
        let said = complaints();
        let [(Level::Error, line)] = &said[..] else { panic!("{text}: {said:?}") };
        let fields = fields(line, "testing");
        assert!(fields.peer.starts_with("192.0.2.1:"), "{line}");
        assert_eq!(fields.what, format!("a callback panicked: {text}"));
        assert_eq!(fields.cure, "RUST_BACKTRACE=1 shows where");
    };
    of_a_peer("in a packet", |harness| harness.packet("panic"));
    of_a_peer("in a message", |harness| harness.message(Bomb(false)));
    of_a_peer("in terminate", |harness| harness.packet("panic at the end"));

    let harness = Harness::of(Loud { init_panics: true, panic_at_end: "" });
    assert_eq!(harness.closed(), Some(CloseReason::Panicked));
    let mut said = complaints();
    said.retain(|(level, _)| *level == Level::Error);
    let [(_, line)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(fields(line, "testing").what, "a callback panicked: in init");

    loud().connect_from(NO_HANDLER_FOR.parse::<Endpoint>().unwrap());
    let said = complaints();
    let [(Level::Error, line)] = &said[..] else { panic!("{said:?}") };
    let fields = fields(line, "testing");
    assert_eq!(fields.peer, NO_HANDLER_FOR);
    assert!(fields.what.starts_with("the factory panicked: "), "{line}");
    assert!(fields.what.contains("in the factory"), "{line}");
}

/// Goal: the text of a panic stays on its line and is cut, whatever bytes of a peer it contains.
/// Method: panics that repeat a packet with line ends, an escape sequence, direction marks or a
/// megabyte, and a factory whose panic has several lines.
#[test]
fn the_text_of_a_panic_stays_on_its_line() {
    collect();
    let error = || {
        let is_error = |(level, _): &(Level, String)| *level == Level::Error;
        let errors: Vec<_> = lines().into_iter().filter(is_error).collect();
        let [(_, line)] = &errors[..] else { panic!("{errors:?}") };
        line.clone()
    };
    let says = |text: &str| {
        let options = ListenerOptions::port(5555).framing(LengthField::U32.max_packet(2 << 20));
        Harness::new(options, Loud::make).packet(format!("!{text}"));
        let line = error();
        let what = fields(&line, "testing").what;
        what.split_once(" panicked: the peer says ").expect(&line).1.to_owned()
    };
    for (text, line) in [
        ("\"quotes\", \\ and 日本", "\"quotes\", \\ and 日本"),
        ("one\nERROR two\r\n", "one\\nERROR two\\r\\n"),
        ("\x1b[2J\x1b]0;title\x07\0\x7f", "\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{0}\\u{7f}"),
        ("\u{9b}31m\u{85}\u{2028}\u{202e}", "\\u{9b}31m\\u{85}\\u{2028}\\u{202e}"),
    ] {
        assert_eq!(says(text), line);
    }
    for text in ["x", "\n", "\x1b", "ü"] {
        let line = says(&text.repeat(1_000_000));
        assert!(line.ends_with(" bytes more)") && line.len() < 600, "{line}");
    }

    loud().connect_from(NO_HANDLER_FOR.parse::<Endpoint>().unwrap());
    let line = error();
    assert!(line.contains("in the factory\\n  left: "), "{line}");
    assert!(!line.contains(char::is_control), "{line:?}");
}

/// Goal: a first packet that is invalid, cut off or late has a log line with the protocol that it
/// looks like. Later packets have none. Method: the first bytes of other protocols, each on a
/// separate listener.
#[test]
fn an_invalid_first_packet_is_logged_with_its_likely_protocol() {
    collect();
    let openings: [(&[u8], &str); 7] = [
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "a TLS hello"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "a PROXY protocol header, version 2"),
        (b"PROXY TCP4 192.0.2.1", "a PROXY protocol header, version 1"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "an SSH banner"),
        (b"\x05\x00hello", "a length in the other byte order"),
        (b"\xff\xff\xff", "nothing known"),
    ];
    for (opening, looks) in openings {
        let too_large = loud();
        too_large.receive(opening);
        expect_nonsense(looks, &complaints());

        for ends in [Harness::peer_closes, |it: &Harness<Loud>| it.advance(Duration::from_secs(10))]
        {
            let partial = Harness::new(ListenerOptions::port(5555), Loud::make);
            partial.receive(opening);
            assert_eq!(complaints(), [], "it may still become a packet");
            ends(&partial);
            expect_nonsense(looks, &complaints());

            let later = Harness::new(ListenerOptions::port(5555), Loud::make);
            later.packet("a packet first");
            later.receive(opening);
            ends(&later);
            assert_eq!(complaints(), [], "a later packet has no line");
        }
    }
}

/// Goal: a long partial packet is judged by all of its bytes, not by its first few. Method: a packet
/// whose length, in the other byte order, equals that of its first sixteen bytes.
#[test]
fn a_long_partial_packet_is_not_mistaken_for_a_short_one() {
    collect();
    let harness = Harness::new(ListenerOptions::port(5555), Loud::make);
    harness.receive([&[14, 0][..], &[7; 20]].concat());
    harness.peer_closes();
    expect_nonsense("nothing known", &complaints());
}

#[track_caller]
fn expect_nonsense(looks: &str, said: &[(Level, String)]) {
    let [(Level::Warn, line)] = said else { panic!("{looks}: {said:?}") };
    let fields = fields(line, "testing");
    assert!(fields.peer.starts_with("192.0.2.1:"), "{line}");
    assert!(fields.what.starts_with("the first packet came to nothing: "), "{line}");
    assert!(fields.what.ends_with(&format!(", and it looks like {looks}")), "{line}");
    assert!(fields.cure.starts_with("check framing"), "{line}");
}

/// Goal: no log line contains a byte of a payload, at any level. Method: packets that can be
/// recognised in every notation take every path: answered, too large, cut, timed out, stalled, with
/// an answer that is too large, around panics, and in a drain.
#[test]
fn no_line_holds_a_payload() {
    collect();
    let secret = b"SECRET".repeat(20);
    let whole = || {
        let harness = loud();
        harness.packet(&secret);
        harness
    };
    let (too_large, cut, late) = (whole(), whole(), whole());
    let first = [loud(), loud(), loud()];
    too_large.receive(&secret);
    first[0].receive(&secret);
    for end in [&cut, &late, &first[1], &first[2]] {
        end.receive([0, 200]);
        end.receive(&secret);
    }
    for (closes, waits) in [(&cut, &late), (&first[1], &first[2])] {
        closes.peer_closes();
        waits.advance(Duration::from_secs(10));
    }
    for word in ["panic", "panic at the end", "much", "too much"] {
        let harness = whole();
        harness.peer_stalls();
        harness.receive([harness.framed(&secret), harness.framed(word)].concat());
        harness.packet(&secret);
        harness.advance(Duration::from_secs(7200));
    }
    let (drained, dropped, message) = (whole(), whole(), whole());
    drained.drain();
    dropped.receive([0, 200, b'S', b'E', b'C']);
    message.message(Bomb(false));
    drop((too_large, cut, late, first, drained, dropped, message));

    let said = lines();
    assert!(said.iter().filter(|(level, _)| *level <= Level::Warn).count() >= 6, "{said:?}");
    for (_, line) in &said {
        for notation in ["SEC", "83, 69, 67", "53, 45, 43", "534543", "0x53"] {
            assert!(!line.contains(notation), "a payload: {line}");
        }
    }
}

// ---- slow turns ----

thread_local! {
    /// The harness of this test, in whose callbacks time passes.
    static HARNESS: RefCell<Option<Rc<Harness<Slow>>>> = const { RefCell::new(None) };
}

/// Lets 40 ms pass.
fn take_time() {
    HARNESS.with_borrow(|harness| harness.as_ref().unwrap().stall(ms(40)));
}

/// Takes time for each message and timer, and for each packet that asks for nothing else.
struct Slow;

impl Handler for Slow {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"others" => {
                for name in ["first", "last"] {
                    let options = ListenerOptions::port(5555);
                    ctx.handle().start_listener(name, options, |_| Script::<()>::new()).unwrap();
                }
            }
            b"every" => ctx.handle().every(ms(1_000), take_time).unwrap().detach(),
            b"message" => ctx.address().send(()).unwrap(),
            b"timer" => drop(ctx.send_after(ms(1), ())),
            _ => take_time(),
        }
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        take_time();
        info.default_action()
    }
}

fn slow() -> Rc<Harness<Slow>> {
    let reactor = ReactorOptions::new().slow_turn(ms(20));
    let harness = Rc::new(Harness::with(reactor, ListenerOptions::port(5555), |_| Slow));
    HARNESS.set(Some(Rc::clone(&harness)));
    harness
}

/// Goal: the line about a slow turn names the listener that used the time, in each kind of callback,
/// or the timers of the reactor's own. Method: time passes in a callback, and two listeners have
/// nothing to do.
#[test]
fn a_slow_turn_names_the_listener_that_took_its_time() {
    for cause in ["packet", "message", "timer", "every"] {
        collect();
        let harness = slow();
        harness.packet("others");
        harness.packet(cause);
        harness.advance(ms(1_000));
        let said = complaints();
        let [(Level::Warn, line)] = &said[..] else { panic!("{cause}: {said:?}") };
        if cause == "every" {
            let start =
                "reactor: a turn took 40ms, most of it in calls of `every`: slow_turn is 20ms";
            assert!(line.starts_with(start), "{line}");
        } else {
            let fields = fields(line, "testing");
            let what = "a turn took 40ms, most of it here: slow_turn is 20ms";
            assert_eq!((fields.peer, fields.what), ("", what));
            assert!(fields.cure.contains("slow_turn"), "{line}");
        }
        HARNESS.take();
    }
}

/// Goal: slow turns make at most one line a second. Method: a hundred slow turns in four seconds.
#[test]
fn slow_turns_have_one_line_a_second() {
    collect();
    let harness = slow();
    for _ in 0..100 {
        harness.packet("slow");
    }
    assert_eq!((harness.elapsed(), complaints().len()), (ms(4_000), 4));
    HARNESS.take();
}
