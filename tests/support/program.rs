//! An example as a process: its output and its end.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[path = "built.rs"]
pub(crate) mod built;

use self::built::built;

/// How long a wait for a program may take. It is far longer than any wait should take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program. It is killed when it is dropped.
pub(crate) struct Program(pub(crate) Child);

/// How a program ended.
#[derive(Debug)]
pub(crate) struct End {
    /// None if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Program {
    /// Starts the example and writes its whole input at once.
    pub(crate) fn start(name: &str, arguments: &[&str], input: &[u8]) -> Self {
        Self::start_into(Stdio::piped(), name, arguments, input)
    }

    /// The same with a given output.
    pub(crate) fn start_into(out: Stdio, name: &str, arguments: &[&str], input: &[u8]) -> Self {
        let mut child = Command::new(built(name))
            .args(arguments)
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that reads no input may have closed it.
        let _ = child.stdin.take().unwrap().write_all(input);
        Self(child)
    }

    /// Runs the example until it ends by itself.
    pub(crate) fn run(name: &str, arguments: &[&str]) -> End {
        Self::start(name, arguments, b"").end()
    }

    /// Sends a signal, by its short name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end. No program here writes more than a pipe holds.
    pub(crate) fn end(mut self) -> End {
        self.until("it ends", |program| program.0.try_wait().unwrap().is_some());
        let (mut out, mut err) = (String::new(), String::new());
        // The test may have closed either.
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut out).unwrap();
        }
        if let Some(mut pipe) = self.0.stderr.take() {
            pipe.read_to_string(&mut err).unwrap();
        }
        End { code: self.0.wait().unwrap().code(), out, err }
    }

    /// Waits until `done`, which it calls every millisecond.
    #[expect(clippy::disallowed_methods, reason = "tests wait in real time")]
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited too long: {what}");
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks that an option refuses 0, with a message that contains the option, the value and the
/// limit.
pub(crate) fn zero_is_refused(name: &str, arguments: &[&str], option: &str) {
    let end = Program::run(name, &[arguments, &[option, "0"]].concat());
    let message = format!("invalid value '0' for '{option} <");
    assert_eq!(end.code, Some(2), "{name} {option} 0: {end:?}");
    assert!(end.err.contains(&message) && end.err.contains("0 is not in 1.."), "{end:?}");
}

/// Checks that `--help` prints the options, and that an unknown option is refused.
pub(crate) fn arguments_are_explained(name: &str, arguments: &[&str], option: &str) {
    let help = Program::run(name, &["--help"]);
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{name}: {help:?}");
    assert!(help.out.contains("Usage: ") && help.out.contains(option), "{name}: {help:?}");
    let unknown = Program::run(name, &[arguments, &["--nonsense"]].concat());
    assert_eq!((unknown.code, unknown.out.as_str()), (Some(2), ""), "{name}: {unknown:?}");
    assert!(unknown.err.contains("unexpected argument '--nonsense'"), "{name}: {unknown:?}");
}
