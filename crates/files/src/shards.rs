//! Tensors in several files, with an index that says which file has which.

use crate::backing::map;
use crate::error::FilesError;
use crate::tensors::Tensors;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Largest index.
const MOST_INDEX_BYTES: usize = 100_000_000;

/// The part of an index that says which shard holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the index of a sharded model, from tensor name to shard.
///
/// Errors: shards that are not plain file names, so that an index cannot point outside its folder.
pub fn parse_index(path: &Path, text: &[u8]) -> Result<BTreeMap<String, String>, FilesError> {
    let index: Index = serde_json::from_slice(text).map_err(|source| FilesError::Json { path: path.into(), source })?;
    for shard in index.weight_map.values() {
        // A backslash or a colon leads elsewhere on Windows.
        if shard.is_empty() || shard.contains(['/', '\\', ':', '\0']) || shard == "." || shard == ".." {
            return Err(FilesError::ShardName { path: path.into(), found: shard.clone() });
        }
    }
    Ok(index.weight_map)
}

/// The tensors of all shards that an index names, each read by `read`.
///
/// Errors: a tensor that is not in the shard that the index says, or in two.
pub(crate) fn load(
    index_path: &Path,
    mut read: impl FnMut(&Path) -> Result<Tensors, FilesError>,
) -> Result<Tensors, FilesError> {
    let text = map(index_path)?;
    let text = (*text).as_ref();
    if text.len() > MOST_INDEX_BYTES {
        let (found, most) = (text.len() as u64, MOST_INDEX_BYTES as u64);
        return Err(FilesError::Limit { path: index_path.into(), what: "its size".into(), found, most });
    }
    let weight_map = parse_index(index_path, text)?;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    let folder = index_path.parent().unwrap_or(Path::new(""));
    let mut parts = BTreeMap::new();
    for shard in shards {
        parts.insert(shard, read(&folder.join(shard))?);
    }
    for (name, shard) in &weight_map {
        if !parts[shard].contains(name) {
            let (index, name, shard) = (index_path.into(), name.clone(), shard.clone());
            return Err(FilesError::NotInShard { index, name, shard });
        }
    }
    Tensors::joined(parts.into_values())
}
