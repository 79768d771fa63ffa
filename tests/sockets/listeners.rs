//! Listeners over real sockets: starts, stops, addresses, limits and failures.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::client::ClientError;
use condor::testing::Harness;
use condor::{
    Action, CloseKind, CloseReason, Endpoint, Error, FrameError, Framing, FramingProblem, Handle,
    LengthField, Lines, ListenerOptions, MessageError, OptionsError, OptionsWarning, Proxy,
    ProxyVersion, Raw, Reactor, ReactorOptions, SendError, Shards,
};

use crate::support::{
    Client, First, PATIENCE, Script, Server, child, drive, inet, is_child, next, over, passes,
    until,
};

fn any_port() -> ListenerOptions {
    ListenerOptions::port(0)
}

fn echo() -> Script<()> {
    Script::new()
}

fn answering(text: &'static str) -> Script<()> {
    Script::new().packet(move |_, _| Action::send(text))
}

// ---- names and addresses ----

/// Goal: with port 0 every interface reports the real port. Method: the address from the handle and
/// from the list, and a connect.
#[test]
fn port_0_reports_the_real_port() {
    let (server, listener, _) = Server::echo(any_port());
    let addr = inet(listener.local_addr());
    assert_ne!(addr.port(), 0);
    assert!(addr.ip().is_loopback(), "the default is 127.0.0.1");
    let listed: Vec<_> = server.handle.listeners().into_iter().map(|(n, a, _)| (n, a)).collect();
    assert_eq!(listed, [("test".to_owned(), addr.into())]);
    assert_eq!(Client::connect(addr).ask(b"hi"), b"hi");
}

/// Goal: one reactor serves listeners of different handlers. Method: three types of message, one
/// answer each, and the name that the factory gets.
#[test]
fn listeners_of_different_handlers_live_on_one_reactor() {
    let (_server, (a, b, c)) = Server::start(|reactor| {
        let a = reactor.start_listener("a", any_port(), |_| answering("first")).unwrap();
        let b = reactor.start_listener("b", any_port(), |_| Script::<String>::new()).unwrap();
        let c = reactor.start_listener("c", any_port(), |peer| {
            let name = peer.listener().to_owned();
            Script::<u64>::new().packet(move |_, _| Action::send(name.clone()))
        });
        (a.local_addr(), b.local_addr(), c.unwrap().local_addr())
    });
    let mut clients = [a, b, c].map(Client::connect);
    assert_eq!(clients.each_mut().map(|client| client.ask(b"x")), [&b"first"[..], b"x", b"c"]);
}

/// Goal: a listener can be started before `run`, from another thread and from a callback, and is
/// served although the reactor has no other work. Method: each way in turn, with one client each.
/// The last callback before an idle poll starts the last listener.
#[test]
fn listeners_start_before_run_from_threads_and_from_callbacks() {
    let (server, first) = Server::start(|reactor| {
        let factory = |_: &condor::Accepted<'_, _>| {
            Script::<()>::new().packet(|_, ctx| {
                let inner = ctx.handle().start_listener("inner", any_port(), |_| answering("in"));
                Action::send(inner.unwrap().local_addr().to_string())
            })
        };
        reactor.start_listener("first", any_port(), factory).unwrap().local_addr()
    });
    let handle = server.handle.clone();
    let outer = thread::spawn(move || {
        handle.start_listener("outer", any_port(), |_| answering("out")).unwrap().local_addr()
    });
    assert_eq!(Client::connect(outer.join().unwrap()).ask(b""), b"out");
    let inner = String::from_utf8(Client::connect(first).ask(b"start")).unwrap();
    assert_eq!(Client::connect(inner.parse::<Endpoint>().unwrap()).ask(b""), b"in");
}

/// Goal: a callback may stop its own listener: no double borrow, no deadlock. Method: the answer
/// arrives, then the end. Afterwards the name is free.
#[test]
fn a_callback_may_stop_its_own_listener() {
    let (server, listener) = Server::one(any_port(), |_| {
        Script::<()>::new().packet(|_, ctx| {
            drop(ctx.handle().stop_listener("test").unwrap());
            Action::send("bye")
        })
    });
    let mut client = Client::connect(listener.local_addr());
    assert_eq!(client.ask(b"stop"), b"bye");
    client.expect_end();
    drop(client);
    until("the name is free", || server.handle.listeners().is_empty());
    server.handle.start_listener("test", any_port(), |_| echo()).unwrap();
}

/// Goal: a callback may stop the whole reactor. Method: `run` returns.
#[test]
fn a_callback_may_shut_the_reactor_down() {
    let (server, listener) = Server::one(any_port(), |_| {
        Script::<()>::new().packet(|_, ctx| {
            drop(ctx.handle().shutdown().unwrap());
            Action::Continue
        })
    });
    let mut client = Client::connect(listener.local_addr());
    client.send(b"stop");
    client.expect_end();
    drop(client);
    server.join();
}

/// Goal: a name is unique while it is in use, and an unknown name is an error that contains it.
/// Method: two starts, two stops, and a stop of a name that was never used.
#[test]
fn names_are_unique_and_unknown_names_are_errors() {
    let (server, _listener, _) = Server::echo(any_port());
    let handle = &server.handle;
    let twice = handle.start_listener("test", any_port(), |_| echo()).unwrap_err();
    assert!(matches!(&twice, Error::DuplicateName(name) if name == "test"), "{twice}");
    assert!(twice.to_string().contains("test"));
    let unknown = handle.stop_listener("unknown").unwrap_err();
    assert!(matches!(&unknown, Error::UnknownName(name) if name == "unknown"), "{unknown}");
    assert!(unknown.to_string().contains("unknown"));

    over(&handle.stop_listener("test").unwrap());
    assert!(matches!(handle.stop_listener("test"), Err(Error::UnknownName(_))));
    handle.start_listener("test", any_port(), |_| echo()).unwrap();
}

/// Goal: a name with a line break or a terminal control character is refused, with an error of one
/// line. All other names are accepted. Method: each kind of name, on a reactor and on a handle.
#[test]
fn a_name_that_breaks_a_line_is_refused() {
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.handle();
    for found in ['\n', '\r', '\0', '\x1b', '\x7f', '\u{85}', '\u{2028}', '\u{202e}', '\u{2066}'] {
        let bad = format!("a{found}b\n");
        let errors = [
            reactor.start_listener(&bad, any_port(), |_| echo()).unwrap_err(),
            handle.start_listener(&bad, any_port(), |_| echo()).unwrap_err(),
        ];
        for error in errors {
            let Error::BadName { name, found: named } = &error else { panic!("{error:?}") };
            assert_eq!((name, *named), (&bad, found));
            let line = error.to_string();
            assert!(!line.contains([found, '\n']), "{line:?}");
            assert!(line.contains(&format!("{found:?}").replace('\'', "")), "{line}");
        }
        let unknown = handle.stop_listener(&bad).unwrap_err();
        assert!(matches!(&unknown, Error::UnknownName(name) if *name == bad));
        assert!(!unknown.to_string().contains([found, '\n']), "{unknown}");
    }
    let unknown = handle.stop_listener(&"x".repeat(1_000_000)).unwrap_err();
    assert!(unknown.to_string().len() < 700, "an error is a line");
    for good in ["", "grüße aus köln", "日本", "a \"b\" \\ 'c'", "e\u{301}"] {
        let listener = reactor.start_listener(good, any_port(), |_| echo()).unwrap();
        assert_eq!(listener.name(), good);
    }
}

// ---- failures leave nothing behind ----

/// Starts a listener that cannot start, and checks that its name is free afterwards.
fn refused(handle: &Handle, options: ListenerOptions) -> Error {
    let error = handle.start_listener("new", options, |_| echo()).unwrap_err();
    assert!(error.to_string().contains("\"new\""), "the message names the listener: {error}");
    assert!(
        handle.listeners().iter().all(|(name, ..)| name != "new"),
        "the listener is listed: {error}"
    );
    let started = handle.start_listener("new", any_port(), |_| answering("up")).unwrap();
    assert_eq!(Client::connect(started.local_addr()).ask(b""), b"up");
    over(&started.stop().unwrap());
    error
}

/// Goal: a port in use is an error that names it and leaves nothing behind. Method: a start on a
/// port that is taken, then of the same name on another port, then on the same port once it is free.
#[test]
fn a_port_in_use_is_named_and_leaves_nothing_behind() {
    let (server, ..) = Server::echo(any_port());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = refused(&server.handle, ListenerOptions::port(addr.port()));
    assert!(matches!(&error, Error::AddressInUse { addr: named, .. } if *named == addr));
    assert!(error.to_string().contains(&addr.to_string()), "{error}");

    drop(taken);
    let options = ListenerOptions::port(addr.port());
    let started = server.handle.start_listener("again", options, |_| echo()).unwrap();
    assert_eq!(Client::connect(started.local_addr()).ask(b"hi"), b"hi");
}

/// Goal: an address of another machine is an error that names it. Method: an address reserved for
/// documentation; nothing is sent.
#[test]
fn an_address_of_another_machine_is_named() {
    let (server, ..) = Server::echo(any_port());
    let addr: SocketAddr = "192.0.2.1:5555".parse().unwrap();
    let error = refused(&server.handle, ListenerOptions::new(addr));
    assert!(matches!(&error, Error::NotLocal { addr: named, .. } if *named == addr), "{error}");
    assert!(error.to_string().contains("192.0.2.1:5555"), "{error}");
}

/// Goal: a port that needs a missing privilege is an error that names it. Method: port 80 in a
/// process that gave up its privileges. The test is skipped where every user may open that port.
#[test]
fn a_privileged_port_is_named() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.is_ok_and(|port| port.trim().parse::<u16>().is_ok_and(|port| port <= 80)) {
        return;
    }
    let error =
        Reactor::new().unwrap().start_listener("web", ListenerOptions::port(80), |_| echo());
    match error {
        Err(Error::Permission { addr, .. }) => assert_eq!(inet(addr).port(), 80),
        Err(Error::AddressInUse { .. }) => {}
        Ok(_) if !is_child() => {
            use std::os::unix::process::CommandExt;
            // Every user may execute files here. Another process copies the file: if this process
            // wrote it, a child of another test could inherit the open descriptor, and a file that
            // is open for writing cannot be executed.
            let copy = std::env::temp_dir().join(format!("condor-test-{}", std::process::id()));
            let mut copying = std::process::Command::new("cp");
            copying.arg(std::env::current_exe().unwrap()).arg(&copy);
            assert!(copying.status().unwrap().success());
            let mut command = std::process::Command::new(&copy);
            let given = child("listeners::a_privileged_port_is_named");
            command.args(given.get_args()).env("CONDOR_TEST_CHILD", "1");
            command.uid(65534).gid(65534).current_dir("/");
            let ran = catch_unwind(AssertUnwindSafe(|| passes(&mut command)));
            std::fs::remove_file(copy).unwrap();
            ran.unwrap();
        }
        other => panic!("{:?}", other.map(|listener| listener.local_addr())),
    }
}

/// Goal: all errors in the options are reported together, before a socket is bound; warnings prevent
/// no start. Method: options with every contradiction on a port that is taken. Then options with
/// every warning, which start.
#[test]
fn options_are_checked_whole_before_anything_is_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let nonsense = ListenerOptions::port(taken.local_addr().unwrap().port())
        .framing(LengthField::U16)
        .max_packet(70_000)
        .write_low_water(200_000)
        .write_high_water(100_000)
        .max_queued(50_000)
        .max_connections(0)
        .mailbox_capacity(0)
        .backlog(0);
    let found = nonsense.check().errors;
    for expected in [
        OptionsError::WaterMarks { low: 200_000, high: 100_000 },
        OptionsError::HighWaterAboveQueue { high: 100_000, max_queued: 50_000 },
        OptionsError::Zero("max_connections"),
        OptionsError::Zero("mailbox_capacity"),
        OptionsError::Zero("backlog"),
    ] {
        assert!(found.contains(&expected), "{expected} is not in {found:?}");
    }
    assert!(found.iter().any(|error| matches!(error, OptionsError::Framing(_))), "{found:?}");
    let queue = |e: &OptionsError| matches!(e, OptionsError::QueueSmallerThanPacket { .. });
    assert!(found.iter().any(queue), "{found:?}");

    let mut reactor = Reactor::new().unwrap();
    match reactor.start_listener("odd", nonsense, |_| echo()) {
        Err(Error::Options { name, errors }) => assert_eq!((name.as_str(), errors), ("odd", found)),
        other => panic!("bound before checked: {:?}", other.map(|l| l.local_addr())),
    }

    let doubtful = any_port()
        .framing(Framing::from(LengthField::U32))
        .max_connections(2_000_000)
        .memory_warning(1024)
        .packet_timeout(Duration::MAX)
        .backlog(1_000_000_000);
    let findings = doubtful.check();
    assert_eq!(findings.errors, []);
    assert_eq!(findings.warnings.len(), 4, "{:?}", findings.warnings);
    let worst = doubtful.worst_case_memory();
    let memory = OptionsWarning::WorstCaseMemory { bytes: worst, threshold: 1024 };
    assert!(findings.warnings.contains(&memory), "{:?}", findings.warnings);
    reactor.start_listener("odd", doubtful, |_| echo()).unwrap();
}

/// Goal: there is a warning if other machines can reach the listener and no timeout ends a silent
/// connection. Method: addresses of each kind, with each timeout, and with a timeout of `MAX`.
#[test]
fn a_listener_that_silent_peers_can_fill_is_warned_of() {
    let silent = OptionsWarning::SilentPeers { max_connections: 100 };
    let warns = |options: &ListenerOptions| options.check().warnings.contains(&silent);
    let on = |addr: &str| ListenerOptions::new(addr.parse::<SocketAddr>().unwrap());
    for near in ["127.0.0.1:0", "127.3.2.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        assert!(!warns(&on(near)), "{near}");
    }
    for far in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0", "[::ffff:192.0.2.1]:0"] {
        assert!(warns(&on(far)), "{far}");
        let (some, never) = (Duration::from_secs(60), Duration::MAX);
        assert!(!warns(&on(far).first_packet_timeout(some)), "{far}");
        assert!(!warns(&on(far).idle_timeout(some)), "{far}");
        assert!(!warns(&on(far).silence_timeout(some)), "{far}");
        assert!(warns(&on(far).first_packet_timeout(never).idle_timeout(never)), "{far}");
    }
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    assert!(warns(&ListenerOptions::from_std(socket)), "inherited");
    let text = silent.to_string();
    assert!(text.contains("100 connections") && text.contains("first_packet_timeout"), "{text}");
}

/// Goal: there is a warning if other machines can reach a listener that takes PROXY headers from all of
/// them. Lengths of headers that cannot be are errors.
#[test]
fn a_listener_that_trusts_every_header_is_warned_of() {
    let warns = |addr: [u8; 4], proxy| {
        let options = ListenerOptions::new((addr, 0)).proxy(proxy);
        options.check().warnings.contains(&OptionsWarning::AnyProxy)
    };
    let network = "10.0.0.0/8".parse().unwrap();
    assert!(warns([0, 0, 0, 0], Proxy::required()));
    assert!(!warns([127, 0, 0, 1], Proxy::required()));
    assert!(!warns([0, 0, 0, 0], Proxy::required().from([network])));
    assert!(!warns([0, 0, 0, 0], Proxy::mixed([network])));

    for everything in ["0.0.0.0/0", "::/0"] {
        let everything: condor::IpNetwork = everything.parse().unwrap();
        assert!(warns([0, 0, 0, 0], Proxy::mixed([everything])));
    }
    for none in [Proxy::required().from([]), Proxy::mixed([])] {
        let warnings = any_port().proxy(none).check().warnings;
        assert_eq!(warnings, [OptionsWarning::NoProxy]);
    }
    let over_unix = |mode| ListenerOptions::unix("/run/x").unix_mode(mode).proxy(Proxy::required());
    assert_eq!(over_unix(0o660).check().warnings, []);
    assert_eq!(over_unix(0o666).check().warnings, [OptionsWarning::AnyProxy]);
    let versions = Proxy::required().versions([ProxyVersion::V1]).require_checksum(true);
    assert_eq!(any_port().proxy(versions).check().errors, [OptionsError::ChecksumInVersion1]);

    let errors = |bytes| any_port().proxy(Proxy::required().max_header(bytes)).check().errors;
    let option = "max_header";
    assert_eq!(errors(106), [OptionsError::TooSmall { option, asked: 106, min: 107 }]);
    assert_eq!(errors(4_097), [OptionsError::TooLarge { option, asked: 4_097, max: 4_096 }]);
    assert_eq!([errors(107), errors(4_096)], [[], []]);
    let none = any_port().proxy(Proxy::required().versions([]));
    assert_eq!(none.check().errors, [OptionsError::NoProxyVersion]);
    let zeros = any_port().opening_timeout(Duration::ZERO).max_opening(0).check().errors;
    assert_eq!(zeros, [OptionsError::Zero("opening_timeout"), OptionsError::Zero("max_opening")]);
}

/// Goal: the worst case of a listener is told by what each limit adds, and is moderate by default.
/// Method: the default against its largest part, the output; then each limit raised alone.
#[test]
fn the_worst_case_grows_with_each_limit() {
    let worst = |options: ListenerOptions| options.worst_case_memory();
    let of = any_port;
    let default = worst(of());
    let output = 100 * 8 * 1024 * 1024;
    assert!((output..output * 5 / 4).contains(&default), "{default} bytes by default");
    let warnings = of().max_connections(1_000).check().warnings;
    let is_memory = |warning: &_| matches!(warning, OptionsWarning::WorstCaseMemory { .. });
    assert!(!warnings.iter().any(is_memory), "{warnings:?}");

    // An entry of the mailbox is in two queues.
    assert!(worst(of().mailbox_capacity(1 << 20)) > default + (1 << 20) * 2 * 64 - 65_536 * 200);
    assert!(worst(of().max_timers(2_048)) > default + 100 * 1_024 * 100);
    assert!(worst(of().max_queued(16 << 20)) > default + output);
    let framing = LengthField::U32;
    assert!(worst(of().framing(framing).max_packet(1 << 20)) > default + 100 * (1 << 20));
    assert!(worst(of().max_packet(512)) < default, "input has its part");
    assert!(worst(of().framing(Lines::new(1 << 20))) > worst(of().framing(framing)));
}

/// Goal: a value that makes an option useless, or that would end everything at once, is refused with
/// the option's name, the value and the limit. The nearest valid value is accepted. Method: each
/// option of a listener, at and beyond its limits.
#[test]
fn useless_values_of_a_listeners_options_are_refused() {
    use OptionsError::{Keepalive, Zero};
    const ZERO: Duration = Duration::ZERO;
    let keepalive = |asked| Keepalive { asked, max: 32_767 };
    let of = any_port;
    let secs = Duration::from_secs;
    for (options, expected) in [
        (of().max_connections(0), Zero("max_connections")),
        (of().mailbox_capacity(0), Zero("mailbox_capacity")),
        (of().max_timers(0), Zero("max_timers")),
        (of().backlog(0), Zero("backlog")),
        (of().max_packet(0), Zero("max_packet")),
        (of().framing(Raw).max_packet(0), Zero("max_packet")),
        (of().framing(LengthField::U32.max_packet(0)), Zero("max_packet")),
        (of().framing(Framing::split(Raw, LengthField::U8.max_packet(0))), Zero("max_packet")),
        (of().framing(Lines::new(0)), Zero("max_packet")),
        (of().packet_timeout(ZERO), Zero("packet_timeout")),
        (of().idle_timeout(ZERO), Zero("idle_timeout")),
        (of().silence_timeout(ZERO), Zero("silence_timeout")),
        (of().first_packet_timeout(ZERO), Zero("first_packet_timeout")),
        (of().write_stall_timeout(ZERO), Zero("write_stall_timeout")),
        (of().close_timeout(ZERO), Zero("close_timeout")),
        (of().keepalive(ZERO), keepalive(ZERO)),
        (of().keepalive(Duration::from_millis(500)), keepalive(Duration::from_millis(500))),
        (of().keepalive(Duration::from_millis(1_500)), keepalive(Duration::from_millis(1_500))),
        (of().keepalive(Duration::from_nanos(1)), keepalive(Duration::from_nanos(1))),
        (of().keepalive(secs(32_768)), keepalive(secs(32_768))),
        (of().keepalive(secs(65_537)), keepalive(secs(65_537))),
        (of().keepalive(secs(1 << 32)), keepalive(secs(1 << 32))),
        (of().keepalive(Duration::MAX), keepalive(Duration::MAX)),
    ] {
        assert_eq!(options.check().errors, std::slice::from_ref(&expected));
        let mut reactor = Reactor::new().unwrap();
        match reactor.start_listener("odd", options, |_| echo()) {
            Err(Error::Options { errors, .. }) => assert_eq!(errors, [expected]),
            other => panic!("{expected}: {:?}", other.map(|l| l.local_addr())),
        }
    }
    let text = keepalive(Duration::from_millis(500)).to_string();
    assert_eq!(text, "keepalive of 500ms is not a number of whole seconds from 1 to 32767");
    assert_eq!(Zero("max_packet").to_string(), "max_packet is zero, and has to be more");

    let nano = Duration::from_nanos(1);
    for options in [
        of().max_connections(1).mailbox_capacity(1).backlog(1).max_packet(1).max_timers(1),
        of().packet_timeout(nano).idle_timeout(nano).write_stall_timeout(nano).close_timeout(nano),
        of().linger_timeout(ZERO).drain_timeout(ZERO).write_low_water(0).memory_warning(0),
        of().keepalive(secs(1)).mailbox_capacity(usize::MAX).max_queued(usize::MAX),
        of().max_timers(usize::MAX).max_connections(4_194_303),
        of().keepalive(ListenerOptions::MAX_KEEPALIVE).backlog(u32::MAX),
        of().silence_timeout(nano).first_packet_timeout(nano),
        of().packet_timeout(Duration::MAX).idle_timeout(Duration::MAX),
        of().silence_timeout(Duration::MAX).first_packet_timeout(Duration::MAX),
        of().write_stall_timeout(Duration::MAX).close_timeout(Duration::MAX),
        of().linger_timeout(Duration::MAX).drain_timeout(Duration::MAX),
    ] {
        assert_eq!(options.check().errors, []);
        Reactor::new().unwrap().start_listener("odd", options, |_| echo()).unwrap();
    }
}

/// Goal: the same for a reactor's options, for every function that takes them: nothing is made and
/// nothing panics. Method: each option at and beyond its limits, alone and all together.
#[test]
fn useless_values_of_a_reactors_options_are_refused() {
    use OptionsError::{TooLarge, TooSmall, Zero};
    let new = ReactorOptions::new;
    let too_small = |asked| TooSmall { option: "read_buffer", asked, min: 4_096 };
    let too_large = |option, asked, max| TooLarge { option, asked, max };
    for (options, expected) in [
        (new().read_buffer(0), too_small(0)),
        (new().read_buffer(4_095), too_small(4_095)),
        (new().read_buffer((1 << 30) + 1), too_large("read_buffer", (1 << 30) + 1, 1 << 30)),
        (new().read_buffer(usize::MAX), too_large("read_buffer", usize::MAX, 1 << 30)),
        (new().packet_budget(0), Zero("packet_budget")),
        (new().accept_budget(0), Zero("accept_budget")),
        (new().message_budget(0), Zero("message_budget")),
        (new().timer_budget(0), Zero("timer_budget")),
        (new().events(0), Zero("events")),
        (new().events(16_385), too_large("events", 16_385, 16_384)),
        (new().events(usize::MAX), too_large("events", usize::MAX, 16_384)),
    ] {
        assert_eq!(options.check().errors, std::slice::from_ref(&expected));
        let refused = |made: Option<Error>| match made {
            Some(Error::ReactorOptions { errors }) => {
                assert_eq!(errors, std::slice::from_ref(&expected))
            }
            other => panic!("{expected}: {other:?}"),
        };
        refused(Reactor::with_options(options.clone()).err());
        refused(Shards::with_options(2, options.clone()).err());
        let listener = any_port();
        let harness = || Harness::with(options, listener, |_| echo());
        assert!(catch_unwind(AssertUnwindSafe(harness)).is_err(), "{expected}: a harness");
    }
    let all = new().read_buffer(usize::MAX).packet_budget(0).events(usize::MAX);
    let text = Reactor::with_options(all).unwrap_err().to_string();
    for part in [
        String::from("reactor: packet_budget is zero"),
        format!("read_buffer of {} is above 1073741824", usize::MAX),
        format!("events of {} is above 16384", usize::MAX),
    ] {
        assert!(text.contains(&part), "{part} is not in: {text}");
    }

    for options in [
        new().read_buffer(ReactorOptions::MIN_READ_BUFFER).events(1),
        new().packet_budget(1).accept_budget(1).message_budget(1).timer_budget(1),
        new().read_buffer(ReactorOptions::MAX_READ_BUFFER).events(ReactorOptions::MAX_EVENTS),
        new().packet_budget(u32::MAX).accept_budget(u32::MAX).message_budget(u32::MAX),
        new().timer_budget(usize::MAX).slow_turn(Duration::MAX).shutdown_delay(Duration::MAX),
        new().slow_turn(Duration::ZERO).busy_poll(Duration::ZERO).shutdown_delay(Duration::ZERO),
        new().busy_poll(Duration::MAX),
    ] {
        assert_eq!(options.check().errors, []);
        Reactor::with_options(options).unwrap().turn(Some(Duration::ZERO)).unwrap();
    }
}

/// Goal: `{:?}` of an error, which the standard library prints when `main` returns it, is a sentence
/// and not a data structure. `{:#?}` shows its fields. Method: both, for each type of error.
#[test]
fn an_error_that_ends_main_is_printed_as_a_sentence() {
    let io = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let (name, addr) = (String::from("dns"), Endpoint::from(([127, 0, 0, 1], 53)));
    let errors: [(Box<dyn std::error::Error>, &[&str]); 14] = [
        (
            Box::new(Error::AddressInUse { name: name.clone(), addr: addr.clone() }),
            &["AddressInUse", "addr: "],
        ),
        (Box::new(Error::Listen { name, addr: Some(addr), source: io() }), &["Listen", "source: "]),
        (Box::new(Error::DuplicateName("dns".into())), &["DuplicateName(", "\"dns\""]),
        (Box::new(Error::Gone), &["Gone"]),
        (Box::new(OptionsError::Zero("backlog")), &["Zero(", "\"backlog\""]),
        (Box::new(OptionsError::WaterMarks { low: 2, high: 1 }), &["WaterMarks", "low: 2"]),
        (Box::new(OptionsWarning::NoPacketTimeout), &["NoPacketTimeout"]),
        (Box::new(FramingProblem::Width(5)), &["Width(", "5"]),
        (Box::new(FrameError::TooLarge { len: 2, max: 1 }), &["TooLarge", "len: 2"]),
        (Box::new(SendError::Full { queued: 2, max: 1 }), &["Full", "queued: 2"]),
        (Box::new(MessageError::Full(7)), &["Full(", "7"]),
        (Box::new(ClientError::Closed), &["Closed"]),
        (Box::new(ClientError::ClosedMidPacket { have: 3 }), &["ClosedMidPacket", "have: 3"]),
        (Box::new(ClientError::Io(io())), &["Io(", "ConnectionReset"]),
    ];
    for (error, fields) in errors {
        assert_eq!(format!("{error:?}"), error.to_string());
        let shown = format!("{error:#?}");
        assert!(fields.iter().all(|field| shown.contains(field)), "{shown}");
    }
    let both = Error::Options {
        name: "odd".into(),
        errors: vec![OptionsError::Zero("backlog"), OptionsError::Zero("max_packet")],
    };
    let text = "listener \"odd\": backlog is zero, and has to be more; \
        max_packet is zero, and has to be more";
    assert_eq!(format!("{both:?}"), text);
    assert!(format!("{both:#?}").contains("Zero(\n"), "no nested fields: {both:#?}");
}

/// Goal: if descriptors for the event queue or the waker are missing, there is an error and no
/// panic. Method: a process that lowers its limit step by step.
#[test]
fn a_reactor_without_descriptors_is_an_error() {
    if !is_child() {
        return passes(&mut child("listeners::a_reactor_without_descriptors_is_an_error"));
    }
    let open = crate::support::descriptors();
    let free = (0..).find(|fd| !open.contains(fd)).unwrap();
    let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
    let mut refused = 0;
    for spare in 0..8 {
        rlimit::Resource::NOFILE.set(u64::from(free) + spare, hard).unwrap();
        match Reactor::new() {
            Ok(_) => break,
            Err(Error::Poll { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(24), "{source}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..8).contains(&refused), "{refused} limits were too low");
}

// ---- again and again ----

/// Goal: starts and stops leak nothing, and the port is free at once. Method: a thousand starts of
/// the same name and port in a separate process, with a connection in every tenth. Descriptors are
/// counted before and after.
#[test]
fn a_thousand_starts_and_stops_leave_no_descriptor() {
    if !is_child() {
        return passes(&mut child("listeners::a_thousand_starts_and_stops_leave_no_descriptor"));
    }
    let (server, listener, _) = Server::echo(any_port());
    let port = inet(listener.local_addr()).port();
    over(&listener.stop().unwrap());
    let before = crate::support::descriptors();
    for round in 0..1000 {
        let options = ListenerOptions::port(port);
        let listener = server.handle.start_listener("test", options, |_| echo()).unwrap();
        let client = (round % 10 == 0).then(|| {
            let mut client = Client::connect(listener.local_addr());
            assert_eq!(client.ask(b"hi"), b"hi");
            client
        });
        drop(client);
        over(&listener.stop().unwrap());
    }
    assert_eq!(crate::support::descriptors().len(), before.len());
    assert_eq!(server.stats().accepted, 100, "retired listeners count in the sum");
}

/// Goal: a server restarts at once on a port where it has just closed connections, although these
/// are in TIME_WAIT. Method: the server ends the connections first. Then a new reactor starts.
#[test]
fn a_server_restarts_at_once_on_the_same_port() {
    let (server, listener) = Server::one(any_port(), |_| {
        Script::<()>::new().packet(|_, _| Action::send_and_stop("bye", CloseReason::Normal))
    });
    let addr = inet(listener.local_addr());
    for _ in 0..20 {
        let mut client = Client::connect(addr);
        assert_eq!(client.ask(b""), b"bye");
        client.expect_end();
    }
    drop(server);
    let (_server, listener, _) = Server::echo(ListenerOptions::new(addr));
    assert_eq!(Client::connect(listener.local_addr()).ask(b"hi"), b"hi");
}

// ---- IPv6 ----

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// A handler that answers with the peer's address.
fn who() -> Script<()> {
    Script::new().packet(|_, ctx| Action::send(ctx.peer_addr().to_string()))
}

/// Goal: a listener on `[::1]` serves, and reports the peer's address. Method: the answer is that
/// address.
#[test]
fn ipv6_is_served() {
    if !has_ipv6() {
        return;
    }
    let options = ListenerOptions::new((Ipv6Addr::LOCALHOST, 0));
    let (_server, listener) = Server::one(options, |_| who());
    let mut client = Client::connect(listener.local_addr());
    let own = client.stream.local_addr().unwrap();
    assert_eq!(client.ask(b"who"), own.to_string().into_bytes());
}

/// Goal: a listener on `[::]` accepts both kinds of client, and reports IPv4 addresses as IPv4.
/// Method: one client of each kind; the address from the factory and from the context.
#[test]
fn the_unspecified_ipv6_address_takes_both() {
    if !has_ipv6() {
        return;
    }
    let (seen, saw) = channel();
    let options = ListenerOptions::new((Ipv6Addr::UNSPECIFIED, 0));
    let (_server, listener) = Server::one(options, move |peer| {
        seen.send(peer.peer_addr()).unwrap();
        Script::<()>::new().packet(|_, ctx| {
            Action::send(format!("{} {}", ctx.peer_addr(), ctx.local_addr().unwrap()))
        })
    });
    let port = inet(listener.local_addr()).port();
    for ip in ["127.0.0.1", "::1"] {
        let addr = SocketAddr::new(ip.parse().unwrap(), port);
        let mut client = Client::connect(addr);
        let own = client.stream.local_addr().unwrap();
        assert_eq!(next(&saw), own);
        assert_eq!(String::from_utf8(client.ask(b"")).unwrap(), format!("{own} {addr}"));
    }
}

/// Goal: a dual-stack listener does not take a port that an IPv4 listener has; an IPv6-only listener
/// can share the port number. Method: the same port on 127.0.0.1, then on `[::]` in both modes.
#[test]
fn dual_stack_does_not_take_an_ipv4_port() {
    if !has_ipv6() {
        return;
    }
    let (server, listener, _) = Server::echo(any_port());
    let four = inet(listener.local_addr());
    let both = ListenerOptions::new((Ipv6Addr::UNSPECIFIED, four.port()));
    let error = server.handle.start_listener("six", both.clone(), |_| echo()).unwrap_err();
    assert!(matches!(error, Error::AddressInUse { .. }), "{error}");
    let six = server.handle.start_listener("six", both.v6_only(true), |_| answering("six"));
    let port = inet(six.unwrap().local_addr()).port();
    assert_eq!(Client::connect(four).ask(b"four"), b"four");
    assert_eq!(Client::connect((Ipv6Addr::LOCALHOST, port)).ask(b""), b"six");
}

// ---- limits ----

/// Goal: at the limit clients wait. When one leaves the next is served, without a new connect.
/// Method: two slots, and five clients that all send at once. Each client that leaves makes room for
/// one.
#[test]
fn clients_beyond_the_limit_wait_and_are_served_in_turn() {
    let (server, listener, _) = Server::echo(any_port().max_connections(2));
    let addr = inet(listener.local_addr());
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(addr)).collect();
    for client in &mut clients {
        client.send(b"hi");
    }
    for (left, mut client) in clients.into_iter().enumerate() {
        assert_eq!(client.receive(), b"hi");
        until("as many as the limit are accepted", || {
            listener.stats().accepted == (left as u64 + 2).min(5)
        });
        assert!(listener.stats().open <= 2);
    }
    until("all have left", || server.stats().open == 0);
    assert_eq!(listener.stats().accepted, 5);
    assert!(listener.stats().connection_limit_hits > 0);
}

/// Goal: a lingering connection counts towards the limit. Method: one slot. Its peer gets the last
/// answer but does not close; the next client is accepted only when it does.
#[test]
fn a_lingering_connection_holds_its_slot() {
    let (ends, ended) = channel();
    let options = any_port().max_connections(1).linger_timeout(PATIENCE);
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("test", options, move |_| {
            Script::<()>::new()
                .packet(|_, _| Action::send_and_stop("bye", CloseReason::Normal))
                .ends(&ends)
        })
        .unwrap();
    let mut first = Client::connect(listener.local_addr());
    let mut second = Client::connect(listener.local_addr());
    first.send(b"stop");
    second.send(b"stop");
    drive(&mut reactor, "the answer", || first.arrived() == 5);
    crate::support::settle(&mut reactor);
    assert_eq!(first.read_to_end(), b"\x00\x03bye");
    assert_eq!(next(&ended), CloseReason::Normal);
    assert_eq!((listener.stats().accepted, listener.stats().open), (1, 1));
    drop(first);
    drive(&mut reactor, "the second's answer", || second.arrived() == 5);
    assert_eq!(listener.stats().closed(CloseKind::Normal), 2);
}

/// Goal: a burst of connects while a handler blocks needs no second SYN. Method: 300 connects while
/// a handler blocks. Each has less time than the kernel waits before it repeats the SYN. Then all
/// are served.
#[test]
fn a_burst_while_a_handler_blocks_is_taken_by_the_backlog() {
    let (go, wait) = channel::<()>();
    let (started, has_started) = channel();
    let wait = First::new(wait);
    let (_server, listener) = Server::one(any_port().max_connections(400), move |_| {
        let (wait, started) = (wait.take(), started.clone());
        Script::<()>::new().packet(move |packet, _| {
            if let (Some(wait), b"block") = (&wait, packet) {
                started.send(()).unwrap();
                wait.recv_timeout(PATIENCE).unwrap();
            }
            Action::send(packet.to_vec())
        })
    });
    let addr = inet(listener.local_addr());
    let mut blocker = Client::connect(addr);
    blocker.send(b"block");
    next(&has_started);
    let no_retransmit = Duration::from_millis(900);
    let mut burst: Vec<Client> = (0..300)
        .map(|_| Client::from(TcpStream::connect_timeout(&addr, no_retransmit).unwrap()))
        .collect();
    go.send(()).unwrap();
    assert_eq!(blocker.receive(), b"block");
    for client in &mut burst {
        client.send(b"hi");
    }
    for client in &mut burst {
        assert_eq!(client.receive(), b"hi");
    }
}

/// Goal: a connection that is reset before its first read ends with `Reset` or is never seen, and no
/// other connection is affected. Method: fifty of them while the server blocks, then one that sends
/// a packet.
#[test]
fn a_connection_reset_before_its_first_read_harms_no_other() {
    let (ends, ended) = channel();
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .start_listener("test", any_port(), move |_| Script::<()>::new().ends(&ends))
        .unwrap();
    for _ in 0..50 {
        Client::connect(listener.local_addr()).reset();
    }
    let mut good = Client::connect(listener.local_addr());
    good.send(b"hi");
    drive(&mut reactor, "the answer", || good.arrived() == 4);
    drive(&mut reactor, "the reset connections are gone", || listener.stats().open == 1);
    let ends: Vec<CloseReason> = ended.try_iter().collect();
    assert!(ends.iter().all(|end| *end == CloseReason::Reset), "{ends:?}");
    assert_eq!(listener.stats().closed(CloseKind::Reset), ends.len() as u64);
}

/// Goal: an existing listening socket is taken over together with the clients in its backlog.
/// Method: a blocking socket of the standard library, with one client before the start and one after
/// it.
#[test]
fn a_socket_that_listens_already_is_served() {
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = given.local_addr().unwrap();
    let mut early = Client::connect(addr);
    early.send(b"early");
    let (_server, listener, _) = Server::echo(ListenerOptions::from_std(given));
    assert_eq!(listener.local_addr(), addr);
    assert_eq!(early.receive(), b"early");
    assert_eq!(Client::connect(addr).ask(b"late"), b"late");
}
