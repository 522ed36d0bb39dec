//! FineWeb's own filters: lines without punctuation, short lines, repeated lines, lists.

use super::{find_duplicates, ratio};
use crate::ledger::{Bound, Ledger, Reason};
use crate::lines::{char_count, strip};
use crate::punctuation::is_terminal;
use crate::scratch::Scratch;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Drops documents whose lines look like lists, menus or repeated boilerplate.
///
/// Source: Penedo et al. 2024 (FineWeb), section 3.6, <https://arxiv.org/abs/2406.17557>: the duplicate threshold of 0.1 in its
/// prose is 0.01 in its table 2 and in datatrove's `FineWebQualityFilter`; the rule on lists is only in the latter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FineWebQualityFilter {
    /// Smallest share of lines that end in terminal punctuation.
    pub line_punct_thr: f64,
    /// Whether a document without any such line passes that rule.
    pub line_punct_exclude_zero: bool,
    /// The terminal punctuation; empty for the marks of all scripts.
    pub stop_chars: Vec<char>,
    /// Largest share of short lines.
    pub short_line_thr: f64,
    /// Characters up to which a line is short.
    pub short_line_length: usize,
    /// Largest share of characters in repeated lines.
    pub char_duplicates_ratio: f64,
    /// Most line feeds per word.
    pub new_line_ratio: f64,
}

impl Default for FineWebQualityFilter {
    fn default() -> Self {
        Self {
            line_punct_thr: 0.12,
            line_punct_exclude_zero: false,
            stop_chars: Vec::new(),
            short_line_thr: 0.67,
            short_line_length: 30,
            char_duplicates_ratio: 0.01,
            new_line_ratio: 0.3,
        }
    }
}

impl FineWebQualityFilter {
    /// Passes every rule through `ledger`, in datatrove's order.
    pub fn check(&self, text: &str, scratch: &mut Scratch, ledger: &mut impl Ledger) -> ControlFlow<Reason> {
        let lines = || text.split('\n').filter(|line| !strip(line).is_empty());
        let (mut count, mut ended, mut short) = (0, 0, 0);
        for line in lines() {
            count += 1;
            let last = line.chars().next_back();
            ended += usize::from(last.is_some_and(|c| {
                if self.stop_chars.is_empty() { is_terminal(c) } else { self.stop_chars.contains(&c) }
            }));
            // A line of more than four bytes a character is longer than that many characters for certain.
            short +=
                usize::from(line.len() <= 4 * self.short_line_length && char_count(line) <= self.short_line_length);
        }
        ledger.rule("empty", count as f64, Bound::Below(1.0))?;
        if count == 0 {
            return ControlFlow::Continue(());
        }
        if !(ended == 0 && self.line_punct_exclude_zero) {
            ledger.rule("line_punct_ratio", ratio(ended, count), Bound::Below(self.line_punct_thr))?;
        }
        ledger.rule("short_line_ratio", ratio(short, count), Bound::Above(self.short_line_thr))?;
        let feeds = memchr::memchr_iter(b'\n', text.as_bytes()).count();
        let length = scratch.char_count(text) - feeds;
        let repeated = find_duplicates(lines(), scratch).chars;
        ledger.rule("char_dup_ratio", ratio(repeated, length), Bound::Above(self.char_duplicates_ratio))?;
        ledger.rule("list_ratio", ratio(feeds, scratch.word_count(text)), Bound::Above(self.new_line_ratio))
    }
}
