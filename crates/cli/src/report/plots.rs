//! The curves of a run as SVG and PNG files, for papers and slides.

use super::load::RunData;
use crate::error::CliError;
use fs_err as fs;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::Path;
use std::sync::Once;

/// Size of a plot in pixels.
const SIZE: (u32, u32) = (1200, 675);
const COLORS: [RGBColor; 3] = [RGBColor(180, 84, 26), RGBColor(42, 93, 159), RGBColor(47, 125, 79)];
const INK: RGBColor = RGBColor(60, 57, 52);

/// A plot: title, names of the axes and lines.
struct Plot {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    lines: Vec<(&'static str, Vec<(f64, f64)>)>,
    from_zero: bool,
}

/// Writes `loss`, `lr`, `grad_norm` and `throughput` as `.svg` and `.png` into `folder`.
///
/// Errors: the disk's.
pub(crate) fn write_all(folder: &Path, run: &RunData) -> Result<(), CliError> {
    fs::create_dir_all(folder).map_err(CliError::write(folder))?;
    let epochs = "epochs";
    let plots = [
        (
            "loss",
            Plot {
                title: "Loss",
                x: epochs,
                y: "nats a token",
                lines: vec![
                    ("training", run.eval_points(|record| record.train_loss)),
                    ("validation", run.eval_points(|record| record.val_loss)),
                ],
                from_zero: false,
            },
        ),
        ("lr", rate_plot(run.steps(|record| record.lr), epochs)),
        (
            "grad_norm",
            Plot {
                title: "Gradient norm",
                x: epochs,
                y: "L2 norm",
                lines: vec![
                    ("before clipping", run.steps(|record| record.grad_norm)),
                    ("after clipping", run.steps(|record| record.grad_norm_clipped)),
                ],
                from_zero: true,
            },
        ),
        (
            "throughput",
            Plot {
                title: "Throughput",
                x: epochs,
                y: "tokens a second",
                lines: vec![("tokens a second", run.steps(|record| record.tokens_per_s))],
                from_zero: true,
            },
        ),
    ];
    for (name, plot) in &plots {
        write_svg(&folder.join(format!("{name}.svg")), plot)?;
        write_png(&folder.join(format!("{name}.png")), plot)?;
    }
    Ok(())
}

/// Writes a learning-rate curve, one rate a step, as SVG.
///
/// Errors: the disk's.
pub(crate) fn learning_rate_svg(path: &Path, curve: &[f64]) -> Result<(), CliError> {
    write_svg(path, &rate_plot(curve.iter().enumerate().map(|(step, lr)| (step as f64, *lr)).collect(), "steps"))
}

/// Writes a learning-rate curve, one rate a step, as PNG.
///
/// Errors: the disk's.
pub(crate) fn learning_rate_png(path: &Path, curve: &[f64]) -> Result<(), CliError> {
    write_png(path, &rate_plot(curve.iter().enumerate().map(|(step, lr)| (step as f64, *lr)).collect(), "steps"))
}

fn rate_plot(points: Vec<(f64, f64)>, x: &'static str) -> Plot {
    Plot { title: "Learning rate", x, y: "learning rate", lines: vec![("learning rate", points)], from_zero: true }
}

fn write_svg(path: &Path, plot: &Plot) -> Result<(), CliError> {
    register_fonts();
    let mut svg = String::new();
    draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), plot).map_err(|error| failed(path, &error))?;
    fs::write(path, svg).map_err(CliError::write(path))
}

fn write_png(path: &Path, plot: &Plot) -> Result<(), CliError> {
    register_fonts();
    draw(&BitMapBackend::new(path, SIZE).into_drawing_area(), plot).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, reason: &str) -> CliError {
    CliError::failed(
        format!("cannot draw {}: {reason}", path.display()),
        "check that the folder exists and that the name ends in .png or .svg",
    )
}

/// The machine may have no fonts, so the program brings one.
pub(crate) fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The font is a constant of the program; were it unusable, drawing text would say so.
        let _ = register_font("sans-serif", FontStyle::Normal, notosans::REGULAR_TTF);
        let _ = register_font("sans-serif", FontStyle::Bold, notosans::REGULAR_TTF);
    });
}

/// Draws onto any backend. Errors are text, since each backend has its own type.
fn draw<B: DrawingBackend>(area: &DrawingArea<B, Shift>, plot: &Plot) -> Result<(), String> {
    let text = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
    area.fill(&WHITE).map_err(text)?;
    let points = || plot.lines.iter().flat_map(|(_, points)| points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let fold = |of: fn(&(f64, f64)) -> f64| {
        points().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((x0, x1), (y0, y1)) = (fold(|point| point.0), fold(|point| point.1));
    let (x0, x1) = if x0 < x1 { (x0, x1) } else { (0.0, 1.0) };
    let (y0, y1) = if y0 < y1 {
        (y0, y1)
    } else if y0.is_finite() {
        (y0 - 0.5, y0 + 0.5)
    } else {
        (0.0, 1.0)
    };
    let pad = 0.05 * (y1 - y0);
    let low = if plot.from_zero { 0.0_f64.min(y0) } else { y0 - pad };
    let mut chart = ChartBuilder::on(area)
        .margin(24)
        .caption(plot.title, ("sans-serif", 34).into_font().color(&INK))
        .x_label_area_size(58)
        .y_label_area_size(96)
        .build_cartesian_2d(x0..x1, low..(y1 + pad))
        .map_err(text)?;
    let small = y1.abs() < 1e-2;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(RGBColor(228, 224, 216))
        .light_line_style(TRANSPARENT)
        .axis_style(RGBColor(180, 174, 164))
        .x_desc(plot.x)
        .y_desc(plot.y)
        .x_label_formatter(&|value| super::chart::plain(*value))
        .y_label_formatter(&|value| {
            if small && *value != 0.0 { format!("{value:.1e}") } else { super::chart::plain(*value) }
        })
        .label_style(("sans-serif", 20).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 22).into_font().color(&INK))
        .draw()
        .map_err(text)?;
    for (index, (name, points)) in plot.lines.iter().enumerate() {
        let style = COLORS[index % COLORS.len()].stroke_width(3);
        let finite = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
        let line = chart.draw_series(LineSeries::new(finite, style)).map_err(text)?;
        line.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 28, y)], style));
    }
    if plot.lines.len() > 1 {
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.9)).legend_area_size(40);
        legend.label_font(("sans-serif", 22).into_font().color(&INK)).margin(12).draw().map_err(text)?;
    }
    area.present().map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_run_and_a_curve_can_be_drawn() {
        let folder = tempfile::tempdir().unwrap();
        write_all(folder.path(), &RunData::default()).unwrap();
        for name in ["loss", "lr", "grad_norm", "throughput"] {
            let png = fs::read(folder.path().join(format!("{name}.png"))).unwrap();
            assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
            assert!(fs::read_to_string(folder.path().join(format!("{name}.svg"))).unwrap().contains("<svg"));
        }
        let at = folder.path().join("x.png");
        learning_rate_png(&at, &[0.0, 1e-3, 5e-4]).unwrap();
        assert!(fs::metadata(at).unwrap().len() > 5000, "text and lines take some room");
    }
}
