//! The harness: what a test does to a handler. What it sees is in `observations`.

use std::cell::RefCell;
use std::fmt;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use super::faults::Faults;
use super::network::Network;
use super::rig::Rig;
use super::script::{Script, Shared};
use crate::drain::Report;
use crate::endpoint::Endpoint;
use crate::framing::{Decode, Framing};
use crate::handler::{Accepted, Handler};
use crate::mailbox::Address;
use crate::options::{ListenerOptions, ReactorOptions};
use crate::poller::Readiness;
use crate::reason::MessageError;

/// One scripted connection to a listener with your handlers, and the hand on its clock. See the
/// [module's documentation](super).
///
/// [`connect`](Self::connect) gives one more connection to the *same* listener: they share the
/// clock, the options and the mailbox. When the last of them is dropped, the listener ends as with
/// a dropped [`Reactor`](crate::Reactor): every handler that is left is terminated.
pub struct Harness<H: Handler> {
    pub(super) rig: Rc<RefCell<Rig<H>>>,
    /// The rig's own, to be reached while the rig is in a turn: a callback may drop a harness.
    network: Rc<RefCell<Network>>,
    pub(super) script: Shared,
}

impl<H: Handler> Harness<H> {
    /// A connection to a listener with these options, accepted and initialised. `factory` makes the
    /// handlers, as with [`start_listener`](crate::Reactor::start_listener).
    ///
    /// # Panics
    ///
    /// If the options are [refused](ListenerOptions::check).
    pub fn new(
        options: ListenerOptions,
        factory: impl FnMut(&Accepted<'_>) -> H + 'static,
    ) -> Self {
        Self::with(ReactorOptions::default(), options, factory)
    }

    /// As [`new`](Self::new), in a reactor with these options: small budgets, for instance.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new), and if the reactor's are [refused](ReactorOptions::check).
    pub fn with(
        reactor: ReactorOptions,
        options: ListenerOptions,
        factory: impl FnMut(&Accepted<'_>) -> H + 'static,
    ) -> Self {
        let rig = Rc::new(RefCell::new(Rig::new(reactor, options, factory)));
        Self::join(&rig, None)
    }

    /// A connection to a listener with the default options, which has this one handler and takes no
    /// further connection.
    pub fn of(handler: H) -> Self {
        let mut handler = Some(handler);
        let options = ListenerOptions::port(5555).max_connections(1);
        Self::new(options, move |_| handler.take().expect("the one handler was given away"))
    }

    /// One more connection to the same listener. It waits, as in a backlog, while there are
    /// [`max_connections`](ListenerOptions::max_connections); see [`is_accepted`](Self::is_accepted).
    pub fn connect(&self) -> Self {
        Self::join(&self.rig, None)
    }

    /// One more connection, from this end. By default they come from 192.0.2.1, from a port each.
    pub fn connect_from(&self, peer_addr: impl Into<Endpoint>) -> Self {
        Self::join(&self.rig, Some(peer_addr.into()))
    }

    fn join(rig: &Rc<RefCell<Rig<H>>>, peer_addr: Option<Endpoint>) -> Self {
        let script = rig.borrow().connect(peer_addr);
        rig.borrow_mut().run();
        let network = Rc::clone(&rig.borrow().network);
        Self { rig: Rc::clone(rig), network, script }
    }

    /// Changes the script, then has everything happen that follows from it.
    fn act(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.borrow_mut());
        self.run();
    }

    // ---- the peer ----

    /// The peer sends `bytes`, as they are.
    pub fn receive(&self, bytes: impl AsRef<[u8]>) {
        self.act(|script| script.arrive(bytes.as_ref()));
    }

    /// The peer sends `payload` as one packet, in the framing that the connection has by now.
    ///
    /// # Panics
    ///
    /// If the framing cannot express it. [`receive`](Self::receive) sends what is malformed.
    pub fn packet(&self, payload: impl AsRef<[u8]>) {
        self.receive(self.framed(payload));
    }

    /// `payload` as the peer frames it by now.
    ///
    /// # Panics
    ///
    /// If the framing cannot express it.
    pub fn framed(&self, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(error) = self.framing().encode(payload.as_ref(), &mut bytes) {
            panic!("no packet of the peer's: {error}");
        }
        bytes
    }

    /// Bytes arrive, and nobody has noticed yet: whatever happens next happens in the same turn.
    ///
    /// ```
    /// # use condor::testing::Harness;
    /// # use condor::{Action, CloseReason, Context, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::send(packet)
    /// #     }
    /// # }
    /// // A packet and the end of the stream, in one event.
    /// let harness = Harness::of(Echo);
    /// harness.arrive(b"\x00\x03bye");
    /// harness.peer_closes();
    /// assert_eq!(harness.packets(), [b"bye"]);
    /// assert_eq!(harness.closed(), Some(CloseReason::PeerClosed));
    /// ```
    pub fn arrive(&self, bytes: impl AsRef<[u8]>) {
        self.script.borrow_mut().arrive(bytes.as_ref());
    }

    /// The bytes that the peer has got since last asked.
    pub fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.script.borrow_mut().taken)
    }

    /// The whole packets that the peer has got since last asked, in the framing that the connection
    /// has by now. What is left of an incomplete one stays; without framing, everything is one
    /// packet.
    ///
    /// # Panics
    ///
    /// If it has got something that is no packet, or the [`Framer`](crate::Framer) gives an answer
    /// that is not [valid](Decode::is_valid).
    pub fn packets(&self) -> Vec<Vec<u8>> {
        let framing = self.framing();
        let mut script = self.script.borrow_mut();
        let mut packets = Vec::new();
        let mut at = 0;
        loop {
            let input = &script.taken[at..];
            match framing.decode(input, 0) {
                Ok(found) if !found.is_valid(input.len()) => {
                    panic!("the framer broke its contract: {found:?} of {} bytes", input.len());
                }
                Ok(Decode::Frame { payload, consumed }) => {
                    packets.push(script.taken[at..][payload].to_vec());
                    at += consumed;
                }
                Ok(Decode::Need(_)) => break,
                Err(error) => panic!("the peer has got no packet: {error}"),
            }
        }
        script.taken.drain(..at);
        packets
    }

    /// The framing as the peer has it.
    fn framing(&self) -> Framing {
        let own = self.script.borrow().framing.clone().map(Framing::mirrored);
        own.unwrap_or_else(|| self.rig.borrow().framing.clone())
    }

    /// The peer sends no more, but reads on: half a close.
    pub fn peer_closes(&self) {
        self.act(Script::end);
    }

    /// The peer resets the connection. What had arrived before can still be read, as on Linux.
    pub fn peer_resets(&self) {
        self.act(Script::reset);
    }

    /// From now on the peer takes nothing.
    pub fn peer_stalls(&self) {
        self.script.borrow_mut().window = 0;
    }

    /// The peer, having [stalled](Self::peer_stalls), takes `bytes` more.
    ///
    /// ```
    /// # use condor::testing::Harness;
    /// # use condor::{Action, Context, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::send(packet)
    /// #     }
    /// # }
    /// let harness = Harness::of(Echo);
    /// harness.peer_stalls();
    /// harness.packet(b"hello");
    /// assert_eq!((harness.sent(), harness.queued_bytes()), (vec![], 7));
    ///
    /// harness.peer_reads(3);
    /// assert_eq!((harness.sent(), harness.queued_bytes()), (b"\x00\x05h".to_vec(), 4));
    /// ```
    pub fn peer_reads(&self, bytes: usize) {
        self.act(|script| script.open_window(bytes));
    }

    /// The peer, having [stalled](Self::peer_stalls), takes everything again.
    pub fn peer_reads_all(&self) {
        self.peer_reads(usize::MAX);
    }

    // ---- the network ----

    /// From now on one read gives at most so many bytes; an event announces the rest.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0.
    pub fn max_read(&self, bytes: usize) {
        assert!(bytes > 0, "nothing would ever be read");
        self.script.borrow_mut().read_most = bytes;
    }

    /// From now on one write takes at most so many bytes.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0; [`peer_stalls`](Self::peer_stalls) is for that.
    pub fn max_write(&self, bytes: usize) {
        assert!(bytes > 0, "a write that takes nothing is `peer_stalls`");
        self.script.borrow_mut().write_most = bytes;
    }

    /// The next read fails. Said several times, the calls after it do so in turn.
    ///
    /// After [`ErrorKind::WouldBlock`] an event follows, after [`ErrorKind::Interrupted`] nothing
    /// has happened; any other error is the stream's end, and what had arrived is lost.
    pub fn fail_next_read(&self, kind: ErrorKind) {
        self.script.borrow_mut().read_errors.push_back(kind);
    }

    /// The next write fails. As [`fail_next_read`](Self::fail_next_read).
    pub fn fail_next_write(&self, kind: ErrorKind) {
        self.script.borrow_mut().write_errors.push_back(kind);
    }

    /// The next accept fails, of whichever connection. Who waited goes on waiting.
    pub fn fail_next_accept(&self, kind: ErrorKind) {
        self.rig.borrow().network.borrow().door.borrow_mut().errors.push_back(kind);
    }

    /// An event that announces everything, for nothing.
    pub fn disturb(&self) {
        let all = Readiness::READABLE.with(Readiness::WRITABLE);
        let all = all.with(Readiness::READ_UNTIL_BLOCKED).with(Readiness::ERROR);
        self.act(|script| script.announce(all));
    }

    /// From now on all connections to this listener have this plan, those to come included.
    pub fn faults(&self, faults: Faults) {
        self.rig.borrow().set_faults(faults);
    }

    /// Whether a fault has killed the stream, or the peer has reset it.
    pub fn is_dead(&self) -> bool {
        self.script.borrow().dead
    }

    // ---- time ----

    /// Time passes, and everything that falls due happens at its moment.
    pub fn advance(&self, by: Duration) {
        self.rig.borrow_mut().advance(by);
    }

    /// Time passes in which nothing is done, as when the process was stopped. What falls due
    /// meanwhile happens afterwards, together with what has [arrived](Self::arrive).
    pub fn stall(&self, by: Duration) {
        self.rig.borrow().hand.advance(by);
    }

    /// How much time has passed in all.
    pub fn elapsed(&self) -> Duration {
        self.rig.borrow().hand.elapsed()
    }

    /// Turns until there is nothing left to do but wait.
    ///
    /// # Panics
    ///
    /// If there is no end to it, because a handler keeps itself busy.
    pub fn run(&self) {
        self.rig.borrow_mut().run();
    }

    /// One turn of the loop, whether there is something to do or not: for tests of what happens
    /// in the midst of things, with small budgets.
    pub fn turn(&self) {
        self.rig.borrow_mut().turn();
    }

    // ---- threads and operators ----

    /// Sends the handler a message, and has it delivered.
    ///
    /// # Panics
    ///
    /// If the mailbox is full, or the listener has ended. [`address`](Self::address) is for those
    /// cases.
    pub fn message(&self, message: H::Message) {
        match self.address().send(message) {
            Ok(()) => self.run(),
            Err(MessageError::Full(_)) => panic!("the mailbox is full"),
            Err(MessageError::Gone(_)) => panic!("the listener has ended"),
        }
    }

    /// Sends every handler a clone, and has them delivered.
    ///
    /// # Panics
    ///
    /// As [`message`](Self::message).
    pub fn broadcast(&self, message: H::Message)
    where
        H::Message: Clone,
    {
        let sent = self.rig.borrow().handle.broadcast(message);
        assert!(sent.is_ok(), "the mailbox is full, or the listener has ended");
        self.run();
    }

    /// The handler's address, to be used as any other; what was sent is delivered with the next
    /// thing that happens, or with [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// If the connection was not accepted yet.
    pub fn address(&self) -> Address<H::Message> {
        let id = self.id().expect("the connection was not accepted yet");
        let mailbox = self.rig.borrow().handle.mailboxes[0].clone();
        Address { mailbox, key: id.key, generation: id.generation }
    }

    /// Stops the listener, as [`Handle::stop_listener`](crate::Handle::stop_listener) does. Who
    /// waited to be accepted is accepted.
    pub fn drain(&self) {
        self.rig.borrow_mut().drain();
    }

    /// What the drain came to, once every connection has ended.
    pub fn report(&self) -> Option<Report> {
        self.rig.borrow().report()
    }
}

impl<H: Handler> Drop for Harness<H> {
    fn drop(&mut self) {
        self.network.borrow_mut().forget(&self.script);
    }
}

impl<H: Handler> fmt::Debug for Harness<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("id", &self.id())
            .field("closed", &self.closed())
            .finish_non_exhaustive()
    }
}
