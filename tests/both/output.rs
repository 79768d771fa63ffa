//! Output: the order of answers, and the last bytes before an end.

use bytes::Bytes;
use condor::{Action, CloseReason, Context, Handler, Info};

use super::{actor, echo};
use crate::rig::{Harness, assert_clean, conclude, options};
use crate::support::{Actor, Do, Seen, order, packet, wire};

/// A message that stops, with a last packet of this length.
pub(crate) fn send_and_stop(len: usize) -> Do {
    order("stop", move |_| Action::send_and_stop(vec![1; len], CloseReason::Normal))
}

// ---- short writes ----

/// Goal: packets that a callback sends come before its answer.
#[test]
fn what_a_callback_sends_goes_before_what_it_answers() {
    let (harness, _) = actor(options(), |trace| {
        Actor::echo(trace).packet(|_, ctx| {
            assert_eq!(ctx.send("first"), Ok(()));
            assert_eq!(ctx.send(String::from("second")), Ok(()));
            Action::send_and_stop("third", CloseReason::Normal)
        })
    });
    harness.packet(b"");
    assert_eq!(harness.packets(), [b"first" as &[u8], b"second", b"third"]);
    conclude(&harness);
}

/// Answers each packet as its first byte says: with the packet itself, or with another answer.
pub(crate) struct Parrot;

impl Handler for Parrot {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        match packet.first() {
            Some(b'b') => Action::send("borrowed"),
            Some(b'o') => Action::send(vec![b'o'; 5]),
            Some(b's') => Action::send(Bytes::from(vec![b's'; 40_000])),
            Some(b'c') => {
                assert_eq!(ctx.send("called"), Ok(()));
                Action::send(packet)
            }
            Some(b'n') => Action::Continue,
            Some(b'p') => {
                ctx.pause_reading();
                Action::send(packet)
            }
            _ => Action::send(packet),
        }
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, ctx: &mut Context<'_, ()>) -> Action<'a> {
        if let Info::Message(()) = info {
            ctx.resume_reading();
        }
        info.default_action()
    }
}

/// Goal: a handler that sends packets back can pause in the middle of them. Method: a handler that
/// pauses at one of several such packets, and resumes.
#[test]
fn a_handler_that_pauses_and_sends_the_packet_back_gets_no_more() {
    let harness = Harness::of(Parrot);
    harness.receive(wire(&[b"1", b"pause", b"2", b"3"]));
    assert_eq!(harness.packets(), [b"1" as &[u8], b"pause"]);
    harness.message(());
    assert_eq!(harness.packets(), [b"2", b"3"]);
    conclude(&harness);
}

// ---- the last bytes ----

/// Goal: input that had arrived when the end was decided is read without another event, also the
/// peer's end. Method: a packet and an end while reading is paused. Then the handler stops.
#[test]
fn what_arrived_before_the_end_is_read_at_once() {
    let (harness, _) = echo(options());
    harness.message(order("pause", |ctx| {
        ctx.pause_reading();
        Action::Continue
    }));
    harness.receive(wire(&[b"unheard"]));
    harness.peer_closes();
    harness.message(send_and_stop(3));
    assert!(harness.is_gone() && !harness.closed_with_unread_input());
    assert_eq!(harness.sent(), wire(&[&[1; 3]]));
    assert_clean(&harness);
}

/// Goal: packets that were read before a reset are delivered, their answers are discarded, and
/// nothing follows `terminate`. Method: 100 packets and a reset in one event.
#[test]
fn nothing_is_delivered_after_the_end_a_reset_brings() {
    let (harness, trace) = echo(options());
    harness.arrive(wire(&[b"x" as &[u8]; 100]));
    harness.peer_resets();
    let seen = trace.read();
    assert!(matches!(seen.last(), Some(Seen::End(_))));
    assert!(seen[..seen.len() - 1].iter().all(|seen| *seen == packet(b"x")));
    conclude(&harness);
    assert_eq!(trace.read(), []);
}
