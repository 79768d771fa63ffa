//! Soaks a server: mixed load for as long as one likes, and a table of what it came to.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 30
//! ```
//!
//! The server is a process of its own (this program again), so that its descriptors and its memory
//! are nobody else's. The clients are threads here: steady and pipelined, short-lived, slow,
//! nonsensical, silent in the middle of a packet, half-closing, dying, waiting for messages. Every
//! answer is compared with what was asked. All of it stays on 127.0.0.1.
//!
//! It fails if an answer is lost, if the server has more descriptors afterwards than before, or if
//! a handler made was not terminated.

mod clients;
mod report;
mod server;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use clients::Load;
use report::{Sample, Samples};
use server::Figures;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Soaks a server in mixed load, and prints a table.
#[derive(Debug, Parser)]
struct Options {
    /// How long
    #[arg(long, default_value_t = 2)]
    minutes: u64,
    /// Be the server
    #[arg(long, hide = true)]
    serve: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = if options.serve { server::serve().map(|()| true) } else { soak(options.minutes) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The server, in its own process.
struct Server {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Server {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = child.stdin.take().ok_or("the server has no input")?;
        let mut answers = BufReader::new(child.stdout.take().ok_or("the server has no output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        Ok(Self { child, ask, answers, addr: line.trim().parse()? })
    }

    fn figures(&mut self) -> Result<Figures> {
        writeln!(self.ask)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Figures::parse(&line).ok_or_else(|| format!("the server said {line:?}").into())
    }

    fn sample(&self, seconds: f64) -> Result<Sample> {
        Sample::of(self.child.id(), seconds)
    }

    /// Waits until everybody has left, and those who lingered as well.
    fn at_rest(&mut self) -> Result<Figures> {
        for _ in 0..300 {
            let figures = self.figures()?;
            if figures.open == 0 {
                return Ok(figures);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err("connections are left after 30 s".into())
    }

    fn stop(mut self) -> Result<()> {
        drop(self.ask);
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server ended: {status}").into()) }
    }
}

fn soak(minutes: u64) -> Result<bool> {
    let mut server = Server::start()?;
    // One connection before the first look, so that what is made once has been made.
    clients::greet(server.addr)?;
    server.at_rest()?;
    let before = server.sample(0.0)?;

    let bar = ProgressBar::new(minutes * 60).with_style(ProgressStyle::with_template(
        "{elapsed_precise} of {len}s {wide_bar} {msg} (left: {eta})",
    )?);
    let load = Load::start(server.addr);
    let mut samples = Samples::default();
    for second in 1..=minutes * 60 {
        thread::sleep(Duration::from_secs(1));
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let sample = server.sample(second as f64)?;
        let message = format!("{}, {sample}", load.tally());
        if bar.is_hidden() && second % 60 == 0 {
            eprintln!("{second} s: {message}");
        }
        bar.set_message(message);
        bar.inc(1);
        samples.push(sample);
    }
    let tally = load.stop();
    bar.finish_and_clear();
    let figures = server.at_rest()?;
    let after = server.sample(0.0)?;
    server.stop()?;
    Ok(report::print(&tally, &figures, &before, &samples, &after))
}
