//! `echo_client PORT WIDTH PACKETS`: sends so many packets through tokio-util's
//! `LengthDelimitedCodec` without waiting, and demands them back in order.

use std::error::Error;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

fn packet(index: usize, longest: usize) -> Bytes {
    let len = index * 7919 % (longest + 1);
    (0..len).map(|i| (index + i).to_le_bytes()[0]).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<usize> =
        std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let [port, width, packets] = arguments[..] else {
        return Err("usage: echo_client PORT WIDTH PACKETS".into());
    };
    let longest = if width == 1 { 255 } else { 60_000 };
    let codec = || {
        LengthDelimitedCodec::builder()
            .length_field_length(width)
            .max_frame_length(longest)
            .new_codec()
    };
    let stream = TcpStream::connect(("127.0.0.1", u16::try_from(port)?)).await?;
    let (read, write) = stream.into_split();
    let mut answers = FramedRead::new(read, codec());
    let mut requests = FramedWrite::new(write, codec());
    let send = async {
        for index in 0..packets {
            requests.feed(packet(index, longest)).await?;
        }
        SinkExt::<Bytes>::close(&mut requests).await?; // flushes, and shuts the sending side down
        Ok::<_, Box<dyn Error>>(())
    };
    let receive = async {
        for index in 0..packets {
            let answer = answers.next().await.ok_or("the connection ended early")??;
            if answer != packet(index, longest) {
                return Err(format!("packet {index} came back as {} bytes", answer.len()).into());
            }
        }
        match answers.next().await {
            None => Ok::<_, Box<dyn Error>>(()),
            Some(_) => Err("a packet too many".into()),
        }
    };
    tokio::try_join!(send, receive)?;
    println!("{packets} packets");
    Ok(())
}
