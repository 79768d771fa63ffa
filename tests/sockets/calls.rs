//! Calls to a peer over sockets, by the system's clock.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use condor::client::Client;
use condor::testing::serve;
use condor::{Action, Calls, CloseReason, Context, Handler, Info, ListenerOptions};

use crate::support::next;

/// Asks its peer three things when it connects, and tells it what became of them.
struct Asking {
    calls: Calls<u8, &'static str>,
    left: Sender<&'static str>,
}

impl Handler for Asking {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        let hour = Duration::from_secs(3_600);
        let questions =
            [(1, "one", hour), (2, "two", Duration::from_millis(20)), (3, "three", hour)];
        for (key, name, timeout) in questions {
            self.calls.open(key, name, timeout, ctx).unwrap();
            ctx.send(&[key][..]).unwrap();
        }
        Action::Continue
    }

    fn handle_packet(&mut self, answer: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        Action::send(self.calls.answered(&answer[0], ctx).unwrap_or("late"))
    }

    fn handle_info(&mut self, info: Info<'_, ()>, ctx: &mut Context<'_, ()>) -> Action<'_> {
        match info {
            Info::CallsDue => match self.calls.expired(ctx) {
                Some((_, name)) => Action::send(format!("{name} expired")),
                None => Action::Continue,
            },
            other => other.default_action(),
        }
    }

    fn terminate(self, _: CloseReason) {
        self.calls.into_iter().for_each(|(_, name)| self.left.send(name).unwrap());
    }
}

/// Goal: over sockets each call has its own fate: answered, expired, or left at the end. Method: the
/// peer answers the first in time, the second late, and closes before it answers the third.
#[test]
fn each_call_has_its_own_fate() {
    let (left, leftover) = channel();
    let server = serve(ListenerOptions::port(0), move |_| Asking {
        calls: Calls::by_key(3),
        left: left.clone(),
    });
    let mut client = Client::connect(server.addr()).unwrap();
    for key in [1, 2, 3] {
        assert_eq!(client.receive().unwrap(), [key]);
    }
    client.send([1]).unwrap();
    let told = [client.receive().unwrap(), client.receive().unwrap()];
    assert!(told.contains(&b"one".to_vec()) && told.contains(&b"two expired".to_vec()), "{told:?}");
    assert_eq!(client.request([2]).unwrap(), b"late");
    drop(client);
    assert_eq!(next(&leftover), "three");
}
