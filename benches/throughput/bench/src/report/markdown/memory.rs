//! What servers keep.

use std::fmt::Write;

use super::number;
use crate::memory::LATER;
use crate::report::table::{BurstTable, IdleRow};

pub(super) fn idle(rows: &[IdleRow], text: &mut String) {
    text.push_str("## Resident memory of the server, in bytes per idle connection\n\n");
    text.push_str(
        "Every connection has had one packet answered. The slope is taken between the fewest and \
         the most connections. What a server reserves before it knows how many will come is in \
         the first column and in *all*, the whole process with the most connections. CPU is that \
         of the whole process with the most connections while nothing happens.\n\n",
    );
    let counts: Vec<String> =
        rows[0].steps.iter().map(|step| format!("at {} | ", step.connections)).collect();
    let _ = writeln!(
        text,
        "| server | with one, in KiB | {}slope | all, in KiB | CPU in µs a second |",
        counts.concat()
    );
    let _ = writeln!(text, "|---|---:|{}---:|---:|---:|", "---:|".repeat(counts.len()));
    for row in rows {
        let steps: Vec<String> =
            row.steps.iter().map(|step| number(&step.per_connection, 0) + " | ").collect();
        let slope = row.slope.as_ref().map_or_else(String::new, |slope| number(slope, 0));
        let all = row.steps.last().map_or(0.0, |step| step.resident.median / 1024.0);
        let _ = writeln!(
            text,
            "| {} | {:.0} | {}{slope} | {all:.0} | {:.0} |",
            row.server,
            row.base.median / 1024.0,
            steps.concat(),
            row.cpu.median
        );
    }
    text.push('\n');
}

pub(super) fn burst(table: &BurstTable, text: &mut String) {
    let _ = writeln!(
        text,
        "## Resident memory around a burst of large packets, in MiB\n\n{}: the first halves on all \
         connections, a pause, then the second halves. *Before* is with all connections open; they \
         stay open. One run.\n",
        table.what
    );
    let seconds = LATER.as_secs();
    let _ = writeln!(text, "| server | before | highest | right after | {seconds} s later |");
    text.push_str("|---|---:|---:|---:|---:|\n");
    for row in &table.rows {
        let figures = [row.before, row.highest, row.after, row.later]
            .map(|bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)));
        let _ = writeln!(text, "| {} | {} |", row.server, figures.join(" | "));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::BurstRow;

    #[test]
    fn a_burst_is_shown_in_mebibytes() {
        let mib = |number: u64| number << 20;
        let (before, highest, after, later) = (mib(2), mib(40), mib(8), mib(3) + (1 << 19));
        let mut text = String::new();
        let rows = vec![BurstRow { server: "c", before, highest, after, later }];
        burst(&BurstTable { what: "packets", rows }, &mut text);
        assert!(
            text.contains("| server | before | highest | right after | 60 s later |"),
            "{text}"
        );
        assert!(text.contains("| c | 2.0 | 40.0 | 8.0 | 3.5 |"), "{text}");
    }
}
