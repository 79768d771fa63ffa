//! Open loop: packets leave at fixed times, and their latency counts from those times.
//!
//! A closed loop sends less while the server stalls, and so hides the stall. Here a packet that
//! could not be sent in time because the server or the network was behind has been waiting since
//! it was due.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::Events;

use super::crowd::Crowd;
use super::patience::Patience;
use super::{EVENTS, Latencies, Session};

/// Below this the generator does not sleep: `epoll_wait` counts in milliseconds.
const SPIN: Duration = Duration::from_millis(2);

pub(super) struct Open {
    crowd: Crowd,
    schedule: Schedule,
}

/// When which packet is due. Packet `k` goes out on connection `k % connections`.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    connections: u64,
    rate: u64,
}

impl Schedule {
    fn due(self, packet: u64) -> Duration {
        Duration::from_nanos((u128::from(packet) * 1_000_000_000 / u128::from(self.rate)) as u64)
    }

    fn connection_of(self, packet: u64) -> usize {
        (packet % self.connections) as usize
    }

    fn packet_of(self, connection: usize, nth: u64) -> u64 {
        nth * self.connections + connection as u64
    }
}

impl Open {
    pub(super) fn connect(
        address: SocketAddr,
        connections: usize,
        payload: usize,
        rate: u64,
    ) -> Result<Self> {
        let mut crowd = Crowd::new(address, payload)?;
        crowd.grow(connections)?;
        Ok(Self { crowd, schedule: Schedule { connections: connections as u64, rate } })
    }
}

impl Session for Open {
    fn run(&mut self, packets: u64, latencies: &mut Latencies) -> Result<()> {
        let schedule = self.schedule;
        let Crowd { lanes, pattern, input, poll, .. } = &mut self.crowd;
        let (mut patience, mut events) = (Patience::new(), Events::with_capacity(EVENTS));
        let earlier: Vec<u64> =
            lanes.iter().map(|lane| lane.received() / pattern.frame()).collect();
        let (mut sent, mut answered) = (0, 0);
        let start = Instant::now();
        while answered < packets {
            while sent < packets && schedule.due(sent) <= start.elapsed() {
                let lane = &mut lanes[schedule.connection_of(sent)];
                lane.allow(pattern.frame());
                lane.send(pattern)?;
                sent += 1;
            }
            let next = (sent < packets).then(|| schedule.due(sent).saturating_sub(start.elapsed()));
            patience.wait(
                poll,
                &mut events,
                next.map(|next| if next < SPIN { Duration::ZERO } else { next - SPIN }),
            )?;
            for event in &events {
                let at = event.token().0;
                let lane = &mut lanes[at];
                if event.is_writable() {
                    lane.send(pattern)?;
                }
                let before = lane.received() / pattern.frame();
                lane.receive(pattern, input, event.is_read_closed() || event.is_error())?;
                let now = start.elapsed();
                for frame in before..lane.received() / pattern.frame() {
                    let due = schedule.due(schedule.packet_of(at, frame - earlier[at]));
                    latencies.saturating_record(now.saturating_sub(due).as_nanos() as u64);
                    answered += 1;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_go_round_at_the_rate() {
        let schedule = Schedule { connections: 3, rate: 1000 };
        assert_eq!(schedule.due(1500), Duration::from_millis(1500));
        for packet in 0..10 {
            let connection = schedule.connection_of(packet);
            assert_eq!(schedule.packet_of(connection, packet / 3), packet);
        }
    }
}
