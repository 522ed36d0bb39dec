//! `cavy data train-quality`: a classifier of good and bad text from the user's own examples.

use super::explained;
use crate::error::CliError;
use crate::{Ending, text};
use cavy_curate::quality::{QualitySettings, train};
use cavy_curate::read::{expand, read_documents};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct QualityArgs {
    /// Files, folders or patterns of text to keep
    #[arg(long, required = true)]
    good: Vec<String>,
    /// Files, folders or patterns of text to drop
    #[arg(long, required = true)]
    bad: Vec<String>,
    /// File for the model: a recipe's `quality_classifier` step takes it, and fastText reads it
    #[arg(long)]
    out: PathBuf,
    /// Passes over the examples
    #[arg(long, default_value_t = QualitySettings::default().epoch)]
    epoch: usize,
    /// Learning rate at the start
    #[arg(long, default_value_t = QualitySettings::default().lr)]
    lr: f32,
    /// Numbers a word is described by
    #[arg(long, default_value_t = QualitySettings::default().dim)]
    dim: usize,
    /// Longest run of words that counts
    #[arg(long, default_value_t = QualitySettings::default().word_ngrams)]
    word_ngrams: usize,
    /// Order of the examples and initial weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Trains; every tenth example is held out and asked.
pub(crate) fn run(args: &QualityArgs) -> Result<Ending, CliError> {
    let (mut examples, mut held_out) = (Vec::new(), Vec::new());
    for (inputs, label) in [(&args.good, "good"), (&args.bad, "bad")] {
        for (index, path) in expand(inputs).map_err(explained)?.iter().enumerate() {
            let mut number: usize = index;
            let mut each = |document: cavy_curate::Document| {
                number += 1;
                if number.is_multiple_of(10) {
                    held_out.push((document.text, label));
                } else {
                    examples.push((document.text, label));
                }
                Ok(())
            };
            read_documents(path, &mut each, &mut |_| {}).map_err(explained)?;
        }
    }
    let settings = QualitySettings {
        epoch: args.epoch,
        lr: args.lr,
        dim: args.dim,
        word_ngrams: args.word_ngrams,
        seed: args.seed,
        ..QualitySettings::default()
    };
    let model = train(&examples, &settings, &args.out).map_err(explained)?;
    let right =
        held_out.iter().filter(|(text, label)| model.predict(text).is_some_and(|(found, _)| found == *label)).count();
    if args.json {
        let json = serde_json::json!({ "examples": examples.len(), "held_out": held_out.len(), "right": right });
        text::data(&json.to_string());
    } else {
        text::say(&format!(
            "{} examples; {right} of {} held out are told right; {}",
            examples.len(),
            held_out.len(),
            args.out.display()
        ));
    }
    Ok(Ending::Done)
}
