use super::*;

fn check(text: &str, words: &str) {
    assert_eq!(split_words(text).join(" "), words, "{text:?}");
}

#[test]
fn words_are_cut_as_spacy_cuts_them() {
    // Made with `spacy.blank("en")` 3.8.18.
    check("Hello, world!", "Hello , world !");
    check("He said: \"I don't know...\" (twice).", "He said : \" I do n't know ... \" ( twice ) .");
    check(
        "It's Dr. Smith's well-known and/or state-of-the-art idea.",
        "It 's Dr. Smith 's well - known and/or state - of - the - art idea .",
    );
    check("They'll've cannot gonna wont its ill we're.", "They 'll 've can not gon na wo nt its ill we 're .");
    check(
        "In the U.S. it costs $5.50, or 10km at 9am; NATO. J. Doe",
        "In the U.S. it costs $ 5.50 , or 10 km at 9 am ; NATO . J. Doe",
    );
    check(
        "See https://example.com/a-b?c=d, or mail a.b@c.org.",
        "See https://example.com/a-b?c=d , or mail a.b@c.org .",
    );
    check("wait...what word.Another one,two 3-4 a/b x=y", "wait ... what word . Another one , two 3 - 4 a / b x = y");
    check("100% “quoted” it’s 2019–2020 — yes", "100 % “ quoted ” it ’s 2019–2020 — yes");
    check("  two  spaces\n\nand\tlines ", "two spaces and lines");
    check("", "");
}

#[test]
fn white_space_beyond_one_blank_is_a_token() {
    let mut tokens = Vec::new();
    tokenize_into("a  b\nc ", 10, &mut tokens);
    let found: Vec<_> = tokens.iter().map(|token| (token.start, token.end, token.is_space)).collect();
    assert_eq!(found, [(10, 11, false), (12, 13, true), (13, 14, false), (14, 15, true), (15, 16, false)]);
}

#[test]
fn sentences_end_at_marks() {
    let count = |text: &str| {
        let mut tokens = Vec::new();
        tokenize_into(text, 0, &mut tokens);
        count_sentences(text, &tokens)
    };
    // Made with spaCy's sentencizer.
    assert_eq!(count(""), 1);
    assert_eq!(count("One. Two! Three?"), 3);
    assert_eq!(count("He met Mr. Brown (twice.) \"Fine.\" And left"), 3);
    assert_eq!(count("Pi is 3.14... or so"), 1);
    assert_eq!(count("End.  "), 2);
    assert_eq!(count("One.Two. 。three"), 3);
}

#[test]
fn quotes_and_marks_are_words_of_their_own() {
    // The quotation of datatrove's `test_word_tokenizers.py`, as `spacy.blank("en")` 3.8.18 cuts it into 70.
    let text = "I wish it need not have happened in my time,' said Frodo. 'So do I,' said Gandalf, 'and so do all who \
        live to see such times. But that is not for them to decide. All we have to decide is what to do with the time \
        that is given us.' Hello world! \n\n ქართული \n\t Hello\nworld! ";
    check(
        text,
        "I wish it need not have happened in my time , ' said Frodo . ' So do I , ' said Gandalf , ' and so do all who \
        live to see such times . But that is not for them to decide . All we have to decide is what to do with the \
        time that is given us . ' Hello world ! ქართული Hello world !",
    );
    assert_eq!(split_words(text).len(), 70);
}

#[test]
fn sentences_are_where_spacy_has_them() {
    let check = |text: &str, expected: &[&str]| {
        let spans = sentence_spans(text);
        assert_eq!(spans.into_iter().map(|span| &text[span]).collect::<Vec<_>>(), expected, "{text:?}");
    };
    check("", &[]);
    check(" \n", &[]);
    check("One. Two!  Three? ", &["One.", "Two!", " Three?"]);
    check("He met Mr. Brown (twice.) \"Fine.\" And left", &["He met Mr. Brown (twice.) \"", "Fine.\"", "And left"]);
    check("End.  ", &["End."]);
}
