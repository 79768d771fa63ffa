//! The peer sends no more, and still reads: answers that are made later arrive.

use condor::{Action, Address, CloseReason, Context, Handler, Info};

use super::actor;
use crate::rig::{Harness, assert_clean, conclude, options};
use crate::support::{Actor, Seen, note, order, packet, wire};

const CLOSED: Seen = Seen::End(CloseReason::PeerClosed);

/// Gives its requests to others, who answer them by message. It ends after the last answer.
#[derive(Default)]
pub(crate) struct Owing {
    pub(crate) owed: usize,
    ended: bool,
}

impl Handler for Owing {
    type Message = Vec<u8>;

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, Vec<u8>>) -> Action<'a> {
        self.owed += 1;
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Vec<u8>>,
        _: &mut Context<'_, Vec<u8>>,
    ) -> Action<'a> {
        match info {
            Info::Message(answer) => {
                self.owed -= 1;
                if self.ended && self.owed == 0 {
                    return Action::send_and_stop(answer, CloseReason::Normal);
                }
                Action::send(answer)
            }
            Info::EndOfInput { .. } if self.owed > 0 => {
                self.ended = true;
                Action::Continue
            }
            Info::Shutdown if self.owed > 0 => Action::Continue,
            other => other.default_action(),
        }
    }
}

/// Goal: answers that are made after the peer's end arrive, all of them and in order, then the end.
/// Method: twenty requests and the end in one event, or the end before the third answer.
#[test]
fn answers_that_come_after_the_end_arrive() {
    for early in [0, 3] {
        let harness = Harness::new(options(), |_| Owing::default());
        let answers: Vec<_> = (0..20_u8).map(|nth| vec![nth; 5]).collect();
        harness.arrive(wire(&[b"request" as &[u8]; 20]));
        if early == 0 {
            harness.peer_closes();
        }
        harness.run();
        for (nth, answer) in answers.iter().enumerate() {
            assert_eq!(harness.stats().half_closed, u64::from(nth >= early));
            assert_eq!(harness.closed(), None);
            harness.message(answer.clone());
            if nth + 1 == early {
                harness.peer_closes();
            }
        }
        assert_eq!(harness.packets(), answers);
        assert_eq!(harness.closed(), Some(CloseReason::Normal));
        assert!(harness.is_finished() && harness.is_gone(), "there is nothing to linger for");
        assert_eq!(harness.stats().half_closed, 0);
        conclude(&harness);
    }
}

/// Goal: the end is told once, after all packets, however it is announced; packets that came with it
/// are answered. Method: a handler that goes on, and messages and events later.
#[test]
fn the_end_of_input_is_told_once_and_last() {
    let (harness, trace) = actor(options(), Actor::owing);
    harness.arrive(wire(&[b"one", b"two"]));
    harness.peer_closes();
    assert_eq!(trace.read(), [packet(b"one"), packet(b"two"), Seen::EndOfInput]);
    harness.message(note("later"));
    harness.message(order("bye", |_| Action::send_and_stop("bye", CloseReason::Custom("mine"))));
    let end = Seen::End(CloseReason::Custom("mine"));
    assert_eq!(trace.read(), [Seen::Message("later"), Seen::Message("bye"), end]);
    assert_eq!(harness.packets(), [b"one", b"two", b"bye"]);
    conclude(&harness);
}

/// Goal: a drain tells a handler that knows of the end, and a handler in a drain is told of the end.
/// Each is told once, and the answers that are owed arrive.
#[test]
fn a_drain_waits_for_the_answers_to_a_half_closed_peer() {
    for drain_first in [true, false] {
        let (harness, trace) = actor(options(), |trace| {
            Actor::echo(trace).info(|info, _| match info {
                Info::EndOfInput { .. } | Info::Shutdown => Action::Continue,
                other => other.default_action(),
            })
        });
        if drain_first {
            harness.drain();
            harness.peer_closes();
            assert_eq!(trace.read(), [Seen::Shutdown, Seen::EndOfInput]);
        } else {
            harness.peer_closes();
            harness.drain();
            assert_eq!(trace.read(), [Seen::EndOfInput, Seen::Shutdown]);
        }
        assert_eq!(harness.report(), None, "an answer is owed");
        harness.message(order("answer", |_| Action::send_and_stop("!", CloseReason::Normal)));
        assert_eq!(harness.packets(), [b"!"]);
        assert_eq!(trace.read(), [Seen::Message("answer"), Seen::End(CloseReason::Normal)]);
        assert_eq!(harness.report().map(|report| report.drained), Some(1));
        assert_clean(&harness);
    }
}

/// Goal: of an end and a drain in one turn the end is told first; if the handler stops, it hears
/// nothing more.
#[test]
fn an_end_and_a_drain_in_one_turn_come_in_this_order() {
    let (harness, trace) = actor(options(), Actor::echo);
    harness.arrive(wire(&[b"last"]));
    let other = harness.connect();
    drop(other);
    harness.peer_closes();
    assert_eq!(trace.read(), [packet(b"last"), Seen::EndOfInput, CLOSED]);
    harness.drain();
    assert_eq!(trace.read(), []);
    assert_clean(&harness);
}

/// Goal: a peer that resets after its end is reported as a reset, once, and not as an error of the
/// socket. Method: the reset is found by itself, and by a later answer.
#[test]
fn a_reset_after_the_end_is_a_reset() {
    for answer in [false, true] {
        let (harness, trace) = actor(options(), Actor::owing);
        harness.receive(wire(&[b"request"]));
        harness.peer_closes();
        assert_eq!(trace.read(), [packet(b"request"), Seen::EndOfInput]);
        let address: Address<_> = harness.address();
        if answer {
            assert!(address.send(order("answer", |_| Action::send(vec![0; 1_000]))).is_ok());
        }
        harness.peer_resets();
        let mut seen = trace.read();
        assert_eq!(seen.pop(), Some(Seen::End(CloseReason::Reset)), "answer: {answer}");
        assert!(harness.is_gone());
        assert_eq!(harness.stats().half_closed, 0);
        assert_clean(&harness);
    }
}

/// Goal: a half-closed connection ends when the handler ends the other half. Method: `end_output`
/// when the end is told, and later, in a message.
#[test]
fn the_connection_ends_with_its_second_half() {
    for later in [false, true] {
        let (harness, trace) = actor(options(), |trace| {
            Actor::echo(trace).info(move |info, ctx| match info {
                Info::EndOfInput { .. } => {
                    if !later {
                        ctx.send("last").unwrap();
                        ctx.end_output();
                    }
                    Action::Continue
                }
                other => other.default_action(),
            })
        });
        harness.peer_closes();
        if later {
            assert_eq!(trace.read(), [Seen::EndOfInput]);
            harness.message(order("end", |ctx| {
                ctx.send("last").unwrap();
                ctx.end_output();
                Action::Continue
            }));
            assert_eq!(trace.read(), [Seen::Message("end"), CLOSED]);
        } else {
            assert_eq!(trace.read(), [Seen::EndOfInput, CLOSED]);
        }
        assert_eq!(harness.packets(), [b"last"]);
        assert!(harness.is_finished());
        conclude(&harness);
    }
}

/// Goal: inside a packet, and after the handler has ended its own half, the end is not told: it ends
/// the connection.
#[test]
fn an_end_that_leaves_nothing_to_do_is_not_told() {
    let (harness, trace) = actor(options(), Actor::owing);
    harness.receive(b"\x00\x04ha");
    harness.peer_closes();
    let end = CloseReason::PeerClosedMidPacket { have: 4, want: Some(6) };
    assert_eq!(trace.read(), [Seen::End(end)]);
    conclude(&harness);

    let (harness, trace) = actor(options(), Actor::owing);
    harness.message(order("end", |ctx| {
        ctx.end_output();
        Action::Continue
    }));
    harness.peer_closes();
    assert_eq!(trace.read(), [Seen::Message("end"), CLOSED]);
    conclude(&harness);
}
