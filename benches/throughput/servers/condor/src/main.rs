//! This crate. All its limits and its packet timeout are at their defaults.
//!
//! `--mode busy` polls without blocking for a while after each event; `--mode 2-shards` serves with
//! two reactors, each on a thread of its own; `--mode group` broadcasts by packets to a group,
//! `--mode group-silent` does the same, and its first member is one that reads nothing.

mod broadcast;
mod group;

use std::time::Duration;

use common::Options;
use condor::{Action, Context, Handler, ListenerOptions, Reactor, ReactorOptions, Shards};

/// How long `--mode busy` polls after an event: many times a round trip on the loopback interface,
/// and short enough that the server still becomes idle.
const BUSY_POLL: Duration = Duration::from_millis(1);

/// Sends every packet back.
struct Echo;

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_command_line();
    let listen =
        options.unix.map_or_else(|| ListenerOptions::new(options.listen), ListenerOptions::unix);
    let listen = listen.max_connections(options.max_connections);
    match options.mode.as_deref() {
        None => one(ReactorOptions::default(), listen, options.broadcast),
        Some("busy") => {
            one(ReactorOptions::default().busy_poll(BUSY_POLL), listen, options.broadcast)
        }
        Some(mode @ ("group" | "group-silent")) => {
            let mut reactor = Reactor::new()?;
            let address = group::start(&mut reactor, listen)?;
            let silent = (mode == "group-silent").then(|| group::silent_member(&address));
            let _open = silent.transpose()?;
            common::announce(address)?;
            Ok(reactor.run()?)
        }
        Some("2-shards") if options.broadcast => Err("broadcasts come from one reactor".into()),
        Some("2-shards") => sharded(2, listen),
        Some(other) => {
            Err(format!("no mode {other:?}: busy, 2-shards, group or group-silent").into())
        }
    }
}

fn one(
    options: ReactorOptions,
    listen: ListenerOptions,
    broadcast: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::with_options(options)?;
    let address = if broadcast {
        broadcast::start(&mut reactor, listen)?
    } else {
        reactor.start_listener("echo", listen, |_| Echo)?.local_addr()
    };
    common::announce(address)?;
    Ok(reactor.run()?)
}

fn sharded(count: usize, listen: ListenerOptions) -> Result<(), Box<dyn std::error::Error>> {
    let shards = Shards::new(count)?;
    common::announce(shards.start_listener("echo", listen, |_| Echo)?.local_addr())?;
    Ok(shards.run()?)
}
