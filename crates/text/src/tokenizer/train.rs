//! Training byte-level BPE: which pairs to merge, learnt from a text.

use super::bpe::{Bpe, Merge, byte_order};
use super::words::{Pattern, words};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// A pair that occurs once in the whole text is not worth a token.
const MIN_FREQUENCY: i64 = 2;

type Pair = (u32, u32);

/// Learns merges until there are `vocab_size` tokens, or no pair occurs twice.
///
/// Law: the result depends on the words and their counts alone; ties go to the pair with the smaller ids.
/// Source: Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>; order of ties as in Hugging Face's `BpeTrainer`.
pub(super) fn train<T: AsRef<str>>(documents: impl IntoIterator<Item = T>, vocab_size: usize) -> Bpe {
    let mut counts: HashMap<Box<str>, i64> = HashMap::new();
    for document in documents {
        for word in words(document.as_ref()) {
            if let Some(count) = counts.get_mut(word) {
                *count += 1;
            } else {
                counts.insert(word.into(), 1);
            }
        }
    }
    let mut table = Table::new(counts);
    let mut heap: BinaryHeap<(i64, Reverse<Pair>)> =
        table.pair_counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
    let mut merges = Vec::new();
    while table.tokens.len() < vocab_size {
        let Some((count, Reverse(pair))) = heap.pop() else { break };
        let current = table.pair_counts.get(&pair).copied().unwrap_or(0);
        if count != current {
            // The count fell since this entry was made: it goes back where it belongs now.
            if current >= MIN_FREQUENCY {
                heap.push((current, Reverse(pair)));
            }
            continue;
        }
        if count < MIN_FREQUENCY {
            break;
        }
        let merged = table.token_of(pair);
        merges.push(Merge { left: pair.0, right: pair.1, merged });
        for grown in table.merge(pair, merged) {
            heap.push((table.pair_counts[&grown], Reverse(grown)));
        }
    }
    Bpe::new(table.tokens, merges, Pattern::Gpt2).expect("merges are concatenations")
}

/// The words of the text as tokens, with counts of words and of neighbouring tokens.
struct Table {
    tokens: Vec<Box<[u8]>>,
    ids: HashMap<Box<[u8]>, u32>,
    words: Vec<(Vec<u32>, i64)>,
    pair_counts: HashMap<Pair, i64>,
    /// The words in which a pair occurs, or once occurred.
    pair_words: HashMap<Pair, HashSet<u32>>,
}

impl Table {
    fn new(counts: HashMap<Box<str>, i64>) -> Self {
        let tokens: Vec<Box<[u8]>> = byte_order().map(|byte| [byte].into()).collect();
        let ids: HashMap<Box<[u8]>, u32> = tokens.iter().cloned().zip(0..).collect();
        let words =
            counts.into_iter().map(|(word, count)| (word.bytes().map(|byte| ids[&[byte][..]]).collect(), count));
        let mut table =
            Self { words: words.collect(), tokens, ids, pair_counts: HashMap::new(), pair_words: HashMap::new() };
        for index in 0..table.words.len() {
            let (word, count) = &table.words[index];
            for pair in word.windows(2).map(|pair| (pair[0], pair[1])) {
                *table.pair_counts.entry(pair).or_insert(0) += count;
                table.pair_words.entry(pair).or_default().insert(index as u32);
            }
        }
        table
    }

    /// The token of the two of `pair` side by side; another pair may have made it before.
    fn token_of(&mut self, pair: Pair) -> u32 {
        let bytes: Box<[u8]> = [&self.tokens[pair.0 as usize][..], &self.tokens[pair.1 as usize][..]].concat().into();
        if let Some(&id) = self.ids.get(&bytes) {
            return id;
        }
        let id = self.tokens.len() as u32;
        self.tokens.push(bytes.clone());
        self.ids.insert(bytes, id);
        id
    }

    /// Merges `pair` in all words and returns the pairs that became more frequent, each once.
    fn merge(&mut self, pair: Pair, merged: u32) -> HashSet<Pair> {
        let mut grown = HashSet::new();
        for index in self.pair_words.remove(&pair).unwrap_or_default() {
            let (word, count) = &mut self.words[index as usize];
            let mut merged_word = Vec::with_capacity(word.len());
            let mut at = 0;
            while at < word.len() {
                if word[at..].starts_with(&[pair.0, pair.1]) {
                    merged_word.push(merged);
                    at += 2;
                } else {
                    merged_word.push(word[at]);
                    at += 1;
                }
            }
            if merged_word.len() == word.len() {
                continue;
            }
            for old in word.windows(2).map(|pair| (pair[0], pair[1])) {
                *self.pair_counts.entry(old).or_insert(0) -= *count;
            }
            for new in merged_word.windows(2).map(|pair| (pair[0], pair[1])) {
                *self.pair_counts.entry(new).or_insert(0) += *count;
                if new.0 == merged || new.1 == merged {
                    self.pair_words.entry(new).or_default().insert(index);
                    grown.insert(new);
                }
            }
            *word = merged_word;
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use crate::Tokenizer;

    const TEXT: &str =
        "the cat sat on the mat; the rat sat too. banana bandana banana, aaaa aaa aaaaaa. Don't! 1234 1235";

    #[test]
    fn the_merges_are_those_of_hugging_faces_trainer() {
        use tokenizers::models::TrainerWrapper;
        use tokenizers::models::bpe::{BPE, BpeTrainer};
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;
        let documents = [TEXT.to_owned(), TEXT.replace('a', "o"), crate::stories::text(1, 60_000)];
        for vocab_size in [260, 300, 500, 1000] {
            let ours = Tokenizer::train_bpe(documents.iter(), vocab_size, &[]).unwrap();
            let mut theirs = tokenizers::Tokenizer::new(BPE::default());
            theirs.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
            let trainer = BpeTrainer::builder()
                .vocab_size(vocab_size)
                .min_frequency(2)
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .build();
            theirs.train(&mut TrainerWrapper::from(trainer), documents.iter()).unwrap();
            let theirs: serde_json::Value = serde_json::from_str(&theirs.to_string(false).unwrap()).unwrap();
            let ours: serde_json::Value = serde_json::from_str(&ours.to_json().unwrap()).unwrap();
            assert_eq!(ours["model"]["vocab"], theirs["model"]["vocab"], "vocabulary of {vocab_size}");
        }
    }

    #[test]
    fn the_order_of_the_documents_does_not_matter() {
        let train = |documents: [&str; 2]| Tokenizer::train_bpe(documents, 300, &["<|endoftext|>"]).unwrap();
        let other = "another cat and a bandana";
        assert_eq!(train([TEXT, other]).to_json().unwrap(), train([other, TEXT]).to_json().unwrap());
    }

    #[test]
    fn special_tokens_come_last_and_the_vocabulary_is_as_large_as_asked() {
        let tokenizer = Tokenizer::train_bpe([TEXT], 270, &["<|endoftext|>", "<|user|>"]).unwrap();
        assert_eq!(tokenizer.vocab_size(), 270);
        assert_eq!(tokenizer.end_of_text(), Some(268));
        assert_eq!(tokenizer.token_id("<|user|>"), Some(269));
        assert_eq!(tokenizer.encode("<|user|>").unwrap(), [269]);
        assert!(tokenizer.encode_ordinary("<|user|>").unwrap().len() > 1);
    }

    #[test]
    fn a_vocabulary_without_room_for_the_bytes_is_refused() {
        let error = Tokenizer::train_bpe([TEXT], 256, &["<|endoftext|>"]).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @"`vocab_size` is 256, expected at least 257 (256 bytes and 1 special tokens)");
    }
}
