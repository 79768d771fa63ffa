//! monoio over io_uring, framed by hand. It fails to start where the kernel has no io_uring,
//! rather than fall back to epoll.

use std::io;

use common::{LONGEST_FRAME, Options, whole_frames};
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

/// As many submission entries as the other ring server here.
const ENTRIES: u32 = 1024;
/// The buffer of a connection that has not shown that it needs more.
const SMALL: usize = 4096;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> io::Result<()> {
    let listener = TcpListener::from_std(common::listener(options.listen)?)?;
    common::announce(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A peer that goes away is not this server's concern.
        monoio::spawn(async move { serve(stream).await.ok() });
    }
}

/// The ring takes buffers by value, so every connection owns one for as long as it lives. It
/// begins small and grows when a read fills it.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; SMALL];
    let mut held = 0;
    loop {
        let (result, slice) = stream.read(buffer.slice_mut(held..)).await;
        buffer = slice.into_inner();
        let have = match result? {
            0 => return Ok(()),
            read => held + read,
        };
        let whole = whole_frames(&buffer[..have]);
        if whole > 0 {
            let (result, slice) = stream.write_all(buffer.slice(..whole)).await;
            result?;
            buffer = slice.into_inner();
        }
        buffer.copy_within(whole..have, 0);
        held = have - whole;
        if have == buffer.len() {
            buffer.resize(LONGEST_FRAME.min(2 * have), 0);
        }
    }
}
