//! What the page of a run on preferences has: margins, accuracy and log-probabilities, and what they say in words.

use super::chart::{Chart, Series, plain};
use super::load::RunData;
use super::page::{over_epochs, series};
use super::verdict::{Tone, Verdict, verdict};

/// A chart of metrics: its title, its lines by name and key of `metrics.jsonl`, and whether they are shares.
type Wanted = (&'static str, &'static [(&'static str, &'static str)], bool);

/// Charts of DPO and of reward models; those that a run has nothing for are left out.
const CHARTS: [Wanted; 5] = [
    ("Margin of rewards", &[("training", "train_rewards/margins"), ("validation", "eval_rewards/margins")], false),
    (
        "Better answer ahead",
        &[("training", "train_rewards/accuracies"), ("validation", "eval_rewards/accuracies")],
        true,
    ),
    (
        "Log-probability of answers, held out",
        &[("chosen", "eval_logps/chosen"), ("rejected", "eval_logps/rejected")],
        false,
    ),
    ("Margin of scores", &[("training", "train_margin"), ("validation", "eval_margin")], false),
    ("Better answer scored higher", &[("training", "train_accuracy"), ("validation", "eval_accuracy")], true),
];

/// Values of a metric over the evaluations that have it, by epoch.
fn points(run: &RunData, key: &str, factor: f64) -> Vec<(f64, f64)> {
    run.evals.iter().filter_map(|record| Some((record.epoch, factor * record.metrics.get(key)?))).collect()
}

/// The charts of a run on preferences; none for other runs.
pub(super) fn charts(run: &RunData) -> Vec<Chart> {
    if !matches!(run.verb.as_str(), "dpo" | "reward") {
        return Vec::new();
    }
    let chart = |&(title, lines, share): &Wanted| {
        let factor = if share { 100.0 } else { 1.0 };
        let line = |(index, &(name, key)): (usize, &(&str, &str))| Series {
            dots: true,
            ..series(name, index, points(run, key, factor))
        };
        let lines: Vec<Series> = lines.iter().enumerate().map(line).collect();
        let format: fn(f64) -> String = if share { |value| format!("{value:.0} %") } else { plain };
        let drawn = lines.iter().any(|line| !line.points.is_empty());
        drawn.then(|| Chart { from_zero: false, ..over_epochs(title, lines, format) })
    };
    CHARTS.iter().filter_map(chart).collect()
}

/// First and last value of a metric on held-out pairs.
fn change(run: &RunData, key: &str) -> Option<(f64, f64)> {
    let points = points(run, key, 1.0);
    // What would be shown as -0.00 is nothing.
    let tidy = |value: f64| if value.abs() < 0.005 { 0.0 } else { value };
    let (first, last) = (tidy(points.first()?.1), tidy(points.last()?.1));
    (points.len() > 1 && first.is_finite() && last.is_finite()).then_some((first, last))
}

/// What margins, accuracy and log-probabilities of held-out pairs say.
pub(super) fn verdicts(run: &RunData) -> Vec<Verdict> {
    let mut all = Vec::new();
    let margins = change(run, "eval_rewards/margins").or_else(|| change(run, "eval_margin"));
    let accuracy = change(run, "eval_rewards/accuracies")
        .or_else(|| change(run, "eval_accuracy").filter(|_| run.verb == "reward"));
    if let (Some((from, to)), Some((_, right))) = (margins, accuracy) {
        let ahead = format!("the better of two held-out answers is ahead in {:.0} % of pairs", 100.0 * right);
        all.push(if to > from {
            verdict(Tone::Good, format!("The margin grew from {from:.2} to {to:.2}: {ahead}."))
        } else {
            let text = format!("The margin did not grow ({from:.2} to {to:.2}): {ahead}.");
            verdict(Tone::Warning, text + " A higher learning rate or a smaller `beta` may help.")
        });
    }
    if let (Some(chosen), Some(rejected)) = (change(run, "eval_logps/chosen"), change(run, "eval_logps/rejected")) {
        let (chosen, rejected) = (chosen.1 - chosen.0, rejected.1 - rejected.0);
        let moved = format!("by {:.1} and {:.1} nats", chosen.abs(), rejected.abs());
        // A nat is a factor of e in how likely an answer is.
        all.push(if chosen < -1.0 && rejected < 0.0 {
            let text = format!("Both log-probabilities fell, {moved}: it unlearns the better answers too.");
            verdict(Tone::Warning, text + " Add an SFT term (`sft_weight`), lower the rate or raise `beta`.")
        } else if chosen < 0.0 {
            verdict(
                Tone::Plain,
                format!("Chosen answers became a little less likely, rejected ones much less: {moved}."),
            )
        } else if rejected > 0.0 {
            verdict(Tone::Plain, format!("Chosen and rejected answers both became more likely, {moved}."))
        } else {
            verdict(Tone::Good, format!("Chosen answers became more likely and rejected ones less, {moved}."))
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use cavy_train::metrics::{EvalRecord, Metrics};

    fn run(verb: &str, keys: [&str; 4], values: [[f64; 4]; 2]) -> RunData {
        let record = |(index, values): (usize, [f64; 4])| EvalRecord {
            step: index,
            epoch: index as f64,
            tokens: 0,
            train_loss: 0.6,
            val_loss: 0.6,
            val_perplexity: f64::NAN,
            val_bits_per_byte: None,
            metrics: keys.iter().map(|key| (*key).to_owned()).zip(values).collect::<Metrics>(),
        };
        let evals = values.into_iter().enumerate().map(record).collect();
        RunData { verb: verb.to_owned(), evals, ..RunData::default() }
    }

    const DPO: [&str; 4] =
        ["eval_rewards/margins", "eval_rewards/accuracies", "eval_logps/chosen", "eval_logps/rejected"];

    #[test]
    fn falling_log_probabilities_are_told_with_the_way_out() {
        let words = verdicts(&run("dpo", DPO, [[-1e-9, 0.5, -20.0, -30.0], [1.5, 0.92, -25.0, -55.0]]));
        assert!(words[0].text.contains("from 0.00 to 1.50") && words[0].text.contains("92 %"), "{words:?}");
        assert!(words[1].tone == Tone::Warning && words[1].text.contains("`sft_weight`"), "{words:?}");
        let words = verdicts(&run("dpo", DPO, [[0.0, 0.5, -20.0, -30.0], [-0.1, 0.4, -18.0, -35.0]]));
        assert!(words[0].tone == Tone::Warning && words[0].text.contains("did not grow"), "{words:?}");
        assert!(words[1].tone == Tone::Good && words[1].text.contains("by 2.0 and 5.0 nats"), "{words:?}");
    }

    #[test]
    fn charts_are_those_that_a_run_has_values_for() {
        let titles = |run: &RunData| charts(run).into_iter().map(|chart| chart.title).collect::<Vec<_>>();
        let dpo = run("dpo", DPO, [[0.0; 4], [1.0; 4]]);
        assert_eq!(titles(&dpo), ["Margin of rewards", "Better answer ahead", "Log-probability of answers, held out"]);
        let reward = run("reward", ["eval_margin", "eval_accuracy", "a", "b"], [[0.0; 4], [1.0; 4]]);
        assert_eq!(titles(&reward), ["Margin of scores", "Better answer scored higher"]);
        assert!(charts(&RunData { verb: "sft".to_owned(), ..dpo }).is_empty());
        assert!(verdicts(&RunData::default()).is_empty());
    }
}
