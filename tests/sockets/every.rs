//! Timers of a reactor's own, in real time and on several shards. How exact they are is a matter of
//! `scripted::every`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use condor::{Accepted, Action, Error, ListenerOptions, Reactor, Shards};

use crate::support::{Client, Script, drive, next, over, until};

const OFTEN: Duration = Duration::from_millis(1);

/// Goal: a closure that is not `Send` may share state with the handlers of its reactor. It is called
/// in a loop of the user's own, and `run` returns although it goes on. Method: a counter in an `Rc`.
#[test]
fn a_timer_may_share_state_with_handlers() {
    let mut reactor = Reactor::new().unwrap();
    let (calls, requests) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let counted = Rc::clone(&requests);
    let make = move |_: &Accepted<'_>| {
        let requests = Rc::clone(&counted);
        Script::<()>::new().packet(move |_, _| {
            requests.set(requests.get() + 1);
            Action::Continue
        })
    };
    let listener = reactor.start_listener("test", ListenerOptions::port(0), make).unwrap();
    let (count, taken) = (Rc::clone(&calls), Rc::clone(&requests));
    let every = reactor.every(OFTEN, move || count.set(count.get() + taken.replace(0)));
    let every = every.unwrap();
    let mut client = Client::connect(listener.local_addr());
    client.send(b"one");
    client.send(b"two");
    drive(&mut reactor, "the timer sees both", || calls.get() == 2);
    drop(client);
    let drain = reactor.handle().shutdown().unwrap();
    reactor.run().unwrap();
    assert!(drain.report().is_some());
    assert_eq!((Rc::strong_count(&calls), Rc::strong_count(&requests)), (1, 1), "all is freed");
    assert!(matches!(reactor.every(OFTEN, || ()), Err(Error::Gone)));
    drop(every);
    drop(listener);
}

/// Goal: with shards, a timer is called on the thread of the first shard, wherever it was started:
/// before `run`, by another thread, in a callback of the other shard. It ends with the shards. Method:
/// each call sends the name of its thread.
#[test]
fn a_timer_of_shards_is_called_on_the_first_one() {
    let shards = Shards::new(2).unwrap();
    let handle = shards.handle();
    let (threads, thread) = channel();
    let tell = move |from: &'static str| {
        let threads = threads.clone();
        move || {
            let name = thread::current().name().map(str::to_owned);
            let _ = threads.send((from, name.unwrap_or_default()));
        }
    };
    let in_callback = tell("callback");
    let make = move |_: &Accepted<'_>| {
        let call = in_callback.clone();
        Script::<()>::new().packet(move |_, ctx| {
            ctx.handle().every(OFTEN, call.clone()).unwrap().detach();
            let name = thread::current().name().unwrap_or_default().to_owned();
            Action::send(name)
        })
    };
    let listener = shards.start_listener("test", ListenerOptions::port(0), make).unwrap();
    let before = handle.every(OFTEN, tell("before")).unwrap();
    let running = thread::spawn(move || shards.run());
    let elsewhere = handle.every(OFTEN, tell("elsewhere")).unwrap();
    let mut clients = [(); 2].map(|()| Client::connect(listener.local_addr()));
    let mut names = clients.each_mut().map(|client| client.ask(b"start"));
    names.sort();
    assert_eq!(names, [b"test/0".to_vec(), b"test/1".to_vec()]);
    let mut seen = [0; 3];
    while seen.contains(&0) {
        let (from, name) = next(&thread);
        assert_eq!(name, "test/0", "{from}");
        let at = ["before", "elsewhere", "callback"].iter().position(|it| *it == from).unwrap();
        seen[at] += 1;
    }
    drop(clients);
    let drain = handle.shutdown().unwrap();
    over(&drain);
    running.join().unwrap().unwrap();
    assert!(matches!(handle.every(OFTEN, || ()), Err(Error::Gone)));
    drop((before, elsewhere, tell));
    // All closures are freed, so no sender is left but those of the factory, which is gone as well.
    until("the channel is closed", || {
        thread.try_iter().for_each(drop);
        matches!(thread.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected))
    });
}

/// Goal: a timer whose reactor never runs is freed with it. Method: a timer in a list of commands, and
/// the drop of the reactor and of shards.
#[test]
fn a_timer_of_a_reactor_that_never_runs_is_freed() {
    let (sender, receiver) = channel::<()>();
    let reactor = Reactor::new().unwrap();
    let own = sender.clone();
    let every = reactor.handle().every(OFTEN, move || own.send(()).unwrap()).unwrap();
    drop(reactor);
    let shards = Shards::new(2).unwrap();
    let other = shards.handle().every(OFTEN, move || sender.send(()).unwrap()).unwrap();
    drop(shards);
    assert_eq!(receiver.recv(), Err(std::sync::mpsc::RecvError), "never called, and freed");
    drop((every, other));
}
