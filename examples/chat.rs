//! A chat: many connections send each other lines of text.
//!
//! ```text
//! cargo run --release --example chat
//!
//! nc 127.0.0.1 5556                                                    # in other terminals; or:
//! bash -c 'exec 3<>/dev/tcp/127.0.0.1/5556; cat <&3 & cat >&3'
//! ```
//!
//! Type a name, then your text. `/who` lists the names, `/to ada hello` sends a line to ada alone,
//! and `/quit` leaves. Ctrl-C on the server informs all connections and ends the server.
//!
//! What it shows:
//!
//! - One connection sends to another by its `Address`.
//! - `broadcast` needs one entry in the mailbox for any number of receivers.
//! - `terminate` announces that a connection has left, for every cause.
//! - All connections live on one thread, so an `Rc` holds what they share.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use condor::{
    Action, Address, CloseReason, ConnectionId, Context, Error, Handler, Info, Lines,
    ListenerOptions, Reactor,
};

#[path = "common/mod.rs"]
mod common;

/// Longest line, in bytes.
const LINE_MAX: usize = 500;
const NAME_MAX: usize = 20;
/// How long a name that is taken may need to be given back.
const MOMENT: Duration = Duration::from_millis(10);
const HELP: &str = "there is /who, /to NAME TEXT, and /quit";

/// What reaches a connection besides packets.
#[derive(Debug, Clone)]
enum Note {
    /// Somebody says something.
    Line {
        /// Who need not be told: it was theirs.
        from: Option<ConnectionId>,
        /// Shared by all who get it.
        text: Bytes,
    },
    /// To oneself: ask once more for this name.
    AskAgain(String),
}

/// What all connections share.
#[derive(Default)]
struct Room {
    members: RefCell<BTreeMap<String, Address<Note>>>,
    /// Reaches everybody. There is one as soon as the listener is started.
    everybody: OnceCell<Box<dyn Fn(Note)>>,
}

impl Room {
    fn tell_all(&self, from: Option<ConnectionId>, text: String) {
        if let Some(broadcast) = self.everybody.get() {
            broadcast(Note::Line { from, text: text.into() });
        }
    }

    fn who(&self) -> String {
        let members = self.members.borrow();
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        format!("* {}", names.join(", "))
    }

    /// Tells one member. Whatever `send` refuses, they are as good as gone.
    fn tell(&self, name: &str, text: String) -> bool {
        let line = Note::Line { from: None, text: text.into() };
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

    fn introduce(&mut self, name: &str, ctx: &mut Context<'_, Note>) -> Action<'static> {
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(char::is_alphanumeric) {
            return Action::send(format!("* letters and digits, {NAME_MAX} bytes at most; again?"));
        }
        if self.room.members.borrow().contains_key(name) {
            // Its owner may have left a moment ago, and `terminate` not have been called yet. Until
            // the answer is known, nothing else is read: the next line might be a name or not.
            ctx.pause_reading();
            ctx.send_after(MOMENT, Note::AskAgain(name.to_owned()));
            return Action::Continue;
        }
        self.enter(name, ctx)
    }

    fn enter(&mut self, name: &str, ctx: &Context<'_, Note>) -> Action<'static> {
        self.room.members.borrow_mut().insert(name.to_owned(), ctx.address());
        self.name = Some(name.to_owned());
        self.room.tell_all(Some(ctx.id()), format!("* {name} has come"));
        Action::send(format!("* welcome, {name}; {HELP}"))
    }

    /// Gives the name back. Who ends the connection does so at once: `terminate` comes only when
    /// the last bytes have been taken.
    fn leave(&mut self, how: &str) {
        let Some(name) = self.name.take() else { return };
        self.room.members.borrow_mut().remove(&name);
        self.room.tell_all(None, format!("* {name} has left{how}"));
    }

    fn command(&mut self, name: &str, command: &str) -> Action<'static> {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        match verb {
            "who" => Action::send(self.room.who()),
            "quit" => {
                self.leave("");
                Action::send_and_stop("* bye", CloseReason::Normal)
            }
            "to" => {
                let (other, text) = rest.split_once(' ').unwrap_or((rest, ""));
                if self.room.tell(other, format!("{name} to you: {text}")) {
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
    type Message = Note;

    fn init(&mut self, _ctx: &mut Context<'_, Note>) -> Action<'_> {
        Action::send("* your name?")
    }

    fn handle_packet<'a>(&'a mut self, line: &'a [u8], ctx: &mut Context<'_, Note>) -> Action<'a> {
        // Control characters would let one member write to another one's terminal.
        let Some(line) = std::str::from_utf8(line).ok().filter(|l| !l.contains(char::is_control))
        else {
            return Action::send("* plain text, please");
        };
        let Some(name) = self.name.clone() else { return self.introduce(line.trim(), ctx) };
        if let Some(command) = line.strip_prefix('/') {
            return self.command(&name, command);
        }
        if !line.is_empty() {
            self.room.tell_all(Some(ctx.id()), format!("{name}: {line}"));
        }
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Note>,
        ctx: &mut Context<'_, Note>,
    ) -> Action<'a> {
        match info {
            // Who has no name yet hears nothing.
            Info::Message(Note::Line { from, text })
                if self.name.is_some() && from != Some(ctx.id()) =>
            {
                Action::send(text)
            }
            Info::Message(Note::AskAgain(name)) => {
                ctx.resume_reading();
                if self.room.members.borrow().contains_key(&name) {
                    return Action::send(format!("* {name} is taken; another?"));
                }
                self.enter(&name, ctx)
            }
            Info::Shutdown => Action::send_and_stop("* the chat closes", CloseReason::Shutdown),
            other => other.default_action(),
        }
    }

    fn terminate(mut self, reason: CloseReason) {
        match reason {
            CloseReason::Normal | CloseReason::PeerClosed => self.leave(""),
            other => self.leave(&format!(" ({other})")),
        }
    }
}

/// Lets people in terminals talk to each other.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5556")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("chat", serve(&arguments))
}

fn options(addr: SocketAddr) -> ListenerOptions {
    // The defaults fit: nobody needs ten seconds for a line, since terminals send whole ones.
    ListenerOptions::new(addr).framing(Lines::new(LINE_MAX)).max_connections(1_000)
}

fn serve(arguments: &Arguments) -> Result<(), Error> {
    let mut reactor = Reactor::new()?;
    let room = Rc::new(Room::default());
    let listener = reactor.start_listener("chat", options(arguments.listen), {
        let room = Rc::clone(&room);
        move |_peer| Member::new(&room)
    })?;
    common::drain_on_signals(reactor.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    // The listener is there before anybody can have come: callbacks are made by `run` alone.
    let _ = room.everybody.set(Box::new(move |line| {
        if let Err(error) = listener.broadcast(line) {
            common::complain(format_args!("chat: a line is lost: {error}"));
        }
    }));
    reactor.run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::testing::Harness;

    type Said = Rc<RefCell<Vec<Note>>>;

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
        assert_eq!(got(&bob), "", "ada may be about to leave");
        bob.advance(MOMENT);
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

    /// Goal: a name is free as soon as its owner has left, also if both happen in one turn. Method:
    /// the new one's line arrives in the very turn in which the old one's end does; and an owner who
    /// quits does not take his farewell.
    #[test]
    fn a_name_is_free_when_its_owner_has_left() {
        let (ada, bob, said) = ada_and_bob();
        let (eve, dan) = (ada.connect(), ada.connect());
        assert_eq!([got(&eve), got(&dan)], ["* your name?\n", "* your name?\n"]);
        eve.arrive("ada\nhello\n");
        ada.peer_closes();
        eve.advance(MOMENT);
        let told = got(&eve);
        assert!(told.starts_with("* welcome, ada"), "{told:?}");
        pass_on(&bob, &said);
        assert!(got(&bob).ends_with("ada: hello\n"), "her next line is no name");
        bob.peer_stalls();
        bob.packet("/quit");
        assert_eq!(bob.closed(), None, "the farewell is queued");
        dan.packet("bob");
        assert!(got(&dan).starts_with("* welcome, bob"));
        eve.packet("/who");
        assert!(got(&eve).ends_with("* ada, bob\n"));
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
