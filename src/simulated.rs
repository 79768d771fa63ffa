//! What a reactor of a simulation has in place of sockets: a listening port, a dialer, a stream, and
//! events. All of them call the [`Network`] between the nodes, as sockets call a kernel.
//!
//! They are behind the same seams as sockets, so the reactor above them is the same. The network is
//! behind a lock only because a listener's part may be made on any thread. A simulation has one.

mod end;
mod network;
mod path;

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;

use mio::Token;

pub use self::end::Cut;
pub(crate) use self::network::{Network, address};
use crate::acceptor::{self, Acceptor};
use crate::dialer::Dialer;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::options::{ConnectionOptions, ListenerOptions, Origin, Resolve};
use crate::poller::{Readiness, Registry, SimulatedNetwork};
use crate::stream::Stream;
use crate::sync::{Arc, Mutex, MutexGuard};

/// The network that all nodes of a simulation share.
#[derive(Debug, Clone)]
pub(crate) struct World(Arc<Mutex<Network>>);

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Network::new(seed))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Network> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One node's place in the network: what its reactor has for a kernel.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) world: World,
    pub(crate) node: usize,
}

impl Host {
    /// Listens as the options say. Returns the actual endpoint, too.
    pub(crate) fn listen(
        &self,
        name: &str,
        options: &ListenerOptions,
    ) -> Result<(SimulatedAcceptor, Endpoint), Error> {
        let addr = options.addr();
        let listened = match &options.origin {
            Origin::Bind(addr) => self.world.lock().listen(self.node, addr),
            Origin::Inherited(_) | Origin::Wrong(_) => Err(ErrorKind::Unsupported.into()),
        };
        let (key, addr) = listened.map_err(|source| acceptor::cannot_bind(name, addr, source))?;
        Ok((SimulatedAcceptor { world: self.world.clone(), key }, addr))
    }

    /// Looks up the names of nodes.
    pub(crate) fn resolve(&self) -> Resolve {
        let world = self.world.clone();
        Arc::new(move |name| {
            let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
            let ip = world.lock().address_of(host);
            match (ip, port.parse()) {
                (Some(ip), Ok(port)) => Ok(vec![SocketAddr::new(ip, port)]),
                _ => Err(io::Error::new(ErrorKind::NotFound, "no node has this name")),
            }
        })
    }
}

impl SimulatedNetwork for Host {
    fn take_events(&mut self, most: usize, into: &mut Vec<(Token, Readiness)>) -> io::Result<()> {
        self.world.lock().take_events(self.node, most, into);
        Ok(())
    }
}

impl Dialer for Host {
    type Stream = SimulatedStream;

    fn connect(
        &mut self,
        to: &Endpoint,
        source: Option<IpAddr>,
        _: &ConnectionOptions,
    ) -> io::Result<SimulatedStream> {
        let key = self.world.lock().connect(self.node, to, source)?;
        Ok(SimulatedStream { world: self.world.clone(), key })
    }

    fn register(stream: &mut SimulatedStream, registry: &Registry, token: Token) -> io::Result<()> {
        Stream::register(stream, registry, token)
    }

    fn peer_addr(stream: &SimulatedStream) -> io::Result<Option<Endpoint>> {
        stream.world.lock().peer_addr(stream.key).map(Some)
    }
}

/// A listening port.
#[derive(Debug)]
pub(crate) struct SimulatedAcceptor {
    world: World,
    key: u64,
}

impl Acceptor for SimulatedAcceptor {
    type Stream = SimulatedStream;

    fn accept(&mut self, _: &ConnectionOptions) -> io::Result<(SimulatedStream, Endpoint)> {
        let (key, peer_addr) = self.world.lock().accept(self.key)?;
        Ok((SimulatedStream { world: self.world.clone(), key }, peer_addr))
    }

    fn register(&mut self, _: &Registry, token: Token) -> io::Result<()> {
        self.world.lock().watch_door(self.key, token);
        Ok(())
    }

    fn rearm(&mut self, _: &Registry, token: Token) -> io::Result<()> {
        self.world.lock().watch_door(self.key, token);
        Ok(())
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        self.world.lock().forget_door(self.key);
        Ok(())
    }
}

impl Drop for SimulatedAcceptor {
    fn drop(&mut self) {
        self.world.lock().close_door(self.key);
    }
}

/// One end of a stream.
#[derive(Debug)]
pub(crate) struct SimulatedStream {
    world: World,
    key: u64,
}

impl Read for SimulatedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.world.lock().take(self.key, buf)
    }
}

impl Write for SimulatedStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.world.lock().put(self.key, &[IoSlice::new(buf)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for SimulatedStream {
    fn write_gathered(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.world.lock().put(self.key, pieces)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.world.lock().finish(self.key)
    }

    fn reset_on_drop(&self) {
        self.world.lock().reset_on_close(self.key);
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        self.world.lock().local_addr(self.key)
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.world.lock().take_error(self.key).map(io::Error::from))
    }

    fn is_readable(&self) -> bool {
        self.world.lock().is_readable(self.key)
    }

    fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.world.lock().peek(self.key, buf)
    }

    fn register(&mut self, _: &Registry, token: Token) -> io::Result<()> {
        self.world.lock().watch(self.key, token);
        Ok(())
    }

    fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.register(registry, token)
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        Ok(())
    }

    /// Room is always announced.
    fn watch_writable(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        self.world.lock().close(self.key);
    }
}
