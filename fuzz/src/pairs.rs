//! Fuzz body for pairs: four connections of one listener, which become partners, send, stall, end and
//! find other partners in any order.
//!
//! The first bytes choose the options, the rest are operations. Bytes that a peer sends have a mark of
//! their connection, and so have packets that a handler sends by itself. Whatever happens:
//!
//! - `pair` has the result that the partners of the moment call for;
//! - a peer gets what its partners' peers have sent, each byte once and in order, and what its own
//!   handler has sent, whole; once it reads everything, nothing is missing of what a partner that lives
//!   was sent;
//! - no queue is longer than its high-water mark, what one turn reads, and what handlers have sent and
//!   forwarded beside it;
//! - the end of a peer's input reaches the peer of the partner, and the end of a connection ends its
//!   partner, unless that one's handler goes on;
//! - one handler is terminated for each that was made, and nothing is left over.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use condor::testing::{Harness, Leftovers};
use condor::{
    Action, Address, CloseReason, Context, Handler, Info, ListenerOptions, PairError, Raw,
    ReactorOptions,
};

/// A run ends after so many operations.
const OPS_MAX: usize = 150;
const ENDS: usize = 4;
const HIGH_WATER: usize = 2_000;
/// The most that one read takes.
const READ: usize = 16 * 1024;

/// What a handler is told to do.
enum Command {
    Pair(Address<Self>),
    /// A packet of so many bytes, for its own peer or for the partner's.
    Send(usize),
    Forward(usize),
    Pause,
    Resume,
    EndOutput,
    Stop,
    Panic,
}

/// What a handler has seen since the last look.
#[derive(Default)]
struct Seen {
    paired: Option<Result<(), PairError>>,
    forwarded: Option<Result<(), PairError>>,
    sent: bool,
    partner_ended: bool,
}

struct End {
    seen: Rc<RefCell<Seen>>,
    number: usize,
    /// Bytes that it has sent to its own peer.
    sent: usize,
    /// Goes on without its partner.
    stays: bool,
}

/// Whose bytes these are.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Origin {
    /// The peer has sent them, for the partner's peer.
    Peer = 0,
    /// The handler has sent them to its own peer.
    Own = 1,
    /// The handler has forwarded them, beside what its peer sent.
    Handler = 2,
}

/// Bytes that name their connection and their origin, and count from `from` on.
fn marked(number: usize, origin: Origin, from: usize, len: usize) -> Vec<u8> {
    let fixed = number << 6 | (origin as usize) << 4;
    (from..from + len).map(|at| (fixed | (at % 16)).to_le_bytes()[0]).collect()
}

impl Handler for End {
    type Message = Command;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Command>,
    ) -> Action<'a> {
        // Without a partner the bytes are lost, and the model knows.
        let _ = ctx.forward(packet);
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Command>,
        ctx: &mut Context<'_, Command>,
    ) -> Action<'a> {
        let mut seen = self.seen.borrow_mut();
        match info {
            Info::Message(command) => match command {
                Command::Pair(other) => seen.paired = Some(ctx.pair(&other)),
                Command::Send(len) => {
                    let bytes = marked(self.number, Origin::Own, self.sent, len);
                    seen.sent = ctx.send(bytes).is_ok();
                    self.sent += if seen.sent { len } else { 0 };
                }
                Command::Forward(len) => {
                    let bytes = marked(self.number, Origin::Handler, 0, len);
                    seen.forwarded = Some(ctx.forward(bytes));
                }
                Command::Pause => ctx.pause_reading(),
                Command::Resume => ctx.resume_reading(),
                Command::EndOutput => ctx.end_output(),
                Command::Stop => return Action::stop(CloseReason::Normal),
                // The panic hook does not see it: with it a fuzzer would end the process.
                Command::Panic => resume_unwind(Box::new("told to panic")),
            },
            Info::PartnerEnded { .. } => {
                assert!(!seen.partner_ended, "it is told once");
                seen.partner_ended = true;
                if !self.stays {
                    return info.default_action();
                }
            }
            other => return other.default_action(),
        }
        Action::Continue
    }
}

/// One connection, and what the model knows of it.
struct Peer {
    harness: Harness<End>,
    seen: Rc<RefCell<Seen>>,
    partner: Option<usize>,
    /// Bytes that it has sent, and bytes that its handler has forwarded beside them.
    made: usize,
    forwarded: usize,
    /// By source: bytes that it got.
    got: [usize; ENDS],
    /// By source: the next byte that it gets, if it has got one since they became partners.
    next: [Option<u8>; ENDS],
    /// By source: how often they became partners. What was sent in between is missing.
    gaps: [usize; ENDS],
    own: usize,
    own_got: usize,
    input_ended: bool,
    output_ended: bool,
}

struct Model {
    peers: Vec<Peer>,
    stays: bool,
}

impl Model {
    fn new(options: u8, reads: u8) -> Self {
        let (stays, reads) = (options & 1 == 1, 64 + usize::from(reads) * 64);
        let listener = ListenerOptions::port(5555)
            .framing(Raw)
            .write_high_water(HIGH_WATER)
            .write_low_water(HIGH_WATER / usize::from(2 + (options >> 1) % 8))
            .max_queued(4 << 20)
            .write_stall_timeout(Duration::MAX)
            .half_close_timeout(Duration::MAX);
        let seen: Vec<_> = (0..ENDS).map(|_| Rc::<RefCell<Seen>>::default()).collect();
        let (own, mut next) = (seen.clone(), 0);
        let factory = move |_: &condor::Accepted<'_, Command>| {
            next += 1;
            End { seen: Rc::clone(&own[next - 1]), number: next - 1, sent: 0, stays }
        };
        // What a turn does must not depend on the time of this machine.
        let reactor = ReactorOptions::new().turn_budget(Duration::ZERO);
        let first = Harness::with(reactor, listener, factory);
        let mut harnesses = vec![first];
        while harnesses.len() < ENDS {
            let next = harnesses[0].connect();
            harnesses.push(next);
        }
        let peers = harnesses.into_iter().zip(seen).map(|(harness, seen)| {
            harness.max_read(reads);
            Peer {
                harness,
                seen,
                partner: None,
                made: 0,
                forwarded: 0,
                got: [0; ENDS],
                next: [None; ENDS],
                gaps: [0; ENDS],
                own: 0,
                own_got: 0,
                input_ended: false,
                output_ended: false,
            }
        });
        Self { peers: peers.collect(), stays }
    }

    fn lives(&self, at: usize) -> bool {
        self.peers[at].harness.closed().is_none()
    }

    fn order(&self, at: usize, command: Command) {
        if self.lives(at) {
            self.peers[at].harness.message(command);
        }
    }

    fn pair(&mut self, one: usize, other: usize) {
        if !self.lives(one) {
            return;
        }
        let address = self.peers[other].harness.address();
        let expected = if one == other {
            Err(PairError::Itself)
        } else if self.peers[one].partner.is_some() || self.peers[other].partner.is_some() {
            Err(PairError::Paired)
        } else {
            Ok(())
        };
        self.order(one, Command::Pair(address));
        // A connection that is closing gets no message.
        let result = self.peers[one].seen.borrow_mut().paired.take();
        if let Some(result) = result {
            // Two connections whose inputs have both ended may have parted already.
            let parts = [one, other].iter().any(|end| self.peers[*end].input_ended);
            assert!(result == expected || parts, "{one} with {other}: {result:?}");
            if result.is_ok() {
                for (end, partner) in [(one, other), (other, one)] {
                    self.peers[end].partner = Some(partner);
                    self.peers[end].gaps[partner] += 1;
                }
            }
        }
        self.settle();
    }

    /// Looks at everything, and takes partners apart that have ended.
    fn settle(&mut self) {
        for at in 0..self.peers.len() {
            self.look(at);
        }
        for (source, peer) in self.peers.iter().enumerate() {
            let got: usize = self.peers.iter().map(|peer| peer.got[source]).sum();
            let most = peer.made + peer.forwarded;
            assert!(got <= most, "{got} bytes of {source}, which had {most}");
        }
        for at in 0..self.peers.len() {
            let told = std::mem::take(&mut self.peers[at].seen.borrow_mut().partner_ended);
            let Some(partner) = self.peers[at].partner else { continue };
            self.peers[at].output_ended |= self.peers[partner].input_ended;
            // Once both inputs have ended, each connection ends by itself.
            let both = self.peers[at].input_ended && self.peers[partner].input_ended;
            let is_over = told || both || !self.lives(at) || !self.lives(partner);
            if is_over {
                self.peers[at].partner = None;
                self.peers[partner].partner = None;
                for end in [at, partner] {
                    self.peers[end].seen.borrow_mut().partner_ended = false;
                    self.peers[end].output_ended |= !self.stays || self.peers[end].input_ended;
                }
            }
        }
    }

    /// Reads what a peer has received, and checks it.
    fn look(&mut self, at: usize) {
        let sent = self.peers[at].harness.sent();
        let forwarded: usize = self.peers.iter().map(|peer| peer.forwarded).sum();
        let peer = &mut self.peers[at];
        for byte in sent {
            let source = usize::from(byte >> 6);
            match byte >> 4 & 3 {
                0 => {
                    let expected = peer.next[source].replace((byte & 15) + 1);
                    if expected.is_some_and(|next| next % 16 != byte & 15) {
                        assert!(peer.gaps[source] > 0, "{at}: bytes of {source} are missing");
                        peer.gaps[source] -= 1;
                    }
                    peer.got[source] += 1;
                }
                1 => {
                    assert_eq!(source, at, "its own handler's");
                    assert_eq!(usize::from(byte & 15), peer.own_got % 16, "{at}: in order");
                    peer.own_got += 1;
                }
                _ => peer.got[source] += 1,
            }
        }
        assert!(peer.own_got <= peer.own, "{at} got more than its handler sent");
        let queued = peer.harness.queued_bytes();
        // A handler gets messages while its connection is not read, and may forward more.
        let most = HIGH_WATER + READ + peer.own - peer.own_got + forwarded;
        assert!(queued <= most, "{queued} bytes are queued for {at}, at most {most}");
    }

    fn operate(&mut self, op: u8, at: usize, argument: u8) {
        let len = usize::from(argument) * 37;
        let partner = self.peers[at].partner;
        match op % 13 {
            0 => return self.pair(at, usize::from(argument) % ENDS),
            1 | 2 if !self.peers[at].input_ended => {
                let bytes = self.bytes(at, len);
                self.peers[at].harness.receive(bytes);
            }
            // Two peers in one turn.
            3 => {
                for end in [at, (at + 1) % ENDS] {
                    if !self.peers[end].input_ended {
                        let bytes = self.bytes(end, len);
                        self.peers[end].harness.arrive(bytes);
                    }
                }
                self.peers[at].harness.run();
            }
            4 => self.peers[at].harness.peer_stalls(),
            5 => self.peers[at].harness.peer_reads(len),
            6 => self.peers[at].harness.peer_reads_all(),
            7 => {
                self.peers[at].own += len;
                self.order(at, Command::Send(len));
                if !std::mem::take(&mut self.peers[at].seen.borrow_mut().sent) {
                    self.peers[at].own -= len;
                }
            }
            8 => {
                self.peers[at].forwarded += len;
                self.order(at, Command::Forward(len));
                let result = self.peers[at].seen.borrow_mut().forwarded.take();
                if let (Some(result), true) = (result, self.lives(at))
                    && !self.peers[at].input_ended
                {
                    assert_eq!(result.is_ok(), partner.is_some(), "{at} forwards to {partner:?}");
                }
            }
            9 => {
                let pauses = argument.is_multiple_of(2);
                let command = if pauses { Command::Pause } else { Command::Resume };
                self.order(at, command);
            }
            10 => {
                self.peers[at].input_ended = true;
                self.peers[at].harness.peer_closes();
            }
            11 => match argument % 8 {
                0 => self.order(at, Command::Stop),
                1 => self.order(at, Command::Panic),
                2 => self.peers[at].harness.peer_resets(),
                3 => self.peers[at].harness.fail_next_read(ErrorKind::ConnectionReset),
                4 => self.peers[at].harness.fail_next_write(ErrorKind::BrokenPipe),
                5 => {
                    self.peers[at].output_ended = true;
                    self.order(at, Command::EndOutput);
                }
                _ => self.peers[at].harness.disturb(),
            },
            _ => self.peers[at].harness.max_write(1 + len),
        }
        self.settle();
    }

    /// The next bytes that a peer sends.
    fn bytes(&mut self, at: usize, len: usize) -> Vec<u8> {
        let from = self.peers[at].made;
        self.peers[at].made += len;
        marked(at, Origin::Peer, from, len)
    }

    /// All peers read everything, and nothing is paused: then nothing is missing of what a living pair
    /// has forwarded since it exists.
    fn conclude(&mut self) {
        for at in 0..self.peers.len() {
            self.peers[at].harness.max_write(usize::MAX);
            self.peers[at].harness.peer_reads_all();
            self.order(at, Command::Resume);
        }
        self.settle();
        for at in 0..self.peers.len() {
            let Some(partner) = self.peers[at].partner else { continue };
            let (before, alone) = (self.peers[partner].got[at], self.peers[at].input_ended);
            if !alone {
                let bytes = self.bytes(at, 10);
                self.peers[at].harness.receive(bytes);
                self.settle();
            }
            if self.peers[at].partner.is_none() || self.peers[partner].output_ended {
                continue;
            }
            if alone {
                assert!(self.peers[partner].harness.is_finished(), "{at} has ended for {partner}");
            } else {
                assert_eq!(self.peers[partner].got[at], before + 10, "{at} to {partner}");
            }
        }
        for at in 0..self.peers.len() {
            self.peers[at].harness.peer_closes();
        }
        let first = &self.peers[0].harness;
        first.drain();
        first.advance(Duration::from_secs(100));
        let stats = first.stats();
        assert_eq!((stats.made, stats.terminated, stats.open), (4, 4, 0));
        assert_eq!(first.leftovers(), Leftovers::default());
    }
}

/// See the module's documentation.
pub fn pairs(data: &[u8]) {
    let [options, reads, ops @ ..] = data else { return };
    let mut model = Model::new(*options, *reads);
    for op in ops.chunks_exact(3).take(OPS_MAX) {
        model.operate(op[0], usize::from(op[1]) % ENDS, op[2]);
    }
    model.conclude();
}
