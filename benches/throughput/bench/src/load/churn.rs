//! Churn: connect, one packet, check the answer, reset; the next.

use std::time::Instant;

use anyhow::Result;
use mio::{Events, Poll, Token};

use super::lane::Lane;
use super::pattern::Pattern;
use super::progress::Progress;
use super::{EVENTS, Latencies, Session};
use crate::address::Address;

/// Room for one answer and what should not be there.
const INPUT: usize = 64 * 1024;

pub(super) struct Churn {
    address: Address,
    at_once: usize,
    pattern: Pattern,
    poll: Poll,
    /// Connections made so far: what tells their packets apart.
    serial: u16,
}

impl Churn {
    pub(super) fn new(address: &Address, at_once: usize, payload: usize) -> Result<Self> {
        Ok(Self {
            address: address.clone(),
            at_once,
            pattern: Pattern::new(payload, INPUT)?,
            poll: Poll::new()?,
            serial: 0,
        })
    }

    fn begin(&mut self, slot: usize) -> Result<(Lane, Instant)> {
        self.serial = self.serial.wrapping_add(1);
        let begun = Instant::now();
        let mut lane = Lane::begin(&self.address, self.serial, self.poll.registry(), Token(slot))?;
        lane.allow(self.pattern.frame());
        lane.send(&mut self.pattern)?;
        Ok((lane, begun))
    }
}

impl Session for Churn {
    fn run(&mut self, packets: u64, latencies: &mut Latencies) -> Result<()> {
        let (mut progress, mut events) = (Progress::new(), Events::with_capacity(EVENTS));
        let mut input = vec![0; INPUT];
        let at_once = self.at_once.min(packets as usize);
        let mut slots =
            (0..at_once).map(|slot| self.begin(slot).map(Some)).collect::<Result<Vec<_>>>()?;
        let (mut begun, mut done) = (at_once as u64, 0);
        while done < packets {
            progress.wait(&mut self.poll, &mut events, None)?;
            for event in &events {
                let slot = event.token().0;
                let Some((lane, since)) = &mut slots[slot] else { continue };
                if event.is_writable() {
                    lane.send(&mut self.pattern)?;
                }
                if event.is_readable() || event.is_error() {
                    lane.receive(&mut self.pattern, &mut input, event.is_read_closed())?;
                }
                if lane.received() < self.pattern.frame() {
                    continue;
                }
                latencies.saturating_record(since.elapsed().as_nanos() as u64);
                done += 1;
                slots[slot] = None;
                if begun < packets {
                    begun += 1;
                    slots[slot] = Some(self.begin(slot)?);
                }
            }
        }
        Ok(())
    }
}
