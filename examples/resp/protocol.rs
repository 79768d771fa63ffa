//! RESP2, the protocol of Redis: a framer that finds requests, and the parts of a request.
//!
//! A request is an array of strings, such as `*2\r\n$3\r\nGET\r\n$1\r\nx\r\n`, or a line of words.
//! Framing is nested: the array has a length in strings, and each string has a length in bytes. The
//! framer notes where it is in the array, so it parses no string twice.
//!
//! A framer can only end a connection, and Redis says first what is wrong. So a request that is wrong
//! is a packet as well. It ends with the part that is wrong, and [`Request::parse`] finds it there.

use std::borrow::Cow;
use std::fmt;

use condor::{Decode, FrameError, Framer, Output, Partial};

/// The most strings of a request.
pub(crate) const MAX_ARGUMENTS: usize = 1_048_576;
/// The most bytes of a request.
pub(crate) const MAX_REQUEST: usize = 64 * 1024 * 1024;
/// The most bytes of a line: a request of words, or the header of an array or string.
pub(crate) const MAX_LINE: usize = 64 * 1024;
/// The most bytes of a packet: after the longest request, a line may arrive that is too long.
pub(crate) const MAX_PACKET: usize = MAX_REQUEST + MAX_LINE + 1;

/// What is wrong with a request. The texts are those of Redis.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    Count,
    Length,
    NoString(u8),
    LongCount,
    LongLength,
    LongLine,
    Quotes,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "invalid multibulk length",
            Self::Length => "invalid bulk length",
            Self::NoString(byte) => {
                return write!(f, "expected '$', got '{}'", byte.escape_ascii());
            }
            Self::LongCount => "too big mbulk count string",
            Self::LongLength => "too big bulk count string",
            Self::LongLine => "too big inline request",
            Self::Quotes => "unbalanced quotes in request",
        })
    }
}

/// A part of a request, looked for at a place in the input.
#[derive(Debug, PartialEq, Eq)]
enum Part<T> {
    /// It is whole.
    Whole(T),
    /// It goes on behind the input. The number is where it ends, if its header says so.
    Partial(Option<usize>),
    /// It is wrong, and the input up to this place shows it.
    Wrong(Problem, usize),
}

/// The place of the carriage return that ends the header at `at`. No byte before `from` is one.
/// `Err` is the end of a header that is too long.
fn header(input: &[u8], at: usize, from: usize) -> Result<Option<usize>, usize> {
    let most = at + MAX_LINE + 1;
    let window = &input[..input.len().min(most)];
    match window[from.min(window.len())..].iter().position(|byte| *byte == b'\r') {
        // As Redis does, it skips the byte that should be a line feed.
        Some(nth) => Ok(Some(from + nth).filter(|end| end + 2 <= input.len())),
        None if window.len() == most => Err(most),
        None => Ok(None),
    }
}

/// The number of a header that is whole, right and short, as nearly all are, and where the header
/// ends. In all other cases [`header`] finds out more.
#[inline(always)]
fn short_header(input: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let (first, rest) = input.get(at..)?.split_first()?;
    if *first != kind {
        return None;
    }
    let mut number = 0;
    for (nth, byte) in rest.iter().take(9).enumerate() {
        match byte {
            b'0'..=b'9' if nth == 0 || number > 0 => {
                number = 10 * number + usize::from(byte - b'0')
            }
            b'\r' if nth > 0 && rest.len() > nth + 1 => return Some((number, at + nth + 3)),
            _ => break,
        }
    }
    None
}

/// The number of strings in the array, and where the first one begins.
fn count(input: &[u8], from: usize) -> Part<(usize, usize)> {
    if let Some((count, end)) = short_header(input, 0, b'*')
        && count <= MAX_ARGUMENTS
    {
        return Part::Whole((count, end));
    }
    match header(input, 0, from) {
        Err(end) => Part::Wrong(Problem::LongCount, end),
        Ok(None) => Part::Partial(None),
        Ok(Some(end)) => match integer(&input[1..end]) {
            // Redis ignores an array of a negative length, too.
            Some(count) if count < 0 => Part::Whole((0, end + 2)),
            _ => Part::Wrong(Problem::Count, end + 2),
        },
    }
}

/// The string at `at`: where its text begins, and where the next string begins.
fn string(input: &[u8], at: usize, from: usize) -> Part<(usize, usize)> {
    let Some((len, start)) = short_header(input, at, b'$') else {
        return match header(input, at, from) {
            Err(end) => Part::Wrong(Problem::LongLength, end),
            Ok(None) => Part::Partial(None),
            Ok(Some(end)) if input[at] != b'$' => {
                Part::Wrong(Problem::NoString(input[at]), end + 2)
            }
            // A length of more digits is too large, or wrong in another way.
            Ok(Some(end)) => Part::Wrong(Problem::Length, end + 2),
        };
    };
    match start + len + 2 {
        next if next > MAX_REQUEST => Part::Wrong(Problem::Length, start),
        next if next > input.len() => Part::Partial(Some(next)),
        next => Part::Whole((start, next)),
    }
}

/// An integer as Redis writes it: no sign `+`, no zeros in front, no spaces.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let (digits, sign) = match text {
        b"0" => return Some(0),
        [b'-', digits @ ..] => (digits, -1),
        digits => (digits, 1),
    };
    if !matches!(digits, [b'1'..=b'9', ..]) {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(sign * digit)
    })
}

/// Finds requests. It is the framer of all connections, so it keeps nothing itself.
#[derive(Debug)]
pub(crate) struct Requests;

impl Framer for Requests {
    fn decode(&self, input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
        self.resume(input, &mut Partial::default())
    }

    fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        // What the last call has noted: where the next string begins, how many strings are left,
        // and the place up to which no end of a line was found.
        let [mut at, mut left, mut from, _] = partial.notes;
        if input.first().is_some_and(|byte| *byte != b'*') {
            return Ok(line(input, partial));
        }
        if at == 0 {
            match count(input, from) {
                Part::Whole(found) => (left, at) = found,
                Part::Wrong(_, end) => return Ok(frame(end)),
                Part::Partial(_) => {
                    partial.notes[2] = input.len().saturating_sub(1);
                    return Ok(Decode::Need(None));
                }
            }
            from = at;
        }
        while left > 0 {
            match string(input, at, from.max(at)) {
                Part::Whole((_, next)) => (at, left) = (next, left - 1),
                Part::Wrong(_, end) => return Ok(frame(end)),
                Part::Partial(end) => {
                    // A header that is whole is parsed again: it has at most 10 bytes.
                    let from = if end.is_some() { at } else { input.len().saturating_sub(1) };
                    partial.notes = [at, left, from, 0];
                    return Ok(Decode::Need(end));
                }
            }
        }
        Ok(frame(at))
    }

    /// Requests are sent only by tests: answers have no framing.
    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(payload);
        Ok(())
    }
}

fn frame(end: usize) -> Decode {
    Decode::Frame { payload: 0..end, consumed: end }
}

/// A request that is a line of words. If the line is too long, the packet has no end of a line.
fn line(input: &[u8], partial: &mut Partial) -> Decode {
    let window = &input[..input.len().min(MAX_LINE + 1)];
    let from = partial.notes[2].min(window.len());
    match window[from..].iter().position(|byte| *byte == b'\n') {
        Some(nth) => frame(from + nth + 1),
        None if window.len() > MAX_LINE => frame(window.len()),
        None => {
            partial.notes[2] = input.len();
            Decode::Need(None)
        }
    }
}

/// One string of a request.
#[derive(Debug, Copy, Clone, Default)]
pub(crate) struct Argument<'a> {
    pub(crate) text: &'a [u8],
    /// The text with its header, and with two bytes behind it.
    whole: &'a [u8],
}

impl<'a> Argument<'a> {
    /// The string as it is in an answer. That is how it came in, so the length need not be written
    /// again. Redis does not look at the two bytes after a text, so they may be any.
    pub(crate) fn framed(&self) -> Cow<'a, [u8]> {
        if self.whole.ends_with(b"\r\n") {
            return Cow::Borrowed(self.whole);
        }
        let len = self.whole.len() - 2;
        Cow::Owned([&self.whole[..len], b"\r\n"].concat())
    }
}

/// A request that is an array of strings.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    packet: &'a [u8],
    /// Where the first string begins.
    start: usize,
    count: usize,
    /// The first strings. Few requests have more.
    first: [Argument<'a>; 3],
}

impl<'a> Request<'a> {
    /// Parses a packet that [`Requests`] has found.
    pub(crate) fn parse(packet: &'a [u8]) -> Result<Self, Problem> {
        let (count, start) = match count(packet, 0) {
            Part::Whole(found) => found,
            Part::Wrong(problem, _) => return Err(problem),
            Part::Partial(_) => return Err(Problem::Count),
        };
        let mut request = Self { packet, start, count, first: Default::default() };
        let mut at = start;
        for nth in 0..count {
            let found = argument(packet, &mut at)?;
            if let Some(first) = request.first.get_mut(nth) {
                *first = found;
            }
        }
        Ok(request)
    }

    /// How many strings it has, the name of the command included.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The string with this number, of the first three. The name of the command is number 0.
    pub(crate) fn nth(&self, nth: usize) -> Argument<'a> {
        self.first[nth]
    }

    /// The strings from this number on.
    pub(crate) fn from(&self, nth: usize) -> impl Iterator<Item = Argument<'a>> + use<'a> {
        let (packet, mut at) = (self.packet, self.start);
        let all = std::iter::from_fn(move || argument(packet, &mut at).ok());
        all.take(self.count).skip(nth)
    }
}

/// The string at `at`, which moves behind it.
fn argument<'a>(packet: &'a [u8], at: &mut usize) -> Result<Argument<'a>, Problem> {
    match string(packet, *at, *at) {
        Part::Whole((start, next)) => {
            let whole = &packet[std::mem::replace(at, next)..next];
            Ok(Argument { text: &packet[start..next - 2], whole })
        }
        Part::Wrong(problem, _) => Err(problem),
        Part::Partial(_) => Err(Problem::Length),
    }
}

/// Turns a line of words into an array of strings. Words in quotes may have spaces and escapes.
pub(crate) fn array_of(line: &[u8]) -> Result<Vec<u8>, Problem> {
    let line = line.strip_suffix(b"\n").ok_or(Problem::LongLine)?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (mut strings, mut count, mut rest) = (Vec::new(), 0, line.trim_ascii_start());
    while !rest.is_empty() {
        let (word, behind) = word(rest).ok_or(Problem::Quotes)?;
        strings.extend(format!("${}\r\n", word.len()).into_bytes());
        strings.extend(word);
        strings.extend(b"\r\n");
        (count, rest) = (count + 1, behind.trim_ascii_start());
    }
    Ok([format!("*{count}\r\n").as_bytes(), &strings].concat())
}

/// The first word of a line, and what is behind it. `None` if a quote is not closed, or if something
/// follows it at once.
fn word(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut word, mut rest, mut quote) = (Vec::new(), line, None);
    loop {
        let Some((&byte, behind)) = rest.split_first() else {
            return quote.is_none().then_some((word, rest));
        };
        rest = behind;
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, space) if space.is_ascii_whitespace() => return Some((word, rest)),
            (Some(open), close) if open == close => {
                let is_end = rest.first().is_none_or(u8::is_ascii_whitespace);
                return is_end.then_some((word, rest));
            }
            (Some(b'\''), b'\\') if rest.first() == Some(&b'\'') => {
                word.push(b'\'');
                rest = &rest[1..];
            }
            (Some(b'"'), b'\\') if !rest.is_empty() => {
                let (escaped, behind) = escape(rest);
                word.push(escaped);
                rest = behind;
            }
            (_, byte) => word.push(byte),
        }
    }
}

/// The byte that an escape stands for, without its backslash, and what is behind the escape.
fn escape(rest: &[u8]) -> (u8, &[u8]) {
    if let [b'x', high, low, behind @ ..] = rest
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return (16 * high + low, behind);
    }
    let byte = match rest[0] {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    };
    (byte, &rest[1..])
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend(*word);
            bytes.extend(b"\r\n");
        }
        bytes
    }

    fn problem(bytes: &[u8]) -> Option<Problem> {
        match Requests.decode(bytes, 0).unwrap() {
            Decode::Frame { payload, .. } if bytes[0] == b'*' => {
                Request::parse(&bytes[payload]).err()
            }
            Decode::Frame { payload, .. } => array_of(&bytes[payload]).err(),
            Decode::Need(_) => None,
        }
    }

    #[test]
    fn what_is_wrong_is_found_in_the_packet_that_ends_with_it() {
        let long = [b'1'; MAX_LINE + 1];
        let cases: [(&[u8], _); 20] = [
            (b"*x\r\n", Problem::Count),
            (b"*\r\n", Problem::Count),
            (b"*01\r\n", Problem::Count),
            (b"*+1\r\n", Problem::Count),
            (b"*1048577\r\n", Problem::Count),
            (b"*99999999999999999999\r\n", Problem::Count),
            (b"*1\r\n$-1\r\n", Problem::Length),
            (b"*1\r\n$\r\n", Problem::Length),
            (b"*1\r\n$ 1\r\n", Problem::Length),
            (b"*2\r\n$4\r\nECHO\r\n$67108864\r\n", Problem::Length),
            (b"*2\r\n$4\r\nECHO\r\n$9223372036854775807\r\n", Problem::Length),
            (b"*2\r\n$4\r\nECHO\r\n:1\r\n", Problem::NoString(b':')),
            (b"*2\r\n$3\r\nECHO\r\n$1\r\n", Problem::NoString(b'\n')),
            (b"*1\r\n*1\r\n", Problem::NoString(b'*')),
            (&[b"*".as_slice(), &long].concat(), Problem::LongCount),
            (&[b"*1\r\n$".as_slice(), &long].concat(), Problem::LongLength),
            (&long, Problem::LongLine),
            (b"echo \"x\r\n", Problem::Quotes),
            (b"echo 'x'y\r\n", Problem::Quotes),
            (b"echo \"x\\\r\n", Problem::Quotes),
        ];
        for (bytes, expected) in cases {
            let shown = bytes[..bytes.len().min(60)].escape_ascii();
            assert_eq!(problem(bytes), Some(expected), "{shown}");
            if bytes.len() < 100 {
                // It says nothing before all of it is there.
                assert_eq!(problem(&bytes[..bytes.len() - 1]), None, "{shown}");
            }
        }
    }

    #[test]
    fn integers_are_those_that_redis_writes() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(integer(number.to_string().as_bytes()), Some(number));
        }
        for text in ["", "-", "-0", "00", "+1", " 1", "1 ", "1a", "9223372036854775808"] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_line_has_words_quotes_and_escapes() {
        let cases: [(&[u8], &[&[u8]]); 7] = [
            (b"\r\n", &[]),
            (b"  ping\n", &[b"ping"]),
            (b"set a\t b \r\n", &[b"set", b"a", b"b"]),
            (b"a \"\" ''\n", &[b"a", b"", b""]),
            (
                br#""\x41\x4g\n\r\t\b\a\"\\"
"#,
                &[b"Ax4g\n\r\t\x08\x07\"\\"],
            ),
            (b"'it\\'s \\n' b\n", &[b"it's \\n", b"b"]),
            (b"a\"b c\"\n", &[b"ab c"]),
        ];
        for (line, words) in cases {
            assert_eq!(array_of(line), Ok(array(words)), "{}", line.escape_ascii());
        }
    }

    /// Whatever lies before the noted place is not read again, so an array of many pieces costs no more
    /// than its length.
    #[test]
    fn no_string_is_parsed_twice() {
        let words: Vec<&[u8]> = (0..2_000).map(|nth| &b"0123456789"[..nth % 10]).collect();
        let mut bytes = array(&words);
        let whole = bytes.len();
        let mut partial = Partial::default();
        for seen in 1..whole {
            let found = Requests.resume(&bytes[..seen], &mut partial).unwrap();
            assert!(matches!(found, Decode::Need(_)), "{found:?} after {seen} bytes");
            let [at, left, ..] = partial.notes;
            assert!(seen < 8 || at > 0 && left <= 2_000 && at + 20 > seen);
            bytes[1..at.max(1)].fill(b'#');
        }
        assert_eq!(Requests.resume(&bytes, &mut partial), Ok(frame(whole)));
    }

    #[test]
    fn the_end_of_a_long_line_is_not_searched_twice() {
        for (start, end) in [(b'*', b'\r'), (b'x', b'\n')] {
            let mut bytes = vec![b'1'; 1_000];
            bytes[0] = start;
            let mut partial = Partial::default();
            for seen in 1..1_000 {
                assert_eq!(Requests.resume(&bytes[..seen], &mut partial), Ok(Decode::Need(None)));
                // An end that appears where it has looked is not found.
                bytes[(seen - 1).saturating_sub(1).max(1)] = if seen > 2 { end } else { b'1' };
            }
        }
    }

    #[test]
    fn the_most_arguments_and_the_most_bytes_are_taken() {
        let bytes = array(&vec![&b""[..]; MAX_ARGUMENTS]);
        assert_eq!(Requests.decode(&bytes, 0), Ok(frame(bytes.len())));
        assert_eq!(Request::parse(&bytes).unwrap().from(1).count(), MAX_ARGUMENTS - 1);
        let header = b"*2\r\n$4\r\nECHO\r\n$67108837\r\n";
        let whole = header.len() + 67_108_837 + 2;
        assert_eq!(whole, MAX_REQUEST);
        assert_eq!(Requests.decode(header, 0), Ok(Decode::Need(Some(whole))));
    }

    #[test]
    fn two_other_bytes_after_a_text_are_replaced() {
        let request = Request::parse(b"*1\r\n$4\r\nPINGxx").unwrap();
        assert_eq!(request.nth(0).text, b"PING");
        assert_eq!(request.nth(0).framed(), &b"$4\r\nPING\r\n"[..]);
    }
}
