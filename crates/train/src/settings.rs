//! What a run is told: every key once, with its help, its default and what it may be.
//!
//! A verb's settings are a plain struct of the groups here and of fields of its own. Each field is a TOML key, a flag of
//! `cavy VERB` and a line of `run.toml`; its doc comment is the flag's help, and the verb's `Default` decides the default,
//! from the group's where the verb has no other.

mod adapter;
mod base;
mod check;
mod choices;
mod classify;
mod dpo;
mod pairs;
mod pretrain;
mod reward;
mod sft;
mod table;

pub use adapter::{AdapterSettings, Scaling};
pub use base::{BaseDtype, ModelSettings, SplitOrder, SplitSettings};
pub use choices::{Arch, LrSchedule, Optim, Precision, Warmup, WeightInit, WindowOrder};
pub use classify::ClassifySettings;
pub use dpo::DpoSettings;
pub use pairs::PairDataSettings;
pub use pretrain::{PretrainSettings, Sizes};
pub use reward::RewardSettings;
pub use sft::SftSettings;
pub use table::{Settings, nearest};

use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a run lives and what makes it this run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct RunSettings {
    /// Run directory: settings, metrics, samples, checkpoints, model and report go there
    #[arg(long, help_heading = "Run")]
    pub out: PathBuf,
    /// Seed of the initial weights, the order of the data and the samples
    #[arg(long, help_heading = "Run")]
    pub seed: u64,
    /// Worker threads (0: one for each core)
    #[arg(long, help_heading = "Run")]
    pub threads: usize,
    /// Precision of matrix products
    #[arg(long, help_heading = "Run")]
    pub precision: Precision,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { out: PathBuf::new(), seed: 42, threads: 0, precision: Precision::F32 }
    }
}

impl RunSettings {
    /// Keys that change neither weights nor data, so that a resumed run may have others.
    pub(crate) const FREE: [&'static str; 2] = ["out", "threads"];

    /// Threads that compute: one for each core unless told otherwise.
    pub fn worker_threads(&self) -> usize {
        if self.threads > 0 { self.threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

/// How parameters are changed, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct OptimizationSettings {
    /// Examples in a micro-batch: windows, conversations or texts
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
    /// Optimizer: AdamW with moments in f32, or in 8 bits where memory is short
    #[arg(long, help_heading = "Optimization")]
    pub optim: Optim,
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
}

impl Default for OptimizationSettings {
    fn default() -> Self {
        Self {
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
            optim: Optim::AdamW,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            max_norm: 1.0,
            clip_after_warmup: false,
            max_skipped_steps: 10,
            recompute: false,
        }
    }
}

impl OptimizationSettings {
    /// Optimizer steps of a run with so many steps in an epoch.
    pub fn total_steps(&self, steps_per_epoch: usize) -> usize {
        if self.max_steps > 0 { self.max_steps } else { self.epochs * steps_per_epoch }
    }

    /// Examples of one full optimizer step.
    pub fn examples_per_step(&self) -> usize {
        self.batch_size * self.grad_accum_steps
    }
}

/// How often a run is measured, and what it is asked to write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct EvaluationSettings {
    /// Steps between two evaluations (0: only at the end)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub eval_freq: usize,
    /// Batches of an evaluation, for training and validation text each (0: all)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub eval_iter: usize,
    /// Steps between two samples (0: one at the end of each epoch)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub sample_every: usize,
    /// Tokens of a sample (0: no samples)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub sample_tokens: usize,
    /// Temperature of samples (0: always the likeliest token)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub temperature: f64,
    /// Samples choose among this many likeliest tokens (0: among all)
    #[arg(long, help_heading = "Evaluation and samples")]
    pub top_k: usize,
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self { eval_freq: 100, eval_iter: 10, sample_every: 0, sample_tokens: 64, temperature: 0.8, top_k: 50 }
    }
}

impl EvaluationSettings {
    /// As [`RunSettings::FREE`].
    pub(crate) const FREE: [&'static str; 6] =
        ["eval_freq", "eval_iter", "sample_every", "sample_tokens", "temperature", "top_k"];
}

/// What is kept, and what is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct CheckpointSettings {
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

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { save_every: 500, keep_last: 2, log_every: 10 }
    }
}

impl CheckpointSettings {
    /// As [`RunSettings::FREE`].
    pub(crate) const FREE: [&'static str; 3] = ["save_every", "keep_last", "log_every"];
}
