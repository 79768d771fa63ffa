//! The peer's end of a real connection: half-closed, inside a packet, reset, or with an urgent byte.

use std::sync::mpsc::channel;

use condor::{Action, CloseKind, CloseReason, Info, ListenerHandle, ListenerOptions, Reactor};

use crate::support::{Client, Script, Server, drive, framed, next, until};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

fn numbered(count: u32) -> Vec<u8> {
    (0..count).flat_map(|n| framed(&n.to_be_bytes())).collect()
}

/// A server of one listener that the test turns, and the reasons with which its connections end.
fn by_hand(
    options: ListenerOptions,
) -> (Reactor, ListenerHandle<()>, std::sync::mpsc::Receiver<CloseReason>) {
    let (ends, ended) = channel();
    let mut reactor = Reactor::new().unwrap();
    let factory = move |_: &condor::Accepted<'_, _>| Script::<()>::new().ends(&ends);
    let listener = reactor.start_listener("test", options, factory).unwrap();
    (reactor, listener, ended)
}

/// Goal: every packet that came before the peer closed its sending half is answered; then the stream
/// ends. Method: a hundred pipelined packets and the end, all sent before the server's first turn.
#[test]
fn a_half_closed_peer_gets_all_answers_and_then_the_end() {
    let (mut reactor, listener, ended) = by_hand(any_port());
    let mut client = Client::connect(listener.local_addr());
    client.raw(&numbered(100));
    client.finish();
    drive(&mut reactor, "the connection ends", || listener.stats().closed_total() == 1);
    assert!(client.read_to_end() == numbered(100));
    assert_eq!(next(&ended), CloseReason::PeerClosed);
    drive(&mut reactor, "no lingering after the end of input", || listener.stats().open == 0);
}

/// Goal: the same if the end arrives separately, after the answers. Method: a request, then the
/// client's `shutdown`.
#[test]
fn an_end_between_packets_is_the_peers_close() {
    let (_server, listener, ended) = Server::echo(any_port());
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"hi"), b"hi");
    client.finish();
    client.expect_end();
    assert_eq!(next(&ended), CloseReason::PeerClosed);
    assert_eq!(listener.stats().closed(CloseKind::PeerClosed), 1);
}

/// Goal: an end inside a header or a payload reports how many bytes there were, after the packets
/// before it were answered. Method: a packet of four bytes, cut at each position.
#[test]
fn an_end_inside_a_packet_says_what_was_there() {
    let (_server, listener, ended) = Server::echo(any_port());
    for have in 1..6 {
        let mut client = Client::connect(listener.local_addr());
        client.raw(&[&framed(b"whole")[..], &framed(b"four")[..have]].concat());
        client.finish();
        assert_eq!(client.read_to_end(), framed(b"whole"));
        let CloseReason::PeerClosedMidPacket { have: had, want } = next(&ended) else {
            panic!("not cut inside a packet")
        };
        assert_eq!(had, have);
        // Inside the header the length is unknown: only the rest of the header is missing.
        assert!(want == Some(6) || have == 1 && want.is_none_or(|want| want == 2), "{want:?}");
    }
}

/// Goal: after the peer's end the queued output is still written. Method: a client that requests
/// megabytes, closes its sending half, and reads late.
#[test]
fn output_is_written_to_the_end_after_the_peer_has_finished() {
    let (ends, ended) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| {
        Script::<()>::new()
            .packet(|_, ctx| {
                for _ in 0..100 {
                    ctx.send(vec![9; 50_000]).unwrap();
                }
                Action::Continue
            })
            .ends(&ends)
    });
    let mut client = Client::with_small_window(listener.local_addr());
    client.send(b"much");
    client.finish();
    until("output is queued", || listener.stats().packets_out == 100);
    let rest = client.read_to_end();
    assert_eq!(rest.len(), 100 * 50_002);
    assert!(rest.chunks(50_002).all(|packet| packet == framed(&[9; 50_000])));
    assert_eq!(next(&ended), CloseReason::PeerClosed);
}

/// Goal: while reading is paused the end of input waits, and a later answer is sent before it takes
/// effect. Method: a handler that pauses, and answers with a message.
#[test]
fn an_end_after_a_pause_waits_for_the_answer() {
    let (_server, listener) = Server::one(any_port(), |_| {
        Script::<Vec<u8>>::new()
            .packet(|packet, ctx| {
                ctx.pause_reading();
                ctx.address().send(packet.to_vec()).unwrap();
                Action::Continue
            })
            .info(|info, ctx| match info {
                Info::Message(answer) => {
                    ctx.resume_reading();
                    Action::send(answer)
                }
                other => other.default_action(),
            })
    });
    let mut client = Client::connect(listener.local_addr());
    client.raw(&numbered(50));
    client.finish();
    assert!(client.read_to_end() == numbered(50));
}

/// Goal: an urgent byte between two packets loses neither of them and causes no busy loop. Method: a
/// packet, an urgent byte and a packet, all before the first read. Then turns with a timeout have to
/// last as long as that.
#[test]
fn an_urgent_byte_neither_loses_packets_nor_spins() {
    let (mut reactor, listener, _) = by_hand(any_port());
    let mut client = Client::connect(listener.local_addr());
    client.send(b"before");
    socket2::SockRef::from(&client.stream).send_out_of_band(b"!").unwrap();
    client.send(b"after");
    let both = [framed(b"before"), framed(b"after")].concat();
    drive(&mut reactor, "both answers", || client.arrived() == both.len());
    crate::support::settle(&mut reactor);
    for _ in 0..3 {
        let from = crate::support::now();
        let wait = std::time::Duration::from_millis(20);
        reactor.turn(Some(wait)).unwrap();
        assert!(from.elapsed() >= wait, "a turn ended without a cause");
    }
    // The same on an open connection, with the end right after the urgent byte.
    client.send(b"again");
    socket2::SockRef::from(&client.stream).send_out_of_band(b"?").unwrap();
    client.send(b"last");
    client.finish();
    drive(&mut reactor, "the end", || listener.stats().open == 0);
    let rest = client.read_to_end();
    assert_eq!(rest, [both, framed(b"again"), framed(b"last")].concat());
}

/// Goal: a reset after the end of input is a reset, although the kernel calls it a broken pipe.
/// Method: a client that shuts down its sending half, then resets; a handler that goes on.
#[test]
fn the_kernels_broken_pipe_after_the_end_is_a_reset() {
    let (ends, ended) = channel();
    let (told, is_told) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| {
        let told = told.clone();
        Script::<()>::new()
            .info(move |info, _| match info {
                Info::EndOfInput { .. } => {
                    told.send(()).unwrap();
                    Action::Continue
                }
                other => other.default_action(),
            })
            .ends(&ends)
    });
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"hi"), b"hi");
    client.finish();
    next(&is_told);
    assert_eq!(listener.stats().half_closed, 1);
    client.reset();
    assert_eq!(next(&ended), CloseReason::Reset);
    assert_eq!(listener.stats().half_closed, 0);
}

/// Goal: a reset ends its connection with `Reset`, wherever it hits, and no callback follows
/// `terminate`. Method: a reset after whole packets that were not read yet, in the middle of a
/// packet, and on an idle connection. The kernel may discard packets that it holds when the reset
/// comes.
#[test]
fn a_reset_ends_one_connection_only() {
    let (_server, listener, ended) = Server::echo(any_port());
    let mut bystander = Client::connect(listener.local_addr());
    for sent in [&numbered(100)[..], b"\x00\x09half", b""] {
        let mut client = Client::connect(listener.local_addr());
        assert_eq!(client.ask(b"hi"), b"hi");
        client.raw(sent);
        client.reset();
        assert!(matches!(next(&ended), CloseReason::Reset | CloseReason::Io(_)));
        assert_eq!(bystander.ask(b"and you?"), b"and you?");
    }
}

/// Goal: the connection that ended first is terminated first, as far as the kernel reports the
/// order. Method: one client leaves, then another one requests the count of open connections, both
/// before the server's next turn.
#[test]
fn an_end_is_delivered_before_a_later_clients_packet() {
    let names = std::rc::Rc::new(std::cell::Cell::new(0u32));
    let taken = std::rc::Rc::clone(&names);
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("test", any_port(), move |_| {
            taken.set(taken.get() + 1);
            Counted(std::rc::Rc::clone(&taken))
        })
        .unwrap();
    let mut first = Client::connect(listener.local_addr());
    let mut second = Client::connect(listener.local_addr());
    drive(&mut reactor, "both are here", || listener.stats().made == 2);
    first.finish();
    second.send(b"how many?");
    drive(&mut reactor, "an answer", || second.arrived() == 6);
    assert_eq!(second.receive(), 1u32.to_be_bytes());
    assert_eq!(first.read_to_end(), b"");
}

/// Counts the handlers that exist, and answers each packet with the count.
struct Counted(std::rc::Rc<std::cell::Cell<u32>>);

impl condor::Handler for Counted {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut condor::Context<'_, ()>) -> Action<'a> {
        Action::send(self.0.get().to_be_bytes().to_vec())
    }

    fn terminate(self, _: CloseReason) {
        self.0.set(self.0.get() - 1);
    }
}

/// Goal: a handler that ended its output still gets packets, over a real socket. Method: the client
/// reads the end of the stream and then continues to send. The server counts the packets, and the
/// connection ends with the client's half.
#[test]
fn a_client_that_has_seen_the_end_may_go_on_sending() {
    let (ends, ended) = channel();
    let (packets, received) = channel();
    let (_server, listener) = Server::one(any_port(), move |_| {
        let packets = packets.clone();
        Script::<()>::new()
            .packet(move |packet, ctx| {
                if packet == b"bye" {
                    ctx.send(vec![7; 300_000]).unwrap_err();
                    ctx.send(vec![7; 50_000]).unwrap();
                    ctx.end_output();
                } else {
                    packets.send(packet.to_vec()).unwrap();
                }
                Action::Continue
            })
            .ends(&ends)
    });
    let mut client = Client::connect(listener.local_addr());
    client.send(b"bye");
    assert_eq!(client.read_to_end(), framed(&[7; 50_000]));
    for packet in [&b"one"[..], b"two"] {
        client.send(packet);
        assert_eq!(next(&received), packet);
    }
    client.finish();
    assert_eq!(next(&ended), CloseReason::PeerClosed);
    until("no lingering after both halves", || listener.stats().open == 0);
}
