use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

fn zip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn record(kind: &str, url: &str, block: &str) -> Vec<u8> {
    format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-02T03:04:05Z\r\nWARC-Record-ID: <urn:uuid:{url}>\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{block}\r\n\r\n",
        block.len()
    )
    .into_bytes()
}

fn page(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{body}")
}

/// Texts and places of damage of a file of these bytes.
fn read(name: &str, bytes: &[u8]) -> (Vec<Document>, Vec<Damage>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs_err::write(&path, bytes).unwrap();
    let (mut documents, mut damages) = (Vec::new(), Vec::new());
    let mut each = |document| {
        documents.push(document);
        Ok(())
    };
    read_documents(&path, &mut each, &mut |damage| damages.push(damage)).unwrap();
    (documents, damages)
}

#[test]
fn a_file_in_parts_gives_the_documents_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let mut bytes = Vec::new();
    for number in 0..40 {
        let text = "x".repeat(number * 7 % 31);
        bytes.extend_from_slice(format!("{{\"text\": \"{number} {text}\"}}\n").as_bytes());
    }
    bytes.extend_from_slice(b"no JSON\n\n{\"text\": \"last\"}");
    fs_err::write(&path, &bytes).unwrap();
    let (whole, _) = read("a.jsonl", &bytes);
    assert_eq!(whole.len(), 41);
    // Parts shorter than a line, of a line's length, and longer.
    for part_bytes in [5, 19, 64, 400] {
        let (mut documents, mut damages) = (Vec::new(), Vec::new());
        let parts = parts(std::slice::from_ref(&path), part_bytes).unwrap();
        assert!(parts.len() > 2, "{part_bytes}");
        for part in &parts {
            let mut each = |document| {
                documents.push(document);
                Ok(())
            };
            read_part(part, &mut each, &mut |damage| damages.push(damage)).unwrap();
        }
        assert_eq!(texts(&documents), texts(&whole), "{part_bytes}");
        let at = bytes.windows(7).position(|found| found == b"no JSON").unwrap() as u64;
        assert_eq!(damages.iter().map(|damage| (damage.at, damage.is_line)).collect::<Vec<_>>(), [(at, false)]);
    }
}

fn texts(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|document| document.text.as_str()).collect()
}

#[test]
fn archives_give_their_pages() {
    let parts = [
        record("warcinfo", "", "software: x"),
        record("response", "http://a.org/1", &page("<p>one</p>")),
        record("request", "http://a.org/1", "GET / HTTP/1.1"),
        record("conversion", "http://a.org/2", "two\r\n\r\nlines"),
        record("response", "http://a.org/3", &page("x").replace("text/html", "image/png")),
    ];
    let plain = parts.concat();
    let zipped: Vec<u8> = parts.iter().flat_map(|part| zip(part)).collect();
    for (name, bytes) in [("a.warc", plain.clone()), ("a.warc.gz", zipped), ("whole.warc.gz", zip(&plain))] {
        let (documents, damages) = read(name, &bytes);
        assert_eq!(texts(&documents), ["<p>one</p>", "two\r\n\r\nlines"], "{name}");
        assert_eq!((documents[0].is_html, documents[1].is_html), (true, false));
        assert_eq!((documents[0].url(), &*documents[0].id), (Some("http://a.org/1"), "urn:uuid:http://a.org/1"));
        assert_eq!(damages, []);
    }
}

#[test]
fn what_is_readable_comes_out_of_a_damaged_archive() {
    let parts: Vec<Vec<u8>> = (0..4)
        .map(|index| record("conversion", "http://a.org", &format!("text {index} {}", "word ".repeat(200))))
        .collect();
    // A member in the middle loses its end.
    let members: Vec<Vec<u8>> = parts.iter().map(|part| zip(part)).collect();
    let mut bytes = members[0].clone();
    bytes.extend(&members[1][..members[1].len() / 2]);
    bytes.extend(&members[2]);
    bytes.extend(&members[3]);
    let (documents, damages) = read("a.warc.gz", &bytes);
    let ends: Vec<char> = documents.iter().map(|document| document.text.chars().nth(5).unwrap()).collect();
    assert!(ends.contains(&'0') && ends.contains(&'3') && !ends.contains(&'1'), "{ends:?}");
    assert_eq!(damages[0].at, members[0].len() as u64, "{damages:?}");
    // A plain file with a wrong length, and one that is cut off.
    let mut plain = parts.concat();
    let at = memchr::memmem::find(&plain[parts[0].len()..], b"Content-Length: ").unwrap() + parts[0].len() + 16;
    plain[at] = b'x';
    let (documents, damages) = read("a.warc", &plain);
    assert_eq!(documents.len(), 3);
    assert_eq!((damages.len(), damages[0].at), (1, parts[0].len() as u64), "{damages:?}");
    let whole = parts.concat();
    let (documents, damages) = read("a.warc", &whole[..whole.len() - 100]);
    assert_eq!((documents.len(), damages.len()), (3, 1));
    assert_eq!(damages[0].at, (parts[0].len() * 3) as u64);
}

#[test]
fn arc_records_have_one_line_of_header() {
    let block = page("<p>old</p>");
    let arc = format!(
        "filedesc://x.arc 127.0.0.1 20140216012908 text/plain 12\n1 0 test\nURL\n\nhttp://a.org/with space 1.2.3.4 20140216050221 text/html {}\n{block}\n",
        block.len()
    );
    let (documents, damages) = read("a.arc", arc.as_bytes());
    assert_eq!(texts(&documents), ["<p>old</p>"]);
    assert_eq!((documents[0].url(), damages.len()), (Some("http://a.org/with space"), 0));
}

#[test]
fn lines_of_json_are_documents_and_wrong_ones_are_named() {
    let text = "{\"text\":\"a\",\"id\":7,\"url\":\"u\"}\n\n{\"text\":\"b\",\"metadata\":{\"k\":1}}\n{\"txt\":\"c\"}\n{\"text\":3}\nnot json\n{\"text\":\"d\"}";
    for (name, bytes) in [
        ("a.jsonl", text.as_bytes().to_vec()),
        ("a.jsonl.gz", [zip(&text.as_bytes()[..40]), zip(&text.as_bytes()[40..])].concat()),
    ] {
        let (documents, damages) = read(name, &bytes);
        assert_eq!(texts(&documents), ["a", "b", "d"]);
        assert_eq!((&*documents[0].id, documents[1].id.as_str()), ("7", &*format!("{name}/2")));
        assert_eq!((documents[0].url(), documents[1].metadata["k"].as_i64()), (Some("u"), Some(1)));
        let places: Vec<(u64, bool)> = damages.iter().map(|damage| (damage.at, damage.is_line)).collect();
        assert_eq!(places, [(4, true), (5, true), (6, true)]);
        assert!(damages[0].found.contains("no `text` among the keys txt"), "{damages:?}");
    }
    // One frame of Zstandard with the line `{"text":"z"}`, stored, twice.
    let stored = b"{\"text\":\"z\"}\n";
    let frame = |bytes: &[u8]| {
        [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, bytes.len() as u8, 1 | (bytes.len() as u8) << 3, 0, 0][..], bytes].concat()
    };
    let (documents, damages) = read("a.jsonl.zst", &[frame(stored), frame(stored)].concat());
    assert_eq!((texts(&documents), damages.len()), (vec!["z", "z"], 0));
}

#[test]
fn what_was_written_reads_the_same() {
    let document = Document { text: "a\n\"b\" é".into(), id: "x".into(), ..Document::default() };
    let mut line = Vec::new();
    write_line(&document, &mut line);
    assert_eq!(parse_line(&line).unwrap(), document);
}

#[test]
fn texts_in_older_encodings_are_decoded() {
    assert_eq!(decode_text("\u{feff}é".as_bytes()).as_deref(), Some("é"));
    let latin: Vec<u8> =
        "Le garçon était très âgé, l'été dernier, près de la forêt".chars().map(|c| c as u32 as u8).collect();
    assert_eq!(decode_text(&latin).as_deref(), Some("Le garçon était très âgé, l'été dernier, près de la forêt"));
    let (documents, _) = read("a.html", b"<p>x</p>");
    assert!(documents[0].is_html);
}
