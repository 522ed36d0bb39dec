//! Where a model's chat template stands.

use super::ChatTemplate;
use crate::TextError;
use serde_json::Value;
use std::path::Path;

impl ChatTemplate {
    /// The template of a Hugging Face directory: `chat_template.jinja`, or else the key `chat_template` of
    /// `tokenizer_config.json`; `None` if there is neither.
    ///
    /// # Errors
    /// A file that cannot be read, or is not what it should be.
    pub fn from_model_dir(dir: impl AsRef<Path>) -> Result<Option<Self>, TextError> {
        let path = dir.as_ref().join("chat_template.jinja");
        if path.is_file() {
            let source = fs_err::read_to_string(&path).map_err(|source| TextError::read(&path, source))?;
            return Self::from_source(&source).map(Some);
        }
        let path = dir.as_ref().join("tokenizer_config.json");
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = fs_err::read(&path).map_err(|source| TextError::read(&path, source))?;
        let config: Value =
            serde_json::from_slice(&bytes).map_err(|error| TextError::BadConfig { path, reason: error.to_string() })?;
        Self::from_tokenizer_config(&config)
    }

    /// The template that a `tokenizer_config.json` holds: a string, or the one named `default` of a list, or its first.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_source`].
    pub fn from_tokenizer_config(config: &Value) -> Result<Option<Self>, TextError> {
        let source = match &config["chat_template"] {
            Value::String(source) => Some(source.as_str()),
            Value::Array(templates) => {
                let default = templates.iter().find(|template| template["name"] == "default");
                default.or(templates.first()).and_then(|template| template["template"].as_str())
            }
            _ => None,
        };
        source.map(Self::from_source).transpose()
    }
}
