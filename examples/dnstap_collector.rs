//! Collects dnstap over TCP: the queries and answers of a DNS resolver, as Protocol Buffers in
//! Frame Streams.
//!
//! ```text
//! cargo run --release --example dnstap_collector -- --listen 127.0.0.1:6000
//!
//! # unbound.conf
//! dnstap:
//!     dnstap-enable: yes
//!     dnstap-ip: "127.0.0.1@6000"
//!     dnstap-tls: no
//!     dnstap-log-client-query-messages: yes
//!     dnstap-log-client-response-messages: yes
//! ```
//!
//! It prints the address of each sender. If new messages have arrived, it prints the number of
//! messages of each type, once a second. On SIGTERM or Ctrl-C it prints the total. If a sender
//! sends something other than dnstap, it prints the reason and closes the connection.
//!
//! What it shows:
//!
//! - A [`Framer`] of your own. In Frame Streams, four bytes of length come before each frame. A
//!   length of zero announces a control frame, which has a length of its own.
//! - A protocol with states. The sender sends READY and the collector answers ACCEPT. Then the
//!   sender sends START, frames and STOP, and the collector answers FINISH. A sender may also begin
//!   with START, and then waits for no answer.

use std::array;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::Parser;
use condor::{
    Action, CloseReason, Context, Decode, Endpoint, Error, FrameError, Framer, Framing, Handler,
    ListenerOptions, Output, Reactor,
};

#[path = "common/mod.rs"]
mod common;

const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
/// A message has a query and an answer of up to 64 KiB each, and some metadata.
const MAX_FRAME: usize = 256 * 1024;
const MAX_CONTROL: usize = 512;

/// Collects dnstap messages and counts them.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:6000")]
    listen: SocketAddr,
}

/// Frame Streams. A decoded packet is the whole frame with its length, because only the length shows
/// whether it is a control frame. The collector sends only control frames.
struct FrameStreams;

impl Framer for FrameStreams {
    fn decode(&self, input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
        let total = match lengths(input) {
            (Some(0), None) => return Ok(Decode::Need(Some(8))),
            (Some(0), Some(control)) if control > MAX_CONTROL => {
                return Err(FrameError::TooLarge { len: control, max: MAX_CONTROL });
            }
            (Some(0), Some(control)) => 8 + control,
            (Some(len), _) => 4 + len,
            (None, _) => return Ok(Decode::Need(None)),
        };
        if total > input.len() {
            return Ok(Decode::Need(Some(total)));
        }
        Ok(Decode::Frame { payload: 0..total, consumed: total })
    }

    fn encode(&self, control: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        let len = u32::try_from(control.len()).map_err(|_| FrameError::Bad("too long"))?;
        out.put(&[0; 4]);
        out.put(&len.to_be_bytes());
        out.put(control);
        Ok(())
    }
}

/// The first two numbers of a frame, of four bytes each. The first is the frame's length. If it is
/// zero, the second is the length of the control frame.
fn lengths(input: &[u8]) -> (Option<usize>, Option<usize>) {
    let number = |at: usize| input.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    (number(0).map(|len| len as usize), number(4).map(|len| len as usize))
}

/// A control frame's type.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[repr(u8)]
enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

impl Control {
    /// Returns the type, and the content types that the frame names.
    fn parse(control: &[u8]) -> Option<(Self, Vec<&[u8]>)> {
        let (kind, mut fields) = split_u32(control)?;
        let kind = [Self::Accept, Self::Start, Self::Stop, Self::Ready, Self::Finish]
            .into_iter()
            .find(|known| *known as u32 == kind)?;
        let mut content_types = Vec::new();
        while !fields.is_empty() {
            let (field, rest) = split_u32(fields)?;
            let (len, rest) = split_u32(rest)?;
            let (value, rest) = rest.split_at_checked(len as usize)?;
            if field == 1 {
                content_types.push(value);
            }
            fields = rest;
        }
        Some((kind, content_types))
    }

    /// Whether this frame allows that dnstap follows. READY offers a choice of types, so one of them
    /// has to be dnstap. START names the type of the data, so all have to be dnstap. A frame may
    /// also name no type.
    fn is_dnstap(self, content_types: &[&[u8]]) -> bool {
        let ours = |content_type: &&[u8]| *content_type == CONTENT_TYPE;
        match self {
            Self::Ready => content_types.is_empty() || content_types.iter().any(ours),
            _ => content_types.iter().all(ours),
        }
    }

    /// The frame's bytes, with or without the content type of dnstap.
    fn bytes(self, with_type: bool) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, self as u8];
        if with_type {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 22]);
            bytes.extend(CONTENT_TYPE);
        }
        bytes
    }
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (u32::from_be_bytes(*number), rest))
}

/// Names of the message types, by their numbers. 0 counts messages of an unknown type.
const TYPES: [&str; 15] = [
    "UNKNOWN",
    "AUTH_QUERY",
    "AUTH_RESPONSE",
    "RESOLVER_QUERY",
    "RESOLVER_RESPONSE",
    "CLIENT_QUERY",
    "CLIENT_RESPONSE",
    "FORWARDER_QUERY",
    "FORWARDER_RESPONSE",
    "STUB_QUERY",
    "STUB_RESPONSE",
    "TOOL_QUERY",
    "TOOL_RESPONSE",
    "UPDATE_QUERY",
    "UPDATE_RESPONSE",
];

/// Reads the message type out of a `Dnstap` in Protocol Buffers: field 1 of its field 14. This
/// example needs no other field, so it needs no library that decodes Protocol Buffers.
fn message_type(dnstap: &[u8]) -> Option<usize> {
    match field(field(dnstap, 14)?.bytes()?, 1)? {
        Value::Number(number) => usize::try_from(number).ok().filter(|kind| *kind < TYPES.len()),
        Value::Bytes(_) => None,
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }
}

/// Finds the first field with this number.
fn field(mut message: &[u8], wanted: u64) -> Option<Value<'_>> {
    loop {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)?),
            1 => Value::Bytes(message.split_off(..8)?),
            2 => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                Value::Bytes(message.split_off(..len)?)
            }
            5 => Value::Bytes(message.split_off(..4)?),
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some(value);
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The number of messages of each type.
#[derive(Debug)]
struct Counts([AtomicU64; TYPES.len()]);

impl Counts {
    fn new() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.each_ref().map(|count| count.load(Relaxed));
        write!(f, "{} frames", counts.iter().sum::<u64>())?;
        let mut before = ": ";
        for (name, count) in TYPES.iter().zip(counts).filter(|(_, count)| *count > 0) {
            write!(f, "{before}{name} {count}")?;
            before = ", ";
        }
        Ok(())
    }
}

/// How far the handshake of a sender is.
#[derive(Debug, PartialEq, Eq)]
enum State {
    New,
    Accepted,
    Started,
}

/// One connection of a sender.
struct Sender {
    counts: Arc<Counts>,
    peer: Endpoint,
    state: State,
    /// The sender sent READY, so it waits for ACCEPT and FINISH.
    is_bidirectional: bool,
}

impl Handler for Sender {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, frame: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
        match frame.split_first_chunk() {
            Some(([0, 0, 0, 0], control)) => self.handle_control(&control[4..]),
            Some((_, dnstap)) if self.state == State::Started => {
                let kind = message_type(dnstap).unwrap_or(0);
                self.counts.0[kind].fetch_add(1, Relaxed);
                Action::Continue
            }
            _ => Action::stop(CloseReason::Custom("a frame before START")),
        }
    }

    fn terminate(self, reason: CloseReason) {
        let how = match reason {
            CloseReason::Normal => String::from("finished"),
            other => other.to_string(),
        };
        common::say(format_args!("{}: {how}", self.peer));
    }
}

impl Sender {
    fn new(counts: &Arc<Counts>, peer: Endpoint) -> Self {
        Self { counts: Arc::clone(counts), peer, state: State::New, is_bidirectional: false }
    }

    fn handle_control(&mut self, control: &[u8]) -> Action<'static> {
        let Some((kind, content_types)) = Control::parse(control) else {
            return Action::stop(CloseReason::Custom("a malformed control frame"));
        };
        match (kind, &self.state) {
            (Control::Ready, State::New) | (Control::Start, State::New | State::Accepted)
                if !kind.is_dnstap(&content_types) =>
            {
                let named = content_types.join(&b", "[..]);
                let (peer, named) = (&self.peer, named.escape_ascii());
                common::say(format_args!("{peer}: it sends {named}, which is not dnstap"));
                Action::stop(CloseReason::Custom("the content type is not dnstap"))
            }
            (Control::Ready, State::New) => {
                (self.state, self.is_bidirectional) = (State::Accepted, true);
                Action::send(Control::Accept.bytes(true))
            }
            (Control::Start, State::New | State::Accepted) => {
                self.state = State::Started;
                common::say(format_args!("{}: sends dnstap", self.peer));
                Action::Continue
            }
            (Control::Stop, State::Started) if self.is_bidirectional => {
                Action::send_and_stop(Control::Finish.bytes(false), CloseReason::Normal)
            }
            (Control::Stop, State::Started) => Action::stop(CloseReason::Normal),
            _ => Action::stop(CloseReason::Custom("a control frame out of order")),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("dnstap_collector", run(&arguments))
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let counts = Arc::new(Counts::new());
    let mut reactor = Reactor::new()?;
    let shared = Arc::clone(&counts);
    let listener =
        reactor.start_listener("dnstap", options(arguments.listen), move |accepted| {
            Sender::new(&shared, accepted.peer_addr())
        })?;
    common::drain_on_signals(reactor.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    let (stop, stopped) = mpsc::channel();
    let shared = Arc::clone(&counts);
    let live = std::thread::spawn(move || show(&shared, &stopped));
    reactor.run()?;
    drop(stop);
    let _ = live.join(); // it cannot have panicked, because it only prints
    common::say(format_args!("total {counts}"));
    Ok(())
}

fn options(addr: SocketAddr) -> ListenerOptions {
    ListenerOptions::new(addr).framing(Framing::custom(FrameStreams)).max_packet(MAX_FRAME)
}

/// Prints the counts once a second if they have changed. On a terminal each output overwrites the
/// previous one.
fn show(counts: &Counts, stopped: &mpsc::Receiver<()>) {
    let mut last = counts.to_string();
    while stopped.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        let line = counts.to_string();
        if line == last {
            continue;
        }
        if std::io::stdout().is_terminal() {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "{line}\r").and_then(|()| out.flush());
        } else {
            common::say(&line);
        }
        last = line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::testing::Harness;

    #[test]
    fn frames_and_control_frames_are_distinguished() {
        let wire = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x04\0\0\0\x02";
        for len in 0..7 {
            let found = FrameStreams.decode(&wire[..len], 0).unwrap();
            assert!(matches!(found, Decode::Need(_)), "{len} bytes: {found:?}");
        }
        let found = FrameStreams.decode(wire, 0);
        assert_eq!(found, Ok(Decode::Frame { payload: 0..7, consumed: 7 }));
        let control = &wire[7..];
        assert_eq!(FrameStreams.decode(&control[..7], 0), Ok(Decode::Need(Some(8))));
        assert_eq!(FrameStreams.decode(&control[..11], 0), Ok(Decode::Need(Some(12))));
        let found = FrameStreams.decode(control, 0);
        assert_eq!(found, Ok(Decode::Frame { payload: 0..12, consumed: 12 }));
        assert_eq!(Control::parse(&control[8..]), Some((Control::Start, vec![])));
    }

    #[test]
    fn control_frames_name_their_content_type() {
        let accept = Control::Accept.bytes(true);
        assert_eq!(Control::parse(&accept), Some((Control::Accept, vec![CONTENT_TYPE])));
        let other = b"\0\0\0\x04\0\0\0\x01\0\0\0\x03abc";
        assert_eq!(Control::parse(other), Some((Control::Ready, vec![&b"abc"[..]])));
        assert_eq!(Control::parse(&other[..14]), None, "a truncated field");
        assert_eq!(Control::parse(b"\0\0\0\x09"), None, "an unknown type");
    }

    /// A control frame with both of its lengths.
    fn control(kind: Control, content_types: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, kind as u8];
        for content_type in content_types {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, u8::try_from(content_type.len()).unwrap()]);
            bytes.extend(*content_type);
        }
        let len = u8::try_from(bytes.len()).unwrap();
        [&[0, 0, 0, 0, 0, 0, 0, len], &bytes[..]].concat()
    }

    /// Goal: frames of another content type are never counted as dnstap. Method: READY or START
    /// names no type, dnstap, another type, or both.
    #[test]
    fn a_sender_of_something_else_is_turned_away() {
        let other: &[u8] = b"protobuf:other.Thing\n";
        let refused = Some(CloseReason::Custom("the content type is not dnstap"));
        let cases: [(&[&[u8]], _, _); 4] = [
            (&[], None, None),
            (&[CONTENT_TYPE], None, None),
            (&[other], refused, refused),
            (&[other, CONTENT_TYPE], None, refused), // READY may offer both, START may not
        ];
        for (content_types, after_ready, after_start) in cases {
            let counts = Arc::new(Counts::new());
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let handshake =
                Harness::new(options(peer), move |_accepted| Sender::new(&counts, peer.into()));
            let offered = handshake.connect();
            offered.receive(control(Control::Ready, content_types));
            assert_eq!(offered.closed(), after_ready, "READY {content_types:?}");
            for first in [&[][..], &control(Control::Ready, &[CONTENT_TYPE])] {
                let sender = handshake.connect();
                sender.receive(first);
                sender.receive(control(Control::Start, content_types));
                assert_eq!(sender.closed(), after_start, "START {content_types:?}");
            }
        }
    }

    #[test]
    fn the_type_is_found_after_other_fields() {
        // identity "id"; message { type CLIENT_RESPONSE, socket family 1 }; type MESSAGE
        let dnstap = b"\x0a\x02id\x72\x04\x08\x06\x10\x01\x78\x01";
        assert_eq!(message_type(dnstap), Some(6));
        for len in 0..8 {
            assert_eq!(message_type(&dnstap[..len]), None, "{len} bytes");
        }
        assert_eq!(message_type(b"\x72\x03\x08\xac\x02"), None, "type 300");
    }
}
