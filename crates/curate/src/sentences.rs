//! Runs of sentences that occurred before, left out.

use crate::error::CurateError;
use crate::lines::split_lines;
use crate::minhash::{DuplicateSets, bucket_name, merge_bucket};
use crate::normalize::simplify;
use crate::words::{sentence_spans, split_words};
use serde::{Deserialize, Serialize};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Numbers of a signature: the hash of the sentences, the document over all shards, the place in the document.
pub(crate) const WIDTH: usize = 3;

/// Leave out runs of sentences that an earlier document, or the same one before, has.
///
/// Where part of a run is left out, its whole is: datatrove counts and restores only its first sentence for
/// `min_words_to_remove_span`.
/// Source: Raffel et al. 2020 (C4), section 2.2, <https://arxiv.org/abs/1910.10683>; datatrove's `SentDedupConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SentenceDedup {
    /// Sentences of a run.
    pub n_sentences: usize,
    /// Runs of sentences; else of lines.
    pub split_sentences: bool,
    /// Documents that lose sentences go if fewer words are left.
    pub min_doc_words: usize,
    /// Documents that lose sentences go if fewer sentences are left.
    pub min_num_sentences: usize,
    /// What is left out has at least so many words in a row.
    pub min_words_to_remove_span: usize,
}

impl Default for SentenceDedup {
    fn default() -> Self {
        Self {
            n_sentences: 3,
            split_sentences: true,
            min_doc_words: 50,
            min_num_sentences: 3,
            min_words_to_remove_span: 0,
        }
    }
}

impl SentenceDedup {
    /// The sentences, or lines: each with what stands between it and the one before, and without.
    fn sentences<'a>(&self, text: &'a str) -> Vec<(&'a str, &'a str)> {
        if !self.split_sentences {
            return split_lines(text).map(|line| (line, line)).collect();
        }
        let mut last = 0;
        let sentence = |span: std::ops::Range<usize>| {
            let from = std::mem::replace(&mut last, span.end);
            (&text[from..span.end], crate::lines::strip(&text[span]))
        };
        sentence_spans(text).into_iter().map(sentence).collect()
    }

    /// Calls `each` with the hash of every run of sentences and its first one.
    pub(crate) fn for_each_run(
        &self,
        text: &str,
        mut each: impl FnMut(u64, u32) -> Result<(), CurateError>,
    ) -> Result<(), CurateError> {
        let simple: Vec<String> = self.sentences(text).into_iter().map(|(_, sentence)| simplify(sentence)).collect();
        for (index, run) in simple.windows(self.n_sentences).enumerate() {
            // Runs of blank lines are in every document.
            if run.iter().any(|sentence| !sentence.is_empty()) {
                each(xxh3_64(run.join(" ").as_bytes()), index as u32)?;
            }
        }
        Ok(())
    }

    /// The text without the runs that begin at the sentences `starts`, which are in order.
    pub fn without(&self, text: &str, starts: &[u32]) -> String {
        let glue = if self.split_sentences { "" } else { "\n" };
        let mut kept: Vec<&str> = Vec::new();
        let mut removed: Vec<&str> = Vec::new();
        let mut starts = starts.iter().map(|&start| start as usize).peekable();
        let mut drop_until = 0;
        // Too few words in a row are not left out.
        let stay = |removed: &[&str]| {
            self.min_words_to_remove_span > 0 && split_words(&removed.join(glue)).len() < self.min_words_to_remove_span
        };
        for (index, (sentence, _)) in self.sentences(text).into_iter().enumerate() {
            if starts.next_if_eq(&index).is_some() {
                drop_until = index.saturating_add(self.n_sentences);
            }
            if index < drop_until {
                removed.push(sentence);
            } else {
                if stay(&removed) {
                    kept.append(&mut removed);
                }
                removed.clear();
                kept.push(sentence);
            }
        }
        if stay(&removed) {
            kept.append(&mut removed);
        }
        kept.join(glue).trim_start_matches(crate::lines::is_space).to_owned()
    }

    /// Why a text that lost sentences goes.
    pub(crate) fn drops(&self, left: &str) -> Option<&'static str> {
        if left.is_empty() {
            Some("duplicate")
        } else if split_words(left).len() < self.min_doc_words {
            Some("min_doc_words")
        } else if sentence_spans(left).len() < self.min_num_sentences {
            Some("min_num_sentences")
        } else {
            None
        }
    }
}

/// Where runs repeat: all but the first of each hash, in the order of the input.
///
/// Errors: if a file cannot be read or its records are not in order.
pub(crate) fn find(folder: &Path, memory_bytes: usize) -> Result<DuplicateSets, CurateError> {
    let mut sets = DuplicateSets::default();
    merge_bucket(&folder.join(bucket_name(0)), WIDTH, memory_bytes, &mut |last, record| {
        if last.is_some_and(|last| last.0[0] == record.0[0]) {
            sets.sentences.entry(record.1).or_default().push((record.2, record.0[2] as u32));
        }
    })?;
    sets.sentences.values_mut().for_each(|places| places.sort_unstable());
    Ok(sets)
}
