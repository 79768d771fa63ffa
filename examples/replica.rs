//! A replicated log: a leader takes entries, and followers get all of them, in order, each once.
//!
//! ```text
//! cargo run --release --example replica -- --listen :5561 --log /tmp/leader
//! cargo run --release --example replica -- --listen :5562 --log /tmp/follower --leader localhost:5561
//! nc 127.0.0.1 5561          # type: ADD it rains
//! nc 127.0.0.1 5562          # type: FROM 0
//! ```
//!
//! After `FROM n` the entries from `n` on are sent as `NUMBER text`, later ones as they come. A
//! follower is a client of its leader, and may have followers itself. A connector keeps its link up,
//! which greets with `FROM` and the number of entries that the follower has. So it resumes where it
//! was. A leader that is stopped, and not dead, answers no `PING`: then the link ends, too.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use condor::{
    Accepted, Action, CloseReason, ConnectorOptions, Context, Dialed, Group, Handler, Info, Lines,
    ListenerOptions, Reactor,
};

#[path = "common/mod.rs"]
mod common;

/// A leader that says nothing for this long is dialled again.
const SILENCE: Duration = Duration::from_secs(10);
/// In bytes. The longest entry. About as much of the log is sent at once.
const ENTRY_MAX: usize = 8 * 1024;

/// The entries. All connections are on one thread, so they share it without a lock.
struct Log {
    entries: Vec<String>,
    file: File,
    /// The connections that wait for more, if there ever was one.
    readers: Option<Group<()>>,
}

impl Log {
    fn open(path: &Path) -> io::Result<Rc<RefCell<Self>>> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // An entry without its end was cut, and never answered with `OK`.
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        file.set_len(text.len() as u64)?;
        let entries = text.split_terminator('\n').map(String::from).collect();
        Ok(Rc::new(RefCell::new(Self { entries, file, readers: None })))
    }

    fn append(&mut self, entry: &str) -> io::Result<usize> {
        self.file.write_all(format!("{entry}\n").as_bytes())?;
        self.entries.push(entry.to_owned());
        // If there is no room for the message, an earlier one is still on its way.
        self.readers.iter().for_each(|readers| _ = readers.send(()));
        Ok(self.entries.len() - 1)
    }
}

/// A connection that was accepted: a client that adds entries, or a follower.
struct Client {
    log: Rc<RefCell<Log>>,
    is_leader: bool,
    /// The next entry to send. If it has not asked for entries, there will be none with this number.
    next: usize,
}

fn client(log: &Rc<RefCell<Log>>, is_leader: bool) -> Client {
    Client { log: Rc::clone(log), is_leader, next: usize::MAX }
}

impl Client {
    fn send_entries(&mut self, ctx: &mut Context<'_, ()>) -> Action<'static> {
        let log = self.log.borrow();
        while let Some(entry) = log.entries.get(self.next)
            && ctx.queued_bytes() < ENTRY_MAX
            && ctx.send(format!("{} {entry}", self.next)).is_ok()
        {
            self.next += 1;
        }
        if self.next < log.entries.len() {
            _ = ctx.address().wake();
        }
        Action::Continue
    }
}

impl Handler for Client {
    type Message = ();

    fn handle_packet(&mut self, line: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        let mut log = self.log.borrow_mut();
        let line = str::from_utf8(line).unwrap_or("");
        match line.split_once(' ').unwrap_or((line, "")) {
            ("PING", "") => Action::send("PONG"),
            ("ADD", entry) if self.is_leader && entry.len() <= ENTRY_MAX => {
                let number = log.append(entry).map(|number| format!("OK {number}"));
                Action::send(number.unwrap_or_else(|error| format!("ERR {error}")))
            }
            ("FROM", from) if from.parse().is_ok_and(|from: usize| from <= log.entries.len()) => {
                self.next = from.parse().unwrap_or(usize::MAX);
                let readers = log.readers.get_or_insert_with(|| ctx.group());
                _ = ctx.join(readers);
                drop(log);
                self.send_entries(ctx)
            }
            _ => Action::send("ERR there is ADD text, at a leader; FROM number of an entry; PING"),
        }
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        match info {
            // Once it has taken what was sent before.
            Info::Message(()) | Info::Wake | Info::Writable if ctx.queued_bytes() == 0 => {
                self.send_entries(ctx)
            }
            other => other.default_action(),
        }
    }
}

/// The connection to the leader, while it is up.
struct Link(Rc<RefCell<Log>>);

impl Handler for Link {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        _ = ctx.send_after(SILENCE / 3, ());
        Action::send(format!("FROM {}", self.0.borrow().entries.len()))
    }

    fn handle_packet(&mut self, line: &[u8], _: &mut Context<'_, ()>) -> Action<'_> {
        let mut log = self.0.borrow_mut();
        let next = format!("{} ", log.entries.len());
        let line = str::from_utf8(line).unwrap_or("");
        match line.strip_prefix(&next).map(|entry| log.append(entry)) {
            Some(Err(error)) => Action::stop(CloseReason::Io(error.kind())),
            None if line != "PONG" => Action::stop(CloseReason::Custom("not the next entry")),
            _ => Action::Continue,
        }
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        let Info::Message(()) = info else { return info.default_action() };
        _ = ctx.send_after(SILENCE / 3, ());
        Action::send("PING")
    }
}

/// Replicates a log of lines.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address)]
    listen: SocketAddr,
    /// The file that keeps the entries
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// The leader to follow; several times, if it has several addresses
    #[arg(long, value_name = "HOST:PORT")]
    leader: Vec<String>,
}

/// A client that has not taken everything is told when it has.
fn options(listen: SocketAddr) -> ListenerOptions {
    let options = ListenerOptions::new(listen).framing(Lines::new(ENTRY_MAX + 32));
    options.write_high_water(1).write_low_water(0)
}

fn link_options(leader: Vec<String>) -> ConnectorOptions {
    let options = ConnectorOptions::to(leader).framing(Lines::new(ENTRY_MAX + 32));
    options.silence_timeout(SILENCE).on_state(|_, state| log::info!("leader: {state}"))
}

fn main() -> ExitCode {
    common::start_log("info");
    common::exit_code("replica", serve(Arguments::parse()))
}

fn serve(Arguments { listen, log, leader }: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let (mut reactor, log) = (Reactor::new()?, Log::open(&log)?);
    let (own, is_leader) = (Rc::clone(&log), leader.is_empty());
    let factory = move |_peer: &Accepted<'_>| client(&own, is_leader);
    let listener = reactor.start_listener("replica", options(listen), factory)?;
    if !is_leader {
        let factory = move |_peer: &Dialed<'_>| Link(Rc::clone(&log));
        reactor.start_connector("leader", link_options(leader), factory)?;
    }
    common::drain_on_signals(reactor.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    Ok(reactor.run()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::testing::{ConnectorHarness, FarEnd, Harness};

    /// A log in a file that is removed with it.
    struct Kept(PathBuf, Rc<RefCell<Log>>);

    impl Kept {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("condor-{name}-{}", std::process::id()));
            _ = std::fs::remove_file(&path);
            let log = Log::open(&path).unwrap();
            Self(path, log)
        }

        fn entries(&self) -> Vec<String> {
            self.1.borrow().entries.clone()
        }

        fn node(&self, is_leader: bool) -> Harness<Client> {
            let log = Rc::clone(&self.1);
            let factory = move |_peer: &Accepted<'_>| client(&log, is_leader);
            Harness::new(options("127.0.0.1:0".parse().unwrap()), factory)
        }

        fn follower(&self) -> ConnectorHarness<Link> {
            let log = Rc::clone(&self.1);
            let options = link_options(vec!["192.0.2.1:5561".to_owned()]);
            ConnectorHarness::new(options, move |_peer| Link(Rc::clone(&log)))
        }
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            _ = std::fs::remove_file(&self.0);
        }
    }

    fn text(packets: Vec<Vec<u8>>) -> Vec<String> {
        packets.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    /// The leader's end of the next link.
    fn next(follower: &ConnectorHarness<Link>) -> FarEnd<Link> {
        follower.advance(Duration::from_secs(60));
        follower.accept().unwrap()
    }

    #[test]
    fn entries_are_sent_in_order_each_once() {
        let kept = Kept::new("sent");
        let one = kept.node(true);
        let two = one.connect();
        one.packet("ADD a");
        one.packet("ADD  b c ");
        one.packet("FROM 1");
        two.packet("FROM 0");
        two.packet("ADD last");
        assert_eq!(text(one.packets()), ["OK 0", "OK 1", "1  b c ", "2 last"]);
        assert_eq!(text(two.packets()), ["0 a", "1  b c ", "OK 2", "2 last"]);
        two.peer_resets();
        one.packet("ADD d");
        one.packet("PING");
        assert_eq!(text(one.packets()), ["OK 3", "3 d", "PONG"]);
    }

    #[test]
    fn a_slow_follower_gets_all_entries_once_it_reads() {
        let kept = Kept::new("slow");
        let one = kept.node(true);
        let two = one.connect();
        one.packet("FROM 0");
        one.peer_stalls();
        let entry = "x".repeat(ENTRY_MAX);
        (0..100).for_each(|_| two.packet(format!("ADD {entry}")));
        assert_eq!(text(two.packets()).last().unwrap(), "OK 99");
        one.peer_reads_all();
        let expected: Vec<_> = (0..100).map(|nth| format!("{nth} {entry}")).collect();
        assert!(text(one.packets()) == expected);
    }

    #[test]
    fn a_wrong_line_changes_nothing() {
        let kept = Kept::new("wrong");
        let (leader, follower) = (kept.node(true), kept.node(false));
        let long = format!("ADD {}", "x".repeat(ENTRY_MAX + 1));
        for line in ["", "ADDa", "FROM", "FROM 1", "FROM -1", "PING now", "add a", &long] {
            leader.packet(line);
            assert!(text(leader.packets())[0].starts_with("ERR "), "{line}");
        }
        leader.packet(b"ADD \xff");
        follower.packet("ADD a");
        assert!(text(leader.packets())[0].starts_with("ERR "));
        assert!(text(follower.packets())[0].starts_with("ERR "));
        assert!(kept.entries().is_empty());
    }

    #[test]
    fn a_link_greets_and_resumes_where_it_was() {
        let kept = Kept::new("link");
        let follower = kept.follower();
        let leader = follower.accept().unwrap();
        leader.packet("0 a");
        leader.packet("1 b c");
        leader.send("2 only half of it");
        leader.closes();
        assert_eq!(text(leader.packets()), ["FROM 0"]);
        let leader = next(&follower);
        assert_eq!(text(leader.packets())[0], "FROM 2");
        leader.packet("2 whole");
        assert_eq!(kept.entries(), ["a", "b c", "whole"]);
        for wrong in ["2 again", "4 too far", "x", "ERR no"] {
            leader.packet("PONG");
            let leader = next(&follower);
            leader.packet(wrong);
            assert!(leader.is_finished(), "{wrong}");
        }
        assert_eq!(kept.entries(), ["a", "b c", "whole"]);
    }

    #[test]
    fn a_link_to_a_leader_that_is_stopped_ends() {
        let kept = Kept::new("stopped");
        let follower = kept.follower();
        let leader = follower.accept().unwrap();
        for _ in 0..20 {
            follower.advance(SILENCE / 2);
            assert_eq!(text(leader.packets()).last().unwrap(), "PING");
            leader.packet("PONG");
        }
        assert!(!leader.is_gone());
        follower.advance(SILENCE + SILENCE / 2);
        assert!(leader.is_gone());
        assert_eq!(text(next(&follower).packets())[0], "FROM 0");
    }

    #[test]
    fn entries_are_kept_and_one_that_was_cut_is_not() {
        let kept = Kept::new("kept");
        let node = kept.node(true);
        node.packet("ADD a");
        node.packet("ADD b\r");
        kept.1.borrow_mut().file.write_all(b"cut").unwrap();
        let log = Log::open(&kept.0).unwrap();
        assert_eq!(log.borrow().entries, ["a", "b"]);
        log.borrow_mut().append("c").unwrap();
        assert_eq!(std::fs::read(&kept.0).unwrap(), b"a\nb\nc\n");
    }
}
