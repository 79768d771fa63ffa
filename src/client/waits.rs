//! How long the reads and writes of a socket may block: the timeouts that the kernel has.

use std::time::Duration;

/// The timeout of a socket's reads, or of its writes.
///
/// Each wait of an operation has less time left than the one before. If the kernel had to know
/// exactly, each wait would cost one more system call. So the kernel's timeout may be longer than the
/// time left, by a small part of the whole timeout. Then an operation is at most this part late. The
/// first wait of an operation changes nothing in the kernel, unless the one before came in pieces.
#[derive(Debug, Default)]
pub(super) struct Wait {
    /// What the kernel has. [`Duration::MAX`] is no timeout. `None` is not known.
    in_force: Option<Duration>,
}

impl Wait {
    /// A wait may be longer than the time left by this part of the whole timeout. So one operation
    /// changes the kernel's timeout at most so many times, and once more at its start.
    const PARTS: u32 = 64;

    /// The timeout to give to the kernel before a wait, if it has to change: of `whole`, `left` is
    /// left. [`Duration::MAX`] is no timeout.
    pub(super) fn change(&mut self, left: Duration, whole: Duration) -> Option<Duration> {
        let longest = left.saturating_add(whole / Self::PARTS);
        if self.in_force.is_some_and(|in_force| left <= in_force && in_force <= longest) {
            return None;
        }
        // The next operation starts with the whole, too.
        self.in_force = Some(if longest >= whole { whole } else { left });
        self.in_force
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Duration = Duration::from_secs(64);

    /// How often the kernel's timeout changes in an operation whose waits end after `step` each, until
    /// its time is over. Checks each wait.
    fn changes(wait: &mut Wait, step: Duration) -> u32 {
        let (mut left, mut changes) = (WHOLE, 0);
        while !left.is_zero() {
            changes += u32::from(wait.change(left, WHOLE).is_some());
            let in_force = wait.in_force.unwrap();
            assert!(in_force >= left, "it ends before its deadline: {in_force:?} of {left:?}");
            let late = in_force - left;
            assert!(late <= WHOLE / Wait::PARTS, "{late:?} late, with {left:?} left");
            left = left.saturating_sub(step);
        }
        changes
    }

    /// Goal: no wait ends before the deadline, none more than a sixty-fourth of the timeout after it,
    /// and however many waits an operation has, few of them change the kernel's timeout. Method: waits
    /// of different lengths.
    #[test]
    fn an_operation_ends_on_time_with_few_changes() {
        let mut wait = Wait::default();
        for millis in [1, 7, 900, 1_001, 40_000, 64_000] {
            let changes = changes(&mut wait, Duration::from_millis(millis));
            assert!(changes <= Wait::PARTS + 1, "{changes} changes in steps of {millis} ms");
        }
    }

    /// Goal: operations whose first wait is their last change nothing after the first; another timeout
    /// is one change, and so is none. Method: each begins a little late.
    #[test]
    fn the_next_operation_changes_nothing() {
        let mut wait = Wait::default();
        for whole in [WHOLE, 2 * WHOLE, Duration::MAX, WHOLE / 2] {
            let short = |nanos| whole.saturating_sub(Duration::from_nanos(nanos));
            let left = if whole == Duration::MAX { whole } else { short(90) };
            assert_eq!(wait.change(left, whole), Some(whole));
            for nanos in [70, 120, 0, 1_000] {
                let left = if whole == Duration::MAX { whole } else { short(nanos) };
                assert_eq!(wait.change(left, whole), None);
            }
        }
    }
}
