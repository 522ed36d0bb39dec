//! Cases in the manner of datatrove's `test_exact_deduplication.py`, `test_sentence_deduplication.py` and
//! `test_bloom_filter.py`, each through a whole recipe.

use super::*;
use crate::pipeline::{Machine, Outcome, run};
use crate::read::{read_documents, write_line};
use crate::recipe::Recipe;
use fs_err as fs;
use std::sync::atomic::AtomicBool;

/// Runs the one step `step`, in TOML, over `shards`; what stays. Neither workers nor memory change it.
fn after(step: &str, shards: &[&[Document]]) -> (Vec<Document>, Outcome) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    for (number, documents) in shards.iter().enumerate() {
        let mut lines = Vec::new();
        for document in *documents {
            write_line(document, &mut lines);
            lines.push(b'\n');
        }
        fs::write(folder.path().join(format!("in/{number}.jsonl")), lines).unwrap();
    }
    let stays = |out: &str, threads, memory_mb| {
        let mut recipe = Recipe::parse(&format!("[[steps]]\n{step}")).unwrap();
        recipe.data = vec![folder.path().join("in").display().to_string()];
        recipe.out = folder.path().join(out);
        recipe.memory_mb = memory_mb;
        let machine = Machine { threads, ..Machine::default() };
        let outcome = run(&recipe, Path::new(""), machine, None, &AtomicBool::new(false), &|_| {}).unwrap();
        let mut documents = Vec::new();
        for file in &outcome.files {
            let mut add = |document| {
                documents.push(document);
                Ok(())
            };
            read_documents(file, &mut add, &mut |damage| panic!("{damage:?}")).unwrap();
        }
        (documents, outcome)
    };
    let (documents, outcome) = stays("one", 1, 100);
    let (others, other) = stays("three", 3, 0);
    assert_eq!(others, documents);
    assert_eq!(other.funnel, outcome.funnel);
    (documents, outcome)
}

/// The numbers of what stays of pages `1..=5`, of which 1, 2 and 4 have one address, in one shard and in two.
fn pages_after(keys: &str) -> Vec<Document> {
    let addresses = [
        "https://example.com",
        "https://example.com",
        "https://new-site.com",
        "https://example.com",
        "https://example2.com",
    ];
    let page = |(index, url): (usize, &str)| {
        let mut page = Document { id: (index + 1).to_string(), ..Document::of(format!("page {index}")) };
        page.metadata.insert("url".to_owned(), Value::from(url));
        page
    };
    let pages: Vec<Document> = addresses.into_iter().enumerate().map(page).collect();
    let step = format!("step = \"exact_dedup\"\ncontent_getter = \"url\"\n{keys}");
    let (documents, outcome) = after(&step, &[&pages]);
    assert_eq!(after(&step, &[&pages[..2], &pages[2..]]).0, documents);
    let (input, output) = (outcome.funnel.steps[0].input.documents, outcome.funnel.steps[0].output.documents);
    assert_eq!((input, output as usize), (5, documents.len()));
    documents
}

fn ids(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|document| document.id.as_str()).collect()
}

#[test]
fn one_page_of_an_address_stays() {
    assert_eq!(ids(&pages_after("")), ["1", "3", "5"]);
}

#[test]
fn the_page_of_the_best_priority_stays() {
    assert_eq!(ids(&pages_after("document_priority = \"id\"")), ["3", "4", "5"]);
    assert_eq!(ids(&pages_after("document_priority = \"id\"\nkeep = \"lowest\"")), ["1", "3", "5"]);
    // Nobody has this field: the first stays.
    assert_eq!(ids(&pages_after("document_priority = \"score\"")), ["1", "3", "5"]);
}

#[test]
fn addresses_that_differ_in_the_pattern_alone_are_one() {
    assert_eq!(ids(&pages_after("remove_regex = \"2\"")), ["1", "3"]);
}

#[test]
fn the_page_that_stays_knows_how_many_went() {
    let counts = |keys: &str| -> Vec<Option<u64>> {
        let pages = pages_after(&format!("document_priority = \"id\"\n{keys}"));
        pages.iter().map(|page| page.metadata.get("duplicate_count").and_then(Value::as_u64)).collect()
    };
    assert_eq!(counts("save_cluster_size = true"), [Some(0), Some(2), Some(0)]);
    assert_eq!(counts(""), [None; 3]);
}

#[test]
fn no_copy_of_the_index_stays() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("older.jsonl");
    let lines = r#"{"text": "old", "id": "1", "metadata": {"url": "https://example.com"}}
        {"text": "old", "id": "2", "metadata": {"url": "https://example2.com"}}"#;
    fs::write(&index, lines).unwrap();
    let keys = format!("index = [{:?}]\n", index.display().to_string());
    assert_eq!(ids(&pages_after(&keys)), ["3"]);
    // Copies among the documents alone are another matter.
    fs::write(&index, lines.lines().last().unwrap()).unwrap();
    assert_eq!(ids(&pages_after(&keys)), ["1", "2", "3", "4"]);
    assert_eq!(ids(&pages_after(&format!("{keys}only_dedup_in_index = false"))), ["1", "3"]);
}

#[test]
fn documents_without_the_field_are_nobodys_copies() {
    let mut documents = vec![Document::of("a"), Document::of("b"), Document::of("c"), Document::of("d")];
    for (document, url) in documents.iter_mut().zip([Value::from(7), Value::from("7"), Value::Null]) {
        document.metadata.insert("url".to_owned(), url);
    }
    let (left, _) = after("step = \"exact_dedup\"\ncontent_getter = \"url\"", &[&documents]);
    assert_eq!(left.iter().map(|document| document.text.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
}

const MILL: &str = "The mill stands by the river. Its wheel turns all day long. Farmers bring corn in the morning. \
    At noon the miller rests; his cat does not. By night the flour is sold!";
const RIDERS: &str = "Spear and shield! The riders wake at dawn. Red is the day.";
const WALLS: &str =
    "Stone walls keep the wind out. Moss grows on the north side. Nobody repairs them now. Sheep do not mind.";

fn texts(step: &str, texts: &[&str]) -> (Vec<String>, Outcome) {
    let documents: Vec<Document> = texts.iter().map(|&text| Document::of(text)).collect();
    let (left, outcome) = after(step, &[&documents]);
    let shards: Vec<&[Document]> = documents.chunks(2).collect();
    let text = |documents: Vec<Document>| documents.into_iter().map(|document| document.text).collect::<Vec<_>>();
    let left = text(left);
    assert_eq!(text(after(step, &shards).0), left);
    (left, outcome)
}

#[test]
fn of_three_sentences_that_repeat_the_first_stay() {
    // Made with datatrove 0.10.1 and spaCy 3.8.18.
    let (_, tail) = MILL.split_at(MILL.find("Farmers").unwrap());
    let spaced = "One more line.\n\nAnd a\nsecond one.  The third.";
    let documents = [
        MILL,
        &format!("{tail} Who buys it? Nobody knows."),
        &format!("{MILL} QX7!"),
        &format!("QX7! {MILL} ZW9!"),
        RIDERS,
        &format!("{RIDERS} She closed the book. It was late."),
        &format!("{spaced}\n\nOne more line. And a second one.\nThe third. The end."),
        &[WALLS; 11].join(" "),
        &format!("{RIDERS} And {RIDERS}"),
    ];
    let step = "step = \"sentence_dedup\"\nmin_doc_words = 0\nmin_num_sentences = 0";
    let (left, outcome) = texts(step, &documents);
    let expected = [
        MILL,
        "Who buys it? Nobody knows.",
        "QX7!",
        "QX7! ZW9!",
        RIDERS,
        "She closed the book. It was late.",
        "One more line.\n\nAnd a\nsecond one.  The third. The end.",
        WALLS,
    ];
    assert_eq!(left[..8], expected);
    assert_eq!(outcome.funnel.steps[0].changed, 7);
}

#[test]
fn what_is_left_after_sentences_went_has_to_be_enough() {
    let (_, tail) = MILL.split_at(MILL.find("Farmers").unwrap());
    let few = format!("{tail} Who buys it? Nobody knows.");
    let long = format!("{tail} Nobody in the village knows who buys it and who bakes of it what all of them eat.");
    let step = "step = \"sentence_dedup\"\nmin_doc_words = 12\nmin_num_sentences = 2";
    let (left, outcome) = texts(step, &[MILL, &few, &long, MILL, RIDERS]);
    // A text that lost nothing stays, short as it is.
    assert_eq!(left, [MILL, RIDERS]);
    let reasons = &outcome.funnel.steps[0].reasons;
    let dropped: Vec<_> = reasons.iter().map(|(reason, count)| (reason.as_str(), count.dropped.documents)).collect();
    assert_eq!(dropped, [("duplicate", 1), ("min_doc_words", 1), ("min_num_sentences", 1)]);
}

#[test]
fn lines_that_repeat_go_where_lines_are_asked_for() {
    // Made with datatrove 0.10.1; runs of blank lines are no runs.
    let documents = ["a b\nc d\n\n\n\ne f\nmenu\nhome\nabout\nthe end", "x y\nmenu\nhome\nabout\nz\n\n\n\nq"];
    let step = "step = \"sentence_dedup\"\nsplit_sentences = false\nmin_doc_words = 0\nmin_num_sentences = 0\n";
    assert_eq!(texts(step, &documents).0, [documents[0], "x y\nz\n\n\n\nq"]);
    for (least, expected) in [(3, "x y\nz\n\n\n\nq"), (4, documents[1])] {
        let step = format!("{step}min_words_to_remove_span = {least}");
        assert_eq!(texts(&step, &documents).0, [documents[0], expected]);
    }
}

#[test]
fn a_bloom_filter_finds_repeats_and_a_repeat_that_is_cut() {
    let paragraph = |number| crate::generator::prose(1, 2, number).lines().next().unwrap().to_owned();
    let mut documents: Vec<String> = (0..7).map(paragraph).collect();
    // Less than thirteen words: never a copy.
    documents.extend(["1 + 1 = 2, 2 + 2 = 4".to_owned(), "1 + 1 = 2, 2 + 2 = 4".to_owned()]);
    let distinct = documents.clone();
    let cut = &documents[6][..documents[6].len() - 10];
    documents.extend([documents[0].clone(), documents[1].clone(), cut.to_owned()]);
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let (left, outcome) = texts("step = \"bloom_dedup\"\nm_bytes = 1023", &documents);
    assert_eq!(left, distinct);
    assert_eq!(outcome.funnel.steps[0].reasons["duplicate"].dropped.documents, 3);
}

#[test]
fn damaged_runs_of_a_bloom_filter_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let step = Step::BloomDedup(bloom::BloomDedup { m_bytes: 100, ..bloom::BloomDedup::default() });
    let mut signing = Signing::new(&step, folder.path(), 0, 0).unwrap().unwrap();
    signing.push(0, &Document::of(MILL), &mut Vec::new()).unwrap();
    signing.finish().unwrap();
    let find = || find(&step, folder.path(), Path::new(""), 1, 0);
    assert_eq!(find().unwrap(), DuplicateSets::default());
    let path = folder.path().join("000000.runs");
    let bytes = fs::read(&path).unwrap();
    let mut long = bytes.clone();
    long[4..12].fill(0xff);
    for damaged in [&bytes[..bytes.len() - 1], &bytes[..11], &long] {
        fs::write(&path, damaged).unwrap();
        let error = find().unwrap_err().to_string();
        assert!(error.contains("000000.runs") && error.contains("cut off"), "{error}");
    }
}
