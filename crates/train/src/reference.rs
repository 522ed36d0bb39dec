//! Log-probabilities of a reference policy, computed once and kept on the disk.

use crate::TrainError;
use crate::files::write_atomically;
use crate::objectives::preference_loss::PairLogps;
use cavy_text::rng::hash_bytes;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the file.
const VERSION: u32 = 1;

/// What the log-probabilities depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceKey {
    /// Hash of the reference's weights.
    pub model: u64,
    /// Hash of every token of the data.
    pub data: u64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    key: ReferenceKey,
    pairs: Vec<PairLogps>,
    /// Hash of the numbers, which tells a damaged file.
    hash: u64,
}

fn hash(pairs: &[PairLogps]) -> u64 {
    let bytes = |pair: &PairLogps| [pair.chosen, pair.rejected].map(|x| x.to_bits().to_le_bytes()).concat();
    pairs.iter().fold(0, |hash, pair| hash_bytes(hash, &bytes(pair)))
}

/// The log-probabilities of `count` pairs kept at `path`, or computed and kept there.
///
/// What is found there is used if it is of the same model and data and undamaged; `note` hears why it is not.
///
/// Law: the numbers come back as they were, bit for bit.
/// Errors: a file that cannot be written.
pub fn load_or_compute(
    path: &Path,
    key: ReferenceKey,
    count: usize,
    note: &mut dyn FnMut(String),
    compute: impl FnOnce() -> Vec<PairLogps>,
) -> Result<Vec<PairLogps>, TrainError> {
    match read(path, key, count) {
        Ok(Some(pairs)) => {
            note(format!("reference: log-probabilities of {count} pairs from {}", path.display()));
            return Ok(pairs);
        }
        Ok(None) => note(format!("reference: computing log-probabilities of {count} pairs")),
        Err(reason) => note(format!("reference: {}: {reason}; computed again", path.display())),
    }
    let pairs = compute();
    let saved = Saved { version: VERSION, key, hash: hash(&pairs), pairs };
    let json =
        serde_json::to_vec(&saved).map_err(|source| TrainError::Write { path: path.into(), source: source.into() })?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(crate::files::write_error(folder))?;
    }
    write_atomically(path, &json)?;
    Ok(saved.pairs)
}

/// What is at `path`; nothing where there is no file; why it cannot be used.
fn read(path: &Path, key: ReferenceKey, count: usize) -> Result<Option<Vec<PairLogps>>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| format!("damaged ({error})"))?;
    if saved.version != VERSION {
        return Err(format!("version {}, expected {VERSION}", saved.version));
    }
    if saved.key.model != key.model {
        return Err("of another model".to_owned());
    }
    if saved.key.data != key.data || saved.pairs.len() != count {
        return Err("of other data".to_owned());
    }
    if saved.hash != hash(&saved.pairs) {
        return Err("damaged (its numbers are not those that were written)".to_owned());
    }
    Ok(Some(saved.pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ReferenceKey = ReferenceKey { model: 0xFEED_FACE_CAFE_BEEF, data: u64::MAX - 3 };

    fn pairs(shift: f64) -> Vec<PairLogps> {
        (0..5).map(|i| PairLogps { chosen: -0.1 * f64::from(i) - shift, rejected: -1.0 / 3.0 - f64::from(i) }).collect()
    }

    /// What comes back, what was said of it, and whether it was computed.
    fn get(path: &Path, key: ReferenceKey) -> (Vec<PairLogps>, String, bool) {
        let (mut notes, mut computed) = (String::new(), false);
        let compute = || {
            computed = true;
            pairs(0.7)
        };
        let found = load_or_compute(path, key, 5, &mut |note| notes += &note, compute).unwrap();
        (found, notes, computed)
    }

    #[test]
    fn numbers_are_computed_once_and_come_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/reference.json");
        let (first, _, computed) = get(&path, KEY);
        let (second, _, again) = get(&path, KEY);
        assert!(computed && !again);
        assert_eq!(hash(&first), hash(&second));
    }

    #[test]
    fn another_model_other_data_and_damage_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reference.json");
        for (key, reason) in [
            (ReferenceKey { model: KEY.model ^ 1, ..KEY }, "of another model"),
            (ReferenceKey { data: KEY.data ^ 1, ..KEY }, "of other data"),
        ] {
            get(&path, KEY);
            let (_, note, computed) = get(&path, key);
            assert!(computed && note.contains(reason), "{note}");
        }
        get(&path, KEY);
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [text.replacen("-0.7", "-0.8", 1), text[..text.len() - 2].to_owned()] {
            assert_ne!(damaged, text);
            fs::write(&path, damaged).unwrap();
            let (_, note, computed) = get(&path, KEY);
            assert!(computed && note.contains("damaged"), "{note}");
        }
    }
}
