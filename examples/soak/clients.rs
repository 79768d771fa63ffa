//! The clients. Each thread plays one role, and checks every answer.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::server::{MAX_PACKET, PACKET_TIMEOUT, kind};

/// How long a client waits for an answer. After that the answer counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What all clients share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    requested: AtomicU64,
    answered: AtomicU64,
    /// Requests on connections that the client reset. They need no answer.
    abandoned: AtomicU64,
    connections: AtomicU64,
    timeouts: AtomicU64,
    news: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// The sums over all clients.
pub(crate) struct Tally {
    pub(crate) requested: u64,
    pub(crate) answered: u64,
    pub(crate) abandoned: u64,
    pub(crate) connections: u64,
    pub(crate) timeouts: u64,
    pub(crate) news: u64,
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Requests without an answer. Valid only after the load has ended, because until then some
    /// answers are still on their way.
    pub(crate) fn lost(&self) -> u64 {
        self.requested - self.answered
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers, {} failures", self.answered, self.failures.len())
    }
}

/// The running clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

type Role = fn(&mut Client) -> io::Result<()>;

impl Load {
    pub(crate) fn start(addr: SocketAddr) -> Self {
        let roles: [(&str, Role); 13] = [
            ("steady", steady),
            ("steady", steady),
            ("churn", churn),
            ("churn", churn),
            ("slow reader", slow_reader),
            ("garbage", garbage),
            ("silence", silence),
            ("silence", silence),
            ("messages", messages),
            ("news", news),
            ("half-close", half_close),
            ("reset", reset),
            ("herd", herd),
        ];
        let shared = Arc::new(Shared::default());
        let spawn = |(seed, (name, role)): (usize, (&'static str, Role))| {
            let client = Client { addr, shared: Arc::clone(&shared), random: seed as u64 + 1 };
            thread::spawn(move || client.play(name, role))
        };
        let threads = roles.into_iter().enumerate().map(spawn).collect();
        Self { shared, threads }
    }

    pub(crate) fn tally(&self) -> Tally {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        Tally {
            answered: count(&shared.answered),
            requested: count(&shared.requested),
            abandoned: count(&shared.abandoned),
            connections: count(&shared.connections),
            timeouts: count(&shared.timeouts),
            news: count(&shared.news),
            failures: shared.failures.lock().expect("no client panics").clone(),
        }
    }

    /// Waits until every client has finished what it does.
    pub(crate) fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.failures.lock().expect("no client panics").push("a panic".into());
            }
        }
        self.tally()
    }
}

/// Makes one connection with one request and its answer.
pub(crate) fn connect_once(addr: SocketAddr) -> io::Result<()> {
    let client = Client { addr, shared: Arc::default(), random: 1 };
    let mut stream = client.connect()?;
    client.exchange(&mut stream, &[request(kind::ECHO, 5)])
}

struct Client {
    addr: SocketAddr,
    shared: Arc<Shared>,
    random: u64,
}

impl Client {
    fn play(mut self, name: &str, role: Role) {
        while !self.is_over() {
            if let Err(error) = role(&mut self) {
                let failure = format!("{name}: {error}");
                super::complain(&format!("soak: {failure}"));
                self.shared.failures.lock().expect("no client panics").push(failure);
                pause(1_000);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// The next pseudo-random number of `SplitMix64`, below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap_or_default()
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    /// Sends the requests in one write, and expects each of them back, in order.
    fn exchange(&self, stream: &mut TcpStream, requests: &[Vec<u8>]) -> io::Result<()> {
        self.send(stream, requests)?;
        requests.iter().try_for_each(|request| self.expect(stream, request))
    }

    fn send(&self, stream: &mut TcpStream, requests: &[Vec<u8>]) -> io::Result<()> {
        self.shared.requested.fetch_add(requests.len() as u64, Ordering::Relaxed);
        let frames: Vec<u8> = requests.iter().flat_map(|request| frame(request)).collect();
        stream.write_all(&frames)
    }

    fn expect(&self, stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
        if read_packet(stream)? != request {
            return Err(io::Error::new(ErrorKind::InvalidData, "a wrong answer"));
        }
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes short and long requests.
    fn requests(&mut self, what: u8, count: usize) -> Vec<Vec<u8>> {
        let mut len = || match self.below(20) {
            0 => MAX_PACKET,
            1..=4 => 1 + self.below(4_000),
            _ => 1 + self.below(200),
        };
        (0..count).map(|_| request(what, len())).collect()
    }
}

fn request(what: u8, len: usize) -> Vec<u8> {
    let filling = (0..=u8::MAX).cycle().take(len - 1);
    std::iter::once(what).chain(filling).collect()
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let len = u16::try_from(packet.len()).expect("shorter than the maximum");
    [&len.to_be_bytes(), packet].concat()
}

fn read_packet(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut packet = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut packet)?;
    Ok(packet)
}

/// Sleeps, to limit the load.
fn pause(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

#[expect(clippy::disallowed_methods, reason = "a client thread has no reactor, so no clock of one")]
fn now() -> Instant {
    Instant::now()
}

/// Pipelines requests on one connection for a long time.
fn steady(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    for _ in 0..2_000 {
        let count = 1 + client.below(64);
        let requests = client.requests(kind::ECHO, count);
        client.exchange(&mut stream, &requests)?;
        pause(5);
        if client.is_over() {
            break;
        }
    }
    Ok(())
}

/// Makes a few requests per connection. Half of the connections are ended by the server.
fn churn(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let count = 1 + client.below(5);
    let requests = client.requests(kind::ECHO, count);
    client.exchange(&mut stream, &requests)?;
    if client.below(2) == 0 {
        client.exchange(&mut stream, &[request(kind::LAST, 9)])?;
        expect_end(&mut stream)?;
    }
    pause(8);
    Ok(())
}

/// Requests more than the kernel's buffers hold, and reads it slowly.
fn slow_reader(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let count = 100 + client.below(100);
    let requests: Vec<Vec<u8>> = vec![request(kind::LONG, 1); count];
    client.send(&mut stream, &requests)?;
    let answer = vec![b'L'; MAX_PACKET];
    for _ in 0..count {
        client.expect(&mut stream, &answer)?;
        pause(15);
    }
    Ok(())
}

/// Sends bytes of other protocols. The server has to end the connection, in any way.
fn garbage(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let noise: Vec<u8> = match client.below(4) {
        0 => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        2 => vec![0xff; 70_000],
        _ => (0..client.below(3_000)).map(|_| client.below(256).to_le_bytes()[0]).collect(),
    };
    // The server may have closed the connection already.
    let _ = stream.write_all(&noise);
    let _ = stream.shutdown(Shutdown::Write);
    match drain(&mut stream) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
        _ => {
            pause(20);
            Ok(())
        }
    }
}

/// Stops in the middle of a packet. The server has to end the connection at the packet timeout.
fn silence(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let start = now();
    stream.write_all(b"\x00\x10half")?;
    expect_end(&mut stream)?;
    let waited = start.elapsed();
    if waited < PACKET_TIMEOUT || waited > PACKET_TIMEOUT * 5 {
        let text = format!("the packet timeout came after {waited:?}");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    client.shared.timeouts.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Requests answers that come through the mailbox or from a timer.
fn messages(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    for _ in 0..200 {
        let count = 1 + client.below(20);
        let what = [kind::ELSEWHERE, kind::IN_TURN][client.below(2)];
        let requests = client.requests(what, count);
        client.exchange(&mut stream, &requests)?;
        let later = request(kind::LATER, 1 + client.below(500));
        client.exchange(&mut stream, &[later])?;
        if client.is_over() {
            break;
        }
    }
    Ok(())
}

/// Receives broadcasts, and checks that none is missing and none comes twice.
fn news(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    client.exchange(&mut stream, &[request(kind::NEWS, 1)])?;
    let mut last = None;
    // 100 broadcasts take 10 s, which is less than the idle timeout of 20 s.
    for _ in 0..100 {
        let packet = read_packet(&mut stream)?;
        let number = packet.try_into().map(u64::from_be_bytes);
        let number = number.map_err(|_| io::Error::new(ErrorKind::InvalidData, "no news"))?;
        if last.is_some_and(|last| number != last + 1) {
            let text = format!("broadcast {number} after {last:?}");
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        last = Some(number);
        client.shared.news.fetch_add(1, Ordering::Relaxed);
        if client.is_over() {
            break;
        }
    }
    Ok(())
}

/// Sends all requests, shuts down its sending side, and reads until the end.
fn half_close(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let count = 1 + client.below(30);
    let what = [kind::ECHO, kind::IN_TURN][client.below(2)];
    let requests = client.requests(what, count);
    client.send(&mut stream, &requests)?;
    stream.shutdown(Shutdown::Write)?;
    requests.iter().try_for_each(|request| client.expect(&mut stream, request))?;
    expect_end(&mut stream)?;
    pause(10);
    Ok(())
}

/// Closes its socket without reading, so its kernel resets the connection.
fn reset(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let what = [kind::ECHO, kind::LONG, kind::LATER, kind::ELSEWHERE][client.below(4)];
    let count = 1 + client.below(50);
    let requests = client.requests(what, count);
    client.shared.abandoned.fetch_add(count as u64, Ordering::Relaxed);
    let frames: Vec<u8> = requests.iter().flat_map(|request| frame(request)).collect();
    let sent = client.below(frames.len() + 1);
    stream.write_all(&frames[..sent])?;
    pause(20);
    Ok(())
}

/// Opens many connections at once, most of them idle.
fn herd(client: &mut Client) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..300 {
        streams.push(client.connect()?);
    }
    for _ in 0..100 {
        let which = client.below(streams.len());
        let requests = client.requests(kind::ECHO, 1);
        client.exchange(&mut streams[which], &requests)?;
        pause(20);
        if client.is_over() {
            break;
        }
    }
    Ok(())
}

fn expect_end(stream: &mut TcpStream) -> io::Result<()> {
    match drain(stream)? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "more bytes than expected")),
    }
}

/// Reads to the end. Returns the number of bytes.
fn drain(stream: &mut TcpStream) -> io::Result<usize> {
    let mut buffer = [0; 16 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count,
        }
    }
}
