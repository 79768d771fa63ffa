//! PROXY headers over real sockets: on shards, over Unix sockets, and on adopted connections.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix;
use std::os::unix::net::UnixStream;
use std::thread;

use condor::{
    Action, Context, Endpoint, Handler, ListenerHandle, ListenerOptions, Proxy, ProxyHeader,
    ProxyVersion, ReactorOptions, Stats,
};
use socket2::{Domain, Socket, Type};

use crate::support::{Server, until};

/// Answers each packet with its peer, its proxy and its thread.
struct Tells;

impl Handler for Tells {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        let packet = String::from_utf8_lossy(packet);
        let (peer, via, thread) = (ctx.peer_addr(), ctx.via_addr(), thread::current().id());
        Action::send(format!("{packet} {peer} {} {thread:?}", via.expect("it has a header")))
    }
}

fn start(shards: usize, options: ListenerOptions) -> (Server, ListenerHandle<()>) {
    Server::sharded(shards, ReactorOptions::default(), move |starter| {
        starter.start_listener("tells", options, |_: &condor::Accepted<'_>| Tells).unwrap()
    })
}

/// A header of version 2, for the client with this number.
fn header(number: u16) -> Vec<u8> {
    let (mut bytes, to) = (Vec::new(), Endpoint::from(([198, 51, 100, 1], 443)));
    let header = ProxyHeader::of(ProxyVersion::V2, &client(number), &to);
    header.with_checksum().write_to(&mut bytes);
    bytes
}

fn client(number: u16) -> Endpoint {
    Endpoint::from(([203, 0, 113, 9], number))
}

fn answer(stream: &mut impl Read) -> Vec<String> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap().split(' ').map(str::to_owned).collect()
}

/// Checks that each connection that came is accounted for.
#[track_caller]
fn balance(seen: &Stats) {
    let went = seen.made + seen.refused + seen.opening_failed + seen.opening;
    assert_eq!(seen.accepted + seen.adopted, went, "{seen:?}");
}

/// Goal: on shards a connection lives on any shard, and the packets behind its header get there.
/// Method: forty clients of two shards; the header comes with the packets, alone, or in two parts.
#[test]
fn a_header_is_read_on_one_shard_and_served_on_any() {
    let options = ListenerOptions::port(0).proxy(Proxy::required());
    let (server, listener) = start(2, options);
    let addr = listener.local_addr().as_inet().unwrap();
    let mut threads = BTreeSet::new();
    let mut clients = Vec::new();
    for number in 1..=40_u16 {
        let bytes = [&header(number)[..], b"\0\x03one\0\x03two"].concat();
        let mut stream = TcpStream::connect(addr).unwrap();
        let cut = [bytes.len(), header(number).len(), 20, 1][usize::from(number) % 4];
        stream.write_all(&bytes[..cut]).unwrap();
        if number % 3 == 0 {
            until("it was accepted", || listener.stats().accepted == number.into());
        }
        stream.write_all(&bytes[cut..]).unwrap();
        for packet in ["one", "two"] {
            let words = answer(&mut stream);
            let own = stream.local_addr().unwrap().to_string();
            assert_eq!(words[..3], [packet.to_owned(), client(number).to_string(), own]);
            threads.insert(words[3..].join(" "));
        }
        clients.push(stream);
    }
    assert_eq!(threads.len(), 2, "{threads:?}");
    balance(&server.handle.stats());
    assert_eq!(listener.stats().made, 40);
}

/// Goal: a header over a Unix socket tells the client, one of the network or of a Unix socket.
/// The proxy is the Unix peer, and networks do not concern it.
#[test]
fn a_header_comes_over_a_unix_socket() {
    let name = format!("condor-proxied-{}", std::process::id());
    let networks = ["192.0.2.0/24".parse().unwrap()];
    let options = ListenerOptions::unix_abstract(&name).proxy(Proxy::required().from(networks));
    let (_server, listener) = start(1, options);
    let addr = listener.local_addr();
    for from in [client(7), "unix:/run/client.sock".parse().unwrap()] {
        let to = match from {
            Endpoint::Inet(_) => Endpoint::from(([198, 51, 100, 1], 443)),
            _ => addr.clone(),
        };
        let mut bytes = Vec::new();
        ProxyHeader::of(ProxyVersion::V2, &from, &to).write_to(&mut bytes);
        let name = unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let mut stream = UnixStream::connect_addr(&name).unwrap();
        stream.write_all(&[&bytes[..], b"\0\x01?"].concat()).unwrap();
        assert_eq!(
            answer(&mut stream)[..3],
            ["?".to_owned(), from.to_string(), "unix:".to_owned()]
        );
    }
}

/// Goal: a connection that a handle gives to the listener begins with a header as well, on whichever
/// shard it lives. One that fails gives its place back.
#[test]
fn adopted_connections_have_headers_too() {
    let options = ListenerOptions::port(0).proxy(Proxy::required()).max_connections(8);
    let (server, listener) = start(2, options);
    for round in 0..3_u16 {
        let clients: Vec<_> = (1..=8_u16)
            .map(|number| {
                let (mut ours, theirs) = UnixStream::pair().unwrap();
                server.handle.adopt("tells", OwnedFd::from(theirs)).unwrap();
                if number % 2 == 0 {
                    ours.write_all(b"GET / HTTP/1.1\r\n").unwrap();
                    assert_eq!(ours.read(&mut [0]).unwrap_or(0), 0);
                    return ours;
                }
                let bytes = [&header(number)[..], b"\0\x01?"].concat();
                ours.write_all(&bytes[..9]).unwrap();
                ours.write_all(&bytes[9..]).unwrap();
                assert_eq!(answer(&mut ours)[1], client(number).to_string());
                ours
            })
            .collect();
        drop(clients);
        until("all have gone", || listener.stats().open == 0 && listener.stats().opening == 0);
        let seen = listener.stats();
        let four_each = u64::from(round + 1) * 4;
        assert_eq!((seen.made, seen.bad_headers), (four_each, four_each));
        balance(&seen);
    }
}

/// Goal: an address that may not send a header is closed before a byte is read, and the others are
/// served.
#[test]
fn an_address_outside_the_networks_is_closed() {
    let networks = ["127.0.0.1/32".parse().unwrap()];
    let options = ListenerOptions::port(0).proxy(Proxy::required().from(networks));
    let (_server, listener) = start(1, options);
    let addr = listener.local_addr().as_inet().unwrap();
    let from = |ip: [u8; 4]| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::from(ip), 0)).into()).unwrap();
        socket.connect(&addr.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let _ = stream.write_all(&[&header(1)[..], b"\0\x01?"].concat());
        stream
    };
    assert!(matches!(from([127, 0, 0, 2]).read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!((listener.stats().untrusted, listener.stats().bytes_in), (1, 0));
    assert_eq!(answer(&mut from([127, 0, 0, 1]))[1], client(1).to_string());
    balance(&listener.stats());
}
