//! Lines, paragraphs and white space as Python's `str` has them, which datatrove's filters are written in.

/// `str.isspace` of one character: Unicode's white space and the four separators U+001C to U+001F.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `str.strip()`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.split()`: runs of characters that are not white space.
pub fn split_space(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `str.splitlines()`: breaks at `\n`, `\r`, `\r\n`, `\v`, `\f`, U+001C to U+001E, U+0085, U+2028 and U+2029; a break at
/// the end opens no further line.
pub fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((at, width)) = next_break(rest) else { return Some(std::mem::take(&mut rest)) };
        let line = &rest[..at];
        rest = &rest[at + width..];
        Some(line)
    })
}

/// Where the next line break is, and its length, in bytes.
fn next_break(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        // Every other byte of text is none of these; `\n` is by far the most frequent.
        match byte {
            b'\n' | 0x0b | 0x0c | 0x1c..=0x1e => return Some((at, 1)),
            b'\r' => return Some((at, 1 + usize::from(bytes.get(at + 1) == Some(&b'\n')))),
            0xc2 if bytes.get(at + 1) == Some(&0x85) => return Some((at, 2)),
            0xe2 if bytes.get(at + 1) == Some(&0x80) && matches!(bytes.get(at + 2), Some(0xa8 | 0xa9)) => {
                return Some((at, 3));
            }
            _ => {}
        }
    }
    None
}

/// `re.split("\n{least,}", text)` for `least` 1 or 2: what stands between runs of at least so many line feeds.
pub fn split_newlines(text: &str, least: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut from = 0;
        while let Some(found) = memchr::memchr(b'\n', &text.as_bytes()[from..]) {
            let start = from + found;
            let run = text.as_bytes()[start..].iter().take_while(|&&byte| byte == b'\n').count();
            if run >= least {
                rest = Some(&text[start + run..]);
                return Some(&text[..start]);
            }
            from = start + run;
        }
        Some(text)
    })
}

/// `len(str)`: characters, not bytes.
pub fn char_count(text: &str) -> usize {
    // A character starts at every byte that does not continue one.
    text.as_bytes().iter().filter(|&&byte| (byte as i8) >= -64).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_pythons() {
        let check = |text: &str, lines: &[&str]| assert_eq!(split_lines(text).collect::<Vec<_>>(), lines, "{text:?}");
        check("", &[]);
        check("a\n", &["a"]);
        check("a\r\nb\rc\n\nd", &["a", "b", "c", "", "d"]);
        check("a\u{b}b\u{c}c\u{1c}d\u{85}e\u{2028}f\u{2029}g\u{1f}h", &["a", "b", "c", "d", "e", "f", "g\u{1f}h"]);
    }

    #[test]
    fn runs_of_line_feeds_split_as_the_pattern_does() {
        let check = |text: &str, least, parts: &[&str]| {
            assert_eq!(split_newlines(text, least).collect::<Vec<_>>(), parts, "{text:?}");
        };
        check("", 2, &[""]);
        check("a\nb\n\nc\n\n\nd", 2, &["a\nb", "c", "d"]);
        check("a\n\nb\n", 1, &["a", "b", ""]);
        check("\na", 1, &["", "a"]);
    }

    #[test]
    fn the_separators_of_ascii_are_space() {
        assert_eq!(strip("\u{1c}\u{a0} a b \u{1f}\u{3000}"), "a b");
        assert_eq!(split_space(" a\u{1d}b\tc ").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
        assert_eq!(char_count("aé…𐩖"), 4);
    }
}
