//! The target of an event, in the 64 bits that the kernel stores with each socket.
//!
//! ```text
//!   63          32 31        22 21            0
//!   | generation  |  listener  |  connection  |
//! ```
//!
//! The generation belongs to the slot. It identifies an event for an earlier owner of the slot, and
//! such an event is ignored. With the key of the acceptor it is the number of a connection that is
//! opening, or 0 for the acceptor itself.

use mio::Token;

const KEY_BITS: u32 = 22;
const LISTENER_BITS: u32 = 10;
const KEY_MASK: u32 = (1 << KEY_BITS) - 1;

/// The most connections that one listener can hold. The highest key is the acceptor's.
pub(crate) const MAX_CONNECTIONS: usize = KEY_MASK as usize;
/// The most connections that one connector can hold: the upper half of the keys is for its attempts.
pub(crate) const MAX_DIALLED: usize = MAX_CONNECTIONS / 2;
/// The first key of an attempt.
pub(crate) const FIRST_ATTEMPT: u32 = 1 << (KEY_BITS - 1);
/// The most listeners that one reactor can hold. The highest number is the waker's.
pub(crate) const MAX_LISTENERS: usize = (1 << LISTENER_BITS) - 1;

/// The waker's token.
pub(crate) const WAKER: Token = Token(usize::MAX);

const ACCEPTOR: u32 = KEY_MASK;

/// What an event is for.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Waker,
    Acceptor {
        listener: u16,
    },
    /// A connection that has no slot yet.
    Opening {
        listener: u16,
        number: u32,
    },
    Peer {
        listener: u16,
        key: u32,
        generation: u32,
    },
}

pub(crate) fn acceptor(listener: u16) -> Token {
    peer(listener, ACCEPTOR, 0)
}

/// `number` is not 0.
pub(crate) fn opening(listener: u16, number: u32) -> Token {
    peer(listener, ACCEPTOR, number)
}

pub(crate) fn peer(listener: u16, key: u32, generation: u32) -> Token {
    debug_assert!(usize::from(listener) < MAX_LISTENERS && key <= KEY_MASK);
    Token((generation as usize) << 32 | (listener as usize) << KEY_BITS | key as usize)
}

#[expect(clippy::cast_possible_truncation, reason = "it splits a word into its fields")]
pub(crate) fn target(token: Token) -> Target {
    if token == WAKER {
        return Target::Waker;
    }
    let low = token.0 as u32;
    let listener = (low >> KEY_BITS) as u16;
    match (low & KEY_MASK, (token.0 >> 32) as u32) {
        (ACCEPTOR, 0) => Target::Acceptor { listener },
        (ACCEPTOR, number) => Target::Opening { listener, number },
        (key, generation) => Target::Peer { listener, key, generation },
    }
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("condor keeps a generation in each event's token, which takes a 64-bit system");

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no two targets share a token. Method: every target becomes a token and a target again,
    /// at the ends of each range.
    #[test]
    fn tokens_are_distinguished() {
        assert_eq!(target(WAKER), Target::Waker);
        for listener in [0, 1, 1022] {
            assert_eq!(target(acceptor(listener)), Target::Acceptor { listener });
            for number in [1, u32::MAX] {
                assert_eq!(target(opening(listener, number)), Target::Opening { listener, number });
            }
            for key in [0, 1, KEY_MASK - 1] {
                for generation in [0, 1, u32::MAX] {
                    let expected = Target::Peer { listener, key, generation };
                    assert_eq!(target(peer(listener, key, generation)), expected);
                }
            }
        }
    }
}
