//! Length, symbols, bullets and stop words.

use super::ratio;
use crate::ledger::{Bound, Ledger, Reason};
use crate::lines::{is_space, split_lines};
use crate::punctuation::is_symbol;
use crate::scratch::Scratch;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Drops documents whose words and lines are not those of prose. 0 turns a rule off.
///
/// Source: Rae et al. 2021 (Gopher), section A.1.1, <https://arxiv.org/abs/2112.11446>; datatrove's `GopherQualityFilter`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GopherQualityFilter {
    /// Fewest words that are not mere symbols.
    pub min_doc_words: usize,
    /// Most words that are not mere symbols.
    pub max_doc_words: usize,
    /// Shortest mean length of such words, in characters.
    pub min_avg_word_length: f64,
    /// Longest mean length of such words.
    pub max_avg_word_length: f64,
    /// Most `#`, and most ellipses, per word.
    pub max_symbol_word_ratio: f64,
    /// Largest share of lines that begin with a bullet.
    pub max_bullet_lines_ratio: f64,
    /// Largest share of lines that end in an ellipsis.
    pub max_ellipsis_lines_ratio: f64,
    /// Smallest share of words with a letter (datatrove's name, although it is a minimum).
    pub max_non_alpha_words_ratio: f64,
    /// Fewest distinct stop words.
    pub min_stop_words: usize,
    /// The stop words, case-sensitive.
    pub stop_words: Vec<String>,
}

impl Default for GopherQualityFilter {
    fn default() -> Self {
        Self {
            min_doc_words: 50,
            max_doc_words: 100_000,
            min_avg_word_length: 3.0,
            max_avg_word_length: 10.0,
            max_symbol_word_ratio: 0.1,
            max_bullet_lines_ratio: 0.9,
            max_ellipsis_lines_ratio: 0.3,
            max_non_alpha_words_ratio: 0.8,
            min_stop_words: 2,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"].map(str::to_owned).to_vec(),
        }
    }
}

/// What one pass over the words finds.
struct WordFacts {
    words: usize,
    not_symbols: usize,
    /// Characters of those that are not symbols.
    chars: usize,
    with_letter: usize,
    stop_words: usize,
}

impl GopherQualityFilter {
    /// Passes every rule through `ledger`, in datatrove's order.
    pub fn check(&self, text: &str, scratch: &mut Scratch, ledger: &mut impl Ledger) -> ControlFlow<Reason> {
        let facts = self.words(text, scratch);
        let lines = line_facts(text);
        let mean = ratio(facts.chars, facts.not_symbols);
        let mut rule = |on: bool, rule: &'static str, value: f64, bound| {
            if on { ledger.rule(rule, value, bound) } else { ControlFlow::Continue(()) }
        };
        let words = facts.not_symbols as f64;
        rule(self.min_doc_words > 0, "gopher_short_doc", words, Bound::Below(self.min_doc_words as f64))?;
        rule(self.max_doc_words > 0, "gopher_long_doc", words, Bound::Above(self.max_doc_words as f64))?;
        rule(
            self.min_avg_word_length > 0.0,
            "gopher_below_avg_threshold",
            mean,
            Bound::Below(self.min_avg_word_length),
        )?;
        rule(
            self.max_avg_word_length > 0.0,
            "gopher_above_avg_threshold",
            mean,
            Bound::Above(self.max_avg_word_length),
        )?;
        let symbols = self.max_symbol_word_ratio;
        let hashes = memchr::memchr_iter(b'#', text.as_bytes()).count();
        rule(symbols > 0.0, "gopher_too_many_hashes", ratio(hashes, facts.words), Bound::Above(symbols))?;
        let ellipses = ellipses(text);
        rule(symbols > 0.0, "gopher_too_many_ellipsis", ratio(ellipses, facts.words), Bound::Above(symbols))?;
        let most = self.max_bullet_lines_ratio;
        rule(most > 0.0, "gopher_too_many_bullets", ratio(lines.bullets, lines.lines), Bound::Above(most))?;
        let most = self.max_ellipsis_lines_ratio;
        rule(most > 0.0, "gopher_too_many_end_ellipsis", ratio(lines.ellipses, lines.lines), Bound::Above(most))?;
        let least = self.max_non_alpha_words_ratio;
        rule(least > 0.0, "gopher_below_alpha_threshold", ratio(facts.with_letter, facts.words), Bound::Below(least))?;
        let least = self.min_stop_words;
        rule(least > 0, "gopher_enough_stop_words", facts.stop_words as f64, Bound::Below(least as f64))
    }

    fn words(&self, text: &str, scratch: &mut Scratch) -> WordFacts {
        let mut facts = WordFacts { words: 0, not_symbols: 0, chars: 0, with_letter: 0, stop_words: 0 };
        let mut found = vec![false; self.stop_words.len()];
        let longest = self.stop_words.iter().map(String::len).max().unwrap_or(0);
        for token in scratch.tokens(text).iter().filter(|token| !token.is_space) {
            let word = token.of(text);
            facts.words += 1;
            let bytes = word.as_bytes();
            if bytes[0].is_ascii_alphabetic() {
                facts.with_letter += 1;
                facts.not_symbols += 1;
                facts.chars += crate::lines::char_count(word);
                if bytes.len() <= longest
                    && let Some(index) = self.stop_words.iter().position(|stop| stop == word)
                {
                    found[index] = true;
                }
                continue;
            }
            facts.with_letter += usize::from(word.chars().any(char::is_alphabetic));
            if word.chars().any(|c| !is_symbol(c)) {
                facts.not_symbols += 1;
                facts.chars += crate::lines::char_count(word);
            }
            if let Some(index) = self.stop_words.iter().position(|stop| stop == word) {
                found[index] = true;
            }
        }
        facts.stop_words = found.iter().filter(|&&found| found).count();
        facts
    }
}

/// `text.count("...") + text.count("…")`.
fn ellipses(text: &str) -> usize {
    let dots = memchr::memmem::find_iter(text.as_bytes(), b"...").count();
    dots + if text.is_ascii() { 0 } else { memchr::memmem::find_iter(text.as_bytes(), "…".as_bytes()).count() }
}

struct LineFacts {
    lines: usize,
    bullets: usize,
    ellipses: usize,
}

fn line_facts(text: &str) -> LineFacts {
    let mut facts = LineFacts { lines: 0, bullets: 0, ellipses: 0 };
    for line in split_lines(text) {
        facts.lines += 1;
        facts.bullets += usize::from(line.trim_start_matches(is_space).starts_with(['•', '-']));
        let end = line.trim_end_matches(is_space);
        facts.ellipses += usize::from(end.ends_with("...") || end.ends_with('…'));
    }
    facts
}
