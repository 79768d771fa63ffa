//! A running server: started on its core, ended by its pid when dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};

use crate::cores::{self, Cores};
use crate::servers::Server;

const START: Duration = Duration::from_secs(10);

/// A server process. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    address: SocketAddr,
    errors: PathBuf,
}

/// How to start a server.
#[derive(Debug, Clone)]
pub(crate) struct Launch<'a> {
    pub(crate) server: &'a Server,
    pub(crate) program: &'a Path,
    pub(crate) max_connections: usize,
    /// Whether it sends each packet to all, instead of back.
    pub(crate) broadcast: bool,
    pub(crate) cores: Cores,
    /// Where its standard error goes.
    pub(crate) errors: PathBuf,
}

impl Running {
    /// Starts a server on its core, and waits until it prints its address.
    pub(crate) fn start(launch: &Launch<'_>) -> Result<Self> {
        let mut command = Command::new(launch.program);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--max-connections",
            &launch.max_connections.to_string(),
        ]);
        if let Some(mode) = launch.server.mode {
            command.args(["--mode", mode]);
        }
        if launch.broadcast {
            command.arg("--broadcast");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&launch.errors)?);
        // A child inherits the affinity of the thread that starts it.
        cores::pin(launch.cores.server)?;
        let child = command.spawn();
        cores::pin(launch.cores.generator)?;
        let child = child.with_context(|| format!("{} cannot be run", launch.program.display()))?;
        let mut running = Self {
            child,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            errors: launch.errors.clone(),
        };
        match running.wait_for_address() {
            Ok(address) => running.address = address,
            Err(error) => return Err(running.explain(error.context("the server did not start"))),
        }
        Ok(running)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds to an error the server's exit status, if it has ended, and its stderr.
    pub(crate) fn explain(&mut self, error: Error) -> Error {
        // A process that has just closed its sockets may need a moment to end.
        thread::sleep(Duration::from_millis(20));
        let mut message = format!("{error:#}");
        if let Ok(Some(status)) = self.child.try_wait() {
            message += &format!("; the server ended: {status}");
        }
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        if !said.trim().is_empty() {
            let tail: Vec<&str> = said.lines().rev().take(20).collect();
            message += "; its standard error:";
            tail.iter().rev().for_each(|line| message += &format!("\n{line}"));
        }
        Error::msg(message)
    }

    fn wait_for_address(&mut self) -> Result<SocketAddr> {
        let stdout = self.child.stdout.take().context("no standard output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(first_line(stdout)));
        let line = receiver
            .recv_timeout(START)
            .with_context(|| format!("it said nothing for {} s", START.as_secs()))??;
        let Some(address) = line.trim().strip_prefix("listening on ") else {
            bail!("its first line is {line:?} instead of 'listening on ADDRESS:PORT'")
        };
        address.parse().with_context(|| format!("{address:?} is no address"))
    }
}

fn first_line(stdout: ChildStdout) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line)
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end but still something to reap.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
