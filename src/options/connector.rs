//! Options of one connector.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::connection::{ConnectionOptions, connection_setters};
use crate::backoff::{Backoff, Retry};
use crate::connector_state::ConnectorState;
use crate::endpoint::Endpoint;
use crate::framing::Framing;
use crate::proxy::ProxyVersion;

/// Looks up the addresses of `HOST:PORT`.
pub(crate) type Resolve = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Is told the state of the part on one shard.
pub(crate) type OnState = Arc<dyn Fn(usize, &ConnectorState) + Send + Sync>;

/// Where a connector connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Endpoint(Endpoint),
    /// `HOST:PORT`, with a name that has to be looked up.
    Name(Arc<str>),
}

impl Target {
    /// Reads an address or a name with a port.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<Endpoint>() {
            Ok(endpoint) => return Ok(Self::Endpoint(endpoint)),
            Err(error) if text.starts_with("unix:") => return Err(error.to_string()),
            Err(_) => {}
        }
        let named = text.rsplit_once(':').is_some_and(|(host, port)| {
            let is_name = !host.is_empty() && !host.contains([':', '[', ']', '/', ' ']);
            is_name && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if named { Ok(Self::Name(text.into())) } else { Err("it is not HOST:PORT".to_owned()) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Options of one connector: where it connects to, how many connections it keeps up, and their limits.
///
/// [`to`](Self::to) or [`on_demand`](Self::on_demand) makes them. Each option has a default, given here
/// in parentheses.
///
/// - Where to: [`to`](Self::to), [`on_demand`](Self::on_demand),
///   [`source_addr`](Self::source_addr) (the system chooses), [`resolve`](Self::resolve) (the system's
///   resolver), [`send_proxy`](Self::send_proxy) (no PROXY header).
/// - How many: [`connections`](Self::connections) (1 on each shard),
///   [`max_connections`](Self::max_connections) (1,024 on each shard).
/// - How it dials: [`connect_timeout`](Self::connect_timeout) (3 s),
///   [`attempt_delay`](Self::attempt_delay) (250 ms), [`backoff`](Self::backoff) (100 ms to 30 s),
///   [`retry`](Self::retry) (for ever).
/// - What it tells: [`on_state`](Self::on_state) (nothing).
/// - All that a connection of a listener has: see [`ListenerOptions`](crate::ListenerOptions). The
///   defaults are the same.
///
/// Wrong values give no error in the setters. [`check`](Self::check) finds them, and the start of the
/// connector refuses them with [`Error::ConnectorOptions`](crate::Error::ConnectorOptions).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use condor::{ConnectorOptions, Lines, Retry};
///
/// let options = ConnectorOptions::to(["db1.example:5433", "db2.example:5433"])
///     .connections(2)
///     .connect_timeout(Duration::from_secs(1))
///     .retry(Retry::Times(10))
///     .framing(Lines::new(4096));
/// assert_eq!(options.check().errors, []);
/// ```
#[derive(Clone)]
pub struct ConnectorOptions {
    pub(crate) targets: Vec<Result<Target, (String, String)>>,
    pub(crate) connections: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) attempt_delay: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) retry: Retry,
    pub(crate) source_addr: Option<IpAddr>,
    pub(crate) send_proxy: Option<ProxyVersion>,
    pub(crate) resolve: Option<Resolve>,
    pub(crate) on_state: Option<OnState>,
    pub(crate) connection: ConnectionOptions,
}

/// One place to connect to, or several: what [`ConnectorOptions::to`] takes.
///
/// Text is an address (`127.0.0.1:80`, `[::1]:80`), a Unix socket (`unix:/run/db.sock`, `unix:@name`),
/// or a name with a port (`db.example:5433`).
pub trait IntoTargets {
    /// The places as text.
    fn into_targets(self) -> Vec<String>;
}

impl IntoTargets for &str {
    fn into_targets(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl IntoTargets for String {
    fn into_targets(self) -> Vec<String> {
        vec![self]
    }
}

impl IntoTargets for SocketAddr {
    fn into_targets(self) -> Vec<String> {
        vec![self.to_string()]
    }
}

impl IntoTargets for Endpoint {
    fn into_targets(self) -> Vec<String> {
        vec![self.to_string()]
    }
}

impl<T: IntoTargets, const N: usize> IntoTargets for [T; N] {
    fn into_targets(self) -> Vec<String> {
        self.into_iter().flat_map(T::into_targets).collect()
    }
}

impl<T: IntoTargets> IntoTargets for Vec<T> {
    fn into_targets(self) -> Vec<String> {
        self.into_iter().flat_map(T::into_targets).collect()
    }
}

impl ConnectorOptions {
    /// The longest [`keepalive`](Self::keepalive): 32,767 s.
    pub const MAX_KEEPALIVE: Duration = ConnectionOptions::MAX_KEEPALIVE;

    /// Connects to one of `targets`. They stand for one service: a dial tries them in this order until
    /// one answers, and the addresses of a name in the order in which the resolver returns them. The
    /// address families alternate (RFC 8305).
    pub fn to(targets: impl IntoTargets) -> Self {
        let parse = |text: String| Target::parse(&text).map_err(|why| (text, why));
        Self {
            targets: targets.into_targets().into_iter().map(parse).collect(),
            connections: 1,
            connect_timeout: Duration::from_secs(3),
            attempt_delay: Duration::from_millis(250),
            backoff: Backoff::default(),
            retry: Retry::default(),
            source_addr: None,
            send_proxy: None,
            resolve: None,
            on_state: None,
            connection: ConnectionOptions { max_connections: 1_024, ..Default::default() },
        }
    }

    /// Options of a connector that keeps no connection up. It opens those that handlers
    /// [dial](crate::Context::dial).
    pub fn on_demand() -> Self {
        Self::to(Vec::<String>::new()).connections(0)
    }

    /// How many connections each shard keeps up. Default: 1. Zero: none, only those that a handler
    /// [dials](crate::Context::dial). At most [`max_connections`](Self::max_connections).
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// The most connections at the same time on each shard, those that are being dialled and lingering
    /// ones included. Default: 1,024. From 1 to 2,097,151.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connection.max_connections = connections;
        self
    }

    /// The longest time of one dial: the look-up of names, and all addresses that are tried. Default:
    /// 3 s. More than zero.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one address may take before the next one is tried beside it. Default: 250 ms, as
    /// RFC 8305 §5 advises. More than zero.
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay;
        self
    }

    /// How long to wait before the next dial. Default: up to 100 ms at first, up to 30 s at most.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How often to dial again. Default: without end.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The local address to connect from. Default: the system chooses. It has no effect on Unix
    /// sockets, and addresses of the other family fail.
    pub fn source_addr(mut self, addr: impl Into<IpAddr>) -> Self {
        self.source_addr = Some(addr.into());
        self
    }

    /// Each connection begins with a PROXY header of this version. Default: none.
    ///
    /// If a handler has dialled it ([`Context::dial`]), the header tells the peer of that handler as
    /// the client, and the address that the peer has connected to: what a proxy has told of it, or
    /// [`Context::local_addr`]. A connection that is kept up stands for no client: its header says so
    /// (`LOCAL`, or `UNKNOWN` in version 1). The header leaves at the end of the turn in which the
    /// connection is up, together with what the handler has sent by then. It has no checksum.
    ///
    /// [`Context::dial`]: crate::Context::dial
    /// [`Context::local_addr`]: crate::Context::local_addr
    pub fn send_proxy(mut self, version: ProxyVersion) -> Self {
        self.send_proxy = Some(version);
        self
    }

    /// How names are looked up. Default: by the system, as `getaddrinfo` does it.
    ///
    /// `resolve` gets `HOST:PORT`. It runs on a thread of its own, so it may block. A dial waits for it
    /// until the [`connect_timeout`](Self::connect_timeout). In a [harness](crate::testing) it runs on the
    /// thread of the test, and a name that is dialled without it is an error.
    pub fn resolve(
        mut self,
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.resolve = Some(Arc::new(resolve));
        self
    }

    /// Is called when the state of the connector on a shard has changed, with the number of the shard and
    /// the new state. Default: no call.
    ///
    /// A shard makes the call on its own thread, at the end of the turn, at most once in a turn. So a
    /// state that begins and ends in one turn is not told. The last call is that of
    /// [`Ended`](ConnectorState::Ended), which may come in the same turn as the one
    /// before. Calls of different shards may overlap.
    /// [`ConnectorHandle::state`](crate::ConnectorHandle::state) is the state of all shards together.
    ///
    /// It must not block. If it panics, [`Stats::panics`](crate::Stats::panics) counts that, and nothing
    /// ends.
    ///
    /// ```
    /// use condor::{ConnectorOptions, ConnectorState};
    ///
    /// let options = ConnectorOptions::to("127.0.0.1:6379").on_state(|shard, state| {
    ///     if let ConnectorState::GivenUp { last_error } = state {
    ///         eprintln!("shard {shard} has given up: {last_error:?}");
    ///     }
    /// });
    /// assert_eq!(options.check().errors, []);
    /// ```
    pub fn on_state(
        mut self,
        on_state: impl Fn(usize, &ConnectorState) + Send + Sync + 'static,
    ) -> Self {
        self.on_state = Some(Arc::new(on_state));
        self
    }

    /// As [`ListenerOptions::worst_case_memory`](crate::ListenerOptions::worst_case_memory), for the
    /// connections of one shard.
    pub fn worst_case_memory(&self) -> usize {
        self.connection.worst_case_memory()
    }

    connection_setters!();
}

impl fmt::Debug for ConnectorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorOptions")
            .field("targets", &self.targets)
            .field("connections", &self.connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("attempt_delay", &self.attempt_delay)
            .field("backoff", &self.backoff)
            .field("retry", &self.retry)
            .field("source_addr", &self.source_addr)
            .field("send_proxy", &self.send_proxy)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an address, a Unix socket and a name with a port are told apart, and everything else is
    /// refused. Method: examples of each.
    #[test]
    fn targets_are_addresses_or_names() {
        for address in ["127.0.0.1:80", "[::1]:80", "unix:/run/x", "unix:@x"] {
            assert!(matches!(Target::parse(address), Ok(Target::Endpoint(_))), "{address}");
        }
        for name in ["db.example:5433", "localhost:1", "a-b_c:65535"] {
            assert_eq!(Target::parse(name), Ok(Target::Name(name.into())));
        }
        for wrong in ["", ":", "db", "db:", "db:0", "db:65536", ":80", "a b:1", "::1:x", "unix:"] {
            assert!(Target::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
