//! One JSON object a line.

use super::{Damage, LONGEST};
use crate::document::Document;
use crate::error::CurateError;
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

/// A document from a line: `text`, `id`, and what else there is as metadata; an object `metadata` is opened up, as datatrove does.
///
/// Errors: what is wrong with the line.
pub fn parse_line(line: &[u8]) -> Result<Document, String> {
    let mut fields: Map<String, Value> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let text = match fields.remove("text") {
        Some(Value::String(text)) => text,
        Some(other) => return Err(format!("`text` is {other}, not a string")),
        None => {
            let keys: Vec<&str> = fields.keys().map(String::as_str).take(8).collect();
            return Err(format!("no `text` among the keys {}", keys.join(", ")));
        }
    };
    let id = match fields.remove("id") {
        Some(Value::String(id)) => id,
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let mut metadata = match fields.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(other) => [("metadata".to_owned(), other)].into_iter().collect(),
        None => Map::new(),
    };
    metadata.extend(fields);
    Ok(Document { text, id, metadata, is_html: false })
}

/// The document as a line, without its end: datatrove's form.
pub fn write_line(document: &Document, out: &mut Vec<u8>) {
    let value = serde_json::json!({ "text": document.text, "id": document.id, "metadata": document.metadata });
    serde_json::to_writer(out, &value).expect("strings and maps of strings are JSON");
}

pub(super) fn read(
    path: &Path,
    file: &mut dyn BufRead,
    each: &mut dyn FnMut(Document) -> Result<(), CurateError>,
    damage: &mut dyn FnMut(Damage),
) -> Result<(), CurateError> {
    let mut number = 0;
    read_lines(path, file, each, damage, &mut |_| {
        number += 1;
        Some((number, true))
    })
}

/// Reads the lines that begin in `bytes`. Places, and the names of documents without one, are bytes here: lines are not known.
pub(super) fn read_range<F: Read + Seek>(
    path: &Path,
    mut file: BufReader<F>,
    bytes: &Range<u64>,
    each: &mut dyn FnMut(Document) -> Result<(), CurateError>,
    damage: &mut dyn FnMut(Damage),
) -> Result<(), CurateError> {
    let mut at = bytes.start;
    if at > 0 {
        // The line that reaches over the start belongs to the part before; one that begins just there does not.
        file.seek(SeekFrom::Start(at - 1)).map_err(CurateError::read(path))?;
        at = at - 1 + file.skip_until(b'\n').map_err(CurateError::read(path))? as u64;
    }
    let mut next = at;
    read_lines(path, &mut file, each, damage, &mut |length| {
        let start = next;
        next += length as u64;
        (start < bytes.end).then_some((start, false))
    })
}

/// Reads lines while `place` says where they are, and whether that is a line's number, by their lengths.
fn read_lines(
    path: &Path,
    file: &mut dyn BufRead,
    each: &mut dyn FnMut(Document) -> Result<(), CurateError>,
    damage: &mut dyn FnMut(Damage),
    place: &mut dyn FnMut(usize) -> Option<(u64, bool)>,
) -> Result<(), CurateError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = file.take(LONGEST).read_until(b'\n', &mut line);
        let Some((at, is_line)) = place(line.len()) else { break };
        let report = |found: String| Damage { path: path.to_owned(), at, is_line, found };
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                damage(report(error.to_string()));
                break;
            }
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match parse_line(&line) {
            Ok(mut document) => {
                if document.id.is_empty() {
                    document.id = if is_line { format!("{name}/{}", at - 1) } else { format!("{name}@{at}") };
                }
                each(document)?;
            }
            Err(found) => damage(report(found)),
        }
    }
    Ok(())
}
