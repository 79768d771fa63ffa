//! Makes the bytes of an answer from the bytes of a query. This module uses no sockets.
//!
//! Most queries ask about a name that the zone file contains, or about a name that does not exist.
//! Everything after the question in such an answer depends only on the name and the type. This
//! includes the compression pointers, because the question is always at the same place. So these
//! *tails* are made once, at the start. An answer is then a header, the question and a copy of a
//! tail. This takes 0.1 µs instead of 1 µs.
//!
//! All other queries take the general way: [`Answers::tail`] builds a message with the `domain`
//! crate. The tails are made in the same way.
//!
//! The query is parsed by hand. It has one question and at most an OPT record, and parsing it into
//! objects would cost more than answering it.

use bytes::Bytes;
use domain::base::iana::{Class, OptRcode, Rcode, Rtype};
use domain::base::message_builder::{
    AdditionalBuilder, MessageBuilder, PushError, StaticCompressor,
};

use crate::zone::{ByName, Finding, Name, Node, RecordSet, Zone, ZoneError};

const HEADER_LEN: usize = 12;
/// The UDP payload size that OPT announces. It has no effect over TCP.
const UDP_PAYLOAD_LEN: u16 = 1232;
const OPT_LEN: usize = 11;

/// What to do with a packet.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Send what is in the buffer.
    Send,
    /// The packet is an answer. Send nothing.
    Ignore,
    /// The packet is too short for an id, so no answer is possible.
    HangUp,
}

/// Everything after the question in an answer, and the fields of the header that belong to it.
#[derive(Debug)]
struct Tail {
    /// The low four bits go into the header, the others into OPT.
    rcode: OptRcode,
    authoritative: bool,
    /// Answer, authority, additional; in network order.
    counts: [[u8; 2]; 3],
    records: Box<[u8]>,
}

impl Tail {
    fn empty(rcode: OptRcode) -> Self {
        Self { rcode, authoritative: false, counts: [[0; 2]; 3], records: Box::default() }
    }
}

/// The answers for a name that exists, which need no search in the zone.
#[derive(Debug)]
struct Ready {
    tails: Vec<(Rtype, Tail)>,
    /// All types that are not in `tails` are answered with NODATA.
    rest_is_nodata: bool,
    /// All names one label longer that are not in the zone are answered with NXDOMAIN.
    rest_is_nxdomain: bool,
}

/// A zone with its prepared answers.
#[derive(Debug)]
pub(crate) struct Answers {
    zone: Zone,
    ready: ByName<Ready>,
    /// The tail of negative answers to a question about the apex.
    negative: Tail,
    /// The offsets of the compression pointers in `negative`. If the question is longer, the
    /// pointers have to be moved.
    pointers: Vec<usize>,
}

impl Answers {
    pub(crate) fn new(zone: Zone) -> Result<Self, ZoneError> {
        let nodata = Rtype::from_int(65280); // reserved for private use, so no zone has it
        let negative = tail_of(zone.origin(), nodata, &zone.answer(zone.origin(), nodata))
            .map_err(|_| ZoneError::TooLong(zone.origin().clone(), Rtype::SOA))?;
        let pointers = soa_pointers(&negative.records);
        let mut answers = Self { ready: ByName::default(), negative, pointers, zone };
        for (name, node) in answers.zone.nodes() {
            let ready = answers.prepare(name, node)?;
            answers.ready.insert(name.into(), ready);
        }
        Ok(answers)
    }

    fn prepare(&self, name: &[u8], node: &Node) -> Result<Ready, ZoneError> {
        let rest_is_nodata = node.is_plain();
        let rest_is_nxdomain = self.zone.is_closed_below(name, node);
        let mut types: Vec<Rtype> = node.sets.iter().map(|set| set.rtype).collect();
        if !rest_is_nodata {
            types.extend([Rtype::A, Rtype::AAAA]); // the usual queries to aliases and delegations
        }
        types.sort_unstable();
        types.dedup();
        let name = Name::from_octets(Bytes::copy_from_slice(name)).unwrap_or_else(|_| Name::root());
        let ready = |rtype| match tail_of(&name, rtype, &self.zone.answer(&name, rtype)) {
            Ok(tail) => Ok((rtype, tail)),
            Err(_) => Err(ZoneError::TooLong(name.clone(), rtype)),
        };
        let tails = types.into_iter().map(ready).collect::<Result<_, _>>()?;
        Ok(Ready { tails, rest_is_nodata, rest_is_nxdomain })
    }

    /// Writes the answer to `query` into `out`.
    pub(crate) fn answer(&self, query: &[u8], out: &mut Vec<u8>) -> Reply {
        out.clear();
        let Some(header) = query.first_chunk::<HEADER_LEN>() else {
            return answer_truncated(query, out);
        };
        if header[2] & 0x80 != 0 {
            return Reply::Ignore;
        }
        let [questions, counts @ ..] = counts(header);
        let question = Question::parse(&query[HEADER_LEN..]).filter(|_| questions == 1);
        let wire = question.as_ref().map_or(&[][..], |question| question.wire);
        let records = match &question {
            Some(question) => query.get(HEADER_LEN + question.wire.len()..),
            None => skip_questions(&query[HEADER_LEN..], questions),
        };
        let edns = records.ok_or(Malformed(None)).and_then(|records| Edns::parse(records, counts));
        let error = match (question, &edns) {
            // The server implements only the opcode QUERY.
            _ if header[2] & 0x78 != 0 => OptRcode::NOTIMP,
            (Some(question), Ok(edns)) => {
                self.answer_question(header, &question, *edns, out);
                return Reply::Send;
            }
            _ => OptRcode::FORMERR,
        };
        let edns = edns.unwrap_or_else(|Malformed(edns)| edns);
        write(out, header, wire, &Tail::empty(error), edns);
        Reply::Send
    }

    fn answer_question(
        &self,
        header: &[u8; HEADER_LEN],
        question: &Question<'_>,
        edns: Option<Edns>,
        out: &mut Vec<u8>,
    ) {
        if edns.as_ref().is_some_and(|edns| edns.version != 0) {
            return write(out, header, question.wire, &Tail::empty(OptRcode::BADVERS), edns);
        }
        let transfer = matches!(question.rtype, Rtype::AXFR | Rtype::IXFR);
        if question.class != Class::IN || transfer {
            return write(out, header, question.wire, &Tail::empty(OptRcode::REFUSED), edns);
        }
        let name = question.name();
        match self.ready.get(name) {
            Some(ready) => {
                if let Some((_, tail)) = ready.tails.iter().find(|(r, _)| *r == question.rtype) {
                    return write(out, header, question.wire, tail, edns);
                }
                if ready.rest_is_nodata && question.rtype != Rtype::ANY {
                    return self.write_negative(out, header, question, Rcode::NOERROR, edns);
                }
            }
            None if self.is_nxdomain(name) => {
                return self.write_negative(out, header, question, Rcode::NXDOMAIN, edns);
            }
            None => {}
        }
        write(out, header, question.wire, &self.tail(question), edns);
    }

    /// Whether a name that is not in the map does not exist. (A wildcard or a delegation may cover
    /// it.) Attacks use random names, so this has to be quick: usually it needs one look-up of the
    /// parent name.
    fn is_nxdomain(&self, name: &[u8]) -> bool {
        let above = name.get(1 + usize::from(name[0])..);
        above.and_then(|above| self.ready.get(above)).is_some_and(|ready| ready.rest_is_nxdomain)
            || self.zone.is_nxdomain(name)
    }

    /// The general way: wildcards, delegations, aliases, ANY, and names outside the zone.
    fn tail(&self, question: &Question<'_>) -> Tail {
        // The name keeps the client's upper and lower case, so the answer has it, too.
        let wire = &question.wire[..question.name_len];
        let Ok(name) = Name::from_octets(Bytes::copy_from_slice(wire)) else {
            return Tail::empty(OptRcode::FORMERR);
        };
        tail_of(&name, question.rtype, &self.zone.answer(&name, question.rtype))
            .unwrap_or_else(|_| Tail::empty(OptRcode::SERVFAIL))
    }

    fn write_negative(
        &self,
        out: &mut Vec<u8>,
        header: &[u8; HEADER_LEN],
        question: &Question<'_>,
        rcode: Rcode,
        edns: Option<Edns>,
    ) {
        write(out, header, question.wire, &self.negative, edns);
        out[3] = rcode.to_int();
        // The apex is as many bytes further back as the name is longer. Both lengths are below 256.
        let moved = u16::try_from(question.name_len - self.zone.apex().len()).unwrap_or(0);
        let start = HEADER_LEN + question.wire.len();
        for at in &self.pointers {
            let pointer = &mut out[start + at..start + at + 2];
            let moved = u16::from_be_bytes([pointer[0], pointer[1]]) + moved;
            pointer.copy_from_slice(&moved.to_be_bytes());
        }
    }
}

/// Answers a query that is shorter than a header. If it has an id, the answer is FORMERR.
fn answer_truncated(query: &[u8], out: &mut Vec<u8>) -> Reply {
    match *query {
        [] | [_] => Reply::HangUp,
        [_, _, flags, ..] if flags & 0x80 != 0 => Reply::Ignore,
        [id0, id1, ..] => {
            let mut header = [0; HEADER_LEN];
            header[..2].copy_from_slice(&[id0, id1]);
            write(out, &header, &[], &Tail::empty(OptRcode::FORMERR), None);
            Reply::Send
        }
    }
}

/// The four counts of a header: questions, answers, authorities, additionals.
fn counts(header: &[u8; HEADER_LEN]) -> [u16; 4] {
    std::array::from_fn(|i| u16::from_be_bytes([header[4 + 2 * i], header[5 + 2 * i]]))
}

/// Writes an answer. No other function writes a header.
#[inline]
fn write(
    out: &mut Vec<u8>,
    query: &[u8; HEADER_LEN],
    question: &[u8],
    tail: &Tail,
    edns: Option<Edns>,
) {
    let [answers, authorities, mut additionals] = tail.counts;
    if edns.is_some() {
        additionals = (u16::from_be_bytes(additionals) + 1).to_be_bytes();
    }
    let authoritative = if tail.authoritative { 0x04 } else { 0 };
    let mut header = [0_u8; HEADER_LEN];
    header[..2].copy_from_slice(&query[..2]);
    header[2] = 0x80 | (query[2] & 0x79) | authoritative; // an answer; opcode and RD as asked
    header[3] = tail.rcode.rcode().to_int();
    header[5] = u8::from(!question.is_empty());
    header[6..8].copy_from_slice(&answers);
    header[8..10].copy_from_slice(&authorities);
    header[10..].copy_from_slice(&additionals);
    out.reserve(HEADER_LEN + question.len() + tail.records.len() + OPT_LEN);
    out.extend_from_slice(&header);
    out.extend_from_slice(question);
    out.extend_from_slice(&tail.records);
    if let Some(edns) = edns {
        let [size0, size1] = UDP_PAYLOAD_LEN.to_be_bytes();
        let flags = if edns.dnssec_ok { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, 41, size0, size1, tail.rcode.ext(), 0, flags, 0, 0, 0]);
    }
}

/// Builds the message for `finding`, and returns everything after the question. Additional records
/// that do not fit are left out without a mark in the answer (RFC 2181 §9). The addresses that a
/// delegation needs must fit (RFC 9471).
fn tail_of(name: &Name, rtype: Rtype, finding: &Finding<'_>) -> Result<Tail, PushError> {
    let is_delegation = finding.authority.filter(|set| set.rtype == Rtype::NS);
    let is_optional = |set: &&RecordSet| {
        !is_delegation.is_some_and(|delegation| set.owner.ends_with(&delegation.owner))
    };
    let mut sets = finding.additional.clone();
    sets.sort_by_key(is_optional);
    let required = sets.iter().filter(|set| !is_optional(set)).count();
    let mut message = MessageBuilder::from_target(StaticCompressor::new(Vec::with_capacity(512)))
        .map_err(|_| PushError::ShortBuf)?;
    message.set_push_limit(usize::from(u16::MAX) - OPT_LEN);
    let mut question = message.question();
    question.push((name, rtype))?;
    let mut answer = question.answer();
    for (owner, set) in &finding.answer {
        for data in &set.data {
            answer.push((owner, set.ttl, data))?;
        }
    }
    let mut authority = answer.authority();
    if let Some(set) = finding.authority {
        for data in &set.data {
            authority.push((&set.owner, set.ttl, data))?;
        }
    }
    let mut additional = authority.additional();
    let mut fitting = &sets[..];
    while let Err((at, error)) = push_sets(&mut additional, fitting) {
        if at < required {
            return Err(error);
        }
        additional.rewind();
        fitting = &fitting[..at];
    }
    let counts = additional.counts();
    let message = additional.finish().into_target();
    Ok(Tail {
        rcode: finding.rcode.into(),
        authoritative: finding.authoritative,
        counts: [counts.ancount(), counts.nscount(), counts.arcount()].map(u16::to_be_bytes),
        records: message[HEADER_LEN + name.len() + 4..].into(),
    })
}

/// Adds these record sets. On failure, returns the index of the first set that does not fit.
fn push_sets(
    additional: &mut AdditionalBuilder<StaticCompressor<Vec<u8>>>,
    sets: &[&RecordSet],
) -> Result<(), (usize, PushError)> {
    for (at, set) in sets.iter().enumerate() {
        for data in &set.data {
            additional.push((&set.owner, set.ttl, data)).map_err(|error| (at, error))?;
        }
    }
    Ok(())
}

/// Finds the compression pointers in one SOA record: in its owner and in its two names.
fn soa_pointers(record: &[u8]) -> Vec<usize> {
    let mut pointers = Vec::new();
    let mut at = skip_labels(record, 0, &mut pointers) + 10; // type, class, time to live, length
    at = skip_labels(record, at, &mut pointers);
    skip_labels(record, at, &mut pointers);
    pointers
}

fn skip_labels(record: &[u8], mut at: usize, pointers: &mut Vec<usize>) -> usize {
    loop {
        match record[at] {
            0 => return at + 1,
            len if len >= 0xc0 => {
                pointers.push(at);
                return at + 2;
            }
            len => at += 1 + usize::from(len),
        }
    }
}

/// The one question of a query.
struct Question<'q> {
    /// The bytes of the question, unchanged.
    wire: &'q [u8],
    /// The name in lower case, the first `name_len` bytes.
    lower: [u8; 255],
    name_len: usize,
    rtype: Rtype,
    class: Class,
}

impl<'q> Question<'q> {
    /// Returns `None` if the question is not whole, or if it has a compression pointer: there is no
    /// name before the question to which it could point.
    fn parse(bytes: &'q [u8]) -> Option<Self> {
        let mut end = 0;
        loop {
            let len = usize::from(*bytes.get(end)?);
            if len > 63 {
                return None;
            }
            end += 1 + len;
            if len == 0 {
                break;
            }
        }
        let mut lower = [0; 255];
        let name = lower.get_mut(..end)?;
        name.copy_from_slice(bytes.get(..end)?);
        name.make_ascii_lowercase();
        let &[t0, t1, c0, c1] = bytes[end..].first_chunk()?;
        Some(Self {
            wire: &bytes[..end + 4],
            lower,
            name_len: end,
            rtype: Rtype::from_int(u16::from_be_bytes([t0, t1])),
            class: Class::from_int(u16::from_be_bytes([c0, c1])),
        })
    }

    fn name(&self) -> &[u8] {
        &self.lower[..self.name_len]
    }
}

/// A query that breaks the rules of RFC 1035 or RFC 6891.
#[derive(Debug, PartialEq, Eq)]
struct Malformed(
    /// The OPT record of the query, if it has one. Then the answer must have one too (RFC 6891
    /// §6.1.1).
    Option<Edns>,
);

/// The fields of a query's OPT record that matter here.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
struct Edns {
    version: u8,
    dnssec_ok: bool,
}

impl Edns {
    /// Reads the records after the question. It skips all records except OPT. OPT may occur once,
    /// and no bytes may be left.
    fn parse(mut rest: &[u8], counts: [u16; 3]) -> Result<Option<Self>, Malformed> {
        let mut edns = None;
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                let owner = skip_name(rest).ok_or(Malformed(edns))?;
                let record = rest[owner..].split_first_chunk::<10>();
                let (fixed, data) = record.ok_or(Malformed(edns))?;
                let is_first = edns.is_none();
                if fixed[..2] == [0, 41] && is_first {
                    edns = Some(Self { version: fixed[5], dnssec_ok: fixed[6] & 0x80 != 0 });
                }
                let len = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
                let (data, after) = data.split_at_checked(len).ok_or(Malformed(edns))?;
                let is_proper = section == 2 && owner == 1 && is_first && are_options(data);
                if fixed[..2] == [0, 41] && !is_proper {
                    return Err(Malformed(edns));
                }
                rest = after;
            }
        }
        if rest.is_empty() { Ok(edns) } else { Err(Malformed(edns)) }
    }
}

/// Returns the bytes after the questions.
fn skip_questions(mut rest: &[u8], questions: u16) -> Option<&[u8]> {
    for _ in 0..questions {
        rest = rest.get(skip_name(rest)? + 4..)?;
    }
    Some(rest)
}

/// Returns the length of the name at the beginning of `bytes`.
fn skip_name(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        match *bytes.get(end)? {
            0 => return Some(end + 1),
            len if len >= 0xc0 => return (end + 2 <= bytes.len()).then_some(end + 2),
            len if len > 63 => return None,
            len => end += 1 + usize::from(len),
        }
    }
}

/// Whether `data` is a list of complete options: code, length, value.
fn are_options(mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let Some((head, value)) = data.split_first_chunk::<4>() else { return false };
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some(after) = value.get(len..) else { return false };
        data = after;
    }
    true
}

#[cfg(test)]
mod tests;
