//! What flows through the pipeline.

use serde_json::{Map, Value};

/// A text with what is known of it: datatrove's `Document`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The text.
    pub text: String,
    /// Its name: the record's id, or file and number.
    pub id: String,
    /// Everything else: `url`, `date`, `language`, `token_count`, ...
    pub metadata: Map<String, Value>,
    /// Whether the text is still a page in HTML.
    pub is_html: bool,
}

impl Document {
    /// A document of a text alone.
    pub fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The address it came from, if it is known.
    pub fn url(&self) -> Option<&str> {
        self.metadata.get("url").and_then(Value::as_str)
    }
}
