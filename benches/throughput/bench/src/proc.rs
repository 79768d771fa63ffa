//! Reads from `/proc`: the resident memory of a process, and its kind of I/O.

use std::fs;

use anyhow::{Context, Result};

/// Resident memory in bytes, from `smaps_rollup`, which is exact: the counters in `status` lag by
/// some pages per core.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    kib(pid, "smaps_rollup", "Rss:")
}

/// The most that ever was resident, in bytes. It comes from the counters that lag.
pub(crate) fn most_resident(pid: u32) -> Result<u64> {
    kib(pid, "status", "VmHWM:")
}

fn kib(pid: u32, file: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("cannot read the memory of process {pid}"))?;
    kib_in(&text, key).with_context(|| format!("no {key} line for process {pid}"))
}

/// The bytes in a line `key N kB`.
fn kib_in(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// `io_uring` if the process holds a ring, else `epoll`.
pub(crate) fn kind_of_io(pid: u32) -> Result<&'static str> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        if fs::read_link(entry?.path())
            .is_ok_and(|target| target.to_string_lossy().contains("io_uring"))
        {
            return Ok("io_uring");
        }
    }
    Ok("epoll")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found() {
        let rollup = "00400000-7ff r--p [rollup]\nRss:                1976 kB\nPss: 1 kB\n";
        assert_eq!(kib_in(rollup, "Rss:"), Some(1976 * 1024));
        assert_eq!(kib_in("Pss: 1 kB\n", "Rss:"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 0);
        assert!(most_resident(pid).unwrap() > 0);
        assert_eq!(kind_of_io(pid).unwrap(), "epoll");
    }
}
