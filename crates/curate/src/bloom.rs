//! Copies found in one pass with a Bloom filter: memory is fixed, whatever the corpus.

use crate::error::CurateError;
use crate::minhash::{DuplicateSets, Mt19937, PRIME, for_each_shingle, hash};
use crate::normalize::simplify;
use crate::words::split_words;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Leave out documents most of whose runs of words occurred before, or seem to have.
///
/// The chance that a run seems to have is `(1 - (1 - 1/m)^(k n))^k` for `m` bits and `n` runs before.
/// Source: Bloom 1970; datatrove's `SingleBloomFilter`, which uses only the bits that `m_bytes` as a mask lets through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BloomDedup {
    /// Size of the filter, which is in memory once, in bytes.
    pub m_bytes: usize,
    /// Bits of a run.
    pub k: usize,
    /// A document goes if more than this share of its runs occurred before.
    pub duplicate_threshold: f64,
    /// Words of a run.
    pub n_grams: usize,
    /// Seed of the hash functions.
    pub seed: u32,
}

impl Default for BloomDedup {
    fn default() -> Self {
        Self { m_bytes: 64 << 20, k: 7, duplicate_threshold: 0.8, n_grams: 13, seed: 0 }
    }
}

/// The filter.
#[derive(Clone, Debug)]
pub struct BloomFilter {
    settings: BloomDedup,
    bits: Vec<u8>,
    functions: Vec<(u64, u64)>,
}

impl BloomFilter {
    /// An empty filter.
    ///
    /// Errors: if there is no memory for it.
    /// Panics: if a size in `settings` is 0.
    pub fn new(settings: &BloomDedup) -> Result<Self, CurateError> {
        assert!(settings.m_bytes > 0 && settings.k > 0 && settings.n_grams > 0, "sizes are above 0: {settings:?}");
        let mut bits = Vec::new();
        bits.try_reserve_exact(settings.m_bytes).map_err(|error| CurateError::Recipe {
            found: format!("`m_bytes` is {}: {error}", settings.m_bytes),
            hint: "the filter has to fit in memory".to_owned(),
        })?;
        bits.resize(settings.m_bytes, 0);
        let mut random = Mt19937::new(settings.seed);
        let a: Vec<u64> = (0..settings.k).map(|_| random.between(1, PRIME)).collect();
        let functions = a.into_iter().map(|a| (a, random.between(0, PRIME))).collect();
        Ok(Self { settings: settings.clone(), bits, functions })
    }

    /// Whether most of the runs, which are hashes of words, occurred before; those that did not are taken in.
    pub fn is_copy(&mut self, runs: &[u64]) -> bool {
        let count = self.bits.len() as u64 * 8;
        let places = |&(a, b): &(u64, u64), run: u64| {
            let bit = hash(run, a, b) % count;
            ((bit / 8) as usize, 1_u8 << (bit % 8))
        };
        let mut new = Vec::new();
        for &run in runs {
            let known = self.functions.iter().all(|function| {
                let (byte, mask) = places(function, run);
                self.bits[byte] & mask != 0
            });
            if !known {
                new.push(run);
            }
        }
        // Only now, so that a document does not repeat itself.
        for &run in &new {
            for function in &self.functions {
                let (byte, mask) = places(function, run);
                self.bits[byte] |= mask;
            }
        }
        !runs.is_empty() && (runs.len() - new.len()) as f64 / runs.len() as f64 > self.settings.duplicate_threshold
    }
}

/// The hashes of the runs of `n_grams` words of `text`.
pub fn runs(text: &str, n_grams: usize) -> Vec<u64> {
    let simple = simplify(text);
    let mut runs = Vec::new();
    for_each_shingle(split_words(&simple).into_iter(), n_grams, |run| runs.push(xxh3_64(run)));
    runs
}

fn file_name(shard: u32) -> String {
    format!("{shard:06}.runs")
}

/// Writes the runs of the documents of a shard: number, count and hashes, little endian.
#[derive(Debug)]
pub(crate) struct RunWriter {
    path: PathBuf,
    file: BufWriter<fs::File>,
    n_grams: usize,
}

impl RunWriter {
    /// Errors: if the file cannot be made.
    pub(crate) fn new(folder: &Path, shard: u32, n_grams: usize) -> Result<Self, CurateError> {
        fs::create_dir_all(folder).map_err(CurateError::write(folder))?;
        let path = folder.join(file_name(shard));
        let file = fs::File::create(&path).map_err(CurateError::write(&path))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file), n_grams })
    }

    /// Errors: if the file cannot be written.
    pub(crate) fn push(&mut self, document: u32, text: &str) -> Result<(), CurateError> {
        let runs = runs(text, self.n_grams);
        if runs.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(12 + runs.len() * 8);
        bytes.extend(document.to_le_bytes());
        bytes.extend((runs.len() as u64).to_le_bytes());
        runs.iter().for_each(|run| bytes.extend(run.to_le_bytes()));
        self.file.write_all(&bytes).map_err(CurateError::write(&self.path))
    }

    /// Errors: if the file cannot be written.
    pub(crate) fn finish(mut self) -> Result<(), CurateError> {
        self.file.flush().map_err(CurateError::write(&self.path))
    }
}

/// Finds the copies in the files of `shards` shards, in the order of the input.
///
/// Errors: if there is no memory for the filter, or a file cannot be read or is cut off.
pub(crate) fn find(folder: &Path, settings: &BloomDedup, shards: usize) -> Result<DuplicateSets, CurateError> {
    let mut filter = BloomFilter::new(settings)?;
    let mut sets = DuplicateSets::default();
    for shard in 0..shards as u32 {
        let path = folder.join(file_name(shard));
        let mut file = BufReader::with_capacity(1 << 18, fs::File::open(&path).map_err(CurateError::read(&path))?);
        let cut_off = || CurateError::Signatures { path: path.clone(), found: "its last record is cut off" };
        loop {
            let (mut head, mut hashes) = (Vec::new(), Vec::new());
            file.by_ref().take(12).read_to_end(&mut head).map_err(CurateError::read(&path))?;
            if head.is_empty() {
                break;
            }
            let head: [u8; 12] = head.try_into().map_err(|_| cut_off())?;
            let [d0, d1, d2, d3, count @ ..] = head;
            let bytes = u64::from_le_bytes(count).checked_mul(8).ok_or_else(cut_off)?;
            file.by_ref().take(bytes).read_to_end(&mut hashes).map_err(CurateError::read(&path))?;
            if hashes.len() as u64 != bytes {
                return Err(cut_off());
            }
            let hashes: Vec<u64> = hashes
                .chunks_exact(8)
                .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
                .collect();
            if filter.is_copy(&hashes) {
                sets.remove.entry(shard).or_default().push(u32::from_le_bytes([d0, d1, d2, d3]));
            }
        }
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(m_bytes: usize) -> BloomFilter {
        BloomFilter::new(&BloomDedup { m_bytes, ..BloomDedup::default() }).unwrap()
    }

    #[test]
    fn more_than_the_threshold_has_to_have_occurred() {
        let mut filter = filter(1 << 16);
        assert!(!filter.is_copy(&[1, 2, 3, 4, 5, 6, 7, 8]));
        // Eight of ten are the threshold itself; after that all ten are known.
        assert!(!filter.is_copy(&[1, 2, 3, 4, 5, 6, 7, 8, 100, 101]));
        assert!(filter.is_copy(&[1, 2, 3, 4, 5, 6, 7, 8, 100, 102]));
        assert!(!filter.is_copy(&[]));
    }

    #[test]
    fn a_document_does_not_repeat_itself() {
        assert!(!filter(1 << 16).is_copy(&[7; 20]));
    }

    #[test]
    fn false_alarms_are_as_many_as_the_formula_says() {
        // 1,000 runs in 8,184 bits: each of 7 bits is set with 1 - (1 - 1/8184)^7000 = 0.575, all of them with 0.0208.
        let mut filter = filter(1023);
        for run in 0..1000_u64 {
            filter.is_copy(&[xxh3_64(&run.to_le_bytes())]);
        }
        let alarms = (1000..21_000_u64).filter(|run| filter.clone().is_copy(&[xxh3_64(&run.to_le_bytes())])).count();
        assert!((300..540).contains(&alarms), "{alarms}");
    }
}
