//! Drains of either node while packets are under way.

use condor::sim::Node;

use super::{Pair, dials, ms, pair, secs};

const GREETING: &[&[u8]] = &[b"one", b"two", b"three"];

/// Drains a node at this moment, and checks what holds for both.
fn drained(at: u64, node: impl Fn(&Pair) -> Node) -> Pair {
    let pair = pair(at, dials(), GREETING);
    pair.link().latency(ms(10)).buffer(5);
    pair.sim.run_for(ms(at));
    let drain = pair.sim.with(node(&pair), |reactor| reactor.handle().shutdown());
    let drain = drain.expect("the reactor runs");
    assert!(pair.sim.run_until(|_| drain.report().is_some()));
    assert_eq!(drain.report().map(|report| report.forced), Some(0), "a drain after {at} ms");
    assert!(pair.sim.now() < ms(at) + secs(10), "the drain was over by {:?}", pair.sim.now());
    pair.sim.run_for(secs(10));
    assert_eq!(pair.sim.streams(node(&pair)), 0);
    assert_eq!((pair.at_server.open(), pair.at_client.open()), (0, 0));
    for life in pair.at_server.all().iter().chain(&pair.at_client.all()) {
        assert!(GREETING.starts_with(&slices(&life.packets)), "{life:?} after {at} ms");
    }
    pair
}

fn slices(packets: &[Vec<u8>]) -> Vec<&[u8]> {
    packets.iter().map(Vec::as_slice).collect()
}

/// Goal: a server that drains answers all packets that have reached its handler, and the answers
/// arrive; a frame that is under way arrives whole or not at all. Method: a drain in each millisecond,
/// from before the connection to after the last answer, over a buffer that holds no whole greeting.
#[test]
fn a_server_drains_with_frames_under_way() {
    let mut answered = Vec::new();
    for at in 0..160 {
        let pair = drained(at, |pair| pair.server);
        let (seen, got) = (pair.at_server.last().packets, pair.at_client.last().packets);
        assert_eq!(seen, got, "a drain after {at} ms");
        answered.push(got.len());
    }
    answered.sort_unstable();
    answered.dedup();
    assert_eq!(answered, [0, 1, 2, 3], "the drains met all stages");
}

/// Goal: a client that drains ends its connections and dials, and what is under way is dropped whole.
/// Method: as before.
#[test]
fn a_client_drains_with_frames_under_way() {
    for at in 0..160 {
        let pair = drained(at, |pair| pair.client);
        let before = pair.sim.attempts(pair.client).len();
        pair.sim.run_for(secs(60));
        assert_eq!(pair.sim.attempts(pair.client).len(), before, "it dials no more");
    }
}
