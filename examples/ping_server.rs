//! The smallest server: it answers `ping` with `pong`, and `stop` with `ok` and the end.
//!
//! ```text
//! cargo run --release --example ping_server
//! ```
//!
//! It prints a line to try it with from another terminal.

#![expect(clippy::print_stdout, reason = "a program may")]

use condor::{Action, CloseReason, Context, Handler, ListenerOptions, Reactor};

struct Ping;

impl Handler for Ping {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _ctx: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"ping" => Action::send("pong"),
            b"stop" => Action::send_and_stop("ok", CloseReason::Normal),
            _ => Action::stop(CloseReason::Custom("unknown packet")),
        }
    }
}

fn main() -> Result<(), condor::Error> {
    let mut reactor = Reactor::new()?;
    reactor.start_listener("ping", ListenerOptions::port(5555), |_peer| Ping)?;
    println!("listening on 127.0.0.1:5555; from another terminal, with bash:");
    println!(r"  exec 3<>/dev/tcp/127.0.0.1/5555; printf '\0\4ping\0\4stop' >&3; cat <&3 | od -c");
    reactor.run()
}
