//! `cavy schedule`: the learning-rate curve, without training.

use crate::error::CliError;
use crate::options::{TomlFile, given_flags, resolve};
use crate::report::plots;
use crate::{Ending, curve, text};
use cavy_train::{PretrainSettings, Schedule, Settings};
use clap::{ArgMatches, Args};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    /// TOML file with settings; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Steps in an epoch, where `--max-steps` does not give the length of the run
    #[arg(long, value_name = "N")]
    steps_per_epoch: Option<usize>,
    /// Print one JSON object with the rate of every step
    #[arg(long)]
    json: bool,
    /// Write the curve as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the curve as PNG
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
}

/// Draws the curve.
pub(crate) fn schedule(args: &ScheduleArgs, matches: Option<&ArgMatches>) -> Result<Ending, CliError> {
    let flags = given_flags::<PretrainSettings>(matches)?;
    let file = args.config.as_deref().map(TomlFile::read).transpose()?;
    let mut settings: PretrainSettings = resolve(file.as_ref(), &flags)?;
    if settings.data.is_empty() {
        // The curve needs no text, so the check for it must not fail.
        settings.data.push("none".to_owned());
    }
    settings.validate()?;
    let total_steps = match (settings.optimization.max_steps, args.steps_per_epoch) {
        (0, None) => {
            let hint = "give `--max-steps N`, or `--steps-per-epoch N` with `--epochs`";
            return Err(CliError::usage("the length of the run is not known", hint));
        }
        (_, steps_per_epoch) => settings.optimization.total_steps(steps_per_epoch.unwrap_or(1)),
    };
    let schedule = Schedule::new(&settings.optimization, total_steps);
    if let Some(path) = &args.svg {
        plots::learning_rate_svg(path, &schedule.curve())?;
    }
    if let Some(path) = &args.png {
        plots::learning_rate_png(path, &schedule.curve())?;
    }
    if args.json {
        let (total_steps, warmup_steps) = (schedule.total_steps, schedule.warmup_steps);
        let json =
            serde_json::json!({ "total_steps": total_steps, "warmup_steps": warmup_steps, "lr": schedule.curve() });
        text::data(&json.to_string());
    } else {
        text::data(&curve::draw(&schedule));
        text::data(&curve::caption(&schedule));
    }
    Ok(Ending::Done)
}
