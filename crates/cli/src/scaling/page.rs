//! The report of a fit.

use super::fit::{CONSTANTS, Findings, doubts, first_line};
use super::plot::{Layer, Mark, Plot};
use super::quantity;
use crate::error::CliError;
use crate::report::chart::escape;
use crate::report::page::document;
use cavy_scaling::{Law, Point};
use std::fmt::Write as _;

/// Points of a smooth line.
const SMOOTH: usize = 80;

/// A layer of a plot.
pub(super) fn layer(name: &str, color: usize, mark: Mark, points: Vec<(f64, f64)>) -> Layer {
    Layer { name: name.to_owned(), color, mark, points }
}

/// Values from `low` to `high`, evenly in logarithms.
pub(super) fn spread(low: f64, high: f64) -> impl Iterator<Item = f64> {
    (0..=SMOOTH).map(move |index| low * (high / low).powf(index as f64 / SMOOTH as f64))
}

/// A figure on white paper, whatever the page's colours, with a line of explanation.
pub(super) fn figure(title: &str, words: &str, plot: &Plot) -> Result<String, CliError> {
    Ok(format!(
        "<style>.plot svg text {{ font-size: 15px; fill: #3c3934; }}</style><figure class=\"full plot\" style=\"background:#fff;color:#1f1d1a;margin-bottom:20px\">\n<figcaption><h3>{}</h3></figcaption>\n\
         {}\n<p style=\"font-size:14px;color:#6b665e;margin:4px\">{}</p>\n</figure>\n",
        escape(title),
        plot.svg()?,
        escape(words)
    ))
}

/// The page.
///
/// Errors: what the drawing library says.
pub(super) fn render(findings: &Findings) -> Result<String, CliError> {
    let law = &findings.fit.law;
    let title = format!("L = {:.4} + {:.4} / N^{:.4} + {:.4} / D^{:.4}", law.e, law.a, law.alpha, law.b, law.beta);
    let mut notes = vec![format!(
        "A fit to {} runs, whose residual is {:.2} % of the loss. The best model grows as the budget to the power of {:.3}.",
        findings.fit.points,
        100.0 * findings.fit.residual,
        law.exponent()
    )];
    notes.extend(doubts(findings));
    let notes: String = notes.iter().fold(String::new(), |mut list, note| {
        let _ = writeln!(list, "<li class=\"plain\">{}</li>", escape(note));
        list
    });
    let mut body = format!(
        "<header>\n<p class=\"brand\">cavy scaling fit</p>\n<h1>Scaling law</h1>\n<p class=\"about\">{}</p>\n\
         <ul class=\"verdicts\">\n{notes}</ul>\n</header>\n",
        escape(&title)
    );
    body.push_str(&constants(findings));
    body.push_str("<h2>Runs and law</h2>\n");
    body.push_str(&figure(
        "Loss over compute",
        "Each dot is a run at its own end. The line is the loss of the best model for each budget, to two decades beyond the \
         largest run; the band holds 95 % of the resampled fits.",
        &frontier(findings),
    )?);
    body.push_str(&figure(
        "Predicted and measured",
        "On the line the law is exact.",
        &agreement(&findings.points, law),
    )?);
    body.push_str(&approach2(findings)?);
    body.push_str(&approach1(findings)?);
    Ok(document("Scaling law", &body))
}

fn constants(findings: &Findings) -> String {
    let mut rows = String::new();
    for (name, of) in CONSTANTS {
        let interval = findings.bootstrap.interval(0.95, of);
        let interval = interval.map_or("-".to_owned(), |(low, high)| format!("{low:.4} to {high:.4}"));
        let _ = writeln!(rows, "<tr><th>{name}</th><td>{:.6}</td><td>{interval}</td></tr>", of(&findings.fit.law));
    }
    let mut out = format!(
        "<h2>Constants</h2>\n<div class=\"scroll\"><table>\n<tr><th></th><th>fit</th><th>95 % of {} resampled fits</th></tr>\n\
         {rows}</table></div>\n",
        findings.bootstrap.replicates
    );
    if !findings.predictions.is_empty() {
        out.push_str(
            "<h2>Predictions</h2>\n<div class=\"scroll\"><table>\n<tr><th>FLOP</th><th>N</th><th>D</th><th>loss</th>\
             <th>95 %</th></tr>\n",
        );
        for prediction in &findings.predictions {
            let optimum = &prediction.optimum;
            let interval = prediction.loss.map_or("-".to_owned(), |(low, high)| format!("{low:.4} to {high:.4}"));
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.4}</td><td>{interval}</td></tr>",
                quantity::shown(optimum.flops),
                quantity::shown(optimum.parameters),
                quantity::shown(optimum.tokens),
                optimum.loss
            );
        }
        out.push_str("</table></div>\n");
    }
    out
}

/// Runs in colours of their size, the frontier with its band, predictions.
fn frontier(findings: &Findings) -> Plot {
    let (low, high) = findings.fit.range.flops;
    let budgets: Vec<f64> = spread(low, 100.0 * high).collect();
    let ends: Vec<(f64, (f64, f64))> = budgets
        .iter()
        .filter_map(|flops| Some((*flops, findings.bootstrap.interval(0.95, |law| law.optimum(*flops).loss)?)))
        .collect();
    let side = |of: fn(&(f64, f64)) -> f64| ends.iter().map(|(flops, ends)| (*flops, of(ends))).collect::<Vec<_>>();
    let mut layers = vec![layer("", 0, Mark::Band(side(|ends| ends.1)), side(|ends| ends.0))];
    layers.extend(by_size(&findings.points));
    let line = budgets.iter().map(|flops| (*flops, findings.fit.law.optimum(*flops).loss)).collect();
    layers.push(layer("best model of each budget", 0, Mark::Line, line));
    let asked = findings.predictions.iter().map(|asked| (asked.optimum.flops, asked.optimum.loss)).collect();
    layers.push(layer(if findings.predictions.is_empty() { "" } else { "predicted" }, 6, Mark::Rings, asked));
    Plot { x: "FLOP, 6 N D", y: "loss, nats a token", log_y: true, layers }
}

/// The points in five groups of about equal size by parameters.
fn by_size(points: &[Point]) -> Vec<Layer> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|x, y| x.n.total_cmp(&y.n));
    let group = sorted.len().div_ceil(5).max(1);
    let layers = sorted.chunks(group).enumerate().map(|(index, group)| {
        let (low, high) = (group[0].n, group[group.len() - 1].n);
        let name = format!("N {} to {}", quantity::shown(low), quantity::shown(high));
        layer(&name, index + 1, Mark::Dots, group.iter().map(|point| (point.flops(), point.loss)).collect())
    });
    layers.collect()
}

fn agreement(points: &[Point], law: &Law) -> Plot {
    let dots: Vec<(f64, f64)> = points.iter().map(|point| (law.loss(point.n, point.d), point.loss)).collect();
    let (low, high) =
        dots.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), (x, y)| (low.min(*x).min(*y), high.max(*x).max(*y)));
    let layers = vec![layer("", 7, Mark::Faint, vec![(low, low), (high, high)]), layer("", 1, Mark::Dots, dots)];
    Plot { x: "predicted loss", y: "measured loss", log_y: true, layers }
}

fn approach2(findings: &Findings) -> Result<String, CliError> {
    let found = match &findings.isoflop {
        Ok(found) => found,
        Err(error) => {
            return Ok(format!(
                "<h2>Approach 2: isoFLOP parabolas</h2>\n<p class=\"about\">Not here: {}.</p>\n",
                escape(&first_line(error))
            ));
        }
    };
    let mut layers = Vec::new();
    for (index, budget) in found.budgets.iter().enumerate() {
        let points: Vec<(f64, f64)> = budget.points.iter().map(|point| (point.n, point.loss)).collect();
        let ends = (points[0].0, points[points.len() - 1].0);
        let curve = spread(ends.0, ends.1).map(|n| (n, budget.at(n))).collect();
        layers.push(layer("", index, Mark::Line, curve));
        // Names of many budgets would hide the plot.
        let name =
            if found.budgets.len() > 8 { String::new() } else { format!("{} FLOP", quantity::shown(budget.flops)) };
        layers.push(layer(&name, index, Mark::Dots, points));
        if budget.is_bracketed {
            layers.push(layer("", index, Mark::Rings, vec![(budget.parameters, budget.loss)]));
        }
    }
    let words = format!(
        "Runs of one budget, the parabola through them, and its minimum. Through the minima: N = {:.4} C^{:.4}, \
         D = {:.4} C^{:.4}.",
        found.parameters.coefficient, found.parameters.exponent, found.tokens.coefficient, found.tokens.exponent
    );
    let plot = Plot { x: "parameters", y: "loss, nats a token", log_y: false, layers };
    Ok(format!("<h2>Approach 2: isoFLOP parabolas</h2>\n{}", figure("Loss over size", &words, &plot)?))
}

fn approach1(findings: &Findings) -> Result<String, CliError> {
    let Ok(found) = &findings.envelope else { return Ok(String::new()) };
    let best = found.envelope.iter().map(|(flops, n, _)| (*flops, *n)).collect();
    let ends = found.envelope.first().zip(found.envelope.last());
    let line = ends.map_or(Vec::new(), |(first, last)| {
        [first.0, last.0].map(|flops| (flops, found.parameters.at(flops))).to_vec()
    });
    let layers = vec![layer("best run", 1, Mark::Dots, best), layer("power law", 0, Mark::Line, line)];
    let words = format!("N = {:.4} C^{:.4}", found.parameters.coefficient, found.parameters.exponent);
    let plot = Plot { x: "FLOP", y: "parameters of the best run", log_y: true, layers };
    Ok(format!("<h2>Approach 1: envelope of training curves</h2>\n{}", figure("Best size", &words, &plot)?))
}
