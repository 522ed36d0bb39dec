//! `cavy pretrain`: a model from scratch.

use crate::error::CliError;
use crate::options::{TomlFile, given_flags, resolve, validate};
use crate::plan::Plan;
use crate::watch::Watch;
use crate::{Ending, curve, report, stop, text};
use cavy_train::PretrainSettings;
use cavy_train::pretrain::Outcome;
use clap::{ArgMatches, Args};
use std::path::{Path, PathBuf};

/// What a run leaves in its directory, all that `--force` deletes.
const LEFT_BY_A_RUN: [&str; 8] =
    ["metrics.jsonl", "samples.jsonl", "checkpoints", "model", "tokens", "plots", "report.html", "run.toml"];

#[derive(Debug, Args)]
pub(crate) struct PretrainArgs {
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

/// Decides the settings and trains.
pub(crate) fn pretrain(args: &PretrainArgs, matches: Option<&ArgMatches>) -> Result<Ending, CliError> {
    let flags = given_flags(matches)?;
    let file = match (&args.config, args.resume) {
        (Some(path), _) => Some(TomlFile::read(path)?),
        (None, true) => Some(TomlFile::read(&resolve(None, &flags)?.out.join("run.toml"))?),
        (None, false) => None,
    };
    let mut settings = resolve(file.as_ref(), &flags)?;
    if args.resume && args.config.is_none() && !flags.contains_key("out") {
        settings.out = PretrainSettings::default().out;
    }
    validate(&settings, file.as_ref(), &flags)?;
    if args.dry_run {
        return dry_run(&settings).map(|()| Ending::Done);
    }
    if args.force {
        clear(&settings.out)?;
    }
    train(&settings, args.resume)
}

/// Trains with decided settings and writes the report, whether the run ended or was stopped.
///
/// Errors: the run's and the report's.
pub(crate) fn train(settings: &PretrainSettings, resume: bool) -> Result<Ending, CliError> {
    let mut watch = Watch::new(settings.log_every);
    let outcome = cavy_train::pretrain::run(settings, &settings.out, resume, &mut watch, stop::flag())?;
    let page = report::write(&settings.out)?;
    text::say(&format!("report: {}", page.display()));
    match outcome {
        Outcome::Finished(finished) => {
            text::say(&format!("model: {}", finished.model.display()));
            Ok(Ending::Done)
        }
        Outcome::Stopped(finished) => {
            text::say(&format!(
                "stopped after step {}; `cavy pretrain --resume --out {}` goes on",
                finished.step,
                settings.out.display()
            ));
            Ok(Ending::Stopped)
        }
    }
}

fn dry_run(settings: &PretrainSettings) -> Result<(), CliError> {
    let plan = Plan::new(settings)?;
    text::data(settings.to_table().to_string().trim_end());
    text::data("");
    text::data(&plan.describe(settings));
    text::data("");
    text::data(&curve::draw(&plan.schedule));
    Ok(())
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
