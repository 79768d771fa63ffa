//! Keys and values, by lines: PING, GET, SET, DEL, EXISTS, INCR, KEYS and QUIT.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::address;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

#[path = "../../common.rs"]
mod common;

const MAX_CONNECTIONS: usize = 1_000;
const MAX_LINE: usize = 1_024;
const MAX_KEYS: usize = 100_000;

type Store = Arc<Mutex<BTreeMap<String, String>>>;

fn answer(store: &Store, line: &str) -> String {
    let mut keys = store.lock().unwrap();
    let mut words = line.splitn(3, ' ');
    let words = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
    let flag = |is_true| String::from(if is_true { "1" } else { "0" });
    match words {
        ["PING", "", ""] => "PONG".into(),
        ["GET", key, ""] => keys.get(key).cloned().unwrap_or("(nil)".into()),
        ["SET" | "INCR", key, _] if keys.len() >= MAX_KEYS && !keys.contains_key(key) => {
            "ERR too many keys".into()
        }
        ["SET", key, value] => {
            keys.insert(key.into(), value.into());
            "OK".into()
        }
        ["DEL", key, ""] => flag(keys.remove(key).is_some()),
        ["EXISTS", key, ""] => flag(keys.contains_key(key)),
        ["INCR", key, ""] => {
            let number = keys.get(key).map_or(Some(0), |value| value.parse::<i64>().ok());
            let Some(number) = number.and_then(|number| number.checked_add(1)) else {
                return "ERR not a number".into();
            };
            keys.insert(key.into(), number.to_string());
            number.to_string()
        }
        ["KEYS", "", ""] => {
            let lines = keys.keys().map(|key| format!("{key}\n"));
            lines.chain([".".into()]).collect()
        }
        ["QUIT", "", ""] => "OK".into(),
        _ => "ERR unknown request".into(),
    }
}

async fn serve(stream: TcpStream, store: Store) -> Result<(), LinesCodecError> {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_LINE));
    while let Some(line) = lines.next().await.transpose()? {
        lines.send(answer(&store, &line)).await?;
        if line == "QUIT" {
            break;
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let store = Store::default();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address()).await?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let store = store.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(stream, store).await {
                    eprintln!("store: {error}");
                }
                drop(place);
            });
        }
    })
}
