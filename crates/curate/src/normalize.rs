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
    simplify_frequent(text).unwrap_or_else(|| simplify_any(text))
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

/// Latin letters beyond ASCII, and the marks between them, which one pass folds.
const LATIN: std::ops::Range<u32> = 0xa0..0x250;

/// What each of [`LATIN`] becomes alone: nothing about it depends on its neighbours.
static FOLDED: LazyLock<Vec<String>> =
    LazyLock::new(|| LATIN.filter_map(char::from_u32).map(|c| simplify_any(c.encode_utf8(&mut [0; 4]))).collect());

/// One pass over a text of ASCII, Latin letters and punctuation; `None` where there is anything else.
fn simplify_frequent(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let space = |out: &mut String| {
        if !(out.is_empty() || out.ends_with(' ')) {
            out.push(' ');
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_digit() {
            at = number_end(bytes, at)?;
            out.push('0');
            continue;
        }
        if byte.is_ascii_alphabetic() {
            out.push(byte.to_ascii_lowercase() as char);
            at += 1;
        } else if byte.is_ascii() {
            // Every other ASCII character is punctuation, a control character or white space.
            space(&mut out);
            at += 1;
        } else {
            let c = text[at..].chars().next()?;
            at += c.len_utf8();
            // The full-width 1 is among the punctuation, and a number.
            if (is_punctuation(c) || is_space(c)) && !c.is_numeric() {
                space(&mut out);
            } else if LATIN.contains(&(c as u32)) {
                out.push_str(&FOLDED[(c as u32 - LATIN.start) as usize]);
            } else {
                return None;
            }
        }
    }
    out.truncate(out.trim_end_matches(' ').len());
    Some(out)
}

/// The end of the number that begins at `at`: digits, and a decimal part after one `.` or `,`. `None` where it may go on beyond
/// ASCII.
fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(at);
    if matches!(bytes.get(end), Some(b'.' | b',')) && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    // Other scripts have digits and decimal marks of their own; a dash, a degree or a no-break space is frequent and neither.
    let after = &bytes[end..];
    let ends = after.first().is_none_or(u8::is_ascii) || after[0] == 0xc2 || after.starts_with(&[0xe2, 0x80]);
    ends.then_some(end)
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
        fn the_fast_path_is_the_slow_one(text in "([ -~\t\n]|[\u{80}-\u{260}]|[–—“”’…٣٫،１Σ\u{301}日]|[0-9.,]){0,60}") {
            prop_assert_eq!(simplify(&text), simplify_any(&text));
        }
    }
}
