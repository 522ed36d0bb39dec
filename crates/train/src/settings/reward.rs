//! Settings of training a reward model.

use super::check::demand;
use super::{
    AdapterSettings, CheckpointSettings, EvaluationSettings, ModelSettings, OptimizationSettings, PairDataSettings,
    RunSettings, Settings, SplitSettings,
};
use crate::SettingsError;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that decides the training of a reward model. Names and defaults are TRL's where it has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct RewardSettings {
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

    /// Weight of the squared sum of a pair's scores, which keeps scores around zero (0: off; 0.01 is usual)
    #[arg(long, help_heading = "Preference")]
    pub center_rewards_coefficient: f64,

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
    /// Held-out pairs whose scores are shown at each sample
    #[arg(long, help_heading = "Evaluation and samples")]
    pub num_samples: usize,

    /// What is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub checkpoints: CheckpointSettings,
}

impl Default for RewardSettings {
    fn default() -> Self {
        Self {
            run: RunSettings { out: PathBuf::from("runs/reward"), ..RunSettings::default() },
            model: ModelSettings::default(),
            data: PairDataSettings::default(),
            split: SplitSettings::default(),
            center_rewards_coefficient: 0.0,
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
            checkpoints: CheckpointSettings::default(),
        }
    }
}

impl Settings for RewardSettings {
    const VERB: &'static str = "reward";
    const FREE: &'static [&'static str] = &["model", "data", "num_samples"];

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
            self.optimization.peak_lr = if self.adapter.is_on() { 1e-3 } else { 1e-4 };
        }
        self
    }

    fn validate(&self) -> Result<(), SettingsError> {
        self.model.validate(self.adapter.is_on())?;
        self.data.validate()?;
        self.split.validate()?;
        let centering = self.center_rewards_coefficient;
        let fits = centering >= 0.0 && centering.is_finite();
        let hint = "0 turns it off, 0.01 is usual";
        demand(fits, "center_rewards_coefficient", centering, "a finite number of at least 0", hint)?;
        self.adapter.validate()?;
        self.validate_groups()
    }
}
