//! An authoritative DNS server over TCP (RFC 7766). DNS over TCP has a length of two bytes in front
//! of each message, which is the default framing of this library.
//!
//! ```text
//! cargo run --release --example dns_tcp -- --zone examples/sample.zone
//! dig @127.0.0.1 -p 5300 +tcp www.example.org
//! dig @127.0.0.1 -p 5300 +tcp +short chain1.example.org AAAA
//! dig @127.0.0.1 -p 5300 +tcp nothing.example.org          # NXDOMAIN, with the SOA record
//! ```
//!
//! What it shows:
//!
//! - Pipelined queries are answered in one write, wherever TCP splits them.
//! - The handler's answer borrows from the handler, so it is copied once.
//! - Idle connections are closed, so that silent clients do not occupy the slots.
//! - A drain on SIGTERM answers every query that has arrived.
//!
//! `zone.rs` has the records of the zone, and `answer.rs` makes messages of them. Both work on bytes
//! without a socket, so their tests need no socket. The whole server is in this file.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use condor::{Action, CloseReason, Context, Handle, Handler, LengthField, ListenerOptions, Shards};

use crate::answer::{Answers, Reply};
use crate::zone::Zone;

mod answer;
#[path = "../common/mod.rs"]
mod common;
mod entries;
mod zone;

/// An authoritative DNS server over TCP.
#[derive(Debug, Parser)]
struct Arguments {
    /// The zone file to serve
    #[arg(long, value_name = "FILE")]
    zone: PathBuf,
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5300")]
    listen: SocketAddr,
    /// Reactors, each on a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1_024))]
    shards: u16,
    /// How long a client may send nothing before its connection is closed
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    idle: u64,
    /// Connections at once; further clients wait
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_connections: usize,
    /// Print counters this often
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    stats: Option<u64>,
}

/// One client's connection.
struct Client {
    answers: Arc<Answers>,
    /// The current answer. The buffer is used again for each query.
    out: Vec<u8>,
}

impl Client {
    /// The largest buffer that a connection keeps, in bytes. Most answers need less.
    const BUFFER_KEPT: usize = 4096;
}

impl Handler for Client {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        if self.out.capacity() > Self::BUFFER_KEPT {
            self.out = Vec::new();
        }
        match self.answers.answer(packet, &mut self.out) {
            Reply::Send => Action::send(&self.out),
            Reply::Ignore => Action::Continue,
            Reply::HangUp => Action::stop(CloseReason::Custom("a message without an id")),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("dns_tcp", run(&arguments))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let answers = Arc::new(Answers::new(Zone::load(&arguments.zone)?)?);
    // Each connection needs a descriptor. The usual limit of 1,024 is below `--max-connections`.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let options = ListenerOptions::new(arguments.listen)
        .framing(LengthField::U16)
        .idle_timeout(Duration::from_millis(arguments.idle))
        .max_connections(arguments.max_connections)
        .max_queued(256 * 1024); // answers are small, so such a queue means a client that is gone
    let shards = Shards::new(arguments.shards.into())?;
    let listener = shards.start_listener("dns", options, move |_| Client {
        answers: Arc::clone(&answers),
        out: Vec::new(),
    })?;
    common::drain_on_signals(shards.handle())?;
    if let Some(seconds) = arguments.stats {
        show_stats(shards.handle(), Duration::from_secs(seconds));
    }
    common::say(format_args!("listening on {}", listener.local_addr()));
    shards.run()?;
    Ok(())
}

/// Prints a line of counters for each period, until the process ends.
fn show_stats(handle: Handle, period: Duration) {
    std::thread::spawn(move || {
        let mut before = handle.stats();
        loop {
            std::thread::sleep(period);
            let stats = handle.stats();
            common::say(format_args!(
                "{} connections open, {} accepted; {} queries, {} of them in the last {} s",
                stats.open,
                stats.accepted,
                stats.packets_in,
                stats.packets_in - before.packets_in,
                period.as_secs(),
            ));
            before = stats;
        }
    });
}
