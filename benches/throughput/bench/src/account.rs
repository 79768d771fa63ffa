//! CPU time, from the scheduler's own account: `utime + stime` count in ticks of 10 ms, `schedstat`
//! in nanoseconds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::iter::Sum;
use std::ops::Sub;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a thread ran, user and system together, and how long it was ready to but waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) ran: Duration,
    pub(crate) waited: Duration,
}

impl Account {
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

impl Sub for Account {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(earlier.ran),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

impl Sum for Account {
    fn sum<I: Iterator<Item = Self>>(accounts: I) -> Self {
        accounts.fold(Self::default(), |sum, account| Self {
            ran: sum.ran + account.ran,
            waited: sum.waited + account.waited,
        })
    }
}

/// The accounts of all threads of a process that are alive, by thread id.
#[derive(Debug)]
pub(crate) struct Accounts(BTreeMap<u32, Account>);

impl Accounts {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let tasks = PathBuf::from(format!("/proc/{pid}/task"));
        let mut accounts = BTreeMap::new();
        for task in fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))? {
            let task = task?;
            let id = task.file_name().to_string_lossy().parse().context("not a thread id")?;
            match fs::read_to_string(task.path().join("schedstat")) {
                Ok(text) => accounts.insert(id, Account::parse(&text)?),
                Err(error) if has_ended(&error) => continue,
                Err(error) => return Err(error.into()),
            };
        }
        let accounts = Self(accounts);
        if accounts.sum().ran.is_zero() {
            bail!("the kernel keeps no schedstat (CONFIG_SCHED_INFO)");
        }
        Ok(accounts)
    }

    /// All threads together.
    pub(crate) fn sum(&self) -> Account {
        self.0.values().copied().sum()
    }

    /// What was added to each thread's account since then. A thread that has ended meanwhile has
    /// taken its account with it.
    pub(crate) fn since(&self, earlier: &Self) -> Vec<Account> {
        let added = |(id, account): (&u32, &Account)| {
            *account - earlier.0.get(id).copied().unwrap_or_default()
        };
        self.0.iter().map(added).collect()
    }
}

/// How many of these threads did the work: a twentieth of it at least.
pub(crate) fn busy(threads: &[Account]) -> usize {
    let all: Account = threads.iter().copied().sum();
    threads.iter().filter(|thread| !thread.ran.is_zero() && thread.ran * 20 >= all.ran).count()
}

/// A thread may end while the list of threads is read: before its file is opened, or after.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    fn ran(nanos: u64) -> Account {
        Account { ran: Duration::from_nanos(nanos), waited: Duration::ZERO }
    }

    #[test]
    fn accounts_are_read_and_subtracted() {
        let [early, late] = ["5 1 9\n", "12 3 10\n"].map(|text| Account::parse(text).unwrap());
        let between = Account { ran: Duration::from_nanos(7), waited: Duration::from_nanos(2) };
        assert_eq!(late - early, between);
        assert!(Account::parse("").is_err());
    }

    #[test]
    fn a_thread_that_began_counts_and_one_that_ended_takes_nothing_from_the_others() {
        let early = Accounts(BTreeMap::from([(1, ran(10)), (2, ran(500))]));
        let late = Accounts(BTreeMap::from([(1, ran(15)), (3, ran(4))]));
        assert_eq!(late.since(&early), [ran(5), ran(4)]);
    }

    #[test]
    fn threads_that_do_next_to_nothing_are_not_busy() {
        assert_eq!(busy(&[ran(0), ran(600), ran(400)]), 2);
        assert_eq!(busy(&[ran(1000), ran(10)]), 1);
        assert_eq!(busy(&[ran(0)]), 0);
    }

    /// Goal: what two threads of a process do is all in its accounts.
    #[test]
    fn every_thread_of_a_process_is_counted() {
        let spin = |time: Duration| {
            let start = Account::of_this_thread().unwrap();
            while (Account::of_this_thread().unwrap() - start).ran < time {}
        };
        let pid = std::process::id();
        let before = Accounts::of(pid).unwrap();
        let (done, all_done) = mpsc::channel();
        let ends: Vec<_> = (0..2)
            .map(|_| {
                let (end, ended) = mpsc::channel::<()>();
                let done = done.clone();
                let thread = thread::spawn(move || {
                    spin(Duration::from_millis(30));
                    done.send(()).unwrap();
                    // Alive until it has been counted.
                    let _ = ended.recv();
                });
                (end, thread)
            })
            .collect();
        all_done.iter().take(2).for_each(drop);
        let added = Accounts::of(pid).unwrap().since(&before);
        assert!(added.iter().filter(|thread| thread.ran >= Duration::from_millis(29)).count() >= 2);
        for (end, thread) in ends {
            drop(end);
            thread.join().unwrap();
        }
    }
}
