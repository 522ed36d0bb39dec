//! What the page of a fine-tuned model has besides curves of loss: answers beside references, scores on the test part, the
//! confusion of labels.

use super::chart::escape;
use super::load::RunData;
use crate::text::thousands;
use serde_json::Value;
use std::fmt::Write as _;

/// Key figures of the finished run: value and name.
pub(super) fn tiles(run: &RunData) -> Vec<(String, String)> {
    let mut tiles = Vec::new();
    let test = &run.summary["test"];
    if let Some(accuracy) = test["accuracy"].as_f64() {
        tiles.push((format!("{:.1} %", 100.0 * accuracy), "right on the test part".into()));
    }
    if let Some(loss) = test["loss"].as_f64() {
        tiles.push((format!("{loss:.3}"), "test loss".into()));
    }
    if let (Some(exact), Some(answered)) = (test["exact_match"].as_u64(), test["answered"].as_u64().filter(|&n| n > 0))
    {
        tiles.push((format!("{exact} of {answered}"), "test answers word for word".into()));
    }
    if let (Some(trainable), Some(total)) = (trainable(run), run.summary["parameters"]["total"].as_u64()) {
        let share = 100.0 * trainable as f64 / total.max(1) as f64;
        tiles.push((thousands(trainable), format!("parameters trained, {share:.2} %")));
    }
    tiles
}

/// Parameters that the run changed, if it is finished and says so.
pub(super) fn trainable(run: &RunData) -> Option<u64> {
    run.summary["parameters"]["trainable"].as_u64()
}

/// Accuracy on the test part.
pub(super) fn test_accuracy(run: &RunData) -> Option<f64> {
    run.summary["test"]["accuracy"].as_f64()
}

fn counts(value: &Value) -> Vec<u64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// Which labels were taken for which, and how many texts each has; nothing for a run without labels.
pub(super) fn labels(run: &RunData) -> String {
    let labels: Vec<&str> = run.summary["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if labels.is_empty() {
        return String::new();
    }
    let head: String = labels.iter().fold(String::new(), |mut head, label| {
        let _ = write!(head, "<th>{}</th>", escape(label));
        head
    });
    let mut out = "<h2>Which label it took for which</h2>\n<div class=\"two\">\n<figure><figcaption><h3>Test part</h3>\
                   <span class=\"about\">rows: what a text is, columns: what the model said</span></figcaption>\n\
                   <table class=\"confusion\">\n"
        .to_owned();
    let _ = writeln!(out, "<tr><th></th>{head}<th>right</th></tr>");
    for (index, label) in labels.iter().enumerate() {
        let row = counts(&run.summary["test"]["confusion"][index]);
        let sum = row.iter().sum::<u64>().max(1);
        let _ = write!(out, "<tr><th>{}</th>", escape(label));
        for (at, &count) in row.iter().enumerate() {
            let (share, class) = (count as f64 / sum as f64, if at == index { "hit" } else { "miss" });
            let _ = write!(out, "<td class=\"{class}\" style=\"--share:{share:.3}\">{}</td>", thousands(count));
        }
        let right = row.get(index).copied().unwrap_or(0) as f64 / sum as f64;
        let _ = writeln!(out, "<td>{:.1} %</td></tr>", 100.0 * right);
    }
    out.push_str("</table></figure>\n<figure><figcaption><h3>Texts of each label</h3></figcaption>\n<table>\n");
    let _ = writeln!(out, "<tr><th></th>{head}</tr>");
    for part in ["train", "validation", "test"] {
        let row = counts(&run.summary["class_balance"][part]);
        let sum = row.iter().sum::<u64>().max(1);
        let cells = row.iter().fold(String::new(), |mut cells, &count| {
            let share = 100.0 * count as f64 / sum as f64;
            let _ = write!(cells, "<td>{} <small>{share:.0} %</small></td>", thousands(count));
            cells
        });
        let _ = writeln!(out, "<tr><th>{part}</th>{cells}</tr>");
    }
    out + "</table></figure>\n</div>\n"
}

/// Test answers beside what they should have been.
pub(super) fn answers(run: &RunData) -> String {
    let answers = run.summary["test"]["answers"].as_array().map_or(&[][..], Vec::as_slice);
    if answers.is_empty() {
        return String::new();
    }
    let mut out = "<h2>What it answers</h2>\n<p class=\"about\">Prompts of the test part, which it never saw.</p>\n\
                   <div class=\"answers\">\n"
        .to_owned();
    for answer in answers {
        let part = |key: &str| answer[key].as_str().unwrap_or_default().trim();
        let same = part("answer") == part("reference");
        let class = if same { "same" } else { "" };
        let columns = [("before", "before training"), ("answer", "answer"), ("reference", "reference")];
        let shown = columns.into_iter().filter(|(key, _)| answer[*key].is_string());
        let cells = shown.fold(String::new(), |mut cells, (key, name)| {
            let _ = write!(cells, "<div><h4>{name}</h4><p>{}</p></div>", escape(part(key)));
            cells
        });
        let prompt = escape(instruction(part("prompt")));
        let _ = writeln!(out, "<article class=\"{class}\"><p class=\"prompt\">{prompt}</p>{cells}</article>");
    }
    out + "</div>\n"
}

/// The part of a prompt that differs from item to item, where it is Alpaca's.
fn instruction(prompt: &str) -> &str {
    let inner = prompt.split_once("### Instruction:\n").map_or(prompt, |(_, rest)| rest);
    inner.strip_suffix("### Response:").unwrap_or(inner).trim()
}
