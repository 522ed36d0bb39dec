//! Documents from files: which files, of which kind, and one after another.

mod decode;
mod inputs;
mod jsonl;
pub mod warc;

pub use decode::decode_text;
pub use inputs::{Part, expand, parts};
pub use jsonl::{parse_line, write_line};

use crate::document::Document;
use crate::error::CurateError;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use warc::{GzMembers, WarcReader};

/// Longest line of JSONL, and largest text file, in bytes: beyond it something else is wrong.
const LONGEST: u64 = 1 << 30;

/// How a compressed file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a file holds, by its name without `.gz` or `.zst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `.warc`, `.wet`, `.arc`.
    Warc,
    /// `.jsonl`, `.ndjson`, `.json`: one object a line.
    Jsonl,
    /// `.html`, `.htm`: one page.
    Html,
    /// Anything else: one text.
    Text,
}

impl Kind {
    /// The kind of a file of this name.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
        match name.rsplit('.').next().unwrap_or_default() {
            "warc" | "wet" | "arc" => Self::Warc,
            "jsonl" | "ndjson" | "json" => Self::Jsonl,
            "html" | "htm" => Self::Html,
            _ => Self::Text,
        }
    }
}

/// A place in a file that could not be read; reading went on behind it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where: byte of the file (of the compressed one where it is compressed), or line.
    pub at: u64,
    /// Whether `at` is a line.
    pub is_line: bool,
    /// What is wrong there.
    pub found: String,
}

/// Hands every document of `path` (`-` for standard input) to `each`, and every damage to `damage`.
///
/// Errors: if the file cannot be read at all, and those of `each`.
pub fn read_documents(
    path: &Path,
    each: &mut dyn FnMut(Document) -> Result<(), CurateError>,
    damage: &mut dyn FnMut(Damage),
) -> Result<(), CurateError> {
    let kind = Kind::of(path);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if path.as_os_str() == "-" {
        return jsonl::read(path, &mut std::io::stdin().lock(), each, damage);
    }
    let file = BufReader::with_capacity(1 << 18, fs_err::File::open(path).map_err(CurateError::read(path))?);
    if kind == Kind::Warc {
        return read_warc(path, file, each, damage);
    }
    let mut file = decompressed(path, file)?;
    if kind == Kind::Jsonl {
        jsonl::read(path, &mut file, each, damage)
    } else {
        let mut bytes = Vec::new();
        let read = file.take(LONGEST).read_to_end(&mut bytes);
        if let Err(error) = read {
            damage(Damage { path: path.to_owned(), at: bytes.len() as u64, is_line: false, found: error.to_string() });
        }
        let Some(text) = decode_text(&bytes) else {
            damage(Damage {
                path: path.to_owned(),
                at: 0,
                is_line: false,
                found: "no text in a known encoding".into(),
            });
            return Ok(());
        };
        each(Document { text, id: name, is_html: kind == Kind::Html, ..Document::default() })
    }
}

/// Hands every document of `part` to `each`, and every damage to `damage`.
///
/// Law: the documents of all parts of a file, one after another, are those of the file.
/// Errors: as of [`read_documents`].
pub fn read_part(
    part: &Part,
    each: &mut dyn FnMut(Document) -> Result<(), CurateError>,
    damage: &mut dyn FnMut(Damage),
) -> Result<(), CurateError> {
    match &part.bytes {
        None => read_documents(&part.path, each, damage),
        Some(bytes) => {
            let file = fs_err::File::open(&part.path).map_err(CurateError::read(&part.path))?;
            jsonl::read_range(&part.path, BufReader::with_capacity(1 << 18, file), bytes, each, damage)
        }
    }
}

fn read_warc(
    path: &Path,
    mut file: BufReader<fs_err::File>,
    each: &mut dyn FnMut(Document) -> Result<(), CurateError>,
    damage: &mut dyn FnMut(Damage),
) -> Result<(), CurateError> {
    let zipped = file.fill_buf().map_err(CurateError::read(path))?.starts_with(&GZIP);
    let report = |at, found| Damage { path: path.to_owned(), at, is_line: false, found };
    if zipped {
        warc_documents(WarcReader::new(GzMembers::new(file)), each, &mut |at, found| damage(report(at, found)))
    } else {
        warc_documents(WarcReader::new(warc::Plain::new(file)), each, &mut |at, found| damage(report(at, found)))
    }
}

/// Documents of a WARC stream.
///
/// Errors: those of `each`.
pub fn warc_documents<S: warc::Source>(
    mut reader: WarcReader<S>,
    each: &mut dyn FnMut(Document) -> Result<(), CurateError>,
    damage: &mut dyn FnMut(u64, String),
) -> Result<(), CurateError> {
    while let Some(record) = reader.next_record() {
        match record {
            Ok(record) => {
                if let Some(document) = record.document() {
                    each(document)?;
                }
            }
            Err(found) => damage(found.at, found.found),
        }
    }
    Ok(())
}

/// The file as it reads without its compression, told by its first bytes.
fn decompressed(path: &Path, mut file: BufReader<fs_err::File>) -> Result<Box<dyn BufRead>, CurateError> {
    let start = file.fill_buf().map_err(CurateError::read(path))?;
    if start.starts_with(&GZIP) {
        return Ok(Box::new(BufReader::with_capacity(1 << 18, flate2::bufread::MultiGzDecoder::new(file))));
    }
    if start.starts_with(&ZSTD) {
        return Ok(Box::new(BufReader::with_capacity(1 << 18, ZstdFrames { file: Some(file), frame: None })));
    }
    Ok(Box::new(file))
}

/// All frames of a Zstandard file, one after another.
struct ZstdFrames {
    file: Option<BufReader<fs_err::File>>,
    frame: Option<Box<ruzstd::decoding::StreamingDecoder<BufReader<fs_err::File>, ruzstd::decoding::FrameDecoder>>>,
}

impl Read for ZstdFrames {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(out)?;
                if count > 0 || out.is_empty() {
                    return Ok(count);
                }
                self.file = self.frame.take().map(|frame| frame.into_inner());
            }
            let Some(mut file) = self.file.take() else { return Ok(0) };
            if file.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let frame = ruzstd::decoding::StreamingDecoder::new(file);
            self.frame = Some(Box::new(frame.map_err(|error| std::io::Error::other(error.to_string()))?));
        }
    }
}

#[cfg(test)]
mod tests;
