//! Why a connection ended, and why one packet or one message did not go through.
//!
//! Reasons are data: the pure modules give them, the others pass them on. Errors of the environment
//! are in [`error`](crate::error).

use std::io::ErrorKind;

/// Has `{:?}` say what `{}` says, and `{:#?}` show the fields: the standard library prints the error
/// that ends a `main` with the former, and people read it. Every error has it but a
/// [`CloseReason`], which ends no `main`.
macro_rules! debug_as_display {
    ($type:ident $(<$param:ident>)? {
        $($variant:ident $({ $($field:ident),+ })? $(($only:ident))?,)+
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
/// On the way in it condemns one connection and never the reactor: that connection ends with
/// [`CloseReason::PacketTooLarge`] or [`CloseReason::BadFrame`]. On the way out it refuses one
/// packet.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// More bytes than the maximum.
    ///
    /// On the way in it is decided on the header alone, before any payload is kept, so that a peer
    /// cannot make us reserve memory by lying about a length.
    #[error("a packet of {len} bytes exceeds the maximum of {max}")]
    TooLarge {
        /// The payload's length, as announced by the peer or as asked for by the caller.
        len: usize,
        /// The maximum in force.
        max: usize,
    },
    /// Anything else that breaks the framing, in a few words for the log.
    #[error("bad frame: {0}")]
    Bad(&'static str),
}

debug_as_display!(FrameError { TooLarge { len, max }, Bad(what), });

/// Why one packet was not sent. Nothing of it was queued and the connection goes on.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The framing cannot express a packet of this length, or the maximum forbids it, or it would
    /// not fit even an empty queue of [`max_queued`](crate::ListenerOptions::max_queued). Waiting
    /// does not help, and no [`Info::Writable`](crate::Info::Writable) follows.
    #[error("a packet of {len} bytes exceeds the maximum of {max}")]
    TooLarge {
        /// The packet's length in bytes.
        len: usize,
        /// The longest packet that can be sent on this connection.
        max: usize,
    },
    /// The peer reads too slowly: the packet would take the queue past
    /// [`max_queued`](crate::ListenerOptions::max_queued). Wait for
    /// [`Info::Writable`](crate::Info::Writable).
    #[error("{queued} bytes wait for a slow peer, the limit is {max}")]
    Full {
        /// Bytes that wait already.
        queued: usize,
        /// The limit.
        max: usize,
    },
    /// The framer refused the payload.
    #[error("the framer refused the packet: {0}")]
    BadFrame(&'static str),
    /// The connection is ending; nothing more can be sent.
    #[error("the connection is closing")]
    Closing,
}

debug_as_display!(SendError {
    TooLarge { len, max },
    Full { queued, max },
    BadFrame(what),
    Closing,
});

/// Why a message was not accepted. It comes back to the sender, untouched.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError<M> {
    /// The listener's mailbox holds as many messages as it may.
    #[error("the mailbox is full")]
    Full(M),
    /// The connection, its listener or the reactor is known to be gone.
    #[error("the receiver is gone")]
    Gone(M),
}

debug_as_display!(MessageError<M> { Full(message), Gone(message), });

impl<M> MessageError<M> {
    /// The message that could not be delivered.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Gone(message) => message,
        }
    }
}

/// Why a connection ended: what [`terminate`](crate::Handler::terminate) is told, exactly once.
///
/// The first reason wins; nothing that happens after the decision changes it.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The handler stopped because its work was done.
    #[error("normal")]
    Normal,
    /// The peer closed, or shut down its sending side, between two packets.
    #[error("closed by the peer")]
    PeerClosed,
    /// The peer closed inside a packet.
    #[error("closed by the peer inside a packet: {have} bytes of {}", wanted(.want))]
    PeerClosedMidPacket {
        /// Bytes of the packet that had arrived, length prefix included.
        have: usize,
        /// Bytes the whole packet would have had, if its header told.
        want: Option<usize>,
    },
    /// The peer reset the connection.
    #[error("reset by the peer")]
    Reset,
    /// The socket failed.
    #[error("input/output error: {0}")]
    Io(ErrorKind),
    /// A packet stayed incomplete for the packet timeout.
    #[error("packet timeout")]
    PacketTimeout,
    /// The peer sent nothing for the idle timeout.
    #[error("idle timeout")]
    IdleTimeout,
    /// The peer took not one byte for the write-stall timeout while output waited.
    #[error("the peer took no output")]
    WriteStalled,
    /// The peer announced a packet over the maximum.
    #[error("packet of {announced} bytes announced, the maximum is {max}")]
    PacketTooLarge {
        /// The announced length in bytes.
        announced: usize,
        /// The maximum in force.
        max: usize,
    },
    /// An [`Action`](crate::Action) carried a packet that can never be sent: the framing cannot
    /// express it, the maximum forbids it, or it would not fit even an empty queue.
    #[error("answer of {len} bytes, the maximum is {max}")]
    AnswerTooLarge {
        /// The answer's length in bytes.
        len: usize,
        /// The longest answer possible.
        max: usize,
    },
    /// The framing refused the peer's bytes, or the answer.
    #[error("bad frame: {0}")]
    BadFrame(&'static str),
    /// The [`Framer`](crate::Framer) broke its contract: it consumed nothing, more than there was,
    /// or less than its packet.
    #[error("the framer broke its contract")]
    FramerBug,
    /// An [`Action`](crate::Action) would have taken the peer's queue past its limit.
    #[error("the peer reads too slowly")]
    SlowReader,
    /// A callback panicked.
    #[error("the handler panicked")]
    Panicked,
    /// The listener or the reactor drains, or [`Handle::close`](crate::Handle::close) asked.
    #[error("shutdown")]
    Shutdown,
    /// The drain deadline passed, or the reactor was dropped.
    #[error("ended at the drain deadline")]
    DrainForced,
    /// The handler's own reason.
    #[error("{0}")]
    Custom(&'static str),
}

fn wanted(want: &Option<usize>) -> String {
    want.map_or_else(|| String::from("an unknown number"), |want| want.to_string())
}

impl From<FrameError> for CloseReason {
    /// The reason for which a connection ends whose *input* the framing refused.
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { len, max } => Self::PacketTooLarge { announced: len, max },
            FrameError::Bad(what) => Self::BadFrame(what),
        }
    }
}

impl From<SendError> for CloseReason {
    /// The reason for which a connection ends whose answer, given as an
    /// [`Action`](crate::Action), could not be sent.
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLarge { len, max } => Self::AnswerTooLarge { len, max },
            SendError::Full { .. } => Self::SlowReader,
            SendError::BadFrame(what) => Self::BadFrame(what),
            SendError::Closing => Self::Normal,
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
