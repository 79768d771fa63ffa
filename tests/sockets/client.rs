//! The blocking client against servers that break off: which error it returns, and that it returns
//! the same error again.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::client::{Client, ClientError};
use condor::{Decode, FrameError, Framer, Framing, LengthField, Output};
use socket2::SockRef;

/// A client, and the server's end of its connection.
fn pair() -> (Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    (client.timeout(Duration::from_secs(30)), stream)
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[track_caller]
fn expect_io(result: Result<impl std::fmt::Debug, ClientError>, kind: ErrorKind) {
    match result {
        Err(ClientError::Io(error)) => {
            assert_eq!(error.kind(), kind);
            assert!(error.raw_os_error().is_some(), "what the system said: {error}");
        }
        other => panic!("{other:?}"),
    }
}

/// Goal: after a reset, `receive` and `send` return the reset each time. Method: a reset after
/// nothing, after a packet, after half a packet, and after both. Each call is repeated.
#[test]
fn a_reset_stays_a_reset() {
    for said in [&b""[..], b"\x00\x03one", b"\x00\x03on", b"\x00\x03one\x00\x03tw"] {
        let (mut client, mut stream) = pair();
        stream.write_all(said).unwrap();
        reset(stream);
        if said.ends_with(b"one") || said.ends_with(b"tw") {
            assert_eq!(client.receive().unwrap(), b"one");
        }
        for _ in 0..3 {
            expect_io(client.receive(), ErrorKind::ConnectionReset);
            expect_io(client.send("question"), ErrorKind::ConnectionReset);
            expect_io(client.request("question"), ErrorKind::ConnectionReset);
        }
    }
}

/// Goal: a reset that a `send` finds stays a reset, although the kernel reports it only once.
/// Packets that came before it are not lost. Method: a server that sends something, or nothing, and
/// then resets.
#[test]
fn a_reset_that_a_send_finds_stays_a_reset() {
    for said in [&b""[..], b"\x00\x03one", b"\x00\x03one\x00\x03tw"] {
        let (mut client, mut stream) = pair();
        stream.write_all(said).unwrap();
        reset(stream);
        expect_io(client.send("question"), ErrorKind::ConnectionReset);
        assert!(matches!(client.send("question"), Err(ClientError::Broken)));
        if !said.is_empty() {
            assert_eq!(client.receive().unwrap(), b"one");
        }
        for _ in 0..3 {
            expect_io(client.receive(), ErrorKind::ConnectionReset);
        }
        assert!(matches!(client.send("question"), Err(ClientError::Broken)));
    }
}

/// Goal: an orderly end of the server stays one, also if a later `send` fails. Method: the server
/// answers and closes. The client sends until it gets an error.
#[test]
fn an_orderly_end_stays_one_although_a_send_fails() {
    let (mut client, mut stream) = pair();
    stream.write_all(b"\x00\x03one").unwrap();
    drop(stream);
    // The first is answered by a reset; on loopback it is there before the second.
    client.send("question").unwrap();
    expect_io(client.send("question"), ErrorKind::BrokenPipe);
    assert_eq!(client.receive().unwrap(), b"one");
    for _ in 0..3 {
        assert!(matches!(client.receive(), Err(ClientError::Closed)));
    }
}

/// Goal: after the client has closed its sending half, `send` reports this, and not a packet that
/// was cut. Method: two sends after the close, around an answer that still comes. Then a reset,
/// which takes precedence.
#[test]
fn a_sending_half_that_was_closed_stays_closed() {
    let (mut client, mut stream) = pair();
    client.shutdown_write().unwrap();
    assert!(matches!(client.send("question"), Err(ClientError::ShutDown)));
    stream.write_all(b"\x00\x03one").unwrap();
    assert_eq!(client.receive().unwrap(), b"one");
    assert!(matches!(client.request("question"), Err(ClientError::ShutDown)));
    reset(stream);
    expect_io(client.receive(), ErrorKind::ConnectionReset);
    expect_io(client.send("question"), ErrorKind::ConnectionReset);
}

/// Goal: an end inside a packet stays one. Method: three of five bytes, then repeated calls.
#[test]
fn an_end_inside_a_packet_stays_one() {
    let (mut client, mut stream) = pair();
    stream.write_all(b"\x00\x03o").unwrap();
    drop(stream);
    for _ in 0..3 {
        assert!(matches!(client.receive(), Err(ClientError::ClosedMidPacket { have: 3 })));
    }
}

/// Goal: after a timeout the client works on: it returns later packets, then a reset. Method: a
/// server that sends when the test wants it.
#[test]
fn a_timeout_is_not_permanent() {
    let (client, mut stream) = pair();
    let mut client = client.timeout(Duration::from_millis(1));
    for said in [&b"\x00"[..], b"\x03o", b"n"] {
        stream.write_all(said).unwrap();
        assert!(matches!(client.receive(), Err(ClientError::Timeout { .. })));
    }
    client.send("question").unwrap();
    let mut question = [0; 10];
    stream.read_exact(&mut question).unwrap();
    stream.write_all(b"e").unwrap();
    let mut client = client.timeout(Duration::from_secs(30));
    assert_eq!(client.receive().unwrap(), b"one");
    reset(stream);
    expect_io(client.receive(), ErrorKind::ConnectionReset);
    expect_io(client.receive(), ErrorKind::ConnectionReset);
}

/// Goal: a connection that the kernel gave up, because no data is acknowledged, is reported as
/// broken and not as a timeout. Method: a server that reads nothing, and a kernel limit of 50 ms.
#[test]
fn a_connection_that_timed_out_in_the_kernel_is_broken() {
    let (client, _stream) = pair();
    let mut client = client.framing(LengthField::U32.max_packet(64 << 20));
    let patience = Some(Duration::from_millis(50));
    SockRef::from(client.stream()).set_tcp_user_timeout(patience).unwrap();
    expect_io(client.send(vec![0; 32 << 20]), ErrorKind::TimedOut);
    expect_io(client.receive(), ErrorKind::TimedOut);
    expect_io(client.receive(), ErrorKind::TimedOut);
}

/// Goal: a refused packet is a permanent error, whatever bytes follow. Another framing can still
/// read the bytes. Method: a packet that is too large, another one after it, and then a higher
/// limit.
#[test]
fn a_packet_that_is_too_large_is_a_permanent_error() {
    let (client, mut stream) = pair();
    let mut client = client.framing(LengthField::U16.max_packet(3));
    stream.write_all(b"\x00\x05large").unwrap();
    for _ in 0..3 {
        stream.write_all(b"\x00\x03one").unwrap();
        let result = client.receive();
        let Err(ClientError::Frame(error)) = result else { panic!("{result:?}") };
        assert_eq!(error, FrameError::TooLarge { len: 5, max: 3 });
    }
    client.send("one").unwrap();
    let mut client = client.framing(LengthField::U16);
    assert_eq!(client.receive().unwrap(), b"large");
    assert_eq!(client.receive().unwrap(), b"one");
}

/// Consumes nothing in its first call, and one byte in each later call.
#[derive(Default)]
struct Moody(AtomicBool);

impl Framer for Moody {
    fn decode(&self, _: &[u8], _: usize) -> Result<Decode, FrameError> {
        let consumed = usize::from(self.0.swap(true, Ordering::SeqCst));
        Ok(Decode::Frame { payload: 0..0, consumed })
    }

    fn encode(&self, _: &[u8], _: &mut Output<'_>) -> Result<(), FrameError> {
        Ok(())
    }
}

/// Goal: a framer that broke its contract is not called again. Method: a framer that breaks it in
/// its first call only.
#[test]
fn a_framer_that_broke_its_contract_is_not_called_again() {
    let (client, mut stream) = pair();
    let mut client = client.framing(Framing::custom(Moody::default()));
    stream.write_all(b"xyz").unwrap();
    for _ in 0..3 {
        assert!(matches!(client.receive(), Err(ClientError::FramerBug)));
    }
}

/// Goal: a `receive` that waits when the reset comes returns the reset too. Method: the reset comes
/// after the client's request.
#[test]
fn a_reset_while_receive_waits_stays_a_reset() {
    let (client, mut stream) = pair();
    let (sender, receiver) = channel();
    let waiting = thread::spawn(move || {
        let mut client = client;
        client.send("question").unwrap();
        sender.send(()).unwrap();
        expect_io(client.receive(), ErrorKind::ConnectionReset);
        expect_io(client.receive(), ErrorKind::ConnectionReset);
    });
    receiver.recv().unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    reset(stream);
    waiting.join().unwrap();
}

/// Goal: a request makes no system call that sets a timeout: the kernel has it from the first one, and
/// gets another only if the client does. Method: after the first request the test gives the kernel
/// other timeouts, behind the client's back. They are still there after all later requests.
#[test]
fn a_request_sets_no_timeout_of_its_socket() {
    let (client, mut server) = pair();
    let mut client = client.timeout(Duration::from_secs(20_000));
    let mut request = |client: &mut Client| {
        server.write_all(b"\x00\x02no").unwrap();
        assert_eq!(client.request("all well?").unwrap(), b"no");
        server.read_exact(&mut [0; 11]).unwrap();
    };
    request(&mut client);
    let timeouts = |client: &Client| {
        [client.stream().read_timeout(), client.stream().write_timeout()].map(Result::unwrap)
    };
    assert_eq!(timeouts(&client), [Some(Duration::from_secs(20_000)); 2]);
    let other = Some(Duration::from_secs(21_000));
    client.stream().set_read_timeout(other).unwrap();
    client.stream().set_write_timeout(other).unwrap();
    for _ in 0..100 {
        request(&mut client);
    }
    assert_eq!(timeouts(&client), [other; 2]);
    let mut client = client.timeout(Duration::from_secs(22_000));
    request(&mut client);
    assert_eq!(timeouts(&client), [Some(Duration::from_secs(22_000)); 2]);
}
