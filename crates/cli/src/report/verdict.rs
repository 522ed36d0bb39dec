//! What a run's numbers say, in words.

use super::load::RunData;
use super::preference;
use crate::text::{count, duration};

/// How much a verdict asks of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Worth knowing.
    Plain,
    /// Worth acting on.
    Warning,
}

/// A sentence about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What it asks for.
    pub(crate) tone: Tone,
    /// The sentence.
    pub(crate) text: String,
}

/// A sentence in a tone.
pub(super) fn verdict(tone: Tone, text: impl Into<String>) -> Verdict {
    Verdict { tone, text: text.into() }
}

/// All verdicts of a run, the most important first.
pub(crate) fn verdicts(run: &RunData) -> Vec<Verdict> {
    let mut all = vec![learned(run)];
    all.extend(preference::verdicts(run));
    all.extend(generalizes(run));
    all.extend(clipping(run));
    all.extend(skipped(run));
    all.extend(speed(run));
    all
}

/// Whether validation loss fell, and where it was lowest.
fn learned(run: &RunData) -> Verdict {
    let (Some(first), Some(last), Some(best)) = (run.evals.first(), run.evals.last(), run.best()) else {
        return verdict(Tone::Plain, "There is no evaluation yet.");
    };
    if run.evals.len() == 1 {
        return verdict(Tone::Plain, format!("Validation loss is {:.2} at the only evaluation.", first.val_loss));
    }
    if best.step == first.step {
        let text = format!("Validation loss never fell below the {:.2} it began with.", first.val_loss);
        return verdict(Tone::Warning, text + " A lower learning rate or more text may help.");
    }
    let fell = format!("Validation loss fell from {:.2} to {:.2}", first.val_loss, best.val_loss);
    if best.step == last.step {
        return verdict(Tone::Good, format!("{fell} and was lowest at the end: more steps may lower it further."));
    }
    let rise = last.val_loss - best.val_loss;
    if rise < 0.02 * best.val_loss {
        return verdict(Tone::Good, format!("{fell} at step {} and stayed there.", best.step));
    }
    let text =
        format!("{fell} at step {}, then rose to {:.2}: the best checkpoint is that one.", best.step, last.val_loss);
    verdict(Tone::Warning, text)
}

/// Whether training text is known better than text never seen.
fn generalizes(run: &RunData) -> Option<Verdict> {
    let last = run.evals.last().filter(|last| last.train_loss.is_finite() && last.val_loss.is_finite())?;
    let (train, gap) = (last.train_loss, last.val_loss - last.train_loss);
    let share = gap / last.val_loss.max(1e-9);
    Some(if share > 0.4 {
        let text = format!(
            "Training loss is {train:.2}, far below validation's {:.2}: the model memorizes its text.",
            last.val_loss
        );
        verdict(Tone::Warning, text + " More text, dropout or fewer epochs would help.")
    } else if share > 0.1 {
        let text =
            format!("Training loss is {train:.2}, {gap:.2} below validation: it begins to know its text by heart.");
        verdict(Tone::Plain, text)
    } else {
        let text = format!("Training loss is {train:.2}, close to validation: what was learned holds for unseen text.");
        verdict(Tone::Good, text)
    })
}

/// How often gradients were scaled down.
fn clipping(run: &RunData) -> Option<Verdict> {
    let share = run.train.last()?.clipped_share;
    let off = run.settings.get("max_norm").and_then(toml::Value::as_float) == Some(0.0);
    let percent = 100.0 * share;
    Some(match share {
        _ if off => verdict(Tone::Plain, "Gradients were not clipped."),
        0.0 => verdict(Tone::Good, "No step needed clipping."),
        share if share > 0.5 => {
            let text = format!(
                "{percent:.0} % of steps were clipped: the limit, more than the learning rate, set their size."
            );
            verdict(Tone::Plain, text)
        }
        _ => verdict(Tone::Good, format!("{} % of steps were clipped.", percent_text(percent))),
    })
}

fn percent_text(percent: f64) -> String {
    if percent < 0.95 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

/// Steps lost to numbers that are not finite.
fn skipped(run: &RunData) -> Option<Verdict> {
    Some(match run.train.last()?.skipped_steps {
        0 => verdict(Tone::Good, "No step was skipped: every loss and gradient was finite."),
        1 => verdict(Tone::Warning, "1 step was skipped because its loss or gradient was not finite."),
        n => {
            let text = format!("{n} steps were skipped because their loss or gradient was not finite.");
            verdict(Tone::Warning, text + " A lower peak rate or a longer warmup would help.")
        }
    })
}

/// How fast it went.
fn speed(run: &RunData) -> Option<Verdict> {
    let (speed, mfu) = (run.median(|record| record.tokens_per_s), run.median(|record| record.mfu));
    if !speed.is_finite() {
        return None;
    }
    let share = if mfu.is_finite() && mfu > 0.0 {
        format!(", {:.0} % of what this machine's matrix products allow", 100.0 * mfu)
    } else {
        String::new()
    };
    let text = format!("{} tokens a second{share}; {} of training steps.", count(speed), duration(run.seconds()));
    Some(verdict(Tone::Plain, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cavy_train::metrics::EvalRecord;

    fn run(losses: &[(f64, f64)]) -> RunData {
        let record = |(index, &(train_loss, val_loss)): (usize, &(f64, f64))| EvalRecord {
            step: 10 * index,
            epoch: index as f64,
            tokens: 0,
            train_loss,
            val_loss,
            val_perplexity: val_loss.exp(),
            val_bits_per_byte: None,
            metrics: cavy_train::metrics::Metrics::new(),
        };
        RunData { evals: losses.iter().enumerate().map(record).collect(), ..RunData::default() }
    }

    #[test]
    fn a_run_that_memorizes_is_told_so_with_the_step_to_go_back_to() {
        let words = verdicts(&run(&[(10.9, 10.8), (5.0, 6.2), (1.3, 6.6)]));
        assert!(words[0].text.contains("fell from 10.80 to 6.20 at step 10, then rose to 6.60"), "{words:?}");
        assert!(words[1].text.contains("memorizes") && words[1].tone == Tone::Warning, "{words:?}");
    }

    #[test]
    fn a_run_that_still_learns_is_told_to_go_on() {
        let words = verdicts(&run(&[(4.0, 4.1), (2.0, 2.05)]));
        assert!(words[0].text.contains("lowest at the end") && words[0].tone == Tone::Good);
        assert!(words[1].text.contains("holds for unseen text"));
    }

    #[test]
    fn a_run_without_records_has_a_verdict_and_no_panic() {
        assert_eq!(verdicts(&RunData::default()).len(), 1);
        let nan = verdicts(&run(&[(f64::NAN, f64::NAN), (f64::NAN, f64::NAN)]));
        assert_eq!(nan[0].text, "There is no evaluation yet.");
    }
}
