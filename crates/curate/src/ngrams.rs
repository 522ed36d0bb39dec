//! Counting runs of words without building their strings.
//!
//! A word's bytes are folded into one polynomial modulo 2^61 - 1, so the hash of any run of words joined without spaces is
//! two multiplications away. Two runs count as equal where their hashes are: for texts not written against this very
//! polynomial the chance of a wrong match in a document of a million words is below 1e-6.

use crate::words::Token;

const PRIME: u64 = (1 << 61) - 1;
/// The polynomial's base: any large number does.
const BASE: u64 = 0x0b4c_9a3d_6e2f_15c7;

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let sum = (product as u64 & PRIME) + (product >> 61) as u64;
    if sum >= PRIME { sum - PRIME } else { sum }
}

/// Finalizer of MurmurHash3: every bit of the input moves every bit of the output.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The words of one document, ready to be asked for the hash and length of any run.
#[derive(Debug, Default)]
pub struct Runs {
    /// Hash of the first `i` words joined.
    hashes: Vec<u64>,
    /// Bytes of the first `i` words.
    bytes: Vec<u32>,
    /// Characters of the first `i` words.
    chars: Vec<u32>,
    /// Powers of the base, by bytes.
    powers: Vec<u64>,
    table: Table,
}

impl Runs {
    /// Takes the words (not the white space) of a document.
    pub fn set(&mut self, text: &str, tokens: &[Token]) {
        self.hashes.clear();
        self.bytes.clear();
        self.chars.clear();
        let (mut hash, mut bytes, mut chars) = (0, 0, 0);
        let mut all = |hash, bytes, chars| {
            self.hashes.push(hash);
            self.bytes.push(bytes);
            self.chars.push(chars);
        };
        all(hash, bytes, chars);
        for token in tokens.iter().filter(|token| !token.is_space) {
            for &byte in token.of(text).as_bytes() {
                hash = multiply(hash, BASE) + u64::from(byte) + 1;
                chars += u32::from((byte as i8) >= -64);
            }
            // Kept below the prime between words; within a word the excess of 256 does no harm.
            hash = if hash >= PRIME { hash - PRIME } else { hash };
            bytes += token.end - token.start;
            all(hash, bytes, chars);
        }
        if self.powers.is_empty() {
            self.powers.push(1);
        }
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.hashes.len().saturating_sub(1)
    }

    /// Whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn power(&mut self, bytes: usize) -> u64 {
        while self.powers.len() <= bytes {
            let last = self.powers[self.powers.len() - 1];
            self.powers.push(multiply(last, BASE));
        }
        self.powers[bytes]
    }

    /// Hash of words `from..to` joined without spaces.
    #[inline]
    fn hash(&mut self, from: usize, to: usize) -> u64 {
        let bytes = (self.bytes[to] - self.bytes[from]) as usize;
        let shifted = multiply(self.hashes[from], self.power(bytes));
        let hash = self.hashes[to] + PRIME - shifted;
        if hash >= PRIME { hash - PRIME } else { hash }
    }

    /// Characters of the most frequent run of `n` words, joined by spaces, times how often it occurs; the first of equals.
    /// `None` where there are fewer than `n` words.
    pub fn top(&mut self, n: usize) -> Option<usize> {
        let count = (self.len() + 1).checked_sub(n).filter(|&count| count > 0)?;
        self.table.clear(count);
        for first in 0..count {
            // Words joined by spaces are equal where the joined letters and all word lengths are.
            let mut key = self.hash(first, first + n);
            for word in first..first + n - 1 {
                key = key.rotate_left(9)
                    ^ u64::from(self.bytes[word + 1] - self.bytes[word]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            self.table.add(mix(key), first as u32);
        }
        let best = self.table.most()?;
        let first = best.first as usize;
        let chars = (self.chars[first + n] - self.chars[first]) as usize + n - 1;
        Some(chars * best.count as usize)
    }

    /// Characters in runs of `n` words that were seen before, from left to right; after one the scan goes on behind it.
    pub fn duplicated(&mut self, n: usize) -> usize {
        let len = self.len();
        self.table.clear(len);
        let (mut chars, mut first) = (0, 0);
        while first + n <= len {
            let key = mix(self.hash(first, first + n));
            if self.table.add(key, first as u32) > 1 {
                chars += (self.chars[first + n] - self.chars[first]) as usize;
                first += n;
            } else {
                first += 1;
            }
        }
        chars
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    /// The slot is free unless this is the table's generation.
    generation: u32,
    count: u32,
    first: u32,
}

/// Counts by hash: open addressing, emptied by raising the generation.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    mask: usize,
    generation: u32,
}

impl Table {
    fn clear(&mut self, entries: usize) {
        let wanted = (entries * 2).next_power_of_two().max(64);
        if self.slots.len() < wanted || self.generation == u32::MAX {
            self.slots = vec![Slot::default(); wanted.max(self.slots.len())];
            self.generation = 0;
        }
        // A short document after a long one uses the front of the table.
        self.mask = wanted - 1;
        self.generation += 1;
    }

    /// Counts `key` once more; says how often it was counted.
    #[inline]
    fn add(&mut self, key: u64, first: u32) -> u32 {
        let mut at = key as usize & self.mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.generation != self.generation {
                *slot = Slot { key, generation: self.generation, count: 1, first };
                return 1;
            }
            if slot.key == key {
                slot.count += 1;
                return slot.count;
            }
            at = (at + 1) & self.mask;
        }
    }

    /// The entry with the highest count; of equals the one that came first.
    fn most(&self) -> Option<Slot> {
        let used = self.slots[..=self.mask].iter().filter(|slot| slot.generation == self.generation);
        used.copied().max_by_key(|slot| (slot.count, std::cmp::Reverse(slot.first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tokenize_into;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn runs(text: &str) -> Runs {
        let mut tokens = Vec::new();
        tokenize_into(text, 0, &mut tokens);
        let mut runs = Runs::default();
        runs.set(text, &tokens);
        runs
    }

    /// The definitions, with strings.
    fn top(words: &[&str], n: usize) -> Option<usize> {
        let grams: Vec<String> = words.windows(n).map(|gram| gram.join(" ")).collect();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        grams.iter().for_each(|gram| *counts.entry(gram).or_default() += 1);
        let most = *counts.values().max()?;
        let first = grams.iter().find(|gram| counts[gram.as_str()] == most)?;
        Some(first.chars().count() * most)
    }

    fn duplicated(words: &[&str], n: usize) -> usize {
        let (mut seen, mut chars, mut at) = (HashSet::new(), 0, 0);
        while at + n <= words.len() {
            let gram = words[at..at + n].concat();
            let length = gram.chars().count();
            let repeated = !seen.insert(gram);
            chars += if repeated { length } else { 0 };
            at += if repeated { n } else { 1 };
        }
        chars
    }

    #[test]
    fn joined_without_spaces_means_without() {
        assert_eq!(runs("ab c x a bc").duplicated(2), 3);
        assert_eq!(runs("ab c x a bc").top(2), Some(4));
    }

    proptest! {
        #[test]
        fn runs_are_counted_as_their_strings_are(picks in prop::collection::vec(0usize..7, 0..60), n in 2usize..7) {
            let words = ["a", "aa", "b", "ab", "é", "ba", "longer"];
            let words: Vec<&str> = picks.iter().map(|&pick| words[pick]).collect();
            let mut runs = runs(&words.join(" "));
            prop_assert_eq!(runs.top(n), top(&words, n));
            prop_assert_eq!(runs.duplicated(n), duplicated(&words, n));
        }
    }
}
