//! Counts of the source over time, as a picture: one line for each contestant.
//!
//! Knows no comparison. The invariant: every line has the same seconds below it, so that two heights can be compared.

use std::path::Path;

use plotters::prelude::*;

use crate::error::BenchError;

const COLOURS: [RGBColor; 4] =
    [RGBColor(190, 60, 50), RGBColor(215, 150, 30), RGBColor(40, 110, 190), RGBColor(40, 150, 90)];
const SIZE: (u32, u32) = (960, 420);

/// What is drawn.
pub struct Picture<'a> {
    /// What is counted in each second.
    pub counted: &'a str,
    /// A name, and a count for each second.
    pub series: &'a [(&'a str, &'a [u32])],
    /// From which second on something is different, and what.
    pub marks: &'a [(u32, String)],
    pub seconds: u32,
}

impl Picture<'_> {
    /// Draws an SVG file.
    pub fn draw(&self, path: &Path) -> Result<(), BenchError> {
        self.plot(path).map_err(|error| BenchError::Picture(error.to_string()))
    }

    fn plot(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let highest = self.series.iter().flat_map(|(_, counts)| counts.iter()).max().copied().unwrap_or(1);
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(0..self.seconds, 0..highest + highest / 5)?;
        chart.configure_mesh().x_desc("seconds").y_desc(self.counted).light_line_style(WHITE).draw()?;
        for (from, name) in self.marks {
            let line = [(*from, 0), (*from, highest + highest / 5)];
            chart.draw_series(LineSeries::new(line, &BLACK.mix(0.25)))?;
            let at = (from + self.seconds / 60, highest + highest / 7);
            chart.draw_series([Text::new(name.clone(), at, ("sans-serif", 15))])?;
        }
        for ((name, counts), colour) in self.series.iter().zip(COLOURS) {
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
}
