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
/// If a name is taken, how long to wait before the one retry.
const RETRY_DELAY: Duration = Duration::from_millis(10);
const HELP: &str = "there is /who, /to NAME TEXT, and /quit";

/// The messages that a connection receives.
#[derive(Debug, Clone)]
enum Note {
    /// A line of text to print.
    Line {
        /// The connection that sent the line. It does not print it again.
        from: Option<ConnectionId>,
        /// All receivers share these bytes: a broadcast copies no text.
        text: Bytes,
    },
    /// A connection sends this to itself: it tries once more to take this name.
    RetryName(String),
}

/// What all connections share.
#[derive(Default)]
struct Room {
    members: RefCell<BTreeMap<String, Address<Note>>>,
    /// Sends to all connections. It is set after the listener has started, because the listener's
    /// handle sends.
    broadcast: OnceCell<Box<dyn Fn(Note)>>,
}

impl Room {
    fn send_to_all(&self, from: Option<ConnectionId>, text: String) {
        if let Some(broadcast) = self.broadcast.get() {
            broadcast(Note::Line { from, text: text.into() });
        }
    }

    fn who(&self) -> String {
        let members = self.members.borrow();
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        format!("* {}", names.join(", "))
    }

    /// Sends to one member. Returns false if there is no such member or if `send` refuses the line.
    fn send_to(&self, name: &str, text: String) -> bool {
        let line = Note::Line { from: None, text: text.into() };
        self.members.borrow().get(name).is_some_and(|address| address.send(line).is_ok())
    }
}

/// One connection.
struct Member {
    room: Rc<Room>,
    /// `None` until the connection has taken a name.
    name: Option<String>,
}

impl Member {
    fn new(room: &Rc<Room>) -> Self {
        Self { room: Rc::clone(room), name: None }
    }

    fn choose_name(&mut self, name: &str, ctx: &mut Context<'_, Note>) -> Action<'static> {
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(char::is_alphanumeric) {
            return Action::send(format!(
                "* a name has letters and digits, at most {NAME_MAX} bytes; your name?"
            ));
        }
        if self.room.members.borrow().contains_key(name) {
            // The owner of the name may have left in this turn, and its `terminate` may not have
            // been called yet. Until the retry, the handler reads nothing: it cannot know whether
            // the next line is a name or text.
            ctx.pause_reading();
            // It is the only timer of this connection, so the maximum is not reached.
            let _ = ctx.send_after(RETRY_DELAY, Note::RetryName(name.to_owned()));
            return Action::Continue;
        }
        self.join(name, ctx)
    }

    fn join(&mut self, name: &str, ctx: &Context<'_, Note>) -> Action<'static> {
        self.room.members.borrow_mut().insert(name.to_owned(), ctx.address());
        self.name = Some(name.to_owned());
        self.room.send_to_all(Some(ctx.id()), format!("* {name} has joined"));
        Action::send(format!("* welcome, {name}; {HELP}"))
    }

    /// Frees the name. A handler that ends its connection calls this at once, because `terminate`
    /// is called only after the peer has taken the last bytes.
    fn leave(&mut self, how: &str) {
        let Some(name) = self.name.take() else { return };
        self.room.members.borrow_mut().remove(&name);
        self.room.send_to_all(None, format!("* {name} has left{how}"));
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
                if self.room.send_to(other, format!("{name} to you: {text}")) {
                    Action::Continue
                } else {
                    Action::send(format!("* not sent: no member {other}"))
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
        // Control characters would let one member control the terminals of the others.
        let Some(line) = std::str::from_utf8(line).ok().filter(|l| !l.contains(char::is_control))
        else {
            return Action::send("* plain text, please");
        };
        let Some(name) = self.name.clone() else { return self.choose_name(line.trim(), ctx) };
        if let Some(command) = line.strip_prefix('/') {
            return self.command(&name, command);
        }
        if !line.is_empty() {
            self.room.send_to_all(Some(ctx.id()), format!("{name}: {line}"));
        }
        Action::Continue
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Note>,
        ctx: &mut Context<'_, Note>,
    ) -> Action<'a> {
        match info {
            // A connection without a name gets no lines.
            Info::Message(Note::Line { from, text })
                if self.name.is_some() && from != Some(ctx.id()) =>
            {
                Action::send(text)
            }
            Info::Message(Note::RetryName(name)) => {
                ctx.resume_reading();
                if self.room.members.borrow().contains_key(&name) {
                    return Action::send(format!("* {name} is taken; another name?"));
                }
                self.join(&name, ctx)
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

/// A chat for terminals.
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
    // The default packet timeout of ten seconds fits, because terminals send whole lines.
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
    // Only `run` calls callbacks. So no callback runs before this is set.
    let _ = room.broadcast.set(Box::new(move |line| {
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

    type Broadcasts = Rc<RefCell<Vec<Note>>>;

    /// A chat with one connection, and the broadcasts that the test has to deliver.
    fn chat() -> (Harness<Member>, Broadcasts) {
        let (room, broadcasts) = (Rc::new(Room::default()), Broadcasts::default());
        let kept = Rc::clone(&broadcasts);
        let _ = room.broadcast.set(Box::new(move |line| kept.borrow_mut().push(line)));
        let options = options(([127, 0, 0, 1], 0).into());
        (Harness::new(options, move |_peer| Member::new(&room)), broadcasts)
    }

    /// Delivers the broadcasts since the last call to all connections.
    fn deliver(member: &Harness<Member>, broadcasts: &Broadcasts) {
        broadcasts.take().into_iter().for_each(|line| member.broadcast(line));
    }

    /// What the member has got since the last call.
    fn got(member: &Harness<Member>) -> String {
        String::from_utf8(member.sent()).unwrap()
    }

    /// Two members, after the welcome and after each other's announcement.
    fn ada_and_bob() -> (Harness<Member>, Harness<Member>, Broadcasts) {
        let (ada, broadcasts) = chat();
        let bob = ada.connect();
        ada.packet("ada");
        bob.packet("bob");
        deliver(&ada, &broadcasts);
        assert!(got(&ada).ends_with("* bob has joined\n"));
        assert!(got(&bob).contains("* welcome, bob"));
        (ada, bob, broadcasts)
    }

    #[test]
    fn a_name_belongs_to_one_member() {
        let (ada, _broadcasts) = chat();
        let bob = ada.connect();
        assert_eq!(got(&ada), "* your name?\n");
        assert_eq!(got(&bob), "* your name?\n");
        ada.packet("ada");
        bob.packet("two words");
        assert!(got(&bob).contains("letters and digits"));
        bob.packet("ada");
        assert_eq!(got(&bob), "", "the answer waits for the retry");
        bob.advance(RETRY_DELAY);
        assert_eq!(got(&bob), "* ada is taken; another name?\n");
        bob.packet("bob");
        got(&ada);
        ada.packet("/who");
        assert_eq!(got(&ada), "* ada, bob\n");
    }

    #[test]
    fn a_line_reaches_all_other_members() {
        let (ada, bob, broadcasts) = ada_and_bob();
        let nameless = ada.connect();
        got(&nameless);
        ada.packet("hello");
        ada.packet("");
        deliver(&ada, &broadcasts);
        assert_eq!([got(&ada), got(&bob), got(&nameless)], ["", "ada: hello\n", ""]);
    }

    #[test]
    fn a_private_message_reaches_one_member() {
        let (ada, bob, broadcasts) = ada_and_bob();
        let eve = ada.connect();
        eve.packet("eve");
        got(&eve);
        ada.packet("/to bob psst, listen");
        bob.run();
        assert_eq!([got(&ada), got(&bob), got(&eve)], ["", "ada to you: psst, listen\n", ""]);
        ada.packet("/to carol hello");
        assert_eq!(got(&ada), "* not sent: no member carol\n");
        assert_eq!(broadcasts.borrow().len(), 1, "only eve's announcement");
    }

    #[test]
    fn every_leave_is_announced() {
        let (ada, bob, broadcasts) = ada_and_bob();
        let eve = ada.connect();
        eve.packet("eve");
        broadcasts.take();
        eve.peer_resets();
        bob.packet("/quit");
        assert!(got(&bob).ends_with("* bye\n"));
        deliver(&ada, &broadcasts);
        assert_eq!(got(&ada), "* eve has left (reset by the peer)\n* bob has left\n");
        ada.packet("/who");
        assert_eq!(got(&ada), "* ada\n");
    }

    /// Goal: a name is free as soon as its owner has left. Method: in one turn, a new connection
    /// asks for a name and the connection that owns the name ends. In another one, the owner quits
    /// but does not read the last line.
    #[test]
    fn a_name_is_free_when_its_owner_has_left() {
        let (ada, bob, broadcasts) = ada_and_bob();
        let (eve, dan) = (ada.connect(), ada.connect());
        assert_eq!([got(&eve), got(&dan)], ["* your name?\n", "* your name?\n"]);
        eve.arrive("ada\nhello\n");
        ada.peer_closes();
        eve.advance(RETRY_DELAY);
        let answer = got(&eve);
        assert!(answer.starts_with("* welcome, ada"), "{answer:?}");
        deliver(&bob, &broadcasts);
        assert!(got(&bob).ends_with("ada: hello\n"), "the next line is text, not a name");
        bob.peer_stalls();
        bob.packet("/quit");
        assert_eq!(bob.closed(), None, "the last line is queued");
        dan.packet("bob");
        assert!(got(&dan).starts_with("* welcome, bob"));
        eve.packet("/who");
        assert!(got(&eve).ends_with("* ada, bob\n"));
    }

    #[test]
    fn control_characters_are_refused() {
        let (ada, _bob, broadcasts) = ada_and_bob();
        ada.packet("\x1b[2J");
        ada.packet(b"\xff");
        assert_eq!(got(&ada), "* plain text, please\n* plain text, please\n");
        assert!(broadcasts.borrow().is_empty());
    }

    #[test]
    fn a_drain_is_announced_to_all_members() {
        let (ada, bob, _broadcasts) = ada_and_bob();
        ada.drain();
        for member in [&ada, &bob] {
            assert_eq!(got(member), "* the chat closes\n");
            assert_eq!(member.closed(), Some(CloseReason::Shutdown));
        }
    }
}
