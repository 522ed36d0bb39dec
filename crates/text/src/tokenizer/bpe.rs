//! Byte-level byte-pair encoding: the merges, and applying them.

use super::words::Pattern;
use crate::rng::hash_bytes;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::convert::Infallible;
use unicode_normalization_alignments::{UnicodeNormalization, is_nfc};

/// A merge: the tokens `left` and `right`, side by side, become `merged`. Its place in the list is its rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) merged: u32,
}

/// What stands in the table of single bytes for one without a token.
const NO_TOKEN: u32 = u32::MAX;

/// A byte-level BPE vocabulary.
///
/// Invariant: a merge's token is its two parts side by side. A byte without a token, which some vocabularies have where
/// their training text had none, is left out of what is encoded, as Hugging Face's `tokenizers` does.
#[derive(Clone, Debug)]
pub(super) struct Bpe {
    /// The bytes of each token, by id; empty where the id is no token of this model.
    tokens: Vec<Box<[u8]>>,
    merges: Vec<Merge>,
    /// Rank and merged token of each pair.
    pairs: HashMap<(u32, u32), (u32, u32)>,
    byte_ids: [u32; 256],
    /// Where text is cut into words first.
    pattern: Pattern,
    /// The tokens by their bytes, where a word that is a token is taken whole, whatever the merges would make of it.
    whole_words: Option<HashMap<Box<[u8]>, u32>>,
    /// Whether text is brought to Unicode's composed form first.
    nfc: bool,
}

impl Bpe {
    /// A vocabulary from its tokens and merges; or the place of the first merge that does not concatenate.
    pub(super) fn new(tokens: Vec<Box<[u8]>>, merges: Vec<Merge>, pattern: Pattern) -> Result<Self, usize> {
        let mut byte_ids = [NO_TOKEN; 256];
        for (id, token) in tokens.iter().enumerate() {
            if let [byte] = **token {
                byte_ids[byte as usize] = id as u32;
            }
        }
        let mut pairs = HashMap::with_capacity(merges.len());
        for (rank, merge) in merges.iter().enumerate() {
            let bytes = |id: u32| tokens.get(id as usize).filter(|token| !token.is_empty()).ok_or(rank);
            let (left, right, merged) = (bytes(merge.left)?, bytes(merge.right)?, bytes(merge.merged)?);
            if merged.len() != left.len() + right.len() || !merged.starts_with(left) || !merged.ends_with(right) {
                return Err(rank);
            }
            pairs.insert((merge.left, merge.right), (rank as u32, merge.merged));
        }
        Ok(Self { tokens, merges, pairs, byte_ids, pattern, whole_words: None, nfc: false })
    }

    /// The same vocabulary, but a word that is a token is taken whole (`ignore_merges` of Hugging Face's `BPE`).
    pub(super) fn with_whole_words(mut self) -> Self {
        let tokens = self.tokens.iter().cloned().zip(0..).filter(|(token, _)| !token.is_empty());
        self.whole_words = Some(tokens.collect());
        self
    }

    /// The same vocabulary, but text is brought to Unicode's composed form (NFC) first.
    pub(super) fn with_nfc(mut self) -> Self {
        self.nfc = true;
        self
    }

    /// Single bytes and no merges: ids are the bytes.
    pub(super) fn bytes() -> Self {
        let tokens = (0..=255u8).map(|byte| Box::from([byte])).collect();
        Self::new(tokens, Vec::new(), Pattern::Whole).expect("there are no merges")
    }

    pub(super) fn tokens(&self) -> &[Box<[u8]>] {
        &self.tokens
    }

    /// The bytes of token `id`, if it is one of this model.
    pub(super) fn token(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(id as usize).map(|token| &**token).filter(|token| !token.is_empty())
    }

    pub(super) fn merges(&self) -> &[Merge] {
        &self.merges
    }

    pub(super) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// Whether a word that is a token is taken whole.
    pub(super) fn takes_whole_words(&self) -> bool {
        self.whole_words.is_some()
    }

    /// Whether text is brought to Unicode's composed form first.
    pub(super) fn composes(&self) -> bool {
        self.nfc
    }

    /// A hash of tokens, merges and cutting, begun with `seed`.
    pub(super) fn fingerprint(&self, seed: u64) -> u64 {
        let pattern = match self.pattern {
            Pattern::Whole => 0,
            Pattern::Gpt2 => 1,
            Pattern::Smollm => 2,
            Pattern::Llama3 => 3,
            Pattern::Qwen2 => 4,
            Pattern::Default => 5,
        };
        let mut bytes = vec![pattern | u8::from(self.takes_whole_words()) << 7 | u8::from(self.nfc) << 6];
        for token in &self.tokens {
            bytes.extend((token.len() as u32).to_le_bytes());
            bytes.extend_from_slice(token);
        }
        bytes.extend(self.merges.iter().flat_map(|merge| [merge.left, merge.right]).flat_map(u32::to_le_bytes));
        hash_bytes(seed, &bytes)
    }

    /// Adds the ids of `text` to `ids`. `cache` remembers words: most of a text is words that came before.
    pub(super) fn encode(&self, text: &str, cache: &mut Cache, ids: &mut Vec<u32>) {
        let text = if self.nfc && !is_nfc(text) {
            Cow::Owned(text.nfc().map(|(character, _)| character).collect())
        } else {
            Cow::Borrowed(text)
        };
        if self.merges.is_empty() && self.whole_words.is_none() {
            ids.extend(self.byte_tokens(text.as_bytes()));
        } else if self.pattern == Pattern::Whole {
            self.merge(text.as_bytes(), ids);
        } else {
            self.pattern.cut(&text, &mut |word| {
                let Ok(()) = cache.encode::<Infallible>(word, ids, |ids| {
                    self.merge(word.as_bytes(), ids);
                    Ok(())
                });
            });
        }
    }

    fn byte_tokens(&self, bytes: &[u8]) -> impl Iterator<Item = u32> {
        bytes.iter().map(|&byte| self.byte_ids[byte as usize]).filter(|&id| id != NO_TOKEN)
    }

    /// Adds the ids of one word to `ids`: again and again the pair of lowest rank is merged, the leftmost first.
    ///
    /// A heap of candidate pairs over a linked list of tokens: n log n in the length of the word, whatever its bytes.
    /// Source: Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>, algorithm 1.
    fn merge(&self, word: &[u8], ids: &mut Vec<u32>) {
        const GONE: u32 = u32::MAX;
        if let Some(&id) = self.whole_words.as_ref().and_then(|words| words.get(word)) {
            ids.push(id);
            return;
        }
        let mut token: Vec<u32> = self.byte_tokens(word).collect();
        let n = token.len();
        let mut next: Vec<usize> = (1..=n).collect();
        let mut before: Vec<usize> = (0..n).map(|at| at.wrapping_sub(1)).collect();
        let mut candidates = BinaryHeap::new();
        let candidate = |token: &[u32], left: usize, right: usize| {
            let &(rank, merged) = self.pairs.get(&(token[left], token[right]))?;
            Some(Reverse((rank, left, token[left], token[right], merged)))
        };
        candidates.extend((1..n).filter_map(|right| candidate(&token, right - 1, right)));
        while let Some(Reverse((_, left, left_token, right_token, merged))) = candidates.pop() {
            let right = next[left];
            // A candidate is stale if one of its two tokens has been merged since.
            if token[left] != left_token || right >= n || token[right] != right_token {
                continue;
            }
            token[left] = merged;
            token[right] = GONE;
            next[left] = next[right];
            if next[left] < n {
                before[next[left]] = left;
                candidates.extend(candidate(&token, left, next[left]));
            }
            if before[left] < n {
                candidates.extend(candidate(&token, before[left], left));
            }
        }
        ids.extend(token.into_iter().filter(|&id| id != GONE));
    }
}

/// Words that have been encoded, with their ids.
#[derive(Default)]
pub(super) struct Cache {
    words: HashMap<Box<str>, (u32, u32)>,
    ids: Vec<u32>,
}

impl Cache {
    /// Adds the ids of `word` to `ids`: those remembered, or else those that `encode` adds.
    pub(super) fn encode<E>(
        &mut self,
        word: &str,
        ids: &mut Vec<u32>,
        encode: impl FnOnce(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(&(start, len)) = self.words.get(word) {
            ids.extend_from_slice(&self.ids[start as usize..][..len as usize]);
            return Ok(());
        }
        let before = ids.len();
        encode(ids)?;
        // The cap bounds the memory for texts without repetition; such words gain nothing from a cache anyway.
        if self.ids.len() < Self::MAX_IDS && word.len() <= Self::MAX_WORD_BYTES {
            let start = self.ids.len() as u32;
            self.ids.extend_from_slice(&ids[before..]);
            self.words.insert(word.into(), (start, (ids.len() - before) as u32));
        }
        Ok(())
    }

    const MAX_IDS: usize = 1 << 20;
    const MAX_WORD_BYTES: usize = 64;
}

/// The 256 bytes in the order of GPT-2's first 256 tokens: those that print, then the others.
///
/// Source: `bytes_to_unicode` in <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.
pub(super) fn byte_order() -> impl Iterator<Item = u8> {
    (0..=255u8).filter(|&byte| prints(byte)).chain((0..=255u8).filter(|&byte| !prints(byte)))
}

fn prints(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The letters that stand for the 256 bytes in `tokenizer.json`: a byte that prints is itself, the others follow 256.
pub(super) fn byte_letters() -> [char; 256] {
    let mut letters = ['\0'; 256];
    let mut others = '\u{100}'..;
    for byte in 0..=255u8 {
        letters[byte as usize] = if prints(byte) { byte as char } else { others.next().unwrap_or('\0') };
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_apply_by_rank_and_leftmost_first() {
        // Ids: a = 0, b = 1, then the other bytes; ab = 256 has rank 0, ba = 257 rank 1, abab = 258 rank 2.
        let mut tokens: Vec<Box<[u8]>> = b"ab".iter().map(|&byte| [byte].into()).collect();
        tokens.extend((0..=255u8).filter(|byte| !b"ab".contains(byte)).map(|byte| Box::from([byte])));
        tokens.extend([b"ab".as_slice(), b"ba", b"abab"].map(Box::from));
        let merges = [(0, 1, 256), (1, 0, 257), (256, 256, 258)];
        let merges = merges.map(|(left, right, merged)| Merge { left, right, merged }).to_vec();
        let bpe = Bpe::new(tokens, merges, Pattern::Gpt2).unwrap();
        let encode = |text: &str| {
            let mut ids = Vec::new();
            bpe.encode(text, &mut Cache::default(), &mut ids);
            ids
        };
        assert_eq!(encode("aba"), [256, 0]);
        assert_eq!(encode("bab"), [1, 256]);
        assert_eq!(encode("bba"), [1, 257]);
        // Three pairs in a row: the left two are merged, the third stays.
        assert_eq!(encode("ababab"), [258, 256]);
        assert_eq!(encode("abababab"), [258, 258]);
    }

    #[test]
    fn a_merge_that_does_not_concatenate_is_refused_by_its_place() {
        let mut tokens: Vec<Box<[u8]>> = (0..=255u8).map(|byte| [byte].into()).collect();
        tokens.push(b"ab".as_slice().into());
        let right = Merge { left: 97, right: 98, merged: 256 };
        assert!(Bpe::new(tokens.clone(), vec![right], Pattern::Gpt2).is_ok());
        for wrong in [Merge { merged: 3, ..right }, Merge { merged: 257, ..right }, Merge { left: 98, ..right }] {
            assert_eq!(Bpe::new(tokens.clone(), vec![right, wrong], Pattern::Gpt2).unwrap_err(), 1);
        }
    }

    #[test]
    fn a_long_word_is_encoded_in_reasonable_time() {
        // A quadratic merge would take minutes here.
        let gpt2 = crate::Tokenizer::gpt2();
        let text = "ab".repeat(200_000);
        assert_eq!(gpt2.decode(&gpt2.encode(&text).unwrap()), text);
    }
}
