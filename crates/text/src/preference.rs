//! Data for learning from preferences: pairs of answers, and answers that were liked or not.
//!
//! Rows are recognized as [`PairFormat`] says, written as text as [`instruct`](crate::instruct) does, and encoded so that
//! both answers follow the same token ids: the border between prompt and answer is one between tokens.

mod read;
mod report;

pub use read::PairFormat;
pub use report::{PairReport, PairSource};

use crate::instruct::{Encoder, Example, FormatSettings, ItemProblem, Outcome, Source, TrainOn, Turns};
use crate::rows::{self, Row};
use crate::{ChatTemplate, Place, SpecialTokens, TextError, Tokenizer};
use rayon::prelude::*;
use read::Answers;
use report::Counts;
use serde::{Deserialize, Serialize};

/// A prompt with an answer to prefer and one to avoid.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Tokens of the prompt, a leading BOS among them; never empty.
    pub prompt: Vec<u32>,
    /// Tokens of the better answer, its end-of-text token last (unless it was cut); never empty.
    pub chosen: Vec<u32>,
    /// Tokens of the worse answer, likewise.
    pub rejected: Vec<u32>,
    /// The prompt as text.
    pub prompt_text: String,
    /// The better answer as text, without the end-of-text token.
    pub chosen_text: String,
    /// The worse answer as text.
    pub rejected_text: String,
    /// Where it came from.
    pub place: Place,
    /// Which of the sources it came from, counted from 0.
    pub source: usize,
    /// By how much the better one is better, from a column `margin`.
    pub margin: Option<f32>,
}

impl Pair {
    /// Prompt and better answer, prompt and worse answer: for [`spans`](crate::instruct::spans).
    pub fn examples(&self) -> [Example; 2] {
        [(&self.chosen, &self.chosen_text), (&self.rejected, &self.rejected_text)].map(|(answer, text)| Example {
            ids: [&self.prompt[..], answer].concat(),
            trained: (0..self.prompt.len() + answer.len()).map(|at| at >= self.prompt.len()).collect(),
            prompt: self.prompt_text.clone(),
            prompt_len: self.prompt.len(),
            reference: text.clone(),
            place: self.place.clone(),
            source: self.source,
        })
    }
}

/// An answer that was liked or not, for KTO.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Tokens of the prompt; never empty.
    pub prompt: Vec<u32>,
    /// Tokens of the answer; never empty.
    pub completion: Vec<u32>,
    /// Whether it was liked.
    pub label: bool,
    /// The prompt as text.
    pub prompt_text: String,
    /// The answer as text.
    pub completion_text: String,
    /// Where it came from.
    pub place: Place,
    /// Which of the sources it came from, counted from 0.
    pub source: usize,
}

/// What becomes of pairs whose answers are the same: they teach nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EqualPairs {
    /// They are kept and counted if they are at most one in a hundred of a source, else loading fails at the first.
    #[default]
    Few,
    /// They are kept and counted.
    Keep,
    /// They are left out and counted.
    Drop,
    /// Loading fails at the first.
    Error,
}

/// How pairs are read, besides [`FormatSettings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairSettings {
    /// The shape of rows
    pub pair_format: PairFormat,
    /// What becomes of pairs with equal answers
    pub equal_pairs: EqualPairs,
}

/// What [`load`] made of its sources.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedPairs {
    /// The pairs, source by source in file order.
    pub pairs: Vec<Pair>,
    /// What was found, cut and dropped.
    pub report: PairReport,
}

/// What [`load_labelled`] made of its sources.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedLabelled {
    /// The answers, source by source in file order; a pair makes two.
    pub answers: Vec<Labelled>,
    /// What was found, cut and dropped.
    pub report: PairReport,
}

/// Reads pairs. `format.train_on` and `format.train_turns` have no meaning here: answers are learnt from, prompts are not.
/// An answer is cut so that it fits `max_length` with its prompt, as TRL does with `keep_start`.
///
/// Law: a pair's ids are those that [`instruct::load`](crate::instruct::load) gives an item with the same answer.
///
/// # Errors
/// As there; also a pair whose answers are the same (see [`EqualPairs`]) or follow different prompts.
pub fn load(
    sources: &[Source],
    format: &FormatSettings,
    settings: &PairSettings,
    tokenizer: &Tokenizer,
    special: &SpecialTokens,
    chat_template: Option<&ChatTemplate>,
) -> Result<LoadedPairs, TextError> {
    let format = answers_only(format);
    let encoder = Encoder::new(&format, tokenizer, special, chat_template)?;
    let (mut counts, mut pairs) = (Counts::default(), Vec::new());
    for (number, source) in sources.iter().enumerate() {
        source.check()?;
        let rows = rows::open(&source.path)?;
        let shape = read::decide(settings.pair_format, &format, &rows, &source.path)?;
        let encode = |row: &Row| encode_pair(&encoder, shape, row);
        let encoded: Vec<Result<Encoded<Pair>, TextError>> = rows.par_iter().map(encode).collect();
        let (before, mut equal) = (pairs.len(), Vec::new());
        for (row, encoded) in rows.iter().zip(encoded) {
            let Some(pair) = counts.take(encoded, &row.place, &format)? else { continue };
            if pair.chosen == pair.rejected {
                equal.push(row.place.clone());
                if settings.equal_pairs == EqualPairs::Drop {
                    counts.drop(&ItemProblem::EqualAnswers, &row.place);
                    continue;
                }
            }
            pairs.push(Pair { source: number, ..pair });
        }
        refuse_equal(&equal, rows.len(), settings.equal_pairs)?;
        counts.add_equal(&equal);
        let (items, kept) = (rows.len(), pairs.len() - before);
        counts.sources.push(PairSource {
            path: source.path.clone(),
            weight: source.weight,
            format: shape,
            items,
            kept,
        });
    }
    let report = counts.report(pairs.iter().map(|pair| [pair.prompt.len(), pair.chosen.len(), pair.rejected.len()]));
    report.check()?;
    Ok(LoadedPairs { pairs, report })
}

/// Reads answers with labels for KTO: rows with `prompt`, `completion` and `label`; pairs are taken as one answer that was
/// liked and one that was not, as TRL does.
///
/// # Errors
/// As [`load`]; also a label that is neither true nor false.
pub fn load_labelled(
    sources: &[Source],
    format: &FormatSettings,
    settings: &PairSettings,
    tokenizer: &Tokenizer,
    special: &SpecialTokens,
    chat_template: Option<&ChatTemplate>,
) -> Result<LoadedLabelled, TextError> {
    let format = answers_only(format);
    let encoder = Encoder::new(&format, tokenizer, special, chat_template)?;
    let (mut counts, mut answers) = (Counts::default(), Vec::new());
    for (number, source) in sources.iter().enumerate() {
        source.check()?;
        let rows = rows::open(&source.path)?;
        let shape = read::decide_labelled(settings.pair_format, &format, &rows, &source.path)?;
        let encode = |row: &Row| encode_labelled(&encoder, shape, row);
        let encoded: Vec<Result<Encoded<Vec<Labelled>>, TextError>> = rows.par_iter().map(encode).collect();
        let before = answers.len();
        for (row, encoded) in rows.iter().zip(encoded) {
            let Some(found) = counts.take(encoded, &row.place, &format)? else { continue };
            answers.extend(found.into_iter().map(|answer| Labelled { source: number, ..answer }));
        }
        let (items, kept) = (rows.len(), answers.len() - before);
        counts.sources.push(PairSource {
            path: source.path.clone(),
            weight: source.weight,
            format: shape,
            items,
            kept,
        });
    }
    let report = counts.report_labelled(&answers);
    report.check()?;
    Ok(LoadedLabelled { answers, report })
}

fn answers_only(format: &FormatSettings) -> FormatSettings {
    FormatSettings { train_on: TrainOn::Response, train_turns: Turns::All, ..format.clone() }
}

/// An item that was encoded.
enum Encoded<T> {
    /// It, whether an answer was cut, and whether prompt and answer were encoded apart.
    Kept(T, bool, bool),
    Overlong,
}

fn encode_pair(encoder: &Encoder, shape: PairFormat, row: &Row) -> Result<Encoded<Pair>, TextError> {
    let problem = |problem| TextError::Item { place: row.place.clone(), problem };
    let Answers { chosen, rejected, margin } = read::pair(shape, &row.fields, encoder.settings()).map_err(problem)?;
    let (chosen, rejected) = (encoder.example_of(&chosen, row)?, encoder.example_of(&rejected, row)?);
    let (
        Outcome::Kept { example: chosen, cut_from: cut, apart },
        Outcome::Kept { example: rejected, cut_from: other_cut, apart: other_apart },
    ) = (chosen, rejected)
    else {
        return Ok(Encoded::Overlong);
    };
    let (place, prompt_text) = (row.place.clone(), chosen.prompt.clone());
    let (chosen_text, rejected_text) = (chosen.reference.clone(), rejected.reference.clone());
    let (prompt, chosen) = halves(chosen).map_err(problem)?;
    let (other, rejected) = halves(rejected).map_err(problem)?;
    if prompt != other {
        return Err(problem(ItemProblem::DifferentPrompts));
    }
    let pair = Pair { prompt, chosen, rejected, prompt_text, chosen_text, rejected_text, place, source: 0, margin };
    Ok(Encoded::Kept(pair, cut.is_some() || other_cut.is_some(), apart || other_apart))
}

fn encode_labelled(encoder: &Encoder, shape: PairFormat, row: &Row) -> Result<Encoded<Vec<Labelled>>, TextError> {
    let problem = |problem| TextError::Item { place: row.place.clone(), problem };
    let items = read::labelled(shape, &row.fields, encoder.settings()).map_err(problem)?;
    let (mut answers, mut any_cut, mut any_apart) = (Vec::new(), false, false);
    for (item, label) in items {
        let Outcome::Kept { example, cut_from, apart } = encoder.example_of(&item, row)? else {
            return Ok(Encoded::Overlong);
        };
        any_cut |= cut_from.is_some();
        any_apart |= apart;
        let (place, prompt_text, completion_text) =
            (row.place.clone(), example.prompt.clone(), example.reference.clone());
        let (prompt, completion) = halves(example).map_err(problem)?;
        answers.push(Labelled { prompt, completion, label, prompt_text, completion_text, place, source: 0 });
    }
    Ok(Encoded::Kept(answers, any_cut, any_apart))
}

/// The tokens before the answer, and those of the answer: from the first that is learnt to the last.
fn halves(example: Example) -> Result<(Vec<u32>, Vec<u32>), ItemProblem> {
    if example.prompt_len == 0 {
        return Err(ItemProblem::Empty { field: "prompt".to_owned() });
    }
    let first = example.trained.iter().position(|&trained| trained);
    let last = example.trained.iter().rposition(|&trained| trained);
    let (Some(first), Some(last)) = (first, last) else {
        let (tokens, max_length) = (example.prompt_len, example.ids.len());
        return Err(ItemProblem::PromptTooLong { tokens, max_length });
    };
    let mut ids = example.ids;
    ids.truncate(last + 1);
    let answer = ids.split_off(first);
    Ok((ids, answer))
}

/// One equal pair in so many is taken for a slip.
const FEW: usize = 100;

fn refuse_equal(equal: &[Place], items: usize, settings: EqualPairs) -> Result<(), TextError> {
    let too_many = match settings {
        EqualPairs::Few => equal.len() * FEW > items,
        EqualPairs::Error => !equal.is_empty(),
        EqualPairs::Keep | EqualPairs::Drop => false,
    };
    match equal.first() {
        Some(place) if too_many => Err(TextError::Item { place: place.clone(), problem: ItemProblem::EqualAnswers }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
