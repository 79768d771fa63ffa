//! The network: nodes with their listening ports and their ends of streams, and what is on its way
//! between them.
//!
//! A reactor calls it as it calls a kernel. `network/transit` is what happens between two calls.

mod transit;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mio::Token;

use super::end::{End, Key, Stage};
use super::path::{Parcel, Path, What, pair};
use crate::endpoint::{Endpoint, UnixName};
use crate::poller::Readiness;
use crate::random::Random;

/// The ports that a kernel chooses from.
const OWN_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// A source of events.
#[derive(Debug, Copy, Clone)]
enum Source {
    Door(Key),
    End(Key),
}

/// The kernel of one node.
#[derive(Debug)]
struct Host {
    name: String,
    /// The first one is its own. The others are those that its listeners were bound to.
    ips: Vec<IpAddr>,
    /// The last port that it has chosen.
    port: u16,
    /// The sources that have events, in the order of the events.
    ready: VecDeque<Source>,
}

/// A listening port.
#[derive(Debug)]
struct Door {
    node: usize,
    addr: Endpoint,
    waiting: VecDeque<Key>,
    /// The token of its events, once a reactor has registered it.
    token: Option<Token>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Network {
    now: Duration,
    random: Random,
    hosts: Vec<Host>,
    paths: BTreeMap<(usize, usize), Path>,
    ends: BTreeMap<Key, End>,
    doors: BTreeMap<Key, Door>,
    /// What is on its way, by the time of its arrival, and then by the order in which it was sent.
    flying: BTreeMap<(Duration, u64), Parcel>,
    /// How many keys were given, and how many parcels were sent.
    keys: Key,
    sent: u64,
    /// Each attempt to connect: when, by which node, and to which endpoint.
    attempts: Vec<(Duration, usize, Endpoint)>,
    /// What has arrived, a line each.
    trace: Vec<String>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            random: Random::new(seed),
            hosts: Vec::new(),
            paths: BTreeMap::new(),
            ends: BTreeMap::new(),
            doors: BTreeMap::new(),
            flying: BTreeMap::new(),
            keys: 0,
            sent: 0,
            attempts: Vec::new(),
            trace: Vec::new(),
        }
    }

    // ---- nodes ----

    /// Adds a node with an address of its own, and returns its number.
    pub(crate) fn add(&mut self, name: &str, ip: IpAddr) -> usize {
        let (name, ips) = (name.to_owned(), vec![ip]);
        let (port, ready) = (*OWN_PORTS.end(), VecDeque::new());
        self.hosts.push(Host { name, ips, port, ready });
        self.hosts.len() - 1
    }

    /// The address of the node of this name.
    pub(crate) fn address_of(&self, name: &str) -> Option<IpAddr> {
        self.hosts.iter().find(|host| host.name == name).map(|host| host.ips[0])
    }

    /// The number of streams that the node holds open: attempts and connections.
    pub(crate) fn streams(&self, node: usize) -> usize {
        self.ends.values().filter(|end| end.node == node && end.is_held).count()
    }

    pub(crate) fn has_events(&self, node: usize) -> bool {
        !self.hosts[node].ready.is_empty()
    }

    pub(crate) fn take_events(
        &mut self,
        node: usize,
        most: usize,
        into: &mut Vec<(Token, Readiness)>,
    ) {
        while into.len() < most
            && let Some(source) = self.hosts[node].ready.pop_front()
        {
            into.extend(match source {
                Source::Door(key) => {
                    let token = self.doors.get(&key).and_then(|door| door.token);
                    token.map(|token| (token, Readiness::READABLE))
                }
                Source::End(key) => self.ends.get_mut(&key).and_then(End::take_events),
            });
        }
    }

    /// What the test may look at: attempts to connect, and what has arrived.
    pub(crate) fn seen(&self) -> (&[(Duration, usize, Endpoint)], &[String]) {
        (&self.attempts, &self.trace)
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn key(&mut self) -> Key {
        self.keys += 1;
        self.keys
    }

    /// A port that no listener of the node has.
    fn own_port(&mut self, node: usize) -> u16 {
        loop {
            let last = self.hosts[node].port;
            let next = if last == *OWN_PORTS.end() { *OWN_PORTS.start() } else { last + 1 };
            self.hosts[node].port = next;
            let is_taken = |door: &Door| {
                door.node == node && door.addr.as_inet().is_some_and(|addr| addr.port() == next)
            };
            if !self.doors.values().any(is_taken) {
                return next;
            }
        }
    }

    // ---- listening ----

    /// Listens on an endpoint. With port 0 it chooses one.
    pub(crate) fn listen(&mut self, node: usize, addr: &Endpoint) -> io::Result<(Key, Endpoint)> {
        let mut addr = addr.clone();
        if let Endpoint::Inet(inet) = &mut addr {
            let ip = inet.ip();
            if !ip.is_loopback() && !ip.is_unspecified() {
                let mut others = self.hosts.iter().enumerate().filter(|(of, _)| *of != node);
                if others.any(|(_, host)| host.ips.contains(&ip)) {
                    return Err(ErrorKind::AddrNotAvailable.into());
                }
                if !self.hosts[node].ips.contains(&ip) {
                    self.hosts[node].ips.push(ip);
                }
            }
            if inet.port() == 0 {
                inet.set_port(self.own_port(node));
            }
        }
        if self.doors.values().any(|door| door.node == node && overlap(&door.addr, &addr)) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let key = self.key();
        let door = Door { node, addr: addr.clone(), waiting: VecDeque::new(), token: None };
        self.doors.insert(key, door);
        Ok((key, addr))
    }

    /// From now on the events of a listening port have this token. If clients wait, that is announced.
    pub(crate) fn watch_door(&mut self, door: Key, token: Token) {
        if let Some(entry) = self.doors.get_mut(&door) {
            entry.token = Some(token);
        }
        self.announce_door(door);
    }

    pub(crate) fn forget_door(&mut self, door: Key) {
        if let Some(entry) = self.doors.get_mut(&door) {
            entry.token = None;
        }
    }

    pub(crate) fn announce_door(&mut self, key: Key) {
        if let Some(door) = self.doors.get(&key)
            && door.token.is_some()
            && !door.waiting.is_empty()
        {
            self.hosts[door.node].ready.push_back(Source::Door(key));
        }
    }

    pub(crate) fn accept(&mut self, door: Key) -> io::Result<(Key, Endpoint)> {
        let door = self.doors.get_mut(&door);
        let key = door.and_then(|door| door.waiting.pop_front()).ok_or(ErrorKind::WouldBlock)?;
        let end = self.ends.get_mut(&key).ok_or(ErrorKind::ConnectionAborted)?;
        end.is_held = true;
        Ok((key, end.remote.clone()))
    }

    /// Closes a listening port. Clients that wait are reset.
    pub(crate) fn close_door(&mut self, door: Key) {
        let Some(door) = self.doors.remove(&door) else { return };
        for key in door.waiting {
            if let Some(end) = self.ends.get_mut(&key) {
                end.rude = true;
            }
            self.close(key);
        }
    }

    /// The listening port that a connection to `addr` reaches.
    fn door_of(&self, node: usize, addr: &Endpoint) -> Option<Key> {
        let of_it = |(_, door): &(&Key, &Door)| door.node == node && overlap(&door.addr, addr);
        self.doors.iter().find(of_it).map(|(key, _)| *key)
    }

    // ---- connecting ----

    /// The node that `addr` belongs to, as `node` sees it.
    fn host_of(&self, node: usize, addr: &Endpoint) -> Option<usize> {
        match addr.ip() {
            Some(ip) if !ip.is_loopback() && !ip.is_unspecified() => {
                self.hosts.iter().position(|host| host.ips.contains(&ip))
            }
            _ => Some(node),
        }
    }

    /// Begins to connect.
    pub(crate) fn connect(
        &mut self,
        node: usize,
        to: &Endpoint,
        source: Option<IpAddr>,
    ) -> io::Result<Key> {
        self.attempts.push((self.now, node, to.clone()));
        let target = self.host_of(node, to).ok_or(ErrorKind::HostUnreachable)?;
        let local = match to {
            Endpoint::Inet(addr) => {
                let near = if target == node { addr.ip() } else { self.hosts[node].ips[0] };
                Endpoint::from((source.unwrap_or(near), self.own_port(node)))
            }
            Endpoint::Unix(_) => Endpoint::Unix(UnixName::from_parts(None, None)),
        };
        let key = self.key();
        let (mine, theirs) = ((node, local.clone()), (target, to.clone()));
        // A kernel connects a socket to itself if it happens to choose the port that it connects
        // to.
        let is_itself = local == *to && to.as_inet().is_some();
        let (peer, stage) =
            if is_itself { (key, Stage::Open) } else { (self.key(), Stage::Asking) };
        let mut end = End::new(stage, mine, theirs, peer);
        end.is_held = true;
        end.cut_after = *self.path((node, target)).cut_after((target, node));
        self.ends.insert(key, end);
        if !is_itself {
            self.send(Parcel {
                from: key,
                to: peer,
                way: (node, target),
                what: What::Ask(to.clone()),
            });
        }
        Ok(key)
    }

    /// The endpoint of the peer of a connected end.
    pub(crate) fn peer_addr(&self, key: Key) -> io::Result<Endpoint> {
        match self.ends.get(&key) {
            Some(end) if end.stage != Stage::Asking => Ok(end.remote.clone()),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    // ---- streams ----

    pub(crate) fn watch(&mut self, key: Key, token: Token) {
        self.tell(key, |end| end.watch(token));
    }

    pub(crate) fn local_addr(&self, key: Key) -> io::Result<Endpoint> {
        let end = self.ends.get(&key).ok_or(ErrorKind::NotConnected)?;
        Ok(end.local.clone())
    }

    pub(crate) fn take_error(&mut self, key: Key) -> Option<ErrorKind> {
        self.ends.get_mut(&key)?.take_error()
    }

    pub(crate) fn is_readable(&self, key: Key) -> bool {
        self.ends.get(&key).is_none_or(End::is_readable)
    }

    pub(crate) fn peek(&self, key: Key, buf: &mut [u8]) -> io::Result<usize> {
        self.ends.get(&key).map_or(Ok(0), |end| end.peek(buf))
    }

    pub(crate) fn take(&mut self, key: Key, buf: &mut [u8]) -> io::Result<usize> {
        let end = self.ends.get_mut(&key).ok_or(ErrorKind::ConnectionReset)?;
        let count = end.take(buf)?;
        if count > 0 {
            self.send_from(key, What::Room(count));
        }
        Ok(count)
    }

    /// Takes as many bytes as there is room for. They may travel in two parts.
    pub(crate) fn put(&mut self, key: Key, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let end = self.ends.get(&key).ok_or(ErrorKind::BrokenPipe)?;
        let buffer = self.paths.get(&pair((end.node, end.peer_node))).map_or(0, |path| path.buffer);
        let end = self.ends.get_mut(&key).ok_or(ErrorKind::BrokenPipe)?;
        let len = pieces.iter().map(|piece| piece.len()).sum();
        let count = end.make_room(len, buffer)?;
        let mut bytes = Vec::with_capacity(count);
        for piece in pieces {
            bytes.extend_from_slice(&piece[..piece.len().min(count - bytes.len())]);
        }
        let at = self.random.up_to(count as u64);
        let rest = bytes.split_off(usize::try_from(at).unwrap_or(count));
        for part in [bytes, rest].into_iter().filter(|part| !part.is_empty()) {
            self.send_from(key, What::Bytes(part));
        }
        Ok(count)
    }

    pub(crate) fn finish(&mut self, key: Key) -> io::Result<()> {
        match self.ends.get_mut(&key) {
            Some(end) if end.stage == Stage::Open => {
                if !std::mem::replace(&mut end.finished, true) {
                    self.send_from(key, What::End);
                }
                Ok(())
            }
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    pub(crate) fn reset_on_close(&mut self, key: Key) {
        if let Some(end) = self.ends.get_mut(&key) {
            end.rude = true;
        }
    }

    /// Its process has closed it.
    pub(crate) fn close(&mut self, key: Key) {
        let Some(end) = self.ends.get(&key) else { return };
        let what = match end.stage {
            Stage::Open if end.closes_rudely() => Some(What::Reset),
            Stage::Open if !end.finished => Some(What::End),
            Stage::Answering(_) => Some(What::Reset),
            Stage::Open | Stage::Asking | Stage::Dead => None,
        };
        if let Some(what) = what {
            self.send_from(key, what);
        }
        self.ends.remove(&key);
    }
}

/// Whether a listener on one endpoint takes what is for the other.
fn overlap(one: &Endpoint, other: &Endpoint) -> bool {
    match (one.as_inet(), other.as_inet()) {
        (Some(one), Some(other)) => {
            let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() == other.port() && (is_any || one.ip() == other.ip())
        }
        _ => one == other,
    }
}

/// The own address of the node with this number: 10.0.0.1, 10.0.0.2, and so on.
pub(crate) fn address(node: usize) -> IpAddr {
    let [a, b, c, d] = u32::try_from(node + 1).unwrap_or(u32::MAX).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10_u8.wrapping_add(a), b, c, d))
}
