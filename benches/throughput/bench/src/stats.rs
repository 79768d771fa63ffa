//! Medians with intervals that assume nothing about the distribution.

use serde::Serialize;

/// The median of some rounds and where the true median lies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// How sure the interval is: at least 0.95 from six rounds on; less below, where it is the
    /// whole range.
    pub(crate) coverage: f64,
    /// The rounds themselves, in order.
    pub(crate) rounds: Vec<f64>,
}

impl Summary {
    /// The median of the values and the narrowest interval of order statistics that covers the
    /// true median with 95 %.
    ///
    /// `None` without values. Values that are not numbers are a bug of the caller.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted.first()?, sorted.last()?);
        let n = sorted.len();
        let (mut low, mut high, mut coverage) = (*first, *last, coverage_of(n, 0));
        for outside in 1..n.div_ceil(2) {
            if coverage_of(n, outside) < 0.95 {
                break;
            }
            (low, high, coverage) =
                (sorted[outside], sorted[n - 1 - outside], coverage_of(n, outside));
        }
        Some(Self {
            median: median_of_sorted(&sorted),
            low,
            high,
            coverage,
            rounds: values.to_vec(),
        })
    }

    /// The same in another unit.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            low: self.low * factor,
            high: self.high * factor,
            coverage: self.coverage,
            rounds: self.rounds.iter().map(|value| value * factor).collect(),
        }
    }
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// The chance that the true median lies between the order statistics left when `outside` values
/// are cut off at either end: each value is below the median with probability one half, so the
/// count below is binomial.
fn coverage_of(n: usize, outside: usize) -> f64 {
    let mut term = 0.5_f64.powi(n as i32);
    let mut tail = term;
    for k in 0..outside {
        term *= (n - k) as f64 / (k + 1) as f64;
        tail += term;
    }
    (1.0 - 2.0 * tail).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[f64]) -> Summary {
        Summary::of(values).unwrap()
    }

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn median_of_odd_even_and_one() {
        assert_eq!(summary(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(summary(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(summary(&[7.0]).median, 7.0);
        assert_eq!(summary(&[7.0]).coverage, 0.0);
    }

    #[test]
    fn few_rounds_give_the_whole_range_and_say_how_sure_that_is() {
        let three = summary(&[3.0, 1.0, 2.0]);
        assert_eq!((three.low, three.high, three.coverage), (1.0, 3.0, 0.75));
        let five = summary(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!((five.low, five.high, five.coverage), (1.0, 5.0, 0.9375));
    }

    /// The textbook's table: for 6 the extremes, for 15 the 4th and 12th, for 20 the 6th and 15th.
    #[test]
    fn order_statistics_match_the_table() {
        for (n, low, high) in [(6, 1, 6), (9, 2, 8), (15, 4, 12), (20, 6, 15), (25, 8, 18)] {
            let values: Vec<f64> = (1..=n).map(f64::from).collect();
            let got = summary(&values);
            assert_eq!((got.low, got.high), (f64::from(low), f64::from(high)), "n = {n}");
            assert!(got.coverage >= 0.95, "n = {n}: {}", got.coverage);
        }
    }

    #[test]
    fn an_outlier_moves_neither_median_nor_interval() {
        let mut values: Vec<f64> = (1..=15).map(f64::from).collect();
        let before = summary(&values);
        values[14] = 1e9;
        let after = summary(&values);
        assert_eq!((after.median, after.low, after.high), (before.median, before.low, before.high));
    }
}
