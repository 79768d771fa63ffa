//! `dns_responder ADDR:PORT ZONE`: the answers of the `dns_tcp` example, served by tokio and
//! tokio-util's codec on one thread. It is what the example is measured against.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::answer::{Answers, Reply};

#[path = "../../../../../examples/dns_tcp/answer.rs"]
mod answer;
#[path = "../../../../../examples/dns_tcp/entries.rs"]
mod entries;
#[path = "../../../../../examples/dns_tcp/zone.rs"]
mod zone;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, zone] = &arguments[..] else {
        return Err("usage: dns_responder ADDR:PORT ZONE".into());
    };
    let answers = Arc::new(Answers::new(zone::Zone::load(Path::new(zone))?)?);
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, Arc::clone(&answers)));
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers>) -> Result<(), std::io::Error> {
    let codec = LengthDelimitedCodec::builder().length_field_length(2).new_codec();
    let mut frames = Framed::new(stream, codec);
    let mut out = Vec::new();
    loop {
        // What is pipelined is answered in one write, as the example does.
        let next = match frames.next().now_or_never() {
            Some(next) => next,
            None => {
                SinkExt::<Bytes>::flush(&mut frames).await?;
                frames.next().await
            }
        };
        let Some(query) = next else { break };
        match answers.answer(&query?, &mut out) {
            Reply::Send => frames.feed(Bytes::copy_from_slice(&out)).await?,
            Reply::Ignore => {}
            Reply::HangUp => break,
        }
    }
    SinkExt::<Bytes>::flush(&mut frames).await
}
