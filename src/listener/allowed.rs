//! Whether a peer may connect, by the user of its process.

use super::Listener;
use crate::acceptor::Acceptor;
use crate::endpoint::Endpoint;
use crate::handler::Handler;
use crate::logging::{Cause, say};
use crate::loop_state::LoopState;
use crate::stream::Stream;

impl<H: Handler, A: Acceptor> Listener<H, A> {
    /// Whether the peer may connect, by `unix_allow_uids`. If not, this is counted and logged. A Unix peer
    /// without credentials may not.
    #[inline]
    pub(super) fn is_allowed(
        &mut self,
        state: &LoopState,
        stream: &A::Stream,
        peer_addr: &Endpoint,
    ) -> bool {
        let Some(uids) = &self.peers.profile.options.unix_allow_uids else { return true };
        let (uid, over_tcp) = (uid_of(stream), peer_addr.as_inet().is_some());
        if uid.map_or(over_tcp, |uid| uids.contains(&uid)) {
            return true;
        }
        self.refused_uid(state, uid, peer_addr);
        false
    }

    #[cold]
    fn refused_uid(&mut self, state: &LoopState, uid: Option<u32>, peer_addr: &Endpoint) {
        let profile = &self.peers.profile;
        profile.counters.refused_uids.add(1);
        profile.counters.opening_failed.add(1);
        if self.peers.gate.opens(Cause::Uid, state.nanos()) {
            let label = &profile.label;
            match uid {
                Some(uid) => say!(
                    Warn,
                    "{label}: peer {peer_addr}: refused: uid {uid} is not allowed; add it to \
                     unix_allow_uids"
                ),
                None => say!(
                    Warn,
                    "{label}: peer {peer_addr}: refused: the system does not tell its user; leave \
                     unix_allow_uids out"
                ),
            }
        }
    }
}

/// The user of the process at the other end. `None` if the stream is not a Unix socket.
#[cfg(all(feature = "peer-credentials", target_os = "linux"))]
fn uid_of(stream: &impl Stream) -> Option<u32> {
    stream.peer_credentials().map(|peer| peer.uid)
}

/// Without the feature no listener asks.
#[cfg(not(all(feature = "peer-credentials", target_os = "linux")))]
fn uid_of(_: &impl Stream) -> Option<u32> {
    None
}
