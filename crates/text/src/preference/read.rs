//! From rows to items with two answers, or with one that was liked or not.

use crate::instruct::item::{Item, field_of, filled_text, messages, optional_text};
use crate::instruct::{FormatSettings, ItemProblem, PromptTemplate};
use crate::rows::{Fields, Row, field_names, type_name};
use crate::{Message, TextError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The shape of a row with answers to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairFormat {
    /// Decided by the first row.
    #[default]
    Auto,
    /// `instruction`, `input`, `chosen`, `rejected`.
    Alpaca,
    /// `prompt`, `chosen`, `rejected`, all texts.
    Prompt,
    /// `chosen` and `rejected` as lists of messages; `prompt` too, or they begin with the same ones.
    Messages,
    /// `chosen` and `rejected` as whole dialogues in one text: `\n\nHuman: ...\n\nAssistant: ...`.
    HhRlhf,
    /// `prompt`, `completion` and `label`: KTO's.
    Kto,
}

impl PairFormat {
    /// The name by which settings call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Alpaca => "alpaca",
            Self::Prompt => "prompt",
            Self::Messages => "messages",
            Self::HhRlhf => "hh-rlhf",
            Self::Kto => "kto",
        }
    }
}

/// An item with either answer.
pub(super) struct Answers {
    pub(super) chosen: Item,
    pub(super) rejected: Item,
    pub(super) margin: Option<f32>,
}

/// The shape of a source of pairs.
pub(super) fn decide(
    asked: PairFormat,
    format: &FormatSettings,
    rows: &[Row],
    path: &str,
) -> Result<PairFormat, TextError> {
    let Some(row) = rows.first().filter(|_| asked == PairFormat::Auto) else { return Ok(asked) };
    let has = |field: &str| row.fields.contains_key(format.column(field));
    let unknown = || TextError::UnknownPairs { path: path.into(), found: field_names(&row.fields) };
    if !has("chosen") || !has("rejected") {
        return Err(unknown());
    }
    let is_list = row.fields.get(format.column("chosen")).is_some_and(Value::is_array);
    Ok(match (has("instruction"), has("prompt")) {
        _ if is_list => PairFormat::Messages,
        (true, _) => PairFormat::Alpaca,
        (_, true) => PairFormat::Prompt,
        _ => PairFormat::HhRlhf,
    })
}

/// The shape of a source of answers with labels; pairs are among them.
pub(super) fn decide_labelled(
    asked: PairFormat,
    format: &FormatSettings,
    rows: &[Row],
    path: &str,
) -> Result<PairFormat, TextError> {
    let has = |field: &str| rows.first().is_some_and(|row| row.fields.contains_key(format.column(field)));
    if asked == PairFormat::Auto && has("completion") && has("label") {
        return Ok(PairFormat::Kto);
    }
    decide(asked, format, rows, path)
}

/// The two answers of a row.
pub(super) fn pair(shape: PairFormat, fields: &Fields, format: &FormatSettings) -> Result<Answers, ItemProblem> {
    let [chosen, rejected] = match shape {
        PairFormat::Messages => conversations(fields, format)?,
        PairFormat::HhRlhf => dialogues(fields, format)?,
        PairFormat::Alpaca => {
            let item = |answer| -> Result<Item, ItemProblem> {
                Ok(Item::Instruction {
                    system: optional_text(fields, format, "system")?.map(str::to_owned).filter(|text| !text.is_empty()),
                    instruction: filled_text(fields, format, "instruction")?.to_owned(),
                    input: optional_text(fields, format, "input")?.unwrap_or_default().to_owned(),
                    output: filled_text(fields, format, answer)?.to_owned(),
                })
            };
            [item("chosen")?, item("rejected")?]
        }
        PairFormat::Prompt | PairFormat::Kto | PairFormat::Auto => {
            let prompt = filled_text(fields, format, "prompt")?;
            let item = |answer| -> Result<Item, ItemProblem> {
                let completion = filled_text(fields, format, answer)?.to_owned();
                Ok(Item::Completion { prompt: prompt.to_owned(), completion })
            };
            [item("chosen")?, item("rejected")?]
        }
    };
    let margin = match fields.get(format.column("margin")) {
        None | Some(Value::Null) => None,
        Some(margin) => Some(margin.as_f64().ok_or_else(|| ItemProblem::Type {
            field: format.column("margin").to_owned(),
            found: type_name(margin).to_owned(),
            expected: "a number",
        })? as f32),
    };
    Ok(Answers { chosen, rejected, margin })
}

/// Answers of a row and whether they were liked.
pub(super) fn labelled(
    shape: PairFormat,
    fields: &Fields,
    format: &FormatSettings,
) -> Result<Vec<(Item, bool)>, ItemProblem> {
    if shape != PairFormat::Kto {
        let Answers { chosen, rejected, .. } = pair(shape, fields, format)?;
        return Ok(vec![(chosen, true), (rejected, false)]);
    }
    let column = format.column("label");
    let label = match field_of(fields, format, "label")? {
        Value::Bool(label) => *label,
        Value::Number(number) if number.as_u64() == Some(0) => false,
        Value::Number(number) if number.as_u64() == Some(1) => true,
        Value::String(text) if text.eq_ignore_ascii_case("true") => true,
        Value::String(text) if text.eq_ignore_ascii_case("false") => false,
        other => {
            let (field, found) = (column.to_owned(), other.to_string());
            return Err(ItemProblem::Type { field, found, expected: "true or false" });
        }
    };
    let item = match (field_of(fields, format, "prompt")?, field_of(fields, format, "completion")?) {
        (prompt @ Value::Array(_), completion @ Value::Array(_)) => {
            let prompt = messages(prompt, "prompt", format)?;
            joined(&prompt, messages(completion, "completion", format)?)
        }
        _ => Item::Completion {
            prompt: filled_text(fields, format, "prompt")?.to_owned(),
            completion: filled_text(fields, format, "completion")?.to_owned(),
        },
    };
    Ok(vec![(item, label)])
}

/// A conversation in which what follows `prompt` is learnt from.
fn joined(prompt: &[(Message, bool)], answer: Vec<(Message, bool)>) -> Item {
    let first = prompt.len();
    let messages: Vec<Message> = prompt.iter().cloned().chain(answer).map(|(message, _)| message).collect();
    let learnt = vec![true; messages.len()];
    Item::Chat { messages, learnt, first, tools: None }
}

fn conversations(fields: &Fields, format: &FormatSettings) -> Result<[Item; 2], ItemProblem> {
    let read = |field: &str| messages(field_of(fields, format, field)?, field, format);
    let (chosen, rejected) = (read("chosen")?, read("rejected")?);
    if let Some(prompt @ Value::Array(_)) = fields.get(format.column("prompt")) {
        let prompt = messages(prompt, "prompt", format)?;
        return Ok([joined(&prompt, chosen), joined(&prompt, rejected)]);
    }
    // The prompt is what both conversations begin with; they have at least an answer each.
    let most = chosen.len().min(rejected.len()) - 1;
    let same = chosen.iter().zip(&rejected).take(most).take_while(|(one, other)| one.0 == other.0).count();
    if same == 0 {
        return Err(ItemProblem::DifferentPrompts);
    }
    Ok([joined(&chosen[..same], chosen[same..].to_vec()), joined(&chosen[..same], rejected[same..].to_vec())])
}

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// Two dialogues that are the same up to the last answer, or up to where they part.
///
/// Source: <https://huggingface.co/datasets/Anthropic/hh-rlhf>.
fn dialogues(fields: &Fields, format: &FormatSettings) -> Result<[Item; 2], ItemProblem> {
    let (chosen, rejected) = (filled_text(fields, format, "chosen")?, filled_text(fields, format, "rejected")?);
    let same = chosen.bytes().zip(rejected.bytes()).take_while(|(one, other)| one == other).count();
    let same = (0..=same).rev().find(|&at| chosen.is_char_boundary(at)).unwrap_or(0);
    let not_a_dialogue = |text: &str| ItemProblem::NotADialogue {
        field: format.column("chosen").to_owned(),
        found: format!("{:?}", text.chars().take(40).collect::<String>()),
    };
    let Some(start) = chosen[..same].rfind(ASSISTANT).filter(|_| chosen.starts_with(HUMAN)) else {
        return Err(not_a_dialogue(chosen));
    };
    let (prompt, first) = (&chosen[..start + ASSISTANT.len()], &chosen[start + ASSISTANT.len()..]);
    let second = &rejected[prompt.len()..];
    for (answer, field) in [(first, "chosen"), (second, "rejected")] {
        if answer.trim().is_empty() {
            return Err(ItemProblem::Empty { field: format!("the last answer of {}", format.column(field)) });
        }
    }
    let item = |answer: &str| {
        if format.prompt_template == PromptTemplate::Chat {
            joined(&turns(prompt), turns(&format!("{ASSISTANT}{answer}")))
        } else {
            Item::Completion { prompt: prompt.to_owned(), completion: answer.to_owned() }
        }
    };
    Ok([item(first), item(second)])
}

/// The turns of a dialogue that say something, as messages.
fn turns(text: &str) -> Vec<(Message, bool)> {
    let mut turns = Vec::new();
    let mut rest = text;
    while let Some((role, after)) = [("user", HUMAN), ("assistant", ASSISTANT)]
        .into_iter()
        .find_map(|(role, marker)| rest.strip_prefix(marker).map(|after| (role, after)))
    {
        let end = [HUMAN, ASSISTANT].iter().filter_map(|marker| after.find(marker)).min().unwrap_or(after.len());
        let said = after[..end].trim();
        if !said.is_empty() {
            turns.push((Message::new(role, said), true));
        }
        rest = &after[end..];
    }
    turns
}
