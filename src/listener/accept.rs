//! The way of a connection from the listening socket to a handler in a slot, and the reactions to
//! errors of `accept`.
//!
//! A connection takes five steps. One that a handle gives to the listener begins at the third. If its
//! listener expects a PROXY header, that is read before [`assign`](Listener::assign): see `opening`.
//! - [`accept_some`](Listener::accept_some) takes it from the socket.
//! - [`assign`](Listener::assign) finds the shard that has the fewest connections.
//! - [`take_arrivals`](Listener::take_arrivals) receives it on the shard where it lives.
//! - [`admit`](Listener::admit) gives it a slot and registers it for events.
//! - [`open`](Listener::open) gives it its handler.

use std::io;

use super::Listener;
use super::accepting::{ACCEPT_PAUSE, FULL_ROUNDS};
use crate::acceptor::{self, AcceptFault, Acceptor};
use crate::admission::Listening;
use crate::endpoint::Endpoint;
use crate::guard::caught;
use crate::handler::{Accepted, Handler};
use crate::identity::PeerName;
use crate::logging::{Cause, say};
use crate::loop_state::{LoopState, Timer};
use crate::phases::AnyListener;
use crate::stream::Stream;
use crate::time_budget::Phase;
use crate::token;

/// After this many failures in a row accepting pauses, even if each of them concerns a single
/// connection. The kernel may refuse before it takes a connection out of the backlog, and would do
/// so for ever.
const FAILURES: u32 = 64;
/// The cure if a listening socket fails.
const BROKEN_CURE: &str = "start it again, on a socket that no other process shuts down";
/// A stop accepts at most this many connections of the backlog of an inherited socket. Its length
/// is unknown, and this is the longest that Linux grants by default.
const LONGEST_BACKLOG: u32 = 4096;
/// After a turn of at least this many nanoseconds many connections may wait. A wasted `accept`
/// costs little compared with such a turn, so that only the budget is the limit.
const LONG_TURN: u64 = 100_000;

impl<H: Handler, A: Acceptor + 'static> Listener<H, A> {
    /// The accept phase: takes the connections that other shards have handed over, then those that
    /// wait at the socket.
    #[inline(never)]
    pub(super) fn accept_ready(&mut self, state: &mut LoopState) {
        state.begin_phase(Phase::Accept);
        self.take_arrivals(state, false);
        if self.openings.has_announced() {
            self.look_at_announced(state);
        }
        if self.acceptor_is_gone() {
            self.begin_drain(state);
        }
        let budget = state.options.accept_budget;
        let share =
            if state.took < LONG_TURN { self.accepting.quota() } else { budget }.min(budget);
        if self.accept_some(state, share) {
            self.accepting.full_rounds = self.accepting.full_rounds.saturating_add(1);
            if share == budget {
                self.peers.profile.counters.accept_budget_hits.add(1);
            } else {
                self.rearm(state);
            }
        }
        let full = self.accepting.ready && !self.is_paused() && !self.has_room();
        if full && !self.accepting.full {
            self.peers.profile.counters.connection_limit_hits.add(1);
            if self.peers.gate.opens(Cause::ConnectionLimit, state.nanos()) {
                say!(
                    Warn,
                    "listener \"{}\": the next client has to wait: max_connections is {}; raise \
                     max_connections, or set first_packet_timeout or idle_timeout",
                    self.peers.profile.name,
                    self.status().max_connections()
                );
            }
        }
        self.accepting.full = full;
        if self.accepting.broken {
            self.begin_drain(state);
        }
    }

    /// Whether the accept phase has something to do.
    #[inline]
    pub(super) fn wants_accept(&self) -> bool {
        self.accepting.ready
            || self.admission.has_news(self.peers.profile.shard)
            || self.openings.has_announced()
    }

    pub(super) fn may_accept(&self) -> bool {
        self.accepting.ready
            && self.listening.as_ref().is_some_and(Listening::has_socket)
            && self.accepting.pause.is_none()
            && !self.accepting.broken
            && !self.is_paused()
            && self.has_room()
    }

    /// Whether a connection that comes next finds a place, or can take that of one that is opening.
    fn has_room(&self) -> bool {
        self.admission.has_room() || self.can_make_room()
    }

    fn can_make_room(&self) -> bool {
        !self.openings.is_empty() && self.admission.is_within_limit()
    }

    /// Whether a handle has paused accepting. The other pause, after a lack of resources, is
    /// independent of it: none of the two ends the other.
    fn is_paused(&self) -> bool {
        self.status().is_paused()
    }

    /// Accepts at most `share` connections, with at most as many calls of `accept` as the budget
    /// allows. Returns whether only `share` or a budget stopped it.
    pub(super) fn accept_some(&mut self, state: &mut LoopState, share: u32) -> bool {
        let mut taken = 0;
        for _ in 0..state.options.accept_budget {
            if taken == share || !self.may_accept() {
                break;
            }
            // Another thread may have given the last place to a connection that it hands over.
            let has_place = self.admission.reserve();
            if !has_place && !self.can_make_room() {
                break;
            }
            let listening = self.listening.as_mut().and_then(Listening::socket);
            let Some(socket) = listening else { break };
            match socket.accept(&self.peers.profile.options) {
                Ok((stream, peer_addr)) => {
                    self.take_in(state, stream, peer_addr, has_place);
                    self.accepting.failures = 0;
                    self.accepting.has_made_room = false;
                    taken += 1;
                }
                Err(error) => {
                    if has_place {
                        self.admission.give_back();
                    }
                    self.accept_failed(state, error);
                }
            }
            if state.is_share_over(1) {
                break;
            }
        }
        self.may_accept()
    }

    /// Begins the way of a connection that was accepted. If the listener was full, one that is opening
    /// makes room, but not for one that is not welcome.
    #[inline]
    fn take_in(
        &mut self,
        state: &mut LoopState,
        stream: A::Stream,
        peer_addr: Endpoint,
        has_place: bool,
    ) {
        self.peers.profile.counters.accepted.add(1);
        if !self.is_allowed(state, &stream, &peer_addr) {
            // The descriptor must be closed before its place counts as free.
            drop(stream);
            if has_place {
                self.admission.give_back();
            }
            return;
        }
        if has_place || self.is_welcome(&peer_addr) && self.take_place(state) {
            return self.begin(state, stream, peer_addr, false);
        }
        self.turn_away(state, stream, peer_addr);
    }

    /// Asks the kernel to announce the socket again if a connection still waits. If the kernel
    /// refuses, the next turn calls `accept` to find out.
    fn rearm(&mut self, state: &LoopState) {
        if let Some(socket) = self.listening.as_mut().and_then(Listening::socket)
            && socket.rearm(&state.registry, token::acceptor(self.peers.profile.slot)).is_ok()
        {
            self.accepting.ready = false;
        }
    }

    pub(super) fn accept_failed(&mut self, state: &mut LoopState, error: io::Error) {
        let fault = AcceptFault::from(&error);
        if fault == AcceptFault::Empty {
            self.accepting.ready = false;
            self.accepting.failures = 0;
            self.accepting.full_rounds = self.accepting.full_rounds.saturating_sub(FULL_ROUNDS);
            return;
        }
        self.peers.profile.counters.accept_errors.add(1);
        match fault {
            AcceptFault::Empty | AcceptFault::Connection => {
                self.accepting.failures += 1;
                if self.peers.gate.opens(Cause::AcceptError, state.nanos()) {
                    let name = &self.peers.profile.name;
                    say!(Debug, "listener \"{name}\": a connection was lost in accept: {error}");
                }
                if self.accepting.failures == FAILURES {
                    self.pause_accepting(state, &error);
                }
            }
            // The descriptor of a connection that is opening may be what is missing.
            AcceptFault::Resources if !self.accepting.has_made_room && self.make_room(state) => {
                self.accepting.has_made_room = true;
            }
            AcceptFault::Resources => self.pause_accepting(state, &error),
            AcceptFault::Listener => self.socket_failed(error, BROKEN_CURE),
        }
    }

    fn pause_accepting(&mut self, state: &mut LoopState, error: &io::Error) {
        self.accepting.failures = 0;
        if self.peers.gate.opens(Cause::AcceptPause, state.nanos()) {
            let name = &self.peers.profile.name;
            say!(
                Warn,
                "listener \"{name}\": cannot accept, next try in {ACCEPT_PAUSE:?}: {error}; {}",
                acceptor::cure(error)
            );
        }
        self.peers.profile.counters.accept_pauses.add(1);
        let timer = Timer::Accept { listener: self.peers.profile.slot };
        let pause = state.wheel.arm(state.now().after(ACCEPT_PAUSE), timer);
        self.accepting.pause = Some(pause);
    }

    /// The listening socket is of no use any more. It is said once. The caller begins the drain.
    pub(super) fn socket_failed(&mut self, error: io::Error, cure: &str) {
        self.accepting.broken = true;
        self.peers.profile.counters.listener_failures.add(1);
        let error = self.peers.profile.name_guard.status.fail(error);
        say!(Error, "{error}; the listener stops, and its connections are drained; {cure}");
    }

    /// Finds the shard for a new connection, and gives the connection to that shard.
    /// `is_watched`: it is registered here for events.
    pub(super) fn assign(
        &mut self,
        state: &mut LoopState,
        mut stream: A::Stream,
        peer: PeerName,
        is_watched: bool,
    ) {
        let shard = self.admission.enter();
        if shard == self.peers.profile.shard {
            return self.admit(state, stream, peer, is_watched);
        }
        if is_watched {
            // After an error the other shard cannot watch it either, and says so.
            let _ = stream.deregister(&state.registry);
        }
        self.admission.hand_over(shard, stream, peer);
    }

    /// Admits the connections that another shard has accepted for this one, and those that handles
    /// have given to it: `all` of them, or as many as the share of the phase allows.
    pub(super) fn take_arrivals(&mut self, state: &mut LoopState, all: bool) {
        let mut came = false;
        while let Some(arrival) = self.admission.next_arrival(self.peers.profile.shard) {
            came = true;
            if arrival.adopted {
                self.take_adopted(state, arrival.stream, arrival.peer.endpoint());
            } else {
                self.admit(state, arrival.stream, arrival.peer, false);
            }
            if state.is_share_over(1) && !all {
                break;
            }
        }
        if !came {
            return;
        }
        // These connections were in transit when all others were forced.
        if self.peers.is_forced() {
            self.peers.force_all();
        }
    }

    /// Begins the way of a connection that a handle has given to the listener.
    fn take_adopted(&mut self, state: &mut LoopState, stream: A::Stream, peer_addr: Endpoint) {
        A::adjust(&stream, &self.peers.profile.options);
        self.peers.profile.counters.adopted.add(1);
        if self.is_allowed(state, &stream, &peer_addr) {
            self.begin(state, stream, peer_addr, true);
        } else {
            self.admission.leave(self.peers.profile.shard);
        }
    }

    /// Gives a connection a slot, then opens it. A connection that cannot be registered takes no
    /// place.
    pub(super) fn admit(
        &mut self,
        state: &mut LoopState,
        stream: A::Stream,
        peer: PeerName,
        is_watched: bool,
    ) {
        let watch = if is_watched { A::Stream::reregister } else { A::Stream::register };
        match self.peers.admit(state, stream, peer, watch) {
            Some(key) => self.open(state, key),
            None => self.admission.leave(self.peers.profile.shard),
        }
    }

    /// Ends the opening stage: makes the handler and calls its `init`.
    fn open(&mut self, state: &mut LoopState, key: u32) {
        let Some(peer) = self.peers.slots.get(key as usize) else { return };
        let accepted = Accepted {
            identity: &peer.identity,
            profile: &self.peers.profile,
            #[cfg(all(feature = "peer-credentials", target_os = "linux"))]
            stream: &peer.stream,
        };
        let made = caught(|| (self.factory)(&accepted));
        self.peers.open(state, key, made);
        self.give_places_back(state);
    }

    /// Accepts the connections that have finished the handshake, so that they are served.
    ///
    /// It ends whatever `accept` returns: a socket whose every `accept` fails is paused soon, and
    /// clients that keep coming are left alone at last.
    pub(super) fn accept_last(&mut self, state: &mut LoopState) {
        self.accepting.ready = true;
        // A pause is worth one more try: there is none later.
        self.end_pause(state);
        let most = u64::from(self.backlog.max(LONGEST_BACKLOG));
        let first = self.peers.profile.counters.accepted.get();
        loop {
            let more = self.accept_some(state, state.options.accept_budget);
            if !more || self.peers.profile.counters.accepted.get() - first >= most {
                return;
            }
        }
    }

    pub(super) fn stop_accepting(&mut self, state: &mut LoopState) {
        if let Some(socket) = self.listening.as_mut().and_then(Listening::socket) {
            // An error means that the socket was not registered. The socket is closed either way.
            let _ = socket.deregister(&state.registry);
        }
        // The drop of `Listening` closes the admission as well.
        self.listening = None;
        self.accepting.ready = false;
        self.end_pause(state);
    }

    /// Ends the pause in accepting before its time. Returns whether there was one.
    pub(super) fn end_pause(&mut self, state: &mut LoopState) -> bool {
        let pause = self.accepting.pause.take();
        pause.is_some_and(|pause| {
            state.wheel.cancel(pause);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use mio::net::TcpStream;
    use mio::{Interest, Poll, Token};

    use super::*;
    use crate::acceptor::ListeningSocket;
    use crate::admission::Admission;
    use crate::clock::{Clock, ManualClock};
    use crate::directory::{Inbox, Kind, NameGuard, Shared};
    use crate::handle::Handle;
    use crate::handler::{Action, Context, Refusal};
    use crate::mailbox::{Mailbox, Notifier};
    use crate::options::{ListenerOptions, OpeningOptions, ReactorOptions};
    use crate::poller::Registry;
    use crate::profile::Profile;
    use crate::reason::CloseReason;
    use crate::status::Status;
    use crate::sync::Arc;

    /// What a factory does.
    #[derive(Debug, Copy, Clone, PartialEq, Eq)]
    enum Behaviour {
        Makes,
        /// It needs a millisecond.
        MakesSlowly,
        Panics,
        Refuses,
    }

    /// A handler that records the reason it was terminated for.
    struct Guest(Rc<RefCell<Vec<CloseReason>>>);

    impl Handler for Guest {
        type Message = ();

        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            Action::Continue
        }

        fn terminate(self, reason: CloseReason) {
            self.0.borrow_mut().push(reason);
        }
    }

    fn profile(notifier: Arc<Notifier>) -> Profile<()> {
        let options = ListenerOptions::port(0);
        let ends = (0..2).map(|_| Inbox::new(Notifier::new(|| {}))).collect();
        let shared = Arc::new(Shared::new(ends));
        let status =
            shared.reserve(Kind::Listener, "test", options.connection.max_connections).unwrap();
        Profile {
            name: "test".into(),
            label: "listener \"test\"".into(),
            shard: 1,
            slot: 0,
            serial: status.serial() + 1,
            framing: options.connection.framing_in_force(),
            shape: options.connection.framing_in_force().shape(),
            limits: options.connection.limits(),
            read_at_once: options.connection.read_at_once(),
            options: options.connection,
            mailboxes: Arc::new([]),
            mailbox: Arc::new(Mailbox::new(2, 8, notifier, || ())),
            counters: Arc::default(),
            name_guard: NameGuard { shared: Arc::clone(&shared), name: "test".into(), status },
            handle: Handle { shared },
        }
    }

    /// The second part of a listener with a limit of two connections. The test plays the first
    /// part, which accepts.
    struct Part {
        listener: Listener<Guest, ListeningSocket>,
        state: LoopState,
        poll: Poll,
        admission: Arc<Admission<TcpStream>>,
        acceptor: Arc<Notifier>,
        /// How often the first part was woken.
        woken: Arc<AtomicU32>,
        /// What factories do.
        factory: Rc<Cell<Behaviour>>,
        ended: Rc<RefCell<Vec<CloseReason>>>,
        door: std::net::TcpListener,
        clients: Vec<std::net::TcpStream>,
    }

    impl Part {
        fn new() -> Self {
            let woken = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&woken);
            let acceptor = Arc::new(Notifier::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }));
            let own = Arc::new(Notifier::new(|| {}));
            let notifiers = [&acceptor, &own].map(Arc::clone);
            let status = Arc::new(Status::new("test".into(), 0, 2, 2));
            let admission = Arc::new(Admission::new(notifiers, status));
            let (behaviour, ended) = (Rc::new(Cell::new(Behaviour::Makes)), Rc::default());
            let (record, will) = (Rc::clone(&ended), Rc::clone(&behaviour));
            let hand = ManualClock::default();
            let clock = Clock::manual(hand.clone());
            let factory = Box::new(move |_: &Accepted<'_>| match will.get() {
                Behaviour::Makes => Ok(Guest(Rc::clone(&record))),
                Behaviour::MakesSlowly => {
                    hand.advance(Duration::from_millis(1));
                    Ok(Guest(Rc::clone(&record)))
                }
                Behaviour::Panics => panic!("the factory panics, as the test wants"),
                Behaviour::Refuses => Err(Refusal::close()),
            });
            let poll = Poll::new().unwrap();
            let registry = Registry::System(poll.registry().try_clone().unwrap());
            let state = LoopState::new(clock, ReactorOptions::new(), registry, Arc::default());
            let opening = OpeningOptions::default();
            let (own, shared) = (profile(own), Arc::clone(&admission));
            let listener = Listener::new(own, shared, None, factory, opening, 1);
            let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let clients = Vec::new();
            Self {
                listener,
                state,
                poll,
                admission,
                acceptor,
                woken,
                factory: behaviour,
                ended,
                door,
                clients,
            }
        }

        /// The server's end of a new connection.
        fn stream(&mut self) -> TcpStream {
            let addr = self.door.local_addr().unwrap();
            self.clients.push(std::net::TcpStream::connect(addr).unwrap());
            let (stream, _) = self.door.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            TcpStream::from_std(stream)
        }

        /// Hands a connection to the second part, as the first part does.
        fn hand_over(&self, stream: TcpStream) {
            assert!(self.admission.reserve());
            assert_eq!(self.admission.enter(), 1, "this part has fewest");
            self.admission.hand_over(1, stream, Endpoint::from(([127, 0, 0, 1], 1)).into());
        }

        fn accept(&mut self) {
            self.listener.accept(&mut self.state);
        }
    }

    /// Goal: a connection that cannot be registered, or that gets no handler, keeps no
    /// place: neither in the listener nor in its shard, and the shard that accepts is notified.
    /// Method: one connection on the first shard; three that fail on the second, then one that does
    /// not.
    #[test]
    fn a_connection_that_comes_to_nothing_keeps_no_place() {
        for cause in ["registration", "panic", "refusal"] {
            let mut part = Part::new();
            assert!(part.admission.reserve());
            assert_eq!(part.admission.enter(), 0);
            part.factory.set(match cause {
                "registration" => Behaviour::Makes,
                "panic" => Behaviour::Panics,
                _ => Behaviour::Refuses,
            });
            for nth in 1..=3 {
                let mut stream = part.stream();
                if cause == "registration" {
                    // A stream that is registered already cannot be registered again.
                    let registry = part.poll.registry();
                    registry.register(&mut stream, Token(0), Interest::READABLE).unwrap();
                }
                part.hand_over(stream);
                assert!(!part.admission.has_room());
                assert!(part.acceptor.prepare_to_sleep());
                part.accept();
                assert_eq!(part.woken.load(Ordering::SeqCst), nth, "woken after the {cause}");
                assert!(part.acceptor.take());
                assert!(part.admission.has_room());
                let stats = part.listener.peers.profile.counters.snapshot();
                let failed = stats.register_errors + stats.panics + stats.refused;
                assert_eq!((failed, stats.made), (u64::from(nth), 0), "{cause}");
            }
            part.factory.set(Behaviour::Makes);
            let stream = part.stream();
            part.hand_over(stream);
            part.accept();
            assert_eq!(part.listener.peers.profile.counters.open.get(), 1);
            assert!(!part.admission.has_room(), "a place was given back twice");
        }
    }

    /// Goal: a connection that arrives on a shard whose connections have all been forced is forced
    /// as well. Nothing else would end it, and the drain would not end. Method: the connection
    /// arrives before a drain, during a drain, and in the call that begins a drain.
    #[test]
    fn a_connection_that_arrives_at_a_forced_shard_is_forced() {
        for stage in ["before a drain", "in a drain", "by a drain"] {
            let mut part = Part::new();
            assert!(part.admission.reserve());
            assert_eq!(part.admission.enter(), 0);
            if stage == "in a drain" {
                part.listener.drain(&mut part.state);
            }
            part.listener.force();
            let stream = part.stream();
            part.hand_over(stream);
            if stage == "by a drain" {
                part.listener.drain(&mut part.state);
            } else {
                part.accept();
            }
            part.listener.sweep(&mut part.state);
            assert_eq!(*part.ended.borrow(), [CloseReason::DrainForced], "{stage}");
            assert_eq!(part.listener.report().forced, 1, "{stage}");
            assert!(part.listener.peers.slots.is_empty(), "{stage}");
        }
    }

    /// Goal: a part that does not accept has work once a connection is handed to it, or once no
    /// more can come; the reactor's own shutdown does not drain it before. Method: the test plays
    /// the part that accepts.
    #[test]
    fn a_part_that_does_not_accept_waits_for_the_one_that_does() {
        let mut part = Part::new();
        assert!(!part.listener.accepts() && part.admission.accepts(0));
        assert!(part.admission.reserve());
        assert_eq!(part.admission.enter(), 0);
        assert!(!part.listener.is_busy() && !part.listener.has_work(Phase::Accept));
        let stream = part.stream();
        part.hand_over(stream);
        assert!(part.listener.is_busy() && part.listener.has_work(Phase::Accept));
        part.accept();
        assert!(!part.listener.is_busy() && !part.listener.has_work(Phase::Accept));
        part.admission.close();
        assert!(part.listener.is_busy() && part.listener.has_work(Phase::Accept));
        assert!(!part.listener.peers.has_begun_to_drain());
        part.accept();
        assert!(part.listener.peers.has_begun_to_drain());
    }

    /// Goal: a turn admits as many of the connections that were handed over as it has time for. A
    /// drain admits all of them, so that each is told of it. Method: more of them than a turn looks
    /// at without the clock, and a slow factory.
    #[test]
    fn a_drain_admits_all_that_were_handed_over() {
        const MANY: usize = 200;
        let mut part = Part::new();
        part.factory.set(Behaviour::MakesSlowly);
        for _ in 0..MANY {
            let stream = part.stream();
            part.admission.hand_over(1, stream, Endpoint::from(([127, 0, 0, 1], 1)).into());
        }
        part.state.begin(None);
        part.accept();
        let admitted = part.listener.peers.slots.len();
        assert!((2..MANY / 2).contains(&admitted), "{admitted}");
        part.listener.drain(&mut part.state);
        assert_eq!(part.listener.peers.slots.len(), MANY);
    }
}
