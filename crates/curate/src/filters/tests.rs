//! datatrove's own cases (`tests/pipeline/filters/test_filters.py`), and a few at the edges of the rules.

use super::*;

/// The quotation that datatrove's tests call `TEXT_LF_1`.
const PROSE: &str = "I wish it need not have happened in my time,' said Frodo. 'So do I,' said Gandalf, 'and so do all who live to see \
    such times. But that is not for them to decide. All we have to decide is what to do with the time that is given us.'";

fn check(filter: TextFilter, text: &str, reason: Option<&str>) {
    let drops = filter.drops(&mut Document::of(text), &mut Scratch::default());
    assert_eq!(drops.as_deref(), reason, "{filter:?} on {text:?}");
    let rules = filter.explain(&mut Document::of(text), &mut Scratch::default());
    let first = rules.iter().find(|rule| rule.dropped).map(|rule| &*rule.rule);
    assert_eq!(first, reason, "the account of {filter:?} on {text:?}");
}

#[test]
fn repetition_drops_what_datatrove_drops() {
    let check =
        |text: &str, reason| check(TextFilter::GopherRepetition(GopherRepetitionFilter::default()), text, reason);
    check(&"I am your father.\n".repeat(4), Some("dup_line_frac"));
    check(&"I am your father.\n\n".repeat(4), Some("dup_para_frac"));
    let wizard = |gap: &str, xs: usize| {
        let repeated = format!("{}.{gap}", "x".repeat(xs)).repeat(2);
        ["I am groot.", "You are a wizard.", "I am your father."].map(|line| format!("{line}{gap}")).concat()
            + &repeated
    };
    check(&wizard("\n\n", 30), Some("dup_para_char_frac"));
    check(&wizard("\n", 40), Some("dup_line_char_frac"));
    check("I am Frank, I am Frank, I am Frank", Some("top_2_gram"));
    check("I am Frank, you are Jhon. I am Frank. I am Frank you are Jhon", Some("top_3_gram"));
    check(&("I am a solo traveller ".repeat(4) + PROSE), Some("duplicated_5_n_grams"));
    check(PROSE, None);
    check("", None);
}

#[test]
fn longer_runs_have_rules_of_their_own() {
    // Each text repeats one run of n words often enough for its rule and no shorter one: only that threshold is left on.
    for n in [2, 3, 4] {
        let filter = GopherRepetitionFilter {
            top_n_grams: vec![(n, 0.3)],
            dup_n_grams: Vec::new(),
            ..GopherRepetitionFilter::default()
        };
        let text = "one two three four ".repeat(5) + "a b c d e f g h";
        check(TextFilter::GopherRepetition(filter.clone()), &text, Some(&format!("top_{n}_gram")));
        check(TextFilter::GopherRepetition(filter), PROSE, None);
    }
    for n in 5..=10 {
        let filter = GopherRepetitionFilter {
            top_n_grams: Vec::new(),
            dup_n_grams: vec![(n, 0.3)],
            ..GopherRepetitionFilter::default()
        };
        let words: Vec<String> = (0..n).map(|index| format!("word{index}")).collect();
        let text = words.join(" ") + " between " + &words.join(" ");
        // The second run counts, so a little under half of the characters.
        check(TextFilter::GopherRepetition(filter.clone()), &text, Some(&format!("duplicated_{n}_n_grams")));
        let shorter = words[..n - 1].join(" ") + " between " + &words[..n - 1].join(" ");
        check(TextFilter::GopherRepetition(filter), &shorter, None);
    }
}

#[test]
fn quality_drops_what_datatrove_drops() {
    let filter = GopherQualityFilter { min_doc_words: 10, max_doc_words: 1000, ..GopherQualityFilter::default() };
    let check = |text: &str, reason| check(TextFilter::GopherQuality(filter.clone()), text, reason);
    check("I am too small...", Some("gopher_short_doc"));
    check(&"I am ".repeat(20), Some("gopher_below_avg_threshold"));
    check(&"interconnection ".repeat(20), Some("gopher_above_avg_threshold"));
    check(&"# comment ".repeat(20), Some("gopher_too_many_hashes"));
    check(&"... comment ".repeat(20), Some("gopher_too_many_ellipsis"));
    let symbols = "the ./!*?<><> apple <?////> orange  ++ interconnection !<>??? have".repeat(20);
    check(&symbols, Some("gopher_below_alpha_threshold"));
    check(PROSE, None);
    check(&PROSE.repeat(30), Some("gopher_long_doc"));
    check(&"- the words of a list with bullets\n".repeat(10), Some("gopher_too_many_bullets"));
    check(&"• the words of a list with bullets\n".repeat(10), Some("gopher_too_many_bullets"));
    check(
        &"the words of a list that goes on and on and on without an end…\n".repeat(10),
        Some("gopher_too_many_end_ellipsis"),
    );
    check(
        &"Die Wörter der deutschen Sprache sind andere als jene anderswo. ".repeat(3),
        Some("gopher_enough_stop_words"),
    );
    check(
        &"The Be To Of And That Have With words in capitals are none here. ".repeat(3),
        Some("gopher_enough_stop_words"),
    );
}

#[test]
fn a_symbol_is_no_word_and_the_bound_itself_stays() {
    let filter = GopherQualityFilter { min_doc_words: 5, min_stop_words: 0, ..GopherQualityFilter::default() };
    check(TextFilter::GopherQuality(filter.clone()), "four words are here , , , ! ( )", Some("gopher_short_doc"));
    check(TextFilter::GopherQuality(filter.clone()), "now five words stand here", None);
    // Mean length of exactly 3 and of exactly 10 stay, as does one hash in ten words.
    check(TextFilter::GopherQuality(filter.clone()), &"and ".repeat(6), None);
    check(TextFilter::GopherQuality(filter.clone()), &"tencharsxx ".repeat(6), None);
    check(TextFilter::GopherQuality(filter), &("word ".repeat(9) + "#"), None);
}

const GOOD: &str = "This is a well-written paragraph with several sentences.\nThe content continues with more good information here.\n\
    Another important point is being made in this line.\nWe can see that this document has quality content.\n\
    Finally, the conclusion wraps everything up nicely.\nAn additional sentence to ensure we pass the threshold.";

#[test]
fn c4_drops_what_datatrove_drops() {
    let check = |text: &str, reason| check(TextFilter::C4Quality(C4QualityFilter::default()), text, reason);
    check(GOOD, None);
    check(&GOOD.replace("a well-written", "LOREM Ipsum dolor"), Some("lorem_ipsum"));
    check(&GOOD.replace("a well-written", "a { bracket"), Some("curly_bracket"));
    check("Just one sentence.", Some("too_few_sentences"));
    // Rules that drop a document ask only lines that earlier rules left: of fewer than three words, or without a full stop.
    check(&format!("{GOOD}\nlorem ipsum."), None);
    check(&format!("{GOOD}\nlorem ipsum dolor sit amet"), None);
    check(&format!("{GOOD}\nSee our javascript {{ with braces."), None);
    check(&format!("{GOOD}\nOur Privacy Policy {{ with braces."), Some("curly_bracket"));
}

/// The text that C4's filter leaves.
fn c4_text(filter: C4QualityFilter, text: &str) -> String {
    let mut document = Document::of(text);
    assert_eq!(TextFilter::C4Quality(filter).drops(&mut document, &mut Scratch::default()), None, "{text:?}");
    document.text
}

#[test]
fn c4_keeps_lines_of_prose() {
    let lines = C4QualityFilter { min_num_sentences: -1, min_words_per_line: -1, ..C4QualityFilter::default() };
    let check = |text: &str, kept: &str| assert_eq!(c4_text(lines.clone(), text), kept, "{text:?}");
    check("This site uses cookies for tracking.\nAnother valid line here today.", "Another valid line here today.");
    for phrase in [
        "Terms of Use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use coo\u{212a}ies",
        "JavaScript",
    ] {
        check(&format!("About our {phrase} here.\nKept."), "Kept.");
    }
    check(
        "  A claim.[12] Another[citation needed][edit] one.[]  \nno end\nAn ellipsis...\n\"Quoted\"",
        "A claim. Another one.\n\"Quoted\"",
    );
    check(&format!("{}.\nKept.\n{}.", "x".repeat(1000), "y".repeat(999)), &format!("Kept.\n{}.", "y".repeat(999)));
    let few = C4QualityFilter { min_num_sentences: 2, ..C4QualityFilter::default() };
    assert_eq!(c4_text(few.clone(), "Two words.\nThree words [1].\nOne. Two three."), "Three words .\nOne. Two three.");
    let unended = C4QualityFilter { filter_no_terminal_punct: false, ..few };
    assert_eq!(c4_text(unended, "no end at all\nAnother line here."), "no end at all\nAnother line here.");
}

#[test]
fn paragraphs_are_long_lines() {
    let check = |text: &str, reason| check(TextFilter::C4Paragraph(C4ParagraphFilter {}), text, reason);
    check(&["x".repeat(250), "x".repeat(250), "x".repeat(250)].join("\n"), None);
    check(&["é".repeat(200), "x".repeat(200), "s".into(), "x".repeat(200)].join("\n"), None);
    check(&["x".repeat(250), "x".repeat(199), "x".repeat(250)].join("\n"), Some("< 3 paragraphs"));
    check("short\nshort\nshort", Some("< 3 paragraphs"));
    check(&"x".repeat(999), Some("< 3 paragraphs"));
}

#[test]
fn fineweb_drops_what_datatrove_drops() {
    let default = FineWebQualityFilter::default;
    let check = |filter, text: &str, reason| check(TextFilter::FineWebQuality(filter), text, reason);
    check(default(), "", Some("empty"));
    check(default(), " \n\t\n", Some("empty"));
    let strict = FineWebQualityFilter { line_punct_thr: 0.5, ..default() };
    check(strict, "No punctuation here\nAnother line without any\nStill nothing", Some("line_punct_ratio"));
    let short = FineWebQualityFilter { short_line_thr: 0.5, line_punct_thr: 0.0, ..default() };
    check(short, "hi.\nbye.\nok.\nno.\nyes.", Some("short_line_ratio"));
    check(default(), GOOD, None);
    let listy = FineWebQualityFilter { new_line_ratio: 0.1, ..default() };
    check(listy.clone(), &["a"; 50].join("\n"), Some("line_punct_ratio"));
    let long = "A long line of more than thirty characters, ended.";
    check(default(), &format!("{long}\n{GOOD}\n{long}"), Some("char_dup_ratio"));
    let line = |index| format!("The line {index} is longer than thirty chars.\n\n\n\n\n");
    let spaced: String = (0..7).map(line).collect();
    check(default(), &spaced, Some("list_ratio"));
    let excluding = FineWebQualityFilter { line_punct_exclude_zero: true, short_line_thr: 1.0, ..default() };
    check(excluding, "no mark at all here", None);
}

#[test]
fn filters_in_a_row_know_the_words_of_the_changed_text() {
    // What C4 tells of its text is what a fresh count would say.
    let text = format!("{GOOD}\nno end\nA [12] line with citations, they're gone.[3] \n\n{GOOD}");
    let (mut document, mut scratch) = (Document::of(text), Scratch::default());
    assert_eq!(fineweb_filters()[2].drops(&mut document, &mut scratch), None);
    assert_eq!(scratch.word_count(&document.text), crate::split_words(&document.text).len());
}
