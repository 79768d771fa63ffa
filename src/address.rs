//! The address of one connection: where any thread sends messages for it.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::identity::ConnectionId;
use crate::mailbox::{Envelope, Mailbox, Recipients};
use crate::reason::MessageError;
use crate::sync::Arc;

/// The address of one connection. Any thread sends messages to it. In Erlang's Condor it is a pid.
///
/// [`Context::address`](crate::Context::address) returns it. An address outlives its connection. A
/// message sent after the end of the connection is refused or dropped. It never reaches the next
/// connection in the same slot.
///
/// # Examples
///
/// A function for `handle_packet`. It gives the work to another thread, and the result comes back
/// as a message:
///
/// ```
/// use std::thread;
///
/// use condor::{Action, Context};
///
/// fn work(packet: &[u8], ctx: &mut Context<'_, String>) -> Action<'static> {
///     let (address, request) = (ctx.address(), packet.to_vec());
///     thread::spawn(move || {
///         let result = format!("{} bytes", request.len());
///         // An error means that the result is not needed any more, or that the mailbox is full.
///         // If it must not be lost, or if answers must keep their order, use `Replies`.
///         let _ = address.send(result);
///     });
///     Action::Continue
/// }
/// # struct Works;
/// # impl condor::Handler for Works {
/// #     type Message = String;
/// #     fn handle_packet<'a>(
/// #         &'a mut self,
/// #         packet: &'a [u8],
/// #         ctx: &mut Context<'_, String>,
/// #     ) -> Action<'a> {
/// #         work(packet, ctx)
/// #     }
/// #     fn handle_info<'a>(
/// #         &'a mut self,
/// #         info: condor::Info<'a, String>,
/// #         _: &mut Context<'_, String>,
/// #     ) -> Action<'a> {
/// #         match info {
/// #             condor::Info::Message(result) => Action::send(result),
/// #             other => other.default_action(),
/// #         }
/// #     }
/// # }
/// # let harness = condor::testing::Harness::of(Works);
/// # harness.packet(b"hello");
/// # let mut packets = harness.packets();
/// # while packets.is_empty() {
/// #     thread::yield_now();
/// #     harness.run();
/// #     packets = harness.packets();
/// # }
/// # assert_eq!(packets, [b"5 bytes"]);
/// ```
pub struct Address<M> {
    pub(crate) mailbox: Arc<Mailbox<M>>,
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl<M> Address<M> {
    /// Sends `message` to the connection. Its handler gets it as
    /// [`Info::Message`](crate::Info::Message).
    ///
    /// `Ok` means that the message is in the mailbox. If the connection ends before the delivery,
    /// the message is dropped and counted in
    /// [`Stats::dropped_messages`](crate::Stats::dropped_messages). Messages from one thread to one
    /// connection arrive in order.
    ///
    /// # Errors
    ///
    /// Each error gives the message back.
    ///
    /// - [`MessageError::Full`]: the listener's mailbox holds
    ///   [`mailbox_capacity`](crate::ListenerOptions::mailbox_capacity) messages.
    /// - [`MessageError::Gone`]: the listener or the reactor has ended.
    pub fn send(&self, message: M) -> Result<(), MessageError<M>> {
        self.mailbox.post(self.envelope(message)).map_err(Envelope::give_back)
    }

    /// Calls the handler with [`Info::Wake`](crate::Info::Wake): there is something new in a place
    /// that the caller and the handler share, such as a queue or a newest value. Any thread may call
    /// it, however often. Returns whether the listener still runs.
    ///
    /// The mailbox is never too full for it, and keeps at most one for each connection: all calls
    /// until the handler is called make one `Info::Wake`. A call after that makes another one. So
    /// nothing is missed if the caller changes the place first, and then wakes.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use condor::testing::Harness;
    /// use condor::{Action, Context, Handler, Info};
    ///
    /// /// Sends its client the newest price, and skips those that came in between.
    /// struct Ticker {
    ///     newest: Arc<Mutex<String>>,
    /// }
    ///
    /// impl Handler for Ticker {
    ///     type Message = ();
    /// #   fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #       Action::Continue
    /// #   }
    ///
    ///     fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
    ///         match info {
    ///             Info::Wake => Action::send(self.newest.lock().expect("no panic").clone()),
    ///             other => other.default_action(),
    ///         }
    ///     }
    /// }
    ///
    /// let newest = Arc::new(Mutex::new(String::new()));
    /// let harness = Harness::of(Ticker { newest: Arc::clone(&newest) });
    /// let address = harness.address();
    /// for price in 1..=1_000 {
    ///     *newest.lock().expect("no panic") = price.to_string();
    ///     address.wake();
    /// }
    /// harness.run();
    /// assert_eq!(harness.packets(), [b"1000"]);
    /// ```
    pub fn wake(&self) -> bool {
        self.mailbox.wake(self.key, self.generation)
    }

    /// Sends `message` even if the mailbox is full. Drops it if the listener has ended. The caller
    /// bounds how many such messages there are.
    pub(crate) fn send_anyway(&self, message: M) {
        drop(self.mailbox.post_below(usize::MAX, self.envelope(message)));
    }

    fn envelope(&self, message: M) -> Envelope<M> {
        Envelope::To { key: self.key, generation: self.generation, message }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        ConnectionId { serial: self.mailbox.serial(), key: self.key, generation: self.generation }
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox), key: self.key, generation: self.generation }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.id())
    }
}

impl<M> PartialEq for Address<M> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl<M> Eq for Address<M> {}

impl<M> Hash for Address<M> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.id().hash(state);
    }
}

impl<M: Send + 'static> From<&Address<M>> for Recipients {
    fn from(address: &Address<M>) -> Self {
        Self::of(std::slice::from_ref(&address.mailbox))
    }
}
