//! Line charts as SVG.

use plotters::prelude::*;

/// Size of a chart in units of its picture.
const SIZE: (u32, u32) = (860, 280);
/// Colours of policies, told apart by people who see few colours too (Okabe and Ito).
const COLOURS: [(u8, u8, u8); 6] =
    [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0)];
/// Text and lines of the axes.
const INK: RGBColor = RGBColor(70, 78, 92);
const GRID: RGBColor = RGBColor(225, 229, 236);

/// The colour of the series of this number, as CSS writes it.
pub fn colour(series: usize) -> String {
    let (r, g, b) = COLOURS[series % COLOURS.len()];
    format!("rgb({r},{g},{b})")
}

/// What a chart shows.
pub struct Chart<'a> {
    /// Under the x axis.
    pub x: &'a str,
    /// Points of each series, by x.
    pub series: Vec<Vec<(f64, f64)>>,
    /// The y axis ends here at least.
    pub least: f64,
}

fn range(chart: &Chart<'_>) -> (f64, f64) {
    let points = || chart.series.iter().flatten();
    let right = points().map(|(x, _)| *x).fold(0.0, f64::max);
    let top = points().map(|(_, y)| *y).fold(chart.least, f64::max);
    (if right > 0.0 { right } else { 1.0 }, if top > 0.0 { top * 1.05 } else { 1.0 })
}

fn number(value: &f64) -> String {
    let value = *value;
    if value >= 1e6 {
        format!("{:.1} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0} k", value / 1e3)
    } else if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// The chart as an SVG element.
///
/// # Errors
/// The charting library's.
pub fn svg(chart: &Chart<'_>) -> Result<String, String> {
    let mut picture = String::new();
    draw(chart, &mut picture).map_err(|error| error.to_string())?;
    // The element sits in a page: no XML declaration, and as wide as its column.
    let begin = picture.find("<svg").unwrap_or(0);
    let fixed = format!("<svg width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1);
    Ok(picture[begin..].replacen(&fixed, "<svg width=\"100%\"", 1))
}

fn draw(chart: &Chart<'_>, picture: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    let (right, top) = range(chart);
    let mut axes = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(18)
        .x_label_area_size(38)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    let text = ("sans-serif", 13).into_font().color(&INK);
    axes.configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(chart.x)
        .draw()?;
    for (at, points) in chart.series.iter().enumerate() {
        let (r, g, b) = COLOURS[at % COLOURS.len()];
        axes.draw_series(LineSeries::new(points.iter().copied(), RGBColor(r, g, b).stroke_width(2)))?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_every_series_and_survives_none() {
        let series = vec![vec![(0.0, 1.0), (1.0, 2.0)], vec![(0.0, 3.0), (1.0, 1.0)]];
        let picture = svg(&Chart { x: "hours", series, least: 0.0 }).unwrap();
        assert!(picture.matches("<polyline").count() >= 2, "{picture}");
        assert!(picture.starts_with("<svg width=\"100%\""), "{picture}");
        assert!(picture.contains("hours"));
        svg(&Chart { x: "", series: vec![Vec::new()], least: 0.0 }).unwrap();
    }
}
