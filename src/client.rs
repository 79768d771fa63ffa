//! A blocking client for tests, tools and small programs: packets over one connection, in any
//! [`Framing`].
//!
//! It uses only the standard library and needs no reactor, so it works with any server. The `call`
//! example is this client with a command line.
//!
//! ```
//! use condor::client::{Client, ClientError};
//! # use condor::{Action, CloseReason, Context, Handler, ListenerOptions};
//! # struct Ping;
//! # impl Handler for Ping {
//! #     type Message = ();
//! #     fn handle_packet(&mut self, _: &[u8], _: &mut Context<'_, ()>) -> Action<'static> {
//! #         Action::send_and_stop("pong", CloseReason::Normal)
//! #     }
//! # }
//! # let server = condor::testing::serve(ListenerOptions::port(0), |_| Ping);
//! # let addr = server.addr();
//!
//! let mut client = Client::connect(addr)?;
//! assert_eq!(client.request(b"ping")?, b"pong");
//! assert!(matches!(client.receive(), Err(ClientError::Closed)), "the server closed");
//! # Ok::<(), ClientError>(())
//! ```

mod connect;
mod error;
mod waits;

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub use self::error::ClientError;
use self::waits::Wait;
use crate::framing::{Decode, Framing, Partial};
use crate::reason::FrameError;

/// One connection to a server. It sends and receives packets.
///
/// ```no_run
/// use std::time::Duration;
///
/// use condor::client::{Client, ClientError};
/// use condor::Lines;
///
/// # fn main() -> Result<(), ClientError> {
/// let client = Client::connect("127.0.0.1:5555")?;
/// let mut client = client.framing(Lines::new(1024)).timeout(Duration::from_secs(2));
/// let answer = client.request("stats")?;
/// # let _ = answer;
/// # Ok(())
/// # }
/// ```
///
/// - One packet and its answer: [`request`](Self::request).
/// - Packets in one direction: [`send`](Self::send), [`send_all`](Self::send_all),
///   [`receive`](Self::receive).
/// - The end: [`shutdown_write`](Self::shutdown_write) ends the output, a drop ends the connection.
///
/// A client can [send](Self::send) packets without receiving the answers, as long as the answers
/// fit into the buffers of both kernels. If they do not fit, the server cannot write, and at some
/// point stops reading. Then client and server wait for each other.
pub struct Client {
    stream: TcpStream,
    framing: Framing,
    timeout: Duration,
    reads: Wait,
    writes: Wait,
    /// `input[start..]` has arrived and was not returned yet.
    input: Vec<u8>,
    start: usize,
    /// What the framing has found out about the packet at `start`.
    partial: Partial,
    output: Vec<u8>,
    broken: bool,
    shut_down: bool,
    /// The error that every `receive` returns from now on.
    end: Option<End>,
    /// The error of a `send` that found the connection broken. `receive` returns it at the end of
    /// the stream.
    reset: Option<Failure>,
}

/// An error that every later `receive` returns again.
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

/// The data of an `io::Error`, to return the error again. The kernel reports a broken connection
/// only once.
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
    /// The timeout of a client that sets none: 10 s.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

    const CHUNK: usize = 16 * 1024;

    /// A Unix stream has the same calls, so it takes the same type.
    fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            timeout: Self::DEFAULT_TIMEOUT,
            reads: Wait::default(),
            writes: Wait::default(),
            input: Vec::new(),
            start: 0,
            partial: Partial::default(),
            output: Vec::new(),
            broken: false,
            shut_down: false,
            end: None,
            reset: None,
        }
    }

    /// Sets another framing. It applies from the first byte that `receive` has not returned yet.
    ///
    /// The first half of a [`Framing::split`] is for input, as everywhere: if the server has
    /// `split(a, b)`, its client needs `split(b, a)`.
    #[must_use]
    pub fn framing(mut self, framing: impl Into<Framing>) -> Self {
        self.framing = framing.into();
        self.partial = Partial::default();
        // Bytes that the old framing refused may be a packet in the new one.
        self.end = self.end.filter(|end| matches!(end, End::Io(_)));
        self
    }

    /// How long each `send` and each `receive` may take in all, even if bytes keep arriving one by
    /// one. Default: 10 s. At least 1 ms. `Duration::MAX` means no timeout.
    ///
    /// If a packet comes or leaves in pieces, the timeout may be up to 1/64 longer: this saves a system
    /// call for each piece.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Sends `packet`. When the method returns `Ok`, the kernel has the whole packet.
    ///
    /// # Errors
    ///
    /// - [`ClientError::Frame`] if the framing cannot express the packet. Nothing was sent.
    /// - [`ClientError::Timeout`] or [`ClientError::Io`] if the packet was sent in part or not at
    ///   all. Every later `send` returns [`ClientError::Broken`].
    /// - [`ClientError::Io`] if `receive` has returned it before.
    /// - [`ClientError::ShutDown`] after [`shutdown_write`](Self::shutdown_write).
    pub fn send(&mut self, packet: impl AsRef<[u8]>) -> Result<(), ClientError> {
        self.send_all([packet])
    }

    /// Sends all `packets` at once, without waiting for answers in between.
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
    /// As [`send`](Self::send). After [`ClientError::Frame`] none of the packets was sent.
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
            // After a broken pipe the server reads no more, but it may have closed without a fault.
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
    /// - [`ClientError::Closed`] at the end of the stream, [`ClientError::ClosedMidPacket`] if the
    ///   stream ends inside a packet.
    /// - [`ClientError::Timeout`]. The next `receive` continues, and no byte is lost.
    /// - [`ClientError::Frame`] and [`ClientError::FramerBug`]. Every later `receive` returns the
    ///   same error, until another [`framing`](Self::framing) is set.
    /// - [`ClientError::Io`]. Every later `receive` returns the same error. It also comes at the end
    ///   of the stream if a `send` has found the connection broken.
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
            let mut chunk = [0; Self::CHUNK];
            let timeout = |have| ClientError::Timeout { after: self.timeout, have };
            let left = deadline.left().ok_or_else(|| timeout(self.input.len()))?;
            if let Some(timeout) = self.reads.change(left, deadline.whole) {
                self.stream.set_read_timeout(finite(timeout))?;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.end_of_stream()),
                Ok(len) => self.input.extend_from_slice(&chunk[..len]),
                Err(error) if may_go_on(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A read of 0 bytes has two causes: the stream has ended, or the connection is broken and a
    /// `send` has already got the error. `reset` tells them apart.
    fn end_of_stream(&self) -> ClientError {
        match self.reset {
            Some(failure) => End::Io(failure).into(),
            None if self.input.is_empty() => ClientError::Closed,
            None => ClientError::ClosedMidPacket { have: self.input.len() },
        }
    }

    /// Sends `packet` and waits for the next packet. It is the answer to `packet` if the client
    /// waited for no other answer.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send) and [`receive`](Self::receive).
    pub fn request(&mut self, packet: impl AsRef<[u8]>) -> Result<Vec<u8>, ClientError> {
        self.send(packet)?;
        self.receive()
    }

    /// Shuts down the sending side. The client can still receive the server's answers.
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

    /// The socket, to read or set its options. The timeouts of its reads and writes belong to the
    /// client, which does not notice a change: use [`timeout`](Self::timeout).
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn take_packet(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let input = &self.input[self.start..];
        if input.is_empty() {
            return Ok(None);
        }
        let found = self.framing.resume(input, &mut self.partial)?;
        if !found.is_valid(input.len()) {
            return Err(ClientError::FramerBug);
        }
        let Decode::Frame { payload, consumed } = found else {
            return Ok(None);
        };
        let packet = input[payload].to_vec();
        self.start += consumed;
        Ok(Some(packet))
    }

    fn write_output(&mut self) -> Result<(), ClientError> {
        let deadline = Deadline::after(self.timeout);
        let mut rest = &self.output[..];
        while !rest.is_empty() {
            let timeout = || ClientError::Timeout { after: self.timeout, have: 0 };
            let left = deadline.left().ok_or_else(timeout)?;
            if let Some(timeout) = self.writes.change(left, deadline.whole) {
                self.stream.set_write_timeout(finite(timeout))?;
            }
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

/// Whether a call may be made again after this error, if the deadline allows it. After `TimedOut`
/// it may not: the connection is broken, because the peer has acknowledged nothing for too long.
fn may_go_on(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

/// The time at which an operation fails with a timeout.
struct Deadline {
    /// `None` is never: the timeout is beyond what the clock can represent.
    at: Option<Instant>,
    /// The whole timeout. [`Duration::MAX`] is none.
    whole: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        let at = now().checked_add(timeout);
        Self { at, whole: at.map_or(Duration::MAX, |_| timeout) }
    }

    /// The time left. [`Duration::MAX`] is for ever. `None` means that the deadline has passed.
    fn left(&self) -> Option<Duration> {
        let Some(at) = self.at else {
            return Some(Duration::MAX);
        };
        let left = at.saturating_duration_since(now());
        (!left.is_zero()).then_some(left)
    }
}

/// The timeout as the system takes it: [`Duration::MAX`] is none.
fn finite(timeout: Duration) -> Option<Duration> {
    (timeout != Duration::MAX).then_some(timeout)
}

#[expect(clippy::disallowed_methods, reason = "a client blocks: it has no reactor and no turns")]
fn now() -> Instant {
    let now = Instant::now();
    #[cfg(test)]
    let now = now + tests::AHEAD.get();
    now
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::framing::{Framer, LengthField, Output};

    thread_local! {
        /// The client's clock is ahead of the system's by this time.
        pub(super) static AHEAD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// A server that runs `script` on the one connection it accepts.
    fn server(script: impl FnOnce(TcpStream) + Send + 'static) -> (Client, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        (client, thread::spawn(move || script(stream)))
    }

    /// A server that sends `bytes` and closes.
    fn says(bytes: &'static [u8]) -> Client {
        let (client, done) = server(move |mut stream| stream.write_all(bytes).unwrap());
        done.join().unwrap();
        client
    }

    /// Goal: packets come whole, even if they arrive in pieces. Method: a server writes its packets
    /// byte by byte.
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

    /// Goal: a timeout loses no byte. Method: the server sends the rest of a packet after the
    /// client's timeout.
    #[test]
    fn a_timeout_keeps_what_had_arrived() {
        let (go, wait) = std::sync::mpsc::channel();
        let (client, done) = server(move |mut stream| {
            stream.write_all(b"\x00\x03on").unwrap();
            wait.recv().unwrap();
            stream.write_all(b"e").unwrap();
        });
        let mut client = client.timeout(Duration::from_millis(50));
        // On a busy machine the first 4 bytes may come late. Then `have` is smaller at first.
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

    /// Goal: an invalid answer of a framer is an error in every later `receive`. Method: frames that
    /// consume nothing, more bytes than have arrived, and less than their packet.
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

    /// A length of one byte, then a packet. The function makes the hint from the number of bytes
    /// that have arrived.
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

    /// A packet up to a zero byte. Counts the bytes that it looks at.
    struct UpToZero(Arc<AtomicUsize>);

    impl Framer for UpToZero {
        fn decode(&self, input: &[u8], _: usize) -> Result<Decode, FrameError> {
            self.resume(input, &mut Partial::default())
        }

        fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
            let looked = input.len() - partial.notes[0];
            self.0.fetch_add(looked, Ordering::Relaxed);
            partial.notes[0] = input.len();
            Ok(match input.iter().skip(input.len() - looked).position(|byte| *byte == 0) {
                None => Decode::Need(None),
                Some(at) => {
                    let end = input.len() - looked + at;
                    Decode::Frame { payload: 0..end, consumed: end + 1 }
                }
            })
        }

        fn encode(&self, _: &[u8], _: &mut Output<'_>) -> Result<(), FrameError> {
            Ok(())
        }
    }

    /// Goal: a framer gets its notes back, and looks at no byte twice. Method: a packet that takes
    /// many reads, then short packets, which begin without notes.
    #[test]
    fn a_framers_notes_come_back_with_their_packet() {
        const LEN: usize = 64 * Client::CHUNK;
        let looked = Arc::new(AtomicUsize::new(0));
        let (client, done) = server(|mut stream| {
            stream.write_all(&[vec![b'x'; LEN], b"\0two\0\0".to_vec()].concat()).unwrap();
        });
        let framing = Framing::custom(UpToZero(Arc::clone(&looked)));
        let mut client = client.framing(framing.with_max(2 * LEN));
        assert_eq!(client.receive().unwrap().len(), LEN);
        assert_eq!(client.receive().unwrap(), b"two");
        assert_eq!(client.receive().unwrap(), b"");
        done.join().unwrap();
        let looked = looked.load(Ordering::Relaxed);
        assert!(looked < LEN + 100, "looked at {looked} bytes of {LEN}");
    }

    /// Needs more bytes, always. Each look takes this time, on the client's clock.
    struct Slow(Duration);

    impl Framer for Slow {
        fn decode(&self, _: &[u8], _: usize) -> Result<Decode, FrameError> {
            AHEAD.set(AHEAD.get() + self.0);
            Ok(Decode::Need(None))
        }

        fn encode(&self, _: &[u8], _: &mut Output<'_>) -> Result<(), FrameError> {
            Ok(())
        }
    }

    /// Goal: a packet in pieces extends no deadline: the client waits for the next piece no longer than
    /// the time that is left. Method: a piece comes after half of the time, on the client's clock, and
    /// the kernel tells how long it would have waited for the next.
    #[test]
    fn a_piece_of_a_packet_extends_no_deadline() {
        let framing = Framing::custom(Slow(Duration::from_secs(32)));
        let mut client = says(b"piece").framing(framing).timeout(Duration::from_secs(64));
        assert!(matches!(client.receive(), Err(ClientError::ClosedMidPacket { have: 5 })));
        let waits = client.stream().read_timeout().unwrap().unwrap();
        assert!(waits <= Duration::from_millis(32_010), "{waits:?} of 32 s");
    }

    /// Goal: a wrong hint of a framer loses no packet, and a hint above the maximum announces a
    /// packet that is too large. Method: hints below, at and above the number of bytes that have
    /// arrived, with packets in pieces of 1 and 5 bytes.
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
    fn a_refused_connect_names_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let error = Client::connect(addr).unwrap_err();
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }
}
