//! A server over kernel sockets for one test: a reactor on a thread of its own.

use std::fmt;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::framing::Framing;
use crate::handle::{Handle, ListenerHandle};
use crate::handler::{Accepted, Handler, IntoHandler};
use crate::options::ListenerOptions;
use crate::reactor::Reactor;

/// Starts a reactor on a thread of its own, with one listener named `testing`. For tests over
/// sockets; a [`Harness`](super::Harness) needs none.
///
/// `options` and `factory` are as with [`Reactor::start_listener`](crate::Reactor::start_listener).
/// The factory moves to the thread of the reactor, so it has to be `Send`, and what it captures, too.
/// State that the handlers share is in an `Arc` for this reason, where a server of its own would do
/// with an `Rc`. With `ListenerOptions::port(0)` the system
/// chooses a free port of the loopback interface.
///
/// # Examples
///
/// ```
/// use condor::testing::serve;
/// use condor::{Action, Context, Handler, ListenerOptions};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type Message = ();
///
///     fn handle_packet<'a>(&mut self, packet: &'a [u8], _ctx: &mut Context<'_, ()>) -> Action<'a> {
///         Action::send(packet)
///     }
/// }
///
/// let server = serve(ListenerOptions::port(0), |_peer| Echo);
/// assert_eq!(server.client().request("hello")?, b"hello");
/// assert_eq!(server.listener().stats().accepted, 1);
/// # Ok::<(), condor::client::ClientError>(())
/// ```
///
/// # Panics
///
/// If the listener cannot be started: its options are [refused](ListenerOptions::check), or its
/// address is in use. The message is that of the [`Error`](crate::Error).
#[track_caller]
pub fn serve<M: Send + 'static, R: IntoHandler<Handler: Handler<Message = M>>>(
    options: ListenerOptions,
    factory: impl FnMut(&Accepted<'_, M>) -> R + Send + 'static,
) -> Server<M> {
    let framing = options.connection.framing_in_force().mirrored();
    start(framing, move |started| {
        let mut reactor = Reactor::new()?;
        // If the test has ended, the reactor is shut down already.
        let _ = started.send(reactor.start_listener("testing", options, factory)?);
        reactor.run()
    })
}

/// Runs `body` on a thread. It owes a listener, and keeps the sender until it ends.
#[track_caller]
fn start<M: Send + 'static>(
    framing: Framing,
    body: impl FnOnce(&Sender<ListenerHandle<M>>) -> Result<(), Error> + Send + 'static,
) -> Server<M> {
    let (started, has_started) = channel();
    let thread = thread::spawn(move || body(&started));
    match has_started.recv() {
        Ok(listener) => Server {
            listener,
            framing,
            ended: Mutex::new(has_started),
            thread: Some(thread),
            patience: PATIENCE,
        },
        Err(_) => {
            finish(thread);
            panic!("the thread of the reactor has ended without a listener");
        }
    }
}

/// Waits for the thread, and passes its panic or its error on.
#[track_caller]
fn finish(thread: JoinHandle<Result<(), Error>>) {
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error}"),
        Err(panic) => resume_unwind(panic),
    }
}

/// How long a drop waits for the thread of its reactor.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that [`serve`] has started. Its drop ends every connection and waits until the reactor's
/// thread has ended. It fails the test if that thread has panicked, if the reactor has ended with an
/// error, or if a callback blocks the thread for 10 s.
///
/// A panic in a callback of a handler ends its connection, as in every reactor. So an `assert!` in a
/// handler fails no test unless the test looks at [`Stats::panics`](crate::Stats::panics) or at the
/// answers.
pub struct Server<M> {
    listener: ListenerHandle<M>,
    framing: Framing,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<ListenerHandle<M>>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
    patience: Duration,
}

impl<M> Server<M> {
    /// The address on which the server listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().as_inet().expect("a TCP listener")
    }

    /// The handle of the reactor. A shutdown by it is a drain; the drop is not.
    pub fn handle(&self) -> &Handle {
        &self.listener.reactor
    }

    /// The handle of the listener.
    pub fn listener(&self) -> &ListenerHandle<M> {
        &self.listener
    }

    /// A client that has connected, with the framing of the listener as its peers see it.
    ///
    /// # Panics
    ///
    /// If it cannot connect, with the message of the
    /// [`ClientError`](crate::client::ClientError).
    #[track_caller]
    pub fn client(&self) -> Client {
        match Client::connect(self.addr()) {
            Ok(client) => client.framing(self.framing.clone()),
            Err(error) => panic!("{error}"),
        }
    }
}

impl<M> Drop for Server<M> {
    fn drop(&mut self) {
        // The first call begins a drain, and the second one ends it. A reactor that has ended needs
        // neither.
        drop(self.handle().shutdown());
        drop(self.handle().shutdown());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let has_ended =
            matches!(ended.recv_timeout(self.patience), Err(RecvTimeoutError::Disconnected));
        let Some(thread) = self.thread.take() else { return };
        if thread::panicking() {
            return;
        }
        assert!(has_ended, "a callback has blocked the thread of the reactor for {PATIENCE:?}");
        finish(thread);
    }
}

impl<M> fmt::Debug for Server<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::framing::{Lines, Raw};
    use crate::handler::{Action, Context};

    /// Sends each packet back. At `block` it says so, and waits for the other sender to be dropped.
    struct Echo(Option<(Sender<()>, Receiver<()>)>);

    impl Handler for Echo {
        type Message = ();

        fn handle_packet<'a>(&mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            match packet {
                b"panic" => panic!("asked to panic"),
                b"block" => {
                    let (blocks, wait) = self.0.take().unwrap();
                    blocks.send(()).unwrap();
                    let _ = wait.recv();
                }
                _ => {}
            }
            Action::send(packet)
        }
    }

    /// The text of the panic in which `body` ends.
    fn panic_of(body: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("a panic");
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    }

    /// Goal: clients have the framing of the peers, and the drop ends all connections, whatever they
    /// do. Method: different framings for the directions; a client that stays, where connections
    /// linger for ever.
    #[test]
    fn a_server_serves_and_ends_with_its_guard() {
        let framing = Framing::split(Lines::new(100), Raw);
        let options = ListenerOptions::port(0).framing(framing);
        let options = options.linger_timeout(Duration::MAX).drain_timeout(Duration::MAX);
        let server = serve(options, |_| Echo(None));
        let (mut client, mut other) = (server.client(), server.client());
        assert_eq!(client.request("hello").unwrap(), b"hello");
        assert_eq!(other.request("panic").unwrap_err().to_string(), "closed by the server");
        let stats = server.handle().stats();
        assert_eq!((stats.accepted, stats.panics), (2, 1));
        let (listener, handle) = (server.listener().clone(), server.handle().clone());
        drop(server);
        assert_eq!(listener.stats().open, 0);
        assert!(matches!(listener.stop(), Err(Error::UnknownName(_) | Error::Gone)));
        assert!(handle.shutdown().unwrap().report().is_some(), "the shutdown is done");
        assert!(client.receive().is_err());
    }

    /// Goal: a test may shut the reactor down itself, and use the server from several threads.
    #[test]
    fn a_server_may_be_shut_down_before_its_drop() {
        let server = serve(ListenerOptions::port(0), |_| Echo(None));
        thread::scope(|scope| {
            let threads = [1, 2].map(|_| scope.spawn(|| server.client().request("hello").unwrap()));
            for thread in threads {
                assert_eq!(thread.join().unwrap(), b"hello");
            }
        });
        server.handle().shutdown().unwrap().wait().unwrap();
    }

    /// Goal: a callback that blocks does not block the test for ever. Method: no patience; the
    /// callback blocks until the test lets it go.
    #[test]
    fn a_callback_that_blocks_fails_the_test() {
        let ((go, wait), (blocks, is_blocked)) = (channel(), channel());
        let mut block = Some((blocks, wait));
        let mut server = serve(ListenerOptions::port(0), move |_| Echo(block.take()));
        server.patience = Duration::ZERO;
        server.client().send("block").unwrap();
        is_blocked.recv().unwrap();
        let text = panic_of(|| drop(server));
        assert!(text.starts_with("a callback has blocked the thread"), "{text}");
        drop(go);
    }

    /// Goal: what cannot be started fails the test with the error as its text.
    #[test]
    fn a_server_that_cannot_start_says_why() {
        let taken = serve(ListenerOptions::port(0), |_| Echo(None));
        for options in
            [ListenerOptions::new(taken.addr()), ListenerOptions::port(0).max_connections(0)]
        {
            let text = panic_of(|| drop(serve(options, |_| Echo(None))));
            assert!(text.starts_with("listener \"testing\": "), "{text}");
        }
    }

    /// Goal: a panic of the reactor's thread, and an error of the reactor, fail the test in the drop
    /// of the server, with their own text; a test that fails already fails as it would have.
    #[test]
    fn a_panic_of_the_reactors_thread_reaches_the_test() {
        let failing = |panics: bool| {
            start(Framing::default(), move |started| {
                let mut reactor = Reactor::new()?;
                let options = ListenerOptions::port(0);
                let _ = started.send(reactor.start_listener("a", options, |_| Echo(None))?);
                reactor.run()?;
                assert!(!panics, "the reactor's own panic");
                Err(Error::UnknownName(String::from("the reactor's own error")))
            })
        };
        assert_eq!(panic_of(|| drop(failing(true))), "the reactor's own panic");
        assert!(panic_of(|| drop(failing(false))).contains("the reactor's own error"));
        let text = panic_of(|| {
            let _server = failing(true);
            panic!("the test's own panic");
        });
        assert_eq!(text, "the test's own panic");
    }
}
