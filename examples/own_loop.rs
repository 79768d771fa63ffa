//! The reactor inside a loop of your own. One thread and one `poll` serve packets over TCP,
//! datagrams over UDP, and a periodic tick.
//!
//! ```text
//! cargo run --release --example own_loop
//! cargo run --release --example call -- 127.0.0.1:5558 one two      # packets, over TCP
//! bash -c 'exec 3<>/dev/udp/127.0.0.1/5558; echo -n three >&3; head -c 5 <&3'
//! ```
//!
//! The server sends both back, and prints their numbers every few seconds. Ctrl-C drains the TCP
//! side and ends the server.
//!
//! What it shows: the loop belongs to this program, and the reactor is one event source in it.
//!
//! - The loop polls the reactor's descriptor for readability.
//! - `next_deadline` returns the longest time that the loop may sleep for the reactor's sake.
//! - `turn`, with a waiting time of zero, does what is due.
//!
//! Any `poll` works: mio's, or the one of a GUI or of a game.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use condor::{Action, Context, Handle, Handler, ListenerOptions, Reactor};
use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

#[path = "common/mod.rs"]
mod common;

const REACTOR: Token = Token(0);
const DATAGRAMS: Token = Token(1);

/// Datagrams answered in one pass, so that a flood of them does not starve the reactor.
const DATAGRAM_BUDGET: u32 = 64;

/// What comes over TCP goes back.
struct Echo;

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }
}

/// Everything that the loop serves.
struct Service {
    poll: Poll,
    reactor: Reactor,
    datagrams: UdpSocket,
    /// The last pass left datagrams in the socket. Events are edge-triggered, so no event will
    /// announce these datagrams again.
    more_datagrams: bool,
    answered: u64,
    period: Duration,
    next_tick: Instant,
}

impl Service {
    /// Listens on `addr`, over TCP and on the same port over UDP.
    fn new(addr: SocketAddr, period: Duration) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut reactor = Reactor::new()?;
        let listener = reactor.start_listener("echo", ListenerOptions::new(addr), |_peer| Echo)?;
        let addr = listener.local_addr().as_inet().unwrap_or(addr);
        let mut datagrams = UdpSocket::bind(addr).map_err(|error| {
            io::Error::new(error.kind(), format!("no datagrams on {addr}: {error}"))
        })?;
        let registry = poll.registry();
        registry.register(&mut SourceFd(&reactor.as_raw_fd()), REACTOR, Interest::READABLE)?;
        registry.register(&mut datagrams, DATAGRAMS, Interest::READABLE)?;
        let next_tick = now() + period;
        Ok(Self { poll, reactor, datagrams, more_datagrams: false, answered: 0, period, next_tick })
    }

    fn handle(&self) -> Handle {
        self.reactor.handle()
    }

    /// Runs until the reactor has shut down.
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        while !self.reactor.is_stopped() {
            match self.poll.poll(&mut events, Some(self.poll_timeout())) {
                Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
                polled => polled?,
            }
            if self.more_datagrams || events.iter().any(|event| event.token() == DATAGRAMS) {
                self.answer_datagrams()?;
            }
            // Every pass makes a turn, because a turn without work costs only one system call.
            self.reactor.turn(Some(Duration::ZERO))?;
            if now() >= self.next_tick {
                self.next_tick += self.period;
                self.tick();
            }
        }
        Ok(())
    }

    /// The time until the next tick or the reactor's next deadline. Zero if datagrams are left.
    fn poll_timeout(&self) -> Duration {
        if self.more_datagrams {
            return Duration::ZERO;
        }
        let tick = self.next_tick.saturating_duration_since(now());
        self.reactor.next_deadline().map_or(tick, |deadline| deadline.min(tick))
    }

    fn answer_datagrams(&mut self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        self.more_datagrams = true;
        for _ in 0..DATAGRAM_BUDGET {
            match self.datagrams.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    // A datagram that cannot be sent is lost, as datagrams are.
                    let _ = self.datagrams.send_to(&buffer[..len], from);
                    self.answered += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.more_datagrams = false;
                    break;
                }
                // No socket received an earlier answer. This does not concern other datagrams.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn tick(&self) {
        let stats = self.handle().stats();
        common::say(format_args!("{} packets, {} datagrams", stats.packets_in, self.answered));
    }
}

#[expect(clippy::disallowed_methods, reason = "this program has its own loop and its own clock")]
fn now() -> Instant {
    Instant::now()
}

/// Sends back all packets (TCP) and datagrams (UDP), in one loop.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen, both over TCP and over UDP; `:PORT` is on 127.0.0.1
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5558")]
    listen: SocketAddr,
    /// How often to print what was answered
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    tick: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("own_loop", serve(&arguments))
}

fn serve(arguments: &Arguments) -> io::Result<()> {
    let mut service = Service::new(arguments.listen, Duration::from_secs(arguments.tick))?;
    // A request from another thread makes the reactor's descriptor readable, so it wakes the loop.
    common::drain_on_signals(service.handle())?;
    common::say(format_args!("listening on {}", service.datagrams.local_addr()?));
    service.run()?;
    service.tick();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    use condor::client::Client;
    use condor::testing::Harness;

    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn packets_come_back() {
        let harness = Harness::of(Echo);
        harness.packet(b"one");
        harness.packet(b"");
        assert_eq!(harness.packets(), [&b"one"[..], b""]);
    }

    /// Goal: the two protocols do not wait for each other's events or for the tick. Method: both
    /// use real sockets, the tick is an hour away, and each burst takes more than one pass.
    #[test]
    fn both_sides_are_served_by_one_loop() -> Result<(), Box<dyn std::error::Error>> {
        const BURST: u32 = 2 * DATAGRAM_BUDGET;
        let mut service = Service::new("127.0.0.1:0".parse()?, LONG)?;
        let (addr, handle) = (service.datagrams.local_addr()?, service.handle());
        let test = thread::spawn(move || -> io::Result<()> {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(addr)?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut client = Client::connect(addr).map_err(io::Error::other)?;
            for _ in 0..5 {
                for number in 0..BURST {
                    socket.send(&number.to_be_bytes())?;
                }
                assert_eq!(client.request(b"packet").map_err(io::Error::other)?, b"packet");
                for number in 0..BURST {
                    let mut back = [0; 8];
                    assert_eq!(socket.recv(&mut back)?, 4);
                    assert_eq!(back[..4], number.to_be_bytes());
                }
            }
            let _ = handle.shutdown();
            Ok(())
        });
        service.run()?;
        test.join().expect("the test's other half")?;
        assert_eq!(service.answered, u64::from(5 * BURST));
        assert_eq!(service.handle().stats().packets_in, 5);
        Ok(())
    }

    /// Goal: the reactor's deadlines wake the loop. Method: a packet stays incomplete, and no other
    /// event comes before its timeout.
    #[test]
    fn the_loop_wakes_up_for_the_reactor_s_timers() -> Result<(), Box<dyn std::error::Error>> {
        let mut service = Service::new("127.0.0.1:0".parse()?, LONG)?;
        let options = ListenerOptions::port(0).packet_timeout(Duration::from_millis(50));
        let listener = service.reactor.start_listener("short", options, |_peer| Echo)?;
        let (addr, handle) = (listener.local_addr(), service.handle());
        let test = thread::spawn(move || -> io::Result<usize> {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(addr)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"\0\x05half")?;
            let end = stream.read(&mut [0; 8])?;
            let _ = handle.shutdown();
            Ok(end)
        });
        service.run()?;
        assert_eq!(test.join().expect("the test's other half")?, 0, "the end of the stream");
        Ok(())
    }
}
