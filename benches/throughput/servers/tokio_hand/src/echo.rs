//! Every frame goes back to its sender.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use common::{LONGEST_FRAME, Options, whole_frames};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

thread_local! {
    /// Borrowed only within one poll, so that one buffer serves every task.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST_FRAME]);
}

pub(crate) async fn run(options: &Options) -> io::Result<()> {
    let listener = crate::listen(options)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A peer that goes away is not this server's concern.
        tokio::spawn(async move { serve(stream).await.ok() });
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut held = Vec::new();
    while let Some(unsent) = poll_fn(|cx| answer_once(&mut stream, &mut held, cx)).await? {
        if !unsent.is_empty() {
            stream.write_all(&unsent).await?;
        }
    }
    Ok(())
}

/// One read and one write. Gives what the kernel did not take, or `None` at the end of the stream.
fn answer_once(
    stream: &mut TcpStream,
    held: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Vec<u8>>>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut input = ReadBuf::new(buffer);
        input.put_slice(held);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut input))?;
        let have = input.filled();
        if have.len() == held.len() {
            return Poll::Ready(Ok(None));
        }
        let (frames, rest) = have.split_at(whole_frames(have));
        *held = rest.to_vec();
        let sent = if frames.is_empty() { 0 } else { try_write(stream, frames)? };
        Poll::Ready(Ok(Some(frames[sent..].to_vec())))
    })
}

fn try_write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
