//! A run directory, read back.

use crate::error::CliError;
use cavy_train::metrics::{EvalRecord, Record, SampleRecord, TrainRecord, read_lines};
use std::path::Path;
use toml::Table;

/// What a run left.
#[derive(Debug, Default)]
pub(crate) struct RunData {
    /// The directory's name, with its parent's where that says more.
    pub(crate) name: String,
    /// What made the run: `pretrain`, `sft`, ...
    pub(crate) verb: String,
    /// `run.toml`.
    pub(crate) settings: Table,
    /// `machine.json`; null of runs that leave none.
    pub(crate) machine: serde_json::Value,
    /// `summary.json`; null before the end, and of runs that leave none.
    pub(crate) summary: serde_json::Value,
    /// Every step.
    pub(crate) train: Vec<TrainRecord>,
    /// Every evaluation.
    pub(crate) evals: Vec<EvalRecord>,
    /// Every sample.
    pub(crate) samples: Vec<SampleRecord>,
}

impl RunData {
    /// Reads a run directory. Settings and samples may be missing, metrics may not.
    ///
    /// Errors: no metrics, or a file that is not what its name says.
    pub(crate) fn load(directory: &Path) -> Result<Self, CliError> {
        let metrics = directory.join("metrics.jsonl");
        if !metrics.exists() {
            let message = format!("{} is not the directory of a run: it has no metrics.jsonl", directory.display());
            return Err(CliError::usage(message, "give the directory that `cavy pretrain --out` named"));
        }
        let mut data = Self { name: name(directory), verb: "pretrain".to_owned(), ..Self::default() };
        for record in read_lines(&metrics)? {
            match record {
                Record::Train(record) => data.train.push(record),
                Record::Eval(record) => data.evals.push(record),
            }
        }
        let samples = directory.join("samples.jsonl");
        if samples.exists() {
            data.samples = read_lines(&samples)?;
        }
        let settings = directory.join("run.toml");
        if settings.exists() {
            let file = crate::options::TomlFile::read(&settings)?;
            if let Some(verb) = file.first_line().strip_prefix("# cavy ").and_then(|line| line.split(' ').next()) {
                verb.clone_into(&mut data.verb);
            }
            data.settings = file.table;
        }
        data.machine = read_json(&directory.join("machine.json"))?;
        data.summary = read_json(&directory.join("summary.json"))?;
        Ok(data)
    }

    /// Passes over the data at the end.
    pub(crate) fn epochs(&self) -> f64 {
        let train = self.train.last().map_or(0.0, |record| record.epoch);
        self.evals.last().map_or(train, |record| record.epoch.max(train))
    }

    /// Tokens seen at the end.
    pub(crate) fn tokens(&self) -> u64 {
        let train = self.train.last().map_or(0, |record| record.tokens);
        self.evals.last().map_or(train, |record| record.tokens.max(train))
    }

    /// The evaluation with the lowest validation loss.
    pub(crate) fn best(&self) -> Option<&EvalRecord> {
        let finite = self.evals.iter().filter(|record| record.val_loss.is_finite());
        finite.min_by(|a, b| a.val_loss.total_cmp(&b.val_loss))
    }

    /// Seconds of all steps.
    pub(crate) fn seconds(&self) -> f64 {
        self.train.iter().map(|record| record.step_s).filter(|seconds| seconds.is_finite()).sum()
    }

    /// The middle value over all steps; NaN where there is none.
    pub(crate) fn median(&self, of: impl Fn(&TrainRecord) -> f64) -> f64 {
        let mut values: Vec<f64> = self.train.iter().map(of).filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Points over epochs, from each step.
    pub(crate) fn steps(&self, of: impl Fn(&TrainRecord) -> f64) -> Vec<(f64, f64)> {
        self.train.iter().map(|record| (record.epoch, of(record))).collect()
    }

    /// Points over epochs, from each evaluation.
    pub(crate) fn eval_points(&self, of: impl Fn(&EvalRecord) -> f64) -> Vec<(f64, f64)> {
        self.evals.iter().map(|record| (record.epoch, of(record))).collect()
    }
}

/// What a file says, or null where there is none.
fn read_json(path: &Path) -> Result<serde_json::Value, CliError> {
    if !path.exists() {
        return Ok(serde_json::Value::Null);
    }
    let text = fs_err::read(path).map_err(CliError::read(path))?;
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

/// `recipe / 01-stage` for a stage of a recipe, else the last part of the path.
fn name(directory: &Path) -> String {
    let full = fs_err::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
    let part = |path: Option<&std::ffi::OsStr>| path.map_or(String::new(), |part| part.to_string_lossy().into_owned());
    let last = part(full.file_name());
    let bytes = last.as_bytes();
    let is_stage = bytes.len() > 3 && bytes[..2].iter().all(u8::is_ascii_digit) && bytes[2] == b'-';
    if is_stage { format!("{} / {}", part(full.parent().and_then(Path::file_name)), &last[3..]) } else { last }
}
