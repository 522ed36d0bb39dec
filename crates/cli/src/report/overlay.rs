//! The page of several runs, laid over each other.

use super::chart::{Chart, Series, escape, plain};
use super::load::RunData;
use super::page::{document, figure, series, shown};
use super::tuning;
use crate::text::{count, duration, thousands};
use cavy_train::metrics::TrainRecord;
use std::fmt::Write as _;
use toml::Value;

/// The report of `runs`, compared over the tokens they have seen.
pub(super) fn render(runs: &[RunData]) -> String {
    let names = names(runs);
    let mut body = format!(
        "<header>\n<p class=\"brand\">cavy report</p>\n<h1>{} runs compared</h1>\n<p class=\"about\">{}</p>\n</header>\n",
        runs.len(),
        escape(&names.join(", "))
    );
    body.push_str(&figures(runs, &names));
    body.push_str("<h2>Curves</h2>\n<div class=\"charts\">\n");
    let evals = |of: fn(&cavy_train::metrics::EvalRecord) -> f64, dots| {
        let line = |(index, run): (usize, &RunData)| {
            let points = run.evals.iter().map(|record| (record.tokens as f64, of(record))).collect();
            Series { dots, ..series(&names[index], index, points) }
        };
        runs.iter().enumerate().map(line).collect::<Vec<_>>()
    };
    let steps = |of: fn(&TrainRecord) -> f64| {
        let line = |(index, run): (usize, &RunData)| {
            series(&names[index], index, run.train.iter().map(|record| (record.tokens as f64, of(record))).collect())
        };
        runs.iter().enumerate().map(line).collect::<Vec<_>>()
    };
    body.push_str(&figure(&chart("Validation loss", evals(|record| record.val_loss, true), false, plain), true));
    body.push_str(&figure(&chart("Training loss", evals(|record| record.train_loss, true), false, plain), false));
    body.push_str(&figure(&chart("Learning rate", steps(|record| record.lr), false, plain), false));
    let norms =
        Chart { log: true, ..chart("Gradient norm before clipping", steps(|record| record.grad_norm), false, plain) };
    body.push_str(&figure(&norms, false));
    body.push_str(&figure(&chart("Tokens a second", steps(|record| record.tokens_per_s), true, count), false));
    body.push_str("</div>\n");
    body.push_str(&differences(runs, &names));
    document(&format!("{} runs", runs.len()), &body)
}

/// The runs' names, numbered where two are the same.
fn names(runs: &[RunData]) -> Vec<String> {
    let same = |name: &str| runs.iter().filter(|run| run.name == name).count() > 1;
    let numbered = |(index, run): (usize, &RunData)| {
        if same(&run.name) { format!("{} ({})", run.name, index + 1) } else { run.name.clone() }
    };
    runs.iter().enumerate().map(numbered).collect()
}

fn chart(title: &str, series: Vec<Series>, from_zero: bool, format: fn(f64) -> String) -> Chart {
    Chart {
        title: title.to_owned(),
        x_label: "tokens seen (millions)".to_owned(),
        series: series.into_iter().map(in_millions).collect(),
        top: None,
        log: false,
        from_zero,
        mark: None,
        format,
    }
}

fn in_millions(series: Series) -> Series {
    Series { points: series.points.into_iter().map(|(x, y)| (x / 1e6, y)).collect(), ..series }
}

/// A row of key figures for each run; those of fine-tuning where a run has them.
fn figures(runs: &[RunData], names: &[String]) -> String {
    type Column = (&'static str, fn(&RunData) -> Option<String>);
    let columns: [Column; 9] = [
        ("lowest validation loss", |run| run.best().map(|best| format!("{:.4}", best.val_loss))),
        ("at step", |run| run.best().map(|best| best.step.to_string())),
        ("last training loss", |run| run.evals.last().map(|last| format!("{:.4}", last.train_loss))),
        ("test loss", |run| run.summary["test"]["loss"].as_f64().map(|loss| format!("{loss:.4}"))),
        ("right on the test part", |run| tuning::test_accuracy(run).map(|share| format!("{:.1} %", 100.0 * share))),
        ("parameters trained", |run| tuning::trainable(run).map(thousands)),
        ("tokens seen", |run| Some(count(run.tokens() as f64))),
        ("tokens/s", |run| Some(count(run.median(|record| record.tokens_per_s)))),
        ("time", |run| Some(duration(run.seconds()))),
    ];
    let shown: Vec<Column> = columns.into_iter().filter(|(_, of)| runs.iter().any(|run| of(run).is_some())).collect();
    let head = cells("th", std::iter::once("run".to_owned()).chain(shown.iter().map(|(name, _)| (*name).to_owned())));
    let mut out = format!("<h2>Key figures</h2>\n<div class=\"scroll\"><table>\n<tr>{head}</tr>\n");
    for (run, name) in runs.iter().zip(names) {
        let values = shown.iter().map(|(_, of)| of(run).unwrap_or_else(|| "-".to_owned()));
        let _ = writeln!(out, "<tr>{}</tr>", cells("td", std::iter::once(name.clone()).chain(values)));
    }
    out + "</table></div>\n"
}

/// Cells of a table's row.
fn cells(tag: &str, texts: impl Iterator<Item = String>) -> String {
    texts.fold(String::new(), |mut row, text| {
        let _ = write!(row, "<{tag}>{}</{tag}>", escape(&text));
        row
    })
}

/// The settings in which the runs differ.
fn differences(runs: &[RunData], names: &[String]) -> String {
    let head = cells("th", names.iter().cloned());
    let mut rows = String::new();
    let keys = runs.first().into_iter().flat_map(|run| run.settings.keys()).filter(|key| *key != "out");
    for key in keys {
        let values: Vec<Option<&Value>> = runs.iter().map(|run| run.settings.get(key)).collect();
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            continue;
        }
        let cells = cells("td", values.iter().map(|value| value.map(shown).unwrap_or_default()));
        let _ = writeln!(rows, "<tr><th>{}</th>{cells}</tr>", escape(key));
    }
    if rows.is_empty() {
        return "<h2>Settings</h2>\n<p class=\"about\">The runs have the same settings.</p>\n".to_owned();
    }
    format!(
        "<h2>Settings that differ</h2>\n<div class=\"scroll\"><table>\n<tr><th></th>{head}</tr>\n{rows}</table></div>\n"
    )
}
