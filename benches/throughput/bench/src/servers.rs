//! The servers that are compared.

use clap::ValueEnum;

use crate::scenario::{SCENARIOS, Scenario};

/// Where a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `servers/c/NAME.c`
    C(&'static str),
    /// A package of this workspace, which is also the name of its binary.
    Package(&'static str),
    /// An example of this crate.
    Example(&'static str),
    /// HAProxy, if it is installed.
    Haproxy,
}

/// The scenarios a server takes part in, by name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// Those that are for every server, and these.
    AllAnd(&'static [&'static str]),
    /// These alone.
    Only(&'static [&'static str]),
}

/// One server, or one mode of one.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) source: Source,
    /// What makes it this mode.
    pub(crate) args: &'static [&'static str],
    pub(crate) part: Part,
    /// The crate whose version the report names.
    pub(crate) library: Option<&'static str>,
}

/// One packet to many members.
const FANOUT: [&str; 3] = ["fanout-100", "fanout-1000", "fanout-10000"];

/// All of them through a gateway.
const GATEWAY: [&str; 3] = ["gateway-1", "gateway-16", "gateway-single"];

/// What the gateways pass their packets on to.
pub(crate) static BACKEND: &Server = SERVERS[0];

/// The server that ratios are taken to if the user names no other: the first that takes part.
pub(crate) fn usual_reference(scenario: &Scenario) -> &'static Server {
    let mut servers = SERVERS.into_iter();
    servers.find(|server| server.takes_part(scenario)).expect("every scenario has a server")
}

/// All of them, in the order in which they are reported.
pub(crate) static SERVERS: [&Server; 19] = [
    &Server {
        name: "c",
        what: "C, edge-triggered epoll",
        source: Source::C("echo"),
        args: &[],
        part: Part::AllAnd(&[
            "broadcast",
            "fanout-100",
            "fanout-1000",
            "fanout-10000",
            "unix-1",
            "unix-64",
            "burst",
        ]),
        library: None,
    },
    &Server {
        name: "condor",
        what: "this crate",
        source: Source::Package("echo-condor"),
        args: &[],
        part: Part::AllAnd(&["broadcast", "unix-1", "unix-64", "burst"]),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-busy",
        what: "the same, polling for 1 ms before it blocks",
        source: Source::Package("echo-condor"),
        args: &["--mode", "busy"],
        part: Part::Only(&["single", "single-awake", "idle"]),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-2-shards",
        what: "this crate, two reactors on the one core",
        source: Source::Package("echo-condor"),
        args: &["--mode", "2-shards"],
        part: Part::Only(&["depth64"]),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-group",
        what: "this crate, packets to a group",
        source: Source::Package("echo-condor"),
        args: &["--mode", "group"],
        part: Part::Only(&FANOUT),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-group-silent",
        what: "the same, and one more member, which reads nothing and is skipped",
        source: Source::Package("echo-condor"),
        args: &["--mode", "group-silent"],
        part: Part::Only(&FANOUT),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "tokio-codec",
        what: "tokio + LengthDelimitedCodec",
        source: Source::Package("echo-tokio-codec"),
        args: &["--mode", "plain"],
        part: Part::AllAnd(&["burst"]),
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-codec-timeout",
        what: "the same with a packet timeout",
        source: Source::Package("echo-tokio-codec"),
        args: &["--mode", "timeout"],
        part: Part::AllAnd(&[]),
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-codec-batched",
        what: "the same, batched by hand",
        source: Source::Package("echo-tokio-codec"),
        args: &["--mode", "batched"],
        part: Part::AllAnd(&[]),
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-hand",
        what: "tokio, framed by hand",
        source: Source::Package("echo-tokio-hand"),
        args: &[],
        part: Part::AllAnd(&["broadcast", "burst"]),
        library: Some("tokio"),
    },
    &Server {
        name: "tokio-channel",
        what: "tokio, its broadcast channel, a task for each member",
        source: Source::Package("echo-tokio-hand"),
        args: &["--mode", "channel"],
        part: Part::Only(&FANOUT),
        library: Some("tokio"),
    },
    &Server {
        name: "monoio",
        what: "monoio, framed by hand",
        source: Source::Package("echo-monoio"),
        args: &[],
        part: Part::AllAnd(&[]),
        library: Some("monoio"),
    },
    &Server {
        name: "ringline",
        what: "ringline, framed by hand",
        source: Source::Package("echo-ringline"),
        args: &[],
        part: Part::AllAnd(&[]),
        library: Some("ringline"),
    },
    &Server {
        name: "c-pair",
        what: "a gateway in C, edge-triggered epoll",
        source: Source::C("proxy"),
        args: &[],
        part: Part::Only(&GATEWAY),
        library: None,
    },
    &Server {
        name: "haproxy",
        what: "HAProxy in TCP mode, one thread",
        source: Source::Haproxy,
        args: &[],
        part: Part::Only(&GATEWAY),
        library: None,
    },
    &Server {
        name: "tokio-copy",
        what: "a gateway on tokio, copy_bidirectional",
        source: Source::Package("echo-tokio-hand"),
        args: &["--mode", "copy"],
        part: Part::Only(&GATEWAY),
        library: Some("tokio"),
    },
    &Server {
        name: "condor-pair",
        what: "this crate's example gateway, a pair for each client",
        source: Source::Example("gateway"),
        args: &["--pair"],
        part: Part::Only(&GATEWAY),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-pair-busy",
        what: "the same, polling for 1 ms before it blocks",
        source: Source::Example("gateway"),
        args: &["--pair", "--busy-poll", "1000"],
        part: Part::Only(&["gateway-single"]),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-links",
        what: "this crate's example gateway, two links for all clients",
        source: Source::Example("gateway"),
        args: &["--links", "2", "--len", "2"],
        part: Part::Only(&GATEWAY),
        library: Some("condor-reactor"),
    },
];

impl Server {
    pub(crate) fn takes_part(&self, scenario: &Scenario) -> bool {
        match self.part {
            Part::AllAnd(more) => scenario.is_for_all() || more.contains(&scenario.name),
            Part::Only(these) => these.contains(&scenario.name),
        }
    }

    /// Whether it needs a backend.
    pub(crate) fn is_gateway(&self) -> bool {
        let gateways = SCENARIOS.iter().filter(|scenario| scenario.is_gateway());
        gateways.into_iter().any(|scenario| self.takes_part(scenario))
    }
}

/// Two servers are equal if their names are equal.
impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A server on the command line.
impl ValueEnum for &'static Server {
    fn value_variants<'a>() -> &'a [Self] {
        &SERVERS
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name).help(self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part_of(name: &str) -> Vec<&'static str> {
        let server = SERVERS.into_iter().find(|server| server.name == name).unwrap();
        let part = SCENARIOS.into_iter().filter(|scenario| server.takes_part(scenario));
        part.map(|scenario| scenario.name).collect()
    }

    #[test]
    fn every_scenario_that_is_named_exists() {
        for server in SERVERS {
            let (Part::AllAnd(names) | Part::Only(names)) = server.part;
            for name in names {
                assert!(SCENARIOS.iter().any(|scenario| scenario.name == *name), "{name}");
            }
        }
    }

    #[test]
    fn servers_take_part_where_they_say() {
        assert_eq!(part_of("c").len() + GATEWAY.len(), SCENARIOS.len());
        assert_eq!(part_of("condor-pair"), GATEWAY);
        assert_eq!(part_of("condor-pair-busy"), ["gateway-single"]);
        assert_eq!(part_of("condor-busy"), ["single", "single-awake", "idle"]);
        assert_eq!(part_of("condor-2-shards"), ["depth64"]);
        for scenario in SCENARIOS.into_iter().filter(|scenario| scenario.is_unix()) {
            let servers = SERVERS.into_iter().filter(|server| server.takes_part(scenario));
            assert_eq!(servers.map(|server| server.name).collect::<Vec<_>>(), ["c", "condor"]);
        }
        let monoio = part_of("monoio");
        assert!(monoio.contains(&"open"));
        assert!(!monoio.contains(&"broadcast") && !monoio.contains(&"burst"));
    }

    /// Goal: a gateway always has a backend, and an echo server is never started with one.
    #[test]
    fn gateways_run_what_is_through_a_gateway_and_nothing_else() {
        for server in SERVERS {
            for scenario in SCENARIOS.iter().filter(|scenario| server.takes_part(scenario)) {
                assert_eq!(scenario.is_gateway(), server.is_gateway(), "{}", server.name);
            }
        }
        assert!(!BACKEND.is_gateway());
    }

    #[test]
    fn the_c_programs_are_the_usual_references() {
        for scenario in SCENARIOS {
            let c = if scenario.is_gateway() { "c-pair" } else { "c" };
            assert_eq!(usual_reference(scenario).name, c, "{}", scenario.name);
        }
    }
}
