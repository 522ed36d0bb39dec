use super::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

#[test]
fn every_sum_is_right_by_an_independent_reader() {
    for split in [Split::Train, Split::HeldOut] {
        let documents = generate(11, split, 9000);
        let (mut sums, mut counts, mut equations) = (0, 0, 0);
        for document in &documents {
            let text = &document.text;
            if text.starts_with("Count") {
                counts += 1;
                check_count(text);
                continue;
            }
            let report = verify_sums(text);
            assert_eq!(report.checked, report.right, "{text}");
            sums += report.checked;
            let is_sum = text.contains('\n');
            assert_eq!(report.checked, usize::from(is_sum), "{text}");
            equations += text.lines().filter(|line| is_sum && check_steps(line)).count();
        }
        assert!(sums > 4000 && counts > 300 && equations > 6000, "{sums} sums, {counts} counts, {equations} equations");
    }
}

/// Checks each equation `a op b (op c) = d` in a line of steps; false if there is none.
fn check_steps(line: &str) -> bool {
    let Some((left, right)) = line.split_once(" = ") else { return false };
    let left = left.rsplit(": ").next().unwrap().trim_start_matches("So ");
    let mut parts = left.split(' ');
    let mut value: i64 = parts.next().unwrap().parse().unwrap();
    while let Some(operator) = parts.next() {
        let number: i64 = parts.next().unwrap().parse().unwrap();
        value = match operator {
            "+" => value + number,
            "-" => value - number,
            "x" => value * number,
            other => panic!("{other} in {line}"),
        };
    }
    let digits: String = right.chars().take_while(char::is_ascii_digit).collect();
    assert_eq!(digits.parse::<i64>().unwrap(), value, "{line}");
    true
}

fn check_count(text: &str) {
    let (question, numbers) = text.split_once('\n').unwrap();
    let words: Vec<&str> = question.trim_end_matches('.').split(' ').collect();
    let after = |word: &str| words.iter().position(|&w| w == word).map(|at| words[at + 1].parse::<i64>().unwrap());
    let step = after("by").unwrap_or(1) * if question.contains("down") { -1 } else { 1 };
    let numbers: Vec<i64> = numbers.trim_end_matches('.').split(", ").map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers.first().copied(), after("from"), "{text}");
    assert_eq!(numbers.last().copied(), after("to"), "{text}");
    assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] == step), "{text}");
}

#[test]
fn written_digits_make_the_answer() {
    // The ones first: the digits after `write`, and the last line's result, read backwards, are the answer.
    for document in generate(5, Split::Train, 3000) {
        let text = document.text;
        if !text.starts_with("What is") || text.contains(" x ") {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        let mut written = String::new();
        for line in &lines[1..lines.len() - 1] {
            let digit = line.split_once("write ").map_or_else(|| line.rsplit(' ').next().unwrap(), |(_, rest)| rest);
            let digits: String = digit.chars().take_while(char::is_ascii_digit).collect();
            written = digits + &written;
        }
        let answer = lines[lines.len() - 1].rsplit(' ').next().unwrap().trim_end_matches('.');
        let trimmed = written.trim_start_matches('0');
        assert_eq!(if trimmed.is_empty() { "0" } else { trimmed }, answer, "{text}");
    }
}

#[test]
fn training_and_held_out_text_share_no_document_and_no_sum() {
    let train: HashSet<String> = generate(1, Split::Train, 20_000).into_iter().map(|document| document.text).collect();
    for seed in [1, 2] {
        let held_out = generate(seed, Split::HeldOut, 4000);
        assert!(held_out.iter().all(|document| !train.contains(&document.text)));
    }
    let key = |a, b| Plan { facts: Facts::default(), kind: Kind::Sum(Sum::Add(a, b), Form::Bare) }.split();
    let held_out = (0..100).flat_map(|a| (0..100).map(move |b| (a, b))).filter(|&(a, b)| key(a, b) == Split::HeldOut);
    let held_out: Vec<(u32, u32)> = held_out.collect();
    assert!(held_out.len().abs_diff(1000) < 150, "{} of 10000 sums are held out", held_out.len());
    assert!(held_out.iter().all(|&(a, b)| key(b, a) == Split::HeldOut), "3 + 5 gives 5 + 3 away");
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_seed_another() {
    assert_eq!(generate(3, Split::Train, 50), generate(3, Split::Train, 50));
    assert_eq!(generate(3, Split::Train, 50)[..20], generate(3, Split::Train, 20)[..]);
    assert_ne!(generate(3, Split::Train, 50), generate(4, Split::Train, 50));
}

#[test]
fn stories_hardly_ever_repeat_and_have_a_bounded_vocabulary() {
    let stories: Vec<String> = generate(7, Split::Train, 15_000)
        .into_iter()
        .map(|document| document.text)
        .filter(|text| !text.contains('\n'))
        .collect();
    let distinct: BTreeSet<&String> = stories.iter().collect();
    assert!(
        distinct.len() * 1000 > stories.len() * 999,
        "{} of {} stories are distinct",
        distinct.len(),
        stories.len()
    );
    let words: BTreeSet<&str> = stories.iter().flat_map(|story| story.split(|c: char| !c.is_alphabetic())).collect();
    assert!((600..2000).contains(&words.len()), "{} words", words.len());
    let mean = stories.iter().map(String::len).sum::<usize>() / stories.len();
    assert!((350..800).contains(&mean), "{mean} bytes a story");
}

#[test]
fn stories_are_whole_sentences_with_right_articles() {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for document in generate(9, Split::Train, 20_000) {
        let text = document.text;
        for flaw in [
            "{", "}", "[", "]", "|", "  ", " .", " ,", "..", "!.", "?.", ",.", ".,", " a a", " a e", " a i", " a o",
            " an b", " an c", " an d", " an r", " an s", "\" \"\"",
        ] {
            if text.contains(flaw) {
                seen.entry(flaw).or_insert_with(|| text.clone());
            }
        }
        let ends_well =
            text.ends_with(['.', '!', '?']) || text.ends_with(".\"") || text.ends_with("!\"") || text.ends_with("?\"");
        assert!(ends_well, "{text}");
        assert!(text.matches('"').count().is_multiple_of(2), "{text}");
        assert!(text.starts_with(|first: char| first.is_ascii_uppercase()), "{text}");
        for (at, _) in text.match_indices(". ") {
            let next = text[at + 2..].trim_start_matches('"').chars().next().unwrap();
            assert!(next.is_ascii_uppercase(), "{text}");
        }
        let glued =
            text.as_bytes().windows(2).any(|pair| b".!?,".contains(&pair[0]) && pair[1].is_ascii_alphanumeric());
        assert!(!glued, "{text}");
        if !text.contains('\n') {
            let sentences = text.matches(['.', '!', '?']).count();
            assert!((6..=32).contains(&sentences), "{sentences} sentences: {text}");
        }
    }
    assert!(seen.is_empty(), "{seen:#?}");
}

#[test]
fn pronouns_agree_with_the_names() {
    // A story whose two characters are girls never says "he" or "his", unless of an adult or a neighbor.
    let others = ["dad", "grandpa", "uncle", "Mr.", "man", "brother", "keeper", "farmer", "driver", "guard"];
    let mut checked = 0;
    for document in generate(13, Split::Train, 20_000) {
        let text = document.text;
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphabetic() && c != '.').map(|word| word.trim_end_matches('.')).collect();
        let has_boy = words.iter().any(|word| words::BOYS.contains(word));
        let has_man = others.iter().any(|other| text.contains(other));
        if !has_boy && !has_man {
            checked += 1;
            assert!(!words.iter().any(|word| ["he", "He", "him", "his", "His"].contains(word)), "{text}");
        }
    }
    assert!(checked > 2000, "{checked}");
}

#[test]
fn prompts_are_held_out_beginnings() {
    let prompts = prompts(1, 6);
    assert_eq!(prompts.len(), 6);
    for (at, prompt) in prompts.iter().enumerate() {
        assert_eq!(prompt.ends_with("?\n"), at % 2 == 1, "{prompt}");
        assert!(prompt.len() > 8);
    }
}

#[test]
fn the_quickstarts_text_is_made_in_a_moment() {
    let start = std::time::Instant::now();
    let (train, held_out) = corpus(1, 1_000_000, 100_000);
    let bytes: usize = train.iter().map(|document| document.text.len()).sum();
    assert!((1_000_000..1_010_000).contains(&bytes));
    assert!(held_out.len() > 100);
    // Eight megabytes must take well under two seconds; twenty times the usual time is allowed here for busy machines.
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn every_row_fills_every_name_of_its_table() {
    for plot in PLOTS {
        for table in plot.tables {
            for row in table.rows {
                assert_eq!(row.split(" / ").count(), table.names.len(), "{}: {row}", plot.name);
            }
        }
    }
}
