//! Groups of bars on a logarithmic scale.

use anyhow::Result;
use plotters::prelude::*;

use super::{Area, FONT, colour, nothing, short, wrong};
use crate::stats::Summary;

/// A server's bar, with its interval.
pub(super) struct Bar {
    pub(super) server: &'static str,
    pub(super) value: Summary,
}

/// Bars side by side. All bars of a chart have the same width.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Bar>,
}

pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    pub(super) groups: Vec<Group>,
    /// Bars grow from here, up or down.
    pub(super) base: f64,
    /// The axis shows this much, and more where a bar needs it.
    pub(super) at_least: (f64, f64),
}

impl Chart<'_> {
    pub(super) fn draw(&self, area: &Area<'_>) -> Result<()> {
        let widest = self.groups.iter().map(|group| group.bars.len()).max().unwrap_or(0);
        if widest == 0 {
            return nothing(area, self.title);
        }
        let (low, high) = self.range();
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..self.groups.len() as f64, (low..high).log_scale())
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
            .draw_series([PathElement::new(
                [(0.0, self.base), (self.groups.len() as f64, self.base)],
                BLACK,
            )])
            .map_err(wrong)?;
        let inside = |value: f64| value.clamp(low, high);
        for (place, group) in self.groups.iter().enumerate() {
            let width = 0.84 / widest as f64;
            let first = place as f64 + (1.0 - width * group.bars.len() as f64) / 2.0;
            for (at, Bar { server, value }) in group.bars.iter().enumerate() {
                let left = first + width * at as f64;
                let (right, middle) = (left + width * 0.86, left + width * 0.43);
                let body = [(left, self.base), (right, inside(value.median))];
                let spread = [(middle, inside(value.low)), (middle, inside(value.high))];
                chart
                    .draw_series([Rectangle::new(body, colour(server).filled())])
                    .map_err(wrong)?;
                chart.draw_series([PathElement::new(spread, BLACK.mix(0.6))]).map_err(wrong)?;
            }
        }
        self.name_groups(area)
    }

    /// What the axis shows. A bar far below the usual is cut off.
    fn range(&self) -> (f64, f64) {
        let (low, high) = self.at_least;
        let values = || self.groups.iter().flat_map(|group| &group.bars).map(|bar| &bar.value);
        let lowest = values().map(|value| value.low).fold(low, f64::min);
        let highest = values().map(|value| value.high).fold(high, f64::max);
        (lowest.max(low / 10.0), highest * 1.3)
    }

    /// The axis of a plot has ticks, not groups: their names are written below by hand.
    fn name_groups(&self, area: &Area<'_>) -> Result<()> {
        let (width, height) = area.dim_in_pixel();
        let (left, right) = (76.0, f64::from(width) - 12.0);
        for (at, Group { name, .. }) in self.groups.iter().enumerate() {
            let x = left + (right - left) * (at as f64 + 0.5) / self.groups.len() as f64
                - 3.6 * name.len() as f64;
            area.draw(&Text::new(name.as_str(), (x as i32, height as i32 - 34), (FONT, 15)))
                .map_err(wrong)?;
        }
        Ok(())
    }
}
