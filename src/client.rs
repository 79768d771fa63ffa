//! A blocking client for tests, tools and small programs: packets over one connection, in any
//! [`Framing`].
//!
//! It is made of the standard library and has nothing to do with a reactor, so it works against
//! any server. The `call` example is this client with a command line.
//!
//! ```
//! use condor::client::{Client, ClientError};
//! # use condor::{Action, Context, Handler, ListenerOptions, Reactor};
//! # struct Ping;
//! # impl Handler for Ping {
//! #     type Message = ();
//! #     fn handle_packet<'a>(&mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
//! #         Action::send_and_stop("pong", condor::CloseReason::Normal)
//! #     }
//! # }
//! # let mut reactor = Reactor::new().unwrap();
//! # let listener = reactor.start_listener("ping", ListenerOptions::port(0), |_| Ping).unwrap();
//! # let (addr, handle) = (listener.local_addr(), reactor.handle());
//! # let client = std::thread::spawn(move || {
//! let mut client = Client::connect(addr)?;
//! assert_eq!(client.request(b"ping")?, b"pong");
//! assert!(matches!(client.receive(), Err(ClientError::Closed)), "the server had no more to say");
//! # drop(handle.shutdown());
//! # Ok::<(), ClientError>(())
//! # });
//! # reactor.run().unwrap();
//! # client.join().unwrap()?;
//! # Ok::<(), ClientError>(())
//! ```

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::framing::{Decode, Framing};
use crate::reason::{FrameError, debug_as_display};

/// What can go wrong with a [`Client`].
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answered at any of the addresses.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// The last address tried, or what could not be turned into one.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server closed, or shut down its sending side, between two packets. Not a failure if no
    /// more answers were expected.
    #[error("closed by the server")]
    Closed,
    /// The server closed inside a packet.
    #[error("closed by the server inside a packet, {have} bytes of which had arrived")]
    ClosedMidPacket {
        /// Bytes of the packet that had arrived, its header included.
        have: usize,
    },
    /// The packet was not there, or could not be sent, within the timeout.
    ///
    /// After a `receive` nothing is lost: the next one goes on with what had arrived.
    #[error("no answer within {after:?}, {have} bytes of one had arrived")]
    Timeout {
        /// The timeout in force.
        after: Duration,
        /// Bytes of the packet that had arrived, its header included; 0 for a `send`.
        have: usize,
    },
    /// The server's bytes can never become a packet, or the packet cannot be sent.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The [`Framer`](crate::Framer) consumed nothing, more than there was, or less than its packet.
    #[error("the framer broke its contract")]
    FramerBug,
    /// An earlier `send` failed, maybe inside a packet, so that another one would be taken for its rest.
    #[error("an earlier packet was not sent, or only in part")]
    Broken,
    /// Sending was ended by [`Client::shutdown_write`] before.
    #[error("sending was ended before")]
    ShutDown,
    /// The socket failed: a reset, most of the time.
    #[error("connection to the server: {0}")]
    Io(#[from] io::Error),
}

debug_as_display!(ClientError {
    Connect { addr, source },
    Closed,
    ClosedMidPacket { have },
    Timeout { after, have },
    Frame(error),
    FramerBug,
    Broken,
    ShutDown,
    Io(error),
});

/// One connection to a server, and its packets.
///
/// Packets can be [sent](Self::send) without waiting for answers, as long as the server's answers
/// fit into the buffers of both kernels: a server that may not write stops reading at some point,
/// and then both wait for each other.
pub struct Client {
    stream: TcpStream,
    framing: Framing,
    timeout: Duration,
    /// Received and not yet returned: `input[start..]`.
    input: Vec<u8>,
    start: usize,
    /// Bytes of `input[start..]` that the framing has seen.
    scanned: usize,
    output: Vec<u8>,
    broken: bool,
    shut_down: bool,
    /// What every `receive` returns from now on.
    end: Option<End>,
    /// How the connection broke while something was sent: `receive` returns it at the end.
    reset: Option<Failure>,
}

/// What stays, once it has been returned.
#[derive(Debug, Copy, Clone)]
enum End {
    Frame(FrameError),
    FramerBug,
    Io(Failure),
}

impl From<End> for ClientError {
    fn from(end: End) -> Self {
        match end {
            End::Frame(error) => Self::Frame(error),
            End::FramerBug => Self::FramerBug,
            End::Io(failure) => Self::Io(failure.into()),
        }
    }
}

/// An `io::Error` that can be told again. The kernel tells of a broken connection only once.
#[derive(Debug, Copy, Clone)]
struct Failure {
    kind: ErrorKind,
    code: Option<i32>,
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        Self { kind: error.kind(), code: error.raw_os_error() }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        failure.code.map_or_else(|| failure.kind.into(), Self::from_raw_os_error)
    }
}

impl Client {
    /// The timeout of a client that sets none.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

    const CHUNK: usize = 16 * 1024;

    /// Connects to the first address that answers, within [`DEFAULT_TIMEOUT`] each. Packets are
    /// framed by [`LengthField::U16`] unless [`framing`](Self::framing) says otherwise.
    ///
    /// [`DEFAULT_TIMEOUT`]: Self::DEFAULT_TIMEOUT
    /// [`LengthField::U16`]: crate::LengthField::U16
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub fn connect(addr: impl ToSocketAddrs + fmt::Debug) -> Result<Self, ClientError> {
        let failed = |addr, source| ClientError::Connect { addr, source };
        let addrs = addr.to_socket_addrs().map_err(|e| failed(format!("{addr:?}"), e))?;
        let nothing = io::Error::new(ErrorKind::NotFound, "the name has no address");
        let mut last = failed(format!("{addr:?}"), nothing);
        for addr in addrs {
            match TcpStream::connect_timeout(&addr, Self::DEFAULT_TIMEOUT) {
                Ok(stream) => return Self::from_stream(stream),
                Err(source) => last = failed(addr.to_string(), source),
            }
        }
        Err(last)
    }

    /// Takes over a connection made otherwise. Its options are left alone, but for TCP_NODELAY and
    /// blocking mode.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`] if the connection is broken already.
    pub fn from_stream(stream: TcpStream) -> Result<Self, ClientError> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            framing: Framing::default(),
            timeout: Self::DEFAULT_TIMEOUT,
            input: Vec::new(),
            start: 0,
            scanned: 0,
            output: Vec::new(),
            broken: false,
            shut_down: false,
            end: None,
            reset: None,
        })
    }

    /// Frames packets otherwise, from the first byte not yet received.
    ///
    /// As everywhere the first half of a [`Framing::split`] is what comes in: a server's
    /// `split(a, b)` is its client's `split(b, a)`.
    #[must_use]
    pub fn framing(mut self, framing: impl Into<Framing>) -> Self {
        self.framing = framing.into();
        self.scanned = 0;
        // What the old one refused may be a packet of the new one.
        self.end = self.end.filter(|end| matches!(end, End::Io(_)));
        self
    }

    /// How long each `send` and each `receive` may take in all, however the bytes drip in.
    /// Default: 10 s. `Duration::MAX`: for ever. At least 1 ms.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Sends `packet`. It has been given to the kernel when this returns.
    ///
    /// # Errors
    ///
    /// [`ClientError::Frame`] if it cannot be framed: nothing was sent. [`ClientError::Timeout`] or
    /// [`ClientError::Io`] if it was sent in part or not at all; the connection takes no packets
    /// after that, and says so with [`ClientError::Broken`]. [`ClientError::Io`] again if `receive`
    /// has returned it. [`ClientError::ShutDown`] after [`shutdown_write`](Self::shutdown_write).
    pub fn send(&mut self, packet: impl AsRef<[u8]>) -> Result<(), ClientError> {
        self.send_all([packet])
    }

    /// Sends all of `packets` at once, pipelined.
    ///
    /// ```no_run
    /// # use condor::client::Client;
    /// let mut client = Client::connect("127.0.0.1:5555")?;
    /// client.send_all(["one", "two"])?;
    /// let answers = [client.receive()?, client.receive()?];
    /// # let _ = answers;
    /// # Ok::<(), condor::client::ClientError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); with [`ClientError::Frame`] none of them was sent.
    pub fn send_all(
        &mut self,
        packets: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<(), ClientError> {
        if self.broken {
            return Err(ClientError::Broken);
        }
        if let Some(end @ End::Io(_)) = self.end {
            return Err(end.into());
        }
        if self.shut_down {
            return Err(ClientError::ShutDown);
        }
        self.output.clear();
        for packet in packets {
            self.framing.encode(packet.as_ref(), &mut self.output)?;
        }
        let sent = self.write_output();
        self.broken = sent.is_err();
        if let Err(ClientError::Io(error)) = &sent
            // The server reads no more, and may have ended in good order.
            && error.kind() != ErrorKind::BrokenPipe
        {
            self.reset = Some(error.into());
        }
        sent
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] at the end of the stream, [`ClientError::ClosedMidPacket`] if it
    /// comes too early. [`ClientError::Timeout`]: ask again and lose nothing. All others stay: every
    /// later `receive` returns the same. [`ClientError::Frame`] and [`ClientError::FramerBug`] stay
    /// until another [`framing`](Self::framing) is set. [`ClientError::Io`] also comes at the end of
    /// the stream if a `send` has found the connection broken.
    pub fn receive(&mut self) -> Result<Vec<u8>, ClientError> {
        if let Some(end) = self.end {
            return Err(end.into());
        }
        let received = self.receive_next();
        self.end = match &received {
            Err(ClientError::Frame(error)) => Some(End::Frame(*error)),
            Err(ClientError::FramerBug) => Some(End::FramerBug),
            Err(ClientError::Io(error)) => Some(End::Io(error.into())),
            _ => None,
        };
        received
    }

    fn receive_next(&mut self) -> Result<Vec<u8>, ClientError> {
        let deadline = Deadline::after(self.timeout);
        loop {
            if let Some(packet) = self.take_packet()? {
                return Ok(packet);
            }
            self.input.drain(..self.start);
            self.start = 0;
            self.scanned = self.input.len();
            let mut chunk = [0; Self::CHUNK];
            let timeout = |have| ClientError::Timeout { after: self.timeout, have };
            let left = deadline.left().ok_or_else(|| timeout(self.input.len()))?;
            self.stream.set_read_timeout(left)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.end_of_stream()),
                Ok(len) => self.input.extend_from_slice(&chunk[..len]),
                Err(error) if may_go_on(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The kernel says the same of a stream that has ended and of one that broke and was told of.
    fn end_of_stream(&self) -> ClientError {
        match self.reset {
            Some(failure) => End::Io(failure).into(),
            None if self.input.is_empty() => ClientError::Closed,
            None => ClientError::ClosedMidPacket { have: self.input.len() },
        }
    }

    /// Sends `packet` and waits for the next packet to come: its answer, if nothing else was
    /// outstanding.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send) and [`receive`](Self::receive).
    pub fn request(&mut self, packet: impl AsRef<[u8]>) -> Result<Vec<u8>, ClientError> {
        self.send(packet)?;
        self.receive()
    }

    /// Tells the server that nothing more is coming. What it still answers can be received.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`] if the connection is gone already.
    pub fn shutdown_write(&mut self) -> Result<(), ClientError> {
        self.shut_down = true;
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// The server's address.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`] if the connection is gone already.
    pub fn peer_addr(&self) -> Result<SocketAddr, ClientError> {
        Ok(self.stream.peer_addr()?)
    }

    /// The connection itself, for its options.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn take_packet(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let input = &self.input[self.start..];
        if input.is_empty() {
            return Ok(None);
        }
        let found = self.framing.decode(input, self.scanned)?;
        if !found.is_valid(input.len()) {
            return Err(ClientError::FramerBug);
        }
        let Decode::Frame { payload, consumed } = found else {
            return Ok(None);
        };
        let packet = input[payload].to_vec();
        self.start += consumed;
        self.scanned = 0;
        Ok(Some(packet))
    }

    fn write_output(&mut self) -> Result<(), ClientError> {
        let deadline = Deadline::after(self.timeout);
        let mut rest = &self.output[..];
        while !rest.is_empty() {
            let timeout = || ClientError::Timeout { after: self.timeout, have: 0 };
            self.stream.set_write_timeout(deadline.left().ok_or_else(timeout)?)?;
            match self.stream.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if may_go_on(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("stream", &self.stream)
            .field("framing", &self.framing)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Whether a system call ended for a cause after which the deadline decides. `TimedOut` is none: it is
/// what a connection breaks with whose peer has acknowledged nothing for too long.
fn may_go_on(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

/// When an operation is given up; never, if the timeout is beyond what the clock can say.
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self(now().checked_add(timeout))
    }

    /// What a socket's timeout has to be: `Some(None)` is for ever, `None` is too late.
    fn left(&self) -> Option<Option<Duration>> {
        let Some(at) = self.0 else {
            return Some(None);
        };
        let left = at.saturating_duration_since(now());
        (!left.is_zero()).then_some(Some(left))
    }
}

#[expect(clippy::disallowed_methods, reason = "a client blocks: it has no reactor and no turns")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::framing::{Framer, LengthField, Output};

    /// A server that runs `script` on the one connection it accepts.
    fn server(script: impl FnOnce(TcpStream) + Send + 'static) -> (Client, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        (client, thread::spawn(move || script(stream)))
    }

    /// A server that says `bytes` and closes.
    fn says(bytes: &'static [u8]) -> Client {
        let (client, done) = server(move |mut stream| stream.write_all(bytes).unwrap());
        done.join().unwrap();
        client
    }

    /// Goal: cuts are invisible. Method: a server that writes two packets byte by byte.
    #[test]
    fn packets_come_whole_however_they_were_cut() {
        let (mut client, done) = server(|mut stream| {
            stream.set_nodelay(true).unwrap();
            for byte in b"\x00\x03one\x00\x00\x00\x03two" {
                stream.write_all(&[*byte]).unwrap();
            }
        });
        assert_eq!(client.receive().unwrap(), b"one");
        assert_eq!(client.receive().unwrap(), b"");
        assert_eq!(client.receive().unwrap(), b"two");
        assert!(matches!(client.receive(), Err(ClientError::Closed)));
        done.join().unwrap();
    }

    #[test]
    fn the_end_between_packets_is_not_the_end_inside_one() {
        let mut client = says(b"\x00\x03one");
        assert_eq!(client.receive().unwrap(), b"one");
        assert!(matches!(client.receive(), Err(ClientError::Closed)));
        assert!(matches!(client.receive(), Err(ClientError::Closed)), "and stays the end");

        let mut client = says(b"\x00\x03on");
        assert!(matches!(client.receive(), Err(ClientError::ClosedMidPacket { have: 4 })));
    }

    /// Goal: a timeout loses nothing. Method: the server sends the rest when the test says so.
    #[test]
    fn a_timeout_keeps_what_had_arrived() {
        let (go, wait) = std::sync::mpsc::channel();
        let (client, done) = server(move |mut stream| {
            stream.write_all(b"\x00\x03on").unwrap();
            wait.recv().unwrap();
            stream.write_all(b"e").unwrap();
        });
        let mut client = client.timeout(Duration::from_millis(50));
        // The first 4 bytes may come late on a busy machine; then `have` is smaller at first.
        while !matches!(client.receive(), Err(ClientError::Timeout { have: 4, .. })) {}
        go.send(()).unwrap();
        let mut client = client.timeout(Duration::MAX);
        assert_eq!(client.receive().unwrap(), b"one");
        done.join().unwrap();
    }

    #[test]
    fn requests_are_answered_in_any_framing() {
        let (client, done) = server(|mut stream| {
            let mut request = [0; 5];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"\x04ping");
            stream.write_all(b"\x00\x00\x00\x04pong").unwrap();
        });
        let mut client = client.framing(Framing::split(LengthField::U32, LengthField::U8));
        assert_eq!(client.request(b"ping").unwrap(), b"pong");
        done.join().unwrap();
    }

    #[test]
    fn a_packet_that_cannot_be_framed_sends_nothing_and_breaks_nothing() {
        let (client, done) = server(|mut stream| {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).unwrap();
            assert_eq!(request, b"\x03one");
        });
        let mut client = client.framing(LengthField::U8);
        let refused = client.send_all([vec![0; 3], vec![0; 256]]).unwrap_err();
        assert!(matches!(refused, ClientError::Frame(FrameError::TooLarge { len: 256, max: 255 })));
        client.send("one").unwrap();
        client.shutdown_write().unwrap();
        assert!(matches!(client.send("two"), Err(ClientError::ShutDown)));
        done.join().unwrap();
    }

    #[test]
    fn a_server_that_announces_too_much_is_an_error() {
        let mut client = says(b"\x00\x09").framing(LengthField::U16.max_packet(8));
        let refused = client.receive().unwrap_err();
        assert!(matches!(refused, ClientError::Frame(FrameError::TooLarge { len: 9, max: 8 })));
    }

    /// Always gives the same answer.
    struct Stubborn(Decode);

    impl Framer for Stubborn {
        fn decode(&self, _: &[u8], _: usize) -> Result<Decode, FrameError> {
            Ok(self.0.clone())
        }

        fn encode(&self, _: &[u8], _: &mut Output<'_>) -> Result<(), FrameError> {
            Ok(())
        }
    }

    /// Goal: an answer that is not valid is an error, and stays one. Method: frames that take nothing,
    /// more than there is, and less than their packet.
    #[test]
    fn a_framer_that_lies_is_found_out() {
        for (end, consumed) in [(0, 0), (0, 3), (2, 1), (3, 2)] {
            let answer = Decode::Frame { payload: 0..end, consumed };
            let mut client = says(b"xy").framing(Framing::custom(Stubborn(answer)));
            for _ in 0..2 {
                assert!(
                    matches!(client.receive(), Err(ClientError::FramerBug)),
                    "{end} {consumed}"
                );
            }
        }
    }

    /// A length of one byte and a packet, with a hint as this makes it of what is there.
    struct Hinting(fn(usize) -> Option<usize>);

    impl Framer for Hinting {
        fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
            let end = input.first().map_or(1, |len| 1 + usize::from(*len));
            Ok(match input.get(1..end) {
                Some(_) => Decode::Frame { payload: 1..end, consumed: end },
                None => Decode::Need((self.0)(input.len())),
            })
        }

        fn encode(&self, _: &[u8], _: &mut Output<'_>) -> Result<(), FrameError> {
            Ok(())
        }
    }

    /// Goal: a wrong hint of a framer costs no packet; one above the maximum announces a packet that is
    /// too large. Method: hints below, at and above what is there, with packets in pieces of 1 and 5
    /// bytes.
    #[test]
    fn a_wrong_hint_costs_no_packet() {
        let hints: [fn(usize) -> Option<usize>; 6] = [
            |_| None,
            |_| Some(0),
            |have| Some(have - 1),
            Some,
            |have| Some(have + 1),
            |_| Some(LengthField::DEFAULT_MAX_PACKET),
        ];
        for (hint, size) in hints.into_iter().flat_map(|hint| [(hint, 1), (hint, 5)]) {
            let (client, done) = server(move |mut stream| {
                stream.set_nodelay(true).unwrap();
                for piece in b"\x05first\x00\x0bthe seventh".chunks(size) {
                    stream.write_all(piece).unwrap();
                }
            });
            let mut client = client.framing(Framing::custom(Hinting(hint)));
            for packet in [b"first" as &[u8], b"", b"the seventh"] {
                assert_eq!(client.receive().unwrap(), packet);
            }
            assert!(matches!(client.receive(), Err(ClientError::Closed)));
            done.join().unwrap();
        }
        let mut client = says(b"\x05fir").framing(Framing::custom(Hinting(|_| Some(usize::MAX))));
        let refused = client.receive().unwrap_err();
        assert!(matches!(
            refused,
            ClientError::Frame(FrameError::TooLarge { len: usize::MAX, .. })
        ));
    }

    #[test]
    fn nobody_there_is_told_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let error = Client::connect(addr).unwrap_err();
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }
}
