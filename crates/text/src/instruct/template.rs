//! How an instruction becomes text: Alpaca's words, plain lines, the model's chat template, or the user's own.
//!
//! A template is a text with `{field}` for a field of the item, `{?field}...{/field}` for a part that is there only if
//! the field is not empty, `{{` and `}}` for braces, and `{response}` for the place of the answer. What follows that
//! place belongs to the answer.

use super::Format;
use super::item::ItemProblem;
use crate::{ChatTemplate, TextError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Alpaca's words.
///
/// Source: `PROMPT_DICT` of <https://github.com/tatsu-lab/stanford_alpaca>, in the form of chapter 7 of
/// <https://github.com/rasbt/LLMs-from-scratch>, which has one opening for both cases.
const ALPACA: &str = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}{?input}\n\n### Input:\n{input}{/input}\n\n### Response:\n{response}";

/// Instruction, input and answer on lines of their own.
const PLAIN: &str = "{instruction}{?input}\n{input}{/input}\n{response}";

/// How instructions become text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PromptTemplate {
    /// By the format: Alpaca's for `alpaca`, the model's for chats, nothing between `prompt` and `completion`.
    #[default]
    Auto,
    /// Alpaca's.
    Alpaca,
    /// Instruction, input and answer on lines of their own; `prompt` and `completion` one after the other.
    Plain,
    /// The model's chat template: the instruction is the user's message, the answer the assistant's.
    Chat,
    /// A text with `{instruction}` (or any other field) and `{response}`.
    Custom(String),
}

impl PromptTemplate {
    /// The name or text by which settings call it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::Alpaca => "alpaca",
            Self::Plain => "plain",
            Self::Chat => "chat",
            Self::Custom(text) => text,
        }
    }
}

impl PromptTemplate {
    /// The template as a chat template, for whoever talks to a model that was trained with it: a user's message stands
    /// for the first field, other fields are empty, and each answer ends with `eos_token`.
    ///
    /// `None` where the model's own template was used, or none at all: for chats, for `prompt` and `completion`, and for
    /// plain text.
    ///
    /// Law: what it renders of one question, ready for the answer, is the prompt of an item without `input`.
    pub fn chat_template(&self, format: Format, add_bos: bool) -> Option<ChatTemplate> {
        let template = match (self, format) {
            (Self::Auto | Self::Alpaca, Format::Alpaca) => Template::alpaca(),
            (Self::Plain, Format::Alpaca) => Template::plain(),
            (Self::Custom(text), _) => Template::parse(text).ok()?,
            _ => return None,
        };
        let question = template.jinja(&template.before);
        let after = template.jinja(&template.after);
        let bos = if add_bos { "{{ bos_token }}" } else { "" };
        let source = format!(
            "{bos}{{% for message in messages %}}{{% if message['role'] == 'user' %}}{question}{{% elif message['role'] == \
             'assistant' %}}{{{{ message['content'] }}}}{after}{{{{ eos_token }}}}{{% endif %}}{{% endfor %}}"
        );
        ChatTemplate::from_source(&source).ok()
    }
}

impl std::str::FromStr for PromptTemplate {
    type Err = TextError;

    /// # Errors
    /// [`TextError::Template`] for a text that is no name and has no place for the answer.
    fn from_str(text: &str) -> Result<Self, TextError> {
        Ok(match text {
            "auto" => Self::Auto,
            "alpaca" => Self::Alpaca,
            "plain" => Self::Plain,
            "chat" => Self::Chat,
            _ => {
                Template::parse(text)?;
                Self::Custom(text.to_owned())
            }
        })
    }
}

impl Serialize for PromptTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PromptTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A template that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    before: Vec<Part>,
    after: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
    /// Parts that are there only if the field is not empty.
    If(String, Vec<Part>),
}

/// The field whose place is the answer's.
const RESPONSE: &str = "response";

impl Template {
    pub(crate) fn alpaca() -> Self {
        Self::parse(ALPACA).expect("it is well-formed")
    }

    pub(crate) fn plain() -> Self {
        Self::parse(PLAIN).expect("it is well-formed")
    }

    /// Reads a template.
    ///
    /// # Errors
    /// [`TextError::Template`] if it is not well-formed or lacks `{response}`.
    pub(crate) fn parse(text: &str) -> Result<Self, TextError> {
        let broken = |found: String| TextError::Template { template: text.to_owned(), found };
        let mut rest = text;
        let mut parts = parse_parts(&mut rest, None).map_err(broken)?;
        let mut places = parts.iter().enumerate().filter(|(_, part)| **part == Part::Field(RESPONSE.to_owned()));
        let (place, second) = (places.next().map(|(at, _)| at), places.next());
        match (place, second) {
            (Some(place), None) => {
                let after = parts.split_off(place + 1);
                parts.pop();
                Ok(Self { before: parts, after })
            }
            (Some(_), Some(_)) => Err(broken("it has `{response}` twice".to_owned())),
            (None, _) => Err(broken("it has no place for the answer".to_owned())),
        }
    }

    /// Parts in Jinja: words as they are, the first field as the content of `message`.
    fn jinja(&self, parts: &[Part]) -> String {
        let first = self.before.iter().find_map(|part| if let Part::Field(name) = part { Some(name) } else { None });
        let part = |part: &Part| match part {
            // As a string of Jinja, so that nothing in it is code and no line's end is lost.
            Part::Text(text) => {
                let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
                format!("{{{{ \"{text}\" }}}}")
            }
            Part::Field(name) if Some(name) == first => "{{ message['content'] }}".to_owned(),
            Part::Field(_) | Part::If(..) => String::new(),
        };
        parts.iter().map(part).collect()
    }

    /// The text before the answer, and the one after it.
    pub(crate) fn fill(
        &self,
        field: impl Fn(&str) -> Result<Option<String>, ItemProblem>,
    ) -> Result<(String, String), ItemProblem> {
        let (mut before, mut after) = (String::new(), String::new());
        fill(&self.before, &field, &mut before)?;
        fill(&self.after, &field, &mut after)?;
        Ok((before, after))
    }
}

fn fill(
    parts: &[Part],
    field: &impl Fn(&str) -> Result<Option<String>, ItemProblem>,
    text: &mut String,
) -> Result<(), ItemProblem> {
    for part in parts {
        match part {
            Part::Text(part) => text.push_str(part),
            Part::Field(name) => match field(name)? {
                Some(value) => text.push_str(&value),
                None => return Err(ItemProblem::Missing { field: name.clone(), found: "nothing".to_owned() }),
            },
            Part::If(name, parts) => {
                if field(name)?.is_some_and(|value| !value.is_empty()) {
                    fill(parts, field, text)?;
                }
            }
        }
    }
    Ok(())
}

/// Reads parts up to `{/end}` or the end of the text.
fn parse_parts(rest: &mut &str, end: Option<&str>) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    loop {
        let at = rest.find(['{', '}']).unwrap_or(rest.len());
        literal.push_str(&rest[..at]);
        *rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            literal.push_str(&rest[..1]);
            *rest = after;
            continue;
        }
        if rest.starts_with('}') {
            return Err("it has `}` without `{` (write `}}` for a brace)".to_owned());
        }
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal)));
        }
        if rest.is_empty() {
            return match end {
                Some(end) => Err(format!("`{{?{end}}}` is never closed by `{{/{end}}}`")),
                None => Ok(parts),
            };
        }
        let (name, after) =
            rest[1..].split_once('}').ok_or("it has `{` without `}` (write `{{` for a brace)".to_owned())?;
        *rest = after;
        if let Some(name) = name.strip_prefix('?') {
            let inner = parse_parts(rest, Some(name))?;
            if inner.contains(&Part::Field(RESPONSE.to_owned())) {
                return Err("the answer's place depends on a field".to_owned());
            }
            parts.push(Part::If(name.to_owned(), inner));
        } else if let Some(name) = name.strip_prefix('/') {
            return if end == Some(name) { Ok(parts) } else { Err(format!("`{{/{name}}}` closes nothing")) };
        } else if name.is_empty() || name.contains(['{', '\n']) {
            return Err(format!("`{{{name}}}` names no field (write `{{{{` for a brace)"));
        } else {
            parts.push(Part::Field(name.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, fields: &[(&str, &str)]) -> (String, String) {
        let field =
            |name: &str| Ok(fields.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()));
        Template::parse(template).unwrap().fill(field).unwrap()
    }

    fn message(template: &str) -> String {
        let message = Template::parse(template).unwrap_err().to_string();
        message.lines().next().unwrap().to_owned()
    }

    #[test]
    fn alpacas_words_are_those_of_the_book() {
        let with_input = filled(ALPACA, &[("instruction", "Add."), ("input", "1 2")]).0;
        assert_eq!(
            with_input,
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\
             \n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
        );
        let without = filled(ALPACA, &[("instruction", "Add."), ("input", "")]).0;
        assert_eq!(without, with_input.replace("\n\n### Input:\n1 2", ""));
    }

    #[test]
    fn a_chat_template_renders_the_prompt_of_an_item_without_input() {
        use crate::{ChatInput, Message};
        let custom = PromptTemplate::Custom("\"{q}\"\\ {{% x %}}\n\n{?r}no{/r}A:\t{response} .".to_owned());
        for (prompt, text, after) in [
            (PromptTemplate::Auto, ALPACA, ""),
            (PromptTemplate::Plain, PLAIN, ""),
            (custom.clone(), custom.as_str(), " ."),
        ] {
            let expected =
                filled(text, &[("instruction", "Add {{ 1 }}."), ("q", "Add {{ 1 }}."), ("input", ""), ("r", "")]);
            let template = prompt.chat_template(Format::Alpaca, true).unwrap();
            let messages = [Message::new("user", "Add {{ 1 }}."), Message::new("assistant", "2")];
            let rendered = |messages: &[Message]| {
                let (bos_token, eos_token) = (Some("<s>"), Some("</s>"));
                let input =
                    ChatInput { messages, add_generation_prompt: true, bos_token, eos_token, ..ChatInput::default() };
                template.render(&input).unwrap()
            };
            assert_eq!(rendered(&messages[..1]), format!("<s>{}", expected.0));
            assert_eq!(rendered(&messages), format!("<s>{}2{after}</s>", expected.0));
        }
        assert!(PromptTemplate::Auto.chat_template(Format::Messages, true).is_none());
    }

    #[test]
    fn a_users_template_is_cut_at_the_answer() {
        let fields = [("q", "2 {x}?"), ("input", "")];
        let (before, after) = filled("Q: {q}{?input} ({input}){/input} {{}}\nA: {response}\n--", &fields);
        assert_eq!((before.as_str(), after.as_str()), ("Q: 2 {x}? {}\nA: ", "\n--"));
    }

    #[test]
    fn a_template_that_cannot_be_filled_is_refused() {
        insta::assert_snapshot!(message("Q: {q}\nA:"), @r#"the prompt template "Q: {q}\nA:": it has no place for the answer"#);
        insta::assert_snapshot!(message("{response}{response}"), @r#"the prompt template "{response}{response}": it has `{response}` twice"#);
        insta::assert_snapshot!(message("{?a}{response}{/a}"), @r#"the prompt template "{?a}{response}{/a}": the answer's place depends on a field"#);
        insta::assert_snapshot!(message("{?a}{response}"), @r#"the prompt template "{?a}{response}": `{?a}` is never closed by `{/a}`"#);
        insta::assert_snapshot!(message("{response}{/a}"), @r#"the prompt template "{response}{/a}": `{/a}` closes nothing"#);
        insta::assert_snapshot!(message("{response} }"), @r#"the prompt template "{response} }": it has `}` without `{` (write `}}` for a brace)"#);
        insta::assert_snapshot!(message("{response} {"), @r#"the prompt template "{response} {": it has `{` without `}` (write `{{` for a brace)"#);
        insta::assert_snapshot!(message("{}{response}"), @r#"the prompt template "{}{response}": `{}` names no field (write `{{` for a brace)"#);
        assert!("alpacca".parse::<PromptTemplate>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r"[{}?/a-c \n]{0,24}(\{response\})?[{}a]{0,4}") {
            if let Ok(template) = Template::parse(&text) {
                template.fill(|_| Ok(Some("x".to_owned()))).unwrap();
            }
        }
    }
}
