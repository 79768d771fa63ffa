//! The link to Redis, by which hubs share their topics.
//!
//! # Each publication takes one way
//!
//! While the link is up, a publication goes to Redis, and comes back to the subscribers of this hub as
//! it comes to those of all others. While the link is down, this hub delivers to its own subscribers.
//! The lock of the topics decides, once for each publication. So no subscriber gets one twice.
//!
//! There is one link for all shards. It speaks RESP3, in which one connection may publish and
//! subscribe: this needs Redis 6. Redis executes the requests of one connection in order, so a
//! publication that follows its `SUBSCRIBE` comes back. If a topic had no subscription when Redis
//! executed the `PUBLISH`, nothing comes back, and the answer delivers the message here.
//!
//! # When the link ends
//!
//! - A publication that Redis has answered is published. Its message comes just before the answer, or
//!   from Redis 7.2 on just after it. If the link ends between the two, it does not arrive here, and
//!   counts as in doubt.
//! - A publication that waits in this hub is delivered here: Redis has not seen it.
//! - A publication that was sent and not answered is *in doubt*: Redis may publish it now, later or
//!   never. This hub counts it and does not deliver it. Other hubs get it at most once.
//! - A publication that Redis refuses with an error is delivered here: Redis has not published it. Then
//!   the link takes no more publications, waits for the answers to those that are under way, and ends.
//!
//! So the messages of one publisher arrive in order. There is one exception: Redis or the network stood
//! still for longer than [`SILENCE`], and goes on when this hub has given the link up. Then messages in
//! doubt may arrive late.
//!
//! A new link subscribes all topics that have subscribers. What other hubs publish before that does
//! not arrive: Redis keeps nothing. For the same reason the first subscriber of a topic gets what other
//! hubs publish once Redis has executed the `SUBSCRIBE`.
//!
//! # When one of the two is slow
//!
//! If Redis is slow, at most [`QUEUE_MAX`] publications wait here, and [`CALLS_MAX`] requests have no
//! answer. Then publishers wait, and their connections are not read. If this hub is slow, Redis is not
//! read. Redis ends the link when it holds more for it than `client-output-buffer-limit pubsub` allows.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::mem::take;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use condor::{
    Action, Address, Backoff, Calls, CloseReason, ConnectionId, ConnectorOptions, Context, Error,
    Framing, Handler, InOrder, Info, MessageError, Raw, Shards,
};

use crate::client::{LINE_MAX, Shared, Topics, lock, message};
use crate::reply::{REPLY_MAX, Replies, request, texts};

/// Publications that wait for the link. More wait at their publishers.
const QUEUE_MAX: usize = 1_024;
/// Requests to Redis without an answer. More would be lost with a Redis that dies.
const CALLS_MAX: usize = 256;
/// If Redis sends nothing for this long, it is away.
const SILENCE: Duration = Duration::from_secs(3);
/// The longest wait between two dials.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

const REFUSED: CloseReason = CloseReason::Custom("Redis has answered with an error");
const OUT_OF_STEP: CloseReason = CloseReason::Custom("Redis has answered out of order");

type Publication = (Vec<u8>, Bytes);

/// What the clients have for the link.
#[derive(Default)]
pub(crate) struct Outbox {
    state: State,
    /// The topics whose subscriptions are other than Redis was told.
    changed: BTreeSet<Vec<u8>>,
    queue: VecDeque<Publication>,
    /// The publishers that wait for room.
    waiting: HashMap<ConnectionId, Address<()>>,
    pub(crate) figures: Figures,
}

#[derive(Default)]
enum State {
    /// Publications stay in this hub.
    #[default]
    Away,
    /// Publications go to Redis, by this link.
    Up(Address<()>),
    /// The link is about to end. Publications wait, so that they come after those under way.
    Ending,
}

/// What became of publications. One by a client of this hub is `sent`, `local` or `in_doubt`, or it is
/// `dropped` with the link.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Redis has published them.
    pub(crate) sent: u64,
    /// They came from Redis, for subscribers of this hub.
    pub(crate) received: u64,
    /// Delivered here, because Redis was away or refused them.
    pub(crate) local: u64,
    /// Their link has ended before their answer, or between their answer and their message.
    pub(crate) in_doubt: u64,
    /// No client can get them, or a mailbox was full when the link ended.
    pub(crate) dropped: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, local, in_doubt, dropped } = self;
        write!(f, "to Redis {sent}, from Redis {received}, only here {local}, ")?;
        write!(f, "in doubt {in_doubt}, dropped {dropped}")
    }
}

impl Outbox {
    /// A topic has got its first subscriber, or has lost its last one.
    pub(crate) fn change(&mut self, name: &[u8]) {
        let State::Up(link) = &self.state else { return };
        if !self.changed.remove(name) {
            self.changed.insert(name.to_vec());
        }
        link.wake();
    }

    /// Takes a publication for Redis.
    ///
    /// # Errors
    ///
    /// `Full`: there is no room, and the publisher will be woken. `Gone`: Redis is away.
    pub(crate) fn offer(
        &mut self,
        name: &[u8],
        message: Bytes,
        publisher: impl FnOnce() -> Address<()>,
    ) -> Result<(), MessageError<Bytes>> {
        match &self.state {
            State::Up(link) if self.queue.len() < QUEUE_MAX => {
                self.queue.push_back((name.to_vec(), message));
                link.wake();
                Ok(())
            }
            State::Away => Err(MessageError::Gone(message)),
            State::Up(_) | State::Ending => {
                let publisher = publisher();
                self.waiting.insert(publisher.id(), publisher);
                Err(MessageError::Full(message))
            }
        }
    }

    /// A publication was delivered here instead.
    pub(crate) fn delivered(&mut self) {
        self.figures.local += 1;
    }

    fn wake_publishers(&mut self) {
        self.waiting.drain().for_each(|(_, publisher)| _ = publisher.wake());
    }
}

/// A request that Redis has not answered.
enum Sent {
    Hello,
    Ping,
    Change,
    Publish(Publication),
}

/// The connection to Redis, while there is one.
pub(crate) struct Link {
    topics: Shared,
    calls: Calls<InOrder, Sent>,
    /// The topics that Redis has confirmed.
    subscribed: HashSet<Vec<u8>>,
    /// The message that has come, if it was the last that Redis has sent.
    came: Bytes,
    /// Redis has just answered a publication, whose message comes next.
    awaited: bool,
    /// What had no room in a mailbox. Redis is not read meanwhile.
    refused: Option<Publication>,
    /// The link ends for this reason, once nothing is under way.
    ending: Option<CloseReason>,
}

type Done = Result<(), CloseReason>;

impl Link {
    pub(crate) fn new(topics: &Shared) -> Self {
        let calls = Calls::in_order(CALLS_MAX);
        let topics = topics.clone();
        let (subscribed, came) = (HashSet::new(), Bytes::new());
        Self { topics, calls, subscribed, came, awaited: false, refused: None, ending: None }
    }

    fn send(&mut self, words: &[&[u8]], sent: Sent, ctx: &mut Context<'_, ()>) -> Done {
        // `SILENCE` is the deadline of all requests. `fill` looks whether there is room.
        if self.calls.open(sent, Duration::MAX, ctx).is_ok() {
            ctx.send(request(words))?;
        }
        Ok(())
    }

    /// Sends what clients have left, as far as there is room: the topics first, so that a publication
    /// finds its subscription.
    fn fill(&mut self, ctx: &mut Context<'_, ()>) -> Done {
        let topics = self.topics.clone();
        let Topics { by_name, redis, .. } = &mut *lock(&topics);
        while !self.calls.is_full() && self.ending != Some(REFUSED) {
            if let Some(name) = redis.changed.pop_first() {
                let wanted = by_name.contains_key(&name);
                let verb: &[u8] = if wanted { b"SUBSCRIBE" } else { b"UNSUBSCRIBE" };
                self.send(&[verb, &name], Sent::Change, ctx)?;
            } else if let Some((name, message)) = redis.queue.pop_front() {
                let text = message.slice(b"MSG  ".len() + name.len()..);
                let words: [&[u8]; 3] = [b"PUBLISH", &name.clone(), &text];
                self.send(&words, Sent::Publish((name, message)), ctx)?;
            } else {
                break;
            }
        }
        if matches!(redis.state, State::Up(_)) && redis.queue.len() < QUEUE_MAX {
            redis.wake_publishers();
        }
        Ok(())
    }

    fn reply(&mut self, reply: &[u8], ctx: &mut Context<'_, ()>) -> Done {
        let came = take(&mut self.came);
        self.awaited = false;
        match (reply.first(), &texts(reply)[..]) {
            (Some(b'>'), [b"message", topic, text]) => self.arrived(topic, text, ctx),
            (Some(b'>'), [kind @ (b"subscribe" | b"unsubscribe"), topic, _]) => {
                let Some(Sent::Change) = self.calls.answered(ctx) else { return Err(OUT_OF_STEP) };
                if *kind == b"subscribe" {
                    self.subscribed.insert(topic.to_vec());
                } else {
                    self.subscribed.remove(*topic);
                }
            }
            (Some(b'>'), _) => {}
            (Some(b'-'), texts) => self.refuse(&texts.concat(), ctx),
            _ => match self.calls.answered(ctx).ok_or(OUT_OF_STEP)? {
                Sent::Hello => self.up(ctx),
                Sent::Ping => {}
                Sent::Change => return Err(OUT_OF_STEP),
                Sent::Publish((name, message)) => {
                    lock(&self.topics).redis.figures.sent += 1;
                    // Redis did not send it back, if there was no subscription at that time.
                    if self.subscribed.contains(&name) {
                        self.awaited = came != message;
                    } else {
                        self.deliver(name, message, ctx);
                    }
                }
            },
        }
        self.fill(ctx)
    }

    fn up(&self, ctx: &Context<'_, ()>) {
        if self.ending.is_some() {
            return;
        }
        let Topics { by_name, redis, .. } = &mut *lock(&self.topics);
        redis.state = State::Up(ctx.address());
        redis.changed = by_name.keys().cloned().collect();
        log::info!("redis: up, {} topics are shared; {}", by_name.len(), redis.figures);
    }

    fn arrived(&mut self, topic: &[u8], text: &[u8], ctx: &mut Context<'_, ()>) {
        let message = message(topic, text);
        // Other programs publish, too, and may publish what is no line.
        let is_line = message.len() <= LINE_MAX && !message.contains(&b'\n');
        if is_line {
            lock(&self.topics).redis.figures.received += 1;
            self.came = message.clone();
            self.deliver(topic.to_vec(), message, ctx);
        } else {
            lock(&self.topics).redis.figures.dropped += 1;
        }
    }

    /// Redis has answered with an error.
    fn refuse(&mut self, text: &[u8], ctx: &mut Context<'_, ()>) {
        if self.ending.replace(REFUSED) != Some(REFUSED) {
            log::warn!(
                "redis: it refuses: {}; check that it is Redis 6 or later, and what its default \
                 user may do",
                text.escape_ascii()
            );
            lock(&self.topics).redis.state = State::Ending;
        }
        if let Some(Sent::Publish((name, message))) = self.calls.answered(ctx) {
            lock(&self.topics).redis.delivered();
            self.deliver(name, message, ctx);
        }
    }

    fn deliver(&mut self, name: Vec<u8>, message: Bytes, ctx: &mut Context<'_, ()>) {
        let delivered = lock(&self.topics).deliver(&name, message);
        if let Err((message, group)) = delivered {
            self.refused = Some((name, message));
            ctx.pause_reading();
            ctx.notify_when_ready(&group);
        }
    }

    /// After each event.
    fn go_on(&self, done: Done) -> Action<'static> {
        match (done, &self.ending) {
            (Err(reason), _) => Action::stop(reason),
            (_, Some(reason)) if self.calls.is_empty() && self.refused.is_none() => {
                Action::stop(*reason)
            }
            _ => Action::Continue,
        }
    }
}

impl Handler for Link {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        _ = ctx.send_after(SILENCE / 3, ());
        self.send(&[b"HELLO", b"3"], Sent::Hello, ctx).map(|()| Action::Continue).into()
    }

    fn handle_packet(&mut self, reply: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        let done = self.reply(reply, ctx);
        self.go_on(done)
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        let done = match info {
            Info::Wake => self.fill(ctx),
            Info::MailboxReady => {
                ctx.resume_reading();
                if let Some((name, message)) = self.refused.take() {
                    self.deliver(name, message, ctx);
                }
                Ok(())
            }
            Info::Message(()) if self.ending.is_none() => {
                _ = ctx.send_after(SILENCE / 3, ());
                self.send(&[b"PING"], Sent::Ping, ctx)
            }
            Info::Shutdown => {
                self.ending.get_or_insert(CloseReason::Shutdown);
                lock(&self.topics).redis.state = State::Ending;
                self.fill(ctx)
            }
            other => return other.default_action(),
        };
        self.go_on(done)
    }

    fn terminate(self, reason: CloseReason) {
        let topics = &mut *lock(&self.topics);
        let unsent = take(&mut topics.redis.queue);
        if let Some((name, message)) = self.refused {
            let delivered = topics.deliver(&name, message);
            topics.redis.figures.dropped += u64::from(delivered.is_err());
        }
        for (name, message) in unsent {
            let delivered = topics.deliver(&name, message);
            let figures = &mut topics.redis.figures;
            *if delivered.is_ok() { &mut figures.local } else { &mut figures.dropped } += 1;
        }
        let redis = &mut topics.redis;
        for (_, sent) in self.calls {
            redis.figures.in_doubt += u64::from(matches!(sent, Sent::Publish(_)));
        }
        redis.figures.in_doubt += u64::from(self.awaited);
        redis.figures.sent -= u64::from(self.awaited);
        redis.state = State::Away;
        redis.changed.clear();
        redis.wake_publishers();
        if reason == CloseReason::Shutdown {
            log::info!("redis: done; {}", redis.figures);
            return;
        }
        log::warn!(
            "redis: away: {reason}; until it is back each hub serves its own clients: start it, or \
             check --redis; {}",
            redis.figures
        );
    }
}

pub(crate) fn options(redis: &str) -> ConnectorOptions {
    ConnectorOptions::to(redis)
        .framing(Framing::split(Framing::custom(Replies), Raw))
        .max_packet(REPLY_MAX)
        .max_connections(2) // the link, and one that ends
        .max_queued(2 * CALLS_MAX * LINE_MAX) // all of them fit
        .backoff(Backoff::new(BACK_OFF_MAX / 20, BACK_OFF_MAX))
        .connect_timeout(BACK_OFF_MAX)
        .silence_timeout(SILENCE)
}

/// Starts the link on a thread of its own. The closure that it returns ends it: what clients have
/// published until then still goes to Redis.
pub(crate) fn start(redis: &str, topics: &Shared) -> Result<impl FnOnce() + use<>, Error> {
    let (shards, topics) = (Shards::new(1)?, topics.clone());
    shards.start_connector("redis", options(redis), move |_peer| Link::new(&topics))?;
    log::info!("redis: until {redis} answers, this hub serves its own clients only");
    let handle = shards.handle();
    let thread = thread::spawn(move || {
        if let Err(error) = shards.run() {
            log::error!("redis: {error}; each hub serves its own clients: start this hub again");
        }
    });
    Ok(move || {
        _ = handle.shutdown();
        _ = thread.join();
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{self, Client, Slow};
    use condor::Accepted;
    use condor::testing::{ConnectorHarness, FarEnd, Harness};

    const HELLO: &str = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n";

    /// The clients of one hub, and its link.
    struct Hub {
        topics: Shared,
        one: Harness<Client>,
        two: Harness<Client>,
        link: ConnectorHarness<Link>,
    }

    impl Hub {
        fn new(slow: Slow, mailbox: usize) -> Self {
            let topics = Shared::default();
            lock(&topics).slow = slow;
            let options = client::options("127.0.0.1:0".parse().unwrap(), slow);
            let all = topics.clone();
            let factory = move |peer: &Accepted<'_>| Client::new(&all, peer);
            let one = Harness::new(options.mailbox_capacity(mailbox), factory);
            let (two, all) = (one.connect(), topics.clone());
            let link = ConnectorHarness::new(options_to(), move |_peer| Link::new(&all));
            Self { topics, one, two, link }
        }

        /// Runs clients and link until both have nothing to do.
        fn run(&self) {
            for _ in 0..3 {
                self.link.run();
                self.one.run();
            }
        }

        fn says(&self, client: &Harness<Client>, lines: &[&str]) {
            client.receive(lines.iter().map(|line| format!("{line}\n")).collect::<String>());
            self.run();
        }

        fn redis(&self) -> Redis<'_> {
            let far = self.link.accept().unwrap();
            assert_eq!(texts(&far.sent()), [&b"HELLO"[..], b"3"]);
            Redis(self, far)
        }

        /// A link that is up.
        fn up(&self) -> Redis<'_> {
            let redis = self.redis();
            redis.says(HELLO);
            redis
        }

        fn figures(&self) -> Figures {
            lock(&self.topics).redis.figures.clone()
        }
    }

    fn options_to() -> ConnectorOptions {
        options("192.0.2.1:6379")
    }

    fn lines(client: &Harness<Client>) -> Vec<String> {
        client.packets().into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    /// The end of Redis.
    struct Redis<'a>(&'a Hub, FarEnd<Link>);

    impl Redis<'_> {
        fn says(&self, bytes: impl AsRef<[u8]>) {
            self.1.send(bytes);
            self.0.run();
        }

        /// The requests since the last time, each as a line.
        fn got(&self) -> Vec<String> {
            let bytes = self.1.sent();
            let whole = bytes.split_inclusive(|byte| *byte == b'*').skip(1);
            let line = |request: &[u8]| String::from_utf8(texts(request)[..].join(&b' ')).unwrap();
            whole.map(|request| line(&[b"*", request].concat())).collect()
        }

        fn confirms(&self, verb: &str, topic: &str) {
            let len = (verb.len(), topic.len());
            self.says(format!(">3\r\n${}\r\n{verb}\r\n${}\r\n{topic}\r\n:1\r\n", len.0, len.1));
        }

        fn ends(self) {
            self.1.resets();
            self.0.run();
        }
    }

    fn pushed(topic: &str, text: &str) -> String {
        let len = (topic.len(), text.len());
        format!(">3\r\n$7\r\nmessage\r\n${}\r\n{topic}\r\n${}\r\n{text}\r\n", len.0, len.1)
    }

    #[test]
    fn a_publication_goes_to_redis_only_and_comes_back() {
        let hub = Hub::new(Slow::Disconnect, 64);
        let redis = hub.up();
        hub.says(&hub.one, &["SUB news"]);
        assert_eq!(redis.got(), ["SUBSCRIBE news"]);
        redis.confirms("subscribe", "news");
        hub.says(&hub.two, &["PUB news it rains", "PUB other text"]);
        assert_eq!(redis.got(), ["PUBLISH news it rains", "PUBLISH other text"]);
        assert!(lines(&hub.one).is_empty(), "not before Redis sends it");
        redis.says(pushed("news", "it rains") + ":1\r\n:0\r\n");
        assert_eq!(lines(&hub.one), ["MSG news it rains"]);
        hub.says(&hub.two, &["PUB news again"]);
        redis.says(":1\r\n".to_owned() + &pushed("news", "again"));
        assert_eq!(lines(&hub.one), ["MSG news again"]);
        redis.says(pushed("news", "from elsewhere"));
        assert_eq!(lines(&hub.one), ["MSG news from elsewhere"]);
        let figures = Figures { sent: 3, received: 3, ..Figures::default() };
        assert_eq!(hub.figures(), figures);
    }

    #[test]
    fn a_publication_follows_the_subscription_that_brings_it_back() {
        let hub = Hub::new(Slow::Disconnect, 64);
        let redis = hub.up();
        hub.says(&hub.one, &["PUB b 1", "SUB b", "PUB b 2", "SUB a", "PUB a 3"]);
        let got = redis.got();
        assert_eq!(got[..2], ["SUBSCRIBE a", "SUBSCRIBE b"]);
        assert_eq!(got[2..], ["PUBLISH b 1", "PUBLISH b 2", "PUBLISH a 3"]);
    }

    #[test]
    fn a_topic_is_subscribed_while_it_has_subscribers() {
        let hub = Hub::new(Slow::Disconnect, 64);
        hub.says(&hub.one, &["SUB early"]);
        let redis = hub.up();
        assert_eq!(redis.got(), ["SUBSCRIBE early"]);
        hub.says(&hub.one, &["SUB news"]);
        hub.says(&hub.two, &["SUB news", "SUB early"]);
        assert_eq!(redis.got(), ["SUBSCRIBE news"]);
        hub.says(&hub.one, &["UNSUB news"]);
        assert!(redis.got().is_empty(), "one is left");
        hub.two.peer_resets();
        hub.run();
        assert_eq!(redis.got(), ["UNSUBSCRIBE news"]);
        hub.says(&hub.one, &["SUB x", "UNSUB x", "UNSUB early", "SUB early"]);
        assert!(redis.got().is_empty(), "nothing has changed");
        hub.says(&hub.one, &["UNSUB early"]);
        hub.says(&hub.one, &["SUB early"]);
        assert_eq!(redis.got(), ["UNSUBSCRIBE early", "SUBSCRIBE early"]);
    }

    /// Redis executes `UNSUBSCRIBE`, `PUBLISH` and `SUBSCRIBE` in this order, so it does not send the
    /// message back, but the new subscriber is there.
    #[test]
    fn a_publication_between_two_subscriptions_is_delivered_with_its_answer() {
        let hub = Hub::new(Slow::Disconnect, 64);
        hub.says(&hub.one, &["SUB news"]);
        let redis = hub.up();
        redis.confirms("subscribe", "news");
        hub.says(&hub.one, &["UNSUB news"]);
        hub.says(&hub.two, &["PUB news between"]);
        hub.says(&hub.one, &["SUB news"]);
        let got = redis.got();
        assert_eq!(got[1..], ["UNSUBSCRIBE news", "PUBLISH news between", "SUBSCRIBE news"]);
        redis.confirms("unsubscribe", "news");
        assert!(lines(&hub.one).is_empty());
        redis.says(":0\r\n");
        assert_eq!(lines(&hub.one), ["MSG news between"]);
    }

    #[test]
    fn each_publication_takes_one_way_when_the_link_ends() {
        let hub = Hub::new(Slow::Disconnect, 64);
        hub.says(&hub.one, &["PUB news unheard", "SUB news"]);
        hub.says(&hub.two, &["PUB news before"]);
        assert_eq!(lines(&hub.one), ["MSG news before"]);
        let redis = hub.up();
        redis.confirms("subscribe", "news");
        hub.says(&hub.two, &["PUB news answered", "PUB news came back", "PUB news in doubt"]);
        redis.says(pushed("news", "answered") + ":1\r\n" + &pushed("news", "came back"));
        assert_eq!(lines(&hub.one), ["MSG news answered", "MSG news came back"]);
        // The link does not see this one before it ends.
        hub.two.packet("PUB news not sent");
        redis.ends();
        hub.says(&hub.two, &["PUB news after"]);
        assert_eq!(lines(&hub.one), ["MSG news not sent", "MSG news after"]);
        let figures = Figures { sent: 1, received: 2, local: 4, in_doubt: 2, dropped: 0 };
        assert_eq!(hub.figures(), figures);
        hub.link.advance(BACK_OFF_MAX);
        let redis = hub.up();
        assert_eq!(redis.got(), ["SUBSCRIBE news"]);
        redis.confirms("subscribe", "news");
        // Redis finds it in the connection that has ended.
        redis.says(pushed("news", "in doubt"));
        assert_eq!(lines(&hub.one), ["MSG news in doubt"], "late, and once");
        hub.says(&hub.two, &["PUB news whole again"]);
        assert_eq!(redis.got(), ["PUBLISH news whole again"]);
        redis.says(pushed("news", "whole again") + ":1\r\n");
        assert_eq!(lines(&hub.one), ["MSG news whole again"]);
    }

    /// Redis 7.0 answers after the message, and 7.2 before it.
    #[test]
    fn a_message_that_is_missing_after_its_answer_is_in_doubt() {
        let (answer, message) = (":1\r\n".to_owned(), pushed("news", "x"));
        let cases = [
            (answer.clone(), 1),
            (answer.clone() + &message, 0),
            (message.clone() + &answer, 0),
            (pushed("news", "of another") + &answer, 1),
            (pushed("news", "of another") + &answer + &message, 0),
        ];
        for (bytes, in_doubt) in cases {
            let hub = Hub::new(Slow::Disconnect, 64);
            hub.says(&hub.one, &["SUB news"]);
            let redis = hub.up();
            redis.confirms("subscribe", "news");
            hub.says(&hub.two, &["PUB news x"]);
            redis.says(&bytes);
            redis.ends();
            assert_eq!(hub.figures().in_doubt, in_doubt, "{bytes:?}");
            let got = lines(&hub.one).iter().filter(|line| *line == "MSG news x").count();
            assert_eq!(got as u64, 1 - in_doubt, "{bytes:?}");
        }
    }

    #[test]
    fn what_redis_refuses_is_delivered_here_and_in_order() {
        let hub = Hub::new(Slow::Disconnect, 64);
        hub.says(&hub.one, &["SUB news"]);
        let redis = hub.up();
        redis.confirms("subscribe", "news");
        hub.says(&hub.two, &["PUB news 1", "PUB news 2", "PUB news 3"]);
        redis.says("-OOM command not allowed\r\n");
        assert_eq!(lines(&hub.one), ["MSG news 1"]);
        hub.says(&hub.two, &["PUB news 4", "PUB news 5"]);
        assert!(lines(&hub.one).is_empty(), "those under way come first");
        assert_eq!(redis.got().last().unwrap(), "PUBLISH news 3");
        redis.says(pushed("news", "2") + ":1\r\n");
        assert!(!redis.1.is_finished());
        redis.says("-OOM command not allowed\r\n");
        assert!(redis.1.is_finished());
        redis.ends();
        hub.says(&hub.two, &["PUB news 6"]);
        assert_eq!(
            lines(&hub.one),
            ["MSG news 2", "MSG news 3", "MSG news 4", "MSG news 5", "MSG news 6"]
        );
        let figures = hub.figures();
        assert_eq!((figures.sent, figures.local, figures.in_doubt), (1, 5, 0));
    }

    #[test]
    fn a_redis_that_refuses_the_link_is_away() {
        let errors = ["-NOAUTH HELLO\r\n", "-ERR unknown command 'HELLO'\r\n", "-LOADING\r\n"];
        let hub = Hub::new(Slow::Skip, 64);
        hub.says(&hub.one, &["SUB news"]);
        for error in errors {
            let redis = hub.redis();
            redis.says(error);
            assert!(redis.1.is_finished(), "{error}");
            redis.ends();
            hub.says(&hub.two, &["PUB news here"]);
            assert_eq!(lines(&hub.one), ["MSG news here"]);
            hub.link.advance(BACK_OFF_MAX);
        }
        let redis = hub.up();
        redis.says("-NOPERM no such channel\r\n");
        redis.ends();
        hub.says(&hub.two, &["PUB news here"]);
        assert_eq!(lines(&hub.one), ["MSG news here"]);
    }

    #[test]
    fn an_answer_out_of_step_ends_the_link() {
        for answers in [":1\r\n", "+PONG\r\n:1\r\n"] {
            let hub = Hub::new(Slow::Skip, 64);
            hub.says(&hub.one, &["SUB news"]);
            let redis = hub.up();
            redis.says(answers);
            assert!(redis.1.is_finished(), "{answers}");
        }
        let hub = Hub::new(Slow::Skip, 64);
        let redis = hub.up();
        redis.says(">2\r\n+invalidate\r\n_\r\n");
        assert!(!redis.1.is_finished(), "what is pushed is no answer");
        redis.confirms("subscribe", "never asked");
        assert!(redis.1.is_finished());
    }

    /// It takes no more than its bounds, and publishers wait. All arrives in order.
    #[test]
    fn a_slow_redis_holds_publishers_back() {
        let hub = Hub::new(Slow::Disconnect, 64);
        let redis = hub.up();
        let most = QUEUE_MAX + CALLS_MAX;
        let packets_in = || usize::try_from(hub.one.stats().packets_in).unwrap();
        let all: Vec<String> = (0..2 * most).map(|nth| format!("PUB a {nth}")).collect();
        for part in all.chunks(100) {
            hub.says(&hub.two, &part.iter().map(String::as_str).collect::<Vec<_>>());
        }
        assert_eq!(packets_in(), most + 1, "the last one waits at its publisher");
        assert_eq!(redis.got().len(), CALLS_MAX);
        let mut got = CALLS_MAX;
        while got < 2 * most {
            redis.says(":0\r\n".repeat(100));
            let expected = (got..got + 100).map(|nth| format!("PUBLISH a {nth}"));
            let sent = redis.got();
            assert_eq!(sent, expected.take(sent.len()).collect::<Vec<_>>());
            assert!(sent.len() == 100 || got + sent.len() == 2 * most);
            got += sent.len();
        }
        assert_eq!(packets_in(), 2 * most);
    }

    #[test]
    fn publishers_that_wait_go_on_without_redis() {
        let hub = Hub::new(Slow::Disconnect, 64);
        let redis = hub.up();
        hub.says(&hub.one, &["SUB b"]);
        let most = QUEUE_MAX + CALLS_MAX;
        (0..most).for_each(|_| hub.says(&hub.two, &["PUB a x"]));
        hub.says(&hub.two, &["PUB b waits", "PUB b last"]);
        assert!(lines(&hub.one).is_empty());
        redis.ends();
        assert_eq!(lines(&hub.one), ["MSG b waits", "MSG b last"]);
    }

    #[test]
    fn a_full_mailbox_holds_redis_back_and_nothing_is_lost() {
        let hub = Hub::new(Slow::Disconnect, 4);
        hub.says(&hub.one, &["SUB a"]);
        let redis = hub.up();
        redis.confirms("subscribe", "a");
        let all: String = (0..1_000).map(|nth| pushed("a", &nth.to_string())).collect();
        redis.1.send(all);
        let received = hub.figures().received;
        assert!(received < 10, "{received} are read before the clients get one");
        (0..1_000).for_each(|_| hub.run());
        let expected: Vec<_> = (0..1_000).map(|nth| format!("MSG a {nth}")).collect();
        assert_eq!(lines(&hub.one), expected);
    }

    #[test]
    fn a_redis_that_says_nothing_is_away() {
        let hub = Hub::new(Slow::Disconnect, 64);
        hub.says(&hub.one, &["SUB a"]);
        let redis = hub.up();
        redis.confirms("subscribe", "a");
        for _ in 0..20 {
            hub.link.advance(SILENCE / 2);
            let pings = redis.got().iter().filter(|request| *request == "PING").count();
            redis.says("+PONG\r\n".repeat(pings));
            assert!(pings > 0 && !redis.1.is_gone());
        }
        hub.link.advance(SILENCE + SILENCE / 2);
        assert!(redis.1.is_gone());
        hub.says(&hub.two, &["PUB a here"]);
        assert_eq!(lines(&hub.one), ["MSG a here"]);
    }

    #[test]
    fn the_link_is_dialled_again_after_a_second_at_most() {
        let hub = Hub::new(Slow::Disconnect, 64);
        hub.up().ends();
        hub.link.refuse("192.0.2.1:6379");
        hub.link.advance(Duration::from_secs(60));
        let attempts = hub.link.attempts();
        assert!((60..500).contains(&attempts.len()), "{} attempts", attempts.len());
        assert!(attempts.windows(2).all(|two| two[1].0 - two[0].0 <= BACK_OFF_MAX));
    }

    #[test]
    fn what_is_no_line_is_dropped() {
        let hub = Hub::new(Slow::Latest, 64);
        hub.says(&hub.one, &["SUB a"]);
        let redis = hub.up();
        redis.says(pushed("a", "two\nlines") + &pushed("a", &"x".repeat(LINE_MAX)));
        redis.says(pushed("a", "\u{0}a line"));
        assert_eq!(lines(&hub.one), ["MSG a \u{0}a line"]);
        assert_eq!((hub.figures().received, hub.figures().dropped), (1, 2));
    }

    #[test]
    fn any_byte_but_a_space_may_be_in_a_topic() {
        let hub = Hub::new(Slow::Disconnect, 64);
        let redis = hub.up();
        let topic: Vec<u8> = (0..=255).filter(|byte| !b" \n".contains(byte)).collect();
        hub.one.packet([b"SUB ", &topic[..]].concat());
        hub.one.packet([b"PUB ", &topic[..], b" text"].concat());
        hub.run();
        let sent = redis.1.sent();
        let publish = request(&[b"PUBLISH", &topic, b"text"]);
        assert_eq!(sent, [request(&[b"SUBSCRIBE", &topic]), publish].concat());
        let push = [b">3\r\n$7\r\nmessage\r\n$254\r\n", &topic[..], b"\r\n$4\r\ntext\r\n"];
        redis.says(push.concat());
        assert_eq!(hub.one.packets(), [[b"MSG ", &topic[..], b" text"].concat()]);
    }

    #[test]
    fn with_latest_a_slow_subscriber_gets_the_newest_message_of_all_hubs() {
        let hub = Hub::new(Slow::Latest, 64);
        hub.says(&hub.one, &["SUB a"]);
        let redis = hub.up();
        hub.one.peer_stalls();
        let text = "x".repeat(1_000);
        (0..200).for_each(|nth| redis.says(pushed("a", &format!("{nth} {text}"))));
        hub.one.peer_reads_all();
        hub.run();
        let got = lines(&hub.one);
        assert_eq!(got.len(), 2, "the first and the newest");
        assert!(got[0].starts_with("MSG a 0 ") && got[1].starts_with("MSG a 199 "));
    }

    #[test]
    fn a_link_that_is_shut_down_sends_what_was_published_before() {
        let hub = Hub::new(Slow::Disconnect, 64);
        let redis = hub.up();
        let most = QUEUE_MAX + CALLS_MAX;
        (0..most).for_each(|_| hub.says(&hub.two, &["PUB a x"]));
        hub.link.drain();
        assert!(hub.link.report().is_none());
        for _ in 0..most / CALLS_MAX {
            redis.says(":0\r\n".repeat(CALLS_MAX));
        }
        assert_eq!(redis.got().len(), most);
        redis.1.closes();
        assert!(hub.link.report().is_some());
        assert_eq!((hub.figures().sent, hub.figures().in_doubt), (most as u64, 0));
    }
}
