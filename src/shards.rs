//! One reactor per core, with the same API as one reactor.
//!
//! ```text
//!   listener ──► the shard that accepts ──► the part with fewest connections, on any shard
//!   Handle ────► directory, then the shard that a command is about
//! ```
//!
//! Shards share nothing that a packet touches. They share the admission of connections
//! ([`Admission`](crate::admission)), the names of the listeners, and a way to stop each other.

use std::fmt;
use std::sync::{OnceLock, mpsc};
use std::thread::{self, JoinHandle};

use crate::connector_handle::ConnectorHandle;
use crate::directory::Shared;
use crate::error::Error;
use crate::guard::caught;
use crate::handle::{Handle, ListenerHandle};
use crate::handler::{Accepted, Dialed, Handler, IntoHandler};
use crate::logging::say;
use crate::options::{ConnectorOptions, ListenerOptions, ReactorOptions};
use crate::reactor::build::ReactorParts;
use crate::sync::Arc;

/// Several reactors, each on a thread of its own: one for each core, or as many as you choose.
///
/// A handler is made on its shard and stays there, so it need not be `Send`. The factory is cloned
/// for each shard. Addresses, broadcasts, [`Handle::close`] and statistics work across shards.
/// [`max_connections`](ListenerOptions::max_connections) limits the sum over all shards.
///
/// # Examples
///
/// ```
/// use condor::{Action, Context, Handler, ListenerOptions, Shards};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type Message = ();
///
///     fn handle_packet<'a>(
///         &'a mut self,
///         packet: &'a [u8],
///         _ctx: &mut Context<'_, ()>,
///     ) -> Action<'a> {
///         Action::send(packet)
///     }
/// }
///
/// # fn main() -> Result<(), condor::Error> {
/// let shards = Shards::new(2)?;
/// shards.start_listener("echo", ListenerOptions::port(0), |_peer| Echo)?;
/// # let _ = shards.handle().shutdown()?;
/// shards.run()
/// # }
/// ```
///
/// # Pinning
///
/// [`on_thread_start`](Self::on_thread_start) runs a hook on each shard's thread before anything
/// else. The hook can pin the thread to a core, with a crate such as `core_affinity`:
///
/// ```
/// use condor::Shards;
/// # fn pin_to_core(_core: usize) {}
///
/// // `pin_to_core` is a function of the program.
/// let shards = Shards::new(2)?.on_thread_start(pin_to_core);
/// # drop(shards);
/// # Ok::<(), condor::Error>(())
/// ```
pub struct Shards {
    reactors: Vec<ReactorParts>,
    handle: Handle,
    on_thread_start: Arc<dyn Fn(usize) + Send + Sync>,
}

impl Shards {
    /// `count` shards with the default [`ReactorOptions`]. Zero counts as one.
    /// [`available_parallelism`](thread::available_parallelism) tells how many cores the process
    /// may use.
    ///
    /// # Errors
    ///
    /// As [`Reactor::new`](crate::Reactor::new).
    pub fn new(count: usize) -> Result<Self, Error> {
        Self::with_options(count, ReactorOptions::default())
    }

    /// `count` shards, each with these options.
    ///
    /// # Errors
    ///
    /// As [`Reactor::with_options`](crate::Reactor::with_options).
    pub fn with_options(count: usize, options: ReactorOptions) -> Result<Self, Error> {
        let mut reactors = Vec::new();
        let mut ends = Vec::new();
        for shard in 0..count.max(1) {
            let (parts, end) = ReactorParts::new(shard, options.clone())?;
            reactors.push(parts);
            ends.push(end);
        }
        let handle = Handle { shared: Arc::new(Shared::new(ends)) };
        handle.shared.threads.owned_here();
        Ok(Self { reactors, handle, on_thread_start: Arc::new(|_shard| {}) })
    }

    /// Calls `hook` on each shard's thread, with the shard's number from 0, before any shard
    /// serves.
    pub fn on_thread_start(mut self, hook: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.on_thread_start = Arc::new(hook);
        self
    }

    /// Starts a listener on all shards. See
    /// [`Reactor::start_listener`](crate::Reactor::start_listener).
    ///
    /// # Errors
    ///
    /// As [`Reactor::start_listener`](crate::Reactor::start_listener).
    pub fn start_listener<M, R, F>(
        &self,
        name: &str,
        options: ListenerOptions,
        factory: F,
    ) -> Result<ListenerHandle<M>, Error>
    where
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        F: FnMut(&Accepted<'_, M>) -> R + Clone + Send + 'static,
    {
        self.handle().start_listener(name, options, factory)
    }

    /// Starts a connector on all shards. Each of them keeps its own connections up. See
    /// [`Reactor::start_connector`](crate::Reactor::start_connector).
    ///
    /// # Errors
    ///
    /// As [`Reactor::start_connector`](crate::Reactor::start_connector).
    pub fn start_connector<M, R, F>(
        &self,
        name: &str,
        options: ConnectorOptions,
        factory: F,
    ) -> Result<ConnectorHandle<M>, Error>
    where
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        F: FnMut(&Dialed<'_, M>) -> R + Clone + Send + 'static,
    {
        self.handle().start_connector(name, options, factory)
    }

    /// A handle on these shards, for other threads and for callbacks.
    pub fn handle(&self) -> Handle {
        // The thread that asks for a handle may wait for a drain, so this notes it as the shards'
        // thread.
        self.handle.shared.threads.owned_here();
        self.handle.clone()
    }

    /// Runs all shards until [`Handle::shutdown`] has drained every listener.
    ///
    /// Each thread is named after the listeners that have been started, and after its shard. The
    /// names of the listeners are cut so that the whole has at most 15 bytes, the limit of Linux.
    ///
    /// # Errors
    ///
    /// [`Error::Shard`] if a shard ended in any other way: by an error of its event queue, or by a
    /// bug. All other shards are then ended, so that the program does not go on with a part of them.
    /// [`Error::Poll`] if a thread cannot be made. If a listening socket fails, that listener is
    /// drained, and the shards go on; see [`ListenerHandle::failure`].
    pub fn run(mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.handle.shared);
        shared.threads.disown();
        let label = self.label();
        let may_serve = Arc::new(OnceLock::new());
        let (sender, receiver) = mpsc::channel();
        let mut threads = Vec::new();
        let mut outcome = Ok(());
        for (shard, parts) in std::mem::take(&mut self.reactors).into_iter().enumerate() {
            let job = Job {
                shard,
                parts,
                shared: Arc::clone(&shared),
                hook: Arc::clone(&self.on_thread_start),
                may_serve: Arc::clone(&may_serve),
                sender: sender.clone(),
            };
            let named = thread::Builder::new().name(thread_name(&label, shard));
            match named.spawn(move || job.run()) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    outcome = Err(Error::Poll { what: "make a thread", source });
                    may_serve.get_or_init(|| false);
                    break;
                }
            }
        }
        drop(sender);
        let mut ready = 0;
        for (shard, news) in receiver {
            match news {
                News::Ready => {
                    ready += 1;
                    if ready == threads.len() {
                        may_serve.get_or_init(|| true);
                    }
                }
                News::Died(why) => {
                    may_serve.get_or_init(|| false);
                    shared.abort();
                    say!(Error, "shard {shard}: ended, so all others end: {why}");
                    outcome = outcome.and(Err(Error::Shard { shard, why }));
                }
            }
        }
        threads.into_iter().enumerate().for_each(join);
        outcome
    }

    /// The names of the listeners that have been started.
    fn label(&self) -> String {
        let names: Vec<String> =
            self.handle.listeners().into_iter().map(|(name, ..)| name).collect();
        if names.is_empty() { String::from("condor") } else { names.join("+") }
    }
}

impl Drop for Shards {
    /// Runs also if some or all of the shards have never run.
    fn drop(&mut self) {
        self.handle.shared.set_gone();
    }
}

/// A thread's name, with the shard in full. Linux cuts a name after 15 bytes.
fn thread_name(label: &str, shard: usize) -> String {
    const MAX: usize = 15;
    let shard = format!("/{shard}");
    let mut end = label.len().min(MAX.saturating_sub(shard.len()));
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    label[..end].replace('\0', "?") + &shard
}

/// Waits for a shard's thread. The thread has caught and reported the panics of its shard itself.
fn join((shard, thread): (usize, JoinHandle<()>)) {
    if thread.join().is_err() {
        say!(Error, "shard {shard}: its thread panicked while it ended");
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("count", &self.reactors.len()).finish_non_exhaustive()
    }
}

/// What a shard's thread reports.
enum News {
    /// Its hook has returned.
    Ready,
    /// It ended, but no shutdown had been asked for.
    Died(String),
}

/// The work of a shard's thread.
struct Job {
    shard: usize,
    parts: ReactorParts,
    shared: Arc<Shared>,
    hook: Arc<dyn Fn(usize) + Send + Sync>,
    /// Set to true when all shards are ready, or to false when one has failed. So either all of
    /// them serve or none.
    may_serve: Arc<OnceLock<bool>>,
    sender: mpsc::Sender<(usize, News)>,
}

impl Job {
    fn run(self) {
        let Self { shard, parts, shared, hook, may_serve, sender } = self;
        // Comes before the hook, so that the hook cannot block in a wait for its own reactor
        // either.
        shared.threads.bind_thread(shard);
        let ran = caught(|| {
            hook(shard);
            // This fails only if `run` itself has gone.
            let _ = sender.send((shard, News::Ready));
            if *may_serve.wait() { parts.grow(shared).run() } else { Ok(()) }
        });
        let why = match ran {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(text) => format!("it panicked: {text}"),
        };
        let _ = sender.send((shard, News::Died(why)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::directory::{Command, Inbox};
    use crate::group::Group;
    use crate::handler::{Action, Context};
    use crate::mailbox::Notifier;
    use crate::reactor::Reactor;
    use crate::reason::MessageError;
    use crate::status::ListenerState;

    /// Goal: `top -H` shows which thread is which shard, however long the names of the listeners
    /// are.
    #[test]
    fn a_threads_name_ends_with_its_shard() {
        assert_eq!(thread_name("echo", 0), "echo/0");
        assert_eq!(thread_name("a-very-long-name", 12), "a-very-long-/12");
        assert_eq!(thread_name("grüße-aus-köln", 1), "grüße-aus-k/1");
        assert_eq!(thread_name("nul\0", 1), "nul?/1");
    }

    /// Turns all reactors until nothing is due within a second.
    fn rest(reactors: &mut [Reactor]) {
        const SOON: Duration = Duration::from_secs(1);
        for _ in 0..10_000 {
            for reactor in &mut *reactors {
                reactor.turn(Some(Duration::from_micros(100))).unwrap();
            }
            let deadlines = reactors.iter().filter_map(Reactor::next_deadline);
            if deadlines.min().is_none_or(|next| next > SOON) {
                return;
            }
        }
        panic!("the shards do not come to rest");
    }

    /// Each wake-up of a shard, with what tells the waking thread that the shard is done.
    type Wakes = Receiver<Sender<()>>;

    /// Shards on this thread. If another thread wakes one, it waits until that is [done](fast).
    fn by_hand(count: usize) -> (Handle, Vec<Reactor>, Wakes) {
        let (mut reactors, mut ends) = (Vec::new(), Vec::new());
        let (bell, wakes) = channel::<Sender<()>>();
        for shard in 0..count {
            reactors.push(ReactorParts::new(shard, ReactorOptions::new()).unwrap().0);
            let bell = bell.clone();
            ends.push(Inbox::new(Notifier::new(move || {
                let (done, is_done) = channel();
                if bell.send(done).is_ok() {
                    let _ = is_done.recv();
                }
            })));
        }
        let shared = Arc::new(Shared::new(ends));
        let grow = |parts: ReactorParts| parts.grow(Arc::clone(&shared));
        let reactors = reactors.into_iter().map(grow).collect();
        (Handle { shared }, reactors, wakes)
    }

    /// Makes `call` on another thread, with shards that are as fast as possible: when `call` has woken
    /// one, all of them have come to rest before it goes on.
    fn fast<T: Send>(
        reactors: &mut [Reactor],
        wakes: &Wakes,
        call: impl FnOnce() -> T + Send,
    ) -> T {
        thread::scope(|scope| {
            let caller = scope.spawn(call);
            while !caller.is_finished() {
                if let Ok(done) = wakes.recv_timeout(Duration::from_millis(1)) {
                    rest(reactors);
                    done.send(()).unwrap();
                }
            }
            caller.join().unwrap()
        })
    }

    struct Idle;

    impl Handler for Idle {
        type Message = ();

        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            Action::Continue
        }
    }

    /// Goal: no report of a drain is missed, however fast the other shards are: each shard knows of
    /// the drain before any shard begins it. Method: shards that finish each command before the
    /// next shard gets one; two listeners, with acceptors on different shards; the first stops, the
    /// second stops, both stop.
    #[test]
    fn no_shard_is_too_fast_for_the_report_of_a_drain() {
        for stops in ["first", "second", "both"] {
            let (handle, mut reactors, wakes) = by_hand(2);
            let listeners = ["first", "second"].map(|name| {
                let options = ListenerOptions::port(0).linger_timeout(Duration::from_millis(1));
                handle.start_listener(name, options, |_| Idle).unwrap()
            });
            rest(&mut reactors);
            let _clients: Vec<TcpStream> = listeners
                .iter()
                .flat_map(|listener| (0..4).map(|_| TcpStream::connect(listener.local_addr())))
                .map(Result::unwrap)
                .collect();
            for _ in 0..10_000 {
                rest(&mut reactors);
                if handle.stats().open == 8 {
                    break;
                }
            }
            for listener in &listeners {
                let open: Vec<u64> = listener.shard_stats().iter().map(|part| part.open).collect();
                assert_eq!(open, [2, 2]);
            }
            let drain = fast(&mut reactors, &wakes, || match stops {
                "both" => handle.shutdown().unwrap(),
                name => handle.stop_listener(name).unwrap(),
            });
            rest(&mut reactors);
            let report = drain.report().expect("the drain is over");
            let expected = if stops == "both" { 8 } else { 4 };
            assert_eq!((report.drained, report.forced), (expected, 0), "{stops}");
            assert_eq!(report.slowest.len() as u64, expected, "{stops}");
        }
    }

    /// Goal: a panic in the midst of a shard's turn, outside of any callback, ends all shards: handlers
    /// are terminated, and clients on the other shard are not served any more. Method: a command that
    /// panics, as a bug would.
    #[test]
    fn a_shard_that_panics_ends_all_shards() {
        let shards = Shards::new(2).unwrap();
        let listener = shards.start_listener("test", ListenerOptions::port(0), |_| Idle).unwrap();
        let handle = shards.handle();
        let running = thread::spawn(move || shards.run());
        let clients = [0, 1].map(|_| TcpStream::connect(listener.local_addr()).unwrap());
        while handle.stats().made < 2 {
            thread::yield_now();
        }
        handle.shared.inboxes[1].command(Command::Adopt(Box::new(|_| panic!("a bug")))).unwrap();
        let error = running.join().unwrap().unwrap_err();
        let Error::Shard { shard: 1, why } = &error else { panic!("{error:?}") };
        assert!(why.contains("a bug"), "{why}");
        for mut client in clients {
            // It is over by an end or by a reset.
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        }
        let stats = handle.stats();
        assert_eq!((stats.made, stats.terminated, stats.open), (2, 2, 0));
        assert!(!handle.is_ready());
        assert!(matches!(handle.shutdown(), Err(Error::Gone)));
        assert_eq!(listener.state(), ListenerState::Ended);
    }

    /// Joins the group that the first of its kind makes.
    struct Joins(Arc<OnceLock<Group<()>>>);

    impl Handler for Joins {
        type Message = ();

        fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
            let group = self.0.get_or_init(|| ctx.group());
            ctx.join(group).into()
        }

        fn handle_packet<'a>(&'a mut self, _: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
            Action::Continue
        }
    }

    /// Goal: when one of two shards dies, the members on the other one get everything, and the sender
    /// is told when no shard is left. Method: a member on each shard; one reactor is dropped, as the
    /// thread of a shard that dies drops it, then the other one.
    #[test]
    fn a_group_goes_on_while_a_shard_dies() {
        let (handle, mut reactors, _wakes) = by_hand(2);
        let shared = Arc::new(OnceLock::new());
        let theirs = Arc::clone(&shared);
        let factory = move |_: &Accepted<'_, _>| Joins(Arc::clone(&theirs));
        let listener = handle.start_listener("test", ListenerOptions::port(0), factory).unwrap();
        let connect = || TcpStream::connect(listener.local_addr()).unwrap();
        let mut clients = [connect(), connect()];
        while handle.stats().made < 2 {
            rest(&mut reactors);
        }
        let group = shared.get().unwrap().clone();
        let mut news = |client: &mut TcpStream| {
            let mut frame = Vec::new();
            // It ends early if the connection has.
            let _ = std::io::copy(&mut client.take(6), &mut frame);
            frame == b"\x00\x04news"
        };
        group.send_packet("news").unwrap();
        rest(&mut reactors);
        assert_eq!(clients.each_mut().map(&mut news), [true, true]);
        // This one is in the mailbox of each shard when one of them dies.
        group.send_packet("news").unwrap();
        drop(reactors.pop());
        group.send_packet("news").unwrap();
        rest(&mut reactors);
        let got = [(); 2].map(|()| clients.each_mut().map(&mut news));
        assert!(got == [[true, false]; 2] || got == [[false, true]; 2], "{got:?}");
        assert_eq!(listener.stats().dropped_messages, 1);
        drop(reactors);
        let gone = group.send_packet("news");
        assert_eq!(gone, Err(MessageError::Gone(Bytes::from_static(b"news"))));
    }

    /// Goal: a stop gets the reports of all parts, also of a part that has ended before, by itself.
    /// Method: the listening socket fails; one shard turns until its part has ended, and the other one
    /// turns only after the stop.
    #[test]
    fn a_stop_gets_the_report_of_a_part_that_has_ended_already() {
        let (handle, mut reactors, _wakes) = by_hand(2);
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = ListenerOptions::from_std(kept.try_clone().unwrap());
        let options = options.linger_timeout(Duration::ZERO);
        let listener = handle.start_listener("test", options, |_| Idle).unwrap();
        let connect = || TcpStream::connect(listener.local_addr()).unwrap();
        let _clients = [connect(), connect(), connect(), connect()];
        while handle.stats().made < 4 {
            rest(&mut reactors);
        }
        socket2::SockRef::from(&kept).shutdown(std::net::Shutdown::Both).unwrap();
        while listener.shard_stats()[0].open > 0 {
            reactors[0].turn(Some(Duration::from_millis(1))).unwrap();
        }
        assert_eq!(listener.shard_stats()[1].open, 2);
        assert_eq!(listener.state(), ListenerState::Draining);
        let drain = listener.stop().unwrap();
        assert_eq!(drain.report(), None);
        rest(&mut reactors);
        assert_eq!(drain.report().map(|report| (report.drained, report.forced)), Some((4, 0)));
    }
}
