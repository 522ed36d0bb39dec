//! What a path holds: a model's sizes and tensors under Hugging Face's names, whatever the format.

use crate::config::{Gpt2Config, ModelConfig};
use crate::error::ModelError;
use crate::llama_config::LlamaConfig;
use cavy_files::gguf::Metadata;
use cavy_files::pth::Part;
use cavy_files::{Format, Gguf, HuggingFace, Llama2c, Pth, Safetensors, Tensors, hugging_face};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Where a model comes from, for what lies beside its tensors: tokenizer, chat template, generation settings.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A folder in Hugging Face's form, or the one that a file of tensors lies in.
    Folder(PathBuf),
    /// The metadata of a GGUF file.
    Gguf(Box<Metadata>),
    /// A llama2.c file: its tokenizer is another file.
    Llama2c(PathBuf),
}

/// A model in a file or folder, opened but not loaded.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path that was opened.
    pub path: PathBuf,
    /// Its sizes.
    pub config: ModelConfig,
    /// The fields of its `config.json`, or what they would be.
    pub fields: Value,
    /// Its tensors, under Hugging Face's names and in Hugging Face's order of elements.
    pub tensors: Tensors,
    /// What else there is.
    pub origin: Origin,
}

impl Source {
    /// Opens a Hugging Face directory, a `.gguf` file, a PyTorch checkpoint (`.pth`, `.pt`, `.bin`) with Hugging Face's
    /// names or those of the book "Build a Large Language Model (From Scratch)", a `.safetensors` file, or a llama2.c
    /// `.bin`. What a file is, its first bytes say. A file of tensors needs the `config.json` beside it; the
    /// book's may do without.
    ///
    /// Errors: what is missing, broken or unknown, by path, key and tensor.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return folder(path);
        }
        match Format::detect(path)? {
            Format::Gguf => gguf(path),
            Format::Pth => checkpoint(path),
            Format::Safetensors => beside(path, Safetensors::load(path)?.tensors),
            Format::Llama2c => llama2c(path),
        }
    }
}

fn folder(dir: &Path) -> Result<Source, ModelError> {
    let fields = read_fields(&dir.join("config.json"))?;
    let tensors = Format::load_tensors(dir)?;
    let config = ModelConfig::from_json(&dir.join("config.json"), fields.clone())?;
    Ok(Source { path: dir.into(), config, fields, tensors, origin: Origin::Folder(dir.into()) })
}

/// Tensors in a file of their own, with the `config.json` beside it.
fn beside(path: &Path, tensors: Tensors) -> Result<Source, ModelError> {
    let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let fields = read_fields(&dir.join("config.json"))?;
    let config = ModelConfig::from_json(&dir.join("config.json"), fields.clone())?;
    Ok(Source { path: path.into(), config, fields, tensors, origin: Origin::Folder(dir) })
}

fn gguf(path: &Path) -> Result<Source, ModelError> {
    let gguf = Gguf::load(path)?;
    let metadata = gguf.metadata.clone();
    let HuggingFace { config: fields, tensors } = HuggingFace::from_gguf(gguf)?;
    let config = ModelConfig::from_json(path, fields.clone())?;
    Ok(Source { path: path.into(), config, fields, tensors, origin: Origin::Gguf(Box::new(metadata)) })
}

fn llama2c(path: &Path) -> Result<Source, ModelError> {
    let Llama2c { header, tensors } = Llama2c::load(path)?;
    let fields = header.config();
    let config = ModelConfig::from_json(path, fields.clone())?;
    Ok(Source { path: path.into(), config, fields, tensors, origin: Origin::Llama2c(path.into()) })
}

fn checkpoint(path: &Path) -> Result<Source, ModelError> {
    let Pth { tensors, values, .. } = Pth::load(path, Part::Model)?;
    let is_book = tensors.infos().any(|info| info.name.ends_with("tok_emb.weight"));
    if !is_book {
        return beside(path, tensors);
    }
    let tensors = hugging_face::from_book(tensors)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    if dir.join("config.json").exists() {
        return beside(path, tensors);
    }
    let named = |key: &str| {
        let found = values.iter().find(|(name, _)| name.rsplit('.').next() == Some(key));
        found.and_then(|(_, value)| value.as_u64())
    };
    let fields = book_fields(path, &tensors, named("n_heads"))?;
    let config = ModelConfig::from_json(path, fields.clone())?;
    Ok(Source { path: path.into(), config, fields, tensors, origin: Origin::Folder(dir.into()) })
}

/// The sizes of a book's GPT, from the shapes of its tensors; heads of 64, as in all of GPT-2's sizes, unless the
/// checkpoint says how many there are.
fn book_fields(path: &Path, tensors: &Tensors, heads: Option<u64>) -> Result<Value, ModelError> {
    let shape = |name: &str| -> Result<[usize; 2], ModelError> {
        let found = &tensors.info(name)?.shape;
        <[usize; 2]>::try_from(found.as_slice()).map_err(|_| ModelError::Shape {
            path: path.into(),
            name: name.into(),
            expected: vec![0, 0],
            found: found.clone(),
        })
    };
    let ([vocab_size, width], [context, _]) = (shape("transformer.wte.weight")?, shape("transformer.wpe.weight")?);
    let layers = (0..tensors.len()).take_while(|i| tensors.contains(&format!("transformer.h.{i}.ln_1.weight"))).count();
    let heads = match heads {
        Some(heads) => heads as usize,
        None if width % 64 == 0 => width / 64,
        None => return Err(ModelError::BookHeads { path: path.into(), width }),
    };
    Ok(json!({
        "model_type": "gpt2", "vocab_size": vocab_size, "n_positions": context, "n_embd": width, "n_layer": layers,
        "n_head": heads, "qkv_bias": tensors.contains("transformer.h.0.attn.c_attn.bias"),
        "tie_word_embeddings": !tensors.contains("lm_head.weight"), "layer_norm_epsilon": 1e-5,
    }))
}

fn read_fields(path: &Path) -> Result<Value, ModelError> {
    let text = fs_err::read_to_string(path).map_err(|source| ModelError::File { path: path.to_path_buf(), source })?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.to_path_buf(), source })
}

impl ModelConfig {
    /// The sizes that the fields of a `config.json` say; `path` stands in messages.
    ///
    /// Errors: an unknown `model_type` or option, a missing or impossible size, by key.
    pub fn from_json(path: &Path, value: Value) -> Result<Self, ModelError> {
        let path = path.to_path_buf();
        let model_type = value.get("model_type").and_then(Value::as_str).unwrap_or("none").to_owned();
        match (model_type.as_str(), value) {
            ("gpt2", value) => {
                let config: Gpt2Config =
                    serde_json::from_value(value).map_err(|source| ModelError::Json { path, source })?;
                config.validate()?;
                Ok(config.into())
            }
            ("llama" | "mistral" | "qwen2" | "qwen3", Value::Object(fields)) => {
                Ok(LlamaConfig::from_json(&fields)?.into())
            }
            _ => Err(ModelError::ModelType { path, found: model_type }),
        }
    }
}
