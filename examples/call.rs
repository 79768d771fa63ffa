//! Sends packets from the command line or from stdin, and prints the answers, one a line. It is
//! easier to use than `printf '\x00\x04ping' | nc`.
//!
//! ```text
//! cargo run --release --example echo &
//! cargo run --release --example call -- localhost:5555 ping "two words" ""
//! cargo run --release --example call -- localhost:5555 --hex 00ff "de ad be ef"
//! cargo run --release --example call -- localhost:5555 --timeout 500 -          # type away
//! ```
//!
//! The first call prints `ping`, `two words` and an empty line, the second `00ff` and `deadbeef`.
//! For servers with a length of another width, use `--len 1` or `--len 4`.
//!
//! The program expects one answer for each packet. It sends all packets of the command line before
//! it waits for the first answer. With `-`, each line of stdin is a packet, without its line feed.
//! The program then waits for the answer before it reads the next line. It sends the bytes of
//! arguments and lines unchanged. It prints an answer that is no text in escaped form.
//!
//! `--help` lists the exit statuses. If the reader of stdout is gone (`| head -1`), the program
//! ends without an error message.
//!
//! What it shows: `condor::client::Client`, the blocking client, works with any server.

use std::ffi::OsString;
use std::io::{self, BufRead, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use condor::client::{Client, ClientError};
use condor::{Endpoint, LengthField};

/// Sends packets and prints the answers.
#[derive(Debug, Parser)]
#[command(
    after_help = "Exit status: 0 if every packet was answered; 1 if the server cannot be reached, \
        closes the connection or does not answer in time, or if the answers cannot be written; 2 \
        if a packet is not valid: an argument, or a line of stdin."
)]
struct Arguments {
    /// The server, by address or by name; `:PORT` is on 127.0.0.1, `unix:PATH` is a Unix socket
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// Packets and answers are hexadecimal digits; spaces between them do not matter
    #[arg(long)]
    hex: bool,
    /// Bytes of the length in front of each packet: 1, 2 or 4
    #[arg(long, value_name = "N", default_value = "2", value_parser = length_field)]
    len: LengthField,
    /// How long to wait for each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// The packets to send. A single `-` means stdin, one packet per line; to send `-` itself, use
    /// `--hex 2d`
    #[arg(required = true)]
    packet: Vec<OsString>,
}

fn length_field(width: &str) -> Result<LengthField, &'static str> {
    match width {
        "1" => Ok(LengthField::U8),
        "2" => Ok(LengthField::U16),
        "4" => Ok(LengthField::U32),
        _ => Err("a length has 1, 2 or 4 bytes"),
    }
}

/// Why not every packet was answered.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Server(#[from] ClientError),
    #[error("{0}")]
    Packet(String),
    #[error("cannot read stdin: {0}")]
    Stdin(io::Error),
    #[error("cannot write the answers: {0}")]
    Output(io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Output(_) if self.is_closed_stdout() => 0,
            Self::Server(_) | Self::Output(_) => 1,
            Self::Packet(_) | Self::Stdin(_) => 2,
        }
    }

    /// Whether the reader of stdout is gone, as after `| head -1`. That is not an error of this
    /// program. A full disk is an error.
    fn is_closed_stdout(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == ErrorKind::BrokenPipe)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let Err(failure) = run(&arguments) else { return ExitCode::SUCCESS };
    if !failure.is_closed_stdout() {
        let _ = writeln!(io::stderr(), "call: {failure}");
    }
    ExitCode::from(failure.exit_code())
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let from_stdin = arguments.packet == ["-"];
    let mut packets = Vec::new();
    for packet in arguments.packet.iter().filter(|_| !from_stdin) {
        if packet == "-" {
            let why = "`-` means stdin and goes with no other packets; to send `-`, use --hex 2d";
            return Err(Failure::Packet(why.into()));
        }
        packets.push(arguments.bytes_of(packet.as_bytes())?);
    }
    // The same meaning as in the `--listen` option of the servers.
    let host = if arguments.server.starts_with(':') { "127.0.0.1" } else { "" };
    let client = if arguments.server.starts_with("unix:") {
        let endpoint: Endpoint =
            arguments.server.parse().map_err(|error| Failure::Packet(format!("{error}")))?;
        Client::connect_to(&endpoint)?
    } else {
        Client::connect(format!("{host}{}", arguments.server))?
    };
    let mut client =
        client.framing(arguments.len).timeout(Duration::from_millis(arguments.timeout));
    if from_stdin {
        return converse(arguments, &mut client);
    }
    client.send_all(&packets).map_err(unsendable)?;
    for _ in &packets {
        arguments.print(&client.receive()?)?;
    }
    Ok(())
}

/// A packet that the length cannot express is not the server's fault.
fn unsendable(error: ClientError) -> Failure {
    match error {
        ClientError::Frame(error) => Failure::Packet(error.to_string()),
        other => other.into(),
    }
}

/// Sends each line of stdin as a packet, and waits for its answer.
fn converse(arguments: &Arguments, client: &mut Client) -> Result<(), Failure> {
    for (number, line) in (1..).zip(io::stdin().lock().split(b'\n')) {
        let in_line = |failure| match failure {
            Failure::Packet(why) => Failure::Packet(format!("line {number} of stdin: {why}")),
            other => other,
        };
        let packet = arguments.bytes_of(&line.map_err(Failure::Stdin)?).map_err(in_line)?;
        client.send(packet).map_err(unsendable).map_err(in_line)?;
        arguments.print(&client.receive()?)?;
    }
    Ok(())
}

impl Arguments {
    /// The packet that `text` stands for.
    fn bytes_of(&self, text: &[u8]) -> Result<Vec<u8>, Failure> {
        if !self.hex {
            return Ok(text.to_vec());
        }
        let shown = text.escape_ascii();
        let mut digits = Vec::new();
        for byte in text.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            let digit = char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            digits.push(digit.ok_or_else(|| {
                let what = byte.escape_ascii();
                Failure::Packet(format!("`{shown}`: `{what}` is no hexadecimal digit"))
            })?);
        }
        let (pairs, rest) = digits.as_chunks();
        if !rest.is_empty() {
            let count = digits.len();
            let why = format!("`{shown}`: {count} hexadecimal digits, and a byte takes two");
            return Err(Failure::Packet(why));
        }
        Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
    }

    /// Prints an answer on a line of its own.
    fn print(&self, answer: &[u8]) -> Result<(), Failure> {
        let line = match std::str::from_utf8(answer) {
            _ if self.hex => answer.iter().map(|byte| format!("{byte:02x}")).collect(),
            Ok(text) if !text.contains(char::is_control) => text.to_owned(),
            _ => answer.escape_ascii().to_string(),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::Output)
    }
}
