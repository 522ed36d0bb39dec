//! Bytes of an archive with their place in the file: plain, or in gzip members of which some may be damaged.

use super::Broken;
use std::io::{BufRead, Read};

/// Where the bytes come from. An error means that the rest of the current record is lost; reading can go on after it.
pub trait Source {
    /// Byte of the file at which the next byte (its gzip member, where compressed) begins.
    fn at(&self) -> u64;

    /// The bytes that come next, at least one unless at the end.
    ///
    /// Errors: if they are damaged. The next call goes on behind the damage.
    fn fill(&mut self) -> Result<&[u8], Broken>;

    /// Takes `count` of the bytes that [`Source::fill`] gave.
    fn consume(&mut self, count: usize);

    /// A line with its end in `line`; false at the end of the file.
    ///
    /// Errors: those of [`Source::fill`], and a line that does not end within `most` bytes.
    fn line(&mut self, line: &mut Vec<u8>, most: usize) -> Result<bool, Broken> {
        line.clear();
        let at = self.at();
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(!line.is_empty());
            }
            let (count, ended) = memchr::memchr(b'\n', bytes).map_or((bytes.len(), false), |end| (end + 1, true));
            if line.len() + count > most {
                self.consume(count);
                return Err(Broken { at, found: format!("a line of more than {most} bytes") });
            }
            line.extend_from_slice(&bytes[..count]);
            self.consume(count);
            if ended {
                return Ok(true);
            }
        }
    }

    /// Up to `length` bytes in `block`; fewer at the end of the file.
    ///
    /// Errors: those of [`Source::fill`].
    fn block(&mut self, length: usize, block: &mut Vec<u8>) -> Result<(), Broken> {
        while block.len() < length {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(());
            }
            let count = bytes.len().min(length - block.len());
            block.extend_from_slice(&bytes[..count]);
            self.consume(count);
        }
        Ok(())
    }

    /// Skips up to `length` bytes; says how many there were.
    ///
    /// Errors: those of [`Source::fill`].
    fn skip(&mut self, length: u64) -> Result<u64, Broken> {
        let mut skipped = 0;
        while skipped < length {
            let available = self.fill()?.len() as u64;
            if available == 0 {
                break;
            }
            let count = available.min(length - skipped);
            self.consume(count as usize);
            skipped += count;
        }
        Ok(skipped)
    }
}

/// A file as it is.
#[derive(Debug)]
pub struct Plain<R> {
    file: R,
    at: u64,
}

impl<R: BufRead> Plain<R> {
    /// Reads `file`.
    pub fn new(file: R) -> Self {
        Self { file, at: 0 }
    }
}

impl<R: BufRead> Source for Plain<R> {
    fn at(&self) -> u64 {
        self.at
    }

    fn fill(&mut self) -> Result<&[u8], Broken> {
        let at = self.at;
        self.file.fill_buf().map_err(|error| Broken { at, found: error.to_string() })
    }

    fn consume(&mut self, count: usize) {
        self.file.consume(count);
        self.at += count as u64;
    }
}

/// Gzip's mark: its two magic bytes and the only method there is.
const MARK: [u8; 3] = [0x1f, 0x8b, 0x08];

/// Counts what is taken from a file; the mark that was found can be put back.
#[derive(Debug)]
struct Counted<R> {
    file: R,
    at: u64,
    /// How many bytes of the mark come before those of the file.
    put_back: usize,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.put_back > 0 { Ok(&MARK[MARK.len() - self.put_back..]) } else { self.file.fill_buf() }
    }

    fn consume(&mut self, count: usize) {
        self.at += count as u64;
        if self.put_back > 0 {
            self.put_back -= count;
        } else {
            self.file.consume(count);
        }
    }
}

/// The members of a gzip file, one after another. After a damaged one, reading goes on at the next that begins with gzip's mark.
#[derive(Debug)]
pub struct GzMembers<R: BufRead> {
    member: Option<flate2::bufread::GzDecoder<Counted<R>>>,
    between: Option<Counted<R>>,
    /// Where the member begins.
    start: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<R: BufRead> GzMembers<R> {
    /// Reads `file`.
    pub fn new(file: R) -> Self {
        let between = Some(Counted { file, at: 0, put_back: 0 });
        Self { member: None, between, start: 0, buffer: Vec::new(), used: 0 }
    }

    /// Opens the member at or behind the place where the file is; false at its end.
    fn open(&mut self, file: Counted<R>) -> Result<bool, Broken> {
        let mut file = file;
        let skipped_from = file.at;
        match find_mark(&mut file) {
            Ok(true) => {
                self.start = file.at;
                let lost = file.at - skipped_from;
                self.member = Some(flate2::bufread::GzDecoder::new(file));
                if lost > 0 {
                    return Err(Broken { at: skipped_from, found: format!("{lost} bytes that are no gzip member") });
                }
                Ok(true)
            }
            Ok(false) => {
                let lost = file.at - skipped_from;
                self.between = Some(file);
                if lost > 0 {
                    return Err(Broken { at: skipped_from, found: format!("{lost} bytes that are no gzip member") });
                }
                Ok(false)
            }
            Err(error) => {
                let at = file.at;
                // The file cannot be read any further.
                Err(Broken { at, found: error.to_string() })
            }
        }
    }
}

/// Goes to the next gzip mark, wherever the buffer ends; false at the end of the file.
fn find_mark<R: BufRead>(file: &mut Counted<R>) -> std::io::Result<bool> {
    let mut matched = 0;
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(false);
        }
        if matched == 0 {
            let skipped = memchr::memchr(MARK[0], bytes).unwrap_or(bytes.len());
            if skipped > 0 {
                file.consume(skipped);
                continue;
            }
        }
        let byte = bytes[0];
        if byte == MARK[matched] {
            matched += 1;
            file.consume(1);
            if matched == MARK.len() {
                file.at -= MARK.len() as u64;
                file.put_back = MARK.len();
                return Ok(true);
            }
        } else {
            // The byte may itself begin the mark; it is looked at again.
            matched = 0;
        }
    }
}

impl<R: BufRead> Source for GzMembers<R> {
    fn at(&self) -> u64 {
        self.start
    }

    fn fill(&mut self) -> Result<&[u8], Broken> {
        while self.used == self.buffer.len() {
            if self.member.is_none() {
                let Some(file) = self.between.take() else { return Ok(&[]) };
                if !self.open(file)? {
                    return Ok(&[]);
                }
            }
            let Some(member) = &mut self.member else { return Ok(&[]) };
            self.buffer.resize(1 << 15, 0);
            self.used = 0;
            match member.read(&mut self.buffer) {
                Ok(0) => {
                    self.buffer.clear();
                    self.between = self.member.take().map(flate2::bufread::GzDecoder::into_inner);
                }
                Ok(count) => self.buffer.truncate(count),
                Err(error) => {
                    self.buffer.clear();
                    let at = self.start;
                    self.between = self.member.take().map(|member| {
                        let mut file = member.into_inner();
                        // At least past the mark, so that the same member is not opened again.
                        while file.at < at + MARK.len() as u64 && file.put_back > 0 {
                            file.consume(1);
                        }
                        file
                    });
                    return Err(Broken { at, found: format!("a damaged gzip member: {error}") });
                }
            }
        }
        Ok(&self.buffer[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}
