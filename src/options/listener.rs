//! Options of one listener.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use super::connection::{ConnectionOptions, connection_setters};
use crate::endpoint::{Endpoint, EndpointError, UnixName};
use crate::framing::Framing;
use crate::proxy::Proxy;

/// Where a listener's socket comes from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Bind(Endpoint),
    Inherited(Arc<TcpListener>),
    /// Text that names no socket.
    Wrong(EndpointError),
}

/// What a connection has to do before its handler is made.
#[derive(Debug, Clone)]
pub(crate) struct OpeningOptions {
    pub(crate) proxy: Option<Proxy>,
    pub(crate) timeout: Duration,
    pub(crate) max_opening: usize,
}

impl Default for OpeningOptions {
    fn default() -> Self {
        Self { proxy: None, timeout: Duration::from_secs(5), max_opening: 512 }
    }
}

/// Options of one listener: its address, its framing and its limits.
///
/// [`port`](Self::port), [`new`](Self::new), [`unix`](Self::unix),
/// [`unix_abstract`](Self::unix_abstract), [`from_std`](Self::from_std) and [`from_fd`](Self::from_fd)
/// make them. Each option has a default, given here in parentheses. If Erlang's Condor has the option,
/// the default is the same.
///
/// - Packets: [`framing`](Self::framing) (a length of two bytes), [`max_packet`](Self::max_packet)
///   (what the length can express, at most 1 MiB).
/// - Peers that send too slowly: [`packet_timeout`](Self::packet_timeout) (10 s),
///   [`first_packet_timeout`](Self::first_packet_timeout) (none),
///   [`idle_timeout`](Self::idle_timeout) (none), [`silence_timeout`](Self::silence_timeout) (none),
///   [`keepalive`](Self::keepalive) (none).
/// - Peers that read too slowly: [`write_high_water`](Self::write_high_water) (64 KiB),
///   [`write_low_water`](Self::write_low_water) (32 KiB), [`max_queued`](Self::max_queued) (8 MiB),
///   [`write_stall_timeout`](Self::write_stall_timeout) (60 s).
/// - Peers that send no more: [`half_close_timeout`](Self::half_close_timeout) (30 s).
/// - How much at once: [`max_connections`](Self::max_connections) (100),
///   [`mailbox_capacity`](Self::mailbox_capacity) (65,536 messages),
///   [`max_timers`](Self::max_timers) (1,024 of each connection),
///   [`max_groups`](Self::max_groups) (1,024 of each connection),
///   [`memory_warning`](Self::memory_warning) (10 GiB).
/// - Connections through proxies: [`proxy`](Self::proxy) (none),
///   [`opening_timeout`](Self::opening_timeout) (5 s), [`max_opening`](Self::max_opening) (512).
/// - The end: [`close_timeout`](Self::close_timeout) (10 s),
///   [`linger_timeout`](Self::linger_timeout) (5 s), [`drain_timeout`](Self::drain_timeout) (5 s).
/// - The sockets: [`backlog`](Self::backlog) (1,024 clients), [`nodelay`](Self::nodelay) (yes),
///   [`v6_only`](Self::v6_only) (no), [`unix_mode`](Self::unix_mode) (0o600).
///
/// Wrong values give no error in the setters. [`check`](Self::check) finds them, and the start of
/// the listener refuses them with [`Error::Options`](crate::Error::Options).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use condor::{LengthField, ListenerOptions};
///
/// let options = ListenerOptions::port(5555)
///     .framing(LengthField::U32)
///     .max_packet(64 * 1024)
///     .packet_timeout(Duration::from_secs(2))
///     .max_connections(1_000);
/// assert_eq!(options.check().errors, []);
/// ```
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    pub(crate) origin: Origin,
    pub(crate) v6_only: bool,
    pub(crate) unix_mode: u32,
    pub(crate) backlog: u32,
    pub(crate) opening: OpeningOptions,
    pub(crate) connection: ConnectionOptions,
}

impl ListenerOptions {
    /// The longest [`keepalive`](Self::keepalive): 32,767 s. It is the limit of Linux,
    /// `MAX_TCP_KEEPIDLE` in the kernel's `include/net/tcp.h`.
    pub const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

    /// Listens on 127.0.0.1, as Erlang's Condor does. With port 0 the system chooses a port, and
    /// [`ListenerHandle::local_addr`](crate::ListenerHandle::local_addr) returns it.
    pub fn port(port: u16) -> Self {
        Self::new((Ipv4Addr::LOCALHOST, port))
    }

    /// Listens on `addr`. The unspecified IPv6 address `[::]` accepts IPv4 clients, too, unless
    /// [`v6_only`](Self::v6_only) is set.
    pub fn new(addr: impl Into<SocketAddr>) -> Self {
        Self::from_origin(Origin::Bind(addr.into().into()))
    }

    fn from_origin(origin: Origin) -> Self {
        Self {
            origin,
            v6_only: false,
            unix_mode: 0o600,
            backlog: 1024,
            opening: OpeningOptions::default(),
            connection: ConnectionOptions::default(),
        }
    }

    /// Listens on a Unix socket at `path`, with the access rights of [`unix_mode`](Self::unix_mode).
    ///
    /// - If a socket is there that no process listens on, because its process was killed, it is
    ///   replaced. If a process listens on it, the start fails with
    ///   [`Error::AddressInUse`](crate::Error::AddressInUse).
    /// - A file of any other kind is never touched: the start fails with
    ///   [`Error::Listen`](crate::Error::Listen), which says what is there.
    /// - At the end of the listener the path is removed, if it is still that of its socket.
    ///
    /// While the path is taken, its directory is locked (`flock`), so that two starts at the same time
    /// do not replace each other's socket. A path that is too long, empty, or has a NUL is an error of
    /// [`check`](Self::check).
    ///
    /// On such a listener [`nodelay`](Self::nodelay), [`keepalive`](Self::keepalive) and
    /// [`v6_only`](Self::v6_only) have no effect.
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
    /// let path = std::env::temp_dir().join(format!("echo-{}.sock", std::process::id()));
    /// let mut reactor = Reactor::new()?;
    /// let options = ListenerOptions::unix(&path).unix_mode(0o660);
    /// let listener = reactor.start_listener("echo", options, |_peer| Echo)?;
    /// assert_eq!(listener.local_addr().to_string(), format!("unix:{}", path.display()));
    /// # drop(reactor);
    /// # assert!(!path.exists());
    /// # Ok::<(), condor::Error>(())
    /// ```
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::from_name(UnixName::from_pathname(path))
    }

    /// Listens on a Unix socket with an abstract name, without the NUL before it. Such a name is no file
    /// and has no access rights: any process in the same network namespace can connect, and
    /// [`check`](Self::check) warns of it. With the feature `peer-credentials`, `unix_allow_uids` says who
    /// may. Only Linux has such names.
    pub fn unix_abstract(name: impl AsRef<[u8]>) -> Self {
        Self::from_name(UnixName::from_abstract_name(name))
    }

    fn from_name(name: Result<UnixName, EndpointError>) -> Self {
        Self::from_origin(match name {
            Ok(name) => Origin::Bind(name.into()),
            Err(error) => Origin::Wrong(error),
        })
    }

    /// Uses an existing socket that already listens: one that a parent process or systemd passes
    /// on. [`backlog`](Self::backlog) and [`v6_only`](Self::v6_only) have no effect, because the
    /// other process has set them.
    ///
    /// # Errors
    ///
    /// The descriptor must be a listening stream socket. Otherwise the start of the listener fails
    /// with [`Error::Listen`](crate::Error::Listen), which says what the descriptor is: a socket
    /// that is only bound, a connected socket (systemd's `Accept=yes`), a UDP socket, or a file.
    ///
    /// # Sharing the socket
    ///
    /// All descriptors of a socket, in all processes, share one non-blocking mode. The listener
    /// turns it on at its start, and again before it accepts a connection. So another process that
    /// keeps a descriptor must not rely on a blocking `accept`.
    ///
    /// If the other process turns the mode off, the reactor does not stop, because the listener
    /// accepts only while a client waits. There is one exception: between two system calls of the
    /// listener, the other process turns the mode off and accepts the last client itself. The
    /// reactor then waits for the next client.
    ///
    /// If the other process calls `shutdown` on the socket, no holder can accept any more. The
    /// listener is then drained and closed as by a stop; see
    /// [`ListenerHandle::failure`](crate::ListenerHandle::failure). A linger time that the other
    /// process sets (`SO_LINGER`) is turned off for each accepted connection, because it would make
    /// `close` block the reactor.
    ///
    /// While another process holds the same socket, draining this listener refuses no client. The
    /// connections in the backlog are left to the other process.
    pub fn from_std(listener: TcpListener) -> Self {
        Self::from_origin(Origin::Inherited(Arc::new(listener)))
    }

    /// The same for a descriptor: a listening TCP or Unix stream socket, such as those that systemd
    /// passes on (`LISTEN_FDS`). The path of a Unix socket is left to the process that has made it.
    pub fn from_fd(fd: OwnedFd) -> Self {
        // The type has the calls that a Unix socket needs as well.
        Self::from_std(fd.into())
    }

    /// The access rights of the path of a [Unix socket](Self::unix), as for `chmod`. Default: `0o600`,
    /// the user of this process alone. At most `0o777`. To connect, a process needs the right to write.
    ///
    /// The socket never has more rights than these, whatever the umask is.
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.unix_mode = mode;
        self
    }

    /// The users whose processes may connect to a [Unix socket](Self::unix), by number. Default: all that
    /// the file's access rights let in, which for an [abstract name](Self::unix_abstract) are all of the
    /// machine. Needs the feature `peer-credentials`, and Linux.
    ///
    /// A peer of another user is closed right after `accept`: before a handler is made and before a byte
    /// is read. [`Stats::refused_uids`](crate::Stats::refused_uids) counts it, and a line in the log names
    /// its uid. This holds for connections that [`Handle::adopt`](crate::Handle::adopt) gives to the
    /// listener, too. Peers that are not on a Unix socket are not affected. The user 0 is let in only if
    /// it is in the list. The access rights hold as well: with a path, set [`unix_mode`](Self::unix_mode)
    /// so that these users may write to it. In a user namespace all users that it does not know have one
    /// number, by default 65,534: in the list, it lets all of them in.
    ///
    /// A later call replaces the list. An empty list, and a list for a listener on TCP, is an error of
    /// [`check`](Self::check). In a test without sockets a Unix peer has no user, so it is refused.
    ///
    /// ```
    /// use condor::ListenerOptions;
    ///
    /// let options = ListenerOptions::unix_abstract("echo").unix_allow_uids([0, 1000]);
    /// assert_eq!(options.check().errors, []);
    /// ```
    #[cfg(all(feature = "peer-credentials", target_os = "linux"))]
    pub fn unix_allow_uids(mut self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.connection.unix_allow_uids = Some(uids.into_iter().collect());
        self
    }

    /// Whether `[::]` accepts IPv6 clients only. Default: no, it accepts IPv4 clients, too.
    pub fn v6_only(mut self, v6_only: bool) -> Self {
        self.v6_only = v6_only;
        self
    }

    /// The most clients that wait in the kernel to be accepted. Default: 1024. At least 1. If it is
    /// above the system's limit, the kernel cuts it to that limit. On Linux the limit is
    /// `net.core.somaxconn`, see [listen(2)](https://man7.org/linux/man-pages/man2/listen.2.html).
    pub fn backlog(mut self, clients: u32) -> Self {
        self.backlog = clients;
        self
    }

    /// Connections come from proxies, which tell who their clients are by a PROXY header. Default: none.
    /// See [`Proxy`].
    ///
    /// The header is read before the factory is called. Then [`Context::peer_addr`] is the client's
    /// address, and [`Context::via_addr`] the proxy's. If the header tells no client, as those of a
    /// proxy's own checks, both are the proxy's. A connection whose header is wrong gets no
    /// handler: it is counted in [`Stats::bad_headers`], and logged at most once a second. One that ends
    /// before it sends a byte, as the checks of balancers do, is only counted.
    ///
    /// [`Context::peer_addr`]: crate::Context::peer_addr
    /// [`Context::via_addr`]: crate::Context::via_addr
    /// [`Stats::bad_headers`]: crate::Stats::bad_headers
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.opening.proxy = Some(proxy);
        self
    }

    /// How much time a connection has, from the moment it is accepted, until its [PROXY
    /// header](Self::proxy) is complete. Default: 5 s. Not zero. Then the connection is closed. Bytes
    /// that arrive do not extend the time.
    pub fn opening_timeout(mut self, timeout: Duration) -> Self {
        self.opening.timeout = timeout;
        self
    }

    /// The most connections whose [PROXY header](Self::proxy) has not arrived. Default: 512. At least 1.
    /// They count toward [`max_connections`](Self::max_connections).
    ///
    /// If so many are opening, or if the listener is full and some are opening, the oldest of them is
    /// closed when another client connects. So silent connections keep no client out. Connections that
    /// [`Handle::adopt`](crate::Handle::adopt) gives to another shard are counted there.
    pub fn max_opening(mut self, connections: usize) -> Self {
        self.opening.max_opening = connections;
        self
    }

    /// The most connections at the same time, lingering ones included. Default: 100. From 1 to
    /// 4,194,303. Further clients wait in the backlog.
    ///
    /// [`Handle::set_max_connections`](crate::Handle::set_max_connections) changes it while the
    /// listener runs.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connection.max_connections = connections;
        self
    }

    /// The address to listen on. For an inherited socket it is the socket's address.
    pub(crate) fn addr(&self) -> Endpoint {
        match &self.origin {
            Origin::Bind(endpoint) => endpoint.clone(),
            Origin::Inherited(listener) => {
                let addr = SockRef::from(&**listener).local_addr().ok();
                addr.and_then(|addr| Endpoint::from_kernel(&addr)).unwrap_or_else(nowhere)
            }
            Origin::Wrong(_) => nowhere(),
        }
    }

    connection_setters!();
}

fn nowhere() -> Endpoint {
    Endpoint::from(([0, 0, 0, 0], 0))
}
