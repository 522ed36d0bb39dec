//! The page of one run.

use super::chart::{Chart, Series, escape, plain};
use super::load::RunData;
use super::preference;
use super::tuning;
use super::verdict::{Tone, verdicts};
use crate::text::{count, duration};
use cavy_train::metrics::SampleRecord;
use cavy_train::settings::{ClassifySettings, DpoSettings, RewardSettings, SftSettings};
use cavy_train::{PretrainSettings, Settings};
use std::fmt::Write as _;
use toml::Value;

/// Width and height of a chart in half the page, and in all of it.
const HALF: (f64, f64) = (530.0, 290.0);
const FULL: (f64, f64) = (1070.0, 400.0);

/// A page: its title, what stands in it. Everything is inside the one file.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{} - cavy</title>\n<style>\n{}</style>\n</head>\n\
         <body>\n<main>\n{body}\n<footer>Made by cavy {}. This page is one file and needs no network.</footer>\n\
         </main>\n</body>\n</html>\n",
        escape(title),
        include_str!("style.css"),
        env!("CARGO_PKG_VERSION")
    )
}

/// The report of `run`.
pub(crate) fn render(run: &RunData) -> String {
    let mut body = header(run);
    body.push_str(&tiles(run));
    body.push_str("<h2>How it went</h2>\n<div class=\"charts\">\n");
    body.push_str(&figure(&loss(run), true));
    let own = preference::charts(run).into_iter().chain(accuracy(run));
    for chart in own.chain([learning_rate(run), grad_norm(run), throughput(run), mfu(run)]) {
        body.push_str(&figure(&chart, false));
    }
    body.push_str("</div>\n");
    body.push_str(&tuning::labels(run));
    body.push_str(&tuning::answers(run));
    body.push_str(&samples(&run.samples));
    body.push_str(&settings(run));
    document(&run.name, &body)
}

fn header(run: &RunData) -> String {
    let setting = |key: &str| run.settings.get(key).map(shown).unwrap_or_default();
    let mut about = Vec::new();
    if !run.settings.is_empty() {
        let data = setting("data");
        let name = data.rsplit('/').next().unwrap_or(&data).to_owned();
        let model = match (setting("model"), setting("arch")) {
            (path, _) if !path.is_empty() => {
                path.trim_end_matches("/model").rsplit('/').next().unwrap_or_default().to_owned()
            }
            (_, arch) if arch == "custom" => "A custom GPT".into(),
            (_, arch) => arch,
        };
        about.push(format!("{model} on {name}"));
        if run.verb == "pretrain" {
            about.push(format!("tokenizer {}", setting("tokenizer").rsplit('/').next().unwrap_or_default()));
            about.push(format!("context {}", setting("context_length")));
        }
        if let Some(rank) = run.settings.get("r").and_then(Value::as_integer).filter(|&rank| rank > 0) {
            let dora = run.settings.get("use_dora").and_then(Value::as_bool) == Some(true);
            about.push(format!("{} of rank {rank}", if dora { "DoRA" } else { "LoRA" }));
        }
        about.push(format!("batch {}", setting("batch_size")));
    }
    let words = verdicts(run).into_iter().fold(String::new(), |mut list, verdict| {
        let class = match verdict.tone {
            Tone::Good => "good",
            Tone::Plain => "plain",
            Tone::Warning => "warning",
        };
        let _ = writeln!(list, "<li class=\"{class}\">{}</li>", escape(&verdict.text));
        list
    });
    format!(
        "<header>\n<p class=\"brand\">cavy {}</p>\n<h1>{}</h1>\n<p class=\"about\">{}</p>\n<ul class=\"verdicts\">\n\
         {words}</ul>\n</header>\n",
        escape(&run.verb),
        escape(&run.name),
        escape(&about.join(", "))
    )
}

fn tiles(run: &RunData) -> String {
    let mut tiles = tuning::tiles(run);
    if let Some(best) = run.best() {
        tiles.push((format!("{:.3}", best.val_loss), "lowest validation loss".into()));
        // Where the loss is that of tokens, and not of pairs or labels.
        let of_tokens = matches!(run.verb.as_str(), "pretrain" | "sft");
        if of_tokens && best.val_perplexity.is_finite() {
            tiles.push((format!("{:.1}", best.val_perplexity), "perplexity there".into()));
        }
        if let Some(bits) = best.val_bits_per_byte {
            tiles.push((format!("{bits:.3}"), "bits a byte there".into()));
        }
    }
    if let Some(last) = run.evals.last() {
        tiles.push((format!("{:.3}", last.train_loss), "last training loss".into()));
    }
    if let Some(last) = run.train.last() {
        tiles.push((last.step.to_string(), format!("steps, {} epochs", plain((100.0 * last.epoch).round() / 100.0))));
        tiles.push((count(last.tokens as f64), "tokens seen".into()));
        tiles.push((count(run.median(|record| record.tokens_per_s)), "tokens a second".into()));
        tiles.push((duration(run.seconds()), "of training steps".into()));
    }
    let tile = |(value, name): (String, String)| {
        format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(&value), escape(&name))
    };
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.into_iter().map(tile).collect::<String>())
}

/// A chart with its caption; one over the whole width is drawn a second time for narrow screens.
pub(super) fn figure(chart: &Chart, full: bool) -> String {
    let (class, svg) = if full {
        let (wide, narrow) = (chart.svg(FULL.0, FULL.1), chart.svg(HALF.0, 330.0));
        (" class=\"full\"", format!("<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>"))
    } else {
        ("", chart.svg(HALF.0, HALF.1))
    };
    let (title, legend) = (escape(&chart.title), chart.legend());
    format!("<figure{class}>\n<figcaption><h3>{title}</h3>{legend}</figcaption>\n{svg}\n</figure>\n")
}

/// A line of a chart.
pub(super) fn series(name: &str, color: usize, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), color, points, faint: false, dots: false }
}

/// A chart over the epochs of a run.
pub(super) fn over_epochs(title: &str, series: Vec<Series>, format: fn(f64) -> String) -> Chart {
    Chart {
        title: title.to_owned(),
        x_label: "epochs".to_owned(),
        series,
        top: None,
        log: false,
        from_zero: true,
        mark: None,
        format,
    }
}

fn loss(run: &RunData) -> Chart {
    let per_epoch = run.tokens() as f64 / run.epochs().max(1e-9);
    let faint = Series { faint: true, ..series("each step", 0, run.steps(|record| record.loss)) };
    let lines = vec![
        faint,
        Series { dots: true, ..series("training", 0, run.eval_points(|record| record.train_loss)) },
        Series { dots: true, ..series("validation", 1, run.eval_points(|record| record.val_loss)) },
    ];
    let mark = run.best().filter(|_| run.evals.len() > 1);
    let mark = mark.map(|best| (best.epoch, best.val_loss, format!("lowest {:.3}, step {}", best.val_loss, best.step)));
    let top = (run.tokens() > 0).then(|| ("tokens seen".to_owned(), per_epoch));
    Chart { top, mark, from_zero: false, ..over_epochs("Loss", lines, plain) }
}

/// Accuracy over the evaluations, where there is one.
fn accuracy(run: &RunData) -> Option<Chart> {
    let points = |key: &str| run.eval_points(|record| 100.0 * record.metrics.get(key).copied().unwrap_or(f64::NAN));
    let has = run.verb == "classify" && run.evals.iter().any(|record| record.metrics.contains_key("eval_accuracy"));
    has.then(|| {
        let lines = vec![
            Series { dots: true, ..series("training", 0, points("train_accuracy")) },
            Series { dots: true, ..series("validation", 1, points("eval_accuracy")) },
        ];
        Chart { from_zero: false, ..over_epochs("Right labels", lines, |value| format!("{value:.0} %")) }
    })
}

fn learning_rate(run: &RunData) -> Chart {
    let format = |value: f64| if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}").replace(".0e", "e") };
    over_epochs("Learning rate", vec![series("learning rate", 2, run.steps(|record| record.lr))], format)
}

fn grad_norm(run: &RunData) -> Chart {
    let before = Series { faint: true, ..series("before clipping", 3, run.steps(|record| record.grad_norm)) };
    let after = series("after", 3, run.steps(|record| record.grad_norm_clipped));
    Chart { log: true, ..over_epochs("Gradient norm", vec![before, after], plain) }
}

fn throughput(run: &RunData) -> Chart {
    let line = series("tokens a second", 5, run.steps(|record| record.tokens_per_s));
    over_epochs("Throughput", vec![line], count)
}

fn mfu(run: &RunData) -> Chart {
    let line = series("of the matrix-product rate", 4, run.steps(|record| 100.0 * record.mfu));
    over_epochs("Use of the machine", vec![line], |value| format!("{value:.0} %"))
}

/// The samples in order; first, middle and last are open.
fn samples(samples: &[SampleRecord]) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let mut out = "<h2>What it wrote</h2>\n<div class=\"samples\">\n".to_owned();
    let open = [0, samples.len() / 2, samples.len() - 1];
    for (index, sample) in samples.iter().enumerate() {
        let state = if open.contains(&index) { " open" } else { "" };
        let glance: String = sample.text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(110).collect();
        let _ = writeln!(
            out,
            "<details{state}><summary><b>Step {}</b>epoch {}, {} tokens<q>{}</q></summary>\n<div class=\"text\"><em>{}</em>{}{}</div></details>",
            sample.step,
            plain((100.0 * sample.epoch).round() / 100.0),
            count(sample.tokens as f64),
            escape(&glance),
            escape(&sample.prompt),
            escape(&sample.text),
            sample.reference.as_deref().map_or(String::new(), |reference| {
                format!("<span class=\"reference\">{}</span>", escape(reference))
            })
        );
    }
    out + "</div>\n"
}

/// The settings; those that are not the default stand out.
fn settings(run: &RunData) -> String {
    if run.settings.is_empty() {
        return String::new();
    }
    let defaults = match run.verb.as_str() {
        SftSettings::VERB => SftSettings::default().to_table(),
        ClassifySettings::VERB => ClassifySettings::default().to_table(),
        DpoSettings::VERB => DpoSettings::default().to_table(),
        RewardSettings::VERB => RewardSettings::default().to_table(),
        _ => PretrainSettings::default().to_table(),
    };
    let mut rows = String::new();
    for (key, value) in &run.settings {
        let class = if defaults.get(key) == Some(value) { "" } else { " class=\"changed\"" };
        let _ = writeln!(rows, "<div{class}><dt>{}</dt><dd>{}</dd></div>", escape(key), escape(&shown(value)));
    }
    let note = "<p class=\"about\">In bold: what differs from the default. <code>run.toml</code> repeats the run.</p>";
    format!("<h2>Settings</h2>\n{note}\n<dl class=\"settings\">\n{rows}</dl>\n{}", machine(run))
}

/// What the run computed with, as its last beginning found it.
fn machine(run: &RunData) -> String {
    let text = |key: &str| run.machine.get(key).and_then(serde_json::Value::as_str).map(escape);
    let number = |key: &str| run.machine.get(key).and_then(serde_json::Value::as_f64);
    let (Some(isa), Some(precision), Some(threads), Some(gflops)) =
        (text("isa"), text("precision"), number("threads"), number("matmul_gflops"))
    else {
        return String::new();
    };
    format!(
        "<p class=\"about\">Computed with {isa} on {threads} threads, {gflops:.0} GFLOP/s in matrix products. Precision: \
         {precision}.</p>\n"
    )
}

/// A value as the reader would write it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.trim().is_empty() => format!("{text:?}"),
        Value::String(text) => text.clone(),
        Value::Float(number) if *number != 0.0 && number.abs() < 1e-3 => {
            format!("{number:e}")
        }
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
