//! The zone: the records of one zone file, and the search for the answer to a question.
//!
//! [`Zone::find`] is the algorithm of RFC 1034 §4.3.2 with the wildcards of RFC 4592. It goes from
//! the apex down towards the name, until it finds a delegation, the name itself, or nothing. The
//! keys of the map are names in wire format and lower case, so one hash of a slice shows whether a
//! name exists.
//!
//! The `domain` crate reads the file and knows the record types. This module treats only those types
//! specially that change the search: CNAME, NS, DS and SOA.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::name::FlattenInto;
use domain::base::{Record, Ttl};
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{self, Zonefile};

use crate::entries::{Entries, Unbalanced};

pub(crate) type Name = domain::base::Name<Bytes>;
pub(crate) type Data = ZoneRecordData<Bytes, Name>;

/// A map with names in wire format as its keys.
pub(crate) type ByName<T> = HashMap<Box<[u8]>, T, BuildHasherDefault<NameHasher>>;

/// The longest chain of aliases that is followed for one question.
const CHAIN_MAX: usize = 32;

/// Why a zone file cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ZoneError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {error}", .path.display())]
    At { path: PathBuf, line: usize, error: Box<Self> },
    #[error("{0}")]
    Syntax(String),
    #[error(transparent)]
    Unbalanced(#[from] Unbalanced),
    #[error("$INCLUDE {0}: not supported, put the records into one file")]
    Include(String),
    #[error("{0}: DNAME is not supported")]
    Dname(Name),
    #[error("{}: a zone needs one SOA record, this file has {found}", .path.display())]
    Soa { path: PathBuf, found: usize },
    #[error("{0} is not in the zone {1}")]
    Outside(Name, Name),
    #[error("{0}: a CNAME allows no other records beside it")]
    CnameAndOther(Name),
    #[error("{0}: a delegation cannot be a wildcard")]
    WildcardCut(Name),
    #[error("{0} {1}: the answer would not fit into a message")]
    TooLong(Name, Rtype),
}

/// All records of one name and type.
#[derive(Debug)]
pub(crate) struct RecordSet {
    pub(crate) owner: Name,
    pub(crate) rtype: Rtype,
    pub(crate) ttl: Ttl,
    pub(crate) data: Vec<Data>,
}

impl RecordSet {
    /// The names that these records point to. A client asks for their addresses next.
    fn targets(&self) -> impl Iterator<Item = &Name> {
        self.data.iter().filter_map(|data| match data {
            Data::Ns(ns) => Some(ns.nsdname()),
            Data::Mx(mx) => Some(mx.exchange()),
            Data::Srv(srv) => Some(srv.target()),
            _ => None,
        })
    }

    fn alias(&self) -> Option<&Name> {
        match self.data.first() {
            Some(Data::Cname(cname)) => Some(cname.cname()),
            _ => None,
        }
    }
}

/// The records of one name. A name that only has names below it has no records.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Sorted by type number. The first one is the answer to ANY (RFC 8482).
    pub(crate) sets: Vec<RecordSet>,
    /// The name is delegated to other servers. (The RFCs call this a zone cut.)
    cut: bool,
    /// The name is below a cut. This zone uses its records only as glue.
    occluded: bool,
}

impl Node {
    pub(crate) fn set(&self, rtype: Rtype) -> Option<&RecordSet> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }

    /// Whether the answer depends only on the records of this node: it is no delegation, not below
    /// one, and no alias.
    pub(crate) fn is_plain(&self) -> bool {
        !self.cut && !self.occluded && self.set(Rtype::CNAME).is_none()
    }
}

/// One zone, loaded and checked.
#[derive(Debug)]
pub(crate) struct Zone {
    /// In wire format and lower case.
    apex: Vec<u8>,
    nodes: ByName<Node>,
    /// The SOA record for negative answers, with their time to live (RFC 2308 §3).
    negative: RecordSet,
}

/// Where the search for a name ended.
enum Found<'z> {
    /// At the name, or at the wildcard that stands for it.
    Node(&'z Node),
    /// At a delegation. The record set has its name servers.
    Cut(&'z RecordSet),
    /// The name does not exist in this zone.
    Nothing,
    /// The name is not in this zone.
    Outside,
}

/// The contents of an answer before it becomes a message: owners and record sets for each section.
#[derive(Debug)]
pub(crate) struct Finding<'z> {
    pub(crate) rcode: Rcode,
    pub(crate) authoritative: bool,
    pub(crate) answer: Vec<(Name, &'z RecordSet)>,
    pub(crate) authority: Option<&'z RecordSet>,
    pub(crate) additional: Vec<&'z RecordSet>,
}

impl Zone {
    pub(crate) fn load(path: &Path) -> Result<Self, ZoneError> {
        let read = |source| ZoneError::Read { path: path.into(), source };
        Self::parse(&fs::read(path).map_err(read)?, path)
    }

    /// Reads a zone from the text of its file. `path` is only for error messages.
    pub(crate) fn parse(text: &[u8], path: &Path) -> Result<Self, ZoneError> {
        let at =
            |line| move |error| ZoneError::At { path: path.into(), line, error: Box::new(error) };
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        // The capacity is enough for the whole text, so the buffer does not grow while entries are
        // added.
        let mut file = Zonefile::with_capacity(text.len() + 1);
        file.set_default_class(Class::IN); // any other class is a syntax error
        let mut records = Vec::new();
        // The parser gets whole entries, because it panics at the end of half an entry. It also
        // does not report the line on which an entry begins.
        for (line, entry) in Entries::new(text) {
            let entry = entry.map_err(|unbalanced| at(line)(unbalanced.into()))?;
            file.extend_from_slice(entry);
            if !entry.ends_with(b"\n") {
                file.extend_from_slice(b"\n");
            }
            let syntax = |error: inplace::Error| {
                let (line, what) = place(&error.to_string(), line, entry);
                at(line)(ZoneError::Syntax(what))
            };
            while let Some(parsed) = file.next_entry().map_err(syntax)? {
                match parsed {
                    inplace::Entry::Record(record) => records.push((line, record.flatten_into())),
                    inplace::Entry::Include { path: other, .. } => {
                        return Err(at(line)(ZoneError::Include(other.to_string())));
                    }
                }
            }
        }
        let soas: Vec<_> =
            records.iter().filter(|(_, record)| record.rtype() == Rtype::SOA).collect();
        let [(_, soa)] = soas[..] else {
            return Err(ZoneError::Soa { path: path.into(), found: soas.len() });
        };
        let (origin, data) = (soa.owner().clone(), soa.data().clone());
        let minimum = match &data {
            Data::Soa(soa) => soa.minimum(),
            _ => soa.ttl(),
        };
        let negative = RecordSet {
            owner: origin.clone(),
            rtype: Rtype::SOA,
            ttl: soa.ttl().min(minimum),
            data: vec![data],
        };
        let mut zone = Self { apex: key(&origin), nodes: ByName::default(), negative };
        for (line, record) in records {
            zone.insert(record, &origin).map_err(at(line))?;
        }
        zone.finish()?;
        Ok(zone)
    }

    fn insert(&mut self, record: Record<Name, Data>, origin: &Name) -> Result<(), ZoneError> {
        let (rtype, ttl) = (record.rtype(), record.ttl());
        let (owner, data) = record.into_owner_and_data();
        if rtype == Rtype::DNAME {
            return Err(ZoneError::Dname(owner));
        }
        if !owner.ends_with(origin) {
            return Err(ZoneError::Outside(owner, origin.clone()));
        }
        let name = key(&owner);
        if rtype == Rtype::NS && name.starts_with(b"\x01*") {
            return Err(ZoneError::WildcardCut(owner));
        }
        // Every name between this one and the apex exists, even without records (RFC 4592 §2.2.2).
        for suffix in suffixes(&name, self.apex.len()).skip(1) {
            match self.nodes.entry(suffix.into()) {
                Entry::Occupied(_) => break,
                Entry::Vacant(vacant) => vacant.insert(Node::default()),
            };
        }
        let at_apex = name == self.apex;
        let node = self.nodes.entry(name.into()).or_default();
        node.cut |= rtype == Rtype::NS && !at_apex;
        match node.sets.iter_mut().find(|set| set.rtype == rtype) {
            Some(set) if set.data.contains(&data) => {}
            Some(set) => {
                set.ttl = set.ttl.min(ttl); // RFC 2181 §5.2: one time to live for the whole set
                set.data.push(data);
            }
            None => node.sets.push(RecordSet { owner, rtype, ttl, data: vec![data] }),
        }
        Ok(())
    }

    /// Does what needs all records: sorts the sets, marks names below a cut, and checks aliases.
    fn finish(&mut self) -> Result<(), ZoneError> {
        let cuts: HashSet<Box<[u8]>> =
            self.nodes.iter().filter(|(_, node)| node.cut).map(|(name, _)| name.clone()).collect();
        for (name, node) in &mut self.nodes {
            node.sets.sort_by_key(|set| set.rtype.to_int());
            node.occluded =
                suffixes(name, self.apex.len()).skip(1).any(|above| cuts.contains(above));
            if let Some(cname) = node.set(Rtype::CNAME)
                && (node.sets.len() > 1 || cname.data.len() > 1)
            {
                return Err(ZoneError::CnameAndOther(cname.owner.clone()));
            }
        }
        Ok(())
    }

    pub(crate) fn apex(&self) -> &[u8] {
        &self.apex
    }

    pub(crate) fn origin(&self) -> &Name {
        &self.negative.owner
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(name, node)| (&**name, node))
    }

    /// Whether a name right below `name` exists only if it is in the map. This is so if `name` has
    /// no wildcard and no delegation.
    pub(crate) fn is_closed_below(&self, name: &[u8], node: &Node) -> bool {
        !node.cut && !node.occluded && matches!(self.wildcard(name), Found::Nothing)
    }

    /// Whether `name` (a key in lower case) does not exist: no node, no wildcard and no delegation
    /// gives an answer.
    pub(crate) fn is_nxdomain(&self, name: &[u8]) -> bool {
        matches!(self.find(name, Rtype::A), Found::Nothing)
    }

    /// Finds the answer for `name` and `rtype`. Follows aliases as long as they stay in the zone.
    pub(crate) fn answer(&self, name: &Name, rtype: Rtype) -> Finding<'_> {
        let mut finding = Finding {
            rcode: Rcode::NOERROR,
            authoritative: true,
            answer: Vec::new(),
            authority: None,
            additional: Vec::new(),
        };
        let mut owner = name.clone();
        while finding.answer.len() < CHAIN_MAX {
            match self.find(&key(&owner), rtype) {
                Found::Node(node) => match self.take(node, rtype, &owner, &mut finding) {
                    Some(target) => owner = target,
                    None => return finding,
                },
                Found::Cut(servers) => {
                    finding.authoritative = !finding.answer.is_empty();
                    finding.authority = Some(servers);
                    self.add_addresses(servers, &mut finding.additional);
                    return finding;
                }
                Found::Nothing => {
                    finding.rcode = Rcode::NXDOMAIN; // of the last name of a chain: RFC 6604 §3
                    finding.authority = Some(&self.negative);
                    return finding;
                }
                Found::Outside => {
                    if finding.answer.is_empty() {
                        (finding.rcode, finding.authoritative) = (Rcode::REFUSED, false);
                    }
                    return finding;
                }
            }
        }
        finding
    }

    /// Adds the records of `node` to the finding. If they are an alias, returns its target, with
    /// which the search continues.
    fn take<'z>(
        &'z self,
        node: &'z Node,
        rtype: Rtype,
        owner: &Name,
        finding: &mut Finding<'z>,
    ) -> Option<Name> {
        let set = if rtype == Rtype::ANY { node.sets.first() } else { node.set(rtype) };
        if let Some(set) = set {
            finding.answer.push((owner.clone(), set));
            self.add_addresses(set, &mut finding.additional);
            return None;
        }
        let Some(cname) = node.set(Rtype::CNAME) else {
            finding.authority = Some(&self.negative);
            return None;
        };
        finding.answer.push((owner.clone(), cname));
        let target = cname.alias()?;
        let circle = finding.answer.iter().any(|(seen, _)| seen == target);
        (!circle).then(|| target.clone())
    }

    /// Adds the addresses of the names that `set` points to. Records below a cut are glue, so they
    /// are only added to a delegation.
    fn add_addresses<'z>(&'z self, set: &RecordSet, additional: &mut Vec<&'z RecordSet>) {
        for target in set.targets() {
            let Some(node) = self.nodes.get(&*key(target)) else { continue };
            if node.occluded && set.rtype != Rtype::NS {
                continue;
            }
            let addresses = [Rtype::A, Rtype::AAAA].into_iter().filter_map(|rtype| node.set(rtype));
            for address in addresses {
                if !additional.iter().any(|seen| std::ptr::eq(*seen, address)) {
                    additional.push(address);
                }
            }
        }
    }

    fn find(&self, name: &[u8], rtype: Rtype) -> Found<'_> {
        if !is_below(name, &self.apex) {
            return Found::Outside;
        }
        let mut starts = [0_u8; 128]; // a name has at most 127 labels and the root
        let mut depth = 0;
        for suffix in suffixes(name, self.apex.len()) {
            starts[depth] = u8::try_from(name.len() - suffix.len()).unwrap_or(u8::MAX);
            depth += 1;
        }
        let mut found = None;
        for &start in starts[..depth].iter().rev() {
            let suffix = &name[usize::from(start)..];
            let Some(node) = self.nodes.get(suffix) else {
                return self.wildcard(&name[name.len() - found.map_or(0, |(len, _)| len)..]);
            };
            // The DS record of a delegation belongs to the parent zone.
            let at_parent = rtype == Rtype::DS && start == 0;
            if node.cut && !at_parent {
                return node.set(Rtype::NS).map_or(Found::Nothing, Found::Cut);
            }
            found = Some((suffix.len(), node));
        }
        found.map_or(Found::Nothing, |(_, node)| Found::Node(node))
    }

    /// Finds the wildcard right below `encloser`, the longest part of the name that exists.
    fn wildcard(&self, encloser: &[u8]) -> Found<'_> {
        let mut name = [0_u8; 2 + 255];
        name[..2].copy_from_slice(b"\x01*");
        name[2..2 + encloser.len()].copy_from_slice(encloser);
        self.nodes.get(&name[..2 + encloser.len()]).map_or(Found::Nothing, Found::Node)
    }
}

/// Takes the parser's `line:column: message` apart into a line and a message. The entry begins on
/// line `first`. For an entry that ends too early the parser names the line after the entry, but the
/// error belongs to its last line.
fn place(error: &str, first: usize, entry: &[u8]) -> (usize, String) {
    let line_feeds = entry.iter().filter(|byte| **byte == b'\n').count();
    let last = first + line_feeds.saturating_sub(1);
    let mut parts = error.splitn(3, ':');
    let line = parts.next().and_then(|line| line.parse().ok()).unwrap_or(first);
    (line.clamp(first, last), parts.nth(1).unwrap_or(error).trim().to_owned())
}

/// Hashes eight bytes at a time by a multiplication. It takes a third of the time of the standard
/// hasher. The standard hasher is safe if an attacker chooses the keys of a map. Here all keys come
/// from the zone file, and a query adds none.
#[derive(Debug, Default)]
pub(crate) struct NameHasher(u64);

impl NameHasher {
    fn mix(&mut self, chunk: u64) {
        let product = u128::from(self.0 ^ chunk ^ 0x9e37_79b9_7f4a_7c15) * 0xf39c_c060_5ced_c835;
        let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
        self.0 = u64::try_from(low ^ high).unwrap_or(0); // it fits: both are masked
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks();
        for chunk in chunks {
            self.mix(u64::from_le_bytes(*chunk));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
    }

    fn write_usize(&mut self, len: usize) {
        self.0 ^= len as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The key of a name: wire format in lower case. (The length bytes are below 64, so they are not
/// letters and do not change.)
pub(crate) fn key(name: &Name) -> Vec<u8> {
    name.as_slice().to_ascii_lowercase()
}

/// Iterates over `name`, its parent, and so on, up to the name whose wire format has `stop` bytes.
fn suffixes(name: &[u8], stop: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(name);
    std::iter::from_fn(move || {
        let here = rest?;
        rest = (here.len() > stop).then(|| &here[1 + usize::from(here[0])..]);
        Some(here)
    })
}

fn is_below(name: &[u8], apex: &[u8]) -> bool {
    name.ends_with(apex) && suffixes(name, apex.len()).any(|suffix| suffix.len() == apex.len())
}
