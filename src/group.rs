//! A group of connections, for one message or one packet to all of them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::groups::GroupId;
use crate::mailbox::{Mailbox, Parcel, Recipients, SlowMember};
use crate::reason::MessageError;
use crate::sync::Arc;

/// The next group of this process. The groups of all connections have the number 0.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A set of connections of one listener, on any shard. A message or a packet to it costs one entry in
/// the mailbox of each shard, however many members there are.
///
/// [`ListenerHandle::group`](crate::ListenerHandle::group) and
/// [`Context::group`](crate::Context::group) make one. It is cheap to clone, and any thread may send
/// to it. A connection [joins](crate::Context::join) and [leaves](crate::Context::leave) in its own
/// callbacks. A member that ends leaves by itself.
///
/// # Who gets what
///
/// - The members of a shard are those at the moment when the shard begins to deliver the entry. A
///   connection that joins later does not get it. A member that leaves or ends before its turn does not
///   get it either.
/// - A delivery to many members may take several turns, within the budgets of messages and of time.
/// - What one thread sends arrives at each member in the order in which it was sent. What a member's
///   own handler sends goes out when the callback returns. What the same callback sends to the group
///   comes after that, because it goes through the mailbox.
/// - A member whose peer has shut down its sending half still gets everything. One that has called
///   [`end_output`](crate::Context::end_output) gets no packets.
///
/// # Examples
///
/// A chat. Each line of a client goes to all clients:
///
/// ```
/// use condor::testing::Harness;
/// use condor::{Action, Context, Group, Handler, ListenerOptions, Lines};
/// use std::sync::OnceLock;
///
/// static ROOM: OnceLock<Group<()>> = OnceLock::new();
///
/// struct Client;
///
/// impl Handler for Client {
///     type Message = ();
///
///     fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
///         let room = ROOM.get_or_init(|| ctx.group());
///         ctx.join(room).into()
///     }
///
///     fn handle_packet<'a>(&'a mut self, line: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
///         let room = ROOM.get().expect("made in init");
///         match room.send_packet(line.to_vec()) {
///             Ok(()) => Action::Continue,
///             Err(_) => Action::send("try again later"),
///         }
///     }
/// }
///
/// let options = ListenerOptions::port(5555).framing(Lines::new(1_000));
/// let ann = Harness::new(options, |_| Client);
/// let bob = ann.connect();
/// ann.packet("hello");
/// assert_eq!((ann.packets(), bob.packets()), (vec![b"hello".to_vec()], vec![b"hello".to_vec()]));
/// ```
pub struct Group<M> {
    id: GroupId,
    slow: SlowMember,
    mailboxes: Arc<[Arc<Mailbox<M>>]>,
}

impl<M> Group<M> {
    /// A group without members.
    pub(crate) fn new(mailboxes: &Arc<[Arc<Mailbox<M>>]>) -> Self {
        Self {
            id: GroupId(NEXT.fetch_add(1, Ordering::Relaxed)),
            slow: SlowMember::default(),
            mailboxes: Arc::clone(mailboxes),
        }
    }

    /// What happens to a member that reads too slowly when [`send_packet`](Self::send_packet) has a
    /// packet for it. Default: [`SlowMember::Disconnect`]. It applies to what is sent by this value and
    /// by its later clones.
    #[must_use = "it returns the group"]
    pub fn slow_member(mut self, slow: SlowMember) -> Self {
        self.slow = slow;
        self
    }

    /// Sends a clone of `message` to every member. Its handler gets it as
    /// [`Info::Message`](crate::Info::Message).
    ///
    /// The caller's thread makes one clone for each further shard. The thread of each shard makes the
    /// clones for its members. Messages that wait together are delivered to one member after the
    /// other.
    ///
    /// # Errors
    ///
    /// Each error gives the message back, and then no member gets it.
    ///
    /// - [`MessageError::Full`]: the mailbox of a shard is full. A handler may wait for room with
    ///   [`Context::notify_when_ready`](crate::Context::notify_when_ready).
    /// - [`MessageError::Gone`]: the listener has ended on all shards.
    pub fn send(&self, message: M) -> Result<(), MessageError<M>>
    where
        M: Clone,
    {
        send(&self.mailboxes, self.id, message)
    }

    /// Sends `bytes` to the peer of every member as one packet, without calling its handler.
    ///
    /// The frame is made once for all members with the listener's framing, and once for all that share
    /// a clone of one [`Framing`](crate::Framing) of their own, for up to eight of those. A packet of
    /// 32 KiB or more is not copied for a member, as with [`Packet::Shared`](crate::Packet::Shared). A
    /// member whose framing refuses the packet, or whose whole queue is too small for it, does not get
    /// it, and [`Stats::refused_sends`](crate::Stats::refused_sends) counts it.
    /// [`slow_member`](Self::slow_member) says what happens to a member whose output is above its
    /// high-water mark, or whose queue has no room left for the packet.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_packet(&self, bytes: impl Into<Bytes>) -> Result<(), MessageError<Bytes>> {
        let parcel = Parcel::Packet { group: self.id, bytes: bytes.into(), slow: self.slow };
        Mailbox::post_to_all(&self.mailboxes, parcel).map_err(|refused| {
            refused.map(|parcel| match parcel {
                Parcel::Packet { bytes, .. } => bytes,
                _ => Bytes::new(),
            })
        })
    }

    pub(crate) fn id(&self) -> GroupId {
        self.id
    }

    /// Whether it is a group of the listener that this mailbox belongs to.
    pub(crate) fn is_of(&self, mailbox: &Arc<Mailbox<M>>) -> bool {
        self.mailboxes.iter().any(|own| Arc::ptr_eq(own, mailbox))
    }
}

/// Sends a message to every member of a group.
pub(crate) fn send<M: Clone>(
    mailboxes: &[Arc<Mailbox<M>>],
    group: GroupId,
    message: M,
) -> Result<(), MessageError<M>> {
    let parcel = Parcel::Message { group, message, clone: M::clone };
    Mailbox::post_to_all(mailboxes, parcel).map_err(|refused| {
        refused.map(|parcel| match parcel {
            Parcel::Message { message, .. } => message,
            _ => unreachable!("it was a message"),
        })
    })
}

impl<M> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self { id: self.id, slow: self.slow, mailboxes: Arc::clone(&self.mailboxes) }
    }
}

impl<M> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.id.0)
            .field("slow", &self.slow)
            .finish_non_exhaustive()
    }
}

impl<M> PartialEq for Group<M> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<M> Eq for Group<M> {}

impl<M: Send + 'static> From<&Group<M>> for Recipients {
    fn from(group: &Group<M>) -> Self {
        Self::of(&group.mailboxes)
    }
}
