//! Testing your handler: without sockets, without sleeping, fault by fault.
//!
//! # Testing your handler
//!
//! A [`Harness`] runs the crate's own reactor over *scripted* streams, with a clock that only your
//! test moves. A handler cannot tell the difference; your test
//! plays the peer, the network and the time.
//!
//! ```
//! use std::time::Duration;
//!
//! use condor::testing::Harness;
//! use condor::{Action, CloseReason, Context, Handler, Info};
//!
//! /// Adds up bytes, and says how many times it has lost patience.
//! #[derive(Default)]
//! struct Adder {
//!     timeouts: u32,
//! }
//!
//! impl Handler for Adder {
//!     type Message = ();
//!
//!     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
//!         let sum: u32 = packet.iter().copied().map(u32::from).sum();
//!         Action::send(sum.to_string())
//!     }
//!
//!     fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
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
//! // Half a packet, and then nothing.
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
//! | the peer | sends bytes as they are, or packets | [`receive`](Harness::receive), [`packet`](Harness::packet) |
//! |---|---|---|
//! | | has got bytes, or packets | [`sent`](Harness::sent), [`packets`](Harness::packets) |
//! | | reads slowly, or not at all | [`peer_reads`](Harness::peer_reads), [`peer_stalls`](Harness::peer_stalls) |
//! | | sends no more, or resets | [`peer_closes`](Harness::peer_closes), [`peer_resets`](Harness::peer_resets) |
//! | the network | cuts what passes | [`max_read`](Harness::max_read), [`max_write`](Harness::max_write) |
//! | | fails at one call, or at random from a seed | [`fail_next_read`](Harness::fail_next_read), [`faults`](Harness::faults) |
//! | time | passes | [`advance`](Harness::advance), [`stall`](Harness::stall) |
//! | threads | send messages | [`message`](Harness::message), [`address`](Harness::address), [`broadcast`](Harness::broadcast) |
//! | the operator | stops the listener | [`drain`](Harness::drain) |
//! | more peers | connect | [`connect`](Harness::connect) |
//! | afterwards | what `terminate` was told, what the handler knows, what is left over | [`closed`](Harness::closed), [`with_handler`](Harness::with_handler), [`leftovers`](Harness::leftovers) |
//!
//! Everything that makes something happen returns when there is nothing left to do but wait: all
//! that could be read was read, all callbacks were made, all that could be written was written.
//! [`arrive`](Harness::arrive) and [`stall`](Harness::stall) are the exceptions; with them several
//! things happen in one turn.
//!
//! ## What it is not
//!
//! There is no socket: what depends on the kernel, as what a reset does to bytes on their way, is
//! not modelled beyond what each method says. A listener that a handler starts by
//! [`Context::handle`](crate::Context::handle) has its name and its address, and no client reaches
//! it. Stopping a listener and shutting down work as they do over sockets.
//!
//! A panic in a callback ends the connection, as ever: an `assert!` inside a handler fails no test,
//! unless the test looks at [`closed`](Harness::closed).

mod faults;
mod harness;
mod network;
mod observations;
mod rig;
mod script;

pub use faults::Faults;
pub use harness::Harness;
pub use rig::Leftovers;
