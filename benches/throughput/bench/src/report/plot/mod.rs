//! The plot: CPU per packet, latency percentiles, memory, one above the other.

mod bars;
mod latency;

use anyhow::{Error, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use bars::{Bar, Chart, Group};

use super::references;
use super::table::{BurstRow, BurstTable, Report};
use crate::servers::SERVERS;
use crate::stats::Summary;

const SIZE: (u32, u32) = (1100, 1500);
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The plot as SVG.
pub(super) fn svg(report: &Report) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let (legend_area, rest) = root.split_vertically(60);
        legend(report, &legend_area)?;
        let (cpu, rest) = rest.split_vertically(620);
        cpu_panel(report, &cpu)?;
        let (latency, memory) = rest.split_vertically(440);
        latency::panel(report, &latency)?;
        memory_panel(report, &memory)?;
        root.present().map_err(wrong)?;
    }
    Ok(text)
}

fn wrong<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    anyhow!("cannot draw the plot: {error}")
}

/// Every server keeps its colour in all panels. The colours can be told apart by colour-blind
/// readers; what is one server in several modes has several shades of one colour.
fn colour(server: &str) -> RGBColor {
    const COLOURS: [(u8, u8, u8); SERVERS.len()] = [
        (0, 0, 0),
        (213, 94, 0),
        (255, 170, 110),
        (120, 45, 0),
        (170, 60, 60),
        (120, 120, 120),
        (86, 180, 233),
        (0, 114, 178),
        (140, 140, 140),
        (0, 158, 115),
        (0, 90, 60),
        (204, 121, 167),
        (240, 228, 66),
        (60, 60, 60),
        (0, 60, 110),
        (150, 205, 240),
        (190, 70, 0),
        (255, 200, 160),
        (150, 110, 60),
    ];
    let place = SERVERS.iter().position(|other| other.name == server);
    let (red, green, blue) = COLOURS[place.expect("a server of the table")];
    RGBColor(red, green, blue)
}

/// The servers that have any figures, in their usual order.
fn servers(report: &Report) -> Vec<&'static str> {
    let loads = report.loads.iter().flat_map(|table| &table.rows).map(|row| row.server);
    let idle = report.idle.iter().map(|row| row.server);
    let burst = report.burst.iter().flat_map(|table| &table.rows).map(|row| row.server);
    let seen: Vec<&str> = loads.chain(idle).chain(burst).collect();
    SERVERS.iter().map(|server| server.name).filter(|name| seen.contains(name)).collect()
}

/// In rows, as many as it takes.
fn legend(report: &Report, area: &Area<'_>) -> Result<()> {
    const LEFT: i32 = 70;
    let (mut x, mut y) = (LEFT, 14);
    for name in servers(report) {
        let width = 44 + 7 * name.len() as i32;
        if x + width > SIZE.0 as i32 {
            (x, y) = (LEFT, y + 24);
        }
        let square = Rectangle::new([(x, y), (x + 14, y + 14)], colour(name).filled());
        area.draw(&square).map_err(wrong)?;
        area.draw(&Text::new(name, (x + 20, y), (FONT, 15))).map_err(wrong)?;
        x += width;
    }
    Ok(())
}

fn cpu_panel(report: &Report, area: &Area<'_>) -> Result<()> {
    let tables: Vec<_> = report.loads.iter().collect();
    let reference = references(&tables).join(" or ");
    let groups = report.loads.iter().map(|table| Group {
        name: table.name.to_owned(),
        bars: (table.rows.iter().filter(|row| row.server != table.reference))
            .filter_map(|row| Some(Bar { server: row.server, value: row.cpu_ratio.clone()? }))
            .collect(),
    });
    Chart {
        title: &format!(
            "CPU of the server per packet, relative to {reference} in the same round (lower is \
             better)"
        ),
        unit: &format!("times {reference}"),
        groups: groups.filter(|group| !group.bars.is_empty()).collect(),
        base: 1.0,
        at_least: (0.5, 2.0),
    }
    .draw(area)
}

/// Idle connections, beside the burst if there was one.
fn memory_panel(report: &Report, area: &Area<'_>) -> Result<()> {
    match &report.burst {
        None => idle_panel(report, area),
        Some(burst) if report.idle.is_empty() => burst_panel(burst, area),
        Some(burst) => {
            let (left, right) = area.split_horizontally(SIZE.0 / 2);
            idle_panel(report, &left)?;
            burst_panel(burst, &right)
        }
    }
}

fn idle_panel(report: &Report, area: &Area<'_>) -> Result<()> {
    let groups = report.idle.first().map_or(&[][..], |row| &row.steps).iter().enumerate();
    let groups = groups.map(|(at, step)| Group {
        name: format!("{} connections", step.connections),
        bars: (report.idle.iter())
            .map(|row| Bar { server: row.server, value: row.steps[at].per_connection.clone() })
            .collect(),
    });
    Chart {
        title: "Resident memory per idle connection (lower is better)",
        unit: "bytes",
        groups: groups.collect(),
        base: 10.0,
        at_least: (10.0, 1000.0),
    }
    .draw(area)
}

type Figure = fn(&BurstRow) -> u64;

fn burst_panel(burst: &BurstTable, area: &Area<'_>) -> Result<()> {
    let figures: [(&str, Figure); 4] = [
        ("before", |row| row.before),
        ("highest", |row| row.highest),
        ("right after", |row| row.after),
        ("a minute later", |row| row.later),
    ];
    let groups = figures.map(|(name, figure)| Group {
        name: name.to_owned(),
        bars: (burst.rows.iter())
            .filter_map(|row| {
                let mib = figure(row) as f64 / f64::from(1 << 20);
                Some(Bar { server: row.server, value: Summary::of(&[mib])? })
            })
            .collect(),
    });
    Chart {
        title: "Resident memory around a burst (lower is better)",
        unit: "MiB",
        groups: groups.into(),
        base: 1.0,
        at_least: (1.0, 100.0),
    }
    .draw(area)
}

/// A number without needless digits.
fn short(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0}") } else { format!("{value}") }
}

fn nothing(area: &Area<'_>, title: &str) -> Result<()> {
    area.draw(&Text::new(format!("{title}: not measured"), (76, 20), (FONT, 16))).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_servers_share_a_colour() {
        for (at, one) in SERVERS.iter().enumerate() {
            for other in &SERVERS[..at] {
                assert_ne!(colour(one.name), colour(other.name), "{} {}", one.name, other.name);
            }
        }
    }
}
