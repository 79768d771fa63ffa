//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::scenario::Scenario;
use crate::servers::Server;

/// Compares echo servers end to end: CPU per packet, latency, memory per connection.
///
/// Every server is a process of its own on one core, the load generator is on another. In each
/// round every server runs the scenario once, in turn. The report has the median of the ratios
/// within a round, and its 95 % interval.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120)]
pub(crate) struct Cli {
    /// A first look, about a minute with all servers: 3 short rounds, memory at 5,000 connections
    /// (the default)
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The whole table: 15 longer rounds, memory at 5,000, 10,000 and 19,000 connections, the burst
    #[arg(long)]
    pub(crate) full: bool,
    /// Only these servers; without the reference among them there are no ratios
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    pub(crate) only: Vec<&'static Server>,
    /// Only these scenarios
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) scenario: Vec<&'static Scenario>,
    /// The server that all ratios are relative to; it takes part even if --only does not name it
    /// [default: c]
    #[arg(long, value_name = "SERVER", hide_possible_values = true)]
    pub(crate) reference: Option<&'static Server>,
    /// Number of rounds [default: 3, with --full 15]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Length of one round of one server in milliseconds [default: 120, with --full 400]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    round_ms: Option<u64>,
    /// Where the table, the JSON file and the plot go [default: bench-results in the target
    /// directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

impl Cli {
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.full { 15 } else { 3 })
    }

    pub(crate) fn round(&self) -> Duration {
        Duration::from_millis(self.round_ms.unwrap_or(if self.full { 400 } else { 120 }))
    }

    pub(crate) fn idle_counts(&self) -> &'static [usize] {
        if self.full { &[5_000, 10_000, 19_000] } else { &[5_000] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_and_quick_set_the_rounds_and_options_override_them() {
        assert_eq!(Cli::parse_from(["throughput", "--full"]).rounds(), 15);
        assert_eq!(Cli::parse_from(["throughput", "--quick"]).rounds(), 3);
        assert_eq!(Cli::parse_from(["throughput", "--full", "--rounds", "7"]).rounds(), 7);
        assert!(Cli::try_parse_from(["throughput", "--full", "--quick"]).is_err());
        assert!(Cli::try_parse_from(["throughput", "--only", "unknown"]).is_err());
    }
}
