//! `precision-recall.svg`.

use anyhow::{Context, Result};
use plotters::prelude::*;

use super::results::Results;

const SIZE: (u32, u32) = (720, 480);

/// Dark to light by code length, so that neighbours in the legend are neighbours in length; then the two references.
const COLOURS: [RGBColor; 6] = [
    RGBColor(158, 202, 225),
    RGBColor(66, 146, 198),
    RGBColor(8, 81, 156),
    RGBColor(8, 29, 88),
    RGBColor(217, 95, 14),
    RGBColor(120, 120, 120),
];

/// Draws precision by recall of all code lengths. Labels stay text, so that drawing needs no fonts.
pub(crate) fn precision_recall(results: &Results) -> Result<String> {
    let mut svg = String::new();
    draw(results, &mut svg).context("cannot draw the precision-recall curves")?;
    Ok(svg)
}

fn draw(results: &Results, svg: &mut String) -> Result<()> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc("recall")
        .y_desc("precision")
        .label_style(("sans-serif", 17))
        .draw()?;
    let curves = &results.precision_recall;
    for (curve, colour) in curves.curves.iter().zip(COLOURS.iter().cycle()) {
        let points = curves.recall.iter().copied().zip(curve.precision.iter().copied());
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .border_style(RGBColor(200, 200, 200))
        .background_style(WHITE)
        .label_font(("sans-serif", 17))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::test_data;
    use super::*;

    #[test]
    fn curves_are_drawn_the_same_each_time() {
        let results = test_data::results(1);
        let svg = precision_recall(&results).unwrap();
        assert_eq!(svg, precision_recall(&results).unwrap());
        // A curve and its line in the legend, each two pixels wide.
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), 2 * 6, "{svg}");
        for text in ["recall", "precision", "8 bits", "32 bits", "unquantised", "raw pixels, 32 bits"] {
            assert!(svg.contains(text), "{text} is missing from {svg}");
        }
        assert!(svg.len() < 40_000, "{} bytes", svg.len());
    }
}
