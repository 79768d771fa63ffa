//! The plot: latency percentiles, CPU per packet, memory per connection, one above the other.

use anyhow::{Error, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::table::{LoadTable, PERCENTS, Report};
use crate::servers::{REFERENCE, SERVERS};
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
        latency_panel(report, &latency)?;
        memory_panel(report, &memory)?;
        root.present().map_err(wrong)?;
    }
    Ok(text)
}

fn wrong<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    anyhow!("cannot draw the plot: {error}")
}

/// Every server keeps its colour in all panels. The colours can be told apart by colour-blind
/// readers.
fn colour(server: &str) -> RGBColor {
    const COLOURS: [RGBColor; 8] = [
        RGBColor(0, 0, 0),
        RGBColor(213, 94, 0),
        RGBColor(86, 180, 233),
        RGBColor(0, 114, 178),
        RGBColor(140, 140, 140),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(230, 159, 0),
    ];
    COLOURS[SERVERS.iter().position(|other| other.name == server).unwrap_or(0) % COLOURS.len()]
}

/// The servers that have any figures, in their usual order.
fn servers(report: &Report) -> Vec<&'static str> {
    let seen = |name| {
        report.loads.iter().flat_map(|table| &table.rows).any(|row| row.server == name)
            || report.memory.iter().any(|row| row.server == name)
    };
    SERVERS.iter().map(|server| server.name).filter(|name| seen(*name)).collect()
}

fn legend(report: &Report, area: &Area<'_>) -> Result<()> {
    let mut x = 70;
    for name in servers(report) {
        area.draw(&Rectangle::new([(x, 22), (x + 14, 36)], colour(name).filled()))
            .map_err(wrong)?;
        area.draw(&Text::new(name, (x + 20, 22), (FONT, 15))).map_err(wrong)?;
        x += 44 + 8 * name.len() as i32;
    }
    Ok(())
}

/// A bar with its interval; where it stands within its group is a place between 0 and 1.
struct Bar {
    group: usize,
    from: f64,
    to: f64,
    colour: RGBColor,
    value: Summary,
}

/// Groups of bars on a logarithmic scale that begins at `floor`.
struct Bars<'a> {
    title: &'a str,
    unit: &'a str,
    groups: Vec<String>,
    bars: Vec<Bar>,
    /// Bars grow from here, up or down.
    base: f64,
    range: (f64, f64),
}

fn cpu_panel(report: &Report, area: &Area<'_>) -> Result<()> {
    let tables: Vec<&LoadTable> = report
        .loads
        .iter()
        .filter(|table| table.rows.iter().any(|row| row.cpu_ratio.is_some()))
        .collect();
    let names: Vec<&str> = servers(report).into_iter().filter(|name| *name != REFERENCE).collect();
    let mut bars = Vec::new();
    for (group, table) in tables.iter().enumerate() {
        for row in &table.rows {
            if let (Some(value), Some(at)) =
                (row.cpu_ratio.clone(), names.iter().position(|name| *name == row.server))
            {
                bars.push(Bar::new(group, at, names.len(), colour(row.server), value));
            }
        }
    }
    let groups = tables.iter().map(|table| table.name.to_owned()).collect();
    Bars {
        title: "CPU of the server per packet, relative to C in the same round (lower is better)",
        unit: "times C",
        groups,
        range: range_of(&bars, 0.5, 2.0),
        bars,
        base: 1.0,
    }
    .draw(area)
}

fn memory_panel(report: &Report, area: &Area<'_>) -> Result<()> {
    let names = servers(report);
    let mut bars = Vec::new();
    for row in &report.memory {
        if let Some(at) = names.iter().position(|name| *name == row.server) {
            for (group, step) in row.steps.iter().enumerate() {
                bars.push(Bar::new(
                    group,
                    at,
                    names.len(),
                    colour(row.server),
                    step.per_connection.clone(),
                ));
            }
        }
    }
    let groups = report.memory.first().map_or_else(Vec::new, |row| {
        row.steps.iter().map(|step| format!("{} connections", step.connections)).collect()
    });
    Bars {
        title: "Resident memory per idle connection (lower is better)",
        unit: "bytes",
        groups,
        range: (10.0, range_of(&bars, 10.0, 1000.0).1),
        bars,
        base: 10.0,
    }
    .draw(area)
}

fn range_of(bars: &[Bar], low: f64, high: f64) -> (f64, f64) {
    let lowest = bars.iter().map(|bar| bar.value.low).fold(low, f64::min);
    let highest = bars.iter().map(|bar| bar.value.high).fold(high, f64::max);
    (lowest.max(low / 10.0) * 0.9, highest * 1.3)
}

impl Bar {
    /// The `at`-th of `of` bars in its group.
    fn new(group: usize, at: usize, of: usize, colour: RGBColor, value: Summary) -> Self {
        let width = 0.84 / of as f64;
        let from = 0.08 + width * at as f64;
        Self { group, from, to: from + width * 0.86, colour, value }
    }
}

impl Bars<'_> {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        if self.bars.is_empty() {
            return nothing(area, self.title);
        }
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(
                0.0..self.groups.len() as f64,
                (self.range.0..self.range.1).log_scale(),
            )
            .map_err(wrong)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .light_line_style(BLACK.mix(0.06))
            .y_desc(self.unit)
            .y_label_formatter(&|value| short(*value))
            .label_style((FONT, 13))
            .draw()
            .map_err(wrong)?;
        chart
            .draw_series(std::iter::once(PathElement::new(
                [(0.0, self.base), (self.groups.len() as f64, self.base)],
                BLACK,
            )))
            .map_err(wrong)?;
        for bar in &self.bars {
            let (left, right) = (bar.group as f64 + bar.from, bar.group as f64 + bar.to);
            let middle = f64::midpoint(left, right);
            let inside = |value: f64| value.clamp(self.range.0, self.range.1);
            chart
                .draw_series(std::iter::once(Rectangle::new(
                    [(left, self.base), (right, inside(bar.value.median))],
                    bar.colour.filled(),
                )))
                .map_err(wrong)?;
            chart
                .draw_series(std::iter::once(PathElement::new(
                    [(middle, inside(bar.value.low)), (middle, inside(bar.value.high))],
                    BLACK.mix(0.6),
                )))
                .map_err(wrong)?;
        }
        self.name_groups(area)
    }

    /// The axis of a plot has ticks, not groups: their names are written below by hand.
    fn name_groups(&self, area: &Area<'_>) -> Result<()> {
        let (width, height) = area.dim_in_pixel();
        let (left, right) = (76.0, f64::from(width) - 12.0);
        for (at, name) in self.groups.iter().enumerate() {
            let x = left + (right - left) * (at as f64 + 0.5) / self.groups.len() as f64
                - 3.6 * name.len() as f64;
            area.draw(&Text::new(name.as_str(), (x as i32, height as i32 - 34), (FONT, 15)))
                .map_err(wrong)?;
        }
        Ok(())
    }
}

/// Latency by percentile: one connection beside the open loop, or whatever two scenarios ran.
fn latency_panel(report: &Report, area: &Area<'_>) -> Result<()> {
    let preferred = ["single", "open"].into_iter().filter_map(|name| {
        report.loads.iter().find(|table| table.name == name && !table.rows.is_empty())
    });
    let mut tables: Vec<&LoadTable> = preferred.collect();
    if tables.is_empty() {
        tables = report.loads.iter().filter(|table| !table.rows.is_empty()).take(2).collect();
    }
    if tables.is_empty() {
        return nothing(area, "Latency");
    }
    for (part, table) in area.split_evenly((1, tables.len())).iter().zip(tables) {
        latency_chart(table, part)?;
    }
    Ok(())
}

fn latency_chart(table: &LoadTable, area: &Area<'_>) -> Result<()> {
    let figures =
        || table.rows.iter().flat_map(|row| &row.latency).map(|percentile| &percentile.nanoseconds);
    let low = figures().map(|summary| summary.low).fold(f64::MAX, f64::min) / 1e3 * 0.8;
    let high = figures().map(|summary| summary.high).fold(0.0, f64::max) / 1e3 * 1.3;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Latency: {}", table.what), (FONT, 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(
            -0.2..PERCENTS.len() as f64 - 0.8,
            (low.max(0.1)..high.max(1.0)).log_scale(),
        )
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .light_line_style(BLACK.mix(0.06))
        .x_labels(PERCENTS.len() + 1)
        .x_label_formatter(&|at| percent_name(*at))
        .x_desc("percentile")
        .y_desc("microseconds")
        .y_label_formatter(&|value| short(*value))
        .label_style((FONT, 13))
        .draw()
        .map_err(wrong)?;
    for row in &table.rows {
        let points: Vec<(f64, f64)> = row
            .latency
            .iter()
            .enumerate()
            .map(|(at, percentile)| (at as f64, percentile.nanoseconds.median / 1e3))
            .collect();
        let colour = colour(row.server);
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))
            .map_err(wrong)?;
        chart
            .draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))
            .map_err(wrong)?;
        let spreads = row.latency.iter().enumerate().map(|(at, percentile)| {
            [percentile.nanoseconds.low, percentile.nanoseconds.high]
                .map(|value| (at as f64, value / 1e3))
        });
        chart
            .draw_series(spreads.map(|spread| PathElement::new(spread, colour.mix(0.6))))
            .map_err(wrong)?;
    }
    Ok(())
}

/// The percentile at a place of the axis, where there is one.
fn percent_name(at: f64) -> String {
    let near = at.round();
    if near < 0.0 || (at - near).abs() > 0.01 {
        return String::new();
    }
    PERCENTS.get(near as usize).map_or_else(String::new, |percent| format!("p{percent}"))
}

/// A number without needless digits.
fn short(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0}") } else { format!("{value}") }
}

fn nothing(area: &Area<'_>, title: &str) -> Result<()> {
    area.draw(&Text::new(format!("{title}: not measured"), (76, 20), (FONT, 16))).map_err(wrong)
}
