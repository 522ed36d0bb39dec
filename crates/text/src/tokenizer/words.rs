//! Pre-tokenizers: where text is cut before byte pairs are merged.

use regex::Regex;
use std::sync::LazyLock;

/// How text is cut into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Not at all: the text is one word.
    Whole,
    /// GPT-2's pattern.
    Gpt2,
    /// Every digit stands alone, the rest is cut by GPT-2's pattern.
    Smollm,
    /// Llama 3's pattern: up to three digits together, punctuation takes the line ends after it.
    Llama3,
    /// Llama 3's pattern with single digits.
    Qwen2,
    /// What llama.cpp does where a file names no pattern: punctuation apart, digits by three, the rest by GPT-2's.
    Default,
}

/// GPT-2's pattern without its look-ahead `\s+(?!\S)`, which [`words`] does by hand: this way the regular expression
/// is a true one and runs in linear time. The others are changed in the same way.
///
/// Source: <https://github.com/openai/gpt-2/blob/master/src/encoder.py>, `self.pat`.
static GPT2: LazyLock<Regex> =
    LazyLock::new(|| compile(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"));

/// Source: `pre_tokenizer` of <https://huggingface.co/HuggingFaceTB/SmolLM2-135M>: `Digits`, then `ByteLevel`.
static SMOLLM: LazyLock<Regex> =
    LazyLock::new(|| compile(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"));

/// Source: `pat_str` in <https://github.com/meta-llama/llama3/blob/main/llama/tokenizer.py>.
static LLAMA3: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    )
});

/// Source: `PRETOKENIZE_REGEX` in `tokenization_qwen2.py` of <https://github.com/huggingface/transformers>.
static QWEN2: LazyLock<Regex> = LazyLock::new(|| {
    compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
});

/// The steps of [`Pattern::Default`] beside GPT-2's; each takes out what it matches.
///
/// Source: `LLAMA_VOCAB_PRE_TYPE_DEFAULT` in <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp>.
static PUNCTUATION: LazyLock<Regex> = LazyLock::new(|| compile(r"[\p{P}$+<=>^~|]+"));
static NUMBER: LazyLock<Regex> = LazyLock::new(|| compile(r"\p{N}+"));
static THREE_DIGITS: LazyLock<Regex> = LazyLock::new(|| compile("[0-9][0-9][0-9]"));

fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is well-formed")
}

impl Pattern {
    /// Calls `each` with the words of `text` in order; together they are `text`.
    pub(super) fn cut<'a>(self, text: &'a str, each: &mut dyn FnMut(&'a str)) {
        let (pattern, gives_back): (&Regex, fn(char, char) -> bool) = match self {
            Self::Whole => return each(text),
            Self::Gpt2 => (&GPT2, |_, _| true),
            // White space before a digit is cut from it before the pattern looks at it.
            Self::Smollm => (&SMOLLM, |_, next| !next.is_numeric()),
            // A run that ends in a line end was matched by `\s*[\r\n]+`, which leaves nothing.
            Self::Llama3 => (&LLAMA3, |last, _| !matches!(last, '\r' | '\n')),
            Self::Qwen2 => (&QWEN2, |last, _| !matches!(last, '\r' | '\n')),
            Self::Default => {
                return isolate(&PUNCTUATION, text, &mut |part| {
                    words(part).for_each(|word| {
                        isolate(&NUMBER, word, &mut |number| isolate(&THREE_DIGITS, number, each));
                    });
                });
            }
        };
        matches(text, pattern, gives_back).for_each(each);
    }
}

/// The words of `text` by GPT-2's pattern, in order; together they are `text`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    matches(text, &GPT2, |_, _| true)
}

/// The matches of `pattern`, which leave no gap, with the look-ahead of `\s+(?!\S)`: a run of white space before
/// something else leaves its last character to that, where `gives_back(last, next)` says so.
fn matches<'a>(
    text: &'a str,
    pattern: &'static Regex,
    gives_back: impl Fn(char, char) -> bool,
) -> impl Iterator<Item = &'a str> {
    let mut start = 0;
    std::iter::from_fn(move || {
        // Every character is matched by one of the alternatives, so a match begins where the last one ended.
        let end = pattern.find_at(text, start)?.end();
        let mut word = &text[start..end];
        // Only a run of white space ends in white space, but for line ends after punctuation.
        if let Some(next) = text[end..].chars().next()
            && let Some(last) = word.chars().next_back()
            && last.is_whitespace()
            && word.len() > last.len_utf8()
            && gives_back(last, next)
        {
            word = &word[..word.len() - last.len_utf8()];
        }
        start += word.len();
        Some(word)
    })
}

/// Calls `each` with the matches of `pattern` and with what is between them, in order.
fn isolate<'a>(pattern: &Regex, text: &'a str, each: &mut dyn FnMut(&'a str)) {
    let mut start = 0;
    for found in pattern.find_iter(text) {
        if found.start() > start {
            each(&text[start..found.start()]);
        }
        each(found.as_str());
        start = found.end();
    }
    if start < text.len() {
        each(&text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Pattern; 6] =
        [Pattern::Whole, Pattern::Gpt2, Pattern::Smollm, Pattern::Llama3, Pattern::Qwen2, Pattern::Default];

    fn cut(pattern: Pattern, text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        pattern.cut(text, &mut |word| found.push(word));
        found
    }

    #[track_caller]
    fn check(pattern: Pattern, text: &str, expected: &[&str]) {
        assert_eq!(cut(pattern, text), expected);
    }

    #[test]
    fn words_are_cut_as_gpt2_cuts_them() {
        let check = |text, expected: &[&str]| check(Pattern::Gpt2, text, expected);
        check("It's we'll  go\n\n  up ", &["It", "'s", " we", "'ll", " ", " go", "\n\n ", " up", " "]);
        check("a\t\tb\u{a0}c", &["a", "\t", "\t", "b", "\u{a0}", "c"]);
        check("x=12,3 ?!", &["x", "=", "12", ",", "3", " ?!"]);
        check("", &[]);
        check("   ", &["   "]);
    }

    #[test]
    fn smollm_cuts_digits_singly_and_with_them_the_space_before() {
        check(Pattern::Smollm, "in 2024: x1", &["in", " ", "2", "0", "2", "4", ":", " x", "1"]);
        check(Pattern::Smollm, "a   7   b", &["a", "   ", "7", "  ", " b"]);
        check(Pattern::Smollm, "½²٣", &["½", "²", "٣"]);
    }

    #[test]
    fn llama3_and_qwen2_take_line_ends_to_the_punctuation_before() {
        check(
            Pattern::Llama3,
            "I'LL pay $12345.\n\n  Now",
            &["I", "'LL", " pay", " $", "123", "45", ".\n\n", " ", " Now"],
        );
        check(Pattern::Llama3, " \n \n x\t\ty", &[" \n \n", " x", "\t", "\ty"]);
        check(Pattern::Qwen2, "a 123 (b)", &["a", " ", "1", "2", "3", " (", "b", ")"]);
        check(Pattern::Qwen2, "  \r\n", &["  \r\n"]);
    }

    #[test]
    fn the_default_cuts_punctuation_and_threes_of_digits_apart() {
        check(Pattern::Default, "it's  12345!! ok", &["it", "'", "s", " ", " ", "123", "45", "!!", " ok"]);
        check(Pattern::Default, "a == b", &["a", " ", "==", " b"]);
    }

    proptest! {
        #[test]
        fn the_words_together_are_the_text(text: String) {
            for pattern in ALL {
                prop_assert_eq!(cut(pattern, &text).concat(), text.clone());
            }
        }

        #[test]
        fn no_word_is_empty(text in "[ a1\n\r'!\t²]{1,30}") {
            for pattern in ALL {
                prop_assert!(cut(pattern, &text).iter().all(|word| !word.is_empty()));
            }
        }
    }
}
