//! Why a connection ended, and why one packet or one message was refused.
//!
//! Reasons are data: the pure modules return them, and the other modules pass them on. Errors of
//! the environment are in [`error`](crate::error).

use std::io::ErrorKind;

/// Makes `{:?}` print what `{}` prints, and `{:#?}` print the fields.
///
/// When an error ends `main`, the standard library prints it with `{:?}`, and users read that text.
/// Every error uses this macro except [`CloseReason`], which does not end `main`.
macro_rules! debug_as_display {
    ($type:ident $(<$param:ident>)? {
        $($variant:ident $({ $($field:ident),+ })? $(($only:ident))?),+ $(,)?
    }) => {
        impl $(<$param: std::fmt::Debug>)? std::fmt::Debug for $type $(<$param>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                if !f.alternate() {
                    return std::fmt::Display::fmt(self, f);
                }
                match self {
                    $(Self::$variant $({ $($field),+ })? $(($only))? => {
                        $crate::reason::debug_as_display!(
                            @fields f $variant $({ $($field),+ })? $(($only))?
                        )
                    })+
                }
            }
        }
    };
    (@fields $f:ident $variant:ident) => {
        $f.write_str(stringify!($variant))
    };
    (@fields $f:ident $variant:ident ($only:ident)) => {
        $f.debug_tuple(stringify!($variant)).field($only).finish()
    };
    (@fields $f:ident $variant:ident { $($field:ident),+ }) => {
        $f.debug_struct(stringify!($variant))$(.field(stringify!($field), $field))+.finish()
    };
}

pub(crate) use debug_as_display;

/// Bytes that can never become a packet, or a payload that can never become a frame.
///
/// On input it ends one connection, with [`CloseReason::PacketTooLarge`] or
/// [`CloseReason::BadFrame`], and never the reactor. On output it refuses one packet.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The packet has more bytes than the maximum.
    ///
    /// On input the header alone decides this, before any payload is buffered. So a peer cannot
    /// make the server reserve memory by announcing a false length.
    #[error("a packet of {len} bytes exceeds the maximum of {max}")]
    TooLarge {
        /// The payload's length in bytes, as announced by the peer or as given by the caller.
        len: usize,
        /// The maximum in force, in bytes.
        max: usize,
    },
    /// Any other violation of the framing. The text, a few words long, goes to the log.
    #[error("bad frame: {0}")]
    Bad(&'static str),
}

debug_as_display!(FrameError { TooLarge { len, max }, Bad(what), });

/// Why [`Context::send`](crate::Context::send) refused a packet. No byte of it is queued, and the
/// connection goes on.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The packet can never be sent. Its length is above the maximum or above what the framing can
    /// express, or its frame would not fit even an empty queue of
    /// [`max_queued`](crate::ListenerOptions::max_queued) bytes.
    ///
    /// Waiting does not help, and no [`Info::Writable`](crate::Info::Writable) follows.
    #[error("a packet of {len} bytes exceeds the maximum of {max}")]
    TooLarge {
        /// The packet's length in bytes.
        len: usize,
        /// The longest packet in bytes that can be sent on this connection.
        max: usize,
    },
    /// The peer reads too slowly: with this packet the queue would exceed
    /// [`max_queued`](crate::ListenerOptions::max_queued).
    ///
    /// [`Info::Writable`](crate::Info::Writable) follows when the queue has space. Send the packet
    /// again then.
    #[error("{queued} bytes wait for a slow peer, the limit is {max}")]
    Full {
        /// Bytes that are queued already.
        queued: usize,
        /// The limit, `max_queued`, in bytes.
        max: usize,
    },
    /// The framing refused the payload, for the reason given.
    #[error("the framer refused the packet: {0}")]
    BadFrame(&'static str),
    /// The connection is ending, or [`end_output`](crate::Context::end_output) came before. No
    /// further packet can be sent.
    #[error("the connection is closing")]
    Closing,
}

debug_as_display!(SendError {
    TooLarge { len, max },
    Full { queued, max },
    BadFrame(what),
    Closing,
});

/// Why a message was refused. The error gives the message back to the sender, unchanged.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError<M> {
    /// The listener's mailbox is full: it holds
    /// [`mailbox_capacity`](crate::ListenerOptions::mailbox_capacity) messages.
    #[error("the mailbox is full")]
    Full(M),
    /// The connection, its listener or the reactor is known to have ended.
    #[error("the receiver is gone")]
    Gone(M),
}

debug_as_display!(MessageError<M> { Full(message), Gone(message), });

impl<M> MessageError<M> {
    /// The same error with what `change` makes of the message.
    pub(crate) fn map<N>(self, change: impl FnOnce(M) -> N) -> MessageError<N> {
        match self {
            Self::Full(message) => MessageError::Full(change(message)),
            Self::Gone(message) => MessageError::Gone(change(message)),
        }
    }

    /// The message that was refused.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Gone(message) => message,
        }
    }
}

/// Why [`Context::join`](crate::Context::join) made no member of the connection.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The group is for the connections of another listener.
    #[error("the group is for the connections of another listener")]
    OtherListener,
    /// The connection is in [`max_groups`](crate::ListenerOptions::max_groups) groups.
    #[error("the connection is in {max} groups, which is the maximum")]
    Full {
        /// The maximum: `max_groups`.
        max: usize,
    },
}

debug_as_display!(JoinError { OtherListener, Full { max }, });

/// Why [`Context::send_after`](crate::Context::send_after) refused a timer. The error gives the
/// message back, unchanged.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimerError<M> {
    /// The connection has [`max_timers`](crate::ListenerOptions::max_timers) timers.
    #[error("the connection has {max} timers, which is the maximum")]
    Full {
        /// The message that was refused.
        message: M,
        /// The maximum: `max_timers`.
        max: usize,
    },
}

debug_as_display!(TimerError<M> { Full { message, max }, });

impl<M> TimerError<M> {
    /// The message that was refused.
    pub fn into_message(self) -> M {
        match self {
            Self::Full { message, .. } => message,
        }
    }
}

/// Why [`Replies`](crate::Replies) took no request, or cannot send an answer.
///
/// With `?` it ends the connection: `Send` as the [`SendError`] in it does, and each of the others
/// with a [`CloseReason::Custom`] that says what happened.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// As many requests as allowed have no answer yet.
    #[error("{max} requests wait for their answers, which is the maximum")]
    Full {
        /// The maximum, as given to [`Replies::new`](crate::Replies::new).
        max: usize,
    },
    /// The ticket was not made by this `Replies`.
    #[error("the answer belongs to no open request of this connection")]
    Unknown,
    /// The ticket of a request was dropped without an answer, for example by a panic of a worker.
    #[error("a request got no answer: its ticket was dropped")]
    Lost,
    /// An answer can never be sent.
    #[error(transparent)]
    Send(SendError),
}

debug_as_display!(ReplyError { Full { max }, Unknown, Lost, Send(error), });

/// Why a connection ended. [`terminate`](crate::Handler::terminate) gets it, exactly once.
///
/// By cause:
///
/// - The handler: [`Normal`](Self::Normal), [`Custom`](Self::Custom), [`Code`](Self::Code),
///   [`Panicked`](Self::Panicked).
/// - The peer or the network: [`PeerClosed`](Self::PeerClosed),
///   [`PeerClosedMidPacket`](Self::PeerClosedMidPacket), [`Reset`](Self::Reset), [`Io`](Self::Io).
/// - A timeout: [`PacketTimeout`](Self::PacketTimeout), [`IdleTimeout`](Self::IdleTimeout),
///   [`SilenceTimeout`](Self::SilenceTimeout), [`WriteStalled`](Self::WriteStalled),
///   [`HalfCloseTimeout`](Self::HalfCloseTimeout).
/// - A packet that was received: [`PacketTooLarge`](Self::PacketTooLarge),
///   [`BadFrame`](Self::BadFrame), [`FramerBug`](Self::FramerBug).
/// - A packet to be sent: [`AnswerTooLarge`](Self::AnswerTooLarge), [`BadFrame`](Self::BadFrame),
///   [`SlowReader`](Self::SlowReader).
/// - The operator: [`Shutdown`](Self::Shutdown), [`DrainForced`](Self::DrainForced).
/// - The other connection of a pair: [`PartnerEnded`](Self::PartnerEnded).
///
/// If there are several reasons, the first stands. Later events do not change it. A handler may
/// give any of these reasons in an [`Action`](crate::Action); [`Custom`](Self::Custom) and
/// [`Code`](Self::Code) are for its own. [`Stats::closed`](crate::Stats::closed) counts each kind of
/// reason.
///
/// Queued output is still sent, for at most the
/// [close timeout](crate::ListenerOptions::close_timeout). After `Reset`, `Io`, `SlowReader`,
/// `SilenceTimeout`, `WriteStalled` and `DrainForced` it is dropped.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The handler stopped because its work was done.
    #[error("normal")]
    Normal,
    /// The peer closed the connection, or shut down its sending half, between two packets. The
    /// handler did not go on after [`Info::EndOfInput`](crate::Info::EndOfInput), or it ended its
    /// own half, too.
    #[error("closed by the peer")]
    PeerClosed,
    /// The peer closed the connection, or shut down its sending half, inside a packet.
    #[error("closed by the peer inside a packet: {have} bytes of {}", wanted(.want))]
    PeerClosedMidPacket {
        /// Bytes of the packet that have arrived, length prefix included.
        have: usize,
        /// Bytes of the whole packet, length prefix included, if they are known from its header.
        want: Option<usize>,
    },
    /// The peer reset the connection.
    #[error("reset by the peer")]
    Reset,
    /// The socket failed.
    #[error("input/output error: {0}")]
    Io(ErrorKind),
    /// A packet stayed incomplete for the
    /// [packet timeout](crate::ListenerOptions::packet_timeout). Or no packet came within the
    /// [first-packet timeout](crate::ListenerOptions::first_packet_timeout), or within the time of
    /// [`expect_within`](crate::Context::expect_within).
    #[error(
        "no whole packet came in time, by packet_timeout, first_packet_timeout or expect_within"
    )]
    PacketTimeout,
    /// The peer sent no byte for the [idle timeout](crate::ListenerOptions::idle_timeout).
    #[error("the peer sent no byte for idle_timeout")]
    IdleTimeout,
    /// The peer sent no byte for the [silence timeout](crate::ListenerOptions::silence_timeout).
    /// Output that it has not taken is dropped.
    #[error("the peer sent no byte for silence_timeout")]
    SilenceTimeout,
    /// Output was queued, and the peer took no byte of it for the
    /// [write-stall timeout](crate::ListenerOptions::write_stall_timeout).
    ///
    /// The peer is stuck, or it sends all its requests before it reads any answer. In the second case
    /// more than [`write_high_water`](crate::ListenerOptions::write_high_water) bytes of answers are
    /// queued, so the connection is not read, and the peer waits as well. Two options help such a
    /// peer. Raise [`write_stall_timeout`](crate::ListenerOptions::write_stall_timeout) if it reads
    /// later. Raise `write_high_water`, and with it
    /// [`max_queued`](crate::ListenerOptions::max_queued), to the length of all answers if it reads
    /// only after its last request.
    #[error(
        "the peer took no output for write_stall_timeout; raise it, or raise write_high_water and \
         max_queued"
    )]
    WriteStalled,
    /// The peer sends no more, and the handler went on to answer. Then the kernel took no byte of
    /// output for the [half-close timeout](crate::ListenerOptions::half_close_timeout).
    #[error("no answer left for half_close_timeout after the peer had ended its half")]
    HalfCloseTimeout,
    /// The peer announced a packet above the maximum.
    #[error("a packet of {announced} bytes was announced, max_packet is {max}")]
    PacketTooLarge {
        /// The announced length in bytes.
        announced: usize,
        /// The maximum in force, in bytes.
        max: usize,
    },
    /// An [`Action`](crate::Action) had a packet that can never be sent. See
    /// [`SendError::TooLarge`].
    #[error("answer of {len} bytes, the maximum is {max}")]
    AnswerTooLarge {
        /// The answer's length in bytes.
        len: usize,
        /// The longest answer possible, in bytes.
        max: usize,
    },
    /// The framing refused the peer's bytes, or the packet of an [`Action`](crate::Action).
    #[error("bad frame: {0}")]
    BadFrame(&'static str),
    /// The [`Framer`](crate::Framer) broke its contract. It returned a frame of 0 bytes, a frame
    /// longer than the input, or a packet that does not lie inside its frame.
    #[error("the framer broke its contract")]
    FramerBug,
    /// The peer reads too slowly: with the packet of an [`Action`](crate::Action) its queue would
    /// exceed [`max_queued`](crate::ListenerOptions::max_queued). Or it is a member of a group that
    /// [disconnects](crate::SlowMember::Disconnect) slow members, and its queue is above
    /// [`write_high_water`](crate::ListenerOptions::write_high_water).
    #[error(
        "the peer reads too slowly: its output would exceed max_queued, or is over \
         write_high_water in a group; raise max_queued or write_high_water"
    )]
    SlowReader,
    /// A callback panicked.
    #[error("the handler panicked")]
    Panicked,
    /// The listener or the reactor drains, or [`Handle::close`](crate::Handle::close) was called.
    #[error("shutdown")]
    Shutdown,
    /// The [drain deadline](crate::ListenerOptions::drain_timeout) passed, or the reactor was
    /// dropped.
    #[error("ended at the drain deadline")]
    DrainForced,
    /// The connection's [partner](crate::Context::pair) has ended. What was queued is sent before.
    #[error("its partner has ended")]
    PartnerEnded,
    /// The handler's own reason, as a text.
    #[error("{0}")]
    Custom(&'static str),
    /// The handler's own reason, as a number. Only the handler knows what it means.
    ///
    /// [`Stats::closed`](crate::Stats::closed) counts all numbers together. The log has the number.
    #[error("code {0}")]
    Code(u32),
}

// Each callback moves one in its `Action`.
const _: () = assert!(size_of::<CloseReason>() <= 24);

fn wanted(want: &Option<usize>) -> String {
    want.map_or_else(|| String::from("an unknown number"), |want| want.to_string())
}

impl From<FrameError> for CloseReason {
    /// The reason of the end if the framing refused the connection's *input*.
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { len, max } => Self::PacketTooLarge { announced: len, max },
            FrameError::Bad(what) => Self::BadFrame(what),
        }
    }
}

impl From<SendError> for CloseReason {
    /// The reason of the end if the packet of an [`Action`](crate::Action) could not be sent.
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLarge { len, max } => Self::AnswerTooLarge { len, max },
            SendError::Full { .. } => Self::SlowReader,
            SendError::BadFrame(what) => Self::BadFrame(what),
            SendError::Closing => Self::Normal,
        }
    }
}

impl<M> From<TimerError<M>> for CloseReason {
    /// The reason of the end if a handler cannot go on without a timer.
    fn from(error: TimerError<M>) -> Self {
        match error {
            TimerError::Full { .. } => Self::Custom("too many timers"),
        }
    }
}

impl From<JoinError> for CloseReason {
    /// The reason of the end if a handler cannot go on without the group.
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::OtherListener => Self::Custom("a group of another listener"),
            JoinError::Full { .. } => Self::Custom("in too many groups"),
        }
    }
}

impl From<ReplyError> for CloseReason {
    /// The reason of the end if a handler cannot go on without the answer.
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::Full { .. } => Self::Custom("too many requests at the same time"),
            ReplyError::Unknown => Self::Custom("an answer to no request"),
            ReplyError::Lost => Self::Custom("a request got no answer"),
            ReplyError::Send(error) => error.into(),
        }
    }
}

impl From<FrameError> for SendError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { len, max } => Self::TooLarge { len, max },
            FrameError::Bad(what) => Self::BadFrame(what),
        }
    }
}
