//! Settings of pretraining.

use super::check::demand;
use super::{
    Arch, CheckpointSettings, EvaluationSettings, OptimizationSettings, RunSettings, Settings, WeightInit, WindowOrder,
};
use crate::SettingsError;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that decides a pretraining run. Same settings, same data, same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct PretrainSettings {
    /// Where the run lives.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunSettings,

    /// Training text: files, folders, JSONL, shards, or `builtin:stories` for generated text
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

    /// How parameters are changed.
    #[command(flatten)]
    #[serde(flatten)]
    pub optimization: OptimizationSettings,

    /// How often the run is measured.
    #[command(flatten)]
    #[serde(flatten)]
    pub evaluation: EvaluationSettings,
    /// Text that samples continue
    #[arg(long, help_heading = "Evaluation and samples")]
    pub start_context: String,

    /// What is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub checkpoints: CheckpointSettings,
}

impl Default for PretrainSettings {
    fn default() -> Self {
        Self {
            run: RunSettings { out: PathBuf::from("runs/pretrain"), ..RunSettings::default() },
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
            optimization: OptimizationSettings::default(),
            evaluation: EvaluationSettings::default(),
            start_context: "Once upon a time".to_owned(),
            checkpoints: CheckpointSettings::default(),
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
        self.optimization.examples_per_step() * self.context_length
    }
}

impl Settings for PretrainSettings {
    const VERB: &'static str = "pretrain";
    const FREE: &'static [&'static str] = &["data", "val_data", "text_key", "start_context"];

    fn run(&self) -> &RunSettings {
        &self.run
    }

    fn run_mut(&mut self) -> &mut RunSettings {
        &mut self.run
    }

    fn optimization(&self) -> &OptimizationSettings {
        &self.optimization
    }

    fn evaluation(&self) -> &EvaluationSettings {
        &self.evaluation
    }

    fn checkpoints(&self) -> &CheckpointSettings {
        &self.checkpoints
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.validate_data()?;
        self.validate_model()?;
        self.validate_groups()
    }
}

impl PretrainSettings {
    fn validate_data(&self) -> Result<(), SettingsError> {
        let hint = "give a file, a folder or `builtin:stories`";
        demand(!self.data.is_empty(), "data", "nothing", "at least one path", hint)?;
        let hint = "0.1 holds back a tenth; or give `val_data` a file";
        let inside = self.val_fraction > 0.0 && self.val_fraction < 1.0;
        demand(inside || !self.val_data.is_empty(), "val_fraction", self.val_fraction, "above 0 and below 1", hint)?;
        if let Some(count) = self.tokenizer.strip_prefix("bpe:") {
            let enough = count.parse::<usize>().is_ok_and(|count| count >= 257);
            let hint = "write for instance `bpe:4096`";
            demand(enough, "tokenizer", &self.tokenizer, "`bpe:N` with N at least 257", hint)?;
        }
        demand(!self.text_key.is_empty(), "text_key", "nothing", "the name of a field", "the usual name is `text`")
    }

    fn validate_model(&self) -> Result<(), SettingsError> {
        let sizes = self.sizes();
        for (key, size) in [
            ("hidden_size", sizes.hidden_size),
            ("num_hidden_layers", sizes.num_hidden_layers),
            ("num_attention_heads", sizes.num_attention_heads),
        ] {
            let hint = "`arch = \"custom\"` needs every size; a published `arch` brings its own";
            demand(size > 0, key, size, "a number above 0", hint)?;
        }
        let (width, heads) = (sizes.hidden_size, sizes.num_attention_heads);
        if !width.is_multiple_of(heads) {
            let below = (1..heads).rev().find(|heads| width.is_multiple_of(*heads)).unwrap_or(1);
            let hint = format!("use {below} heads, or a hidden size of {}", width.next_multiple_of(heads));
            let expected = format!("a number of heads that divides hidden_size = {width}");
            return demand(false, "num_attention_heads", heads, &expected, &hint);
        }
        let hint = "the more a model may look back, the more it costs; 256 is a good start on a CPU";
        demand(self.context_length > 0, "context_length", self.context_length, "a number above 0", hint)?;
        let hint = "0.1 is usual for small data, 0 for large";
        demand((0.0..1.0).contains(&self.drop_rate), "drop_rate", self.drop_rate, "at least 0 and below 1", hint)
    }
}
