//! Settings of instruction tuning.

use super::base::named;
use super::check::demand;
use super::{
    AdapterSettings, CheckpointSettings, EvaluationSettings, LrSchedule, ModelSettings, OptimizationSettings,
    RunSettings, Settings, SplitSettings, Warmup,
};
use crate::SettingsError;
use cavy_text::instruct::{BadItems, Format, FormatSettings, Overlong, PromptTemplate, Source, TrainOn, Turns};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that decides a run of supervised fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub struct SftSettings {
    /// Where the run lives.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunSettings,

    /// What is fine-tuned.
    #[command(flatten)]
    #[serde(flatten)]
    pub model: ModelSettings,

    /// Instructions, chats or texts: `.json`, `.jsonl`, `.csv`, `.parquet` or `builtin:instructions`; `FILE=WEIGHT` mixes
    #[arg(long, help_heading = "Data")]
    pub data: Vec<String>,
    /// How examples are divided.
    #[command(flatten)]
    #[serde(flatten)]
    pub split: SplitSettings,
    /// The shape of rows; `auto` looks at their columns
    #[arg(long, help_heading = "Data", value_parser = named::<Format>(&["auto", "alpaca", "sharegpt", "messages", "prompt-completion", "text"]))]
    pub format: Format,
    /// Columns under other names, as `field=column`
    #[arg(long, help_heading = "Data")]
    pub columns: Vec<String>,
    /// How instructions become text: `auto`, `alpaca`, `plain`, `chat` (the model's template), or a text with `{response}`
    #[arg(long, help_heading = "Data")]
    pub prompt_template: String,
    /// Which part of an item carries loss
    #[arg(long, help_heading = "Data", value_parser = named::<TrainOn>(&["response", "all"]))]
    pub train_on: TrainOn,
    /// Roles of a chat whose messages carry loss
    #[arg(long, help_heading = "Data")]
    pub train_roles: Vec<String>,
    /// Which messages of these roles carry loss
    #[arg(long, help_heading = "Data", value_parser = named::<Turns>(&["all", "last"]))]
    pub train_turns: Turns,
    /// Learn to end an answer
    #[arg(long, help_heading = "Data")]
    pub train_eos: bool,
    /// Tokens of an item, at most (0: no bound but the model's)
    #[arg(long, help_heading = "Data")]
    pub max_length: usize,
    /// What becomes of longer items
    #[arg(long, help_heading = "Data", value_parser = named::<Overlong>(&["cut", "drop"]))]
    pub overlong: Overlong,
    /// What becomes of items that cannot be used
    #[arg(long, help_heading = "Data", value_parser = named::<BadItems>(&["error", "drop"]))]
    pub bad_items: BadItems,

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
    /// Test prompts that are answered at the end and compared with their references
    #[arg(long, help_heading = "Evaluation and samples")]
    pub test_answers: usize,

    /// What is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub checkpoints: CheckpointSettings,
}

impl Default for SftSettings {
    fn default() -> Self {
        let FormatSettings {
            format,
            train_on,
            train_roles,
            train_turns,
            train_eos,
            max_length,
            overlong,
            bad_items,
            ..
        } = FormatSettings::default();
        Self {
            run: RunSettings { out: PathBuf::from("runs/sft"), ..RunSettings::default() },
            model: ModelSettings::default(),
            data: Vec::new(),
            split: SplitSettings::default(),
            format,
            columns: Vec::new(),
            prompt_template: PromptTemplate::default().as_str().to_owned(),
            train_on,
            train_roles,
            train_turns,
            train_eos,
            max_length,
            overlong,
            bad_items,
            adapter: AdapterSettings::default(),
            optimization: OptimizationSettings::fine_tuning(),
            evaluation: EvaluationSettings {
                eval_freq: 50,
                eval_iter: 0,
                sample_tokens: 128,
                temperature: 0.0,
                ..EvaluationSettings::default()
            },
            num_samples: 3,
            test_answers: 16,
            checkpoints: CheckpointSettings::default(),
        }
    }
}

impl OptimizationSettings {
    /// TRL's defaults for fine-tuning: batches of 8, a peak that [`OptimizationSettings::with_peak`] decides, straight down
    /// to zero, no weight decay.
    pub(super) fn fine_tuning() -> Self {
        Self {
            batch_size: 8,
            peak_lr: 0.0,
            min_lr: 0.0,
            warmup_steps: Warmup::Steps(0),
            lr_schedule: LrSchedule::Linear,
            weight_decay: 0.0,
            ..Self::default()
        }
    }

    /// The same with TRL's peak, 2e-5, or ten times that for adapters, where none was given.
    #[must_use]
    pub(super) fn with_peak(mut self, adapter: &AdapterSettings) -> Self {
        if self.peak_lr == 0.0 {
            self.peak_lr = if adapter.is_on() { 2e-4 } else { 2e-5 };
        }
        self
    }
}

impl SftSettings {
    /// The files, with their weights.
    ///
    /// Errors: a weight that cannot be one.
    pub fn sources(&self) -> Result<Vec<Source>, SettingsError> {
        let read = |text: &String| Source::parse(text).map_err(|error| wrong("data", text, &error.to_string()));
        self.data.iter().map(read).collect()
    }

    /// How items are read.
    ///
    /// Errors: a template without a place for the answer, a column that is not `field=column`.
    pub fn format_settings(&self) -> Result<FormatSettings, SettingsError> {
        let column = |text: &String| {
            let pair = text.split_once('=').map(|(field, column)| (field.to_owned(), column.to_owned()));
            pair.ok_or_else(|| wrong("columns", text, "it is not `field=column`"))
        };
        let template = &self.prompt_template;
        Ok(FormatSettings {
            format: self.format,
            columns: self.columns.iter().map(column).collect::<Result<_, _>>()?,
            prompt_template: template
                .parse()
                .map_err(|error: cavy_text::TextError| wrong("prompt_template", template, &error.to_string()))?,
            train_on: self.train_on,
            train_roles: self.train_roles.clone(),
            train_turns: self.train_turns,
            train_eos: self.train_eos,
            max_length: self.max_length,
            overlong: self.overlong,
            bad_items: self.bad_items,
            now: None,
        })
    }
}

/// The error of a setting whose reader says what is wrong.
pub(super) fn wrong(key: &str, found: &str, reason: &str) -> SettingsError {
    let (expected, hint) = reason
        .split_once("\nhint: ")
        .or_else(|| reason.split_once(", hint: "))
        .unwrap_or((reason, "correct it, or leave it out"));
    SettingsError::Invalid {
        key: key.to_owned(),
        found: format!("{found:?}"),
        expected: format!("another value: {expected}"),
        hint: hint.to_owned(),
    }
}

impl Settings for SftSettings {
    const VERB: &'static str = "sft";
    const FREE: &'static [&'static str] = &["model", "data", "num_samples", "test_answers"];

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
        self.optimization = self.optimization.with_peak(&self.adapter);
        self
    }

    fn validate(&self) -> Result<(), SettingsError> {
        let hint = "give a file, or `builtin:instructions`";
        demand(!self.data.is_empty(), "data", "nothing", "at least one path", hint)?;
        self.model.validate(self.adapter.is_on())?;
        self.split.validate()?;
        self.sources()?;
        self.format_settings()?;
        self.adapter.validate()?;
        self.validate_groups()
    }
}
