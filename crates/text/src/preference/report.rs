//! What loading pairs found, in numbers.

use super::{Encoded, Labelled, PairFormat};
use crate::instruct::{BadItems, FormatSettings, ItemProblem, Lengths, Overlong};
use crate::{Place, TextError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One source of a [`PairReport`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairSource {
    /// Its path or name.
    pub path: String,
    /// How often its items come in one pass.
    pub weight: f64,
    /// Its format.
    pub format: PairFormat,
    /// Its items.
    pub items: usize,
    /// Pairs, or answers with labels, that they became.
    pub kept: usize,
}

/// What [`load`](super::load) found, cut and dropped. Displays in a few lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PairReport {
    /// The sources in order.
    pub sources: Vec<PairSource>,
    /// Items of all of them.
    pub items: usize,
    /// Pairs, or answers with labels.
    pub kept: usize,
    /// Those with an answer that was cut to `max_length`.
    pub cut: usize,
    /// Items left out, by reason.
    pub dropped: BTreeMap<&'static str, usize>,
    /// Where the first of each reason stands.
    pub first_dropped: BTreeMap<&'static str, String>,
    /// Pairs whose two answers are the same, kept or not.
    pub equal: usize,
    /// Where the first of them stands.
    pub first_equal: Option<String>,
    /// Items whose prompt and answers were encoded apart, because tokens would merge across their border.
    pub encoded_apart: usize,
    /// Tokens of prompts and answers, each prompt once.
    pub tokens: usize,
    /// Lengths of prompts.
    pub prompt_lengths: Lengths,
    /// Lengths of chosen (or liked) answers.
    pub chosen_lengths: Lengths,
    /// Lengths of rejected (or disliked) answers.
    pub rejected_lengths: Lengths,
    /// Pairs whose chosen answer has more tokens than the rejected one; for answers with labels, those that were liked.
    pub chosen_longer: usize,
}

impl PairReport {
    /// Fails if nothing is left.
    pub(super) fn check(&self) -> Result<(), TextError> {
        if self.kept > 0 {
            return Ok(());
        }
        let reasons: Vec<String> = self.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        Err(TextError::NothingLeft { items: self.items, reasons: reasons.join(", ") })
    }
}

impl fmt::Display for PairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for source in &self.sources {
            let weight = if source.weight == 1.0 { String::new() } else { format!(", weight {}", source.weight) };
            writeln!(f, "{}: {}, {} items{weight}", source.path, source.format.name(), source.items)?;
        }
        let is_labelled = self.sources.iter().any(|source| source.format == PairFormat::Kto);
        let dropped: usize = self.dropped.values().sum();
        let what = if is_labelled { "answers" } else { "pairs" };
        writeln!(f, "{} {what} ({} cut, {dropped} dropped)", self.kept, self.cut)?;
        for (reason, count) in &self.dropped {
            let first = self.first_dropped.get(reason).map(String::as_str).unwrap_or_default();
            writeln!(f, "  dropped: {count} {reason}, first {first}")?;
        }
        if let Some(first) = &self.first_equal {
            writeln!(f, "  {} with equal answers, which teach nothing, first {first}", self.equal)?;
        }
        if self.encoded_apart > 0 {
            writeln!(f, "  {} with prompt and answers encoded apart", self.encoded_apart)?;
        }
        writeln!(f, "prompts: {} tokens", self.prompt_lengths)?;
        let (better, worse) = if is_labelled { ("liked", "disliked") } else { ("chosen", "rejected") };
        writeln!(f, "{better}: {} tokens", self.chosen_lengths)?;
        writeln!(f, "{worse}: {} tokens", self.rejected_lengths)?;
        let share = 100.0 * self.chosen_longer as f64 / self.kept.max(1) as f64;
        if is_labelled {
            write!(f, "{share:.1} % liked")
        } else {
            write!(f, "the chosen answer is the longer one in {share:.1} %")
        }
    }
}

/// What is counted while loading.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) sources: Vec<PairSource>,
    cut: usize,
    apart: usize,
    equal: usize,
    first_equal: Option<String>,
    dropped: BTreeMap<&'static str, usize>,
    first: BTreeMap<&'static str, String>,
}

impl Counts {
    /// What was encoded, unless it is left out.
    pub(super) fn take<T>(
        &mut self,
        encoded: Result<Encoded<T>, TextError>,
        place: &Place,
        format: &FormatSettings,
    ) -> Result<Option<T>, TextError> {
        match encoded {
            Ok(Encoded::Kept(kept, cut, apart)) => {
                self.cut += usize::from(cut);
                self.apart += usize::from(apart);
                Ok(Some(kept))
            }
            Ok(Encoded::Overlong) => {
                debug_assert_eq!(format.overlong, Overlong::Drop, "nothing else leaves long items out");
                self.count("longer than `max_length`", place);
                Ok(None)
            }
            Err(TextError::Item { problem, .. }) if format.bad_items == BadItems::Drop => {
                self.drop(&problem, place);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn drop(&mut self, problem: &ItemProblem, place: &Place) {
        self.count(problem.reason(), place);
    }

    fn count(&mut self, reason: &'static str, place: &Place) {
        *self.dropped.entry(reason).or_default() += 1;
        self.first.entry(reason).or_insert_with(|| place.to_string());
    }

    pub(super) fn add_equal(&mut self, equal: &[Place]) {
        self.equal += equal.len();
        if self.first_equal.is_none() {
            self.first_equal = equal.first().map(ToString::to_string);
        }
    }

    /// The report on pairs with these lengths of prompt, chosen and rejected.
    pub(super) fn report(self, lengths: impl Iterator<Item = [usize; 3]> + Clone) -> PairReport {
        let kept = lengths.clone().count();
        let longer = lengths.clone().filter(|[_, chosen, rejected]| chosen > rejected).count();
        PairReport {
            tokens: lengths.clone().flatten().sum(),
            prompt_lengths: Lengths::of(lengths.clone().map(|[prompt, ..]| prompt)),
            chosen_lengths: Lengths::of(lengths.clone().map(|[_, chosen, _]| chosen)),
            rejected_lengths: Lengths::of(lengths.map(|[.., rejected]| rejected)),
            ..self.numbers(kept, longer)
        }
    }

    /// The report on answers with labels.
    pub(super) fn report_labelled(self, answers: &[Labelled]) -> PairReport {
        let of = |label: bool| answers.iter().filter(move |answer| answer.label == label);
        PairReport {
            tokens: answers.iter().map(|answer| answer.prompt.len() + answer.completion.len()).sum(),
            prompt_lengths: Lengths::of(answers.iter().map(|answer| answer.prompt.len())),
            chosen_lengths: Lengths::of(of(true).map(|answer| answer.completion.len())),
            rejected_lengths: Lengths::of(of(false).map(|answer| answer.completion.len())),
            ..self.numbers(answers.len(), of(true).count())
        }
    }

    fn numbers(self, kept: usize, chosen_longer: usize) -> PairReport {
        PairReport {
            items: self.sources.iter().map(|source| source.items).sum(),
            kept,
            sources: self.sources,
            cut: self.cut,
            dropped: self.dropped,
            first_dropped: self.first,
            equal: self.equal,
            first_equal: self.first_equal,
            encoded_apart: self.apart,
            chosen_longer,
            ..PairReport::default()
        }
    }
}
