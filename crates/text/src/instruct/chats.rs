//! Which parts of a conversation's text are whose, by the model's chat template.

use super::encode::{Draft, Encoder, last_text};
use super::item::{Item, ItemProblem, text_of};
use super::{TrainOn, Turns};
use crate::chat::Rendered;
use crate::rows::Row;
use crate::{ChatInput, Message, TextError};
use serde_json::Value;
use std::iter::once;
use std::ops::Range;

impl Encoder<'_> {
    /// The text of a conversation, and the bytes of the messages that carry loss.
    ///
    /// A message's bytes are found by rendering the conversation up to it: what it adds after the generation prompt is
    /// its own; with templates that rewrite earlier messages, its content is. Where the template marks what the assistant says (`{% generation %}`), the marks decide.
    pub(super) fn chat_draft(&self, item: &Item, row: &Row) -> Result<Draft, TextError> {
        let Item::Chat { messages, learnt, first, tools } = item else { unreachable!("it is a conversation") };
        let problem = |problem| TextError::Item { place: row.place.clone(), problem };
        let chat = Chat { encoder: self, messages, tools: tools.as_ref() };
        let whole = chat.render(messages, false).map_err(problem)?;
        let settings = self.settings;
        let is_trained =
            |at: &usize| settings.train_roles.contains(&messages[*at].role) && learnt[*at] && *at >= *first;
        let mut wanted: Vec<usize> = (0..messages.len()).filter(is_trained).collect();
        if settings.train_turns == Turns::Last {
            wanted = wanted.split_off(wanted.len().saturating_sub(1));
        }
        let Some(&last) = wanted.last() else {
            if settings.train_on == TrainOn::All {
                let (text, trained) = (whole.text.clone(), once(0..whole.text.len()).collect());
                return Ok(Draft { text, trained, prompt: 0, reference: String::new() });
            }
            let roles: Vec<String> = settings.train_roles.iter().map(|role| format!("`{role}`")).collect();
            return Err(problem(ItemProblem::NoAnswer { roles: roles.join(", ") }));
        };
        let mut trained = Vec::new();
        for &at in &wanted {
            trained.push(chat.extent(&whole, at).map_err(problem)?);
        }
        let prompt = trained.last().map_or(0, |range: &Range<usize>| range.start);
        if settings.train_on == TrainOn::All {
            trained = once(0..whole.text.len()).collect();
        }
        let reference = last_text(&messages[..=last]);
        Ok(Draft { text: whole.text, trained, prompt, reference })
    }
}

struct Chat<'a> {
    encoder: &'a Encoder<'a>,
    messages: &'a [Message],
    tools: Option<&'a Value>,
}

impl Chat<'_> {
    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Rendered, ItemProblem> {
        let Some(template) = self.encoder.chat_template else {
            return Err(ItemProblem::Chat(TextError::NoChatTemplate.to_string()));
        };
        let input = ChatInput {
            messages,
            tools: self.tools,
            add_generation_prompt,
            bos_token: self.encoder.bos_text.as_deref(),
            eos_token: self.encoder.eos_text.as_deref(),
            now: self.encoder.settings.now,
            variables: None,
        };
        template.render_marked(&input).map_err(|error| ItemProblem::Chat(error.to_string()))
    }

    /// The bytes of message `at` in the text of the whole conversation: what a model has to write.
    fn extent(&self, whole: &Rendered, at: usize) -> Result<Range<usize>, ItemProblem> {
        let known = self.marked(whole, at).or_else(|| self.after_prompt(&whole.text, at));
        let known = known.or_else(|| self.content(&whole.text, at));
        known.ok_or_else(|| {
            ItemProblem::Chat(format!(
                "the chat template rewrites message {at}, so its place in the text is not known\nhint: leave it out of what is learnt (`train_turns = \"last\"`, or `\"train\": false` in the message)"
            ))
        })
    }

    /// What message `at` adds to the conversation before it and its generation prompt, unless the template writes parts
    /// of it otherwise once more follows.
    fn after_prompt(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let prompt = self.render(&self.messages[..at], true).ok()?.text;
        let end = if at + 1 == self.messages.len() {
            text.len()
        } else {
            let so_far = self.render(&self.messages[..=at], false).ok()?.text;
            text.starts_with(&so_far).then_some(so_far.len())?
        };
        (text.starts_with(&prompt) && prompt.len() < end).then_some(prompt.len()..end)
    }

    /// Where the content of message `at` stands: what changes with it.
    fn content(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let said = text_of(&self.messages[at].content);
        let with = |content: &str| {
            let mut messages = self.messages.to_vec();
            messages[at].content = content.into();
            self.render(&messages, false).ok().map(|rendered| rendered.text)
        };
        // Characters of private use, which no template looks for.
        let (one, other) = (with("\u{E000}")?, with("\u{E001}")?);
        let same = |(one, other): &(char, char)| one == other;
        let before: usize = one.chars().zip(other.chars()).take_while(same).map(|(one, _)| one.len_utf8()).sum();
        let after: usize =
            one.chars().rev().zip(other.chars().rev()).take_while(same).map(|(one, _)| one.len_utf8()).sum();
        let range = before..text.len().checked_sub(after)?;
        (!said.trim().is_empty() && text.get(range.clone())?.trim() == said.trim()).then_some(range)
    }

    /// The bytes that the template marks as the assistant's message `at`, if it marks each of them once.
    fn marked(&self, whole: &Rendered, at: usize) -> Option<Range<usize>> {
        let is_assistant = |message: &&Message| message.role == "assistant";
        let number = self.messages[..at].iter().filter(is_assistant).count();
        let all = self.messages.iter().filter(is_assistant).count();
        let marks_each = whole.generated.len() == all && self.messages[at].role == "assistant";
        marks_each.then(|| whole.generated[number].clone())
    }
}
