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
//! It fails, with exit status 1, if an answer is lost, if the server has more descriptors afterwards
//! than before, or if a handler made was not terminated. Ctrl-C or SIGTERM ends it early: the
//! clients finish what they are at, the table tells what it has come to, and the exit status is 130
//! if all was well so far. The second one ends it at once.

mod clients;
mod report;
mod server;

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use clients::Load;
use report::{Sample, Samples};
use server::Figures;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Exit status after a signal: 128 and SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// Soaks a server in mixed load, and prints a table.
#[derive(Debug, Parser)]
#[command(
    after_help = "Exit status: 0 if all is well; 1 if an answer, a descriptor or a handler was \
                        lost; 130 if a signal ended it early and all was well so far."
)]
struct Options {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    minutes: u64,
    /// Be the server
    #[arg(long, hide = true)]
    serve: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // What the clients do is meant to be worth a warning.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let done = if options.serve {
        server::serve().map(|()| ExitCode::SUCCESS)
    } else {
        soak(options.minutes)
    };
    done.unwrap_or_else(|error| {
        complain(&format!("soak: {error}"));
        ExitCode::FAILURE
    })
}

/// Prints a line to stderr, if it is still open.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
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
            .process_group(0) // Ctrl-C is for the clients: they end, then the server
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

/// Something comes out when the first signal has come in.
fn first_signal() -> Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() && tell.send(()).is_ok() && signals.next().is_some() {
            process::exit(INTERRUPTED.into());
        }
    });
    Ok(told)
}

fn soak(minutes: u64) -> Result<ExitCode> {
    let interrupted = first_signal()?;
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
    let mut was_interrupted = false;
    for second in 1..=minutes * 60 {
        if interrupted.recv_timeout(Duration::from_secs(1)).is_ok() {
            was_interrupted = true;
            bar.suspend(|| complain("the clients finish what they are at; again ends at once"));
            break;
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let sample = server.sample(second as f64)?;
        let message = format!("{}, {sample}", load.tally());
        if bar.is_hidden() && second % 60 == 0 {
            complain(&format!("{second} s: {message}"));
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
    let (table, is_well) = report::table(&tally, &figures, &before, &samples, &after);
    // The exit status tells, even if nobody reads the table.
    let _ = write!(io::stdout(), "{table}");
    Ok(match (is_well, was_interrupted) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    })
}
