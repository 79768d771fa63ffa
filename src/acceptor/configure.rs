//! Options of sockets: those that the crate sets, and those that a function of the user sets.

use std::io;
use std::os::fd::BorrowedFd;

use socket2::{SockRef, TcpKeepalive};

use crate::guard::guarded;
use crate::options::ConnectionOptions;

/// Calls the user's function for options of sockets, if there is one.
pub(crate) fn prepare(socket: BorrowedFd<'_>, options: &ConnectionOptions) -> io::Result<()> {
    let Some(configure) = options.configure_socket else { return Ok(()) };
    guarded(|| configure(socket))
        .unwrap_or_else(|| Err(io::Error::other("the function of configure_socket panicked")))
}

/// Sets options that a socket can do without. Returns a warning for each one that the system refuses.
pub(crate) fn configure(socket: &SockRef<'_>, options: &ConnectionOptions) -> Vec<String> {
    let mut refused = Vec::new();
    if let Err(error) = socket.set_tcp_nodelay(options.nodelay) {
        refused.push(format!("cannot set nodelay: {error}; allow setsockopt(TCP_NODELAY)"));
    }
    if let Some(idle) = options.keepalive
        && let Err(error) = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))
    {
        let cure = "allow setsockopt(SO_KEEPALIVE), or use idle_timeout";
        refused.push(format!("cannot set keepalive of {idle:?}: {error}; {cure}"));
    }
    refused
}
