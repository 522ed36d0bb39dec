#![no_main]
//! Any bytes as JSON, JSON lines, CSV and TSV: the first byte says which.

use cavy_text::rows::parse;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let Some((&form, bytes)) = data.split_first() else { return };
    let name = ["a.json", "a.jsonl", "a.csv", "a.tsv"][usize::from(form) % 4];
    let Ok(rows) = parse(Path::new(name), bytes.to_vec()) else { return };
    // Each row stands at a line of the file, and they come in order.
    let n_lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let mut last = 0;
    for row in rows {
        let place = row.place.to_string();
        let line: usize = place.rsplit(':').next().and_then(|line| line.parse().ok()).expect("a place with a line");
        assert!(last <= line && line <= n_lines, "{place} after {last} of {n_lines}");
        last = line;
    }
});
