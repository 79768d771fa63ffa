//! Metrics of a reactor's turns: histograms with fixed buckets, which cost very little.
//!
//! The highest bit of a value selects its bucket. So a histogram is 65 counters, recording a value
//! takes one count of leading zeros, and a quantile is right to a factor of two. The reactor's
//! thread is the only writer. Any thread takes snapshots.

use crate::stats::Counter;

const BUCKETS: usize = 65;

/// A histogram that is being written.
#[derive(Debug)]
pub(crate) struct Recorder([Counter; BUCKETS]);

impl Default for Recorder {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Recorder {
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        self.0[bucket(value)].add(1);
    }

    fn snapshot(&self) -> Histogram {
        Histogram { buckets: std::array::from_fn(|at| self.0[at].get()) }
    }
}

/// Bucket 0 is for zero, bucket `n` for values of `n` bits.
fn bucket(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

/// A snapshot of a histogram. Quantiles are right to a factor of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS] }
    }
}

impl Histogram {
    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// An upper bound of the given quantile: the share `quantile` (0.0 to 1.0) of all values does
    /// not exceed it. The bound is less than twice the exact quantile. Zero if nothing was
    /// recorded.
    pub fn quantile(&self, quantile: f64) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "a histogram is no exact science")]
        let share = self.count() as f64 * quantile.clamp(0.0, 1.0);
        let mut seen = 0;
        for (upper, count) in self.iter() {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            if count > 0 && seen as f64 >= share {
                return upper;
            }
        }
        0
    }

    /// The buckets. Each item is the largest value that belongs in the bucket, and how many values
    /// the bucket holds. The counts are not cumulative.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(bits, count)| (upper(bits), *count))
    }

    /// Adds the values of another reactor.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.wrapping_add(theirs);
        }
    }
}

/// The largest number of `bits` bits.
fn upper(bits: usize) -> u64 {
    match bits {
        0 => 0,
        64.. => u64::MAX,
        bits => (1 << bits) - 1,
    }
}

/// The metrics of one reactor while it runs.
#[derive(Debug, Default)]
pub(crate) struct LoopMetrics {
    pub(crate) turn: Recorder,
    pub(crate) events: Recorder,
    pub(crate) first_packet: Recorder,
    pub(crate) timer_lateness: Recorder,
}

impl LoopMetrics {
    pub(crate) fn snapshot(&self) -> LoopStats {
        LoopStats {
            turn_nanos: self.turn.snapshot(),
            events: self.events.snapshot(),
            first_packet_micros: self.first_packet.snapshot(),
            timer_lateness_millis: self.timer_lateness.snapshot(),
        }
    }
}

/// The metrics of a reactor's turns since it was made.
/// [`Handle::loop_stats`](crate::Handle::loop_stats) returns them.
///
/// A turn is one round of the event loop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopStats {
    /// How long turns took, in nanoseconds, without the wait for events. An event that comes during
    /// a turn waits for its end.
    pub turn_nanos: Histogram,
    /// Events per turn.
    pub events: Histogram,
    /// Time from accepting a connection to the delivery of its first packet, in microseconds.
    pub first_packet_micros: Histogram,
    /// How late timers and timeouts fired, in milliseconds.
    pub timer_lateness_millis: Histogram,
}

impl LoopStats {
    /// Adds the values of another reactor.
    pub fn merge(&mut self, other: &Self) {
        self.turn_nanos.merge(&other.turn_nanos);
        self.events.merge(&other.events);
        self.first_packet_micros.merge(&other.first_packet_micros);
        self.timer_lateness_millis.merge(&other.timer_lateness_millis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no value is lost, and a quantile is off by less than a factor of two. Method: every
    /// power of two and its neighbours.
    #[test]
    fn quantiles_are_right_to_a_factor_of_two() {
        for value in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]) {
            let recorder = Recorder::default();
            recorder.record(value);
            let histogram = recorder.snapshot();
            assert_eq!(histogram.count(), 1);
            let found = histogram.quantile(0.5);
            assert!(value <= found && found / 2 <= value, "{value} was found as {found}");
        }
        let recorder = Recorder::default();
        (0..99).for_each(|_| recorder.record(10));
        recorder.record(1_000_000);
        assert_eq!(recorder.snapshot().quantile(0.99), 15);
        assert!(recorder.snapshot().quantile(1.0) >= 1_000_000);
    }
}
