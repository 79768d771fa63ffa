//! What a callback answers, and what it sends.

use bytes::Bytes;

use crate::reason::CloseReason;

/// Bytes to send as one packet; the framing adds the length.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Packet<'a> {
    /// Copied into the output at once.
    Borrowed(&'a [u8]),
    /// Copied as well.
    Owned(Vec<u8>),
    /// Shared: from 16 KiB on it is queued without a copy.
    Shared(Bytes),
}

impl Packet<'_> {
    /// The payload.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for Packet<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Packet<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Packet<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a str> for Packet<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl From<Vec<u8>> for Packet<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<String> for Packet<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl From<Bytes> for Packet<'_> {
    fn from(bytes: Bytes) -> Self {
        Self::Shared(bytes)
    }
}

/// What a callback answers.
///
/// Whatever the same callback gave to [`Context::send`](super::Context::send) goes first.
#[derive(Debug)]
#[must_use = "an action does nothing until it is returned from the callback"]
pub enum Action<'a> {
    /// Nothing to say.
    Continue,
    /// Send this packet. If it cannot be sent the connection ends: with
    /// [`CloseReason::AnswerTooLarge`] if it never could be, or with [`CloseReason::SlowReader`] if
    /// the queue is full.
    Send(Packet<'a>),
    /// End the connection, after everything queued was sent.
    Stop(CloseReason),
    /// Send this packet, then end the connection.
    SendAndStop(Packet<'a>, CloseReason),
}

impl<'a> Action<'a> {
    /// Sends `packet`.
    #[inline]
    pub fn send(packet: impl Into<Packet<'a>>) -> Self {
        Self::Send(packet.into())
    }

    /// The packet, if there is nothing to do but to send borrowed bytes.
    ///
    /// The tight loop asks this first: what it gets are two words that need no drop.
    #[inline(always)]
    pub(crate) fn into_borrowed(self) -> Result<&'a [u8], Self> {
        match self {
            Self::Send(Packet::Borrowed(bytes)) => Ok(bytes),
            other => Err(other),
        }
    }

    /// Ends the connection.
    pub fn stop(reason: CloseReason) -> Self {
        Self::Stop(reason)
    }

    /// Sends `packet`, then ends the connection.
    pub fn send_and_stop(packet: impl Into<Packet<'a>>, reason: CloseReason) -> Self {
        Self::SendAndStop(packet.into(), reason)
    }
}
