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
                "ERR Can't execute '{}': only (UN)SUBSCRIBE / PING / QUIT are allowed here",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options;
    use crate::protocol::{MAX_LINE, MAX_REQUEST};
    use crate::store::framed;
    use crate::strings::SHARED_FROM;
    use condor::ListenerOptions;
    use condor::testing::Harness;
    use std::time::Duration;

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
            "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n\
             *3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n"
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
