//! `cavy data curate`: a recipe from start to end, with its report.

use super::{explained, page, recipe, shards, tokenizer};
use crate::error::CliError;
use crate::text::{count, duration, say};
use crate::{Ending, stop, text};
use cavy_curate::CurateError;
use cavy_curate::funnel::Funnel;
use cavy_curate::pipeline::{Machine, Outcome, Progress, run};
use cavy_curate::recipe::Recipe;
use cavy_text::Tokenizer;
use clap::Args;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct CurateArgs {
    /// Recipe in TOML; without one FineWeb's order of steps
    recipe: Option<PathBuf>,
    /// Files, folders or patterns to read (WARC, WET, JSONL, HTML, text; .gz and .zst too), `-` for JSONL from standard input
    #[arg(long)]
    data: Vec<String>,
    /// Folder for the output
    #[arg(long)]
    out: Option<PathBuf>,
    /// Workers [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Memory to stay within, in megabytes; what does not fit goes to disk
    #[arg(long)]
    memory_mb: Option<usize>,
    /// Tokenizer whose tokens are counted: `gpt2`, `bytes` or a tokenizer.json
    #[arg(long)]
    tokenizer: Option<String>,
    /// Also write shuffled shards of tokens
    #[arg(long)]
    shards: bool,
    /// Seed of the shards' order
    #[arg(long)]
    seed: Option<u64>,
    /// Which of the machines that share the output folder this is, from 0
    #[arg(long, default_value_t = 0)]
    rank: usize,
    /// How many machines share the output folder
    #[arg(long, default_value_t = 1)]
    world_size: usize,
    /// Print the funnel as one JSON object
    #[arg(long)]
    json: bool,
    /// Print the decided recipe and what would be read
    #[arg(long)]
    dry_run: bool,
}

/// The recipe with what the flags say, and the folder from which its paths are read.
fn decide(args: &CurateArgs) -> Result<(Recipe, PathBuf), CliError> {
    let (mut recipe, base) = recipe(args.recipe.as_deref())?;
    if !args.data.is_empty() {
        recipe.data.clone_from(&args.data);
    }
    if let Some(out) = &args.out {
        recipe.out.clone_from(out);
    }
    recipe.memory_mb = args.memory_mb.unwrap_or(recipe.memory_mb);
    recipe.seed = args.seed.unwrap_or(recipe.seed);
    recipe.shards |= args.shards;
    if let Some(name) = &args.tokenizer {
        recipe.tokenizer.clone_from(name);
    }
    if recipe.data.is_empty() || recipe.out.as_os_str().is_empty() {
        let hint = "say what to read with `--data` and where to write with `--out`";
        return Err(CliError::usage("no data or no output folder", hint));
    }
    if args.rank >= args.world_size {
        let message = format!("rank {} of {} machines", args.rank, args.world_size);
        return Err(CliError::usage(message, "ranks count from 0"));
    }
    if recipe.shards && recipe.tokenizer.is_empty() {
        return Err(CliError::usage("shards need a tokenizer", "add `--tokenizer gpt2`"));
    }
    Ok((recipe, base))
}

/// Curates.
pub(crate) fn curate(args: &CurateArgs) -> Result<Ending, CliError> {
    crate::start::give_memory_back();
    let (recipe, base) = decide(args)?;
    let tokenizer = tokenizer(&recipe.tokenizer, &base)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(cores).max(1);
    let machine = Machine { threads, rank: args.rank, world_size: args.world_size };
    if args.dry_run {
        let files = cavy_curate::read::expand(&recipe.data).map_err(explained)?;
        let sizes = files.iter().filter_map(|file| fs_err::metadata(file).ok()).map(|metadata| metadata.len());
        say(&format!("{} files, {}; {threads} workers", files.len(), text::bytes(sizes.sum::<u64>() as f64)));
        text::data(toml::to_string(&recipe).unwrap_or_default().trim_end());
        return Ok(Ending::Done);
    }
    let counter = tokenizer
        .as_ref()
        .map(|tokenizer| move |text: &str| tokenizer.encode_ordinary(text).map_or(0, |ids| ids.len()));
    let tokens = counter.as_ref().map(|counter| counter as &(dyn Fn(&str) -> usize + Sync));
    let start = Instant::now();
    let watch = Watch::new(start);
    let outcome = match run(&recipe, &base, machine, tokens, stop::flag(), &|progress| watch.show(progress)) {
        Ok(outcome) => outcome,
        Err(CurateError::Stopped) => {
            say("stopped; the same command goes on from here");
            return Ok(Ending::Stopped);
        }
        Err(error) => return Err(explained(error)),
    };
    // One machine writes what all have found.
    if args.rank == 0 {
        finish(&recipe, &outcome, tokenizer.as_ref(), (start, threads))?;
        if args.json {
            text::data(&serde_json::to_string(&outcome.funnel).expect("counts and strings are JSON"));
        }
    }
    Ok(Ending::Done)
}

/// Writes shards, funnel and report, and says what came of it.
fn finish(
    recipe: &Recipe,
    outcome: &Outcome,
    tokenizer: Option<&Tokenizer>,
    (start, threads): (Instant, usize),
) -> Result<(), CliError> {
    let seconds = start.elapsed().as_secs_f64();
    if let (true, Some(tokenizer)) = (recipe.shards, tokenizer) {
        let folder = recipe.out.join("shards");
        let written = shards::write(&folder, &outcome.files, tokenizer, recipe.seed)?;
        say(&format!("{} tokens in shuffled shards in {}", count(written as f64), folder.display()));
    }
    let unit = if tokenizer.is_some() { "tokens" } else { "words" };
    let funnel_path = recipe.out.join("funnel.json");
    let json = serde_json::to_string_pretty(&outcome.funnel).expect("counts and strings are JSON");
    fs_err::write(&funnel_path, &json).map_err(CliError::write(&funnel_path))?;
    let report = recipe.out.join("report.html");
    let html = page::render(recipe, outcome, unit, seconds, threads);
    fs_err::write(&report, html).map_err(CliError::write(&report))?;
    for damage in outcome.funnel.damages.iter().take(20) {
        let place = if damage.is_line { "line" } else { "byte" };
        say(&format!("{}: {place} {}: {}", damage.path.display(), damage.at, damage.found));
    }
    table(&outcome.funnel, unit);
    let read = count(outcome.documents_read as f64);
    say(&format!("{read} documents read in {}; report: {}", duration(seconds), report.display()));
    Ok(())
}

/// The funnel as lines.
fn table(funnel: &Funnel, unit: &str) {
    for step in &funnel.steps {
        let (input, output) = (&step.input, &step.output);
        let share = 100.0 * output.documents as f64 / (input.documents as f64).max(1.0);
        let reasons: Vec<String> =
            step.reasons.iter().map(|(reason, count)| format!("{reason} {}", count.dropped.documents)).collect();
        say(&format!(
            "{:<18} {:>8} -> {:>8} documents ({share:>5.1} %), {:>7} {unit}  {}",
            step.step,
            input.documents,
            output.documents,
            count(output.tokens as f64),
            reasons.join(", ")
        ));
    }
}

/// Progress lines, at most one a second.
struct Watch {
    start: Instant,
    /// When something was said last, and when this phase began and how many of its shards were done then.
    last: Mutex<(Instant, usize, Instant, usize)>,
}

impl Watch {
    fn new(start: Instant) -> Self {
        Self { start, last: Mutex::new((start, usize::MAX, start, 0)) }
    }

    fn show(&self, progress: &Progress) {
        let Ok(mut last) = self.last.lock() else { return };
        let now = Instant::now();
        if last.1 != progress.phase {
            (last.1, last.2, last.3) = (progress.phase, now, progress.done);
        }
        if now.duration_since(last.0).as_secs_f64() < 1.0 {
            return;
        }
        last.0 = now;
        let fresh = progress.done.saturating_sub(last.3);
        let rate = fresh as f64 / now.duration_since(last.2).as_secs_f64();
        let left = (progress.shards - progress.done) as f64 / rate;
        say(&format!(
            "phase {} of {}: {} of {} files, {} documents, {:.0} a second, {} left",
            progress.phase + 1,
            progress.phases,
            progress.done,
            progress.shards,
            count(progress.documents as f64),
            progress.documents as f64 / self.start.elapsed().as_secs_f64(),
            duration(left)
        ));
    }
}
