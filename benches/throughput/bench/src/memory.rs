//! What a server's memory is: with idle connections, and around a burst.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::account::{Account, Accounts};
use crate::interrupt;
use crate::load::{Burst, Crowd};
use crate::proc;
use crate::process::{Launch, Running};

/// Memory is read this long after the last answer, and CPU is counted for as long after that.
const REST: Duration = Duration::from_millis(300);
/// Between the halves of a burst's packets: long enough for the server to have read the first.
const BETWEEN_HALVES: Duration = Duration::from_millis(50);
/// After a burst, memory is read once more when this has passed.
pub(crate) const LATER: Duration = Duration::from_secs(60);

/// Resident memory of a server with this many idle connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Resident {
    pub(crate) connections: usize,
    pub(crate) bytes: u64,
}

/// Memory of one server as idle connections are added; the first entry is the server with one
/// connection.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) steps: Vec<Resident>,
    /// CPU the server took in a second in which nothing happened, with the most connections.
    pub(crate) cpu: Duration,
    pub(crate) io: &'static str,
}

/// Opens more and more connections to a fresh server, has one packet answered on each, and reads
/// its resident memory.
pub(crate) fn idle(launch: &Launch<'_>, payload: usize, counts: &[usize]) -> Result<Idle> {
    let mut server = Running::start(launch)?;
    let result = (|| {
        let mut crowd = Crowd::new(server.address(), payload)?;
        let mut steps = Vec::new();
        for &connections in [1].iter().chain(counts) {
            crowd.grow(connections)?;
            thread::sleep(REST);
            steps.push(Resident { connections, bytes: proc::resident(server.pid())? });
        }
        let before = Accounts::of(server.pid())?;
        thread::sleep(REST);
        let added: Account = Accounts::of(server.pid())?.since(&before).into_iter().sum();
        let cpu = added.ran.div_f64(REST.as_secs_f64());
        Ok(Idle { steps, cpu, io: proc::kind_of_io(server.pid())? })
    })();
    result.map_err(|error| server.explain(error))
}

/// Resident memory of one server, in bytes, around a burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    pub(crate) before: u64,
    pub(crate) highest: u64,
    pub(crate) after: u64,
    pub(crate) later: u64,
}

/// A server that a burst has passed over, its connections still open.
#[derive(Debug)]
pub(crate) struct Passed {
    server: Running,
    _connections: Burst,
    before: u64,
    highest: u64,
    after: u64,
    since: Instant,
}

/// Sends a burst to a fresh server.
pub(crate) fn burst(
    launch: &Launch<'_>,
    connections: usize,
    payload: usize,
    rounds: u32,
) -> Result<Passed> {
    let mut server = Running::start(launch)?;
    let result = (|| {
        let mut burst = Burst::connect(server.address(), connections, payload)?;
        thread::sleep(REST);
        let before = proc::resident(server.pid())?;
        let mut highest = before;
        for _ in 0..rounds {
            burst.begin_packets()?;
            thread::sleep(BETWEEN_HALVES);
            highest = highest.max(proc::resident(server.pid())?);
            burst.end_packets()?;
        }
        let (after, since) = (proc::resident(server.pid())?, Instant::now());
        highest = highest.max(after).max(proc::most_resident(server.pid())?);
        Ok((burst, before, highest, after, since))
    })();
    match result {
        Ok((connections, before, highest, after, since)) => {
            Ok(Passed { server, _connections: connections, before, highest, after, since })
        }
        Err(error) => Err(server.explain(error)),
    }
}

impl Passed {
    /// Waits until it was long enough ago.
    pub(crate) fn wait(self) -> Result<Around> {
        let Self { mut server, before, highest, after, since, .. } = self;
        interrupt::sleep_until(since + LATER)?;
        match proc::resident(server.pid()) {
            Ok(later) => Ok(Around { before, highest, after, later }),
            Err(error) => Err(server.explain(error)),
        }
    }
}
