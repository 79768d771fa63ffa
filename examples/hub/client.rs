//! Topics with their subscribers, and the clients that publish and subscribe.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clap::ValueEnum;
use condor::{
    Accepted, Action, Address, CloseReason, ConnectionId, Context, Group, Handler, Info, Lines,
    ListenerOptions, MessageError, SlowMember,
};

use crate::redis::Outbox;

/// The longest line in bytes.
pub(crate) const LINE_MAX: usize = 8 * 1024;

#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, ValueEnum)]
pub(crate) enum Slow {
    #[default]
    Disconnect,
    Skip,
    Latest,
}

pub(crate) struct Topic {
    group: Group<()>,
    subscribers: HashMap<ConnectionId, Address<()>>,
    /// With `latest`: the newest message, and its number.
    newest: (Bytes, u64),
}

/// What all connections share.
#[derive(Default)]
pub(crate) struct Topics {
    pub(crate) slow: Slow,
    /// A topic exists while it has subscribers.
    pub(crate) by_name: HashMap<Vec<u8>, Topic>,
    pub(crate) redis: Outbox,
}

/// A message, and the group that has no room for it.
pub(crate) type Refused = (Bytes, Group<()>);

pub(crate) type Shared = Arc<Mutex<Topics>>;

pub(crate) fn lock(topics: &Shared) -> MutexGuard<'_, Topics> {
    topics.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Topics {
    /// Delivers a message to this hub's subscribers, or gives it back.
    pub(crate) fn deliver(&mut self, name: &[u8], message: Bytes) -> Result<(), Refused> {
        let Some(topic) = self.by_name.get_mut(name) else { return Ok(()) };
        if self.slow == Slow::Latest {
            topic.newest = (message, topic.newest.1 + 1);
            topic.subscribers.values().for_each(|address| _ = address.wake());
        } else if let Err(MessageError::Full(message)) = topic.group.send_packet(message) {
            return Err((message, topic.group.clone()));
        }
        Ok(())
    }
}

pub(crate) struct Client {
    all: Shared,
    id: ConnectionId,
    /// The topics, and the number of the newest message that it has got of each.
    topics: BTreeMap<Vec<u8>, u64>,
    /// A topic and a message for which there was no room.
    refused: Option<(Vec<u8>, Bytes)>,
}

impl Client {
    pub(crate) fn new(all: &Shared, peer: &Accepted<'_>) -> Self {
        Self { all: all.clone(), id: peer.id(), topics: BTreeMap::new(), refused: None }
    }

    fn subscribe(&mut self, name: &[u8], ctx: &mut Context<'_, ()>) -> Action<'static> {
        let topics = &mut *lock(&self.all);
        let skip = topics.slow == Slow::Skip;
        let slow = if skip { SlowMember::Skip } else { SlowMember::Disconnect };
        let group = topics.by_name.get(name).map(|topic| topic.group.clone());
        let group = group.unwrap_or_else(|| ctx.group().slow_member(slow));
        if let Err(error) = ctx.join(&group) {
            return Action::send(format!("ERR {error}"));
        }
        let topic = topics.by_name.entry(name.to_vec()).or_insert_with(|| {
            topics.redis.change(name);
            Topic { group, subscribers: HashMap::new(), newest: (Bytes::new(), 0) }
        });
        topic.subscribers.insert(self.id, ctx.address());
        self.topics.entry(name.to_vec()).or_insert(topic.newest.1);
        Action::Continue
    }

    fn unsubscribe(&mut self, name: &[u8], leave: impl FnOnce(&Group<()>) -> bool) {
        self.topics.remove(name);
        let topics = &mut *lock(&self.all);
        let Some(topic) = topics.by_name.get_mut(name) else { return };
        leave(&topic.group);
        topic.subscribers.remove(&self.id);
        if topic.subscribers.is_empty() {
            topics.by_name.remove(name);
            topics.redis.change(name);
        }
    }

    fn publish(&mut self, name: Vec<u8>, message: Bytes, ctx: &mut Context<'_, ()>) {
        let topics = &mut *lock(&self.all);
        let message = match topics.redis.offer(&name, message, || ctx.address()) {
            Err(MessageError::Full(message)) => message,
            Err(MessageError::Gone(message)) => match topics.deliver(&name, message) {
                Ok(()) => return topics.redis.delivered(),
                Err((message, group)) => {
                    ctx.notify_when_ready(&group);
                    message
                }
            },
            _ => return,
        };
        self.refused = Some((name, message));
        ctx.pause_reading();
    }
}

impl Handler for Client {
    type Message = ();

    fn handle_packet(&mut self, line: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        match *line.splitn(3, |byte| *byte == b' ').collect::<Vec<_>>() {
            [b"SUB", topic @ [_, ..]] => return self.subscribe(topic, ctx),
            [b"UNSUB", topic @ [_, ..]] => self.unsubscribe(topic, |group| ctx.leave(group)),
            [b"PUB", topic @ [_, ..], text] => {
                self.publish(topic.to_vec(), message(topic, text), ctx);
            }
            _ => return Action::send("ERR there is SUB topic, UNSUB topic and PUB topic text"),
        }
        Action::Continue
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        if !matches!(info, Info::Wake | Info::Writable | Info::MailboxReady) {
            return info.default_action();
        }
        if let Some((topic, message)) = self.refused.take() {
            ctx.resume_reading();
            self.publish(topic, message, ctx);
        }
        // Once the client has taken what was sent before.
        if ctx.queued_bytes() == 0 {
            let all = lock(&self.all);
            for (name, got) in &mut self.topics {
                let (message, number) = &all.by_name[name].newest;
                if number > got && ctx.send(message.clone()).is_ok() {
                    *got = *number;
                }
            }
        }
        Action::Continue
    }

    fn terminate(mut self, _: CloseReason) {
        take(&mut self.topics).keys().for_each(|topic| self.unsubscribe(topic, |_| false));
    }
}

/// What a subscriber gets.
pub(crate) fn message(topic: &[u8], text: &[u8]) -> Bytes {
    [b"MSG ", topic, b" ", text].concat().into()
}

/// With `latest`, a client that has not taken everything is told when it has.
pub(crate) fn options(listen: SocketAddr, slow: Slow) -> ListenerOptions {
    let options = ListenerOptions::new(listen).framing(Lines::new(LINE_MAX));
    if slow == Slow::Latest { options.write_high_water(1).write_low_water(0) } else { options }
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::testing::Harness;

    fn hub(slow: Slow) -> Harness<Client> {
        hub_with(slow, 64)
    }

    fn hub_with(slow: Slow, mailbox_capacity: usize) -> Harness<Client> {
        let all = Shared::new(Mutex::new(Topics { slow, ..Topics::default() }));
        let options = options("127.0.0.1:0".parse().unwrap(), slow);
        let options = options.mailbox_capacity(mailbox_capacity);
        Harness::new(options, move |peer: &Accepted<'_>| Client::new(&all, peer))
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
        assert_eq!(one.with_handler(|client| lock(&client.all).by_name.len()), Some(0));
    }

    #[test]
    fn a_topic_goes_with_its_last_subscriber() {
        let one = hub(Slow::Skip);
        let two = one.connect();
        one.packet("SUB a");
        two.packet("SUB a");
        one.packet("UNSUB a");
        let topics =
            |client: &Harness<Client>| client.with_handler(|it| lock(&it.all).by_name.len());
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
        let one = hub_with(Slow::Disconnect, 4);
        let two = one.connect();
        one.packet("SUB a");
        let frames: Vec<u8> =
            (0..1_000).flat_map(|nth| format!("PUB a {nth}\n").into_bytes()).collect();
        two.receive(frames);
        let expected: Vec<_> = (0..1_000).map(|nth| format!("MSG a {nth}")).collect();
        assert_eq!(lines(&one), expected);
    }
}
