//! Scaling of rotary embeddings, which the two sides write in different ways.

use super::real;
use crate::error::FilesError;
use crate::gguf::{Gguf, Metadata, Value as Entry};
use crate::names::Architecture;
use serde_json::{Map, Value, json};
use std::f64::consts::PI;
use std::path::Path;

/// The tensor in which GGUF keeps what Llama 3's scaling divides each frequency by.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";
/// How Llama 3.1 and later scale: GGUF keeps the factors only, so that these are tried when a file is read.
const LLAMA3: (f64, f64, f64) = (1.0, 4.0, 8192.0);

/// What Llama 3 divides the frequency of each pair of a head's elements by: 1 where the wave is short, `factor` where it
/// is longer than the original context, and between them a mixture.
///
/// Source: `LlamaModel.generate_extra_tensors` of `convert_hf_to_gguf.py` in ggml-org/llama.cpp, which has it from
/// meta-llama's reference implementation.
pub fn llama3_rope_factors(
    rope_theta: f64,
    head_dim: usize,
    factor: f64,
    low_freq_factor: f64,
    high_freq_factor: f64,
    original_context: f64,
) -> Vec<f32> {
    let pair = |i: usize| {
        let wavelength = 2.0 * PI * rope_theta.powf(2.0 * i as f64 / head_dim as f64);
        if wavelength < original_context / high_freq_factor {
            return 1.0;
        }
        if wavelength > original_context / low_freq_factor {
            return factor as f32;
        }
        let smooth = (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    (0..head_dim / 2).map(pair).collect()
}

/// `rope_scaling` of `config.json`; `None` without any.
pub(super) fn scaling_from_gguf(
    gguf: &Gguf,
    architecture: Architecture,
    config: &Map<String, Value>,
) -> Result<Option<Value>, FilesError> {
    if gguf.tensors.contains(ROPE_FACTORS) {
        return llama3_from_factors(gguf, config).map(Some);
    }
    let key = |key: &str| format!("{}.rope.scaling.{key}", architecture.gguf());
    let metadata = &gguf.metadata;
    let Some(kind) = metadata.find_str(&key("type"))?.filter(|kind| *kind != "none") else { return Ok(None) };
    let factor = metadata.get(&key("factor")).and_then(real);
    let factor = factor.ok_or_else(|| FilesError::NoKey { path: gguf.path(), key: key("factor") })?;
    let mut scaling = Map::from_iter([("rope_type".into(), kind.into()), ("factor".into(), factor.into())]);
    if let Some(context) = metadata.find_u64(&key("original_context_length"))? {
        scaling.insert("original_max_position_embeddings".into(), context.into());
    }
    for (name, setting) in YARN {
        if let Some(value) = metadata.get(&key(name)).and_then(real) {
            scaling.insert(setting.into(), value.into());
        }
    }
    Ok(Some(Value::Object(scaling)))
}

/// Settings of YaRN in GGUF and in `rope_scaling`.
const YARN: [(&str, &str); 3] =
    [("attn_factor", "attention_factor"), ("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")];

/// The settings whose factors a file holds.
fn llama3_from_factors(gguf: &Gguf, config: &Map<String, Value>) -> Result<Value, FilesError> {
    let found = gguf.tensors.f32(ROPE_FACTORS)?;
    let number = |name: &str| config.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let factor = found.iter().copied().fold(1.0, f32::max);
    let (low, high, original) = LLAMA3;
    let expected = llama3_rope_factors(number("rope_theta"), 2 * found.len(), factor.into(), low, high, original);
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs();
    let fits = 2.0 * found.len() as f64 == number("head_dim") && found.iter().zip(&expected).all(close);
    if !fits {
        let info = gguf.tensors.info(ROPE_FACTORS)?;
        return Err(FilesError::Tensor {
            path: gguf.path(),
            name: ROPE_FACTORS.into(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            problem: "these are not the factors of Llama 3's RoPE scaling",
            hint: "use the model's own `config.json` and safetensors",
        });
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": f64::from(factor),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original as u64,
    }))
}

/// The part of `config.json` that says how RoPE is scaled.
fn scaling(config: &Value) -> Option<&Value> {
    ["rope_scaling", "rope_parameters"].iter().find_map(|key| config.get(key).filter(|value| value.is_object()))
}

/// Its kind under either of its names; `default` is none.
fn kind(scaling: &Value) -> &str {
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
    kind.and_then(Value::as_str).unwrap_or("default")
}

/// Writes the keys of `rope_scaling`. Llama 3's kind has none: its factors are a tensor.
pub(super) fn scaling_to_gguf(
    path: &Path,
    config: &Value,
    prefix: &str,
    metadata: &mut Metadata,
) -> Result<(), FilesError> {
    let Some(scaling) = scaling(config) else { return Ok(()) };
    let kind = kind(scaling);
    if matches!(kind, "default" | "llama3") {
        return Ok(());
    }
    if !matches!(kind, "linear" | "yarn") {
        let (key, found) = ("rope_scaling.rope_type".into(), format!("`{kind}`"));
        return Err(FilesError::Key { path: path.into(), key, found, expected: "linear, yarn or llama3" });
    }
    let key = |key: &str| format!("{prefix}rope.scaling.{key}");
    metadata.set(&key("type"), Entry::String(kind.into()));
    metadata
        .set(&key("factor"), super::entry(path, "rope_scaling.factor", scaling["factor"].clone(), super::Kind::Real)?);
    if let Some(context) = scaling.get("original_max_position_embeddings").and_then(Value::as_u64) {
        metadata.set(&key("original_context_length"), Entry::U32(context as u32));
    }
    for (name, setting) in YARN {
        if let Some(value) = scaling.get(setting).and_then(Value::as_f64) {
            metadata.set(&key(name), Entry::F32(value as f32));
        }
    }
    Ok(())
}

/// The factors that a GGUF file of this model must hold, if its scaling is Llama 3's.
///
/// Errors: a setting of it that is missing.
pub(crate) fn factors_to_gguf(path: &Path, config: &Value) -> Result<Option<Vec<f32>>, FilesError> {
    let Some(scaling) = scaling(config).filter(|scaling| kind(scaling) == "llama3") else { return Ok(None) };
    let number = |from: Option<&Value>, key: &str| {
        from.and_then(Value::as_f64).ok_or_else(|| FilesError::NoKey { path: path.into(), key: key.into() })
    };
    let of = |key: &str| number(scaling.get(key), key);
    let theta = super::setting(config, Architecture::Llama, "rope_theta");
    let head_dim = super::setting(config, Architecture::Llama, "head_dim");
    Ok(Some(llama3_rope_factors(
        number(theta.as_ref(), "rope_theta")?,
        // A head has at most some thousand elements, also in a file made to do harm.
        number(head_dim.as_ref(), "head_dim")?.min(65536.0) as usize,
        of("factor")?,
        of("low_freq_factor")?,
        of("high_freq_factor")?,
        of("original_max_position_embeddings")?,
    )))
}
