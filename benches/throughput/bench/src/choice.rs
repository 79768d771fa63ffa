//! Which servers run which scenarios, and to which of them the others are compared.

use anyhow::{Result, bail};

use crate::cli::Cli;
use crate::scenario::{SCENARIOS, Scenario};
use crate::servers::{SERVERS, Server, usual_reference};

/// Servers and scenarios in the order of their tables. Each server takes part in one of the
/// scenarios at least, and each scenario has one of the servers.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) servers: Vec<&'static Server>,
    pub(crate) scenarios: Vec<&'static Scenario>,
    /// The server that the user wants all ratios to be relative to.
    pub(crate) reference: Option<&'static Server>,
}

impl Choice {
    /// What the command line asks for. An error if that gives anything named nothing to do.
    pub(crate) fn of(cli: &Cli) -> Result<Self> {
        let chosen = |server: &&'static Server| {
            cli.only.is_empty() || cli.only.contains(server) || cli.reference == Some(*server)
        };
        let named = |scenario: &&'static Scenario| {
            cli.scenario.iter().any(|named| named.name == scenario.name)
        };
        let asked = |scenario: &&'static Scenario| match cli.scenario.is_empty() {
            true => cli.full || !scenario.is_long(),
            false => named(scenario),
        };
        let mut servers: Vec<_> = SERVERS.into_iter().filter(chosen).collect();
        let mut scenarios: Vec<_> = SCENARIOS.into_iter().filter(asked).collect();
        for server in cli.only.iter().chain(&cli.reference) {
            if !scenarios.iter().any(|scenario| server.takes_part(scenario)) {
                bail!("{}", idle_server(server, &scenarios));
            }
        }
        for scenario in &cli.scenario {
            if !servers.iter().any(|server| server.takes_part(scenario)) {
                bail!("{}", empty_scenario(scenario, &servers));
            }
        }
        servers.retain(|server| scenarios.iter().any(|scenario| server.takes_part(scenario)));
        scenarios.retain(|scenario| servers.iter().any(|server| server.takes_part(scenario)));
        Ok(Self { servers, scenarios, reference: cli.reference })
    }

    /// Whether ratios of any scenario are relative to this server.
    pub(crate) fn is_reference(&self, server: &Server) -> bool {
        let of = |scenario| self.reference.unwrap_or_else(|| usual_reference(scenario));
        self.scenarios.iter().any(|scenario| of(scenario) == server)
    }
}

fn idle_server(server: &Server, scenarios: &[&Scenario]) -> String {
    let does = SCENARIOS.iter().filter(|scenario| server.takes_part(scenario));
    format!(
        "{} has nothing to do in {}: it takes part in {}",
        server.name,
        list(scenarios.iter().map(|scenario| scenario.name)),
        list(does.map(|scenario| scenario.name))
    )
}

fn empty_scenario(scenario: &Scenario, servers: &[&Server]) -> String {
    let run = SERVERS.iter().filter(|server| server.takes_part(scenario));
    format!(
        "{} is not for {}: it is run by {}",
        scenario.name,
        list(servers.iter().map(|server| server.name)),
        list(run.map(|server| server.name))
    )
}

fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn choice(line: &str) -> Result<Choice> {
        Choice::of(&Cli::parse_from(["throughput"].into_iter().chain(line.split_whitespace())))
    }

    /// `servers; scenarios; references`
    fn chosen(line: &str) -> String {
        let choice = choice(line).unwrap();
        format!(
            "{}; {}; {}",
            list(choice.servers.iter().map(|server| server.name)),
            list(choice.scenarios.iter().map(|scenario| scenario.name)),
            list(SERVERS.iter().filter(|server| choice.is_reference(server)).map(|it| it.name))
        )
    }

    #[test]
    fn all_by_default_but_the_long_ones_only_when_asked_for() {
        let (quick, full) = (choice("").unwrap(), choice("--full").unwrap());
        assert_eq!(quick.servers.len(), SERVERS.len());
        assert_eq!(full.servers.len(), SERVERS.len());
        assert_eq!(full.scenarios.len(), SCENARIOS.len());
        assert!(!quick.scenarios.iter().any(|scenario| scenario.is_long()));
        assert_eq!(chosen("--scenario burst"), "c, condor, tokio-codec, tokio-hand; burst; c");
    }

    #[test]
    fn a_choice_is_in_the_tables_order_and_without_what_has_no_part() {
        assert_eq!(chosen("--only condor,c --scenario idle,depth1"), "c, condor; depth1, idle; c");
        assert_eq!(chosen("--only condor-busy"), "condor-busy; single, single-awake, idle; c");
        assert!(chosen("--scenario depth64").contains("condor-2-shards"));
        assert!(!chosen("--scenario depth1").contains("condor-2-shards"));
    }

    #[test]
    fn a_reference_that_is_named_takes_part() {
        assert_eq!(
            chosen("--only condor-2-shards --reference condor --scenario depth64"),
            "condor, condor-2-shards; depth64; condor"
        );
        assert_eq!(chosen("--only condor --scenario depth64"), "condor; depth64; c");
        assert_eq!(
            chosen("--only condor-pair --reference haproxy --scenario gateway-1"),
            "haproxy, condor-pair; gateway-1; haproxy"
        );
    }

    #[test]
    fn each_kind_of_scenario_has_its_usual_reference() {
        assert_eq!(chosen("--only c-pair --scenario gateway-1"), "c-pair; gateway-1; c-pair");
        assert_eq!(
            chosen("--only c,haproxy --scenario depth1,gateway-1"),
            "c, haproxy; depth1, gateway-1; c, c-pair"
        );
    }

    #[test]
    fn what_has_nothing_to_do_is_an_error_that_says_why() {
        for (line, why) in [
            (
                "--only condor-busy --scenario depth1",
                "condor-busy has nothing to do in depth1: it takes part in single, single-awake, idle",
            ),
            (
                "--only c,condor-busy --scenario depth1,depth64",
                "condor-busy has nothing to do in depth1, depth64: it takes part in single, single-awake, idle",
            ),
            (
                "--reference condor-2-shards --scenario single",
                "condor-2-shards has nothing to do in single: it takes part in depth64",
            ),
            (
                "--only monoio --scenario depth1,broadcast",
                "broadcast is not for monoio: it is run by c, condor, tokio-hand",
            ),
        ] {
            assert_eq!(choice(line).unwrap_err().to_string(), why);
        }
    }
}
