//! Restarts under load without a refused connection: one listening socket, passed from process to
//! process with `LISTEN_FDS`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use condor::ListenerOptions;

use crate::support::{Client, PATIENCE, Script, Server, framed, over, until};

fn echo() -> PathBuf {
    crate::program::built::built("echo")
}

/// An `echo` process with an inherited socket.
struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it as systemd does: the socket is descriptor 3, and the environment names the process
    /// that owns it. Returns when it listens.
    fn start(socket: &TcpListener, shards: usize) -> Self {
        let socket: OwnedFd = socket.try_clone().unwrap().into();
        let become_it = r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#;
        let mut child = Command::new("sh")
            .args(["-c", become_it])
            .arg(echo())
            .args(["--shards", &shards.to_string(), "--max-connections", "1000"])
            .stdin(socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on "), "{line:?}");
        Self { child, out }
    }

    /// Makes it drain, and waits for its end. Returns its output.
    fn drain(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut said = String::new();
        self.out.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }

    /// The flags of its descriptors of `socket`, by fcntl(2).
    fn flags(&self, socket: &TcpListener) -> Vec<u32> {
        let own = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let dir = format!("/proc/{}/fd", self.child.id());
        let fds = std::fs::read_dir(&dir).unwrap().filter_map(Result::ok);
        let same = fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link == own));
        same.map(|fd| {
            let name = fd.file_name().into_string().unwrap();
            let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{name}", self.child.id()));
            let info = info.unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            u32::from_str_radix(flags.trim(), 8).unwrap()
        })
        .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After a drain the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one request. None if the connection ended without an answer, as it may in a drain. Every
/// other outcome without the right answer is a failure.
fn ask(stream: &mut TcpStream, number: u64) -> Option<()> {
    stream.write_all(&framed(&number.to_be_bytes())).expect("no request is refused");
    let mut answer = [0; 10];
    let mut have = 0;
    while have < answer.len() {
        match stream.read(&mut answer[have..]).expect("no connection is reset") {
            0 => break,
            count => have += count,
        }
    }
    if have == 0 {
        return None;
    }
    assert_eq!(answer[2..], number.to_be_bytes(), "after {have} bytes");
    Some(())
}

/// A client: a number of requests on one connection, then the next connection. It repeats a request
/// once if the connection ended, and never twice.
fn load(addr: SocketAddr, answered: &AtomicU64, retried: &AtomicU64, enough: &AtomicBool) {
    let connect = || {
        let stream = TcpStream::connect(addr).expect("no connection is refused");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut number = 0_u64;
    while !enough.load(Ordering::SeqCst) {
        let mut stream = connect();
        for _ in 0..20 {
            number += 1;
            if ask(&mut stream, number).is_none() {
                retried.fetch_add(1, Ordering::SeqCst);
                stream = connect();
                ask(&mut stream, number).expect("no request fails twice");
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Goal: a server is replaced repeatedly under load, and no request fails. Method: `echo` processes
/// get one listening socket in turn. The old and the new process accept side by side, then the old
/// one drains. A request may be repeated only if its connection ended without an answer.
#[test]
fn no_client_is_refused_while_a_socket_is_handed_over() {
    const CLOEXEC: u32 = 0o2_000_000;
    const NONBLOCK: u32 = 0o4_000;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let mut old = Process::start(&socket, 1);
    let flags = old.flags(&socket);
    assert!(!flags.is_empty());
    for flags in flags {
        assert_eq!(flags & NONBLOCK, NONBLOCK, "it was blocking before");
        assert_eq!(flags & CLOEXEC, CLOEXEC, "no child of the server inherits it");
    }
    let [answered, retried] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let enough = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let [answered, retried] = [&answered, &retried].map(Arc::clone);
            let enough = Arc::clone(&enough);
            thread::spawn(move || load(addr, &answered, &retried, &enough))
        })
        .collect();
    let more = |count: u64| {
        let goal = answered.load(Ordering::SeqCst) + count;
        until("requests are answered", || {
            assert!(!clients.iter().any(thread::JoinHandle::is_finished), "a client failed");
            answered.load(Ordering::SeqCst) >= goal
        });
    };
    more(200);
    for restart in 0..6 {
        let new = Process::start(&socket, 1 + restart % 2);
        more(50);
        let said = std::mem::replace(&mut old, new).drain();
        assert!(said.contains(" forced=0 opening=0 undelivered_bytes=0 unsent_bytes=0"), "{said}");
        more(200);
    }
    enough.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    old.drain();
    println!("{answered:?} requests answered, {retried:?} of them asked twice, none failed");
}

/// Goal: an inherited socket that no other process keeps closes when the drain begins, as any other
/// socket does. Otherwise the kernel would continue to accept clients that no process serves.
/// Method: a connection that delays the drain.
#[test]
fn an_inherited_socket_closes_when_the_drain_begins() {
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = given.local_addr().unwrap();
    let options = ListenerOptions::from_std(given).drain_timeout(PATIENCE);
    let (server, _listener) = Server::one(options, |_| Script::<()>::new());
    let mut client = Client::connect(addr);
    assert_eq!(client.ask(b"hi"), b"hi");
    client.raw(b"\x00\x04ha");
    until("half a packet", || server.stats().bytes_in == 8);
    let drain = server.handle.stop_listener("test").unwrap();
    until("clients are refused", || {
        TcpStream::connect_timeout(&addr, Duration::from_secs(1)).is_err()
    });
    assert_eq!(drain.report(), None, "the drain still waits");
    client.raw(b"lf");
    assert_eq!(client.read_to_end(), framed(b"half"));
    drop(client);
    assert_eq!(over(&drain).forced, 0);
}
