#![expect(missing_docs, reason = "the message is the doc")]

use std::path::PathBuf;

/// What can be wrong with a model's settings or files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    #[error("`{key}` is {found}, expected {expected}\nhint: {hint}")]
    Config { key: &'static str, found: String, expected: String, hint: String },
    #[error(
        "`{key}` = {width} is not a multiple of `num_attention_heads` = {heads}\nhint: use {nearest} heads, or a width of {multiple}"
    )]
    Heads { key: &'static str, width: usize, heads: usize, nearest: usize, multiple: usize },
    #[error("{path}: {source}\nhint: check the path, the permissions and the free space of its disk")]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "{path}: not a model's `config.json`: {source}\nhint: point at the directory that holds `config.json` and `model.safetensors`"
    )]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path}: `model_type` is `{found}`, expected `gpt2`\nhint: this version reads GPT-2 models")]
    ModelType { path: PathBuf, found: String },
    #[error(
        "{path}: not a whole safetensors file: {source}\nhint: it may be cut short; copy it again or use an earlier checkpoint"
    )]
    Safetensors { path: PathBuf, source: safetensors::SafeTensorError },
    #[error(
        "{path}: tensor `{name}` is missing\nhint: `config.json` asks for it; the two files must come from one model"
    )]
    Missing { path: PathBuf, name: String },
    #[error(
        "{path}: tensor `{name}` is {found:?}, the config asks for {expected:?}\nhint: the two files must come from one model"
    )]
    Shape { path: PathBuf, name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("{path}: tensor `{name}` holds {found}, expected F32, F16 or BF16\nhint: save it in one of these")]
    Dtype { path: PathBuf, name: String, found: String },
}
