//! Settings of classification.

use super::check::demand;
use super::{
    AdapterSettings, CheckpointSettings, EvaluationSettings, ModelSettings, OptimizationSettings, RunSettings,
    Settings, SplitOrder, SplitSettings,
};
use crate::SettingsError;
use crate::base::Trainable;
use cavy_model::{Gpt2Config, PUBLISHED};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that decides a run that teaches a model to tell labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct ClassifySettings {
    /// Where the run lives.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunSettings,

    /// What is fine-tuned.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: ModelSettings,
    /// Published size to build with random weights, instead of `model`
    #[arg(long, help_heading = "Model", value_parser = PossibleValuesParser::new(PUBLISHED.map(|(name, ..)| name)))]
    pub arch: String,
    /// Give the query, key and value projections of `arch` a bias
    #[arg(long, help_heading = "Model")]
    pub qkv_bias: bool,
    /// Labels to tell apart (0: those of the data)
    #[arg(long, help_heading = "Model")]
    pub num_labels: usize,
    /// Give the new head a bias; Hugging Face's classification heads have none
    #[arg(long, help_heading = "Model")]
    pub head_bias: bool,
    /// What is trained where there is no adapter
    #[arg(long, help_heading = "Model")]
    pub trainable: Trainable,

    /// Labelled texts: `.csv`, `.tsv`, `.jsonl`, `.json`, `.parquet` or `builtin:spam`
    #[arg(long, help_heading = "Data")]
    pub data: Vec<String>,
    /// How examples are divided.
    #[command(flatten)]
    #[serde(flatten)]
    pub split: SplitSettings,
    /// Column of the texts
    #[arg(long, help_heading = "Data")]
    pub text_column: String,
    /// Column of the labels
    #[arg(long, help_heading = "Data")]
    pub label_column: String,
    /// Labels in the order of their indices (none: those of the data, sorted)
    #[arg(long, help_heading = "Data")]
    pub labels: Vec<String>,
    /// Leave out texts of frequent labels, so that each label has as many as the rarest
    #[arg(long, help_heading = "Data")]
    pub balance: bool,
    /// Tokens of a text, at most (0: no bound but the model's); the rest is cut off
    #[arg(long, help_heading = "Data")]
    pub max_length: usize,

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

    /// What is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub checkpoints: CheckpointSettings,
}

impl Default for ClassifySettings {
    fn default() -> Self {
        let cavy_text::classify::ClassifySettings { text_column, label_column, labels, max_length } =
            cavy_text::classify::ClassifySettings::default();
        Self {
            run: RunSettings { out: PathBuf::from("runs/classify"), ..RunSettings::default() },
            model: ModelSettings::default(),
            arch: String::new(),
            qkv_bias: true,
            num_labels: 0,
            head_bias: true,
            trainable: Trainable::All,
            data: Vec::new(),
            // Labels often stand together in a file, so parts in its order would not be alike.
            split: SplitSettings {
                split: "70/10/20".to_owned(),
                split_order: SplitOrder::Shuffled,
                ..SplitSettings::default()
            },
            text_column,
            label_column,
            labels,
            balance: false,
            max_length,
            // The book counts the fused projection of a GPT-2 as three layers.
            adapter: AdapterSettings { split_qkv: true, ..AdapterSettings::default() },
            optimization: OptimizationSettings {
                peak_lr: 5e-5,
                weight_decay: 0.1,
                ..OptimizationSettings::fine_tuning()
            },
            evaluation: EvaluationSettings {
                eval_freq: 50,
                eval_iter: 0,
                sample_tokens: 0,
                ..EvaluationSettings::default()
            },
            checkpoints: CheckpointSettings::default(),
        }
    }
}

impl ClassifySettings {
    /// How texts are read.
    pub fn text_settings(&self) -> cavy_text::classify::ClassifySettings {
        cavy_text::classify::ClassifySettings {
            text_column: self.text_column.clone(),
            label_column: self.label_column.clone(),
            labels: self.labels.clone(),
            max_length: self.max_length,
        }
    }

    /// The model that `arch` names, if it names one.
    pub fn new_model(&self) -> Option<Gpt2Config> {
        let config = Gpt2Config::published(&self.arch)?;
        Some(Gpt2Config { qkv_bias: self.qkv_bias, drop_rate: 0.0, ..config })
    }
}

impl Settings for ClassifySettings {
    const VERB: &'static str = "classify";
    const FREE: &'static [&'static str] = &["model", "data"];

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

    fn validate(&self) -> Result<(), SettingsError> {
        demand(!self.data.is_empty(), "data", "nothing", "at least one path", "give a file, or `builtin:spam`")?;
        if self.arch.is_empty() {
            self.model.validate(self.adapter.is_on())?;
        }
        let clash = !self.arch.is_empty() && !self.model.model.is_empty();
        demand(!clash, "arch", &self.arch, "nothing where `model` is given", "leave one of the two out")?;
        let partial = self.trainable != Trainable::All && self.adapter.is_on();
        let hint = "leave it out: beside an adapter everything else is frozen";
        demand(!partial, "trainable", "given", "`all` where there is an adapter", hint)?;
        let fits = self.num_labels == 0 || self.labels.is_empty() || self.num_labels == self.labels.len();
        let expected = format!("the number of `labels`, {}", self.labels.len());
        demand(fits, "num_labels", self.num_labels, &expected, "leave one of the two out")?;
        demand(self.num_labels != 1, "num_labels", 1, "at least 2", "a single label tells nothing apart")?;
        self.split.validate()?;
        self.adapter.validate()?;
        self.validate_groups()
    }
}
