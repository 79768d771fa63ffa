//! Each connection has up to eight requests in work. The answers leave in the order of the requests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{WORKERS, address, work};
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

#[path = "../../common.rs"]
mod common;

const MAX_CONNECTIONS: usize = 1_000;

async fn serve(stream: TcpStream) -> io::Result<()> {
    let codec = LengthDelimitedCodec::builder().length_field_type::<u16>().new_codec();
    let (answers, requests) = Framed::new(stream, codec).split();
    requests
        .map_ok(|packet| {
            spawn_blocking(move || Bytes::from(work(&packet))).map_err(io::Error::from)
        })
        .try_buffered(8)
        .forward(answers)
        .await
}

fn main() -> io::Result<()> {
    let runtime =
        Builder::new_current_thread().enable_all().max_blocking_threads(WORKERS).build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address()).await?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            tokio::spawn(async move {
                if let Err(error) = serve(stream).await {
                    eprintln!("window: {error}");
                }
                drop(place);
            });
        }
    })
}
