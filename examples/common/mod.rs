//! Code that the example servers share: the address to listen on, the log, output to a stdout that
//! may be closed, and signals that drain.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use condor::{Drain, Error, Handle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Parses `HOST:PORT`, where the host is an address or a name. `:PORT` is a port on 127.0.0.1, as
/// with `ListenerOptions::port`.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let addrs = text.to_socket_addrs().map_err(|error| {
        format!("{error}; HOST:PORT is expected, such as 127.0.0.1:5555 or localhost:5555")
    })?;
    // A name may have addresses that this machine lacks. `localhost` is also ::1, even on a machine
    // without IPv6.
    let is_ours = |addr: &SocketAddr| {
        let mut any_port = *addr;
        any_port.set_port(0);
        UdpSocket::bind(any_port).is_ok()
    };
    let addrs: Vec<SocketAddr> = addrs.collect();
    let ours = addrs.iter().find(|addr| is_ours(addr));
    // If this machine has none of the addresses, the listener's error for the first one is the best
    // explanation.
    ours.or_else(|| addrs.first()).copied().ok_or_else(|| String::from("the name has no address"))
}

/// Starts the log on stderr. If `RUST_LOG` is not set, it logs everything from `level` up.
pub(crate) fn start_log(level: &str) {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
}

/// Prints a line to stdout, and ignores errors. If the reader of stdout is gone (`... | head -1`),
/// the server continues, where `println!` would panic.
pub(crate) fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a line to stderr, and ignores errors, as [`say`] does.
pub(crate) fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The program's exit code: 0, or 1 after printing the error.
pub(crate) fn exit_code(program: &str, outcome: Result<(), impl Display>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    complain(format_args!("{program}: {error}"));
    ExitCode::FAILURE
}

/// The first drain that a signal has begun. The lock is held while the drain begins, so a `run` that
/// a signal has ended finds the drain here.
pub(crate) type FirstDrain = Arc<Mutex<Option<Drain>>>;

/// From now on the first SIGINT or SIGTERM drains, and the second one ends every connection at once.
pub(crate) fn drain_on_signals(handle: Handle) -> Result<FirstDrain, Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|source| Error::Poll { what: "listen for signals", source })?;
    let first = FirstDrain::default();
    let shared = Arc::clone(&first);
    thread::spawn(move || {
        let what = ["draining; a second signal ends every connection at once"].into_iter();
        let what = what.chain(std::iter::repeat("ending every connection"));
        for (_signal, what) in signals.forever().zip(what) {
            complain(what); // first, because the program may end at once
            let mut first = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(drain) = handle.shutdown() else { return };
            first.get_or_insert(drain);
        }
    });
    Ok(first)
}
