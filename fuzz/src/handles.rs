//! Fuzz body for handles: whatever order two threads use them in, they do what a model of their
//! promises predicts, at every time: before the first turn, between turns, after the end of the
//! reactor, and after its drop.
//!
//! Two reactors, so that an id of one can be given to the other. Each call is made on the reactors'
//! own thread or on one of two others. Most calls are made one after the other, and the model predicts
//! each result. A *burst* lets both threads call at once, while the reactor turns: then the results
//! and the state afterwards have to agree with each other.

use std::collections::HashSet;
use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use condor::testing::Harness;
use condor::{
    Accepted, Action, Address, Context, Drain, Error, Every, Handle, Handler, Info, ListenerHandle,
    ListenerOptions, ListenerState, MessageError, Report,
};

/// A run ends after this many steps.
const STEPS_MAX: usize = 100;
/// The most listeners of one reactor, and the most connections.
const LISTENERS_MAX: usize = 12;
const CONNECTIONS_MAX: usize = 4;
/// The most timers of one reactor.
const TIMERS_MAX: usize = 4;
/// The period of all timers.
const PERIOD: Duration = Duration::from_millis(1);
/// The limit on connections of a new listener.
const LIMIT: usize = 100;
/// Limits that calls set. The last two are refused.
const LIMITS: [usize; 5] = [1, 2, LIMIT, 0, 4_194_304];
/// The first one is the harness's own listener, which has all connections.
const NAMES: [&str; 3] = ["testing", "a", "b"];

/// Says what its handle and its address are, and then nothing.
struct Quiet;

type Introduction = (Handle, Address<u32>);

impl Handler for Quiet {
    type Message = u32;

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, u32>) -> Action<'a> {
        Action::Continue
    }
}

/// As [`Quiet`], and introduces itself.
struct Loud(Sender<Introduction>);

impl Handler for Loud {
    type Message = u32;

    fn init(&mut self, ctx: &mut Context<'_, u32>) -> Action<'_> {
        self.0.send((ctx.handle(), ctx.address())).expect("the test listens");
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, u32>) -> Action<'a> {
        Action::Continue
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, u32>, _: &mut Context<'_, u32>) -> Action<'a> {
        info.default_action()
    }
}

// ---- calls ----

/// A call of a handle. Numbers are indices in a [`View`].
#[derive(Copy, Clone, Debug)]
enum Call {
    Start(usize),
    Stop(usize),
    StopHandle(usize),
    Shutdown,
    /// The id of a connection of this or of the other reactor.
    Close {
        own: bool,
        which: usize,
    },
    Send(usize),
    Broadcast(usize),
    State(usize),
    Ready,
    Names,
    Report(usize),
    Wait(usize),
    /// A change of the listener of this name.
    Change(usize, Change),
    ChangeHandle(usize, Change),
    /// Whether a listener accepts, and how many connections it may have.
    Intake(usize),
    /// A simulated network has no descriptors, so each one comes back.
    Adopt(usize),
    Every,
    EndTimer(usize),
}

/// A change of how many clients a listener takes.
#[derive(Copy, Clone, Debug)]
enum Change {
    Limit(usize),
    Pause,
    Resume,
}

impl Change {
    /// Whether no listener takes it.
    fn is_refused(self) -> bool {
        matches!(self, Self::Limit(limit) if limit == 0 || limit > 4_194_303)
    }
}

/// What a call returned.
#[derive(Debug)]
enum Told {
    Started(ListenerHandle<u32>),
    Drain(Drain),
    Done,
    State(ListenerState),
    Ready(bool),
    Names(Vec<String>),
    Report(Option<Report>),
    Intake(bool, usize),
    Timer(Every, Arc<AtomicU32>),
    Gone,
    Duplicate,
    Unknown,
    WouldDeadlock,
    /// The options make no sense.
    Refused,
    NoDescriptors,
}

/// Everything of one reactor that a thread can call.
#[derive(Clone)]
struct View {
    handle: Handle,
    listeners: Vec<ListenerHandle<u32>>,
    drains: Vec<Drain>,
    addresses: Vec<Address<u32>>,
    /// Of the other reactor.
    foreign: Vec<Address<u32>>,
    timers: Vec<Arc<Mutex<Option<Every>>>>,
}

fn error(error: Error) -> Told {
    match error {
        Error::Gone => Told::Gone,
        Error::DuplicateName(_) => Told::Duplicate,
        Error::UnknownName(_) => Told::Unknown,
        Error::WouldDeadlock => Told::WouldDeadlock,
        Error::Options { .. } => Told::Refused,
        Error::Adopt { .. } => Told::NoDescriptors,
        other => panic!("no call returns this: {other}"),
    }
}

fn message(sent: Result<(), MessageError<u32>>) -> Told {
    match sent {
        Ok(()) => Told::Done,
        Err(MessageError::Gone(_)) => Told::Gone,
        Err(_) => panic!("the mailbox has room"),
    }
}

impl View {
    fn call(&self, call: Call) -> Told {
        match call {
            Call::Start(name) => {
                let factory = |_: &Accepted<'_, _>| Quiet;
                let options = ListenerOptions::port(1000);
                self.handle
                    .start_listener(NAMES[name], options, factory)
                    .map_or_else(error, Told::Started)
            }
            Call::Stop(name) => {
                self.handle.stop_listener(NAMES[name]).map_or_else(error, Told::Drain)
            }
            Call::StopHandle(which) => self.listeners[which].stop().map_or_else(error, Told::Drain),
            Call::Shutdown => self.handle.shutdown().map_or_else(error, Told::Drain),
            Call::Close { own, which } => {
                let of = if own { &self.addresses } else { &self.foreign };
                self.handle.close(of[which].id()).map_or_else(error, |()| Told::Done)
            }
            Call::Send(which) => message(self.addresses[which].send(7)),
            Call::Broadcast(which) => message(self.listeners[which].broadcast(7)),
            Call::State(which) => Told::State(self.listeners[which].state()),
            Call::Ready => Told::Ready(self.handle.is_ready()),
            Call::Names => {
                let listeners = self.handle.listeners().into_iter();
                Told::Names(listeners.map(|(name, ..)| name).collect())
            }
            Call::Report(which) => Told::Report(self.drains[which].report()),
            Call::Wait(which) => {
                self.drains[which].wait().map_or_else(error, |report| Told::Report(Some(report)))
            }
            _ => self.change(call),
        }
    }

    /// The calls that change how many clients a listener takes, and those about timers.
    fn change(&self, call: Call) -> Told {
        match call {
            Call::Change(name, change) => {
                let (handle, name) = (&self.handle, NAMES[name]);
                let changed = match change {
                    Change::Limit(limit) => handle.set_max_connections(name, limit),
                    Change::Pause => handle.pause_accepting(name),
                    Change::Resume => handle.resume_accepting(name),
                };
                changed.map_or_else(error, |()| Told::Done)
            }
            Call::ChangeHandle(which, change) => {
                let listener = &self.listeners[which];
                let changed = match change {
                    Change::Limit(limit) => listener.set_max_connections(limit),
                    Change::Pause => listener.pause_accepting(),
                    Change::Resume => listener.resume_accepting(),
                };
                changed.map_or_else(error, |()| Told::Done)
            }
            Call::Intake(which) => {
                let listener = &self.listeners[which];
                Told::Intake(listener.is_accepting(), listener.max_connections())
            }
            Call::Adopt(name) => {
                let file = File::open("/dev/null").expect("a descriptor");
                match self.handle.adopt(NAMES[name], file.into()) {
                    Ok(()) => Told::Done,
                    Err(refused) => error(refused.error),
                }
            }
            Call::Every => {
                let calls = Arc::new(AtomicU32::new(0));
                let own = Arc::clone(&calls);
                let every = self.handle.every(PERIOD, move || {
                    own.fetch_add(1, Ordering::SeqCst);
                });
                every.map_or_else(error, |every| Told::Timer(every, calls))
            }
            Call::EndTimer(which) => {
                let timer = &self.timers[which];
                drop(timer.lock().unwrap_or_else(PoisonError::into_inner).take());
                Told::Done
            }
            other => panic!("{other:?} is another call"),
        }
    }
}

type Job = Box<dyn FnOnce() -> Vec<(Call, Told)> + Send>;

/// A thread that makes calls.
struct Worker {
    jobs: Sender<Job>,
    results: Receiver<Vec<(Call, Told)>>,
}

impl Worker {
    fn new() -> Self {
        let (jobs, own_jobs) = channel::<Job>();
        let (own_results, results) = channel();
        thread::spawn(move || {
            for job in own_jobs {
                if own_results.send(job()).is_err() {
                    return;
                }
            }
        });
        Self { jobs, results }
    }

    fn begin(&self, view: View, calls: Vec<Call>) {
        let job = move || calls.into_iter().map(|call| (call, view.call(call))).collect();
        self.jobs.send(Box::new(job)).expect("the thread lives");
    }

    fn finish(&self) -> Vec<(Call, Told)> {
        self.results.recv().expect("no call panics")
    }
}

// ---- the model ----

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Stage {
    Listening,
    /// A stop was asked for, and the reactor has not turned since.
    Stopping,
    Ended,
}

struct Listener {
    name: usize,
    stage: Stage,
    /// Its place in [`View::listeners`]. `None` for the harness's own.
    place: Option<usize>,
    paused: bool,
    limit: usize,
}

impl Listener {
    fn new(name: usize, place: Option<usize>) -> Self {
        Self { name, stage: Stage::Listening, place, paused: false, limit: LIMIT }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Limit(limit) => self.limit = limit,
            Change::Pause => self.paused = true,
            Change::Resume => self.paused = false,
        }
    }
}

/// A timer of the reactor's own.
struct Timer {
    /// How often it was called.
    calls: Arc<AtomicU32>,
    expected: u32,
    lives: bool,
}

/// What a drain waits for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Of {
    Listener(usize),
    Shutdown,
    /// Nothing more: it is over.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Life {
    Alive,
    ShutDown(Report),
    /// Dropped without a report.
    Gone,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Connection {
    Open,
    /// A close was asked for, and the reactor has not turned since.
    Closing,
    Ended,
}

/// One reactor, and what is known of it.
struct Node {
    /// The first one is always there while the reactor is.
    peers: Vec<Harness<Loud>>,
    view: View,
    introductions: Receiver<Introduction>,
    listeners: Vec<Listener>,
    /// For each of [`View::drains`]: what it waits for, or the result.
    drains: Vec<(Of, Option<Report>)>,
    connections: Vec<Connection>,
    /// For each of [`View::timers`].
    timers: Vec<Timer>,
    shutdowns: u32,
    life: Life,
}

impl Node {
    fn new(ids: &mut HashSet<String>) -> Self {
        let (introduce, introductions) = channel();
        let options = ListenerOptions::port(1).linger_timeout(Duration::ZERO);
        let first = Harness::new(options, move |_| Loud(introduce.clone()));
        let (handle, address) = introductions.try_recv().expect("it was accepted");
        assert!(ids.insert(address.id().to_string()), "an id twice");
        let view = View {
            handle,
            listeners: Vec::new(),
            drains: Vec::new(),
            addresses: vec![address],
            foreign: Vec::new(),
            timers: Vec::new(),
        };
        Self {
            peers: vec![first],
            view,
            introductions,
            listeners: vec![Listener::new(0, None)],
            drains: Vec::new(),
            connections: vec![Connection::Open],
            timers: Vec::new(),
            shutdowns: 0,
            life: Life::Alive,
        }
    }

    fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    /// The listener of this name that has not ended.
    fn current(&self, name: usize) -> Option<usize> {
        self.listeners.iter().position(|it| it.name == name && it.stage != Stage::Ended)
    }

    fn placed(&self, place: usize) -> usize {
        let found = self.listeners.iter().position(|it| it.place == Some(place));
        found.expect("each handle is a listener's")
    }

    fn main_has_ended(&self) -> bool {
        self.listeners[0].stage == Stage::Ended
    }

    // ---- predictions ----

    /// Compares a result with what the model predicts, and changes the model by it.
    fn expect(&mut self, call: Call, told: Told, here: bool) {
        let alive = self.is_alive();
        match (call, told) {
            (Call::Start(_), Told::Gone) => assert!(!alive, "{call:?}"),
            (Call::Start(name), Told::Duplicate) => {
                assert!(alive && self.current(name).is_some(), "{call:?}");
            }
            (Call::Start(name), Told::Started(handle)) => {
                assert!(alive && self.current(name).is_none(), "{call:?}");
                assert_eq!(handle.state(), ListenerState::Listening);
                self.started(name, handle);
            }
            (Call::Stop(name), told) => self.expect_stop(self.current(name), told),
            (Call::StopHandle(place), told) => self.expect_stop(Some(self.placed(place)), told),
            (Call::Shutdown, told) => self.expect_shutdown(told),
            (Call::Close { own, which }, Told::Done) => {
                assert!(alive, "{call:?}");
                if own && self.connections[which] == Connection::Open {
                    self.connections[which] = Connection::Closing;
                }
            }
            (Call::Close { .. }, Told::Gone) => assert!(!alive, "{call:?}"),
            (Call::Send(_), Told::Done) => assert!(!self.main_has_ended()),
            (Call::Send(_), Told::Gone) => assert!(self.main_has_ended()),
            (Call::Broadcast(place), Told::Done) => {
                assert_ne!(self.listeners[self.placed(place)].stage, Stage::Ended);
            }
            (Call::Broadcast(place), Told::Gone) => {
                assert_eq!(self.listeners[self.placed(place)].stage, Stage::Ended);
            }
            (Call::State(place), Told::State(state)) => {
                let expected = match self.listeners[self.placed(place)].stage {
                    Stage::Listening => ListenerState::Listening,
                    Stage::Stopping => ListenerState::Draining,
                    Stage::Ended => ListenerState::Ended,
                };
                assert_eq!(state, expected, "{call:?}");
            }
            (Call::Ready, Told::Ready(ready)) => {
                assert_eq!(ready, alive && self.shutdowns == 0);
            }
            (Call::Names, Told::Names(names)) => assert_eq!(names, self.names()),
            (Call::Report(which), Told::Report(report)) => {
                assert_eq!(report, self.drains[which].1, "{call:?}");
            }
            (Call::Wait(which), Told::WouldDeadlock) => {
                assert!(here && self.drains[which].0 != Of::Nothing, "{call:?}");
            }
            (Call::Wait(which), Told::Report(report)) => {
                assert_eq!((Of::Nothing, report), self.drains[which], "{call:?}");
            }
            (Call::Wait(which), Told::Gone) => {
                assert_eq!((Of::Nothing, None), self.drains[which], "{call:?}");
            }
            (call, told) => self.expect_changed(call, told),
        }
    }

    /// The same for the calls of [`View::change`].
    fn expect_changed(&mut self, call: Call, told: Told) {
        let alive = self.is_alive();
        match (call, told) {
            (Call::Change(name, change), told) => {
                self.expect_change(self.current(name), change, told);
            }
            (Call::ChangeHandle(place, change), told) => {
                self.expect_change(Some(self.placed(place)), change, told);
            }
            (Call::Intake(place), Told::Intake(accepts, limit)) => {
                let listener = &self.listeners[self.placed(place)];
                let expected = listener.stage == Stage::Listening && !listener.paused;
                assert_eq!((accepts, limit), (expected, listener.limit), "{call:?}");
            }
            (Call::Adopt(name), told) => {
                let found = self.current(name).map(|at| self.listeners[at].stage);
                match told {
                    Told::Gone => assert!(!alive),
                    Told::Unknown => assert!(alive && found != Some(Stage::Listening)),
                    Told::NoDescriptors => assert!(alive && found == Some(Stage::Listening)),
                    told => panic!("{call:?} returned {told:?}"),
                }
            }
            (Call::Every, Told::Gone) => assert!(!alive),
            (Call::Every, Told::Timer(every, calls)) => {
                assert!(alive, "{call:?}");
                self.timer_started(every, calls);
            }
            (Call::EndTimer(which), Told::Done) => self.timers[which].lives = false,
            (call, told) => panic!("{call:?} returned {told:?}"),
        }
    }

    fn expect_change(&mut self, which: Option<usize>, change: Change, told: Told) {
        let found = which.filter(|at| self.listeners[*at].stage == Stage::Listening);
        match (told, found) {
            (Told::Refused, _) if change.is_refused() => {}
            (Told::Gone, _) if !self.is_alive() => {}
            (Told::Unknown, None) if self.is_alive() => {}
            (Told::Done, Some(at)) if self.is_alive() && !change.is_refused() => {
                self.listeners[at].change(change);
            }
            (told, found) => panic!("{told:?}, the model says {found:?}, {:?}", self.life),
        }
    }

    fn timer_started(&mut self, every: Every, calls: Arc<AtomicU32>) {
        self.view.timers.push(Arc::new(Mutex::new(Some(every))));
        self.timers.push(Timer { calls, expected: 0, lives: true });
    }

    fn expect_stop(&mut self, which: Option<usize>, told: Told) {
        let found = which.filter(|at| self.listeners[*at].stage == Stage::Listening);
        match (told, found) {
            (Told::Gone, _) if !self.is_alive() => {}
            (Told::Unknown, None) if self.is_alive() => {}
            (Told::Drain(drain), Some(at)) if self.is_alive() => {
                self.listeners[at].stage = Stage::Stopping;
                self.asked(drain, Of::Listener(at));
            }
            (told, found) => panic!("{told:?}, the model says {found:?}, {:?}", self.life),
        }
    }

    fn expect_shutdown(&mut self, told: Told) {
        match (told, &self.life) {
            (Told::Gone, Life::Gone) => {}
            (Told::Drain(drain), Life::Alive) => {
                self.shutdowns += 1;
                self.asked(drain, Of::Shutdown);
            }
            (Told::Drain(drain), Life::ShutDown(report)) => {
                assert_eq!(drain.report().as_ref(), Some(report), "at once");
                self.drains.push((Of::Nothing, Some(report.clone())));
                self.view.drains.push(drain);
            }
            (told, life) => panic!("{told:?}, the model says {life:?}"),
        }
    }

    fn started(&mut self, name: usize, handle: ListenerHandle<u32>) {
        let place = self.view.listeners.len();
        self.view.listeners.push(handle);
        self.listeners.push(Listener::new(name, Some(place)));
    }

    fn asked(&mut self, drain: Drain, of: Of) {
        assert_eq!(drain.report(), None, "only a turn can do it");
        self.view.drains.push(drain);
        self.drains.push((of, None));
    }

    /// The names of the listeners that have not ended, sorted.
    fn names(&self) -> Vec<String> {
        let running = self.listeners.iter().filter(|it| it.stage != Stage::Ended);
        let mut names: Vec<String> = running.map(|it| NAMES[it.name].to_owned()).collect();
        names.sort();
        names
    }

    // ---- what the reactor does ----

    /// The reactor turns until it can only wait.
    fn settle(&mut self) {
        let Some(first) = self.peers.first() else { return };
        first.run();
        if !self.is_alive() {
            return;
        }
        let (shuts_down, is_forced) = (self.shutdowns > 0, self.shutdowns > 1);
        let ends = |it: &Listener| {
            it.stage == Stage::Stopping || it.stage == Stage::Listening && shuts_down
        };
        let main_ends = ends(&self.listeners[0]);
        let ended = self.connections.iter().filter(|it| **it != Connection::Ended).count();
        // All connections are the first listener's.
        let total = if main_ends { ended as u64 } else { 0 };
        let check = |report: &Report, total: u64| {
            assert_eq!(report.drained + report.forced, total, "{report}");
            assert!(is_forced || report.forced == 0, "{report}");
        };
        for ((of, kept), drain) in self.drains.iter_mut().zip(&self.view.drains) {
            if *of != Of::Nothing {
                let report = drain.report().expect("every drain is over");
                check(&report, if matches!(of, Of::Listener(at) if *at > 0) { 0 } else { total });
                (*of, *kept) = (Of::Nothing, Some(report));
            }
        }
        for listener in &mut self.listeners {
            if ends(listener) {
                listener.stage = Stage::Ended;
            }
        }
        for connection in &mut self.connections {
            if main_ends || *connection == Connection::Closing {
                *connection = Connection::Ended;
            }
        }
        if shuts_down {
            let drain = self.view.handle.shutdown().expect("the report stays");
            let report = drain.report().expect("at once");
            check(&report, total);
            self.life = Life::ShutDown(report);
            self.timers.iter_mut().for_each(|timer| timer.lives = false);
        }
        self.check();
    }

    /// What holds while the reactor is at rest.
    fn check(&self) {
        assert_eq!(self.view.handle.is_ready(), self.is_alive() && self.shutdowns == 0);
        let Told::Names(names) = self.view.call(Call::Names) else { return };
        assert_eq!(names, self.names());
        let open = self.connections.iter().filter(|it| **it != Connection::Ended).count() as u64;
        let stats = self.view.handle.stats();
        assert_eq!((stats.open, stats.made - stats.terminated), (open, open));
        assert_eq!((stats.panics, stats.listener_failures), (0, 0));
        for timer in &self.timers {
            assert_eq!(timer.calls.load(Ordering::SeqCst), timer.expected, "calls of a timer");
        }
        for listener in &self.listeners {
            let Some(place) = listener.place else { continue };
            let handle = &self.view.listeners[place];
            assert_eq!(handle.state() == ListenerState::Ended, listener.stage == Stage::Ended);
            assert!(handle.failure().is_none());
        }
    }

    /// Time passes.
    fn advance(&mut self, periods: u32) {
        self.settle();
        let Some(first) = self.peers.first() else { return };
        first.advance(PERIOD * periods);
        if self.is_alive() {
            for timer in self.timers.iter_mut().filter(|timer| timer.lives) {
                timer.expected += periods;
            }
        }
        self.check();
    }

    /// A peer connects. If it has to wait, the cause of that is removed.
    fn connect(&mut self, ids: &mut HashSet<String>) {
        self.settle();
        let Some(first) = self.peers.first() else { return };
        if self.main_has_ended() || self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let peer = first.connect();
        let Listener { paused, limit, .. } = self.listeners[0];
        let open = self.connections.iter().filter(|it| **it != Connection::Ended).count();
        assert_eq!(peer.is_accepted(), !paused && open < limit);
        if !peer.is_accepted() {
            self.allow_all(0);
            peer.run();
        }
        assert!(peer.is_accepted());
        let (_, address) = self.introductions.try_recv().expect("it was accepted");
        assert!(ids.insert(address.id().to_string()), "an id twice");
        assert!(!self.view.addresses.contains(&address), "an address twice");
        self.view.addresses.push(address);
        self.connections.push(Connection::Open);
        self.peers.push(peer);
    }

    fn peer_closes(&mut self, which: usize) {
        self.settle();
        let Some(peer) = self.peers.get(which) else { return };
        peer.peer_closes();
        self.connections[which] = Connection::Ended;
        self.check();
    }

    /// Nothing keeps the clients of a running listener from being accepted any more.
    fn allow_all(&mut self, at: usize) {
        for change in [Change::Limit(LIMIT), Change::Resume] {
            let told = self.view.call(Call::Change(self.listeners[at].name, change));
            assert!(matches!(told, Told::Done), "{told:?}");
            self.listeners[at].change(change);
        }
    }

    fn drop_reactor(&mut self) {
        self.peers.clear();
        for listener in &mut self.listeners {
            listener.stage = Stage::Ended;
        }
        self.connections.fill(Connection::Ended);
        for (of, _) in &mut self.drains {
            *of = Of::Nothing;
        }
        if self.is_alive() {
            self.life = Life::Gone;
        }
        self.check();
    }

    // ---- both threads at once ----

    /// Both threads call at once while the reactor turns, and is dropped in the end if `drops`.
    fn burst(&mut self, workers: &[Worker; 2], calls: [Vec<Call>; 2], drops: bool) {
        for (worker, calls) in workers.iter().zip(calls) {
            worker.begin(self.view.clone(), calls);
        }
        for _ in 0..8 {
            if let Some(first) = self.peers.first() {
                first.turn();
            }
        }
        if drops {
            self.peers.clear();
        }
        let told: Vec<(Call, Told)> = workers.iter().flat_map(Worker::finish).collect();
        if let Some(first) = self.peers.first() {
            first.run();
        }
        self.reconcile(told, drops);
    }

    /// Checks that the results of a burst and the state afterwards agree, and takes the state over.
    fn reconcile(&mut self, told: Vec<(Call, Told)>, drops: bool) {
        let was_alive = self.is_alive();
        let asked = told.iter().any(|(call, told)| {
            matches!((call, told), (Call::Shutdown, Told::Drain(_))) && was_alive
        });
        let ends = !was_alive || asked || self.shutdowns > 0 || drops;
        // How many listeners of each name were stopped, those stopped before included.
        let mut stops = [0; NAMES.len()];
        for listener in self.listeners.iter().filter(|it| it.stage == Stage::Stopping) {
            stops[listener.name] += 1;
        }
        let mut stopped = Vec::new();
        for (call, told) in told {
            match (call, told) {
                (_, Told::Gone) => {
                    let is_message = matches!(call, Call::Send(_) | Call::Broadcast(_));
                    // Any listener may have been stopped meanwhile.
                    assert!(ends || is_message, "{call:?} is Gone");
                    let kept = matches!(self.life, Life::ShutDown(_));
                    assert!(!matches!(call, Call::Shutdown) || drops || !kept, "{call:?}");
                }
                (Call::Start(name), Told::Started(handle)) => {
                    assert!(was_alive, "{call:?}");
                    self.started(name, handle);
                }
                (Call::Stop(name), Told::Drain(drain)) => {
                    stops[name] += 1;
                    // A shutdown may be done before the reactor has seen the listener.
                    self.over(drain, ends);
                }
                (Call::StopHandle(place), Told::Drain(drain)) => {
                    let at = self.placed(place);
                    assert_eq!(self.listeners[at].stage, Stage::Listening, "{call:?}");
                    assert!(!stopped.contains(&at), "{call:?} twice");
                    stopped.push(at);
                    stops[self.listeners[at].name] += 1;
                    self.over(drain, ends);
                }
                (Call::Shutdown, Told::Drain(drain)) => {
                    self.shutdowns += u32::from(was_alive);
                    self.over(drain, drops);
                }
                (Call::Close { own: true, which }, Told::Done) => {
                    assert!(was_alive, "{call:?}");
                    self.connections[which] = Connection::Ended;
                }
                (Call::Change(_, change) | Call::ChangeHandle(_, change), told) => {
                    assert_eq!(matches!(told, Told::Refused), change.is_refused(), "{call:?}");
                }
                (Call::Every, Told::Timer(every, calls)) => {
                    assert!(was_alive, "{call:?}");
                    self.timer_started(every, calls);
                }
                (Call::EndTimer(which), Told::Done) => self.timers[which].lives = false,
                _ => {}
            }
        }
        self.take_state(ends, &stops, &stopped, drops);
    }

    /// A drain that a burst has begun is over by now. If the reactor ended, it `may` be gone instead.
    fn over(&mut self, drain: Drain, may: bool) {
        let report = drain.report();
        assert!(report.is_some() || may, "every drain is over");
        if report.is_none() {
            assert!(matches!(drain.wait(), Err(Error::Gone)), "no wait is without end");
        }
        self.view.drains.push(drain);
        self.drains.push((Of::Nothing, report));
    }

    fn take_state(&mut self, ends: bool, stops: &[u32], stopped: &[usize], drops: bool) {
        let names: Vec<String> =
            self.view.handle.listeners().into_iter().map(|(name, ..)| name).collect();
        let mut ended = [0; NAMES.len()];
        for (at, listener) in self.listeners.iter_mut().enumerate() {
            if listener.stage == Stage::Ended {
                continue;
            }
            let state = match listener.place {
                Some(place) => self.view.listeners[place].state(),
                // Another listener may have its name by now: a handle tells them apart, and the
                // harness has none. Its mailbox does.
                None if self.view.addresses[0].send(7).is_err() => ListenerState::Ended,
                None => ListenerState::Listening,
            };
            assert_ne!(state, ListenerState::Draining, "nothing is left to drain");
            if state == ListenerState::Ended {
                listener.stage = Stage::Ended;
                ended[listener.name] += 1;
            } else {
                assert!(!ends && listener.stage == Stage::Listening, "{}", NAMES[listener.name]);
                assert!(!stopped.contains(&at));
            }
        }
        if !ends {
            assert_eq!(ended, *stops, "as many have ended as were stopped");
        }
        assert_eq!(names, self.names(), "one listener of each name at most");
        if self.main_has_ended() {
            self.connections.fill(Connection::Ended);
        }
        for connection in &mut self.connections {
            if *connection == Connection::Closing {
                *connection = Connection::Ended;
            }
        }
        for ((of, kept), drain) in self.drains.iter_mut().zip(&self.view.drains) {
            if *of != Of::Nothing {
                (*of, *kept) = (Of::Nothing, drain.report());
                assert!(kept.is_some() || drops, "every drain is over");
            }
        }
        if self.is_alive() && ends {
            self.life = match self.view.handle.shutdown() {
                Ok(drain) => Life::ShutDown(drain.report().expect("at once")),
                Err(_) => Life::Gone,
            };
            assert!(drops || self.life != Life::Gone, "a shutdown leaves its report");
        }
        // Which of the changes came last is not known.
        for at in 0..self.listeners.len() {
            let listener = &mut self.listeners[at];
            if listener.stage == Stage::Listening {
                self.allow_all(at);
            } else if let Some(place) = listener.place {
                listener.limit = self.view.listeners[place].max_connections();
            }
        }
        self.check();
    }
}

// ---- the program ----

/// Reads choices from the input. After its end every choice is 0.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % count
    }

    fn call(&mut self, view: &View) -> Option<Call> {
        let kind = self.below(24);
        let which = self.below(256);
        let change = match which / NAMES.len() % 8 {
            0 => Change::Pause,
            1 => Change::Resume,
            other => Change::Limit(LIMITS[other % LIMITS.len()]),
        };
        let among = |count: usize| (count > 0).then(|| which % count);
        Some(match kind {
            0..=2 if view.listeners.len() < LISTENERS_MAX => Call::Start(which % NAMES.len()),
            3 | 4 => Call::Stop(which % NAMES.len()),
            5 | 6 => Call::StopHandle(among(view.listeners.len())?),
            // Most runs go on for a while.
            7 if which.is_multiple_of(4) => Call::Shutdown,
            8 => Call::Close { own: true, which: among(view.addresses.len())? },
            9 => Call::Close { own: false, which: among(view.foreign.len())? },
            10 => Call::Send(among(view.addresses.len())?),
            11 => Call::Broadcast(among(view.listeners.len())?),
            12 => Call::State(among(view.listeners.len())?),
            13 => Call::Ready,
            14 => Call::Report(among(view.drains.len())?),
            15 => Call::Wait(among(view.drains.len())?),
            16 | 17 => Call::Change(which % NAMES.len(), change),
            18 => Call::ChangeHandle(among(view.listeners.len())?, change),
            19 => Call::Intake(among(view.listeners.len())?),
            20 => Call::Adopt(which % NAMES.len()),
            21 | 22 if view.timers.len() < TIMERS_MAX => Call::Every,
            23 => Call::EndTimer(among(view.timers.len())?),
            _ => Call::Names,
        })
    }
}

/// Handles do what they promise, in any order and on any thread.
pub fn handles(data: &[u8]) {
    let mut choices = Choices(data);
    let mut ids = HashSet::new();
    let workers = [Worker::new(), Worker::new()];
    let mut nodes = [Node::new(&mut ids), Node::new(&mut ids)];
    for _ in 0..STEPS_MAX {
        if choices.0.is_empty() {
            break;
        }
        let at = choices.below(2);
        let foreign = nodes[1 - at].view.addresses.clone();
        let node = &mut nodes[at];
        node.view.foreign = foreign;
        match choices.below(18) {
            0 | 1 => node.settle(),
            16 | 17 => node.advance(u32::try_from(choices.below(20)).unwrap_or_default()),
            2 => node.connect(&mut ids),
            3 => {
                let which = choices.below(CONNECTIONS_MAX);
                node.peer_closes(which);
            }
            4 if choices.below(4) == 0 => node.drop_reactor(),
            5 | 6 => {
                let drops = choices.below(16) == 15;
                let mut calls = [Vec::new(), Vec::new()];
                for calls in &mut calls {
                    for _ in 0..choices.below(6) {
                        // A wait would wait for the thread that the burst waits for.
                        let call = choices.call(&node.view);
                        calls.extend(call.filter(|call| !matches!(call, Call::Wait(_))));
                    }
                }
                node.settle();
                node.burst(&workers, calls, drops);
            }
            place => {
                let Some(call) = choices.call(&node.view) else { continue };
                let here = place % 3 == 0;
                let pending = matches!(call, Call::Wait(at) if node.drains[at].0 != Of::Nothing);
                let told = if here {
                    node.view.call(call)
                } else if pending {
                    // It would wait for a turn.
                    continue;
                } else {
                    let worker = &workers[place % 3 - 1];
                    worker.begin(node.view.clone(), vec![call]);
                    worker.finish().remove(0).1
                };
                node.expect(call, told, here);
            }
        }
    }
    for node in &mut nodes {
        node.settle();
        node.drop_reactor();
    }
}
