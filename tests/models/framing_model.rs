//! Framing against a naive decoder: cuts by the network change nothing, limits hold at the header,
//! and a refused packet leaves nothing behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use condor::internals::{Deframe, Enframe, Prefix, Shape};
use condor::{
    Decode, FrameError, Framer, Framing, FramingProblem, LengthField, Lines, Output, Raw,
};
use proptest::prelude::*;

use crate::bodies::framing::{self, CONFIG, End, Naive, Story, ZeroEnded, appended, read};

/// What peers of other protocols send to a port that expects two-byte lengths, and extreme inputs.
const SEEDS: [&[u8]; 13] = [
    b"\x00\x1d\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x07example\x03com\0\x00\x01\x00\x01",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x01\x30\x39\x15\xb3",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"",
    &[0; 40],
    &[0xff; 40],
    b"\x00\x00\x00\x01a\x00\x00\x00\x02bc",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff\x00",
    b"\x00\x10\x00\x00\x00\x10\x00\x01\x01\x00\x00\x00",
    b"stats\r\n\r\nquit\nabc\r",
];

fn story<const N: usize>(packets: [&[u8]; N], end: End) -> Story {
    (packets.into_iter().map(<[u8]>::to_vec).collect(), end)
}

fn waits(have: usize, want: Option<usize>) -> End {
    End::Waits { have, want }
}

fn too_large(len: usize, max: usize) -> FrameError {
    FrameError::TooLarge { len, max }
}

fn frame(payload: std::ops::Range<usize>, consumed: usize) -> Result<Decode, FrameError> {
    Ok(Decode::Frame { payload, consumed })
}

/// One seed gives one sequence. Small bytes are more likely, so that small lengths are.
fn random(seed: &mut u64, len: usize) -> Vec<u8> {
    let mut next = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    };
    let mask = [0x03, 0x0f, 0xff, 0xff][(next() >> 62) as usize];
    (0..len).map(|_| next().to_le_bytes()[4] & if next() % 4 == 0 { 0xff } else { mask }).collect()
}

/// Miri is about a hundred times slower than the machine.
const IS_SLOW: bool = cfg!(miri);

/// The number of random bytes in a stream and in a packet.
const LONGEST: usize = if IS_SLOW { 24 } else { 300 };

/// Goal: no cut changes the decoded packets. Method: all 2^n ways to cut the first 12 bytes of every
/// seed, for every kind of framing.
#[test]
fn every_way_to_cut_twelve_bytes_gives_the_same_packets() {
    let framings = [
        Framing::from(LengthField::U8),
        Framing::from(LengthField::U16),
        Framing::from(LengthField::U32.max_packet(300)),
        Framing::from(LengthField::new(3).little_endian().offset(1).adjustment(2)),
        Framing::from(LengthField::new(8)),
        Framing::from(LengthField::U16.adjustment(-2).keep_header().max_packet(9)),
        Framing::from(Lines::new(3)),
        Framing::custom(ZeroEnded),
    ];
    for framing in &framings {
        for seed in SEEDS {
            let stream = &seed[..seed.len().min(if IS_SLOW { 3 } else { 12 })];
            let whole = read(framing, [stream]);
            for cuts in 0..1_u32 << stream.len().saturating_sub(1) {
                let mut pieces = Vec::new();
                let mut start = 0;
                for at in 1..=stream.len() {
                    if at == stream.len() || cuts >> (at - 1) & 1 == 1 {
                        pieces.push(&stream[start..at]);
                        start = at;
                    }
                }
                assert_eq!(read(framing, pieces), whole, "{framing:?} cut {cuts:b}: {stream:?}");
            }
        }
    }
}

/// Goal: the same for a stream longer than a read. Method: for each length, this many bytes are
/// decoded first and the rest after them. Only the remaining bytes are kept, as a connection does.
#[test]
fn every_single_cut_of_64_kilobytes_gives_the_same_packets() {
    let mut seed = 7;
    let mut stream = Vec::new();
    let mut packets = Vec::new();
    while stream.len() < if IS_SLOW { 1 << 7 } else { 1 << 16 } {
        let len = [0, 1, 2, 63, 64, 255, 256, 4_000, 9_000][packets.len() % 9];
        let packet = random(&mut seed, len);
        LengthField::U16.encode(&packet, &mut stream).unwrap();
        packets.push(packet);
    }
    let framing = Framing::default();
    let mut ends = Vec::new();
    let mut at = 0;
    for packet in &packets {
        at += 2 + packet.len();
        ends.push(at);
    }
    for cut in 0..=stream.len() {
        let mut consumed_before = 0;
        let mut seen = 0;
        while let Decode::Frame { payload, consumed } =
            framing.decode(&stream[consumed_before..cut], 0).unwrap()
        {
            assert_eq!(stream[consumed_before..][payload], packets[seen]);
            consumed_before += consumed;
            seen += 1;
            assert_eq!(consumed_before, ends[seen - 1]);
        }
        assert_eq!(seen, ends.partition_point(|end| *end <= cut), "cut at {cut}");
        let left = cut - consumed_before;
        let Some(packet) = packets.get(seen) else {
            assert_eq!(left, 0);
            continue;
        };
        let want = if left < 2 { None } else { Some(2 + packet.len()) };
        assert_eq!(framing.decode(&stream[consumed_before..cut], 0), Ok(Decode::Need(want)));
        let rest = frame(2..2 + packet.len(), 2 + packet.len());
        assert_eq!(framing.decode(&stream[consumed_before..], left), rest, "cut at {cut}");
    }
    assert_eq!(read(&framing, [&stream[..]]).0, packets);
    assert_eq!(read(&framing, stream.chunks(1)), (packets, waits(0, None)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_field_agrees_with_the_naive_one(
        config in prop::array::uniform12(any::<u8>()),
        stream in prop::collection::vec(prop_oneof![0..6_u8, any::<u8>()], 0..LONGEST),
    ) {
        hold_bodies(&[&config[..], &stream].concat());
    }

    #[test]
    fn packets_that_are_sent_are_decoded_to_themselves(
        config in prop::array::uniform12(any::<u8>()),
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..LONGEST), 0..9),
        chunk in 1..700_usize,
    ) {
        let naive = Naive { keep_header: false, ..Naive::choose(&config) };
        let framing = Framing::from(naive.field());
        let (mut wire, mut sent) = (Vec::new(), Vec::new());
        for packet in packets {
            if framing.encode(&packet, &mut wire).is_ok() {
                sent.push(packet);
            }
        }
        prop_assert_eq!(read(&framing, wire.chunks(chunk)), (sent, waits(0, None)));
    }
}

/// Runs the bodies of the fuzz targets.
fn hold_bodies(data: &[u8]) {
    let mut data = data.to_vec();
    if IS_SLOW && data.len() >= CONFIG {
        // The upper byte of the number of bytes that is added to a payload.
        data[CONFIG - 1] = 0;
    }
    framing::framing(&data);
    framing::encode(&data);
}

#[test]
fn the_fuzz_bodies_pass_on_other_protocols() {
    for stream in SEEDS {
        for width in 0..5 {
            for flags in (0..=255).step_by(if IS_SLOW { 255 } else { 7 }) {
                let config: [u8; CONFIG] = [width, flags, 3, 250, 1, 0, 0, 0, 1, 5, 3, 0];
                let stream = if IS_SLOW { &stream[..stream.len().min(5)] } else { stream };
                hold_bodies(&[&config[..], stream].concat());
            }
        }
    }
    hold_bodies(b"short");
}

#[test]
fn the_fuzz_bodies_pass_on_random_bytes() {
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for round in 0..if IS_SLOW { 5 } else { 4_000 } {
        let mut data = random(&mut seed, CONFIG);
        let start = seed;
        data.extend(random(&mut seed, [3, 20, 64, 200, 900][round % 5].min(3 * LONGEST)));
        let done = catch_unwind(|| hold_bodies(&data));
        assert!(done.is_ok(), "round {round}, seed {start:#x}: {data:?}");
    }
}

#[test]
fn an_empty_packet_is_a_packet() {
    let framing = Framing::default();
    let four = story([b"", b"", b"a", b""], waits(0, None));
    assert_eq!(read(&framing, [&b"\0\0\0\0\0\x01a\0\0"[..]]), four);
    assert_eq!(appended(&framing, b"").as_deref(), Some(&b"\0\0"[..]), "only a header");
    assert_eq!(framing.decode(b"", 0), Ok(Decode::Need(None)));
}

#[test]
fn an_incomplete_header_or_packet_waits_and_says_for_how_much() {
    let field = LengthField::U32;
    for have in 0..4 {
        assert_eq!(field.decode(&b"\0\0\0\x05"[..have]), Ok(Decode::Need(None)));
    }
    for have in 4..9 {
        assert_eq!(field.decode(&b"\0\0\0\x05hello"[..have]), Ok(Decode::Need(Some(9))));
    }
    assert_eq!(field.decode(b"\0\0\0\x05hello"), frame(4..9, 9));
    assert_eq!(field.decode(b"\0\0\0\x05hello\0\0"), frame(4..9, 9));
}

#[test]
fn each_width_takes_its_largest_packet_and_refuses_one_byte_more() {
    for (field, width, largest) in
        [(LengthField::U8, 1, 255), (LengthField::U16, 2, 65_535), (LengthField::U32, 4, 1 << 20)]
    {
        assert_eq!(field.effective_max(), largest);
        for len in [0, 1, largest - 1, largest] {
            let frame = appended(&Framing::from(field), &vec![7; len]).unwrap();
            assert_eq!(frame.len(), width + len);
            assert_eq!(read(&Framing::from(field), [&frame[..]]).0, [vec![7; len]]);
        }
        let mut out = Vec::new();
        let refused = field.encode(&vec![7; largest + 1], &mut out);
        assert_eq!((refused, out.capacity()), (Err(too_large(largest + 1, largest)), 0));
    }
    let half = LengthField::U32.max_packet(1 << 24);
    assert_eq!(half.decode(b"\x01\0\0\0"), Ok(Decode::Need(Some(4 + (1 << 24)))));
    assert_eq!(half.decode(b"\x01\0\0\x01"), Err(too_large((1 << 24) + 1, 1 << 24)));
    assert_eq!(half.decode(b"\xff\xff\xff\xff"), Err(too_large(0xffff_ffff, 1 << 24)));
}

#[test]
fn an_oversize_packet_is_refused_at_its_header_and_never_delivered() {
    let framing = Framing::from(LengthField::U16.max_packet(3));
    let refused = || End::Refused(too_large(4, 3));
    assert_eq!(read(&framing, [&b"\0\x04"[..]]), story([], refused()));
    assert_eq!(read(&framing, [&b"\0\x04abcd"[..]]), story([], refused()), "all bytes available");
    assert_eq!(read(&framing, [&b"\0\x03abc\0\x04abcd"[..]]), story([b"abc"], refused()));
    assert_eq!(read(&framing, b"\0\x04\0\x04".chunks(1)), story([], refused()), "dripped");
}

#[test]
fn a_field_may_be_anywhere_in_the_header() {
    let modbus = LengthField::U16.offset(4);
    assert_eq!(modbus.decode(b"abcd\0"), Ok(Decode::Need(None)));
    assert_eq!(modbus.decode(b"abcd\0\x01"), Ok(Decode::Need(Some(7))));
    assert_eq!(modbus.decode(b"abcd\0\x01x"), frame(6..7, 7));
    assert_eq!(appended(&Framing::from(modbus), b"x").unwrap(), b"\0\0\0\0\0\x01x");
    let far = LengthField::U8.offset(u16::MAX);
    let wire = appended(&Framing::from(far), b"x").unwrap();
    assert_eq!((wire.len(), far.decode(&wire)), (65_537, frame(65_536..65_537, 65_537)));
}

#[test]
fn bytes_may_be_in_either_order() {
    let field = LengthField::new(3);
    assert_eq!(field.decode(b"\x01\x00\x02"), Ok(Decode::Need(Some(3 + 0x01_0002))));
    let field = field.little_endian();
    assert_eq!(field.decode(b"\x02\x00\x01"), Ok(Decode::Need(Some(3 + 0x01_0002))));
    let wide = LengthField::new(8).little_endian();
    assert_eq!(appended(&Framing::from(wide), b"ab").unwrap(), b"\x02\0\0\0\0\0\0\0ab");
    assert_eq!(appended(&Framing::from(LengthField::new(3)), b"ab").unwrap(), b"\0\0\x02ab");
}

#[test]
fn a_kept_header_is_delivered_and_filled_in() {
    let tls = LengthField::U16.offset(3).keep_header().max_packet(8);
    assert_eq!(tls.decode(b"\x15\x03\x03\0\x02ab\x16"), frame(0..7, 7));
    assert_eq!(tls.decode(b"\x15\x03\x03\0\x03"), Ok(Decode::Need(Some(8))));
    assert_eq!(tls.decode(b"\x15\x03\x03\0\x04"), Err(too_large(9, 8)), "the header counts");
    assert_eq!(tls.decode(b"\x15\x03\x03\0\0"), frame(0..5, 5));
    let framing = Framing::from(tls);
    assert_eq!(appended(&framing, b"\x15\x03\x03??ab").unwrap(), b"\x15\x03\x03\0\x02ab");
    assert_eq!(appended(&framing, b"\x15\x03\x03?"), None, "no room for the field");
    assert_eq!(appended(&framing, b"\x15\x03\x03??abcd"), None, "above the maximum");
    assert_eq!((framing.max_packet_out(), framing.max_frame_out()), (Some(8), Some(8)));
}

#[test]
fn a_length_may_include_its_own_header() {
    let smpp = LengthField::U32.adjustment(-4);
    assert_eq!(smpp.decode(b"\0\0\0\x06ab"), frame(4..6, 6));
    assert_eq!(smpp.decode(b"\0\0\0\x04"), frame(4..4, 4));
    assert_eq!(appended(&Framing::from(smpp), b"ab").unwrap(), b"\0\0\0\x06ab");
    let byte = LengthField::U8.adjustment(-1);
    assert_eq!(byte.capacity(), 254);
    assert_eq!(appended(&Framing::from(byte), &[0; 254]).map(|frame| frame[0]), Some(255));
    assert_eq!(appended(&Framing::from(byte), &[0; 255]), None, "too long for the field");
}

#[test]
fn a_negative_length_is_refused_with_a_reason() {
    for value in 0..4 {
        let refused = LengthField::U32.adjustment(-4).decode(&[0, 0, 0, value, 1, 2, 3]);
        let Err(FrameError::Bad(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("less than its own header"), "{why}");
    }
    let least = LengthField::new(8).adjustment(i32::MIN);
    assert!(matches!(least.decode(&[0; 8]), Err(FrameError::Bad(_))));
}

#[test]
fn a_length_may_leave_bytes_out() {
    let trailer = LengthField::U8.adjustment(2);
    assert_eq!(trailer.decode(b"\x01a"), Ok(Decode::Need(Some(4))));
    assert_eq!(trailer.decode(b"\x01aCR"), frame(1..4, 4));
    assert_eq!(trailer.capacity(), 257);
    assert_eq!(appended(&Framing::from(trailer), b"aCR").unwrap(), b"\x01aCR");
    assert_eq!(appended(&Framing::from(trailer), b"a"), None, "the length would be negative");
}

#[test]
fn lengths_up_to_usize_max_never_overflow() {
    let all = [0xff; 16];
    for keep in [false, true] {
        for adjustment in [i32::MIN, -8, 0, 8, i32::MAX] {
            for field in [
                LengthField::new(8).adjustment(adjustment),
                LengthField::new(8).offset(8).adjustment(adjustment),
                LengthField::new(4).adjustment(adjustment),
            ] {
                let field = if keep { field.keep_header() } else { field };
                assert!(matches!(field.decode(&all), Err(FrameError::TooLarge { .. })));
                let open = field.max_packet(usize::MAX);
                assert!(open.effective_max() < usize::MAX);
                assert!(matches!(
                    open.decode(&all),
                    Ok(Decode::Need(Some(_))) | Err(FrameError::TooLarge { .. })
                ));
            }
        }
    }
    let open = LengthField::new(8).max_packet(usize::MAX);
    assert_eq!(open.decode(&all), Err(too_large(usize::MAX, usize::MAX - 9)));
    let most = (usize::MAX - 9).to_be_bytes();
    assert_eq!(open.decode(&most), Ok(Decode::Need(Some(usize::MAX - 1))));
    let open = Framing::from(Lines::new(usize::MAX));
    assert_eq!(read(&open, [&b"a\nb"[..]]), story([b"a"], waits(1, None)));
}

#[test]
fn invalid_framings_are_refused_before_they_are_used() {
    for width in [0, 5, 6, 7, 9, 255] {
        let field = LengthField::new(width);
        assert_eq!(field.check(), Err(FramingProblem::Width(width)));
        assert!(field.decode(&[1; 300]).is_err(), "an invalid field decodes nothing");
        assert_eq!(appended(&Framing::from(field.little_endian()), b"a"), None);
    }
    let field = LengthField::U8.adjustment(-255);
    assert_eq!(field.check(), Ok(()));
    let field = LengthField::U8.adjustment(-256);
    assert_eq!(field.check(), Err(FramingProblem::Adjustment(-256)));
    let field = LengthField::U16.max_packet(65_536);
    let problem = FramingProblem::MaxTooLarge { max: 65_536, capacity: 65_535 };
    assert_eq!((field.check(), field.effective_max()), (Err(problem), 65_535));
    assert_eq!(
        problem.to_string(),
        "a maximum of 65536 bytes exceeds the 65535 that the length field can express"
    );
    let field = LengthField::U16.offset(3).keep_header().max_packet(4);
    let problem = FramingProblem::MaxTooSmall { max: 4, least: 5 };
    assert_eq!(field.check(), Err(problem), "the field lies beyond the maximum");
    let field = LengthField::U8.adjustment(9);
    let problem = FramingProblem::MaxTooSmall { max: 8, least: 9 };
    assert_eq!(Framing::from(field).with_max(8).check(), Err(problem));
    assert_eq!(Framing::split(Raw, field.max_packet(8)).check(), Err(problem));
    assert_eq!(Framing::split(field, Lines::new(0)).check(), Ok(()));
    for width in [1, 2, 3, 4, 8] {
        assert_eq!(LengthField::new(width).check(), Ok(()));
    }
}

#[test]
fn the_listeners_maximum_fills_in_and_is_clamped_to_the_field() {
    let limit = |framing: Framing, max| {
        let framing = framing.with_max(max);
        (framing.max_packet_in().unwrap(), framing.max_packet_out().unwrap())
    };
    assert_eq!(limit(LengthField::U16.into(), 100), (100, 100));
    assert_eq!(limit(LengthField::U16.into(), 1 << 30), (65_535, 65_535));
    assert_eq!(limit(LengthField::U32.into(), 1 << 30), (1 << 30, 1 << 30));
    assert_eq!(limit(LengthField::U32.max_packet(5).into(), 100), (5, 5), "its own wins");
    assert_eq!(limit(Framing::split(LengthField::U8.max_packet(5), LengthField::U8), 9), (5, 9));
    assert_eq!(limit(Lines::new(80).into(), 100), (80, 80));
    assert_eq!(limit(Framing::custom(ZeroEnded), 100), (100, 100));
    assert_eq!(Framing::raw().with_max(1).max_packet_in(), None);
    let refused = Framing::from(LengthField::U16).with_max(100).decode(b"\0\x65", 0);
    assert_eq!(refused, Err(too_large(101, 100)));
    assert_eq!(Framing::default().max_frame_out(), Some(65_537));
    assert_eq!(Framing::from(Lines::new(80)).max_frame_out(), Some(82));
}

#[test]
fn a_listeners_maximum_has_to_fit_the_field_of_the_input() {
    let two = Framing::from(LengthField::U16);
    for fits in [None, Some(0), Some(65_535)] {
        assert_eq!(two.check_max(fits), Ok(()));
    }
    let problem = FramingProblem::MaxTooLarge { max: 65_536, capacity: 65_535 };
    assert_eq!(two.check_max(Some(65_536)), Err(problem));
    assert_eq!(Framing::from(LengthField::U16.max_packet(9)).check_max(Some(65_536)), Ok(()));
    assert_eq!(LengthField::U16.max_packet(65_535).check(), Ok(()), "all that it can express");
    assert_eq!(LengthField::new(0).capacity(), 0);
    let split = Framing::split(LengthField::U32, LengthField::U8);
    assert_eq!(split.check_max(Some(65_536)), Ok(()), "answers are clamped");
    let kept = Framing::from(LengthField::U16.keep_header());
    assert_eq!(kept.check_max(Some(1)), Err(FramingProblem::MaxTooSmall { max: 1, least: 2 }));
    assert_eq!(Framing::custom(ZeroEnded).check_max(Some(usize::MAX)), Ok(()));
}

#[test]
fn plain_prefixes_and_nothing_else_get_the_tight_loop() {
    let plain = |field: LengthField| !matches!(Framing::from(field).shape(), Shape::Other);
    assert!(plain(LengthField::U8) && plain(LengthField::U16) && plain(LengthField::U32));
    assert!(plain(LengthField::U32.max_packet(9)));
    let two = LengthField::U16;
    for other in [two.offset(1), two.adjustment(1), two.keep_header(), two.little_endian()] {
        assert!(!plain(other));
    }
    assert!(!plain(LengthField::new(3)) && !plain(LengthField::new(8)));
    let split = Framing::split(two.max_packet(1), two.max_packet(2));
    let Shape::U16(mut input, output) = split.shape() else { panic!("same width, same loop") };
    assert_eq!(input.next(b"\0\x02", 0), Err(too_large(2, 1)));
    assert_eq!(output.frame(b"abc", &mut Vec::new()), Err(too_large(3, 2)));
    assert!(matches!(Framing::split(two, Raw).shape(), Shape::Other));
    assert_eq!(Prefix::<2>::new(usize::MAX), Prefix::<2>::new(65_535));
}

#[test]
fn the_two_directions_may_differ() {
    let epmd = Framing::split(LengthField::U16, Raw);
    assert_eq!(epmd.decode(b"\0\x01n", 0), frame(2..3, 3));
    assert_eq!(appended(&epmd, b"port").unwrap(), b"port");
    assert_eq!((epmd.max_packet_in(), epmd.max_packet_out()), (Some(65_535), None));
}

#[test]
fn raw_delivers_what_has_arrived_and_never_nothing() {
    let raw = Framing::raw();
    assert_eq!(raw.decode(b"", 0), Ok(Decode::Need(None)));
    assert_eq!(read(&raw, [&b"ab"[..], b"", b"c"]), story([b"ab", b"c"], waits(0, None)));
    assert_eq!(appended(&raw, b"").unwrap(), b"");
}

#[test]
fn lines_end_with_a_line_feed_and_lose_one_return() {
    let lines = Framing::from(Lines::new(5));
    let found = story([b"stats", b"", b"a\rb", b"x\r", b""], waits(2, None));
    assert_eq!(read(&lines, b"stats\r\n\na\rb\nx\r\r\n\r\nab".chunks(1)), found);
    assert_eq!(appended(&lines, b"12345\r").unwrap(), b"12345\r\n");
    assert_eq!(appended(&lines, b"").unwrap(), b"\n");
    assert_eq!(appended(&lines, b"1\n2"), None);
    assert_eq!(lines.encode(b"123456", &mut Vec::new()), Err(too_large(6, 5)));
}

#[test]
fn a_line_too_long_is_refused_at_the_first_byte_too_many() {
    let lines = Lines::new(3);
    let framing = Framing::from(lines);
    assert_eq!(framing.decode(b"abc", 2), Ok(Decode::Need(None)));
    assert_eq!(framing.decode(b"abc\r", 3), Ok(Decode::Need(None)), "may be the end");
    assert_eq!(framing.decode(b"abc\r\n", 4), frame(0..3, 5));
    for long in [&b"abcd"[..], b"abc\rx", b"abc\r\r\n", b"abcd\n", b"abcd\r\n", b"abcdefgh\nok\n"] {
        assert_eq!(framing.decode(long, 0), Err(too_large(4, 3)), "{long:?}");
    }
    assert_eq!(framing.decode(&vec![b'x'; 1 << 20], 0), Err(too_large(4, 3)));
}

/// Goal: a line that comes byte by byte costs linear time. Method: bytes that were searched before
/// are replaced by line feeds; a second search would find them.
#[test]
fn a_dripped_line_is_not_searched_again() {
    let lines = Framing::from(Lines::new(1_000));
    let mut input = Vec::new();
    for _ in 0..1_000 {
        let seen = input.len();
        input.fill(b'\n');
        input.push(b'x');
        assert_eq!(lines.decode(&input, seen), Ok(Decode::Need(None)));
    }
    input.fill(b'\n');
    input.push(b'\n');
    assert_eq!(lines.decode(&input, 1_000), frame(0..1_000, 1_001));
}

/// Counts the bytes that a framer examines if it relies on `scanned`.
struct Counting(Arc<AtomicUsize>);

impl Framer for Counting {
    fn decode(&self, input: &[u8], scanned: usize) -> Result<Decode, FrameError> {
        self.0.fetch_add(input.len() - scanned, Ordering::Relaxed);
        ZeroEnded.decode(input, scanned)
    }

    fn encode(&self, _payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(b"half a ");
        panic!("on purpose");
    }
}

#[test]
fn a_custom_framer_gets_the_length_that_it_has_scanned() {
    let examined = Arc::new(AtomicUsize::new(0));
    let framing = Framing::custom(Counting(Arc::clone(&examined)));
    let stream = [&[b'x'; 999][..], b"\0"].concat();
    assert_eq!(read(&framing, stream.chunks(1)).0, [vec![b'x'; 999]]);
    assert_eq!(examined.load(Ordering::Relaxed), 1_000, "each byte once");
}

#[test]
fn a_framer_that_errs_or_panics_leaves_no_half_packet() {
    assert_eq!(appended(&Framing::custom(ZeroEnded), b"a\0b"), None);
    let framing = Framing::custom(Counting(Arc::default()));
    let mut out = b"earlier".to_vec();
    let done = catch_unwind(AssertUnwindSafe(|| framing.encode(b"packet", &mut out)));
    assert!(done.is_err());
    assert_eq!(out, b"earlier");
}

#[test]
fn a_custom_frame_above_the_maximum_is_refused_as_soon_as_it_is_known() {
    let framing = Framing::custom(LengthField::U16).with_max(5);
    assert_eq!(framing.decode(b"\0\x03abc", 0), frame(2..5, 5), "the whole frame counts");
    assert_eq!(framing.decode(b"\0\x04", 0), Err(too_large(6, 5)), "announced");
    let framing = Framing::custom(ZeroEnded).with_max(3);
    assert_eq!(framing.decode(b"ab\0", 0), frame(0..2, 3));
    assert_eq!(framing.decode(b"abc", 0), Ok(Decode::Need(None)));
    assert_eq!(framing.decode(b"abcd", 3), Err(too_large(4, 3)), "available");
    assert_eq!(framing.decode(b"abc\0", 0), Err(too_large(4, 3)), "all bytes available");
    assert_eq!(appended(&framing, b"ab").unwrap(), b"ab\0");
    assert_eq!(appended(&framing, b"abc"), None, "with its end it is too large");
}

/// Goal: a framer may delegate to the built-in framings. Method: each of them as a framing and as a
/// framer.
#[test]
fn built_in_framings_are_framers_too() {
    fn same(framer: impl Framer + Into<Framing> + Copy + 'static) {
        let (own, given) = (Framing::custom(framer), framer.into());
        let bytes = appended(&given, b"packet").unwrap();
        assert_eq!(appended(&own, b"packet").unwrap(), bytes);
        assert_eq!(own.decode(&bytes, 0), given.decode(&bytes, 0));
    }
    same(LengthField::U16);
    same(LengthField::new(3).little_endian());
    same(Lines::new(80));
    same(Raw);
}

/// Prints the output that it writes to.
struct Printing;

impl Framer for Printing {
    fn decode(&self, _input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
        Ok(Decode::Need(None))
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        let before = out.is_empty();
        out.put(payload);
        let text = format!("{before} {} {out:?}", out.is_empty());
        out.put(text.as_bytes());
        Ok(())
    }
}

#[test]
fn an_invalid_answer_of_a_framer_is_recognised() {
    let frame = |start, end, consumed| Decode::Frame { payload: start..end, consumed };
    assert!(frame(2, 5, 6).is_valid(6) && frame(0, 0, 1).is_valid(1));
    assert!(Decode::Need(None).is_valid(0) && Decode::Need(Some(9)).is_valid(3));
    assert!(!frame(0, 0, 0).is_valid(3), "nothing consumed");
    assert!(!frame(0, 3, 4).is_valid(3), "more than available");
    assert!(!frame(0, 3, 2).is_valid(3), "the packet is not within");
    assert!(!frame(2, 1, 3).is_valid(3), "backwards");
}

#[test]
fn types_are_small_and_print_what_they_are() {
    assert!(size_of::<LengthField>() <= 24);
    assert!(size_of::<Framing>() <= 64);
    let framing = Framing::split(Framing::custom(ZeroEnded), Raw);
    let text = "Framing { input: Custom { max: 1048576 }, output: Raw }";
    assert_eq!(format!("{framing:?}"), text);
    let written = appended(&Framing::custom(Printing), b"ab").unwrap();
    assert_eq!(written, b"abtrue false Output { len: 2, .. }");
    assert_eq!(format!("{:?}", Framing::default().clone()), {
        format!("Framing {{ input: {:?}, output: {:?} }}", LengthField::U16, LengthField::U16)
    });
}
