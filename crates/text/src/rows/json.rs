//! Rows from JSON: an array of objects, or one object a line.

use super::{Row, type_name};
use crate::corpus::utf8;
use crate::{Place, TextError};
use serde_json::Value;
use std::path::Path;

/// The rows of a `.json` file: an array of objects; objects one after the other are taken too.
pub(super) fn read_json(bytes: &[u8], path: &Path) -> Result<Vec<Row>, TextError> {
    let text = utf8(bytes.to_vec(), path, 1, 0)?;
    let mut scanner = Scanner { text: &text, at: 0, line: 1, path };
    scanner.skip_space();
    if scanner.peek() != Some('[') {
        return scanner.objects_in_a_row();
    }
    scanner.at += 1;
    scanner.skip_space();
    let mut rows = Vec::new();
    if scanner.peek() == Some(']') {
        scanner.at += 1;
        return scanner.finish(rows);
    }
    loop {
        rows.push(scanner.object()?);
        scanner.skip_space();
        match scanner.peek() {
            Some(',') => scanner.at += 1,
            Some(']') => {
                scanner.at += 1;
                return scanner.finish(rows);
            }
            Some(other) => return Err(scanner.broken(format!("found `{other}`, expected `,` or `]` after an item"))),
            None => return Err(scanner.broken("the file ends within its list".to_owned())),
        }
        scanner.skip_space();
    }
}

/// The rows of a `.jsonl` file; blank lines are skipped.
pub(super) fn read_lines(bytes: &[u8], path: &Path) -> Result<Vec<Row>, TextError> {
    let text = utf8(bytes.to_vec(), path, 1, 0)?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let broken = |reason: String| TextError::BadRow { path: path.to_path_buf(), line: number + 1, reason };
        let value = serde_json::from_str(line).map_err(|error| {
            broken(format!("not valid JSON: {}", error.to_string().replace("line 1 column", "column")))
        })?;
        match value {
            Value::Object(fields) => rows.push(Row { fields, place: Place::Line(path.to_path_buf(), number + 1) }),
            other => return Err(broken(format!("found {}, expected an object", type_name(&other)))),
        }
    }
    Ok(rows)
}

/// Reads values one by one and keeps count of lines.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    path: &'a Path,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        let space = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.advance(space);
    }

    fn advance(&mut self, bytes: usize) {
        self.line += self.text[self.at..self.at + bytes].matches('\n').count();
        self.at += bytes;
    }

    fn broken(&self, reason: String) -> TextError {
        TextError::BadRow { path: self.path.to_path_buf(), line: self.line, reason }
    }

    /// The object that begins here.
    fn object(&mut self) -> Result<Row, TextError> {
        let line = self.line;
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                self.line += error.line().max(1) - 1;
                let reason = error.to_string();
                let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
                return Err(self.broken(format!("not valid JSON: {reason} at column {}", error.column())));
            }
            None => return Err(self.broken("the file ends within its list".to_owned())),
        };
        let bytes = values.byte_offset();
        match value {
            Value::Object(fields) => {
                self.advance(bytes);
                Ok(Row { fields, place: Place::Line(self.path.to_path_buf(), line) })
            }
            other => Err(self.broken(format!("found {}, expected an object", type_name(&other)))),
        }
    }

    /// Objects without a list around them, as some `.json` files have them.
    fn objects_in_a_row(mut self) -> Result<Vec<Row>, TextError> {
        let mut rows = Vec::new();
        loop {
            self.skip_space();
            if self.at == self.text.len() {
                return Ok(rows);
            }
            rows.push(self.object()?);
        }
    }

    fn finish(mut self, rows: Vec<Row>) -> Result<Vec<Row>, TextError> {
        self.skip_space();
        match self.peek() {
            None => Ok(rows),
            Some(other) => Err(self.broken(format!("found `{other}` after the end of the list"))),
        }
    }
}
