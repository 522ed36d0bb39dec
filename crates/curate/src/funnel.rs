//! What became of the documents: per step, per reason, with samples.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Documents and what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Documents.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Tokens of the recipe's tokenizer, or words where it has none.
    pub tokens: u64,
}

impl Amount {
    /// Counts a document.
    pub fn add(&mut self, bytes: usize, tokens: usize) {
        self.documents += 1;
        self.bytes += bytes as u64;
        self.tokens += tokens as u64;
    }

    fn merge(&mut self, other: Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.tokens += other.tokens;
    }
}

/// A document that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its name.
    pub id: String,
    /// Its address, if known.
    pub url: Option<String>,
    /// The beginning of its text.
    pub text: String,
}

/// What one reason dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// How much.
    pub dropped: Amount,
    /// The first documents, in the order of the input.
    pub samples: Vec<Sample>,
}

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCount {
    /// The step's name.
    pub step: String,
    /// What came in.
    pub input: Amount,
    /// What went on.
    pub output: Amount,
    /// What was dropped, by reason.
    pub reasons: BTreeMap<String, ReasonCount>,
    /// Documents whose text was changed.
    pub changed: u64,
}

/// Counts over any part of the work; parts are merged in the order of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funnel {
    /// The steps in order.
    pub steps: Vec<StepCount>,
    /// Documents at the end by the power of two of their words.
    pub lengths: BTreeMap<u32, u64>,
    /// Documents by language, where one was identified, as they came to that step.
    pub languages: BTreeMap<String, u64>,
    /// Sets of copies by size.
    pub cluster_sizes: BTreeMap<usize, usize>,
    /// What could not be read.
    pub damages: Vec<crate::read::Damage>,
}

impl Funnel {
    /// Adds what another part counted; `samples` are kept of every reason.
    pub fn merge(&mut self, other: Self, samples: usize) {
        if self.steps.is_empty() {
            self.steps =
                other.steps.iter().map(|step| StepCount { step: step.step.clone(), ..StepCount::default() }).collect();
        }
        for (into, from) in self.steps.iter_mut().zip(other.steps) {
            into.input.merge(from.input);
            into.output.merge(from.output);
            into.changed += from.changed;
            for (reason, count) in from.reasons {
                let known = into.reasons.entry(reason).or_default();
                known.dropped.merge(count.dropped);
                let room = samples.saturating_sub(known.samples.len());
                known.samples.extend(count.samples.into_iter().take(room));
            }
        }
        other.lengths.into_iter().for_each(|(length, count)| *self.lengths.entry(length).or_default() += count);
        other.languages.into_iter().for_each(|(language, count)| *self.languages.entry(language).or_default() += count);
        other.cluster_sizes.into_iter().for_each(|(size, count)| *self.cluster_sizes.entry(size).or_default() += count);
        self.damages.extend(other.damages);
    }
}
