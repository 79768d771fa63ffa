//! The machine and the versions of a measurement.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::compile::{cargo, workspace};
use crate::haproxy;
use crate::servers::{Server, Source};

/// The machine, the tools and the versions.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) rustc: String,
    pub(crate) cc: String,
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn describe(servers: &[&Server]) -> Self {
        let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap_or_default();
        let mut libraries: Vec<&str> = servers.iter().filter_map(|server| server.library).collect();
        if libraries.contains(&"tokio-util") {
            libraries.push("tokio");
        }
        libraries.sort_unstable();
        libraries.dedup();
        let kernel = rustix::system::uname();
        Self {
            date: time::OffsetDateTime::now_utc().date().to_string(),
            commit: commit(),
            kernel: format!(
                "{} {} {}, TCP congestion control {}",
                kernel.sysname().to_string_lossy(),
                kernel.release().to_string_lossy(),
                kernel.machine().to_string_lossy(),
                congestion_control()
            ),
            cpu: value_in("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: value_in("/proc/meminfo", "MemTotal"),
            rustc: first_line_of(
                Command::new(Path::new(&cargo()).with_file_name("rustc")).arg("--version"),
            ),
            cc: first_line_of(
                Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
                    .arg("--version"),
            ),
            versions: libraries
                .into_iter()
                .map(|name| (name.to_owned(), version_in(&lock, name).unwrap_or("?").to_owned()))
                .chain(servers.iter().find_map(|server| version_of_haproxy(server)))
                .collect(),
        }
    }
}

/// The one in force. It has a part in what large packets cost: some pace what they send, on the
/// loopback interface as anywhere.
fn congestion_control() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or(UNKNOWN.to_owned(), |name| name.trim().to_owned())
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        first_line_of(Command::new("git").arg("-C").arg(workspace()).args(arguments))
    };
    let changed = if git(&["status", "--porcelain", "--untracked-files=no", ":/"]) == UNKNOWN {
        ""
    } else {
        " with changes"
    };
    git(&["rev-parse", "--short=12", "HEAD"]) + changed
}

const UNKNOWN: &str = "unknown";

fn first_line_of(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or(UNKNOWN).to_owned()
}

/// The value of the first `key : value` line of a file.
fn value_in(file: &str, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_once(':')).map_or(UNKNOWN, |(_, value)| value.trim()).to_owned()
}

fn version_of_haproxy(server: &Server) -> Option<(String, String)> {
    let program = (server.source == Source::Haproxy).then(haproxy::find)?.ok()?;
    let line = first_line_of(Command::new(program).arg("-v"));
    Some(("haproxy".to_owned(), line.split_whitespace().nth(2).unwrap_or(UNKNOWN).to_owned()))
}

/// The version of a package in a lock file.
fn version_in<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let wanted = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != wanted);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let package =
            |name, version| format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n");
        let lock = &(package("tokio-util", "0.7.20") + &package("tokio", "1.2.3"));
        assert_eq!(version_in(lock, "tokio"), Some("1.2.3"));
        assert_eq!(version_in(lock, "tokio-util"), Some("0.7.20"));
        assert_eq!(version_in(lock, "mio"), None);
    }
}
