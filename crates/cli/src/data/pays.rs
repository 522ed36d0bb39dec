//! `cavy data pays`: whether filtering pays, by training the same small model on raw, filtered and deduplicated text.

use super::in_file;
use crate::error::CliError;
use crate::{Ending, report, stop, text, verb};
use cavy_curate::pipeline::{Machine, run as curate};
use cavy_curate::recipe::{ExactDedup, Recipe, Sampler, Step};
use cavy_train::{PretrainSettings, Settings};
use clap::Args;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct PaysArgs {
    /// What to compare, in TOML; without one the built-in comparison
    recipe: Option<PathBuf>,
    /// Raw text instead of the made web: files, folders, patterns
    #[arg(long, requires = "held_out")]
    data: Vec<String>,
    /// Clean text on which the models are measured, with `--data`
    #[arg(long)]
    held_out: Option<PathBuf>,
    /// Folder for everything
    #[arg(long, default_value = "runs/filtering-pays")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const BUILT_IN: &str = include_str!("../../../../recipes/filtering-pays.toml");

/// The comparison.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Comparison {
    /// Seeds of the models.
    seeds: Vec<u64>,
    /// Documents of the made web.
    documents: u64,
    /// Settings of `pretrain`, the same for all.
    model: toml::Table,
    /// The filters.
    filters: Vec<Step>,
    /// What finds copies, after the filters.
    dedup: Vec<Step>,
}

/// The variants, in the order in which they are shown.
const VARIANTS: [&str; 3] = ["raw", "filtered", "filtered-deduplicated"];

/// Makes the text, curates it twice, trains and compares.
pub(crate) fn run(args: &PaysArgs) -> Result<Ending, CliError> {
    let path = args.recipe.clone().unwrap_or_else(|| PathBuf::from("filtering-pays.toml"));
    let source = match &args.recipe {
        Some(path) => fs_err::read_to_string(path).map_err(CliError::read(path))?,
        None => BUILT_IN.to_owned(),
    };
    let comparison: Comparison = toml::from_str(&source).map_err(|error| {
        CliError::usage(
            format!("{}: {}", path.display(), error.to_string().trim_end()),
            "see recipes/filtering-pays.toml",
        )
    })?;
    let (raw, held_out) = match &args.held_out {
        Some(held_out) if !args.data.is_empty() => (args.data.clone(), held_out.clone()),
        _ => {
            let web = args.out.join("web");
            let made = super::make::MakeArgs {
                out: web.clone(),
                documents: comparison.documents,
                files: 4,
                held_out: 200,
                seed: 0,
            };
            super::make::run(&made)?;
            (vec![web.join("raw").display().to_string()], web.join("held-out.jsonl"))
        }
    };
    let (mut rows, mut runs) = (Vec::new(), Vec::new());
    for variant in VARIANTS {
        let steps = match variant {
            // Everything passes; even raw text goes through the pipeline, so that the files have one form and are counted.
            "raw" => vec![Step::Sampler(Sampler { rate: 1.0, seed: 0 })],
            "filtered" => comparison.filters.clone(),
            _ => [comparison.filters.clone(), vec![Step::ExactDedup(ExactDedup::default())], comparison.dedup.clone()]
                .concat(),
        };
        let recipe = Recipe { data: raw.clone(), out: args.out.join(variant), steps, ..Recipe::default() };
        let outcome =
            curate(&recipe, Path::new(""), Machine { threads: 2, ..Machine::default() }, None, stop::flag(), &|_| {})
                .map_err(|error| in_file(&path, error))?;
        let words: u64 = outcome.funnel.steps.last().map_or(0, |step| step.output.tokens);
        text::say(&format!("{variant}: {} files, {} words", outcome.files.len(), text::count(words as f64)));
        let mut losses = Vec::new();
        for &seed in &comparison.seeds {
            let run = args.out.join(format!("{variant}-{seed}"));
            let Some(loss) = train(&comparison.model, &outcome.files, &held_out, &run, seed)? else {
                return Ok(Ending::Stopped);
            };
            losses.push(loss);
            runs.push(run);
        }
        rows.push((variant, losses));
    }
    show(&rows, args.json);
    let page = report::overlaid(&runs, &args.out.join("report.html"))?;
    text::say(&format!("report: {}", page.display()));
    Ok(Ending::Done)
}

/// Trains one model, or finds it trained; its last loss on the held-out text, `None` if it was stopped.
fn train(
    model: &toml::Table,
    data: &[PathBuf],
    held_out: &Path,
    out: &Path,
    seed: u64,
) -> Result<Option<f64>, CliError> {
    let mut table = model.clone();
    let list =
        |paths: &[PathBuf]| toml::Value::Array(paths.iter().map(|path| path.display().to_string().into()).collect());
    table.insert("data".to_owned(), list(data));
    table.insert("val_data".to_owned(), list(&[held_out.to_owned()]));
    table.insert("seed".to_owned(), toml::Value::Integer(seed as i64));
    let mut settings = PretrainSettings::from_table(table)?;
    out.clone_into(&mut settings.run.out);
    settings.validate()?;
    let metrics = out.join("metrics.jsonl");
    if !out.join("model").exists() && verb::run(&settings, out.exists())? == Ending::Stopped {
        return Ok(None);
    }
    let lines = fs_err::read_to_string(&metrics).map_err(CliError::read(&metrics))?;
    let loss = lines
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|line| line["val_loss"].as_f64());
    let loss = loss.ok_or_else(|| {
        CliError::failed(format!("{} has no evaluation", metrics.display()), "set `eval_freq` to at most `max_steps`")
    });
    loss.map(Some)
}

fn show(rows: &[(&str, Vec<f64>)], json: bool) {
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    if json {
        let rows: serde_json::Map<String, serde_json::Value> = rows
            .iter()
            .map(|(variant, losses)| {
                ((*variant).to_owned(), serde_json::json!({ "losses": losses, "mean": mean(losses) }))
            })
            .collect();
        text::data(&serde_json::Value::Object(rows).to_string());
        return;
    }
    let raw = rows.first().map_or(0.0, |(_, losses)| mean(losses));
    for (variant, losses) in rows {
        let each: Vec<String> = losses.iter().map(|loss| format!("{loss:.4}")).collect();
        text::data(&format!("{variant:<22} {}  mean {:.4}  {:+.4}", each.join("  "), mean(losses), mean(losses) - raw));
    }
}
