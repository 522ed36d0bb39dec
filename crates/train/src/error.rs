//! What can go wrong in this crate.
#![expect(missing_docs, reason = "the message is the documentation")]

use std::path::PathBuf;

/// A setting that cannot be, without its place: who read the file or the flag adds that.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    #[error("unknown key `{key}`, hint: {}", .nearest.as_ref().map_or(format!("`cavy {} --help` lists the keys", .verb), |name| format!("did you mean `{name}`?")))]
    UnknownKey { verb: &'static str, key: String, nearest: Option<String> },
    #[error("`{key}` is {found}, expected {expected}, hint: {hint}")]
    Invalid { key: String, found: String, expected: String, hint: String },
}

impl SettingsError {
    /// The key that is at fault.
    pub fn key(&self) -> &str {
        match self {
            Self::UnknownKey { key, .. } | Self::Invalid { key, .. } => key,
        }
    }
}

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot read {path}, hint: check that it exists and may be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: not a record of a run, hint: delete the line if it was edited by hand")]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
    #[error(
        "cannot write {path}, hint: check that the folder may be written to and that its disk is not full; earlier checkpoints are untouched"
    )]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Text(#[from] cavy_text::TextError),
    #[error(transparent)]
    Model(#[from] cavy_model::ModelError),
    #[error("the start context cannot be encoded, hint: set `start_context` to words that occur in the text")]
    StartContext { source: cavy_text::TextError },
    #[error(
        "the {split} text is too short: it has {tokens} tokens, a context of {context} needs at least {needed}, hint: give more text, or {way_out}"
    )]
    TooShort { split: &'static str, tokens: usize, context: usize, needed: usize, way_out: String },
    #[error(
        "the training text makes {windows} windows of {context} tokens, one step takes {needed}, hint: lower `batch_size` or `grad_accum_steps`, or set `drop_last = false`"
    )]
    TooFewWindows { windows: usize, context: usize, needed: usize },
    #[error(
        "there are {examples} examples for training, one step takes {needed}, hint: lower `batch_size` or `grad_accum_steps`, or set `drop_last = false`"
    )]
    TooFewExamples { examples: usize, needed: usize },
    #[error(
        "the texts have {found} labels ({labels}), `num_labels` is {asked}, hint: set it to {found}, or to 0 for those of the data"
    )]
    Labels { found: usize, asked: usize, labels: String },
    #[error(
        "`split` is `{split}`, which leaves none of {items} items for validation, hint: hold some out, for instance `85/10/5`"
    )]
    NoValidation { split: String, items: usize },
    #[error("`vocab_size` is {found}, the tokenizer has {tokens} tokens, hint: set it to 0 or to at least {tokens}")]
    Vocabulary { found: usize, tokens: usize },
    #[error("{path}: holds a run already, hint: `--resume` continues it; another `out` starts a new one beside it")]
    RunExists { path: PathBuf },
    #[error("{path}: {found}, expected {expected}, hint: this checkpoint is damaged; {way_out}")]
    Damaged { path: PathBuf, found: String, expected: String, way_out: String },
    #[error(
        "`{key}` is {found}, the checkpoint {path} was made with {expected}, hint: resume with the settings in the run's `run.toml`, or start a new run in another `out`"
    )]
    OtherSettings { path: PathBuf, key: String, found: String, expected: String },
    #[error(
        "the text is not the one that the checkpoint {path} was made with: {found}, expected {expected}, hint: resume with the same files, or start a new run in another `out`"
    )]
    OtherText { path: PathBuf, found: String, expected: String },
    #[error(
        "{skipped} steps in a row, up to step {step}, had no finite loss or gradient (loss {loss}, gradient norm {grad_norm}), hint: lower `peak_lr` (now {peak_lr}), lengthen `warmup_steps`, or clip with `max_norm = 1.0`; {way_out}"
    )]
    Diverged { step: usize, skipped: usize, loss: f64, grad_norm: f64, peak_lr: f64, way_out: String },
}
