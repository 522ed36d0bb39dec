//! Rows of fields from files: JSON arrays, JSON lines, CSV and TSV (all of them packed or not), Parquet.

mod csv;
mod json;
#[cfg(feature = "parquet")]
mod parquet;

use crate::{Place, TextError, builtin};
use flate2::read::MultiGzDecoder;
use std::io::Read;
use std::path::Path;

pub(crate) use csv::{read_delimited, records};

/// The fields of one row, in the order of the file.
pub type Fields = serde_json::Map<String, serde_json::Value>;

/// One row and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its fields by name.
    pub fields: Fields,
    /// Where it stands: file and line, or file and row.
    pub place: Place,
}

/// The rows of a file ([`read`]) or of a built-in data set ([`builtin::rows`]).
///
/// # Errors
/// Theirs.
pub fn open(source: &str) -> Result<Vec<Row>, TextError> {
    builtin::rows(source).unwrap_or_else(|| read(Path::new(source)))
}

/// Reads all rows of a file, whose form its name tells: `.jsonl`, `.ndjson`, `.json` (an array, or lines), `.csv`, `.tsv`,
/// each of them also with `.gz` after it, and `.parquet` (in builds with the feature of that name).
///
/// # Errors
/// A file that is missing, empty, of another form, or not what its name says, with the line.
pub fn read(path: &Path) -> Result<Vec<Row>, TextError> {
    // Its name first: a file of another kind may be large.
    if let Err(error) = Form::of(path) {
        fs_err::metadata(path).map_err(|source| TextError::read(path, source))?;
        return Err(error);
    }
    parse(path, fs_err::read(path).map_err(|source| TextError::read(path, source))?)
}

/// The rows in the bytes of a file of this name.
///
/// # Errors
/// As [`read`].
pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Vec<Row>, TextError> {
    let (form, is_packed) = Form::of(path)?;
    let bytes = if is_packed {
        let mut unpacked = Vec::new();
        let source = MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked);
        source.map_err(|source| TextError::read(path, source))?;
        unpacked
    } else {
        bytes
    };
    let rows = match form {
        Form::Json => json::read_json(&bytes, path)?,
        Form::Lines => json::read_lines(&bytes, path)?,
        Form::Delimited(delimiter) => read_delimited(&bytes, path, delimiter)?,
        Form::Parquet => read_parquet(bytes, path)?,
    };
    if rows.is_empty() {
        let hint = "name a file with at least one item";
        return Err(TextError::EmptyCorpus { path: path.to_path_buf(), found: "there are no items in it", hint });
    }
    Ok(rows)
}

/// What a file is.
enum Form {
    Json,
    Lines,
    Delimited(u8),
    Parquet,
}

impl Form {
    /// By the end of its name; and whether it is packed.
    fn of(path: &Path) -> Result<(Self, bool), TextError> {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let (unpacked, is_packed) =
            name.strip_suffix(".gz").map_or((name.as_str(), false), |unpacked| (unpacked, true));
        let ending = unpacked.rsplit_once('.').map_or("", |(_, ending)| ending);
        let form = match (ending, is_packed) {
            ("json", _) => Self::Json,
            ("jsonl" | "ndjson", _) => Self::Lines,
            ("csv", _) => Self::Delimited(b','),
            ("tsv", _) => Self::Delimited(b'\t'),
            ("parquet", false) => Self::Parquet,
            _ => {
                let found = if ending.is_empty() { "no ending".to_owned() } else { format!("the ending `.{ending}`") };
                return Err(TextError::RowsForm { path: path.to_path_buf(), found });
            }
        };
        Ok((form, is_packed))
    }
}

#[cfg(feature = "parquet")]
fn read_parquet(bytes: Vec<u8>, path: &Path) -> Result<Vec<Row>, TextError> {
    parquet::rows(bytes.into(), path)
}

#[cfg(not(feature = "parquet"))]
fn read_parquet(_: Vec<u8>, path: &Path) -> Result<Vec<Row>, TextError> {
    let reason = "this build does not read them: build cavy with `--features parquet`, or convert the file".to_owned();
    Err(TextError::Parquet { path: path.to_path_buf(), reason })
}

/// What a JSON value is, in words.
pub(crate) fn type_name(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "true or false",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a text",
        serde_json::Value::Array(_) => "a list",
        serde_json::Value::Object(_) => "an object",
    }
}

/// The names of the fields of a row, for messages.
pub(crate) fn field_names(fields: &Fields) -> String {
    if fields.is_empty() {
        return "no fields".to_owned();
    }
    let names: Vec<String> = fields.keys().take(8).map(|key| format!("`{key}`")).collect();
    let more = if fields.len() > 8 { ", ..." } else { "" };
    format!("the fields {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests;
