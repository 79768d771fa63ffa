//! Sends packets from the command line and prints the answers, one a line: nobody needs
//! `printf '\x00\x04ping' | nc`.
//!
//! ```text
//! cargo run --release --example echo &
//! cargo run --release --example call -- 127.0.0.1:5555 ping "two words" ""
//! cargo run --release --example call -- 127.0.0.1:5555 --timeout 500 one more
//! ```
//!
//! The first prints `ping`, `two words` and an empty line; `--len 1` and `--len 4` are for servers
//! with other lengths. All packets are sent before the first answer is waited for, and one answer
//! is expected for each; bytes that are no text are shown escaped. A server that closes early, or
//! says nothing, is an error on stderr and exit status 1.
//!
//! What it shows: `condor::client::Client`, the blocking client, works against any server.

use std::io::Write;
use std::time::Duration;

use clap::Parser;
use condor::LengthField;
use condor::client::{Client, ClientError};

/// Sends packets and prints the answers.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server
    #[arg(value_name = "ADDR:PORT")]
    server: String,
    /// Bytes of the length in front of each packet: 1, 2 or 4
    #[arg(long, value_name = "N", default_value = "2", value_parser = length_field)]
    len: LengthField,
    /// How long to wait for each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000)]
    timeout: u64,
    /// What to send
    #[arg(required = true)]
    packet: Vec<String>,
}

fn length_field(width: &str) -> Result<LengthField, &'static str> {
    match width {
        "1" => Ok(LengthField::U8),
        "2" => Ok(LengthField::U16),
        "4" => Ok(LengthField::U32),
        _ => Err("a length has 1, 2 or 4 bytes"),
    }
}

fn main() {
    if let Err(error) = run(&Arguments::parse()) {
        eprintln!("call: {error}");
        std::process::exit(1);
    }
}

fn run(arguments: &Arguments) -> Result<(), ClientError> {
    let mut client = Client::connect(&arguments.server)?
        .framing(arguments.len)
        .timeout(Duration::from_millis(arguments.timeout));
    client.send_all(&arguments.packet)?;
    let mut out = std::io::stdout().lock();
    for _ in &arguments.packet {
        let answer = client.receive()?;
        match std::str::from_utf8(&answer) {
            Ok(text) if !text.contains(char::is_control) => writeln!(out, "{text}")?,
            _ => writeln!(out, "{}", answer.escape_ascii())?,
        }
    }
    Ok(())
}
