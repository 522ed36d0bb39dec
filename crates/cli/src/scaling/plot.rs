//! Scatter plots, lines and bands with logarithmic axes, as SVG for a page.

use super::quantity;
use crate::error::CliError;
use crate::report::plots::register_fonts;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use std::ops::Range;

/// Size of a plot in pixels.
const SIZE: (u32, u32) = (1100, 620);
const INK: RGBColor = RGBColor(60, 57, 52);
const COLORS: [RGBColor; 8] = [
    RGBColor(180, 84, 26),
    RGBColor(42, 93, 159),
    RGBColor(47, 125, 79),
    RGBColor(139, 74, 143),
    RGBColor(168, 132, 44),
    RGBColor(43, 138, 138),
    RGBColor(178, 58, 85),
    RGBColor(91, 100, 112),
];

/// What is drawn of a set of values.
pub(super) enum Mark {
    /// A dot at each.
    Dots,
    /// A large ring at each, for what matters most.
    Rings,
    /// A line through them.
    Line,
    /// A line through them, thin and pale.
    Faint,
    /// The area between each value and the one of the same number in the other list.
    Band(Vec<(f64, f64)>),
}

/// A set of values with how they are drawn.
pub(super) struct Layer {
    /// Name in the legend; without one it is not named there.
    pub(super) name: String,
    /// Which colour, from 0.
    pub(super) color: usize,
    /// How they are drawn.
    pub(super) mark: Mark,
    /// The values.
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot, back to front.
pub(super) struct Plot {
    /// Name of the horizontal axis.
    pub(super) x: &'static str,
    /// Name of the vertical axis.
    pub(super) y: &'static str,
    /// Whether the vertical axis is logarithmic, as the horizontal one always is.
    pub(super) log_y: bool,
    /// What is on it.
    pub(super) layers: Vec<Layer>,
}

/// An axis with marks of its own.
struct Axis {
    ends: (f64, f64),
    marks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.ends.0) / (self.ends.1 - self.ends.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

/// Round numbers between `low` and `high`: powers of ten where there are many, twos and fives where there are few, evenly
/// apart where there would be none.
fn round_numbers(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    if decades < 0.7 {
        return crate::report::chart::ticks(low, high, 7);
    }
    let factors: &[f64] = match decades {
        few if few < 3.5 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let every = (decades / 9.0).ceil().max(1.0) as i32;
    let powers = (low.log10().floor() as i32..=high.log10().ceil() as i32).filter(|power| power % every == 0);
    let all = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    all.filter(|value| (low..=high).contains(value)).collect()
}

/// A value beside an axis.
fn label(value: f64) -> String {
    match value.abs() {
        small if small < 1000.0 => crate::report::chart::plain(value),
        large if large < 1e12 => quantity::shown(value).replacen(".00", "", 1).replacen(".0", "", 1),
        _ => format!("{value:.0e}"),
    }
}

impl Plot {
    /// The plot as an `<svg>` element.
    ///
    /// Errors: what the drawing library says.
    pub(super) fn svg(&self) -> Result<String, CliError> {
        let mut svg = String::new();
        register_fonts();
        self.draw(SVGBackend::with_string(&mut svg, SIZE)).map_err(|reason| {
            CliError::failed(
                format!("cannot draw a plot: {reason}"),
                "this is a bug of cavy; the numbers are in `--json`",
            )
        })?;
        // On a page the plot takes the width there is.
        let (width, height) = SIZE;
        let sized = format!("<svg width=\"{width}\" height=\"{height}\" ");
        Ok(svg.replacen(&sized, "<svg role=\"img\" ", 1))
    }

    /// The corners of what is to be seen, logarithms where the axis is logarithmic.
    fn extent(&self) -> Option<((f64, f64), (f64, f64))> {
        let (mut xs, mut ys) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        for layer in &self.layers {
            let other = if let Mark::Band(other) = &layer.mark { other.as_slice() } else { &[] };
            for (x, y) in layer.points.iter().chain(other) {
                let (x, y) = self.place(*x, *y);
                if x.is_finite() && y.is_finite() {
                    xs = (xs.0.min(x), xs.1.max(x));
                    ys = (ys.0.min(y), ys.1.max(y));
                }
            }
        }
        let pad = |(low, high): (f64, f64)| {
            let pad = (0.04 * (high - low)).max(1e-3);
            (low - pad, high + pad)
        };
        (xs.0 <= xs.1).then(|| (pad(xs), pad(ys)))
    }

    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (x.log10(), if self.log_y { y.log10() } else { y })
    }

    fn placed(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let all = points.iter().map(|(x, y)| self.place(*x, *y));
        all.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    }

    /// Draws onto a backend. Errors are text, since each backend has its own type.
    fn draw<B: DrawingBackend>(&self, backend: B) -> Result<(), String> {
        let text = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        let area = backend.into_drawing_area();
        area.fill(&WHITE).map_err(text)?;
        let Some((xs, ys)) = self.extent() else { return area.present().map_err(text) };
        let marks = |(low, high): (f64, f64)| -> Vec<f64> {
            round_numbers(10_f64.powf(low), 10_f64.powf(high)).iter().map(|value| value.log10()).collect()
        };
        let y_marks = if self.log_y { marks(ys) } else { crate::report::chart::ticks(ys.0, ys.1, 7) };
        let log_y = self.log_y;
        let mut chart = ChartBuilder::on(&area)
            .margin(18)
            .x_label_area_size(58)
            .y_label_area_size(92)
            .build_cartesian_2d(Axis { ends: xs, marks: marks(xs) }, Axis { ends: ys, marks: y_marks })
            .map_err(text)?;
        chart
            .configure_mesh()
            .bold_line_style(RGBColor(234, 230, 222))
            .light_line_style(TRANSPARENT)
            .axis_style(RGBColor(180, 174, 164))
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|value| label(10_f64.powf(*value)))
            .y_label_formatter(&|value| if log_y { label(10_f64.powf(*value)) } else { label(*value) })
            .label_style(("sans-serif", 18).into_font().color(&INK))
            .axis_desc_style(("sans-serif", 20).into_font().color(&INK))
            .draw()
            .map_err(text)?;
        for layer in &self.layers {
            let color = COLORS[layer.color % COLORS.len()];
            let points = self.placed(&layer.points);
            let drawn = match &layer.mark {
                Mark::Dots => chart
                    .draw_series(points.into_iter().map(|at| Circle::new(at, 4, color.mix(0.75).filled()).into_dyn())),
                Mark::Rings => {
                    chart.draw_series(points.into_iter().map(|at| Circle::new(at, 9, color.stroke_width(3)).into_dyn()))
                }
                Mark::Line => chart.draw_series([PathElement::new(points, color.stroke_width(3)).into_dyn()]),
                Mark::Faint => chart.draw_series([PathElement::new(points, color.mix(0.4).stroke_width(1)).into_dyn()]),
                Mark::Band(other) => {
                    let outline: Vec<_> = points.into_iter().chain(self.placed(other).into_iter().rev()).collect();
                    chart.draw_series([Polygon::new(outline, color.mix(0.16).filled()).into_dyn()])
                }
            };
            let drawn = drawn.map_err(text)?;
            if !layer.name.is_empty() {
                let is_dot = matches!(layer.mark, Mark::Dots | Mark::Rings);
                drawn.label(&layer.name).legend(move |(x, y)| {
                    if is_dot {
                        Circle::new((x + 14, y), 5, color.filled()).into_dyn()
                    } else {
                        PathElement::new([(x, y), (x + 28, y)], color.stroke_width(3)).into_dyn()
                    }
                });
            }
        }
        if self.layers.iter().any(|layer| !layer.name.is_empty()) {
            let mut legend = chart.configure_series_labels();
            legend.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.88)).legend_area_size(40);
            legend.label_font(("sans-serif", 18).into_font().color(&INK)).margin(12).draw().map_err(text)?;
        }
        area.present().map_err(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_a_handful_of_round_numbers() {
        assert_eq!(round_numbers(0.5e18, 2e21), [1e18, 1e19, 1e20, 1e21]);
        assert_eq!(round_numbers(1.5, 60.0), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert!((4..=8).contains(&round_numbers(2.0, 3.4).len()));
        assert_eq!([2.5, 1e6, 1e20].map(label), ["2.5", "1M", "1e20"]);
    }

    #[test]
    fn a_plot_takes_the_width_of_the_page_and_leaves_out_what_is_not_a_number() {
        let layer = |mark| Layer {
            name: "runs <a>".to_owned(),
            color: 1,
            mark,
            points: vec![(1e6, 3.0), (1e7, f64::NAN), (1e8, 2.5)],
        };
        let band = Mark::Band(vec![(1e6, 2.9), (1e8, 2.2)]);
        let layers = vec![layer(band), layer(Mark::Line), layer(Mark::Dots), layer(Mark::Rings), layer(Mark::Faint)];
        let svg = Plot { x: "FLOPs", y: "loss", log_y: true, layers }.svg().unwrap();
        assert!(svg.starts_with("<svg role=\"img\" viewBox"), "{}", &svg[..100]);
        assert!(!svg.contains("NaN") && svg.contains("runs &lt;a&gt;"));
        assert_eq!(svg.matches("r=\"4\"").count(), 2);
        assert!(Plot { x: "", y: "", log_y: false, layers: Vec::new() }.svg().is_ok());
    }
}
