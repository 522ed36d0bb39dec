//! Curation of training text: from web archives to clean, deduplicated documents.
//!
//! Names, thresholds, order of rules and reasons are datatrove's (Apache-2.0), so that results can be compared; the code is
//! our own. Knows no tensor library, no tokenizer and no terminal: what counts tokens comes in as a function.

pub mod bloom;
mod clusters;
mod copies;
pub mod decontaminate;
mod document;
mod error;
pub mod fasttext;
pub mod filters;
pub mod ftfy;
pub mod funnel;
pub mod generator;
pub mod html;
pub mod language;
mod ledger;
pub mod lines;
pub mod minhash;
pub mod ngrams;
pub mod normalize;
pub mod pii;
pub mod pipeline;
pub mod punctuation;
pub mod quality;
pub mod read;
pub mod recipe;
pub mod scratch;
pub mod sentences;
pub mod symbol_lines;
pub mod url;
mod words;

pub use clusters::Clusters;
pub use document::Document;
pub use error::CurateError;
pub use ledger::{Account, Bound, FirstDrop, Ledger, Reason, RuleValue};
pub use scratch::Scratch;
pub use words::{Token, count_sentences, sentence_spans, split_words, tokenize_into};

/// What exact copies have in common: the 128 bits of XXH3.
pub fn text_hash(text: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
}
