//! Exact copies: of the text, or of what a field says.

use crate::document::Document;
use crate::error::CurateError;
use crate::minhash::{DuplicateSets, bucket_name, merge_bucket};
use crate::read::read_documents;
use crate::recipe::{ExactDedup, Keep};
use regex::Regex;
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;

/// Numbers of a signature that say what is compared; one more is the priority, where there is one.
const COMPARED: usize = 2;

/// Numbers of a signature.
pub(crate) fn width(settings: &ExactDedup) -> usize {
    COMPARED + usize::from(!settings.document_priority.is_empty())
}

/// Makes the signatures by which copies meet.
#[derive(Debug)]
pub(crate) struct CopySigner {
    settings: ExactDedup,
    removed: Option<Regex>,
}

impl CopySigner {
    /// Errors: if the pattern is none.
    pub(crate) fn new(settings: &ExactDedup) -> Result<Self, CurateError> {
        let pattern = &settings.remove_regex;
        let removed = (!pattern.is_empty()).then(|| Regex::new(pattern)).transpose().map_err(|error| {
            CurateError::Recipe { found: error.to_string(), hint: "see the syntax of the crate `regex`".to_owned() }
        })?;
        Ok(Self { settings: settings.clone(), removed })
    }

    /// The signature of `document`; whether it has one: a document without the field does not, and is nobody's copy.
    pub(crate) fn sign(&self, document: &Document, signature: &mut Vec<u64>) -> bool {
        let Some(content) = field(document, &self.settings.content_getter) else { return false };
        let hash = match &self.removed {
            Some(removed) => crate::text_hash(&removed.replace_all(&content, "")),
            None => crate::text_hash(&content),
        };
        signature.clear();
        signature.extend([(hash >> 64) as u64, hash as u64]);
        if !self.settings.document_priority.is_empty() {
            signature.push(rank(field(document, &self.settings.document_priority).as_deref(), self.settings.keep));
        }
        true
    }
}

/// What a document has under `name`: its `text`, its `id`, or a string or number of its metadata.
fn field<'a>(document: &'a Document, name: &str) -> Option<std::borrow::Cow<'a, str>> {
    match (name, document.metadata.get(name)) {
        ("text", _) => Some(document.text.as_str().into()),
        ("id", _) => Some(document.id.as_str().into()),
        (_, Some(Value::String(text))) => Some(text.into()),
        (_, Some(Value::Number(number))) => Some(number.to_string().into()),
        _ => None,
    }
}

/// The smaller, the rather a document stays; last comes what has no number.
fn rank(priority: Option<&str>, keep: Keep) -> u64 {
    let Some(number) = priority.and_then(|text| text.trim().parse::<f64>().ok()).filter(|number| !number.is_nan())
    else {
        return u64::MAX;
    };
    // The order of the bits is that of the numbers once the sign is turned. Adding 0 makes -0 the same as 0.
    let bits = (number + 0.0).to_bits();
    let ascending = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    match keep {
        Keep::Lowest => ascending,
        Keep::Highest => !ascending,
    }
}

/// What is compared of the documents of the index; its paths are read from `base`.
fn index_of(settings: &ExactDedup, base: &Path) -> Result<HashSet<[u64; COMPARED]>, CurateError> {
    let signer = CopySigner::new(settings)?;
    let (mut index, mut signature) = (HashSet::new(), Vec::new());
    for file in &settings.index {
        let path = base.join(file);
        let mut add = |document: Document| {
            if signer.sign(&document, &mut signature) {
                index.insert([signature[0], signature[1]]);
            }
            Ok(())
        };
        let mut broken = None;
        read_documents(&path, &mut add, &mut |damage| broken = broken.take().or(Some(damage)))?;
        if let Some(damage) = broken {
            return Err(CurateError::Json { path, line: damage.at as usize, found: damage.found });
        }
    }
    Ok(index)
}

/// Finds the copies among signatures: of equal ones stays that of the best priority, of these the first; of those in
/// the index none. Paths are read from `base`.
///
/// Errors: if a file cannot be read or its records are not in order.
pub(crate) fn find(
    folder: &Path,
    settings: &ExactDedup,
    base: &Path,
    memory_bytes: usize,
) -> Result<DuplicateSets, CurateError> {
    let index = index_of(settings, base)?;
    let among_documents = settings.index.is_empty() || !settings.only_dedup_in_index;
    let mut sets = DuplicateSets::default();
    let mut kept: Option<(u32, u32, u32)> = None;
    let close = |sets: &mut DuplicateSets, kept: Option<(u32, u32, u32)>| {
        if let Some((shard, document, copies)) = kept.filter(|(.., copies)| *copies > 0) {
            *sets.sizes.entry(copies as usize + 1).or_default() += 1;
            if settings.save_cluster_size {
                sets.copies.entry(shard).or_default().push((document, copies));
            }
        }
    };
    merge_bucket(&folder.join(bucket_name(0)), width(settings), memory_bytes, &mut |last, (key, shard, document)| {
        let is_copy = among_documents && last.is_some_and(|last| last.0[..COMPARED] == key[..COMPARED]);
        if index.contains(&[key[0], key[1]]) {
            sets.remove.entry(*shard).or_default().push(*document);
        } else if let Some((.., copies)) = kept.as_mut().filter(|_| is_copy) {
            *copies = copies.saturating_add(1);
            sets.remove.entry(*shard).or_default().push(*document);
        } else {
            close(&mut sets, kept.replace((*shard, *document, 0)));
        }
    })?;
    close(&mut sets, kept);
    sets.remove.values_mut().for_each(|documents| documents.sort_unstable());
    sets.copies.values_mut().for_each(|documents| documents.sort_unstable());
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_in_the_order_of_the_numbers() {
        let numbers = ["-inf", "-2", "-0.5", "0", "1e-9", "1", "3", "1e300"];
        let ascending = numbers.map(|number| rank(Some(number), Keep::Lowest));
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:?}");
        let descending = numbers.map(|number| rank(Some(number), Keep::Highest));
        assert!(descending.is_sorted_by(|a, b| a > b), "{descending:?}");
        assert_eq!(rank(Some("-0"), Keep::Lowest), rank(Some("0"), Keep::Lowest));
        for none in [None, Some("NaN"), Some("high"), Some("")] {
            assert_eq!((rank(none, Keep::Lowest), rank(none, Keep::Highest)), (u64::MAX, u64::MAX));
        }
    }
}
