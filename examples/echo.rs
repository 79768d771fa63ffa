//! Sends every packet back. Checks and benches use this server.
//!
//! ```text
//! cargo run --release --example echo -- --listen 127.0.0.1:5555 --stats 1
//! cargo run --release --example call -- 127.0.0.1:5555 hello             # in another terminal
//! cargo run --release --example echo -- --unix /tmp/echo.sock
//! cargo run --release --example call -- unix:/tmp/echo.sock hello
//! ```
//!
//! Its handler is the one of Condor's own test suite. After it has sent back the packet
//! `send_and_stop`, the connection closes. If a packet times out, the handler sends back the bytes
//! that had arrived, with the length prefix, as one packet. The connection stays open. With
//! `--first-packet` it closes instead.
//!
//! With `--proxy` it serves clients behind a proxy such as HAProxy (`send-proxy-v2`). The log has the
//! address of each client: `RUST_LOG=debug`.
//!
//! The first SIGTERM or SIGINT drains, the second one ends all connections at once. If systemd or a
//! parent process passes a listening socket (`LISTEN_FDS`), TCP or Unix, the server uses it instead of
//! `--listen`. If stdout is closed, the server stops printing but does not end. `--help` lists the
//! other options.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use condor::{
    Action, CloseReason, Context, Error, Handle, Handler, Info, IpNetwork, LengthField,
    ListenerOptions, LoopStats, Proxy, ReactorOptions, Shards,
};
use listenfd::ListenFd;

#[path = "common/mod.rs"]
mod common;

struct Echo {
    /// A timeout ends the connection.
    strict: bool,
}

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _ctx: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"send_and_stop" => Action::send_and_stop(packet, CloseReason::Normal),
            _ => Action::send(packet),
        }
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _ctx: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Timeout(buffer) if !self.strict => Action::send(buffer),
            other => other.default_action(),
        }
    }
}

/// An [`Echo`] that uses the processor for this long for each packet.
struct Busy(Duration);

impl Handler for Busy {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _ctx: &mut Context<'_, ()>) -> Action<'a> {
        spin(self.0);
        Action::send(packet)
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures how long it runs")]
fn spin(duration: Duration) {
    let began = Instant::now();
    while began.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// Sends every packet back.
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5555")]
    listen: SocketAddr,
    /// Listen on a Unix socket at this path instead
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    unix: Option<PathBuf>,
    /// The access rights of the path
    #[arg(long, value_name = "OCTAL", default_value = "600", value_parser = mode,
          requires = "unix")]
    unix_mode: u32,
    /// Take only connections from proxies in these networks, which begin with a PROXY header.
    /// Networks do not apply to a Unix socket: each of its peers sends a header
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    proxy: Vec<IpNetwork>,
    /// Width of the length prefix in bytes: 1, 2 or 4
    #[arg(long, default_value_t = 2, value_parser = width)]
    len: u8,
    /// How long a packet may take from its first byte to its last
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// How long a connection may take to its first packet; a timeout then closes the connection
    /// [default: for ever]
    #[arg(long, value_name = "MILLISECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    first_packet: Option<u64>,
    /// The most connections at once
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_connections: usize,
    /// The longest packet [default: the largest value of the length, at most 1 MiB]
    #[arg(long, value_name = "BYTES",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_packet: Option<usize>,
    /// How long a peer may send nothing before its connection is closed [default: no limit]
    #[arg(long, value_name = "MILLISECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    idle: Option<u64>,
    /// After how long without traffic the kernel probes the peer (TCP keepalive) [default: never]
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    keepalive: Option<u64>,
    /// Reactors, each on a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_024))]
    shards: usize,
    /// How long to poll without blocking after the last event; 0 turns it off
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    busy_poll: u64,
    /// Use the processor for this long for each packet
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    work: u64,
    /// How long a turn of the event loop may take; 0 is without a limit
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 2000)]
    turn_budget: u64,
    /// Print a line of counters this often [default: never]
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    stats: Option<u64>,
}

fn width(text: &str) -> Result<u8, String> {
    match text {
        "1" | "2" | "4" => Ok(text.as_bytes()[0] - b'0'),
        _ => Err(String::from("a length prefix has 1, 2 or 4 bytes")),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(String::from("it is an octal number of at most 777, such as 660")),
    }
}

/// The socket that systemd or a parent process passes on: TCP or Unix.
fn inherited() -> Result<Option<OwnedFd>, Error> {
    let failed = |source| Error::Poll { what: "take the socket of LISTEN_FDS", source };
    let mut passed_on = ListenFd::from_env();
    if let Ok(Some(socket)) = passed_on.take_unix_listener(0) {
        return Ok(Some(socket.into()));
    }
    Ok(passed_on.take_tcp_listener(0).map_err(failed)?.map(OwnedFd::from))
}

impl Options {
    fn listener(&self) -> Result<ListenerOptions, Error> {
        let options = match inherited()? {
            Some(socket) => ListenerOptions::from_fd(socket),
            None => match &self.unix {
                Some(path) => ListenerOptions::unix(path).unix_mode(self.unix_mode),
                None => ListenerOptions::new(self.listen),
            },
        };
        let mut options = options
            .framing(LengthField::new(self.len))
            .packet_timeout(Duration::from_millis(self.timeout))
            .max_connections(self.max_connections);
        if !self.proxy.is_empty() {
            options = options.proxy(Proxy::required().from(self.proxy.iter().copied()));
        }
        if let Some(bytes) = self.max_packet {
            options = options.max_packet(bytes);
        }
        if let Some(first) = self.first_packet {
            options = options.first_packet_timeout(Duration::from_millis(first));
        }
        if let Some(idle) = self.idle {
            options = options.idle_timeout(Duration::from_millis(idle));
        }
        if let Some(seconds) = self.keepalive {
            options = options.keepalive(Duration::from_secs(seconds));
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    common::start_log("warn");
    common::exit_code("echo", serve(&options))
}

fn serve(options: &Options) -> Result<(), Error> {
    // Each connection needs a descriptor. The usual limit of 1,024 would make a larger
    // `--max-connections` useless.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        common::complain(format_args!("echo: cannot raise the limit on open files: {error}"));
    }
    let reactor = ReactorOptions::new()
        .busy_poll(Duration::from_micros(options.busy_poll))
        .turn_budget(Duration::from_micros(options.turn_budget));
    let work = Duration::from_micros(options.work);
    let shards = Shards::with_options(options.shards, reactor)?;
    let handle = shards.handle();
    let strict = options.first_packet.is_some();
    let listener = match options.work {
        0 => shards.start_listener("echo", options.listener()?, move |_peer| Echo { strict })?,
        _ => shards.start_listener("echo", options.listener()?, move |_peer| Busy(work))?,
    };
    let drain = common::drain_on_signals(handle.clone())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    if let Some(seconds) = options.stats {
        let handle = handle.clone();
        thread::spawn(move || watch(&handle, Duration::from_secs(seconds)));
    }
    let outcome = shards.run();
    let drain = drain.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(report) = drain.and_then(|drain| drain.report()) {
        common::say(&report);
        for slow in &report.slowest {
            let (peer, after) = (&slow.peer_addr, slow.after);
            common::complain(format_args!("{peer} after {after:?}: {}", slow.reason));
        }
    }
    let stats = handle.stats();
    common::say(format_args!(
        "made={} terminated={} register_errors={}",
        stats.made, stats.terminated, stats.register_errors
    ));
    if !options.proxy.is_empty() {
        common::say(format_args!(
            "health_checks={} bad_headers={} untrusted={} opening_timeouts={}",
            stats.health_checks, stats.bad_headers, stats.untrusted, stats.opening_timeouts
        ));
    }
    outcome
}

/// Prints a line of counters for each period, and the column names before every 20th line.
fn watch(handle: &Handle, period: Duration) {
    let mut before = handle.stats();
    for line in 0_u32.. {
        thread::sleep(period);
        let now = handle.stats();
        let mut turns = LoopStats::default();
        handle.loop_stats().iter().for_each(|shard| turns.merge(shard));
        if line % 20 == 0 {
            common::say(format_args!(
                "{:>7} {:>9} {:>11} {:>11} {:>9} {:>12} {:>12}",
                "open", "accepts/s", "packets/s", "bytes/s", "panics", "turn p50 us", "turn p99 us"
            ));
        }
        let rate = |now: u64, before: u64| now.saturating_sub(before) / period.as_secs();
        common::say(format_args!(
            "{:>7} {:>9} {:>11} {:>11} {:>9} {:>12} {:>12}",
            now.open,
            rate(now.accepted, before.accepted),
            rate(now.packets_in, before.packets_in),
            rate(now.bytes_in, before.bytes_in),
            now.panics,
            turns.turn_nanos.quantile(0.5) / 1_000,
            turns.turn_nanos.quantile(0.99) / 1_000,
        ));
        before = now;
    }
}
