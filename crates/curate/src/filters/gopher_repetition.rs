//! Repeated lines, paragraphs and runs of words.

use super::{find_duplicates, ratio};
use crate::ledger::{Bound, Ledger, Reason};
use crate::lines::{split_newlines, strip};
use crate::scratch::Scratch;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Drops documents that repeat themselves. Thresholds are the largest share that stays; 0 turns a rule off.
///
/// Source: Rae et al. 2021 (Gopher), table A1, <https://arxiv.org/abs/2112.11446>; datatrove's `GopherRepetitionFilter`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GopherRepetitionFilter {
    /// Share of lines that repeat an earlier one.
    pub dup_line_frac: f64,
    /// Share of paragraphs that repeat an earlier one.
    pub dup_para_frac: f64,
    /// Share of characters in repeated lines.
    pub dup_line_char_frac: f64,
    /// Share of characters in repeated paragraphs.
    pub dup_para_char_frac: f64,
    /// Words of a run, and the share of characters that the most frequent such run may take.
    pub top_n_grams: Vec<(usize, f64)>,
    /// Words of a run, and the share of characters that repeated such runs may take.
    pub dup_n_grams: Vec<(usize, f64)>,
}

impl Default for GopherRepetitionFilter {
    fn default() -> Self {
        Self {
            dup_line_frac: 0.3,
            dup_para_frac: 0.3,
            dup_line_char_frac: 0.2,
            dup_para_char_frac: 0.2,
            top_n_grams: vec![(2, 0.2), (3, 0.18), (4, 0.16)],
            dup_n_grams: vec![(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)],
        }
    }
}

/// Reasons by words of a run, so that the usual ones allocate nothing.
const TOP: [&str; 5] = ["top_0_gram", "top_1_gram", "top_2_gram", "top_3_gram", "top_4_gram"];
const DUPLICATED: [&str; 6] = [
    "duplicated_5_n_grams",
    "duplicated_6_n_grams",
    "duplicated_7_n_grams",
    "duplicated_8_n_grams",
    "duplicated_9_n_grams",
    "duplicated_10_n_grams",
];

impl GopherRepetitionFilter {
    /// Passes every rule through `ledger`, in datatrove's order.
    pub fn check(&self, text: &str, scratch: &mut Scratch, ledger: &mut impl Ledger) -> ControlFlow<Reason> {
        let length = scratch.char_count(text);
        let paragraphs = find_duplicates(split_newlines(strip(text), 2), scratch);
        let lines = |scratch: &mut Scratch| find_duplicates(split_newlines(text, 1), scratch);
        repeats(ledger, self.dup_para_frac, "dup_para_frac", ratio(paragraphs.repeated, paragraphs.elements))?;
        repeats(ledger, self.dup_para_char_frac, "dup_para_char_frac", ratio(paragraphs.chars, length))?;
        let lines = lines(scratch);
        repeats(ledger, self.dup_line_frac, "dup_line_frac", ratio(lines.repeated, lines.elements))?;
        repeats(ledger, self.dup_line_char_frac, "dup_line_char_frac", ratio(lines.chars, length))?;
        let runs = scratch.runs(text);
        for &(n, most) in &self.top_n_grams {
            if let Some(chars) = runs.top(n) {
                let rule = TOP.get(n).map_or_else(|| Reason::from(format!("top_{n}_gram")), |&rule| rule.into());
                ledger.rule(rule, ratio(chars, length), Bound::Above(most))?;
            }
        }
        for &(n, most) in &self.dup_n_grams {
            let known = n.checked_sub(5).and_then(|index| DUPLICATED.get(index));
            let rule = known.map_or_else(|| Reason::from(format!("duplicated_{n}_n_grams")), |&rule| rule.into());
            ledger.rule(rule, ratio(runs.duplicated(n), length), Bound::Above(most))?;
        }
        ControlFlow::Continue(())
    }
}

/// A rule that 0 turns off.
fn repeats(ledger: &mut impl Ledger, most: f64, rule: &'static str, value: f64) -> ControlFlow<Reason> {
    if most == 0.0 { ControlFlow::Continue(()) } else { ledger.rule(rule, value, Bound::Above(most)) }
}
