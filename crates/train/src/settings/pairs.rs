//! How pairs of answers are read.

use super::base::named;
use super::check::demand;
use super::sft::wrong;
use crate::SettingsError;
use cavy_text::instruct::{BadItems, FormatSettings, Overlong, PromptTemplate, Source};
use cavy_text::preference::{EqualPairs, PairFormat, PairSettings};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Data with two answers to each prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct PairDataSettings {
    /// Pairs of answers: `.json`, `.jsonl`, `.csv`, `.parquet` or `builtin:preferences`; `FILE=WEIGHT` mixes
    #[arg(long, help_heading = "Data")]
    pub data: Vec<String>,
    /// The shape of rows; `auto` looks at the first
    #[arg(long, help_heading = "Data", value_parser = named::<PairFormat>(&["auto", "alpaca", "prompt", "messages", "hh-rlhf", "kto"]))]
    pub pair_format: PairFormat,
    /// Columns under other names, as `field=column`
    #[arg(long, help_heading = "Data")]
    pub columns: Vec<String>,
    /// How instructions become text: `auto`, `alpaca`, `plain`, `chat` (the model's template), or a text with `{response}`
    #[arg(long, help_heading = "Data")]
    pub prompt_template: String,
    /// Count the end of an answer as part of it
    #[arg(long, help_heading = "Data")]
    pub train_eos: bool,
    /// Tokens of a prompt with one answer, at most (0: no bound but the model's)
    #[arg(long, help_heading = "Data")]
    pub max_length: usize,
    /// What becomes of longer ones
    #[arg(long, help_heading = "Data", value_parser = named::<Overlong>(&["cut", "drop"]))]
    pub overlong: Overlong,
    /// What becomes of items that cannot be used
    #[arg(long, help_heading = "Data", value_parser = named::<BadItems>(&["error", "drop"]))]
    pub bad_items: BadItems,
    /// What becomes of pairs whose answers are the same: an error unless they are few, or as said here
    #[arg(long, help_heading = "Data", value_parser = named::<EqualPairs>(&["few", "keep", "drop", "error"]))]
    pub equal_pairs: EqualPairs,
}

impl Default for PairDataSettings {
    fn default() -> Self {
        let FormatSettings { train_eos, max_length, overlong, bad_items, .. } = FormatSettings::default();
        let PairSettings { pair_format, equal_pairs } = PairSettings::default();
        Self {
            data: Vec::new(),
            pair_format,
            columns: Vec::new(),
            prompt_template: PromptTemplate::default().as_str().to_owned(),
            train_eos,
            max_length,
            overlong,
            bad_items,
            equal_pairs,
        }
    }
}

impl PairDataSettings {
    /// The files, with their weights.
    ///
    /// Errors: a weight that cannot be one.
    pub fn sources(&self) -> Result<Vec<Source>, SettingsError> {
        let read = |text: &String| Source::parse(text).map_err(|error| wrong("data", text, &error.to_string()));
        self.data.iter().map(read).collect()
    }

    /// How items become text and tokens.
    ///
    /// Errors: a template without a place for the answer, a column that is not `field=column`.
    pub fn format_settings(&self) -> Result<FormatSettings, SettingsError> {
        let column = |text: &String| {
            let pair = text.split_once('=').map(|(field, column)| (field.to_owned(), column.to_owned()));
            pair.ok_or_else(|| wrong("columns", text, "it is not `field=column`"))
        };
        let template = &self.prompt_template;
        Ok(FormatSettings {
            columns: self.columns.iter().map(column).collect::<Result<_, _>>()?,
            prompt_template: template
                .parse()
                .map_err(|error: cavy_text::TextError| wrong("prompt_template", template, &error.to_string()))?,
            train_eos: self.train_eos,
            max_length: self.max_length,
            overlong: self.overlong,
            bad_items: self.bad_items,
            ..FormatSettings::default()
        })
    }

    /// How rows become pairs.
    pub fn pair_settings(&self) -> PairSettings {
        PairSettings { pair_format: self.pair_format, equal_pairs: self.equal_pairs }
    }

    /// Checks what does not depend on the files.
    ///
    /// Errors: the first setting that cannot be.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let hint = "give a file, or `builtin:preferences`";
        demand(!self.data.is_empty(), "data", "nothing", "at least one path", hint)?;
        self.sources()?;
        self.format_settings().map(|_| ())
    }
}
