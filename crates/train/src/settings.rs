//! What a pretraining run is told: every key once, with its help, its default and what it may be.
//!
//! A field of [`PretrainSettings`] is a TOML key, a flag of `cavy pretrain` and a line of `run.toml`; its doc comment is
//! the flag's help and [`PretrainSettings::default`] the only place with its default.

mod check;

pub use check::nearest;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;
use std::str::FromStr;

/// Everything that decides a pretraining run. Same settings, same data, same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct PretrainSettings {
    /// Run directory: settings, metrics, samples, checkpoints, model and report go there
    #[arg(long, help_heading = "Run")]
    pub out: PathBuf,
    /// Seed of the initial weights, the order of the data and the samples
    #[arg(long, help_heading = "Run")]
    pub seed: u64,
    /// Worker threads (0: one for each core)
    #[arg(long, help_heading = "Run")]
    pub threads: usize,

    /// Training text: files, folders, JSONL, or `builtin:stories` for generated text
    #[arg(long, help_heading = "Data")]
    pub data: Vec<String>,
    /// Validation text (none given: a share of the training text is held out)
    #[arg(long, help_heading = "Data")]
    pub val_data: Vec<String>,
    /// Share of the text that is held out when there is no `val_data`
    #[arg(long, help_heading = "Data")]
    pub val_fraction: f64,
    /// Field of a JSONL line that holds the text
    #[arg(long, help_heading = "Data")]
    pub text_key: String,
    /// `gpt2`, `char`, `byte`, `bpe:N` (trained on the data, N tokens) or the path of a `tokenizer.json`
    #[arg(long, help_heading = "Data")]
    pub tokenizer: String,
    /// Tokens between the starts of two windows (0: the context length, so that windows do not overlap)
    #[arg(long, help_heading = "Data")]
    pub stride: usize,
    /// Order of the windows: a new permutation each epoch, as they lie in the text, or anywhere at random
    #[arg(long, help_heading = "Data")]
    pub window_order: WindowOrder,
    /// Leave out an epoch's last batch if it is not full
    #[arg(long, help_heading = "Data")]
    pub drop_last: bool,

    /// Published size to build; `custom` needs the sizes below
    #[arg(long, help_heading = "Model")]
    pub arch: Arch,
    /// Width of the residual stream (0: that of `arch`)
    #[arg(long, help_heading = "Model")]
    pub hidden_size: usize,
    /// Blocks (0: those of `arch`)
    #[arg(long, help_heading = "Model")]
    pub num_hidden_layers: usize,
    /// Attention heads (0: those of `arch`)
    #[arg(long, help_heading = "Model")]
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer (0: four times the hidden size)
    #[arg(long, help_heading = "Model")]
    pub intermediate_size: usize,
    /// Rows of the embedding (0: the tokenizer's vocabulary)
    #[arg(long, help_heading = "Model")]
    pub vocab_size: usize,
    /// Tokens in a window, and positions the model knows
    #[arg(long, help_heading = "Model")]
    pub context_length: usize,
    /// Dropout on embeddings, attention weights and residual branches
    #[arg(long, help_heading = "Model")]
    pub drop_rate: f64,
    /// Give the query, key and value projections a bias
    #[arg(long, help_heading = "Model")]
    pub qkv_bias: bool,
    /// Use the token embedding as output head
    #[arg(long, help_heading = "Model")]
    pub tie_word_embeddings: bool,
    /// Distribution of the initial weights
    #[arg(long, help_heading = "Model")]
    pub weight_init: WeightInit,

    /// Windows in a micro-batch
    #[arg(long, help_heading = "Optimization")]
    pub batch_size: usize,
    /// Micro-batches in an optimizer step
    #[arg(long, help_heading = "Optimization")]
    pub grad_accum_steps: usize,
    /// Passes over the data
    #[arg(long, help_heading = "Optimization")]
    pub epochs: usize,
    /// Optimizer steps, instead of `epochs` (0: from `epochs`)
    #[arg(long, help_heading = "Optimization")]
    pub max_steps: usize,
    /// Learning rate at step 0, where the warmup begins
    #[arg(long, help_heading = "Optimization")]
    pub initial_lr: f64,
    /// Learning rate at the end of the warmup
    #[arg(long, help_heading = "Optimization")]
    pub peak_lr: f64,
    /// Learning rate at the end of the decay
    #[arg(long, help_heading = "Optimization")]
    pub min_lr: f64,
    /// Steps of linear warmup: a count, or a fraction of all steps between 0 and 1
    #[arg(long, help_heading = "Optimization")]
    pub warmup_steps: Warmup,
    /// Course of the learning rate after the warmup
    #[arg(long, help_heading = "Optimization")]
    pub lr_schedule: LrSchedule,
    /// Share of all steps in which the `wsd` schedule decays, at the end
    #[arg(long, help_heading = "Optimization")]
    pub decay_fraction: f64,
    /// Decoupled weight decay of matrices and embeddings; norms and biases have none
    #[arg(long, help_heading = "Optimization")]
    pub weight_decay: f64,
    /// Decay of AdamW's mean of gradients
    #[arg(long, help_heading = "Optimization")]
    pub beta1: f64,
    /// Decay of AdamW's mean of squared gradients
    #[arg(long, help_heading = "Optimization")]
    pub beta2: f64,
    /// Added to AdamW's denominator
    #[arg(long, help_heading = "Optimization")]
    pub eps: f64,
    /// Largest global L2 norm of the gradients; larger ones are scaled down to it (0: no clipping)
    #[arg(long, help_heading = "Optimization")]
    pub max_norm: f64,
    /// Clip only after the warmup
    #[arg(long, help_heading = "Optimization")]
    pub clip_after_warmup: bool,
    /// Stop after this many steps in a row whose loss or gradient is not finite
    #[arg(long, help_heading = "Optimization")]
    pub max_skipped_steps: usize,
    /// Recompute activations in the backward pass: less memory, about a third more time
    #[arg(long, help_heading = "Optimization")]
    pub recompute: bool,

    /// Steps between two evaluations (0: only at the end)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub eval_freq: usize,
    /// Batches of an evaluation, for training and validation text each
    #[arg(long, help_heading = "Evaluation and samples")]
    pub eval_iter: usize,
    /// Steps between two samples (0: one at the end of each epoch)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub sample_every: usize,
    /// Text that samples continue
    #[arg(long, help_heading = "Evaluation and samples")]
    pub start_context: String,
    /// Tokens of a sample (0: no samples)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub sample_tokens: usize,
    /// Temperature of samples (0: always the likeliest token)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub temperature: f64,
    /// Samples choose among this many likeliest tokens (0: among all)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub top_k: usize,

    /// Steps between two checkpoints (0: only when the run ends or is stopped)
    #[arg(long, help_heading = "Checkpoints and logs")]
    pub save_every: usize,
    /// Latest checkpoints that are kept, besides the best
    #[arg(long, help_heading = "Checkpoints and logs")]
    pub keep_last: usize,
    /// Steps between two progress lines where there is no terminal
    #[arg(long, help_heading = "Checkpoints and logs")]
    pub log_every: usize,
}

impl Default for PretrainSettings {
    fn default() -> Self {
        Self {
            out: PathBuf::from("runs/pretrain"),
            seed: 42,
            threads: 0,
            data: Vec::new(),
            val_data: Vec::new(),
            val_fraction: 0.1,
            text_key: "text".to_owned(),
            tokenizer: "gpt2".to_owned(),
            stride: 0,
            window_order: WindowOrder::Shuffled,
            drop_last: true,
            arch: Arch::Gpt2_124m,
            hidden_size: 0,
            num_hidden_layers: 0,
            num_attention_heads: 0,
            intermediate_size: 0,
            vocab_size: 0,
            context_length: 256,
            drop_rate: 0.0,
            qkv_bias: true,
            tie_word_embeddings: true,
            weight_init: WeightInit::Gpt2,
            batch_size: 4,
            grad_accum_steps: 1,
            epochs: 1,
            max_steps: 0,
            initial_lr: 0.0,
            peak_lr: 6e-4,
            min_lr: 6e-5,
            warmup_steps: Warmup::Fraction(0.05),
            lr_schedule: LrSchedule::Cosine,
            decay_fraction: 0.2,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            max_norm: 1.0,
            clip_after_warmup: false,
            max_skipped_steps: 10,
            recompute: false,
            eval_freq: 100,
            eval_iter: 10,
            sample_every: 0,
            start_context: "Once upon a time".to_owned(),
            sample_tokens: 64,
            temperature: 0.8,
            top_k: 50,
            save_every: 500,
            keep_last: 2,
            log_every: 10,
        }
    }
}

/// Sizes of a model with the zeros of the settings filled in. The vocabulary may still be the tokenizer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
}

impl PretrainSettings {
    /// The sizes that the settings and their `arch` decide. A size that nobody decides is 0, which
    /// [`PretrainSettings::validate`] refuses.
    pub fn sizes(&self) -> Sizes {
        let (hidden_size, num_hidden_layers, num_attention_heads) = self.arch.sizes().unwrap_or_default();
        let or = |given: usize, otherwise: usize| if given == 0 { otherwise } else { given };
        let hidden_size = or(self.hidden_size, hidden_size);
        Sizes {
            hidden_size,
            num_hidden_layers: or(self.num_hidden_layers, num_hidden_layers),
            num_attention_heads: or(self.num_attention_heads, num_attention_heads),
            intermediate_size: or(self.intermediate_size, 4 * hidden_size),
        }
    }

    /// Tokens between the starts of two windows.
    pub fn stride_tokens(&self) -> usize {
        if self.stride == 0 { self.context_length } else { self.stride }
    }

    /// Tokens in one full optimizer step.
    pub fn tokens_per_step(&self) -> usize {
        self.batch_size * self.context_length * self.grad_accum_steps
    }

    /// Optimizer steps of a run with so many steps in an epoch.
    pub fn total_steps(&self, steps_per_epoch: usize) -> usize {
        if self.max_steps > 0 { self.max_steps } else { self.epochs * steps_per_epoch }
    }
}

/// A published model size, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    /// GPT-2 small: 768 wide, 12 blocks, 12 heads
    Gpt2_124m,
    /// GPT-2 medium: 1024 wide, 24 blocks, 16 heads
    Gpt2_355m,
    /// GPT-2 large: 1280 wide, 36 blocks, 20 heads
    Gpt2_774m,
    /// GPT-2 XL: 1600 wide, 48 blocks, 25 heads
    Gpt2_1558m,
    /// GPT-2's architecture in the sizes given
    Custom,
}

impl Arch {
    /// Width, blocks and heads of a published size.
    ///
    /// Source: table 2 of Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    pub fn sizes(self) -> Option<(usize, usize, usize)> {
        match self {
            Self::Gpt2_124m => Some((768, 12, 12)),
            Self::Gpt2_355m => Some((1024, 24, 16)),
            Self::Gpt2_774m => Some((1280, 36, 20)),
            Self::Gpt2_1558m => Some((1600, 48, 25)),
            Self::Custom => None,
        }
    }
}

/// Order in which training meets the windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WindowOrder {
    /// Each epoch a new seeded permutation
    Shuffled,
    /// As they lie in the text
    Sequential,
    /// At random offsets, independent of each other
    Random,
}

/// Distribution of the initial weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// Normal with deviation 0.02, smaller for what is added to the residual stream
    Gpt2,
    /// Normal with deviation 0.02 everywhere
    Normal,
    /// PyTorch's defaults: embeddings normal with deviation 1, linear layers uniform within 1 / sqrt(inputs)
    Pytorch,
}

impl From<WeightInit> for cavy_model::WeightInit {
    fn from(init: WeightInit) -> Self {
        match init {
            WeightInit::Gpt2 => Self::Gpt2,
            WeightInit::Normal => Self::Normal,
            WeightInit::Pytorch => Self::Pytorch,
        }
    }
}

/// Course of the learning rate after the warmup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LrSchedule {
    /// Stays at the peak
    Constant,
    /// Half a cosine from the peak to the minimum
    Cosine,
    /// A straight line from the peak to the minimum
    Linear,
    /// Warmup, stable, decay: stays at the peak, then a straight line to the minimum
    Wsd,
}

/// Length of the warmup. Written as one number: a whole one is a count, one between 0 and 1 a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// So many steps.
    Steps(usize),
    /// This share of all steps, above 0 and below 1.
    Fraction(f64),
}

impl Warmup {
    /// Warmup steps of a run of `total_steps`. A fraction is rounded to the nearest step; never more than all steps.
    pub fn steps(self, total_steps: usize) -> usize {
        match self {
            Self::Steps(steps) => steps.min(total_steps),
            Self::Fraction(fraction) => (fraction * total_steps as f64).round() as usize,
        }
    }
}

impl TryFrom<f64> for Warmup {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        if number > 0.0 && number < 1.0 {
            Ok(Self::Fraction(number))
        } else if number >= 0.0 && number.fract() == 0.0 && number < 1e15 {
            Ok(Self::Steps(number as usize))
        } else {
            Err(format!("found {number}, expected a count of steps or a fraction between 0 and 1"))
        }
    }
}

impl FromStr for Warmup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: f64 = text.parse().map_err(|_| format!("found `{text}`, expected a number"))?;
        Self::try_from(number)
    }
}

impl Serialize for Warmup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(steps) => serializer.serialize_u64(*steps as u64),
            Self::Fraction(fraction) => serializer.serialize_f64(*fraction),
        }
    }
}

impl<'de> Deserialize<'de> for Warmup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
