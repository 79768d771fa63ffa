//! A server for the checks `hogs-other-listener`, `hogs-timers`, `hogs-drain` and `fast-reader`. One
//! reactor has two listeners.
//!
//! A handler of the first listener uses the processor for a while for each packet, and sends the
//! packet back. The answer to the packet `value` is 1 MB. Peers of the second listener notice what
//! these handlers leave of the reactor:
//!
//! - The packet `timer` sets a timer of 100 ms. The answer is how many microseconds it took.
//! - The packet `close` asks the reactor's handle to close the connection.
//! - Any other packet is sent back.
//!
//! SIGTERM drains both listeners, for at most 2 s.

#![expect(clippy::print_stdout, reason = "a program may")]

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use condor::{
    Accepted, Action, Context, Error, Handler, Info, LengthField, ListenerOptions, Reactor,
    ReactorOptions,
};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

const TIMER: Duration = Duration::from_millis(100);
const DRAIN: Duration = Duration::from_secs(2);
const VALUE: usize = 1_000_000;

/// Takes what it can get of the reactor.
struct Busy {
    work: Duration,
    value: Bytes,
}

impl Handler for Busy {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        let began = now();
        while began.elapsed() < self.work {
            std::hint::spin_loop();
        }
        match packet {
            b"value" => Action::send(self.value.clone()),
            _ => Action::send(packet),
        }
    }
}

/// A handler whose messages are timers. Each has the time at which it was set.
struct Calm;

impl Handler for Calm {
    type Message = Instant;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Instant>,
    ) -> Action<'a> {
        match packet {
            b"timer" => {
                ctx.send_after(TIMER, now()).expect("few timers");
                Action::Continue
            }
            b"close" => match ctx.handle().close(ctx.id()) {
                Ok(()) => Action::Continue,
                Err(error) => Action::send(error.to_string()),
            },
            _ => Action::send(packet),
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Instant>,
        _: &mut Context<'_, Instant>,
    ) -> Action<'a> {
        match info {
            Info::Message(set) => Action::send(set.elapsed().as_micros().to_string()),
            other => other.default_action(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures how long a callback and a timer take")]
fn now() -> Instant {
    Instant::now()
}

#[derive(Debug, Parser)]
struct Options {
    /// Address and port of the first listener. The second one has a port that the system chooses
    #[arg(long)]
    listen: SocketAddr,
    /// Width of the length prefix in bytes
    #[arg(long, default_value_t = 2)]
    len: u8,
    /// How long a handler of the first listener uses the processor for a packet, in microseconds
    #[arg(long, default_value_t = 10)]
    work: u64,
    /// How long a turn may take, in microseconds; 0 is without a limit
    #[arg(long, default_value_t = 2000)]
    turn_budget: u64,
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    let mut signals = Signals::new([SIGTERM])
        .map_err(|source| Error::Poll { what: "listen for signals", source })?;
    let turn_budget = Duration::from_micros(options.turn_budget);
    let mut reactor = Reactor::with_options(ReactorOptions::new().turn_budget(turn_budget))?;
    let listening = |addr| {
        ListenerOptions::new(addr).framing(LengthField::new(options.len)).drain_timeout(DRAIN)
    };
    let work = Duration::from_micros(options.work);
    let value = Bytes::from(vec![0; VALUE]);
    let make_busy = move |_: &Accepted<'_, _>| Busy { work, value: value.clone() };
    let busy = reactor.start_listener("busy", listening(options.listen), make_busy)?;
    let any_port = SocketAddr::new(options.listen.ip(), 0);
    let calm = reactor.start_listener("calm", listening(any_port), |_| Calm)?;
    println!("listening on {}", busy.local_addr());
    println!("also listening on {}", calm.local_addr());
    let handle = reactor.handle();
    thread::spawn(move || signals.forever().try_for_each(|_| handle.shutdown().map(drop)));
    reactor.run()?;
    let stats = reactor.handle().stats();
    println!("made={} terminated={}", stats.made, stats.terminated);
    Ok(())
}
