//! Descriptors: a child process inherits none, and the server survives when it has none left.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::time::Duration;

use condor::{Action, ListenerOptions, Reactor};

use crate::support::{Client, Script, child, descriptors, drive, is_child, now, passes, until};

/// Goal: a program that the user executes inherits none of the library's descriptors. Method: a
/// separate process reads the flags of each open descriptor from the kernel: event queue, waker,
/// listening sockets made and inherited, accepted connections.
#[test]
fn every_descriptor_is_closed_on_exec() {
    const CLOEXEC: u32 = 0o2_000_000;
    if !is_child() {
        return passes(&mut child("descriptors::every_descriptor_is_closed_on_exec"));
    }
    let before = descriptors();
    let given = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reactor = Reactor::new().unwrap();
    let listeners = [ListenerOptions::port(0), ListenerOptions::from_std(given)].map(|options| {
        let name = format!("{options:?}");
        reactor.start_listener(&name, options, |_| Script::<()>::new()).unwrap()
    });
    let clients = listeners.each_ref().map(|listener| Client::connect(listener.local_addr()));
    drive(&mut reactor, "connections", || reactor_is_full(&listeners));
    let ours: Vec<u32> = descriptors().into_iter().filter(|fd| !before.contains(fd)).collect();
    assert!(ours.len() >= 3 + 2 + 4, "{ours:?}");
    for fd in ours {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        let what = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        assert!(flags & CLOEXEC != 0, "{} would be inherited", what.display());
    }
    drop(clients);
}

fn reactor_is_full<M>(listeners: &[condor::ListenerHandle<M>]) -> bool {
    listeners.iter().all(|listener| listener.stats().open == 1)
}

/// A server in a process with few descriptors. It answers `stats` with the numbers of failed
/// accepts, turns and milliseconds since its start. It stops at `exit`, and sends all other packets
/// back.
fn serve_with_few_descriptors() {
    let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
    rlimit::Resource::NOFILE.set(24, hard).unwrap();
    let mut reactor = Reactor::new().unwrap();
    let (turns, started) = (Rc::new(Cell::new(0_u64)), now());
    let counted = Rc::clone(&turns);
    let listener = reactor
        .start_listener("few", ListenerOptions::port(0), move |_| {
            let turns = Rc::clone(&counted);
            Script::<()>::new().packet(move |packet, ctx| match packet {
                b"stats" => {
                    let errors = ctx.handle().stats().accept_errors;
                    let millis = started.elapsed().as_millis();
                    Action::send(format!("{errors} {} {millis}", turns.get()))
                }
                b"exit" => {
                    drop(ctx.handle().shutdown().unwrap());
                    Action::Continue
                }
                other => Action::send(other.to_vec()),
            })
        })
        .unwrap();
    println!("listening {}", listener.local_addr());
    while !reactor.is_stopped() {
        reactor.turn(None).unwrap();
        turns.set(turns.get() + 1);
    }
}

/// Kills a server that a failed test leaves behind.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn ask_stats(client: &mut Client) -> [u64; 3] {
    let answer = String::from_utf8(client.ask(b"stats")).unwrap();
    let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// Goal: without free descriptors the server serves its connections, and tries to accept at most
/// twenty times a second. It serves waiting clients as soon as others leave, without a new connect.
/// Method: a process that may open 24 files, and 40 clients, which then leave one by one.
#[test]
fn running_out_of_descriptors_is_survived() {
    if is_child() {
        return serve_with_few_descriptors();
    }
    let mut server = child("descriptors::running_out_of_descriptors_is_survived");
    let mut server = Guard(server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut output = BufReader::new(server.0.stdout.take().unwrap());
    let mut line = String::new();
    let addr: SocketAddr = loop {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the server did not start");
        if let Some((_, addr)) = line.trim().split_once("listening ") {
            break addr.parse().unwrap();
        }
    };
    let mut first = Client::connect(addr);
    assert_eq!(first.ask(b"hi"), b"hi");
    let mut waiting: Vec<Client> = (0..40).map(|_| Client::connect(addr)).collect();
    for client in &mut waiting {
        client.send(b"hi");
    }
    until("it runs out of descriptors", || ask_stats(&mut first)[0] > 0);

    // From here on only these requests and the tries to accept cause turns.
    let [errors, turns, millis] = ask_stats(&mut first);
    let mut asked = 0;
    let last = loop {
        asked += 1;
        let stats = ask_stats(&mut first);
        if stats[2] - millis >= 1000 {
            break stats;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    let tries = 20 * (last[2] - millis) / 1000 + 2;
    assert!(last[0] - errors <= tries, "{} tries", last[0] - errors);
    assert!(last[0] > errors, "no more tries");
    assert!(last[1] - turns <= 3 * (asked + tries), "{} turns for {asked}", last[1] - turns);

    let mut served = 0;
    while !waiting.is_empty() {
        until("a waiting client is served", || waiting.iter().any(|client| client.arrived() == 4));
        let at = waiting.iter().position(|client| client.arrived() == 4).unwrap();
        assert_eq!(waiting.remove(at).receive(), b"hi");
        served += 1;
    }
    assert_eq!(served, 40);
    first.send(b"exit");
    first.expect_end();
    drop(first);
    until("the server ends", || server.0.try_wait().unwrap().is_some());
    assert!(server.0.wait().unwrap().success());
}
