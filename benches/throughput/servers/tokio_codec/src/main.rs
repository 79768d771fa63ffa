//! Tokio on the current thread with `LengthDelimitedCodec`, as its documentation shows it.
//!
//! `--mode plain` (the default) answers each frame with `send`; `--mode timeout` adds a deadline
//! for a frame that has begun; `--mode batched` feeds every frame that is already there before it
//! flushes, which the documentation does not show.

use std::future::Future;
use std::io;

use common::{Options, PACKET_TIMEOUT};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::bytes::Bytes;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

type Frames = Framed<TcpStream, LengthDelimitedCodec>;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    match options.mode.as_deref() {
        None | Some("plain") => run(&options, plain),
        Some("timeout") => run(&options, timeout),
        Some("batched") => run(&options, batched),
        Some(other) => {
            Err(io::Error::other(format!("no mode {other:?}: plain, timeout or batched")))
        }
    }
}

fn run<F>(options: &Options, serve: fn(Frames) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(common::listener(options.listen)?)?;
        common::announce(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let frames = LengthDelimitedCodec::builder().length_field_length(2).new_framed(stream);
            // A peer that goes away is not this server's concern.
            tokio::spawn(serve(frames).map(drop));
        }
    })
}

async fn plain(mut frames: Frames) -> io::Result<()> {
    while let Some(frame) = frames.next().await {
        frames.send(frame?.freeze()).await?;
    }
    Ok(())
}

/// The clock runs only while a frame has begun and not ended: an idle connection owes nothing.
async fn timeout(mut frames: Frames) -> io::Result<()> {
    loop {
        if frames.read_buffer().is_empty() {
            frames.get_ref().readable().await?;
        }
        let Some(frame) = tokio::time::timeout(PACKET_TIMEOUT, frames.next()).await? else {
            return Ok(());
        };
        frames.send(frame?.freeze()).await?;
    }
}

async fn batched(mut frames: Frames) -> io::Result<()> {
    while let Some(frame) = frames.next().await {
        frames.feed(frame?.freeze()).await?;
        while let Some(Some(frame)) = frames.next().now_or_never() {
            frames.feed(frame?.freeze()).await?;
        }
        SinkExt::<Bytes>::flush(&mut frames).await?;
    }
    Ok(())
}
