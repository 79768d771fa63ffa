//! How long a connector waits before it dials again, and when it gives up.

use std::time::Duration;

use crate::random::Random;

/// How long a connector waits after a failed dial, and after the end of a connection.
///
/// The wait is random, from zero to a bound. The bound is `base` at first. It doubles with each failure
/// in a row, up to `max`. This is *full jitter*: many clients of a server that died do not come back
/// together, and of all ways to spread them it needs the fewest attempts
/// ([measured by AWS](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)).
///
/// A dial counts once, however many addresses it tries. The count of failures begins again
/// once a connection was up for [`stable_after`](Self::stable_after). So a server that accepts and
/// hangs up at once does not get more dials than one that refuses.
///
/// Each shard draws its own numbers.
///
/// ```
/// use std::time::Duration;
/// use condor::{Backoff, ConnectorOptions};
///
/// let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// let options = ConnectorOptions::to("127.0.0.1:6379").backoff(backoff);
/// assert_eq!(options.check().errors, []);
/// ```
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Backoff {
    pub(crate) base: Duration,
    pub(crate) max: Duration,
    pub(crate) stable_after: Duration,
}

impl Backoff {
    /// Waits up to `base` at first, and up to `max` at most. Both are more than zero, and `base` is at
    /// most `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, stable_after: Duration::from_secs(10) }
    }

    /// How long a connection has to be up before earlier failures are forgotten. Default: 10 s. With
    /// zero each connection that comes up makes them forgotten.
    pub fn stable_after(mut self, up: Duration) -> Self {
        self.stable_after = up;
        self
    }

    /// The longest wait after so many failures in a row. After the end of a stable connection there is
    /// none.
    fn bound(&self, failures: u32) -> Duration {
        let doubled = 2_u32.checked_pow(failures.saturating_sub(1));
        let bound = doubled.and_then(|times| self.base.checked_mul(times));
        bound.unwrap_or(Duration::MAX).min(self.max)
    }

    /// How long to wait after so many failures in a row.
    pub(crate) fn wait(&self, failures: u32, random: &mut Random) -> Duration {
        let bound = self.bound(failures);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random.up_to(micros))
    }
}

impl Default for Backoff {
    /// From 100 ms to 30 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(30))
    }
}

/// How often a connector dials again.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Retry {
    /// Without end.
    #[default]
    Forever,
    /// After so many failures in a row it gives up: dials that failed, and connections that ended before
    /// they were [stable](Backoff::stable_after). The first dial counts.
    Times(u32),
    /// It dials once. It gives up after a failure, and after the end of the connection.
    Never,
}

impl Retry {
    /// Whether to dial again after so many failures in a row, if a dial has failed or a connection has
    /// ended.
    pub(crate) fn again(self, failures: u32) -> bool {
        match self {
            Self::Forever => true,
            Self::Times(most) => failures < most,
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the bound doubles from `base` to `max` and stays there, whatever the count is. Method:
    /// the counts around each end.
    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let millis = Duration::from_millis;
        let backoff = Backoff::new(millis(100), millis(1_000));
        let bounds = [0, 1, 2, 3, 4, 5, 31, 32, 33, u32::MAX].map(|count| backoff.bound(count));
        let expected = [100, 100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000, 1_000];
        assert_eq!(bounds, expected.map(millis));
        let endless = Backoff::new(millis(1), Duration::MAX);
        assert_eq!(endless.bound(u32::MAX), Duration::MAX);
    }

    /// Goal: waits are spread over the whole range from zero to the bound. Method: a thousand waits in
    /// tenths of the bound.
    #[test]
    fn waits_are_spread() {
        let backoff = Backoff::default();
        let mut random = Random::new(1);
        let mut tenths = [0_u32; 10];
        for _ in 0..1_000 {
            let wait = backoff.wait(3, &mut random);
            tenths[usize::try_from(wait.as_micros() / 40_001).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
    }

    /// Goal: `Times(3)` means three dials in a row, and `Never` means one.
    #[test]
    fn a_retry_rule_counts_dials() {
        assert!(Retry::Forever.again(u32::MAX));
        assert_eq!([1, 2, 3].map(|failed| Retry::Times(3).again(failed)), [true, true, false]);
        assert!(Retry::Times(1).again(0), "a connection that ended is dialled again");
        assert_eq!([0, 1].map(|failed| Retry::Never.again(failed)), [false, false]);
    }
}
