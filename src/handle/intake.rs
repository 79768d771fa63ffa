//! What handles change about the connections that a listener takes: how many there may be, whether
//! they are accepted, and connections that the listener did not accept itself.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use mio::net::TcpStream;
use socket2::SockRef;

use super::{Handle, ListenerHandle};
use crate::acceptor;
use crate::admission::Admission;
use crate::directory::Running;
use crate::endpoint::Endpoint;
use crate::error::{AdoptError, Error};
use crate::logging::say;
use crate::options;
use crate::status::{ListenerState, Status};
use crate::sync::Arc;

impl Handle {
    /// Changes the [`max_connections`](crate::ListenerOptions::max_connections) of a listener, at
    /// once.
    ///
    /// - If the new limit is higher, clients that wait in the backlog are accepted.
    /// - If it is below the number of open connections, no connection is ended. Clients wait until
    ///   enough connections have ended by themselves.
    ///
    /// All that the listener needs for a connection is allocated when the connection comes, so a
    /// high limit costs nothing by itself. What it may cost is the
    /// [`worst_case_memory`](crate::ListenerOptions::worst_case_memory) of the same options with the
    /// new limit. A warning is logged if the process may not open as many files.
    ///
    /// # Errors
    ///
    /// [`Error::Options`] if `connections` is 0 or above 4,194,303; [`Error::UnknownName`], also if
    /// the listener is drained; [`Error::Gone`].
    ///
    /// # Examples
    ///
    /// ```
    /// use condor::{ListenerOptions, Reactor};
    /// # use condor::{Action, Context, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::send(packet)
    /// #     }
    /// # }
    ///
    /// let mut reactor = Reactor::new()?;
    /// let echo = reactor.start_listener("echo", ListenerOptions::port(0), |_peer| Echo)?;
    /// assert_eq!(echo.max_connections(), 100);
    /// reactor.handle().set_max_connections("echo", 1_000)?;
    /// assert_eq!(echo.max_connections(), 1_000);
    ///
    /// let error = echo.set_max_connections(0).unwrap_err();
    /// assert_eq!(error.to_string(), "listener \"echo\": max_connections is zero, and has to be more");
    /// # Ok::<(), condor::Error>(())
    /// ```
    pub fn set_max_connections(&self, name: &str, connections: usize) -> Result<(), Error> {
        self.limit(name, None, connections)
    }

    fn limit(
        &self,
        name: &str,
        only: Option<&Arc<Status>>,
        connections: usize,
    ) -> Result<(), Error> {
        if let Some(error) = options::connections_error(connections) {
            return Err(Error::Options { name: name.to_owned(), errors: vec![error] });
        }
        let (status, _) = self.running(name, only)?;
        if let Some(warning) = options::connections_warning(connections) {
            say!(Warn, "listener \"{name}\": {warning}");
        }
        status.set_max_connections(connections);
        self.notify_acceptor(&status);
        Ok(())
    }

    /// Stops accepting, until [`resume_accepting`](Self::resume_accepting). Open connections go on,
    /// and so does everything else. If accepting is paused already, the call changes nothing.
    ///
    /// The listening socket stays open, so clients still connect. They wait in the kernel's backlog,
    /// and are served after the pause. Once [`backlog`](crate::ListenerOptions::backlog) clients
    /// wait, the backlog is full: Linux then drops the handshakes of further clients. Their kernels
    /// try again, after 1 s at first and then ever less often, and after about two minutes they give
    /// up with a timeout. If the sysctl `net.ipv4.tcp_abort_on_overflow` is set, clients that have
    /// finished their part of the handshake get a reset.
    ///
    /// - A drain ends the pause: the clients that have connected are served, as
    ///   [`stop_listener`](Self::stop_listener) says.
    /// - The reactor pauses accepting by itself when descriptors or memory are short. That pause and
    ///   this one are independent: none of the two ends the other.
    /// - [`is_ready`](Self::is_ready) does not change. [`ListenerHandle::is_accepting`] does.
    /// - Connections can still be [adopted](Self::adopt).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], also if the listener is drained; [`Error::Gone`].
    ///
    /// # Examples
    ///
    /// ```
    /// use condor::{ListenerOptions, Reactor};
    /// # use condor::{Action, Context, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::send(packet)
    /// #     }
    /// # }
    ///
    /// let mut reactor = Reactor::new()?;
    /// let echo = reactor.start_listener("echo", ListenerOptions::port(0), |_peer| Echo)?;
    /// let handle = reactor.handle();
    /// handle.pause_accepting("echo")?;
    /// assert!(!echo.is_accepting());
    /// handle.resume_accepting("echo")?;
    /// assert!(echo.is_accepting());
    /// # Ok::<(), condor::Error>(())
    /// ```
    pub fn pause_accepting(&self, name: &str) -> Result<(), Error> {
        self.set_paused(name, None, true)
    }

    /// Ends the pause of [`pause_accepting`](Self::pause_accepting). If there is none, the call
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownName`], also if the listener is drained; [`Error::Gone`].
    pub fn resume_accepting(&self, name: &str) -> Result<(), Error> {
        self.set_paused(name, None, false)
    }

    fn set_paused(
        &self,
        name: &str,
        only: Option<&Arc<Status>>,
        paused: bool,
    ) -> Result<(), Error> {
        let (status, _) = self.running(name, only)?;
        status.set_paused(paused);
        self.notify_acceptor(&status);
        Ok(())
    }

    /// Gives a connected stream socket to a listener, as if the listener had accepted it: one end of
    /// a connection that another process has accepted, such as inetd, or of a socket pair.
    ///
    /// The connection goes to the shard that has the fewest, and the factory makes its handler there.
    /// It counts towards [`max_connections`](crate::ListenerOptions::max_connections), and
    /// [`Stats::adopted`](crate::Stats::adopted) counts it. The socket is set to non-blocking mode.
    /// A TCP socket gets the listener's [`nodelay`](crate::ListenerOptions::nodelay) and
    /// [`keepalive`](crate::ListenerOptions::keepalive). A linger time (`SO_LINGER`) is turned off.
    /// Bytes that have arrived on the socket are the first ones that the connection reads. If the
    /// listener expects a [PROXY header](crate::ListenerOptions::proxy), it reads that first, and closes
    /// the socket if the header is wrong or the address may not send one.
    ///
    /// The descriptor may be a TCP socket or a Unix stream socket. The peer's
    /// [`Endpoint`](crate::Endpoint) says which.
    ///
    /// All descriptors of a socket, in all processes, share one non-blocking mode. If another process
    /// keeps a descriptor of the socket and turns the mode off, reads and writes block the reactor.
    ///
    /// # Errors
    ///
    /// The error gives the descriptor back. Its [`error`](AdoptError::error) is
    ///
    /// - [`Error::Adopt`] if the descriptor is no connected stream socket. It says what the
    ///   descriptor is. Also in the [`Harness`](crate::testing::Harness), whose network has no
    ///   descriptors.
    /// - [`Error::Full`] if the listener has as many connections as it may have.
    /// - [`Error::UnknownName`], also if the listener is drained.
    /// - [`Error::Gone`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// use condor::{ListenerOptions, Reactor};
    /// # use condor::{Action, Context, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::send(packet)
    /// #     }
    /// # }
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.start_listener("echo", ListenerOptions::port(0), |_peer| Echo)?;
    /// let (mut ours, theirs) = UnixStream::pair()?;
    /// reactor.handle().adopt("echo", theirs.into())?;
    ///
    /// ours.write_all(b"\x00\x02hi")?;
    /// reactor.turn(None)?;
    /// reactor.turn(None)?;
    /// let mut answer = [0; 4];
    /// ours.read_exact(&mut answer)?;
    /// assert_eq!(&answer, b"\x00\x02hi");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt(&self, name: &str, fd: OwnedFd) -> Result<(), AdoptError> {
        self.hand_over(name, None, fd)
    }

    fn hand_over(
        &self,
        name: &str,
        only: Option<&Arc<Status>>,
        fd: OwnedFd,
    ) -> Result<(), AdoptError> {
        match self.reserve_place(name, only, &fd) {
            Err(error) => Err(AdoptError { error, fd }),
            Ok((admission, peer_addr)) => admission
                .adopt(acceptor::stream(fd), peer_addr.into())
                .map_err(|stream: TcpStream| {
                    let error = Error::UnknownName(name.to_owned());
                    AdoptError { error, fd: stream.into() }
                }),
        }
    }

    /// All that can fail about [`adopt`](Self::adopt), except that the listener closes meanwhile.
    fn reserve_place(
        &self,
        name: &str,
        only: Option<&Arc<Status>>,
        fd: &OwnedFd,
    ) -> Result<(Arc<Admission<TcpStream>>, Endpoint), Error> {
        let failed = |source| Error::Adopt { name: name.to_owned(), source };
        let (status, admission) = self.running(name, only)?;
        let Some(admission) = admission.filter(|_| !self.shared.is_simulated) else {
            let text = "a simulated network has no descriptors";
            return Err(failed(io::Error::new(ErrorKind::Unsupported, text)));
        };
        let peer_addr = acceptor::check_stream(fd).map_err(failed)?;
        if !admission.reserve() {
            return Err(Error::Full { name: name.to_owned(), max: status.max_connections() });
        }
        SockRef::from(fd).set_nonblocking(true).map_err(|source| {
            admission.give_back();
            failed(source)
        })?;
        Ok((admission, peer_addr))
    }

    /// The listener of this name, if it takes clients. If `only` is given, a later listener of the
    /// same name does not count.
    fn running(&self, name: &str, only: Option<&Arc<Status>>) -> Result<Running, Error> {
        if self.shared.is_gone() {
            return Err(Error::Gone);
        }
        self.shared.running(name, only).ok_or_else(|| Error::UnknownName(name.to_owned()))
    }

    /// The part that accepts looks at the limit and at the pause again.
    fn notify_acceptor(&self, status: &Status) {
        self.shared.inboxes[status.acceptor()].notifier.notify();
    }
}

impl<M> ListenerHandle<M> {
    /// Changes this listener's limit on connections. See [`Handle::set_max_connections`].
    ///
    /// # Errors
    ///
    /// As [`Handle::set_max_connections`]. If this listener has ended, that is
    /// [`Error::UnknownName`], even if another listener has its name by now.
    pub fn set_max_connections(&self, connections: usize) -> Result<(), Error> {
        self.reactor.limit(&self.name, Some(&self.status), connections)
    }

    /// The limit on connections that is in force: the
    /// [`max_connections`](crate::ListenerOptions::max_connections) of the options, or the one that
    /// was [set](Self::set_max_connections) last.
    pub fn max_connections(&self) -> usize {
        self.status.max_connections()
    }

    /// Stops accepting for a while. See [`Handle::pause_accepting`].
    ///
    /// # Errors
    ///
    /// As [`set_max_connections`](Self::set_max_connections), except [`Error::Options`].
    pub fn pause_accepting(&self) -> Result<(), Error> {
        self.reactor.set_paused(&self.name, Some(&self.status), true)
    }

    /// Accepts again. See [`Handle::resume_accepting`].
    ///
    /// # Errors
    ///
    /// As [`set_max_connections`](Self::set_max_connections), except [`Error::Options`].
    pub fn resume_accepting(&self) -> Result<(), Error> {
        self.reactor.set_paused(&self.name, Some(&self.status), false)
    }

    /// Whether this listener accepts clients: it is [listening](ListenerState::Listening), and no
    /// handle has [paused](Self::pause_accepting) it. It may be full, or short of descriptors, even
    /// so.
    pub fn is_accepting(&self) -> bool {
        self.state() == ListenerState::Listening && !self.status.is_paused()
    }

    /// Gives a connected stream socket to this listener. See [`Handle::adopt`].
    ///
    /// # Errors
    ///
    /// As [`Handle::adopt`]. If this listener has ended, that is [`Error::UnknownName`], even if
    /// another listener has its name by now.
    pub fn adopt(&self, fd: OwnedFd) -> Result<(), AdoptError> {
        self.reactor.hand_over(&self.name, Some(&self.status), fd)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::directory::{Inbox, Shared};
    use crate::mailbox::Notifier;
    use crate::options::ListenerOptions;

    type Change = fn(&Handle, &str) -> Result<(), Error>;

    /// Goal: a reactor that sleeps learns of a new limit and of the end of a pause at once. Method: two
    /// reactors that sleep, each with the accepting part of one listener; wake-ups are counted.
    #[test]
    fn a_change_wakes_the_part_that_accepts() {
        let woken = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let ends = woken.each_ref().map(|woken| {
            let woken = Arc::clone(woken);
            Inbox::new(Notifier::new(move || {
                woken.fetch_add(1, Ordering::SeqCst);
            }))
        });
        let handle = Handle { shared: Arc::new(Shared::new(ends.into())) };
        let listeners = ["first", "second"].map(|name| {
            let prepared = handle.prepare_tcp::<()>(name, ListenerOptions::port(0)).unwrap();
            handle.shared.publish(&prepared.handle.status, Some(prepared.handle.local_addr()));
            prepared
        });
        let changes: [Change; 3] = [
            |handle, name| handle.set_max_connections(name, 7),
            Handle::pause_accepting,
            Handle::resume_accepting,
        ];
        for change in changes {
            for (at, listener) in listeners.iter().enumerate() {
                for inbox in &handle.shared.inboxes {
                    inbox.notifier.take();
                    assert!(inbox.notifier.prepare_to_sleep());
                }
                change(&handle, listener.handle.name()).unwrap();
                let found = woken.each_ref().map(|woken| woken.swap(0, Ordering::SeqCst));
                assert_eq!(found, [usize::from(at == 0), usize::from(at == 1)]);
            }
        }
        assert_eq!(listeners[0].handle.max_connections(), 7);
    }
}
