//! What can go wrong with files, recipes and models that others made.
#![expect(missing_docs, reason = "the message is the documentation")]

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CurateError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{}: {found}, hint: delete the folder of signatures and run again", path.display())]
    Signatures { path: PathBuf, found: &'static str },
    #[error("{}: at byte {at}: {found}, hint: the file is not a whole fastText model; fetch it again", path.display())]
    FastText { path: PathBuf, at: usize, found: String },
    #[error("{}: line {line}: {found}", path.display())]
    Json { path: PathBuf, line: usize, found: String },
    #[error("{}: {found}", path.display())]
    Format { path: PathBuf, found: String },
    #[error("{found}, hint: {hint}")]
    Recipe { found: String, hint: String },
    #[error("stopped")]
    Stopped,
}

impl CurateError {
    /// For `map_err` after reading `path`.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_owned(), source }
    }

    /// For `map_err` after writing `path`.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.to_owned(), source }
    }
}
