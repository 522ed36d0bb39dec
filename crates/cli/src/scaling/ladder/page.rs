//! The report of a ladder.

use super::super::page::{figure, layer, spread};
use super::super::plot::{Layer, Mark, Plot};
use super::super::quantity;
use super::Trained;
use crate::error::CliError;
use crate::report::chart::escape;
use crate::report::page::document;
use crate::text;
use cavy_scaling::ladder::Forecast;
use std::fmt::Write as _;

/// The page.
///
/// Errors: what the drawing library says.
pub(super) fn render(rungs: &[Trained], measured: &Trained, forecast: &Forecast) -> Result<String, CliError> {
    let inside = (forecast.interval.0..=forecast.interval.1).contains(&measured.loss);
    let mut body = header(rungs, measured, forecast, inside);
    body.push_str("<h2>The ladder</h2>\n");
    body.push_str(&figure(
        "Loss over tokens",
        "Each dot is a run at its own end, its colour its size; lines are the fitted law for each size. The ring is the \
         model that was foretold, with the interval as a band; the last dot is what it came to.",
        &curves(rungs, measured, forecast),
    )?);
    body.push_str(&figure(
        "Measured over fitted",
        "How far each run is from the law through the rungs, in per cent. The band is the interval for a new run.",
        &residuals(rungs, measured, forecast),
    )?);
    body.push_str(&table(rungs, measured, forecast));
    Ok(document("Scaling ladder", &body))
}

fn header(rungs: &[Trained], measured: &Trained, forecast: &Forecast, inside: bool) -> String {
    let (low, high) = forecast.interval;
    let gap = 100.0 * (measured.loss / forecast.loss - 1.0);
    let largest = rungs.iter().map(|rung| rung.loss).fold(f64::INFINITY, f64::min);
    let class = if inside { "good" } else { "warning" };
    let verdict = format!(
        "{} parameters on {} tokens came to {:.4}. Foretold were {:.4}, and {low:.4} to {high:.4} with 95 %: {} ({gap:+.2} %).",
        text::count(measured.rung.parameters),
        text::count(measured.rung.tokens()),
        measured.loss,
        forecast.loss,
        if inside { "it fell inside" } else { "it fell outside" },
    );
    let law = forecast.law;
    let seeds = forecast.seed_deviation.map_or(String::new(), |deviation| {
        format!("; runs that differ in their seed alone deviate by {:.2} %", 100.0 * deviation)
    });
    let notes = [
        (class, verdict),
        ("plain", format!("The best of the smaller models had {largest:.4}; the interval is {:.4} wide.", high - low)),
        ("plain", format!("The rungs deviate from the law by {:.2} %{seeds}.", 100.0 * forecast.fit_deviation)),
    ];
    let notes = notes.iter().fold(String::new(), |mut list, (class, note)| {
        let _ = writeln!(list, "<li class=\"{class}\">{}</li>", escape(note));
        list
    });
    format!(
        "<header>\n<p class=\"brand\">cavy scaling ladder</p>\n<h1>{} small models foretell a larger one</h1>\n\
         <p class=\"about\">L = {:.4} + {:.4} / N^{:.4} + {:.4} / D^{:.4}, N with embeddings</p>\n\
         <ul class=\"verdicts\">\n{notes}</ul>\n</header>\n",
        rungs.len(),
        law.e,
        law.a,
        law.alpha,
        law.b,
        law.beta
    )
}

/// The sizes, from the smallest, each with the runs of it.
fn by_size(rungs: &[Trained]) -> Vec<(f64, Vec<&Trained>)> {
    let mut groups: Vec<(f64, Vec<&Trained>)> = Vec::new();
    for rung in rungs {
        match groups.iter_mut().find(|(n, _)| *n == rung.rung.parameters) {
            Some((_, group)) => group.push(rung),
            None => groups.push((rung.rung.parameters, vec![rung])),
        }
    }
    groups.sort_by(|x, y| x.0.total_cmp(&y.0));
    groups
}

fn curves(rungs: &[Trained], measured: &Trained, forecast: &Forecast) -> Plot {
    let tokens = |trained: &&Trained| trained.rung.tokens();
    let (low, high) = rungs.iter().fold((f64::INFINITY, measured.rung.tokens()), |(low, high), rung| {
        (low.min(tokens(&rung)), high.max(tokens(&rung)))
    });
    let law = |n: f64| spread(low, high).map(|d| (d, forecast.law.loss(n, d))).collect::<Vec<_>>();
    let mut layers = Vec::new();
    for (index, (n, group)) in by_size(rungs).into_iter().enumerate() {
        layers.push(layer("", index + 1, Mark::Line, law(n)));
        let dots = group.iter().map(|rung| (tokens(rung), rung.loss)).collect();
        layers.push(layer(&format!("{} parameters", quantity::shown(n)), index + 1, Mark::Dots, dots));
    }
    let (n, d) = (measured.rung.parameters, measured.rung.tokens());
    layers.push(layer("", 0, Mark::Line, law(n)));
    layers.extend(interval(d, forecast, |loss| loss));
    layers.push(layer("foretold", 0, Mark::Rings, vec![(d, forecast.loss)]));
    layers.push(layer(
        &format!("{} parameters, measured", quantity::shown(n)),
        0,
        Mark::Dots,
        vec![(d, measured.loss)],
    ));
    Plot { x: "tokens", y: "validation loss, nats a token", log_y: true, layers }
}

/// The interval as a narrow band at `x`.
fn interval(x: f64, forecast: &Forecast, of: impl Fn(f64) -> f64) -> [Layer; 1] {
    let sides = |loss: f64| [0.96, 1.04].map(|factor| (x * factor, of(loss))).to_vec();
    [layer("", 0, Mark::Band(sides(forecast.interval.1)), sides(forecast.interval.0))]
}

fn residuals(rungs: &[Trained], measured: &Trained, forecast: &Forecast) -> Plot {
    let gap = |trained: &Trained| {
        let fitted = forecast.law.loss(trained.rung.parameters, trained.rung.tokens());
        (trained.rung.flops(), 100.0 * (trained.loss / fitted).ln())
    };
    let ends = [rungs, std::slice::from_ref(measured)]
        .concat()
        .iter()
        .map(|trained| trained.rung.flops())
        .fold((f64::INFINITY, 0.0_f64), |(low, high), flops| (low.min(flops), high.max(flops)));
    let mut layers = vec![layer("", 7, Mark::Faint, vec![(ends.0, 0.0), (ends.1, 0.0)])];
    for (index, (_, group)) in by_size(rungs).into_iter().enumerate() {
        layers.push(layer("", index + 1, Mark::Dots, group.iter().map(|rung| gap(rung)).collect()));
    }
    layers.extend(interval(measured.rung.flops(), forecast, |loss| 100.0 * (loss / forecast.loss).ln()));
    layers.push(layer("the model foretold", 0, Mark::Dots, vec![gap(measured)]));
    Plot { x: "FLOP, 6 N D", y: "measured over fitted, %", log_y: false, layers }
}

fn table(rungs: &[Trained], measured: &Trained, forecast: &Forecast) -> String {
    let mut rows = String::new();
    for trained in rungs.iter().chain([measured]) {
        let rung = &trained.rung;
        let fitted = forecast.law.loss(rung.parameters, rung.tokens());
        let _ = writeln!(
            rows,
            "<tr><td>{} x {}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.4}</td><td>{fitted:.4}</td>\
             <td>{}</td></tr>",
            rung.shape.num_hidden_layers,
            rung.shape.hidden_size,
            text::count(rung.parameters),
            text::count(rung.tokens()),
            rung.steps,
            text::rate(rung.peak_lr),
            rung.seed,
            trained.loss,
            text::duration(trained.seconds)
        );
    }
    format!(
        "<h2>Runs</h2>\n<div class=\"scroll\"><table>\n<tr><th>layers x width</th><th>N</th><th>D</th><th>steps</th>\
         <th>peak rate</th><th>seed</th><th>loss</th><th>law</th><th>time of steps</th></tr>\n{rows}</table></div>\n"
    )
}
