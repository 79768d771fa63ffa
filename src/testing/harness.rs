//! The harness: what a test can do to a handler. What a test can see is in `observations`.

use std::cell::RefCell;
use std::fmt;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use super::faults::Faults;
use super::network::Network;
use super::rig::Rig;
use super::script::{Script, Shared};
use crate::address::Address;
use crate::clock::ManualClock;
use crate::drain::Report;
use crate::endpoint::Endpoint;
use crate::framing::{Decode, Framing};
use crate::group::Group;
use crate::handle::{Handle, ListenerHandle};
use crate::handler::{Accepted, Handler, IntoHandler};
use crate::options::{ListenerOptions, ReactorOptions};
use crate::poller::Readiness;
use crate::reason::MessageError;

/// One scripted connection to a listener with your handlers. It also moves the listener's clock.
///
/// ```
/// use condor::testing::Harness;
/// # struct Echo;
/// # impl condor::Handler for Echo {
/// #     type Message = ();
/// #     fn handle_packet<'a>(
/// #         &'a mut self,
/// #         packet: &'a [u8],
/// #         _: &mut condor::Context<'_, ()>,
/// #     ) -> condor::Action<'a> {
/// #         condor::Action::send(packet)
/// #     }
/// # }
///
/// // `Echo` is a `Handler`.
/// let harness = Harness::of(Echo);
/// harness.packet(b"hello");
/// assert_eq!(harness.packets(), [b"hello"]);
/// assert_eq!(harness.closed(), None);
/// ```
///
/// [What a test can do](super#what-a-test-can-do) lists the methods by purpose.
///
/// [`connect`](Self::connect) returns one more connection to the *same* listener. All of them share
/// the clock, the options and the mailbox. When the last one is dropped, the listener ends as it
/// does when a [`Reactor`](crate::Reactor) is dropped: all remaining handlers are terminated.
pub struct Harness<H: Handler> {
    pub(super) rig: Rc<RefCell<Rig<H>>>,
    /// The network of the rig. A callback may drop a harness while the rig is borrowed for a turn,
    /// so `drop` cannot reach the network through the rig.
    network: Rc<RefCell<Network>>,
    /// The clock of the rig. A callback may move it.
    hand: ManualClock,
    pub(super) script: Shared,
}

impl<H: Handler> Harness<H> {
    /// Makes a listener with these options, and an accepted and initialised connection to it, unless
    /// the factory [refuses](crate::Refusal) it. `factory` makes the handlers, as with
    /// [`start_listener`](crate::Reactor::start_listener).
    ///
    /// # Panics
    ///
    /// If the options are [refused](ListenerOptions::check).
    pub fn new<R: IntoHandler<Handler = H>>(
        options: ListenerOptions,
        factory: impl FnMut(&Accepted<'_, H::Message>) -> R + 'static,
    ) -> Self {
        Self::with(ReactorOptions::default(), options, factory)
    }

    /// As [`new`](Self::new), in a reactor with these options. A test can set small budgets, for
    /// instance.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new), and if the reactor's options are [refused](ReactorOptions::check).
    pub fn with<R: IntoHandler<Handler = H>>(
        reactor: ReactorOptions,
        options: ListenerOptions,
        factory: impl FnMut(&Accepted<'_, H::Message>) -> R + 'static,
    ) -> Self {
        let rig = Rc::new(RefCell::new(Rig::new(reactor, options, factory)));
        Self::join(&rig, None)
    }

    /// Makes a listener with the default options, and a connection to it with this handler. The
    /// listener accepts no other connection: its `max_connections` is 1.
    pub fn of(handler: H) -> Self {
        let mut handler = Some(handler);
        let options = ListenerOptions::port(5555).max_connections(1);
        Self::new(options, move |_| handler.take().expect("the one handler was given away"))
    }

    /// Makes one more connection to the same listener. While the listener has
    /// [`max_connections`](ListenerOptions::max_connections), the connection waits, as in a
    /// backlog; see [`is_accepted`](Self::is_accepted).
    pub fn connect(&self) -> Self {
        Self::join(&self.rig, None)
    }

    /// Makes one more connection, with `peer_addr` as the peer's address. By default a connection
    /// comes from 192.0.2.1, with a port of its own.
    pub fn connect_from(&self, peer_addr: impl Into<Endpoint>) -> Self {
        Self::join(&self.rig, Some(peer_addr.into()))
    }

    fn join(rig: &Rc<RefCell<Rig<H>>>, peer_addr: Option<Endpoint>) -> Self {
        let script = rig.borrow().connect(peer_addr);
        rig.borrow_mut().run();
        let network = Rc::clone(&rig.borrow().network);
        let hand = rig.borrow().hand.clone();
        Self { rig: Rc::clone(rig), network, hand, script }
    }

    /// Changes the script, then runs the reactor until it can only wait.
    fn act(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.borrow_mut());
        self.run();
    }

    // ---- the peer ----

    /// The peer sends `bytes`, without framing them.
    pub fn receive(&self, bytes: impl AsRef<[u8]>) {
        self.act(|script| script.arrive(bytes.as_ref()));
    }

    /// The peer sends `payload` as one packet, in the connection's current framing.
    ///
    /// # Panics
    ///
    /// If the framing cannot express `payload`. Malformed bytes can be sent with
    /// [`receive`](Self::receive).
    pub fn packet(&self, payload: impl AsRef<[u8]>) {
        self.receive(self.framed(payload));
    }

    /// `payload` as one packet, in the peer's current framing.
    ///
    /// # Panics
    ///
    /// If the framing cannot express `payload`.
    pub fn framed(&self, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(error) = self.framing().encode(payload.as_ref(), &mut bytes) {
            panic!("no packet of the peer's: {error}");
        }
        bytes
    }

    /// Bytes arrive, but the reactor does not run yet. It handles them in the same turn as the next
    /// event.
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

    /// The bytes that the peer has received since the last call.
    pub fn sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.script.borrow_mut().taken)
    }

    /// The whole packets that the peer has received since the last call, in the connection's
    /// current framing. The bytes of an incomplete packet stay for the next call. Without framing,
    /// all bytes are one packet.
    ///
    /// # Panics
    ///
    /// If the peer has received bytes that are no packet, or if the [`Framer`](crate::Framer)
    /// returns an answer that is not [valid](Decode::is_valid).
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

    /// The framing from the peer's side: what the connection sends comes in.
    fn framing(&self) -> Framing {
        let own = self.script.borrow().framing.clone().map(Framing::mirrored);
        own.unwrap_or_else(|| self.rig.borrow().framing.clone())
    }

    /// The peer shuts down its sending side. It still reads.
    pub fn peer_closes(&self) {
        self.act(Script::end);
    }

    /// The peer resets the connection. Bytes that arrived before can still be read, as on Linux.
    pub fn peer_resets(&self) {
        self.act(Script::reset);
    }

    /// From now on the peer reads nothing.
    pub fn peer_stalls(&self) {
        self.script.borrow_mut().window = 0;
    }

    /// After [`peer_stalls`](Self::peer_stalls), the peer reads `bytes` more bytes.
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

    /// After [`peer_stalls`](Self::peer_stalls), the peer reads everything again.
    pub fn peer_reads_all(&self) {
        self.peer_reads(usize::MAX);
    }

    // ---- the network ----

    /// From now on one read returns at most `bytes` bytes. An event announces the rest.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0.
    pub fn max_read(&self, bytes: usize) {
        assert!(bytes > 0, "nothing would ever be read");
        self.script.borrow_mut().read_most = bytes;
    }

    /// From now on one write takes at most `bytes` bytes.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0. For a peer that reads nothing, use [`peer_stalls`](Self::peer_stalls).
    pub fn max_write(&self, bytes: usize) {
        assert!(bytes > 0, "a write that takes nothing is `peer_stalls`");
        self.script.borrow_mut().write_most = bytes;
    }

    /// The next read fails with `kind`. Several calls of this method make as many reads fail, in
    /// the same order.
    ///
    /// - After [`ErrorKind::WouldBlock`] an event follows.
    /// - [`ErrorKind::Interrupted`] changes nothing in the stream.
    /// - Any other error ends the stream, and the bytes that had arrived are lost.
    pub fn fail_next_read(&self, kind: ErrorKind) {
        self.script.borrow_mut().read_errors.push_back(kind);
    }

    /// The next write fails with `kind`, as [`fail_next_read`](Self::fail_next_read) describes.
    pub fn fail_next_write(&self, kind: ErrorKind) {
        self.script.borrow_mut().write_errors.push_back(kind);
    }

    /// The next accept of the listener fails with `kind`. Connections in the backlog stay there.
    pub fn fail_next_accept(&self, kind: ErrorKind) {
        self.rig.borrow().network.borrow().door.borrow_mut().errors.push_back(kind);
    }

    /// Delivers an event without a cause, with every readiness that an event can announce.
    pub fn disturb(&self) {
        let all = Readiness::READABLE.with(Readiness::WRITABLE);
        let all = all.with(Readiness::READ_UNTIL_BLOCKED).with(Readiness::ERROR);
        self.act(|script| script.announce(all));
    }

    /// From now on these faults apply to all connections of this listener, later ones included.
    pub fn faults(&self, faults: Faults) {
        self.rig.borrow().set_faults(faults);
    }

    /// Whether a fault has killed the stream, or the peer has reset it.
    pub fn is_dead(&self) -> bool {
        self.script.borrow().dead
    }

    // ---- time ----

    /// Time passes. Everything that becomes due on the way happens at the time at which it is due.
    pub fn advance(&self, by: Duration) {
        self.rig.borrow_mut().advance(by);
    }

    /// Time passes, but the reactor does not run, as if the process was stopped. What becomes due
    /// in this time happens when the reactor next runs, together with what has
    /// [arrived](Self::arrive).
    ///
    /// A handler may call it, too: then its callback takes this time.
    pub fn stall(&self, by: Duration) {
        self.hand.advance(by);
    }

    /// The time that has passed since the listener was made.
    pub fn elapsed(&self) -> Duration {
        self.hand.elapsed()
    }

    /// Runs turns until the reactor can only wait.
    ///
    /// # Panics
    ///
    /// If the reactor is still busy after 100,000 turns, because a handler keeps itself busy.
    pub fn run(&self) {
        self.rig.borrow_mut().run();
    }

    /// Runs one turn of the loop, even if there is nothing to do. With small budgets, a test can
    /// look at the state between the turns of one piece of work.
    pub fn turn(&self) {
        self.rig.borrow_mut().turn();
    }

    // ---- threads and operators ----

    /// Sends the handler a message, and delivers it.
    ///
    /// # Panics
    ///
    /// If the connection was not accepted yet, the mailbox is full, or the listener has ended. To
    /// test the last two, use [`address`](Self::address).
    pub fn message(&self, message: H::Message) {
        match self.address().send(message) {
            Ok(()) => self.run(),
            Err(MessageError::Full(_)) => panic!("the mailbox is full"),
            Err(MessageError::Gone(_)) => panic!("the listener has ended"),
        }
    }

    /// Sends every handler a clone of the message, and delivers the clones.
    ///
    /// # Panics
    ///
    /// If the mailbox is full, or the listener has ended.
    pub fn broadcast(&self, message: H::Message)
    where
        H::Message: Clone,
    {
        let sent = self.rig.borrow().handle.broadcast(message);
        assert!(sent.is_ok(), "the mailbox is full, or the listener has ended");
        self.run();
    }

    /// A new group for connections of this listener. What is sent to it is delivered when the reactor
    /// next runs, with the next event or by [`run`](Self::run).
    pub fn group(&self) -> Group<H::Message> {
        self.rig.borrow().handle.group()
    }

    /// The handler's address. It works as any other address. A message is delivered when the
    /// reactor next runs, with the next event or by [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// If the connection was not accepted yet.
    pub fn address(&self) -> Address<H::Message> {
        let id = self.id().expect("the connection was not accepted yet");
        let mailbox = self.rig.borrow().handle.mailboxes[0].clone();
        Address { mailbox, key: id.key, generation: id.generation }
    }

    /// The handle of the listener, which is named `testing`.
    pub fn listener(&self) -> ListenerHandle<H::Message> {
        self.rig.borrow().handle.clone()
    }

    /// The handle of the reactor. What it asks for happens when the reactor next runs, with the next
    /// event or by [`run`](Self::run).
    pub fn handle(&self) -> Handle {
        self.listener().reactor
    }

    /// Stops the listener, as [`Handle::stop_listener`](crate::Handle::stop_listener) does. It
    /// also accepts the connections that wait in the backlog.
    pub fn drain(&self) {
        self.rig.borrow_mut().drain();
    }

    /// The drain's report, once every connection has ended.
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
