//! How files of instructions and chats are read.

use super::PromptTemplate;
use crate::{LocalTime, TextError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file or built-in data set, and how often its items come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// A `.json`, `.jsonl`, `.csv` or `.tsv` file (also packed: `.gz`), a `.parquet` file, or `builtin:instructions`.
    pub path: String,
    /// How often an item comes in one pass over the data: 2 is twice, 0.5 is every other one.
    pub weight: f64,
}

impl Source {
    /// A source whose items come once in a pass.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), weight: 1.0 }
    }

    /// Reads `path`, or `path=weight` (`chats.jsonl=0.5`).
    ///
    /// # Errors
    /// [`TextError::Setting`] if the weight is not above 0.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let source = match text.rsplit_once('=').map(|(path, weight)| (path, weight.parse())) {
            Some((path, Ok(weight))) => Self { path: path.to_owned(), weight },
            _ => Self::new(text),
        };
        source.check()?;
        Ok(source)
    }

    /// Fails unless the weight can be one.
    pub(crate) fn check(&self) -> Result<(), TextError> {
        if self.weight > 0.0 && self.weight <= 1000.0 {
            return Ok(());
        }
        let expected = format!("a number above 0 and at most 1000 for {}", self.path);
        Err(TextError::Setting { name: "weight", found: self.weight.to_string(), expected })
    }
}

/// The shape of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Decided by the columns of the first row.
    #[default]
    Auto,
    /// `instruction`, `input` (may be missing or empty), `output`; also `system`.
    Alpaca,
    /// `conversations`, a list of `from` (`human`, `gpt`, `system`, `tool`) and `value`.
    Sharegpt,
    /// `messages`, a list of `role` and `content`; also `tools`.
    Messages,
    /// `prompt` and `completion`, both texts or both lists of messages.
    PromptCompletion,
    /// `text`.
    Text,
}

impl Format {
    /// The name by which settings call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Alpaca => "alpaca",
            Self::Sharegpt => "sharegpt",
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt-completion",
            Self::Text => "text",
        }
    }
}

/// Which part of an item carries loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// The answers alone.
    #[default]
    Response,
    /// Everything.
    All,
}

/// Which answers of a chat carry loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turns {
    /// Each of them.
    #[default]
    All,
    /// The last one.
    Last,
}

/// What becomes of an item longer than `max_length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlong {
    /// Its first `max_length` tokens are kept, as TRL does; its end is not learnt.
    #[default]
    Cut,
    /// It is left out.
    Drop,
}

/// What becomes of an item that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadItems {
    /// Loading fails and names its file and line.
    #[default]
    Error,
    /// It is left out and counted.
    Drop,
}

/// How items are read and which of their tokens carry loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FormatSettings {
    /// The shape of rows
    pub format: Format,
    /// Which column of the file stands for which field: `{ instruction = "question", output = "answer" }`
    pub columns: BTreeMap<String, String>,
    /// How instructions become text: `auto`, `alpaca`, `plain`, `chat` (the model's template), or a text with `{response}`
    pub prompt_template: PromptTemplate,
    /// Which part of an item carries loss
    pub train_on: TrainOn,
    /// Roles of a chat whose messages carry loss
    pub train_roles: Vec<String>,
    /// Which messages of these roles carry loss
    pub train_turns: Turns,
    /// Whether the end of an answer is learnt
    pub train_eos: bool,
    /// Tokens of an item, at most (0: no bound)
    pub max_length: usize,
    /// What becomes of longer items
    pub overlong: Overlong,
    /// What becomes of items that cannot be used
    pub bad_items: BadItems,
    /// The time that chat templates are told, if any.
    #[serde(skip)]
    pub now: Option<LocalTime>,
}

impl Default for FormatSettings {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            columns: BTreeMap::new(),
            prompt_template: PromptTemplate::Auto,
            train_on: TrainOn::Response,
            train_roles: vec!["assistant".to_owned()],
            train_turns: Turns::All,
            train_eos: true,
            max_length: 1024,
            overlong: Overlong::Cut,
            bad_items: BadItems::Error,
            now: None,
        }
    }
}

impl FormatSettings {
    /// The name under which the file keeps `field`.
    pub fn column<'a>(&'a self, field: &'a str) -> &'a str {
        self.columns.get(field).map_or(field, String::as_str)
    }
}
