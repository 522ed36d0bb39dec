//! GGUF: metadata and tensors in one file, versions 2 and 3, little-endian.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod metadata;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use metadata::{Array, Metadata, Value};
pub use write::save;

use crate::backing::{Backing, map};
use crate::dtype::Dtype;
use crate::error::FilesError;
use crate::tensors::Tensors;
use std::path::{Path, PathBuf};

/// The first four bytes of a file.
const MAGIC: &[u8; 4] = b"GGUF";
/// The key that says to how many bytes tensors are aligned, and what holds without it.
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: usize = 32;
/// Most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 4;

/// What a GGUF file holds.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// Keys and values, in the file's order.
    pub metadata: Metadata,
    /// Its tensors under GGUF's names, in the file's order, shapes outermost first.
    pub tensors: Tensors,
}

impl Gguf {
    /// Opens a `.gguf` file.
    pub fn load(path: &Path) -> Result<Self, FilesError> {
        Self::parse(path, map(path)?)
    }

    /// Reads metadata and tensor infos from a file's bytes; `path` stands in messages.
    ///
    /// Errors: whatever is not as the format says, overlapping tensors and repeated names and keys among it.
    pub fn parse(path: &Path, bytes: Backing) -> Result<Self, FilesError> {
        read::parse(path, bytes)
    }

    /// Where it was read, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.metadata.path().into()
    }
}

/// The number that stands for a type of tensor elements, as `enum ggml_type` has it.
const TYPES: [(u32, Dtype); 16] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (2, Dtype::Q4_0),
    (3, Dtype::Q4_1),
    (6, Dtype::Q5_0),
    (7, Dtype::Q5_1),
    (8, Dtype::Q8_0),
    (12, Dtype::Q4K),
    (13, Dtype::Q5K),
    (14, Dtype::Q6K),
    (24, Dtype::I8),
    (25, Dtype::I16),
    (26, Dtype::I32),
    (27, Dtype::I64),
    (28, Dtype::F64),
    (30, Dtype::BF16),
];
