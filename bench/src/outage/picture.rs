//! Calls of the source over time, as a picture: one line for each guard.

use std::path::Path;
use std::time::Duration;

use plotters::prelude::*;

use crate::error::BenchError;

const COLOURS: [RGBColor; 4] =
    [RGBColor(190, 60, 50), RGBColor(215, 150, 30), RGBColor(40, 110, 190), RGBColor(40, 150, 90)];
const SIZE: (u32, u32) = (960, 420);

/// Draws an SVG file.
pub fn draw(path: &Path, series: &[(&str, &[u32])], phase: Duration, phases: &[&str]) -> Result<(), BenchError> {
    plot(path, series, phase.as_secs() as u32, phases).map_err(|error| BenchError::Picture(error.to_string()))
}

fn plot(
    path: &Path,
    series: &[(&str, &[u32])],
    phase_seconds: u32,
    phases: &[&str],
) -> Result<(), Box<dyn std::error::Error>> {
    let seconds = phase_seconds * phases.len() as u32;
    let highest = series.iter().flat_map(|(_, counts)| counts.iter()).max().copied().unwrap_or(1);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0..seconds, 0..highest + highest / 5)?;
    chart.configure_mesh().x_desc("seconds").y_desc("calls of the source a second").light_line_style(WHITE).draw()?;
    for (number, name) in phases.iter().enumerate() {
        let from = phase_seconds * number as u32;
        let line = [(from, 0), (from, highest + highest / 5)];
        chart.draw_series(LineSeries::new(line, &BLACK.mix(0.25)))?;
        let at = (from + phase_seconds / 10, highest + highest / 7);
        chart.draw_series([Text::new((*name).to_owned(), at, ("sans-serif", 15))])?;
    }
    for ((name, counts), colour) in series.iter().zip(COLOURS) {
        let points = (0..).zip(counts.iter().copied());
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .label_font(("sans-serif", 11))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
