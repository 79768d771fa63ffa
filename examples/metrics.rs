//! An echo server with a second port, which serves its counters and histograms in the text format
//! of Prometheus.
//!
//! ```text
//! cargo run --release --example metrics -- --listen 127.0.0.1:5555 --admin 127.0.0.1:9555
//!
//! curl http://127.0.0.1:9555/metrics                                   # in another terminal; or:
//! bash -c 'exec 3<>/dev/tcp/127.0.0.1/9555; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3'
//! ```
//!
//! `/ready` is for the health check of a load balancer: it answers 200 until a shutdown begins, and
//! 503 after that. The first SIGTERM or SIGINT begins the shutdown, and the second one ends all
//! connections at once. For `--shutdown-delay` after the first signal, the server still accepts
//! clients, so that the load balancer has time to notice the 503.
//!
//! What it shows:
//!
//! - A second listener has a framing and a handler of its own.
//! - Its input is lines, its output is raw bytes.
//! - A callback reads the figures of all shards from a [`Handle`].

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use condor::{
    Action, CloseKind, CloseReason, Context, Endpoint, Error, Framing, Handle, Handler, Histogram,
    Lines, ListenerOptions, LoopStats, ReactorOptions, Shards, Stats,
};

#[path = "common/mod.rs"]
mod common;

/// The longest line of a request.
const LINE_MAX: usize = 4096;
/// The most lines of a request.
const LINES_MAX: usize = 100;

struct Echo;

impl Handler for Echo {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _ctx: &mut Context<'_, ()>) -> Action<'a> {
        Action::send(packet)
    }
}

/// Answers one request of HTTP/1.0, then closes.
#[derive(Default)]
struct Admin {
    /// The first line of the request, once it has arrived.
    request: Option<String>,
    lines: usize,
}

impl Handler for Admin {
    type Message = ();

    fn handle_packet<'a>(&'a mut self, line: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        self.lines += 1;
        if self.lines > LINES_MAX {
            return Action::stop(CloseReason::Custom("the request has too many lines"));
        }
        if !line.is_empty() {
            self.request.get_or_insert_with(|| String::from_utf8_lossy(line).into_owned());
            return Action::Continue;
        }
        let request = self.request.take().unwrap_or_default();
        Action::send_and_stop(answer(&request, &ctx.handle()), CloseReason::Normal)
    }
}

/// The whole answer to a request that begins with `first_line`.
fn answer(first_line: &str, handle: &Handle) -> String {
    let mut words = first_line.split(' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => {
            ("200 OK", metrics(&handle.listeners(), &handle.loop_stats(), handle.is_ready()))
        }
        (Some("GET"), Some("/ready")) if handle.is_ready() => ("200 OK", String::from("ready\n")),
        (Some("GET"), Some("/ready")) => ("503 Service Unavailable", String::from("draining\n")),
        (Some("GET"), _) => ("404 Not Found", String::from("try /metrics or /ready\n")),
        _ => ("405 Method Not Allowed", String::from("only GET\n")),
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let length = body.len();
    format!("HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// All metrics in the text format of Prometheus: for each metric its type, then one line for each
/// listener or shard.
fn metrics(
    listeners: &[(String, Endpoint, Stats)],
    shards: &[LoopStats],
    is_ready: bool,
) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "# TYPE condor_ready gauge\ncondor_ready {}", u8::from(is_ready));
    for (at, (name, _)) in Stats::default().iter().enumerate() {
        let (kind, suffix) = match Stats::GAUGES.contains(&name) {
            true => ("gauge", ""),
            false => ("counter", "_total"),
        };
        let _ = writeln!(text, "# TYPE condor_{name}{suffix} {kind}");
        for (listener, _, stats) in listeners {
            let value = stats.iter().nth(at).map_or(0, |(_, value)| value);
            let listener = escaped(listener);
            let _ = writeln!(text, "condor_{name}{suffix}{{listener=\"{listener}\"}} {value}");
        }
    }
    let _ = writeln!(text, "# TYPE condor_closed_total counter");
    for (listener, _, stats) in listeners {
        for kind in CloseKind::ALL {
            let (listener, count) = (escaped(listener), stats.closed(*kind));
            let _ = writeln!(
                text,
                "condor_closed_total{{listener=\"{listener}\",reason=\"{kind}\"}} {count}"
            );
        }
    }
    histogram(&mut text, "turn_seconds", 1e-9, shards, |stats| &stats.turn_nanos);
    histogram(&mut text, "turn_events", 1.0, shards, |stats| &stats.events);
    histogram(&mut text, "first_packet_seconds", 1e-6, shards, |stats| &stats.first_packet_micros);
    histogram(&mut text, "timer_lateness_seconds", 1e-3, shards, |stats| {
        &stats.timer_lateness_millis
    });
    text
}

/// Writes one histogram for each shard. Prometheus wants cumulative counts, but the buckets of a
/// [`Histogram`] have separate counts, so this adds them up. It leaves out the buckets above the
/// largest value. It writes no `_sum`, because a [`Histogram`] keeps no sum of its values.
fn histogram(
    text: &mut String,
    name: &str,
    unit: f64,
    shards: &[LoopStats],
    which: impl Fn(&LoopStats) -> &Histogram,
) {
    let _ = writeln!(text, "# TYPE condor_{name} histogram");
    for (shard, stats) in shards.iter().enumerate() {
        let histogram = which(stats);
        let count = histogram.count();
        let mut sum = 0;
        for (upper, values) in histogram.iter() {
            if sum == count {
                break;
            }
            sum += values;
            #[expect(
                clippy::cast_precision_loss,
                reason = "the bound of a bucket need not be exact"
            )]
            let bound = upper as f64 * unit;
            let _ =
                writeln!(text, "condor_{name}_bucket{{shard=\"{shard}\",le=\"{bound}\"}} {sum}");
        }
        let _ = writeln!(text, "condor_{name}_bucket{{shard=\"{shard}\",le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "condor_{name}_count{{shard=\"{shard}\"}} {count}");
    }
}

/// Escapes the value of a label, as the text format demands.
fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

/// Sends every packet back, and serves metrics.
#[derive(Debug, Parser)]
struct Options {
    /// Where the echo listens; `:PORT` is on 127.0.0.1
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:5555")]
    listen: SocketAddr,
    /// Where `/metrics` and `/ready` are served
    #[arg(long, value_name = "HOST:PORT", value_parser = common::listen_address,
          default_value = "127.0.0.1:9555")]
    admin: SocketAddr,
    /// Reactors, each on a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_024))]
    shards: usize,
    /// How long to accept clients after the shutdown has begun
    #[arg(long, alias = "drain-lead", value_name = "MILLISECONDS", default_value_t = 0)]
    shutdown_delay: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    common::start_log("info");
    common::exit_code("metrics", serve(&options))
}

fn admin_options(addr: SocketAddr) -> ListenerOptions {
    ListenerOptions::new(addr)
        .framing(Framing::split(Lines::new(LINE_MAX), Framing::raw()))
        .idle_timeout(Duration::from_secs(10))
}

fn serve(options: &Options) -> Result<(), Error> {
    let reactor =
        ReactorOptions::new().shutdown_delay(Duration::from_millis(options.shutdown_delay));
    let shards = Shards::with_options(options.shards, reactor)?;
    let echo = shards.start_listener("echo", ListenerOptions::new(options.listen), |_| Echo)?;
    let admin =
        shards.start_listener("admin", admin_options(options.admin), |_| Admin::default())?;
    common::drain_on_signals(shards.handle())?;
    let (echo, admin) = (echo.local_addr(), admin.local_addr());
    common::say(format_args!("echo on {echo}, metrics on http://{admin}/metrics"));
    shards.run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write as _};
    use std::net::TcpStream;
    use std::thread;

    use condor::Reactor;

    /// Runs a reactor with both listeners. Sends `packets` to the echo, then makes each of the
    /// `requests`. Returns the answers.
    fn answers(packets: usize, requests: &[&str]) -> Vec<String> {
        let mut reactor = Reactor::new().unwrap();
        let name = "the \"echo\"";
        let echo = reactor.start_listener(name, ListenerOptions::port(0), |_| Echo).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let admin =
            reactor.start_listener("admin", admin_options(any), |_| Admin::default()).unwrap();
        let requests: Vec<String> = requests.iter().map(|&request| request.into()).collect();
        let handle = reactor.handle();
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(echo.local_addr()).unwrap();
            for _ in 0..packets {
                stream.write_all(b"\x00\x02hi").unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
            }
            let get = |request: &String| {
                let mut stream = TcpStream::connect(admin.local_addr()).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            };
            let answers = requests.iter().map(get).collect();
            drop(handle.shutdown().unwrap());
            answers
        });
        reactor.run().unwrap();
        client.join().unwrap()
    }

    /// Goal: each line is `name{labels} value`, each metric has one type, declared before its first
    /// line, and the values are right. Method: send three packets, then parse every line.
    #[test]
    fn the_text_is_prometheus() {
        let answer = answers(3, &["GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"]).remove(0);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        let mut types = std::collections::BTreeSet::new();
        for line in body.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap();
                assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
                assert!(types.insert(name.to_owned()), "twice: {line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let base = ["_bucket", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert!(types.contains(base), "no type: {line}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
        }
        for expected in [
            r#"condor_packets_in_total{listener="the \"echo\""} 3"#,
            "# TYPE condor_open gauge\n",
            r#"condor_open{listener="admin"} 1"#,
            "# TYPE condor_half_closed gauge\n",
            r#"condor_half_closed{listener="admin"} 0"#,
            r#"condor_closed_total{listener="the \"echo\"",reason="PeerClosed"}"#,
            "condor_first_packet_seconds_count{shard=\"0\"} 1",
            "condor_ready 1\n",
        ] {
            assert!(body.contains(expected), "{expected} is not in\n{body}");
        }
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_the_count() {
        let answer = answers(50, &["GET /metrics HTTP/1.0\n\n"]).remove(0);
        let buckets: Vec<u64> = answer
            .lines()
            .filter(|line| line.starts_with("condor_turn_seconds_bucket"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(buckets.len() > 1 && buckets.is_sorted(), "{buckets:?}");
        assert!(*buckets.last().unwrap() >= 50, "{buckets:?}");
        let count = answer.lines().find(|line| line.starts_with("condor_turn_seconds_count"));
        let count: u64 = count.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
        assert_eq!(buckets.last(), Some(&count));
    }

    #[test]
    fn other_requests_are_answered_too() {
        let requests = ["GET /ready HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", "POST x\r\n\r\n"];
        let answers = answers(0, &requests);
        for (answer, status) in answers.iter().zip(["200", "404", "405"]) {
            assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{answer}");
        }
    }
}
