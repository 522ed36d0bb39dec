//! C4's rules on lines and documents.

use crate::document::Document;
use crate::ledger::{Bound, Ledger, Reason};
use crate::lines::{char_count, is_space, split_lines, strip};
use crate::scratch::Scratch;
use crate::words::{Token, count_sentences, tokenize_into};
use aho_corasick::AhoCorasick;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::LazyLock;

/// Keeps the lines that read as prose and drops documents that are placeholders, code or too short.
///
/// Source: Raffel et al. 2020 (T5), section 2.2, <https://arxiv.org/abs/1910.10683>; datatrove's `C4QualityFilter`. Its option to
/// look at sentences instead of lines is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct C4QualityFilter {
    /// Delete `[12]`, `[edit]` and `[citation needed]`.
    pub remove_citations: bool,
    /// Drop lines that do not end in `.`, `?`, `!`, `"` or `'`, or that end in `...`. FineWeb turns it off.
    pub filter_no_terminal_punct: bool,
    /// Fewest sentences of the kept lines; -1 for no such rule.
    pub min_num_sentences: i64,
    /// Drop lines of fewer words; -1 for no such rule.
    pub min_words_per_line: i64,
    /// Drop lines with a longer word, in characters; -1 for no such rule.
    pub max_word_length: i64,
    /// Drop documents with `lorem ipsum`.
    pub filter_lorem_ipsum: bool,
    /// Drop lines with `javascript`.
    pub filter_javascript: bool,
    /// Drop documents with `{`.
    pub filter_curly_bracket: bool,
    /// Drop lines about cookies, privacy and terms of use.
    pub filter_policy: bool,
}

impl Default for C4QualityFilter {
    fn default() -> Self {
        Self {
            remove_citations: true,
            filter_no_terminal_punct: true,
            min_num_sentences: 5,
            min_words_per_line: 3,
            max_word_length: 1000,
            filter_lorem_ipsum: true,
            filter_javascript: true,
            filter_curly_bracket: true,
            filter_policy: true,
        }
    }
}

static CITATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[\d*]|\[edit]|\[citation needed]").expect("a valid pattern"));

/// The phrases: the first two have rules of their own, the others are about policies.
const PHRASES: [&str; 8] = [
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];

static PHRASE: LazyLock<AhoCorasick> =
    LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(PHRASES).expect("eight short phrases"));

/// Which phrases a line has: bit `i` for the `i`th.
fn phrases(line: &str) -> u8 {
    // Characters beyond ASCII may become ASCII in small letters: the Kelvin sign is a `k`.
    let lowered: Cow<str> = if line.is_ascii() { line.into() } else { line.to_lowercase().into() };
    // Two phrases never overlap.
    PHRASE.find_iter(&*lowered).fold(0, |found, at| found | 1 << at.pattern().as_usize())
}

/// What becomes of a line.
enum Fate {
    Kept,
    Dropped,
    LoremIpsum,
    CurlyBracket,
}

impl C4QualityFilter {
    /// Passes every rule through `ledger`; if the document stays, its text becomes the kept lines.
    pub fn check(
        &self,
        document: &mut Document,
        scratch: &mut Scratch,
        ledger: &mut impl Ledger,
    ) -> ControlFlow<Reason> {
        let mut kept = String::with_capacity(document.text.len());
        let (mut sentences, mut words, mut next) = (0, 0, 0);
        let (mut lorem, mut curly) = (0, 0);
        let text = &document.text;
        let counts = self.min_num_sentences >= 0;
        if counts {
            scratch.tokens(text);
        }
        for raw in split_lines(text) {
            let line = strip(raw);
            let (fate, line) = self.fate(line);
            match fate {
                Fate::Dropped => continue,
                Fate::LoremIpsum => {
                    lorem += 1;
                    ledger.rule("lorem_ipsum", f64::from(lorem), Bound::Above(0.0))?;
                    continue;
                }
                Fate::CurlyBracket => {
                    curly += 1;
                    ledger.rule("curly_bracket", f64::from(curly), Bound::Above(0.0))?;
                    continue;
                }
                Fate::Kept => {}
            }
            if counts {
                let (in_line, words_in_line) = line_counts(text, &line, scratch, &mut next);
                sentences += in_line;
                words += words_in_line;
            }
            // Lines without characters are joined too, as datatrove does.
            if !kept.is_empty() {
                kept.push('\n');
            }
            kept.push_str(&line);
        }
        if counts {
            ledger.rule("too_few_sentences", sentences as f64, Bound::Below(self.min_num_sentences as f64))?;
            scratch.forget_but_words(words);
        } else {
            scratch.forget();
        }
        let length = kept.trim_end_matches(is_space).len();
        kept.truncate(length);
        let skip = kept.len() - kept.trim_start_matches(is_space).len();
        document.text = if skip == 0 { kept } else { kept[skip..].to_owned() };
        ControlFlow::Continue(())
    }

    fn fate<'a>(&self, line: &'a str) -> (Fate, Cow<'a, str>) {
        let (words, longest) = words_in(line);
        if self.max_word_length != -1 && longest as i64 > self.max_word_length {
            return (Fate::Dropped, line.into());
        }
        let line = if self.remove_citations && memchr::memchr(b'[', line.as_bytes()).is_some() {
            CITATION.replace_all(line, "")
        } else {
            line.into()
        };
        let ended = line.ends_with(['.', '?', '!', '"', '\'']) && !line.ends_with("...");
        if (self.filter_no_terminal_punct && !ended) || (words as i64) < self.min_words_per_line {
            return (Fate::Dropped, line);
        }
        let found = phrases(&line);
        let fate = if self.filter_lorem_ipsum && found & 1 != 0 {
            Fate::LoremIpsum
        } else if self.filter_javascript && found & 2 != 0 {
            Fate::Dropped
        } else if self.filter_curly_bracket && memchr::memchr(b'{', line.as_bytes()).is_some() {
            Fate::CurlyBracket
        } else if self.filter_policy && found & !3 != 0 {
            Fate::Dropped
        } else {
            Fate::Kept
        };
        (fate, line)
    }
}

/// Sentences and words of a kept line. Where the line is a part of the text, the text's tokens are used, from `next` on.
fn line_counts(text: &str, line: &str, scratch: &mut Scratch, next: &mut usize) -> (usize, usize) {
    let start = (line.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    let is_part = start <= text.len() && start + line.len() <= text.len();
    if let (true, Some(tokens)) = (is_part, scratch.tokens_if_known()) {
        let (start, end) = (start as u32, (start + line.len()) as u32);
        *next += tokens[*next..].iter().take_while(|token| token.start < start).count();
        let count = tokens[*next..].iter().take_while(|token| token.end <= end).count();
        let tokens = &tokens[*next..*next + count];
        return (count_sentences(text, tokens), words_of(tokens));
    }
    let mut tokens = std::mem::take(&mut scratch.line_tokens);
    tokens.clear();
    tokenize_into(line, 0, &mut tokens);
    let counts = (count_sentences(line, &tokens), words_of(&tokens));
    scratch.line_tokens = tokens;
    counts
}

fn words_of(tokens: &[Token]) -> usize {
    tokens.iter().filter(|token| !token.is_space).count()
}

/// Number of words between white space, and the characters of the longest.
fn words_in(line: &str) -> (usize, usize) {
    let (mut words, mut longest, mut current) = (0, 0, 0);
    if line.is_ascii() {
        for &byte in line.as_bytes() {
            if matches!(byte, b' ' | b'\t'..=b'\r' | 0x1c..=0x1f) {
                current = 0;
            } else {
                words += usize::from(current == 0);
                current += 1;
                longest = longest.max(current);
            }
        }
        return (words, longest);
    }
    for word in crate::lines::split_space(line) {
        words += 1;
        longest = longest.max(char_count(word));
    }
    (words, longest)
}

/// At least three lines, the third longest of at least 200 characters.
///
/// Source: mC4's paragraph filter; datatrove's `C4ParagraphFilter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct C4ParagraphFilter {}

impl C4ParagraphFilter {
    /// Passes its one rule through `ledger`: the length of the third longest line.
    pub fn check(&self, text: &str, ledger: &mut impl Ledger) -> ControlFlow<Reason> {
        let mut longest = [0; 3];
        let mut lines = 0;
        for line in text.split('\n') {
            lines += 1;
            let length = char_count(line);
            if length > longest[2] {
                longest[2] = length;
                longest.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        let third = if lines < 3 { 0 } else { longest[2] };
        ledger.rule("< 3 paragraphs", third as f64, Bound::Below(200.0))
    }
}
