//! What is said in the log, how often, and what never is.
//!
//! A line is logged on the thread on which it happens, so each test collects those of its own.
#![cfg(panic = "unwind")]

use std::cell::RefCell;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use condor::testing::Harness;
use condor::{Accepted, LengthField, ReactorOptions};
use condor::{Action, CloseReason, Context, Handler, Info, ListenerOptions, Reactor};
use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local!(static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) });

struct Collector;

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("condor")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            LINES.with_borrow_mut(|lines| lines.push((record.level(), line)));
        }
    }

    fn flush(&self) {}
}

/// Starts to collect everything, the smallest things included.
fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::set_logger(&Collector).unwrap());
    log::set_max_level(LevelFilter::Trace);
    LINES.take();
}

/// What was logged on this thread since last asked, but for the starts and stops of the harness's own
/// listener.
fn lines() -> Vec<(Level, String)> {
    let mut lines = LINES.take();
    lines.retain(|(_, line)| !line.starts_with("listener \"testing\": "));
    lines
}

/// The same without what connections and listeners do in the ordinary course of things.
fn complaints() -> Vec<(Level, String)> {
    lines().into_iter().filter(|(_, line)| !is_ordinary(line)).collect()
}

fn is_ordinary(line: &str) -> bool {
    const LISTENERS: [&str; 3] = ["\": listening on ", "\": worst case of ", "\": stopped, "];
    line.ends_with(" connected")
        || line.contains(" ended: ")
        || LISTENERS.iter().any(|what| line.contains(what))
}

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

/// Sends packets back, or does what they say.
struct Loud {
    init_panics: bool,
    last_word: &'static str,
}

impl Loud {
    fn make(peer: &Accepted<'_>) -> Self {
        assert_ne!(peer.peer_addr().to_string(), NO_HANDLER_FOR, "in the factory");
        Self { init_panics: false, last_word: "" }
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
                self.last_word = "in terminate";
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
        assert!(self.last_word.is_empty(), "{}", self.last_word);
    }
}

fn options() -> ListenerOptions {
    ListenerOptions::port(5555).max_packet(1024).write_stall_timeout(Duration::from_secs(3600))
}

fn loud() -> Harness<Loud> {
    Harness::new(options().max_connections(10_000), Loud::make)
}

/// What can happen as often as a peer likes: its line, its level, and how it is made to happen. None
/// takes more than a few milliseconds.
type Cause = (&'static str, Level, fn(&Harness<Loud>));

const CAUSES: [Cause; 7] = [
    (" panicked: in a packet", Level::Error, |harness| harness.connect().packet("panic")),
    ("the factory panicked: ", Level::Error, |harness| {
        harness.connect_from(NO_HANDLER_FOR.parse().unwrap());
    }),
    ("the drop of a message panicked", Level::Error, |harness| {
        let client = harness.connect();
        let address = client.address();
        client.peer_resets();
        address.send(Bomb(true)).unwrap();
        harness.run();
    }),
    ("the first packet of ", Level::Warn, |harness| harness.connect().receive("GET / HTTP/1.1")),
    ("the peer reads too slowly", Level::Warn, |harness| {
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

/// Has everything happen, three times each, and fails unless each has one line.
#[track_caller]
fn expect_one_line_each(harness: &Harness<Loud>) {
    for (text, level, happen) in CAUSES {
        (0..3).for_each(|_| happen(harness));
        let said = complaints();
        let [(at, line)] = &said[..] else { panic!("{text}: {said:?}") };
        assert!(line.starts_with("testing: ") && line.contains(text), "{text}: {line}");
        assert_eq!(*at, level, "{line}");
    }
}

/// Goal: there is one line a second at most for each cause and listener; causes and listeners do
/// not hide each other's. Method: each cause three times in a second, in two seconds and on two
/// listeners; in between, everything once more just before its second is over.
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
    assert!(other.stats().panics >= 9, "what is not said is counted all the same");
}

/// Goal: a panic makes one line, which says where, whose and what. Method: each callback in turn,
/// on a listener of its own.
#[test]
fn a_panic_makes_one_line() {
    collect();
    let of_a_peer = |text: &str, cause: fn(&Harness<Loud>)| {
        let harness = loud();
        cause(&harness);
        let said = complaints();
        let [(Level::Error, line)] = &said[..] else { panic!("{text}: {said:?}") };
        let rest = line.strip_prefix("testing: a callback of 192.0.2.1:").expect(line);
        let (port, what) = rest.split_once(' ').unwrap();
        assert!(port.parse::<u16>().is_ok(), "{line}");
        assert_eq!(what, format!("panicked: {text}"));
    };
    of_a_peer("in a packet", |harness| harness.packet("panic"));
    of_a_peer("in a message", |harness| harness.message(Bomb(false)));
    of_a_peer("in terminate", |harness| harness.packet("panic at the end"));

    let harness = Harness::of(Loud { init_panics: true, last_word: "" });
    assert_eq!(harness.closed(), Some(CloseReason::Panicked));
    let said = complaints();
    assert!(said.len() == 1 && said[0].1.ends_with(" panicked: in init"), "{said:?}");

    loud().connect_from(NO_HANDLER_FOR.parse().unwrap());
    let said = complaints();
    let [(Level::Error, line)] = &said[..] else { panic!("{said:?}") };
    assert!(line.starts_with("testing: the factory panicked: "), "{line}");
    assert!(line.contains("in the factory"), "{line}");
}

/// Goal: the text of a panic stays on its line and cannot fill the log, whatever a peer has put into
/// it. Method: panics that repeat a packet with line ends, an escape sequence, marks of direction, and
/// a megabyte; a factory whose panic has several lines.
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
        line.split_once(" panicked: the peer says ").expect(&line).1.to_owned()
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

    loud().connect_from(NO_HANDLER_FOR.parse().unwrap());
    let line = error();
    assert!(line.contains("in the factory\\n  left: "), "{line}");
    assert!(!line.contains(char::is_control), "{line:?}");
}

/// Goal: a first packet that came to nothing has a line that says what its bytes look like, however
/// it came to nothing; later ones have none. Method: other protocols' openings, too large for a
/// packet, cut off, and timed out; each on a listener of its own.
#[test]
fn nonsense_is_said_to_look_like_something() {
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
            assert_eq!(complaints(), [], "it has spoken our protocol before");
        }
    }
}

#[track_caller]
fn expect_nonsense(looks: &str, said: &[(Level, String)]) {
    let [(Level::Warn, line)] = said else { panic!("{looks}: {said:?}") };
    assert!(line.starts_with("testing: the first packet of 192.0.2.1:"), "{line}");
    assert!(line.ends_with(&format!(" came to nothing; it looks like {looks}")), "{line}");
}

/// Goal: no line holds a byte of what peers send, at any level. Method: packets that are recognised
/// in every notation go every way there is: answered, too large, cut, timed out, stalled, answered
/// with too much, around panics, and through a drain.
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

/// Goal: that a listener starts and stops is said, with its name and address. Method: a reactor that
/// is driven through both.
#[test]
fn a_listener_is_announced_and_missed() {
    collect();
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.start_listener("door", ListenerOptions::port(0), Loud::make).unwrap();
    let addr = listener.local_addr();
    let expected = (Level::Info, format!("listener \"door\": listening on {addr}"));
    assert_eq!(lines(), [expected]);
    let drain = listener.stop().unwrap();
    while drain.report().is_none() {
        reactor.turn(Some(Duration::from_millis(10))).unwrap();
    }
    let said = lines();
    let [(Level::Info, line)] = &said[..] else { panic!("{said:?}") };
    assert!(line.starts_with("listener \"door\": stopped, "), "{line}");
}

// ---- slow turns: the one thing here that takes real time ----

/// Takes its time, for a packet, a message or a timer.
struct Slow(Duration);

impl Slow {
    fn take(&self) {
        thread::sleep(self.0);
    }
}

impl Handler for Slow {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"message" => ctx.address().send(()).unwrap(),
            b"timer" => drop(ctx.send_after(Duration::from_millis(1), ())),
            _ => self.take(),
        }
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        self.take();
        info.default_action()
    }
}

#[expect(clippy::disallowed_methods, reason = "a reactor's own clock cannot be moved by hand")]
fn now() -> Instant {
    Instant::now()
}

/// Goal: the line about a slow turn names the listener that took its time, whatever for. Method:
/// two listeners, of which one blocks in a packet, a message, a timer; again, should the machine
/// have made another turn slow just before.
#[test]
fn a_slow_turn_names_the_listener_that_took_its_time() {
    for cause in ["packet", "message", "timer"] {
        collect();
        let options = ReactorOptions::new().slow_turn(Duration::from_millis(20));
        let mut reactor = Reactor::with_options(options).unwrap();
        let mut start = |name: &str, takes: u64| {
            let takes = Duration::from_millis(takes);
            let options = ListenerOptions::port(0);
            let listener = reactor.start_listener(name, options, move |_| Slow(takes)).unwrap();
            TcpStream::connect(listener.local_addr()).unwrap()
        };
        let mut clients = [start("first", 0), start("lazy", 40), start("last", 0)];
        let deadline = now() + Duration::from_secs(30);
        while !complaints().iter().any(|(level, line)| {
            *level == Level::Warn
                && line.starts_with("a turn took ")
                && line.ends_with("more than 20ms, most of it for \"lazy\"")
        }) {
            assert!(now() < deadline, "nobody said that a {cause} was slow");
            for client in &mut clients {
                client.write_all(&framed(cause)).unwrap();
            }
            for _ in 0..3 {
                reactor.turn(Some(Duration::from_millis(2))).unwrap();
            }
        }
    }
}

fn framed(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// Goal: of slow turns, too, there is one line a second at most. Method: a reactor that finds every
/// turn slow, turned for a second and a half.
#[test]
fn slow_turns_have_one_line_a_second() {
    collect();
    let mut reactor =
        Reactor::with_options(ReactorOptions::new().slow_turn(Duration::ZERO)).unwrap();
    let (start, mut turns) = (now(), 0);
    while start.elapsed() < Duration::from_millis(1500) {
        reactor.turn(Some(Duration::from_millis(1))).unwrap();
        turns += 1;
    }
    let most = start.elapsed().as_secs() + 1;
    let said = lines().len() as u64;
    assert!(turns > most && (1..=most).contains(&said), "{said} lines for {turns} slow turns");
}
