//! Tests of your handler without sockets and without sleeping, with faults that the test chooses.
//! For the tests that need sockets, [`serve`] is a server.
//!
//! # Testing your handler
//!
//! A [`Harness`] runs the crate's own reactor over *scripted* streams. Only your test moves the
//! clock. A handler cannot tell the difference. Your test controls the peer, the network and the
//! time.
//!
//! ```
//! use std::time::Duration;
//!
//! use condor::testing::Harness;
//! use condor::{Action, CloseReason, Context, Handler, Info};
//!
//! /// Adds up bytes, and counts the packets that timed out.
//! #[derive(Default)]
//! struct Adder {
//!     timeouts: u32,
//! }
//!
//! impl Handler for Adder {
//!     type Message = ();
//!
//!     fn handle_packet<'a>(
//!         &'a mut self,
//!         packet: &'a [u8],
//!         _ctx: &mut Context<'_, ()>,
//!     ) -> Action<'a> {
//!         let sum: u32 = packet.iter().copied().map(u32::from).sum();
//!         Action::send(sum.to_string())
//!     }
//!
//!     fn handle_info<'a>(
//!         &'a mut self,
//!         info: Info<'a, ()>,
//!         _ctx: &mut Context<'_, ()>,
//!     ) -> Action<'a> {
//!         match info {
//!             Info::Timeout(_) => {
//!                 self.timeouts += 1;
//!                 Action::send_and_stop("too slow", CloseReason::PacketTimeout)
//!             }
//!             other => other.default_action(),
//!         }
//!     }
//! }
//!
//! let harness = Harness::of(Adder::default());
//! harness.packet([1, 2, 3]);
//! assert_eq!(harness.packets(), [b"6"]);
//!
//! // A part of a packet arrives, and then nothing more.
//! harness.receive([0, 3, 1]);
//! harness.advance(Duration::from_millis(9_999));
//! assert_eq!(harness.closed(), None);
//! harness.advance(Duration::from_millis(1));
//! assert_eq!(harness.packets(), [b"too slow"]);
//! assert_eq!(harness.closed(), Some(CloseReason::PacketTimeout));
//! ```
//!
//! ## What a test can do
//!
//! | subject | what it does | method |
//! |---|---|---|
//! | the peer | sends bytes as they are, or packets | [`receive`](Harness::receive), [`packet`](Harness::packet) |
//! | | has received bytes, or packets | [`sent`](Harness::sent), [`packets`](Harness::packets) |
//! | | reads slowly, or not at all | [`peer_reads`](Harness::peer_reads), [`peer_stalls`](Harness::peer_stalls) |
//! | | sends no more, or resets | [`peer_closes`](Harness::peer_closes), [`peer_resets`](Harness::peer_resets) |
//! | the network | limits the bytes of one read or write | [`max_read`](Harness::max_read), [`max_write`](Harness::max_write) |
//! | | fails at one call, or at random from a seed | [`fail_next_read`](Harness::fail_next_read), [`faults`](Harness::faults) |
//! | time | passes | [`advance`](Harness::advance), [`stall`](Harness::stall) |
//! | threads | send messages | [`message`](Harness::message), [`address`](Harness::address), [`broadcast`](Harness::broadcast) |
//! | the operator | stops the listener; [more](#what-an-operator-does) | [`drain`](Harness::drain) |
//! | more peers | connect | [`connect`](Harness::connect) |
//! | afterwards | the reason that `terminate` got, the state of the handler, what the listener still holds | [`closed`](Harness::closed), [`with_handler`](Harness::with_handler), [`leftovers`](Harness::leftovers) |
//!
//! A method that causes an event returns when the reactor can only wait. By then the reactor has
//! read all that it could read, made all callbacks, and written all that it could write.
//! [`arrive`](Harness::arrive) and [`stall`](Harness::stall) are the exceptions: they do not run
//! the reactor, so a test can put several events into one turn.
//!
//! ## What an operator does
//!
//! [`Harness::handle`] and [`Harness::listener`] are the handles of the reactor and of its listener,
//! which is named `testing`. Timers of [`Handle::every`] go by the clock of the test. A timer starts
//! when the reactor next runs:
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::time::Duration;
//!
//! use condor::testing::Harness;
//! # use condor::{Action, Context, Handler, ListenerOptions};
//! # struct Echo;
//! # impl Handler for Echo {
//! #     type Message = ();
//! #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
//! #         Action::send(packet)
//! #     }
//! # }
//!
//! let harness = Harness::new(ListenerOptions::port(5555), |_| Echo);
//! let handle = harness.handle();
//!
//! handle.pause_accepting("testing")?;
//! let waits = harness.connect();
//! assert!(!waits.is_accepted());
//! handle.resume_accepting("testing")?;
//! harness.run();
//! assert!(waits.is_accepted());
//!
//! let ticks = Arc::new(AtomicU32::new(0));
//! let counted = Arc::clone(&ticks);
//! let _timer = handle.every(Duration::from_secs(1), move || {
//!     counted.fetch_add(1, Ordering::Relaxed);
//! })?;
//! harness.run();
//! harness.advance(Duration::from_millis(2_999));
//! assert_eq!(ticks.load(Ordering::Relaxed), 2);
//! # Ok::<(), condor::Error>(())
//! ```
//!
//! [`Drain::wait`](crate::Drain::wait) fails here, because the reactor is on the thread of the test.
//! [`Harness::report`] and [`Drain::report`](crate::Drain::report) do not wait.
//!
//! [`Handle::every`]: crate::Handle::every
//!
//! ## What it is not
//!
//! There is no socket. Some behaviour depends on the kernel, such as what a reset does to bytes in
//! transit. The harness models it only as far as the documentation of each method says.
//!
//! No name is looked up. A connector looks names up by the closure that it was given
//! ([`ConnectorOptions::resolve`](crate::ConnectorOptions::resolve)), on the thread of the test, and
//! without one a dial of a name fails.
//!
//! There are no descriptors either, so [`Handle::adopt`](crate::Handle::adopt) returns an error.
//!
//! A handler can start a listener by [`Context::handle`](crate::Context::handle). That listener has
//! its name and its address, but no client can reach it. Stopping a listener and shutting down work
//! as they do over sockets.
//!
//! A panic in a callback ends the connection, as it does over sockets. So an `assert!` inside a
//! handler fails no test, unless the test looks at [`closed`](Harness::closed).

mod door;
mod faults;
mod harness;
mod network;
mod outward;
mod observations;
mod rig;
mod script;
mod serve;

pub use faults::Faults;
pub use harness::Harness;
pub use outward::{ConnectorHarness, FarEnd};
pub use rig::Leftovers;
pub use serve::{Server, serve};
