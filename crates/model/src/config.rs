//! The sizes of models: of a GPT-2, and of any architecture.

use crate::error::ModelError;
use crate::llama_config::LlamaConfig;
use cavy_ops::kernels::kv_cache::{KvShape, KvStorage};
use serde::{Deserialize, Serialize};

/// Sizes and switches of a GPT-2.
///
/// In `config.json` they carry Hugging Face's names for this architecture (`n_embd`, `n_layer`, ...); in Rust and in
/// settings they carry the names all architectures share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    /// Tokens of the vocabulary, `V`.
    pub vocab_size: usize,
    /// Longest sequence, since positions are learned.
    #[serde(rename = "n_positions")]
    pub context_length: usize,
    /// Width of the residual stream, `D`.
    #[serde(rename = "n_embd")]
    pub hidden_size: usize,
    /// Blocks, `L`.
    #[serde(rename = "n_layer")]
    pub num_hidden_layers: usize,
    /// Heads per block, `H`.
    #[serde(rename = "n_head")]
    pub num_attention_heads: usize,
    /// Width inside a block's feed-forward part, `F`; 0 or absent for `4 D`.
    #[serde(rename = "n_inner", default, with = "inner")]
    pub intermediate_size: usize,
    /// Probability of dropout: of embeddings, attention weights and the results of both parts of a block.
    #[serde(rename = "resid_pdrop", default)]
    pub drop_rate: f64,
    /// Whether the projection to queries, keys and values has a bias.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// Whether the output head is the token embedding.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Added to the variance in layer norms.
    #[serde(rename = "layer_norm_epsilon", default = "epsilon")]
    pub layer_norm_eps: f64,
}

fn yes() -> bool {
    true
}

fn epsilon() -> f64 {
    1e-5
}

/// `null` in a file is 0 here.
mod inner {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &usize, to: S) -> Result<S::Ok, S::Error> {
        if *value == 0 { to.serialize_none() } else { to.serialize_some(value) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(0))
    }
}

/// Largest size: products of three of them still fit 64 bits.
const MOST: usize = 1 << 20;

/// The four published models: name, width, layers, heads.
pub const PUBLISHED: [(&str, usize, usize, usize); 4] = [
    ("gpt2-124m", 768, 12, 12),
    ("gpt2-355m", 1024, 24, 16),
    ("gpt2-774m", 1280, 36, 20),
    ("gpt2-1558m", 1600, 48, 25),
];

impl Gpt2Config {
    /// A published model by name, such as `gpt2-124m`: vocabulary 50257, context 1024, no dropout.
    ///
    /// Source: Radford et al. 2019, "Language models are unsupervised multitask learners", table 2.
    pub fn published(name: &str) -> Option<Self> {
        let (_, hidden_size, num_hidden_layers, num_attention_heads) =
            PUBLISHED.into_iter().find(|(published, ..)| *published == name)?;
        Some(Self {
            vocab_size: 50257,
            context_length: 1024,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size: 0,
            drop_rate: 0.0,
            qkv_bias: true,
            tie_word_embeddings: true,
            layer_norm_eps: epsilon(),
        })
    }

    /// Width inside the feed-forward part.
    pub fn inner_size(&self) -> usize {
        if self.intermediate_size == 0 { 4 * self.hidden_size } else { self.intermediate_size }
    }

    /// Checks that a model of these sizes can be built.
    ///
    /// Errors: names the key, what was found, what was expected and the way out.
    pub fn validate(&self) -> Result<(), ModelError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("context_length", self.context_length),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
        ];
        for (key, size) in sizes.into_iter().chain([("intermediate_size", self.inner_size())]) {
            if size == 0 || size > MOST {
                let (found, expected) = (size.to_string(), format!("1 to {MOST}"));
                return Err(ModelError::Config {
                    key,
                    found,
                    expected,
                    hint: format!("set `{key}` to a size in that range"),
                });
            }
        }
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if !width.is_multiple_of(heads) {
            let nearest = (1..=heads).rev().find(|h| width.is_multiple_of(*h)).unwrap_or(1);
            let multiple = width.next_multiple_of(heads);
            return Err(ModelError::Heads { key: "hidden_size", width, heads, nearest, multiple });
        }
        for (key, value, range) in
            [("drop_rate", self.drop_rate, 0.0..1.0), ("layer_norm_eps", self.layer_norm_eps, 0.0..1.0)]
        {
            if !range.contains(&value) {
                let (found, expected) = (value.to_string(), "at least 0 and below 1".into());
                return Err(ModelError::Config { key, found, expected, hint: format!("set `{key}` in that range") });
            }
        }
        Ok(())
    }

    /// Number of parameters; a tied head counts once.
    pub fn num_parameters(&self) -> usize {
        let (d, f) = (self.hidden_size, self.inner_size());
        let norm = 2 * d;
        let attention = d * 3 * d + if self.qkv_bias { 3 * d } else { 0 } + d * d + d;
        let mlp = d * f + f + f * d + d;
        let embeddings = (self.vocab_size + self.context_length) * d;
        let head = if self.tie_word_embeddings { 0 } else { self.vocab_size * d };
        embeddings + self.num_hidden_layers * (2 * norm + attention + mlp) + norm + head
    }

    /// Floating-point operations of one training step over `tokens` tokens in sequences of `context`: forward and
    /// backward, matrix products alone, causal attention at the half that is needed.
    ///
    /// Source: Chowdhery et al. 2022, <https://arxiv.org/abs/2204.02311>, appendix B, with the head counted and
    /// look-ups not.
    pub fn training_flops(&self, tokens: usize, context: usize) -> f64 {
        let (d, f) = (self.hidden_size as f64, self.inner_size() as f64);
        let per_layer = 4.0 * d * d + 2.0 * d * f;
        let weights = self.num_hidden_layers as f64 * per_layer + self.vocab_size as f64 * d;
        let attention = self.num_hidden_layers as f64 * d * (context as f64 + 1.0);
        tokens as f64 * (6.0 * weights + 6.0 * attention)
    }
}

/// The sizes of a model of any architecture.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// A GPT-2.
    Gpt2(Gpt2Config),
    /// A model of the Llama family.
    Llama(LlamaConfig),
}

impl From<Gpt2Config> for ModelConfig {
    fn from(config: Gpt2Config) -> Self {
        Self::Gpt2(config)
    }
}

impl From<LlamaConfig> for ModelConfig {
    fn from(config: LlamaConfig) -> Self {
        Self::Llama(config)
    }
}

impl ModelConfig {
    /// Tokens of the vocabulary, `V`.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Gpt2(config) => config.vocab_size,
            Self::Llama(config) => config.vocab_size,
        }
    }

    /// Longest sequence the model was made for.
    pub fn context_length(&self) -> usize {
        match self {
            Self::Gpt2(config) => config.context_length,
            Self::Llama(config) => config.max_position_embeddings,
        }
    }

    /// Number of parameters; a tied head counts once.
    pub fn num_parameters(&self) -> usize {
        match self {
            Self::Gpt2(config) => config.num_parameters(),
            Self::Llama(config) => config.num_parameters(),
        }
    }

    /// Floating-point operations of one training step (see [`Gpt2Config::training_flops`]).
    pub fn training_flops(&self, tokens: usize, context: usize) -> f64 {
        match self {
            Self::Gpt2(config) => config.training_flops(tokens, context),
            Self::Llama(config) => config.training_flops(tokens, context),
        }
    }

    /// Checks that a model of these sizes can be built.
    ///
    /// Errors: names the key, what was found, what was expected and the way out.
    pub fn validate(&self) -> Result<(), ModelError> {
        match self {
            Self::Gpt2(config) => config.validate(),
            Self::Llama(config) => config.validate(),
        }
    }

    /// The shape of a cache of keys and values for this model.
    pub fn kv_shape(&self, storage: KvStorage) -> KvShape {
        match self {
            Self::Gpt2(config) => KvShape {
                layers: config.num_hidden_layers,
                kv_heads: config.num_attention_heads,
                head_dim: config.hidden_size / config.num_attention_heads,
                window: None,
                storage,
            },
            Self::Llama(config) => KvShape {
                layers: config.num_hidden_layers,
                kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
                window: config.sliding_window,
                storage,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes_have_the_published_number_of_parameters() {
        let counts = PUBLISHED.map(|(name, ..)| Gpt2Config::published(name).unwrap().num_parameters());
        assert_eq!(counts, [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]);
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_named() {
        let config = Gpt2Config { num_attention_heads: 7, ..Gpt2Config::published("gpt2-124m").unwrap() };
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains("`hidden_size` = 768") && message.contains("use 6 heads"), "{message}");
    }

    #[test]
    fn zero_sizes_and_a_dropout_of_one_are_refused() {
        let base = Gpt2Config::published("gpt2-124m").unwrap();
        for config in [
            Gpt2Config { vocab_size: 0, ..base.clone() },
            Gpt2Config { num_hidden_layers: 0, ..base.clone() },
            Gpt2Config { drop_rate: 1.0, ..base.clone() },
            Gpt2Config { drop_rate: f64::NAN, ..base.clone() },
        ] {
            assert!(config.validate().is_err());
        }
        assert!(base.validate().is_ok());
    }
}
