//! One measurement: a fresh server, a warm-up, a counted load.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::account::{self, Account, Accounts};
use crate::load::{self, Latencies, Session};
use crate::proc;
use crate::process::{Launch, Running};
use crate::scenario::Load;

/// Between a load and the reading of the counters: the server goes to sleep, its scheduler account
/// is brought up to date.
const SETTLE: Duration = Duration::from_millis(5);

/// What one round of load cost.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) packets: u64,
    pub(crate) wall: Duration,
    pub(crate) server: Account,
    /// Threads of the server that did the work.
    pub(crate) threads: usize,
    /// The generator, and the backend of a gateway, which is on the same core.
    pub(crate) generator: Account,
    pub(crate) latencies: Latencies,
    pub(crate) io: &'static str,
}

/// Puts a fresh server under load. Without a number of packets, as many as take about `round`; the
/// sample says how many that is.
pub(crate) fn loaded(
    launch: &Launch<'_>,
    load: Load,
    round: Duration,
    packets: Option<u64>,
) -> Result<Sample> {
    let mut server = Running::start(launch)?;
    let result = (|| {
        let mut session = load::open(load, server.address())?;
        let packets = match packets.or(load.fixed_packets(round)) {
            Some(packets) => {
                session.run(whole_portions(load, packets / 5), &mut load::latencies())?;
                packets
            }
            None => find_number(load, session.as_mut(), round)?,
        };
        count(&server, session.as_mut(), packets)
    })();
    result.map_err(|error| server.explain(error))
}

/// Warms up with more and more packets, until it takes long enough to compute the packets of a round.
fn find_number(load: Load, session: &mut dyn Session, round: Duration) -> Result<u64> {
    let mut packets = load.fewest_packets();
    loop {
        let start = Instant::now();
        session.run(packets, &mut load::latencies())?;
        let took = start.elapsed();
        if took * 5 >= round {
            let fill = packets as f64 * round.as_secs_f64() / took.as_secs_f64();
            return Ok(whole_portions(load, fill as u64));
        }
        packets *= 2;
    }
}

fn whole_portions(load: Load, packets: u64) -> u64 {
    packets.max(load.fewest_packets()).next_multiple_of(load.portion())
}

fn count(server: &Running, session: &mut dyn Session, packets: u64) -> Result<Sample> {
    let mut latencies = load::latencies();
    thread::sleep(SETTLE);
    let of_generator = || -> Result<Account> {
        let backend = server.backend_pid().map(Accounts::of).transpose()?;
        let backend = backend.map(|backend| backend.sum()).unwrap_or_default();
        Ok([Account::of_this_thread()?, backend].into_iter().sum())
    };
    let (server_before, generator_before) = (Accounts::of(server.pid())?, of_generator()?);
    let start = Instant::now();
    session.run(packets, &mut latencies)?;
    let wall = start.elapsed();
    let generator = of_generator()? - generator_before;
    thread::sleep(SETTLE);
    let threads = Accounts::of(server.pid())?.since(&server_before);
    Ok(Sample {
        packets,
        wall,
        server: threads.iter().copied().sum(),
        threads: account::busy(&threads),
        generator,
        latencies,
        io: proc::kind_of_io(server.pid())?,
    })
}
