//! Packets that all come in two halves: first the first halves on all connections, then the second.

use std::time::Duration;

use anyhow::{Result, bail};
use mio::Events;

use super::EVENTS;
use super::crowd::Crowd;
use super::lane::Lane;
use super::progress::Progress;
use crate::address::Address;

/// Connections, on all of which the same half packet is under way, or none.
#[derive(Debug)]
pub(crate) struct Burst {
    crowd: Crowd,
    first_half: u64,
}

impl Burst {
    /// Opens the connections, and sends nothing yet.
    pub(crate) fn connect(address: &Address, connections: usize, payload: usize) -> Result<Self> {
        let mut crowd = Crowd::new(address, payload)?;
        crowd.connect(connections)?;
        Ok(Self { first_half: crowd.pattern.frame() / 2, crowd })
    }

    /// Sends the first half of a packet on every connection.
    pub(crate) fn begin_packets(&mut self) -> Result<()> {
        self.say_on_all(self.first_half)?;
        self.crowd.serve_until(0, Lane::is_sent)
    }

    /// Sends the second half on every connection, and returns when all packets were answered. An
    /// error if anything came before.
    pub(crate) fn end_packets(&mut self) -> Result<()> {
        let frame = self.crowd.pattern.frame();
        let (mut progress, mut events) = (Progress::new(), Events::with_capacity(EVENTS));
        self.crowd.serve(&mut progress, &mut events, Some(Duration::ZERO))?;
        if self.crowd.lanes.iter().any(|lane| !lane.received().is_multiple_of(frame)) {
            bail!("half a packet was answered");
        }
        self.say_on_all(frame - self.first_half)?;
        self.crowd.serve_until(0, Lane::is_answered)
    }

    /// Takes answers in between, so that none has to wait for the generator.
    fn say_on_all(&mut self, bytes: u64) -> Result<()> {
        let (mut progress, mut events) = (Progress::new(), Events::with_capacity(EVENTS));
        for at in 0..self.crowd.lanes.len() {
            self.crowd.send(at, bytes)?;
            self.crowd.serve(&mut progress, &mut events, Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    const CONNECTIONS: usize = 3;
    const PAYLOAD: usize = 60_000;

    /// Echoes in pieces of this many bytes, on each connection until it ends.
    fn echo(piece: usize) -> (Address, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        let server = thread::spawn(move || {
            let serve = |_| {
                let (mut stream, _) = listener.accept().unwrap();
                thread::spawn(move || {
                    let mut bytes = vec![0; piece];
                    while stream
                        .read_exact(&mut bytes)
                        .and_then(|()| stream.write_all(&bytes))
                        .is_ok()
                    {}
                })
            };
            let threads: Vec<_> = (0..CONNECTIONS).map(serve).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        (address, server)
    }

    #[test]
    fn packets_are_answered_when_both_halves_have_come() {
        let (address, server) = echo(PAYLOAD + 2);
        let mut burst = Burst::connect(&address, CONNECTIONS, PAYLOAD).unwrap();
        for round in 1..=2 {
            burst.begin_packets().unwrap();
            assert!(burst.crowd.lanes.iter().all(|lane| lane.received() < lane.sent()));
            burst.end_packets().unwrap();
            let answered = round * burst.crowd.pattern.frame();
            assert!(burst.crowd.lanes.iter().all(|lane| lane.received() == answered));
        }
        drop(burst);
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_does_not_wait_for_the_second_half_is_found_out() {
        let (address, server) = echo(1000);
        let mut burst = Burst::connect(&address, CONNECTIONS, PAYLOAD).unwrap();
        burst.begin_packets().unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(burst.end_packets().unwrap_err().to_string().contains("half a packet"));
        drop(burst);
        server.join().unwrap();
    }
}
