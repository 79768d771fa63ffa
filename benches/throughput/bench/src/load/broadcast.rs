//! Fan-out: one connection sends, and every connection receives, the sender as well.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;
use mio::Events;

use super::crowd::Crowd;
use super::progress::Progress;
use super::{EVENTS, Latencies, Session};
use crate::address::Address;

pub(super) struct Broadcast {
    crowd: Crowd,
    depth: u64,
    /// Packets that not all connections have received, the oldest first: the time at which each was
    /// sent, and how many connections have received it.
    under_way: VecDeque<(Instant, usize)>,
}

impl Broadcast {
    pub(super) fn connect(
        address: &Address,
        connections: usize,
        payload: usize,
        depth: u64,
    ) -> Result<Self> {
        let mut crowd = Crowd::new(address, payload)?;
        crowd.connect(connections)?;
        Ok(Self { crowd, depth, under_way: VecDeque::new() })
    }

    /// The last connection. A server that reads from it has accepted all others.
    fn sender(&self) -> usize {
        self.crowd.lanes.len() - 1
    }

    fn send(&mut self) -> Result<()> {
        let sender = self.sender();
        let Crowd { lanes, pattern, .. } = &mut self.crowd;
        lanes[sender].allow(pattern.frame());
        self.under_way.push_back((Instant::now(), 0));
        lanes[sender].send(pattern)
    }

    /// Receives on one connection, and counts the packets.
    fn receive(&mut self, at: usize, to_the_end: bool) -> Result<()> {
        let sender = self.sender();
        let Crowd { lanes, pattern, input, .. } = &mut self.crowd;
        let sent = lanes[sender].sent();
        let oldest = lanes[sender].target() / pattern.frame() - self.under_way.len() as u64;
        let before = lanes[at].received() / pattern.frame();
        lanes[at].receive_of(sender as u16, sent, pattern, input, to_the_end)?;
        for frame in before..lanes[at].received() / pattern.frame() {
            self.under_way[(frame - oldest) as usize].1 += 1;
        }
        Ok(())
    }

    /// Drops the packets that all connections have received. Returns their number.
    fn settle(&mut self, latencies: &mut Latencies) -> u64 {
        let mut settled = 0;
        while let Some(&(sent, received)) = self.under_way.front()
            && received == self.crowd.lanes.len()
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
        let (mut progress, mut events) = (Progress::new(), Events::with_capacity(EVENTS));
        let sent = packets / self.crowd.lanes.len() as u64;
        let (mut unsent, mut unsettled) = (sent, sent);
        for _ in 0..self.depth.min(sent) {
            unsent -= 1;
            self.send()?;
        }
        while unsettled > 0 {
            progress.wait(&mut self.crowd.poll, &mut events, None)?;
            for event in &events {
                if event.is_readable() || event.is_error() {
                    self.receive(event.token().0, event.is_read_closed())?;
                }
            }
            let settled = self.settle(latencies);
            unsettled -= settled;
            for _ in 0..settled.min(unsent) {
                unsent -= 1;
                self.send()?;
            }
        }
        Ok(())
    }
}
