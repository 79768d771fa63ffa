//! Whether two framings make the same frames.

use std::sync::Arc;

use super::{Framing, Side};

impl Framing {
    /// Whether the other framing certainly makes the same frames. Framings with a `Framer` do so
    /// only if they are clones of one framing.
    pub(crate) fn frames_like(&self, other: &Self) -> bool {
        match (&self.output, &other.output) {
            (Side::Field(own), Side::Field(other)) => own == other,
            (Side::Lines(own), Side::Lines(other)) => own == other,
            (Side::Raw, Side::Raw) => true,
            (Side::Custom(own), Side::Custom(other)) => {
                Arc::ptr_eq(&own.framer, &other.framer) && own.max == other.max
            }
            _ => false,
        }
    }
}
