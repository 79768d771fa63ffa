//! Answers in order, against a model without a reactor: a list of requests and a list of answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use condor::testing::Harness;
use condor::{
    Action, CloseReason, Context, Handler, Info, ListenerOptions, Replies, Reply, ReplyError,
    Ticket,
};
use proptest::prelude::*;

/// The most bytes that wait for a slow peer. It is the high-water mark, too, so that a slow peer is
/// always read.
const MAX_QUEUED: usize = 2_000;

#[derive(Debug, Clone)]
enum Op {
    /// So many requests arrive together.
    Requests(u8),
    /// A request arrives that the handler answers at once.
    AtOnce,
    /// An open request gets an answer of so many bytes. The number is taken modulo the open ones.
    Answer(u8, u16),
    /// The ticket of an open request is dropped.
    Lose(u8),
    /// The peer takes no more output, or takes all of it.
    Stall,
    ReadAll,
    /// The peer sends no more.
    HalfClose,
    /// A request arrives with which the handler finishes.
    Quit,
    Drain,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (1_u8..6).prop_map(Op::Requests),
        2 => Just(Op::AtOnce),
        12 => (any::<u8>(), 0_u16..1_500).prop_map(|(which, len)| Op::Answer(which, len)),
        1 => any::<u8>().prop_map(Op::Lose),
        2 => Just(Op::Stall),
        2 => Just(Op::ReadAll),
        1 => Just(Op::HalfClose),
        1 => Just(Op::Quit),
        1 => Just(Op::Drain),
    ];
    proptest::collection::vec(op, 1..80)
}

type Open = Rc<RefCell<Vec<Ticket>>>;

struct Window {
    replies: Replies,
    open: Open,
}

impl Window {
    fn request(
        &mut self,
        packet: &[u8],
        ctx: &mut Context<'_, Reply>,
    ) -> Result<Action<'static>, ReplyError> {
        match packet {
            b"at once" => return self.replies.answer("now", ctx),
            b"quit" => return Ok(self.replies.finish(CloseReason::Normal, ctx)),
            _ => self.open.borrow_mut().push(self.replies.open(ctx)?),
        }
        Ok(Action::Continue)
    }
}

impl Handler for Window {
    type Message = Reply;

    fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, Reply>) -> Action<'_> {
        self.request(packet, ctx).into()
    }

    fn handle_info(&mut self, info: Info<'_, Reply>, ctx: &mut Context<'_, Reply>) -> Action<'_> {
        self.replies.handle_info(info, ctx)
    }
}

/// What a request or an event of the peer is, as it waits to be delivered.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
enum Input {
    Request,
    AtOnce,
    Quit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Open,
    Answered(Vec<u8>),
    Lost,
}

/// Requests and answers as lists.
struct Model {
    max: usize,
    input: VecDeque<Input>,
    half_closed: bool,
    drains: bool,
    places: VecDeque<Place>,
    end: Option<CloseReason>,
    closed: Option<CloseReason>,
    stalled: bool,
    queued: usize,
    sent: Vec<Vec<u8>>,
}

impl Model {
    fn new(max: usize) -> Self {
        Self {
            max,
            input: VecDeque::new(),
            half_closed: false,
            drains: false,
            places: VecDeque::new(),
            end: None,
            closed: None,
            stalled: false,
            queued: 0,
            sent: Vec::new(),
        }
    }

    /// Does all that can be done without further events.
    fn settle(&mut self) {
        loop {
            let before = (self.input.len(), self.places.len(), self.end);
            self.send();
            if self.closed.is_some() {
                return;
            }
            if let (true, Some(reason)) = (self.places.is_empty(), self.end) {
                self.closed = Some(reason);
                return;
            }
            if self.end.is_none() && self.places.len() < self.max {
                match self.input.pop_front() {
                    Some(Input::Request) => self.places.push_back(Place::Open),
                    Some(Input::AtOnce) => self.places.push_back(Place::Answered(b"now".into())),
                    Some(Input::Quit) => self.end = Some(CloseReason::Normal),
                    None if self.half_closed => self.end = Some(CloseReason::PeerClosed),
                    None if self.drains => self.end = Some(CloseReason::Shutdown),
                    None => {}
                }
            }
            if before == (self.input.len(), self.places.len(), self.end) {
                return;
            }
        }
    }

    fn send(&mut self) {
        while let Some(place) = self.places.front() {
            match place {
                Place::Open => return,
                Place::Lost => {
                    self.closed = Some(ReplyError::Lost.into());
                    return;
                }
                Place::Answered(answer) => {
                    if self.stalled && self.queued + answer.len() + 2 > MAX_QUEUED {
                        return;
                    }
                    self.queued += answer.len() + 2;
                    self.sent.push(answer.clone());
                    self.places.pop_front();
                }
            }
        }
    }

    /// The indexes of the open places.
    fn open(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|index| self.places[*index] == Place::Open).collect()
    }
}

/// A connection, its tickets, and the model of it.
struct Run {
    harness: Harness<Window>,
    open: Open,
    model: Model,
    received: Vec<Vec<u8>>,
    /// How many answers were given. Each begins with its number.
    answers: u32,
}

impl Run {
    fn new(max: usize) -> Self {
        let open = Open::default();
        let mut handler = Some(Window { replies: Replies::new(max), open: Rc::clone(&open) });
        let options = ListenerOptions::port(5555)
            .max_packet(MAX_QUEUED - 2)
            .max_queued(MAX_QUEUED)
            .write_high_water(MAX_QUEUED)
            .write_low_water(100);
        let harness = Harness::new(options, move |_| handler.take().unwrap());
        Self { harness, open, model: Model::new(max), received: Vec::new(), answers: 0 }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Requests(count) => self.arrive(Input::Request, "?", count.into()),
            Op::AtOnce => self.arrive(Input::AtOnce, "at once", 1),
            Op::Quit => self.arrive(Input::Quit, "quit", 1),
            Op::Answer(which, len) => {
                let mut answer = self.answers.to_be_bytes().to_vec();
                answer.resize(answer.len() + usize::from(len), 0);
                self.answers += 1;
                if let Some(ticket) = self.take(which, Place::Answered(answer.clone())) {
                    ticket.answer(answer);
                }
                self.harness.run();
            }
            Op::Lose(which) => {
                drop(self.take(which, Place::Lost));
                self.harness.run();
            }
            Op::Stall if !self.model.stalled => {
                (self.model.stalled, self.model.queued) = (true, 0);
                self.harness.peer_stalls();
            }
            Op::Stall => {}
            Op::ReadAll => {
                (self.model.stalled, self.model.queued) = (false, 0);
                self.harness.peer_reads_all();
            }
            Op::HalfClose => {
                self.model.half_closed = true;
                self.harness.peer_closes();
            }
            Op::Drain => {
                self.model.drains = true;
                self.harness.drain();
            }
        }
        self.model.settle();
    }

    fn arrive(&mut self, input: Input, text: &str, count: usize) {
        if !self.model.half_closed {
            self.model.input.extend(std::iter::repeat_n(input, count));
            self.harness.receive(self.harness.framed(text).repeat(count));
        }
    }

    /// Takes the ticket of an open request, if there is one. Its place is `place` from now on.
    fn take(&mut self, which: u8, place: Place) -> Option<Ticket> {
        let open = self.model.open();
        let index = usize::from(which).checked_rem(open.len())?;
        self.model.places[open[index]] = place;
        Some(self.open.borrow_mut().remove(index))
    }

    fn check(&mut self) {
        let (harness, model) = (&self.harness, &self.model);
        if model.closed.is_some() {
            harness.peer_reads_all();
        } else {
            assert_eq!(self.open.borrow().len(), model.open().len());
            let open = harness.with_handler(|window| window.replies.len());
            assert_eq!(open, Some(model.places.len()));
        }
        assert_eq!(harness.closed(), model.closed);
        self.received.extend(harness.packets());
        if !model.stalled || model.closed.is_some() {
            assert!(self.received == model.sent, "{} packets", self.received.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: answers arrive in the order of their requests, none is lost and none comes twice; as
    /// many requests are open as may be; the connection ends when it should, for the reason that it
    /// should. Method: random requests, answers, losses, slow readers and ends, and a model.
    #[test]
    fn replies_do_what_two_lists_do(max in 1_usize..6, ops in ops()) {
        let mut run = Run::new(max);
        for op in &ops {
            run.apply(op);
            run.check();
            if run.model.closed.is_some() {
                break;
            }
        }
    }
}
