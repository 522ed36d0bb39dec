//! `cavy bench decode`: how fast a model reads prompts and writes answers, as the peers' scripts measure it.

use crate::adapters::AdapterArgs;
use crate::error::CliError;
use crate::open::{ModelArgs, open};
use crate::{Ending, text};
use cavy_generate::{Chat, GenerateSettings, KvStorage, Sampling, generate};
use clap::Args;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Text that the answer continues
    #[arg(long, default_value = "Once upon a time")]
    prompt: String,
    /// Tokens of an answer
    #[arg(long, default_value_t = 128)]
    new_tokens: usize,
    /// Tokens of the prompt whose reading is timed
    #[arg(long, default_value_t = 512)]
    prefill: usize,
    /// Answers written together
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Compute everything anew for every token
    #[arg(long)]
    no_cache: bool,
    /// Timed answers, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures greedy answers and the reading of a prompt.
pub(crate) fn run(args: &DecodeArgs) -> Result<Ending, CliError> {
    let opened = open(&args.model, &AdapterArgs::default())?;
    let (model, prompt) = (&opened.model, opened.encode(&args.prompt)?);
    let settings = |max_tokens| GenerateSettings {
        max_tokens,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        batch_size: args.batch,
        use_cache: !args.no_cache,
        ..GenerateSettings::default()
    };
    let prompts = vec![prompt; args.batch.max(1)];
    let decode = |new_tokens: usize| {
        // The clock starts once the prompt has been read, with the first token.
        let mut began = None;
        let mut seen = 0;
        let ids = generate(model, &prompts, &settings(new_tokens), &mut |_, _, _| {
            began.get_or_insert_with(Instant::now);
            seen += 1;
            false
        });
        let seconds = began.map_or(f64::NAN, |began| began.elapsed().as_secs_f64());
        // The first token of each answer came from the prompt, the others from the decoding that is timed.
        ((seen - prompts.len()) as f64 / seconds, ids[0][0].tokens.clone())
    };
    decode(8);
    let best = (0..args.runs.max(1)).map(|_| decode(args.new_tokens)).max_by(|a, b| a.0.total_cmp(&b.0));
    let (rate, ids) = best.expect("at least one run");
    let vocabulary = model.config().vocab_size() as u32;
    let tokens: Vec<u32> = (0..args.prefill as u32).map(|i| (1000 + 37 * i) % vocabulary).collect();
    let mut reader = Chat::new(model, args.prefill + 1, KvStorage::F32);
    let began = Instant::now();
    reader.answer(model, &tokens, &settings(1), &mut |_| false);
    let prefill = args.prefill as f64 / began.elapsed().as_secs_f64();
    if args.json {
        let json = serde_json::json!({
            "tool": "cavy", "decode_tokens_per_s": rate, "prefill_tokens_per_s": prefill, "ids": ids,
            "threads": cavy_ops::exec().threads(), "batch": args.batch,
        });
        text::data(&json.to_string());
    } else {
        text::data(&format!("decode   {rate:.1} tokens/s, {} answers at a time", args.batch));
        text::data(&format!("prefill  {prefill:.1} tokens/s"));
    }
    Ok(Ending::Done)
}
