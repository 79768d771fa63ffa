//! The servers that are compared.

use clap::ValueEnum;

/// Where a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `servers/c/echo.c`
    C,
    /// A package of this workspace, which is also the name of its binary.
    Package(&'static str),
}

/// One server, or one mode of one.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) source: Source,
    pub(crate) mode: Option<&'static str>,
    pub(crate) broadcasts: bool,
    /// The crate whose version the report names.
    pub(crate) library: Option<&'static str>,
}

/// The reference that ratios are taken to.
pub(crate) const REFERENCE: &str = "c";

/// All of them, the reference first.
pub(crate) static SERVERS: [&Server; 8] = [
    &Server {
        name: REFERENCE,
        what: "C, edge-triggered epoll",
        source: Source::C,
        mode: None,
        broadcasts: true,
        library: None,
    },
    &Server {
        name: "condor",
        what: "this crate",
        source: Source::Package("echo-condor"),
        mode: None,
        broadcasts: true,
        library: Some("condor-reactor"),
    },
    &Server {
        name: "tokio-codec",
        what: "tokio + LengthDelimitedCodec",
        source: Source::Package("echo-tokio-codec"),
        mode: Some("plain"),
        broadcasts: false,
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-codec-timeout",
        what: "the same with a packet timeout",
        source: Source::Package("echo-tokio-codec"),
        mode: Some("timeout"),
        broadcasts: false,
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-codec-batched",
        what: "the same, batched by hand",
        source: Source::Package("echo-tokio-codec"),
        mode: Some("batched"),
        broadcasts: false,
        library: Some("tokio-util"),
    },
    &Server {
        name: "tokio-hand",
        what: "tokio, framed by hand",
        source: Source::Package("echo-tokio-hand"),
        mode: None,
        broadcasts: true,
        library: Some("tokio"),
    },
    &Server {
        name: "monoio",
        what: "monoio, framed by hand",
        source: Source::Package("echo-monoio"),
        mode: None,
        broadcasts: false,
        library: Some("monoio"),
    },
    &Server {
        name: "ringline",
        what: "ringline, framed by hand",
        source: Source::Package("echo-ringline"),
        mode: None,
        broadcasts: false,
        library: Some("ringline"),
    },
];

impl Server {
    pub(crate) fn is_reference(&self) -> bool {
        self.name == REFERENCE
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
