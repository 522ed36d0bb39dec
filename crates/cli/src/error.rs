//! What a verb can fail with, and how the user sees it.

use cavy_files::FilesError;
use cavy_model::ModelError;
use cavy_scaling::ScalingError;
use cavy_text::TextError;
use cavy_train::{SettingsError, TrainError};
use miette::{Diagnostic, NamedSource, SourceSpan};
use std::path::PathBuf;
use std::sync::Arc;

/// Why a verb failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum CliError {
    /// A key or value of a TOML file.
    #[error("{message}")]
    InFile {
        message: String,
        #[source_code]
        source_code: Arc<NamedSource<String>>,
        #[label("here")]
        at: Option<SourceSpan>,
        #[help]
        hint: Option<String>,
    },
    /// A flag, or settings that do not fit together.
    #[error("{message}")]
    Usage {
        message: String,
        #[help]
        hint: Option<String>,
    },
    #[error("cannot read {}", path.display())]
    #[diagnostic(help("check that the path is right and may be read"))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    #[diagnostic(help("check that the folder exists, may be written to, and that the disk is not full"))]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{message}")]
    Failed {
        message: String,
        #[help]
        hint: Option<String>,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl CliError {
    /// Whether the user wrote something that cannot be, so that the exit code is 2.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::InFile { .. } | Self::Usage { .. })
    }

    /// An error of usage from its message and the way out.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// A failure from its message and the way out.
    pub(crate) fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: Some(hint.into()), source: None }
    }

    /// An error for `path`, to map what reading it returns.
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Read { path, source }
    }

    /// An error for `path`, to map what writing it returns.
    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Write { path, source }
    }
}

/// What is wrong with a setting, and the way out of it.
pub(crate) fn parts(error: &SettingsError) -> (String, Option<String>) {
    split_hint(&error.to_string())
}

/// The libraries write `message, hint: way out`, possibly with a newline between.
fn split_hint(text: &str) -> (String, Option<String>) {
    match text.split_once("hint: ") {
        Some((message, hint)) => {
            (message.trim_end_matches([' ', ',', ';', '\n']).to_owned(), Some(hint.trim().to_owned()))
        }
        None => (text.to_owned(), None),
    }
}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> Self {
        let (message, hint) = parts(&error);
        Self::Usage { message, hint }
    }
}

/// A failure from what a library says, its hint as the way out.
fn explained(error: &dyn std::error::Error) -> CliError {
    let (message, hint) = split_hint(&error.to_string());
    let source = error.source().map(|source| source.to_string().into());
    CliError::Failed { message, hint, source }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        explained(&error)
    }
}

impl From<FilesError> for CliError {
    fn from(error: FilesError) -> Self {
        explained(&error)
    }
}

impl From<TextError> for CliError {
    fn from(error: TextError) -> Self {
        explained(&error)
    }
}

impl From<ScalingError> for CliError {
    fn from(error: ScalingError) -> Self {
        explained(&error)
    }
}

impl From<TrainError> for CliError {
    fn from(error: TrainError) -> Self {
        if let TrainError::Settings(error) = error {
            return error.into();
        }
        explained(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_of_a_library_becomes_the_help_of_the_program() {
        let error = SettingsError::UnknownKey {
            verb: "pretrain",
            key: "bach".to_owned(),
            nearest: Some("batch_size".to_owned()),
        };
        assert_eq!(parts(&error), ("unknown key `bach`".to_owned(), Some("did you mean `batch_size`?".to_owned())));
    }
}
