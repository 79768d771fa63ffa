//! This crate. All its limits and its packet timeout are at their defaults.

mod broadcast;

use common::Options;
use condor::{Action, Context, Handler, ListenerOptions, Reactor};

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
    let listen = ListenerOptions::new(options.listen).max_connections(options.max_connections);
    let mut reactor = Reactor::new()?;
    let address = if options.broadcast {
        broadcast::start(&mut reactor, listen)?
    } else {
        reactor.start_listener("echo", listen, |_| Echo)?.local_addr()
    };
    common::announce(address)?;
    Ok(reactor.run()?)
}
