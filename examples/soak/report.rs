//! The samples of the server's process, and the table of results.
#![expect(clippy::cast_precision_loss, reason = "a regression need not be exact")]

use std::fmt::{self, Write};
use std::fs;

use super::Result;
use super::clients::Tally;
use super::server::Figures;

/// The server's process at one moment.
#[derive(Copy, Clone)]
pub(crate) struct Sample {
    seconds: f64,
    fds: u64,
    memory_kib: u64,
}

impl Sample {
    pub(crate) fn of(process: u32, seconds: f64) -> Result<Self> {
        let fds = fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let memory_kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
            .ok_or("the server's memory is unknown")?;
        Ok(Self { seconds, fds, memory_kib })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fds, {} KiB", self.fds, self.memory_kib)
    }
}

/// One sample a second, under load.
#[derive(Default)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// The median of the samples in one tenth of the time. Under a changing load, a single sample
    /// says little.
    fn around(&self, tenth: usize, value: impl Fn(&Sample) -> u64) -> u64 {
        let some = (self.0.len() / 10).max(1);
        let skip = (self.0.len() * tenth / 10).min(self.0.len().saturating_sub(some));
        let mut values: Vec<u64> = self.0.iter().skip(skip).take(some).map(value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    }

    /// Growth per hour, by least squares over all samples but the first fifth.
    fn slope(&self, value: impl Fn(&Sample) -> u64) -> f64 {
        let warm = &self.0[self.0.len() / 5..];
        let count = warm.len() as f64;
        let mean = |of: &dyn Fn(&Sample) -> f64| warm.iter().map(of).sum::<f64>() / count;
        let (time, level) = (mean(&|sample| sample.seconds), mean(&|sample| value(sample) as f64));
        let (mut both, mut square) = (0.0, 0.0);
        for sample in warm {
            let ahead = sample.seconds - time;
            both += ahead * (value(sample) as f64 - level);
            square += ahead * ahead;
        }
        if square > 0.0 { both / square * 3600.0 } else { 0.0 }
    }
}

/// Returns the table, and whether nothing was lost.
pub(crate) fn table(
    tally: &Tally,
    figures: &Figures,
    before: &Sample,
    samples: &Samples,
    after: &Sample,
) -> (String, bool) {
    let lost = tally.lost();
    let mut text = String::from("| what | count |\n|---|---:|\n");
    for (what, count) in [
        ("requests answered", tally.answered),
        ("requests lost", lost),
        ("failures of clients", tally.failures.len() as u64),
        ("requests of clients that reset their connection", tally.abandoned),
        ("connections of clients", tally.connections),
        ("packet timeouts, on time", tally.timeouts),
        ("broadcasts received, in order", tally.news),
        ("server: connections accepted", figures.accepted),
        ("server: packets in", figures.packets_in),
        ("server: messages and timers", figures.messages),
        ("server: packet timeouts", figures.packet_timeouts),
        ("server: panics", figures.panics),
        ("server: handlers made", figures.made),
        ("server: handlers terminated", figures.terminated),
    ] {
        let _ = writeln!(text, "| {what} | {count} |"); // writing to a string cannot fail
    }
    text.push_str("\n| | idle before | start | middle | end | slope per hour | idle after |");
    text.push_str("\n|---|---:|---:|---:|---:|---:|---:|\n");
    text += &row("descriptors", before, samples, after, |sample| sample.fds);
    text += &row("memory (RSS), KiB", before, samples, after, |sample| sample.memory_kib);
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let _ = writeln!(
        text,
        "\nTurns, upper bounds: p50 {:.0} us, p99.9 {:.0} us, longest {:.0} us.",
        micros(figures.turn_p50),
        micros(figures.turn_p999),
        micros(figures.turn_worst)
    );
    let made = figures.made == figures.terminated && figures.panics == 0;
    let is_well = lost == 0 && tally.failures.is_empty() && after.fds <= before.fds && made;
    (text, is_well)
}

fn row(
    name: &str,
    before: &Sample,
    samples: &Samples,
    after: &Sample,
    value: fn(&Sample) -> u64,
) -> String {
    format!(
        "| {name} | {} | {} | {} | {} | {:+.1} | {} |\n",
        value(before),
        samples.around(0, value),
        samples.around(5, value),
        samples.around(9, value),
        samples.slope(value),
        value(after)
    )
}
