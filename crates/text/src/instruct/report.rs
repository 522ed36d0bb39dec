//! What loading found, in numbers.

use super::encode::Outcome;
use super::{BadItems, Example, Format};
use crate::{Place, TextError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One source of a [`LoadReport`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceReport {
    /// Its path or name.
    pub path: String,
    /// How often its items come in one pass.
    pub weight: f64,
    /// Its format.
    pub format: Format,
    /// Its items.
    pub items: usize,
    /// Those that became examples.
    pub kept: usize,
}

/// Lengths in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// Half of them are at most this long.
    pub median: usize,
    /// 95 of 100 are at most this long.
    pub p95: usize,
    /// The longest.
    pub max: usize,
}

impl Lengths {
    /// Of these numbers; zeros if there are none.
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut lengths: Vec<usize> = lengths.into_iter().collect();
        lengths.sort_unstable();
        let at = |share: f64| {
            let rank = (share * lengths.len() as f64).ceil() as usize;
            lengths.get(rank.max(1) - 1).copied().unwrap_or(0)
        };
        Self { min: at(0.0), median: at(0.5), p95: at(0.95), max: at(1.0) }
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, p95, max } = self;
        write!(f, "{min} to {max}, median {median}, 95 % at most {p95}")
    }
}

/// What [`load`](super::load) found, cut and dropped. Displays in a few lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// The sources in order.
    pub sources: Vec<SourceReport>,
    /// Items of all of them.
    pub items: usize,
    /// Items that became examples.
    pub kept: usize,
    /// Examples that were cut to `max_length`, among those kept.
    pub cut: usize,
    /// Items left out, by reason.
    pub dropped: BTreeMap<&'static str, usize>,
    /// Where the first of each reason stands.
    pub first_dropped: BTreeMap<&'static str, String>,
    /// Examples whose prompt and answer were encoded apart, because tokens would merge across their border.
    pub encoded_apart: usize,
    /// Tokens of the examples.
    pub tokens: usize,
    /// Tokens that carry loss.
    pub trained_tokens: usize,
    /// Lengths of the examples.
    pub lengths: Lengths,
    /// Lengths of their prompts.
    pub prompt_lengths: Lengths,
}

impl LoadReport {
    /// The share of tokens that carry loss, from 0 to 1.
    pub fn trained_share(&self) -> f64 {
        self.trained_tokens as f64 / self.tokens.max(1) as f64
    }

    /// Why items were left out, in a line.
    pub(super) fn reasons(&self) -> String {
        if self.dropped.is_empty() {
            return "nothing was dropped".to_owned();
        }
        let reasons: Vec<String> = self.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.join(", ")
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for source in &self.sources {
            let weight = if source.weight == 1.0 { String::new() } else { format!(", weight {}", source.weight) };
            writeln!(f, "{}: {}, {} items{weight}", source.path, source.format.name(), source.items)?;
        }
        let dropped = self.items - self.kept;
        writeln!(f, "{} examples ({} cut, {dropped} dropped)", self.kept, self.cut)?;
        for (reason, count) in &self.dropped {
            let first = self.first_dropped.get(reason).map(String::as_str).unwrap_or_default();
            writeln!(f, "  dropped: {count} {reason}, first {first}")?;
        }
        if self.encoded_apart > 0 {
            writeln!(f, "  {} with prompt and answer encoded apart", self.encoded_apart)?;
        }
        writeln!(f, "lengths: {} tokens (prompts {})", self.lengths, self.prompt_lengths)?;
        let share = 100.0 * self.trained_share();
        write!(f, "loss on {} of {} tokens ({share:.1} %)", self.trained_tokens, self.tokens)
    }
}

/// What is counted while loading.
#[derive(Default)]
pub(super) struct Counts {
    cut: usize,
    apart: usize,
    dropped: BTreeMap<&'static str, usize>,
    first: BTreeMap<&'static str, String>,
}

impl Counts {
    pub(super) fn take(&mut self, outcome: Outcome, source: usize, place: &Place, examples: &mut Vec<Example>) {
        match outcome {
            Outcome::Kept { example, cut_from, apart } => {
                self.cut += usize::from(cut_from.is_some());
                self.apart += usize::from(apart);
                examples.push(Example { source, ..example });
            }
            Outcome::Overlong(_) => self.drop("longer than `max_length`", place),
        }
    }

    /// Counts an item that cannot be used, if that is what was asked for; any other error is passed on.
    pub(super) fn refuse(&mut self, error: TextError, bad_items: BadItems) -> Result<(), TextError> {
        match error {
            TextError::Item { place, problem } if bad_items == BadItems::Drop => {
                self.drop(problem.reason(), &place);
                Ok(())
            }
            error => Err(error),
        }
    }

    fn drop(&mut self, reason: &'static str, place: &Place) {
        *self.dropped.entry(reason).or_default() += 1;
        self.first.entry(reason).or_insert_with(|| place.to_string());
    }

    pub(super) fn report(self, sources: Vec<SourceReport>, examples: &[Example]) -> LoadReport {
        LoadReport {
            items: sources.iter().map(|source| source.items).sum(),
            kept: examples.len(),
            sources,
            cut: self.cut,
            dropped: self.dropped,
            first_dropped: self.first,
            encoded_apart: self.apart,
            tokens: examples.iter().map(|example| example.ids.len()).sum(),
            trained_tokens: examples.iter().map(Example::n_trained).sum(),
            lengths: Lengths::of(examples.iter().map(|example| example.ids.len())),
            prompt_lengths: Lengths::of(examples.iter().map(|example| example.prompt_len)),
        }
    }
}
