//! From rounds to figures, and from figures to files.

mod markdown;
mod plot;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use table::LoadTable;
pub(crate) use table::{Missing, Report, Settings};

/// Writes the table, the JSON file and the plot, and gives their paths.
pub(crate) fn write(report: &Report, directory: &Path) -> Result<Vec<PathBuf>> {
    let files = [
        ("throughput.md", markdown::text(report)),
        ("throughput.json", serde_json::to_string_pretty(report)? + "\n"),
        ("throughput.svg", plot::svg(report)?),
    ];
    files
        .into_iter()
        .map(|(name, text)| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        })
        .collect()
}

/// The servers that the ratios of these tables are relative to, in order.
fn references<'a>(tables: impl IntoIterator<Item = &'a &'a LoadTable>) -> Vec<&'static str> {
    let mut references = Vec::new();
    for table in tables {
        if !references.contains(&table.reference) {
            references.push(table.reference);
        }
    }
    references
}

/// The table alone, for the terminal.
pub(crate) fn markdown(report: &Report) -> String {
    markdown::text(report)
}
