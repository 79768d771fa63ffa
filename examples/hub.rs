//! A hub: clients publish lines to topics, and get what others publish.
//!
//! ```text
//! cargo run --release --example hub -- --listen 127.0.0.1:5558
//! nc 127.0.0.1 5558          # type: SUB news
//! nc 127.0.0.1 5558          # type: PUB news it rains
//! ```
//!
//! The first client gets `MSG news it rains`. `UNSUB news` ends a subscription. A line that is wrong
//! is answered with `ERR` and a text. Nothing else is answered.
//!
//! A topic is a `Group`: to publish costs one entry in the mailbox of each shard, however many
//! subscribers there are. A publisher that meets a full mailbox pauses until there is room.
//! `--slow` says what happens to a subscriber that reads too slowly. It is disconnected, it misses
//! messages, or it gets only the `latest` message of each topic: a publisher leaves that with the
//! topic, and wakes the subscribers.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use condor::{
    Accepted, Action, Address, CloseReason, ConnectionId, Context, Error, Group, Handler, Info,
    Lines, ListenerOptions, MessageError, Shards, SlowMember,
};

#[path = "common/mod.rs"]
mod common;

#[derive(Debug, Copy, Clone, PartialEq, Eq, ValueEnum)]
enum Slow {
    Disconnect,
    Skip,
    Latest,
}

struct Topic {
    group: Group<()>,
    subscribers: HashMap<ConnectionId, Address<()>>,
    /// With `latest`: the newest message, and its number.
    newest: (Bytes, u64),
}

/// What all connections share. A topic exists while it has subscribers.
type Topics = Arc<Mutex<HashMap<Vec<u8>, Topic>>>;

struct Client {
    all: Topics,
    slow: Slow,
    id: ConnectionId,
    /// The topics, and the number of the newest message that it has got of each.
    topics: BTreeMap<Vec<u8>, u64>,
    /// A topic and a message for which there was no room.
    refused: Option<(Vec<u8>, Bytes)>,
}

impl Client {
    fn subscribe(&mut self, name: &[u8], ctx: &mut Context<'_, ()>) -> Action<'static> {
        let slow = if self.slow == Slow::Skip { SlowMember::Skip } else { SlowMember::Disconnect };
        let mut topics = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let group = topics.get(name).map(|topic| topic.group.clone());
        let group = group.unwrap_or_else(|| ctx.group().slow_member(slow));
        if let Err(error) = ctx.join(&group) {
            return Action::send(format!("ERR {error}"));
        }
        let new = || Topic { group, subscribers: HashMap::new(), newest: (Bytes::new(), 0) };
        let topic = topics.entry(name.to_vec()).or_insert_with(new);
        topic.subscribers.insert(self.id, ctx.address());
        self.topics.entry(name.to_vec()).or_insert(topic.newest.1);
        Action::Continue
    }

    fn unsubscribe(&mut self, name: &[u8], leave: impl FnOnce(&Group<()>) -> bool) {
        self.topics.remove(name);
        let mut topics = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(topic) = topics.get_mut(name) else { return };
        leave(&topic.group);
        topic.subscribers.remove(&self.id);
        if topic.subscribers.is_empty() {
            topics.remove(name);
        }
    }

    fn publish(&mut self, name: Vec<u8>, message: Bytes, ctx: &mut Context<'_, ()>) {
        let mut topics = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Topic { group, subscribers, newest }) = topics.get_mut(&name) else { return };
        if self.slow == Slow::Latest {
            *newest = (message, newest.1 + 1);
            subscribers.values().for_each(|address| _ = address.wake());
        } else if let Err(MessageError::Full(message)) = group.send_packet(message) {
            self.refused = Some((name, message));
            ctx.pause_reading();
            ctx.notify_when_ready(&*group);
        }
    }
}

impl Handler for Client {
    type Message = ();

    fn handle_packet(&mut self, line: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        match *line.splitn(3, |byte| *byte == b' ').collect::<Vec<_>>() {
            [b"SUB", topic @ [_, ..]] => return self.subscribe(topic, ctx),
            [b"UNSUB", topic @ [_, ..]] => self.unsubscribe(topic, |group| ctx.leave(group)),
            [b"PUB", topic @ [_, ..], text] => {
                let message = [b"MSG ", topic, b" ", text].concat();
                self.publish(topic.to_vec(), message.into(), ctx);
            }
            _ => return Action::send("ERR there is SUB topic, UNSUB topic and PUB topic text"),
        }
        Action::Continue
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        match info {
            // Once the client has taken what was sent before.
            Info::Wake | Info::Writable if ctx.queued_bytes() == 0 => {
                let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
                for (name, got) in &mut self.topics {
                    let (message, number) = &all[name].newest;
                    if number > got && ctx.send(message.clone()).is_ok() {
                        *got = *number;
                    }
                }
            }
            Info::MailboxReady => {
                ctx.resume_reading();
                if let Some((topic, message)) = self.refused.take() {
                    self.publish(topic, message, ctx);
                }
            }
            other => return other.default_action(),
        }
        Action::Continue
    }

    fn terminate(mut self, _: CloseReason) {
        take(&mut self.topics).keys().for_each(|topic| self.unsubscribe(topic, |_| false));
    }
}

/// Passes lines on to those who subscribed to their topic.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5558")]
    listen: SocketAddr,
    /// What happens to a subscriber that reads too slowly
    #[arg(long, value_enum, default_value_t = Slow::Disconnect)]
    slow: Slow,
    /// Reactors, each on a thread of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    shards: u32,
    /// The most connections at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
}

fn client(all: &Topics, slow: Slow, id: ConnectionId) -> Client {
    Client { all: all.clone(), slow, id, topics: BTreeMap::new(), refused: None }
}

/// With `latest`, a client that has not taken everything is told when it has.
fn options(listen: SocketAddr, slow: Slow) -> ListenerOptions {
    let options = ListenerOptions::new(listen).framing(Lines::new(8 * 1024));
    if slow == Slow::Latest { options.write_high_water(1).write_low_water(0) } else { options }
}

fn main() -> ExitCode {
    common::exit_code("hub", serve(&Arguments::parse()))
}

fn serve(arguments: &Arguments) -> Result<(), Error> {
    common::start_log("info");
    let (all, slow) = (Topics::default(), arguments.slow);
    let shards = Shards::new(arguments.shards as usize)?;
    let options =
        options(arguments.listen, slow).max_connections(arguments.max_connections as usize);
    let factory = move |peer: &Accepted<'_>| client(&all, slow, peer.id());
    let listener = shards.start_listener("hub", options, factory)?;
    common::drain_on_signals(shards.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    shards.run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::testing::Harness;

    fn hub(slow: Slow) -> Harness<Client> {
        let all = Topics::default();
        let options = options("127.0.0.1:0".parse().unwrap(), slow);
        Harness::new(options, move |peer: &Accepted<'_>| client(&all, slow, peer.id()))
    }

    fn lines(client: &Harness<Client>) -> Vec<String> {
        client.packets().into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn a_subscriber_gets_what_is_published_to_its_topics() {
        for slow in [Slow::Disconnect, Slow::Skip, Slow::Latest] {
            let (one, nothing) = (hub(slow), Vec::<String>::new());
            let two = one.connect();
            one.packet("SUB news");
            two.packet("PUB news it rains");
            assert_eq!(lines(&one), ["MSG news it rains"]);
            one.packet("SUB news");
            one.packet("PUB news  again ");
            assert_eq!(lines(&one), ["MSG news  again "], "once, although it subscribed twice");
            two.packet("PUB other not for it");
            one.packet("UNSUB news");
            two.packet("PUB news nobody hears it");
            assert_eq!((lines(&one), lines(&two)), (nothing.clone(), nothing));
            one.peer_closes();
            assert_eq!(one.closed(), Some(CloseReason::PeerClosed));
        }
    }

    #[test]
    fn a_wrong_line_is_answered_and_changes_nothing() {
        let one = hub(Slow::Disconnect);
        let wrong = ["", "SUB", "SUB ", "SUB a b", "UNSUB ", "PUB", "PUB a", "PUB  text", "sub a"];
        for line in wrong {
            one.packet(line);
            assert!(lines(&one).iter().all(|answer| answer.starts_with("ERR ")), "{line}");
        }
        one.packet("UNSUB never");
        assert_eq!(lines(&one), Vec::<String>::new());
        assert_eq!(one.with_handler(|client| client.all.lock().unwrap().len()), Some(0));
    }

    #[test]
    fn a_topic_goes_with_its_last_subscriber() {
        let one = hub(Slow::Skip);
        let two = one.connect();
        one.packet("SUB a");
        two.packet("SUB a");
        one.packet("UNSUB a");
        let topics =
            |client: &Harness<Client>| client.with_handler(|it| it.all.lock().unwrap().len());
        assert_eq!(topics(&one), Some(1));
        two.peer_resets();
        assert_eq!(topics(&one), Some(0));
    }

    #[test]
    fn a_slow_subscriber_gets_what_was_asked_for() {
        let text = "x".repeat(1_000);
        for slow in [Slow::Disconnect, Slow::Skip, Slow::Latest] {
            let one = hub(slow);
            let two = one.connect();
            one.packet("SUB a");
            one.packet("SUB b");
            one.peer_stalls();
            for nth in 0..200 {
                two.packet(format!("PUB a {nth} {text}"));
            }
            two.packet("PUB b end");
            if slow == Slow::Disconnect {
                assert_eq!(one.closed(), Some(CloseReason::SlowReader));
                continue;
            }
            assert_eq!(one.closed(), None);
            one.peer_reads_all();
            let got = lines(&one);
            assert!(got[0].starts_with("MSG a 0 "));
            match slow {
                Slow::Latest => {
                    assert_eq!(got.len(), 3, "the first, and the newest of each topic");
                    assert!(got[1].starts_with("MSG a 199 ") && got[2] == "MSG b end");
                }
                _ => assert!(got.len() < 100, "{} messages", got.len()),
            }
            two.packet("PUB b after");
            assert_eq!(lines(&one), ["MSG b after"]);
        }
    }

    #[test]
    fn a_publisher_without_room_waits_and_loses_nothing() {
        let all = Topics::default();
        let options = options("127.0.0.1:0".parse().unwrap(), Slow::Disconnect);
        let factory = move |peer: &Accepted<'_>| client(&all, Slow::Disconnect, peer.id());
        let one = Harness::new(options.mailbox_capacity(4), factory);
        let two = one.connect();
        one.packet("SUB a");
        let frames: Vec<u8> =
            (0..1_000).flat_map(|nth| format!("PUB a {nth}\n").into_bytes()).collect();
        two.receive(frames);
        let expected: Vec<_> = (0..1_000).map(|nth| format!("MSG a {nth}")).collect();
        assert_eq!(lines(&one), expected);
    }
}
