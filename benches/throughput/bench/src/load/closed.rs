//! Closed loop: every connection keeps a fixed number of packets under way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::Events;

use super::crowd::Crowd;
use super::progress::Progress;
use super::{EVENTS, Latencies, Session};
use crate::address::Address;

pub(super) struct Closed {
    crowd: Crowd,
    depth: u64,
    /// How long the generator sleeps at most, if that is bounded.
    longest_sleep: Option<Duration>,
    /// For every connection: up to which frame packets were sent, and when.
    marks: Vec<VecDeque<(u64, Instant)>>,
}

impl Closed {
    pub(super) fn connect(
        address: &Address,
        connections: usize,
        payload: usize,
        depth: u64,
        awake: bool,
    ) -> Result<Self> {
        let mut crowd = Crowd::new(address, payload)?;
        crowd.grow(connections)?;
        let longest_sleep = awake.then_some(Duration::ZERO);
        Ok(Self { crowd, depth, longest_sleep, marks: vec![VecDeque::new(); connections] })
    }

    /// Sends `packets` more packets on one connection.
    fn send(&mut self, at: usize, packets: u64, now: Instant) -> Result<()> {
        let Crowd { lanes, pattern, .. } = &mut self.crowd;
        if packets > 0 {
            lanes[at].allow(packets * pattern.frame());
            self.marks[at].push_back((lanes[at].target() / pattern.frame(), now));
        }
        lanes[at].send(pattern)
    }

    /// Receives on one connection. Returns the number of packets answered.
    fn receive(&mut self, at: usize, to_the_end: bool, latencies: &mut Latencies) -> Result<u64> {
        let Crowd { lanes, pattern, input, .. } = &mut self.crowd;
        let before = lanes[at].received() / pattern.frame();
        lanes[at].receive(pattern, input, to_the_end)?;
        let after = lanes[at].received() / pattern.frame();
        record(&mut self.marks[at], before, after, latencies);
        Ok(after - before)
    }
}

/// Records how long the frames from `before` to `after` took, and forgets the marks that are done
/// with.
fn record(
    marks: &mut VecDeque<(u64, Instant)>,
    before: u64,
    after: u64,
    latencies: &mut Latencies,
) {
    let now = Instant::now();
    let mut frame = before;
    while frame < after
        && let Some(&(end, sent)) = marks.front()
    {
        let upto = end.min(after);
        latencies.saturating_record_n(now.duration_since(sent).as_nanos() as u64, upto - frame);
        frame = upto;
        if upto == end {
            marks.pop_front();
        }
    }
}

impl Session for Closed {
    fn run(&mut self, packets: u64, latencies: &mut Latencies) -> Result<()> {
        let (mut progress, mut events) = (Progress::new(), Events::with_capacity(EVENTS));
        let (mut unsent, mut unanswered) = (packets, packets);
        for at in 0..self.crowd.lanes.len() {
            let first = unsent.min(self.depth);
            unsent -= first;
            self.send(at, first, Instant::now())?;
        }
        while unanswered > 0 {
            progress.wait(&mut self.crowd.poll, &mut events, self.longest_sleep)?;
            for event in &events {
                let at = event.token().0;
                let answered = if event.is_readable() || event.is_error() {
                    self.receive(at, event.is_read_closed(), latencies)?
                } else {
                    0
                };
                unanswered -= answered;
                let next = unsent.min(answered);
                unsent -= next;
                self.send(at, next, Instant::now())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_recorded_once_with_its_own_time() {
        let now = Instant::now();
        let (old, new) = (now - Duration::from_secs(10), now - Duration::from_secs(1));
        let mut marks = VecDeque::from([(3, old), (5, new)]);
        let mut latencies = crate::load::latencies();
        record(&mut marks, 0, 2, &mut latencies);
        assert_eq!((latencies.len(), marks.len()), (2, 2));
        record(&mut marks, 2, 5, &mut latencies);
        assert_eq!((latencies.len(), marks.len()), (5, 0));
        assert!(latencies.value_at_quantile(0.5) > 9_000_000_000);
        assert!(latencies.min() < 2_000_000_000);
    }
}
