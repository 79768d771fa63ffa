//! What the kernel says about a process: CPU time, resident memory, kind of I/O.

use std::fs;
use std::io;
use std::ops::{AddAssign, Sub};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What the scheduler accounts: how long a thread ran and how long it was ready to but waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) ran: Duration,
    pub(crate) waited: Duration,
}

impl Account {
    /// Of all threads of a process that are alive, user and system together.
    ///
    /// `utime + stime` count in ticks of 10 ms; the scheduler's own account, `schedstat`, is in
    /// nanoseconds.
    pub(crate) fn of_process(pid: u32) -> Result<Self> {
        let tasks = PathBuf::from(format!("/proc/{pid}/task"));
        let mut total = Self::default();
        for task in fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))? {
            match fs::read_to_string(task?.path().join("schedstat")) {
                Ok(text) => total += Self::parse(&text)?,
                Err(error) if has_ended(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if total.ran.is_zero() {
            bail!("the kernel keeps no schedstat (CONFIG_SCHED_INFO)");
        }
        Ok(total)
    }

    /// Of the calling thread.
    pub(crate) fn of_this_thread() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/thread-self/schedstat")?)
    }

    fn parse(schedstat: &str) -> Result<Self> {
        let mut fields = schedstat.split_whitespace().map(str::parse);
        match (fields.next(), fields.next()) {
            (Some(Ok(ran)), Some(Ok(waited))) => {
                Ok(Self { ran: Duration::from_nanos(ran), waited: Duration::from_nanos(waited) })
            }
            _ => bail!("schedstat reads {schedstat:?}"),
        }
    }
}

/// A thread may end while the list of threads is read: before its file is opened, or after.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.ran += other.ran;
        self.waited += other.waited;
    }
}

impl Sub for Account {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        // A thread that ended meanwhile takes its account with it.
        Self {
            ran: self.ran.saturating_sub(earlier.ran),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// Resident memory in bytes, from `smaps_rollup`, which is exact: the counters in `status` lag by
/// some pages per core.
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
    fn accounts_are_read_and_subtracted() {
        let [early, late] = ["5 1 9\n", "12 3 10\n"].map(|text| Account::parse(text).unwrap());
        let between = Account { ran: Duration::from_nanos(7), waited: Duration::from_nanos(2) };
        assert_eq!(late - early, between);
        assert!(Account::parse("").is_err());
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(Account::of_process(std::process::id()).unwrap().ran > Duration::ZERO);
        Account::of_this_thread().unwrap();
        assert!(resident(std::process::id()).unwrap() > 0);
        assert_eq!(kind_of_io(std::process::id()).unwrap(), "epoll");
    }
}
