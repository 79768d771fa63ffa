//! Calls, against a model without a reactor: a list of calls.

use condor::InOrder;
use condor::testing::Harness;
use proptest::prelude::*;

use crate::support::calls::{Log, Node, Order, Way, node_with};
use crate::support::over_script::{conclude, options};
use crate::support::{ms, wire};

#[derive(Debug, Clone)]
enum Op {
    /// A call with this name, and a timeout in milliseconds.
    Open(char, u64),
    /// Answers arrive together. In order their names say nothing.
    Answers(String),
    /// Milliseconds pass.
    Pass(u64),
    /// Milliseconds pass, in which the reactor does not run, and one answer arrives.
    Stand(u64, char),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let name = || proptest::char::range('a', 'f');
    let op = prop_oneof![
        8 => (name(), 0_u64..20).prop_map(|(name, timeout)| Op::Open(name, timeout)),
        4 => Just(Op::Open('m', 7)),
        6 => "[a-fm]{1,3}".prop_map(Op::Answers),
        4 => (0_u64..9).prop_map(Op::Pass),
        1 => (0_u64..40, name()).prop_map(|(passed, name)| Op::Stand(passed, name)),
    ];
    proptest::collection::vec(op, 1..120)
}

struct Call {
    name: char,
    due: u64,
    /// Its value was given back, and its answer is still to come.
    expired: bool,
}

/// What should happen.
struct Model {
    max: usize,
    in_order: bool,
    now: u64,
    /// In the order of the calls.
    calls: Vec<Call>,
    log: Vec<String>,
}

impl Model {
    fn open(&mut self, name: char, timeout: u64) {
        if self.calls.len() >= self.max {
            self.log.push(format!("{name} refused: {}", self.max));
        } else if !self.in_order && self.calls.iter().any(|call| call.name == name) {
            self.log.push(format!("a call with the same key waits for its answer: {name}"));
        } else {
            self.calls.push(Call { name, due: self.now + timeout, expired: false });
        }
    }

    fn answer(&mut self, name: char) {
        let found = self.calls.iter().position(|call| self.in_order || call.name == name);
        let call = found.map(|index| self.calls.remove(index));
        self.log.push(match call {
            Some(Call { name, expired: false, .. }) => format!("{name} answered"),
            _ => "dropped".into(),
        });
    }

    /// The next time at which a call is due, until `end`.
    fn next_due(&self, end: u64) -> Option<u64> {
        let waiting = self.calls.iter().filter(|call| !call.expired);
        waiting.map(|call| call.due).filter(|due| *due <= end).min()
    }

    fn expire(&mut self) {
        if self.next_due(self.now).is_some() {
            self.log.push("due".into());
        }
        let mut due: Vec<_> = self.calls.iter_mut().filter(|call| !call.expired).collect();
        due.retain(|call| call.due <= self.now);
        // The sort is stable.
        due.sort_by_key(|call| call.due);
        for call in due {
            call.expired = true;
            self.log.push(format!("{} expired", call.name));
        }
        if !self.in_order {
            self.calls.retain(|call| !call.expired);
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(due) = self.next_due(end) {
            self.now = self.now.max(due);
            self.expire();
        }
        self.now = end;
    }
}

fn check<W: Way>(max: usize, in_order: bool, ops: &[Op]) {
    let (harness, log): (Harness<Node<W>>, Log) = node_with(max, options());
    let mut model = Model { max, in_order, now: 0, calls: Vec::new(), log: Vec::new() };
    for op in ops {
        match op {
            Op::Open(name, timeout) => {
                harness.message(Order::Open(*name, ms(*timeout)));
                model.open(*name, *timeout);
                // A call without time is due in its own turn.
                model.expire();
            }
            Op::Answers(names) => {
                let names: Vec<[u8; 1]> = names.bytes().map(|name| [name]).collect();
                harness.receive(wire(&names.iter().map(|name| &name[..]).collect::<Vec<_>>()));
                names.iter().for_each(|[name]| model.answer(char::from(*name)));
            }
            Op::Pass(millis) => {
                harness.advance(ms(*millis));
                model.pass(*millis);
            }
            Op::Stand(millis, name) => {
                harness.stall(ms(*millis));
                harness.packet(name.to_string());
                model.now += millis;
                model.answer(*name);
                model.expire();
            }
        }
        assert_eq!(log.read(), std::mem::take(&mut model.log), "{op:?}");
        let waiting: Vec<_> = model.calls.iter().filter(|call| !call.expired).collect();
        let counts = harness.with_handler(|node| (node.calls.len(), node.calls.outstanding()));
        assert_eq!(counts, Some((waiting.len(), model.calls.len())));
        assert_eq!(harness.leftovers().deadlines, usize::from(!waiting.is_empty()));
    }
    harness.peer_closes();
    let left = model.calls.iter().filter(|call| !call.expired);
    assert_eq!(log.read(), left.map(|call| format!("{} left", call.name)).collect::<Vec<_>>());
    conclude(&harness);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: each value comes back exactly once, for the reason that it should and when it should, and
    /// the timer runs while a call waits. Method: random calls, answers and times, and a list.
    #[test]
    fn calls_do_what_a_list_does(max in 0_usize..9, ops in ops()) {
        check::<InOrder>(max, true, &ops);
        check::<char>(max, false, &ops);
    }
}
