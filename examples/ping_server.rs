//! The smallest server. It answers `ping` with `pong`. It answers `stop` with `ok`, and closes the
//! connection.
//!
//! ```text
//! cargo run --release --example ping_server
//! cargo run --release --example ping_server -- --listen localhost:6000
//! ```
//!
//! It prints a command to try in another terminal. The first Ctrl-C or SIGTERM drains, the second
//! one ends all connections at once. The log goes to stderr. `RUST_LOG=debug` shows every
//! connection.

#[path = "common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
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

/// Answers `ping` with `pong`. Answers `stop` with `ok`, and closes the connection.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5555")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("ping_server", serve(&arguments))
}

fn serve(arguments: &Arguments) -> Result<(), condor::Error> {
    let mut reactor = Reactor::new()?;
    let options = ListenerOptions::new(arguments.listen);
    let listener = reactor.start_listener("ping", options, |_peer| Ping)?;
    common::drain_on_signals(reactor.handle())?;
    let addr = listener.local_addr().as_inet().unwrap_or(arguments.listen);
    let (host, port) = (addr.ip(), addr.port());
    common::say(format_args!("listening on {addr}; from another terminal, with bash:"));
    common::say(format_args!(
        r"  exec 3<>/dev/tcp/{host}/{port}; printf '\0\4ping\0\4stop' >&3; cat <&3 | od -c"
    ));
    reactor.run()
}
