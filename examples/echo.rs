//! Sends every packet back: the server that checks and benches are run against.
//!
//! ```text
//! cargo run --release --example echo -- --listen 127.0.0.1:5555
//! ```
//!
//! Its handler is that of Condor's own test suite: the packet `send_and_stop` comes back and the
//! connection closes; when a packet times out, what had arrived of it comes back as one packet,
//! length prefix included, and the connection goes on. SIGTERM or SIGINT drains; the second one
//! ends everything at once. `--help` tells the rest.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use condor::{
    Action, CloseReason, Context, Error, Handler, Info, LengthField, ListenerOptions, Reactor,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

struct Echo;

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _ctx: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"send_and_stop" => Action::send_and_stop(packet, CloseReason::Normal),
            _ => Action::send(packet),
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, ()>,
        _ctx: &mut Context<'_, ()>,
    ) -> Action<'a> {
        match info {
            Info::Timeout(buffer) => Action::send(buffer),
            other => other.default_action(),
        }
    }
}

/// Sends every packet back.
#[derive(Debug, Parser)]
struct Options {
    /// Address and port to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5555")]
    listen: SocketAddr,
    /// Width of the length prefix in bytes: 1, 2 or 4
    #[arg(long, default_value_t = 2, value_parser = width)]
    len: u8,
    /// How long a packet may take from its first byte to its last
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000)]
    timeout: u64,
    /// The most connections at once
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_connections: usize,
    /// The longest packet [default: what the length can say, at most 1 MiB]
    #[arg(long, value_name = "BYTES")]
    max_packet: Option<usize>,
    /// How long a peer may be silent [default: for ever]
    #[arg(long, value_name = "MILLISECONDS")]
    idle: Option<u64>,
}

fn width(text: &str) -> Result<u8, String> {
    match text {
        "1" | "2" | "4" => Ok(text.as_bytes()[0] - b'0'),
        _ => Err(String::from("a length prefix has 1, 2 or 4 bytes")),
    }
}

impl Options {
    fn listener(&self) -> ListenerOptions {
        let mut options = ListenerOptions::new(self.listen)
            .framing(LengthField::new(self.len))
            .packet_timeout(Duration::from_millis(self.timeout))
            .max_connections(self.max_connections);
        if let Some(bytes) = self.max_packet {
            options = options.max_packet(bytes);
        }
        if let Some(idle) = self.idle {
            options = options.idle_timeout(Duration::from_millis(idle));
        }
        options
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), Error> {
    // Without it `--max-connections` would mean little.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        eprintln!("echo: cannot raise the limit on open files: {error}");
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|source| Error::Poll { what: "listen for signals", source })?;
    let mut reactor = Reactor::new()?;
    let handle = reactor.handle();
    let listener = reactor.start_listener("echo", options.listener(), |_peer| Echo)?;
    println!("listening on {}", listener.local_addr());
    let (report, reports) = mpsc::channel();
    thread::spawn({
        let handle = handle.clone();
        move || {
            // The second signal finds the reactor draining, and forces it.
            for drain in signals.forever().map_while(|_signal| handle.shutdown().ok()) {
                let _ = report.send(drain);
            }
        }
    });
    reactor.run()?;
    if let Some(report) = reports.try_recv().ok().and_then(|drain| drain.report()) {
        println!("{report}");
    }
    let stats = handle.stats();
    println!("made={} terminated={}", stats.made, stats.terminated);
    Ok(())
}
