//! Answers that are made elsewhere: their order, their number, and the end of a connection that owes
//! some.
//!
//! The test is the worker: it has the tickets, and answers them in the order that it likes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use condor::testing::Harness;
use condor::{
    Action, Address, CloseReason, Context, Handler, Info, Lines, ListenerOptions, Replies, Reply,
    ReplyError, SendError, Ticket,
};

use crate::rig::{conclude, options};
use crate::support::secs;

/// What the test and its handler share.
#[derive(Default)]
struct Desk {
    /// The requests that are open and not answered, in order.
    open: RefCell<Vec<(String, Ticket)>>,
    /// The handler goes on after errors of `fill`, and notes them.
    goes_on: Cell<bool>,
    caught: RefCell<Vec<ReplyError>>,
    /// The handler finishes with the next reply.
    finishes: Cell<bool>,
    /// The handler passes its replies on to another one.
    pass_to: RefCell<Option<Address<Reply>>>,
}

impl Desk {
    fn requests(&self) -> Vec<String> {
        self.open.borrow().iter().map(|(request, _)| request.clone()).collect()
    }

    fn take(&self, index: usize) -> (String, Ticket) {
        self.open.borrow_mut().remove(index)
    }
}

/// Opens a place for each packet, except for three: `= text` is answered at once with the text,
/// `quit` ends the connection when all is answered, and `anew` forgets all open requests.
struct Window {
    replies: Replies,
    desk: Rc<Desk>,
}

impl Window {
    fn request(
        &mut self,
        packet: &[u8],
        ctx: &mut Context<'_, Reply>,
    ) -> Result<Action<'static>, ReplyError> {
        let request = String::from_utf8(packet.to_vec()).unwrap();
        if let Some(text) = request.strip_prefix("= ") {
            return self.replies.answer(text.to_owned(), ctx);
        }
        match request.as_str() {
            "quit" => return Ok(self.replies.finish(CloseReason::Normal, ctx)),
            "anew" => self.replies = Replies::new(self.replies.max()),
            _ => {
                let ticket = self.replies.open(ctx)?;
                self.desk.open.borrow_mut().push((request, ticket));
            }
        }
        Ok(Action::Continue)
    }
}

impl Handler for Window {
    type Message = Reply;

    fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, Reply>) -> Action<'static> {
        self.request(packet, ctx).into()
    }

    fn handle_info(
        &mut self,
        info: Info<'_, Reply>,
        ctx: &mut Context<'_, Reply>,
    ) -> Action<'static> {
        match (info, &*self.desk.pass_to.borrow()) {
            (Info::Message(reply), Some(other)) => {
                other.send(reply).unwrap();
                Action::Continue
            }
            (Info::Message(reply), None) if self.desk.goes_on.get() => {
                self.replies.fill(reply, ctx).unwrap_or_else(|error| {
                    self.desk.caught.borrow_mut().push(error);
                    Action::Continue
                })
            }
            (Info::Message(reply), None) if self.desk.finishes.take() => {
                let _ = self.replies.fill(reply, ctx).unwrap();
                self.replies.finish(CloseReason::Normal, ctx)
            }
            (info, _) => self.replies.handle_info(info, ctx),
        }
    }
}

/// A connection with at most `max` open requests.
fn window(max: usize, options: ListenerOptions) -> (Harness<Window>, Rc<Desk>) {
    let desk = Rc::<Desk>::default();
    let shared = Rc::clone(&desk);
    let factory = move |_: &condor::Accepted<'_, Reply>| Window {
        replies: Replies::new(max),
        desk: Rc::clone(&shared),
    };
    (Harness::new(options, factory), desk)
}

/// Answers the open request `index` with `answer`.
fn answer(harness: &Harness<Window>, desk: &Desk, index: usize, answer: impl Into<Vec<u8>>) {
    desk.take(index).1.answer(answer.into());
    harness.run();
}

/// Answers the open request `index` with its own text.
fn echo(harness: &Harness<Window>, desk: &Desk, index: usize) {
    let (request, ticket) = desk.take(index);
    ticket.answer(request);
    harness.run();
}

fn send_all(harness: &Harness<Window>, requests: &[&str]) {
    let frames: Vec<u8> = requests.iter().flat_map(|request| harness.framed(request)).collect();
    harness.receive(frames);
}

/// All answers of a connection have left.
fn is_empty(harness: &Harness<Window>) -> bool {
    harness.with_handler(|handler| handler.replies.is_empty()).unwrap()
}

/// Checks the reason of the end, and that nothing is left after it.
#[track_caller]
fn ended(harness: &Harness<Window>, reason: CloseReason) {
    assert_eq!(harness.closed(), Some(reason));
    conclude(harness);
}

// ---- order ----

/// Goal: answers leave in the order of their requests, whatever order they come in, and each leaves
/// as soon as all before it are there. Method: all orders of four answers, and a naive model: after
/// each step the peer has the answers up to the first that is missing.
#[test]
fn answers_leave_in_the_order_of_their_requests() {
    let names = ["a", "b", "c", "d"];
    for code in 0..4 * 3 * 2 {
        let (harness, desk) = window(4, options());
        send_all(&harness, &names);
        let mut answered = [false; 4];
        let mut got = Vec::new();
        for choice in [code % 4, code / 4 % 3, code / 12, 0] {
            let request = desk.requests()[choice].clone();
            answered[names.iter().position(|name| *name == request).unwrap()] = true;
            echo(&harness, &desk, choice);
            got.extend(harness.packets());
            let due = answered.iter().take_while(|answered| **answered).count();
            assert_eq!(got, names[..due].iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        }
        conclude(&harness);
    }
}

/// Goal: answers that come together leave with one write. Method: the last of three is first.
#[test]
fn answers_that_waited_leave_with_one_write() {
    let (harness, desk) = window(3, options());
    send_all(&harness, &["a", "b", "c"]);
    echo(&harness, &desk, 2);
    echo(&harness, &desk, 1);
    let writes = harness.writes();
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"a", b"b", b"c"]);
    assert_eq!(harness.writes(), writes + 1);
    conclude(&harness);
}

/// Goal: an answer that is known at once has its place, too; with nothing before it, it leaves at
/// once. It counts as a request that is open.
#[test]
fn an_answer_that_is_known_at_once_keeps_its_place() {
    let (harness, desk) = window(3, options());
    send_all(&harness, &["= at once"]);
    assert_eq!(harness.packets(), [b"at once"]);
    send_all(&harness, &["a", "= second", "b", "c"]);
    assert_eq!(harness.packets(), [b""; 0]);
    assert_eq!(desk.requests(), ["a", "b"], "three places are taken");
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [&b"a"[..], b"second"]);
    assert_eq!(desk.requests(), ["b", "c"]);
    conclude(&harness);
}

// ---- how many ----

/// Goal: never more than `max` requests are open, all are answered, and as many are open as may be.
/// Method: 20 requests at once, for windows from 1 to 25; the newest open request is answered first.
#[test]
fn no_more_requests_are_open_than_allowed() {
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for max in 1..25 {
        let (harness, desk) = window(max, options());
        send_all(&harness, &names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(desk.requests(), names[..max.min(20)], "window {max}");
        let mut got = Vec::new();
        while !desk.open.borrow().is_empty() {
            let open = desk.open.borrow().len();
            echo(&harness, &desk, open - 1);
            got.extend(harness.packets());
            assert!(desk.open.borrow().len() <= max);
        }
        assert_eq!(got, names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        assert!(is_empty(&harness));
        conclude(&harness);
    }
}

/// Goal: a request too many is a typed error that has the maximum, and a window of zero takes none.
#[test]
fn a_request_too_many_is_refused_with_the_maximum() {
    let (harness, desk) = window(0, options());
    harness.packet("a");
    assert!(desk.open.borrow().is_empty());
    ended(&harness, ReplyError::Full { max: 0 }.into());
    let text = ReplyError::Full { max: 7 }.to_string();
    assert!(text.contains('7'), "{text}");
}

/// Goal: while the last place is taken the connection is not read, and no clock of its peer runs.
/// Method: half a packet that came before, and an hour.
#[test]
fn no_clock_of_the_peer_runs_while_all_places_are_taken() {
    let (harness, desk) = window(1, options());
    let half = &harness.framed("second")[..4];
    harness.receive([&harness.framed("first")[..], half].concat());
    harness.advance(secs(3_600));
    assert_eq!(harness.closed(), None);
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"first"]);
    harness.advance(secs(10));
    ended(&harness, CloseReason::PacketTimeout);
}

// ---- slow peers ----

/// Goal: an answer that meets a full queue is kept, and leaves when the peer has taken output: no
/// answer is lost and none comes twice. Method: owned answers, and shared ones that are queued
/// without a copy, of lengths for which the packet fits the queue and its header does not.
#[test]
fn an_answer_that_meets_a_full_queue_is_sent_later() {
    let options = |max: usize| {
        let options = options().max_packet(65_535.min(max - 2)).max_queued(max);
        options.write_high_water(max).write_low_water(1_000)
    };
    let halves = [(40_000, 19_999), (40_000, 20_000), (70_000, 34_999), (70_000, 35_000)];
    for (max, len) in halves.into_iter().chain([(40_000, 39_990), (40_000, 39_998)]) {
        for shared in [false, true] {
            let (harness, desk) = window(4, options(max));
            harness.peer_stalls();
            send_all(&harness, &["a", "b", "c", "d"]);
            for _ in 0..4 {
                let (request, ticket) = desk.take(0);
                let bytes = vec![request.as_bytes()[0]; len];
                if shared {
                    ticket.answer(Bytes::from(bytes))
                } else {
                    ticket.answer(bytes)
                }
                harness.run();
            }
            assert!(harness.queued_bytes() <= max);
            assert_eq!(harness.closed(), None);
            assert!(!is_empty(&harness));
            harness.peer_reads_all();
            let expected = [b'a', b'b', b'c', b'd'].map(|letter| vec![letter; len]);
            assert!(harness.packets() == expected, "{len} bytes, shared: {shared}");
            assert!(is_empty(&harness));
            conclude(&harness);
        }
    }
}

/// Goal: an answer that can never be sent ends the connection after the answers before it, and the
/// reason tells its length.
#[test]
fn an_answer_that_can_never_be_sent_ends_the_connection() {
    let (harness, desk) = window(4, options());
    send_all(&harness, &["a", "b", "c"]);
    answer(&harness, &desk, 1, vec![0; 70_000]);
    assert_eq!(harness.closed(), None, "its turn has not come");
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"a"]);
    ended(&harness, CloseReason::AnswerTooLarge { len: 70_000, max: 65_535 });
}

/// Goal: after such an answer no later answer is sent in its place, whatever the handler does.
/// Method: a handler that goes on, and lines, whose framing refuses a line break.
#[test]
fn no_later_answer_takes_the_place_of_one_that_failed() {
    let (harness, desk) = window(4, options().framing(Lines::new(100)));
    desk.goes_on.set(true);
    send_all(&harness, &["a", "b"]);
    answer(&harness, &desk, 0, "two\nlines");
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b""; 0]);
    let caught = desk.caught.take();
    assert!(
        matches!(caught[..], [ReplyError::Send(SendError::BadFrame(_)), ReplyError::Lost]),
        "{caught:?}"
    );
    conclude(&harness);
}

/// Goal: a peer that stops in the middle of a packet gets the answers to its earlier requests, and then
/// the end. Method: half a packet behind two requests, and no answer before the packet timeout.
#[test]
fn a_packet_timeout_ends_the_connection_after_the_answers_that_are_owed() {
    let (harness, desk) = window(4, options().packet_timeout(secs(1)));
    send_all(&harness, &["a", "b"]);
    harness.receive(b"\x00\x04ha");
    harness.advance(secs(2));
    assert_eq!(harness.closed(), None);
    echo(&harness, &desk, 0);
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"a", b"b"]);
    ended(&harness, CloseReason::PacketTimeout);
}

// ---- tickets ----

/// Goal: a reply of another connection is refused with a typed error, and fills no place. Method: a
/// handler passes its reply on; the number of its request is open in the other window, too.
#[test]
fn a_reply_of_another_connection_is_refused() {
    let (harness, desk) = window(4, options());
    let (other, others) = window(4, options());
    desk.goes_on.set(true);
    *others.pass_to.borrow_mut() = Some(harness.address());
    send_all(&harness, &["ours"]);
    send_all(&other, &["theirs"]);
    echo(&other, &others, 0);
    harness.run();
    assert_eq!(desk.caught.take(), [ReplyError::Unknown]);
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"ours"]);
    conclude(&harness);
    conclude(&other);
}

/// Goal: the same for a reply to a request that the handler has given up. Method: a window that
/// replaces another one.
#[test]
fn a_reply_to_an_earlier_window_is_refused() {
    let (harness, desk) = window(4, options());
    desk.goes_on.set(true);
    send_all(&harness, &["earlier", "anew", "later"]);
    echo(&harness, &desk, 0);
    assert_eq!(desk.caught.take(), [ReplyError::Unknown]);
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"later"]);
    conclude(&harness);
}

/// Goal: no connection waits for ever because a job was lost. It ends when the answers before the
/// lost one are sent, with a reason that says so, and no later answer is sent in its place.
#[test]
fn a_lost_ticket_ends_its_connection_after_the_answers_before_it() {
    let (harness, desk) = window(4, options());
    send_all(&harness, &["a", "b", "c"]);
    echo(&harness, &desk, 2);
    drop(desk.take(1));
    harness.run();
    assert_eq!(harness.closed(), None, "its turn has not come");
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"a"]);
    ended(&harness, ReplyError::Lost.into());
}

/// Goal: a handler may answer for a job that was lost; an answer that was given stands.
#[test]
fn a_lost_ticket_may_be_answered_by_the_handler() {
    struct Careful(Replies, Rc<RefCell<Vec<Ticket>>>);
    impl Handler for Careful {
        type Message = Reply;
        fn handle_packet(&mut self, _: &[u8], ctx: &mut Context<'_, Reply>) -> Action<'static> {
            self.1.borrow_mut().push(self.0.open(ctx).unwrap());
            Action::Continue
        }
        fn handle_info(
            &mut self,
            info: Info<'_, Reply>,
            ctx: &mut Context<'_, Reply>,
        ) -> Action<'static> {
            match info {
                Info::Message(reply) => self.0.fill(reply.or_answer("failed"), ctx).unwrap(),
                other => self.0.default_action(&other, ctx),
            }
        }
    }
    let tickets = Rc::default();
    let harness = Harness::of(Careful(Replies::new(2), Rc::clone(&tickets)));
    harness.packet("a");
    harness.packet("b");
    let [a, b] = <[Ticket; 2]>::try_from(tickets.take()).unwrap();
    drop(a);
    b.answer("done");
    harness.run();
    assert_eq!(harness.packets(), [&b"failed"[..], b"done"]);
    conclude(&harness);
}

/// Goal: an answer meets no full mailbox, and neither does the notice of a lost job. Method: a
/// mailbox of one place, and four answers on two connections before the reactor runs.
#[test]
fn an_answer_meets_no_full_mailbox() {
    for lost in [false, true] {
        let (harness, desk) = window(3, options().mailbox_capacity(1));
        let other = harness.connect();
        send_all(&harness, &["a", "b", "c"]);
        send_all(&other, &["d"]);
        desk.take(3).1.answer("d");
        desk.take(0).1.answer("a");
        let (_, second) = desk.take(0);
        if lost {
            drop(second)
        } else {
            second.answer("b")
        }
        desk.take(0).1.answer("c");
        harness.run();
        assert_eq!(other.packets(), [b"d"]);
        if lost {
            assert_eq!(harness.packets(), [b"a"]);
            assert_eq!(harness.closed(), Some(ReplyError::Lost.into()));
        } else {
            assert_eq!(harness.packets(), [b"a", b"b", b"c"]);
        }
        other.peer_closes();
        conclude(&harness);
    }
}

/// Goal: answers for a connection that has ended are dropped, and reach no later owner of its slot.
#[test]
fn answers_for_a_connection_that_has_ended_are_dropped() {
    let (harness, desk) = window(3, options().max_connections(1));
    send_all(&harness, &["a", "b"]);
    harness.peer_resets();
    assert_eq!(harness.closed(), Some(CloseReason::Reset));
    let next = harness.connect();
    assert!(next.is_accepted());
    send_all(&next, &["c"]);
    echo(&harness, &desk, 0);
    drop(desk.take(0));
    harness.run();
    assert_eq!(harness.stats().dropped_messages, 2);
    echo(&harness, &desk, 0);
    assert_eq!(next.packets(), [b"c"]);
    conclude(&next);
}

// ---- the end ----

/// Goal: a handler that ends the connection sends all answers first, and gets no further request.
#[test]
fn a_connection_that_finishes_sends_all_answers_first() {
    let (harness, desk) = window(4, options());
    send_all(&harness, &["a", "b", "quit", "c"]);
    assert_eq!(desk.requests(), ["a", "b"]);
    echo(&harness, &desk, 1);
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"a", b"b"]);
    ended(&harness, CloseReason::Normal);

    let (harness, _) = window(4, options());
    harness.packet("quit");
    ended(&harness, CloseReason::Normal);
}

/// Goal: the same if all places are taken: an answer that leaves does not resume reading. Method: the
/// handler finishes with a reply; a request waits.
#[test]
fn a_connection_that_finishes_stays_paused() {
    let (harness, desk) = window(3, options());
    send_all(&harness, &["a", "b", "c", "d"]);
    desk.finishes.set(true);
    echo(&harness, &desk, 2);
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"a"]);
    assert_eq!(desk.requests(), ["b"]);
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"b", b"c"]);
    ended(&harness, CloseReason::Normal);
}

/// Goal: a drain waits for all answers, of requests that had arrived before it, too, and takes no
/// request that comes later.
#[test]
fn a_drain_waits_for_all_answers_and_takes_no_more_requests() {
    let (harness, desk) = window(2, options());
    send_all(&harness, &["a", "b", "c"]);
    harness.drain();
    assert_eq!(harness.closed(), None);
    echo(&harness, &desk, 0);
    assert_eq!(desk.requests(), ["b", "c"], "it had arrived");
    echo(&harness, &desk, 0);
    send_all(&harness, &["late"]);
    assert_eq!(desk.requests(), ["c"]);
    assert_eq!(harness.closed(), None);
    echo(&harness, &desk, 0);
    assert_eq!(harness.packets(), [b"a", b"b", b"c"]);
    ended(&harness, CloseReason::Shutdown);
}

/// Goal: after half a close all answers leave, those to requests that waited for a place, too. Then
/// the connection ends. Method: every window for 20 requests; the newest open one is answered first.
#[test]
fn after_half_a_close_all_answers_leave() {
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for max in 1..25 {
        let (harness, desk) = window(max, options());
        send_all(&harness, &names.iter().map(String::as_str).collect::<Vec<_>>());
        harness.peer_closes();
        let mut got = Vec::new();
        while !desk.open.borrow().is_empty() {
            assert_eq!(harness.closed(), None);
            let open = desk.open.borrow().len();
            echo(&harness, &desk, open - 1);
            got.extend(harness.packets());
        }
        assert_eq!(got, names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        ended(&harness, CloseReason::PeerClosed);
    }
}

/// Goal: the same in a drain, whichever comes first, and for a peer that takes its answers late. The
/// first reason stands.
#[test]
fn after_half_a_close_in_a_drain_all_answers_leave() {
    for drains_first in [false, true] {
        for slow in [false, true] {
            let (harness, desk) = window(2, options());
            send_all(&harness, &["a", "b", "c"]);
            if slow {
                harness.peer_stalls();
            }
            if drains_first {
                harness.drain();
                harness.peer_closes();
            } else {
                harness.peer_closes();
                harness.drain();
            }
            for _ in 0..3 {
                assert_eq!(harness.closed(), None);
                echo(&harness, &desk, 0);
            }
            harness.peer_reads_all();
            assert_eq!(harness.packets(), [b"a", b"b", b"c"]);
            ended(&harness, CloseReason::PeerClosed);
        }
    }
}

/// Goal: a half-closed connection whose answers do not come ends by its timeout, and one that gets
/// them in time does not.
#[test]
fn answers_that_do_not_come_hold_no_half_closed_connection() {
    let (harness, desk) = window(2, options().half_close_timeout(secs(30)));
    send_all(&harness, &["a", "b"]);
    harness.peer_closes();
    harness.advance(secs(29));
    echo(&harness, &desk, 0);
    harness.advance(secs(29));
    assert_eq!(harness.closed(), None);
    harness.advance(secs(1));
    assert_eq!(harness.packets(), [b"a"]);
    ended(&harness, CloseReason::HalfCloseTimeout);
}
