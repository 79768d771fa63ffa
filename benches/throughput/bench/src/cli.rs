//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::scenario::{SCENARIOS, Scenario};
use crate::servers::{SERVERS, Server};

/// Compares echo servers end to end: CPU per packet, latency, memory per connection.
///
/// Every server is a process of its own on one core, the load generator is on another. In each
/// round every server runs the scenario once, in turn; what is reported is the median of the
/// ratios within a round, and its 95 % interval.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120)]
pub(crate) struct Cli {
    /// A first look, about a minute with all servers: 3 short rounds, memory at 5,000 connections
    /// (the default)
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The whole table: 15 rounds of about a second, memory at 5,000, 10,000 and 19,000 connections
    #[arg(long)]
    full: bool,
    /// Only these servers; ratios need the reference, c, among them
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    only: Vec<&'static Server>,
    /// Only these scenarios
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    scenario: Vec<&'static Scenario>,
    /// So many rounds [default: 3, with --full 15]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Length of one round of one server in milliseconds [default: 120, with --full 1000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    round_ms: Option<u64>,
    /// Where the table, the JSON file and the plot go [default: bench-results in the target
    /// directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

impl Cli {
    pub(crate) fn servers(&self) -> Vec<&'static Server> {
        SERVERS
            .into_iter()
            .filter(|server| {
                self.only.is_empty() || self.only.iter().any(|only| only.name == server.name)
            })
            .collect()
    }

    pub(crate) fn scenarios(&self) -> Vec<&'static Scenario> {
        SCENARIOS
            .into_iter()
            .filter(|scenario| {
                self.scenario.is_empty()
                    || self.scenario.iter().any(|only| only.name == scenario.name)
            })
            .collect()
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.full { 15 } else { 3 })
    }

    pub(crate) fn round(&self) -> Duration {
        Duration::from_millis(self.round_ms.unwrap_or(if self.full { 1000 } else { 120 }))
    }

    pub(crate) fn idle_counts(&self) -> &'static [usize] {
        if self.full { &[5_000, 10_000, 19_000] } else { &[5_000] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> (Vec<&'static str>, Vec<&'static str>) {
        let cli = Cli::parse_from([&["throughput"], words].concat());
        (
            cli.servers().iter().map(|s| s.name).collect(),
            cli.scenarios().iter().map(|s| s.name).collect(),
        )
    }

    #[test]
    fn all_by_default_and_a_choice_in_the_tables_order() {
        let (servers, scenarios) = names(&[]);
        assert_eq!((servers.len(), scenarios.len()), (SERVERS.len(), SCENARIOS.len()));
        assert_eq!(
            names(&["--only", "condor,c", "--scenario", "idle,depth1"]),
            (vec!["c", "condor"], vec!["depth1", "idle"])
        );
    }

    #[test]
    fn full_and_quick_set_the_rounds_and_options_override_them() {
        assert_eq!(Cli::parse_from(["throughput", "--full"]).rounds(), 15);
        assert_eq!(Cli::parse_from(["throughput", "--quick"]).rounds(), 3);
        assert_eq!(Cli::parse_from(["throughput", "--full", "--rounds", "7"]).rounds(), 7);
        assert!(Cli::try_parse_from(["throughput", "--full", "--quick"]).is_err());
        assert!(Cli::try_parse_from(["throughput", "--only", "nobody"]).is_err());
    }
}
