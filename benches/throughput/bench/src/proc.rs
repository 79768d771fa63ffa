//! What the kernel says about a process: CPU time, resident memory, kind of I/O.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// CPU time of all threads of a process that are alive, user and system together.
///
/// `utime + stime` count in ticks of 10 ms; the scheduler's own account, the first field of
/// `schedstat`, is in nanoseconds.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let mut total = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))? {
        match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(text) => total += run_time(&text)?,
            // A thread may end while the list is read.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    if total.is_zero() {
        bail!("the kernel keeps no schedstat (CONFIG_SCHED_INFO)");
    }
    Ok(total)
}

/// CPU time of the calling thread.
pub(crate) fn own_cpu_time() -> Result<Duration> {
    run_time(&fs::read_to_string("/proc/thread-self/schedstat")?)
}

fn run_time(schedstat: &str) -> Result<Duration> {
    let nanoseconds = schedstat.split_whitespace().next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// Resident memory in bytes, from `smaps_rollup`, which is exact: the counters in `status` lag by some pages per core.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .with_context(|| format!("cannot read the memory of process {pid}"))?;
    rss_of(&text).with_context(|| format!("no Rss line for process {pid}"))
}

fn rss_of(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
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
    fn rss_is_found() {
        assert_eq!(
            rss_of("00400000-7ff r--p [rollup]\nRss:                1976 kB\nPss: 1 kB\n"),
            Some(1976 * 1024)
        );
        assert_eq!(rss_of("Pss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(cpu_time(std::process::id()).unwrap() > Duration::ZERO);
        assert!(resident(std::process::id()).unwrap() > 0);
        assert_eq!(kind_of_io(std::process::id()).unwrap(), "epoll");
    }
}
