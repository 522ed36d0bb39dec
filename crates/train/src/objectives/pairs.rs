//! Pairs of answers, as objectives take them.

use crate::TrainError;
use crate::base::Base;
use crate::settings::{PairDataSettings, SplitSettings};
use cavy_text::instruct::Parts;
use cavy_text::preference::{self, Pair, PairReport};
use cavy_text::rng::hash_bytes;

/// The pairs of a run, and the parts they are divided into.
#[derive(Debug)]
pub struct PairData {
    /// All pairs.
    pub pairs: Vec<Pair>,
    /// What was read, cut and dropped.
    pub report: PairReport,
    /// Which are for what.
    pub parts: Parts,
}

impl PairData {
    /// Reads and divides the data of `settings` for the model `base`.
    ///
    /// Errors: unusable data, by file and line; no pair for validation.
    pub fn load(
        settings: &PairDataSettings,
        split: &SplitSettings,
        seed: u64,
        base: &Base,
    ) -> Result<Self, TrainError> {
        let (mut format, context) = (settings.format_settings()?, base.context_length());
        if format.max_length == 0 || format.max_length > context {
            format.max_length = context;
        }
        let how = settings.pair_settings();
        let template = base.template.as_ref();
        let loaded = preference::load(&settings.sources()?, &format, &how, &base.tokenizer, &base.special, template)?;
        let parts = split.parts(loaded.pairs.len(), seed)?;
        if parts.validation.is_empty() {
            return Err(TrainError::NoValidation { split: split.split.clone(), items: loaded.pairs.len() });
        }
        Ok(Self { pairs: loaded.pairs, report: loaded.report, parts })
    }

    /// A hash of every token.
    pub fn hash(&self) -> u64 {
        self.pairs.iter().fold(0, |hash, pair| {
            [&pair.prompt, &pair.chosen, &pair.rejected].into_iter().fold(hash, |hash, ids| {
                let bytes: Vec<u8> = (ids.len() as u32)
                    .to_le_bytes()
                    .into_iter()
                    .chain(ids.iter().flat_map(|id| id.to_le_bytes()))
                    .collect();
                hash_bytes(hash, &bytes)
            })
        })
    }

    /// Tokens of some pairs, each prompt once.
    pub fn tokens(&self, indices: &[usize]) -> usize {
        let pairs = indices.iter().map(|&index| &self.pairs[index]);
        pairs.map(|pair| pair.prompt.len() + pair.chosen.len() + pair.rejected.len()).sum()
    }
}
