//! Limits on the log: at most one line per second, cause and listener. Also what lines have in
//! common: the texts that name a cure, and a guess at the protocol of a first packet that made no
//! sense. The form of a line is in the documentation of the crate.

use crate::clock::Nanos;
use crate::reason::CloseReason;

/// The cure for a panic.
pub(crate) const PANIC_CURE: &str = "RUST_BACKTRACE=1 shows where";
/// The cure for a slow turn.
pub(crate) const SLOW_TURN_CURE: &str =
    "move slow work to a thread, lower packet_budget, or raise slow_turn";
/// The cure if the kernel refuses to watch a socket.
pub(crate) const WATCH_CURE: &str =
    "raise the sysctl fs.epoll.max_user_watches, or lower max_connections";

/// Logs a line. The logger is the user's code: if it panics, this line is lost, and nothing else.
///
/// It compares the levels itself, because `log_enabled!` asks the logger, too.
macro_rules! say {
    ($level:ident, $($line:tt)+) => {
        if log::Level::$level <= log::STATIC_MAX_LEVEL && log::Level::$level <= log::max_level() {
            let _ = $crate::guard::guarded(|| log::log!(log::Level::$level, $($line)+));
        }
    };
}
pub(crate) use say;

/// Causes of log lines that a peer could repeat at any rate.
#[derive(Debug, Copy, Clone)]
pub(crate) enum Cause {
    Panic,
    FactoryPanic,
    Refused,
    Opening,
    NotTrusted,
    Crowded,
    Uid,
    Dial,
    AcceptPause,
    ConnectionLimit,
    AcceptError,
    RegisterError,
    Nonsense,
    SlowPeer,
    DropPanic,
    SlowTurn,
}

const CAUSES: usize = Cause::SlowTurn as usize + 1;
const PERIOD: u64 = 1_000_000_000;

/// Lets one line per second and cause through.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    /// For each cause, the time in nanoseconds from which on its next line may pass.
    next: [u64; CAUSES],
}

impl LogGate {
    pub(crate) fn opens(&mut self, cause: Cause, now: Nanos) -> bool {
        let next = &mut self.next[cause as usize];
        let opens = now.0 >= *next;
        if opens {
            *next = now.0.saturating_add(PERIOD);
        }
        opens
    }
}

/// The options to change if a first packet that came to nothing for this reason is a good one.
pub(crate) fn cure(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::PacketTooLarge { .. } => "check framing, or raise max_packet",
        CloseReason::PacketTimeout => {
            "check framing, or raise packet_timeout or first_packet_timeout"
        }
        _ => "check framing",
    }
}

/// Says what the first bytes of a connection look like, if they made no sense as a packet.
///
/// A client that speaks another protocol is the most common cause of "packet too large", and the
/// length alone does not show that.
pub(crate) fn resembles(bytes: &[u8]) -> &'static str {
    const METHODS: [&[u8]; 8] =
        [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN"];
    match bytes {
        [0x16, 0x03, ..] => "a TLS hello",
        [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, ..] => "a PROXY protocol header, version 2",
        _ if bytes.starts_with(b"PROXY ") => "a PROXY protocol header, version 1",
        _ if bytes.starts_with(b"SSH-") => "an SSH banner",
        _ if bytes.starts_with(b"PRI * HTTP/2") => "an HTTP/2 preface",
        _ if METHODS.iter().any(|method| bytes.starts_with(method)) => "an HTTP request",
        [0, 0, _, _, ..] => "a four-byte length",
        [low, 0, rest @ ..] if rest.len() <= usize::from(*low) && *low > 0 => {
            "a length in the other byte order"
        }
        _ => "nothing known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_logged_once_a_second() {
        let mut gate = LogGate::default();
        assert!(gate.opens(Cause::Panic, Nanos(5)));
        assert!(!gate.opens(Cause::Panic, Nanos(5 + PERIOD - 1)));
        assert!(gate.opens(Cause::AcceptPause, Nanos(6)), "causes do not hide each other");
        assert!(gate.opens(Cause::Panic, Nanos(5 + PERIOD)));
    }

    #[test]
    fn other_protocols_are_recognised() {
        for (bytes, name) in [
            (&b"GET / HTTP/1.1\r\n"[..], "an HTTP request"),
            (b"\x16\x03\x01\x02\x00\x01", "a TLS hello"),
            (b"\r\n\r\n\x00\r\nQUIT\n", "a PROXY protocol header, version 2"),
            (b"SSH-2.0-OpenSSH", "an SSH banner"),
            (b"\x05\x00hello", "a length in the other byte order"),
            (b"\x00\x00\x00\x05hello", "a four-byte length"),
            (b"\xff\xff", "nothing known"),
        ] {
            assert_eq!(resembles(bytes), name);
        }
    }
}
