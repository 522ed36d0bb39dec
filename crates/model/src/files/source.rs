//! What a path holds: a model's sizes and tensors under Hugging Face's names, whatever the format.

use crate::config::{Gpt2Config, ModelConfig};
use crate::error::ModelError;
use crate::llama_config::LlamaConfig;
use cavy_files::{Safetensors, Tensors};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where a model comes from, for what lies beside its tensors: tokenizer, chat template, generation settings.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A folder in Hugging Face's form.
    Folder(PathBuf),
}

/// A model in a file or folder, opened but not loaded.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path that was opened.
    pub path: PathBuf,
    /// Its sizes.
    pub config: ModelConfig,
    /// Its tensors, under Hugging Face's names and in Hugging Face's order of rows.
    pub tensors: Tensors,
    /// What else there is.
    pub origin: Origin,
    /// Whether the linear layers of a GPT-2's blocks lie as `(in, out)`, as Hugging Face's `Conv1D` has them.
    pub conv1d: bool,
}

impl Source {
    /// Opens a Hugging Face directory.
    ///
    /// Errors: what is missing, broken or unknown, by path, key and tensor.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        folder(path)
    }
}

fn folder(dir: &Path) -> Result<Source, ModelError> {
    let config = read_config(&dir.join("config.json"))?;
    let tensors = Safetensors::load(dir)?.tensors;
    Ok(Source { path: dir.into(), config, tensors, origin: Origin::Folder(dir.into()), conv1d: true })
}

/// The sizes that a `config.json` says.
fn read_config(path: &Path) -> Result<ModelConfig, ModelError> {
    let text = fs_err::read_to_string(path).map_err(|source| ModelError::File { path: path.to_path_buf(), source })?;
    let value: Value =
        serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.to_path_buf(), source })?;
    config_of(path, value)
}

impl ModelConfig {
    /// The sizes that the fields of a `config.json` say; `path` stands in messages.
    ///
    /// Errors: an unknown `model_type` or option, a missing or impossible size, by key.
    pub fn from_json(path: &Path, value: Value) -> Result<Self, ModelError> {
        config_of(path, value)
    }
}

fn config_of(path: &Path, value: Value) -> Result<ModelConfig, ModelError> {
    let path = path.to_path_buf();
    let model_type = value.get("model_type").and_then(Value::as_str).unwrap_or("none").to_owned();
    match (model_type.as_str(), value) {
        ("gpt2", value) => {
            let config: Gpt2Config =
                serde_json::from_value(value).map_err(|source| ModelError::Json { path, source })?;
            config.validate()?;
            Ok(config.into())
        }
        ("llama" | "mistral" | "qwen2" | "qwen3", Value::Object(fields)) => Ok(LlamaConfig::from_json(&fields)?.into()),
        _ => Err(ModelError::ModelType { path, found: model_type }),
    }
}
