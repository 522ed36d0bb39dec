//! Lines of nothing but symbols, left out.

use crate::lines::{split_lines, strip};
use crate::punctuation::is_symbol;
use serde::{Deserialize, Serialize};

/// Leaves out lines that consist of symbols alone; blank lines stay, as do lines of text that begin with symbols.
///
/// Every kind of line break becomes `\n`, and one at the end goes.
/// Source: datatrove's `SymbolLinesFormatter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SymbolLinesFormatter {
    /// The symbols; empty for the punctuation of all scripts.
    pub symbols_to_remove: Vec<char>,
    /// The line that stands for a run of lines left out; empty for none.
    pub replace_char: String,
}

impl SymbolLinesFormatter {
    /// What becomes of `text`.
    pub fn format(&self, text: &str) -> String {
        let mut kept: Vec<&str> = Vec::new();
        let mut in_removed_span = false;
        for line in split_lines(text) {
            let removed = self.is_symbols(line);
            if !removed {
                kept.push(line);
            } else if !in_removed_span && !self.replace_char.is_empty() {
                kept.push(&self.replace_char);
            }
            in_removed_span = removed;
        }
        kept.join("\n")
    }

    fn is_symbols(&self, line: &str) -> bool {
        let is_removed =
            |c| if self.symbols_to_remove.is_empty() { is_symbol(c) } else { self.symbols_to_remove.contains(&c) };
        !strip(line).is_empty() && line.chars().all(|c| c == ' ' || is_removed(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(formatter: &SymbolLinesFormatter, text: &str, expected: &str) {
        assert_eq!(formatter.format(text), expected, "{text:?}");
    }

    #[test]
    fn only_lines_of_symbols_vanish() {
        let plain = SymbolLinesFormatter::default();
        // The shape of datatrove's case: text that begins or ends with symbols, blank lines, symbols around both.
        check(
            &plain,
            "-\n-\n>> The river is 12 km long.\n\n\n>> It has no bridge.\n|\n|\nhi there -\n|\n- so long\n|\n\nend",
            ">> The river is 12 km long.\n\n\n>> It has no bridge.\nhi there -\n- so long\n\nend",
        );
        check(&plain, "* * *\na\n  \n。！\nb\n1.\n$5\n……", "a\n  \nb\n1.\n$5");
        check(&plain, "a\r\nb\u{2028}--\u{2028}c\n", "a\nb\nc");
        check(&plain, "---", "");
        check(&plain, "\t-\n-\t", "\t-\n-\t");
        check(&plain, "", "");
    }

    #[test]
    fn a_run_of_lines_left_out_leaves_one_mark() {
        let marked = SymbolLinesFormatter { replace_char: "\n".into(), ..SymbolLinesFormatter::default() };
        check(&marked, "a\n--\n==\nb\n--\n\n--\nc", "a\n\n\nb\n\n\n\n\n\nc");
        let dashes = SymbolLinesFormatter { symbols_to_remove: vec!['-'], ..SymbolLinesFormatter::default() };
        check(&dashes, "a\n- -\n==\nb", "a\n==\nb");
    }
}
