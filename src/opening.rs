//! A connection that is opening: what it does before it gets a slot and a handler. Its PROXY header is
//! read.
//!
//! A look at the bytes in the kernel shows where the header ends. Exactly so many are read. So the
//! bytes behind the header stay where the handler's reads find them, on whichever shard that is, and
//! a connection that has sent nothing needs no memory.

use std::io::{self, ErrorKind};

use crate::endpoint::Endpoint;
use crate::error::OpeningError;
use crate::proxy::{Proxy, ProxyHeader};
use crate::stream::Stream;
use crate::wheel::Tick;

/// How far a connection has come.
pub(crate) enum Look {
    /// Bytes are missing.
    Waits,
    /// Its header is read.
    Introduced(ProxyHeader),
    Failed(OpeningError),
}

/// A connection that is opening.
#[derive(Debug)]
pub(crate) struct Opening<S> {
    pub(crate) stream: S,
    /// The other end of the stream, which is the proxy if all goes well.
    pub(crate) addr: Endpoint,
    /// A handle has given it to this part of the listener. Otherwise a part for it is found when it
    /// opens.
    pub(crate) is_adopted: bool,
    /// It is registered for events.
    pub(crate) is_watched: bool,
    /// The bytes of its header that were read.
    pub(crate) head: Vec<u8>,
    /// An event has announced it, and it was not looked at since.
    pub(crate) is_announced: bool,
    /// When it has to be open.
    pub(crate) until: Tick,
}

impl<S> Opening<S> {
    pub(crate) fn new(stream: S, addr: Endpoint, is_adopted: bool, until: Tick) -> Self {
        Self {
            stream,
            addr,
            is_adopted,
            is_watched: false,
            head: Vec::new(),
            is_announced: false,
            until,
        }
    }
}

impl<S: Stream> Opening<S> {
    /// Looks at the bytes that have arrived, and reads the header if it is complete. `buffer` is memory
    /// for that.
    pub(crate) fn look(&mut self, proxy: &Proxy, buffer: &mut Vec<u8>) -> Look {
        loop {
            let had = self.head.len();
            buffer.resize(proxy.max_header, 0);
            buffer[..had].copy_from_slice(&self.head);
            let count = match retried(|| self.stream.peek(&mut buffer[had..])) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Look::Waits,
                // A check may end with a reset.
                Ok(0) | Err(_) if had == 0 => return Look::Failed(OpeningError::Silent),
                Ok(0) | Err(_) => return Look::Failed(OpeningError::Cut),
                Ok(count) => count,
            };
            let (header, most) = match ProxyHeader::parse(&buffer[..had + count], proxy) {
                Ok(Some((header, length))) => (Some(header), length - had),
                // All of these bytes belong to the header. If they stayed, a peer that has to wait
                // for room would never send the others.
                Ok(None) => (None, count),
                Err(error) => return Look::Failed(error.into()),
            };
            match (self.read(most), header) {
                (Ok(()), Some(header)) => return Look::Introduced(header),
                (Ok(()), None) => {}
                (Err(error), _) if error.kind() == ErrorKind::WouldBlock => return Look::Waits,
                (Err(_), _) => return Look::Failed(OpeningError::Cut),
            }
        }
    }

    /// Reads so many bytes of the header, which are there. After an error some of them may be read.
    fn read(&mut self, most: usize) -> io::Result<()> {
        let mut at = self.head.len();
        let end = at + most;
        self.head.resize(end, 0);
        while at < end {
            match retried(|| self.stream.read(&mut self.head[at..])) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => at += count,
                Err(error) => {
                    self.head.truncate(at);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Repeats a call that a signal has interrupted.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
