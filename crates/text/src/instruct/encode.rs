//! From an item to token ids and the tokens that carry loss.

use super::item::{Item, ItemProblem, optional_text, text_of};
use super::template::Template;
use super::{Example, Format, FormatSettings, Overlong, PromptTemplate, TrainOn};
use crate::rows::{Fields, Row};
use crate::{ChatTemplate, SpecialTokens, TextError, Tokenizer};
use std::ops::Range;

/// An item as text, before it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    /// All of it.
    pub(super) text: String,
    /// The bytes that carry loss, in order and apart.
    pub(super) trained: Vec<Range<usize>>,
    /// Bytes of the prompt.
    pub(super) prompt: usize,
    /// The last answer.
    pub(super) reference: String,
}

/// The tokens of a draft.
struct Tokens {
    ids: Vec<u32>,
    /// Those that carry loss.
    ranges: Vec<Range<usize>>,
    prompt_len: usize,
    /// Whether the parts were encoded one by one.
    apart: bool,
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An example of at most `max_length` tokens; how many it had before it was cut, if it was; whether prompt and
    /// answers were encoded apart.
    Kept { example: Example, cut_from: Option<usize>, apart: bool },
    /// Left out for having this many tokens.
    Overlong(usize),
}

/// Turns items into examples.
pub(crate) struct Encoder<'a> {
    pub(super) settings: &'a FormatSettings,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) special: &'a SpecialTokens,
    pub(super) chat_template: Option<&'a ChatTemplate>,
    pub(super) bos_text: Option<String>,
    pub(super) eos_text: Option<String>,
    template: Option<Template>,
}

impl<'a> Encoder<'a> {
    /// Fails if settings ask for what the tokenizer or the model does not have.
    pub(crate) fn new(
        settings: &'a FormatSettings,
        tokenizer: &'a Tokenizer,
        special: &'a SpecialTokens,
        chat_template: Option<&'a ChatTemplate>,
    ) -> Result<Self, TextError> {
        if settings.train_eos && special.eos.is_empty() {
            let (found, expected) = ("true".to_owned(), "false, as this tokenizer has no end-of-text token".to_owned());
            return Err(TextError::Setting { name: "train_eos", found, expected });
        }
        if settings.max_length == 1 {
            let expected = "at least 2 tokens, or 0 for no bound".to_owned();
            return Err(TextError::Setting { name: "max_length", found: "1".to_owned(), expected });
        }
        let template = match &settings.prompt_template {
            PromptTemplate::Alpaca => Some(Template::alpaca()),
            PromptTemplate::Plain => Some(Template::plain()),
            PromptTemplate::Custom(text) => Some(Template::parse(text)?),
            PromptTemplate::Chat if chat_template.is_none() => return Err(TextError::NoChatTemplate),
            PromptTemplate::Auto | PromptTemplate::Chat => None,
        };
        let text_of = |id: u32| tokenizer.decode(&[id]);
        let (bos_text, eos_text) = (special.bos.map(text_of), special.eos.first().copied().map(text_of));
        Ok(Self { settings, tokenizer, special, chat_template, bos_text, eos_text, template })
    }

    /// How items are read.
    pub(crate) fn settings(&self) -> &FormatSettings {
        self.settings
    }

    /// The example of one row.
    pub(super) fn example(&self, format: Format, row: &Row) -> Result<Outcome, TextError> {
        let item = |problem| TextError::Item { place: row.place.clone(), problem };
        let draft = match (&self.settings.prompt_template, format) {
            (PromptTemplate::Custom(_), Format::Alpaca | Format::PromptCompletion) => self.draft_of_row(&row.fields),
            _ => match Item::read(format, &row.fields, self.settings) {
                Ok(read) => return self.example_of(&read, row),
                Err(problem) => Err(problem),
            },
        };
        self.encode(&draft.map_err(item)?, row)
    }

    /// The example of an item that was read from `row`.
    pub(crate) fn example_of(&self, item: &Item, row: &Row) -> Result<Outcome, TextError> {
        self.encode(&self.draft(item, row)?, row)
    }

    fn draft(&self, item: &Item, row: &Row) -> Result<Draft, TextError> {
        let problem = |problem| TextError::Item { place: row.place.clone(), problem };
        let is_chat = self.settings.prompt_template == PromptTemplate::Chat;
        match item {
            Item::Text(text) => Ok(Draft {
                text: text.clone(),
                trained: std::iter::once(0..text.len()).collect(),
                prompt: 0,
                reference: String::new(),
            }),
            Item::Instruction { .. } | Item::Completion { .. } if is_chat => self.chat_draft(&item.as_chat(), row),
            Item::Instruction { system, instruction, input, output } => {
                let field = |name: &str| {
                    Ok(match name {
                        "instruction" => Some(instruction.clone()),
                        "input" => Some(input.clone()),
                        "system" => Some(system.clone().unwrap_or_default()),
                        _ => optional_text(&row.fields, self.settings, name)?.map(str::to_owned),
                    })
                };
                let alpaca = Template::alpaca();
                let template = self.template.as_ref().unwrap_or(&alpaca);
                let (before, after) = template.fill(field).map_err(problem)?;
                Ok(self.around(before, output, &after))
            }
            Item::Completion { prompt, completion } => match &self.template {
                Some(template) if self.settings.prompt_template != PromptTemplate::Plain => {
                    let field = |name: &str| match name {
                        "instruction" | "prompt" => Ok(Some(prompt.clone())),
                        _ => scalar_text(&row.fields, self.settings, name),
                    };
                    let (before, after) = template.fill(field).map_err(problem)?;
                    Ok(self.around(before, completion, &after))
                }
                _ => Ok(self.around(prompt.clone(), completion, "")),
            },
            Item::Chat { .. } => match self.settings.prompt_template {
                PromptTemplate::Auto | PromptTemplate::Chat => self.chat_draft(item, row),
                _ => Err(TextError::Setting {
                    name: "prompt_template",
                    found: format!("`{}`", self.settings.prompt_template.as_str()),
                    expected: format!("`chat` for the conversations of {}", row.place),
                }),
            },
        }
    }

    /// The text of a row by the user's template, which may name any column.
    fn draft_of_row(&self, fields: &Fields) -> Result<Draft, ItemProblem> {
        let Some(template) = &self.template else { unreachable!("a user's template was read") };
        let answer = ["output", "completion", "response"]
            .into_iter()
            .find(|name| fields.contains_key(self.settings.column(name)))
            .unwrap_or("output");
        let answer = super::item::filled_text(fields, self.settings, answer)?;
        let (before, after) = template.fill(|name| scalar_text(fields, self.settings, name))?;
        Ok(self.around(before, answer, &after))
    }

    /// Prompt, answer and what follows it, which is part of the answer.
    fn around(&self, mut before: String, answer: &str, after: &str) -> Draft {
        let prompt = before.len();
        before.extend([answer, after]);
        let trained = match self.settings.train_on {
            TrainOn::Response => prompt..before.len(),
            TrainOn::All => 0..before.len(),
        };
        Draft { text: before, trained: vec![trained], prompt, reference: answer.to_owned() }
    }

    /// Token ids and mask of a draft, within `max_length`.
    pub(super) fn encode(&self, draft: &Draft, row: &Row) -> Result<Outcome, TextError> {
        let item = |problem| TextError::Item { place: row.place.clone(), problem };
        let unwritable = |error: TextError| item(ItemProblem::Encode(error.to_string()));
        let Tokens { mut ids, mut ranges, mut prompt_len, apart } = self.tokens(draft).map_err(unwritable)?;
        self.settle_ends(&mut ids, &mut ranges);
        if let Some(bos) = self.special.bos.filter(|bos| self.special.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
            ranges.iter_mut().for_each(|range| *range = range.start + 1..range.end + 1);
            prompt_len += 1;
        }
        let mut trained = vec![false; ids.len()];
        for range in ranges {
            trained[range].fill(true);
        }
        if let Some(first) = trained.first_mut() {
            *first = false;
        }
        let (max_length, n_tokens) = (self.settings.max_length, ids.len());
        let is_long = max_length > 0 && n_tokens > max_length;
        if is_long && self.settings.overlong == Overlong::Drop {
            return Ok(Outcome::Overlong(n_tokens));
        }
        if is_long {
            ids.truncate(max_length);
            trained.truncate(max_length);
            // At least one token of the answer is learnt.
            if prompt_len >= max_length {
                return Err(item(ItemProblem::PromptTooLong { tokens: prompt_len, max_length }));
            }
        }
        let example = Example {
            ids,
            trained,
            prompt: draft.text[..draft.prompt].to_owned(),
            prompt_len,
            reference: draft.reference.clone(),
            place: row.place.clone(),
            source: 0,
        };
        Ok(Outcome::Kept { example, cut_from: is_long.then_some(n_tokens), apart })
    }

    /// The text in tokens. Parts are encoded apart if need be: where tokens would merge across the border of an answer, a model that has been shown the prompt
    /// could never write them.
    fn tokens(&self, draft: &Draft) -> Result<Tokens, TextError> {
        let text = draft.text.as_str();
        let borders = draft.trained.iter().flat_map(|range| [range.start, range.end]).chain([draft.prompt]);
        let mut borders: Vec<usize> = borders.chain([0, text.len()]).collect();
        borders.sort_unstable();
        borders.dedup();
        let whole = self.tokenizer.encode(text)?;
        let mut places = Vec::with_capacity(borders.len());
        for &border in &borders {
            let before = if border == text.len() { whole.clone() } else { self.tokenizer.encode(&text[..border])? };
            if !whole.starts_with(&before) {
                break;
            }
            places.push(before.len());
        }
        let apart = places.len() < borders.len();
        let ids = if apart {
            let mut ids = Vec::with_capacity(whole.len() + borders.len());
            places.clear();
            for (at, &border) in borders.iter().enumerate() {
                if at > 0 {
                    ids.extend(self.tokenizer.encode(&text[borders[at - 1]..border])?);
                }
                places.push(ids.len());
            }
            ids
        } else {
            whole
        };
        let place = |border: usize| places[borders.partition_point(|&other| other < border)];
        let ranges = draft.trained.iter().map(|range| place(range.start)..place(range.end)).collect();
        Ok(Tokens { prompt_len: place(draft.prompt), ids, ranges, apart })
    }

    /// Puts an end-of-text token after an answer that ends the text without one, and settles which ends are learnt: an
    /// answer goes up to its end-of-text token, which is learnt if `train_eos`.
    fn settle_ends(&self, ids: &mut Vec<u32>, ranges: &mut [Range<usize>]) {
        let is_end = |id: &u32| self.special.eos.contains(id);
        for range in ranges.iter_mut() {
            let answer = &ids[range.clone()];
            let after_end = answer.iter().rposition(is_end).map(|at| at + 1);
            match after_end {
                // A template's line break after the end is never written by a model.
                Some(end) if self.tokenizer.decode(&answer[end..]).trim().is_empty() => {
                    range.end = range.start + end;
                }
                _ if ids.get(range.end).is_some_and(is_end) => range.end += 1,
                _ if range.end == ids.len() && self.settings.train_eos => {
                    ids.extend(self.special.eos.first());
                    range.end = ids.len();
                }
                _ => continue,
            }
            if !self.settings.train_eos {
                range.end -= 1;
            }
        }
    }
}

/// A field as text: texts as they are, numbers and truth values written out.
fn scalar_text(fields: &Fields, settings: &FormatSettings, name: &str) -> Result<Option<String>, ItemProblem> {
    use serde_json::Value;
    let column = settings.column(name);
    match fields.get(column) {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Null) => Ok(Some(String::new())),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
        Some(value) => Err(ItemProblem::Type {
            field: column.to_owned(),
            found: crate::rows::type_name(value).to_owned(),
            expected: "a text",
        }),
        // `input` is missing where no item has one.
        None if name == "input" => Ok(Some(String::new())),
        None => Err(ItemProblem::Missing { field: column.to_owned(), found: crate::rows::field_names(fields) }),
    }
}

/// A run of tokens that all carry loss, or all do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its text; the bytes of a character that lies on a border are with its last byte.
    pub text: String,
    /// Whether its tokens carry loss.
    pub trained: bool,
    /// How many tokens it has.
    pub tokens: usize,
}

/// The text of an example in runs of tokens with and without loss, for showing it in colours.
///
/// Law: the texts together are the decoded ids.
pub fn spans(example: &Example, tokenizer: &Tokenizer) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut start = 0;
    let mut shown = 0;
    let whole = tokenizer.decode_bytes(&example.ids);
    for end in 1..=example.ids.len() {
        if end < example.ids.len() && example.trained[end] == example.trained[start] {
            continue;
        }
        let mut border = tokenizer.decode_bytes(&example.ids[..end]).len().min(whole.len());
        if end == example.ids.len() {
            border = whole.len();
        }
        // A character that is not whole yet goes to the next run.
        while border > shown && border < whole.len() && whole[border] & 0xC0 == 0x80 {
            border -= 1;
        }
        let text = String::from_utf8_lossy(&whole[shown..border.max(shown)]).into_owned();
        spans.push(Span { text, trained: example.trained[start], tokens: end - start });
        (start, shown) = (end, border.max(shown));
    }
    spans
}

impl Item {
    /// The item as a conversation of one question and one answer.
    fn as_chat(&self) -> Self {
        use crate::Message;
        let mut messages = Vec::new();
        match self {
            Self::Instruction { system, instruction, input, output } => {
                messages.extend(system.iter().map(|system| Message::new("system", system.clone())));
                let question = if input.is_empty() { instruction.clone() } else { format!("{instruction}\n{input}") };
                messages.extend([Message::new("user", question), Message::new("assistant", output.clone())]);
            }
            Self::Completion { prompt, completion } => {
                messages.extend([Message::new("user", prompt.clone()), Message::new("assistant", completion.clone())]);
            }
            other => return other.clone(),
        }
        let learnt = vec![true; messages.len()];
        Self::Chat { messages, learnt, first: 0, tools: None }
    }
}

/// The last message of a conversation as text.
pub(super) fn last_text(messages: &[crate::Message]) -> String {
    messages.last().map(|message| text_of(&message.content)).unwrap_or_default()
}
