//! What servers keep.

use std::fmt::Write;

use super::number;
use crate::report::table::IdleRow;

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
