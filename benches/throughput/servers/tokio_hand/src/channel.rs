//! Every frame goes to every connection, through tokio's broadcast channel: each connection has a task
//! that reads and one that writes what the channel has for it.

use std::io;
use std::rc::Rc;

use common::{LONGEST_FRAME, Options, whole_frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::{self, Receiver, Sender};

/// Frames that the channel keeps for the slowest connection.
const CAPACITY: usize = 1024;

pub(crate) async fn run(options: &Options) -> io::Result<()> {
    let listener = crate::listen(options)?;
    let (sender, _) = broadcast::channel::<Rc<[u8]>>(CAPACITY);
    loop {
        let (stream, _) = listener.accept().await?;
        let (input, output) = stream.into_split();
        tokio::task::spawn_local(write(output, sender.subscribe()));
        tokio::task::spawn_local(read(input, sender.clone()));
    }
}

async fn read(mut input: OwnedReadHalf, sender: Sender<Rc<[u8]>>) -> io::Result<()> {
    let (mut buffer, mut held) = (vec![0; LONGEST_FRAME], 0);
    loop {
        let read = input.read(&mut buffer[held..]).await?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        let whole = whole_frames(&buffer[..held]);
        if whole > 0 {
            let _ = sender.send(Rc::from(&buffer[..whole]));
            buffer.copy_within(whole..held, 0);
            held -= whole;
        }
    }
}

async fn write(mut output: OwnedWriteHalf, mut frames: Receiver<Rc<[u8]>>) -> io::Result<()> {
    // A connection that is too slow ends.
    while let Ok(frame) = frames.recv().await {
        output.write_all(&frame).await?;
    }
    Ok(())
}
