//! Token ids on disk: tokenized once, memory-mapped ever after.
//!
//! A folder of shards `tokens-00000.shard`, `tokens-00001.shard`, ... Each is a header of 64 bytes and then the ids as
//! little-endian u16 (vocabularies up to 65536) or u32. The header, all little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `CAVYTOKS` |
//! | 8..12 | version, 1 |
//! | 12..16 | bytes per id, 2 or 4 |
//! | 16..24 | vocabulary size |
//! | 24..32 | fingerprint of the tokenizer |
//! | 32..40 | ids in this shard |
//! | 40..48 | bytes of text read when it was written; in the last shard, all of them |
//! | 48..52 | number of this shard, from 0 |
//! | 52..56 | 1 if this is the last shard, else 0 |
//! | 56..64 | 0 |

mod reader;
mod writer;

pub use writer::{SHARD_TOKENS, write};

use crate::{Document, TextError, Tokenizer};
use reader::Shard;
use std::ops::Range;
use std::path::Path;

/// Documents that are tokenized at a time: enough to keep every thread busy, small beside the shards.
const BATCH_BYTES: usize = 4 << 20;

/// All ids of a corpus as one long array, in memory or in memory-mapped shards.
///
/// Invariant: every id is smaller than `vocab_size`, so an embedding table of that many rows needs no check.
#[derive(Debug)]
pub struct TokenStore {
    tokens: Tokens,
    len: usize,
    vocab_size: usize,
    text_bytes: u64,
}

#[derive(Debug)]
enum Tokens {
    Memory(Vec<u32>),
    /// Each shard with the position of its first id.
    Mapped(Vec<(usize, Shard)>),
}

impl TokenStore {
    /// A store of ids in memory; `text_bytes` is the size of the text they came from.
    ///
    /// # Errors
    /// [`TextError::Setting`] if an id is not smaller than `vocab_size`.
    pub fn from_tokens(tokens: Vec<u32>, vocab_size: usize, text_bytes: u64) -> Result<Self, TextError> {
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
            let expected = format!("an id below the vocabulary size {vocab_size}");
            return Err(TextError::Setting { name: "token id", found: id.to_string(), expected });
        }
        Ok(Self { len: tokens.len(), tokens: Tokens::Memory(tokens), vocab_size, text_bytes })
    }

    /// Tokenizes documents into memory, with end-of-text between them if the tokenizer has one.
    ///
    /// The text is encoded as it is: `<|endoftext|>` written in a document does not become the special token.
    ///
    /// # Errors
    /// Those of the documents and of encoding them.
    pub fn build(
        documents: impl IntoIterator<Item = Result<Document, TextError>>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, TextError> {
        let (mut tokens, mut text_bytes) = (Vec::new(), 0);
        for_each_batch(documents, tokenizer, |ids, bytes| {
            tokens.extend_from_slice(ids);
            text_bytes += bytes;
            Ok(())
        })?;
        Self::from_tokens(tokens, tokenizer.vocab_size(), text_bytes)
    }

    /// Opens the shards in `folder`. The files must not be changed while they are open.
    ///
    /// # Errors
    /// A missing or damaged shard, an id outside the vocabulary, shards of another tokenizer.
    pub fn open(folder: &Path, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        reader::open(folder, tokenizer)
    }

    /// The number of ids.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no id at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The size of the vocabulary; every id is smaller.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The size in bytes of the text that was tokenized, without the end-of-text tokens.
    ///
    /// `bits_per_byte = loss / ln 2 * len / text_bytes` makes losses of different vocabularies comparable.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Copies the ids of `range` to `out`.
    ///
    /// Shapes: `out` is `(range.len(),)`.
    ///
    /// # Panics
    /// If it is not, or if the range reaches past the end.
    pub fn copy(&self, range: Range<usize>, out: &mut [u32]) {
        assert_eq!(range.len(), out.len(), "as many ids as asked for");
        assert!(range.end <= self.len, "{range:?} of {} ids", self.len);
        match &self.tokens {
            Tokens::Memory(tokens) => out.copy_from_slice(&tokens[range]),
            Tokens::Mapped(shards) => {
                let mut filled = 0;
                while filled < out.len() {
                    let position = range.start + filled;
                    let index = shards.partition_point(|(start, _)| *start <= position) - 1;
                    let (start, shard) = &shards[index];
                    let offset = position - start;
                    let take = (shard.len() - offset).min(out.len() - filled);
                    shard.copy(offset, &mut out[filled..filled + take]);
                    filled += take;
                }
            }
        }
    }
}

/// Encodes documents batch by batch on all threads and hands on the ids of each batch with the bytes of its text.
/// Between two documents stands end-of-text, if the tokenizer has one.
fn for_each_batch(
    documents: impl IntoIterator<Item = Result<Document, TextError>>,
    tokenizer: &Tokenizer,
    mut take: impl FnMut(&[u32], u64) -> Result<(), TextError>,
) -> Result<(), TextError> {
    let mut documents = documents.into_iter().peekable();
    let mut is_first = true;
    while documents.peek().is_some() {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(document) = documents.next()
        {
            let document = document?;
            bytes += document.text.len();
            batch.push(document.text);
        }
        let mut ids = Vec::new();
        for encoded in tokenizer.encode_batch(&batch)? {
            if !is_first {
                ids.extend(tokenizer.end_of_text());
            }
            is_first = false;
            ids.extend_from_slice(&encoded);
        }
        take(&ids, bytes as u64)?;
    }
    Ok(())
}
