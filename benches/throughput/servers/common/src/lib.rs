//! The code that the benchmark's servers share: arguments, the listening socket, and the first line
//! of output.
//!
//! Everything here runs before the first connection, except [`whole_frames`].

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of the big-endian length in front of every payload.
pub const PREFIX: usize = 2;
/// The longest frame there is, prefix included.
pub const LONGEST_FRAME: usize = PREFIX + u16::MAX as usize;
/// Connections the kernel may hold for a server that has not accepted them yet.
pub const BACKLOG: i32 = 1024;
/// The packet timeout of the servers that have one.
pub const PACKET_TIMEOUT: Duration = Duration::from_secs(10);

/// The command line of every server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--listen ADDRESS:PORT`
    pub listen: SocketAddr,
    /// `--unix PATH`: where to listen instead, for the servers that can
    pub unix: Option<PathBuf>,
    /// `--max-connections N`
    pub max_connections: usize,
    /// `--mode NAME`: a variant of the server
    pub mode: Option<String>,
    /// `--broadcast`: every packet goes to every connection instead of back to its sender
    pub broadcast: bool,
    /// `--backend ADDRESS:PORT`: where a gateway passes its packets on
    pub backend: Option<SocketAddr>,
}

impl Options {
    /// Reads the command line of this process; a mistake ends it with a message. Also ties its
    /// life to the parent's.
    pub fn from_command_line() -> Self {
        end_with_parent();
        Self::parse(std::env::args().skip(1)).unwrap_or_else(|message| {
            eprintln!("{message}");
            std::process::exit(2)
        })
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            unix: None,
            max_connections: 20_000,
            mode: None,
            broadcast: false,
            backend: None,
        };
        while let Some(word) = words.next() {
            if word == "--broadcast" {
                options.broadcast = true;
                continue;
            }
            let value =
                words.next().ok_or_else(|| format!("{word} is unknown or wants a value"))?;
            let bad = |_| format!("{word} cannot be {value:?}");
            let address =
                || value.parse().map_err(|_| format!("{word} wants ADDRESS:PORT, not {value:?}"));
            match word.as_str() {
                "--listen" => options.listen = address()?,
                "--unix" => options.unix = Some(value.into()),
                "--backend" => options.backend = Some(address()?),
                "--max-connections" => options.max_connections = value.parse().map_err(bad)?,
                "--mode" => options.mode = Some(value),
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        Ok(options)
    }
}

/// Asks the kernel to end this process when the benchmark ends for any cause.
fn end_with_parent() {
    if let Err(error) =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        eprintln!("cannot tie this server's life to the benchmark's: {error}");
    }
}

/// The same listening socket for all: backlog 1024, and TCP_NODELAY, which accepted sockets
/// inherit on Linux.
pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Prints the server's address as the first line on stdout. The driver waits for it.
pub fn announce(address: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {address}")?;
    out.flush()
}

/// How many of these bytes are whole frames.
#[inline]
pub fn whole_frames(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&[high, low]) = bytes.get(at..at + PREFIX) {
        let end = at + PREFIX + usize::from(u16::from_be_bytes([high, low]));
        if end > bytes.len() {
            break;
        }
        at = end;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn arguments_are_read() {
        let line = "--listen 127.0.0.1:99 --max-connections 7 --mode plain --broadcast \
                    --unix /tmp/s --backend 127.0.0.1:98";
        let [listen, backend] = [99, 98].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (max_connections, mode) = (7, Some("plain".to_owned()));
        let (unix, backend) = (Some("/tmp/s".into()), Some(backend));
        let options = Options { listen, unix, max_connections, mode, broadcast: true, backend };
        assert_eq!(parse(line), Ok(options));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("--what ever").unwrap_err().contains("--what"));
        assert!(parse("--listen").unwrap_err().contains("--listen"));
        assert!(parse("--listen nowhere").unwrap_err().contains("nowhere"));
        assert!(parse("--backend nowhere").unwrap_err().contains("--backend"));
    }

    #[test]
    fn whole_frames_stops_before_a_partial_one() {
        assert_eq!(whole_frames(&[]), 0);
        assert_eq!(whole_frames(&[0]), 0);
        assert_eq!(whole_frames(&[0, 0]), 2);
        assert_eq!(whole_frames(&[0, 1]), 0);
        assert_eq!(whole_frames(&[0, 1, 9, 0, 2, 9]), 3);
        assert_eq!(whole_frames(&[0, 1, 9, 0, 2, 9, 9]), 7);
    }
}
