#![expect(missing_docs, reason = "the message is the doc")]

use cavy_files::FilesError;
use cavy_ops::kernels::packed::PackedError;
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
    #[error(
        "`{key}` = {value} is not known here and could change what the model computes\nhint: if it does not, remove it from `config.json`"
    )]
    UnknownKey { key: String, value: String },
    #[error("{path}: {source}\nhint: check the path, the permissions and the free space of its disk")]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "{path}: not a model's `config.json`: {source}\nhint: point at the directory that holds `config.json` and `model.safetensors`"
    )]
    Json { path: PathBuf, source: serde_json::Error },
    #[error(
        "{path}: `model_type` is `{found}`, expected `gpt2`, `llama`, `mistral`, `qwen2` or `qwen3`\nhint: this version reads models of these families"
    )]
    ModelType { path: PathBuf, found: String },
    #[error(
        "{path}: tensor `{name}` is {found:?}, the config asks for {expected:?}\nhint: the two files must come from one model"
    )]
    Shape { path: PathBuf, name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error(
        "{path}: the config asks for {asked} parameters, the files hold {held}\nhint: the two must come from one model; a file may be missing"
    )]
    Size { path: PathBuf, asked: usize, held: usize },
    #[error("tensor `{name}` cannot be multiplied as it is stored: {source}\nhint: load it as f32 (`--dtype f32`)")]
    Packed { name: String, source: PackedError },
    #[error("weights can be read as {format}, not converted to it\nhint: convert to F16, BF16, Q8_0, Q4_0 or Q4_1")]
    ReadOnlyFormat { format: String },
    #[error(
        "{path}: a width of {width} does not say how many heads there are\nhint: put a `config.json` beside it, with `n_head`, `n_embd`, `n_layer`, `n_positions` and `vocab_size`"
    )]
    BookHeads { path: PathBuf, width: usize },
    #[error(
        "`{key}`: `{pattern}` is not a regular expression: {source}\nhint: names are given as a list, `q_proj,v_proj`"
    )]
    Pattern { key: &'static str, pattern: String, source: regex::Error },
    #[error("`{key}`: nothing in the model is called `{name}`\nhint: it has {known}")]
    NoModule { key: &'static str, name: String, known: String },
    #[error("{path}: not an adapter that can be read here: {problem}\nhint: {hint}")]
    Adapter { path: PathBuf, problem: String, hint: String },
    #[error(
        "{path}: tensor `{name}` is {found:?}, this model asks for {expected:?}\nhint: the adapter was made for another model"
    )]
    AdapterShape { path: PathBuf, name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error(
        "{path}: tensor `{name}` is for `{layer}`, which this model does not have\nhint: the adapter was made for another model"
    )]
    AdapterLayer { path: PathBuf, name: String, layer: String },
    #[error("the model has no adapter\nhint: give one with `--adapter`")]
    NoAdapter,
    #[error(transparent)]
    Tensors(#[from] FilesError),
}
