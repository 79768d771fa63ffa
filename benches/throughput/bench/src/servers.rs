//! The servers that are compared.

use clap::ValueEnum;

use crate::scenario::Scenario;

/// Where a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `servers/c/echo.c`
    C,
    /// A package of this workspace, which is also the name of its binary.
    Package(&'static str),
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
    pub(crate) mode: Option<&'static str>,
    pub(crate) part: Part,
    /// The crate whose version the report names.
    pub(crate) library: Option<&'static str>,
}

/// One packet to many members.
const FANOUT: [&str; 3] = ["fanout-100", "fanout-1000", "fanout-10000"];

/// The server that ratios are taken to if the user names no other.
pub(crate) static USUAL_REFERENCE: &Server = SERVERS[0];

/// All of them, in the order in which they are reported.
pub(crate) static SERVERS: [&Server; 13] = [
    &Server {
        name: "c",
        what: "C, edge-triggered epoll",
        source: Source::C,
        mode: None,
        part: Part::AllAnd(&["broadcast", "fanout-100", "fanout-1000", "fanout-10000", "burst"]),
        library: None,
    },
    &Server {
        name: "condor",
        what: "this crate",
        source: Source::Package("echo-condor"),
        mode: None,
        part: Part::AllAnd(&["broadcast", "burst"]),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-busy",
        what: "the same, polling for 1 ms before it blocks",
        source: Source::Package("echo-condor"),
        mode: Some("busy"),
        part: Part::Only(&["single", "single-awake", "idle"]),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-2-shards",
        what: "this crate, two reactors on the one core",
        source: Source::Package("echo-condor"),
        mode: Some("2-shards"),
        part: Part::Only(&["depth64"]),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-group",
        what: "this crate, packets to a group",
        source: Source::Package("echo-condor"),
        mode: Some("group"),
        part: Part::Only(&FANOUT),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "condor-group-silent",
        what: "the same, and one more member, which reads nothing and is skipped",
        source: Source::Package("echo-condor"),
        mode: Some("group-silent"),
        part: Part::Only(&FANOUT),
        library: Some("condor-reactor"),
    },
    &Server {
        name: "tokio-codec",
        what: "tokio + LengthDelimitedCodec",
        source: Source::Package("echo-tokio-codec"),
        mode: Some("plain"),
        part: Part::AllAnd(&["burst"]),
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-codec-timeout",
        what: "the same with a packet timeout",
        source: Source::Package("echo-tokio-codec"),
        mode: Some("timeout"),
        part: Part::AllAnd(&[]),
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-codec-batched",
        what: "the same, batched by hand",
        source: Source::Package("echo-tokio-codec"),
        mode: Some("batched"),
        part: Part::AllAnd(&[]),
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-hand",
        what: "tokio, framed by hand",
        source: Source::Package("echo-tokio-hand"),
        mode: None,
        part: Part::AllAnd(&["broadcast", "burst"]),
        library: Some("tokio"),
    },
    &Server {
        name: "tokio-channel",
        what: "tokio, its broadcast channel, a task for each member",
        source: Source::Package("echo-tokio-hand"),
        mode: Some("channel"),
        part: Part::Only(&FANOUT),
        library: Some("tokio"),
    },
    &Server {
        name: "monoio",
        what: "monoio, framed by hand",
        source: Source::Package("echo-monoio"),
        mode: None,
        part: Part::AllAnd(&[]),
        library: Some("monoio"),
    },
    &Server {
        name: "ringline",
        what: "ringline, framed by hand",
        source: Source::Package("echo-ringline"),
        mode: None,
        part: Part::AllAnd(&[]),
        library: Some("ringline"),
    },
];

impl Server {
    pub(crate) fn takes_part(&self, scenario: &Scenario) -> bool {
        match self.part {
            Part::AllAnd(more) => scenario.is_for_all() || more.contains(&scenario.name),
            Part::Only(these) => these.contains(&scenario.name),
        }
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
    use crate::scenario::SCENARIOS;

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
        assert_eq!(part_of("c").len(), SCENARIOS.len());
        assert_eq!(part_of("condor-busy"), ["single", "single-awake", "idle"]);
        assert_eq!(part_of("condor-2-shards"), ["depth64"]);
        let monoio = part_of("monoio");
        assert!(monoio.contains(&"open"));
        assert!(!monoio.contains(&"broadcast") && !monoio.contains(&"burst"));
    }
}
