//! The table as Markdown.

use std::fmt::Write;

use super::table::{LoadTable, MemoryRow, Missing, Report};
use crate::servers::{REFERENCE, SERVERS};
use crate::stats::Summary;

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::from("# Echo servers compared\n\n");
    machine(report, &mut text);
    if report.loads.iter().any(|table| !table.rows.is_empty()) {
        cpu(report, &mut text);
        latency(report, &mut text);
        throughput(report, &mut text);
    }
    if !report.memory.is_empty() {
        memory(&report.memory, &mut text);
    }
    missing(report, &mut text);
    text
}

fn machine(report: &Report, text: &mut String) {
    let (machine, settings) = (&report.machine, &report.settings);
    let versions: Vec<String> =
        machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let lines = [
        ("date, commit", format!("{}, {}", machine.date, machine.commit)),
        ("machine", format!("{}, {} cores, {}", machine.cpu, machine.cores, machine.memory)),
        ("kernel", machine.kernel.clone()),
        ("compilers", format!("{}; {}", machine.rustc, machine.cc)),
        ("versions", versions.join(", ")),
        (
            "rounds",
            format!(
                "{} of about {} ms for each server, in turn; server on core {}, generator on {}",
                settings.rounds, settings.round_ms, settings.server_core, settings.generator_core
            ),
        ),
    ];
    text.push_str("| | |\n|---|---|\n");
    for (what, value) in lines {
        let _ = writeln!(text, "| {what} | {value} |");
    }
    text.push('\n');
    if !settings.complete {
        text.push_str("**The run was interrupted: these are the rounds until then.**\n\n");
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "**{warning}**\n");
    }
    let coverages = report.loads.iter().flat_map(|table| &table.rows).map(|row| row.cpu.coverage);
    let coverage = coverages.fold(1.0, f64::min);
    let sure = if coverage < 0.95 {
        format!("with {:.0} % only (6 rounds are needed for 95 %)", coverage * 100.0)
    } else {
        "with at least 95 %".to_owned()
    };
    let _ = writeln!(
        text,
        "Every figure is the median over the rounds, with an interval of order statistics that \
         covers the true median {sure}.\n"
    );
}

/// Scenarios down, servers across.
fn cpu(report: &Report, text: &mut String) {
    let names: Vec<&str> = SERVERS
        .iter()
        .map(|server| server.name)
        .filter(|name| {
            report.loads.iter().any(|table| table.rows.iter().any(|row| row.server == *name))
        })
        .collect();
    let paired = names.contains(&REFERENCE);
    let title = if paired {
        "CPU of the server per packet, relative to C in the same round"
    } else {
        "CPU of the server per packet in nanoseconds (no ratios: the reference did not run)"
    };
    let _ = writeln!(text, "## {title}\n");
    let _ = writeln!(
        text,
        "| scenario | {}{} |",
        if paired { "C in ns | " } else { "" },
        names.iter().filter(|name| **name != REFERENCE).copied().collect::<Vec<_>>().join(" | ")
    );
    let _ = writeln!(text, "|---|{}", "---:|".repeat(names.len()));
    for table in report.loads.iter().filter(|table| !table.rows.is_empty()) {
        let cells =
            names.iter().map(|name| match table.rows.iter().find(|row| row.server == *name) {
                None => String::new(),
                Some(row) if row.server == REFERENCE => number(&row.cpu, 0),
                Some(row) => row.cpu_ratio.as_ref().map_or_else(
                    || if paired { String::new() } else { number(&row.cpu, 0) },
                    ratio,
                ),
            });
        let _ = writeln!(text, "| {} | {} |", table.what, cells.collect::<Vec<_>>().join(" | "));
    }
    text.push('\n');
}

fn latency(report: &Report, text: &mut String) {
    text.push_str("## Latency in microseconds\n\n");
    text.push_str(
        "Closed loops count from when a packet was sent, the open loop from when it was due, churn \
         from the connect, broadcast until the last has heard.\n\n",
    );
    for table in report.loads.iter().filter(|table| !table.rows.is_empty()) {
        let _ = writeln!(text, "**{}**\n", table.what);
        text.push_str(
            "| server | p50 | p90 | p99 | p99.9 | p50 relative to C | p99 relative to C |\n",
        );
        text.push_str("|---|---:|---:|---:|---:|---:|---:|\n");
        for row in &table.rows {
            let microseconds = row
                .latency
                .iter()
                .map(|percentile| number(&percentile.nanoseconds.scaled(1e-3), 1));
            let relative = [50.0, 99.0].map(|percent| {
                row.latency
                    .iter()
                    .find(|p| p.percent == percent)
                    .and_then(|p| p.ratio.as_ref())
                    .map_or_else(String::new, ratio)
            });
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                row.server,
                microseconds.collect::<Vec<_>>().join(" | "),
                relative.join(" | ")
            );
        }
        text.push('\n');
    }
}

fn throughput(report: &Report, text: &mut String) {
    text.push_str(
        "## Packets per second, in thousands\n\nWith one generator on one core: where that is busy \
         all the time, this is its limit and not the server's.\n\n",
    );
    for table in report.loads.iter().filter(|table| !table.rows.is_empty()) {
        throughput_of(table, text);
    }
}

fn throughput_of(table: &LoadTable, text: &mut String) {
    let _ = writeln!(text, "**{}**\n", table.what);
    text.push_str("| server | I/O | packets a round | thousands a second | CPU in ns per packet ");
    text.push_str("| generator busy | waiting for a core |\n|---|---|---:|---:|---:|---:|---:|\n");
    for row in &table.rows {
        let (speed, cpu, busy) = (
            number(&row.packets_per_second.scaled(1e-3), 1),
            number(&row.cpu, 0),
            row.generator_busy.median * 100.0,
        );
        let disturbed = row.disturbed.median * 100.0;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {speed} | {cpu} | {busy:.0} % | {disturbed:.1} % |",
            row.server, row.io, row.packets_per_round
        );
    }
    text.push('\n');
}

fn memory(rows: &[MemoryRow], text: &mut String) {
    text.push_str("## Resident memory of the server, in bytes per idle connection\n\n");
    text.push_str(
        "Every connection has had one packet answered. The slope is taken between the fewest and \
         the most connections. What a server reserves before it knows how many will come is in \
         the first column and in the last, the whole process with the most connections.\n\n",
    );
    let counts: Vec<String> =
        rows[0].steps.iter().map(|step| format!("at {} | ", step.connections)).collect();
    let _ =
        writeln!(text, "| server | with one, in KiB | {}slope | all, in KiB |", counts.concat());
    let _ = writeln!(text, "|---|---:|{}---:|---:|", "---:|".repeat(counts.len()));
    for row in rows {
        let steps: Vec<String> =
            row.steps.iter().map(|step| number(&step.per_connection, 0) + " | ").collect();
        let slope = row.slope.as_ref().map_or_else(String::new, |slope| number(slope, 0));
        let all = row.steps.last().map_or(0.0, |step| step.resident.median / 1024.0);
        let _ = writeln!(
            text,
            "| {} | {:.0} | {}{slope} | {all:.0} |",
            row.server,
            row.base.median / 1024.0,
            steps.concat()
        );
    }
    text.push('\n');
}

fn missing(report: &Report, text: &mut String) {
    if report.missing.is_empty() && report.failures.is_empty() {
        return;
    }
    text.push_str("## What is missing\n\n");
    for Missing { server, scenario, why } in report.missing.iter().chain(&report.failures) {
        let place = scenario
            .map_or_else(|| "not built".to_owned(), |scenario| format!("failed in {scenario}"));
        let _ = writeln!(text, "- **{server}** {place}:\n\n  ```text");
        why.lines().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
        text.push_str("  ```\n");
    }
}

/// `0.99 (0.97 to 1.01)`
fn ratio(summary: &Summary) -> String {
    let digits = if summary.median < 10.0 { 2 } else { 1 };
    number(summary, digits)
}

fn number(Summary { median, low, high, .. }: &Summary, digits: usize) -> String {
    format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_shown_with_its_interval() {
        let summary = Summary::of(&[0.97, 0.99, 1.012]).unwrap();
        assert_eq!(ratio(&summary), "0.99 (0.97 to 1.01)");
        assert_eq!(ratio(&summary.scaled(100.0)), "99.0 (97.0 to 101.2)");
    }
}
