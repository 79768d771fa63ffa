//! Pairs of connections ([`Context::pair`](crate::Context::pair)): who is the partner of which
//! connection, and what one end has for the other.
//!
//! ```text
//!   one end                                                      the other end
//!   a packet to forward, the end of its input,  ──► steps ──►    a phase of the turn
//!   output over the high-water mark, its end        in order     carries them out
//! ```
//!
//! A callback borrows its own listener, so it cannot reach its partner. It leaves a *step*. The reactor
//! carries the steps out in the same turn, in their order, once the callbacks are done. The bytes of
//! forwarded packets are all in one buffer, so a packet takes no memory of its own.
//!
//! Each end is named by the [token](crate::token) of its connection.

use std::collections::BTreeMap;

use mio::Token;

use crate::error::PairError;
use crate::reason::CloseReason;
use crate::token::{self, Target};

/// In bytes. Once so much is to be forwarded, it is forwarded before more packets are delivered.
const FULL: usize = 256 * 1024;
/// The same for the number of steps: packets may be empty.
const MANY: usize = 8 * 1024;

/// What one end has for its partner.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The next `len` of the forwarded bytes are a packet.
    Forward { len: usize },
    /// It is the partner of this one from now on.
    Paired { with: Token },
    /// Its output is over the high-water mark: the partner is not to be read.
    Full,
    /// Its output is down at the low-water mark, or it is up.
    Ready,
    /// Its input has ended, and all of it is forwarded.
    EndOfInput,
    /// The kernel has taken output of it, after the partner's end of input.
    Progress,
    /// It has ended. `None`: it was not up, or did not know of its partner yet. `finished`: its input
    /// had ended, and nothing failed.
    Ended { reason: Option<CloseReason>, finished: bool },
}

/// Something to do for the connection `to`.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    to: Token,
    what: What,
}

/// Steps in their order, and the bytes of the packets among them.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    list: Vec<Step>,
    bytes: Vec<u8>,
}

/// Consecutive steps for one connection.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Run<'a> {
    pub(crate) to: Token,
    steps: &'a [Step],
    bytes: &'a [u8],
}

impl Steps {
    /// The steps, divided into runs for one connection each.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let mut rest = &self.bytes[..];
        self.list.chunk_by(|one, next| one.to == next.to).map(move |steps| {
            let len = steps.iter().map(Step::len).sum();
            let (bytes, later) = rest.split_at(len);
            rest = later;
            Run { to: steps[0].to, steps, bytes }
        })
    }

    fn append(&mut self, run: Run<'_>) {
        self.list.extend(run.steps);
        self.bytes.extend(run.bytes);
    }

    /// Bytes of memory.
    fn memory(&self) -> usize {
        self.bytes.capacity() + self.list.capacity() * size_of::<Step>()
    }

    /// All steps as one run: they are for one connection.
    pub(crate) fn run(&self, to: Token) -> Run<'_> {
        Run { to, steps: &self.list, bytes: &self.bytes }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.list.shrink_to(MANY);
        self.bytes.shrink_to(2 * FULL);
    }
}

impl Step {
    /// The number of forwarded bytes that belong to it.
    fn len(&self) -> usize {
        if let What::Forward { len } = self.what { len } else { 0 }
    }
}

impl<'a> Run<'a> {
    /// The packet of the next step, if it forwards one.
    #[inline]
    pub(crate) fn packet(&self) -> Option<&'a [u8]> {
        match self.steps.first()?.what {
            What::Forward { len } => Some(&self.bytes[..len]),
            _ => None,
        }
    }

    /// Whether the next step forwards a packet.
    pub(crate) fn is_packet(&self) -> bool {
        self.packet().is_some()
    }

    /// Skips all steps up to the next one that forwards no packet.
    pub(crate) fn skip_packets(&mut self) {
        while self.is_packet() {
            self.next();
        }
    }
}

impl Iterator for Run<'_> {
    type Item = What;

    #[inline]
    fn next(&mut self) -> Option<What> {
        let (step, later) = self.steps.split_first()?;
        self.steps = later;
        self.bytes = &self.bytes[step.len()..];
        Some(step.what)
    }
}

/// The partner of the connection with this generation.
#[derive(Debug, Copy, Clone)]
struct Entry {
    generation: u32,
    partner: Partner,
}

impl Entry {
    const VACANT: Self = Self { generation: 0, partner: Partner::NONE };

    fn is_vacant(self) -> bool {
        self.partner == Partner::NONE
    }
}

/// A [`Token`] in words of 32 bits, so that an entry takes no padding.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
struct Partner(u32, u32);

impl Partner {
    /// The waker's token, and one of the acceptors': no connection has them.
    const NONE: Self = Self(u32::MAX, u32::MAX);
    /// The partner has ended, and the connection was not told yet. Until then it finds no other.
    const ENDED: Self = Self(0, u32::MAX);
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    /// The slot of each listener and connector, by its serial.
    parts: Vec<(u64, u16)>,
    /// By slot of the listener, and by key.
    entries: Vec<Vec<Entry>>,
    /// How many connections have a partner.
    paired: usize,
    steps: Steps,
    /// The memory for the next steps.
    unused: Steps,
    /// Steps for connections that are being dialled.
    early: BTreeMap<Token, Steps>,
}

impl Pairs {
    /// From now on connections of this listener can be paired.
    pub(crate) fn open(&mut self, serial: u64, slot: u16) {
        self.parts.push((serial, slot));
    }

    /// The listener has ended. What was left for its connections is for nothing that comes later.
    pub(crate) fn close(&mut self, serial: u64) {
        let Some(slot) = self.slot_of(serial) else { return };
        self.parts.retain(|(known, _)| *known != serial);
        let steps = self.take_steps();
        for run in steps.runs() {
            if parts_of(run.to).0 == usize::from(slot) {
                self.break_off(run);
            } else {
                self.steps.append(run);
            }
        }
        self.give_back(steps);
        if let Some(entries) = self.entries.get_mut(usize::from(slot)) {
            // Only addresses that were out of date can have left any.
            self.paired -= entries.iter().filter(|entry| !entry.is_vacant()).count();
            *entries = Vec::new();
        }
    }

    /// The slot of the listener with this serial, if it runs on this reactor.
    pub(crate) fn slot_of(&self, serial: u64) -> Option<u16> {
        self.parts.iter().find(|(known, _)| *known == serial).map(|(_, slot)| *slot)
    }

    /// Makes two connections a pair. `with` is told in the phase that carries steps out.
    pub(crate) fn join(&mut self, me: Token, with: Token) -> Result<(), PairError> {
        if self.entry(me).is_some() || self.entry(with).is_some() {
            return Err(PairError::Paired);
        }
        self.set(me, with.into());
        let (listener, key, generation) = parts_of(with);
        let of_slot = self.entries.get(listener).and_then(|entries| entries.get(key));
        let is_old = of_slot.is_some_and(|entry| {
            !entry.is_vacant() && generation.wrapping_sub(entry.generation) > u32::MAX / 2
        });
        // The next owner of the slot has a partner: `me` is told that there is no such connection.
        if !is_old {
            self.set(with, me.into());
        }
        self.push(with, What::Paired { with: me });
        Ok(())
    }

    /// The partner of a connection. `None` if it has ended.
    #[inline]
    pub(crate) fn partner(&self, me: Token) -> Option<Token> {
        let partner = self.entry(me)?.partner;
        (partner != Partner::ENDED).then(|| partner.into())
    }

    #[inline]
    fn entry(&self, me: Token) -> Option<Entry> {
        let (listener, key, generation) = parts_of(me);
        let entry = *self.entries.get(listener)?.get(key)?;
        (entry.generation == generation && !entry.is_vacant()).then_some(entry)
    }

    fn set(&mut self, me: Token, partner: Partner) {
        /// So many entries more than needed are made at once, and one eighth of those there are.
        const MORE: usize = 16;
        let (listener, key, generation) = parts_of(me);
        if self.entries.len() <= listener {
            self.entries.resize_with(listener + 1, Vec::new);
        }
        let entries = &mut self.entries[listener];
        if entries.len() <= key {
            if entries.capacity() <= key {
                entries.reserve_exact(key + MORE + key / 8 - entries.len());
            }
            entries.resize(key + 1, Entry::VACANT);
        }
        // The entry of an address that was out of date may be there. Its partner is told.
        self.paired += usize::from(entries[key].is_vacant());
        entries[key] = Entry { generation, partner };
    }

    /// Removes the entry of a connection. Returns its partner.
    fn take(&mut self, me: Token) -> Option<Token> {
        let entry = self.entry(me)?;
        let (listener, key, _) = parts_of(me);
        self.entries[listener][key] = Entry::VACANT;
        self.paired -= 1;
        (entry.partner != Partner::ENDED).then(|| entry.partner.into())
    }

    /// A connection has ended: tells its partner, if it has one.
    pub(crate) fn leave(&mut self, me: Token, reason: Option<CloseReason>, finished: bool) {
        if let Some(partner) = self.take(me) {
            if self.partner(partner) == Some(me) {
                self.set(partner, Partner::ENDED);
            }
            self.push(partner, What::Ended { reason, finished });
        }
        if !self.early.is_empty() {
            self.early.remove(&me);
        }
    }

    /// A connection was told that its partner has ended. It may find another one.
    pub(crate) fn end_was_told(&mut self, me: Token) {
        if self.partner(me).is_none() {
            self.take(me);
        }
    }

    /// These steps are for a connection that has ended before it knew of its partner.
    pub(crate) fn break_off(&mut self, run: Run<'_>) {
        for what in run {
            if let What::Paired { with } = what
                && self.partner(with) == Some(run.to)
            {
                if self.partner(run.to) == Some(with) {
                    self.take(run.to);
                }
                self.set(with, Partner::ENDED);
                self.push(with, What::Ended { reason: None, finished: false });
            }
        }
    }

    /// Leaves a step for the partner of `me`, if it has one.
    pub(crate) fn tell_partner(&mut self, me: Token, what: What) {
        if let Some(partner) = self.partner(me) {
            self.push(partner, what);
        }
    }

    pub(crate) fn push(&mut self, to: Token, what: What) {
        self.steps.list.push(Step { to, what });
    }

    /// Leaves a packet for a connection.
    #[inline]
    pub(crate) fn forward(&mut self, to: Token, packet: &[u8]) {
        self.steps.bytes.extend_from_slice(packet);
        self.push(to, What::Forward { len: packet.len() });
    }

    /// Whether no connection has a partner.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.paired == 0
    }

    /// Connections that have a partner.
    pub(crate) fn len(&self) -> usize {
        self.paired
    }

    /// Whether so much is to be forwarded that this comes first.
    pub(crate) fn is_full(&self) -> bool {
        self.steps.bytes.len() >= FULL || self.steps.list.len() >= MANY
    }

    /// Whether no step is left to carry out.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.steps.list.is_empty()
    }

    /// Takes the steps, to carry them out.
    pub(crate) fn take_steps(&mut self) -> Steps {
        let unused = std::mem::take(&mut self.unused);
        std::mem::replace(&mut self.steps, unused)
    }

    /// Gives back the memory of steps that were carried out.
    pub(crate) fn give_back(&mut self, mut steps: Steps) {
        steps.clear();
        self.unused = steps;
    }

    /// Keeps steps for a connection that is being dialled, with at most `max` bytes of packets. If there
    /// are more, the pair ends.
    pub(crate) fn keep(&mut self, run: Run<'_>, max: usize) {
        let early = self.early.entry(run.to).or_default();
        early.append(run);
        // A step counts more than any header that a framing may add.
        if early.bytes.len() + early.list.len() * size_of::<Step>() > max {
            self.leave(run.to, Some(CloseReason::SlowReader), false);
            self.set(run.to, Partner::ENDED);
            let ended = Step { to: run.to, what: What::Ended { reason: None, finished: false } };
            self.early.insert(run.to, Steps { list: vec![ended], bytes: Vec::new() });
        }
    }

    /// A dialled connection is up: the steps that were kept for it.
    #[inline]
    pub(crate) fn take_early(&mut self, me: Token) -> Option<Steps> {
        if self.early.is_empty() { None } else { self.early.remove(&me) }
    }

    /// Bytes of memory that a [`trim`](Self::trim) frees.
    pub(crate) fn spare(&self) -> usize {
        if self.paired > 0 { 0 } else { self.unused.memory() + self.steps.memory() + self.table() }
    }

    /// Frees the memory of pairs, if there are none.
    pub(crate) fn trim(&mut self) {
        if self.paired == 0 {
            (self.entries, self.unused) = (Vec::new(), Steps::default());
            self.steps.list.shrink_to_fit();
            self.steps.bytes.shrink_to_fit();
        }
    }

    /// Bytes of memory of the table of partners.
    fn table(&self) -> usize {
        self.entries.iter().map(|entries| entries.capacity() * size_of::<Entry>()).sum()
    }
}

fn parts_of(end: Token) -> (usize, usize, u32) {
    match token::target(end) {
        Target::Peer { listener, key, generation } => (listener.into(), key as usize, generation),
        // No connection has such a token.
        Target::Waker | Target::Acceptor { .. } | Target::Opening { .. } => {
            (usize::MAX, usize::MAX, 0)
        }
    }
}

impl From<Token> for Partner {
    #[expect(clippy::cast_possible_truncation, reason = "it splits a word into its halves")]
    fn from(token: Token) -> Self {
        Self((token.0 >> u32::BITS) as u32, token.0 as u32)
    }
}

impl From<Partner> for Token {
    fn from(Partner(high, low): Partner) -> Self {
        Self((high as usize) << u32::BITS | low as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(listener: u16, key: u32, generation: u32) -> Token {
        token::peer(listener, key, generation)
    }

    /// All steps, as pairs of a connection and what is left for it. The packets are in the second part.
    fn taken(pairs: &mut Pairs) -> (Vec<(Token, What)>, Vec<Vec<u8>>) {
        let steps = pairs.take_steps();
        let (mut whats, mut packets) = (Vec::new(), Vec::new());
        for mut run in steps.runs() {
            while let Some(packet) = run.packet().map(<[u8]>::to_vec).or(Some(Vec::new())) {
                let is_packet = run.is_packet();
                let Some(what) = run.next() else { break };
                whats.push((run.to, what));
                if is_packet {
                    packets.push(packet);
                }
            }
        }
        pairs.give_back(steps);
        (whats, packets)
    }

    /// Goal: steps keep their order and their bytes, and those for one connection in a row are one run.
    #[test]
    fn steps_keep_their_order_and_their_bytes() {
        let (a, b, mut pairs) = (end(0, 1, 7), end(3, 9, 0), Pairs::default());
        assert!(pairs.is_quiet());
        pairs.forward(b, b"one");
        pairs.forward(b, b"");
        pairs.push(b, What::EndOfInput);
        pairs.forward(a, b"two");
        pairs.forward(b, b"three");
        assert_eq!(pairs.steps.runs().map(|run| run.to).collect::<Vec<_>>(), [b, a, b]);
        let (whats, packets) = taken(&mut pairs);
        assert_eq!(packets, [&b"one"[..], b"", b"two", b"three"]);
        assert_eq!(whats[2], (b, What::EndOfInput));
        assert!(pairs.is_quiet());
    }

    /// Goal: partners are each other's, for their generations only, and a connection has one partner.
    #[test]
    fn partners_are_each_others() {
        let (a, b, c, mut pairs) = (end(0, 1, 7), end(3, 900, 0), end(0, 2, 7), Pairs::default());
        assert_eq!(pairs.join(a, b), Ok(()));
        assert_eq!((pairs.partner(a), pairs.partner(b)), (Some(b), Some(a)));
        assert_eq!((pairs.partner(end(0, 1, 8)), pairs.partner(c)), (None, None));
        for (one, other) in [(a, c), (c, a), (c, b), (b, c), (a, b)] {
            assert_eq!(pairs.join(one, other), Err(PairError::Paired));
        }
        assert_eq!((pairs.len(), pairs.partner(c)), (2, None));
        pairs.leave(b, Some(CloseReason::Reset), false);
        assert_eq!((pairs.len(), pairs.partner(a), pairs.partner(b)), (1, None, None));
        let told = What::Ended { reason: Some(CloseReason::Reset), finished: false };
        assert_eq!(taken(&mut pairs).0, [(b, What::Paired { with: a }), (a, told)]);
        for (one, other) in [(a, c), (c, a)] {
            assert_eq!(pairs.join(one, other), Err(PairError::Paired), "it was not told yet");
        }
        pairs.end_was_told(a);
        assert_eq!(pairs.join(a, c), Ok(()));
        pairs.end_was_told(a);
        assert_eq!((pairs.partner(a), pairs.len()), (Some(c), 2));
        pairs.leave(c, None, false);
        pairs.leave(a, None, false);
        assert_eq!((taken(&mut pairs).0.len(), pairs.len()), (2, 0), "its partner has left before");
    }

    /// Goal: an address that is out of date changes nothing for the next owner of its slot, whichever of
    /// the two comes first.
    #[test]
    fn an_old_address_leaves_the_next_owner_alone() {
        let (old, new) = (end(0, 1, u32::MAX), end(0, 1, 0));
        let (x, d, mut pairs) = (end(1, 1, 0), end(1, 2, 0), Pairs::default());
        assert_eq!((pairs.join(new, d), pairs.join(x, old)), (Ok(()), Ok(())));
        assert_eq!((pairs.partner(new), pairs.partner(d)), (Some(d), Some(new)));
        let steps = pairs.take_steps();
        steps.runs().filter(|run| run.to == old).for_each(|run| pairs.break_off(run));
        pairs.give_back(steps);
        assert_eq!((pairs.partner(new), pairs.partner(x)), (Some(d), None));
        assert_eq!(taken(&mut pairs).0, [(x, What::Ended { reason: None, finished: false })]);
        pairs.end_was_told(x);
        assert_eq!(pairs.len(), 2);
    }

    /// Goal: what was left for the connections of a listener that has ended reaches nothing, and who waits
    /// for one of them is told.
    #[test]
    fn steps_for_a_listener_that_has_ended_go_with_it() {
        let (a, b, c, mut pairs) = (end(0, 1, 0), end(1, 1, 0), end(1, 2, 0), Pairs::default());
        pairs.open(70, 0);
        pairs.open(71, 1);
        assert_eq!((pairs.slot_of(71), pairs.slot_of(72)), (Some(1), None));
        assert_eq!(pairs.join(a, b), Ok(()));
        pairs.forward(c, b"gone");
        pairs.forward(end(0, 5, 0), b"stays");
        pairs.close(71);
        let (whats, packets) = taken(&mut pairs);
        let ended = What::Ended { reason: None, finished: false };
        assert_eq!(whats, [(a, ended), (end(0, 5, 0), What::Forward { len: 5 })]);
        assert_eq!((packets, pairs.slot_of(71)), (vec![b"stays".to_vec()], None));
        pairs.end_was_told(a);
        assert_eq!(pairs.len(), 0);
    }

    /// Goal: the memory of pairs and of what they forwarded goes back once there are none.
    #[test]
    fn the_memory_of_pairs_goes_back() {
        let mut pairs = Pairs::default();
        for key in 0..10_000 {
            assert_eq!(pairs.join(end(0, key, 0), end(1, key, 0)), Ok(()));
        }
        pairs.forward(end(0, 0, 0), &vec![7; 4 << 20]);
        assert!(pairs.is_full());
        taken(&mut pairs);
        let kept = pairs.unused.bytes.capacity() + pairs.unused.list.capacity();
        assert!(kept <= 2 * FULL + MANY, "{kept}");
        assert_eq!(pairs.spare(), 0, "it is needed");
        for key in 0..10_000 {
            pairs.leave(end(0, key, 0), None, false);
            pairs.end_was_told(end(1, key, 0));
        }
        taken(&mut pairs);
        assert!(pairs.spare() > 200_000, "{}", pairs.spare());
        pairs.trim();
        assert_eq!((pairs.spare(), pairs.len()), (0, 0));
    }
}
