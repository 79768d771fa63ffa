//! A reactor with handlers that move the clock, and its clients.

use std::cell::RefCell;
use std::io::Write;

use super::*;
use crate::address::Address;
use crate::handler::Packet;
use crate::reason::CloseReason;

/// What a handler was called for. The number is the packet's, the message's or the timer's byte.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Packet(u8),
    Message(u8),
}

/// What a test shares with its handlers.
#[derive(Clone, Default)]
pub(super) struct Probe {
    pub(super) hand: ManualClock,
    /// How far each callback moves the clock.
    pub(super) cost: Rc<Cell<Duration>>,
    pub(super) calls: Rc<RefCell<Vec<Call>>>,
    pub(super) addresses: Rc<RefCell<Vec<Address<u8>>>>,
    pub(super) ends: Rc<RefCell<Vec<CloseReason>>>,
    /// The handlers go on after the end of input.
    pub(super) owing: Rc<Cell<bool>>,
}

/// A handler that needs time. A packet `[b't', n, number]` sets `n` timers. A packet `[b'b', n]` is
/// answered with `n` times 100 kB. Other packets have no answer.
struct Slow(Probe);

impl Handler for Slow {
    type Message = u8;

    fn init(&mut self, ctx: &mut Context<'_, u8>) -> Action<'_> {
        self.0.addresses.borrow_mut().push(ctx.address());
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, u8>) -> Action<'a> {
        self.0.hand.advance(self.0.cost.get());
        match *packet {
            [b't', count, number] => {
                for _ in 0..count {
                    let _ = ctx.send_after(Duration::from_millis(10), number);
                }
            }
            [b'b', count] => return Action::send(vec![7; 100_000 * usize::from(count)]),
            [b's', count] => {
                for _ in 0..count {
                    let piece = bytes::Bytes::from(vec![7; 100_000]);
                    ctx.send(Packet::Shared(piece)).unwrap();
                }
            }
            _ => self.0.calls.borrow_mut().push(Call::Packet(packet[0])),
        }
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, u8>, _: &mut Context<'_, u8>) -> Action<'a> {
        match info {
            Info::Message(number) => {
                self.0.hand.advance(self.0.cost.get());
                self.0.calls.borrow_mut().push(Call::Message(number));
                Action::Continue
            }
            Info::EndOfInput { .. } if self.0.owing.get() => Action::Continue,
            other => other.default_action(),
        }
    }

    fn terminate(self, reason: CloseReason) {
        self.0.hand.advance(self.0.cost.get());
        self.0.ends.borrow_mut().push(reason);
    }
}

/// A reactor with slow handlers, and its clients.
pub(super) struct Turns {
    pub(super) reactor: Reactor,
    pub(super) probe: Probe,
    pub(super) listeners: Vec<ListenerHandle<u8>>,
    pub(super) clients: Vec<Client>,
}

impl Turns {
    pub(super) fn new(options: ReactorOptions, listeners: usize) -> Self {
        Self::with(options, listeners, |options| options)
    }

    /// As [`new`](Self::new), with other options of the listeners.
    pub(super) fn with(
        options: ReactorOptions,
        listeners: usize,
        adjust: impl Fn(ListenerOptions) -> ListenerOptions,
    ) -> Self {
        let (parts, end) = ReactorParts::new(0, options).unwrap();
        let ReactorParts { shard, poll, registry, options } = parts;
        let probe = Probe::default();
        let (poller, registry) = (Poller::system(poll, options.events), Registry::System(registry));
        let (clock, shared) = (Clock::manual(probe.hand.clone()), Arc::new(Shared::new(vec![end])));
        let mut reactor = Reactor::assemble(shard, poller, registry, clock, options, shared);
        let start = |nth: usize| {
            let probe = probe.clone();
            let options = ListenerOptions::port(0)
                .framing(crate::framing::LengthField::new(4))
                .max_packet(4 << 20)
                .max_queued(64 << 20)
                .write_high_water(32 << 20)
                .max_connections(5_000);
            let factory = move |_: &Accepted<'_, _>| Slow(probe.clone());
            reactor.start_listener(&nth.to_string(), adjust(options), factory).unwrap()
        };
        let listeners = (0..listeners).map(start).collect();
        Self { reactor, probe, listeners, clients: Vec::new() }
    }

    pub(super) fn with_cost(self, cost: Duration) -> Self {
        self.probe.cost.set(cost);
        self
    }

    /// Connects a client to a listener, and turns until it is served.
    pub(super) fn connect(&mut self, listener: usize) -> usize {
        self.connect_with(listener, None)
    }

    /// As [`connect`](Self::connect), with a receive buffer of this size, which does not grow.
    pub(super) fn connect_with(&mut self, listener: usize, receive_buffer: Option<usize>) -> usize {
        let addr = self.listeners[listener].local_addr().as_inet().unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket.connect(&addr.into()).unwrap();
        self.clients.push(socket.into());
        let made = self.clients.len() as u64;
        self.until(|turns| turns.stats(|stats| stats.made) == made);
        self.clients.len() - 1
    }

    pub(super) fn stats(&self, of: impl Fn(crate::stats::Stats) -> u64) -> u64 {
        self.listeners.iter().map(|listener| of(listener.stats())).sum()
    }

    pub(super) fn send(&mut self, client: usize, packet: &[u8], times: usize) {
        let length = u32::try_from(packet.len()).unwrap().to_be_bytes();
        let bytes = [&length[..], packet].concat().repeat(times);
        self.clients[client].write_all(&bytes).unwrap();
    }

    /// One turn. Returns how long it took, and its calls.
    pub(super) fn turn(&mut self) -> (Duration, Vec<Call>) {
        let before = self.probe.hand.elapsed();
        self.probe.calls.borrow_mut().clear();
        self.reactor.turn(NO_TIME).unwrap();
        (self.probe.hand.elapsed() - before, self.probe.calls.take())
    }

    #[track_caller]
    pub(super) fn until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if done(self) {
                return;
            }
            self.reactor.turn(NO_TIME).unwrap();
        }
        panic!("this does not happen");
    }
}

pub(super) fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

pub(super) fn count(calls: &[Call], call: Call) -> usize {
    calls.iter().filter(|made| **made == call).count()
}
