//! A minimal library for scalable TCP servers: it accepts connections, cuts their bytes into
//! packets, buffers what a slow peer has not taken, and times out what does not come. You write one
//! small [`Handler`]; its value is the state of one connection, and it answers each packet with an
//! [`Action`]. Underneath is a plain reactor on [mio]: one thread, one `poll`, no async runtime; or
//! one of it per core.
//!
//! It is Erlang's [Condor] as a Rust library, with its names and its defaults: packets behind a
//! two-byte length, ten seconds for each, a hundred connections.
//!
//! # Example
//!
//! A server on 127.0.0.1:5555 that answers `ping` with `pong`, and `stop` with `ok` and the end:
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
//! - **Packets.** [`LengthField`] in all its variations, [`Lines`], [`Raw`], or a [`Framer`] of your
//!   own. Any number of packets a read, cut anywhere by the network; all answers of a turn leave in
//!   one write. [`Context::set_framing`] changes the framing in mid-stream.
//! - **Time.** A packet has ten seconds from its first byte to its last, and later bytes do not
//!   extend them, so a peer that drips bytes cannot hold a slot. Idle and write-stall timeouts, and
//!   [`Context::send_after`] for the handler's own.
//! - **Slow peers.** A peer that does not take its answers is not read until it does. What waits
//!   for it is bounded by [`max_queued`](ListenerOptions::max_queued).
//! - **Messages.** [`Address`] reaches one connection from any thread,
//!   [`ListenerHandle::broadcast`] all of a listener's. Mailboxes are bounded.
//! - **Fairness.** Every turn does a bounded amount for each connection, listener, mailbox and for
//!   the timers; see [`ReactorOptions`].
//! - **The end.** [`Handler::terminate`] is called exactly once for every handler made, with a
//!   typed [`CloseReason`], on every path. A panic ends one connection. The last answers arrive
//!   before the end of the stream does. [`Handle::shutdown`] and [`Handle::stop_listener`] drain:
//!   what had arrived is answered.
//! - **Trouble.** Out of descriptors, reset while being accepted, a port in use: each has a defined
//!   outcome, and a line in the [log] at most once a second. [`Stats`] counts everything, and
//!   [`LoopStats`] has histograms of the turns.
//! - **Tests.** [`testing::Harness`] runs your handler over a scripted stream with a clock that only
//!   the test moves; see [Testing your handler](testing#testing-your-handler).
//!
//! # What it does not do
//!
//! - TLS, UDP, Unix sockets, connecting to other servers from a handler.
//! - Blocking work. All callbacks of a reactor run on one thread, one after the other. Hand long
//!   work to threads of your own: pause reading, answer when the result comes back as a message,
//!   resume. The `offload` example does it.
//! - Windows, and systems that are not 64 bits wide. Linux is tested; other Unix systems are best
//!   effort.
//!
//! Every limit has a default, a unit and a setter in [`ListenerOptions`] or [`ReactorOptions`].
//! [`ListenerOptions::check`] says what contradicts itself or may not be meant, and
//! [`ListenerOptions::worst_case_memory`] what hostile peers can make a listener hold.
//!
//! # Threads, and loops of your own
//!
//! A [`Reactor`] stays on the thread that made it, and so do its handlers, which need not be `Send`.
//! A [`Handle`] is for everybody else: it starts and stops listeners, closes connections and reads
//! counters from any thread and from callbacks. [`Reactor::run`] blocks until a shutdown is done; a
//! program with an event loop of its own watches the reactor's
//! [descriptor](std::os::fd::AsRawFd), asks [`Reactor::next_deadline`] how long it may wait, and
//! calls [`Reactor::turn`]. The `own_loop` example does that.
//!
//! [`Shards`] is one reactor per core behind the same names. A connection lives on one of them, and
//! shares nothing with the others that a packet would touch.
//!
//! # The modules
//!
//! For readers of the source. The order is from the top down: a module names only modules below it.
//!
//! ```text
//!   client       a blocking client for tests, tools and small programs
//!   testing      the reactor over a simulated network, for tests of handlers
//!   shards       one reactor per core
//!   reactor      the turn: polls for events, then runs each phase
//!   start        starts a listener: checks its options, takes its name, listens
//!   listener     one named listener: its connections, and which of them have work to do
//!   peer         one connection: reads and writes its stream, calls its handler
//!   handler      the contract with your code: Handler, Context, Action, Info
//!   peer_cx      what a peer borrows while it is worked on
//!   listener_shared  what stays the same while a listener runs
//!   handle       what other threads and callbacks may ask of a reactor
//!   directory    listeners by name, and the commands to each reactor
//!   phases       what a reactor asks of a listener, one method per phase
//!   loop_state   what all phases share: the time, the timers, the buffers
//!   admission    how many connections a listener has, and on which shard
//!   acceptor     the listening socket, and what its errors mean
//!   stream       what a peer reads from and writes to
//!   poller       where events come from: the system, or a simulated network
//!   options      every limit, with its unit, its default and its check
//!   token        the 64 bits that the kernel stores with each socket
//!   system       what the system allows this process
//!   drain        waits for a drain, and reports its result
//!   mailbox      messages from any thread, and how they wake the reactor
//!   loop_metrics histograms of the turns
//!   stats        counters
//!   logging      at most one line per second and cause
//!   clock        the only module that reads the time
//!   error        errors of options and of the environment
//!   identity     the name of a connection, and the endpoint of its peer
//!   endpoint     what an end is called: an IP address with a port, or a Unix name
//!   guard        catches the panics of your code
//!   sync         locks and atomics: the standard library's, or loom's
//!   ---- pure from here on: no socket, no clock, no input or output ----
//!   connection   the state of one connection: input, output, clocks
//!   life         how far a connection has come, and each step it can take
//!   timers       the handlers' own timers
//!   buffer       bytes that wait
//!   framing      packets out of bytes, bytes out of packets
//!   reason       why a connection ended, or why a packet or a message failed
//!   wheel        many deadlines, one question: which are due?
//!   flags        sets of flags that cannot be mixed
//!   text         keeps text that others wrote on one line
//! ```
//!
//! `ARCHITECTURE.md` in the repository describes each of them, and gives the reasons.
//!
//! [Condor]: https://github.com/sinasamavati/condor
//! [log]: https://docs.rs/log
//! [mio]: https://docs.rs/mio
#![doc(test(attr(deny(warnings))))]
#![forbid(unsafe_code)]
// Of the library alone: examples print, and tests fail.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stdout))]

// From the top down: a module names only modules below it. `tests/house/tidy.rs` checks this order,
// here and in the list above.
pub mod client;
pub mod testing;
mod shards;
mod reactor;
mod start;
mod listener;
mod peer;
mod handler;
mod peer_cx;
mod listener_shared;
mod handle;
mod directory;
mod phases;
mod loop_state;
mod admission;
mod acceptor;
mod stream;
mod poller;
mod options;
mod token;
mod system;
mod drain;
mod mailbox;
mod loop_metrics;
mod stats;
mod logging;
mod clock;
mod error;
mod identity;
mod endpoint;
mod guard;
mod sync;

// Pure from here on: no socket, no clock, no input or output.
mod connection;
mod life;
mod timers;
mod buffer;
mod framing;
mod reason;
mod wheel;
mod flags;
mod text;

pub use drain::{Drain, Report, SlowConnection};
pub use endpoint::{Endpoint, EndpointError, UnixName};
pub use error::{Error, OptionsError};
pub use framing::{Decode, Framer, Framing, FramingProblem, LengthField, Lines, Output, Raw};
pub use handle::{Handle, ListenerHandle};
pub use handler::{Accepted, Action, Context, Handler, Info, Packet};
pub use identity::ConnectionId;
pub use loop_metrics::{Histogram, LoopStats};
pub use mailbox::Address;
pub use options::{Findings, ListenerOptions, OptionsWarning, ReactorOptions};
pub use reactor::Reactor;
pub use reason::{CloseReason, FrameError, MessageError, SendError};
pub use shards::Shards;
pub use stats::{CloseKind, Stats};
pub use timers::TimerId;

/// The modules without a socket, for this crate's own tests, benches and fuzzers. Not part of the
/// API: anything in here may change in any release.
#[doc(hidden)]
pub mod internals {
    pub use crate::buffer::{Buffer, Pool, Queue};
    pub use crate::framing::{Deframe, Enframe, Prefix, Shape};
    pub use crate::wheel::{Tick, TimerKey, Wheel};
}
