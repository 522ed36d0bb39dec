//! Settings of learning from preferences.

use super::check::demand;
use super::{
    AdapterSettings, CheckpointSettings, EvaluationSettings, ModelSettings, OptimizationSettings, PairDataSettings,
    RunSettings, Settings, SplitSettings,
};
use crate::SettingsError;
use crate::objectives::preference_loss::{LossSettings, LossType};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that decides a run of learning from preferences. Names and defaults are TRL's where it has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct DpoSettings {
    /// Where the run lives.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunSettings,

    /// What is fine-tuned.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: ModelSettings,

    /// What is learned from.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: PairDataSettings,
    /// How pairs are divided.
    #[command(flatten)]
    #[serde(flatten)]
    pub split: SplitSettings,

    /// Which loss
    #[arg(long, help_heading = "Preference")]
    pub loss_type: LossType,
    /// How strongly margins count: the smaller, the farther the model may go from the reference
    #[arg(long, help_heading = "Preference")]
    pub beta: f64,
    /// Share of labels taken to be wrong (`sigmoid`, `robust`, `simpo`)
    #[arg(long, help_heading = "Preference")]
    pub label_smoothing: f64,
    /// Take the mean log-probability of an answer's tokens in place of the sum
    #[arg(long, help_heading = "Preference")]
    pub average_log_prob: bool,
    /// Weight of the SFT loss of the better answer that is added
    #[arg(long, help_heading = "Preference")]
    pub sft_weight: f64,
    /// Target margin of `simpo`
    #[arg(long, help_heading = "Preference")]
    pub simpo_gamma: f64,
    /// Weight of the better answers in `kto`
    #[arg(long, help_heading = "Preference")]
    pub desirable_weight: f64,
    /// Weight of the worse answers in `kto`
    #[arg(long, help_heading = "Preference")]
    pub undesirable_weight: f64,
    /// File that keeps the reference's log-probabilities for other runs (none: `reference.json` in the run directory)
    #[arg(long, help_heading = "Preference")]
    pub reference_logps: String,

    /// Which weights are trained.
    #[command(flatten)]
    #[serde(flatten)]
    pub adapter: AdapterSettings,

    /// How parameters are changed.
    #[command(flatten)]
    #[serde(flatten)]
    pub optimization: OptimizationSettings,

    /// How often the run is measured.
    #[command(flatten)]
    #[serde(flatten)]
    pub evaluation: EvaluationSettings,
    /// Held-out prompts that are answered at each sample
    #[arg(long, help_heading = "Evaluation and samples")]
    pub num_samples: usize,
    /// Test prompts that are answered before and after training
    #[arg(long, help_heading = "Evaluation and samples")]
    pub test_answers: usize,

    /// What is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub checkpoints: CheckpointSettings,
}

impl Default for DpoSettings {
    fn default() -> Self {
        Self {
            run: RunSettings { out: PathBuf::from("runs/dpo"), ..RunSettings::default() },
            model: ModelSettings::default(),
            data: PairDataSettings::default(),
            split: SplitSettings::default(),
            loss_type: LossType::default(),
            beta: 0.1,
            label_smoothing: 0.0,
            average_log_prob: false,
            sft_weight: 0.0,
            simpo_gamma: 0.5,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            reference_logps: String::new(),
            adapter: AdapterSettings::default(),
            optimization: OptimizationSettings::fine_tuning(),
            evaluation: EvaluationSettings {
                eval_freq: 20,
                eval_iter: 0,
                sample_tokens: 64,
                temperature: 0.0,
                ..EvaluationSettings::default()
            },
            num_samples: 3,
            test_answers: 8,
            checkpoints: CheckpointSettings::default(),
        }
    }
}

impl DpoSettings {
    /// What the loss is told.
    pub fn loss_settings(&self) -> LossSettings {
        LossSettings {
            loss_type: self.loss_type,
            beta: self.beta,
            label_smoothing: self.label_smoothing,
            average_log_prob: self.average_log_prob,
            simpo_gamma: self.simpo_gamma,
            desirable_weight: self.desirable_weight,
            undesirable_weight: self.undesirable_weight,
            sft_weight: self.sft_weight,
        }
    }

    fn validate_loss(&self) -> Result<(), SettingsError> {
        let beta = self.beta;
        demand(
            beta > 0.0 && beta.is_finite(),
            "beta",
            beta,
            "a number above 0",
            "0.1 is usual for `sigmoid`, 2 for `simpo`",
        )?;
        let (smoothing, most) = (self.label_smoothing, if self.loss_type == LossType::Robust { 0.5 } else { 1.0 });
        let expected = format!("at least 0 and below {most}");
        demand((0.0..most).contains(&smoothing), "label_smoothing", smoothing, &expected, "0 trusts every label")?;
        for (key, weight) in [
            ("sft_weight", self.sft_weight),
            ("simpo_gamma", self.simpo_gamma),
            ("desirable_weight", self.desirable_weight),
            ("undesirable_weight", self.undesirable_weight),
        ] {
            demand(
                weight >= 0.0 && weight.is_finite(),
                key,
                weight,
                "a finite number of at least 0",
                "0 turns it off",
            )?;
        }
        Ok(())
    }
}

impl Settings for DpoSettings {
    const VERB: &'static str = "dpo";
    const FREE: &'static [&'static str] = &["model", "data", "num_samples", "test_answers", "reference_logps"];

    fn needs_f32(&self) -> Option<&'static str> {
        self.adapter.needs_f32()
    }

    fn run(&self) -> &RunSettings {
        &self.run
    }

    fn run_mut(&mut self) -> &mut RunSettings {
        &mut self.run
    }

    fn optimization(&self) -> &OptimizationSettings {
        &self.optimization
    }

    fn evaluation(&self) -> &EvaluationSettings {
        &self.evaluation
    }

    fn checkpoints(&self) -> &CheckpointSettings {
        &self.checkpoints
    }

    fn decided(mut self) -> Self {
        // TRL's rates; adapters, which begin at zero, take ten times what whole models take.
        if self.optimization.peak_lr == 0.0 {
            self.optimization.peak_lr = if self.adapter.is_on() { 1e-5 } else { 1e-6 };
        }
        self
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.model.validate(self.adapter.is_on())?;
        self.data.validate()?;
        self.split.validate()?;
        self.validate_loss()?;
        self.adapter.validate()?;
        self.validate_groups()
    }
}
