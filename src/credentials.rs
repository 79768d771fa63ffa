//! Which process is at the other end of a Unix socket, as the kernel tells it.
//!
//! The kernel keeps the credentials with the socket from `connect` on, so a later answer is the same.
//! Therefore they are asked for when they are wanted, and take no memory.

use std::os::fd::AsFd;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt;

/// The process at the other end of a Unix socket, when it connected. Needs the feature
/// `peer-credentials`, and Linux.
///
/// - If the peer has accepted the connection, which this side has dialled, these are the credentials of
///   its process when it began to listen.
/// - Both ends of a pair (`socketpair`) have the credentials of the process that made it.
/// - The descriptor may have gone to another process since, and the process may have ended. So `uid`
///   and `gid` say who was allowed to connect, and `pid` is a hint for a log.
///
/// [`Context::peer_credentials`](crate::Context::peer_credentials) and
/// [`Accepted::peer_credentials`](crate::Accepted::peer_credentials) return it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// The effective user. A user that is unknown in the user namespace of this process has the number
    /// in `/proc/sys/kernel/overflowuid`, by default 65,534.
    pub uid: u32,
    /// The effective group. What is said of `uid` holds for it, too.
    pub gid: u32,
    /// The process. `None` if it is not in the PID namespace of this process: a client on the host of a
    /// server in a container.
    pub pid: Option<u32>,
}

impl PeerCredentials {
    /// What the kernel tells about the peer of a socket. `None` if the socket is not a Unix socket.
    pub(crate) fn of(socket: &impl AsFd) -> Option<Self> {
        let found = getsockopt(socket, sockopt::PeerCredentials).ok()?;
        let (uid, gid) = (found.uid(), found.gid());
        let pid = u32::try_from(found.pid()).ok().filter(|pid| *pid != 0);
        // No user has this number: the kernel gives it to sockets without such a peer.
        (uid != u32::MAX).then_some(Self { uid, gid, pid })
    }
}
