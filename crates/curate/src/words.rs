//! Words and sentences: what spaCy's blank English pipeline makes of a text, which is what datatrove asks for.
//!
//! A text is cut at white space; from each piece, punctuation is peeled off at both ends until a rule of its own
//! (`Mr.`, `don't`) or nothing peelable is left, and what remains is cut at infixes (`well-known`, `and/or`, `wait...what`).
//! Differences from spaCy 3.8: emoticons beyond the frequent ones, web addresses by a simpler test, symbols by ranges.
//! Source: `spacy/tokenizer.pyx` and `spacy/lang/punctuation.py` (MIT), rewritten by hand without regular expressions.

mod address;
mod affixes;
mod special;

use crate::lines::is_space;
use crate::punctuation::ends_sentence;

/// A word, or a run of white space that is a token of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// First byte in the text.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Whether it is white space: a token for spaCy, not a word for datatrove.
    pub is_space: bool,
}

impl Token {
    /// The token's text.
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start as usize..self.end as usize]
    }
}

/// The tokens of `text`, in order, appended to `tokens`. Positions are counted from `offset`.
///
/// Panics: if the text and the offset exceed 4 GiB.
pub fn tokenize_into(text: &str, offset: usize, tokens: &mut Vec<Token>) {
    assert!(u32::try_from(text.len() + offset).is_ok(), "a document of {} bytes is over 4 GiB", text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = run_end(text, at, false);
        if end > at {
            piece(text, at, end, offset, tokens);
        }
        let space_end = run_end(text, end, true);
        // One blank after a word belongs to the word; what follows it, or white space at the start, is a token.
        let from = if end > at && bytes.get(end) == Some(&b' ') { end + 1 } else { end };
        if space_end > from {
            tokens.push(Token { start: (from + offset) as u32, end: (space_end + offset) as u32, is_space: true });
        }
        at = space_end;
    }
}

/// The words of `text`, as datatrove's `split_into_words` gives them.
pub fn split_words(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    tokenize_into(text, 0, &mut tokens);
    tokens.iter().filter(|token| !token.is_space).map(|token| token.of(text)).collect()
}

/// How many sentences a text of these tokens has: a new one begins at the first token after a sentence mark that is neither
/// such a mark nor punctuation. A text without tokens is one.
pub fn count_sentences(text: &str, tokens: &[Token]) -> usize {
    let mut sentences = 1;
    for_each_start(text, tokens, |_| sentences += 1);
    sentences
}

/// The sentences of `text`, in bytes, without the blank behind each; of white space alone none.
pub fn sentence_spans(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut tokens = Vec::new();
    tokenize_into(text, 0, &mut tokens);
    let mut spans = Vec::new();
    let mut from = 0;
    let mut close = |from: usize, to: usize| {
        if tokens[from..to].iter().any(|token| !token.is_space) {
            spans.push(tokens[from].start as usize..tokens[to - 1].end as usize);
        }
    };
    for_each_start(text, &tokens, |index| close(std::mem::replace(&mut from, index), index));
    close(from, tokens.len());
    spans
}

/// Calls `each` with the index of every token at which a sentence begins, but the first.
fn for_each_start(text: &str, tokens: &[Token], mut each: impl FnMut(usize)) {
    let mut ended = false;
    for (index, token) in tokens.iter().enumerate() {
        let word = token.of(text);
        let first = word.as_bytes()[0];
        // Nearly all words begin with a letter or a digit: neither a mark nor punctuation.
        let (mark, punctuation) =
            if first.is_ascii_alphanumeric() { (false, false) } else { (is_mark(word), is_all_punctuation(word)) };
        if ended && !punctuation && !mark {
            each(index);
            ended = false;
        } else if mark {
            ended = true;
        }
    }
}

/// Whether the token is one sentence mark.
fn is_mark(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(ends_sentence) && chars.next().is_none()
}

/// Whether every character has a Unicode category of punctuation: spaCy's `is_punct`.
fn is_all_punctuation(word: &str) -> bool {
    word.chars().all(|c| {
        if c.is_ascii() {
            c.is_ascii_punctuation() && !matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~')
        } else {
            matches!(c, '\u{a1}' | '\u{a7}' | '\u{ab}' | '\u{b6}' | '\u{b7}' | '\u{bb}' | '\u{bf}' | '\u{2010}'..='\u{2027}'
                | '\u{2030}'..='\u{2043}' | '\u{2045}'..='\u{2051}' | '\u{2053}'..='\u{205e}' | '\u{3001}'..='\u{3003}'
                | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{ff01}'..='\u{ff03}' | '\u{ff05}'..='\u{ff0a}'
                | '\u{ff0c}'..='\u{ff0f}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff1f}' | '\u{ff20}' | '\u{60c}' | '\u{61b}')
                || crate::punctuation::is_terminal(c)
        }
    })
}

/// The end of the run, from `at` on, of characters that are white space or that are not.
fn run_end(text: &str, at: usize, space: bool) -> usize {
    let bytes = text.as_bytes();
    let mut end = at;
    while end < bytes.len() {
        let byte = bytes[end];
        if byte < 128 {
            let is = matches!(byte, b' ' | b'\t'..=b'\r' | 0x1c..=0x1f);
            if is != space {
                break;
            }
            end += 1;
        } else {
            let c = text[end..].chars().next().expect("a character begins here");
            if is_space(c) != space {
                break;
            }
            end += c.len_utf8();
        }
    }
    end
}

/// Appends the tokens of `text[start..end]`, which has no white space.
fn piece(text: &str, start: usize, end: usize, offset: usize, tokens: &mut Vec<Token>) {
    let chunk = &text[start..end];
    let base = start + offset;
    let mut push = |from: usize, to: usize| {
        tokens.push(Token { start: (base + from) as u32, end: (base + to) as u32, is_space: false });
    };
    let letters = chunk.bytes().take_while(u8::is_ascii_alphabetic).count();
    // Most pieces are a word of letters, alone or with a comma, and no rule of its own.
    if letters == chunk.len() && !special::may_be(chunk) {
        return push(0, letters);
    }
    if letters > 0
        && letters + 1 == chunk.len()
        && chunk.as_bytes()[letters] == b','
        && !special::may_be(&chunk[..letters])
    {
        push(0, letters);
        return push(letters, letters + 1);
    }
    peel(chunk, &mut push);
}

/// spaCy's `_split_affixes` and `_attach_tokens`.
fn peel(chunk: &str, push: &mut impl FnMut(usize, usize)) {
    if let Some(parts) = special::parts(chunk) {
        return push_parts(0, parts, push);
    }
    let (mut from, mut to) = (0, chunk.len());
    let mut suffixes: Vec<(usize, usize)> = Vec::new();
    let mut found = None;
    while from < to {
        found = special::parts(&chunk[from..to]);
        if found.is_some() {
            break;
        }
        let prefix = affixes::prefix(&chunk[from..to]);
        if prefix > 0 && from + prefix < to && special::parts(&chunk[from + prefix..to]).is_some() {
            push(from, from + prefix);
            from += prefix;
            continue;
        }
        // The suffix is looked for in what the prefix leaves.
        let suffix = affixes::suffix(&chunk[from + prefix..to]);
        if suffix > 0 && from < to - suffix && special::parts(&chunk[from..to - suffix]).is_some() {
            suffixes.push((to - suffix, to));
            to -= suffix;
            continue;
        }
        if prefix == 0 && suffix == 0 {
            break;
        }
        if prefix > 0 {
            push(from, from + prefix);
            from += prefix;
        }
        if suffix > 0 {
            suffixes.push((to - suffix, to));
            to -= suffix;
        }
    }
    if from < to {
        let middle = &chunk[from..to];
        if let Some(parts) = found {
            push_parts(from, parts, push);
        } else if address::is_address(middle) {
            push(from, to);
        } else {
            affixes::split_infixes(middle, &mut |a, b| push(from + a, from + b));
        }
    }
    for &(a, b) in suffixes.iter().rev() {
        push(a, b);
    }
}

fn push_parts(from: usize, lengths: &[u8], push: &mut impl FnMut(usize, usize)) {
    let mut at = from;
    for &length in lengths {
        push(at, at + length as usize);
        at += length as usize;
    }
}

#[cfg(test)]
mod tests;
