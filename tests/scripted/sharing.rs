//! Shared answers: a whole batch leaves in gathered writes.

use std::io::ErrorKind;

use bytes::Bytes;
use condor::testing::Harness;
use condor::{Action, CloseReason, Context, Framing, Handler, LengthField, ListenerOptions, Raw};

use crate::rig::{conclude, options};

/// A shared value of this length is not copied.
const LEN: usize = 35_000;

/// Answers each packet with a header, a shared value made of the packet's first byte, and a trailer.
struct Values {
    len: usize,
}

impl Handler for Values {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        assert_eq!(ctx.send("header "), Ok(()));
        if let Err(error) = ctx.send(Bytes::from(vec![packet[0]; self.len])) {
            return Action::stop(error.into());
        }
        Action::send("\r\n")
    }
}

/// The output that answers `requests`.
fn answers(len: usize, requests: &[u8]) -> Vec<u8> {
    let one = |request: &u8| [b"header ", &*vec![*request; len], b"\r\n"].concat();
    requests.iter().flat_map(one).collect()
}

/// The input with a request for each byte.
fn input(requests: &[u8]) -> Vec<u8> {
    requests.iter().flat_map(|request| [1, *request]).collect()
}

fn values(options: ListenerOptions, len: usize) -> Harness<Values> {
    let framing = Framing::split(LengthField::U8, Raw);
    Harness::new(options.framing(framing), move |_| Values { len })
}

/// Goal: a shared packet costs no write of its own. Method: one read with 16 requests whose values are
/// short, and one with 7 whose values are long; each answer is three packets.
#[test]
fn a_batch_with_shared_answers_leaves_in_one_write() {
    for (len, requests) in [(10_000, &b"abcdefghijklmnop"[..]), (LEN, b"abcdefg")] {
        let harness = values(options(), len);
        harness.receive(input(requests));
        assert!(harness.sent() == answers(len, requests), "{len} bytes");
        assert_eq!(harness.writes(), 1, "{len} bytes");
        conclude(&harness);
    }
}

/// Goal: no byte is lost or repeated wherever a gathered write is cut. Method: the peer takes a first
/// part that ends before, at and after each border between two pieces, or in the middle of one; then
/// the rest. Then writes that take at most so many bytes.
#[test]
fn a_gathered_write_cut_anywhere_loses_and_repeats_nothing() {
    let expected = answers(LEN, b"abc");
    let one = expected.len() / 3;
    let borders = (0..3).flat_map(|nth| [nth * one, nth * one + 7, nth * one + 7 + LEN]);
    let cuts = borders.flat_map(|border| (border.saturating_sub(2))..border + 3);
    for cut in cuts.chain([one / 2, one + one / 2]) {
        let harness = values(options(), LEN);
        harness.peer_stalls();
        harness.peer_reads(cut);
        harness.receive(input(b"abc"));
        assert!(harness.sent() == expected[..cut], "cut at {cut}");
        harness.peer_reads_all();
        assert!(harness.sent() == expected[cut..], "cut at {cut}");
        assert_eq!(harness.queued_bytes(), 0);
        conclude(&harness);
    }
    for most in [997, 34_999, LEN, 35_008, 70_001] {
        let harness = values(options(), LEN);
        harness.max_write(most);
        harness.receive(input(b"abc"));
        assert!(harness.sent() == expected, "at most {most} bytes a write");
        conclude(&harness);
    }
}

/// Goal: more pieces than one call takes leave in order, and no call is wasted: each takes the output
/// budget of a turn. Method: 1,100 shared values, 2,200 pieces, for a peer that stalls at first.
#[test]
fn more_pieces_than_one_call_takes_leave_in_order() {
    const BUDGET: usize = 256 * 1024;
    let requests: Vec<u8> = (0..1_100_u16).map(|number| (number % 251) as u8).collect();
    let harness = values(options().max_queued(64 << 20).write_high_water(64 << 20), LEN);
    harness.peer_stalls();
    harness.receive(input(&requests));
    let expected = answers(LEN, &requests);
    assert_eq!(harness.queued_bytes(), expected.len());
    harness.peer_reads_all();
    assert!(harness.sent() == expected);
    assert_eq!(harness.writes(), expected.len().div_ceil(BUDGET) as u64);
    conclude(&harness);
}

/// Goal: an error in the middle of a queue of several pieces is handled as at any other write. Method:
/// the peer takes one and a half answers; then the write is interrupted, refused, or fails.
#[test]
fn a_gathered_write_that_fails_in_the_middle_is_tried_again_or_ends_the_connection() {
    let expected = answers(LEN, b"abc");
    for kind in [ErrorKind::Interrupted, ErrorKind::WouldBlock, ErrorKind::BrokenPipe] {
        let harness = values(options(), LEN);
        harness.peer_stalls();
        harness.peer_reads(50_000);
        harness.receive(input(b"abc"));
        harness.fail_next_write(kind);
        harness.peer_reads_all();
        if kind == ErrorKind::BrokenPipe {
            assert!(harness.sent() == expected[..50_000]);
            assert_eq!(harness.closed(), Some(CloseReason::Io(kind)));
            assert_eq!(harness.leftovers().buffers, 0);
        } else {
            assert!(harness.sent() == expected, "{kind:?}");
            assert_eq!(harness.closed(), None, "{kind:?}");
        }
        conclude(&harness);
    }
}

/// Goal: a batch of shared answers does not fill a small queue that the kernel would have emptied.
/// Method: ten answers in one batch, of which the queue holds two.
#[test]
fn a_small_queue_is_offered_before_it_is_full() {
    let harness = values(options().max_queued(100_000), LEN);
    harness.receive(input(b"abcdefghij"));
    assert_eq!(harness.closed(), None);
    assert!(harness.sent() == answers(LEN, b"abcdefghij"));
    conclude(&harness);
}
