//! A server for the checks `stampede` and `slowloris-stopped`. Its handlers panic where a packet
//! demands it. At a packet timeout they take the default action and stop.
//!
//! The factory and `init` have no packet, so the peer's address decides: for 127.0.0.2 the factory
//! panics, for 127.0.0.3 `init` panics. All other panics are requested by a packet. Any other packet
//! is sent back. SIGTERM drains.
//!
//! Its panic hook counts the requested panics, and prints only other panics. Log lines go to stdout.

#![expect(clippy::print_stdout, reason = "a program may")]

mod lines;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{self, panic_any};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;
use condor::{
    Accepted, Action, CloseReason, Context, Error, Handler, Info, ListenerOptions, Reactor,
};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

const IN_FACTORY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const IN_INIT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// The payload of requested panics.
const ON_PURPOSE: &str = "on purpose";

/// How often the hook was called for a requested panic.
static SEEN: AtomicU64 = AtomicU64::new(0);

fn panic_on_request() -> ! {
    panic_any(ON_PURPOSE)
}

/// Counts requested panics without printing them. Other panics are printed as usual.
fn quiet_hook() {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() == Some(&ON_PURPOSE) {
            SEEN.fetch_add(1, Ordering::Relaxed);
        } else {
            loud(info);
        }
    }));
}

/// What happens when the connection ends.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Last {
    Nothing,
    TerminatePanics,
    DropPanics,
}

struct Panicky(Last);

impl Panicky {
    fn make(peer: &Accepted<'_>) -> Self {
        if peer.peer_addr().ip() == Some(IN_FACTORY) {
            panic_on_request();
        }
        Self(Last::Nothing)
    }
}

impl Handler for Panicky {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        if ctx.peer_addr().ip() == Some(IN_INIT) {
            panic_on_request();
        }
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        match packet {
            b"panic in handle_packet" => panic_on_request(),
            b"panic in handle_info" => match ctx.address().send(()) {
                Ok(()) => Action::Continue,
                Err(error) => Action::send(error.to_string()),
            },
            b"panic in a timer" => {
                let _ = ctx.send_after(Duration::from_millis(1), ());
                Action::Continue
            }
            b"panic in terminate" => {
                self.0 = Last::TerminatePanics;
                Action::stop(CloseReason::Normal)
            }
            b"panic in drop" => {
                self.0 = Last::DropPanics;
                Action::stop(CloseReason::Normal)
            }
            _ => Action::send(packet),
        }
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        match info {
            Info::Message(()) => panic_on_request(),
            other => other.default_action(),
        }
    }

    fn terminate(self, _: CloseReason) {
        if self.0 == Last::TerminatePanics {
            panic_on_request();
        }
    }
}

impl Drop for Panicky {
    fn drop(&mut self) {
        if self.0 == Last::DropPanics {
            panic_on_request();
        }
    }
}

#[derive(Debug, Parser)]
struct Options {
    /// Address and port to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// How long a packet may take, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
    /// The most connections at once
    #[arg(long, default_value_t = 200)]
    max_connections: usize,
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        eprintln!("panicky: cannot raise the limit on open files: {error}");
    }
    quiet_hook();
    let mut signals = Signals::new([SIGTERM])
        .map_err(|source| Error::Poll { what: "listen for signals", source })?;
    let mut reactor = Reactor::new()?;
    let listening = ListenerOptions::new(options.listen)
        .packet_timeout(Duration::from_millis(options.timeout))
        .max_connections(options.max_connections);
    let listener = reactor.start_listener("panicky", listening, Panicky::make)?;
    println!("listening on {}", listener.local_addr());
    // Only now, because the first line on stdout must be the address.
    lines::print();
    let handle = reactor.handle();
    thread::spawn(move || signals.forever().try_for_each(|_| handle.shutdown().map(drop)));
    reactor.run()?;
    let stats = reactor.handle().stats();
    println!("made={} terminated={}", stats.made, stats.terminated);
    println!("panics={} seen by the hook={}", stats.panics, SEEN.load(Ordering::Relaxed));
    Ok(())
}
