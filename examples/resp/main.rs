//! A server that speaks the protocol of Redis: strings that may expire, and publish and subscribe.
//!
//! ```text
//! cargo run --release --example resp
//! redis-cli set greeting hello ex 60
//! redis-cli get greeting
//! redis-cli subscribe news          # and in another terminal: redis-cli publish news rain
//! ```
//!
//! What it shows:
//!
//! - Nested framing with state: `protocol` finds requests in arrays of strings of any length.
//! - State that all connections of a thread share, without a lock: `store`.
//! - A channel is a `Group`, in `channels`: a message is framed once for all subscribers.
//! - A value is kept as it is sent. A long one is sent without a copy: `strings`.
//!
//! It keeps nothing on disk, evicts nothing, and knows no passwords. So it is for clients that are
//! trusted, as Redis is by default.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use condor::{Error, Framing, ListenerOptions, Raw, Reactor};

use client::{Client, Server};
use protocol::{MAX_PACKET, Requests};

mod channels;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod protocol;
mod store;
mod strings;

/// A client that has so many bytes of answers to read gets no more answers for now. A subscriber that
/// has is disconnected.
const HIGH_WATER: usize = 32 * 1024 * 1024;

/// A server that speaks the protocol of Redis.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:6379")]
    listen: SocketAddr,
    /// The most connections at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
}

fn main() -> ExitCode {
    common::exit_code("resp", serve(&Arguments::parse()))
}

fn serve(arguments: &Arguments) -> Result<(), Error> {
    common::start_log("info");
    let server = Rc::new(RefCell::new(Server::default()));
    let mut reactor = Reactor::new()?;
    let options = options(arguments.listen).max_connections(arguments.max_connections as usize);
    let listener = reactor.start_listener("resp", options, move |_peer| Client::new(&server))?;
    common::drain_on_signals(reactor.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    reactor.run()
}

/// Answers are put together by the handlers, so they leave as they are.
fn options(listen: SocketAddr) -> ListenerOptions {
    ListenerOptions::new(listen)
        .framing(Framing::split(Framing::custom(Requests), Raw))
        .max_packet(MAX_PACKET)
        .packet_timeout(Duration::from_secs(60)) // a long value over a slow line
        .write_high_water(HIGH_WATER)
        .write_low_water(HIGH_WATER / 2)
        .max_queued(HIGH_WATER + 2 * MAX_PACKET) // the longest value fits, and one more
        .memory_warning(usize::MAX) // the store has no limit either
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MAX_LINE, MAX_REQUEST};
    use crate::store::framed;
    use crate::strings::SHARED_FROM;
    use condor::CloseReason;
    use condor::testing::Harness;

    fn resp() -> Harness<Client> {
        resp_with(options("127.0.0.1:0".parse().unwrap()))
    }

    fn resp_with(options: ListenerOptions) -> Harness<Client> {
        let server = Rc::new(RefCell::new(Server::default()));
        Harness::new(options, move |_| Client::new(&server))
    }

    /// Sends a line, and returns the answer.
    fn ask(client: &Harness<Client>, line: &str) -> String {
        client.receive(format!("{line}\r\n"));
        answer(client)
    }

    fn answer(client: &Harness<Client>) -> String {
        String::from_utf8(client.sent()).unwrap()
    }

    fn array(words: &[&[u8]]) -> Vec<u8> {
        let strings: Vec<u8> = words.iter().flat_map(|word| framed(word)).collect();
        [format!("*{}\r\n", words.len()).as_bytes(), &strings].concat()
    }

    #[test]
    fn each_command_answers_as_redis_does() {
        let client = resp();
        let cases = [
            ("ping", "+PONG\r\n"),
            ("PiNg there", "$5\r\nthere\r\n"),
            ("echo \"\"", "$0\r\n\r\n"),
            ("get a", "$-1\r\n"),
            ("set a 1", "+OK\r\n"),
            ("get a", "$1\r\n1\r\n"),
            ("incr a", ":2\r\n"),
            ("incr new", ":1\r\n"),
            ("incrby new -5", ":-4\r\n"),
            ("mset b x c y", "+OK\r\n"),
            ("mget a b none c", "*4\r\n$1\r\n2\r\n$1\r\nx\r\n$-1\r\n$1\r\ny\r\n"),
            ("del a b none a", ":2\r\n"),
            ("get a", "$-1\r\n"),
            ("set c z nx", "$-1\r\n"),
            ("set d z XX", "$-1\r\n"),
            ("set d z nx", "+OK\r\n"),
            ("set d 1 xx", "+OK\r\n"),
            ("config get save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
            ("config get none", "*0\r\n"),
            ("select 0", "+OK\r\n"),
            ("client setname me", "+OK\r\n"),
            ("command", "*0\r\n"),
            ("unsubscribe", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"),
            ("", ""),
            ("   ", ""),
        ];
        for (line, expected) in cases {
            assert_eq!(ask(&client, line), expected, "{line}");
        }
        assert!(ask(&client, "info").contains("\r\nconnected_clients:1\r\n"));
        assert_eq!(ask(&client, "quit"), "+OK\r\n");
        assert_eq!(client.closed(), Some(CloseReason::Normal));
    }

    #[test]
    fn what_a_client_does_wrong_is_answered_and_it_may_go_on() {
        let client = resp();
        ask(&client, "mset text x most 9223372036854775807");
        let cases = [
            ("get", "wrong number of arguments for 'get' command"),
            ("GET a b", "wrong number of arguments for 'get' command"),
            ("mset a 1 b", "wrong number of arguments for 'mset' command"),
            ("config get", "wrong number of arguments for 'config|get' command"),
            ("config set a b", "unknown subcommand 'set'. Try CONFIG HELP."),
            ("client kill x", "unknown subcommand 'kill'. Try CLIENT HELP."),
            ("incr text", "value is not an integer or out of range"),
            ("incrby new x", "value is not an integer or out of range"),
            ("incr most", "increment or decrement would overflow"),
            ("select 1", "DB index is out of range"),
            ("select x", "value is not an integer or out of range"),
            ("set a b ex", "syntax error"),
            ("set a b ex 1 px 1", "syntax error"),
            ("set a b nx xx", "syntax error"),
            ("set a b other", "syntax error"),
            ("set a b ex x", "value is not an integer or out of range"),
            ("set a b ex 0", "invalid expire time in 'set' command"),
            ("set a b px -1", "invalid expire time in 'set' command"),
            ("set a b ex 9223372036854775807", "invalid expire time in 'set' command"),
            ("hello 3", "unknown command 'hello', with args beginning with: '3' "),
            ("\"a\\nb\" c", "unknown command 'a b', with args beginning with: 'c' "),
            ("\"\"", "unknown command '', with args beginning with: "),
        ];
        for (line, expected) in cases {
            assert_eq!(ask(&client, line), format!("-ERR {expected}\r\n"), "{line}");
        }
        let long = ask(&client, &format!("{} {} z", "x".repeat(500), "y".repeat(500)));
        assert!(long.len() < 350 && !long.contains('z'), "{long}");
        assert_eq!(ask(&client, "get a"), "$-1\r\n");
    }

    #[test]
    fn bytes_that_are_no_request_are_answered_and_end_the_connection() {
        let long = vec![b'x'; MAX_LINE + 1];
        let cases: [(&[u8], &str); 7] = [
            (b"*x\r\n", "invalid multibulk length"),
            (b"*2\r\n$3\r\nGET\r\n$-1\r\n", "invalid bulk length"),
            (b"*2\r\n$3\r\nGET\r\n$67108864\r\n", "invalid bulk length"),
            (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
            (b"*1\r\n\xff\r\n", "expected '$', got '\\xff'"),
            (b"ping \"\r\n", "unbalanced quotes in request"),
            (&long, "too big inline request"),
        ];
        for (bytes, expected) in cases {
            let client = resp();
            client.receive([b"ping\r\n", bytes].concat());
            let expected = format!("+PONG\r\n-ERR Protocol error: {expected}\r\n");
            assert_eq!(answer(&client), expected);
            assert_eq!(client.closed(), Some(CloseReason::Custom("not a request")));
        }
        let client = resp();
        for ignored in ["*0\r\n", "*-1\r\n", "\r\n", "\n"] {
            client.receive(ignored);
        }
        assert_eq!((answer(&client), client.closed()), (String::new(), None));
    }

    #[test]
    fn requests_cut_at_every_place_have_the_same_answers() {
        let session: Vec<u8> = [
            &array(&[b"SET", b"k", b"two\r\nlines", b"EX", b"9"])[..],
            b"get k\r\n*0\r\n\n",
            &array(&[b"MSET", b"", b"", b"n", b"41"]),
            b"*2\r\n$4\r\nincrxx$1\r\nnyy",
            &array(&[b"MGET", b"n", b"k", b"none", b""]),
            &array(&[b"nothing", b"x"]),
            b"subscribe a b\r\nping\r\nunsubscribe\r\necho 'x y'\r\n",
            b"*1\r\n$-5\r\nnever read\r\n",
        ]
        .concat();
        let answers = |pieces: &[&[u8]]| {
            let client = resp();
            pieces.iter().for_each(|piece| client.receive(piece));
            assert_eq!(client.closed(), Some(CloseReason::Custom("not a request")));
            answer(&client)
        };
        let whole = answers(&[&session]);
        assert!(whole.contains("$10\r\ntwo\r\nlines\r\n:") || whole.contains(":42\r\n"), "{whole}");
        for cut in 1..session.len() {
            assert_eq!(answers(&[&session[..cut], &session[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(answers(&session.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    }

    #[test]
    fn a_key_expires_by_the_clock_of_the_reactor() {
        let (client, second) = (resp(), Duration::from_secs(1));
        ask(&client, "set long x ex 2");
        ask(&client, "set short 1 px 1500");
        client.advance(second);
        assert_eq!(ask(&client, "mget long short"), "*2\r\n$1\r\nx\r\n$1\r\n1\r\n");
        assert_eq!(ask(&client, "incr short"), ":2\r\n", "it keeps its time");
        client.advance(second / 2);
        assert_eq!(ask(&client, "mget long short"), "*2\r\n$1\r\nx\r\n$-1\r\n");
        ask(&client, "set long y");
        client.advance(100 * second);
        assert_eq!(ask(&client, "get long"), "$1\r\ny\r\n", "the second SET has no time");
        assert!(ask(&client, "info").contains("keys=1,expires=0\r\n"));
    }

    #[test]
    fn subscribers_get_what_is_published_and_may_do_little_else() {
        let one = resp();
        let (two, three) = (one.connect(), one.connect());
        assert_eq!(
            ask(&one, "subscribe a b a"),
            "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n\
             *3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:2\r\n"
        );
        ask(&two, "subscribe a");
        assert_eq!(ask(&three, "publish a 'it rains'"), ":2\r\n");
        let message = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$8\r\nit rains\r\n";
        assert_eq!((answer(&one), answer(&two)), (message.into(), message.into()));
        assert_eq!(ask(&three, "publish none x"), ":0\r\n");
        assert!(ask(&one, "GET a").starts_with("-ERR Can't execute 'get': only "));
        assert_eq!(ask(&one, "ping"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        assert_eq!(ask(&one, "ping x"), "*2\r\n$4\r\npong\r\n$1\r\nx\r\n");
        assert_eq!(ask(&one, "unsubscribe c"), "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:2\r\n");
        assert_eq!(
            ask(&one, "unsubscribe"),
            "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n"
        );
        assert_eq!(ask(&one, "get a"), "$-1\r\n");
        assert_eq!(ask(&three, "publish a x"), ":1\r\n");
        two.peer_closes();
        assert_eq!(ask(&three, "publish a x"), ":0\r\n");
        assert!(ask(&three, "info").contains("pubsub_channels:0\r\n"));
        assert_eq!(answer(&one), "");
    }

    #[test]
    fn a_publisher_without_room_waits_and_loses_nothing() {
        let one = resp_with(options("127.0.0.1:0".parse().unwrap()).mailbox_capacity(4));
        let two = one.connect();
        ask(&one, "subscribe a");
        two.receive("publish a x\r\n".repeat(1_000) + "ping\r\n");
        assert_eq!(answer(&one), "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n".repeat(1_000));
        assert_eq!(answer(&two), ":1\r\n".repeat(1_000) + "+PONG\r\n");
    }

    #[test]
    fn a_channel_too_many_is_refused() {
        let one = resp_with(options("127.0.0.1:0".parse().unwrap()).max_groups(1));
        ask(&one, "subscribe a");
        assert!(ask(&one, "subscribe b").starts_with("-ERR "));
        assert_eq!(ask(&one.connect(), "publish b x"), ":0\r\n");
    }

    #[test]
    fn long_values_are_whole_and_take_no_memory_for_each_reader() {
        let client = resp();
        for len in [SHARED_FROM - 10, SHARED_FROM, 1_000_000] {
            let value = vec![b'v'; len];
            client.receive(array(&[b"SET", b"k", &value]));
            assert_eq!(answer(&client), "+OK\r\n");
            client.receive("get k\r\n".repeat(3) + "ping\r\n");
            let expected = [&framed(&value).repeat(3)[..], b"+PONG\r\n"].concat();
            assert!(client.sent() == expected, "{len} bytes");
        }
        client.peer_stalls();
        client.receive("get k\r\n".repeat(20));
        assert_eq!(client.closed(), None);
        client.peer_reads_all();
        assert_eq!(client.sent().len(), 20 * framed(&vec![b'v'; 1_000_000]).len());
    }

    #[test]
    fn the_longest_request_is_taken_and_a_length_alone_takes_no_memory() {
        let client = resp();
        let value = vec![b'v'; MAX_REQUEST - 40];
        client.receive(array(&[b"SET", b"k", &value]));
        assert_eq!(answer(&client), "+OK\r\n");
        client.receive("get k\r\n");
        assert!(client.sent() == framed(&value));
        client.receive("*1048576\r\n$60000000\r\n");
        let held = client.leftovers();
        assert!(held.buffered_bytes < 1_000, "{held:?}");
    }
}
