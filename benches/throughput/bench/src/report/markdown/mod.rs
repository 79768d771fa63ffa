//! The table as Markdown.

mod loads;
mod memory;

use std::fmt::Write;

use super::table::{LoadTable, Missing, Report};
use crate::stats::Summary;

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::from("# Echo servers compared\n\n");
    machine(report, &mut text);
    let tables: Vec<&LoadTable> =
        report.loads.iter().filter(|table| !table.rows.is_empty()).collect();
    if !tables.is_empty() {
        loads::cpu(&tables, &mut text);
        loads::latency(&tables, &mut text);
        loads::throughput(&tables, &mut text);
    }
    if !report.idle.is_empty() {
        memory::idle(&report.idle, &mut text);
    }
    if let Some(burst) = &report.burst {
        memory::burst(burst, &mut text);
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
    let summaries = (report.loads.iter().flat_map(|table| &table.rows).map(|row| &row.cpu))
        .chain(report.idle.iter().map(|row| &row.base));
    let _ = writeln!(text, "{}\n", certainty(summaries));
}

/// How sure the intervals are. The fewest rounds decide.
fn certainty<'a>(summaries: impl Iterator<Item = &'a Summary>) -> String {
    const WHAT: &str = "Figures are medians over the rounds, with an interval of order statistics that covers the \
         true median";
    let coverage = summaries.map(|summary| summary.coverage).reduce(f64::min);
    match coverage {
        None => String::from("Figures are of one run each."),
        Some(coverage) if coverage >= 0.95 => format!("{WHAT} with at least 95 %."),
        Some(coverage) => format!(
            "{WHAT} with at least 95 % where there were 6 rounds or more, with {:.0} % where there \
             were fewest.",
            coverage * 100.0
        ),
    }
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
