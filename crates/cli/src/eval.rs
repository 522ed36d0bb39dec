//! `cavy eval`: a model on text.

use crate::adapters::AdapterArgs;
use crate::error::CliError;
use crate::open::{ModelArgs, Opened, open};
use crate::{Ending, text};
use cavy_model::Pass;
use cavy_ops::Segments;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// How well a model predicts a text: perplexity and bits per byte
    Perplexity(PerplexityArgs),
    /// How well a reward model tells better from worse answers
    Reward(crate::reward::RewardEvalArgs),
}

#[derive(Debug, Args)]
struct PerplexityArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// Text file
    #[arg(long)]
    data: PathBuf,
    /// Tokens of a window; 0 for the model's context, at most 2048
    #[arg(long, default_value_t = 0)]
    context: usize,
    /// Tokens between the starts of two windows; only those not scored before count. 0: half a window
    #[arg(long, default_value_t = 0)]
    stride: usize,
    /// First tokens of the text that are used; 0 for all
    #[arg(long, default_value_t = 0)]
    max_tokens: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures.
pub(crate) fn eval(args: &EvalArgs) -> Result<Ending, CliError> {
    match &args.measure {
        Measure::Perplexity(args) => perplexity(args),
        Measure::Reward(args) => crate::reward::eval(args),
    }
}

fn perplexity(args: &PerplexityArgs) -> Result<Ending, CliError> {
    let opened = open(&args.model, &args.adapters)?;
    let document = fs_err::read_to_string(&args.data).map_err(CliError::read(&args.data))?;
    let mut ids = opened.tokenizer.encode_ordinary(&document)?;
    if args.max_tokens > 0 {
        ids.truncate(args.max_tokens);
    }
    let bytes = opened.tokenizer.decode(&ids).len();
    let model_context = opened.model.config().context_length();
    let context = if args.context == 0 { model_context.min(2048) } else { args.context };
    let stride = if args.stride == 0 { context.div_ceil(2) } else { args.stride };
    if context < 2 || context > model_context || stride >= context {
        let message = format!("windows of {context} tokens, {stride} apart, for a model of context {model_context}");
        return Err(CliError::usage(
            message,
            "choose `--context` within the model's, and `--stride` below that: every token needs one before it",
        ));
    }
    if ids.len() < 2 {
        return Err(CliError::failed("the text has fewer than two tokens", "give more text"));
    }
    let (sum, count) = negative_logprobs(&opened, &ids, context, stride);
    let loss = sum / count as f64;
    // Bits of the tokens that were scored, over the bytes they stand for: all but the first token's.
    let bits_per_byte = sum / std::f64::consts::LN_2 / (bytes as f64 * count as f64 / ids.len() as f64);
    if args.json {
        let json = serde_json::json!({
            "loss": loss, "perplexity": loss.exp(), "bits_per_byte": bits_per_byte, "tokens": count,
            "context": context, "stride": stride,
        });
        text::data(&json.to_string());
    } else {
        text::data(&format!("perplexity    {:.4}", loss.exp()));
        text::data(&format!("loss          {loss:.4} nats a token, {count} tokens scored"));
        text::data(&format!("bits per byte {bits_per_byte:.4}"));
    }
    Ok(Ending::Done)
}

/// Sum of `-ln p` over all tokens but the first, each scored once with at least `context - stride` tokens before it
/// (but for the first window), and their number.
///
/// Source: "Perplexity of fixed-length models" in the documentation of Hugging Face's transformers.
fn negative_logprobs(opened: &Opened, ids: &[u32], context: usize, stride: usize) -> (f64, usize) {
    let progress = ProgressBar::new(ids.len() as u64);
    progress.set_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} tokens, {eta} left").unwrap_or(ProgressStyle::default_bar()),
    );
    let (mut sum, mut count, mut scored, mut start) = (0.0, 0, 1, 0);
    while scored < ids.len() {
        let end = (start + context).min(ids.len());
        let inputs: Arc<[u32]> = ids[start..end - 1].into();
        let targets: Arc<[u32]> = ids[start + 1..end].into();
        let first = scored - start - 1;
        let weights: Vec<f32> = (0..targets.len()).map(|i| if i >= first { 1.0 } else { 0.0 }).collect();
        let pass = Pass::new(Arc::clone(&inputs), Arc::new(Segments::uniform(1, inputs.len())), None);
        let logprobs = opened.model.loss(&pass, &targets, &weights).targets.logprobs;
        sum -= logprobs[first..].iter().map(|&logprob| f64::from(logprob)).sum::<f64>();
        count += logprobs.len() - first;
        scored = end;
        start += stride;
        progress.set_position(end as u64);
    }
    progress.finish_and_clear();
    (sum, count)
}
