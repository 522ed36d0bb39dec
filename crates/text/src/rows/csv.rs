//! Rows from delimited text: CSV by RFC 4180, TSV without quotes.

use super::{Fields, Row};
use crate::corpus::utf8;
use crate::{Place, TextError};
use std::path::Path;

/// The rows of a file with a header; every row has as many fields as it.
pub(crate) fn read_delimited(bytes: &[u8], path: &Path, delimiter: u8) -> Result<Vec<Row>, TextError> {
    let records = records(bytes, path, delimiter)?;
    let mut records = records.into_iter();
    let Some((_, names)) = records.next() else { return Ok(Vec::new()) };
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)).map(|(_, name)| name) {
        let reason = format!("the header has the column `{twice}` twice");
        return Err(TextError::BadRow { path: path.to_path_buf(), line: 1, reason });
    }
    let mut rows = Vec::new();
    for (line, values) in records {
        if values.len() != names.len() {
            let reason = format!("found {} fields, expected {} as in the header", values.len(), names.len());
            return Err(TextError::BadRow { path: path.to_path_buf(), line, reason });
        }
        let fields: Fields = names.iter().cloned().zip(values.into_iter().map(Into::into)).collect();
        rows.push(Row { fields, place: Place::Line(path.to_path_buf(), line) });
    }
    Ok(rows)
}

/// The records of delimited text, each with the line at which it begins; blank lines are skipped. In TSV a quote is a
/// letter like any other.
pub(crate) fn records(bytes: &[u8], path: &Path, delimiter: u8) -> Result<Vec<(usize, Vec<String>)>, TextError> {
    let text = utf8(bytes.to_vec(), path, 1, 0)?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .quoting(delimiter != b'\t')
        .from_reader(text.as_bytes());
    let mut records = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for record in reader.records() {
        let record = record.map_err(|error| TextError::BadRow {
            path: path.to_path_buf(),
            line: error.position().map_or(1, |position| position.line() as usize),
            reason: error.to_string(),
        })?;
        // A record is said to begin at the blank lines before it.
        let start = record.position().map_or(0, |position| position.byte() as usize).clamp(counted, text.len());
        let rest = &text[start..];
        let start = start + rest.len() - rest.trim_start_matches(['\r', '\n']).len();
        line += text[counted..start].matches('\n').count();
        counted = start;
        records.push((line, record.iter().map(str::to_owned).collect()));
    }
    Ok(records)
}
