//! Why a call was refused.

use crate::reason::{CloseReason, debug_as_display};

/// Why [`Calls`](crate::Calls) refused a call. The error gives its value back, and nothing else has
/// changed.
#[derive(Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<T> {
    /// As many calls as allowed have no answer yet.
    #[error("{max} calls wait for their answers, which is the maximum")]
    Full {
        /// The value of the call that was refused.
        value: T,
        /// The maximum, as given to [`Calls::in_order`](crate::Calls::in_order) or
        /// [`Calls::by_key`](crate::Calls::by_key).
        max: usize,
    },
    /// A call with the same key has no answer yet.
    #[error("a call with the same key waits for its answer")]
    KeyInUse {
        /// The value of the call that was refused.
        value: T,
    },
}

debug_as_display!(CallError<T> { Full { value, max }, KeyInUse { value }, });

impl<T> CallError<T> {
    /// The value of the call that was refused.
    pub fn into_value(self) -> T {
        match self {
            Self::Full { value, .. } | Self::KeyInUse { value } => value,
        }
    }
}

impl<T> From<CallError<T>> for CloseReason {
    /// The reason of the end if a handler cannot go on without the call.
    fn from(error: CallError<T>) -> Self {
        match error {
            CallError::Full { .. } => Self::Custom("too many calls at the same time"),
            CallError::KeyInUse { .. } => Self::Custom("two calls with one key"),
        }
    }
}
