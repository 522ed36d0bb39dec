//! Counting runs of words without building their strings.
//!
//! A run of `n + 1` words can only repeat where its first and its last `n` do, and a run that joins to sixteen bytes or more only
//! where its first sixteen do. In prose few places pass, and only those are looked up. Equality is that of the words and bytes
//! themselves, never of hashes alone.

use crate::words::Token;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes by which places are told apart before whole runs are.
const PREFIX: usize = 16;

/// Finalizer of MurmurHash3: every bit of the input moves every bit of the output.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The words of one document, ready to be asked what of them repeats.
#[derive(Debug, Default)]
pub struct Runs {
    /// All words, one after another, and [`PREFIX`] zeros.
    joined: Vec<u8>,
    /// Where each word begins in `joined`, and where the last one ends.
    starts: Vec<u32>,
    /// Characters of the first `i` words; empty where a character is a byte.
    chars: Vec<u32>,
    /// The first place of the word at each place.
    words: Vec<u32>,
    /// The first place of the run of `tops.len()` words at each place, how often it occurs, and the same of one word less.
    firsts: Vec<u32>,
    counts: Vec<u32>,
    shorter: Vec<u32>,
    /// Of one word, of two and so on: the most frequent run.
    tops: Vec<Top>,
    /// Whether the first bytes at a place occur at another; empty until asked for.
    repeated: Vec<bool>,
    table: Table,
}

/// The run that occurs most often, the first of equals.
#[derive(Clone, Copy, Debug)]
struct Top {
    count: u32,
    first: u32,
}

impl Top {
    fn see(&mut self, count: u32, first: u32) {
        if count > self.count || (count == self.count && first < self.first) {
            *self = Self { count, first };
        }
    }
}

impl Runs {
    /// Takes the words among `tokens` of `text`.
    pub fn set(&mut self, text: &str, tokens: &[Token]) {
        self.joined.clear();
        self.starts.clear();
        self.chars.clear();
        self.tops.clear();
        self.repeated.clear();
        let narrow = text.is_ascii();
        let mut chars = 0;
        for token in tokens.iter().filter(|token| !token.is_space) {
            let word = token.of(text);
            self.starts.push(self.joined.len() as u32);
            self.joined.extend_from_slice(word.as_bytes());
            if !narrow {
                self.chars.push(chars);
                chars += crate::lines::char_count(word) as u32;
            }
        }
        self.starts.push(self.joined.len() as u32);
        if !narrow {
            self.chars.push(chars);
        }
        self.joined.resize(self.joined.len() + PREFIX, 0);
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Characters of words `from..to`.
    fn chars(&self, from: usize, to: usize) -> usize {
        let before = if self.chars.is_empty() { &self.starts } else { &self.chars };
        (before[to] - before[from]) as usize
    }

    /// Characters of the most frequent run of `n` words, joined by spaces, times how often it occurs; the first of equals.
    /// `None` where there are fewer than `n` words.
    pub fn top(&mut self, n: usize) -> Option<usize> {
        if n == 0 || self.len() < n {
            return None;
        }
        if self.tops.is_empty() {
            self.count_words();
        }
        while self.tops.len() < n {
            self.count_longer();
        }
        let top = self.tops[n - 1];
        let first = top.first as usize;
        Some((self.chars(first, first + n) + n - 1) * top.count as usize)
    }

    /// Counts single words.
    fn count_words(&mut self) {
        let count = self.len();
        let Self { joined, starts, words, table, counts, .. } = self;
        let word = |at: usize| &joined[starts[at] as usize..starts[at + 1] as usize];
        table.clear(count);
        words.clear();
        counts.clear();
        counts.resize(count, 0);
        let mut top = Top { count: 0, first: 0 };
        for at in 0..count {
            let bytes = word(at);
            let first =
                table.first(word_key(joined, starts[at] as usize, bytes.len()), at, |other| word(other) == bytes);
            counts[first as usize] += 1;
            top.see(counts[first as usize], first);
            words.push(first);
        }
        self.firsts.clone_from(&self.words);
        self.tops.push(top);
    }

    /// Counts runs of one word more than the longest that were counted.
    fn count_longer(&mut self) {
        let n = self.tops.len() + 1;
        let count = self.len() + 1 - n;
        std::mem::swap(&mut self.firsts, &mut self.shorter);
        let Self { shorter, firsts, words, counts, table, .. } = self;
        table.clear(count);
        firsts.clear();
        let mut top = Top { count: 1, first: 0 };
        let once = |at: usize| counts[shorter[at] as usize] == 1;
        for at in 0..count {
            if once(at) || once(at + 1) {
                firsts.push(at as u32);
                continue;
            }
            let run = |at: usize| u64::from(shorter[at]) << 32 | u64::from(words[at + n - 1]);
            firsts.push(table.first(mix(run(at)), at, |other| run(other) == run(at)));
        }
        counts.clear();
        counts.resize(count, 0);
        for &first in &*firsts {
            counts[first as usize] += 1;
            top.see(counts[first as usize], first);
        }
        self.tops.push(top);
    }

    /// Characters in runs of `n` words, joined without spaces, that were seen before, from left to right; after one the scan goes on
    /// behind it.
    pub fn duplicated(&mut self, n: usize) -> usize {
        let len = self.len();
        if self.repeated.len() < len {
            self.find_repeated();
        }
        let Self { joined, starts, repeated, table, .. } = self;
        let run = |at: usize| &joined[starts[at] as usize..starts[at + n] as usize];
        table.clear(len);
        let (mut chars, mut first) = (0, 0);
        while first + n <= len {
            let bytes = run(first);
            if bytes.len() >= PREFIX && !repeated[first] {
                first += 1;
                continue;
            }
            if table.first(xxh3_64(bytes), first, |other| run(other) == bytes) == first as u32 {
                first += 1;
            } else {
                let before = if self.chars.is_empty() { &*starts } else { &self.chars };
                chars += (before[first + n] - before[first]) as usize;
                first += n.max(1);
            }
        }
        chars
    }

    /// Finds the places whose first bytes occur at another.
    fn find_repeated(&mut self) {
        let count = self.len();
        let Self { joined, starts, repeated, table, .. } = self;
        let prefix = |at: usize| {
            let start = starts[at] as usize;
            u128::from_le_bytes(joined[start..start + PREFIX].try_into().expect("sixteen bytes"))
        };
        table.clear(count);
        repeated.resize(count, false);
        for at in 0..count {
            let bytes = prefix(at);
            let key = mix(bytes as u64 ^ ((bytes >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let first = table.first(key, at, |other| prefix(other) == bytes) as usize;
            if first != at {
                repeated[first] = true;
                repeated[at] = true;
            }
        }
    }
}

/// A hash of the word at `start`; `joined` goes on for [`PREFIX`] bytes behind it.
fn word_key(joined: &[u8], start: usize, length: usize) -> u64 {
    if length > 8 {
        return xxh3_64(&joined[start..start + length]);
    }
    let bytes = u64::from_le_bytes(joined[start..start + 8].try_into().expect("eight bytes"));
    // The bytes of the word alone: a shift by 64 would be for no bytes, and no word is empty.
    mix((bytes << (64 - 8 * length)) ^ length as u64)
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u32,
    /// The slot is free unless this is the table's generation.
    generation: u32,
    first: u32,
}

/// First places by hash: open addressing, emptied by raising the generation.
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

    /// The first place that came with this hash and of which `same` holds: `at` itself where there was none.
    #[inline]
    fn first(&mut self, hash: u64, at: usize, same: impl Fn(usize) -> bool) -> u32 {
        let key = (hash >> 32) as u32;
        let mut index = hash as usize & self.mask;
        loop {
            let slot = &mut self.slots[index];
            if slot.generation != self.generation {
                *slot = Slot { key, generation: self.generation, first: at as u32 };
                return at as u32;
            }
            if slot.key == key && same(slot.first as usize) {
                return slot.first;
            }
            index = (index + 1) & self.mask;
        }
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
    fn runs_of_sixteen_bytes_and_more_repeat_at_other_cuts_too() {
        // "longer ba longer ba" joins as "longerba longerba" does, cut at other places.
        let mut runs = runs("longer ba longer ba x longerba longerba longer ba longer ba");
        assert_eq!((runs.duplicated(4), runs.duplicated(2), runs.top(4)), (16, 24, Some(38)));
    }

    #[test]
    fn joined_without_spaces_means_without() {
        assert_eq!(runs("ab c x a bc").duplicated(2), 3);
        assert_eq!(runs("ab c x a bc").top(2), Some(4));
    }

    proptest! {
        #[test]
        fn runs_are_counted_as_their_strings_are(picks in prop::collection::vec(0usize..7, 0..60), n in 1usize..7) {
            let words = ["a", "aa", "b", "ab", "é", "ba", "longer"];
            let words: Vec<&str> = picks.iter().map(|&pick| words[pick]).collect();
            let mut runs = runs(&words.join(" "));
            prop_assert_eq!(runs.top(n), top(&words, n));
            prop_assert_eq!(runs.duplicated(n), duplicated(&words, n));
        }
    }
}
