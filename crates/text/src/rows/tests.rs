use super::*;
use serde_json::json;
use std::io::Write;

/// The rows of a file of this name, each with its place, or the message; without the folder's own path.
fn read_file(name: &str, bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs_err::write(&path, bytes).unwrap();
    let tidy = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    match read(&path) {
        Ok(rows) => {
            Ok(rows.into_iter().map(|row| (tidy(row.place.to_string()), json!(row.fields).to_string())).collect())
        }
        Err(error) => Err(tidy(error.to_string())),
    }
}

fn check(name: &str, text: &str, expected: &[(&str, &str)]) {
    let found = read_file(name, text.as_bytes()).unwrap();
    let found: Vec<(&str, &str)> = found.iter().map(|(place, row)| (place.as_str(), row.as_str())).collect();
    assert_eq!(found, expected);
}

fn message(name: &str, text: &str) -> String {
    read_file(name, text.as_bytes()).unwrap_err()
}

#[test]
fn items_of_a_list_have_the_lines_at_which_they_begin() {
    let text = "\u{FEFF}[\n  {\"a\": 1,\n   \"b\": [2]},\n\n  {\"a\": \"}],[\"} , {}\n]\n";
    check("a.json", text, &[("a.json:2", r#"{"a":1,"b":[2]}"#), ("a.json:5", r#"{"a":"}],["}"#), ("a.json:5", "{}")]);
    check("a.json", "{\"a\": 1}\n{\"a\": 2}", &[("a.json:1", r#"{"a":1}"#), ("a.json:2", r#"{"a":2}"#)]);
    check("a.JSONL", "{\"a\": 1}\n\n{\"a\": 2}\n", &[("a.JSONL:1", r#"{"a":1}"#), ("a.JSONL:3", r#"{"a":2}"#)]);
}

#[test]
fn packed_files_are_unpacked() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"{\"a\": 1}\n{\"a\": 2}\n").unwrap();
    let bytes = packed.finish().unwrap();
    for name in ["a.jsonl.gz", "a.json.gz"] {
        assert_eq!(read_file(name, &bytes).unwrap().len(), 2);
    }
    let error = read_file("a.jsonl.gz", &bytes[..bytes.len() - 6]).unwrap_err();
    assert_eq!(error, "cannot read a.jsonl.gz");
}

#[test]
fn delimited_text_has_quotes_in_csv_and_none_in_tsv() {
    let csv = "a,b\n1,\"x, \"\"y\"\"\nz\"\n\n2,\n";
    check("a.csv", csv, &[("a.csv:2", r#"{"a":"1","b":"x, \"y\"\nz"}"#), ("a.csv:5", r#"{"a":"2","b":""}"#)]);
    check("a.tsv", "a\tb\n1\t\"x\n", &[("a.tsv:2", r#"{"a":"1","b":"\"x"}"#)]);
}

#[test]
fn what_is_wrong_with_a_file_is_named_with_its_line() {
    insta::assert_snapshot!(message("a.json", "[{\"a\": 1},\n {\"a\": }]"), @"a.json:2: not valid JSON: expected value at column 7");
    insta::assert_snapshot!(message("a.json", "[{\"a\": 1}\n {\"a\": 2}]"), @"a.json:2: found `{`, expected `,` or `]` after an item");
    insta::assert_snapshot!(message("a.json", "[{\"a\": 1},\n 5]"), @"a.json:2: found a number, expected an object");
    insta::assert_snapshot!(message("a.json", "[{\"a\": 1},\n"), @"a.json:2: the file ends within its list");
    insta::assert_snapshot!(message("a.json", "[{\"a\": 1}"), @"a.json:1: the file ends within its list");
    insta::assert_snapshot!(message("a.json", "[{\"a\":\n 1"), @"a.json:2: not valid JSON: EOF while parsing an object at column 2");
    insta::assert_snapshot!(message("a.json", "[{}]\n]"), @"a.json:2: found `]` after the end of the list");
    insta::assert_snapshot!(message("a.json", "\"text\""), @"a.json:1: found a text, expected an object");
    insta::assert_snapshot!(message("a.json", "[]"), @r"
    a.json: the corpus is empty: there are no items in it
    hint: name a file with at least one item
    ");
    insta::assert_snapshot!(message("a.json", " "), @r"
    a.json: the corpus is empty: there are no items in it
    hint: name a file with at least one item
    ");
    insta::assert_snapshot!(message("a.jsonl", "{\"a\": 1}\n{\"a\": 1"), @"a.jsonl:2: not valid JSON: EOF while parsing an object at column 7");
    insta::assert_snapshot!(message("a.jsonl", "{\"a\": 1}\n[1]"), @"a.jsonl:2: found a list, expected an object");
    insta::assert_snapshot!(message("a.csv", "a,b\n1,2\n3\n"), @"a.csv:3: found 1 fields, expected 2 as in the header");
    insta::assert_snapshot!(message("a.csv", "a,a\n1,2\n"), @"a.csv:1: the header has the column `a` twice");
    insta::assert_snapshot!(message("a.xml", "<a>"), @r"
    a.xml: found the ending `.xml`, expected a file in .json, .jsonl, .csv, .tsv (also .gz of these) or .parquet
    hint: convert it, or rename it if its ending does not say what it is
    ");
    assert_eq!(
        read_file("a.csv", b"a\nx\n\xFFy\n").unwrap_err().lines().next(),
        Some("a.csv: byte 4 (line 3) is not valid UTF-8")
    );
    let missing = read(Path::new("none/there.xml")).unwrap_err().to_string();
    assert_eq!(missing.lines().next(), Some("none/there.xml: no such file or folder"));
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_files_have_lists_of_messages() {
    let bytes = include_bytes!("../../../../testdata/text/rows.parquet");
    let rows = parse(Path::new("a.parquet"), bytes.to_vec()).unwrap();
    let messages = |question: &str, answer: &str| json!([{"role": "user", "content": question}, {"role": "assistant", "content": answer}]);
    let expected = [
        json!({"messages": messages("Hi", "Hallo, Bär"), "score": 1.5, "tag": null}),
        json!({"messages": messages("Two", "Zwei"), "score": -2.0, "tag": "x"}),
        json!({"messages": messages("Bye", "Tschüss"), "score": 0.25, "tag": "x"}),
    ];
    for (number, (row, expected)) in rows.iter().zip(&expected).enumerate() {
        assert_eq!(json!(row.fields), *expected);
        assert_eq!(row.place.to_string(), format!("a.parquet, row {}", number + 1));
    }
    assert_eq!(rows.len(), 3);
}

#[cfg(feature = "parquet")]
#[test]
fn damaged_parquet_files_are_refused() {
    let bytes = include_bytes!("../../../../testdata/text/rows.parquet");
    for cut in [0, 3, 4, 100, bytes.len() - 1] {
        let error = parse(Path::new("a.parquet"), bytes[..cut].to_vec()).unwrap_err().to_string();
        assert!(error.starts_with("a.parquet: not a usable Parquet file: "), "{error}");
    }
    for at in 4..bytes.len() {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x55;
        // Damage in a text's own bytes may go unseen; nothing may panic.
        let _ = parse(Path::new("a.parquet"), bytes);
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_files_need_a_build_that_reads_them() {
    let error = parse(Path::new("a.parquet"), b"PAR1".to_vec()).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"a.parquet: not a usable Parquet file: this build does not read them: build cavy with `--features parquet`, or convert the file");
}

proptest::proptest! {
    /// Pieces of each form in any order, and bytes between them: what the fuzz target `rows` holds for longer.
    #[test]
    fn any_bytes_are_read_or_refused_and_rows_stand_at_their_lines(
        pieces in proptest::collection::vec((0usize..20, proptest::num::u8::ANY), 0..16), form in 0usize..4,
    ) {
        const PIECES: [&str; 19] = ["{", "}", "[", "]", ",", ":", "\"", "\"a\"", "{\"a\": 1}", "\n", "\r\n", "\t", "1", "\\", "é", "\u{FEFF}", " ", "a,b\n", "null"];
        let mut bytes = Vec::new();
        for (piece, byte) in pieces {
            match PIECES.get(piece) {
                Some(piece) => bytes.extend(piece.bytes()),
                None => bytes.push(byte),
            }
        }
        let n_lines = bytes.split(|&byte| byte == b'\n').count();
        if let Ok(rows) = parse(Path::new(["a.json", "a.jsonl", "a.csv", "a.tsv"][form]), bytes) {
            let lines: Vec<usize> = rows.iter().map(|row| row.place.to_string().rsplit_once(':').unwrap().1.parse().unwrap()).collect();
            proptest::prop_assert!(lines.is_sorted() && lines.iter().all(|&line| line <= n_lines), "{lines:?}");
        }
    }
}
