//! Output of real sockets: how much a turn writes, and when it stalls.

use std::io::Read;

use super::turns::Turns;
use super::*;
use crate::reason::CloseReason;

/// Goal: one connection's output in a turn is bounded, and it all arrives. Method: answers of
/// 100 kB and of 1 MB, copied and shared, to a client that takes all of them after each turn.
#[test]
fn the_output_of_a_turn_is_bounded() {
    for (packet, largest) in [(b"b\x01", 100_004), (b"b\x0a", 1_000_004), (b"s\x0a", 100_004)] {
        const BUDGET: u64 = 256 * 1024;
        let mut turns = Turns::new(ReactorOptions::new(), 1);
        let client = turns.connect(0);
        turns.clients[client].set_nonblocking(true).unwrap();
        turns.send(client, packet, 20);
        let kilobytes = if packet[0] == b's' { 100 * 10 } else { 100 * u64::from(packet[1]) };
        let pieces = if packet[0] == b's' { 10 } else { 1 };
        let total = 20 * (1_000 * kilobytes + 4 * pieces);
        let (mut sent, mut taken) = (0, 0);
        let mut buffer = vec![0; 1 << 20];
        let mut turns_taken = 0;
        while taken < total {
            turns.turn();
            turns_taken += 1;
            let now = turns.stats(|stats| stats.bytes_out);
            assert!(now - sent <= BUDGET + largest, "{} bytes in a turn", now - sent);
            sent = now;
            while let Ok(count) = turns.clients[client].read(&mut buffer) {
                taken += count as u64;
            }
        }
        assert_eq!(taken, total);
        assert!(turns_taken >= total / (BUDGET + largest));
        assert!(turns.stats(|stats| stats.output_budget_hits) > 0 || packet[0] == b'b');
    }
}

/// Goal: a peer that reads slowly is not taken for one that reads nothing, although the kernel
/// announces no space; one that reads nothing is ended. Method: a queue that the kernel refuses; the
/// client takes less than a third of the send buffer; the clock passes the stall timeout.
#[test]
fn a_stall_is_judged_by_asking_the_kernel() {
    is_judged_by_asking(Duration::from_secs(60), false, CloseReason::WriteStalled);
}

/// Goal: the same for a peer that has ended its half. Method: its timeout is shorter than the time to
/// the next offer of the queue.
#[test]
fn a_half_closed_peer_is_given_up_only_after_asking_the_kernel() {
    is_judged_by_asking(Duration::from_secs(30), true, CloseReason::HalfCloseTimeout);
}

fn is_judged_by_asking(timeout: Duration, half_closed: bool, reason: CloseReason) {
    let mut turns = Turns::with(ReactorOptions::new(), 1, |options| match half_closed {
        true => options.write_stall_timeout(Duration::from_secs(3_600)),
        false => options,
    });
    turns.probe.owing.set(half_closed);
    let client = turns.connect_with(0, Some(16 * 1024));
    turns.clients[client].set_nonblocking(true).unwrap();
    turns.send(client, b"b\x28", 4);
    if half_closed {
        turns.clients[client].shutdown(std::net::Shutdown::Write).unwrap();
    }
    let sent = |turns: &Turns| turns.stats(|stats| stats.bytes_out);
    let mut settled = 0;
    while settled < 50 {
        let before = sent(&turns);
        turns.turn();
        settled = if sent(&turns) == before { settled + 1 } else { 0 };
        std::thread::yield_now();
    }
    let mut buffer = vec![0; 64 * 1024];
    let mut lived = 0;
    for _ in 0..4 {
        // Less than makes the kernel announce space.
        let mut taken = 0;
        while taken < 128 * 1024 {
            match turns.clients[client].read(&mut buffer) {
                Ok(count) => taken += count,
                Err(_) => std::thread::yield_now(),
            }
        }
        let before = sent(&turns);
        let wait = if half_closed { timeout } else { timeout / 4 };
        turns.probe.hand.advance(wait + Duration::from_millis(2));
        turns.reactor.look_at_clock();
        turns.turn();
        turns.turn();
        lived += u32::from(sent(&turns) > before);
        assert_eq!(*turns.probe.ends.borrow(), []);
    }
    assert_eq!(lived, 4, "bytes were taken each time");
    // The network may still move bytes out of the kernel's buffer, a few times.
    for _ in 0..50 {
        turns.probe.hand.advance(timeout + Duration::from_millis(2));
        turns.reactor.look_at_clock();
        turns.turn();
        turns.turn();
    }
    assert_eq!(*turns.probe.ends.borrow(), [reason]);
}
