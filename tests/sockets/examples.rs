//! The examples as programs: what they accept on the command line, what they print, and how they
//! end. Other tests, in the examples themselves, check what they do.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use condor::client::Client;
use socket2::{Domain, Socket, Type};

use crate::program::{Program, arguments_are_explained, zero_is_refused};
use crate::server::{behaves, line, serving};

/// For the servers that keep something.
const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/kept-by-an-example");

const SERVERS: [(&str, &[&str]); 13] = [
    ("chat", &[]),
    ("dnstap_collector", &[]),
    ("echo", &[]),
    ("epmd", &[]),
    ("gateway", &["--backend", "127.0.0.1:1"]),
    ("gateway", &["--backend", "127.0.0.1:1", "--pair"]),
    ("hub", &["--slow", "latest"]),
    ("metrics", &["--admin", "127.0.0.1:0"]),
    ("offload", &[]),
    ("own_loop", &[]),
    ("ping_server", &[]),
    ("replica", &["--log", FILE]),
    ("resp", &[]),
];

#[test]
fn every_server_takes_names_and_ends_on_a_signal() {
    for (name, others) in SERVERS {
        behaves(name, others);
    }
}

#[test]
fn every_example_explains_its_arguments() {
    for (name, others) in SERVERS {
        arguments_are_explained(name, others, "--listen <HOST:PORT>");
    }
    arguments_are_explained("call", &["127.0.0.1:1", "hello"], "--hex");
}

#[test]
fn zero_is_refused_where_it_means_nothing() {
    let options = ["--shards", "--max-connections", "--timeout", "--max-packet", "--idle"];
    for option in [&options[..], &["--keepalive", "--stats", "--first-packet"]].concat() {
        zero_is_refused("echo", &[], option);
    }
    zero_is_refused("metrics", &[], "--shards");
    zero_is_refused("offload", &[], "--workers");
    zero_is_refused("offload", &[], "--window");
    zero_is_refused("hub", &[], "--shards");
    zero_is_refused("hub", &[], "--max-connections");
    for option in ["--links", "--timeout", "--max-connections", "--shards"] {
        zero_is_refused("gateway", &["--backend", "127.0.0.1:1"], option);
    }
    zero_is_refused("resp", &[], "--max-connections");
    zero_is_refused("own_loop", &[], "--tick");
    zero_is_refused("call", &["127.0.0.1:1", "hello"], "--timeout");
}

/// Goal: `echo --stats 1 | head -1` continues to serve and does not panic. Method: the pipe is
/// closed after one line. The test then waits until the kernel has counted two more calls of
/// `write`.
#[test]
fn a_server_whose_output_is_closed_serves_on() {
    let (mut echo, addr) = serving("echo", &["--listen", "127.0.0.1:0", "--stats", "1"]);
    let path = format!("/proc/{}/io", echo.0.id());
    let writes = move || {
        let counts = std::fs::read_to_string(&path).unwrap();
        let writes = counts.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap();
        writes.parse::<u64>().unwrap()
    };
    echo.0.stdout = None;
    let before = writes();
    echo.until("two lines are lost", |_| writes() >= before + 2);
    let mut client = Client::connect(addr).unwrap();
    assert_eq!(client.request("still there").unwrap(), b"still there");
    drop(client);
    echo.signal("INT");
    let end = echo.end();
    assert_eq!(end.code, Some(0));
    assert!(!end.err.contains("panicked"), "{end:?}");
}

/// Goal: with `--first-packet`, connections that send nothing or half a packet make room for others.
/// Method: as many of them as `--max-connections`; the next client is served, and its connection stays.
#[test]
fn silent_clients_of_echo_make_room() {
    let few = ["--listen", "127.0.0.1:0", "--max-connections", "20", "--first-packet", "200"];
    let (echo, addr) = serving("echo", &few);
    let mut silent: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
    for half in &mut silent[..10] {
        half.write_all(b"\0\x05he").unwrap();
    }
    let mut client = Client::connect(addr).unwrap();
    assert_eq!(client.request("hello").unwrap(), b"hello");
    for peer in &mut silent {
        assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0, "no bytes are sent back");
    }
    assert_eq!(client.request("still here").unwrap(), b"still here");
    drop(client);
    echo.signal("INT");
    assert_eq!(echo.end().code, Some(0));
}

/// Goal: `echo --proxy` serves clients behind proxies in its networks, and closes all other
/// connections. Wrong networks are refused with what they should be. Method: a header, none, and a
/// proxy from elsewhere.
#[test]
fn echo_serves_clients_behind_proxies_in_its_networks() {
    let proxied = |networks: &str, bytes: &[u8]| {
        let (echo, addr) = serving("echo", &["--listen", "127.0.0.1:0", "--proxy", networks]);
        let mut stream = TcpStream::connect(addr).unwrap();
        // It may be closed already.
        let _ = stream.write_all(bytes);
        let mut answer = [0; 7];
        let is_answered = stream.read_exact(&mut answer).is_ok();
        assert!(!is_answered || &answer == b"\0\x05hello");
        drop(stream);
        echo.signal("INT");
        let end = echo.end();
        assert_eq!(end.code, Some(0), "{end:?}");
        (is_answered, end.err)
    };
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n\0\x05hello";
    assert!(proxied("10.0.0.0/8,127.0.0.0/8", header).0);
    let (is_answered, err) = proxied("127.0.0.1", b"\0\x05hello");
    assert!(!is_answered && err.contains("byte 0 belongs to no PROXY header"), "{err}");
    let (is_answered, err) = proxied("10.0.0.0/8", header);
    assert!(!is_answered && err.contains("peer 127.0.0.1:"), "{err}");
    for (networks, message) in [
        ("10.0.0.1/8", "10.0.0.1 has host bits; write 10.0.0.0/8, or 10.0.0.1"),
        ("10.0.0.0/8,", "\"\" is no network"),
        (
            "localhost",
            "\"localhost\" is no network: 10.0.0.0/8, fd00::/8 or an IP address is expected",
        ),
    ] {
        let end = Program::run("echo", &["--proxy", networks]);
        assert_eq!((end.code, end.out.as_str()), (Some(2), ""), "{networks}: {end:?}");
        assert!(end.err.contains(message), "{networks}: {end:?}");
    }
}

/// Goal: after the first signal a client may finish; the second signal does not wait for it. Method:
/// a client that reads the end of the stream and does not close.
#[test]
fn a_second_signal_ends_at_once() {
    let (echo, addr) = serving("echo", &["--listen", "127.0.0.1:0"]);
    let mut client = TcpStream::connect(addr).unwrap();
    client.write_all(b"\0\x05hello").unwrap();
    client.read_exact(&mut [0; 7]).unwrap();
    echo.signal("TERM");
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the drain closed its half");
    echo.signal("TERM");
    let end = echo.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    let message =
        "draining; a second signal ends every connection at once\nending every connection\n";
    assert!(end.err.starts_with(message), "{end:?}");
}

/// Goal: the commands that the README shows work. Method: the bytes of the printed line.
#[test]
fn ping_server_prints_what_to_try() {
    let (mut ping, addr) = serving("ping_server", &["--listen", "localhost:0"]);
    let hint = line(&mut ping);
    assert!(hint.contains(&format!("/dev/tcp/{}/{};", addr.ip(), addr.port())), "{hint:?}");
    let mut client = TcpStream::connect(addr).unwrap();
    client.write_all(b"\0\x04ping\0\x04stop").unwrap();
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).unwrap();
    assert_eq!(answers, b"\0\x04pong\0\x02ok");
    drop(client);
    ping.signal("INT");
    let end = ping.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.err.contains("listener \"ping\": stopped"), "not in the log: {end:?}");
}

#[test]
fn epmd_prints_the_port_that_it_has() {
    for listen in [":0", "127.0.0.1:0"] {
        let (_epmd, addr) = serving("epmd", &["--listen", listen]);
        let mut client = TcpStream::connect(addr).unwrap();
        client.write_all(b"\0\x01n").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, u32::from(addr.port()).to_be_bytes());
    }
}

/// Goal: a follower gets every entry once, in order, through the end of its leader and its own. Method:
/// both are killed and started again in turn, and entries are added after each start.
#[test]
fn replica_resumes_whichever_program_was_killed() {
    let folder = std::env::temp_dir().join(format!("condor-replica-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let log = |name| folder.join(name).to_str().unwrap().to_owned();
    let (leaders, followers) = (log("leader"), log("follower"));
    let lead = |listen: &str| serving("replica", &["--listen", listen, "--log", &leaders]);
    let follow = |listen: &str, leader: SocketAddr| {
        let leader = leader.to_string();
        let arguments = ["--listen", listen, "--log", &followers, "--leader", &leader];
        serving("replica", &arguments)
    };
    let (mut leader, addr) = lead("127.0.0.1:0");
    let (mut follower, reads) = follow("127.0.0.1:0", addr);
    let mut added = 0;
    for round in 0..4 {
        let mut writer = TcpStream::connect(addr).unwrap();
        let mut answers = BufReader::new(writer.try_clone().unwrap()).lines();
        for _ in 0..100 {
            writer.write_all(format!("ADD entry {added}\n").as_bytes()).unwrap();
            assert_eq!(answers.next().unwrap().unwrap(), format!("OK {added}"));
            added += 1;
        }
        let mut reader = TcpStream::connect(reads).unwrap();
        reader.write_all(b"FROM 0\n").unwrap();
        let entries = BufReader::new(reader).lines().take(added);
        for (nth, entry) in entries.enumerate() {
            assert_eq!(entry.unwrap(), format!("{nth} entry {nth}"), "round {round}");
        }
        if round % 2 == 0 {
            drop(leader);
            (leader, _) = lead(&addr.to_string());
        } else {
            drop(follower);
            (follower, _) = follow(&reads.to_string(), addr);
        }
    }
    for program in [leader, follower] {
        program.signal("TERM");
        assert_eq!(program.end().code, Some(0));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Goal: `hub` serves its clients although its Redis does not answer, says so, and ends on a signal.
/// Method: a port on which nothing listens.
#[test]
fn hub_serves_its_clients_without_its_redis() {
    // A port that is taken, and where nothing listens.
    let nothing = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    nothing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let redis = nothing.local_addr().unwrap().as_socket().unwrap().to_string();
    let (mut hub, addr) =
        serving("hub", &["--listen", "127.0.0.1:0", "--shards", "2", "--redis", &redis]);
    let mut clients = [(); 4].map(|()| TcpStream::connect(addr).unwrap());
    for (nth, client) in clients.iter_mut().enumerate() {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(format!("SUB own\nPUB own {nth}\n").as_bytes()).unwrap();
        let line = BufReader::new(client).lines().next().unwrap().unwrap();
        assert!(line.starts_with("MSG own "), "{line}");
    }
    drop(clients);
    let until = format!("redis: until {redis} answers, this hub serves its own clients only");
    let mut lines = BufReader::new(hub.0.stderr.take().unwrap()).lines();
    for said in [until.as_str(), "check the targets"] {
        assert!(lines.any(|line| line.unwrap().contains(said)), "{said}");
    }
    hub.signal("TERM");
    drop(lines);
    let end = hub.end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

/// Goal: `gateway` answers with the packets of its backends, with errors while there is none, and with
/// packets again once one is back, by itself. Method: `echo` is killed, and started again.
#[test]
fn gateway_goes_on_when_its_backends_do_not() {
    let (echo, backend) = serving("echo", &["--listen", "127.0.0.1:0"]);
    let (gateway, addr) = serving(
        "gateway",
        &["--listen", ":0", "--backend", &backend.to_string(), "--links", "1", "--shards", "2"],
    );
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(addr).unwrap()).collect();
    let mut answered = |is_expected: fn(&[u8]) -> bool| {
        for client in &mut clients {
            while !is_expected(&client.request("hello").unwrap()) {}
        }
    };
    answered(|answer| answer == b"hello");
    drop(echo);
    answered(|answer| answer == b"ERR no backend is connected");
    let (_echo, _) = serving("echo", &["--listen", &backend.to_string()]);
    answered(|answer| answer == b"hello");
    gateway.signal("TERM");
    drop(clients);
    assert_eq!(gateway.end().code, Some(0));
}

/// Goal: `gateway --pair` carries any protocol to a server of its own, and passes on both ends. Method:
/// `epmd`, which answers without a length, and ends the connection after the answer.
#[test]
fn gateway_carries_any_protocol() {
    let (_epmd, backend) = serving("epmd", &["--listen", "127.0.0.1:0"]);
    let arguments =
        ["--listen", ":0", "--backend", &backend.to_string(), "--pair", "--shards", "2"];
    let (gateway, addr) = serving("gateway", &arguments);
    for _ in 0..4 {
        let mut client = TcpStream::connect(addr).unwrap();
        client.write_all(b"\0\x01n").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, u32::from(backend.port()).to_be_bytes());
    }
    gateway.signal("TERM");
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn gateway_refuses_what_makes_no_sense() {
    let backend = "--backend=127.0.0.1:1";
    for (arguments, message) in [
        (&[][..], "--backend <HOST:PORT>"),
        (&["--backend", "127.0.0.1"], "\"127.0.0.1\": it is not HOST:PORT, such as 127.0.0.1:5555"),
        (&["--backend", "127.0.0.1:1,"], "\"\": it is not HOST:PORT"),
        (&[backend, "--links", "65"], "'65' for '--links <N>': 65 is not in 1..=64"),
        (&[backend, "--links", "2", "--pair"], "cannot be used with '--pair'"),
        (&[backend, "--len", "3"], "'3' for '--len <1|2|4>'"),
        (&[backend, "--timeout", "soon"], "'soon' for '--timeout <MILLISECONDS>'"),
        (&[backend, "--busy-poll", "-1"], "unexpected argument '-1'"),
        (&[backend, "--shards", "1025"], "1025 is not in 1..=1024"),
    ] {
        let end = Program::run("gateway", arguments);
        assert_eq!((end.code, end.out.as_str()), (Some(2), ""), "{arguments:?}: {end:?}");
        assert!(end.err.contains(message), "{arguments:?}: {end:?}");
    }
    let end = Program::run("gateway", &["--listen=:0", backend, "--max-connections", "5000000"]);
    assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{end:?}");
    assert!(end.err.contains("max_connections of 5000000 is above 4194303"), "{end:?}");
}

// ---- call ----

/// The output of `call` for these arguments after the server's address.
fn call(arguments: &[&str], input: &[u8]) -> crate::program::End {
    let (_echo, addr) = serving("echo", &["--listen", "127.0.0.1:0"]);
    // By name, unless the name may resolve to another address than the server's.
    let server = format!("{}:{}", if input.is_empty() { "localhost" } else { "" }, addr.port());
    Program::start("call", &[&[server.as_str()], arguments].concat(), input).end()
}

#[test]
fn call_sends_arguments_and_lines() {
    for (arguments, input, answers) in [
        (&["ping", "two words", ""][..], &b""[..], "ping\ntwo words\n\n"),
        (&["--hex", "00ff", "", "DE ad"], b"", "00ff\n\ndead\n"),
        (&["-"], b"one\n\nthree \xff\r\nlast", "one\n\nthree \\xff\\r\nlast\n"),
        (&["-"], b"", ""),
        (&["--hex", "-"], b"00\n\n0a 0B\r\n2d", "00\n\n0a0b\n2d\n"),
    ] {
        let end = call(arguments, input);
        assert_eq!((end.code, end.out.as_str()), (Some(0), answers), "{arguments:?}: {end:?}");
        assert_eq!(end.err, "", "{arguments:?}");
    }
}

#[test]
fn call_refuses_what_makes_no_sense() {
    for (arguments, input, code, message, answers) in [
        (&["--hex", "0g"][..], &b""[..], 2, "`0g`: `g` is no hexadecimal digit", ""),
        (&["--hex", "00", "012"], b"", 2, "`012`: 3 hexadecimal digits", ""),
        (&["--hex", "-"], b"00\n\n1\n", 2, "line 3 of stdin: `1`: 1 hexadecimal digits", "00\n\n"),
        (&["one", "-"], b"", 2, "goes with no other packets", ""),
        (&["--len", "3", "a"], b"", 2, "a length has 1, 2 or 4 bytes", ""),
        (&["--len", "1", &"a".repeat(256)], b"", 2, "256 bytes exceeds the maximum of 255", ""),
        (&["--len", "1", "-"], &[b'a'; 256], 2, "line 1 of stdin: a packet of 256 bytes", ""),
        (&["send_and_stop", "more"], b"", 1, "closed by the server", "send_and_stop\n"),
        (&["--len", "1", "--timeout", "10", "a"], b"", 1, "no answer within 10ms", ""),
    ] {
        let end = call(arguments, input);
        assert_eq!((end.code, end.out.as_str()), (Some(code), answers), "{arguments:?}: {end:?}");
        assert!(end.err.contains(message), "{arguments:?}: {end:?}");
    }
    for server in ["a..b:5555", "localhost"] {
        let end = Program::run("call", &[server, "hello"]);
        assert_eq!(end.code, Some(1), "{end:?}");
        assert!(end.err.contains(&format!("cannot connect to \"{server}\"")), "{end:?}");
    }
}

/// Goal: `call ... | head -1` ends without a message. Method: the read end of its output is closed
/// before the answer comes.
#[test]
fn call_whose_output_is_closed_ends_quietly() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let mut call = Program::start("call", &[&server, "hello"], b"");
    let (mut stream, _) = listener.accept().unwrap();
    call.0.stdout = None;
    stream.write_all(b"\0\x02hi").unwrap();
    let end = call.end();
    assert_eq!((end.code, end.err.as_str()), (Some(0), ""));
}

/// Goal: lost answers are a failure, unless the reader has closed the pipe. Method: a full disk
/// (`/dev/full`).
#[test]
#[cfg(target_os = "linux")]
fn call_whose_answers_cannot_be_written_fails() {
    let (_echo, addr) = serving("echo", &["--listen", "127.0.0.1:0"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let call = Program::start_into(full.into(), "call", &[&addr.to_string(), "hello"], b"");
    let end = call.end();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.err.starts_with("call: cannot write the answers: No space left"), "{end:?}");
}
