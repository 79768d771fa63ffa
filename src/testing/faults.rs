//! Faults: the failures of a scripted stream's calls, drawn from a seed.

use std::io::ErrorKind;

/// The probability of each fault of a scripted stream, and the seed that decides when it occurs.
///
/// The same seed and the same calls give the same faults. Events follow as they do from a kernel:
/// after a short read, or after a call that would block, a new event comes in one of the next
/// turns.
///
/// Probabilities are per call. They are limited to 0.9, so that some calls succeed.
///
/// # Examples
///
/// ```
/// use condor::testing::{Faults, Harness};
/// use condor::{Action, Context, Handler};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type Message = ();
///
///     fn handle_packet<'a>(
///         &'a mut self,
///         packet: &'a [u8],
///         _ctx: &mut Context<'_, ()>,
///     ) -> Action<'a> {
///         Action::send(packet)
///     }
/// }
///
/// for seed in 0..100 {
///     let harness = Harness::of(Echo);
///     harness.faults(Faults::new(seed));
///     harness.packet(b"hello");
///     assert_eq!(harness.packets(), [b"hello"], "seed {seed}");
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Faults {
    seed: u64,
    short: f64,
    would_block: f64,
    interrupted: f64,
    spurious: f64,
    late: f64,
    reset: f64,
    broken_pipe: f64,
    end: f64,
}

impl Faults {
    /// Faults that a connection survives. Some calls do less than asked, do nothing, or are
    /// interrupted. Some events come late or without a cause.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            short: 0.4,
            would_block: 0.2,
            interrupted: 0.1,
            spurious: 0.05,
            late: 0.5,
            reset: 0.0,
            broken_pipe: 0.0,
            end: 0.0,
        }
    }

    /// A network without a fault. The methods below add faults one at a time.
    pub fn none(seed: u64) -> Self {
        Self::new(seed).short(0.0).would_block(0.0).interrupted(0.0).spurious(0.0).late(0.0)
    }

    /// A read or a write does less than it could. Default: 0.4.
    pub fn short(mut self, probability: f64) -> Self {
        self.short = probability;
        self
    }

    /// A read or a write does nothing; a later event announces that a new try can succeed.
    /// Default: 0.2.
    pub fn would_block(mut self, probability: f64) -> Self {
        self.would_block = probability;
        self
    }

    /// A signal interrupts a call. Default: 0.1.
    pub fn interrupted(mut self, probability: f64) -> Self {
        self.interrupted = probability;
        self
    }

    /// A read or a write also causes an event without a cause, for the same connection.
    /// Default: 0.05.
    pub fn spurious(mut self, probability: f64) -> Self {
        self.spurious = probability;
        self
    }

    /// An event comes in a later turn than it should. Default: 0.5.
    pub fn late(mut self, probability: f64) -> Self {
        self.late = probability;
        self
    }

    /// A call fails because the peer reset the connection. Bytes that had arrived are lost.
    /// Default: 0.
    pub fn reset(mut self, probability: f64) -> Self {
        self.reset = probability;
        self
    }

    /// A write fails with `BrokenPipe`, as if the peer no longer reads. Default: 0.
    pub fn broken_pipe(mut self, probability: f64) -> Self {
        self.broken_pipe = probability;
        self
    }

    /// A read finds the end of the stream. Bytes that had arrived are lost. Default: 0.
    pub fn end(mut self, probability: f64) -> Self {
        self.end = probability;
        self
    }

    /// The plan of connection number `index`. Each connection has a plan of its own, derived from
    /// the one seed.
    pub(super) fn plan(&self, index: u64) -> FaultPlan {
        let mut random = Random(self.seed);
        let own = random.next() ^ index.wrapping_mul(0xD134_2543_DE82_EF95);
        FaultPlan { faults: self.clone(), random: Random(own) }
    }
}

/// The fault of one call.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Fails(ErrorKind),
    Ends,
}

/// The faults of one stream.
#[derive(Debug)]
pub(super) struct FaultPlan {
    faults: Faults,
    random: Random,
}

impl FaultPlan {
    pub(super) fn on_read(&mut self) -> Option<Fault> {
        let Faults { interrupted, would_block, reset, end, .. } = self.faults;
        self.one_of([
            (interrupted, Fault::Fails(ErrorKind::Interrupted)),
            (would_block, Fault::Fails(ErrorKind::WouldBlock)),
            (reset, Fault::Fails(ErrorKind::ConnectionReset)),
            (end, Fault::Ends),
        ])
    }

    pub(super) fn on_write(&mut self) -> Option<Fault> {
        let Faults { interrupted, would_block, reset, broken_pipe, .. } = self.faults;
        self.one_of([
            (interrupted, Fault::Fails(ErrorKind::Interrupted)),
            (would_block, Fault::Fails(ErrorKind::WouldBlock)),
            (reset, Fault::Fails(ErrorKind::ConnectionReset)),
            (broken_pipe, Fault::Fails(ErrorKind::BrokenPipe)),
        ])
    }

    /// How many of `count` bytes a call transfers. At least 1, unless `count` is 0.
    pub(super) fn cut(&mut self, count: usize) -> usize {
        if count > 1 && self.random.chance(self.faults.short) {
            // Half of the cuts leave less than 8 bytes, so that tiny pieces are common, too.
            let most = if self.random.chance(0.5) { count.min(8) } else { count };
            return 1 + self.random.below(most - 1);
        }
        count
    }

    pub(super) fn holds_back(&mut self) -> bool {
        self.random.chance(self.faults.late)
    }

    pub(super) fn makes_up_an_event(&mut self) -> bool {
        self.random.chance(self.faults.spurious)
    }

    fn one_of<const N: usize>(&mut self, faults: [(f64, Fault); N]) -> Option<Fault> {
        faults.into_iter().find_map(|(chance, fault)| self.random.chance(chance).then_some(fault))
    }
}

/// SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than `end`")]
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// A probability of 0 draws no number, so an added fault of probability 0 does not change when
    /// the others occur.
    fn chance(&mut self, probability: f64) -> bool {
        const STEPS: f64 = (1u64 << 32) as f64;
        probability > 0.0 && ((self.next() >> 32) as f64) < probability.min(0.9) * STEPS
    }
}
