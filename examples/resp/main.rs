//! A server that speaks the protocol of Redis: strings that may expire, and publish and subscribe.
//!
//! ```text
//! cargo run --release --example resp
//! redis-cli set greeting hello ex 60
//! redis-cli get greeting
//! redis-cli subscribe news          # and in another terminal: redis-cli publish news rain
//! ```
//!
//! What it shows:
//!
//! - Nested framing with state: `protocol` finds requests in arrays of strings of any length.
//! - State that all connections of a thread share, without a lock: `store`.
//! - A channel is a `Group`, in `channels`: a message is framed once for all subscribers.
//! - A value is kept as it is sent. A long one is sent without a copy: `strings`.
//!
//! It keeps nothing on disk, evicts nothing, and knows no passwords. So it is for clients that are
//! trusted, as Redis is by default.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use condor::{Error, Framing, ListenerOptions, Raw, Reactor};

use client::{Client, Server};
use protocol::{MAX_PACKET, Requests};

mod channels;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod protocol;
mod store;
mod strings;

/// A client that has so many bytes of answers to read gets no more answers for now. A subscriber that
/// has is disconnected.
const HIGH_WATER: usize = 32 * 1024 * 1024;

/// A server that speaks the protocol of Redis.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:6379")]
    listen: SocketAddr,
    /// The most connections at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
}

fn main() -> ExitCode {
    common::exit_code("resp", serve(&Arguments::parse()))
}

fn serve(arguments: &Arguments) -> Result<(), Error> {
    common::start_log("info");
    let server = Rc::new(RefCell::new(Server::default()));
    let mut reactor = Reactor::new()?;
    let options = options(arguments.listen).max_connections(arguments.max_connections as usize);
    let listener = reactor.start_listener("resp", options, move |_peer| Client::new(&server))?;
    common::drain_on_signals(reactor.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    reactor.run()
}

/// Answers are put together by the handlers, so they leave as they are.
fn options(listen: SocketAddr) -> ListenerOptions {
    ListenerOptions::new(listen)
        .framing(Framing::split(Framing::custom(Requests), Raw))
        .max_packet(MAX_PACKET)
        .packet_timeout(Duration::from_secs(60)) // a long value over a slow line
        .write_high_water(HIGH_WATER)
        .write_low_water(HIGH_WATER / 2)
        .max_queued(HIGH_WATER + 2 * MAX_PACKET) // the longest value fits, and one more
        .memory_warning(usize::MAX) // the store has no limit either
}
