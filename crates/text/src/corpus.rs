//! Documents from files: plain text, folders of text, JSON lines.

use crate::TextError;
use flate2::read::MultiGzDecoder;
use fs_err as fs;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// One text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The text, without a byte-order mark.
    pub text: String,
    /// Where it came from, for messages.
    pub place: Place,
}

/// Where a document came from. Displays as `path`, `path:line`, `path, row number` or `name #number`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A whole file.
    File(PathBuf),
    /// One line of a file, counted from 1.
    Line(PathBuf, usize),
    /// One row of a file without lines, counted from 1.
    Row(PathBuf, usize),
    /// Made by a generator of this name; the number counts from 0.
    Made(&'static str, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Row(path, row) => write!(f, "{}, row {row}", path.display()),
            Self::Made(name, number) => write!(f, "{name} #{number}"),
        }
    }
}

/// The field of a JSON line that holds the text, unless another is named.
pub const TEXT_FIELD: &str = "text";

/// A source of documents: one file, or the `.txt` and `.md` files below a folder in the order of their paths.
///
/// A `.jsonl` file (or `.jsonl.gz`) holds one document a line; any other file is one document.
#[derive(Clone, Debug)]
pub struct Corpus {
    path: PathBuf,
    files: Vec<PathBuf>,
    text_field: String,
}

impl Corpus {
    /// Looks at `path` and lists its files; `text_field` names the field of JSON lines that holds the text.
    ///
    /// # Errors
    /// `path` is missing or unreadable, or a folder without text files.
    pub fn open(path: impl AsRef<Path>, text_field: &str) -> Result<Self, TextError> {
        let path = path.as_ref().to_path_buf();
        let metadata = fs::metadata(&path).map_err(|source| TextError::read(&path, source))?;
        let mut files = Vec::new();
        if metadata.is_dir() {
            list_texts(&path, &mut files)?;
            files.sort();
            if files.is_empty() {
                let hint = "put text in files that end in .txt or .md, or name one .jsonl file";
                return Err(TextError::EmptyCorpus { path, found: "the folder has no .txt or .md file", hint });
            }
        } else {
            files.push(path.clone());
        }
        Ok(Self { path, files, text_field: text_field.to_owned() })
    }

    /// The files of the corpus, in the order in which they are read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The documents one after the other; files are opened as they are reached. Documents of only white space are left
    /// out.
    ///
    /// # Errors
    /// As an item: unreadable files, invalid UTF-8, bad JSON lines, lines without the text field; and, as the last
    /// item, [`TextError::EmptyCorpus`] if there was no document with text. After an error nothing follows.
    pub fn documents(&self) -> Documents<'_> {
        Documents { corpus: self, next_file: 0, lines: None, found_text: false, done: false }
    }

    /// All documents at once.
    ///
    /// # Errors
    /// As [`Corpus::documents`].
    pub fn read_all(&self) -> Result<Vec<Document>, TextError> {
        self.documents().collect()
    }

    fn is_json_lines(file: &Path) -> bool {
        if ends_in(file, "gz") {
            file.file_stem().is_some_and(|stem| ends_in(Path::new(stem), "jsonl"))
        } else {
            ends_in(file, "jsonl")
        }
    }
}

/// The iterator of [`Corpus::documents`].
pub struct Documents<'a> {
    corpus: &'a Corpus,
    next_file: usize,
    lines: Option<JsonLines>,
    found_text: bool,
    done: bool,
}

impl Iterator for Documents<'_> {
    type Item = Result<Document, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.advance() {
                Ok(Some(document)) if document.text.trim().is_empty() => {}
                Ok(Some(document)) => {
                    self.found_text = true;
                    return Some(Ok(document));
                }
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
            if self.done && !self.found_text {
                let hint = "name a file or folder with text in it";
                let path = self.corpus.path.clone();
                return Some(Err(TextError::EmptyCorpus { path, found: "there is no text in it", hint }));
            }
        }
        None
    }
}

impl Documents<'_> {
    /// The next document, or `None` after the last file.
    fn advance(&mut self) -> Result<Option<Document>, TextError> {
        loop {
            if let Some(lines) = &mut self.lines {
                if let Some(document) = lines.next_document(&self.corpus.text_field)? {
                    return Ok(Some(document));
                }
                self.lines = None;
            }
            let Some(file) = self.corpus.files.get(self.next_file) else { return Ok(None) };
            self.next_file += 1;
            if Corpus::is_json_lines(file) {
                self.lines = Some(JsonLines::open(file)?);
            } else {
                let bytes = fs::read(file).map_err(|source| TextError::read(file, source))?;
                let text = utf8(bytes, file, 1, 0)?;
                return Ok(Some(Document { text, place: Place::File(file.clone()) }));
            }
        }
    }
}

/// The lines of one `.jsonl` file.
struct JsonLines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    line: usize,
    offset: u64,
}

impl JsonLines {
    fn open(path: &Path) -> Result<Self, TextError> {
        let file = fs::File::open(path).map_err(|source| TextError::read(path, source))?;
        let reader: Box<dyn Read + Send> =
            if ends_in(path, "gz") { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self {
            path: path.to_path_buf(),
            reader: Box::new(BufReader::with_capacity(1 << 16, reader)),
            line: 0,
            offset: 0,
        })
    }

    /// The text of the next line that is not blank.
    fn next_document(&mut self, field: &str) -> Result<Option<Document>, TextError> {
        loop {
            let mut bytes = Vec::new();
            let read =
                self.reader.read_until(b'\n', &mut bytes).map_err(|source| TextError::read(&self.path, source))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            let text = utf8(bytes, &self.path, self.line, self.offset)?;
            self.offset += read as u64;
            if !text.trim().is_empty() {
                let text = self.field_of(&text, field)?;
                return Ok(Some(Document { text, place: Place::Line(self.path.clone(), self.line) }));
            }
        }
    }

    /// The string under `field` in the JSON object `line`.
    fn field_of(&self, line: &str, field: &str) -> Result<String, TextError> {
        use serde_json::Value;
        let (path, line_number) = (self.path.clone(), self.line);
        let value: Value = serde_json::from_str(line).map_err(|error| TextError::BadJson {
            path: path.clone(),
            line: line_number,
            reason: error.to_string().replace(" at line 1 column", " at column"),
        })?;
        let found = match value {
            Value::Object(mut object) => match object.remove(field) {
                Some(Value::String(text)) => return Ok(text),
                Some(other) => format!("`{field}` of type {}", type_name(&other)),
                None if object.is_empty() => "an object without fields".to_owned(),
                None => {
                    let names: Vec<String> = object.keys().take(8).map(|key| format!("`{key}`")).collect();
                    format!("the fields {}", names.join(", "))
                }
            },
            other => format!("a value of type {}", type_name(&other)),
        };
        Err(TextError::MissingField { path, line: line_number, field: field.to_owned(), found })
    }
}

/// Whether the name of `path` ends in `.extension`, in small or large letters.
fn ends_in(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn type_name(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "boolean",
        serde_json::Value::Number(_) => "number",
        serde_json::Value::String(_) => "string",
        serde_json::Value::Array(_) => "array",
        serde_json::Value::Object(_) => "object",
    }
}

/// `bytes` as text without a byte-order mark; `line` and `offset` say where in the file they begin.
pub(crate) fn utf8(bytes: Vec<u8>, path: &Path, line: usize, offset: u64) -> Result<String, TextError> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
        TextError::InvalidUtf8 {
            path: path.to_path_buf(),
            line: line + bytes[..at].split(|&byte| byte == b'\n').count() - 1,
            offset: offset + at as u64,
            guess: if utf16 { "UTF-16" } else { "WINDOWS-1252" },
        }
    })?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}

/// Adds the `.txt` and `.md` files below `folder` to `files`. Links to folders are not followed: they may be circular.
fn list_texts(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), TextError> {
    for entry in fs::read_dir(folder).map_err(|source| TextError::read(folder, source))? {
        let entry = entry.map_err(|source| TextError::read(folder, source))?;
        let path = entry.path();
        if entry.file_type().map_err(|source| TextError::read(&path, source))?.is_dir() {
            list_texts(&path, files)?;
        } else if ends_in(&path, "txt") || ends_in(&path, "md") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A folder with these files.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn texts(path: &Path) -> Vec<String> {
        Corpus::open(path, TEXT_FIELD).unwrap().read_all().unwrap().into_iter().map(|document| document.text).collect()
    }

    /// The message for the corpus `name` in `folder`, with the folder's own path taken out.
    fn message(folder: &tempfile::TempDir, name: &str, field: &str) -> String {
        let error = Corpus::open(folder.path().join(name), field).and_then(|corpus| corpus.read_all()).unwrap_err();
        error.to_string().replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn a_plain_file_is_one_document_without_its_byte_order_mark() {
        let folder = folder(&[("a.txt", "\u{FEFF}Hello\r\nthere\n".as_bytes())]);
        assert_eq!(texts(&folder.path().join("a.txt")), ["Hello\r\nthere\n"]);
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_paths_and_other_files_are_left_alone() {
        let folder = folder(&[
            ("b.txt", b"two"),
            ("a/z.md", b"one"),
            ("c.bin", b"\xFF"),
            ("d/e/f.TXT", b"three"),
            ("g.txt", b" "),
        ]);
        assert_eq!(texts(folder.path()), ["one", "two", "three"]);
    }

    #[test]
    fn json_lines_are_documents_packed_or_not() {
        let lines = "{\"text\": \"one\", \"id\": 1}\n\n{\"text\": \"two \\u00e4\\n\"}";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(lines.as_bytes()).unwrap();
        let folder = folder(&[("a.jsonl", lines.as_bytes()), ("a.jsonl.gz", &packed.finish().unwrap())]);
        assert_eq!(texts(&folder.path().join("a.jsonl")), ["one", "two ä\n"]);
        assert_eq!(texts(&folder.path().join("a.jsonl.gz")), ["one", "two ä\n"]);
        let corpus = Corpus::open(folder.path().join("a.jsonl"), TEXT_FIELD).unwrap();
        let second = corpus.documents().nth(1).unwrap().unwrap();
        assert!(second.place.to_string().ends_with("a.jsonl:3"), "{}", second.place);
    }

    #[test]
    fn bad_input_is_named_with_its_place_and_a_way_out() {
        let folder = folder(&[
            ("empty.txt", b" \n"),
            ("bin/x.bin", b"x"),
            ("latin.txt", b"fine\nna\xEFve\n"),
            ("utf16.txt", b"\xFF\xFEa\0"),
            ("bad.jsonl", b"{\"text\": \"a\"}\n{\"text\": }\n"),
            ("field.jsonl", b"{\"content\": \"a\", \"id\": 3}\n"),
            ("type.jsonl", b"{\"text\": 3}\n"),
            ("array.jsonl", b"[1]\n"),
            ("latin.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"na\xEFve\"}\n"),
        ]);
        insta::assert_snapshot!(message(&folder, "none.txt", "text"), @r"
        none.txt: no such file or folder
        hint: check the spelling; a relative path starts where the command is run
        ");
        insta::assert_snapshot!(message(&folder, "empty.txt", "text"), @r"
        empty.txt: the corpus is empty: there is no text in it
        hint: name a file or folder with text in it
        ");
        insta::assert_snapshot!(message(&folder, "bin", "text"), @r"
        bin: the corpus is empty: the folder has no .txt or .md file
        hint: put text in files that end in .txt or .md, or name one .jsonl file
        ");
        insta::assert_snapshot!(message(&folder, "latin.txt", "text"), @r"
        latin.txt: byte 7 (line 2) is not valid UTF-8
        hint: save the file as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8 latin.txt > fixed.txt`
        ");
        insta::assert_snapshot!(message(&folder, "utf16.txt", "text"), @r"
        utf16.txt: byte 0 (line 1) is not valid UTF-8
        hint: save the file as UTF-8, e.g. `iconv -f UTF-16 -t UTF-8 utf16.txt > fixed.txt`
        ");
        insta::assert_snapshot!(message(&folder, "bad.jsonl", "text"), @r"
        bad.jsonl:2: not valid JSON: expected value at column 10
        hint: a .jsonl file holds one JSON object per line
        ");
        insta::assert_snapshot!(message(&folder, "field.jsonl", "text"), @r"
        field.jsonl:1: found the fields `content`, `id`, expected an object with a text under `text`
        hint: name the field that holds the text (`text_field`)
        ");
        insta::assert_snapshot!(message(&folder, "type.jsonl", "text"), @r"
        type.jsonl:1: found `text` of type number, expected an object with a text under `text`
        hint: name the field that holds the text (`text_field`)
        ");
        insta::assert_snapshot!(message(&folder, "array.jsonl", "text"), @r"
        array.jsonl:1: found a value of type array, expected an object with a text under `text`
        hint: name the field that holds the text (`text_field`)
        ");
        insta::assert_snapshot!(message(&folder, "latin.jsonl", "text"), @r"
        latin.jsonl: byte 26 (line 2) is not valid UTF-8
        hint: save the file as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8 latin.jsonl > fixed.txt`
        ");
        assert!(Corpus::open(folder.path().join("field.jsonl"), "content").unwrap().read_all().is_ok());
    }

    #[test]
    fn after_an_error_nothing_follows() {
        let folder = folder(&[("bad.jsonl", b"{\n{\"text\": \"a\"}\n")]);
        let corpus = Corpus::open(folder.path().join("bad.jsonl"), TEXT_FIELD).unwrap();
        let mut documents = corpus.documents();
        assert!(documents.next().unwrap().is_err());
        assert!(documents.next().is_none());
    }
}
