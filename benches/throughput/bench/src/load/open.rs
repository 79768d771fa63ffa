//! Open loop: packets leave at fixed times, and their latency counts from those times.
//!
//! A closed loop sends less while the server stalls, and so hides the stall. Here a packet that
//! could not be sent in time because the server or the network was behind has been waiting since
//! it was due.

use std::time::{Duration, Instant};

use anyhow::Result;
use mio::Events;

use super::crowd::Crowd;
use super::progress::Progress;
use super::{EVENTS, Latencies, Session};
use crate::address::Address;

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
        address: &Address,
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
        let (mut progress, mut events) = (Progress::new(), Events::with_capacity(EVENTS));
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
            progress.wait(
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
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn packets_go_round_at_the_rate() {
        let schedule = Schedule { connections: 3, rate: 1000 };
        assert_eq!(schedule.due(1500), Duration::from_millis(1500));
        for packet in 0..10 {
            let connection = schedule.connection_of(packet);
            assert_eq!(schedule.packet_of(connection, packet / 3), packet);
        }
    }

    /// Goal: a server that stands still for 200 ms is seen in every packet that was due meanwhile,
    /// 200 at this rate, and not in one for each connection.
    #[test]
    fn a_stall_is_in_the_latency_of_all_that_was_due_meanwhile() {
        const STALL: Duration = Duration::from_millis(200);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut seen, mut bytes) = (0, [0; 10]);
            while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {
                seen += 1;
                if seen == 100 {
                    thread::sleep(STALL);
                }
            }
        });
        let mut latencies = crate::load::latencies();
        let mut open = Open::connect(&address.into(), 1, 8, 1000).unwrap();
        open.run(500, &mut latencies).unwrap();
        assert_eq!(latencies.len(), 500);
        let half = (STALL / 2).as_nanos() as u64;
        assert!(latencies.count_between(half, u64::MAX) >= 90, "{latencies:?}");
        drop(open);
        server.join().unwrap();
    }
}
