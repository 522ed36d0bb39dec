//! What all verbs that train have in common: from flags and files to a run and its report.

use crate::error::CliError;
use crate::options::{TomlFile, given_flags, resolve, validate};
use crate::watch::Watch;
use crate::{Ending, report, stop, text};
use cavy_train::metrics::Observer;
use cavy_train::{Outcome, Settings};
use clap::{ArgMatches, Args};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What a run leaves in its directory, all that `--force` deletes.
const LEFT_BY_A_RUN: [&str; 10] = [
    "metrics.jsonl",
    "samples.jsonl",
    "summary.json",
    "checkpoints",
    "model",
    "adapter",
    "tokens",
    "plots",
    "report.html",
    "run.toml",
];

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// TOML file with settings; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show the decided settings, the size, the cost and the learning-rate curve, and stop
    #[arg(long)]
    dry_run: bool,
    /// Go on with the run in `--out`, from its latest checkpoint and with its settings
    #[arg(long, conflicts_with = "force")]
    resume: bool,
    /// Delete what an earlier run left in `--out`
    #[arg(long)]
    force: bool,
}

/// Settings of a verb, and what the verb does with them.
pub(crate) trait Verb: Settings {
    /// Shows what a run would be.
    ///
    /// Errors: what training would refuse as well.
    fn show(&self) -> Result<(), CliError>;

    /// Trains.
    ///
    /// Errors: the run's.
    fn run_with(&self, resume: bool, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome, CliError>;
}

/// Decides the settings and trains.
pub(crate) fn train<S: Verb>(args: &TrainArgs, matches: Option<&ArgMatches>) -> Result<Ending, CliError> {
    let flags = given_flags::<S>(matches)?;
    let file = match (&args.config, args.resume) {
        (Some(path), _) => Some(TomlFile::read(path)?),
        (None, true) => Some(TomlFile::read(&resolve::<S>(None, &flags)?.run().out.join("run.toml"))?),
        (None, false) => None,
    };
    let mut settings: S = resolve(file.as_ref(), &flags)?;
    if args.resume && args.config.is_none() && !flags.contains_key("out") {
        settings.run_mut().out.clone_from(&S::default().run().out);
    }
    validate(&settings, file.as_ref(), &flags)?;
    if args.dry_run {
        return settings.show().map(|()| Ending::Done);
    }
    if args.force {
        clear(&settings.run().out)?;
    }
    run(&settings, args.resume)
}

/// Trains with decided settings and writes the report, whether the run ended or was stopped.
///
/// Errors: the run's and the report's.
pub(crate) fn run<S: Verb>(settings: &S, resume: bool) -> Result<Ending, CliError> {
    let out = &settings.run().out;
    let mut watch = Watch::new(settings.checkpoints().log_every);
    let outcome = settings.run_with(resume, &mut watch, stop::flag())?;
    let page = report::write(out)?;
    text::say(&format!("report: {}", page.display()));
    match outcome {
        Outcome::Finished(finished) => {
            text::say(&format!("model: {}", finished.model.display()));
            Ok(Ending::Done)
        }
        Outcome::Stopped(finished) => {
            let (step, verb, out) = (finished.step, S::VERB, out.display());
            text::say(&format!("stopped after step {step}; `cavy {verb} --resume --out {out}` goes on"));
            Ok(Ending::Stopped)
        }
    }
}

/// Deletes what a run left in `directory`; anything else in it stays.
fn clear(directory: &Path) -> Result<(), CliError> {
    if !directory.join("run.toml").exists() {
        return Ok(());
    }
    for name in LEFT_BY_A_RUN {
        let path = directory.join(name);
        let gone = if path.is_dir() { fs_err::remove_dir_all(&path) } else { fs_err::remove_file(&path) };
        match gone {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(CliError::write(path)(error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn force_deletes_a_run_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs_err::write(at("notes.txt"), "mine").unwrap();
        fs_err::write(at("metrics.jsonl"), "").unwrap();
        clear(folder.path()).unwrap();
        assert!(at("metrics.jsonl").exists(), "no run.toml, so not a run");
        fs_err::write(at("run.toml"), "").unwrap();
        fs_err::create_dir_all(at("checkpoints/step-1")).unwrap();
        clear(folder.path()).unwrap();
        assert!(at("notes.txt").exists());
        assert!(!at("metrics.jsonl").exists() && !at("checkpoints").exists() && !at("run.toml").exists());
    }
}
