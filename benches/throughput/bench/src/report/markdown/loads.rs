//! What packets cost: CPU, latency, packets per second.

use std::fmt::Write;

use super::{number, ratio};
use crate::report::references;
use crate::report::table::{LoadRow, LoadTable};
use crate::servers::SERVERS;

/// One table for each reference.
pub(super) fn cpu(tables: &[&LoadTable], text: &mut String) {
    for reference in references(tables) {
        let its = tables.iter().copied().filter(|table| table.reference == reference);
        cpu_relative_to(reference, &its.collect::<Vec<_>>(), text);
    }
}

/// Scenarios down, servers across, the reference before all others.
fn cpu_relative_to(reference: &str, tables: &[&LoadTable], text: &mut String) {
    let rows = || tables.iter().flat_map(|table| &table.rows);
    let paired = rows().any(|row| row.cpu_ratio.is_some());
    let mut names: Vec<&str> = SERVERS
        .iter()
        .map(|server| server.name)
        .filter(|name| rows().any(|row| row.server == *name))
        .collect();
    names.sort_by_key(|name| *name != reference);
    let title = if paired {
        format!("CPU of the server per packet, relative to {reference} in the same round")
    } else {
        format!("CPU of the server per packet in nanoseconds (no ratios: {reference} did not run)")
    };
    let heads = names.iter().map(|name| match paired && *name == reference {
        true => format!("{name} in ns"),
        false => (*name).to_owned(),
    });
    let _ = writeln!(text, "## {title}\n");
    let _ = writeln!(text, "| scenario | {} |", heads.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(names.len()));
    for table in tables {
        let cell = |row: &LoadRow| match &row.cpu_ratio {
            Some(value) if row.server != reference => ratio(value),
            None if paired => String::new(),
            _ => number(&row.cpu, 0),
        };
        let cells = names.iter().map(|name| {
            table.rows.iter().find(|row| row.server == *name).map_or_else(String::new, cell)
        });
        let _ = writeln!(text, "| {} | {} |", table.what, cells.collect::<Vec<_>>().join(" | "));
    }
    text.push('\n');
}

pub(super) fn latency(tables: &[&LoadTable], text: &mut String) {
    text.push_str("## Latency in microseconds\n\n");
    text.push_str(
        "Closed loops count from when a packet was sent, the open loop from when it was due, churn \
         from the connect, broadcast until the last has heard.\n\n",
    );
    for table in tables {
        let reference = table.reference;
        let _ = writeln!(text, "**{}**\n", table.what);
        let _ = writeln!(
            text,
            "| server | p50 | p90 | p99 | p99.9 | p50 relative to {reference} | p99 relative to \
             {reference} |"
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

pub(super) fn throughput(tables: &[&LoadTable], text: &mut String) {
    text.push_str(
        "## Packets per second, in thousands\n\nWith one generator on one core: where that is busy \
         all the time, this is its limit and not the server's. A server with several busy threads on the one core waits \
         for itself, too.\n\n",
    );
    for table in tables {
        throughput_of(table, text);
    }
}

fn throughput_of(table: &LoadTable, text: &mut String) {
    let _ = writeln!(text, "**{}**\n", table.what);
    text.push_str("| server | I/O | busy threads | packets a round | thousands a second | CPU in ns per packet ");
    text.push_str(
        "| generator busy | waiting for a core |\n|---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in &table.rows {
        let (speed, cpu, busy) = (
            number(&row.packets_per_second.scaled(1e-3), 1),
            number(&row.cpu, 0),
            row.generator_busy.median * 100.0,
        );
        let disturbed = row.disturbed.median * 100.0;
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {speed} | {cpu} | {busy:.0} % | {disturbed:.1} % |",
            row.server, row.io, row.threads.median, row.packets_per_round
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::two_servers;

    fn shown(reference: &'static str) -> String {
        let (table, mut text) = (LoadTable::of(&two_servers(), reference), String::new());
        cpu(&[&table], &mut text);
        latency(&[&table], &mut text);
        text
    }

    #[test]
    fn the_reference_comes_first_and_gives_its_name_to_the_ratios() {
        let text = shown("condor");
        assert!(text.contains("relative to condor in the same round"), "{text}");
        assert!(text.contains("| scenario | condor in ns | c |"), "{text}");
        assert!(text.contains("| 100000 (50000 to 200000) | 2.00 (2.00 to 2.00) |"), "{text}");
        assert!(text.contains("| p50 relative to condor | p99 relative to condor |"), "{text}");
        assert!(!text.contains("relative to c "), "{text}");
    }

    #[test]
    fn scenarios_with_another_reference_have_a_table_of_their_own() {
        let tables = ["c", "condor", "c"].map(|reference| LoadTable::of(&two_servers(), reference));
        let mut text = String::new();
        cpu(&tables.iter().collect::<Vec<_>>(), &mut text);
        assert_eq!(text.matches("## CPU").count(), 2, "{text}");
        assert_eq!(text.matches("(100000 to 400000) | 0.50 (0.50 to 0.50) |").count(), 2, "{text}");
        assert_eq!(text.matches("(50000 to 200000) | 2.00 (2.00 to 2.00) |").count(), 1, "{text}");
    }

    #[test]
    fn without_the_reference_there_are_nanoseconds() {
        let text = shown("monoio");
        assert!(text.contains("(no ratios: monoio did not run)"), "{text}");
        assert!(
            text.contains("| 200000 (100000 to 400000) | 100000 (50000 to 200000) |"),
            "{text}"
        );
    }
}
