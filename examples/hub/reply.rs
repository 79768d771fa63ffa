//! RESP3, the protocol of Redis, as a client needs it: a framer that finds what Redis sends, and its
//! texts.
//!
//! A reply is a line such as `+OK`, or a string with a length, or it has parts: `>3` is pushed, and
//! three replies follow. The framer counts the parts that are still to come. It notes where the next
//! one begins, so it reads no part twice.

use std::ops::Range;

use condor::{Decode, FrameError, Framer, Output, Partial};

/// The longest reply in bytes. A longer one ends the link.
pub(crate) const REPLY_MAX: usize = 1024 * 1024;
/// The longest line in bytes: a text such as that of an error.
const LINE_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Replies;

impl Framer for Replies {
    fn decode(&self, input: &[u8], _scanned: usize) -> Result<Decode, FrameError> {
        self.resume(input, &mut Partial::default())
    }

    fn resume(&self, input: &[u8], partial: &mut Partial) -> Result<Decode, FrameError> {
        let [mut at, before, ..] = partial.notes;
        let mut left = if at == 0 { 1 } else { before };
        while left > 0 {
            let part = part(input, at)?;
            match part {
                Some(Part { next, parts, .. }) if next <= input.len() => {
                    (at, left) = (next, left - 1 + parts);
                }
                _ => {
                    partial.notes = [at, left, 0, 0];
                    return Ok(Decode::Need(part.map(|part| part.next)));
                }
            }
        }
        Ok(Decode::Frame { payload: 0..at, consumed: at })
    }

    fn encode(&self, payload: &[u8], out: &mut Output<'_>) -> Result<(), FrameError> {
        out.put(payload);
        Ok(())
    }
}

struct Part {
    /// Where its text is. A part that has parts has none.
    text: Option<Range<usize>>,
    /// Where the next part begins.
    next: usize,
    /// How many parts it has.
    parts: usize,
}

/// The part at `at`, or `None` if its first line is not whole.
fn part(input: &[u8], at: usize) -> Result<Option<Part>, FrameError> {
    let rest = &input[at..];
    let Some(len) = rest.windows(2).take(LINE_MAX).position(|two| two == b"\r\n") else {
        let is_long = rest.len() > LINE_MAX;
        return if is_long { Err(FrameError::Bad("a line is too long")) } else { Ok(None) };
    };
    let next = at + len + 2;
    let (kind, line) = rest[..len].split_first().ok_or(FrameError::Bad("a line is empty"))?;
    let number = || match line {
        b"-1" => Ok(None),
        digits => {
            let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            let number = number.filter(|number| *number <= REPLY_MAX);
            number.map(Some).ok_or(FrameError::Bad("a length is wrong or too large"))
        }
    };
    let with_parts = |parts| Part { text: None, next, parts };
    Ok(Some(match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
            Part { text: Some(at + 1..at + len), next, parts: 0 }
        }
        b'$' | b'=' => match number()? {
            None => with_parts(0),
            Some(len) => Part { text: Some(next..next + len), next: next + len + 2, parts: 0 },
        },
        b'*' | b'~' | b'>' => with_parts(number()?.unwrap_or(0)),
        b'%' => with_parts(2 * number()?.unwrap_or(0)),
        _ => return Err(FrameError::Bad("this is no reply of Redis")),
    }))
}

/// All texts of a reply that the framer has found, those of its parts included.
pub(crate) fn texts(reply: &[u8]) -> Vec<&[u8]> {
    let (mut texts, mut at) = (Vec::new(), 0);
    while let Ok(Some(part)) = part(reply, at) {
        texts.extend(part.text.and_then(|range| reply.get(range)));
        at = part.next;
    }
    texts
}

/// A request: an array of strings.
pub(crate) fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str =
        "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*0\r\n";
    const MESSAGE: &str = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$8\r\nx\r\n*1\r\ny\r\n";

    #[test]
    fn replies_are_found_wherever_they_are_cut() {
        let replies = [
            "+OK\r\n",
            "-ERR no\r\n",
            ":-1\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n*1\r\n+a\r\n~1\r\n=5\r\ntxt:b\r\n",
            HELLO,
            MESSAGE,
        ];
        for reply in replies {
            let (bytes, mut partial) = (reply.as_bytes(), Partial::default());
            for seen in 0..bytes.len() {
                let found = Replies.resume(&bytes[..seen], &mut partial).unwrap();
                assert!(matches!(found, Decode::Need(_)), "{reply:?} after {seen}");
            }
            let behind = [bytes, b"+"].concat();
            let whole = Decode::Frame { payload: 0..bytes.len(), consumed: bytes.len() };
            assert_eq!(Replies.resume(&behind, &mut partial), Ok(whole.clone()));
            assert_eq!(Replies.decode(&behind, 0), Ok(whole));
        }
    }

    #[test]
    fn no_part_is_read_twice() {
        let mut bytes = b"*2000\r\n".to_vec();
        (0..2_000).for_each(|_| bytes.extend_from_slice(b"$2\r\nab\r\n"));
        let (whole, mut partial) = (bytes.len(), Partial::default());
        for seen in 1..whole {
            assert!(Replies.resume(&bytes[..seen], &mut partial).is_ok());
            let [at, ..] = partial.notes;
            assert!(at + 16 > seen);
            bytes[1..at.max(1)].fill(b'!');
        }
        let found = Replies.resume(&bytes, &mut partial);
        assert_eq!(found, Ok(Decode::Frame { payload: 0..whole, consumed: whole }));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let long = format!("+{}", "x".repeat(LINE_MAX + 1));
        let wrong = ["\r\n", "HTTP/1.1 400\r\n", "$x\r\n", "$-2\r\n", "$1048577\r\n"];
        for text in wrong.into_iter().chain(["*99999999999999999999\r\n", ">\r\n", "%x\r\n", &long])
        {
            assert!(Replies.decode(text.as_bytes(), 0).is_err(), "{text:.20}");
        }
    }

    #[test]
    fn texts_are_those_of_all_parts() {
        let found: [&[u8]; 3] = [b"message", b"a", b"x\r\n*1\r\ny"];
        assert_eq!(texts(MESSAGE.as_bytes()), found);
        assert_eq!(texts(b"-ERR no\r\n"), [b"ERR no"]);
        assert_eq!(texts(b"*3\r\n$-1\r\n_\r\n:1\r\n"), [&b""[..], b"1"]);
        let words: [&[u8]; 2] = [b"PUBLISH", b""];
        assert_eq!(texts(&request(&words)), words);
    }
}
