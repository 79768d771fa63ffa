//! Errors of pairs.

use crate::reason::{CloseReason, debug_as_display};

/// Why two connections are no pair, or why nothing was forwarded.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The address is the connection's own.
    #[error("a connection cannot be paired with itself")]
    Itself,
    /// One of the two is in a pair already.
    #[error("one of the two connections is in a pair already")]
    Paired,
    /// The other connection is of another reactor, or of another shard. [`Context::dial`] opens
    /// connections on the shard of its caller.
    ///
    /// [`Context::dial`]: crate::Context::dial
    #[error("the other connection is on another reactor or shard; dial it with Context::dial")]
    Elsewhere,
    /// One of the two has ended, or is ending.
    #[error("one of the two connections has ended")]
    Gone,
    /// The connection is in no pair.
    #[error("the connection is in no pair; call Context::pair first")]
    NotPaired,
}

debug_as_display!(PairError { Itself, Paired, Elsewhere, Gone, NotPaired });

impl From<PairError> for CloseReason {
    /// The reason of the end if a handler cannot go on without its partner.
    fn from(error: PairError) -> Self {
        match error {
            PairError::Itself => Self::Custom("a pair of one connection"),
            PairError::Paired => Self::Custom("in a pair already"),
            PairError::Elsewhere => Self::Custom("a partner on another reactor or shard"),
            PairError::Gone => Self::PartnerEnded,
            PairError::NotPaired => Self::Custom("in no pair"),
        }
    }
}
