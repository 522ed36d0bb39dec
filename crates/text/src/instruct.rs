//! Data for fine-tuning on instructions and chats: from files to token ids and a loss mask.
//!
//! [`load`] reads rows (`rows`), recognizes their format ([`Format`]), writes each as text with a
//! [`PromptTemplate`] or the model's chat template, and encodes it so that the prompt is a prefix of the ids. Which
//! tokens carry loss is decided on the text, in bytes, and carried over to tokens; [`spans`] shows it. [`split`] sets
//! parts of the data apart, [`Loaded::mix`] gives each source its weight.

mod chats;
mod encode;
pub(crate) mod item;
mod parts;
mod report;
mod settings;
mod template;

pub use encode::{Span, spans};
pub use parts::{Arrangement, Parts, Shares, mix, split};
pub use report::{Lengths, LoadReport, SourceReport};
pub use settings::{BadItems, Format, FormatSettings, Overlong, Source, TrainOn, Turns};
pub use template::PromptTemplate;

pub(crate) use encode::{Encoder, Outcome};
pub use item::ItemProblem;

use crate::{ChatTemplate, Place, SpecialTokens, TextError, Tokenizer, rows};
use rayon::prelude::*;
use report::Counts;

/// One item to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Whether token i is a target that carries loss; as long as `ids`, never true for the first token.
    pub trained: Vec<bool>,
    /// What a model is shown at generation: the text before the last answer.
    pub prompt: String,
    /// Tokens of the prompt: `ids[..prompt_len]`, a leading BOS among them. Nothing of it carries loss unless
    /// everything does or earlier turns of a chat do.
    pub prompt_len: usize,
    /// The answer that the prompt is followed by, without the end-of-text token.
    pub reference: String,
    /// Where it came from.
    pub place: Place,
    /// Which of the sources it came from, counted from 0.
    pub source: usize,
}

impl Example {
    /// The number of tokens that carry loss.
    pub fn n_trained(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }
}

/// What [`load`] made of its sources.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The examples, source by source in file order; those that were dropped are not among them.
    pub examples: Vec<Example>,
    /// What was found, cut and dropped.
    pub report: LoadReport,
}

impl Loaded {
    /// The order of one pass over the examples `part`: see [`mix`].
    pub fn mix(&self, part: &[usize], seed: u64) -> Vec<usize> {
        let weights: Vec<f64> = self.report.sources.iter().map(|source| source.weight).collect();
        mix(part, &weights, |index| self.examples[index].source, seed)
    }
}

/// Reads sources, recognizes each one's format, and encodes every item.
///
/// Law: `trained` follows from the text: a token carries loss if it is not the first and its bytes lie in an answer
/// (or in an end-of-text token that follows one).
///
/// # Errors
/// An unreadable source, a format that is not recognized, a missing field, an empty answer, an unknown role, a prompt
/// longer than `max_length`: each with its file and line. [`TextError::LossShare`] if no token carries loss, or all of
/// them do and nobody asked for it.
pub fn load(
    sources: &[Source],
    settings: &FormatSettings,
    tokenizer: &Tokenizer,
    special: &SpecialTokens,
    chat_template: Option<&ChatTemplate>,
) -> Result<Loaded, TextError> {
    let encoder = Encoder::new(settings, tokenizer, special, chat_template)?;
    let mut counts = Counts::default();
    let (mut examples, mut reports) = (Vec::new(), Vec::new());
    let mut detected_all_text = settings.format != Format::Text;
    for (number, source) in sources.iter().enumerate() {
        source.check()?;
        let rows = rows::open(&source.path)?;
        let format = item::decide_format(settings, &rows, &source.path)?;
        detected_all_text &= format == Format::Text;
        let outcomes: Vec<Result<Outcome, TextError>> =
            rows.par_iter().map(|row| encoder.example(format, row)).collect();
        let before = examples.len();
        for (row, outcome) in rows.iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => counts.take(outcome, number, &row.place, &mut examples),
                Err(error) => counts.refuse(error, settings.bad_items)?,
            }
        }
        let (items, kept) = (rows.len(), examples.len() - before);
        reports.push(SourceReport { path: source.path.clone(), weight: source.weight, format, items, kept });
    }
    let report = counts.report(reports, &examples);
    check_share(&report, settings, detected_all_text)?;
    Ok(Loaded { examples, report })
}

fn check_share(report: &LoadReport, settings: &FormatSettings, detected_text: bool) -> Result<(), TextError> {
    let targets = report.tokens - report.kept;
    if report.kept == 0 {
        return Err(TextError::NothingLeft { items: report.items, reasons: report.reasons() });
    }
    if report.trained_tokens == 0 {
        let hint = "no answer has a token that is learnt from: check `train_on`, `train_roles` and `max_length`";
        return Err(TextError::LossShare { share: "no token", tokens: report.tokens, hint });
    }
    let asked = settings.train_on == TrainOn::All || settings.format == Format::Text;
    if report.trained_tokens == targets && !asked {
        let hint = if detected_text {
            "the data is plain text, without prompts: say `train_on = \"all\"` if that is wanted"
        } else {
            "no item has a prompt before its answer: say `train_on = \"all\"` if that is wanted"
        };
        return Err(TextError::LossShare { share: "every token", tokens: report.tokens, hint });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
