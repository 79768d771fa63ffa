//! This crate: a handler that sends every packet back. All its limits and its packet timeout are at their defaults.

use condor::{Action, Context, Handler, ListenerOptions, Reactor};

struct Echo;

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _ctx: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = common::Options::from_command_line();
    let mut reactor = Reactor::new()?;
    let listener = reactor.start_listener(
        "echo",
        ListenerOptions::new(options.listen).max_connections(options.max_connections),
        |_peer| Echo,
    )?;
    common::announce(listener.local_addr())?;
    Ok(reactor.run()?)
}
