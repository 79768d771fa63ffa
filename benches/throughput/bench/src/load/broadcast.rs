//! Fan-out: one connection speaks, every connection hears, the speaker too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Result;
use mio::Events;

use super::crowd::Crowd;
use super::patience::Patience;
use super::{EVENTS, Latencies, Session};

pub(super) struct Broadcast {
    crowd: Crowd,
    depth: u64,
    /// Packets not heard by all yet, the oldest first: when each was sent and how many heard it.
    under_way: VecDeque<(Instant, usize)>,
}

impl Broadcast {
    pub(super) fn connect(
        address: SocketAddr,
        connections: usize,
        payload: usize,
        depth: u64,
    ) -> Result<Self> {
        let mut crowd = Crowd::new(address, payload)?;
        crowd.connect(connections)?;
        Ok(Self { crowd, depth, under_way: VecDeque::new() })
    }

    /// The last connection: a server that reads from it has accepted all others.
    fn speaker(&self) -> usize {
        self.crowd.lanes.len() - 1
    }

    fn say(&mut self) -> Result<()> {
        let speaker = self.speaker();
        let Crowd { lanes, pattern, .. } = &mut self.crowd;
        lanes[speaker].allow(pattern.frame());
        self.under_way.push_back((Instant::now(), 0));
        lanes[speaker].send(pattern)
    }

    /// Receives on one connection and notes what it heard.
    fn hear(&mut self, at: usize, to_the_end: bool) -> Result<()> {
        let speaker = self.speaker();
        let Crowd { lanes, pattern, input, .. } = &mut self.crowd;
        let said = lanes[speaker].sent();
        let oldest = lanes[speaker].target() / pattern.frame() - self.under_way.len() as u64;
        let before = lanes[at].received() / pattern.frame();
        lanes[at].hear(speaker as u16, said, pattern, input, to_the_end)?;
        for frame in before..lanes[at].received() / pattern.frame() {
            self.under_way[(frame - oldest) as usize].1 += 1;
        }
        Ok(())
    }

    /// Forgets the packets that all have heard. Gives their number.
    fn settle(&mut self, latencies: &mut Latencies) -> u64 {
        let mut settled = 0;
        while let Some(&(sent, heard)) = self.under_way.front()
            && heard == self.crowd.lanes.len()
        {
            latencies.saturating_record(sent.elapsed().as_nanos() as u64);
            self.under_way.pop_front();
            settled += 1;
        }
        settled
    }
}

impl Session for Broadcast {
    fn run(&mut self, packets: u64, latencies: &mut Latencies) -> Result<()> {
        let (mut patience, mut events) = (Patience::new(), Events::with_capacity(EVENTS));
        let said = packets / self.crowd.lanes.len() as u64;
        let (mut unsaid, mut unsettled) = (said, said);
        for _ in 0..self.depth.min(said) {
            unsaid -= 1;
            self.say()?;
        }
        while unsettled > 0 {
            patience.wait(&mut self.crowd.poll, &mut events, None)?;
            for event in &events {
                if event.is_readable() || event.is_error() {
                    self.hear(event.token().0, event.is_read_closed())?;
                }
            }
            let settled = self.settle(latencies);
            unsettled -= settled;
            for _ in 0..settled.min(unsaid) {
                unsaid -= 1;
                self.say()?;
            }
        }
        Ok(())
    }
}
