//! What a row says, whatever its format: recognized, and checked field by field.

use super::{Format, FormatSettings};
use crate::rows::{Fields, Row, field_names, type_name};
use crate::{Message, TextError};
use serde_json::Value;

/// What can be wrong with one item.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum ItemProblem {
    #[error(
        "found {found}, expected the field `{field}`\nhint: name the column that holds it, e.g. `columns = {{ {field} = \"...\" }}`"
    )]
    Missing { field: String, found: String },
    #[error("`{field}` is {found}, expected {expected}")]
    Type { field: String, found: String, expected: &'static str },
    #[error(
        "`{field}` is empty\nhint: give it a text, or take the item out (instructions and pairs: `bad_items = \"drop\"`)"
    )]
    Empty { field: String },
    #[error("unknown role `{role}` of message {number}, expected one of {known}")]
    UnknownRole { role: String, number: usize, known: String },
    #[error(
        "no message is by {roles}, so there is nothing to learn from\nhint: set `train_roles`, or `train_on = \"all\"`"
    )]
    NoAnswer { roles: String },
    #[error(
        "the prompt has {tokens} tokens, which leaves no room for an answer within {max_length}\nhint: raise `max_length`, or leave such items out with `overlong = \"drop\"`"
    )]
    PromptTooLong { tokens: usize, max_length: usize },
    #[error("the chosen and the rejected answer are the same\nhint: see `equal_pairs`")]
    EqualAnswers,
    #[error(
        "chosen and rejected begin with different conversations\nhint: give them the same messages up to the last answer"
    )]
    DifferentPrompts,
    #[error(
        "`{field}` is {found}, expected turns that begin with \"\\n\\nHuman:\" and end in one of \"\\n\\nAssistant:\""
    )]
    NotADialogue { field: String, found: String },
    #[error("found {found}, expected the column `{column}`\nhint: name it, e.g. `text_column = \"message\"`")]
    MissingColumn { column: String, found: String },
    #[error("the label `{label}` is none of {known}")]
    UnknownLabel { label: String, known: String },
    #[error("{0}")]
    Chat(String),
    #[error("{0}")]
    Encode(String),
}

impl ItemProblem {
    /// In a few words, for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::MissingColumn { .. } => "missing field",
            Self::Type { .. } => "field of a wrong type",
            Self::Empty { .. } => "empty field",
            Self::UnknownRole { .. } => "unknown role",
            Self::NoAnswer { .. } => "no answer",
            Self::PromptTooLong { .. } => "prompt longer than the context",
            Self::EqualAnswers => "equal answers",
            Self::DifferentPrompts => "different prompts",
            Self::NotADialogue { .. } => "not a dialogue",
            Self::UnknownLabel { .. } => "unknown label",
            Self::Chat(_) => "refused by the chat template",
            Self::Encode(_) => "not writable in the vocabulary",
        }
    }
}

/// An item, whatever its format.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// An instruction, perhaps with an input, and the answer.
    Instruction { system: Option<String>, instruction: String, input: String, output: String },
    /// A text and how it goes on.
    Completion { prompt: String, completion: String },
    /// A conversation; in one made of a prompt and a completion only messages from `first` on may carry loss.
    Chat { messages: Vec<Message>, learnt: Vec<bool>, first: usize, tools: Option<Value> },
    /// A text.
    Text(String),
}

/// The format of a source: the one asked for, or the one that its first row has.
pub(super) fn decide_format(settings: &FormatSettings, rows: &[Row], path: &str) -> Result<Format, TextError> {
    if settings.format != Format::Auto {
        return Ok(settings.format);
    }
    let Some(row) = rows.first() else { return Ok(Format::Text) };
    detect(settings, &row.fields)
        .ok_or_else(|| TextError::UnknownFormat { path: path.into(), found: field_names(&row.fields) })
}

fn detect(settings: &FormatSettings, fields: &Fields) -> Option<Format> {
    let has = |field: &str| fields.contains_key(settings.column(field));
    let turns = |field: &str| fields.get(settings.column(field)).and_then(|turns| turns.as_array()?.first());
    if has("messages") {
        Some(Format::Messages)
    } else if has("conversations") {
        // Some files keep OpenAI's messages under ShareGPT's name.
        let is_openai = turns("conversations").is_some_and(|turn| turn.get("role").is_some());
        Some(if is_openai { Format::Messages } else { Format::Sharegpt })
    } else if has("prompt") && has("completion") {
        Some(Format::PromptCompletion)
    } else if has("instruction") && has("output") {
        Some(Format::Alpaca)
    } else if has("text") {
        Some(Format::Text)
    } else {
        None
    }
}

impl Item {
    /// What `fields` say in this format.
    pub(super) fn read(format: Format, fields: &Fields, settings: &FormatSettings) -> Result<Self, ItemProblem> {
        match format {
            Format::Alpaca => Ok(Self::Instruction {
                system: optional_text(fields, settings, "system")?.map(str::to_owned).filter(|text| !text.is_empty()),
                instruction: filled_text(fields, settings, "instruction")?.to_owned(),
                input: optional_text(fields, settings, "input")?.unwrap_or_default().to_owned(),
                output: filled_text(fields, settings, "output")?.to_owned(),
            }),
            Format::PromptCompletion => prompt_completion(fields, settings),
            Format::Messages => {
                let field = if fields.contains_key(settings.column("messages")) { "messages" } else { "conversations" };
                chat(fields, settings, messages(field_of(fields, settings, field)?, field, settings)?, 0)
            }
            Format::Sharegpt => {
                let turns = field_of(fields, settings, "conversations")?;
                let mut turns = sharegpt(turns, settings)?;
                // Some files keep the system's message beside the turns.
                if let Some(system) = optional_text(fields, settings, "system")?.filter(|text| !text.is_empty())
                    && turns.first().is_none_or(|(first, _)| first.role != "system")
                {
                    turns.insert(0, (Message::new("system", system), true));
                }
                chat(fields, settings, turns, 0)
            }
            Format::Text | Format::Auto => Ok(Self::Text(filled_text(fields, settings, "text")?.to_owned())),
        }
    }
}

fn prompt_completion(fields: &Fields, settings: &FormatSettings) -> Result<Item, ItemProblem> {
    let (prompt, completion) = (field_of(fields, settings, "prompt")?, field_of(fields, settings, "completion")?);
    match (prompt, completion) {
        (Value::Array(_), Value::Array(_)) => {
            let mut turns = messages(prompt, "prompt", settings)?;
            let first = turns.len();
            turns.extend(messages(completion, "completion", settings)?);
            chat(fields, settings, turns, first)
        }
        (Value::Array(_), other) => Err(wrong_type("completion", other, "a list of messages, as `prompt` is")),
        _ => Ok(Item::Completion {
            prompt: text_of_field(fields, settings, "prompt")?.to_owned(),
            completion: filled_text(fields, settings, "completion")?.to_owned(),
        }),
    }
}

/// A conversation that has something to learn from.
fn chat(
    fields: &Fields,
    settings: &FormatSettings,
    turns: Vec<(Message, bool)>,
    first: usize,
) -> Result<Item, ItemProblem> {
    let tools = fields.get(settings.column("tools")).filter(|tools| !tools.is_null());
    // Parquet files hold tools as JSON in a text.
    let tools = match tools {
        Some(Value::String(text)) => Some(serde_json::from_str(text).map_err(|error| ItemProblem::Type {
            field: "tools".to_owned(),
            found: format!("not valid JSON ({error})"),
            expected: "a list of tools",
        })?),
        other => other.cloned(),
    };
    let (messages, learnt) = turns.into_iter().unzip();
    Ok(Item::Chat { messages, learnt, first, tools })
}

/// The roles that messages may have, besides those that are trained.
const ROLES: [&str; 7] = ["system", "developer", "user", "assistant", "tool", "function", "ipython"];

/// Messages in OpenAI's form, and whether each may be learnt from: fields `train` (true, false) and `weight` (0, 1) say no.
pub(crate) fn messages(
    value: &Value,
    field: &str,
    settings: &FormatSettings,
) -> Result<Vec<(Message, bool)>, ItemProblem> {
    let turns = list_of_turns(value, field)?;
    let mut read = Vec::with_capacity(turns.len());
    for (number, turn) in turns.iter().enumerate() {
        let mut message: Message = serde_json::from_value(turn.clone()).map_err(|_| ItemProblem::Type {
            field: format!("{field}[{number}]"),
            found: turn.as_object().map_or_else(|| type_name(turn).to_owned(), field_names),
            expected: "a message with `role` and `content`",
        })?;
        let known = ROLES.iter().any(|known| *known == message.role);
        if !known && !settings.train_roles.contains(&message.role) {
            return Err(unknown_role(&message.role, number, &ROLES));
        }
        let learnt = message.more.remove("train").is_none_or(|train| train != false);
        let weight = message.more.remove("weight");
        let learnt = learnt && weight.is_none_or(|weight| weight.as_f64() != Some(0.0));
        let says_nothing = text_of(&message.content).is_empty();
        if says_nothing && settings.train_roles.contains(&message.role) && !message.more.contains_key("tool_calls") {
            return Err(ItemProblem::Empty { field: format!("{field}[{number}].content") });
        }
        read.push((message, learnt));
    }
    Ok(read)
}

/// What ShareGPT calls the roles.
const SHAREGPT_ROLES: [(&str, &str); 13] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("model", "assistant"),
    ("system", "system"),
    ("tool", "tool"),
    ("function", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
];

fn sharegpt(value: &Value, settings: &FormatSettings) -> Result<Vec<(Message, bool)>, ItemProblem> {
    let turns = list_of_turns(value, "conversations")?;
    let mut read = Vec::with_capacity(turns.len());
    for (number, turn) in turns.iter().enumerate() {
        let (Some(from), Some(said)) = (turn["from"].as_str(), turn["value"].as_str()) else {
            return Err(ItemProblem::Type {
                field: format!("conversations[{number}]"),
                found: turn.as_object().map_or_else(|| type_name(turn).to_owned(), field_names),
                expected: "a turn with texts `from` and `value`",
            });
        };
        let Some((_, role)) = SHAREGPT_ROLES.iter().find(|(name, _)| *name == from) else {
            return Err(unknown_role(from, number, &SHAREGPT_ROLES.map(|(name, _)| name)));
        };
        if said.is_empty() && settings.train_roles.iter().any(|trained| trained == role) {
            return Err(ItemProblem::Empty { field: format!("conversations[{number}].value") });
        }
        read.push((Message::new(*role, said), turn["train"] != false && turn["weight"].as_f64() != Some(0.0)));
    }
    Ok(read)
}

fn list_of_turns<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>, ItemProblem> {
    let turns = value.as_array().ok_or_else(|| wrong_type(field, value, "a list of messages"))?;
    if turns.is_empty() { Err(ItemProblem::Empty { field: field.to_owned() }) } else { Ok(turns) }
}

fn unknown_role(role: &str, number: usize, known: &[&str]) -> ItemProblem {
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    ItemProblem::UnknownRole { role: role.to_owned(), number, known: known.join(", ") }
}

fn wrong_type(field: &str, value: &Value, expected: &'static str) -> ItemProblem {
    ItemProblem::Type { field: field.to_owned(), found: type_name(value).to_owned(), expected }
}

/// The text of a message's content: itself, or its parts of type `text` one after the other.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// The value of `field`, which must be there.
pub(crate) fn field_of<'a>(
    fields: &'a Fields,
    settings: &FormatSettings,
    field: &str,
) -> Result<&'a Value, ItemProblem> {
    let column = settings.column(field);
    match fields.get(column) {
        Some(value) => Ok(value),
        None => Err(ItemProblem::Missing { field: column.to_owned(), found: field_names(fields) }),
    }
}

fn text_of_field<'a>(fields: &'a Fields, settings: &FormatSettings, field: &str) -> Result<&'a str, ItemProblem> {
    let value = field_of(fields, settings, field)?;
    value.as_str().ok_or_else(|| wrong_type(settings.column(field), value, "a text"))
}

/// A text that says something.
pub(crate) fn filled_text<'a>(
    fields: &'a Fields,
    settings: &FormatSettings,
    field: &str,
) -> Result<&'a str, ItemProblem> {
    let text = text_of_field(fields, settings, field)?;
    if text.trim().is_empty() {
        return Err(ItemProblem::Empty { field: settings.column(field).to_owned() });
    }
    Ok(text)
}

/// A text that may be missing or null.
pub(crate) fn optional_text<'a>(
    fields: &'a Fields,
    settings: &FormatSettings,
    field: &str,
) -> Result<Option<&'a str>, ItemProblem> {
    match fields.get(settings.column(field)) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => text_of_field(fields, settings, field).map(Some),
    }
}
