//! Byte-level byte-pair encoding: the merges, and applying them.

use super::words::words;
use crate::rng::hash_bytes;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A merge: the tokens `left` and `right`, side by side, become `merged`. Its place in the list is its rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) merged: u32,
}

/// A byte-level BPE vocabulary.
///
/// Invariant: every byte has a token, so any text can be encoded; ids are `0..tokens.len()`.
#[derive(Clone, Debug)]
pub(super) struct Bpe {
    /// The bytes of each token, by id.
    tokens: Vec<Box<[u8]>>,
    merges: Vec<Merge>,
    /// Rank and merged token of each pair.
    pairs: HashMap<(u32, u32), (u32, u32)>,
    byte_ids: [u32; 256],
    /// Whether text is cut into words first (GPT-2's pattern) or is one word.
    cut_words: bool,
}

impl Bpe {
    /// A vocabulary from its tokens and merges; `None` if a byte has no token or a merge does not concatenate.
    pub(super) fn new(tokens: Vec<Box<[u8]>>, merges: Vec<Merge>, cut_words: bool) -> Option<Self> {
        let mut byte_ids = [u32::MAX; 256];
        for (id, token) in tokens.iter().enumerate() {
            if let [byte] = **token {
                byte_ids[byte as usize] = id as u32;
            }
        }
        if byte_ids.contains(&u32::MAX) {
            return None;
        }
        let mut pairs = HashMap::with_capacity(merges.len());
        for (rank, merge) in merges.iter().enumerate() {
            let [left, right, merged] = [merge.left, merge.right, merge.merged].map(|id| tokens.get(id as usize));
            let (left, right, merged) = (left?, right?, merged?);
            if merged.len() != left.len() + right.len() || !merged.starts_with(left) || !merged.ends_with(right) {
                return None;
            }
            pairs.insert((merge.left, merge.right), (rank as u32, merge.merged));
        }
        Some(Self { tokens, merges, pairs, byte_ids, cut_words })
    }

    /// Single bytes and no merges: ids are the bytes.
    pub(super) fn bytes() -> Self {
        let tokens = (0..=255u8).map(|byte| Box::from([byte])).collect();
        Self::new(tokens, Vec::new(), false).expect("all bytes have tokens")
    }

    pub(super) fn tokens(&self) -> &[Box<[u8]>] {
        &self.tokens
    }

    pub(super) fn merges(&self) -> &[Merge] {
        &self.merges
    }

    pub(super) fn cut_words(&self) -> bool {
        self.cut_words
    }

    /// A hash of tokens, merges and cutting, begun with `seed`.
    pub(super) fn fingerprint(&self, seed: u64) -> u64 {
        let mut bytes = vec![u8::from(self.cut_words)];
        for token in &self.tokens {
            bytes.extend((token.len() as u32).to_le_bytes());
            bytes.extend_from_slice(token);
        }
        bytes.extend(self.merges.iter().flat_map(|merge| [merge.left, merge.right]).flat_map(u32::to_le_bytes));
        hash_bytes(seed, &bytes)
    }

    /// Adds the ids of `text` to `ids`. `cache` remembers words: most of a text is words that came before.
    pub(super) fn encode(&self, text: &str, cache: &mut Cache, ids: &mut Vec<u32>) {
        if self.merges.is_empty() {
            ids.extend(text.bytes().map(|byte| self.byte_ids[byte as usize]));
        } else if self.cut_words {
            for word in words(text) {
                self.encode_word(word, cache, ids);
            }
        } else {
            self.merge(text.as_bytes(), ids);
        }
    }

    fn encode_word(&self, word: &str, cache: &mut Cache, ids: &mut Vec<u32>) {
        if let Some(&(start, len)) = cache.words.get(word) {
            ids.extend_from_slice(&cache.ids[start as usize..][..len as usize]);
            return;
        }
        let before = ids.len();
        self.merge(word.as_bytes(), ids);
        // The cap bounds the memory for texts without repetition; such words gain nothing from a cache anyway.
        if cache.ids.len() < Cache::MAX_IDS && word.len() <= Cache::MAX_WORD_BYTES {
            let start = cache.ids.len() as u32;
            cache.ids.extend_from_slice(&ids[before..]);
            cache.words.insert(word.into(), (start, (ids.len() - before) as u32));
        }
    }

    /// Adds the ids of one word to `ids`: again and again the pair of lowest rank is merged, the leftmost first.
    ///
    /// A heap of candidate pairs over a linked list of tokens: n log n in the length of the word, whatever its bytes.
    /// Source: Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>, algorithm 1.
    fn merge(&self, word: &[u8], ids: &mut Vec<u32>) {
        const GONE: u32 = u32::MAX;
        let mut token: Vec<u32> = word.iter().map(|&byte| self.byte_ids[byte as usize]).collect();
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
        let bpe = Bpe::new(tokens, merges, true).unwrap();
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
    fn a_byte_without_token_or_a_merge_that_does_not_concatenate_is_refused() {
        let bytes: Vec<Box<[u8]>> = (0..=255u8).map(|byte| [byte].into()).collect();
        assert!(Bpe::new(bytes[..255].to_vec(), Vec::new(), true).is_none());
        let wrong = Merge { left: 1, right: 2, merged: 3 };
        assert!(Bpe::new(bytes.clone(), vec![wrong], true).is_none());
        assert!(Bpe::new(bytes, Vec::new(), true).is_some());
    }

    #[test]
    fn a_long_word_is_encoded_in_reasonable_time() {
        // A quadratic merge would take minutes here.
        let gpt2 = crate::Tokenizer::gpt2();
        let text = "ab".repeat(200_000);
        assert_eq!(gpt2.decode(&gpt2.encode(&text).unwrap()), text);
    }
}
