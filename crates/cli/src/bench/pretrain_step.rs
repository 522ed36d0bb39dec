//! `cavy bench pretrain-step`: what one training step costs, at any size.

use crate::error::CliError;
use crate::{Ending, text};
use cavy_model::{Device, Gpt2Config, Model, ModelConfig, WeightInit};
use cavy_ops::Segments;
use cavy_ops::kernels::random::subkey;
use cavy_train::objectives::next_token::NextToken;
use cavy_train::optimizer::Optimizer;
use cavy_train::sampler::Batch;
use cavy_train::settings::{OptimizationSettings, Precision};
use cavy_train::step::{StepSettings, step};
use clap::{Args, ValueEnum};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct PretrainStepArgs {
    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How the peer runs the step; here every mode in f32 is the same
    #[arg(long, value_enum, default_value_t = Mode::Eager)]
    mode: Mode,
    /// Blocks
    #[arg(long, default_value_t = 12)]
    layers: usize,
    /// Heads per block
    #[arg(long, default_value_t = 12)]
    heads: usize,
    /// Width of the residual stream
    #[arg(long, default_value_t = 768)]
    width: usize,
    /// Tokens of the vocabulary
    #[arg(long, default_value_t = 50257)]
    vocab: usize,
    /// Sequences of a step
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 256)]
    tokens: usize,
    /// Steps that are timed, after one that is not
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Compute activations again in the backward pass instead of keeping them
    #[arg(long)]
    recompute: bool,
    /// Precision of matrix products
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Operation by operation, in f32
    Eager,
    /// Fused, in f32
    Compile,
}

/// Measures the step with clipping at 1.0 and AdamW, on random tokens.
pub(crate) fn run(args: &PretrainStepArgs) -> Result<Ending, CliError> {
    let config = Gpt2Config {
        vocab_size: args.vocab,
        context_length: args.tokens.max(1024),
        hidden_size: args.width,
        num_hidden_layers: args.layers,
        num_attention_heads: args.heads,
        ..Gpt2Config::published("gpt2-124m").expect("a published size")
    };
    let config = ModelConfig::from(config);
    config.validate().map_err(|error| CliError::usage(error.to_string(), "see `cavy bench pretrain-step --help`"))?;
    if args.batch == 0 || args.tokens == 0 || args.steps == 0 {
        return Err(CliError::usage(
            "`--batch`, `--tokens` and `--steps` are at least 1",
            "leave them out for the defaults",
        ));
    }
    let machine = super::begin(args.threads, args.precision);
    let mut model = Model::new(&config, WeightInit::Gpt2, 0, &Device::flex().autodiff());
    let mut optimizer = Optimizer::new(&OptimizationSettings::default());
    let n = args.batch * args.tokens;
    let random = |key: u64| (0..n as u64).map(|i| (subkey(key, i) % args.vocab as u64) as u32).collect::<Arc<[u32]>>();
    let segments = Arc::new(Segments::uniform(args.batch, args.tokens));
    let batch = Batch { ids: random(1), targets: random(2), trained: None, segments };
    let mut seconds = Vec::new();
    let (mut first_loss, mut last_loss) = (f64::NAN, f64::NAN);
    for index in 0..=args.steps {
        let settings = StepSettings { lr: 1e-4, max_norm: Some(1.0), step: index, seed: 0, recompute: args.recompute };
        let start = Instant::now();
        let (updated, report) = step(model, &mut optimizer, &NextToken, std::slice::from_ref(&batch), &settings);
        model = updated;
        last_loss = report.loss;
        if index == 0 {
            first_loss = report.loss;
        } else {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let step_s = seconds[seconds.len() / 2];
    let peak_mb = super::peak_memory_mb();
    let mfu = config.training_flops(n, args.tokens) / step_s / machine.flops_per_s;
    let tokens_per_s = n as f64 / step_s;
    if args.json {
        let json = serde_json::json!({
            "tool": "cavy", "mode": if args.mode == Mode::Eager { "eager" } else { "compile" },
            "tokens_per_s": tokens_per_s, "step_s": step_s, "first_loss": first_loss, "last_loss": last_loss,
            "mfu": mfu, "peak_mb": peak_mb, "precision": machine.precision,
        });
        text::data(&json.to_string());
    } else {
        text::data(&format!(
            "{tokens_per_s:.0} tokens/s, {step_s:.4} s a step, {:.0} % of matmul rate, {peak_mb} MB",
            100.0 * mfu
        ));
    }
    Ok(Ending::Done)
}
