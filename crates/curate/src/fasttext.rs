//! fastText's classifiers (`.bin`, `.ftz`): reading them and asking them. Supervised models with any of its losses.
//!
//! Source: facebookresearch/fastText (MIT); verified against the C++ program on lid.176.ftz.

mod parse;
mod tree;

use crate::error::CurateError;
use std::collections::HashMap;
use std::path::Path;
use tree::Tree;

/// How the scores of the output rows become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Hierarchical,
    Softmax,
    OneVsAll,
}

/// A classifier of texts.
#[derive(Debug)]
pub struct FastText {
    dim: usize,
    min_n: usize,
    max_n: usize,
    word_ngrams: usize,
    bucket: u64,
    loss: Loss,
    words: HashMap<Vec<u8>, u32>,
    labels: Vec<String>,
    /// Rows of buckets that pruning left; all of them where it is `None`.
    pruned: Option<HashMap<u32, u32>>,
    input: Rows,
    output: Rows,
    tree: Tree,
}

/// A matrix, dense or in codes.
#[derive(Debug)]
enum Rows {
    Dense { columns: usize, values: Vec<f32> },
    Quantized { rows: usize, codes: Vec<u8>, quantizer: Quantizer, norms: Option<(Vec<u8>, Quantizer)> },
}

/// A product quantizer: every `dsub` values are one of 256 centroids.
#[derive(Debug)]
struct Quantizer {
    subvectors: usize,
    dsub: usize,
    last_dsub: usize,
    centroids: Vec<f32>,
}

impl Quantizer {
    fn centroid(&self, part: usize, code: u8) -> &[f32] {
        let last = part + 1 == self.subvectors;
        let width = if last { self.last_dsub } else { self.dsub };
        let start = part * 256 * self.dsub + code as usize * width;
        &self.centroids[start..start + width]
    }
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Self::Dense { columns, values } => values.len().checked_div(*columns).unwrap_or(0),
            Self::Quantized { rows, .. } => *rows,
        }
    }

    fn add_to(&self, row: usize, sum: &mut [f32]) {
        match self {
            Self::Dense { columns, values } => {
                sum.iter_mut().zip(&values[row * columns..(row + 1) * columns]).for_each(|(sum, value)| *sum += value);
            }
            Self::Quantized { codes, quantizer, norms, .. } => {
                let norm = norms.as_ref().map_or(1.0, |(codes, quantizer)| quantizer.centroid(0, codes[row])[0]);
                let codes = &codes[row * quantizer.subvectors..(row + 1) * quantizer.subvectors];
                for (part, &code) in codes.iter().enumerate() {
                    let start = part * quantizer.dsub;
                    for (sum, value) in sum[start..].iter_mut().zip(quantizer.centroid(part, code)) {
                        *sum += norm * value;
                    }
                }
            }
        }
    }

    fn dot(&self, row: usize, hidden: &[f32]) -> f32 {
        let mut values = vec![0.0; hidden.len()];
        self.add_to(row, &mut values);
        values.iter().zip(hidden).map(|(value, hidden)| value * hidden).sum()
    }
}

/// FNV-1a with fastText's slip: bytes are extended by their sign.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash: u32, &byte| (hash ^ byte as i8 as u32).wrapping_mul(16_777_619))
}

const END_OF_SENTENCE: &[u8] = b"</s>";

impl FastText {
    /// Reads a model.
    ///
    /// Errors: if the file cannot be read, is no supervised fastText model or is damaged; the message has the byte.
    pub fn load(path: &Path) -> Result<Self, CurateError> {
        let bytes = fs_err::read(path).map_err(CurateError::read(path))?;
        Self::parse(&bytes).map_err(|(at, found)| CurateError::FastText { path: path.to_owned(), at, found })
    }

    /// Reads a model from memory. The error is the byte at which it stopped and what it found there.
    pub fn parse(bytes: &[u8]) -> Result<Self, (usize, String)> {
        parse::parse(bytes)
    }

    /// The labels, without `__label__`, most frequent first.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The probability of every label, in the order of [`FastText::labels`]. Line breaks count as spaces.
    pub fn probabilities(&self, text: &str) -> Vec<f32> {
        let rows = self.rows(text);
        let mut hidden = vec![0.0; self.dim];
        rows.iter().for_each(|&row| self.input.add_to(row, &mut hidden));
        let count = rows.len().max(1) as f32;
        hidden.iter_mut().for_each(|value| *value /= count);
        match self.loss {
            Loss::Hierarchical => self.tree.probabilities(|row| self.output.dot(row, &hidden)),
            Loss::OneVsAll => (0..self.labels.len()).map(|row| sigmoid(self.output.dot(row, &hidden))).collect(),
            Loss::Softmax => softmax((0..self.labels.len()).map(|row| self.output.dot(row, &hidden)).collect()),
        }
    }

    /// The most likely label and its probability; `None` for a model without labels.
    pub fn predict(&self, text: &str) -> Option<(&str, f32)> {
        let probabilities = self.probabilities(text);
        let best =
            (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]).then(b.cmp(&a)))?;
        Some((&self.labels[best], probabilities[best]))
    }

    /// The words with their counts set to 1, in the order of their rows.
    pub(crate) fn words_by_row(&self) -> Vec<(Vec<u8>, i64)> {
        let mut words: Vec<(&Vec<u8>, u32)> = self.words.iter().map(|(word, &row)| (word, row)).collect();
        words.sort_by_key(|(_, row)| *row);
        words.into_iter().map(|(word, _)| (word.clone(), 1)).collect()
    }

    /// Rows of the input matrix that a text touches.
    pub(crate) fn rows(&self, text: &str) -> Vec<usize> {
        let mut rows = Vec::new();
        let mut hashes = Vec::new();
        for word in words(text) {
            self.add_word(word.as_bytes(), &mut rows);
            hashes.push(hash(word.as_bytes()));
        }
        if let Some(&row) = self.words.get(END_OF_SENTENCE) {
            rows.push(row as usize);
        }
        hashes.push(hash(END_OF_SENTENCE));
        for first in 0..hashes.len() {
            let mut run = u64::from(hashes[first]).wrapping_add(if (hashes[first] as i32) < 0 { !0 << 32 } else { 0 });
            for &next in hashes.iter().take((first + self.word_ngrams).min(hashes.len())).skip(first + 1) {
                run = run.wrapping_mul(116_049_371).wrapping_add(next as i32 as i64 as u64);
                self.add_bucket(run % self.bucket.max(1), &mut rows);
            }
        }
        rows
    }

    fn add_bucket(&self, bucket: u64, rows: &mut Vec<usize>) {
        if self.bucket == 0 {
            return;
        }
        let row = match &self.pruned {
            Some(pruned) => pruned.get(&(bucket as u32)).map(|&row| row as usize),
            None => Some(bucket as usize),
        };
        let row = row.map(|row| self.words.len() + row).filter(|&row| row < self.input.len());
        rows.extend(row);
    }

    /// A word's own row, if it has one, and those of the character runs of `<word>`.
    fn add_word(&self, word: &[u8], rows: &mut Vec<usize>) {
        if let Some(&row) = self.words.get(word) {
            rows.push(row as usize);
        }
        if self.max_n == 0 || word == END_OF_SENTENCE {
            return;
        }
        let mut marked = Vec::with_capacity(word.len() + 2);
        marked.push(b'<');
        marked.extend_from_slice(word);
        marked.push(b'>');
        let continues = |at: usize| marked.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        for start in (0..marked.len()).filter(|&at| !continues(at)) {
            let mut end = start;
            for n in 1..=self.max_n {
                if end >= marked.len() {
                    break;
                }
                end += 1;
                while continues(end) {
                    end += 1;
                }
                let at_an_end = n == 1 && (start == 0 || end == marked.len());
                if n >= self.min_n && !at_an_end {
                    self.add_bucket(u64::from(hash(&marked[start..end])) % self.bucket.max(1), rows);
                }
            }
        }
    }
}

/// What stands between fastText's separators.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let separators = |c: char| matches!(c, ' ' | '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\0');
    text.split(separators).filter(|word| !word.is_empty())
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn softmax(mut scores: Vec<f32>) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - most).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    scores
}

#[cfg(test)]
mod tests;
