//! A chat: many connections that talk to each other, a line at a time.
//!
//! ```text
//! cargo run --release --example chat
//!
//! nc 127.0.0.1 5556                                                    # in other terminals; or:
//! bash -c 'exec 3<>/dev/tcp/127.0.0.1/5556; cat <&3 & cat >&3'
//! ```
//!
//! Type a name, then what you have to say. `/who` tells who is there, `/to ada hello` is for ada
//! alone, `/quit` leaves. Ctrl-C on the server tells everybody and ends.
//!
//! What it shows: a connection's `Address`, by which another one reaches it; `broadcast`, one entry
//! in the mailbox however many listen; `terminate`, which announces every leave, whatever its
//! cause; and that what all connections share is an `Rc`, since they live on one thread.

#![expect(clippy::print_stdout, reason = "a program may")]

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;

use bytes::Bytes;
use clap::Parser;
use condor::{
    Action, Address, CloseReason, ConnectionId, Context, Error, Handler, Info, Lines,
    ListenerOptions, Reactor,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Longest line, in bytes.
const LINE_MAX: usize = 500;
const NAME_MAX: usize = 20;
const HELP: &str = "there is /who, /to NAME TEXT, and /quit";

/// What one connection tells others.
#[derive(Debug, Clone)]
struct Line {
    /// Who need not be told: it was theirs.
    from: Option<ConnectionId>,
    /// Shared by all who get it.
    text: Bytes,
}

/// What all connections share.
#[derive(Default)]
struct Room {
    members: RefCell<BTreeMap<String, Address<Line>>>,
    /// Reaches everybody. There is one as soon as the listener is started.
    everybody: OnceCell<Box<dyn Fn(Line)>>,
}

impl Room {
    fn tell_all(&self, from: Option<ConnectionId>, text: String) {
        if let Some(broadcast) = self.everybody.get() {
            broadcast(Line { from, text: text.into() });
        }
    }

    fn who(&self) -> String {
        let members = self.members.borrow();
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        format!("* {}", names.join(", "))
    }

    /// Tells one member. Whatever `send` refuses, they are as good as gone.
    fn tell(&self, name: &str, line: Line) -> bool {
        self.members.borrow().get(name).is_some_and(|address| address.send(line).is_ok())
    }
}

/// One connection.
struct Member {
    room: Rc<Room>,
    /// None until they have told.
    name: Option<String>,
}

impl Member {
    fn new(room: &Rc<Room>) -> Self {
        Self { room: Rc::clone(room), name: None }
    }

    fn introduce(&mut self, name: &str, ctx: &Context<'_, Line>) -> Action<'static> {
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(char::is_alphanumeric) {
            return Action::send(format!("* letters and digits, {NAME_MAX} bytes at most; again?"));
        }
        if self.room.members.borrow().contains_key(name) {
            return Action::send(format!("* {name} is taken; another?"));
        }
        self.room.members.borrow_mut().insert(name.to_owned(), ctx.address());
        self.name = Some(name.to_owned());
        self.room.tell_all(Some(ctx.id()), format!("* {name} has come"));
        Action::send(format!("* welcome, {name}; {HELP}"))
    }

    fn command(&self, name: &str, command: &str) -> Action<'static> {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        match verb {
            "who" => Action::send(self.room.who()),
            "quit" => Action::send_and_stop("* bye", CloseReason::Normal),
            "to" => {
                let (other, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let text = format!("{name} to you: {text}").into();
                if self.room.tell(other, Line { from: None, text }) {
                    Action::Continue
                } else {
                    Action::send(format!("* nobody is called {other}"))
                }
            }
            _ => Action::send(format!("* {HELP}")),
        }
    }
}

impl Handler for Member {
    type Message = Line;

    fn init(&mut self, _ctx: &mut Context<'_, Line>) -> Action<'_> {
        Action::send("* your name?")
    }

    fn handle_packet<'a>(&'a mut self, line: &'a [u8], ctx: &mut Context<'_, Line>) -> Action<'a> {
        // Control characters would let one member write to another one's terminal.
        let Some(line) = std::str::from_utf8(line).ok().filter(|l| !l.contains(char::is_control))
        else {
            return Action::send("* plain text, please");
        };
        let Some(name) = &self.name else { return self.introduce(line.trim(), ctx) };
        if let Some(command) = line.strip_prefix('/') {
            return self.command(name, command);
        }
        if !line.is_empty() {
            self.room.tell_all(Some(ctx.id()), format!("{name}: {line}"));
        }
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Line>,
        ctx: &mut Context<'_, Line>,
    ) -> Action<'a> {
        match info {
            // Who has no name yet hears nothing.
            Info::Message(line) if self.name.is_some() && line.from != Some(ctx.id()) => {
                Action::send(line.text)
            }
            Info::Shutdown => Action::send_and_stop("* the chat closes", CloseReason::Shutdown),
            other => other.default_action(),
        }
    }

    fn terminate(self, reason: CloseReason) {
        let Some(name) = self.name else { return };
        self.room.members.borrow_mut().remove(&name);
        let how = match reason {
            CloseReason::Normal | CloseReason::PeerClosed => String::new(),
            other => format!(" ({other})"),
        };
        self.room.tell_all(None, format!("* {name} has left{how}"));
    }
}

/// Lets people in terminals talk to each other.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5556")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    match serve(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(addr: SocketAddr) -> ListenerOptions {
    // The defaults fit: nobody needs ten seconds for a line, since terminals send whole ones.
    ListenerOptions::new(addr).framing(Lines::new(LINE_MAX)).max_connections(1_000)
}

fn serve(arguments: &Arguments) -> Result<(), Error> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|source| Error::Poll { what: "listen for signals", source })?;
    let mut reactor = Reactor::new()?;
    let room = Rc::new(Room::default());
    let listener = reactor.start_listener("chat", options(arguments.listen), {
        let room = Rc::clone(&room);
        move |_peer| Member::new(&room)
    })?;
    println!("listening on {}", listener.local_addr());
    // The listener is there before anybody can have come: callbacks are made by `run` alone.
    let _ = room.everybody.set(Box::new(move |line| {
        if let Err(error) = listener.broadcast(line) {
            eprintln!("chat: a line is lost: {error}");
        }
    }));
    let handle = reactor.handle();
    thread::spawn(move || {
        for _signal in signals.forever() {
            let _ = handle.shutdown();
        }
    });
    reactor.run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::testing::Harness;

    type Said = Rc<RefCell<Vec<Line>>>;

    /// A chat with one visitor, and what was said to all, for the test to pass on.
    fn chat() -> (Harness<Member>, Said) {
        let (room, said) = (Rc::new(Room::default()), Said::default());
        let heard = Rc::clone(&said);
        let _ = room.everybody.set(Box::new(move |line| heard.borrow_mut().push(line)));
        let options = options(([127, 0, 0, 1], 0).into());
        (Harness::new(options, move |_peer| Member::new(&room)), said)
    }

    /// Passes on what was said to all since the last time.
    fn pass_on(member: &Harness<Member>, said: &Said) {
        said.take().into_iter().for_each(|line| member.broadcast(line));
    }

    /// What the member has got since they were last asked.
    fn got(member: &Harness<Member>) -> String {
        String::from_utf8(member.sent()).unwrap()
    }

    /// Ada and Bob, who have been welcomed and told of each other.
    fn ada_and_bob() -> (Harness<Member>, Harness<Member>, Said) {
        let (ada, said) = chat();
        let bob = ada.connect();
        ada.packet("ada");
        bob.packet("bob");
        pass_on(&ada, &said);
        assert!(got(&ada).ends_with("* bob has come\n"));
        assert!(got(&bob).contains("* welcome, bob"));
        (ada, bob, said)
    }

    #[test]
    fn a_name_is_asked_for_and_belongs_to_one() {
        let (ada, _said) = chat();
        let bob = ada.connect();
        assert_eq!(got(&ada), "* your name?\n");
        assert_eq!(got(&bob), "* your name?\n");
        ada.packet("ada");
        bob.packet("two words");
        assert!(got(&bob).contains("letters and digits"));
        bob.packet("ada");
        assert_eq!(got(&bob), "* ada is taken; another?\n");
        bob.packet("bob");
        got(&ada);
        ada.packet("/who");
        assert_eq!(got(&ada), "* ada, bob\n");
    }

    #[test]
    fn what_is_said_reaches_everybody_else() {
        let (ada, bob, said) = ada_and_bob();
        let nameless = ada.connect();
        got(&nameless);
        ada.packet("hello");
        ada.packet("");
        pass_on(&ada, &said);
        assert_eq!([got(&ada), got(&bob), got(&nameless)], ["", "ada: hello\n", ""]);
    }

    #[test]
    fn a_private_message_reaches_one() {
        let (ada, bob, said) = ada_and_bob();
        let eve = ada.connect();
        eve.packet("eve");
        got(&eve);
        ada.packet("/to bob psst, listen");
        bob.run();
        assert_eq!([got(&ada), got(&bob), got(&eve)], ["", "ada to you: psst, listen\n", ""]);
        ada.packet("/to carol hello");
        assert_eq!(got(&ada), "* nobody is called carol\n");
        assert_eq!(said.borrow().len(), 1, "eve has come, and nothing else was for all");
    }

    #[test]
    fn a_leave_is_announced_whatever_its_cause() {
        let (ada, bob, said) = ada_and_bob();
        let eve = ada.connect();
        eve.packet("eve");
        said.take();
        eve.peer_resets();
        bob.packet("/quit");
        assert!(got(&bob).ends_with("* bye\n"));
        pass_on(&ada, &said);
        let told = got(&ada);
        assert_eq!(told, "* eve has left (reset by the peer)\n* bob has left\n");
        ada.packet("/who");
        assert_eq!(got(&ada), "* ada\n");
    }

    #[test]
    fn nobody_writes_to_another_terminal() {
        let (ada, _bob, said) = ada_and_bob();
        ada.packet("\x1b[2J");
        ada.packet(b"\xff");
        assert_eq!(got(&ada), "* plain text, please\n* plain text, please\n");
        assert!(said.borrow().is_empty());
    }

    #[test]
    fn everybody_is_told_that_the_chat_closes() {
        let (ada, bob, _said) = ada_and_bob();
        ada.drain();
        for member in [&ada, &bob] {
            assert_eq!(got(member), "* the chat closes\n");
            assert_eq!(member.closed(), Some(CloseReason::Shutdown));
        }
    }
}
