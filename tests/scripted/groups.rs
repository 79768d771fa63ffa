//! Groups: who is a member, who gets what, and what a slow member costs the others; publishers that
//! wait for room; and wakes.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use condor::testing::{Faults, Harness};
use condor::{
    Action, Address, CloseKind, CloseReason, Context, Decode, FrameError, Framer, Framing, Group,
    Handler, Info, JoinError, LengthField, Lines, ListenerOptions, MessageError, Output,
    ReactorOptions, SlowMember,
};

use crate::rig::{assert_clean, conclude, options};
use crate::support::secs;

/// What the test and all members of its room share.
#[derive(Default)]
struct Room {
    group: OnceCell<Group<String>>,
    /// The messages that handlers got, in order.
    heard: RefCell<Vec<String>>,
    /// The framings for `framing`, by number.
    framings: OnceCell<Vec<Framing>>,
    /// The publishers that were told of room, in order.
    told: RefCell<Vec<u8>>,
    pauses: Cell<u32>,
}

impl Room {
    fn group(&self) -> &Group<String> {
        self.group.get().unwrap()
    }

    fn send_packet(&self, bytes: impl Into<Bytes>) {
        self.group().send_packet(bytes).unwrap();
    }

    fn heard(&self) -> Vec<String> {
        self.heard.take()
    }
}

/// It carries out its packets: `join`, `leave`, `own` and `#` with a number (a framing of its own),
/// `end` (its output), `stop`, `both` (an answer before and after a packet to the group), `later` (a
/// packet to the group before a framing of its own), and `!text`, which publishes the text.
struct Member {
    room: Rc<Room>,
    refused: Option<Bytes>,
    number: u8,
}

impl Member {
    fn publish(&mut self, text: Bytes, ctx: &mut Context<'_, String>) {
        match self.room.group().send_packet(text) {
            Ok(()) => {}
            Err(MessageError::Full(text)) => {
                self.refused = Some(text);
                self.room.pauses.set(self.room.pauses.get() + 1);
                ctx.pause_reading();
                ctx.notify_when_ready(self.room.group());
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

impl Handler for Member {
    type Message = String;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, String>,
    ) -> Action<'a> {
        match packet {
            b"join" => return ctx.join(self.room.group()).into(),
            b"leave" => {
                ctx.leave(self.room.group());
            }
            b"own" => ctx.set_framing(LengthField::U8),
            [b'#', number] => {
                let framings = self.room.framings.get().unwrap();
                ctx.set_framing(framings[usize::from(*number)].clone());
            }
            b"end" => ctx.end_output(),
            b"stop" => return Action::stop(CloseReason::Normal),
            b"later" => {
                self.room.send_packet("group");
                ctx.set_framing(LengthField::U8);
            }
            b"both" => {
                ctx.send("before").unwrap();
                self.room.send_packet("group");
                return Action::send("after");
            }
            _ => self.publish(Bytes::copy_from_slice(&packet[1..]), ctx),
        }
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, String>,
        ctx: &mut Context<'_, String>,
    ) -> Action<'a> {
        match info {
            Info::Message(text) => {
                if text == "leave" {
                    assert!(ctx.leave(self.room.group()));
                }
                if text == "stop the second" && self.number == 2 {
                    return Action::stop(CloseReason::Normal);
                }
                self.room.heard.borrow_mut().push(format!("{}: {text}", self.number));
            }
            Info::MailboxReady => {
                self.room.told.borrow_mut().push(self.number);
                ctx.resume_reading();
                if let Some(text) = self.refused.take() {
                    self.publish(text, ctx);
                }
            }
            Info::EndOfInput { .. } => {}
            other => return other.default_action(),
        }
        Action::Continue
    }
}

/// A room with this many connections, the first of which is no member. All others are.
fn room(
    reactor: ReactorOptions,
    options: ListenerOptions,
    count: u8,
) -> (Vec<Harness<Member>>, Rc<Room>) {
    let room = Rc::new(Room::default());
    let (theirs, mut number) = (Rc::clone(&room), 0);
    let first = Harness::with(reactor, options.max_connections(1_000), move |_| {
        let member = Member { room: Rc::clone(&theirs), refused: None, number };
        number += 1;
        member
    });
    room.group.set(first.group()).unwrap();
    let mut all = vec![first];
    for _ in 1..count {
        let next = all[0].connect();
        next.packet("join");
        all.push(next);
    }
    (all, room)
}

fn end_all(all: &[Harness<Member>]) {
    for each in all {
        each.peer_reads_all();
        each.peer_closes();
    }
    all[0].drain();
    all[0].advance(secs(100));
    assert_clean(&all[0]);
}

/// Goal: a packet reaches every member once and no other connection, and no handler is called.
/// Method: two members of three connections, one packet and one message.
#[test]
fn a_packet_reaches_the_members_without_their_handlers() {
    let (all, room) = room(ReactorOptions::default(), options(), 3);
    room.send_packet("news");
    all[0].run();
    assert_eq!(
        all.iter().map(Harness::packets).map(|got| got.len()).collect::<Vec<_>>(),
        [0, 1, 1]
    );
    let stats = all[0].stats();
    assert_eq!((stats.messages, stats.packets_out), (0, 2));
    room.group().send(String::from("all")).unwrap();
    all[0].run();
    let mut heard = room.heard();
    heard.sort_unstable();
    assert_eq!(heard, ["1: all", "2: all"]);
    end_all(&all);
}

/// Goal: a member whose write fails ends at once, and the other members get the packet. Method: an
/// error of the write that the packet causes, on the second of four connections.
#[test]
fn a_member_whose_write_fails_ends_and_the_others_get_the_packet() {
    let (all, room) = room(ReactorOptions::default(), options(), 4);
    all[1].fail_next_write(ErrorKind::BrokenPipe);
    room.send_packet("news");
    all[0].run();
    assert!(all[1].closed().is_some());
    assert_eq!(all[2].packets(), [b"news"]);
    assert_eq!(all[3].packets(), [b"news"]);
    end_all(&all);
}

/// Goal: a second join and a second leave change nothing, and a member that left gets nothing.
/// Method: both twice, with a packet after each.
#[test]
fn joining_twice_and_leaving_twice_change_nothing() {
    let (all, room) = room(ReactorOptions::default(), options(), 3);
    all[1].packet("join");
    assert_eq!(all[0].leftovers().memberships, 2);
    room.send_packet("one");
    all[1].run();
    assert_eq!(all[1].packets(), [b"one"]);
    assert_eq!(all[2].packets(), [b"one"]);
    for _ in 0..2 {
        all[1].packet("leave");
        assert_eq!(all[0].leftovers().memberships, 1);
        room.send_packet("two");
        all[1].run();
        assert_eq!((all[1].packets().len(), all[2].packets().len()), (0, 1));
    }
    end_all(&all);
}

/// Goal: what a callback sends to its peer goes out when it returns, and what it sends to the group
/// comes after that, at itself as at the others. Method: a member that sends before and after.
#[test]
fn the_groups_packet_comes_after_the_members_own_answers() {
    let (all, _) = room(ReactorOptions::default(), options(), 3);
    all[1].packet("both");
    assert_eq!(all[1].packets(), [&b"before"[..], b"after", b"group"]);
    assert_eq!(all[2].packets(), [b"group"]);
    end_all(&all);
}

/// Goal: a member that ends after the call and before the delivery gets nothing, and the others get the
/// packet. Method: a member whose peer resets the connection, and one that stops, in the turn in which
/// the packet is delivered.
#[test]
fn a_member_that_ends_before_the_delivery_gets_nothing() {
    let (all, room) = room(ReactorOptions::default(), options(), 5);
    room.send_packet("news");
    all[1].arrive(all[1].framed("stop"));
    all[2].peer_resets();
    assert_eq!(all[1].closed(), Some(CloseReason::Normal));
    assert_eq!(all[2].closed(), Some(CloseReason::Reset));
    let got: Vec<usize> = all.iter().map(|each| each.packets().len()).collect();
    assert_eq!((got, all[0].stats().packets_out), (vec![0, 0, 0, 1, 1], 2));
    assert_eq!(all[0].leftovers().memberships, 2);
    end_all(&all);
}

/// Goal: a member that leaves in its own callback gets what that callback came with and nothing after
/// it; one that ends is gone for the same delivery; the others get everything, once. Method: messages
/// that make members leave and stop, each with packets behind it, with budgets that cut the delivery
/// anywhere.
#[test]
fn members_that_leave_or_end_in_a_delivery_miss_nobody_elses() {
    for budget in [1, 2, 3, 5, 1_000] {
        let (all, room) = room(ReactorOptions::default().message_budget(budget), options(), 6);
        for text in ["stop the second", "stay"] {
            room.group().send(text.into()).unwrap();
        }
        room.send_packet("packet");
        all[0].run();
        assert_eq!(all[2].closed(), Some(CloseReason::Normal), "budget {budget}");
        assert_eq!(all[2].packets().len(), 0);
        let mut heard = room.heard();
        heard.sort_unstable();
        assert_eq!(heard.len(), 8, "{heard:?}, budget {budget}");
        let rest = [1, 3, 4, 5].map(|at: usize| &all[at]);
        rest.iter().for_each(|each| assert_eq!(each.packets(), [b"packet"]));
        room.group().send("leave".into()).unwrap();
        all[0].run();
        assert_eq!(room.heard().len(), 4);
        room.group().send("late".into()).unwrap();
        room.send_packet("late");
        all[0].run();
        assert_eq!(room.heard().len(), 0);
        assert!(rest.iter().all(|each| each.packets().is_empty()));
        assert_eq!(all[0].leftovers().memberships, 0);
        end_all(&all);
    }
}

/// Goal: a delivery to a large group stops at the budget and goes on in the next turn. A connection
/// that joins meanwhile does not get it; a member that leaves meanwhile does not either. Method: 300
/// members with a budget of 100, and one join, one leave and one end after the first turn.
#[test]
fn a_large_group_is_served_within_the_budget() {
    let (all, room) = room(ReactorOptions::default().message_budget(100), options(), 250);
    room.send_packet("news");
    all[0].turn();
    let served = |all: &[Harness<Member>]| all[0].stats().packets_out;
    assert_eq!((served(&all), all[0].stats().message_budget_hits), (99, 1));
    // Those that are not served yet are the ones that joined first.
    all[0].arrive(all[0].framed("join"));
    all[1].arrive(all[1].framed("leave"));
    all[2].peer_resets();
    assert_eq!(served(&all), 247);
    let got: Vec<usize> = all.iter().map(|each| each.packets().len()).collect();
    assert_eq!(got[..3], [0, 0, 0]);
    assert!(got[3..].iter().all(|count| *count == 1));
    end_all(&all);
}

thread_local! {
    /// A connection of the test below, whose framings move its clock. A framing has to be `Send`.
    static SLOW: RefCell<Option<Harness<Slow>>> = const { RefCell::new(None) };
}

/// A member whose framing no other has, and which takes 200 µs for a frame.
struct Slow(Rc<OnceCell<Group<()>>>);

struct SlowFramer;

impl Framer for SlowFramer {
    fn decode(&self, _: &[u8], _: usize) -> Result<Decode, FrameError> {
        Ok(Decode::Need(None))
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        let by = Duration::from_micros(200);
        SLOW.with_borrow(|slow| slow.as_ref().unwrap().stall(by));
        out.put(payload);
        Ok(())
    }
}

impl Handler for Slow {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        ctx.set_framing(Framing::custom(SlowFramer));
        ctx.join(self.0.get_or_init(|| ctx.group())).into()
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        Action::Continue
    }
}

/// Goal: packets to a large group do not hold up a turn, and each member gets all of them. Method: 200
/// members, each of which takes 200 µs a packet.
#[test]
fn packets_to_a_slow_group_end_in_time() {
    let group = Rc::new(OnceCell::new());
    let theirs = Rc::clone(&group);
    let options = options().max_connections(1_000);
    let first = Harness::new(options, move |_| Slow(Rc::clone(&theirs)));
    SLOW.set(Some(first.connect()));
    let members: Vec<_> = (2..200).map(|_| first.connect()).collect();
    (0..5).for_each(|_| group.get().unwrap().send_packet("news").unwrap());
    let (mut turns, mut slow) = (0, 0);
    while first.stats().packets_out < 5 * 200 {
        let before = first.elapsed();
        first.turn();
        turns += 1;
        // The first look may come after as many units as cheap work fits in.
        slow += u32::from(first.elapsed() - before > Duration::from_micros(3_000));
        assert!(slow <= 1 && turns < 1_000, "{turns} turns, {slow} of them slow");
    }
    assert!(turns > 50, "{turns} turns");
    assert!(members.iter().all(|member| member.sent() == b"news".repeat(5)));
    drop(SLOW.take());
    first.drain();
    first.advance(secs(100));
    assert_clean(&first);
}

/// Goal: a slow member is skipped or disconnected, as the group says, once its queue is above the
/// high-water mark; the others get everything. Method: one of two members reads nothing; packets of
/// 1,000 bytes with a mark of 10,000.
#[test]
fn a_slow_member_costs_the_others_nothing() {
    for slow in [SlowMember::Skip, SlowMember::Disconnect] {
        let options = options().write_high_water(10_000).write_low_water(1_000);
        let (all, room) = room(ReactorOptions::default(), options, 3);
        let group = room.group().clone().slow_member(slow);
        all[1].peer_stalls();
        for _ in 0..100 {
            group.send_packet(vec![7; 1_000]).unwrap();
            all[0].run();
        }
        assert_eq!(all[2].packets().len(), 100);
        let stats = all[0].stats();
        if slow == SlowMember::Skip {
            assert_eq!((all[1].queued_bytes(), all[1].closed()), (10 * 1_002, None));
            assert_eq!(stats.skipped_packets, 90);
            all[1].peer_reads_all();
            assert_eq!(all[1].packets().len(), 10);
            group.send_packet("again").unwrap();
            all[1].run();
            assert_eq!(all[1].packets(), [b"again"]);
        } else {
            assert_eq!(all[1].closed(), Some(CloseReason::SlowReader));
            assert_eq!((stats.skipped_packets, stats.closed(CloseKind::SlowReader)), (0, 1));
            assert_eq!(all[0].leftovers().memberships, 1);
        }
        end_all(&all);
    }
}

/// Goal: packets that wait together never take a slow member's queue far above the mark. Method: a
/// thousand packets in one turn.
#[test]
fn a_burst_stops_at_the_mark_of_a_slow_member() {
    let options = options().write_high_water(10_000).write_low_water(1_000);
    let (all, room) = room(ReactorOptions::default(), options, 3);
    let group = room.group().clone().slow_member(SlowMember::Skip);
    all[1].peer_stalls();
    for _ in 0..1_000 {
        group.send_packet(vec![7; 1_000]).unwrap();
    }
    all[0].run();
    assert_eq!(all[2].packets().len(), 1_000);
    // The first packets that wait together are offered in one write, 32 KiB of them.
    assert!(all[1].queued_bytes() <= 34 * 1_002, "{} bytes", all[1].queued_bytes());
    end_all(&all);
}

/// Goal: a member whose framing refuses a packet is skipped and counted; one with another framing gets
/// its own frame; one whose queue has no room is treated as slow; the others get the packet. Method:
/// packets of 300 bytes, and one more than the queue has room for.
#[test]
fn a_packet_that_does_not_fit_one_member_reaches_the_others() {
    let options = options().max_packet(1_000).max_queued(1_002).write_high_water(1_000);
    let (all, room) = room(ReactorOptions::default(), options.write_low_water(10), 4);
    all[1].packet("own");
    for text in ["short", &"x".repeat(300)] {
        room.send_packet(text.as_bytes().to_vec());
        all[0].run();
    }
    assert_eq!((all[1].packets(), all[2].packets().len()), (vec![b"short".to_vec()], 2));
    assert_eq!((all[0].stats().refused_sends, all[0].stats().skipped_packets), (1, 0));
    let group = room.group().clone().slow_member(SlowMember::Skip);
    all[2].peer_stalls();
    for _ in 0..2 {
        group.send_packet(vec![7; 600]).unwrap();
        all[0].run();
    }
    assert_eq!((all[2].queued_bytes(), all[2].closed()), (602, None));
    assert_eq!((all[0].stats().skipped_packets, all[3].packets().len()), (1, 4));
    end_all(&all);
}

/// A framing that counts how often it makes a frame. A frame begins with its letter.
struct Counted {
    letter: u8,
    frames: Arc<AtomicU32>,
}

impl Framer for Counted {
    fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
        let [_, len, ..] = input else { return Ok(Decode::Need(None)) };
        let end = 2 + usize::from(*len);
        if input.len() < end {
            return Ok(Decode::Need(Some(end)));
        }
        Ok(Decode::Frame { payload: 2..end, consumed: end })
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        self.frames.fetch_add(1, Ordering::Relaxed);
        let len = u8::try_from(payload.len()).map_err(|_| FrameError::Bad("too long"))?;
        out.put(&[self.letter, len]);
        out.put(payload);
        Ok(())
    }
}

/// Goal: the frame of a packet is made once for each framing that members have of their own, however
/// many have it, and each member gets its own framing's. Beyond eight framings each further member gets
/// a frame of its own. A framing that refuses the packet refuses it to its members alone. Method: 3
/// members for each of 10 framings, packets that wait together, and one that is too long.
#[test]
fn a_frame_is_made_once_for_each_framing() {
    let (all, room) = room(ReactorOptions::default(), options(), 32);
    let frames = Arc::new(AtomicU32::new(0));
    let framing = |letter| Framing::custom(Counted { letter, frames: Arc::clone(&frames) });
    room.framings.set((b'a'..=b'j').map(framing).collect()).unwrap();
    let own = |at: usize| u8::try_from((at - 1) % 10).unwrap();
    for (at, member) in all.iter().enumerate().skip(1).take(30) {
        member.packet([b'#', own(at)]);
    }
    for (packets, expected) in [(1, 8 + 2 * 3), (3, 3 * (8 + 2 * 3))] {
        (0..packets).for_each(|_| room.send_packet("news"));
        all[0].run();
        assert_eq!(frames.swap(0, Ordering::Relaxed), expected);
        for (at, member) in all.iter().enumerate().skip(1).take(30) {
            let frame = [&[b'a' + own(at), 4][..], b"news"].concat();
            assert_eq!(member.sent(), frame.repeat(packets), "member {at}");
        }
        assert_eq!(all[31].packets().len(), packets);
    }
    let before = all[0].stats();
    assert_eq!((before.packets_out, before.refused_sends), (4 * 31, 0));
    room.send_packet(vec![7; 300]);
    all[0].run();
    assert_eq!(all[0].stats().refused_sends, 30);
    assert_eq!((all[31].packets().len(), all[1].sent().len()), (1, 0));
    end_all(&all);
}

/// Goal: a member that changes its framing between two packets gets the second in the new one. Method:
/// a framing of its own between two packets.
#[test]
fn a_member_that_changes_its_framing_gets_the_next_packet_in_it() {
    let (all, room) = room(ReactorOptions::default(), options(), 3);
    let frames = Arc::new(AtomicU32::new(0));
    let framing = Framing::custom(Counted { letter: b'x', frames });
    room.framings.set(vec![framing]).unwrap();
    room.send_packet("one");
    all[0].run();
    all[1].packet([b'#', 0]);
    room.send_packet("two");
    all[0].run();
    assert_eq!(all[2].packets(), [&b"one"[..], b"two"]);
    assert_eq!(all[1].sent(), b"\x00\x03onex\x03two");
    end_all(&all);
}

/// Goal: a packet is framed as the member is framed when it is delivered, not when it was sent. Method:
/// a callback that sends to the group, and then changes the framing of its own connection.
#[test]
fn a_packet_on_its_way_is_framed_as_the_member_is_framed_when_it_comes() {
    let (all, _) = room(ReactorOptions::default(), options(), 3);
    all[1].packet("later");
    assert_eq!((all[1].sent(), all[2].packets()), (b"\x05group".to_vec(), vec![b"group".to_vec()]));
    end_all(&all);
}

/// Goal: the listener's own framing makes the frame of a packet once for all members, also for those
/// with queued output, for packets that are long, and for packets that it refuses. Method: a framing
/// that counts; ten members, some of which take nothing for a while.
#[test]
fn the_listeners_framing_makes_each_frame_once() {
    let frames = Arc::new(AtomicU32::new(0));
    let framing = Framing::custom(Counted { letter: b'x', frames: Arc::clone(&frames) });
    let (all, room) = room(ReactorOptions::default(), options().framing(framing), 11);
    all[1..4].iter().for_each(Harness::peer_stalls);
    for count in 1..=3 {
        frames.store(0, Ordering::Relaxed);
        room.send_packet("news");
        all[0].run();
        assert_eq!(frames.load(Ordering::Relaxed), 1, "packet {count}");
    }
    all[1..4].iter().for_each(Harness::peer_reads_all);
    all[1..].iter().for_each(|each| assert_eq!(each.sent(), b"x\x04news".repeat(3)));
    frames.store(0, Ordering::Relaxed);
    for text in [&b"first"[..], &[7; 300], b"last"] {
        room.send_packet(text.to_vec());
    }
    all[0].run();
    assert_eq!(frames.load(Ordering::Relaxed), 3);
    all[1..].iter().for_each(|each| assert_eq!(each.sent(), b"x\x05firstx\x04last"));
    let stats = all[0].stats();
    assert_eq!((stats.refused_sends, stats.packets_out), (10, 50));
    end_all(&all);
}

/// Goal: a long packet is framed once by a framing that needs more than a prefix, and reaches members
/// with and without queued output whole. Method: lines of 100,000 bytes to ten members, a few of which
/// take nothing for a while.
#[test]
fn long_lines_arrive_whole() {
    let wide = options().framing(Lines::new(200_000)).max_packet(200_000);
    let (all, room) = room(ReactorOptions::default(), wide.write_high_water(1_000_000), 6);
    all[1].peer_stalls();
    all[2].max_write(1_000);
    let lines = [b'a', b'b', b'c'].map(|letter| vec![letter; 100_000]);
    for line in &lines {
        room.send_packet("before");
        room.send_packet(line.clone());
        all[0].run();
    }
    all[1].peer_reads_all();
    for each in &all[1..] {
        let expected = lines.iter().flat_map(|line| [&b"before"[..], line]);
        assert!(each.packets().iter().eq(expected));
    }
    assert_eq!(all[0].stats().packets_out, 6 * 5);
    end_all(&all);
}

/// Goal: packets that wait together take no member's queue above `max_queued`, and a member that reads
/// loses none of them to that limit. Method: packets of 600 bytes in one turn, with a queue that has
/// room for one; one member reads nothing.
#[test]
fn packets_that_wait_together_respect_max_queued() {
    for slow in [SlowMember::Skip, SlowMember::Disconnect] {
        let options = options().max_packet(1_000).max_queued(1_002).write_high_water(1_000);
        let (all, room) = room(ReactorOptions::default(), options.write_low_water(10), 3);
        let group = room.group().clone().slow_member(slow);
        all[1].peer_stalls();
        for _ in 0..5 {
            group.send_packet(vec![7; 600]).unwrap();
        }
        all[0].run();
        assert_eq!(all[2].packets().len(), 5);
        if slow == SlowMember::Skip {
            assert_eq!((all[1].queued_bytes(), all[0].stats().skipped_packets), (602, 4));
        } else {
            assert_eq!(all[1].closed(), Some(CloseReason::SlowReader));
        }
        // It fits no queue, so no member is slow.
        group.send_packet(vec![7; 2_000]).unwrap();
        all[0].run();
        assert_eq!((all[2].packets().len(), all[2].closed()), (0, None));
        end_all(&all);
    }
}

/// Goal: a half-closed member gets packets; one that has ended its output gets none, and is no
/// error. Method: one of each, beside a member that only listens.
#[test]
fn a_half_closed_member_goes_on_getting_packets() {
    let (all, room) = room(ReactorOptions::default(), options(), 4);
    all[1].peer_closes();
    all[2].packet("end");
    room.send_packet("news");
    all[0].run();
    let got: Vec<usize> = all.iter().map(|each| each.packets().len()).collect();
    assert_eq!((got, all[0].stats().refused_sends), (vec![0, 1, 0, 1], 0));
    assert_eq!(all[2].closed(), None);
    // Each packet is output, so it restarts the clock of the half-closed member.
    for _ in 0..3 {
        all[0].advance(secs(20));
        assert_eq!(all[1].closed(), None);
        room.send_packet("news");
        all[0].run();
    }
    all[0].advance(secs(31));
    assert_eq!(all[1].closed(), Some(CloseReason::HalfCloseTimeout));
    end_all(&all);
}

/// Goal: large packets are shared, and arrive whole also at a member that takes them in pieces. One
/// that comes while the budget of a turn holds up earlier ones comes after them. Method: packets from
/// below to far above the length from which they are shared; one in the turn in which a peer with a
/// long queue reads again.
#[test]
fn large_packets_arrive_whole() {
    let wide =
        options().framing(LengthField::U32).max_packet(2_000_000).write_high_water(4_000_000);
    let (all, room) = room(ReactorOptions::default(), wide, 4);
    all[1].max_write(1_000);
    all[2].peer_stalls();
    let lengths = [0, 1, 32_767, 32_768, 100_000, 2_000_000];
    let packets = lengths.map(|len| vec![u8::try_from(len % 251).unwrap(); len]);
    for packet in &packets {
        room.send_packet(packet.clone());
    }
    all[0].run();
    room.send_packet("last");
    all[2].peer_reads_all();
    let expected = [&packets[..], &[b"last".to_vec()]].concat();
    all[1..].iter().for_each(|each| assert!(each.packets() == expected));
    end_all(&all);
}

/// Goal: a connection joins only groups of its own listener, and at most `max_groups` of them; a place
/// is free again after it has left. Method: a group of another harness, and one group more than the
/// maximum.
#[test]
fn joins_are_refused_with_a_reason() {
    struct Tries {
        foreign: Option<Group<()>>,
        results: Arc<Mutex<Vec<Result<(), JoinError>>>>,
    }
    impl Handler for Tries {
        type Message = ();
        fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
            let groups = [(); 3].map(|()| ctx.group());
            let foreign = self.foreign.take().unwrap();
            assert!(!ctx.leave(&foreign));
            let mut results = vec![ctx.join(&foreign)];
            results.extend(groups.iter().map(|group| ctx.join(group)));
            results.push(ctx.join(&groups[0]));
            assert!(ctx.leave(&groups[1]) && !ctx.leave(&groups[1]));
            results.push(ctx.join(&groups[2]));
            *self.results.lock().unwrap() = results;
            Action::Continue
        }
    }
    let other = Harness::new(options(), |_| Tries { foreign: None, results: Arc::default() });
    let results = Arc::new(Mutex::new(Vec::new()));
    let (foreign, theirs) = (other.group(), Arc::clone(&results));
    let harness = Harness::new(options().max_groups(2), move |_| Tries {
        foreign: Some(foreign.clone()),
        results: Arc::clone(&theirs),
    });
    harness.packet("go");
    let full = Err(JoinError::Full { max: 2 });
    let expected = [Err(JoinError::OtherListener), Ok(()), Ok(()), full, Ok(()), Ok(())];
    assert_eq!(*results.lock().unwrap(), expected);
    assert_eq!((harness.stats().refused_joins, harness.leftovers().memberships), (1, 2));
    conclude(&harness);
}

/// Goal: members get whole packets in order, or a prefix if their stream dies, whatever the network
/// does. Method: many seeds, five members, some of which die.
#[test]
fn packets_are_whole_and_in_order_under_faults() {
    for seed in 0..200 {
        let (all, room) = room(ReactorOptions::default().message_budget(7), options(), 6);
        let faults = Faults::new(seed);
        all[0].faults(if seed % 2 == 0 { faults } else { faults.reset(0.01).broken_pipe(0.01) });
        let expected: Vec<Vec<u8>> =
            (0..100).map(|count| format!("{count}").into_bytes()).collect();
        for packet in &expected {
            room.send_packet(packet.clone());
        }
        all[0].run();
        for each in &all[1..] {
            let got = each.packets();
            assert!(expected.starts_with(&got), "seed {seed}: {got:?}");
            assert!(each.is_dead() || got.len() == 100, "seed {seed}: {}", got.len());
        }
        end_all(&all);
    }
}

// ---- room in the mailbox ----

/// Goal: a publisher that pauses when the mailbox is full and goes on at `MailboxReady` loses nothing.
/// Method: 20,000 publications in one piece, a mailbox of 64, 20 subscribers, one of which vanishes.
#[test]
fn a_publisher_that_waits_for_room_loses_nothing() {
    let (all, room) = room(ReactorOptions::default(), options().mailbox_capacity(64), 22);
    let texts: Vec<Vec<u8>> = (0..20_000).map(|count| format!("{count}").into_bytes()).collect();
    let wire: Vec<u8> =
        texts.iter().flat_map(|text| all[0].framed([b"!", &text[..]].concat())).collect();
    all[21].arrive(all[21].framed("leave"));
    all[0].receive(wire);
    assert!(room.pauses.get() > 100, "{}", room.pauses.get());
    for each in &all[1..21] {
        let got = each.packets();
        assert!(got == texts, "{} packets", got.len());
    }
    assert_eq!(all[0].stats().dropped_messages, 0);
    end_all(&all);
}

/// Goal: those that wait for the same mailbox are told in the order of asking, once for each time they
/// asked, and the next one only after the one before has had its turn. Method: three publishers with
/// 300 publications each, a mailbox of 8: their turns alternate.
#[test]
fn publishers_are_told_in_the_order_of_asking() {
    let (all, room) = room(ReactorOptions::default(), options().mailbox_capacity(8), 5);
    for (at, publisher) in all[..3].iter().enumerate() {
        let text = format!("!{at}");
        publisher.arrive(publisher.framed(text).repeat(300));
    }
    all[0].run();
    assert_eq!(all[4].packets().len(), 900);
    let told = room.told.take();
    assert_eq!(told.len(), room.pauses.get() as usize, "once for each time");
    let begun = &told[..told.len() - 40];
    assert!(begun.len() > 60, "{}", begun.len());
    assert!(begun.windows(3).all(|turns| turns[0] != turns[1] && turns[0] != turns[2]), "{told:?}");
    end_all(&all);
}

/// Goal: a connection that waits is told if the recipients are gone, and nothing happens if it is gone
/// itself: the next one is told. Method: three connections of one listener wait for a mailbox of
/// another; the first ends; then the other listener ends.
#[test]
fn those_that_wait_are_told_of_the_end() {
    struct Waits {
        target: Address<String>,
        told: Rc<Cell<u32>>,
    }
    impl Handler for Waits {
        type Message = ();
        fn handle_packet<'a>(
            &'a mut self,
            packet: &'a [u8],
            ctx: &mut Context<'_, ()>,
        ) -> Action<'a> {
            if packet == b"stop" {
                return Action::stop(CloseReason::Normal);
            }
            ctx.notify_when_ready(&self.target);
            Action::Continue
        }
        fn handle_info<'a>(
            &'a mut self,
            info: Info<'a, ()>,
            _: &mut Context<'_, ()>,
        ) -> Action<'a> {
            if let Info::MailboxReady = info {
                self.told.set(self.told.get() + 1);
            }
            info.default_action()
        }
    }
    let (target, _) = room(ReactorOptions::default(), options().mailbox_capacity(4), 1);
    let (address, told) = (target[0].address(), Rc::new(Cell::new(0)));
    let theirs = (address.clone(), Rc::clone(&told));
    let first = Harness::new(options(), move |_| Waits {
        target: theirs.0.clone(),
        told: Rc::clone(&theirs.1),
    });
    let all = [first.connect(), first.connect(), first];
    let fill = || while address.send("x".into()).is_ok() {};
    let ask = || all.iter().for_each(|each| each.packet("ask"));
    ask();
    assert_eq!(told.take(), 3, "there is room at once");
    fill();
    ask();
    assert_eq!(told.get(), 0);
    all[0].packet("stop");
    all[0].peer_closes();
    target[0].run();
    all[2].run();
    target[0].run();
    all[2].run();
    target[0].run();
    all[2].run();
    assert_eq!(told.take(), 2);
    fill();
    ask();
    drop(target);
    all[2].run();
    assert_eq!(told.take(), 2);
    ask();
    assert_eq!(told.take(), 2, "it is gone");
}

/// Goal: a connection that asks twice is told twice. Method: two requests in one callback, with a
/// mailbox that is full and with one that has room.
#[test]
fn a_connection_is_told_once_for_each_time_it_asked() {
    struct AsksTwice(Rc<Cell<u32>>);
    impl Handler for AsksTwice {
        type Message = ();
        fn handle_packet<'a>(&'a mut self, _: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
            let own = ctx.address();
            while own.send(()).is_ok() {}
            ctx.notify_when_ready(&own);
            ctx.notify_when_ready(&own);
            Action::Continue
        }
        fn handle_info<'a>(
            &'a mut self,
            info: Info<'a, ()>,
            ctx: &mut Context<'_, ()>,
        ) -> Action<'a> {
            if let Info::MailboxReady = info {
                self.0.set(self.0.get() + 1);
                if self.0.get() == 3 {
                    // Now there is room.
                    ctx.notify_when_ready(&ctx.address());
                }
            }
            info.default_action()
        }
    }
    let told = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&told);
    let harness =
        Harness::new(options().mailbox_capacity(8), move |_| AsksTwice(Rc::clone(&theirs)));
    harness.packet("ask");
    assert_eq!(told.get(), 2);
    harness.packet("ask");
    assert_eq!(told.get(), 5);
    conclude(&harness);
}

// ---- wakes ----

/// Goal: all wakes until the handler is called make one call; one in the callback makes another; a full
/// mailbox takes them; none reaches a later owner of the slot. Method: a thousand wakes between two
/// turns, with a mailbox of one place that is full; then a handler that wakes itself twice.
#[test]
fn wakes_are_merged_and_never_refused() {
    struct Woken {
        wakes: Rc<Cell<u32>>,
        again: u32,
    }
    impl Handler for Woken {
        type Message = ();
        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            self.again = 2;
            Action::Continue
        }
        fn handle_info<'a>(
            &'a mut self,
            info: Info<'a, ()>,
            ctx: &mut Context<'_, ()>,
        ) -> Action<'a> {
            if let Info::Wake = info {
                self.wakes.set(self.wakes.get() + 1);
                if self.again > 0 {
                    self.again -= 1;
                    assert!(ctx.address().wake());
                }
            }
            info.default_action()
        }
    }
    let wakes = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&wakes);
    let options = options().mailbox_capacity(1).max_connections(2);
    let one = Harness::new(options, move |_| Woken { wakes: Rc::clone(&theirs), again: 0 });
    let two = one.connect();
    let addresses = [one.address(), two.address()];
    addresses[0].send(()).unwrap();
    for _ in 0..1_000 {
        assert!(addresses.iter().all(Address::wake));
    }
    assert!(matches!(addresses[0].send(()), Err(MessageError::Full(()))));
    one.run();
    assert_eq!(wakes.take(), 2);
    one.packet("again");
    assert!(addresses[0].wake());
    one.run();
    assert_eq!(wakes.take(), 3);
    assert!(addresses[1].wake());
    two.peer_resets();
    let three = one.connect();
    assert_eq!((three.id().map(|id| id == addresses[1].id()), wakes.take()), (Some(false), 0));
    addresses[1].wake();
    one.run();
    assert_eq!(wakes.take(), 0, "it has the slot of the one before");
    one.drain();
    one.advance(secs(10));
    assert!(!addresses[0].wake(), "the listener has ended");
}

/// Goal: with the newest value and a wake, a member that reads one of ten publications gets whole
/// packets, each newer than the one before, and the newest last. Method: 1,000 publications of 100
/// bytes, a turn after each; the peer reads ten bytes after each, so it reads in the middle of packets.
/// Above the high-water mark the handler sends nothing; below it, it sends the newest value.
#[test]
fn a_slow_member_gets_the_newest_value_whole() {
    struct Newest {
        value: Rc<RefCell<String>>,
        is_late: bool,
    }
    impl Newest {
        fn send(&mut self, ctx: &Context<'_, ()>) -> Action<'static> {
            self.is_late = ctx.queued_bytes() > 0;
            if self.is_late { Action::Continue } else { Action::send(self.value.borrow().clone()) }
        }
    }
    impl Handler for Newest {
        type Message = ();
        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            Action::Continue
        }
        fn handle_info<'a>(
            &'a mut self,
            info: Info<'a, ()>,
            ctx: &mut Context<'_, ()>,
        ) -> Action<'a> {
            match info {
                Info::Wake => self.send(ctx),
                Info::Writable if self.is_late => self.send(ctx),
                other => other.default_action(),
            }
        }
    }
    let value = Rc::new(RefCell::new(String::new()));
    let theirs = Rc::clone(&value);
    let options = options().write_high_water(1).write_low_water(0);
    let harness =
        Harness::new(options, move |_| Newest { value: Rc::clone(&theirs), is_late: false });
    let address = harness.address();
    harness.peer_stalls();
    for count in 1..=1_000 {
        *value.borrow_mut() = format!("{count:0100}");
        address.wake();
        harness.run();
        harness.peer_reads(10);
    }
    harness.peer_reads_all();
    let got: Vec<u32> = harness
        .packets()
        .into_iter()
        .map(|packet| {
            assert_eq!(packet.len(), 100);
            String::from_utf8(packet).unwrap().parse().unwrap()
        })
        .collect();
    assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
    assert!((90..=110).contains(&got.len()), "{}", got.len());
    assert_eq!(got.last(), Some(&1_000));
    conclude(&harness);
}

/// Goal: with the newest value and a wake, a turn after every tenth of 1,000 publications sends the
/// newest one only. Method: a value that the test changes, and the packets that arrive.
#[test]
fn the_newest_value_arrives_last() {
    struct Newest(Rc<RefCell<String>>);
    impl Handler for Newest {
        type Message = ();
        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            Action::Continue
        }
        fn handle_info<'a>(
            &'a mut self,
            info: Info<'a, ()>,
            _: &mut Context<'_, ()>,
        ) -> Action<'a> {
            match info {
                Info::Wake => Action::send(self.0.borrow().clone()),
                other => other.default_action(),
            }
        }
    }
    let newest = Rc::new(RefCell::new(String::new()));
    let harness = Harness::of(Newest(Rc::clone(&newest)));
    let address = harness.address();
    for count in 1..=1_000 {
        *newest.borrow_mut() = count.to_string();
        address.wake();
        if count % 10 == 0 {
            harness.turn();
        }
    }
    let expected: Vec<Vec<u8>> =
        (1..=100).map(|tens| (tens * 10).to_string().into_bytes()).collect();
    assert_eq!(harness.packets(), expected);
    conclude(&harness);
}
