//! `cavy merge`: folds adapters into the weights of their base model.

use crate::adapters::AdapterArgs;
use crate::convert::{self, Extras};
use crate::error::CliError;
use crate::open::{ModelArgs, Opened, open, source};
use crate::{Ending, text};
use cavy_model::{Model, Pass};
use cavy_ops::Segments;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// What both models are asked, unless the user gives a text.
const TEXT: &str = "Below is an instruction that describes a task. Write a response that appropriately completes the \
    request.\n\n### Instruction:\nName the three primary colors.\n\n### Response:\nRed, yellow and blue.";

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// Folder of the merged model, in Hugging Face's form
    #[arg(long, short)]
    out: PathBuf,
    /// Text on which the merged model is compared with base and adapters
    #[arg(long, default_value = TEXT, hide_default_value = true)]
    text: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

/// Merges, compares and writes.
pub(crate) fn merge(args: &MergeArgs) -> Result<Ending, CliError> {
    if args.adapters.is_empty() {
        return Err(CliError::usage("there is nothing to merge", "give `--adapter DIR`, or several of them"));
    }
    if args.out.join("config.json").exists() && !args.force {
        let message = format!("{} is already there", args.out.display());
        return Err(CliError::failed(message, "choose another name, or replace it with `--force`"));
    }
    let opened = open(&args.model, &AdapterArgs::default())?;
    let ids = opened.encode(&args.text)?;
    let Opened { model, tokenizer, special, template, .. } = opened;
    let attached = args.adapters.put_on(model)?;
    let before = logits(&attached, &ids);
    let merged = attached.merged();
    let after = logits(&merged, &ids);
    let gap = before.iter().zip(&after).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, |most, gap| {
        // `f64::max` would drop a NaN.
        if gap.is_nan() || gap > most { gap } else { most }
    });
    let largest = before.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
    merged.save(&args.out)?;
    convert::write_beside(&args.out, &source(&args.model)?, &Extras { tokenizer, special, template })?;
    if args.json {
        let json = json!({
            "out": args.out, "max_logit_difference": gap, "max_logit": largest, "tokens": ids.len(),
        });
        text::data(&json.to_string());
    } else {
        text::data(&format!(
            "largest logit difference {gap:.2e}, of logits up to {largest:.2} at {} tokens",
            ids.len()
        ));
        text::say(&format!("{}: merged model", args.out.display()));
    }
    Ok(Ending::Done)
}

/// The logits after every token.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let ids = &ids[..ids.len().min(model.config().context_length())];
    let pass = Pass::new(ids.into(), Arc::new(Segments::uniform(1, ids.len())), None);
    model.logits(&pass, &(0..ids.len()).collect::<Vec<_>>())
}
