//! The sizes and switches of the Llama family, read from `config.json`.

use crate::error::ModelError;
use serde_json::{Map, Value, json};

/// How rotary frequencies are stretched beyond the context a model was first trained for.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// Positions are divided by a factor.
    ///
    /// Source: Chen et al. 2023, <https://arxiv.org/abs/2306.15595>.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies are divided, high ones stay.
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Turns in the original context below which a frequency is low.
        low_freq_factor: f64,
        /// Turns above which it is high.
        high_freq_factor: f64,
        /// The original context.
        original_max_position_embeddings: usize,
    },
    /// Peng et al. 2023, <https://arxiv.org/abs/2309.00071>.
    Yarn {
        /// What low frequencies are divided by.
        factor: f64,
        /// Turns in the original context above which a frequency is high.
        beta_fast: f64,
        /// Turns below which it is low.
        beta_slow: f64,
        /// Factor of queries and keys; `0.1 ln factor + 1` unless given.
        attention_factor: Option<f64>,
        /// The original context.
        original_max_position_embeddings: usize,
    },
}

/// Sizes and switches of a model of the Llama family.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// `llama`, `mistral`, `qwen2` or `qwen3`.
    pub model_type: String,
    /// Tokens of the vocabulary, `V`.
    pub vocab_size: usize,
    /// Width of the residual stream, `D`.
    pub hidden_size: usize,
    /// Width inside a block's feed-forward part, `F`.
    pub intermediate_size: usize,
    /// Blocks, `L`.
    pub num_hidden_layers: usize,
    /// Query heads, `H`.
    pub num_attention_heads: usize,
    /// Key/value heads, `K`.
    pub num_key_value_heads: usize,
    /// Size of a head, `E`.
    pub head_dim: usize,
    /// Longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Their stretching.
    pub rope_scaling: RopeScaling,
    /// Whether the output head is the token embedding.
    pub tie_word_embeddings: bool,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has one.
    pub o_bias: bool,
    /// Whether the feed-forward part has them.
    pub mlp_bias: bool,
    /// Whether queries and keys are normed, head by head.
    pub qk_norm: bool,
    /// Most positions a query sees, its own included.
    pub sliding_window: Option<usize>,
}

/// Keys of `config.json` that say nothing about what a model computes.
const IGNORED: [&str; 31] = [
    "architectures",
    "attention_dropout",
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "max_window_layers",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "sep_token_id",
    "rope_interleaved",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "use_cache",
    "use_mrope",
    "language",
    "license",
    "return_dict",
];

/// Reads one `config.json`, and remembers which keys it has read.
struct Keys<'a> {
    fields: &'a Map<String, Value>,
    read: Vec<&'static str>,
}

/// The error of a key with a value that cannot be.
fn wrong(key: &'static str, found: &Value, expected: &str, hint: &str) -> ModelError {
    ModelError::Config { key, found: found.to_string(), expected: expected.into(), hint: hint.into() }
}

/// Largest size: products of three of them still fit 64 bits.
const MOST: u64 = 1 << 20;

impl<'a> Keys<'a> {
    fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.read.push(key);
        self.fields.get(key).filter(|value| !value.is_null())
    }

    fn size(&mut self, key: &'static str, default: Option<usize>) -> Result<usize, ModelError> {
        let Some(value) = self.get(key) else {
            return default.ok_or_else(|| {
                wrong(
                    key,
                    &Value::Null,
                    "a size",
                    "`config.json` must hold it; copy the file that belongs to the model",
                )
            });
        };
        let size = value.as_u64().filter(|size| (1..=MOST * 16).contains(size));
        size.map(|size| size as usize)
            .ok_or_else(|| wrong(key, value, "a size from 1 on", "correct it in `config.json`"))
    }

    fn number(&mut self, key: &'static str, default: f64) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        number.ok_or_else(|| wrong(key, value, "a number above 0", "correct it in `config.json`"))
    }

    fn switch(&mut self, key: &'static str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| wrong(key, value, "true or false", "correct it in `config.json`"))
    }

    /// Refuses any value of `key` but `expected`, which is what is computed.
    fn only(&mut self, key: &'static str, expected: &[Value]) -> Result<(), ModelError> {
        match self.get(key) {
            Some(value) if !expected.contains(value) => {
                let names: Vec<String> = expected.iter().map(Value::to_string).collect();
                Err(wrong(key, value, &names.join(" or "), "this version computes nothing else"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what nobody has read.
    fn nothing_else(&self) -> Result<(), ModelError> {
        let unknown = |key: &&String| {
            !self.read.contains(&key.as_str()) && !IGNORED.contains(&key.as_str()) && !key.starts_with('_')
        };
        match self.fields.keys().find(unknown) {
            Some(key) => Err(ModelError::UnknownKey { key: key.clone(), value: self.fields[key].to_string() }),
            None => Ok(()),
        }
    }
}

impl LlamaConfig {
    /// Reads the fields of a `config.json` whose `model_type` is one of the family.
    ///
    /// Errors: a missing or impossible size, and every option that would change the result but is not known, by key.
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self, ModelError> {
        let mut keys = Keys { fields, read: Vec::new() };
        let model_type = keys.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let qwen2 = model_type == "qwen2";
        let hidden_size = keys.size("hidden_size", None)?;
        let num_attention_heads = keys.size("num_attention_heads", None)?;
        let attention_bias = keys.switch("attention_bias", false)?;
        keys.only("hidden_act", &[json!("silu")])?;
        keys.only("quantization_config", &[])?;
        keys.only("is_encoder_decoder", &[json!(false)])?;
        let max_position_embeddings = keys.size("max_position_embeddings", Some(2048))?;
        let (rope_theta, rope_scaling) = rope(&mut keys, max_position_embeddings)?;
        let config = Self {
            vocab_size: keys.size("vocab_size", None)?,
            intermediate_size: keys.size("intermediate_size", None)?,
            num_hidden_layers: keys.size("num_hidden_layers", None)?,
            num_key_value_heads: keys.size("num_key_value_heads", Some(num_attention_heads))?,
            head_dim: keys.size("head_dim", Some((hidden_size / num_attention_heads).max(1)))?,
            max_position_embeddings,
            rms_norm_eps: keys.number("rms_norm_eps", 1e-6)?,
            rope_theta,
            rope_scaling,
            tie_word_embeddings: keys.switch("tie_word_embeddings", false)?,
            qkv_bias: attention_bias || qwen2,
            o_bias: attention_bias && !qwen2,
            mlp_bias: keys.switch("mlp_bias", false)?,
            qk_norm: model_type == "qwen3",
            sliding_window: sliding_window(&mut keys, &model_type)?,
            hidden_size,
            num_attention_heads,
            model_type,
        };
        keys.nothing_else()?;
        config.validate()?;
        Ok(config)
    }

    /// What Hugging Face's `config.json` says of this model.
    pub fn to_json(&self) -> Map<String, Value> {
        let architecture = match self.model_type.as_str() {
            "mistral" => "MistralForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            "qwen3" => "Qwen3ForCausalLM",
            _ => "LlamaForCausalLM",
        };
        let value = json!({
            "architectures": [architecture],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling.to_json(),
            "tie_word_embeddings": self.tie_word_embeddings,
        });
        let Value::Object(mut fields) = value else { unreachable!("an object") };
        if self.model_type != "qwen2" {
            fields.insert("attention_bias".into(), json!(self.qkv_bias));
        }
        if self.model_type == "llama" {
            fields.insert("mlp_bias".into(), json!(self.mlp_bias));
        } else {
            fields.insert("sliding_window".into(), json!(self.sliding_window));
        }
        if self.model_type.starts_with("qwen") {
            fields.insert("use_sliding_window".into(), json!(self.sliding_window.is_some()));
            if self.sliding_window.is_some() {
                fields.insert("max_window_layers".into(), json!(0));
            }
        }
        fields
    }

    /// Checks that a model of these sizes can be built.
    ///
    /// Errors: names the key, what was found, what was expected and the way out.
    pub fn validate(&self) -> Result<(), ModelError> {
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("head_dim", self.head_dim),
        ] {
            if size == 0 || size as u64 > MOST {
                let expected = format!("1 to {MOST}");
                return Err(wrong(key, &json!(size), &expected, "correct it in `config.json`"));
            }
        }
        let (query, kv) = (self.num_attention_heads, self.num_key_value_heads);
        if kv == 0 || !query.is_multiple_of(kv) {
            let expected = format!("a divisor of `num_attention_heads` = {query}");
            return Err(wrong("num_key_value_heads", &json!(kv), &expected, "correct it in `config.json`"));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(wrong("head_dim", &json!(self.head_dim), "an even size", "rotary positions turn pairs"));
        }
        Ok(())
    }

    /// Number of parameters; a tied head counts once. Saturates: sizes that are valid alone can be absurd together.
    pub fn num_parameters(&self) -> usize {
        let wide = |size: usize| size as u128;
        let (d, f, e) = (wide(self.hidden_size), wide(self.intermediate_size), wide(self.head_dim));
        let (q, kv) = (wide(self.num_attention_heads) * e, wide(self.num_key_value_heads) * e);
        let biases = u128::from(self.qkv_bias) * (q + 2 * kv)
            + u128::from(self.o_bias) * d
            + u128::from(self.mlp_bias) * (2 * f + d);
        let norms = 2 * d + if self.qk_norm { 2 * e } else { 0 };
        let block = d * (q + 2 * kv) + q * d + 3 * d * f + biases + norms;
        let head = if self.tie_word_embeddings { 1 } else { 2 } * wide(self.vocab_size) * d;
        usize::try_from(head + wide(self.num_hidden_layers) * block + d).unwrap_or(usize::MAX)
    }

    /// Floating-point operations of one training step over `tokens` tokens in sequences of `context`, as
    /// [`crate::Gpt2Config::training_flops`] counts them.
    pub fn training_flops(&self, tokens: usize, context: usize) -> f64 {
        let (d, f, e) = (self.hidden_size as f64, self.intermediate_size as f64, self.head_dim as f64);
        let (q, kv) = (self.num_attention_heads as f64 * e, self.num_key_value_heads as f64 * e);
        let layers = self.num_hidden_layers as f64;
        let weights = layers * (d * (2.0 * q + 2.0 * kv) + 3.0 * d * f) + self.vocab_size as f64 * d;
        let attention = layers * q * (context as f64 + 1.0);
        tokens as f64 * (6.0 * weights + 6.0 * attention)
    }
}

impl RopeScaling {
    fn to_json(&self) -> Value {
        match *self {
            Self::Default => Value::Null,
            Self::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings}),
            Self::Yarn { factor, beta_fast, beta_slow, attention_factor, original_max_position_embeddings } => {
                let mut value = json!({
                    "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                    "original_max_position_embeddings": original_max_position_embeddings});
                if let Some(attention_factor) = attention_factor {
                    value["attention_factor"] = json!(attention_factor);
                }
                value
            }
        }
    }
}

/// Base and stretching, from `rope_theta` and `rope_scaling` or from the newer `rope_parameters`.
fn rope(keys: &mut Keys<'_>, max_positions: usize) -> Result<(f64, RopeScaling), ModelError> {
    let theta = keys.number("rope_theta", 10_000.0)?;
    let (key, value) = match (keys.get("rope_parameters"), keys.get("rope_scaling")) {
        (Some(value), _) => ("rope_parameters", value),
        (None, Some(value)) => ("rope_scaling", value),
        (None, None) => return Ok((theta, RopeScaling::Default)),
    };
    let Some(fields) = value.as_object() else {
        return Err(wrong(key, value, "an object", "correct it in `config.json`"));
    };
    let mut inner = Keys { fields, read: Vec::new() };
    let theta = inner.number("rope_theta", theta)?;
    inner.only("partial_rotary_factor", &[json!(1.0), json!(1)])?;
    let old_name = inner.get("type");
    let rope_type = inner.get("rope_type").or(old_name).cloned().unwrap_or_else(|| json!("default"));
    let scaling = match rope_type.as_str().unwrap_or_default() {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: inner.number("factor", 1.0)? },
        "llama3" => RopeScaling::Llama3 {
            factor: inner.number("factor", 8.0)?,
            low_freq_factor: inner.number("low_freq_factor", 1.0)?,
            high_freq_factor: inner.number("high_freq_factor", 4.0)?,
            original_max_position_embeddings: inner.size("original_max_position_embeddings", Some(8192))?,
        },
        "yarn" => {
            inner.only("truncate", &[json!(true)])?;
            inner.only("mscale", &[])?;
            inner.only("mscale_all_dim", &[])?;
            let given = inner.get("attention_factor").is_some();
            RopeScaling::Yarn {
                factor: inner.number("factor", 1.0)?,
                beta_fast: inner.number("beta_fast", 32.0)?,
                beta_slow: inner.number("beta_slow", 1.0)?,
                attention_factor: if given { Some(inner.number("attention_factor", 1.0)?) } else { None },
                original_max_position_embeddings: inner
                    .size("original_max_position_embeddings", Some(max_positions))?,
            }
        }
        _ => {
            let expected = "`default`, `linear`, `llama3` or `yarn` as its type";
            return Err(wrong(key, value, expected, "this version computes no other rotary positions"));
        }
    };
    inner.nothing_else()?;
    Ok((theta, scaling))
}

/// The window that all layers share: Qwen's are switched on apart, and Llama has none.
fn sliding_window(keys: &mut Keys<'_>, model_type: &str) -> Result<Option<usize>, ModelError> {
    let window = match keys.get("sliding_window") {
        Some(_) => Some(keys.size("sliding_window", None)?),
        None => None,
    };
    let qwen = model_type.starts_with("qwen");
    let on = keys.switch("use_sliding_window", !qwen)?;
    let full_layers = keys.fields.get("max_window_layers").and_then(Value::as_u64).unwrap_or(0);
    if qwen && on && window.is_some() && full_layers > 0 {
        let found = json!(full_layers);
        return Err(wrong("max_window_layers", &found, "0", "this version gives all layers the same window"));
    }
    if let Some(Value::Array(types)) = keys.get("layer_types") {
        let window_here = window.is_some() && on;
        let expected = if window_here { "sliding_attention" } else { "full_attention" };
        if let Some(other) = types.iter().find(|name| name.as_str() != Some(expected)) {
            return Err(wrong("layer_types", other, expected, "this version gives all layers the same window"));
        }
    }
    Ok(window.filter(|_| on && model_type != "llama"))
}
