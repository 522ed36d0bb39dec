//! Chat templates: from a conversation to the text that a model was trained on.
//!
//! A template is a program in Jinja that comes with the model. It is rendered as Hugging Face's transformers renders it,
//! but within limits of time and memory, since a model's files are not to be trusted.

mod clock;
mod find;
mod generation;
mod python;

pub use clock::LocalTime;

use crate::{TextError, Tokenizer};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use std::ops::Range;

/// One message of a conversation, as OpenAI's API and transformers write it. It is written with its role and content
/// first, whatever the order in which it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// What is said: mostly a string; null beside tool calls, a list where it has parts.
    #[serde(default)]
    pub content: serde_json::Value,
    /// Anything else: `tool_calls`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub more: Map<String, serde_json::Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into().into(), more: Map::new() }
    }
}

/// What a template is rendered with.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatInput<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// Descriptions of tools, a list of JSON schemas.
    pub tools: Option<&'a serde_json::Value>,
    /// Whether the text ends with the beginning of the assistant's next message.
    pub add_generation_prompt: bool,
    /// The text of the token that begins a text.
    pub bos_token: Option<&'a str>,
    /// The text of the token that ends a turn.
    pub eos_token: Option<&'a str>,
    /// The time that `strftime_now` tells; a template sees no such function without it.
    pub now: Option<LocalTime>,
    /// Other variables, such as `enable_thinking` or `pad_token`.
    pub variables: Option<&'a Map<String, serde_json::Value>>,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text, special tokens written out.
    pub text: String,
    /// The bytes of it that the template marks as the assistant's (`{% generation %}`), in order; empty if it marks none.
    pub generated: Vec<Range<usize>>,
}

/// A chat template, ready to be rendered.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    /// The bytes of the template as it is compiled that lie in `{% generation %}` blocks.
    generation: Vec<Range<usize>>,
}

/// A longer source is no template: those of known models have up to 20 kB.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// What a rendering may cost: minijinja counts about one for an instruction and one for 64 bytes that it makes, so this
/// many bound the time to a fraction of a second and the memory to some 64 MB. A long conversation may cost more.
const FUEL: u64 = 1 << 20;
const FUEL_PER_BYTE: u64 = 4;

/// A longer text is no conversation.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// The name under which the template is kept; errors of minijinja tell it.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template, as a GGUF file's `tokenizer.chat_template` or a model's `chat_template.jinja` hold it.
    ///
    /// # Errors
    /// [`TextError::ChatTemplate`] with the line that is not Jinja.
    pub fn from_source(source: &str) -> Result<Self, TextError> {
        if source.len() > MAX_SOURCE_BYTES {
            let reason = format!("{} bytes, at most {MAX_SOURCE_BYTES} are read", source.len());
            return Err(TextError::ChatTemplate { line: 1, reason });
        }
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let mut environment = Environment::new();
        environment.set_syntax(syntax.map_err(|error| broken(&error))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        python::make_python(&mut environment);
        let (compiled, generation) = generation::without_tags(source);
        environment.add_template_owned(NAME, compiled).map_err(|error| broken(&error))?;
        Ok(Self { source: source.to_owned(), environment, generation })
    }

    /// The template as it came.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation.
    ///
    /// Law: the text is that of transformers' `apply_chat_template`.
    ///
    /// # Errors
    /// [`TextError::ChatRefused`] if the template refuses the conversation, [`TextError::ChatRender`] if it fails or
    /// takes too much time or memory.
    pub fn render(&self, input: &ChatInput) -> Result<String, TextError> {
        Ok(self.render_marked(input)?.text)
    }

    /// The text of a conversation, and which parts of it are the assistant's where the template says so.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_marked(&self, input: &ChatInput) -> Result<Rendered, TextError> {
        let variables = variables(input)?;
        let input_bytes = serde_json::to_string(&variables).map_or(0, |text| text.len() as u64);
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL.saturating_add(FUEL_PER_BYTE.saturating_mul(input_bytes))));
        if let Some(now) = input.now {
            environment.add_function("strftime_now", move |format: &str| now.format(format));
        }
        let template = environment.get_template(NAME).map_err(|error| failed(&error))?;
        let context = Value::from(minijinja::value::Serde(&variables));
        let (text, spans) = template.render_with_spans(context).map_err(|error| failed(&error))?;
        if text.len() > MAX_OUTPUT_BYTES {
            let reason = format!("it wrote {} bytes, at most {MAX_OUTPUT_BYTES} are taken", text.len());
            return Err(TextError::ChatRender { line: 1, reason });
        }
        let mut generated: Vec<Range<usize>> = Vec::new();
        let mut last_block = None;
        for span in spans {
            let (source, output) = (span.source_range(), span.output_range());
            let block = self.generation.iter().position(|block| block.start <= source.start && source.end <= block.end);
            match generated.last_mut() {
                // One block writes in several pieces.
                Some(last) if last.end == output.start && block == last_block && block.is_some() => {
                    last.end = output.end;
                }
                _ if block.is_some() => generated.push(output),
                _ => {}
            }
            last_block = block;
        }
        Ok(Rendered { text, generated })
    }
}

/// The ids of a conversation: special tokens that the template writes are special, and so is BOS, which is there if the
/// template writes it and never twice.
///
/// # Errors
/// The template's and the tokenizer's.
pub fn encode_chat(tokenizer: &Tokenizer, template: &ChatTemplate, input: &ChatInput) -> Result<Vec<u32>, TextError> {
    tokenizer.encode(&template.render(input)?)
}

/// The variables that a template sees: transformers' names.
fn variables(input: &ChatInput) -> Result<Map<String, serde_json::Value>, TextError> {
    let unwritable = |error: serde_json::Error| TextError::ChatRender { line: 1, reason: error.to_string() };
    let messages = input.messages.iter().map(|message| Ok(with_reasoning(serde_json::to_value(message)?)));
    let messages = messages.collect::<Result<Vec<_>, _>>().map_err(unwritable)?;
    let mut variables = input.variables.cloned().unwrap_or_default();
    for (name, token) in [("bos_token", input.bos_token), ("eos_token", input.eos_token)] {
        if let Some(token) = token {
            variables.insert(name.to_owned(), token.into());
        }
    }
    variables.insert("messages".to_owned(), messages.into());
    variables.insert("tools".to_owned(), input.tools.cloned().unwrap_or_default());
    variables.entry("documents").or_insert(serde_json::Value::Null);
    variables.insert("add_generation_prompt".to_owned(), input.add_generation_prompt.into());
    Ok(variables)
}

/// The message with its reasoning under every name that templates read.
///
/// Source: `_alias_reasoning_fields` in `chat_template_utils.py` of <https://github.com/huggingface/transformers>.
fn with_reasoning(message: serde_json::Value) -> serde_json::Value {
    let reasoning = ["reasoning_content", "thinking", "reasoning"].iter().map(|name| &message[name]);
    let Some(reasoning) = reasoning.into_iter().find(|reasoning| !reasoning.is_null()).cloned() else { return message };
    let serde_json::Value::Object(fields) = message else { return message };
    let mut all = Map::from_iter([("thinking".to_owned(), reasoning.clone())]);
    all.extend(fields);
    all.insert("reasoning_content".to_owned(), reasoning);
    all.into()
}

/// What a template says with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn refuse(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "refused").with_source(Refusal(message.to_owned())))
}

fn broken(error: &Error) -> TextError {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    TextError::ChatTemplate { line: error.line().unwrap_or(1), reason }
}

fn failed(error: &Error) -> TextError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = cause {
        if let Some(Refusal(message)) = inner.downcast_ref() {
            return TextError::ChatRefused { message: message.clone() };
        }
        cause = inner.source();
    }
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too much time or memory".to_owned(),
        kind => error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    TextError::ChatRender { line: error.line().unwrap_or(1), reason }
}

#[cfg(test)]
mod tests;
