//! Steps over all documents: what each shard writes down, what is found in it, and what that does to a document.

use super::Done;
use crate::bloom::{self, RunWriter};
use crate::copies::{self, CopySigner};
use crate::document::Document;
use crate::error::CurateError;
use crate::minhash::{DuplicateSets, MinhashConfig, SignatureWriter, Signer, find_duplicates};
use crate::recipe::Step;
use crate::sentences::{self, SentenceDedup};
use serde_json::Value;
use std::path::Path;

/// What a shard writes down of its documents for the barrier at the end of its phase.
#[derive(Debug)]
pub(super) enum Signing {
    Copies(CopySigner, SignatureWriter),
    Minhash(Box<Signer>, SignatureWriter),
    Sentences(SentenceDedup, SignatureWriter, u32),
    Bloom(RunWriter),
}

/// `width` numbers, compared as one bucket.
fn one_bucket(width: usize) -> MinhashConfig {
    MinhashConfig { num_buckets: 1, hashes_per_bucket: width, ..MinhashConfig::default() }
}

impl Signing {
    /// Writes into `folder`, at most `budget` bytes in memory; `None` for a step that is no barrier.
    ///
    /// Errors: if the folder cannot be written.
    pub(super) fn new(barrier: &Step, folder: &Path, shard: u32, budget: usize) -> Result<Option<Self>, CurateError> {
        let writer = |shape: &MinhashConfig| SignatureWriter::new(folder, shard, shape, budget);
        Ok(Some(match barrier {
            Step::ExactDedup(settings) => {
                Self::Copies(CopySigner::new(settings)?, writer(&one_bucket(copies::width(settings)))?)
            }
            Step::MinhashDedup(config) => Self::Minhash(Box::new(Signer::new(config.clone())), writer(config)?),
            Step::SentenceDedup(settings) => {
                Self::Sentences(settings.clone(), writer(&one_bucket(sentences::WIDTH))?, shard)
            }
            Step::BloomDedup(settings) => Self::Bloom(RunWriter::new(folder, shard, settings.n_grams)?),
            _ => return Ok(None),
        }))
    }

    /// Takes document `number` of the shard; `signature` is a buffer.
    ///
    /// Errors: if it cannot be written.
    pub(super) fn push(
        &mut self,
        number: u32,
        document: &Document,
        signature: &mut Vec<u64>,
    ) -> Result<(), CurateError> {
        match self {
            Self::Copies(signer, writer) => {
                if signer.sign(document, signature) {
                    writer.push(number, signature)
                } else {
                    Ok(())
                }
            }
            Self::Minhash(signer, writer) => {
                if signer.sign(&document.text, signature) {
                    writer.push(number, signature)
                } else {
                    Ok(())
                }
            }
            Self::Sentences(settings, writer, shard) => {
                let place = u64::from(*shard) << 32 | u64::from(number);
                settings
                    .for_each_run(&document.text, |hash, start| writer.push(number, &[hash, place, u64::from(start)]))
            }
            Self::Bloom(writer) => writer.push(number, &document.text),
        }
    }

    /// Writes what waits.
    ///
    /// Errors: if it cannot be written.
    pub(super) fn finish(self) -> Result<(), CurateError> {
        match self {
            Self::Copies(_, writer) | Self::Minhash(_, writer) | Self::Sentences(_, writer, _) => writer.finish(),
            Self::Bloom(writer) => writer.finish(),
        }
    }
}

/// What all `shards` have written down in `folder` says, with at most about `memory_bytes` for reading it. Paths of the
/// step are read from `base`.
///
/// Errors: if a file cannot be read or is damaged.
pub(super) fn find(
    barrier: &Step,
    folder: &Path,
    base: &Path,
    shards: usize,
    memory_bytes: usize,
) -> Result<DuplicateSets, CurateError> {
    match barrier {
        Step::ExactDedup(settings) => copies::find(folder, settings, base, memory_bytes),
        Step::MinhashDedup(config) => find_duplicates(folder, config, memory_bytes),
        Step::SentenceDedup(_) => sentences::find(folder, memory_bytes),
        Step::BloomDedup(settings) => bloom::find(folder, settings, shards),
        _ => Ok(DuplicateSets::default()),
    }
}

/// What a barrier found, for the documents of one shard in order.
pub(super) struct Verdicts<'a> {
    barrier: &'a Step,
    remove: &'a [u32],
    copies: &'a [(u32, u32)],
    sentences: &'a [(u32, u32)],
}

impl<'a> Verdicts<'a> {
    pub(super) fn of(barrier: &'a Step, sets: &'a DuplicateSets, shard: u32) -> Self {
        let pairs =
            |of: &'a std::collections::HashMap<u32, Vec<(u32, u32)>>| of.get(&shard).map_or(&[][..], Vec::as_slice);
        Self {
            barrier,
            remove: sets.remove.get(&shard).map_or(&[], Vec::as_slice),
            copies: pairs(&sets.copies),
            sentences: pairs(&sets.sentences),
        }
    }

    /// Does to document `number`, which comes after those before, what was found.
    pub(super) fn apply(&mut self, number: u32, document: &mut Document) -> Done {
        if let Some((_, rest)) = self.remove.split_first().filter(|(first, _)| **first == number) {
            self.remove = rest;
            return Done::Dropped("duplicate".into());
        }
        match self.barrier {
            Step::ExactDedup(settings) if settings.save_cluster_size => {
                let count = match self.copies.split_first().filter(|(first, _)| first.0 == number) {
                    Some((first, rest)) => {
                        self.copies = rest;
                        first.1
                    }
                    None => 0,
                };
                document.metadata.insert("duplicate_count".to_owned(), Value::from(count));
                Done::Same
            }
            Step::SentenceDedup(settings) => {
                let found = self.sentences.iter().take_while(|(of, _)| *of == number).count();
                let (starts, rest) = self.sentences.split_at(found);
                self.sentences = rest;
                let starts: Vec<u32> = starts.iter().map(|(_, start)| *start).collect();
                without_sentences(settings, document, &starts)
            }
            _ => Done::Same,
        }
    }
}

fn without_sentences(settings: &SentenceDedup, document: &mut Document, starts: &[u32]) -> Done {
    if starts.is_empty() {
        return Done::Same;
    }
    let left = settings.without(&document.text, starts);
    if left == document.text {
        return Done::Same;
    }
    if let Some(reason) = settings.drops(&left) {
        return Done::Dropped(reason.into());
    }
    document.text = left;
    Done::Changed
}

#[cfg(test)]
mod tests;
