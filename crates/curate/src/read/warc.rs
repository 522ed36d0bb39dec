//! Web archives: WARC 1.x, WET and the older ARC, damaged ones too.
//!
//! A damage is reported where it is, and reading goes on at the next record: at the next gzip member, or the next line that begins
//! a record.

mod http;
mod source;

pub use source::{GzMembers, Plain, Source};

use crate::document::Document;
use crate::read::decode_text;
use serde_json::Value;

/// Largest block that is kept, in bytes; larger ones are skipped and reported.
const LARGEST: usize = 1 << 26;
/// Longest line of a header.
const LONGEST_LINE: usize = 1 << 16;

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it begins: byte of the file, of the member where it is compressed.
    pub at: u64,
    /// `response`, `conversion`, ...; of an ARC record `response`.
    pub kind: String,
    headers: Vec<(String, String)>,
    block: Vec<u8>,
}

/// Why something could not be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Byte of the file.
    pub at: u64,
    /// What is wrong.
    pub found: String,
}

impl Record {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// What the record holds.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// The document in it: pages and their conversions to text, if they decode.
    pub fn document(&self) -> Option<Document> {
        let response = self.kind == "response";
        if !response && self.kind != "conversion" {
            return None;
        }
        let is_http = response && self.block.starts_with(b"HTTP/");
        let (http_type, payload) =
            if is_http { http::payload(&self.block) } else { (None, self.block.as_slice().into()) };
        let identified = self.header("WARC-Identified-Payload-Type").map(str::to_owned);
        let declared =
            identified.or(http_type).or_else(|| self.header("Content-Type").filter(|_| !is_http).map(str::to_owned));
        let is_html = match declared
            .as_deref()
            .map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
            .as_deref()
        {
            Some("text/html" | "application/xhtml+xml") => true,
            Some("text/plain") if !response => false,
            Some(_) => return None,
            None => http::looks_like_html(&payload).then_some(true)?,
        };
        let text = decode_text(&payload)?;
        let mut document = Document { text, is_html: is_html && response, ..Document::default() };
        document.id = self.header("WARC-Record-ID").unwrap_or_default().trim_matches(['<', '>']).into();
        let url = self.header("WARC-Target-URI").or_else(|| self.header("uri"));
        let date = self.header("WARC-Date").or_else(|| self.header("archive-date"));
        for (key, value) in [("url", url), ("date", date)] {
            if let Some(value) = value {
                document.metadata.insert(key.to_owned(), Value::from(value.trim_matches(['<', '>'])));
            }
        }
        Some(document)
    }
}

/// Reads records one after another.
#[derive(Debug)]
pub struct WarcReader<S> {
    source: S,
    /// Skipping to the next record: what was wrong is reported already.
    lost: bool,
    line: Vec<u8>,
}

impl<S: Source> WarcReader<S> {
    /// A reader of `source`.
    pub fn new(source: S) -> Self {
        Self { source, lost: false, line: Vec::new() }
    }

    /// The next record, or what is broken; `None` at the end.
    pub fn next_record(&mut self) -> Option<Result<Record, Broken>> {
        loop {
            // The place is known once there is a byte: it may be in the next member.
            let filled = self.source.fill().map(<[u8]>::is_empty);
            let at = self.source.at();
            match filled
                .and_then(|at_end| if at_end { Ok(false) } else { self.source.line(&mut self.line, LONGEST_LINE) })
            {
                Ok(false) => return None,
                Ok(true) => {}
                Err(broken) => {
                    if std::mem::replace(&mut self.lost, true) {
                        continue;
                    }
                    return Some(Err(broken));
                }
            }
            let line = trimmed(&self.line);
            if line.is_empty() {
                continue;
            }
            let result = if line.starts_with(b"WARC/") {
                self.lost = false;
                self.record(at)
            } else if let Some(record) = arc_header(line, at) {
                self.lost = false;
                self.block(record)
            } else if self.lost {
                continue;
            } else {
                self.lost = true;
                Err(Broken {
                    at,
                    found: format!("no record begins with {:?}", String::from_utf8_lossy(&line[..line.len().min(40)])),
                })
            };
            if result.is_err() {
                self.lost = true;
            }
            return Some(result);
        }
    }

    fn record(&mut self, at: u64) -> Result<Record, Broken> {
        let mut record = Record { at, ..Record::default() };
        loop {
            if !self.source.line(&mut self.line, LONGEST_LINE)? {
                return Err(Broken { at, found: "the record's header is cut off".to_owned() });
            }
            let line = String::from_utf8_lossy(trimmed(&self.line)).into_owned();
            if line.is_empty() {
                break;
            }
            if line.starts_with([' ', '\t'])
                && let Some((_, value)) = record.headers.last_mut()
            {
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            match line.split_once(':') {
                Some((name, value)) if record.headers.len() < 200 => {
                    record.headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                _ => {
                    return Err(Broken {
                        at,
                        found: format!(
                            "the record's header has the line {:?}",
                            line.chars().take(40).collect::<String>()
                        ),
                    });
                }
            }
        }
        record.kind = record.header("WARC-Type").unwrap_or_default().to_ascii_lowercase();
        self.block(record)
    }

    /// Reads the block, as long as the header says.
    fn block(&mut self, mut record: Record) -> Result<Record, Broken> {
        let broken = |found: String| Broken { at: record.at, found };
        let length = record.header("Content-Length").map(str::parse::<usize>);
        let Some(Ok(length)) = length else {
            return Err(broken(format!(
                "the record's length is {:?}",
                record.header("Content-Length").unwrap_or("missing")
            )));
        };
        let wanted = matches!(record.kind.as_str(), "response" | "conversion");
        if length > LARGEST || !wanted {
            let skipped = self.source.skip(length as u64)?;
            if skipped < length as u64 {
                return Err(broken(format!("the record has {skipped} of its {length} bytes")));
            }
            return if wanted {
                Err(broken(format!("a record of {length} bytes is skipped, at most {LARGEST} are read")))
            } else {
                Ok(record)
            };
        }
        self.source.block(length, &mut record.block)?;
        if record.block.len() < length {
            return Err(Broken {
                at: record.at,
                found: format!("the record has {} of its {length} bytes", record.block.len()),
            });
        }
        Ok(record)
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// An ARC record's one line of header: address, IP, date, type and length; the address may have spaces.
fn arc_header(line: &[u8], at: u64) -> Option<Record> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.rsplitn(5, ' ');
    let (length, kind, date, _ip, url) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(length) || !digits(date) || !matches!(date.len(), 8..=14) || !url.contains(':') {
        return None;
    }
    let headers = [("uri", url), ("archive-date", date), ("Content-Length", length), ("Content-Type", kind)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let kind = if url.starts_with("filedesc:") { "warcinfo" } else { "response" };
    Some(Record { at, kind: kind.to_owned(), headers, block: Vec::new() })
}
