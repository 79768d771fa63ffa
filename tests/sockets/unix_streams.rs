//! Connections over Unix sockets: their ends, their drains, and the options that are for TCP alone.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use condor::{Accepted, Action, CloseReason, Info, ListenerHandle, ListenerOptions, Reactor};
use socket2::SockRef;

use crate::lines::{collect, complaints};
use crate::support::{Script, Server, drive, framed, until};
use crate::unix::Folder;

/// A handler that sends everything back, stops on `stop`, and goes on after the end of input until it
/// gets a message, which it sends.
fn handler(_: &Accepted<'_, &'static str>) -> Script<&'static str> {
    Script::new()
        .packet(|packet, _| match packet {
            b"stop" => Action::send_and_stop(packet.to_vec(), CloseReason::Normal),
            other => Action::send(other.to_vec()),
        })
        .info(|info, _| match info {
            Info::EndOfInput { .. } => Action::send("end"),
            Info::Message(message) => Action::send_and_stop(message, CloseReason::Normal),
            other => other.default_action(),
        })
}

fn start(options: ListenerOptions) -> (Server, ListenerHandle<&'static str>) {
    Server::one(options, handler)
}

fn all_of(mut client: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Goal: a peer that sends no more can still receive, as over TCP. Method: one that ends its half, then
/// a message to its handler.
#[test]
fn a_half_closed_peer_is_still_answered() {
    let folder = Folder::new("half");
    let (_server, listener) = start(ListenerOptions::unix(folder.file()));
    let mut client = UnixStream::connect(folder.file()).unwrap();
    client.write_all(&framed(b"first")).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    until("the end of input is told", || listener.stats().half_closed == 1);
    listener.broadcast("late").unwrap();
    assert_eq!(all_of(&client), [framed(b"first"), framed(b"end"), framed(b"late")].concat());
}

/// Goal: a peer gets the last answer and the end of the stream, although it has sent what is not read
/// any more. Without the lingering it gets a reset. Method: a stop with much input after it.
#[test]
fn a_connection_lingers_for_its_last_answer() {
    let folder = Folder::new("linger");
    let (_server, _) = start(ListenerOptions::unix(folder.file()));
    for _ in 0..20 {
        let mut client = UnixStream::connect(folder.file()).unwrap();
        client.write_all(&framed(b"stop")).unwrap();
        client.write_all(&[0; 100_000]).unwrap();
        assert_eq!(all_of(&client), framed(b"stop"));
    }
}

/// Goal: a drain serves the clients that have connected, as over TCP. Method: a client in the backlog
/// and one that is connected, each with a packet that no turn has read yet.
#[test]
fn a_drain_serves_the_clients_in_the_backlog() {
    let folder = Folder::new("drain");
    let mut reactor = Reactor::new().unwrap();
    let options = ListenerOptions::unix(folder.file());
    let listener = reactor.start_listener("unix", options, handler).unwrap();
    let mut connected = UnixStream::connect(folder.file()).unwrap();
    drive(&mut reactor, "it is connected", || listener.stats().made == 1);
    let mut waiting = UnixStream::connect(folder.file()).unwrap();
    connected.write_all(&framed(b"one")).unwrap();
    waiting.write_all(&framed(b"two")).unwrap();
    let drain = listener.stop().unwrap();
    drive(&mut reactor, "it is drained", || drain.report().is_some());
    assert_eq!(all_of(&connected), framed(b"one"));
    assert_eq!(all_of(&waiting), framed(b"two"));
}

/// Goal: options that are for TCP alone are not set on Unix sockets, and cause no warning. Method: a
/// listener with all of them, a client, and an adopted connection, of which the test keeps a
/// descriptor.
#[test]
fn options_of_tcp_are_left_out() {
    let folder = Folder::new("options");
    collect();
    let mut reactor = Reactor::new().unwrap();
    let options = ListenerOptions::unix(folder.file());
    let options = options.nodelay(true).v6_only(true).keepalive(Duration::from_secs(77));
    let listener = reactor.start_listener("unix", options, handler).unwrap();
    let _client = UnixStream::connect(folder.file()).unwrap();
    let (given, _adopted) = UnixStream::pair().unwrap();
    let kept = given.try_clone().unwrap();
    listener.adopt(given.into()).unwrap();
    drive(&mut reactor, "both are served", || listener.stats().made == 2);
    assert!(!SockRef::from(&kept).keepalive().unwrap());
    assert_eq!(complaints(), []);
}
