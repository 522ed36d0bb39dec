//! Safetensors: one file, or shards with an index beside them.
//!
//! Source: <https://huggingface.co/docs/safetensors/index#format>.

#[cfg(test)]
mod tests;
mod write;

pub use crate::shards::parse_index;
pub use write::save;

use crate::backing::{Backing, map};
use crate::dtype::Dtype;
use crate::error::FilesError;
use crate::shards;
use crate::tensors::{TensorInfo, Tensors};
use ::safetensors::Dtype as Stored;
use ::safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest header, as the format's own reader has it.
const MOST_HEADER_BYTES: usize = 100_000_000;
/// What a folder holds: one file, or the index of several.
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// What a safetensors file holds.
#[derive(Clone, Debug)]
pub struct Safetensors {
    /// Free text about the file, such as `format`; of shards, what all of them say together.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors, in the order of their bytes.
    pub tensors: Tensors,
}

impl Safetensors {
    /// Opens a `.safetensors` file, an index (`*.index.json`) with its shards, or a folder with either of them under
    /// the usual name.
    pub fn load(path: &Path) -> Result<Self, FilesError> {
        if path.is_dir() {
            let index = path.join(INDEX);
            return if index.is_file() { load_shards(&index) } else { Self::load(&path.join(SINGLE)) };
        }
        if path.extension().is_some_and(|extension| extension == "json") {
            return load_shards(path);
        }
        Self::parse(path, map(path)?)
    }

    /// Reads the header of a file's bytes; `path` stands in messages.
    pub fn parse(path: &Path, bytes: Backing) -> Result<Self, FilesError> {
        let file = (*bytes).as_ref();
        let (header, data_start) = header(path, file)?;
        let parsed: Metadata =
            serde_json::from_slice(header).map_err(|source| FilesError::Header { path: path.into(), source })?;
        let (claimed, present) = (parsed.data_len(), file.len() - data_start);
        if claimed > present {
            let (at, needed, size) = (data_start as u64, claimed as u64, file.len() as u64);
            return Err(FilesError::Cut { path: path.into(), what: "all tensors".into(), at, needed, size });
        }
        if claimed < present {
            return Err(FilesError::Damaged {
                path: path.into(),
                what: "the number of bytes after the header".into(),
                found: present.to_string(),
                expected: claimed.to_string(),
            });
        }
        let metadata = parsed.metadata().clone().unwrap_or_default().into_iter().collect();
        let mut listed: Vec<_> = parsed.tensors().into_iter().collect();
        listed.sort_by(|(name, info), (other_name, other)| {
            (info.data_offsets, name).cmp(&(other.data_offsets, other_name))
        });
        let mut tensors = Tensors::of(path, bytes.clone());
        for (name, info) in listed {
            let dtype = from_stored(info.dtype).ok_or_else(|| FilesError::Dtype {
                path: path.into(),
                name: name.clone(),
                found: info.dtype.to_string(),
                supported: "F32, F16, BF16",
            })?;
            // In bounds: the last offset was compared with the file's size above, and offsets ascend.
            let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
            tensors.add(TensorInfo { name, dtype, shape: info.shape.clone(), range }, Vec::new())?;
        }
        Ok(Self { metadata, tensors })
    }
}

/// The header's JSON and where the tensors' bytes begin.
fn header<'a>(path: &Path, file: &'a [u8]) -> Result<(&'a [u8], usize), FilesError> {
    let cut = |what: &str, at: u64, needed: u64| FilesError::Cut {
        path: path.into(),
        what: what.into(),
        at,
        needed,
        size: file.len() as u64,
    };
    let (length, rest) = file.split_first_chunk().ok_or_else(|| cut("the header's length", 0, 8))?;
    let length = u64::from_le_bytes(*length);
    if length > MOST_HEADER_BYTES as u64 {
        let (found, expected) = (format!("a header of {length} bytes"), "a safetensors file");
        let hint = "the file may be of another format, or damaged";
        return Err(FilesError::Format { path: path.into(), found, expected, hint });
    }
    let header = rest.get(..length as usize).ok_or_else(|| cut("the header", 8, length))?;
    Ok((header, 8 + length as usize))
}

/// The types that both sides know.
const TYPES: [(Stored, Dtype); 13] = [
    (Stored::F64, Dtype::F64),
    (Stored::F32, Dtype::F32),
    (Stored::F16, Dtype::F16),
    (Stored::BF16, Dtype::BF16),
    (Stored::I64, Dtype::I64),
    (Stored::I32, Dtype::I32),
    (Stored::I16, Dtype::I16),
    (Stored::I8, Dtype::I8),
    (Stored::U64, Dtype::U64),
    (Stored::U32, Dtype::U32),
    (Stored::U16, Dtype::U16),
    (Stored::U8, Dtype::U8),
    (Stored::BOOL, Dtype::Bool),
];

fn from_stored(stored: Stored) -> Option<Dtype> {
    TYPES.iter().find(|(known, _)| *known == stored).map(|(_, dtype)| *dtype)
}

fn to_stored(dtype: Dtype) -> Option<Stored> {
    TYPES.iter().find(|(_, known)| *known == dtype).map(|(stored, _)| *stored)
}

fn load_shards(index_path: &Path) -> Result<Safetensors, FilesError> {
    let mut metadata = BTreeMap::new();
    let tensors = shards::load(index_path, |path| {
        let read = Safetensors::parse(path, map(path)?)?;
        metadata.extend(read.metadata);
        Ok(read.tensors)
    })?;
    Ok(Safetensors { metadata, tensors })
}
