//! A listening Unix socket: how it takes its path, and how it gives it back.
//!
//! - *Mode.* The socket has its mode before it has a name, so no moment lets in more than was asked
//!   for. `bind` takes bits away by the umask, so the mode is set again on the path. No client can
//!   connect before `listen`.
//! - *Stale.* A process that was killed leaves its socket. A socket that refuses a connection is
//!   stale, and is replaced: the new one gets a name beside it, and is renamed over it. A socket
//!   that answers is in use, and a file of any other kind is never touched.
//! - *Lock.* Two processes that start at the same time would both find the socket stale, and the
//!   second one would replace that of the first. So the directory is locked until the socket listens:
//!   before that it refuses connections, as a stale one does.
//! - *End.* The path is removed if it is still this socket's.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use mio::net::UnixListener;
use socket2::{Domain, SockAddr, Socket, Type};

use super::configure::prepare;
use super::descriptor;
use crate::endpoint::UnixName;
use crate::logging::say;
use crate::options::ListenerOptions;

/// How often to try to lock a directory, a millisecond after the other. Another start has the lock for
/// the time of a few system calls.
const TRIES: u32 = 1_000;

/// The path of a listening socket. The drop removes it.
#[derive(Debug)]
pub(super) struct OwnPath {
    /// The listener's name, for the log.
    listener: String,
    path: PathBuf,
    /// The device and the inode, which tell it from a file that has taken its place.
    identity: (u64, u64),
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            let (name, path) = (&self.listener, self.path.display());
            say!(Warn, "listener \"{name}\": cannot remove {path}: {error}; the next start does");
        }
    }
}

/// Listens under this name, for a listener.
pub(super) fn listen(
    listener: &str,
    name: &UnixName,
    options: &ListenerOptions,
    backlog: i32,
) -> io::Result<(UnixListener, Option<OwnPath>)> {
    let mode = options.unix_mode;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    prepare(socket.as_fd(), &options.connection)?;
    let own = match name.as_pathname() {
        Some(path) => {
            let socket_file = File::from(OwnedFd::from(socket.try_clone()?));
            socket_file.set_permissions(Permissions::from_mode(mode))?;
            let path = std::path::absolute(path)?;
            let identity = take(&path, &name.to_kernel()?, &socket, mode, backlog)?;
            Some(OwnPath { listener: listener.to_owned(), path, identity })
        }
        None => {
            socket.bind(&name.to_kernel()?)?;
            socket.listen(backlog)?;
            None
        }
    };
    Ok((UnixListener::from_std(OwnedFd::from(socket).into()), own))
}

/// Listens at a path that is free or has a stale socket. Returns what tells it from others.
fn take(
    path: &Path,
    addr: &SockAddr,
    socket: &Socket,
    mode: u32,
    backlog: i32,
) -> io::Result<(u64, u64)> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let _lock = lock(directory)?;
    let stale = is_stale(path, addr)?;
    let bound = if stale { beside(directory) } else { path.to_owned() };
    // A relative path may be short enough where the absolute one is not.
    let beside = if stale { Some(SockAddr::unix(&bound)?) } else { None };
    socket.bind(beside.as_ref().unwrap_or(addr))?;
    let own = identity(&bound)?;
    let named = fs::set_permissions(&bound, Permissions::from_mode(mode))
        .and_then(|()| socket.listen(backlog))
        .and_then(|()| if stale { fs::rename(&bound, path) } else { Ok(()) });
    if named.is_err() && identity(&bound).is_ok_and(|found| found == own) {
        // It is of no use.
        let _ = fs::remove_file(&bound);
    }
    named.map(|()| own)
}

/// Whether there is a stale socket at the path. An error if there is anything else.
fn is_stale(path: &Path, addr: &SockAddr) -> io::Result<bool> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        let kind =
            if kind.is_symlink() { "a symbolic link" } else { descriptor::kind_of_file(&kind) };
        let text =
            format!("there is {kind}, which is not touched; remove it, or take another path");
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(addr) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        // It answers, its backlog is full, or it is of another type.
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

/// A short name that no other start in this directory uses.
fn beside(directory: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    directory.join(format!(".{:x}-{count:x}", process::id()))
}

/// Locks a directory against other starts.
fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    let text = format!("another process keeps {} locked", directory.display());
    Err(io::Error::new(ErrorKind::WouldBlock, text))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}
