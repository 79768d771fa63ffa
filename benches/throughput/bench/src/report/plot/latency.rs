//! Latency by percentile.

use anyhow::Result;
use plotters::prelude::*;

use super::{Area, FONT, colour, nothing, short, wrong};
use crate::report::table::{LoadTable, PERCENTS, Report};

/// One connection beside the open loop, or the two scenarios that ran.
pub(super) fn panel(report: &Report, area: &Area<'_>) -> Result<()> {
    let preferred = ["single", "single-awake", "open"].into_iter().filter_map(|name| {
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
        chart(table, part)?;
    }
    Ok(())
}

fn chart(table: &LoadTable, area: &Area<'_>) -> Result<()> {
    let figures =
        || table.rows.iter().flat_map(|row| &row.latency).map(|percentile| &percentile.nanoseconds);
    let low = figures().map(|summary| summary.low).fold(f64::MAX, f64::min) / 1e3 * 0.8;
    let high = figures().map(|summary| summary.high).fold(0.0, f64::max) / 1e3 * 1.3;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Latency, {}", table.name), (FONT, 16))
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
