//! GPT-2's pre-tokenizer: where text is cut before byte pairs are merged.

use regex::Regex;
use std::sync::LazyLock;

/// GPT-2's pattern without its look-ahead `\s+(?!\S)`, which [`words`] does by hand: this way the regular expression
/// is a true one and runs in linear time.
///
/// Source: <https://github.com/openai/gpt-2/blob/master/src/encoder.py>, `self.pat`.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+").expect("the pattern is well-formed")
});

/// The pieces of `text` in order; together they are `text`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let pattern = &*PATTERN;
    let mut start = 0;
    std::iter::from_fn(move || {
        // Every character is matched by one of the alternatives, so a match begins where the last one ended.
        let end = pattern.find_at(text, start)?.end();
        let mut word = &text[start..end];
        // Only a run of white space ends in white space. Before a word it leaves its last character to that word.
        if end < text.len()
            && let Some(last) = word.chars().next_back()
            && last.is_whitespace()
            && word.len() > last.len_utf8()
        {
            word = &word[..word.len() - last.len_utf8()];
        }
        start += word.len();
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(words(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn words_are_cut_as_gpt2_cuts_them() {
        check("It's we'll  go\n\n  up ", &["It", "'s", " we", "'ll", " ", " go", "\n\n ", " up", " "]);
        check("a\t\tb\u{a0}c", &["a", "\t", "\t", "b", "\u{a0}", "c"]);
        check("x=12,3 ?!", &["x", "=", "12", ",", "3", " ?!"]);
        check("", &[]);
        check("   ", &["   "]);
    }

    proptest! {
        #[test]
        fn the_words_together_are_the_text(text: String) {
            prop_assert_eq!(words(&text).collect::<String>(), text);
        }

        #[test]
        fn no_word_is_empty(text in "[ a1\n'!\t]{0,30}") {
            prop_assert!(words(&text).all(|word| !word.is_empty()));
        }
    }
}
