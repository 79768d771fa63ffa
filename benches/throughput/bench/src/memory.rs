//! What a server's memory is with idle connections.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::account::{Account, Accounts};
use crate::load::Crowd;
use crate::proc;
use crate::process::{Launch, Running};

/// Memory is read this long after the last answer, and CPU is counted for as long after that.
const REST: Duration = Duration::from_millis(300);

/// Resident memory of a server with so many idle connections.
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
