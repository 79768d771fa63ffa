//! A server for the checks of connectors. A listener and a connector are on the same reactors.
//!
//! The listener sends each packet back. These packets are answered otherwise:
//!
//! - `dial` starts the connector, as the options say. `stop` stops it.
//! - `state` is answered with the connector's state, and `stats` with its counters.
//!
//! Each connection of the connector says `hello` when it is up. What comes back is ignored. Log lines,
//! and changes of the state, are lines on stdout. SIGTERM drains.

#![expect(clippy::print_stdout, reason = "a program may")]

mod lines;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Parser;
use condor::{
    Accepted, Action, Backoff, ConnectorHandle, ConnectorOptions, Context, Error, Handler,
    ListenerOptions, Shards,
};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

/// A connection that the connector has opened.
struct Caller;

impl Handler for Caller {
    type Message = ();

    fn init(&mut self, _: &mut Context<'_, ()>) -> Action<'_> {
        Action::send("hello")
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::Continue
    }
}

/// A connection that the listener has accepted. All of them share the one connector.
struct Operator {
    options: ConnectorOptions,
    connector: Arc<Mutex<Option<ConnectorHandle<()>>>>,
}

impl Operator {
    fn obey(&self, command: &[u8], ctx: &Context<'_, ()>) -> Result<Option<String>, Error> {
        let mut connector = self.connector.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(match (command, &*connector) {
            (b"dial", _) => {
                let options = self.options.clone();
                *connector = Some(ctx.handle().start_connector("out", options, |_| Caller)?);
                "it dials".to_owned()
            }
            (b"stop", Some(connector)) => {
                connector.stop()?;
                "it stops".to_owned()
            }
            (b"state", Some(connector)) => connector.state().to_string(),
            (b"stats", Some(connector)) => {
                let stats = connector.stats();
                let each: Vec<_> = stats.iter().map(|(name, it)| format!("{name}={it}")).collect();
                each.join(" ")
            }
            _ => return Ok(None),
        }))
    }
}

impl Handler for Operator {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        match self.obey(packet, ctx) {
            Ok(Some(answer)) => Action::send(answer),
            Ok(None) => Action::send(packet),
            Err(error) => Action::send(error.to_string()),
        }
    }
}

#[derive(Debug, Parser)]
struct Options {
    /// Address and port of the listener
    #[arg(long)]
    listen: SocketAddr,
    /// Where to connect to; several times for several places
    #[arg(long, required = true)]
    to: Vec<String>,
    /// Connections that each shard keeps up
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// In milliseconds, as all times
    #[arg(long, default_value_t = 3_000)]
    connect_timeout: u64,
    /// The shortest and the longest back-off
    #[arg(long, num_args = 2, default_values_t = [100, 30_000])]
    backoff: Vec<u64>,
    /// How long the other end may say nothing
    #[arg(long)]
    silence: Option<u64>,
    /// Names are looked up by a closure that comes to no end
    #[arg(long)]
    hang: bool,
}

impl Options {
    fn connector(&self) -> ConnectorOptions {
        let millis = Duration::from_millis;
        let options = ConnectorOptions::to(self.to.clone())
            .connections(self.connections)
            .connect_timeout(millis(self.connect_timeout))
            .backoff(Backoff::new(millis(self.backoff[0]), millis(self.backoff[1])))
            .on_state(|shard, state| println!("shard {shard}: {state}"));
        let options = match self.silence {
            Some(silence) => options.silence_timeout(millis(silence)),
            None => options,
        };
        if self.hang { options.resolve(hang) } else { options }
    }
}

fn hang(_: &str) -> io::Result<Vec<SocketAddr>> {
    loop {
        thread::park();
    }
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    lines::print();
    let mut signals = Signals::new([SIGTERM])
        .map_err(|source| Error::Poll { what: "listen for signals", source })?;
    let shards = Shards::new(options.shards)?;
    let (connector, dialled) = (Arc::default(), options.connector());
    let operator = move |_peer: &Accepted<'_>| {
        let (options, connector) = (dialled.clone(), Arc::clone(&connector));
        Operator { options, connector }
    };
    let listening = ListenerOptions::new(options.listen);
    let listener = shards.start_listener("operators", listening, operator)?;
    println!("listening on {}", listener.local_addr());
    let handle = shards.handle();
    let stats = shards.handle();
    thread::spawn(move || signals.forever().try_for_each(|_| handle.shutdown().map(drop)));
    shards.run()?;
    let stats = stats.stats();
    println!("made={} terminated={}", stats.made, stats.terminated);
    Ok(())
}
