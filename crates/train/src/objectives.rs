//! What training is for. An objective says what a batch is, what its loss is and which metrics come with it;
//! everything else - evaluation, accumulation, clipping, the schedule, checkpoints, records - is the loop's
//! ([`crate::run`]).

pub mod classify;
pub mod dpo;
pub mod next_token;
pub mod pairs;
pub mod preference_loss;
pub mod pretrain;
pub mod reward;
pub mod sft;

use crate::TrainError;
use crate::data::DataFingerprint;
use crate::metrics::{EvalRecord, Metrics, Started};
use crate::settings::Settings;
use burn::tensor::Device;
use cavy_model::{Gradients, Model};
use std::collections::BTreeMap;
use std::path::Path;

/// How a forward pass of training is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassSettings {
    /// Which activations dropout zeroes; `None` for none.
    pub dropout_key: Option<u64>,
    /// Recompute activations in the backward pass.
    pub recompute: bool,
}

/// Weighted sums of named quantities, from which means over any number of batches come out exact.
///
/// The quantity `loss` is always there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally(BTreeMap<&'static str, (f64, f64)>);

impl Tally {
    /// Name of the quantity that is minimized.
    pub const LOSS: &'static str = "loss";

    /// A tally of the loss alone: its sum over items of so much weight.
    pub fn of_loss(sum: f64, weight: f64) -> Self {
        Self(BTreeMap::from([(Self::LOSS, (sum, weight))]))
    }

    /// The same with one more quantity: its sum, and the weight of what it was summed over.
    #[must_use]
    pub fn with(mut self, name: &'static str, sum: f64, weight: f64) -> Self {
        self.add(name, sum, weight);
        self
    }

    fn add(&mut self, name: &'static str, sum: f64, weight: f64) {
        let entry = self.0.entry(name).or_default();
        entry.0 += sum;
        entry.1 += weight;
    }

    /// Adds what another batch found.
    pub fn merge(&mut self, other: &Self) {
        for (name, &(sum, weight)) in &other.0 {
            self.add(name, sum, weight);
        }
    }

    /// The mean of a quantity; NaN where nothing was summed.
    pub fn mean(&self, name: &str) -> f64 {
        self.0.get(name).map_or(f64::NAN, |(sum, weight)| sum / weight)
    }

    /// The means of all but the loss, each name after `prefix`.
    pub fn metrics(&self, prefix: &str) -> Metrics {
        let others = self.0.keys().filter(|name| **name != Self::LOSS);
        others.map(|name| (format!("{prefix}{name}"), self.mean(name))).collect()
    }
}

/// What a step of training minimizes: the part of an objective that needs no data.
pub trait Loss {
    /// What is computed at once: a micro-batch.
    type Batch;

    /// Tokens of the data in `batch`.
    fn tokens(&self, batch: &Self::Batch) -> usize;

    /// Tokens that the model computes for `batch`: fewer than [`Self::tokens`] where sequences share a beginning.
    fn computed_tokens(&self, batch: &Self::Batch) -> usize {
        self.tokens(batch)
    }

    /// What `batch` weighs in the mean over a step: the tokens, examples or pairs that carry loss.
    fn weight(&self, batch: &Self::Batch) -> f64;

    /// Gradients of `share` times the sum of the batch's losses, and what was found on the way.
    ///
    /// Law: with `share = 1 / weight of the step`, gradients and tallies of micro-batches add up to the step's.
    fn learn(&self, model: &Model, batch: &Self::Batch, share: f32, pass: PassSettings) -> (Gradients, Tally);

    /// What a model without dropout finds, without learning.
    fn measure(&self, model: &Model, batch: &Self::Batch) -> Tally;
}

/// Which part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What is learned from.
    Training,
    /// What is held out.
    Validation,
}

/// Something that the model wrote, for a person to read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// What it was given.
    pub prompt: String,
    /// What it wrote.
    pub text: String,
    /// What it should have written, where that is known.
    pub reference: Option<String>,
}

/// What a run trains for, with its data.
pub trait Objective {
    /// Its settings.
    type Settings: Settings;
    /// Its loss.
    type Loss: Loss;

    /// The loss.
    fn loss(&self) -> &Self::Loss;

    /// What tells its data from others.
    fn fingerprint(&self) -> DataFingerprint;

    /// Sizes of data and vocabulary; steps, parameters and the machine are filled in by the loop.
    fn overview(&self) -> Started;

    /// Optimizer steps in one pass over the data.
    fn steps_per_epoch(&self) -> usize;

    /// The model before the first step, or as it was saved in the folder of a checkpoint.
    ///
    /// Errors: files that cannot be read.
    fn model(&self, checkpoint: Option<&Path>, device: &Device) -> Result<Model, TrainError>;

    /// Writes what a checkpoint, or the result of the run, needs to be used on its own.
    ///
    /// Errors: the disk's.
    fn save(&self, model: &Model, folder: &Path) -> Result<(), TrainError>;

    /// Name of the folder with the result of the run.
    fn output(&self) -> &'static str {
        "model"
    }

    /// The micro-batches of step `step`, counted from 0: a function of settings, data and that number, and of the model
    /// where it writes its own data.
    ///
    /// Errors: data that cannot be read.
    fn batches(&mut self, model: &Model, step: usize) -> Result<Vec<BatchOf<Self>>, TrainError>;

    /// Floating-point operations of a training step over so many tokens.
    fn step_flops(&self, model: &Model, tokens: usize) -> f64;

    /// What an evaluation looks at, the same at every step.
    ///
    /// Errors: data that is too short.
    fn eval_batches(&self, split: Split) -> Result<Box<dyn Iterator<Item = BatchOf<Self>> + '_>, TrainError>;

    /// Adds to the record of an evaluation what only this objective can say.
    fn evaluated(&self, _record: &mut EvalRecord) {}

    /// What the model writes after `step` steps, if anything.
    ///
    /// Errors: data that cannot be read.
    fn samples(&mut self, model: &Model, step: usize) -> Result<Vec<Sample>, TrainError>;

    /// What is to be said of the finished model, for `summary.json`: for instance its scores on a test set.
    ///
    /// Errors: data that cannot be read.
    fn finish(&mut self, _model: &Model) -> Result<Option<serde_json::Value>, TrainError> {
        Ok(None)
    }
}

/// The batch of an objective.
pub type BatchOf<O> = <<O as Objective>::Loss as Loss>::Batch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_parts_are_the_mean_of_all_by_weight() {
        // (3 * 2 + 1 * 6) / 4 = 3, where the mean of means would be 4.
        let mut tally = Tally::of_loss(6.0, 3.0).with("accuracy", 1.0, 2.0);
        tally.merge(&Tally::of_loss(6.0, 1.0).with("accuracy", 2.0, 2.0));
        assert_eq!(tally.mean("loss"), 3.0);
        assert_eq!(tally.metrics("eval_"), Metrics::from([("eval_accuracy".to_owned(), 0.75)]));
        assert!(tally.mean("nothing").is_nan());
    }
}
