//! Line charts as inline SVG. Colours come from the page's style sheet, so that they follow light and dark.

use std::fmt::Write as _;

/// One line of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Which of the style sheet's colours, from 0.
    pub(crate) color: usize,
    /// The points, by x.
    pub(crate) points: Vec<(f64, f64)>,
    /// A thin pale line behind the others, for what is noisy.
    pub(crate) faint: bool,
    /// A dot at each point, if they are few.
    pub(crate) dots: bool,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What the chart shows, for those who hear the page.
    pub(crate) title: String,
    /// Name of the horizontal axis.
    pub(crate) x_label: String,
    /// The lines, back to front.
    pub(crate) series: Vec<Series>,
    /// Name of a second horizontal axis at the top, and how many of its units are one of the first.
    pub(crate) top: Option<(String, f64)>,
    /// Whether the vertical axis counts powers of ten.
    pub(crate) log: bool,
    /// Whether the vertical axis begins at zero.
    pub(crate) from_zero: bool,
    /// A point to mark, with words.
    pub(crate) mark: Option<(f64, f64, String)>,
    /// How a value of the vertical axis is written.
    pub(crate) format: fn(f64) -> String,
}

/// Points that a line is drawn with at most; more are joined in groups.
const MOST_POINTS: usize = 400;

/// The frame in which points are placed.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: (f64, f64),
    y: (f64, f64),
    log: bool,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        self.left + (value - self.x.0) / (self.x.1 - self.x.0) * (self.right - self.left)
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.y.0).ln() - self.y.0.ln()) / (self.y.1.ln() - self.y.0.ln())
        } else {
            (value - self.y.0) / (self.y.1 - self.y.0)
        };
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}

impl Chart {
    /// The chart as an `<svg>` of so many units; empty words where there is nothing to draw.
    pub(crate) fn svg(&self, width: f64, height: f64) -> String {
        let series: Vec<Series> = self.series.iter().map(Series::thinned).collect();
        let Some(frame) = self.frame(&series, width, height) else {
            return "<p class=\"empty\">Nothing was recorded.</p>".to_owned();
        };
        let title = escape(&self.title);
        let mut out = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">");
        self.axes(&frame, &mut out);
        for series in &series {
            series.draw(&frame, self.format, &mut out);
        }
        if let Some((x, y, words)) = &self.mark {
            let (at_x, at_y) = (frame.x(*x), frame.y(*y));
            let (anchor, shift) =
                if at_x > f64::midpoint(frame.left, frame.right) { ("end", -9.0) } else { ("start", 9.0) };
            let below = if at_y > frame.bottom - 24.0 { -9.0 } else { 18.0 };
            let _ = write!(
                out,
                "<circle class=\"mark\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"5\"/><text class=\"marked\" x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                at_x + shift,
                at_y + below,
                escape(words)
            );
        }
        out.push_str("</svg>");
        out
    }

    /// The legend, as a list.
    pub(crate) fn legend(&self) -> String {
        let item = |series: &Series| {
            let faint = if series.faint { " faint" } else { "" };
            format!("<li><i class=\"c{}{faint}\"></i>{}</li>", series.color % 8, escape(&series.name))
        };
        let items: String = self.series.iter().filter(|series| !series.points.is_empty()).map(item).collect();
        format!("<ul class=\"legend\">{items}</ul>")
    }

    fn frame(&self, series: &[Series], width: f64, height: f64) -> Option<Frame> {
        let points = || series.iter().flat_map(|series| series.points.iter().copied());
        let usable = |(_, y): &(f64, f64)| y.is_finite() && (!self.log || *y > 0.0);
        let (x0, x1) = extent(points().filter(usable).map(|(x, _)| x))?;
        let (mut y0, mut y1) = extent(points().filter(usable).map(|(_, y)| y))?;
        if self.log {
            (y0, y1) = (y0 / 1.15, y1 * 1.15);
        } else {
            let pad = 0.06 * (y1 - y0).max(1e-12_f64.max(y1.abs() * 1e-3));
            (y0, y1) =
                (if self.from_zero { 0.0 } else { (y0 - pad).max(if y0 >= 0.0 { 0.0 } else { y0 - pad }) }, y1 + pad);
        }
        let x1 = if x1 > x0 { x1 } else { x0 + 1.0 };
        let top = if self.top.is_some() { 44.0 } else { 14.0 };
        let x0 = if x0 < 0.15 * x1 { 0.0 } else { x0 };
        Some(Frame {
            left: 54.0,
            right: width - 16.0,
            top,
            bottom: height - 42.0,
            x: (x0, x1),
            y: (y0, y1),
            log: self.log,
        })
    }

    fn axes(&self, frame: &Frame, out: &mut String) {
        let many = if frame.right - frame.left > 700.0 { 10 } else { 6 };
        let rows = if self.log { log_ticks(frame.y.0, frame.y.1) } else { ticks(frame.y.0, frame.y.1, 5) };
        for value in rows {
            let y = frame.y(value);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                frame.left,
                frame.right,
                frame.left - 8.0,
                y + 4.0,
                escape(&(self.format)(value))
            );
        }
        let (middle, low) = (f64::midpoint(frame.left, frame.right), frame.bottom);
        let _ = write!(
            out,
            "<line class=\"axis\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{low:.1}\" y2=\"{low:.1}\"/>",
            frame.left, frame.right
        );
        for value in ticks(frame.x.0, frame.x.1, many) {
            let x = frame.x(value);
            let _ = write!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                low + 17.0,
                plain(value)
            );
        }
        let _ = write!(
            out,
            "<text class=\"name\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            low + 35.0,
            escape(&self.x_label)
        );
        let Some((name, scale)) = &self.top else { return };
        for value in ticks(frame.x.0 * scale, frame.x.1 * scale, many) {
            let x = frame.x(value / scale);
            let _ = write!(
                out,
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/><text x=\"{x:.1}\" \
                 y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                frame.top - 6.0,
                frame.top,
                frame.top - 11.0,
                short(value)
            );
        }
        let _ = write!(
            out,
            "<text class=\"name\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            frame.top - 29.0,
            escape(name)
        );
    }
}

impl Series {
    /// The same line with at most [`MOST_POINTS`] points: means of neighbours.
    fn thinned(&self) -> Self {
        let group = self.points.len().div_ceil(MOST_POINTS).max(1);
        let mean = |points: &[(f64, f64)]| {
            let finite: Vec<_> = points.iter().filter(|(_, y)| y.is_finite()).collect();
            let n = finite.len() as f64;
            (finite.iter().map(|(x, _)| x).sum::<f64>() / n, finite.iter().map(|(_, y)| y).sum::<f64>() / n)
        };
        let points = self.points.chunks(group).map(mean).filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        Self { points, ..self.clone() }
    }

    fn draw(&self, frame: &Frame, format: fn(f64) -> String, out: &mut String) {
        let mut path = String::new();
        for (index, &(x, y)) in self.points.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", frame.x(x), frame.y(y));
        }
        let (color, faint) = (self.color % 8, if self.faint { " faint" } else { "" });
        let _ = write!(out, "<path class=\"line c{color}{faint}\" d=\"{path}\"/>");
        if self.dots && self.points.len() <= 60 {
            for &(x, y) in &self.points {
                let _ = write!(
                    out,
                    "<circle class=\"dot c{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{} {} at {}</title></circle>",
                    frame.x(x),
                    frame.y(y),
                    escape(&self.name),
                    format(y),
                    plain(x)
                );
            }
        }
    }
}

/// Smallest and largest, if there is any.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |extent, value| {
        let (low, high) = extent.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// Round numbers between `low` and `high`, about `count` of them.
pub(crate) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    if !rough.is_finite() || rough <= 0.0 {
        return vec![low];
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// Powers of ten between `low` and `high`, with twos and fives where they are few.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let factors: &[f64] = match high / low {
        ratio if ratio > 1e4 => &[1.0],
        ratio if ratio > 4.0 => &[1.0, 2.0, 5.0],
        _ => return ticks(low, high, 4),
    };
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let all = (first..=last).flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    all.filter(|value| (low..=high).contains(value)).collect()
}

/// A number of an axis, without needless zeros.
pub(crate) fn plain(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e6) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count for an axis: `10k` where a number in words is `10.0k`.
fn short(value: f64) -> String {
    crate::text::count(value).replacen(".00", "", 1).replacen(".0", "", 1)
}

/// `text` for HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 15.0, 6), [0.0, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0]);
        assert_eq!(ticks(0.9, 11.2, 5), [2.5, 5.0, 7.5, 10.0]);
        assert_eq!(log_ticks(0.5, 60.0), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
    }

    #[test]
    fn a_line_passes_through_its_points_and_leaves_out_what_is_not_a_number() {
        let series = Series {
            name: "a<b".into(),
            color: 0,
            points: vec![(0.0, 0.0), (1.0, f64::NAN), (2.0, 1.0)],
            faint: false,
            dots: true,
        };
        let chart = Chart {
            title: "t".into(),
            x_label: "x".into(),
            series: vec![series],
            top: None,
            log: false,
            from_zero: false,
            mark: None,
            format: plain,
        };
        let svg = chart.svg(200.0, 100.0);
        assert!(svg.contains("d=\"M54.0 58.0L184.0 "), "{svg}");
        assert!(!svg.contains("NaN") && svg.contains("a&lt;b"), "{svg}");
        let empty = Chart { series: Vec::new(), ..chart };
        assert!(empty.svg(200.0, 100.0).contains("Nothing was recorded"));
    }
}
