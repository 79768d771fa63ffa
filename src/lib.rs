//! A minimal library for scalable TCP servers. It accepts connections, cuts their bytes into
//! packets, buffers output that a slow peer has not taken yet, and ends connections that are too
//! slow. You write one small [`Handler`]. A value of it is the state of one connection, and it
//! answers each packet with an [`Action`]. Underneath is a plain reactor on [mio]: one thread, one
//! `poll`, no async runtime. [`Shards`] runs one reactor per core.
//!
//! It is Erlang's [Condor] as a Rust library, with the same names and the same defaults: a two-byte
//! length before each packet, 10 seconds for each packet, 100 connections.
//!
//! # Example
//!
//! A server on 127.0.0.1:5555. It answers `ping` with `pong`. It answers `stop` with `ok`, and then
//! ends the connection:
//!
//! ```no_run
//! use condor::{Action, CloseReason, Context, Handler, ListenerOptions, Reactor};
//!
//! struct Ping;
//!
//! impl Handler for Ping {
//!     type Message = ();
//!
//!     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _ctx: &mut Context<'_, ()>) -> Action<'a> {
//!         match packet {
//!             b"ping" => Action::send("pong"),
//!             b"stop" => Action::send_and_stop("ok", CloseReason::Normal),
//!             _ => Action::stop(CloseReason::Custom("unknown packet")),
//!         }
//!     }
//! }
//!
//! fn main() -> Result<(), condor::Error> {
//!     let mut reactor = Reactor::new()?;
//!     reactor.start_listener("ping", ListenerOptions::port(5555), |_peer| Ping)?;
//!     reactor.run()
//! }
//! ```
//!
//! # What it takes care of
//!
//! - **Packets.** [`LengthField`] in all its variations, [`Lines`], [`Raw`], or a [`Framer`] of
//!   your own. One read may bring any number of packets, and the network may cut them anywhere. All
//!   answers of one turn leave in one write. [`Context::set_framing`] changes the framing in
//!   mid-stream.
//! - **Time.** A packet has 10 seconds from its first byte to its last. Later bytes do not extend
//!   the time, so a peer that sends single bytes cannot hold a slot. There are also timeouts for
//!   idle connections and for stalled writes, and [`Context::send_after`] for timers of the
//!   handler.
//! - **Slow peers.** If a peer does not take its answers, the reactor does not read from it until
//!   it does. [`max_queued`](ListenerOptions::max_queued) bounds the output that waits for the
//!   peer.
//! - **Results.** A method of a handler may return a `Result`, and use `?`: the error ends the
//!   connection with a reason. See [`Action`]. [`Typed`] decodes requests and encodes answers.
//! - **Proxies.** A listener reads the PROXY header of connections that come through a proxy
//!   ([`ListenerOptions::proxy`]): a handler sees the client's address. A connector sends one.
//! - **Refusals.** A factory may refuse a connection: [`IntoHandler`], [`Refusal`].
//! - **Unix sockets.** [`ListenerOptions::unix`] takes a path with its access rights,
//!   [`ListenerOptions::unix_abstract`] an abstract name. With the feature `peer-credentials` (Linux),
//!   `Context::peer_credentials` tells which process is at the other end, and
//!   `ListenerOptions::unix_allow_uids` lets only some users in.
//! - **Messages.** [`Address`] sends a message to one connection, from any thread. A [`Group`] sends
//!   one, or one packet, to its members; [`ListenerHandle::broadcast`] reaches all connections of a
//!   listener. Mailboxes are bounded.
//! - **Answers that come later.** [`Replies`] keeps the order of answers that other threads make,
//!   limits how many requests of a connection are in work, and ends the connection after the last
//!   answer.
//! - **Connections to elsewhere.** A connector ([`Reactor::start_connector`]) opens connections and
//!   keeps them up, with the same [`Handler`] as a listener: to addresses, names and Unix sockets.
//!   [`ConnectorOptions`] has timeouts, back-off and retries. [`Context::dial`] opens one from a
//!   callback.
//! - **Requests to the peer.** [`Calls`] matches answers to the requests that a handler has sent, and
//!   tells which were not answered in time.
//! - **Operation.** [`Handle`] changes the limit on connections, pauses accepting and reads counters
//!   while the server runs. [`Handle::every`] calls a closure again and again.
//! - **Fairness.** Every turn does a bounded amount of work for each connection, each listener,
//!   each mailbox and the timers. See [`ReactorOptions`].
//! - **The end.** [`Handler::terminate`] is called exactly once for every handler, with a typed
//!   [`CloseReason`], on every path. A panic ends one connection only. The peer receives the last
//!   answers before the end of the stream. [`Handle::shutdown`] and [`Handle::stop_listener`]
//!   drain: everything that has arrived is answered first.
//! - **Trouble.** The process runs out of descriptors, a peer resets a connection before it is
//!   accepted, a port is in use: each case has a defined outcome, and at most one line in the [log]
//!   per second. If a listening socket fails, that listener is drained, and everything else goes on.
//!   [`Stats`] counts everything, and [`LoopStats`] has histograms of the turns.
//! - **Tests.** [`testing::Harness`] runs your handler over a scripted stream, with a clock that
//!   only the test moves. See [Testing your handler](testing#testing-your-handler).
//!   [`testing::serve`] runs it over sockets. With the feature `sim`, `condor::sim` runs several
//!   programs in one process, over a network that fails as your test says.
//!
//! # What it does not do
//!
//! - TLS or UDP.
//! - Blocking work. All callbacks of a reactor run on one thread, one after the other. Hand long
//!   work to threads of your own; [`Replies`] sends their answers in order. The `offload` example
//!   does this.
//! - Windows, and systems that are not 64 bits wide. Linux is tested. Support for other Unix
//!   systems is best effort.
//!
//! Every limit has a default, a unit and a setter in [`ListenerOptions`], [`ConnectorOptions`] or
//! [`ReactorOptions`]. [`ListenerOptions::check`] reports options that contradict each other, and
//! options that may be a mistake. [`ListenerOptions::worst_case_memory`] tells how much memory hostile
//! peers can make a listener use.
//!
//! # The log
//!
//! All lines have the same fields in the same order. A line leaves out the fields that it has not:
//!
//! ```text
//! listener "NAME": peer ADDR: what happened: why; which option or command helps
//! ```
//!
//! A line about a connector begins with `connector "NAME": `, and one about neither with `reactor: `
//! or `shard N: `. Each cause that a peer can repeat has at most one line per second and listener; the
//! counters in [`Stats`] miss nothing. No
//! line holds bytes of a packet, except the text of a panic, if the handler put them there.
//!
//! | level | lines |
//! |---|---|
//! | error | a panic, a broken listening socket, a shard that died |
//! | warn | a limit was reached, a dial failed, an option may be a mistake; each names the cure |
//! | info | a listener starts or stops |
//! | debug | each connection begins and ends, with its reason: these lines have no limit; a connection that a factory refuses: at most one a second |
//!
//! # Threads, and loops of your own
//!
//! A [`Reactor`] stays on the thread that made it. So do its handlers, which need not be `Send`. A
//! [`Handle`] works from any thread and from callbacks: it starts and stops listeners, changes their
//! limits, pauses them, gives them connections, closes connections, starts timers and reads
//! counters. [`Reactor::run`] blocks until a shutdown is done. A program with
//! an event loop of its own watches the reactor's [descriptor](std::os::fd::AsRawFd), asks
//! [`Reactor::next_deadline`] how long it may wait, and calls [`Reactor::turn`]. The `own_loop`
//! example does this.
//!
//! [`Shards`] runs one reactor per core, with the same API. A connection lives on one shard. It
//! shares nothing with the other shards that a packet touches.
//!
//! # The modules
//!
//! For readers of the source. The order is from the top down: a module names only modules below it.
//!
//! <details><summary>All modules</summary>
//!
//! ```text
//!   sim              several nodes in one process, with the feature `sim`
//!   testing          the reactor over a simulated network, and a server for tests over sockets
//!   client           a blocking client for tests, tools and small programs
//!   shards           one reactor per core
//!   reactor          the turn: polls for events, then runs each phase
//!   start            starts a listener: checks its options, takes its name, listens
//!   connect          starts a connector: checks its options, takes its name
//!   connector        one named connector: it opens connections and keeps them up
//!   listener         one named listener: where its connections come from
//!   peers            connections, however they came, and which of them have work to do
//!   peer             one connection: reads and writes its stream, calls its handler
//!   calls            requests that a handler has sent to its peer, until they are answered
//!   replies          answers that are made elsewhere, in the order of their requests
//!   typed            handlers of values: a codec between them and the packets
//!   handler          the contract with your code: Handler, Context, Action, Info
//!   peer_cx          what a peer borrows while it is worked on
//!   profile          what stays the same while a listener or a connector runs
//!   connector_handle what other threads and callbacks may ask of a connector
//!   handle           what other threads and callbacks may ask of a reactor
//!   every            a timer of a reactor's own, as its owner holds it
//!   directory        listeners by name, and the commands to each reactor
//!   phases           what a reactor asks of a listener, one method per phase
//!   loop_state       what all phases share: the time, the timers, the buffers
//!   admission        how many connections a listener has, and on which shard
//!   simulated        the network between the nodes of a simulation
//!   resolver         looks up names away from the reactor's thread
//!   dial_requests    dials that handlers ask for, on their way to a connector
//!   pairs            connections that are partners, and what they have for each other
//!   dialer           how a connection is opened, and what became of an attempt
//!   acceptor         the listening socket, and what its errors mean
//!   opening          a connection before it has a handler: its PROXY header is read
//!   stream           what a peer reads from and writes to
//!   poller           where events come from: the system, or a simulated network
//!   options          every limit, with its unit, its default and its check
//!   token            the 64 bits that the kernel stores with each socket
//!   system           what the system allows this process
//!   group            one message or one packet for many connections
//!   connector_state  how far a connector has come, as any thread reads it
//!   status           what handles report of one listener, also after its end
//!   drain            waits for a drain, and reports its result
//!   address          where any thread sends messages for one connection
//!   mailbox          messages from any thread, and how they wake the reactor
//!   loop_metrics     histograms of the turns
//!   stats            counters
//!   logging          at most one line per second and cause
//!   time_budget      how long a turn, a phase and a connection's slice may take
//!   clock            where a reactor gets the time from
//!   race             in which order the addresses of a dial are tried, and when
//!   error            errors of options and of the environment
//!   identity         the name of a connection, and the endpoint of its peer
//!   proxy            the PROXY protocol: who the client of a proxy is
//!   ip_network       networks of IP addresses
//!   endpoint         what an end is called: an IP address with a port, or a Unix name
//!   credentials      which process is at the other end of a Unix socket
//!   sync             locks and atomics: the standard library's, or loom's
//!   ---- pure from here on: no socket, no clock, no input or output ----
//!   connection       the state of one connection: input, output, clocks
//!   life             how far a connection has come, and each step it can take
//!   timers           the handlers' own timers
//!   groups           which connections are members of which groups
//!   buffer           bytes that wait
//!   heap_top         makes glibc return freed memory to the system
//!   framing          packets out of bytes, bytes out of packets
//!   reason           why a connection ended, or why a packet or a message failed
//!   wheel            many deadlines, one question: which are due?
//!   pages            a slab that frees the memory of a burst
//!   backoff          how long a connector waits before it dials again
//!   random           random numbers for delays
//!   flags            sets of flags that cannot be mixed
//!   guard            catches the panics of your code
//!   text             keeps text that others wrote on one line
//! ```
//!
//! </details>
//!
//! `ARCHITECTURE.md` in the repository describes each of them, and gives the reasons.
//!
//! [Condor]: https://github.com/sinasamavati/condor
//! [log]: https://docs.rs/log
//! [mio]: https://docs.rs/mio
#![doc(test(attr(deny(warnings))))]
#![forbid(unsafe_code)]
// These lints are for the library alone: examples print, and tests may unwrap.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stdout))]

// From the top down: a module names only modules below it. `tests/house/tidy.rs` checks this order,
// here and in the list above.
#[cfg(feature = "sim")]
pub mod sim;
pub mod testing;
pub mod client;
mod shards;
mod reactor;
mod start;
mod connect;
mod connector;
mod listener;
mod peers;
mod peer;
mod calls;
mod replies;
mod typed;
mod handler;
mod peer_cx;
mod profile;
mod connector_handle;
mod handle;
mod every;
mod directory;
mod phases;
mod loop_state;
mod admission;
#[cfg(feature = "sim")]
mod simulated;
mod resolver;
mod dial_requests;
mod pairs;
mod dialer;
mod acceptor;
mod opening;
mod stream;
mod poller;
mod options;
mod token;
mod system;
mod group;
mod connector_state;
mod status;
mod drain;
mod address;
mod mailbox;
mod loop_metrics;
mod stats;
mod logging;
mod time_budget;
mod clock;
mod race;
mod error;
mod identity;
mod proxy;
mod ip_network;
mod endpoint;
#[cfg(all(feature = "peer-credentials", target_os = "linux"))]
mod credentials;
mod sync;

// Pure from here on: no socket, no clock, no input or output.
mod connection;
mod life;
mod timers;
mod groups;
mod buffer;
mod heap_top;
mod framing;
mod reason;
mod wheel;
mod pages;
mod backoff;
mod random;
mod flags;
mod guard;
mod text;

pub use address::Address;
pub use backoff::{Backoff, Retry};
pub use calls::{CallError, Calls, InOrder};
pub use connector_handle::ConnectorHandle;
pub use connector_state::ConnectorState;
#[cfg(all(feature = "peer-credentials", target_os = "linux"))]
pub use credentials::PeerCredentials;
pub use drain::{Drain, Report, SlowConnection};
pub use endpoint::{Endpoint, EndpointError, UnixName};
pub use error::{AdoptError, DialError, Error, OptionsError, PairError};
pub use every::Every;
pub use framing::{
    Decode, Framer, Framing, FramingProblem, LengthField, Lines, Output, Partial, Raw,
};
pub use group::Group;
pub use handle::{Handle, ListenerHandle};
pub use handler::{
    Accepted, Action, Context, Dialed, Handler, Info, IntoHandler, Packet, PacketWriter, Refusal,
    Written,
};
pub use identity::ConnectionId;
pub use ip_network::{IpNetwork, ParseIpNetworkError};
pub use loop_metrics::{Histogram, LoopStats};
pub use mailbox::{Recipients, SlowMember};
pub use options::{
    ConnectorOptions, Findings, IntoTargets, ListenerOptions, OptionsWarning, ReactorOptions,
};
pub use proxy::{Proxy, ProxyError, ProxyHeader, ProxyVersion, Tlv};
pub use reactor::Reactor;
pub use reason::{
    CloseReason, FrameError, JoinError, MessageError, ReplyError, SendError, TimerError,
};
pub use replies::{Replies, Reply, Ticket};
pub use shards::Shards;
pub use stats::{CloseKind, Stats};
pub use status::ListenerState;
pub use timers::TimerId;
pub use typed::{Codec, Typed, TypedAction, TypedHandler};

/// Modules without a socket, for this crate's own tests, benches and fuzzers. They are not part of
/// the API: anything in here may change in any release.
#[doc(hidden)]
pub mod internals {
    pub use crate::buffer::{Buffer, Pool, Queue};
    pub use crate::framing::{Deframe, Enframe, Prefix, Shape};
    pub use crate::wheel::{Tick, TimerKey, Wheel};
}
