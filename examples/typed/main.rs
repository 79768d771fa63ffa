//! A store of values by name, for typed requests. A request is decoded without a copy: its name and
//! its value are in the packet. An answer is encoded straight into the output.
//!
//! ```text
//! cargo run --release --example typed -- --listen 127.0.0.1:5555
//! ```
//!
//! A packet is a value of [`Request`] or [`Answer`] in the format of postcard. Each connection has a
//! store of its own. In another terminal, with bash, this puts the value `red` under the name `sky`
//! and gets it back:
//!
//! ```text
//! exec 3<>/dev/tcp/127.0.0.1/5555
//! printf '\0\x09\x01\x03sky\x03red\0\x05\x00\x03sky' >&3; head -c 10 <&3 | od -c
//! ```

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use condor::{
    CloseReason, Codec, Context, ListenerOptions, PacketWriter, Reactor, Typed, TypedAction,
    TypedHandler,
};
use serde::{Deserialize, Serialize, Serializer};

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
enum Request<'a> {
    Get(&'a str),
    Put(&'a str, &'a [u8]),
    Remove(&'a str),
    Count,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer<'a> {
    Done,
    Missing,
    Value(#[serde(serialize_with = "as_bytes")] &'a [u8]),
    Count(u32),
}

/// Without it, serde writes each byte by itself.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

struct Postcard;

impl Codec for Postcard {
    type Request<'a> = Request<'a>;
    type Answer<'a> = Answer<'a>;

    fn decode<'a>(&self, packet: &'a [u8]) -> Result<Request<'a>, CloseReason> {
        match postcard::take_from_bytes(packet) {
            Ok((request, [])) => Ok(request),
            _ => Err(CloseReason::Custom("not a request")),
        }
    }

    fn encode(&self, answer: &Answer<'_>, out: &mut PacketWriter<'_>) -> Result<(), CloseReason> {
        // If the writer refuses, `send_with` returns its reason.
        postcard::to_io(answer, out).map_err(|_| CloseReason::Custom("not an answer"))?;
        Ok(())
    }
}

/// The state of one connection.
#[derive(Default)]
struct Store {
    values: BTreeMap<String, Vec<u8>>,
}

/// The most values of one connection.
const VALUES: usize = 1_000;

impl TypedHandler<Postcard> for Store {
    type Message = ();

    fn handle<'a>(
        &'a mut self,
        request: Request<'a>,
        _ctx: &mut Context<'_, ()>,
    ) -> TypedAction<Answer<'a>> {
        let answer = match request {
            Request::Get(name) => match self.values.get(name) {
                Some(value) => Answer::Value(value),
                None => Answer::Missing,
            },
            Request::Put(name, value) => {
                if self.values.len() == VALUES && !self.values.contains_key(name) {
                    return TypedAction::Stop(CloseReason::Custom("too many values"));
                }
                self.values.insert(name.to_owned(), value.to_owned());
                Answer::Done
            }
            Request::Remove(name) => match self.values.remove(name) {
                Some(_) => Answer::Done,
                None => Answer::Missing,
            },
            Request::Count => Answer::Count(u32::try_from(self.values.len()).unwrap_or(u32::MAX)),
        };
        TypedAction::Send(answer)
    }
}

/// A store of values by name, for typed requests.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; `:PORT` is on 127.0.0.1, and port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5555")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_log("info");
    common::exit_code("typed", serve(&arguments))
}

fn serve(arguments: &Arguments) -> Result<(), condor::Error> {
    let mut reactor = Reactor::new()?;
    let options = ListenerOptions::new(arguments.listen);
    let make = |_: &condor::Accepted<'_>| Typed::new(Postcard, Store::default());
    let listener = reactor.start_listener("typed", options, make)?;
    common::drain_on_signals(reactor.handle())?;
    common::say(format_args!("listening on {}", listener.local_addr()));
    reactor.run()
}

#[cfg(test)]
mod tests {
    use condor::testing::Harness;

    use super::*;

    fn store() -> Harness<Typed<Postcard, Store>> {
        Harness::of(Typed::new(Postcard, Store::default()))
    }

    fn ask(harness: &Harness<Typed<Postcard, Store>>, request: &Request<'_>) -> Vec<u8> {
        harness.packet(postcard::to_stdvec(request).unwrap());
        harness.packets().remove(0)
    }

    /// Goal: each request gets its answer. Method: a client's requests, one after the other.
    #[test]
    fn requests_are_answered() {
        let harness = store();
        let value = [7; 300];
        for (request, answer) in [
            (Request::Get("sky"), Answer::Missing),
            (Request::Put("sky", b"red"), Answer::Done),
            (Request::Put("sky", &value), Answer::Done),
            (Request::Count, Answer::Count(1)),
            (Request::Get("sky"), Answer::Value(&value)),
            (Request::Remove("sky"), Answer::Done),
            (Request::Remove("sky"), Answer::Missing),
        ] {
            let packet = ask(&harness, &request);
            assert_eq!(postcard::from_bytes::<Answer<'_>>(&packet).unwrap(), answer, "{request:?}");
        }
    }

    /// Goal: a request borrows from its packet. Method: where its bytes are.
    #[test]
    fn a_request_is_decoded_without_a_copy() {
        let packet = postcard::to_stdvec(&Request::Put("sky", b"red")).unwrap();
        let Ok(Request::Put(name, value)) = Postcard.decode(&packet) else { panic!("no `Put`") };
        let range = packet.as_ptr_range();
        assert!(range.contains(&name.as_ptr()) && range.contains(&value.as_ptr()));
    }

    /// Goal: what is no request, or has bytes left over, ends the connection.
    #[test]
    fn what_is_no_request_ends_the_connection() {
        for packet in [&b""[..], b"\x09", b"\x00\x05sky", b"\x03\x00", b"\x00\x01\xff"] {
            let harness = store();
            harness.packet(packet);
            assert_eq!(harness.closed(), Some(CloseReason::Custom("not a request")), "{packet:?}");
        }
    }

    /// Goal: a peer cannot make a store grow without limit.
    #[test]
    fn a_store_has_a_limit() {
        let harness = store();
        for number in 0..VALUES {
            ask(&harness, &Request::Put(&number.to_string(), b""));
        }
        ask(&harness, &Request::Put("0", b"again"));
        harness.packet(postcard::to_stdvec(&Request::Put("one more", b"")).unwrap());
        assert_eq!(harness.closed(), Some(CloseReason::Custom("too many values")));
    }
}
