//! The gateway between clients and backends, in one simulated network with a clock that the test moves.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use condor::sim::{Node, Sim};
use condor::{
    Action, Address, CloseReason, ConnectorOptions, Context, Handler, Info, LengthField,
    ListenerOptions, Retry,
};

use super::{Arguments, start};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What all backends have seen, in order: the name of the backend, and the packet.
type Seen = Rc<RefCell<Vec<(String, String)>>>;

/// Sends each packet back. Some packets mean something else: see `handle_packet`.
struct Backend {
    name: String,
    seen: Seen,
    /// What it answers once it has seen the end of input.
    later: Vec<String>,
}

impl Handler for Backend {
    type Message = String;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, String>,
    ) -> Action<'a> {
        let text = String::from_utf8(packet.to_vec()).unwrap();
        self.seen.borrow_mut().push((self.name.clone(), text.clone()));
        match text.split_once(' ').unwrap_or((&text, "")) {
            // Answers after so many milliseconds, and reads nothing meanwhile.
            ("slow", millis) => {
                ctx.pause_reading();
                ctx.send_after(ms(millis.parse().unwrap()), text).unwrap();
                Action::Continue
            }
            ("hang", _) => {
                ctx.pause_reading();
                Action::Continue
            }
            ("later", _) => {
                self.later.push(text);
                Action::Continue
            }
            ("skip", _) => Action::Continue,
            ("twice", _) => {
                ctx.send(packet).unwrap();
                Action::send(packet)
            }
            ("die", _) => Action::stop(CloseReason::Normal),
            ("large", _) => Action::send(vec![b'x'; 60_000]),
            _ => Action::send(packet),
        }
    }

    fn handle_info(&mut self, info: Info<'_, String>, ctx: &mut Context<'_, String>) -> Action<'_> {
        match info {
            Info::Message(answer) => {
                ctx.resume_reading();
                Action::send(answer)
            }
            other => {
                self.later.iter().for_each(|answer| ctx.send(answer).unwrap());
                other.default_action()
            }
        }
    }
}

/// What a client does.
#[derive(Debug)]
enum Do {
    Send(String),
    EndOutput,
    Pause,
    Resume,
}

/// What a client has seen.
#[derive(Default)]
struct Life {
    address: Option<Address<Do>>,
    answers: Vec<String>,
    end: Option<CloseReason>,
}

struct User(Rc<RefCell<Life>>);

impl Handler for User {
    type Message = Do;

    fn init(&mut self, ctx: &mut Context<'_, Do>) -> Action<'_> {
        self.0.borrow_mut().address = Some(ctx.address());
        Action::Continue
    }

    fn handle_packet(&mut self, packet: &[u8], _: &mut Context<'_, Do>) -> Action<'_> {
        let text = String::from_utf8(packet.to_vec()).unwrap();
        self.0.borrow_mut().answers.push(text);
        Action::Continue
    }

    fn handle_info(&mut self, info: Info<'_, Do>, ctx: &mut Context<'_, Do>) -> Action<'_> {
        match info {
            Info::Message(Do::Send(packet)) => return Action::send(packet),
            Info::Message(Do::EndOutput) => ctx.end_output(),
            Info::Message(Do::Pause) => ctx.pause_reading(),
            Info::Message(Do::Resume) => ctx.resume_reading(),
            other => return other.default_action(),
        }
        Action::Continue
    }

    fn terminate(self, reason: CloseReason) {
        self.0.borrow_mut().end = Some(reason);
    }
}

/// A gateway, its backends, and its clients.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) gateway: Node,
    pub(crate) backends: Vec<Node>,
    seen: Seen,
    framing: LengthField,
}

/// A client on a node of its own.
pub(crate) struct Client<'a> {
    world: &'a World,
    pub(crate) node: Node,
    life: Rc<RefCell<Life>>,
}

impl World {
    /// A gateway with these arguments, and so many backends, all of them connected.
    pub(crate) fn new(backends: usize, arguments: &str) -> Self {
        let (sim, seen) = (Sim::new(7), Seen::default());
        let names = (0..backends).map(|nth| format!("backend{nth}:7000"));
        let targets = format!("--backend={}", names.collect::<Vec<_>>().join(","));
        let fixed = ["gateway", "--listen=0.0.0.0:5558", &targets];
        let all = fixed.into_iter().chain(arguments.split_whitespace());
        let arguments = Arguments::parse_from(all);
        let framing = LengthField::new(arguments.len);
        let backends = (0..backends).map(|nth| backend(&sim, &seen, nth, framing)).collect();
        let gateway = sim.node("gateway", move |reactor| start(&reactor.handle(), &arguments));
        sim.run_for(ms(1));
        Self { sim, gateway, backends, seen, framing }
    }

    pub(crate) fn client(&self, name: &str) -> Client<'_> {
        let life = Rc::new(RefCell::new(Life::default()));
        let (ours, framing) = (Rc::clone(&life), self.framing);
        let node = self.sim.node(name, move |reactor| {
            // It reads answers while it sends.
            let options = ConnectorOptions::to("gateway:5558").write_high_water(8 * 1024 * 1024);
            let options = options.retry(Retry::Never).framing(framing);
            let life = Rc::clone(&life);
            reactor.start_connector("client", options, move |_| User(Rc::clone(&life)))
        });
        self.run(0);
        Client { world: self, node, life: ours }
    }

    pub(crate) fn run(&self, millis: u64) {
        self.sim.run_for(ms(millis));
    }

    /// The packets that the backends have seen since the last call.
    pub(crate) fn seen(&self) -> Vec<(String, String)> {
        self.seen.take()
    }

    /// How often the gateway has dialled.
    pub(crate) fn dials(&self) -> usize {
        self.sim.attempts(self.gateway).len()
    }
}

fn backend(sim: &Sim, seen: &Seen, nth: usize, framing: LengthField) -> Node {
    let (name, seen) = (format!("backend{nth}"), Rc::clone(seen));
    let own = name.clone();
    sim.node(&name, move |reactor| {
        let (name, seen) = (own.clone(), Rc::clone(&seen));
        let options = ListenerOptions::new(([0, 0, 0, 0], 7000)).framing(framing);
        reactor.start_listener("backend", options, move |_| Backend {
            name: name.clone(),
            seen: Rc::clone(&seen),
            later: Vec::new(),
        })
    })
}

impl Client<'_> {
    fn tell(&self, what: Do) {
        self.life.borrow().address.as_ref().expect("it is connected").send(what).unwrap();
    }

    pub(crate) fn send(&self, packet: &str) {
        self.tell(Do::Send(packet.to_owned()));
        self.world.run(0);
    }

    /// Sends these packets at once.
    pub(crate) fn send_all(&self, packets: &[String]) {
        packets.iter().for_each(|packet| self.tell(Do::Send(packet.clone())));
        self.world.run(0);
    }

    pub(crate) fn end_output(&self) {
        self.tell(Do::EndOutput);
        self.world.run(0);
    }

    pub(crate) fn pause(&self) {
        self.tell(Do::Pause);
        self.world.run(0);
    }

    pub(crate) fn resume(&self) {
        self.tell(Do::Resume);
        self.world.run(0);
    }

    /// The answers since the last call.
    pub(crate) fn answers(&self) -> Vec<String> {
        std::mem::take(&mut self.life.borrow_mut().answers)
    }

    pub(crate) fn end(&self) -> Option<CloseReason> {
        self.life.borrow().end
    }
}

/// `one 0` to `one 19`.
pub(crate) fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("{name} {nth}")).collect()
}
