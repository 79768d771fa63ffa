//! A running server: started on its core, ended by its pid when dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};

use crate::address::Address;
use crate::cores::{self, Cores};
use crate::haproxy;
use crate::interrupt;
use crate::servers::{BACKEND, Server, Source};

const START: Duration = Duration::from_secs(10);

/// A server process. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    address: Address,
    errors: PathBuf,
    /// What a gateway passes its packets on to. It ends after the gateway.
    backend: Option<Box<Running>>,
}

/// How to start a server.
#[derive(Debug, Clone)]
pub(crate) struct Launch<'a> {
    pub(crate) server: &'a Server,
    pub(crate) program: &'a Path,
    /// The program of the backend, if the server is a gateway.
    pub(crate) backend: Option<&'a Path>,
    pub(crate) max_connections: usize,
    /// Whether it sends each packet to all, instead of back.
    pub(crate) broadcast: bool,
    /// The path at which it listens, if not at a port.
    pub(crate) unix: Option<PathBuf>,
    pub(crate) cores: Cores,
    /// Where its standard error goes.
    pub(crate) errors: PathBuf,
}

impl Launch<'_> {
    /// How the backend of this gateway is started.
    fn of_backend<'a>(&self, program: &'a Path) -> Launch<'a> {
        let core = self.cores.generator;
        Launch {
            server: BACKEND,
            program,
            backend: None,
            max_connections: self.max_connections,
            broadcast: false,
            unix: None,
            cores: Cores { server: core, generator: core },
            errors: self.errors.with_file_name("backend.stderr"),
        }
    }

    /// Gives a command its arguments. Returns the address of a server that does not print it.
    fn arguments(
        &self,
        backend: Option<&Running>,
        command: &mut Command,
    ) -> Result<Option<Address>> {
        if self.server.source == Source::Haproxy {
            let address = haproxy::free_address()?;
            let Address::Inet(backend) = backend.context("it is a gateway")?.address else {
                bail!("the backend is at a path")
            };
            let file = self.errors.with_file_name("haproxy.cfg");
            fs::write(&file, haproxy::configuration(address, backend, self.max_connections))?;
            command.args(haproxy::arguments(&file));
            return Ok(Some(address.into()));
        }
        let most = self.max_connections.to_string();
        match &self.unix {
            Some(path) => {
                let _ = fs::remove_file(path);
                command.arg("--unix").arg(path);
            }
            None => drop(command.args(["--listen", "127.0.0.1:0"])),
        }
        command.args(["--max-connections", &most]);
        command.args(self.server.args);
        if self.broadcast {
            command.arg("--broadcast");
        }
        if let Some(backend) = backend {
            command.args(["--backend", &backend.address.to_string()]);
        }
        Ok(None)
    }
}

impl Running {
    /// Starts a server on its core, and waits until it prints its address. A gateway gets a backend
    /// on the generator's core first, and has to pass a packet on before it counts as started.
    pub(crate) fn start(launch: &Launch<'_>) -> Result<Self> {
        let backend = match launch.backend {
            None => None,
            Some(program) => Some(Box::new(Self::start(&launch.of_backend(program))?)),
        };
        let mut command = Command::new(launch.program);
        let known = launch.arguments(backend.as_deref(), &mut command)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&launch.errors)?);
        // A child inherits the affinity of the thread that starts it.
        cores::pin(launch.cores.server)?;
        let child = command.spawn();
        cores::pin(launch.cores.generator)?;
        let child = child.with_context(|| format!("{} cannot be run", launch.program.display()))?;
        let mut running = Self {
            child,
            address: Address::Unix(PathBuf::new()),
            errors: launch.errors.clone(),
            backend,
        };
        match running.wait_until_ready(known) {
            Ok(()) => Ok(running),
            Err(error) => Err(running.explain(error.context("the server did not start"))),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of the backend of a gateway.
    pub(crate) fn backend_pid(&self) -> Option<u32> {
        self.backend.as_ref().map(|backend| backend.pid())
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
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

    fn wait_until_ready(&mut self, known: Option<Address>) -> Result<()> {
        self.address = match known {
            Some(address) => address,
            None => self.wait_for_address()?,
        };
        if self.backend.is_some() { self.wait_for_answer() } else { Ok(()) }
    }

    /// Waits until a packet comes back from the backend.
    fn wait_for_answer(&mut self) -> Result<()> {
        let start = Instant::now();
        while let Err(error) = ask(&self.address) {
            let waited = start.elapsed();
            if waited > START || self.child.try_wait()?.is_some() {
                return Err(error).with_context(|| format!("no answer for {waited:.1?}"));
            }
            interrupt::check()?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn wait_for_address(&mut self) -> Result<Address> {
        let stdout = self.child.stdout.take().context("no standard output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(first_line(stdout)));
        let line = receiver
            .recv_timeout(START)
            .with_context(|| format!("it said nothing for {} s", START.as_secs()))??;
        let Some(address) = line.trim().strip_prefix("listening on ") else {
            bail!("its first line is {line:?} instead of 'listening on ADDRESS'")
        };
        address.parse()
    }
}

/// Sends a packet of one byte, and checks that it comes back.
fn ask(address: &Address) -> Result<()> {
    const PACKET: [u8; 3] = [0, 1, b'?'];
    let mut stream = address.connect()?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(&PACKET)?;
    let mut answer = [0; PACKET.len()];
    stream.read_exact(&mut answer)?;
    if answer != PACKET {
        bail!("the answer is {answer:?} instead of {PACKET:?}");
    }
    Ok(())
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
        if let Address::Unix(path) = &self.address {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What `ask` says of a server that answers the packet of one byte with this.
    fn answered_with(answer: &'static [u8]) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 3]).unwrap();
            stream.write_all(answer).unwrap();
        });
        let result = ask(&address.into());
        server.join().unwrap();
        result
    }

    /// Goal: a gateway whose backend is not there yet is not measured, whether it ends the connection
    /// or answers by itself.
    #[test]
    fn only_the_packet_itself_is_an_answer() {
        answered_with(b"\0\x01?").unwrap();
        assert!(answered_with(b"").is_err());
        let error = answered_with(b"\0\x03ERR").unwrap_err();
        assert!(error.to_string().contains("the answer is"), "{error}");
    }
}
