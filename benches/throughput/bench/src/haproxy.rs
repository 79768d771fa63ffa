//! HAProxy as a gateway. It is not built here: it takes part if it is installed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// The program: from the path, or where Debian puts it.
pub(crate) fn find() -> Result<PathBuf> {
    for program in ["haproxy", "/usr/sbin/haproxy"] {
        let mut version = Command::new(program);
        version.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if version.status().is_ok_and(|status| status.success()) {
            return Ok(program.into());
        }
    }
    bail!("there is no haproxy: install the package of that name")
}

/// Its arguments: it stays in the foreground.
pub(crate) fn arguments(configuration: &Path) -> [&Path; 3] {
    [Path::new("-db"), Path::new("-f"), configuration]
}

/// One thread, TCP mode, the backlog of all servers, no log, no checks. HAProxy sets TCP_NODELAY
/// itself.
pub(crate) fn configuration(
    listen: SocketAddr,
    backend: SocketAddr,
    max_connections: usize,
) -> String {
    format!(
        "global
    nbthread 1
    maxconn {max_connections}

defaults
    mode tcp
    backlog 1024
    retries 0
    timeout connect 5s
    timeout client 1h
    timeout server 1h

listen gateway
    bind {listen}
    server backend {backend}
"
    )
}

/// An address whose port is free now. HAProxy does not say which port it has.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
