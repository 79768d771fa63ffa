//! Packets: how the network may cut them, what a peer may announce, and what a framer may get wrong.

use condor::testing::Harness;
use condor::{Action, CloseReason, Framing, Info, LengthField, Lines, Raw, ReactorOptions};

use crate::both::packets::{Broken, Fault};
use crate::both::{actor, echo};
use crate::rig::{conclude, loop_stats, options};
use crate::support::{Actor, Seen, Trace, ms, order, packet, secs, wire};

// ---- cuts ----

/// Goal: a slow sender is served like any other. Method: one byte per millisecond.
#[test]
fn a_packet_that_comes_byte_by_byte_is_delivered_once() {
    let (harness, trace) = echo(options());
    for byte in wire(&[b"slowly"]) {
        assert_eq!(trace.read(), []);
        harness.receive([byte]);
        harness.advance(ms(1));
    }
    assert_eq!(trace.read(), [packet(b"slowly")]);
    assert_eq!(harness.packets(), [b"slowly"]);
    conclude(&harness);
}

/// Goal: a read that returns fewer bytes than are available loses none. Method: reads of at most n
/// bytes.
#[test]
fn short_reads_are_followed_up() {
    for most in 1..20 {
        let (harness, _) = echo(options());
        harness.max_read(most);
        harness.receive(wire(&[b"one", b"", b"three"]));
        assert_eq!(harness.packets(), [b"one" as &[u8], b"", b"three"], "{most} bytes a read");
        conclude(&harness);
    }
}

/// Goal: after a read that fills the buffer and ends with a packet, the connection has no partial
/// packet and is read again. Method: packets that fill the buffer to its last byte, and one more, in
/// one event.
#[test]
fn a_packet_that_ends_with_the_read_hides_nothing_after_it() {
    let small = ReactorOptions::default().read_buffer(4096);
    let trace = Trace::default();
    let harness = Harness::with(small, options(), move |_| Actor::echo(&trace));
    harness.receive(wire(&[&[7_u8; 62] as &[u8]; 4096 / 64 + 1]));
    assert_eq!(harness.packets().len(), 65);
    assert_eq!(harness.writes(), 2, "an answer to each read");
    conclude(&harness);
}

/// Goal: a long input is answered while the rest of it is read, and a packet whose parts come in two
/// reads is whole. Method: four packets of 60,000 bytes at once, counted by writes. Then lines whose
/// end is the last byte of a read, the first byte of the next, and one between.
#[test]
fn a_long_input_is_answered_piece_by_piece() {
    let (harness, _) = echo(options());
    let packets = [1, 2, 3, 4].map(|byte| vec![byte; 60_000]);
    harness.receive(wire(&packets.each_ref().map(|packet| &packet[..])));
    assert_eq!(harness.packets(), packets);
    assert_eq!(harness.writes(), 4, "an answer to each read");
    assert_eq!(harness.stats().read_budget_hits, 0);
    conclude(&harness);

    for cut in [64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1] {
        let (harness, _) = echo(options().framing(Lines::new(100_000)));
        let first = vec![b'x'; cut - 1];
        harness.receive([&first[..], b"\n", b"second\n", &first[..], b"\nlast\n"].concat());
        let expected = [&first[..], b"second", &first[..], b"last"];
        assert_eq!(harness.packets(), expected, "a line of {cut} bytes");
        conclude(&harness);
    }
}

/// Goal: pipelined requests are all answered, in order, with one write. Method: 1,000 requests in
/// one read.
#[test]
fn a_thousand_packets_in_one_read_are_answered_in_order_with_one_write() {
    let (harness, _) = echo(options());
    let payloads: Vec<[u8; 2]> = (0..1_000u16).map(u16::to_be_bytes).collect();
    let bytes = wire(&payloads.iter().map(|payload| &payload[..]).collect::<Vec<_>>());
    harness.receive(bytes);
    assert_eq!(harness.packets(), payloads);
    assert_eq!(harness.writes(), 1);
    conclude(&harness);
}

/// Goal: a flood of the cheapest packets starves no other connection. Method: a million empty
/// packets at once. Another peer's packet of the same turn is answered in the next turn.
#[test]
fn a_million_empty_packets_starve_no_connection() {
    let (flood, _) = echo(options());
    let other = flood.connect();
    flood.arrive(vec![0; 2_000_000]);
    flood.turn();
    other.arrive(wire(&[b"me too"]));
    flood.turn();
    assert_eq!(other.packets(), [b"me too"]);
    assert!(flood.stats().packets_in < 20_000, "a budget holds in each turn");
    flood.run();
    assert_eq!(flood.stats().packets_in, 1_000_001);
    assert_eq!(flood.sent().len(), 2_000_000);
    other.peer_closes();
    conclude(&flood);
}

/// Goal: a flood waits in the network, not in memory: nothing is read while packets wait. Method:
/// one packet a turn, and ten times as much input as a turn reads.
#[test]
fn nothing_is_read_while_packets_wait() {
    let reactor = ReactorOptions::new().read_buffer(4096).packet_budget(1);
    let trace = Trace::default();
    let own = trace.clone();
    let harness = Harness::with(reactor, options(), move |_| Actor::echo(&own));
    let bytes = wire(&[[1; 98].as_slice(); 410]);
    harness.arrive(&bytes);
    for count in 1..410 {
        harness.turn();
        assert_eq!(trace.read().len(), 1, "packet {count}");
        assert!(harness.leftovers().buffered_bytes < 4096, "packet {count}");
    }
    harness.run();
    assert_eq!(harness.sent(), bytes);
    conclude(&harness);
}

// ---- lengths ----

/// Goal: the time from `accept` to a connection's first packet is measured, and not the time to
/// later ones. Method: a packet after 10 ms, one after a timeout, and two packets in one event.
#[test]
fn the_first_packet_is_timed_and_no_later_one() {
    let (harness, _) = actor(options().packet_timeout(secs(1)), |trace| {
        Actor::echo(trace).info(|info, _| match info {
            Info::Timeout(_) => Action::Continue,
            other => other.default_action(),
        })
    });
    harness.advance(ms(10));
    assert_eq!(loop_stats(&harness).first_packet_micros.count(), 0);
    harness.receive(wire(&[b"one", b"two"]));
    harness.receive(b"\x00\x05he");
    harness.advance(secs(2));
    harness.receive(wire(&[b"three"]));
    let first = loop_stats(&harness).first_packet_micros;
    assert_eq!((first.count(), first.quantile(1.0)), (1, (1 << 14) - 1), "10,000 has 14 bits");
    conclude(&harness);
}

/// Goal: the time to a late first packet is measured correctly, however late it is. Method: one
/// after 72 minutes, when microseconds exceed 32 bits; one after two months; and one on a connection
/// that was accepted that late.
#[test]
fn a_first_packet_may_come_after_hours() {
    let minutes = |count: u64| secs(60 * count);
    for (before, wait) in [
        (minutes(0), minutes(72)),
        (minutes(0), minutes(60 * 24 * 60)),
        (minutes(71), minutes(1)),
        (minutes(60 * 24 * 60), minutes(60 * 24 * 60)),
    ] {
        let (first, _) = echo(options());
        first.advance(before);
        let harness = first.connect();
        harness.advance(wait);
        harness.packet(b"late");
        let times = loop_stats(&first).first_packet_micros;
        let micros = u64::try_from(wait.as_micros()).unwrap();
        assert_eq!(times.count(), 1);
        let found = times.quantile(1.0);
        assert!(found >= micros && found / 2 <= micros, "{found} us for {wait:?}");
        harness.peer_closes();
        conclude(&first);
    }
}

// ---- set_framing ----

/// Goal: a new framing restarts the packet timeout. Method: a switch in the middle of a packet.
#[test]
fn a_new_framing_restarts_the_packet_clock() {
    let (harness, trace) = echo(options().packet_timeout(secs(10)));
    harness.receive([0, 9, 9]);
    harness.advance(secs(9));
    harness.message(order("switch", |ctx| {
        ctx.set_framing(LengthField::U32);
        Action::Continue
    }));
    harness.advance(ms(9_999));
    assert_eq!(trace.read(), [Seen::Message("switch")]);
    harness.advance(ms(1));
    let end = Seen::End(CloseReason::PacketTimeout);
    assert_eq!(trace.read(), [Seen::Timeout(vec![0, 9, 9]), end]);
    conclude(&harness);
}

/// Goal: answers may have another framing than requests. Method: a split framing.
#[test]
fn requests_and_answers_may_be_framed_differently() {
    let (harness, _) = echo(options().framing(Framing::split(LengthField::U16, Lines::new(80))));
    harness.receive(wire(&[b"one", b"two"]));
    assert_eq!(harness.sent(), b"one\ntwo\n");
    harness.packet(b"three");
    assert_eq!(harness.packets(), [b"three"]);
    conclude(&harness);

    let (harness, _) = echo(options().framing(Raw));
    harness.receive(b"any bytes");
    assert_eq!(harness.sent(), b"any bytes");
    conclude(&harness);
}

// ---- framers that break their contract ----

/// Goal: the harness stops reading the output of a broken framer. Method: invalid frames, which
/// would be read for ever, or out of bounds.
#[test]
#[should_panic = "the framer broke its contract"]
fn the_harness_does_not_read_frames_that_consume_nothing() {
    let (harness, _) =
        actor(options().framing(Framing::custom(Broken(Fault::TakesNothing))), |d| {
            Actor::echo(d).init(|_| Action::send("x")).packet(|_, _| Action::Continue)
        });
    // The output is `<x>`: two packets of one byte, and between them a frame that consumes nothing.
    harness.packets();
}

// ---- other protocols ----

/// Goal: another protocol on the port ends in a typed reason. Method: its first bytes, on a two-byte
/// length with a small maximum, and with none.
#[test]
fn other_protocols_end_in_too_large_or_a_timeout() {
    let greetings: [(&[u8], usize); 4] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0x1603),
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", 0x4745),
        (b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a", 0x0d0a),
        (b"SSH-2.0-OpenSSH_9.9\r\n", 0x5353),
    ];
    for (greeting, announced) in greetings {
        let (harness, _) = echo(options().max_packet(512));
        harness.receive(greeting);
        let reason = CloseReason::PacketTooLarge { announced, max: 512 };
        assert_eq!(harness.closed(), Some(reason));
        conclude(&harness);

        let (harness, trace) = echo(options());
        harness.receive(greeting);
        harness.advance(secs(10));
        let end = Seen::End(CloseReason::PacketTimeout);
        assert_eq!(trace.read(), [Seen::Timeout(greeting.to_vec()), end]);
        conclude(&harness);
    }
}
