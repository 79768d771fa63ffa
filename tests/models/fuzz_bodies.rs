//! The fuzz bodies as plain tests: on the committed corpus, and on inputs from seeds.

use std::fs;
use std::path::Path;

use crate::bodies::{connection, faulty_framers, framing, handles, pairs, proxy, wheel};

/// Seeded inputs for each body that has them; `CONDOR_FUZZ_INPUTS` asks for another number.
const INPUTS: u64 = 2_000;

/// Runs `body` on every committed input of `target`, and prints the input that fails.
fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}")) {
        let path = entry.expect("the corpus can be listed").path();
        let input = fs::read(&path).expect("the corpus can be read");
        if std::panic::catch_unwind(|| body(&input)).is_err() {
            panic!("{} fails", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "no corpus for {target}");
}

#[test]
fn the_corpus_of_framing_holds() {
    replay("framing", framing::framing);
}

#[test]
fn the_corpus_of_encode_holds() {
    replay("encode", framing::encode);
}

#[test]
fn the_corpus_of_wheel_holds() {
    replay("wheel", wheel::wheel_ops);
}

#[test]
fn the_corpus_of_handles_holds() {
    replay("handles", handles::handles);
}

#[test]
fn the_corpus_of_faulty_framers_holds() {
    replay("faulty_framers", faulty_framers::faulty_framers);
}

#[test]
fn the_corpus_of_pairs_holds() {
    replay("pairs", pairs::pairs);
}

#[test]
fn the_corpus_of_proxy_holds() {
    replay("proxy", proxy::proxy);
}

#[test]
fn the_corpus_of_connection_holds() {
    replay("connection", connection::connection);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Bytes, many of them small, as lengths and operation codes are.
    fn bytes(&mut self) -> Vec<u8> {
        let len = self.next() % 400;
        let byte = |random: u64| {
            let [kind, byte, ..] = random.to_le_bytes();
            match kind % 8 {
                0..=3 => byte % 21,
                4 | 5 => byte % 64,
                _ => byte,
            }
        };
        (0..len).map(|_| byte(self.next())).collect()
    }
}

/// Goal: a faulty framer ends at most its own connection. Method: programs of a framer and
/// operations drawn from seeds. A failure prints its seed, and `CONDOR_FUZZ_SEED` replays that one
/// alone.
#[test]
fn seeded_faults_of_framers_end_only_their_connection() {
    seeded(faulty_framers::faulty_framers);
}

/// Runs `body` on inputs drawn from seeds. A failure prints its seed.
fn seeded(body: fn(&[u8])) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("CONDOR_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CONDOR_FUZZ_INPUTS").unwrap_or(INPUTS),
    };
    for seed in seeds {
        let input = Random(seed).bytes();
        if std::panic::catch_unwind(|| body(&input)).is_err() {
            panic!("CONDOR_FUZZ_SEED={seed} fails");
        }
    }
}

/// Goal: handles keep their promises at every time, in any order, on every thread. Method: calls drawn
/// from seeds, on three threads and two reactors, one after the other and in bursts; a model of the
/// promises. A failure prints its seed, and `CONDOR_FUZZ_SEED` replays that one alone.
#[test]
fn seeded_calls_of_handles_keep_their_promises() {
    seeded(handles::handles);
}

/// Goal: connections that become partners, stall and end in any order lose no byte and leave nothing.
/// Method: operations on four connections, drawn from seeds. A failure prints its seed, and
/// `CONDOR_FUZZ_SEED` replays that one alone.
#[test]
fn seeded_pairs_lose_nothing() {
    seeded(pairs::pairs);
}

/// Goal: a connection does what the model predicts. Method: operations drawn from seeds; a failure
/// prints its seed, and `CONDOR_FUZZ_SEED` replays that one alone.
#[test]
fn seeded_operations_go_as_the_model_predicts() {
    seeded(connection::connection);
}
