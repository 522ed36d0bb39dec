//! A quality classifier from examples of good and of bad text: fastText's linear model, trained here and saved in its format.

use crate::error::CurateError;
use crate::fasttext::FastText;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// How the classifier is trained; the names are fastText's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QualitySettings {
    /// Numbers a word is described by.
    pub dim: usize,
    /// Passes over the examples.
    pub epoch: usize,
    /// Learning rate at the start; it falls to 0.
    pub lr: f32,
    /// Longest run of words that counts as a feature.
    pub word_ngrams: usize,
    /// Rows for runs of words, which share them by hash.
    pub bucket: usize,
    /// Words that occur less often have no row.
    pub min_count: u64,
    /// Order of the examples and initial rows.
    pub seed: u64,
}

impl Default for QualitySettings {
    fn default() -> Self {
        Self { dim: 16, epoch: 5, lr: 0.1, word_ngrams: 2, bucket: 1 << 17, min_count: 1, seed: 0 }
    }
}

/// SplitMix64, for the order of examples and the initial rows.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Trains on examples of (text, label) and writes the model to `path`. The result depends on the settings and the order of the
/// examples alone.
///
/// Errors: fewer than two labels, and those of writing.
pub fn train(examples: &[(String, &str)], settings: &QualitySettings, path: &Path) -> Result<FastText, CurateError> {
    let mut labels: HashMap<&str, i64> = HashMap::new();
    examples.iter().for_each(|(_, label)| *labels.entry(label).or_default() += 1);
    if labels.len() < 2 || settings.dim == 0 {
        return Err(CurateError::Recipe {
            found: format!("{} examples with {} labels", examples.len(), labels.len()),
            hint: "give examples of good and of bad text".to_owned(),
        });
    }
    let mut labels: Vec<(&str, i64)> = labels.into_iter().collect();
    labels.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let model = empty(examples, &labels, settings);
    let mut weights = Weights::new(&model, labels.len(), settings);
    let targets: Vec<usize> =
        examples.iter().map(|(_, label)| labels.iter().position(|(known, _)| known == label).unwrap_or(0)).collect();
    let rows: Vec<Vec<usize>> = examples.iter().map(|(text, _)| model.rows(text)).collect();
    let mut order: Vec<usize> = (0..examples.len()).collect();
    let mut random = Random(settings.seed ^ 0x5eed);
    let total = (settings.epoch * examples.len()).max(1) as f32;
    for epoch in 0..settings.epoch {
        for last in (1..order.len()).rev() {
            order.swap(last, (random.next() % (last as u64 + 1)) as usize);
        }
        for (step, &example) in order.iter().enumerate() {
            let progress = (epoch * examples.len() + step) as f32 / total;
            weights.step(&rows[example], targets[example], settings.lr * (1.0 - progress));
        }
    }
    let bytes = write(&weights, &labels, settings);
    fs_err::write(path, &bytes).map_err(CurateError::write(path))?;
    FastText::parse(&bytes).map_err(|(at, found)| CurateError::FastText { path: path.to_owned(), at, found })
}

/// The dictionary of the examples, most frequent words first.
fn vocabulary(examples: &[(String, &str)], min_count: u64) -> Vec<(Vec<u8>, i64)> {
    let mut counts: HashMap<&[u8], i64> = HashMap::new();
    for (text, _) in examples {
        for word in crate::fasttext::words(text) {
            *counts.entry(word.as_bytes()).or_default() += 1;
        }
    }
    counts.insert(b"</s>", examples.len() as i64);
    let mut words: Vec<(Vec<u8>, i64)> = counts
        .into_iter()
        .filter(|(_, count)| *count >= min_count as i64)
        .map(|(word, count)| (word.to_vec(), count))
        .collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    words
}

/// A model with the dictionary and rows of zeros: it knows which rows a text touches.
fn empty(examples: &[(String, &str)], labels: &[(&str, i64)], settings: &QualitySettings) -> FastText {
    let words = vocabulary(examples, settings.min_count);
    let rows = words.len() + settings.bucket;
    let zeros = Weights {
        dim: settings.dim,
        input: vec![0.0; rows * settings.dim],
        output: vec![0.0; labels.len() * settings.dim],
        words,
    };
    let dictionary = FastText::parse(&write(&zeros, labels, settings));
    dictionary.expect("what is written here is a whole model")
}

struct Weights {
    dim: usize,
    input: Vec<f32>,
    output: Vec<f32>,
    words: Vec<(Vec<u8>, i64)>,
}

impl Weights {
    /// Input rows uniform in ±1/dim, output rows 0, as fastText begins.
    fn new(model: &FastText, labels: usize, settings: &QualitySettings) -> Self {
        let mut random = Random(settings.seed);
        let words = model.words_by_row();
        let scale = 1.0 / settings.dim as f32;
        let count = (words.len() + settings.bucket) * settings.dim;
        let uniform = |bits: u64| (bits >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let input = (0..count).map(|_| uniform(random.next()) * scale).collect();
        Self { dim: settings.dim, input, output: vec![0.0; labels * settings.dim], words }
    }

    /// One step of gradient descent on the softmax's cross-entropy.
    fn step(&mut self, rows: &[usize], target: usize, lr: f32) {
        let dim = self.dim;
        let mut hidden = vec![0.0; dim];
        for &row in rows {
            hidden.iter_mut().zip(&self.input[row * dim..]).for_each(|(sum, value)| *sum += value);
        }
        let scale = 1.0 / rows.len().max(1) as f32;
        hidden.iter_mut().for_each(|value| *value *= scale);
        let scores: Vec<f32> =
            self.output.chunks(dim).map(|row| row.iter().zip(&hidden).map(|(a, b)| a * b).sum()).collect();
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
        let sum: f32 = exps.iter().sum();
        let mut d_hidden = vec![0.0; dim];
        for (label, row) in self.output.chunks_mut(dim).enumerate() {
            let alpha = lr * (f32::from(u8::from(label == target)) - exps[label] / sum);
            d_hidden.iter_mut().zip(&*row).for_each(|(sum, value)| *sum += alpha * value);
            row.iter_mut().zip(&hidden).for_each(|(value, hidden)| *value += alpha * hidden);
        }
        for &row in rows {
            self.input[row * dim..(row + 1) * dim].iter_mut().zip(&d_hidden).for_each(|(value, d)| *value += scale * d);
        }
    }
}

/// The file: see `fasttext/parse.rs`.
fn write(weights: &Weights, labels: &[(&str, i64)], settings: &QualitySettings) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ints = |bytes: &mut Vec<u8>, values: &[i32]| values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    ints(&mut bytes, &[793_712_314, 12, settings.dim as i32, 5, settings.epoch as i32, settings.min_count as i32, 5]);
    ints(&mut bytes, &[settings.word_ngrams as i32, 3, 3, settings.bucket as i32, 0, 0, 100]);
    bytes.extend(1e-4_f64.to_le_bytes());
    let words = weights.words.len() as i32;
    ints(&mut bytes, &[words + labels.len() as i32, words, labels.len() as i32]);
    let tokens: i64 = weights.words.iter().map(|(_, count)| count).sum();
    bytes.extend(tokens.to_le_bytes());
    bytes.extend((-1_i64).to_le_bytes());
    let mut entry = |word: &[u8], count: i64, kind: u8| {
        bytes.extend(word);
        bytes.push(0);
        bytes.extend(count.to_le_bytes());
        bytes.push(kind);
    };
    weights.words.iter().for_each(|(word, count)| entry(word, *count, 0));
    labels.iter().for_each(|(label, count)| entry(format!("__label__{label}").as_bytes(), *count, 1));
    for matrix in [&weights.input, &weights.output] {
        bytes.push(0);
        bytes.extend(((matrix.len() / weights.dim) as i64).to_le_bytes());
        bytes.extend((weights.dim as i64).to_le_bytes());
        matrix.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sentences of prose and of spam over words of their own and of both.
    fn examples(from: usize, count: usize) -> Vec<(String, &'static str)> {
        let good = ["because", "therefore", "study", "river", "history", "measured"];
        let bad = ["cheap", "click", "buy", "casino", "discount", "offer"];
        let both = ["the", "a", "of", "now", "and", "here", "people"];
        let sentence = |words: &[&str], salt: usize| {
            let pick = |index: usize| {
                if index.is_multiple_of(3) { words[(index * 7 + salt * 5) % 6] } else { both[(index * 3 + salt) % 7] }
            };
            (0..12).map(pick).collect::<Vec<_>>().join(" ")
        };
        (from..from + count).flat_map(|salt| [(sentence(&good, salt), "good"), (sentence(&bad, salt), "bad")]).collect()
    }

    #[test]
    fn a_classifier_tells_what_it_was_taught() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quality.bin");
        let settings = QualitySettings { bucket: 1 << 10, epoch: 50, lr: 0.5, ..QualitySettings::default() };
        let model = train(&examples(0, 40), &settings, &path).unwrap();
        for (text, label) in examples(100, 20) {
            let (found, p) = model.predict(&text).unwrap();
            assert!(found == label && p > 0.9, "{text}: {found} {p}");
        }
        // The file reads the same, and the same examples give the same bytes.
        let read = FastText::load(&path).unwrap();
        assert_eq!(read.probabilities("cheap river"), model.probabilities("cheap river"));
        let first = fs_err::read(&path).unwrap();
        train(&examples(0, 40), &settings, &path).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), first);
        let error = train(&[("x".to_owned(), "good")], &settings, &path).unwrap_err().to_string();
        assert!(error.contains("good and of bad"), "{error}");
    }
}
