//! Log lines about listeners, and about turns that take real time.
//!
//! A line is logged on the thread that causes it, so each test collects the lines of its own thread.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use condor::{Action, Context, Handler, Info, ListenerOptions, Reactor, ReactorOptions};
use log::Level;

use crate::lines::{collect, complaints, fields, lines};
use crate::support::{Script, framed, now};

/// Goal: the start and the stop of a listener are logged, with its name and address. Method: a
/// reactor that is turned through both.
#[test]
fn the_start_and_the_stop_of_a_listener_are_logged() {
    collect();
    let mut reactor = Reactor::new().unwrap();
    let listener =
        reactor.start_listener("door", ListenerOptions::port(0), |_| Script::<()>::new()).unwrap();
    let addr = listener.local_addr();
    let expected = (Level::Info, format!("listener \"door\": listening on {addr}"));
    assert_eq!(lines(), [expected]);
    let drain = listener.stop().unwrap();
    while drain.report().is_none() {
        reactor.turn(Some(Duration::from_millis(10))).unwrap();
    }
    let said = lines();
    let [(Level::Info, line)] = &said[..] else { panic!("{said:?}") };
    assert!(line.starts_with("listener \"door\": stopped: "), "{line}");
}

// ---- slow turns, which take real time ----

/// Blocks for a while in a packet, a message or a timer.
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

/// Goal: the line about a slow turn names the listener that used the time, in each kind of callback.
/// Method: one listener blocks in a packet, a message or a timer, others do not. The test repeats
/// this if another slow turn, caused by the machine, was logged just before.
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
            *level == Level::Warn && line.starts_with("listener \"lazy\": a turn took ") && {
                let fields = fields(line, "lazy");
                fields.peer.is_empty()
                    && fields.cure.contains("slow_turn")
                    && fields.what.ends_with(", most of it here: slow_turn is 20ms")
            }
        }) {
            assert!(now() < deadline, "no line about a slow {cause}");
            for client in &mut clients {
                client.write_all(&framed(cause.as_bytes())).unwrap();
            }
            for _ in 0..3 {
                reactor.turn(Some(Duration::from_millis(2))).unwrap();
            }
        }
    }
}

/// Goal: slow turns make at most one line a second. Method: a reactor for which every turn is slow,
/// turned for a second and a half.
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
