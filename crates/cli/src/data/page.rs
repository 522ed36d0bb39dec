//! The report of a curation: one page.

use crate::text::{bytes, count, duration, thousands};
use cavy_curate::funnel::{Amount, StepCount};
use cavy_curate::pipeline::Outcome;
use cavy_curate::recipe::Recipe;
use std::fmt::Write as _;

/// What this page has beyond the style of all reports.
const STYLE: &str = "
.funnel { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content; gap: 6px 16px; align-items: center; }
.funnel .name { font-weight: 600; font-size: 14px; } .funnel .bar { background: var(--line); border-radius: 4px; height: 22px; }
.funnel .bar i { display: block; height: 100%; border-radius: 4px; background: var(--c1); } .funnel .bar i.end { background: var(--c2); }
.funnel .what { font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums; text-align: right; }
.half { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 20px; }
.half .funnel { grid-template-columns: minmax(60px, max-content) minmax(0, 1fr) max-content; gap: 4px 12px; padding: 4px; }
.half .funnel .bar { height: 14px; } .half .funnel .name { font-weight: 400; font-size: 13px; }
.dropped { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 8px 16px; margin: 10px 0; }
.dropped summary { color: var(--ink); } .dropped summary b { font-variant-numeric: tabular-nums; }
.dropped pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12.5px; color: var(--soft); border-left: 2px solid var(--line); padding-left: 12px; }
.dropped .from { font-size: 12.5px; margin: 10px 0 0; overflow-wrap: anywhere; }
";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The report.
pub(super) fn render(recipe: &Recipe, outcome: &Outcome, unit: &str, seconds: f64, threads: usize) -> String {
    let funnel = &outcome.funnel;
    let name = recipe.out.file_name().map_or_else(|| "curation".into(), |name| name.to_string_lossy().into_owned());
    let mut body = header(&name, recipe, outcome, unit);
    body += &tiles(outcome, unit, seconds, threads);
    body += &steps(&funnel.steps, unit);
    body += "<h2>What is in it</h2>\n<div class=\"half\">\n";
    let lengths = funnel
        .lengths
        .iter()
        .map(|(&power, &count)| (format!("{} to {}", 1_u64 << power, (2_u64 << power) - 1), count));
    body += &bars("Words of a document at the end", lengths.collect());
    let mut languages: Vec<(String, u64)> =
        funnel.languages.iter().map(|(code, &count)| (code.clone(), count)).collect();
    languages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    languages.truncate(12);
    body += &bars("Languages found", languages);
    let clusters = funnel.cluster_sizes.iter().map(|(size, &count)| (format!("{size} copies"), count as u64)).take(14);
    body += &bars("Sets of copies", clusters.collect());
    body += "</div>\n";
    body += &reasons(&funnel.steps, unit);
    body += &damages(outcome);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<title>{} - cavy</title>\n<style>\n{}{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n<footer>Made by cavy {}. \
         This page is one file and needs no network.</footer>\n</main>\n</body>\n</html>\n",
        escape(&name),
        include_str!("../report/style.css"),
        env!("CARGO_PKG_VERSION")
    )
}

fn ends(steps: &[StepCount]) -> (Amount, Amount) {
    let first = steps.first().map(|step| step.input).unwrap_or_default();
    (first, steps.last().map(|step| step.output).unwrap_or_default())
}

fn header(name: &str, recipe: &Recipe, outcome: &Outcome, unit: &str) -> String {
    let (first, last) = ends(&outcome.funnel.steps);
    let share = |part: u64, whole: u64| 100.0 * part as f64 / (whole as f64).max(1.0);
    let mut verdicts = vec![(
        "plain",
        format!(
            "{:.1} % of {} documents are kept: {} {unit}.",
            share(last.documents, first.documents),
            thousands(first.documents),
            count(last.tokens as f64)
        ),
    )];
    let dropped = |step: &StepCount| step.input.documents - step.output.documents;
    if let Some(step) = outcome.funnel.steps.iter().max_by_key(|step| dropped(step)).filter(|step| dropped(step) > 0) {
        let why = step
            .reasons
            .iter()
            .max_by_key(|(_, count)| count.dropped.documents)
            .map(|(reason, _)| reason.as_str())
            .unwrap_or_default();
        verdicts.push((
            "plain",
            format!("{} drops the most, {} documents, mostly for {why}.", step.step, thousands(dropped(step))),
        ));
    }
    if last.documents == 0 {
        verdicts.push((
            "warning",
            "Nothing is left: look at the samples below, or at one document with cavy data look.".to_owned(),
        ));
    }
    if !outcome.funnel.damages.is_empty() {
        verdicts.push((
            "warning",
            format!("{} places could not be read; they are listed at the end.", outcome.funnel.damages.len()),
        ));
    }
    let item = |(class, text): &(&str, String)| format!("<li class=\"{class}\">{}</li>\n", escape(text));
    let list: String = verdicts.iter().map(item).collect();
    format!(
        "<header>\n<p class=\"brand\">cavy data curate</p>\n<h1>{}</h1>\n<p class=\"about\">{}</p>\n<ul class=\"verdicts\">\n{list}</ul>\n</header>\n",
        escape(name),
        escape(&recipe.data.join(", "))
    )
}

fn tiles(outcome: &Outcome, unit: &str, seconds: f64, threads: usize) -> String {
    let (first, last) = ends(&outcome.funnel.steps);
    let rate = outcome.documents_read as f64 / seconds.max(1e-9);
    let tiles = [
        (count(first.documents as f64), "documents in".to_owned()),
        (count(last.documents as f64), "documents out".to_owned()),
        (bytes(first.bytes as f64), "of text in".to_owned()),
        (bytes(last.bytes as f64), "of text out".to_owned()),
        (count(last.tokens as f64), format!("{unit} out")),
        (count(rate), format!("documents a second, {threads} workers")),
        (duration(seconds), "in this call".to_owned()),
    ];
    let tile = |(value, name): &(String, String)| {
        format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(value), escape(name))
    };
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.iter().map(tile).collect::<String>())
}

fn bar(share: f64, class: &str) -> String {
    format!("<div class=\"bar\"><i class=\"{class}\" style=\"width:{:.2}%\"></i></div>", 100.0 * share.clamp(0.0, 1.0))
}

fn steps(steps: &[StepCount], unit: &str) -> String {
    let (first, _) = ends(steps);
    let mut rows = String::new();
    let mut row = |name: &str, amount: &Amount, note: String, class: &str| {
        let share = amount.documents as f64 / (first.documents as f64).max(1.0);
        let _ = writeln!(
            rows,
            "<div class=\"name\">{}</div>{}<div class=\"what\">{} documents, {} {unit}{note}</div>",
            escape(name),
            bar(share, class),
            thousands(amount.documents),
            count(amount.tokens as f64)
        );
    };
    row("input", &first, String::new(), "");
    for (index, step) in steps.iter().enumerate() {
        let dropped = step.input.documents - step.output.documents;
        let class = if index + 1 == steps.len() { "end" } else { "" };
        row(&step.step, &step.output, format!(", -{}", thousands(dropped)), class);
    }
    format!("<h2>The funnel</h2>\n<figure class=\"full\"><div class=\"funnel\">\n{rows}</div></figure>\n")
}

fn bars(title: &str, rows: Vec<(String, u64)>) -> String {
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let row = |(name, count): &(String, u64)| {
        let bar = bar(*count as f64 / most as f64, "");
        format!("<div class=\"name\">{}</div>{bar}<div class=\"what\">{}</div>\n", escape(name), thousands(*count))
    };
    let list: String = rows.iter().map(row).collect();
    let inside = if rows.is_empty() {
        "<p class=\"empty\">None.</p>".to_owned()
    } else {
        format!("<div class=\"funnel\">\n{list}</div>")
    };
    format!("<figure><figcaption><h3>{}</h3></figcaption>\n{inside}</figure>\n", escape(title))
}

fn reasons(steps: &[StepCount], unit: &str) -> String {
    let mut page = String::from("<h2>What was dropped</h2>\n");
    let mut any = false;
    for step in steps {
        let mut reasons: Vec<_> = step.reasons.iter().collect();
        reasons.sort_by(|a, b| b.1.dropped.documents.cmp(&a.1.dropped.documents).then_with(|| a.0.cmp(b.0)));
        for (reason, dropped) in reasons {
            any = true;
            let _ = writeln!(
                page,
                "<details class=\"dropped\"><summary><b>{}</b> {}: {} ({} {unit})</summary>",
                thousands(dropped.dropped.documents),
                escape(&step.step),
                escape(reason),
                count(dropped.dropped.tokens as f64)
            );
            for sample in &dropped.samples {
                let from = sample.url.as_deref().unwrap_or(&sample.id);
                let _ = writeln!(page, "<p class=\"from\">{}</p><pre>{}</pre>", escape(from), escape(&sample.text));
            }
            page += "</details>\n";
        }
    }
    if any { page } else { page + "<p class=\"empty\">Nothing.</p>\n" }
}

fn damages(outcome: &Outcome) -> String {
    let damages = &outcome.funnel.damages;
    if damages.is_empty() {
        return String::new();
    }
    let row = |damage: &cavy_curate::read::Damage| {
        let place = if damage.is_line { "line" } else { "byte" };
        let path = escape(&damage.path.display().to_string());
        format!("<li>{path}, {place} {}: {}</li>\n", damage.at, escape(&damage.found))
    };
    let rows: String = damages.iter().take(200).map(row).collect();
    format!("<h2>What could not be read</h2>\n<ul>\n{rows}</ul>\n")
}
