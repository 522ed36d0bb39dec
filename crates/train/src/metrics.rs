//! What a run tells about itself: records on disk, events to whoever watches.

use crate::TrainError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// An optimizer step.
    Train(TrainRecord),
    /// An evaluation.
    Eval(EvalRecord),
}

/// Numbers by name.
pub type Metrics = BTreeMap<String, f64>;

/// One optimizer step. Numbers that are not finite are `null` on disk and NaN here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainRecord {
    /// Number of the step, counted from 1: how many are done.
    pub step: usize,
    /// Passes over the data so far, with the fraction of the current one.
    pub epoch: f64,
    /// Tokens seen so far.
    #[serde(rename = "num_tokens", alias = "tokens")]
    pub tokens: u64,
    /// Mean loss of the step's tokens, in nats.
    #[serde(deserialize_with = "nan_from_null")]
    pub loss: f64,
    /// Learning rate of the step.
    #[serde(rename = "learning_rate", alias = "lr")]
    pub lr: f64,
    /// Global L2 norm of the gradients before clipping.
    #[serde(deserialize_with = "nan_from_null")]
    pub grad_norm: f64,
    /// The same after clipping.
    #[serde(deserialize_with = "nan_from_null")]
    pub grad_norm_clipped: f64,
    /// Largest absolute value of a single gradient before clipping.
    #[serde(deserialize_with = "nan_from_null")]
    pub grad_max: f64,
    /// Share of the steps so far that were clipped.
    pub clipped_share: f64,
    /// Steps so far that were skipped because loss or gradient was not finite.
    pub skipped_steps: usize,
    /// Tokens a second, this step.
    #[serde(deserialize_with = "nan_from_null")]
    pub tokens_per_s: f64,
    /// Model FLOPs of the step as a share of what the machine's measured matrix-product rate would allow.
    #[serde(deserialize_with = "nan_from_null")]
    pub mfu: f64,
    /// Seconds the step took.
    #[serde(deserialize_with = "nan_from_null")]
    pub step_s: f64,
    /// What only this objective measures, by the names that TRL has for it.
    #[serde(flatten, deserialize_with = "nans_from_null")]
    pub metrics: Metrics,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Steps done.
    pub step: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Tokens seen so far.
    #[serde(rename = "num_tokens", alias = "tokens")]
    pub tokens: u64,
    /// Mean loss on training batches, dropout off, in nats.
    #[serde(deserialize_with = "nan_from_null")]
    pub train_loss: f64,
    /// Mean loss on validation batches, in nats.
    #[serde(deserialize_with = "nan_from_null")]
    pub val_loss: f64,
    /// `exp(val_loss)`.
    #[serde(deserialize_with = "nan_from_null")]
    pub val_perplexity: f64,
    /// Validation loss in bits for each byte of text, which does not depend on the tokenizer.
    pub val_bits_per_byte: Option<f64>,
    /// What only this objective measures: `train_` and `eval_` before the names of the steps' records.
    #[serde(flatten, deserialize_with = "nans_from_null")]
    pub metrics: Metrics,
}

/// One line of `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Steps done.
    pub step: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Tokens seen so far.
    pub tokens: u64,
    /// What the sample continues.
    pub prompt: String,
    /// The continuation, without the prompt.
    pub text: String,
    /// What it should have been, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// What is known once data and model are ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Steps already done, when a run is resumed.
    pub first_step: usize,
    /// Steps in an epoch.
    pub steps_per_epoch: usize,
    /// Parameters of the model, shared ones once.
    pub parameters: u64,
    /// Those that training changes.
    pub trainable: u64,
    /// Tokens of training text.
    pub train_tokens: u64,
    /// Tokens of validation text.
    pub val_tokens: u64,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Measured matrix-product rate of the machine, in GFLOP/s; 0 where it was not measured.
    pub machine_gflops: f64,
    /// Threads that compute.
    pub threads: usize,
    /// The precision of matrix products in use, and why.
    pub precision: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Steps done.
    pub step: usize,
    /// Seconds of this invocation.
    pub seconds: f64,
    /// Lowest validation loss and the step it was measured at.
    pub best: Option<(f64, usize)>,
    /// Directory of the final model, or of the last checkpoint if the run was stopped.
    pub model: PathBuf,
}

/// What the training loop tells while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Data and model are ready, training begins.
    Started(Started),
    /// A step is done.
    Train(TrainRecord),
    /// An evaluation is done.
    Eval(EvalRecord),
    /// A sample is there.
    Sample(SampleRecord),
    /// A checkpoint is safely on disk.
    Checkpoint {
        /// Its directory.
        path: PathBuf,
        /// Steps done.
        step: usize,
    },
    /// Something worth a line: what is being prepared, what was skipped, what to do about it.
    Note(String),
    /// The run is over.
    Finished(Finished),
}

/// Whoever watches a run.
pub trait Observer {
    /// Called in order, from the thread that trains.
    fn event(&mut self, event: &Event);
}

/// Watches nothing.
impl Observer for () {
    fn event(&mut self, _event: &Event) {}
}

/// Writes `record` as one line of JSON.
///
/// Errors: the writer's.
pub fn write_line(out: &mut impl Write, record: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// The records of a JSONL file. A last line without its newline was cut off by a crash and is left out.
///
/// Errors: the disk's; a line that is no such record, with its number.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, TrainError> {
    let text = fs_err::read_to_string(path).map_err(|source| TrainError::Read { path: path.to_path_buf(), source })?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = complete.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line)| {
        serde_json::from_str(line).map_err(|source| TrainError::Line {
            path: path.to_path_buf(),
            line: index + 1,
            source,
        })
    };
    lines.map(parse).collect()
}

/// JSON has no NaN: `serde_json` writes `null` for one.
fn nan_from_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn nans_from_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metrics, D::Error> {
    let metrics = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(metrics.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(val_loss: f64) -> Record {
        Record::Eval(EvalRecord {
            step: 5,
            epoch: 0.5,
            tokens: 2560,
            train_loss: 9.5,
            val_loss,
            val_perplexity: val_loss.exp(),
            val_bits_per_byte: None,
            metrics: Metrics::new(),
        })
    }

    #[test]
    fn a_record_is_one_line_with_its_kind_first() {
        let mut out = Vec::new();
        write_line(&mut out, &eval(0.0)).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"{"kind":"eval","step":5,"epoch":0.5,"num_tokens":2560,"train_loss":9.5,"val_loss":0.0,"val_perplexity":1.0,"val_bits_per_byte":null}"#);
    }

    #[test]
    fn records_come_back_as_written_and_a_line_cut_off_by_a_crash_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut bytes = Vec::new();
        write_line(&mut bytes, &eval(6.25)).unwrap();
        bytes.extend_from_slice(b"{\"kind\":\"eval\",\"step\":1");
        fs_err::write(&path, bytes).unwrap();
        assert_eq!(read_lines::<Record>(&path).unwrap(), [eval(6.25)]);
    }

    #[test]
    fn a_loss_that_is_not_a_number_survives_the_disk() {
        let mut bytes = Vec::new();
        write_line(&mut bytes, &eval(f64::NAN)).unwrap();
        let Record::Eval(read) = serde_json::from_slice(&bytes).unwrap() else { panic!("another kind") };
        assert!(read.val_loss.is_nan() && read.train_loss == 9.5);
    }

    #[test]
    fn a_broken_line_in_the_middle_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        fs_err::write(&path, "\n{\"step\":1}\n").unwrap();
        let error = read_lines::<SampleRecord>(&path).unwrap_err().to_string();
        assert!(error.contains("samples.jsonl:2"), "{error}");
    }
}
