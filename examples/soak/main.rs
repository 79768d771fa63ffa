//! A soak test: puts a server under mixed load for a given time, and prints a table of the results.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 30
//! ```
//!
//! The server is another process of this program, so that its descriptors and its memory are
//! measured alone. The clients are threads of the first process. They pipeline, connect and
//! disconnect, read slowly, send garbage, stop in the middle of a packet, half-close, reset, and wait
//! for messages. They compare every answer with its request. All traffic stays on 127.0.0.1.
//!
//! The exit status is 1 if an answer is lost, if the server has more descriptors after the load than
//! before, or if a handler was made but not terminated. The first Ctrl-C or SIGTERM ends the load
//! early: the clients finish what they do, and the program prints the table. The exit status is then
//! 130 if no error has happened. The second signal ends the program at once.

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

/// Exit status after a signal: 128 + SIGINT, as in shells.
const INTERRUPTED: u8 = 130;

/// Puts a server under mixed load, and prints a table of the results.
#[derive(Debug, Parser)]
#[command(
    after_help = "Exit status: 0 if no answer, descriptor or handler was lost; 1 if one was lost; \
                        130 if a signal ended it early and nothing was lost so far."
)]
struct Options {
    /// How long the load lasts
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    minutes: u64,
    /// Run the server
    #[arg(long, hide = true)]
    serve: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Only errors are logged, because the clients provoke many warnings on purpose.
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

/// The server process.
struct Server {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Server {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .process_group(0) // so that Ctrl-C ends the clients before the server
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = child.stdin.take().ok_or("the server has no input")?;
        let mut answers = BufReader::new(child.stdout.take().ok_or("the server has no output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        Ok(Self { child, requests, answers, addr: line.trim().parse()? })
    }

    fn figures(&mut self) -> Result<Figures> {
        writeln!(self.requests)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Figures::parse(&line).ok_or_else(|| format!("the server answered {line:?}").into())
    }

    fn sample(&self, seconds: f64) -> Result<Sample> {
        Sample::of(self.child.id(), seconds)
    }

    /// Waits until no connection is left, not even a lingering one.
    fn when_idle(&mut self) -> Result<Figures> {
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
        drop(self.requests);
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server ended: {status}").into()) }
    }
}

/// Returns a channel that receives something at the first signal. The second signal ends the process.
fn first_signal() -> Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() && sender.send(()).is_ok() && signals.next().is_some() {
            process::exit(INTERRUPTED.into());
        }
    });
    Ok(receiver)
}

fn soak(minutes: u64) -> Result<ExitCode> {
    let interrupted = first_signal()?;
    let mut server = Server::start()?;
    // One connection before the first sample, so that the server has made what it makes only once.
    clients::connect_once(server.addr)?;
    server.when_idle()?;
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
            bar.suspend(|| {
                complain("the clients finish; a second signal ends the program at once")
            });
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
    let figures = server.when_idle()?;
    let after = server.sample(0.0)?;
    server.stop()?;
    let (table, is_well) = report::table(&tally, &figures, &before, &samples, &after);
    // If stdout is closed, the exit status still shows the result.
    let _ = write!(io::stdout(), "{table}");
    Ok(match (is_well, was_interrupted) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    })
}
