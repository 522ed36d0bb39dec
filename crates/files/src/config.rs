//! A model's settings: the metadata of a GGUF file and Hugging Face's `config.json`, each made from the other.
//!
//! Source: `set_gguf_parameters` of `TextModel`, `LlamaModel`, `Qwen2Model`, `Qwen3Model` and `GPT2Model` in
//! `convert_hf_to_gguf.py` of ggml-org/llama.cpp.

mod rope;
#[cfg(test)]
mod tests;

use crate::error::FilesError;
use crate::gguf::{Gguf, Metadata, Value as Entry};
use crate::names::Architecture;
use serde_json::{Map, Value, json};
use std::path::Path;

pub(crate) use rope::factors_to_gguf;
pub use rope::{ROPE_FACTORS, llama3_rope_factors};

/// What a setting holds.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Size,
    Real,
}

/// A setting: GGUF's key after the architecture's name and a dot, Hugging Face's key, what it holds.
type Row = (&'static str, &'static str, Kind);

const LLAMA: [Row; 10] = [
    ("context_length", "max_position_embeddings", Kind::Size),
    ("embedding_length", "hidden_size", Kind::Size),
    ("block_count", "num_hidden_layers", Kind::Size),
    ("feed_forward_length", "intermediate_size", Kind::Size),
    ("attention.head_count", "num_attention_heads", Kind::Size),
    ("attention.head_count_kv", "num_key_value_heads", Kind::Size),
    ("attention.key_length", "head_dim", Kind::Size),
    ("rope.freq_base", "rope_theta", Kind::Real),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps", Kind::Real),
    ("vocab_size", "vocab_size", Kind::Size),
];
const GPT2: [Row; 7] = [
    ("context_length", "n_positions", Kind::Size),
    ("embedding_length", "n_embd", Kind::Size),
    ("block_count", "n_layer", Kind::Size),
    ("feed_forward_length", "n_inner", Kind::Size),
    ("attention.head_count", "n_head", Kind::Size),
    ("attention.layer_norm_epsilon", "layer_norm_epsilon", Kind::Real),
    ("vocab_size", "vocab_size", Kind::Size),
];
/// Settings without the architecture's name before them in GGUF.
const TOKENS: [(&str, &str); 3] = [
    ("tokenizer.ggml.bos_token_id", "bos_token_id"),
    ("tokenizer.ggml.eos_token_id", "eos_token_id"),
    ("tokenizer.ggml.padding_token_id", "pad_token_id"),
];
const SLIDING_WINDOW: (&str, &str) = ("attention.sliding_window", "sliding_window");
const ARCHITECTURE_KEY: &str = "general.architecture";

fn rows(architecture: Architecture) -> &'static [Row] {
    if architecture == Architecture::Gpt2 { &GPT2 } else { &LLAMA }
}

/// The architecture of a GGUF file.
///
/// Errors: one whose names are not known here.
pub fn architecture(gguf: &Gguf) -> Result<Architecture, FilesError> {
    let name = gguf.metadata.str(ARCHITECTURE_KEY)?;
    Architecture::of_gguf(name).ok_or_else(|| FilesError::Architecture {
        path: gguf.path(),
        key: ARCHITECTURE_KEY,
        found: name.into(),
        expected: "llama, qwen2, qwen3 or gpt2",
    })
}

/// A number as a person wrote it: GGUF rounds 1e-5 to `f32`, and the shortest decimal of that is 1e-5 again.
fn real(value: &Entry) -> Option<f64> {
    match value {
        Entry::F32(x) => x.to_string().parse().ok(),
        other => other.to_f64(),
    }
}

/// What `config.json` says of the model in a GGUF file. Where GGUF leaves a key out, its default is written.
///
/// Errors: an architecture that is not known here, mixtures of experts, keys that are missing or of another type.
pub fn from_gguf(gguf: &Gguf) -> Result<Value, FilesError> {
    let (architecture, metadata) = (architecture(gguf)?, &gguf.metadata);
    let prefixed = |key: &str| format!("{}.{key}", architecture.gguf());
    if let Some(experts) = metadata.find_u64(&prefixed("expert_count"))?.filter(|&experts| experts > 0) {
        let (key, found) = (prefixed("expert_count"), experts.to_string());
        return Err(FilesError::Key { path: gguf.path(), key, found, expected: "no mixture of experts" });
    }
    let mut config = Map::new();
    config.insert("model_type".into(), architecture.model_type().into());
    for &(key, name, kind) in rows(architecture) {
        let key = prefixed(key);
        let value = match (metadata.get(&key), kind) {
            (Some(entry), Kind::Real) => real(entry).map(Value::from),
            (_, Kind::Size) => metadata.find_u64(&key)?.map(Value::from),
            (None, Kind::Real) => None,
        };
        let value = match value {
            Some(value) => value,
            None => default(gguf, architecture, name)?.ok_or_else(|| FilesError::NoKey { path: gguf.path(), key })?,
        };
        config.insert(name.into(), value);
    }
    for (key, name) in TOKENS {
        if let Some(id) = metadata.find_u64(key)? {
            config.insert(name.into(), id.into());
        }
    }
    let has = |name: &str| gguf.tensors.contains(name);
    config.insert("tie_word_embeddings".into(), (!has("output.weight")).into());
    let class = match architecture {
        Architecture::Gpt2 => "GPT2LMHeadModel",
        Architecture::Llama => "LlamaForCausalLM",
        Architecture::Qwen2 => "Qwen2ForCausalLM",
        Architecture::Qwen3 => "Qwen3ForCausalLM",
    };
    config.insert("architectures".into(), json!([class]));
    if architecture == Architecture::Gpt2 {
        config.insert("activation_function".into(), "gelu_new".into());
        return Ok(Value::Object(config));
    }
    config.insert("hidden_act".into(), "silu".into());
    if architecture != Architecture::Qwen2 {
        // Qwen2 always has them; the others say so.
        config.insert("attention_bias".into(), has("blk.0.attn_q.bias").into());
    }
    if let Some(window) = metadata.find_u64(&prefixed(SLIDING_WINDOW.0))?.filter(|&window| window > 0) {
        config.insert(SLIDING_WINDOW.1.into(), window.into());
        if architecture == Architecture::Llama {
            // The only one of this family that has a window.
            config.insert("model_type".into(), "mistral".into());
            config.insert("architectures".into(), json!(["MistralForCausalLM"]));
        } else {
            config.insert("use_sliding_window".into(), true.into());
        }
    }
    if let Some(scaling) = rope::scaling_from_gguf(gguf, architecture, &config)? {
        config.insert("rope_scaling".into(), scaling);
    }
    Ok(Value::Object(config))
}

/// What a setting is where GGUF has no key for it; `None` if it must have one.
fn default(gguf: &Gguf, architecture: Architecture, name: &str) -> Result<Option<Value>, FilesError> {
    let key = |key: &str| format!("{}.{key}", architecture.gguf());
    Ok(match name {
        "num_key_value_heads" => gguf.metadata.find_u64(&key("attention.head_count"))?.map(Value::from),
        "head_dim" => {
            let width = gguf.metadata.u64(&key("embedding_length"))?;
            let heads = gguf.metadata.u64(&key("attention.head_count"))?;
            width.checked_div(heads).map(Value::from)
        }
        "rope_theta" => Some(json!(10000.0)),
        "vocab_size" => gguf.tensors.info("token_embd.weight")?.shape.first().map(|&rows| rows.into()),
        _ => None,
    })
}

/// The architecture and the metadata of a GGUF file for a model with this `config.json`; `path` is the file it comes
/// from. The keys of the tokenizer, ids of special tokens apart, are for whoever knows the tokenizer to add.
///
/// Errors: a `model_type` that is not known here, settings that are missing or of another type, kinds of RoPE scaling
/// that GGUF has no keys for.
pub fn to_gguf(path: &Path, config: &Value) -> Result<(Architecture, Metadata), FilesError> {
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("nothing");
    let architecture = Architecture::of_model_type(model_type).ok_or_else(|| FilesError::Architecture {
        path: path.into(),
        key: "model_type",
        found: model_type.into(),
        expected: "llama, mistral, qwen2, qwen3 or gpt2",
    })?;
    let mut metadata = Metadata::new();
    metadata.set(ARCHITECTURE_KEY, Entry::String(architecture.gguf().into()));
    let prefixed = |key: &str| format!("{}.{key}", architecture.gguf());
    for &(key, name, kind) in rows(architecture) {
        if let Some(value) = setting(config, architecture, name) {
            let entry = entry(path, name, value, kind)?;
            metadata.set(&prefixed(key), entry);
        } else if !matches!(name, "num_key_value_heads" | "head_dim" | "rope_theta") {
            return Err(FilesError::NoKey { path: path.into(), key: name.into() });
        }
    }
    for (key, name) in TOKENS {
        // A list of ends is for the generator; GGUF has one.
        if let Some(id) = config.get(name).filter(|id| id.is_u64()) {
            metadata.set(key, entry(path, name, id.clone(), Kind::Size)?);
        }
    }
    if architecture == Architecture::Gpt2 {
        return Ok((architecture, metadata));
    }
    if let Some(dim) = metadata.get(&prefixed("attention.key_length")).cloned() {
        metadata.set(&prefixed("attention.value_length"), dim.clone());
        metadata.set(&prefixed("rope.dimension_count"), dim);
    }
    let window = config.get(SLIDING_WINDOW.1).filter(|window| !window.is_null());
    if let Some(window) = window.filter(|_| config.get("use_sliding_window") != Some(&Value::Bool(false))) {
        metadata.set(&prefixed(SLIDING_WINDOW.0), entry(path, SLIDING_WINDOW.1, window.clone(), Kind::Size)?);
    }
    rope::scaling_to_gguf(path, config, &prefixed(""), &mut metadata)?;
    Ok((architecture, metadata))
}

/// A setting as `config.json` has it, or what it is when it is left out.
pub(crate) fn setting(config: &Value, architecture: Architecture, name: &str) -> Option<Value> {
    let get = |name: &str| config.get(name).filter(|value| !value.is_null()).cloned();
    let size = |name: &str| get(name)?.as_u64();
    get(name).or_else(|| match name {
        // Version 5 of transformers keeps it here.
        "rope_theta" => config.get("rope_parameters")?.get("rope_theta").cloned(),
        "num_key_value_heads" => get("num_attention_heads"),
        "head_dim" => size("hidden_size")?.checked_div(size("num_attention_heads")?).map(Value::from),
        "n_inner" if architecture == Architecture::Gpt2 => size("n_embd")?.checked_mul(4).map(Value::from),
        _ => None,
    })
}

fn entry(path: &Path, name: &str, value: Value, kind: Kind) -> Result<Entry, FilesError> {
    let found = match kind {
        Kind::Size => value.as_u64().and_then(|size| u32::try_from(size).ok()).map(Entry::U32),
        Kind::Real => value.as_f64().map(|real| Entry::F32(real as f32)),
    };
    found.ok_or_else(|| FilesError::Key {
        path: path.into(),
        key: name.into(),
        found: value.to_string(),
        expected: if kind == Kind::Size { "an integer of at least 0, below 2^32" } else { "a number" },
    })
}
