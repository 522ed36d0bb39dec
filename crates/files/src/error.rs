#![expect(missing_docs, reason = "the message is the doc")]

use crate::dtype::Dtype;
use std::path::{Path, PathBuf};

/// What can be wrong with a model file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    #[error("{path}: no such file\nhint: check the spelling; a relative path starts where the command is run")]
    Missing { path: PathBuf },
    #[error("{path}: this is a folder, expected a file\nhint: name the file inside it")]
    Folder { path: PathBuf },
    #[error("cannot read {path}\nhint: check the permissions")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}\nhint: check that the folder may be written to and that the disk is not full")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path}: not valid JSON: {source}\nhint: it may be cut short; copy it again")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path}: this is {found}, expected {expected}\nhint: {hint}")]
    Format { path: PathBuf, found: String, expected: &'static str, hint: &'static str },
    #[error(
        "{path}: {what} needs {needed} bytes from byte {at}, the file has {size} in all\nhint: it may be cut short; copy it again"
    )]
    Cut { path: PathBuf, what: String, at: u64, needed: u64, size: u64 },
    #[error("{path}: {what} is {found}, expected at most {most}\nhint: the file is damaged or made to do harm")]
    Limit { path: PathBuf, what: String, found: u64, most: u64 },
    #[error("{path}: {what} is {found}, expected {expected}\nhint: the file is damaged; copy it again")]
    Damaged { path: PathBuf, what: String, found: String, expected: String },
    #[error("{path}: the header is wrong: {source}\nhint: the file is damaged; copy it again")]
    Header { path: PathBuf, source: serde_json::Error },
    #[error("{path}: tensor `{name}` has type {found}, which is not supported\nhint: convert it to one of {supported}")]
    Dtype { path: PathBuf, name: String, found: String, supported: &'static str },
    #[error("{path}: tensor `{name}`, {dtype} {shape:?}: {problem}\nhint: {hint}")]
    Tensor { path: PathBuf, name: String, dtype: Dtype, shape: Vec<usize>, problem: &'static str, hint: &'static str },
    #[error("{path}: tensors `{first}` and `{second}` overlap\nhint: the file is damaged or made to do harm")]
    Overlap { path: PathBuf, first: String, second: String },
    #[error("{path}: tensor `{name}` is already in {other}\nhint: a name may occur once in the files of a model")]
    Duplicate { path: PathBuf, name: String, other: PathBuf },
    #[error("{path}: tensor `{name}` is missing\nhint: {nearest}")]
    NoTensor { path: PathBuf, name: String, nearest: String },
    #[error("{path}: shard `{found}` is not a plain file name\nhint: shards lie beside the index, without a folder")]
    ShardName { path: PathBuf, found: String },
    #[error(
        "{index}: tensor `{name}` is said to be in `{shard}`, which has no such tensor\nhint: copy both files again"
    )]
    NotInShard { index: PathBuf, name: String, shard: String },
    #[error("{path}: key `{key}` is missing\nhint: the file may be for another kind of model")]
    NoKey { path: PathBuf, key: String },
    #[error(
        "{path}: key `{key}` is {found}, expected {expected}\nhint: correct it, or take the file from where the model comes from again"
    )]
    Key { path: PathBuf, key: String, found: String, expected: &'static str },
    #[error(
        "{path}: the pickle asks for `{callable}`: this file would run code\nhint: where you trust it, load it in Python and save `model.state_dict()` alone"
    )]
    Code { path: PathBuf, callable: String },
    #[error("{path}: `{key}` is `{found}`, expected {expected}\nhint: other architectures cannot be converted")]
    Architecture { path: PathBuf, key: &'static str, found: String, expected: &'static str },
    #[error(
        "{path}: tensor `{name}` is not one of a {architecture}\nhint: the model is a variant that is not supported"
    )]
    Unknown { path: PathBuf, name: String, architecture: &'static str },
    #[error("{path}: key `{key}` occurs twice\nhint: the file is damaged; convert the model again")]
    DuplicateKey { path: PathBuf, key: String },
}

impl FilesError {
    /// The error of failing to read `path`; a missing file has its own variant because its way out differs.
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        if source.kind() == std::io::ErrorKind::NotFound { Self::Missing { path } } else { Self::Read { path, source } }
    }

    /// The error of failing to write `path`.
    pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write { path: path.to_path_buf(), source }
    }
}
