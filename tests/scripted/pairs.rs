//! Pairs: two connections of one reactor that are partners.

use std::sync::mpsc::channel;

use condor::testing::Harness;
use condor::{
    Action, Address, CloseReason, Context, Info, LengthField, Lines, ListenerOptions, PairError,
    Raw,
};

use crate::rig::{assert_clean, options};
use crate::support::{Actor, Do, Seen, Trace, framed, ms, order, secs};

const ENDED: Seen = Seen::End(CloseReason::PartnerEnded);

/// Forwards each packet, and ends if that fails.
fn forwarder(trace: &Trace) -> Actor {
    Actor::echo(trace).packet(forward)
}

fn forward(packet: &[u8], ctx: &mut Context<'_, Do>) -> Action<'static> {
    ctx.forward(packet).map(|()| Action::Continue).into()
}

/// Two connections of one listener, and what their handlers see.
struct Ends {
    a: Harness<Actor>,
    b: Harness<Actor>,
    at_a: Trace,
    at_b: Trace,
}

/// Two connections that are no pair yet, with these handlers.
fn ends_of(
    options: ListenerOptions,
    make_a: impl FnOnce(&Trace) -> Actor,
    make_b: impl FnOnce(&Trace) -> Actor,
) -> Ends {
    let (at_a, at_b) = (Trace::default(), Trace::default());
    let mut handlers = vec![make_b(&at_b), make_a(&at_a)];
    let more = Trace::default();
    let a = Harness::new(options, move |_| handlers.pop().unwrap_or_else(|| forwarder(&more)));
    let b = a.connect();
    Ends { a, b, at_a, at_b }
}

/// A pair of forwarders.
fn pair(options: ListenerOptions) -> Ends {
    let ends = ends_of(options, forwarder, forwarder);
    ends.join();
    ends
}

/// Has the handler of `one` make `other` its partner.
fn join(one: &Harness<Actor>, other: Address<Do>) -> Result<(), PairError> {
    let (sender, receiver) = channel();
    one.message(order("pair", move |ctx| {
        sender.send(ctx.pair(&other)).expect("the test waits");
        Action::Continue
    }));
    receiver.try_recv().expect("the handler has paired")
}

impl Ends {
    fn join(&self) {
        assert_eq!(join(&self.a, self.b.address()), Ok(()));
        assert_eq!(self.a.leftovers().paired, 2);
        self.at_a.read();
        self.at_b.read();
    }

    /// Checks that both have ended and nothing is left.
    fn assert_gone(&self) {
        self.a.peer_reads_all();
        self.b.peer_reads_all();
        self.a.peer_closes();
        self.b.peer_closes();
        assert!(self.a.closed().is_some() && self.b.closed().is_some());
        assert_clean(&self.a);
    }
}

/// Goal: a packet of either end is sent on the other one, in the framing of that one, whole and in
/// order, also with what that handler sends itself. Method: each end has another framing, and packets
/// come in pieces and many at once.
#[test]
fn packets_are_framed_for_the_partner_and_keep_their_order() {
    let Ends { a, b, at_a, .. } = pair(options());
    b.message(order("lines", |ctx| {
        ctx.set_framing(Lines::new(100));
        Action::Continue
    }));
    a.receive([&framed(b"one")[..], &framed(b"two"), &framed(b"")[..1]].concat());
    assert_eq!(b.sent(), b"one\ntwo\n");
    a.receive([&framed(b"")[1..], &framed(b"four")].concat());
    b.message(order("own", |_| Action::send("own")));
    assert_eq!(b.sent(), b"\nfour\nown\n");
    b.receive("x\nyy\nzzz");
    b.receive("\n");
    assert_eq!(a.packets(), [&b"x"[..], b"yy", b"zzz"]);
    at_a.read();
    assert_eq!(a.stats().packets_out, 8);
}

/// Goal: what one turn forwards leaves with one write.
#[test]
fn what_a_turn_forwards_leaves_with_one_write() {
    let Ends { a, b, .. } = pair(options().framing(Raw));
    let before = b.writes();
    a.arrive("one");
    a.arrive("two");
    a.run();
    assert_eq!(b.sent(), b"onetwo");
    assert_eq!(b.writes() - before, 1);
    let Ends { a, b, .. } = pair(options());
    let before = b.writes();
    a.receive((0..100).flat_map(|_| framed(b"packet")).collect::<Vec<_>>());
    assert_eq!((b.packets().len(), b.writes() - before), (100, 1));
}

/// Goal: while an end takes nothing, the partner is not read, so what waits is bounded by the mark and
/// one turn; once the end takes it, the partner goes on without an event, and nothing is lost.
#[test]
fn the_partner_of_a_full_connection_is_not_read() {
    let ends = pair(options().framing(Raw).write_high_water(10_000).write_low_water(1_000));
    let Ends { a, b, at_b, .. } = &ends;
    b.peer_stalls();
    a.max_read(4_000);
    let sent: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[at as usize % 2]).collect();
    a.receive(&sent);
    assert!((10_001..=14_000).contains(&b.queued_bytes()), "{}", b.queued_bytes());
    assert_eq!(a.stats().bytes_in, b.queued_bytes() as u64, "the rest stays in the kernel");
    assert_eq!(a.stats().high_water_hits, 1);
    b.receive("the other direction goes on");
    assert_eq!(a.sent(), b"the other direction goes on");
    b.peer_reads(5_000);
    assert_eq!(a.stats().bytes_in, 12_000 + 27, "not down at the low-water mark");
    b.peer_reads_all();
    assert_eq!(b.sent(), sent);
    assert_eq!(b.queued_bytes(), 0);
    assert!(!at_b.read().contains(&ENDED));
    a.receive("more");
    assert_eq!(b.sent(), b"more");
}

/// Goal: a client that sends before it reads does not stop its own pair: its output being full holds
/// back the partner alone.
#[test]
fn a_full_connection_of_a_pair_is_read() {
    let ends = pair(options().framing(Raw).write_high_water(1_000).write_low_water(100));
    let Ends { a, b, .. } = &ends;
    a.peer_stalls();
    b.receive(vec![1; 5_000]);
    assert_eq!(a.queued_bytes(), 5_000);
    a.receive(vec![2; 50_000]);
    assert_eq!(b.sent().len(), 50_000);
    // After the end of the pair it is as any other.
    b.message(order("stop", |_| Action::stop(CloseReason::Normal)));
    assert_eq!(b.closed(), Some(CloseReason::Normal));
    a.peer_reads_all();
    assert_eq!(a.sent().len(), 5_000);
    ends.assert_gone();
}

/// Goal: an end of input is passed on after all that came before it, neither handler is asked, and the
/// other direction goes on until it ends as well. Then both connections end.
#[test]
fn each_half_ends_by_itself() {
    let ends = pair(options().framing(Raw));
    let Ends { a, b, at_a, at_b } = &ends;
    b.peer_stalls();
    a.arrive("request");
    a.peer_closes();
    assert!(!b.is_finished(), "it has not sent everything");
    assert_eq!(a.stats().half_closed, 1);
    b.peer_reads_all();
    assert_eq!(b.sent(), b"request");
    assert!(b.is_finished() && !a.is_finished());
    for _ in 0..20 {
        b.receive("answer");
        assert_eq!(a.sent(), b"answer");
        a.advance(secs(20));
    }
    b.receive("last");
    b.peer_closes();
    assert_eq!(a.sent(), b"last");
    let seen = (at_a.read(), at_b.read());
    let packets = |seen: &[Seen]| seen.iter().filter(|it| matches!(it, Seen::Packet(_))).count();
    assert_eq!((packets(&seen.0), packets(&seen.1)), (1, 21));
    assert!(!seen.0.contains(&Seen::EndOfInput) && !seen.1.contains(&Seen::EndOfInput));
    assert_eq!(a.closed(), Some(CloseReason::PeerClosed));
    assert_eq!(b.closed(), Some(CloseReason::PeerClosed));
    ends.assert_gone();
}

/// Goal: an end in the middle of a packet ends both connections, after the packets before it.
#[test]
fn an_end_inside_a_packet_ends_both() {
    let ends = pair(options());
    ends.a.receive([&framed(b"whole")[..], &[0, 5, 1]].concat());
    ends.a.peer_closes();
    assert_eq!(ends.b.packets(), [b"whole"]);
    let reason = CloseReason::PeerClosedMidPacket { have: 3, want: Some(7) };
    assert_eq!(ends.a.closed(), Some(reason));
    assert_eq!(ends.at_b.read(), [Seen::PartnerEnded(Some(reason)), ENDED]);
    ends.assert_gone();
}

/// Goal: whatever ends one connection, the partner is told at once why, and what was forwarded to it
/// before is still sent; by default it ends then. Method: each kind of end, while output of the
/// partner is queued.
#[test]
fn whatever_ends_one_ends_the_other_after_its_queue() {
    type Blow = fn(&Harness<Actor>);
    let stop: Blow = |a| a.message(order("stop", |_| Action::stop(CloseReason::Code(7))));
    let blows: [(Blow, CloseReason); 6] = [
        (|a| a.peer_resets(), CloseReason::Reset),
        (stop, CloseReason::Code(7)),
        (|a| a.message(order("panic", |_| panic!("on purpose"))), CloseReason::Panicked),
        (|a| a.advance(secs(60)), CloseReason::IdleTimeout),
        (
            |a| {
                a.peer_stalls();
                a.message(order("fill", |ctx| {
                    ctx.send(vec![1; 1_500]).expect("there is room");
                    Action::send(vec![1; 1_500])
                }));
            },
            CloseReason::SlowReader,
        ),
        (
            |a| {
                let id = a.id().expect("it was accepted");
                a.handle().close(id).expect("the reactor runs");
                a.run();
            },
            CloseReason::Shutdown,
        ),
    ];
    for (blow, reason) in blows {
        let options = options().framing(Raw).idle_timeout(secs(60)).write_high_water(2_000);
        let options = options.write_low_water(100).max_queued(2_000);
        let ends = pair(options.write_stall_timeout(secs(600)));
        ends.b.peer_stalls();
        ends.b.arrive("it is not idle");
        ends.a.run();
        ends.a.receive("before");
        ends.b.advance(ms(1));
        ends.at_b.read();
        ends.b.receive("once more");
        blow(&ends.a);
        let told: Vec<_> =
            ends.at_b.read().into_iter().filter(|it| !matches!(it, Seen::Packet(_))).collect();
        assert_eq!(told, [Seen::PartnerEnded(Some(reason))], "{reason}");
        assert_eq!(ends.b.closed(), None, "its queue is not sent");
        ends.b.peer_reads_all();
        assert_eq!(ends.b.sent(), b"before", "{reason}");
        assert_eq!(ends.at_b.read(), [ENDED]);
        ends.assert_gone();
    }
}

/// Goal: both ends of a pair may end in one turn, for whatever reasons: each is terminated once, and
/// nothing is left.
#[test]
fn both_may_end_in_one_turn() {
    for cut in [Harness::peer_resets as fn(&Harness<Actor>), Harness::peer_closes] {
        let ends = pair(options().framing(Raw));
        ends.a.arrive("one");
        ends.b.arrive("two");
        ends.b.fail_next_read(std::io::ErrorKind::ConnectionReset);
        cut(&ends.a);
        ends.assert_gone();
    }
    let ends = pair(options());
    let stop = || order("stop", |_| Action::stop(CloseReason::Normal));
    assert!(ends.a.address().send(stop()).is_ok());
    assert!(ends.b.address().send(stop()).is_ok());
    ends.a.run();
    assert_eq!(
        (ends.a.closed(), ends.b.closed()),
        (Some(CloseReason::Normal), Some(CloseReason::Normal))
    );
    ends.assert_gone();
}

/// Goal: a drain that forces one end or both leaves nothing, and a drained end ends its partner in the
/// same drain.
#[test]
fn a_pair_is_drained_as_one() {
    let ends = ends_of(options(), forwarder, |trace| {
        forwarder(trace).info(|info, _| match info {
            Info::Shutdown => Action::Continue,
            other => other.default_action(),
        })
    });
    ends.join();
    ends.b.peer_stalls();
    ends.a.receive(framed(b"under way"));
    ends.a.drain();
    assert_eq!(ends.a.closed(), Some(CloseReason::Shutdown));
    ends.b.peer_reads_all();
    assert_eq!(ends.b.packets(), [b"under way"]);
    assert_eq!(ends.b.closed(), Some(CloseReason::PartnerEnded));
    ends.a.peer_closes();
    ends.b.peer_closes();
    let report = ends.a.report().expect("the drain is over");
    assert_eq!((report.drained, report.forced), (2, 0));
    assert_clean(&ends.a);
}

/// Goal: a handler that asks to be told may go on without its partner, is told then that its own input
/// has ended if it has, and may find another partner.
#[test]
fn a_handler_may_go_on_and_find_another_partner() {
    let stays = |trace: &Trace| {
        forwarder(trace).info(|info, _| match info {
            Info::PartnerEnded { .. } | Info::EndOfInput { .. } => Action::Continue,
            other => other.default_action(),
        })
    };
    let Ends { a, b, at_a, .. } = ends_of(options(), stays, forwarder);
    let c = a.connect();
    for partner in [&b, &c] {
        assert_eq!(join(&a, partner.address()), Ok(()));
        a.packet("to the partner");
        assert_eq!(partner.packets(), [b"to the partner"]);
        partner.peer_resets();
        assert_eq!(at_a.read().pop(), Some(Seen::PartnerEnded(Some(CloseReason::Reset))));
        assert_eq!((a.closed(), a.leftovers().paired), (None, 0));
    }
    let d = a.connect();
    assert_eq!(join(&a, d.address()), Ok(()));
    a.peer_closes();
    assert!(d.is_finished());
    at_a.read();
    d.peer_resets();
    assert_eq!(at_a.read(), [Seen::PartnerEnded(Some(CloseReason::Reset)), Seen::EndOfInput]);
    a.advance(secs(30));
    assert_eq!(a.closed(), Some(CloseReason::HalfCloseTimeout));
}

/// Goal: each wrong call is refused with its reason, and changes nothing.
#[test]
fn wrong_pairs_are_refused_by_name() {
    let Ends { a, b, .. } = ends_of(options(), forwarder, forwarder);
    let (c, elsewhere) = (a.connect(), Harness::new(options(), |_| Actor::new()));
    assert_eq!(join(&a, a.address()), Err(PairError::Itself));
    assert_eq!(join(&a, elsewhere.address()), Err(PairError::Elsewhere));
    assert_eq!((a.leftovers().connections, a.leftovers().paired), (3, 0));
    assert_eq!(join(&a, b.address()), Ok(()));
    assert_eq!(join(&a, c.address()), Err(PairError::Paired));
    assert_eq!(join(&b, a.address()), Err(PairError::Paired));
    assert_eq!(join(&c, b.address()), Err(PairError::Paired));
    let gone = elsewhere.address();
    elsewhere.drain();
    elsewhere.peer_closes();
    assert_eq!(join(&c, gone), Err(PairError::Gone));
    c.packet("no partner");
    assert_eq!(c.closed(), Some(CloseReason::Custom("in no pair")));
    a.packet("a partner");
    assert_eq!(b.packets(), [b"a partner"]);
}

/// Goal: a handler that was not told yet that its partner has ended is still in a pair. Method: the
/// partner ends in the same turn, before or after.
#[test]
fn a_pair_lasts_until_its_end_is_told() {
    let Ends { a, b, at_a, .. } = pair(options());
    let c = a.connect();
    let with = c.address();
    let stop = order("stop", |_| Action::stop(CloseReason::Normal));
    let again = order("again", move |ctx| {
        assert_eq!(ctx.pair(&with), Err(PairError::Paired));
        Action::Continue
    });
    assert!(b.address().send(stop).is_ok());
    assert!(a.address().send(again).is_ok());
    a.run();
    let told = Seen::PartnerEnded(Some(CloseReason::Normal));
    assert_eq!(at_a.read(), [Seen::Message("again"), told, ENDED]);
    assert_eq!((c.closed(), c.leftovers().paired), (None, 0));
}

/// Goal: the address of a connection that has ended makes no pair: the caller is told, and the next
/// owner of the slot has nothing to do with it.
#[test]
fn an_address_that_is_out_of_date_makes_no_pair() {
    let Ends { a, b, at_a, .. } = ends_of(options(), forwarder, forwarder);
    let old = b.address();
    b.peer_resets();
    let next = a.connect();
    let slot =
        |address: &Address<Do>| address.id().to_string().rsplit_once('.').map(|it| it.0.to_owned());
    assert_eq!(slot(&next.address()), slot(&old));
    assert_eq!(join(&a, old.clone()), Ok(()));
    assert_eq!(at_a.read(), [Seen::Message("pair"), Seen::PartnerEnded(None), ENDED]);
    assert_eq!((next.closed(), next.leftovers().paired), (None, 0));
    // The same in one turn with a pair of the next owner.
    let (c, d) = (a.connect(), a.connect());
    let joins = |with: Address<Do>| {
        order("pair", move |ctx| {
            assert_eq!(ctx.pair(&with), Ok(()));
            Action::Continue
        })
    };
    assert!(c.address().send(joins(old)).is_ok());
    assert!(next.address().send(joins(d.address())).is_ok());
    a.run();
    assert_eq!(c.closed(), Some(CloseReason::PartnerEnded));
    next.packet("to d");
    assert_eq!(d.packets(), [b"to d"]);
}

/// Goal: the next owner of the slot keeps its partner, although an address of the owner before it is
/// paired later.
#[test]
fn an_address_that_is_out_of_date_takes_no_partner_away() {
    let Ends { a, b, .. } = ends_of(options(), forwarder, forwarder);
    let old = b.address();
    b.peer_resets();
    let (next, d) = (a.connect(), a.connect());
    assert_eq!(join(&next, d.address()), Ok(()));
    assert_eq!(join(&a, old), Ok(()));
    assert_eq!(a.closed(), Some(CloseReason::PartnerEnded));
    next.packet("to d");
    d.packet("to the next owner");
    assert_eq!(
        (d.packets(), next.packets()),
        (vec![b"to d".to_vec()], vec![b"to the next owner".to_vec()])
    );
    next.peer_resets();
    assert_eq!(d.closed(), Some(CloseReason::PartnerEnded));
}

/// Goal: a connection whose partner has just ended is not paired again before its handler knows.
#[test]
fn a_connection_that_was_not_told_yet_is_not_paired_again() {
    let Ends { a, b, at_a, .. } = pair(options());
    let (c, with) = (a.connect(), a.address());
    let stop = order("stop", |_| Action::stop(CloseReason::Normal));
    let takes = order("takes", move |ctx| {
        assert_eq!(ctx.pair(&with), Err(PairError::Paired));
        Action::Continue
    });
    assert!(b.address().send(stop).is_ok());
    assert!(c.address().send(takes).is_ok());
    a.run();
    assert_eq!(at_a.read(), [Seen::PartnerEnded(Some(CloseReason::Normal)), ENDED]);
    assert_eq!((c.closed(), c.leftovers().paired), (None, 0));
}

/// Goal: the other end may forward, and its end of input is passed on, from the moment of the call.
/// Method: both have something to do in the turn of the call.
#[test]
fn both_ends_are_paired_at_once() {
    for closes in [false, true] {
        let (sender, receiver) = channel::<Address<Do>>();
        let joins = move |trace: &Trace| {
            Actor::echo(trace).packet(move |_, ctx| {
                assert_eq!(ctx.pair(&receiver.try_recv().expect("it is there")), Ok(()));
                Action::Continue
            })
        };
        let Ends { a, b, at_b, .. } = ends_of(options(), joins, forwarder);
        sender.send(b.address()).expect("the handler has it");
        a.arrive(framed(b"pair"));
        b.arrive(framed(b"at once"));
        if closes {
            b.peer_closes();
            assert!(a.is_finished() && !at_b.read().contains(&Seen::EndOfInput));
        }
        a.run();
        assert_eq!(a.packets(), [b"at once"]);
    }
}

/// Goal: the end of input does not reach a handler that has found another partner, nor twice one that
/// was told before it had a partner.
#[test]
fn the_end_of_input_is_told_once() {
    let (sender, receiver) = channel::<Address<Do>>();
    let finds = move |trace: &Trace| {
        forwarder(trace).info(move |info, ctx| match info {
            Info::PartnerEnded { .. } => {
                if let Ok(next) = receiver.try_recv() {
                    assert_eq!(ctx.pair(&next), Ok(()));
                }
                Action::Continue
            }
            Info::EndOfInput { .. } => Action::Continue,
            other => other.default_action(),
        })
    };
    let Ends { a, b, at_a, .. } = ends_of(options(), finds, forwarder);
    let c = a.connect();
    sender.send(c.address()).expect("the handler has it");
    assert_eq!(join(&a, b.address()), Ok(()));
    a.peer_closes();
    b.peer_resets();
    assert!(c.is_finished(), "the end was passed on again");
    c.peer_resets();
    let ended = || Seen::PartnerEnded(Some(CloseReason::Reset));
    assert_eq!(at_a.read(), [Seen::Message("pair"), ended(), ended(), Seen::EndOfInput]);

    let owes = |trace: &Trace| {
        forwarder(trace).info(|info, _| match info {
            Info::PartnerEnded { .. } | Info::EndOfInput { .. } => Action::Continue,
            other => other.default_action(),
        })
    };
    let Ends { a, b, at_a, .. } = ends_of(options(), owes, forwarder);
    a.peer_closes();
    assert_eq!(join(&a, b.address()), Ok(()));
    b.peer_resets();
    assert_eq!(at_a.read(), [Seen::EndOfInput, Seen::Message("pair"), ended()]);
}

/// Goal: a reader that is slow and reads on gets everything, although both halves of its pair end
/// meanwhile, in either order, and the server's half waits for longer than its time.
#[test]
fn a_slow_reader_gets_all_whatever_ends_first() {
    for client_ends_first in [false, true] {
        let options = options().framing(Raw).half_close_timeout(secs(30)).close_timeout(secs(10));
        let Ends { a, b, .. } = &pair(options);
        a.peer_stalls();
        b.receive(vec![7; 60_000]);
        if client_ends_first {
            a.peer_closes();
        }
        b.peer_closes();
        if !client_ends_first {
            // The client still may send, and does not.
            for _ in 0..3 {
                a.advance(secs(20));
                a.peer_reads(8_000);
            }
            a.peer_closes();
        }
        for _ in 0..3 {
            a.advance(secs(20));
            a.peer_reads(8_000);
        }
        assert_eq!(a.closed(), None, "its queue is not sent");
        a.peer_reads_all();
        assert_eq!(a.sent().len(), 60_000, "the client ends first: {client_ends_first}");
        assert_eq!(a.closed(), Some(CloseReason::PeerClosed));
        assert_eq!(b.closed(), Some(CloseReason::PeerClosed));
    }
}

/// Goal: a handler that stops with the reason of an end of input has not finished: its partner is told.
#[test]
fn a_stop_is_told_whatever_its_reason() {
    let Ends { a, b, at_a, .. } = pair(options());
    a.peer_closes();
    b.message(order("stop", |_| Action::stop(CloseReason::PeerClosed)));
    assert_eq!(at_a.read(), [Seen::PartnerEnded(Some(CloseReason::PeerClosed)), ENDED]);
}

/// Goal: a turn forwards what was kept, or what one read takes, but not both.
#[test]
fn what_was_kept_is_forwarded_before_more_is_read() {
    let ends = pair(options().framing(Raw).write_high_water(1_000).write_low_water(100));
    let Ends { a, b, .. } = &ends;
    a.message(order("pause", |ctx| {
        ctx.pause_reading();
        Action::Continue
    }));
    b.peer_stalls();
    a.arrive(vec![1; 64 * 1024]);
    a.run();
    a.arrive(vec![2; 64 * 1024]);
    a.message(order("resume", |ctx| {
        ctx.resume_reading();
        Action::Continue
    }));
    assert!(b.queued_bytes() <= 64 * 1024, "{}", b.queued_bytes());
    b.peer_reads_all();
    assert_eq!(b.sent().len(), 128 * 1024);
}

/// Goal: the end of a reactor terminates all handlers, however many pairs there are. Method: more pairs
/// than steps fit into one phase.
#[test]
fn the_end_of_a_reactor_terminates_every_pair() {
    let harness = Harness::new(options().max_connections(20_000), |_| forwarder(&Trace::default()));
    let ends: Vec<_> = (0..2 * 8_500).map(|_| harness.connect()).collect();
    let (ones, others) = ends.split_at(8_500);
    for (one, other) in ones.iter().zip(others) {
        assert_eq!(join(one, other.address()), Ok(()));
    }
    let listener = harness.listener();
    drop((ends, harness));
    let stats = listener.stats();
    assert_eq!((stats.made, stats.terminated), (17_001, 17_001));
}

/// Goal: a packet that the partner cannot send ends the partner, as an answer would, and the source
/// with it. Method: one that its framing cannot express, and more in one turn than its queue may have.
#[test]
fn a_packet_that_the_partner_cannot_send_ends_the_pair() {
    let ends = pair(options().framing(LengthField::U32).max_packet(1_000));
    ends.b.message(order("short", |ctx| {
        ctx.set_framing(LengthField::U8);
        Action::Continue
    }));
    ends.a.packet([1; 300]);
    assert_eq!(ends.b.closed(), Some(CloseReason::AnswerTooLarge { len: 300, max: 255 }));
    assert_eq!(ends.a.closed(), Some(CloseReason::PartnerEnded));
    assert_eq!(ends.a.stats().refused_sends, 1);
    ends.assert_gone();

    let ends = pair(
        options().max_packet(900).max_queued(2_000).write_high_water(1_000).write_low_water(500),
    );
    ends.a.receive((0..30).flat_map(|_| framed(&[1; 900])).collect::<Vec<_>>());
    assert_eq!(ends.b.packets().len(), 30, "the kernel is asked before the queue counts as full");
    ends.b.peer_stalls();
    ends.a.receive((0..3).flat_map(|_| framed(&[1; 900])).collect::<Vec<_>>());
    assert_eq!(ends.b.closed(), Some(CloseReason::SlowReader));
    assert_eq!(ends.a.closed(), Some(CloseReason::PartnerEnded));
    ends.assert_gone();
}

/// Goal: much that is forwarded at once is forwarded in steps, and all of it arrives.
#[test]
fn much_at_once_arrives_whole() {
    let ends = pair(options().framing(Raw).max_queued(64 << 20).write_high_water(32 << 20));
    let sent: Vec<u8> = (0..8 << 20).map(|at: usize| at.to_le_bytes()[1]).collect();
    ends.a.receive(&sent);
    assert!(ends.b.sent() == sent);
    let ends = pair(options());
    ends.a.receive((0..20_000).flat_map(|_| framed(b"")).collect::<Vec<_>>());
    assert_eq!(ends.b.packets().len(), 20_000);
    ends.a.message(order("from a message", |ctx| forward(b"late", ctx)));
    assert_eq!(ends.b.packets(), [b"late"]);
}

/// Goal: a pair that is made after an end of input, or while output is over the mark, passes both on.
#[test]
fn a_pair_begins_with_the_state_of_both_ends() {
    let owes = |trace: &Trace| {
        forwarder(trace).info(|info, _| match info {
            Info::EndOfInput { .. } => Action::Continue,
            other => other.default_action(),
        })
    };
    for caller_ended in [true, false] {
        let options = options().framing(Raw).write_high_water(100).write_low_water(10);
        let ends = ends_of(options, owes, owes);
        let (one, other) = if caller_ended { (&ends.a, &ends.b) } else { (&ends.b, &ends.a) };
        ends.a.peer_stalls();
        ends.a.message(order("fill", |_| Action::send(vec![1; 200])));
        ends.a.peer_closes();
        assert_eq!(join(one, other.address()), Ok(()));
        assert!(ends.b.is_finished(), "its partner's input has ended");
        ends.b.receive("answer");
        assert_eq!(ends.a.queued_bytes(), 200, "the partner is full");
        ends.a.peer_reads_all();
        assert_eq!(ends.a.sent().split_off(200), b"answer");
        ends.assert_gone();
    }
}
