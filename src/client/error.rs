//! The errors of a client.

use std::io;
use std::time::Duration;

use crate::reason::{FrameError, debug_as_display};

/// The errors of a [`Client`](crate::client::Client).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No address accepted a connection.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// The last address that was tried, or the text that could not be resolved.
        addr: String,
        /// The system's error.
        source: io::Error,
    },
    /// The server closed the connection, or shut down its sending side, between two packets. If the
    /// client expects no more answers, this is not a failure.
    #[error("closed by the server")]
    Closed,
    /// The server closed the connection inside a packet.
    #[error("closed by the server inside a packet, {have} bytes of which had arrived")]
    ClosedMidPacket {
        /// Bytes of the packet that had arrived, with its header.
        have: usize,
    },
    /// The packet did not arrive, or could not be sent, within the timeout.
    ///
    /// A `receive` loses nothing: the next one continues with the bytes that had arrived.
    #[error("no answer within {after:?}, {have} bytes of one had arrived")]
    Timeout {
        /// The timeout in force.
        after: Duration,
        /// Bytes of the packet that had arrived, with its header; 0 for a `send`.
        have: usize,
    },
    /// The server's bytes can never become a packet, or the packet cannot be sent.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The [`Framer`](crate::Framer) returned a frame that consumes nothing, more bytes than have
    /// arrived, or less than its packet.
    #[error("the framer broke its contract")]
    FramerBug,
    /// An earlier `send` failed, maybe inside a packet. The server would take another packet for
    /// the rest of that one.
    #[error("an earlier packet was not sent, or only in part")]
    Broken,
    /// [`shutdown_write`](crate::client::Client::shutdown_write) was called before.
    #[error("sending was ended before")]
    ShutDown,
    /// The socket failed. Most often the cause is a reset.
    #[error("connection to the server: {0}")]
    Io(#[from] io::Error),
}

debug_as_display!(ClientError {
    Connect { addr, source },
    Closed,
    ClosedMidPacket { have },
    Timeout { after, have },
    Frame(error),
    FramerBug,
    Broken,
    ShutDown,
    Io(error),
});
