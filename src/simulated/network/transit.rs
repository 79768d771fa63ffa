//! What happens on the way between two ends: parcels leave and arrive, and links fail.

use std::io::ErrorKind;
use std::time::Duration;

use super::{Network, Source};
use crate::endpoint::Endpoint;
use crate::simulated::end::{Cut, End, Key, Stage};
use crate::simulated::path::{Parcel, Path, What, pair};

impl Network {
    /// The link between two nodes.
    pub(super) fn path(&mut self, way: (usize, usize)) -> &mut Path {
        self.paths.entry(pair(way)).or_insert_with(Path::new)
    }

    /// Changes an end, and queues it if the change is an event.
    pub(super) fn tell(&mut self, key: Key, change: impl FnOnce(&mut End) -> bool) {
        if let Some(end) = self.ends.get_mut(&key)
            && change(end)
        {
            self.hosts[end.node].ready.push_back(Source::End(key));
        }
    }

    /// Sends something to the peer of an end, unless it was cut in silence.
    pub(super) fn send_from(&mut self, from: Key, what: What) {
        if let Some(end) = self.ends.get(&from).filter(|end| !end.lost) {
            let (to, way) = (end.peer, (end.node, end.peer_node));
            self.send(Parcel { from, to, way, what });
        }
    }

    pub(super) fn send(&mut self, parcel: Parcel) {
        let (now, way) = (self.now, parcel.way);
        let path = self.path(way);
        if path.is_silent {
            return path.held.push(parcel);
        }
        let at = path.arrival(now, way);
        self.sent += 1;
        self.flying.insert((at, self.sent), parcel);
    }

    // ---- time ----

    /// When the next parcel arrives.
    pub(crate) fn next_arrival(&self) -> Option<Duration> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn set_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// Delivers the next parcel, if it has arrived by now.
    pub(crate) fn deliver(&mut self) -> bool {
        if self.next_arrival().is_none_or(|at| at > self.now) {
            return false;
        }
        if let Some((_, parcel)) = self.flying.pop_first() {
            self.note(&parcel);
            self.arrives(parcel);
        }
        true
    }

    fn note(&mut self, Parcel { way, what, .. }: &Parcel) {
        let what = match what {
            What::Ask(to) => format!("asks for {to}"),
            What::Answer => "accepts".to_owned(),
            What::Confirm | What::Room(_) => return,
            What::Refuse => "refuses".to_owned(),
            What::Bytes(bytes) => format!("sends {} bytes", bytes.len()),
            What::End => "ends".to_owned(),
            What::Reset => "resets".to_owned(),
        };
        let (from, to) = (&self.hosts[way.0].name, &self.hosts[way.1].name);
        self.trace.push(format!("{:?}: {from} to {to}: {what}", self.now));
    }

    fn arrives(&mut self, Parcel { from, to, way, what }: Parcel) {
        let back = |what| Parcel { from: to, to: from, way: (way.1, way.0), what };
        if let What::Ask(addr) = what {
            let answer = self.is_asked(from, to, way, addr);
            return answer.into_iter().for_each(|answer| self.send(back(answer)));
        }
        let Some(end) = self.ends.get(&to) else {
            // As a kernel that does not know the stream.
            if matches!(what, What::Bytes(_) | What::Answer) {
                self.send(back(What::Reset));
            }
            return;
        };
        match (what, end.stage) {
            _ if end.lost => {}
            (What::Answer, Stage::Asking) => {
                self.tell(to, End::answer_arrives);
                self.send(back(What::Confirm));
            }
            (What::Confirm, Stage::Answering(door)) => self.enters(to, door),
            (What::Refuse, Stage::Asking) => {
                self.tell(to, |end| end.fail(ErrorKind::ConnectionRefused));
            }
            (What::Bytes(bytes), Stage::Open) => self.bytes_arrive(to, &bytes),
            (What::Room(bytes), Stage::Open) => {
                let buffer = self.path(way).buffer;
                self.tell(to, |end| end.room_arrives(bytes, buffer));
            }
            (What::End, Stage::Open) => self.tell(to, End::end_arrives),
            (What::Reset, _) => self.is_reset(to),
            _ => {}
        }
    }

    /// An end asks for a connection. Returns the answer: none if it asks no more.
    fn is_asked(
        &mut self,
        from: Key,
        to: Key,
        way: (usize, usize),
        addr: Endpoint,
    ) -> Option<What> {
        let asking = self.ends.get(&from).filter(|end| !end.lost)?;
        let theirs = (way.0, asking.local.clone());
        match self.door_of(way.1, &addr) {
            Some(door) if !self.path(way).refuses => {
                let mut end = End::new(Stage::Answering(door), (way.1, addr), theirs, from);
                end.cut_after = *self.path(way).cut_after(way);
                self.ends.insert(to, end);
                Some(What::Answer)
            }
            _ => Some(What::Refuse),
        }
    }

    /// A connection is complete, and waits to be accepted.
    fn enters(&mut self, key: Key, door: Key) {
        let Some(entry) = self.doors.get_mut(&door) else {
            // The listening port was closed meanwhile.
            return self.close(key);
        };
        entry.waiting.push_back(key);
        if let Some(end) = self.ends.get_mut(&key) {
            end.stage = Stage::Open;
        }
        self.announce_door(door);
    }

    fn bytes_arrive(&mut self, key: Key, bytes: &[u8]) {
        let Some(end) = self.ends.get_mut(&key) else { return };
        let cut = match &mut end.cut_after {
            Some((left, how)) if *left <= bytes.len() => Some((*left, *how)),
            Some((left, _)) => {
                *left -= bytes.len();
                None
            }
            None => None,
        };
        let passed = cut.map_or(bytes.len(), |(left, _)| left);
        if passed > 0 {
            self.tell(key, |end| end.bytes_arrive(&bytes[..passed]));
        }
        if let Some((_, how)) = cut {
            self.cut_stream(key, how);
        }
    }

    fn is_reset(&mut self, key: Key) {
        match self.ends.get(&key).map(|end| end.stage) {
            Some(Stage::Answering(_)) => drop(self.ends.remove(&key)),
            Some(Stage::Dead) | None => {}
            Some(_) => self.tell(key, |end| end.fail(ErrorKind::ConnectionReset)),
        }
    }

    // ---- faults ----

    /// Changes a link.
    pub(crate) fn change(
        &mut self,
        way: (usize, usize),
        latency: Option<Duration>,
        buffer: Option<usize>,
    ) {
        let path = self.path(way);
        path.latency = latency.unwrap_or(path.latency);
        path.buffer = buffer.unwrap_or(path.buffer);
    }

    /// From now on connections are refused.
    pub(crate) fn refuse(&mut self, way: (usize, usize)) {
        self.path(way).refuses = true;
    }

    /// From now on nothing passes, also nothing that is under way.
    pub(crate) fn silence(&mut self, way: (usize, usize)) {
        self.path(way).is_silent = true;
        let flying = std::mem::take(&mut self.flying);
        for (at, parcel) in flying {
            if pair(parcel.way) == pair(way) {
                self.path(way).held.push(parcel);
            } else {
                self.flying.insert(at, parcel);
            }
        }
    }

    /// Ends all faults of a link. What was held back is sent now.
    pub(crate) fn heal(&mut self, way: (usize, usize)) {
        for end in self.ends.values_mut().filter(|end| is_on(end, way)) {
            end.cut_after = None;
        }
        for parcel in self.path(way).heal() {
            self.send(parcel);
        }
    }

    /// Cuts all streams of a link.
    pub(crate) fn cut(&mut self, way: (usize, usize), how: Cut) {
        let ends = self.ends.iter().filter(|(_, end)| is_on(end, way));
        for key in ends.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.cut_stream(key, how);
        }
    }

    /// Cuts each stream of a link, once so many more bytes have arrived at the second node.
    pub(crate) fn cut_after(&mut self, way: (usize, usize), cut: (usize, Cut)) {
        *self.path(way).cut_after(way) = Some(cut);
        for end in self.ends.values_mut() {
            if (end.peer_node, end.node) == way {
                end.cut_after = Some(cut);
            }
        }
    }

    fn cut_stream(&mut self, key: Key, how: Cut) {
        let Some(end) = self.ends.get(&key) else { return };
        let (peer, way) = (end.peer, (end.node, end.peer_node));
        let is_its = |parcel: &Parcel| [parcel.from, parcel.to].contains(&key);
        self.flying.retain(|_, parcel| !is_its(parcel));
        self.path(way).held.retain(|parcel| !is_its(parcel));
        for key in [key, peer] {
            match how {
                Cut::Reset => self.is_reset(key),
                Cut::Silence => {
                    if let Some(end) = self.ends.get_mut(&key) {
                        end.lost = true;
                    }
                }
            }
        }
    }
}

fn is_on(end: &End, way: (usize, usize)) -> bool {
    pair((end.node, end.peer_node)) == pair(way)
}
