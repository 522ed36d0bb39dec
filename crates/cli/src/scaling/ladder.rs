//! `cavy scaling ladder`: small models foretell a larger one, which is then trained to see.
//!
//! A ladder's folder holds `ladder.toml` (what was asked), `text/` (training and validation text, tokenizer), one run
//! directory for each rung, `forecast.json` (written before the model it is about is trained) and `report.html`.

mod corpus;
mod design;
mod page;
mod watch;

use super::quantity;
use crate::error::CliError;
use crate::options::TomlFile;
use crate::report::{self, load::RunData};
use crate::{Ending, stop, text};
use cavy_scaling::Point;
use cavy_scaling::ladder::{Forecast, forecast};
use cavy_train::{Outcome, pretrain};
use clap::Args;
use design::{Design, Rung};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use watch::{Board, RungWatch};

/// Share of models that the interval should hold.
const SHARE: f64 = 0.95;
/// Replicates of the bootstrap.
const REPLICATES: usize = 2000;

#[derive(Debug, Args)]
pub(crate) struct LadderArgs {
    #[command(flatten)]
    settings: LadderSettings,
    /// Folder of the ladder; what is finished in it is not trained again
    #[arg(long, value_name = "DIR", default_value = "runs/ladder")]
    out: PathBuf,
    /// Threads (0: one for each core); small models are trained side by side, one on each
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Show the rungs and what they cost, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

/// What decides a ladder's numbers. Kept in `ladder.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub(crate) struct LadderSettings {
    /// Training text: files, folders, JSONL, or `builtin:stories` for generated text
    #[arg(long, num_args = 1.., default_value = "builtin:stories", value_name = "PATH")]
    pub(super) data: Vec<String>,
    /// Field of a JSONL line that holds the text
    #[arg(long, default_value = "text")]
    pub(super) text_key: String,
    /// `bpe:N` (trained on the text, N tokens), `gpt2`, `byte`, or the path of a `tokenizer.json`
    #[arg(long, default_value = "bpe:512")]
    pub(super) tokenizer: String,
    /// Parameters of the smallest model
    #[arg(long, default_value = "50k", value_parser = quantity::parse, value_name = "N")]
    pub(super) smallest: f64,
    /// Parameters of the largest model that the forecast rests on
    #[arg(long, default_value = "300k", value_parser = quantity::parse, value_name = "N")]
    pub(super) largest: f64,
    /// Sizes from the smallest to the largest
    #[arg(long, default_value_t = 5)]
    pub(super) sizes: usize,
    /// Parameters of the model to foretell
    #[arg(long, default_value = "600k", value_parser = quantity::parse, value_name = "N")]
    pub(super) target: f64,
    /// Tokens for each parameter; sizes below the largest are also trained on half and twice as many
    #[arg(long, default_value_t = 10.0)]
    pub(super) tokens_per_parameter: f64,
    /// Runs of the two smallest sizes that differ in their seed alone, which tell how noisy runs are
    #[arg(long, default_value_t = 3)]
    pub(super) seeds: usize,
    /// Tokens of a window
    #[arg(long, default_value_t = 64)]
    pub(super) context_length: usize,
    /// Seed of everything
    #[arg(long, default_value_t = 42)]
    pub(super) seed: u64,
}

/// A rung with what it came to.
#[derive(Clone, Debug)]
struct Trained {
    rung: Rung,
    loss: f64,
    seconds: f64,
}

/// Trains the rungs, foretells, trains the target, and reports.
pub(crate) fn ladder(args: &LadderArgs) -> Result<Ending, CliError> {
    let settings = &args.settings;
    check(settings)?;
    let threads =
        if args.threads > 0 { args.threads } else { std::thread::available_parallelism().map_or(1, usize::from) };
    if !args.dry_run {
        remember(settings, &args.out)?;
    }
    let text_folder = args.out.join("text");
    let tokens = if args.dry_run { None } else { Some(corpus::prepare(settings, &text_folder)?) };
    let vocab = match tokens {
        Some(tokens) => tokens.vocab_size,
        None => corpus::vocab_size(&settings.tokenizer)?,
    };
    let design = Design::new(settings, vocab);
    design.describe(tokens).iter().for_each(|line| text::say(line));
    if args.dry_run {
        return Ok(Ending::Done);
    }
    let board = Mutex::new(Board::new(design.all().map(Rung::flops).sum()));
    let Some(rungs) = climb(&design.rungs, settings, &args.out, (threads, 1), &board)? else {
        return Ok(stopped(&args.out));
    };
    let points: Vec<Point> = rungs.iter().map(Trained::point).collect();
    let target = &design.target;
    let (n, d) = (target.parameters, target.tokens());
    let forecast = forecast(&points, (n, d), (SHARE, REPLICATES, settings.seed), threads)?;
    let path = args.out.join("forecast.json");
    let written = json!({"parameters": n, "tokens": d, "forecast": forecast});
    fs_err::write(&path, format!("{written:#}\n")).map_err(CliError::write(&path))?;
    text::say(&format!(
        "forecast for {} parameters on {} tokens: {:.4}, 95 %: {:.4} to {:.4} ({})",
        quantity::shown(n),
        quantity::shown(d),
        forecast.loss,
        forecast.interval.0,
        forecast.interval.1,
        path.display()
    ));
    let Some(measured) = climb(std::slice::from_ref(target), settings, &args.out, (1, threads), &board)? else {
        return Ok(stopped(&args.out));
    };
    board.lock().unwrap_or_else(std::sync::PoisonError::into_inner).finish();
    conclude(&rungs, &measured[0], &forecast, args)?;
    Ok(Ending::Done)
}

fn stopped(out: &Path) -> Ending {
    text::say(&format!("stopped; the same command goes on in {}", out.display()));
    Ending::Stopped
}

/// Says and writes how the forecast did.
fn conclude(rungs: &[Trained], measured: &Trained, forecast: &Forecast, args: &LadderArgs) -> Result<(), CliError> {
    let inside = (forecast.interval.0..=forecast.interval.1).contains(&measured.loss);
    let page = report::save(&args.out.join("report.html"), &page::render(rungs, measured, forecast)?)?;
    let verdict = if inside { "inside" } else { "outside" };
    text::say(&format!(
        "measured {:.4}: {verdict} the interval, {:+.2} % from the forecast",
        measured.loss,
        100.0 * (measured.loss / forecast.loss - 1.0)
    ));
    text::say(&format!("report: {}", page.display()));
    let rung = |trained: &Trained| {
        json!({"parameters": trained.rung.parameters, "tokens": trained.rung.tokens(), "seed": trained.rung.seed,
               "loss": trained.loss, "seconds": trained.seconds, "run": trained.rung.name()})
    };
    let seconds: f64 = rungs.iter().chain([measured]).map(|trained| trained.seconds).sum();
    let outcome = json!({
        "rungs": rungs.iter().map(rung).collect::<Vec<_>>(), "forecast": forecast, "target": rung(measured),
        "inside": inside, "training_seconds": seconds,
    });
    let path = args.out.join("outcome.json");
    fs_err::write(&path, format!("{outcome:#}\n")).map_err(CliError::write(&path))?;
    if args.json {
        text::data(&outcome.to_string());
    }
    Ok(())
}

/// Refuses a ladder that cannot be.
fn check(settings: &LadderSettings) -> Result<(), CliError> {
    let LadderSettings { smallest, largest, target, .. } = *settings;
    if !(smallest < largest && largest < target) {
        let found = [smallest, largest, target].map(quantity::shown).join(", ");
        return Err(CliError::usage(
            format!("the smallest, the largest and the target size are {found}"),
            "let each be larger than the one before, for instance 50k, 300k and 600k",
        ));
    }
    if settings.sizes < 3 || settings.seeds == 0 || settings.context_length < 8 {
        return Err(CliError::usage(
            "a ladder needs three sizes, one seed and a context of 8 tokens at least".to_owned(),
            "raise `--sizes`, `--seeds` or `--context-length`",
        ));
    }
    let ratio = settings.tokens_per_parameter;
    if !(0.1..=1000.0).contains(&ratio) {
        return Err(CliError::usage(format!("`--tokens-per-parameter` is {ratio}"), "give a number from 0.1 to 1000"));
    }
    Ok(())
}

/// Writes `ladder.toml`, or compares with the one that is there.
///
/// Errors: another ladder in the folder; the disk's.
fn remember(settings: &LadderSettings, out: &Path) -> Result<(), CliError> {
    let path = out.join("ladder.toml");
    if path.exists() {
        let table = TomlFile::read(&path)?.table;
        if table.try_into::<LadderSettings>().ok().as_ref() != Some(settings) {
            let message = format!("{} is of a ladder with other settings", path.display());
            return Err(CliError::usage(message, "give its settings again, or another folder with `--out`"));
        }
        return Ok(());
    }
    fs_err::create_dir_all(out).map_err(CliError::write(out))?;
    let toml = toml::to_string(settings).expect("numbers and words");
    fs_err::write(&path, toml).map_err(CliError::write(path))
}

/// Trains `rungs`, `at_once` of them side by side on `threads` threads each; those that are finished are only read.
/// `None` if the user stopped it.
///
/// Errors: the first of a run's.
fn climb(
    rungs: &[Rung],
    settings: &LadderSettings,
    out: &Path,
    (at_once, threads): (usize, usize),
    board: &Mutex<Board>,
) -> Result<Option<Vec<Trained>>, CliError> {
    // The dearest first, so that none is left to run alone at the end.
    let mut order: Vec<usize> = (0..rungs.len()).collect();
    order.sort_by(|x, y| rungs[*y].flops().total_cmp(&rungs[*x].flops()));
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Outcome, CliError>>>> = rungs.iter().map(|_| Mutex::new(None)).collect();
    let worker = || {
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = train(&rungs[index], settings, out, threads, board);
            let goes_on = matches!(result, Ok(Outcome::Finished(_)));
            *results[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
            if !goes_on {
                // Nobody begins another rung.
                next.store(order.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..at_once.min(rungs.len())).for_each(|_| drop(scope.spawn(worker))));
    let mut trained = Vec::new();
    let mut is_whole = true;
    for (rung, result) in rungs.iter().zip(results) {
        match result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(Ok(Outcome::Finished(_))) => trained.push(read(rung, out)?),
            Some(Ok(Outcome::Stopped(_))) | None => is_whole = false,
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(is_whole.then_some(trained))
}

/// Trains one rung in its run directory, or goes on with it.
fn train(
    rung: &Rung,
    settings: &LadderSettings,
    out: &Path,
    threads: usize,
    board: &Mutex<Board>,
) -> Result<Outcome, CliError> {
    let folder = out.join(rung.name());
    let mut watch = RungWatch::new(board, rung);
    if folder.join("model").join("config.json").exists() {
        watch.skip();
        let (step, model) = (rung.steps, folder.join("model"));
        return Ok(Outcome::Finished(cavy_train::metrics::Finished { step, seconds: 0.0, best: None, model }));
    }
    let mut run = rung.settings(settings, &out.join("text"), threads);
    run.run.out.clone_from(&folder);
    let outcome = pretrain::run(&run, &folder, folder.exists(), &mut watch, stop::flag())?;
    report::write(&folder)?;
    Ok(outcome)
}

/// The loss that a finished rung ended with.
fn read(rung: &Rung, out: &Path) -> Result<Trained, CliError> {
    let data = RunData::load(&out.join(rung.name()))?;
    let last = data.evals.last().filter(|last| last.step == rung.steps && last.val_loss.is_finite());
    let loss = last.map(|last| last.val_loss).ok_or_else(|| {
        CliError::failed(
            format!("{} has no evaluation of its last step", out.join(rung.name()).display()),
            "delete that folder and run the same command again",
        )
    })?;
    Ok(Trained { rung: rung.clone(), loss, seconds: data.seconds() })
}

impl Trained {
    fn point(&self) -> Point {
        Point { n: self.rung.parameters, d: self.rung.tokens(), loss: self.loss }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(flatten)]
        ladder: LadderArgs,
    }

    #[test]
    fn a_tiny_ladder_climbs_foretells_and_is_not_trained_twice() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("ladder");
        let words =
            ["ladder", "--smallest", "6k", "--largest", "16k", "--sizes", "3", "--target", "24k", "--seeds", "2"];
        let rest = ["--tokens-per-parameter", "6", "--context-length", "32", "--tokenizer", "byte", "--threads", "2"];
        let all = words.iter().chain(&rest).copied().chain(["--out", out.to_str().unwrap()]);
        let args = Whole::parse_from(all).ladder;
        assert_eq!(ladder(&args).unwrap(), Ending::Done);
        let outcome = || fs_err::read_to_string(out.join("outcome.json")).unwrap();
        let first = outcome();
        let value: serde_json::Value = serde_json::from_str(&first).unwrap();
        // Three sizes by three lengths but one, and a second seed of two sizes.
        assert_eq!(value["rungs"].as_array().unwrap().len(), 8 + 2);
        let [low, high] = [0, 1].map(|end| value["forecast"]["interval"][end].as_f64().unwrap());
        let loss = value["target"]["loss"].as_f64().unwrap();
        assert_eq!(value["inside"].as_bool().unwrap(), (low..=high).contains(&loss));
        assert!(fs_err::read_to_string(out.join("report.html")).unwrap().contains("<svg role=\"img\""));
        // Again: every rung is found, and the outcome is the same to the bit.
        let time = fs_err::metadata(out.join(value["target"]["run"].as_str().unwrap()).join("metrics.jsonl")).unwrap();
        assert_eq!(ladder(&args).unwrap(), Ending::Done);
        assert_eq!(outcome(), first);
        let again = fs_err::metadata(out.join(value["target"]["run"].as_str().unwrap()).join("metrics.jsonl")).unwrap();
        assert_eq!(time.modified().unwrap(), again.modified().unwrap());
        // Other settings in the same folder are refused.
        let other = LadderArgs { settings: LadderSettings { seed: 1, ..args.settings.clone() }, ..args };
        assert!(ladder(&other).unwrap_err().to_string().contains("other settings"));
    }

    #[test]
    fn impossible_ladders_are_refused() {
        for words in [["--target", "300k"], ["--sizes", "2"], ["--tokens-per-parameter", "0"], ["--seeds", "0"]] {
            let args = Whole::parse_from(["ladder"].iter().chain(&words)).ladder;
            assert!(check(&args.settings).is_err(), "{words:?}");
        }
    }
}
