//! The link to Redis, by which hubs share their topics.
//!
//! # Two ways, and each publication takes one
//!
//! While the link is up, a publication goes to Redis, and comes back to the subscribers of this hub as
//! to those of all others. While it is not, this hub delivers to its own subscribers. The lock of the
//! topics decides, once for each publication, so no subscriber gets one twice.
//!
//! There is one link for all shards, and it speaks RESP3, so that one connection may publish and
//! subscribe: this needs Redis 6. Redis executes what comes over one connection in order. So a
//! publication behind a `SUBSCRIBE` comes back, and nothing has to wait for its confirmation.
//!
//! # When the link ends
//!
//! - What Redis has answered is published.
//! - What waits in this hub is delivered here. Redis has not seen it.
//! - What was sent and has no answer is *in doubt*: Redis may publish it or not. It is not delivered
//!   here, since it might still come back. It is counted.
//! - What Redis refuses with an error is delivered here. Redis has not published it. Then the link takes
//!   no more publications, waits for the answers to those that are under way, and ends.
//!
//! So each publisher's messages arrive in order. There is one exception: Redis stood still for longer
//! than [`SILENCE`], this hub has given the link up, and Redis goes on and finds what was sent. Then
//! messages in doubt may arrive late.
//!
//! # When Redis is slow
//!
//! At most [`QUEUE_MAX`] publications wait here, and [`CALLS_MAX`] requests have no answer. Then
//! publishers wait, and their connections are not read.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::mem::take;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use condor::{
    Action, Address, Backoff, Calls, CloseReason, ConnectorOptions, Context, Error, Framing,
    Handler, InOrder, Info, MessageError, Raw, Shards,
};

use crate::client::{LINE_MAX, Shared, Topics, lock, message};
use crate::reply::{REPLY_MAX, Replies, request, texts};

/// Publications that wait for the link. More wait at their publishers.
const QUEUE_MAX: usize = 1_024;
/// Requests to Redis without an answer.
const CALLS_MAX: usize = 1_024;
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
    waiting: Vec<Address<()>>,
    figures: Figures,
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

/// What became of publications.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Figures {
    /// Redis has published them.
    sent: u64,
    /// They came from Redis, for subscribers of this hub.
    received: u64,
    /// Published here while Redis was away.
    local: u64,
    /// Their link has ended before they were answered.
    in_doubt: u64,
    /// No client can get them, or a mailbox was full when the link ended.
    dropped: u64,
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
            State::Away => {
                self.figures.local += 1;
                Err(MessageError::Gone(message))
            }
            State::Up(_) | State::Ending => {
                self.waiting.push(publisher());
                Err(MessageError::Full(message))
            }
        }
    }

    fn wake_publishers(&mut self) {
        self.waiting.drain(..).for_each(|publisher| _ = publisher.wake());
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
    /// What had no room in a mailbox. Redis is not read meanwhile.
    refused: Option<Publication>,
    /// The link ends for this reason, once nothing is under way.
    ending: Option<CloseReason>,
}

type Done<T = ()> = Result<T, CloseReason>;

impl Link {
    pub(crate) fn new(topics: &Shared) -> Self {
        let calls = Calls::in_order(CALLS_MAX);
        let topics = topics.clone();
        Self { topics, calls, subscribed: HashSet::new(), refused: None, ending: None }
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
            (Some(b'-'), texts) => self.refused(&texts.concat(), ctx),
            _ => match self.calls.answered(ctx).ok_or(OUT_OF_STEP)? {
                Sent::Hello => self.up(ctx),
                Sent::Ping => {}
                Sent::Change => return Err(OUT_OF_STEP),
                Sent::Publish((name, message)) => {
                    lock(&self.topics).redis.figures.sent += 1;
                    // Redis did not send it back, if there was no subscription at that time.
                    if !self.subscribed.contains(&name) {
                        self.deliver(name, message, ctx);
                    }
                }
            },
        }
        self.fill(ctx)
    }

    fn up(&self, ctx: &mut Context<'_, ()>) {
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
            self.deliver(topic.to_vec(), message, ctx);
        } else {
            lock(&self.topics).redis.figures.dropped += 1;
        }
    }

    /// Redis has answered with an error.
    fn refused(&mut self, text: &[u8], ctx: &mut Context<'_, ()>) {
        if self.ending.replace(REFUSED) != Some(REFUSED) {
            log::warn!(
                "redis: it refuses: {}; check its version, which has to be 6 or later, and what its \
                 default user may do",
                text.escape_ascii()
            );
            lock(&self.topics).redis.state = State::Ending;
        }
        if let Some(Sent::Publish((name, message))) = self.calls.answered(ctx) {
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
                Action::stop(reason.clone())
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
        let (mut in_doubt, mut dropped) = (0, 0);
        for (_, sent) in self.calls {
            in_doubt += u64::from(matches!(sent, Sent::Publish(_)));
        }
        for (name, message) in self.refused.into_iter().chain(unsent) {
            dropped += u64::from(topics.deliver(&name, message).is_err());
        }
        let redis = &mut topics.redis;
        redis.figures.in_doubt += in_doubt;
        redis.figures.dropped += dropped;
        redis.state = State::Away;
        redis.changed.clear();
        redis.wake_publishers();
        if reason == CloseReason::Shutdown {
            log::info!("redis: done; {}", redis.figures);
            return;
        }
        log::warn!(
            "redis: away: {reason}; each hub serves its own clients until it is back, so start it, or \
             check --redis; {}",
            redis.figures
        );
    }
}

pub(crate) fn options(redis: &str) -> ConnectorOptions {
    ConnectorOptions::to(redis)
        .framing(Framing::split(Framing::custom(Replies), Raw))
        .max_packet(REPLY_MAX)
        .max_queued(2 * CALLS_MAX * LINE_MAX)
        .backoff(Backoff::new(BACK_OFF_MAX / 20, BACK_OFF_MAX))
        .connect_timeout(BACK_OFF_MAX)
        .silence_timeout(SILENCE)
}

/// Starts the link on a thread of its own. The closure that it returns ends it: what clients have
/// published until then still goes to Redis.
pub(crate) fn start(redis: &str, topics: &Shared) -> Result<impl FnOnce() + use<>, Error> {
    let (shards, topics) = (Shards::new(1)?, topics.clone());
    shards.start_connector("redis", options(redis), move |_peer| Link::new(&topics))?;
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
