//! Text that was decoded wrongly, repaired.

use crate::html::reference;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Rounds over a line at most: entities and encodings can be nested.
const ROUNDS: usize = 8;

/// When character references are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UnescapeHtml {
    /// Always or never.
    Fixed(bool),
    /// Until a line has a `<`, which is where code begins.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// The word.
    Auto,
}

/// Repairs UTF-8 that was read as Windows-1252 or Latin-1, resolves character references, removes control characters
/// and the escapes of terminals.
///
/// Does of ftfy what datatrove's `FTFYFormatter` has on, for these two encodings: a line that looks wrong is encoded
/// again and read as UTF-8; where that fails, the sequences in it that look wrong by themselves are. Does not: other
/// encodings (Windows-1250 to 1257, MacRoman, code page 437), lost bytes (`restore_byte_a0`,
/// `replace_lossy_sequences`), UTF-8 with surrogates, names of references beyond HTML 4's.
/// Source: ftfy 6.3 (Apache-2.0), of whose rules on unlikely neighbours those of Windows-1252 are here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FtfyFormatter {
    /// Character references such as `&gt;`, with their semicolon.
    pub unescape_html: UnescapeHtml,
    /// Colours and movements of the cursor.
    pub remove_terminal_escapes: bool,
    /// UTF-8 read as something else.
    pub fix_encoding: bool,
    /// Also where only parts of a line are wrong.
    pub decode_inconsistent_utf8: bool,
    /// Controls from U+0080 on become what Windows-1252 has there.
    pub fix_c1_controls: bool,
    /// Control characters, byte order marks and the like.
    pub remove_control_chars: bool,
}

impl Default for FtfyFormatter {
    fn default() -> Self {
        Self {
            unescape_html: UnescapeHtml::Auto(Auto::Auto),
            remove_terminal_escapes: true,
            fix_encoding: true,
            decode_inconsistent_utf8: true,
            fix_c1_controls: true,
            remove_control_chars: true,
        }
    }
}

static REFERENCE: LazyLock<Regex> = LazyLock::new(|| Regex::new("&(#?[0-9A-Za-z]{1,24});").expect("a valid pattern"));
static ESCAPE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\x1b\[[0-9;]*[a-zA-Z]").expect("a valid pattern"));

/// Neighbours that wrongly decoded text has and other text has not: ftfy's `BADNESS_RE`, of which the characters of
/// Windows-1252 are left. Classes: `b` hardly ever meant, `l` and `u` small and capital letters with marks, `s` and `e`
/// punctuation that opens and closes, `c` currencies, `n` numeric signs, `w` signs of law.
static ODD: LazyLock<Regex> = LazyLock::new(|| {
    let classes = [
        ("{b}", "¦¤¨¬¯¸ƒˆ˜†‡‰ªº"),
        ("{l}", "ßà-ñüœšž"),
        ("{u}", "À-ÑØÜÝŒŠŸŽ"),
        ("{s}", "¡«¿©‘‚“„•‹"),
        ("{e}", "®»”›™"),
        ("{c}", "¢£¥€"),
        ("{n}", "²³¹±¼½¾×µ÷"),
        ("{w}", "¶§"),
    ];
    let rules = [
        "[\u{80}-\u{9f}]",
        "[{b}{l}{u}{s}{e}{c}{n}{w}][{b}]",
        "[a-zA-Z]Þ[{b}]",
        "[{b}][{l}{u}{s}{e}{c}{n}{w}]",
        "[{l}{e}{c}{n}][{u}]",
        "[{e}{c}{n}][{l}]",
        "[{l}{e}][{c}]",
        r"\s[{u}][{c}]",
        "[{u}][{n}{w}°]",
        "[{l}{u}{c}{e}][{s}][{n}]",
        "[{l}{u}{c}{n}{w}][{e}][{s}]",
        "[{c}{n}][{s}]",
        "[a-z][{u}][{s}{c}]",
        r"[{l}{u}][{s}{e}]\w",
        "[Œœ][^A-Za-z]",
        "[ÂÃÎÐ][€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»{s}–—´]",
        "×[²³]",
        "([ØÙ][\u{a0}\u{ad}·´–—…’{c}{b}{n}{s}ŸŠ®°µ»]){2}",
        "à[²µ¹¼½¾]",
        "[a-z.,?!{e}]Â[{s}{e}]",
    ];
    let pattern = classes.iter().fold(rules.join("|"), |pattern, (name, chars)| pattern.replace(name, chars));
    Regex::new(&pattern).expect("a valid pattern")
});

impl FtfyFormatter {
    /// What becomes of `text`, line by line.
    pub fn format(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut unescape = self.unescape_html != UnescapeHtml::Fixed(false);
        let is_auto = matches!(self.unescape_html, UnescapeHtml::Auto(_));
        for line in text.split_inclusive('\n') {
            unescape &= !(is_auto && line.contains('<'));
            out.push_str(&self.repair(line, unescape));
        }
        out
    }

    fn repair<'a>(&self, line: &'a str, unescape: bool) -> Cow<'a, str> {
        // Most lines are ASCII without anything to resolve or remove.
        if line.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r') && byte != b'&') {
            return Cow::Borrowed(line);
        }
        let mut line = Cow::Borrowed(line);
        for _ in 0..ROUNDS {
            let before = line.clone();
            if unescape && line.contains('&') {
                line = resolved(&line).into();
            }
            if self.remove_terminal_escapes && line.contains('\u{1b}') {
                line = ESCAPE.replace_all(&line, "").into_owned().into();
            }
            if self.fix_encoding && !line.is_ascii() && ODD.is_match(&line) {
                line = self.decoded(&line).into();
            }
            if self.remove_control_chars {
                line = line.chars().filter(|&c| !is_control(c)).collect::<String>().into();
            }
            if line == before {
                break;
            }
        }
        line
    }

    /// A line that looks wrong, as one round of decoding leaves it.
    fn decoded(&self, line: &str) -> String {
        let bytes: Option<Vec<u8>> = line.chars().map(byte_of).collect();
        if let Some(whole) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
            return whole;
        }
        let parts = if self.decode_inconsistent_utf8 { decoded_parts(line) } else { line.to_owned() };
        if parts != line || !self.fix_c1_controls {
            return parts;
        }
        parts.chars().map(|c| if matches!(c, '\u{80}'..='\u{9f}') { windows_1252(c as u8) } else { c }).collect()
    }
}

/// The line with the sequences decoded that are UTF-8, and look wrong, by themselves.
fn decoded_parts(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        // Not in the middle of something that cannot be decoded as a whole.
        let is_inside = line[..line.len() - rest.len()].chars().next_back().is_some_and(|c| {
            matches!(byte_of(c), Some(0x80..0xc0))
                && !matches!(c, '\u{a0}' | '\u{ad}' | '·' | '´' | '–' | '—' | '…' | '’')
        });
        let run = if is_inside { 0 } else { run_length(rest) };
        let (run, after) = rest.split_at(if run == 0 { first.len_utf8() } else { run });
        let bytes: Option<Vec<u8>> = run.chars().map(byte_of).collect();
        match bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|_| ODD.is_match(run)) {
            Some(decoded) => out.push_str(&decoded),
            None => out.push_str(run),
        }
        rest = after;
    }
    out
}

/// Bytes of `text` up to where its characters, as bytes, stop being UTF-8 of more than one byte a character.
fn run_length(text: &str) -> usize {
    let (mut length, mut at) = (0, 0);
    let mut sequence: Vec<u8> = Vec::with_capacity(4);
    for c in text.chars() {
        let Some(byte) = byte_of(c).filter(|&byte| byte >= 0x80) else { break };
        at += c.len_utf8();
        sequence.push(byte);
        match std::str::from_utf8(&sequence) {
            Ok(_) => {
                length = at;
                sequence.clear();
            }
            Err(error) if error.error_len().is_some() => break,
            Err(_) => {}
        }
    }
    length
}

fn windows_1252(byte: u8) -> char {
    encoding_rs::WINDOWS_1252.decode_without_bom_handling(&[byte]).0.chars().next().unwrap_or('\u{fffd}')
}

/// The byte that Windows-1252 or Latin-1 reads as `c`.
fn byte_of(c: char) -> Option<u8> {
    static HIGH: LazyLock<[char; 32]> = LazyLock::new(|| std::array::from_fn(|index| windows_1252(0x80 + index as u8)));
    u8::try_from(c as u32).ok().or_else(|| HIGH.iter().position(|&high| high == c).map(|index| 0x80 + index as u8))
}

fn resolved(line: &str) -> String {
    let resolve = |found: &regex::Captures| reference(&found[1]).map_or_else(|| found[0].to_owned(), String::from);
    REFERENCE.replace_all(line, resolve).into_owned()
}

/// What ftfy takes out: controls without a meaning in text, deprecated format characters, byte order marks.
fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffc}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(FtfyFormatter::default().format(text), expected, "{text:?}");
    }

    #[test]
    fn what_was_decoded_wrongly_is_repaired_as_ftfy_does() {
        // Made with ftfy 6.3.1 and datatrove's settings.
        check("lâ\u{80}\u{99}intelligence", "l’intelligence");
        check("CafÃ© au lait, sâ€™il vous plaÃ®t", "Café au lait, s’il vous plaît");
        check("Ã¢â‚¬Å“twiceâ€\u{9d}", "“twice”");
        check("ÃƒÂ©", "é");
        check("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет");
        check("ðŸ˜€ smile", "😀 smile");
        check("Â© 2019 and Â£5", "© 2019 and £5");
        check("ï»¿start", "start");
        check("a\u{93}quoted\u{94} word", "a“quoted” word");
        // What could be right by itself is not in a line that is wrong and decodes as a whole.
        check("cafÃ© SÄ“ Ä“ra", "café Sē ēra");
        // Parts of a line that is not wrong as a whole.
        check("IRMÃ“ und NÃO", "IRMÓ und NÃO");
        check("l’humanitÃ© — “déjà vu”", "l’humanité — “déjà vu”");
        check("Ã©tÃ© 日本", "été 日本");
        check("Ã©tÃ© 日本 Ä“", "été 日本 Ä“");
        check("Ã©tÃ© 日本 „Ä“", "été 日本 „Ä“");
        check("â\u{80}\u{9c}quotedâ\u{80}\u{9d} 日本", "“quoted” 日本");
    }

    #[test]
    fn text_that_only_could_be_decoded_stays() {
        // ß“, Ä“ and é…” are UTF-8, too, read as Windows-1252.
        for text in [
            "Hello, this is a normal sentence.",
            "l’intelligence",
            "Er hat Spaß“",
            "„Spaß“ und „Ä“, é…” und É’",
            "El Niño está aquí ¿qué?",
            "5 €, 10 £ ½ × ²",
            "naïve façade œuvre Œ",
            "日本語のテキスト",
            "",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn controls_and_escapes_go() {
        check("hello\0world", "helloworld");
        check("x\u{1b}[36;44mcolour\u{1b}[0m y\u{feff}", "xcolour y");
        check("a\tb\r\nc\u{c}\u{7f}", "a\tb\r\nc\u{c}");
    }

    #[test]
    fn references_are_resolved_until_code_begins() {
        check("price &gt; 10", "price > 10");
        check("&amp;lt; &eacute; &nothing; &#x27; &#150;", "< é &nothing; ' –");
        check("first &gt; line\n<b> second &gt;\nthird &gt;", "first > line\n<b> second &gt;\nthird &gt;");
        let format = |word: &str| {
            let formatter: FtfyFormatter = toml::from_str(&format!("unescape_html = {word}")).unwrap();
            formatter.format("a &lt; b <b>&gt;")
        };
        assert_eq!(format("true"), "a < b <b>>");
        assert_eq!(format("false"), "a &lt; b <b>&gt;");
        assert_eq!(format("\"auto\""), "a &lt; b <b>&gt;");
    }

    #[test]
    fn what_is_switched_off_is_left() {
        let off: FtfyFormatter = toml::from_str(
            "unescape_html = false\nremove_terminal_escapes = false\nfix_encoding = false\n\
            remove_control_chars = false\n",
        )
        .unwrap();
        let text = "\u{1b}[0m CafÃ© &gt; \0 \u{93}";
        assert_eq!(off.format(text), text);
        let whole_lines = FtfyFormatter { decode_inconsistent_utf8: false, ..FtfyFormatter::default() };
        assert_eq!(whole_lines.format("Ã©tÃ© 日本"), "Ã©tÃ© 日本");
        let controls = FtfyFormatter { fix_c1_controls: false, ..FtfyFormatter::default() };
        assert_eq!(controls.format("a\u{93}b"), "a\u{93}b");
    }

    proptest! {
        #[test]
        fn words_read_in_the_wrong_encoding_come_back(
            text in "[a-z ]{0,5}[àâçéèêîôùûñáíóú]{1,2}[a-z]{1,9}(’[a-z]{1,3})?"
        ) {
            let wrong: String = text.bytes().map(windows_1252).collect();
            prop_assert_eq!(FtfyFormatter::default().format(&wrong), text);
        }

        #[test]
        fn no_text_is_too_strange(text in "([\u{0}-\u{ff}€‚“”’™Œœ]|&#?[a-z0-9]{0,3};?|\u{1b}\\[|日|\n){0,40}") {
            FtfyFormatter::default().format(&text);
        }
    }
}
