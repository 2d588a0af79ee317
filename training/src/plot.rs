//! The two pictures of a report, as SVG: ROC curves and calibration.
//!
//! Text stays text in the files and is set by whoever displays them, so drawing needs no fonts.

use std::path::Path;

use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use crate::error::TrainError;

/// Size of a picture in pixels.
const SIZE: (u32, u32) = (640, 600);
const FONT: &str = "sans-serif";
const GREY: RGBColor = RGBColor(150, 150, 150);

/// Colours that people with colour-blindness can tell apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// One line of a picture, in the unit square.
#[derive(Debug)]
pub struct Line {
    pub legend: String,
    pub points: Vec<(f64, f64)>,
}

/// Draws ROC curves: false positive rate to the right, true positive rate upwards.
///
/// # Errors
/// [`TrainError::Plot`] if the file cannot be written.
pub fn draw_roc(file: &Path, title: &str, lines: &[Line]) -> Result<(), TrainError> {
    let axes = Axes {
        title,
        x: "False positive rate",
        y: "True positive rate",
        diagonal: "chance",
        markers: false,
        legend: SeriesLabelPosition::LowerRight,
    };
    draw(file, &axes, lines).map_err(|error| plot_error(file, &error.to_string()))
}

/// Draws calibration: mean score of a bin to the right, observed rate upwards.
///
/// # Errors
/// [`TrainError::Plot`] if the file cannot be written.
pub fn draw_calibration(file: &Path, title: &str, lines: &[Line]) -> Result<(), TrainError> {
    let axes = Axes {
        title,
        x: "Mean predicted probability",
        y: "Observed rate",
        diagonal: "perfect calibration",
        markers: true,
        legend: SeriesLabelPosition::UpperLeft,
    };
    draw(file, &axes, lines).map_err(|error| plot_error(file, &error.to_string()))
}

fn plot_error(file: &Path, reason: &str) -> TrainError {
    TrainError::Plot {
        file: file.to_owned(),
        reason: reason.to_owned(),
    }
}

/// What is around the lines.
struct Axes<'a> {
    title: &'a str,
    x: &'static str,
    y: &'static str,
    diagonal: &'static str,
    /// Whether every point gets a dot.
    markers: bool,
    legend: SeriesLabelPosition,
}

type Drawing<'a> = SVGBackend<'a>;
type UnitSquare = Cartesian2d<RangedCoordf64, RangedCoordf64>;
type DrawError = DrawingAreaErrorKind<std::io::Error>;

fn draw(file: &Path, axes: &Axes, lines: &[Line]) -> Result<(), DrawError> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(axes.title, (FONT, 20))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|value| format!("{value:.1}"))
        .y_label_formatter(&|value| format!("{value:.1}"))
        .x_desc(axes.x)
        .y_desc(axes.y)
        .axis_desc_style((FONT, 15))
        .label_style((FONT, 13))
        .bold_line_style(BLACK.mix(0.12))
        .light_line_style(TRANSPARENT)
        .draw()?;

    draw_diagonal(&mut chart, axes.diagonal)?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        draw_line(&mut chart, line, *colour, axes.markers)?;
    }
    chart
        .configure_series_labels()
        .position(axes.legend.clone())
        .margin(12)
        .legend_area_size(28)
        .label_font((FONT, 13))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.25))
        .draw()?;
    area.present()
}

fn draw_diagonal(
    chart: &mut ChartContext<Drawing, UnitSquare>,
    legend: &str,
) -> Result<(), DrawError> {
    let diagonal = [(0.0, 0.0), (1.0, 1.0)];
    chart
        .draw_series(DashedLineSeries::new(diagonal, 6, 4, GREY.stroke_width(1)))?
        .label(legend)
        .legend(|(x, y)| DashedPathElement::new([(x, y), (x + 22, y)], 6, 4, GREY));
    Ok(())
}

fn draw_line(
    chart: &mut ChartContext<Drawing, UnitSquare>,
    line: &Line,
    colour: RGBColor,
    markers: bool,
) -> Result<(), DrawError> {
    chart
        .draw_series(LineSeries::new(
            line.points.iter().copied(),
            colour.stroke_width(2),
        ))?
        .label(line.legend.as_str())
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(2)));
    if markers {
        let dots = line.points.iter();
        chart.draw_series(dots.map(|point| Circle::new(*point, 4, colour.filled())))?;
    }
    Ok(())
}
