//! Connections that handlers dial (`Context::dial`), between two nodes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use condor::sim::{Node, Sim};
use condor::{
    Action, Address, CloseReason, ConnectorHandle, ConnectorOptions, Context, Handle, Handler,
    Info, Stats,
};

use super::{Lives, listens, ms, secs};

/// What one program knows: it outlives the program.
#[derive(Clone, Default)]
struct Program(Rc<RefCell<Known>>);

#[derive(Default)]
struct Known {
    connector: Option<ConnectorHandle<String>>,
    handle: Option<Handle>,
    /// The connection whose handler dials.
    caller: Option<Address<String>>,
    dialled: Vec<Address<String>>,
    /// What the caller was told of its dials.
    told: Vec<String>,
    /// What the dialled connections were told and sent, with their ends.
    ups: Vec<String>,
    /// Callers stop their dials when they end.
    stops: bool,
}

impl Program {
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut().told)
    }

    fn ups(&self) -> Vec<String> {
        self.0.borrow().ups.clone()
    }

    /// Has the caller obey, once the nodes run.
    fn ask(&self, command: &str) {
        let caller = self.0.borrow().caller.clone().expect("the caller is up");
        caller.send(command.to_owned()).expect("there is room");
    }
}

/// Dials what its messages say, or stops.
struct Caller(Program);

impl Handler for Caller {
    type Message = String;

    fn init(&mut self, ctx: &mut Context<'_, String>) -> Action<'_> {
        self.0.0.borrow_mut().caller = Some(ctx.address());
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, String>) -> Action<'a> {
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, String>,
        ctx: &mut Context<'_, String>,
    ) -> Action<'a> {
        let mut known = self.0.0.borrow_mut();
        match info {
            Info::Message(command) => {
                for command in command.split("; ") {
                    if command == "stop" {
                        return Action::stop(CloseReason::Normal);
                    }
                    let connector = known.connector.clone().expect("the program has started it");
                    match ctx.dial(&connector, command) {
                        Ok(address) => {
                            address.send(format!("for {command}")).expect("there is room");
                            known.dialled.push(address);
                        }
                        Err(error) => known.told.push(format!("no dial: {error}")),
                    }
                }
                Action::Continue
            }
            Info::DialFailed { target, error, .. } => {
                known.told.push(format!("{target}: {error}"));
                Action::Continue
            }
            other => other.default_action(),
        }
    }

    fn terminate(self, _: CloseReason) {
        let known = self.0.0.borrow();
        if known.stops {
            let handle = known.handle.as_ref().expect("the program has set it");
            let ids = known.dialled.iter().map(Address::id);
            ids.for_each(|id| handle.close(id).expect("the reactor runs"));
        }
    }
}

/// A connection that was dialled. It sends each message to its server.
struct Up(Program);

impl Handler for Up {
    type Message = String;

    fn init(&mut self, _: &mut Context<'_, String>) -> Action<'_> {
        self.0.0.borrow_mut().ups.push("up".to_owned());
        Action::Continue
    }

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        _: &mut Context<'_, String>,
    ) -> Action<'a> {
        let answer = String::from_utf8_lossy(packet);
        self.0.0.borrow_mut().ups.push(format!("answer {answer}"));
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, String>,
        _: &mut Context<'_, String>,
    ) -> Action<'a> {
        match info {
            Info::Message(text) => Action::send(text),
            other => other.default_action(),
        }
    }

    fn terminate(self, reason: CloseReason) {
        self.0.0.borrow_mut().ups.push(reason.to_string());
    }
}

/// A node that serves echoes on port 80, and whose caller dials. The caller's own connection leads to
/// the node itself.
fn node(sim: &Sim, name: &str, program: &Program, served: &Lives) -> Node {
    let (program, served) = (program.clone(), served.clone());
    sim.node(name, move |reactor| {
        let lives = served.clone();
        reactor.start_listener("echo", listens(80), move |_| lives.side(&[], true))?;
        let of_caller = Lives::default();
        reactor.start_listener("home", listens(90), move |_| of_caller.side(&[], true))?;
        let options = ConnectorOptions::on_demand().connect_timeout(secs(1));
        let of_ups = program.clone();
        let out = reactor.start_connector("out", options, move |_| Up(of_ups.clone()))?;
        program.0.borrow_mut().connector = Some(out);
        program.0.borrow_mut().handle = Some(reactor.handle());
        let of_caller = program.clone();
        let home = ConnectorOptions::to("127.0.0.1:90");
        reactor.start_connector("caller", home, move |_| Caller(of_caller.clone()))
    })
}

/// Streams of a node that belong to its caller.
const OWN: usize = 2;

/// Two nodes, 10 ms from each other. The caller of the first one is up.
struct Test {
    sim: Sim,
    nodes: [Node; 2],
    programs: [Program; 2],
    served: [Lives; 2],
}

fn test(seed: u64) -> Test {
    let sim = Sim::new(seed);
    let (programs, served) = (<[Program; 2]>::default(), <[Lives; 2]>::default());
    let nodes = [0, 1].map(|at| node(&sim, ["one", "two"][at], &programs[at], &served[at]));
    sim.link(nodes[0], nodes[1]).latency(ms(10));
    sim.run_for(Duration::ZERO);
    Test { sim, nodes, programs, served }
}

impl Test {
    fn link(&self) -> condor::sim::Link<'_> {
        self.sim.link(self.nodes[0], self.nodes[1])
    }

    /// The streams of both nodes that dials have opened. A node that is down has none of its own.
    fn streams(&self) -> [usize; 2] {
        self.nodes.map(|node| self.sim.streams(node).saturating_sub(OWN))
    }

    /// The counters of the connector of the first node.
    fn stats(&self) -> Stats {
        self.programs[0].0.borrow().connector.as_ref().expect("it was started").stats()
    }
}

/// Goal: a dial takes a round trip, by address and by name, and no time over a link without latency.
/// What was sent to the address meanwhile comes first. Method: both sides at each moment.
#[test]
fn a_dial_takes_a_round_trip() {
    for (latency, target) in [(10, "two:80"), (10, "10.0.0.2:80"), (0, "two:80")] {
        let test = test(latency);
        test.link().latency(ms(latency));
        test.programs[0].ask(target);
        if latency > 0 {
            test.sim.run_for(ms(2 * latency - 1));
            assert_eq!((test.programs[0].ups().len(), test.streams()), (0, [1, 0]));
            test.sim.run_for(ms(1));
            assert_eq!(test.programs[0].ups(), ["up"]);
        }
        test.sim.run_for(ms(2 * latency));
        let said = format!("for {target}");
        assert_eq!(test.programs[0].ups(), ["up".to_owned(), format!("answer {said}")]);
        assert_eq!(test.served[1].last().packets, [said.as_bytes()]);
        assert_eq!((test.programs[0].told().len(), test.streams()), (0, [1, 1]));
    }
}

/// Goal: a dial that is refused is told to its caller after a round trip, once, and leaves nothing.
/// Method: a port where nothing listens, a link that refuses, and a node that is down; then a dial that
/// succeeds.
#[test]
fn a_dial_that_is_refused_is_told() {
    let test = test(1);
    let refused = |target: &str| {
        test.programs[0].ask(target);
        test.sim.run_for(ms(19));
        assert_eq!(test.programs[0].told().len(), 0);
        test.sim.run_for(ms(1));
        let told = test.programs[0].told();
        let port = target.rsplit(':').next().unwrap();
        let why = format!("{target}: cannot connect to 10.0.0.2:{port}: connection refused");
        assert_eq!(told, [why]);
        assert_eq!(test.streams()[0], 0);
    };
    refused("two:81");
    test.link().refuse();
    refused("two:80");
    test.link().heal();
    test.sim.crash(test.nodes[1]);
    refused("10.0.0.2:80");
    test.sim.restart(test.nodes[1]);
    test.sim.run_for(secs(10));
    test.programs[0].ask("two:80");
    test.sim.run_for(ms(40));
    assert_eq!(test.programs[0].ups(), ["up", "answer for two:80"]);
    let stats = test.stats();
    assert_eq!((stats.dials, stats.dial_failures, stats.dropped_messages), (4, 3, 3));
}

/// Goal: a dial without an answer is over at its deadline, and its caller is told then; if the answer
/// comes later, no connection comes of it on either side. One millisecond earlier it does. Method: a
/// black hole that is healed before the deadline and after it.
#[test]
fn a_dial_without_an_answer_is_over_at_its_deadline() {
    for healed in [979, 1_500] {
        let test = test(2);
        test.link().black_hole();
        test.programs[0].ask("two:80");
        test.sim.run_for(ms(979));
        assert_eq!((test.programs[0].told().len(), test.stats().dial_failures), (0, 0));
        if healed == 979 {
            test.link().heal();
            test.sim.run_for(secs(3));
            assert_eq!(test.programs[0].ups(), ["up", "answer for two:80"]);
            assert_eq!((test.programs[0].told().len(), test.streams()), (0, [1, 1]));
            continue;
        }
        test.sim.run_for(ms(20));
        assert_eq!(test.programs[0].told().len(), 0, "the deadline is not over");
        test.sim.run_for(ms(2));
        assert_eq!(test.programs[0].told(), ["two:80: no connection within 1s"]);
        assert_eq!(test.streams()[0], 0);
        test.sim.run_for(ms(500));
        test.link().heal();
        test.sim.run_for(secs(3));
        assert_eq!((test.programs[0].ups().len(), test.streams()), (0, [0, 0]));
        assert!(test.served[1].all().iter().all(|life| life.packets.is_empty()));
        assert_eq!((test.served[1].open(), test.programs[0].told().len()), (0, 0));
    }
}

/// Goal: a caller that has gone is told nothing, and neither is the next owner of its slot. A dial that
/// succeeds comes up all the same, with the messages of the caller. Method: a caller that ends in the
/// callback that dials; one whose dial succeeds, is refused, and gets no answer.
#[test]
fn a_caller_that_has_gone_is_told_nothing() {
    for fate in ["answers", "refuses", "is silent"] {
        let test = test(3);
        match fate {
            "refuses" => _ = test.link().refuse(),
            "is silent" => _ = test.link().black_hole(),
            _ => {}
        }
        test.programs[0].ask("two:80; stop");
        test.sim.run_for(secs(5));
        let is_up = fate == "answers";
        let ups = if is_up { &["up", "answer for two:80"][..] } else { &[] };
        assert_eq!(test.programs[0].ups(), ups, "a server that {fate}");
        assert_eq!(test.programs[0].told().len(), 0, "a server that {fate}");
        let (failures, open) = (u64::from(!is_up), usize::from(is_up));
        assert_eq!((test.stats().dial_failures, test.streams()[0]), (failures, open));
        // The next caller has the same slot, and dials as before.
        test.link().heal();
        test.sim.run_for(secs(1));
        test.programs[0].ask("two:81");
        test.sim.run_for(ms(20));
        assert_eq!(test.programs[0].told().len(), 1);
    }
}

/// Goal: a caller that stops its dial when it ends leaves no connection, wherever the dial is by then:
/// before it begins, under way, or up. Method: an end in each millisecond of a dial.
#[test]
fn a_caller_may_stop_its_dial_when_it_ends() {
    for at in 0..45 {
        let test = test(at);
        test.programs[0].0.borrow_mut().stops = true;
        match at {
            0 => test.programs[0].ask("two:80; stop"),
            at => {
                test.programs[0].ask("two:80");
                test.sim.run_for(ms(at));
                test.programs[0].ask("stop");
            }
        }
        test.sim.run_for(secs(5));
        let ups = test.programs[0].ups();
        let is_up = at >= 20;
        assert_eq!(ups.iter().filter(|up| *up == "up").count(), usize::from(is_up), "{at} ms");
        assert_eq!((test.streams(), test.programs[0].told().len()), ([0, 0], 0), "{at} ms");
        assert_eq!(test.stats().dial_failures, u64::from(!is_up), "{at} ms");
        assert_eq!(test.served[1].open(), 0);
    }
}

/// Goal: two nodes that dial each other at the same moment have two connections, and each side has its
/// own packets. Method: over many seeds, so that each order of the turns comes; then an end of each.
#[test]
fn two_nodes_may_dial_each_other() {
    for seed in 0..20 {
        let test = test(seed);
        test.link().latency(ms(seed % 3));
        test.programs[0].ask("two:80");
        test.programs[1].ask("one:80");
        test.sim.run_for(ms(20));
        assert_eq!(test.streams(), [2, 2], "seed {seed}");
        for (at, target) in ["two:80", "one:80"].into_iter().enumerate() {
            let said = format!("for {target}");
            assert_eq!(test.programs[at].ups(), ["up".to_owned(), format!("answer {said}")]);
            assert_eq!(test.served[1 - at].last().packets, [said.as_bytes()]);
            assert_eq!(test.served[1 - at].count(), 1);
        }
        // The second node dies: both connections end, and none of them is dialled again.
        test.sim.crash(test.nodes[1]);
        test.sim.run_for(secs(60));
        assert_eq!(test.programs[0].ups().len(), 3, "seed {seed}");
        assert_eq!((test.served[0].open(), test.streams()[0]), (0, 0));
        assert_eq!((test.stats().dials, test.programs[0].told().len()), (1, 0));
    }
}

/// Goal: a dial ends with its node, and with a drain of it, and the other node keeps nothing. Method: a
/// crash and a shutdown in each millisecond of a dial.
#[test]
fn a_node_may_end_while_it_dials() {
    for at in 0..45 {
        for drains in [false, true] {
            let test = test(at);
            test.programs[0].ask("two:80");
            test.sim.run_for(ms(at));
            let handle = test.sim.with(test.nodes[0], |reactor| reactor.handle());
            match drains {
                true => _ = handle.shutdown().expect("the reactor runs"),
                false => test.sim.crash(test.nodes[0]),
            }
            test.sim.run_for(secs(30));
            assert_eq!(test.sim.streams(test.nodes[0]), 0, "an end after {at} ms");
            assert_eq!((test.streams()[1], test.served[1].open()), (0, 0));
            let ups = test.programs[0].ups();
            assert_eq!(ups.iter().filter(|up| *up == "up").count(), usize::from(at >= 20));
            let told = test.programs[0].told();
            let stopped = drains && (1..20).contains(&at);
            assert!(told.iter().all(|told| told == "two:80: the dial was stopped"), "{told:?}");
            assert!(!stopped || told.len() == 1, "a drain after {at} ms: {told:?}");
        }
    }
}
