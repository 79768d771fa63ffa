//! The protocols of notifier, mailbox and admission, in all interleavings that loom explores.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --lib loom
//! ```
//!
//! A lost wake-up shows as a deadlock: the reactor sleeps, and no thread remains to wake it. Loom
//! treats `SeqCst` accesses as `AcqRel`. So the protocols that pass here hold with weaker orderings
//! than the code uses.

use loom::sync::Notify;
use loom::thread;

use super::*;
use crate::admission::Admission;
use crate::endpoint::Endpoint;
use crate::identity::PeerName;
use crate::status::Status;

fn peer() -> PeerName {
    Endpoint::from(([127, 0, 0, 1], 1)).into()
}

/// The part of a reactor that the notifier deals with.
#[derive(Clone)]
struct Sleeper {
    notifier: Arc<Notifier>,
    poll: loom::sync::Arc<Notify>,
}

impl Sleeper {
    fn new() -> Self {
        let poll = loom::sync::Arc::new(Notify::new());
        let wake = loom::sync::Arc::clone(&poll);
        Self { notifier: Arc::new(Notifier::new(move || wake.notify())), poll }
    }

    fn sleep(&self) {
        if self.notifier.prepare_to_sleep() {
            self.poll.wait();
        }
        self.notifier.woke_up();
    }

    fn mailbox(&self) -> Arc<Mailbox<u32>> {
        Arc::new(Mailbox::new(1, 8, Arc::clone(&self.notifier), || ()))
    }

    /// Runs turns until `count` messages have arrived.
    fn receive(&self, mailbox: &Mailbox<u32>, count: usize) -> Vec<u32> {
        let (mut inbox, mut messages) = (VecDeque::new(), Vec::new());
        while messages.len() < count {
            if self.notifier.take() {
                mailbox.take(&mut inbox);
                for envelope in inbox.drain(..) {
                    let Envelope::To { message, .. } = envelope else { panic!("a message") };
                    messages.push(message);
                    mailbox.delivered();
                }
            } else {
                self.sleep();
            }
        }
        messages
    }
}

/// Goal: a message of the reactor's own thread, between two turns, is seen without a wake-up, and it
/// does not swallow the wake-up of another sender. Method: it is posted after the reactor has prepared
/// to sleep; the reactor looks once more before it sleeps.
#[test]
fn a_message_of_the_reactors_own_thread_arrives() {
    model(|| {
        let reactor = Sleeper::new();
        reactor.notifier.bind_thread();
        let mailbox = reactor.mailbox();
        let theirs = Arc::clone(&mailbox);
        let sender = thread::spawn(move || assert!(theirs.post(envelope(1)).is_ok()));
        reactor.notifier.prepare_to_sleep();
        assert!(mailbox.post(envelope(2)).is_ok());
        assert!(reactor.notifier.is_notified(), "it does not sleep now");
        reactor.notifier.woke_up();
        let mut messages = reactor.receive(&mailbox, 2);
        messages.sort_unstable();
        assert_eq!(messages, [1, 2]);
        sender.join().unwrap();
    });
}

/// Goal: a connection that asks for room while the reactor makes the last delivery is told. Method:
/// the mailbox is full; another thread asks, while the reactor empties the mailbox.
#[test]
fn a_connection_that_waits_for_room_is_told() {
    model(|| {
        let reactor = Sleeper::new();
        let mailbox = Arc::new(Mailbox::new(1, 1, Arc::clone(&reactor.notifier), || ()));
        let own = reactor.mailbox();
        assert!(mailbox.post(envelope(1)).is_ok());
        let theirs = Arc::clone(&own);
        let awaited = Recipients::of(std::slice::from_ref(&mailbox));
        let asking = thread::spawn(move || theirs.wait_for(0, 0, awaited));
        let (mut inbox, mut told) = (VecDeque::new(), VecDeque::new());
        while told.is_empty() {
            if reactor.notifier.take() {
                mailbox.take(&mut inbox);
                inbox.drain(..).for_each(|_| mailbox.delivered());
                mailbox.tell_waiting();
                own.take(&mut told);
            } else {
                reactor.sleep();
            }
        }
        asking.join().unwrap();
        assert_eq!(told.len(), 1);
    });
}

/// The status of a listener with two parts, the first of which accepts.
fn status(max_connections: usize) -> Arc<Status> {
    Arc::new(Status::new("test".into(), 0, 2, max_connections))
}

fn envelope(message: u32) -> Envelope<u32> {
    Envelope::To { key: 0, generation: 0, message }
}

/// Explores up to three unforced switches between threads. More take hours, and find nothing.
fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(body);
}

/// Goal: a message sent between `take` and sleep wakes the reactor, and messages arrive in order.
#[test]
fn a_message_of_one_sender_arrives() {
    model(|| {
        let reactor = Sleeper::new();
        let mailbox = reactor.mailbox();
        let theirs = Arc::clone(&mailbox);
        let sender = thread::spawn(move || {
            assert!(theirs.post(envelope(1)).is_ok());
            assert!(theirs.post(envelope(2)).is_ok());
        });
        assert_eq!(reactor.receive(&mailbox, 2), [1, 2]);
        sender.join().unwrap();
    });
}

/// Goal: with two senders, where one finds `notified` already set, no wake-up is lost and every
/// message arrives once.
#[test]
fn messages_of_two_senders_arrive() {
    model(|| {
        let reactor = Sleeper::new();
        let mailbox = reactor.mailbox();
        let senders = [1, 2].map(|message| {
            let theirs = Arc::clone(&mailbox);
            thread::spawn(move || assert!(theirs.post(envelope(message)).is_ok()))
        });
        let mut messages = reactor.receive(&mailbox, 2);
        messages.sort_unstable();
        assert_eq!(messages, [1, 2]);
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(mailbox.close().is_empty());
    });
}

/// Goal: a mailbox that closes loses no message. Each message was taken, or `close` returns it, or
/// its sender gets it back. Afterwards the mailbox takes no message.
#[test]
fn a_closing_mailbox_loses_nothing() {
    loom::model(|| {
        let reactor = Sleeper::new();
        let mailbox = reactor.mailbox();
        let theirs = Arc::clone(&mailbox);
        let sender = thread::spawn(move || {
            let posted = [1, 2].map(|message| theirs.post(envelope(message)));
            posted.iter().filter(|posted| matches!(posted, Err(MessageError::Gone(_)))).count()
        });
        let mut taken = VecDeque::new();
        mailbox.take(&mut taken);
        let left = mailbox.close();
        let refused = sender.join().unwrap();
        assert_eq!(taken.len() + left.len() + refused, 2);
        assert!(matches!(
            mailbox.post(envelope(3)),
            Err(MessageError::Gone(Envelope::To { message: 3, .. }))
        ));
        mailbox.take(&mut VecDeque::new());
        assert!(mailbox.close().is_empty());
    });
}

/// Goal: an acceptor at the connection limit is woken when a connection of another shard ends.
#[test]
fn a_connection_that_ends_makes_room() {
    loom::model(|| {
        let (acceptor, other) = (Sleeper::new(), Sleeper::new());
        let notifiers = [&acceptor, &other].map(|reactor| Arc::clone(&reactor.notifier));
        let admission = Arc::new(Admission::<()>::new(notifiers, status(2)));
        assert!(admission.reserve() && admission.reserve() && !admission.reserve());
        assert_eq!([admission.enter(), admission.enter()], [0, 1]);
        let theirs = Arc::clone(&admission);
        let leaver = thread::spawn(move || theirs.leave(1));
        // It checks once, then sleeps.
        while !admission.has_room() {
            acceptor.sleep();
            acceptor.notifier.take();
        }
        leaver.join().unwrap();
    });
}

/// Goal: a shard receives the connections that are handed over to it, each once.
#[test]
fn a_connection_that_is_handed_over_arrives() {
    model(|| {
        let (acceptor, other) = (Sleeper::new(), Sleeper::new());
        let notifiers = [&acceptor, &other].map(|reactor| Arc::clone(&reactor.notifier));
        let admission = Arc::new(Admission::new(notifiers, status(9)));
        let theirs = Arc::clone(&admission);
        let accepting = thread::spawn(move || {
            for stream in [1, 2] {
                theirs.hand_over(1, stream, peer());
            }
        });
        let mut arrived = Vec::new();
        while arrived.len() < 2 {
            other.notifier.take();
            while let Some(arrival) = admission.next_arrival(1) {
                arrived.push(arrival.stream);
            }
            if arrived.len() < 2 && !admission.has_arrivals(1) {
                other.sleep();
            }
        }
        assert_eq!(arrived, [1, 2]);
        accepting.join().unwrap();
    });
}

/// Goal: a connection that another thread hands over while the listener closes is taken, or it comes
/// back. Method: the part takes what has arrived once the listener is closed, and then nothing more
/// arrives.
#[test]
fn a_connection_that_is_adopted_arrives_or_comes_back() {
    model(|| {
        let (acceptor, other) = (Sleeper::new(), Sleeper::new());
        let notifiers = [&acceptor, &other].map(|reactor| Arc::clone(&reactor.notifier));
        let admission = Arc::new(Admission::new(notifiers, status(1)));
        let theirs = Arc::clone(&admission);
        let adopting = thread::spawn(move || {
            assert!(theirs.reserve());
            theirs.adopt(7, peer()).is_ok()
        });
        admission.close();
        assert!(admission.is_closed());
        let arrived = admission.next_arrival(0).is_some();
        assert_eq!(adopting.join().unwrap(), arrived);
        assert!(!admission.has_arrivals(0));
        assert_eq!(admission.has_room(), !arrived);
    });
}
