//! Points and curves from what a user names: CSV files, run directories, folders of runs.

use crate::error::CliError;
use crate::report::load::RunData;
use crate::text;
use cavy_model::Source;
use cavy_scaling::envelope::Curve;
use cavy_scaling::{Point, points, training_flops};
use std::path::{Path, PathBuf};

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Runs at their own ends.
    pub(super) points: Vec<Point>,
    /// Their courses, of run directories.
    pub(super) curves: Vec<Curve>,
}

/// Reads CSV files and run directories; a directory that is no run stands for the runs in it.
///
/// Errors: a file that is not what it should be; a directory without runs.
pub(super) fn read(paths: &[PathBuf]) -> Result<Runs, CliError> {
    let mut runs = Runs::default();
    for path in paths {
        if !path.is_dir() {
            runs.points.extend(points::read_csv(path)?);
            continue;
        }
        let folders = if is_run(path) { vec![path.clone()] } else { children(path)? };
        if folders.is_empty() {
            let message = format!("{} has no runs in it", path.display());
            return Err(CliError::usage(message, "give a CSV file, run directories, or a folder of run directories"));
        }
        for folder in folders {
            add(&mut runs, &folder)?;
        }
    }
    Ok(runs)
}

fn is_run(folder: &Path) -> bool {
    folder.join("metrics.jsonl").exists()
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(CliError::read(folder))? {
        let path = entry.map_err(CliError::read(folder))?.path();
        if is_run(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Adds a run that is finished; one that is not is left out with a word, since its loss is not that of its own end.
fn add(runs: &mut Runs, folder: &Path) -> Result<(), CliError> {
    let model = folder.join("model");
    if !model.join("config.json").exists() {
        text::say(&format!("{} is not finished and is left out", folder.display()));
        return Ok(());
    }
    let n = Source::open(&model)?.config.num_parameters() as f64;
    let data = RunData::load(folder)?;
    let Some(last) = data.evals.last().filter(|last| last.val_loss.is_finite()) else {
        text::say(&format!("{} has no evaluation and is left out", folder.display()));
        return Ok(());
    };
    runs.points.push(Point { n, d: last.tokens as f64, loss: last.val_loss });
    let evals = data.evals.iter().filter(|eval| eval.tokens > 0 && eval.val_loss.is_finite());
    let points = evals.map(|eval| (training_flops(n, eval.tokens as f64), eval.val_loss)).collect();
    runs.curves.push(Curve { n, points });
    Ok(())
}
