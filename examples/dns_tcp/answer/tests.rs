//! Tests of the answers, without a socket. The `domain` crate parses the answers.

use std::path::Path;

use domain::base::iana::{Class, Opcode};
use domain::base::{Message, MessageBuilder, ToName};
use domain::rdata::AllRecordData;

use super::*;

fn answers() -> Answers {
    from_text(include_str!("../../sample.zone")).unwrap()
}

fn from_text(zone: &str) -> Result<Answers, ZoneError> {
    Answers::new(Zone::parse(zone.as_bytes(), Path::new("test.zone"))?)
}

/// A query with id 0x1234 and RD.
fn query(name: &str, rtype: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question.push((name.parse::<domain::base::Name<Vec<u8>>>().unwrap(), rtype)).unwrap();
    question.finish()
}

fn with_opt(mut query: Vec<u8>, version: u8, dnssec_ok: bool) -> Vec<u8> {
    query[11] += 1;
    query.extend([0, 0, 41, 4, 208, 0, version, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    query
}

fn ask(answers: &Answers, query: &[u8]) -> Message<Vec<u8>> {
    let mut out = Vec::new();
    assert_eq!(answers.answer(query, &mut out), Reply::Send);
    let message = Message::from_octets(out).unwrap();
    assert_eq!(message.as_slice()[..2], query[..2], "the query's id");
    assert!(message.header().qr(), "an answer");
    message
}

/// The records of all sections as lines: section, owner, type and data.
fn lines(message: &Message<Vec<u8>>) -> Vec<String> {
    let mut lines = Vec::new();
    let sections = [
        ("answer", message.answer().unwrap()),
        ("authority", message.authority().unwrap()),
        ("additional", message.additional().unwrap()),
    ];
    for (name, section) in sections {
        for record in section {
            let record = record.unwrap().into_record::<AllRecordData<_, _>>().unwrap().unwrap();
            let (owner, rtype) = (record.owner(), record.rtype());
            lines.push(format!(
                "{name} {owner} {} {rtype} {}",
                record.ttl().as_secs(),
                record.data()
            ));
        }
    }
    lines
}

const SOA: &str = "authority example.org 300 SOA \
                   ns1.example.org. hostmaster.example.org. 2024010101 7200 3600 1209600 300";

#[test]
fn records_come_with_the_addresses_of_their_targets() {
    let message = ask(&answers(), &query("example.org", Rtype::MX));
    assert_eq!(message.header().rcode(), Rcode::NOERROR);
    assert!(message.header().aa() && message.header().rd() && !message.header().ra());
    assert_eq!(
        lines(&message),
        [
            "answer example.org 3600 MX 10 mail.example.org.",
            "answer example.org 3600 MX 20 mail.backup.example.org.",
            "additional mail.example.org 3600 A 192.0.2.25",
            "additional mail.example.org 3600 AAAA 2001:db8::25",
            "additional mail.backup.example.org 3600 A 198.51.100.25",
        ]
    );
}

#[test]
fn an_owner_is_a_pointer_to_the_question_and_keeps_its_spelling() {
    let query = query("WwW.eXample.ORG", Rtype::AAAA);
    let message = ask(&answers(), &query);
    assert_eq!(message.as_slice()[12..query.len()], query[12..]);
    assert_eq!(message.as_slice()[query.len()..][..4], [0xc0, 0x0c, 0, 28]);
    assert_eq!(lines(&message), ["answer WwW.eXample.ORG 300 AAAA 2001:db8::80"]);
}

#[test]
fn negative_answers_have_the_soa() {
    let answers = answers();
    let longest = format!("{}.{}.example.org", "a".repeat(63), ["b"; 80].join("."));
    for name in ["no.example.org", "a.b.c.no.example.org", "x.www.example.org", &longest] {
        let message = ask(&answers, &query(name, Rtype::A));
        assert_eq!(message.header().rcode(), Rcode::NXDOMAIN, "{name}");
        assert!(message.header().aa(), "{name}");
        assert_eq!(lines(&message), [SOA], "{name}");
    }
    // A name that only has names below it, and a type that the name does not have: NODATA.
    for (name, rtype) in [("c.d.example.org", Rtype::A), ("www.example.org", Rtype::MX)] {
        let message = ask(&answers, &query(name, rtype));
        assert_eq!(message.header().rcode(), Rcode::NOERROR, "{name}");
        assert_eq!(lines(&message), [SOA], "{name}");
    }
}

#[test]
fn aliases_are_followed_while_they_stay_in_the_zone() {
    let answers = answers();
    let message = ask(&answers, &query("chain1.example.org", Rtype::A));
    let last = "answer mail.example.org 3600 A 192.0.2.25";
    assert_eq!((lines(&message).len(), lines(&message)[3].as_str()), (4, last));

    let message = ask(&answers, &query("away.example.org", Rtype::A));
    assert_eq!(lines(&message), ["answer away.example.org 3600 CNAME www.elsewhere.example."]);
    assert_eq!(message.header().rcode(), Rcode::NOERROR);

    let message = ask(&answers, &query("dangling.example.org", Rtype::A));
    assert_eq!(message.header().rcode(), Rcode::NXDOMAIN, "the status of the last name");
    assert_eq!(lines(&message).last().unwrap(), SOA);

    for (name, records) in [("self", 1), ("circle1", 2)] {
        let message = ask(&answers, &query(&format!("{name}.example.org"), Rtype::A));
        assert_eq!(lines(&message).len(), records, "{name} ends");
    }
    let message = ask(&answers, &query("alias.example.org", Rtype::CNAME));
    assert_eq!(lines(&message), ["answer alias.example.org 3600 CNAME www.example.org."]);
}

#[test]
fn a_wildcard_stands_for_names_that_do_not_exist() {
    let answers = answers();
    for name in ["x.wild.example.org", "x.y.wild.example.org"] {
        let message = ask(&answers, &query(name, Rtype::A));
        assert_eq!(lines(&message), [format!("answer {name} 3600 A 192.0.2.100")]);
        assert_eq!(lines(&ask(&answers, &query(name, Rtype::SOA))), [SOA], "no such type");
    }
    // `host.wild` exists, so it hides the wildcard from everything below it.
    let message = ask(&answers, &query("x.host.wild.example.org", Rtype::A));
    assert_eq!(message.header().rcode(), Rcode::NXDOMAIN);
}

#[test]
fn a_delegation_has_its_glue() {
    let answers = answers();
    for name in ["sub.example.org", "deep.host.sub.example.org", "ns.sub.example.org"] {
        let message = ask(&answers, &query(name, Rtype::A));
        assert!(!message.header().aa(), "{name}: not authoritative");
        assert_eq!(
            lines(&message),
            [
                "authority sub.example.org 3600 NS ns.sub.example.org.",
                "authority sub.example.org 3600 NS ns2.example.org.",
                "additional ns.sub.example.org 3600 A 203.0.113.53",
                "additional ns.sub.example.org 3600 AAAA 2001:db8:53::53",
                "additional ns2.example.org 3600 A 198.51.100.53",
            ],
            "{name}"
        );
    }
    let message = ask(&answers, &query("sub.example.org", Rtype::DS));
    assert!(message.header().aa(), "DS is the parent's");
    assert_eq!(lines(&message), [SOA]);
}

/// Goal: prepared answers equal answers of the general way. Method: ask for every name of the zone,
/// and for names below it, with every type, in both ways. The bytes may differ: the general way can
/// compress a name by a pointer into the question where a prepared answer has the whole name.
#[test]
fn prepared_answers_equal_answers_of_the_general_way() {
    let answers = answers();
    let mut names: Vec<Vec<u8>> = answers.zone.nodes().map(|(name, _)| name.to_vec()).collect();
    for name in names.clone() {
        names.extend([b"\x01x".as_slice(), b"\x03a.b\x0212"].map(|label| [label, &name].concat()));
    }
    let types = [1, 2, 5, 6, 15, 16, 28, 33, 43, 255, 65280].map(Rtype::from_int);
    for name in &names {
        for rtype in types {
            let wire = [&name[..], &rtype.to_int().to_be_bytes(), &[0, 1]].concat();
            let query = [&[0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], &wire[..]].concat();
            let question = Question::parse(&wire).unwrap();
            let mut general = Vec::new();
            let tail = answers.tail(&question);
            write(&mut general, query.first_chunk().unwrap(), &wire, &tail, None);
            let (general, ready) = (Message::from_octets(general).unwrap(), ask(&answers, &query));
            assert_eq!(ready.as_slice()[..12], general.as_slice()[..12], "{name:?} {rtype}");
            assert_eq!(lines(&ready), lines(&general), "{name:?} {rtype}");
        }
    }
}

#[test]
fn edns_is_answered_with_edns() {
    let answers = answers();
    let plain = query("www.example.org", Rtype::A);
    assert!(ask(&answers, &plain).opt().is_none());

    for dnssec_ok in [false, true] {
        let message = ask(&answers, &with_opt(plain.clone(), 0, dnssec_ok));
        let opt = message.opt().unwrap();
        assert_eq!((opt.version(), opt.dnssec_ok()), (0, dnssec_ok));
        assert_eq!(message.header_counts().ancount(), 3);
    }
    let message = ask(&answers, &with_opt(plain, 1, false));
    assert_eq!(message.opt().unwrap().rcode(message.header()).to_int(), 16, "BADVERS");
    assert_eq!(message.opt().unwrap().version(), 0, "the supported version");
    assert_eq!(message.header_counts().ancount(), 0);
}

#[test]
fn queries_outside_the_zone_and_transfers_are_refused() {
    let answers = answers();
    for name in [".", "org", "www.example.com", "xexample.org", "example.org.example"] {
        let message = ask(&answers, &query(name, Rtype::A));
        assert_eq!(message.header().rcode(), Rcode::REFUSED, "{name}");
        assert!(!message.header().aa(), "{name}");
    }
    let mut chaos = query("www.example.org", Rtype::A);
    *chaos.last_mut().unwrap() = Class::CH.to_int().to_be_bytes()[1];
    assert_eq!(ask(&answers, &chaos).header().rcode(), Rcode::REFUSED);
    let transfer = query("example.org", Rtype::AXFR);
    assert_eq!(ask(&answers, &transfer).header().rcode(), Rcode::REFUSED);
}

#[test]
fn other_opcodes_are_not_implemented() {
    for opcode in (1..16).filter(|opcode| *opcode != 0) {
        let mut query = query("www.example.org", Rtype::A);
        query[2] = opcode << 3;
        let message = ask(&answers(), &query);
        assert_eq!(message.header().rcode(), Rcode::NOTIMP);
        assert_eq!(message.header().opcode(), Opcode::from_int(opcode));
        assert!(
            message.first_question().unwrap().qname().name_eq(&answers_name("www.example.org"))
        );
        assert!(message.opt().is_none());
    }
}

/// Goal: an error for a query with OPT has OPT, too, so that the client can distinguish it from the
/// error of a server without EDNS (RFC 6891 §6.1.1 and §7). Method: queries that fail for different
/// causes, each without OPT, with OPT, and with OPT of an unknown version.
#[test]
fn errors_are_answered_by_edns_too() {
    let answers = answers();
    let whole = query("www.example.org", Rtype::A);
    let changed = |at: usize, byte| {
        let mut query = whole.clone();
        query[at] = byte;
        query
    };
    let twice = [&changed(5, 2)[..], &whole[HEADER_LEN..]].concat();
    let no_question = changed(5, 0)[..HEADER_LEN].to_vec();
    for (query, rcode) in [
        (changed(2, 2 << 3), Rcode::NOTIMP),
        (changed(2, 5 << 3), Rcode::NOTIMP),
        (twice, Rcode::FORMERR),
        (no_question, Rcode::FORMERR),
        ([&changed(12, 0xc0)[..12], &[0xc0, 12, 0, 1, 0, 1]].concat(), Rcode::FORMERR),
    ] {
        let message = ask(&answers, &query);
        assert_eq!((message.header().rcode(), message.opt().is_some()), (rcode, false));
        for version in [0, 1] {
            let message = ask(&answers, &with_opt(query.clone(), version, true));
            let opt = message.opt().expect("an OPT record in the answer");
            assert_eq!(opt.rcode(message.header()).to_int(), u16::from(rcode.to_int()));
            assert!(opt.dnssec_ok() && opt.version() == 0, "{query:?}");
        }
    }
    let twice = with_opt(with_opt(whole, 0, false), 0, false);
    let message = ask(&answers, &twice);
    assert_eq!(message.header().rcode(), Rcode::FORMERR, "two OPT records");
    assert!(message.opt().is_some());
}

fn answers_name(name: &str) -> domain::base::Name<Vec<u8>> {
    name.parse().unwrap()
}

/// Goal: a truncated query and a query with bytes after it get FORMERR. Method: every prefix of a
/// query with an option in its OPT record, and the query with one more byte.
#[test]
fn malformed_queries_get_formerr() {
    let answers = answers();
    let plain = query("www.example.org", Rtype::A);
    let mut whole = with_opt(plain.clone(), 0, false);
    *whole.last_mut().unwrap() = 6;
    whole.extend([0, 10, 0, 2, 0xab, 0xcd]);
    assert_eq!(ask(&answers, &whole).header().rcode(), Rcode::NOERROR);
    let opt_ends = plain.len() + OPT_LEN;
    for len in 2..whole.len() {
        let message = ask(&answers, &whole[..len]);
        assert_eq!(message.header().rcode(), Rcode::FORMERR, "{len} bytes");
        assert_eq!(message.opt().is_some(), len >= opt_ends, "{len} bytes");
    }
    whole.push(0);
    assert_eq!(ask(&answers, &whole).header().rcode(), Rcode::FORMERR, "one byte too many");

    let mut out = Vec::new();
    assert_eq!(answers.answer(b"\x12", &mut out), Reply::HangUp);
    assert_eq!(answers.answer(b"", &mut out), Reply::HangUp);
    let mut answer = query("www.example.org", Rtype::A);
    answer[2] |= 0x80;
    assert_eq!(answers.answer(&answer, &mut out), Reply::Ignore, "answers are never answered");
    assert_eq!(answers.answer(&answer[..3], &mut out), Reply::Ignore);
}

/// Goal: no query makes the server panic or send a bad answer. Method: change a few bytes of a
/// query, many times. Each answer is a valid message, has the query's id, and fits.
#[test]
fn damaged_queries_are_answered_or_not_but_never_fatal() {
    let answers = answers();
    let mut random = random();
    let mut out = Vec::new();
    for name in
        ["www.example.org", "a.b.sub.example.org", "x.wild.example.org", "chain1.example.org"]
    {
        let whole = with_opt(query(name, Rtype::A), 0, true);
        for _ in 0..20_000 {
            let mut damaged = whole.clone();
            for _ in 0..=random(3) {
                let at = random(damaged.len());
                damaged[at] = random(256).to_le_bytes()[0];
            }
            damaged.truncate(1 + random(damaged.len() + 8));
            if answers.answer(&damaged, &mut out) == Reply::Send {
                assert_eq!(out[..2], damaged[..2], "{damaged:?}");
                assert!((HEADER_LEN..=usize::from(u16::MAX)).contains(&out.len()), "{damaged:?}");
                let message = Message::from_octets(&out[..]).unwrap();
                for section in [message.answer(), message.authority(), message.additional()] {
                    assert!(section.unwrap().all(|record| record.is_ok()), "{damaged:?}");
                }
            }
        }
    }
}

#[test]
fn a_zone_that_makes_no_sense_is_not_served() {
    let soa = "$ORIGIN z.\n$TTL 60\n@ IN SOA a b 1 2 3 4 5\n";
    let cases = [
        ("@ IN SOA a b 1 2 3 4 5\n", "a zone needs one SOA record, this file has 2"),
        ("www IN A 192.0.2.300\n", "test.zone:"),
        ("www.example.com. IN A 192.0.2.1\n", "www.example.com is not in the zone z"),
        ("xz. IN A 192.0.2.1\n", "xz is not in the zone z"),
        ("a IN CNAME b\na IN A 192.0.2.1\n", "a.z: a CNAME allows no other"),
        ("a IN CNAME b\na IN CNAME c\n", "a.z: a CNAME allows no other"),
        ("a IN DNAME b\n", "a.z: DNAME is not supported"),
        ("*.a IN NS b\n", "a delegation cannot be a wildcard"),
        ("$INCLUDE other\n", "test.zone:4: $INCLUDE other: not supported"),
        // The error has the line of the mistake, also if more entries follow.
        ("a IN TXT ( \"b\"\n", "test.zone:4: a parenthesis that is never closed"),
        ("a IN TXT ( \"b\"\n\nc IN A 192.0.2.1\n", "test.zone:4: a parenthesis that is never"),
        ("a IN TXT (\n(b)\nc IN A 192.0.2.1", "test.zone:4: a parenthesis that is never closed"),
        ("a IN TXT (", "test.zone:4: a parenthesis that is never closed"),
        ("a IN TXT b )\n", "test.zone:4: a parenthesis that was never opened"),
        ("a IN TXT (\nb ) )\n", "test.zone:5: a parenthesis that was never opened"),
        ("a IN TXT \"b\nc IN TXT \"d\"\n", "test.zone:4: a quote that is not closed"),
        ("a IN TXT (\n\"b\n)\n", "test.zone:5: a quote that is not closed"),
        ("a IN TXT \"b", "test.zone:4: a quote that is not closed"),
        ("a IN TXT \"b\\\"\n", "test.zone:4: a quote that is not closed"),
        ("a IN TXT b\\", "test.zone:4: a backslash with nothing after it"),
        ("a IN TXT b\\\nc IN TXT d\n", "test.zone:4: a backslash with nothing after it"),
        ("a IN TXT\n", "test.zone:4: unexpected end of entry"),
        ("a IN TXT\nb IN A 192.0.2.1\n", "test.zone:4: unexpected end of entry"),
        ("\na CH TXT b\n", "test.zone:5: different class: CH != IN"),
        ("a IN TXT (\nb\n) \\999\n", "test.zone:6: bad symbol"),
        ("$ORIGIN\n", "test.zone:4: unexpected end of entry"),
        ("$TTL soon\n", "test.zone:4: expected decimal number"),
        ("$GENERATE 1-3 a A 192.0.2.$\n", "test.zone:4: unknown control: $GENERATE"),
        ("\n\na IN DNAME (\nb )\n", "test.zone:6: a.z: DNAME is not supported"),
        ("a IN A (\n192.0.2.1 )\nxz. IN A 192.0.2.1\n", "test.zone:6: xz is not in the zone"),
    ];
    for (text, message) in cases {
        let error = from_text(&format!("{soa}{text}")).unwrap_err().to_string();
        assert!(error.contains(message), "{text:?}: {error}");
    }
    let error = from_text("").unwrap_err().to_string();
    assert!(error.contains("test.zone: a zone needs one SOA record, this file has 0"), "{error}");
    let error = from_text("a IN A 192.0.2.1\n").unwrap_err().to_string();
    assert!(error.contains("test.zone:1: missing origin"), "{error}");
}

/// Goal: files from editors of other systems are accepted. Method: line ends of two bytes, and a
/// byte order mark.
#[test]
fn a_zone_may_have_a_byte_order_mark_and_line_ends_of_two_bytes() {
    let zone = "$ORIGIN z.\r\n$TTL 60\r\n@ IN SOA a b (\r\n1 2 3 4 5 )\r\na TXT \"b\"\r\n";
    for start in ["", "\u{feff}"] {
        let zone = from_text(&format!("{start}{zone}")).unwrap();
        assert_eq!(lines(&ask(&zone, &query("a.z", Rtype::TXT))).len(), 1);
    }
}

#[test]
fn what_looks_unbalanced_and_is_not_is_served() {
    for (text, txt) in [
        ("a TXT ( b ; a comment ) \" ( \\\n c )", "b c"),
        ("a TXT \"b ; ( c\"", "\"b ; ( c\""),
        ("a TXT \\(b\\\"", "\\(b\\\""),
        ("a TXT \"\\\" ) \\\\\" ; \"\r", "\"\\\" ) \\\\\""),
        ("a TXT ( ( b )\n\n ) ; )", "b"),
    ] {
        let zone = format!("$ORIGIN z.\n$TTL 60\n@ IN SOA a b 1 2 3 4 5\n{text}");
        let lines = lines(&ask(&from_text(&zone).unwrap(), &query("a.z", Rtype::TXT)));
        let plain = format!("$ORIGIN z.\n$TTL 60\n@ IN SOA a b 1 2 3 4 5\na TXT {txt}\n");
        assert_eq!(
            lines,
            self::lines(&ask(&from_text(&plain).unwrap(), &query("a.z", Rtype::TXT)))
        );
        assert_eq!(lines.len(), 1, "{text}");
    }
}

/// Goal: no zone file makes the parser panic. Method: take a piece of a zone and put in a few bytes
/// with a special meaning, many times. Each result is a zone, or an error that names its place.
#[test]
fn damaged_zones_are_errors_but_never_fatal() {
    const MEANING: &[u8] = b"\"()\\;\n @$\t\r\0.0a\xff#";
    let whole =
        [include_bytes!("../../sample.zone"), &b"s SVCB 1 . key=\"a\"\nu TYPE9 \\# 1 0a\n"[..]];
    let whole = whole.concat();
    let mut random = random();
    for _ in 0..20_000 {
        let start = random(whole.len());
        let end = (start + 1 + random(200)).min(whole.len());
        let mut text = whole[start..end].to_vec();
        for _ in 0..=random(3) {
            let at = random(text.len());
            match (MEANING[random(MEANING.len())], random(2)) {
                (byte, 0) => text[at] = byte,
                (byte, _) => text.insert(at, byte),
            }
        }
        text.splice(..0, *b"$ORIGIN z.\n@ IN SOA a b 1 2 3 4 5\n");
        if let Err(error) = Zone::parse(&text, Path::new("test.zone")) {
            let error = error.to_string();
            let no_place = ["CNAME allows", "is not in the zone"];
            let placed =
                error.starts_with("test.zone:") || no_place.iter().any(|n| error.contains(n));
            assert!(placed, "{error}: {}", text.escape_ascii());
        }
    }
}

/// Pseudo-random numbers below the given one. The sequence is the same in every run.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    }
}

#[test]
fn an_answer_that_would_not_fit_is_an_error_at_the_start() {
    let zone = |records: usize| {
        let soa = "$ORIGIN z.\n$TTL 60\n@ IN SOA a b 1 2 3 4 5\n";
        let text =
            (0..records).map(|i| format!("big IN TXT \"{}\"\n", format!("{i:03}").repeat(80)));
        soa.to_owned() + &text.collect::<String>()
    };
    let answers = from_text(&zone(250)).unwrap();
    let message = ask(&answers, &query("big.z", Rtype::TXT));
    assert_eq!(message.header_counts().ancount(), 250);

    let error = from_text(&zone(300)).unwrap_err().to_string();
    assert!(error.contains("big.z TXT: the answer would not fit"), "{error}");
}

/// Goal: optional addresses that do not fit are left out in whole sets, without a mark in the
/// answer. Addresses that a delegation needs are never left out. Method: records with so many
/// targets that their addresses do not fit.
#[test]
fn additional_records_that_do_not_fit_are_left_out() {
    let zone = |first: &str, below: &str, addresses: usize| {
        let mut text = format!("$ORIGIN z.\n$TTL 60\n@ SOA a b 1 2 3 4 5\n{first} A 192.0.2.9\n");
        for number in 0..20 {
            text +=
                &format!("many {below} h{number}{}\n", if below == "NS" { ".many" } else { "" });
            for address in 0..addresses {
                let (high, low) = (address / 256, address % 256);
                let name =
                    if below == "NS" { format!("h{number}.many") } else { format!("h{number}") };
                text += &format!("{name} A 10.{number}.{high}.{low}\n");
            }
        }
        from_text(&text)
    };
    let message = ask(&zone("x", "MX 10", 300).unwrap(), &query("many.z", Rtype::MX));
    let counts = message.header_counts();
    assert_eq!(counts.ancount(), 20);
    assert!(!message.header().tc() && message.header().rcode() == Rcode::NOERROR);
    assert!(
        counts.arcount() >= 3_300 && counts.arcount().is_multiple_of(300),
        "{counts:?}: whole sets"
    );
    assert!(message.as_slice().len() > 52_000);
    let with_edns =
        ask(&zone("x", "MX 10", 300).unwrap(), &with_opt(query("many.z", Rtype::MX), 0, false));
    assert!(with_edns.opt().is_some());

    let error = zone("x", "NS", 300).unwrap_err().to_string();
    assert!(error.contains("many.z A: the answer would not fit"), "glue: {error}");
    let message = ask(&zone("x", "NS", 100).unwrap(), &query("a.many.z", Rtype::A));
    assert_eq!(message.header_counts().arcount(), 2_000);
}
