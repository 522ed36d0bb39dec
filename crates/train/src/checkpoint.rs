//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! `checkpoints/step-N/` is what the objective saves - a Hugging Face directory (`config.json`, `model.safetensors`,
//! `tokenizer.json`) or, of a model with an adapter, PEFT's - with two more files: `optimizer.safetensors`, the moments, and `state.json`, the counters, the settings, how long the logs were,
//! and the fingerprint of every other file. The learning rate, the order of the data and dropout follow from the
//! number of the step, so there is no other state.
//!
//! A checkpoint is written under another name, brought to the disk, and then renamed: where the name is, the checkpoint
//! is whole.

use crate::TrainError;
use crate::data::DataFingerprint;
use crate::files::{Fingerprint, sync_folder, write_atomically, write_error};
use crate::optimizer::Optimizer;
use crate::settings::Settings;
use burn::tensor::Device;
use cavy_model::Model;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Version of `state.json`.
const VERSION: u32 = 1;
const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
/// Ending of the name under which a checkpoint is written.
const PARTIAL: &str = ".partial";
/// Ending of the name under which a checkpoint is deleted.
const OLD: &str = ".old";

/// Counters of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done, skipped ones included.
    pub step: usize,
    /// Updates done by the optimizer.
    pub updates: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Steps that were skipped.
    pub skipped_steps: usize,
    /// Those at the end, in a row.
    pub skipped_in_a_row: usize,
    /// Steps whose gradients were clipped.
    pub clipped_steps: usize,
    /// Lowest validation loss and the step it was measured at.
    pub best: Option<(f64, usize)>,
    /// Validation loss, if it was measured at this very step.
    pub val_loss: Option<f64>,
    /// Length of `metrics.jsonl`.
    pub metrics_bytes: u64,
    /// Length of `samples.jsonl`.
    pub samples_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    progress: Progress,
    data: DataFingerprint,
    /// As TOML, whose numbers come back as they were.
    settings: String,
    files: BTreeMap<String, Fingerprint>,
}

/// What a checkpoint is made of.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a, S> {
    /// The run's settings.
    pub settings: &'a S,
    /// Which data it learns from.
    pub data: &'a DataFingerprint,
    /// The counters.
    pub progress: &'a Progress,
    /// The moments.
    pub optimizer: &'a Optimizer,
}

/// The folder of the checkpoint at `step`.
pub fn folder(run_dir: &Path, step: usize) -> PathBuf {
    run_dir.join("checkpoints").join(format!("step-{step}"))
}

/// Steps of the checkpoints in `run_dir`, in order.
///
/// Errors: a folder that cannot be read.
pub fn list(run_dir: &Path) -> Result<Vec<usize>, TrainError> {
    let path = run_dir.join("checkpoints");
    let mut steps = Vec::new();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(steps),
        Err(source) => return Err(TrainError::Read { path, source }),
    };
    for entry in entries {
        let entry = entry.map_err(|source| TrainError::Read { path: path.clone(), source })?;
        let name = entry.file_name();
        steps.extend(name.to_str().and_then(|name| name.strip_prefix("step-")).and_then(|n| n.parse::<usize>().ok()));
    }
    steps.sort_unstable();
    Ok(steps)
}

/// Writes a checkpoint, for which `write_model` saves the model in a folder, and then deletes those that are neither among the last `keep_last` nor the best.
///
/// Errors: the disk's, with the path. Earlier checkpoints are whole then.
pub fn save<S: Settings>(
    run_dir: &Path,
    snapshot: &Snapshot<'_, S>,
    write_model: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    let target = folder(run_dir, snapshot.progress.step);
    let parent = run_dir.join("checkpoints");
    let partial = parent.join(format!("step-{}{PARTIAL}", snapshot.progress.step));
    sweep(&parent)?;
    let written = write(&partial, snapshot, write_model);
    if written.is_err() {
        // The first error is the one to report, whether or not the clearing up succeeds.
        let _ = fs::remove_dir_all(&partial);
    }
    written?;
    remove(&target)?;
    fs::rename(&partial, &target).map_err(write_error(&target))?;
    sync_folder(&parent)?;
    prune(run_dir, snapshot.settings.checkpoints().keep_last)?;
    Ok(target)
}

fn write<S: Settings>(
    partial: &Path,
    snapshot: &Snapshot<'_, S>,
    write_model: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    fs::create_dir_all(partial).map_err(write_error(partial))?;
    write_model(partial)?;
    snapshot.optimizer.save(&partial.join(OPTIMIZER))?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(partial).map_err(write_error(partial))? {
        let entry = entry.map_err(write_error(partial))?;
        let path = entry.path();
        let fingerprint = Fingerprint::of_file(&path).map_err(write_error(&path))?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fingerprint);
    }
    let state = State {
        version: VERSION,
        progress: snapshot.progress.clone(),
        data: snapshot.data.clone(),
        settings: snapshot.settings.to_table().to_string(),
        files,
    };
    let path = partial.join(STATE);
    let json = serde_json::to_vec_pretty(&state).map_err(|error| write_error(&path)(error.into()))?;
    write_atomically(&path, &json)?;
    sync_folder(partial)
}

/// Deletes a checkpoint. It loses its name first, so that half of one is never found under it.
fn remove(path: &Path) -> Result<(), TrainError> {
    if !path.exists() {
        return Ok(());
    }
    let mut gone = path.as_os_str().to_owned();
    gone.push(OLD);
    fs::rename(path, &gone).and_then(|()| fs::remove_dir_all(&gone)).map_err(write_error(path))
}

/// Deletes what a crash left of checkpoints that were being written or deleted.
fn sweep(parent: &Path) -> Result<(), TrainError> {
    if !parent.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(parent).map_err(write_error(parent))? {
        let path = entry.map_err(write_error(parent))?.path();
        let name = path.to_string_lossy();
        if name.ends_with(PARTIAL) || name.ends_with(OLD) {
            fs::remove_dir_all(&path).map_err(write_error(&path))?;
        }
    }
    Ok(())
}

/// Keeps the last `keep_last` checkpoints and the one with the lowest validation loss.
fn prune(run_dir: &Path, keep_last: usize) -> Result<(), TrainError> {
    let steps = list(run_dir)?;
    let loss = |step: usize| {
        let state = read_state(&folder(run_dir, step)).ok()?;
        Some((state.progress.val_loss.filter(|loss| loss.is_finite())?, step))
    };
    let best = steps.iter().filter_map(|&step| loss(step)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, step)| step);
    let older = steps.len().saturating_sub(keep_last);
    for &step in steps[..older].iter().filter(|&&step| Some(step) != best) {
        remove(&folder(run_dir, step))?;
    }
    Ok(())
}

/// A checkpoint as it was saved.
#[derive(Debug)]
pub struct Loaded {
    /// The counters.
    pub progress: Progress,
    /// The weights.
    pub model: Model,
    /// The moments.
    pub optimizer: Optimizer,
}

/// Reads the checkpoint at `step`, to go on with `settings` and `data`; `read_model` reads the model in a folder.
///
/// Errors: a damaged file, by its path, with what to do; settings or data of another run.
pub fn load<S: Settings>(
    run_dir: &Path,
    step: usize,
    (settings, data): (&S, &DataFingerprint),
    device: &Device,
    read_model: impl FnOnce(&Path) -> Result<Model, TrainError>,
) -> Result<Loaded, TrainError> {
    let path = folder(run_dir, step);
    let earlier = list(run_dir)?.into_iter().rfind(|&earlier| earlier < step);
    let way_out = match earlier {
        Some(earlier) => format!("delete {} and resume: the run then goes on from step {earlier}", path.display()),
        None => format!("delete {} and resume: the run then starts over", path.display()),
    };
    let damaged = |file: &str, (found, expected): (String, String)| TrainError::Damaged {
        path: path.join(file),
        found,
        expected,
        way_out: way_out.clone(),
    };
    let state = read_state(&path).map_err(|reason| damaged(STATE, reason))?;
    if state.progress.step != step {
        let reason = (format!("step {}", state.progress.step), format!("step {step}"));
        return Err(damaged(STATE, reason));
    }
    for (file, expected) in &state.files {
        check_file(&path.join(file), expected).map_err(|reason| damaged(file, reason))?;
    }
    check_settings(&path, &state.settings, settings).map_err(|error| match error {
        Ok(error) => error,
        Err(reason) => damaged(STATE, reason),
    })?;
    if state.data != *data {
        let of = |data: &DataFingerprint| {
            format!("{} and {} tokens with hash {:x}", data.train_tokens, data.val_tokens, data.text ^ data.tokenizer)
        };
        return Err(TrainError::OtherText { path, found: of(data), expected: of(&state.data) });
    }
    let model = read_model(&path)?;
    let optimizer = Optimizer::load(settings.optimization(), &path.join(OPTIMIZER), state.progress.updates, device)
        .map_err(|reason| damaged(OPTIMIZER, reason))?;
    Ok(Loaded { progress: state.progress, model, optimizer })
}

/// The state in a checkpoint's folder, or what was found instead of what.
fn read_state(folder: &Path) -> Result<State, (String, String)> {
    let expected = "the state of a checkpoint".to_owned();
    let bytes = fs::read(folder.join(STATE)).map_err(|error| (error.kind().to_string(), expected.clone()))?;
    let state: State = serde_json::from_slice(&bytes).map_err(|error| (error.to_string(), expected))?;
    if state.version != VERSION {
        return Err((format!("version {}", state.version), format!("version {VERSION}")));
    }
    Ok(state)
}

/// Compares a file with what it was when it was written.
fn check_file(path: &Path, expected: &Fingerprint) -> Result<(), (String, String)> {
    let whole = || format!("{} bytes", expected.bytes);
    let bytes = fs::metadata(path).map_err(|error| (error.kind().to_string(), whole()))?.len();
    if bytes != expected.bytes {
        return Err((format!("{bytes} bytes"), whole()));
    }
    let found = Fingerprint::of_file(path).map_err(|error| (error.to_string(), whole()))?;
    if found != *expected {
        return Err(("other bytes than were written".to_owned(), format!("hash {:x}", expected.hash)));
    }
    Ok(())
}

/// Fails with the first setting that differs from the checkpoint's and may not.
///
/// Errors: the error itself, or as `Err` what is wrong with the saved settings.
fn check_settings<S: Settings>(
    path: &Path,
    saved: &str,
    settings: &S,
) -> Result<(), Result<TrainError, (String, String)>> {
    let unreadable = |reason: String| Err((reason, "the settings of a run".to_owned()));
    let table: toml::Table = toml::from_str(saved).map_err(|error| unreadable(error.message().to_owned()))?;
    let saved = S::from_table(table).map_err(|error| unreadable(error.to_string()))?.to_table();
    for (key, found) in settings.to_table() {
        let expected = saved.get(&key).cloned();
        if !S::is_free(&key) && expected.as_ref() != Some(&found) {
            let expected = expected.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
            let (path, found) = (path.to_path_buf(), found.to_string());
            return Err(Ok(TrainError::OtherSettings { path, key, found, expected }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
