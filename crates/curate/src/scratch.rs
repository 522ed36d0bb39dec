//! What the filters keep between documents so that nothing is allocated per document, and what they know of the current one.

use crate::lines::char_count;
use crate::ngrams::Runs;
use crate::words::{Token, tokenize_into};

/// Buffers of one worker. What is known of a text is kept until [`Scratch::forget`], so that filters share it.
#[derive(Debug, Default)]
pub struct Scratch {
    tokens: Vec<Token>,
    is_tokenized: bool,
    words: Option<usize>,
    chars: Option<usize>,
    pub(crate) runs: Runs,
    pub(crate) seen: std::collections::HashSet<u64, std::hash::BuildHasherDefault<Identity>>,
    pub(crate) line_tokens: Vec<Token>,
}

impl Scratch {
    /// The text is another from here on.
    pub fn forget(&mut self) {
        self.is_tokenized = false;
        self.words = None;
        self.chars = None;
    }

    /// The text is another, and this is its number of words.
    pub(crate) fn forget_but_words(&mut self, words: usize) {
        self.forget();
        self.words = Some(words);
    }

    /// Tokens of the current text, white space among them.
    pub fn tokens(&mut self, text: &str) -> &[Token] {
        if !self.is_tokenized {
            self.tokens.clear();
            tokenize_into(text, 0, &mut self.tokens);
            self.is_tokenized = true;
            self.words = Some(self.tokens.iter().filter(|token| !token.is_space).count());
        }
        &self.tokens
    }

    /// The tokens, if the text was cut already.
    pub(crate) fn tokens_if_known(&self) -> Option<&[Token]> {
        self.is_tokenized.then_some(&self.tokens[..])
    }

    /// Number of words.
    pub fn word_count(&mut self, text: &str) -> usize {
        if self.words.is_none() {
            self.tokens(text);
        }
        self.words.unwrap_or(0)
    }

    /// Number of characters.
    pub fn char_count(&mut self, text: &str) -> usize {
        *self.chars.get_or_insert_with(|| char_count(text))
    }

    /// The words as runs for counting.
    pub(crate) fn runs(&mut self, text: &str) -> &mut Runs {
        self.tokens(text);
        self.runs.set(text, &self.tokens);
        &mut self.runs
    }
}

/// Hashes what is a hash already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
