//! Pretraining: from settings to a run directory.

use crate::metrics::{Finished, Observer};
use crate::{PretrainSettings, TrainError};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// How a run ended, without an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every step is done and `model/` is written.
    Finished(Finished),
    /// `stop` was set: a checkpoint is written, from which the run can be resumed.
    Stopped(Finished),
}

/// Runs, or resumes, a pretraining job in `run_dir`.
///
/// Ends after the current step once `stop` is set.
pub fn run(
    settings: &PretrainSettings,
    run_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let _ = (run_dir, resume, observer, stop);
    settings.validate()?;
    Err(TrainError::Read { path: run_dir.to_path_buf(), source: std::io::ErrorKind::Unsupported.into() })
}
