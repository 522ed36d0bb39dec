//! Writing safetensors.

use super::to_stored;
use crate::error::FilesError;
use crate::save::{AtomicFile, Outgoing};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use ::safetensors::tensor::TensorInfo as Stored;

/// The header, its entries in the order of the tensors' bytes.
///
/// The format's own `Metadata` would write `__metadata__` in another order each time.
struct Header<'a> {
    metadata: &'a BTreeMap<String, String>,
    tensors: Vec<(String, Stored)>,
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry("__metadata__", self.metadata)?;
        }
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

/// Writes a safetensors file, whole or not at all: the same bytes for the same tensors, in whatever order they come.
///
/// Errors: a name that occurs twice or that the format keeps for itself, and quantized blocks, which it cannot hold.
///
/// Panics: if a tensor's bytes are not as many as its shape asks for.
pub fn save<'a>(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: impl IntoIterator<Item = Outgoing<'a>>,
) -> Result<(), FilesError> {
    let mut tensors: Vec<Outgoing> = tensors.into_iter().collect();
    // Wide elements first, so that every tensor begins at a multiple of its elements' size.
    tensors.sort_by(|a, b| b.dtype.block().1.cmp(&a.dtype.block().1).then_with(|| a.name.cmp(&b.name)));
    let mut header = Header { metadata, tensors: Vec::new() };
    let mut names = HashSet::new();
    let mut end = 0;
    for tensor in &tensors {
        let name = tensor.name.clone();
        if !names.insert(&tensor.name) || name == "__metadata__" {
            return Err(FilesError::Duplicate { path: path.into(), name, other: path.into() });
        }
        let stored = to_stored(tensor.dtype).ok_or_else(|| FilesError::Dtype {
            path: path.into(),
            name: name.clone(),
            found: tensor.dtype.to_string(),
            supported: "F32, F16, BF16",
        })?;
        let start = end;
        end += tensor.size_bytes(path)?;
        header.tensors.push((name, Stored { dtype: stored, shape: tensor.shape.clone(), data_offsets: (start, end) }));
    }
    let mut text = serde_json::to_vec(&header).map_err(|source| FilesError::Header { path: path.into(), source })?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = AtomicFile::create(path)?;
    file.write(&(text.len() as u64).to_le_bytes())?;
    file.write(&text)?;
    for tensor in tensors {
        tensor.write(&mut file)?;
    }
    file.commit()
}
