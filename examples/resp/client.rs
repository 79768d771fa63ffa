//! A connection: it finds the command of a request, and answers.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use condor::{Action, CloseReason, Context, Handler, Info, PacketWriter, SendError};

use crate::channels::Channel;
use crate::protocol::{Problem, Request, array_of, integer};
use crate::store::{NOT_AN_INTEGER, Store};

/// What all connections share.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) channels: HashMap<Bytes, Channel>,
    clients: usize,
}

/// One connection.
pub(crate) struct Client {
    /// It needs no lock, because all handlers of a reactor run on its thread.
    pub(crate) server: Rc<RefCell<Server>>,
    /// Those that it is subscribed to.
    pub(crate) channels: BTreeSet<Bytes>,
    /// A channel and a message for which there was no room.
    pub(crate) refused: Option<(Bytes, Bytes)>,
}

/// A request that has no answer of its own.
pub(crate) enum Wrong {
    /// What the client is told. The connection goes on.
    Request(String),
    /// The answer cannot be sent. The connection ends.
    Answer(SendError),
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Self::Request(text)
    }
}

impl From<&str> for Wrong {
    fn from(text: &str) -> Self {
        Self::Request(text.into())
    }
}

impl From<SendError> for Wrong {
    fn from(error: SendError) -> Self {
        Self::Answer(error)
    }
}

pub(crate) type Answer = Result<Action<'static>, Wrong>;
type Call = fn(&mut Client, &Request<'_>, &mut Context<'_, ()>) -> Answer;

struct Command {
    call: Call,
    /// How many arguments it takes.
    least: usize,
    most: usize,
    /// Whether a subscriber may use it.
    for_subscribers: bool,
}

/// The command with this name, which is in lower case.
fn command(name: &[u8]) -> Option<Command> {
    const MANY: usize = usize::MAX;
    let (call, least, most): (Call, _, _) = match name {
        b"get" => (Client::get, 1, 1),
        b"set" => (Client::set, 2, MANY),
        b"del" => (Client::del, 1, MANY),
        b"incr" => (Client::incr, 1, 1),
        b"incrby" => (Client::incr, 2, 2),
        b"mget" => (Client::mget, 1, MANY),
        b"mset" => (Client::mset, 2, MANY),
        b"echo" => (Client::echo, 1, 1),
        b"ping" => (Client::ping, 0, 1),
        b"quit" => (Client::quit, 0, MANY),
        b"subscribe" => (Client::subscribe, 1, MANY),
        b"unsubscribe" => (Client::unsubscribe, 0, MANY),
        b"publish" => (Client::publish, 2, 2),
        b"config" => (Client::config, 1, MANY),
        b"info" => (Client::info, 0, MANY),
        b"select" => (Client::select, 1, 1),
        b"client" => (Client::client, 1, MANY),
        b"command" => (Client::no_commands, 0, MANY),
        _ => return None,
    };
    let for_subscribers = matches!(name, b"ping" | b"quit" | b"subscribe" | b"unsubscribe");
    Some(Command { call, least, most, for_subscribers })
}

impl Handler for Client {
    type Message = ();

    fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        let answer = match packet {
            [b'*', ..] => Request::parse(packet).map(|request| self.answer(&request, ctx)),
            line => array_of(line)
                .and_then(|array| Request::parse(&array).map(|request| self.answer(&request, ctx))),
        };
        match answer {
            Ok(Ok(action)) => action,
            Ok(Err(Wrong::Request(text))) => Action::send(format!("-{text}\r\n")),
            Ok(Err(Wrong::Answer(error))) => Action::stop(error.into()),
            Err(problem) => refuse(problem),
        }
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        match info {
            Info::MailboxReady => {
                ctx.resume_reading();
                match self.refused.take() {
                    Some((channel, message)) => self.send_to(channel, message, ctx),
                    None => Action::Continue,
                }
            }
            other => other.default_action(),
        }
    }

    fn terminate(self, _: CloseReason) {
        let mut server = self.server.borrow_mut();
        self.channels.iter().for_each(|channel| _ = server.forget(channel));
        server.clients -= 1;
    }
}

/// Bytes that are no request: where the next one begins is not known any more.
fn refuse(problem: Problem) -> Action<'static> {
    let text = format!("-ERR Protocol error: {problem}\r\n");
    Action::send_and_stop(text, CloseReason::Custom("not a request"))
}

impl Client {
    pub(crate) fn new(server: &Rc<RefCell<Server>>) -> Self {
        server.borrow_mut().clients += 1;
        Self { server: Rc::clone(server), channels: BTreeSet::new(), refused: None }
    }

    fn answer(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        if request.len() == 0 {
            return Ok(Action::Continue); // an empty line, or an empty array
        }
        let mut lower = [0; 16];
        let name = request.nth(0).text;
        let known = lower.get_mut(..name.len()).and_then(|lower| {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            command(lower)
        });
        let Some(Command { call, least, most, for_subscribers }) = known else {
            return Err(unknown(request).into());
        };
        if !(least..=most).contains(&(request.len() - 1)) {
            return Err(wrong_number(name).into());
        }
        if !for_subscribers && !self.channels.is_empty() {
            return Err(format!(
                "ERR Can't execute '{}': only (UN)SUBSCRIBE / PING / QUIT are allowed in this context",
                name.to_ascii_lowercase().escape_ascii()
            )
            .into());
        }
        self.server.borrow_mut().store.sweep(ctx.now());
        call(self, request, ctx)
    }

    fn echo(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        ctx.send(&*request.nth(1).framed())?;
        Ok(Action::Continue)
    }

    fn ping(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        let has_text = request.len() > 1;
        if !self.channels.is_empty() {
            // A subscriber gets arrays only.
            let text = if has_text { request.nth(1).framed() } else { b"$0\r\n\r\n".into() };
            ctx.send_parts(&[b"*2\r\n$4\r\npong\r\n", &text])?;
            return Ok(Action::Continue);
        }
        if has_text { self.echo(request, ctx) } else { Ok(Action::send("+PONG\r\n")) }
    }

    fn quit(&mut self, _: &Request<'_>, _: &mut Context<'_, ()>) -> Answer {
        Ok(Action::send_and_stop("+OK\r\n", CloseReason::Normal))
    }

    /// Clients that measure ask for two settings. Nothing is kept on disk.
    fn config(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        const SETTINGS: [(&str, &str); 2] = [("appendonly", "no"), ("save", "")];
        let verb = request.nth(1).text;
        if !verb.eq_ignore_ascii_case(b"get") {
            return Err(unknown_verb(verb, "CONFIG").into());
        }
        if request.len() == 2 {
            return Err(wrong_number(b"config|get").into());
        }
        let is_asked = |name: &str| {
            let is_name =
                |asked: &[u8]| asked == b"*" || asked.eq_ignore_ascii_case(name.as_bytes());
            request.from(2).any(|asked| is_name(asked.text))
        };
        let known: Vec<_> = SETTINGS.iter().filter(|(name, _)| is_asked(name)).collect();
        ctx.send_with(|out| {
            write!(out, "*{}\r\n", 2 * known.len());
            for (name, value) in known {
                put_string(out, name);
                put_string(out, value);
            }
        })?;
        Ok(Action::Continue)
    }

    fn info(&mut self, _: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        let server = self.server.borrow();
        let (keys, expires) = server.store.len();
        let text = format!(
            "# Server\r\nserver_name:condor resp\r\nprocess_id:{}\r\n\r\n\
             # Clients\r\nconnected_clients:{}\r\n\r\n# Stats\r\npubsub_channels:{}\r\n\r\n\
             # Keyspace\r\ndb0:keys={keys},expires={expires}\r\n",
            std::process::id(),
            server.clients,
            server.channels.len(),
        );
        ctx.send_with(|out| put_string(out, &text))?;
        Ok(Action::Continue)
    }

    /// There is one database.
    fn select(&mut self, request: &Request<'_>, _: &mut Context<'_, ()>) -> Answer {
        match integer(request.nth(1).text) {
            Some(0) => Ok(Action::send("+OK\r\n")),
            Some(_) => Err("ERR DB index is out of range".into()),
            None => Err(NOT_AN_INTEGER.into()),
        }
    }

    /// Libraries tell their names when they connect.
    fn client(&mut self, request: &Request<'_>, _: &mut Context<'_, ()>) -> Answer {
        let verb = request.nth(1).text;
        if [&b"setname"[..], b"setinfo"].iter().any(|known| verb.eq_ignore_ascii_case(known)) {
            return Ok(Action::send("+OK\r\n"));
        }
        Err(unknown_verb(verb, "CLIENT").into())
    }

    /// `redis-cli` asks for help texts, and does without.
    fn no_commands(&mut self, _: &Request<'_>, _: &mut Context<'_, ()>) -> Answer {
        Ok(Action::send("*0\r\n"))
    }
}

fn put_string(out: &mut PacketWriter<'_>, text: &str) {
    write!(out, "${}\r\n{text}\r\n", text.len());
}

/// A client's text for an answer of one line.
fn shown(text: &[u8]) -> String {
    let text = &text[..text.len().min(128)];
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ")
}

fn unknown(request: &Request<'_>) -> String {
    let mut arguments = String::new();
    for argument in request.from(1) {
        if arguments.len() >= 128 {
            break;
        }
        let most = argument.text.len().min(128 - arguments.len());
        arguments += &format!("'{}' ", shown(&argument.text[..most]));
    }
    let name = shown(request.nth(0).text);
    format!("ERR unknown command '{name}', with args beginning with: {arguments}")
}

fn unknown_verb(verb: &[u8], command: &str) -> String {
    format!("ERR unknown subcommand '{}'. Try {command} HELP.", shown(verb))
}

pub(crate) fn wrong_number(name: &[u8]) -> String {
    format!("ERR wrong number of arguments for '{}' command", shown(&name.to_ascii_lowercase()))
}
