//! The sets of characters that the filters ask about, as datatrove 0.10 has them.
//!
//! Source: `datatrove/utils/text.py` (Apache-2.0) and the sentence marks of spaCy 3.8's sentencizer.

/// Marks that end a line or a sentence, in any script: `TERMINAL_PUNCTUATION`, without `.`, `!` and `?`.
const TERMINAL: &str = "։\u{61d}؞؟۔܀܁܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟\u{1b7d}\u{1b7e}᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼\u{2e53}\u{2e54}。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡\
\u{10a56}\u{10a57}\u{10f55}\u{10f56}\u{10f57}\u{10f58}\u{10f59}\u{10f86}\u{10f87}\u{10f88}\u{10f89}\u{11047}\u{11048}\u{110be}\u{110bf}\
\u{110c0}\u{110c1}\u{11141}\u{11142}\u{11143}\u{111c5}\u{111c6}\u{111cd}\u{111de}\u{111df}\u{11238}\u{11239}\u{1123b}\u{1123c}\u{112a9}\
\u{1144b}\u{1144c}\u{115c2}\u{115c3}\u{115c9}\u{115ca}\u{115cb}\u{115cc}\u{115cd}\u{115ce}\u{115cf}\u{115d0}\u{115d1}\u{115d2}\u{115d3}\
\u{115d4}\u{115d5}\u{115d6}\u{115d7}\u{11641}\u{11642}\u{1173c}\u{1173d}\u{1173e}\u{11944}\u{11946}\u{11a42}\u{11a43}\u{11a9b}\u{11a9c}\
\u{11c41}\u{11c42}\u{11ef7}\u{11ef8}\u{11f43}\u{11f44}\u{16a6e}\u{16a6f}\u{16af5}\u{16b37}\u{16b38}\u{16b44}\u{16e98}\u{1bc9f}\u{1da88}";

/// Those of the terminal marks that spaCy's sentencizer does not know.
const NO_SENTENCE: &str = "\u{61d}؞࠷࠹࠽࠾។៕៖៙៚\u{1b7d}\u{1b7e}\u{2e53}\u{2e54}\u{10f55}\u{10f56}\u{10f57}\u{10f58}\u{10f59}\u{10f86}\u{10f87}\
\u{10f88}\u{10f89}\u{11944}\u{11946}\u{11ef7}\u{11ef8}\u{11f43}\u{11f44}\u{16e98}";

/// The visible punctuation marks beyond ASCII: `PUNCTUATION` without ASCII and the control characters.
const WIDE: &str = "—”％１〈、━【「」，】；“《„’∶´．（–？！：～«〉》）。…►»";

/// Sorted code points beyond ASCII, for binary search.
struct Wide {
    marks: Vec<char>,
    terminal: Vec<char>,
    no_sentence: Vec<char>,
}

static SETS: std::sync::LazyLock<Wide> = std::sync::LazyLock::new(|| {
    let sorted = |text: &str| {
        let mut all: Vec<char> = text.chars().collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    Wide { marks: sorted(WIDE), terminal: sorted(TERMINAL), no_sentence: sorted(NO_SENTENCE) }
});

/// Whether the normalisation of MinHash turns `c` into a space: datatrove's `PUNCTUATION`.
pub fn is_punctuation(c: char) -> bool {
    match c as u32 {
        // `range(0, 9)`, `range(11, 13)` and `range(13, 32)`: tab (9) and line feed (10) are not punctuation.
        code @ 0..32 => code != 9 && code != 10,
        32..128 => c.is_ascii_punctuation() || c == '\u{7f}',
        128..160 => true,
        _ => SETS.marks.binary_search(&c).is_ok(),
    }
}

/// Whether `c` ends a line for FineWeb's filter: datatrove's `TERMINAL_PUNCTUATION`.
pub fn is_terminal(c: char) -> bool {
    matches!(c, '.' | '!' | '?') || (!c.is_ascii() && SETS.terminal.binary_search(&c).is_ok())
}

/// Whether a word of nothing but such characters is a symbol for Gopher's quality filter: datatrove's `PUNCTUATION_SET`.
pub fn is_symbol(c: char) -> bool {
    is_punctuation(c) || is_terminal(c)
}

/// Whether a token of this one character ends a sentence: spaCy's `default_punct_chars`.
pub fn ends_sentence(c: char) -> bool {
    is_terminal(c) && (c.is_ascii() || SETS.no_sentence.binary_search(&c).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_hold_what_datatroves_hold() {
        // Counts of `len(TERMINAL_PUNCTUATION)`, `len(set(PUNCTUATION))` and of spaCy's marks, from the installed packages.
        let count = |holds: fn(char) -> bool| ('\0'..=char::MAX).filter(|&c| holds(c)).count();
        assert_eq!(count(is_terminal), 159);
        assert_eq!(count(is_punctuation), 129);
        assert_eq!(count(ends_sentence), 128);
        assert!(is_symbol('\r') && !is_symbol('\t') && !is_symbol('\n') && is_symbol('\u{85}') && is_symbol('１'));
    }
}
