//! Text with everything folded that should not tell two copies apart: datatrove's `simplify_text`.

use crate::lines::is_space;
use crate::punctuation::is_punctuation;
use regex::Regex;
use std::sync::LazyLock;

static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{Nd}+([.,،٫⎖⎗⎘]\p{Nd}+)?").expect("a valid pattern"));
static MARKS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{Mn}+").expect("a valid pattern"));

/// Small letters; every number becomes `0`; punctuation becomes a space; runs of white space become one; diacritics go.
///
/// Source: datatrove's `simplify_text` with its default `TextNormConfig`.
pub fn simplify(text: &str) -> String {
    if text.is_ascii() { simplify_ascii(text.as_bytes()) } else { simplify_any(text) }
}

fn simplify_any(text: &str) -> String {
    let lowered = text.to_lowercase();
    let numbered = NUMBER.replace_all(&lowered, "0");
    let mut out = String::with_capacity(numbered.len());
    for c in numbered.chars() {
        let c = if is_punctuation(c) || is_space(c) { ' ' } else { c };
        if c != ' ' || !(out.is_empty() || out.ends_with(' ')) {
            out.push(c);
        }
    }
    let composed = out.trim_end_matches(' ');
    let parts: String =
        unicode_normalization_alignments::UnicodeNormalization::nfd(composed.chars()).map(|(c, _)| c).collect();
    let bare = MARKS.replace_all(&parts, "");
    crate::lines::strip(&bare).to_owned()
}

fn simplify_ascii(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_digit() {
            at = number_end(bytes, at);
            out.push('0');
            continue;
        }
        if byte.is_ascii_alphabetic() {
            out.push(byte.to_ascii_lowercase() as char);
        } else if !(out.is_empty() || out.ends_with(' ')) {
            // Every other ASCII character is punctuation, a control character or white space.
            out.push(' ');
        }
        at += 1;
    }
    out.truncate(out.trim_end_matches(' ').len());
    out
}

/// The end of the number that begins at `at`: digits, and a decimal part after one `.` or `,`.
fn number_end(bytes: &[u8], at: usize) -> usize {
    let digits = |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = digits(at);
    let decimal = matches!(bytes.get(end), Some(b'.' | b',')) && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
    if decimal { digits(end + 1) } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables_and_punctuation_fold_as_datatroves_do() {
        assert_eq!(simplify("|$17.56||1|\n|$15.37||2599|"), "0 0 0 0");
        // Its whole table of punctuation leaves the full-width 1 alone, which counts as a number.
        let table: String = ('\0'..='\u{ffff}').filter(|&c| is_punctuation(c)).collect();
        assert_eq!(simplify(&table), "0");
        assert_eq!(simplify("  Café, ÉTÉ!  1.5.6 ٣٫٤ don't\u{a0}x"), "cafe ete 0 0 0 don t x");
    }

    proptest! {
        #[test]
        fn the_fast_path_is_the_slow_one(text in "[ -~\t\n]{0,80}") {
            prop_assert_eq!(simplify(&text), simplify_any(&text));
        }
    }
}
