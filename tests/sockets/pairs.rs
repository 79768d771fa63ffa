//! Pairs over real sockets: a proxy on shards, with peers that are slow and that close halves.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use condor::{
    Action, Address, CloseReason, ConnectorHandle, ConnectorOptions, Context, Handler, Info,
    ListenerHandle, ListenerOptions, PairError, Raw, ReactorOptions,
};

use crate::support::{Server, until};

/// One end of a pair. That of a client dials the other one.
struct End(Option<(ConnectorHandle<()>, SocketAddr)>);

impl Handler for End {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        if let Some((connector, to)) = &self.0 {
            let upstream = ctx.dial(connector, *to).unwrap();
            ctx.pair(&upstream).unwrap();
        }
        Action::Continue
    }

    fn handle_packet<'a>(&'a mut self, bytes: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        ctx.forward(bytes).map(|()| Action::Continue).into()
    }
}

/// A proxy to this address.
fn proxy(
    shards: usize,
    to: SocketAddr,
) -> (Server, (ListenerHandle<()>, ConnectorHandle<()>, SocketAddr)) {
    Server::sharded(shards, ReactorOptions::default(), move |starter| {
        let options = ConnectorOptions::on_demand().framing(Raw);
        let connector = starter.handle().start_connector("up", options, |_| End(None)).unwrap();
        let by = connector.clone();
        let options = ListenerOptions::port(0).framing(Raw);
        let client = move |_: &condor::Accepted<'_>| End(Some((by.clone(), to)));
        let listener = starter.handle().start_listener("down", options, client).unwrap();
        let addr = listener.local_addr().as_inet().unwrap();
        (listener, connector, addr)
    })
}

/// A server that calls `serve` with each connection, on a thread of its own.
fn backend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    addr
}

/// Goal: answers that a server sends only once it has seen the end of input reach the client, each
/// client's its own. Method: twenty clients of a proxy on two shards.
#[test]
fn answers_after_half_a_close_come_back_on_every_shard() {
    let to = backend(|mut stream| {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        stream.write_all(&asked).unwrap();
    });
    let (server, (listener, connector, addr)) = proxy(2, to);
    let clients: Vec<_> = (0..20_u8)
        .map(|number| {
            let mut client = TcpStream::connect(addr).unwrap();
            client.write_all(&[number; 100]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client
        })
        .collect();
    for (number, mut client) in (0..).zip(clients) {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, [number; 100]);
    }
    until("all have ended", || listener.stats().open + connector.stats().open == 0);
    assert_eq!(listener.stats().closed(condor::CloseKind::PeerClosed), 20);
    assert!(connector.shard_stats().iter().all(|shard| shard.made > 0), "both shards have dialled");
    drop(server);
}

/// Goal: whatever the speeds of both sides, nothing is lost, and what waits in the proxy is bounded.
/// Method: 32 MiB to a reader that takes them piece by piece, while the other direction is silent.
#[test]
fn a_slow_reader_loses_nothing_and_holds_the_sender_back() {
    const TOTAL: usize = 32 << 20;
    let byte = |at: usize| (at / 7).to_le_bytes()[0];
    let to = backend(move |mut stream| {
        let all: Vec<u8> = (0..TOTAL).map(byte).collect();
        stream.write_all(&all).unwrap();
    });
    let (server, (listener, connector, addr)) = proxy(1, to);
    let mut client = TcpStream::connect(addr).unwrap();
    let (mut got, mut buffer) = (0, vec![0; 100_000]);
    while got < TOTAL {
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended after {got} bytes");
        assert!(buffer[..count].iter().enumerate().all(|(at, it)| *it == byte(got + at)));
        got += count;
        let waits = connector.stats().bytes_in.saturating_sub(listener.stats().bytes_out);
        assert!(waits <= 2 * 64 * 1024, "{waits} bytes wait: more than the mark and one read");
    }
    assert_eq!(client.read(&mut buffer).unwrap(), 0);
    assert!(listener.stats().high_water_hits > 0, "the reader was too fast");
    drop((client, server));
}

/// Where the connections of one test leave their addresses.
type Addresses = Arc<Mutex<Vec<Address<()>>>>;

/// Leaves its address, and answers a packet with the result of pairing with each of the others.
struct Pairs(Addresses);

impl Handler for Pairs {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        self.0.lock().unwrap().push(ctx.address());
        Action::Continue
    }

    fn handle_packet(&mut self, _: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        let others = self.0.lock().unwrap().clone();
        let results: Vec<_> = others.iter().map(|other| ctx.pair(other)).collect();
        let count = |error| results.iter().filter(|result| **result == Err(error)).count();
        let (own, elsewhere) = (count(PairError::Itself), count(PairError::Elsewhere));
        Action::send(format!("{own} {elsewhere} {}", results.len()))
    }

    fn handle_info<'a>(&'a mut self, info: Info<'a, ()>, _: &mut Context<'_, ()>) -> Action<'a> {
        info.default_action()
    }

    fn terminate(self, reason: CloseReason) {
        assert_ne!(reason, CloseReason::Panicked);
    }
}

/// Goal: connections of two shards are no pair. Method: two clients on two shards.
#[test]
fn connections_of_two_shards_are_no_pair() {
    let addresses = Addresses::default();
    let own = Arc::clone(&addresses);
    let (server, addr) = Server::sharded(2, ReactorOptions::default(), move |starter| {
        let factory = move |_: &condor::Accepted<'_>| Pairs(Arc::clone(&own));
        let listener = starter.handle().start_listener("two", ListenerOptions::port(0), factory);
        listener.unwrap().local_addr().as_inet().unwrap()
    });
    let mut clients = [(); 2].map(|()| TcpStream::connect(addr).unwrap());
    until("both are open", || addresses.lock().unwrap().len() == 2);
    clients[0].write_all(b"\0\x01?").unwrap();
    let mut answer = [0; 7];
    clients[0].read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\0\x051 1 2");
    drop(server);
}
