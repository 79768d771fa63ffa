//! The scenarios: what the generator does to a server.

use std::time::Duration;

use clap::ValueEnum;

/// A load whose packets are counted: what each costs, and how long it takes. Payload sizes are in
/// bytes, without the 2-byte length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Every connection keeps `depth` packets under way: an answer is followed by the next packet.
    /// The generator sleeps until answers come, or looks for them all the time.
    Closed { connections: usize, payload: usize, depth: u64, awake: bool },
    /// Packets leave at fixed times, `rate` a second over all connections, whether or not answers
    /// came.
    Open { connections: usize, payload: usize, rate: u64 },
    /// Connect, one packet, check the answer, reset; `at_once` connections at a time.
    Churn { at_once: usize, payload: usize },
    /// One connection sends, and all receive; `depth` packets are in transit. A packet counts once for
    /// each connection that receives it.
    Broadcast { connections: usize, payload: usize, depth: u64 },
}

/// What is done and what is measured meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// CPU per packet, latency and packets per second under a load.
    Load(Load),
    /// The same over a Unix socket.
    Unix(Load),
    /// The same as `Load` through a gateway, which is the server that is measured. Its backend, an echo server,
    /// is on the generator's core.
    Gateway(Load),
    /// Memory and CPU with connections that got one answer and then send nothing.
    Idle { payload: usize },
    /// Memory before, during and after packets that all come in two halves, `rounds` of them on
    /// each connection: between the halves the server holds as many halves as there are
    /// connections.
    Burst { connections: usize, payload: usize, rounds: u32 },
}

/// A job with a name.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) job: Job,
}

pub(crate) static SCENARIOS: [&Scenario; 19] = [
    &Scenario {
        name: "depth1",
        what: "depth 1, 200 connections, 64 B",
        job: Job::Load(Load::Closed { connections: 200, payload: 64, depth: 1, awake: false }),
    },
    &Scenario {
        name: "depth64",
        what: "depth 64, 50 connections, 64 B",
        job: Job::Load(Load::Closed { connections: 50, payload: 64, depth: 64, awake: false }),
    },
    &Scenario {
        name: "depth512",
        what: "depth 512, 50 connections, 8 B",
        job: Job::Load(Load::Closed { connections: 50, payload: 8, depth: 512, awake: false }),
    },
    &Scenario {
        name: "large",
        what: "depth 4, 20 connections, 60,000 B",
        job: Job::Load(Load::Closed { connections: 20, payload: 60_000, depth: 4, awake: false }),
    },
    &Scenario {
        name: "churn",
        what: "connect, one packet, reset",
        job: Job::Load(Load::Churn { at_once: 50, payload: 64 }),
    },
    &Scenario {
        name: "single",
        what: "one connection at depth 1, 64 B",
        job: Job::Load(Load::Closed { connections: 1, payload: 64, depth: 1, awake: false }),
    },
    &Scenario {
        name: "single-awake",
        what: "one connection at depth 1, 64 B, generator never asleep",
        job: Job::Load(Load::Closed { connections: 1, payload: 64, depth: 1, awake: true }),
    },
    &Scenario {
        name: "open",
        what: "open loop, 20,000 packets a second, 100 connections, 64 B",
        job: Job::Load(Load::Open { connections: 100, payload: 64, rate: 20_000 }),
    },
    &Scenario {
        name: "broadcast",
        what: "broadcast, 100 connections, 64 B",
        job: Job::Load(Load::Broadcast { connections: 100, payload: 64, depth: 8 }),
    },
    &Scenario {
        name: "fanout-100",
        what: "fan-out, 100 members, 64 B, the next when all have the last",
        job: Job::Load(Load::Broadcast { connections: 100, payload: 64, depth: 1 }),
    },
    &Scenario {
        name: "fanout-1000",
        what: "fan-out, 1,000 members, 64 B, the next when all have the last",
        job: Job::Load(Load::Broadcast { connections: 1_000, payload: 64, depth: 1 }),
    },
    &Scenario {
        name: "fanout-10000",
        what: "fan-out, 10,000 members, 64 B, the next when all have the last",
        job: Job::Load(Load::Broadcast { connections: 10_000, payload: 64, depth: 1 }),
    },
    &Scenario {
        name: "unix-1",
        what: "Unix socket, depth 1, 200 connections, 64 B",
        job: Job::Unix(Load::Closed { connections: 200, payload: 64, depth: 1, awake: false }),
    },
    &Scenario {
        name: "unix-64",
        what: "Unix socket, depth 64, 50 connections, 64 B",
        job: Job::Unix(Load::Closed { connections: 50, payload: 64, depth: 64, awake: false }),
    },
    &Scenario {
        name: "gateway-1",
        what: "through a gateway, depth 1, 50 connections, 64 B",
        job: Job::Gateway(Load::Closed { connections: 50, payload: 64, depth: 1, awake: false }),
    },
    &Scenario {
        name: "gateway-16",
        what: "through a gateway, depth 16, 50 connections, 64 B",
        job: Job::Gateway(Load::Closed { connections: 50, payload: 64, depth: 16, awake: false }),
    },
    &Scenario {
        name: "gateway-single",
        what: "through a gateway, one connection at depth 1, 64 B",
        job: Job::Gateway(Load::Closed { connections: 1, payload: 64, depth: 1, awake: false }),
    },
    &Scenario { name: "idle", what: "idle connections", job: Job::Idle { payload: 64 } },
    &Scenario {
        name: "burst",
        what: "10,000 packets of 60,000 B over 1,000 connections, each cut in two",
        job: Job::Burst { connections: 1_000, payload: 60_000, rounds: 10 },
    },
];

impl Scenario {
    /// Whether every server can run it, and has to.
    pub(crate) fn is_for_all(&self) -> bool {
        match self.job {
            Job::Load(load) => !matches!(load, Load::Broadcast { .. }),
            Job::Idle { .. } => true,
            Job::Unix(_) | Job::Gateway(_) | Job::Burst { .. } => false,
        }
    }

    /// Whether it takes too long for a first look.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self.job, Job::Burst { .. }) || self.connections() >= 10_000
    }

    /// The connections that are open at once. Idle ones have numbers of their own.
    pub(crate) fn connections(&self) -> usize {
        match self.job {
            Job::Load(load) | Job::Unix(load) | Job::Gateway(load) => load.connections(),
            Job::Burst { connections, .. } => connections,
            Job::Idle { .. } => 0,
        }
    }

    pub(crate) fn is_gateway(&self) -> bool {
        matches!(self.job, Job::Gateway(_))
    }

    /// Whether the server listens at a path.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.job, Job::Unix(_))
    }

    /// Whether packets are counted.
    pub(crate) fn is_load(&self) -> bool {
        matches!(self.job, Job::Load(_) | Job::Unix(_) | Job::Gateway(_))
    }

    pub(crate) fn is_broadcast(&self) -> bool {
        matches!(self.job, Job::Load(Load::Broadcast { .. }))
    }
}

impl Load {
    /// The connections that are open at once.
    fn connections(self) -> usize {
        match self {
            Self::Closed { connections, .. }
            | Self::Open { connections, .. }
            | Self::Broadcast { connections, .. } => connections,
            Self::Churn { at_once, .. } => at_once,
        }
    }

    /// Packets of one round where the load itself says how many that is.
    pub(crate) fn fixed_packets(self, round: Duration) -> Option<u64> {
        match self {
            Self::Open { rate, .. } => Some((rate as f64 * round.as_secs_f64()) as u64),
            _ => None,
        }
    }

    /// The fewest packets that put every connection to work a few times.
    pub(crate) fn fewest_packets(self) -> u64 {
        match self {
            Self::Closed { connections, depth, .. } => 4 * connections as u64 * depth,
            Self::Broadcast { connections, depth, .. } => 4 * connections as u64 * depth,
            Self::Open { connections, .. } => connections as u64,
            Self::Churn { at_once, .. } => 4 * at_once as u64,
        }
    }

    /// Packets are counted in portions of this many.
    pub(crate) fn portion(self) -> u64 {
        match self {
            Self::Broadcast { connections, .. } => connections as u64,
            _ => 1,
        }
    }
}

/// A scenario on the command line.
impl ValueEnum for &'static Scenario {
    fn value_variants<'a>() -> &'a [Self] {
        &SCENARIOS
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name).help(self.what))
    }
}
