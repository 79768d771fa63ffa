//! Version 1: one line of text. Section 2.1 of the specification.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

use super::error::ProxyError;

/// The longest line in bytes, its end included.
const MAX_LINE: usize = 107;
const SIGNATURE: &[u8] = b"PROXY";

/// The addresses of the source and the destination.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// Parses the line that `bytes` begins with. Returns the addresses, if it has any, and its length.
/// `Ok(None)` if more bytes are needed.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Option<Ends>, usize)>, ProxyError> {
    let bytes = &bytes[..bytes.len().min(MAX_LINE)];
    let mut line = Line { bytes, at: 0 };
    match line.parse() {
        Ok(ends) => Ok(Some((ends, line.at))),
        Err(Stop::Wrong(error)) => Err(error),
        Err(Stop::More) if bytes.len() == MAX_LINE => Err(ProxyError::LineTooLong),
        Err(Stop::More) => Ok(None),
    }
}

/// Writes the line with these addresses, or the one without addresses. Both are of one family.
pub(crate) fn write(ends: Option<Ends>, out: &mut Vec<u8>) {
    let line = match ends {
        None => String::from("PROXY UNKNOWN\r\n"),
        Some((from, to)) => {
            let family = if from.is_ipv4() { 4 } else { 6 };
            let (from_ip, to_ip) = (from.ip(), to.ip());
            format!("PROXY TCP{family} {from_ip} {to_ip} {} {}\r\n", from.port(), to.port())
        }
    };
    out.extend_from_slice(line.as_bytes());
}

/// Why the line is not parsed any further.
enum Stop {
    /// All bytes so far are right, and there are no more.
    More,
    Wrong(ProxyError),
}

/// A line, and how much of it is parsed. Each method goes on up to the first byte that is wrong.
struct Line<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Line<'_> {
    fn parse(&mut self) -> Result<Option<Ends>, Stop> {
        for &byte in SIGNATURE {
            if self.peek()? != byte {
                return Err(Stop::Wrong(ProxyError::Signature { at: self.at }));
            }
            self.at += 1;
        }
        self.text(b" ", "a space")?;
        let protocol = "TCP4, TCP6 or UNKNOWN";
        if self.peek()? == b'U' {
            self.text(b"UNKNOWN", protocol)?;
            return self.ignored().map(|()| None);
        }
        self.text(b"TCP", protocol)?;
        let address: fn(&mut Self) -> Result<IpAddr, Stop> = match self.peek()? {
            b'4' => Self::ipv4,
            b'6' => Self::ipv6,
            _ => return Err(self.wrong(protocol)),
        };
        self.at += 1;
        self.text(b" ", "a space")?;
        let source = address(self)?;
        self.text(b" ", "a space")?;
        let destination = address(self)?;
        self.text(b" ", "a space")?;
        let source_port = self.port()?;
        self.text(b" ", "a space")?;
        let destination_port = self.port()?;
        self.text(b"\r\n", "CR and LF")?;
        Ok(Some(((source, source_port).into(), (destination, destination_port).into())))
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::More)
    }

    fn wrong(&self, expected: &'static str) -> Stop {
        Stop::Wrong(ProxyError::Line { at: self.at, expected })
    }

    fn text(&mut self, text: &[u8], expected: &'static str) -> Result<(), Stop> {
        for &byte in text {
            if self.peek()? != byte {
                return Err(self.wrong(expected));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// What follows `UNKNOWN`: nothing, or a space and anything, up to the end of the line.
    fn ignored(&mut self) -> Result<(), Stop> {
        if self.peek()? == b'\r' {
            return self.text(b"\r\n", "CR and LF");
        }
        self.text(b" ", "a space, or CR and LF")?;
        let end = self.bytes[self.at..].windows(2).position(|pair| pair == b"\r\n");
        self.at += end.ok_or(Stop::More)? + 2;
        Ok(())
    }

    fn port(&mut self) -> Result<u16, Stop> {
        self.number(|port| u16::try_from(port).ok(), "a port from 0 to 65535")
    }

    /// A decimal number without zeros before it. `fit` converts it, and refuses one that is too large.
    fn number<N>(
        &mut self,
        fit: impl Fn(u32) -> Option<N>,
        expected: &'static str,
    ) -> Result<N, Stop> {
        let start = self.at;
        let mut number = 0;
        let mut fitting = None;
        while let byte @ b'0'..=b'9' = self.peek()? {
            let leads_with_zero = number == 0 && self.at > start;
            number = number * 10 + u32::from(byte - b'0');
            fitting = fit(number).filter(|_| !leads_with_zero);
            if fitting.is_none() {
                return Err(self.wrong(expected));
            }
            self.at += 1;
        }
        fitting.ok_or_else(|| self.wrong(expected))
    }

    fn octet(&mut self) -> Result<u8, Stop> {
        self.number(|octet| u8::try_from(octet).ok(), "a number from 0 to 255 of an IPv4 address")
    }

    fn ipv4(&mut self) -> Result<IpAddr, Stop> {
        let first = self.octet()?;
        let [second, third, fourth] = self.octets()?;
        Ok(Ipv4Addr::new(first, second, third, fourth).into())
    }

    /// The last three numbers of an IPv4 address, with their dots.
    fn octets(&mut self) -> Result<[u8; 3], Stop> {
        let mut octets = [0; 3];
        for octet in &mut octets {
            self.text(b".", "a dot of an IPv4 address")?;
            *octet = self.octet()?;
        }
        Ok(octets)
    }

    /// Goes on up to the first byte with which no IPv6 address can go on, or to the space behind one. A
    /// double colon stands for one group or more. The last two groups may be written as IPv4.
    fn ipv6(&mut self) -> Result<IpAddr, Stop> {
        const EXPECTED: &str = "an IPv6 address";
        let start = self.at;
        // The groups that a colon has ended, the digits of the next one, and whether the double
        // colon has come.
        let (mut groups, mut digits, mut gap) = (0, 0, false);
        loop {
            let room = if gap { 7 } else { 8 };
            let before = self.bytes[start..self.at].iter().rev();
            let colons = before.take_while(|byte| **byte == b':').count();
            match self.peek()? {
                b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F'
                    if digits < 4 && groups < room && (colons != 1 || groups > 0) =>
                {
                    digits += 1;
                }
                b':' if digits > 0 && groups + 1 < room => (groups, digits) = (groups + 1, 0),
                b':' if colons == 1 && !gap => gap = true,
                // The first of the two colons that the text begins with.
                b':' if self.at == start => {}
                b'.' if (groups == 6 && !gap || groups < 6 && gap) && self.ends_octet(digits) => {
                    self.octets()?;
                    break;
                }
                b' ' if colons == 2 || digits > 0 && (gap || groups == 7) => break,
                _ => return Err(self.wrong(EXPECTED)),
            }
            self.at += 1;
        }
        let text = str::from_utf8(&self.bytes[start..self.at]).ok();
        let addr: Option<Ipv6Addr> = text.and_then(|text| text.parse().ok());
        addr.map(IpAddr::from).ok_or_else(|| self.wrong(EXPECTED))
    }

    /// Whether the last digits are a number of an IPv4 address.
    fn ends_octet(&self, digits: usize) -> bool {
        let mut number = Line { bytes: &self.bytes[..self.at], at: self.at - digits };
        digits > 0 && matches!(number.octet(), Err(Stop::More))
    }
}
