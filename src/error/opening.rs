//! Why an accepted connection was not opened.

use std::time::Duration;

use crate::proxy::ProxyError;

/// Why an accepted connection has ended before it got a handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpeningError {
    /// It has ended before a byte came, as the health checks of balancers do.
    #[error("it has ended before a byte came")]
    Silent,
    #[error("the PROXY header was not complete within opening_timeout of {0:?}")]
    TimedOut(Duration),
    #[error("a newer connection has taken its place while it was opening")]
    Crowded,
    #[error("its address may not send a PROXY header")]
    NotTrusted,
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("it has ended inside its PROXY header")]
    Cut,
    #[error("the listener drains")]
    Draining,
}

impl OpeningError {
    /// What helps.
    pub(crate) fn cure(&self) -> &'static str {
        match self {
            Self::NotTrusted => "add its network to Proxy::from, or let it connect to another port",
            Self::Proxy(ProxyError::VersionNotAccepted { .. }) => {
                "accept the version by Proxy::versions, or make the proxy send the other one"
            }
            Self::Proxy(ProxyError::TooLong { .. }) => "raise Proxy::max_header",
            Self::Proxy(ProxyError::ChecksumMissing) => {
                "make the proxy send a checksum, or turn Proxy::require_checksum off"
            }
            Self::Proxy(_) => {
                "make the proxy send the header (HAProxy: send-proxy-v2), or do not set proxy"
            }
            Self::TimedOut(_) | Self::Cut => {
                "make the proxy send the whole header, or raise opening_timeout"
            }
            Self::Crowded => "raise max_opening and max_connections, or lower opening_timeout",
            Self::Silent | Self::Draining => "",
        }
    }
}
