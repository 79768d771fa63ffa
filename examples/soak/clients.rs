//! The clients: one role a thread, each checks what it gets.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::server::{MAX_PACKET, PACKET_TIMEOUT, ask};

/// How long a client waits for an answer. Then it is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all clients share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    asked: AtomicU64,
    answered: AtomicU64,
    /// Requests on connections that their client killed: nobody counts on an answer.
    sacrificed: AtomicU64,
    connections: AtomicU64,
    timeouts: AtomicU64,
    news: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What it came to.
pub(crate) struct Tally {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) sacrificed: u64,
    pub(crate) connections: u64,
    pub(crate) timeouts: u64,
    pub(crate) news: u64,
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Requests that nobody answered. Only at the end: before, some are on their way.
    pub(crate) fn lost(&self) -> u64 {
        self.asked - self.answered
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers, {} failures", self.answered, self.failures.len())
    }
}

/// The clients at work.
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
            ("death", death),
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
            asked: count(&shared.asked),
            sacrificed: count(&shared.sacrificed),
            connections: count(&shared.connections),
            timeouts: count(&shared.timeouts),
            news: count(&shared.news),
            failures: shared.failures.lock().expect("no client panics").clone(),
        }
    }

    /// Lets everybody finish what it is at.
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

/// One request and its answer, on a connection of its own.
pub(crate) fn greet(addr: SocketAddr) -> io::Result<()> {
    let client = Client { addr, shared: Arc::default(), random: 1 };
    let mut stream = client.connect()?;
    client.ask(&mut stream, &[request(ask::ECHO, 5)])
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
                rest(1_000);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// `SplitMix64`, below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap_or_default()
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    /// Sends requests in one go, and expects each of them back, in order.
    fn ask(&self, stream: &mut TcpStream, requests: &[Vec<u8>]) -> io::Result<()> {
        self.send(stream, requests)?;
        requests.iter().try_for_each(|request| self.expect(stream, request))
    }

    fn send(&self, stream: &mut TcpStream, requests: &[Vec<u8>]) -> io::Result<()> {
        self.shared.asked.fetch_add(requests.len() as u64, Ordering::Relaxed);
        let frames: Vec<u8> = requests.iter().flat_map(|request| frame(request)).collect();
        stream.write_all(&frames)
    }

    fn expect(&self, stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
        if read_packet(stream)? != request {
            return Err(io::Error::new(ErrorKind::InvalidData, "another answer"));
        }
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Short and long ones.
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

/// Bounds the load; the server is not in it.
fn rest(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

#[expect(clippy::disallowed_methods, reason = "a client has no reactor's clock")]
fn now() -> Instant {
    Instant::now()
}

/// Pipelines on one connection for long.
fn steady(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    for _ in 0..2_000 {
        let count = 1 + client.below(64);
        let requests = client.requests(ask::ECHO, count);
        client.ask(&mut stream, &requests)?;
        rest(5);
        if client.is_over() {
            break;
        }
    }
    Ok(())
}

/// A few requests a connection; now and then the server ends it.
fn churn(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let count = 1 + client.below(5);
    let requests = client.requests(ask::ECHO, count);
    client.ask(&mut stream, &requests)?;
    if client.below(2) == 0 {
        client.ask(&mut stream, &[request(ask::LAST, 9)])?;
        expect_end(&mut stream)?;
    }
    rest(8);
    Ok(())
}

/// Asks for more than the kernel's buffers hold, and takes its time.
fn slow_reader(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let count = 100 + client.below(100);
    let asked: Vec<Vec<u8>> = vec![request(ask::LONG, 1); count];
    client.send(&mut stream, &asked)?;
    let answer = vec![b'L'; MAX_PACKET];
    for _ in 0..count {
        client.expect(&mut stream, &answer)?;
        rest(15);
    }
    Ok(())
}

/// What strangers say. How the server ends it is its own business, but it has to.
fn garbage(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let noise: Vec<u8> = match client.below(4) {
        0 => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        2 => vec![0xff; 70_000],
        _ => (0..client.below(3_000)).map(|_| client.below(256).to_le_bytes()[0]).collect(),
    };
    // It may have closed already.
    let _ = stream.write_all(&noise);
    let _ = stream.shutdown(Shutdown::Write);
    match drain(&mut stream) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
        _ => {
            rest(20);
            Ok(())
        }
    }
}

/// Stops in the midst of a packet: the server ends it, not too early and not too late.
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

/// Answers that come by way of the mailbox or a timer.
fn messages(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    for _ in 0..200 {
        let count = 1 + client.below(20);
        let what = [ask::ELSEWHERE, ask::IN_TURN][client.below(2)];
        let requests = client.requests(what, count);
        client.ask(&mut stream, &requests)?;
        let later = request(ask::LATER, 1 + client.below(500));
        client.ask(&mut stream, &[later])?;
        if client.is_over() {
            break;
        }
    }
    Ok(())
}

/// Gets every broadcast, none twice.
fn news(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    client.ask(&mut stream, &[request(ask::NEWS, 1)])?;
    let mut last = None;
    // Not for as long as the idle timeout.
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

/// Says all it has to say, then listens to the end.
fn half_close(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let count = 1 + client.below(30);
    let what = [ask::ECHO, ask::IN_TURN][client.below(2)];
    let requests = client.requests(what, count);
    client.send(&mut stream, &requests)?;
    stream.shutdown(Shutdown::Write)?;
    requests.iter().try_for_each(|request| client.expect(&mut stream, request))?;
    expect_end(&mut stream)?;
    rest(10);
    Ok(())
}

/// Leaves without reading: its kernel resets the connection.
fn death(client: &mut Client) -> io::Result<()> {
    let mut stream = client.connect()?;
    let what = [ask::ECHO, ask::LONG, ask::LATER, ask::ELSEWHERE][client.below(4)];
    let count = 1 + client.below(50);
    let requests = client.requests(what, count);
    client.shared.sacrificed.fetch_add(count as u64, Ordering::Relaxed);
    let frames: Vec<u8> = requests.iter().flat_map(|request| frame(request)).collect();
    let sent = client.below(frames.len() + 1);
    stream.write_all(&frames[..sent])?;
    rest(20);
    Ok(())
}

/// Many at once, most of them idle.
fn herd(client: &mut Client) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..300 {
        streams.push(client.connect()?);
    }
    for _ in 0..100 {
        let which = client.below(streams.len());
        let requests = client.requests(ask::ECHO, 1);
        client.ask(&mut streams[which], &requests)?;
        rest(20);
        if client.is_over() {
            break;
        }
    }
    Ok(())
}

fn expect_end(stream: &mut TcpStream) -> io::Result<()> {
    match drain(stream)? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "more than was asked for")),
    }
}

/// Reads to the end. Returns how much there was.
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
