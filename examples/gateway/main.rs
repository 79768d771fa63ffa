//! A gateway: clients on one side, backends on the other.
//!
//! ```text
//! cargo run --release --example echo -- --listen :7001
//! cargo run --release --example echo -- --listen :7002
//! cargo run --release --example gateway -- --listen :5558 --backend 127.0.0.1:7001,127.0.0.1:7002
//! cargo run --release --example call -- :5558 hello
//! ```
//!
//! With `--links N`, the default, the packets of all clients share N connections on each shard, which
//! are kept up: see `links`. It is for backends that answer each packet with one packet, in order. The
//! backends share the links evenly. If there are more backends than links, a link whose backend does
//! not answer goes to another one.
//!
//! With `--pair` it is a proxy for any protocol over TCP: see `pair`. The first backend that answers is
//! taken.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use condor::{ConnectorOptions, Error, Handle, ListenerHandle, ReactorOptions, Shards};

#[path = "../common/mod.rs"]
mod common;
mod links;
mod pair;
#[cfg(all(test, feature = "sim"))]
mod tests;

/// Connects clients with backends.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5558")]
    listen: SocketAddr,
    /// The backends, with commas between them; `:PORT` is on 127.0.0.1
    #[arg(long, value_name = "HOST:PORT", required = true, value_delimiter = ',',
          value_parser = backend)]
    backend: Vec<String>,
    /// Each client gets a connection of its own, to the first backend that answers, and bytes go both
    /// ways as they are
    #[arg(long, conflicts_with = "links")]
    pair: bool,
    /// The packets of all clients share so many connections on each shard
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    links: usize,
    /// Width of the length prefix in bytes; `--pair` needs none
    #[arg(long, value_name = "1|2|4", default_value = "2",
          value_parser = PossibleValuesParser::new(["1", "2", "4"])
              .map(|width| width.as_bytes()[0] - b'0'))]
    len: u8,
    /// How long a backend may take to accept a connection and, without `--pair`, to answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// The most clients at once
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_connections: usize,
    /// How long to poll without blocking after the last event; 0 turns it off
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    busy_poll: u64,
    /// Reactors, each on a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_024))]
    shards: usize,
}

fn backend(text: &str) -> Result<String, String> {
    let host = if text.starts_with(':') { "127.0.0.1" } else { "" };
    let backend = format!("{host}{text}");
    match ConnectorOptions::to(&*backend).check().errors.first() {
        Some(error) => Err(format!("{error}, such as 127.0.0.1:5555 or localhost:5555")),
        None => Ok(backend),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("gateway", serve(&arguments))
}

fn serve(arguments: &Arguments) -> Result<(), Error> {
    // Each client needs a descriptor, and with `--pair` two.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        common::complain(format_args!("gateway: cannot raise the limit on open files: {error}"));
    }
    let reactor = ReactorOptions::new().busy_poll(Duration::from_micros(arguments.busy_poll));
    let shards = Shards::with_options(arguments.shards, reactor)?;
    let listener = start(&shards.handle(), arguments)?;
    common::drain_on_signals(shards.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    shards.run()
}

fn start(handle: &Handle, arguments: &Arguments) -> Result<ListenerHandle<()>, Error> {
    if arguments.pair { pair::start(handle, arguments) } else { links::start(handle, arguments) }
}
