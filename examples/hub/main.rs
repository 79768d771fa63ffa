//! A hub: clients publish lines to topics, and get what others publish.
//!
//! ```text
//! cargo run --release --example hub -- --listen 127.0.0.1:5558
//! nc 127.0.0.1 5558          # type: SUB news
//! nc 127.0.0.1 5558          # type: PUB news it rains
//! ```
//!
//! The first client gets `MSG news it rains`. `UNSUB news` ends a subscription. A line that is wrong
//! is answered with `ERR` and a text. Nothing else is answered.
//!
//! A topic is a `Group`: to publish costs one entry in the mailbox of each shard, however many
//! subscribers there are. A publisher that meets a full mailbox pauses until there is room.
//! `--slow` says what happens to a subscriber that reads too slowly. It is disconnected, it misses
//! messages, or it gets only the `latest` message of each topic: a publisher leaves that with the
//! topic, and wakes the subscribers.
//!
//! Hubs on several machines share their topics through Redis 6 or later: a topic is a channel. Each
//! subscriber gets what is published at any of them, once. While Redis is away, each hub serves its own
//! clients, and the log says so. `redis` has the rules.
//!
//! ```text
//! cargo run --release --example hub -- --listen :5558 --redis 127.0.0.1:6379
//! cargo run --release --example hub -- --listen :5559 --redis 127.0.0.1:6379
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use condor::{Accepted, Error, Shards};

use client::{Client, Shared, Slow, Topics};

mod client;
#[path = "../common/mod.rs"]
mod common;
mod redis;
mod reply;
#[cfg(all(test, feature = "sim"))]
mod several;

/// Passes lines on to those who subscribed to their topic.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5558")]
    listen: SocketAddr,
    /// What happens to a subscriber that reads too slowly
    #[arg(long, value_enum, default_value_t = Slow::Disconnect)]
    slow: Slow,
    /// Reactors, each on a thread of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    shards: u32,
    /// The most connections at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// The Redis through which this hub shares its topics with others
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<String>,
}

fn main() -> ExitCode {
    common::exit_code("hub", serve(&Arguments::parse()))
}

fn serve(arguments: &Arguments) -> Result<(), Error> {
    common::start_log("info");
    let slow = arguments.slow;
    let all = Shared::new(Mutex::new(Topics { slow, ..Topics::default() }));
    let end_link = arguments.redis.as_ref().map(|redis| redis::start(redis, &all)).transpose()?;
    let shards = Shards::new(arguments.shards as usize)?;
    let options =
        client::options(arguments.listen, slow).max_connections(arguments.max_connections as usize);
    let factory = move |peer: &Accepted<'_>| Client::new(&all, peer);
    let listener = shards.start_listener("hub", options, factory)?;
    common::drain_on_signals(shards.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    shards.run()?;
    end_link.into_iter().for_each(|end| end());
    Ok(())
}
